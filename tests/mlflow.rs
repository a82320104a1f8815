//! The copy of a run in MLflow, against a real server.
//!
//! `.ci/mlflow-server run cargo test --release --test mlflow` starts one and sets what is read here:
//!
//! - `ECGPIPE_TEST_MLFLOW_URI`: address of a server; without it the tests say that they are skipped;
//! - `ECGPIPE_TEST_MLFLOW_FOLDER`: its folder, for the test that kills it and starts it again;
//! - `ECGPIPE_TEST_MLFLOW_PYTHON`: a Python with mlflow, onnx and onnxruntime, to load what was logged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ecgpipe::event::{Event, JobName, RunStatus};
use ecgpipe::pipeline::Tracking;
use ecgpipe::track::Listener;
use ecgpipe::track::mlflow::{
    Counts, Dataset, GitState, LoggedModel, Registration, RunDescription, Sender, Settings, Spool, Status, TensorSpec,
    sync,
};
use ecgpipe::track::mlflow_run::MlflowRun;
use ecgpipe::track::run_folder::{FORMAT, RunFile, RunFolder, SweepPoint};
use serde_json::Value;
use tempfile::TempDir;

/// One test at a time: one of them kills the server.
static SERVER: Mutex<()> = Mutex::new(());

const START_MS: i64 = 1_795_377_186_422;
const EPOCH_N: i64 = 30;

/// An ONNX model that flattens `ecg` (n, 1, 5) into `logits` (n, 5), made with onnx 1.23 by
///
/// ```python
/// graph = make_graph([make_node("Flatten", ["ecg"], ["logits"])], "g",
///     [make_tensor_value_info("ecg", FLOAT, ["n", 1, 5])], [make_tensor_value_info("logits", FLOAT, ["n", 5])])
/// make_model(graph, ir_version=8, opset_imports=[make_opsetid("", 13)]).SerializeToString().hex()
/// ```
const FLATTEN_ONNX: &str = "08083a520a160a0365636712066c6f676974732207466c617474656e1201675a1a0a0365636712130a110801120d\
                            0a0312016e0a0208010a02080562190a066c6f67697473120f0a0d080112090a0312016e0a02080542040a00100d";

struct Server {
    settings: Settings,
    _turn: MutexGuard<'static, ()>,
}

/// The server to test against, if there is one.
fn server(test: &str) -> Option<Server> {
    let turn = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let uri = std::env::var("ECGPIPE_TEST_MLFLOW_URI").unwrap_or_default();
    if uri.is_empty() {
        eprintln!("skipped: {test}: ECGPIPE_TEST_MLFLOW_URI is not set (.ci/mlflow-server run ... sets it)");
        return None;
    }
    let mut settings = Settings::new(&uri).unwrap();
    settings.poll = Duration::from_millis(50);
    Some(Server { settings, _turn: turn })
}

impl Server {
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut request = ureq::get(format!("{}/api/2.0/mlflow/{path}", self.settings.tracking_uri));
        for (name, value) in query {
            request = request.query(name, value);
        }
        request.call().unwrap().body_mut().read_json().unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/api/2.0/mlflow/{path}", self.settings.tracking_uri);
        ureq::post(url).send_json(body).unwrap().body_mut().read_json().unwrap()
    }

    fn history(&self, run_id: &str, key: &str) -> Vec<Value> {
        let history = self.get("metrics/get-history", &[("run_id", run_id), ("metric_key", key)]);
        history["metrics"].as_array().cloned().unwrap_or_default()
    }

    fn runs(&self, experiment_id: &str) -> Vec<Value> {
        let body = serde_json::json!({"experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": 100});
        self.post("runs/search", &body)["runs"].as_array().cloned().unwrap_or_default()
    }
}

/// A name that no earlier test on the same server has used.
fn unique(folder: &TempDir, name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), folder.path().file_name().unwrap().to_string_lossy().replace('.', ""))
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn description(folder: &TempDir, name: &str) -> RunDescription {
    RunDescription {
        run_uuid: unique(folder, "uuid"),
        experiment: unique(folder, name),
        run_name: "full 2026-11-23 brave-lynx".to_owned(),
        user: "eve".to_owned(),
        start_time_ms: START_MS,
        source_name: "pipelines/full.yaml".to_owned(),
        git: Some(GitState {
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            branch: Some("main".to_owned()),
            repo_url: Some("https://example.org/ecgpipe.git".to_owned()),
            dirty: true,
            diff_digest: Some("ab".repeat(32)),
        }),
        note_markdown: Some("### full\n\n| class | F1 |\n|---|---|\n| V | 0.91 |\n".to_owned()),
        params: texts([("train.lr", "0.001"), ("train.epoch_n", "30"), ("empty", ""), ("F1 (macro)", "a name to map")]),
        tags: texts([("pipeline", "full"), ("group", "nightly")]),
    }
}

