//! Predictions from an ONNX file, through ONNX Runtime or, where that cannot be had, through tract.
//!
//! Invariants: both engines give the same probabilities to 1e-5 and burn's to 1e-5 (`engines_agree_with_burn`); a
//! session computes on the thread that calls it and on no other (parallelise over sessions); bytes that
//! [`crate::export`] did not write are refused before an engine sees them (`hostile_bytes_are_errors`).

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use prost::Message;
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, Tensor, TypedRunnableModel, tvec};

use crate::model::{Beats, BeatsError, Signature};
use crate::onnx::{FEATURES_INPUT, File, OnnxError, PROBABILITIES_OUTPUT, WINDOW_INPUT};
use crate::runtime::Library;

/// Version of the crate `tract-onnx` (`the_version_of_tract_is_that_of_the_lock_file`).
const TRACT_VERSION: &str = "0.23.9";
/// Beats that an engine gets at a time, to bound memory.
const BATCH_N: usize = 256;

/// What computes.
#[derive(Debug, Clone)]
pub enum Engine {
    /// ONNX Runtime.
    Ort(Library),
    /// tract, which is compiled in.
    Tract,
}

/// What computes, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `onnxruntime` or `tract`.
    pub name: &'static str,
    /// Its version.
    pub version: String,
}

/// An ONNX file, ready to predict.
pub struct Session {
    signature: Signature,
    metadata: BTreeMap<String, String>,
    info: EngineInfo,
    state: State,
    features: Vec<f32>,
}

enum State {
    Ort(Box<ort::session::Session>),
    Tract(Arc<TypedRunnableModel>),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("signature", &self.signature).field("info", &self.info).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// When the bytes are not a file that [`crate::export`] wrote, or the engine refuses it.
    pub fn open(bytes: &[u8], engine: &Engine) -> Result<Self, InferenceError> {
        let file = File::read(bytes)?;
        let (info, state) = match engine {
            Engine::Ort(library) => {
                let session = open_ort(bytes, library)
                    .map_err(|error| InferenceError::Open { engine: "ONNX Runtime", text: error.to_string() })?;
                let info = EngineInfo { name: "onnxruntime", version: library.version.clone() };
                (info, State::Ort(Box::new(session)))
            }
            Engine::Tract => {
                let info = EngineInfo { name: "tract", version: TRACT_VERSION.to_owned() };
                (info, State::Tract(open_tract(file.proto)?))
            }
        };
        Ok(Self { signature: file.signature, metadata: file.metadata, info, state, features: Vec::new() })
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What computes.
    pub fn engine(&self) -> &EngineInfo {
        &self.info
    }

    /// The probabilities `[beat, class]` of beats.
    ///
    /// # Errors
    /// When the beats do not fit the model or the engine fails.
    pub fn probabilities(&mut self, beats: Beats<'_>) -> Result<Vec<f32>, InferenceError> {
        let beat_n = beats.check(&self.signature)?;
        let (window_n, class_n) = (self.signature.window_n, self.signature.class_n());
        let mut all = Vec::with_capacity(beat_n * class_n);
        for start in (0..beat_n).step_by(BATCH_N) {
            let batch_n = BATCH_N.min(beat_n - start);
            let windows = &beats.windows[start * window_n..][..batch_n * window_n];
            let has_features = self.fill_features(beats, start, batch_n);
            let fail = |text: String| InferenceError::Run { engine: self.info.name, start, batch_n, text };
            let before = all.len();
            match &mut self.state {
                State::Ort(session) => {
                    let features = has_features.then_some(&self.features[..]);
                    run_ort(session, windows, [batch_n, window_n], features, &mut all)
                        .map_err(|error| fail(error.to_string()))?;
                }
                State::Tract(plan) => {
                    let features = (self.signature.feature_n() > 0).then_some(&self.features[..]);
                    run_tract(plan, windows, [batch_n, window_n], features, &mut all)
                        .map_err(|error| fail(format!("{error:#}")))?;
                }
            }
            let given_n = all.len() - before;
            if given_n != batch_n * class_n {
                return Err(fail(format!("it gave {given_n} numbers for {batch_n} beats of {class_n} classes")));
            }
        }
        Ok(all)
    }

    /// Fills `self.features` with rows of the file's features input; false where no beat of the batch has features.
    fn fill_features(&mut self, beats: Beats<'_>, start: usize, batch_n: usize) -> bool {
        let feature_n = self.signature.feature_n();
        self.features.clear();
        if feature_n == 0 {
            return false;
        }
        let mut any = false;
        for beat_idx in start..start + batch_n {
            match beats.feature_row(&self.signature, beat_idx) {
                Some(row) => {
                    self.features.extend_from_slice(row);
                    self.features.push(1.0);
                    any = true;
                }
                None => self.features.resize(self.features.len() + feature_n + 1, 0.0),
            }
        }
        any
    }
}

fn open_ort(bytes: &[u8], library: &Library) -> ort::Result<ort::session::Session> {
    let builder = ort::session::Session::builder(&library.environment)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All)?;
    // One thread: threads of a session spin while they wait, and a model this small gains nothing from two.
    builder.with_intra_threads(1)?.with_inter_threads(1)?.commit_from_memory(bytes)
}

