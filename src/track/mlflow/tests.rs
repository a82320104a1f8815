//! The invariants of the module, against a server that fails on order.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::fake_server::{FakeRun, FakeServer, Fault};
use super::spool::{METRICS_FILE, SENDER_LOCK, STATE_FILE};
use super::*;

const POINT_N: i64 = 1203;

fn settings(server: &FakeServer) -> Settings {
    let mut settings = Settings::new(&server.uri).unwrap();
    settings.retry_pause = Duration::from_millis(1);
    settings.poll = Duration::from_millis(5);
    settings.max_retries = 3;
    settings
}

fn description(run_uuid: &str) -> RunDescription {
    let params = [("lr", "0.001"), ("window.length_n", "187"), ("F1 (macro)", "x")];
    RunDescription {
        run_uuid: run_uuid.to_owned(),
        experiment: "mitbih".to_owned(),
        run_name: "full".to_owned(),
        user: "eve".to_owned(),
        start_time_ms: 1_795_377_186_422,
        source_name: "pipelines/full.yaml".to_owned(),
        git: Some(GitState { commit: "c".repeat(40), branch: Some("main".to_owned()), ..GitState::default() }),
        note_markdown: Some("# Full".to_owned()),
        params: params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        tags: BTreeMap::from([("pipeline".to_owned(), "full".to_owned())]),
    }
}

fn tensor(name: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: "float32".to_owned(), shape: shape.to_vec() }
}

fn model(onnx_file: &Path) -> LoggedModel {
    LoggedModel {
        name: "ecgnet".to_owned(),
        onnx_file: onnx_file.to_owned(),
        model_type: "classifier".to_owned(),
        time_ms: 1_795_377_200_000,
        step: 29,
        onnx_version: "1.17.0".to_owned(),
        inputs: vec![tensor("ecg", &[-1, 1, 187])],
        outputs: vec![tensor("logits", &[-1, 5])],
        input_example: None,
        params: BTreeMap::new(),
        tags: BTreeMap::new(),
        metrics: vec!["train/loss".to_owned()],
        evaluated_on: Some("mitdb DS1".to_owned()),
        registered_model: Some(Registration { name: "ecg".to_owned(), alias: Some("champion".to_owned()) }),
    }
}

/// A run with some of everything, not ended yet.
fn spooled(folder: &TempDir, run_uuid: &str) -> Spool {
    let spool = Spool::create(&folder.path().join("spool"), &description(run_uuid)).unwrap();
    for step in 0..POINT_N {
        spool.metric("train/loss", step, 1.0 / (step + 1) as f64, 1_795_377_186_422 + step).unwrap();
    }
    let file = folder.path().join("roc.png");
    std::fs::write(&file, b"not really a picture").unwrap();
    spool.artifact("plots/roc curve.png", &file).unwrap();
    let dataset = Dataset {
        name: "mitdb DS1".to_owned(),
        digest: "d".repeat(64),
        context: "training".to_owned(),
        source_uri: "data/raw/mitdb".to_owned(),
        features: tensor("", &[-1, 1, 187]),
        targets: None,
        row_n: 51_000,
        counts: BTreeMap::from([("N".to_owned(), 45_000)]),
    };
    spool.dataset(dataset).unwrap();
    spool.set_tag("stage", "train_cnn").unwrap();
    let onnx_file = folder.path().join("model.onnx");
    std::fs::write(&onnx_file, b"onnx bytes").unwrap();
    spool.model(model(&onnx_file)).unwrap();
    spool
}

fn ended(folder: &TempDir, run_uuid: &str) {
    let spool = spooled(folder, run_uuid);
    spool.end(Status::Finished, 1_795_377_300_000, None).unwrap();
}

fn only_run<T>(server: &FakeServer, look: impl Fn(&FakeRun) -> T) -> T {
    let world = server.world.lock().unwrap();
    assert_eq!(world.runs.len(), 1, "one run on the server");
    look(&world.runs[0])
}

