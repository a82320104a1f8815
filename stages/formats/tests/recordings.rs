//! What independent tools wrote is read as they read it. The fixtures and the figures are those of `make_fixtures.py`
//! (pyedflib 0.1.42, numpy 2.4.6): `python make_fixtures.py --read FILE` prints sums, first and last samples.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ecgpipe_formats::{Axes, Options, Recording};
use ecgpipe_wfdb::INVALID_I32;
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(name: &str, options: &Options) -> Recording {
    Recording::open(fixture(name), options).unwrap()
}

/// All samples, read `frame_n` frames at a time.
fn samples(recording: &mut Recording, frame_n: usize) -> Vec<Vec<i32>> {
    let lead_n = recording.header().signals.len();
    let (mut all, mut pieces) = (vec![Vec::new(); lead_n], vec![vec![7]; lead_n]);
    recording.seek(0);
    loop {
        let read_n = recording.read(frame_n, &mut pieces).unwrap();
        for ((whole, piece), signal) in all.iter_mut().zip(&pieces).zip(&recording.header().signals) {
            assert_eq!(piece.len(), read_n * signal.samples_per_frame as usize);
            whole.extend_from_slice(piece);
        }
        if read_n == 0 {
            return all;
        }
    }
}

/// Sum of the valid samples, as pyedflib's `readSignal(i, digital=True).sum()`.
fn sum(samples: &[i32]) -> i64 {
    samples.iter().filter(|sample| **sample != INVALID_I32).map(|sample| i64::from(*sample)).sum()
}

/// Each lead as `name spf gain(baseline)/units format`.
fn leads(recording: &Recording) -> String {
    let signals = &recording.header().signals;
    let shown: Vec<String> = signals
        .iter()
        .map(|signal| {
            let (name, format, spf) = (&signal.description, signal.format, signal.samples_per_frame);
            format!("{name} {format}x{spf} {}({})/{}", signal.gain_adu_per_unit, signal.baseline_adu, signal.units)
        })
        .collect();
    shown.join("; ")
}

/// Annotations as `position text`, at the frequency that they count in.
fn marks(recording: &Recording) -> String {
    let shown: Vec<String> = recording
        .annotations()
        .items
        .iter()
        .map(|mark| format!("{} {} {}", mark.sample_idx, mark.code, mark.aux_text()))
        .collect();
    shown.join("; ")
}

fn start(recording: &Recording) -> String {
    format!("{} {}", recording.header().base_date.unwrap(), recording.header().base_time.unwrap())
}

#[test]
fn plain_edf() {
    let mut recording = open("plain.edf", &Options::default());
    assert_eq!(leads(&recording), "II 16x1 400(0)/mV");
    assert_eq!((recording.frame_n(), recording.header().sampling_frequency_hz), (750, 250.0));
    assert_eq!(start(&recording), "02/03/2002 23:59:58");
    assert!(recording.annotations().items.is_empty() && recording.notes().is_empty());
    let samples = samples(&mut recording, 1000);
    assert_eq!(sum(&samples[0]), -8649);
    assert_eq!((&samples[0][..4], &samples[0][748..]), (&[-1999, -1962, -1925, -1888][..], &[1683, 1720][..]));
}

#[test]
fn edf_plus_with_three_frequencies_and_annotations() {
    let mut recording = open("plus.edf", &Options::default());
    // 65535 steps in 6553.5 uV; 0 uV is exactly the sample 0. 5 samples of the ECG in each one of the oxygen saturation.
    assert_eq!(leads(&recording), "V5 16x5 10(0)/uV; II 16x5 400(0)/mV; SpO2 16x1 10(0)/%");
    assert_eq!((recording.frame_n(), recording.header().sampling_frequency_hz), (200, 50.0));
    assert_eq!(recording.annotations().time_resolution_hz, Some(250.0));
    assert_eq!(marks(&recording), "125 \" lights off; 313 \" (Apnoe \u{fc}; 938 \" Apnoe \u{fc}); 1000 \" end");
    assert_eq!(recording.notes(), ["annotations outside of the recorded time were left out: 1"]);
    assert_eq!(recording.header().comments, ["patient: P-7 X X X", "recording: Startdate 02-MAR-2002 X X X ward_3"]);
    let samples = samples(&mut recording, 64);
    assert_eq!(samples.iter().map(|samples| sum(samples)).collect::<Vec<_>>(), [-1_754_725, -37_369, 19_900]);
    assert_eq!((samples[0][3], samples[0][999], samples[2][199]), (-32134, -18583, 199));
}

