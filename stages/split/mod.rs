//! `split`: says of every labelled beat whether it is for training, validation or test, and which patients are on both
//! sides.
//!
//! A model that has seen a patient recognises that patient: on the MIT-BIH records, a random split of beats gives an S
//! F1 of 0.84 where a split by patient gives 0.06 for the same model. So every strategy but `random_beats` moves whole
//! patients or whole records, and whatever leaks is refused or named.
//!
//! Invariants: each labelled beat is in at most one part (guarded by `tests::parts_are_disjoint_and_complete`);
//! validation patients are taken from the training side as a whole, so validation never shares a patient with training
//! unless records are named one by one or `random_beats` is chosen.

mod presets;

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{
    All, Beats, Context, FactProblem, One, Part, Place, RecordId, SplitRow, Stage, StageError, StageFacts,
    facts::names,
    kinds::{self, Leak},
    ports,
};
use ecgpipe_tables::{Tally, TallyError};
use rand::{SeedableRng, seq::SliceRandom};
use rand_xoshiro::Xoshiro256PlusPlus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    aami::{AamiClass, EscapeRule, PACED_RECORDS},
    agreement::some_of,
    hold_out::{self, ClassCounts},
};

/// Splits labelled beats into training, validation and test.
pub struct Split;

/// How to split.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Who decides the sides. Default: `by_patient`.
    pub strategy: Strategy,
    /// Class of escape beats (`e`, `j`, `n`): `de_chazal` (N, default) or `ec57` (S).
    pub escape_rule: EscapeRule,
    /// Paced records (102, 104, 107, 217 of MIT-BIH), which hold nearly all of class Q. Default: `exclude`, as the
    /// standard does for figures. With `ds1_ds2`, `include` puts 102 and 104 into training, 107 and 217 into test.
    /// `lists` takes what it is told.
    pub paced: Paced,
    /// Share of the beats for test, 0 to 1, for `by_patient` and `random_beats`. Default: 0.3.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub test_fraction: f64,
    /// Share of the training side's beats for validation, 0 to 1; whole patients except for `random_beats`. Default:
    /// 0.15.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub validation_fraction: f64,
    /// Training records, for `lists`.
    #[schemars(with = "Vec<String>")]
    pub training_records: Vec<RecordId>,
    /// Validation records, for `lists`; if empty, `validation_fraction` of the training records is held out.
    #[schemars(with = "Vec<String>")]
    pub validation_records: Vec<RecordId>,
    /// Test records, for `lists`.
    #[schemars(with = "Vec<String>")]
    pub test_records: Vec<RecordId>,
    /// What to do about a patient on both sides. Default: `by_strategy`.
    pub on_leak: OnLeak,
    /// What to do about a record that a list names and that is not in the input. Default: `error`.
    pub missing: Missing,
}

/// Who decides the sides of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The lists of de Chazal 2004: DS1 trains, DS2 tests. One patient is on both sides (records 201 and 202).
    Ds1Ds2,
    /// Random whole patients, with every class on both sides where possible.
    ByPatient,
    /// Random beats of every record, each class alike. Every patient is on both sides: the figures say nothing about a
    /// new patient. For comparison only.
    RandomBeats,
    /// The records named in the parameters.
    Lists,
}

/// What to do with paced records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Paced {
    /// Leave them out.
    Exclude,
    /// Let them take part.
    Include,
}

/// What to do about a patient on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLeak {
    /// Refuse for `by_patient` and `lists`, warn for `ds1_ds2` and `random_beats`, which leak by definition.
    ByStrategy,
    /// Fail and name the patients.
    Refuse,
    /// Go on and name the patients in a warning.
    Warn,
}

/// What to do about a named record that is not in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Fail and name the records.
    Error,
    /// Split what is there.
    Skip,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            strategy: Strategy::ByPatient,
            escape_rule: EscapeRule::DeChazal,
            paced: Paced::Exclude,
            test_fraction: 0.3,
            validation_fraction: 0.15,
            training_records: Vec::new(),
            validation_records: Vec::new(),
            test_records: Vec::new(),
            on_leak: OnLeak::ByStrategy,
            missing: Missing::Error,
        }
    }
}

