//! `ecgpipe run`: the plan, the engine, the published files, the run folder and the trackers, in this order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ecgpipe_sdk::{
    MetricPoint, Provenance, Registry, SourceFile, SourceRecord, error::chain, provenance::StageProvenance,
};

use super::{Exit, Failure, Wiring, human_bytes, load, on_device, open_work_store, runs_folder, surroundings};
use crate::{
    cli::{Run, WorkArgs},
    digest::Digest,
    engine::{EngineError, JobReport, Request, RunReport, run as run_engine},
    event::{Counts, Event, JobName, RunStatus},
    expand::Surroundings,
    explain::Why,
    git,
    lineage::output_name,
    plan::{Edge, Plan},
    publish::{Publication, PublishError, publish, publish_copies},
    store::{
        ReadError, Store,
        remote::{PushOptions, Remote},
    },
    track::{
        Listener, Listeners,
        console::{Console, Verbosity},
        mlflow::Settings,
        mlflow_run::{DatasetFacts, FINISH_DEADLINE, MlflowRun, Sending},
        run_folder::{
            FORMAT, JobFile, MetricLog, PUBLISHED_FILE, PUBLISHED_FOLDER, PublishedEntry, RawFileFacts, RunFile,
            RunFolder, SourcesFile, SweepPoint, now_ms,
        },
    },
    utc::Utc,
};

pub(super) fn run(args: &Run, wiring: &Wiring) -> Result<Exit, Failure> {
    let started = Instant::now();
    let pipeline = on_device(&args.pipeline, &args.work, &wiring.registry)?;
    let (_, plan) = load(&pipeline, &wiring.registry)?;
    let selected = plan.select(&args.work.targets)?;
    let force = named(&plan, &args.work.force)?;
    let store = open_work_store(&args.work)?;
    if args.push && store.remote().is_none() {
        return Err(Failure::usage("there is nothing to --push to")
            .help("name the remote with --remote or ECGPIPE_REMOTE; with --offline only a folder can be one"));
    }
    let verbosity = match (args.json, args.quiet) {
        (true, _) => Verbosity::Json,
        (_, true) => Verbosity::Quiet,
        _ => Verbosity::Normal,
    };
    let session = Session {
        registry: &wiring.registry,
        store: &store,
        push: args.push,
        surroundings: &surroundings(args.work.offline),
        work: &args.work,
        keep_going: args.keep_going,
        verbosity,
        console: Arc::new(Mutex::new(Console::new(verbosity))),
        cancel: cancel_on_signal(),
    };
    if args.dry_run {
        // People get the table of `ecgpipe plan` instead of a line for each event.
        let tell = |event: Event| {
            if args.json {
                hear(&session.console, &event);
            }
        };
        let report = session.engine(&plan, selected, force, true, &tell).map_err(engine_failure)?;
        tell(Event::Finished { status: report.status, counts: report.counts });
        session.say(super::plan::outlook(&plan, &report).trim_end());
        session.say(&format!("dry run: {} cached, {} to compute", report.counts.hits, report.counts.skipped));
        return Ok(Exit::Success);
    }
    let file = pipeline.pipeline.as_path();
    let ended = session.run(OneRun { plan: &plan, file, sets: &pipeline.sets, selected, force, sweep: None })?;
    if let Some(sending) = ended.sending {
        hear(&session.console, &sending.finish(FINISH_DEADLINE).event());
    }
    if let Some(failure) = ended.failure {
        return Err(failure);
    }
    let (counts, published_n) = (&ended.counts, ended.published_n);
    let elapsed_s = started.elapsed().as_secs_f64();
    session.say(&summary(ended.status, counts, elapsed_s, published_n, &ended.folder, &ended.metrics));
    Ok(exit(ended.status))
}

/// What all runs of one command have in common.
pub(super) struct Session<'a> {
    pub(super) registry: &'a Registry,
    pub(super) store: &'a Store,
    pub(super) surroundings: &'a Surroundings,
    pub(super) work: &'a WorkArgs,
    /// Whether each run sends its results to the store's remote.
    pub(super) push: bool,
    pub(super) keep_going: bool,
    pub(super) verbosity: Verbosity,
    /// One for all runs, so that what every one of them says is said once.
    pub(super) console: Arc<Mutex<Console>>,
    pub(super) cancel: &'static AtomicBool,
}

