//! A cache that several machines share: a folder or an S3 bucket with the blobs and manifests of many stores.
//!
//! ```text
//! format                   `ecgpipe-remote 1`
//! blobs/ab/ab12..          bytes, named by their BLAKE3 digest
//! manifests/cd/cd34...json what a job produced, named by the key of the job; the same bytes as in a store
//! probe/..                 left by a probe that was cut short; of no meaning
//! ```
//!
//! [`Remote::push`] sends, [`Remote::pull`] brings, [`ReadThrough`] brings single results while a run needs them. A blob is
//! written before any manifest that needs it, so whoever finds a manifest finds its blobs, whatever was interrupted.
//!
//! Invariant: what is brought has the digest, the size, the checksum and the key that it should have, or it is not stored
//! (`nothing_damaged_is_brought`). A damaged object is named in a warning and counts as absent.
//!
//! Invariant: a result that another machine has pushed is never overwritten by one with other bytes, and the stage that
//! gives other bytes is named (`a_stage_that_is_not_deterministic_is_named_and_overwrites_nothing`).
//!
//! Invariant: a transfer that was interrupted at any operation leaves nothing wrong behind, and its repetition transfers
//! only what is missing (`a_push_goes_on_after_a_failure_at_any_operation`, `a_pull_goes_on_after_a_failure_at_any_operation`).
//!
//! Whoever can write to a remote decides what its readers get: digests protect from damage, not from malice.

mod http;
mod objects;
mod pull;
mod push;
mod read_through;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ecgpipe_sdk::error::chain;
use object_store::memory::InMemory;
use object_store::path::Path;
use thiserror::Error;

pub use self::pull::PullReport;
pub use self::push::{Conflict, PushOptions, PushReport};
pub use self::read_through::ReadThrough;

use self::objects::{Fetched, Objects, Patience, Place};
use super::manifests::{self, Damage, Manifest, OutputRef};
use super::{StoreError, guard};
use crate::digest::{Digest, Key, KeyEncoder};

const REMOTE_FORMAT: u32 = 1;
const FORMAT_WORD: &str = "ecgpipe-remote";
const FORMAT_OBJECT: &str = "format";
const BLOBS: &str = "blobs";
const MANIFESTS: &str = "manifests";
const PROBE: &str = "probe";

/// Objects that are on their way at once.
const PARALLEL_N: usize = 16;

/// Bytes of artifacts that a transfer holds in memory at once; a larger one travels alone.
const ROOM_BYTES: u64 = 256 << 20;

/// No manifest is as large as this; what is, is not read.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// What a manifest has usually.
const MANIFEST_BYTES: u64 = 4 << 10;

/// Why a remote cannot do what it was asked.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The address cannot be used.
    #[error("use the remote `{url}`: {reason}")]
    Url {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no remote at the address.
    #[error("use the remote {url}: there is none")]
    Absent {
        /// The address.
        url: String,
    },
    /// It has another format.
    #[error("use the remote {url}: its format is {found:?}, this version reads `{FORMAT_WORD} {REMOTE_FORMAT}`")]
    Format {
        /// The address.
        url: String,
        /// What it says, at most 40 characters.
        found: String,
    },
    /// Something else is there, which must not be mixed with a cache.
    #[error("use the remote {url}: it is not a remote cache, it holds `{found}`")]
    NotARemote {
        /// The address.
        url: String,
        /// An entry that no remote has.
        found: String,
    },
    /// The object store refuses or cannot be reached.
    #[error("{action} {url}: {reason}")]
    Access {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which object.
        url: String,
        /// What it says.
        reason: String,
        /// What a person can do about it.
        advice: &'static str,
    },
    /// It took too long.
    #[error("{action} {url}: no answer within {} s", limit.as_secs())]
    Slow {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which object.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// The operating system gives no thread.
    #[error("start the threads of the remote: {source}")]
    Runtime {
        /// The cause.
        source: io::Error,
    },
    /// The store of this project fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteError {
    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Url { .. } => {
                Some("give a folder, file:///folder or s3://bucket/prefix; AWS_* variables say the rest")
            }
            Self::Absent { .. } => Some("check the address; `ecgpipe cache push` makes a remote"),
            Self::Format { found, .. } if found.starts_with("ecgpipe-store") => {
                Some("this is the store of a project; use it with --store, and another folder as remote")
            }
            Self::Format { .. } => Some("use the version that wrote it, or choose another place for the remote"),
            Self::NotARemote { .. } => Some("choose an empty folder, or a prefix of its own in the bucket"),
            Self::Access { advice, .. } => Some(advice),
            Self::Slow { .. } => {
                Some("check the network; what was transferred stays, so the same command goes on from there")
            }
            Self::Runtime { .. } => None,
            Self::Store(error) => error.help(),
        }
    }

    fn access(action: &'static str, url: &str, source: &object_store::Error) -> Self {
        let text = chain(source);
        let advice = if !url.starts_with("s3:") {
            "check the folder, its permissions and the space; what was transferred stays"
        } else if text.contains("NoSuchBucket") {
            "check the name of the bucket, AWS_ENDPOINT_URL and AWS_REGION; a bucket is not made by a push"
        } else if text.contains("403 ") || text.contains("401 ") {
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION; the account needs s3:ListBucket, s3:GetObject and, \
             to push, s3:PutObject"
        } else if text.contains("169.254.") {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        } else {
            "check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the network; what was \
             transferred stays"
        };
        Self::Access { action, url: url.to_owned(), reason: condensed(&text), advice }
    }
}

