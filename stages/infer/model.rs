//! Owns the model's file: its digest, what it says about itself, and opening it.

use std::{collections::BTreeMap, fs, io, path::Path};

use ecgpipe_nn::{Session, Signature, read_metadata, read_signature};
use ecgpipe_sdk::{Onnx, Provenance, StageError};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{UNCALIBRATED, findings::UNCERTAIN_BELOW};
use crate::{
    aami::AamiClass,
    export_onnx::{CALIBRATION_KEY, Certainty},
    onnx_runtime::{EngineChoice, choose},
};

/// Metadata that is told apart from the rest, as it is long.
const PROVENANCE_KEY: &str = "ecgpipe.provenance";

/// A model's file, checked but not opened.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// What there is to tell about it.
    pub about: About,
    /// Where it comes from, if it was published by a run.
    pub provenance: Option<Provenance>,
    /// What it takes and gives.
    pub signature: Signature,
    /// The classes in the order of the probabilities.
    pub classes: Vec<AamiClass>,
    /// What its probabilities are worth, if it was calibrated.
    pub certainty: Option<Certainty>,
    bytes: Vec<u8>,
}

/// What there is to tell about a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    /// The file, as it was named.
    pub path: String,
    /// SHA-256 of the file in hex, as `sha256sum` prints it.
    pub sha256: String,
    /// Size of the file.
    pub byte_n: usize,
    /// Where it comes from, in short; `ecgpipe trace` tells all.
    pub origin: Option<Origin>,
    /// The file's metadata, the provenance left out.
    pub metadata: BTreeMap<String, String>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The pipeline.
    pub pipeline: String,
    /// Its seed.
    pub seed: u64,
    /// The commit of the code, if there was one.
    pub git_commit: Option<String>,
    /// Whether the code had uncommitted changes.
    pub git_dirty: bool,
    /// The version of ecgpipe.
    pub ecgpipe: String,
    /// `stage.port` that gave the model.
    pub output: String,
    /// BLAKE3 of the model before its provenance was written into it, hex: its name in the store.
    pub digest: String,
    /// Records that the pipeline read.
    pub record_n: usize,
}

/// What computed the probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineUsed {
    /// For people: `ONNX Runtime` or `tract`.
    pub name: &'static str,
    /// Its version.
    pub version: String,
}

impl ModelFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If there is none, or ecgpipe did not write it.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let shown = path.display();
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StageError::new(format!("{shown}: there is no such model"))
                .help("`ecgpipe run pipelines/full.yaml` makes models/ecg_model.onnx (`git checkout models` brings back the one under git), quickstart.yaml makes models/quickstart.onnx; name a file by `--model`"),
            io::ErrorKind::IsADirectory => StageError::new(format!("{shown}: this is a folder")).help("name the .onnx file in it by `--model`"),
            _ => StageError::new(format!("{shown}: {error}")).help("name a readable .onnx file by `--model`"),
        })?;
        let refuse = |error: &dyn std::fmt::Display| {
            StageError::new(format!("{shown}: {error}"))
                .help("`infer` reads the .onnx files that `ecgpipe run` publishes")
        };
        let mut metadata = read_metadata(&bytes).map_err(|error| refuse(&error))?;
        let signature = read_signature(&bytes).map_err(|error| refuse(&error))?;
        let provenance = Onnx::provenance(&bytes).map_err(|error| refuse(&error))?;
        let class = |name: &String| {
            AamiClass::from_letter(name)
                .ok_or_else(|| refuse(&format!("its class `{}` is not an AAMI class", super::shown(name))))
        };
        let classes = signature.class_names.iter().map(class).collect::<Result<_, _>>()?;
        metadata.remove(PROVENANCE_KEY);
        let certainty = metadata.get(CALIBRATION_KEY).map(|json| serde_json::from_str(json)).transpose();
        let certainty =
            certainty.map_err(|error| refuse(&format!("its metadata `{CALIBRATION_KEY}` is malformed: {error}")))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let origin = provenance.as_ref().map(origin);
        let about = About { path: shown.to_string(), sha256, byte_n: bytes.len(), origin, metadata };
        Ok(Self { about, provenance, signature, classes, certainty, bytes })
    }

    /// A beat whose largest probability is lower is uncertain.
    #[must_use]
    pub fn uncertain_below(&self) -> f32 {
        self.certainty.map_or(UNCERTAIN_BELOW, |certainty| certainty.uncertain_below as f32)
    }

    /// What probabilities mean, in a sentence.
    #[must_use]
    pub fn on_probabilities(&self) -> String {
        let Some(certainty) = self.certainty else { return UNCALIBRATED.to_owned() };
        format!(
            "probabilities were made frequencies on {} beats of patients that the model had not seen (temperature {:.2}); there, \
             {:.2} % of the beats that are not uncertain were right, and {:.1} % were uncertain; other patients and \
             recorders may differ",
            certainty.beat_n,
            certainty.temperature,
            100.0 * certainty.accuracy,
            100.0 * (1.0 - certainty.coverage)
        )
    }

    /// Opens the model in ONNX Runtime or, without it, in tract; the note then says why.
    ///
    /// # Errors
    /// If the engine refuses the model.
    pub fn open(&self, data_folder: &Path, offline: bool) -> Result<(Session, EngineUsed, Option<String>), StageError> {
        let chosen = choose(EngineChoice::Auto, data_folder, offline).map_err(StageError::new)?;
        let session = Session::open(&self.bytes, &chosen.engine)
            .map_err(|error| StageError::new(format!("{}: {error}", self.about.path)))?;
        let name = if session.engine().name == "onnxruntime" { "ONNX Runtime" } else { session.engine().name };
        let engine = EngineUsed { name, version: session.engine().version.clone() };
        let note = chosen.notes.split_first().map(|(first, tried)| match tried {
            [] => first.clone(),
            _ => format!("{first}: {}", tried.join("; ")),
        });
        Ok((session, engine, note))
    }
}

fn origin(provenance: &Provenance) -> Origin {
    Origin {
        pipeline: provenance.pipeline.clone(),
        seed: provenance.seed,
        git_commit: provenance.git_commit.clone(),
        git_dirty: provenance.git_dirty,
        ecgpipe: provenance.ecgpipe.clone(),
        output: provenance.output.clone(),
        digest: provenance.digest.clone(),
        record_n: provenance.sources.len(),
    }
}
