//! Checkpoints: the unfinished work of a job, one file a key, so that a job of hours that was stopped or killed goes on
//! where it was.
//!
//! What a checkpoint says is up to its stage. The store answers for its bytes: they are those that were saved under this
//! key, or there are none. A key holds everything that decides a result, the stage's code included, so a checkpoint of a
//! key is of the same job, whoever began it.
//!
//! Only who holds the lock of a key reads or writes its checkpoint. It goes when the manifest of its key has its name, and
//! not before: a power cut may still take a result whose `publish` has returned. What a kill between the two leaves
//! behind, and what nobody goes on with, is removed by gc.
//!
//! Invariant: a checkpoint is whole, unchanged and of its key, or it is not served
//! (`no_flip_or_cut_of_a_checkpoint_is_served`, `a_checkpoint_is_of_one_key_alone`).

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::lock::KeyLock;
use super::{CHECKPOINT_FOLDER, Shared, Store, StoreError, guard, read_whole};
use crate::digest::{Digest, Key};
use crate::whole_file;

/// The first bytes. Then come the key, the bytes that were saved, and the BLAKE3 digest of all of that. An unknown head is
/// damage: whoever wrote it, this version cannot go on from there.
const HEAD: &[u8] = b"ecgpipe-checkpoint 1\n";
const DIGEST_BYTE_N: usize = 32;

impl Store {
    /// The checkpoint of the key that is locked, if there is one.
    pub fn load_checkpoint(&self, lock: &KeyLock) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.shared.checkpoint_path(lock.key());
        let Some((_, bytes)) = read_whole(&path)? else { return Ok(None) };
        // Damaged or not, it goes when the job is done.
        guard(&self.shared.checkpointed).insert(*lock.key());
        match content(&bytes, lock.key()) {
            Some(content) => Ok(Some(content.to_vec())),
            None => Err(StoreError::DamagedCheckpoint { path }),
        }
    }

    /// Replaces the checkpoint of the key that is locked. On return it is durable.
    pub fn save_checkpoint(&self, lock: &KeyLock, content: &[u8]) -> Result<(), StoreError> {
        let root = &self.shared.writable()?.root;
        let path = self.shared.checkpoint_path(lock.key());
        let mut bytes = [HEAD, lock.key().as_bytes(), content].concat();
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        guard(&self.shared.checkpointed).insert(*lock.key());
        let replace = || {
            let synced = whole_file::Content::Synced;
            whole_file::replace_by_way_of(&root.join("tmp"), &path, "checkpoint.", &bytes, synced)
        };
        let replaced = match replace() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(root.join(CHECKPOINT_FOLDER)).and_then(|()| replace())
            }
            result => result,
        };
        replaced.map_err(|error| StoreError::writing(&path, bytes.len(), error))
    }
}

impl Shared {
    fn checkpoint_path(&self, key: &Key) -> PathBuf {
        self.root.join(CHECKPOINT_FOLDER).join(key.to_hex())
    }

    /// Removes the checkpoint of a job that is done, if this process knows of one.
    pub(super) fn remove_checkpoint(&self, key: &Key) {
        if guard(&self.checkpointed).remove(key) {
            // Where this fails, gc will do it; the result is there.
            let _ = fs::remove_file(self.checkpoint_path(key));
        }
    }
}

/// What was saved, if these are the bytes of a checkpoint of this key.
fn content<'a>(bytes: &'a [u8], key: &Key) -> Option<&'a [u8]> {
    let (checked, digest) = bytes.split_last_chunk::<DIGEST_BYTE_N>()?;
    let is_sound = Digest::of(checked).as_bytes() == digest;
    checked.strip_prefix(HEAD)?.strip_prefix(key.as_bytes()).filter(|_| is_sound)
}
