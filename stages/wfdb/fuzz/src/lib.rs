//! What must hold for any bytes: an answer without a panic, without an allocation by a header's word, and the same answer
//! by every way to it.
//!
//! `tests/fuzz_smoke.rs` runs these functions on the corpus and on mutations of it, in every `cargo test`. To fuzz:
//!
//! ```text
//! cd stages/wfdb && RUSTC_BOOTSTRAP=1 cargo fuzz run signals fuzz/corpus/signals -s none -- -rss_limit_mb=256 -timeout=5
//! ```

use ecgpipe_wfdb::{
    Annotations, Chunk, DataFile, Header, RecordReader, Samples, Timing, Verification, WfdbError, decode_annotations,
    decode_record, encode_aha_annotations, encode_annotations, encode_record, salvage_annotations,
};

/// Separates the parts of an input of [`signals`].
pub const SEPARATOR: u8 = 0x1e;

/// Most samples that are compared in memory.
const COMPARED_SAMPLE_N: u64 = 1 << 20;

/// A header is refused, or its text parses to an equal one.
pub fn header(data: &[u8]) {
    if let Ok(header) = Header::parse(data, "r.hea") {
        let text = header.to_text().expect("what was parsed can be written");
        assert_eq!(Header::parse(text, "r.hea").expect("what was written can be parsed"), header);
    }
}

/// A header, a segment's header and the bytes of every signal file, with [`SEPARATOR`]s between.
///
/// Chunks, ranges and the whole are the same samples, or all of them are refused, and what can be written reads back.
pub fn signals(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == SEPARATOR);
    let (header, segment) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let bytes = parts.next().unwrap_or_default();
    let open = || {
        RecordReader::new(header, "r.hea", |name: &str| {
            Ok(DataFile::in_memory(if name.ends_with(".hea") { segment } else { bytes }))
        })
    };
    let Ok(mut reader) = open() else { return };
    let sample_n = reader.sample_n();
    let frame_sample_n = reader.frame_sample_n() as u64;

    // Parts of records of any length, in any order.
    let frames = |at: u64, frame_n: u64| at.min(sample_n)..at.saturating_add(frame_n).min(sample_n);
    let few_n = COMPARED_SAMPLE_N / 16 / frame_sample_n.max(1);
    let places = [frames(sample_n / 2, few_n), frames(0, few_n), frames(sample_n.saturating_sub(few_n), few_n)];
    let pieces: Vec<Result<Chunk, WfdbError>> = places.iter().map(|place| reader.read(place.clone())).collect();
    if sample_n.saturating_mul(frame_sample_n.max(1)) > COMPARED_SAMPLE_N {
        return;
    }

    let whole = open().expect("it was opened before").read(0..sample_n);
    let mut columns: Vec<Vec<i32>> = vec![Vec::new(); reader.signals().len()];
    let chunk_frame_n = data.len() % 61 + 1;
    let mut verification = Verification::Part;
    // Chunks of few frames, unless the record is long.
    let chunk_frame_n = chunk_frame_n.max(usize::try_from(sample_n / 256).expect("few frames"));
    let mut chunks = reader.chunks(chunk_frame_n);
    let error = loop {
        match chunks.next() {
            Some(Ok(chunk)) => {
                verification = chunk.verification;
                for (column, samples) in columns.iter_mut().zip(&chunk.samples) {
                    column.extend(samples.iter());
                }
            }
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    let Ok(whole) = whole else {
        assert!(error.is_some(), "the whole record was refused, its chunks were not");
        return;
    };
    assert!(error.is_none(), "{error:?}");
    assert_eq!((whole.verification, verification), (Verification::Whole, Verification::Whole));
    let wide = |samples: &Samples| samples.iter().collect::<Vec<i32>>();
    assert_eq!(whole.samples.iter().map(wide).collect::<Vec<_>>(), columns);
    for (place, piece) in places.iter().zip(pieces) {
        let piece = piece.expect("the whole record is valid");
        for ((samples, column), signal) in piece.samples.iter().zip(&columns).zip(reader.signals()) {
            let sample = |frame: u64| usize::try_from(frame).expect("in memory") * signal.samples_per_frame as usize;
            assert_eq!(wide(samples), column[sample(place.start)..sample(place.end)]);
        }
    }

    let record = open().expect("it was opened before").read_all().expect("it was read before");
    if let Ok(files) = encode_record(&record) {
        let load = |name: &str| {
            let file = files.iter().find(|(file_name, _)| file_name == name);
            Ok(&file.expect("a header names files that were written").1)
        };
        let again = decode_record(&files[0].1, "r.hea", load).expect("what was written can be read");
        assert_eq!(again.leads, record.leads);
    }
}

/// An annotation file is refused, or what is written from it reads back equal; what can be salvaged is its start.
pub fn annotations(data: &[u8]) {
    let timings = [
        Timing::default(),
        Timing { sampling_frequency_hz: Some(360.0), sample_n: None },
        Timing { sampling_frequency_hz: Some(0.001), sample_n: Some(1000) },
    ];
    for timing in timings {
        let (salvaged, error) = salvage_annotations(data, "r.atr", timing);
        assert!(salvaged.items.is_sorted_by_key(|item| item.sample_idx));
        match (decode_annotations(data, "r.atr", timing), error) {
            (Ok(annotations), None) => assert_eq!(annotations, salvaged),
            (Err(_), Some(_)) => {}
            (decoded, error) => panic!("{decoded:?}, but {error:?}"),
        }
        check_annotations(salvaged);
    }
}

fn check_annotations(mut annotations: Annotations) {
    // A note that only looks like one about the whole file cannot be written.
    if let Ok(bytes) = encode_annotations(&annotations) {
        let again = decode_annotations(bytes, "r.atr", Timing::default()).expect("what was written can be read");
        assert_eq!(again, annotations);
    }
    annotations.time_resolution_hz = None;
    annotations.definitions.clear();
    if let Ok(bytes) = encode_aha_annotations(&annotations)
        && !annotations.items.is_empty()
    {
        let again = decode_annotations(bytes, "r.aha", Timing::default()).expect("what was written can be read");
        assert_eq!(again, annotations);
    }
}
