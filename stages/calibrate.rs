//! `calibrate`: from predictions for labelled beats that the model has not seen, what makes its probabilities frequencies,
//! and below which probability a beat should count as uncertain.
//!
//! The method and its sources are in [`crate::calibration`]. Meant for the predictions of a cross-validation
//! (`predict_held_out`): a model's probabilities on its own training beats are far too sure, and the test part must stay
//! unseen.

use ecgpipe_sdk::{
    All, Calibration, Context, Metrics, One, Part, Predictions, Split, Stage, StageError, StageFacts, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::check_beats,
    calibration::{Coverage, Labelled, Scaling, bins, coverages, expected_error, widest},
};

/// Fits a calibration.
pub struct Calibrate;

/// How to calibrate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What is fitted. Default: `temperature`.
    pub method: Method,
    /// Square penalty on each class's bias, for `temperature_and_bias`: a rare class without evidence keeps 0.
    #[schemars(range(min = 0))]
    pub bias_penalty: f64,
    /// The part whose beats are fitted on. Default: `training`, of which `predict_held_out` has predictions.
    pub part: FittedPart,
    /// Share of right classes that beats must have which are not uncertain, 0 to 1: the bound is as low as this allows.
    /// Default: 0.99.
    #[schemars(range(min = 0, max = 1))]
    pub certain_accuracy: f64,
}

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One number, which changes no class.
    Temperature,
    /// One number, and another for each class: rare classes may become more or less frequent.
    TemperatureAndBias,
}

/// The part whose beats are fitted on; never the test part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FittedPart {
    /// The training part.
    Training,
    /// The validation part.
    Validation,
}

impl Default for Params {
    fn default() -> Self {
        Self { method: Method::Temperature, bias_penalty: 1e-3, part: FittedPart::Training, certain_accuracy: 0.99 }
    }
}

ports! {
    /// What `calibrate` takes.
    pub struct Inputs {
        /// Class probabilities, by models that have not seen the record.
        pub predictions: All<Predictions>,
        /// Part and class of each beat.
        pub split: One<Split>,
    }
}

ports! {
    /// What `calibrate` gives.
    pub struct Outputs {
        /// For `export_onnx` and `plot_reliability`.
        pub calibration: One<Calibration>,
        /// `calibration/...`: temperature, biases, loss and calibration error before and after, the bound.
        pub metrics: One<Metrics>,
    }
}

impl Stage for Calibrate {
    const NAME: &'static str = "calibrate";
    const SUMMARY: &'static str =
        "fits a temperature (and class biases) to predictions of unseen beats, and the bound of uncertain ones";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(0.0..=1.0).contains(&params.certain_accuracy) {
            return Err(format!("`certain_accuracy` must be 0 to 1, not {}", params.certain_accuracy));
        }
        if !(params.bias_penalty.is_finite() && params.bias_penalty >= 0.0) {
            return Err(format!("`bias_penalty` must be 0 or more, not {}", params.bias_penalty));
        }
        Ok(())
    }

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        check_beats(facts, &["predictions", "split"]);
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let part = match params.part {
            FittedPart::Training => Part::Training,
            FittedPart::Validation => Part::Validation,
        };
        let given = Labelled::gather(part, &inputs.predictions, &inputs.split)?;
        if given.labels.is_empty() {
            let message = format!("no beat of the {} part has a prediction", part.as_str());
            return Err(StageError::new(message)
                .help("connect `predictions` to `predict_held_out`, or give the split a validation part"));
        }
        if given.absent_n > 0 {
            cx.note(format!("{} beats of the {} part have no prediction", given.absent_n, part.as_str()));
        }
        let scaling = Scaling::fitted(&given, params.method == Method::TemperatureAndBias, params.bias_penalty);
        let scaled = given.scaled(&scaling);
        let judged = scaled.judged();
        let bound = bound(&coverages(&judged), params.certain_accuracy);
        if bound.accuracy < params.certain_accuracy {
            cx.warn(format!(
                "not even the surest beats are right {:.2} % of the time: all count as uncertain",
                100.0 * params.certain_accuracy
            ));
        }
        let mut metrics = Metrics::default();
        let mut push = |name: &str, value: f64| metrics.push(format!("calibration/{name}"), 0, value);
        push("temperature", scaling.temperature);
        if params.method == Method::TemperatureAndBias {
            for (class, bias) in given.classes.iter().zip(&scaling.bias) {
                push(&format!("bias_{}", class.to_lowercase()), *bias);
            }
        }
        push("log_loss_before", given.loss());
        push("log_loss", scaled.loss());
        push("error_before", expected_error(&bins(&given.judged(), BIN_N)));
        push("error", expected_error(&bins(&judged, BIN_N)));
        push("uncertain_below", bound.probability);
        push("certain_share", bound.coverage);
        push("certain_accuracy", bound.accuracy);
        let calibration = Calibration {
            temperature: scaling.temperature,
            classes: given.classes,
            bias: scaling.bias,
            uncertain_below: bound.probability,
            accuracy: bound.accuracy,
            coverage: bound.coverage,
            beat_n: given.labels.len() as u64,
        };
        Ok(Outputs { calibration: One::new(calibration), metrics: One::new(metrics) })
    }
}

