//! Owns how the input of a model must be prepared: with the parameters of the stages that prepared its training data.
//!
//! They stand in the provenance of a published model, and in part in its metadata. What prepared the data otherwise (a
//! stage that is not known here) is an error: a model that is fed with other windows than it learned gives
//! plausible nonsense.

use std::collections::BTreeMap;

use ecgpipe_nn::WindowUse;
use ecgpipe_sdk::{Provenance, Stage, StageError, provenance::StageProvenance};
use serde::de::DeserializeOwned;

use crate::{
    align_beats::{self, AlignBeats, Place},
    detect_peaks::{self, DetectPeaks, Peaks},
    export_onnx::ExportOnnx,
    morphology::{self, Morphology},
    normalise::Normalise,
    window::{self, Window},
};

/// How to prepare a record.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// How to find beats. Always detected: a record to be read has no reference.
    pub detect_peaks: detect_peaks::Params,
    /// How beats are moved before anything is cut or measured, if they are: as in training, and where the model learned at
    /// annotated R-peaks, to where most of the record's are.
    pub align_beats: Option<align_beats::Params>,
    /// How to cut windows.
    pub window: window::Params,
    /// How to compare shapes, where the model takes features of them.
    pub morphology: morphology::Params,
    /// Whether the model looks at windows of beats whose features it knows.
    pub window_beside_features: bool,
    /// What differs from training or had to be assumed, one sentence each.
    pub notes: Vec<String>,
}

/// How to prepare records for a model.
///
/// # Errors
/// If training data was prepared by stages that are not known here, or the metadata is malformed.
pub fn preparation(
    metadata: &BTreeMap<String, String>,
    provenance: Option<&Provenance>,
) -> Result<Preparation, StageError> {
    let mut notes = Vec::new();
    let (mut detect_peaks, mut window) = (detect_peaks::Params::default(), window::Params::default());
    let mut morphology = morphology::Params::default();
    let mut align_beats = None;
    let mut window_beside_features = true;
    match provenance {
        Some(provenance) => {
            let export = provenance.output.split('.').next().unwrap_or_default();
            let export = known::<ExportOnnx>(provenance, export)?;
            let trained = provenance.stages.get(input(export, "model"));
            if let Some(window_use) = trained.and_then(|stage| stage.params.get("window_use")) {
                window_beside_features = serde_json::from_value(window_use.clone()).ok() != Some(WindowUse::WithoutFeatures);
            }
            let normalise = known::<Normalise>(provenance, input(export, "windows"))?;
            let windows = known::<Window>(provenance, input(normalise, "windows"))?;
            let mut beats = input(windows, "beats");
            if let Some(aligned) = provenance.stages.get(beats).filter(|stage| stage.uses == AlignBeats::NAME) {
                align_beats = Some(params::<AlignBeats>(aligned)?);
                beats = input(aligned, "beats");
            }
            let peaks = known::<DetectPeaks>(provenance, beats)?;
            window = params::<Window>(windows)?;
            detect_peaks = params::<DetectPeaks>(peaks)?;
            let features = provenance.stages.get(input(export, "features"));
            if let Some(features) = features.filter(|stage| stage.uses == Morphology::NAME) {
                morphology = params::<Morphology>(features)?;
            }
        }
        None => notes.push(
            "the model has no provenance (it was not published by `ecgpipe run`): beats and windows are prepared with default parameters"
                .to_owned(),
        ),
    }
    if detect_peaks.peaks == Peaks::Reference {
        detect_peaks.peaks = Peaks::Detected;
        notes.push(
            "the model learned from R-peaks of the reference annotations; here the QRS detector finds them".to_owned(),
        );
        // Annotators mark beats of one shape alike. The detector may see the peak of a wide complex now here, now there.
        let leads = detect_peaks.leads.clone();
        align_beats.get_or_insert(align_beats::Params { leads, to: Place::UsualMark, ..Default::default() });
    }
    // The metadata is what export measured on the windows themselves.
    read(metadata, "ecgpipe.window.length_n", &mut window.length_n)?;
    read(metadata, "ecgpipe.window.before_n", &mut window.before_n)?;
    read(metadata, "ecgpipe.window.sampling_frequency_hz", &mut window.sampling_frequency_hz)?;
    let checked = DetectPeaks::check(&detect_peaks).and_then(|()| Window::check(&window));
    let checked = checked.and_then(|()| align_beats.as_ref().map_or(Ok(()), AlignBeats::check));
    checked.and_then(|()| Morphology::check(&morphology)).map_err(|problem| {
        StageError::new(format!("the model names parameters that cannot be: {problem}")).help(EXPORT_AGAIN)
    })?;
    Ok(Preparation { detect_peaks, align_beats, window, morphology, window_beside_features, notes })
}

