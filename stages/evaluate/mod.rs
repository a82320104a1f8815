//! `evaluate`: scores predictions against the reference beats, by ANSI/AAMI EC57.
//!
//! One table of counts (record, part, reference class under each escape-beat rule, predicted class, late or not) is
//! made once; every figure is a roll-up of it. What is counted:
//!
//! - every labelled beat of the parts asked for, once; a beat that no prediction exists for is a false negative;
//! - reference beats that the detector missed, as false negatives, and detected beats without a reference, as false
//!   positives of the class that they were taken for, where the whole record is in the part.
//!
//! Invariants: the counts of a part add up to its labelled and missed beats, and the records' matrices add up to the
//! gross one (guarded by `tests::records_add_up_to_the_gross_matrix`). Parameters change the report alone: nothing has
//! to be trained again.

mod bootstrap;
mod matrix;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{
    All, Beats, Confusion, Context, FactProblem, Files, Metrics, One, Part, Place, Predictions, RecordId, Split,
    SplitRow, Stage, StageError, StageFacts, facts::names, kinds::ConfusionRow, ports,
};
use ecgpipe_tables::{Tally, TallyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::matrix::{EXTRA, MISSED};
pub use self::{bootstrap::Interval, matrix::Matrix};
use crate::{
    aami::{AamiClass, EscapeRule, PACED_RECORDS},
    agreement::{check_beats, some_of},
};

/// Scores predictions against reference beats.
pub struct Evaluate;

/// What to report first, and which records stand out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Escape-beat rule of the main figures: `de_chazal` (default) or `ec57`. Both are always reported.
    pub escape_rule: EscapeRule,
    /// View of the main figures. Default: `aami`. All views are always reported.
    pub view: View,
    /// Parts of the split to score. Default: `test` alone. The first is the one whose confusion matrices carry plain
    /// view names.
    pub parts: Vec<Part>,
    /// Records that the view `aami` leaves out. Default: the paced records of MIT-BIH, 102, 104, 107 and 217.
    #[schemars(with = "Vec<String>")]
    pub paced_records: Vec<RecordId>,
    /// Records that decide a class alone, which the view `without_dominating` leaves out as well. Default: 232 (1,382
    /// of the 1,837 S beats of DS2) and 213 (362 of the 388 F beats).
    #[schemars(with = "Vec<String>")]
    pub dominating_records: Vec<RecordId>,
    /// Length of the learning period that the view `after_learning_period` leaves out, in seconds. Default: 300, as in
    /// EC57.
    #[schemars(range(min = 0))]
    pub learning_period_s: f64,
    /// Draws of patients for the intervals of the main figures; 0 for none. Default: 1,000.
    #[schemars(range(max = 100_000))]
    pub bootstrap_n: usize,
    /// Stands in metric names and headings in place of the part's name: `cv` for the predictions of a
    /// cross-validation, so that they are not taken for a test. Letters, digits and `_`; default: the part's name.
    pub name: String,
}

/// Which beats of a part count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Every record.
    All,
    /// Without the paced records, as EC57 asks.
    Aami,
    /// Without the paced and the dominating records.
    WithoutDominating,
    /// As `aami`, and without the learning period at the start of each record.
    AfterLearningPeriod,
}

impl View {
    /// All views.
    pub const ALL: [Self; 4] = [Self::All, Self::Aami, Self::WithoutDominating, Self::AfterLearningPeriod];

    /// The name in parameters and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Aami => "aami",
            Self::WithoutDominating => "without_dominating",
            Self::AfterLearningPeriod => "after_learning_period",
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        let records = |names: &[&str]| names.iter().map(|name| RecordId::new(name).expect("a record number")).collect();
        Self {
            escape_rule: EscapeRule::DeChazal,
            view: View::Aami,
            parts: vec![Part::Test],
            paced_records: records(&PACED_RECORDS),
            dominating_records: records(&["232", "213"]),
            learning_period_s: 300.0,
            bootstrap_n: 1000,
            name: String::new(),
        }
    }
}

impl Params {
    /// What a part is called in metrics and headings.
    fn label(&self, part: Part) -> String {
        match (self.name.is_empty(), self.parts.len()) {
            (true, _) => part.as_str().to_owned(),
            (false, 1) => self.name.clone(),
            (false, _) => format!("{}_{}", self.name, part.as_str()),
        }
    }
}

