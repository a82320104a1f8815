//! `evaluate_peaks`: scores detected beats, or any annotator, against the reference annotations by ANSI/AAMI EC57.
//!
//! [`annotator`] reads what each side says of a record, [`crate::matching`] pairs beats, [`beat_by_beat`] and
//! [`run_by_run`] count, [`line_format`] writes what the standard's reference programs write, and `summary` writes for
//! people. Two views are always given: `late`, without the learning period, which is what the standard reports, and
//! `full`.
//!
//! Beats of a detector have no classes: then only their positions are scored, and every one of them counts as `N` where
//! a format has a class, as for the WFDB detectors.
//!
//! The reference must be the whole annotation file: which beats count depends on its marks of ventricular fibrillation
//! and of unreadable signals, so that beats alone would give other figures.
//!
//! Invariants: files in the formats of `bxb`, `rxr` and `sumstats` equal theirs byte for byte (`golden_tests`); what is
//! found, missed and extra adds up to the beats of both sides (`tests::counts_add_up`).

pub mod annotator;
pub mod beat_by_beat;
pub mod line_format;
pub mod run_by_run;
mod summary;

use std::collections::BTreeSet;

use ecgpipe_sdk::{
    All, Annotations, Beats, Context, FactProblem, Files, Metrics, NamedFile, One, Place, RecordId, Stage, StageError,
    StageFacts, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    annotator::{Annotator, Mark},
    beat_by_beat::{Comparison, Matrix, Period},
    line_format::{Scored, Sveb},
    run_by_run::{Ectopy, Runs},
};
use crate::{aami::AamiClass, agreement::some_of};

/// Scores beats against reference annotations.
pub struct EvaluatePeaks;

/// What counts. Figures are comparable with published ones only with the defaults.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How far a beat may be from the reference beat that it stands for, in ms, 1 to 1000. Default: 150, as in EC57.
    #[schemars(range(min = 1, max = 1000))]
    pub match_window_ms: f64,
    /// Length of the learning period at the start of each record that the view `late` leaves out, in seconds. Default:
    /// 300, as in EC57. The view `full` begins at the first sample.
    #[schemars(range(min = 0))]
    pub learning_period_s: f64,
    /// Where scoring stops, in seconds from the start of each record. Default: at the end of the record.
    #[schemars(range(min = 0))]
    pub end_s: Option<f64>,
    /// Records to leave out, by name. Default: none. For figures on beat classes EC57 leaves out records with paced
    /// beats (102, 104, 107 and 217 of mitdb); for detection they count.
    #[schemars(with = "Vec<String>")]
    pub exclude: Vec<RecordId>,
    /// What reports call the reference annotator. Default: `atr`.
    pub reference_name: String,
    /// What reports call the annotator that is tested. Default: `test`.
    pub test_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            match_window_ms: 150.0,
            learning_period_s: 300.0,
            end_s: None,
            exclude: Vec::new(),
            reference_name: "atr".to_owned(),
            test_name: "test".to_owned(),
        }
    }
}

ports! {
    /// What `evaluate_peaks` takes: the reference, and either `beats` or `annotations`.
    pub struct Inputs {
        /// The reference annotations of every record, whole: beats, and marks of fibrillation, rhythm and noise.
        pub reference: All<Annotations>,
        /// Beats of a detector: their positions are scored; symbols, which they have from a reference, are not.
        pub beats: Option<All<Beats>>,
        /// Annotations to test, such as those of another WFDB program: their classes and runs are scored too.
        pub annotations: Option<All<Annotations>>,
    }
}

ports! {
    /// What `evaluate_peaks` gives.
    pub struct Outputs {
        /// Gross figures and averages over records, as `late/se` and `full/average_ppv`; ratios are from 0 to 1.
        pub metrics: One<Metrics>,
        /// `summary.md`, `summary.json`, `records.csv` (worst records first), `errors.csv` (every error with its time);
        /// and for each view, here `late`, what the C tools write: `late.line` and `late.sd` (`bxb -l`), `late.line_L`
        /// and `late.sd_L` (`bxb -L`), `late.report` (`bxb`), `late.S` (`bxb -S`), `late.rxr_v` and `late.rxr_s` (`rxr
        /// -L`, for annotations), with `.sumstats` behind the name what `sumstats` says of one.
        pub report: One<Files>,
    }
}

