//! The content-addressed store: blobs by digest, manifests by key, and the promise that nothing wrong is served.
//!
//! It owns one folder:
//!
//! ```text
//! format            the format number of the folder
//! blobs/ab/ab12..   bytes, named by their BLAKE3 digest
//! manifests/cd/..   what a job produced, named by the key of the job
//! locks/            one lock file for each key being computed now; it becomes the manifest
//! leases/  gate     who has the store open, so that gc is safe beside them
//! tmp/              files being written
//! checkpoints/      unfinished work of jobs that may go on from there (see `checkpoints.rs`); made when first needed
//! quarantine/       what was found damaged, for a person to look at
//! stat_cache        digests of raw input files (see `StatCache`)
//! published.json    what was published from which blob (see `publish`)
//! ```
//!
//! # Publication, and what a power cut leaves
//!
//! [`Store::publish`] writes the blobs of a job to `tmp/`, renames them into place, and writes the manifest into the lock
//! file of its key.
//! The commit thread gathers such publications for a tenth of a second, makes all of them durable with one `syncfs`,
//! and only then renames the manifests into place and releases the locks of their keys. So:
//!
//! - A manifest that has its name was durable, with all its blobs, before it got the name.
//! - A power cut before the rename leaves no manifest: a miss. What it leaves in `blobs/` and `tmp/` may be torn, but
//!   nothing points to it; a later publication compares what it finds with what it has, and gc removes the rest.
//! - A disk that lies about being done is found by the checksum of the manifest, the size of the blob on lookup, and
//!   the digest on read. Each makes a miss, never a wrong byte.
//!
//! Invariant: a hit can be read, whatever the instant of the power cut (`a_power_cut_at_any_step_leaves_no_bad_hit`),
//! of a kill (`a_kill_at_any_step_needs_no_repair`) or of a failure (`a_failure_at_any_step_is_a_miss_and_not_a_lie`).
//!
//! Invariant: bytes whose digest differs from the one asked for are never returned (`no_flip_of_a_blob_is_served`).
//!
//! Invariant: two processes compute one key once (`two_processes_compute_each_key_once_beside_gc`).
//!
//! One `syncfs` for many jobs costs a fraction of an `fsync` for each file and folder (figures in `commit.rs`). It also
//! waits for what other programs have written to the same file system, which is why it runs in a thread of its own and
//! no job waits for it.
//!
//! The store knows nothing of stages, pipelines, kinds or runs: to it they are labels. It never prints.

mod blobs;
mod checkpoints;
mod commit;
mod disk;
mod gc;
mod lock;
mod manifests;
pub mod remote;
mod stat_cache;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ecgpipe_sdk::Content;
use thiserror::Error;

pub use self::blobs::ReadError;
pub use self::gc::{GcOptions, GcReport, Removed};
pub use self::lock::KeyLock;
pub use self::manifests::{Damage, MANIFEST_FORMAT, Manifest, NewManifest, NewOutput, OutputName, OutputRef, Outputs};
pub use self::stat_cache::{FileState, StatCache, StatCacheError};
pub use self::verify::{Problem, ProblemKind, StageSize, Stats, VerifyReport};

use self::commit::Committer;
use self::disk::{Disk, Step};
use self::lock::Lease;
use self::remote::ReadThrough;
use crate::digest::{Digest, Key};
use crate::whole_file;

/// The format of the folder. Another number is refused: this version neither reads nor changes such a folder.
const STORE_FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_WORD: &str = "ecgpipe-store";
const FOLDERS: [&str; 6] = ["blobs", "manifests", "locks", "leases", "tmp", "quarantine"];
/// Made with its first file: most stores hold none.
const CHECKPOINT_FOLDER: &str = "checkpoints";
const GATE_FILE: &str = "gate";
const STAT_CACHE_FILE: &str = "stat_cache";
const PUBLISHED_FILE: &str = "published.json";

/// How the names of files begin that become `published.json`, or a published file, by renaming.
pub const PUBLISHED_TEMPORARY_PREFIX: &str = ".ecgpipe-";

