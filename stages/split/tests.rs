//! Tests of `split` on small made-up databases, and on the real records where they are at hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ecgpipe_sdk::kinds::{Beat, PeakSource};
use expect_test::{Expect, expect};

use super::*;

/// One record: `name patient symbols`, where a symbol may be `.` for a beat without a reference.
fn record(text: &str) -> Beats {
    let [name, patient, symbols] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let beat = |(place, symbol): (usize, char)| Beat {
        sample_idx: place as i64 * 300,
        symbol: (symbol != '.').then(|| symbol.to_string()),
    };
    Beats {
        record: RecordId::new(name).unwrap(),
        patient: patient.to_owned(),
        sampling_frequency_hz: 360.0,
        sample_n: 300 * symbols.len() as i64,
        source: PeakSource::Reference,
        beats: symbols.chars().enumerate().map(beat).collect(),
        missed: Vec::new(),
    }
}

fn try_split(database: &[&str], params: &Params, seed: u64) -> Result<SplitResult, StageError> {
    Split::check(params).map_err(StageError::new)?;
    let records: BTreeMap<RecordId, Beats> =
        database.iter().map(|text| record(text)).map(|beats| (beats.record.clone(), beats)).collect();
    split(&records.iter().collect::<Vec<_>>(), params, seed)
}

/// A line a record: beats of each part as class letters; then leaks, notes and warnings, or the error.
fn render(result: &Result<SplitResult, StageError>) -> String {
    let result = match result {
        Ok(result) => result,
        Err(error) => return format!("error: {error}\nhelp: {}\n", error.help.as_deref().unwrap_or("-")),
    };
    let mut lines: BTreeMap<(&RecordId, Part), String> = BTreeMap::new();
    for row in &result.split.rows {
        lines.entry((&row.record, row.part)).or_default().push_str(&row.class);
    }
    let mut text: String =
        lines.iter().map(|((record, part), classes)| format!("{record} {} {classes}\n", part.as_str())).collect();
    result.split.leaks.iter().for_each(|leak| text.push_str(&format!("leak {}\n", leak.patient)));
    result.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    result.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
    text
}

fn check(database: &[&str], params: &Params, expected: &Expect) {
    expected.assert_eq(&render(&try_split(database, params, 1)));
}

fn lists(training: &[&str], validation: &[&str], test: &[&str]) -> Params {
    let ids = |names: &[&str]| names.iter().map(|name| RecordId::new(name).unwrap()).collect();
    Params {
        strategy: Strategy::Lists,
        training_records: ids(training),
        validation_records: ids(validation),
        test_records: ids(test),
        ..Params::default()
    }
}

const DATABASE: [&str; 8] = [
    "a1 a NNNNNNVVSe",
    "a2 a NNNNNNVVSN",
    "b1 b NNNNNNNVS.",
    "c1 c NNNNNNVVSF",
    "d1 d NNNNNNNNV+",
    "e1 e NNNNNNNVSF",
    "f1 f NNNNNNNNNS",
    "g1 g NNNNNNVVVF",
];

