//! Tests of the invented database through the files that it consists of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use ecgpipe_wfdb::{decode_annotations, decode_record};

use super::*;

/// Decoding checks lengths, checksums and initial values.
fn decoded(params: &Params, patient_idx: usize, seed: u64) -> (Record, Vec<Annotation>) {
    let files = invent(params, patient_idx, seed).unwrap();
    let bytes = |suffix: &str| &files.iter().find(|file| file.name.ends_with(suffix)).unwrap().bytes;
    let record = decode_record(bytes(".hea"), "hea", |_| Ok(bytes(".dat"))).unwrap();
    let annotations = decode_annotations(bytes(".atr"), "atr", record.timing()).unwrap();
    (record, annotations.items)
}

fn class(symbol: &str) -> Option<char> {
    match symbol {
        "N" | "L" | "R" => Some('N'),
        "A" => Some('S'),
        "V" => Some('V'),
        "F" => Some('F'),
        "/" | "f" => Some('Q'),
        _ => None,
    }
}

fn beats(annotations: &[Annotation]) -> Vec<(usize, char)> {
    let beat = |item: &Annotation| Some((item.sample_idx as usize, class(item.code.symbol())?));
    annotations.iter().filter_map(beat).collect()
}

fn mlii_mv(record: &Record) -> Vec<f64> {
    record.lead("MLII").unwrap().physical_iter().map(f64::from).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn the_default_database_has_a_hundred_beats_of_each_class() {
    let params = Params::default();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for patient_idx in 0..params.patients_n {
        for (_, class) in beats(&decoded(&params, patient_idx, patient_idx as u64).1) {
            *counts.entry(class).or_default() += 1;
        }
    }
    assert_eq!(counts.keys().collect::<String>(), "FNQSV");
    assert!(counts.values().all(|&count| count >= 100), "{counts:?}");
}

#[test]
fn each_class_is_in_three_patients_or_more() {
    let params = Params { duration_s: 120.0, ..Params::default() };
    for seed in [1, 2, 3] {
        let mut patients: BTreeMap<char, usize> = BTreeMap::new();
        for patient_idx in 0..ALL_CLASSES_PATIENTS_N {
            let classes: BTreeSet<char> =
                beats(&decoded(&params, patient_idx, seed).1).into_iter().map(|(_, class)| class).collect();
            for class in classes {
                *patients.entry(class).or_default() += 1;
            }
        }
        assert_eq!(patients.len(), 5, "seed {seed}: {patients:?}");
        assert!(patients.values().all(|&count| count >= 3), "seed {seed}: {patients:?}");
    }
}

#[test]
fn beats_are_annotated_on_the_largest_deflection_of_the_qrs_complex() {
    let params = Params { duration_s: 120.0, ..Params::default() };
    let (mut near, mut beat_n) = (0, 0);
    for patient_idx in 0..params.patients_n {
        let (record, annotations) = decoded(&params, patient_idx, 5);
        let signal_mv = mlii_mv(&record);
        let samples = |ms: f64| (ms / 1e3 * record.sampling_frequency_hz()).round() as usize;
        for (idx, _) in beats(&annotations) {
            let reach = samples(400.0);
            if idx < reach || idx + reach >= signal_mv.len() {
                continue;
            }
            let level_mv = median(signal_mv[idx - reach..idx + reach].to_vec());
            let height = |&at: &usize| (signal_mv[at] - level_mv).abs();
            let around = idx - samples(80.0)..=idx + samples(80.0);
            let highest = around.max_by(|a, b| height(a).total_cmp(&height(b))).unwrap();
            beat_n += 1;
            near += usize::from(highest.abs_diff(idx) <= samples(20.0));
        }
    }
    assert!(beat_n > 2000, "{beat_n}");
    assert!(near as f64 > 0.99 * beat_n as f64, "{near} of {beat_n}");
}

/// Heights in mV and widths at half height in ms of the beats of a class, against the median of their surroundings.
fn heights_and_widths(params: &Params, patient_idx: usize, class: char) -> (f64, f64) {
    let (record, annotations) = decoded(params, patient_idx, 5);
    let (signal_mv, hz) = (mlii_mv(&record), record.sampling_frequency_hz());
    let reach = (0.4 * hz) as usize;
    let measured = beats(&annotations)
        .into_iter()
        .filter(|&(idx, found)| found == class && idx >= reach && idx + reach < signal_mv.len())
        .map(|(idx, _)| {
            let level_mv = median(signal_mv[idx - reach..idx + reach].to_vec());
            let half = (signal_mv[idx] - level_mv) / 2.0;
            let is_high = |at: &usize| (signal_mv[*at] - level_mv) / half > 1.0;
            let width_n =
                (idx..idx + reach).take_while(is_high).count() + (idx - reach..idx).rev().take_while(is_high).count();
            (2.0 * half.abs(), width_n as f64 / hz * 1e3)
        });
    let (heights, widths) = measured.unzip();
    (median(heights), median(widths))
}

#[test]
fn heights_and_widths_are_those_of_a_heart() {
    let params = Params { duration_s: 120.0, ..Params::default() };
    // Patients by role: narrow and ventricular beats in 0 and 5, a bundle branch block in 2, a pacemaker in 3.
    for patient_idx in [0, 1, 5, 8] {
        let (n_mv, n_ms) = heights_and_widths(&params, patient_idx, 'N');
        let (v_mv, v_ms) = heights_and_widths(&params, patient_idx, 'V');
        assert!((0.5..2.0).contains(&n_mv) && (0.5..2.8).contains(&v_mv), "{patient_idx}: {n_mv} {v_mv} mV");
        assert!((12.0..40.0).contains(&n_ms) && v_ms > 2.0 * n_ms, "{patient_idx}: {n_ms} {v_ms} ms");
    }
    assert!(heights_and_widths(&params, 2, 'N').1 > 40.0);
    let (paced_mv, paced_ms) = heights_and_widths(&params, 3, 'Q');
    assert!((0.5..2.5).contains(&paced_mv) && paced_ms > 50.0, "{paced_mv} mV {paced_ms} ms");
}

/// Median over the beats of a class between two N beats: its coupling, and the distance of the two N beats around it,
/// both in cycles, where a cycle is the median distance of neighbouring N beats.
fn coupling_and_pause(params: &Params, patient_idx: usize, class: char) -> (f64, f64) {
    let beats = beats(&decoded(params, patient_idx, 5).1);
    let distance = |a: usize, b: usize| (b - a) as f64;
    let is_sinus = |pair: &&[(usize, char)]| pair[0].1 == 'N' && pair[1].1 == 'N';
    let cycle = median(beats.windows(2).filter(is_sinus).map(|pair| distance(pair[0].0, pair[1].0)).collect());
    let (couplings, pauses) = beats
        .windows(3)
        .filter(|three| three[0].1 == 'N' && three[1].1 == class && three[2].1 == 'N')
        .map(|three| (distance(three[0].0, three[1].0) / cycle, distance(three[0].0, three[2].0) / cycle))
        .unzip();
    (median(couplings), median(pauses))
}

#[test]
fn early_beats_are_early_and_pauses_tell_atrial_from_ventricular() {
    let params = Params::default();
    for patient_idx in [0, 1, 8] {
        let (atrial, atrial_pause) = coupling_and_pause(&params, patient_idx, 'S');
        assert!((0.5..0.85).contains(&atrial), "{patient_idx}: {atrial}");
        assert!((1.5..1.95).contains(&atrial_pause), "{patient_idx}: {atrial_pause}");
        let (ventricular, ventricular_pause) = coupling_and_pause(&params, patient_idx, 'V');
        assert!((0.5..0.85).contains(&ventricular), "{patient_idx}: {ventricular}");
        assert!((1.92..2.08).contains(&ventricular_pause), "{patient_idx}: {ventricular_pause}");
    }
    let (fusion, fusion_pause) = coupling_and_pause(&params, 0, 'F');
    assert!((0.92..1.08).contains(&fusion) && (1.92..2.08).contains(&fusion_pause), "{fusion} {fusion_pause}");
}

#[test]
fn shares_of_beats_are_those_asked_for() {
    let params = Params { duration_s: 2400.0, ..Params::default() };
    let share = |patient_idx: usize, wanted: char| {
        let beats = beats(&decoded(&params, patient_idx, 11).1);
        beats.iter().filter(|(_, class)| *class == wanted).count() as f64 / beats.len() as f64
    };
    // The roles that have all of a class: see `patient::ROLES`.
    for (patient_idx, wanted, expected) in [
        (0, 'S', params.atrial_fraction),
        (5, 'V', params.ventricular_fraction),
        (2, 'F', params.fusion_fraction),
        (7, 'Q', params.paced_fraction),
    ] {
        let found = share(patient_idx, wanted);
        assert!((found / expected - 1.0).abs() < 0.2, "{wanted}: {found}, expected {expected}");
    }
}

#[test]
fn recorders_differ_so_that_later_stages_have_work() {
    let params = Params { duration_s: 5.0, ..Params::default() };
    let mut seen = BTreeSet::new();
    for patient_idx in 0..params.patients_n {
        let (record, annotations) = decoded(&params, patient_idx, 5);
        let leads: Vec<&str> = record.leads.iter().map(|lead| lead.name.as_str()).collect();
        seen.insert(format!("{} Hz", record.sampling_frequency_hz()));
        seen.insert(format!("format {}", record.header.signals[0].format));
        seen.insert(leads.join(" "));
        assert_eq!(annotations[0].code, AnnotationCode::RHYTHM, "patient {patient_idx}");
        assert_eq!(record.sample_n as f64, 5.0 * record.sampling_frequency_hz());
    }
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(
        seen,
        ["250 Hz", "360 Hz", "500 Hz", "MLII", "MLII V1", "MLII V5", "V5 MLII", "format 16", "format 212"]
    );
}

#[test]
fn same_seed_same_bytes() {
    let params = Params { duration_s: 20.0, ..Params::default() };
    let more = Params { patients_n: 100, ..params.clone() };
    let noisy = Params { noise_mv: 0.1, ..params.clone() };
    for patient_idx in [0, 3, 5] {
        let files = invent(&params, patient_idx, 5).unwrap();
        assert_eq!(files, invent(&params, patient_idx, 5).unwrap());
        assert_eq!(files, invent(&more, patient_idx, 5).unwrap());
        let other = invent(&params, patient_idx, 6).unwrap();
        assert!(files.iter().zip(&other).all(|(a, b)| a.name == b.name && a.bytes != b.bytes));
        // Noise changes samples, not beats.
        let louder = invent(&noisy, patient_idx, 5).unwrap();
        assert_eq!(files[2], louder[2]);
        assert_ne!(files[1], louder[1]);
    }
}

#[test]
fn runs_as_a_stage() {
    let params = Params { patients_n: 3, duration_s: 10.0, ..Params::default() };
    let (cancel, events) = (AtomicBool::new(false), |_| {});
    let source_cx = SourceContext { data_folder: "data".into(), shared_data: None, offline: true, events: &events };
    let sources = Synthesise::sources(&params, &source_cx).unwrap();
    let names: Vec<&str> = sources.iter().map(|source| source.record.as_str()).collect();
    assert_eq!(names, ["p001", "p002", "p003"]);
    assert!(sources.iter().all(|source| source.files.is_empty()));

    let run = |record: &RecordId| {
        let cx = Context::new(&cancel, &events).with_record(Some(record)).with_seed(Some(9));
        Synthesise::run(&params, NoInputs, &cx)
    };
    let raw = run(&sources[1].record).unwrap().raw;
    let names: Vec<&str> = raw.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["p002.atr", "p002.dat", "p002.hea"]);
    assert_eq!(
        run(&RecordId::new("p004").unwrap()).unwrap_err().to_string(),
        "record p004: there is no such patient; `patients_n` gives p001 to p003"
    );
}

