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
//! Where other readers guess, this one refuses, and says which file, which line or byte, what it found and what to do:
//!
//! - Invariant: a [`Record`] that was read is the record that was written. Every signal file has exactly the length
//!   that the header gives it, and every checksum and initial value in the header holds (`tests/bad_input.rs`).
//! - Invariant: nothing is allocated on the word of a header. Counts are checked against the `MAX_*` limits and against
//!   the real size of the file first (`tests/bad_input.rs`).
//! - Invariant: a header never makes the reader leave its folder (`tests/bad_input.rs`).
//! - Invariant: what is written reads back equal (`tests/round_trip.rs`), and annotation files come out as the C
//!   library writes them: all 48 `.atr` files of the MIT-BIH Arrhythmia Database byte for byte (`tests/mitdb.rs`).
//!
//! # What is supported
//!
//! Signal formats 16, 24, 32, 61, 80, 160 and 212, read and written, with several signals a file, several files a
//! record, several samples a frame, and a byte offset. Formats 0, 8, 310, 311, 508, 516 and 524, skewed signals and
//! multi-segment records are recognised by name and refused with [`WfdbError::Unsupported`]. MIT annotation files are
//! read and written in full; AHA annotation files are recognised and refused.
//!
//! # Invalid samples
//!
//! Each format reserves its lowest code for "no sample here". It becomes [`INVALID_I16`] or [`INVALID_I32`] whatever
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
