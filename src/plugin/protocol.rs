//! Owns the protocol between a host and a program that is a stage: `job.json`, `result.json`, and the files of both sides.
//!
//! A job's folder: `job.json`, `inputs/` and an empty `outputs/` from the host; outputs and `result.json`, written last, from
//! the program. Paths in `job.json` are relative to the folder, those of raw files absolute. An artifact is one file of its
//! kind's encoding, or a folder of plain files if its kind is a bundle.
//!
//! The host trusts nothing of what it finds: an output must be a plain file within the folder, decode as its kind, and say
//! about record, units and columns what the kind says.
//!
//! Invariant: what passes through the protocol comes out as it went in (`artifacts_pass_unchanged`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ecgpipe_sdk::{
    Artifact, Cardinality, Content, Context, KindSpec, MetricPoint, NamedFile, PortSpec, PortValue, PortValues,
    RecordId, SourceFile, StageError, StageSpec, table,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::{list, suggest};

/// The version of `job.json` and `result.json`.
pub const FORMAT: u32 = 1;

/// The job in its folder.
pub const JOB: &str = "job.json";
/// The result in its folder.
pub const RESULT: &str = "result.json";
const OUTPUTS: &str = "outputs";

/// Largest output, and largest `result.json`: the host reads them whole.
const OUTPUT_LIMIT_BYTES: u64 = 4 << 30;
const RESULT_LIMIT_BYTES: u64 = 16 << 20;

/// `job.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// [`FORMAT`].
    pub format: u32,
    /// The stage's name.
    pub stage: String,
    /// Every parameter.
    pub params: Value,
    /// The record, for a stage that runs once per record.
    pub record: Option<RecordId>,
    /// The seed as text, since JSON's numbers are too small for it in many languages; null without one.
    pub seed: Option<String>,
    /// How many threads may be used.
    pub threads: usize,
    /// What is on the connected input ports.
    pub inputs: BTreeMap<String, InputEntry>,
    /// The raw files of a source's record.
    pub files: Vec<FileEntry>,
    /// What must be on the output ports.
    pub outputs: BTreeMap<String, OutputEntry>,
    /// For ecgpipe's own stages only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectEntry>,
}

/// What is on an input port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputEntry {
    /// The kind's name.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// One artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// One artifact a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<BTreeMap<RecordId, String>>,
}

/// A raw file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Where it lies, absolute.
    pub path: String,
}

/// Where an output is expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputEntry {
    /// The kind's name.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// The file or, for a bundle, the folder.
    pub path: String,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What a built-in stage may know of the project; a plugin is not told, since it must not depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectEntry {
    /// [`Context::data_folder`], absolute.
    pub data_folder: String,
    /// [`Context::offline`].
    pub offline: bool,
}

/// `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile {
    /// [`FORMAT`].
    pub format: u32,
    /// Metric points for the run's record; those of a reused result come from its outputs of kind `metrics` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricPoint>,
    /// Warnings, kept with the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why the stage failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorEntry>,
}

/// A [`StageError`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorEntry {
    /// What is wrong and where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The record at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
}

/// A line on a program's stdout that is for the run and not for the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// So much of so much is done.
    Progress {
        /// Done so far.
        done: u64,
        /// Out of.
        total: u64,
        /// Of what.
        unit: String,
    },
    /// A metric as soon as it is known.
    Metric(MetricPoint),
    /// Something worth a line.
    Note {
        /// The text.
        text: String,
    },
    /// Something to look at.
    Warning {
        /// The text.
        text: String,
    },
}

