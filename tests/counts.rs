//! What is computed after an edit, counted on a real pipeline: from WFDB files through peaks, windows, split, training, ONNX and
//! evaluation to a stage that is a shell script. Every row of the table is one edit and the bodies that it may cost; after every
//! row the results are those of a run in an empty store, digest by digest.
//!
//! The same promises on small stages, with random edits: `tests/engine.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ecgpipe");

/// Patients as WFDB databases: five in `data/raw/clinic`, and others of the same names in `data/raw/others`.
const MAKE: &str = "
seed: 3
stages:
  clinic: {uses: synthesise, with: {patients_n: 5, duration_s: 30}}
  others: {uses: synthesise, with: {patients_n: 6, duration_s: 31}}
publish:
  data/raw/clinic/: clinic.raw
  data/raw/others/: others.raw
";

const PIPELINE: &str = "
name: counts
seed: 3
stages:
  ingest: {uses: ingest_wfdb, with: {database: clinic}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals, annotations: ingest.annotations}, with: {peaks: detected}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  normalise: {uses: normalise, in: {windows: windows.windows}}
  rhythm: {uses: rhythm, in: {beats: peaks.beats}}
  split: {uses: split, in: {beats: peaks.beats}, with: {strategy: by_patient, test_fraction: 0.4}}
  train: {uses: train_cnn, in: {windows: normalise.windows, features: rhythm.features, split: split.split}, with: {epochs: 1, batch_n: 16, learning_rate: 0.003, require_every_class: false}}
  export:
    uses: export_onnx
    in: {model: train.model, windows: normalise.windows, features: rhythm.features, split: split.split}
    with: {engine: tract}
  infer:
    uses: infer_onnx
    in: {onnx: export.onnx, windows: normalise.windows, features: rhythm.features}
    with: {engine: tract}
  evaluate:
    uses: evaluate
    in: {predictions: infer.predictions, beats: peaks.beats, split: split.split}
    with: {dominating_records: []}
  confusion: {uses: plot_confusion, in: {confusion: evaluate.confusion}}
  sums: {uses: checksums, in: {files: evaluate.report}}
  sums_of_sums: {uses: checksums, in: {files: sums.sums}}
";

/// A stage that is a shell script.
const STAGE: &str = "
name: checksums
summary: The checksums of files.
command: [sh, checksums.sh]
inputs: {files: {kind: files, cardinality: one, doc: Any files.}}
outputs: {sums: {kind: files, cardinality: one, doc: Their checksums.}}
";

const SCRIPT: &str = "\
set -eu
mkdir -p outputs/sums
cd inputs/files
for file in *; do
    cksum \"$file\"
done > ../../outputs/sums/sums.txt
cd ../..
echo '{\"format\": 1}' > result.json
";

/// What follows when the beats of a record change on which the model was trained: p001.
const FROM_TRAINING: &str = "ingest[p001] peaks[p001] windows[p001] normalise[p001] rhythm[p001] split train export infer[p001] \
                             infer[p002] infer[p003] infer[p004] infer[p005] evaluate confusion sums sums_of_sums";

/// The same for a record on which it is only tested: p003. Training sees all windows, but gives the same model.
const FROM_TEST: &str = "ingest[p003] peaks[p003] windows[p003] normalise[p003] rhythm[p003] split train export infer[p003] evaluate \
                         confusion sums sums_of_sums";

type Edit = fn(&Project);

