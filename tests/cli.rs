//! The program itself, from the command line, in a project of its own: exit codes, messages, what a bad input does and what
//! is left behind. One test, one behaviour; what a single module does is tested in the module.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ended;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use ended::Ended;
use expect_test::expect_file;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ecgpipe");

/// Three patients as a WFDB database in `data/raw/clinic`.
const MAKE: &str = "
seed: 3
stages:
  raw: {uses: synthesise, with: {patients_n: 3, duration_s: 20}}
publish: {data/raw/clinic/: raw.raw}
";

/// What reads it.
const READ: &str = "
stages:
  ingest: {uses: ingest_wfdb, with: {database: clinic}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals, annotations: ingest.annotations}, with: {peaks: detected}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  rhythm: {uses: rhythm, in: {beats: peaks.beats}}
";

/// From a database to a small model in about a second.
const TRAIN: &str = "
name: small
seed: 3
stages:
  ingest: {uses: ingest_wfdb, with: {database: clinic}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals, annotations: ingest.annotations}, with: {peaks: detected}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  normalise: {uses: normalise, in: {windows: windows.windows}}
  rhythm: {uses: rhythm, in: {beats: peaks.beats}}
  split: {uses: split, in: {beats: peaks.beats}}
  train:
    uses: train_baseline
    in: {windows: normalise.windows, features: rhythm.features, split: split.split}
    with: {iterations: 20}
  export:
    uses: export_onnx
    in: {model: train.model, windows: normalise.windows, features: rhythm.features, split: split.split}
    with: {engine: tract}
publish:
  models/ecg_model.onnx: export.onnx
  data/test_samples/: export.samples
";

impl Ended {
    /// The sums of a run with `--json`: hits, computed, failed, skipped.
    #[track_caller]
    fn counts(&self) -> [u64; 4] {
        let last: Value = serde_json::from_str(self.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "finished");
        ["hits", "computed", "failed", "skipped"].map(|name| last["counts"][name].as_u64().unwrap())
    }
}

/// A project in a folder of its own.
struct Project {
    folder: PathBuf,
    /// Removes the folder at the end, if it is a temporary one.
    _temporary: Option<TempDir>,
}

impl Project {
    fn new() -> Self {
        let temporary = TempDir::new().unwrap();
        Self { folder: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// A project with the database of [`MAKE`] and [`READ`] as `read.yaml`.
    fn with_database() -> Self {
        let project = Self::new();
        project.write("make.yaml", MAKE);
        project.write("read.yaml", READ);
        project.run(&["make.yaml"]).exits(0);
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        for variable in ["ECGPIPE_DATA", "ECGPIPE_STORE", "ECGPIPE_REMOTE", "MLFLOW_TRACKING_URI"] {
            command.env_remove(variable);
        }
        command.current_dir(&self.folder).args(args).stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Ended {
        Ended::new(self.command(args).output().unwrap())
    }

    /// `ecgpipe run --offline`.
    fn run(&self, args: &[&str]) -> Ended {
        self.call(&[&["run", "--offline"], args].concat())
    }

    /// Changes a file's bytes.
    fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(path)).unwrap();
        change(&mut bytes);
        fs::write(self.path(path), bytes).unwrap();
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

// Pipeline files.

/// Every file in `tests/fixtures/invalid` against the `.stderr` beside it (`UPDATE_EXPECT=1` writes them). Its first line
/// may give further arguments: `# args: --set a.b=c`.
#[test]
fn every_error_of_a_pipeline_file_is_shown_with_its_place() {
    let folder = repository().join("tests/fixtures/invalid");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() > 10);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let project = Project::new();
        let name = file.file_name().unwrap().to_str().unwrap();
        project.write(name, &text);
        let args: Vec<&str> = text
            .lines()
            .find_map(|line| line.strip_prefix("# args: "))
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let checked = project.call(&[&["check", name], args.as_slice()].concat()).exits(2);
        assert_eq!(checked.stdout, "", "{name}");
        expect_file![file.with_extension("stderr")].assert_eq(&checked.stderr);

        let run = project.run(&[&[name], args.as_slice()].concat()).exits(2);
        assert_eq!(run.stderr, checked.stderr, "{name}: `run` says the same");
        let left: Vec<_> = fs::read_dir(project.path("")).unwrap().collect();
        assert_eq!(left.len(), 1, "{name}: nothing was started: {left:?}");

        let json = project.call(&[&["check", "--json", name], args.as_slice()].concat()).exits(2).json();
        let shown: Vec<&str> = checked.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let errors = json["errors"].as_array().unwrap();
        let messages: Vec<&str> = errors.iter().map(|error| error["message"].as_str().unwrap()).collect();
        assert_eq!(messages, shown, "{name}");
    }
}

/// Every file in `tests/fixtures/warned` against the `.stderr` beside it.
#[test]
fn a_warning_is_shown_with_its_place_and_fails_no_check() {
    let file = repository().join("tests/fixtures/warned/doubtful.yaml");
    let project = Project::new();
    project.write("doubtful.yaml", fs::read_to_string(&file).unwrap());
    let checked = project.call(&["check", "doubtful.yaml"]).exits(0).prints(&["ok, 16 nodes", "7 warnings"]);
    expect_file![file.with_extension("stderr")].assert_eq(&checked.stderr);
    let json = project.call(&["check", "--json", "doubtful.yaml"]).exits(0).json();
    let shown: Vec<&str> = checked.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    let warnings = json["warnings"].as_array().unwrap();
    let messages: Vec<&str> = warnings.iter().map(|warning| warning["message"].as_str().unwrap()).collect();
    assert_eq!(messages, shown);
    assert!(warnings.iter().all(|warning| warning["span"]["line"].is_u64()));
    assert_eq!((json["ok"].as_bool(), json["errors"].as_array().map(Vec::len)), (Some(true), Some(0)));
}

#[test]
fn several_files_and_folders_are_checked_at_once() {
    let project = Project::new();
    project.write("make.yaml", MAKE);
    project.write("all/read.yaml", READ);
    project.write("all/bad.yml", "stages: {raw: {uses: synthesize}}");
    project.write("all/note.txt", "no pipeline");
    let good = ["make.yaml: ok, 1 nodes", "all/read.yaml: ok, 4 nodes"];
    project.call(&["check", "make.yaml", "all"]).exits(2).prints(&good).says(&["all/bad.yml:1:22"]);
    let json = project.call(&["check", "--json", "make.yaml", "all"]).exits(2).json();
    let files: Vec<(&str, bool)> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["file"].as_str().unwrap(), file["ok"].as_bool().unwrap()))
        .collect();
    assert_eq!(files, [("make.yaml", true), ("all/bad.yml", false), ("all/read.yaml", true)]);
    fs::create_dir(project.path("empty")).unwrap();
    project.call(&["check", "empty"]).exits(2).says(&["the folder empty has no pipeline file"]);
}

