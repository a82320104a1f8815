//! What goes over the wire, typed: MLflow answers a wrong JSON type with 200 and loses the data silently.
//!
//! Requests borrow, answers own. Field names are MLflow's.

use serde::{Deserialize, Serialize};

use super::spool::Status;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Point<'a> {
    pub(super) key: &'a str,
    /// Always finite: JSON has no other numbers.
    pub(super) value: f64,
    pub(super) timestamp: i64,
    pub(super) step: i64,
    /// The model that the point is about, and what that was tried on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dataset_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dataset_digest: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateExperiment<'a> {
    pub(super) name: &'a str,
    pub(super) tags: &'a [Pair<'a>],
}

#[derive(Debug, Deserialize)]
pub(super) struct CreatedExperiment {
    pub(super) experiment_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct FoundExperiment {
    pub(super) experiment: Experiment,
}

#[derive(Debug, Deserialize)]
pub(super) struct Experiment {
    pub(super) experiment_id: String,
    pub(super) lifecycle_stage: String,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateRun<'a> {
    pub(super) experiment_id: &'a str,
    pub(super) run_name: &'a str,
    pub(super) user_id: &'a str,
    pub(super) start_time: i64,
    pub(super) tags: &'a [Pair<'a>],
}

#[derive(Debug, Serialize)]
pub(super) struct SearchRuns<'a> {
    pub(super) experiment_ids: [&'a str; 1],
    pub(super) run_view_type: &'static str,
    pub(super) max_results: u32,
    pub(super) filter: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct FoundRuns {
    #[serde(default)]
    pub(super) runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OneRun {
    pub(super) run: Run,
}

#[derive(Debug, Deserialize)]
pub(super) struct Run {
    pub(super) info: RunInfo,
    #[serde(default)]
    pub(super) data: RunData,
    #[serde(default)]
    pub(super) inputs: RunInputs,
    #[serde(default)]
    pub(super) outputs: RunOutputs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunInfo {
    pub(super) run_id: String,
    pub(super) experiment_id: String,
    pub(super) status: String,
    pub(super) artifact_uri: String,
    pub(super) lifecycle_stage: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RunData {
    #[serde(default)]
    pub(super) params: Vec<OwnedPair>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OwnedPair {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RunInputs {
    #[serde(default)]
    pub(super) dataset_inputs: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RunOutputs {
    #[serde(default)]
    pub(super) model_outputs: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Serialize)]
pub(super) struct LogBatch<'a> {
    pub(super) run_id: &'a str,
    pub(super) metrics: &'a [Point<'a>],
    pub(super) params: &'a [Pair<'a>],
    pub(super) tags: &'a [Pair<'a>],
}

#[derive(Debug, Serialize)]
pub(super) struct SetTag<'a> {
    pub(super) run_id: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct UpdateRun<'a> {
    pub(super) run_id: &'a str,
    pub(super) status: Status,
    pub(super) end_time: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct LogInputs<'a> {
    pub(super) run_id: &'a str,
    pub(super) datasets: [DatasetInput<'a>; 1],
}

#[derive(Debug, Serialize)]
pub(super) struct DatasetInput<'a> {
    pub(super) tags: &'a [Pair<'a>],
    pub(super) dataset: WireDataset<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct WireDataset<'a> {
    pub(super) name: &'a str,
    pub(super) digest: &'a str,
    pub(super) source_type: &'static str,
    /// JSON inside a string, as are the next two.
    pub(super) source: &'a str,
    pub(super) schema: &'a str,
    pub(super) profile: &'a str,
}

/// One column of a schema or signature.
#[derive(Debug, Serialize)]
pub(super) struct TensorColumn<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(rename = "tensor-spec")]
    pub(super) tensor_spec: WireTensor<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct WireTensor<'a> {
    pub(super) dtype: &'a str,
    pub(super) shape: &'a [i64],
}

#[derive(Debug, Serialize)]
pub(super) struct DatasetSchema {
    pub(super) mlflow_tensorspec: FeaturesAndTargets,
}

#[derive(Debug, Serialize)]
pub(super) struct FeaturesAndTargets {
    /// JSON inside a string.
    pub(super) features: String,
    pub(super) targets: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ArtifactList {
    #[serde(default)]
    pub(super) files: Vec<ListedFile>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListedFile {
    pub(super) path: String,
    #[serde(default)]
    pub(super) is_dir: bool,
    pub(super) file_size: Option<Number>,
}

/// MLflow writes 64-bit numbers as numbers or as strings, by the version.
#[derive(Debug)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        }
        .map(Number)
        .ok_or_else(|| serde::de::Error::custom("a whole number was expected"))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct MetricHistory {
    #[serde(default)]
    pub(super) metrics: Vec<serde::de::IgnoredAny>,
    pub(super) next_page_token: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateModel<'a> {
    pub(super) experiment_id: &'a str,
    pub(super) name: &'a str,
    pub(super) model_type: &'a str,
    pub(super) source_run_id: &'a str,
    pub(super) params: &'a [Pair<'a>],
    pub(super) tags: &'a [Pair<'a>],
}

#[derive(Debug, Serialize)]
pub(super) struct SearchModels<'a> {
    pub(super) experiment_ids: [&'a str; 1],
    pub(super) filter: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct FoundModels {
    #[serde(default)]
    pub(super) models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OneModel {
    pub(super) model: Model,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) info: ModelInfo,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelInfo {
    pub(super) model_id: String,
    pub(super) artifact_uri: String,
    #[serde(default)]
    pub(super) tags: Vec<OwnedPair>,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelStatus<'a> {
    pub(super) model_id: &'a str,
    pub(super) status: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct LogOutputs<'a> {
    pub(super) run_id: &'a str,
    pub(super) models: [ModelOutput<'a>; 1],
}

#[derive(Debug, Serialize)]
pub(super) struct ModelOutput<'a> {
    pub(super) model_id: &'a str,
    pub(super) step: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateRegistered<'a> {
    pub(super) name: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateVersion<'a> {
    pub(super) name: &'a str,
    pub(super) source: &'a str,
    pub(super) model_id: &'a str,
    pub(super) run_id: &'a str,
    pub(super) tags: &'a [Pair<'a>],
}

#[derive(Debug, Deserialize)]
pub(super) struct FoundVersions {
    #[serde(default)]
    pub(super) model_versions: Vec<ModelVersion>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OneVersion {
    pub(super) model_version: ModelVersion,
}

#[derive(Debug, Deserialize)]
pub(super) struct ModelVersion {
    pub(super) name: String,
    pub(super) version: String,
    #[serde(default)]
    pub(super) source: String,
    #[serde(default)]
    pub(super) tags: Vec<OwnedPair>,
}

#[derive(Debug, Serialize)]
pub(super) struct SetAlias<'a> {
    pub(super) name: &'a str,
    pub(super) alias: &'a str,
    pub(super) version: &'a str,
}

/// How MLflow says no.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error_code: String,
    #[serde(default)]
    pub(super) message: String,
}