ports! {
    /// What `evaluate` takes.
    pub struct Inputs {
        /// Class probabilities of every record.
        pub predictions: All<Predictions>,
        /// Beats with reference symbols, and those that were missed.
        pub beats: All<Beats>,
        /// Which beats are in which part.
        pub split: One<Split>,
    }
}

ports! {
    /// What `evaluate` gives.
    pub struct Outputs {
        /// Gross figures and averages over records, as `test/f1_s`.
        pub metrics: One<Metrics>,
        /// Confusion counts for every view, rule and record.
        pub confusion: One<Confusion>,
        /// `report.md`, `report.csv` and `report.json`.
        pub report: One<Files>,
    }
}

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    const SUMMARY: &'static str =
        "confusion matrices and AAMI EC57 figures per class and per record, under both escape-beat rules";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.parts.is_empty() {
            return Err("`parts` must name at least one of test, validation, training".to_owned());
        }
        if params.parts.iter().collect::<BTreeSet<_>>().len() < params.parts.len() {
            return Err("`parts` names a part twice".to_owned());
        }
        if !(params.learning_period_s.is_finite() && params.learning_period_s >= 0.0) {
            return Err(format!("`learning_period_s` must be 0 or more seconds, not {}", params.learning_period_s));
        }
        if params.bootstrap_n > 100_000 {
            return Err(format!("`bootstrap_n` must be 0 to 100000, not {}", params.bootstrap_n));
        }
        if !params.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(format!("`name` must be of letters, digits and `_`, not `{}`", params.name));
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        check_beats(facts, &["predictions", "beats", "split"]);
        check_unseen(params, facts);
        if let Some(rule) =
            facts.get("split", names::ESCAPE_RULE).filter(|rule| *rule.value != params.escape_rule.as_str())
        {
            let message = format!(
                "the main figures follow `{}`, but the model learned from {}",
                params.escape_rule.as_str(),
                names::ESCAPE_RULE.read(&rule.value)
            );
            let problem = FactProblem::warning(Place::Parameter("escape_rule"), message);
            facts.tell(problem.because(names::ESCAPE_RULE, rule).help("give both the same `escape_rule`"));
        }
        if let Some(known) = facts.list("split", names::PARTS) {
            let lacking: Vec<&str> =
                params.parts.iter().map(|part| part.as_str()).filter(|part| !known.contains(part)).collect();
            for part in lacking {
                let message = format!("`parts` names {part}, but the split has no such part");
                let problem = FactProblem::warning(Place::Parameter("parts"), message);
                let fact = facts.get("split", names::PARTS).expect("its list is known");
                facts.tell(problem.because(names::PARTS, fact).help("take the part out, or give the split one"));
            }
        }
        let views = params
            .parts
            .iter()
            .enumerate()
            .flat_map(|(place, part)| View::ALL.map(|view| view_name(place, *part, view)));
        facts.set_by("confusion", names::VIEWS, views.collect::<Vec<String>>(), "parts");
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let predictions: BTreeMap<&RecordId, &Predictions> = inputs.predictions.iter().collect();
        let beats: BTreeMap<&RecordId, &Beats> = inputs.beats.iter().collect();
        let evaluation = evaluate(&predictions, &beats, &inputs.split, params)?;
        evaluation.notes.iter().for_each(|note| cx.note(note.clone()));
        Ok(Outputs {
            metrics: One::new(evaluation.metrics(params)),
            confusion: One::new(evaluation.confusion()),
            report: One::new(Files::new(report::files(&evaluation, params))),
        })
    }
}

/// Whether the model may have learned from beats that count here as never seen: where it was trained by another split.
fn check_unseen(params: &Params, facts: &mut StageFacts<'_>) {
    let (Some(learned), Some(own)) = (facts.get("predictions", names::SPLIT), facts.get("split", names::SPLIT)) else {
        return;
    };
    if learned.value == own.value || !params.parts.contains(&Part::Test) {
        return;
    }
    let place = Place::Port("split");
    let lists = facts.list("predictions", names::LEARNED_RECORDS).zip(facts.list("split", names::TEST_RECORDS));
    let problem = match lists {
        Some((learned_records, test_records)) => {
            let both: Vec<String> = test_records
                .iter()
                .filter(|record| learned_records.contains(record))
                .map(|record| (*record).to_owned())
                .collect();
            let Some(shown) = some_of(&both) else { return };
            let message = format!("the model was trained on records that are tested here: {shown}");
            FactProblem::error(place, message).help("test on records that the model has not seen")
        }
        None => {
            let message = "the model was trained by another split: nothing says that what is tested here is new to it";
            FactProblem::warning(place, message).help("give the stage that trains and this one the same split")
        }
    };
    let mut problem = problem.because(names::SPLIT, own).because(names::SPLIT, learned);
    problem.ports.push("predictions");
    facts.tell(problem);
}