#[test]
fn what_the_headers_say_is_checked_before_the_first_stage_runs() {
    let project = Project::new();
    let header =
        |name: &str, hz: u32, unit: &str| format!("{name} 1 {hz} 4\n{name}.dat 16 200/{unit} 12 0 0 0 0 MLII\n");
    for (name, hz, unit) in [("fast", 360, "mV"), ("slow", 25, "mV"), ("odd", 360, "mmHg")] {
        project.write(&format!("data/raw/clinic/{name}.hea"), header(name, hz, unit));
        project.write(&format!("data/raw/clinic/{name}.dat"), "12345678");
        project.write(&format!("data/raw/clinic/{name}.atr"), "\0\0");
    }
    project.write("data/raw/clinic/RECORDS", "fast\nslow\nodd\n");
    project.write("read.yaml", READ);
    let problems = [
        "read.yaml:4:45",
        "stage `peaks`: the sampling frequency is too low to find QRS complexes: record slow has 25 Hz",
        "stage `peaks`: the lead to read is not in mV, uV, nV or V: record odd: lead `MLII` is in `mmHg`",
        "stage `windows`: the lead to read is not in mV",
    ];
    project.run(&["read.yaml"]).exits(2).says(&problems);
    let split = "\n  split: {uses: split, in: {beats: peaks.beats}, with: {strategy: ds1_ds2}}\n";
    project.write("split.yaml", format!("{}{split}", READ.trim_end()));
    project.run(&["split.yaml", "--set", "ingest.records=[fast]"]).exits(2).says(&[
        "stage `split`: the split names records that are not in the input: 101, 106, 108, 109, 112 and 39 more",
        "help: give these records to the source stage",
    ]);
    let stored_n = fs::read_dir(project.path("data/store/manifests")).map_or(0, Iterator::count);
    assert_eq!(stored_n, 0, "nothing was computed");
}

#[test]
fn every_pipeline_of_the_repository_is_right() {
    let mut checked_n = 0;
    for entry in fs::read_dir(repository().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            // In the repository, where the plugins that they use are.
            let args = ["-C", repository().to_str().unwrap(), "check", path.to_str().unwrap()];
            Project::new().call(&args).exits(0).prints(&[": ok, "]);
            checked_n += 1;
        }
    }
    assert!(checked_n >= 3);
}

#[test]
fn the_generated_files_are_fresh() {
    let project = Project::new();
    let schema = project.call(&["stages", "--schema"]).exits(0).stdout;
    let committed = fs::read_to_string(repository().join("pipelines/schema.json")).unwrap_or_default();
    assert_eq!(committed.trim(), schema.trim(), "renew it: ecgpipe stages --schema > pipelines/schema.json");
    let catalogue = project.call(&["stages", "--catalogue"]).exits(0).stdout;
    let readme = fs::read_to_string(repository().join("stages/README.md")).unwrap_or_default();
    assert!(readme.contains(catalogue.trim()), "renew the catalogue in stages/README.md: ecgpipe stages --catalogue");
}

#[test]
fn a_file_that_is_not_there_and_a_wrong_command_line_exit_with_2() {
    let project = Project::new();
    project.call(&["check", "nothing.yaml"]).exits(2).says(&["nothing.yaml"]);
    project.call(&["chek", "nothing.yaml"]).exits(2).says(&["chek"]);
    project.call(&["-C", "nowhere", "runs", "list"]).exits(2).says(&["failed to enter the project folder nowhere"]);
    project.write("make.yaml", MAKE);
    project.run(&["make.yaml", "--target", "rwa"]).exits(2).says(&["has no stage `rwa`", "did you mean `raw`?"]);
    project.run(&["make.yaml", "--force", "rwa"]).exits(2).says(&["`rwa`"]);
    assert!(!project.path("runs").exists());
}

// Runs.

#[test]
fn a_second_run_computes_nothing_and_writes_nothing() {
    let project = Project::with_database();
    let first = project.run(&["read.yaml", "--json"]).exits(0);
    assert_eq!(first.counts(), [0, 12, 0, 0]);
    for line in first.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
    }
    assert_eq!(project.run(&["read.yaml", "--json"]).exits(0).counts(), [12, 0, 0, 0]);
    assert_eq!(project.run(&["make.yaml", "--quiet"]).exits(0).stderr, "");
    project.run(&["make.yaml"]).exits(0).says(&["finished: 3 cached, 0 computed"]);
}

#[test]
fn the_stages_before_a_target_run_alone() {
    let project = Project::with_database();
    assert_eq!(project.run(&["read.yaml", "--target", "peaks", "--json"]).exits(0).counts(), [0, 6, 0, 0]);
    assert_eq!(project.run(&["read.yaml", "--json"]).exits(0).counts(), [6, 6, 0, 0]);
    assert_eq!(project.run(&["read.yaml", "--force", "peaks", "--json"]).exits(0).counts(), [9, 3, 0, 0]);
    let set = ["read.yaml", "--set", "windows.length_n=200", "--json"];
    assert_eq!(project.run(&set).exits(0).counts(), [9, 3, 0, 0]);
}

#[test]
fn a_device_is_set_for_every_stage_that_trains_on_one() {
    let project = Project::with_database();
    let ended = project.run(&["read.yaml", "--device", "cpu"]).exits(2);
    ended.says(&["no stage of this pipeline trains on a device"]);
    project.run(&["read.yaml", "--device", "gpu"]).exits(2).says(&["possible values: cpu, cuda, wgpu"]);
    let network = TRAIN.replace("train_baseline", "train_cnn");
    project.write("train.yaml", network.replace("iterations: 20", "epochs: 1, require_every_class: false"));
    project.run(&["train.yaml", "--device", "cpu", "--target", "train"]).exits(0);
    let run = fs::read_dir(project.path("runs")).unwrap().find_map(|entry| {
        fs::read_to_string(entry.unwrap().path().join("run.json")).ok().filter(|run| run.contains("train.yaml"))
    });
    assert!(run.unwrap().contains("train.device=cpu"));
    // The processor is what is meant without the option.
    let again = project.run(&["train.yaml", "--target", "train", "--json"]).exits(0);
    assert_eq!(again.counts()[1], 0, "{}", again.stdout);
    if !cfg!(feature = "cuda") {
        let set = ["train.yaml", "--device", "cuda", "--target", "train"];
        project.run(&set).exits(2).says(&["built without `cuda`", "--features cuda", "--device cpu"]);
    }
}

#[test]
fn a_database_that_is_missing_offline_is_one_error_with_every_way_out() {
    let project = Project::new();
    project.write("read.yaml", READ.replace("clinic", "mitdb"));
    let ended = project.run(&["read.yaml"]).exits(3);
    assert_eq!(ended.stderr.matches("error: ").count(), 1, "{}", ended.stderr);
    ended.says(&[
        "database mitdb",
        "data/raw/mitdb",
        "ECGPIPE_DATA",
        "https://physionet.org/files/mitdb/1.0.0/",
        "help: ",
    ]);
}

#[test]
fn a_record_that_the_database_lacks_is_named() {
    let project = Project::with_database();
    let ended = project.run(&["read.yaml", "--set", "ingest.records=[p001, p009]"]).exits(3);
    ended.says(&["`p009`", "help: the database has p001, p002, p003"]);
}

