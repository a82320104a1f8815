//! Owns facts: what is known of the artifacts on an edge before anything runs, and what a stage says of them.
//!
//! A fact is a name and a value: windows of 187 samples, 360 Hz, the beats of node `peaks`. A stage is asked once, when a
//! pipeline is checked ([`crate::Stage::facts`]): it sees its parameters and the facts of its connected inputs, says what
//! its outputs will be like, and which facts contradict each other. Facts are a courtesy: what no stage says is unknown,
//! unknown contradicts nothing, and a stage that says nothing (a plugin) is never wrong. What a stage relies on, its body
//! checks as well.
//!
//! Invariant: what is said depends on parameters and facts alone, never on files, time or order
//! (`same_compares_what_is_known`).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::record::RecordId;

/// The name of a fact, and how it reads with its value in place of `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactName {
    /// The name.
    pub key: &'static str,
    /// Completes "comes from ...".
    pub words: &'static str,
}

/// The facts that stages of this project speak of. A stage may have names of its own.
pub mod names {
    use super::FactName;

    const fn name(key: &'static str, words: &'static str) -> FactName {
        FactName { key, words }
    }

    /// Which artifact of kind `beats` rows are numbered by; set by [`super::StageFacts::identify`].
    pub const BEATS: FactName = name("beats", "the beats of `{}`");
    /// Whether beats carry reference symbols.
    pub const LABELS: FactName = name("labels", "reference symbols: {}");
    /// Where R-peaks come from: `annotated` or `detected`.
    pub const PEAKS: FactName = name("peaks", "{} R-peaks");
    /// Samples in a window.
    pub const LENGTH_N: FactName = name("length_n", "windows of {} samples");
    /// Samples in a window before the R-peak.
    pub const BEFORE_N: FactName = name("before_n", "{} samples before the R-peak");
    /// Samples per second within a window.
    pub const WINDOW_FS_HZ: FactName = name("fs_hz", "a sampling frequency of {} Hz");
    /// Leads by preference.
    pub const LEADS: FactName = name("leads", "leads by preference {}");
    /// Unit of the samples in a window.
    pub const UNIT: FactName = name("unit", "samples in {}");
    /// How windows were scaled.
    pub const NORMALISATION: FactName = name("normalisation", "windows scaled by {}");
    /// Names of the rhythm features; empty where none are used.
    pub const FEATURES: FactName = name("features", "features {}");
    /// Which split beats were dealt by; set by [`super::StageFacts::identify`].
    pub const SPLIT: FactName = name("split", "the split of `{}`");
    /// Parts that the split can have: `training`, `validation`, `test`.
    pub const PARTS: FactName = name("parts", "parts {}");
    /// Records that a model may have learned from, where the parameters alone decide it.
    pub const LEARNED_RECORDS: FactName = name("learned_records", "training on records {}");
    /// Records of the test part, where the parameters alone decide it.
    pub const TEST_RECORDS: FactName = name("test_records", "test on records {}");
    /// Class of escape beats: `de_chazal` or `ec57`.
    pub const ESCAPE_RULE: FactName = name("escape_rule", "escape beats by `{}`");
    /// Views that a confusion table has.
    pub const VIEWS: FactName = name("views", "views {}");
    /// All records; the engine knows them once the sources were asked.
    pub const RECORDS: FactName = name("records", "records {}");
    /// By record: the patient. Before the sources were asked, of records alone whose patient is not called as they are.
    pub const PATIENT: FactName = name("record.patient", "patients {}");
    /// By record: samples per second.
    pub const RECORD_FS_HZ: FactName = name("record.fs_hz", "sampling frequencies {}");
    /// By record: `[name, unit]` of each lead.
    pub const RECORD_LEADS: FactName = name("record.leads", "leads {}");
}

/// What is known, and who said it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// A number, a text, a list of texts, or an object by record; shared, since it travels far.
    pub value: Arc<Value>,
    /// Who said it.
    pub origin: Origin,
}

/// Who said a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The node.
    pub node: String,
    /// Its parameter that decides the value.
    pub parameter: Option<&'static str>,
}

/// The facts of one artifact, by [`FactName::key`].
pub type Facts = BTreeMap<&'static str, Fact>;

/// A connected input of a node, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct InputFacts {
    /// What gives it: `node.port`.
    pub from: String,
    /// What is known of it.
    pub facts: Facts,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The pipeline must not run.
    Error,
    /// The user should look at it.
    Warning,
    /// A warning that the stage itself gives when it runs, so that nobody has to say it then.
    Foretold,
}