/// How the names of files in the folder itself begin that a killed process may have left there.
const TEMPORARY_PREFIXES: [&str; 3] = ["format.", stat_cache::TEMPORARY_PREFIX, PUBLISHED_TEMPORARY_PREFIX];

/// A hit renews the time of its manifest when that is older than this, so that gc knows what is in use. Renewing it
/// on every hit would cost a write for each job of a run that does nothing.
const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);

/// Why the store cannot do what it was asked. Damage and absence are not errors but misses.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder has another format.
    #[error("open the store {path}: its format is {found:?}, this version reads `{FORMAT_WORD} {STORE_FORMAT}`")]
    Format {
        /// The format file.
        path: PathBuf,
        /// What it says, at most 40 characters.
        found: String,
    },
    /// The folder holds something else, which gc must never touch.
    #[error("open the store {path}: it is not a store, it holds `{found}`")]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// An entry that no store has.
        found: String,
    },
    /// The folder cannot be written, or was opened for reading only.
    #[error("write to the store {path}: it is read-only")]
    ReadOnly {
        /// The folder.
        path: PathBuf,
    },
    /// The disk, or the quota, is full.
    #[error("write {path}: no space left{}", for_bytes(*needed))]
    NoSpace {
        /// The file that was being written; nothing of it is left.
        path: PathBuf,
        /// Its size in bytes; 0 if only its name or its metadata lack the space.
        needed: u64,
    },
    /// A publication names two outputs alike.
    #[error("publish: the output `{name}` was given twice")]
    DuplicateOutput {
        /// The name.
        name: OutputName,
    },
    /// A checkpoint is not what was saved. The job begins anew, and its next checkpoint replaces this one.
    #[error("read the checkpoint {path}: it is damaged")]
    DamagedCheckpoint {
        /// The file.
        path: PathBuf,
    },
    /// Publications that could not be made durable. Their results are right but will be computed again.
    #[error("keep the results of {} jobs in the store: {source}", lost.len())]
    Commit {
        /// The keys that were not published.
        lost: Vec<Key>,
        /// The first cause.
        source: Box<StoreError>,
    },
    /// It is not known what gc must keep, so it has removed nothing.
    #[error("learn which results are still needed: {0}")]
    Roots(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that the operating system refuses.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as a verb: `read`, `rename`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StoreError {
    /// What a person can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Format { .. } => Some("use the version that wrote it, or choose another folder for the store"),
            Self::NotAStore { .. } => Some("choose an empty folder, or one that does not exist yet"),
            Self::ReadOnly { .. } => Some("results are served from it but not kept; choose a folder you can write"),
            Self::NoSpace { .. } => Some("free some space or collect garbage; finished jobs are not computed again"),
            Self::DuplicateOutput { .. } | Self::Roots(_) | Self::DamagedCheckpoint { .. } => None,
            Self::Commit { source, .. } => source.help(),
            Self::Io { .. } => None,
        }
    }

    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if disk::is_full(&source) { Self::NoSpace { path, needed: 0 } } else { Self::Io { action, path, source } }
    }

    fn writing(path: &Path, needed_n: usize, source: io::Error) -> Self {
        match Self::io("write", path, source) {
            Self::NoSpace { path, .. } => Self::NoSpace { path, needed: needed_n as u64 },
            error => error,
        }
    }
}

fn for_bytes(needed: u64) -> String {
    if needed == 0 { String::new() } else { format!(" for {needed} bytes") }
}

/// What the store knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The job is done; its outputs are there with the right sizes.
    Hit(Manifest),
    /// The job must be computed, for this reason.
    Miss(Miss),
}

impl Lookup {
    /// The manifest of a hit.
    #[must_use]
    pub fn hit(self) -> Option<Manifest> {
        match self {
            Self::Hit(manifest) => Some(manifest),
            Self::Miss(_) => None,
        }
    }
}

