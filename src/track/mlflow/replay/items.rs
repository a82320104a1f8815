//! Sending of what is not a point: datasets, files, models and their places in the registry.
//!
//! A model is made of many requests, each of them safe to repeat; its line is done when the last is acknowledged.

use std::collections::BTreeMap;
use std::fs::File;

use serde::de::IgnoredAny;

use super::{BATCH_POINT_N, Replay, Trouble, pairs, parse_point};
use crate::track::mlflow::client::Answer;
use crate::track::mlflow::model;
use crate::track::mlflow::names::{DATASET_DIGEST_CHAR_N, PARAM_CHAR_N, TAG_CHAR_N, allowed_name, cut};
use crate::track::mlflow::spool::{
    Dataset, End, FileReference, ITEMS_FILE, Item, LoggedModel, METRICS_FILE, Registration,
};
use crate::track::mlflow::wire::{
    CreateModel, CreateRegistered, CreateVersion, DatasetInput, DatasetSchema, FeaturesAndTargets, FoundModels,
    FoundVersions, LogBatch, LogInputs, LogOutputs, Model, ModelOutput, ModelStatus, ModelVersion, OneModel,
    OneVersion, Pair, Point, SearchModels, SetAlias, WireDataset,
};

impl Replay {
    pub(super) fn log_dataset(&mut self, dataset: &Dataset) -> Result<(), Trouble> {
        let digest = shown_digest(&dataset.digest);
        let source = serde_json::json!({ "uri": dataset.source_uri }).to_string();
        let features = model::tensor_columns(std::slice::from_ref(&dataset.features), false);
        let targets =
            dataset.targets.as_ref().map(|targets| model::tensor_columns(std::slice::from_ref(targets), false));
        let schema = DatasetSchema { mlflow_tensorspec: FeaturesAndTargets { features, targets } };
        let schema = serde_json::to_string(&schema).expect("a schema is plain data with text keys");
        let mut profile = BTreeMap::from([("num_rows".to_owned(), dataset.row_n)]);
        profile.extend(dataset.counts.iter().map(|(name, row_n)| (format!("num_rows {name}"), *row_n)));
        let profile = serde_json::to_string(&profile).expect("text to number is JSON");
        let tags = [
            Pair { key: "mlflow.data.context", value: &dataset.context },
            Pair { key: "ecgpipe.digest", value: &dataset.digest },
        ];
        let inputs = LogInputs {
            run_id: &self.state.run_id,
            datasets: [DatasetInput {
                tags: &tags,
                dataset: WireDataset {
                    name: &dataset.name,
                    digest: &digest,
                    source_type: "local",
                    source: &source,
                    schema: &schema,
                    profile: &profile,
                },
            }],
        };
        match self.client.post::<IgnoredAny>("runs/log-inputs", &inputs)? {
            Ok(_) => self.count(|counts| counts.datasets += 1),
            Err(refusal) => self.set_aside(format!("dataset {}", dataset.name), &refusal)?,
        }
        Ok(())
    }

    /// Store a file; whether it is there.
    pub(super) fn put_file(
        &mut self,
        what: &str,
        root: &str,
        path: &str,
        file: &FileReference,
    ) -> Result<bool, Trouble> {
        // Checked before each sending and not after: what changes while it is read shows in the size read back.
        if let Err(reason) = file.open() {
            self.remember_aside(what.to_owned(), reason)?;
            return Ok(false);
        }
        let open = || File::open(&file.source).map_err(|error| format!("`{}`: {error}", file.source.display()));
        match self.client.put_artifact(root, path, file.size_bytes, &open)? {
            Ok(()) => Ok(true),
            Err(refusal) => {
                self.set_aside(what.to_owned(), &refusal)?;
                Ok(false)
            }
        }
    }

