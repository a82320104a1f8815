//! The detector and the pairing on the 48 records of the MIT-BIH Arrhythmia Database 1.0.0, first lead, against `bxb`.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and shows its figures")]

use std::{
    ops::Add,
    path::{Path, PathBuf},
};

use ecgpipe_wfdb::{AnnotationCode, read_annotations, read_record};

use super::{
    detector::{DetectorParams, detect},
    matching::match_beats,
};
use crate::resample::{resample, resampled_position};

/// De Chazal's training records; the detector's constants were chosen on them alone.
const DS1: [&str; 22] = [
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124", "201", "203", "205", "207",
    "208", "209", "215", "220", "223", "230",
];
/// His test records.
const DS2: [&str; 22] = [
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210", "212", "213", "214", "219", "221",
    "222", "228", "231", "232", "233", "234",
];
/// The paced ones.
const PACED: [&str; 4] = ["102", "104", "107", "217"];
/// 150 ms at 360 Hz.
const WINDOW_N: i64 = 54;
/// EC57 leaves out the first five minutes, in which a detector may learn.
const FIVE_MINUTES_N: i64 = 5 * 60 * 360;

/// Beats found, missed, and detections that are no beats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    found_n: usize,
    missed_n: usize,
    extra_n: usize,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            found_n: self.found_n + other.found_n,
            missed_n: self.missed_n + other.missed_n,
            extra_n: self.extra_n + other.extra_n,
        }
    }
}

impl Counts {
    fn sensitivity_percent(&self) -> f64 {
        100.0 * self.found_n as f64 / (self.found_n + self.missed_n) as f64
    }

    fn positive_predictivity_percent(&self) -> f64 {
        100.0 * self.found_n as f64 / (self.found_n + self.extra_n) as f64
    }

    fn text(&self) -> String {
        let (sensitivity, predictivity) = (self.sensitivity_percent(), self.positive_predictivity_percent());
        format!("missed {:4} extra {:4} Se {sensitivity:.3} +P {predictivity:.3}", self.missed_n, self.extra_n)
    }
}

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("ECGPIPE_DATA").filter(|data| !data.is_empty()).map(PathBuf::from);
    if data.is_none() {
        eprintln!("skipped: set ECGPIPE_DATA to a folder with `mitdb` in it");
    }
    data
}

/// Beats and stretches of ventricular flutter, in which EC57 counts no false positives.
struct Reference {
    beats: Vec<i64>,
    flutter: Vec<(i64, i64)>,
}

fn annotated(record: &Path, annotator: &str) -> Vec<(i64, AnnotationCode)> {
    let items = read_annotations(record, annotator, Default::default()).unwrap().items;
    items.into_iter().map(|item| (item.sample_idx as i64, item.code)).collect()
}

fn beats(annotations: &[(i64, AnnotationCode)]) -> Vec<i64> {
    annotations.iter().filter(|(_, code)| code.is_beat()).map(|(position, _)| *position).collect()
}

fn reference(record: &Path) -> Reference {
    let annotations = annotated(record, "atr");
    let marks = |symbol: &'static str| {
        annotations.iter().filter(move |(_, code)| code.symbol() == symbol).map(|(position, _)| *position)
    };
    Reference { beats: beats(&annotations), flutter: marks("[").zip(marks("]")).collect() }
}

fn count(reference: &Reference, detected: &[i64], start: i64) -> Counts {
    let pairs = match_beats(&reference.beats, detected, WINDOW_N);
    let mut extra = vec![true; detected.len()];
    let mut counts = Counts::default();
    for (&beat, pair) in reference.beats.iter().zip(pairs) {
        pair.iter().for_each(|&idx| extra[idx] = false);
        if beat >= start {
            counts.found_n += usize::from(pair.is_some());
            counts.missed_n += usize::from(pair.is_none());
        }
    }
    let in_flutter = |position: i64| reference.flutter.iter().any(|&(from, to)| (from..=to).contains(&position));
    let extra = detected.iter().zip(extra).filter(|&(&position, extra)| extra && position >= start);
    counts.extra_n = extra.filter(|(position, _)| !in_flutter(**position)).count();
    counts
}

