//! The conformance suite of the protocol: one list of cases, run by a stage in this process, by the same stage in a process of
//! its own (`ecgpipe worker`), and by plugins that do the same in `sh` and in Python without packages.
//!
//! Whatever a case does, nothing of a failed job may reach the store, and the next job must go well.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

#[path = "plugins/stages.rs"]
mod stages;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use ecgpipe::{
    digest::{Digest, Key},
    engine::{self, Request},
    event::{Event, RunStatus},
    expand::Surroundings,
    pipeline,
    plan::plan,
    plugin,
    store::Store,
};
use ecgpipe_sdk::{Files, Kind, Registry};
use expect_test::expect;
use tempfile::TempDir;

/// Who runs the stage of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    InProcess,
    Worker,
    Sh,
    Python,
}

use Host::{InProcess, Python, Sh, Worker};

/// A job that must fail: its mode, and what the failure must say, by host.
struct Case {
    mode: &'static str,
    hosts: &'static [Host],
    says: &'static [&'static str],
}

const fn case(mode: &'static str, hosts: &'static [Host], says: &'static [&'static str]) -> Case {
    Case { mode, hosts, says }
}

const OUTSIDE: &[Host] = &[Sh, Python];
const PROCESSES: &[Host] = &[Worker, Sh, Python];

/// Everything that a stage can do wrong.
const FAILURES: &[Case] = &[
    case("error", &[InProcess, Worker, Sh, Python], &["told to fail", "(tell it not to"]),
    case("error_and_exit_0", OUTSIDE, &["told to fail"]),
    case("panic", &[InProcess, Worker], &["the stage panicked: told to panic"]),
    case("exit_1", OUTSIDE, &["ended with exit code 1", "what was wrong", "conform[a].log"]),
    case("exit_1_without_error", OUTSIDE, &["ended with exit code 1 and no error in result.json"]),
    case("abort", PROCESSES, &["was killed by signal 6 (SIGABRT)"]),
    case("kill", PROCESSES, &["was killed by signal 9 (SIGKILL)", "memory"]),
    case("missing_output", &[InProcess], &["the stage gave nothing on its port `beats`"]),
    case("missing_output", PROCESSES, &["the output `beats` is missing: there is no outputs/beats.parquet"]),
    case("misnamed_output", &[Sh], &["the output `beats` is missing", "did you mean `beat.parquet`?"]),
    case("extra_output", &[Sh], &["outputs/ holds `debug.txt`, which no output port is for", "TMPDIR"]),
    case("wrong_kind", &[InProcess, Worker], &["beats: the artifact in memory is of another kind"]),
    case(
        "wrong_kind",
        OUTSIDE,
        &["output `beats`", "the table holds metrics v1, expected beats v1", "docs/plugins.md"],
    ),
    case("garbage", OUTSIDE, &["output `beats`", "not a readable Parquet table"]),
    case("truncated", OUTSIDE, &["output `beats`", "not a readable Parquet table"]),
    case("empty", &[Sh], &["output `beats`", "not a readable Parquet table"]),
    case("other_version", OUTSIDE, &["the table holds beats v2, expected beats v1"]),
    case("other_record", OUTSIDE, &["it says that it is of record z, but the job is for record a"]),
    case("other_unit", OUTSIDE, &["column `sample_idx` is in seconds, but beats wants samples"]),
    case("link", OUTSIDE, &["output `beats`: it is a link"]),
    case("link_outside", &[Sh], &["output `beats`: it is a link"]),
    case("link_in_bundle", &[Sh], &["output `files`: `passwd`: it is a link"]),
    case("linked_bundle", &[Sh], &["output `files`: files is not a folder"]),
    case("linked_outputs", &[Sh], &["outputs is not a folder"]),
    case("no_outputs", &[Sh], &["outputs"]),
    case("pipe_as_output", &[Sh], &["output `beats`: it is not a plain file"]),
    case("folder_as_output", &[Sh], &["output `beats`: it is not a plain file"]),
    case("hidden_file", &[Sh], &["output `files`", "`.hidden` is not a plain file name"]),
    case("folder_in_bundle", &[Sh], &["output `files`: `folder`: it is not a plain file"]),
    case("no_result", OUTSIDE, &["ended well, but wrote no result.json"]),
    case("other_format", OUTSIDE, &["result.json is of format 2, expected 1"]),
    case("no_format", &[Sh], &["result.json has no `format`", "\"format\": 1"]),
    case("bad_result", &[Sh], &["result.json is not as the protocol says", "unknown field `metric`"]),
    case("result_no_json", &[Sh], &["result.json is not JSON"]),
    case("linked_result", &[Sh], &["result.json: it is a link"]),
    case("memory", &[Python], &["MemoryError", "its memory limit is 1000 MB"]),
];