/// One run of one plan.
pub(super) struct OneRun<'a> {
    pub(super) plan: &'a Plan,
    /// The pipeline file as given.
    pub(super) file: &'a Path,
    /// The `--set` options that made the plan of the file.
    pub(super) sets: &'a [String],
    pub(super) selected: BTreeSet<usize>,
    pub(super) force: BTreeSet<usize>,
    /// A point of a sweep publishes into its own run folder, since the points would overwrite each other's files.
    pub(super) sweep: Option<SweepPoint>,
}

/// What a run left behind.
pub(super) struct RunEnd {
    pub(super) id: String,
    pub(super) folder: PathBuf,
    pub(super) status: RunStatus,
    pub(super) counts: Counts,
    pub(super) metrics: Vec<MetricPoint>,
    pub(super) published_n: usize,
    /// Why the run could not go on or publish; a stage's failure is only in `status`.
    pub(super) failure: Option<Failure>,
    /// The copy to the tracking server, still on its way.
    pub(super) sending: Option<Sending>,
}

impl Session<'_> {
    pub(super) fn engine(
        &self,
        plan: &Plan,
        selected: BTreeSet<usize>,
        force: BTreeSet<usize>,
        dry_run: bool,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<RunReport, EngineError> {
        run_engine(&Request {
            plan,
            registry: self.registry,
            store: self.store,
            surroundings: self.surroundings,
            selected,
            force,
            jobs: self.work.jobs.unwrap_or_else(core_n).max(1),
            keep_going: self.keep_going,
            dry_run,
            previous: &super::previous(plan.name()),
            cancel: self.cancel,
            events,
        })
    }

    pub(super) fn say(&self, text: &str) {
        if self.verbosity.has_progress() {
            eprintln!("{text}");
        }
    }

    /// Runs a plan with its run folder, its trackers and its publication.
    pub(super) fn run(&self, one: OneRun<'_>) -> Result<RunEnd, Failure> {
        let OneRun { plan, file, sets, selected, force, sweep } = one;
        refuse_targets_in_store(plan, self.store)?;
        let listeners = Listeners::new();
        listeners.add(Arc::clone(&self.console));
        let tell = |event: Event| listeners.tell(&event);
        let started_ms = now_ms();
        let run_file = RunFile {
            format: FORMAT,
            id: format!("{}-{}", timestamp(started_ms), plan.name()),
            uuid: unique_id(plan.name()),
            pipeline: plan.name().to_owned(),
            file: file.display().to_string(),
            sets: sets.to_vec(),
            seed: plan.seed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: git::state(Path::new(".")),
            started_ms,
            ended_ms: None,
            status: None,
            counts: None,
            sweep,
        };
        let mut folder = RunFolder::create(&runs_folder(), run_file)?;
        let params = flattened_params(plan);
        folder.write("plan.json", &plan.json())?;
        folder.write("params.json", &params)?;
        listeners.add(folder.listener()?);
        let metrics = MetricLog::default();
        listeners.add(metrics.clone());
        let mlflow = start_mlflow(self.work.offline, plan, &folder, params, &tell);
        if let Some(mlflow) = &mlflow {
            listeners.add(mlflow.listener());
        }

        let surroundings = Surroundings { logs: Some(folder.path().join("logs")), ..self.surroundings.clone() };
        let logged = Session { surroundings: &surroundings, console: Arc::clone(&self.console), ..*self };
        let mut report = logged.engine(plan, selected.clone(), force, false, &tell);
        let mut published = Vec::new();
        let mut failure = report.as_ref().err().map(|error| chain(error));
        if let Ok(report) = &mut report {
            folder.write_list("jobs.json", job_files(plan, report))?;
            folder.write("sources.json", &sources_file(plan, report))?;
            if report.status == RunStatus::Finished {
                match logged.publish(plan, &selected, report, &folder, &tell) {
                    Ok(files) => published = files,
                    Err(message) => failure = Some(message),
                }
            }
        }
        let (status, counts) = match &report {
            Ok(report) => (report.status, report.counts),
            Err(_) => (RunStatus::Failed, Counts::default()),
        };
        remote_part(self.push, &report, self.store, &tell);
        folder.write("metrics.json", &metrics.points())?;
        let status = if failure.is_some() { RunStatus::Failed } else { status };
        tell(Event::Finished { status, counts });
        folder.end(status, counts)?;
        let published_n = published.len();
        let sending = mlflow.and_then(|mlflow| {
            published.push(("plan.json".to_owned(), folder.path().join("plan.json")));
            let dataset = report.as_ref().ok().and_then(|report| dataset_facts(plan, report));
            mlflow.end(status, failure.clone(), dataset, &published).unwrap_or_else(|error| {
                tell(Event::Warning { job: None, text: format!("MLflow: {error}") });
                None
            })
        });
        let failure = failure.map(|message| report.err().map_or_else(|| Failure::environment(message), engine_failure));
        Ok(RunEnd {
            id: folder.run().id.clone(),
            folder: folder.path().to_owned(),
            status,
            counts,
            metrics: metrics.points(),
            published_n,
            failure,
            sending,
        })
    }
}

