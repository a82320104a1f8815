//! Owns [`Event`]: everything that a progress display, a run folder or a tracking server may want to know of a run.
//!
//! The engine says it once; whoever listens ([`crate::track`]) decides what to keep. Events carry no times: the listener
//! that needs a clock has one.

use std::collections::BTreeMap;

use ecgpipe_sdk::{MetricPoint, RecordId, StageEvent};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Key};

/// Which job: a node of the pipeline and, for a stage that runs per record, the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobName {
    /// The node's name in the pipeline.
    pub node: String,
    /// The record, for a node that runs once per record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
}

impl std::fmt::Display for JobName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.record {
            Some(record) => write!(formatter, "{}[{record}]", self.node),
            None => formatter.write_str(&self.node),
        }
    }
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Every job is known; nothing has been computed yet.
    Planned {
        /// Jobs a node, by node name.
        jobs: BTreeMap<String, usize>,
        /// Nodes in the order in which they are shown.
        order: Vec<String>,
    },
    /// A job's result was found in the store.
    Hit {
        /// The job.
        job: JobName,
        /// Its key.
        key: Key,
        /// Digest a port.
        outputs: BTreeMap<String, Digest>,
    },
    /// A job's result has to be computed.
    Miss {
        /// The job.
        job: JobName,
        /// Its key; `None` in a dry run when an input is not known yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Key>,
        /// Why, in a few words.
        why: String,
    },
    /// A job waits for another run that computes the same key.
    Waiting {
        /// The job.
        job: JobName,
    },
    /// A job runs.
    Started {
        /// The job.
        job: JobName,
    },
    /// A running job has got so far.
    Progress {
        /// The job.
        job: JobName,
        /// Done.
        done: u64,
        /// Out of.
        total: u64,
        /// Of what.
        unit: String,
    },
    /// A metric, live from a running stage or out of a reused result.
    Metric {
        /// The job.
        job: JobName,
        /// The point.
        point: MetricPoint,
    },
    /// Something worth a line.
    Note {
        /// The job, if one said it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// The text.
        text: String,
    },
    /// Something to look at.
    Warning {
        /// The job, if one said it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// The text.
        text: String,
    },
    /// A job's result was computed and stored.
    Computed {
        /// The job.
        job: JobName,
        /// Its key.
        key: Key,
        /// Digest a port.
        outputs: BTreeMap<String, Digest>,
        /// Elapsed time of the stage.
        wall_ms: u64,
        /// CPU time of the stage's own thread (training that uses more threads counts only its first).
        cpu_ms: u64,
        /// Bytes stored.
        bytes: u64,
    },
    /// A job failed.
    Failed {
        /// The job.
        job: JobName,
        /// What is wrong.
        error: String,
        /// What to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// A job cannot run because one that it needs did not.
    Skipped {
        /// The job.
        job: JobName,
    },
    /// A file was written, or was found to be up to date.
    Published {
        /// Path relative to the project folder.
        path: String,
        /// Whether it had to be written.
        written: bool,
        /// Digest of the artifact that it was made from.
        artifact: Digest,
        /// Length in bytes.
        size: u64,
    },
    /// The run is over.
    Finished {
        /// How it ended.
        status: RunStatus,
        /// The sums.
        counts: Counts,
    },
}

impl Event {
    /// What a stage says, as an event of its job.
    #[must_use]
    pub fn of_stage(job: JobName, event: StageEvent) -> Self {
        match event {
            StageEvent::Progress { done, total, unit } => Self::Progress { job, done, total, unit: unit.into_owned() },
            StageEvent::Metric(point) => Self::Metric { job, point },
            StageEvent::Note(text) => Self::Note { job: Some(job), text },
            StageEvent::Warning(text) => Self::Warning { job: Some(job), text },
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Everything that was asked for is there.
    Finished,
    /// At least one job failed.
    Failed,
    /// The user stopped it.
    Cancelled,
}

impl RunStatus {
    /// `finished`, `failed` or `cancelled`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many jobs went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Found in the store.
    pub hits: usize,
    /// Computed.
    pub computed: usize,
    /// Failed.
    pub failed: usize,
    /// Not run because of a failure, a cancellation or a dry run.
    pub skipped: usize,
}

impl Counts {
    /// All jobs.
    #[must_use]
    pub fn total(&self) -> usize {
        self.hits + self.computed + self.failed + self.skipped
    }
}
