//! The program under faults: a project in a folder of its own, the whole command line with the small stages in a process of its
//! own, and `interpose.c` between that process and its disk.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::OnceLock,
};

use clap::Parser;
use ecgpipe::{
    cli::Cli,
    commands::{Exit, Failure, Wiring, dispatch},
    digest::Digest,
    store::{GcOptions, GcReport, Lookup, Miss, ProblemKind, Store},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::stages;

/// One chain per record, what gathers it, what spreads it again, and three published targets.
pub(crate) const PIPELINE: &str = "
name: texts
seed: 7
stages:
  read: {uses: read_text}
  tidy: {uses: tidy, in: {text: read.text}}
  join: {uses: join, in: {texts: tidy.text}}
  score: {uses: score, in: {joined: join.text}}
  label: {uses: label, in: {text: tidy.text, joined: join.text}}
  export: {uses: export, in: {text: join.text}}
publish: {models/model.onnx: export.onnx, out/: label.text}
";

/// Jobs of [`PIPELINE`] over the records a and b.
pub(crate) const JOB_N: u64 = 9;

pub(crate) const RUN: [&str; 6] = ["run", "--offline", "--json", "--jobs", "1", "pipeline.yaml"];

/// What is done to a process: variables for `interpose.c`.
pub(crate) type Faults = Vec<(&'static str, String)>;

/// The library between the process and the disk, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("interpose.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/interpose.c");
        let arguments = ["-shared", "-fPIC", "-O1", "-o", path.to_str().unwrap(), source, "-ldl"];
        let status = Command::new(env::var("CC").unwrap_or_else(|_| "cc".to_owned())).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "the C compiler that the build needs, too, does not work");
        (folder, path)
    });
    path
}

/// A project: three folders and a pipeline.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// Two records and [`PIPELINE`], nothing computed yet.
    pub(crate) fn new() -> Self {
        // In memory where there is such a folder: no test here is about the speed of a disk.
        let shared = Path::new("/dev/shm");
        let folder = if shared.is_dir() { TempDir::new_in(shared) } else { TempDir::new() }.unwrap();
        let project = Self { folder };
        project.write("pipeline.yaml", PIPELINE);
        project.write("data/texts/a.txt", "alpha beta");
        project.write("data/texts/b.txt", "gamma delta");
        project
    }

    /// A project in which [`RUN`] has run.
    pub(crate) fn after_a_run() -> Self {
        let project = Self::new();
        project.run(&RUN).exits(&[0]);
        project
    }

    pub(crate) fn copy(&self) -> Self {
        fn copy(from: &Path, to: &Path) {
            for entry in fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                let target = to.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    fs::create_dir(&target).unwrap();
                    copy(&entry.path(), &target);
                } else {
                    fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
                }
            }
        }
        let other = Self::empty();
        copy(self.path(), other.path());
        other
    }

    /// A project with exactly these files.
    pub(crate) fn of_files(folders: impl IntoIterator<Item = String>, files: &BTreeMap<String, Vec<u8>>) -> Self {
        let project = Self::empty();
        for folder in folders {
            fs::create_dir_all(project.at(&folder)).unwrap();
        }
        for (path, bytes) in files {
            fs::write(project.at(path), bytes).unwrap();
        }
        project
    }

    fn empty() -> Self {
        let project = Self::new();
        fs::remove_dir_all(project.at("data")).unwrap();
        fs::remove_file(project.at("pipeline.yaml")).unwrap();
        project
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path below the folder, with or without a slash before it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.at("data/store")
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    /// Every file below a folder, by its path in the project.
    pub(crate) fn files(&self, below: &str) -> BTreeMap<String, Vec<u8>> {
        fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    found
                        .insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.path(), &self.at(below), &mut found);
        found
    }

    /// The program, in a process of its own, in this project.
    pub(crate) fn spawn(&self, args: &[&str], faults: &Faults) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "run_as_child", "--ignored", "--nocapture", "--test-threads=1"]);
        // Nothing from outside: no git, no tracking server, no shared data.
        command.env_clear().env(ARGUMENTS, args.join("\n")).current_dir(self.path());
        if !faults.is_empty() {
            command.env("LD_PRELOAD", library()).env("FAULT_ROOT", self.path());
            command.envs(faults.iter().map(|(name, value)| (name, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn run_with(&self, args: &[&str], faults: &Faults) -> Ended {
        Ended::of(self.spawn(args, faults))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, &Vec::new())
    }

    /// The calls that the program makes, in their order.
    pub(crate) fn calls(&self, args: &[&str], with_data: bool) -> (Ended, Vec<Call>) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut faults = vec![("FAULT_LOG", log.path().to_str().unwrap().to_owned())];
        if with_data {
            faults.push(("FAULT_DATA", "1".to_owned()));
        }
        let ended = self.run_with(args, &faults);
        (ended, Call::parse(&fs::read(log.path()).unwrap()))
    }

    /// What is wrong with what the store would serve: nothing, ever. Blobs that nothing needs may be torn by a power cut, and a blob
    /// that was moved to the quarantine is missing, and known to be.
    pub(crate) fn wrongly_served(&self, expected: &Results, torn_blobs: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let moved: String = self.files("data/store/quarantine").into_keys().collect();
        let is_moved = |digest: &Digest| moved.contains(&digest.to_hex());
        let store = match Store::open_read_only(&self.store()) {
            Ok(store) => store,
            Err(error) => return vec![format!("the store does not open: {error}")],
        };
        for key in store.keys().unwrap() {
            match store.lookup(&key).unwrap() {
                Lookup::Hit(manifest) => {
                    for (name, output) in &manifest.outputs {
                        if let Err(error) = store.read(output) {
                            wrong.push(format!("{name} of a hit: {error}"));
                        }
                        let digest = expected.by_key.get(&key.to_hex()).and_then(|outputs| outputs.get(name.as_str()));
                        if digest.is_some_and(|digest| *digest != output.digest.to_hex()) {
                            wrong.push(format!("{name} of {} has other bytes than in a clean run", key.short()));
                        }
                    }
                }
                Lookup::Miss(Miss::Output { digest, .. }) if is_moved(&digest) => {}
                Lookup::Miss(miss) => wrong.push(format!("there is a manifest of {}, but {miss}", key.short())),
            }
        }
        for problem in store.verify().unwrap().problems {
            let tolerated = match &problem.kind {
                ProblemKind::Blob { .. } => torn_blobs,
                ProblemKind::Output { digest, .. } => is_moved(digest),
                _ => false,
            };
            if !tolerated {
                wrong.push(format!("verify: {}: {}", problem.path.display(), problem.kind));
            }
        }
        wrong
    }

    /// Collects everything but the results, whatever its age.
    pub(crate) fn collect_leftovers(&self) -> GcReport {
        let mut store = Store::open_to_collect(&self.store()).unwrap();
        let roots = store.keys().unwrap();
        let now = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
        store.gc(|| Ok(roots), GcOptions { grace: std::time::Duration::ZERO, now, dry_run: false }).unwrap()
    }

    /// What dead processes have left in the store, in files.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let is_left = |path: &&String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            ["/tmp/", "/locks/", "/leases/"].iter().any(|folder| path.contains(folder))
                || ["format.", ".stat_cache-", ".ecgpipe-"].iter().any(|prefix| name.starts_with(prefix))
        };
        self.files("").keys().filter(is_left).cloned().collect()
    }
}

