//! Owns the way from an output back to the raw bytes: which jobs of a run an output was made by, what each of them was
//! given, and whether the manifests in the store say the same.
//!
//! Pure: it works on what a run has recorded (`plan.json`, `jobs.json`, `sources.json`) and on manifests that the caller
//! has read. It does no I/O.
//!
//! Invariant: a lineage is closed: for each input of each of its jobs, the job that gave it is in it
//! (`a_lineage_has_every_job_above_and_no_other`).

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{Provenance, RecordId, provenance::StageProvenance, stage::flattened};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    digest::{Digest, KeyEncoder, KeyField},
    event::JobName,
    explain::{Difference, differences, input_of},
    store::Manifest,
    track::run_folder::{JobFile, RawFileFacts, RunFile, SourcesFile},
};

/// `plan.json` of a run, as far as it matters afterwards.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedPlan {
    /// The pipeline's name.
    pub name: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// All nodes, inputs before those that need them.
    pub nodes: Vec<RecordedNode>,
}

/// One use of a stage.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedNode {
    /// The name in the pipeline.
    pub name: String,
    /// The stage's type.
    pub uses: String,
    /// Identity of its code.
    pub code: String,
    /// All parameters.
    pub params: Value,
    /// What each connected port took.
    pub inputs: BTreeMap<String, RecordedEdge>,
    /// Whether it ran once per record.
    pub per_record: bool,
    /// Whether the pipeline's seed decided its result.
    pub seeded: bool,
}

/// What a port took.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedEdge {
    /// `node.port`.
    pub from: String,
    /// Whether all records were gathered.
    pub gather: bool,
}

impl RecordedEdge {
    fn node_and_port(&self) -> (&str, &str) {
        self.from.split_once('.').unwrap_or((&self.from, ""))
    }
}

impl RecordedPlan {
    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&RecordedNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The pipeline file that this plan is the meaning of: every parameter written out, nothing published or tracked.
    /// JSON is YAML, so that it can be read like any other.
    #[must_use]
    pub fn pipeline_text(&self) -> String {
        let stages = self.nodes.iter().map(|node| {
            let inputs = node.inputs.iter().map(|(port, edge)| (port.clone(), json!(edge.from)));
            let stage = json!({"uses": node.uses, "in": Map::from_iter(inputs), "with": node.params});
            (node.name.clone(), stage)
        });
        json!({"name": self.name, "seed": self.seed, "stages": Map::from_iter(stages)}).to_string()
    }
}

/// Why no lineage can be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// The run has no such job, or it was not done.
    #[error("the run has no result of {0}")]
    NoResult(JobName),
    /// The plan has no such node.
    #[error("the plan of the run has no stage `{0}`")]
    NoNode(String),
}

/// The jobs of a run that an output was made by.
#[derive(Debug)]
pub struct Lineage<'a> {
    plan: &'a RecordedPlan,
    sources: &'a SourcesFile,
    /// By place of the node in the plan, then by record.
    jobs: BTreeMap<usize, BTreeMap<Option<RecordId>, &'a JobFile>>,
}

/// Something that does not fit, said of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The job.
    pub job: JobName,
    /// What is wrong.
    pub text: String,
}