#[test]
fn refuses_parameters_that_make_no_heart() {
    let default = Params::default;
    for (params, expected) in [
        (Params { patients_n: 0, ..default() }, "`patients_n` must be 1 to 999, not 0"),
        (Params { duration_s: f64::NAN, ..default() }, "`duration_s` must be 5 to 86400 seconds, not NaN"),
        (Params { two_leads_fraction: 1.5, ..default() }, "`two_leads_fraction` must be 0 to 1, not 1.5"),
        (Params { paced_fraction: -0.1, ..default() }, "`paced_fraction` must be 0 to 1, not -0.1"),
        (
            Params { atrial_fraction: 0.25, ventricular_fraction: 0.25, fusion_fraction: 0.0, ..default() },
            "`atrial_fraction`, `ventricular_fraction` and `fusion_fraction` must not add up to more than 0.4, not 0.5",
        ),
        (Params { wander_mv: 9.0, ..default() }, "`wander_mv` must be 0 to 2 mV, not 9"),
    ] {
        assert_eq!(Synthesise::check(&params).unwrap_err(), expected);
    }
    assert_eq!(Synthesise::check(&default()), Ok(()));
    // The most that is allowed still leaves a record that can be written.
    let extreme = Params {
        duration_s: 60.0,
        atrial_fraction: 0.4,
        ventricular_fraction: 0.0,
        fusion_fraction: 0.0,
        paced_fraction: 1.0,
        noise_mv: 2.0,
        mains_mv: 2.0,
        wander_mv: 2.0,
        ..default()
    };
    assert_eq!(Synthesise::check(&extreme), Ok(()));
    for patient_idx in 0..8 {
        assert!(!beats(&decoded(&extreme, patient_idx, 1).1).is_empty());
    }
}
