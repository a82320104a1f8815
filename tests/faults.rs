//! The promises under faults, tested by force: the whole program, with small stages, in a process of its own, is killed at every
//! step, has its power cut, finds a disk that is full, broken or read-only at every call, and files with every kind of damage.
//! After each: nothing wrong is served, the next run completes without a hand being lent, and equals a clean run byte for byte.
//!
//! A case is an operation, a fault and a position. Each test counts its cases and compares with `docs/faults.md`, which says what
//! is promised and what is not. The faults come from a library between the program and the C library (`faults/interpose.c`): the
//! program has no hooks for it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "faults/machine.rs"]
mod machine;
#[path = "faults/power.rs"]
mod power;
#[path = "engine/stages.rs"]
#[expect(dead_code, reason = "the tests of the engine use the rest")]
mod stages;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use ecgpipe::store::Store;
use machine::{Call, Ended, Faults, JOB_N, Position, Project, RUN, Results, positions};
use power::{FATES, Fate, Machine};

/// The other half of the tests that start processes.
#[test]
#[ignore = "the program, as a child of the other tests"]
fn run_as_child() {
    machine::be_the_program();
}

/// Does all cases, some at a time, and reports all that fail. The number of cases must be the one that stands in the docs.
#[track_caller]
#[expect(clippy::print_stderr, reason = "the number of cases is part of what a test says")]
fn check_all<C: Sync>(
    test: &str,
    cases: &[C],
    name: impl Fn(&C) -> String + Sync,
    check: impl Fn(&C) -> Vec<String> + Sync,
) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker_n = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..worker_n {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = check(case);
                    if !wrong.is_empty() {
                        failures.lock().unwrap().push(format!("{}:\n    {}", name(case), wrong.join("\n    ")));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    eprintln!("{test}: {} cases", cases.len());
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
    let documented = documented_cases(test);
    assert_eq!(documented, Some(cases.len()), "the number of cases of {test} in docs/faults.md");
}

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The number in the last column of the row of docs/faults.md that names the test.
fn documented_cases(test: &str) -> Option<usize> {
    let docs = repository("docs/faults.md");
    let row = docs.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{test}`")))?;
    last_number(row)
}

/// The number in the last column of a row.
fn last_number(row: &str) -> Option<usize> {
    let (_, number) = row.strip_suffix('|')?.rsplit_once('|')?;
    number.trim().replace(',', "").parse().ok()
}

/// Something that the program does, and what must come of it.
struct Operation {
    name: &'static str,
    /// The project before it.
    before: Project,
    args: Vec<&'static str>,
    /// What stands published before it, and what a clean run gives.
    earlier: Results,
    expected: Results,
    /// How it ends without a fault, and its calls.
    code: Option<i32>,
    calls: Vec<Call>,
    /// The store is damaged before it, so that this may still be found after a fault.
    damaged: bool,
}

impl Operation {
    fn new(name: &'static str, before: Project, args: &[&'static str], damaged: bool) -> Self {
        let expected = Results::clean(&before);
        let earlier = Results::of(
            &Ended { code: None, signal: None, events: vec![], stdout: String::new(), stderr: String::new() },
            &before,
        );
        let (ended, calls) = before.copy().calls(args, false);
        assert!(ended.code.is_some(), "{name} without a fault: {ended:?}");
        assert!(calls.len() > 20, "the library stands between: {calls:?}");
        Self { name, before, args: args.to_vec(), earlier, expected, code: ended.code, calls, damaged }
    }

    /// What the program does to a project, from nothing to gc.
    fn all() -> Vec<Self> {
        let changed = Project::after_a_run();
        changed.write("data/texts/b.txt", "omega psi");
        let with_garbage = Project::after_a_run();
        with_garbage.write("data/texts/b.txt", "omega psi");
        with_garbage.run(&RUN).exits(&[0]);
        let gc = ["cache", "gc", "--keep-runs", "1", "--grace-hours", "0"];
        let mut forced = RUN.to_vec();
        forced.extend(["--force", "export", "--force", "label", "--force", "join"]);
        vec![
            Self::new(FIRST_RUN, Project::new(), &RUN, false),
            Self::new("run that finds everything", Project::after_a_run(), &RUN, false),
            Self::new("run after a change", changed, &RUN, false),
            Self::new("run that finds damage", damaged(), &forced, true),
            Self::new(GC, with_garbage, &gc, false),
            Self::new("cache verify --repair", damaged(), &["cache", "verify", "--repair"], true),
        ]
    }

    /// The operation under faults, then everything that must hold after it. `must` says how it must end.
    fn check(&self, faults: &Faults, must: impl Fn(&Ended) -> Option<String>) -> Vec<String> {
        let project = self.before.copy();
        let ended = project.run_with(&self.args, faults);
        let mut wrong: Vec<String> = must(&ended).into_iter().collect();
        if ended.code == Some(0) && self.args[0] == "run" && !Results::of(&ended, &project).same(&self.expected) {
            wrong
                .push(format!("it says that it has finished, but its results are not those of a clean run: {ended:?}"));
        }
        wrong.extend(self.after(&project, false));
        wrong
    }

    /// What must hold after any fault.
    fn after(&self, project: &Project, torn_blobs: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.damaged {
            wrong.extend(project.wrongly_served(&self.expected, torn_blobs));
        }
        wrong.extend(self.expected.wrongly_published(project, &self.earlier));
        let next = project.run(&RUN);
        if next.code != Some(0) {
            wrong.push(format!("the next run does not complete: {next:?}"));
            return wrong;
        }
        if !Results::of(&next, project).same(&self.expected) {
            wrong.push(format!("the next run is not like a clean one: {next:?}"));
        }
        if self.name == GC && next.counts() != Some([JOB_N, 0, 0, 0]) {
            wrong.push(format!("gc took what the last run needs: {next:?}"));
        }
        if self.damaged {
            Store::open(&project.store()).unwrap().repair().unwrap();
        }
        project.collect_leftovers();
        let left = project.leftovers();
        if !left.is_empty() {
            wrong.push(format!("gc leaves what a dead process has left: {left:?}"));
        }
        wrong.extend(project.wrongly_served(&self.expected, false));
        wrong
    }
}

/// A project with a flipped blob that is read, flipped metrics, a torn manifest and a flipped blob that nobody reads.
fn damaged() -> Project {
    let project = Project::after_a_run();
    let ended = project.run(&RUN).exits(&[0]);
    let output = |node: &str, port: &str| {
        let hit = ended.events.iter().find(|event| event["event"] == "hit" && event["job"]["node"] == node).unwrap();
        (hit["outputs"][port].as_str().unwrap().to_owned(), hit["key"].as_str().unwrap().to_owned())
    };
    for (node, port) in [("join", "text"), ("score", "metrics"), ("score", "text")] {
        let digest = output(node, port).0;
        let path = format!("data/store/blobs/{}/{digest}", &digest[..2]);
        let mut bytes = fs::read(project.at(&path)).unwrap();
        bytes[0] ^= 1;
        project.write(&path, bytes);
    }
    let key = output("label", "text").1;
    let path = format!("data/store/manifests/{}/{key}.json", &key[..2]);
    let bytes = fs::read(project.at(&path)).unwrap();
    project.write(&path, &bytes[..bytes.len() / 2]);
    project
}

/// An operation, a position and a kind of fault.
struct Case<'a> {
    operation: &'a Operation,
    position: machine::Position,
    kind: String,
}

impl Case<'_> {
    fn name(&self) -> String {
        let machine::Position { call, needle, k } = &self.position;
        format!("{}: {} at {call} {needle} {k}", self.operation.name, self.kind)
    }
}

/// Every position of the calls of all operations, with every kind of fault for that call. What is written into the run folder is
/// the same in every run, so only the first operation strikes there.
fn cases<'a>(operations: &'a [Operation], faults: &[(&str, &[&str])]) -> Vec<Case<'a>> {
    operations.iter().flat_map(|operation| cases_of(operation, faults)).collect()
}

fn cases_of<'a>(operation: &'a Operation, faults: &[(&str, &[&str])]) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (call, kinds) in faults {
        for (position, path) in positions(&operation.calls, call) {
            if !path.starts_with("/runs") || operation.name == FIRST_RUN {
                cases.extend(kinds.iter().map(|kind| Case {
                    operation,
                    position: position.clone(),
                    kind: (*kind).to_owned(),
                }));
            }
        }
    }
    cases
}

/// The operation after which the next run finds everything.
const GC: &str = "cache gc";

/// The operation whose run folder is struck, too.
const FIRST_RUN: &str = "first run";

/// A fault that a program should take in its stride.
const INTERRUPTED: &str = "errno 4";
/// `EIO`: the disk is broken.
const BROKEN: &str = "errno 5";
/// `ENOSPC`: no space for this call, but for the next.
const FULL: &str = "errno 28";
/// `EDQUOT`.
const QUOTA: &str = "errno 122";
/// `ENOLCK`.
const NO_LOCKS: &str = "errno 37";
/// `ENOSPC`, half-way through a write, and from there on.
const FULL_HALFWAY: &str = "partial 28";
/// `ENOSPC` from there on.
const FULL_FROM: &str = "from 28";

#[test]
fn a_kill_at_every_step_needs_no_hand() {
    let operations = Operation::all();
    let die: &[&str] = &["kill"];
    let steps = ["create", "rename", "unlink", "mkdir", "utimens"].map(|call| (call, die));
    let faults: Vec<_> = steps.into_iter().chain([("write", &["kill", "tear"][..])]).collect();
    check_all("a_kill_at_every_step_needs_no_hand", &cases(&operations, &faults), Case::name, |case| {
        let killed = |ended: &Ended| (ended.signal != Some(9)).then(|| format!("it was not killed: {ended:?}"));
        case.operation.check(&case.position.strike(&case.kind), killed)
    });
}

/// It may end well, or say what is wrong; it must not crash, hang or fail without a reason.
fn says_why(ended: &Ended) -> Option<String> {
    let said = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
    let reasons = [
        "no space left",
        "quota",
        "input/output error",
        "no locks available",
        "damaged",
        // A folder, and a raw file, of which it cannot be said that they are what they were.
        "file exists",
        "changed while it was being read",
    ];
    let fine = match ended.code {
        Some(0) => true,
        Some(1..=3) => reasons.iter().any(|reason| said.contains(reason)),
        _ => false,
    };
    (!fine || said.contains("panicked") || said.contains("defect")).then(|| format!("it does not say why: {ended:?}"))
}

#[test]
fn a_change_that_fails_is_a_miss_and_not_a_lie() {
    let operations = Operation::all();
    // Every errno somewhere in the first run (what says "full" is asked in one place); then what differs: a call that fails once, and a disk that is full from there on.
    let first = [
        ("create", &[BROKEN, QUOTA, FULL_FROM][..]),
        ("write", &[BROKEN, QUOTA, FULL_HALFWAY]),
        ("rename", &[BROKEN, FULL]),
        ("mkdir", &[BROKEN, FULL]),
        ("unlink", &[BROKEN]),
        ("fsync", &[BROKEN, FULL, QUOTA]),
        ("fdatasync", &[BROKEN, FULL, QUOTA]),
        ("syncfs", &[BROKEN, FULL, QUOTA]),
        ("utimens", &[BROKEN]),
        ("flock", &[NO_LOCKS]),
    ];
    let later = [
        ("create", &[BROKEN, FULL_FROM][..]),
        ("write", &[BROKEN, FULL_HALFWAY]),
        ("rename", &[BROKEN, FULL_FROM]),
        ("unlink", &[BROKEN]),
        ("fsync", &[BROKEN]),
        ("syncfs", &[BROKEN]),
        ("utimens", &[BROKEN]),
        ("flock", &[NO_LOCKS]),
    ];
    let mut all = cases(&operations[..1], &first);
    all.extend(operations[1..].iter().flat_map(|operation| cases_of(operation, &later)));
    check_all("a_change_that_fails_is_a_miss_and_not_a_lie", &all, Case::name, |case| {
        case.operation.check(&case.position.strike(&case.kind), says_why)
    });
}

#[test]
fn a_look_that_fails_is_a_miss_and_not_a_lie() {
    // A run that finds everything looks at nothing that the others do not look at.
    let operations: Vec<_> =
        Operation::all().into_iter().filter(|operation| operation.name != "run that finds everything").collect();
    let faults = ["open", "read", "stat", "opendir", "readdir"].map(|call| (call, &[BROKEN][..]));
    check_all("a_look_that_fails_is_a_miss_and_not_a_lie", &cases(&operations, &faults), Case::name, |case| {
        case.operation.check(&case.position.strike(&case.kind), says_why)
    });
}

#[test]
fn an_interruption_or_half_a_call_changes_nothing() {
    let operations = Operation::all();
    let calls = ["create", "open", "flock", "fsync", "fdatasync", "syncfs"].map(|call| (call, &[INTERRUPTED][..]));
    let faults: Vec<_> =
        calls.into_iter().chain(["read", "write"].map(|call| (call, &[INTERRUPTED, "short"][..]))).collect();
    check_all(
        "an_interruption_or_half_a_call_changes_nothing",
        &cases(&operations[..1], &faults),
        Case::name,
        |case| {
            let clean = case.operation.code;
            let same = |ended: &Ended| (ended.code != clean).then(|| format!("it ends otherwise: {ended:?}"));
            case.operation.check(&case.position.strike(&case.kind), same)
        },
    );
}

// A power cut.

#[test]
fn a_power_cut_loses_at_most_the_work_in_flight() {
    struct Cut {
        operation: usize,
        call: usize,
        fate: Fate,
        left: power::Left,
        /// Everything was durable before.
        kept: bool,
    }
    let operations = Operation::all();
    let mut cuts = Vec::new();
    for (idx, operation) in
        operations.iter().enumerate().filter(|(_, operation)| operation.name != "run that finds everything")
    {
        let project = operation.before.copy();
        let files = project.files("");
        let mut folders = BTreeSet::from([String::new()]);
        for path in files.keys().map(String::as_str).chain([
            "data/store/tmp/",
            "data/store/locks/",
            "data/store/leases/",
            "data/store/quarantine/",
        ]) {
            let folders_of = path.match_indices('/').map(|(end, _)| path[..end].to_owned());
            folders.extend(folders_of.filter(|folder| project.at(folder).is_dir()));
        }
        let mut machine = Machine::new(folders, &files);
        let (ended, calls) = project.calls(&operation.args, true);
        assert_eq!(ended.code, operation.code);
        let renames_manifest = |call: &Call| call.name == "rename" && call.second.contains("/manifests/");
        let last_manifest = calls.iter().rposition(renames_manifest).unwrap_or(calls.len());
        let all_kept = calls.iter().enumerate().position(|(at, call)| call.name == "syncfs" && at > last_manifest);
        for (at, call) in calls.iter().enumerate() {
            let changed = machine.see(call);
            let logged = call.path.ends_with("/events.jsonl") || call.path.contains("/mlflow/");
            if (changed && !logged) || at + 1 == calls.len() {
                cuts.extend(FATES.iter().map(|&fate| Cut {
                    operation: idx,
                    call: at,
                    fate,
                    left: machine.cut(fate, at as u64),
                    kept: all_kept.is_some_and(|kept| at > kept),
                }));
            }
        }
    }
    // Many cuts leave the same; what a process has logged of itself is not compared.
    let seen = Mutex::new(BTreeSet::new());
    let name = |cut: &Cut| format!("{}: {:?} after call {}", operations[cut.operation].name, cut.fate, cut.call);
    check_all("a_power_cut_loses_at_most_the_work_in_flight", &cuts, name, |cut| {
        let (folders, files) = &cut.left;
        let seen_as: BTreeMap<_, _> =
            files.iter().filter(|(path, _)| !path.ends_with("events.jsonl") && !path.contains("/mlflow/")).collect();
        if !seen
            .lock()
            .unwrap()
            .insert(ecgpipe::digest::Digest::of(format!("{} {} {seen_as:?}", cut.operation, cut.kept).as_bytes()))
        {
            return Vec::new();
        }
        let operation = &operations[cut.operation];
        let project = Project::of_files(folders.iter().cloned(), files);
        let mut wrong = operation.after(&project, true);
        if cut.kept && wrong.is_empty() && !operation.damaged {
            let again = Project::of_files(folders.iter().cloned(), files).run(&RUN);
            if again.counts() != Some([JOB_N, 0, 0, 0]) {
                wrong.push(format!("what was promised was lost: {again:?}"));
            }
        }
        // Torn files of a run folder are in nobody's way; every fourth cut says so.
        for args in [&["runs", "list"][..], &["cache", "gc", "--grace-hours", "0", "--keep-runs", "1"]]
            .into_iter()
            .filter(|_| cut.call % 4 == 0)
        {
            let ended = project.run(args);
            if ended.code != Some(0) {
                wrong.push(format!("{args:?}: {ended:?}"));
            }
        }
        wrong
    });
}

// Damage.

/// Flips, cuts and additions at every class of offset of a file: its head, each field, its check, its middle, its tail.
fn damages(path: &str, whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let size = whole.len();
    let mut offsets = BTreeSet::from([0, 1, size / 3, size / 2, size.saturating_sub(2), size.saturating_sub(1)]);
    // The value of each field of JSON, and the check of a manifest; the first entry of the stat cache, field by field.
    offsets
        .extend((1..size).filter(|&at| path.ends_with(".json") && (whole[at - 1] == b':' || whole[at - 1] == b'\n')));
    if path.ends_with("stat_cache") {
        let path_n = usize::from(whole[21]);
        offsets.extend([20, 21, 29]);
        offsets.extend((0..7).map(|field| 29 + path_n + 8 * field));
        offsets.insert(size - 32);
    }
    if path.ends_with("store/format") {
        offsets.extend(0..size);
    }
    let mut damages = vec![
        ("zeros".to_owned(), vec![0; size]),
        ("one byte longer".to_owned(), [whole, b"\n"].concat()),
        ("something else".to_owned(), b"something else".to_vec()),
    ];
    for offset in offsets.into_iter().filter(|&offset| offset < size) {
        damages.push((format!("cut at {offset}"), whole[..offset].to_vec()));
        let mut flipped = whole.to_vec();
        flipped[offset] ^= 1;
        damages.push((format!("flip at {offset}"), flipped));
    }
    damages.retain(|(_, damaged)| damaged != whole);
    damages
}

/// Computes everything but the sources anew, so that every blob with a reader is read.
const FORCED: [&str; 14] = [
    "run",
    "--offline",
    "--json",
    "--jobs",
    "1",
    "pipeline.yaml",
    "--force",
    "tidy",
    "--force",
    "join",
    "--force",
    "label",
    "--force",
    "export",
];

#[test]
fn damage_at_every_offset_is_never_served() {
    let before = Project::after_a_run();
    // Left behind by a process that was killed.
    for path in
        ["leases/4711-0", "locks/0b4be00ae5900223028ae0f200c99247ad35c266e2048c8e0f544b3a637631a2", "tmp/4711-0.0"]
    {
        before.write(&format!("data/store/{path}"), "4711");
    }
    before.write("data/store/gate", "4711");
    let expected = Results::clean(&before);
    let files = before.files("");
    let is_manifest = |path: &str| path.contains("/manifests/");
    // One blob of each node, with the stage that reads it and nothing else anew; metrics and what is published are read by every
    // run that looks for them. Two manifests stand for the others; of a run folder, what is read again.
    let readers = [
        ("read", "text", "tidy"),
        ("tidy", "text", "join"),
        ("join", "text", "export"),
        ("score", "metrics", ""),
        ("label", "text", ""),
        ("export", "onnx", ""),
    ];
    let found = before.copy().run(&RUN).exits(&[0]);
    let readers: BTreeMap<String, &'static str> = readers
        .into_iter()
        .map(|(node, port, reader)| {
            let hit =
                found.events.iter().find(|event| event["event"] == "hit" && event["job"]["node"] == node).unwrap();
            let digest = hit["outputs"][port].as_str().unwrap();
            (format!("data/store/blobs/{}/{digest}", &digest[..2]), reader)
        })
        .collect();
    let mut manifests_n = 0;
    let mut cases = Vec::new();
    for (path, whole) in &files {
        let name = path.rsplit('/').next().unwrap();
        let wanted = if is_manifest(path) {
            manifests_n += 1;
            manifests_n <= 2
        } else if path.contains("/blobs/") {
            readers.contains_key(path)
        } else if path.starts_with("runs/") {
            ["run.json", "jobs.json"].contains(&name) && !path.contains("/mlflow/")
        } else {
            path.starts_with("data/store/")
        };
        if wanted {
            cases.extend(damages(path, whole).into_iter().map(|(name, bytes)| (path.as_str(), name, bytes)));
        }
    }
    let name = |(path, name, _): &(&str, String, Vec<u8>)| format!("{path}: {name}");
    check_all("damage_at_every_offset_is_never_served", &cases, name, |(path, _, bytes)| {
        let mut wrong = Vec::new();
        let project = before.copy();
        project.write(path, bytes);
        let torn_format = path.ends_with("store/format") && bytes.iter().any(|&byte| byte != 0);
        if torn_format {
            let refused = project.run(&RUN);
            if refused.code != Some(3) || !refused.stderr.contains("format") || !refused.stderr.contains("help: ") {
                wrong.push(format!("a store of another format is not refused: {refused:?}"));
            }
            project.write(path, &files[*path]);
        }
        let verified = Store::open_read_only(&project.store()).unwrap().verify().unwrap();
        let is_found = verified.problems.iter().any(|problem| problem.path == project.at(path));
        if is_found != (path.contains("/blobs/") || is_manifest(path)) {
            wrong.push(format!("verify finds {:?}", verified.problems));
        }
        let forced = |reader: &'static str| RUN.into_iter().chain(["--force", reader]).collect::<Vec<_>>();
        let commands = match readers.get(*path) {
            Some(&"") => vec![RUN.to_vec()],
            Some(reader) => vec![forced(reader)],
            None if is_manifest(path) => vec![RUN.to_vec()],
            None => vec![RUN.to_vec(), FORCED.to_vec()],
        };
        for args in commands {
            let mut ended = project.run(&args);
            if readers.contains_key(*path) {
                let said = format!("{}{}", ended.stdout, ended.stderr);
                let known = ["damaged", "bytes instead of"].iter().any(|words| said.contains(words));
                wrong.extend((!known).then(|| format!("nobody was told: {ended:?}")));
                wrong.extend(expected.wrongly_published(&project, &Results::default()));
                if ended.code == Some(3) && said.contains("run again to compute it anew") {
                    ended = project.run(&args);
                }
            }
            if ended.code != Some(0) || !Results::of(&ended, &project).same(&expected) {
                wrong.push(format!("{args:?}: {ended:?}"));
            }
        }
        if path.starts_with("runs/") {
            for args in [&["runs", "list"][..], &["cache", "gc", "--dry-run"]] {
                wrong.extend((project.run(args).code != Some(0)).then(|| format!("{args:?} fails")));
            }
        }
        let mut store = Store::open(&project.store()).unwrap();
        store.repair().unwrap();
        let after = store.verify().unwrap().problems;
        if !after.is_empty() {
            wrong.push(format!("after the repair there is still {after:?}"));
        }
        let now = SystemTime::now() + Duration::from_secs(86_400);
        let roots = store.keys().unwrap();
        store.gc(|| Ok(roots), ecgpipe::store::GcOptions { grace: Duration::ZERO, now, dry_run: false }).unwrap();
        drop(store);
        let left = project.leftovers();
        if !left.is_empty() {
            wrong.push(format!("gc leaves {left:?}"));
        }
        wrong
    });
}

#[test]
fn a_sector_that_cannot_be_read_is_in_nobodys_way() {
    let before = Project::after_a_run();
    let expected = Results::clean(&before);
    let files: Vec<String> = before.files("data").into_keys().filter(|path| !path.contains("/leases/")).collect();
    check_all("a_sector_that_cannot_be_read_is_in_nobodys_way", &files, Clone::clone, |path| {
        let project = before.copy();
        // Until the file is replaced, every read of it fails.
        let position = Position { call: "read".to_owned(), needle: format!("/{path}"), k: 1 };
        let mut wrong = Vec::new();
        for args in [&RUN[..], &FORCED] {
            let mut ended = project.run_with(args, &position.strike("sector 5"));
            if path.contains("/blobs/")
                && ended.code == Some(3)
                && ended.stderr.contains("run again to compute it anew")
            {
                let moved = !project.at(path).exists();
                wrong.extend((!moved).then(|| "what cannot be read is not moved away".to_owned()));
                ended = project.run(args);
            }
            if path.ends_with("store/format") || path.contains("/texts/") {
                // There is nothing to do without these but to say so.
                wrong.extend((ended.code != Some(3)).then(|| format!("it is not refused: {ended:?}")));
                wrong.extend(says_why(&ended));
            } else if ended.code != Some(0) || !Results::of(&ended, &project).same(&expected) {
                wrong.push(format!("{ended:?}"));
            }
        }
        wrong
    });
}

// A disk that takes nothing.

#[test]
fn what_cannot_be_written_is_used_or_refused_before_anything_is_computed() {
    let done = Project::after_a_run();
    let changed = Project::after_a_run();
    changed.write("data/texts/b.txt", "omega psi");
    let fresh = Project::new();
    let gc = &["cache", "gc", "--grace-hours", "0"];
    // The project, what of it is read-only, the command, its exit code, what it says.
    let cases: Vec<(&Project, &str, &[&str], i32, &str)> = vec![
        (&done, "data/store", &RUN, 0, ""),
        (&changed, "data/store", &RUN, 1, "it is read-only"),
        (&fresh, "data", &RUN, 3, "it is read-only"),
        (&done, "", &RUN, 3, "read-only"),
        (&changed, "", &RUN, 3, "read-only"),
        (&fresh, "", &RUN, 3, "read-only"),
        (&done, "", &["run", "--dry-run", "--offline", "pipeline.yaml"], 0, "9 cached, 0 to compute"),
        (&changed, "", &["run", "--dry-run", "--offline", "pipeline.yaml"], 0, "to compute"),
        (&done, "", &["plan", "pipeline.yaml"], 0, ""),
        (&done, "", &["explain"], 0, "9 of 9 jobs were hits"),
        (&done, "", &["cache", "stats"], 0, "all"),
        (&done, "", &["cache", "verify"], 0, "0 problems"),
        (&done, "", gc, 3, "it is read-only"),
        (&done, "", &["cache", "verify", "--repair"], 3, "it is read-only"),
        (&done, "", &["runs", "list"], 0, "finished"),
    ];
    let name = |(_, below, args, ..): &(_, &str, &[&str], _, _)| format!("{args:?} where /{below} is read-only");
    check_all(
        "what_cannot_be_written_is_used_or_refused_before_anything_is_computed",
        &cases,
        name,
        |&(before, below, args, code, text)| {
            let project = before.copy();
            // So that the last run found everything, and its folder says so.
            if args[0] == "explain" {
                project.run(&RUN).exits(&[0]);
            }
            let files = project.files(below);
            let mut faults = vec![("FAULT_KIND", "readonly".to_owned())];
            faults.push(("FAULT_ROOT", project.at(below).to_str().unwrap().trim_end_matches('/').to_owned()));
            let ended = project.run_with(args, &faults);
            let mut wrong = Vec::new();
            if ended.code != Some(code)
                || !format!("{}{}", ended.stdout, ended.stderr).to_lowercase().contains(text)
                || !ended.computed().is_empty()
            {
                wrong.push(format!("it must exit with {code}, say {text:?} and compute nothing: {ended:?}"));
            }
            if code == 0 && args == RUN && !Results::of(&ended, &project).same(&Results::clean(&project)) {
                wrong.push("its results are not those of a clean run".to_owned());
            }
            wrong.extend((project.files(below) != files).then(|| "something was written".to_owned()));
            wrong
        },
    );
}

#[test]
fn gc_frees_a_full_disk() {
    let before = Project::after_a_run();
    before.write("data/texts/b.txt", "omega psi");
    before.run(&RUN).exits(&[0]);
    before.write("data/store/tmp/4711-0.0", "left over");
    before.write("data/store/.stat_cache-x", "left over");
    let gc = ["cache", "gc", "--keep-runs", "1", "--grace-hours", "0", "--json"];
    let cases = [(FULL, false), (QUOTA, false), (FULL, true), (QUOTA, true)];
    check_all(
        "gc_frees_a_full_disk",
        &cases,
        |case| format!("{case:?}"),
        |&(errno, beside_a_run)| {
            let project = before.copy();
            let old = SystemTime::now() - Duration::from_secs(86_400);
            for path in project.files("data/store").keys() {
                File::options().write(true).open(project.at(path)).unwrap().set_modified(old).unwrap();
            }
            let run = beside_a_run.then(|| Store::open(&project.store()).unwrap());
            let report = |ended: Ended| {
                serde_json::from_str::<serde_json::Value>(
                    &ended.stdout[ended.stdout.find('{').unwrap()..ended.stdout.rfind('}').unwrap() + 1],
                )
                .unwrap()
            };
            let dry = report(project.run(&[&gc[..], &["--dry-run"]].concat()).exits(&[0]));
            let count = |what: &str, dry: &serde_json::Value| dry[what]["files_n"].as_u64().unwrap();
            let files_n = |folder: &str| project.files(&format!("data/store/{folder}")).len() as u64;
            let (manifests_n, blobs_n) = (files_n("manifests"), files_n("blobs"));
            let full: Faults = vec![
                ("FAULT_AT", "create /store/leases/ 1".to_owned()),
                ("FAULT_KIND", errno.replace("errno", "from")),
            ];
            let mut wet = report(project.run_with(&gc, &full).exits(&[0]));
            wet["dry_run"] = true.into();
            let mut wrong = Vec::new();
            wrong.extend((wet != dry).then(|| format!("gc said {dry} and did {wet}")));
            wrong.extend(
                (count("manifests", &dry) < 3 || count("temporary", &dry) != 2)
                    .then(|| format!("there is garbage: {dry}")),
            );
            let left = (files_n("manifests"), files_n("blobs"));
            let expected = (manifests_n - count("manifests", &dry), blobs_n - count("blobs", &dry));
            wrong.extend((left != expected).then(|| format!("it left {left:?} instead of {expected:?}")));
            drop(run);
            let next = project.run(&RUN).exits(&[0]);
            wrong
                .extend((next.counts() != Some([JOB_N, 0, 0, 0])).then(|| format!("it took what is needed: {next:?}")));
            wrong
        },
    );
}

// Clocks, orders, threads.

/// What an operation gives must not depend on these.
fn check_circumstances(test: &str, circumstances: &[Faults]) {
    let operations = Operation::all();
    let cases: Vec<(&Operation, &Faults)> =
        operations.iter().flat_map(|operation| circumstances.iter().map(move |faults| (operation, faults))).collect();
    let name = |(operation, faults): &(&Operation, &Faults)| format!("{}: {faults:?}", operation.name);
    check_all(test, &cases, name, |(operation, faults)| {
        let clean = operation.code;
        operation.check(faults, |ended| (ended.code != clean).then(|| format!("it ends otherwise: {ended:?}")))
    });
}

const CLOCKS_S: [i64; 6] = [-315_360_000, -86_400, -7_200, 7_200, 86_400, 315_360_000];

#[test]
fn a_clock_that_is_wrong_changes_no_result() {
    let clocks = CLOCKS_S.map(|shift_s| vec![("FAULT_CLOCK", shift_s.to_string())]);
    check_circumstances("a_clock_that_is_wrong_changes_no_result", &clocks);
}

#[test]
fn the_order_of_a_folder_changes_no_result() {
    let orders = [1, 2, 3, 4].map(|seed| vec![("FAULT_SHUFFLE", seed.to_string())]);
    check_circumstances("the_order_of_a_folder_changes_no_result", &orders);
}

#[test]
fn the_number_of_threads_changes_no_result() {
    let operations = Operation::all();
    let cases: Vec<(&Operation, &'static str)> = operations
        .iter()
        .filter(|operation| operation.args[0] == "run")
        .flat_map(|operation| ["1", "2", "4", "16"].map(|jobs| (operation, jobs)))
        .collect();
    let name = |(operation, jobs): &(&Operation, &str)| format!("{} with {jobs} jobs", operation.name);
    check_all("the_number_of_threads_changes_no_result", &cases, name, |(operation, jobs)| {
        let project = operation.before.copy();
        let mut args = operation.args.clone();
        let at = args.iter().position(|arg| *arg == "--jobs").unwrap();
        args[at + 1] = jobs;
        let ended = project.run(&args);
        let same = ended.code == Some(0) && Results::of(&ended, &project).same(&operation.expected);
        let mut wrong: Vec<String> =
            (!same).then(|| format!("its results are not those of one thread: {ended:?}")).into_iter().collect();
        wrong.extend(operation.after(&project, false));
        wrong
    });
}

// Many processes.

#[test]
#[expect(clippy::print_stderr, reason = "the number of cases is part of what a test says")]
fn runs_side_by_side_compute_each_key_once_beside_gc() {
    const PROCESSES_N: usize = 3;
    const RUNS_N: usize = 6;
    let project = Project::new();
    for record in 0..10 {
        project.write(&format!("data/texts/r{record}.txt"), format!("text number {record}"));
    }
    let remarks: Vec<String> = (0..RUNS_N).map(|run| format!("tidy.remark=r{run}")).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (project, remarks, stop) = (&project, &remarks, &stop);
    let mut computed: BTreeMap<String, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        // They begin at different settings, so that each is sometimes the first and sometimes waits or finds.
        let runs: Vec<_> = (0..PROCESSES_N)
            .map(|process| {
                scope.spawn(move || -> Vec<Ended> {
                    let settings = (0..RUNS_N).map(|run| &remarks[(run + 2 * process) % RUNS_N]);
                    let run = |setting: &String| {
                        let mut args = RUN.to_vec();
                        args[4] = if process == 0 { "1" } else { "3" };
                        args.extend(["--set", setting]);
                        project.run(&args).exits(&[0])
                    };
                    settings.map(run).collect()
                })
            })
            .collect();
        let collected = scope.spawn(move || {
            let mut collections_n = 0;
            while !stop.load(Ordering::Relaxed) {
                project.run(&["cache", "gc", "--keep-runs", "1000", "--grace-hours", "0"]).exits(&[0]);
                collections_n += 1;
            }
            collections_n
        });
        let verified = scope.spawn(move || {
            let mut verifications_n = 0;
            while !stop.load(Ordering::Relaxed) {
                let ended = project.run(&["cache", "verify"]);
                assert_eq!(ended.code, Some(0), "{ended:?}");
                verifications_n += 1;
            }
            verifications_n
        });
        for run in runs {
            for ended in run.join().unwrap() {
                for event in ended.events.iter().filter(|event| event["event"] == "computed") {
                    *computed.entry(event["key"].to_string()).or_default() += 1;
                }
                assert_eq!(ended.counts().map(|[hits, computed, ..]| hits + computed), Some(12 * 3 + 3), "{ended:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        let (collections_n, verifications_n) = (collected.join().unwrap(), verified.join().unwrap());
        assert!(
            collections_n > 2 && verifications_n > 2,
            "{collections_n} collections, {verifications_n} verifications"
        );
    });
    // Each setting makes the first stage's keys its own; its bytes are the same, so the rest is one job for all.
    let keys_n = 12 + RUNS_N * 12 + 12 + 3;
    assert_eq!(computed.len(), keys_n, "nothing is missing");
    let twice: Vec<_> = computed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "computed more than once: {twice:?}");
    assert_eq!(project.wrongly_served(&Results::default(), false), Vec::<String>::new());
    let cases_n = PROCESSES_N * RUNS_N;
    eprintln!("runs_side_by_side_compute_each_key_once_beside_gc: {cases_n} cases");
    assert_eq!(documented_cases("runs_side_by_side_compute_each_key_once_beside_gc"), Some(cases_n));
}

// Garbage collection from the command line.

#[test]
fn gc_keeps_what_a_run_in_flight_and_the_last_good_run_need() {
    let project = Project::after_a_run();
    let gc = ["cache", "gc", "--keep-runs", "1", "--grace-hours", "0"];
    // Runs that were killed, torn by a power cut, or have just begun do not push the last good one out.
    project.write(
        "runs/20990101-000000-texts/run.json",
        project
            .files("runs")
            .iter()
            .find(|(path, _)| path.ends_with("/run.json") && !path.contains("mlflow"))
            .unwrap()
            .1,
    );
    project.write("runs/20990101-000001-texts/run.json", "{");
    project.write("runs/20990101-000002-texts/events.jsonl", "");
    project.write("runs/notes.txt", "not a run");
    project.run(&gc).exits(&[0]);
    assert_eq!(project.run(&RUN).counts(), Some([JOB_N, 0, 0, 0]));
    // A run folder that cannot be listed or read now is not one that needs nothing.
    for (call, needle) in [("opendir", "/runs"), ("readdir", "/runs"), ("open", "/run.json"), ("read", "/jobs.json")] {
        let position = Position { call: call.to_owned(), needle: needle.to_owned(), k: 1 };
        let ended = project.run_with(&gc, &position.strike("errno 5"));
        assert!(
            ended.code == Some(3) && ended.stderr.contains("learn which results are still needed"),
            "{needle}: {ended:?}"
        );
        assert_eq!(project.run(&RUN).counts(), Some([JOB_N, 0, 0, 0]), "{needle}");
    }
    // Sizes by stage are those of the blobs.
    let stats = project.run(&["cache", "stats", "--json"]).exits(&[0]);
    let json: serde_json::Value =
        serde_json::from_str(&stats.stdout[stats.stdout.find('{').unwrap()..stats.stdout.rfind('}').unwrap() + 1])
            .unwrap();
    let on_disk: usize = project.files("data/store/blobs").values().map(Vec::len).sum();
    assert_eq!(json["blob_bytes"], on_disk);
    let by_stage: u64 =
        json["stages"].as_object().unwrap().values().map(|stage| stage["manifests_n"].as_u64().unwrap()).sum();
    assert_eq!(by_stage, JOB_N);
}

/// The sum of the table is what the README says.
#[test]
fn the_readme_has_the_number_of_cases() {
    let docs = repository("docs/faults.md");
    let sum: usize = docs.lines().filter_map(last_number).sum();
    let digits = sum.to_string();
    let (thousands, rest) = digits.split_at(digits.len().saturating_sub(3));
    let text = format!("{thousands},{rest} cases");
    assert!(docs.contains(&text) && repository("README.md").contains(&text), "{text} in docs/faults.md and README.md");
}