const PIPELINE: &str = "
name: suite
seed: 7
stages:
  make: {uses: make}
  conform: {uses: conform, in: {files: make.files, beats: make.beats, other: make.other}, with: {WITH}}
";

fn with(mode: &str) -> String {
    PIPELINE.replace("WITH", &format!("mode: {mode}"))
}

/// A project in a folder of its own.
struct Project {
    folder: TempDir,
    registry: Registry,
}

/// What a run gave.
struct Ran {
    status: RunStatus,
    computed_n: usize,
    events: Vec<Event>,
    keys: BTreeMap<String, Key>,
    digests: BTreeMap<String, Digest>,
}

impl Ran {
    fn failure(&self) -> String {
        let failures = self.events.iter().filter_map(|event| match event {
            Event::Failed { job, error, help } => Some(format!("{job}: {error} ({})", help.as_deref().unwrap_or(""))),
            _ => None,
        });
        failures.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn finished(self) -> Self {
        assert_eq!((self.status, self.failure().as_str()), (RunStatus::Finished, ""));
        self
    }
}

impl Project {
    fn new(host: Host) -> Self {
        match host {
            InProcess => Self { folder: TempDir::new().unwrap(), registry: stages::registry() },
            Worker => {
                let command = [std::env::current_exe().unwrap().into_os_string()]
                    .into_iter()
                    .chain(["worker_entry", "--exact", "--nocapture", "--test-threads=2"].map(OsString::from));
                let registry = plugin::isolated(&stages::registry(), &command.collect::<Vec<_>>());
                Self { folder: TempDir::new().unwrap(), registry }
            }
            Sh => Self::plugin(&yaml("sh, conform.sh"), &[("conform.sh", include_str!("plugins/conform.sh"))]),
            Python => Self::plugin(&yaml("python3, conform.py"), &[("conform.py", include_str!("plugins/conform.py"))]),
        }
    }

    /// A project with the plugin `conform` made of these files.
    fn plugin(yaml: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let own = folder.path().join("stages/conform");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("stage.yaml"), yaml).unwrap();
        for (name, text) in files {
            fs::write(own.join(name), text).unwrap();
        }
        let mut project = Self { folder, registry: stages::source() };
        project.reload();
        project
    }

