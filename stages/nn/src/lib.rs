//! The beat classifier: its network and training in burn, a logistic baseline in linfa, an own ONNX writer, and
//! inference from the ONNX file through ONNX Runtime or tract.
//!
//! | module | owns |
//! |---|---|
//! | [`model`] | a trained model as plain data; beats and samples as slices |
//! | [`network`] | the convolutional network: its layers, shapes, forward pass |
//! | [`train`](mod@train) | training of the network, prediction with burn |
//! | [`device`] | where a network is trained: processor or graphics card |
//! | [`checkpoint`] | the state of a training between two epochs, and its bytes |
//! | [`baseline`] | the logistic regression |
//! | [`noise`] | noise and waves that cost little |
//! | [`onnx`] | the ONNX contract: writing a file, reading what it says about itself |
//! | [`inference`] | predictions from an ONNX file |
//! | [`runtime`] | finding, fetching and loading ONNX Runtime |
//!
//! The API is slices in, plain data out: this crate knows nothing of records, Parquet, stages or the engine, and it
//! is the only one that knows burn, linfa, ort and tract.
//!
//! Invariant: the same configuration and samples give the same model, the same model gives the same ONNX bytes,
//! whatever the number of threads (`tests/training.rs`, `tests/onnx.rs`); on a graphics card only the latter.

pub mod baseline;
pub mod checkpoint;
pub mod device;
pub mod inference;
pub mod model;
pub mod network;
pub mod noise;
pub mod onnx;
mod random;
pub mod runtime;
mod score;
pub mod train;
mod workers;

pub use baseline::{BaselineConfig, LogisticConfig, train_baseline};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use device::{Device, DeviceError};
pub use inference::{Engine, EngineInfo, InferenceError, Session};
pub use model::{Architecture, Beats, BeatsError, EnsembleConfig, Model, ModelError, Samples, Signature, Tensor};
pub use network::{ConvolutionConfig, NetworkConfig, WindowUse};
pub use onnx::{OnnxError, export, read_metadata, read_signature};
pub use runtime::{Found, Library, RuntimeError, Search};
pub use score::Scores;
pub use train::{
    Conduct, Draws, Ending, EpochReport, EpochScores, Moment, Selection, Trained, TrainingConfig, TrainingError,
    predict, train, train_on_draws,
};