/// Host: lays out a job in an empty folder.
///
/// # Errors
/// If the folder cannot be written, an input cannot be encoded, or a path is not UTF-8.
pub fn lay_out(
    folder: &Path,
    spec: &StageSpec,
    params: &Value,
    inputs: &PortValues,
    cx: &Context<'_>,
    project: Option<ProjectEntry>,
) -> Result<(), StageError> {
    fs::create_dir(folder.join(OUTPUTS)).map_err(|error| io_error("make", &folder.join(OUTPUTS), &error))?;
    let mut entries = BTreeMap::new();
    for port in &spec.inputs {
        let entry =
            |path, paths| InputEntry { kind: port.kind.name.to_owned(), version: port.kind.version, path, paths };
        let base = format!("inputs/{}", port.name);
        let entry = match inputs.get(port.name) {
            // Inputs are given as values: `Encoded` is for outputs.
            None | Some(PortValue::Encoded(_)) => continue,
            Some(PortValue::Single(artifact)) => {
                let path = artifact_path(&base, &port.kind);
                write(&folder.join(&path), &port.kind, artifact)?;
                entry(Some(path), None)
            }
            Some(PortValue::Many(artifacts)) => {
                let mut paths = BTreeMap::new();
                for (record, artifact) in artifacts {
                    let path = artifact_path(&format!("{base}/{record}"), &port.kind);
                    write(&folder.join(&path), &port.kind, artifact)?;
                    paths.insert(record.clone(), path);
                }
                entry(None, Some(paths))
            }
        };
        entries.insert(port.name.to_owned(), entry);
    }
    let output = |port: &PortSpec| OutputEntry {
        kind: port.kind.name.to_owned(),
        version: port.kind.version,
        path: output_path(port),
        optional: port.optional,
    };
    let file = |file: &SourceFile| Ok(FileEntry { name: file.name.clone(), path: absolute(&file.path)? });
    let job = JobFile {
        format: FORMAT,
        stage: spec.name.to_owned(),
        params: params.clone(),
        record: cx.record().ok().cloned(),
        seed: if spec.seeded { Some(cx.seed()?.to_string()) } else { None },
        threads: cx.threads(),
        inputs: entries,
        files: cx.files().iter().map(file).collect::<Result<_, StageError>>()?,
        outputs: spec.outputs.iter().map(|port| (port.name.to_owned(), output(port))).collect(),
        project,
    };
    let json = serde_json::to_vec_pretty(&job).map_err(|error| StageError::from_error(&error))?;
    fs::write(folder.join(JOB), json).map_err(|error| io_error("write", &folder.join(JOB), &error))
}

/// Host: reads `result.json`; `None` if there is none.
///
/// # Errors
/// If it is not what the protocol says.
pub fn read_result(folder: &Path) -> Result<Option<ResultFile>, StageError> {
    let bytes = match read_plain(&folder.join(RESULT), RESULT_LIMIT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StageError::new(format!("failed to read {RESULT}: {error}"))),
    };
    // The format first: a file of another format may differ in everything else.
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| StageError::new(format!("{RESULT} is not JSON: {error}")))?;
    match json.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            let error = StageError::new(format!("{RESULT} is of format {format}, expected {FORMAT}"));
            return Err(error.help("the program was written for another version of ecgpipe"));
        }
        None => {
            return Err(
                StageError::new(format!("{RESULT} has no `format`")).help(format!("add `\"format\": {FORMAT}`"))
            );
        }
    }
    let result = serde_json::from_value(json);
    result.map(Some).map_err(|error| StageError::new(format!("{RESULT} is not as the protocol says: {error}")))
}

/// Host: reads and checks the outputs.
///
/// # Errors
/// An output that is missing, is not a plain file of the folder, or is not of its kind; a file that is no output.
pub fn collect(folder: &Path, spec: &StageSpec, record: Option<&RecordId>) -> Result<PortValues, StageError> {
    let outputs = folder.join(OUTPUTS);
    let found = names_in(&outputs).map_err(|error| io_error("list", &outputs, &error))?;
    let mut values = PortValues::new();
    let mut expected = BTreeSet::new();
    for port in &spec.outputs {
        let path = output_path(port);
        let name = path.strip_prefix("outputs/").unwrap_or(&path).to_owned();
        if found.contains(&name) {
            let wrong = |error: StageError| StageError {
                message: format!("output `{}`: {}", port.name, error.message),
                ..error
            };
            let (artifact, bytes) = read(&folder.join(&path), &port.kind).map_err(wrong)?;
            if let Some(bytes) = bytes {
                check(&bytes, &artifact, &port.kind, record).map_err(wrong)?;
            }
            values.insert(port.name, PortValue::Single(artifact));
        } else if !port.optional {
            let message = format!("the output `{}` is missing: there is no {path}", port.name);
            let others: Vec<&str> = found.iter().map(String::as_str).collect();
            let help = suggest(&name, &others, "outputs/ holds").unwrap_or_else(|| "outputs/ is empty".to_owned());
            return Err(StageError::new(message).help(help));
        }
        expected.insert(name);
    }
    let others: Vec<&str> = found.iter().filter(|name| !expected.contains(*name)).map(String::as_str).collect();
    if !others.is_empty() {
        let message = format!("outputs/ holds {}, which no output port is for", list(others));
        return Err(StageError::new(message).help("write what is not an output into the folder that TMPDIR names"));
    }
    Ok(values)
}