/// Damages a raw file of p002 and runs: the error must say `texts`, and with `--keep-going` the other records be done.
#[track_caller]
fn check_bad_record(file: &str, damage: impl Fn(&mut Vec<u8>), texts: &[&str]) {
    let project = Project::with_database();
    project.change(&format!("data/raw/clinic/{file}"), damage);
    let ended = project.run(&["read.yaml", "--keep-going", "--json"]).exits(1);
    assert_eq!(ended.counts(), [0, 8, 1, 3], "p001 and p003 are done");
    let mut events = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let failed = events.find(|event| event["event"] == "failed").unwrap();
    assert_eq!(failed["job"], serde_json::json!({"node": "ingest", "record": "p002"}));
    let again = project.run(&["read.yaml", "--keep-going"]).exits(1);
    again.says(
        &[&["error: ingest[p002]: ", file, "help: ", "failed: 8 cached, 0 computed, 1 failed, 3 not run"], texts]
            .concat(),
    );
}

#[test]
fn a_truncated_signal_file_is_refused() {
    check_bad_record(
        "p002.dat",
        |bytes| bytes.truncate(1000),
        &["record p002 needs 21600 bytes", "has 1000, 20600 too few"],
    );
}

#[test]
fn a_flipped_byte_in_a_signal_file_is_refused() {
    check_bad_record("p002.dat", |bytes| bytes[500] ^= 0x10, &["checksum", "p002"]);
}

#[test]
fn a_corrupt_annotation_file_is_refused() {
    check_bad_record(
        "p002.atr",
        |bytes| bytes[2..4].fill(0xff),
        &["byte 2: AUX gives 1023 bytes", "the file is damaged"],
    );
}

#[test]
fn a_truncated_annotation_file_is_refused() {
    check_bad_record("p002.atr", |bytes| bytes.truncate(7), &["byte 2", "the file has only 3 more"]);
}

#[test]
fn a_header_that_claims_more_than_there_is_is_refused_at_once() {
    let claim = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replacen("p002 2 360 7200", "p002 2 360 99999999999", 1).into_bytes();
    };
    let project = Project::with_database();
    project.change("data/raw/clinic/p002.hea", claim);
    let ended = project.run(&["read.yaml", "--keep-going"]).exits(1);
    ended.says(&["error: ingest[p002]: p002.dat: record p002 needs 299999999997 bytes", "but the file has 21600"]);
}

/// Changes the header of p002 so that nothing may start: exit 3, and the error must say `texts`.
#[track_caller]
fn check_bad_header(from: &str, to: &str, texts: &[&str]) {
    let project = Project::with_database();
    project.change("data/raw/clinic/p002.hea", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replacen(from, to, 1).into_bytes();
    });
    project.run(&["read.yaml"]).exits(3).says(&[&["record p002", "data/raw/clinic/p002.hea"], texts].concat());
}

#[test]
fn an_absurd_header_is_refused_before_anything_starts() {
    check_bad_header("p002 2 360", "p002 100000 360", &[":1:6: ", "`100000` is more than the limit"]);
    check_bad_header("p002 2 360", "p002 two 360", &[":1:6: ", "`two`"]);
    check_bad_header("p002 2 360", "p002 2 -360", &[":1:8: ", "`-360`"]);
}

#[test]
fn a_path_in_a_header_that_leaves_the_folder_is_refused() {
    check_bad_header("p002.dat", "../p001.dat", &[":2:1: ", "`../p001.dat`", "leaves"]);
    check_bad_header("p002.dat", "/etc/passwd", &[":2:1: ", "`/etc/passwd`"]);
}

#[test]
fn missing_files_of_a_record_are_named() {
    for (file, text) in [("p002.dat", "the header names this signal file"), ("p002.atr", "`annotations: optional`")] {
        let project = Project::with_database();
        fs::remove_file(project.path("data/raw/clinic").join(file)).unwrap();
        project.run(&["read.yaml"]).exits(3).says(&["record p002", file, text]);
    }
}

#[test]
fn a_disk_that_takes_no_more_fails_the_job_and_loses_nothing() {
    let project = Project::new();
    project.write("make.yaml", MAKE);
    // Files of at most 12 kB: the record with one lead fits, those with two do not. The limit would otherwise end the program
    // by a signal, as no full disk does.
    let script = format!("trap '' XFSZ; ulimit -f 24; exec {PROGRAM} run --offline --keep-going --jobs 1 make.yaml");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(project.path(""))
        .env_remove("ECGPIPE_STORE")
        .env_remove("MLFLOW_TRACKING_URI");
    let limited = Ended::new(shell.output().unwrap());
    let limited = limited.exits(1);
    let error = "error: raw[p002]: write data/store/tmp/";
    assert_eq!(
        limited.stderr.matches("File too large").count(),
        2,
        "p002 and p003, each said once: {}",
        limited.stderr
    );
    limited.says(&[error, "1 computed, 2 FAILED"]);
    assert!(!project.path("data/raw/clinic").exists(), "half a database is not published");
    project.call(&["cache", "verify"]).exits(0).prints(&["1 results and 1 blobs", "0 problems"]);
    assert_eq!(project.run(&["make.yaml", "--json"]).exits(0).counts(), [1, 2, 0, 0]);
}

#[test]
fn a_target_that_cannot_be_written_fails_the_run_and_keeps_its_results() {
    let project = Project::new();
    project.write("make.yaml", MAKE);
    project.write("data/raw/clinic", "a file where a folder is wanted");
    project.run(&["make.yaml"]).exits(3).says(&["error: failed to write ", "data/raw/clinic/p001."]);
    fs::remove_file(project.path("data/raw/clinic")).unwrap();
    assert_eq!(project.run(&["make.yaml", "--json"]).exits(0).counts(), [3, 0, 0, 0]);
}

#[test]
fn a_damaged_artifact_is_never_published_and_computed_anew_by_the_same_run() {
    let project = Project::with_database();
    let shown = project.call(&["runs", "show", "--json"]).exits(0).json();
    let digest = shown["jobs"][0]["outputs"]["raw"].as_str().unwrap().to_owned();
    let blob = format!("data/store/blobs/{}/{digest}", &digest[..2]);
    fs::set_permissions(project.path(&blob), PermissionsExt::from_mode(0o644)).unwrap();
    project.change(&blob, |bytes| bytes[100] ^= 1);
    let signals = fs::read(project.path("data/raw/clinic/p001.dat")).unwrap();
    fs::remove_file(project.path("data/raw/clinic/p001.dat")).unwrap();
    let says = ["failed to publish data/raw/clinic", "damaged", "computed again", "2 cached, 1 computed"];
    project.run(&["make.yaml"]).exits(0).says(&says);
    assert!(fs::read(project.path("data/raw/clinic/p001.dat")).unwrap() == signals);
}

/// Some seconds of work in one core.
const LONG: &str = "
stages:
  raw: {uses: synthesise, with: {patients_n: 40, duration_s: 600}}
";

/// Starts `ecgpipe run --json` and gives its process once a first job has been computed.
fn start_long_run(project: &Project) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    project.write("long.yaml", LONG);
    let mut command = project.command(&["run", "--offline", "--json", "--jobs", "1", "long.yaml"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("{\"event\":\"computed\"") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the run ended before it computed anything");
    }
    (child, stdout)
}

