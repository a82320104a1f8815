//! Properties: what is written reads back equal.

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, CodeDefinition, Format, INVALID_I16, INVALID_I32, Lead, Record,
    RecordReader, RecordWriter, Samples, Timing, WfdbError, decode_annotations, decode_record, encode_aha_annotations,
    encode_annotations, encode_record, read_annotations, read_record, salvage_annotations, write_annotations,
    write_record,
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

fn writable() -> impl Strategy<Value = Format> {
    proptest::sample::select(Format::ALL.into_iter().filter(|format| format.is_writable()).collect::<Vec<_>>())
}

/// One to four leads of samples that the format holds: one to three a frame, extremes and invalid ones among them.
fn leads(format: Format) -> impl Strategy<Value = Vec<Lead>> {
    let limit = match format {
        Format::Offset8 => 127,
        Format::Packed310 | Format::Packed311 => 511,
        Format::Packed212 => 2047,
        Format::Fixed24 => (1 << 23) - 1,
        Format::Fixed32 => i32::MAX,
        // Two of them are never more apart than one byte says.
        Format::Difference8 => 63,
        _ => i16::MAX.into(),
    };
    let rare = if format == Format::Difference8 { 0 } else { INVALID_I32 };
    let sample = prop_oneof![9 => -limit..=limit, 1 => Just(rare), 1 => Just(limit), 1 => Just(-limit)];
    let is_wide = matches!(format, Format::Fixed24 | Format::Fixed32 | Format::Difference8);
    let lead = move |idx: usize, samples: Vec<i32>, samples_per_frame: u32| {
        let narrow = |sample: &i32| i16::try_from(*sample).unwrap_or(INVALID_I16);
        let samples =
            if is_wide { Samples::Wide(samples) } else { Samples::Narrow(samples.iter().map(narrow).collect()) };
        Lead { samples_per_frame, samples, ..lead(format!("lead {idx}"), Vec::new()) }
    };
    (vec(1..4_u32, 1..5), prop_oneof![1..40_usize, 1360..1370_usize])
        .prop_flat_map(move |(samples_per_frame, frame_n)| {
            let column = |n: u32| (vec(sample.clone(), frame_n * n as usize), Just(n));
            samples_per_frame.into_iter().map(column).collect::<Vec<_>>()
        })
        .prop_map(move |columns| {
            columns.into_iter().enumerate().map(|(idx, (samples, n))| lead(idx, samples, n)).collect()
        })
}

/// A record of leads with several samples a frame.
fn record(format: Format, leads: Vec<Lead>) -> Record {
    let equal = leads.iter().map(|whole| lead(whole.name.clone(), vec![0])).collect();
    let mut record = Record::new("made", 360.0, format, equal).expect("valid");
    record.sample_n = leads[0].samples.len() as u64 / u64::from(leads[0].samples_per_frame);
    for (signal, lead) in record.header.signals.iter_mut().zip(&leads) {
        signal.samples_per_frame = lead.samples_per_frame;
    }
    record.leads = leads;
    record
}