/// The counts are those of the C tool `bxb` 10.7.0 for the WFDB detector gqrs and for a test annotator with
/// random errors, with and without the first five minutes. Golden
/// files: `bxb -r R -a atr T -L ALL.line_L ALL.sd_L` and the same with `-f 0` into `ALL.line_L_f0`.
#[test]
fn counts_as_bxb_does() {
    let Some(data) = data() else { return };
    if !data.join("golden/bxb").is_dir() {
        eprintln!("skipped: `golden/bxb` is not in $ECGPIPE_DATA");
        return;
    }
    for annotator in ["qrs", "tst"] {
        let folder = data.join("golden/bxb").join(annotator);
        for (file, start) in [("ALL.line_L", FIVE_MINUTES_N), ("ALL.line_L_f0", 0)] {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let mut record_n = 0;
            for line in text.lines() {
                let fields: Vec<&str> = line.split_whitespace().collect();
                if fields[0].parse::<u32>().is_err() {
                    continue;
                }
                // Nn' Sn' Vn' Fn' On' Ns Ss Vs Fs' Os' Nv Sv Vv Fv' Ov' No' So' Vo' Fo'
                let cells: Vec<usize> = fields[1..20].iter().map(|field| field.parse().unwrap()).collect();
                let extra_n = cells[4] + cells[9] + cells[14];
                let missed_n = cells[15..].iter().sum::<usize>();
                let golden = Counts { found_n: cells.iter().sum::<usize>() - extra_n - missed_n, missed_n, extra_n };
                let test = beats(&annotated(&folder.join(fields[0]), annotator));
                let reference = reference(&data.join("mitdb").join(fields[0]));
                assert_eq!(count(&reference, &test, start), golden, "{annotator} {file} record {}", fields[0]);
                record_n += 1;
            }
            assert_eq!(record_n, 48, "{annotator} {file}");
        }
    }
}

/// The bounds are a little below what was measured (99.888 and 99.924 % without the first five minutes; gqrs of WFDB
/// 10.7.0 has 99.737 and 99.717 %), so that the test fails when the detector gets worse.
#[test]
fn finds_the_beats_of_48_records() {
    let Some(data) = data() else { return };
    let (mut late, mut whole) = (Counts::default(), Counts::default());
    for (name, records) in [("DS1", &DS1[..]), ("DS2", &DS2[..]), ("paced", &PACED[..])] {
        let (mut group_late, mut group_whole) = (Counts::default(), Counts::default());
        for record in records {
            let path = data.join("mitdb").join(record);
            let signal: Vec<f32> = read_record(&path).unwrap().leads[0].physical_iter().collect();
            let detected = detect(&[&signal], 360.0, &DetectorParams::default());
            let reference = reference(&path);
            let counts = count(&reference, &detected, 0);
            eprintln!("{record} {}", counts.text());
            group_whole = group_whole + counts;
            group_late = group_late + count(&reference, &detected, FIVE_MINUTES_N);
        }
        eprintln!("{name} without the first 5 min: {}", group_late.text());
        eprintln!("{name} whole records:           {}", group_whole.text());
        (late, whole) = (late + group_late, whole + group_whole);
    }
    eprintln!("all without the first 5 min: {}", late.text());
    eprintln!("all whole records:           {}", whole.text());
    assert_eq!(whole.found_n + whole.missed_n, 109_494);
    assert!(late.sensitivity_percent() >= 99.86, "{}", late.text());
    assert!(late.positive_predictivity_percent() >= 99.90, "{}", late.text());
}

/// DS1, resampled from 360 Hz: measured 99.83 to 99.84 and 99.92 % at 100 to 1000 Hz, as at 360 Hz.
#[test]
fn finds_the_same_beats_at_other_sampling_frequencies() {
    let Some(data) = data() else { return };
    for hz in [100.0, 250.0, 1000.0] {
        let mut counts = Counts::default();
        for record in DS1 {
            let path = data.join("mitdb").join(record);
            let signal: Vec<f32> = read_record(&path).unwrap().leads[0].physical_iter().collect();
            let signal = resample(&signal, 360.0, hz).unwrap();
            let detected = detect(&[&signal], hz, &DetectorParams::default());
            let detected: Vec<i64> =
                detected.iter().map(|&idx| resampled_position(idx, hz, 360.0).round() as i64).collect();
            counts = counts + count(&reference(&path), &detected, 0);
        }
        eprintln!("DS1 at {hz} Hz: {}", counts.text());
        assert!(counts.sensitivity_percent() >= 99.81, "{hz} Hz: {}", counts.text());
        assert!(counts.positive_predictivity_percent() >= 99.90, "{hz} Hz: {}", counts.text());
    }
}