impl Stage for EvaluatePeaks {
    const NAME: &'static str = "evaluate_peaks";
    const SUMMARY: &'static str =
        "scores beats against reference annotations by AAMI EC57, in the files of bxb, rxr and sumstats";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(1.0..=1000.0).contains(&params.match_window_ms) {
            return Err(format!("`match_window_ms` must be 1 to 1000 ms, not {}", params.match_window_ms));
        }
        let learning_period_s = params.learning_period_s;
        if !(0.0..=MAX_S).contains(&learning_period_s) {
            return Err(format!("`learning_period_s` must be 0 to {MAX_S} seconds, not {learning_period_s}"));
        }
        if let Some(end_s) = params.end_s.filter(|end_s| !(*end_s > learning_period_s && *end_s <= MAX_S)) {
            return Err(format!(
                "`end_s` must be behind the learning period of {learning_period_s} s and at most {MAX_S}, not {end_s}"
            ));
        }
        for (parameter, name) in [("reference_name", &params.reference_name), ("test_name", &params.test_name)] {
            if name.is_empty() || name.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
                return Err(format!("`{parameter}` must be a word, such as atr, not {name:?}"));
            }
        }
        let mut seen = BTreeSet::new();
        match params.exclude.iter().find(|record| !seen.insert(*record)) {
            Some(twice) => Err(format!("`exclude` must name each record once, but `{twice}` stands there twice")),
            None => Ok(()),
        }
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        match (facts.is_connected("beats"), facts.is_connected("annotations")) {
            (true, true) => {
                let problem = FactProblem::error(Place::Port("annotations"), BOTH_CONNECTED);
                facts.tell(problem.help(HOW_TO_CONNECT));
            }
            (false, false) => {
                let problem = FactProblem::error(Place::Port("reference"), NOTHING_CONNECTED);
                facts.tell(problem.help(HOW_TO_CONNECT));
            }
            (true, false) | (false, true) => {}
        }
        if facts.is_connected("annotations") && facts.from("annotations") == facts.from("reference") {
            let message = format!("`{}` is tested against itself", facts.from("reference"));
            let problem = FactProblem::error(Place::Port("annotations"), message);
            facts.tell(problem.help("connect the annotations of another annotator, or the `beats` of a detector"));
        }
        if let Some(fact) = facts.get("beats", names::PEAKS).filter(|fact| *fact.value == "annotated") {
            let message = "the beats to test are reference beats themselves: the figures say nothing of a detector";
            let problem = FactProblem::warning(Place::Port("beats"), message).because(names::PEAKS, fact);
            facts.tell(problem.help("set `peaks: detected` there"));
        }
        if let Some(known) = facts.list("reference", names::RECORDS) {
            let unknown = params.exclude.iter().map(RecordId::as_str).filter(|record| !known.contains(record));
            let unknown: Vec<String> = unknown.map(str::to_owned).collect();
            if let Some(shown) = some_of(&unknown) {
                let message = format!("`exclude` names records that there are not: {shown}");
                let problem = FactProblem::warning(Place::Parameter("exclude"), message);
                facts.tell(problem.help(format!("`{}` has {} records", facts.from("reference"), known.len())));
            }
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let evaluation = evaluate(params, &tested(params, &inputs)?, inputs.beats.is_some());
        evaluation.notes.iter().for_each(|note| cx.note(note.clone()));
        Ok(Outputs { metrics: One::new(evaluation.metrics()), report: One::new(Files::new(evaluation.files(params))) })
    }
}

/// The longest that a record may be in parameters: 1000 days.
const MAX_S: f64 = 86.4e6;
const BOTH_CONNECTED: &str = "both `beats` and `annotations` are connected, but one is tested at a time";
const NOTHING_CONNECTED: &str = "neither `beats` nor `annotations` is connected: there is nothing to test";
const HOW_TO_CONNECT: &str =
    "connect `beats` to a detector, or `annotations` to `ingest_wfdb` with the `annotator` to test";

/// One record of both sides.
struct Tested<'a> {
    record: &'a RecordId,
    sampling_frequency_hz: f64,
    sample_n: i64,
    reference: Vec<Mark<'a>>,
    test: Vec<Mark<'a>>,
}

