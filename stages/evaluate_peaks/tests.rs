//! Tests of `evaluate_peaks` on hand-made records; those on real ones are in `golden_tests`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use ecgpipe_sdk::{
    StageEvent,
    kinds::{Annotation, Beat, PeakSource},
};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{
    annotator::{Episode, RunMark},
    beat_by_beat::{BEATS, NONE, SHUTDOWN},
    *,
};

/// At 100 Hz: 150 ms.
const WINDOW_N: i64 = 15;
const WHOLE: Period = Period { start_idx: 0, end_idx: 100_000 };

/// Reads `100N 200V 250~-1 300+(AFIB`: positions, symbols, and after `~` the subtype, after `+` the rhythm.
fn marks(text: &str) -> Vec<Mark<'_>> {
    let mark = |word| {
        let digit_n = str::find(word, |letter: char| !letter.is_ascii_digit()).unwrap();
        let (position, rest) = word.split_at(digit_n);
        let (symbol, more) = rest.split_at(1);
        let subtype = if symbol == "~" && !more.is_empty() { more.parse().unwrap() } else { 0 };
        let aux = if symbol == "+" { more } else { "" };
        Mark { sample_idx: position.parse().unwrap(), symbol, subtype, aux }
    };
    text.split_whitespace().map(mark).collect()
}

fn read(text: &str) -> Annotator {
    Annotator::read(&marks(text), WINDOW_N)
}

/// The cells that are not zero, as `bxb` calls them: `Nn 2 Vo 1`.
fn cells(matrix: &Matrix) -> String {
    let name = |place: usize| ["N", "S", "V", "F", "Q", "O", "X"][place];
    let places = (0..7).flat_map(|row| (0..7).map(move |column| (row, column)));
    let counted = places.filter(|(row, column)| matrix.cells[*row][*column] > 0);
    let cell = |(row, column): (usize, usize)| {
        format!("{}{} {}", name(row), name(column).to_ascii_lowercase(), matrix.cells[row][column])
    };
    counted.map(cell).collect::<Vec<_>>().join(" ")
}

fn check_beats(reference: &str, test: &str, expected: &str) {
    let comparison = beat_by_beat::compare(&read(reference), &read(test), WHOLE, WINDOW_N);
    assert_eq!(cells(&comparison.matrix), expected, "{reference} / {test}");
}

#[test]
fn classes_meet() {
    check_beats("100N 200V 300A 400F 500/", "101N 198N 300V 409V 500Q", "Nn 1 Sv 1 Vn 1 Fv 1 Qq 1");
    check_beats("100N 200N 300e", "100N 260N", "Nn 1 No 1 So 1 On 1");
    // Not beats: rhythm, noise, comments, flutter waves.
    check_beats("50+(N 100N 200~1 300! 400\"", "100N 300N", "Nn 1 On 1");
    // A beat at the very first sample counts.
    check_beats("0N 100N", "0N 100N", "Nn 2");
}

#[test]
fn beats_in_fibrillation_do_not_count() {
    check_beats("100N 200[ 300N 400] 500N", "100N 250N 350V 500N", "Nn 2");
    // Both ends are inside; without an end it lasts.
    check_beats("100N 200[ 400] 500N", "100N 200N 400N 401N 500N", "Nn 2 On 1");
    check_beats("100N 200[ 300N", "100N 250N 900N", "Nn 1");
    // What the test annotator calls fibrillation hides its own beats, not those of the reference.
    check_beats("100N 250N 500N", "100N 200[ 250N 300] 500N", "Nn 2 No 1");
}

#[test]
fn what_falls_into_a_shutdown_is_counted_apart() {
    // Subtype 48 has bits 4 and 5; -1 has all.
    check_beats("100N 250N 400N 500N", "100N 200~48 300~0 400N", "Nn 2 No 1 Nx 1");
    check_beats("100N 200~-1 300~0 400N", "100N 250V 350N 400N", "Nn 2 On 1 Xv 1");
    // One signal alone unreadable is no shutdown.
    check_beats("100N 250N", "100N 200~16 300~0", "Nn 1 No 1");
    // A lone mark, as in the AHA database: from 15 samples after the beat before it to 15 before the next annotation.
    check_beats("100N 200~-1 300N", "100N 114N 115N 285N 286N 300N", "Nn 2 On 2 Xn 2");
}

