//! `ecgpipe runs`: what was run, with what, and how it came out.
//!
//! A name in `--sort`, `--where` and `--columns` is a column of the list, else a parameter, else a metric (its last value).
//! The files of a run are read only when a name asks for them.

use std::{
    cell::OnceCell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::PathBuf,
};

use ecgpipe_sdk::MetricPoint;
use serde_json::{Value, json};

use super::{
    Exit, Failure, fitting_table, human_bytes, print, print_json, runs_folder,
    sweep::{Results, Row, shown},
    table,
};
use crate::{
    cli::{Runs, RunsList},
    diagnostic::{list as in_words, suggest},
    digest::Digest,
    event::{Event, JobName},
    track::run_folder::{self, JobFile, RunFile, SourcesFile, last_values},
    utc::Utc,
};

pub(super) fn runs(args: &Runs) -> Result<Exit, Failure> {
    match args {
        Runs::List(args) => list(args),
        Runs::Show { run, json } => show(run, *json),
        Runs::Diff { a, b, json } => diff(a, b, *json),
    }
    .map(|()| Exit::Success)
}

fn status(run: &RunFile) -> &'static str {
    run.status.map_or("unfinished", crate::event::RunStatus::as_str)
}

// The list.

/// A run, with the files behind it as far as they were asked for.
struct Listed {
    folder: PathBuf,
    run: RunFile,
    params: OnceCell<BTreeMap<String, String>>,
    metrics: OnceCell<BTreeMap<String, f64>>,
}

/// What can be shown and asked for without a parameter or metric of that name.
const COLUMNS: [&str; 15] = [
    "run", "pipeline", "status", "started", "seconds", "cached", "computed", "failed", "skipped", "commit", "seed",
    "sweep", "point", "set", "version",
];

/// What the list shows unless asked otherwise.
const USUAL: [&str; 8] = ["run", "status", "cached", "computed", "seconds", "commit", "sweep", "set"];

impl Listed {
    fn params(&self) -> &BTreeMap<String, String> {
        // A run that was killed has not written everything.
        self.params.get_or_init(|| run_folder::read(&self.folder, "params.json").unwrap_or_default())
    }

    fn metrics(&self) -> &BTreeMap<String, f64> {
        self.metrics.get_or_init(|| {
            let points: Vec<MetricPoint> = run_folder::read(&self.folder, "metrics.json").unwrap_or_default();
            last_values(&points)
        })
    }

    fn cell(&self, name: &str) -> Option<Cell> {
        let run = &self.run;
        let text = |text: &str| Some(Cell::Text(text.to_owned()));
        let counts = run.counts.unwrap_or_default();
        match name {
            "run" | "id" => text(&run.id),
            "pipeline" => text(&run.pipeline),
            "status" => text(status(run)),
            "started" => Some(Cell::Text(moment(run.started_ms))),
            "seconds" => run.ended_ms.map(|end| Cell::Seconds((end - run.started_ms) as f64 / 1e3)),
            "cached" => Some(Cell::Count(counts.hits as u64)),
            "computed" => Some(Cell::Count(counts.computed as u64)),
            "failed" => Some(Cell::Count(counts.failed as u64)),
            "skipped" => Some(Cell::Count(counts.skipped as u64)),
            "commit" => run.git.as_ref().map(|git| {
                Cell::Text(format!("{}{}", &git.commit[..7.min(git.commit.len())], if git.dirty { "+" } else { "" }))
            }),
            "seed" => Some(Cell::Count(run.seed)),
            "sweep" => run.sweep.as_ref().map(|sweep| Cell::Text(sweep.id.clone())),
            "point" => run.sweep.as_ref().map(|sweep| Cell::Count(sweep.point as u64)),
            "set" => Some(Cell::Text(run.sets.join(" "))),
            "version" => text(&run.version),
            // Nearly all metrics have a `/`, no parameter has one: this order reads one file instead of two.
            name if name.contains('/') => self.metric(name).or_else(|| self.param(name)),
            name => self.param(name).or_else(|| self.metric(name)),
        }
    }

    fn param(&self, name: &str) -> Option<Cell> {
        self.params().get(name).map(|value| Cell::Text(value.clone()))
    }

