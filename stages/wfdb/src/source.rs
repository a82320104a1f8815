//! Where the bytes of a file are: on disk or in memory. Knows nothing of what they mean.
//!
//! Invariant: a file of any size is read through a window of [`WINDOW_BYTE_N`] bytes, or of one request if that is more
//! (`a_file_larger_than_memory_is_read_in_chunks`). Files are not mapped into memory: mapped pages would count as the program's.
//!
//! Invariant: a header never makes the reader leave its folder, not even through a link (`links_that_leave_the_folder`).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{WfdbError, shown};

/// Bytes that are read from a file at a time.
const WINDOW_BYTE_N: usize = 128 << 10;

/// The bytes of one file.
pub struct DataFile<'a> {
    byte_n: u64,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Disk { path: PathBuf, file: File, window_at: u64, window: Vec<u8> },
    Memory(Box<dyn AsRef<[u8]> + Send + 'a>),
}

impl std::fmt::Debug for DataFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("DataFile");
        if let Bytes::Disk { path, .. } = &self.bytes {
            shown.field("path", path);
        }
        shown.field("byte_n", &self.byte_n).finish_non_exhaustive()
    }
}

impl<'a> DataFile<'a> {
    /// A file in memory.
    pub fn in_memory(bytes: impl AsRef<[u8]> + Send + 'a) -> DataFile<'a> {
        DataFile { byte_n: bytes.as_ref().len() as u64, bytes: Bytes::Memory(Box::new(bytes)) }
    }

    /// A file on disk, whatever its place. For a name that stands in a header, use [`open_beside`](Self::open_beside).
    ///
    /// # Errors
    ///
    /// [`WfdbError::Io`] if it cannot be opened or is no regular file: a pipe or a device has no length to be checked.
    pub fn open(path: impl Into<PathBuf>) -> Result<DataFile<'static>, WfdbError> {
        DataFile::open_or(path.into(), "check the path")
    }

    /// The file of that name in the folder of `header`, which is the path of a header.
    ///
    /// A link is followed only to where the folder is, or to where the header really is if it is a link itself: a folder
    /// of links to a database's records works, a link to a file elsewhere is refused.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Io`] as for [`open`](Self::open); [`WfdbError::Outside`] for a name with a folder in it, and for a
    /// link that leaves.
    pub fn open_beside(header: &Path, file_name: &str) -> Result<DataFile<'static>, WfdbError> {
        let folder = match header.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let path = header.with_file_name(file_name);
        let outside = |target| WfdbError::Outside { origin: path.display().to_string(), target };
        if !is_plain_file_name(file_name) {
            return Err(outside(shown(file_name)));
        }
        let failed = |source| WfdbError::Io { path: path.clone(), source, help: MISSING_HELP };
        if path.symlink_metadata().map_err(failed)?.is_symlink() {
            let target = path.canonicalize().map_err(failed)?;
            let is_home =
                |folder: std::io::Result<PathBuf>| folder.is_ok_and(|folder| target.parent() == Some(&folder));
            let real_folder = |header: PathBuf| header.parent().map(Path::to_owned).unwrap_or_default();
            if !is_home(folder.canonicalize()) && !is_home(header.canonicalize().map(real_folder)) {
                return Err(outside(shown(&target.display().to_string())));
            }
        }
        DataFile::open_or(path, MISSING_HELP)
    }

    pub(crate) fn open_or(path: PathBuf, help: &'static str) -> Result<DataFile<'static>, WfdbError> {
        let failed = |source| WfdbError::Io { path: path.clone(), source, help };
        // Asked for before it is opened: to open a pipe waits for its other end.
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if !metadata.is_file() {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(failed(source));
        }
        let file = File::open(&path).map_err(failed)?;
        let byte_n = file.metadata().map_err(failed)?.len();
        Ok(DataFile { byte_n, bytes: Bytes::Disk { path, file, window_at: 0, window: Vec::new() } })
    }

    /// The file's size when it was opened.
    pub fn byte_n(&self) -> u64 {
        self.byte_n
    }

    /// The `byte_n` bytes at `at`, which lie in the file.
    pub(crate) fn read(&mut self, at: u64, byte_n: usize) -> Result<&[u8], WfdbError> {
        match &mut self.bytes {
            Bytes::Memory(bytes) => {
                let start = usize::try_from(at).ok();
                let bytes = start.and_then(|start| (**bytes).as_ref().get(start..)?.get(..byte_n));
                bytes.ok_or_else(|| WfdbError::Io {
                    path: PathBuf::from("memory"),
                    source: std::io::ErrorKind::UnexpectedEof.into(),
                    help: "the bytes changed while they were read",
                })
            }
            Bytes::Disk { path, file, window_at, window } => {
                let start = at.checked_sub(*window_at).and_then(|start| usize::try_from(start).ok());
                let is_in_window = |start: &usize| window.len().checked_sub(*start).is_some_and(|rest| rest >= byte_n);
                if let Some(start) = start.filter(is_in_window) {
                    return Ok(&window[start..start + byte_n]);
                }
                let rest = usize::try_from(self.byte_n.saturating_sub(at)).unwrap_or(usize::MAX);
                window.resize(byte_n.max(WINDOW_BYTE_N.min(rest)), 0);
                *window_at = at;
                let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(window));
                if let Err(source) = read {
                    window.clear();
                    let help = "see whether the disk is well, and whether the file is still being written";
                    return Err(WfdbError::Io { path: path.clone(), source, help });
                }
                Ok(&window[..byte_n])
            }
        }
    }

    /// All bytes, if they are not more than the limit.
    pub(crate) fn read_whole(&mut self, origin: &str, limit_byte_n: u64) -> Result<&[u8], WfdbError> {
        if self.byte_n > limit_byte_n {
            return Err(WfdbError::TooLarge {
                origin: origin.to_owned(),
                found_byte_n: self.byte_n,
                limit_byte_n,
                help: "this is not the file of one WFDB record",
            });
        }
        let byte_n = usize::try_from(self.byte_n).expect("the limits are those of memory");
        self.read(0, byte_n)
    }
}

const MISSING_HELP: &str = "a record needs its header and all of its signal files in one folder";

/// Whether `name` is a file of the folder that it is looked up in, on any system (`C:x` leaves it on Windows).
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}