/// The name of a view of one part: those of all parts but the first carry the part's name.
fn view_name(place: usize, part: Part, view: View) -> String {
    match place {
        0 => view.as_str().to_owned(),
        _ => format!("{}_{}", part.as_str(), view.as_str()),
    }
}

/// All figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Name of the split's strategy.
    pub strategy: String,
    /// One for each part, in the order of the parameters.
    pub parts: Vec<PartEvaluation>,
    /// What the reader must know: what was left out, which records decide a class.
    pub notes: Vec<String>,
}

/// The figures of one part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartEvaluation {
    /// The part.
    pub part: Part,
    /// What it is called.
    pub name: String,
    /// Every view under every rule.
    pub groups: Vec<Group>,
    /// 95 % intervals of the main figures over patients.
    pub intervals: Vec<Interval>,
}

/// The figures of one part in one view under one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Which beats count.
    pub view: View,
    /// Which rule made the reference classes.
    pub rule: EscapeRule,
    /// All beats together.
    pub gross: Matrix,
    /// By record.
    pub records: BTreeMap<RecordId, Matrix>,
}

impl Group {
    /// The mean of a ratio over the records that have it: every patient counts alike.
    #[must_use]
    pub fn average(&self, ratio: impl Fn(&Matrix) -> Option<f64>) -> Option<f64> {
        let ratios: Vec<f64> = self.records.values().filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64)
    }
}

impl PartEvaluation {
    /// One group.
    #[must_use]
    pub fn group(&self, view: View, rule: EscapeRule) -> &Group {
        let found = self.groups.iter().find(|group| (group.view, group.rule) == (view, rule));
        found.expect("every view has both rules")
    }
}

/// Scores the parts that `params` names.
///
/// # Errors
/// If a record of the split has no predictions or beats, or a prediction does not fit its record.
pub fn evaluate(
    predictions: &BTreeMap<&RecordId, &Predictions>,
    beats: &BTreeMap<&RecordId, &Beats>,
    split: &Split,
    params: &Params,
) -> Result<Evaluation, StageError> {
    let malformed = |error: TallyError| StageError::from_error(&error);
    let mut notes = Vec::new();
    let counted = count(predictions, beats, split, params, &mut notes)?;
    let patients: BTreeMap<&RecordId, &str> =
        split.rows.iter().map(|row| (&row.record, row.patient.as_str())).collect();
    let parts: Result<Vec<PartEvaluation>, TallyError> = (0u32..)
        .zip(&params.parts)
        .map(|(part_code, part)| {
            let of_part = counted.table.keep("part", &[part_code])?;
            let mut groups = Vec::new();
            for view in View::ALL {
                for rule in EscapeRule::ALL {
                    groups.push(counted.group(&of_part, view, rule, params)?);
                }
            }
            let mut evaluation =
                PartEvaluation { part: *part, name: params.label(*part), groups, intervals: Vec::new() };
            let main = evaluation.group(params.view, params.escape_rule);
            let mut by_patient: BTreeMap<&str, Matrix> = BTreeMap::new();
            for (record, matrix) in &main.records {
                by_patient.entry(patients.get(record).copied().unwrap_or(record.as_str())).or_default().add(matrix);
            }
            evaluation.intervals = bootstrap::intervals(&by_patient, params.bootstrap_n);
            Ok(evaluation)
        })
        .collect();
    let evaluation = Evaluation { strategy: split.strategy.clone(), parts: parts.map_err(malformed)?, notes };
    Ok(evaluation.with_dominance_notes(params))
}

/// The table that every figure is rolled up from.
struct Counted<'a> {
    records: Vec<&'a RecordId>,
    /// Keys `record`, `part` (place in `params.parts`), `de_chazal` and `ec57` (reference class, or [`EXTRA`]),
    /// `predicted` (class, or [`MISSED`]), `late` (1 after the learning period).
    table: Tally,
}

