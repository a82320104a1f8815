//! A project in a temporary folder: texts, a pipeline, a store; and what a run of it gave.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use ecgpipe::{
    digest::Digest,
    engine::{self, Asked, EngineError, Request, RunReport},
    event::{Counts, Event, RunStatus},
    expand::Surroundings,
    history::History,
    pipeline,
    plan::{Plan, plan},
    store::{
        Store,
        remote::{PushOptions, PushReport, ReadThrough, Remote},
    },
};
use tempfile::TempDir;

use crate::stages;

/// The pipeline of most tests: a chain per record, two gathering stages, one stage that spreads what was gathered, and
/// one that draws random numbers.
pub(crate) const PIPELINE: &str = "
name: texts
seed: 7
stages:
  read: {uses: read_text}
  tidy: {uses: tidy, in: {text: read.text}}
  noise: {uses: noise, in: {text: tidy.text}}
  join: {uses: join, in: {texts: tidy.text}}
  score: {uses: score, in: {joined: join.text, noisy: noise.text}}
  label: {uses: label, in: {text: tidy.text, joined: join.text}}
";

/// Every body of [`PIPELINE`] over the records a, b and c.
pub(crate) const ALL_BODIES: &str = "join label[a] label[b] label[c] noise[a] noise[b] noise[c] read_text[a] read_text[b] \
                                     read_text[c] score tidy[a] tidy[b] tidy[c]";

/// A project.
pub(crate) struct Project {
    folder: TempDir,
    /// The pipeline's text.
    pub(crate) yaml: String,
    /// Code identities that are not the usual ones.
    pub(crate) codes: BTreeMap<String, String>,
}

/// How a run is done.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) jobs: usize,
    pub(crate) force: Vec<&'static str>,
    pub(crate) targets: Vec<&'static str>,
    pub(crate) keep_going: bool,
    pub(crate) dry_run: bool,
    /// The run is cancelled as soon as a job of this name starts.
    pub(crate) cancel_at: Option<&'static str>,
    /// Where results are looked for that the store does not have.
    pub(crate) remote: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let (force, targets) = (Vec::new(), Vec::new());
        Self { jobs: 2, force, targets, keep_going: false, dry_run: false, cancel_at: None, remote: None }
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The bodies that ran, sorted, with a space between them.
    pub(crate) bodies: String,
    pub(crate) status: RunStatus,
    pub(crate) counts: Counts,
    /// Digests by `node[record].port`.
    pub(crate) digests: BTreeMap<String, Digest>,
    pub(crate) events: Vec<Event>,
    pub(crate) report: RunReport,
}

impl Ran {
    /// Warnings, each with its job.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |event: &Event| match event {
            Event::Warning { job, text } => {
                Some(format!("{}: {text}", job.as_ref().map(ToString::to_string).unwrap_or_default()))
            }
            _ => None,
        };
        self.events.iter().filter_map(warning).collect()
    }

    /// Failures as `job: error (help)`.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failure = |event: &Event| match event {
            Event::Failed { job, error, help } => {
                Some(format!("{job}: {error} ({})", help.as_deref().unwrap_or("no help")))
            }
            _ => None,
        };
        self.events.iter().filter_map(failure).collect()
    }

    /// Jobs that could not run, sorted.
    pub(crate) fn skipped(&self) -> String {
        let skipped = |event: &Event| match event {
            Event::Skipped { job } => Some(job.to_string()),
            _ => None,
        };
        let mut jobs: Vec<String> = self.events.iter().filter_map(skipped).collect();
        jobs.sort();
        jobs.join(" ")
    }

    /// Metrics as `key@step=value`, sorted.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let metric = |event: &Event| match event {
            Event::Metric { point, .. } => Some(format!("{}@{}={}", point.key, point.step, point.value)),
            _ => None,
        };
        let mut metrics: Vec<String> = self.events.iter().filter_map(metric).collect();
        metrics.sort();
        metrics
    }

    /// Why a job was computed.
    pub(crate) fn why(&self, job: &str) -> Option<String> {
        let report = self.report.jobs.iter().find(|report| report.name.to_string() == job)?;
        report.why.as_ref().map(ToString::to_string)
    }
}