#[test]
fn shutdown_time_is_that_of_the_test_annotator() {
    let seconds = |reference: &str, test: &str, end_idx: i64| {
        let period = Period { start_idx: 500, end_idx };
        beat_by_beat::compare(&read(reference), &read(test), period, WINDOW_N).shutdown_s(100.0)
    };
    assert_eq!(seconds("0~48 900~0 1000N", "100N 1000N", 2000), 0);
    // 9.00 s and 0.49 s; rounded once, as a whole. Before the start it counts too.
    assert_eq!(seconds("1000N", "100~48 1000~0 1100~48 1149~0", 2000), 9);
    assert_eq!(seconds("1000N", "100~48 1000~0 1100~48 1150~0", 2000), 10);
    // Without an end it lasts to the end of the period; what begins after it does not count.
    assert_eq!(seconds("1000N", "1000N 1500~48", 2000), 5);
    assert_eq!(seconds("1000N", "1000N 2500~48", 2000), 0);
}

#[test]
fn episodes_are_read_from_marks() {
    let annotator = read("100N 150[ 180N 200] 220~48 240~0 300~-1 400N 450[");
    assert_eq!(annotator.beats, [100, 400]);
    let episode = |start_idx, end_idx| Episode { start_idx, end_idx };
    assert_eq!(annotator.fibrillation, [episode(150, 200), episode(450, i64::MAX)]);
    assert_eq!(annotator.shutdown, [episode(220, 240), episode(215, 385)]);
}

#[test]
fn intervals_stop_at_interruptions() {
    let intervals = |text: &str| read(text).intervals_n;
    assert_eq!(intervals("100N 180N 280V"), [None, Some(80), Some(100)]);
    assert_eq!(intervals("100N 120[ 150] 280V 380N"), [None, None, Some(100)]);
    assert_eq!(intervals("100N 120~48 150~0 280V 380N"), [None, None, Some(100)]);
    // Two beats at one place have none between them, and a beat at sample 0 is taken for none, as by `bxb`.
    assert_eq!(intervals("0N 100N 100N 150N"), [None, None, None, Some(50)]);
    assert_eq!(intervals(""), []);
}

#[test]
fn interval_errors_are_taken_at_every_step() {
    let error_ms = |reference: &str, test: &str| {
        let comparison = beat_by_beat::compare(&read(reference), &read(test), WHOLE, WINDOW_N);
        (comparison.interval_n, comparison.interval_error_ms(100.0))
    };
    assert_eq!(error_ms("100N 200N 300N", "100N 200N 300N"), (2, Some(0.0)));
    // 100 and 103 ms of 10 ms each: errors of 3 and 3 samples.
    assert_eq!(error_ms("100N 200N 300N", "100N 203N 300N"), (2, Some(30.0)));
    assert_eq!(error_ms("100N", "100N"), (0, None));
    // The extra beat: 100 against 50, then 100 against 50 once more for the pair.
    assert_eq!(error_ms("100N 200N", "100N 150N 200N"), (2, Some(500.0)));
}

#[test]
fn marks_of_runs() {
    let run_marks = |text: &str| -> Vec<RunMark> { read(text).run_marks.into_iter().map(|(_, mark)| mark).collect() };
    use RunMark::*;
    assert_eq!(
        run_marks("1N 2V 3F 4A 5Q 6! 7~1 8~48 9~-1 10~0"),
        [OtherBeat, Ventricular, Ventricular, Supraventricular, OtherBeat, Unreadable]
    );
    // Within atrial fibrillation a normal beat is supraventricular; any other rhythm ends it.
    assert_eq!(
        run_marks("1+(AFIB 2N 3Q 4+(AFL 5+(N 6N 7+(B"),
        [AtrialStart, Supraventricular, OtherBeat, AtrialEnd, OtherBeat]
    );
    // Whichever fibrillation begins ends the other; a rhythm without a name says nothing.
    assert_eq!(
        run_marks("1+(AFIB 2+(VFL 3[ 4+ 5] 6] 7+(VFIB 8+(AFIB 9N"),
        [AtrialStart, FibrillationStart, FibrillationEnd, FibrillationStart, AtrialStart, Supraventricular]
    );
}