impl<'a> Lineage<'a> {
    /// The jobs behind some jobs of a run, and these themselves.
    ///
    /// # Errors
    /// If the run did not do one of them.
    pub fn of(
        plan: &'a RecordedPlan,
        jobs: &'a [JobFile],
        sources: &'a SourcesFile,
        wanted: &[JobName],
    ) -> Result<Self, LineageError> {
        let places: BTreeMap<&str, usize> =
            plan.nodes.iter().enumerate().map(|(idx, node)| (node.name.as_str(), idx)).collect();
        let mut by_node: BTreeMap<&str, BTreeMap<&Option<RecordId>, &JobFile>> = BTreeMap::new();
        for job in jobs.iter().filter(|job| !job.outputs.is_empty()) {
            by_node.entry(&job.job.node).or_default().insert(&job.job.record, job);
        }
        let mut lineage = Self { plan, sources, jobs: BTreeMap::new() };
        let mut gathered = BTreeSet::new();
        let mut queue: Vec<JobName> = wanted.to_vec();
        while let Some(name) = queue.pop() {
            let &node_idx = places.get(name.node.as_str()).ok_or_else(|| LineageError::NoNode(name.node.clone()))?;
            let found = by_node.get(name.node.as_str()).and_then(|jobs| jobs.get(&name.record));
            let &job = found.ok_or_else(|| LineageError::NoResult(name.clone()))?;
            if lineage.jobs.entry(node_idx).or_default().insert(name.record.clone(), job).is_some() {
                continue;
            }
            for edge in plan.nodes[node_idx].inputs.values() {
                let (above, _) = edge.node_and_port();
                let node = plan.node(above).ok_or_else(|| LineageError::NoNode(above.to_owned()))?;
                if edge.gather || !node.per_record {
                    // All of a node's jobs: asked for once, however many need them.
                    if gathered.insert(above.to_owned()) {
                        let records = by_node.get(above).into_iter().flat_map(BTreeMap::keys);
                        let all = records.map(|&record| JobName { node: above.to_owned(), record: record.clone() });
                        queue.extend(all);
                    }
                } else {
                    queue.push(JobName { node: above.to_owned(), record: name.record.clone() });
                }
            }
        }
        Ok(lineage)
    }

