//! `ecgpipe run`: the plan, the engine, the published files, the run folder and the trackers, in this order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ecgpipe_sdk::{Provenance, error::chain, provenance::StageProvenance};

use super::{Exit, Failure, Wiring, human_bytes, load, open_work_store, runs_folder, surroundings};
use crate::{
    cli::Run,
    digest::Digest,
    engine::{EngineError, Request, RunReport, run as run_engine},
    event::{Counts, Event, RunStatus},
    git,
    plan::Plan,
    publish::{Publication, publish},
    store::{
        OutputName, Store,
        remote::{PushOptions, Remote},
    },
    track::{
        Listeners,
        console::{Console, Verbosity},
        mlflow::Settings,
        mlflow_run::{DatasetFacts, MlflowRun},
        run_folder::{FORMAT, JobFile, MetricLog, RunFile, RunFolder, now_ms},
    },
    utc::Utc,
};

pub(super) fn run(args: &Run, wiring: &Wiring) -> Result<Exit, Failure> {
    let started = Instant::now();
    let (_, plan) = load(&args.pipeline, &wiring.registry)?;
    let selected = plan.select(&args.work.targets)?;
    let force = named(&plan, &args.work.force)?;
    let store = open_work_store(&args.work)?;
    if args.push && store.remote().is_none() {
        return Err(Failure::usage("there is nothing to --push to")
            .help("name the remote with --remote or ECGPIPE_REMOTE; with --offline only a folder can be one"));
    }
    let previous = super::previous(plan.name());
    let surroundings = surroundings(args.work.offline);
    let cancel = cancel_on_signal();
    let listeners = Listeners::new();
    let verbosity = match (args.json, args.quiet) {
        (true, _) => Verbosity::Json,
        (_, true) => Verbosity::Quiet,
        _ => Verbosity::Normal,
    };
    listeners.add(Console::new(verbosity));
    let tell = |event: Event| listeners.tell(&event);
    let request = Request {
        plan: &plan,
        registry: &wiring.registry,
        store: &store,
        surroundings: &surroundings,
        selected,
        force,
        jobs: args.work.jobs.unwrap_or_else(core_n).max(1),
        keep_going: args.keep_going,
        dry_run: args.dry_run,
        previous: &previous,
        cancel,
        events: &tell,
    };
    if args.dry_run {
        let report = run_engine(&request).map_err(engine_failure)?;
        tell(Event::Finished { status: report.status, counts: report.counts });
        say(verbosity, &format!("dry run: {} cached, {} to compute", report.counts.hits, report.counts.skipped));
        return Ok(Exit::Success);
    }

    let started_ms = now_ms();
    let run_file = RunFile {
        format: FORMAT,
        id: format!("{}-{}", timestamp(started_ms), plan.name()),
        uuid: unique_id(plan.name()),
        pipeline: plan.name().to_owned(),
        file: args.pipeline.pipeline.display().to_string(),
        sets: args.pipeline.sets.clone(),
        seed: plan.seed(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git: git::state(Path::new(".")),
        started_ms,
        ended_ms: None,
        status: None,
        counts: None,
    };
    let mut folder = RunFolder::create(&runs_folder(), run_file)?;
    let params = flattened_params(&plan);
    folder.write("plan.json", &plan.json())?;
    folder.write("params.json", &params)?;
    listeners.add(folder.listener()?);
    let metrics = MetricLog::default();
    listeners.add(metrics.clone());
    let mlflow = start_mlflow(args, &plan, &folder, params, &tell);
    if let Some(mlflow) = &mlflow {
        listeners.add(mlflow.listener());
    }

    let report = run_engine(&request);
    let (status, counts) = match &report {
        Ok(report) => (report.status, report.counts),
        Err(_) => (RunStatus::Failed, Counts::default()),
    };
    let mut published = Vec::new();
    let mut failure = report.as_ref().err().map(|error| chain(error));
    if let Ok(report) = &report {
        folder.write("jobs.json", &job_files(&plan, report))?;
        folder.write("sources.json", &report.raw.values().collect::<Vec<_>>())?;
        if report.status == RunStatus::Finished {
            match publish_all(&plan, report, &folder, &store, &tell) {
                Ok(files) => published = files,
                Err(error) => failure = Some(error.to_string()),
            }
        }
    }
    remote_part(args, &report, &store, &tell);
    folder.write("metrics.json", &metrics.points())?;
    let status = if failure.is_some() { RunStatus::Failed } else { status };
    tell(Event::Finished { status, counts });
    folder.end(status, counts)?;
    if let Some(mlflow) = mlflow {
        let mut files: Vec<(String, PathBuf)> =
            published.iter().map(|path| (path.clone(), PathBuf::from(path))).collect();
        files.push(("plan.json".to_owned(), folder.path().join("plan.json")));
        let dataset = report.as_ref().ok().and_then(|report| dataset_facts(&plan, report));
        end_mlflow(mlflow, &folder, status, failure.clone(), dataset, &files, &tell);
    }
    if let Some(message) = failure {
        return Err(report.err().map_or_else(|| Failure::environment(message), engine_failure));
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    say(verbosity, &summary(status, &counts, elapsed_s, published.len(), &folder, &metrics));
    Ok(match status {
        RunStatus::Finished => Exit::Success,
        RunStatus::Failed => Exit::Failed,
        RunStatus::Cancelled => Exit::Cancelled,
    })
}

/// Says what came from the remote, and sends it what this run has. It never fails the run.
fn remote_part(args: &Run, report: &Result<RunReport, EngineError>, store: &Store, tell: &dyn Fn(Event)) {
    let Some(remote) = store.remote() else { return };
    let url = remote.url();
    if let Some(summary) = remote.summary().filter(|summary| !(summary.empty && args.push)) {
        let text = if summary.empty {
            format!("the remote {url} holds nothing yet")
        } else {
            format!("{} results came from {url} ({})", summary.results_n, human_bytes(summary.bytes))
        };
        tell(Event::Note { job: None, text });
    }
    let (true, Ok(report)) = (args.push, report) else { return };
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
        EngineError::Store(error) => Failure::from(error),
        other => Failure::environment(chain(&other)),
    }
}

pub(super) fn core_n() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn say(verbosity: Verbosity, text: &str) {
    if verbosity == Verbosity::Normal {
        eprintln!("{text}");
    }
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

fn job_files(plan: &Plan, report: &RunReport) -> Vec<JobFile> {
    let file = |job: &crate::engine::JobReport| JobFile {
        job: job.name.clone(),
        uses: plan.nodes()[job.node_idx].uses.clone(),
        key: job.key,
        why: job.why.clone(),
        outputs: job.outputs.iter().map(|(name, output)| (name.as_str().to_owned(), output.digest)).collect(),
    };
    report.jobs.iter().map(file).collect()
}

fn publish_all(
    plan: &Plan,
    report: &RunReport,
    folder: &RunFolder,
    store: &Store,
    tell: &dyn Fn(Event),
) -> Result<Vec<String>, crate::publish::PublishError> {
    let mut publications = Vec::new();
    for entry in plan.publish() {
        let node = &plan.nodes()[entry.node_idx];
        let port = node.output(&entry.port).expect("a plan publishes only outputs that there are");
        let provenance = ProvenanceMaker { plan, report, run: folder.run(), node_idx: entry.node_idx };
        for job in report.jobs.iter().filter(|job| job.node_idx == entry.node_idx) {
            let Some(output) = job.outputs.get(&OutputName::new(entry.port.as_str())) else { continue };
            publications.push(Publication {
                target: &entry.target,
                folder: entry.folder,
                kind: port.kind,
                output,
                provenance: provenance.of(job, &entry.port, output.digest),
            });
        }
    }
    let files = publish(Path::new("."), store, &publications)?;
    for file in &files {
        let (path, written, artifact, size) = (file.path.clone(), file.written, file.artifact, file.size);
        tell(Event::Published { path, written, artifact, size });
    }
    Ok(files.into_iter().map(|file| file.path).collect())
}

struct ProvenanceMaker<'a> {
    plan: &'a Plan,
    report: &'a RunReport,
    run: &'a RunFile,
    node_idx: usize,
}

impl ProvenanceMaker<'_> {
    fn of(&self, job: &crate::engine::JobReport, port: &str, digest: Digest) -> Provenance {
        let own_name = self.plan.nodes()[self.node_idx].name.clone();
        let upstream = self.plan.select(&[own_name]).expect("the node is in the plan");
        let nodes = upstream.iter().map(|&node_idx| &self.plan.nodes()[node_idx]);
        let stages = nodes.map(|node| {
            let inputs = node
                .inputs
                .iter()
                .map(|(port, edge)| (port.clone(), format!("{}.{}", self.plan.nodes()[edge.node_idx].name, edge.port)));
            let stage = StageProvenance {
                uses: node.uses.clone(),
                code: node.code.clone(),
                params: node.params.as_json().clone(),
                inputs: inputs.collect(),
            };
            (node.name.clone(), stage)
        });
        let mut sources: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for records in upstream.iter().filter_map(|node_idx| self.report.raw.get(node_idx)) {
            // A per-record artifact depends on its own record only.
            let records =
                records.iter().filter(|(record, _)| job.name.record.as_ref().is_none_or(|own| own == *record));
            for (record, files) in records {
                let files = files.iter().map(|(name, digest)| (name.clone(), digest.to_hex()));
                sources.entry(record.to_string()).or_default().extend(files);
            }
        }
        let node = &self.plan.nodes()[self.node_idx];
        let record = job.name.record.as_ref().map(|record| format!("[{record}]")).unwrap_or_default();
        Provenance {
            format: Provenance::FORMAT,
            pipeline: self.plan.name().to_owned(),
            seed: self.plan.seed(),
            output: format!("{}.{port}{record}", node.name),
            key: job.key.to_hex(),
            digest: digest.to_hex(),
            git_commit: self.run.git.as_ref().map(|git| git.commit.clone()),
            git_dirty: self.run.git.as_ref().is_some_and(|git| git.dirty),
            ecgpipe: self.run.version.clone(),
            stages: stages.collect(),
            sources,
        }
    }
}

