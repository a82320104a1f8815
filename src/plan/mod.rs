//! Owns plans: a pipeline and the known stages become a typed, bound, acyclic graph, or a report of all that is wrong.
//!
//! Invariant: a [`Plan`] exists only checked. Every edge joins ports of one kind and fitting cardinality, every
//! required input is connected, every parameter is bound, and [`Plan::nodes`] is in topological order with ties broken
//! by name (`a_plan_is_in_topological_order`).
//!
//! Invariant: the order of stages, ports and parameters in the file changes nothing
//! (`the_order_in_the_file_changes_nothing`).
//!
//! This module does no I/O, and knows no records: how many jobs a node becomes is not its business.

mod facts;
mod params;
#[cfg(test)]
pub(crate) mod test_stages;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use ecgpipe_sdk::{
    BoundParams, Cardinality, FactProblem, KindSpec, PortSpec, RecordId, Registry, SourceRecord, StageSpec,
    facts::Level,
};
use petgraph::{
    Direction,
    algo::tarjan_scc,
    graph::{DiGraph, NodeIndex},
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use facts::{Places, Step};
pub(crate) use params::{alternatives as schema_alternatives, describe as describe_schema, paths_named};

use crate::{
    diagnostic::{Diagnostic, Report, Sources, list, nearest, suggest},
    pipeline::{Pipeline, PublishEntry, StageEntry, Tracking, yaml::Text},
};

/// A checked pipeline: what to compute and from what.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    seed: u64,
    tracking: Tracking,
    nodes: Vec<PlanNode>,
    publish: Vec<Publish>,
    graph: DiGraph<usize, String>,
    places: Arc<Places>,
    warnings: Warnings,
}

/// What a checked pipeline should be looked at for.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    /// All of them, with their places; none without any.
    pub report: Option<Report>,
    /// Those that no stage gives itself when it runs, one line each.
    pub untold: Vec<String>,
}

/// One use of a stage.
#[derive(Clone, Debug)]
pub struct PlanNode {
    /// The name in the pipeline.
    pub name: String,
    /// The name of the stage.
    pub uses: String,
    /// All parameters of the stage.
    pub params: BoundParams,
    /// What each connected input port takes.
    pub inputs: BTreeMap<String, Edge>,
    /// What the stage gives, in its own order.
    pub outputs: Vec<PortSpec>,
    /// Whether the stage runs once per record.
    pub per_record: bool,
    /// Whether it lists the records itself: it runs per record, and no `Each` input is connected.
    pub source: bool,
    /// Whether the pipeline's seed decides its result.
    pub seeded: bool,
    /// Whether one job may use every core.
    pub exclusive: bool,
    /// Identity of the stage's code, hex.
    pub code: String,
}

impl PlanNode {
    /// An output port by name.
    #[must_use]
    pub fn output(&self, port: &str) -> Option<&PortSpec> {
        self.outputs.iter().find(|spec| spec.name == port)
    }
}

/// What an input port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The node that gives it, by its place in [`Plan::nodes`].
    pub node_idx: usize,
    /// The output port of that node.
    pub port: String,
    /// Whether all records' artifacts are gathered.
    pub gather: bool,
    /// What passes.
    pub kind: KindSpec,
}

/// An output that is copied out of the store when it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// A path relative to the project, without a `/` at its end.
    pub target: String,
    /// Whether the target is a folder.
    pub folder: bool,
    /// The node that gives it, by its place in [`Plan::nodes`].
    pub node_idx: usize,
    /// The output port of that node.
    pub port: String,
}

impl Plan {
    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipeline's seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where runs are reported.
    #[must_use]
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// All nodes, inputs before those that need them, ties by name.
    #[must_use]
    pub fn nodes(&self) -> &[PlanNode] {
        &self.nodes
    }

    /// A node's place by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What is published, sorted by target, node and port.
    #[must_use]
    pub fn publish(&self) -> &[Publish] {
        &self.publish
    }

