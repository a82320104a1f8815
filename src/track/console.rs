//! Owns what a person sees of a run on the terminal: bars where there is a terminal, plain lines otherwise. Everything goes
//! to stderr; with `--json`, events go to stdout as lines instead.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is this module's task")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Listener;
use crate::event::{Event, JobName};

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and failures only.
    Quiet,
    /// A line or bar a node.
    Normal,
    /// The same, but only for nodes with something to do, and no published files: one run of many.
    Brief,
    /// Events as JSON lines on stdout.
    Json,
}

impl Verbosity {
    /// Whether more is shown than warnings and failures, and for people.
    #[must_use]
    pub fn has_progress(self) -> bool {
        matches!(self, Self::Normal | Self::Brief)
    }
}

/// More files than this in one folder are counted, not named.
const MOST_NAMES_N: usize = 6;

/// The listener for the terminal.
pub struct Console {
    verbosity: Verbosity,
    bars: Option<MultiProgress>,
    nodes: BTreeMap<String, Node>,
    width: usize,
    last_metrics: BTreeMap<String, f64>,
    /// What was said of a node, so that the same word of fifty records stands there once.
    said: BTreeSet<(Option<String>, String)>,
    /// Names of the files that were written, by folder.
    written: BTreeMap<String, Vec<String>>,
}

struct Node {
    job_n: usize,
    hit_n: usize,
    computed_n: usize,
    failed_n: usize,
    skipped_n: usize,
    missed_n: usize,
    first_why: Option<String>,
    busy_ms: u64,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Console {
    /// A console; bars are shown where stderr is a terminal.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        let bars = (verbosity.has_progress() && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self {
            verbosity,
            bars,
            nodes: BTreeMap::new(),
            width: 0,
            last_metrics: BTreeMap::new(),
            said: BTreeSet::new(),
            written: BTreeMap::new(),
        }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                // The bars' own lines are moved aside; a closed terminal is not worth a word.
                let _ = bars.println(text);
            }
            None => eprintln!("{text}"),
        }
    }

    fn say(&self, text: &str) {
        if self.verbosity.has_progress() {
            self.line(text);
        }
    }

    /// Whether this was not said yet of the job's node, be it of another record.
    fn is_new(&mut self, job: Option<&JobName>, text: &str) -> bool {
        self.said.insert((job.map(|job| job.node.clone()), text.to_owned()))
    }

    fn count(&mut self, job: &JobName, update: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(&job.node) else { return };
        update(node);
        let done = node.hit_n + node.computed_n + node.failed_n + node.skipped_n;
        if let Some(bar) = &node.bar {
            bar.set_position(done as u64);
        }
        if done < node.job_n {
            return;
        }
        if let Some(bar) = node.bar.take() {
            bar.finish_and_clear();
        }
        if self.verbosity == Verbosity::Brief && node.hit_n == node.job_n {
            return;
        }
        let text = node.summary(&job.node, self.width);
        self.say(&text);
    }

    fn progress(&mut self, job: &JobName, done: u64, total: u64, unit: &str) {
        let detail = (unit == "epochs").then(|| {
            let shown = ["train/loss", "validation/loss", "validation/macro_f1"];
            let values = shown.iter().filter_map(|key| Some(format!("{key} {:.4}", self.last_metrics.get(*key)?)));
            values.collect::<Vec<_>>().join("  ")
        });
        let (width, bars) = (self.width, self.bars.clone());
        let Some(node) = self.nodes.get_mut(&job.node) else { return };
        if let (Some(bars), None) = (&bars, &job.record) {
            let bar = node.bar.get_or_insert_with(|| bars.add(new_bar(&job.node, total, width)));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(detail.unwrap_or_else(|| unit.to_owned()));
            return;
        }
        // Without a terminal: every epoch, and a sign of life now and then from anything else.
        let due = node.last_line.is_none_or(|last| last.elapsed() > Duration::from_secs(5));
        if job.record.is_none() && (detail.is_some() || due) {
            node.last_line = Some(Instant::now());
            let text = format!("{:width$}  {done}/{total} {unit}  {}", job.node, detail.unwrap_or_default());
            self.say(text.trim_end());
        }
    }
}