    /// All jobs, those that give before those that take.
    pub fn jobs(&self) -> impl Iterator<Item = &'a JobFile> {
        self.jobs.values().flat_map(BTreeMap::values).copied()
    }

    /// The jobs of a node, by record.
    pub fn jobs_of(&self, node: &str) -> impl Iterator<Item = &'a JobFile> {
        let idx = self.plan.nodes.iter().position(|one| one.name == node);
        idx.and_then(|idx| self.jobs.get(&idx)).into_iter().flat_map(BTreeMap::values).copied()
    }

    fn job(&self, node: &str, record: &RecordId) -> Option<&'a JobFile> {
        let idx = self.plan.nodes.iter().position(|one| one.name == node)?;
        self.jobs.get(&idx)?.get(&Some(record.clone())).copied()
    }

    /// The raw files that were read: by node, record and name.
    pub fn sources(&self) -> impl Iterator<Item = (&'a str, &'a RecordId, &'a str, &'a RawFileFacts)> {
        let all = self.sources.iter().flat_map(|(node, records)| {
            records.iter().flat_map(move |(record, files)| {
                files.iter().map(move |(name, facts)| (node.as_str(), record, name.as_str(), facts))
            })
        });
        all.filter(|(node, record, _, _)| self.job(node, record).is_some())
    }

    /// The lineage as it is written into a published file.
    #[must_use]
    pub fn provenance(&self, run: &RunFile, job: &JobFile, port: &str) -> Provenance {
        let nodes = self.jobs.keys().map(|&idx| &self.plan.nodes[idx]);
        let stages = nodes.map(|node| {
            let inputs = node.inputs.iter().map(|(port, edge)| (port.clone(), edge.from.clone())).collect();
            let (uses, code, params) = (node.uses.clone(), node.code.clone(), node.params.clone());
            (node.name.clone(), StageProvenance { uses, code, params, inputs })
        });
        let mut sources: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (_, record, name, facts) in self.sources() {
            sources.entry(record.to_string()).or_default().insert(name.to_owned(), facts.digest.to_hex());
        }
        Provenance {
            format: Provenance::FORMAT,
            pipeline: self.plan.name.clone(),
            seed: self.plan.seed,
            output: output_name(&job.job, port),
            key: job.key.to_hex(),
            digest: job.outputs.get(port).map(Digest::to_hex).unwrap_or_default(),
            git_commit: run.git.as_ref().map(|git| git.commit.clone()),
            git_dirty: run.git.as_ref().is_some_and(|git| git.dirty),
            ecgpipe: run.version.clone(),
            stages: stages.collect(),
            sources,
        }
    }

    /// Compares a job's manifest with what the run recorded of the job and of those above it: the key, the outputs, and
    /// that every field of the key (inputs, raw files, parameters, code) is what those jobs gave.
    #[must_use]
    pub fn faults(&self, job: &JobFile, manifest: &Manifest) -> Vec<Fault> {
        let mut texts = Vec::new();
        if KeyEncoder::key_of(&manifest.fields) != Ok(manifest.key) {
            texts.push("the fields of its manifest do not make its key".to_owned());
        }
        let stored = |port: &str| {
            manifest.outputs.iter().find(|(name, _)| name.as_str() == port).map(|(_, output)| output.digest)
        };
        for (port, digest) in &job.outputs {
            if stored(port) != Some(*digest) {
                let found = stored(port).map_or_else(|| "nothing".to_owned(), |digest| digest.short());
                let text = format!("its manifest has {found} on `{port}`, the run recorded {}", digest.short());
                texts.push(text);
            }
        }
        let Some(node) = self.plan.node(&job.job.node) else { return Vec::new() };
        let mut recorded: Vec<KeyField> = manifest.fields.clone();
        recorded.retain(|field| !field.name.starts_with("kind."));
        for difference in differences(&self.fields(node, job), &recorded) {
            texts.push(self.misfit(node, &difference));
        }
        texts.into_iter().map(|text| Fault { job: job.job.clone(), text }).collect()
    }

    /// The fields that a job's key must have, but for the versions of the kinds.
    fn fields(&self, node: &RecordedNode, job: &JobFile) -> Vec<KeyField> {
        let mut fields =
            BTreeMap::from([("stage".to_owned(), node.uses.clone()), ("code".to_owned(), node.code.clone())]);
        fields.extend(flattened(&node.params).into_iter().map(|(path, value)| (format!("param.{path}"), value)));
        if node.seeded {
            fields.insert("seed".to_owned(), self.plan.seed.to_string());
        }
        fields.extend(job.job.record.as_ref().map(|record| ("record".to_owned(), record.to_string())));
        for (port, edge) in &node.inputs {
            let (above, output) = edge.node_and_port();
            let per_record = self.plan.node(above).is_some_and(|node| node.per_record);
            let own = job.job.record.as_ref().filter(|_| per_record && !edge.gather);
            let givers: Vec<&JobFile> = match own {
                Some(record) => self.job(above, record).into_iter().collect(),
                None => self.jobs_of(above).collect(),
            };
            for giver in givers {
                let digest = giver.outputs.get(output);
                let suffix = giver.job.record.as_ref().filter(|_| edge.gather);
                let suffix = suffix.map(|record| format!("[{record}]")).unwrap_or_default();
                fields.extend(digest.map(|digest| (format!("input.{port}{suffix}"), digest.to_hex())));
            }
        }
        let raw = job.job.record.as_ref().and_then(|record| self.sources.get(&node.name)?.get(record));
        for (name, facts) in raw.into_iter().flatten() {
            fields.insert(format!("source.{name}"), facts.digest.to_hex());
        }
        fields.into_iter().map(|(name, value)| KeyField { name, value }).collect()
    }

    fn misfit(&self, node: &RecordedNode, difference: &Difference) -> String {
        let shown = |value: &Option<String>| match value {
            Some(value) => value.chars().take(40).collect(),
            None => "nothing".to_owned(),
        };
        let (expected, found) = (shown(&difference.old), shown(&difference.new));
        let field = &difference.field;
        match input_of(field).and_then(|(port, record)| Some((node.inputs.get(port)?, record))) {
            Some((edge, record)) => {
                let record = record.map(|record| format!("[{record}]")).unwrap_or_default();
                format!("it was computed from {found} on `{field}`, but {}{record} gave {expected}", edge.from)
            }
            None => format!("`{field}` of its key is {found}, the run recorded {expected}"),
        }
    }
}

