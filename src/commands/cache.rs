//! `ecgpipe cache`: sizes, verification, garbage collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::{Exit, Failure, human_bytes, open_store, print, print_json, runs_folder, store_path, table};
use crate::{
    cli::{Cache, CacheArgs},
    digest::Key,
    store::{GcOptions, Store},
    track::run_folder::{self, JobFile, RunFile, RunFolderError},
};

pub(super) fn cache(args: &Cache) -> Result<Exit, Failure> {
    match args {
        Cache::Stats(cache) => stats(cache),
        Cache::Verify { repair, cache } => verify(*repair, cache),
        Cache::Gc { keep_runs, grace_hours, dry_run, cache } => gc(*keep_runs, *grace_hours, *dry_run, cache),
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
    let removed_bytes = report.manifests.bytes + report.blobs.bytes + report.temporary.bytes + report.quarantine.bytes;
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
