//! Owns [`Provenance`]: where a published file comes from. The engine fills it in; a kind may write it into its bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where an artifact comes from: enough to find the raw bytes, the parameters and the code again.
///
/// It names no machine, no user, no path and no time, so that two runs over the same inputs give the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this structure.
    pub format: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// `stage.port` in the pipeline.
    pub output: String,
    /// Cache key of the job that made it, hex.
    pub key: String,
    /// Digest of the artifact before this provenance was written into it, hex.
    pub digest: String,
    /// Commit of the code, where the run had one.
    pub git_commit: Option<String>,
    /// True when the working tree had uncommitted changes.
    pub git_dirty: bool,
    /// Version of ecgpipe.
    pub ecgpipe: String,
    /// Every stage upstream, by its name in the pipeline.
    pub stages: BTreeMap<String, StageProvenance>,
    /// Raw inputs: record, then file name, then digest (BLAKE3, hex).
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
}

/// One stage upstream of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProvenance {
    /// The stage's type, for example `detect_peaks`.
    pub uses: String,
    /// Identity of its code, hex.
    pub code: String,
    /// Its parameters with defaults filled in.
    pub params: serde_json::Value,
    /// Its inputs: port to `stage.port`.
    pub inputs: BTreeMap<String, String>,
}

impl Provenance {
    /// The version of the structure that this program writes.
    pub const FORMAT: u32 = 1;
}