    /// The graph: a node's weight is its place in [`Plan::nodes`] (also its petgraph index), an edge's the input port.
    #[must_use]
    pub fn graph(&self) -> &DiGraph<usize, String> {
        &self.graph
    }

    /// The nodes that take something from this one.
    #[must_use]
    pub fn downstream(&self, node_idx: usize) -> BTreeSet<usize> {
        self.neighbours(node_idx, Direction::Outgoing)
    }

    /// The nodes that this one takes something from.
    #[must_use]
    pub fn upstream(&self, node_idx: usize) -> BTreeSet<usize> {
        self.neighbours(node_idx, Direction::Incoming)
    }

    fn neighbours(&self, node_idx: usize, direction: Direction) -> BTreeSet<usize> {
        self.graph.neighbors_directed(NodeIndex::new(node_idx), direction).map(NodeIndex::index).collect()
    }

    /// What the user should look at, though nothing is wrong.
    #[must_use]
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Checks what is known only from the records: `listed` is what the selected sources said, `records` are those of
    /// every node. Gives the warnings that checking the plan alone did not give.
    ///
    /// # Errors
    /// What contradicts what, with its places.
    pub fn check_records(
        &self,
        registry: &Registry,
        selected: &BTreeSet<usize>,
        listed: &BTreeMap<usize, Vec<SourceRecord>>,
        records: &[Vec<RecordId>],
    ) -> Result<Warnings, Report> {
        let step = |node_idx: usize, with_records: bool| {
            let node = &self.nodes[node_idx];
            let from = |edge: &'_ Edge| self.nodes[edge.node_idx].name.as_str();
            let inputs = node.inputs.iter().map(|(port, edge)| (port.as_str(), (from(edge), edge.port.as_str())));
            Step {
                node: &node.name,
                stage: registry.get(&node.uses).expect("a plan names registered stages only"),
                params: &node.params,
                inputs: inputs.collect(),
                listed: listed.get(&node_idx).filter(|_| with_records).map(Vec::as_slice),
                records: records.get(node_idx).filter(|_| with_records && node.per_record).map(Vec::as_slice),
            }
        };
        let ask = |with_records| {
            let steps: Vec<Step<'_>> = selected.iter().map(|&node_idx| step(node_idx, with_records)).collect();
            facts::ask(&steps)
        };
        let before = ask(false);
        let new = ask(true).into_iter().filter(|problem| !before.contains(problem));
        judge(&self.places, Vec::new(), new)
    }

    /// The named nodes and all that they need; every node if none is named. A target may also be `node.port`.
    ///
    /// # Errors
    /// A target that no node has.
    pub fn select(&self, targets: &[String]) -> Result<BTreeSet<usize>, Report> {
        if targets.is_empty() {
            return Ok((0..self.nodes.len()).collect());
        }
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let mut unknown = Vec::new();
        let mut queue = Vec::new();
        for target in targets {
            let (name, port) =
                target.split_once('.').map_or((target.as_str(), None), |(name, port)| (name, Some(port)));
            let found = self.find(name);
            match found {
                Some(idx) if port.is_none_or(|port| self.nodes[idx].output(port).is_some()) => queue.push(idx),
                Some(idx) => {
                    let ports: Vec<&str> = self.nodes[idx].outputs.iter().map(|port| port.name).collect();
                    let problem = Diagnostic::new(format!("`--target {target}`: stage `{name}` has no such output"));
                    unknown.push(problem.help(suggest(port.unwrap_or_default(), &ports, "its outputs are")));
                }
                None => {
                    let problem = Diagnostic::new(format!("`--target {target}`: the pipeline has no stage `{name}`"));
                    unknown.push(problem.help(suggest(name, &names, "its stages are")));
                }
            }
        }
        if !unknown.is_empty() {
            return Err(Report::new(unknown, Sources::default()));
        }
        let mut selected = BTreeSet::new();
        while let Some(idx) = queue.pop() {
            if selected.insert(idx) {
                queue.extend(self.upstream(idx));
            }
        }
        Ok(selected)
    }

