//! Tests of `evaluate` on hand-made records.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ecgpipe_sdk::{
    Kind,
    kinds::{Beat, PeakSource},
};
use expect_test::{Expect, expect};

use super::*;

/// A made-up database: one record a line, `name part beats missed`, where `beats` lists reference symbol and predicted
/// class of each beat (`.` for no reference, `-` for no prediction) and `missed` lists symbols. One beat a second.
struct Database {
    predictions: BTreeMap<RecordId, Predictions>,
    beats: BTreeMap<RecordId, Beats>,
    split: Split,
}

fn database(lines: &[&str]) -> Database {
    let mut made = Database {
        predictions: BTreeMap::new(),
        beats: BTreeMap::new(),
        split: Split { strategy: "lists".to_owned(), leaks: Vec::new(), rows: Vec::new() },
    };
    for line in lines {
        let [name, part, pairs, missed] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let record = RecordId::new(name).unwrap();
        let part =
            [Part::Training, Part::Validation, Part::Test].into_iter().find(|known| known.as_str() == part).unwrap();
        let symbol = |symbol: char| (symbol != '.').then(|| symbol.to_string());
        let pairs: Vec<(Option<String>, char)> =
            pairs.as_bytes().chunks(2).map(|pair| (symbol(pair[0].into()), pair[1].into())).collect();
        let beat = |(place, symbol): (usize, Option<String>)| Beat { sample_idx: 100 * place as i64, symbol };
        let beats = Beats {
            record: record.clone(),
            patient: name.to_owned(),
            sampling_frequency_hz: 100.0,
            sample_n: 100_000,
            source: PeakSource::Detected,
            beats: pairs.iter().map(|(symbol, _)| symbol.clone()).enumerate().map(beat).collect(),
            missed: missed.chars().filter(|symbol| *symbol != '-').map(symbol).enumerate().map(beat).collect(),
        };
        let labelled = (0..).zip(&pairs).filter_map(|(beat_idx, (symbol, _))| {
            let class = EscapeRule::DeChazal.class(symbol.as_deref()?)?;
            let class = class.letter().to_owned();
            Some(SplitRow { record: record.clone(), patient: name.to_owned(), beat_idx, class, part })
        });
        made.split.rows.extend(labelled);
        let predicted: Vec<(i64, char)> = (0..)
            .zip(&pairs)
            .filter(|(_, (_, class))| *class != '-')
            .map(|(beat_idx, (_, class))| (beat_idx, *class))
            .collect();
        let classes = ["N", "S", "V", "F", "Q"];
        let predictions = Predictions {
            record: record.clone(),
            patient: name.to_owned(),
            classes: classes.map(str::to_owned).to_vec(),
            beat_idx: predicted.iter().map(|(beat_idx, _)| *beat_idx).collect(),
            sample_idx: predicted.iter().map(|(beat_idx, _)| 100 * beat_idx).collect(),
            symbol: predicted.iter().map(|(beat_idx, _)| pairs[*beat_idx as usize].0.clone()).collect(),
            probabilities: predicted
                .iter()
                .flat_map(|(_, class)| classes.map(|known| if known == class.to_string() { 0.6 } else { 0.1 }))
                .collect(),
        };
        made.predictions.insert(record.clone(), predictions);
        made.beats.insert(record, beats);
    }
    made
}

impl Database {
    fn evaluate(&self, params: &Params) -> Result<Evaluation, StageError> {
        evaluate(&self.predictions.iter().collect(), &self.beats.iter().collect(), &self.split, params)
    }
}

/// Two records by hand. `a`: N as N twice, N as V, S as S, e as S, V missed by the detector, an extra detection taken
/// for V. `b`: V as V twice, F as V, V without a prediction.
const SMALL: [&str; 2] = ["a test NNNNNVSSeS.V V", "b test VVVVFVV- -"];

fn metrics(lines: &[&str], params: &Params) -> BTreeMap<String, f64> {
    let metrics = database(lines).evaluate(params).unwrap().metrics(params);
    metrics.points.into_iter().map(|point| (point.key, point.value)).collect()
}