impl Strategy {
    /// The name in parameters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ds1Ds2 => "ds1_ds2",
            Self::ByPatient => "by_patient",
            Self::RandomBeats => "random_beats",
            Self::Lists => "lists",
        }
    }
}

ports! {
    /// What `split` takes.
    pub struct Inputs {
        /// All records' beats with their reference symbols.
        pub beats: All<Beats>,
    }
}

ports! {
    /// What `split` gives.
    pub struct Outputs {
        /// Part and class of every labelled beat.
        pub split: One<kinds::Split>,
    }
}

impl Stage for Split {
    const NAME: &'static str = "split";
    const SUMMARY: &'static str =
        "parts of all labelled beats (training, validation, test), checked for patients on both sides";
    const SEEDED: bool = true;
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        let fraction = |name: &str, value: f64| {
            if (0.0..1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("`{name}` must be at least 0 and below 1, not {value}"))
            }
        };
        fraction("validation_fraction", params.validation_fraction)?;
        fraction("test_fraction", params.test_fraction)?;
        if matches!(params.strategy, Strategy::ByPatient | Strategy::RandomBeats) && params.test_fraction == 0.0 {
            return Err(format!("`test_fraction` must be above 0 for `{}`", params.strategy.as_str()));
        }
        let lists = [
            ("training_records", &params.training_records),
            ("validation_records", &params.validation_records),
            ("test_records", &params.test_records),
        ];
        let mut seen = BTreeMap::new();
        for (name, records) in lists {
            if params.strategy == Strategy::Lists {
                if records.is_empty() && name != "validation_records" {
                    return Err(format!("`{name}` must name at least one record for `lists`"));
                }
                for record in records {
                    if let Some(earlier) = seen.insert(record, name) {
                        return Err(format!("`{name}` names record {record}, which is in `{earlier}` already"));
                    }
                }
            } else if !records.is_empty() {
                return Err(format!("`{name}` is only for `strategy: lists`, not for `{}`", params.strategy.as_str()));
            }
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        facts.pass_only("beats", "split", &[names::BEATS]);
        facts.identify("split", names::SPLIT);
        facts.set_by("split", names::ESCAPE_RULE, params.escape_rule.as_str(), "escape_rule");
        let has_validation = params.validation_fraction > 0.0 || !params.validation_records.is_empty();
        let parts = PARTS.iter().filter(|part| has_validation || **part != Part::Validation);
        facts.set_by("split", names::PARTS, parts.map(|part| part.as_str()).collect::<Vec<_>>(), "validation_fraction");
        if let Some(labels) = facts.get("beats", names::LABELS).filter(|labels| *labels.value == Value::Bool(false)) {
            let message =
                format!("the beats of `{}` have no reference symbols, so that none has a class", facts.from("beats"));
            let problem = FactProblem::error(Place::Port("beats"), message).because(names::LABELS, labels);
            facts.tell(problem.help("connect `annotations` to the stage that finds them"));
        }
        if params.strategy == Strategy::RandomBeats {
            let message = "`random_beats` puts beats of every patient into training and test: the figures say nothing \
                           about a new patient";
            let problem = FactProblem::foretold(Place::Parameter("strategy"), message);
            facts.tell(problem.help("use `by_patient` or `ds1_ds2` for figures that hold for new patients"));
        }
        if let Some(lists) = params.lists() {
            let names_of = |parts: &[Part]| -> Vec<&str> {
                lists
                    .iter()
                    .filter(|(part, _)| parts.contains(part))
                    .flat_map(|(_, records)| records)
                    .copied()
                    .collect()
            };
            let learned = names_of(&[Part::Training, Part::Validation]);
            facts.set_by("split", names::LEARNED_RECORDS, learned, "strategy");
            facts.set_by("split", names::TEST_RECORDS, names_of(&[Part::Test]), "strategy");
            foretell_leaks(params, &lists, facts);
            foretell_missing(params, &lists, facts);
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let records: Vec<(&RecordId, &Beats)> = inputs.beats.iter().collect();
        let result = split(&records, params, cx.seed()?)?;
        result.notes.into_iter().for_each(|note| cx.note(note));
        result.warnings.into_iter().for_each(|warning| cx.warn(warning));
        Ok(Outputs { split: One::new(result.split) })
    }
}