/// Why a lookup is a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No such job is known.
    Absent,
    /// The operating system cannot read the manifest, or look at an output. The publication that follows replaces it.
    Unreadable {
        /// Its file.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// There is a manifest but it cannot be used.
    Manifest {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
        /// Where it was moved, unless the store is read-only or the file was left in place.
        quarantined: Option<PathBuf>,
    },
    /// The manifest is right but an output is not there.
    Output {
        /// The output.
        name: OutputName,
        /// Its digest.
        digest: Digest,
        /// What was found in its place: nothing, or a blob of another size, or one that was found damaged before.
        found_size: Option<u64>,
        /// The size that it should have.
        expected_size: u64,
    },
}

impl Miss {
    /// Tells whether a person should hear of it: something was there and was lost or altered.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Manifest { damage, .. } => !matches!(damage, Damage::Format { .. }),
            Self::Unreadable { .. } | Self::Output { .. } => true,
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing is stored under this key"),
            Self::Unreadable { path, reason } => write!(f, "{} cannot be read: {reason}", path.display()),
            Self::Manifest { path, damage, quarantined } => {
                write!(f, "the manifest {} cannot be used: {damage}", path.display())?;
                quarantined.as_ref().map_or(Ok(()), |moved| write!(f, "; moved to {}", moved.display()))
            }
            Self::Output { name, digest, found_size, expected_size } => {
                let blob = digest.short();
                match found_size {
                    None => write!(f, "the blob {blob} of output `{name}` is missing"),
                    Some(size) if size == expected_size => write!(f, "the blob {blob} of output `{name}` is damaged"),
                    Some(size) => {
                        write!(f, "the blob {blob} of output `{name}` has {size} bytes instead of {expected_size}")
                    }
                }
            }
        }
    }
}

