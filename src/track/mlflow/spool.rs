//! The spool: one run, as plain files in a folder, complete before anything is sent.
//!
//! | file | what it is | written by |
//! |---|---|---|
//! | `run.json` | the [`RunDescription`]; a folder with it is a spool | [`Spool::create`], whole |
//! | `metrics.jsonl` | one line a point: key, value, step, time | [`Spool::metric`], appended |
//! | `items.jsonl` | one line a tag, dataset, artifact or model | the others, appended |
//! | `end.json` | status, time, error | [`Spool::end`] or a [`sync`](super::sync) that finds an orphan, whole |
//! | `writer.lock` | locked for as long as the run lives | the run |
//! | `sender.lock` | locked for as long as somebody sends | the sender |
//! | `state.json` | what the server has acknowledged | the sender, whole |
//!
//! Invariant: a line counts only with its line feed, so that a write cut short by `kill -9` is no line
//! (`a_torn_last_line_is_no_line`). Each line is one `write`: a crash of the process loses no finished call; a power cut
//! may lose the last seconds.
//! Invariant: files written whole appear whole (temporary name, sync, rename).
//! Names and values are kept as given; making them fit the server is the sender's work.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the files of a spool. A reader refuses a greater one; a change that an old reader would misread raises it.
pub(super) const FORMAT: u32 = 1;

pub(super) const RUN_FILE: &str = "run.json";
pub(super) const METRICS_FILE: &str = "metrics.jsonl";
pub(super) const ITEMS_FILE: &str = "items.jsonl";
pub(super) const END_FILE: &str = "end.json";
pub(super) const STATE_FILE: &str = "state.json";
pub(super) const WRITER_LOCK: &str = "writer.lock";
pub(super) const SENDER_LOCK: &str = "sender.lock";

/// What is known of a run when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDescription {
    /// The run's own id, the same for ever: by it a run is found again on the server.
    pub run_uuid: String,
    /// Name of the experiment; created when it is not there.
    pub experiment: String,
    /// Name of the run, as lists show it.
    pub run_name: String,
    /// Who runs it.
    pub user: String,
    /// Start, milliseconds since 1970 (UTC).
    pub start_time_ms: i64,
    /// What was run, as the column `Source` shows it: `pipelines/full.yaml`.
    pub source_name: String,
    /// State of the working tree, if there is one.
    pub git: Option<GitState>,
    /// Text shown on the run's page, in Markdown.
    pub note_markdown: Option<String>,
    /// Parameters, all of them; no length is too long.
    pub params: BTreeMap<String, String>,
    /// Tags known from the start.
    pub tags: BTreeMap<String, String>,
}

/// State of a git working tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The branch, when there is one.
    pub branch: Option<String>,
    /// Address of the remote.
    pub repo_url: Option<String>,
    /// Whether tracked files differ from the commit.
    pub dirty: bool,
    /// Digest of the difference, when dirty.
    pub diff_digest: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// All of it was done.
    Finished,
    /// Something in it failed.
    Failed,
    /// It was told to stop, or its process vanished.
    Killed,
}

/// A set of rows that went into the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name: `mitdb DS1`.
    pub name: String,
    /// Digest of its content; MLflow shows the first 12 characters, the whole one is kept as a tag.
    pub digest: String,
    /// What it was used for: `training`, `validation`, `evaluation`.
    pub context: String,
    /// Where it comes from.
    pub source_uri: String,
    /// What one row is for the model.
    pub features: TensorSpec,
    /// What the model should answer, when that is known.
    pub targets: Option<TensorSpec>,
    /// Number of rows.
    pub row_n: u64,
    /// Rows of each class or group, when known.
    pub counts: BTreeMap<String, u64>,
}

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name of the model's input or output; not shown for datasets.
    pub name: String,
    /// Element type as numpy calls it: `float32`, `int64`.
    pub dtype: String,
    /// Length of each axis; -1 where it is free (the batch).
    pub shape: Vec<i64>,
}

/// An ONNX model made by the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedModel {
    /// Its name; without `/ : . % " '`.
    pub name: String,
    /// The model, one self-contained file.
    pub onnx_file: PathBuf,
    /// `classifier` or whatever else it is.
    pub model_type: String,
    /// When it was exported, milliseconds since 1970 (UTC).
    pub time_ms: i64,
    /// The step (epoch) whose weights it has.
    pub step: i64,
    /// Version of the `onnx` package that reads it; `1.17.0` when you do not care.
    pub onnx_version: String,
    /// Its inputs, as the file names them.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs, as the file names them.
    pub outputs: Vec<TensorSpec>,
    /// One input to try it on: nested arrays of numbers in the shape of the first input.
    pub input_example: Option<serde_json::Value>,
    /// Parameters of the model, for MLflow's table of models.
    pub params: BTreeMap<String, String>,
    /// Tags of the model.
    pub tags: BTreeMap<String, String>,
    /// Names of metrics of this run that are about this model: their last points are shown with the model, where MLflow
    /// compares models.
    pub metrics: Vec<String>,
    /// Name of the run's [`Dataset`] that those metrics were computed on.
    pub evaluated_on: Option<String>,
    /// Where to register it, if at all.
    pub registered_model: Option<Registration>,
}

