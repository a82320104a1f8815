//! Trains a logistic regression on averaged windows and, where connected, features: the baseline that keeps the
//! network honest.

use ecgpipe_nn::{BaselineConfig, LogisticConfig, Signature, train_baseline};
use ecgpipe_sdk::{
    All, Context, FactProblem, Features, Metrics, Model, NormalisedWindows, One, Part, Place, Split, Stage, StageError,
    StageFacts, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::training_facts,
    dataset::{gather, signature},
    model_artifact::to_artifact,
};

/// Trains the logistic baseline.
pub struct TrainBaseline;

/// Parameters of `train_baseline`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The window is averaged over this many samples at a time. At least 1.
    #[schemars(range(min = 1))]
    pub pool_n: usize,
    /// L2 penalty on the weights, for the sum of the loss over all rows.
    #[schemars(range(min = 0))]
    pub penalty: f64,
    /// Iterations of the solver, at most. At least 1.
    #[schemars(range(min = 1))]
    pub iterations: u64,
    /// Classes get rows in proportion to their beats to the power of one minus this: 0 as in the data, 1 all alike.
    #[schemars(range(min = 0, max = 1))]
    pub class_weight_power: f64,
    /// Rows that the solver sees; chosen evenly, without randomness.
    #[schemars(range(min = 1))]
    pub row_n: usize,
    /// Whether a class without any training beat is an error.
    pub require_every_class: bool,
}

impl Default for Params {
    fn default() -> Self {
        let defaults = BaselineConfig::new(Signature::aami(Vec::new()));
        Self {
            pool_n: defaults.logistic.pool_n,
            penalty: defaults.penalty,
            iterations: defaults.iteration_n,
            class_weight_power: defaults.class_weight_power,
            row_n: defaults.row_n,
            require_every_class: defaults.require_every_class,
        }
    }
}

ports! {
    /// What `train_baseline` takes.
    pub struct Inputs {
        /// Windows of all records.
        pub windows: All<NormalisedWindows>,
        /// Features of all records.
        pub features: Option<All<Features>>,
        /// Which beats are for training.
        pub split: One<Split>,
    }
}

ports! {
    /// What `train_baseline` gives.
    pub struct Outputs {
        /// The weights.
        pub model: One<Model>,
        /// Accuracy on the training and the validation part.
        pub metrics: One<Metrics>,
    }
}

impl Stage for TrainBaseline {
    const NAME: &'static str = "train_baseline";
    const SUMMARY: &'static str = "trains a logistic regression on windows and features (linfa)";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.pool_n == 0 {
            return Err("`pool_n` must be at least 1".to_owned());
        }
        if params.iterations == 0 {
            return Err("`iterations` must be at least 1".to_owned());
        }
        if params.row_n == 0 {
            return Err("`row_n` must be at least 1".to_owned());
        }
        if !(0.0..=1.0).contains(&params.class_weight_power) {
            return Err(format!("`class_weight_power` must be from 0 to 1, not {}", params.class_weight_power));
        }
        if !(params.penalty >= 0.0 && params.penalty.is_finite()) {
            return Err(format!("`penalty` must be a number of at least 0, not {}", params.penalty));
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        training_facts(facts, "model");
        if let Some(length_n) = facts.get("windows", names::LENGTH_N)
            && length_n.value.as_u64().is_some_and(|length_n| params.pool_n as u64 > length_n)
        {
            let message =
                format!("`pool_n` must be at most the length of a window ({}), not {}", length_n.value, params.pool_n);
            let place = Place::Parameter("pool_n");
            facts.tell(FactProblem::error(place, message).because(names::LENGTH_N, length_n));
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let signature = signature(&inputs.windows, inputs.features.as_ref())?;
        let gather = |part| gather(part, &inputs.windows, inputs.features.as_ref(), &inputs.split);
        let (training, validation) = (gather(Part::Training)?, gather(Part::Validation)?);
        cx.note(format!("{} training beats", training.beat_n()));
        let config = BaselineConfig {
            logistic: LogisticConfig { signature, pool_n: params.pool_n },
            penalty: params.penalty,
            iteration_n: params.iterations,
            class_weight_power: params.class_weight_power,
            row_n: params.row_n,
            require_every_class: params.require_every_class,
        };
        let model = train_baseline(&config, training.samples()).map_err(|error| StageError::from_error(&error))?;
        let mut metrics = Metrics::default();
        for (part, dataset) in [("train", &training), ("validation", &validation)] {
            if dataset.beat_n() == 0 {
                continue;
            }
            let probabilities = ecgpipe_nn::predict(&model, dataset.beats(), std::num::NonZeroUsize::MIN)
                .map_err(|error| StageError::from_error(&error))?;
            let class_n = model.signature().class_n();
            let right = probabilities
                .chunks_exact(class_n)
                .zip(&dataset.labels)
                .filter(|(row, label)| (0..class_n).all(|idx| row[idx] <= row[usize::from(**label)]));
            metrics.push(format!("{part}/accuracy"), 0, right.count() as f64 / dataset.beat_n() as f64);
        }
        metrics.push("train/parameters", 0, model.parameter_n() as f64);
        Ok(Outputs { model: One::new(to_artifact(&model)?), metrics: One::new(metrics) })
    }
}
