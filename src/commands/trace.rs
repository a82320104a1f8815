//! `ecgpipe trace`: from a published file or an output of a run to the parameters, the code and the raw bytes that made
//! it, and a check of every step on the way.
//!
//! An ONNX file carries its provenance; any other file is known by the digest of its bytes, which the run that published
//! it wrote into its folder, so that a copied or renamed file is found too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ecgpipe_sdk::{Onnx, Provenance, Registry, SourceContext};
use serde::Serialize;

use super::{
    Exit, Failure, Wiring, explain::moment, human_bytes, print, print_json, runs_folder, store_path, surroundings,
};
use crate::{
    cli::Trace,
    digest::Digest,
    event::JobName,
    lineage::{Lineage, RecordedPlan, output_name, parse_output},
    store::{Lookup, Store},
    track::run_folder::{self, JobFile, PUBLISHED_FILE, PublishedEntry, RunFile, SourcesFile},
};

/// A run as its folder tells it.
pub(super) struct Recorded {
    pub(super) run: RunFile,
    pub(super) plan: RecordedPlan,
    pub(super) jobs: Vec<JobFile>,
    pub(super) sources: SourcesFile,
}

impl Recorded {
    pub(super) fn read(folder: &Path, run: RunFile) -> Result<Self, Failure> {
        // A run that was killed, or that an earlier version recorded, may lack some.
        let read = |name: &str| Failure::usage(format!("run {} has no {name} that this version can read", run.id));
        Ok(Self {
            plan: run_folder::read(folder, "plan.json").map_err(|_| read("plan.json"))?,
            jobs: run_folder::read(folder, "jobs.json").map_err(|_| read("jobs.json"))?,
            sources: run_folder::read(folder, "sources.json").map_err(|_| read("sources.json"))?,
            run,
        })
    }
}

/// What is traced.
struct Subject {
    /// As the user named it.
    shown: String,
    /// Of a file: its bytes.
    bytes: Option<Bytes>,
    /// Of a file that a run published.
    published: Option<PublishedEntry>,
    /// The run behind it, if its folder is there.
    recorded: Option<Recorded>,
    wanted: Vec<JobName>,
    port: String,
    /// From the file itself, where no run folder tells.
    provenance: Option<Provenance>,
}

/// What became of one raw file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Same,
    Differs,
    Missing,
}

#[derive(Default, Serialize)]
struct Verification {
    /// By record and file name.
    raw_files: BTreeMap<String, BTreeMap<String, Verdict>>,
    /// Results whose manifests were compared with the run.
    results_n: usize,
    /// Blobs that were read.
    blobs_n: usize,
    /// Their bytes.
    bytes: u64,
    /// What does not fit, in the direction of the data.
    problems: Vec<String>,
}

pub(super) fn trace(args: &Trace, wiring: &Wiring) -> Result<Exit, Failure> {
    let subject = if Path::new(&args.what).is_file() { by_file(args)? } else { by_output(args)? };
    let lineage = match &subject.recorded {
        Some(run) => {
            let lineage = Lineage::of(&run.plan, &run.jobs, &run.sources, &subject.wanted);
            Some(lineage.map_err(Failure::usage)?)
        }
        None => None,
    };
    let provenance = match (&lineage, &subject.recorded) {
        (Some(lineage), Some(recorded)) => {
            let jobs: Vec<&JobFile> = lineage.jobs().filter(|job| subject.wanted.contains(&job.job)).collect();
            let mut provenance = lineage.provenance(&recorded.run, jobs[0], &subject.port);
            if jobs.len() > 1 {
                provenance.output = format!("{}.{}", jobs[0].job.node, subject.port);
                (provenance.key, provenance.digest) = (String::new(), String::new());
            }
            provenance
        }
        _ => subject.provenance.clone().expect("without a run the file itself tells"),
    };
    let verification = args
        .verify
        .as_ref()
        .map(|folder| {
            let store = Store::open_read_only(&store_path(args.store.as_deref()))?;
            let verifying = Verifying { registry: &wiring.registry, store, lineage: lineage.as_ref() };
            Ok::<_, Failure>(verifying.verify(&subject, &provenance, folder.as_deref()))
        })
        .transpose()?;
    let is_good = verification.as_ref().is_none_or(|found| found.problems.is_empty());
    if args.json {
        print_json(&serde_json::json!({
            "traced": subject.shown,
            "run": subject.recorded.as_ref().map(|recorded| &recorded.run.id),
            "published": subject.published,
            "provenance": provenance,
            "jobs": lineage.as_ref().map(|lineage| lineage.jobs().map(bare).collect::<Vec<_>>()),
            "raw_files": verification.as_ref().map(|found| &found.raw_files),
            "verification": verification,
        }));
    } else {
        let tree = Tree { provenance: &provenance, lineage: lineage.as_ref(), full: args.full, seen: BTreeSet::new() };
        print(&tree.text(&subject, verification.as_ref()));
    }
    Ok(if is_good { Exit::Success } else { Exit::Failed })
}