#[test]
fn lists_are_taken_as_told() {
    check(
        &["p p NNVj", "q q NVS+", "r r N."],
        &lists(&["p"], &["r"], &["q"]),
        &expect![[r#"
        p training NNVN
        q test NVS
        r validation N
        note: left out 1 detected beats without a reference beat
        note: left out 1 beats whose symbol is of no AAMI class
        note: training: 1 records, 4 beats (N 3, S 0, V 1, F 0, Q 0)
        note: validation: 1 records, 1 beats (N 1, S 0, V 0, F 0, Q 0)
        note: validation records: r
        note: test: 1 records, 3 beats (N 1, S 1, V 1, F 0, Q 0)
        warning: class S (supraventricular ectopic) has no beat in training
    "#]],
    );
}

#[test]
fn the_escape_rule_moves_escape_beats() {
    let params = Params { escape_rule: EscapeRule::Ec57, validation_fraction: 0.0, ..lists(&["p"], &[], &["q"]) };
    let rows = try_split(&["p p NNejnV", "q q NVS"], &params, 1).unwrap().split.rows;
    assert_eq!(rows.iter().map(|row| row.class.as_str()).collect::<String>(), "NNSSSVNVS");
}

#[test]
fn a_patient_on_both_sides_is_refused_or_named() {
    let database = ["p1 p NNV", "p2 p NV", "q q NV"];
    let params = Params { validation_fraction: 0.0, ..lists(&["p1", "q"], &[], &["p2"]) };
    check(
        &database,
        &params,
        &expect![[r#"
        error: patient p is in more than one part (record p1 in training, record p2 in test)
        help: put all records of a patient into one part, or set `on_leak: warn` to accept figures that are too good
    "#]],
    );
    check(
        &database,
        &Params { on_leak: OnLeak::Warn, ..params },
        &expect![[r#"
        p1 training NNV
        p2 test NV
        q training NV
        leak p
        note: training: 2 records, 5 beats (N 3, S 0, V 2, F 0, Q 0)
        note: validation: 0 records, 0 beats (N 0, S 0, V 0, F 0, Q 0)
        note: test: 1 records, 2 beats (N 1, S 0, V 1, F 0, Q 0)
        warning: patient p is in more than one part (record p1 in training, record p2 in test)
    "#]],
    );
}

#[test]
fn named_records_must_be_there_unless_told_otherwise() {
    let params = Params { validation_fraction: 0.0, ..lists(&["p", "x", "y"], &[], &["q"]) };
    check(
        &["p p NV", "q q NV"],
        &params,
        &expect![[r#"
        error: 2 of 4 records are not in the input: x, y
        help: give these records to the source stage, or set `missing: skip` to split what is there
    "#]],
    );
    let result = try_split(&["p p NV", "q q NV"], &Params { missing: Missing::Skip, ..params }, 1).unwrap();
    assert_eq!((result.split.rows.len(), result.notes[0].as_str()), (4, "2 of 4 records are not in the input: x, y"));
}

#[test]
fn by_patient_never_parts_a_patient_and_has_each_class_on_both_sides() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let result = try_split(&DATABASE, &Params::default(), seed).unwrap();
        assert_eq!(result.split.leaks, []);
        assert_eq!(result.warnings, [] as [String; 0], "seed {seed}");
        let classes = |part: Part| -> BTreeSet<&str> {
            result.split.rows.iter().filter(|row| row.part == part).map(|row| row.class.as_str()).collect()
        };
        assert_eq!((classes(Part::Training).len(), classes(Part::Test).len()), (4, 4), "seed {seed}");
        assert_eq!(result, try_split(&DATABASE, &Params::default(), seed).unwrap());
        seen.insert(render(&Ok(result)));
    }
    assert!(seen.len() > 3, "the seed should change the split");
}

#[test]
fn parts_are_disjoint_and_complete() {
    for strategy in [Strategy::ByPatient, Strategy::RandomBeats] {
        let result = try_split(&DATABASE, &Params { strategy, ..Params::default() }, 5).unwrap();
        let rows: BTreeSet<(&str, i64)> =
            result.split.rows.iter().map(|row| (row.record.as_str(), row.beat_idx)).collect();
        // 80 beats, one without a reference and one rhythm change.
        assert_eq!((rows.len(), result.split.rows.len()), (78, 78), "{strategy:?}");
        let sorted = result.split.rows.is_sorted_by(|a, b| (&a.record, a.beat_idx) < (&b.record, b.beat_idx));
        assert!(sorted, "{strategy:?}");
    }
}

#[test]
fn random_beats_warns_of_what_it_is() {
    let params = Params { strategy: Strategy::RandomBeats, validation_fraction: 0.2, ..Params::default() };
    let database = ["a a", "b b", "c c"].map(|name| format!("{name} {}{}", "N".repeat(90), "V".repeat(10)));
    let database: Vec<&str> = database.iter().map(String::as_str).collect();
    let result = try_split(&database, &params, 1).unwrap();
    let last = result.warnings.last().unwrap();
    assert!(last.starts_with("`random_beats` puts beats of 3 of 3 patients into more than one part"), "{last}");
    let beat_n =
        |part: Part, class: &str| result.split.rows.iter().filter(|row| row.part == part && row.class == class).count();
    // 0.3 of each class tests; 0.2 of what is left validates.
    assert_eq!((beat_n(Part::Test, "N"), beat_n(Part::Validation, "N"), beat_n(Part::Training, "N")), (81, 38, 151));
    assert_eq!((beat_n(Part::Test, "V"), beat_n(Part::Validation, "V"), beat_n(Part::Training, "V")), (9, 4, 17));
    assert_ne!(result.split, try_split(&database, &params, 2).unwrap().split);
    assert!(try_split(&database, &Params { on_leak: OnLeak::Refuse, ..params }, 1).is_err());
}

#[test]
fn the_order_of_records_does_not_show() {
    let mut turned = DATABASE;
    turned.reverse();
    assert_eq!(try_split(&DATABASE, &Params::default(), 3), try_split(&turned, &Params::default(), 3));
}

#[test]
fn one_patient_cannot_be_split_by_patient() {
    check(
        &["a1 a NNV", "a2 a NNV"],
        &Params::default(),
        &expect![[r#"
        error: `by_patient` needs at least 2 patients with labelled beats, found 1
        help: use more records, or `strategy: random_beats` to try a pipeline out
    "#]],
    );
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let message = |params: Params| Split::check(&params).unwrap_err();
    assert_eq!(
        message(lists(&["p"], &[], &["p"])),
        "`test_records` names record p, which is in `training_records` already"
    );
    assert_eq!(message(lists(&[], &[], &["p"])), "`training_records` must name at least one record for `lists`");
    let strategy = Strategy::Ds1Ds2;
    let stray = Params { strategy, ..lists(&["p"], &[], &["q"]) };
    assert_eq!(message(stray), "`training_records` is only for `strategy: lists`, not for `ds1_ds2`");
    let share = Params { validation_fraction: 1.0, ..Params::default() };
    assert_eq!(message(share), "`validation_fraction` must be at least 0 and below 1, not 1");
}

/// All 48 MIT-BIH records with synthetic beats; the patient of 202 is that of 201.
fn mitdb_like() -> Vec<String> {
    let names = presets::DS1.iter().chain(&presets::DS2).chain(&presets::PACED_TRAINING).chain(&presets::PACED_TEST);
    let patient = |name: &'_ str| if name == "202" { "201".to_owned() } else { name.to_owned() };
    names.map(|name| format!("{name} {} NNNNSVF/", patient(name))).collect()
}

#[test]
fn ds1_ds2_names_its_leaking_patient() {
    let database = mitdb_like();
    let database: Vec<&str> = database.iter().map(String::as_str).collect();
    let params = Params { strategy: Strategy::Ds1Ds2, ..Params::default() };
    let result = try_split(&database, &params, 1).unwrap();
    assert_eq!(result.split.leaks.len(), 1);
    assert_eq!(result.warnings, ["patient 201 is in more than one part (record 201 in training, record 202 in test)"]);
    assert_eq!(result.split, try_split(&database, &params, 2).unwrap().split, "no seed in a published split");
    let records =
        |result: &SplitResult| result.split.rows.iter().map(|row| row.record.clone()).collect::<BTreeSet<_>>().len();
    assert_eq!(records(&result), 44);
    let paced = try_split(&database, &Params { paced: Paced::Include, ..params.clone() }, 1).unwrap();
    assert_eq!(records(&paced), 48);
    let part = |name: &str| paced.split.rows.iter().find(|row| row.record.as_str() == name).unwrap().part;
    assert_ne!((part("102"), part("104")), (Part::Test, Part::Test));
    assert_eq!((part("107"), part("217")), (Part::Test, Part::Test));
    assert!(try_split(&database[1..], &params, 1).unwrap_err().message.ends_with("not in the input: 101"));
}

/// The beats of the real MIT-BIH records, or `None` (and a line that says so) where they are not at hand.
fn mitdb() -> Option<BTreeMap<RecordId, Beats>> {
    let folder = std::env::var_os("ECGPIPE_DATA").map(|data| std::path::PathBuf::from(data).join("mitdb"));
    let Some(folder) = folder.filter(|folder| folder.join("100.atr").exists()) else {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "skipped: the environment variable ECGPIPE_DATA names no folder with mitdb")
            .unwrap();
        return None;
    };
    let names = presets::DS1.iter().chain(&presets::DS2).chain(&presets::PACED_TRAINING).chain(&presets::PACED_TEST);
    let read = |name: &&str| {
        let timing = ecgpipe_wfdb::Timing { sampling_frequency_hz: Some(360.0), sample_n: Some(650_000) };
        let annotations = ecgpipe_wfdb::read_annotations(folder.join(name), "atr", timing).unwrap().items;
        let beats = annotations.iter().filter(|annotation| annotation.code.is_beat());
        let beat = |annotation: &ecgpipe_wfdb::Annotation| Beat {
            sample_idx: annotation.sample_idx as i64,
            symbol: Some(annotation.code.symbol().to_owned()),
        };
        let record = RecordId::new(name).unwrap();
        let beats = Beats {
            record: record.clone(),
            patient: if *name == "202" { "201" } else { name }.to_owned(),
            sampling_frequency_hz: 360.0,
            sample_n: 650_000,
            source: PeakSource::Reference,
            beats: beats.map(beat).collect(),
            missed: Vec::new(),
        };
        (record, beats)
    };
    Some(names.map(read).collect())
}

/// The totals by which papers on DS1 and DS2 can be told to count the same beats.
#[test]
fn ds1_and_ds2_have_the_published_numbers_of_beats() {
    let Some(records) = mitdb() else { return };
    let counts = |rule: EscapeRule, part: Part| {
        let params =
            Params { strategy: Strategy::Ds1Ds2, escape_rule: rule, validation_fraction: 0.0, ..Params::default() };
        let result = split(&records.iter().collect::<Vec<_>>(), &params, 0).unwrap();
        let of = |class: AamiClass| {
            result.split.rows.iter().filter(|row| row.part == part && row.class == class.letter()).count()
        };
        AamiClass::ALL.map(of)
    };
    assert_eq!(counts(EscapeRule::DeChazal, Part::Training), [45866, 944, 3788, 415, 8]);
    assert_eq!(counts(EscapeRule::DeChazal, Part::Test), [44259, 1837, 3221, 388, 7]);
    assert_eq!(counts(EscapeRule::Ec57, Part::Training)[1], 976);
    assert_eq!(counts(EscapeRule::Ec57, Part::Test)[1], 2050);
}

#[test]
fn the_real_split_is_as_documented() {
    let Some(records) = mitdb() else { return };
    let records: Vec<(&RecordId, &Beats)> = records.iter().collect();
    let params = Params { strategy: Strategy::Ds1Ds2, paced: Paced::Include, ..Params::default() };
    let result = split(&records, &params, 0).unwrap();
    assert_eq!(result.split.rows.len(), 109_494);
    let lines: Vec<String> = result.notes.into_iter().chain(result.warnings).collect();
    expect![[r#"
        training: 21 records, 47838 beats (N 39393, S 811, V 3081, F 401, Q 4152)
        validation: 3 records, 7599 beats (N 6735, S 133, V 713, F 14, Q 4)
        validation records: 201, 203, 205
        test: 24 records, 54057 beats (N 44503, S 1837, V 3442, F 388, Q 3887)
        patient 201 is in more than one part (record 201 in validation, record 202 in test)"#]]
    .assert_eq(&lines.join("\n"));
    let by_patient = split(&records, &Params::default(), 7).unwrap();
    assert_eq!(by_patient.split.leaks, []);
    assert_eq!(by_patient.warnings, [] as [String; 0]);
}
