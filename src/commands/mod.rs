//! Owns the verbs of the command line, one module each, and the exit codes. This is the edge: errors become text here, once.
#![expect(clippy::print_stderr, reason = "talking to the user is this module's task")]

mod cache;
mod check;
mod data;
mod explain;
mod graph;
mod mlflow;
mod plan;
mod reproduce;
mod run;
mod runs;
mod stages;
mod sweep;
mod trace;
mod worker;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use ecgpipe_sdk::{Registry, error::chain};

use crate::{
    cli::{Cli, Command, Infer, PipelineArgs, WorkArgs},
    diagnostic::Report,
    engine::Asked,
    expand::Surroundings,
    explain::Why,
    history::History,
    pipeline::{self, Pipeline},
    plan::Plan,
    plugin,
    store::{
        Store, StoreError,
        remote::{ReadThrough, RemoteError},
    },
};

/// What only `main` knows.
pub struct Wiring {
    /// The stages.
    pub registry: Registry,
    /// `ecgpipe infer`: gives the text to print.
    pub infer: fn(&Infer) -> Result<String, Failure>,
    /// The AAMI class of a WFDB symbol; `None` for what is not a beat.
    pub beat_class: fn(&str) -> Option<BeatClass>,
    /// How many mV one unit is; `None` for what is not a voltage.
    pub mv_per_unit: fn(&str) -> Option<f64>,
}

/// The AAMI class of a beat, by its letter, under both rules for escape beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatClass {
    /// As de Chazal 2004 and most papers have it.
    pub de_chazal: &'static str,
    /// As ANSI/AAMI EC57 and its comparator `bxb` have it.
    pub ec57: &'static str,
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
        Self { message: shown(&report), help: None, exit: Exit::Usage }
    }
}