/// The edit, what it does, and the bodies that it costs.
const TABLE: &[(&str, Edit, &str)] = &[
    ("nothing", |_| {}, ""),
    ("inputs touched", touch_inputs, ""),
    ("an input written again with the same bytes", |project| project.edit_file("data/raw/clinic/p003.dat", |_| {}), ""),
    ("pipeline written in another order", reorder, ""),
    ("a default written out", |project| project.edit("{uses: rhythm,", "{uses: rhythm, with: {},"), ""),
    ("a node renamed", rename, ""),
    (
        "a parameter that does not reach the bytes",
        |project| project.edit("test_fraction: 0.4", "test_fraction: 0.41"),
        "split",
    ),
    (
        "a late parameter",
        |project| project.edit("dominating_records: []", "escape_rule: ec57, dominating_records: []"),
        "evaluate sums sums_of_sums",
    ),
    ("a parameter, and back", there_and_back, ""),
    (
        "another seed",
        |project| project.edit("seed: 3", "seed: 4"),
        "split train export infer[p001] infer[p002] infer[p003] infer[p004] infer[p005] evaluate confusion sums sums_of_sums",
    ),
    (
        "a comment in one header",
        |project| project.edit_file("data/raw/clinic/p002.hea", |bytes| bytes.extend(b"# seen by a nurse\n")),
        "ingest[p002] peaks[p002] windows[p002]",
    ),
    ("another recording of a patient of the training set", |project| replace_record(project, "p001"), FROM_TRAINING),
    ("another recording of a patient of the test set", |project| replace_record(project, "p003"), FROM_TEST),
    (
        "a comment in a script",
        |project| project.edit_file("stages/checksums/checksums.sh", |bytes| bytes.extend(b"# done\n")),
        "sums sums_of_sums",
    ),
    (
        "a script that gives other bytes",
        |project| project.write("stages/checksums/checksums.sh", SCRIPT.replace("cksum \"$file\"", "cksum <\"$file\"")),
        "sums sums_of_sums",
    ),
    ("a README beside a script", |project| project.write("stages/checksums/README.md", "What it is for."), ""),
    ("an intermediate result deleted that nobody needs", |project| project.delete_blob("normalise[p002]"), ""),
    ("an intermediate result deleted that is needed", delete_and_need, "normalise[p002] train"),
    ("the whole store deleted", |project| fs::remove_dir_all(project.path("data/store")).unwrap(), ALL),
];

const ALL: &str = "ingest[p001] ingest[p002] ingest[p003] ingest[p004] ingest[p005] peaks[p001] peaks[p002] peaks[p003] peaks[p004] \
                   peaks[p005] windows[p001] windows[p002] windows[p003] windows[p004] windows[p005] normalise[p001] normalise[p002] \
                   normalise[p003] normalise[p004] normalise[p005] rhythm[p001] rhythm[p002] rhythm[p003] rhythm[p004] rhythm[p005] \
                   split train export infer[p001] infer[p002] infer[p003] infer[p004] infer[p005] evaluate confusion sums sums_of_sums";