/// A job without why it ran: that is another question.
fn bare(job: &JobFile) -> JobFile {
    JobFile { why: None, ..job.clone() }
}

fn by_output(args: &Trace) -> Result<Subject, Failure> {
    let shown = &args.what;
    let name = args.run.as_deref().unwrap_or("latest");
    let missing = || Failure::environment(format!("failed to read {shown}: there is no such file"));
    let output = parse_output(shown).filter(|_| !shown.contains('/'));
    let (Some((node, port, record)), Ok((folder, run))) = (output, run_folder::find(&runs_folder(), name)) else {
        return Err(missing());
    };
    let recorded = Recorded::read(&folder, run)?;
    if recorded.plan.node(&node).is_none() {
        let nodes: Vec<&str> = recorded.plan.nodes.iter().map(|node| node.name.as_str()).collect();
        let help = format!("nor has run {} a stage `{node}`; its stages are {}", recorded.run.id, nodes.join(", "));
        return Err(missing().help(help));
    }
    let of_node =
        |job: &&JobFile| job.job.node == node && record.as_ref().is_none_or(|one| Some(one) == job.job.record.as_ref());
    let jobs: Vec<&JobFile> = recorded.jobs.iter().filter(of_node).collect();
    let wanted: Vec<JobName> =
        jobs.iter().filter(|job| job.outputs.contains_key(&port)).map(|job| job.job.clone()).collect();
    if wanted.is_empty() {
        let failure = Failure::usage(format!("run {} has no output `{shown}`", recorded.run.id));
        let ports: BTreeSet<&str> = jobs.iter().flat_map(|job| job.outputs.keys()).map(String::as_str).collect();
        let ports: Vec<&str> = ports.into_iter().collect();
        return Err(match (ports.is_empty(), &record) {
            (true, Some(record)) => failure.help(format!("`{node}` did not run for record {record}, or failed")),
            (true, None) => failure.help(format!("`{node}` did not run, or failed")),
            (false, _) => failure.help(format!("the outputs of `{node}` are {}", ports.join(", "))),
        });
    }
    let shown = shown.clone();
    Ok(Subject { shown, bytes: None, published: None, recorded: Some(recorded), wanted, port, provenance: None })
}