/// The server has all of [`spooled`], once.
fn check_whole(server: &FakeServer) {
    only_run(server, |run| {
        assert_eq!(run.points.len(), POINT_N as usize);
        assert!(run.points.iter().all(|(_, step, time_ms, _)| *time_ms == 1_795_377_186_422 + step));
        assert_eq!(run.status, "FINISHED");
        assert_eq!(run.params["lr"], "0.001");
        assert_eq!(run.tags["stage"], "train_cnn");
        assert_eq!(run.tags["mlflow.source.git.branch"], "main");
        assert_eq!((run.datasets.len(), run.outputs.len()), (1, 1));
    });
    let world = server.world.lock().unwrap();
    assert_eq!(world.artifacts["1/run0/artifacts/plots/roc curve.png"], b"not really a picture");
    assert_eq!(world.artifacts["1/models/m-0/artifacts/model.onnx"], b"onnx bytes");
    assert_eq!((world.models.len(), &world.models[0]["info"]["status"]), (1, &"LOGGED_MODEL_READY".into()));
    assert_eq!(world.registered["ecg"].len(), 1);
    assert_eq!(world.aliases.len(), 1);
}

/// How many requests a whole run takes.
fn whole_request_n() -> usize {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    server.paths().len()
}

#[test]
fn everything_arrives_and_a_second_sync_sends_nothing() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    let first = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    assert!(first.complete, "{first:?}");
    assert_eq!(first.sent.points, POINT_N as u64);
    assert_eq!((first.sent.params, first.sent.datasets, first.sent.artifacts, first.sent.models), (3, 1, 1, 1));
    assert_eq!(first.already_there, Counts::default());
    assert_eq!((first.set_aside.len(), first.left_n), (0, 0));
    assert_eq!(first.run_url.as_deref(), Some(format!("{}/#/experiments/1/runs/run0", server.uri).as_str()));
    check_whole(&server);
    let renamed = only_run(&server, |run| run.tags["ecgpipe.renamed"].clone());
    assert!(renamed.contains("F1 (macro)"), "{renamed}");
    let before_n = server.paths().len();
    let second = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    assert!(second.complete);
    assert_eq!((second.sent, second.already_there), (Counts::default(), first.sent));
    let later = server.paths().split_off(before_n);
    assert!(later.iter().all(|path| path.starts_with("GET ")), "a second sync only reads: {later:?}");
}

#[test]
fn a_crash_at_any_request_replays_without_doubles() {
    let whole_n = whole_request_n();
    for request_idx in 0..whole_n {
        for answer_lost in [false, true] {
            let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
            ended(&folder, "u1");
            let settings = Settings { max_retries: 0, ..settings(&server) };
            {
                let mut world = server.world.lock().unwrap();
                world.dead_from = Some(request_idx + usize::from(answer_lost));
                world.lost_at = answer_lost.then_some(request_idx);
            }
            let crash = sync(&folder.path().join("spool"), &settings);
            assert!(matches!(crash, Err(SyncError::Stopped { .. })), "{request_idx}: {crash:?}");
            {
                let mut world = server.world.lock().unwrap();
                (world.dead_from, world.lost_at) = (None, None);
            }
            let report = sync(&folder.path().join("spool"), &settings).unwrap();
            assert!(report.complete, "{request_idx}: {report:?}");
            check_whole(&server);
        }
    }
}

#[test]
fn a_lost_answer_is_no_reason_to_do_it_twice() {
    let whole_n = whole_request_n();
    for request_idx in 0..whole_n {
        let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
        ended(&folder, "u1");
        server.world.lock().unwrap().lost_at = Some(request_idx);
        let report = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
        assert!(report.complete && report.set_aside.is_empty(), "{request_idx}: {report:?}");
        check_whole(&server);
    }
}