#[test]
fn an_interrupt_stops_a_run_cleanly_and_the_next_one_continues() {
    let project = Project::new();
    let (child, mut stdout) = start_long_run(&project);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let stopped =
        Ended { stdout: rest, ..Ended::new(output) }.exits(130).says(&["stopping: waiting for the running jobs"]);
    let [hits, computed, failed, skipped] = stopped.counts();
    assert!(
        hits == 0 && computed >= 1 && failed == 0 && computed + skipped == 40 && skipped > 0,
        "{:?}",
        stopped.counts()
    );
    project.call(&["runs", "show"]).exits(0).prints(&["status    cancelled"]);
    assert_eq!(project.run(&["long.yaml", "--json"]).exits(0).counts(), [computed, 40 - computed, 0, 0]);
}

#[test]
fn a_killed_run_leaves_nothing_to_repair() {
    let project = Project::new();
    let (mut child, _stdout) = start_long_run(&project);
    child.kill().unwrap();
    child.wait().unwrap();
    project.call(&["runs", "list"]).exits(0).prints(&["unfinished"]);
    let [hits, computed, failed, skipped] = project.run(&["long.yaml", "--json"]).exits(0).counts();
    assert_eq!((hits + computed, failed, skipped), (40, 0, 0));
    project.call(&["cache", "verify"]).exits(0).prints(&["0 problems"]);
}

#[test]
fn two_runs_at_once_compute_each_key_once() {
    let project = Project::new();
    project.write("make.yaml", MAKE.replace("patients_n: 3", "patients_n: 12"));
    let spawn = || {
        let mut command = project.command(&["run", "--offline", "--json", "make.yaml"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [spawn(), spawn()];
    let sums = children.map(|child| Ended::new(child.wait_with_output().unwrap()).exits(0).counts());
    assert_eq!(sums[0][1] + sums[1][1], 12, "{sums:?}");
    assert_eq!(sums[0][0] + sums[1][0], 12, "{sums:?}");
    assert_eq!(fs::read_dir(project.path("data/raw/clinic")).unwrap().count(), 36, "no temporary file is left");
}

// The other verbs.

#[test]
fn runs_are_listed_shown_and_compared() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.run(&["read.yaml", "--set", "windows.length_n=200"]).exits(0);
    let list = project.call(&["runs", "list", "--json"]).exits(0).json();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    project.call(&["runs", "list"]).exits(0).prints(&ids).prints(&["finished", "windows.length_n=200"]);

    let show = project.call(&["runs", "show", "latest", "--json"]).exits(0).json();
    assert_eq!((show["run"]["id"].as_str(), show["params"]["windows.length_n"].as_str()), (Some(ids[2]), Some("200")));
    assert_eq!(show["jobs"].as_array().unwrap().len(), 12);
    project.call(&["runs", "show", ids[1]]).exits(0).prints(&[
        ids[1],
        "0 cached, 12 computed",
        "windows.length_n",
        "187",
    ]);

    let diff = project.call(&["runs", "diff", ids[1], ids[2], "--json"]).exits(0).json();
    assert_eq!(diff["params"], serde_json::json!([{"name": "windows.length_n", "a": "187", "b": "200"}]));
    assert_eq!(diff["nodes_with_other_outputs"], serde_json::json!(["windows"]));
    project.call(&["runs", "diff", ids[1], ids[2]]).exits(0).prints(&[
        "windows.length_n",
        "187",
        "200",
        "jobs with other outputs",
        "windows  3 ",
    ]);
    project.call(&["runs", "show", "nothing"]).exits(3).says(&["nothing"]);
}

#[test]
fn runs_are_sorted_filtered_and_cut() {
    let project = Project::with_database();
    for length in ["150", "200", "99"] {
        project.run(&["read.yaml", "--set", &format!("windows.length_n={length}")]).exits(0);
    }
    let lengths = |args: &[&str]| -> Vec<String> {
        let list = project.call(&[&["runs", "list", "--json"], args].concat()).exits(0).json();
        let length = |run: &Value| run["values"]["windows.length_n"].as_str().unwrap_or("-").to_owned();
        list.as_array().unwrap().iter().map(length).collect()
    };
    assert_eq!(lengths(&["--columns", "windows.length_n"]), ["-", "150", "200", "99"], "oldest first");
    assert_eq!(lengths(&["--sort", "windows.length_n"]), ["-", "99", "150", "200"], "as numbers, not as text");
    assert_eq!(lengths(&["--sort", "windows.length_n", "--desc", "--limit", "2"]), ["200", "150"]);
    assert_eq!(lengths(&["--where", "windows.length_n>=150", "--where", "status=finished"]), ["150", "200"]);
    assert_eq!(lengths(&["--where", "windows.length_n!=150", "--limit", "1"]), ["99"]);
    assert_eq!(lengths(&["--where", "pipeline=make", "--columns", "windows.length_n"]), ["-"]);
    let table = project.call(&["runs", "list", "--columns", "windows.length_n,status"]).exits(0).stdout;
    assert!(
        table.starts_with("run ") && table.lines().next().unwrap().ends_with("windows.length_n  status"),
        "{table}"
    );
    let wrong = project.call(&["runs", "list", "--sort", "windows.lenght_n"]).exits(2);
    wrong.says(&["no run has a parameter, metric or column `windows.lenght_n`", "did you mean `windows.length_n`?"]);
    project.call(&["runs", "list", "--where", "status"]).exits(2).says(&["--where status", "help: write `--where "]);
}

#[test]
fn a_diff_says_which_stages_differ_and_why() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.change("data/raw/clinic/p002.hea", |bytes| bytes.extend(b"# a comment that nobody reads\n"));
    let args = ["read.yaml", "--set", "windows.length_n=200", "--set", "ingest.exclude=[p003]"];
    project.run(&args).exits(0);
    let list = project.call(&["runs", "list", "--json"]).exits(0).json();
    let id = |idx: usize| list[idx]["id"].as_str().unwrap();
    let diff = ["runs", "diff", id(1), id(2)];
    let json = project.call(&[diff.as_slice(), &["--json"]].concat()).exits(0).json();
    let why: BTreeMap<&str, Vec<&str>> = json["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let why = node["why"].as_array().unwrap().iter().map(|why| why.as_str().unwrap());
            (node["node"].as_str().unwrap(), why.collect())
        })
        .collect();
    assert!(why["ingest"].iter().any(|why| why.starts_with("ingest.exclude")), "{why:?}");
    assert!(why["ingest"].contains(&"records only in a: p003"), "{why:?}");
    assert!(why["windows"].contains(&"windows.length_n 187 -> 200"), "{why:?}");
    assert_eq!(json["raw_files"].as_array().unwrap().len(), 4, "p002.hea and the three of p003: {}", json["raw_files"]);
    assert_eq!((&json["counts"]["a"]["computed"], &json["counts"]["b"]["hits"]), (&12.into(), &3.into()));
    project.call(&diff).exits(0).prints(&["windows.length_n", "jobs with other outputs", "records only in a: p003"]);
    project.call(&["runs", "show", "latest"]).exits(0).prints(&["started   ", "param.length_n 187 -> 200", "set  "]);
}

