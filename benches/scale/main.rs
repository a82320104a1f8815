//! How the cost of a run grows with the number of records: `cargo bench --bench scale`.
//!
//! The program is an `ecgpipe` with other stages (`stages.rs`): the same command line, run folder, event log, stat cache,
//! store and published files. It starts itself once a measured run, and each run says at its end what it has used: CPU time
//! of the process, peak memory, and the counts out of its run folder.
//!
//! `scale ecgpipe ARGUMENTS` is that `ecgpipe`; `scale project FOLDER RECORDS` only writes a project, to look at or to
//! profile.
#![expect(clippy::print_stdout, reason = "printing is what a bench does")]

mod stages;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use ecgpipe::{
    cli::Cli,
    commands::{Failure, Wiring, dispatch},
    event::Counts,
    track::run_folder,
};
use serde::{Deserialize, Serialize};

/// As in `src/main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A file written less than two seconds before is read again by the next run, which is not what is to be measured.
const SETTLING: Duration = Duration::from_millis(2100);

/// Where a measured run writes what it has used.
const USAGE_VARIABLE: &str = "ECGPIPE_SCALE_USAGE";

/// Measures runs of 5 n + 2 jobs.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of records.
    #[arg(long, value_delimiter = ',', default_value = "48,500,1000,2000,4000")]
    records: Vec<usize>,
    /// How often the runs that change nothing are repeated; the median is shown.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Jobs at once [default: all cores].
    #[arg(long)]
    jobs: Option<usize>,
    /// Where the projects are made; on a real disk, since a run waits for it [default: the temporary folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("ecgpipe") => as_ecgpipe(),
        Some("project") => {
            let folder = PathBuf::from(words.next().expect("project FOLDER RECORDS"));
            let record_n = words.next().and_then(|word| word.to_str()?.parse().ok()).expect("project FOLDER RECORDS");
            stages::write_project(&folder, record_n).expect("the folder can be written");
            ExitCode::SUCCESS
        }
        _ => {
            bench(&Args::parse());
            ExitCode::SUCCESS
        }
    }
}

/// What a run has used.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Usage {
    cpu_ms: f64,
    peak_mb: f64,
    wall_ms: f64,
    decoded_n: u64,
}

fn as_ecgpipe() -> ExitCode {
    let started = Instant::now();
    // The first argument takes the place of the program's name.
    let cli = Cli::parse_from(std::env::args_os().skip(1));
    let infer = |_: &_| Err(Failure::usage("this program has no model"));
    let exit =
        dispatch(cli, &Wiring { registry: stages::registry(), infer, beat_class: |_| None, mv_per_unit: |_| None });
    if let Some(file) = std::env::var_os(USAGE_VARIABLE) {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let usage = Usage {
            cpu_ms: cpu.tv_sec as f64 * 1e3 + cpu.tv_nsec as f64 / 1e6,
            peak_mb: peak_mb(),
            wall_ms: started.elapsed().as_secs_f64() * 1e3,
            decoded_n: stages::decoded_n(),
        };
        fs::write(file, serde_json::to_vec(&usage).expect("plain data")).expect("the usage file can be written");
    }
    exit
}

/// The most memory that the process had at once; 0 where the system does not say.
fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}

struct Measured {
    usage: Usage,
    counts: Counts,
}

fn bench(args: &Args) {
    println!("| records | jobs | run | computed | CPU s | us CPU a job | peak MB | decoded | wall s |");
    println!("|---|---|---|---|---|---|---|---|---|");
    // Removed at the end only: ext4 makes new files slowly where thousands were removed shortly before.
    let mut projects = Vec::new();
    for &record_n in &args.records {
        let folder = match &args.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a temporary folder");
        let project = folder.path().to_owned();
        let project = project.as_path();
        projects.push(folder);
        stages::write_project(project, record_n).expect("the project can be written");
        std::thread::sleep(SETTLING);
        let run = |extra: &[&str]| measure(project, args.jobs, extra);
        let check = |what: &str, computed_n: usize, measured: Vec<Measured>| {
            let first = &measured[0];
            assert_eq!(first.counts.computed, computed_n, "{what} computes what it must");
            assert_eq!(first.counts.total(), stages::job_n(record_n), "{what}: every job is told of");
            println!(
                "| {record_n} | {} | {what} | {computed_n} | {:.3} | {:.0} | {:.1} | {} | {:.2} |",
                first.counts.total(),
                median(&measured, |usage| usage.cpu_ms) / 1e3,
                median(&measured, |usage| usage.cpu_ms) * 1e3 / first.counts.total() as f64,
                median(&measured, |usage| usage.peak_mb),
                first.usage.decoded_n,
                median(&measured, |usage| usage.wall_ms) / 1e3,
            );
        };
        check("cold", stages::job_n(record_n), vec![run(&[])]);
        check("nothing changed", 0, (0..args.repeat.max(1)).map(|_| run(&[])).collect());
        let raw = project.join("data/texts/r00000.txt");
        fs::write(raw, stages::raw_text(0, 1)).expect("a raw file can be written");
        std::thread::sleep(SETTLING);
        // Its own chain of five, and the two that gather; what `join` says of all texts together stays the same.
        check("one record changed", 7, vec![run(&[])]);
        check("parameter that changes no byte", record_n, vec![run(&["--set", "tidy.remark=x"])]);
        check("parameter of a late stage", record_n + 1, vec![run(&["--set", "score.prefix=x"])]);
        check("parameter of the first stage", stages::job_n(record_n), vec![run(&["--set", "read.prefix=x"])]);
    }
}

fn median(measured: &[Measured], figure: impl Fn(&Usage) -> f64) -> f64 {
    let mut figures: Vec<f64> = measured.iter().map(|measured| figure(&measured.usage)).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn measure(project: &Path, jobs: Option<usize>, extra: &[&str]) -> Measured {
    let usage_file = project.join("usage.json");
    let mut command = Command::new(std::env::current_exe().expect("the program knows its file"));
    command.args(["ecgpipe", "-C"]).arg(project).args(["run", "pipeline.yaml", "--offline"]).args(extra);
    if let Some(jobs) = jobs {
        command.arg("--jobs").arg(jobs.to_string());
    }
    let status = command.env(USAGE_VARIABLE, &usage_file).stderr(Stdio::null()).status().expect("a run starts");
    assert!(status.success(), "a run of {} ended with {status}", project.display());
    let usage = fs::read(&usage_file).expect("a run says what it has used");
    let (_, run) = run_folder::find(&project.join("runs"), "latest").expect("a run leaves its folder");
    Measured {
        usage: serde_json::from_slice(&usage).expect("plain data"),
        counts: run.counts.expect("a run that ended has counts"),
    }
}
