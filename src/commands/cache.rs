//! `ecgpipe cache`: sizes, verification, garbage collection, and sharing through a remote.
#![expect(clippy::print_stderr, reason = "warnings of a transfer go to the user")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    time::{Duration, Instant, SystemTime},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Failure, human_bytes, open_store, print, print_json, runs_folder, store_path, table};
use crate::{
    cli::{Cache, CacheArgs},
    digest::Key,
    store::{
        GcOptions, Store,
        remote::{Progress, PullReport, PushOptions, PushReport, Remote},
    },
    track::run_folder::{self, JobFile, RunFile, RunFolderError},
};

pub(super) fn cache(args: &Cache) -> Result<Exit, Failure> {
    match args {
        Cache::Stats(cache) => stats(cache),
        Cache::Verify { repair, cache } => verify(*repair, cache),
        Cache::Gc { keep_runs, grace_hours, dry_run, cache } => gc(*keep_runs, *grace_hours, *dry_run, cache),
        Cache::Push { remote, runs, all, verify, dry_run, cache } => {
            let options = PushOptions { dry_run: *dry_run, verify: *verify };
            push(remote, runs, *all, options, cache)
        }
        Cache::Pull { remote, runs, dry_run, cache } => pull(remote, runs, *dry_run, cache),
    }
}

fn stats(args: &CacheArgs) -> Result<Exit, Failure> {
    let stats = Store::open_read_only(&store_path(args.store.as_deref()))?.stats()?;
    if args.json {
        print_json(&stats);
        return Ok(Exit::Success);
    }
    let mut rows = vec![["stage", "results", "blobs", "size"].map(str::to_owned).to_vec()];
    for (stage, size) in &stats.stages {
        rows.push(vec![stage.clone(), size.manifests_n.to_string(), size.blobs_n.to_string(), human_bytes(size.bytes)]);
    }
    rows.push(vec![
        "all".to_owned(),
        stats.manifests_n.to_string(),
        stats.blobs_n.to_string(),
        human_bytes(stats.blob_bytes),
    ]);
    let mut text = table(&rows);
    if stats.unreferenced_bytes + stats.quarantine_bytes > 0 {
        let (unreferenced, quarantine) = (human_bytes(stats.unreferenced_bytes), human_bytes(stats.quarantine_bytes));
        text.push_str(&format!("not needed by any result: {unreferenced}; in quarantine: {quarantine}\n"));
    }
    if stats.checkpoints_n > 0 {
        let size = human_bytes(stats.checkpoint_bytes);
        text.push_str(&format!("checkpoints of unfinished jobs: {} ({size})\n", stats.checkpoints_n));
    }
    print(&text);
    Ok(Exit::Success)
}

fn verify(repair: bool, args: &CacheArgs) -> Result<Exit, Failure> {
    let report = if repair {
        open_store(args.store.as_deref())?.repair()?
    } else {
        Store::open_read_only(&store_path(args.store.as_deref()))?.verify()?
    };
    if args.json {
        print_json(&report);
    } else {
        let mut text = String::new();
        for problem in &report.problems {
            let moved =
                problem.quarantined.as_ref().map(|to| format!("; moved to {}", to.display())).unwrap_or_default();
            text.push_str(&format!("{}: {}{moved}\n", problem.path.display(), problem.kind));
        }
        let (size, problem_n) = (human_bytes(report.bytes), report.problems.len());
        text.push_str(&format!(
            "{} results and {} blobs ({size}) read, {problem_n} problems\n",
            report.manifests_n, report.blobs_n
        ));
        if problem_n > 0 && !repair {
            text.push_str(
                "help: `ecgpipe cache verify --repair` moves what is damaged aside; the next run computes it anew\n",
            );
        }
        print(&text);
    }
    Ok(if report.problems.is_empty() { Exit::Success } else { Exit::Failed })
}