// Sweeps.

#[test]
fn a_sweep_computes_what_its_points_share_once_and_ends_in_a_table() {
    let project = Project::with_database();
    let args = ["sweep", "--offline", "read.yaml", "--set", "windows.length_n=150,187,200"];
    let dry = project.call(&[args.as_slice(), &["--dry-run"]].concat()).exits(0);
    dry.prints(&["3 points, 36 jobs, 18 of them different: 0 cached, 18 to compute", "windows.length_n=200"]);
    assert_eq!(fs::read_dir(project.path("runs")).unwrap().count(), 1, "a dry run is no run");

    let swept = project.call(&args).exits(0);
    let swept = swept.says(&["point 3 of 3: windows.length_n=200", "finished: 9 cached, 3 computed; runs/"]);
    assert_eq!(swept.stdout.lines().count(), 4, "{}", swept.stdout);
    let list = project.call(&["runs", "list", "--json", "--where", "point>=1"]).exits(0).json();
    let runs = list.as_array().unwrap();
    let computed: Vec<u64> = runs.iter().map(|run| run["counts"]["computed"].as_u64().unwrap()).collect();
    assert_eq!(computed, [12, 3, 3]);
    assert_eq!(runs[1]["sets"], serde_json::json!(["windows.length_n=187"]));
    let id = runs[0]["sweep"]["id"].as_str().unwrap();
    project.call(&["runs", "show", id]).exits(0).prints(&[id, "windows.length_n", runs[2]["id"].as_str().unwrap()]);
    project.call(&["runs", "list"]).exits(0).prints(&[id]);

    let again = project.call(&[args.as_slice(), &["--json", "--set", "rhythm.remark=1"]].concat());
    again.exits(2).says(&["`rhythm` has no parameter `remark`"]);
    let again = project.call(&[args.as_slice(), &["--json"]].concat()).exits(0).json();
    let cached = again["points"].as_array().unwrap().iter().map(|point| point["status"].as_str().unwrap());
    assert_eq!(cached.collect::<Vec<_>>(), ["finished"; 3]);
    assert_eq!(project.run(&["read.yaml", "--set", "windows.length_n=150", "--json"]).exits(0).counts(), [12, 0, 0, 0]);
}

#[test]
fn a_point_that_fails_does_not_stop_the_others() {
    let project = Project::with_database();
    project.change("data/raw/clinic/p002.dat", |bytes| bytes.truncate(1000));
    let args = ["sweep", "--offline", "--jobs", "1", "read.yaml", "--set", "ingest.exclude=[],[p002],[p001]", "--json"];
    let statuses = |ended: &Ended| -> Vec<String> {
        let points = ended.json()["points"].as_array().unwrap().clone();
        points.iter().map(|point| point["status"].as_str().unwrap().to_owned()).collect()
    };
    let swept = project.call(&args).exits(1);
    assert_eq!(statuses(&swept), ["failed", "finished", "failed"]);
    swept.says(&["error: ingest[p002]", "1 of 3 points finished"]);
    let fast = project.call(&[args.as_slice(), &["--fail-fast"]].concat()).exits(1);
    assert_eq!(statuses(&fast), ["failed", "not run", "not run"]);

    let missing = [&args[..5], &["--set", "ingest.records=[p001],[p009]"]].concat();
    let runs_n = fs::read_dir(project.path("runs")).unwrap().count();
    project.call(&missing).exits(3).says(&["`p009`", "note: at `ingest.records=[p009]`"]);
    assert_eq!(fs::read_dir(project.path("runs")).unwrap().count(), runs_n, "nothing was started");
}

#[test]
fn an_interrupted_sweep_continues() {
    let project = Project::new();
    project.write("long.yaml", LONG);
    let args = ["sweep", "--offline", "--jobs", "1", "long.yaml", "--set", "raw.duration_s=5,600", "--json"];
    let mut command = project.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("point 2 of 2") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the sweep ended before its second point");
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let drained = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let output = child.wait_with_output().unwrap();
    drained.join().unwrap().unwrap();
    let stopped = Ended::new(output).exits(130).json();
    assert_eq!(
        (&stopped["points"][0]["status"], &stopped["points"][1]["status"]),
        (&"finished".into(), &"cancelled".into())
    );
    let finished = project.call(&args).exits(0).json();
    let run = finished["points"][0]["run"].as_str().unwrap();
    let shown = project.call(&["runs", "show", run, "--json"]).exits(0).json();
    assert_eq!(shown["run"]["counts"]["hits"], 40, "the finished point was found");
}

#[test]
fn plan_says_what_would_be_computed_and_why() {
    let project = Project::with_database();
    project
        .call(&["plan", "read.yaml"])
        .exits(0)
        .prints(&["ingest   ingest_wfdb   3     0       3", "not computed before"]);
    project.run(&["read.yaml"]).exits(0);
    let args = ["plan", "read.yaml", "--set", "windows.length_n=200"];
    project.call(&args).exits(0).prints(&["param.length_n 187 -> 200"]);
    let plan = project.call(&[args.as_slice(), &["--json"]].concat()).exits(0).json();
    let cached: BTreeMap<&str, u64> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["node"].as_str().unwrap(), node["cached"].as_u64().unwrap()))
        .collect();
    assert_eq!(cached, BTreeMap::from([("ingest", 3), ("peaks", 3), ("rhythm", 3), ("windows", 0)]));
    project
        .run(&["read.yaml", "--dry-run", "--set", "windows.length_n=200"])
        .exits(0)
        .says(&["dry run: 9 cached, 3 to compute"]);
    assert_eq!(fs::read_dir(project.path("runs")).unwrap().count(), 2, "a plan is no run");
}

#[test]
fn explain_says_which_field_of_a_key_differs() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.run(&["read.yaml", "--set", "windows.length_n=200"]).exits(0);
    project.call(&["explain"]).exits(0).prints(&[
        "peaks[p001]  hit",
        "windows[p001]  computed: param.length_n 187 -> 200",
        "9 of 12 jobs were hits",
    ]);
    project.call(&["explain", "--job", "windows[p001]"]).exits(0).prints(&[
        "param.length_n = 200",
        "stage = window",
        "input.signals = ",
    ]);
    let json = project.call(&["explain", "--job", "ingest[p001]", "--json"]).exits(0).json();
    let fields: Vec<&str> =
        json[0]["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert!(
        ["source.p001.dat", "source.p001.hea", "code", "param.annotator"].iter().all(|name| fields.contains(name)),
        "{fields:?}"
    );
    project.call(&["explain", "--job", "nothing"]).exits(2).says(&["has no job `nothing`"]);
}

#[test]
fn a_failed_run_is_explained_and_does_not_hide_the_last_good_one() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.change("data/raw/clinic/p002.dat", |bytes| bytes.truncate(1000));
    for _ in 0..2 {
        project.run(&["read.yaml"]).exits(1).says(&["[source.p002.dat "]);
    }
    project.run(&["read.yaml", "--set", "ingest.records=[p009]"]).exits(3);
    project.call(&["explain"]).exits(2).says(&["ended before its first job", "help: `ecgpipe runs show "]);
}

