//! `trace`, `explain`, `reproduce` and what they need of `run` and `plan`, on the whole program with the small stages of the
//! engine's tests: this executable starts itself again as `ecgpipe`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the engine's tests use more of these stages than the program needs")]
#[path = "engine/stages.rs"]
mod stages;

mod ended;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Parser;
use ecgpipe::{
    cli::Cli,
    commands::{Failure, Wiring, dispatch},
    digest::Digest,
};
use ended::Ended;
use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = "
name: texts
seed: 7
stages:
  read: {uses: read_text}
  tidy: {uses: tidy, in: {text: read.text}}
  noise: {uses: noise, in: {text: tidy.text}}
  join: {uses: join, in: {texts: tidy.text}}
  label: {uses: label, in: {text: noise.text, joined: join.text}}
  draw: {uses: draw, in: {text: join.text}}
  export: {uses: export, in: {text: join.text}}
publish:
  models/model.onnx: export.onnx
  out/joined.txt: join.text
  out/labels/: label.text
  plots/: draw.files
";

/// Arguments by line; its presence makes this executable the program.
const ARGUMENTS: &str = "ECGPIPE_TEST_ARGUMENTS";
/// Other code identities: `tidy=c1,join=c2`.
const CODES: &str = "ECGPIPE_TEST_CODES";

/// Not a test of its own: the program, when it is asked to be.
#[test]
fn program() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let codes = std::env::var(CODES).unwrap_or_default();
    let codes = codes.split(',').filter_map(|code| code.split_once('='));
    let registry = stages::registry(&codes.map(|(stage, code)| (stage.to_owned(), code.to_owned())).collect());
    let cli =
        Cli::try_parse_from(["ecgpipe"].into_iter().chain(arguments.lines())).unwrap_or_else(|error| error.exit());
    let code = dispatch(
        cli,
        &Wiring { registry, infer: |_| Err(Failure::usage("not here")), beat_class: |_| None, mv_per_unit: |_| None },
    );
    // Without libtest's last words.
    let number = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap();
    std::process::exit(number.into())
}

struct Project {
    folder: TempDir,
    codes: &'static str,
}

impl Project {
    /// Three records, and [`PIPELINE`] as `texts.yaml`.
    fn new() -> Self {
        let project = Self { folder: TempDir::new().unwrap(), codes: "" };
        project.write("texts.yaml", PIPELINE);
        for (record, text) in [("a", "alpha beta"), ("b", "gamma delta"), ("c", "epsilon zeta")] {
            project.write(&format!("data/texts/{record}.txt"), text);
        }
        project
    }

