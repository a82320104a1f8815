//! The digests of raw input files, by path, so that a run which has nothing to do reads no input.
//!
//! An entry is trusted if the file's size, times, inode and device are those recorded, and if both its times were
//! older than [`RACY_MARGIN_NS`] when the file was looked at. A file that was written so shortly before may be written
//! again within the same tick of the file system's clock and look the same, so it is read again next time.
//!
//! Invariant: whatever happens to the file of the cache, no wrong digest comes out of it: it carries a checksum, and
//! one that does not match is an empty cache (`a_damaged_cache_is_an_empty_cache`).
//!
//! The cache decides about reading only; what is identified is the content. Two processes that save at the same time
//! lose one's new entries, which costs reading those files again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::guard;
use crate::digest::Digest;
use crate::whole_file::{self, Content};

/// Two seconds: the coarsest clock of a file system in use (FAT) ticks so slowly. Linux kernels tick every 1 to 10 ms.
const RACY_MARGIN_NS: i64 = 2_000_000_000;

/// How often a file that changes while it is being read is read again.
const ATTEMPTS_N: u32 = 3;

const FORMAT: &[u8] = b"ecgpipe stat cache 1\n";
const CHECK_N: usize = 32;

/// How the name of the file begins while it is being written.
pub(super) const TEMPORARY_PREFIX: &str = ".stat_cache-";

/// A file as it was when its digest was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// The digest of its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was last written, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When the content or the metadata last changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Its number in the file system.
    pub inode: u64,
    /// The file system.
    pub device: u64,
    /// When this was observed, in nanoseconds since 1970.
    pub observed_ns: i64,
}

/// Why a file has no digest, or the cache cannot be saved.
#[derive(Debug, Error)]
pub enum StatCacheError {
    /// The operating system refuses.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is a folder, a device or a pipe.
    #[error("read {path}: it is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Something keeps writing to it.
    #[error("read {path}: it changed {ATTEMPTS_N} times while it was being read; wait until it is complete")]
    Changing {
        /// The path.
        path: PathBuf,
    },
}

/// The digests of input files. May be used from several threads at once.
#[derive(Debug)]
pub struct StatCache {
    file: PathBuf,
    /// Where relative paths begin; asked for once and not once a file.
    working_folder: Option<PathBuf>,
    entries: Mutex<Entries>,
}

/// By the bytes of the absolute path. Comparing `Path`s costs more than all the rest.
type ByPath = BTreeMap<Box<[u8]>, (FileState, Used)>;

#[derive(Debug, Default)]
struct Entries {
    by_path: ByPath,
    changed: bool,
}

/// Entries that no one asked for are dropped on saving when their file is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Used {
    No,
    Yes,
}

impl StatCache {
    /// Loads the cache in `file`. A file that is missing, unreadable, damaged or of another format is an empty cache.
    #[must_use]
    pub fn open(file: &Path) -> Self {
        let by_path = fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let working_folder = std::env::current_dir().ok();
        Self { file: file.to_owned(), working_folder, entries: Mutex::new(Entries { by_path, changed: false }) }
    }

    /// The digest of a file: from the cache if the entry can be trusted, else by reading the file.
    pub fn digest_file(&self, path: &Path) -> Result<FileState, StatCacheError> {
        self.digest_file_at(path, now_ns)
    }