fn by_file(args: &Trace) -> Result<Subject, Failure> {
    let path = Path::new(&args.what);
    let shown = args.what.clone();
    let bytes = fs::read(path).map_err(|error| Failure::environment(format!("failed to read {shown}: {error}")))?;
    let bytes = Bytes::from(bytes);
    let digest = Digest::of(&bytes);
    let runs = match &args.run {
        Some(name) => vec![run_folder::find(&runs_folder(), name)?],
        None => run_folder::list(&runs_folder()).into_iter().rev().collect(),
    };
    let place = project_path(path);
    let mut published_as = None;
    for (folder, run) in &runs {
        let entries: Vec<PublishedEntry> = run_folder::read(folder, PUBLISHED_FILE).unwrap_or_default();
        let at_place = |entry: &&PublishedEntry| Some(Path::new(&entry.path)) == place.as_deref();
        let mut same = entries.iter().filter(|entry| entry.digest == digest);
        if let Some(entry) = same.clone().find(at_place).or_else(|| same.next()) {
            let recorded = Some(Recorded::read(folder, run.clone())?);
            let (wanted, port) = (vec![entry.job.clone()], entry.port.clone());
            let (bytes, published) = (Some(bytes), Some(entry.clone()));
            return Ok(Subject { shown, bytes, published, recorded, wanted, port, provenance: None });
        }
        if published_as.is_none() {
            published_as = entries.iter().find(at_place).map(|entry| (entry.path.clone(), run.id.clone()));
        }
    }
    let changed = |as_what: String| {
        let failure = Failure {
            exit: Exit::Failed,
            ..Failure::usage(format!("{shown} was {as_what}, but its bytes have changed"))
        };
        failure.help("`ecgpipe run` with that pipeline publishes it anew")
    };
    let own = Onnx::provenance(&bytes);
    if let Ok(Some(provenance)) = &own {
        let artifact = Onnx::without_provenance(&bytes).map(|artifact| Digest::of(&artifact).to_hex());
        if artifact.is_ok_and(|artifact| artifact == provenance.digest) {
            let (subject, agrees) = by_provenance(&shown, &bytes, provenance, &runs);
            // A file that tells something else than the run of its key, or of its place, is not what was published.
            if agrees || subject.recorded.is_none() && published_as.is_none() {
                return Ok(subject);
            }
        }
    }
    if let Some((path, run)) = published_as {
        return Err(changed(format!("published as {path} by run {run}")));
    }
    if let Ok(Some(provenance)) = own {
        return Err(changed(format!("published from {} of pipeline `{}`", provenance.output, provenance.pipeline)));
    }
    for (folder, run) in &runs {
        let jobs: Vec<JobFile> = run_folder::read(folder, "jobs.json").unwrap_or_default();
        let found = jobs.iter().find_map(|job| {
            let (port, _) = job.outputs.iter().find(|(_, output)| **output == digest)?;
            Some((vec![job.job.clone()], port.clone()))
        });
        if let Some((wanted, port)) = found {
            let recorded = Some(Recorded::read(folder, run.clone())?);
            let bytes = Some(bytes);
            return Ok(Subject { shown, bytes, published: None, recorded, wanted, port, provenance: None });
        }
    }
    let message = match own {
        Err(error) if path.extension().is_some_and(|extension| extension == "onnx") => format!("{shown} is {error}"),
        _ => format!(
            "{shown} carries no provenance, and no run in {} has published these bytes",
            runs_folder().display()
        ),
    };
    Err(Failure::usage(message).help("`ecgpipe trace node.port` traces an output of the latest run by its name"))
}

/// A file that carries its provenance. The run is looked for by the key; tells whether it says the same as the file, but
/// for the commit: the same model may be published at several.
fn by_provenance(shown: &str, bytes: &Bytes, provenance: &Provenance, runs: &[(PathBuf, RunFile)]) -> (Subject, bool) {
    let output = parse_output(&provenance.output);
    let mut subject = Subject {
        shown: shown.to_owned(),
        bytes: Some(bytes.clone()),
        published: None,
        recorded: None,
        wanted: Vec::new(),
        port: output.map(|(_, port, _)| port).unwrap_or_default(),
        provenance: Some(provenance.clone()),
    };
    for (folder, run) in runs {
        let jobs: Vec<JobFile> = run_folder::read(folder, "jobs.json").unwrap_or_default();
        let Some(job) = jobs.iter().find(|job| job.key.to_hex() == provenance.key) else { continue };
        let Ok(recorded) = Recorded::read(folder, run.clone()) else { continue };
        let wanted = vec![job.job.clone()];
        let lineage = Lineage::of(&recorded.plan, &recorded.jobs, &recorded.sources, &wanted);
        let told = lineage.map(|lineage| Provenance {
            git_commit: provenance.git_commit.clone(),
            git_dirty: provenance.git_dirty,
            ecgpipe: provenance.ecgpipe.clone(),
            ..lineage.provenance(&recorded.run, job, &subject.port)
        });
        let agrees = told.is_ok_and(|told| told == *provenance);
        (subject.wanted, subject.recorded) = (wanted, Some(recorded));
        if agrees {
            return (subject, true);
        }
    }
    (subject, false)
}

/// The path relative to the project folder, which is the current one; `None` if it is elsewhere.
fn project_path(path: &Path) -> Option<PathBuf> {
    let (path, project) = (fs::canonicalize(path).ok()?, fs::canonicalize(".").ok()?);
    path.strip_prefix(project).ok().map(Path::to_owned)
}