/// Two leads of narrow samples.
fn columns(format: Format) -> impl Strategy<Value = Vec<Vec<i16>>> {
    let limit = if format == Format::Packed212 { 2047 } else { i16::MAX };
    (1..4_usize, 1..40_usize).prop_flat_map(move |(lead_n, sample_n)| vec(vec(-limit..=limit, sample_n), lead_n))
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
    fn every_writable_format_reads_back_equal((format, leads) in writable().prop_flat_map(|f| (Just(f), leads(f)))) {
        let record = record(format, leads);
        let read = decode(&encode_record(&record).expect("it can be written")).expect("it reads back");
        prop_assert_eq!(&read.leads, &record.leads);
        prop_assert_eq!(read.sample_n, record.sample_n);
        // A second trip changes nothing at all.
        prop_assert_eq!(decode(&encode_record(&read).expect("it can be written")).expect("it reads back"), read);
    }

    /// In files of two signals and by chunks of any size, the same bytes come out.
    #[test]
    fn chunks_are_written_as_the_whole_is(
        (format, leads) in writable().prop_flat_map(|f| (Just(f), leads(f))),
        frame_n in 1..100_usize,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = record(format, leads);
        for (idx, signal) in record.header.signals.iter_mut().enumerate() {
            signal.file_name = format!("made.{}", idx / 2);
        }
        let files = encode_record(&record).expect("it can be written");
        let open = |name: &str| {
            let (_, bytes) = files.iter().find(|(file_name, _)| file_name == name).expect("it was written");
            Ok(ecgpipe_wfdb::DataFile::in_memory(bytes))
        };
        let mut reader = RecordReader::new(&files[0].1, "made.hea", open).expect("valid");
        let mut writer = RecordWriter::create(folder.path(), reader.header().clone()).expect("valid");
        for chunk in reader.chunks(frame_n) {
            writer.write(&chunk.expect("valid").samples).expect("it fits");
        }
        let header = writer.finish().expect("it fits");
        prop_assert_eq!(&header, reader.header());
        for (name, bytes) in &files {
            prop_assert_eq!(&std::fs::read(folder.path().join(name)).expect("it was written"), bytes, "{}", name);
        }
        prop_assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), files.len());
    }

    /// The checksum sees every change of one sample. (Only the last half byte of an odd number of samples is no sample; and
    /// the middle byte of a pair belongs to two samples, whose changes could cancel out.)
    #[test]
    fn a_flipped_bit_is_found(
        columns in columns(Format::Packed212).prop_filter("an even number", |columns| columns[0].len() % 2 == 0),
        format in proptest::sample::select(vec![Format::Packed212, Format::Fixed16]),
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let leads = columns.into_iter().map(|samples| lead("MLII".to_owned(), samples)).collect();
        let record = Record::new("made", 360.0, format, leads).expect("valid");
        let mut files = encode_record(&record).expect("it can be written");
        let data = &mut files[1].1;
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        let error = decode(&files).expect_err("one bit is wrong");
        prop_assert!(matches!(error, WfdbError::Checksum { .. } | WfdbError::InitialValue { .. }), "{error}");
    }

    #[test]
    fn annotations_read_back_equal(annotations in annotations()) {
        let bytes = encode_annotations(&annotations).expect("valid");
        prop_assert_eq!(decode_annotations(&bytes, "made.atr", Timing::default()).expect("valid"), annotations);
    }

    #[test]
    fn aha_annotations_read_back_equal(
        items in vec((0..1_000_000_u64, 1..=49_u8, any::<i8>(), "[a-z(]{0,6}"), 0..80),
    ) {
        let mut sample_idx = 0;
        let make = |(interval, code, subtype, text): (u64, u8, i8, String)| {
            sample_idx += interval;
            let code = AnnotationCode::new(code).expect("1 to 49");
            // Unreadable noise (AHA code U) is subtype -1; 0 cannot be told from it there.
            Annotation { subtype, aux: text.into_bytes(), ..Annotation::new(sample_idx, code) }
        };
        let annotations = Annotations { items: items.into_iter().map(make).collect(), ..Annotations::default() };
        let bytes = encode_aha_annotations(&annotations).expect("it fits");
        prop_assert_eq!(bytes.len() % 1024, 0);
        if !annotations.items.is_empty() {
            prop_assert_eq!(decode_annotations(&bytes, "made.aha", Timing::default()).expect("valid"), annotations);
        }
    }

    /// What is left of a file that is cut short is its start.
    #[test]
    fn a_cut_file_gives_its_start(annotations in annotations(), end in any::<proptest::sample::Index>()) {
        // Of a note about the whole file nobody could tell that it was one.
        let annotations = Annotations { items: annotations.items, ..Annotations::default() };
        let bytes = encode_annotations(&annotations).expect("valid");
        let (left, error) = salvage_annotations(&bytes[..end.index(bytes.len())], "made.atr", Timing::default());
        prop_assert!(error.is_some());
        let left_n = left.items.len();
        prop_assert!(left_n <= annotations.items.len());
        // Of the last one something may be missing.
        let whole_n = left_n.saturating_sub(1);
        prop_assert_eq!(&left.items[..whole_n], &annotations.items[..whole_n]);
        let place = |items: &[Annotation]| items.get(whole_n).map(|item| (item.sample_idx, item.code));
        prop_assert!(left_n == 0 || place(&left.items) == place(&annotations.items));
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
fn format_8_refuses_what_differences_cannot_say() {
    let made = |samples| Record::new("made", 360.0, Format::Difference8, vec![lead("MLII".to_owned(), samples)]);
    let refuse = |samples, expected: &str| {
        let error = encode_record(&made(samples).expect("valid")).expect_err(expected).to_string();
        assert_eq!(error, expected);
    };
    refuse(
        vec![0, 100, -29],
        "record made, lead 0 (MLII): sample 2 is -29, but the one before is 100, and format 8 holds differences of -128 \
         to 127; choose another format",
    );
    refuse(
        vec![0, INVALID_I16],
        "record made, lead 0 (MLII): sample 1 is -2147483648, but format 8 has no invalid samples; choose another format",
    );
    let files = encode_record(&made(vec![1000, 1127, 999]).expect("valid")).expect("it fits");
    assert_eq!(files[1].1, [0, 127, 0x80]);
}

/// Nothing is seen of a record before it is complete, nor after it failed.
#[test]
fn a_record_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let header =
        Record::new("made", 360.0, Format::Packed212, vec![lead("MLII".to_owned(), vec![0])]).expect("valid").header;
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).expect("readable");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    };
    let mut writer = RecordWriter::create(folder.path(), header.clone()).expect("valid");
    writer.write(&[Samples::Narrow(vec![1, 2, 3])]).expect("it fits");
    assert!(names().iter().all(|name| name.ends_with(".part")), "{:?}", names());
    let error = writer.write(&[Samples::Narrow(vec![4, 5000])]).expect_err("12 bits").to_string();
    assert_eq!(
        error,
        "record made, lead 0 (MLII): sample 4 is 5000, but format 212 holds -2047 to 2047; choose a wider format, or mark \
         the sample as invalid"
    );
    let error = writer.finish().expect_err("a part is missing").to_string();
    assert_eq!(error, "record made: a part of it could not be written; write it again from its start");
    assert_eq!(names(), Vec::<String>::new());

    let error = RecordWriter::create(folder.path(), header.clone()).and_then(RecordWriter::finish).expect_err("empty");
    assert_eq!(error.to_string(), "record made: it needs one sample or more, and no segments");
    let mut writer = RecordWriter::create(folder.path(), header).expect("valid");
    let error = writer.write(&[]).expect_err("no signals").to_string();
    assert!(error.starts_with("record made: the samples must be those of all its signals"), "{error}");
    // A call that was refused as a whole harms nothing.
    writer.write(&[Samples::Narrow(vec![7])]).expect("it fits");
    writer.finish().expect("it fits");
    assert_eq!(read_record(folder.path().join("made")).expect("valid").leads[0].samples, Samples::Narrow(vec![7]));
}