fn gc(keep_runs: usize, grace_hours: f64, dry_run: bool, args: &CacheArgs) -> Result<Exit, Failure> {
    if !(grace_hours >= 0.0 && grace_hours.is_finite()) {
        return Err(Failure::usage(format!("--grace-hours must be a number of at least 0, not {grace_hours}")));
    }
    let options = GcOptions { grace: Duration::from_secs_f64(grace_hours * 3600.0), now: SystemTime::now(), dry_run };
    let mut root_n = 0;
    let report = Store::open_to_collect(&store_path(args.store.as_deref()))?.gc(
        || {
            let roots = roots(keep_runs)?;
            root_n = roots.len();
            Ok(roots)
        },
        options,
    )?;
    if args.json {
        print_json(&report);
        return Ok(Exit::Success);
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    let leftovers = [report.temporary, report.quarantine, report.checkpoints];
    let removed_bytes =
        report.manifests.bytes + report.blobs.bytes + leftovers.iter().map(|removed| removed.bytes).sum::<u64>();
    print(&format!(
        "{verb} {} results and {} blobs ({}); kept {} results and {} blobs of {} roots",
        report.manifests.files_n,
        report.blobs.files_n,
        human_bytes(removed_bytes),
        report.kept_manifests_n,
        report.kept_blobs_n,
        root_n,
    ));
    Ok(Exit::Success)
}

fn push(url: &str, runs: &[String], all: bool, options: PushOptions, args: &CacheArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let store = open_store(args.store.as_deref())?;
    let keys = match (all, runs.is_empty()) {
        (true, _) => store.keys()?,
        (false, true) => roots(Cache::KEEP_RUNS_N).map_err(Failure::environment)?,
        (false, false) => keys_of(runs)?,
    };
    let line = TransferLine::new();
    let report =
        Remote::open_to_push(url, options.dry_run)?.push(&store, &keys, options, &|progress| line.show(progress))?;
    line.clear();
    for complaint in push_complaints(&report) {
        eprintln!("warning: {complaint}");
    }
    let exit = if report.conflicts.is_empty() && report.warnings.is_empty() { Exit::Success } else { Exit::Failed };
    if args.json {
        print_json(&report);
        return Ok(exit);
    }
    let mut text = format!(
        "{} {} results ({} blobs, {}) to {url}; {} were there{}",
        if options.dry_run { "would send" } else { "sent" },
        report.results_n,
        report.blobs_n,
        human_bytes(report.bytes),
        report.present_n,
        seconds(started, options.dry_run),
    );
    if report.gone_n > 0 {
        text.push_str(&format!("\n{} results of those runs are no longer in the cache", report.gone_n));
    }
    if report.other_version_n > 0 {
        text.push_str(&format!("\n{} results are there in the format of another version", report.other_version_n));
    }
    if keys.is_empty() {
        text.push_str("\nhelp: there are no runs here; `--all` sends everything that is in the cache");
    }
    print(&text);
    Ok(exit)
}

/// What a person should hear of a push besides its numbers.
pub(super) fn push_complaints(report: &PushReport) -> Vec<String> {
    let conflicts = report.conflicts.iter().map(|conflict| {
        format!(
            "stage `{}` is not deterministic: the remote has other bytes for {} under the key {}; they were left alone",
            conflict.stage,
            conflict.outputs.join(", "),
            conflict.key.short(),
        )
    });
    let weak = (report.put_if_absent == Some(false)).then(|| {
        "this remote cannot refuse to overwrite (no put-if-absent): every result is looked at before and after it is \
         written; two different results of one key, sent in the same instant, may still go unnoticed"
            .to_owned()
    });
    conflicts.chain(report.warnings.iter().cloned()).chain(weak).collect()
}

fn pull(url: &str, runs: &[String], dry_run: bool, args: &CacheArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let keys = if runs.is_empty() { None } else { Some(keys_of(runs)?) };
    let remote = Remote::open(url)?;
    let store = open_store(args.store.as_deref())?;
    let line = TransferLine::new();
    let report: PullReport = remote.pull(&store, keys.as_ref(), dry_run, &|progress| line.show(progress))?;
    line.clear();
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let exit = if report.warnings.is_empty() { Exit::Success } else { Exit::Failed };
    if args.json {
        print_json(&report);
        return Ok(exit);
    }
    let mut text = format!(
        "{} {} results ({} blobs, {}) from {url}; {} were here{}",
        if dry_run { "would bring" } else { "brought" },
        report.results_n,
        report.blobs_n,
        human_bytes(report.bytes),
        report.present_n,
        seconds(started, dry_run),
    );
    for (result_n, what) in [
        (report.absent_n, "are not there"),
        (report.busy_n, "are being computed here just now"),
        (report.other_version_n, "are there in the format of another version"),
    ] {
        if result_n > 0 {
            text.push_str(&format!("\n{result_n} results {what}"));
        }
    }
    if !report.warnings.is_empty() {
        text.push_str("\nhelp: who has the results sends them again with `ecgpipe cache push --verify`");
    }
    print(&text);
    Ok(exit)
}

fn seconds(started: Instant, dry_run: bool) -> String {
    if dry_run { String::new() } else { format!(", in {:.1} s", started.elapsed().as_secs_f64()) }
}

/// The line that shows how far a transfer is, where there is a terminal.
struct TransferLine(ProgressBar);

impl TransferLine {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix}  [{bar:24}] {pos}/{len} {msg}  {eta}")
            .expect("the template is fixed")
            .progress_chars("=> ");
        Self(ProgressBar::new(0).with_style(style))
    }

    fn show(&self, progress: Progress) {
        self.0.set_prefix(progress.unit);
        self.0.set_length(progress.total_n as u64);
        self.0.set_position(progress.done_n as u64);
        if progress.bytes > 0 {
            self.0.set_message(human_bytes(progress.bytes));
        }
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// The keys of named runs.
fn keys_of(runs: &[String]) -> Result<BTreeSet<Key>, Failure> {
    let mut keys = BTreeSet::new();
    for name in runs {
        let (folder, run) = run_folder::find(&runs_folder(), name)?;
        if !folder.join("jobs.json").exists() {
            return Err(Failure::usage(format!("run {} has no list of its results; it was killed", run.id)));
        }
        let jobs: Vec<JobFile> = run_folder::read(&folder, "jobs.json")?;
        keys.extend(jobs.into_iter().map(|job| job.key));
    }
    Ok(keys)
}

/// The keys of the latest runs of every pipeline. A run that cannot be read for now is an error, or gc would take its results.
fn roots(keep_runs: usize) -> Result<BTreeSet<Key>, Box<dyn std::error::Error + Send + Sync>> {
    let mut runs = Vec::new();
    for folder in run_folder::folders(&runs_folder())? {
        match run_folder::read::<RunFile>(&folder, "run.json") {
            Ok(run) => runs.push((run.started_ms, run.pipeline, folder)),
            Err(error) if error.is_absent() => {}
            // Torn by a power cut: nobody knows which pipeline it was, so it is kept for as long as its folder is there.
            Err(RunFolderError::Malformed { .. }) => runs.push((i64::MAX, folder.display().to_string(), folder)),
            Err(error) => return Err(error.into()),
        }
    }
    runs.sort();
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut roots = BTreeSet::new();
    for (_, pipeline, folder) in runs.into_iter().rev() {
        let kept_n = kept.entry(pipeline).or_default();
        if *kept_n == keep_runs {
            continue;
        }
        match run_folder::read::<Vec<JobFile>>(&folder, "jobs.json") {
            Ok(jobs) => {
                *kept_n += 1;
                roots.extend(jobs.into_iter().map(|job| job.key));
            }
            // It was killed, or is still going on: what it has computed is protected by its lease or by the grace period. It
            // does not count, or some kills would cost the results of the last good run.
            Err(error) if error.is_absent() => {}
            // A power cut must not keep the cache from being cleaned for ever.
            Err(error @ RunFolderError::Malformed { .. }) => eprintln!("warning: {error}; this run keeps no results"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(roots)
}