/// How often results that are found damaged while they are published are computed anew: a disk that damages what is
/// written to it must not be written to for ever.
const MOST_REPAIRS_N: usize = 3;

impl Session<'_> {
    /// Publishes, and computes anew what turns out to be lost or damaged in the store; the report then tells of both.
    fn publish(
        &self,
        plan: &Plan,
        selected: &BTreeSet<usize>,
        report: &mut RunReport,
        folder: &RunFolder,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Vec<(String, PathBuf)>, String> {
        for _ in 0..MOST_REPAIRS_N {
            match publish_all(plan, report, folder, self.store, tell) {
                Err(error) if is_lost(&error) => {
                    tell(Event::Warning { job: None, text: format!("{error}; it is computed again") });
                }
                other => return other.map_err(|error| error.to_string()),
            }
            // What is found in the store was told of already.
            let found = Mutex::new(BTreeSet::new());
            let tell_new = |event: Event| {
                let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match &event {
                    Event::Planned { .. } => return,
                    Event::Hit { job, .. } => {
                        found.insert(job.clone());
                        return;
                    }
                    Event::Metric { job, .. } | Event::Warning { job: Some(job), .. } if found.contains(job) => return,
                    _ => {}
                }
                drop(found);
                tell(event);
            };
            let again = self.engine(plan, selected.clone(), BTreeSet::new(), false, &tell_new);
            *report = both(report, again.map_err(|error| chain(&error))?);
            folder.write_list("jobs.json", job_files(plan, report)).map_err(|error| error.to_string())?;
            if report.status != RunStatus::Finished {
                return Err("a result was lost and could not be computed again".to_owned());
            }
        }
        publish_all(plan, report, folder, self.store, tell).map_err(|error| error.to_string())
    }
}

/// Whether an artifact is no longer in the store, so that computing it anew helps. What cannot be read the store moves aside.
fn is_lost(error: &PublishError) -> bool {
    match error {
        PublishError::Read { source: ReadError::Missing { .. } | ReadError::Damaged { .. }, .. } => true,
        PublishError::Read { source: ReadError::Io { path, .. }, .. } => !path.exists(),
        _ => false,
    }
}

/// The usual place of the cache is refused when the pipeline is checked; another is known only here.
fn refuse_targets_in_store(plan: &Plan, store: &Store) -> Result<(), Failure> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = absolute(store.root());
    match plan.publish().iter().find(|entry| absolute(Path::new(&entry.target)).starts_with(&root)) {
        None => Ok(()),
        Some(entry) => {
            let message = format!("publish `{}` would lie in the cache {}", entry.target, store.root().display());
            Err(Failure::usage(message).help("publish it elsewhere, or choose another folder with `--store`"))
        }
    }
}

/// A run and its repair as one: a job was computed if either computed it.
fn both(first: &RunReport, mut second: RunReport) -> RunReport {
    let before: BTreeMap<&JobName, &Option<Why>> = first.jobs.iter().map(|job| (&job.name, &job.why)).collect();
    for job in &mut second.jobs {
        job.why = job.why.take().or_else(|| before.get(&job.name).and_then(|why| (*why).clone()));
    }
    if second.status == RunStatus::Finished {
        let computed = second.jobs.iter().filter(|job| job.why.is_some()).count();
        second.counts = Counts { hits: second.jobs.len() - computed, computed, failed: 0, skipped: 0 };
    }
    second
}

/// How the program ends after a run.
pub(super) fn exit(status: RunStatus) -> Exit {
    match status {
        RunStatus::Finished => Exit::Success,
        RunStatus::Failed => Exit::Failed,
        RunStatus::Cancelled => Exit::Cancelled,
    }
}

pub(super) fn hear(console: &Mutex<Console>, event: &Event) {
    console.lock().unwrap_or_else(std::sync::PoisonError::into_inner).hear(event);
}