/// An open store. All of its methods may be called from several threads at once, and several processes may have one
/// folder open at once; while it is open, gc removes nothing that it has published or found.
pub struct Store {
    shared: Arc<Shared>,
    committer: Mutex<Option<Committer>>,
    /// Where a run looks for what is not here.
    remote: Option<ReadThrough>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in the folder `root` and makes the folder if there is none. If a store is there but the folder
    /// cannot be written, it is opened for reading only. Waits while another process collects garbage.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_on(root, Disk::default())
    }

    /// Opens the store in the folder `root` and never changes a byte there. A folder that does not exist is an empty
    /// store. A reader is invisible to gc, so what it has found may be gone when it is read: a miss.
    pub fn open_read_only(root: &Path) -> Result<Self, StoreError> {
        has_format(root)?;
        Ok(Self::with_access(root, Access::Reader, Disk::default()))
    }

    /// Opens the store in the folder `root` for [`Store::gc`], which needs no space: on a full disk it does without the lease,
    /// which protects a run from gc and not gc.
    pub fn open_to_collect(root: &Path) -> Result<Self, StoreError> {
        match Self::open(root) {
            Err(StoreError::NoSpace { .. }) if has_format(root)? => {
                Ok(Self::with_access(root, Access::Collector, Disk::default()))
            }
            result => result,
        }
    }

    fn open_on(root: &Path, disk: Disk) -> Result<Self, StoreError> {
        let denied = |error: &StoreError| match error {
            StoreError::Io { source, .. } => {
                matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
            }
            _ => false,
        };
        match make_layout(root) {
            Ok(lease) => Ok(Self::with_access(root, Access::Writer(lease), disk)),
            Err(error) if denied(&error) && has_format(root)? => Ok(Self::with_access(root, Access::Reader, disk)),
            Err(error) if denied(&error) => Err(StoreError::ReadOnly { path: root.to_owned() }),
            Err(error) => Err(error),
        }
    }

    fn with_access(root: &Path, access: Access, disk: Disk) -> Self {
        let shared = Shared {
            root: root.to_owned(),
            access,
            disk,
            names_n: AtomicU64::new(0),
            pending: Mutex::default(),
            damaged: Mutex::default(),
            checkpointed: Mutex::default(),
        };
        Self { shared: Arc::new(shared), committer: Mutex::new(None), remote: None }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Tells whether results can be published.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.lease().is_none()
    }

    /// Where the stat cache of this store belongs.
    #[must_use]
    pub fn stat_cache_path(&self) -> PathBuf {
        self.shared.root.join(STAT_CACHE_FILE)
    }

    /// Where temporary files may be written that become others by renaming, if they may; gc removes what a kill leaves.
    #[must_use]
    pub fn temporary_folder(&self) -> Option<PathBuf> {
        self.shared.lease().map(|_| self.shared.root.join("tmp"))
    }

    /// Where [`crate::publish`] remembers what it has written.
    #[must_use]
    pub fn published_path(&self) -> PathBuf {
        self.shared.root.join(PUBLISHED_FILE)
    }

    /// Looks a key up: reads its manifest and checks that every output is there with the right size. Cheap, so that a
    /// run which has nothing to do costs one call a job. The bytes are verified by [`Store::read`].
    pub fn lookup(&self, key: &Key) -> Result<Lookup, StoreError> {
        match self.find(key) {
            // A bad sector must not stand in the way of every run to come.
            Err(StoreError::Io { path, source, .. }) => {
                Ok(Lookup::Miss(Miss::Unreadable { path, reason: source.to_string() }))
            }
            result => result,
        }
    }

    fn find(&self, key: &Key) -> Result<Lookup, StoreError> {
        if let Some(manifest) = guard(&self.shared.pending).get(key) {
            return Ok(Lookup::Hit(manifest.clone()));
        }
        let path = self.shared.manifest_path(key);
        let Some((file, text)) = read_whole(&path)? else {
            return Ok(Lookup::Miss(Miss::Absent));
        };
        let manifest = match manifests::decode(&text, key) {
            Ok(manifest) => manifest,
            Err(damage) => {
                let keep = matches!(damage, Damage::Format { .. });
                let quarantined = if keep { None } else { self.shared.quarantine(&path, &file) };
                return Ok(Lookup::Miss(Miss::Manifest { path, damage, quarantined }));
            }
        };
        if !self.shared.renew(&path, &file)? {
            return Ok(Lookup::Miss(Miss::Absent));
        }
        for (name, output) in &manifest.outputs {
            if let Err(found_size) = self.shared.check_blob(output)? {
                let (name, expected_size) = (name.clone(), output.size);
                return Ok(Lookup::Miss(Miss::Output { name, digest: output.digest, found_size, expected_size }));
            }
        }
        Ok(Lookup::Hit(manifest))
    }

    /// The manifest of a key as it stands, for explanations: nothing is touched or moved, and the outputs are not looked
    /// for.
    pub fn peek(&self, key: &Key) -> Result<Lookup, StoreError> {
        if let Some(manifest) = guard(&self.shared.pending).get(key) {
            return Ok(Lookup::Hit(manifest.clone()));
        }
        let path = self.shared.manifest_path(key);
        let Some((_, text)) = read_whole(&path)? else { return Ok(Lookup::Miss(Miss::Absent)) };
        Ok(match manifests::decode(&text, key) {
            Ok(manifest) => Lookup::Hit(manifest),
            Err(damage) => Lookup::Miss(Miss::Manifest { path, damage, quarantined: None }),
        })
    }

    /// Names a remote for [`Store::fetch`].
    pub fn attach(&mut self, remote: ReadThrough) {
        self.remote = Some(remote);
    }

    /// The remote that was attached.
    #[must_use]
    pub fn remote(&self) -> Option<&ReadThrough> {
        self.remote.as_ref()
    }

    /// Brings the result of a key from the remote, if one is attached and has it: verified, published, and then like one
    /// that was computed here. It may take as long as the network does, so lookups do not ask. `warn` hears what is wrong
    /// with the remote, which is never an error.
    pub fn fetch(&self, key: &Key, warn: &dyn Fn(String)) -> Option<Manifest> {
        self.remote.as_ref()?.fetch(self, key, warn)
    }

    /// The manifest that [`Store::fetch`] would bring, without bringing it.
    pub fn peek_remote(&self, key: &Key, warn: &dyn Fn(String)) -> Option<Manifest> {
        self.remote.as_ref()?.peek(key, warn)
    }

    /// Locks a key, to compute it. Calls `on_wait` once if another process, or another thread, holds the lock, then
    /// waits. Look the key up again after that: the other has published it, unless it failed.
    pub fn lock(&self, key: &Key, on_wait: impl FnOnce()) -> Result<KeyLock, StoreError> {
        let path = self.shared.writable()?.lock_path(key);
        KeyLock::acquire(&path, key, on_wait).map_err(|error| StoreError::io("lock", &path, error))
    }

    /// Locks a key unless somebody else holds it; never waits.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>, StoreError> {
        let path = self.shared.writable()?.lock_path(key);
        KeyLock::try_acquire(&path, key).map_err(|error| StoreError::io("lock", &path, error))
    }

    /// Stores the outputs of a job and its manifest.
    ///
    /// On return the blobs are written, and this `Store` answers lookups and reads of the job. Within some tenths of a
    /// second the commit thread makes it durable, shows it to other processes and releases the lock of its key;
    /// [`Store::flush`] waits for that. A publication that fails, here or there, leaves a miss.
    pub fn publish(&self, lock: KeyLock, new: NewManifest, outputs: Vec<NewOutput>) -> Result<Manifest, StoreError> {
        let shared = self.shared.writable()?;
        let mut blobs = Vec::new();
        let mut stored = BTreeMap::new();
        for NewOutput { name, kind, rows, content } in outputs {
            if stored.contains_key(&name) {
                return Err(StoreError::DuplicateOutput { name });
            }
            let size = content.byte_n();
            let digest = match &content {
                Content::Memory(bytes) => {
                    let digest = Digest::of(bytes);
                    blobs.push(shared.store_blob(&digest, bytes)?);
                    digest
                }
                Content::File(file) => {
                    let read = Digest::of_reader(file.reader());
                    let digest = read.map_err(|error| StoreError::io("read", &shared.root.join("tmp"), error))?;
                    blobs.push(shared.store_file(&digest, file)?);
                    digest
                }
            };
            stored.insert(name, OutputRef { kind, digest, size, rows });
        }
        let NewManifest { stage, code, fields, cpu_ms, wall_ms, version, warnings } = new;
        let (format, key, outputs) = (MANIFEST_FORMAT, *lock.key(), stored);
        let manifest = Manifest { format, key, stage, code, version, fields, outputs, cpu_ms, wall_ms, warnings };
        let text = manifests::encode(&manifest);
        let mut committer = guard(&self.committer);
        let committer = match &mut *committer {
            Some(committer) => committer,
            none => none.insert(Committer::start(&self.shared)?),
        };
        shared
            .disk
            .write_over(lock.file(), &text, Step::ManifestCreate, Step::ManifestWrite)
            .map_err(|error| StoreError::writing(lock.path(), text.len(), error))?;
        guard(&shared.pending).insert(key, manifest.clone());
        committer.submit(lock, blobs);
        Ok(manifest)
    }

    /// Waits until everything published by this `Store` is durable and visible to other processes. The error names
    /// the keys that could not be kept since the last call.
    pub fn flush(&self) -> Result<(), StoreError> {
        match &*guard(&self.committer) {
            Some(committer) => committer.flush(),
            None => Ok(()),
        }
    }

    /// The bytes of an output, verified: their size and their digest are those of `output`. A blob that differs is
    /// moved to the quarantine, so that every manifest which points to it is a miss from then on.
    pub fn read(&self, output: &OutputRef) -> Result<bytes::Bytes, ReadError> {
        self.shared.read_blob(output)
    }

    /// As [`Store::read`]; but a large output stays in its file, of which every byte was verified on the way.
    pub fn open_output(&self, output: &OutputRef) -> Result<Content, ReadError> {
        self.shared.open_blob(output)
    }

    /// The keys of all manifests, sorted.
    pub fn keys(&self) -> Result<BTreeSet<Key>, StoreError> {
        let found = self.shared.walk("manifests", ".json")?;
        Ok(found.ours.into_iter().map(|(hash, _)| Key::from_bytes(hash)).collect())
    }

    /// The keys of the manifests that were used last, at most `limit_n` of them, the latest first.
    pub fn recent_keys(&self, limit_n: usize) -> Result<Vec<Key>, StoreError> {
        let found = self.shared.walk("manifests", ".json")?.ours.into_iter();
        let used = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let mut keys: Vec<_> = found.filter_map(|(hash, path)| Some((used(&path)?, Key::from_bytes(hash)))).collect();
        keys.sort_by(|a, b| b.cmp(a));
        keys.truncate(limit_n);
        Ok(keys.into_iter().map(|(_, key)| key).collect())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What is pending is still committed. A caller that wants to know of failures has called `flush`.
        drop(guard(&self.committer).take());
    }
}