/// The records of each part.
type Lists<'a> = [(Part, BTreeSet<&'a str>); 3];

impl Params {
    /// The records of each part, where the parameters alone decide them.
    fn lists(&self) -> Option<Lists<'_>> {
        fn of(records: &[RecordId]) -> BTreeSet<&str> {
            records.iter().map(RecordId::as_str).collect()
        }
        let [training, validation, test] = match self.strategy {
            Strategy::ByPatient | Strategy::RandomBeats => return None,
            Strategy::Lists => [of(&self.training_records), of(&self.validation_records), of(&self.test_records)],
            Strategy::Ds1Ds2 => {
                let paced = self.paced == Paced::Include;
                let training = presets::DS1.iter().chain(presets::PACED_TRAINING.iter().filter(|_| paced));
                let test = presets::DS2.iter().chain(presets::PACED_TEST.iter().filter(|_| paced));
                [training.copied().collect(), BTreeSet::new(), test.copied().collect()]
            }
        };
        Some([(Part::Training, training), (Part::Validation, validation), (Part::Test, test)])
    }

    /// Whether a patient in more than one part is an error.
    fn refuses_leaks(&self) -> bool {
        match self.on_leak {
            OnLeak::Refuse => true,
            OnLeak::Warn => false,
            OnLeak::ByStrategy => matches!(self.strategy, Strategy::ByPatient | Strategy::Lists),
        }
    }
}

/// Names the patients who will be in more than one part, as far as it is known whose the records are.
fn foretell_leaks(params: &Params, lists: &Lists<'_>, facts: &mut StageFacts<'_>) {
    let mut patients: BTreeMap<&str, Vec<(Part, &str)>> = BTreeMap::new();
    for (record, patient) in facts.by_record("beats", names::PATIENT) {
        let part = lists.iter().find(|(_, records)| records.contains(record)).map(|(part, _)| *part);
        if let (Some(part), Some(patient)) = (part, patient.as_str()) {
            patients.entry(patient).or_default().push((part, record));
        }
    }
    let leaks: Vec<String> = patients
        .into_iter()
        .filter(|(_, records)| records.iter().any(|(part, _)| *part != records[0].0))
        .map(|(patient, records)| {
            let records: Vec<String> =
                records.iter().map(|(part, record)| format!("record {record} in {}", part.as_str())).collect();
            format!("patient {patient} is in more than one part ({})", records.join(", "))
        })
        .collect();
    let Some(shown) = some_of(&leaks) else { return };
    let place = Place::Parameter("strategy");
    let (problem, help) = if params.refuses_leaks() {
        (FactProblem::error(place, shown), LEAK_HELP)
    } else {
        let help = "leave one of the records out at the source, or know that the figures are a little too good";
        (FactProblem::foretold(place, shown), help)
    };
    facts.tell(problem.help(help));
}

/// Names the listed records that the source does not give.
fn foretell_missing(params: &Params, lists: &Lists<'_>, facts: &mut StageFacts<'_>) {
    let Some(given) = facts.list("beats", names::RECORDS) else { return };
    let given: BTreeSet<&str> = given.into_iter().collect();
    let named = lists.iter().flat_map(|(_, records)| records);
    let missing: Vec<String> =
        named.filter(|record| !given.contains(*record)).map(|record| (*record).to_owned()).collect();
    if let (Some(shown), Missing::Error) = (some_of(&missing), params.missing) {
        let message = format!("the split names records that are not in the input: {shown}");
        facts.tell(FactProblem::error(Place::Port("beats"), message).help(MISSING_HELP));
    }
}

const LEAK_HELP: &str =
    "put all records of a patient into one part, or set `on_leak: warn` to accept figures that are too good";
