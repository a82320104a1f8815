//! Owns stages that are programs of their own: plugins, and built-in stages that are run in a process each.
//!
//! A plugin is a folder `stages/<name>/` of the project with a `stage.yaml` ([`description`]) and a program in any language. For
//! the engine it is a stage like any other: its ports, parameters and the identity of its code are known before anything
//! runs. A job of it is a folder and a process ([`protocol`], `program`), and only what the host has checked goes on to
//! the store. [`isolated`] puts every built-in stage behind the same protocol, with `ecgpipe worker` ([`worker`]) as the program.
//!
//! Invariant: nothing of a job that failed reaches the store (`nothing_of_a_failed_job_reaches_the_store`).
//!
//! Invariant: a stage gives the same digests in this process and in one of its own
//! (`a_process_of_its_own_changes_no_key_and_no_digest`).
//!
//! This module must not know nodes, keys or the store: a plugin's job is what an [`ErasedStage`] is given.

pub mod description;
mod params;
mod program;
pub mod protocol;
#[cfg(test)]
mod tests;
pub mod worker;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
};

use ecgpipe_sdk::{
    BoundParams, Context, ErasedStage, ParamError, PortValues, RecordId, Registry, SourceContext, SourceFile,
    SourceRecord, StageError, StageFacts, StageSpec,
};
use tempfile::TempDir;

use description::{Description, Limits};
use program::{Ended, Program};
use protocol::{ProjectEntry, ResultFile, io_error};

/// Where a project keeps its plugins.
pub const FOLDER: &str = "stages";

/// Names a folder in which the folders of failed jobs are kept, to run a program again by hand.
const KEEP_VARIABLE: &str = "ECGPIPE_KEEP_JOBS";

/// The known stages and the plugins of a project. A plugin that is broken, or that has the name of another stage, is
/// refused by name with the reason, so that it is in the way of nobody who does not use it.
#[must_use]
pub fn with_plugins(registry: &Registry, project: &Path) -> Registry {
    let mut registry = registry.clone();
    for name in folders(project) {
        let folder = project.join(FOLDER).join(&name);
        let shown = format!("{FOLDER}/{name}/{}", description::FILE);
        match Description::read(&folder, &shown) {
            Err(report) => registry.refuse(name, report.plain().trim_end()),
            Ok(_) if registry.get(&name).is_some() => {
                let why = format!(
                    "error: {shown}: a built-in stage is named `{name}` too\nhelp: rename the plugin and its folder"
                );
                registry.refuse(name, why);
            }
            Ok(description) => registry.add(Box::new(Plugin { description })),
        }
    }
    registry
}