/// Program: reads `job.json`.
///
/// # Errors
/// If it cannot be read, or is of another format.
pub fn read_job(path: &Path) -> Result<JobFile, StageError> {
    let bytes = fs::read(path).map_err(|error| io_error("read", path, &error))?;
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|error| StageError::new(format!("{} is not JSON: {error}", path.display())))?;
    if json.get("format") != Some(&Value::from(FORMAT)) {
        let found = json.get("format").map_or_else(|| "no format".to_owned(), |format| format!("format {format}"));
        return Err(StageError::new(format!("{} is of {found}, expected {FORMAT}", path.display())));
    }
    serde_json::from_value(json)
        .map_err(|error| StageError::new(format!("{} is not as the protocol says: {error}", path.display())))
}

/// Program: the inputs of a job in memory.
///
/// # Errors
/// If one is missing or not of its port's kind.
pub fn load(folder: &Path, spec: &StageSpec, job: &JobFile) -> Result<PortValues, StageError> {
    let mut values = PortValues::new();
    for (name, entry) in &job.inputs {
        let port = spec.inputs.iter().find(|port| port.name == name);
        let port = port.ok_or_else(|| StageError::new(format!("`{}` has no input `{name}`", spec.name)))?;
        if (entry.kind.as_str(), entry.version) != (port.kind.name, port.kind.version) {
            let message = format!("input `{name}` is {} v{}, expected {:?}", entry.kind, entry.version, port.kind);
            return Err(StageError::new(message));
        }
        let read = |path: &String| read(&folder.join(path), &port.kind).map(|(artifact, _)| artifact);
        let value = match (&entry.path, &entry.paths, port.cardinality) {
            (Some(path), None, Cardinality::Each | Cardinality::One) => PortValue::Single(read(path)?),
            (None, Some(paths), Cardinality::All) => {
                let artifacts = paths.iter().map(|(record, path)| Ok((record.clone(), read(path)?)));
                PortValue::Many(artifacts.collect::<Result<_, StageError>>()?)
            }
            _ => return Err(StageError::new(format!("input `{name}` is not `{:?}`", port.cardinality))),
        };
        values.insert(port.name, value);
    }
    Ok(values)
}

/// Program: writes the outputs of a job.
///
/// # Errors
/// If one cannot be encoded or written.
pub fn store(folder: &Path, spec: &StageSpec, outputs: &PortValues) -> Result<(), StageError> {
    for port in &spec.outputs {
        match outputs.get(port.name) {
            Some(PortValue::Single(artifact)) => write(&folder.join(output_path(port)), &port.kind, artifact)?,
            Some(PortValue::Encoded(content)) => write_content(&folder.join(output_path(port)), content)?,
            // What must be there and is not, the host says.
            _ => continue,
        }
    }
    Ok(())
}

/// Program: writes `result.json`.
///
/// # Errors
/// If it cannot be written.
pub fn write_result(folder: &Path, result: &ResultFile) -> Result<(), StageError> {
    let json = serde_json::to_vec_pretty(result).map_err(|error| StageError::from_error(&error))?;
    fs::write(folder.join(RESULT), json).map_err(|error| io_error("write", &folder.join(RESULT), &error))
}

fn output_path(port: &PortSpec) -> String {
    artifact_path(&format!("{OUTPUTS}/{}", port.name), &port.kind)
}

fn artifact_path(base: &str, kind: &KindSpec) -> String {
    if kind.bundle { base.to_owned() } else { format!("{base}.{}", kind.extension) }
}

/// What a stage has written piece by piece. A spool file lies in the job's folder, so that it only changes its name.
fn write_content(path: &Path, content: &Content) -> Result<(), StageError> {
    let write = || match content {
        Content::Memory(bytes) => fs::write(path, bytes),
        Content::File(file) => match file.take() {
            Some(spooled) => fs::rename(spooled, path),
            None => io::copy(&mut file.reader(), &mut fs::File::create(path)?).map(drop),
        },
    };
    write().map_err(|error| io_error("write", path, &error))
}

fn write(path: &Path, kind: &KindSpec, artifact: &Artifact) -> Result<(), StageError> {
    // Encoding checks what a kind promises, the names of files among it.
    let bytes = kind.encode(artifact)?;
    let write_file = |path: &Path, bytes: &[u8]| {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(path, bytes))
            .map_err(|error| io_error("write", path, &error))
    };
    if !kind.bundle {
        return write_file(path, &bytes);
    }
    fs::create_dir_all(path).map_err(|error| io_error("make", path, &error))?;
    kind.files(artifact).unwrap_or_default().iter().try_for_each(|file| write_file(&path.join(&file.name), &file.bytes))
}