const MISSING_HELP: &str = "give these records to the source stage, or set `missing: skip` to split what is there";

/// A split and what its user should know.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitResult {
    /// The split.
    pub split: kinds::Split,
    /// Counts and what was left out.
    pub notes: Vec<String>,
    /// Leaks, classes and records that are missing.
    pub warnings: Vec<String>,
}

/// Splits the beats of all records. `records` must be sorted by record, as the engine gives them.
///
/// # Errors
/// If a named record is missing, a side would be empty, or a patient would be on both sides against `on_leak`.
pub fn split(records: &[(&RecordId, &Beats)], params: &Params, seed: u64) -> Result<SplitResult, StageError> {
    let malformed = |error: TallyError| StageError::from_error(&error);
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);

    let labelled = Labelled::new(records, params.escape_rule, &mut notes).map_err(malformed)?;
    let allowed = allowed_records(records, params, &mut notes);
    let table = match params.strategy {
        Strategy::RandomBeats => {
            let table = labelled.table.join("record", "allowed", &allowed).map_err(malformed)?;
            random_beats(&table, params, &mut rng).map_err(malformed)?
        }
        Strategy::ByPatient => {
            let sides = random_patients(&labelled, &allowed, params, &mut rng)?;
            let sides = with_validation(&labelled, sides, params.validation_fraction, &mut warnings)?;
            labelled.table.join("record", "part", &sides).map_err(malformed)?
        }
        Strategy::Ds1Ds2 | Strategy::Lists => {
            let lists = params.lists().expect("these strategies have lists");
            let mut sides = listed(records, &lists, params.missing, &mut notes)?;
            if params.validation_records.is_empty() {
                sides = with_validation(&labelled, sides, params.validation_fraction, &mut warnings)?;
            }
            labelled.table.join("record", "part", &sides).map_err(malformed)?
        }
    };

    check_sides(&table, &labelled, params, &mut notes, &mut warnings)?;
    let leaks = leaks(&table, &labelled).map_err(malformed)?;
    report_leaks(&leaks, &labelled, params, &mut warnings)?;
    let rows = labelled.rows(&table).map_err(malformed)?;
    Ok(SplitResult {
        split: kinds::Split { strategy: params.strategy.as_str().to_owned(), leaks, rows },
        notes,
        warnings,
    })
}

/// The labelled beats of all records as one table of codes.
struct Labelled<'a> {
    records: Vec<&'a RecordId>,
    patients: Vec<&'a str>,
    /// Row by row: `record` (place in `records`), `patient` (place in `patients`), `beat` (index in the record),
    /// `class`.
    table: Tally,
}

impl<'a> Labelled<'a> {
    fn new(
        records: &[(&'a RecordId, &'a Beats)],
        rule: EscapeRule,
        notes: &mut Vec<String>,
    ) -> Result<Self, TallyError> {
        let patients: BTreeSet<&str> = records.iter().map(|(_, beats)| beats.patient.as_str()).collect();
        let patients: Vec<&str> = patients.into_iter().collect();
        let (mut record_codes, mut beat_codes, mut class_codes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut unlabelled_n, mut other_n) = (0u64, 0u64);
        for (record_code, (_, beats)) in (0u32..).zip(records) {
            for (beat_code, beat) in (0u32..).zip(&beats.beats) {
                match beat.symbol.as_deref().map(|symbol| rule.class(symbol)) {
                    Some(Some(class)) => {
                        record_codes.push(record_code);
                        beat_codes.push(beat_code);
                        class_codes.push(class.index() as u32);
                    }
                    Some(None) => other_n += 1,
                    None => unlabelled_n += 1,
                }
            }
        }
        if unlabelled_n > 0 {
            notes.push(format!("left out {unlabelled_n} detected beats without a reference beat"));
        }
        if other_n > 0 {
            notes.push(format!("left out {other_n} beats whose symbol is of no AAMI class"));
        }
        let patient_of: Vec<Option<u32>> = records
            .iter()
            .map(|(_, beats)| patients.binary_search(&beats.patient.as_str()).ok().map(|code| code as u32))
            .collect();
        let table = Tally::of_beats(vec![("record", record_codes), ("beat", beat_codes), ("class", class_codes)])?;
        let table = table.join("record", "patient", &patient_of)?;
        Ok(Self { records: records.iter().map(|(record, _)| *record).collect(), patients, table })
    }