impl Project {
    /// Three records and [`PIPELINE`].
    pub(crate) fn new() -> Self {
        let project = Self { folder: TempDir::new().unwrap(), yaml: PIPELINE.to_owned(), codes: BTreeMap::new() };
        fs::create_dir_all(project.data_folder().join("texts")).unwrap();
        for (record, text) in [("a", "alpha beta"), ("b", "gamma delta"), ("c", "epsilon zeta")] {
            project.write(record, text);
        }
        project
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn runs_folder(&self) -> PathBuf {
        self.folder.path().join("runs")
    }

    pub(crate) fn store_folder(&self) -> PathBuf {
        self.data_folder().join("store")
    }

    /// The raw file of a record.
    pub(crate) fn text_path(&self, record: &str) -> PathBuf {
        self.data_folder().join("texts").join(format!("{record}.txt"))
    }

    pub(crate) fn write(&self, record: &str, text: &str) {
        fs::write(self.text_path(record), text).unwrap();
    }

    pub(crate) fn remove(&self, record: &str) {
        fs::remove_file(self.text_path(record)).unwrap();
    }

    /// Gives a raw file another time and the same bytes.
    pub(crate) fn touch(&self, record: &str) {
        let file = fs::File::options().write(true).open(self.text_path(record)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    }

    /// Replaces a part of the pipeline, which must be there.
    pub(crate) fn edit(&mut self, from: &str, to: &str) {
        assert!(self.yaml.contains(from), "the pipeline does not say {from:?}: {}", self.yaml);
        self.yaml = self.yaml.replace(from, to);
    }

    pub(crate) fn trouble(&self, body: &str, trouble: Option<stages::Trouble>) {
        stages::set_trouble(&self.data_folder(), body, trouble);
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.store_folder().join("blobs").join(&hex[..2]).join(hex)
    }

    /// Changes one bit of a blob and leaves its size and name.
    pub(crate) fn flip(&self, digest: &Digest) {
        let path = self.blob_path(digest);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[expect(clippy::permissions_set_readonly_false, reason = "a temporary folder of this test")]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    pub(crate) fn plan(&self) -> Plan {
        let read = |_: &Path| Ok(self.yaml.clone());
        let pipeline = pipeline::load_with(Path::new("pipeline.yaml"), &[], &read);
        let planned = pipeline.and_then(|pipeline| plan(&pipeline, &stages::registry(&self.codes)));
        planned.unwrap_or_else(|report| panic!("{}", report.plain()))
    }

    pub(crate) fn run(&self) -> Ran {
        self.run_with(&Options::default())
    }

    pub(crate) fn run_with(&self, options: &Options) -> Ran {
        self.try_run(options, &self.store_folder()).unwrap()
    }

    /// The same run on an empty store.
    pub(crate) fn run_fresh(&self, jobs: usize) -> Ran {
        let store = TempDir::new().unwrap();
        self.try_run(&Options { jobs, ..Options::default() }, store.path()).unwrap()
    }

    pub(crate) fn try_run(&self, options: &Options, store: &Path) -> Result<Ran, EngineError> {
        self.run_plan(&self.plan(), options, store)
    }

    pub(crate) fn run_plan(&self, plan: &Plan, options: &Options, store: &Path) -> Result<Ran, EngineError> {
        let mut store = Store::open(store)?;
        if let Some(url) = &options.remote {
            store.attach(ReadThrough::new(url).unwrap());
        }
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let selected = plan.select(&owned(&options.targets)).unwrap();
        let force = options.force.iter().map(|name| plan.find(name).unwrap()).collect();
        let cancel = AtomicBool::new(false);
        let events = Mutex::new(Vec::new());
        let tell = |event: Event| {
            if matches!(&event, Event::Started { job } if options.cancel_at == Some(job.to_string().as_str())) {
                cancel.store(true, Ordering::Relaxed);
            }
            events.lock().unwrap().push(event);
        };
        let surroundings =
            Surroundings { data_folder: self.data_folder(), shared_data: None, offline: true, logs: None };
        let history = History::new(&self.runs_folder(), plan.name());
        let previous = |asked: &Asked<'_>| Some(history.why(asked));
        let request = Request {
            plan,
            registry: &stages::registry(&self.codes),
            store: &store,
            surroundings: &surroundings,
            selected,
            force,
            jobs: options.jobs,
            keep_going: options.keep_going,
            dry_run: options.dry_run,
            previous: &previous,
            cancel: &cancel,
            events: &tell,
        };
        let report = engine::run(&request)?;
        let digests = report.jobs.iter().flat_map(|job| {
            job.outputs.iter().map(|(port, output)| (format!("{}.{}", job.name, port.as_str()), output.digest))
        });
        Ok(Ran {
            bodies: stages::take_bodies(&self.data_folder()).join(" "),
            status: report.status,
            counts: report.counts,
            digests: digests.collect(),
            events: events.into_inner().unwrap(),
            report,
        })
    }

    /// Sends everything in the store to a remote.
    pub(crate) fn push(&self, url: &str) -> PushReport {
        let store = Store::open(&self.store_folder()).unwrap();
        let remote = Remote::open_to_push(url, false).unwrap();
        remote.push(&store, &store.keys().unwrap(), PushOptions::default(), &|_| {}).unwrap()
    }

    /// Files in the store's quarantine.
    pub(crate) fn quarantined_n(&self) -> usize {
        fs::read_dir(self.store_folder().join("quarantine")).unwrap().count()
    }
}
