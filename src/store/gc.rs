//! Garbage collection: manifests that nobody needs, then blobs that no manifest needs.
//!
//! gc closes the gate for as long as it runs, so it knows every lease and no new one appears. What it may remove is
//! decided by a cut-off, and each file is judged by its own time:
//!
//! - Nobody else has the store open: whatever is older than the grace period.
//! - Others have it open: in addition only what is older than the oldest lease less two hours. A manifest that such a
//!   run has found, and a blob that it has reused, carries a time at most one hour (`TOUCH_INTERVAL`) before the
//!   lookup, and what it has published is newer than its lease. So gc takes nothing from under a run, even one that
//!   has been running for days.
//!
//! A run may renew the time of a file between the look at it and its removal. So a file is renamed away first, looked
//! at again, and put back if its time has changed; the run checks in turn that the name is still there after it has
//! renewed the time. One of the two sees the other (`gc_puts_back_what_a_run_has_just_found`,
//! `a_hit_beside_gc_can_be_read`).
//!
//! A checkpoint of a job that has its result is nobody's, like a temporary file. That of a job that has none yet is work of
//! hours which somebody may go on with: it stays for a week (`CHECKPOINT_GRACE`), whatever the grace period.
//!
//! gc needs no space: a full disk is when it is wanted most (`gc_frees_a_full_disk`).
//!
//! A crash of gc leaves files in `tmp/`, which the next gc removes: nothing is lost that was not to be removed.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::disk::{Step, is_full};
use super::{
    CHECKPOINT_FOLDER, GATE_FILE, Shared, Store, StoreError, TEMPORARY_PREFIXES, TOUCH_INTERVAL, lock, manifests,
    read_whole,
};
use crate::digest::{Digest, Key};

/// A checkpoint of an unfinished job stays at least this long.
const CHECKPOINT_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to collect.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// Nothing younger than this is removed. Keep it at a day or more where several machines share the folder.
    pub grace: Duration,
    /// The time by which ages are measured.
    pub now: SystemTime,
    /// Only report what would be removed.
    pub dry_run: bool,
}

/// Files removed, or to be removed by a dry run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Number of files.
    pub files_n: u64,
    /// Their sizes in bytes.
    pub bytes: u64,
}

/// What gc did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// How many others have the store open.
    pub live_leases_n: usize,
    /// Manifests that are no roots.
    pub manifests: Removed,
    /// Blobs that no remaining manifest needs.
    pub blobs: Removed,
    /// What dead processes were writing.
    pub temporary: Removed,
    /// What was found damaged.
    pub quarantine: Removed,
    /// Checkpoints of jobs that are done, or that nobody has gone on with.
    pub checkpoints: Removed,
    /// Manifests that stay.
    pub kept_manifests_n: u64,
    /// Blobs that stay.
    pub kept_blobs_n: u64,
}

impl Store {
    /// Removes every manifest whose key is not among the `roots`, then every blob that no remaining manifest needs, then
    /// what is left over in `tmp/`, `quarantine/`, `checkpoints/` and `locks/`; of all these only what is old enough. Safe beside
    /// runs of other processes. Takes the store exclusively, because a hit that this very handle has returned is
    /// protected by `roots` only.
    ///
    /// The roots are asked for when it is known who has the store open, so that a run which ends meanwhile is protected
    /// either by its lease or by what it has left behind for `roots` to find
    /// (`the_roots_are_asked_for_behind_the_closed_gate`).
    pub fn gc(
        &mut self,
        roots: impl FnOnce() -> Result<BTreeSet<Key>, Box<dyn Error + Send + Sync>>,
        options: GcOptions,
    ) -> Result<GcReport, StoreError> {
        self.flush()?;
        let shared = self.shared.collectable()?;
        let gate = shared.root.join(GATE_FILE);
        let _closed = lock::close_gate(&gate).map_err(|error| StoreError::io("lock", &gate, error))?;
        let folder = shared.root.join("leases");
        let own = shared.lease().map_or("", |lease| &lease.name);
        let leases = lock::leases(&folder, own).map_err(|error| StoreError::io("list", &folder, error))?;
        let mut cutoff = options.now.checked_sub(options.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some(oldest) = leases.oldest {
            let protected = oldest.checked_sub(TOUCH_INTERVAL * 2).unwrap_or(SystemTime::UNIX_EPOCH);
            cutoff = cutoff.min(protected);
        }
        if leases.youngest.is_some_and(|youngest| youngest > options.now) {
            // The clock was set back under a run, so what that run needs may look old.
            cutoff = SystemTime::UNIX_EPOCH;
        }
        let week_ago = options.now.checked_sub(CHECKPOINT_GRACE).unwrap_or(SystemTime::UNIX_EPOCH);
        let checkpoint_cutoff = cutoff.min(week_ago);
        let collection = Collection { shared, cutoff, checkpoint_cutoff, dry_run: options.dry_run };
        collection.run(&roots().map_err(StoreError::Roots)?, leases.live_n)
    }
}

struct Collection<'a> {
    shared: &'a Shared,
    cutoff: SystemTime,
    /// For checkpoints of jobs without a result.
    checkpoint_cutoff: SystemTime,
    dry_run: bool,
}