/// A report for the standard error as it is.
fn shown(report: &Report) -> String {
    if std::io::stderr().is_terminal() { report.styled() } else { report.plain() }
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
    let mut own_wiring = None;
    let result = std::env::set_current_dir(&cli.project)
        .map_err(|error| {
            Failure::usage(format!("failed to enter the project folder {}: {error}", cli.project.display()))
        })
        .and_then(|()| Ok(&*own_wiring.insert(with_project_stages(&cli.command, wiring)?)))
        .and_then(|wiring| match &cli.command {
            Command::Run(args) => run::run(args, wiring),
            Command::Sweep(args) => sweep::sweep(args, wiring),
            Command::Plan(args) => plan::plan(args, wiring),
            Command::Check(args) => check::check(args, wiring),
            Command::Explain(args) => explain::explain(args, wiring),
            Command::Stages(args) => stages::stages(args, wiring),
            Command::Graph(args) => graph::graph(args, wiring),
            Command::Runs(args) => runs::runs(args),
            Command::Cache(args) => cache::cache(args),
            Command::Data(args) => data::data(args, wiring),
            Command::Infer(args) => (wiring.infer)(args).map(|text| {
                print(&text);
                Exit::Success
            }),
            Command::Trace(args) => trace::trace(args, wiring),
            Command::Reproduce(args) => reproduce::reproduce(args, wiring),
            Command::Mlflow(args) => mlflow::mlflow(args),
            Command::Worker(args) => worker::worker(args, wiring),
        });
    let exit = result.unwrap_or_else(|failure| {
        // A report tells by itself what is an error; its warnings may come first.
        if ["error", "warning", "\u{1b}"].iter().any(|begin| failure.message.starts_with(begin)) {
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

/// The stages that a verb may use: with the plugins of the project, the built-in ones in processes of their own if asked.
fn with_project_stages(command: &Command, wiring: &Wiring) -> Result<Wiring, Failure> {
    let isolate = match command {
        Command::Run(args) => args.work.isolate,
        Command::Sweep(args) => args.work.isolate,
        // `plan` runs no body: isolated or not, the plan is the same.
        _ => false,
    };
    let registry = match command {
        // A worker is told what to run by a host that knows the plugins already; the others run nothing.
        Command::Worker(_) | Command::Data(_) | Command::Infer(_) | Command::Mlflow(_) => wiring.registry.clone(),
        Command::Stages(args) if args.built_in => wiring.registry.clone(),
        _ if isolate => {
            let program = std::env::current_exe().map_err(|error| {
                Failure::environment(format!("failed to find this program for `--isolate`: {error}"))
            })?;
            let isolated = plugin::isolated(&wiring.registry, &[program.into(), "worker".into()]);
            plugin::with_plugins(&isolated, Path::new("."))
        }
        _ => plugin::with_plugins(&wiring.registry, Path::new(".")),
    };
    Ok(Wiring { registry, ..*wiring })
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

/// The pipeline as `--device` changes it.
fn on_device(args: &PipelineArgs, work: &WorkArgs, registry: &Registry) -> Result<PipelineArgs, Failure> {
    let sets = with_device(&args.pipeline, &args.sets, work.device.as_deref(), registry)?;
    Ok(PipelineArgs { sets, ..args.clone() })
}

/// The `--set` options with those that `--device` is short for: one for each parameter of that name. What was set by
/// itself stays.
fn with_device(
    file: &Path,
    sets: &[String],
    device: Option<&str>,
    registry: &Registry,
) -> Result<Vec<String>, Failure> {
    let Some(device) = device else { return Ok(sets.to_vec()) };
    let pipeline = pipeline::load(file, &[])?;
    let mut all = Vec::new();
    for (node, entry) in &pipeline.stages {
        let stage = registry.get(&entry.uses.text);
        let paths = stage.map(|stage| crate::plan::paths_named(&stage.spec().schema, "device")).unwrap_or_default();
        all.extend(paths.into_iter().map(|path| format!("{node}.{path}={device}")));
    }
    if all.is_empty() {
        return Err(Failure::usage("no stage of this pipeline trains on a device").help("leave `--device` out"));
    }
    all.extend_from_slice(sets);
    Ok(all)
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
    Surroundings { data_folder: PathBuf::from("data"), shared_data, offline, logs: None }
}

fn runs_folder() -> PathBuf {
    PathBuf::from("runs")
}

/// Explains misses; the run folders are read when the first job asks.
fn previous(pipeline: &str) -> impl Fn(&Asked<'_>) -> Option<Why> + Sync {
    let history = History::new(&runs_folder(), pipeline);
    move |asked| Some(history.why(asked))
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

/// The same, with the widest columns cut until a line fits a terminal; whole where stdout is none.
fn fitting_table(rows: &[Vec<String>]) -> String {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => table(&cut_to(rows, usize::from(size.ws_col))),
        _ => table(rows),
    }
}

/// No column is cut below this, so that something can be read of each.
const LEAST_COLUMN_N: usize = 8;

fn cut_to(rows: &[Vec<String>], width: usize) -> Vec<Vec<String>> {
    let column_n = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut widths: Vec<usize> = (0..column_n).map(|column| widest(column).unwrap_or_default()).collect();
    let mut excess_n = (widths.iter().sum::<usize>() + 2 * column_n.saturating_sub(1)).saturating_sub(width);
    while excess_n > 0 {
        let Some(most) = widths.iter_mut().max().filter(|most| **most > LEAST_COLUMN_N) else { break };
        *most -= 1;
        excess_n -= 1;
    }
    let cut = |(cell, &width): (&String, &usize)| match cell.chars().count() {
        length if length <= width => cell.clone(),
        _ => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    };
    rows.iter().map(|row| row.iter().zip(&widths).map(cut).collect()).collect()
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

#[cfg(test)]
mod tests {
    use super::{cut_to, table};

    #[test]
    fn a_table_is_cut_where_it_is_widest() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows =
            [row(["run", "status", "set"]), row(["20261123-093000-full", "finished", "train.epochs=10 größe=7"])];
        assert_eq!(cut_to(&rows, 80), rows);
        let cut = table(&cut_to(&rows, 40));
        assert_eq!(cut, "run             status    set\n20261123-0930…  finished  train.epochs=…\n");
        assert!(
            table(&cut_to(&rows, 5)).lines().all(|line| line.chars().count() <= 28),
            "never below what can be read"
        );
    }
}