/// Bins of the calibration error.
const BIN_N: usize = 15;

/// Where beats begin to be certain enough; above 1, where none are.
fn bound(points: &[Coverage], accuracy: f64) -> Coverage {
    let none = Coverage { probability: 1.0 + f64::EPSILON, coverage: 0.0, accuracy: 0.0 };
    widest(points, accuracy).unwrap_or(none)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, atomic::AtomicBool},
    };

    use ecgpipe_sdk::{RecordId, SplitRow};

    use super::*;

    /// One record of `beats`: probability of N, and the class.
    fn inputs(beats: &[(f32, &str)], part: Part) -> Inputs {
        let record = RecordId::new("x").unwrap();
        let n = beats.len() as i64;
        let predictions = Predictions {
            record: record.clone(),
            patient: "x".to_owned(),
            classes: vec!["N".to_owned(), "V".to_owned()],
            beat_idx: (0..n).collect(),
            sample_idx: (0..n).collect(),
            symbol: vec![None; beats.len()],
            probabilities: beats.iter().flat_map(|(probability, _)| [*probability, 1.0 - probability]).collect(),
        };
        let row = |(beat_idx, (_, class)): (i64, &(f32, &str))| SplitRow {
            record: record.clone(),
            patient: "x".to_owned(),
            beat_idx,
            class: (*class).to_owned(),
            part,
        };
        let split =
            Split { strategy: "lists".to_owned(), leaks: Vec::new(), rows: (0..).zip(beats).map(row).collect() };
        let predictions = All::new(BTreeMap::from([(record, Arc::new(predictions))]));
        Inputs { predictions, split: One::new(split) }
    }

    fn run(params: &Params, inputs: Inputs) -> Result<Outputs, StageError> {
        let cancel = AtomicBool::new(false);
        Calibrate::run(params, inputs, &Context::new(&cancel, &|_| ()))
    }

    #[test]
    fn a_model_that_is_too_sure_is_cooled() {
        // At 0.99 and at 0.01 one in ten is wrong.
        let mut beats = vec![(0.99, "N"); 90];
        beats.extend(vec![(0.99, "V"); 10]);
        beats.extend(vec![(0.01, "V"); 90]);
        beats.extend(vec![(0.01, "N"); 10]);
        beats.extend(vec![(0.9999, "N"); 300]);
        let outputs =
            run(&Params { certain_accuracy: 0.95, ..Params::default() }, inputs(&beats, Part::Training)).unwrap();
        let calibration = &outputs.calibration;
        assert!(calibration.temperature > 1.2, "{calibration:?}");
        assert_eq!((calibration.bias.as_slice(), calibration.beat_n), (&[0.0, 0.0][..], 500));
        assert_eq!((calibration.coverage, calibration.accuracy), (1.0, 0.96));
        let of = |key: &str| outputs.metrics.points.iter().find(|point| point.key == key).unwrap().value;
        assert!(of("calibration/log_loss") < of("calibration/log_loss_before"));
        let strict = Params { certain_accuracy: 0.99, ..Params::default() };
        let calibration = run(&strict, inputs(&beats, Part::Training)).unwrap().calibration;
        assert_eq!((calibration.coverage, calibration.accuracy), (0.6, 1.0));
        let wrong = run(&strict, inputs(&[(0.9, "V"), (0.8, "V")], Part::Training)).unwrap().calibration;
        assert!(wrong.uncertain_below > 1.0 && wrong.coverage == 0.0);
    }

    #[test]
    fn nothing_to_fit_on_is_an_error() {
        let error = run(&Params::default(), inputs(&[(0.9, "N")], Part::Test)).err().unwrap();
        assert_eq!(error.to_string(), "no beat of the training part has a prediction");
        let error = Calibrate::check(&Params { certain_accuracy: 1.5, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`certain_accuracy` must be 0 to 1, not 1.5");
    }
}