    /// The plan as JSON for the run folder. Objects are sorted by key.
    #[must_use]
    pub fn json(&self) -> Value {
        let output = |node_idx: usize, port: &str| format!("{}.{port}", self.nodes[node_idx].name);
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| {
                let inputs = node.inputs.iter().map(|(port, edge)| {
                    let from = output(edge.node_idx, &edge.port);
                    let kind = json!({"name": edge.kind.name, "version": edge.kind.version});
                    (port.clone(), json!({"from": from, "gather": edge.gather, "kind": kind}))
                });
                let outputs = node.outputs.iter().map(|port| {
                    let kind = json!({"name": port.kind.name, "version": port.kind.version});
                    (port.name.to_owned(), json!({"cardinality": port.cardinality, "kind": kind}))
                });
                json!({
                    "name": node.name,
                    "uses": node.uses,
                    "code": node.code,
                    "params": node.params.as_json(),
                    "inputs": Map::from_iter(inputs),
                    "outputs": Map::from_iter(outputs),
                    "per_record": node.per_record,
                    "source": node.source,
                    "seeded": node.seeded,
                    "exclusive": node.exclusive,
                })
            })
            .collect();
        let publish: Vec<Value> = self
            .publish
            .iter()
            .map(|one| json!({"target": one.target, "folder": one.folder, "from": output(one.node_idx, &one.port)}))
            .collect();
        sorted(json!({
            "format": 1,
            "name": self.name,
            "seed": self.seed,
            "tracking": self.tracking,
            "nodes": nodes,
            "publish": publish,
        }))
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

/// The same value with every object sorted by key, whatever the features of `serde_json` in this build.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let by_key: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(by_key.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Checks a pipeline against the known stages.
///
/// # Errors
/// Everything that is wrong, in form ([`Pipeline::problems`]), in meaning and in what is known of the artifacts on the
/// edges ([`ecgpipe_sdk::facts`]), each with its places in the YAML.
pub fn plan(pipeline: &Pipeline, registry: &Registry) -> Result<Plan, Report> {
    if pipeline.stages.is_empty() && !pipeline.problems.is_empty() {
        // Nothing is left that references could mean.
        return Err(Report::new(pipeline.problems.clone(), pipeline.sources.clone()));
    }
    let mut check = Check { pipeline, specs: BTreeMap::new(), diagnostics: pipeline.problems.clone() };
    check.stages(registry);
    let links = check.links();
    let bound = check.params(registry);
    let publish = check.publish();
    check.cycles(&links);
    let problems = check.facts(registry, &links, &bound);
    let places = Places::of(pipeline);
    let warnings = judge(&places, check.diagnostics, problems)?;
    Ok(assemble(pipeline, &check.specs, links, bound, publish, Checked { places: Arc::new(places), warnings }))
}

/// What a plan keeps of its check.
struct Checked {
    places: Arc<Places>,
    warnings: Warnings,
}

/// The warnings, unless there are errors too.
fn judge<'a>(
    places: &Places,
    mut diagnostics: Vec<Diagnostic>,
    problems: impl IntoIterator<Item = (&'a str, FactProblem)>,
) -> Result<Warnings, Report> {
    let mut untold = Vec::new();
    for (node, problem) in problems {
        if problem.level == Level::Warning {
            let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
            untold.push(format!("stage `{node}`: {}{help}", problem.message));
        }
        diagnostics.push(places.diagnostic(node, &problem));
    }
    let report = (!diagnostics.is_empty()).then(|| Report::new(diagnostics, places.sources.clone()));
    match report {
        Some(report) if report.has_errors() => Err(report),
        report => Ok(Warnings { report, untold }),
    }
}

/// Node to port to what it takes.
type Links<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Link<'a>>>;

#[derive(Clone)]
struct Link<'a> {
    from: &'a str,
    port: &'a PortSpec,
    written: &'a Text,
    gather: bool,
}

