//! WFDB records and annotations: a strict reader and writer.
//!
//! [WFDB](https://physionet.org/content/wfdb/) is the format of PhysioNet: a text header (`100.hea`), signal files
//! (`100.dat`) and annotation files (`100.atr`). This crate owns those bytes: it turns them into integers and text and
//! back. It knows nothing of pipelines, heartbeat classes or networks.
//!
//! ```no_run
//! let record = ecgpipe_wfdb::read_record("mitdb/100")?;
//! let lead = record.lead("MLII").expect("record 100 has the lead MLII");
//! println!("{} samples, the first one {} {}", record.sample_n, lead.physical(0), lead.units);
//!
//! let beats = ecgpipe_wfdb::read_annotations("mitdb/100", "atr", record.timing())?;
//! println!("{} beats", beats.items.iter().filter(|annotation| annotation.code.is_beat()).count());
//! # Ok::<(), ecgpipe_wfdb::WfdbError>(())
//! ```
//!
//! A record larger than memory is read in parts: [`RecordReader`] gives any range of frames, or chunk after chunk, and
//! [`RecordWriter`] takes chunks.
//!
//! Where other readers guess, this one refuses, and says which file, which line or byte, what it found and what to do:
//!
//! - Invariant: a [`Record`] that was read is the record that was written. Every signal file has exactly the length
//!   that the header gives it, and every checksum and initial value in the header holds (`tests/bad_input.rs`,
//!   `tests/hostile.rs`). A part of a record says that its checksums could not be compared ([`Verification`],
//!   `a_part_says_that_it_was_not_verified`).
//! - Invariant: a part is what the whole has there, by every way to it (`chunks_of_any_size_are_the_whole`,
//!   `any_range_is_a_slice_of_the_whole`).
//! - Invariant: nothing is allocated on the word of a header. Counts are checked against the `MAX_*` limits and against
//!   the real sizes of files first (`a_length_without_bytes_is_not_allocated`).
//! - Invariant: a header never makes the reader leave its folder, not even through a link (`paths_that_leave_the_folder`,
//!   `links_that_leave_the_folder`).
//! - Invariant: what is written reads back equal (`every_writable_format_reads_back_equal`), also for wfdb-python
//!   (`wfdb_python_reads_every_format_that_is_written`), and annotation files come out as the C library writes them: all
//!   48 `.atr` files of the MIT-BIH Arrhythmia Database byte for byte (`tests/mitdb.rs`).
//! - Invariant: any bytes have an answer, without a panic (`fuzz/`, `tests/fuzz_smoke.rs`).
//!
//! # What is supported
//!
//! | | read | written |
//! |---|---|---|
//! | signal formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311 | yes | yes |
//! | 0 (null signals: all invalid) and FLAC: 508, 516, 524 | yes | no |
//! | several signals a file, files a record, samples a frame | yes | yes |
//! | byte offset, skew (the end of a late signal is invalid), any block size, unknown length | yes | no |
//! | multi-segment records of fixed and variable layout, gaps, other gains | yes | as ordinary records |
//! | MIT annotation files, all codes, own codes and time resolution | yes | yes |
//! | AHA annotation files of the WFDB library (not those of the AHA's tapes) | yes | [`encode_aha_annotations`] |
//! | dates also as `YYYY-MM-DD` and `DD-Mon-YYYY`, before or after the time | yes | as `DD/MM/YYYY` |
//!
//! Not supported, and refused: segments that are multi-segment records themselves, signals of one file that differ in
//! format, and record names with folders in them. FLAC's own MD5 is not compared: each of its frames has a checksum, and
//! each signal the header's.
//!
//! # What a checksum cannot see
//!
//! It is the sum of a signal's samples modulo 2^16. Of formats 24 and 32 it does not see the upper bits, and of no format
//! two changes that cancel out. A header without checksums is accepted: `checksum` of its [`Signal`]s is `None`.
//!
//! # Limits
//!
//! A header of 16 MiB, 4,096 signals, 2^20 segments, 10,000 samples a frame, a skew of 65,536 frames, 2^40 frames (96 years
//! at 360 Hz), 1 GHz, an annotation file of 256 MiB. Signal files may be of any size. One read takes [`FREE_BYTE_N`]
//! of memory, or [`MAX_EXPANSION`] times the size of the record's files if that is more; a reader itself takes 128 KiB a
//! signal file, or one frame if that is more, and up to 6 MiB a FLAC stream.
//!
//! # Invalid samples
//!
//! Each format but 8 reserves its lowest code for "no sample here". It becomes [`INVALID_I16`] or [`INVALID_I32`] whatever
//! the format, and NaN in physical units.

mod aha;
mod annotation;
mod code;
mod error;
mod flac;
mod format;
mod header;
mod output;
mod reader;
mod record;
mod samples;
mod segments;
mod signal_file;
mod source;
mod writer;

pub use aha::encode_aha_annotations;
pub use annotation::{
    Annotation, Annotations, CodeDefinition, MAX_ANNOTATION_FILE_BYTE_N, Timing, decode_annotations,
    encode_annotations, read_annotations, salvage_annotations, write_annotations,
};
pub use code::AnnotationCode;
pub use error::WfdbError;
pub use format::Format;
pub use header::{
    BaseDate, BaseTime, DEFAULT_GAIN_ADU_PER_UNIT, DEFAULT_SAMPLING_FREQUENCY_HZ, Header, MAX_HEADER_BYTE_N,
    MAX_SAMPLE_N, MAX_SAMPLES_PER_FRAME, MAX_SAMPLING_FREQUENCY_HZ, MAX_SEGMENT_N, MAX_SIGNAL_N, MAX_SKEW_N, Segment,
    Signal,
};
pub use reader::{Chunk, Chunks, FREE_BYTE_N, MAX_CHUNK_SAMPLE_N, MAX_EXPANSION, RecordReader, Verification};
pub use record::{Lead, Record, decode_record, read_record};
pub use samples::{INVALID_I16, INVALID_I32, Samples};
pub use source::DataFile;
pub use writer::{RecordWriter, encode_record, write_record};