/// Found, missed, right and false couplets, short and long runs.
fn check_runs(reference: &str, test: &str, expected: [[u64; 4]; 3]) {
    let runs = run_by_run::compare(&read(reference), &read(test), WHOLE, WINDOW_N, Ectopy::Ventricular);
    assert_eq!(runs.classes().map(|counts| counts.cells()), expected, "{reference} / {test}");
}

#[test]
fn runs_meet() {
    const NONE: [u64; 4] = [0; 4];
    let couplet = "100N 200V 300V 400N";
    check_runs(couplet, couplet, [[1, 0, 1, 0], NONE, NONE]);
    check_runs(couplet, "100N 200V 300N 400N", [[0, 1, 0, 0], NONE, NONE]);
    check_runs("100N 200V 300N 400N", couplet, [[0, 0, 0, 1], NONE, NONE]);
    // A longer run of the test finds the couplet, but is a false short run.
    check_runs(couplet, "100N 200V 300V 400V 500N", [[1, 0, 0, 0], [0, 0, 0, 1], NONE]);
    let long = "100N 200V 300V 400V 500V 600V 700F 800N";
    check_runs(long, long, [NONE, NONE, [1, 0, 1, 0]]);
    // Fibrillation is a long run, and the annotations may end within a run.
    check_runs("100N 200[ 700] 800N", long, [NONE, NONE, [1, 0, 1, 0]]);
    check_runs("100N 200V 300V", "100N 200V 300V", [[1, 0, 1, 0], NONE, NONE]);
    check_runs("", couplet, [[0, 0, 0, 1], NONE, NONE]);
    check_runs("", "", [NONE, NONE, NONE]);
}

#[test]
fn runs_of_one_kind_break_the_other() {
    let reference = read("100N 200A 300J 400V 500V 600V 700N");
    let runs = |ectopy| run_by_run::compare(&reference, &reference, WHOLE, WINDOW_N, ectopy);
    assert_eq!(runs(Ectopy::Supraventricular).classes().map(|counts| counts.found_n), [1, 0, 0]);
    assert_eq!(runs(Ectopy::Ventricular).classes().map(|counts| counts.found_n), [0, 1, 0]);
}

#[test]
fn fibrillation_that_began_before_the_period_counts() {
    let reference = read("100[ 900] 1000N 1100N");
    let period = Period { start_idx: 500, end_idx: 2000 };
    let runs =
        |test: &str| run_by_run::compare(&reference, &read(test), period, WINDOW_N, Ectopy::Ventricular).long.cells();
    assert_eq!(runs("100[ 900] 1000N 1100N"), [1, 0, 1, 0]);
    assert_eq!(runs("600N 1000N 1100N"), [0, 1, 0, 0]);
    // What ended before it does not.
    let early = read("100[ 400] 1000N");
    let none = run_by_run::compare(&early, &early, period, WINDOW_N, Ectopy::Ventricular);
    assert_eq!(none, Runs::default());
}

const SYMBOLS: [&str; 8] = ["N", "V", "A", "F", "/", "e", "+", "!"];

/// Annotations 20 to 200 samples apart, without episodes: then all beats count.
fn annotations() -> impl Strategy<Value = Vec<(i64, usize)>> {
    prop::collection::vec((20i64..200, 0..SYMBOLS.len()), 0..60).prop_map(|steps| {
        let mut position = 0;
        let place = |(step, symbol)| {
            position += step;
            (position, symbol)
        };
        steps.into_iter().map(place).collect()
    })
}