/// `node.port`, or `node.port[record]`.
#[must_use]
pub fn output_name(job: &JobName, port: &str) -> String {
    let record = job.record.as_ref().map(|record| format!("[{record}]")).unwrap_or_default();
    format!("{}.{port}{record}", job.node)
}

/// Reads `node.port`, `node.port[record]` or `node[record].port`.
#[must_use]
pub fn parse_output(text: &str) -> Option<(String, String, Option<RecordId>)> {
    let (path, record) = match (text.find('['), text.find(']')) {
        (None, None) => (text.to_owned(), None),
        (Some(open), Some(close)) if open < close => {
            let record = RecordId::new(&text[open + 1..close]).ok()?;
            (format!("{}{}", &text[..open], &text[close + 1..]), Some(record))
        }
        _ => return None,
    };
    let (node, port) = path.split_once('.')?;
    (!node.is_empty() && !port.is_empty() && !port.contains('.')).then(|| (node.to_owned(), port.to_owned(), record))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{digest::Key, store::OutputRef};

    fn plan() -> RecordedPlan {
        let node = |name: &str, per_record: bool, inputs: Value| {
            json!({"name": name, "uses": format!("{name}_stage"), "code": "c0", "params": {"a": 1, "b": null},
                   "inputs": inputs, "per_record": per_record, "seeded": name == "tidy"})
        };
        let edge = |from: &str, gather: bool| json!({"from": from, "gather": gather});
        let nodes = [
            node("read", true, json!({})),
            node("tidy", true, json!({"text": edge("read.text", false)})),
            node("join", false, json!({"texts": edge("tidy.text", true)})),
            node("label", true, json!({"text": edge("tidy.text", false), "joined": edge("join.text", false)})),
        ];
        serde_json::from_value(json!({"name": "texts", "seed": 7, "nodes": nodes})).unwrap()
    }

    fn name(node: &str, record: &str) -> JobName {
        JobName { node: node.to_owned(), record: RecordId::new(record).ok() }
    }

    fn jobs() -> Vec<JobFile> {
        let names = ["a", "b"].into_iter().flat_map(|record| ["read", "tidy", "label"].map(|node| name(node, record)));
        let job = |job: JobName| JobFile {
            uses: format!("{}_stage", job.node),
            key: Key::from_bytes([0; 32]),
            why: None,
            outputs: BTreeMap::from([("text".to_owned(), Digest::of(job.to_string().as_bytes()))]),
            job,
        };
        names.chain([name("join", "")]).map(job).collect()
    }

    fn sources() -> SourcesFile {
        let file = |record: &str| RawFileFacts { digest: Digest::of(record.as_bytes()), path: record.into() };
        let record =
            |record: &str| (RecordId::new(record).unwrap(), BTreeMap::from([(format!("{record}.txt"), file(record))]));
        BTreeMap::from([("read".to_owned(), BTreeMap::from([record("a"), record("b")]))])
    }

    #[test]
    fn a_lineage_has_every_job_above_and_no_other() {
        let (plan, jobs, sources) = (plan(), jobs(), sources());
        let of = |wanted: JobName| {
            let lineage = Lineage::of(&plan, &jobs, &sources, &[wanted]).unwrap();
            let names: Vec<String> = lineage.jobs().map(|job| job.job.to_string()).collect();
            (names.join(" "), lineage.sources().map(|(_, _, name, _)| name).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of(name("tidy", "a")), ("read[a] tidy[a]".to_owned(), "a.txt".to_owned()));
        assert_eq!(of(name("join", "")).0, "read[a] read[b] tidy[a] tidy[b] join");
        // What was gathered from all records and then spread depends on all of them.
        let all = "read[a] read[b] tidy[a] tidy[b] join label[a]";
        assert_eq!(of(name("label", "a")), (all.to_owned(), "a.txt b.txt".to_owned()));
        let missing = Lineage::of(&plan, &jobs, &sources, &[name("tidy", "z")]).map(|_| ()).unwrap_err();
        assert_eq!(missing.to_string(), "the run has no result of tidy[z]");
    }

    #[test]
    fn a_manifest_that_does_not_close_the_chain_is_at_fault() {
        let (plan, jobs, sources) = (plan(), jobs(), sources());
        let lineage = Lineage::of(&plan, &jobs, &sources, &[name("label", "a")]).unwrap();
        let manifest = |job: &JobFile, change: &dyn Fn(&mut Vec<KeyField>)| {
            let mut fields = lineage.fields(plan.node(&job.job.node).unwrap(), job);
            change(&mut fields);
            let key = KeyEncoder::key_of(&fields).unwrap();
            let output = OutputRef { kind: "text".to_owned(), digest: job.outputs["text"], size: 1, rows: None };
            Manifest {
                format: 1,
                key,
                stage: job.uses.clone(),
                code: "c0".to_owned(),
                version: "0".to_owned(),
                fields,
                outputs: BTreeMap::from([("text".into(), output)]),
                cpu_ms: 0,
                wall_ms: 0,
                warnings: Vec::new(),
            }
        };
        for job in lineage.jobs() {
            assert_eq!(lineage.faults(job, &manifest(job, &|_| {})), [], "{}", job.job);
        }
        let faults = |job: &JobFile, field: &str, value: &str| -> Vec<String> {
            let change = |fields: &mut Vec<KeyField>| {
                let field = fields.iter_mut().find(|one| one.name == field).unwrap();
                field.value = value.to_owned();
            };
            lineage.faults(job, &manifest(job, &change)).into_iter().map(|fault| fault.text).collect()
        };
        let job = |wanted: JobName| lineage.jobs().find(|job| job.job == wanted).unwrap();
        let gave = Digest::of(b"tidy[b]").to_hex()[..40].to_owned();
        let expected = format!("it was computed from ff on `input.texts[b]`, but tidy.text[b] gave {gave}");
        assert_eq!(faults(job(name("join", "")), "input.texts[b]", "ff"), [expected]);
        let tidy = job(name("tidy", "a"));
        assert_eq!(faults(tidy, "param.a", "2"), ["`param.a` of its key is 2, the run recorded 1"]);
        assert_eq!(faults(tidy, "seed", "8"), ["`seed` of its key is 8, the run recorded 7"]);
        assert_eq!(faults(job(name("read", "a")), "source.a.txt", "ff").len(), 1);
        let mut other = manifest(tidy, &|_| {});
        other.outputs.clear();
        other.fields.pop();
        let texts: Vec<String> = lineage.faults(tidy, &other).into_iter().map(|fault| fault.text).collect();
        assert!(texts[0].contains("do not make its key") && texts[1].contains("has nothing on `text`"), "{texts:?}");
    }

    #[test]
    fn outputs_are_named_in_both_ways() {
        let parsed = |text: &str| {
            parse_output(text).map(|(node, port, record)| {
                format!("{node} {port} {}", record.map(|record| record.to_string()).unwrap_or_default())
            })
        };
        assert_eq!(parsed("windows.windows[100]").as_deref(), Some("windows windows 100"));
        assert_eq!(parsed("windows[100].windows").as_deref(), Some("windows windows 100"));
        assert_eq!(parsed("export.onnx").as_deref(), Some("export onnx "));
        for bad in ["export", "a.b.c", "a.b[", "a]b[.c", ".onnx", "a."] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_recorded_plan_is_a_pipeline_again() {
        let text = plan().pipeline_text();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["stages"]["label"]["in"], json!({"text": "tidy.text", "joined": "join.text"}));
        assert_eq!(value["stages"]["tidy"]["with"], json!({"a": 1, "b": null}));
    }
}