/// What to publish by names: target, folder, node, port.
type Published<'a> = Vec<(&'a PublishEntry, &'a str, &'a PortSpec)>;

struct Check<'a> {
    pipeline: &'a Pipeline,
    /// The stages of the nodes whose `uses` is known.
    specs: BTreeMap<&'a str, &'a StageSpec>,
    diagnostics: Vec<Diagnostic>,
}

/// An output that exists, or why there is none to speak of.
enum Found<'a> {
    Output(&'a str, &'a PortSpec),
    /// Of a node whose form is wrong or whose stage is unknown: that is reported already.
    Unknowable,
    /// The message and the advice.
    Missing(String, Option<String>),
}

impl<'a> Check<'a> {
    fn stages(&mut self, registry: &'a Registry) {
        let names: Vec<&str> = registry.iter().map(|stage| stage.spec().name).collect();
        for (name, entry) in &self.pipeline.stages {
            if let Some(why) = registry.refused().get(&entry.uses.text) {
                let message = format!("stage `{name}`: the plugin `{}` cannot be used", entry.uses.text);
                self.diagnostics.push(Diagnostic::at(&entry.uses.span, message).note(why.as_str()));
                continue;
            }
            let Some(stage) = registry.get(&entry.uses.text) else {
                let message = format!("stage `{name}`: there is no stage `{}` to use", entry.uses.text);
                let help = suggest(&entry.uses.text, &names, "stages are");
                self.diagnostics.push(Diagnostic::at(&entry.uses.span, message).help(help));
                continue;
            };
            let spec = stage.spec();
            let takes_each = spec.inputs.iter().any(|port| port.cardinality == Cardinality::Each);
            let gives_all = spec.outputs.iter().any(|port| port.cardinality == Cardinality::All);
            let gives_one = spec.outputs.iter().any(|port| port.cardinality == Cardinality::One);
            if gives_all || (takes_each || spec.per_record()) && gives_one || takes_each && !spec.per_record() {
                let message = format!("stage `{name}`: `{}` mixes ports for one record and for all", spec.name);
                let defect = Diagnostic::at(&entry.uses.span, message);
                let help =
                    "this is a defect of the stage: all its outputs must be `Each`, or all `One` without `Each` inputs";
                self.diagnostics.push(defect.help(help.to_owned()));
            }
            self.specs.insert(name, spec);
        }
    }