/// What a stage says is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct FactProblem {
    /// How bad it is.
    pub level: Level,
    /// What is wrong, with the facts: a lowercase fragment.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Where to look first.
    pub place: Place,
    /// Inputs that matter too.
    pub ports: Vec<&'static str>,
    /// Who said the facts that matter, with what was said in words.
    pub origins: Vec<(Origin, String)>,
    /// The contradictions, so that each is told once wherever the two outputs meet: the fact, and both as `node.port`.
    pub conflicts: Vec<(&'static str, String, String)>,
}

/// A place in the node that a problem is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The edge into an input port.
    Port(&'static str),
    /// A parameter, by its dotted path.
    Parameter(&'static str),
}

impl FactProblem {
    /// An error at an input or a parameter.
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        let message = message.into();
        let (ports, origins, conflicts) = (Vec::new(), Vec::new(), Vec::new());
        Self { level: Level::Error, message, help: None, place, ports, origins, conflicts }
    }

    /// A warning at an input or a parameter.
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(place, message) }
    }

    /// A warning that the stage repeats when it runs.
    pub fn foretold(place: Place, message: impl Into<String>) -> Self {
        Self { level: Level::Foretold, ..Self::error(place, message) }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Shows who said a fact.
    #[must_use]
    pub fn because(mut self, name: FactName, fact: &Fact) -> Self {
        self.origins.push((fact.origin.clone(), name.read(&fact.value)));
        self
    }
}

impl FactName {
    /// The value in words.
    #[must_use]
    pub fn read(&self, value: &Value) -> String {
        self.words.replace("{}", &words(value))
    }
}

/// What a stage is shown, and where it answers.
#[derive(Debug)]
pub struct StageFacts<'a> {
    node: &'a str,
    identity: &'a str,
    inputs: &'a BTreeMap<&'a str, InputFacts>,
    /// What is known of each output.
    pub outputs: BTreeMap<&'static str, Facts>,
    /// What is wrong.
    pub problems: Vec<FactProblem>,
}

impl<'a> StageFacts<'a> {
    /// For one node. `identity` is the node's name, or that of the first node that does the same from the same inputs.
    #[must_use]
    pub fn new(node: &'a str, identity: &'a str, inputs: &'a BTreeMap<&'a str, InputFacts>) -> Self {
        Self { node, identity, inputs, outputs: BTreeMap::new(), problems: Vec::new() }
    }

    /// Whether an input port is connected.
    #[must_use]
    pub fn is_connected(&self, port: &str) -> bool {
        self.inputs.contains_key(port)
    }

    /// What gives an input, as `node.port`; the port's own name if it is not connected.
    #[must_use]
    pub fn from<'b>(&'b self, port: &'b str) -> &'b str {
        self.inputs.get(port).map_or(port, |input| &input.from)
    }