const ARGUMENTS: &str = "ECGPIPE_TEST_ARGUMENTS";

/// The other half of [`Project::spawn`]: never returns.
pub(crate) fn be_the_program() {
    let Ok(arguments) = env::var(ARGUMENTS) else { return };
    let cli = Cli::parse_from(["ecgpipe"].into_iter().chain(arguments.lines()));
    let infer = |_: &_| Err(Failure { message: "there is no model here".to_owned(), help: None, exit: Exit::Usage });
    let code = dispatch(
        cli,
        &Wiring { registry: stages::registry(&BTreeMap::new()), infer, beat_class: |_| None, mv_per_unit: |_| None },
    );
    let number = (0..=u8::MAX).find(|&number| ExitCode::from(number) == code).unwrap();
    std::process::exit(number.into());
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The lines of stdout that are JSON.
    pub(crate) events: Vec<Value>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), signal: output.status.signal(), events, stdout, stderr }
    }

    #[track_caller]
    pub(crate) fn exits(self, codes: &[i32]) -> Self {
        assert!(self.code.is_some_and(|code| codes.contains(&code)), "{self:?}");
        self
    }

    /// Jobs that a run has found, computed, failed and skipped.
    pub(crate) fn counts(&self) -> Option<[u64; 4]> {
        let last = self.events.iter().rev().find(|event| event["event"] == "finished")?;
        Some(["hits", "computed", "failed", "skipped"].map(|name| last["counts"][name].as_u64().unwrap()))
    }

    /// The jobs that were computed.
    pub(crate) fn computed(&self) -> Vec<String> {
        self.events.iter().filter(|event| event["event"] == "computed").map(|event| event["job"].to_string()).collect()
    }
}

/// What a run gives: the digests of every job's outputs, and the published files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) by_key: BTreeMap<String, BTreeMap<String, String>>,
    by_job: BTreeMap<String, Value>,
    published: BTreeMap<String, Vec<u8>>,
}