fn annotator(rows: &[(i64, usize)]) -> Annotator {
    let mark = |&(sample_idx, symbol): &(i64, usize)| Mark { sample_idx, symbol: SYMBOLS[symbol], subtype: 0, aux: "" };
    Annotator::read(&rows.iter().map(mark).collect::<Vec<_>>(), WINDOW_N)
}

proptest! {
    #[test]
    fn counts_add_up(reference in annotations(), test in annotations(), start_idx in prop_oneof![Just(0), 0i64..3000]) {
        let (reference, test) = (annotator(&reference), annotator(&test));
        let period = Period { start_idx, ..WHOLE };
        let Comparison { matrix, discrepancies, .. } = beat_by_beat::compare(&reference, &test, period, WINDOW_N);
        let inside = |beats: &[i64]| beats.iter().filter(|beat| **beat >= start_idx).count() as u64;
        prop_assert_eq!(matrix.found_n() + matrix.missed_n(), inside(&reference.beats));
        // At the start of a period one test beat more or less belongs to what is before it.
        let tested_n = matrix.found_n() + matrix.extra_n();
        prop_assert!(tested_n.abs_diff(inside(&test.beats)) <= u64::from(start_idx > 0));
        let agreed_n: u64 = BEATS.iter().map(|&place| matrix.cells[place][place]).sum();
        let all: Vec<usize> = (0..7).collect();
        prop_assert_eq!(agreed_n + discrepancies.len() as u64, matrix.sum(&all, &all));
        prop_assert_eq!(matrix.without_sveb().sum(&all, &all), matrix.sum(&all, &all));
    }

    #[test]
    fn an_annotator_agrees_with_itself(rows in annotations(), start_idx in 0i64..3000) {
        let one = annotator(&rows);
        let period = Period { start_idx, ..WHOLE };
        let comparison = beat_by_beat::compare(&one, &one, period, WINDOW_N);
        prop_assert_eq!((comparison.matrix.missed_n(), comparison.matrix.extra_n()), (0, 0));
        prop_assert_eq!(comparison.squared_error_n, 0.0);
        prop_assert!(comparison.discrepancies.is_empty());
        for ectopy in [Ectopy::Ventricular, Ectopy::Supraventricular] {
            let runs = run_by_run::compare(&one, &one, period, WINDOW_N, ectopy);
            for counts in runs.classes() {
                prop_assert_eq!((counts.missed_n, counts.false_n), (0, 0));
                prop_assert_eq!(counts.found_n, counts.right_n);
            }
        }
    }

    #[test]
    fn beats_that_are_too_far_away_are_not_found(steps in prop::collection::vec(40i64..200, 1..60)) {
        let beats: Vec<i64> = steps.iter().scan(0, |position, step| { *position += step; Some(*position) }).collect();
        let at = |shift: i64| annotator(&beats.iter().map(|beat| (beat + shift, 0)).collect::<Vec<_>>());
        let found_n = |shift: i64| beat_by_beat::compare(&at(0), &at(shift), WHOLE, WINDOW_N).matrix.found_n();
        prop_assert_eq!(found_n(WINDOW_N), beats.len() as u64);
        prop_assert_eq!(found_n(WINDOW_N + 1), 0);
    }

    #[test]
    fn the_summary_of_lines_equals_the_totals(
        records in prop::collection::vec((annotations(), annotations()), 1..6),
    ) {
        let compared: Vec<Comparison> = records
            .iter()
            .map(|(reference, test)| {
                beat_by_beat::compare(&annotator(reference), &annotator(test), WHOLE, WINDOW_N)
            })
            .collect();
        let scored: Vec<Scored<'_>> = compared
            .iter()
            .map(|comparison| Scored { record: "1", sampling_frequency_hz: 100.0, comparison })
            .collect();
        let mut gross = Matrix::default();
        compared.iter().for_each(|one| gross.add(&one.matrix));
        for sveb in [Sveb::AreNormal, Sveb::Apart] {
            let summary = line_format::beat_summary(&scored, sveb);
            let sum = summary.lines().find_map(|line| line.strip_prefix("Sum")).unwrap();
            let all: u64 = sum.split_whitespace().map(|count| count.parse::<u64>().unwrap()).sum();
            prop_assert_eq!(all, gross.found_n() + gross.missed_n() + gross.extra_n());
            let total = format!("Total QRS complexes: {}  ", gross.found_n() + gross.missed_n());
            prop_assert!(summary.contains(&total), "{}", summary);
        }
    }
}