    /// A fact of an input, if it is known.
    #[must_use]
    pub fn get(&self, port: &str, name: FactName) -> Option<&'a Fact> {
        self.inputs.get(port)?.facts.get(name.key)
    }

    /// A number of an input, if it is known.
    #[must_use]
    pub fn number(&self, port: &str, name: FactName) -> Option<f64> {
        self.get(port, name)?.value.as_f64()
    }

    /// A list of texts of an input, if it is known.
    #[must_use]
    pub fn list(&self, port: &str, name: FactName) -> Option<Vec<&'a str>> {
        Some(self.get(port, name)?.value.as_array()?.iter().filter_map(Value::as_str).collect())
    }

    /// What is known of single records, sorted by record.
    #[must_use]
    pub fn by_record(&self, port: &str, name: FactName) -> BTreeMap<&'a str, &'a Value> {
        let map = self.get(port, name).and_then(|fact| fact.value.as_object());
        map.into_iter().flatten().map(|(record, value)| (record.as_str(), value)).collect()
    }

    /// Says a fact of an output that follows from the stage itself.
    pub fn set(&mut self, port: &'static str, name: FactName, value: impl Into<Value>) {
        self.put(port, name, value.into(), None);
    }

    /// Says a fact of an output that a parameter decides.
    pub fn set_by(&mut self, port: &'static str, name: FactName, value: impl Into<Value>, parameter: &'static str) {
        self.put(port, name, value.into(), Some(parameter));
    }

    /// Says that an output is a thing of its own, which others can be of: its value is `node.port`, the same for two nodes
    /// that do the same from the same inputs.
    pub fn identify(&mut self, port: &'static str, name: FactName) {
        let value = format!("{}.{port}", self.identity);
        self.put(port, name, value.into(), None);
    }

    /// Says that all that is known of an input holds for an output.
    pub fn pass(&mut self, input: &str, output: &'static str) {
        if let Some(input) = self.inputs.get(input) {
            self.outputs.entry(output).or_default().extend(input.facts.clone());
        }
    }

    /// Says that some of what is known of an input holds for an output.
    pub fn pass_only(&mut self, input: &str, output: &'static str, names: &[FactName]) {
        for name in names {
            if let Some(fact) = self.get(input, *name) {
                self.outputs.entry(output).or_default().insert(name.key, fact.clone());
            }
        }
    }

    /// Refuses inputs of which a fact is known to differ; `help` says what to do.
    pub fn same(&mut self, ports: &[&'static str], names: &[FactName], help: &str) {
        let problems = self.differences(ports, names, Level::Error, help);
        self.problems.extend(problems);
    }

    /// Warns of inputs of which a fact is known to differ.
    pub fn same_or_warn(&mut self, ports: &[&'static str], names: &[FactName], help: &str) {
        let problems = self.differences(ports, names, Level::Warning, help);
        self.problems.extend(problems);
    }

    /// Says that something is wrong.
    pub fn tell(&mut self, problem: FactProblem) {
        self.problems.push(problem);
    }

    fn put(&mut self, port: &'static str, name: FactName, value: Value, parameter: Option<&'static str>) {
        let origin = Origin { node: self.node.to_owned(), parameter };
        self.outputs.entry(port).or_default().insert(name.key, Fact { value: value.into(), origin });
    }

    /// One problem for each port that differs from the first one that knows, with all facts in which they differ.
    fn differences(&self, ports: &[&'static str], names: &[FactName], level: Level, help: &str) -> Vec<FactProblem> {
        let mut problems = Vec::new();
        for (place, &port) in ports.iter().enumerate() {
            let mut against: BTreeMap<&'static str, Vec<(FactName, &Fact, &Fact)>> = BTreeMap::new();
            for &name in names {
                let Some(own) = self.get(port, name) else { continue };
                let mut earlier = ports[..place].iter().filter_map(|&port| Some((port, self.get(port, name)?)));
                if let Some((other, fact)) = earlier.next().filter(|(_, fact)| fact.value != own.value) {
                    against.entry(other).or_default().push((name, own, fact));
                }
            }
            for (other, facts) in against {
                let say = |which: fn(&(FactName, &Fact, &Fact)) -> String| {
                    facts.iter().map(which).collect::<Vec<_>>().join(", ")
                };
                let message = format!(
                    "`{}` comes from {}, but `{}` comes from {}",
                    self.from(port),
                    say(|(name, own, _)| name.read(&own.value)),
                    self.from(other),
                    say(|(name, _, fact)| name.read(&fact.value)),
                );
                let mut problem = FactProblem { level, ..FactProblem::error(Place::Port(port), message).help(help) };
                problem.ports.push(other);
                for (name, own, fact) in facts {
                    problem = problem.because(name, own).because(name, fact);
                    problem.conflicts.push((name.key, self.from(other).to_owned(), self.from(port).to_owned()));
                }
                problems.push(problem);
            }
        }
        problems
    }
}

/// The facts of one record, as a source lists them, by [`FactName::key`].
pub type RecordFacts = BTreeMap<&'static str, Value>;

/// What the sources said of single records as facts of their outputs: by name an object by record.
#[must_use]
pub fn of_records<'a>(node: &str, records: impl IntoIterator<Item = (&'a RecordId, &'a RecordFacts)>) -> Facts {
    let mut objects: BTreeMap<&'static str, serde_json::Map<String, Value>> = BTreeMap::new();
    for (record, facts) in records {
        for (name, value) in facts {
            objects.entry(name).or_default().insert(record.to_string(), value.clone());
        }
    }
    let fact = |value: Value| Fact { value: value.into(), origin: Origin { node: node.to_owned(), parameter: None } };
    objects.into_iter().map(|(name, object)| (name, fact(Value::Object(object)))).collect()
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) if items.len() > 8 => {
            let first: Vec<String> = items[..6].iter().map(words).collect();
            format!("{}, ... ({} of them)", first.join(", "), items.len())
        }
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            let parts: Vec<String> = map.iter().map(|(name, value)| format!("{name} {}", words(value))).collect();
            parts.join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{names::*, *};

    fn input(from: &str, facts: &[(FactName, Value, &str, Option<&'static str>)]) -> InputFacts {
        let fact = |(name, value, node, parameter): &(FactName, Value, &str, Option<&'static str>)| {
            let origin = Origin { node: (*node).to_owned(), parameter: *parameter };
            (name.key, Fact { value: value.clone().into(), origin })
        };
        InputFacts { from: from.to_owned(), facts: facts.iter().map(fact).collect() }
    }

    #[test]
    fn same_compares_what_is_known() {
        let inputs = BTreeMap::from([
            ("onnx", input("export.onnx", &[(LENGTH_N, json!(187), "cut", None), (UNIT, json!("mV"), "cut", None)])),
            (
                "windows",
                input(
                    "b.windows",
                    &[
                        (LENGTH_N, json!(251), "cut_b", Some("length_n")),
                        (WINDOW_FS_HZ, json!(250.0), "cut_b", None),
                        (UNIT, json!("mV"), "cut_b", None),
                    ],
                ),
            ),
        ]);
        let mut facts = StageFacts::new("infer", "infer", &inputs);
        facts.same(&["onnx", "windows", "rhythm"], &[LENGTH_N, WINDOW_FS_HZ, UNIT], "cut them alike");
        assert_eq!(facts.problems.len(), 1);
        let problem = &facts.problems[0];
        assert_eq!(
            problem.message,
            "`b.windows` comes from windows of 251 samples, but `export.onnx` comes from windows of 187 samples"
        );
        assert_eq!((problem.level, &problem.place), (Level::Error, &Place::Port("windows")));
        assert_eq!(problem.ports, ["onnx"]);
        let origins: Vec<&str> = problem.origins.iter().map(|(origin, _)| origin.node.as_str()).collect();
        assert_eq!(origins, ["cut_b", "cut"]);
        assert_eq!(problem.conflicts.len(), 1);
    }

    #[test]
    fn each_port_is_compared_with_the_first_that_knows() {
        let of = |from: &str, beats: &str| input(from, &[(BEATS, json!(beats), beats, None)]);
        let inputs = BTreeMap::from([
            ("windows", of("scale.windows", "found.beats")),
            ("rhythm", of("rhythm.features", "marked.beats")),
            ("split", of("split.split", "found.beats")),
        ]);
        let mut facts = StageFacts::new("train", "train", &inputs);
        facts.same(&["unknown", "windows", "rhythm", "split"], &[BEATS], "take them from the same beats");
        let places: Vec<&Place> = facts.problems.iter().map(|problem| &problem.place).collect();
        assert_eq!(places, [&Place::Port("rhythm")]);
    }

    #[test]
    fn what_is_passed_on_keeps_who_said_it() {
        let inputs = BTreeMap::from([("beats", input("peaks.beats", &[(PEAKS, json!("detected"), "peaks", None)]))]);
        let mut facts = StageFacts::new("cut", "cut", &inputs);
        facts.pass("beats", "windows");
        facts.pass("signals", "windows");
        facts.set_by("windows", LENGTH_N, 187, "length_n");
        facts.identify("windows", SPLIT);
        let windows = &facts.outputs["windows"];
        assert_eq!(windows[PEAKS.key].origin.node, "peaks");
        assert_eq!(windows[LENGTH_N.key].origin, Origin { node: "cut".to_owned(), parameter: Some("length_n") });
        assert_eq!(*windows[SPLIT.key].value, json!("cut.windows"));
    }

    #[test]
    fn values_read_as_words() {
        assert_eq!(WINDOW_FS_HZ.read(&json!(360.0)), "a sampling frequency of 360 Hz");
        assert_eq!(FEATURES.read(&json!([])), "features none");
        assert_eq!(LEADS.read(&json!(["MLII", "V1"])), "leads by preference MLII, V1");
        let many: Vec<String> = (0..22).map(|idx| idx.to_string()).collect();
        assert_eq!(TEST_RECORDS.read(&json!(many)), "test on records 0, 1, 2, 3, 4, 5, ... (22 of them)");
    }
}
