//! `cross_validate`: trains `train_cnn` once for each fold of the training records, each time without the records of that
//! fold, so that choices can be made, and probabilities calibrated, on beats of patients that no model has seen, while the
//! test records stay untouched.
//!
//! Whole patients go into a fold: a model that has seen a patient says nothing about a new one. Beats of the validation
//! part stay what they are (they choose the epoch) and are in no fold.
//!
//! Invariants: every training patient is in exactly one fold (`tests::every_patient_is_held_out_once`); with the same
//! parameters the models differ from the one of `train_cnn` by the records held out alone.

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{
    All, Context, FactProblem, Features, Fold, FoldModels, Metrics, NormalisedWindows, One, Part, Place, RecordId,
    Split, Stage, StageError, StageFacts, derived_seed, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::AamiClass,
    agreement::{some_of, training_facts},
    hold_out::{ClassCounts, deal},
    model_artifact::to_artifact,
    saved_trainings::SavedTrainings,
    train_cnn::{self, Given, TrainCnn, Turn, fit},
};

/// Trains a network for each fold of the training records.
pub struct CrossValidate;

/// Which folds, and how to train.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Number of folds, if `folds` names none: patients are dealt so that every fold has its share of the beats and of
    /// each class, as far as patients allow. Default: 5.
    #[schemars(range(min = 2, max = 100))]
    pub folds_n: usize,
    /// Records of each fold, by name. Training records that no fold names train every model; records that do not train
    /// are refused.
    #[schemars(with = "Vec<Vec<String>>")]
    pub folds: Vec<Vec<RecordId>>,
    /// Parameters of `train_cnn`: those of the model that is to be judged (in YAML, an anchor keeps them one).
    pub train: train_cnn::Params,
}

impl Default for Params {
    fn default() -> Self {
        Self { folds_n: 5, folds: Vec::new(), train: train_cnn::Params::default() }
    }
}

ports! {
    /// What `cross_validate` takes: what `train_cnn` takes.
    pub struct Inputs {
        /// Windows of all records.
        pub windows: All<NormalisedWindows>,
        /// Features of all records; the network uses them where they are known.
        pub features: Option<All<Features>>,
        /// Changed copies of the records' features, of `augment`.
        pub copies: Option<All<Features>>,
        /// Beats that were made fusion beats, of `augment`.
        pub fusions: Option<All<Features>>,
        /// The training part is what is dealt into folds; the test part is not looked at.
        pub split: One<Split>,
    }
}

ports! {
    /// What `cross_validate` gives.
    pub struct Outputs {
        /// A model for each fold; `predict_held_out` lets each judge the records that it has not seen.
        pub models: One<FoldModels>,
        /// Loss and scores per epoch of each fold, as `cv/fold_1/train/loss`.
        pub metrics: One<Metrics>,
    }
}

impl Stage for CrossValidate {
    const NAME: &'static str = "cross_validate";
    const SUMMARY: &'static str =
        "trains the network once for each fold of the training patients, without the patients of that fold";
    const SEEDED: bool = true;
    const EXCLUSIVE: bool = true;
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(2..=100).contains(&params.folds_n) {
            return Err(format!("`folds_n` must be 2 to 100, not {}", params.folds_n));
        }
        if params.folds.len() == 1 {
            return Err("`folds` must name the records of at least 2 folds, or none".to_owned());
        }
        let mut seen = BTreeSet::new();
        for (place, records) in params.folds.iter().enumerate() {
            if records.is_empty() {
                return Err(format!("fold {} of `folds` names no record", place + 1));
            }
            if let Some(twice) = records.iter().find(|record| !seen.insert(*record)) {
                return Err(format!("`folds` names record {twice} twice"));
            }
        }
        TrainCnn::check(&params.train).map_err(|error| format!("`train`: {error}"))
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        training_facts(facts, "models");
        train_cnn::check_inputs(&params.train, facts, Place::Parameter("train"));
        if let Some(known) = facts.list("split", names::LEARNED_RECORDS) {
            let named = params.folds.iter().flatten().map(RecordId::as_str);
            let unknown: Vec<String> = named.filter(|record| !known.contains(record)).map(str::to_owned).collect();
            if let Some(shown) = some_of(&unknown) {
                let message = format!("`folds` names records that do not train: {shown}");
                let problem = FactProblem::error(Place::Parameter("folds"), message).help("take them out of `folds`");
                let fact = facts.get("split", names::LEARNED_RECORDS).expect("its list is known");
                facts.tell(problem.because(names::LEARNED_RECORDS, fact));
            }
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let folds = match params.folds.is_empty() {
            true => dealt(&inputs.split, params.folds_n)?,
            false => named(&inputs.split, &params.folds)?,
        };
        let (mut models, mut metrics) = (Vec::new(), Metrics::default());
        let (mut saved, fold_n) = (SavedTrainings::load(cx), folds.len());
        for (idx, held_out) in folds.into_iter().enumerate() {
            let place = idx as u64 + 1;
            let names: Vec<&str> = held_out.iter().map(RecordId::as_str).collect();
            cx.note(format!("fold {place}: {} held out", names.join(", ")));
            let split = without(&inputs.split, &held_out);
            let given = Given {
                windows: &inputs.windows,
                features: inputs.features.as_ref(),
                copies: inputs.copies.as_ref(),
                fusions: inputs.fusions.as_ref(),
                split: &split,
            };
            let prefix = format!("cv/fold_{place}/");
            let turn = Turn { idx, turn_n: fold_n, seed: derived_seed(cx.seed()?, place), prefix };
            let model = fit(&params.train, &given, &turn, &mut saved, &mut metrics, cx)?;
            models.push(Fold { held_out: held_out.into_iter().collect(), model: to_artifact(&model)? });
        }
        Ok(Outputs { models: One::new(FoldModels { folds: models }), metrics: One::new(metrics) })
    }
}