/// A place in the model registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Name of the registered model; created when it is not there.
    pub name: String,
    /// An alias to move to the new version (`champion`). It is not taken away from the version of a later run.
    pub alias: Option<String>,
}

/// Why something could not be put into a spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The operating system refused.
    #[error("{what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder has a run already.
    #[error("create the MLflow spool `{}`: there is a run in it; every run needs a folder of its own", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// An artifact would land outside its run.
    #[error("record the artifact `{path}`: give a relative path with `/` and without `..` or empty parts")]
    ArtifactPath {
        /// The path as given.
        path: String,
    },
    /// The server would refuse the model.
    #[error("record the model `{name}`: a model's name is not empty and has none of / : . % \" '")]
    ModelName {
        /// The name as given.
        name: String,
    },
}

/// The writing end of a spool, held by the run. Calls come from any thread.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    metrics: Mutex<Lines>,
    items: Mutex<Lines>,
    /// Locked; the lock goes with the process, which is how an orphan is told.
    _alive: File,
}

impl Spool {
    /// A new spool in `folder`, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// When the folder has a run already, or cannot be written.
    pub fn create(folder: &Path, run: &RunDescription) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(folder).map_err(|source| io_error("create the folder", folder, source))?;
        let lock_path = folder.join(WRITER_LOCK);
        let alive = open_lock(&lock_path).map_err(|source| io_error("create", &lock_path, source))?;
        match alive.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Exists { path: folder.to_owned() }),
            // A file system without locks: an orphan cannot be told there and is left alone, nothing else is lost.
            Err(TryLockError::Error(_)) => {}
        }
        if is_spool(folder) {
            return Err(SpoolError::Exists { path: folder.to_owned() });
        }
        let metrics = Lines::append_to(folder.join(METRICS_FILE))?;
        let items = Lines::append_to(folder.join(ITEMS_FILE))?;
        write_whole(&folder.join(RUN_FILE), &Versioned { format: FORMAT, content: run })?;
        let (metrics, items) = (Mutex::new(metrics), Mutex::new(items));
        Ok(Self { folder: folder.to_owned(), metrics, items, _alive: alive })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One point of a curve. A value that is not finite is kept in the spool and named in the run's tag
    /// `ecgpipe.nonfinite`; it is not sent as a point, because it would hide the metric in MLflow's overview.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn metric(&self, key: &str, step: i64, value: f64, timestamp_ms: i64) -> Result<(), SpoolError> {
        // As text: the shortest form that reads back to the same bits, and it can say NaN.
        let value = format!("{value:?}");
        append(&self.metrics, &PointLine { key: key.into(), value: value.into(), step, time_ms: timestamp_ms })
    }

    /// A set of rows that the run uses.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn dataset(&self, dataset: Dataset) -> Result<(), SpoolError> {
        append(&self.items, &Item::Dataset(dataset))
    }

    /// A file to keep with the run, under `path_in_run` (`plots/roc.png`). Only a reference is kept: path, size and
    /// digest. The file is read when it is sent; should it be gone or changed by then, the report says so.
    ///
    /// # Errors
    ///
    /// When the path leads out of the run, or the file cannot be read now.
    pub fn artifact(&self, path_in_run: &str, source_file: &Path) -> Result<(), SpoolError> {
        if !is_inside(path_in_run) {
            return Err(SpoolError::ArtifactPath { path: path_in_run.to_owned() });
        }
        append(&self.items, &Item::Artifact { path: path_in_run.to_owned(), file: FileReference::of(source_file)? })
    }

    /// A model made by the run, to be seen among the server's models and loaded with `mlflow.onnx.load_model`.
    ///
    /// # Errors
    ///
    /// When the name is refused or the file cannot be read now.
    pub fn model(&self, model: LoggedModel) -> Result<(), SpoolError> {
        if model.name.is_empty() || model.name.contains(['/', ':', '.', '%', '"', '\'']) {
            return Err(SpoolError::ModelName { name: model.name });
        }
        let file = FileReference::of(&model.onnx_file)?;
        append(&self.items, &Item::Model { model: Box::new(model), file })
    }

    /// Set a tag of the run; the last value stands.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn set_tag(&self, key: &str, value: &str) -> Result<(), SpoolError> {
        append(&self.items, &Item::Tag { key: key.to_owned(), value: value.to_owned() })
    }

    /// The run has ended; `error` becomes the tag `ecgpipe.error`. Nothing is to be added after this.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn end(&self, status: Status, end_time_ms: i64, error: Option<String>) -> Result<(), SpoolError> {
        for lines in [&self.metrics, &self.items] {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.file.sync_data().map_err(|source| io_error("sync", &lines.path, source))?;
        }
        write_end(&self.folder, &End { status, end_time_ms, error })
    }
}

