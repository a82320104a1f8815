//! Blobs: immutable bytes under the name of their digest.
//!
//! Invariant: a blob is only ever renamed into place whole, so readers need no lock.
//!
//! Invariant: bytes that are already there are reused only if they are equal; a torn or altered blob is replaced by
//! the publication that finds it (`a_damaged_blob_is_replaced_by_the_next_publication`).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
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
        let digest = output.digest;
        let path = self.blob_path(&digest);
        let (file, bytes) = match read_whole(&path) {
            Ok(Some(read)) => read,
            Ok(None) => return Err(ReadError::Missing { digest }),
            Err(StoreError::Io { source, .. }) => {
                // A miss from now on, or nobody would ever compute it again: in this process at least, and if the disk says
                // that it has lost the bytes, everywhere.
                guard(&self.damaged).insert(digest);
                if is_broken(&source)
                    && let Ok(file) = File::open(&path)
                {
                    self.quarantine(&path, &file);
                }
                return Err(ReadError::Io { path, source });
            }
            Err(error) => return Err(ReadError::Io { path, source: io::Error::other(error) }),
        };
        let (found, found_size) = (Digest::of(&bytes), bytes.len() as u64);
        if found == digest && found_size == output.size {
            return Ok(Bytes::from(bytes));
        }
        // A manifest that lies about the size of a sound blob does not cost the blob.
        let quarantined = if found == digest { None } else { self.quarantine(&path, &file) };
        if found != digest && quarantined.is_none() {
            guard(&self.damaged).insert(digest);
        }
        let expected_size = output.size;
        Err(ReadError::Damaged { path, digest, expected_size, found_size, quarantined })
    }
}