/// An error of an object store without the page of XML that S3 sends with it.
fn condensed(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
    };
    match (text.find('<'), element("Code"), element("Message")) {
        (Some(at), Some(code), message) => {
            let head = text[..at].trim_end_matches([' ', ':']).trim_end();
            let message = message.map(|message| format!(" ({message})")).unwrap_or_default();
            format!("{head}: {code}{message}")
        }
        _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is counted: `blobs` or `results`.
    pub unit: &'static str,
    /// Done.
    pub done_n: usize,
    /// Out of.
    pub total_n: usize,
    /// Bytes transferred.
    pub bytes: u64,
}

/// Hears how far a transfer is; called from several threads.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Sync);

/// A remote. Its methods may be called from several threads at once, and several machines may use one at once.
#[derive(Debug)]
pub struct Remote {
    objects: Objects,
    room: Room,
}

/// What there is under a key.
enum Found {
    Absent,
    /// Another version wrote it; it is left to it.
    OtherVersion,
    /// The warning.
    Damaged(String),
    Manifest(Manifest),
}

impl Remote {
    /// Opens a remote to read from it. Looks at its format, so it needs the network.
    ///
    /// # Errors
    /// If there is none, or it cannot be reached or read.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        Self::open_to_read(url, &Place::parse(url)?, Patience::TRANSFER)?
            .ok_or_else(|| RemoteError::Absent { url: url.to_owned() })
    }

    /// Opens a remote to push to it; [`Remote::push`] makes it if there is none.
    ///
    /// # Errors
    /// If the address is wrong, or the folder cannot be made.
    pub fn open_to_push(url: &str, dry_run: bool) -> Result<Self, RemoteError> {
        let objects = match Objects::open(url, &Place::parse(url)?, Patience::TRANSFER, !dry_run)? {
            Some(objects) => objects,
            // What a dry run would make is empty.
            None => Objects::on(url, Arc::new(InMemory::new()), Path::default(), Patience::TRANSFER)?,
        };
        Ok(Self::on(objects))
    }

    /// `None` if there is no remote.
    fn open_to_read(url: &str, place: &Place, patience: Patience) -> Result<Option<Self>, RemoteError> {
        let Some(objects) = Objects::open(url, place, patience, false)? else { return Ok(None) };
        let remote = Self::on(objects);
        Ok(if remote.has_format()? { Some(remote) } else { None })
    }

    fn on(objects: Objects) -> Self {
        Self { objects, room: Room::new(ROOM_BYTES) }
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.objects.url()
    }

    /// Tells whether a remote of this format is there; false if there is nothing yet.
    fn has_format(&self) -> Result<bool, RemoteError> {
        let url = || self.url().to_owned();
        match self.objects.get(FORMAT_OBJECT, 0, 4096)? {
            Fetched::Bytes(text) if text == format_text() => Ok(true),
            Fetched::Bytes(text) => {
                let found = String::from_utf8_lossy(&text).trim().chars().take(40).collect();
                Err(RemoteError::Format { url: url(), found })
            }
            Fetched::TooLarge(size) => Err(RemoteError::Format { url: url(), found: format!("{size} bytes") }),
            Fetched::Absent => match self.objects.stranger(&[FORMAT_OBJECT, BLOBS, MANIFESTS, PROBE])? {
                Some(found) => Err(RemoteError::NotARemote { url: url(), found }),
                None => Ok(false),
            },
        }
    }

    /// The manifest of a key, verified.
    fn manifest(&self, key: &Key) -> Result<Found, RemoteError> {
        let name = manifest_name(key);
        let damaged = |what: &dyn std::fmt::Display| {
            Ok(Found::Damaged(format!("{} cannot be used: {what}", self.objects.address(&name))))
        };
        match self.objects.get(&name, MANIFEST_BYTES, MAX_MANIFEST_BYTES)? {
            Fetched::Absent => Ok(Found::Absent),
            Fetched::TooLarge(size) => damaged(&format!("it has {size} bytes")),
            Fetched::Bytes(text) => match manifests::decode(&text, key) {
                Ok(manifest) if KeyEncoder::key_of(&manifest.fields) == Ok(*key) => Ok(Found::Manifest(manifest)),
                Ok(_) => damaged(&"its fields do not make its key"),
                Err(Damage::Format { .. }) => Ok(Found::OtherVersion),
                Err(damage) => damaged(&damage),
            },
        }
    }

    /// The bytes of an output, verified; the inner error is the warning.
    fn blob(&self, output: &OutputRef) -> Result<Result<Bytes, String>, RemoteError> {
        let name = blob_name(&output.digest);
        let address = || self.objects.address(&name);
        Ok(match self.objects.get(&name, output.size, output.size)? {
            Fetched::Absent => Err(format!("{} is missing", address())),
            Fetched::TooLarge(size) => {
                Err(format!("{} is damaged: it has {size} bytes instead of {}", address(), output.size))
            }
            Fetched::Bytes(bytes) if bytes.len() as u64 != output.size => {
                Err(format!("{} is damaged: it has {} bytes instead of {}", address(), bytes.len(), output.size))
            }
            Fetched::Bytes(bytes) if Digest::of(&bytes) != output.digest => {
                Err(format!("{} is damaged: its bytes do not have the digest of its name", address()))
            }
            Fetched::Bytes(bytes) => Ok(bytes),
        })
    }
}