const EXPORT_AGAIN: &str = "export the model again with this version of ecgpipe";

/// The node that feeds a port.
fn input<'a>(stage: &'a StageProvenance, port: &str) -> &'a str {
    stage.inputs.get(port).and_then(|source| source.split('.').next()).unwrap_or_default()
}

/// A node, if it is of type `S`.
fn known<'a, S: Stage>(provenance: &'a Provenance, node: &str) -> Result<&'a StageProvenance, StageError> {
    let stage = provenance.stages.get(node).ok_or_else(|| {
        StageError::new(format!("the model's provenance has no stage `{node}` where `{}` is expected", S::NAME))
            .help(EXPORT_AGAIN)
    })?;
    if stage.uses != S::NAME {
        let message = format!(
            "the model's training data was prepared by stage `{node}` of type `{}` where `infer` can only repeat `{}`",
            stage.uses,
            S::NAME
        );
        return Err(StageError::new(message).help("predict with a pipeline that has this stage and `infer_onnx`"));
    }
    Ok(stage)
}

fn params<S: Stage>(stage: &StageProvenance) -> Result<S::Params, StageError>
where
    S::Params: DeserializeOwned,
{
    serde_json::from_value(stage.params.clone()).map_err(|error| {
        let message = format!("the model's parameters of `{}` are not those of this version: {error}", S::NAME);
        StageError::new(message).help(EXPORT_AGAIN)
    })
}