impl Counted<'_> {
    fn group(&self, of_part: &Tally, view: View, rule: EscapeRule, params: &Params) -> Result<Group, TallyError> {
        let paced = |record: &RecordId| params.paced_records.contains(record);
        let dominating = |record: &RecordId| params.dominating_records.contains(record);
        let counts = |record: &RecordId| match view {
            View::All => true,
            View::Aami | View::AfterLearningPeriod => !paced(record),
            View::WithoutDominating => !paced(record) && !dominating(record),
        };
        let allowed: Vec<Option<u32>> = self.records.iter().map(|record| counts(record).then_some(0)).collect();
        let mut table = of_part.join("record", "allowed", &allowed)?;
        if view == View::AfterLearningPeriod {
            table = table.keep("late", &[1])?;
        }
        let mut records: BTreeMap<RecordId, Matrix> = BTreeMap::new();
        for ([record, truth, predicted], beat_n) in table.list(["record", rule.as_str(), "predicted"])? {
            let matrix = records.entry(self.records[record as usize].clone()).or_default();
            matrix.cells[truth as usize][predicted as usize] = beat_n;
        }
        let mut gross = Matrix::default();
        for ([truth, predicted], beat_n) in table.list([rule.as_str(), "predicted"])? {
            gross.cells[truth as usize][predicted as usize] = beat_n;
        }
        Ok(Group { view, rule, gross, records })
    }
}

/// The columns of the table while it is filled.
#[derive(Default)]
struct Columns {
    record: Vec<u32>,
    part: Vec<u32>,
    truths: [Vec<u32>; 2],
    predicted: Vec<u32>,
    late: Vec<u32>,
}

impl Columns {
    fn push(&mut self, record: u32, part: u32, truth: [u32; 2], predicted: u32, late: bool) {
        self.record.push(record);
        self.part.push(part);
        self.truths[0].push(truth[0]);
        self.truths[1].push(truth[1]);
        self.predicted.push(predicted);
        self.late.push(u32::from(late));
    }
}

fn count<'a>(
    predictions: &BTreeMap<&RecordId, &Predictions>,
    beats: &BTreeMap<&RecordId, &Beats>,
    split: &'a Split,
    params: &Params,
    notes: &mut Vec<String>,
) -> Result<Counted<'a>, StageError> {
    let mut rows_of: BTreeMap<&RecordId, Vec<&SplitRow>> = BTreeMap::new();
    split.rows.iter().for_each(|row| rows_of.entry(&row.record).or_default().push(row));
    let part_code = |part: Part| (0u32..).zip(&params.parts).find(|(_, name)| **name == part).map(|(code, _)| code);

    let mut columns = Columns::default();
    let (mut unpredicted_n, mut mixed) = (0u64, Vec::new());
    let mut records = Vec::new();
    for (record, rows) in rows_of {
        let parts: BTreeSet<Part> = rows.iter().map(|row| row.part).collect();
        if !parts.iter().any(|part| part_code(*part).is_some()) {
            continue;
        }
        let absent = |what: &str| {
            StageError::new(format!("the split has the record, but there are no {what} of it")).record(record)
        };
        let record_beats = *beats.get(record).ok_or_else(|| absent("beats"))?;
        let record_predictions = *predictions.get(record).ok_or_else(|| absent("predictions"))?;
        let predicted = predicted_classes(record_predictions, record_beats)?;
        let late = |sample_idx: i64| sample_idx as f64 >= params.learning_period_s * record_beats.sampling_frequency_hz;
        let code = records.len() as u32;
        records.push(record);

        for row in rows {
            let Some(part) = part_code(row.part) else { continue };
            let beat = usize::try_from(row.beat_idx).ok().and_then(|beat_idx| record_beats.beats.get(beat_idx));
            let truth = beat.and_then(|beat| truth_of(beat.symbol.as_deref()?));
            let (Some(beat), Some(truth)) = (beat, truth) else {
                let message = format!("the split has beat {}, which is not a labelled beat", row.beat_idx);
                return Err(StageError::new(message)
                    .record(record)
                    .help("give `evaluate` the beats that `split` was given"));
            };
            let class = predicted[row.beat_idx as usize];
            unpredicted_n += u64::from(class.is_none());
            columns.push(code, part, truth, class.unwrap_or(MISSED as u32), late(beat.sample_idx));
        }

        let extra: Vec<usize> = (0..predicted.len())
            .filter(|beat_idx| record_beats.beats[*beat_idx].symbol.is_none() && predicted[*beat_idx].is_some())
            .collect();
        match (parts.len(), parts.first().and_then(|part| part_code(*part))) {
            (1, Some(part)) => {
                for beat in &record_beats.missed {
                    if let Some(truth) = beat.symbol.as_deref().and_then(truth_of) {
                        columns.push(code, part, truth, MISSED as u32, late(beat.sample_idx));
                    }
                }
                for beat_idx in extra {
                    let class = predicted[beat_idx].expect("extra beats have a prediction");
                    let sample_idx = record_beats.beats[beat_idx].sample_idx;
                    columns.push(code, part, [EXTRA as u32; 2], class, late(sample_idx));
                }
            }
            _ if !record_beats.missed.is_empty() || !extra.is_empty() => mixed.push(record.as_str()),
            _ => {}
        }
    }
    if unpredicted_n > 0 {
        notes.push(format!(
            "{unpredicted_n} labelled beats have no prediction (no window at the ends of a record); they count as missed"
        ));
    }
    if !mixed.is_empty() {
        notes.push(format!(
            "missed and extra detections are left out of records in more than one part: {}",
            mixed.join(", ")
        ));
    }
    let [de_chazal, ec57] = columns.truths;
    let table = Tally::of_beats(vec![
        ("record", columns.record),
        ("part", columns.part),
        (EscapeRule::DeChazal.as_str(), de_chazal),
        (EscapeRule::Ec57.as_str(), ec57),
        ("predicted", columns.predicted),
        ("late", columns.late),
    ]);
    let keys = ["record", "part", EscapeRule::DeChazal.as_str(), EscapeRule::Ec57.as_str(), "predicted", "late"];
    let table = table.and_then(|table| table.sum_by(&keys)).map_err(|error| StageError::from_error(&error))?;
    Ok(Counted { records, table })
}