#[test]
fn places_of_no_beat_are_behind_the_classes() {
    assert_eq!((BEATS, NONE, SHUTDOWN), ([0, 1, 2, 3, 4], 5, 6));
}

const HZ: f64 = 100.0;
/// 400 s.
const SAMPLE_N: i64 = 40_000;

fn record(name: &str) -> RecordId {
    RecordId::new(name).unwrap()
}

fn annotations_of(name: &str, text: &str) -> Annotations {
    let annotation = |mark: Mark<'_>| Annotation {
        sample_idx: mark.sample_idx,
        symbol: mark.symbol.to_owned(),
        subtype: mark.subtype,
        chan: 0,
        num: 0,
        aux: mark.aux.to_owned(),
    };
    Annotations {
        record: record(name),
        sampling_frequency_hz: HZ,
        sample_n: SAMPLE_N,
        annotations: marks(text).into_iter().map(annotation).collect(),
    }
}

/// Beats with symbols of a reference, which must not count.
fn beats_of(name: &str, positions: &[i64]) -> Beats {
    Beats {
        record: record(name),
        patient: name.to_owned(),
        sampling_frequency_hz: HZ,
        sample_n: SAMPLE_N,
        source: PeakSource::Detected,
        beats: positions.iter().map(|&sample_idx| Beat { sample_idx, symbol: Some("V".to_owned()) }).collect(),
        missed: vec![Beat { sample_idx: 5, symbol: Some("V".to_owned()) }],
    }
}

fn all<K>(values: Vec<K>, record: impl Fn(&K) -> RecordId) -> All<K> {
    All::new(values.into_iter().map(|value| (record(&value), Arc::new(value))).collect::<BTreeMap<_, _>>())
}

fn inputs(reference: &[(&str, &str)], beats: Option<&[(&str, &[i64])]>, test: Option<&[(&str, &str)]>) -> Inputs {
    let annotated = |rows: &[(&str, &str)]| {
        all(rows.iter().map(|(name, text)| annotations_of(name, text)).collect(), |one| one.record.clone())
    };
    Inputs {
        reference: annotated(reference),
        beats: beats.map(|rows| {
            all(rows.iter().map(|(name, positions)| beats_of(name, positions)).collect(), |one| one.record.clone())
        }),
        annotations: test.map(annotated),
    }
}

