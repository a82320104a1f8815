//! `ecgpipe explain`: for every job of a run, whether it was a hit, and if not, which field of its key differs.

use serde::Serialize;

use super::{Exit, Failure, print, print_json, runs_folder, store_path};
use crate::{
    cli::Explain,
    digest::KeyField,
    explain::Why,
    store::Store,
    track::run_folder::{self, JobFile},
};

#[derive(Serialize)]
struct Explanation {
    #[serde(flatten)]
    job: JobFile,
    /// The fields that made the key, while the store has the result.
    fields: Vec<KeyField>,
}

pub(super) fn explain(args: &Explain) -> Result<Exit, Failure> {
    let (folder, run) = run_folder::find(&runs_folder(), &args.run)?;
    if !folder.join("jobs.json").exists() {
        let failure = Failure::usage(format!("run {} ended before its first job: there is nothing to explain", run.id));
        return Err(failure.help(format!("`ecgpipe runs show {}` says what it was asked to do", run.id)));
    }
    let mut jobs: Vec<JobFile> = run_folder::read(&folder, "jobs.json")?;
    if let Some(wanted) = &args.job {
        jobs.retain(|job| job.job.to_string() == *wanted || job.job.node == *wanted);
        if jobs.is_empty() {
            return Err(Failure::usage(format!("run {} has no job `{wanted}`", run.id)));
        }
    }
    let store = Store::open_read_only(&store_path(args.store.as_deref()))?;
    let fields = |job: &JobFile| {
        let manifest = store.lookup(&job.key).ok().and_then(crate::store::Lookup::hit);
        manifest.map(|manifest| manifest.fields).unwrap_or_default()
    };
    if args.json {
        let explained: Vec<Explanation> =
            jobs.into_iter().map(|job| Explanation { fields: fields(&job), job }).collect();
        print_json(&explained);
        return Ok(Exit::Success);
    }
    let mut text = String::new();
    for job in &jobs {
        let verdict = match &job.why {
            None => "hit".to_owned(),
            Some(Why::Changed { differences }) if args.job.is_some() => {
                let lines: Vec<String> = differences.iter().map(|difference| format!("\n    {difference}")).collect();
                format!("computed: {}", lines.concat())
            }
            Some(why) => format!("computed: {why}"),
        };
        text.push_str(&format!("{}  {}  {verdict}\n", job.key.short(), job.job));
        if args.job.is_some() {
            for field in fields(job) {
                text.push_str(&format!("    {} = {}\n", field.name, field.value));
            }
        }
    }
    let hit_n = jobs.iter().filter(|job| job.why.is_none()).count();
    text.push_str(&format!("run {}: {hit_n} of {} jobs were hits", run.id, jobs.len()));
    print(&text);
    Ok(Exit::Success)
}
