//! wfdb-python, a tool independent of this crate, reads what is written here, if `ECGPIPE_TEST_WFDB_PYTHON` names a Python
//! that has it (`pip install wfdb==4.3.1`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, CodeDefinition, Format, INVALID_I32, Lead, Record, Samples,
    write_annotations, write_record,
};

/// Prints a record as the test does: fields, one line a signal with `-` for an invalid sample, one line an annotation.
const SHOW: &str = r#"
import sys, numpy as np, wfdb
for name in sys.argv[1:]:
    record = wfdb.rdrecord(name, smooth_frames=False)
    print(record.record_name, f"{record.fs:g}", record.sig_len, *record.comments, sep="|")
    for idx, column in enumerate(record.e_p_signal):
        gain, baseline = record.adc_gain[idx], record.baseline[idx]
        print(record.sig_name[idx], record.units[idx], f"{gain:g}", baseline, record.fmt[idx], record.samps_per_frame[idx], sep="|")
        print(" ".join("-" if np.isnan(value) else str(round(value * gain + baseline)) for value in column))
    # Its own checksum over the samples that it read.
    digital = wfdb.rdrecord(name, physical=False)
    if max(record.samps_per_frame) == 1:
        print(*[int(code.astype("int64").sum() % 65536) == sum_ % 65536 for code, sum_ in zip(digital.d_signal.T, record.checksum)])
    notes = wfdb.rdann(name, "atr")
    print(f"{notes.fs:g}")
    for fields in zip(notes.sample, notes.symbol, notes.subtype, notes.chan, notes.num, notes.aux_note):
        print(*fields, sep="|")
"#;

fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("ECGPIPE_TEST_WFDB_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        // Not `eprintln!`, which the test harness swallows.
        writeln!(std::io::stderr(), "skipped: set ECGPIPE_TEST_WFDB_PYTHON to a Python that has wfdb").expect("stderr");
    }
    python
}

/// Samples of the format's whole range, with invalid ones where it has them.
fn samples(format: Format, sample_n: usize, seed: i64) -> Samples {
    let (limit, invalid) = match format {
        Format::Difference8 => (63, None),
        Format::Offset8 => (127, Some(i32::MIN)),
        Format::Packed310 | Format::Packed311 => (511, Some(i32::MIN)),
        Format::Packed212 => (2047, Some(i32::MIN)),
        Format::Fixed24 => ((1 << 23) - 1, Some(i32::MIN)),
        Format::Fixed32 => (i64::from(i32::MAX), Some(i32::MIN)),
        _ => (i64::from(i16::MAX), Some(i32::MIN)),
    };
    let sample = |idx: i64| match (idx % 17, invalid) {
        (3, Some(invalid)) => invalid,
        (5, _) => limit as i32,
        (6, _) => -limit as i32,
        _ => ((idx + seed) * 7_919_333 % (2 * limit + 1) - limit) as i32,
    };
    Samples::Wide((0..sample_n as i64).map(sample).collect())
}

fn record(name: &str, format: Format, samples_per_frame: &[u32], frame_n: usize) -> Record {
    let lead = |(idx, samples_per_frame): (usize, &u32)| Lead {
        name: format!("lead {idx}, upper"),
        units: if idx == 0 { "mV" } else { "mmHg" }.to_owned(),
        gain_adu_per_unit: [200.0, 12.5, 1000.0][idx],
        baseline_adu: [0, -3, 11][idx],
        samples_per_frame: *samples_per_frame,
        samples: samples(format, frame_n * *samples_per_frame as usize, idx as i64),
    };
    let leads: Vec<Lead> = samples_per_frame.iter().enumerate().map(lead).collect();
    let short = leads.iter().map(|lead| Lead { samples_per_frame: 1, samples: Samples::Wide(vec![0]), ..lead.clone() });
    let mut record = Record::new(name, 257.5, format, short.collect()).expect("valid");
    for (signal, lead) in record.header.signals.iter_mut().zip(&leads) {
        signal.samples_per_frame = lead.samples_per_frame;
    }
    (record.leads, record.sample_n) = (leads, frame_n as u64);
    record.header.comments.push("age: 69".to_owned());
    record
}

