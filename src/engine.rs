//! Owns the loop of a run: plan -> jobs -> keys -> store or worker -> events.
//!
//! One thread coordinates: it asks the schedule what may run, makes the key as soon as all inputs are known, and looks it up.
//! Hits cost no thread. Misses go to workers, which are started only when there is a first miss.
//!
//! Invariant: what a run leaves in the store is a function of the plan and the raw inputs, whatever the number of workers
//! (guarded by `tests/engine.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use ecgpipe_sdk::{MetricPoint, RecordId, Registry, StageError};

use crate::{
    diagnostic::Report,
    digest::{Digest, Key, KeyEncoder, KeyError, KeyField},
    event::{Counts, Event, JobName, RunStatus},
    expand::{ExpandError, Expansion, Surroundings, expand},
    explain::{Why, input_of},
    hot::HotArtifacts,
    job::{Job, JobInput, Outcome, RawFile, Worker, execute, output_digests},
    key::{InputIdentity, NodeIdentity, key_fields},
    plan::{Plan, PlanNode},
    schedule::{End, JobId, Schedule},
    store::{Lookup, Manifest, Miss, OutputName, OutputRef, Outputs, StatCache, StatCacheError, Store, StoreError},
};

/// What to run and how.
pub struct Request<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The stages.
    pub registry: &'a Registry,
    /// The cache.
    pub store: &'a Store,
    /// Where sources look.
    pub surroundings: &'a Surroundings,
    /// The nodes that take part: [`Plan::select`].
    pub selected: BTreeSet<usize>,
    /// Nodes whose results are computed even if the store has them.
    pub force: BTreeSet<usize>,
    /// How many jobs run at once.
    pub jobs: usize,
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// Only say what would be computed.
    pub dry_run: bool,
    /// Why a job is a miss, from what is known of earlier runs. Asked on a miss only; `None` means that it is new.
    pub previous: &'a (dyn Fn(&Asked<'_>) -> Option<Why> + Sync),
    /// Set when the user asks to stop.
    pub cancel: &'a AtomicBool,
    /// Who listens.
    pub events: &'a (dyn Fn(Event) + Sync),
}

/// A miss that wants an explanation.
pub struct Asked<'a> {
    /// The job.
    pub job: &'a JobName,
    /// Its stage's type.
    pub stage: &'a str,
    /// Its key.
    pub key: &'a Key,
    /// The fields of its key, sorted by name.
    pub fields: &'a [KeyField],
    /// Where manifests are.
    pub store: &'a Store,
    /// Which job of this run gives an input of a job, by the name of the key's field; `None` if there is no such input.
    pub giver: &'a dyn Fn(&JobName, &str) -> Option<Giver>,
}

/// The job that gives an input.
#[derive(Clone, Debug)]
pub struct Giver {
    /// The job.
    pub job: JobName,
    /// Its stage's type.
    pub stage: String,
    /// Its key.
    pub key: Key,
}

/// What a run left behind.
#[derive(Debug)]
pub struct RunReport {
    /// How it ended.
    pub status: RunStatus,
    /// The sums.
    pub counts: Counts,
    /// Every job whose key became known.
    pub jobs: Vec<JobReport>,
    /// In a dry run: the jobs whose keys are not known since others have to be computed first.
    pub waiting: Vec<Waiting>,
    /// The records and raw files behind the run.
    pub expansion: Expansion,
    /// Digests of the raw files: record, file name, digest; by source node.
    pub raw: BTreeMap<usize, BTreeMap<RecordId, BTreeMap<String, Digest>>>,
}

/// One job of a finished run.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job.
    pub name: JobName,
    /// Its node.
    pub node_idx: usize,
    /// Its key.
    pub key: Key,
    /// Why it was computed; `None` for a hit.
    pub why: Option<Why>,
    /// Its outputs; empty if it failed or was not run.
    pub outputs: Outputs,
}

/// A job of a dry run whose key is not known yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The job.
    pub name: JobName,
    /// Its node.
    pub node_idx: usize,
    /// For which job it waits, and why that is computed.
    pub why: Why,
}