/// Says what came from the remote, and sends it what this run has. It never fails the run.
fn remote_part(push: bool, report: &Result<RunReport, EngineError>, store: &Store, tell: &dyn Fn(Event)) {
    let Some(remote) = store.remote() else { return };
    let url = remote.url();
    if let Some(summary) = remote.summary().filter(|summary| !(summary.empty && push)) {
        let text = if summary.empty {
            format!("the remote {url} holds nothing yet")
        } else {
            format!("{} results came from {url} ({})", summary.results_n, human_bytes(summary.bytes))
        };
        tell(Event::Note { job: None, text });
    }
    let (true, Ok(report)) = (push, report) else { return };
    let warn = |text: String| tell(Event::Warning { job: None, text });
    if remote.is_given_up() {
        warn(format!("nothing was sent to {url}; `ecgpipe cache push --run latest {url}` sends it later"));
        return;
    }
    let keys = report.jobs.iter().filter(|job| !job.outputs.is_empty()).map(|job| job.key).collect();
    let pushed =
        Remote::open_to_push(url, false).and_then(|remote| remote.push(store, &keys, PushOptions::default(), &|_| {}));
    match pushed {
        Ok(report) => {
            super::cache::push_complaints(&report).into_iter().for_each(warn);
            let text = format!("{} results sent to {url} ({})", report.results_n, human_bytes(report.bytes));
            tell(Event::Note { job: None, text });
        }
        Err(error) => warn(format!(
            "not everything was sent: failed to {}; `ecgpipe cache push --run latest {url}` goes on from there",
            chain(&error)
        )),
    }
}

/// One flag a process: set by the first Ctrl-C or SIGTERM; the second ends the program at once, which is always safe.
pub(super) fn cancel_on_signal() -> &'static AtomicBool {
    static CANCEL: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    CANCEL.get_or_init(|| {
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancel);
        // Without a handler the default one ends the program, which loses only work in flight.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(Exit::Cancelled as i32);
            }
            eprintln!("stopping: waiting for the running jobs (once more to stop at once)");
        });
        cancel
    })
}

pub(super) fn named(plan: &Plan, names: &[String]) -> Result<BTreeSet<usize>, Failure> {
    // Selecting validates the names; only the named nodes themselves are forced.
    plan.select(names)?;
    Ok(names.iter().filter_map(|name| plan.find(name)).collect())
}

pub(super) fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::Expand(errors) => {
            let lines: Vec<String> = errors
                .iter()
                .map(|error| {
                    let help = error.error.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
                    format!("error: {error}{help}")
                })
                .collect();
            Failure::environment(lines.join("\n"))
        }
        EngineError::Records(report) => Failure::from(report),
        EngineError::Store(error) => Failure::from(error),
        other => Failure::environment(chain(&other)),
    }
}

pub(super) fn core_n() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn flattened_params(plan: &Plan) -> BTreeMap<String, String> {
    let mut params = BTreeMap::from([("seed".to_owned(), plan.seed().to_string())]);
    for node in plan.nodes() {
        params.insert(format!("{}.uses", node.name), node.uses.clone());
        for (path, value) in node.params.flattened() {
            params.insert(format!("{}.{path}", node.name), value);
        }
    }
    params
}

fn job_files(plan: &Plan, report: &RunReport) -> impl Iterator<Item = JobFile> {
    let file = |job: &JobReport| JobFile {
        job: job.name.clone(),
        uses: plan.nodes()[job.node_idx].uses.clone(),
        key: job.key,
        why: job.why.clone(),
        outputs: job.outputs.iter().map(|(name, output)| (name.as_str().to_owned(), output.digest)).collect(),
    };
    report.jobs.iter().map(file)
}

fn sources_file(plan: &Plan, report: &RunReport) -> SourcesFile {
    let of_node = |(node_idx, listed): (&usize, &Vec<SourceRecord>)| {
        let digests = report.raw.get(node_idx);
        let records = listed.iter().filter_map(|source| {
            let digests = digests?.get(&source.record)?;
            let facts = |file: &SourceFile| {
                let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
                Some((file.name.clone(), RawFileFacts { digest: *digests.get(&file.name)?, path }))
            };
            Some((source.record.clone(), source.files.iter().filter_map(facts).collect()))
        });
        (plan.nodes()[*node_idx].name.clone(), records.collect())
    };
    report.expansion.sources.iter().map(of_node).collect()
}

