//! Tests of `infer` from files to findings.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use ecgpipe_formats::npy;
use ecgpipe_nn::{BaselineConfig, Beats, Samples, Signature, export, train_baseline};
use ecgpipe_sdk::{Kind, Onnx, RecordId};
use ecgpipe_tables::rhythm::NAMES;
use ecgpipe_wfdb::{Lead, Record, read_record, write_record};
use serde_json::{Value, json};

use super::*;
use crate::{
    aami::{AamiClass, EscapeRule},
    dataset::align,
    detect_peaks,
    ingest_wfdb::{AnnotationRule, Source, ingest, record_files},
    normalise::min_max,
    rhythm, synthesise, window,
};

/// Invented patients, each with a record `pNNN`, and a model that learned from them.
struct Project {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

const PATIENT_N: usize = 8;

static PROJECT: LazyLock<Project> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let params = synthesise::Params { duration_s: 60.0, two_leads_fraction: 1.0, ..Default::default() };
    let (mut windows, mut features, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for patient_idx in 0..PATIENT_N {
        for file in synthesise::invent(&params, patient_idx, patient_idx as u64).unwrap() {
            fs::write(path.join(file.name), file.bytes).unwrap();
        }
        let record = RecordId::new(&format!("p{:03}", patient_idx + 1)).unwrap();
        let (files, ..) = record_files(&path.join(record.as_str()), &record, "atr", AnnotationRule::Required).unwrap();
        let (signals, annotations) =
            ingest(&record, record.as_str(), "atr", AnnotationRule::Required, Source::Files(&files)).unwrap();
        let beats = detect_peaks::find(&Default::default(), &signals, Some(&annotations)).unwrap();
        let cut = min_max(&window::cut(&window::Params::default(), &signals, &beats).unwrap());
        let rows = align(&cut, &rhythm::features(&rhythm::Params::default(), &beats).unwrap());
        for (row_idx, symbol) in cut.windows.symbol.iter().enumerate() {
            let Some(class) = symbol.as_deref().and_then(|symbol| EscapeRule::DeChazal.class(symbol)) else { continue };
            windows.extend_from_slice(cut.windows.window(row_idx));
            features.extend_from_slice(&rows[row_idx * NAMES.len()..][..NAMES.len()]);
            labels.push(class.index() as u8);
        }
    }
    let config = BaselineConfig {
        require_every_class: false,
        row_n: 2000,
        ..BaselineConfig::new(Signature::aami(NAMES.map(str::to_owned).to_vec()))
    };
    let beats = Beats { windows: &windows, features: Some(&features) };
    let model = train_baseline(&config, Samples { beats, labels: &labels }).unwrap();
    let metadata = BTreeMap::from([("ecgpipe.window.before_n".to_owned(), "90".to_owned())]);
    let bytes = export(&model, &metadata).unwrap();
    fs::write(path.join("bare.onnx"), &bytes).unwrap();
    let provenance = preparation::tests::provenance(json!({}), json!({}));
    fs::write(path.join("model.onnx"), Onnx::stamp(bytes.into(), &provenance)).unwrap();
    Project { _folder: folder, path }
});

/// Findings of an input below `folder`, from ONNX Runtime if this machine has it, else from tract.
fn infer_in(folder: &Path, input: &str, model: &str, lead: Option<&str>, format: Format) -> Result<String, StageError> {
    let (input, model) = (folder.join(input), folder.join(model));
    let data_folder = folder.join("no-such-folder");
    run(&Request { input: &input, model: &model, lead, format, data_folder: &data_folder, offline: true })
}

fn infer(input: &str, format: Format) -> String {
    infer_in(&PROJECT.path, input, "model.onnx", None, format).unwrap()
}

fn json_of(input: &str) -> Value {
    serde_json::from_str(&infer(input, Format::Json)).unwrap()
}

/// The message and the advice for a folder that `change` was done to.
fn check_error(change: impl Fn(&Path), input: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["p001.hea", "p001.dat", "p001.atr", "model.onnx"] {
        fs::copy(PROJECT.path.join(name), folder.path().join(name)).unwrap();
    }
    change(folder.path());
    let error = infer_in(folder.path(), input, "model.onnx", None, Format::Text).unwrap_err();
    let text = format!("{error}").replace(&folder.path().display().to_string(), "DIR");
    assert!(text.contains(expected) && error.help.is_some(), "{text}\nhelp: {:?}", error.help);
}

