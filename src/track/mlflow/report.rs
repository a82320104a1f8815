//! What became of a spool, told to people and programs.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spool::{RUN_FILE, SpoolError};

/// What became of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// The run on the server's pages.
    pub run_url: Option<String>,
    /// The server's id of the experiment.
    pub experiment_id: Option<String>,
    /// The server's id of the run.
    pub run_id: Option<String>,
    /// What was sent this time.
    pub sent: Counts,
    /// What the server had acknowledged before.
    pub already_there: Counts,
    /// What the server does not have and why; from earlier times too.
    pub set_aside: Vec<SetAside>,
    /// What differs between the spool and what was read back.
    pub mismatches: Vec<String>,
    /// Things to know that are no fault.
    pub notes: Vec<String>,
    /// The run had lost its process and was closed as KILLED.
    pub orphan_closed: bool,
    /// The run has ended, all of it was sent (or set aside), and it reads back as it should.
    pub complete: bool,
    /// Why it stopped early.
    pub halted: Option<String>,
    /// Points and items that wait in the spool.
    pub left_n: u64,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Parameters.
    pub params: u64,
    /// Tags set.
    pub tags: u64,
    /// Points of metrics.
    pub points: u64,
    /// Datasets.
    pub datasets: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Models.
    pub models: u64,
}

/// Something that the server did not get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetAside {
    /// What: `param lr`, `artifact plots/roc.png`.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// Why a spool could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// There is no run in the folder.
    #[error("send `{}` to MLflow: it is no spool, there is no {RUN_FILE} in it", path.display())]
    NoSpool {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("send `{}` to MLflow: another process is sending it; wait for that one", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The spool cannot be read.
    #[error("read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The server is out of reach, or does not want us.
    #[error("send the run to MLflow at {server}: {reason}; what is left stays in the spool")]
    Stopped {
        /// Its address.
        server: String,
        /// What happened, and a way out.
        reason: String,
    },
}

impl SyncReport {
    /// One line for a person.
    pub fn summary(&self) -> String {
        let sent = self.sent.summary();
        let before = self.already_there.summary();
        let mut text = match (sent.is_empty(), before.is_empty()) {
            (true, true) => "nothing sent".to_owned(),
            (true, false) => format!("nothing new; already there: {before}"),
            (false, true) => format!("sent {sent}"),
            (false, false) => format!("sent {sent}; already there: {before}"),
        };
        if !self.set_aside.is_empty() {
            text += &format!("; {} set aside", self.set_aside.len());
        }
        if !self.mismatches.is_empty() {
            text += &format!("; {} read back differently", self.mismatches.len());
        }
        if self.left_n > 0 {
            text += &format!("; {} still wait in the spool", self.left_n);
        }
        if let Some(halted) = &self.halted {
            text += &format!("; stopped: {halted}");
        }
        text
    }
}

impl Counts {
    fn summary(&self) -> String {
        let counts = [
            (self.params, "params"),
            (self.tags, "tags"),
            (self.points, "points"),
            (self.datasets, "datasets"),
            (self.artifacts, "artifacts"),
            (self.models, "models"),
        ];
        let present = counts.iter().filter(|(count_n, _)| *count_n > 0);
        present.map(|(count_n, what)| format!("{count_n} {what}")).collect::<Vec<_>>().join(", ")
    }
}
