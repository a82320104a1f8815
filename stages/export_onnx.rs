//! Writes a trained model as an ONNX file that says all about itself, and proves on real windows that the file computes what
//! the model computes.

use std::{collections::BTreeMap, num::NonZeroUsize};

use ecgpipe_formats::npy;
use ecgpipe_nn::{Beats, Session, export, predict};
use ecgpipe_sdk::{
    All, Calibration, Context, Features, Files, Model, NamedFile, NormalisedWindows, One, Onnx, Part, Split, Stage,
    StageError, StageFacts, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::AamiClass,
    agreement::{check_beats, check_model_inputs},
    dataset::{Dataset, gather},
    model_artifact::from_artifact,
    onnx_runtime::{EngineChoice, choose},
};

/// Exports a model to ONNX.
pub struct ExportOnnx;

/// Parameters of `export_onnx`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Largest allowed difference between a probability of the file and of the model.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub tolerance: f64,
    /// Windows on which the file is compared with the model, spread evenly over all parts of the split. At least 1.
    #[schemars(range(min = 1))]
    pub compared_n: usize,
    /// What computes the file for the comparison.
    pub engine: EngineChoice,
}

impl Default for Params {
    fn default() -> Self {
        Self { tolerance: 1e-5, compared_n: 2048, engine: EngineChoice::Auto }
    }
}

ports! {
    /// What `export_onnx` takes.
    pub struct Inputs {
        /// The trained model.
        pub model: One<Model>,
        /// Windows of all records, to compare on.
        pub windows: All<NormalisedWindows>,
        /// Features of all records, if the model was trained with them.
        pub features: Option<All<Features>>,
        /// Which beats are for test: one window of each class becomes a sample.
        pub split: One<Split>,
        /// What makes the model's probabilities frequencies, of `calibrate`: the file's are then calibrated.
        pub calibration: Option<One<Calibration>>,
    }
}

ports! {
    /// What `export_onnx` gives.
    pub struct Outputs {
        /// The file.
        pub onnx: One<Onnx>,
        /// `label_map.yaml`: the classes in the order of the probabilities.
        pub label_map: One<Files>,
        /// One test window a class: `sample_n.npy` and so on, shape (1, 1, length), 32-bit floats.
        pub samples: One<Files>,
    }
}

impl Stage for ExportOnnx {
    const NAME: &'static str = "export_onnx";
    const SUMMARY: &'static str = "writes the model as ONNX and checks on real windows that the file equals the model";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.compared_n == 0 {
            return Err("`compared_n` must be at least 1".to_owned());
        }
        if !(params.tolerance > 0.0 && params.tolerance < 1.0) {
            return Err(format!("`tolerance` must be above 0 and below 1, not {}", params.tolerance));
        }
        Ok(())
    }

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        check_model_inputs(facts, "model");
        check_beats(facts, &["windows", "features", "split"]);
        facts.pass("model", "onnx");
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let mut model = from_artifact(&inputs.model)?;
        let mut metadata = metadata(&inputs.windows)?;
        if let Some(calibration) = &inputs.calibration {
            model = calibrated(&model, calibration)?;
            metadata.insert(CALIBRATION_KEY.to_owned(), Certainty::of(calibration).to_json());
        }
        let bytes = export(&model, &metadata).map_err(|error| StageError::from_error(&error))?;
        let parts = [Part::Training, Part::Validation, Part::Test];
        let parts = parts.map(|part| gather(part, &inputs.windows, inputs.features.as_ref(), &inputs.split));
        let [training, validation, test] = parts;
        let (training, validation, test) = (training?, validation?, test?);
        compare(params, &model, &bytes, &[&training, &validation, &test], cx)?;
        let samples = samples(&test, model.signature().window_n);
        let label_map = NamedFile { name: "label_map.yaml".to_owned(), bytes: label_map().into_bytes() };
        Ok(Outputs {
            onnx: One::new(Onnx { bytes: bytes.into() }),
            label_map: One::new(Files::new(vec![label_map])),
            samples: One::new(Files::new(samples)),
        })
    }
}

/// Metadata key of what was done to the probabilities, see [`Certainty`].
pub const CALIBRATION_KEY: &str = "ecgpipe.calibration";

/// What a file says of its calibrated probabilities, as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certainty {
    /// What the log-probabilities were divided by.
    pub temperature: f64,
    /// A beat whose largest probability is lower is uncertain.
    pub uncertain_below: f64,
    /// Share of the other beats that was right where the bound was chosen.
    pub accuracy: f64,
    /// Share of the beats that were not uncertain there.
    pub coverage: f64,
    /// Beats there.
    pub beat_n: u64,
}

impl Certainty {
    fn of(calibration: &Calibration) -> Self {
        let Calibration { temperature, uncertain_below, accuracy, coverage, beat_n, .. } = *calibration;
        Self { temperature, uncertain_below, accuracy, coverage, beat_n }
    }

    fn to_json(self) -> String {
        serde_json::to_value(self).unwrap_or_default().to_string()
    }
}

fn calibrated(model: &ecgpipe_nn::Model, calibration: &Calibration) -> Result<ecgpipe_nn::Model, StageError> {
    if model.signature().class_names != calibration.classes {
        let names = (&model.signature().class_names, &calibration.classes);
        return Err(StageError::new(format!("the model's classes are {:?}, the calibration's {:?}", names.0, names.1)));
    }
    model.scaled(calibration.temperature, &calibration.bias).map_err(|error| StageError::from_error(&error))
}

