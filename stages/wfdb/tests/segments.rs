//! Multi-segment records: what `golden.rs` cannot compare with wfdb-python, and what is refused.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ecgpipe_wfdb::{DataFile, Format, RecordReader, RecordWriter, Samples, Verification, WfdbError, read_record};

const GAP: i32 = i32::MIN;

/// The files of a record, by name.
fn files(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

fn open<'a>(header: &str, files: &'a BTreeMap<String, Vec<u8>>) -> Result<RecordReader<'a>, WfdbError> {
    RecordReader::new(header, "r.hea", |name: &str| match files.get(name) {
        Some(bytes) => Ok(DataFile::in_memory(bytes)),
        None => panic!("{name} is asked for"),
    })
}

fn columns(samples: &[Samples]) -> Vec<Vec<i32>> {
    samples.iter().map(|column| column.iter().collect()).collect()
}

/// Two segments of two signals with true checksums, of which the second has another gain and baseline.
fn fixed() -> BTreeMap<String, Vec<u8>> {
    files(&[
        ("a.hea", b"a 2 360 2\na.dat 16 100(0) 12 0 1 3 0 I\na.dat 16x2 200 12 0 10 46 0 II\n"),
        ("a.dat", &[1, 0, 10, 0, 11, 0, 2, 0, 12, 0, 13, 0]),
        ("b.hea", b"b 2 360 3\nb.dat 80 50(5) 12 0 0 6 0 I\nb.d2 16x2 200 12 0 20 135 0 II\n"),
        ("b.dat", &[128, 133, 129]),
        ("b.d2", &[20, 0, 21, 0, 22, 0, 23, 0, 24, 0, 25, 0]),
    ])
}

const FIXED: &str = "r/5 2 360 10\n~ 1\na 2\n~ 3\nb 3\n~ 1\n";

/// 0, 5 and 1 at a gain of 50 and a baseline of 5 are -10, 0 and -8 at a gain of 100 and a baseline of 0.
fn fixed_columns() -> [Vec<i32>; 2] {
    [
        vec![GAP, 1, 2, GAP, GAP, GAP, -10, 0, -8, GAP],
        [&[GAP; 2][..], &[10, 11, 12, 13], &[GAP; 6], &[20, 21, 22, 23, 24, 25], &[GAP; 2]].concat(),
    ]
}

#[test]
fn fixed_layout_with_gaps_in_any_chunks() {
    let files = fixed();
    let mut reader = open(FIXED, &files).expect("valid");
    assert_eq!(reader.sample_n(), 10);
    assert_eq!(reader.signals().iter().map(|signal| signal.description.as_str()).collect::<Vec<_>>(), ["I", "II"]);
    let whole = reader.read(0..10).expect("valid");
    assert_eq!(columns(&whole.samples), fixed_columns());
    assert_eq!(whole.verification, Verification::Whole);
    for frame_n in 1..11 {
        let mut found = [Vec::new(), Vec::new()];
        let mut verification = Verification::Part;
        for chunk in reader.chunks(frame_n) {
            let chunk = chunk.expect("valid");
            found.iter_mut().zip(&chunk.samples).for_each(|(found, samples)| found.extend(samples.iter()));
            verification = chunk.verification;
        }
        assert_eq!(found, fixed_columns(), "chunks of {frame_n}");
        assert_eq!(verification, Verification::Whole);
    }
    for start in 0..10 {
        for end in start..11 {
            let found = columns(&reader.read(start..end).expect("valid").samples);
            let [first, second] = fixed_columns();
            let (start, end) = (start as usize, end as usize);
            assert_eq!(found, [&first[start..end], &second[2 * start..2 * end]]);
        }
    }
}

#[test]
fn a_flipped_byte_in_a_segment_is_found() {
    let mut files = fixed();
    files.get_mut("b.dat").expect("there")[1] ^= 1;
    let mut reader = open(FIXED, &files).expect("valid");
    assert_eq!(reader.read(0..8).expect("not yet known").verification, Verification::Part);
    let error = reader.read(0..10).expect_err("a flipped bit").to_string();
    assert!(error.starts_with("b.dat: record b, signal 0 (I): the samples add up to checksum"), "{error}");
    let error = reader.chunks(2).find_map(Result::err).expect("a flipped bit");
    assert!(matches!(error, WfdbError::Checksum { .. }), "{error}");
}

/// Two signals of one name are told apart by their order; a null signal that the layout lacks says nothing.
#[test]
fn variable_layout_with_names_that_stand_there_twice() {
    let files = files(&[
        ("l.hea", b"l 3 360 0\n~ 0 200 12 0 0 0 0 ECG\n~ 0 200 12 0 0 0 0 ECG\n~ 0 200 12 0 0 0 0 RESP\n"),
        ("a.hea", b"a 2 360 2\na.dat 16 200 12 0 1 3 0 ECG\na.dat 16 200 12 0 7 15 0 ECG\n"),
        ("a.dat", &[1, 0, 7, 0, 2, 0, 8, 0]),
        ("b.hea", b"b 1 360 1\n~ 0 200 12 0 0 0 0 nothing\n"),
    ]);
    let record = open("r/3 3 360 3\nl 0\na 2\nb 1\n", &files).expect("valid").read_all().expect("valid");
    let found: Vec<Vec<i32>> = record.leads.iter().map(|lead| lead.samples.iter().collect()).collect();
    assert_eq!(found, [[1, 2, GAP], [7, 8, GAP], [GAP; 3]]);
}

