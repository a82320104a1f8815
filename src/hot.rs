//! Owns the artifacts that are still in memory, so that a cold run does not read back what it has just written.
//!
//! Invariant: an artifact is found here only under the digest of its encoded bytes, so that a hot artifact and one that was
//! read from the store are the same.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use dashmap::{DashMap, Entry};
use ecgpipe_sdk::{Artifact, KindError, KindSpec};

use crate::{
    digest::Digest,
    store::{OutputRef, ReadError, Store},
};

/// Encoded bytes of all artifacts that may be held; the artifacts themselves take up to five times as much.
const CAPACITY_BYTES: u64 = 256 << 20;

/// Artifacts by digest, each for as long as somebody will still read it.
#[derive(Default)]
pub struct HotArtifacts {
    artifacts: DashMap<Digest, (Artifact, u64)>,
    /// Who will still read an output; only such outputs are held.
    readers: DashMap<Digest, Readers>,
    held_bytes: AtomicU64,
}

/// Jobs that will still read an output.
#[derive(Default)]
struct Readers {
    /// How many, never 0.
    job_n: usize,
    /// Held by the one that reads it from the store, so that another waits instead of doing the same.
    turn: Arc<Mutex<()>>,
}

/// Why an artifact could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store does not have its bytes (any more).
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The bytes are right but do not decode.
    #[error(transparent)]
    Kind(#[from] KindError),
}

impl HotArtifacts {
    /// Holds a fresh artifact, if there is room and it was ever in memory, on behalf of whoever made it: it stays until [`HotArtifacts::release`], which
    /// its maker calls once it is known who will read it. Without that, the last reader of equal bytes that another job
    /// gave could take it away in between.
    pub fn keep_fresh(&self, output: &OutputRef, artifact: Option<Artifact>) {
        self.expect_readers(output.digest, 1);
        if let Some(artifact) = artifact {
            self.keep(output, artifact);
        }
    }

    /// Holds an artifact if there is room.
    fn keep(&self, output: &OutputRef, artifact: Artifact) {
        if self.held_bytes.load(Ordering::Relaxed) + output.size <= CAPACITY_BYTES
            && self.artifacts.insert(output.digest, (artifact, output.size)).is_none()
        {
            self.held_bytes.fetch_add(output.size, Ordering::Relaxed);
        }
    }

    /// Says that `reader_n` more jobs will read an output.
    pub fn expect_readers(&self, digest: Digest, reader_n: usize) {
        if reader_n > 0 {
            self.readers.entry(digest).or_default().job_n += reader_n;
        }
    }

    /// Says that a job has read an output for good; the last reader frees it.
    pub fn release(&self, digest: Digest) {
        if let Entry::Occupied(mut readers) = self.readers.entry(digest) {
            readers.get_mut().job_n -= 1;
            if readers.get().job_n == 0 {
                readers.remove();
                self.drop_artifact(digest);
            }
        }
    }

    /// An artifact from memory or, verified, from the store; one that several jobs ask for at a time is read once.
    ///
    /// # Errors
    /// If the store has lost it, or its bytes are not of this kind.
    pub fn load(&self, output: &OutputRef, kind: &KindSpec, store: &Store) -> Result<Artifact, LoadError> {
        let read = || -> Result<Artifact, LoadError> { Ok(kind.open(&store.open_output(output)?)?) };
        if let Some(held) = self.held(output.digest) {
            return Ok(held);
        }
        let Some(turn) = self.readers.get(&output.digest).map(|readers| readers.turn.clone()) else { return read() };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = self.held(output.digest) {
            return Ok(held);
        }
        let artifact = read()?;
        if self.readers.get(&output.digest).is_some_and(|readers| readers.job_n > 1) {
            self.keep(output, artifact.clone());
        }
        Ok(artifact)
    }

    fn held(&self, digest: Digest) -> Option<Artifact> {
        self.artifacts.get(&digest).map(|held| held.0.clone())
    }

    fn drop_artifact(&self, digest: Digest) {
        if let Some((_, (_, size))) = self.artifacts.remove(&digest) {
            self.held_bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }
}