#[test]
fn the_cache_is_measured_verified_repaired_and_cleaned() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.call(&["cache", "stats"]).exits(0).prints(&["ingest_wfdb", "synthesise", "all"]);
    let stats = project.call(&["cache", "stats", "--json"]).exits(0).json();
    assert_eq!(stats["manifests_n"], 15);
    project.call(&["cache", "verify"]).exits(0).prints(&["15 results", "0 problems"]);
    assert_eq!(project.call(&["cache", "verify", "--json"]).exits(0).json()["problems"], serde_json::json!([]));

    let gc = ["cache", "gc", "--keep-runs", "1", "--grace-hours", "0"];
    project.call(&gc).exits(0).prints(&["removed 0 results"]);
    project.run(&["read.yaml", "--set", "windows.length_n=200"]).exits(0);
    project.call(&[gc.as_slice(), &["--dry-run"]].concat()).exits(0).prints(&["would remove 3 results"]);
    let report = project.call(&[gc.as_slice(), &["--json"]].concat()).exits(0).json();
    assert_eq!(report["manifests"]["files_n"], 3);
    assert_eq!(project.run(&["read.yaml", "--json"]).exits(0).counts(), [9, 3, 0, 0]);

    let jobs = project.call(&["runs", "show", "--json"]).exits(0).json();
    let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"]["node"] == "rhythm").unwrap().clone();
    let digest = job["outputs"]["features"].as_str().unwrap().to_owned();
    let blob = format!("data/store/blobs/{}/{digest}", &digest[..2]);
    fs::set_permissions(project.path(&blob), PermissionsExt::from_mode(0o644)).unwrap();
    project.change(&blob, |bytes| bytes[100] ^= 1);
    project.call(&["cache", "verify"]).exits(1).prints(&[&digest, "help: `ecgpipe cache verify --repair`"]);
    project.call(&["cache", "verify", "--repair"]).exits(1).prints(&["moved to "]);
    project.call(&["cache", "verify"]).exits(0).prints(&["0 problems"]);
    assert_eq!(project.run(&["read.yaml", "--json"]).exits(0).counts(), [11, 1, 0, 0]);
    project.call(&["cache", "gc", "--grace-hours", "NaN"]).exits(2).says(&["--grace-hours"]);
}

#[test]
fn a_folder_that_is_not_a_store_is_never_touched() {
    let project = Project::with_database();
    project.write("home/letter.txt", "dear reader");
    project.run(&["read.yaml", "--store", "home"]).exits(3).says(&["it is not a store", "letter.txt", "help: "]);
    assert_eq!(fs::read_dir(project.path("home")).unwrap().count(), 1);
    project.run(&["read.yaml", "--store", "elsewhere"]).exits(0);
    assert!(project.path("elsewhere/blobs").is_dir());
}

#[test]
fn a_cache_is_shared_through_a_remote() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.call(&["cache", "push", "shared", "--dry-run"]).exits(0).prints(&["would send 15 results", "0 were there"]);
    assert!(!project.path("shared").exists());
    project.call(&["cache", "push", "shared", "--run", "latest"]).exits(0).prints(&["sent 12 results"]);
    let report = project.call(&["cache", "push", "shared", "--json"]).exits(0).json();
    assert_eq!([&report["results_n"], &report["present_n"]], [3, 12]);
    assert_eq!(report["put_if_absent"], true);

    // A fresh clone: another store, no runs.
    let fresh = ["read.yaml", "--store", "fresh", "--remote", "shared"];
    let planned = project.call(&[&["plan", "--offline", "--json"], fresh.as_slice()].concat()).exits(0).json();
    assert!(planned.as_array().unwrap().iter().all(|node| node["to_compute"] == 0 && node["cached"] == node["jobs"]));
    let ran = project.run(&[fresh.as_slice(), &["--json"]].concat()).exits(0);
    assert_eq!(ran.counts(), [12, 0, 0, 0]);
    ran.prints(&["12 results came from shared"]);
    project
        .call(&["cache", "pull", "shared", "--store", "fresh"])
        .exits(0)
        .prints(&["brought 3 results", "12 were here"]);

    // A run that sends what it computed.
    let changed = ["read.yaml", "--set", "windows.length_n=200", "--remote", "shared"];
    project.run(&[changed.as_slice(), &["--push"]].concat()).exits(0).says(&["3 results sent to shared"]);
    let ran = project.run(&[changed.as_slice(), &["--store", "other", "--json"]].concat()).exits(0);
    assert_eq!(ran.counts(), [12, 0, 0, 0]);

    project.call(&["cache", "pull", "elsewhere"]).exits(3).says(&["elsewhere: there is none", "help: "]);
    project.call(&["cache", "push", "data/store"]).exits(3).says(&["ecgpipe-store 1", "help: "]);
    project.call(&["cache", "push", "gs://bucket/x"]).exits(2).says(&["gs://bucket/x", "help: "]);
    project.run(&["read.yaml", "--push"]).exits(2).says(&["--remote"]);
    project
        .run(&["read.yaml", "--remote", "read.yaml", "--store", "third", "--quiet"])
        .exits(0)
        .says(&["without its remote"]);
}

#[test]
fn a_damaged_remote_is_named_and_repaired() {
    let project = Project::with_database();
    project.run(&["read.yaml"]).exits(0);
    project.call(&["cache", "push", "shared"]).exits(0);
    let jobs = project.call(&["runs", "show", "--json"]).exits(0).json();
    let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"]["node"] == "rhythm").unwrap().clone();
    let digest = job["outputs"]["features"].as_str().unwrap().to_owned();
    project.change(&format!("shared/blobs/{}/{digest}", &digest[..2]), |bytes| bytes[100] ^= 1);
    let pull = ["cache", "pull", "shared", "--store", "fresh"];
    project.call(&pull).exits(1).prints(&["brought 14 results", "--verify"]).says(&[&digest, "not brought"]);
    project.call(&["cache", "push", "shared"]).exits(0).prints(&["sent 0 results"]);
    project.call(&["cache", "push", "shared", "--verify"]).exits(1).says(&[&digest, "it is replaced"]);
    project.call(&pull).exits(0).prints(&["brought 1 results", "14 were here"]);
}

#[test]
fn stages_are_listed_and_shown() {
    let project = Project::new();
    project.call(&["stages"]).exits(0).prints(&["detect_peaks", "train_cnn", "window"]);
    project.call(&["stages", "window"]).exits(0).prints(&[
        "### window",
        "in `signals`",
        "out `windows`",
        "`length_n`",
        "187",
    ]);
    project.call(&["stages", "windw"]).exits(2).says(&["there is no stage `windw`", "did you mean `window`?"]);
}