#[test]
fn figures_of_a_case_by_hand() {
    let found = metrics(&SMALL, &Params::default());
    let close = |key: &str, expected: f64| assert!((found[key] - expected).abs() < 1e-12, "{key} is {}", found[key]);
    // Reference: N 4 (with e), S 1, V 4 (one missed, one without a prediction), F 1. Right: N 2, S 1, V 2.
    close("test/beats_n", 10.0);
    close("test/missed_n", 2.0);
    close("test/extra_n", 1.0);
    close("test/accuracy", 5.0 / 10.0);
    close("test/se_n", 2.0 / 4.0);
    close("test/ppv_n", 1.0);
    close("test/f1_n", 4.0 / 6.0);
    close("test/ppv_s", 1.0 / 2.0);
    close("test/f1_s", 2.0 / 3.0);
    // Taken for V: two V, one N, one F and the extra detection.
    close("test/se_v", 2.0 / 4.0);
    close("test/ppv_v", 2.0 / 5.0);
    close("test/f1_v", 4.0 / 9.0);
    close("test/ec57_ppv_v", 2.0 / 4.0);
    close("test/f1_f", 0.0);
    close("test/macro_f1_nsv", (4.0 / 6.0 + 2.0 / 3.0 + 4.0 / 9.0) / 3.0);
    close("test/macro_f1_nsvf", (4.0 / 6.0 + 2.0 / 3.0 + 4.0 / 9.0) / 4.0);
    // Record a has one V (missed): 0 of 1; record b has two of three.
    close("test/average_se_v", (0.0 + 2.0 / 3.0) / 2.0);
    close("test/average_accuracy", (3.0 / 6.0 + 2.0 / 4.0) / 2.0);
    // Under `ec57` the escape beat is S, and it was taken for S.
    close("test_ec57/accuracy", 6.0 / 10.0);
    close("test_ec57/f1_s", 1.0);
}

#[test]
fn ratios_of_nothing_are_left_out() {
    let found = metrics(&SMALL, &Params::default());
    for absent in ["test/se_q", "test/ppv_f", "test/f1_q", "test/macro_f1", "test/ppv_q"] {
        assert!(!found.contains_key(absent), "{absent}");
    }
    assert!(found.values().all(|value| value.is_finite()));
    let allowed = |key: &str| key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-./ ".contains(letter));
    assert!(found.keys().all(|key| allowed(key)), "names that MLflow takes");
}

#[test]
fn views_leave_out_records_and_early_beats() {
    let lines = ["102 test /QNN -", "232 test SSSSSN -", "100 test NNNNNV -"];
    let accuracy = |key: &str, params: &Params| metrics(&lines, params)[key];
    let params = Params { learning_period_s: 2.0, ..Params::default() };
    assert_eq!(accuracy("test_all/accuracy", &params), 6.0 / 8.0);
    assert_eq!(accuracy("test/accuracy", &params), 4.0 / 6.0);
    assert_eq!(accuracy("test_without_dominating/accuracy", &params), 2.0 / 3.0);
    assert_eq!(accuracy("test_after_learning_period/accuracy", &params), 0.0);
    let paced = Params { view: View::All, ..params };
    assert_eq!(accuracy("test/accuracy", &paced), 6.0 / 8.0);
    assert_eq!(accuracy("test_aami/accuracy", &paced), 4.0 / 6.0);
}

#[test]
fn only_the_parts_asked_for_count() {
    let lines = ["a test NNVV -", "b training NV -", "c validation NN. V"];
    let found = metrics(&lines[..2], &Params::default());
    assert_eq!(found["test/beats_n"], 2.0);
    assert!(!found.keys().any(|key| key.starts_with("training")));
    let params = Params { parts: vec![Part::Test, Part::Training], ..Params::default() };
    let found = metrics(&lines[..2], &params);
    assert_eq!((found["test/accuracy"], found["training/accuracy"]), (1.0, 0.0));
    let confusion = database(&lines[..2]).evaluate(&params).unwrap().confusion();
    assert_eq!(confusion.matrix("training_aami", "de_chazal", "*")[0], [0, 0, 1, 0, 0]);
    assert_eq!(confusion.matrix("aami", "de_chazal", "*")[0], [1, 0, 0, 0, 0]);
}