    /// Beats of each class of every patient, of the records that have a side.
    fn class_counts(&self, sides: &[Option<u32>]) -> Result<BTreeMap<u32, ClassCounts>, TallyError> {
        let mut counts: BTreeMap<u32, ClassCounts> = BTreeMap::new();
        for ([patient, class], beat_n) in self.table.join("record", "side", sides)?.list(["patient", "class"])? {
            counts.entry(patient).or_default()[class as usize] = beat_n;
        }
        Ok(counts)
    }

    /// The patient of every record that has a labelled beat.
    fn patient_of_record(&self) -> Result<BTreeMap<u32, u32>, TallyError> {
        Ok(self
            .table
            .list(["record", "patient"])?
            .into_iter()
            .map(|([record, patient], _)| (record, patient))
            .collect())
    }

    fn rows(&self, table: &Tally) -> Result<Vec<SplitRow>, TallyError> {
        let codes = ["record", "patient", "beat", "class", "part"].map(|key| table.codes(key));
        let [records, patients, beats, classes, parts] = codes;
        let (records, patients, beats, classes, parts) = (records?, patients?, beats?, classes?, parts?);
        let mut rows: Vec<SplitRow> = (0..records.len())
            .map(|row| SplitRow {
                record: self.records[records[row] as usize].clone(),
                patient: self.patients[patients[row] as usize].to_owned(),
                beat_idx: i64::from(beats[row]),
                class: AamiClass::ALL[classes[row] as usize].letter().to_owned(),
                part: PARTS[parts[row] as usize],
            })
            .collect();
        rows.sort_by(|a, b| (&a.record, a.beat_idx).cmp(&(&b.record, b.beat_idx)));
        Ok(rows)
    }
}

/// Parts by code.
const PARTS: [Part; 3] = [Part::Training, Part::Validation, Part::Test];
const TRAINING: u32 = 0;
const VALIDATION: u32 = 1;
const TEST: u32 = 2;

/// Code 0 for every record that may take part in a strategy without lists.
fn allowed_records(records: &[(&RecordId, &Beats)], params: &Params, notes: &mut Vec<String>) -> Vec<Option<u32>> {
    let left_out = |record: &RecordId| params.paced == Paced::Exclude && PACED_RECORDS.contains(&record.as_str());
    let paced: Vec<&str> =
        records.iter().map(|(record, _)| record.as_str()).filter(|name| PACED_RECORDS.contains(name)).collect();
    if params.paced == Paced::Exclude && params.strategy != Strategy::Lists && !paced.is_empty() {
        notes.push(format!("left out paced records {}", paced.join(", ")));
    }
    records.iter().map(|(record, _)| (!left_out(record)).then_some(0)).collect()
}

/// The side of every record by lists of names; records that no list names have none.
fn listed(
    records: &[(&RecordId, &Beats)],
    lists: &[(Part, BTreeSet<&str>)],
    missing: Missing,
    notes: &mut Vec<String>,
) -> Result<Vec<Option<u32>>, StageError> {
    let given: BTreeSet<&str> = records.iter().map(|(record, _)| record.as_str()).collect();
    let named: BTreeSet<&str> = lists.iter().flat_map(|(_, names)| names).copied().collect();
    let absent: Vec<&str> = named.difference(&given).copied().collect();
    if !absent.is_empty() {
        let message =
            format!("{} of {} records are not in the input: {}", absent.len(), named.len(), absent.join(", "));
        match missing {
            Missing::Error => {
                return Err(StageError::new(message).help(MISSING_HELP));
            }
            Missing::Skip => notes.push(message),
        }
    }
    let unnamed: Vec<&str> = given.difference(&named).copied().filter(|name| !PACED_RECORDS.contains(name)).collect();
    if !unnamed.is_empty() {
        notes.push(format!("left out {} records that no list names: {}", unnamed.len(), unnamed.join(", ")));
    }
    let part_of = |record: &RecordId| {
        let part = lists.iter().find(|(_, names)| names.contains(record.as_str())).map(|(part, _)| *part)?;
        PARTS.iter().position(|known| *known == part).map(|code| code as u32)
    };
    Ok(records.iter().map(|(record, _)| part_of(record)).collect())
}

