//! Owns `runs/<id>/`: the record of a run, complete without any server.
//!
//! | file | holds |
//! |---|---|
//! | `run.json` | who, what, when, how it ended; rewritten at the end |
//! | `plan.json` | the checked pipeline with every parameter |
//! | `events.jsonl` | everything that happened, appended as it happens, with times; hits are counted, `jobs.json` has each |
//! | `params.json` | flattened parameters |
//! | `metrics.json` | every metric point |
//! | `jobs.json` | every job: key, why it ran, outputs by digest; these are the roots of the cache |
//! | `sources.json` | digests and places of the raw files, by node and record |
//! | `published.json` | the files that were given to people: path, digest of their bytes, and of the artifact |
//! | `mlflow/` | the spool for the tracking server |
//! | `published/` | of a point of a sweep: what its pipeline publishes, except what goes to `data/` |
//!
//! Times appear here and only here: never in an artifact.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ecgpipe_sdk::{MetricPoint, RecordId};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

use super::Listener;
use crate::{
    digest::{Digest, Key},
    event::{Counts, Event, JobName, RunStatus},
    explain::Why,
    git::GitState,
    sweep::values,
};

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// Version of this structure.
    pub format: u32,
    /// The run's name: the folder's.
    pub id: String,
    /// Unique across machines.
    pub uuid: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as given.
    pub file: String,
    /// `--set` arguments as given.
    pub sets: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// Version of ecgpipe.
    pub version: String,
    /// The state of the code, where the project is a git work tree.
    pub git: Option<GitState>,
    /// Start, milliseconds since 1970.
    pub started_ms: i64,
    /// End; `None` while it runs, or if it was killed.
    pub ended_ms: Option<i64>,
    /// How it ended.
    pub status: Option<RunStatus>,
    /// The sums.
    pub counts: Option<Counts>,
    /// Which point of which sweep it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepPoint>,
}

/// Which point of which sweep a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The sweep's name, the same in all its runs.
    pub id: String,
    /// Which point, from 1.
    pub point: usize,
    /// How many points the sweep has.
    pub point_n: usize,
    /// The swept parameters with their values at this point, in the order of the options.
    pub varied: Vec<(String, String)>,
}

impl SweepPoint {
    /// `train.epochs=10 train.learning_rate=0.001`.
    #[must_use]
    pub fn values(&self) -> String {
        values(&self.varied)
    }

    /// `point 3 of 8: train.epochs=10`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("point {} of {}: {}", self.point, self.point_n, self.values())
    }
}

/// One entry of `jobs.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobFile {
    /// The job.
    pub job: JobName,
    /// The stage's type.
    pub uses: String,
    /// Its key.
    pub key: Key,
    /// Why it was computed; absent for a hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Digest a port; empty if it failed.
    pub outputs: BTreeMap<String, Digest>,
}

/// `sources.json`: node, record, file name.
pub type SourcesFile = BTreeMap<String, BTreeMap<RecordId, BTreeMap<String, RawFileFacts>>>;

/// What a run knew of a raw file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawFileFacts {
    /// Of its bytes.
    pub digest: Digest,
    /// Where it was.
    pub path: PathBuf,
}

/// What a run published.
pub const PUBLISHED_FILE: &str = "published.json";

/// One entry of [`PUBLISHED_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedEntry {
    /// Relative to the project folder.
    pub path: String,
    /// Of the file's bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Of the artifact that it was made from; another where the provenance was written into the file, or where the
    /// artifact is a bundle of files.
    pub artifact: Digest,
    /// The job that made the artifact.
    pub job: JobName,
    /// Its output.
    pub port: String,
    /// Its key.
    pub key: Key,
}

/// Where a point of a sweep publishes, in its run folder.
pub const PUBLISHED_FOLDER: &str = "published";

/// The version of the files in a run folder.
pub const FORMAT: u32 = 1;

/// The lists of a run of 20,000 jobs have some megabytes.
const BUFFER_N: usize = 64 << 10;

/// A run folder that does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// The file system refuses.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{path} is malformed: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There is no such run.
    #[error("there is no run `{name}` in {folder}; `ecgpipe runs list` shows them")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
}

impl RunFolderError {
    /// Tells whether the file is not there, rather than not readable.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
    }
}