impl Node {
    fn summary(&self, name: &str, width: usize) -> String {
        let count = |count_n: usize, what: &str| (count_n > 0).then(|| format!("{count_n} {what}"));
        let parts: Vec<String> = [
            count(self.hit_n, "cached"),
            count(self.computed_n, "computed"),
            count(self.failed_n, "FAILED"),
            count(self.skipped_n, "not run"),
            count(self.missed_n, "to compute"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut text = format!("{name:width$}  {}", parts.join(", "));
        if self.computed_n > 0 {
            text.push_str(&format!("  ({:.1} s)", self.busy_ms as f64 / 1e3));
        }
        if let Some(why) = &self.first_why {
            text.push_str(&format!("  [{why}]"));
        }
        text
    }
}

fn new_bar(name: &str, total: u64, width: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}  [{bar:24}] {pos}/{len} {msg}  {eta}")
        .expect("the template is fixed")
        .progress_chars("=> ");
    ProgressBar::new(total).with_style(style).with_prefix(format!("{name:width$}"))
}

impl Listener for Console {
    fn hear(&mut self, event: &Event) {
        if self.verbosity == Verbosity::Json {
            println!("{}", serde_json::to_string(event).expect("events are plain data"));
            return;
        }
        let label = |job: &Option<JobName>| job.as_ref().map(|job| format!("{job}: ")).unwrap_or_default();
        match event {
            Event::Planned { jobs, order } => {
                self.nodes.clear();
                self.width = order.iter().map(String::len).max().unwrap_or_default();
                for name in order {
                    let node = Node {
                        job_n: jobs[name],
                        hit_n: 0,
                        computed_n: 0,
                        failed_n: 0,
                        skipped_n: 0,
                        missed_n: 0,
                        first_why: None,
                        busy_ms: 0,
                        bar: None,
                        last_line: None,
                    };
                    self.nodes.insert(name.clone(), node);
                }
            }
            Event::Hit { job, .. } => self.count(job, |node| node.hit_n += 1),
            Event::Miss { job, key, why } => {
                if let Some(node) = self.nodes.get_mut(&job.node) {
                    node.first_why.get_or_insert_with(|| why.clone());
                    node.missed_n += usize::from(key.is_none());
                }
            }
            Event::Started { job } => {
                let (width, bars) = (self.width, self.bars.clone());
                if let (Some(bars), Some(node), Some(_)) = (bars, self.nodes.get_mut(&job.node), &job.record) {
                    node.bar.get_or_insert_with(|| bars.add(new_bar(&job.node, node.job_n as u64, width)));
                }
            }
            Event::Progress { job, done, total, unit } => self.progress(job, *done, *total, unit),
            Event::Metric { point, .. } => {
                self.last_metrics.insert(point.key.clone(), point.value);
            }
            Event::Waiting { job } => self.say(&format!("{job}: waits for another run that computes the same")),
            Event::Note { job, text } => {
                if self.is_new(job.as_ref(), text) {
                    self.say(&format!("note: {}{text}", label(job)));
                }
            }
            Event::Warning { job, text } => {
                if self.is_new(job.as_ref(), text) {
                    self.line(&format!("warning: {}{text}", label(job)));
                }
            }
            Event::Computed { job, wall_ms, .. } => self.count(job, |node| {
                node.computed_n += 1;
                node.busy_ms += wall_ms;
            }),
            Event::Failed { job, error, help } => {
                self.line(&format!("error: {job}: {error}"));
                if let Some(help) = help {
                    self.line(&format!("help: {help}"));
                }
                self.count(job, |node| node.failed_n += 1);
            }
            Event::Skipped { job } => self.count(job, |node| node.skipped_n += 1),
            Event::Published { path, written, .. } => {
                if *written && self.verbosity != Verbosity::Brief {
                    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
                    self.written.entry(folder.to_owned()).or_default().push(name.to_owned());
                }
            }
            Event::Finished { .. } => {
                for (folder, names) in &self.written {
                    let named = names.len() <= MOST_NAMES_N;
                    let what = if named { names.join(", ") } else { format!("{} files", names.len()) };
                    self.say(&format!("wrote {folder}/: {what}"));
                }
                if let Some(bars) = &self.bars {
                    let _ = bars.clear();
                }
            }
        }
    }
}
