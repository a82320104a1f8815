//! Owns the translation of a run into what [`super::mlflow`] understands: parameters, metrics, dataset, files, the model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ecgpipe_sdk::Onnx;
use serde::Deserialize;

use super::{
    Listener,
    mlflow::{
        Dataset, GitState, LoggedModel, Registration, RunDescription, Sender, Settings, Spool, SpoolError, Status,
        TensorSpec,
    },
    run_folder::{RunFile, SweepPoint, now_ms},
};
use crate::{
    digest::Digest,
    event::{Event, RunStatus},
    pipeline::Tracking,
};

/// The spool's folder inside a run folder.
pub const SPOOL_FOLDER: &str = "mlflow";

/// How long the end of a run waits for a server that is slow; the rest is for `ecgpipe mlflow sync`.
pub const FINISH_DEADLINE: Duration = Duration::from_secs(20);

/// The spool of one run and, where a server is configured, the thread that empties it.
pub struct MlflowRun {
    spool: Arc<Spool>,
    sender: Option<Sender>,
    run_id: String,
    registered_model: Option<String>,
}

/// The raw data of a run, as MLflow's dataset input.
pub struct DatasetFacts {
    /// Name, for example `mitdb`.
    pub name: String,
    /// One digest over all raw files.
    pub digest: Digest,
    /// Where it is.
    pub source: String,
    /// Records.
    pub record_n: u64,
}

impl MlflowRun {
    /// Opens the spool in `run_folder` and, with `settings`, starts to send.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn start(
        run_folder: &Path,
        run: &RunFile,
        tracking: &Tracking,
        params: BTreeMap<String, String>,
        repo_url: Option<String>,
        settings: Option<Settings>,
    ) -> Result<Self, SpoolError> {
        let folder = run_folder.join(SPOOL_FOLDER);
        let experiment = tracking.experiment.clone().unwrap_or_else(|| run.pipeline.clone());
        let mut tags = BTreeMap::from([
            ("ecgpipe.version".to_owned(), run.version.clone()),
            ("ecgpipe.run_id".to_owned(), run.id.clone()),
            ("ecgpipe.pipeline".to_owned(), run.pipeline.clone()),
        ]);
        if let Some(sweep) = &run.sweep {
            tags.insert("ecgpipe.sweep".to_owned(), sweep.id.clone());
            tags.insert("ecgpipe.sweep.point".to_owned(), format!("{} of {}", sweep.point, sweep.point_n));
        }
        let description = RunDescription {
            run_uuid: run.uuid.clone(),
            experiment,
            run_name: run.sweep.as_ref().map_or_else(|| run.id.clone(), SweepPoint::title),
            user: std::env::var("USER").unwrap_or_else(|_| "ecgpipe".to_owned()),
            start_time_ms: run.started_ms,
            source_name: run.file.clone(),
            git: run.git.as_ref().map(|git| GitState {
                commit: git.commit.clone(),
                branch: Some(git.branch.clone()),
                repo_url,
                dirty: git.dirty,
                diff_digest: None,
            }),
            note_markdown: None,
            params,
            tags,
        };
        let spool = Arc::new(Spool::create(&folder, &description)?);
        let sender = settings.map(|settings| Sender::start(&folder, settings));
        // Every point would be a version of the model; a person, or `--publish-best`, chooses one.
        let registered_model = tracking.registered_model.clone().filter(|_| run.sweep.is_none());
        Ok(Self { spool, sender, run_id: run.id.clone(), registered_model })
    }

    /// A listener that writes every metric into the spool.
    #[must_use]
    pub fn listener(&self) -> MetricSpooler {
        MetricSpooler { spool: Arc::clone(&self.spool) }
    }

    /// Adds the dataset and the published files and says how the run ended; what is on its way to a server goes on.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn end(
        self,
        status: RunStatus,
        error: Option<String>,
        dataset: Option<DatasetFacts>,
        files: &[(String, PathBuf)],
    ) -> Result<Option<Sending>, SpoolError> {
        let onnx = files.iter().map(|(_, file)| file).find(|file| file.extension().is_some_and(|kind| kind == "onnx"));
        let signature = onnx.and_then(|file| signature(file));
        let dataset_name = dataset.as_ref().map(|facts| facts.name.clone());
        if let Some(facts) = dataset {
            self.spool.dataset(Dataset {
                name: facts.name,
                digest: facts.digest.short(),
                context: "training".to_owned(),
                source_uri: facts.source,
                features: tensor("window", &[-1, 1, signature.as_ref().map_or(-1, |known| known.window_n)]),
                targets: None,
                row_n: facts.record_n,
                counts: BTreeMap::from([("records".to_owned(), facts.record_n)]),
            })?;
        }
        for (path_in_run, file) in files {
            self.spool.artifact(path_in_run, file)?;
        }
        if let (Some(onnx), Some(signature)) = (onnx, signature) {
            self.spool.model(LoggedModel {
                name: onnx.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned()),
                onnx_file: onnx.clone(),
                model_type: "classifier".to_owned(),
                time_ms: now_ms(),
                step: 0,
                onnx_version: "1.20.0".to_owned(),
                inputs: vec![tensor("window", &[-1, 1, signature.window_n])],
                outputs: vec![tensor("probabilities", &[-1, signature.class_names.len() as i64])],
                input_example: None,
                params: BTreeMap::new(),
                tags: BTreeMap::new(),
                metrics: ["test/accuracy", "test/macro_f1_nsvf"].map(str::to_owned).to_vec(),
                evaluated_on: dataset_name,
                registered_model: self.registered_model.map(|name| Registration { name, alias: None }),
            })?;
        }
        let status = match status {
            RunStatus::Finished => Status::Finished,
            RunStatus::Failed => Status::Failed,
            RunStatus::Cancelled => Status::Killed,
        };
        self.spool.end(status, now_ms(), error)?;
        Ok(self.sender.map(|sender| Sending { run_id: self.run_id, sender }))
    }
}