fn format_text() -> Bytes {
    Bytes::from(format!("{FORMAT_WORD} {REMOTE_FORMAT}\n"))
}

fn blob_name(digest: &Digest) -> String {
    let hex = digest.to_hex();
    format!("{BLOBS}/{}/{hex}", &hex[..2])
}

fn manifest_name(key: &Key) -> String {
    let hex = key.to_hex();
    format!("{MANIFESTS}/{}/{hex}.json", &hex[..2])
}

/// The hash in the name of a listed object; `None` for a stranger.
fn listed_hash(name: &str, suffix: &str) -> Option<[u8; 32]> {
    let (shard, file) = name.split_once('/')?;
    let hash: Digest = file.strip_suffix(suffix)?.parse().ok()?;
    file.starts_with(shard).then_some(*hash.as_bytes())
}

/// Does `work` on every item, on up to [`PARALLEL_N`] threads. The results are in the order of the items. After the first
/// error nothing new is begun.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, RemoteError> + Sync,
) -> Result<Vec<R>, RemoteError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let item_idx = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(item_idx) else { break };
            match work(item) {
                Ok(result) => done.push((item_idx, result)),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let mut done = if items.len() < 2 {
        run()?
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PARALLEL_N.min(items.len())).map(|_| scope.spawn(run)).collect();
            let mut done = Vec::new();
            let mut first = None;
            for thread in threads {
                match thread.join() {
                    Ok(Ok(part)) => done.extend(part),
                    Ok(Err(error)) => first = first.or(Some(error)),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            first.map_or(Ok(done), Err)
        })?
    };
    done.sort_by_key(|(item_idx, _)| *item_idx);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Counts the bytes that transfers hold in memory.
#[derive(Debug)]
struct Room {
    capacity: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// Bytes taken; given back on drop.
struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    fn new(capacity: u64) -> Self {
        Self { capacity, free: Mutex::new(capacity), freed: Condvar::new() }
    }

    /// Waits until there is room; for more than the capacity, until nobody else takes any.
    fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.capacity);
        let mut free = self
            .freed
            .wait_while(guard(&self.free), |free| *free < bytes)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *free -= bytes;
        Taken { room: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *guard(&self.room.free) += self.bytes;
        self.room.freed.notify_all();
    }
}
