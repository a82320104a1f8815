//! Files that wfdb-python 4.3.1 wrote or read (`make_fixtures.py`) hold what they should, and our signal bytes equal its.
//!
//! For the other direction, see `wfdb_python.rs`.

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

/// `NAME.expected` of a record, as wfdb-python read it: `None` for an invalid sample.
fn expected<T: std::str::FromStr>(name: &str) -> Vec<Vec<Option<T>>> {
    let text = std::fs::read_to_string(fixture(&format!("{name}.expected"))).expect("the fixture is there");
    let value = |word: &str| match word {
        "-" => None,
        _ => Some(word.parse().ok().expect("a number")),
    };
    text.lines().map(|line| line.split(' ').map(value).collect()).collect()
}

/// Bytes of no meaning: every bit of a format's layout, ends of one and two samples, differences, skews, a byte offset,
/// two files, two samples a frame.
#[test]
fn reads_what_wfdb_python_reads() {
    let names =
        ["raw61", "raw160", "raw310", "raw311", "one310", "two310", "one311", "two311", "raw8", "skewed", "flacx2"];
    for name in names {
        let valid = |sample| (sample != INVALID_I32).then_some(sample);
        let record = read(name);
        let found: Vec<Vec<Option<i32>>> =
            record.leads.iter().map(|lead| lead.samples.iter().map(valid).collect()).collect();
        assert_eq!(found, expected(name), "{name}");
    }
}

/// `wave` of `make_fixtures.py`.
fn wave(sample_n: i32, lead_idx: i32, height: i32) -> Vec<i32> {
    let sample = |idx: i32| {
        let phase = (idx + 37 * lead_idx) % 200;
        let bow = i64::from(phase) * (200 - i64::from(phase)) * i64::from(height) / 10_000;
        i32::try_from(bow).expect("at most the height") + (idx + 37 * lead_idx) * 7919 % 13 - height / 2
    };
    (0..sample_n).map(sample).collect()
}

#[test]
fn reads_flac_of_every_width() {
    for (name, lead_n, sample_n, height) in
        [("flac508", 1, 500, 200), ("flac516", 2, 9000, 3000), ("flac524", 3, 300, 3_000_000)]
    {
        // Checksums and initial values of wfdb-python hold: the reader has compared them.
        let record = read(name);
        assert!(record.header.signals.iter().all(|signal| signal.checksum.is_some()), "{name}");
        assert_eq!(record.leads.len(), lead_n, "{name}");
        for (lead_idx, lead) in (0..).zip(&record.leads) {
            assert_eq!(lead.samples.iter().collect::<Vec<_>>(), wave(sample_n, lead_idx, height), "{name}");
        }
    }
}

/// Ranges of a FLAC stream of several blocks, forwards and backwards.
#[test]
fn reads_any_part_of_a_flac_stream() {
    let columns = [wave(9000, 0, 3000), wave(9000, 1, 3000)];
    let mut reader = ecgpipe_wfdb::RecordReader::open(fixture("flac516")).expect("the fixture is valid");
    for frames in [8999..9000, 0..10, 4090..4100, 100..8500, 4096..4097, 8192..8192, 0..9000] {
        let chunk = reader.read(frames.clone()).expect("in the record");
        for (column, samples) in columns.iter().zip(&chunk.samples) {
            let wanted = &column[frames.start as usize..frames.end as usize];
            assert_eq!(samples.iter().collect::<Vec<_>>(), wanted, "{frames:?}");
        }
    }
    for frame_n in [1, 7, 4096, 5000] {
        let mut samples = Vec::new();
        for chunk in reader.chunks(frame_n) {
            samples.extend(chunk.expect("valid").samples[1].iter());
        }
        assert_eq!(samples, columns[1]);
    }
}

/// Fixed layout with another gain in the second segment; variable layout with signals that come and go, a gap, and
/// other gains and baselines. wfdb-python converts each segment by its own gain, this crate to the layout's ADC units
/// first: half a unit is the difference.
#[test]
fn reads_segments_as_wfdb_python_does() {
    for name in ["fixed", "variable"] {
        let record = read(name);
        let expected = expected::<f64>(name);
        assert_eq!(record.leads.len(), expected.len(), "{name}");
        for (lead, column) in record.leads.iter().zip(expected) {
            assert_eq!(lead.samples.len(), column.len(), "{name}, {}", lead.name);
            for (idx, (found, wanted)) in lead.physical_iter().zip(column).enumerate() {
                let half_unit = 0.5001 / lead.gain_adu_per_unit;
                match wanted {
                    None => assert!(found.is_nan(), "{name}, {}, sample {idx}: {found}", lead.name),
                    Some(wanted) => {
                        let miss = (f64::from(found) - wanted).abs();
                        assert!(miss <= half_unit, "{name}, {}, sample {idx}: {found} for {wanted}", lead.name);
                    }
                }
            }
        }
    }
}
