//! Owns [`Job`] and [`Outcome`]: the only things that cross a thread, a process or a machine.
//!
//! A job is complete in itself: a worker needs the registry and the store, never the plan. [`execute`] is what every
//! executor calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use ecgpipe_sdk::{
    Artifact, BoundParams, Checkpoints, Content, Context, ErasedStage, MetricPoint, PortValue, PortValues, RecordId,
    SourceFile, StageError, StageEvent,
};

use crate::{
    digest::{Digest, Key, KeyField},
    event::{Event, JobName},
    expand::Surroundings,
    hot::HotArtifacts,
    key::stage_seed,
    store::{
        FileState, KeyLock, Manifest, NewManifest, NewOutput, OutputName, OutputRef, StatCache, Store, StoreError,
    },
};

/// One run of one stage on known inputs.
#[derive(Clone, Debug)]
pub struct Job {
    /// Node and record, for messages only.
    pub name: JobName,
    /// The stage's type.
    pub stage: String,
    /// Checked parameters.
    pub params: BoundParams,
    /// The pipeline's seed, for a stage that draws random numbers.
    pub seed: Option<u64>,
    /// Input artifacts by port.
    pub inputs: BTreeMap<String, JobInput>,
    /// Raw files, with the state in which they were digested.
    pub files: Vec<RawFile>,
}

/// What is on an input port.
#[derive(Clone, Debug)]
pub enum JobInput {
    /// One artifact.
    Single(OutputRef),
    /// One artifact a record.
    Many(BTreeMap<RecordId, OutputRef>),
}

/// A raw file and its content's digest.
#[derive(Clone, Debug)]
pub struct RawFile {
    /// The file.
    pub file: SourceFile,
    /// Digest, size and times when it was looked at.
    pub state: FileState,
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its outputs are in the store.
    Computed(Manifest),
    /// Somebody else computed it in the meantime.
    Found(Manifest),
    /// Some of its inputs turned out to be missing or damaged in the store: port and record.
    LostInputs {
        /// Which.
        inputs: Vec<(String, Option<RecordId>)>,
        /// What was found, for the user.
        messages: Vec<String>,
    },
    /// It failed.
    Failed(StageError),
}

/// What a worker needs besides the job.
pub struct Worker<'a> {
    /// Where results go and inputs come from.
    pub store: &'a Store,
    /// What is known of raw files.
    pub stat_cache: &'a StatCache,
    /// Artifacts that are still in memory.
    pub hot: &'a HotArtifacts,
    /// Set when the user asked to stop.
    pub cancel: &'a AtomicBool,
    /// Who listens.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// How many threads the stage may use.
    pub threads: usize,
    /// Compute even if the store has the result.
    pub force: bool,
    /// Where the project keeps its data, and whether the network may be used.
    pub surroundings: &'a Surroundings,
}

