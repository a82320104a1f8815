//! Owns what is known of the artifacts on all edges: every stage is asked once, inputs before those that need them, and
//! what it says is wrong becomes a diagnostic with the edge and with the places where the facts were said.
//!
//! Asked twice: when a pipeline is checked, and once more when the sources have listed their records, before the first
//! stage runs. A node that has an error already is passed over, and nothing is known of its outputs.
//!
//! Invariant: that two outputs contradict each other is told once, at the first node where they meet
//! (`a_contradiction_is_told_once`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ecgpipe_sdk::{
    BoundParams, ErasedStage, FactProblem, Place, RecordId, SourceRecord, StageFacts,
    facts::{Fact, Facts, InputFacts, Level, Origin, names, of_records},
};
use serde_json::Value;

use crate::{
    diagnostic::{Diagnostic, Sources, Span},
    pipeline::{
        Pipeline,
        yaml::{Data, Entry, Node},
    },
};

/// One node as facts see it.
pub(super) struct Step<'a> {
    pub(super) node: &'a str,
    pub(super) stage: &'a dyn ErasedStage,
    pub(super) params: &'a BoundParams,
    /// Input port to node and output port.
    pub(super) inputs: BTreeMap<&'a str, (&'a str, &'a str)>,
    /// What the node's source lists, and its records, once they are known.
    pub(super) listed: Option<&'a [SourceRecord]>,
    pub(super) records: Option<&'a [RecordId]>,
}

/// Asks every node, in topological order, and gives what is wrong, by node.
pub(super) fn ask<'a>(steps: &[Step<'a>]) -> Vec<(&'a str, FactProblem)> {
    let mut known: BTreeMap<(&str, &str), Facts> = BTreeMap::new();
    let mut identities = Identities::default();
    let mut told: BTreeSet<(&'static str, String, String)> = BTreeSet::new();
    let mut problems = Vec::new();
    for step in steps {
        let input = |(&port, from): (&&'a str, &(&str, &str))| {
            let facts = known.get(from).cloned().unwrap_or_default();
            (port, InputFacts { from: format!("{}.{}", from.0, from.1), facts })
        };
        let inputs: BTreeMap<&str, InputFacts> = step.inputs.iter().map(input).collect();
        let mut facts = StageFacts::new(step.node, identities.of(step), &inputs);
        step.stage.facts(step.params, &mut facts);
        let StageFacts { mut outputs, problems: found, .. } = facts;
        add_records(step, &mut outputs);
        for (port, facts) in outputs {
            debug_assert!(
                step.stage.spec().outputs.iter().any(|output| output.name == port),
                "`{}` speaks of an output `{port}` that it has not",
                step.stage.spec().name
            );
            known.insert((step.node, port), facts);
        }
        for problem in found {
            let is_new =
                problem.conflicts.is_empty() || problem.conflicts.iter().any(|conflict| !told.contains(conflict));
            told.extend(problem.conflicts.iter().cloned());
            if is_new {
                problems.push((step.node, problem));
            }
        }
    }
    problems
}

/// What the engine knows better than the stage: the records, and what their source said of each.
fn add_records(step: &Step<'_>, outputs: &mut BTreeMap<&'static str, Facts>) {
    let spec = step.stage.spec();
    if !spec.per_record() {
        return;
    }
    let listed = step.listed.unwrap_or_default();
    let of_listed = of_records(step.node, listed.iter().map(|listed| (&listed.record, &listed.facts)));
    let records = step.records.map(|records| {
        let names = records.iter().map(|record| Value::from(record.as_str())).collect();
        let origin = Origin { node: step.node.to_owned(), parameter: None };
        Fact { value: Arc::new(Value::Array(names)), origin }
    });
    for port in &spec.outputs {
        let facts = outputs.entry(port.name).or_default();
        facts.extend(of_listed.clone());
        facts.extend(records.clone().map(|records| (names::RECORDS.key, records)));
    }
}

/// Nodes that do the same from the same inputs count as one.
#[derive(Default)]
struct Identities<'a> {
    first: BTreeMap<String, &'a str>,
    of_node: BTreeMap<&'a str, &'a str>,
}

impl<'a> Identities<'a> {
    fn of(&mut self, step: &Step<'a>) -> &'a str {
        let inputs: Vec<String> = step
            .inputs
            .iter()
            .map(|(port, (node, output))| format!("{port}={}.{output}", self.of_node.get(node).unwrap_or(node)))
            .collect();
        let text = format!("{} {:?} {inputs:?}", step.stage.spec().name, step.params.flattened());
        let identity = *self.first.entry(text).or_insert(step.node);
        self.of_node.insert(step.node, identity);
        identity
    }
}

/// Where everything is written that a fact may point at, and the texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) sources: Sources,
    nodes: BTreeMap<String, NodePlaces>,
}

#[derive(Clone, Debug)]
struct NodePlaces {
    name: Span,
    uses: Span,
    stage: String,
    ports: BTreeMap<String, Span>,
    with: Option<Entry>,
}

