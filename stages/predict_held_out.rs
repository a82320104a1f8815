//! `predict_held_out`: lets each model of a cross-validation judge the records that it has not seen.
//!
//! Records that are in no fold (those of the test part above all) get no prediction: a table without rows.

use std::num::NonZeroUsize;

use ecgpipe_nn::{Beats, predict};
use ecgpipe_sdk::{
    Context, Each, Features, FoldModels, NormalisedWindows, One, Predictions, Stage, StageError, StageFacts,
    facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::AamiClass,
    agreement::{check_beats, check_model_inputs},
    dataset::{model_features, predictions},
    model_artifact::from_artifact,
};

/// Predicts beats of held-out records.
pub struct PredictHeldOut;

/// `predict_held_out` has no parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

ports! {
    /// What `predict_held_out` takes.
    pub struct Inputs {
        /// The models of `cross_validate`.
        pub models: One<FoldModels>,
        /// The windows of the record.
        pub windows: Each<NormalisedWindows>,
        /// The features of the record, if the models were trained with them.
        pub features: Option<Each<Features>>,
    }
}

ports! {
    /// What `predict_held_out` gives.
    pub struct Outputs {
        /// Class probabilities of every beat that has a window, by the model that has not seen the record.
        pub predictions: Each<Predictions>,
    }
}

impl Stage for PredictHeldOut {
    const NAME: &'static str = "predict_held_out";
    const SUMMARY: &'static str =
        "predicts each record by the model of a cross-validation that has not seen it; records of no fold get no rows";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        check_model_inputs(facts, "models");
        check_beats(facts, &["windows", "features"]);
        facts.pass("windows", "predictions");
        facts.pass_only("models", "predictions", &[names::SPLIT, names::LEARNED_RECORDS, names::ESCAPE_RULE]);
    }

    fn run(_: &Params, inputs: Inputs, _: &Context<'_>) -> Result<Outputs, StageError> {
        let own = &inputs.windows.windows;
        let predictions = match inputs.models.of(&own.record) {
            Some(model) => {
                let model = from_artifact(model)?;
                let aligned = model_features(model.signature(), &inputs.windows, inputs.features.as_deref())?;
                let beats = Beats { windows: &own.samples, features: aligned.as_deref() };
                let probabilities = predict(&model, beats, NonZeroUsize::MIN)
                    .map_err(|error| StageError::from_error(&error).record(&own.record))?;
                predictions(&inputs.windows, model.signature().class_names.clone(), probabilities)
            }
            None => Predictions {
                record: own.record.clone(),
                patient: own.patient.clone(),
                classes: AamiClass::ALL.map(|class| class.letter().to_owned()).to_vec(),
                beat_idx: Vec::new(),
                sample_idx: Vec::new(),
                symbol: Vec::new(),
                probabilities: Vec::new(),
            },
        };
        Ok(Outputs { predictions: Each::new(predictions) })
    }
}