#[test]
fn every_edit_costs_what_it_must_and_no_more() {
    let base = Project::new();
    assert_eq!(base.run("data/store").bodies, words(ALL));
    let mut wrong = Vec::new();
    for (name, edit, bodies) in TABLE {
        let project = base.copy();
        edit(&project);
        let ran = project.run("data/store");
        if ran.bodies != words(bodies) {
            wrong.push(format!("{name}: computed {:?}, expected {:?}", ran.bodies, words(bodies)));
        }
        if ran.digests != project.run("data/fresh").digests {
            wrong.push(format!("{name}: the results are not those of a fresh run"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_record_more_or_less_costs_its_own_chain_and_what_gathers() {
    let project = Project::new();
    project.run("data/store");
    for extension in ["hea", "dat", "atr"] {
        fs::copy(
            project.path(&format!("data/raw/others/p006.{extension}")),
            project.path(&format!("data/raw/clinic/p006.{extension}")),
        )
        .unwrap();
    }
    let records = project.path("data/raw/clinic/RECORDS");
    let listed = records.exists().then(|| fs::read_to_string(&records).unwrap());
    if let Some(listed) = &listed {
        fs::write(&records, format!("{listed}p006\n")).unwrap();
    }
    let more = project.run("data/store");
    let expected = "ingest[p006] peaks[p006] windows[p006] normalise[p006] rhythm[p006] split train export infer[p001] infer[p002] \
                    infer[p003] infer[p004] infer[p005] infer[p006] evaluate confusion sums sums_of_sums";
    assert_eq!(more.bodies, words(expected));
    for extension in ["hea", "dat", "atr"] {
        fs::remove_file(project.path(&format!("data/raw/clinic/p006.{extension}"))).unwrap();
    }
    if let Some(listed) = listed {
        fs::write(&records, listed).unwrap();
    }
    assert_eq!(project.run("data/store").bodies, words(""));
}

fn touch_inputs(project: &Project) {
    for entry in fs::read_dir(project.path("data/raw/clinic")).unwrap() {
        let file = fs::File::options().append(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }
}

fn rename(project: &Project) {
    project.edit("normalise: {", "scaled: {");
    project.edit("normalise.windows", "scaled.windows");
}

fn reorder(project: &Project) {
    let text = fs::read_to_string(project.path("counts.yaml")).unwrap();
    let (head, stages) = text.split_once("stages:\n").unwrap();
    let mut nodes: Vec<String> = Vec::new();
    for line in stages.lines() {
        match nodes.last_mut() {
            Some(node) if line.starts_with("    ") => node.push_str(&format!("{line}\n")),
            _ => nodes.push(format!("{line}\n")),
        }
    }
    nodes.reverse();
    project.write("counts.yaml", format!("stages:\n{}{head}", nodes.concat()));
}

fn there_and_back(project: &Project) {
    project.edit("epochs: 1", "epochs: 2");
    assert!(project.run("data/store").bodies.contains(&"train".to_owned()));
    project.edit("epochs: 2", "epochs: 1");
}

fn replace_record(project: &Project, record: &str) {
    for extension in ["hea", "dat", "atr"] {
        let name = format!("{record}.{extension}");
        fs::copy(project.path(&format!("data/raw/others/{name}")), project.path(&format!("data/raw/clinic/{name}")))
            .unwrap();
    }
}

/// Deletes a window's blob, then the model that was trained on it.
fn delete_and_need(project: &Project) {
    project.delete_blob("normalise[p002]");
    project.delete_manifest("train");
}

fn words(bodies: &str) -> Vec<String> {
    let mut bodies: Vec<String> = bodies.split_whitespace().map(str::to_owned).collect();
    bodies.sort();
    bodies
}

/// What a run did.
struct Ran {
    /// The jobs that were computed, sorted.
    bodies: Vec<String>,
    /// Every job's output digests.
    digests: BTreeMap<String, Value>,
}

struct Project {
    folder: TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: TempDir::new().unwrap() };
        project.write("make.yaml", MAKE);
        project.write("counts.yaml", PIPELINE);
        project.write("stages/checksums/stage.yaml", STAGE);
        project.write("stages/checksums/checksums.sh", SCRIPT);
        project.call("make.yaml", "data/made");
        project
    }

    /// The same project elsewhere, its store and runs included.
    fn copy(&self) -> Self {
        let folder = TempDir::new().unwrap();
        copy_folder(self.folder.path(), folder.path());
        Self { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("counts.yaml")).unwrap();
        assert!(text.contains(from), "{from:?} is not in the pipeline");
        self.write("counts.yaml", text.replace(from, to));
    }

    fn edit_file(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(path)).unwrap();
        edit(&mut bytes);
        self.write(path, bytes);
    }

    fn delete_blob(&self, job: &str) {
        let digests = &self.run("data/store").digests[job];
        for digest in digests.as_object().unwrap().values() {
            self.delete_in_store(digest.as_str().unwrap(), "blobs");
        }
    }

    fn delete_manifest(&self, job: &str) {
        let explained = self.program(&["explain", "--json"]);
        let jobs: Value = serde_json::from_str(&explained).unwrap();
        let of_job = jobs.as_array().unwrap().iter().find(|entry| entry["job"]["node"] == job).unwrap();
        self.delete_in_store(of_job["key"].as_str().unwrap(), "manifests");
    }

    fn delete_in_store(&self, name: &str, folder: &str) {
        let mut open = vec![self.path("data/store").join(folder)];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.to_string_lossy().replace(['/', '.'], "").contains(name) {
                return fs::remove_file(path).unwrap();
            }
        }
        panic!("{name} is not in {folder}");
    }

    fn run(&self, store: &str) -> Ran {
        let events = self.call("counts.yaml", store);
        let mut ran = Ran { bodies: Vec::new(), digests: BTreeMap::new() };
        for line in events.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let job = event["job"]["node"].as_str().map(|node| match event["job"]["record"].as_str() {
                Some(record) => format!("{node}[{record}]"),
                None => node.to_owned(),
            });
            match (event["event"].as_str().unwrap(), job) {
                ("computed", Some(job)) => {
                    ran.bodies.push(job.clone());
                    ran.digests.insert(job, event["outputs"].clone());
                }
                ("hit", Some(job)) => {
                    ran.digests.insert(job, event["outputs"].clone());
                }
                _ => {}
            }
        }
        ran.bodies.sort();
        ran
    }

    fn call(&self, pipeline: &str, store: &str) -> String {
        self.program(&["run", "--offline", "--json", "--store", store, pipeline])
    }

    fn program(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(PROGRAM);
        for variable in ["ECGPIPE_DATA", "ECGPIPE_STORE", "ECGPIPE_REMOTE", "MLFLOW_TRACKING_URI"] {
            command.env_remove(variable);
        }
        let output = command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stderr}{stdout}");
        stdout
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}