fn start_mlflow(
    args: &Run,
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
    if args.work.offline {
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

fn end_mlflow(
    mlflow: MlflowRun,
    folder: &RunFolder,
    status: RunStatus,
    error: Option<String>,
    dataset: Option<DatasetFacts>,
    files: &[(String, PathBuf)],
    tell: &dyn Fn(Event),
) {
    let id = &folder.run().id;
    match mlflow.end(status, error, dataset, files) {
        Ok(None) => {}
        Ok(Some(report)) if report.complete => {
            let text = report.run_url.clone().unwrap_or_else(|| report.summary());
            tell(Event::Note { job: None, text: format!("MLflow: {text}") });
        }
        Ok(Some(report)) => {
            let text =
                format!("MLflow: {}; nothing is lost: `ecgpipe mlflow sync {id}` sends the rest", report.summary());
            tell(Event::Warning { job: None, text });
        }
        Err(error) => tell(Event::Warning { job: None, text: format!("MLflow: {error}") }),
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

fn summary(
    status: RunStatus,
    counts: &Counts,
    elapsed_s: f64,
    published_n: usize,
    folder: &RunFolder,
    metrics: &MetricLog,
) -> String {
    let mut text = String::new();
    let points = metrics.points();
    let shown =
        ["test/accuracy", "test/macro_f1_nsvf", "test/f1_n", "test/f1_s", "test/f1_v", "test/f1_f", "test_all/f1_q"];
    let values: Vec<String> = shown
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
        folder.path().display(),
    ));
    text
}

/// `20261123-064500`, UTC.
fn timestamp(at_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, second, .. } = Utc::from_ms(at_ms);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Unique for this run: only a name, never part of a result.
fn unique_id(pipeline: &str) -> String {
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