    fn metric(&self, name: &str) -> Option<Cell> {
        self.metrics().get(name).map(|value| Cell::Metric(*value))
    }
}

/// A value of a run.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    Count(u64),
    Seconds(f64),
    Metric(f64),
}

impl Cell {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Count(count) => Some(*count as f64),
            Self::Seconds(value) | Self::Metric(value) => Some(*value),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Seconds(value) => format!("{value:.1}"),
            Self::Metric(value) => shown(*value),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(count) => json!(count),
            Self::Seconds(value) | Self::Metric(value) => json!(value),
        }
    }

    /// As numbers if both are, else as text.
    fn order(&self, other: &Self) -> Ordering {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => self.text().cmp(&other.text()),
        }
    }
}

/// `2026-11-23 09:30:00`, UTC.
fn moment(at_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, second, .. } = Utc::from_ms(at_ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `--where`.
#[derive(Debug, PartialEq)]
struct Condition {
    name: String,
    operator: &'static str,
    value: String,
}

impl Condition {
    fn read(text: &str) -> Result<Self, Failure> {
        // The longer operators first, so that `>=` is not read as `>` and a value that begins with `=`.
        let found = text.char_indices().find_map(|(at, _)| {
            let rest = &text[at..];
            ["!=", ">=", "<=", "==", "=", ">", "<"]
                .into_iter()
                .find(|operator| rest.starts_with(operator))
                .map(|one| (at, one))
        });
        let (at, operator) = found.filter(|(at, _)| *at > 0).ok_or_else(|| {
            Failure::usage(format!("--where {text}: there is no condition")).help("write `--where 'train.epochs>=10'`")
        })?;
        let value = text[at + operator.len()..].trim().to_owned();
        Ok(Self { name: text[..at].trim().to_owned(), operator, value })
    }

    /// Whether it holds; a run without the value is none for which it does.
    fn holds(&self, cell: Option<&Cell>) -> bool {
        let Some(cell) = cell else { return false };
        let order = cell.order(&Cell::Text(self.value.clone()));
        match self.operator {
            "=" | "==" => order == Ordering::Equal,
            "!=" => order != Ordering::Equal,
            ">" => order == Ordering::Greater,
            "<" => order == Ordering::Less,
            ">=" => order != Ordering::Less,
            _ => order != Ordering::Greater,
        }
    }
}

fn list(args: &RunsList) -> Result<(), Failure> {
    let conditions = args.conditions.iter().map(|text| Condition::read(text)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<Listed> = run_folder::list(&runs_folder())
        .into_iter()
        .map(|(folder, run)| Listed { folder, run, params: OnceCell::new(), metrics: OnceCell::new() })
        .collect();
    let asked: BTreeSet<&str> =
        conditions.iter().map(|one| &one.name).chain([&args.sort]).chain(&args.columns).map(String::as_str).collect();
    check_names(&all, &asked)?;
    let mut rows: Vec<Listed> = all
        .into_iter()
        .filter(|run| conditions.iter().all(|condition| condition.holds(run.cell(&condition.name).as_ref())))
        .collect();
    // They come oldest first, which is kept among equals; a run without the value is farthest from the end that matters.
    if args.sort != "started" {
        rows.sort_by(|a, b| match (a.cell(&args.sort), b.cell(&args.sort)) {
            (Some(a), Some(b)) => a.order(&b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        });
    }
    if args.desc {
        rows.reverse();
    }
    if let Some(limit) = args.limit.filter(|limit| *limit < rows.len()) {
        if args.desc { rows.truncate(limit) } else { drop(rows.drain(..rows.len() - limit)) }
    }
    if args.json {
        let runs = rows.iter().map(|run| {
            let mut json = json!(run.run);
            let values = asked.iter().filter_map(|name| Some(((*name).to_owned(), run.cell(name)?.json())));
            json["values"] = Value::Object(values.collect());
            json
        });
        print_json(&runs.collect::<Vec<_>>());
        return Ok(());
    }
    let columns: Vec<&str> = if args.columns.is_empty() {
        let usual = USUAL.into_iter().filter(|name| *name != "sweep" || rows.iter().any(|run| run.run.sweep.is_some()));
        let others = asked.iter().copied().filter(|name| !COLUMNS.contains(name));
        let (mut columns, last) = (usual.collect::<Vec<_>>(), "set");
        columns.pop();
        columns.into_iter().chain(others).chain([last]).collect()
    } else {
        ["run"].into_iter().chain(args.columns.iter().map(String::as_str).filter(|name| *name != "run")).collect()
    };
    let mut cells = vec![columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    for run in &rows {
        let cell = |name: &&str| run.cell(name).map_or_else(|| "-".to_owned(), |cell| cell.text());
        cells.push(columns.iter().map(cell).collect());
    }
    print(&fitting_table(&cells));
    Ok(())
}

/// A name that no run has is a mistake, not an empty list.
fn check_names(all: &[Listed], asked: &BTreeSet<&str>) -> Result<(), Failure> {
    for name in asked.iter().filter(|name| !COLUMNS.contains(name) && **name != "id") {
        if all.is_empty() || all.iter().any(|run| run.cell(name).is_some()) {
            continue;
        }
        let names: BTreeSet<&str> = all
            .iter()
            .flat_map(|run| run.params().keys().chain(run.metrics().keys()))
            .map(String::as_str)
            .chain(COLUMNS)
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let failure = Failure::usage(format!("no run has a parameter, metric or column `{name}`"));
        let columns = format!("columns are {}; `ecgpipe runs show` has the others", in_words(COLUMNS));
        let help = crate::diagnostic::nearest(name, names.iter().copied()).and_then(|_| suggest(name, &names, ""));
        return Err(failure.help(help.unwrap_or(columns)));
    }
    Ok(())
}

// One run.

struct Recorded {
    folder: PathBuf,
    run: RunFile,
    params: BTreeMap<String, String>,
    metrics: Vec<MetricPoint>,
    jobs: Vec<JobFile>,
}

fn recorded(name: &str) -> Result<Recorded, Failure> {
    let (folder, run) = run_folder::find(&runs_folder(), name)?;
    // A run that was killed has not written everything; what is there is shown.
    Ok(Recorded {
        run,
        params: run_folder::read(&folder, "params.json").unwrap_or_default(),
        metrics: run_folder::read(&folder, "metrics.json").unwrap_or_default(),
        jobs: run_folder::read(&folder, "jobs.json").unwrap_or_default(),
        folder,
    })
}

/// What the events of a run say that its other files do not.
#[derive(Default)]
struct Told {
    /// Milliseconds of work, by node.
    busy_ms: BTreeMap<String, u64>,
    published: BTreeMap<String, u64>,
    warnings: BTreeSet<String>,
    errors: Vec<String>,
}

fn told(recorded: &Recorded) -> Told {
    let mut told = Told::default();
    let Ok(file) = std::fs::File::open(recorded.folder.join("events.jsonl")) else { return told };
    let label = |job: &Option<JobName>| job.as_ref().map(|job| format!("{}: ", job.node)).unwrap_or_default();
    // A line cut short by a crash, or an event of a later version, is left out.
    let events = BufReader::new(file).lines().map_while(Result::ok);
    for event in events.filter_map(|line| serde_json::from_str::<Event>(&line).ok()) {
        match event {
            Event::Computed { job, wall_ms, .. } => *told.busy_ms.entry(job.node).or_default() += wall_ms,
            Event::Published { path, size, .. } => {
                told.published.insert(path, size);
            }
            Event::Warning { job, text } => {
                told.warnings.insert(format!("{}{text}", label(&job)));
            }
            Event::Failed { job, error, .. } => told.errors.push(format!("{job}: {error}")),
            _ => {}
        }
    }
    told
}

/// Jobs of one node of a run.
#[derive(Default, serde::Serialize)]
struct NodeSum {
    node: String,
    uses: String,
    cached: usize,
    computed: usize,
    failed: usize,
    seconds: f64,
    /// Distinct reasons, each with the number of jobs.
    why: BTreeMap<String, usize>,
}

fn node_sums(jobs: &[JobFile], told: &Told) -> Vec<NodeSum> {
    let mut sums: Vec<NodeSum> = Vec::new();
    for job in jobs {
        let at = sums.iter().position(|sum| sum.node == job.job.node).unwrap_or_else(|| {
            let (node, uses) = (job.job.node.clone(), job.uses.clone());
            let seconds = told.busy_ms.get(&node).map_or(0.0, |busy_ms| *busy_ms as f64 / 1e3);
            sums.push(NodeSum { node, uses, seconds, ..NodeSum::default() });
            sums.len() - 1
        });
        let sum = &mut sums[at];
        match &job.why {
            None => sum.cached += 1,
            Some(why) => {
                if job.outputs.is_empty() {
                    sum.failed += 1
                } else {
                    sum.computed += 1
                }
                *sum.why.entry(why.to_string()).or_default() += 1;
            }
        }
    }
    sums
}

fn show(name: &str, json: bool) -> Result<(), Failure> {
    let recorded = match recorded(name) {
        Ok(recorded) => recorded,
        Err(failure) => return show_sweep(name, json).unwrap_or(Err(failure)),
    };
    let told = told(&recorded);
    let nodes = node_sums(&recorded.jobs, &told);
    if json {
        print_json(&json!({
            "run": recorded.run,
            "params": recorded.params,
            "metrics": recorded.metrics,
            "jobs": recorded.jobs,
            "nodes": nodes,
            "published": told.published,
            "warnings": told.warnings,
            "errors": told.errors,
        }));
        return Ok(());
    }
    let run = &recorded.run;
    let counts = run.counts.unwrap_or_default();
    let mut text =
        format!("run       {}\npipeline  {} ({})\nstatus    {}\n", run.id, run.pipeline, run.file, status(run));
    let took = run.ended_ms.map(|end| format!(", {:.1} s", (end - run.started_ms) as f64 / 1e3)).unwrap_or_default();
    text.push_str(&format!("started   {} UTC{took}\n", moment(run.started_ms)));
    text.push_str(&format!(
        "jobs      {} cached, {} computed, {} failed, {} not run\n",
        counts.hits, counts.computed, counts.failed, counts.skipped
    ));
    if let Some(sweep) = &run.sweep {
        text.push_str(&format!("sweep     {}, {}\n", sweep.id, sweep.title()));
    }
    if !run.sets.is_empty() {
        text.push_str(&format!("set       {}\n", run.sets.join(" ")));
    }
    text.push_str(&format!("seed      {}\necgpipe   {}\n", run.seed, run.version));
    if let Some(git) = &run.git {
        let dirty = if git.dirty { " with uncommitted changes" } else { "" };
        text.push_str(&format!("commit    {}{dirty}\n", git.commit));
    }
    text.push_str(&format!("folder    {}\n", recorded.folder.display()));
    for error in &told.errors {
        text.push_str(&format!("error     {error}\n"));
    }
    for warning in &told.warnings {
        text.push_str(&format!("warning   {warning}\n"));
    }
    let mut rows =
        vec![["  node", "stage", "cached", "computed", "failed", "seconds", "why"].map(str::to_owned).to_vec()];
    rows.extend(nodes.iter().map(|node| {
        let why: Vec<&str> = node.why.keys().map(String::as_str).take(1).collect();
        let more = if node.why.len() > 1 { "; ..." } else { "" };
        vec![
            format!("  {}", node.node),
            node.uses.clone(),
            node.cached.to_string(),
            node.computed.to_string(),
            node.failed.to_string(),
            format!("{:.1}", node.seconds),
            why.concat() + more,
        ]
    }));
    text.push_str(&format!("\nnodes\n{}", fitting_table(&rows)));
    let rows: Vec<Vec<String>> =
        recorded.params.iter().map(|(name, value)| vec![format!("  {name}"), value.clone()]).collect();
    text.push_str(&format!("\nparameters\n{}", table(&rows)));
    let rows: Vec<Vec<String>> =
        last_values(&recorded.metrics).into_iter().map(|(key, value)| vec![format!("  {key}"), shown(value)]).collect();
    text.push_str(&format!("\nmetrics (last step)\n{}", table(&rows)));
    if !told.published.is_empty() {
        let rows: Vec<Vec<String>> =
            told.published.iter().map(|(path, size)| vec![format!("  {path}"), human_bytes(*size)]).collect();
        text.push_str(&format!("\npublished\n{}", table(&rows)));
    }
    print(&text);
    Ok(())
}

/// The points of a sweep, if there is one of that name.
fn show_sweep(name: &str, json: bool) -> Option<Result<(), Failure>> {
    let all = run_folder::list(&runs_folder());
    let points: Vec<_> = all
        .into_iter()
        .filter_map(|(folder, run)| Some((folder, run.sweep.clone().filter(|sweep| sweep.id == name)?, run)))
        .collect();
    let point_n = points.first()?.1.point_n;
    let rows = points.into_iter().map(|(folder, sweep, run)| {
        let metrics: Vec<MetricPoint> = run_folder::read(&folder, "metrics.json").unwrap_or_default();
        let (status, metrics) = (status(&run), last_values(&metrics));
        Row { point: sweep.point, run: Some(run.id), status, varied: sweep.varied, metrics }
    });
    let results = Results::new(rows.collect(), None, &[]);
    if json {
        print_json(&results.json(name));
    } else {
        print(&format!("{name}, {point_n} points\n\n{}", results.text()));
    }
    Some(Ok(()))
}

// Two runs.

/// The parts of `plan.json` that say what a node does.
#[derive(serde::Deserialize)]
struct PlanFile {
    #[serde(default)]
    nodes: Vec<NodeFile>,
}

#[derive(Clone, serde::Deserialize)]
struct NodeFile {
    name: String,
    uses: String,
    code: String,
    seeded: bool,
    inputs: BTreeMap<String, InputFile>,
}

#[derive(Clone, PartialEq, serde::Deserialize)]
struct InputFile {
    from: String,
}

/// How one node differs between two runs.
#[derive(serde::Serialize)]
struct NodeDifference {
    node: String,
    /// In words: code, parameters, seed, inputs, records.
    why: Vec<String>,
    /// Jobs of both runs with other outputs.
    other_outputs: usize,
    /// Jobs of both runs with another key but the same outputs.
    same_outputs: usize,
}

type Differing = Vec<(String, Option<String>, Option<String>)>;

fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Differing {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differing.map(|name| (name.clone(), a.get(name).cloned(), b.get(name).cloned())).collect()
}

fn diff(a: &str, b: &str, json: bool) -> Result<(), Failure> {
    let (a, b) = (recorded(a)?, recorded(b)?);
    let params = differing(&a.params, &b.params);
    let metrics = differing_metrics(&last_values(&a.metrics), &last_values(&b.metrics));
    let nodes = node_differences(&a, &b, &params);
    let raw = differing(&raw_files(&a), &raw_files(&b));
    let counts = |recorded: &Recorded| recorded.run.counts.unwrap_or_default();
    let with_other_outputs: Vec<&str> =
        nodes.iter().filter(|node| node.other_outputs > 0).map(|node| node.node.as_str()).collect();
    if json {
        let params: Vec<Value> = params.iter().map(|(name, a, b)| json!({"name": name, "a": a, "b": b})).collect();
        let metrics: Vec<Value> = metrics
            .iter()
            .map(|(name, a, b)| json!({"name": name, "a": a, "b": b, "difference": a.zip(*b).map(|(a, b)| b - a)}))
            .collect();
        let raw: Vec<Value> = raw.iter().map(|(name, a, b)| json!({"file": name, "a": a, "b": b})).collect();
        print_json(&json!({
            "a": a.run.id,
            "b": b.run.id,
            "counts": {"a": counts(&a), "b": counts(&b)},
            "params": params,
            "metrics": metrics,
            "raw_files": raw,
            "nodes": nodes,
            "nodes_with_other_outputs": with_other_outputs,
        }));
        return Ok(());
    }
    let text_or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |name: &str, a: String, b: String| vec![name.to_owned(), a, b];
    let mut rows = vec![row("", a.run.id.clone(), b.run.id.clone())];
    if a.run.status != b.run.status {
        rows.push(row("status", status(&a.run).to_owned(), status(&b.run).to_owned()));
    }
    for (name, of) in [("cached", 0), ("computed", 1), ("failed", 2), ("not run", 3)] {
        let count = |recorded: &Recorded| {
            let counts = counts(recorded);
            [counts.hits, counts.computed, counts.failed, counts.skipped][of]
        };
        if count(&a) != count(&b) {
            rows.push(row(name, count(&a).to_string(), count(&b).to_string()));
        }
    }
    if let (Some(git_a), Some(git_b)) = (&a.run.git, &b.run.git)
        && git_a != git_b
    {
        let commit = |git: &crate::git::GitState| {
            format!("{}{}", &git.commit[..7.min(git.commit.len())], if git.dirty { "+" } else { "" })
        };
        rows.push(row("commit", commit(git_a), commit(git_b)));
    }
    rows.extend(params.iter().map(|(name, a, b)| row(name, text_or_dash(a), text_or_dash(b))));
    let mut text = fitting_table(&rows);
    if params.is_empty() {
        text.push_str("no parameter differs\n");
    }
    if metrics.is_empty() {
        text.push_str("no metric differs\n");
    } else {
        let value = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        let mut rows = vec![["metric", "a", "b", "b - a"].map(str::to_owned).to_vec()];
        rows.extend(metrics.iter().map(|(name, a, b)| {
            let change = a.zip(*b).map_or_else(
                || "-".to_owned(),
                |(a, b)| {
                    let sign = if b > a { "+" } else { "" };
                    format!("{sign}{}", shown(b - a))
                },
            );
            vec![name.clone(), value(a), value(b), change]
        }));
        text.push_str(&format!("\n{}", table(&rows)));
    }
    if !nodes.is_empty() {
        let mut rows = vec![["node", "jobs with other outputs", "why"].map(str::to_owned).to_vec()];
        rows.extend(nodes.iter().map(|node| {
            let outputs = match (node.other_outputs, node.same_outputs) {
                (0, same) if same > 0 => "0 (computed anew, the same bytes)".to_owned(),
                (other, _) => other.to_string(),
            };
            vec![node.node.clone(), outputs, node.why.join("; ")]
        }));
        text.push_str(&format!("\n{}", fitting_table(&rows)));
    }
    print(&text);
    Ok(())
}

fn differing_metrics(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> Vec<(String, Option<f64>, Option<f64>)> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let bits = |values: &BTreeMap<String, f64>, name: &String| values.get(name).map(|value| value.to_bits());
    let differing = names.into_iter().filter(|name| bits(a, name) != bits(b, name));
    differing.map(|name| (name.clone(), a.get(name).copied(), b.get(name).copied())).collect()
}

/// Digests of the raw files, by name.
fn raw_files(recorded: &Recorded) -> BTreeMap<String, String> {
    let sources: SourcesFile = run_folder::read(&recorded.folder, "sources.json").unwrap_or_default();
    let files = sources.into_values().flat_map(BTreeMap::into_values).flatten();
    files.map(|(name, facts)| (name, facts.digest.to_hex())).collect()
}

fn node_differences(a: &Recorded, b: &Recorded, params: &Differing) -> Vec<NodeDifference> {
    let plan = |recorded: &Recorded| -> BTreeMap<String, NodeFile> {
        let plan: PlanFile = run_folder::read(&recorded.folder, "plan.json").unwrap_or(PlanFile { nodes: Vec::new() });
        plan.nodes.into_iter().map(|node| (node.name.clone(), node)).collect()
    };
    let order: Vec<String> = {
        let names = |recorded: &Recorded| -> Vec<String> {
            let plan: Option<PlanFile> = run_folder::read(&recorded.folder, "plan.json").ok();
            plan.map(|plan| plan.nodes.into_iter().map(|node| node.name).collect()).unwrap_or_default()
        };
        let mut order = names(b);
        order.extend(names(a).into_iter().filter(|name| !order.contains(name)).collect::<Vec<_>>());
        order
    };
    let (plan_a, plan_b) = (plan(a), plan(b));
    let jobs = |recorded: &Recorded| -> BTreeMap<JobName, JobFile> {
        recorded.jobs.iter().map(|job| (job.job.clone(), job.clone())).collect()
    };
    let (jobs_a, jobs_b) = (jobs(a), jobs(b));
    let output = |jobs: &BTreeMap<JobName, JobFile>, job: &JobName, port: &str| -> Option<Digest> {
        jobs.get(job)?.outputs.get(port).copied()
    };
    let mut found = Vec::new();
    for name in order {
        let mut why = Vec::new();
        let (node_a, node_b) = (plan_a.get(&name), plan_b.get(&name));
        match (node_a, node_b) {
            (Some(_), None) => why.push("only in a".to_owned()),
            (None, Some(_)) => why.push("only in b".to_owned()),
            (Some(node_a), Some(node_b)) => {
                if node_a.uses != node_b.uses {
                    why.push(format!("stage {} -> {}", node_a.uses, node_b.uses));
                } else if node_a.code != node_b.code {
                    why.push(format!("code of {}", node_b.uses));
                }
                let prefix = format!("{name}.");
                why.extend(params.iter().filter(|(path, ..)| path.starts_with(&prefix)).map(|(path, a, b)| {
                    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
                    format!("{path} {} -> {}", shown(a), shown(b))
                }));
                if node_b.seeded && a.run.seed != b.run.seed {
                    why.push(format!("seed {} -> {}", a.run.seed, b.run.seed));
                }
                let ports: BTreeSet<&String> = node_a.inputs.keys().chain(node_b.inputs.keys()).collect();
                for port in ports {
                    let (from_a, from_b) = (node_a.inputs.get(port), node_b.inputs.get(port));
                    if from_a != from_b {
                        let from =
                            |from: Option<&InputFile>| from.map_or_else(|| "none".to_owned(), |one| one.from.clone());
                        why.push(format!("input {port} from {} -> {}", from(from_a), from(from_b)));
                        continue;
                    }
                    let Some((upstream, output_port)) = from_b.and_then(|from| from.from.split_once('.')) else {
                        continue;
                    };
                    let of_upstream = |job: &&JobName| job.node == upstream;
                    let both = jobs_b.keys().filter(of_upstream).filter(|job| jobs_a.contains_key(*job));
                    let changed_n = both
                        .filter(|job| output(&jobs_a, job, output_port) != output(&jobs_b, job, output_port))
                        .count();
                    if changed_n > 0 {
                        let of = if changed_n == 1 { String::new() } else { format!(" of {changed_n} records") };
                        why.push(format!("input {port} ({upstream}.{output_port}){of}"));
                    }
                }
            }
            (None, None) => {}
        }
        let of_node = |job: &&JobName| job.node == name;
        let records = |only: &BTreeMap<JobName, JobFile>, other: &BTreeMap<JobName, JobFile>| -> Vec<String> {
            let jobs = only.keys().filter(of_node).filter(|job| !other.contains_key(*job));
            jobs.filter_map(|job| job.record.as_ref().map(ToString::to_string)).collect()
        };
        if node_a.is_some() && node_b.is_some() {
            for (records, of) in [(records(&jobs_a, &jobs_b), "a"), (records(&jobs_b, &jobs_a), "b")] {
                if !records.is_empty() {
                    why.push(format!("records only in {of}: {}", some_of(&records)));
                }
            }
        }
        let both: Vec<(&JobFile, &JobFile)> =
            jobs_b.iter().filter(|(job, _)| of_node(job)).filter_map(|(job, b)| Some((jobs_a.get(job)?, b))).collect();
        let other_key: Vec<&(&JobFile, &JobFile)> = both.iter().filter(|(a, b)| a.key != b.key).collect();
        let other_outputs = both.iter().filter(|(a, b)| a.outputs != b.outputs).count();
        let same_outputs = other_key.iter().filter(|(a, b)| a.outputs == b.outputs).count();
        if why.is_empty() && !other_key.is_empty() {
            // Nothing of the plan and no input differs: what is left are the raw files.
            let records: Vec<String> =
                other_key.iter().filter_map(|(_, job)| job.job.record.as_ref().map(ToString::to_string)).collect();
            why.push(format!("raw files of {}", some_of(&records)));
        } else if why.is_empty() && other_outputs > 0 {
            why.push("the same key, other outputs: one of them failed, or the stage is not deterministic".to_owned());
        }
        if !why.is_empty() || other_outputs + same_outputs > 0 {
            found.push(NodeDifference { node: name, why, other_outputs, same_outputs });
        }
    }
    found
}

/// More names than this in a line are counted.
const MOST_NAMES_N: usize = 6;

fn some_of(names: &[String]) -> String {
    let mut text = names.iter().take(MOST_NAMES_N).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMES_N {
        text.push_str(&format!(" and {} more", names.len() - MOST_NAMES_N));
    }
    text
}
