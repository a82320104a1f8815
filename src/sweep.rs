//! Owns sweeps: which points the lists on a command line mean, which of them are the same, what they share, and how their
//! results are ranked.
//!
//! The grammar of `--set KEY=VALUES` in a sweep: `VALUES` is one or more values with commas between them. A comma inside
//! `[...]`, `{...}`, `'...'` or `"..."` belongs to its value; a quote begins a quoted text only where a YAML value may
//! begin. Each value is then read as YAML, as `run --set` reads it: `1,2` are two numbers, `[1,2],[3]` two lists, `'a,b'`
//! one text. An option with one value holds for all points.
//!
//! Points come in the order of nested loops: the first list changes slowest, the seeds of `--seeds` fastest. With `--zip`
//! the nth values of all lists make one point; the seeds are still crossed with them.
//!
//! Invariant: all points are planned before the first runs, and all their errors are reported at once, each where it stands
//! on the command line or in the file (`errors_of_all_points_are_reported_at_once`).
//!
//! Invariant: jobs that several points share are known without running anything: two nodes with one [`fingerprint`] do the
//! same work (`points_share_the_work_before_what_is_swept`).
//!
//! It reads files only through the function that it is given, and knows nothing of run folders.
//!
//! [`fingerprint`]: Planned::fingerprints

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use ecgpipe_sdk::{RecordId, Registry};
use serde::Serialize;

use crate::{
    diagnostic::{COMMAND_LINE, Diagnostic, Report, Sources, Span},
    digest::{Key, KeyEncoder},
    event::Event,
    pipeline,
    plan::{Plan, plan},
};

/// More points than this are a mistake rather than a plan.
pub const MOST_POINTS_N: usize = 1000;

/// The options that make a sweep, as given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--set`, each `key=value` or `key=value,value`.
    pub sets: Vec<String>,
    /// `--seeds`: `1..5`, both ends included, or `1,4,7`.
    pub seeds: Option<String>,
    /// Whether lists go in pairs instead of being multiplied.
    pub zip: bool,
}

/// One point: what `run` would be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The `--set` options of a run of this point alone.
    pub sets: Vec<String>,
    /// The swept parameters with their values here, in the order of the options.
    pub varied: Vec<(String, String)>,
}

/// A point whose plan is checked.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The point.
    pub point: Point,
    /// Its plan.
    pub plan: Plan,
    /// By node: what decides its work, except for raw files, which are the same for all points.
    pub fingerprints: Vec<Key>,
}

/// The points of a sweep, checked.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// In the order in which they run; no two do the same.
    pub points: Vec<Planned>,
    /// What was left out.
    pub notes: Vec<String>,
}

