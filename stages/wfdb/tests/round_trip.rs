//! Properties: what is written reads back equal.

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, CodeDefinition, Format, INVALID_I16, Lead, Record, Samples, Timing,
    WfdbError, decode_annotations, decode_record, encode_annotations, encode_record, read_annotations, read_record,
    write_annotations, write_record,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn lead(name: String, samples: Vec<i16>) -> Lead {
    Lead {
        name,
        units: "mV".to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 1024,
        samples_per_frame: 1,
        samples: Samples::Narrow(samples),
    }
}

fn decode(files: &[(String, Vec<u8>)]) -> Result<Record, WfdbError> {
    let load = |name: &str| Ok(&files.iter().find(|(file_name, _)| file_name == name).expect("it was written").1);
    decode_record(&files[0].1, &files[0].0, load)
}

/// One to four leads of equal length, of samples that the format holds.
fn columns(format: Format) -> impl Strategy<Value = Vec<Vec<i16>>> {
    let limit = match format {
        Format::Offset8 => 127,
        Format::Packed212 => 2047,
        _ => i16::MAX,
    };
    let sample = prop_oneof![9 => -limit..=limit, 1 => Just(INVALID_I16)];
    (1..=4_usize, prop_oneof![1..40_usize, 4090..4110_usize])
        .prop_flat_map(move |(lead_n, sample_n)| vec(vec(sample.clone(), sample_n), lead_n))
}

fn check_record(format: Format, columns: Vec<Vec<i16>>) -> Result<(), TestCaseError> {
    let sample_n = columns[0].len() as u64;
    let leads = columns.into_iter().enumerate().map(|(idx, samples)| lead(format!("lead {idx}"), samples)).collect();
    let record = Record::new("made", 360.0, format, leads).expect("valid");
    let read = decode(&encode_record(&record).expect("it can be written")).expect("it reads back");
    prop_assert_eq!(&read.leads, &record.leads);
    prop_assert_eq!(read.sample_n, sample_n);
    // A second trip changes nothing at all.
    prop_assert_eq!(decode(&encode_record(&read).expect("it can be written")).expect("it reads back"), read);
    Ok(())
}