    /// Reads `node.port`.
    fn output(&self, written: &str) -> Found<'a> {
        let pipeline = self.pipeline;
        let (node, port) = written.split_once('.').map_or((written, None), |(node, port)| (node, Some(port)));
        if pipeline.broken.contains(node) {
            return Found::Unknowable;
        }
        let Some((node, _)) = pipeline.stages.get_key_value(node) else {
            let names: Vec<&str> = pipeline.stages.keys().map(String::as_str).collect();
            let help = match (nearest(node, names.iter().copied()), port) {
                (Some(near), Some(port)) => {
                    let ports: Vec<&str> =
                        self.specs.get(near).iter().flat_map(|spec| &spec.outputs).map(|port| port.name).collect();
                    let port = nearest(port, ports.iter().copied()).unwrap_or(port);
                    Some(format!("did you mean `{near}.{port}`?"))
                }
                _ => suggest(node, &names, "the stages of this pipeline are"),
            };
            return Found::Missing(format!("there is no stage `{node}`"), help);
        };
        let Some(spec) = self.specs.get(node.as_str()) else { return Found::Unknowable };
        let ports: Vec<String> = spec.outputs.iter().map(|port| format!("{node}.{}", port.name)).collect();
        let outputs = || match ports.as_slice() {
            [] => Some(format!("`{node}` has no outputs")),
            [only] => Some(format!("did you mean `{only}`?")),
            many => Some(format!("its outputs are {}", list(many.iter().map(String::as_str)))),
        };
        let Some(port) = port else {
            return Found::Missing(format!("`{written}` is a stage, not an output of one"), outputs());
        };
        match spec.outputs.iter().find(|output| output.name == port) {
            Some(output) => Found::Output(node, output),
            None => {
                let near = nearest(port, spec.outputs.iter().map(|port| port.name));
                let help = near.map_or_else(outputs, |near| Some(format!("did you mean `{node}.{near}`?")));
                Found::Missing(format!("`{node}` ({}) has no output `{port}`", spec.name), help)
            }
        }
    }

    fn links(&mut self) -> Links<'a> {
        let mut links = Links::new();
        let mut problems = Vec::new();
        let reach = self.reach();
        for (name, entry) in &self.pipeline.stages {
            let connected = links.entry(name.as_str()).or_default();
            let Some(spec) = self.specs.get(name.as_str()) else { continue };
            for (port, written) in &entry.inputs {
                let Some(input) = spec.inputs.iter().find(|input| input.name == port.text) else {
                    let names: Vec<&str> = spec.inputs.iter().map(|input| input.name).collect();
                    let problem = Diagnostic::at(
                        &port.span,
                        format!("stage `{name}`: `{}` has no input `{}`", spec.name, port.text),
                    );
                    let help = suggest(&port.text, &names, "its inputs are");
                    problems.push(problem.help(help.or_else(|| Some("it takes no inputs".to_owned()))));
                    continue;
                };
                let Some(written) = written else { continue };
                match self.output(&written.text) {
                    Found::Unknowable => {}
                    Found::Missing(message, help) => {
                        let message = format!("stage `{name}`: port `{}`: {message}", port.text);
                        problems.push(Diagnostic::at(&written.span, message).help(help));
                    }
                    Found::Output(from, output) => match misfit(input, output) {
                        Some(reason) => {
                            let message = format!("stage `{name}`: port `{}` {}", port.text, reason(&written.text));
                            let fitting = self.fitting(name, input, &reach);
                            problems.push(Diagnostic::at(&written.span, message).help(advice(&fitting, input)));
                        }
                        None => {
                            let gather = input.cardinality == Cardinality::All;
                            connected.insert(input.name, Link { from, port: output, written, gather });
                        }
                    },
                }
            }
            // A misspelt port was meant to be connected.
            let names = || spec.inputs.iter().map(|input| input.name);
            let is_written = |input: &PortSpec| {
                let meant =
                    |port: &Text| names().find(|name| *name == port.text).or_else(|| nearest(&port.text, names()));
                entry.inputs.iter().any(|(port, _)| meant(port) == Some(input.name))
            };
            for input in spec.inputs.iter().filter(|input| !input.optional && !is_written(input)) {
                let message = format!("stage `{name}`: input `{}` is not connected", input.name);
                let help = match self.fitting(name, input, &reach).as_slice() {
                    [] => format!("no other stage of this pipeline gives {}", words(input)),
                    [only] => format!("add `{}: {only}` under `in:`", input.name),
                    many => format!("what fits: {}", list(many.iter().take(5).map(String::as_str))),
                };
                let place = entry.inputs_key.as_ref().unwrap_or(&entry.name.span);
                problems.push(Diagnostic::at(place, message).help(help));
            }
        }
        self.diagnostics.extend(problems);
        links
    }

    /// For every node those that it needs, directly or not, as far as the references can be read.
    fn reach(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let stages = &self.pipeline.stages;
        let needs = |entry: &'a StageEntry| {
            let nodes = entry
                .inputs
                .iter()
                .flat_map(|(_, written)| written)
                .map(|written| written.text.split('.').next().unwrap_or_default());
            nodes.filter_map(|node| stages.get_key_value(node).map(|(node, _)| node.as_str()))
        };
        let all = stages.iter().map(|(name, entry)| {
            let mut seen = BTreeSet::new();
            let mut queue: Vec<&str> = needs(entry).collect();
            while let Some(node) = queue.pop() {
                if seen.insert(node) {
                    queue.extend(needs(&stages[node]));
                }
            }
            (name.as_str(), seen)
        });
        all.collect()
    }

    /// Outputs that fit an input without closing a loop: those whose port is called as the input is come first.
    fn fitting(&self, node: &str, input: &PortSpec, reach: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
        let others = self.specs.iter().filter(|(name, _)| **name != node && !reach[*name].contains(node));
        let outputs = others.flat_map(|(name, spec)| spec.outputs.iter().map(move |output| (name, output)));
        let mut fitting: Vec<(bool, String)> = outputs
            .filter(|(_, output)| misfit(input, output).is_none())
            .map(|(name, output)| (output.name != input.name, format!("{name}.{}", output.name)))
            .collect();
        fitting.sort();
        fitting.into_iter().map(|(_, output)| output).collect()
    }

    fn params(&mut self, registry: &Registry) -> BTreeMap<&'a str, BoundParams> {
        let mut bound = BTreeMap::new();
        for (name, entry) in &self.pipeline.stages {
            if let Some(stage) = registry.get(&entry.uses.text)
                && let Some(params) = params::bind(stage, entry, &mut self.diagnostics)
            {
                bound.insert(name.as_str(), params);
            }
        }
        bound
    }

    fn publish(&mut self) -> Published<'a> {
        let mut published = Published::new();
        let mut problems = Vec::new();
        let mut targets: BTreeMap<&str, &PublishEntry> = BTreeMap::new();
        for entry in &self.pipeline.publish {
            let target = &entry.written.text;
            if let Some(first) = targets.insert(&entry.target, entry) {
                let message = format!("two entries of `publish` write to `{}`", entry.target);
                let problem = Diagnostic::at(&entry.written.span, message).label(&first.written.span, "first here");
                problems.push(problem.help("give a folder, ending with `/`, one list of outputs".to_owned()));
            }
            let above = entry.target.match_indices('/').map(|(slash, _)| &entry.target[..slash]);
            for file in above.filter_map(|folder| targets.get(folder)).filter(|file| !file.folder) {
                let message = format!("`{target}` would lie in `{}`, which is published as a file", file.target);
                let problem = Diagnostic::at(&entry.written.span, message);
                let problem = problem.label(&file.written.span, "published here");
                problems.push(problem.help("choose another target for one of them".to_owned()));
            }
            let mut seen = BTreeSet::new();
            for written in &entry.outputs {
                match self.output(&written.text) {
                    Found::Unknowable => {}
                    Found::Missing(message, help) => {
                        let message = format!("publish `{target}`: {message}");
                        problems.push(Diagnostic::at(&written.span, message).help(help));
                    }
                    Found::Output(_, _) if !seen.insert(&written.text) => {
                        let message = format!("publish `{target}`: `{}` is listed twice", written.text);
                        let problem = Diagnostic::at(&written.span, message);
                        problems.push(problem.help("take it out here".to_owned()));
                    }
                    Found::Output(_, port) if !entry.folder && port.cardinality != Cardinality::One => {
                        let message = format!(
                            "publish `{target}`: `{}` gives one {} artifact for every record, but the target is one file",
                            written.text, port.kind.name
                        );
                        let help = format!("publish it to a folder: `{target}/`");
                        problems.push(Diagnostic::at(&written.span, message).help(help));
                    }
                    Found::Output(node, port) => published.push((entry, node, port)),
                }
            }
        }
        self.diagnostics.extend(problems);
        published
    }

    /// What the stages say of their edges; nodes with an error of their own are not asked.
    fn facts(
        &self,
        registry: &'a Registry,
        links: &Links<'a>,
        bound: &'a BTreeMap<&'a str, BoundParams>,
    ) -> Vec<(&'a str, FactProblem)> {
        let is_whole = |name: &str, ports: &BTreeMap<&str, Link<'_>>| {
            let written_n = self.pipeline.stages[name].inputs.len();
            let needs =
                |spec: &&StageSpec| spec.inputs.iter().all(|input| input.optional || ports.contains_key(input.name));
            ports.len() == written_n && self.specs.get(name).is_some_and(needs)
        };
        let step = |name: &&'a str| {
            let ports = &links[*name];
            let params = bound.get(*name).filter(|_| is_whole(name, ports))?;
            let stage = registry.get(&self.pipeline.stages[*name].uses.text)?;
            let inputs = ports.iter().map(|(port, link)| (*port, (link.from, link.port.name))).collect();
            Some(Step { node: name, stage, params, inputs, listed: None, records: None })
        };
        let steps: Vec<Step<'a>> = in_order(links).iter().filter_map(step).collect();
        facts::ask(&steps)
    }

    /// One error for each group of nodes that need each other, naming one whole loop.
    fn cycles(&mut self, links: &Links<'a>) {
        let names: Vec<&str> = links.keys().copied().collect();
        let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(idx, name)| (*name, idx)).collect();
        let edges = links.iter().flat_map(|(to, ports)| ports.values().map(|link| (place[link.from], place[to])));
        let mut graph = DiGraph::<(), ()>::new();
        names.iter().for_each(|_| {
            graph.add_node(());
        });
        for (from, to) in edges {
            graph.update_edge(NodeIndex::new(from), NodeIndex::new(to), ());
        }
        for group in tarjan_scc(&graph) {
            let members: BTreeSet<usize> = group.iter().map(|node| node.index()).collect();
            let start = *members.first().expect("a component has a node");
            let loops = members.len() > 1 || graph.contains_edge(NodeIndex::new(start), NodeIndex::new(start));
            if !loops {
                continue;
            }
            let nodes = shortest_loop(&graph, start, &members);
            let path: Vec<String> = nodes.iter().chain([&start]).map(|idx| format!("`{}`", names[*idx])).collect();
            let mut references = nodes.iter().zip(nodes.iter().skip(1).chain([&start])).filter_map(|(from, to)| {
                let mut ports = links[names[*to]].values();
                ports.find(|link| link.from == names[*from]).map(|link| (link, names[*to]))
            });
            let (first, to) = references.next().expect("a loop has an edge");
            let message = format!("stages need each other in a loop: {}", path.join(" -> "));
            let needs = |link: &Link<'_>, to: &str| format!("`{to}` needs `{}`", link.from);
            let problem = Diagnostic::at(&first.written.span, message).label(&first.written.span, needs(first, to));
            let problem =
                references.fold(problem, |problem, (link, to)| problem.label(&link.written.span, needs(link, to)));
            self.diagnostics.push(problem.help("take one of these inputs from a stage outside the loop".to_owned()));
        }
    }
}