/// Runs a job under its key's lock and publishes its outputs.
pub fn execute(job: &Job, stage: &dyn ErasedStage, key: &Key, fields: Vec<KeyField>, worker: &Worker<'_>) -> Outcome {
    match try_execute(job, stage, key, fields, worker) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

fn try_execute(
    job: &Job,
    stage: &dyn ErasedStage,
    key: &Key,
    fields: Vec<KeyField>,
    worker: &Worker<'_>,
) -> Result<Outcome, StageError> {
    let lock =
        worker.store.lock(key, || (worker.events)(Event::Waiting { job: job.name.clone() })).map_err(store_error)?;
    if !worker.force
        && let Some(manifest) = worker.store.lookup(key).map_err(store_error)?.hit()
    {
        return Ok(Outcome::Found(manifest));
    }
    let inputs = match load_inputs(job, stage, worker)? {
        Ok(inputs) => inputs,
        Err(lost) => return Ok(lost),
    };
    (worker.events)(Event::Started { job: job.name.clone() });
    let heard = Heard::default();
    let tell = |event: StageEvent| (worker.events)(heard.note(&job.name, event));
    let files: Vec<SourceFile> = job.files.iter().map(|raw| raw.file.clone()).collect();
    let record = job.name.record.as_ref();
    let seed = job.seed.map(|seed| stage_seed(seed, &job.stage, record.map(RecordId::as_str)));
    let log = worker.surroundings.logs.as_ref().map(|logs| logs.join(format!("{}.log", job.name)));
    let spool_folder = worker.store.temporary_folder();
    let checkpoint = StoredCheckpoint { store: worker.store, lock: &lock, begin_anew: worker.force, tell: &tell };
    let cx = Context::new(worker.cancel, &tell)
        .with_record(record)
        .with_seed(seed)
        .with_files(&files)
        .with_threads(worker.threads)
        .with_surroundings(&worker.surroundings.data_folder, worker.surroundings.offline)
        .with_spool_folder(spool_folder.as_deref())
        .with_log(log.as_deref())
        .with_checkpoints(Some(&checkpoint));
    let (started, cpu_started_ms) = (Instant::now(), thread_cpu_ms());
    let outputs = catch_unwind(AssertUnwindSafe(|| stage.run(&job.params, inputs, &cx)))
        .unwrap_or_else(|panic| Err(panicked(&*panic)))?;
    let outputs = encode(stage, outputs)?;
    let (wall_ms, cpu_ms) = (started.elapsed().as_millis() as u64, thread_cpu_ms() - cpu_started_ms);
    if let Some(raw) = job.files.iter().find(|raw| !worker.stat_cache.recheck(&raw.state, &raw.file.path)) {
        let message = format!("{} changed while it was being read; nothing was stored", raw.file.path.display());
        return Err(StageError::new(message).help("run again once nothing writes to the file any more"));
    }
    let heard = heard.into_inner();
    let new = NewManifest {
        stage: job.stage.clone(),
        code: stage.spec().code.clone(),
        fields,
        cpu_ms,
        wall_ms,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        warnings: heard.warnings,
    };
    let stored = outputs.iter().map(|output| output.stored.clone()).collect();
    let manifest = worker.store.publish(lock, new, stored).map_err(store_error)?;
    for output in outputs {
        let Some(reference) = manifest.outputs.get(&output.stored.name) else { continue };
        for point in
            output.metrics.into_iter().filter(|point| !heard.metrics.contains(&(point.key.clone(), point.step)))
        {
            (worker.events)(Event::Metric { job: job.name.clone(), point });
        }
        worker.hot.keep_fresh(reference, output.artifact);
    }
    Ok(Outcome::Computed(manifest))
}

/// The unfinished work of a job, in the store under its key; the store removes it when it has the result.
struct StoredCheckpoint<'a> {
    store: &'a Store,
    lock: &'a KeyLock,
    /// The job is to be computed from its beginning, whatever is there.
    begin_anew: bool,
    tell: &'a (dyn Fn(StageEvent) + Sync),
}

// Trouble is a note, not a warning: a warning is stored with the result, on which this has no influence.
impl Checkpoints for StoredCheckpoint<'_> {
    fn load(&self) -> Option<Vec<u8>> {
        if self.begin_anew {
            return None;
        }
        self.store.load_checkpoint(self.lock).unwrap_or_else(|error| {
            let text = format!("begins anew: failed to {}", ecgpipe_sdk::error::chain(&error));
            (self.tell)(StageEvent::Note(text));
            None
        })
    }

    fn save(&self, bytes: &[u8]) -> bool {
        let saved = self.store.save_checkpoint(self.lock, bytes);
        if let Err(error) = &saved {
            let text = format!("unfinished work is not kept: failed to {}", ecgpipe_sdk::error::chain(error));
            (self.tell)(StageEvent::Note(text));
        }
        saved.is_ok()
    }
}

/// What a stage said while it ran, as far as it matters afterwards.
#[derive(Default)]
struct Heard(Mutex<HeardInner>);

#[derive(Default)]
struct HeardInner {
    warnings: Vec<String>,
    metrics: BTreeSet<(String, i64)>,
}

