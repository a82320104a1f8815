//! A small MLflow in memory that fails on order: what tests of outages need and a real server cannot do.
//!
//! It keeps what the real one keeps (measured: points told apart by key, step, time and value; parameters that cannot
//! change; a second run for a second `runs/create`), and writes down every request. `tests/mlflow.rs` checks the same
//! code against the real one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// What happens to a request instead of the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Answered with this status, not done.
    Status(u16),
    /// 429 with `Retry-After: 0`.
    Busy,
    /// The connection is cut before it is done.
    CutBefore,
    /// It is done, and the connection is cut before the answer: the worst case for a client.
    CutAfter,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) authorization: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    /// Faults for requests to come: the path has to contain the text.
    pub(super) faults: VecDeque<(String, Fault)>,
    /// From the request of this number on (from 0) all connections are cut: a crash of the client, seen from here.
    pub(super) dead_from: Option<usize>,
    /// The request of this number is done, but its answer is lost.
    pub(super) lost_at: Option<usize>,
    /// Nothing at all is answered.
    pub(super) down: bool,
    pub(super) requests: Vec<Request>,
    pub(super) experiments: BTreeMap<String, (String, String)>,
    pub(super) runs: Vec<FakeRun>,
    pub(super) models: Vec<Value>,
    pub(super) artifacts: BTreeMap<String, Vec<u8>>,
    pub(super) registered: BTreeMap<String, Vec<Value>>,
    pub(super) aliases: BTreeMap<(String, String), String>,
    /// Longest parameter value.
    pub(super) param_char_n: usize,
}

