//! Chunks and ranges are what the whole record is, in bounded memory, and verified as the whole is.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;

use ecgpipe_wfdb::{
    Chunk, DataFile, Format, Header, INVALID_I16, Lead, MAX_CHUNK_SAMPLE_N, Record, RecordReader, Samples,
    Verification, WfdbError, encode_record, read_record,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A record as it is stored, and what must be read from it.
#[derive(Debug, Clone)]
struct Stored {
    /// The header first.
    files: Vec<(String, Vec<u8>)>,
    columns: Vec<Vec<i32>>,
    samples_per_frame: Vec<usize>,
    frame_n: u64,
}

impl Stored {
    fn reader(&self) -> RecordReader<'_> {
        let open = |name: &str| {
            let (_, bytes) = self.files.iter().find(|(file_name, _)| file_name == name).expect("it was written");
            Ok(DataFile::in_memory(bytes))
        };
        RecordReader::new(&self.files[0].1, &self.files[0].0, open).expect("valid")
    }

    fn check(&self, frames: Range<u64>, chunk: &Chunk) {
        assert_eq!(chunk.first_frame_idx, frames.start);
        assert_eq!(chunk.frame_n as u64, frames.end - frames.start);
        assert_eq!(chunk.samples.len(), self.columns.len());
        for (column, (expected, samples_per_frame)) in
            chunk.samples.iter().zip(self.columns.iter().zip(&self.samples_per_frame))
        {
            let sample = |frame: u64| frame as usize * samples_per_frame;
            let expected = &expected[sample(frames.start)..sample(frames.end)];
            assert_eq!(column.iter().collect::<Vec<_>>(), expected, "frames {frames:?}");
        }
    }
}

/// One signal of a made-up record.
type Shape = (Vec<i16>, u32, u32);