fn annotations() -> impl Strategy<Value = Annotations> {
    let interval = prop_oneof![0..3_u64, 1020..1027_u64, 0..100_000_u64, (1 << 31) - 2..(1_u64 << 31) + 1030];
    let rest = (1..=49_u8, any::<i8>(), any::<u8>(), any::<i8>(), vec(any::<u8>(), 0..256));
    let items = vec((interval, rest), 0..40).prop_map(|items| {
        let mut sample_idx = 0;
        let make = |(interval, (code, subtype, chan, num, aux))| {
            sample_idx += interval;
            let code = AnnotationCode::new(code).expect("1 to 49");
            Annotation { sample_idx, code, subtype, chan, num, aux }
        };
        items.into_iter().map(make).collect::<Vec<_>>()
    });
    let definitions = proptest::collection::btree_map(1..=49_u8, ("[a-z]{1,3}", "[a-z ]{0,20}"), 0..3);
    (items, definitions, proptest::option::of(0.001..1e9_f64)).prop_map(|(items, definitions, time_resolution_hz)| {
        let definitions = definitions
            .into_iter()
            .map(|(code, (symbol, description))| (code, CodeDefinition { symbol, description }))
            .collect();
        Annotations { items, definitions, time_resolution_hz }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn format_212_reads_back_equal(columns in columns(Format::Packed212)) {
        check_record(Format::Packed212, columns)?;
    }

    #[test]
    fn format_16_reads_back_equal(columns in columns(Format::Fixed16)) {
        check_record(Format::Fixed16, columns)?;
    }

    #[test]
    fn other_formats_read_back_equal(
        columns in columns(Format::Offset8),
        format in proptest::sample::select(vec![Format::Offset8, Format::BigEndian16, Format::Offset16]),
    ) {
        check_record(format, columns)?;
    }

    /// The checksum sees every change of one byte. (Only the last half byte of an odd number of samples is no sample.)
    #[test]
    fn a_flipped_byte_is_found(
        columns in columns(Format::Packed212).prop_filter("an even number", |columns| columns[0].len() % 2 == 0),
        format in proptest::sample::select(vec![Format::Packed212, Format::Fixed16]),
        at in any::<proptest::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let leads = columns.into_iter().map(|samples| lead("MLII".to_owned(), samples)).collect();
        let record = Record::new("made", 360.0, format, leads).expect("valid");
        let mut files = encode_record(&record).expect("it can be written");
        let data = &mut files[1].1;
        let at = at.index(data.len());
        data[at] ^= flip;
        let error = decode(&files).expect_err("one byte is wrong");
        prop_assert!(matches!(error, WfdbError::Checksum { .. } | WfdbError::InitialValue { .. }), "{error}");
    }

    #[test]
    fn annotations_read_back_equal(annotations in annotations()) {
        let bytes = encode_annotations(&annotations).expect("valid");
        prop_assert_eq!(decode_annotations(&bytes, "made.atr", Timing::default()).expect("valid"), annotations);
    }

    /// Whatever the bytes, there is an answer, and an accepted file is written again to what reads equal.
    #[test]
    fn any_annotation_bytes_have_an_answer(bytes in vec(any::<u8>(), 0..60)) {
        if let Ok(annotations) = decode_annotations(&bytes, "any.atr", Timing::default()) {
            let again = encode_annotations(&annotations).expect("valid");
            prop_assert_eq!(decode_annotations(&again, "any.atr", Timing::default()).expect("valid"), annotations);
        }
    }

    /// Whatever the header, there is an answer, without a panic and without an allocation by its word.
    #[test]
    fn any_header_has_an_answer(
        text in "[a-z]{1,3}(/[0-9]{1,10})? [0-9]{1,2} [-0-9./()e]{1,8} [0-9]{0,20}[ -~]{0,9}\n(r\\.dat [0-9]{1,3}[x:+]?[0-9]{0,20} [ -~]{0,30}\n){0,3}",
        data in vec(any::<u8>(), 0..50),
    ) {
        let _ = decode_record(&text, "any.hea", |_| Ok(&data));
    }
}

#[test]
fn wide_samples_and_frames_of_several_samples_read_back_equal() {
    let mut fast = lead("fast".to_owned(), vec![1, 2, 3, 4, 5, 6]);
    fast.samples_per_frame = 3;
    let slow = lead("slow".to_owned(), vec![-1, -2]);
    let mut record = Record::new("made", 100.0, Format::Packed212, vec![slow.clone(), slow]).expect("valid");
    record.leads[1] = fast;
    record.header.signals[1].samples_per_frame = 3;
    let files = encode_record(&record).expect("it can be written");
    assert_eq!(decode(&files).expect("it reads back").leads, record.leads);

    let wide = Lead { samples: Samples::Wide(vec![1 << 20, -5, i32::MIN]), ..lead("wide".to_owned(), Vec::new()) };
    let record = Record::new("made", 100.0, Format::Fixed24, vec![wide]).expect("valid");
    assert_eq!(decode(&encode_record(&record).expect("it can be written")).expect("it reads back").leads, record.leads);
}

#[test]
fn several_files_with_a_byte_offset_read_as_one_record() {
    let header = "r 3 360 2\na.dat 16+3 200 16 0\nb.dat 80 200 8 0\nb.dat 80 200 8 0\n";
    let record = decode_record(header, "r.hea", |name| {
        Ok(if name == "a.dat" { vec![9, 9, 9, 1, 0, 2, 0] } else { vec![128, 129, 130, 131] })
    })
    .expect("valid");
    let columns: Vec<Vec<i32>> = record.leads.iter().map(|lead| lead.samples.iter().collect()).collect();
    assert_eq!(columns, [[1, 2], [0, 2], [1, 3]]);
    // It is written without the offset.
    let files = encode_record(&record).expect("it can be written");
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["r.hea", "a.dat", "b.dat"]);
    assert_eq!(decode(&files).expect("it reads back").leads, record.leads);
}

#[test]
fn the_length_follows_from_the_file_if_the_header_has_none() {
    for header in ["r 2 360\nr.dat 212\nr.dat 212\n", "r 2 360 0\nr.dat 212\nr.dat 212\n"] {
        let record = decode_record(header, "r.hea", |_| Ok([1, 0, 2, 3, 0, 4])).expect("valid");
        assert_eq!(record.sample_n, 2);
    }
}

#[test]
fn an_odd_end_of_212_may_be_a_padded_triple() {
    let header = "r 1 360 3\nr.dat 212\n";
    for bytes in [&[1, 0, 2, 3, 0][..], &[1, 0, 2, 3, 0, 0][..]] {
        let record = decode_record(header, "r.hea", |_| Ok(bytes)).expect("valid");
        assert_eq!(record.leads[0].samples, Samples::Narrow(vec![1, 2, 3]));
    }
    let error = decode_record(header, "r.hea", |_| Ok([1, 0, 2, 3, 0, 4])).expect_err("a fourth sample");
    assert!(error.to_string().contains("1 too many"), "{error}");
}

#[test]
fn files_read_back_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let record =
        Record::new("r-1", 360.0, Format::Packed212, vec![lead("MLII".to_owned(), vec![5; 100])]).expect("valid");
    write_record(folder.path(), &record).expect("it can be written");
    for path in ["r-1", "r-1.hea", "r-1.dat"] {
        assert_eq!(read_record(folder.path().join(path)).expect("valid").leads, record.leads, "{path}");
    }
    let beat = Annotation::new(99, AnnotationCode::NORMAL);
    let annotations = Annotations { items: vec![beat], ..Annotations::default() };
    write_annotations(folder.path().join("r-1.hea"), "qrs", &annotations).expect("it can be written");
    let read = read_annotations(folder.path().join("r-1"), "qrs", record.timing()).expect("valid");
    assert_eq!(read, annotations);
}
