//! Blobs: immutable bytes under the name of their digest.
//!
//! Invariant: a blob is only ever renamed into place whole, so readers need no lock.
//!
//! Invariant: bytes that are already there are reused only if they are equal; a torn or altered blob is replaced by
//! the publication that finds it (`a_damaged_blob_is_replaced_by_the_next_publication`).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ecgpipe_sdk::content::{Content, FileContent, IN_MEMORY_LIMIT_BYTES};
use thiserror::Error;

use super::disk::{Step, is_broken};
use super::manifests::OutputRef;
use super::{Shared, StoreError, guard, read_whole};
use crate::digest::Digest;

/// Why an output cannot be read. All are misses: compute the job again.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The blob is not there (any more).
    #[error("read the blob {}: it is missing", digest.short())]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// The bytes are not those that were stored. They are never returned.
    #[error(
        "read the blob {path}: it is damaged; {found_size} bytes of {expected_size} are there and do not have its digest"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The digest that its bytes should have.
        digest: Digest,
        /// The size in bytes that it should have.
        expected_size: u64,
        /// The size in bytes that it has.
        found_size: u64,
        /// Where it was moved, unless the store is read-only.
        quarantined: Option<PathBuf>,
    },
    /// The operating system refuses.
    #[error("read the blob {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A blob that a publication needs.
pub(super) struct StoredBlob {
    pub(super) path: PathBuf,
    /// This publication was the first to write it.
    pub(super) fresh: bool,
}

impl Shared {
    /// Stores bytes under their digest.
    pub(super) fn store_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<StoredBlob, StoreError> {
        let path = self.blob_path(digest);
        if self.holds(&path, bytes)? {
            guard(&self.damaged).remove(digest);
            return Ok(StoredBlob { path, fresh: false });
        }
        let temporary = self.temporary_path();
        self.disk
            .write_new(&temporary, bytes, Step::BlobCreate, Step::BlobWrite)
            .map_err(|error| StoreError::writing(&temporary, bytes.len(), error))?;
        if let Err(error) = self.disk.rename(&temporary, &path, Step::BlobRename) {
            let _ = fs::remove_file(&temporary);
            return Err(StoreError::writing(&path, bytes.len(), error));
        }
        guard(&self.damaged).remove(digest);
        Ok(StoredBlob { path, fresh: true })
    }

    /// Takes a finished file over, under its digest: renamed into place, so that its bytes are written once. If somebody else
    /// gave the same bytes, the file goes.
    pub(super) fn store_file(&self, digest: &Digest, content: &FileContent) -> Result<StoredBlob, StoreError> {
        let path = self.blob_path(digest);
        let lost = || StoreError::io("take over", &path, io::Error::other("the file of the output was taken before"));
        let spooled = content.take().ok_or_else(lost)?;
        if self.holds_digest(&path, digest)? {
            guard(&self.damaged).remove(digest);
            fs::remove_file(&spooled).map_err(|error| StoreError::io("remove", &spooled, error))?;
            return Ok(StoredBlob { path, fresh: false });
        }
        if let Err(error) = self.disk.rename(&spooled, &path, Step::BlobRename) {
            let _ = fs::remove_file(&spooled);
            return Err(StoreError::io("rename", &path, error));
        }
        guard(&self.damaged).remove(digest);
        Ok(StoredBlob { path, fresh: true })
    }

    /// As [`Shared::holds`], without bringing the bytes into memory.
    fn holds_digest(&self, path: &Path, digest: &Digest) -> Result<bool, StoreError> {
        // Whatever is wrong with a file here, the rename over it mends.
        match digest_of(path) {
            Ok((found, _, file)) if found == *digest => self.renew(path, &file),
            _ => Ok(false),
        }
    }

    /// Tells whether `path` holds exactly `bytes`, and if so keeps gc away from it.
    fn holds(&self, path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() == bytes.len() as u64 => {}
            // Whatever is wrong here will be wrong for the write that follows, which reports it.
            _ => return Ok(false),
        }
        match read_whole(path) {
            Ok(Some((file, found))) if found == bytes => self.renew(path, &file),
            _ => Ok(false),
        }
    }

    /// The cheap check of a lookup: `Err` has the size of what was found instead, if anything was.
    pub(super) fn check_blob(&self, output: &OutputRef) -> Result<Result<(), Option<u64>>, StoreError> {
        let path = self.blob_path(&output.digest);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err(None)),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        if size != output.size {
            if let Ok(file) = File::open(&path) {
                self.quarantine(&path, &file);
            }
            return Ok(Err(Some(size)));
        }
        if guard(&self.damaged).contains(&output.digest) { Ok(Err(Some(size))) } else { Ok(Ok(())) }
    }

    pub(super) fn read_blob(&self, output: &OutputRef) -> Result<Bytes, ReadError> {
        let path = self.blob_path(&output.digest);
        let (file, bytes) = match read_whole(&path) {
            Ok(Some(read)) => read,
            Ok(None) => return Err(ReadError::Missing { digest: output.digest }),
            Err(StoreError::Io { source, .. }) => return Err(self.unreadable(output, path, source)),
            Err(error) => return Err(ReadError::Io { path, source: io::Error::other(error) }),
        };
        self.check_bytes(output, path, &file, Digest::of(&bytes), bytes.len() as u64)?;
        Ok(Bytes::from(bytes))
    }

    /// The bytes of an output, in memory if they are few; else the open file, of which every byte was verified just now.
    pub(super) fn open_blob(&self, output: &OutputRef) -> Result<Content, ReadError> {
        if output.size <= IN_MEMORY_LIMIT_BYTES {
            return self.read_blob(output).map(Content::Memory);
        }
        let path = self.blob_path(&output.digest);
        let (found, found_size, file) = match digest_of(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ReadError::Missing { digest: output.digest });
            }
            Err(error) => return Err(self.unreadable(output, path, error)),
        };
        self.check_bytes(output, path, &file, found, found_size)?;
        Ok(Content::File(FileContent::open(file, output.size)))
    }

    /// A miss from now on, or nobody would ever compute it again: in this process at least, and if the disk says that it has
    /// lost the bytes, everywhere.
    fn unreadable(&self, output: &OutputRef, path: PathBuf, source: io::Error) -> ReadError {
        guard(&self.damaged).insert(output.digest);
        if is_broken(&source)
            && let Ok(file) = File::open(&path)
        {
            self.quarantine(&path, &file);
        }
        ReadError::Io { path, source }
    }

    /// Fails, and moves the blob away, unless what was found in it is what the output says.
    fn check_bytes(
        &self,
        output: &OutputRef,
        path: PathBuf,
        file: &File,
        found: Digest,
        found_size: u64,
    ) -> Result<(), ReadError> {
        let digest = output.digest;
        if found == digest && found_size == output.size {
            return Ok(());
        }
        // A manifest that lies about the size of a sound blob does not cost the blob.
        let quarantined = if found == digest { None } else { self.quarantine(&path, file) };
        if found != digest && quarantined.is_none() {
            guard(&self.damaged).insert(digest);
        }
        let expected_size = output.size;
        Err(ReadError::Damaged { path, digest, expected_size, found_size, quarantined })
    }
}

/// The digest of a file, its size as it was read, and the file, without bringing it into memory.
pub(super) fn digest_of(path: &Path) -> io::Result<(Digest, u64, File)> {
    let mut file = File::open(path)?;
    let digest = Digest::of_reader(&file)?;
    // Reading has left the position behind the last byte.
    let byte_n = file.stream_position()?;
    Ok((digest, byte_n, file))
}