/// Both sides of every record that counts, checked to belong together.
fn tested<'a>(params: &Params, inputs: &'a Inputs) -> Result<Vec<Tested<'a>>, StageError> {
    let test: Vec<(&RecordId, f64, i64, Vec<Mark<'a>>)> = match (&inputs.beats, &inputs.annotations) {
        (Some(beats), None) => beats
            .iter()
            .map(|(record, beats)| (record, beats.sampling_frequency_hz, beats.sample_n, detected_marks(beats)))
            .collect(),
        (None, Some(all)) => all
            .iter()
            .map(|(record, one)| (record, one.sampling_frequency_hz, one.sample_n, annotated_marks(one)))
            .collect(),
        (Some(_), Some(_)) => return Err(StageError::new(BOTH_CONNECTED).help(HOW_TO_CONNECT)),
        (None, None) => return Err(StageError::new(NOTHING_CONNECTED).help(HOW_TO_CONNECT)),
    };
    let counts = |record: &RecordId| !params.exclude.contains(record);
    let known: BTreeSet<&RecordId> = test.iter().map(|(record, ..)| *record).collect();
    let mut annotated = inputs.reference.iter().map(|(record, _)| record);
    if let Some(record) = annotated.find(|record| !known.contains(record) && counts(record)) {
        return Err(StageError::new("there are reference annotations of the record, but no beats to test")
            .help("give both sides the same records, or name the record in `exclude`")
            .record(record));
    }
    let tested: Result<Vec<Tested<'a>>, StageError> = test
        .into_iter()
        .filter(|(record, ..)| counts(record))
        .map(|(record, hz, sample_n, test)| {
            let fail = |message: String| StageError::new(message).record(record);
            let reference = inputs.reference.get(record).ok_or_else(|| {
                fail("there are beats to test of the record, but no reference annotations".to_owned())
                    .help("give both sides the same records, or name the record in `exclude`")
            })?;
            let own = (reference.sampling_frequency_hz, reference.sample_n);
            if own != (hz, sample_n) {
                let message = format!(
                    "the reference has {} samples at {} Hz, what is tested has {sample_n} at {hz} Hz",
                    own.1, own.0
                );
                return Err(
                    fail(message).help("test against annotations of the same recording, before it is resampled")
                );
            }
            if !(MIN_HZ..=MAX_HZ).contains(&hz) {
                return Err(fail(format!(
                    "a sampling frequency of {hz} Hz cannot be scored: {MIN_HZ} to {MAX_HZ} can"
                )));
            }
            let reference = annotated_marks(reference);
            for (name, marks) in [("reference", &reference), ("test", &test)] {
                if !marks.is_sorted_by_key(|mark| mark.sample_idx) {
                    return Err(fail(format!("the {name} annotations are not in order of time")));
                }
            }
            Ok(Tested { record, sampling_frequency_hz: hz, sample_n, reference, test })
        })
        .collect();
    let tested = tested?;
    if tested.is_empty() {
        return Err(StageError::new("there is no record to score").help("take records out of `exclude`"));
    }
    Ok(tested)
}

/// Sampling frequencies for which times fit into positions.
const MIN_HZ: f64 = 1.0;
const MAX_HZ: f64 = 1e9;

fn annotated_marks(annotations: &Annotations) -> Vec<Mark<'_>> {
    let rows = annotations.annotations.iter();
    rows.map(|row| Mark { sample_idx: row.sample_idx, symbol: &row.symbol, subtype: row.subtype, aux: &row.aux })
        .collect()
}

/// Every beat is `N`: a detector knows no classes, and the symbols that its beats may carry are those of a reference.
fn detected_marks(beats: &Beats) -> Vec<Mark<'_>> {
    beats.beats.iter().map(|beat| Mark { sample_idx: beat.sample_idx, symbol: "N", subtype: 0, aux: "" }).collect()
}

/// All figures.
#[derive(Clone, Debug)]
struct Evaluation {
    /// Whether positions alone were tested.
    is_detection_only: bool,
    /// `late` and `full`.
    views: Vec<View>,
    /// What the reader must know.
    notes: Vec<String>,
}

/// Records scored from one time on.
#[derive(Clone, Debug)]
struct View {
    name: &'static str,
    start_s: f64,
    records: Vec<RecordScores>,
}

