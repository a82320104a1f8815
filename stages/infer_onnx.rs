//! Predicts with the exported ONNX file itself, record by record: what an application would see.

use ecgpipe_nn::{Beats, Session};
use ecgpipe_sdk::{
    Context, Each, Features, NormalisedWindows, One, Onnx, Predictions, Stage, StageError, StageFacts, facts::names,
    ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::{check_beats, check_model_inputs},
    dataset::{model_features, predictions},
    onnx_runtime::{EngineChoice, choose},
};

/// Predicts with an ONNX file.
pub struct InferOnnx;

/// Parameters of `infer_onnx`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What computes. Engines agree to 1e-5; for results that are equal to the last bit on all machines, name one.
    pub engine: EngineChoice,
}

impl Default for Params {
    fn default() -> Self {
        Self { engine: EngineChoice::Auto }
    }
}

ports! {
    /// What `infer_onnx` takes.
    pub struct Inputs {
        /// The file.
        pub onnx: One<Onnx>,
        /// The windows of the record.
        pub windows: Each<NormalisedWindows>,
        /// The features of the record, if the model was trained with them.
        pub features: Option<Each<Features>>,
    }
}

ports! {
    /// What `infer_onnx` gives.
    pub struct Outputs {
        /// Class probabilities of every beat that has a window.
        pub predictions: Each<Predictions>,
    }
}

impl Stage for InferOnnx {
    const NAME: &'static str = "infer_onnx";
    const SUMMARY: &'static str = "predicts with the exported ONNX file through ONNX Runtime (or tract)";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        check_model_inputs(facts, "onnx");
        check_beats(facts, &["windows", "features"]);
        facts.pass("windows", "predictions");
        facts.pass_only("onnx", "predictions", &[names::SPLIT, names::LEARNED_RECORDS, names::ESCAPE_RULE]);
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let chosen = choose(params.engine, cx.data_folder(), cx.offline()).map_err(StageError::new)?;
        for note in chosen.notes {
            cx.note(note);
        }
        let mut session =
            Session::open(&inputs.onnx.bytes, &chosen.engine).map_err(|error| StageError::from_error(&error))?;
        let predictions = predict(&mut session, &inputs.windows, inputs.features.as_deref())?;
        Ok(Outputs { predictions: Each::new(predictions) })
    }
}

/// Predicts all windows of one record.
///
/// # Errors
/// If windows or features are not those that the file was trained on, or the engine fails.
pub fn predict(
    session: &mut Session,
    windows: &NormalisedWindows,
    features: Option<&Features>,
) -> Result<Predictions, StageError> {
    let signature = session.signature().clone();
    let own = &windows.windows;
    let aligned = model_features(&signature, windows, features)?;
    let probabilities = session
        .probabilities(Beats { windows: &own.samples, features: aligned.as_deref() })
        .map_err(|error| StageError::from_error(&error).record(&own.record))?;
    Ok(predictions(windows, signature.class_names, probabilities))
}