    /// Reads the plugin anew, as a new process would.
    fn reload(&mut self) {
        self.registry = plugin::with_plugins(&stages::source(), self.folder.path());
        assert!(self.registry.refused().is_empty(), "{:?}", self.registry.refused());
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn run(&self, yaml: &str) -> Ran {
        self.run_until(yaml, |_| false)
    }

    /// Runs a pipeline; cancelled as soon as an event fits.
    fn run_until(&self, yaml: &str, cancels: impl Fn(&Event) -> bool + Sync) -> Ran {
        let read = |_: &Path| Ok(yaml.to_owned());
        let pipeline = pipeline::load_with(Path::new("suite.yaml"), &[], &read);
        let plan = pipeline.and_then(|pipeline| plan(&pipeline, &self.registry));
        let plan = plan.unwrap_or_else(|report| panic!("{}", report.plain()));
        let (cancel, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let tell = |event: Event| {
            if cancels(&event) {
                cancel.store(true, Ordering::Relaxed);
            }
            events.lock().unwrap().push(event);
        };
        let request = Request {
            plan: &plan,
            registry: &self.registry,
            store: &Store::open(&self.path("store")).unwrap(),
            surroundings: &Surroundings {
                data_folder: self.path("data"),
                shared_data: None,
                offline: true,
                logs: Some(self.path("logs")),
            },
            selected: plan.select(&[]).unwrap(),
            force: BTreeSet::new(),
            jobs: 1,
            keep_going: false,
            dry_run: false,
            previous: &|_| None,
            cancel: &cancel,
            events: &tell,
        };
        let report = engine::run(&request).unwrap();
        let digests = report.jobs.iter().flat_map(|job| {
            job.outputs.iter().map(|(port, output)| (format!("{}.{}", job.name, port.as_str()), output.digest))
        });
        Ran {
            status: report.status,
            computed_n: report.counts.computed,
            digests: digests.collect(),
            keys: report.jobs.iter().map(|job| (job.name.to_string(), job.key)).collect(),
            events: events.into_inner().unwrap(),
        }
    }

    /// The files of the suite's output `files`.
    fn files(&self, ran: &Ran) -> BTreeMap<String, String> {
        let hex = ran.digests["conform[a].files"].to_hex();
        let bytes = fs::read(self.path("store/blobs").join(&hex[..2]).join(&hex)).unwrap();
        let files = Files::decode(&bytes.into()).unwrap().files;
        files.into_iter().map(|file| (file.name, String::from_utf8_lossy(&file.bytes).into_owned())).collect()
    }

    /// Every blob and every manifest of the store.
    fn stored(&self) -> BTreeSet<PathBuf> {
        fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.insert(path);
                }
            }
        }
        let mut found = BTreeSet::new();
        for part in ["blobs", "manifests"] {
            walk(&self.path("store").join(part), &mut found);
        }
        found
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("logs/conform[a].log")).unwrap_or_default()
    }
}

fn yaml(command: &str) -> String {
    include_str!("plugins/conform.yaml").replace("COMMAND", command)
}

/// Whether the host is there; says what is skipped where it is not.
fn has(host: Host) -> bool {
    let there = host != Python
        || Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: there is no python3 for a plugin in Python");
    }
    there
}

/// What a worker's process is: this program again, with the job as its last argument. Does nothing as a test.
#[test]
fn worker_entry() {
    let Some(job) = std::env::args().next_back().filter(|argument| argument.ends_with("job.json")) else { return };
    let mut stdout = std::io::stdout();
    // Behind what the test harness says, an event begins a line.
    stdout.write_all(b"\n").unwrap();
    let good = plugin::worker::work(&stages::registry(), Path::new(&job), &mut stdout).unwrap();
    std::process::exit(if good { 0 } else { 1 });
}

fn check_failures(host: Host) {
    if !has(host) {
        return;
    }
    let project = Project::new(host);
    project.run(&with("good")).finished();
    let stored = project.stored();
    let mut case_n = 0;
    for case in FAILURES.iter().filter(|case| case.hosts.contains(&host)) {
        case_n += 1;
        let ran = project.run(&with(case.mode));
        let failure = ran.failure();
        assert_eq!(ran.status, RunStatus::Failed, "{host:?}: {} went well", case.mode);
        for text in case.says {
            assert!(failure.contains(text), "{host:?}: {}: {text:?} is not said in: {failure}", case.mode);
        }
        assert_eq!(project.stored(), stored, "{host:?}: {} left something in the store", case.mode);
    }
    assert!(case_n >= 4, "{host:?} has only {case_n} cases");
    let ran = project.run(&PIPELINE.replace("WITH", "salt: 1.5")).finished();
    assert_eq!(ran.computed_n, 1);
}

#[test]
fn failures_in_this_process() {
    check_failures(InProcess);
}