    /// Tells whether a file is still what it was when `state` was taken, and has been all the time: a file that was
    /// touched or rewritten counts as changed even if its content is the same, because a stage may have read it in
    /// between. A file too young for its times to tell is read again.
    #[must_use]
    pub fn recheck(&self, state: &FileState, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(metadata) if is_same(state, &metadata) => {}
            _ => return false,
        }
        if is_settled(state) {
            return true;
        }
        read(path, now_ns).is_ok_and(|now| now.digest == state.digest && has_same_times(state, &now))
    }

    /// Writes the cache if it has changed. It is replaced whole. Nothing waits for the disk: a power cut leaves the
    /// old file, or one that the checksum refuses.
    pub fn save(&self) -> Result<(), StatCacheError> {
        let mut entries = guard(&self.entries);
        if !entries.changed {
            return Ok(());
        }
        entries.by_path.retain(|path, (_, used)| {
            *used == Used::Yes || fs::symlink_metadata(Path::new(OsStr::from_bytes(path))).is_ok()
        });
        let bytes = encode(&entries.by_path);
        whole_file::replace(&self.file, TEMPORARY_PREFIX, &bytes, Content::Unsynced)
            .map_err(|source| StatCacheError::Io { action: "write", path: self.file.clone(), source })?;
        entries.changed = false;
        Ok(())
    }

    fn digest_file_at(&self, path: &Path, clock_ns: impl Fn() -> i64) -> Result<FileState, StatCacheError> {
        let io = |action, source| StatCacheError::Io { action, path: path.to_owned(), source };
        let joined = self.working_folder.as_ref().map(|folder| folder.join(path));
        let absolute = std::path::absolute(joined.as_deref().unwrap_or(path)).map_err(|error| io("find", error))?;
        let name = absolute.as_os_str().as_bytes();
        let metadata = fs::metadata(path).map_err(|error| io("read", error))?;
        if let Some((state, used)) = guard(&self.entries).by_path.get_mut(name) {
            *used = Used::Yes;
            if is_settled(state) && is_same(state, &metadata) {
                return Ok(*state);
            }
        }
        let state = read(path, clock_ns)?;
        let mut entries = guard(&self.entries);
        entries.by_path.insert(name.into(), (state, Used::Yes));
        entries.changed = true;
        Ok(state)
    }
}