#[test]
fn chosen_leads_have_a_frequency_of_their_own() {
    let leads_named =
        |names: &[&str]| Options { leads: names.iter().map(|name| (*name).to_owned()).collect(), ..Options::default() };
    let mut recording = open("plus.edf", &leads_named(&["ii", "#1"]));
    assert_eq!(leads(&recording), "II 16x1 400(0)/mV; V5 16x1 10(0)/uV");
    assert_eq!((recording.frame_n(), recording.header().sampling_frequency_hz), (1000, 250.0));
    assert_eq!(
        samples(&mut recording, 300).iter().map(|samples| sum(samples)).collect::<Vec<_>>(),
        [-37_369, -1_754_725]
    );
}

#[test]
fn gaps_of_edf_d_are_invalid_samples() {
    let mut recording = open("gaps.edf", &Options::default());
    assert_eq!(recording.frame_n(), 300);
    // The first record starts 0.5 s after the start time; positions count from there.
    assert_eq!(start(&recording), "02/03/2002 23:59:58.5");
    assert_eq!(marks(&recording), "0 \" lights off; 188 \" (Apnoe \u{fc}; 813 \" Apnoe \u{fc}); 875 \" end");
    assert_eq!(
        recording.notes(),
        [
            "1 gap between data records, 2.000 s in all, became invalid samples",
            "annotations outside of the recorded time were left out: 1"
        ]
    );
    let samples = samples(&mut recording, 7);
    let invalid: Vec<usize> = (0..1500).filter(|&idx| samples[0][idx] == INVALID_I32).collect();
    assert_eq!(invalid, (500..1000).collect::<Vec<_>>());
    assert_eq!(samples.iter().map(|samples| sum(samples)).collect::<Vec<_>>(), [-1_754_725, -37_369, 19_900]);
}

#[test]
fn bdf_has_24_bits() {
    let mut recording = open("plus.bdf", &Options::default());
    // Physical -262144 to 262143 at 24 bits: (2^24 - 1) / 524287 steps a microvolt, and no whole number at 0 uV.
    assert_eq!(leads(&recording), "A1 24x1 32.0000591279(16)/uV");
    assert_eq!(
        recording.notes(),
        ["lead A1: 0 uV lies at 15.500 of the ADC, and WFDB has whole numbers there: every value moves by 1.562e-2 uV"]
    );
    assert_eq!((recording.frame_n(), recording.header().sampling_frequency_hz), (600, 2000.0));
    let samples = samples(&mut recording, 100);
    assert_eq!(sum(&samples[0]), -350_179_380);
    assert_eq!((samples[0][0], samples[0][599]), (-8_388_607, 1_181_545));
}

/// The saw tooth of `wave(n, step, top)` in `make_fixtures.py`.
fn wave(n: i64, step: i64, top: i64) -> Vec<i32> {
    (0..n).map(|idx| i32::try_from((idx * step) % (2 * top + 1) - top).unwrap()).collect()
}

/// The two leads of the tables, in units of 1/200 mV, at a gain that is a multiple of 200.
fn check_table(recording: &mut Recording, gain: f64) {
    let [first, mut second] = [wave(300, 37, 1999), wave(300, 211, 1500)];
    second[7] = INVALID_I32;
    let steps = (gain / 200.0) as i32;
    let scaled = |samples: Vec<i32>| {
        samples
            .into_iter()
            .map(|sample| if sample == INVALID_I32 { sample } else { sample * steps })
            .collect::<Vec<_>>()
    };
    assert_eq!(recording.header().signals[0].gain_adu_per_unit, gain);
    assert_eq!(samples(recording, 128), [scaled(first), scaled(second)]);
}