/// An artifact and, where it is one file, its bytes.
fn read(path: &Path, kind: &KindSpec) -> Result<(Artifact, Option<Bytes>), StageError> {
    if kind.bundle {
        let names = names_in(path).map_err(|error| StageError::new(error.to_string()))?;
        let mut files = Vec::new();
        for name in names {
            let bytes = read_plain(&path.join(&name), OUTPUT_LIMIT_BYTES);
            let bytes = bytes.map_err(|error| StageError::new(format!("`{name}`: {error}")))?;
            files.push(NamedFile { name, bytes });
        }
        let artifact = kind.from_files(files).expect("a bundle is made of files");
        kind.encode(&artifact)?;
        return Ok((artifact, None));
    }
    let bytes = Bytes::from(read_plain(path, OUTPUT_LIMIT_BYTES).map_err(|error| StageError::new(error.to_string()))?);
    let artifact = decode(kind, &bytes)?;
    Ok((artifact, Some(bytes)))
}

/// Decodes bytes from outside: a reader that panics on garbage says so as an error.
fn decode(kind: &KindSpec, bytes: &Bytes) -> Result<Artifact, StageError> {
    let help = || format!("docs/plugins.md says what a file of kind `{}` holds", kind.name);
    match std::panic::catch_unwind(|| kind.decode(bytes)) {
        Ok(Ok(artifact)) => Ok(artifact),
        Ok(Err(error)) => Err(StageError::from(error).help(help())),
        Err(_) => Err(StageError::new(format!("{}: the file is damaged", kind.name)).help(help())),
    }
}

/// What decoding does not see: columns that would be lost, units that are not the kind's, another record's result.
fn check(given: &Bytes, artifact: &Artifact, kind: &KindSpec, record: Option<&RecordId>) -> Result<(), StageError> {
    let canonical = Bytes::from(kind.encode(artifact)?);
    if kind.extension != "parquet" {
        return Ok(());
    }
    let outline = |bytes| table::outline(bytes).map_err(|error| StageError::from_error(&error));
    let (columns, metadata) = outline(given)?;
    let (own_columns, own_metadata) = outline(&canonical)?;
    let strange: Vec<&str> = columns.difference(&own_columns).map(String::as_str).collect();
    if !strange.is_empty() {
        let message = format!("{} has no column {}", kind.name, list(strange));
        return Err(
            StageError::new(message).help(format!("its columns are {}", list(own_columns.iter().map(String::as_str))))
        );
    }
    for (name, unit) in metadata.iter().filter(|(name, _)| name.starts_with("unit.")) {
        let column = name.trim_start_matches("unit.");
        match own_metadata.get(name) {
            Some(own) if own == unit => {}
            Some(own) => {
                let message = format!("column `{column}` is in {unit}, but {} wants {own}", kind.name);
                return Err(StageError::new(message).help(format!("convert it, and say `{name}` = `{own}`")));
            }
            None => return Err(StageError::new(format!("{} has no unit for a column `{column}`", kind.name))),
        }
    }
    let said = own_metadata.get("record").and_then(|json| serde_json::from_str::<String>(json).ok());
    match (record, said) {
        (Some(record), Some(said)) if said != record.as_str() => {
            Err(StageError::new(format!("it says that it is of record {said}, but the job is for record {record}")))
        }
        _ => Ok(()),
    }
}

/// The names in a folder that is no link, sorted.
fn names_in(folder: &Path) -> io::Result<BTreeSet<String>> {
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::Error::other(format!("{} is not a folder", name_of(folder))));
    }
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string();
        names.insert(name.map_err(|name| io::Error::other(format!("the name {name:?} is not UTF-8")))?);
    }
    Ok(names)
}

/// The bytes of a plain file: not through a link, not from a pipe or a device, which might never end.
fn read_plain(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Err(io::Error::other("it is a link; write the file itself"));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.len() > limit_bytes {
        return Err(io::Error::other(format!("it has {} bytes, more than {limit_bytes}", metadata.len())));
    }
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut file = fs::File::options().read(true).custom_flags(no_follow).open(path)?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.by_ref().take(limit_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("it")).to_string_lossy().into_owned()
}

/// The path from the root, as text.
pub(super) fn absolute(path: &Path) -> Result<String, StageError> {
    let absolute: PathBuf = std::path::absolute(path).map_err(|error| io_error("find", path, &error))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|path| StageError::new(format!("the path {path:?} is not UTF-8, which job.json cannot hold")))
}

pub(super) fn io_error(verb: &str, path: &Path, error: &io::Error) -> StageError {
    StageError::new(format!("failed to {verb} {}: {error}", path.display()))
}