#[test]
fn a_pipeline_is_drawn() {
    let project = Project::new();
    project.write("read.yaml", READ);
    let mermaid = ["flowchart", "ingest<br/><i>ingest_wfdb</i>", "-->|beats|"];
    project.call(&["graph", "read.yaml", "--format", "mermaid"]).exits(0).prints(&mermaid);
    project.call(&["graph", "read.yaml", "--format", "dot"]).exits(0).prints(&["digraph", "ingest_wfdb", "->"]);
    project.call(&["graph", "read.yaml", "-o", "graph.svg"]).exits(0);
    let svg = fs::read_to_string(project.path("graph.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("ingest_wfdb") && svg.trim_end().ends_with("</svg>"), "{svg}");
}

// A model, from the raw files to its findings.

/// A project with a trained model, made once for all tests that use it, one after the other. Its folder is where cargo
/// keeps what tests make, and stays there: nobody knows which test is the last.
fn trained(test: impl FnOnce(&Project)) {
    static TRAINED: Mutex<Option<Project>> = Mutex::new(None);
    let mut slot = TRAINED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A test that fails does not put the project back, so that no other finds what it has left half done.
    let project = slot.take().unwrap_or_else(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let project = Project { folder, _temporary: None };
        let make = MAKE.replace("patients_n: 3, duration_s: 20", "patients_n: 16, duration_s: 60");
        project.write("make.yaml", make);
        project.write("train.yaml", TRAIN);
        project.run(&["make.yaml"]).exits(0);
        project.run(&["train.yaml"]).exits(0);
        project
    });
    test(&project);
    *slot = Some(project);
}

#[test]
fn a_model_is_traced_to_the_raw_bytes() {
    trained(|project| {
        let trace = ["trace", "models/ecg_model.onnx"];
        let texts =
            ["pipeline `small`, seed 3", "ingest (ingest_wfdb", "database: \"clinic\"", "raw files: 48 of 16 records"];
        project.call(&trace).exits(0).prints(&texts);
        let json = project.call(&[trace.as_slice(), &["--json"]].concat()).exits(0).json();
        let sources = &json["provenance"]["sources"];
        let digest = ecgpipe::digest::Digest::of(&fs::read(project.path("data/raw/clinic/p001.dat")).unwrap()).to_hex();
        assert_eq!(sources["p001"]["p001.dat"], Value::String(digest));
        let stages = json["provenance"]["stages"].as_object().unwrap();
        let names: Vec<&String> = stages.keys().collect();
        assert_eq!(names, ["export", "ingest", "normalise", "peaks", "rhythm", "split", "train", "windows"]);

        project.call(&[trace.as_slice(), &["--verify"]].concat()).exits(0).prints(&["48 of 48 raw files are the same"]);
        let verify = [trace.as_slice(), &["--full", "--verify", "data/raw/clinic"]].concat();
        let ended = project.call(&verify).exits(0);
        assert_eq!(ended.stdout.matches("  same").count(), 48);
        project.change("data/raw/clinic/p003.dat", |bytes| bytes[10] ^= 1);
        fs::rename(project.path("data/raw/clinic/p004.atr"), project.path("p004.atr")).unwrap();
        let ended = project.call(&verify).exits(1);
        project.change("data/raw/clinic/p003.dat", |bytes| bytes[10] ^= 1);
        fs::rename(project.path("p004.atr"), project.path("data/raw/clinic/p004.atr")).unwrap();
        let verdict = |text: &str| ended.stdout.lines().filter(|line| line.ends_with(text)).count();
        assert_eq!((verdict("  same"), verdict("  DIFFERS"), verdict("  MISSING")), (46, 1, 1), "{}", ended.stdout);
    });
}

#[test]
fn a_trained_model_is_derived_again_to_the_last_bit() {
    trained(|project| {
        project.call(&["reproduce", "--jobs", "1"]).exits(0).prints(&["outputs have the same digests"]);
    });
}

#[test]
fn a_file_that_was_not_published_cannot_be_traced() {
    let project = Project::new();
    project.write("foreign.onnx", [0x08, 0x08]);
    project.write("text.onnx", "no protobuf at all");
    project.call(&["trace", "foreign.onnx"]).exits(2).says(&["foreign.onnx carries no provenance"]);
    project.call(&["trace", "text.onnx"]).exits(2).says(&["text.onnx is not an ONNX file"]);
    project.call(&["trace", "missing.onnx"]).exits(3).says(&["failed to read missing.onnx"]);
}

#[test]
fn a_published_model_that_was_damaged_or_deleted_is_restored() {
    trained(|project| {
        let path = project.path("models/ecg_model.onnx");
        let model = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(project.run(&["train.yaml", "--json"]).exits(0).counts()[1], 0);
        assert!(fs::read(&path).unwrap() == model, "restored");
        project.change("models/ecg_model.onnx", |bytes| bytes.truncate(100));
        assert_eq!(project.run(&["train.yaml", "--json"]).exits(0).counts()[1], 0);
        assert!(fs::read(&path).unwrap() == model, "restored");
    });
}

#[test]
fn points_do_not_overwrite_the_published_model_and_the_best_one_can_be_published() {
    trained(|project| {
        let model = fs::read(project.path("models/ecg_model.onnx")).unwrap();
        let args = ["sweep", "--offline", "train.yaml", "--set", "train.iterations=1,30", "--json"];
        let sorted = [args.as_slice(), &["--sort", "train/accuracy"]].concat();
        let swept = project.call(&sorted).exits(0).json();
        assert!(fs::read(project.path("models/ecg_model.onnx")).unwrap() == model, "as it was");
        let points = swept["points"].as_array().unwrap();
        let accuracy = |idx: usize| points[idx]["metrics"]["train/accuracy"].as_f64().unwrap();
        assert!(accuracy(0) > accuracy(1), "best first: {points:?}");
        assert_eq!(points[0]["varied"]["train.iterations"], "30");
        let of_point = |idx: usize| {
            let run = points[idx]["run"].as_str().unwrap();
            fs::read(project.path(&format!("runs/{run}/published/models/ecg_model.onnx"))).unwrap()
        };
        assert!(of_point(0) != of_point(1));

        let best = project.call(&[args.as_slice(), &["--publish-best", "train/accuracy:max"]].concat()).exits(0).json();
        assert!(fs::read(project.path("models/ecg_model.onnx")).unwrap() == of_point(0));
        let run = project.call(&["runs", "show", best["published_by"].as_str().unwrap(), "--json"]).exits(0).json();
        assert_eq!(
            (&run["run"]["counts"]["computed"], &run["run"]["sets"][0]),
            (&0.into(), &"train.iterations=30".into())
        );
        project
            .call(&[args.as_slice(), &["--publish-best", "no/metric"]].concat())
            .exits(1)
            .says(&["nothing is published"]);
        project.run(&["train.yaml"]).exits(0);
    });
}

#[test]
fn a_record_gives_findings_in_every_format() {
    trained(|project| {
        let infer =
            |format: &str| project.call(&["infer", "--offline", "data/raw/clinic/p002", "--format", format]).exits(0);
        infer("text").prints(&["FINDINGS FOR REVIEW", "p002"]);
        let json = infer("json").json();
        assert_eq!(
            (json["record"]["name"].as_str(), json["record"]["sampling_frequency_hz"].as_f64()),
            (Some("p002"), Some(360.0))
        );
        let csv = infer("csv").stdout;
        assert!(csv.starts_with("beat_idx,sample_idx,time_s,class,probability,") && csv.lines().count() > 30, "{csv}");
        project
            .call(&["infer", "--offline", "data/test_samples/sample_n.npy"])
            .exits(0)
            .prints(&["WINDOWS FOR REVIEW", "1 of 187 samples"]);
    });
}

/// A `.npy` file, format version 1.0.
fn npy(shape: &str, kind: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let padded = format!("{head:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.write_all(padded.as_bytes()).unwrap();
    bytes.extend(data);
    bytes
}

#[test]
fn a_bad_array_is_refused_with_what_is_wrong() {
    let five: Vec<u8> = std::iter::repeat_n(5.0_f32.to_le_bytes(), 187).flatten().collect();
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("text", b"no array at all".to_vec(), &["not a .npy file", "numpy.save"]),
        ("shape", npy("(1, 1, 100)", "<f4", &[0; 400]), &["the shape is (1, 1, 100)", "(N, 1, 187)"]),
        ("cut", npy("(1, 1, 187)", "<f4", &[0; 100]), &["needs 748 bytes of data, the file has 100"]),
        ("huge", npy("(99999999999, 1, 187)", "<f4", &[0; 748]), &["needs 74799999999252 bytes"]),
        ("type", npy("(1, 1, 187)", "<U1", &[0; 748]), &["`<U1`", "32- or 64-bit floats"]),
        ("range", npy("(1, 1, 187)", "<f4", &five), &["sample 0 of window 0 is 5, outside [0, 1]"]),
    ];
    trained(|project| {
        for (name, bytes, texts) in &cases {
            let file = format!("bad/{name}.npy");
            project.write(&file, bytes);
            project
                .call(&["infer", "--offline", &file])
                .exits(3)
                .says(&[&["error: ", &file, "help: "], *texts].concat());
        }
    });
}

#[test]
fn a_model_that_is_not_ours_is_refused() {
    // A graph that flattens (n, 1, 5) into (n, 5), made with onnx 1.23 by
    // make_graph([make_node("Flatten", ["ecg"], ["logits"])], "g", [make_tensor_value_info("ecg", FLOAT, ["n", 1, 5])],
    // [make_tensor_value_info("logits", FLOAT, ["n", 5])]) and make_model(graph, ir_version=8).
    const FOREIGN: &[u8] = b"\x08\x08:R\n\x16\n\x03ecg\x12\x06logits\"\x07Flatten\x12\x01gZ\x1a\n\x03ecg\x12\x13\n\x11\x08\x01\
                             \x12\r\n\x03\x12\x01n\n\x02\x08\x01\n\x02\x08\x05b\x19\n\x06logits\x12\x0f\n\r\x08\x01\x12\t\n\x03\
                             \x12\x01n\n\x02\x08\x05B\x04\n\x00\x10\r";
    trained(|project| {
        project.write("bad/foreign.onnx", FOREIGN);
        project.write("bad/text.onnx", [0xff, 0xfe, b'h', b'i']);
        let model = fs::read(project.path("models/ecg_model.onnx")).unwrap();
        project.write("bad/cut.onnx", &model[..model.len() / 2]);
        for (file, text) in [
            ("foreign", "ecgpipe did not write it"),
            ("text", "not an ONNX file"),
            ("cut", "not an ONNX file"),
            ("missing", "there is no such model"),
        ] {
            let file = format!("bad/{file}.onnx");
            let args = ["infer", "--offline", "data/test_samples/sample_n.npy", "--model", &file];
            project.call(&args).exits(3).says(&["error: ", &file, text, "help: "]);
        }
        project.call(&["infer", "--offline", "data/raw/clinic/none"]).exits(3).says(&["record none", "help: "]);
        project
            .call(&["infer", "--offline", "data/raw/clinic/p001", "--lead", "XX"])
            .exits(3)
            .says(&["there is no lead `XX`", "MLII"]);
    });
}

/// A plugin that hands the recording on, and one that is broken.
fn project_with_plugins() -> Project {
    let project = Project::with_database();
    let yaml = "name: hand_on\nsummary: Hands the recording on.\ncommand: [sh, hand_on.sh]\n\
                inputs: {signals: {kind: signals, cardinality: each, doc: The recording.}}\n\
                outputs: {signals: {kind: signals, cardinality: each, doc: The same.}}\n\
                params: {fail: {type: boolean, default: false, doc: Whether it fails.}}\n";
    let script = "echo working >&2\nif grep -q '\"fail\": true' job.json; then exit 3; fi\n\
                  cp inputs/signals.parquet outputs/\necho '{\"format\": 1}' >result.json\n";
    for (path, text) in [
        ("stages/hand_on/stage.yaml", yaml),
        ("stages/hand_on/hand_on.sh", script),
        ("stages/broken/stage.yaml", "name: broken\ncomand: [sh]\n"),
    ] {
        fs::create_dir_all(project.folder.join(path).parent().unwrap()).unwrap();
        project.write(path, text);
    }
    let pipeline = READ.replace("windows:", "same: {uses: hand_on, in: {signals: ingest.signals}}\n  windows:");
    project.write("plugin.yaml", pipeline.replace("window, in: {signals: ingest", "window, in: {signals: same"));
    project
}

#[test]
fn a_plugin_is_a_stage_like_any_other() {
    let project = project_with_plugins();
    project
        .call(&["stages"])
        .exits(0)
        .prints(&["hand_on", "Hands the recording on.", "window"])
        .says(&["warning: the plugin `broken` cannot be used", "stages/broken/stage.yaml:2:1"]);
    project.call(&["stages", "hand_on"]).exits(0).prints(&["`fail`", "`signals` of each record"]);
    project.call(&["stages", "broken"]).exits(2).says(&["did you mean `command`?"]);
    project.call(&["stages", "--schema"]).exits(0).prints(&["hand_on"]);
    assert!(!project.call(&["stages", "--schema", "--built-in"]).exits(0).stdout.contains("hand_on"));
    project.call(&["check", "plugin.yaml"]).exits(0);
    project.call(&["run", "plugin.yaml"]).exits(0);
    assert_eq!(project.call(&["run", "plugin.yaml", "--json"]).exits(0).counts()[1], 0);
    project.call(&["run", "plugin.yaml", "--set", "same.fail=true"]).exits(1).says(&[
        "the program ended with exit code 3",
        "working",
        "/logs/same[",
    ]);
}

#[test]
fn stages_in_processes_of_their_own_give_the_same_results() {
    let project = project_with_plugins();
    project.call(&["run", "plugin.yaml", "--isolate"]).exits(0);
    // Every key and every result is the same: nothing is left to compute in this process.
    assert_eq!(project.call(&["run", "plugin.yaml", "--json"]).exits(0).counts()[1], 0);
    let forced = ["run", "plugin.yaml", "--json", "--force", "ingest", "--force", "peaks", "--force", "windows"];
    let ended = project.call(&forced).exits(0);
    assert!(ended.counts()[1] > 0);
    assert!(!ended.stdout.contains("not deterministic"), "{}", ended.stdout);
}

#[test]
fn a_worker_without_a_job_says_so() {
    Project::new().call(&["worker", "job.json"]).exits(3).says(&["failed to read job.json"]);
}
