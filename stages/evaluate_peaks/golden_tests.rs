//! Every file that the C tools wrote for the 48 records of the MIT-BIH Arrhythmia Database 1.0.0 and three test
//! annotators, written again and compared byte by byte.
//!
//! The annotators: `qrs` and `wqrs` are what the C detectors gqrs and wqrs wrote of the first signal; `tst` is the
//! reference with random misses, extra beats, shifts and wrong classes. The files, made by `bxb`, `rxr` and `sumstats`
//! of WFDB 10.7.0 over all records R in order, for an annotator T:
//!
//! | file | command |
//! |---|---|
//! | `ALL.line`, `ALL.sd` | `bxb -r R -a atr T -l ALL.line ALL.sd` |
//! | `ALL.line_L`, `ALL.sd_L` | `bxb -r R -a atr T -L ALL.line_L ALL.sd_L` |
//! | `ALL.line_L_f0` | `bxb -r R -a atr T -f 0 -L ALL.line_L_f0 ...` |
//! | `ALL.S_f0` | `bxb -r R -a atr T -f 0 -S ALL.S_f0` |
//! | `ALL.report` | `bxb -r R -a atr T` |
//! | `ALL.rxr_v`, `ALL.rxr_s` | `rxr -r R -a atr T -L ALL.rxr_v ALL.rxr_s` |
//! | `ALL.line.sumstats` and alike | `sumstats ALL.line` |
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it skips")]

use std::path::{Path, PathBuf};

use ecgpipe_wfdb::{Timing, decode_annotations};

use super::{
    annotator::{Annotator, Mark},
    beat_by_beat::{self, Comparison, Period},
    line_format::{self, Scored, Sveb},
    run_by_run::{self, Ectopy, Runs},
};

const ANNOTATORS: [&str; 3] = ["qrs", "wqrs", "tst"];
/// Of mitdb.
const HZ: f64 = 360.0;
const SAMPLE_N: i64 = 650_000;
/// 150 ms.
const WINDOW_N: i64 = 54;
const FIVE_MINUTES: Period = Period { start_idx: 5 * 60 * 360, end_idx: SAMPLE_N };
const WHOLE: Period = Period { start_idx: 0, end_idx: SAMPLE_N };

/// `$ECGPIPE_DATA`, if it has the golden files.
fn data() -> Option<PathBuf> {
    let data = std::env::var_os("ECGPIPE_DATA").filter(|data| !data.is_empty()).map(PathBuf::from);
    let data = data.filter(|data| data.join("golden/bxb").is_dir() && data.join("mitdb").is_dir());
    if data.is_none() {
        eprintln!("skipped: set ECGPIPE_DATA to a folder with `mitdb` and `golden/bxb` in it");
    }
    data
}

fn read(record: &Path, annotator: &str) -> Annotator {
    let timing = Timing { sampling_frequency_hz: Some(HZ), sample_n: Some(SAMPLE_N as u64) };
    let path = record.with_extension(annotator);
    let bytes = without_beat_before_the_record(&std::fs::read(&path).unwrap());
    let items = decode_annotations(bytes, &path.display().to_string(), timing).unwrap().items;
    let texts: Vec<_> = items.iter().map(|item| item.aux_text()).collect();
    let marks: Vec<Mark<'_>> = items
        .iter()
        .zip(&texts)
        .map(|(item, aux)| Mark {
            sample_idx: item.sample_idx as i64,
            symbol: item.code.symbol(),
            subtype: i32::from(item.subtype),
            aux,
        })
        .collect();
    Annotator::read(&marks, WINDOW_N)
}

/// wqrs puts the first beat of some records at sample -1. `bxb` and `rxr` read it and count it nowhere; the reader here
/// refuses it.
fn without_beat_before_the_record(bytes: &[u8]) -> Vec<u8> {
    // SKIP by -1 and a beat 0 samples on; then the next beat, one sample less from the start of the record.
    match bytes {
        [0x00, 0xec, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04, low, high, rest @ ..] => {
            let word = u16::from_le_bytes([*low, *high]) - 1;
            [&word.to_le_bytes(), rest].concat()
        }
        _ => bytes.to_vec(),
    }
}

