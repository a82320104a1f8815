//! Owns the encoded bytes of an artifact: in memory, or in a file where memory is not the place for them.
//!
//! A recording of a day has gigabytes. A stage writes such an artifact piece by piece into a [`SpoolFile`], the store
//! takes the finished file over by renaming it, and a reader gets it as [`Content::File`], of which it reads what it
//! needs. Files are read by position and never mapped: the pages of a mapped file count as memory of the process.
//!
//! Invariant: a spool file that nobody takes over is removed (`tests::a_spool_file_is_removed_unless_it_is_taken`).
//!
//! Invariant: bytes read at any position, by any number of threads, are those of the file (`tests::reads_by_position`).

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};
use tempfile::{NamedTempFile, TempPath};

/// Up to here an artifact is read into memory whole: 16 MiB, ten times the samples of a record of MIT-BIH.
pub const IN_MEMORY_LIMIT_BYTES: u64 = 16 << 20;

/// How the names of spool files begin.
const PREFIX: &str = "spool-";

/// Encoded bytes.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(FileContent),
}

/// The bytes of a file that is open and does not change any more.
#[derive(Clone, Debug)]
pub struct FileContent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    byte_n: u64,
    /// Removes the file when it is dropped; `None` once somebody has taken the file over, or if it was never ours.
    temporary: Mutex<Option<TempPath>>,
}

impl Content {
    /// How many bytes.
    #[must_use]
    pub fn byte_n(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.0.byte_n,
        }
    }

    /// All bytes, in memory.
    ///
    /// # Errors
    /// If the file cannot be read, or has become shorter.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(file) => file.read(0, usize::try_from(file.0.byte_n).map_err(io::Error::other)?),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes.into())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl FileContent {
    /// A file that belongs to somebody else. `byte_n` is its size.
    #[must_use]
    pub fn open(file: File, byte_n: u64) -> Self {
        Self(Arc::new(Inner { file, byte_n, temporary: Mutex::new(None) }))
    }

    /// Hands a spool file over: its path, and from now on the duty to keep or to remove it. `None` if it is not a spool
    /// file, or was taken before.
    #[must_use]
    pub fn take(&self) -> Option<PathBuf> {
        let temporary = self.0.temporary.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // `keep` fails on Windows alone.
        temporary.keep().ok()
    }

    /// A reader from the first byte on, with a position of its own.
    #[must_use]
    pub fn reader(&self) -> ContentReader {
        ContentReader { content: Content::File(self.clone()), position: 0 }
    }

    fn read(&self, position: u64, byte_n: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; byte_n];
        self.0.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes.into())
    }
}

/// Reads on from a position.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    position: u64,
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read_n = match &self.content {
            Content::Memory(bytes) => {
                let rest = bytes.get(self.position as usize..).unwrap_or_default();
                let read_n = rest.len().min(buffer.len());
                buffer[..read_n].copy_from_slice(&rest[..read_n]);
                read_n
            }
            Content::File(file) => file.0.file.read_at(buffer, self.position)?,
        };
        self.position += read_n as u64;
        Ok(read_n)
    }
}

impl Length for Content {
    fn len(&self) -> u64 {
        self.byte_n()
    }
}

impl ChunkReader for Content {
    type T = ContentReader;

    fn get_read(&self, start: u64) -> ParquetResult<ContentReader> {
        Ok(ContentReader { content: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::Memory(bytes) => {
                let end = usize::try_from(start).ok().and_then(|start| start.checked_add(length));
                match end.filter(|end| *end <= bytes.len()) {
                    Some(end) => Ok(bytes.slice(end - length..end)),
                    None => Err(ParquetError::EOF(format!("{length} bytes at {start} are past the end"))),
                }
            }
            Self::File(file) => Ok(file.read(start, length)?),
        }
    }
}

/// A file that an artifact is written into.
#[derive(Debug)]
pub struct SpoolFile(BufWriter<NamedTempFile>);

impl SpoolFile {
    /// A new file in `folder`, which must exist.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(folder: &Path) -> io::Result<Self> {
        // What becomes a file of the store is for everybody whom the user's mask lets in, not for its maker alone.
        let mode = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(PREFIX).permissions(mode).tempfile_in(folder)?;
        Ok(Self(BufWriter::with_capacity(1 << 18, file)))
    }

    /// What was written.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub fn finish(self) -> io::Result<Content> {
        let (file, path) = self.0.into_inner().map_err(io::IntoInnerError::into_error)?.into_parts();
        let byte_n = file.metadata()?.len();
        Ok(Content::File(FileContent(Arc::new(Inner { file, byte_n, temporary: Mutex::new(Some(path)) }))))
    }
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use super::*;

    fn spooled(folder: &Path, bytes: &[u8]) -> FileContent {
        let mut spool = SpoolFile::create(folder).unwrap();
        spool.write_all(bytes).unwrap();
        match spool.finish().unwrap() {
            Content::File(file) => file,
            Content::Memory(_) => unreachable!("a spool file is a file"),
        }
    }

    #[test]
    fn a_spool_file_is_removed_unless_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let file = spooled(folder.path(), b"abc");
        let clone = file.clone();
        drop(file);
        assert_eq!(names(), 1);
        drop(clone);
        assert_eq!(names(), 0);
        drop(SpoolFile::create(folder.path()).unwrap());
        assert_eq!(names(), 0);

        let file = spooled(folder.path(), b"abc");
        let path = file.take().unwrap();
        assert_eq!(file.take(), None);
        drop(file);
        assert_eq!(fs::read(path).unwrap(), b"abc");
    }

    #[test]
    fn reads_by_position() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        let file = Content::File(spooled(folder.path(), &bytes));
        let memory = Content::from(bytes.clone());
        for content in [&file, &memory] {
            assert_eq!(content.bytes().unwrap(), bytes);
            let (mut first, mut second) = (content.get_read(10).unwrap(), content.get_read(20).unwrap());
            let (mut a, mut b) = ([0; 5], [0; 5]);
            first.read_exact(&mut a).unwrap();
            second.read_exact(&mut b).unwrap();
            assert_eq!((a, b), ([10, 11, 12, 13, 14], [20, 21, 22, 23, 24]));
            assert_eq!(content.get_bytes(250, 6).unwrap(), bytes[250..]);
            assert!(content.get_bytes(250, 7).is_err());
            assert!(content.get_bytes(u64::MAX, 1).is_err());
        }
    }
}
