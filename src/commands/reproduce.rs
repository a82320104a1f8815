//! `ecgpipe reproduce`: derives a run again, from its raw files and its run folder alone, in an empty cache, and compares
//! the digest of every output.
//!
//! What is known to be different (raw files, code, parameters) is said before anything is computed, so that a difference
//! that is found afterwards has only one cause left: a stage that is not deterministic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ecgpipe_sdk::{
    RecordId,
    stage::flattened,
    table::{TableDifference, table_differences},
};
use serde::Serialize;
use tempfile::TempDir;

use super::{Exit, Failure, Wiring, print, print_json, run, runs_folder, store_path, surroundings, trace::Recorded};
use crate::{
    cli::Reproduce,
    digest::Digest,
    engine::{Request, RunReport, run as run_engine},
    event::{Event, JobName},
    expand::{Surroundings, expand},
    pipeline,
    plan::{Plan, plan},
    store::{Lookup, OutputName, StatCache, Store},
    track::{
        Listeners,
        console::{Console, Verbosity},
        run_folder::{self, JobFile, RawFileFacts},
    },
};

/// What came of it.
#[derive(Serialize)]
struct Reproduced {
    run: String,
    /// What was known to be different before anything was computed.
    known: Vec<String>,
    jobs_n: usize,
    outputs_n: usize,
    cpu_s: f64,
    /// The outputs that differ, in the order of the plan.
    differing: Vec<Differing>,
}

#[derive(Serialize)]
struct Differing {
    job: JobName,
    port: String,
    recorded: Digest,
    /// Absent if the job failed or was not run.
    derived: Option<Digest>,
    /// Whether all that went into the job was the same.
    same_inputs: bool,
    /// What differs in the bytes, for the first of them, while the cache has the recorded ones.
    details: Vec<String>,
}

pub(super) fn reproduce(args: &Reproduce, wiring: &Wiring) -> Result<Exit, Failure> {
    let (folder, run_file) = run_folder::find(&runs_folder(), &args.run)?;
    let recorded = Recorded::read(&folder, run_file)?;
    let id = &recorded.run.id;
    let plan = planned_again(&recorded, wiring)?;
    let selected = selected(&plan, &recorded, &args.targets)?;
    let surroundings = surroundings(true);
    let place = Place::new(args)?;
    let store = Store::open(place.path())?;
    let known = known_differences(&recorded, &plan, &selected, &surroundings, wiring, &store)?;
    if !known.is_empty() && !args.anyway {
        let message = format!("run {id} cannot give the same bytes:\n  {}", known.join("\n  "));
        let failure = Failure { exit: Exit::Failed, ..Failure::usage(message) };
        return Err(failure.help("`--anyway` computes it nevertheless and compares what comes out"));
    }
    let cpu_before_s = process_cpu_s();
    let report = derive(args, &plan, selected.clone(), &surroundings, &store, wiring)?;
    if report.status == crate::event::RunStatus::Cancelled {
        return Ok(Exit::Cancelled);
    }
    let cpu_s = process_cpu_s() - cpu_before_s;
    let wanted: BTreeSet<&str> = selected.iter().map(|&idx| plan.nodes()[idx].name.as_str()).collect();
    let jobs: Vec<&JobFile> = recorded.jobs.iter().filter(|job| wanted.contains(job.job.node.as_str())).collect();
    let mut differing = differing(&plan, &jobs, &report);
    if let Some(first) = differing.first_mut() {
        let old = Store::open_read_only(&store_path(args.store.as_deref())).ok();
        first.details = old.and_then(|old| details(&old, &store, &jobs, first)).unwrap_or_default();
    }
    let reproduced = Reproduced {
        run: id.clone(),
        known,
        jobs_n: jobs.iter().filter(|job| !job.outputs.is_empty()).count(),
        outputs_n: jobs.iter().map(|job| job.outputs.len()).sum(),
        cpu_s,
        differing,
    };
    if args.json {
        print_json(&reproduced);
    } else {
        print(&text(&reproduced, args.keep.as_deref()));
    }
    Ok(if reproduced.differing.is_empty() { Exit::Success } else { Exit::Failed })
}

/// The plan of the run folder, checked against the stages of this program.
fn planned_again(recorded: &Recorded, wiring: &Wiring) -> Result<Plan, Failure> {
    let id = &recorded.run.id;
    let text = recorded.plan.pipeline_text();
    let file = PathBuf::from(format!("the plan of run {id}"));
    let pipeline = pipeline::load_with(&file, &[], &|_| Ok(text.clone()))?;
    let planned = plan(&pipeline, &wiring.registry);
    planned.map_err(|report| {
        let problems: Vec<&str> = report.diagnostics().iter().map(|one| one.message.as_str()).collect();
        let message = format!("run {id} cannot be done by this version:\n  {}", problems.join("\n  "));
        let failure = Failure { exit: Exit::Failed, ..Failure::usage(message) };
        failure.help(format!("it was done by ecgpipe {}", recorded.run.version))
    })
}