/// Reads the options, plans every point, and drops points that do what an earlier one does.
///
/// # Errors
/// Everything that is wrong with the options, or with any of the points.
pub fn sweep(
    path: &Path,
    options: &Options,
    registry: &Registry,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Sweep, Report> {
    let grid = Grid::read(options)?;
    let points = grid.points();
    let mut planned = Vec::with_capacity(points.len());
    let mut found: BTreeMap<Diagnostic, Vec<usize>> = BTreeMap::new();
    let mut sources = Sources::default();
    for (idx, (point, choices)) in points.iter().enumerate() {
        let checked = pipeline::load_with(path, &point.sets, read).and_then(|pipeline| plan(&pipeline, registry));
        match checked {
            Ok(plan) => {
                let fingerprints = fingerprints(&plan);
                planned.push(Planned { point: point.clone(), plan, fingerprints });
            }
            Err(report) => {
                for diagnostic in report.diagnostics() {
                    found.entry(grid.as_written(diagnostic, choices)).or_default().push(idx);
                }
                for (file, text) in report.sources().iter().filter(|(file, _)| *file != COMMAND_LINE) {
                    sources.add(file, text);
                }
            }
        }
    }
    if !found.is_empty() {
        sources.add(COMMAND_LINE, &grid.text());
        let name = |idx: usize| format!("{} of {} ({})", idx + 1, points.len(), values(&points[idx].0.varied));
        let diagnostics = found.into_iter().map(|(diagnostic, of)| match of.as_slice() {
            of if of.len() == points.len() => diagnostic,
            [one] => diagnostic.note(format!("at point {}", name(*one))),
            [first, rest @ ..] => diagnostic.note(format!("at point {} and {} more", name(*first), rest.len())),
            [] => diagnostic,
        });
        return Err(Report::new(diagnostics.collect(), sources));
    }
    Ok(without_doubles(planned))
}

fn without_doubles(planned: Vec<Planned>) -> Sweep {
    let mut first: BTreeMap<BTreeSet<(String, Key)>, String> = BTreeMap::new();
    let mut sweep = Sweep { points: Vec::new(), notes: Vec::new() };
    for one in planned {
        let names = one.plan.nodes().iter().map(|node| node.name.clone());
        let what = names.zip(one.fingerprints.iter().copied()).collect();
        let values = values(&one.point.varied);
        match first.get(&what) {
            Some(earlier) => {
                sweep.notes.push(format!("`{values}` does the same as `{earlier}`, and is not run twice"));
            }
            None => {
                first.insert(what, values);
                sweep.points.push(one);
            }
        }
    }
    sweep
}

/// `train.epochs=10 train.learning_rate=0.001`.
#[must_use]
pub fn values(varied: &[(String, String)]) -> String {
    let pairs: Vec<String> = varied.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// By node: everything that decides its work but the raw files. Equal fingerprints, equal work, record by record.
fn fingerprints(plan: &Plan) -> Vec<Key> {
    let mut found: Vec<Key> = Vec::with_capacity(plan.nodes().len());
    for node in plan.nodes() {
        let mut encoder = KeyEncoder::new();
        encoder.field("stage", node.uses.as_str()).field("code", node.code.as_str());
        for (path, value) in node.params.flattened() {
            encoder.field(format!("param.{path}"), value);
        }
        if node.seeded {
            encoder.field("seed", plan.seed().to_string());
        }
        for (port, edge) in &node.inputs {
            encoder.field(format!("input.{port}"), format!("{}.{}", found[edge.node_idx].to_hex(), edge.port));
        }
        let (key, _) = encoder.finish().expect("parameters and ports have one name each");
        found.push(key);
    }
    found
}

/// The options read: what varies and what does not.
struct Grid {
    options: Vec<Setting>,
    /// Options whose values go together; the last axis changes fastest.
    axes: Vec<Vec<usize>>,
}

/// One option.
struct Setting {
    /// `--set ` or `--seeds `.
    option: &'static str,
    /// What follows it.
    text: String,
    /// The parameter.
    key: String,
    /// The bytes of each value in `text`; nothing for an option without `=`, which planning will complain about.
    values: Vec<Value>,
}

/// One value of a list.
struct Value {
    text: String,
    /// Where it begins, in bytes of the option's text.
    start: usize,
}

impl Grid {
    fn read(options: &Options) -> Result<Self, Report> {
        let mut settings: Vec<Setting> = Vec::new();
        let mut problems = Vec::new();
        for set in &options.sets {
            let text = set.replace(['\n', '\r'], " ");
            let line = settings.len() + 1;
            let (setting, problem) = Setting::set(text, line);
            settings.push(setting);
            problems.extend(problem);
        }
        let mut axes: Vec<Vec<usize>> = Vec::new();
        let lists: Vec<usize> = (0..settings.len()).filter(|&idx| settings[idx].values.len() > 1).collect();
        if options.zip {
            if let Some((&first, rest)) = lists.split_first() {
                let wanted_n = settings[first].values.len();
                for &idx in rest.iter().filter(|&&idx| settings[idx].values.len() != wanted_n) {
                    let message = format!(
                        "`--zip` pairs lists of one length, but `{}` has {} values and `{}` has {wanted_n}",
                        settings[idx].key,
                        settings[idx].values.len(),
                        settings[first].key
                    );
                    let problem = Diagnostic::at(&settings[idx].span(idx + 1), message);
                    let help = "give lists of one length, or leave out `--zip` for every combination";
                    problems.push(problem.label(&settings[first].span(first + 1), "this list").help(help.to_owned()));
                }
                axes.push(lists);
            }
        } else {
            axes.extend(lists.into_iter().map(|idx| vec![idx]));
        }
        if let Some(seeds) = &options.seeds {
            match Setting::seeds(seeds) {
                Ok(setting) => {
                    axes.push(vec![settings.len()]);
                    settings.push(setting);
                }
                Err((setting, message)) => {
                    let help = "write `--seeds 1..5` (both ends are included) or `--seeds 1,4,7`";
                    let span = setting.span(settings.len() + 1);
                    problems.push(Diagnostic::at(&span, message).help(help.to_owned()));
                    settings.push(setting);
                }
            }
        }
        let grid = Self { options: settings, axes };
        grid.check_keys(&mut problems);
        if problems.is_empty() && grid.axes.is_empty() {
            let problem = Diagnostic::new("nothing is swept: no `--set` gives more than one value");
            let help = "write `--set node.parameter=1,2,3` or `--seeds 1..5`; `ecgpipe run` runs one point";
            problems.push(problem.help(help.to_owned()));
        }
        let point_n = grid.axes.iter().try_fold(1_usize, |point_n, axis| point_n.checked_mul(grid.length(axis)));
        if problems.is_empty() && point_n.is_none_or(|point_n| point_n > MOST_POINTS_N) {
            let lengths: Vec<String> = grid.axes.iter().map(|axis| grid.length(axis).to_string()).collect();
            let message = format!("{} points are more than {MOST_POINTS_N}", lengths.join(" x "));
            problems.push(Diagnostic::new(message).help("sweep fewer values, or pair them with `--zip`".to_owned()));
        }
        if problems.is_empty() {
            return Ok(grid);
        }
        let mut sources = Sources::default();
        sources.add(COMMAND_LINE, &grid.text());
        Err(Report::new(problems, sources))
    }

    /// A parameter that is swept is given once: which of two lists should win?
    fn check_keys(&self, problems: &mut Vec<Diagnostic>) {
        for (idx, setting) in self.options.iter().enumerate() {
            let before = self.options[..idx].iter().position(|earlier| earlier.key == setting.key);
            let Some(before) = before.filter(|_| !setting.values.is_empty()) else { continue };
            let earlier = &self.options[before];
            if setting.values.len() > 1 || earlier.values.len() > 1 || setting.option == SEEDS {
                let problem = Diagnostic::at(&setting.span(idx + 1), format!("`{}` is given twice", setting.key));
                let help = format!("put all its values into one option: `--set {}=1,2`", setting.key);
                problems.push(problem.label(&earlier.span(before + 1), "first here").help(help));
            }
        }
    }

    fn length(&self, axis: &[usize]) -> usize {
        axis.first().map_or(1, |&option| self.options[option].values.len())
    }

    /// The points, each with the index of the value that each option has there.
    fn points(&self) -> Vec<(Point, Vec<usize>)> {
        let point_n: usize = self.axes.iter().map(|axis| self.length(axis)).product();
        (0..point_n).map(|number| self.point(number)).collect()
    }

    fn point(&self, number: usize) -> (Point, Vec<usize>) {
        let mut choices = vec![0; self.options.len()];
        let mut rest = number;
        for axis in self.axes.iter().rev() {
            let length = self.length(axis);
            for &option in axis {
                choices[option] = rest % length;
            }
            rest /= length;
        }
        let mut point = Point { sets: Vec::new(), varied: Vec::new() };
        for (idx, setting) in self.options.iter().enumerate() {
            let Some(value) = setting.values.get(choices[idx]) else {
                point.sets.push(setting.text.clone());
                continue;
            };
            point.sets.push(format!("{}={}", setting.key, value.text));
            if self.axes.iter().any(|axis| axis.contains(&idx)) {
                point.varied.push((setting.key.clone(), value.text.clone()));
            }
        }
        (point, choices)
    }

    /// The options as given, one a line: what places on the command line point into.
    fn text(&self) -> String {
        let lines: Vec<String> = self.options.iter().map(|setting| setting.option.to_owned() + &setting.text).collect();
        lines.join("\n")
    }

    /// A problem of one point, moved to where its value stands in the list.
    fn as_written(&self, diagnostic: &Diagnostic, choices: &[usize]) -> Diagnostic {
        let moved = |span: &Span| {
            let mut span = span.clone();
            if &*span.file == COMMAND_LINE {
                self.options[span.line - 1].move_span(choices[span.line - 1], &mut span);
            }
            span
        };
        let mut diagnostic = diagnostic.clone();
        diagnostic.span = diagnostic.span.as_ref().map(moved);
        for label in &mut diagnostic.labels {
            label.span = moved(&label.span);
        }
        diagnostic
    }
}

const SET: &str = "--set ";
const SEEDS: &str = "--seeds ";

impl Setting {
    fn set(text: String, line: usize) -> (Self, Option<Diagnostic>) {
        let Some(equals) = text.find('=') else {
            return (Self { option: SET, key: text.trim().to_owned(), text, values: Vec::new() }, None);
        };
        let parts = split(&text[equals + 1..]).map(|parts| {
            let value = |(start, part): (usize, &str)| Value { text: part.to_owned(), start: equals + 1 + start };
            parts.into_iter().map(value).collect()
        });
        let (values, broken) = match parts {
            Ok(values) => (values, None),
            Err(broken) => {
                (vec![Value { text: text[equals + 1..].trim().to_owned(), start: equals + 1 }], Some(broken))
            }
        };
        let setting = Self { option: SET, key: text[..equals].trim().to_owned(), values, text };
        let problem = match broken {
            Some((at, message)) => {
                let problem = Diagnostic::at(&setting.place(line, equals + 1 + at, 1), message);
                Some(problem.help("put the value in quotes: `'...'`".to_owned()))
            }
            None => {
                let missing = setting.values.iter().find(|value| setting.values.len() > 1 && value.text.is_empty());
                missing.map(|value| {
                    let message = format!("`{}` has a comma with no value beside it", setting.key);
                    let at = value.start.min(setting.text.len().saturating_sub(1));
                    let help = "take the comma out; write `''` for an empty text, `null` for no value";
                    Diagnostic::at(&setting.place(line, at, 1), message).help(help.to_owned())
                })
            }
        };
        (setting, problem)
    }

    fn seeds(text: &str) -> Result<Self, (Self, String)> {
        let setting = |seeds: Vec<u64>| Self {
            option: SEEDS,
            text: text.to_owned(),
            key: "seed".to_owned(),
            values: seeds.iter().map(|seed| Value { text: seed.to_string(), start: 0 }).collect(),
        };
        let mut seeds = Vec::new();
        for part in text.split(',').map(str::trim) {
            let number = |text: &str| text.trim().parse::<u64>().ok();
            let range = match part.split_once("..") {
                Some((first, last)) => number(first).zip(number(last)),
                None => number(part).map(|seed| (seed, seed)),
            };
            match range {
                Some((first, last)) if first <= last && last - first < MOST_POINTS_N as u64 => {
                    seeds.extend(first..=last);
                }
                Some((first, last)) if first <= last => {
                    return Err((setting(Vec::new()), format!("`{part}` are more than {MOST_POINTS_N} seeds")));
                }
                Some(_) => return Err((setting(Vec::new()), format!("`{part}` runs backwards"))),
                None => return Err((setting(Vec::new()), format!("`{part}` is no seed and no range of seeds"))),
            }
        }
        Ok(setting(seeds))
    }

    /// The whole option.
    fn span(&self, line: usize) -> Span {
        self.place(line, 0, self.text.chars().count())
    }

    fn place(&self, line: usize, start: usize, length: usize) -> Span {
        let column = self.option.len() + self.text[..start].chars().count() + 1;
        Span { file: COMMAND_LINE.into(), line, column, length: length.max(1) }
    }

    /// A place in `--set key=value` becomes one in `--set key=value,value`.
    fn move_span(&self, choice: usize, span: &mut Span) {
        if self.option == SEEDS {
            *span = self.span(span.line);
            return;
        }
        let Some(value) = self.values.get(choice) else { return };
        // The point's own option is written `key=value`, without the spaces that may stand around both.
        let key_n = SET.len() + self.key.chars().count() + 1;
        let spaces_n = self.text.chars().take_while(|one| one.is_whitespace()).count();
        if span.column > key_n {
            span.column += SET.len() + self.text[..value.start].chars().count() - key_n;
        } else {
            span.column += spaces_n;
        }
    }
}

/// The values of a list with the byte where each begins; or what is not closed, and where it opens.
fn split(text: &str) -> Result<Vec<(usize, &str)>, (usize, String)> {
    let mut parts = Vec::new();
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut quote: Option<(usize, char)> = None;
    let mut start = 0;
    let mut may_begin = true;
    let mut characters = text.char_indices().peekable();
    while let Some((at, one)) = characters.next() {
        if let Some((_, mark)) = quote {
            match one {
                '\\' if mark == '"' => {
                    characters.next();
                }
                // In single quotes, two of them are one.
                '\'' if mark == '\'' && characters.peek().is_some_and(|&(_, next)| next == '\'') => {
                    characters.next();
                }
                _ if one == mark => quote = None,
                _ => {}
            }
            continue;
        }
        match one {
            '\'' | '"' if may_begin => quote = Some((at, one)),
            '[' | '{' => open.push((at, one)),
            ']' | '}' => {
                open.pop();
            }
            ',' if open.is_empty() => {
                parts.push((start, at));
                start = at + 1;
            }
            _ => {}
        }
        may_begin = matches!(one, ',' | '[' | '{' | ':') || may_begin && one.is_whitespace();
    }
    parts.push((start, text.len()));
    if let Some((at, mark)) = quote {
        return Err((at, format!("the quote `{mark}` is not closed")));
    }
    if let Some((at, bracket)) = open.pop() {
        return Err((at, format!("the bracket `{bracket}` is not closed")));
    }
    let trimmed = parts.into_iter().map(|(start, end)| {
        let part = &text[start..end];
        let begin = part.len() - part.trim_start().len();
        (start + begin, part.trim())
    });
    Ok(trimmed.collect())
}

/// What a sweep would compute: the jobs of all points, each job once.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    jobs: BTreeMap<(Key, Option<RecordId>), Option<String>>,
    nodes: BTreeMap<String, NodeTally>,
    order: Vec<String>,
}

/// The jobs of the nodes of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeTally {
    /// The stages that it uses.
    pub uses: BTreeSet<String>,
    /// How many points have it.
    pub points: usize,
    /// Distinct jobs.
    pub jobs: usize,
    /// Found in the store.
    pub cached: usize,
    /// To compute.
    pub to_compute: usize,
    /// Distinct reasons, each with the number of jobs.
    pub why: BTreeMap<String, usize>,
}