#[test]
fn records_add_up_to_the_gross_matrix() {
    let lines = ["102 test /QNN V", "232 test SSSSSNeN.S A", "100 test NNNNNV -", "213 test FVVFFFNF -"];
    let made = database(&lines);
    let evaluation = made.evaluate(&Params { learning_period_s: 1.0, ..Params::default() }).unwrap();
    for group in &evaluation.parts[0].groups {
        let mut sum = Matrix::default();
        for matrix in group.records.values() {
            (0..6).for_each(|row| (0..6).for_each(|column| sum.cells[row][column] += matrix.cells[row][column]));
        }
        assert_eq!(sum, group.gross, "{:?}", group.view);
    }
    let all = &evaluation.parts[0].group(View::All, EscapeRule::Ec57).gross;
    let missed: usize = made.beats.values().map(|beats| beats.missed.len()).sum();
    assert_eq!(all.beat_n() as usize, made.split.rows.len() + missed);
    for class in AamiClass::ALL {
        assert_eq!(all.true_positives(class) + all.false_negatives(class), all.reference_n(class));
    }
}

#[test]
fn the_order_of_rows_does_not_show() {
    let mut made = database(&SMALL);
    let before = made.evaluate(&Params::default()).unwrap();
    made.split.rows.reverse();
    for predictions in made.predictions.values_mut() {
        predictions.beat_idx.reverse();
        predictions.sample_idx.reverse();
        predictions.symbol.reverse();
        predictions.probabilities = predictions.probabilities.chunks(5).rev().flatten().copied().collect();
    }
    assert_eq!(made.evaluate(&Params::default()).unwrap(), before);
}

#[test]
fn a_record_in_several_parts_leaves_out_missed_and_extra_beats() {
    let mut made = database(&["a test NNNN.V V"]);
    made.split.rows[0].part = Part::Training;
    let evaluation = made.evaluate(&Params::default()).unwrap();
    let gross = &evaluation.parts[0].group(View::All, EscapeRule::DeChazal).gross;
    assert_eq!((gross.beat_n(), gross.extra_n(), gross.missed_n()), (1, 0, 0));
    assert_eq!(evaluation.notes, ["missed and extra detections are left out of records in more than one part: a"]);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_record() {
    let error = |spoil: &dyn Fn(&mut Database)| {
        let mut made = database(&SMALL);
        spoil(&mut made);
        made.evaluate(&Params::default()).unwrap_err().to_string()
    };
    let b = RecordId::new("b").unwrap();
    assert_eq!(
        error(&|made| drop(made.predictions.remove(&b))),
        "record b: the split has the record, but there are no predictions of it"
    );
    assert_eq!(
        error(&|made| made.predictions.get_mut(&b).unwrap().sample_idx[0] = 5),
        "record b: the prediction for beat 0 at sample 5 is not of the beats given here"
    );
    assert_eq!(
        error(&|made| made.predictions.get_mut(&b).unwrap().classes[2] = "PVC".to_owned()),
        "record b: the model predicts a class `PVC`, which is none of N, S, V, F, Q"
    );
    assert_eq!(
        error(&|made| made.split.rows.last_mut().unwrap().beat_idx = 99),
        "record b: the split has beat 99, which is not a labelled beat"
    );
}

#[test]
fn everything_can_be_stored() {
    let params = Params::default();
    let evaluation = database(&SMALL).evaluate(&params).unwrap();
    evaluation.metrics(&params).encode().unwrap();
    evaluation.confusion().encode().unwrap();
    Files::new(report::files(&evaluation, &params)).encode().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&report::files(&evaluation, &params)[2].bytes).unwrap();
    assert_eq!(json["groups"].as_array().unwrap().len(), 8);
    assert_eq!(json["groups"][2]["gross"]["matrix"][2], serde_json::json!([0, 0, 2, 0, 0, 2]));
}

#[test]
fn records_that_decide_a_class_are_named() {
    let many = format!("232 test {} -", "SS".repeat(30));
    let evaluation = database(&[&many, "100 test SNNN -"]).evaluate(&Params::default()).unwrap();
    assert_eq!(evaluation.notes, ["test: record 232 holds 30 of the 31 beats of class S"]);
}

#[test]
fn parameters_out_of_range_are_refused() {
    let message = |params: Params| Evaluate::check(&params).unwrap_err();
    assert!(message(Params { parts: Vec::new(), ..Params::default() }).starts_with("`parts` must name"));
    let twice = vec![Part::Test, Part::Test];
    assert_eq!(message(Params { parts: twice, ..Params::default() }), "`parts` names a part twice");
    let negative = Params { learning_period_s: -1.0, ..Params::default() };
    assert_eq!(message(negative), "`learning_period_s` must be 0 or more seconds, not -1");
}