/// Whether `folder` holds a spool.
pub fn is_spool(folder: &Path) -> bool {
    folder.join(RUN_FILE).is_file()
}

/// A file that begins with the number of its format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Versioned<T> {
    pub(super) format: u32,
    pub(super) content: T,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PointLine<'a> {
    pub(super) key: std::borrow::Cow<'a, str>,
    pub(super) value: std::borrow::Cow<'a, str>,
    pub(super) step: i64,
    pub(super) time_ms: i64,
}

/// One line of `items.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Item {
    Tag { key: String, value: String },
    Dataset(Dataset),
    Artifact { path: String, file: FileReference },
    Model { model: Box<LoggedModel>, file: FileReference },
}

/// A file somewhere else, as it was when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileReference {
    pub(super) source: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) blake3: String,
}

impl FileReference {
    fn of(path: &Path) -> Result<Self, SpoolError> {
        let source = std::path::absolute(path).map_err(|source| io_error("find", path, source))?;
        let (size_bytes, blake3) = digest(&source).map_err(|error| io_error("read", path, error))?;
        Ok(Self { source, size_bytes, blake3 })
    }

    /// The file, opened, if it is still the one that was recorded; else what became of it.
    pub(super) fn open(&self) -> Result<File, String> {
        let found = digest(&self.source)
            .map_err(|error| format!("the file `{}` cannot be read: {error}", self.source.display()))?;
        if found != (self.size_bytes, self.blake3.clone()) {
            return Err(format!("the file `{}` has changed since the run recorded it", self.source.display()));
        }
        File::open(&self.source)
            .map_err(|error| format!("the file `{}` cannot be read: {error}", self.source.display()))
    }
}

/// What `end.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) status: Status,
    pub(super) end_time_ms: i64,
    pub(super) error: Option<String>,
}

pub(super) fn write_end(folder: &Path, end: &End) -> Result<(), SpoolError> {
    write_whole(&folder.join(END_FILE), &Versioned { format: FORMAT, content: end })
}

/// Size and BLAKE3 of a file.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = blake3::Hasher::new();
    let mut size_bytes = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read_n = file.read(&mut buffer)?;
        if read_n == 0 {
            return Ok((size_bytes, hash.finalize().to_hex().to_string()));
        }
        hash.update(&buffer[..read_n]);
        size_bytes += read_n as u64;
    }
}

/// Write a file so that it is there whole or not at all, also after a power cut.
pub(super) fn write_whole(path: &Path, content: &impl Serialize) -> Result<(), SpoolError> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        let mut text = serde_json::to_vec_pretty(content)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        // The rename itself; where a folder cannot be synced the next write does it.
        if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        Ok(())
    };
    write().map_err(|source| io_error("write", path, source))
}

/// Read a file written by [`write_whole`]; `None` when it is not there.
pub(super) fn read_whole<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let head = serde_json::from_slice::<Head>(&text).map_err(|error| invalid(error.to_string()))?;
    if head.format > FORMAT {
        return Err(invalid(format!(
            "it has format {}, this ecgpipe reads up to {FORMAT}; update ecgpipe",
            head.format
        )));
    }
    let file = serde_json::from_slice::<Versioned<T>>(&text).map_err(|error| invalid(error.to_string()))?;
    Ok(Some(file.content))
}

/// A finished line of a `.jsonl` file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, in bytes.
    pub(super) start: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    /// Its text, without the line feed.
    pub(super) text: Vec<u8>,
}

/// The finished lines of `path` from byte `from`, which is the start of a line, but not beyond byte `until`.
pub(super) fn finished_lines(
    path: &Path,
    from: u64,
    until: u64,
) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(128 * 1024, file);
    let mut start = from;
    Ok(std::iter::from_fn(move || {
        if start >= until {
            return None;
        }
        let mut text = Vec::new();
        match reader.read_until(b'\n', &mut text) {
            Err(error) => Some(Err(error)),
            Ok(_) if text.last() != Some(&b'\n') => None,
            Ok(byte_n) => {
                text.pop();
                let line = Line { start, end: start + byte_n as u64, text };
                start = line.end;
                Some(Ok(line))
            }
        }
    }))
}

