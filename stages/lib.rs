//! The stages of ecgpipe: one stage, one file (or folder). This file is THE list.
//!
//! To add a stage: write `stages/<name>.rs`, then add one line to the modules and one to [`register`]. `tests/tidy.rs` finds
//! a stage file that is missing here. How to write one: `stages/README.md`.

pub mod aami;
pub mod agreement;
pub mod calibration;
mod causal;
pub mod chart;
pub mod database;
pub mod dataset;
pub mod hold_out;
pub mod infer;
pub mod lead;
pub mod long_recording;
pub mod matching;
pub mod model_artifact;
pub mod onnx_runtime;
pub mod record_source;
pub mod resample;
pub mod saved_trainings;
pub mod sums;

pub mod align_beats;
pub mod augment;
pub mod calibrate;
pub mod cross_validate;
pub mod detect_peaks;
pub mod evaluate;
pub mod evaluate_peaks;
pub mod export_onnx;
pub mod infer_onnx;
pub mod ingest_files;
pub mod ingest_wfdb;
pub mod morphology;
pub mod normalise;
pub mod plot_beats;
pub mod plot_confusion;
pub mod plot_curves;
pub mod plot_reliability;
pub mod plot_strips;
pub mod predict_held_out;
pub mod rhythm;
pub mod signal_quality;
pub mod split;
pub mod synthesise;
pub mod train_baseline;
pub mod train_cnn;
pub mod window;

use ecgpipe_sdk::{Registry, Stage};

include!(concat!(env!("OUT_DIR"), "/code_identity.rs"));

/// Registers every stage.
pub fn register(registry: &mut Registry) {
    add::<align_beats::AlignBeats>(registry);
    add::<augment::Augment>(registry);
    add::<calibrate::Calibrate>(registry);
    add::<cross_validate::CrossValidate>(registry);
    add::<detect_peaks::DetectPeaks>(registry);
    add::<evaluate::Evaluate>(registry);
    add::<evaluate_peaks::EvaluatePeaks>(registry);
    add::<export_onnx::ExportOnnx>(registry);
    add::<infer_onnx::InferOnnx>(registry);
    add::<ingest_files::IngestFiles>(registry);
    add::<ingest_wfdb::IngestWfdb>(registry);
    add::<morphology::Morphology>(registry);
    add::<normalise::Normalise>(registry);
    add::<plot_beats::PlotBeats>(registry);
    add::<plot_confusion::PlotConfusion>(registry);
    add::<plot_curves::PlotCurves>(registry);
    add::<plot_reliability::PlotReliability>(registry);
    add::<plot_strips::PlotStrips>(registry);
    add::<predict_held_out::PredictHeldOut>(registry);
    add::<rhythm::Rhythm>(registry);
    add::<signal_quality::SignalQuality>(registry);
    add::<split::Split>(registry);
    add::<synthesise::Synthesise>(registry);
    add::<train_baseline::TrainBaseline>(registry);
    add::<train_cnn::TrainCnn>(registry);
    add::<window::Window>(registry);
}

fn add<S: Stage>(registry: &mut Registry) {
    let identity = code_identity(S::NAME);
    assert!(!identity.is_empty(), "stage `{}` does not live in a module of its name", S::NAME);
    registry.register::<S>(identity);
}