/// Stores signals in files of two at most, with a byte offset and skews; `samples` are repeated as often as needed.
fn store(format: Format, frame_n: usize, shapes: &[Shape], byte_offset: u64) -> Stored {
    let (invalid, highest) = match format {
        Format::Offset8 => (INVALID_I16, 127),
        Format::Packed310 | Format::Packed311 => (INVALID_I16, 511),
        Format::Packed212 => (INVALID_I16, 2047),
        Format::Difference8 => (0, 60),
        _ => (INVALID_I16, i16::MAX),
    };
    let lead = |idx: usize, samples: Vec<i16>| Lead {
        name: format!("lead {idx}"),
        units: "mV".to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 0,
        samples_per_frame: 1,
        samples: Samples::Narrow(samples),
    };
    let fit = |sample: &i16| if *sample == INVALID_I16 { invalid } else { sample % (highest + 1) };
    let mut leads = Vec::new();
    for (idx, (samples, samples_per_frame, _)) in shapes.iter().enumerate() {
        let sample_n = frame_n * *samples_per_frame as usize;
        leads.push(lead(idx, samples.iter().map(fit).cycle().take(sample_n).collect()));
    }
    let equal: Vec<Lead> = leads.iter().map(|whole| lead(0, vec![0; whole.samples.len().min(frame_n)])).collect();
    let mut record = Record::new("made", 360.0, format, equal).expect("valid");
    for (idx, (lead, (_, samples_per_frame, _))) in leads.iter_mut().zip(shapes).enumerate() {
        lead.samples_per_frame = *samples_per_frame;
        record.header.signals[idx].samples_per_frame = *samples_per_frame;
        record.header.signals[idx].file_name = format!("made{}.dat", idx / 2);
    }
    record.leads = leads;
    let mut files = encode_record(&record).expect("it can be written");
    let mut header = Header::parse(&files[0].1, "made.hea").expect("valid");
    for (signal, (_, _, skew_n)) in header.signals.iter_mut().zip(shapes) {
        (signal.skew_n, signal.byte_offset) = (*skew_n, byte_offset);
    }
    files[0].1 = header.to_text().expect("valid").into_bytes();
    for (_, bytes) in &mut files[1..] {
        bytes.splice(0..0, std::iter::repeat_n(0x55, byte_offset as usize));
    }
    let shifted = |(lead, (_, samples_per_frame, skew_n)): (&Lead, &Shape)| {
        let late = lead.samples.iter().skip((skew_n * samples_per_frame) as usize);
        let column: Vec<i32> = late.chain(std::iter::repeat(i32::MIN)).take(lead.samples.len()).collect();
        column
    };
    Stored {
        files,
        columns: record.leads.iter().zip(shapes).map(shifted).collect(),
        samples_per_frame: shapes.iter().map(|(_, samples_per_frame, _)| *samples_per_frame as usize).collect(),
        frame_n: frame_n as u64,
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    let formats = Format::ALL.into_iter().filter(|format| format.is_writable());
    let format = proptest::sample::select(formats.collect::<Vec<_>>());
    let sample = prop_oneof![9 => any::<i16>(), 1 => Just(INVALID_I16)];
    let shape = (vec(sample, 1..50), 1..4_u32, prop_oneof![3 => Just(0_u32), 1 => 0..9_u32]);
    (format, prop_oneof![1..60_usize, 1300..1500_usize], vec(shape, 1..6), 0..3_u64)
        .prop_map(|(format, frame_n, shapes, byte_offset)| store(format, frame_n, &shapes, byte_offset))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn chunks_of_any_size_are_the_whole(stored in stored(), frame_n in prop_oneof![1..40_usize, 1..2000_usize]) {
        let mut reader = stored.reader();
        let mut at = 0;
        for chunk in reader.chunks(frame_n) {
            let chunk = chunk.expect("the record is whole");
            let end = stored.frame_n.min(at + frame_n as u64);
            stored.check(at..end, &chunk);
            at = end;
            let expected = if end == stored.frame_n { Verification::Whole } else { Verification::Part };
            prop_assert_eq!(chunk.verification, expected);
        }
        prop_assert_eq!(at, stored.frame_n);
        let whole = stored.reader().read_all().expect("valid");
        let chunk = stored.reader().read(0..stored.frame_n).expect("valid");
        stored.check(0..stored.frame_n, &chunk);
        prop_assert_eq!(whole.leads.into_iter().map(|lead| lead.samples).collect::<Vec<_>>(), chunk.samples);
    }

    /// In any order, from memory and from disk, in one chunk that is used again.
    #[test]
    fn any_range_is_a_slice_of_the_whole(stored in stored(), ranges in vec((0.0..1.0_f64, 0.0..1.0_f64), 1..6)) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in &stored.files {
            std::fs::write(folder.path().join(name), bytes).expect("writable");
        }
        let mut chunk = Chunk::new();
        for mut reader in [stored.reader(), RecordReader::open(folder.path().join("made")).expect("valid")] {
            for (start, end) in &ranges {
                let frame = |part: f64| (part * (stored.frame_n + 1) as f64) as u64;
                let frames = frame(start.min(*end))..frame(start.max(*end));
                reader.read_into(frames.clone(), &mut chunk).expect("in the record");
                stored.check(frames, &chunk);
            }
        }
    }

    /// Reads that do not follow each other leave verification to the next pass that does.
    #[test]
    fn a_flipped_bit_is_found_by_the_chunk_that_ends_the_record(
        stored in stored(),
        frame_n in 1..100_usize,
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
        aside in 0.0..1.0_f64,
    ) {
        let mut damaged = stored.clone();
        let header = Header::parse(&stored.files[0].1, "made.hea").expect("valid");
        let byte_offset = header.signals[0].byte_offset as usize;
        let data = &mut damaged.files[1].1;
        let at = byte_offset + at.index(data.len() - byte_offset);
        data[at] ^= 1 << bit;
        let mut reader = damaged.reader();
        let frame = (aside * stored.frame_n as f64) as u64;
        let _ = reader.read(frame..frame + 1);
        let last = reader.chunks(frame_n).last().expect("a chunk or an error");
        match last {
            Err(WfdbError::Checksum { .. } | WfdbError::InitialValue { .. }) => {}
            Ok(chunk) => {
                let start = stored.frame_n - chunk.frame_n as u64;
                match header.signals[0].format.number() {
                    // Bits at the end of a pack that no sample uses: nothing changed.
                    212 | 310 | 311 => stored.check(start..stored.frame_n, &chunk),
                    // What the format cannot show: a checksum has 16 bits. It does not see the upper bits of a wide
                    // sample, nor a difference that moves all later samples by a sum of 2^16.
                    8 | 24 | 32 => {}
                    format => prop_assert!(false, "format {format} was accepted"),
                }
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn a_part_says_that_it_was_not_verified() {
    let stored = store(Format::Fixed16, 100, &[(vec![1, 2, 3], 1, 0)], 0);
    let mut reader = stored.reader();
    assert_eq!(reader.read(0..99).expect("valid").verification, Verification::Part);
    // This one follows the last.
    assert_eq!(reader.read(99..100).expect("valid").verification, Verification::Whole);
    assert_eq!(reader.read(50..100).expect("valid").verification, Verification::Whole, "it was verified before");
    assert_eq!(stored.reader().read(1..100).expect("valid").verification, Verification::Part);
    assert_eq!(stored.reader().read(0..100).expect("valid").verification, Verification::Whole);
    let error = reader.read(99..101).expect_err("one too many").to_string();
    assert_eq!(error, "record made: frames 99 to 101 were asked for, but it has 100");
    let empty = reader.read(7..7).expect("valid");
    assert_eq!((empty.frame_n, empty.samples[0].len()), (0, 0));
}

#[test]
fn a_wrong_first_sample_ends_the_first_chunk() {
    let mut stored = store(Format::Fixed16, 100, &[(vec![1, 2, 3], 1, 0)], 0);
    stored.files[1].1[0] = 9;
    let mut reader = stored.reader();
    let mut chunks = reader.chunks(10);
    assert!(matches!(chunks.next(), Some(Err(WfdbError::InitialValue { expected: 1, found: 9, .. }))));
    assert!(chunks.next().is_none());
}

/// A file larger than memory should be is read in windows: its chunks cost what a chunk costs.
#[test]
fn a_file_larger_than_memory_is_read_in_chunks() {
    let folder = tempfile::tempdir().expect("a folder");
    let frame_n: u64 = 3 << 30;
    std::fs::write(folder.path().join("r.hea"), format!("r 2 1000 {frame_n}\nr.dat 16\nr.dat 16\n")).expect("writable");
    let mut file = std::fs::File::create(folder.path().join("r.dat")).expect("writable");
    if file.set_len(frame_n * 4).is_err() {
        // The file system has no holes.
        return;
    }
    file.seek(SeekFrom::Start((frame_n - 1) * 4)).and_then(|_| file.write_all(&[1, 0, 2, 0])).expect("writable");
    let mut reader = RecordReader::open(folder.path().join("r")).expect("valid");
    let last = reader.read(frame_n - 2..frame_n).expect("valid");
    assert_eq!(last.samples, [Samples::Narrow(vec![0, 1]), Samples::Narrow(vec![0, 2])]);
    let first = reader.chunks(usize::MAX).next().expect("a chunk").expect("valid");
    assert_eq!(first.frame_n, MAX_CHUNK_SAMPLE_N / 2);
}

/// Null signals and gaps cost no bytes: their length is the header's word alone.
#[test]
fn a_length_without_bytes_is_not_allocated() {
    let header = "r 2 360 1099511627776\n~ 0\n~ 0\n";
    let open = |_: &str| -> Result<DataFile<'static>, WfdbError> { panic!("there is no file") };
    let mut reader = RecordReader::new(header, "r.hea", open).expect("valid");
    assert_eq!(reader.sample_n(), 1 << 40);
    let error = reader.read(0..1 << 40).expect_err("too much").to_string();
    assert_eq!(
        error,
        "record r: 2199023255552 samples would take more than 67108864 bytes of memory, the most for files of its size; \
         read it in chunks"
    );
    let chunk = reader.read(5..8).expect("a part");
    assert_eq!(chunk.samples, [Samples::Narrow(vec![INVALID_I16; 3]), Samples::Narrow(vec![INVALID_I16; 3])]);
}

#[test]
fn a_record_of_null_and_other_signals_is_as_long_as_the_others() {
    for header in ["r 2 360\n~ 0\nr.dat 16\n", "r 2 360 2\nr.dat 0\nr.dat 16\n"] {
        let reader = RecordReader::new(header, "r.hea", |_| Ok(DataFile::in_memory([1, 0, 2, 0]))).expect("valid");
        let record = reader.read_all().expect("valid");
        assert_eq!(record.leads[0].samples, Samples::Narrow(vec![INVALID_I16; 2]));
        assert_eq!(record.leads[1].samples, Samples::Narrow(vec![1, 2]));
    }
}

#[test]
fn mitdb_in_chunks_is_mitdb_whole() {
    let Some(data) = std::env::var_os("ECGPIPE_DATA").filter(|data| !data.is_empty()) else {
        // Not `eprintln!`, which the test harness swallows.
        writeln!(std::io::stderr(), "skipped: set ECGPIPE_DATA to the folder that holds mitdb/").expect("stderr");
        return;
    };
    let path = std::path::Path::new(&data).join("mitdb/114");
    let whole = read_record(&path).expect("mitdb is valid");
    let mut reader = RecordReader::open(&path).expect("mitdb is valid");
    let mut columns = [Vec::new(), Vec::new()];
    let mut chunk = Chunk::new();
    let mut chunks = reader.chunks(9973);
    while chunks.next_into(&mut chunk).expect("mitdb is valid") {
        for (column, samples) in columns.iter_mut().zip(&chunk.samples) {
            column.extend_from_slice(samples.as_i16().expect("format 212"));
        }
    }
    assert_eq!(chunk.verification, Verification::Whole);
    let leads: Vec<Samples> = whole.leads.into_iter().map(|lead| lead.samples).collect();
    assert_eq!(columns.map(Samples::Narrow).to_vec(), leads);
}