#[test]
fn findings_agree_with_the_reference() {
    let (mut right_n, mut beat_n, mut ventricular) = (0, 0, (0, 0));
    for patient in 1..=PATIENT_N {
        let name = format!("p{patient:03}");
        let path = PROJECT.path.join(&name);
        let timing = read_record(&path).unwrap().timing();
        let reference = ecgpipe_wfdb::read_annotations(&path, "atr", timing).unwrap().items;
        let findings = json_of(&name);
        let hz = findings["record"]["sampling_frequency_hz"].as_f64().unwrap();
        for mark in reference.iter().filter(|mark| mark.code.is_beat()) {
            let class = EscapeRule::DeChazal.class(mark.code.symbol()).unwrap();
            let near =
                |beat: &&Value| (beat["sample_idx"].as_f64().unwrap() - mark.sample_idx as f64).abs() < 0.15 * hz;
            let found =
                findings["beats"].as_array().unwrap().iter().find(near).map(|beat| beat["class"].as_str().unwrap());
            beat_n += 1;
            right_n += usize::from(found == Some(class.letter()));
            if class == AamiClass::V {
                ventricular = (ventricular.0 + usize::from(found == Some("V")), ventricular.1 + 1);
            }
        }
    }
    assert!(right_n * 100 >= beat_n * 95, "{right_n} of {beat_n} beats");
    assert!(ventricular.0 * 100 >= ventricular.1 * 90, "{ventricular:?} ventricular beats");
}

#[test]
fn the_three_forms_tell_the_same() {
    let json = json_of("p003");
    let beats = json["beats"].as_array().unwrap();
    let csv = infer("p003", Format::Csv);
    let mut lines = csv.lines();
    let head = "beat_idx,sample_idx,time_s,class,probability,uncertain,probability_N,probability_S,probability_V,probability_F,probability_Q,rr_before_s";
    assert_eq!(lines.next(), Some(head));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), beats.len());
    for (row, beat) in rows.iter().zip(beats) {
        assert_eq!(row.len(), 12);
        assert_eq!((row[1], row[3]), (beat["sample_idx"].to_string().as_str(), beat["class"].as_str().unwrap()));
        assert_eq!(row[4].parse::<f64>().unwrap(), beat["probability"].as_f64().unwrap());
        assert_eq!(row[11].parse::<f64>().ok(), beat["rr_before_s"].as_f64());
        let each: f64 = beat["probabilities"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
        assert!((each - 1.0).abs() < 1e-3, "{beat}");
    }
    let text = infer("p003", Format::Text);
    let flagged: Vec<&Value> = beats.iter().filter(|beat| beat["class"] != "N").collect();
    assert!(!flagged.is_empty() && flagged.len() < 200);
    for beat in flagged {
        let row = format!("{:>10}  {:<5}", beat["sample_idx"].as_i64().unwrap(), beat["class"].as_str().unwrap());
        assert!(text.contains(&row), "{row}\n{text}");
    }
    for class in json["summary"]["classes"].as_array().unwrap() {
        let found = beats.iter().filter(|beat| beat["class"] == class["class"]).count();
        assert_eq!(class["beat_n"], found);
    }
    assert!(text.contains("git commit 0123456789ab with uncommitted changes"), "{text}");
    let (name, version) = (json["engine"]["name"].as_str().unwrap(), json["engine"]["version"].as_str().unwrap());
    assert!(
        text.contains(&format!("Engine       {name} {version}\n")) && text.ends_with(&format!("{NOTICE}\n")),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 110 || line.contains("/tmp")), "{text}");
}

#[test]
fn findings_are_the_same_each_time() {
    for format in [Format::Text, Format::Json, Format::Csv] {
        let first = infer("p002", format);
        assert_eq!(first, infer("p002", format));
        assert_eq!(first, infer("p002.hea", format));
        assert_eq!(first, infer("p002.dat", format));
    }
}