impl Places {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let places = pipeline.stages.iter().map(|(name, entry)| {
            let ports = entry
                .inputs
                .iter()
                .filter_map(|(port, written)| Some((port.text.clone(), written.as_ref()?.span.clone())));
            let places = NodePlaces {
                name: entry.name.span.clone(),
                uses: entry.uses.span.clone(),
                stage: entry.uses.text.clone(),
                ports: ports.collect(),
                with: entry.with.clone(),
            };
            (name.clone(), places)
        });
        Self { sources: pipeline.sources.clone(), nodes: places.collect() }
    }

    /// What a stage says is wrong with a node, with all places that matter.
    pub(super) fn diagnostic(&self, node: &str, problem: &FactProblem) -> Diagnostic {
        let own = &self.nodes[node];
        let place = match problem.place {
            Place::Port(port) => own.ports.get(port).unwrap_or(&own.name),
            Place::Parameter(path) => own.parameter(path).unwrap_or(&own.uses),
        };
        // Several facts may be said at one place.
        let mut labels: Vec<(&Span, Vec<String>)> = Vec::new();
        let mut add = |span, text: String| match labels.iter_mut().find(|(other, _)| *other == span) {
            Some((_, texts)) if texts.contains(&text) => {}
            Some((_, texts)) => texts.push(text),
            None => labels.push((span, vec![text])),
        };
        for port in &problem.ports {
            if let Some(span) = own.ports.get(*port) {
                add(span, "against this".to_owned());
            }
        }
        for (origin, words) in &problem.origins {
            let Some(from) = self.nodes.get(&origin.node) else { continue };
            match origin.parameter.map(|path| (path, from.parameter(path))) {
                Some((_, Some(span))) => add(span, words.clone()),
                Some((path, None)) => add(&from.uses, format!("{words}: the default of `{path}` of `{}`", from.stage)),
                None => add(&from.name, words.clone()),
            }
        }
        let message = format!("stage `{node}`: {}", problem.message);
        let diagnostic = Diagnostic::at(place, message).help(problem.help.clone());
        let diagnostic =
            labels.into_iter().fold(diagnostic, |diagnostic, (span, texts)| diagnostic.label(span, texts.join("; ")));
        match problem.level {
            Level::Error => diagnostic,
            Level::Warning | Level::Foretold => diagnostic.warning(),
        }
    }
}

impl NodePlaces {
    /// Where a parameter's value is written.
    fn parameter(&self, path: &str) -> Option<&Span> {
        let mut node: &Node = &self.with.as_ref()?.value;
        for name in path.split('.') {
            let Data::Map(entries) = &node.data else { return None };
            node = &entries.iter().find(|entry| entry.key.text == name)?.value;
        }
        Some(&node.span)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use ecgpipe_sdk::Registry;
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::{
        diagnostic::Report,
        pipeline::load_with,
        plan::{Plan, Warnings, plan, test_stages},
    };

    fn registry() -> Registry {
        let mut registry = test_stages::registry();
        registry.register::<test_stages::Predict>("c0de09");
        registry
    }

    fn made(yaml: &str, sets: &[&str]) -> Result<Plan, Report> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        plan(&load_with("p.yaml".as_ref(), &sets, &|_| Ok(yaml.to_owned()))?, &registry())
    }

    #[track_caller]
    fn check(yaml: &str, sets: &[&str], expected: Expect) {
        match made(yaml, sets) {
            Ok(plan) => expected.assert_eq(&plan.warnings().report.as_ref().map(Report::plain).unwrap_or_default()),
            Err(report) => expected.assert_eq(&report.plain()),
        }
    }

    const TWO_CHAINS: &str = "
stages:
  ingest: {uses: ingest}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
  same: {uses: detect_peaks, in: {signals: ingest.signals}, with: {band: {low_hz: 5}}}
  cut: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  cut_b: {uses: window, in: {signals: ingest.signals, beats: same.beats}, with: {length_n: 187}}
  split: {uses: split, in: {beats: same.beats}}
  train: {uses: train, in: {windows: cut.windows, split: split.split}}
  predict: {uses: predict, in: {windows: cut_b.windows, model: train.model}}
  again: {uses: predict, in: {windows: cut_b.windows, model: train.model}}
";

    #[test]
    fn nodes_that_do_the_same_count_as_one() {
        check(TWO_CHAINS, &[], expect![""]);
    }