fn run_ort(
    session: &mut ort::session::Session,
    windows: &[f32],
    [batch_n, window_n]: [usize; 2],
    features: Option<&[f32]>,
    to: &mut Vec<f32>,
) -> ort::Result<()> {
    let windows = TensorRef::from_array_view(([batch_n, 1, window_n], windows))?;
    let outputs = match features {
        Some(features) => {
            let features = TensorRef::from_array_view(([batch_n, features.len() / batch_n], features))?;
            session.run(ort::inputs![WINDOW_INPUT => windows, FEATURES_INPUT => features])?
        }
        None => session.run(ort::inputs![WINDOW_INPUT => windows])?,
    };
    let (_, values) = outputs[PROBABILITIES_OUTPUT].try_extract_tensor::<f32>()?;
    to.extend_from_slice(values);
    Ok(())
}

/// tract takes an input that is an initializer for a constant, so the features become an input that is always given,
/// with as many rows as the window.
fn open_tract(mut proto: crate::onnx::proto::ModelProto) -> Result<Arc<TypedRunnableModel>, InferenceError> {
    use crate::onnx::proto::tensor_shape_proto::dimension::Value;
    use crate::onnx::proto::type_proto;
    if let Some(graph) = &mut proto.graph {
        graph.initializer.retain(|tensor| tensor.name() != FEATURES_INPUT);
        let types = graph.input.iter_mut().filter_map(|input| input.r#type.as_mut()?.value.as_mut());
        for kind in types {
            if let type_proto::Value::TensorType(tensor) = kind
                && let Some(first) = tensor.shape.as_mut().and_then(|shape| shape.dim.first_mut())
            {
                first.value = Some(Value::DimParam("batch".to_owned()));
            }
        }
    }
    let bytes = proto.encode_to_vec();
    let open = || tract_onnx::onnx().model_for_read(&mut Cursor::new(bytes))?.into_optimized()?.into_runnable();
    // tract asserts what a damaged file may break; what it does not catch ends here.
    let problem = |text: String| InferenceError::Open { engine: "tract", text };
    match std::panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(plan) => plan.map_err(|error| problem(format!("{error:#}"))),
        Err(_) => Err(problem("it panicked".to_owned())),
    }
}

fn run_tract(
    plan: &Arc<TypedRunnableModel>,
    windows: &[f32],
    [batch_n, window_n]: [usize; 2],
    features: Option<&[f32]>,
    to: &mut Vec<f32>,
) -> tract_onnx::prelude::TractResult<()> {
    let mut inputs = tvec!(Tensor::from_shape(&[batch_n, 1, window_n], windows)?.into());
    if let Some(features) = features {
        inputs.push(Tensor::from_shape(&[batch_n, features.len() / batch_n], features)?.into());
    }
    let outputs = plan.run(inputs)?;
    to.extend_from_slice(outputs[0].view().as_slice::<f32>()?);
    Ok(())
}

/// Why a file could not be opened or beats not be predicted.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The bytes are not a file that [`crate::export`] wrote.
    #[error(transparent)]
    File(#[from] OnnxError),
    /// The engine refused the file.
    #[error("{engine} cannot open the model: {text}")]
    Open {
        /// The engine.
        engine: &'static str,
        /// What it said.
        text: String,
    },
    /// The beats do not fit the model.
    #[error("the beats do not fit the model: {0}")]
    Beats(#[from] BeatsError),
    /// The engine failed.
    #[error("{engine} failed at the {batch_n} beats from beat {start} on: {text}")]
    Run {
        /// The engine.
        engine: &'static str,
        /// First beat of the batch.
        start: usize,
        /// Beats in the batch.
        batch_n: usize,
        /// What it said.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_tract_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock").replace("\r\n", "\n");
        let entry = format!("name = \"tract-onnx\"\nversion = \"{}\"\n", super::TRACT_VERSION);
        assert!(lock.contains(&entry), "the lock file has no {entry}");
    }
}
