//! Reading back what was sent, and the tags that say what was not.
//!
//! Invariant: the expectation comes from the spool's files alone, not from what the sender believes to have sent.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Replay, Trouble, denied, parse_point};
use crate::track::mlflow::names::{OLD_PARAM_CHAR_N, PARAM_CHAR_N, allowed_name, cut};
use crate::track::mlflow::spool::{End, ITEMS_FILE, Item, METRICS_FILE};
use crate::track::mlflow::wire::{ArtifactList, MetricHistory, OneRun, Run};

impl Replay {
    pub(super) fn closing_tags(&self, end: &End) -> Result<BTreeMap<String, String>, Trouble> {
        let survey = self.survey()?;
        let mut tags = BTreeMap::new();
        if let Some(error) = &end.error {
            tags.insert("ecgpipe.error".to_owned(), error.clone());
        }
        if !survey.nonfinite.is_empty() {
            let text = survey.nonfinite.iter().map(|(key, (point_n, first_step, value))| {
                format!("{key}: {point_n}, first {value} at step {first_step}")
            });
            tags.insert("ecgpipe.nonfinite".to_owned(), text.collect::<Vec<_>>().join("; "));
        }
        let names = survey.names.iter().chain(self.run.params.keys()).chain(self.run.tags.keys());
        let renamed = names.filter_map(|name| {
            let allowed = allowed_name(name);
            (allowed != *name).then(|| (allowed.into_owned(), name.clone()))
        });
        let renamed = renamed.collect::<BTreeMap<_, _>>();
        if !renamed.is_empty() {
            let text = serde_json::to_string(&renamed).expect("text to text is JSON");
            tags.insert("ecgpipe.renamed".to_owned(), text);
        }
        if !self.state.whole_values.is_empty() {
            let paths = self.state.whole_values.iter().cloned().collect::<Vec<_>>().join(", ");
            tags.insert("ecgpipe.cut".to_owned(), format!("values too long for their place are whole in: {paths}"));
        }
        if !self.state.set_aside.is_empty() {
            let text = self.state.set_aside.iter().map(|aside| format!("{}: {}", aside.what, aside.reason));
            tags.insert("ecgpipe.set_aside".to_owned(), text.collect::<Vec<_>>().join("\n"));
        }
        Ok(tags)
    }

    pub(super) fn read_run(&self) -> Result<Run, Trouble> {
        match self.client.get::<OneRun>("runs/get", &[("run_id", &self.state.run_id)])? {
            Ok(found) => Ok(found.run),
            Err(refusal) => Err(denied(format!("the run cannot be read back: {refusal}"))),
        }
    }

    /// Compare what the server has with what it should have.
    pub(super) fn mismatches(&self) -> Result<Vec<String>, Trouble> {
        let mut mismatches = Vec::new();
        let run = self.read_run()?;
        let is_aside = |what: &str| self.state.set_aside.iter().any(|aside| aside.what.starts_with(what));
        let there = run.data.params.iter().map(|param| (param.key.as_str(), param.value.as_str()));
        let there = there.collect::<BTreeMap<_, _>>();
        for (key, value) in &self.run.params {
            let key = allowed_name(key);
            if is_aside(&format!("param {key}")) {
                continue;
            }
            // As sent to a server of today, or of old.
            let sent = [
                cut(value, PARAM_CHAR_N).unwrap_or_else(|| value.clone()),
                cut(value, OLD_PARAM_CHAR_N).unwrap_or_default(),
            ];
            if !there.get(key.as_ref()).is_some_and(|value| sent.iter().any(|sent| sent == value)) {
                mismatches.push(format!("param {key} is missing or has another value"));
            }
        }
        let survey = self.survey()?;
        for (key, point_n) in &survey.points {
            let there_n = self.history_n(key)?;
            if there_n > *point_n || (there_n < *point_n && !is_aside(&format!("metric {key} "))) {
                mismatches.push(format!("metric {key} has {there_n} points, not {point_n}"));
            }
        }
        let mut folders = BTreeMap::<String, BTreeMap<String, Option<u64>>>::new();
        let mut datasets = BTreeSet::new();
        let mut models_n = 0;
        for line in self.lines(ITEMS_FILE, 0, self.state.items_until)? {
            let line = line.map_err(|source| self.read_error(ITEMS_FILE, source))?;
            match serde_json::from_slice::<Item>(&line.text) {
                Ok(Item::Artifact { path, file }) if !is_aside(&format!("artifact {path}")) => {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                    // The last one recorded under a path is the one that stays.
                    folders.entry(folder).or_default().insert(path, Some(file.size_bytes));
                }
                Ok(Item::Dataset(dataset)) if !is_aside(&format!("dataset {}", dataset.name)) => {
                    datasets.insert((dataset.name, dataset.digest));
                }
                Ok(Item::Model { model, .. }) if !is_aside(&format!("model {}", model.name)) => models_n += 1,
                _ => {}
            }
        }
        for path in &self.state.whole_values {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            folders.entry(folder).or_default().insert(path.clone(), None);
        }
        for (folder, files) in folders {
            let there = self.list(&folder)?;
            for (path, size_bytes) in files {
                match there.get(&path) {
                    None => mismatches.push(format!("artifact {path} is missing")),
                    Some(there_bytes) => {
                        if let (Some(there_bytes), Some(size_bytes)) = (there_bytes, size_bytes)
                            && *there_bytes != size_bytes
                        {
                            mismatches.push(format!("artifact {path} has {there_bytes} bytes, not {size_bytes}"));
                        }
                    }
                }
            }
        }
        if run.inputs.dataset_inputs.len() < datasets.len() {
            mismatches.push(format!("{} datasets, not {}", run.inputs.dataset_inputs.len(), datasets.len()));
        }
        if run.outputs.model_outputs.len() < models_n {
            mismatches.push(format!("{} models, not {models_n}", run.outputs.model_outputs.len()));
        }
        Ok(mismatches)
    }