    pub(super) fn log_model(
        &mut self,
        logged: &LoggedModel,
        file: &FileReference,
        item_start: u64,
    ) -> Result<(), Trouble> {
        let what = format!("model {}", logged.name);
        // Tells two models of one name apart, in the spool and on the server alike.
        let item = item_start.to_string();
        if let Err(reason) = file.open() {
            return self.remember_aside(what, reason);
        }
        let server_model = match self.find_or_create_model(logged, &item)? {
            Ok(server_model) => server_model.info,
            Err(refusal) => return self.set_aside(what, &refusal),
        };
        if !self.put_file(&what, &server_model.artifact_uri, model::ONNX_FILE, file)? {
            return Ok(());
        }
        let version = self.server_version()?;
        let place = model::Place {
            run_id: &self.state.run_id,
            model_id: &server_model.model_id,
            run_uuid: &self.run_uuid,
            mlflow_version: &version,
            size_bytes: file.size_bytes,
        };
        for (path, text) in model::files(logged, &place) {
            if let Err(refusal) = self.client.put_text(&server_model.artifact_uri, path, &text)? {
                return self.set_aside(format!("{what}: {path}"), &refusal);
            }
        }
        let id = server_model.model_id.as_str();
        let ready = ModelStatus { model_id: id, status: "LOGGED_MODEL_READY" };
        if let Err(refusal) = self.client.patch::<IgnoredAny>(&format!("logged-models/{id}"), &ready)? {
            return self.set_aside(what, &refusal);
        }
        let outputs =
            LogOutputs { run_id: &self.state.run_id, models: [ModelOutput { model_id: id, step: logged.step }] };
        match self.client.post::<IgnoredAny>("runs/outputs", &outputs)? {
            Err(refusal) if !refusal.already_there() => return self.set_aside(what, &refusal),
            _ => self.count(|counts| counts.models += 1),
        }
        self.state.models.insert(item_start, server_model.model_id.clone());
        match &logged.registered_model {
            Some(registration) => self.register(registration, id),
            None => Ok(()),
        }
    }