/// Bytes by hand, after annot(5): a beat, a rhythm with text, and an unreadable stretch.
#[test]
fn aha_annotations_are_laid_out_as_the_c_library_does() {
    let beat = Annotation::new(0x12345, AnnotationCode::PVC);
    let rhythm = Annotation { aux: b"(VT".to_vec(), ..Annotation::new(0x12345, AnnotationCode::RHYTHM) };
    let noise = Annotation { subtype: -1, ..Annotation::new(0x7fff_ffff, AnnotationCode::NOISE) };
    let annotations = Annotations { items: vec![beat, rhythm, noise], ..Annotations::default() };
    let bytes = encode_aha_annotations(&annotations).expect("it fits");
    let expected = [
        [0, b'V', 1, 0, 0x45, 0x23, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0],
        [0, b'O', 1, 0, 0x45, 0x23, 2, 0, 0, 28, b'(', b'V', b'T', 0, 0, 0],
        [0, b'U', 0xff, 0x7f, 0xff, 0xff, 3, 0, 0xff, 14, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes[..48], expected.concat());
    assert_eq!(bytes[48..], [0xff; 1024 - 48]);
    assert_eq!(decode_annotations(&bytes, "made.aha", Timing::default()).expect("valid"), annotations);

    // A code of its own stands for an annotation that has no MIT code, unless all are so: that is a tape's file.
    let mut mixed = bytes.clone();
    mixed[9] = 0;
    assert_eq!(decode_annotations(&mixed, "made.aha", Timing::default()).expect("valid"), annotations);
    let mut tape = bytes.clone();
    (0..3).for_each(|idx| tape[idx * 16 + 8..][..8].fill(0));
    let error = decode_annotations(&tape, "made.aha", Timing::default()).expect_err("from a tape").to_string();
    assert!(error.contains("tapes of the AHA database") && error.contains("a2m"), "{error}");

    let refuse = |bytes: &[u8], expected: &str| {
        let (left, error) =
            salvage_annotations(bytes, "made.aha", Timing { sample_n: Some(1 << 31), ..Timing::default() });
        let error = error.expect(expected).to_string();
        assert!(error.starts_with(expected), "\nexpected: {expected}\n   found: {error}");
        left.items.len()
    };
    let mut damaged = bytes.clone();
    damaged[25] = 99;
    assert_eq!(
        refuse(&damaged, "made.aha: byte 16: an annotation starts with 0x00 and has the codes 0x4f (AHA) and 99 (MIT)"),
        1
    );
    let mut damaged = bytes.clone();
    damaged[18] = 0;
    assert_eq!(refuse(&damaged, "made.aha: byte 16: the annotation + at sample 9029 follows one at 74565"), 1);
    let mut damaged = bytes.clone();
    damaged[100] = 1;
    assert_eq!(refuse(&damaged, "made.aha: byte 100: the byte 0x01 follows the end mark"), 3);
    assert_eq!(
        refuse(
            &bytes[..40].iter().copied().chain([0xff]).collect::<Vec<u8>>(),
            "made.aha: byte 32: the byte 0x00 follows"
        ),
        2
    );

    let no_place = [
        Annotation { chan: 1, ..Annotation::new(1, AnnotationCode::NORMAL) },
        Annotation { num: 1, ..Annotation::new(1, AnnotationCode::NORMAL) },
        Annotation { aux: b"seven..".to_vec(), ..Annotation::new(1, AnnotationCode::NORMAL) },
        Annotation { aux: b"nul\0".to_vec(), ..Annotation::new(1, AnnotationCode::NORMAL) },
        Annotation::new(1 << 31, AnnotationCode::NORMAL),
    ];
    for item in no_place {
        let error = encode_aha_annotations(&Annotations { items: vec![item], ..Annotations::default() });
        assert!(error.expect_err("no place").to_string().ends_with("; write MIT format"));
    }
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
