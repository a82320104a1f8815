//! Owns the temporary file that becomes another by renaming, so that a file is replaced whole or not at all.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::NamedTempFile;

/// What is on the disk when the new name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it: a power cut leaves the old file or the new one.
    Synced,
    /// Perhaps nothing: whoever reads the file must find out, by a checksum.
    Unsynced,
}

/// Replaces `path` by a file with these bytes, whole or not at all. Until it has its name it is a temporary file beside it,
/// whose name begins with `prefix` and which only a kill leaves behind.
///
/// # Errors
/// If it cannot be written or renamed; then `path` is what it was.
pub fn replace(path: &Path, prefix: &str, bytes: &[u8], content: Content) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    replace_by_way_of(folder, path, prefix, bytes, content)
}

/// The same by way of another folder of the same file system, where somebody removes what a kill leaves behind.
///
/// # Errors
/// As above.
pub fn replace_by_way_of(folder: &Path, path: &Path, prefix: &str, bytes: &[u8], content: Content) -> io::Result<()> {
    let mut temporary = temporary(folder, prefix)?;
    temporary.write_all(bytes)?;
    if content == Content::Synced {
        temporary.as_file().sync_all()?;
    }
    let temporary = temporary.into_temp_path();
    // Not `persist`, which goes past the C library, where a test could not stand between.
    fs::rename(&temporary, path)?;
    // It has its name; there is nothing left to remove.
    let _ = temporary.keep();
    Ok(())
}

/// A temporary file in `folder`, with a name of its own that begins with `prefix`: several threads and processes may replace
/// one file at once. Unlike other temporary files it is for everybody; the umask still takes away what it must.
///
/// # Errors
/// If it cannot be made there.
pub fn temporary(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).permissions(fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}