#[test]
fn a_killed_process_loses_no_finished_call() {
    const FOLDER: &str = "ECGPIPE_TEST_MLFLOW_CHILD_FOLDER";
    if let Some(path) = std::env::var_os(FOLDER) {
        // The child: logs until it is killed.
        let spool = Spool::create(Path::new(&path), &description("u1")).unwrap();
        for step in 0.. {
            spool.metric("train/loss", step, 0.5, step).unwrap();
        }
    }
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let path = folder.path().join("spool");
    let name = format!("{}::a_killed_process_loses_no_finished_call", module_path!().split_once("::").unwrap().1);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let mut child = command.args(["--exact", &name]).env(FOLDER, &path).stdout(Stdio::null()).spawn().unwrap();
    let lines =
        || std::fs::read(path.join(METRICS_FILE)).map_or(0, |text| text.iter().filter(|&&c| c == b'\n').count());
    let begin = Instant::now();
    while lines() < 2000 {
        assert!(begin.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "the child logs");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let logged_n = lines();
    let report = sync(&path, &settings(&server)).unwrap();
    assert!(report.complete && report.orphan_closed, "{report:?}");
    assert_eq!(only_run(&server, |run| (run.status.clone(), run.points.len())), ("KILLED".to_owned(), logged_n));
}

#[test]
fn a_cut_batch_is_sent_again_as_it_was() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = spooled(&folder, "u1");
    let settings = Settings { max_retries: 0, ..settings(&server) };
    // Three batches of points: the second is cut in the middle, before or after it took effect.
    let batches = |server: &FakeServer| {
        let world = server.world.lock().unwrap();
        let batches = world.requests.iter().filter(|request| request.path == "runs/log-batch");
        let batches = batches.map(|request| request.body["metrics"].clone());
        batches.filter(|metrics| metrics.as_array().is_some_and(|metrics| !metrics.is_empty())).collect::<Vec<_>>()
    };
    sync(&folder.path().join("spool"), &settings).unwrap();
    spool.metric("late", 0, 1.0, 5).unwrap();
    server.fail("runs/log-batch", &[Fault::CutAfter]);
    sync(&folder.path().join("spool"), &settings).unwrap_err();
    // More arrives meanwhile; it must not change the batch that may have arrived.
    spool.metric("late", 1, 1.0, 6).unwrap();
    let report = sync(&folder.path().join("spool"), &settings).unwrap();
    assert!(!report.complete, "the run is still going");
    let batches = batches(&server);
    assert_eq!(
        batches.iter().map(|batch| batch.as_array().unwrap().len()).collect::<Vec<_>>(),
        [500, 500, 203, 1, 1, 1]
    );
    assert_eq!(batches[3], batches[4], "the same request again");
    assert_eq!(only_run(&server, |run| run.points.len()), POINT_N as usize + 2);
}

#[test]
fn troubles_that_pass_are_waited_out() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    server.fail("experiments", &[Fault::Busy, Fault::Status(503)]);
    server.fail("runs/create", &[Fault::Status(500)]);
    server.fail("runs/log-batch", &[Fault::CutAfter, Fault::Status(429), Fault::Status(408)]);
    server.fail("artifacts/", &[Fault::CutBefore, Fault::Status(502)]);
    server.fail("runs/update", &[Fault::Status(504), Fault::CutAfter]);
    let report = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    assert!(report.complete, "{report:?}");
    assert!(server.world.lock().unwrap().faults.is_empty(), "every fault was met");
    check_whole(&server);
}

#[test]
fn what_the_server_cannot_digest_is_set_aside_and_the_rest_goes_on() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = spooled(&folder, "u1");
    for step in 0..9 {
        spool.metric(if step == 4 { "refused" } else { "kept" }, step, 0.5, step).unwrap();
    }
    spool.end(Status::Failed, 1_795_377_300_000, Some("stage `train`: out of memory".to_owned())).unwrap();
    // More 500s than retries.
    server.fail("artifacts/1/run0", &[Fault::Status(500); 4]);
    let report = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    let what = report.set_aside.iter().map(|aside| aside.what.as_str()).collect::<Vec<_>>();
    assert_eq!(what, ["artifact plots/roc curve.png", "metric refused at step 4"]);
    assert!(report.complete, "what could be sent was sent: {report:?}");
    only_run(&server, |run| {
        assert_eq!(run.points.len(), POINT_N as usize + 8);
        assert_eq!(
            (run.status.as_str(), run.tags["ecgpipe.error"].as_str()),
            ("FAILED", "stage `train`: out of memory")
        );
        assert!(run.tags["ecgpipe.set_aside"].contains("metric refused at step 4"));
    });
}