fn annotations() -> Annotations {
    let text = |text: &str| text.as_bytes().to_vec();
    let custom = AnnotationCode::new(42).expect("1 to 49");
    let items = vec![
        Annotation { aux: text("(AFIB"), ..Annotation::new(0, AnnotationCode::RHYTHM) },
        Annotation::new(1, AnnotationCode::NORMAL),
        Annotation { chan: 1, num: 2, ..Annotation::new(1024, AnnotationCode::PVC) },
        Annotation { subtype: 1, chan: 1, num: 2, aux: text("even"), ..Annotation::new(1025, AnnotationCode::NOISE) },
        Annotation::new(70_000, custom),
        Annotation::new(3_000_000_000, AnnotationCode::SVPB),
    ];
    let definition = CodeDefinition { symbol: "z".to_owned(), description: "a code of my own".to_owned() };
    Annotations { items, time_resolution_hz: Some(257.5), definitions: [(42, definition)].into() }
}

/// What [`SHOW`] must print.
fn expected(record: &Record, annotations: &Annotations) -> String {
    let mut text = String::new();
    let comments = record.comments().join("|");
    writeln!(text, "{}|{}|{}|{comments}", record.name(), record.sampling_frequency_hz(), record.sample_n)
        .expect("memory");
    for (lead, signal) in record.leads.iter().zip(&record.header.signals) {
        let Lead { name, units, gain_adu_per_unit, baseline_adu, samples_per_frame, .. } = lead;
        let format = signal.format;
        writeln!(text, "{name}|{units}|{gain_adu_per_unit}|{baseline_adu}|{format}|{samples_per_frame}")
            .expect("memory");
        let shown = |sample: i32| if sample == INVALID_I32 { "-".to_owned() } else { sample.to_string() };
        writeln!(text, "{}", lead.samples.iter().map(shown).collect::<Vec<_>>().join(" ")).expect("memory");
    }
    if record.leads.iter().all(|lead| lead.samples_per_frame == 1) {
        writeln!(text, "{}", vec!["True"; record.leads.len()].join(" ")).expect("memory");
    }
    writeln!(text, "{}", annotations.time_resolution_hz.expect("given")).expect("memory");
    for item in &annotations.items {
        let symbol = annotations.definitions.get(&item.code.number()).map_or(item.code.symbol(), |own| &own.symbol);
        let Annotation { sample_idx, subtype, chan, num, .. } = item;
        writeln!(text, "{sample_idx}|{symbol}|{subtype}|{chan}|{num}|{}", item.aux_text()).expect("memory");
    }
    text
}

fn show(python: &std::ffi::OsStr, folder: &Path, names: &[String]) -> String {
    let output = Command::new(python).args(["-c", SHOW]).args(names).current_dir(folder).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").replace("\r\n", "\n")
}

#[test]
fn wfdb_python_reads_every_format_that_is_written() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut names, mut wanted) = (Vec::new(), String::new());
    for format in Format::ALL.into_iter().filter(|format| format.is_writable()) {
        for (shape_idx, (samples_per_frame, frame_n)) in
            [(&[1][..], 7), (&[1, 1], 1001), (&[1, 1, 1], 500), (&[2, 1, 3], 100)].into_iter().enumerate()
        {
            let name = format!("r{format}_{shape_idx}");
            let record = record(&name, format, samples_per_frame, frame_n);
            write_record(folder.path(), &record).expect("it can be written");
            write_annotations(folder.path().join(&name), "atr", &annotations()).expect("they can be written");
            wanted += &expected(&record, &annotations());
            names.push(name);
        }
    }
    let found = show(&python, folder.path(), &names);
    for (line_idx, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "line {line_idx}");
    }
    assert_eq!(found.lines().count(), wanted.lines().count());
}