/// Puts random patients of the allowed records on the test side.
fn random_patients(
    labelled: &Labelled<'_>,
    allowed: &[Option<u32>],
    params: &Params,
    rng: &mut Xoshiro256PlusPlus,
) -> Result<Vec<Option<u32>>, StageError> {
    let malformed = |error: TallyError| StageError::from_error(&error);
    let counts = labelled.class_counts(allowed).map_err(malformed)?;
    if counts.len() < 2 {
        let message = format!("`by_patient` needs at least 2 patients with labelled beats, found {}", counts.len());
        return Err(
            StageError::new(message).help("use more records, or `strategy: random_beats` to try a pipeline out")
        );
    }
    let held = hold_out::random(&counts.values().copied().collect::<Vec<_>>(), params.test_fraction, rng);
    let side: BTreeMap<u32, u32> =
        counts.keys().copied().zip(held.iter().map(|held| if *held { TEST } else { TRAINING })).collect();
    let patients = labelled.patient_of_record().map_err(malformed)?;
    let sides = allowed
        .iter()
        .enumerate()
        .map(|(record, allowed)| allowed.and_then(|_| side.get(patients.get(&(record as u32))?).copied()));
    Ok(sides.collect())
}

/// Moves whole patients of the training side to validation.
fn with_validation(
    labelled: &Labelled<'_>,
    mut sides: Vec<Option<u32>>,
    fraction: f64,
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<u32>>, StageError> {
    let malformed = |error: TallyError| StageError::from_error(&error);
    let training: Vec<Option<u32>> = sides.iter().map(|side| side.filter(|side| *side == TRAINING)).collect();
    let counts = labelled.class_counts(&training).map_err(malformed)?;
    let held = hold_out::balanced(&counts.values().copied().collect::<Vec<_>>(), fraction);
    if fraction > 0.0 && counts.len() < 2 {
        warnings.push("there is no validation part: it takes at least 2 patients on the training side".to_owned());
    }
    let held: BTreeSet<u32> =
        counts.keys().copied().zip(held).filter(|(_, held)| *held).map(|(patient, _)| patient).collect();
    let patients = labelled.patient_of_record().map_err(malformed)?;
    for (record, side) in (0u32..).zip(&mut sides) {
        if *side == Some(TRAINING) && patients.get(&record).is_some_and(|patient| held.contains(patient)) {
            *side = Some(VALIDATION);
        }
    }
    Ok(sides)
}

/// Deals the beats of each class at random.
fn random_beats(table: &Tally, params: &Params, rng: &mut Xoshiro256PlusPlus) -> Result<Tally, TallyError> {
    let classes = table.codes("class")?;
    let mut parts: Vec<Option<u32>> = vec![Some(TRAINING); classes.len()];
    for class in 0..AamiClass::ALL.len() as u32 {
        let mut rows: Vec<usize> = (0..classes.len()).filter(|row| classes[*row] == class).collect();
        rows.shuffle(rng);
        let test_n = (rows.len() as f64 * params.test_fraction).round() as usize;
        let validation_n = ((rows.len() - test_n) as f64 * params.validation_fraction).round() as usize;
        rows[..test_n].iter().for_each(|row| parts[*row] = Some(TEST));
        rows[test_n..test_n + validation_n].iter().for_each(|row| parts[*row] = Some(VALIDATION));
    }
    let keys = ["record", "beat", "class", "patient"];
    let columns = keys.iter().map(|key| Ok((*key, table.codes(key)?))).collect::<Result<Vec<_>, TallyError>>()?;
    let rows = (0..classes.len() as u32).collect();
    Tally::of_beats(columns.into_iter().chain([("row", rows)]).collect())?.join("row", "part", &parts)
}

/// Counts every part and refuses an empty side.
fn check_sides(
    table: &Tally,
    labelled: &Labelled<'_>,
    params: &Params,
    notes: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), StageError> {
    let malformed = |error: TallyError| StageError::from_error(&error);
    let mut counts = [[0i64; 5]; 3];
    for ([part, class], beat_n) in table.list(["part", "class"]).map_err(malformed)? {
        counts[part as usize][class as usize] = beat_n;
    }
    let mut records: [BTreeSet<&str>; 3] = Default::default();
    for ([part, record], _) in table.list(["part", "record"]).map_err(malformed)? {
        records[part as usize].insert(labelled.records[record as usize].as_str());
    }
    for (code, part) in PARTS.iter().enumerate() {
        let beat_n: i64 = counts[code].iter().sum();
        if beat_n == 0 && *part != Part::Validation {
            let message =
                format!("no labelled beat is left for {} under `{}`", part.as_str(), params.strategy.as_str());
            return Err(
                StageError::new(message).help("check that the records have reference annotations with beat symbols")
            );
        }
        let classes = AamiClass::ALL.map(|class| format!("{class} {}", counts[code][class.index()]));
        notes.push(format!(
            "{}: {} records, {beat_n} beats ({})",
            part.as_str(),
            records[code].len(),
            classes.join(", ")
        ));
        if *part == Part::Validation && beat_n > 0 {
            let names: Vec<&str> = records[code].iter().copied().collect();
            if params.strategy != Strategy::RandomBeats {
                notes.push(format!("validation records: {}", names.join(", ")));
            }
        }
    }
    for class in AamiClass::ALL {
        let on = |part: u32| counts[part as usize][class.index()];
        let lacking = match (on(TRAINING), on(TEST)) {
            (0, 1..) => "training",
            (1.., 0) => "test",
            _ => continue,
        };
        warnings.push(format!("class {class} ({}) has no beat in {lacking}", class.name()));
    }
    Ok(())
}

/// Patients in more than one part.
fn leaks(table: &Tally, labelled: &Labelled<'_>) -> Result<Vec<Leak>, TallyError> {
    let mut patients: BTreeMap<u32, BTreeMap<RecordId, Vec<Part>>> = BTreeMap::new();
    for ([patient, record, part], _) in table.list(["patient", "record", "part"])? {
        let record = labelled.records[record as usize].clone();
        patients.entry(patient).or_default().entry(record).or_default().push(PARTS[part as usize]);
    }
    let leaks =
        patients.into_iter().filter(|(_, records)| records.values().flatten().collect::<BTreeSet<_>>().len() > 1);
    Ok(leaks
        .map(|(patient, records)| Leak { patient: labelled.patients[patient as usize].to_owned(), records })
        .collect())
}

fn report_leaks(
    leaks: &[Leak],
    labelled: &Labelled<'_>,
    params: &Params,
    warnings: &mut Vec<String>,
) -> Result<(), StageError> {
    if leaks.is_empty() {
        return Ok(());
    }
    let describe = |leak: &Leak| {
        let parts = |parts: &[Part]| parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join(" and ");
        let records: Vec<String> =
            leak.records.iter().map(|(record, places)| format!("record {record} in {}", parts(places))).collect();
        format!("patient {} is in more than one part ({})", leak.patient, records.join(", "))
    };
    let text = if params.strategy == Strategy::RandomBeats {
        format!(
            "`random_beats` puts beats of {} of {} patients into more than one part: the figures say nothing about a new patient",
            leaks.len(),
            labelled.patients.len()
        )
    } else {
        leaks.iter().map(describe).collect::<Vec<_>>().join("; ")
    };
    if params.refuses_leaks() {
        return Err(StageError::new(text).help(LEAK_HELP));
    }
    warnings.push(text);
    Ok(())
}

#[cfg(test)]
mod tests;
