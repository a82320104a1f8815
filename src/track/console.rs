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

/// What is shown beside the epochs of a training.
const SHOWN_METRICS: [&str; 3] = ["train/loss", "validation/loss", "validation/macro_f1"];

/// The listener for the terminal.
pub struct Console {
    verbosity: Verbosity,
    bars: Option<MultiProgress>,
    nodes: BTreeMap<String, Node>,
    width: usize,
    /// The last values of [`SHOWN_METRICS`], by node.
    last_metrics: BTreeMap<String, BTreeMap<&'static str, f64>>,
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
    /// How fast its only job goes, if that tells how far it is.
    pace: Option<Pace>,
    /// Epochs of a training that are finished.
    epochs_done: u64,
    /// The metrics of the last one.
    epoch: Option<String>,
}

/// How fast a job goes, judged by what it has done since it was first heard of: what it found done is not counted.
struct Pace {
    since: Instant,
    share: f64,
}

impl Pace {
    /// It is not known before this has passed: the first steps are slow, and nobody waits for the rest of a short job.
    const KNOWN_AFTER: Duration = Duration::from_secs(3);

    /// How long the rest takes.
    fn left(&self, now: Instant, share: f64) -> Option<Duration> {
        let (passed, done) = (now.saturating_duration_since(self.since), share - self.share);
        let is_known = passed >= Self::KNOWN_AFTER && done > 0.0 && share < 1.0;
        let left_s = passed.as_secs_f64() * (1.0 - share) / done;
        if is_known { Duration::try_from_secs_f64(left_s).ok() } else { None }
    }
}

/// A time that is left, as exact as it is known.
fn about(left: Duration) -> String {
    let (seconds, minutes) = (left.as_secs().next_multiple_of(5).max(5), left.as_secs_f64() / 60.0);
    match minutes {
        ..=1.0 => format!("about {seconds} s left"),
        ..=90.0 => format!("about {minutes:.0} min left"),
        _ => format!("about {:.1} h left", minutes / 60.0),
    }
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
        let (width, bars) = (self.width, self.bars.clone());
        let Some(node) = self.nodes.get_mut(&job.node) else { return };
        if job.record.is_some() {
            return;
        }
        let is_epoch = unit == "epochs";
        // Nothing was measured yet of a training that has just begun.
        if let Some(metrics) = self.last_metrics.get(&job.node).filter(|_| is_epoch) {
            let shown = SHOWN_METRICS.iter().filter_map(|key| Some(format!("{key} {:.4}", metrics.get(key)?)));
            node.epoch = Some(shown.collect::<Vec<_>>().join("  "));
        }
        let (now, share) = (Instant::now(), done as f64 / total.max(1) as f64);
        let left = node.pace.get_or_insert(Pace { since: now, share }).left(now, share).map(about).unwrap_or_default();
        let epoch = node.epoch.as_deref().unwrap_or_default();
        if let Some(bars) = &bars {
            let bar = node.bar.get_or_insert_with(|| bars.add(new_bar(&job.node, total, width, "")));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(words(&[unit, epoch, &left]));
            return;
        }
        // Without a terminal: every epoch, and a sign of life now and then from anything else.
        let due = node.last_line.is_none_or(|last| last.elapsed() > Duration::from_secs(5));
        // A fold begins with as many epochs as the one before it has ended with.
        let is_new = is_epoch && done > node.epochs_done;
        if is_epoch {
            node.epochs_done = done;
            node.last_line = Some(now);
        }
        if is_new || !is_epoch && due {
            node.last_line = Some(now);
            let epoch = if is_epoch { epoch } else { "" };
            let text = format!("{:width$}  {done}/{total} {}", job.node, words(&[unit, epoch, &left]));
            self.say(&text);
        }
    }
}

/// What there is, put side by side.
fn words(words: &[&str]) -> String {
    words.iter().copied().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  ")
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

/// `end` is what its line ends with.
fn new_bar(name: &str, total: u64, width: usize, end: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{prefix}}  [{{bar:24}}] {{pos}}/{{len}} {{msg}}{end}"))
        .expect("the template is one of two")
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
                        pace: None,
                        epochs_done: 0,
                        epoch: None,
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
                    node.bar.get_or_insert_with(|| bars.add(new_bar(&job.node, node.job_n as u64, width, "  {eta}")));
                }
            }
            Event::Progress { job, done, total, unit } => self.progress(job, *done, *total, unit),
            Event::Metric { job, point } => {
                // A fold's metrics have its name in front.
                let is_shown = |key: &&&str| point.key.ends_with(**key);
                if let Some(key) = SHOWN_METRICS.iter().find(is_shown) {
                    self.last_metrics.entry(job.node.clone()).or_default().insert(key, point.value);
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_what_was_done_since_the_beginning_alone() {
        let since = Instant::now();
        let left = |begin: f64, passed_s: u64, share: f64| {
            let pace = Pace { since, share: begin };
            pace.left(since + Duration::from_secs(passed_s), share).map(|left| left.as_secs_f64().round())
        };
        assert_eq!(left(0.0, 30, 0.25), Some(90.0));
        assert_eq!(left(0.5, 30, 0.75), Some(30.0), "half of it was there at the beginning");
        assert_eq!(left(0.0, 2, 0.25), None, "too early to know");
        assert_eq!((left(0.5, 30, 0.5), left(0.0, 30, 0.0), left(0.0, 30, 1.0)), (None, None, None));
        assert_eq!(left(0.0, u64::from(u32::MAX), 1e-300), None, "longer than a time can be");
    }

    #[test]
    fn a_time_left_is_told_as_exactly_as_it_is_known() {
        let told = |seconds| about(Duration::from_secs(seconds));
        assert_eq!([0, 7, 59].map(told), ["about 5 s left", "about 10 s left", "about 60 s left"]);
        assert_eq!([61, 130, 5000].map(told), ["about 1 min left", "about 2 min left", "about 83 min left"]);
        assert_eq!(told(9000), "about 2.5 h left");
    }
}