#[test]
fn annotations_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["p001.hea", "p001.dat", "model.onnx"] {
        fs::copy(PROJECT.path.join(name), folder.path().join(name)).unwrap();
    }
    let bare = infer_in(folder.path(), "p001", "model.onnx", None, Format::Csv).unwrap();
    fs::write(folder.path().join("p001.atr"), b"\x01damaged").unwrap();
    assert_eq!(bare, infer_in(folder.path(), "p001", "model.onnx", None, Format::Csv).unwrap());
    assert_eq!(bare, infer("p001", Format::Csv));
}

/// One lead of a record as a text table, at the gain of the record: the same numbers, and so the same beats.
#[test]
fn a_table_has_the_findings_of_its_record() {
    let record = read_record(PROJECT.path.join("p001")).unwrap();
    let lead = record.lead("MLII").unwrap();
    let mut table = String::from("time (s),MLII (mV)\n");
    for (idx, value) in lead.physical_iter().enumerate() {
        table += &format!("{:.4},{value:.3}\n", idx as f64 / record.sampling_frequency_hz());
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holter.csv"), table).unwrap();
    fs::copy(PROJECT.path.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    let text = infer_in(folder.path(), "holter.csv", "model.onnx", None, Format::Json).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((found["record"]["name"].as_str(), found["record"]["lead"].as_str()), (Some("holter"), Some("MLII")));
    let places = |json: &Value| {
        let beats = json["beats"].as_array().unwrap();
        beats.iter().map(|beat| (beat["sample_idx"].clone(), beat["class"].clone())).collect::<Vec<_>>()
    };
    assert!(places(&found).len() > 50);
    assert_eq!(places(&found), places(&json_of("p001")));
}

#[test]
fn a_lead_is_chosen_by_name() {
    let of = |lead| infer_in(&PROJECT.path, "p001", "model.onnx", lead, Format::Json);
    let read = |lead| serde_json::from_str::<Value>(&of(lead).unwrap()).unwrap();
    let own = read(None);
    let leads: Vec<&str> =
        own["record"]["leads"].as_array().unwrap().iter().map(|lead| lead.as_str().unwrap()).collect();
    assert_eq!((leads.len(), own["record"]["lead"].as_str()), (2, Some("MLII")));
    assert_eq!(read(Some("mlii"))["beats"], own["beats"]);
    let other = leads.iter().find(|lead| **lead != "MLII").unwrap();
    let by_hand = read(Some(other));
    assert_eq!(by_hand["record"]["lead"], *other);
    assert_ne!(by_hand["beats"], own["beats"]);
    let error = of(Some("aVR")).unwrap_err();
    assert_eq!(error.to_string(), "record p001: there is no lead `aVR`");
    assert_eq!(error.help.unwrap(), format!("the record has the leads {}; choose one by `--lead`", leads.join(", ")));
}

/// Writes a record with the same voltages at another sampling frequency, by linear interpolation.
fn resampled(record: &Record, to_hz: f64, name: &str, folder: &Path) {
    let step = record.sampling_frequency_hz() / to_hz;
    let leads = record.leads.iter().map(|lead| {
        let samples: Vec<i32> = lead.samples.iter().collect();
        let at = |idx: usize| {
            let place = idx as f64 * step;
            let (before, part) = (place as usize, place.fract());
            let (a, b) = (f64::from(samples[before]), f64::from(samples[(before + 1).min(samples.len() - 1)]));
            (a + (b - a) * part).round() as i16
        };
        let sample_n = (samples.len() as f64 / step) as usize;
        Lead { samples: ecgpipe_wfdb::Samples::Narrow((0..sample_n).map(at).collect()), ..lead.clone() }
    });
    let record = Record::new(name, to_hz, ecgpipe_wfdb::Format::Fixed16, leads.collect()).unwrap();
    write_record(folder, &record).unwrap();
}

#[test]
fn sampling_frequencies_from_100_to_1000_hz_give_the_same_findings() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(PROJECT.path.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    let record = read_record(PROJECT.path.join("p003")).unwrap();
    let own = json_of("p003");
    let beat_n = own["summary"]["beat_n"].as_u64().unwrap();
    for hz in [100.0, 250.0, 500.0, 1000.0] {
        resampled(&record, hz, "other", folder.path());
        let json = infer_in(folder.path(), "other", "model.onnx", None, Format::Json).unwrap();
        let other: Value = serde_json::from_str(&json).unwrap();
        assert!(other["summary"]["beat_n"].as_u64().unwrap().abs_diff(beat_n) <= 1, "{hz} Hz");
        let same = own["beats"].as_array().unwrap().iter().filter(|beat| {
            let close = |at: &Value| (at["time_s"].as_f64().unwrap() - beat["time_s"].as_f64().unwrap()).abs() < 0.05;
            other["beats"].as_array().unwrap().iter().any(|at| close(at) && at["class"] == beat["class"])
        });
        let same_n = same.count() as u64;
        assert!(same_n * 100 >= beat_n * 95, "{hz} Hz: {same_n} of {beat_n}");
    }
}

/// Writes a record `name` of one lead in format 16.
fn write_samples(folder: &Path, name: &str, samples: Vec<i16>) {
    let lead = Lead {
        name: "MLII".to_owned(),
        units: "mV".to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 0,
        samples_per_frame: 1,
        samples: ecgpipe_wfdb::Samples::Narrow(samples),
    };
    write_record(folder, &Record::new(name, 360.0, ecgpipe_wfdb::Format::Fixed16, vec![lead]).unwrap()).unwrap();
}

#[test]
fn short_flat_and_missing_signals_are_told_and_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(PROJECT.path.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    let check = |samples: Vec<i16>, expected: &[&str]| {
        write_samples(folder.path(), "r", samples);
        let text = infer_in(folder.path(), "r", "model.onnx", None, Format::Text).unwrap();
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        for format in [Format::Json, Format::Csv] {
            infer_in(folder.path(), "r", "model.onnx", None, format).unwrap();
        }
    };
    check(vec![0], &["none found in lead MLII"]);
    check(vec![0; 50], &["none found in lead MLII", "no time without signal"]);
    check(vec![0; 3600], &["none found in lead MLII", "00:00:10.000 (100.0 %) without samples or flat, in 1 stretch"]);
    check(vec![i16::MIN; 3600], &["none found in lead MLII", "00:00:10.000 (100.0 %)"]);
    // Ten beats, three seconds without samples, ten beats: the pause is not one of the heart.
    let record = read_record(PROJECT.path.join("p001")).unwrap();
    let hz = record.sampling_frequency_hz();
    let mut samples: Vec<i16> = record.lead("MLII").unwrap().samples.iter().map(|sample| sample as i16).collect();
    samples.truncate((23.0 * hz) as usize);
    samples[(10.0 * hz) as usize..(13.0 * hz) as usize].fill(i16::MIN);
    check(samples, &["without samples or flat, in 1 stretch", "none over 2 s"]);
}

#[test]
fn bad_records_are_refused() {
    let rewritten = |name: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let text = fs::read_to_string(folder.join(name)).unwrap().replacen(from, to, 1);
            fs::write(folder.join(name), text).unwrap();
        }
    };
    check_error(|_| {}, "p999", "DIR/p999.hea: No such file");
    check_error(|_| {}, "", "DIR/: this is a folder");
    check_error(|_| {}, "p001.pdf", "p001.pdf.hea");
    check_error(
        |folder| fs::remove_file(folder.join("p001.dat")).unwrap(),
        "p001",
        "DIR/p001.dat: the header names this signal file",
    );
    check_error(
        |folder| {
            let bytes = fs::read(folder.join("p001.dat")).unwrap();
            fs::write(folder.join("p001.dat"), &bytes[..bytes.len() / 2]).unwrap();
        },
        "p001",
        "too few",
    );
    check_error(|folder| fs::write(folder.join("p001.hea"), b"").unwrap(), "p001", "p001.hea");
    check_error(rewritten("p001.hea", "mV", "mmHg"), "p001", "not in mV");
}