/// The nodes that the run did, or those of them that were asked for.
fn selected(plan: &Plan, recorded: &Recorded, targets: &[String]) -> Result<BTreeSet<usize>, Failure> {
    let done: BTreeSet<&str> =
        recorded.jobs.iter().filter(|job| !job.outputs.is_empty()).map(|job| job.job.node.as_str()).collect();
    let selected: BTreeSet<usize> =
        plan.select(targets)?.into_iter().filter(|&idx| done.contains(plan.nodes()[idx].name.as_str())).collect();
    if selected.is_empty() {
        return Err(Failure::usage(format!("run {} has no results to compare with", recorded.run.id)));
    }
    Ok(selected)
}

/// Where the new cache is.
enum Place {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Place {
    fn new(args: &Reproduce) -> Result<Self, Failure> {
        if let Some(folder) = &args.keep {
            if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
                let failure = Failure::usage(format!("{} is not empty", folder.display()));
                return Err(failure.help("only an empty cache proves that a run can be derived again"));
            }
            return Ok(Self::Kept(folder.clone()));
        }
        // Beside the store, where there is room for what it holds; the system's temporary folder may be in memory.
        let store = store_path(args.store.as_deref());
        let beside = store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let make = || {
            fs::create_dir_all(beside)?;
            tempfile::Builder::new().prefix(".reproduce-").tempdir_in(beside)
        };
        make()
            .map(Self::Temporary)
            .map_err(|error| Failure::environment(format!("failed to make a folder in {}: {error}", beside.display())))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// Raw files, code and parameters that are others than the run's.
fn known_differences(
    recorded: &Recorded,
    plan: &Plan,
    selected: &BTreeSet<usize>,
    surroundings: &Surroundings,
    wiring: &Wiring,
    store: &Store,
) -> Result<Vec<String>, Failure> {
    let mut known = Vec::new();
    for &idx in selected {
        let node = &plan.nodes()[idx];
        let Some(before) = recorded.plan.node(&node.name) else { continue };
        if before.code != node.code {
            let short = |code: &str| code.chars().take(crate::digest::SHORT_HEX_N).collect::<String>();
            let (old, new) = (short(&before.code), short(&node.code));
            known.push(format!("{}: the code of `{}` is another: {old} -> {new}", node.name, node.uses));
        }
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (flattened(&before.params).into_iter().collect(), node.params.flattened().into_iter().collect());
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
            let shown = |value: Option<&String>| value.map_or("none", String::as_str).to_owned();
            let (old, new) = (shown(old.get(name)), shown(new.get(name)));
            known.push(format!("{}: param.{name} {old} -> {new}", node.name));
        }
    }
    let expansion = match expand(plan, &wiring.registry, selected, surroundings, &|_| {}) {
        Ok(expansion) => expansion,
        Err(errors) => {
            // A missing file keeps the source from listing any; the run folder knows which it was.
            let files = recorded.sources.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
            let missing = files.filter(|facts| !facts.path.exists());
            let missing: Vec<String> =
                missing.map(|facts| format!("raw file {} is gone", facts.path.display())).collect();
            let errors = errors.iter().map(ToString::to_string);
            let message = format!(
                "run {} cannot be derived again:\n  {}",
                recorded.run.id,
                known.into_iter().chain(missing).chain(errors).collect::<Vec<_>>().join("\n  ")
            );
            return Err(Failure { exit: Exit::Failed, ..Failure::usage(message) });
        }
    };
    let stat_cache = StatCache::open(&store.stat_cache_path());
    let nothing = BTreeMap::new();
    for (&idx, listed) in &expansion.sources {
        let node = &plan.nodes()[idx].name;
        let before = recorded.sources.get(node).unwrap_or(&nothing);
        let records: BTreeSet<&RecordId> = listed.iter().map(|source| &source.record).collect();
        known.extend(
            before.keys().filter(|one| !records.contains(one)).map(|one| format!("{node}: record {one} is gone")),
        );
        for source in listed {
            let Some(files) = before.get(&source.record) else {
                known.push(format!("{node}: record {} is new", source.record));
                continue;
            };
            let names: BTreeSet<&String> = source.files.iter().map(|file| &file.name).collect();
            let gone = files.iter().filter(|(name, _)| !names.contains(name));
            known.extend(
                gone.map(|(_, RawFileFacts { path, .. })| format!("{node}: raw file {} is gone", path.display())),
            );
            for file in &source.files {
                let shown = file.path.display();
                let state = stat_cache.digest_file(&file.path);
                let digest = state.map_err(|error| Failure::environment(format!("failed to {error}")))?.digest;
                match files.get(&file.name) {
                    Some(facts) if facts.digest == digest => {}
                    Some(facts) => {
                        let (old, new) = (facts.digest.short(), digest.short());
                        known.push(format!("{node}: raw file {shown} has changed: {old} -> {new}"));
                    }
                    None => known.push(format!("{node}: raw file {shown} is new")),
                }
            }
        }
    }
    // The engine need not read the same files again.
    let _ = stat_cache.save();
    Ok(known)
}

fn derive(
    args: &Reproduce,
    plan: &Plan,
    selected: BTreeSet<usize>,
    surroundings: &Surroundings,
    store: &Store,
    wiring: &Wiring,
) -> Result<RunReport, Failure> {
    let listeners = Listeners::new();
    listeners.add(Console::new(if args.json { Verbosity::Quiet } else { Verbosity::Normal }));
    let tell = |event: Event| listeners.tell(&event);
    let request = Request {
        plan,
        registry: &wiring.registry,
        store,
        surroundings,
        selected,
        force: BTreeSet::new(),
        jobs: args.jobs.unwrap_or_else(run::core_n).max(1),
        keep_going: true,
        dry_run: false,
        previous: &|_| None,
        cancel: run::cancel_on_signal(),
        events: &tell,
    };
    let report = run_engine(&request).map_err(run::engine_failure)?;
    tell(Event::Finished { status: report.status, counts: report.counts });
    Ok(report)
}

/// The outputs that are not the recorded ones, in the order of the plan.
fn differing(plan: &Plan, jobs: &[&JobFile], report: &RunReport) -> Vec<Differing> {
    let derived: BTreeMap<&JobName, _> = report.jobs.iter().map(|job| (&job.name, job)).collect();
    let place = |job: &JobFile| (plan.find(&job.job.node), job.job.record.clone());
    let mut ordered: Vec<&JobFile> = jobs.to_vec();
    ordered.sort_by_key(|job| place(job));
    let mut found = Vec::new();
    for job in ordered {
        let new = derived.get(&job.job);
        for (port, &digest) in &job.outputs {
            let derived = new.and_then(|new| new.outputs.get(port)).map(|output| output.digest);
            if derived != Some(digest) {
                // A key is made of all that goes into a job, so equal keys mean equal inputs, code and parameters.
                let same_inputs = new.is_some_and(|new| new.key == job.key);
                let (job, port) = (job.job.clone(), port.clone());
                found.push(Differing { job, port, recorded: digest, derived, same_inputs, details: Vec::new() });
            }
        }
    }
    found
}

/// Which columns and rows differ, or from which byte on.
fn details(old: &Store, new: &Store, jobs: &[&JobFile], first: &Differing) -> Option<Vec<String>> {
    let job = jobs.iter().find(|job| job.job == first.job)?;
    let name = OutputName::new(first.port.as_str());
    let before = old.peek(&job.key).ok().and_then(Lookup::hit)?;
    // The recorded bytes, unless they were computed anew since.
    let before = before.outputs.get(&name).filter(|output| output.digest == first.recorded)?;
    let keys = new.keys().ok()?;
    let mut manifests = keys.iter().filter_map(|key| new.peek(key).ok().and_then(Lookup::hit));
    let after = manifests.find_map(|manifest| {
        manifest.outputs.get(&name).filter(|output| Some(output.digest) == first.derived).cloned()
    })?;
    let (before, after) = (old.read(before).ok()?, new.read(&after).ok()?);
    Some(match table_differences(&before, &after) {
        Ok(found) if !found.is_empty() => found.iter().map(TableDifference::to_string).collect(),
        _ => {
            let same_n = before.iter().zip(after.iter()).take_while(|(a, b)| a == b).count();
            vec![format!("{} and {} bytes, the same up to byte {same_n}", before.len(), after.len())]
        }
    })
}

fn text(reproduced: &Reproduced, kept: Option<&Path>) -> String {
    let Reproduced { run, known, jobs_n, outputs_n, cpu_s, differing } = reproduced;
    let mut text = String::new();
    for one in known {
        text.push_str(&format!("known to be different: {one}\n"));
    }
    match differing.first() {
        None => text.push_str(&format!(
            "run {run} was derived again: {jobs_n} jobs, all {outputs_n} outputs have the same digests, {cpu_s:.1} CPU s\n"
        )),
        Some(first) => {
            let Differing { job, port, recorded, derived, same_inputs, details } = first;
            text.push_str(&format!("run {run} was not derived again: {} of {outputs_n} outputs differ\n", differing.len()));
            let derived = derived.map_or_else(|| "nothing".to_owned(), |digest| digest.to_hex());
            text.push_str(&format!("first: {job}, output `{port}`\n  recorded  {recorded}\n  derived   {derived}\n"));
            for detail in details {
                text.push_str(&format!("  {detail}\n"));
            }
            text.push_str(if derived == "nothing" {
                "  the job was not done this time\n"
            } else if *same_inputs {
                "  its inputs, parameters and code were the same: the stage is not deterministic\n"
            } else {
                "  its inputs, parameters or code were others, as said above\n"
            });
            let others: BTreeSet<&str> = differing.iter().map(|one| one.job.node.as_str()).collect();
            let others: Vec<&str> = others.into_iter().filter(|node| *node != job.node).collect();
            if !others.is_empty() {
                text.push_str(&format!("  outputs of these stages differ, too: {}\n", others.join(", ")));
            }
        }
    }
    if let Some(folder) = kept {
        text.push_str(&format!("the new cache is in {}\n", folder.display()));
    }
    text
}

/// CPU time of the whole process so far.
fn process_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
