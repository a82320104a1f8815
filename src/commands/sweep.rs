//! `ecgpipe sweep`: every point a run of its own, one after the other, and one table of how they came out.
//!
//! Points do not overlap. Each already has all jobs at once, a training stage uses every core, and what two points share
//! is then found by the second instead of being waited for. Two sweeps side by side share one cache all the same.
//!
//! A point that fails does not stop the others. Nothing of a point is published into the project: its files stay in its
//! run folder, so that the last point does not silently win.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    Exit, Failure, Wiring, fitting_table, open_work_store,
    plan::{node_head, node_row},
    print, print_json,
    run::{
        HEADLINE, OneRun, RunEnd, Session, cancel_on_signal, engine_failure, exit, hear, named, timestamp, unique_id,
    },
    surroundings, table, with_device,
};
use crate::{
    cli::Sweep as Args,
    diagnostic::suggest,
    digest::Key,
    event::{Event, RunStatus},
    expand::expand,
    plan::Plan,
    sweep::{Options, Planned, Ranking, Sweep, Tally, sweep as plan_points},
    track::{
        console::{Console, Verbosity},
        mlflow_run::{FINISH_DEADLINE, Sending, Sent},
        run_folder::{SweepPoint, last_values, now_ms},
    },
};

pub(super) fn sweep(args: &Args, wiring: &Wiring) -> Result<Exit, Failure> {
    let sets = with_device(&args.pipeline, &args.sets, args.work.device.as_deref(), &wiring.registry)?;
    let options = Options { sets, seeds: args.seeds.clone(), zip: args.zip };
    let sweep = plan_points(&args.pipeline, &options, &wiring.registry, &read_once())?;
    let selections = selections(args, &sweep)?;
    let verbosity = if args.quiet { Verbosity::Quiet } else { Verbosity::Brief };
    let session = Session {
        registry: &wiring.registry,
        store: &open_work_store(&args.work)?,
        push: false,
        surroundings: &surroundings(args.work.offline),
        work: &args.work,
        keep_going: false,
        verbosity,
        console: Arc::new(Mutex::new(Console::new(verbosity))),
        cancel: cancel_on_signal(),
    };
    for note in sweep.notes.iter().take(MOST_NOTES_N) {
        session.say(&format!("note: {note}"));
    }
    if let Some(more_n) = sweep.notes.len().checked_sub(MOST_NOTES_N).filter(|more_n| *more_n > 0) {
        session.say(&format!("note: {more_n} more points do the same as others"));
    }
    list_sources(&session, &sweep, &selections)?;
    if args.dry_run {
        return dry_run(args, &session, &sweep, selections);
    }
    let started = Instant::now();
    let id = format!("sweep-{}-{}", timestamp(now_ms()), &unique_id("sweep")[..4]);
    let mut sendings = Sendings::default();
    let mut rows: Vec<Row> = Vec::new();
    let mut stopped = false;
    let point_n = sweep.points.len();
    for ((idx, planned), Selection { selected, force }) in sweep.points.iter().enumerate().zip(selections) {
        let varied = planned.point.varied.clone();
        let point = SweepPoint { id: id.clone(), point: idx + 1, point_n, varied: varied.clone() };
        stopped |= session.cancel.load(Ordering::Relaxed);
        if stopped {
            rows.push(Row { point: idx + 1, run: None, status: NOT_RUN, varied, metrics: BTreeMap::new() });
            continue;
        }
        let title = point.title();
        session.say(&title);
        let (plan, sets) = (&planned.plan, planned.point.sets.as_slice());
        let one = OneRun { plan, file: &args.pipeline, sets, selected, force, sweep: Some(point) };
        let mut ended = session.run(one)?;
        if let Some(failure) = ended.failure.take() {
            eprintln!("error: {title}: {}", failure.message.trim_start_matches("error: ").trim_end());
            if let Some(help) = failure.help {
                eprintln!("help: {help}");
            }
        }
        sendings.add(ended.sending.take());
        session.say(&summary(&ended));
        stopped |= args.fail_fast && ended.status == RunStatus::Failed;
        let status = ended.status.as_str();
        rows.push(Row { point: idx + 1, run: Some(ended.id), status, varied, metrics: last_values(&ended.metrics) });
    }
    let mut status = match &rows {
        _ if session.cancel.load(Ordering::Relaxed) => RunStatus::Cancelled,
        rows if rows.iter().all(|row| row.status == RunStatus::Finished.as_str()) => RunStatus::Finished,
        _ => RunStatus::Failed,
    };
    let best = args.publish_best.as_deref().filter(|_| status != RunStatus::Cancelled);
    let published = best.map(|best| publish_best(args, &session, &sweep, &rows, best, &mut sendings)).transpose()?;
    if published == Some(None) {
        status = RunStatus::Failed;
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let failed_n = rows.iter().filter(|row| row.status != RunStatus::Finished.as_str()).count();
    session.say(&format!("{id}: {} of {point_n} points finished in {elapsed_s:.1} s", point_n - failed_n));
    for event in sendings.finish(&id) {
        hear(&session.console, &event);
    }
    let results = Results::new(rows, args.sort.as_deref(), &args.metrics);
    for warning in &results.warnings {
        hear(&session.console, &Event::Warning { job: None, text: warning.clone() });
    }
    if args.json {
        let mut json = results.json(&id);
        json["published_by"] = json!(published.flatten());
        print_json(&json);
    } else {
        print(&results.text());
    }
    Ok(exit(status))
}

/// Reads each file once, so that all points are made of the same text.
fn read_once() -> impl Fn(&Path) -> std::io::Result<String> {
    let texts: RefCell<BTreeMap<PathBuf, String>> = RefCell::default();
    move |path| {
        if let Some(text) = texts.borrow().get(path) {
            return Ok(text.clone());
        }
        let text = std::fs::read_to_string(path)?;
        texts.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

/// The nodes that take part in a point, and those that are computed whatever the cache has.
struct Selection {
    selected: BTreeSet<usize>,
    force: BTreeSet<usize>,
}

fn selections(args: &Args, sweep: &Sweep) -> Result<Vec<Selection>, Failure> {
    let mut forced: BTreeSet<Key> = BTreeSet::new();
    let of_point = |planned: &Planned| {
        let selected = planned.plan.select(&args.work.targets)?;
        let mut force = named(&planned.plan, &args.work.force)?;
        // What several points share is forced once: the others would only do it again.
        force.retain(|&node_idx| forced.insert(planned.fingerprints[node_idx]));
        Ok(Selection { selected, force })
    };
    sweep.points.iter().map(of_point).collect()
}

/// Lists the records of every point before the first runs: a record that is missing is told now.
fn list_sources(session: &Session<'_>, sweep: &Sweep, selections: &[Selection]) -> Result<(), Failure> {
    let mut listed: BTreeSet<Vec<Key>> = BTreeSet::new();
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for (planned, selection) in sweep.points.iter().zip(selections) {
        let prints = selection.selected.iter().map(|&node_idx| planned.fingerprints[node_idx]);
        let per_record = |plan: &Plan, node_idx: usize| plan.nodes()[node_idx].per_record;
        let of_records =
            selection.selected.iter().zip(prints).filter(|&(&node_idx, _)| per_record(&planned.plan, node_idx));
        if !listed.insert(of_records.map(|(_, print)| print).collect()) {
            continue;
        }
        let tell = |event: Event| hear(&session.console, &event);
        let expanded = expand(&planned.plan, session.registry, &selection.selected, session.surroundings, &tell);
        if let Err(errors) = expanded {
            let message = engine_failure(crate::engine::EngineError::Expand(errors)).message;
            let point = crate::sweep::values(&planned.point.varied);
            found.entry(message).or_insert((point, 0)).1 += 1;
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let text = found.into_iter().map(|(message, (point, n))| match n {
        _ if listed.len() == 1 => message,
        1 => format!("{message}\nnote: at `{point}`"),
        n => format!("{message}\nnote: at `{point}` and {} more", n - 1),
    });
    Err(Failure::environment(text.collect::<Vec<_>>().join("\n\n")))
}

fn summary(ended: &RunEnd) -> String {
    let counts = &ended.counts;
    format!(
        "{}: {} cached, {} computed{}{}; {}",
        ended.status.as_str(),
        counts.hits,
        counts.computed,
        if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() },
        if counts.skipped > 0 { format!(", {} not run", counts.skipped) } else { String::new() },
        ended.folder.display(),
    )
}

/// Copies of runs on their way to the tracking server; the next point runs meanwhile.
#[derive(Default)]
struct Sendings {
    open: Vec<Sending>,
    sent: Vec<Sent>,
}

impl Sendings {
    fn add(&mut self, sending: Option<Sending>) {
        self.open.extend(sending);
        // A copy that has arrived need not keep its thread.
        let (done, open) = std::mem::take(&mut self.open).into_iter().partition(Sending::is_done);
        self.open = open;
        self.sent.extend(Vec::into_iter(done).map(|sending| sending.finish(FINISH_DEADLINE)));
    }

    /// Waits for the rest, for one deadline together.
    fn finish(mut self, sweep: &str) -> Vec<Event> {
        let begin = Instant::now();
        for sending in self.open {
            self.sent.push(sending.finish(FINISH_DEADLINE.saturating_sub(begin.elapsed())));
        }
        let is_late = |event: &Event| matches!(event, Event::Warning { .. });
        let mut events: Vec<Event> = self.sent.iter().map(Sent::event).filter(is_late).collect();
        let url = self.sent.iter().find_map(|sent| sent.sweep_url(sweep));
        events.extend(url.map(|url| Event::Note { job: None, text: format!("MLflow: {url}") }));
        events
    }
}

/// Runs the best point as `run` would; gives the run's id, or nothing if there is no best or it failed.
fn publish_best(
    args: &Args,
    session: &Session<'_>,
    sweep: &Sweep,
    rows: &[Row],
    best: &str,
    sendings: &mut Sendings,
) -> Result<Option<String>, Failure> {
    let ranking = Ranking::read(best);
    let value = |row: &&Row| row.metrics.get(&ranking.metric).copied().filter(|value| !value.is_nan());
    let finished = |row: &&Row| row.status == RunStatus::Finished.as_str();
    let mut ranked: Vec<&Row> = rows.iter().filter(finished).filter(|row| value(row).is_some()).collect();
    ranking.sort(&mut ranked, value);
    let Some(row) = ranked.first() else {
        let text = format!("nothing is published: no finished point has the metric `{}`", ranking.metric);
        hear(&session.console, &Event::Warning { job: None, text });
        return Ok(None);
    };
    let planned = &sweep.points[row.point - 1];
    session.say(&format!("publishing point {} ({})", row.point, ranking.shown()));
    let (plan, sets) = (&planned.plan, planned.point.sets.as_slice());
    let (selected, force) = (plan.select(&args.work.targets)?, BTreeSet::new());
    let mut ended = session.run(OneRun { plan, file: &args.pipeline, sets, selected, force, sweep: None })?;
    sendings.add(ended.sending.take());
    if let Some(failure) = ended.failure {
        return Err(failure);
    }
    session.say(&format!("{} files published; {}", ended.published_n, ended.folder.display()));
    Ok(Some(ended.id).filter(|_| ended.status == RunStatus::Finished))
}

fn dry_run(args: &Args, session: &Session<'_>, sweep: &Sweep, selections: Vec<Selection>) -> Result<Exit, Failure> {
    let mut tally = Tally::default();
    let mut points = Vec::new();
    for (planned, Selection { selected, force }) in sweep.points.iter().zip(selections) {
        let events = Mutex::new(Vec::new());
        let tell = |event: Event| events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
        session.engine(&planned.plan, selected, force, true, &tell).map_err(engine_failure)?;
        let (job_n, own_n) = tally.add(planned, &events.into_inner().unwrap_or_default());
        points.push((planned, job_n, own_n));
    }
    let (job_n, to_compute_n) = tally.sums();
    if args.json {
        let points: Vec<Value> = points
            .iter()
            .enumerate()
            .map(|(idx, (planned, job_n, own_n))| {
                json!({"point": idx + 1, "varied": varied_json(&planned.point.varied), "jobs": job_n, "to_compute": own_n})
            })
            .collect();
        let nodes: Vec<Value> = tally
            .nodes()
            .into_iter()
            .map(|(name, node)| {
                let mut json = json!(node);
                json["node"] = json!(name);
                json
            })
            .collect();
        print_json(&json!({"jobs": job_n, "to_compute": to_compute_n, "points": points, "nodes": nodes}));
        return Ok(Exit::Success);
    }
    let mut rows = vec![["point", "jobs", "to compute", ""].map(str::to_owned).to_vec()];
    for (idx, (planned, job_n, own_n)) in points.iter().enumerate() {
        let varied = crate::sweep::values(&planned.point.varied);
        rows.push(vec![(idx + 1).to_string(), job_n.to_string(), own_n.to_string(), varied]);
    }
    let mut text = table(&rows) + "\n";
    let mut rows = vec![node_head()];
    for (name, node) in tally.nodes() {
        let uses: Vec<&str> = node.uses.iter().map(String::as_str).collect();
        rows.push(node_row(name, &uses.join(", "), [node.jobs, node.cached, node.to_compute], &node.why));
    }
    text.push_str(&fitting_table(&rows));
    let all_n: usize = points.iter().map(|(_, job_n, _)| job_n).sum();
    text.push_str(&format!(
        "\n{} points, {all_n} jobs, {job_n} of them different: {} cached, {to_compute_n} to compute\n",
        points.len(),
        job_n - to_compute_n,
    ));
    print(&text);
    Ok(Exit::Success)
}

fn varied_json(varied: &[(String, String)]) -> Value {
    Value::Object(varied.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

/// More notes than this say the same thing.
const MOST_NOTES_N: usize = 3;

/// What stands for a point that was not started.
const NOT_RUN: &str = "not run";

/// How a point came out.
pub(super) struct Row {
    pub(super) point: usize,
    pub(super) run: Option<String>,
    pub(super) status: &'static str,
    pub(super) varied: Vec<(String, String)>,
    /// The value of each metric at its last step.
    pub(super) metrics: BTreeMap<String, f64>,
}

/// The table of a sweep.
pub(super) struct Results {
    rows: Vec<Row>,
    ranking: Option<Ranking>,
    metrics: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Most metrics that are shown without being asked for, where the pipeline has none of [`HEADLINE`].
const MOST_METRICS_N: usize = 6;

impl Results {
    pub(super) fn new(mut rows: Vec<Row>, sort: Option<&str>, asked: &[String]) -> Self {
        let known: BTreeSet<&str> = rows.iter().flat_map(|row| row.metrics.keys().map(String::as_str)).collect();
        let ranking = sort.map(Ranking::read);
        let wanted = ranking.iter().map(|ranking| &ranking.metric).chain(asked);
        let mut metrics: Vec<String> = Vec::new();
        let mut warnings = Vec::new();
        for metric in wanted {
            if !known.contains(metric.as_str()) {
                let names: Vec<&str> = known.iter().copied().collect();
                let help = suggest(metric, &names, "there are").map(|help| format!("; {help}")).unwrap_or_default();
                warnings.push(format!("no point has the metric `{metric}`{help}"));
            } else if !metrics.contains(metric) {
                metrics.push(metric.clone());
            }
        }
        if asked.is_empty() {
            let usual = HEADLINE.iter().map(|name| (*name).to_owned()).filter(|name| known.contains(name.as_str()));
            let mut usual: Vec<String> = usual.collect();
            if usual.is_empty() {
                let differs = |name: &&str| {
                    let values: BTreeSet<Option<u64>> =
                        rows.iter().map(|row| row.metrics.get(*name).map(|value| value.to_bits())).collect();
                    values.len() > 1
                };
                usual = known.iter().copied().filter(differs).take(MOST_METRICS_N).map(str::to_owned).collect();
            }
            usual.retain(|name| !metrics.contains(name));
            metrics.extend(usual);
        }
        if let Some(ranking) = &ranking {
            ranking.sort(&mut rows, |row| row.metrics.get(&ranking.metric).copied());
        }
        Self { rows, ranking, metrics, warnings }
    }

    pub(super) fn text(&self) -> String {
        let Some(first) = self.rows.first() else { return String::new() };
        let varied = first.varied.iter().map(|(name, _)| name.clone());
        let head = ["point", "status"].map(str::to_owned).into_iter().chain(varied);
        let mut rows: Vec<Vec<String>> =
            vec![head.chain(self.metrics.iter().cloned()).chain(["run".to_owned()]).collect()];
        for row in &self.rows {
            let mut cells = vec![row.point.to_string(), row.status.to_owned()];
            cells.extend(row.varied.iter().map(|(_, value)| value.clone()));
            let value = |name: &String| row.metrics.get(name).map_or_else(|| "-".to_owned(), |value| shown(*value));
            cells.extend(self.metrics.iter().map(value));
            cells.push(row.run.clone().unwrap_or_else(|| "-".to_owned()));
            rows.push(cells);
        }
        let best = self.ranking.as_ref().map(|ranking| format!("best first: {}\n", ranking.shown()));
        best.unwrap_or_default() + &fitting_table(&rows)
    }

    pub(super) fn json(&self, id: &str) -> Value {
        let points: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "point": row.point,
                    "run": row.run,
                    "status": row.status,
                    "varied": varied_json(&row.varied),
                    "metrics": row.metrics,
                })
            })
            .collect();
        let sort = self.ranking.as_ref().map(|ranking| json!({"metric": ranking.metric, "lowest": ranking.lowest}));
        json!({"sweep": id, "sort": sort, "points": points})
    }
}

/// A metric's value for a table.
pub(super) fn shown(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.3e}") } else { format!("{value:.4}") }
}