    fn history_n(&self, key: &str) -> Result<u64, Trouble> {
        let mut point_n = 0;
        let mut page = String::new();
        loop {
            let mut query = vec![("run_id", self.state.run_id.as_str()), ("metric_key", key), ("max_results", "25000")];
            if !page.is_empty() {
                query.push(("page_token", &page));
            }
            let history = match self.client.get::<MetricHistory>("metrics/get-history", &query)? {
                Ok(history) => history,
                Err(refusal) => return Err(denied(format!("metric {key} cannot be read back: {refusal}"))),
            };
            point_n += history.metrics.len() as u64;
            match history.next_page_token {
                Some(token) if !token.is_empty() => page = token,
                _ => return Ok(point_n),
            }
        }
    }

    /// The files in one folder of the run's artifacts, with their sizes.
    fn list(&self, folder: &str) -> Result<BTreeMap<String, Option<u64>>, Trouble> {
        let mut files = BTreeMap::new();
        let mut page = String::new();
        loop {
            let mut query = vec![("run_id", self.state.run_id.as_str())];
            if !folder.is_empty() {
                query.push(("path", folder));
            }
            if !page.is_empty() {
                query.push(("page_token", &page));
            }
            let list = match self.client.get::<ArtifactList>("artifacts/list", &query)? {
                Ok(list) => list,
                Err(refusal) => return Err(denied(format!("artifacts cannot be listed: {refusal}"))),
            };
            let listed = list.files.into_iter().filter(|file| !file.is_dir);
            files.extend(listed.map(|file| (file.path, file.file_size.map(|size| size.0))));
            match list.next_page_token {
                Some(token) if !token.is_empty() => page = token,
                _ => return Ok(files),
            }
        }
    }

    /// What the acknowledged part of `metrics.jsonl` amounts to.
    fn survey(&self) -> Result<Survey, Trouble> {
        let mut distinct = BTreeMap::<String, HashSet<(i64, i64, u64)>>::new();
        let mut survey = Survey::default();
        for line in self.lines(METRICS_FILE, 0, self.state.metrics_until)? {
            let line = line.map_err(|source| self.read_error(METRICS_FILE, source))?;
            let Some((key, value, step, time_ms)) = parse_point(&line) else { continue };
            if value.is_finite() {
                let points = distinct.entry(allowed_name(&key).into_owned()).or_default();
                // The server cannot tell -0 from 0.
                points.insert((step, time_ms, (value + 0.0).to_bits()));
            } else {
                survey.nonfinite.entry(key.clone()).or_insert((0, step, value)).0 += 1;
            }
            survey.names.insert(key);
        }
        survey.points = distinct.into_iter().map(|(key, points)| (key, points.len() as u64)).collect();
        Ok(survey)
    }
}

#[derive(Default)]
struct Survey {
    /// Distinct finite points by the name on the server.
    points: BTreeMap<String, u64>,
    /// Number, first step and first value of the points that are not finite.
    nonfinite: BTreeMap<String, (u64, i64, f64)>,
    /// Names as the run gave them.
    names: BTreeSet<String>,
}