/// The scores of one record.
#[derive(Clone, Debug)]
struct RecordScores {
    record: RecordId,
    sampling_frequency_hz: f64,
    comparison: Comparison,
    ventricular: Runs,
    supraventricular: Runs,
}

impl RecordScores {
    fn runs(&self, ectopy: Ectopy) -> Runs {
        match ectopy {
            Ectopy::Ventricular => self.ventricular,
            Ectopy::Supraventricular => self.supraventricular,
        }
    }

    fn interval_error_ms(&self) -> Option<f64> {
        self.comparison.interval_error_ms(self.sampling_frequency_hz)
    }
}

fn evaluate(params: &Params, tested: &[Tested<'_>], is_detection_only: bool) -> Evaluation {
    let mut views = Vec::new();
    let mut notes = Vec::new();
    for (name, start_s) in [("late", params.learning_period_s), ("full", 0.0)] {
        let (mut records, mut short) = (Vec::new(), Vec::new());
        for one in tested {
            let hz = one.sampling_frequency_hz;
            let to_samples = |seconds: f64| (seconds * hz + 0.5).floor() as i64;
            let end_idx = params.end_s.map_or(one.sample_n, |end_s| to_samples(end_s).min(one.sample_n));
            let period = Period { start_idx: to_samples(start_s), end_idx };
            if period.start_idx > 0 && period.start_idx >= period.end_idx {
                short.push(one.record.to_string());
                continue;
            }
            let window_n = to_samples(params.match_window_ms / 1000.0);
            let [reference, test] = [&one.reference, &one.test].map(|marks| Annotator::read(marks, window_n));
            let runs = |ectopy| run_by_run::compare(&reference, &test, period, window_n, ectopy);
            records.push(RecordScores {
                record: one.record.clone(),
                sampling_frequency_hz: hz,
                comparison: beat_by_beat::compare(&reference, &test, period, window_n),
                ventricular: runs(Ectopy::Ventricular),
                supraventricular: runs(Ectopy::Supraventricular),
            });
        }
        if let Some(shown) = some_of(&short) {
            notes.push(format!("view `{name}` has none of the records that end within {start_s} s: {shown}"));
        }
        views.push(View { name, start_s, records });
    }
    if !is_detection_only {
        let is_paced = |one: &&Tested<'_>| one.reference.iter().any(|mark| mark.symbol == "/");
        let paced: Vec<String> = tested.iter().filter(is_paced).map(|one| one.record.to_string()).collect();
        if let Some(shown) = some_of(&paced) {
            notes.push(format!(
                "records with paced beats take part: {shown}; EC57 leaves them out of figures on beat classes (`exclude`)"
            ));
        }
    }
    Evaluation { is_detection_only, views, notes }
}

impl View {
    /// All records together.
    fn matrix(&self) -> Matrix {
        let mut gross = Matrix::default();
        self.records.iter().for_each(|scores| gross.add(&scores.comparison.matrix));
        gross
    }

    /// The mean of a ratio over the records that have it.
    fn average(&self, ratio: impl Fn(&RecordScores) -> Option<f64>) -> Option<f64> {
        let ratios: Vec<f64> = self.records.iter().filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
    }

    /// Runs of all records together.
    fn runs(&self, ectopy: Ectopy) -> Runs {
        let mut sum = Runs::default();
        self.records.iter().for_each(|scores| sum.add(&scores.runs(ectopy)));
        sum
    }

    fn runs_by_record(&self, ectopy: Ectopy) -> Vec<(&str, Runs)> {
        self.records.iter().map(|scores| (scores.record.as_str(), scores.runs(ectopy))).collect()
    }

    fn scored(&self) -> Vec<Scored<'_>> {
        let scored = self.records.iter().map(|scores| Scored {
            record: scores.record.as_str(),
            sampling_frequency_hz: scores.sampling_frequency_hz,
            comparison: &scores.comparison,
        });
        scored.collect()
    }
}