/// What an open store may do.
enum Access {
    /// Nothing that changes a byte.
    Reader,
    /// Everything.
    Writer(Lease),
    /// Only gc: the disk had no space for a lease.
    Collector,
}

/// What the threads of one open store share.
struct Shared {
    root: PathBuf,
    access: Access,
    disk: Disk,
    /// Counts the names given out by `temporary_path`.
    names_n: AtomicU64,
    /// Publications that are written but not yet visible to others.
    pending: Mutex<BTreeMap<Key, Manifest>>,
    /// Blobs that were found damaged but could not be moved away.
    damaged: Mutex<BTreeSet<Digest>>,
    /// Keys whose checkpoint goes when their manifest is there.
    checkpointed: Mutex<BTreeSet<Key>>,
}

/// The files of a folder of hashes.
struct Walked {
    /// Those whose name is a hash, sorted.
    ours: Vec<([u8; 32], PathBuf)>,
    /// All others, sorted.
    strangers: Vec<PathBuf>,
}

impl Shared {
    /// Absent unless everything is allowed.
    fn lease(&self) -> Option<&Lease> {
        match &self.access {
            Access::Writer(lease) => Some(lease),
            Access::Reader | Access::Collector => None,
        }
    }

    fn writable(&self) -> Result<&Self, StoreError> {
        if self.lease().is_some() { Ok(self) } else { Err(StoreError::ReadOnly { path: self.root.clone() }) }
    }