/// What an application must know to prepare the input; the provenance comes in when the file is published.
fn metadata(windows: &All<NormalisedWindows>) -> Result<BTreeMap<String, String>, StageError> {
    let (_, first) = windows.iter().next().ok_or_else(|| StageError::new("there are no windows"))?;
    let window = &first.windows;
    let frequencies_differ = windows.iter().find(|(_, other)| {
        other.windows.sampling_frequency_hz != window.sampling_frequency_hz || other.windows.before_n != window.before_n
    });
    if let Some((record, _)) = frequencies_differ {
        return Err(StageError::new("its windows are cut otherwise than those of other records").record(record));
    }
    let classes: BTreeMap<&str, &str> = AamiClass::ALL.iter().map(|class| (class.letter(), class.name())).collect();
    let entry = |key: &str, value: String| (format!("ecgpipe.{key}"), value);
    Ok(BTreeMap::from([
        entry("classes", serde_json::to_value(classes).unwrap_or_default().to_string()),
        entry("window.length_n", window.length_n.to_string()),
        entry("window.before_n", window.before_n.to_string()),
        entry("window.sampling_frequency_hz", window.sampling_frequency_hz.to_string()),
        entry("window.lead", "MLII by name, else the first lead".to_owned()),
        entry("normalisation", "each window by itself: (x - min) / (max - min); a flat window is all 0".to_owned()),
        entry("intended_use", "decision support for a cardiologist, never a diagnosis".to_owned()),
    ]))
}

/// Compares file and model on evenly spaced beats, with and without features.
fn compare(
    params: &Params,
    model: &ecgpipe_nn::Model,
    bytes: &[u8],
    parts: &[&Dataset],
    cx: &Context<'_>,
) -> Result<(), StageError> {
    let (window_n, feature_n) = (model.signature().window_n, model.signature().feature_n());
    let beat_n: usize = parts.iter().map(|part| part.beat_n()).sum();
    let step = beat_n.div_ceil(params.compared_n).max(1);
    let (mut windows, mut features) = (Vec::new(), Vec::new());
    for part in parts {
        for row in (0..part.beat_n()).step_by(step) {
            windows.extend_from_slice(&part.windows[row * window_n..][..window_n]);
            if let Some(rows) = part.features.as_ref().filter(|_| feature_n > 0) {
                features.extend_from_slice(&rows[row * feature_n..][..feature_n]);
            }
        }
    }
    let chosen = choose(params.engine, cx.data_folder(), cx.offline()).map_err(StageError::new)?;
    let mut session = Session::open(bytes, &chosen.engine).map_err(|error| StageError::from_error(&error))?;
    let mut worst: f32 = 0.0;
    for features in [Some(features.as_slice()).filter(|rows| !rows.is_empty()), None] {
        let beats = Beats { windows: &windows, features };
        let of_file = session.probabilities(beats).map_err(|error| StageError::from_error(&error))?;
        let of_model = predict(model, beats, NonZeroUsize::MIN).map_err(|error| StageError::from_error(&error))?;
        let difference = of_file.iter().zip(&of_model).map(|(a, b)| (a - b).abs());
        worst = difference.fold(worst, |worst, next| if next > worst || next.is_nan() { next } else { worst });
    }
    if worst.is_nan() || f64::from(worst) > params.tolerance {
        let message =
            format!("the exported file differs from the model by {worst:e}, more than {:e}", params.tolerance);
        return Err(StageError::new(message).help("this is a defect of the export; please report it with the model"));
    }
    let info = session.engine();
    let compared_n = windows.len() / window_n;
    cx.note(format!("file equals model to {worst:.1e} on {compared_n} windows ({} {})", info.name, info.version));
    Ok(())
}

fn label_map() -> String {
    let mut text = "# Classes in the order of the output `probabilities` (ANSI/AAMI EC57).\n".to_owned();
    for class in AamiClass::ALL {
        text.push_str(&format!("{}:\n  class: {}\n  name: {}\n", class.index(), class.letter(), class.name()));
    }
    text
}

/// The first test window of each class.
fn samples(test: &Dataset, window_n: usize) -> Vec<NamedFile> {
    let sample = |class: AamiClass| {
        let row = test.labels.iter().position(|&label| usize::from(label) == class.index())?;
        let values = test.windows[row * window_n..][..window_n].to_vec();
        let bytes = npy::write(&npy::Array { shape: vec![1, 1, window_n], values });
        Some(NamedFile { name: format!("sample_{}.npy", class.letter().to_lowercase()), bytes })
    };
    AamiClass::ALL.into_iter().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_first_of_each_class_and_absent_classes_have_none() {
        let test = Dataset { windows: vec![0.0, 0.1, 0.2, 0.3, 0.4, 0.5], labels: vec![2, 0, 2], ..Dataset::default() };
        let files = samples(&test, 2);
        let read = |file: &NamedFile| npy::read(&file.bytes).expect("a valid array").values;
        let found: Vec<(&str, Vec<f32>)> = files.iter().map(|file| (file.name.as_str(), read(file))).collect();
        assert_eq!(found, [("sample_n.npy", vec![0.2, 0.3]), ("sample_v.npy", vec![0.0, 0.1])]);
    }

    #[test]
    fn the_label_map_names_all_classes_in_order() {
        let map = label_map();
        let letters: Vec<&str> = map.lines().filter_map(|line| line.strip_prefix("  class: ")).collect();
        assert_eq!(letters, ["N", "S", "V", "F", "Q"]);
    }
}