/// A ratio, or nothing of nothing.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A ratio that is told of a matrix, by its name in metrics.
type NamedRatio = (&'static str, fn(&Matrix) -> Option<f64>);

/// All of them.
const RATIOS: [NamedRatio; 6] = [
    ("se", |matrix| ratio(matrix.found_n(), matrix.found_n() + matrix.missed_n())),
    ("ppv", |matrix| ratio(matrix.found_n(), matrix.found_n() + matrix.extra_n())),
    ("se_v", |matrix| class_sensitivity(matrix, AamiClass::V)),
    ("ppv_v", |matrix| class_predictivity(matrix, AamiClass::V)),
    ("se_s", |matrix| class_sensitivity(matrix, AamiClass::S)),
    ("ppv_s", |matrix| class_predictivity(matrix, AamiClass::S)),
];
/// How many of them are of detection.
const DETECTION_RATIO_N: usize = 2;

fn class_sensitivity(matrix: &Matrix, class: AamiClass) -> Option<f64> {
    ratio(matrix.cells[class.index()][class.index()], matrix.reference_n(class))
}

fn class_predictivity(matrix: &Matrix, class: AamiClass) -> Option<f64> {
    let (right_n, predicted_n) = matrix.predicted(class);
    ratio(right_n, predicted_n)
}

/// Names of the kinds of runs in metrics.
const RUN_KINDS: [(&str, Ectopy); 2] = [("ve", Ectopy::Ventricular), ("sve", Ectopy::Supraventricular)];
/// Names of the figures of runs in metrics, in the order of [`Runs::figures`].
const RUN_RATIOS: [&str; 6] =
    ["couplet_se", "couplet_ppv", "short_run_se", "short_run_ppv", "long_run_se", "long_run_ppv"];

impl Evaluation {
    /// The ratios that mean something here.
    fn ratios(&self) -> &'static [NamedRatio] {
        if self.is_detection_only { &RATIOS[..DETECTION_RATIO_N] } else { &RATIOS }
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        for view in &self.views {
            let mut push = |name: &str, value: Option<f64>| {
                if let Some(value) = value {
                    metrics.push(format!("{}/{name}", view.name), 0, value);
                }
            };
            let gross = view.matrix();
            for (name, ratio) in self.ratios() {
                push(name, ratio(&gross));
                push(&format!("average_{name}"), view.average(|scores| ratio(&scores.comparison.matrix)));
            }
            push("beats_n", Some((gross.found_n() + gross.missed_n()) as f64));
            push("missed_n", Some(gross.missed_n() as f64));
            push("extra_n", Some(gross.extra_n() as f64));
            push("average_rr_error_ms", view.average(RecordScores::interval_error_ms));
            if !self.is_detection_only {
                for (kind, ectopy) in RUN_KINDS {
                    for (name, (part, whole)) in RUN_RATIOS.into_iter().zip(view.runs(ectopy).figures()) {
                        push(&format!("{kind}_{name}"), ratio(part, whole));
                    }
                }
            }
        }
        metrics
    }

    fn files(&self, params: &Params) -> Vec<NamedFile> {
        let mut files = summary::files(self, params);
        for view in &self.views {
            let mut add = |name: &str, text: String| {
                files.push(NamedFile { name: format!("{}.{name}", view.name), bytes: text.into_bytes() });
            };
            let scored = view.scored();
            for (sveb, line, shutdown) in [(Sveb::AreNormal, "line", "sd"), (Sveb::Apart, "line_L", "sd_L")] {
                add(line, line_format::beat_lines(&scored, sveb));
                add(&format!("{line}.sumstats"), line_format::beat_summary(&scored, sveb));
                add(shutdown, line_format::shutdown_lines(&scored, sveb));
            }
            let report = |scored: &Scored<'_>, sveb| {
                line_format::beat_report(scored, &params.reference_name, &params.test_name, sveb)
            };
            let whole = |scored: &Scored<'_>| {
                report(scored, Sveb::AreNormal) + &line_format::shutdown_report(scored, Sveb::AreNormal)
            };
            add("report", scored.iter().map(whole).collect());
            add("S", scored.iter().map(|scored| report(scored, Sveb::Apart)).collect());
            if !self.is_detection_only {
                for (ectopy, name) in [(Ectopy::Ventricular, "rxr_v"), (Ectopy::Supraventricular, "rxr_s")] {
                    let runs = view.runs_by_record(ectopy);
                    add(name, line_format::run_lines(&runs, ectopy));
                    add(&format!("{name}.sumstats"), line_format::run_summary(&runs, ectopy));
                }
            }
        }
        files
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