#[derive(Debug, Default)]
pub(super) struct FakeRun {
    pub(super) created: Value,
    pub(super) status: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) params: BTreeMap<String, String>,
    pub(super) points: BTreeSet<(String, i64, i64, u64)>,
    pub(super) datasets: BTreeSet<(String, String)>,
    pub(super) outputs: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct FakeServer {
    pub(super) uri: String,
    pub(super) world: Arc<Mutex<World>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World { param_char_n: 6000, ..World::default() }));
        let stop = Arc::<AtomicBool>::default();
        let (thread_world, thread_stop) = (Arc::clone(&world), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_stop.load(Ordering::SeqCst) {
                    return;
                }
                // One request a connection keeps a cut connection from touching the next request.
                let _ = serve(&stream.unwrap(), &thread_world);
            }
        });
        Self { uri: format!("http://{address}"), world, stop, thread: Some(thread) }
    }

    /// Paths of the requests so far, without the root.
    pub(super) fn paths(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        world.requests.iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    pub(super) fn fail(&self, path: &str, faults: &[Fault]) {
        let mut world = self.world.lock().unwrap();
        world.faults.extend(faults.iter().map(|fault| (path.to_owned(), *fault)));
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.uri.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(stream: &TcpStream, world: &Mutex<World>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line[name.len() + 1..].trim().to_owned())
    };
    let mut words = head[0].split(' ');
    let method = words.next().unwrap().to_owned();
    let path = words.next().unwrap().to_owned();
    let mut body = vec![0; header("content-length").map_or(0, |text| text.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let mut world = world.lock().unwrap();
    if world.down || world.dead_from.is_some_and(|dead_from| world.requests.len() >= dead_from) {
        return Ok(());
    }
    let json_body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = path.trim_start_matches("/api/2.0/mlflow/").to_owned();
    let authorization = header("authorization");
    world.requests.push(Request { method: method.clone(), path: path.clone(), body: json_body.clone(), authorization });
    let fault = match world.faults.front() {
        Some((part, fault)) if path.contains(part.as_str()) => {
            let fault = *fault;
            world.faults.pop_front();
            Some(fault)
        }
        _ => None,
    };
    let (status, answer) = match fault {
        Some(Fault::Busy) => (429, json!({})),
        Some(Fault::CutBefore) => return Ok(()),
        Some(Fault::Status(status)) => (status, json!({"error_code": "FAULT", "message": "on order"})),
        Some(Fault::CutAfter) | None => world.answer(&method, &path, &json_body, body),
    };
    if fault == Some(Fault::CutAfter) || world.lost_at == Some(world.requests.len() - 1) {
        return Ok(());
    }
    let text = if path == "/version" { "3.17.2".to_owned() } else { answer.to_string() };
    let mut stream = stream;
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nRetry-After: 0\r\nConnection: close\r\n\r\n{text}"
    )
}

fn missing(what: &str) -> (u16, Value) {
    (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": format!("{what} not found")}))
}

fn wrong(message: &str) -> (u16, Value) {
    (400, json!({"error_code": "INVALID_PARAMETER_VALUE", "message": message}))
}

fn text(value: &Value) -> String {
    value.as_str().expect("MLflow wants a text here").to_owned()
}

fn quoted_in(filter: &str) -> String {
    filter.split('\'').nth(1).unwrap().to_owned()
}

impl World {
    fn run(&mut self, run_id: &str) -> Option<&mut FakeRun> {
        let run_idx = run_id.strip_prefix("run").and_then(|number| number.parse::<usize>().ok())?;
        self.runs.get_mut(run_idx)
    }

    fn run_json(&self, run_idx: usize) -> Value {
        let run = &self.runs[run_idx];
        let experiment = text(&run.created["experiment_id"]);
        let params = run.params.iter().map(|(key, value)| json!({"key": key, "value": value}));
        json!({
            "info": {"run_id": format!("run{run_idx}"), "experiment_id": experiment, "status": run.status,
                "artifact_uri": format!("mlflow-artifacts:/{experiment}/run{run_idx}/artifacts"), "lifecycle_stage": "active"},
            "data": {"params": params.collect::<Vec<_>>()},
            "inputs": {"dataset_inputs": run.datasets.iter().map(|_| json!({})).collect::<Vec<_>>()},
            "outputs": {"model_outputs": run.outputs.iter().map(|_| json!({})).collect::<Vec<_>>()},
        })
    }

    fn answer(&mut self, method: &str, path: &str, body: &Value, raw: Vec<u8>) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).collect::<BTreeMap<_, _>>();
        let query = |name: &str| {
            let encoded = query.get(name).copied().unwrap_or_default().replace("%2F", "/").replace("%20", " ");
            encoded.replace("%27", "'").replace('+', " ").replace("%3D", "=")
        };
        if let Some(path) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
            self.artifacts.insert(path.replace("%20", " "), raw);
            return (200, json!({}));
        }
        if let Some(run_id) = body.get("run_id")
            && path.starts_with("runs/")
            && self.run(&text(run_id)).is_none()
        {
            return missing(&format!("Run {run_id}"));
        }
        match (method, path) {
            ("GET", "/version") => (200, Value::Null),
            ("GET", "experiments/get-by-name") => match self.experiments.get(&query("experiment_name")) {
                Some((id, stage)) => (200, json!({"experiment": {"experiment_id": id, "lifecycle_stage": stage}})),
                None => missing("experiment"),
            },
            ("POST", "experiments/create") => {
                if self.experiments.contains_key(&text(&body["name"])) {
                    return (400, json!({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "it is there"}));
                }
                let id = (self.experiments.len() + 1).to_string();
                self.experiments.insert(text(&body["name"]), (id.clone(), "active".to_owned()));
                (200, json!({"experiment_id": id}))
            }
            ("POST", "runs/create") => {
                let tags = body["tags"].as_array().unwrap();
                let tags = tags.iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect();
                let run = FakeRun { created: body.clone(), status: "RUNNING".to_owned(), tags, ..FakeRun::default() };
                self.runs.push(run);
                (200, json!({"run": self.run_json(self.runs.len() - 1)}))
            }
            ("POST", "runs/search") => {
                let uuid = quoted_in(&text(&body["filter"]));
                let found =
                    (0..self.runs.len()).filter(|&idx| self.runs[idx].tags.get("ecgpipe.run_uuid") == Some(&uuid));
                (200, json!({"runs": found.map(|idx| self.run_json(idx)).collect::<Vec<_>>()}))
            }
            ("GET", "runs/get") => {
                let run_id = query("run_id");
                match self.run(&run_id) {
                    Some(_) => (200, json!({"run": self.run_json(run_id[3..].parse().unwrap())})),
                    None => missing(&format!("Run {run_id}")),
                }
            }
            ("POST", "runs/log-batch") => {
                let longest_n = self.param_char_n;
                let run = self.run(&text(&body["run_id"])).unwrap();
                for param in body["params"].as_array().unwrap() {
                    let (key, value) = (text(&param["key"]), text(&param["value"]));
                    if value.chars().count() > longest_n {
                        return wrong("the value is too long");
                    }
                    if run.params.get(&key).is_some_and(|there| *there != value) {
                        return wrong("Changing param values is not allowed");
                    }
                }
                for metric in body["metrics"].as_array().unwrap() {
                    if text(&metric["key"]).contains("refused") {
                        return wrong("the name is refused");
                    }
                }
                for param in body["params"].as_array().unwrap() {
                    run.params.insert(text(&param["key"]), text(&param["value"]));
                }
                for tag in body["tags"].as_array().unwrap() {
                    run.tags.insert(text(&tag["key"]), text(&tag["value"]));
                }
                for metric in body["metrics"].as_array().unwrap() {
                    let (step, time_ms) = (metric["step"].as_i64().unwrap(), metric["timestamp"].as_i64().unwrap());
                    let value = metric["value"].as_f64().unwrap();
                    run.points.insert((text(&metric["key"]), step, time_ms, value.to_bits()));
                }
                (200, json!({}))
            }
            ("POST", "runs/set-tag") => {
                let (key, value) = (text(&body["key"]), text(&body["value"]));
                self.run(&text(&body["run_id"])).unwrap().tags.insert(key, value);
                (200, json!({}))
            }
            ("POST", "runs/log-inputs") => {
                let run = self.run(&text(&body["run_id"])).unwrap();
                for input in body["datasets"].as_array().unwrap() {
                    let dataset = &input["dataset"];
                    assert!(text(&dataset["digest"]).len() <= 36);
                    run.datasets.insert((text(&dataset["name"]), text(&dataset["digest"])));
                }
                (200, json!({}))
            }
            ("POST", "runs/outputs") => {
                let run = self.run(&text(&body["run_id"])).unwrap();
                if run.outputs.insert(text(&body["models"][0]["model_id"])) {
                    (200, json!({}))
                } else {
                    (400, json!({"error_code": "BAD_REQUEST", "message": "(sqlite3) UNIQUE constraint failed"}))
                }
            }
            ("POST", "runs/update") => {
                self.run(&text(&body["run_id"])).unwrap().status = text(&body["status"]);
                (200, json!({}))
            }
            ("GET", "metrics/get-history") => {
                let key = query("metric_key");
                let run = self.run(&query("run_id")).unwrap();
                let points = run.points.iter().filter(|point| point.0 == key).map(|_| json!({}));
                (200, json!({"metrics": points.collect::<Vec<_>>()}))
            }
            ("GET", "artifacts/list") => {
                let run_id = query("run_id");
                let folder = query("path");
                let files = self.artifacts.iter().filter_map(|(path, bytes)| {
                    let path = path.split_once(&format!("/{run_id}/artifacts/"))?.1;
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    (parent == folder).then(|| json!({"path": path, "is_dir": false, "file_size": bytes.len()}))
                });
                (200, json!({"files": files.collect::<Vec<_>>()}))
            }
            ("POST", "logged-models/search") => (200, json!({"models": self.models})),
            ("POST", "logged-models") => {
                let id = format!("m-{}", self.models.len());
                let root = format!("mlflow-artifacts:/1/models/{id}/artifacts");
                let model =
                    json!({"info": {"model_id": id, "artifact_uri": root, "tags": body["tags"], "status": "PENDING"}});
                self.models.push(model.clone());
                (200, json!({"model": model}))
            }
            ("PATCH", path) if path.starts_with("logged-models/m-") => {
                let model_idx = path["logged-models/m-".len()..].parse::<usize>().unwrap();
                self.models[model_idx]["info"]["status"] = body["status"].clone();
                (200, json!({}))
            }
            ("POST", "registered-models/create") => {
                let name = text(&body["name"]);
                if self.registered.contains_key(&name) {
                    return (400, json!({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "it is there"}));
                }
                self.registered.insert(name, Vec::new());
                (200, json!({}))
            }
            ("GET", "model-versions/search") => {
                let run_id = quoted_in(&query("filter"));
                let versions =
                    self.registered.values().flatten().filter(|version| version["run_id"] == run_id.as_str());
                (200, json!({"model_versions": versions.collect::<Vec<_>>()}))
            }
            ("POST", "model-versions/create") => {
                let versions = self.registered.get_mut(&text(&body["name"])).unwrap();
                let mut version = body.clone();
                version["version"] = (versions.len() + 1).to_string().into();
                versions.push(version.clone());
                (200, json!({"model_version": version}))
            }
            ("GET", "registered-models/alias") => match self.aliases.get(&(query("name"), query("alias"))) {
                Some(version) => {
                    let versions = &self.registered[&query("name")];
                    let found = versions.iter().find(|found| found["version"] == version.as_str());
                    (200, json!({"model_version": found}))
                }
                None => missing("alias"),
            },
            ("POST", "registered-models/alias") => {
                self.aliases.insert((text(&body["name"]), text(&body["alias"])), text(&body["version"]));
                (200, json!({}))
            }
            _ => panic!("no such endpoint: {method} {path}"),
        }
    }
}