fn tensor(name: &str, dtype: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec() }
}

fn write(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn onnx_file(folder: &TempDir) -> PathBuf {
    let digits = FLATTEN_ONNX.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let bytes = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<_>>();
    write(folder, "ecg_model.onnx", &bytes)
}

/// A run with some of everything, ended.
fn full_run(folder: &TempDir, run: &RunDescription) -> Spool {
    let spool = Spool::create(&folder.path().join("spool"), run).unwrap();
    for epoch in 0..EPOCH_N {
        let time_ms = START_MS + 1000 * epoch;
        spool.metric("train/loss", epoch, 1.6 * 0.9f64.powi(epoch as i32), time_ms).unwrap();
        spool.metric("validation/macro_f1", epoch, 1.0 - 0.7 * 0.9f64.powi(epoch as i32), time_ms).unwrap();
    }
    spool.metric("test/V/sensitivity %", 0, 91.25, START_MS).unwrap();
    spool.metric("train/loss", EPOCH_N, f64::NAN, START_MS).unwrap();
    let svg =
        br#"<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><path d="M0 40L40 0" stroke="red"/></svg>"#;
    spool.artifact("plots/confusion matrix.svg", &write(folder, "confusion.svg", svg)).unwrap();
    spool.artifact("report.md", &write(folder, "report.md", b"# Report\n\nFor review, not a diagnosis.\n")).unwrap();
    spool
        .dataset(Dataset {
            name: "mitdb DS1".to_owned(),
            digest: "0123456789abcdef".repeat(4),
            context: "training".to_owned(),
            source_uri: "data/raw/mitdb".to_owned(),
            features: tensor("", "float32", &[-1, 1, 187]),
            targets: Some(tensor("", "int64", &[-1])),
            row_n: 51_002,
            counts: BTreeMap::from([("N".to_owned(), 45_844), ("V".to_owned(), 3788)]),
        })
        .unwrap();
    spool
        .model(LoggedModel {
            name: "ecgnet".to_owned(),
            onnx_file: onnx_file(folder),
            model_type: "classifier".to_owned(),
            time_ms: START_MS + 60_000,
            step: EPOCH_N - 1,
            onnx_version: "1.17.0".to_owned(),
            inputs: vec![tensor("ecg", "float32", &[-1, 1, 5])],
            outputs: vec![tensor("logits", "float32", &[-1, 5])],
            input_example: Some(serde_json::json!([[[0.0, 0.25, 0.5, 0.75, 1.0]]])),
            params: texts([("architecture", "cnn1d")]),
            tags: texts([("classes", "N S V F Q")]),
            metrics: vec!["test/V/sensitivity %".to_owned()],
            evaluated_on: Some("mitdb DS1".to_owned()),
            registered_model: Some(Registration { name: run.experiment.clone(), alias: Some("champion".to_owned()) }),
        })
        .unwrap();
    spool.set_tag("verdict", "better than the baseline").unwrap();
    spool.end(Status::Finished, START_MS + 61_000, None).unwrap();
    spool
}

#[test]
fn a_run_reads_back_whole_and_twice_is_once() {
    let Some(server) = server("a_run_reads_back_whole_and_twice_is_once") else { return };
    let folder = TempDir::new().unwrap();
    let run = description(&folder, "whole");
    let spool = full_run(&folder, &run);
    let report = sync(spool.folder(), &server.settings).unwrap();
    assert!(report.complete && report.set_aside.is_empty() && report.mismatches.is_empty(), "{report:?}");
    let (experiment_id, run_id) = (report.experiment_id.clone().unwrap(), report.run_id.clone().unwrap());

    let check = || {
        assert_eq!(server.runs(&experiment_id).len(), 1);
        let read = server.get("runs/get", &[("run_id", &run_id)])["run"].clone();
        assert_eq!(read["info"]["status"], "FINISHED");
        assert_eq!(read["info"]["run_name"], run.run_name.as_str());
        assert_eq!(read["info"]["start_time"], START_MS);
        assert_eq!(read["info"]["end_time"], START_MS + 61_000);
        let map = |pairs: &Value| {
            let pairs = pairs.as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            pairs.map(|pair| (text(&pair["key"]), text(&pair["value"]))).collect::<BTreeMap<_, _>>()
        };
        let (params, tags) = (map(&read["data"]["params"]), map(&read["data"]["tags"]));
        assert_eq!((params.len(), params["train.lr"].as_str(), params["empty"].as_str()), (4, "0.001", ""));
        assert_eq!(tags["mlflow.source.git.commit"], run.git.clone().unwrap().commit);
        assert_eq!(tags["mlflow.note.content"], run.note_markdown.clone().unwrap());
        assert_eq!(tags["ecgpipe.git.dirty"], "true");
        assert_eq!(tags["verdict"], "better than the baseline");
        assert_eq!(tags["ecgpipe.nonfinite"], "train/loss: 1, first NaN at step 30");
        assert!(tags["ecgpipe.renamed"].contains("test/V/sensitivity %"));
        let history = server.history(&run_id, "train/loss");
        assert_eq!(history.len(), EPOCH_N as usize);
        for (epoch, point) in history.iter().enumerate() {
            assert_eq!(point["step"].as_i64().unwrap_or(0), epoch as i64);
            assert_eq!(point["timestamp"].as_i64().unwrap(), START_MS + 1000 * epoch as i64);
            // To the last bit but one, which the JSON reader of this test rounds as it likes.
            let (value, wanted) = (point["value"].as_f64().unwrap(), 1.6 * 0.9f64.powi(epoch as i32));
            assert!(value.to_bits().abs_diff(wanted.to_bits()) <= 1, "{value} at {epoch}, not {wanted}");
        }
        let dataset = &read["inputs"]["dataset_inputs"];
        assert_eq!(dataset.as_array().unwrap().len(), 1);
        assert_eq!(dataset[0]["dataset"]["name"], "mitdb DS1");
        assert!(dataset[0]["dataset"]["profile"].as_str().unwrap().contains("51002"));
        assert_eq!(read["outputs"]["model_outputs"].as_array().unwrap().len(), 1);
        let plots = server.get("artifacts/list", &[("run_id", &run_id), ("path", "plots")]);
        assert_eq!(plots["files"][0]["path"], "plots/confusion matrix.svg");
        let body = serde_json::json!({"experiment_ids": [experiment_id]});
        let models = server.post("logged-models/search", &body)["models"].clone();
        assert_eq!(models.as_array().unwrap().len(), 1);
        assert_eq!(models[0]["info"]["status"], "LOGGED_MODEL_READY");
        let metrics = &models[0]["data"]["metrics"];
        assert_eq!(metrics.as_array().unwrap().len(), 1, "{metrics}");
        assert_eq!((&metrics[0]["value"], &metrics[0]["dataset_name"]), (&91.25.into(), &"mitdb DS1".into()));
        assert_eq!(
            server.history(&run_id, metrics[0]["key"].as_str().unwrap()).len(),
            1,
            "the same point, not another"
        );
        let filter = format!("name = '{}'", run.experiment);
        let versions = server.get("model-versions/search", &[("filter", &filter)]);
        assert_eq!(versions["model_versions"].as_array().unwrap().len(), 1);
        models[0]["info"]["model_id"].as_str().unwrap().to_owned()
    };
    let model_id = check();

    // Once more as it is, and once more as after the loss of all that the client knew.
    let again = sync(spool.folder(), &server.settings).unwrap();
    assert_eq!((again.complete, again.sent, again.already_there), (true, Counts::default(), report.sent));
    check();
    std::fs::remove_file(spool.folder().join("state.json")).unwrap();
    let anew = sync(spool.folder(), &server.settings).unwrap();
    assert_eq!((anew.complete, anew.sent), (true, report.sent), "{anew:?}");
    assert_eq!(anew.run_id.as_deref(), Some(run_id.as_str()));
    assert_eq!(check(), model_id);

    loads_in_python(&server, &model_id, &run.experiment);
}

/// MLflow's own client loads the model, by its id and by its alias, and it computes what the ONNX file says.
fn loads_in_python(server: &Server, model_id: &str, registered: &str) {
    let python = std::env::var("ECGPIPE_TEST_MLFLOW_PYTHON").unwrap_or_default();
    if python.is_empty() {
        eprintln!("skipped: loading the model with mlflow: ECGPIPE_TEST_MLFLOW_PYTHON is not set");
        return;
    }
    let script = "
import sys, mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
uris = [f'models:/{sys.argv[2]}', f'models:/{sys.argv[3]}@champion']
x = numpy.arange(10, dtype=numpy.float32).reshape(2, 1, 5)
for uri in uris:
    assert mlflow.onnx.load_model(uri).graph.input[0].name == 'ecg'
    model = mlflow.pyfunc.load_model(uri)
    numpy.testing.assert_array_equal(model.predict({'ecg': x})['logits'], x.reshape(2, 5))
    assert model.metadata.signature.outputs.to_dict()[0]['tensor-spec']['shape'] == (-1, 5)
    example = mlflow.models.Model.load(uri).load_input_example(mlflow.artifacts.download_artifacts(uri))
    assert model.predict(example)['logits'].shape == (1, 5), example
";
    let mut command = Command::new(python);
    command.arg("-c").arg(script).args([&server.settings.tracking_uri, model_id, registered]);
    let output = command.env("MLFLOW_DISABLE_TELEMETRY", "true").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_killed_in_the_middle_and_started_again_misses_nothing() {
    let test = "a_server_killed_in_the_middle_and_started_again_misses_nothing";
    let Some(server) = server(test) else { return };
    let Ok(server_folder) = std::env::var("ECGPIPE_TEST_MLFLOW_FOLDER") else {
        eprintln!("skipped: {test}: ECGPIPE_TEST_MLFLOW_FOLDER is not set (.ci/mlflow-server run ... sets it)");
        return;
    };
    let control = |verb: &str, port: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/mlflow-server");
        let status = Command::new(script).arg(verb).arg(&server_folder).args(port).status().unwrap();
        assert!(status.success(), "mlflow-server {verb}");
    };
    let folder = TempDir::new().unwrap();
    let spool = Spool::create(&folder.path().join("spool"), &description(&folder, "outage")).unwrap();
    let sender = Sender::start(spool.folder(), server.settings.clone());
    let log = |from: i64, until: i64| {
        for step in from..until {
            spool.metric("train/batch_loss", step, 1.0 / (1 + step) as f64, START_MS + step).unwrap();
        }
    };
    log(0, 3000);
    let begin = Instant::now();
    while sender.report().sent.points == 0 {
        assert!(begin.elapsed() < Duration::from_secs(120), "nothing is sent: {:?}", sender.report());
        std::thread::sleep(Duration::from_millis(1));
    }
    // Most of the batches are still to come, one is probably on its way.
    control("kill", &[]);
    let begin = Instant::now();
    log(3000, 5000);
    assert!(begin.elapsed() < Duration::from_secs(10), "the run does not notice");
    let port = server.settings.tracking_uri.rsplit_once(':').unwrap().1;
    control("start", &[port]);
    spool.end(Status::Finished, START_MS + 9000, None).unwrap();
    let report = sender.finish(Duration::from_secs(180));
    assert!(report.complete, "{report:?}");
    let (experiment_id, run_id) = (report.experiment_id.unwrap(), report.run_id.unwrap());
    assert_eq!(server.runs(&experiment_id).len(), 1);
    let mut steps = server
        .history(&run_id, "train/batch_loss")
        .iter()
        .map(|point| point["step"].as_i64().unwrap_or(0))
        .collect::<Vec<_>>();
    steps.sort_unstable();
    assert!(steps.iter().copied().eq(0..5000), "every point once: {} points", steps.len());
}

#[test]
fn a_deleted_experiment_is_named_by_the_real_server_too() {
    let Some(server) = server("a_deleted_experiment_is_named_by_the_real_server_too") else { return };
    let folder = TempDir::new().unwrap();
    let run = description(&folder, "deleted");
    let spool = Spool::create(&folder.path().join("spool"), &run).unwrap();
    spool.metric("loss", 0, 1.0, START_MS).unwrap();
    let experiment_id = sync(spool.folder(), &server.settings).unwrap().experiment_id.unwrap();
    server.post("experiments/delete", &serde_json::json!({"experiment_id": experiment_id}));
    let other = TempDir::new().unwrap();
    let run = RunDescription { run_uuid: unique(&other, "uuid"), ..run };
    let spool = Spool::create(&other.path().join("spool"), &run).unwrap();
    let text = sync(spool.folder(), &server.settings).unwrap_err().to_string();
    assert!(text.contains("was deleted") && text.contains(&format!("--experiment-id {experiment_id}")), "{text}");
}

#[test]
fn long_values_stay_whole_on_the_real_server() {
    let Some(server) = server("long_values_stay_whole_on_the_real_server") else { return };
    let folder = TempDir::new().unwrap();
    let mut run = description(&folder, "long");
    run.params.insert("classes".to_owned(), "é".repeat(7000));
    run.params.extend((0..250).map(|idx| (format!("p/{idx:03}"), "x".repeat(5999))));
    run.note_markdown = Some("n".repeat(9000));
    let spool = Spool::create(&folder.path().join("spool"), &run).unwrap();
    spool.end(Status::Failed, START_MS + 1, Some("stage `train`: no memory".to_owned())).unwrap();
    let report = sync(spool.folder(), &server.settings).unwrap();
    assert!(report.complete && report.set_aside.is_empty(), "{report:?}");
    assert_eq!(report.sent.params, 255);
    let listed = server.get("artifacts/list", &[("run_id", report.run_id.as_deref().unwrap())]);
    let paths =
        listed["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(paths, ["note.md", "params.json"]);
}

#[test]
fn the_points_of_a_sweep_stand_side_by_side() {
    let Some(server) = server("the_points_of_a_sweep_stand_side_by_side") else { return };
    let folder = TempDir::new().unwrap();
    let (sweep, experiment) = (unique(&folder, "sweep"), unique(&folder, "swept"));
    let tracking =
        Tracking { experiment: Some(experiment.clone()), registered_model: Some(experiment.clone()), uri: None };
    let run = |point: Option<usize>| {
        let epochs = point.map_or(10, |point| 5 * point).to_string();
        let sweep = point.map(|point| {
            let varied = vec![("train.epochs".to_owned(), epochs.clone())];
            SweepPoint { id: sweep.clone(), point, point_n: 3, varied }
        });
        let run_file = RunFile {
            format: FORMAT,
            id: format!("run-{}", point.unwrap_or(0)),
            uuid: unique(&folder, &format!("uuid{}", point.unwrap_or(0))),
            pipeline: "full".to_owned(),
            file: "pipelines/full.yaml".to_owned(),
            sets: vec![format!("train.epochs={epochs}")],
            seed: 1,
            version: "0.1.0".to_owned(),
            git: None,
            started_ms: START_MS,
            ended_ms: None,
            status: None,
            counts: None,
            sweep,
        };
        let run_folder = RunFolder::create(folder.path(), run_file).unwrap();
        let (params, settings) = (texts([("train.epochs", &epochs)]), Some(server.settings.clone()));
        let copy = MlflowRun::start(run_folder.path(), run_folder.run(), &tracking, params, None, settings).unwrap();
        let point = ecgpipe_sdk::MetricPoint { key: "test/accuracy".to_owned(), step: 0, value: 0.9 };
        let job = JobName { node: "evaluate".to_owned(), record: None };
        copy.listener().hear(&Event::Metric { job, point });
        copy.end(RunStatus::Finished, None, None, &[]).unwrap().unwrap()
    };
    // As a sweep does: the copies go on side by side, and are waited for at the end.
    let sendings = [run(Some(1)), run(Some(2)), run(Some(3)), run(None)];
    let sent = sendings.map(|sending| sending.finish(Duration::from_secs(120)));
    let urls: Vec<Option<String>> = sent.iter().map(|sent| sent.sweep_url(&sweep)).collect();
    assert!(urls.iter().all(|url| url == &urls[0]), "one page for all: {urls:?}");
    let url = urls[0].clone().unwrap();
    let experiment_id = url.split('/').nth(5).unwrap().to_owned();
    assert!(
        url.contains(&format!("/#/experiments/{experiment_id}/runs?searchFilter=tags.%60ecgpipe.sweep%60")),
        "{url}"
    );

    let filter = format!("tags.`ecgpipe.sweep` = \"{sweep}\"");
    let body = serde_json::json!({"experiment_ids": [experiment_id], "filter": filter, "order_by": ["params.`train.epochs` ASC"]});
    let found = server.post("runs/search", &body)["runs"].as_array().cloned().unwrap();
    let mut shown: Vec<(String, String)> = found
        .iter()
        .map(|run| {
            let tags = run["data"]["tags"].as_array().unwrap();
            assert!(tags.iter().all(|tag| tag["key"] != "mlflow.parentRunId"), "flat: a parent would hide them");
            let point = tags.iter().find(|tag| tag["key"] == "ecgpipe.sweep.point").unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&run["info"]["run_name"]), text(&point["value"]))
        })
        .collect();
    shown.sort();
    let mut expected =
        [1, 2, 3].map(|point| (format!("train.epochs={} ({point} of 3)", 5 * point), format!("{point} of 3")));
    expected.sort();
    assert_eq!(shown, expected);
    assert_eq!(server.runs(&experiment_id).len(), 4, "the run that is no point is there too");
}