fn check_report(lines: &[&str], expected: &Expect) {
    let params = Params::default();
    let files = report::files(&database(lines).evaluate(&params).unwrap(), &params);
    let text = String::from_utf8(files[0].bytes.clone()).unwrap();
    expected.assert_eq(text.split("## How").next().unwrap());
}

#[test]
fn the_report_reads_well() {
    check_report(
        &SMALL,
        &expect![[r#"
            # Evaluation by AAMI classes

            Split `lists`; main figures: escape-beat rule `de_chazal`, view `aami`.

            ## Part `test`: 2 records, 10 beats

            Accuracy and F1 in %, gross:

            | view | rule | beats | accuracy | N | S | V | F | Q | macro NSV | macro NSVF | macro all |
            |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
            | all | de_chazal | 10 | 50.00 | 66.67 | 66.67 | 44.44 | 0.00 | - | 59.26 | 44.44 | - |
            | all | ec57 | 10 | 60.00 | 80.00 | 100.00 | 44.44 | 0.00 | - | 74.81 | 56.11 | - |
            | **aami** | de_chazal | 10 | 50.00 | 66.67 | 66.67 | 44.44 | 0.00 | - | 59.26 | 44.44 | - |
            | aami | ec57 | 10 | 60.00 | 80.00 | 100.00 | 44.44 | 0.00 | - | 74.81 | 56.11 | - |
            | without_dominating | de_chazal | 10 | 50.00 | 66.67 | 66.67 | 44.44 | 0.00 | - | 59.26 | 44.44 | - |
            | without_dominating | ec57 | 10 | 60.00 | 80.00 | 100.00 | 44.44 | 0.00 | - | 74.81 | 56.11 | - |
            | after_learning_period | de_chazal | 0 | - | - | - | - | - | - | - | - | - |
            | after_learning_period | ec57 | 0 | - | - | - | - | - | - | - | - | - |

            95 % intervals of the main view, in %, over 1000 draws of as many patients as there are:

            | figure | from | to |
            |---|--:|--:|
            | accuracy | 50.00 | 50.00 |
            | F1 N | 66.67 | 66.67 |
            | F1 S | 66.67 | 66.67 |
            | F1 V | 0.00 | 66.67 |
            | F1 F | 0.00 | 0.00 |
            | macro F1 NSV | 44.44 | 59.26 |
            | macro F1 NSVF | 44.44 | 44.44 |

            Confusion matrix (rows: reference, columns: predicted):

            | | N | S | V | F | Q | missed | total |
            |---|--:|--:|--:|--:|--:|--:|--:|
            | **N** | 2 | 1 | 1 | 0 | 0 | 0 | 4 |
            | **S** | 0 | 1 | 0 | 0 | 0 | 0 | 1 |
            | **V** | 0 | 0 | 2 | 0 | 0 | 2 | 4 |
            | **F** | 0 | 0 | 1 | 0 | 0 | 0 | 1 |
            | **Q** | 0 | 0 | 0 | 0 | 0 | 0 | 0 |
            | **extra** | 0 | 0 | 1 | 0 | 0 | | 1 |

            Per class, in %:

            | class | beats | TP | FN | FP | Se | +P | F1 | average Se | average +P | EC57 +P |
            |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
            | N normal or bundle branch block | 4 | 2 | 2 | 0 | 50.00 | 100.00 | 66.67 | 50.00 | 100.00 |  |
            | S supraventricular ectopic | 1 | 1 | 0 | 1 | 100.00 | 50.00 | 66.67 | 100.00 | 50.00 | 50.00 |
            | V ventricular ectopic | 4 | 2 | 2 | 3 | 50.00 | 40.00 | 44.44 | 33.33 | 33.33 | 50.00 |
            | F fusion of ventricular and normal | 1 | 0 | 1 | 0 | 0.00 | - | 0.00 | 0.00 | - |  |
            | Q paced or unclassifiable | 0 | 0 | 0 | 0 | - | - | - | - | - |  |

            Missed beats: 2; detected beats without a reference: 1.

            Per record, accuracy, Se and +P in %:

            | record | beats | accuracy | S beats | S Se | S +P | V beats | V Se | V +P | F beats | F Se | F +P |
            |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
            | a | 6 | 50.00 | 1 | 100.00 | 50.00 | 1 | 0.00 | 0.00 | 0 | - | - |
            | b | 4 | 50.00 | 0 | - | - | 3 | 66.67 | 66.67 | 1 | 0.00 | - |

        "#]],
    );
}