/// The names of the folders that have a `stage.yaml`, sorted.
fn folders(project: &Path) -> Vec<String> {
    // A project without a folder `stages` has no plugins.
    let entries = fs::read_dir(project.join(FOLDER)).into_iter().flatten().flatten();
    let plugins = entries.filter(|entry| entry.path().join(description::FILE).exists());
    let mut names: Vec<String> = plugins.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The same stages, each body in a process of its own: `command job.json`, which must end in [`worker::work`].
#[must_use]
pub fn isolated(registry: &Registry, command: &[OsString]) -> Registry {
    registry.map(|stage| Box::new(Isolated { stage, command: command.to_vec() }))
}

/// A plugin as a stage.
struct Plugin {
    description: Description,
}

impl ErasedStage for Plugin {
    fn spec(&self) -> &StageSpec {
        &self.description.spec
    }

    fn bind(&self, params: &serde_json::Value) -> Result<BoundParams, ParamError> {
        self.description.bind(params)
    }

    fn sources(&self, _: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        match &self.description.records {
            Some(records) => list_records(records, cx),
            None => Ok(Vec::new()),
        }
    }

    fn run(&self, params: &BoundParams, inputs: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError> {
        let description = &self.description;
        let folder = JobFolder::new(description.spec.name)?;
        let command = program::resolve(&description.command, &description.folder, &program::search_path())?;
        for name in ["home", "tmp"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).map_err(|error| io_error("make", &path, &error))?;
        }
        let environment = program::environment(folder.path(), &description.environment, cx.threads());
        let program = Program { command: &command, environment: Some(environment), limits: description.limits };
        let outputs = run(&description.spec, params, inputs, cx, &program, &folder, None);
        // What ran may be another code than the key says, if somebody has just saved a file.
        match description.code() {
            Ok(code) if code == description.spec.code => folder.keep_failed(outputs),
            Ok(_) => {
                let message = "its sources changed while it ran; nothing was stored";
                Err(StageError::new(message).help("run again: the new sources have a key of their own"))
            }
            Err(error) => Err(StageError::new(format!("its sources cannot be read any more: failed to {error}"))),
        }
    }
}

/// A built-in stage whose body runs in a process of its own.
struct Isolated {
    stage: Arc<dyn ErasedStage>,
    command: Vec<OsString>,
}

impl ErasedStage for Isolated {
    fn spec(&self) -> &StageSpec {
        self.stage.spec()
    }

    fn bind(&self, params: &serde_json::Value) -> Result<BoundParams, ParamError> {
        self.stage.bind(params)
    }

    fn facts(&self, params: &BoundParams, facts: &mut StageFacts<'_>) {
        self.stage.facts(params, facts);
    }

    fn sources(&self, params: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        self.stage.sources(params, cx)
    }

    fn run(&self, params: &BoundParams, inputs: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError> {
        let folder = JobFolder::new(self.spec().name)?;
        // The environment is the host's own and there are no limits: in this process the stage would have the same.
        let program = Program { command: &self.command, environment: None, limits: Limits::default() };
        let project = ProjectEntry { data_folder: protocol::absolute(cx.data_folder())?, offline: cx.offline() };
        let outputs = run(self.spec(), params, inputs, cx, &program, &folder, Some(project));
        folder.keep_failed(outputs)
    }
}

/// One job as a process.
fn run(
    spec: &StageSpec,
    params: &BoundParams,
    inputs: PortValues,
    cx: &Context<'_>,
    program: &Program<'_>,
    folder: &JobFolder,
    project: Option<ProjectEntry>,
) -> Result<PortValues, StageError> {
    protocol::lay_out(folder.path(), spec, params.as_json(), &inputs, cx, project)?;
    // Both sides would hold them otherwise.
    drop(inputs);
    let ended = program::run(program, folder.path(), cx)?;
    let logged = |error| program::with_log(error, "", ended.log.as_deref());
    let result = outcome(&ended, folder.path(), &program.limits)?;
    let outputs = protocol::collect(folder.path(), spec, cx.record().ok()).map_err(logged)?;
    for point in result.metrics {
        cx.metric(point.key, point.step, point.value);
    }
    for text in result.warnings {
        cx.warn(program::printable(&text));
    }
    Ok(outputs)
}

/// What a program says of its job, if it went well.
fn outcome(ended: &Ended, folder: &Path, limits: &Limits) -> Result<ResultFile, StageError> {
    let result = protocol::read_result(folder);
    let with_log = |error| program::with_log(error, &ended.tail, ended.log.as_deref());
    match result {
        Ok(Some(ResultFile { error: Some(error), .. })) => {
            // The program speaks for itself; the log is named, not repeated.
            let message = program::printable(&error.message);
            let failed = StageError {
                help: error.help.as_deref().map(program::printable),
                record: error.record,
                ..StageError::new(message)
            };
            Err(program::with_log(failed, "", ended.log.as_deref()))
        }
        result if !ended.status.success() => {
            let silent = if matches!(result, Ok(Some(_))) { " and no error in result.json" } else { "" };
            let error = StageError::new(format!("the program {}{silent}", end_words(ended.status)));
            Err(with_log(match end_help(ended, limits) {
                Some(help) => error.help(help),
                None => error,
            }))
        }
        Ok(Some(result)) => Ok(result),
        Ok(None) => {
            let error = StageError::new("the program ended well, but wrote no result.json");
            Err(with_log(error.help("write {\"format\": 1} to result.json as the last thing")))
        }
        Err(error) => Err(with_log(error)),
    }
}

fn end_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended without a status".to_owned(),
    }
}