/// The nodes of a shortest loop through `start`, in the direction of the data.
fn shortest_loop(graph: &DiGraph<(), ()>, start: usize, members: &BTreeSet<usize>) -> Vec<usize> {
    let mut came_from = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let next: BTreeSet<usize> = graph.neighbors(NodeIndex::new(node)).map(NodeIndex::index).collect();
        for next in next {
            if next == start {
                let mut path = vec![node];
                while let Some(before) = came_from.get(path.last().unwrap_or(&start)) {
                    path.push(*before);
                }
                path.reverse();
                return path;
            }
            if members.contains(&next) && !came_from.contains_key(&next) {
                came_from.insert(next, node);
                queue.push_back(next);
            }
        }
    }
    vec![start]
}

/// Why an output does not fit an input, as the end of "port `x` ...", given how the output is written.
fn misfit(input: &PortSpec, output: &PortSpec) -> Option<impl Fn(&str) -> String> {
    use Cardinality::{All, Each, One};
    let wants = words(input);
    let kind = output.kind.name;
    let gives = match (input.cardinality, output.cardinality) {
        _ if input.kind.name != output.kind.name => kind.to_owned(),
        (Each | All, Each) | (One, One) => return None,
        (Each | All, One) => format!("a single {kind} artifact for all records"),
        (One, Each) => format!("one {kind} artifact for every record"),
        (_, All) => format!("all {kind} artifacts at once"),
    };
    // Where the kinds differ, cardinalities would only distract.
    let wants = if input.kind.name == output.kind.name { wants } else { input.kind.name.to_owned() };
    Some(move |written: &str| format!("wants {wants}, but `{written}` gives {gives}"))
}