impl Tally {
    /// Adds the events of one point's dry run; gives its jobs, and how many of those it is the first to compute.
    pub fn add(&mut self, point: &Planned, events: &[Event]) -> (usize, usize) {
        let (mut job_n, mut own_n) = (0, 0);
        for event in events {
            let (job, why) = match event {
                Event::Planned { order, .. } => {
                    for name in order {
                        let node = point.plan.find(name).map(|idx| &point.plan.nodes()[idx]);
                        if !self.order.contains(name) {
                            self.order.push(name.clone());
                        }
                        let tally = self.nodes.entry(name.clone()).or_default();
                        tally.points += 1;
                        tally.uses.extend(node.map(|node| node.uses.clone()));
                    }
                    continue;
                }
                Event::Hit { job, .. } => (job, None),
                Event::Miss { job, why, .. } => (job, Some(why.clone())),
                _ => continue,
            };
            let Some(node_idx) = point.plan.find(&job.node) else { continue };
            job_n += 1;
            let id = (point.fingerprints[node_idx], job.record.clone());
            if self.jobs.contains_key(&id) {
                continue;
            }
            self.jobs.insert(id, why.clone());
            let tally = self.nodes.entry(job.node.clone()).or_default();
            tally.jobs += 1;
            match why {
                None => tally.cached += 1,
                Some(why) => {
                    own_n += 1;
                    tally.to_compute += 1;
                    *tally.why.entry(why).or_default() += 1;
                }
            }
        }
        (job_n, own_n)
    }