#[test]
fn failures_of_a_worker() {
    check_failures(Worker);
}

/// The widest of the four lists.
#[test]
fn nothing_of_a_failed_job_reaches_the_store() {
    check_failures(Sh);
}

#[test]
fn failures_of_a_plugin_in_python() {
    check_failures(Python);
}

#[test]
fn every_host_gives_the_same_bytes() {
    // A number with more digits than a careless reader of JSON gets right.
    for pipeline in [with("good"), PIPELINE.replace("WITH", "salt: 31.245270191439438")] {
        let own = Project::new(InProcess).run(&pipeline).finished();
        for host in [Worker, Sh, Python].into_iter().filter(|host| has(*host)) {
            let project = Project::new(host);
            let ran = project.run(&pipeline).finished();
            assert_eq!(ran.digests, own.digests, "{host:?}: {:?}", project.files(&ran));
            assert_eq!(ran.computed_n, 2);
            assert_eq!(project.run(&pipeline).finished().computed_n, 0, "{host:?}: the second run");
        }
    }
}

#[test]
fn a_process_of_its_own_changes_no_key_and_no_digest() {
    for pipeline in [with("good"), with("events"), PIPELINE.replace("WITH", "salt: 31.245270191439438")] {
        let own = Project::new(InProcess).run(&pipeline).finished();
        let ran = Project::new(Worker).run(&pipeline).finished();
        assert_eq!((own.keys, own.digests), (ran.keys, ran.digests));
    }
}

#[test]
fn a_stage_is_told_of_its_job() {
    let project = Project::new(Sh);
    let ran = project.run(&with("good")).finished();
    let files = project.files(&ran);
    let seed = ecgpipe::key::stage_seed(7, "conform", Some("a"));
    assert_eq!(files["facts.txt"], format!("mode=good salt=0.5 seed={seed} record=a threads=1\n"));
    assert_eq!(files["two.bin"], "\0\n\r2");
}

/// Progress, metrics, notes and warnings as texts.
fn said(ran: &Ran) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Progress { done, total, unit, .. } => Some(format!("{done}/{total} {unit}")),
        Event::Metric { point, .. } => Some(format!("{}@{}={}", point.key, point.step, point.value)),
        Event::Note { text, .. } => Some(text.clone()),
        Event::Warning { text, .. } => Some(text.clone()),
        _ => None,
    };
    ran.events.iter().filter_map(text).filter(|text| !text.starts_with("length@")).collect()
}

#[test]
fn what_a_stage_says_while_it_works_is_heard() {
    for host in [InProcess, Worker, Sh, Python].into_iter().filter(|host| has(*host)) {
        let project = Project::new(host);
        let ran = project.run(&with("events")).finished();
        assert_eq!(said(&ran), ["1/2 parts", "loss@3=0.25", "a note", "a warning"], "{host:?}");
        // Warnings are kept with the result.
        assert_eq!(said(&project.run(&with("events")).finished()), ["a warning"], "{host:?}");
    }
    for host in [Sh, Python].into_iter().filter(|host| has(*host)) {
        let ran = Project::new(host).run(&with("results")).finished();
        assert_eq!(said(&ran), ["loss@3=0.25", "a warning"], "{host:?}");
    }
}

#[test]
fn what_is_no_event_goes_to_the_log() {
    for host in [Sh, Python].into_iter().filter(|host| has(*host)) {
        let project = Project::new(host);
        assert_eq!(said(&project.run(&with("strange_stdout")).finished()), [""; 0]);
        assert_eq!(project.log(), "{\"event\": \"party\"}\n{\"event\": \nplain text\n", "{host:?}");
    }
}

#[test]
fn a_log_is_bounded_and_keeps_its_end() {
    for host in [Sh, Python].into_iter().filter(|host| has(*host)) {
        let project = Project::new(host);
        project.run(&with("huge_stderr")).finished();
        let log = project.log();
        assert!((10 << 20..17 << 20).contains(&log.len()), "{host:?}: {} bytes", log.len());
        assert!(log.contains("bytes left out; the end:]\nxxx"), "{host:?}");
    }
}

