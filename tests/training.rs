//! A training that is killed or stopped, from the command line: the next run goes on with it and gives the same bytes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ended;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use ended::Ended;
use serde_json::Value;
use tempfile::TempDir;

const EPOCH_N: u64 = 8;

/// A small network, trained for some seconds.
const PIPELINE: &str = "
name: small
seed: 3
stages:
  raw: {uses: synthesise, with: {patients_n: 6, duration_s: 30}}
  ingest: {uses: ingest_wfdb, in: {raw: raw.raw}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals, annotations: ingest.annotations}, with: {peaks: detected}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  normalise: {uses: normalise, in: {windows: windows.windows}}
  rhythm: {uses: rhythm, in: {beats: peaks.beats}}
  split: {uses: split, in: {beats: peaks.beats}, with: {strategy: by_patient}}
  train:
    uses: train_cnn
    in: {windows: normalise.windows, features: rhythm.features, split: split.split}
    with: &network
      {epochs: 8, class_shares: {N: 2, V: 1}, draws_n: 3000, hidden_n: 16, feature_hidden_n: 8, fused_n: 16, require_every_class: false}
";

/// Cross-validation beside it, so that a job has several trainings.
const FOLDS: &str = "
  cv:
    uses: cross_validate
    in: {windows: normalise.windows, features: rhythm.features, split: split.split}
    with: {folds_n: 2, train: *network}
";

/// A project in a folder of its own.
struct Project(TempDir);

impl Project {
    fn new(pipeline: &str) -> Self {
        let project = Self(TempDir::new().unwrap());
        fs::write(project.path("train.yaml"), pipeline).unwrap();
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecgpipe"));
        for variable in ["ECGPIPE_DATA", "ECGPIPE_STORE", "ECGPIPE_REMOTE", "MLFLOW_TRACKING_URI"] {
            command.env_remove(variable);
        }
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Ended {
        Ended::new(self.command(args).output().unwrap())
    }

    /// Runs to the end with events on stdout, on another number of threads than [`Project::start`].
    fn run(&self, target: &str) -> Ended {
        self.call(&["run", "--offline", "--json", "--jobs", "1", "train.yaml", "--target", target]).exits(0)
    }

    /// Starts a run and waits for an event.
    fn start(&self, target: &str, until: impl Fn(&Value) -> bool) -> Running {
        let mut command =
            self.command(&["run", "--offline", "--json", "--jobs", "3", "train.yaml", "--target", target]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, stdout, heard: String::new() };
        running.wait_for(until);
        running
    }

    /// Every output of every job of the last run, by job and port.
    fn digests(&self) -> Vec<(String, Value)> {
        let shown = self.call(&["runs", "show", "--json"]).exits(0).json();
        let jobs = shown["jobs"].as_array().unwrap();
        jobs.iter().map(|job| (job["job"].to_string(), job["outputs"].clone())).collect()
    }

    fn checkpoints_n(&self) -> usize {
        fs::read_dir(self.path("data/store/checkpoints")).map_or(0, Iterator::count)
    }

    /// The run that ends what another began: nothing is left of the checkpoint, and the results are those of a project in
    /// which nobody stopped.
    #[track_caller]
    fn goes_on(&self, target: &str, pipeline: &str) -> Ended {
        assert_eq!(self.checkpoints_n(), 1);
        let ended = self.run(target);
        assert_eq!(self.checkpoints_n(), 0);
        let clean = Self::new(pipeline);
        let notes = notes(&clean.run(target).stdout);
        assert!(!notes.iter().any(|note| note.contains("goes on")), "{notes:?}");
        assert_eq!(self.digests(), clean.digests());
        ended
    }
}

/// A run that is at work.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    heard: String,
}