    /// By node, in the order in which nodes are shown.
    #[must_use]
    pub fn nodes(&self) -> Vec<(&str, &NodeTally)> {
        self.order.iter().filter_map(|name| Some((name.as_str(), self.nodes.get(name)?))).collect()
    }

    /// Distinct jobs, and how many of them are to compute.
    #[must_use]
    pub fn sums(&self) -> (usize, usize) {
        (self.jobs.len(), self.jobs.values().flatten().count())
    }
}

/// By which metric points are ranked, and whether a low one is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// The metric.
    pub metric: String,
    /// Whether the lowest is the best.
    pub lowest: bool,
}

impl Ranking {
    /// Reads `metric`, `metric:min` or `metric:max`. Without a word on it, the lowest is the best of what is named a loss
    /// or an error, and the highest of everything else; [`Self::shown`] says which it is.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let (metric, lowest) = match (text.strip_suffix(":min"), text.strip_suffix(":max")) {
            (Some(metric), _) => (metric, true),
            (_, Some(metric)) => (metric, false),
            _ => (text, ["loss", "error"].iter().any(|word| text.to_lowercase().contains(word))),
        };
        Self { metric: metric.to_owned(), lowest }
    }

    /// `highest test/accuracy`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {}", if self.lowest { "lowest" } else { "highest" }, self.metric)
    }

    /// The best comes first; without a number, or with one that is none, last. Equals stay in order.
    pub fn sort<T>(&self, rows: &mut [T], value: impl Fn(&T) -> Option<f64>) {
        let value = |row: &T| value(row).filter(|value| !value.is_nan());
        rows.sort_by(|a, b| match (value(a), value(b)) {
            (Some(a), Some(b)) if self.lowest => a.total_cmp(&b),
            (Some(a), Some(b)) => b.total_cmp(&a),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn options(sets: &[&str], seeds: Option<&str>, zip: bool) -> Options {
        Options { sets: sets.iter().map(|set| (*set).to_owned()).collect(), seeds: seeds.map(str::to_owned), zip }
    }

    #[track_caller]
    fn check(sets: &[&str], seeds: Option<&str>, zip: bool, expected: Expect) {
        let shown = match Grid::read(&options(sets, seeds, zip)) {
            Ok(grid) => {
                let lines = grid.points().into_iter().map(|(point, _)| {
                    let constant = point.sets.len() - point.varied.len();
                    format!("{} (+{constant})\n", values(&point.varied))
                });
                lines.collect()
            }
            Err(report) => report.plain(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn lists_are_split_at_their_own_commas_only() {
        let cases: [(&str, &[&str]); 14] = [
            ("5,10", &["5", "10"]),
            (" 5 , 10 ", &["5", "10"]),
            ("[1,2],[3]", &["[1,2]", "[3]"]),
            ("[[1,2],[3]],[]", &["[[1,2],[3]]", "[]"]),
            ("{a: 1, b: [2,3]},{}", &["{a: 1, b: [2,3]}", "{}"]),
            ("'a,b',c", &["'a,b'", "c"]),
            ("'it''s, well',\"a\\\",b\"", &["'it''s, well'", "\"a\\\",b\""]),
            ("it's,that's", &["it's", "that's"]),
            ("['a]',b],c", &["['a]',b]", "c"]),
            ("{a: ',}'},1", &["{a: ',}'}", "1"]),
            ("a]b,c", &["a]b", "c"]),
            ("null", &["null"]),
            ("", &[""]),
            ("größe,ü", &["größe", "ü"]),
        ];
        for (text, expected) in cases {
            let parts: Vec<&str> = split(text).unwrap().into_iter().map(|(_, part)| part).collect();
            assert_eq!(parts, expected, "{text}");
        }
        assert!(split("[1,2").unwrap_err().1.contains("`[` is not closed"));
        assert_eq!(split("a,'b").unwrap_err().0, 2);
    }

    #[test]
    fn points_are_nested_loops() {
        check(
            &["a.x=1,2", "b.y=7", "c.z=u,[v,w]"],
            Some("3..4"),
            false,
            expect![[r#"
                a.x=1 c.z=u seed=3 (+1)
                a.x=1 c.z=u seed=4 (+1)
                a.x=1 c.z=[v,w] seed=3 (+1)
                a.x=1 c.z=[v,w] seed=4 (+1)
                a.x=2 c.z=u seed=3 (+1)
                a.x=2 c.z=u seed=4 (+1)
                a.x=2 c.z=[v,w] seed=3 (+1)
                a.x=2 c.z=[v,w] seed=4 (+1)
            "#]],
        );
    }

    #[test]
    fn zipped_lists_go_in_pairs_and_seeds_are_crossed() {
        check(
            &["a.x=1,2", "b.y=7", "c.z=u,v"],
            Some("9,1..2"),
            true,
            expect![[r#"
                a.x=1 c.z=u seed=9 (+1)
                a.x=1 c.z=u seed=1 (+1)
                a.x=1 c.z=u seed=2 (+1)
                a.x=2 c.z=v seed=9 (+1)
                a.x=2 c.z=v seed=1 (+1)
                a.x=2 c.z=v seed=2 (+1)
            "#]],
        );
    }

    #[test]
    fn options_that_make_no_sweep_are_refused_with_their_place() {
        check(
            &["a.x=1"],
            None,
            false,
            expect![[r#"
            error: nothing is swept: no `--set` gives more than one value
             |
             = help: write `--set node.parameter=1,2,3` or `--seeds 1..5`; `ecgpipe run` runs one point
        "#]],
        );
        check(
            &["a.x=1,,2", "b.y=[1,2", "a.x=3,4", "seed=1"],
            Some("5..1"),
            false,
            expect![[r#"
                error: `a.x` has a comma with no value beside it
                 --> command line:1:13
                  |
                1 | --set a.x=1,,2
                  |             ^
                  |
                  = help: take the comma out; write `''` for an empty text, `null` for no value

                error: the bracket `[` is not closed
                 --> command line:2:11
                  |
                2 | --set b.y=[1,2
                  |           ^
                  |
                  = help: put the value in quotes: `'...'`

                error: `a.x` is given twice
                 --> command line:3:7
                  |
                1 | --set a.x=1,,2
                  |       -------- first here
                2 | --set b.y=[1,2
                3 | --set a.x=3,4
                  |       ^^^^^^^
                  |
                  = help: put all its values into one option: `--set a.x=1,2`

                error: `5..1` runs backwards
                 --> command line:5:9
                  |
                5 | --seeds 5..1
                  |         ^^^^
                  |
                  = help: write `--seeds 1..5` (both ends are included) or `--seeds 1,4,7`
            "#]],
        );
        check(
            &["a.x=1,2", "seed=1"],
            Some("1,2"),
            false,
            expect![[r#"
            error: `seed` is given twice
             --> command line:3:9
              |
            2 | --set seed=1
              |       ------ first here
            3 | --seeds 1,2
              |         ^^^
              |
              = help: put all its values into one option: `--set seed=1,2`
        "#]],
        );
        check(
            &["a.x=1,2", "b.y=1,2,3"],
            None,
            true,
            expect![[r#"
            error: `--zip` pairs lists of one length, but `b.y` has 3 values and `a.x` has 2
             --> command line:2:7
              |
            1 | --set a.x=1,2
              |       ------- this list
            2 | --set b.y=1,2,3
              |       ^^^^^^^^^
              |
              = help: give lists of one length, or leave out `--zip` for every combination
        "#]],
        );
        let many: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let many = [format!("a.x={}", many.join(",")), format!("b.y={}", many.join(","))];
        check(
            &[&many[0], &many[1]],
            None,
            false,
            expect![[r#"
            error: 40 x 40 points are more than 1000
             |
             = help: sweep fewer values, or pair them with `--zip`
        "#]],
        );
    }

    #[test]
    fn the_best_point_comes_first() {
        let ranked = |text: &str| {
            let mut rows = vec![Some(0.5), None, Some(f64::NAN), Some(0.9), Some(0.5)];
            let mut numbered: Vec<(usize, Option<f64>)> = rows.drain(..).enumerate().collect();
            Ranking::read(text).sort(&mut numbered, |row| row.1);
            numbered.into_iter().map(|row| row.0).collect::<Vec<_>>()
        };
        assert_eq!(ranked("test/accuracy"), [3, 0, 4, 1, 2]);
        assert_eq!(ranked("test/accuracy:min"), [0, 4, 3, 1, 2]);
        assert_eq!(ranked("train/loss"), ranked("test/accuracy:min"));
        assert_eq!(ranked("train/loss:max"), ranked("test/accuracy"));
        assert_eq!(Ranking::read("train/loss").shown(), "lowest train/loss");
    }
}