impl Heard {
    fn note(&self, job: &JobName, event: StageEvent) -> Event {
        let mut heard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &event {
            StageEvent::Metric(point) => {
                heard.metrics.insert((point.key.clone(), point.step));
            }
            StageEvent::Warning(text) => heard.warnings.push(text.clone()),
            StageEvent::Progress { .. } | StageEvent::Note(_) => {}
        }
        Event::of_stage(job.clone(), event)
    }

    fn into_inner(self) -> HeardInner {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Encoded {
    stored: NewOutput,
    /// `None` if it was never in memory as a whole.
    artifact: Option<Artifact>,
    metrics: Vec<MetricPoint>,
}

fn encode(stage: &dyn ErasedStage, mut outputs: PortValues) -> Result<Vec<Encoded>, StageError> {
    let mut encoded = Vec::new();
    for port in &stage.spec().outputs {
        let (content, artifact) = match outputs.remove(port.name) {
            Some(PortValue::Single(artifact)) => (Content::from(port.kind.encode(&artifact)?), Some(artifact)),
            Some(PortValue::Encoded(content)) => (content, None),
            None if port.optional => continue,
            _ => return Err(StageError::new(format!("the stage gave nothing on its port `{}`", port.name))),
        };
        let (name, kind) = (OutputName::new(port.name), port.kind.name.to_owned());
        let stored = NewOutput { name, kind, rows: None, content };
        let metrics = artifact.as_ref().map(|artifact| port.kind.metrics(artifact)).unwrap_or_default();
        encoded.push(Encoded { stored, artifact, metrics });
    }
    Ok(encoded)
}

/// The inputs in memory; the inner error says which of them the store no longer has.
fn load_inputs(
    job: &Job,
    stage: &dyn ErasedStage,
    worker: &Worker<'_>,
) -> Result<Result<PortValues, Outcome>, StageError> {
    let mut values = PortValues::new();
    let (mut lost, mut messages) = (Vec::new(), Vec::new());
    for port in &stage.spec().inputs {
        let mut load = |record: Option<&RecordId>, output: &OutputRef| {
            if worker.cancel.load(Ordering::Relaxed) {
                return Err(StageError::from(ecgpipe_sdk::Cancelled));
            }
            match worker.hot.load(output, &port.kind, worker.store) {
                Ok(artifact) => Ok(Some(artifact)),
                Err(crate::hot::LoadError::Store(error)) => {
                    lost.push((port.name.to_owned(), record.cloned()));
                    messages.push(error.to_string());
                    Ok(None)
                }
                Err(crate::hot::LoadError::Kind(error)) => Err(StageError::from(error)),
            }
        };
        let value = match job.inputs.get(port.name) {
            None => continue,
            Some(JobInput::Single(output)) => load(None, output)?.map(PortValue::Single),
            Some(JobInput::Many(outputs)) => {
                let mut artifacts = BTreeMap::new();
                for (record, output) in outputs {
                    if let Some(artifact) = load(Some(record), output)? {
                        artifacts.insert(record.clone(), artifact);
                    }
                }
                Some(PortValue::Many(artifacts))
            }
        };
        if let Some(value) = value {
            values.insert(port.name, value);
        }
    }
    Ok(if lost.is_empty() { Ok(values) } else { Err(Outcome::LostInputs { inputs: lost, messages }) })
}

/// A panic as the failure of a stage.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> StageError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    StageError::new(format!("the stage panicked: {text}"))
        .help("this is a defect of the stage; please report it with the record and the parameters")
}

fn store_error(error: StoreError) -> StageError {
    let help = error.help();
    let failed = StageError::from_error(&error);
    match help {
        Some(help) => failed.help(help),
        None => failed,
    }
}

/// CPU time of the calling thread in milliseconds.
fn thread_cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}

/// Digests of a manifest's outputs by port.
#[must_use]
pub fn output_digests(manifest: &Manifest) -> BTreeMap<String, Digest> {
    manifest.outputs.iter().map(|(name, output)| (name.as_str().to_owned(), output.digest)).collect()
}