    fn find_or_create_model(&self, logged: &LoggedModel, item: &str) -> Answer<Model> {
        let find = || self.find_model(item);
        match find()? {
            Ok(Some(found)) => return Ok(Ok(found.model)),
            Ok(None) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        let params = logged.params.iter().map(|(key, value)| {
            (allowed_name(key).into_owned(), cut(value, PARAM_CHAR_N).unwrap_or_else(|| value.clone()))
        });
        let tags = logged.tags.iter().map(|(key, value)| {
            (allowed_name(key).into_owned(), cut(value, TAG_CHAR_N).unwrap_or_else(|| value.clone()))
        });
        let params = params.collect::<BTreeMap<_, _>>();
        let mut tags = tags.collect::<BTreeMap<_, _>>();
        // As a run: who made it and from what.
        tags.extend(self.birth_tags());
        tags.insert("ecgpipe.item".to_owned(), item.to_owned());
        let create = CreateModel {
            experiment_id: &self.state.experiment_id,
            name: &logged.name,
            model_type: &logged.model_type,
            source_run_id: &self.state.run_id,
            params: &pairs(&params),
            tags: &pairs(&tags),
        };
        Ok(self.client.create::<OneModel>("logged-models", &create, &find)?.map(|created| created.model))
    }

    fn find_model(&self, item: &str) -> Answer<Option<OneModel>> {
        let filter = format!("source_run_id = '{}'", self.state.run_id);
        let search = SearchModels { experiment_ids: [&self.state.experiment_id], filter: &filter };
        let found = self.client.post::<FoundModels>("logged-models/search", &search)?;
        let is_ours = |model: &Model| model.info.tags.iter().any(|tag| tag.key == "ecgpipe.item" && tag.value == item);
        Ok(found.map(|found| found.models.into_iter().find(is_ours).map(|model| OneModel { model })))
    }

    fn register(&mut self, registration: &Registration, model_id: &str) -> Result<(), Trouble> {
        let name = registration.name.as_str();
        let what = format!("registered model {name}");
        match self.client.post::<IgnoredAny>("registered-models/create", &CreateRegistered { name })? {
            Err(refusal) if !refusal.already_there() => return self.set_aside(what, &refusal),
            _ => {}
        }
        let source = format!("models:/{model_id}");
        let find = || self.find_version(name, &source);
        let found = match find()? {
            Ok(found) => found.map(|found| found.model_version),
            Err(refusal) => return self.set_aside(what, &refusal),
        };
        let start = self.run.start_time_ms.to_string();
        let version = match found {
            Some(version) => version,
            None => {
                let tags = [
                    Pair { key: "ecgpipe.run_uuid", value: &self.run_uuid },
                    Pair { key: "ecgpipe.start_time_ms", value: &start },
                ];
                let run_id = &self.state.run_id;
                let create = CreateVersion { name, source: &source, model_id, run_id, tags: &tags };
                match self.client.create::<OneVersion>("model-versions/create", &create, &find)? {
                    Ok(created) => created.model_version,
                    Err(refusal) => return self.set_aside(what, &refusal),
                }
            }
        };
        let Some(alias) = &registration.alias else { return Ok(()) };
        // An old run that is sent late must not take the alias from a newer one.
        if let Ok(holder) =
            self.client.get::<OneVersion>("registered-models/alias", &[("name", name), ("alias", alias)])?
        {
            let start_of = |version: &ModelVersion| {
                let tag = version.tags.iter().find(|tag| tag.key == "ecgpipe.start_time_ms")?;
                tag.value.parse::<i64>().ok()
            };
            if start_of(&holder.model_version).is_some_and(|start_ms| start_ms > self.run.start_time_ms) {
                let holder = holder.model_version.version;
                self.note(&format!(
                    "the alias `{alias}` of `{name}` stays with version {holder}, which is of a later run"
                ));
                return Ok(());
            }
        }
        match self
            .client
            .post::<IgnoredAny>("registered-models/alias", &SetAlias { name, alias, version: &version.version })?
        {
            Ok(_) => Ok(()),
            Err(refusal) => self.set_aside(format!("alias {alias} of {name}"), &refusal),
        }
    }

    fn find_version(&self, name: &str, source: &str) -> Answer<Option<OneVersion>> {
        let filter = format!("run_id = '{}'", self.state.run_id);
        let found = self.client.get::<FoundVersions>("model-versions/search", &[("filter", &filter)])?;
        let is_ours = |version: &ModelVersion| version.name == name && version.source == source;
        let first = |found: FoundVersions| found.model_versions.into_iter().find(is_ours);
        Ok(found.map(|found| first(found).map(|model_version| OneVersion { model_version })))
    }

    fn server_version(&mut self) -> Result<String, Trouble> {
        if self.server_version.is_none() {
            // A server behind a gateway may not tell; the oldest with logged models is then a safe word.
            self.server_version = Some(self.client.version()?.unwrap_or_else(|_| "3.0.0".to_owned()));
        }
        Ok(self.server_version.clone().unwrap_or_default())
    }

    /// Say of points that are there which model they are about. The server tells that they are the same points.
    pub(super) fn link_models(&mut self, end: &End) -> Result<(), Trouble> {
        if self.state.ended.as_ref() == Some(end) || self.state.models.is_empty() {
            return Ok(());
        }
        let mut last = BTreeMap::new();
        for line in self.lines(METRICS_FILE, 0, self.state.metrics_until)? {
            let line = line.map_err(|source| self.read_error(METRICS_FILE, source))?;
            if let Some((key, value, step, time_ms)) = parse_point(&line).filter(|point| point.1.is_finite()) {
                last.insert(key, (value, step, time_ms));
            }
        }
        let mut digests = BTreeMap::new();
        let mut models = Vec::new();
        for line in self.lines(ITEMS_FILE, 0, self.state.items_until)? {
            let line = line.map_err(|source| self.read_error(ITEMS_FILE, source))?;
            match serde_json::from_slice::<Item>(&line.text) {
                Ok(Item::Dataset(dataset)) => {
                    digests.insert(dataset.name, shown_digest(&dataset.digest));
                }
                Ok(Item::Model { model, .. }) => {
                    models.extend(self.state.models.get(&line.start).map(|model_id| (model_id.clone(), model)));
                }
                _ => {}
            }
        }
        for (model_id, model) in &models {
            let dataset = model.evaluated_on.as_ref().and_then(|name| digests.get_key_value(name));
            let points = model.metrics.iter().filter_map(|key| {
                let (value, step, timestamp) = *last.get(key)?;
                Some((allowed_name(key), value, step, timestamp))
            });
            let points = points.collect::<Vec<_>>();
            let wire = points.iter().map(|(key, value, step, timestamp)| Point {
                key,
                value: *value,
                timestamp: *timestamp,
                step: *step,
                model_id: Some(model_id),
                dataset_name: dataset.map(|(name, _)| name.as_str()),
                dataset_digest: dataset.map(|(_, digest)| digest.as_str()),
            });
            for batch in wire.collect::<Vec<_>>().chunks(BATCH_POINT_N) {
                let batch = LogBatch { run_id: &self.state.run_id, metrics: batch, params: &[], tags: &[] };
                if let Err(refusal) = self.client.post::<IgnoredAny>("runs/log-batch", &batch)? {
                    self.set_aside(format!("the metrics of model {}", model.name), &refusal)?;
                }
            }
        }
        Ok(())
    }
}

fn shown_digest(digest: &str) -> String {
    digest.chars().take(DATASET_DIGEST_CHAR_N).collect()
}