impl Results {
    /// Those of a run that has ended, in its project.
    pub(crate) fn of(ended: &Ended, project: &Project) -> Self {
        let mut results = Self::default();
        for event in ended.events.iter().filter(|event| event["event"] == "hit" || event["event"] == "computed") {
            results.by_job.insert(event["job"].to_string(), event["outputs"].clone());
            let outputs = serde_json::from_value(event["outputs"].clone()).unwrap();
            results.by_key.insert(event["key"].as_str().unwrap().to_owned(), outputs);
        }
        results.published = project.files("models").into_iter().chain(project.files("out")).collect();
        results
    }

    /// Those of a clean run over the raw files of a project.
    pub(crate) fn clean(project: &Project) -> Self {
        let fresh = Project::empty();
        for (path, bytes) in project.files("data/texts").into_iter().chain(project.files("pipeline.yaml")) {
            fresh.write(&path, bytes);
        }
        fresh.write("pipeline.yaml", fs::read(project.at("pipeline.yaml")).unwrap());
        let ended = fresh.run(&RUN).exits(&[0]);
        Self::of(&ended, &fresh)
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.by_job == other.by_job && self.published == other.published
    }

    /// A published file is there whole or not at all, beside nothing else.
    pub(crate) fn wrongly_published(&self, project: &Project, earlier: &Self) -> Vec<String> {
        let files = project.files("models").into_iter().chain(project.files("out"));
        let wrong = files.filter(|(path, bytes)| {
            self.published.get(path) != Some(bytes) && earlier.published.get(path) != Some(bytes)
        });
        wrong.map(|(path, _)| format!("{path} is neither what it was nor what it is to be")).collect()
    }
}

/// One call of a process that touched a file of the project.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) second: String,
    pub(crate) errno: i32,
    /// The file was emptied when it was opened.
    pub(crate) empties: bool,
    pub(crate) data: Vec<u8>,
}

impl Call {
    fn parse(mut log: &[u8]) -> Vec<Self> {
        let mut calls = Vec::new();
        while let Some(end) = log.iter().position(|&byte| byte == b'\n') {
            let line = std::str::from_utf8(&log[..end]).unwrap();
            let [name, path, second, errno, empties, data_n] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let data_n: usize = data_n.parse().unwrap();
            let (data, rest) = log[end + 1..].split_at(data_n);
            log = rest;
            calls.push(Self {
                name: name.to_owned(),
                path: path.to_owned(),
                second: second.to_owned(),
                errno: errno.parse().unwrap(),
                empties: empties == "1",
                data: data.to_owned(),
            });
        }
        calls
    }

    /// What names this kind of file in every process: the folder in the store, or the name without its random part.
    fn needle(&self) -> String {
        let path = if self.second.is_empty() { &self.path } else { &self.second };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some((_, rest)) = path.split_once("/data/store/")
            && let Some((folder, _)) = rest.split_once('/')
        {
            return format!("/store/{folder}/");
        }
        if let Some(prefix) = ["format.", ".stat_cache-", ".ecgpipe-"].iter().find(|prefix| name.starts_with(**prefix))
        {
            return format!("{folder}/{prefix}");
        }
        match path.strip_prefix("/runs/").map(|rest| rest.split_once('/')) {
            Some(Some((_, rest))) => format!("/{rest}"),
            Some(None) => "/runs/".to_owned(),
            None => path.clone(),
        }
    }
}

/// Where a fault strikes: the k-th call of a name whose paths contain a needle.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) call: String,
    pub(crate) needle: String,
    pub(crate) k: usize,
}

impl Position {
    pub(crate) fn strike(&self, kind: &str) -> Faults {
        let Self { call, needle, k } = self;
        vec![("FAULT_AT", format!("{call} {needle} {k}")), ("FAULT_KIND", kind.to_owned())]
    }
}

/// Every position of one kind of call, with the path that was touched. How often the disk is synced depends on the speed of the
/// machine (publications that come close together share a sync), so of those only the first counts.
pub(crate) fn positions(calls: &[Call], name: &str) -> Vec<(Position, String)> {
    let mut found = Vec::new();
    for (idx, call) in calls.iter().enumerate().filter(|(_, call)| call.name == name) {
        let needle = call.needle();
        let before = calls[..idx].iter().filter(|other| {
            other.name == call.name && (other.path.contains(&needle) || other.second.contains(&needle))
        });
        let k = before.count() + 1;
        if k == 1 || !["syncfs", "readdir"].contains(&name) {
            found.push((Position { call: call.name.clone(), needle, k }, call.path.clone()));
        }
    }
    found
}