/// Publishes what the plan says; gives each file's path under `publish:` and where it is.
fn publish_all(
    plan: &Plan,
    report: &RunReport,
    folder: &RunFolder,
    store: &Store,
    tell: &dyn Fn(Event),
) -> Result<Vec<(String, PathBuf)>, crate::publish::PublishError> {
    let of_point = folder.run().sweep.is_some();
    let (mut publications, mut origins) = (Vec::new(), Vec::new());
    for entry in plan.publish() {
        // What goes to `data/` is for other pipelines to read; no copy of it belongs to a point of a sweep.
        if of_point && Path::new(&entry.target).starts_with("data") {
            continue;
        }
        let node = &plan.nodes()[entry.node_idx];
        let port = node.output(&entry.port).expect("a plan publishes only outputs that there are");
        let provenance = ProvenanceMaker::new(plan, report, folder.run(), entry.node_idx);
        for job in report.jobs.iter().filter(|job| job.node_idx == entry.node_idx) {
            let Some(output) = job.outputs.get(&entry.port) else { continue };
            origins.push((job, &entry.port));
            publications.push(Publication {
                target: &entry.target,
                folder: entry.folder,
                kind: port.kind,
                output,
                provenance: provenance.of(job, &entry.port, output.digest),
            });
        }
    }
    let (root, files) = if of_point {
        let root = folder.path().join(PUBLISHED_FOLDER);
        let files = publish_copies(&root, store, &publications)?;
        (root, files)
    } else {
        (PathBuf::new(), publish(Path::new("."), store, &publications)?)
    };
    let mut published = Vec::with_capacity(files.len());
    let mut entries = Vec::with_capacity(files.len());
    for file in files {
        let at = root.join(&file.path);
        let (job, port) = origins[file.publication_idx];
        entries.push(PublishedEntry {
            path: at.display().to_string(),
            digest: file.digest,
            size: file.size,
            artifact: file.artifact,
            job: job.name.clone(),
            port: port.clone(),
            key: job.key,
        });
        let (path, written, artifact, size) = (at.display().to_string(), file.written, file.artifact, file.size);
        tell(Event::Published { path, written, artifact, size });
        published.push((file.path, at));
    }
    if let Err(error) = folder.write(PUBLISHED_FILE, &entries) {
        // The files are there; only `trace` will not know them.
        tell(Event::Warning { job: None, text: error.to_string() });
    }
    Ok(published)
}

struct ProvenanceMaker<'a> {
    plan: &'a Plan,
    report: &'a RunReport,
    run: &'a RunFile,
    stages: BTreeMap<String, StageProvenance>,
    /// The nodes above, each with whether all of its records matter, not only the artifact's own.
    above: BTreeMap<usize, bool>,
}

impl<'a> ProvenanceMaker<'a> {
    fn new(plan: &'a Plan, report: &'a RunReport, run: &'a RunFile, node_idx: usize) -> Self {
        let mut above: BTreeMap<usize, bool> = BTreeMap::new();
        let mut queue = vec![(node_idx, !plan.nodes()[node_idx].per_record)];
        while let Some((idx, all)) = queue.pop() {
            if above.get(&idx).is_some_and(|&known| known || !all) {
                continue;
            }
            above.insert(idx, all);
            let edges = plan.nodes()[idx].inputs.values();
            queue.extend(edges.map(|edge| {
                let gathered = edge.gather || !plan.nodes()[edge.node_idx].per_record;
                (edge.node_idx, all || gathered)
            }));
        }
        let stages = above.keys().map(|&idx| {
            let node = &plan.nodes()[idx];
            let from = |edge: &Edge| format!("{}.{}", plan.nodes()[edge.node_idx].name, edge.port);
            let stage = StageProvenance {
                uses: node.uses.clone(),
                code: node.code.clone(),
                params: node.params.as_json().clone(),
                inputs: node.inputs.iter().map(|(port, edge)| (port.clone(), from(edge))).collect(),
            };
            (node.name.clone(), stage)
        });
        Self { plan, report, run, stages: stages.collect(), above }
    }