/// An open run folder; also a listener that appends to `events.jsonl`.
pub struct RunFolder {
    folder: PathBuf,
    run: RunFile,
}

impl RunFolder {
    /// Makes `runs/<id>/` with an id of time and pipeline name, and writes `run.json`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(runs: &Path, mut run: RunFile) -> Result<Self, RunFolderError> {
        fs::create_dir_all(runs).map_err(io("create", runs))?;
        let stem = run.id.clone();
        let folder = (1..)
            .map(|attempt| if attempt == 1 { stem.clone() } else { format!("{stem}-{attempt}") })
            .map(|id| runs.join(id))
            .find_map(|folder| match fs::create_dir(&folder) {
                Ok(()) => Some(Ok(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(io("create", &folder)(error))),
            })
            .expect("the attempts do not end")?;
        run.id = folder.file_name().expect("just joined").to_string_lossy().into_owned();
        let run_folder = Self { folder, run };
        run_folder.write("run.json", &run_folder.run)?;
        Ok(run_folder)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// What stands in `run.json`.
    #[must_use]
    pub fn run(&self) -> &RunFile {
        &self.run
    }

    /// Writes one of the JSON files.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), RunFolderError> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.partial"));
        let write = || {
            let mut file = BufWriter::with_capacity(BUFFER_N, File::create(&temporary)?);
            serde_json::to_writer(&mut file, value)?;
            file.flush()
        };
        write().map_err(io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(io("write", &path))
    }

    /// Writes a list of which only one item is in memory at a time.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_list<T: Serialize>(&self, name: &str, items: impl Iterator<Item = T>) -> Result<(), RunFolderError> {
        struct List<I>(Cell<Option<I>>);
        impl<T: Serialize, I: Iterator<Item = T>> Serialize for List<I> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.take().expect("a list is written once"))
            }
        }
        self.write(name, &List(Cell::new(Some(items))))
    }

    /// Writes the end into `run.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn end(&mut self, status: RunStatus, counts: Counts) -> Result<(), RunFolderError> {
        self.run.ended_ms = Some(now_ms());
        self.run.status = Some(status);
        self.run.counts = Some(counts);
        self.write("run.json", &self.run)
    }

    /// A listener that appends every event to `events.jsonl`, and collects the metrics into `metrics.json`.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn listener(&self) -> Result<EventLog, RunFolderError> {
        let path = self.folder.join("events.jsonl");
        let file = File::create(&path).map_err(io("create", &path))?;
        Ok(EventLog { file: BufWriter::new(file), hits: BTreeMap::new() })
    }
}

/// Appends events to `events.jsonl`. Hits are only counted, with a line a node at the end: a run that has nothing to do says
/// so in a few lines, not in one for each of its jobs.
pub struct EventLog {
    file: BufWriter<File>,
    hits: BTreeMap<String, usize>,
}

impl EventLog {
    fn append(&mut self, line: &impl Serialize) {
        // A full disk must not stop the run: the store reports it where it matters.
        let _ = serde_json::to_writer(&mut self.file, line);
        let _ = self.file.write_all(b"\n");
    }
}

impl Listener for EventLog {
    fn hear(&mut self, event: &Event) {
        #[derive(Serialize)]
        struct Line<'a> {
            at_ms: i64,
            #[serde(flatten)]
            event: &'a Event,
        }
        let at_ms = now_ms();
        match event {
            Event::Progress { .. } => return,
            Event::Hit { job, .. } => {
                match self.hits.get_mut(&job.node) {
                    Some(hit_n) => *hit_n += 1,
                    None => drop(self.hits.insert(job.node.clone(), 1)),
                }
                return;
            }
            Event::Finished { .. } => {
                for (node, job_n) in std::mem::take(&mut self.hits) {
                    self.append(&serde_json::json!({"at_ms": at_ms, "event": "hits", "node": node, "job_n": job_n}));
                }
            }
            _ => {}
        }
        self.append(&Line { at_ms, event });
        // What was done must survive a crash; metrics are not worth a system call each, and after a miss comes what is done
        // about it.
        if !matches!(event, Event::Metric { .. } | Event::Miss { .. }) {
            let _ = self.file.flush();
        }
    }
}

/// Collects metric points; the last of equals (same key and step) stays.
#[derive(Clone, Default)]
pub struct MetricLog(std::sync::Arc<std::sync::Mutex<BTreeMap<(String, i64), f64>>>);