#[test]
fn nobody_let_in_keeps_the_spool_and_says_what_to_do() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    server.fail("experiments", &[Fault::Status(401)]);
    let text = sync(&folder.path().join("spool"), &settings(&server)).unwrap_err().to_string();
    assert!(text.contains("MLFLOW_TRACKING_USERNAME") && text.contains("MLFLOW_TRACKING_TOKEN"), "{text}");
    assert_eq!(server.paths().len(), 1, "no use in asking again");
    server.fail("experiments", &[Fault::Status(403)]);
    let text = sync(&folder.path().join("spool"), &settings(&server)).unwrap_err().to_string();
    assert!(text.contains("403"), "{text}");
    let mut settings = settings(&server);
    settings.credentials = Some(Credentials::Basic { username: "eve".into(), password: "pw".into() });
    assert!(sync(&folder.path().join("spool"), &settings).unwrap().complete);
    let world = server.world.lock().unwrap();
    assert_eq!(world.requests.last().unwrap().authorization.as_deref(), Some("Basic ZXZlOnB3"));
}

#[test]
fn an_outage_delays_and_loses_nothing() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    server.world.lock().unwrap().down = true;
    let spool = Spool::create(&folder.path().join("spool"), &description("u1")).unwrap();
    let sender = Sender::start(spool.folder(), settings(&server));
    let begin = Instant::now();
    for step in 0..POINT_N {
        spool.metric("train/loss", step, 0.5, step).unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "the run does not wait for the server");
    server.world.lock().unwrap().down = false;
    spool.end(Status::Finished, 1, None).unwrap();
    let report = sender.finish(Duration::from_secs(60));
    assert!(report.complete, "{report:?}");
    assert_eq!(only_run(&server, |run| run.points.len()), POINT_N as usize);
}

#[test]
fn a_server_that_stays_away_costs_the_deadline_and_no_more() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    server.world.lock().unwrap().down = true;
    let spool = spooled(&folder, "u1");
    let sender = Sender::start(spool.folder(), settings(&server));
    spool.end(Status::Finished, 1_795_377_300_000, None).unwrap();
    let begin = Instant::now();
    let report = sender.finish(Duration::from_millis(200));
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(!report.complete && report.halted.is_some(), "{report:?}");
    assert_eq!(report.left_n, POINT_N as u64 + 4);
    server.world.lock().unwrap().down = false;
    // The thread may still be in its last request; a real `sync` comes from another process, later.
    let report = loop {
        match sync(&folder.path().join("spool"), &settings(&server)) {
            Err(SyncError::Busy { .. }) => std::thread::yield_now(),
            report => break report.unwrap(),
        }
    };
    assert!(report.complete, "{report:?}");
    check_whole(&server);
}

#[test]
fn a_sender_follows_a_run_that_goes_on() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = Spool::create(&folder.path().join("spool"), &description("u1")).unwrap();
    let sender = Sender::start(spool.folder(), settings(&server));
    for step in 0..3 {
        spool.metric("loss", step, 0.5, step).unwrap();
        let begin = Instant::now();
        while sender.report().sent.points <= step as u64 {
            assert!(begin.elapsed() < Duration::from_secs(60), "point {step} was not sent: {:?}", sender.report());
            std::thread::yield_now();
        }
    }
    assert_eq!(only_run(&server, |run| run.status.clone()), "RUNNING");
    spool.end(Status::Killed, 9, None).unwrap();
    assert!(sender.finish(Duration::from_secs(60)).complete);
    assert_eq!(only_run(&server, |run| run.status.clone()), "KILLED");
}

#[test]
fn one_sender_a_spool() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    let path = folder.path().join("spool");
    let other = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(SENDER_LOCK)).unwrap();
    other.lock().unwrap();
    assert!(matches!(sync(&path, &settings(&server)), Err(SyncError::Busy { .. })));
    assert!(server.paths().is_empty());
    drop(other);
    assert!(sync(&path, &settings(&server)).unwrap().complete);
}