/// Reads a file between two looks at its metadata that must agree.
fn read(path: &Path, clock_ns: impl Fn() -> i64) -> Result<FileState, StatCacheError> {
    let io = |source| StatCacheError::Io { action: "read", path: path.to_owned(), source };
    for _ in 0..ATTEMPTS_N {
        // The clock first: what is written after this instant is not older than it.
        let observed_ns = clock_ns();
        let file = File::open(path).map_err(io)?;
        let before = file.metadata().map_err(io)?;
        if !before.is_file() {
            return Err(StatCacheError::NotAFile { path: path.to_owned() });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(io)?;
        let state = FileState {
            digest: hasher.finalize().into(),
            size: before.size(),
            mtime_ns: time_ns(before.mtime(), before.mtime_nsec()),
            ctime_ns: time_ns(before.ctime(), before.ctime_nsec()),
            inode: before.ino(),
            device: before.dev(),
            observed_ns,
        };
        // By name, so that a file renamed over this one is seen too.
        match fs::metadata(path) {
            Ok(after) if is_same(&state, &after) && hasher.count() == state.size => return Ok(state),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
    }
    Err(StatCacheError::Changing { path: path.to_owned() })
}

/// Any later write would have given the file another time.
fn is_settled(state: &FileState) -> bool {
    state.mtime_ns.max(state.ctime_ns) < state.observed_ns.saturating_sub(RACY_MARGIN_NS)
}

fn is_same(state: &FileState, metadata: &Metadata) -> bool {
    metadata.is_file()
        && state.size == metadata.size()
        && state.mtime_ns == time_ns(metadata.mtime(), metadata.mtime_nsec())
        && state.ctime_ns == time_ns(metadata.ctime(), metadata.ctime_nsec())
        && state.inode == metadata.ino()
        && state.device == metadata.dev()
}

fn has_same_times(state: &FileState, other: &FileState) -> bool {
    let times = |state: &FileState| (state.mtime_ns, state.ctime_ns, state.inode, state.device);
    times(state) == times(other)
}

/// Nanoseconds since 1970; saturates in the year 2262.
fn time_ns(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The format line, the entries in order of their paths, and the BLAKE3 digest of all that. An entry is the length of
/// its path (u64), the path, then six integers and the digest; integers are little-endian.
fn encode(entries: &ByPath) -> Vec<u8> {
    let mut bytes = FORMAT.to_vec();
    for (path, (state, _)) in entries {
        bytes.extend_from_slice(&(path.len() as u64).to_le_bytes());
        bytes.extend_from_slice(path);
        for number in [state.size, state.inode, state.device] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for time_ns in [state.mtime_ns, state.ctime_ns, state.observed_ns] {
            bytes.extend_from_slice(&time_ns.to_le_bytes());
        }
        bytes.extend_from_slice(state.digest.as_bytes());
    }
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<ByPath> {
    let (text, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_N)?)?;
    if check != Digest::of(text).as_bytes() {
        return None;
    }
    let mut rest = text.strip_prefix(FORMAT)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let path_n = usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?;
        let (path, after) = rest.split_at_checked(path_n)?;
        rest = after;
        let [size, inode, device] = [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?].map(u64::from_le_bytes);
        let [mtime_ns, ctime_ns, observed_ns] =
            [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?].map(i64::from_le_bytes);
        let digest = Digest::from_bytes(take(&mut rest)?);
        let state = FileState { digest, size, mtime_ns, ctime_ns, inode, device, observed_ns };
        entries.push((Box::from(path), (state, Used::No)));
    }
    Some(entries.into_iter().collect())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::FileTimes;
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const LATER_NS: i64 = 10 * RACY_MARGIN_NS;

    struct Folder {
        folder: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn cache(&self) -> StatCache {
            StatCache::open(&self.folder.path().join("stat_cache"))
        }

        fn write(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }
    }

    /// A clock that runs ahead, so that files which were just written count as settled.
    fn later_ns() -> i64 {
        now_ns() + LATER_NS
    }

    /// Replaces the digest in the cache by a wrong one, which comes out if and only if the entry is trusted.
    fn plant(cache: &StatCache, path: &Path) {
        let mut entries = guard(&cache.entries);
        entries.by_path.get_mut(path.as_os_str().as_bytes()).unwrap().0.digest = Digest::of(b"planted");
    }

    fn is_trusted(cache: &StatCache, path: &Path) -> bool {
        plant(cache, path);
        cache.digest_file(path).unwrap().digest == Digest::of(b"planted")
    }

    #[test]
    fn a_settled_file_is_read_once() {
        let folder = Folder::new();
        let path = folder.write("100.dat", b"abc");
        let cache = folder.cache();
        assert_eq!(cache.digest_file_at(&path, later_ns).unwrap().digest, Digest::of(b"abc"));
        assert!(is_trusted(&cache, &path));
        cache.save().unwrap();
        let reopened = folder.cache();
        assert_eq!(reopened.digest_file(&path).unwrap().digest, Digest::of(b"planted"));
    }

    #[test]
    fn a_file_written_just_before_is_read_again() {
        let folder = Folder::new();
        let path = folder.write("100.dat", b"abc");
        let cache = folder.cache();
        cache.digest_file(&path).unwrap();
        assert!(!is_trusted(&cache, &path));
    }

    #[test]
    fn an_old_modification_time_does_not_hide_a_young_change() {
        let folder = Folder::new();
        let path = folder.write("100.dat", b"abc");
        let old = SystemTime::now() - Duration::from_secs(1_000_000);
        File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        let cache = folder.cache();
        cache.digest_file(&path).unwrap();
        assert!(!is_trusted(&cache, &path));
    }

    #[test]
    fn every_change_of_a_file_is_seen() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("longer", |path| File::options().append(true).open(path).unwrap().write_all(b"d").unwrap()),
            ("same size", |path| fs::write(path, b"xyz").unwrap()),
            ("touched", |path| {
                let times = FileTimes::new().set_modified(SystemTime::now());
                File::options().write(true).open(path).unwrap().set_times(times).unwrap();
            }),
            ("replaced, times kept", |path| {
                let modified = fs::metadata(path).unwrap().modified().unwrap();
                let other = path.with_extension("new");
                fs::write(&other, b"xyz").unwrap();
                let times = FileTimes::new().set_modified(modified);
                File::options().write(true).open(&other).unwrap().set_times(times).unwrap();
                fs::rename(&other, path).unwrap();
            }),
            ("removed", |path| fs::remove_file(path).unwrap()),
            ("a folder", |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ];
        for (name, change) in changes {
            let folder = Folder::new();
            let path = folder.write("100.dat", b"abc");
            // The kernel's clock must tick between the two writes, as it has for any file that counts as settled.
            let written_ns = FileState::observe(&path).ctime_ns;
            while FileState::observe(&folder.write("tick", b"")).ctime_ns == written_ns {}
            let cache = folder.cache();
            let state = cache.digest_file_at(&path, later_ns).unwrap();
            assert!(cache.recheck(&state, &path), "{name}: before");
            change(&path);
            assert!(!cache.recheck(&state, &path), "{name}: after");
            match cache.digest_file(&path) {
                Ok(now) => assert_eq!(now.digest, Digest::of(&fs::read(&path).unwrap()), "{name}"),
                Err(error) => assert!(!path.is_file(), "{name}: {error}"),
            }
        }
    }

    impl FileState {
        fn observe(path: &Path) -> Self {
            read(path, now_ns).unwrap()
        }
    }

    #[test]
    fn a_young_file_is_rechecked_by_reading_it() {
        let folder = Folder::new();
        let path = folder.write("100.dat", b"abc");
        let cache = folder.cache();
        let state = cache.digest_file(&path).unwrap();
        assert!(cache.recheck(&state, &path));
        // As if it had been rewritten within one tick of the clock.
        let before = FileState { digest: Digest::of(b"xyz"), ..state };
        assert!(!cache.recheck(&before, &path));
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors() {
        let folder = Folder::new();
        let cache = folder.cache();
        assert!(matches!(cache.digest_file(folder.folder.path()), Err(StatCacheError::NotAFile { .. })));
        let missing = cache.digest_file(&folder.folder.path().join("missing")).unwrap_err();
        assert!(matches!(missing, StatCacheError::Io { ref source, .. } if source.kind() == ErrorKind::NotFound));
    }

    #[test]
    fn a_damaged_cache_is_an_empty_cache() {
        let folder = Folder::new();
        let cache = folder.cache();
        let paths = ["a", "b"].map(|name| folder.write(name, name.as_bytes()));
        for path in &paths {
            cache.digest_file_at(path, later_ns).unwrap();
        }
        cache.save().unwrap();
        let whole = fs::read(&cache.file).unwrap();
        assert_eq!(decode(&whole).unwrap().len(), 2);
        for position in 0..whole.len() {
            assert_eq!(decode(&whole[..position]), None, "cut at {position}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << bit;
                assert_eq!(decode(&flipped), None, "bit {bit} of byte {position}");
            }
        }
        for content in [&b""[..], b"\0\0", b"{}", &[0; 4096]] {
            fs::write(&cache.file, content).unwrap();
            let reopened = folder.cache();
            assert_eq!(reopened.digest_file_at(&paths[0], later_ns).unwrap().digest, Digest::of(b"a"));
            reopened.save().unwrap();
            assert_eq!(decode(&fs::read(&cache.file).unwrap()).unwrap().len(), 1);
        }
    }

    #[test]
    fn entries_of_files_that_are_gone_are_dropped() {
        let folder = Folder::new();
        let paths = ["a", "b", "c"].map(|name| folder.write(name, name.as_bytes()));
        let cache = folder.cache();
        for path in &paths[..2] {
            cache.digest_file_at(path, later_ns).unwrap();
        }
        cache.save().unwrap();
        fs::remove_file(&paths[0]).unwrap();
        let reopened = folder.cache();
        reopened.digest_file(&paths[2]).unwrap();
        reopened.save().unwrap();
        let kept: Vec<_> = guard(&folder.cache().entries).by_path.keys().cloned().collect();
        let expected = [&paths[1], &paths[2]].map(|path| Box::from(path.as_os_str().as_bytes()));
        assert_eq!(kept, expected);
    }
}