/// By record: its name, the reference, and what is tested.
fn annotated(data: &Path, annotator: &str) -> Vec<(String, Annotator, Annotator)> {
    let list = std::fs::read_to_string(data.join("mitdb/RECORDS")).unwrap();
    let records = list.lines().map(|record| {
        let reference = read(&data.join("mitdb").join(record), "atr");
        let test = read(&data.join("golden/bxb").join(annotator).join(record), annotator);
        (record.to_owned(), reference, test)
    });
    let records: Vec<_> = records.collect();
    assert_eq!(records.len(), 48);
    records
}

/// Fails with the first line that differs.
fn check(data: &Path, annotator: &str, file: &str, written: &str) {
    let golden = std::fs::read_to_string(data.join("golden/bxb").join(annotator).join(file)).unwrap();
    for (line, (written, golden)) in (1..).zip(written.lines().zip(golden.lines())) {
        assert_eq!(written, golden, "{annotator}/{file}:{line}");
    }
    assert_eq!(written.len(), golden.len(), "{annotator}/{file} has as many bytes");
}

#[test]
fn beat_by_beat_files_are_those_of_bxb() {
    let Some(data) = data() else { return };
    for annotator in ANNOTATORS {
        let annotated = annotated(&data, annotator);
        let compare = |period: Period| -> Vec<(&str, Comparison)> {
            let compared = annotated.iter().map(|(record, reference, test)| {
                (record.as_str(), beat_by_beat::compare(reference, test, period, WINDOW_N))
            });
            compared.collect()
        };
        let (late, whole) = (compare(FIVE_MINUTES), compare(WHOLE));
        let [late, whole] = [&late, &whole].map(|compared| -> Vec<Scored<'_>> {
            let scored = compared.iter();
            scored.map(|(record, comparison)| Scored { record, sampling_frequency_hz: HZ, comparison }).collect()
        });
        let reports: String = late
            .iter()
            .map(|scored| {
                let beats = line_format::beat_report(scored, "atr", annotator, Sveb::AreNormal);
                beats + &line_format::shutdown_report(scored, Sveb::AreNormal)
            })
            .collect();
        let whole_reports: String =
            whole.iter().map(|scored| line_format::beat_report(scored, "atr", annotator, Sveb::Apart)).collect();
        for (file, written) in [
            ("ALL.line", line_format::beat_lines(&late, Sveb::AreNormal)),
            ("ALL.line.sumstats", line_format::beat_summary(&late, Sveb::AreNormal)),
            ("ALL.sd", line_format::shutdown_lines(&late, Sveb::AreNormal)),
            ("ALL.line_L", line_format::beat_lines(&late, Sveb::Apart)),
            ("ALL.line_L.sumstats", line_format::beat_summary(&late, Sveb::Apart)),
            ("ALL.sd_L", line_format::shutdown_lines(&late, Sveb::Apart)),
            ("ALL.line_L_f0", line_format::beat_lines(&whole, Sveb::Apart)),
            ("ALL.line_L_f0.sumstats", line_format::beat_summary(&whole, Sveb::Apart)),
            ("ALL.S_f0", whole_reports),
            ("ALL.report", reports),
        ] {
            check(&data, annotator, file, &written);
        }
    }
}

#[test]
fn run_by_run_files_are_those_of_rxr() {
    let Some(data) = data() else { return };
    for annotator in ANNOTATORS {
        let annotated = annotated(&data, annotator);
        for (ectopy, file) in [(Ectopy::Ventricular, "ALL.rxr_v"), (Ectopy::Supraventricular, "ALL.rxr_s")] {
            let compared = annotated.iter().map(|(record, reference, test)| {
                (record.as_str(), run_by_run::compare(reference, test, FIVE_MINUTES, WINDOW_N, ectopy))
            });
            let runs: Vec<(&str, Runs)> = compared.collect();
            check(&data, annotator, file, &line_format::run_lines(&runs, ectopy));
        }
    }
}