#[test]
fn a_lost_state_costs_nothing() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    let path = folder.path().join("spool");
    for damage in [None, Some("{\"format\":1,\"cont")] {
        sync(&path, &settings(&server)).unwrap();
        match damage {
            None => std::fs::remove_file(path.join(STATE_FILE)).unwrap(),
            Some(text) => std::fs::write(path.join(STATE_FILE), text).unwrap(),
        }
        assert!(sync(&path, &settings(&server)).unwrap().complete);
        check_whole(&server);
    }
}

#[test]
fn what_the_server_lost_is_sent_again() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    let path = folder.path().join("spool");
    sync(&path, &settings(&server)).unwrap();
    {
        let mut world = server.world.lock().unwrap();
        world.runs[0].points.pop_first();
        world.artifacts.remove("1/run0/artifacts/plots/roc curve.png");
    }
    let report = sync(&path, &settings(&server)).unwrap();
    assert!(report.complete, "{report:?}");
    assert!(report.notes[0].contains("train/loss has 1202 points, not 1203"), "{:?}", report.notes);
    check_whole(&server);
    // A server that forgot everything, and then another server altogether.
    server.world.lock().unwrap().runs.clear();
    server.world.lock().unwrap().models.clear();
    assert!(sync(&path, &settings(&server)).unwrap().complete);
    assert_eq!(only_run(&server, |run| run.points.len()), POINT_N as usize);
    let other = FakeServer::start();
    assert!(sync(&path, &settings(&other)).unwrap().complete);
    check_whole(&other);
}

#[test]
fn an_orphan_is_closed_and_a_living_run_is_not() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = spooled(&folder, "u1");
    let path = spool.folder().to_owned();
    let report = sync(&path, &settings(&server)).unwrap();
    assert!(!report.complete && !report.orphan_closed, "{report:?}");
    assert_eq!(only_run(&server, |run| run.status.clone()), "RUNNING");
    drop(spool);
    OpenOptions::new().append(true).open(path.join(METRICS_FILE)).unwrap().write_all(b"{\"key\":\"los").unwrap();
    let report = sync(&path, &settings(&server)).unwrap();
    assert!(report.complete && report.orphan_closed, "{report:?}");
    only_run(&server, |run| {
        assert_eq!((run.status.as_str(), run.points.len()), ("KILLED", POINT_N as usize));
        assert!(run.tags["ecgpipe.error"].contains("vanished"));
    });
}

#[test]
fn long_values_are_cut_and_kept_whole_beside() {
    let check = |param_char_n: usize, wanted_n: usize| {
        let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
        server.world.lock().unwrap().param_char_n = param_char_n;
        let mut run = description("u1");
        let (long, note) = ("é".repeat(7000), "n".repeat(9000));
        run.params.insert("classes".to_owned(), long.clone());
        run.note_markdown = Some(note.clone());
        let spool = Spool::create(&folder.path().join("spool"), &run).unwrap();
        spool.end(Status::Finished, 1_795_377_300_000, None).unwrap();
        let report = sync(spool.folder(), &settings(&server)).unwrap();
        assert!(report.complete && report.set_aside.is_empty(), "{report:?}");
        only_run(&server, |run| {
            assert_eq!(run.params["classes"].chars().count(), wanted_n);
            assert_eq!(run.tags["mlflow.note.content"].chars().count(), 8000);
            assert!(run.tags["ecgpipe.cut"].contains("note.md, params.json"), "{}", run.tags["ecgpipe.cut"]);
        });
        let world = server.world.lock().unwrap();
        let params = &world.artifacts["1/run0/artifacts/params.json"];
        assert_eq!(serde_json::from_slice::<BTreeMap<String, String>>(params).unwrap()["classes"], long);
        assert_eq!(world.artifacts["1/run0/artifacts/note.md"], note.as_bytes());
    };
    check(6000, 6000);
    check(500, 500);
}

