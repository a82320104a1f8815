//! Locks that a crash releases: one for each key being computed, one lease for each open store, one gate.
//!
//! All are advisory locks of the operating system on open files, so the kernel releases them when a process ends in
//! whatever way, and none ever needs a manual unlock. What a lock file contains has no meaning to others.
//!
//! - [`KeyLock`]: exclusive, on `locks/<key>`. It lives from before the computation until the manifest is visible. Its
//!   owner writes the manifest into that very file, which becomes the manifest by renaming: one file is created a job and
//!   none is removed. (ext4 keeps the numbers of files removed shortly before from being used again and walks over
//!   them for every new file: a third of the system time of a cold run of 20,000 jobs.)
//! - [`Lease`]: exclusive, on a file of its own in `leases/`. It says "this store is in use since (time of the file)".
//! - The gate: taken shared for the moment in which a lease is made, exclusive by gc, so that gc knows every lease.
//!
//! Invariant: whoever removes a lock file holds its lock, and whoever gets a lock checks that the name still leads to
//! the file that it has locked (`a_removed_lock_file_cannot_be_locked_twice`).
//!
//! On a network file system whose locks do not reach other machines, two machines may compute one key (both results
//! are right), and gc sees the leases of its own machine only, so there the grace period is what protects a run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::disk::{self, uninterrupted};
use crate::digest::Key;

/// The right to compute and publish one key; released on drop and by the kernel when the process ends.
///
/// A thread must not wait for a second key while it holds a first that it has not yet published: two such threads
/// would wait for each other.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    path: PathBuf,
    file: File,
    /// The name is no longer this lock's: the file was renamed, and another may have the name.
    renamed: bool,
}

impl KeyLock {
    /// The key that is locked.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Where the lock file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lock file, for its owner to write what it is to become.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Ends the lock of a file that was renamed into its place.
    pub(super) fn renamed(mut self) {
        self.renamed = true;
    }

    pub(super) fn acquire(path: &Path, key: &Key, on_wait: impl FnOnce()) -> io::Result<Self> {
        let mut on_wait = Some(on_wait);
        loop {
            let file = open(path)?;
            if !try_exclusive(&file)? {
                if let Some(on_wait) = on_wait.take() {
                    on_wait();
                }
                uninterrupted(|| file.lock())?;
            }
            if disk::names(path, &file)? {
                return Ok(Self { key: *key, path: path.to_owned(), file, renamed: false });
            }
        }
    }

    pub(super) fn try_acquire(path: &Path, key: &Key) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            if !try_exclusive(&file)? {
                return Ok(None);
            }
            if disk::names(path, &file)? {
                return Ok(Some(Self { key: *key, path: path.to_owned(), file, renamed: false }));
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while still locked; a waiter finds that the name is gone and makes a new file.
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The sign that a store is in use.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) name: String,
    path: PathBuf,
    _file: File,
}

impl Lease {
    pub(super) fn acquire(folder: &Path, gate: &Path) -> io::Result<Self> {
        let gate = open(gate)?;
        uninterrupted(|| gate.lock_shared())?;
        for n in 0_u64.. {
            let name = format!("{}-{n}", std::process::id());
            let path = folder.join(&name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Nobody else locks it: gc looks at leases only while it holds the gate.
                    uninterrupted(|| file.lock())?;
                    return Ok(Self { name, path, _file: file });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("a folder cannot hold 2^64 leases")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Holds the gate: until it is dropped, no store is opened for writing.
pub(super) fn close_gate(path: &Path) -> io::Result<File> {
    let gate = open(path)?;
    uninterrupted(|| gate.lock())?;
    Ok(gate)
}

/// What the leases in a folder say.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Leases held by others.
    pub(super) live_n: usize,
    /// When the oldest of them was taken, by the clock of the file system.
    pub(super) oldest: Option<SystemTime>,
    /// When the youngest of them was taken.
    pub(super) youngest: Option<SystemTime>,
}

/// Counts the leases of others and removes those whose owner is gone. The caller holds the gate.
pub(super) fn leases(folder: &Path, own: &str) -> io::Result<Leases> {
    let mut leases = Leases::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str() == Some(own) {
            continue;
        }
        match remove_if_free(&entry.path())? {
            Some(file) => {
                leases.live_n += 1;
                let taken = file.metadata()?.modified()?;
                leases.oldest = Some(leases.oldest.map_or(taken, |oldest| oldest.min(taken)));
                leases.youngest = leases.youngest.max(Some(taken));
            }
            None => continue,
        }
    }
    Ok(leases)
}

/// Removes a lock file that nobody holds. Gives the file back if somebody does.
pub(super) fn remove_if_free(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !try_exclusive(&file)? {
        return Ok(Some(file));
    }
    if disk::names(path, &file)? {
        fs::remove_file(path)?;
    }
    Ok(None)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

fn try_exclusive(file: &File) -> io::Result<bool> {
    uninterrupted(|| match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const KEY: Key = Key::from_bytes([1; 32]);

    #[test]
    fn only_one_holds_a_lock_and_the_next_is_told_that_it_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = KeyLock::try_acquire(&path, &KEY).unwrap().unwrap();
        assert!(KeyLock::try_acquire(&path, &KEY).unwrap().is_none());
        // The waiter's callback is what releases the first: without it this test would not end.
        let second = KeyLock::acquire(&path, &KEY, || drop(first)).unwrap();
        assert!(KeyLock::try_acquire(&path, &KEY).unwrap().is_none());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn whatever_a_lock_file_contains_it_can_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for content in [&b""[..], b"\0\0\0", b"pid 1", &[255; 4096]] {
            fs::write(&path, content).unwrap();
            let lock = KeyLock::acquire(&path, &KEY, || panic!("nobody holds it")).unwrap();
            assert!(KeyLock::try_acquire(&path, &KEY).unwrap().is_none());
            drop(lock);
        }
    }

    #[test]
    fn a_removed_lock_file_cannot_be_locked_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let holders_n = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = KeyLock::acquire(&path, &KEY, || ()).unwrap();
                        assert_eq!(holders_n.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(holders_n.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(lock);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    remove_if_free(&path).unwrap();
                }
            });
        });
    }

    #[test]
    fn a_lock_file_that_was_renamed_leaves_the_next_owners_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, place) = (folder.path().join("key"), folder.path().join("manifest"));
        let first = KeyLock::acquire(&path, &KEY, || panic!("nobody holds it")).unwrap();
        fs::rename(first.path(), &place).unwrap();
        let second = KeyLock::try_acquire(&path, &KEY).unwrap().unwrap();
        first.renamed();
        assert!(KeyLock::try_acquire(&path, &KEY).unwrap().is_none(), "the second still holds it");
        drop(second);
        assert!(place.exists() && !path.exists());
    }

    #[test]
    fn a_lease_without_an_owner_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (leases_folder, gate) = (folder.path().join("leases"), folder.path().join("gate"));
        fs::create_dir(&leases_folder).unwrap();
        fs::write(leases_folder.join("4711-0"), "").unwrap();
        let own = Lease::acquire(&leases_folder, &gate).unwrap();
        let other = Lease::acquire(&leases_folder, &gate).unwrap();
        let _closed = close_gate(&gate).unwrap();
        let found = leases(&leases_folder, &own.name).unwrap();
        assert_eq!(found.live_n, 1);
        assert!(found.oldest.is_some());
        assert!(!leases_folder.join("4711-0").exists());
        drop(other);
        assert_eq!(leases(&leases_folder, &own.name).unwrap().live_n, 0);
    }
}
