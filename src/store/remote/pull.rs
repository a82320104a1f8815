//! From a remote to a store: every result is verified, then published as if it had been computed here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use super::{Found, MANIFESTS, Progress, Remote, RemoteError, Tell, in_parallel, listed_hash};
use crate::digest::Key;
use crate::store::lock::KeyLock;
use crate::store::manifests::{Manifest, NewManifest, NewOutput};
use crate::store::{Store, StoreError};

/// What a pull did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PullReport {
    /// Nothing was written.
    pub dry_run: bool,
    /// Results brought.
    pub results_n: usize,
    /// Blobs brought.
    pub blobs_n: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Results that the store had already.
    pub present_n: usize,
    /// Results that were asked for but are not in the remote.
    pub absent_n: usize,
    /// Results that somebody is computing here just now; they were left to them.
    pub busy_n: usize,
    /// Results that another version has put there.
    pub other_version_n: usize,
    /// What is damaged, here or there.
    pub warnings: Vec<String>,
}

/// What became of one key.
enum Brought {
    Here { blobs_n: usize, bytes: u64 },
    Present,
    Absent,
    Busy,
    OtherVersion,
    Damaged(String),
}

/// The outputs of a result, verified.
pub(super) struct Outputs {
    pub(super) outputs: Vec<NewOutput>,
    /// Of these, what came over the network.
    pub(super) blobs_n: usize,
    pub(super) bytes: u64,
}

impl Remote {
    /// Brings the results of `keys`, or all that the remote has, as far as the store does not have them.
    ///
    /// # Errors
    /// If the remote cannot be reached or read, or the store fails. What was brought until then stays.
    pub fn pull(
        &self,
        store: &Store,
        keys: Option<&BTreeSet<Key>>,
        dry_run: bool,
        tell: Tell<'_>,
    ) -> Result<PullReport, RemoteError> {
        let mut report = PullReport { dry_run, ..PullReport::default() };
        let keys = match keys {
            Some(keys) => keys.clone(),
            None => {
                let listed = self.objects.list(MANIFESTS)?;
                listed.keys().filter_map(|name| listed_hash(name, ".json")).map(Key::from_bytes).collect()
            }
        };
        let mut missing = Vec::new();
        for key in keys {
            match store.lookup(&key)?.hit() {
                Some(_) => report.present_n += 1,
                None => missing.push(key),
            }
        }
        let (done_n, bytes, total_n) = (AtomicUsize::new(0), AtomicU64::new(0), missing.len());
        let brought = in_parallel(&missing, |key| {
            let brought = self.pull_one(store, key, dry_run)?;
            if let Brought::Here { bytes: more, .. } = &brought {
                bytes.fetch_add(*more, Ordering::Relaxed);
            }
            let done_n = done_n.fetch_add(1, Ordering::Relaxed) + 1;
            tell(Progress { unit: "results", done_n, total_n, bytes: bytes.load(Ordering::Relaxed) });
            Ok(brought)
        });
        // Also after a failure: what was brought is kept.
        let flushed = if dry_run { Ok(()) } else { store.flush() };
        for brought in brought? {
            match brought {
                Brought::Here { blobs_n, bytes } => {
                    report.results_n += 1;
                    report.blobs_n += blobs_n;
                    report.bytes += bytes;
                }
                Brought::Present => report.present_n += 1,
                Brought::Absent => report.absent_n += 1,
                Brought::Busy => report.busy_n += 1,
                Brought::OtherVersion => report.other_version_n += 1,
                Brought::Damaged(warning) => report.warnings.push(format!("{warning}; the result was not brought")),
            }
        }
        flushed?;
        Ok(report)
    }

    fn pull_one(&self, store: &Store, key: &Key, dry_run: bool) -> Result<Brought, RemoteError> {
        let manifest = match self.manifest(key)? {
            Found::Absent => return Ok(Brought::Absent),
            Found::OtherVersion => return Ok(Brought::OtherVersion),
            Found::Damaged(warning) => return Ok(Brought::Damaged(warning)),
            Found::Manifest(manifest) => manifest,
        };
        if dry_run {
            let mut brought = (0, 0);
            for output in manifest.outputs.values() {
                if store.shared.check_blob(output)?.is_err() {
                    brought = (brought.0 + 1, brought.1 + output.size);
                }
            }
            return Ok(Brought::Here { blobs_n: brought.0, bytes: brought.1 });
        }
        let _room = self.room.take(manifest.outputs.values().map(|output| output.size).sum());
        let outputs = match self.outputs(store, &manifest)? {
            Ok(outputs) => outputs,
            Err(warning) => return Ok(Brought::Damaged(warning)),
        };
        let Some(lock) = store.try_lock(key)? else { return Ok(Brought::Busy) };
        if store.lookup(key)?.hit().is_some() {
            return Ok(Brought::Present);
        }
        let (blobs_n, bytes) = (outputs.blobs_n, outputs.bytes);
        keep(store, lock, manifest, outputs.outputs)?;
        Ok(Brought::Here { blobs_n, bytes })
    }

    /// The outputs of a manifest: those that the store has from there, the others from the remote. The inner error is the
    /// warning.
    pub(super) fn outputs(&self, store: &Store, manifest: &Manifest) -> Result<Result<Outputs, String>, RemoteError> {
        let named: Vec<_> = manifest.outputs.iter().collect();
        let read = in_parallel(&named, |(name, output)| {
            let (bytes, far) = match store.read(output) {
                Ok(bytes) => (bytes, 0),
                Err(_) => match self.blob(output)? {
                    Ok(bytes) => (bytes, 1),
                    Err(warning) => return Ok(Err(warning)),
                },
            };
            let (name, kind, rows) = ((*name).clone(), output.kind.clone(), output.rows);
            Ok(Ok((NewOutput { name, kind, rows, content: bytes.into() }, far)))
        })?;
        let mut outputs = Outputs { outputs: Vec::new(), blobs_n: 0, bytes: 0 };
        for read in read {
            match read {
                Err(warning) => return Ok(Err(warning)),
                Ok((output, far)) => {
                    outputs.blobs_n += far;
                    outputs.bytes += if far > 0 { output.content.byte_n() } else { 0 };
                    outputs.outputs.push(output);
                }
            }
        }
        Ok(Ok(outputs))
    }
}

/// Publishes a verified result. The store makes the manifest anew, and it is the same.
pub(super) fn keep(
    store: &Store,
    lock: KeyLock,
    manifest: Manifest,
    outputs: Vec<NewOutput>,
) -> Result<Manifest, StoreError> {
    let Manifest { stage, code, version, fields, cpu_ms, wall_ms, warnings, .. } = manifest;
    store.publish(lock, NewManifest { stage, code, fields, cpu_ms, wall_ms, version, warnings }, outputs)
}