    fn of(&self, job: &JobReport, port: &str, digest: Digest) -> Provenance {
        let mut sources: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (node_idx, all) in &self.above {
            let records = self.report.raw.get(node_idx);
            let own = job.name.record.as_ref().filter(|_| !*all);
            let chosen: Vec<_> = match own {
                Some(record) => records.and_then(|records| records.get_key_value(record)).into_iter().collect(),
                None => records.into_iter().flatten().collect(),
            };
            for (record, files) in chosen {
                let files = files.iter().map(|(name, digest)| (name.clone(), digest.to_hex()));
                sources.entry(record.to_string()).or_default().extend(files);
            }
        }
        Provenance {
            format: Provenance::FORMAT,
            pipeline: self.plan.name().to_owned(),
            seed: self.plan.seed(),
            output: output_name(&job.name, port),
            key: job.key.to_hex(),
            digest: digest.to_hex(),
            git_commit: self.run.git.as_ref().map(|git| git.commit.clone()),
            git_dirty: self.run.git.as_ref().is_some_and(|git| git.dirty),
            ecgpipe: self.run.version.clone(),
            stages: self.stages.clone(),
            sources,
        }
    }
}

fn start_mlflow(
    offline: bool,
    plan: &Plan,
    folder: &RunFolder,
    params: BTreeMap<String, String>,
    tell: &dyn Fn(Event),
) -> Option<MlflowRun> {
    let warn = |text: String| tell(Event::Warning { job: None, text });
    let variable = |name: &str| std::env::var(name).ok();
    let mut settings = match Settings::from_environment(&variable, plan.tracking().uri.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            warn(format!("MLflow: {error}; the run is recorded locally"));
            None
        }
    };
    if offline {
        settings = None;
    }
    let repo_url = settings.as_ref().and_then(|_| git::remote_url(Path::new(".")));
    match MlflowRun::start(folder.path(), folder.run(), plan.tracking(), params, repo_url, settings) {
        Ok(mlflow) => Some(mlflow),
        Err(error) => {
            warn(format!("MLflow: {error}; the run goes on without it"));
            None
        }
    }
}

fn dataset_facts(plan: &Plan, report: &RunReport) -> Option<DatasetFacts> {
    let (&node_idx, listed) = report.expansion.sources.iter().next()?;
    let node = &plan.nodes()[node_idx];
    let database = node.params.as_json().get("database").and_then(serde_json::Value::as_str);
    let raw = report.raw.get(&node_idx);
    let digest = Digest::of(&serde_json::to_vec(&(raw, node.params.as_json())).expect("plain data"));
    Some(DatasetFacts {
        name: database.unwrap_or(&node.uses).rsplit('/').next().unwrap_or("database").to_owned(),
        digest,
        source: format!("{{\"uri\":\"{}\"}}", database.unwrap_or(&node.uses)),
        record_n: listed.len() as u64,
    })
}

/// The metrics that say how a run came out, where a pipeline has them.
pub(super) const HEADLINE: [&str; 7] =
    ["test/accuracy", "test/macro_f1_nsvf", "test/f1_n", "test/f1_s", "test/f1_v", "test/f1_f", "test_all/f1_q"];

fn summary(
    status: RunStatus,
    counts: &Counts,
    elapsed_s: f64,
    published_n: usize,
    folder: &Path,
    points: &[MetricPoint],
) -> String {
    let mut text = String::new();
    let values: Vec<String> = HEADLINE
        .iter()
        .filter_map(|key| points.iter().find(|point| point.key == *key))
        .map(|point| {
            format!(
                "{} {:.4}",
                point.key.trim_start_matches("test/").replace("test_all/f1_q", "f1_q (paced too)"),
                point.value
            )
        })
        .collect();
    if !values.is_empty() {
        text.push_str(&format!("test: {}\n", values.join("  ")));
    }
    text.push_str(&format!(
        "{}: {} cached, {} computed{}{} in {elapsed_s:.1} s; {published_n} files published; {}",
        status.as_str(),
        counts.hits,
        counts.computed,
        if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() },
        if counts.skipped > 0 { format!(", {} not run", counts.skipped) } else { String::new() },
        folder.display(),
    ));
    text
}

/// `20261123-064500`, UTC.
pub(super) fn timestamp(at_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, second, .. } = Utc::from_ms(at_ms);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Unique for this run or sweep: only a name, never part of a result.
pub(super) fn unique_id(pipeline: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let cwd = std::env::current_dir().unwrap_or_default();
    let text = format!("{pipeline}\n{}\n{}\n{}", now.as_nanos(), std::process::id(), cwd.display());
    Digest::of(text.as_bytes()).to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn timestamps_are_civil_dates() {
        assert_eq!(timestamp(0), "19700101-000000");
        assert_eq!(timestamp(951_782_399_000), "20000228-235959");
        assert_eq!(timestamp(951_868_800_000), "20000301-000000");
        assert_eq!(timestamp(1_795_415_103_123), "20261123-062503");
    }
}
