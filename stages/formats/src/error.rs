//! What can be wrong with a recording. Each text says where, what was found and a way out behind the last `; `.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::npy::NpyError;

/// Why a recording could not be read.
///
/// Texts are fragments that complete "failed to read holter.edf: ...". Foreign text in them is escaped and cut short, so
/// that a hostile file cannot flood a terminal or send it control codes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A file could not be opened or read.
    #[error("{}: {source}; {help}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
        /// A way out.
        help: &'static str,
    },
    /// A field of an EDF or BDF file breaks the format.
    #[error("{origin}: byte {byte_offset}: {field} `{found}` {problem}")]
    Edf {
        /// The file.
        origin: String,
        /// Where the field begins, from 0.
        byte_offset: u64,
        /// Which field of the specification.
        field: String,
        /// What stands there, escaped.
        found: String,
        /// What is wrong with it, and a way out.
        problem: String,
    },
    /// A file is not as long as its header says.
    #[error(
        "{origin}: the header asks for {expected_byte_n} bytes ({reason}), but the file has {found_byte_n}; {help}"
    )]
    Length {
        /// The file.
        origin: String,
        /// The size that follows from the header.
        expected_byte_n: u64,
        /// The real size.
        found_byte_n: u64,
        /// How the expected size comes about.
        reason: String,
        /// A way out.
        help: &'static str,
    },
    /// A line of a text table breaks its format.
    #[error("{origin}:{line}:{column}: {problem}")]
    Csv {
        /// The file.
        origin: String,
        /// Line, from 1.
        line: u64,
        /// Column in bytes, from 1.
        column: usize,
        /// What is wrong, and a way out.
        problem: String,
    },
    /// A NumPy file is malformed.
    #[error("{origin}: {problem}")]
    Npy {
        /// The file.
        origin: String,
        /// What is wrong, and a way out.
        problem: NpyError,
    },
    /// A value cannot become a sample.
    #[error("{origin}: {what}: {problem}")]
    Value {
        /// The file.
        origin: String,
        /// Lead and sample.
        what: String,
        /// What is wrong, and a way out.
        problem: String,
    },
    /// The file does not say something that must be known, or what was asked for does not fit it.
    #[error("{origin}: {problem}")]
    Choice {
        /// The file.
        origin: String,
        /// What is missing or does not fit, and a way out.
        problem: String,
    },
}

pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> FormatError {
    let path = path.to_owned();
    move |source| {
        let help = match source.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "give yourself the right to read it",
            io::ErrorKind::UnexpectedEof => "the file became shorter while it was read: read it again",
            _ => "see whether the disk is well",
        };
        FormatError::Io { path, source, help }
    }
}

/// Opens a regular file, and gives its size.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), FormatError> {
    // Asked for before it is opened: to open a pipe waits for its other end.
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    if !metadata.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(FormatError::Io { path: path.to_owned(), source, help: "name a file" });
    }
    let file = File::open(path).map_err(unreadable(path))?;
    let byte_n = file.metadata().map_err(unreadable(path))?.len();
    Ok((file, byte_n))
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