    #[test]
    fn a_contradiction_is_told_once() {
        let sets = ["cut_b.length_n=251", "same.band.high_hz=20"];
        check(
            TWO_CHAINS,
            &sets,
            expect![[r#"
            error: stage `train`: `split.split` comes from the beats of `same.beats`, but `cut.windows` comes from the beats of `peaks.beats`
             --> p.yaml:9:58
              |
            4 |   peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
              |   ----- the beats of `peaks.beats`
            5 |   same: {uses: detect_peaks, in: {signals: ingest.signals}, with: {band: {low_hz: 5}}}
              |   ---- the beats of `same.beats`
            ...
            9 |   train: {uses: train, in: {windows: cut.windows, split: split.split}}
              |                                      -----------         ^^^^^^^^^^^
              |                                      |
              |                                      against this
              |
              = help: connect them to the same beats

            error: stage `again`: `cut_b.windows` comes from windows of 251 samples, but `train.model` comes from windows of 187 samples
              --> p.yaml:11:40
               |
             6 |   cut: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
               |               ------ windows of 187 samples: the default of `length_n` of `window`
            ...
            11 |   again: {uses: predict, in: {windows: cut_b.windows, model: train.model}}
               |                                        ^^^^^^^^^^^^^         ----------- against this
               |
              ::: command line:1:22
               |
             1 | --set cut_b.length_n=251
               |                      --- windows of 251 samples
               |
               = help: cut windows as the model was trained
        "#]],
        );
    }

    #[test]
    fn a_contradiction_does_not_hide_other_errors_and_these_hide_no_contradiction() {
        check(
            TWO_CHAINS,
            &["cut_b.length_n=251", "cut_b.before_n=120", "ingest.limit_n=-1"],
            expect![[r#"
                error: stage `ingest`: parameter `limit_n` wants a whole number of at least 0 or `null`, but is the number `-1`
                 --> command line:3:22
                  |
                3 | --set ingest.limit_n=-1
                  |                      ^^
                  |
                  = help: the default is `null`

                error: stage `again`: `cut_b.windows` comes from windows of 251 samples, 120 samples before the R-peak, but `train.model` comes from windows of 187 samples, 90 samples before the R-peak
                  --> p.yaml:11:40
                   |
                 6 |   cut: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
                   |               ------ windows of 187 samples: the default of `length_n` of `window`; 90 samples before the R-peak: the default of `before_n` of `window`
                ...
                11 |   again: {uses: predict, in: {windows: cut_b.windows, model: train.model}}
                   |                                        ^^^^^^^^^^^^^         ----------- against this
                   |
                  ::: command line:1:22
                   |
                 1 | --set cut_b.length_n=251
                   |                      --- windows of 251 samples
                   |
                  ::: command line:2:22
                   |
                 2 | --set cut_b.before_n=120
                   |                      --- 120 samples before the R-peak
                   |
                   = help: cut windows as the model was trained
            "#]],
        );
    }

    #[test]
    fn a_node_with_an_error_says_nothing() {
        check(
            TWO_CHAINS,
            &["cut_b.length_n=0"],
            expect![[r#"
                error: stage `cut_b`: `length_n` must be 1 or more, not 0
                 --> command line:1:22
                  |
                1 | --set cut_b.length_n=0
                  |                      ^
                  |
                  = help: the default is `187`
            "#]],
        );
    }

    fn with_records(yaml: &str, records: &[(&str, f64)]) -> Result<Warnings, Report> {
        let plan = made(yaml, &[])?;
        let listed: Vec<SourceRecord> = records
            .iter()
            .map(|(record, hz)| SourceRecord {
                facts: [(names::RECORD_FS_HZ.key, json!(hz)), (names::PATIENT.key, json!(record))].into(),
                ..SourceRecord::new(RecordId::new(record).unwrap(), Vec::new())
            })
            .collect();
        let ids: Vec<RecordId> = listed.iter().map(|one| one.record.clone()).collect();
        let ingest = plan.find("ingest").unwrap();
        let all: BTreeSet<usize> = (0..plan.nodes().len()).collect();
        let records = vec![ids; plan.nodes().len()];
        plan.check_records(&registry(), &all, &BTreeMap::from([(ingest, listed)]), &records)
    }

    #[test]
    fn what_records_say_is_checked_when_it_is_known() {
        let yaml = TWO_CHAINS.replace("again: {uses: predict", "again: {uses: predict, with: {}");
        let good = with_records(&yaml, &[("100", 360.0)]).unwrap();
        assert_eq!((good.report, good.untold), (None, Vec::new()));
        let warned = with_records(&yaml, &[("100", 360.0), ("101", 360.0)]).unwrap();
        assert_eq!(warned.untold, Vec::<String>::new(), "the stage says it itself");
        expect![[r#"
            warning: stage `split`: patients may leak
             --> p.yaml:8:36
              |
            8 |   split: {uses: split, in: {beats: same.beats}}
              |                                    ^^^^^^^^^^
        "#]]
        .assert_eq(&warned.report.unwrap().plain());
        expect![[r#"
            error: stage `peaks`: record slow has 25.0 Hz, too few for `band.high_hz` 15
             --> p.yaml:4:17
              |
            4 |   peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
              |                 ^^^^^^^^^^^^
              |
              = help: lower the band

            error: stage `same`: record slow has 25.0 Hz, too few for `band.high_hz` 15
             --> p.yaml:5:16
              |
            5 |   same: {uses: detect_peaks, in: {signals: ingest.signals}, with: {band: {low_hz: 5}}}
              |                ^^^^^^^^^^^^
              |
              = help: lower the band

            warning: stage `split`: patients may leak
             --> p.yaml:8:36
              |
            8 |   split: {uses: split, in: {beats: same.beats}}
              |                                    ^^^^^^^^^^
        "#]]
        .assert_eq(&with_records(&yaml, &[("100", 360.0), ("slow", 25.0)]).unwrap_err().plain());
    }
}