/// Patients and records of the training part.
fn training_patients(split: &Split) -> BTreeMap<&str, (BTreeSet<RecordId>, ClassCounts)> {
    let mut patients: BTreeMap<&str, (BTreeSet<RecordId>, ClassCounts)> = BTreeMap::new();
    for row in split.rows.iter().filter(|row| row.part == Part::Training) {
        let (records, counts) = patients.entry(&row.patient).or_default();
        if !records.contains(&row.record) {
            records.insert(row.record.clone());
        }
        if let Some(class) = AamiClass::from_letter(&row.class) {
            counts[class.index()] += 1;
        }
    }
    patients
}

/// Patients dealt into folds.
fn dealt(split: &Split, fold_n: usize) -> Result<Vec<BTreeSet<RecordId>>, StageError> {
    let patients = training_patients(split);
    if patients.len() < fold_n {
        let message = format!("{} patients cannot be dealt into {fold_n} folds", patients.len());
        return Err(StageError::new(message).help("lower `folds_n`, or let more patients train"));
    }
    let counts: Vec<ClassCounts> = patients.values().map(|(_, counts)| *counts).collect();
    let mut folds = vec![BTreeSet::new(); fold_n];
    for ((records, _), fold) in patients.into_values().zip(deal(&counts, fold_n)) {
        folds[fold].extend(records);
    }
    Ok(folds)
}

/// Folds as they are named, checked: all train, and no patient is in two of them or in one and beside them.
fn named(split: &Split, folds: &[Vec<RecordId>]) -> Result<Vec<BTreeSet<RecordId>>, StageError> {
    let fold_of = |record: &RecordId| folds.iter().position(|fold| fold.contains(record));
    let patients = training_patients(split);
    for (patient, (records, _)) in &patients {
        let places: BTreeSet<Option<usize>> = records.iter().map(fold_of).collect();
        if places.len() > 1 {
            let records: Vec<&str> = records.iter().map(RecordId::as_str).collect();
            let message = format!("records {} are of one patient, {patient}, but not in one fold", records.join(", "));
            return Err(StageError::new(message).help("name them in one fold of `folds`"));
        }
    }
    let is_training = |record: &RecordId| patients.values().any(|(records, _)| records.contains(record));
    if let Some(record) = folds.iter().flatten().find(|record| !is_training(record)) {
        let message = "`folds` names it, but none of its beats is in the training part";
        return Err(StageError::new(message).record(record).help("take it out of `folds`"));
    }
    Ok(folds.iter().map(|fold| fold.iter().cloned().collect()).collect())
}

