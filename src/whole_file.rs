//! Owns the temporary file that becomes another by renaming, so that a file is replaced whole or not at all.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use tempfile::NamedTempFile;

/// A temporary file in `folder`, with a name of its own that begins with `prefix`: several threads and processes may replace
/// one file at once. Unlike other temporary files it is for everybody; the umask still takes away what it must.
///
/// # Errors
/// If it cannot be made there.
pub fn temporary(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).permissions(fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}
