//! Owns the verbs of the command line, one module each, and the exit codes. This is the edge: errors become text here, once.
#![expect(clippy::print_stderr, reason = "talking to the user is this module's task")]

mod cache;
mod check;
mod explain;
mod graph;
mod mlflow;
mod plan;
mod run;
mod runs;
mod stages;
mod trace;

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::OnceLock,
};

use ecgpipe_sdk::{Registry, error::chain};

use crate::{
    cli::{Cli, Command, Infer, PipelineArgs, WorkArgs},
    diagnostic::Report,
    digest::Key,
    event::JobName,
    expand::Surroundings,
    pipeline::{self, Pipeline},
    plan::Plan,
    store::{
        Store, StoreError,
        remote::{ReadThrough, RemoteError},
    },
    track::run_folder,
};

/// What only `main` knows.
pub struct Wiring {
    /// The stages.
    pub registry: Registry,
    /// `ecgpipe infer`: gives the text to print.
    pub infer: fn(&Infer) -> Result<String, Failure>,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Success = 0,
    /// A stage failed, something is damaged, or two things differ.
    Failed = 1,
    /// The command line or the pipeline file is wrong; nothing was started.
    Usage = 2,
    /// The project cannot be used: the store, the disk, a missing file.
    Environment = 3,
    /// Stopped by the user (128 + SIGINT).
    Cancelled = 130,
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// How the program ends.
    pub exit: Exit,
}

impl Failure {
    /// The project cannot be used as it is.
    pub fn environment(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), help: None, exit: Exit::Environment }
    }

    /// The user asked for something that there is not.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), help: None, exit: Exit::Usage }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        let text = if std::io::stderr().is_terminal() { report.styled() } else { report.plain() };
        Self { message: text, help: None, exit: Exit::Usage }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::environment(chain(&error));
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let failure = match &error {
            RemoteError::Url { .. } => Self::usage(format!("failed to {error}")),
            _ => Self::environment(format!("failed to {}", chain(&error))),
        };
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<crate::track::run_folder::RunFolderError> for Failure {
    fn from(error: crate::track::run_folder::RunFolderError) -> Self {
        Self::environment(error)
    }
}

/// Runs the verb that was asked for.
#[must_use]
pub fn dispatch(cli: Cli, wiring: &Wiring) -> ExitCode {
    let result = std::env::set_current_dir(&cli.project)
        .map_err(|error| {
            Failure::usage(format!("failed to enter the project folder {}: {error}", cli.project.display()))
        })
        .and_then(|()| match &cli.command {
            Command::Run(args) => run::run(args, wiring),
            Command::Plan(args) => plan::plan(args, wiring),
            Command::Check(args) => check::check(args, wiring),
            Command::Explain(args) => explain::explain(args),
            Command::Stages(args) => stages::stages(args, wiring),
            Command::Graph(args) => graph::graph(args, wiring),
            Command::Runs(args) => runs::runs(args),
            Command::Cache(args) => cache::cache(args),
            Command::Infer(args) => (wiring.infer)(args).map(|text| {
                print(&text);
                Exit::Success
            }),
            Command::Trace(args) => trace::trace(args),
            Command::Mlflow(args) => mlflow::mlflow(args),
        });
    let exit = result.unwrap_or_else(|failure| {
        if failure.message.starts_with("error") {
            eprintln!("{}", failure.message.trim_end());
        } else {
            eprintln!("error: {}", failure.message.trim_end());
        }
        if let Some(help) = failure.help {
            eprintln!("help: {help}");
        }
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// Prints to stdout; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stdout.write_all(b"\n");
    }
}

fn print_json(value: &impl serde::Serialize) {
    print(&serde_json::to_string_pretty(value).expect("output is plain data"));
}

fn load(args: &PipelineArgs, registry: &Registry) -> Result<(Pipeline, Plan), Failure> {
    let pipeline = pipeline::load(&args.pipeline, &args.sets)?;
    let plan = crate::plan::plan(&pipeline, registry)?;
    Ok((pipeline, plan))
}

fn store_path(store: Option<&Path>) -> PathBuf {
    store.map_or_else(|| Path::new("data").join("store"), Path::to_owned)
}

fn open_store(store: Option<&Path>) -> Result<Store, Failure> {
    Ok(Store::open(&store_path(store))?)
}

/// The store of a run, with its remote if it has one. `--offline` rules out a remote that needs the network.
fn open_work_store(work: &WorkArgs) -> Result<Store, Failure> {
    let remote = work.remote.as_deref().filter(|url| !url.is_empty()).map(ReadThrough::new).transpose()?;
    let mut store = open_store(work.store.as_deref())?;
    if let Some(remote) = remote.filter(|remote| !(work.offline && remote.is_far())) {
        store.attach(remote);
    }
    Ok(store)
}

fn surroundings(offline: bool) -> Surroundings {
    let shared_data = std::env::var_os("ECGPIPE_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Surroundings { data_folder: PathBuf::from("data"), shared_data, offline }
}

fn runs_folder() -> PathBuf {
    PathBuf::from("runs")
}

/// Looks up the last key of a job; the run folders are read when the first job asks.
fn previous(pipeline: &str) -> impl Fn(&JobName) -> Option<Key> + Sync {
    let (pipeline, keys) = (pipeline.to_owned(), OnceLock::<BTreeMap<JobName, Key>>::new());
    move |job| keys.get_or_init(|| run_folder::previous_keys(&runs_folder(), &pipeline)).get(job).copied()
}

/// Rows as a table with aligned columns; the first row is the head.
fn table(rows: &[Vec<String>]) -> String {
    let column_n = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..column_n)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A size for people.
fn human_bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit_idx) = (bytes as f64, 0);
    while value >= 1000.0 && unit_idx + 1 < units.len() {
        value /= 1000.0;
        unit_idx += 1;
    }
    if unit_idx == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit_idx]) }
}