#[test]
fn the_environment_is_clean() {
    let project = Project::new(Sh);
    let ran = project.run(&with("environment")).finished();
    let names: BTreeSet<String> = project.files(&ran)["environment.txt"].lines().map(str::to_owned).collect();
    let given = [
        "HOME",
        "JULIA_NUM_THREADS",
        "LANG",
        "LC_ALL",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "RAYON_NUM_THREADS",
        "TMPDIR",
        "TZ",
    ];
    let own_of_shells = ["PWD", "OLDPWD", "SHLVL", "_"];
    let strange: Vec<&String> = names
        .iter()
        .filter(|name| !given.contains(&name.as_str()) && !own_of_shells.contains(&name.as_str()))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(given.iter().all(|name| names.contains(*name)), "{names:?}");
    // Cargo sets it for tests.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let named = yaml("sh, conform.sh") + "environment: [CARGO_MANIFEST_DIR]\n";
    let project = Project::plugin(&named, &[("conform.sh", include_str!("plugins/conform.sh"))]);
    let ran = project.run(&with("environment")).finished();
    assert!(project.files(&ran)["environment.txt"].contains("CARGO_MANIFEST_DIR"));
}

/// A named pipe; the receiver hears when nobody has it open any more.
fn pipe(folder: &Path) -> (PathBuf, mpsc::Receiver<()>) {
    let path = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (sender, receiver) = mpsc::channel();
    let reading = path.clone();
    std::thread::spawn(move || {
        let mut content = Vec::new();
        // Waits until a program has it open, then until none has.
        fs::File::open(reading).unwrap().read_to_end(&mut content).unwrap();
        sender.send(()).unwrap();
    });
    (path, receiver)
}

/// Longer than any of this takes, shorter than what the programs would sleep.
const PATIENCE: Duration = Duration::from_secs(100);