#[test]
fn bad_models_are_refused() {
    check_error(
        |folder| fs::remove_file(folder.join("model.onnx")).unwrap(),
        "p001",
        "DIR/model.onnx: there is no such model",
    );
    check_error(|folder| fs::write(folder.join("model.onnx"), b"hello").unwrap(), "p001", "are not an ONNX file");
    // Field 1 (the IR version) and an empty graph: ONNX, but of someone else.
    check_error(
        |folder| fs::write(folder.join("model.onnx"), b"\x08\x08\x3a\x00").unwrap(),
        "p001",
        "ecgpipe did not write it",
    );
    check_error(
        |folder| {
            let mut provenance = preparation::tests::provenance(json!({}), json!({}));
            provenance.stages.get_mut("scale").unwrap().uses = "z_score".to_owned();
            let bytes = fs::read(PROJECT.path.join("bare.onnx")).unwrap();
            fs::write(folder.join("model.onnx"), Onnx::stamp(bytes.into(), &provenance)).unwrap();
        },
        "p001",
        "of type `z_score`",
    );
}

#[test]
fn a_model_without_provenance_is_used_with_a_note() {
    let text = infer_in(&PROJECT.path, "p001", "bare.onnx", None, Format::Text).unwrap();
    assert!(text.contains("the model has no provenance"), "{text}");
}