/// Open a file for locking; it has no content.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Whether the process that wrote this spool is gone. `None` when the file system cannot tell.
pub(super) fn writer_is_gone(folder: &Path) -> Option<bool> {
    let lock = open_lock(&folder.join(WRITER_LOCK)).ok()?;
    match lock.try_lock() {
        Ok(()) => Some(true),
        Err(TryLockError::WouldBlock) => Some(false),
        Err(TryLockError::Error(_)) => None,
    }
}

/// A file of lines, growing.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// The last write did not go through: some of its bytes may be there, without a line feed.
    torn: bool,
}

impl Lines {
    fn append_to(path: PathBuf) -> Result<Self, SpoolError> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| io_error("create", &path, source))?;
        Ok(Self { path, file, torn: false })
    }
}

fn append(lines: &Mutex<Lines>, line: &impl Serialize) -> Result<(), SpoolError> {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = if lines.torn { vec![b'\n'] } else { Vec::new() };
    serde_json::to_writer(&mut text, line).map_err(|error| io_error("write", &lines.path, error.into()))?;
    text.push(b'\n');
    let written = lines.file.write_all(&text);
    lines.torn = written.is_err();
    written.map_err(|source| io_error("write", &lines.path, source))
}

fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !part.is_empty() && part != ".")
        && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn lines(path: &Path, from: u64) -> Vec<Line> {
        finished_lines(path, from, u64::MAX).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_torn_last_line_is_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::create(folder.path(), &RunDescription::default()).unwrap();
        spool.metric("loss", 1, 0.1, 5).unwrap();
        spool.metric("loss", 2, f64::NAN, 6).unwrap();
        let path = folder.path().join(METRICS_FILE);
        let whole = lines(&path, 0);
        assert_eq!(whole.len(), 2);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"key":"loss","val"#).unwrap();
        assert_eq!(lines(&path, 0), whole);
        assert_eq!(lines(&path, whole[0].end).len(), 1);
        assert_eq!(lines(&path, whole[1].end).len(), 0);
    }

    #[test]
    fn values_read_back_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::create(folder.path(), &RunDescription::default()).unwrap();
        let values = [0.1 + 0.2, 1e-310, f64::MAX, -0.0, 1.0 / 3.0, f64::INFINITY];
        for value in values {
            spool.metric("v", 0, value, 0).unwrap();
        }
        for (line, value) in lines(&folder.path().join(METRICS_FILE), 0).iter().zip(values) {
            let point = serde_json::from_slice::<PointLine<'_>>(&line.text).unwrap();
            assert_eq!(point.value.parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn a_folder_takes_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDescription { run_uuid: "u".into(), ..RunDescription::default() };
        let spool = Spool::create(folder.path(), &run).unwrap();
        assert!(matches!(Spool::create(folder.path(), &run), Err(SpoolError::Exists { .. })));
        assert_eq!(writer_is_gone(folder.path()), Some(false));
        drop(spool);
        assert!(matches!(Spool::create(folder.path(), &run), Err(SpoolError::Exists { .. })));
        assert_eq!(writer_is_gone(folder.path()), Some(true));
        let read = read_whole::<RunDescription>(&folder.path().join(RUN_FILE)).unwrap().unwrap();
        assert_eq!(read, run);
    }

    #[test]
    fn a_newer_format_is_refused_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RUN_FILE);
        std::fs::write(&path, r#"{"format":99,"content":{"shape":"unknown"}}"#).unwrap();
        let text = read_whole::<RunDescription>(&path).unwrap_err().to_string();
        assert!(text.contains("99") && text.contains("update ecgpipe"), "{text}");
    }

    #[test]
    fn artifacts_stay_inside_and_models_have_plain_names() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::create(&folder.path().join("spool"), &RunDescription::default()).unwrap();
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "x").unwrap();
        spool.artifact("plots/a b.txt", &file).unwrap();
        for path in ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b"] {
            assert!(matches!(spool.artifact(path, &file), Err(SpoolError::ArtifactPath { .. })), "{path:?}");
        }
        assert!(matches!(spool.artifact("b", &folder.path().join("none")), Err(SpoolError::Io { .. })));
    }

    #[test]
    fn a_changed_file_is_not_taken_for_the_recorded_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "one").unwrap();
        let reference = FileReference::of(&file).unwrap();
        assert!(reference.open().is_ok());
        std::fs::write(&file, "two").unwrap();
        assert!(reference.open().unwrap_err().contains("changed"));
        std::fs::remove_file(&file).unwrap();
        assert!(reference.open().unwrap_err().contains("cannot be read"));
    }
}
