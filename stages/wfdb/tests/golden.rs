//! Files that wfdb-python 4.3.1 wrote (`make_fixtures.py`) hold what they should, and our signal bytes equal its.
//!
//! The other direction was checked by hand: wfdb-python reads the files of `examples/write_record.rs` to equal values.

use std::path::Path;

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Format, INVALID_I16, INVALID_I32, Record, Samples, Timing, encode_record,
    read_annotations, read_record,
};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Record {
    read_record(fixture(name)).expect("the fixture is valid")
}

/// What we write for the record has the bytes of the fixture's signal file.
fn check_signal_bytes(record: &Record) {
    let files = encode_record(record).expect("a record that was read can be written");
    let [(_, header), (file_name, bytes)] = &files[..] else { panic!("a header and one signal file") };
    assert_eq!(bytes, &std::fs::read(fixture(file_name)).expect("the fixture is there"), "{file_name}");
    let again = ecgpipe_wfdb::decode_record(header, "again.hea", |_| Ok(bytes)).expect("valid");
    assert_eq!(again.leads, record.leads);
}

#[test]
fn reads_format_212_with_an_odd_number_of_samples() {
    let record = read("odd212");
    assert_eq!(record.sample_n, 7);
    assert_eq!(record.leads[0].samples.as_i16(), Some(&[0, 1, -1, 2047, -2047, INVALID_I16, 995][..]));
    assert_eq!(record.leads[0].physical(6), -0.145);
    assert!(record.leads[0].physical(5).is_nan());
    check_signal_bytes(&record);
}

#[test]
fn reads_format_16_with_two_leads_and_every_header_field() {
    let record = read("two16.hea");
    assert_eq!(record.name(), "two16");
    assert_eq!(record.sampling_frequency_hz(), 257.5);
    assert_eq!(record.comments(), ["first comment", "age: 69"]);
    assert_eq!(record.header.base_time.expect("given").to_string(), "09:30:00.25");
    assert_eq!(record.header.base_date.expect("given").to_string(), "25/04/1989");
    let upper = record.lead("V1, upper").expect("by its full name");
    assert_eq!(upper.samples, Samples::Narrow(vec![100, -32767, 32767, INVALID_I16, 5]));
    assert_eq!(upper.samples.get(3), Some(INVALID_I32));
    let pressure = record.lead("ABP").expect("given");
    assert_eq!((pressure.units.as_str(), pressure.gain_adu_per_unit, pressure.baseline_adu), ("mmHg", 12.5, -3));
    assert_eq!(pressure.physical_iter().collect::<Vec<_>>(), [-0.32, 0.24, 0.8, 1.36, 1.92]);
    check_signal_bytes(&record);
}

#[test]
fn reads_the_other_fixed_formats() {
    let record = read("one24");
    assert_eq!(record.header.signals[0].format, Format::Fixed24);
    assert_eq!(record.leads[0].samples, Samples::Wide(vec![0, -1, 8_388_607, -8_388_607, INVALID_I32]));
    check_signal_bytes(&record);

    let record = read("one32");
    assert_eq!(record.leads[0].samples, Samples::Wide(vec![0, -1, i32::MAX, -i32::MAX, INVALID_I32]));
    check_signal_bytes(&record);

    let record = read("two80");
    assert_eq!(record.leads[0].samples, Samples::Narrow(vec![0, 127, -127]));
    assert_eq!(record.leads[1].samples, Samples::Narrow(vec![1, INVALID_I16, 3]));
    check_signal_bytes(&record);
}

#[test]
fn reads_everything_that_an_annotation_carries() {
    let annotations = read_annotations(fixture("two16"), "atr", Timing::default()).expect("the fixture is valid");
    let annotation = |sample_idx, symbol, subtype, chan, num, aux: &str| Annotation {
        sample_idx,
        code: AnnotationCode::from_symbol(symbol).expect("a symbol"),
        subtype,
        chan,
        num,
        aux: aux.as_bytes().to_vec(),
    };
    let expected = [
        annotation(0, "+", 0, 0, 0, "(AFIB"),
        annotation(5, "N", 0, 0, 2, ""),
        annotation(1028, "V", 0, 1, 2, ""),
        annotation(1029, "~", 1, 1, 0, ""),
        annotation(70_000, "A", 0, 0, 0, "even"),
        annotation(3_000_000_000, "/", 3, 0, 5, ""),
    ];
    assert_eq!(annotations.items, expected);
    assert_eq!(annotations.time_resolution_hz, None);
}

#[test]
fn reads_a_time_resolution_and_a_definition() {
    let annotations = read_annotations(fixture("two16"), "qrs", Timing::default()).expect("the fixture is valid");
    assert_eq!(annotations.time_resolution_hz, Some(250.0));
    assert_eq!(annotations.definitions.len(), 1);
    assert_eq!(annotations.definitions[&42].symbol, "z");
    assert_eq!(annotations.definitions[&42].description, "a code of my own");
    let found: Vec<_> = annotations.items.iter().map(|item| (item.sample_idx, item.code.number())).collect();
    assert_eq!(found, [(10, 1), (20, 42)]);
}

#[test]
fn converts_positions_to_the_samples_of_the_record() {
    let timing = Timing { sampling_frequency_hz: Some(360.0), sample_n: Some(650_000) };
    let annotations = read_annotations(fixture("two16"), "qrs", timing).expect("the fixture is valid");
    // 10 and 20 at 250 Hz are 14.4 and 28.8 at 360 Hz.
    assert_eq!(annotations.items.iter().map(|item| item.sample_idx).collect::<Vec<_>>(), [14, 29]);
    assert_eq!(annotations.time_resolution_hz, Some(360.0));
}