    /// The same after a first run.
    fn run_once() -> Self {
        let project = Self::new();
        project.call(&["run", "texts.yaml"]).exits(0).says(&["0 cached, 15 computed"]);
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("texts.yaml")).unwrap();
        assert!(text.contains(from), "{text}");
        self.write("texts.yaml", &text.replace(from, to));
    }

    fn call(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for variable in ["ECGPIPE_DATA", "ECGPIPE_STORE", "MLFLOW_TRACKING_URI"] {
            command.env_remove(variable);
        }
        command.args(["program", "--exact", "--nocapture", "--quiet"]).current_dir(self.folder.path());
        let output = command.env(ARGUMENTS, args.join("\n")).env(CODES, self.codes).output().unwrap();
        let ended = Ended::new(output);
        // libtest's first words.
        let stdout = ended.stdout.trim_start().strip_prefix("running 1 test\n").unwrap_or(&ended.stdout).to_owned();
        Ended { stdout, ..ended }
    }

    fn latest(&self) -> PathBuf {
        let mut runs: Vec<PathBuf> =
            fs::read_dir(self.path("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs.pop().unwrap()
    }

    fn jobs(&self) -> Vec<Value> {
        serde_json::from_slice(&fs::read(self.latest().join("jobs.json")).unwrap()).unwrap()
    }

    /// The blob of an output of the latest run.
    fn blob(&self, node: &str, record: Option<&str>, port: &str) -> PathBuf {
        let is_it = |job: &Value| job["job"]["node"] == node && job["job"]["record"].as_str() == record;
        let job = self.jobs().into_iter().find(is_it).unwrap();
        let digest = job["outputs"][port].as_str().unwrap().to_owned();
        self.path("data/store/blobs").join(&digest[..2]).join(digest)
    }
}

/// Flips one bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

// trace

#[test]
fn any_published_file_is_traced_whatever_its_name_and_place() {
    let project = Project::run_once();
    let run = project.latest().file_name().unwrap().to_str().unwrap().to_owned();
    for (file, output) in [
        ("plots/a.svg", "draw.files of pipeline `texts`, seed 7"),
        ("plots/b.yaml", "draw.files of"),
        ("out/joined.txt", "join.text of"),
        ("models/model.onnx", "export.onnx of"),
    ] {
        let published = format!("as {file} by run {run}");
        project.call(&["trace", file]).exits(0).prints(&[output, &published, "raw files: 3 of 3 records"]);
        fs::copy(project.path(file), project.path("copy.bin")).unwrap();
        project.call(&["trace", "copy.bin"]).exits(0).prints(&["copy.bin", output, &published]);
    }
    let traced = project.call(&["trace", "plots/a.svg"]).exits(0);
    let expected = [
        "draw (draw, code c0)\n│    drifts: false\n└─ text <- join.text: join (join, code c0)\n",
        "   └─ texts <- tidy.text: tidy (tidy, code c0), 3 records\n",
        "      └─ text <- read.text: read (read_text, code c0), 3 records\n",
    ];
    traced.prints(&expected);
    project.call(&["trace", "plots/a.svg", "--full"]).exits(0).prints(&["tidy[b]: key ", "b.txt  "]);

    // Another run leaves the same bytes: the latest run that published them is named.
    project.call(&["run", "texts.yaml"]).exits(0);
    let json = project.call(&["trace", "plots/a.svg", "--json"]).exits(0).json();
    assert_eq!(json["run"], project.latest().file_name().unwrap().to_str().unwrap());
    let digest = Digest::of(&fs::read(project.path("data/texts/a.txt")).unwrap()).to_hex();
    assert_eq!(json["provenance"]["sources"]["a"]["a.txt"], digest);
    assert_eq!(json["published"]["path"], "plots/a.svg");
    assert_eq!(json["jobs"].as_array().unwrap().len(), 8);
    let run = ["trace", "plots/a.svg", "--json", "--run", &run];
    assert_eq!(project.call(&run).exits(0).json()["run"], run[4]);
}

#[test]
fn a_changed_file_is_not_traced_to_what_it_was() {
    let project = Project::run_once();
    for file in ["plots/a.svg", "out/joined.txt", "models/model.onnx"] {
        flip(&project.path(file));
        let says = [format!("{file} was published as {file} by run "), "but its bytes have changed".to_owned()];
        project.call(&["trace", file]).exits(1).says(&[&says[0], &says[1], "help: "]);
    }
    // Without the run folders, a model that is not what its provenance says is found out by its own bytes.
    let project = Project::run_once();
    fs::remove_dir_all(project.path("runs")).unwrap();
    let mut bytes = fs::read(project.path("models/model.onnx")).unwrap();
    bytes[6] ^= 1;
    fs::write(project.path("models/model.onnx"), bytes).unwrap();
    let says = ["published from export.onnx of pipeline `texts`", "but its bytes have changed"];
    project.call(&["trace", "models/model.onnx"]).exits(1).says(&says);
    project.write("foreign.svg", "<svg/>");
    project.call(&["trace", "foreign.svg"]).exits(2).says(&["foreign.svg carries no provenance, and no run in runs"]);
    project.call(&["trace", "nothing.svg"]).exits(3).says(&["failed to read nothing.svg"]);
}

#[test]
fn a_model_is_traced_and_verified_without_its_run() {
    let project = Project::run_once();
    fs::remove_dir_all(project.path("runs")).unwrap();
    let verify = ["trace", "models/model.onnx", "--verify"];
    let texts =
        ["not in runs/", "join (join, code c0)", "3 of 3 raw files are the same; the way through the cache is not"];
    project.call(&verify).exits(0).prints(&texts);
    project.write("data/texts/b.txt", "other");
    project.call(&verify).exits(1).prints(&["b.txt", "DIFFERS", "raw file data/texts/b.txt has changed"]);
}

#[test]
fn an_output_of_a_run_is_traced_by_its_name() {
    let project = Project::run_once();
    project.call(&["trace", "tidy.text[b]"]).exits(0).prints(&[
        "tidy.text[b] of pipeline",
        "tidy (tidy, code c0), record b",
        "raw files: 1 of 1",
    ]);
    project.call(&["trace", "tidy[b].text"]).exits(0).prints(&["tidy.text[b] of pipeline"]);
    project.call(&["trace", "tidy.text"]).exits(0).prints(&["tidy.text of pipeline", "3 records", "raw files: 3 of 3"]);
    // What was gathered and then spread depends on every record.
    project.call(&["trace", "label.text[a]"]).exits(0).prints(&["record a", "raw files: 3 of 3", "see above"]);
    project.call(&["trace", "out/labels/label_text[a].txt"]).exits(0).prints(&["label.text[a]", "raw files: 3 of 3"]);
    project.call(&["trace", "tidy.txt"]).exits(2).says(&["has no output `tidy.txt`", "the outputs of `tidy` are text"]);
    project.call(&["trace", "tidy.text[z]"]).exits(2).says(&["has no output", "did not run for record z"]);
    project.call(&["trace", "tydi.text"]).exits(3).says(&["failed to read tydi.text", "its stages are "]);
}

#[test]
fn verifying_names_whatever_does_not_fit() {
    let project = Project::run_once();
    let verify = ["trace", "plots/a.svg", "--verify"];
    project.call(&verify).exits(0).prints(&["3 of 3 raw files are the same; 8 results and 8 blobs"]);
    let folder = ["trace", "plots/a.svg", "--verify", "data/texts", "--json"];
    assert_eq!(project.call(&folder).exits(0).json()["verification"]["problems"], serde_json::json!([]));

    let blob = project.blob("tidy", Some("b"), "text");
    let good = fs::read(&blob).unwrap();
    flip(&blob);
    project.call(&verify).exits(1).prints(&[
        "PROBLEM tidy[b]: `text`: failed to read the blob",
        "damaged",
        "1 problems",
    ]);
    assert!(blob.exists(), "looking at it does not move it");
    fs::write(&blob, good).unwrap();

    let read = |name: &str| fs::read(project.latest().join(name)).unwrap();
    let jobs = String::from_utf8(read("jobs.json")).unwrap();
    let digest = blob.file_name().unwrap().to_str().unwrap();
    project.write(project.latest().join("jobs.json").to_str().unwrap(), &jobs.replace(digest, &"ab".repeat(32)));
    let gave = "PROBLEM join: it was computed from ";
    project.call(&verify).exits(1).prints(&[
        "PROBLEM tidy[b]: its manifest has",
        gave,
        "on `input.texts[b]`, but tidy.text[b] gave abab",
    ]);
    project.write(project.latest().join("jobs.json").to_str().unwrap(), &jobs);

    let key = project.jobs().into_iter().find(|job| job["job"]["node"] == "join").unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::remove_file(project.path(&format!("data/store/manifests/{}/{key}.json", &key[..2]))).unwrap();
    fs::remove_file(project.path("data/texts/c.txt")).unwrap();
    let ended = project.call(&verify).exits(1);
    ended.prints(&["PROBLEM join: nothing is stored under this key", "c.txt", "MISSING", "2 of 3 raw files"]);
}

// reproduce

#[test]
fn a_run_is_derived_again_from_its_folder_alone() {
    let project = Project::run_once();
    fs::remove_file(project.path("texts.yaml")).unwrap();
    let before = fs::read_dir(project.path("data")).unwrap().count();
    let text = "15 jobs, all 15 outputs have the same digests";
    project.call(&["reproduce"]).exits(0).prints(&[text, "CPU s"]);
    assert_eq!(fs::read_dir(project.path("data")).unwrap().count(), before, "the temporary cache is gone");
    assert_eq!(fs::read_dir(project.path("runs")).unwrap().count(), 1, "it is no run");
    project
        .call(&["reproduce", "latest", "--target", "join", "--jobs", "1"])
        .exits(0)
        .prints(&["7 jobs, all 7 outputs"]);
    project.call(&["reproduce", "--keep", "again"]).exits(0).prints(&["the new cache is in again"]);
    assert!(project.path("again/blobs").is_dir());
    project.call(&["reproduce", "--keep", "again"]).exits(2).says(&["again is not empty"]);
    // Not even a cache that is gone is missed.
    fs::remove_dir_all(project.path("data/store")).unwrap();
    assert_eq!(project.call(&["reproduce", "--json"]).exits(0).json()["differing"], serde_json::json!([]));
    project.call(&["reproduce", "nothing"]).exits(3).says(&["there is no run `nothing`"]);
}

#[test]
fn a_stage_that_is_not_deterministic_is_named_with_what_differs() {
    let project = Project::new();
    project.edit("uses: draw", "uses: draw, with: {drifts: true}");
    project.call(&["run", "texts.yaml"]).exits(0);
    let ended = project.call(&["reproduce"]).exits(1);
    ended.prints(&[
        "1 of 15 outputs differ",
        "first: draw, output `files`",
        "column `bytes` differs in 1 rows, first in row 1",
        "its inputs, parameters and code were the same: the stage is not deterministic",
    ]);
    let json = project.call(&["reproduce", "--json"]).exits(1).json();
    assert_eq!(
        (json["differing"][0]["job"]["node"].as_str(), json["differing"][0]["same_inputs"].as_bool()),
        (Some("draw"), Some(true))
    );
}

#[test]
fn what_is_known_to_be_different_is_said_before_anything_is_computed() {
    let mut project = Project::run_once();
    project.write("data/texts/b.txt", "gamma other");
    project.write("data/texts/d.txt", "new");
    project.codes = "join=c1";
    let says = [
        "cannot give the same bytes",
        "join: the code of `join` is another: c0 -> c1",
        "raw file data/texts/b.txt has changed",
        "read: record d is new",
        "help: `--anyway`",
    ];
    project.call(&["reproduce"]).exits(1).says(&says);
    fs::remove_file(project.path("data/texts/d.txt")).unwrap();
    let anyway = project.call(&["reproduce", "--anyway"]).exits(1);
    anyway.prints(&[
        "known to be different: join: the code",
        "first: read[b], output `text`",
        "its inputs, parameters or code were others",
        "outputs of these stages differ, too: ",
    ]);
    fs::remove_file(project.path("data/texts/b.txt")).unwrap();
    project.call(&["reproduce"]).exits(1).says(&["read: record b is gone"]);
    fs::remove_dir_all(project.path("data/texts")).unwrap();
    project.call(&["reproduce"]).exits(1).says(&["data/texts/a.txt is gone", "stage `read`"]);
}

// explain, plan

#[test]
fn the_coming_run_is_explained_before_it_starts() {
    let project = Project::run_once();
    let set = ["explain", "texts.yaml", "--set", "tidy.width_n=2"];
    project.call(&set).exits(0).prints(&[
        "read[a]  hit: computed by ",
        "tidy[b]  to compute: param.width_n 4 -> 2",
        "----------  join  to compute: waits for tidy[a] (param.width_n 4 -> 2)",
        "the coming run of texts.yaml: 3 of 15 jobs are hits",
    ]);
    let json = project.call(&[&set[..], &["--job", "tidy[b]", "--json"]].concat()).exits(0).json();
    assert_eq!(json[0]["why"]["differences"][0]["field"], "param.width_n");
    assert_eq!(json[0]["text"], "param.width_n 4 -> 2");
    assert_eq!(project.call(&["explain", "--next", "--json"]).exits(0).json().as_array().unwrap().len(), 15);
    project.call(&["explain", "--next"]).exits(0).prints(&["15 of 15 jobs are hits"]);
    let waits = "waits for tidy (param.width_n 4 -> 2)";
    project.call(&["plan", "texts.yaml", "--set", "tidy.width_n=2"]).exits(0).prints(&["param.width_n 4 -> 2", waits]);
    let dry = ["run", "texts.yaml", "--dry-run", "--set", "tidy.width_n=2"];
    project.call(&dry).exits(0).says(&[waits, "dry run: 3 cached, 12 to compute"]);
    project.write("data/texts/b.txt", "gimma delta");
    let waits = "waits for read[b] (source.b.txt ";
    project
        .call(&["plan", "texts.yaml"])
        .exits(0)
        .prints(&["read    read_text  3     2       1           source.b.txt ", waits]);
    project.call(&["explain", "latest", "--set", "tidy.width_n=2"]).exits(2).says(&["goes with a pipeline file"]);
    assert_eq!(fs::read_dir(project.path("runs")).unwrap().count(), 1, "nothing ran");
}

#[test]
fn an_input_that_changed_is_followed_to_its_cause_and_a_hit_to_its_run() {
    let project = Project::run_once();
    let first = project.latest().file_name().unwrap().to_str().unwrap().to_owned();
    project.write("data/texts/b.txt", "gimma delta");
    project.call(&["run", "texts.yaml"]).exits(0);
    let hit = format!("tidy[a]  hit: computed by {first} (2");
    project.call(&["explain"]).exits(0).prints(&[
        &hit,
        "join  computed: input.texts[b] changed because read[b]: source.b.txt ",
        "export  computed: input.text changed because read[b]: source.b.txt ",
    ]);
    let full = project.call(&["explain", "--job", "export"]).exits(0);
    full.prints(&["export  computed:\n    input.text ", "\n    because read[b]: source.b.txt ", "stage = export"]);
    let json = project.call(&["explain", "--json", "--job", "tidy[a]"]).exits(0).json();
    assert_eq!(json[0]["computed_by"]["run"], first);
}

// run

#[test]
fn a_blob_that_is_found_damaged_while_it_is_published_is_computed_anew_in_the_same_run() {
    let project = Project::run_once();
    let contents = |folder: &str| -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(project.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let (plots, model) = (contents("plots"), fs::read(project.path("models/model.onnx")).unwrap());
    fs::remove_dir_all(project.path("plots")).unwrap();
    fs::remove_dir_all(project.path("models")).unwrap();
    flip(&project.blob("draw", None, "files"));
    flip(&project.blob("export", None, "onnx"));
    let says = ["failed to publish plots: read the blob", "it is computed again", "13 cached, 2 computed"];
    project.call(&["run", "texts.yaml"]).exits(0).says(&says);
    assert_eq!((contents("plots"), fs::read(project.path("models/model.onnx")).unwrap()), (plots, model));
    project.call(&["explain"]).exits(0).prints(&["draw  computed: the blob ", "13 of 15 jobs were hits"]);
    project.call(&["run", "texts.yaml"]).exits(0).says(&["15 cached, 0 computed"]);
}

#[test]
fn nothing_is_published_into_the_cache() {
    let project = Project::new();
    project.edit("plots/", "cache/plots/");
    project
        .call(&["run", "texts.yaml", "--store", "cache"])
        .exits(2)
        .says(&["publish `cache/plots` would lie in the cache"]);
    assert!(!project.path("runs").exists());
    project.edit("cache/plots/", "data/store/plots/");
    project.edit("out/", "runs/out/");
    let says = ["the target `data/store/plots/` lies in", "the target `runs/out/joined.txt` lies in `runs/`"];
    project.call(&["check", "texts.yaml"]).exits(2).says(&says);
}