fn read<T: std::str::FromStr>(metadata: &BTreeMap<String, String>, key: &str, to: &mut T) -> Result<(), StageError> {
    if let Some(text) = metadata.get(key) {
        let malformed =
            || StageError::new(format!("the model's metadata `{key}` is `{text}`, not a number")).help(EXPORT_AGAIN);
        *to = text.parse().map_err(|_| malformed())?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::{Value, json};

    use super::*;

    /// The provenance of a model whose beats and windows were made with these parameters.
    pub(crate) fn provenance(detect_peaks: Value, window: Value) -> Provenance {
        let node = |uses: &str, params: Value, inputs: Value| json!({"uses": uses, "code": "c0de", "params": params, "inputs": inputs});
        let stages = json!({
            "export": node("export_onnx", json!({}), json!({"windows": "scale.windows", "model": "train.model"})),
            "scale": node("normalise", json!({}), json!({"windows": "cut.windows"})),
            "cut": node("window", window, json!({"beats": "peaks.beats", "signals": "ingest.signals"})),
            "peaks": node("detect_peaks", detect_peaks, json!({"signals": "ingest.signals"})),
            // Another window stage, which is not the model's.
            "aside": node("window", json!({"before_n": 3}), json!({"beats": "peaks.beats"})),
        });
        serde_json::from_value(json!({
            "format": 1, "pipeline": "full", "seed": 7, "output": "export.onnx", "key": "ab", "digest": "cd",
            "git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": true, "ecgpipe": "0.1.0",
            "stages": stages, "sources": {"100": {"100.dat": "ef"}},
        }))
        .unwrap()
    }

    #[test]
    fn prepares_as_training_did() {
        let mut provenance = provenance(
            json!({"peaks": "reference", "leads": ["V5"], "detector": {"refractory_ms": 250.0}}),
            json!({"before_n": 80, "leads": ["V5", "II"], "edge": "drop"}),
        );
        assert_eq!(preparation(&BTreeMap::new(), Some(&provenance)).unwrap().morphology.leads_n, 2);
        let morphology = json!({"uses": "morphology", "code": "c0de", "params": {"leads_n": 1}, "inputs": {}});
        provenance.stages.insert("shape".to_owned(), serde_json::from_value(morphology).unwrap());
        let inputs = &mut provenance.stages.get_mut("export").unwrap().inputs;
        inputs.insert("features".to_owned(), "shape.features".to_owned());
        for (window_use, expected) in [("always", true), ("without_features", false)] {
            let train =
                json!({"uses": "train_cnn", "code": "c0de", "params": {"window_use": window_use}, "inputs": {}});
            provenance.stages.insert("train".to_owned(), serde_json::from_value(train).unwrap());
            let prepared = preparation(&BTreeMap::new(), Some(&provenance)).unwrap();
            assert_eq!(prepared.window_beside_features, expected);
        }
        let prepared = preparation(&BTreeMap::new(), Some(&provenance)).unwrap();
        assert_eq!(prepared.detect_peaks.peaks, Peaks::Detected);
        let align_beats = prepared.align_beats.unwrap();
        assert_eq!((align_beats.to, align_beats.leads), (Place::UsualMark, vec!["V5".to_owned()]));
        assert_eq!(
            (prepared.detect_peaks.detector.refractory_ms, prepared.detect_peaks.leads),
            (250.0, vec!["V5".to_owned()])
        );
        assert_eq!((prepared.window.before_n, prepared.window.edge), (80, window::Edge::Drop));
        assert_eq!(prepared.morphology.leads_n, 1);
        assert_eq!(prepared.notes.len(), 1, "{:?}", prepared.notes);
    }

    #[test]
    fn without_provenance_metadata_and_defaults_decide() {
        let metadata = BTreeMap::from([
            ("ecgpipe.window.length_n".to_owned(), "100".to_owned()),
            ("ecgpipe.window.before_n".to_owned(), "40".to_owned()),
            ("ecgpipe.window.sampling_frequency_hz".to_owned(), "128".to_owned()),
        ]);
        let prepared = preparation(&metadata, None).unwrap();
        let window = &prepared.window;
        assert_eq!((window.length_n, window.before_n, window.sampling_frequency_hz), (100, 40, 128.0));
        assert!(prepared.notes[0].contains("no provenance"));
    }

    #[test]
    fn refuses_what_it_cannot_repeat() {
        let check = |change: &dyn Fn(&mut Provenance), expected: &str| {
            let mut provenance = provenance(json!({}), json!({}));
            change(&mut provenance);
            let error = preparation(&BTreeMap::new(), Some(&provenance)).unwrap_err();
            assert!(error.to_string().contains(expected) && error.help.is_some(), "{error}");
        };
        check(
            &|p| p.stages.get_mut("scale").unwrap().uses = "my_scaling".to_owned(),
            "stage `scale` of type `my_scaling`",
        );
        check(
            &|p| p.stages.get_mut("cut").unwrap().params = json!({"width": 3}),
            "parameters of `window` are not those",
        );
        check(&|p| p.stages.get_mut("cut").unwrap().params = json!({"before_n": 900}), "`before_n` must be less");
        check(&|p| _ = p.stages.remove("peaks"), "no stage `peaks`");
        let metadata = BTreeMap::from([("ecgpipe.window.length_n".to_owned(), "many".to_owned())]);
        let error = preparation(&metadata, None).unwrap_err().to_string();
        assert_eq!(error, "the model's metadata `ecgpipe.window.length_n` is `many`, not a number");
    }
}