#[test]
fn a_program_that_takes_too_long_is_stopped_with_all_that_it_started() {
    for (host, command, file, text) in [
        (Sh, "sh, conform.sh", "conform.sh", include_str!("plugins/conform.sh")),
        (Python, "python3, conform.py", "conform.py", include_str!("plugins/conform.py")),
    ] {
        if !has(host) {
            continue;
        }
        let project = Project::plugin(&yaml(command).replace("time_s: 120", "time_s: 3"), &[(file, text)]);
        let (path, closed) = pipe(project.folder.path());
        let ran = project.run(&PIPELINE.replace("WITH", &format!("mode: hang, pipe: {}", path.display())));
        let failure = ran.failure();
        assert!(failure.contains("was stopped after its time limit of 3 s"), "{host:?}: {failure}");
        assert!(failure.contains("limits: {time_s: ...}"), "{host:?}: {failure}");
        closed.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_program_that_is_left_behind_is_stopped() {
    let project = Project::new(Sh);
    let (path, closed) = pipe(project.folder.path());
    project.run(&PIPELINE.replace("WITH", &format!("mode: leave, pipe: {}", path.display()))).finished();
    closed.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn cancelling_stops_the_program() {
    for host in [InProcess, Worker, Sh, Python].into_iter().filter(|host| has(*host)) {
        let project = Project::new(host);
        let (path, closed) = pipe(project.folder.path());
        let begins = |event: &Event| matches!(event, Event::Started { job } if job.node == "conform");
        let ran =
            project.run_until(&PIPELINE.replace("WITH", &format!("mode: hang, pipe: {}", path.display())), begins);
        assert_eq!((ran.status, ran.failure().as_str()), (RunStatus::Cancelled, ""), "{host:?}");
        // The program may have been stopped before it opened the pipe.
        drop(fs::File::options().read(true).write(true).open(&path).unwrap());
        closed.recv_timeout(PATIENCE).unwrap();
        project.run(&with("good")).finished();
    }
}

/// A host of its own that runs the suite's plugin: for the test below. Does nothing as a test.
#[test]
fn host_entry() {
    let Some(pipe) = std::env::var_os("ECGPIPE_TEST_HOST_PIPE") else { return };
    let project = Project::new(Sh);
    project.run(&PIPELINE.replace("WITH", &format!("mode: hang, pipe: {}", Path::new(&pipe).display())));
}

#[test]
fn a_host_that_is_killed_leaves_no_program_behind() {
    let folder = TempDir::new().unwrap();
    let (path, closed) = pipe(folder.path());
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["host_entry", "--exact"])
        .env("ECGPIPE_TEST_HOST_PIPE", &path)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Opens once the program has opened the other end.
    let open = fs::File::open(&path).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    drop(open);
    closed.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_program_that_there_is_not_is_named() {
    for (command, says) in [
        ("no_such_program_1, conform.sh", &["there is no program `no_such_program_1` on PATH", "install it"][..]),
        ("conform.sh", &["conform.sh is not executable", "chmod +x"]),
        ("./conform.sh", &["conform.sh is not executable", "chmod +x"]),
        ("/no/such/program", &["failed to find the program /no/such/program"]),
    ] {
        let project = Project::plugin(&yaml(command), &[("conform.sh", include_str!("plugins/conform.sh"))]);
        let failure = project.run(&with("good")).failure();
        assert!(says.iter().all(|text| failure.contains(text)), "{command}: {failure}");
    }
}

#[test]
fn a_program_may_be_a_file_of_the_folder() {
    let project = Project::plugin(&yaml("conform.sh"), &[]);
    let path = project.path("stages/conform/conform.sh");
    fs::write(&path, format!("#!/bin/sh\n{}", include_str!("plugins/conform.sh"))).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut project = project;
    project.reload();
    project.run(&with("good")).finished();
}

#[test]
fn an_edited_source_runs_again_and_stops_there() {
    let mut project = Project::new(Sh);
    let first = project.run(&with("good")).finished();
    let edit = |project: &Project, name: &str, text: &str| {
        let mut file =
            fs::File::options().create(true).append(true).open(project.path("stages/conform").join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    for name in ["README.md", ".hidden", "conform.pyc", "stage.yaml"] {
        edit(&project, name, "# nothing that decides a result\n");
    }
    project.reload();
    assert_eq!(project.run(&with("good")).finished().computed_n, 0);
    edit(&project, "conform.sh", "# a comment\n");
    project.reload();
    let ran = project.run(&with("good")).finished();
    assert_eq!((ran.computed_n, &ran.digests), (1, &first.digests));
    assert_ne!(ran.keys["conform[a]"], first.keys["conform[a]"]);
    edit(&project, "module.txt", "read by the program, perhaps");
    project.reload();
    assert_eq!(project.run(&with("good")).finished().computed_n, 1);
}

#[test]
fn sources_that_change_while_a_job_runs_store_nothing() {
    let project = Project::new(Sh);
    let stored = || if project.path("store/manifests").exists() { project.stored().len() } else { 0 };
    project.run(&with("good")).finished();
    let before = stored();
    // The registry still has the old code.
    fs::write(project.path("stages/conform/conform.sh"), format!("{}# new\n", include_str!("plugins/conform.sh")))
        .unwrap();
    let failure = project.run(&PIPELINE.replace("WITH", "salt: 2")).failure();
    assert!(failure.contains("its sources changed while it ran; nothing was stored"), "{failure}");
    assert_eq!(stored(), before);
}

#[test]
fn a_broken_plugin_is_in_the_way_of_its_users_only() {
    let project = Project::new(InProcess);
    for (name, text) in [("broken", "name: broken\ncomand: [sh]\n"), ("conform", "name: conform\n"), ("empty", "")] {
        fs::create_dir_all(project.path("stages").join(name)).unwrap();
        fs::write(project.path("stages").join(name).join("stage.yaml"), text).unwrap();
    }
    let registry = plugin::with_plugins(&stages::source(), project.folder.path());
    assert_eq!(registry.refused().keys().collect::<Vec<_>>(), ["broken", "conform", "empty"]);
    let check = |uses: &str| {
        let text = format!("stages: {{one: {{uses: {uses}}}}}");
        let pipeline = pipeline::load_with(Path::new("p.yaml"), &[], &|_| Ok(text.clone())).unwrap();
        plan(&pipeline, &registry).map(|_| ()).map_err(|report| report.plain())
    };
    check("make").unwrap();
    let report = check("broken").unwrap_err();
    for text in
        ["stage `one`: the plugin `broken` cannot be used", "stages/broken/stage.yaml:2:1", "did you mean `command`?"]
    {
        assert!(report.contains(text), "{text:?} is not in {report}");
    }
}

#[test]
fn a_plugin_with_the_name_of_another_stage_is_refused() {
    let project = Project::new(Sh);
    let registry = plugin::with_plugins(&stages::registry(), project.folder.path());
    assert!(registry.refused()["conform"].contains("a built-in stage is named `conform` too"));
}

#[test]
fn plugins_stand_beside_built_in_stages() {
    let project = Project::new(Sh);
    fs::create_dir_all(project.path("stages/no_plugin")).unwrap();
    let registry = plugin::with_plugins(&stages::source(), project.folder.path());
    assert_eq!(registry.iter().map(|stage| stage.spec().name).collect::<Vec<_>>(), ["conform", "make"]);
    assert!(ecgpipe::schema::stage_entry(registry.get("conform").unwrap().spec()).contains("`salt`"));
}

#[test]
fn a_pipeline_is_told_where_a_plugins_parameter_is_wrong() {
    let declared = "params:\n  width_ms: {type: number, default: 200, minimum: 1, maximum: 5000, doc: x}\n  \
                    label: {type: text, default: 0100, doc: x}\n  \
                    mode: {type: text, default: fast, one_of: [fast, exact], doc: x}\n  \
                    smooth: {type: boolean, default: false, doc: x}\n";
    let text = "name: conform\nsummary: x\ncommand: [sh]\nrecords: {folder: x, suffix: .x}\n\
                outputs: {files: {kind: files, cardinality: each, doc: x}}\n";
    let project = Project::plugin(&format!("{text}{declared}"), &[]);
    let check = |with: &str| {
        let text = format!("stages:\n  d: {{uses: conform, with: {{{with}}}}}\n");
        let pipeline = pipeline::load_with(Path::new("p.yaml"), &[], &|_| Ok(text.clone())).unwrap();
        plan(&pipeline, &project.registry).map(|plan| plan.nodes()[0].params.as_json().clone())
    };
    let params = check("label: 007, width_ms: 5").unwrap_or_else(|report| panic!("{}", report.plain()));
    assert_eq!((&params["label"], params["width_ms"].to_string().as_str()), (&"007".into(), "5.0"));
    expect![[r#"
        error: stage `d`: parameter `mode` cannot be `fats`
         --> p.yaml:2:35
          |
        2 |   d: {uses: conform, with: {mode: fats, width_ms: 0, smoth: true}}
          |                                   ^^^^
          |
          = help: did you mean `fast`? allowed are `fast` and `exact`

        error: stage `d`: parameter `width_ms` wants a number of at least 1 and at most 5000, but is the number `0`
         --> p.yaml:2:51
          |
        2 |   d: {uses: conform, with: {mode: fats, width_ms: 0, smoth: true}}
          |                                                   ^
          |
          = help: the default is `200.0`

        error: stage `d`: `conform` has no parameter `smoth`
         --> p.yaml:2:54
          |
        2 |   d: {uses: conform, with: {mode: fats, width_ms: 0, smoth: true}}
          |                                                      ^^^^^
          |
          = help: did you mean `smooth`?
    "#]]
    .assert_eq(&check("mode: fats, width_ms: 0, smoth: true").unwrap_err().plain());
}
