//! What can be wrong with a WFDB file. Each text says where, what was found and a way out.

use std::path::PathBuf;

/// Why a WFDB file could not be read or written.
///
/// Texts are fragments that complete "failed to read record 100: ...". Foreign text in them is escaped and cut short,
/// so that a hostile file cannot flood a terminal or send it control codes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WfdbError {
    /// A file could not be opened, read or written.
    #[error("{}: {source}; {help}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
        /// A way out.
        help: &'static str,
    },
    /// A header is not text.
    #[error("{origin}: byte {byte_offset} is not UTF-8; a header is plain text: save the file as UTF-8 or ASCII")]
    NotUtf8 {
        /// The header's file name.
        origin: String,
        /// Offset of the first bad byte, from 0.
        byte_offset: usize,
    },
    /// A field of a header is missing, malformed or out of its limits.
    #[error("{origin}:{line}:{column}: {field} `{found}` {problem}")]
    Header {
        /// The header's file name.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// Which field of header(5).
        field: &'static str,
        /// The text that was found, escaped.
        found: String,
        /// What is wrong with it, and what is wanted.
        problem: String,
    },
    /// The file is valid WFDB, but uses a part of it that this crate does not read or write yet.
    #[error("{origin}: {what} is not supported; {help}")]
    Unsupported {
        /// The file.
        origin: String,
        /// The part of WFDB.
        what: String,
        /// A way out.
        help: &'static str,
    },
    /// A file is larger than this crate agrees to load.
    #[error("{origin}: {found_byte_n} bytes are more than the limit of {limit_byte_n}; {help}")]
    TooLarge {
        /// The file.
        origin: String,
        /// Its size.
        found_byte_n: u64,
        /// The limit.
        limit_byte_n: u64,
        /// A way out.
        help: &'static str,
    },
    /// A signal file is shorter or longer than its header says.
    #[error(
        "{file}: record {record} needs {expected_byte_n} bytes ({reason}), but the file has {found_byte_n}, {}; \
         fetch the record again, or correct its header",
        surplus(*expected_byte_n, *found_byte_n)
    )]
    Length {
        /// The signal file.
        file: String,
        /// The record.
        record: String,
        /// The size that follows from the header.
        expected_byte_n: u64,
        /// The real size.
        found_byte_n: u64,
        /// How the expected size comes about.
        reason: String,
    },
    /// A signal's samples do not add up to the checksum in the header.
    #[error(
        "{file}: record {record}, signal {signal_idx} ({signal}): the samples add up to checksum {found}, but the \
         header says {expected}; the file is damaged or belongs to another header: fetch the record again"
    )]
    Checksum {
        /// The signal file.
        file: String,
        /// The record.
        record: String,
        /// The signal's position in the header, from 0.
        signal_idx: usize,
        /// The signal's name.
        signal: String,
        /// The header's value.
        expected: i16,
        /// The sum over the samples that were read.
        found: i16,
    },
    /// A signal does not start with the initial value in the header.
    #[error(
        "{file}: record {record}, signal {signal_idx} ({signal}): the first sample is {found}, but the header says \
         {expected}; the file is damaged or belongs to another header: fetch the record again"
    )]
    InitialValue {
        /// The signal file.
        file: String,
        /// The record.
        record: String,
        /// The signal's position in the header, from 0.
        signal_idx: usize,
        /// The signal's name.
        signal: String,
        /// The header's value.
        expected: i32,
        /// The first sample.
        found: i32,
    },
    /// A signal file's bytes break its format.
    #[error(
        "{file}: record {record}, byte {byte_offset}: {problem}; the file is damaged or belongs to another header: \
         fetch the record again"
    )]
    SignalData {
        /// The signal file.
        file: String,
        /// The record.
        record: String,
        /// Offset of what is wrong, from 0.
        byte_offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A file is not in its header's folder.
    #[error(
        "{origin}: it leads to {target}, outside of the record's folder, from which nothing else is read; \
         put the file beside its header"
    )]
    Outside {
        /// The file.
        origin: String,
        /// Where it leads.
        target: String,
    },
    /// A part of a multi-segment record does not fit the whole.
    #[error("{origin}: segment {segment_idx} ({segment}): {problem}")]
    Segment {
        /// The header of the whole record.
        origin: String,
        /// The segment's position in it, from 0.
        segment_idx: usize,
        /// The segment's name.
        segment: String,
        /// What is wrong, and a way out.
        problem: String,
    },
    /// More memory would be needed than the size of a record's files makes plausible.
    #[error(
        "record {record}: {wanted_n} samples would take more than {limit_byte_n} bytes of memory, the most for files of \
         its size; read it in chunks"
    )]
    OverBudget {
        /// The record.
        record: String,
        /// The samples.
        wanted_n: u64,
        /// The limit.
        limit_byte_n: u64,
    },
    /// Frames were asked for that the record does not have.
    #[error("record {record}: frames {start} to {end} were asked for, but it has {frame_n}")]
    Range {
        /// The record.
        record: String,
        /// The first frame.
        start: u64,
        /// The frame behind the last one.
        end: u64,
        /// Frames in the record.
        frame_n: u64,
    },
    /// An annotation file breaks its format.
    #[error("{origin}: byte {byte_offset}: {problem}")]
    Annotation {
        /// The annotation file.
        origin: String,
        /// Offset of the word that is wrong, from 0.
        byte_offset: usize,
        /// What is wrong, and a way out.
        problem: String,
    },
    /// A record or an annotation cannot be expressed in the format that it should be written in.
    #[error("{what}: {problem}")]
    Encode {
        /// The record, lead or annotation.
        what: String,
        /// What is wrong, and a way out.
        problem: String,
    },
}

fn surplus(expected: u64, found: u64) -> String {
    if found < expected { format!("{} too few", expected - found) } else { format!("{} too many", found - expected) }
}

/// Foreign text, fit to be shown: escaped, and at most 60 characters of it.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHAR_N: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHAR_N).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHAR_N).is_some() {
        shown.push_str("...");
    }
    shown
}