impl MetricLog {
    /// The points, sorted by key and step.
    #[must_use]
    pub fn points(&self) -> Vec<MetricPoint> {
        let points = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        points.iter().map(|((key, step), &value)| MetricPoint { key: key.clone(), step: *step, value }).collect()
    }
}

impl Listener for MetricLog {
    fn hear(&mut self, event: &Event) {
        if let Event::Metric { point, .. } = event {
            let mut points = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            points.insert((point.key.clone(), point.step), point.value);
        }
    }
}

/// The value of each metric at its last step.
#[must_use]
pub fn last_values(points: &[MetricPoint]) -> BTreeMap<String, f64> {
    let mut last: BTreeMap<&str, (i64, f64)> = BTreeMap::new();
    for point in points {
        let entry = last.entry(&point.key).or_insert((point.step, point.value));
        if point.step >= entry.0 {
            *entry = (point.step, point.value);
        }
    }
    last.into_iter().map(|(key, (_, value))| (key.to_owned(), value)).collect()
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// The folders of all runs, sorted by name, readable or not; none if there is no such folder.
///
/// # Errors
/// If it cannot be listed.
pub fn folders(runs: &Path) -> Result<Vec<PathBuf>, RunFolderError> {
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io("list", runs))?,
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(io("list", runs))?;
    paths.sort();
    Ok(paths)
}

/// All runs under a folder, oldest first; folders without a readable `run.json` are left out.
#[must_use]
pub fn list(runs: &Path) -> Vec<(PathBuf, RunFile)> {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(PathBuf, RunFile)> =
        folders.filter_map(|folder| Some((folder.clone(), read::<RunFile>(&folder, "run.json").ok()?))).collect();
    found.sort_by(|a, b| (a.1.started_ms, &a.1.id).cmp(&(b.1.started_ms, &b.1.id)));
    found
}

/// A run by its id, a unique beginning of it, or `latest`.
///
/// # Errors
/// If there is none.
pub fn find(runs: &Path, name: &str) -> Result<(PathBuf, RunFile), RunFolderError> {
    let mut all = list(runs);
    let unknown = || RunFolderError::Unknown { name: name.to_owned(), folder: runs.to_owned() };
    if name == "latest" {
        return all.pop().ok_or_else(unknown);
    }
    if let Some(idx) = all.iter().position(|(_, run)| run.id == name || run.uuid == name) {
        return Ok(all.swap_remove(idx));
    }
    let mut matching = all.into_iter().filter(|(_, run)| run.id.starts_with(name));
    match (matching.next(), matching.next()) {
        (Some(run), None) => Ok(run),
        _ => Err(unknown()),
    }
}

/// Reads one of the JSON files of a run folder.
///
/// # Errors
/// If it is missing or malformed.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, RunFolderError> {
    let path = folder.join(name);
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|source| RunFolderError::Malformed { path, source })
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RunFolderError {
    let path = path.to_owned();
    move |source| RunFolderError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, started_ms: i64) -> RunFile {
        RunFile {
            format: FORMAT,
            id: id.to_owned(),
            uuid: format!("uuid-{id}"),
            pipeline: "full".to_owned(),
            file: "pipelines/full.yaml".to_owned(),
            sets: Vec::new(),
            seed: 1,
            version: "0.1.0".to_owned(),
            git: None,
            started_ms,
            ended_ms: None,
            status: None,
            counts: None,
            sweep: None,
        }
    }

    #[test]
    fn two_runs_of_one_second_get_two_folders_and_are_found() {
        let runs = tempfile::tempdir().expect("a temporary folder");
        let first = RunFolder::create(runs.path(), run("20260101-000000-full", 1)).expect("created");
        let second = RunFolder::create(runs.path(), run("20260101-000000-full", 2)).expect("created");
        assert_eq!(second.run().id, "20260101-000000-full-2");
        assert_eq!(find(runs.path(), "latest").expect("found").1.id, second.run().id);
        assert_eq!(find(runs.path(), &first.run().id).expect("found").1.started_ms, 1);
        assert!(find(runs.path(), "2026").is_err(), "an ambiguous beginning");
        assert!(find(runs.path(), "nothing").is_err());
    }
}