#[test]
fn windows_are_judged_by_shape() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(PROJECT.path.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    let window: Vec<f32> = (0..187).map(|idx| (-((idx as f32 - 90.0) / 8.0).powi(2)).exp()).collect();
    let low = window.iter().copied().fold(1.0, f32::min);
    let window: Vec<f32> = window.iter().map(|value| (value - low) / (1.0 - low)).collect();
    let write = |shape: &[usize], values: &[f32]| {
        let bytes = npy::write(&npy::Array { shape: shape.to_vec(), values: values.to_vec() });
        fs::write(folder.path().join("w.npy"), bytes).unwrap();
    };
    let read = |format| infer_in(folder.path(), "w.npy", "model.onnx", None, format);
    let mut rows = Vec::new();
    for shape in [vec![187], vec![1, 187], vec![1, 1, 187]] {
        write(&shape, &window);
        rows.push(read(Format::Csv).unwrap());
    }
    assert!(rows[0].lines().count() == 2 && rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    write(&[3, 1, 187], &[window.clone(), window.clone(), vec![0.0; 187]].concat());
    let json: Value = serde_json::from_str(&read(Format::Json).unwrap()).unwrap();
    assert_eq!(json["windows"].as_array().unwrap().len(), 3);
    let text = read(Format::Text).unwrap();
    for part in ["3 of 187 samples", "Rhythm       not available", "flat, and so show no beat: 1", NOTICE] {
        assert!(text.contains(part), "{text}");
    }
    write(&[1, 187], &vec![-0.4; 187]);
    let error = read(Format::Text).unwrap_err();
    assert!(error.to_string().ends_with("sample 0 of window 0 is -0.4, outside [0, 1]"), "{error}");
    assert!(error.help.unwrap().starts_with("scale each window by itself"));
    write(&[1, 100], &[0.5; 100]);
    assert!(read(Format::Text).unwrap_err().to_string().ends_with("the shape is (1, 100)"));
    fs::write(folder.path().join("w.npy"), b"\x93NUMPY\x01\x00\xff\xff{}").unwrap();
    assert!(read(Format::Text).unwrap_err().to_string().contains("malformed .npy header"));
    let error = infer_in(folder.path(), "w.npy", "model.onnx", Some("V1"), Format::Text).unwrap_err();
    assert!(error.to_string().contains("holds windows, not leads"), "{error}");
    let error = infer_in(folder.path(), "none.npy", "model.onnx", None, Format::Text).unwrap_err();
    assert!(error.to_string().ends_with("none.npy: there is no such file"), "{error}");
}

#[test]
fn a_probability_that_is_not_a_number_has_no_class() {
    assert_eq!(most_probable(&[0.2, 0.4, 0.4]), Some(1));
    assert_eq!(most_probable(&[0.2, f32::NAN, 0.4]), None);
    assert_eq!(most_probable(&[]), None);
}