#[test]
fn npy_with_both_axes() {
    let with = |axes| Options { sampling_frequency_hz: Some(360.0), axes: Some(axes), ..Options::default() };
    let mut rows = open("rows.npy", &with(Axes::SamplesByLeads));
    assert_eq!(rows.notes(), ["the file gives no unit for lead_1, lead_2: mV is assumed"]);
    check_table(&mut rows, 1000.0);
    check_table(&mut open("columns.npy", &with(Axes::LeadsBySamples)), 1000.0);
    let named = Options {
        lead_names: vec!["MLII".to_owned(), "V5".to_owned()],
        units: Some("mV".to_owned()),
        gain_adu_per_unit: Some(200.0),
        ..with(Axes::LeadsBySamples)
    };
    let mut recording = open("columns.npy", &named);
    assert_eq!(leads(&recording), "MLII 16x1 200(0)/mV; V5 16x1 200(0)/mV");
    assert!(recording.notes().is_empty(), "a gain that keeps every value rounds nothing");
    check_table(&mut recording, 200.0);
    let coarse = open("columns.npy", &Options { gain_adu_per_unit: Some(20.0), ..named });
    assert_eq!(coarse.notes()[0], "lead MLII: values were rounded to steps of 0.05 mV, by up to 2.500e-2 mV");

    let mut one = open("one.npy", &Options { sampling_frequency_hz: Some(360.0), ..Options::default() });
    assert!(!one.header().signals[0].is_calibrated && one.notes()[0].contains("ADC units of unknown gain"));
    assert_eq!(samples(&mut one, 299), [wave(300, 37, 1999)]);
}

#[test]
fn csv_of_three_programs() {
    let mut pandas = open("pandas.csv", &Options { sampling_frequency_hz: Some(360.0), ..Options::default() });
    assert_eq!(leads(&pandas), "MLII 16x1 1000(0)/mV; V5 16x1 1000(0)/mV");
    check_table(&mut pandas, 1000.0);

    let mut rdsamp = open("rdsamp.csv", &Options::default());
    assert_eq!(
        (leads(&rdsamp).as_str(), rdsamp.header().sampling_frequency_hz),
        ("MLII 16x1 1000(0)/mV; V5 16x1 1000(0)/mV", 360.0)
    );
    check_table(&mut rdsamp, 1000.0);

    let mut german = open("german.csv", &Options::default());
    assert_eq!(
        (leads(&german).as_str(), german.header().sampling_frequency_hz),
        ("MLII 16x1 1000(0)/mV; V5 16x1 1000(0)/uV", 360.0)
    );
    assert_eq!((german.header().comments.join("|").as_str(), german.notes()), ("a comment", &[][..]));
    check_table(&mut german, 1000.0);
}

#[test]
fn pieces_of_any_size_are_the_same_samples() {
    let npy = Options { sampling_frequency_hz: Some(360.0), axes: Some(Axes::LeadsBySamples), ..Options::default() };
    for (name, options) in [
        ("gaps.edf", &Options::default()),
        ("plus.bdf", &Options::default()),
        ("rdsamp.csv", &Options::default()),
        ("columns.npy", &npy),
    ] {
        let mut recording = open(name, options);
        let whole = samples(&mut recording, usize::MAX);
        for frame_n in [1, 2, 7, 49, 50, 51, 299, 300, 301] {
            assert_eq!(samples(&mut recording, frame_n), whole, "{name} {frame_n}");
        }
        let mut pieces = vec![Vec::new(); whole.len()];
        for (frame_idx, frame_n) in [(133, 20), (3, 1), (295, 100), (5000, 1)] {
            recording.seek(frame_idx);
            let read_n = recording.read(frame_n, &mut pieces).unwrap();
            for ((piece, whole), signal) in pieces.iter().zip(&whole).zip(&recording.header().signals) {
                let spf = signal.samples_per_frame as usize;
                let from = (frame_idx as usize * spf).min(whole.len());
                assert_eq!(piece, &whole[from..from + read_n * spf], "{name} at {frame_idx}");
            }
        }
    }
}

