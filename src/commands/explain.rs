//! `ecgpipe explain`: for every job of a run, or of the coming one, whether it is a hit, and if not, which field of its key
//! differs from the nearest earlier one and what change further up that comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Exit, Failure, Wiring, load, open_store, plan::dry_run, print, print_json, runs_folder, store_path, surroundings,
};
use crate::{
    cli::{Explain, PipelineArgs},
    digest::{Digest, Key, KeyField},
    event::JobName,
    explain::Why,
    store::{Lookup, Store},
    track::run_folder::{self, JobFile},
    utc::Utc,
};

#[derive(Serialize)]
struct Explanation {
    job: JobName,
    uses: String,
    /// Unknown while an input has still to be computed.
    key: Option<Key>,
    /// Absent for a hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
    /// `why` in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// For a hit: the run that computed it, if a run folder tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    computed_by: Option<ComputedBy>,
    outputs: BTreeMap<String, Digest>,
    /// The fields that made the key, while the store has the result.
    fields: Vec<KeyField>,
}

#[derive(Clone, Serialize)]
struct ComputedBy {
    run: String,
    started_ms: i64,
}

/// What is explained: the jobs, and what to call them.
struct Subject {
    title: String,
    is_done: bool,
    jobs: Vec<Explanation>,
}

pub(super) fn explain(args: &Explain, wiring: &Wiring) -> Result<Exit, Failure> {
    let is_file = Path::new(&args.run).is_file() || args.run.ends_with(".yaml") || args.run.ends_with(".yml");
    if !args.sets.is_empty() && !is_file {
        let failure = Failure::usage("`--set` goes with a pipeline file: a run that was done cannot be changed");
        return Err(failure.help("ecgpipe explain pipelines/full.yaml --set node.param=value"));
    }
    let store = match is_file || args.next {
        true => open_store(args.store.as_deref())?,
        false => Store::open_read_only(&store_path(args.store.as_deref()))?,
    };
    let mut subject = if is_file {
        let pipeline = PipelineArgs { pipeline: PathBuf::from(&args.run), sets: args.sets.clone() };
        coming(&pipeline, args, &store, wiring)?
    } else if args.next {
        let (_, run) = run_folder::find(&runs_folder(), "latest")?;
        coming(&PipelineArgs { pipeline: PathBuf::from(&run.file), sets: run.sets }, args, &store, wiring)?
    } else {
        done(&args.run)?
    };
    if let Some(wanted) = &args.job {
        subject.jobs.retain(|one| one.job.to_string() == *wanted || one.job.node == *wanted);
        if subject.jobs.is_empty() {
            return Err(Failure::usage(format!("{} has no job `{wanted}`", subject.title)));
        }
    }
    name_the_runs(&mut subject.jobs);
    let in_full = args.json || args.job.is_some();
    for one in subject.jobs.iter_mut().filter(|_| in_full) {
        let manifest = one.key.and_then(|key| store.peek(&key).ok().and_then(Lookup::hit));
        one.fields = manifest.map(|manifest| manifest.fields).unwrap_or_default();
    }
    if args.json {
        print_json(&subject.jobs);
    } else {
        print(&text(&subject, in_full));
    }
    Ok(Exit::Success)
}

/// A run that was done.
fn done(name: &str) -> Result<Subject, Failure> {
    let (folder, run) = run_folder::find(&runs_folder(), name)?;
    if !folder.join("jobs.json").exists() {
        let failure = Failure::usage(format!("run {} ended before its first job: there is nothing to explain", run.id));
        return Err(failure.help(format!("`ecgpipe runs show {}` says what it was asked to do", run.id)));
    }
    let jobs: Vec<JobFile> = run_folder::read(&folder, "jobs.json")?;
    let jobs = jobs.into_iter().map(|file| {
        let JobFile { job, uses, key, why, outputs } = file;
        explanation(job, uses, Some(key), why, outputs)
    });
    Ok(Subject { title: format!("run {}", run.id), is_done: true, jobs: jobs.collect() })
}