/// What an input takes, in words.
fn words(input: &PortSpec) -> String {
    let kind = input.kind.name;
    match input.cardinality {
        Cardinality::Each => format!("one {kind} artifact for every record"),
        Cardinality::All => format!("the {kind} artifacts of all records"),
        Cardinality::One => format!("a single {kind} artifact"),
    }
}

fn advice(fitting: &[String], input: &PortSpec) -> String {
    let same_name = fitting.iter().filter(|output| output.rsplit('.').next() == Some(input.name));
    match (fitting, same_name.count()) {
        ([], _) => format!("no other stage of this pipeline gives {}", words(input)),
        ([only], _) => format!("did you mean `{only}`?"),
        ([first, ..], 1) => format!("did you mean `{first}`?"),
        (many, _) => format!("what fits: {}", list(many.iter().take(5).map(String::as_str))),
    }
}

fn assemble<'a>(
    pipeline: &Pipeline,
    specs: &BTreeMap<&str, &StageSpec>,
    links: Links<'a>,
    mut bound: BTreeMap<&'a str, BoundParams>,
    published: Published<'_>,
    Checked { places, warnings }: Checked,
) -> Plan {
    let order = in_order(&links);
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(idx, name)| (*name, idx)).collect();
    let mut graph = DiGraph::new();
    let mut nodes = Vec::new();
    for (idx, name) in order.iter().enumerate() {
        let spec = specs[name];
        let node = graph.add_node(idx);
        let mut inputs = BTreeMap::new();
        for (port, link) in &links[name] {
            let node_idx = place[link.from];
            let edge = Edge { node_idx, port: link.port.name.to_owned(), gather: link.gather, kind: link.port.kind };
            graph.add_edge(NodeIndex::new(node_idx), node, (*port).to_owned());
            inputs.insert((*port).to_owned(), edge);
        }
        let is_each = |port: &PortSpec| port.cardinality == Cardinality::Each && inputs.contains_key(port.name);
        let source = spec.per_record() && !spec.inputs.iter().any(is_each);
        nodes.push(PlanNode {
            name: (*name).to_owned(),
            uses: spec.name.to_owned(),
            params: bound.remove(name).expect("a plan without errors has bound every node"),
            outputs: spec.outputs.clone(),
            per_record: spec.per_record(),
            source,
            seeded: spec.seeded,
            exclusive: spec.exclusive,
            code: spec.code.clone(),
            inputs,
        });
    }
    let mut publish: Vec<(String, Publish)> = published
        .into_iter()
        .map(|(entry, node, port)| {
            let (target, folder) = (entry.target.clone(), entry.folder);
            (node.to_owned(), Publish { target, folder, node_idx: place[node], port: port.name.to_owned() })
        })
        .collect();
    publish.sort_by(|(a, x), (b, y)| (&x.target, a, &x.port).cmp(&(&y.target, b, &y.port)));
    Plan {
        name: pipeline.name.clone(),
        seed: pipeline.seed,
        tracking: pipeline.tracking.clone(),
        nodes,
        publish: publish.into_iter().map(|(_, one)| one).collect(),
        graph,
        places,
        warnings,
    }
}

/// Kahn's algorithm on names: of all nodes whose inputs are placed, the first by name comes next. Nodes in a loop, and
/// behind one, are left out.
fn in_order<'a>(links: &Links<'a>) -> Vec<&'a str> {
    let (mut order, mut placed) = (Vec::new(), BTreeSet::new());
    let is_ready = |placed: &BTreeSet<&str>, ports: &BTreeMap<&str, Link<'_>>| {
        ports.values().all(|link| placed.contains(link.from))
    };
    while let Some((name, _)) = links.iter().find(|(name, ports)| !placed.contains(*name) && is_ready(&placed, ports)) {
        placed.insert(*name);
        order.push(*name);
    }
    order
}
