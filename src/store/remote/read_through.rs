//! A remote beside a run: what the store lacks is looked for there before it is computed.
//!
//! Invariant: a remote never fails a run and never holds it up for long: whatever goes wrong is one warning, and after that
//! the run goes on without it (`a_remote_that_fails_is_given_up_with_one_warning`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ecgpipe_sdk::error::chain;

use super::objects::{Patience, Place};
use super::pull::keep;
use super::{Found, Remote, RemoteError};
use crate::digest::Key;
use crate::store::manifests::Manifest;
use crate::store::{Store, guard};

/// A remote that is asked while a run goes on.
pub struct ReadThrough {
    url: String,
    place: Place,
    state: Mutex<State>,
    results_n: AtomicU64,
    bytes: AtomicU64,
}

enum State {
    /// Nobody has asked yet.
    Untried,
    Open(Arc<Remote>),
    /// There is nothing at the address.
    Empty,
    /// It failed, and is not asked again.
    GivenUp,
}

impl fmt::Debug for ReadThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThrough").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ReadThrough {
    /// Takes note of the address; the remote is opened when it is first needed.
    ///
    /// # Errors
    /// If the address cannot be one.
    pub fn new(url: &str) -> Result<Self, RemoteError> {
        let place = Place::parse(url)?;
        let (results_n, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { url: url.to_owned(), place, state: Mutex::new(State::Untried), results_n, bytes })
    }

    #[cfg(test)]
    pub(super) fn on(remote: Remote) -> Self {
        let through = Self::new(remote.url()).expect("a test gives an address");
        *guard(&through.state) = State::Open(Arc::new(remote));
        through
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells whether the network is needed.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.place.is_far()
    }

    /// Tells whether it failed, so that there is no sense in pushing to it now.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        matches!(*guard(&self.state), State::GivenUp)
    }

    /// What came from it, for people; `None` if nothing worth a word happened.
    #[must_use]
    pub fn summary(&self) -> Option<ReadThroughSummary> {
        let (results_n, bytes) = (self.results_n.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let empty = matches!(*guard(&self.state), State::Empty);
        (results_n > 0 || empty).then_some(ReadThroughSummary { results_n, bytes, empty })
    }

    /// Brings the result of a key into the store, if the remote has it. `warn` hears what is damaged there, and once that
    /// the remote is given up.
    pub(in crate::store) fn fetch(&self, store: &Store, key: &Key, warn: &dyn Fn(String)) -> Option<Manifest> {
        let remote = self.remote(warn)?;
        let brought = self.verdict(self.bring(&remote, store, key, warn), warn)?;
        self.results_n.fetch_add(1, Ordering::Relaxed);
        Some(brought)
    }

    /// The manifest of a key, if the remote has it; brings nothing.
    pub(in crate::store) fn peek(&self, key: &Key, warn: &dyn Fn(String)) -> Option<Manifest> {
        let remote = self.remote(warn)?;
        self.verdict(sound(&remote, key, warn), warn)
    }

    fn bring(
        &self,
        remote: &Remote,
        store: &Store,
        key: &Key,
        warn: &dyn Fn(String),
    ) -> Result<Option<Manifest>, RemoteError> {
        let Some(manifest) = sound(remote, key, warn)? else { return Ok(None) };
        let outputs = match remote.outputs(store, &manifest)? {
            Ok(outputs) => outputs,
            Err(warning) => {
                warn(format!("{warning}; the result is computed"));
                return Ok(None);
            }
        };
        // Another run may be computing it; then its result is used.
        let lock = store.lock(key, || ())?;
        if let Some(manifest) = store.lookup(key)?.hit() {
            return Ok(Some(manifest));
        }
        let manifest = keep(store, lock, manifest, outputs.outputs)?;
        self.bytes.fetch_add(outputs.bytes, Ordering::Relaxed);
        Ok(Some(manifest))
    }

    fn remote(&self, warn: &dyn Fn(String)) -> Option<Arc<Remote>> {
        let opened = {
            // The others wait: they need the same.
            let mut state = guard(&self.state);
            match &*state {
                State::Open(remote) => return Some(Arc::clone(remote)),
                State::Empty | State::GivenUp => return None,
                State::Untried => {}
            }
            match Remote::open_to_read(&self.url, &self.place, Patience::RUN) {
                Ok(Some(remote)) => {
                    let remote = Arc::new(remote);
                    *state = State::Open(Arc::clone(&remote));
                    return Some(remote);
                }
                Ok(None) => {
                    *state = State::Empty;
                    return None;
                }
                Err(error) => Err(error),
            }
        };
        self.verdict(opened, warn)
    }

    /// Gives a remote up that fails. A failure of the store is not its fault, and will be met again by whoever computes.
    fn verdict<T>(&self, result: Result<Option<T>, RemoteError>, warn: &dyn Fn(String)) -> Option<T> {
        match result {
            Ok(found) => found,
            Err(RemoteError::Store(error)) => {
                warn(format!("a result of the remote was not kept: failed to {}", chain(&error)));
                None
            }
            Err(error) => {
                let before = std::mem::replace(&mut *guard(&self.state), State::GivenUp);
                if !matches!(before, State::GivenUp) {
                    let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
                    warn(format!("the run goes on without its remote: failed to {}{help}", chain(&error)));
                }
                None
            }
        }
    }
}

/// What came from a remote while a run went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadThroughSummary {
    /// Results.
    pub results_n: u64,
    /// Bytes of blobs.
    pub bytes: u64,
    /// There is nothing at the address yet.
    pub empty: bool,
}

fn sound(remote: &Remote, key: &Key, warn: &dyn Fn(String)) -> Result<Option<Manifest>, RemoteError> {
    match remote.manifest(key)? {
        Found::Manifest(manifest) => Ok(Some(manifest)),
        Found::Absent | Found::OtherVersion => Ok(None),
        Found::Damaged(warning) => {
            warn(format!("{warning}; the result is computed"));
            Ok(None)
        }
    }
}