/// The reference class of a symbol under both rules.
fn truth_of(symbol: &str) -> Option<[u32; 2]> {
    let code = |rule: EscapeRule| rule.class(symbol).map(|class| class.index() as u32);
    Some([code(EscapeRule::DeChazal)?, code(EscapeRule::Ec57)?])
}

/// The predicted class of every beat of a record, by place in [`AamiClass::ALL`].
fn predicted_classes(predictions: &Predictions, beats: &Beats) -> Result<Vec<Option<u32>>, StageError> {
    let fail = |message: String| StageError::new(message).record(&beats.record);
    let code = |name: &String| {
        let class = AamiClass::from_letter(name).map(|class| class.index() as u32);
        class.ok_or_else(|| fail(format!("the model predicts a class `{name}`, which is none of N, S, V, F, Q")))
    };
    let codes: Vec<u32> = predictions.classes.iter().map(code).collect::<Result<_, _>>()?;
    let mut predicted = vec![None; beats.beats.len()];
    for (row, beat_idx) in predictions.beat_idx.iter().enumerate() {
        let place = usize::try_from(*beat_idx).ok().filter(|place| *place < predicted.len());
        let place = place.filter(|place| beats.beats[*place].sample_idx == predictions.sample_idx[row]);
        let Some(place) = place else {
            let message = format!(
                "the prediction for beat {beat_idx} at sample {} is not of the beats given here",
                predictions.sample_idx[row]
            );
            return Err(fail(message).help("give `evaluate` the beats that the windows were cut at"));
        };
        if predicted[place].replace(codes[predictions.class_idx(row)]).is_some() {
            return Err(fail(format!("beat {beat_idx} is predicted twice")));
        }
    }
    Ok(predicted)
}

impl Evaluation {
    /// Names the records that hold more than half of a class with at least 20 beats: such a class is scored on one
    /// patient.
    fn with_dominance_notes(mut self, params: &Params) -> Self {
        for part in &self.parts {
            let group = part.group(params.view, params.escape_rule);
            for class in AamiClass::ALL {
                let all_n = group.gross.reference_n(class);
                for (record, matrix) in &group.records {
                    let own_n = matrix.reference_n(class);
                    if all_n >= 20 && 2 * own_n > all_n && group.records.len() > 1 {
                        self.notes.push(format!(
                            "{}: record {record} holds {own_n} of the {all_n} beats of class {class}",
                            part.name
                        ));
                    }
                }
            }
        }
        self
    }