/// The split as one fold's model sees it: beats of the records held out are in no part, nor is the test part.
fn without(split: &Split, held_out: &BTreeSet<RecordId>) -> Split {
    let stays = |part: Part, record: &RecordId| part != Part::Test && !held_out.contains(record);
    let rows = split.rows.iter().filter(|row| stays(row.part, &row.record)).cloned().collect();
    Split { rows, leaks: Vec::new(), strategy: split.strategy.clone() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use ecgpipe_sdk::{Checkpoints, SplitRow, StageEvent, Windows};

    use super::*;

    fn record(name: &str) -> RecordId {
        RecordId::new(name).unwrap()
    }

    /// Ten training patients of 20 beats each, the last two V in the even ones, the first with two records; one test patient.
    fn split() -> Split {
        let mut rows = Vec::new();
        for patient in 0..10 {
            for beat_idx in 0..20 {
                let name = if patient == 0 && beat_idx >= 10 { "p0b".to_owned() } else { format!("p{patient}") };
                let class = if beat_idx >= 18 && patient % 2 == 0 { "V" } else { "N" };
                let (class, patient) = (class.to_owned(), format!("p{patient}"));
                rows.push(SplitRow { record: record(&name), patient, beat_idx, class, part: Part::Training });
            }
        }
        let (class, patient) = ("N".to_owned(), "t".to_owned());
        rows.push(SplitRow { record: record("t"), patient, beat_idx: 0, class, part: Part::Test });
        Split { strategy: "lists".to_owned(), leaks: Vec::new(), rows }
    }

    #[test]
    fn every_patient_is_held_out_once() {
        let folds = dealt(&split(), 5).unwrap();
        let all: Vec<&RecordId> = folds.iter().flatten().collect();
        assert_eq!(all.len(), 11, "ten patients, one of two records");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 11);
        assert!(!all.contains(&&record("t")));
        let with_both = folds.iter().filter(|fold| fold.contains(&record("p0"))).collect::<Vec<_>>();
        assert!(with_both.len() == 1 && with_both[0].contains(&record("p0b")));
        for fold in &folds {
            let is_even = |record: &RecordId| "02468".contains(&record.as_str()[1..2]);
            assert!(fold.iter().any(is_even), "every fold has V beats: {folds:?}");
        }
        let error = dealt(&split(), 11).unwrap_err().to_string();
        assert_eq!(error, "10 patients cannot be dealt into 11 folds");
    }

    #[test]
    fn named_folds_are_checked() {
        let folds = |names: &[&[&str]]| -> Vec<Vec<RecordId>> {
            names.iter().map(|fold| fold.iter().map(|name| record(name)).collect()).collect()
        };
        let check = |names| named(&split(), &folds(names)).map_err(|error| error.to_string());
        assert_eq!(check(&[&["p1"], &["p2", "p3"]]).unwrap()[1], BTreeSet::from([record("p2"), record("p3")]));
        let error = check(&[&["p0"], &["p0b"]]).unwrap_err();
        assert_eq!(error, "records p0, p0b are of one patient, p0, but not in one fold");
        assert!(check(&[&["p0"], &["p1"]]).unwrap_err().contains("one patient, p0"));
        let error = check(&[&["t"], &["p1"]]).unwrap_err();
        assert_eq!(error, "record t: `folds` names it, but none of its beats is in the training part");
    }

    #[test]
    fn a_fold_sees_neither_its_records_nor_the_test() {
        let left = without(&split(), &BTreeSet::from([record("p0"), record("p0b"), record("p7")]));
        let records: BTreeSet<&str> = left.rows.iter().map(|row| row.record.as_str()).collect();
        assert_eq!(records, BTreeSet::from(["p1", "p2", "p3", "p4", "p5", "p6", "p8", "p9"]));
        assert!(left.rows.iter().all(|row| row.part == Part::Training));
    }

    #[test]
    fn parameters_are_checked() {
        assert_eq!(CrossValidate::check(&Params::default()), Ok(()));
        let check = |params| CrossValidate::check(&params).unwrap_err();
        assert_eq!(check(Params { folds_n: 1, ..Params::default() }), "`folds_n` must be 2 to 100, not 1");
        let twice = vec![vec![record("a")], vec![record("b"), record("a")]];
        assert_eq!(check(Params { folds: twice, ..Params::default() }), "`folds` names record a twice");
        let train = train_cnn::Params { epochs: 0, ..train_cnn::Params::default() };
        assert!(check(Params { train, ..Params::default() }).starts_with("`train`: "));
    }

    /// A checkpoint in memory.
    #[derive(Default)]
    struct Memory(Mutex<Option<Vec<u8>>>);

    impl Checkpoints for Memory {
        fn load(&self) -> Option<Vec<u8>> {
            self.0.lock().unwrap().clone()
        }

        fn save(&self, bytes: &[u8]) -> bool {
            *self.0.lock().unwrap() = Some(bytes.to_owned());
            true
        }
    }

    /// Windows of the beats of [`split`], those of V beats turned upside down.
    fn windows() -> All<NormalisedWindows> {
        let mut records: BTreeMap<RecordId, NormalisedWindows> = BTreeMap::new();
        for row in split().rows {
            let normalised = records.entry(row.record.clone()).or_insert_with(|| NormalisedWindows {
                windows: Windows {
                    record: row.record.clone(),
                    patient: row.patient.clone(),
                    lead: "MLII".to_owned(),
                    sampling_frequency_hz: 360.0,
                    length_n: 187,
                    before_n: 93,
                    beat_idx: Vec::new(),
                    sample_idx: Vec::new(),
                    symbol: Vec::new(),
                    samples: Vec::new(),
                },
                minimum_mv: Vec::new(),
                range_mv: Vec::new(),
                record_range_mv: 1.0,
            });
            let wave = |idx: i64| 0.5 + 0.5 * ((idx + 7 * row.beat_idx) as f32 / 9.0).sin();
            normalised.windows.beat_idx.push(row.beat_idx);
            let turned = row.class == "V";
            let samples = (0..187).map(|idx| if turned { 1.0 - wave(idx) } else { wave(idx) });
            normalised.windows.samples.extend(samples);
        }
        All::new(records.into_iter().map(|(record, windows)| (record, Arc::new(windows))).collect())
    }

    const EPOCH_N: usize = 2;
    const FOLD_N: usize = 3;

    /// A run of the stage that is asked to stop at its n-th event; the events are counted, the epochs told in words.
    fn run_until(stop_at: Option<usize>, memory: Option<&Memory>) -> (Result<Outputs, StageError>, Vec<StageEvent>) {
        let train = train_cnn::Params {
            epochs: EPOCH_N,
            batch_n: 100,
            hidden_n: 8,
            fused_n: 8,
            require_every_class: false,
            ..train_cnn::Params::default()
        };
        let params = Params { folds_n: FOLD_N, folds: Vec::new(), train };
        let inputs =
            Inputs { windows: windows(), features: None, copies: None, fusions: None, split: One::new(split()) };
        let (cancel, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let heard_n = AtomicUsize::new(0);
        let hear = |event: StageEvent| {
            if Some(heard_n.fetch_add(1, Ordering::Relaxed)) == stop_at {
                cancel.store(true, Ordering::Relaxed);
            }
            // How often work within an epoch is told depends on the clock.
            if !matches!(&event, StageEvent::Progress { unit, .. } if unit == "steps") {
                events.lock().unwrap().push(event);
            }
        };
        let memory = memory.map(|memory| memory as &dyn Checkpoints);
        let cx = Context::new(&cancel, &hear).with_seed(Some(7)).with_threads(2).with_checkpoints(memory);
        let outputs = CrossValidate::run(&params, inputs, &cx);
        (outputs, events.into_inner().unwrap())
    }

    /// Every event of the n-th epoch of all.
    fn epochs(events: &[StageEvent]) -> Vec<u64> {
        let done = |event: &StageEvent| match event {
            StageEvent::Progress { done, .. } => Some(*done),
            _ => None,
        };
        events.iter().filter_map(done).collect()
    }

    #[test]
    fn trainings_that_were_stopped_anywhere_give_the_same_models() {
        let (whole, told) = run_until(None, None);
        let whole = whole.unwrap();
        let metrics = |events: &[StageEvent]| {
            let mut points: Vec<String> = Vec::new();
            for event in events {
                if let StageEvent::Metric(point) = event {
                    points.push(format!("{} {} {:016x}", point.key, point.step, point.value.to_bits()));
                }
            }
            points
        };
        assert_eq!(epochs(&told), [0, 1, 2, 2, 3, 4, 4, 5, 6], "three folds, each from its beginning to its end");
        for stop_at in 0..told.len() {
            let memory = Memory::default();
            let (stopped, first) = run_until(Some(stop_at), Some(&memory));
            let (resumed, second) = run_until(None, Some(&memory));
            let resumed = resumed.unwrap();
            let bits = |outputs: &Outputs| {
                let tensors = outputs.models.folds.iter().flat_map(|fold| fold.model.tensors.values());
                tensors.flat_map(|tensor| tensor.values.iter().map(|value| value.to_bits())).collect::<Vec<_>>()
            };
            assert_eq!(bits(&whole), bits(&resumed), "stopped at event {stop_at}");
            assert_eq!(*whole.models, *resumed.models, "stopped at event {stop_at}");
            assert_eq!(*whole.metrics, *resumed.metrics, "stopped at event {stop_at}");
            assert_eq!(metrics(&told), metrics(&second), "a tracker hears of every epoch, stopped at event {stop_at}");
            let Err(error) = stopped else { continue };
            assert!(error.cancelled, "{error}");
            let last = epochs(&first).last().copied().unwrap_or(0);
            let StageEvent::Note(farewell) = first.last().unwrap() else { panic!("{first:?}") };
            let next = match last {
                0 => "the next run begins anew".to_owned(),
                2 | 4 => format!("the next run goes on after training {}", last / 2),
                _ => "the next run goes on after epoch 1".to_owned(),
            };
            assert!(farewell.starts_with("stopped in epoch ") && farewell.ends_with(&next), "{farewell}, not {next}");
            // What was finished is told once, as found, and never trained: the count goes on from there.
            let (found, trained) = epochs(&second).into_iter().partition::<Vec<_>, _>(|done| *done <= last);
            assert!(found.contains(&last) && trained.contains(&6), "{found:?}, {trained:?}");
            let goes_on = |event: &&StageEvent| matches!(event, StageEvent::Note(text) if text.starts_with("goes on"));
            assert_eq!(second.iter().filter(goes_on).count(), last.div_ceil(2) as usize, "stopped at event {stop_at}");
        }
    }
}
