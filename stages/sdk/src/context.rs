//! Owns what a stage may know of its surroundings while it runs: the record, the seed, its raw files, how many threads
//! it may use, where to report progress, and where to keep unfinished work. None of it but record, seed and files may
//! change the result.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{content::SpoolFile, error::StageError, facts::RecordFacts, kind::MetricPoint, record::RecordId};

/// One raw file of a source's record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceFile {
    /// The name that enters the key, for example `100.dat`.
    pub name: String,
    /// Where it lies on this machine; never part of a key.
    pub path: PathBuf,
}

/// One record that a source stage can give.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRecord {
    /// The record.
    pub record: RecordId,
    /// The files that it is read from; empty for a source that computes its records.
    pub files: Vec<SourceFile>,
    /// What is known of it without reading its samples; checked before the first stage runs, never part of a key.
    pub facts: RecordFacts,
}

impl SourceRecord {
    /// A record of which nothing else is known.
    #[must_use]
    pub fn new(record: RecordId, files: Vec<SourceFile>) -> Self {
        Self { record, files, facts: RecordFacts::new() }
    }
}

/// What a source stage may use to list its records.
pub struct SourceContext<'a> {
    /// The project's `data` folder.
    pub data_folder: PathBuf,
    /// `$ECGPIPE_DATA`, a folder of databases shared between projects.
    pub shared_data: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
    /// Where progress (a download) and notes go.
    pub events: &'a (dyn Fn(StageEvent) + Sync),
}

/// What a stage tells while it works. None of it is part of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum StageEvent {
    /// So much of so much is done.
    Progress {
        /// Done so far.
        done: u64,
        /// Out of.
        total: u64,
        /// Of what, for example `epochs` or `bytes`.
        unit: Cow<'static, str>,
    },
    /// A metric as soon as it is known.
    Metric(MetricPoint),
    /// Something worth a line.
    Note(String),
    /// Something that the user should look at. It is stored with the result and shown again when the result is reused.
    Warning(String),
}

/// Where the unfinished work of a job is kept, so that the next run of the same job goes on from there.
///
/// Invariant: what is loaded was saved by the same job. Its key holds all that decides its result, the code of the stage
/// included, so neither another input nor another version ever reads it (`a_checkpoint_is_of_one_key_alone`).
pub trait Checkpoints: Sync {
    /// What was saved last, whole and unchanged; `None` if there is nothing, or nothing that can be trusted.
    fn load(&self) -> Option<Vec<u8>>;

    /// Replaces what was saved, and tells whether it is kept now.
    fn save(&self, bytes: &[u8]) -> bool;
}

/// The surroundings of one run of one stage.
pub struct Context<'a> {
    record: Option<&'a RecordId>,
    seed: Option<u64>,
    files: &'a [SourceFile],
    threads: usize,
    data_folder: &'a Path,
    spool_folder: Option<&'a Path>,
    offline: bool,
    log: Option<&'a Path>,
    checkpoints: Option<&'a dyn Checkpoints>,
    cancel: &'a AtomicBool,
    events: &'a (dyn Fn(StageEvent) + Sync),
}

/// The run was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Cancelled;

impl From<Cancelled> for StageError {
    fn from(_: Cancelled) -> Self {
        Self { cancelled: true, ..Self::new("stopped on request") }
    }
}

impl<'a> Context<'a> {
    /// A context that reports nothing and is never cancelled by anybody but the holder of `cancel`.
    pub fn new(cancel: &'a AtomicBool, events: &'a (dyn Fn(StageEvent) + Sync)) -> Self {
        let data_folder = Path::new("data");
        Self {
            record: None,
            seed: None,
            files: &[],
            threads: 1,
            data_folder,
            spool_folder: None,
            offline: true,
            log: None,
            checkpoints: None,
            cancel,
            events,
        }
    }

    /// Sets the record at hand.
    #[must_use]
    pub fn with_record(self, record: Option<&'a RecordId>) -> Self {
        Self { record, ..self }
    }

    /// Sets the seed of a stage that declares [`crate::Stage::SEEDED`].
    #[must_use]
    pub fn with_seed(self, seed: Option<u64>) -> Self {
        Self { seed, ..self }
    }

    /// Sets the raw files of a source's record.
    #[must_use]
    pub fn with_files(self, files: &'a [SourceFile]) -> Self {
        Self { files, ..self }
    }