/// Why a run could not start or go on: never the failure of a stage, which is part of the report.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Some sources cannot list their records.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Expand(Vec<ExpandError>),
    /// What is known of the records contradicts the pipeline.
    #[error("{0}")]
    Records(Report),
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A raw file cannot be read.
    #[error("failed to {0}")]
    Raw(#[from] StatCacheError),
    /// A defect of the program.
    #[error("defect: {0}")]
    Defect(String),
}

/// Runs a plan.
///
/// # Errors
/// If the run cannot start, or the store fails. A stage's failure is no error: see [`RunReport::status`].
pub fn run(request: &Request<'_>) -> Result<RunReport, EngineError> {
    let expansion = expand(request.plan, request.registry, &request.selected, request.surroundings, request.events)
        .map_err(EngineError::Expand)?;
    let checked =
        request.plan.check_records(request.registry, &request.selected, &expansion.sources, &expansion.records);
    let checked = checked.map_err(EngineError::Records)?;
    for text in request.plan.warnings().untold.iter().chain(&checked.untold) {
        (request.events)(Event::Warning { job: None, text: text.clone() });
    }
    let stat_cache = StatCache::open(&request.store.stat_cache_path());
    let raw_files = digest_sources(&expansion, &stat_cache)?;
    announce(request, &expansion);
    let schedule = Schedule::new(&expansion.shapes, &request.selected);
    let mut coordinator = Coordinator {
        request,
        expansion: &expansion,
        stat_cache: &stat_cache,
        raw_files: &raw_files,
        identities: identities(request),
        readers: readers(request, &expansion),
        schedule,
        done: BTreeMap::new(),
        lost: BTreeSet::new(),
        reports: BTreeMap::new(),
        waiting: Vec::new(),
        counts: Counts::default(),
        stopping: false,
    };
    coordinator.run()?;
    let Coordinator { reports, waiting, mut counts, schedule, .. } = coordinator;
    let cancelled = request.cancel.load(Ordering::Relaxed);
    let open = schedule.open_jobs();
    for &job in &open {
        (request.events)(Event::Skipped { job: job_name(request.plan, &expansion, job) });
    }
    counts.skipped += open.len();
    request.store.flush()?;
    if !request.store.is_read_only()
        && let Err(error) = stat_cache.save()
    {
        // Without it the next run reads the raw files again; nothing else is lost.
        let text = format!("what is known of the raw files was not kept: failed to {error}");
        (request.events)(Event::Warning { job: None, text });
    }
    let status = if counts.failed > 0 {
        RunStatus::Failed
    } else if cancelled {
        RunStatus::Cancelled
    } else {
        RunStatus::Finished
    };
    let raw = raw_digests(&raw_files);
    Ok(RunReport { status, counts, jobs: reports.into_values().collect(), waiting, expansion, raw })
}

type RawFiles = BTreeMap<usize, BTreeMap<RecordId, Vec<RawFile>>>;

fn digest_sources(expansion: &Expansion, stat_cache: &StatCache) -> Result<RawFiles, EngineError> {
    let mut raw_files = RawFiles::new();
    for (&node_idx, listed) in &expansion.sources {
        let records = raw_files.entry(node_idx).or_default();
        for source in listed {
            let mut files = Vec::with_capacity(source.files.len());
            for file in &source.files {
                files.push(RawFile { file: file.clone(), state: stat_cache.digest_file(&file.path)? });
            }
            records.insert(source.record.clone(), files);
        }
    }
    Ok(raw_files)
}

fn raw_digests(raw_files: &RawFiles) -> BTreeMap<usize, BTreeMap<RecordId, BTreeMap<String, Digest>>> {
    let digests = |files: &Vec<RawFile>| files.iter().map(|raw| (raw.file.name.clone(), raw.state.digest)).collect();
    let of_node = |records: &BTreeMap<RecordId, Vec<RawFile>>| {
        records.iter().map(|(record, files)| (record.clone(), digests(files))).collect()
    };
    raw_files.iter().map(|(&node_idx, records)| (node_idx, of_node(records))).collect()
}