    fn collectable(&self) -> Result<&Self, StoreError> {
        if matches!(self.access, Access::Collector) { Ok(self) } else { self.writable() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.hash_path("blobs", &digest.to_hex(), "")
    }

    fn manifest_path(&self, key: &Key) -> PathBuf {
        self.hash_path("manifests", &key.to_hex(), ".json")
    }

    fn lock_path(&self, key: &Key) -> PathBuf {
        self.root.join("locks").join(key.to_hex())
    }

    fn hash_path(&self, folder: &str, hex: &str, suffix: &str) -> PathBuf {
        self.root.join(format!("{folder}/{}/{hex}{suffix}", &hex[..2]))
    }

    /// A name in `tmp/` that no other process and no other thread uses: the name of the lease is unique.
    fn temporary_path(&self) -> PathBuf {
        let lease = self.lease().map_or("gc", |lease| &lease.name);
        loop {
            let n = self.names_n.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(format!("tmp/{lease}.{n}"));
            // A dead process of the same number may have left a file of this name.
            if !path.exists() {
                return path;
            }
        }
    }

    /// Moves a damaged file away. Nothing moves if the store is read-only or if the name leads to another file by now.
    fn quarantine(&self, path: &Path, file: &File) -> Option<PathBuf> {
        self.lease()?;
        let temporary = self.temporary_path();
        let folder = path.ancestors().nth(2)?.file_name()?.to_str()?;
        let name = format!("{folder}-{}-{}", path.file_name()?.to_str()?, temporary.file_name()?.to_str()?);
        let place = self.root.join("quarantine").join(name);
        if !disk::names(path, file).unwrap_or(false) {
            return None;
        }
        fs::rename(path, &place).ok()?;
        Some(place)
    }

    /// Tells gc that the file is in use, if its time does not say so already. False if gc was faster.
    ///
    /// gc renames a file away and then looks at its time again. So either it sees the new time and puts the file
    /// back, or the name is gone here.
    fn renew(&self, path: &Path, file: &File) -> Result<bool, StoreError> {
        if self.lease().is_none() {
            return Ok(true);
        }
        let io = |error| StoreError::io("read", path, error);
        let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(io)?;
        // A time in the future counts as recent.
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        if age < TOUCH_INTERVAL {
            return Ok(true);
        }
        if disk::touch(file).is_err() {
            // Another user's file: at worst gc takes it, and the next read is a miss.
            return Ok(true);
        }
        disk::names(path, file).map_err(io)
    }

    /// The files in the two levels of `folder`, whose names are hashes followed by `suffix`.
    fn walk(&self, folder: &str, suffix: &str) -> Result<Walked, StoreError> {
        let mut walked = Walked { ours: Vec::new(), strangers: Vec::new() };
        for shard in self.list(&self.root.join(folder))? {
            // A folder that cannot be looked at is not one without files: gc would take what its manifests need.
            match fs::metadata(&shard) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    walked.strangers.push(shard);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("list", &shard, error)),
            }
            for path in self.list(&shard)? {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(suffix));
                match name.and_then(|name| name.parse::<Digest>().ok()) {
                    Some(hash) => walked.ours.push((*hash.as_bytes(), path)),
                    None => walked.strangers.push(path),
                }
            }
        }
        walked.ours.sort();
        walked.strangers.sort();
        Ok(walked)
    }

    /// The paths in a folder; none if it does not exist.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list", folder, error)),
        };
        let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
        paths.map_err(|error| StoreError::io("list", folder, error))
    }
}