/// The report files and what was said; or the error.
fn run(params: &Params, inputs: Inputs) -> Result<(Outputs, Vec<StageEvent>), StageError> {
    let (cancel, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let keep = |event: StageEvent| events.lock().unwrap().push(event);
    let outputs = EvaluatePeaks::run(params, inputs, &Context::new(&cancel, &keep))?;
    Ok((outputs, events.into_inner().unwrap()))
}

fn text(outputs: &Outputs, name: &str) -> String {
    let file = outputs.report.files.iter().find(|file| file.name == name);
    String::from_utf8(file.unwrap_or_else(|| panic!("there is no {name}")).bytes.clone()).unwrap()
}

/// Two records: a beat missed and one extra in the first, late; a beat missed in the second, early.
fn two_records() -> Inputs {
    let reference = [("r1", "100N 31000N 32000V 33000N"), ("r2", "100N 31000N 32000N"), ("r3", "31000N")];
    let beats: [(&str, &[i64]); 3] = [("r1", &[100, 31010, 32500, 33000]), ("r2", &[31000, 32000]), ("r3", &[31000])];
    inputs(&reference, Some(&beats), None)
}

#[test]
fn detected_beats_are_scored_by_position_alone() {
    let (outputs, events) = run(&Params::default(), two_records()).unwrap();
    assert_eq!(events, []);
    let metrics: BTreeMap<&str, f64> =
        outputs.metrics.points.iter().map(|point| (point.key.as_str(), point.value)).collect();
    assert_eq!(metrics["late/se"], 5.0 / 6.0);
    assert_eq!(metrics["late/ppv"], 5.0 / 6.0);
    assert_eq!(metrics["late/average_se"], (2.0 / 3.0 + 2.0) / 3.0);
    assert_eq!(metrics["full/se"], 6.0 / 8.0);
    assert_eq!((metrics["full/beats_n"], metrics["full/missed_n"], metrics["full/extra_n"]), (8.0, 2.0, 1.0));
    assert!(!metrics.keys().any(|key| key.ends_with("_v") || key.contains("run")), "{metrics:?}");
    let names: Vec<&str> = outputs.report.files.iter().map(|file| file.name.as_str()).collect();
    expect![[r#"
        ["errors.csv", "full.S", "full.line", "full.line.sumstats", "full.line_L", "full.line_L.sumstats", "full.report", "full.sd", "full.sd_L", "late.S", "late.line", "late.line.sumstats", "late.line_L", "late.line_L.sumstats", "late.report", "late.sd", "late.sd_L", "records.csv", "summary.json", "summary.md"]"#]]
    .assert_eq(&format!("{names:?}"));
    expect![[r#"
        record,sample_idx,time_s,error,reference,test
        r1,32000,320.000,missed,V,
        r1,32500,325.000,extra,,N
        r2,100,1.000,missed,N,
    "#]]
    .assert_eq(&text(&outputs, "errors.csv"));
    expect![[r#"
        view,record,beats,found,missed,extra,rr_error_ms,se,ppv
        late,*,6,5,1,1,2136.44,0.833333,0.833333
        late,r1,3,2,1,1,4272.88,0.666667,0.666667
        late,r2,2,2,0,0,0.00,1.000000,1.000000
        late,r3,1,1,0,0,,1.000000,1.000000
        full,*,8,6,2,1,2136.44,0.750000,0.857143
        full,r1,4,3,1,1,4272.88,0.750000,0.750000
        full,r2,3,2,1,0,0.00,0.666667,1.000000
        full,r3,1,1,0,0,,1.000000,1.000000
    "#]]
    .assert_eq(&text(&outputs, "records.csv"));
    expect![[r#"
        # Beat detection, scored by ANSI/AAMI EC57

        `test` against the reference `atr`; a beat counts as found within 150 ms. Se and +P in %.

        | view | records | beats | found | missed | extra | Se | +P | average Se | average +P |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        | `late` (from 300 s) | 3 | 6 | 5 | 1 | 1 | **83.333** | **83.333** | 88.889 | 88.889 |
        | `full` (whole records) | 3 | 8 | 6 | 2 | 1 | **75.000** | **85.714** | 80.556 | 91.667 |

        ## Records, worst first: `late` (from 300 s)

        | record | errors | of all, so far | missed | extra | beats | Se | +P | RR error |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|
        | r1 | 2 | 100 % | 1 | 1 | 3 | 66.667 | 66.667 | 4272.9 ms |

        Without an error: r2, r3.

        ## Records, worst first: `full` (whole records)

        | record | errors | of all, so far | missed | extra | beats | Se | +P | RR error |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|
        | r1 | 2 | 67 % | 1 | 1 | 4 | 75.000 | 75.000 | 4272.9 ms |
        | r2 | 1 | 100 % | 1 | 0 | 3 | 66.667 | 100.000 | 0.0 ms |

        Without an error: r3.

        ## How it was counted

        - Positions alone were tested: beats of a detector have no classes. In the files of the C tools each of them is `N`, so that figures of V and S in there mean nothing.
        - Counted as `bxb`, `rxr` and `sumstats` of WFDB 10.7 count, which EC57 names as its reference; their own files stand beside this one.
        - Gross figures pool all beats; an average is the mean over the records that have the ratio, so that every record counts alike.
        - Beats within ventricular fibrillation or flutter of the reference are no errors, found or not.
        - Where one side marks the signal as unreadable, beats of the other count as errors, in a row or column of their own.
        - RR error: root mean square of the differences of RR intervals, one at each step through both sides' beats; a missed beat makes it jump.
        - Decision support, not a diagnosis: these figures say how often beats agree with a reference, on these records.
    "#]].assert_eq(&text(&outputs, "summary.md"));
}

#[test]
fn annotations_are_scored_with_their_classes() {
    let reference = [("r1", "100N 31000N 32000V 33000V 34000N 35000A 36000/")];
    let test = [("r1", "100N 31000N 32000V 33000V 34000V 35000N 36000Q")];
    let (outputs, events) = run(&Params::default(), inputs(&reference, None, Some(&test))).unwrap();
    let note = "records with paced beats take part: r1; EC57 leaves them out of figures on beat classes (`exclude`)";
    assert_eq!(events, [StageEvent::Note(note.to_owned())]);
    let metrics: BTreeMap<&str, f64> =
        outputs.metrics.points.iter().map(|point| (point.key.as_str(), point.value)).collect();
    assert_eq!((metrics["late/se_v"], metrics["late/ppv_v"], metrics["late/se_s"]), (1.0, 2.0 / 3.0, 0.0));
    assert_eq!((metrics["late/ve_couplet_se"], metrics["late/ve_short_run_ppv"]), (1.0, 0.0));
    assert!(!metrics.contains_key("late/ppv_s"), "a ratio of nothing to nothing");
    assert_eq!(text(&outputs, "late.rxr_v").lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&text(&outputs, "summary.json")).unwrap();
    assert_eq!(json["views"][0]["records"]["r1"]["matrix"][0], serde_json::json!([1, 0, 1, 0, 0, 0, 0]));
    assert_eq!(json["views"][0]["runs"]["ve"]["couplet_se"], serde_json::json!([1, 1]));
    expect![[r#"
        record,sample_idx,time_s,error,reference,test
        r1,34000,340.000,class,N,V
        r1,35000,350.000,class,S,N
    "#]]
    .assert_eq(&text(&outputs, "errors.csv"));
    expect![[r#"
        Record CTs CFN CTp CFP STs SFN STp SFP LTs LFN LTp LFP  CSe C+P SSe S+P LSe L+P
          r1   1   0   0   0   0   0   0   1   0   0   0   0  100   -   -   0   -   -
        _____________________________________________________________________________
        Sum      1   0   0   0   0   0   0   1   0   0   0   0
        Gross                                                   100   -   -   0   -   -
        Average                                                 100   -   -   0   -   -
        Total couplets: 1  Total short runs: 0  Total long runs: 0

        Summary of results from 1 record
    "#]]
    .assert_eq(&text(&outputs, "late.rxr_v.sumstats"));
}

#[test]
fn a_period_may_end_early_and_records_may_be_too_short() {
    let params = Params { end_s: Some(320.0), ..Params::default() };
    let (outputs, _) = run(&params, two_records()).unwrap();
    assert!(text(&outputs, "full.line").lines().nth(1).unwrap().starts_with("  r1     2   0   0   0"));
    assert!(text(&outputs, "summary.md").contains("- Scoring stops at 320 s.\n"));

    let params = Params { learning_period_s: 400.0, ..Params::default() };
    let (outputs, events) = run(&params, two_records()).unwrap();
    let note = "view `late` has none of the records that end within 400 s: r1, r2, r3";
    assert_eq!(events, [StageEvent::Note(note.to_owned())]);
    assert!(text(&outputs, "late.line.sumstats").ends_with("Summary of results from 0 records\n"));
    assert!(outputs.metrics.points.iter().any(|point| point.key == "full/se"));
}

#[test]
fn refuses_what_does_not_belong_together() {
    let check = |inputs: Inputs, expected: Expect| {
        let error = run(&Params::default(), inputs).map(|_| ()).unwrap_err();
        expected.assert_eq(&format!("{error}\nhelp: {}", error.help.as_deref().unwrap_or("-")));
    };
    check(
        inputs(&[("r1", "100N")], None, None),
        expect![[r#"
        neither `beats` nor `annotations` is connected: there is nothing to test
        help: connect `beats` to a detector, or `annotations` to `ingest_wfdb` with the `annotator` to test"#]],
    );
    check(
        inputs(&[("r1", "100N")], Some(&[("r1", &[100])]), Some(&[("r1", "100N")])),
        expect![[r#"
        both `beats` and `annotations` are connected, but one is tested at a time
        help: connect `beats` to a detector, or `annotations` to `ingest_wfdb` with the `annotator` to test"#]],
    );
    check(
        inputs(&[("r1", "100N"), ("r2", "100N")], Some(&[("r1", &[100])]), None),
        expect![[r#"
        record r2: there are reference annotations of the record, but no beats to test
        help: give both sides the same records, or name the record in `exclude`"#]],
    );
    check(
        inputs(&[("r1", "100N")], Some(&[("r1", &[100]), ("r2", &[100])]), None),
        expect![[r#"
        record r2: there are beats to test of the record, but no reference annotations
        help: give both sides the same records, or name the record in `exclude`"#]],
    );
    check(
        inputs(&[("r1", "200N 100N")], Some(&[("r1", &[100])]), None),
        expect![[r#"
        record r1: the reference annotations are not in order of time
        help: -"#]],
    );
    check(
        inputs(&[("r1", "100N")], Some(&[("r1", &[200, 100])]), None),
        expect![[r#"
        record r1: the test annotations are not in order of time
        help: -"#]],
    );
    check(
        inputs(&[], Some(&[]), None),
        expect![[r#"
        there is no record to score
        help: take records out of `exclude`"#]],
    );
    let mut other = inputs(&[("r1", "100N")], None, None);
    let mut beats = beats_of("r1", &[100]);
    beats.sampling_frequency_hz = 250.0;
    other.beats = Some(all(vec![beats], |one| one.record.clone()));
    check(
        other,
        expect![[r#"
        record r1: the reference has 40000 samples at 100 Hz, what is tested has 40000 at 250 Hz
        help: test against annotations of the same recording, before it is resampled"#]],
    );
    let mut other = inputs(&[], None, None);
    let (mut reference, mut beats) = (annotations_of("r1", "100N"), beats_of("r1", &[100]));
    (reference.sampling_frequency_hz, beats.sampling_frequency_hz) = (0.0, 0.0);
    other.reference = all(vec![reference], |one| one.record.clone());
    other.beats = Some(all(vec![beats], |one| one.record.clone()));
    check(
        other,
        expect![[r#"
        record r1: a sampling frequency of 0 Hz cannot be scored: 1 to 1000000000 can
        help: -"#]],
    );
}

#[test]
fn excluded_records_may_be_on_one_side_only() {
    let params = Params { exclude: vec![record("r2")], ..Params::default() };
    let one_side = inputs(&[("r1", "31000N"), ("r2", "31000N")], Some(&[("r1", &[31000])]), None);
    let (outputs, _) = run(&params, one_side).unwrap();
    assert!(text(&outputs, "late.line.sumstats").ends_with("Summary of results from 1 record\n"));
}

#[test]
fn checks_parameters() {
    let check = |change: fn(&mut Params), expected: &str| {
        let mut params = Params::default();
        change(&mut params);
        assert_eq!(EvaluatePeaks::check(&params).err().unwrap_or_default(), expected);
    };
    check(|_| {}, "");
    check(|params| params.match_window_ms = 0.0, "`match_window_ms` must be 1 to 1000 ms, not 0");
    check(|params| params.match_window_ms = f64::NAN, "`match_window_ms` must be 1 to 1000 ms, not NaN");
    check(|params| params.learning_period_s = -1.0, "`learning_period_s` must be 0 to 86400000 seconds, not -1");
    check(
        |params| params.end_s = Some(300.0),
        "`end_s` must be behind the learning period of 300 s and at most 86400000, not 300",
    );
    check(|params| params.test_name = "a\nb".to_owned(), "`test_name` must be a word, such as atr, not \"a\\nb\"");
    check(
        |params| params.exclude = vec![record("9"), record("9")],
        "`exclude` must name each record once, but `9` stands there twice",
    );
}