/// One a node of the plan.
fn identities(request: &Request<'_>) -> Vec<NodeIdentity> {
    let plan = request.plan;
    let identity = |node: &PlanNode| {
        let stage = request.registry.get(&node.uses).expect("a plan names registered stages only");
        let seed = node.seeded.then_some(plan.seed());
        NodeIdentity::new(stage.spec(), &node.params, seed, |port| node.inputs.contains_key(port))
    };
    plan.nodes().iter().map(identity).collect()
}

/// By node and output port: how many jobs of this run read each of its outputs.
fn readers(request: &Request<'_>, expansion: &Expansion) -> Vec<BTreeMap<String, usize>> {
    let plan = request.plan;
    let mut readers = vec![BTreeMap::new(); plan.nodes().len()];
    for &node_idx in &request.selected {
        let node = &plan.nodes()[node_idx];
        for edge in node.inputs.values() {
            let broadcast = node.per_record && !edge.gather && !plan.nodes()[edge.node_idx].per_record;
            let reader_n = if broadcast { expansion.records[node_idx].len() } else { 1 };
            *readers[edge.node_idx].entry(edge.port.clone()).or_default() += reader_n;
        }
    }
    readers
}

fn announce(request: &Request<'_>, expansion: &Expansion) {
    let selected = || request.plan.nodes().iter().enumerate().filter(|(idx, _)| request.selected.contains(idx));
    let jobs = selected().map(|(idx, node)| (node.name.clone(), expansion.shapes[idx].job_n)).collect();
    let order = selected().map(|(_, node)| node.name.clone()).collect();
    (request.events)(Event::Planned { jobs, order });
}

fn job_name(plan: &Plan, expansion: &Expansion, job: JobId) -> JobName {
    let node = &plan.nodes()[job.node_idx];
    let record = node.per_record.then(|| expansion.records[job.node_idx][job.record_idx].clone());
    JobName { node: node.name.clone(), record }
}

struct Task {
    id: JobId,
    job: Job,
    key: Key,
    fields: Vec<KeyField>,
    threads: usize,
    /// Said unless a remote has the result.
    miss: Option<Event>,
}

struct Coordinator<'a> {
    request: &'a Request<'a>,
    expansion: &'a Expansion,
    stat_cache: &'a StatCache,
    raw_files: &'a RawFiles,
    identities: Vec<NodeIdentity>,
    readers: Vec<BTreeMap<String, usize>>,
    schedule: Schedule,
    done: BTreeMap<JobId, Outputs>,
    /// Jobs that are computed again because their outputs were lost.
    lost: BTreeSet<JobId>,
    reports: BTreeMap<JobId, JobReport>,
    waiting: Vec<Waiting>,
    counts: Counts,
    stopping: bool,
}

/// How often a job may lose an input before it counts as failed: a store that eats its blobs must not loop for ever.
const MAX_LOSSES: usize = 3;