/// A value that no panic can leave half-changed: each lock in the store is held for single operations on a collection.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open file and its content; `None` if there is no such file.
fn read_whole(path: &Path) -> Result<Option<(File, Vec<u8>)>, StoreError> {
    let read = || -> io::Result<(File, Vec<u8>)> {
        let mut file = File::open(path)?;
        // Files of the store are whole or damaged, so what the metadata says is all that there is: `read_to_end` would ask
        // for the position and once more for the end.
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        let mut read_n = 0;
        while read_n < bytes.len() {
            match file.read(&mut bytes[read_n..]) {
                Ok(0) => break,
                Ok(more_n) => read_n += more_n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(read_n);
        Ok((file, bytes))
    };
    match read() {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

/// Tells whether a store of this format is in `root`; false if there is nothing yet.
fn has_format(root: &Path) -> Result<bool, StoreError> {
    let path = root.join(FORMAT_FILE);
    let text = read_whole(&path)?.map(|(_, text)| text).unwrap_or_default();
    if text == format!("{FORMAT_WORD} {STORE_FORMAT}\n").as_bytes() {
        return Ok(true);
    }
    // The first write of the file itself can be torn by a power cut; then it is empty or full of zeros.
    if text.iter().any(|&byte| byte != 0) {
        let found = String::from_utf8_lossy(&text).trim().chars().take(40).collect();
        return Err(StoreError::Format { path, found });
    }
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("open the store", root, error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| StoreError::io("open the store", root, error))?.file_name();
        let name = name.to_string_lossy();
        let known = FOLDERS.contains(&&*name)
            || [CHECKPOINT_FOLDER, FORMAT_FILE, GATE_FILE, STAT_CACHE_FILE, PUBLISHED_FILE].contains(&&*name)
            || TEMPORARY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !known {
            return Err(StoreError::NotAStore { path: root.to_owned(), found: name.into_owned() });
        }
    }
    Ok(false)
}

/// Makes what is missing of the layout, then takes a lease.
fn make_layout(root: &Path) -> Result<Lease, StoreError> {
    if !has_format(root)? {
        fs::create_dir_all(root).map_err(|error| StoreError::io("create", root, error))?;
        let path = root.join(FORMAT_FILE);
        let text = format!("{FORMAT_WORD} {STORE_FORMAT}\n");
        whole_file::replace(&path, &format!("{FORMAT_FILE}."), text.as_bytes(), whole_file::Content::Synced)
            .map_err(|error| StoreError::writing(&path, text.len(), error))?;
    }
    for folder in FOLDERS {
        let path = root.join(folder);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(StoreError::io("create", &path, error));
            }
            _ => {}
        }
    }
    let leases = root.join("leases");
    Lease::acquire(&leases, &root.join(GATE_FILE)).map_err(|error| StoreError::io("take a lease in", &leases, error))
}