/// The copy of an ended run that is on its way to the server.
pub struct Sending {
    run_id: String,
    sender: Sender,
}

impl Sending {
    /// Whether there is nothing to wait for any longer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let report = self.sender.report();
        report.complete || report.halted.is_some()
    }

    /// Waits for the server, for `deadline` at most, and says what became of the copy.
    pub fn finish(self, deadline: Duration, tell: &dyn Fn(Event)) {
        let report = self.sender.finish(deadline);
        if report.complete {
            let text = report.run_url.clone().unwrap_or_else(|| report.summary());
            tell(Event::Note { job: None, text: format!("MLflow: {text}") });
        } else {
            let (summary, id) = (report.summary(), self.run_id);
            let text = format!("MLflow: {summary}; nothing is lost: `ecgpipe mlflow sync {id}` sends the rest");
            tell(Event::Warning { job: None, text });
        }
    }
}

/// What a published model says of itself in its metadata, as far as MLflow wants to know it.
#[derive(Deserialize)]
struct Signature {
    window_n: i64,
    class_names: Vec<String>,
}

/// `None` for a file that is gone or does not say: it is then an artifact like others, not a logged model.
fn signature(onnx: &Path) -> Option<Signature> {
    let metadata = Onnx::metadata(&std::fs::read(onnx).ok()?).ok()?;
    serde_json::from_str(metadata.get("ecgpipe.signature")?).ok()
}

fn tensor(name: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: "float32".to_owned(), shape: shape.to_vec() }
}

/// Writes metrics into the spool as they come.
pub struct MetricSpooler {
    spool: Arc<Spool>,
}

impl Listener for MetricSpooler {
    fn hear(&mut self, event: &Event) {
        if let Event::Metric { point, .. } = event {
            // A full disk must not stop the run; metrics.json and the artifacts hold the point as well.
            let _ = self.spool.metric(&point.key, point.step, point.value, now_ms());
        }
    }
}