/// An EDF+D file with one lead of `record_sample_n` samples a record, by hand, from the specification.
fn edf_d(records: &[(f64, Vec<i16>)], record_s: f64) -> Vec<u8> {
    const TAL_BYTE_N: usize = 40;
    let sample_n = records[0].1.len();
    let pad = |text: String, width: usize| format!("{text:<width$}");
    let mut bytes = format!(
        "{}{}{}01.02.0304.05.06{}{}{}{}{}",
        pad("0".into(), 8),
        pad("X X X X".into(), 80),
        pad("Startdate X X X X".into(), 80),
        pad("768".into(), 8),
        pad("EDF+D".into(), 44),
        pad(records.len().to_string(), 8),
        pad(record_s.to_string(), 8),
        pad("2".into(), 4),
    )
    .into_bytes();
    let fields = [
        (16, ["ECG", "EDF Annotations"]),
        (80, ["", ""]),
        (8, ["mV", ""]),
        (8, ["-10", "-1"]),
        (8, ["10", "1"]),
        (8, ["-1000", "-32768"]),
        (8, ["1000", "32767"]),
        (80, ["", ""]),
    ];
    for (width, texts) in fields {
        texts.iter().for_each(|text| bytes.extend(pad((*text).to_owned(), width).into_bytes()));
    }
    bytes.extend(format!("{}{}", pad(sample_n.to_string(), 8), pad((TAL_BYTE_N / 2).to_string(), 8)).into_bytes());
    bytes.extend(pad(String::new(), 64).into_bytes());
    for (onset_s, samples) in records {
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        let mut tal = format!("+{onset_s}\x14\x14\0").into_bytes();
        tal.resize(TAL_BYTE_N, 0);
        bytes.extend(tal);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Records with random gaps: samples stand where their onsets say, and invalid ones between.
    #[test]
    fn samples_stand_at_the_onset_of_their_record(
        gaps in prop::collection::vec(0_u32..30, 1..12),
        sample_n in 1_usize..40,
        seed in any::<u64>(),
    ) {
        let hz = 10.0;
        let (mut at, mut random, mut records, mut expected) = (0_usize, seed, Vec::new(), Vec::new());
        for gap in gaps {
            at += if records.is_empty() { 0 } else { gap as usize };
            let row: Vec<i16> = (0..sample_n).map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as i16 % 1000
            }).collect();
            expected.resize(at, INVALID_I32);
            expected.extend(row.iter().map(|sample| i32::from(*sample)));
            records.push((at as f64 / hz, row));
            at += sample_n;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.edf");
        fs::write(&path, edf_d(&records, sample_n as f64 / hz)).unwrap();
        let mut recording = Recording::open(&path, &Options::default()).unwrap();
        prop_assert!((recording.header().sampling_frequency_hz * 1.0 - hz * 1.0).abs() < 1e-9);
        prop_assert_eq!(&samples(&mut recording, 13)[0], &expected);
    }

    /// Text with few decimals comes back as it was, whatever separates it.
    #[test]
    fn tables_keep_their_decimals(
        rows in prop::collection::vec((-30_000_i32..30_000, prop::option::of(-30_000_i32..30_000)), 1..80),
        decimal_n in 0_usize..4,
        separator in prop::sample::select(vec![',', ';', '\t']),
    ) {
        let power = 10_f64.powi(decimal_n as i32);
        let text = |sample: i32| {
            let text = format!("{:.decimal_n$}", f64::from(sample) / power);
            if separator == ';' { text.replace('.', ",") } else { text }
        };
        let mut table = format!("I (mV){separator}II (mV)\n");
        for (first, second) in &rows {
            table += &format!("{}{separator}{}\n", text(*first), second.map(text).unwrap_or_default());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        fs::write(&path, table).unwrap();
        let options = Options { sampling_frequency_hz: Some(100.0), ..Options::default() };
        let mut recording = Recording::open(&path, &options).unwrap();
        let gains: Vec<f64> = recording.header().signals.iter().map(|signal| signal.gain_adu_per_unit).collect();
        let found = samples(&mut recording, 17);
        for (idx, (first, second)) in rows.iter().enumerate() {
            prop_assert_eq!(f64::from(found[0][idx]) / gains[0], f64::from(*first) / power);
            match second {
                Some(second) => prop_assert_eq!(f64::from(found[1][idx]) / gains[1], f64::from(*second) / power),
                None => prop_assert_eq!(found[1][idx], INVALID_I32),
            }
        }
    }
}