impl Coordinator<'_> {
    fn run(&mut self) -> Result<(), EngineError> {
        let (request, stat_cache) = (self.request, self.stat_cache);
        let hot = HotArtifacts::default();
        let (task_sender, task_receiver) = mpsc::channel::<Task>();
        let task_receiver = Mutex::new(task_receiver);
        let (outcome_sender, outcome_receiver) = mpsc::channel::<(JobId, Outcome)>();
        let work = |outcome_sender: mpsc::Sender<(JobId, Outcome)>| {
            loop {
                let next = task_receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
                let Ok(Task { id, job, key, fields, threads, miss }) = next else { break };
                let stage = request.registry.get(&job.stage).expect("a plan names registered stages only");
                let worker = Worker {
                    store: request.store,
                    stat_cache,
                    hot: &hot,
                    cancel: request.cancel,
                    events: request.events,
                    threads,
                    force: request.force.contains(&id.node_idx),
                    surroundings: request.surroundings,
                };
                let warn = |text| (request.events)(Event::Warning { job: Some(job.name.clone()), text });
                let outcome = match miss.as_ref().and_then(|_| request.store.fetch(&key, &warn)) {
                    Some(manifest) => Outcome::Found(manifest),
                    None => {
                        miss.into_iter().for_each(request.events);
                        execute(&job, stage, &key, fields, &worker)
                    }
                };
                for digest in input_digests(&job) {
                    hot.release(digest);
                }
                drop(job);
                if outcome_sender.send((id, outcome)).is_err() {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            // Dropped at the end of this closure, whatever the way out, so that the workers end.
            let task_sender = task_sender;
            let mut worker_n = 0;
            let mut running: BTreeMap<JobId, bool> = BTreeMap::new();
            let mut losses: BTreeMap<JobId, usize> = BTreeMap::new();
            let mut held_back: Option<Task> = None;
            loop {
                let stop = self.stopping || request.cancel.load(Ordering::Relaxed);
                if stop {
                    held_back = None;
                }
                if running.is_empty()
                    && let Some(task) = held_back.take()
                {
                    running.insert(task.id, true);
                    task_sender.send(task).map_err(|_| EngineError::Defect("the workers are gone".to_owned()))?;
                    continue;
                }
                let exclusive_running = running.values().any(|&exclusive| exclusive);
                let free = !exclusive_running && held_back.is_none() && running.len() < request.jobs;
                if free
                    && !stop
                    && let Some(id) = self.schedule.next_job()
                {
                    let Some(task) = self.prepare(id, &hot)? else { continue };
                    if worker_n < request.jobs {
                        let sender = outcome_sender.clone();
                        scope.spawn(|| work(sender));
                        worker_n += 1;
                    }
                    if self.is_exclusive(id) && !running.is_empty() {
                        held_back = Some(task);
                        continue;
                    }
                    running.insert(id, self.is_exclusive(id));
                    task_sender.send(task).map_err(|_| EngineError::Defect("the workers are gone".to_owned()))?;
                    continue;
                }
                if running.is_empty() && held_back.is_none() {
                    return Ok(());
                }
                let (id, outcome) =
                    outcome_receiver.recv().map_err(|_| EngineError::Defect("the workers are gone".to_owned()))?;
                running.remove(&id);
                match outcome {
                    Outcome::Computed(manifest) => {
                        self.counts.computed += 1;
                        (request.events)(Event::Computed {
                            job: self.name(id),
                            key: manifest.key,
                            outputs: output_digests(&manifest),
                            wall_ms: manifest.wall_ms,
                            cpu_ms: manifest.cpu_ms,
                            bytes: manifest.outputs.values().map(|output| output.size).sum(),
                        });
                        let fresh: Vec<Digest> = manifest.outputs.values().map(|output| output.digest).collect();
                        self.finish(id, manifest, &hot);
                        fresh.into_iter().for_each(|digest| hot.release(digest));
                    }
                    Outcome::Found(manifest) => {
                        let points = self.stored_metrics(id, &manifest).unwrap_or_else(|text| {
                            (request.events)(Event::Warning { job: Some(self.name(id)), text });
                            Vec::new()
                        });
                        if let Some(report) = self.reports.get_mut(&id) {
                            report.why = None;
                        }
                        self.hit(id, manifest, points, &hot);
                    }
                    Outcome::LostInputs { inputs, messages } => {
                        for text in messages {
                            let text = format!("{text}; it is computed again");
                            (request.events)(Event::Warning { job: Some(self.name(id)), text });
                        }
                        let lost_n = losses.entry(id).or_default();
                        *lost_n += 1;
                        if *lost_n > MAX_LOSSES {
                            let error = StageError::new("its inputs were lost again and again");
                            self.fail(id, &error.help("check the disk; `ecgpipe cache verify` tells what is damaged"));
                        } else {
                            self.reopen(id, &inputs);
                        }
                    }
                    Outcome::Failed(error) => self.fail(id, &error),
                }
            }
        })
    }

    /// Makes the key of a job and looks it up: a task if it has to be computed.
    fn prepare(&mut self, id: JobId, hot: &HotArtifacts) -> Result<Option<Task>, EngineError> {
        let request = self.request;
        let defect = |error: KeyError| EngineError::Defect(error.to_string());
        let key = self.key_fields(id).key().map_err(defect)?;
        let forced = request.force.contains(&id.node_idx) || self.lost.contains(&id);
        let mut reason = None;
        if !forced {
            match request.store.lookup(&key)? {
                Lookup::Hit(manifest) => match self.stored_metrics(id, &manifest) {
                    Ok(points) => {
                        self.found(id, manifest, points, hot);
                        return Ok(None);
                    }
                    Err(message) => {
                        let text = format!("{message}; it is computed again");
                        (request.events)(Event::Warning { job: Some(self.name(id)), text });
                        reason = Some(Why::Damaged { message });
                    }
                },
                Lookup::Miss(Miss::Output { found_size: None, .. })
                    if !self.is_wanted(id)
                        && let Lookup::Hit(manifest) = request.store.peek(&key)? =>
                {
                    // Its digests are known, and nobody may ask for the bytes; who does has it computed again.
                    self.found(id, manifest, Vec::new(), hot);
                    return Ok(None);
                }
                Lookup::Miss(miss) => {
                    if miss.is_warning() {
                        (request.events)(Event::Warning { job: Some(self.name(id)), text: miss.to_string() });
                        reason = Some(Why::Damaged { message: miss.to_string() });
                    }
                }
            }
        }
        let job = self.job(id);
        let far = !forced && request.store.remote().is_some();
        if far && request.dry_run {
            let warn = |text| (request.events)(Event::Warning { job: Some(job.name.clone()), text });
            if let Some(manifest) = request.store.peek_remote(&key, &warn) {
                self.hit(id, manifest, Vec::new(), hot);
                return Ok(None);
            }
        }
        let (_, fields) = self.key_fields(id).finish().map_err(defect)?;
        let why = match reason {
            Some(reason) => reason,
            None if self.lost.contains(&id) => Why::Lost,
            None if forced => Why::Forced,
            None => self.explain(&job, &key, &fields),
        };
        let mut miss = Some(Event::Miss { job: job.name.clone(), key: Some(key), why: why.to_string() });
        if !far || request.dry_run {
            miss.take().into_iter().for_each(request.events);
        }
        let (name, node_idx) = (job.name.clone(), id.node_idx);
        let report = JobReport { name, node_idx, key, why: Some(why.clone()), outputs: Outputs::default() };
        self.reports.insert(id, report);
        if request.dry_run {
            self.counts.skipped += 1;
            for dependent in self.schedule.finish(id, End::Failed) {
                self.counts.skipped += 1;
                let why = Why::Waits { job: job.name.clone(), why: Box::new(why.clone()) };
                let name = self.name(dependent);
                (request.events)(Event::Miss { job: name.clone(), key: None, why: why.to_string() });
                self.waiting.push(Waiting { name, node_idx: dependent.node_idx, why });
            }
            return Ok(None);
        }
        let threads = if self.is_exclusive(id) { request.jobs } else { 1 };
        Ok(Some(Task { id, job, key, fields, threads, miss }))
    }

    /// A hit that no worker has seen: nobody else says that its inputs will not be read.
    fn found(&mut self, id: JobId, manifest: Manifest, metrics: Vec<MetricPoint>, hot: &HotArtifacts) {
        self.hit(id, manifest, metrics, hot);
        for input in self.inputs(id) {
            hot.release(input.output.digest);
        }
    }

    /// Whether the bytes of a job's outputs are wanted for themselves, not only by jobs that may turn out to be hits: it is
    /// the last of its branch, it is published, or its metrics are shown.
    fn is_wanted(&self, id: JobId) -> bool {
        let (plan, selected) = (self.request.plan, &self.request.selected);
        let read_by = |node: &PlanNode| node.inputs.values().any(|edge| edge.node_idx == id.node_idx);
        let has_reader = plan.nodes().iter().enumerate().any(|(idx, node)| selected.contains(&idx) && read_by(node));
        !has_reader
            || plan.publish().iter().any(|entry| entry.node_idx == id.node_idx)
            || plan.nodes()[id.node_idx].outputs.iter().any(|port| port.kind.name == "metrics")
    }

    fn explain(&self, job: &Job, key: &Key, fields: &[KeyField]) -> Why {
        let giver = |job: &JobName, field: &str| self.giver(job, field);
        let (stage, store) = (job.stage.as_str(), self.request.store);
        let asked = Asked { job: &job.name, stage, key, fields, store, giver: &giver };
        (self.request.previous)(&asked).unwrap_or(Why::New)
    }

    /// The job that gives an input, if its key is known.
    fn giver(&self, job: &JobName, field: &str) -> Option<Giver> {
        let plan = self.request.plan;
        let (port, gathered) = input_of(field)?;
        let edge = plan.nodes()[plan.find(&job.node)?].inputs.get(port)?;
        let giver = &plan.nodes()[edge.node_idx];
        let record = gathered.as_ref().or(job.record.as_ref()).filter(|_| giver.per_record);
        let record_idx = match record {
            Some(record) => self.expansion.records[edge.node_idx].binary_search(record).ok()?,
            None => 0,
        };
        let report = self.reports.get(&JobId { node_idx: edge.node_idx, record_idx })?;
        Some(Giver { job: report.name.clone(), stage: giver.uses.clone(), key: report.key })
    }

    fn job(&self, id: JobId) -> Job {
        let node = &self.request.plan.nodes()[id.node_idx];
        let mut inputs = BTreeMap::new();
        // A port that gathers is connected even if there are no records.
        for (port, _) in node.inputs.iter().filter(|(_, edge)| edge.gather) {
            inputs.insert(port.clone(), JobInput::Many(BTreeMap::new()));
        }
        for Input { port, record, output } in self.inputs(id) {
            match (inputs.get_mut(port), record) {
                (Some(JobInput::Many(outputs)), Some(record)) => drop(outputs.insert(record.clone(), output.clone())),
                _ => drop(inputs.insert(port.to_owned(), JobInput::Single(output.clone()))),
            }
        }
        Job {
            stage: node.uses.clone(),
            params: node.params.clone(),
            seed: node.seeded.then_some(self.request.plan.seed()),
            inputs,
            files: self.files(id).to_vec(),
            name: self.name(id),
        }
    }

    fn key_fields(&self, id: JobId) -> KeyEncoder<'_> {
        let inputs = self.inputs(id).map(Input::identity);
        key_fields(&self.identities[id.node_idx], self.record(id), inputs, self.files(id))
    }

    /// Everything that a job reads, in order of port and record. All of it is there, since the schedule gave the job out.
    fn inputs(&self, id: JobId) -> impl Iterator<Item = Input<'_>> {
        let plan = self.request.plan;
        plan.nodes()[id.node_idx].inputs.iter().flat_map(move |(port, edge)| {
            let records = &self.expansion.records[edge.node_idx];
            let chosen = match (edge.gather, plan.nodes()[edge.node_idx].per_record) {
                (true, _) => 0..records.len(),
                (false, true) => id.record_idx..id.record_idx + 1,
                (false, false) => 0..1,
            };
            chosen.map(move |record_idx| {
                let output = self.done[&JobId { node_idx: edge.node_idx, record_idx }].get(&edge.port);
                let output = output.expect("a job that is done has all outputs that another reads");
                Input { port, record: edge.gather.then(|| &records[record_idx]), output }
            })
        })
    }

    fn record(&self, id: JobId) -> Option<&RecordId> {
        let per_record = self.request.plan.nodes()[id.node_idx].per_record;
        per_record.then(|| &self.expansion.records[id.node_idx][id.record_idx])
    }

    /// The raw files of a source's record.
    fn files(&self, id: JobId) -> &[RawFile] {
        let files = self.record(id).and_then(|record| self.raw_files.get(&id.node_idx)?.get(record));
        files.map_or(&[], Vec::as_slice)
    }

    fn hit(&mut self, id: JobId, manifest: Manifest, metrics: Vec<MetricPoint>, hot: &HotArtifacts) {
        let request = self.request;
        self.counts.hits += 1;
        let job = self.name(id);
        (request.events)(Event::Hit { job: job.clone(), key: manifest.key, outputs: output_digests(&manifest) });
        for text in &manifest.warnings {
            (request.events)(Event::Warning { job: Some(job.clone()), text: text.clone() });
        }
        for point in metrics {
            (request.events)(Event::Metric { job: job.clone(), point });
        }
        self.finish(id, manifest, hot);
    }

    /// The metrics of a reused result, which are said again for the trackers of this run; the error says what is damaged.
    fn stored_metrics(&self, id: JobId, manifest: &Manifest) -> Result<Vec<MetricPoint>, String> {
        let mut points = Vec::new();
        if self.request.dry_run {
            return Ok(points);
        }
        let node = &self.request.plan.nodes()[id.node_idx];
        for port in node.outputs.iter().filter(|port| port.kind.name == "metrics") {
            let Some(output) = manifest.outputs.get(&OutputName::new(port.name)) else { continue };
            let bytes = self.request.store.read(output).map_err(|error| error.to_string())?;
            let artifact = port.kind.decode(&bytes).map_err(|error| error.to_string())?;
            points.extend(port.kind.metrics(&artifact));
        }
        Ok(points)
    }

    fn finish(&mut self, id: JobId, manifest: Manifest, hot: &HotArtifacts) {
        for (name, output) in &manifest.outputs {
            let reader_n = self.readers[id.node_idx].get(name.as_str()).copied();
            hot.expect_readers(output.digest, reader_n.unwrap_or_default());
        }
        let outputs = Outputs::from(manifest.outputs);
        let report = self.reports.entry(id).or_insert_with(|| JobReport {
            name: job_name(self.request.plan, self.expansion, id),
            node_idx: id.node_idx,
            key: manifest.key,
            why: None,
            outputs: Outputs::default(),
        });
        report.outputs = outputs.clone();
        let before = self.done.insert(id, outputs.clone());
        if before.is_some_and(|before| before != outputs) {
            let text = "computing it again gave other bytes: the stage is not deterministic".to_owned();
            (self.request.events)(Event::Warning { job: Some(self.name(id)), text });
        }
        self.lost.remove(&id);
        self.schedule.finish(id, End::Done);
    }

    fn reopen(&mut self, waiter: JobId, inputs: &[(String, Option<RecordId>)]) {
        let node = &self.request.plan.nodes()[waiter.node_idx];
        let lost: BTreeSet<JobId> = inputs
            .iter()
            .map(|(port, record)| {
                let edge = &node.inputs[port];
                let records = &self.expansion.records[edge.node_idx];
                let record_idx = match record {
                    Some(record) => records.binary_search(record).unwrap_or(0),
                    None if self.request.plan.nodes()[edge.node_idx].per_record => waiter.record_idx,
                    None => 0,
                };
                JobId { node_idx: edge.node_idx, record_idx }
            })
            .collect();
        self.schedule.reopen(&lost, waiter);
        self.lost.extend(lost);
    }

    fn fail(&mut self, id: JobId, error: &StageError) {
        let job = self.name(id);
        if error.cancelled && self.request.cancel.load(Ordering::Relaxed) {
            self.counts.skipped += 1;
            (self.request.events)(Event::Skipped { job });
        } else {
            self.counts.failed += 1;
            self.stopping = !self.request.keep_going;
            let record = error.record.as_ref().filter(|record| job.record.as_ref() != Some(*record));
            let text =
                record.map_or_else(|| error.message.clone(), |record| format!("record {record}: {}", error.message));
            (self.request.events)(Event::Failed { job, error: text, help: error.help.clone() });
        }
        for dependent in self.schedule.finish(id, End::Failed) {
            self.counts.skipped += 1;
            (self.request.events)(Event::Skipped { job: self.name(dependent) });
        }
    }

    fn is_exclusive(&self, id: JobId) -> bool {
        self.request.plan.nodes()[id.node_idx].exclusive
    }

    fn name(&self, id: JobId) -> JobName {
        job_name(self.request.plan, self.expansion, id)
    }
}

/// Something that a job reads.
struct Input<'a> {
    /// On which of its ports.
    port: &'a str,
    /// Of which record, if the port gathers.
    record: Option<&'a RecordId>,
    output: &'a OutputRef,
}

impl<'a> Input<'a> {
    fn identity(self) -> InputIdentity<'a> {
        InputIdentity { port: self.port, record: self.record, digest: &self.output.digest }
    }
}

fn input_digests(job: &Job) -> Vec<Digest> {
    let digests = job.inputs.values().flat_map(|input| match input {
        JobInput::Single(output) => vec![output.digest],
        JobInput::Many(outputs) => outputs.values().map(|output| output.digest).collect(),
    });
    digests.collect()
}