impl Collection<'_> {
    fn run(&self, roots: &BTreeSet<Key>, live_leases_n: usize) -> Result<GcReport, StoreError> {
        let mut report = GcReport { dry_run: self.dry_run, live_leases_n, ..GcReport::default() };
        let (mut done, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (hash, path) in self.shared.walk("manifests", ".json")?.ours {
            let key = Key::from_bytes(hash);
            done.insert(key);
            if !roots.contains(&key) && self.remove(&path, &mut report.manifests)? {
                gone.insert(key);
            }
        }
        if !self.dry_run && !gone.is_empty() {
            self.sync()?;
        }
        let needed = self.needed(&gone, &mut report)?;
        for (hash, path) in self.shared.walk("blobs", "")?.ours {
            if needed.contains(&Digest::from_bytes(hash)) || !self.remove(&path, &mut report.blobs)? {
                report.kept_blobs_n += 1;
            }
        }
        for (folder, removed) in [("tmp", &mut report.temporary), ("quarantine", &mut report.quarantine)] {
            for path in self.shared.list(&self.shared.root.join(folder))? {
                self.remove(&path, removed)?;
            }
        }
        for path in self.shared.list(&self.shared.root.join(CHECKPOINT_FOLDER))? {
            let key = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Key>().ok());
            let is_unfinished = key.is_some_and(|key| !done.contains(&key));
            let cutoff = if is_unfinished { self.checkpoint_cutoff } else { self.cutoff };
            self.remove_older(&path, cutoff, &mut report.checkpoints)?;
        }
        for path in self.shared.list(&self.shared.root)? {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            if TEMPORARY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                self.remove(&path, &mut report.temporary)?;
            }
        }
        if !self.dry_run {
            for path in self.shared.list(&self.shared.root.join("locks"))? {
                lock::remove_if_free(&path).map_err(|error| StoreError::io("remove", &path, error))?;
            }
        }
        Ok(report)
    }

    /// Makes the removal of the manifests durable before that of their blobs, so that a power cut brings none back alone.
    fn sync(&self) -> Result<(), StoreError> {
        let root = &self.shared.root;
        match File::open(root).and_then(|folder| self.shared.disk.sync(&folder, Step::Sync)) {
            // What others could not write for want of space does not keep gc from making some.
            Err(error) if is_full(&error) => Ok(()),
            result => result.map_err(|error| StoreError::io("sync", root, error)),
        }
    }

    /// The blobs that the remaining manifests need. The folder is read again, because a run may have published.
    fn needed(&self, gone: &BTreeSet<Key>, report: &mut GcReport) -> Result<BTreeSet<Digest>, StoreError> {
        let mut needed = BTreeSet::new();
        for (hash, path) in self.shared.walk("manifests", ".json")?.ours {
            let key = Key::from_bytes(hash);
            if self.dry_run && gone.contains(&key) {
                continue;
            }
            // A manifest that cannot be read just now must not cost its blobs, so an I/O error ends the collection.
            // A damaged one is a miss in any case and needs nothing.
            let Some((_, text)) = read_whole(&path)? else { continue };
            report.kept_manifests_n += 1;
            if let Ok(manifest) = manifests::decode(&text, &key) {
                needed.extend(manifest.outputs.values().map(|output| output.digest));
            }
        }
        Ok(needed)
    }

    /// Removes one file if it is old enough, and tells whether it did (or would).
    fn remove(&self, path: &Path, removed: &mut Removed) -> Result<bool, StoreError> {
        self.remove_older(path, self.cutoff, removed)
    }

    fn remove_older(&self, path: &Path, cutoff: SystemTime, removed: &mut Removed) -> Result<bool, StoreError> {
        let old = |path: &Path| -> io::Result<Option<u64>> {
            let metadata = fs::symlink_metadata(path)?;
            Ok((metadata.modified()? < cutoff).then_some(metadata.len()))
        };
        let remove = || -> io::Result<Option<u64>> {
            let Some(bytes) = old(path)? else { return Ok(None) };
            if self.dry_run {
                return Ok(Some(bytes));
            }
            let away = self.shared.temporary_path();
            self.shared.disk.announce(Step::Collect)?;
            match fs::rename(path, &away) {
                // No space for a name. A run that finds the file at this very instant computes it again.
                Err(error) if is_full(&error) => {
                    fs::remove_file(path)?;
                    return Ok(Some(bytes));
                }
                renamed => renamed?,
            }
            if old(&away)?.is_none() {
                fs::rename(&away, path)?;
                return Ok(None);
            }
            fs::remove_file(&away)?;
            Ok(Some(bytes))
        };
        match remove() {
            Ok(Some(bytes)) => {
                removed.files_n += 1;
                removed.bytes += bytes;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // A run has finished with its temporary file, or has quarantined a blob.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", path, error)),
        }
    }
}