impl Running {
    fn wait_for(&mut self, event: impl Fn(&Value) -> bool) {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the run ended before that: {}", self.heard);
            self.heard.push_str(&line);
            if event(&serde_json::from_str(&line).unwrap()) {
                return;
            }
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn end(mut self) -> Ended {
        self.stdout.read_to_string(&mut self.heard).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Ended { stdout: self.heard, ..Ended::new(output) }
    }
}

fn events(stdout: &str) -> impl Iterator<Item = Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn notes(stdout: &str) -> Vec<String> {
    let notes = events(stdout).filter(|event| event["event"] == "note");
    notes.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

/// How often a loss was told, by metric and epoch.
fn losses(stdout: &str, key: &str) -> Vec<u64> {
    let is_it = |event: &Value| event["event"] == "metric" && event["point"]["key"] == key;
    events(stdout).filter(is_it).map(|event| event["point"]["step"].as_u64().unwrap()).collect()
}

/// The epochs that were finished while the run was at work: its progress, once for each.
fn trained(stdout: &str) -> Vec<u64> {
    let is_it = |event: &Value| event["event"] == "progress" && event["unit"] == "epochs";
    events(stdout).filter(is_it).map(|event| event["done"].as_u64().unwrap()).collect()
}

fn is_epoch(event: &Value, done: u64) -> bool {
    event["event"] == "progress" && event["unit"] == "epochs" && event["done"].as_u64() >= Some(done)
}

/// The number behind some words of a note.
fn number_after(notes: &[String], words: &str) -> u64 {
    let note = notes.iter().find_map(|note| note.split_once(words)).unwrap_or_else(|| panic!("{words:?} in {notes:?}"));
    note.1.split_whitespace().next().unwrap().trim_end_matches([',', ';']).parse().unwrap()
}

#[test]
fn a_killed_training_goes_on_after_its_last_epoch_and_gives_the_same_bytes() {
    let project = Project::new(PIPELINE);
    let mut running = project.start("train", |event| is_epoch(event, 3));
    running.child.kill().unwrap();
    let killed = running.end();
    assert_eq!(killed.code, None, "it was killed, and had not ended: {}", killed.stderr);
    project.call(&["cache", "stats"]).exits(0).prints(&["checkpoints of unfinished jobs: 1 ("]);

    let ended = project.goes_on("train", PIPELINE);
    let begun_after = number_after(&notes(&ended.stdout), "goes on after epoch ");
    assert!((1..EPOCH_N).contains(&begun_after), "{begun_after}");
    assert_eq!(trained(&ended.stdout), (begun_after..=EPOCH_N).collect::<Vec<_>>(), "no epoch before that is trained");
    assert_eq!(losses(&ended.stdout, "train/loss"), (1..=EPOCH_N).collect::<Vec<_>>(), "all are told");
}

#[test]
fn a_stopped_training_says_where_the_next_run_goes_on() {
    for signal in ["-INT", "-TERM"] {
        let project = Project::new(PIPELINE);
        let running = project.start("train", |event| is_epoch(event, 2));
        running.signal(signal);
        let stopped = running.end().exits(130).says(&["stopping: waiting for the running jobs"]);
        let told = notes(&stopped.stdout);
        let epoch = number_after(&told, "stopped in epoch ");
        assert!(told.contains(&format!(
            "stopped in epoch {epoch} of {EPOCH_N}; the next run goes on after epoch {}",
            epoch - 1
        )));
        assert_eq!(trained(&stopped.stdout).last(), Some(&(epoch - 1)), "it does not wait for the end of its epoch");

        let ended = project.goes_on("train", PIPELINE);
        assert_eq!(number_after(&notes(&ended.stdout), "goes on after epoch "), epoch - 1, "nothing was lost");
    }
}

#[test]
fn a_training_is_stopped_within_an_epoch_that_would_take_long() {
    let project = Project::new(&PIPELINE.replace("draws_n: 3000", "draws_n: 5000000"));
    let running = project.start("train", |event| event["unit"] == "steps");
    running.signal("-INT");
    let stopped = running.end().exits(130);
    assert!(notes(&stopped.stdout).contains(&"stopped in epoch 1 of 8; the next run begins anew".to_owned()));
    assert_eq!(project.checkpoints_n(), 0);
}

#[test]
fn a_killed_cross_validation_trains_no_finished_fold_again() {
    let pipeline = format!("{PIPELINE}{FOLDS}");
    let project = Project::new(&pipeline);
    let mut running = project.start("cv", |event| is_epoch(event, EPOCH_N + 2));
    running.child.kill().unwrap();
    running.end();
    let ended = project.goes_on("cv", &pipeline);
    let told = notes(&ended.stdout);
    assert!(told.contains(&"goes on after epoch 8 of 8 of training 1 of 2".to_owned()), "{told:?}");
    let epochs = trained(&ended.stdout);
    // The first fold is at its end, and what was kept of the second depends on the disk.
    assert!(epochs[0] == EPOCH_N && epochs[1] >= EPOCH_N && epochs.is_sorted(), "{epochs:?}");
    assert_eq!(epochs.last(), Some(&(2 * EPOCH_N)));
    for fold in 1..=2 {
        let told = losses(&ended.stdout, &format!("cv/fold_{fold}/train/loss"));
        assert_eq!(told, (1..=EPOCH_N).collect::<Vec<_>>());
    }
}

#[test]
fn a_damaged_checkpoint_is_a_note_and_a_training_from_the_beginning() {
    let project = Project::new(PIPELINE);
    let mut running = project.start("train", |event| is_epoch(event, 1));
    running.child.kill().unwrap();
    running.end();
    let path = fs::read_dir(project.path("data/store/checkpoints")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let ended = project.goes_on("train", PIPELINE);
    let told = notes(&ended.stdout);
    assert!(told.iter().any(|note| note.starts_with("begins anew: ") && note.ends_with("it is damaged")), "{told:?}");
    assert_eq!(trained(&ended.stdout), (0..=EPOCH_N).collect::<Vec<_>>());
}

#[test]
fn a_training_that_is_forced_begins_anew() {
    let project = Project::new(PIPELINE);
    let mut running = project.start("train", |event| is_epoch(event, 1));
    running.child.kill().unwrap();
    running.end();
    let forced =
        project.call(&["run", "--offline", "--json", "train.yaml", "--target", "train", "--force", "train"]).exits(0);
    assert_eq!(trained(&forced.stdout), (0..=EPOCH_N).collect::<Vec<_>>());
    assert_eq!(project.checkpoints_n(), 0);
}