fn end_help(ended: &Ended, limits: &Limits) -> Option<String> {
    let memory_words = ["MemoryError", "annot allocate memory", "ut of memory", "bad_alloc", "memory allocation of"];
    match limits.memory_mb {
        Some(memory_mb) if memory_words.iter().any(|words| ended.tail.contains(words)) => {
            Some(format!("its memory limit is {memory_mb} MB: `limits: {{memory_mb: ...}}` in its stage.yaml"))
        }
        _ if ended.status.signal() == Some(9) => {
            Some("the system kills a program when memory runs out: fewer jobs at once (`--jobs`) need less".to_owned())
        }
        _ => None,
    }
}

/// The names of the signals that end programs, as Linux and macOS number them alike.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}

/// The folder of one job; gone with the value unless it is kept.
struct JobFolder {
    folder: TempDir,
    keep: bool,
}

impl JobFolder {
    fn new(stage: &str) -> Result<Self, StageError> {
        let kept = std::env::var_os(KEEP_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let place = kept.clone().unwrap_or_else(std::env::temp_dir);
        let failed = |error: &std::io::Error| {
            let error = io_error("make the job's folder in", &place, error);
            error.help("TMPDIR says where it is made")
        };
        fs::create_dir_all(&place).map_err(|error| failed(&error))?;
        // From the root: the program runs elsewhere than the host.
        let place = std::path::absolute(&place).map_err(|error| failed(&error))?;
        let folder = tempfile::Builder::new().prefix(&format!("ecgpipe-{stage}-")).tempdir_in(&place);
        let folder = folder.map_err(|error| failed(&error))?;
        Ok(Self { folder, keep: kept.is_some() })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder of a job that failed, if that was asked for.
    fn keep_failed(self, outputs: Result<PortValues, StageError>) -> Result<PortValues, StageError> {
        match outputs {
            Err(mut error) if self.keep && !error.cancelled => {
                let place = format!("the job's folder is kept: {}", self.folder.keep().display());
                error.help = Some(error.help.map_or_else(|| place.clone(), |help| format!("{help}; {place}")));
                Err(error)
            }
            outputs => outputs,
        }
    }
}

/// One record a file, named by what stands before the suffix.
fn list_records(records: &description::Records, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
    let own = cx.data_folder.join("raw").join(&records.folder);
    let places = [Some(own), cx.shared_data.as_ref().map(|shared| shared.join(&records.folder))];
    let places: Vec<PathBuf> = places.into_iter().flatten().collect();
    let Some(folder) = places.iter().find(|place| place.is_dir()) else {
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let error = StageError::new(format!("there is no folder {}", looked.join(" or ")));
        return Err(error.help("put the records there, or set ECGPIPE_DATA to the folder above theirs"));
    };
    let mut listed = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| io_error("list", folder, &error))? {
        let path = entry.map_err(|error| io_error("list", folder, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(&records.suffix).filter(|_| !name.starts_with('.')) else { continue };
        let record = RecordId::new(stem).map_err(|error| {
            StageError::from_error(&error).help(format!("rename {}, or give another suffix", path.display()))
        })?;
        listed.insert(record, vec![SourceFile { name: name.to_owned(), path: path.clone() }]);
    }
    if listed.is_empty() {
        return Err(StageError::new(format!("no file in {} ends with `{}`", folder.display(), records.suffix)));
    }
    Ok(listed.into_iter().map(|(record, files)| SourceRecord::new(record, files)).collect())
}