struct Verifying<'a> {
    registry: &'a Registry,
    store: Store,
    lineage: Option<&'a Lineage<'a>>,
}

/// A raw file that was read.
struct Raw<'a> {
    record: &'a str,
    name: &'a str,
    digest: String,
    /// Where the run read it.
    path: Option<&'a Path>,
}

impl Verifying<'_> {
    fn verify(&self, subject: &Subject, provenance: &Provenance, folder: Option<&Path>) -> Verification {
        let mut found = Verification::default();
        if let Some(lineage) = self.lineage {
            let job = lineage.jobs().find(|job| subject.wanted.contains(&job.job));
            let artifact = job.and_then(|job| job.outputs.get(&subject.port)).copied();
            let stored = self.results(lineage, artifact, &mut found);
            if let (Some(bytes), Some(job), Some(artifact), Some(stored)) = (&subject.bytes, job, artifact, stored)
                && !self.is_of_artifact(bytes, job, &subject.port, artifact, &stored)
            {
                let output = output_name(&job.job, &subject.port);
                found.problems.push(format!("{}: its bytes are not in the artifact {output}", subject.shown));
            }
        }
        self.raw_files(provenance, folder, &mut found);
        found
    }

    /// Every manifest and every blob; gives the bytes of the artifact that is traced.
    fn results(&self, lineage: &Lineage<'_>, artifact: Option<Digest>, found: &mut Verification) -> Option<Bytes> {
        let mut read: BTreeSet<Digest> = BTreeSet::new();
        let mut stored = None;
        for job in lineage.jobs() {
            let name = &job.job;
            let manifest = match self.store.peek(&job.key) {
                Ok(Lookup::Hit(manifest)) => manifest,
                Ok(Lookup::Miss(miss)) => {
                    found.problems.push(format!("{name}: {miss} ({})", job.key.short()));
                    continue;
                }
                Err(error) => {
                    found.problems.push(format!("{name}: failed to {error}"));
                    continue;
                }
            };
            found.results_n += 1;
            let faults = lineage.faults(job, &manifest);
            found.problems.extend(faults.into_iter().map(|fault| format!("{name}: {}", fault.text)));
            for (port, output) in manifest.outputs.iter().filter(|(_, output)| read.insert(output.digest)) {
                match self.store.read(output) {
                    Ok(bytes) => {
                        found.blobs_n += 1;
                        found.bytes += bytes.len() as u64;
                        stored = stored.or_else(|| (Some(output.digest) == artifact).then_some(bytes));
                    }
                    Err(error) => found.problems.push(format!("{name}: `{port}`: failed to {error}")),
                }
            }
        }
        stored
    }

    /// Whether the file is what publishing makes of the artifact.
    fn is_of_artifact(&self, bytes: &Bytes, job: &JobFile, port: &str, artifact: Digest, stored: &Bytes) -> bool {
        let is_one_of_bundle = || {
            let port = self.registry.get(&job.uses)?.spec().outputs.iter().find(|spec| spec.name == port)?;
            let decoded = port.kind.decode(stored).ok()?;
            Some(port.kind.files(&decoded)?.iter().any(|file| file.bytes == *bytes))
        };
        Digest::of(bytes) == artifact
            || Onnx::without_provenance(bytes).is_ok_and(|bytes| Digest::of(&bytes) == artifact)
            || is_one_of_bundle() == Some(true)
    }

    fn raw_files(&self, provenance: &Provenance, folder: Option<&Path>, found: &mut Verification) {
        let raw: Vec<Raw<'_>> = match self.lineage {
            Some(lineage) => {
                let all = lineage.sources().map(|(_, record, name, facts)| {
                    let (digest, path) = (facts.digest.to_hex(), Some(facts.path.as_path()));
                    Raw { record: record.as_str(), name, digest, path }
                });
                all.collect()
            }
            None => {
                let all = provenance.sources.iter();
                let files =
                    all.flat_map(|(record, files)| files.iter().map(move |(name, digest)| (record, name, digest)));
                files.map(|(record, name, digest)| Raw { record, name, digest: digest.clone(), path: None }).collect()
            }
        };
        let (places, errors) = if folder.is_some() { Default::default() } else { self.places(provenance) };
        for file in raw {
            let listed = places.get(&(file.record.to_owned(), file.name.to_owned())).map(PathBuf::as_path);
            let path = match folder {
                Some(folder) => Some(folder.join(file.name)),
                None => listed.or(file.path).map(Path::to_owned),
            };
            let (verdict, problem) = match path.as_ref().map(|path| (path, fs::read(path))) {
                Some((_, Ok(bytes))) if Digest::of(&bytes).to_hex() == file.digest => (Verdict::Same, None),
                Some((path, Ok(_))) => (Verdict::Differs, Some(format!("raw file {} has changed", path.display()))),
                Some((path, Err(error))) => (Verdict::Missing, Some(format!("raw file {}: {error}", path.display()))),
                None => {
                    (Verdict::Missing, Some(format!("raw file {} of record {} is not found", file.name, file.record)))
                }
            };
            found.problems.extend(problem);
            found.raw_files.entry(file.record.to_owned()).or_default().insert(file.name.to_owned(), verdict);
        }
        if found.raw_files.values().flat_map(BTreeMap::values).any(|verdict| *verdict == Verdict::Missing) {
            found.problems.extend(errors);
        }
    }

    /// Where the sources look now: by record and file name; and why some do not know.
    fn places(&self, provenance: &Provenance) -> (BTreeMap<(String, String), PathBuf>, Vec<String>) {
        let (mut places, mut errors) = (BTreeMap::new(), Vec::new());
        let surroundings = surroundings(true);
        for (node, stage) in provenance.stages.iter().filter(|(_, stage)| stage.inputs.is_empty()) {
            let cx = SourceContext {
                data_folder: surroundings.data_folder.clone(),
                shared_data: surroundings.shared_data.clone(),
                offline: true,
                events: &|_| {},
            };
            let Some(known) = self.registry.get(&stage.uses) else {
                errors.push(format!("{node}: this version has no stage `{}`", stage.uses));
                continue;
            };
            let listed = match known.bind(&stage.params) {
                Ok(params) => known.sources(&params, &cx).map_err(|error| error.message),
                Err(error) => Err(format!("parameter `{}`: {}", error.path, error.message)),
            };
            match listed {
                Ok(listed) => places.extend(listed.into_iter().flat_map(|source| {
                    let record = source.record.to_string();
                    source.files.into_iter().map(move |file| ((record.clone(), file.name), file.path))
                })),
                Err(error) => errors.push(format!("{node}: {error}")),
            }
        }
        (places, errors)
    }
}