    /// The metric points: all figures of the main view and rule under `<part>/`, the most telling ones of the other
    /// views under `<part>_<view>/` and of the other rule under `<part>_<rule>/`. Ratios of nothing to nothing are left
    /// out.
    #[must_use]
    pub fn metrics(&self, params: &Params) -> Metrics {
        let mut metrics = Metrics::default();
        let mut push = |section: &str, name: &str, value: Option<f64>| {
            if let Some(value) = value {
                metrics.push(format!("{section}/{name}"), 0, value);
            }
        };
        for part in &self.parts {
            let name = part.name.as_str();
            let main = part.group(params.view, params.escape_rule);
            headline(name, &main.gross, &mut push);
            for Interval { name: figure, low, high } in &part.intervals {
                push(name, &format!("{figure}_low"), Some(*low));
                push(name, &format!("{figure}_high"), Some(*high));
            }
            for class in AamiClass::ALL {
                let letter = class.letter().to_ascii_lowercase();
                push(name, &format!("se_{letter}"), main.gross.sensitivity(class));
                push(name, &format!("ppv_{letter}"), main.gross.predictivity(class));
                push(name, &format!("average_se_{letter}"), main.average(|matrix| matrix.sensitivity(class)));
                push(name, &format!("average_ppv_{letter}"), main.average(|matrix| matrix.predictivity(class)));
            }
            push(name, "average_accuracy", main.average(Matrix::accuracy));
            push(name, "ec57_ppv_v", main.gross.ec57_veb_predictivity());
            push(name, "ec57_ppv_s", main.gross.ec57_sveb_predictivity());
            push(name, "beats_n", Some(main.gross.beat_n() as f64));
            push(name, "missed_n", Some(main.gross.missed_n() as f64));
            push(name, "extra_n", Some(main.gross.extra_n() as f64));
            for view in View::ALL.into_iter().filter(|view| *view != params.view) {
                let section = format!("{name}_{}", view.as_str());
                headline(&section, &part.group(view, params.escape_rule).gross, &mut push);
            }
            for rule in EscapeRule::ALL.into_iter().filter(|rule| *rule != params.escape_rule) {
                let section = format!("{name}_{}", rule.as_str());
                headline(&section, &part.group(params.view, rule).gross, &mut push);
            }
        }
        metrics
    }

    /// Confusion counts that are not zero. Views of all parts but the first carry the part's name: `validation_aami`.
    #[must_use]
    pub fn confusion(&self) -> Confusion {
        let mut rows = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            for group in &part.groups {
                let view = view_name(place, part.part, group.view);
                let matrices = group.records.iter().map(|(record, matrix)| (record.as_str(), matrix));
                for (record, matrix) in [("*", &group.gross)].into_iter().chain(matrices) {
                    for (truth, row) in matrix.cells.iter().enumerate() {
                        for (predicted, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                            rows.push(ConfusionRow {
                                view: view.clone(),
                                escape_rule: group.rule.as_str().to_owned(),
                                record: record.to_owned(),
                                truth: row_name(truth).to_owned(),
                                predicted: column_name(predicted).to_owned(),
                                count: *count,
                            });
                        }
                    }
                }
            }
        }
        Confusion { classes: AamiClass::ALL.map(|class| class.letter().to_owned()).to_vec(), rows }
    }
}

/// Accuracy and F1.
fn headline(section: &str, matrix: &Matrix, push: &mut impl FnMut(&str, &str, Option<f64>)) {
    push(section, "accuracy", matrix.accuracy());
    for class in AamiClass::ALL {
        push(section, &format!("f1_{}", class.letter().to_ascii_lowercase()), matrix.f1(class));
    }
    for (name, classes) in MACROS {
        push(section, name, matrix.macro_f1(classes));
    }
}

/// Sets of classes whose mean F1 is reported.
const MACROS: [(&str, &[AamiClass]); 3] = [
    ("macro_f1_nsv", AamiClass::ALL.split_at(3).0),
    ("macro_f1_nsvf", AamiClass::ALL.split_at(4).0),
    ("macro_f1", &AamiClass::ALL),
];

/// The name of a row of a matrix.
fn row_name(place: usize) -> &'static str {
    AamiClass::ALL.get(place).map_or("extra", |class| class.letter())
}

/// The name of a column of a matrix.
fn column_name(place: usize) -> &'static str {
    AamiClass::ALL.get(place).map_or("missed", |class| class.letter())
}

#[cfg(test)]
mod tests;