    /// Sets how many threads the stage may use; it must not change the result.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Sets where the project keeps its data, and whether the network may be used; neither may change the result.
    #[must_use]
    pub fn with_surroundings(self, data_folder: &'a Path, offline: bool) -> Self {
        Self { data_folder, offline, ..self }
    }

    /// Sets the folder for [`Context::spool`]: on the file system of the store, which takes finished files over by
    /// renaming them. Without one it is the system's folder for temporary files.
    #[must_use]
    pub fn with_spool_folder(self, spool_folder: Option<&'a Path>) -> Self {
        Self { spool_folder, ..self }
    }

    /// Sets the file for what a stage's own process writes; without one it is shown in an error only.
    #[must_use]
    pub fn with_log(self, log: Option<&'a Path>) -> Self {
        Self { log, ..self }
    }

    /// Sets where unfinished work is kept; without it, it is not.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Option<&'a dyn Checkpoints>) -> Self {
        Self { checkpoints, ..self }
    }

    /// The record at hand, for a stage that runs once per record.
    ///
    /// # Errors
    /// If the stage does not run per record: a defect of the stage.
    pub fn record(&self) -> Result<&'a RecordId, StageError> {
        self.record.ok_or_else(|| StageError::new("the stage asked for its record, but it does not run per record"))
    }

    /// The seed for all randomness of this job. It depends on the pipeline's seed, the stage and the record.
    ///
    /// # Errors
    /// If the stage does not declare [`crate::Stage::SEEDED`]: its key would not hold the seed.
    pub fn seed(&self) -> Result<u64, StageError> {
        self.seed.ok_or_else(|| StageError::new("the stage draws random numbers but is not declared SEEDED"))
    }

    /// The raw files of this record, in the order in which the source listed them.
    #[must_use]
    pub fn files(&self) -> &'a [SourceFile] {
        self.files
    }

    /// How many threads the stage may use.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The project's `data` folder, for tools that a stage keeps on this machine (a native library); never for inputs.
    #[must_use]
    pub fn data_folder(&self) -> &'a Path {
        self.data_folder
    }

    /// The file for what a stage's own process writes, for a host of such processes; the folder may not be there yet.
    #[must_use]
    pub fn log(&self) -> Option<&'a Path> {
        self.log
    }

    /// A new file for an output that is too large for memory, see [`crate::Each::encoded`].
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn spool(&self) -> Result<SpoolFile, StageError> {
        let system = std::env::temp_dir();
        let folder = self.spool_folder.unwrap_or(&system);
        SpoolFile::create(folder).map_err(|error| {
            StageError::new(format!("failed to make a file in {}: {error}", folder.display()))
                .help("free some space there, or give yourself the right to write")
        })
    }

    /// What [`Context::save_checkpoint`] saved last in this job, be it in a run that was killed. It may change how long the
    /// stage works, never its result.
    #[must_use]
    pub fn load_checkpoint(&self) -> Option<Vec<u8>> {
        self.checkpoints?.load()
    }

    /// Keeps unfinished work for [`Context::load_checkpoint`] of the next run of this job until its result is stored, and
    /// tells whether it is kept: a full disk, or a host that keeps nothing, costs a stage no more than its checkpoints. It
    /// waits for the disk, so a stage calls it as seldom as it can afford to lose work.
    #[must_use]
    pub fn save_checkpoint(&self, bytes: &[u8]) -> bool {
        self.checkpoints.is_some_and(|checkpoints| checkpoints.save(bytes))
    }

    /// Whether the network must not be used.
    #[must_use]
    pub fn offline(&self) -> bool {
        self.offline
    }

    /// To be called now and then by a stage that works for seconds.
    ///
    /// # Errors
    /// [`Cancelled`] once the user asked to stop; give it back with `?`.
    pub fn check_cancelled(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Whether the user asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Reports progress.
    pub fn progress(&self, done: u64, total: u64, unit: impl Into<Cow<'static, str>>) {
        (self.events)(StageEvent::Progress { done, total, unit: unit.into() });
    }

    /// Reports a metric while the stage still works; it must also be in an output of kind `metrics`, since a reused
    /// result reports only those.
    pub fn metric(&self, key: impl Into<String>, step: i64, value: f64) {
        (self.events)(StageEvent::Metric(MetricPoint { key: key.into(), step, value }));
    }

    /// Says something worth a line.
    pub fn note(&self, text: impl Into<String>) {
        (self.events)(StageEvent::Note(text.into()));
    }

    /// Warns; see [`StageEvent::Warning`].
    pub fn warn(&self, text: impl Into<String>) {
        (self.events)(StageEvent::Warning(text.into()));
    }
}