/// The text for people.
struct Tree<'a> {
    provenance: &'a Provenance,
    lineage: Option<&'a Lineage<'a>>,
    full: bool,
    /// Stages that stand there already.
    seen: BTreeSet<&'a str>,
}

impl<'a> Tree<'a> {
    fn text(mut self, subject: &Subject, verification: Option<&Verification>) -> String {
        let provenance = self.provenance;
        let mut text = format!("{}\n", subject.shown);
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10}{value}\n"));
        let pipeline = format!("of pipeline `{}`, seed {}", provenance.pipeline, provenance.seed);
        line("output", &format!("{} {pipeline}", provenance.output));
        let run = subject.recorded.as_ref().map(|recorded| &recorded.run);
        match (&subject.published, run) {
            (Some(entry), Some(run)) => {
                line("published", &format!("as {} by run {} ({})", entry.path, run.id, moment(run.started_ms)));
            }
            (None, Some(run)) => line("run", &format!("{} ({})", run.id, moment(run.started_ms))),
            (_, None) => line("run", "not in runs/: told by the file itself"),
        }
        if !provenance.key.is_empty() {
            line("key", &provenance.key);
            line("digest", &provenance.digest);
        }
        let dirty = if provenance.git_dirty { " with uncommitted changes" } else { "" };
        line("commit", &format!("{}{dirty}", provenance.git_commit.as_deref().unwrap_or("unknown")));
        line("ecgpipe", &provenance.ecgpipe);
        text.push('\n');
        let root = parse_output(&provenance.output).map(|(node, _, _)| node).unwrap_or_default();
        if let Some((root, _)) = provenance.stages.get_key_value(&root) {
            text.push_str(&format!("{}\n", self.title(root)));
            self.stage(&mut text, "", root);
        }
        self.raw_files(&mut text, verification);
        if let Some(found) = verification {
            self.verdict(&mut text, found);
        }
        text
    }

    fn title(&self, name: &str) -> String {
        let stage = &self.provenance.stages[name];
        let code: String = stage.code.chars().take(crate::digest::SHORT_HEX_N).collect();
        let mut records = self.lineage.into_iter().flat_map(|lineage| lineage.jobs_of(name));
        let records = match (records.next().map(|job| &job.job.record), records.count()) {
            (Some(Some(record)), 0) => format!(", record {record}"),
            (Some(Some(_)), more_n) => format!(", {} records", more_n + 1),
            _ => String::new(),
        };
        format!("{name} ({}, code {code}){records}", stage.uses)
    }

    /// What stands under a stage's title: parameters, results, and the stages that it takes from.
    fn stage(&mut self, text: &mut String, indent: &str, name: &'a str) {
        self.seen.insert(name);
        let stage = &self.provenance.stages[name];
        let bar = if stage.inputs.is_empty() { " " } else { "│" };
        for (param, value) in stage.params.as_object().into_iter().flatten() {
            text.push_str(&format!("{indent}{bar}    {param}: {value}\n"));
        }
        if let (true, Some(lineage)) = (self.full, self.lineage) {
            for job in lineage.jobs_of(name) {
                let outputs = job.outputs.iter().map(|(port, digest)| format!("{port} {}", digest.short()));
                let outputs: Vec<String> = outputs.collect();
                text.push_str(&format!(
                    "{indent}{bar}    {}: key {}, {}\n",
                    job.job,
                    job.key.short(),
                    outputs.join(", ")
                ));
            }
        }
        let input_n = stage.inputs.len();
        for (input_idx, (port, from)) in stage.inputs.iter().enumerate() {
            let above = from.split('.').next().unwrap_or_default();
            let Some((above, _)) = self.provenance.stages.get_key_value(above) else { continue };
            let is_last = input_idx + 1 == input_n;
            let branch = if is_last { "└─ " } else { "├─ " };
            if self.seen.contains(above.as_str()) {
                text.push_str(&format!("{indent}{branch}{port} <- {from}, see above\n"));
                continue;
            }
            text.push_str(&format!("{indent}{branch}{port} <- {from}: {}\n", self.title(above)));
            let below = format!("{indent}{}", if is_last { "   " } else { "│  " });
            self.stage(text, &below, above);
        }
    }

    fn raw_files(&self, text: &mut String, verification: Option<&Verification>) {
        let sources = &self.provenance.sources;
        let file_n: usize = sources.values().map(BTreeMap::len).sum();
        if file_n == 0 {
            text.push_str("raw files: none, the records are made up by a stage\n");
            return;
        }
        text.push_str(&format!("raw files: {file_n} of {} records\n", sources.len()));
        for (record, files) in sources {
            for (name, digest) in files {
                let verdict = verification.and_then(|found| found.raw_files.get(record)?.get(name));
                if !self.full && verdict.is_none_or(|verdict| *verdict == Verdict::Same) {
                    continue;
                }
                let verdict = match verdict {
                    None => "",
                    Some(Verdict::Same) => "  same",
                    Some(Verdict::Differs) => "  DIFFERS",
                    Some(Verdict::Missing) => "  MISSING",
                };
                text.push_str(&format!("    {name}  {}{verdict}\n", &digest[..digest.len().min(16)]));
            }
        }
    }

    fn verdict(&self, text: &mut String, found: &Verification) {
        let verdicts: Vec<&Verdict> = found.raw_files.values().flat_map(BTreeMap::values).collect();
        let same_n = verdicts.iter().filter(|verdict| ***verdict == Verdict::Same).count();
        text.push_str(&format!("verified: {same_n} of {} raw files are the same", verdicts.len()));
        match self.lineage {
            Some(_) => text.push_str(&format!(
                "; {} results and {} blobs ({}) checked\n",
                found.results_n,
                found.blobs_n,
                human_bytes(found.bytes)
            )),
            None => text.push_str("; the way through the cache is not checked: the run is not in runs/\n"),
        }
        for problem in &found.problems {
            text.push_str(&format!("  PROBLEM {problem}\n"));
        }
        if !found.problems.is_empty() {
            text.push_str(&format!("{} problems\n", found.problems.len()));
        }
    }
}