#[test]
fn values_that_are_no_numbers_are_told_not_sent() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = Spool::create(&folder.path().join("spool"), &description("u1")).unwrap();
    for (step, value) in [0.5, f64::NAN, f64::INFINITY].into_iter().enumerate() {
        spool.metric("val/loss", step as i64, value, 7).unwrap();
    }
    spool.end(Status::Finished, 1_795_377_300_000, None).unwrap();
    assert!(sync(spool.folder(), &settings(&server)).unwrap().complete);
    only_run(&server, |run| {
        assert_eq!(run.points.len(), 1);
        assert_eq!(run.tags["ecgpipe.nonfinite"], "val/loss: 2, first NaN at step 1");
    });
}

#[test]
fn a_vanished_file_is_a_warning() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    std::fs::remove_file(folder.path().join("roc.png")).unwrap();
    std::fs::write(folder.path().join("model.onnx"), "of the next run").unwrap();
    let report = sync(&folder.path().join("spool"), &settings(&server)).unwrap();
    assert!(report.complete);
    assert!(report.set_aside[0].reason.contains("cannot be read"), "{report:?}");
    assert!(report.set_aside[1].reason.contains("has changed"), "{report:?}");
    assert!(server.world.lock().unwrap().models.is_empty());
}

#[test]
fn a_damaged_line_costs_itself_only() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    let spool = Spool::create(&folder.path().join("spool"), &description("u1")).unwrap();
    spool.metric("loss", 0, 0.5, 7).unwrap();
    let mut file = OpenOptions::new().append(true).open(spool.folder().join(METRICS_FILE)).unwrap();
    file.write_all(b"{\"key\":\"lo\n").unwrap();
    spool.metric("loss", 1, 0.5, 8).unwrap();
    spool.end(Status::Finished, 1_795_377_300_000, None).unwrap();
    let report = sync(spool.folder(), &settings(&server)).unwrap();
    assert!(report.complete, "{report:?}");
    assert_eq!(
        report.set_aside.iter().map(|aside| aside.what.as_str()).collect::<Vec<_>>(),
        ["metrics.jsonl at byte 50"]
    );
    assert_eq!(only_run(&server, |run| run.points.len()), 2);
}

#[test]
fn a_deleted_experiment_is_named() {
    let (server, folder) = (FakeServer::start(), TempDir::new().unwrap());
    ended(&folder, "u1");
    server.world.lock().unwrap().experiments.insert("mitbih".to_owned(), ("7".to_owned(), "deleted".to_owned()));
    let text = sync(&folder.path().join("spool"), &settings(&server)).unwrap_err().to_string();
    assert!(text.contains("mitbih") && text.contains("restore --experiment-id 7"), "{text}");
}

#[test]
fn an_old_run_sent_late_does_not_take_the_alias() {
    let server = FakeServer::start();
    let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let spool = |folder: &TempDir, uuid: &str, start_time_ms: i64| {
        let run = RunDescription { start_time_ms, ..description(uuid) };
        let spool = Spool::create(&folder.path().join("spool"), &run).unwrap();
        let onnx_file = folder.path().join("model.onnx");
        std::fs::write(&onnx_file, uuid).unwrap();
        spool.model(model(&onnx_file)).unwrap();
        spool.end(Status::Finished, start_time_ms + 1, None).unwrap();
        spool
    };
    let (old, new) = (spool(&old, "old", 1000), spool(&new, "new", 2000));
    assert!(sync(new.folder(), &settings(&server)).unwrap().complete);
    let report = sync(old.folder(), &settings(&server)).unwrap();
    assert!(report.complete && report.notes[0].contains("stays with version 1"), "{report:?}");
    let world = server.world.lock().unwrap();
    assert_eq!(world.registered["ecg"].len(), 2);
    assert_eq!(world.aliases[&("ecg".to_owned(), "champion".to_owned())], "1");
}

#[test]
fn no_mlflow_behind_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut head).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n<html>hi</html").unwrap();
    });
    let folder = TempDir::new().unwrap();
    ended(&folder, "u1");
    let text = sync(&folder.path().join("spool"), &Settings::new(&uri).unwrap()).unwrap_err().to_string();
    thread.join().unwrap();
    assert!(text.contains("<html>") && text.contains("MLFLOW_TRACKING_URI"), "{text}");
}