#[test]
fn what_does_not_fit_the_whole_is_refused() {
    let a: &[u8] = b"a 1 360 2\na.dat 16\n";
    let refuse = |header: &str, changed: &[(&str, &[u8])], expected: &str| {
        let mut all = files(&[("a.hea", a), ("a.dat", &[1, 0, 2, 0])]);
        all.extend(files(changed));
        let error = open(header, &all).and_then(RecordReader::read_all).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "\nexpected: {expected}\n   found: {error}");
    };
    refuse("r/2 1 360 5\na 2\n~ 2\n", &[], "r.hea:1:1: number of samples `5` is not that of all segments, which is 4");
    refuse("r/1 1 360\n~ 2\n", &[], "r.hea: segment 0 (~): all segments are gaps");
    refuse(
        "r/1 2 360\na 2\n",
        &[],
        "r.hea: segment 0 (a): it has 1 signals, but line 1 of the whole record's header says 2",
    );
    refuse("r/1 1 250\na 2\n", &[], "r.hea: segment 0 (a): it has 360 Hz, but the whole record has 250 Hz");
    refuse("r/1 1 360\na 3\n", &[], "r.hea: segment 0 (a): it has 2 frames, but the whole record's header says 3");
    refuse(
        "r/1 1 360\na 2\n",
        &[("a.hea", b"a/1 1 360\nb 2\n")],
        "r.hea: segment 0 (a): it is a multi-segment record itself",
    );
    refuse(
        "r/1 1 360\na 2\n",
        &[("a.hea", b"c 1 360 2\na.dat 16\n")],
        "a.hea:1:1: record name `c` is not the name of its file, a",
    );
    refuse("r/1 1 360\na 2\n", &[("a.dat", &[1, 0])], "a.dat: record a needs 4 bytes");
    refuse(
        "r/1 1 360\na 2\n",
        &[("a.hea", b"a 1 360\na.dat 16\n"), ("a.dat", &[1, 0])],
        "a.dat: record a needs 4 bytes",
    );
    let b = |header: &'static [u8]| [("b.hea", header), ("b.dat", &[1, 0, 2, 0][..])];
    refuse(
        "r/2 1 360\na 2\nb 1\n",
        &b(b"b 2 360 1\nb.dat 16\nb.dat 16\n"),
        "r.hea: segment 1 (b): it has 2 signals, but the first segment has 1",
    );
    refuse(
        "r/2 1 360\na 2\nb 1\n",
        &b(b"b 1 360 1\nb.dat 16x2\n"),
        "r.hea: segment 1 (b): its signal record b, signal 0 has 2 samples a frame, but in the whole 1",
    );
    refuse(
        "r/2 1 360\na 2\nb 2\n",
        &b(b"b 1 360 2\nb.dat 16 200/uV\n"),
        "r.hea: segment 1 (b): its signal record b, signal 0 is in uV, but in the whole in mV",
    );
    refuse(
        "r/2 1 360\na 2\nb 2\n",
        &b(b"b 1 360 2\nb.dat 16 1e-300\n"),
        "r.hea: segment 1 (b): sample 1 of record a, signal 0 is more than 32 bits hold",
    );
    let layout: (&str, &[u8]) = ("l.hea", b"l 1 360 0\n~ 0 200 12 0 0 0 0 II\n");
    refuse(
        "r/2 1 360\nl 0\na 2\n",
        &[layout],
        "r.hea: segment 1 (a): its signal record a, signal 0 is not in the layout",
    );
}

/// A record of many segments holds one of them open: the bytes of a segment are given back before the next.
#[test]
fn one_segment_is_open_at_a_time() {
    struct Counted<'a>(Vec<u8>, &'a Mutex<(usize, usize)>);
    impl AsRef<[u8]> for Counted<'_> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.lock().expect("one thread").0 -= 1;
        }
    }
    let open_and_most = Mutex::new((0, 0));
    let give = |name: &str| {
        let bytes = match name.strip_suffix(".hea") {
            Some(name) => format!("{name} 1 360 2\n{name}.dat 16\n").into_bytes(),
            None => vec![1, 0, 2, 0],
        };
        let (open, most) = &mut *open_and_most.lock().expect("one thread");
        *open += 1;
        *most = (*most).max(*open);
        Ok(DataFile::in_memory(Counted(bytes, &open_and_most)))
    };
    let segments: String = (0..50).map(|idx| format!("s{idx} 2\n")).collect();
    let mut reader = RecordReader::new(format!("r/50 1 360\n{segments}"), "r.hea", give).expect("valid");
    assert_eq!(reader.chunks(3).map(|chunk| chunk.expect("valid").frame_n).sum::<usize>(), 100);
    drop(reader);
    // A header, and then, without it, its signal file.
    assert_eq!(*open_and_most.lock().expect("one thread"), (0, 1));
}

#[test]
fn a_record_of_segments_becomes_an_ordinary_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = fixed();
    let mut reader = open(FIXED, &files).expect("valid");
    let mut writer = RecordWriter::create(folder.path(), reader.header_for("flat", Format::Packed212)).expect("valid");
    for chunk in reader.chunks(3) {
        writer.write(&chunk.expect("valid").samples).expect("it fits");
    }
    writer.finish().expect("it fits");
    let record = read_record(folder.path().join("flat")).expect("valid");
    let found: Vec<Vec<i32>> = record.leads.iter().map(|lead| lead.samples.iter().collect()).collect();
    assert_eq!(found, fixed_columns());
    assert_eq!((record.leads[0].gain_adu_per_unit, record.leads[1].samples_per_frame), (100.0, 2));
}