/// A run that was not started.
fn coming(pipeline: &PipelineArgs, args: &Explain, store: &Store, wiring: &Wiring) -> Result<Subject, Failure> {
    let (_, plan) = load(pipeline, &wiring.registry)?;
    let report = dry_run(&plan, &wiring.registry, store, &surroundings(args.offline), &[], &[])?;
    let known = report.jobs.into_iter().map(|job| {
        let outputs = job.outputs.iter().map(|(name, output)| (name.as_str().to_owned(), output.digest));
        (job.node_idx, explanation(job.name, String::new(), Some(job.key), job.why, outputs.collect()))
    });
    let waiting = report
        .waiting
        .into_iter()
        .map(|job| (job.node_idx, explanation(job.name, String::new(), None, Some(job.why), BTreeMap::new())));
    let mut jobs: Vec<(usize, Explanation)> = known.chain(waiting).collect();
    jobs.sort_by(|(a_idx, a), (b_idx, b)| (a_idx, &a.job).cmp(&(b_idx, &b.job)));
    let jobs = jobs.into_iter().map(|(node_idx, one)| Explanation { uses: plan.nodes()[node_idx].uses.clone(), ..one });
    let title = format!("the coming run of {}", pipeline.pipeline.display());
    Ok(Subject { title, is_done: false, jobs: jobs.collect() })
}

fn explanation(
    job: JobName,
    uses: String,
    key: Option<Key>,
    why: Option<Why>,
    outputs: BTreeMap<String, Digest>,
) -> Explanation {
    let text = why.as_ref().map(ToString::to_string);
    Explanation { job, uses, key, why, text, computed_by: None, outputs, fields: Vec::new() }
}

/// Says for each hit which run computed it first.
fn name_the_runs(jobs: &mut [Explanation]) {
    let mut wanted: BTreeSet<Key> = jobs.iter().filter(|one| one.why.is_none()).filter_map(|one| one.key).collect();
    let mut found: BTreeMap<Key, ComputedBy> = BTreeMap::new();
    for (folder, run) in run_folder::list(&runs_folder()) {
        if wanted.is_empty() {
            break;
        }
        // A run that was killed has no such file.
        for job in run_folder::read::<Vec<JobFile>>(&folder, "jobs.json").unwrap_or_default() {
            if job.why.is_some() && !job.outputs.is_empty() && wanted.remove(&job.key) {
                found.insert(job.key, ComputedBy { run: run.id.clone(), started_ms: run.started_ms });
            }
        }
    }
    for one in jobs.iter_mut().filter(|one| one.why.is_none()) {
        one.computed_by = one.key.and_then(|key| found.get(&key).cloned());
    }
}

fn text(subject: &Subject, in_full: bool) -> String {
    let mut text = String::new();
    let (computed, are) = if subject.is_done { ("computed", "were") } else { ("to compute", "are") };
    for one in &subject.jobs {
        let verdict = match (&one.why, &one.computed_by) {
            (None, None) => "hit".to_owned(),
            (None, Some(by)) => format!("hit: computed by {} ({})", by.run, moment(by.started_ms)),
            (Some(Why::Changed { differences, causes }), _) if in_full => {
                let lines = differences.iter().map(|difference| format!("\n    {difference}"));
                let causes = causes.iter().map(|cause| format!("\n    because {cause}"));
                format!("{computed}:{}", lines.chain(causes).collect::<String>())
            }
            (Some(why), _) => format!("{computed}: {why}"),
        };
        let key = one.key.map_or_else(|| "-".repeat(crate::digest::SHORT_HEX_N), |key| key.short());
        text.push_str(&format!("{key}  {}  {verdict}\n", one.job));
        if in_full {
            for field in &one.fields {
                text.push_str(&format!("    {} = {}\n", field.name, field.value));
            }
        }
    }
    let hit_n = subject.jobs.iter().filter(|one| one.why.is_none()).count();
    text + &format!("{}: {hit_n} of {} jobs {are} hits", subject.title, subject.jobs.len())
}

/// `2026-11-23 06:25 UTC`.
pub(super) fn moment(at_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, .. } = Utc::from_ms(at_ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}
