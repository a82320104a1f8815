//! The store as a whole: what it serves after failures, kills, power cuts, damage and beside gc.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Barrier, mpsc};

use bytes::Bytes;
use ecgpipe_sdk::{Content, SpoolFile};
use proptest::prelude::*;

use super::disk::{Hook, Verdict};
use super::*;
use crate::digest::{KeyEncoder, KeyField};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const DAY: Duration = Duration::from_secs(24 * 3600);

const ALL_STEPS: [Step; 8] = [
    Step::BlobCreate,
    Step::BlobWrite,
    Step::BlobRename,
    Step::ManifestCreate,
    Step::ManifestWrite,
    Step::Sync,
    Step::ManifestRename,
    Step::LastSync,
];

/// A job of the tests: its name decides its key, and its outputs are fixed.
#[derive(Debug, Clone, Copy)]
struct TestJob {
    name: &'static str,
    outputs: &'static [(&'static str, &'static [u8])],
}

const FIRST: TestJob = TestJob { name: "first", outputs: &[("signals/100", b"one hundred"), ("report", b"fine")] };
/// Shares a blob with the first.
const SECOND: TestJob = TestJob { name: "second", outputs: &[("signals/101", b"one hundred"), ("empty", b"")] };
const THIRD: TestJob = TestJob { name: "third", outputs: &[("beats", &[7; 5000])] };

impl TestJob {
    fn identity(&self) -> (Key, Vec<KeyField>) {
        identity(self.name)
    }

    fn key(&self) -> Key {
        self.identity().0
    }

    fn new_outputs(&self) -> Vec<NewOutput> {
        self.outputs.iter().map(|(name, bytes)| new_output(name, bytes)).collect()
    }

    fn publish(&self, store: &Store) -> Result<Manifest, StoreError> {
        let (key, fields) = self.identity();
        let lock = store.lock(&key, || panic!("nobody else computes {}", self.name))?;
        store.publish(lock, new_manifest(self.name, fields), self.new_outputs())
    }

    /// A hit must have exactly the outputs of the job, and each must read as it was.
    fn check_hit(&self, store: &Store, manifest: &Manifest) {
        assert_eq!(manifest.outputs.len(), self.outputs.len());
        for (name, bytes) in self.outputs {
            let read = store.read(&manifest.outputs[&OutputName::from(*name)]);
            assert_eq!(read.unwrap_or_else(|error| panic!("{} of a hit: {error}", self.name)), *bytes);
        }
    }

    fn is_hit(&self, store: &Store) -> bool {
        match store.lookup(&self.key()).unwrap() {
            Lookup::Hit(manifest) => {
                self.check_hit(store, &manifest);
                true
            }
            Lookup::Miss(_) => false,
        }
    }

    fn miss(&self, store: &Store) -> Miss {
        match store.lookup(&self.key()).unwrap() {
            Lookup::Miss(miss) => miss,
            Lookup::Hit(_) => panic!("{} is a hit", self.name),
        }
    }
}

fn identity(name: &str) -> (Key, Vec<KeyField>) {
    let mut encoder = KeyEncoder::new();
    encoder.field("stage", name).field("code", "c0de");
    encoder.finish().unwrap()
}

fn new_manifest(stage: &str, fields: Vec<KeyField>) -> NewManifest {
    NewManifest {
        stage: stage.into(),
        code: "c0de".into(),
        fields,
        cpu_ms: 1,
        wall_ms: 2,
        version: "0.1.0".into(),
        warnings: Vec::new(),
    }
}

fn new_output(name: &str, bytes: &[u8]) -> NewOutput {
    NewOutput { name: name.into(), kind: "bytes".into(), rows: None, content: Bytes::copy_from_slice(bytes).into() }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// A store that does not wait for the disk, of which the tests would otherwise consist.
    fn open(&self) -> Store {
        self.open_hooked(|_| Verdict::Go)
    }

    fn open_hooked(&self, hook: impl Fn(Step) -> Verdict + Send + Sync + 'static) -> Store {
        let hook: Hook = Arc::new(hook);
        Store::open_on(&self.root(), Disk { hook: Some(hook) }).unwrap()
    }

    /// A folder in which `jobs` are published.
    fn with(jobs: &[TestJob]) -> Self {
        let folder = Self::new();
        let store = folder.open();
        for job in jobs {
            job.publish(&store).unwrap();
        }
        store.flush().unwrap();
        folder
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        let hex = Digest::of(bytes).to_hex();
        self.root().join("blobs").join(&hex[..2]).join(hex)
    }

    fn manifest(&self, job: TestJob) -> PathBuf {
        let hex = job.key().to_hex();
        self.root().join("manifests").join(&hex[..2]).join(format!("{hex}.json"))
    }

    fn files_n(&self, folder: &str) -> usize {
        fs::read_dir(self.root().join(folder)).unwrap().count()
    }

    fn gc(&self, roots: &[TestJob], grace: Duration) -> GcReport {
        let options = GcOptions { grace, now: SystemTime::now(), dry_run: false };
        self.open().gc(|| Ok(roots.iter().map(TestJob::key).collect()), options).unwrap()
    }
}

/// Makes a file ten hours older than it is.
fn age(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(36_000)).unwrap();
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(all_files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn serves_what_was_published_to_everyone() {
    let folder = Folder::new();
    let store = Store::open(&folder.root()).unwrap();
    assert_eq!(FIRST.miss(&store), Miss::Absent);
    let published = FIRST.publish(&store).unwrap();
    assert!(FIRST.is_hit(&store), "before it is durable");
    store.flush().unwrap();
    for store in [store, folder.open(), Store::open_read_only(&folder.root()).unwrap()] {
        assert_eq!(store.lookup(&FIRST.key()).unwrap().hit().as_ref(), Some(&published));
        assert!(FIRST.is_hit(&store));
        assert_eq!(SECOND.miss(&store), Miss::Absent);
        assert_eq!(store.keys().unwrap(), BTreeSet::from([FIRST.key()]));
    }
    assert_eq!((folder.files_n("tmp"), folder.files_n("locks"), folder.files_n("leases")), (0, 0, 0));
}

#[test]
fn a_dropped_store_keeps_what_it_was_given() {
    let folder = Folder::new();
    FIRST.publish(&folder.open()).unwrap();
    assert!(FIRST.is_hit(&folder.open()));
}

#[test]
fn more_publications_than_a_group_holds_are_all_kept() {
    let folder = Folder::new();
    let names: Vec<String> = (0..200).map(|n| format!("job {n}")).collect();
    let (store, names) = (&folder.open(), &names);
    std::thread::scope(|scope| {
        for names in names.chunks(50) {
            scope.spawn(move || {
                for name in names {
                    let (key, fields) = identity(name);
                    let lock = store.lock(&key, || ()).unwrap();
                    store.publish(lock, new_manifest(name, fields), vec![new_output("o", name.as_bytes())]).unwrap();
                }
            });
        }
    });
    store.flush().unwrap();
    let reader = folder.open();
    for name in names {
        let manifest = reader.lookup(&identity(name).0).unwrap().hit().unwrap();
        assert_eq!(reader.read(&manifest.outputs[&"o".into()]).unwrap(), name.as_bytes());
    }
}

#[test]
fn others_see_a_publication_when_it_is_durable_and_not_before() {
    let folder = Folder::new();
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let store = folder.open_hooked(move |step| {
        if step == Step::Sync {
            guard(&wait).recv().unwrap();
        }
        Verdict::Go
    });
    FIRST.publish(&store).unwrap();
    let other = folder.open();
    assert_eq!(FIRST.miss(&other), Miss::Absent);
    assert!(other.try_lock(&FIRST.key()).unwrap().is_none(), "the key stays locked until then");
    release.send(()).unwrap();
    store.flush().unwrap();
    assert!(other.try_lock(&FIRST.key()).unwrap().is_some());
    assert!(FIRST.is_hit(&other));
}

#[test]
fn an_output_given_twice_is_refused() {
    let folder = Folder::new();
    let store = folder.open();
    let (key, fields) = FIRST.identity();
    let lock = store.lock(&key, || ()).unwrap();
    let outputs = vec![new_output("a", b"1"), new_output("a", b"2")];
    let error = store.publish(lock, new_manifest("first", fields), outputs).unwrap_err();
    assert_eq!(error.to_string(), "publish: the output `a` was given twice");
    assert_eq!(FIRST.miss(&store), Miss::Absent);
    assert!(store.try_lock(&key).unwrap().is_some());
}

/// Ways to damage a file of a given length, each changing it.
fn damages(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let size = whole.len();
    let mut damages = vec![
        ("zeros".to_owned(), vec![0; size]),
        ("longer".to_owned(), [whole, b"\n"].concat()),
        ("another".to_owned(), b"something else".to_vec()),
    ];
    for cut in [0, 1, size / 2, size - 1] {
        damages.push((format!("cut at {cut}"), whole[..cut].to_vec()));
    }
    for position in [0, 1, size / 3, size / 2, size - 2, size - 1] {
        for bit in [0, 7] {
            let mut flipped = whole.to_vec();
            flipped[position] ^= 1 << bit;
            damages.push((format!("bit {bit} of byte {position}"), flipped));
        }
    }
    damages
}

#[test]
fn no_flip_of_a_blob_is_served() {
    let folder = Folder::with(&[FIRST, SECOND]);
    let whole = b"one hundred";
    let blob = folder.blob(whole);
    for (name, content) in damages(whole) {
        fs::write(&blob, &content).unwrap();
        let store = folder.open();
        if let Lookup::Hit(manifest) = store.lookup(&FIRST.key()).unwrap() {
            assert_eq!(content.len(), whole.len(), "{name}: a lookup sees another size");
            let error = store.read(&manifest.outputs[&"signals/100".into()]).unwrap_err();
            let ReadError::Damaged { quarantined: Some(moved), .. } = error else { panic!("{name}: {error}") };
            assert_eq!(fs::read(moved).unwrap(), content, "{name}");
        }
        // Both jobs that need the blob are misses from now on, and publishing one heals both.
        assert!(FIRST.miss(&store).is_warning(), "{name}");
        assert!(SECOND.miss(&folder.open()).is_warning(), "{name}");
        SECOND.publish(&store).unwrap();
        store.flush().unwrap();
        assert!(FIRST.is_hit(&folder.open()) && SECOND.is_hit(&folder.open()), "{name}");
    }
}

#[test]
fn a_damaged_blob_is_replaced_by_the_next_publication() {
    let folder = Folder::with(&[FIRST]);
    fs::write(folder.blob(b"one hundred"), b"one hundreD").unwrap();
    SECOND.publish(&folder.open()).unwrap();
    assert!(FIRST.is_hit(&folder.open()) && SECOND.is_hit(&folder.open()));
}

/// 17 MB that depend on `seed`: more than is read into memory.
fn large(seed: u8) -> Vec<u8> {
    (0..17_u32 << 20).map(|idx| (idx.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ seed).collect()
}

fn publish_spooled(store: &Store, name: &str, bytes: &[u8]) -> Result<Manifest, StoreError> {
    let mut spool = SpoolFile::create(&store.temporary_folder().unwrap()).unwrap();
    spool.write_all(bytes).unwrap();
    let (key, fields) = identity(name);
    let lock = store.lock(&key, || panic!("nobody else computes {name}"))?;
    let content = spool.finish().unwrap();
    let output = NewOutput { name: "out".into(), kind: "bytes".into(), rows: None, content };
    store.publish(lock, new_manifest(name, fields), vec![output])
}

#[test]
fn a_file_is_taken_over_and_a_large_output_stays_in_its_file() {
    let folder = Folder::new();
    let (store, bytes) = (folder.open(), large(1));
    let left_n = || fs::read_dir(folder.root().join("tmp")).unwrap().count();
    let out = |manifest: &Manifest| manifest.outputs[&"out".into()].clone();
    let first = publish_spooled(&store, "first", &bytes).unwrap();
    store.flush().unwrap();
    assert_eq!(left_n(), 0);
    assert_eq!(out(&first).size, bytes.len() as u64);
    assert!(store.read(&out(&first)).unwrap() == bytes);
    let Content::File(file) = store.open_output(&out(&first)).unwrap() else { panic!("it is not in memory") };
    assert_eq!(file.take(), None);
    assert!(Content::File(file).bytes().unwrap() == bytes);
    let blob = folder.blob(&bytes);
    let others = fs::metadata(folder.root().join("format")).unwrap().mode();
    assert_eq!(fs::metadata(&blob).unwrap().mode() & 0o044, others & 0o044, "others may read it as they may the rest");

    // The same bytes once more: the file that is there stays, the new one goes.
    let inode = fs::metadata(&blob).unwrap().ino();
    assert_eq!(out(&publish_spooled(&store, "second", &bytes).unwrap()).digest, out(&first).digest);
    store.flush().unwrap();
    assert_eq!((fs::metadata(&blob).unwrap().ino(), left_n()), (inode, 0));

    // Damage is found, moved away, and mended by the next who gives the bytes; so it is where nobody has read it before.
    for is_read in [true, false] {
        let mut damaged = bytes.clone();
        damaged[11 << 20] ^= 1;
        fs::write(&blob, &damaged).unwrap();
        if is_read {
            assert!(matches!(store.open_output(&out(&first)), Err(ReadError::Damaged { quarantined: Some(_), .. })));
            assert!(matches!(store.open_output(&out(&first)), Err(ReadError::Missing { .. })));
        }
        let again = if is_read { "third" } else { "fourth" };
        let published = publish_spooled(&store, again, &bytes).unwrap();
        assert!(store.open_output(&out(&published)).unwrap().bytes().unwrap() == bytes);
        store.flush().unwrap();
        assert_eq!(left_n(), 0);
    }
    // A file that is shorter than it says.
    fs::write(&blob, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(store.open_output(&out(&first)), Err(ReadError::Damaged { .. })));
    assert_eq!(store.verify().unwrap().problems.len(), 4, "each manifest has lost its blob");
}

#[test]
fn a_file_that_cannot_be_taken_over_is_a_miss() {
    let folder = Folder::new();
    let store = folder.open_hooked(|step| if step == Step::BlobRename { Verdict::Fail(EIO) } else { Verdict::Go });
    assert!(publish_spooled(&store, "first", b"few bytes").is_err());
    assert!(matches!(store.lookup(&identity("first").0).unwrap(), Lookup::Miss(Miss::Absent)));
    assert_eq!(fs::read_dir(folder.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_read_only_store_serves_hits_and_refuses_damage_and_publication() {
    let folder = Folder::with(&[FIRST]);
    fs::write(folder.blob(b"one hundred"), b"one hundreD").unwrap();
    let before = all_files(&folder.root());
    let store = Store::open_read_only(&folder.root()).unwrap();
    assert!(store.is_read_only());
    let manifest = store.lookup(&FIRST.key()).unwrap().hit().unwrap();
    assert_eq!(store.read(&manifest.outputs[&"report".into()]).unwrap(), &b"fine"[..]);
    let damaged = &manifest.outputs[&"signals/100".into()];
    for _ in 0..2 {
        assert!(matches!(store.read(damaged), Err(ReadError::Damaged { quarantined: None, .. })));
    }
    let miss = FIRST.miss(&store).to_string();
    assert_eq!(miss, format!("the blob {} of output `signals/100` is damaged", damaged.digest.short()));
    assert!(matches!(FIRST.publish(&store), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.try_lock(&FIRST.key()), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.repair(), Err(StoreError::ReadOnly { .. })));
    assert_eq!(store.verify().unwrap().problems.len(), 2);
    drop(store);
    assert_eq!(all_files(&folder.root()), before);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn a_folder_without_write_permission_is_opened_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with(&[FIRST]);
    let set_mode = |mode| {
        for path in ["", "blobs", "manifests", "leases", "tmp", "locks", "quarantine"] {
            fs::set_permissions(folder.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o555);
    if fs::write(folder.root().join("tmp/probe"), "").is_ok() {
        eprintln!("skipped: this user may write where permissions forbid it");
    } else {
        let store = folder.open();
        assert!(store.is_read_only());
        assert!(FIRST.is_hit(&store));
        let nowhere = Store::open(&folder.root().join("tmp/new")).unwrap_err();
        assert!(matches!(nowhere, StoreError::ReadOnly { .. }), "{nowhere}");
    }
    set_mode(0o755);
}

#[test]
fn a_damaged_manifest_is_a_miss_and_is_moved_away() {
    let folder = Folder::with(&[FIRST]);
    let path = folder.manifest(FIRST);
    let whole = fs::read(&path).unwrap();
    for (name, content) in damages(&whole) {
        fs::write(&path, &content).unwrap();
        let store = folder.open();
        let miss = FIRST.miss(&store);
        let Miss::Manifest { quarantined: Some(moved), .. } = &miss else { panic!("{name}: {miss}") };
        assert!(miss.is_warning());
        assert_eq!(fs::read(moved).unwrap(), content, "{name}");
        assert_eq!(FIRST.miss(&store), Miss::Absent, "{name}");
        FIRST.publish(&store).unwrap();
        drop(store);
        assert!(FIRST.is_hit(&folder.open()), "{name}");
    }
    fs::copy(&path, folder.manifest(SECOND)).unwrap_err();
    fs::create_dir_all(folder.manifest(SECOND).parent().unwrap()).unwrap();
    fs::copy(&path, folder.manifest(SECOND)).unwrap();
    let miss = SECOND.miss(&folder.open());
    assert!(matches!(miss, Miss::Manifest { damage: Damage::OtherKey(key), .. } if key == FIRST.key()));
}

#[test]
fn another_format_and_another_folder_are_refused() {
    let folder = Folder::with(&[FIRST]);
    let format = folder.root().join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "ecgpipe-store 1\n");
    for text in ["ecgpipe-store 2\n", "ecgpipe-store 1", "fcgpipe-store 1\n", "\0cgpipe-store 1\n"] {
        fs::write(&format, text).unwrap();
        for result in [Store::open(&folder.root()), Store::open_read_only(&folder.root())] {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::Format { .. }) && error.help().is_some(), "{text:?}: {error}");
        }
    }
    // What a power cut leaves of a file that was being written first.
    for text in ["", "\0\0\0\0"] {
        fs::write(&format, text).unwrap();
        assert!(FIRST.is_hit(&folder.open()), "{text:?}");
        assert_eq!(fs::read_to_string(&format).unwrap(), "ecgpipe-store 1\n");
    }
    // All that a store has beside its folders, whoever puts it there.
    for name in ["published.json", "stat_cache", ".stat_cache-x", ".ecgpipe-x", "format.x"] {
        fs::write(folder.root().join(name), "").unwrap();
    }
    fs::rename(&format, folder.root().join("format.4711")).unwrap();
    assert!(FIRST.is_hit(&folder.open()), "the rename was lost");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), "").unwrap();
    let error = Store::open(other.path()).unwrap_err();
    assert!(matches!(&error, StoreError::NotAStore { found, .. } if found == "thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    let absent = Store::open_read_only(&folder.root().join("nothing here")).unwrap();
    assert_eq!(FIRST.miss(&absent), Miss::Absent);
}

#[test]
fn a_failure_at_any_step_is_a_miss_and_not_a_lie() {
    let verdicts = [Verdict::Fail(ENOSPC), Verdict::Fail(EIO), Verdict::Short(ENOSPC), Verdict::Short(EIO)];
    for (failing, verdict) in ALL_STEPS.into_iter().flat_map(|step| verdicts.map(|verdict| (step, verdict))) {
        let name = format!("{failing:?} {verdict:?}");
        let folder = Folder::with(&[SECOND]);
        let store = folder.open_hooked(move |step| if step == failing { verdict } else { Verdict::Go });
        let result = FIRST.publish(&store).and_then(|_| store.flush());
        let error = result.expect_err(&name);
        let full = matches!(verdict, Verdict::Fail(ENOSPC) | Verdict::Short(ENOSPC));
        let cause = if let StoreError::Commit { lost, source } = &error {
            assert_eq!(*lost, [FIRST.key()], "{name}");
            source
        } else {
            &error
        };
        assert_eq!(matches!(cause, StoreError::NoSpace { .. }), full, "{name}: {error}");
        assert_eq!((folder.files_n("tmp"), folder.files_n("locks")), (0, 0), "{name}");
        assert_eq!(FIRST.is_hit(&store), failing == Step::LastSync, "{name}");
        assert_eq!(FIRST.is_hit(&folder.open()), failing == Step::LastSync, "{name}");
        assert!(SECOND.is_hit(&folder.open()), "{name}: a job that was there before, and shares a blob");
        drop(store);
        let retry = folder.open();
        FIRST.publish(&retry).unwrap();
        retry.flush().unwrap();
        assert!(FIRST.is_hit(&folder.open()), "{name}");
    }
}

#[test]
fn a_blob_that_a_failed_sync_has_cost_is_missed_by_who_found_it_before() {
    let folder = Folder::new();
    let (reached, at_sync) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let (wait, syncs_n) = (Mutex::new(wait), AtomicU64::new(0));
    let store = folder.open_hooked(move |step| {
        if step == Step::Sync && syncs_n.fetch_add(1, Ordering::Relaxed) == 0 {
            reached.send(()).unwrap();
            guard(&wait).recv().unwrap();
            return Verdict::Fail(EIO);
        }
        Verdict::Go
    });
    FIRST.publish(&store).unwrap();
    at_sync.recv().unwrap();
    // Shares a blob with FIRST, which is being synced, in vain.
    SECOND.publish(&store).unwrap();
    release.send(()).unwrap();
    let StoreError::Commit { lost, .. } = store.flush().unwrap_err() else { panic!("another error") };
    assert_eq!(lost, [FIRST.key(), SECOND.key()]);
    assert_eq!((FIRST.miss(&store), SECOND.miss(&store)), (Miss::Absent, Miss::Absent));
    assert_eq!(store.verify().unwrap().problems, []);
    SECOND.publish(&store).unwrap();
    store.flush().unwrap();
    assert!(SECOND.is_hit(&folder.open()));
}

#[test]
fn a_full_disk_is_named_with_the_size_that_it_lacks() {
    let folder = Folder::new();
    let store = folder.open_hooked(|step| if step == Step::BlobWrite { Verdict::Short(ENOSPC) } else { Verdict::Go });
    let StoreError::NoSpace { needed, .. } = THIRD.publish(&store).unwrap_err() else { panic!("another error") };
    assert_eq!(needed, 5000);
}

/// The files of a folder: content by path, with the inode by which a renamed file is known again.
type Tree = BTreeMap<PathBuf, (u64, Vec<u8>)>;

fn snapshot(root: &Path) -> Tree {
    let file = |path: PathBuf| {
        let content = fs::read(&path).ok()?;
        let inode = fs::metadata(&path).ok()?.ino();
        Some((path.strip_prefix(root).unwrap().to_owned(), (inode, content)))
    };
    all_files(root).into_iter().filter_map(file).collect()
}

/// One state that a power cut may leave: `durable` was on the disk, `current` was written. A file that was written
/// since is there or not, whole, empty, torn or full of zeros; a file that was renamed since has either name; a file
/// that was removed since may be back. `choose` gives a number below its argument.
fn survivors(durable: &Tree, current: &Tree, mut choose: impl FnMut(usize) -> usize) -> BTreeMap<PathBuf, Vec<u8>> {
    let durable_by_inode: BTreeMap<u64, (&PathBuf, &Vec<u8>)> =
        durable.iter().map(|(path, (inode, content))| (*inode, (path, content))).collect();
    let current_inodes: BTreeSet<u64> = current.values().map(|(inode, _)| *inode).collect();
    let mut left = BTreeMap::new();
    for (path, (inode, content)) in durable {
        if !current_inodes.contains(inode) && choose(2) == 1 {
            left.insert(path.clone(), content.clone());
        }
    }
    for (path, (inode, content)) in current {
        match durable_by_inode.get(inode) {
            Some((old_path, content)) => {
                let path = if choose(2) == 0 { (*old_path).clone() } else { path.clone() };
                left.insert(path, (*content).clone());
            }
            None => match choose(5) {
                0 => {}
                1 => drop(left.insert(path.clone(), Vec::new())),
                2 => drop(left.insert(path.clone(), content[..content.len() / 2].to_vec())),
                3 => drop(left.insert(path.clone(), vec![0; content.len()])),
                _ => drop(left.insert(path.clone(), content.clone())),
            },
        }
    }
    left
}

#[derive(Default)]
struct Recorder {
    durable: Tree,
    /// Jobs for which `flush` has returned.
    promised: Vec<TestJob>,
    cuts: Vec<(Step, Tree, Tree, Vec<TestJob>)>,
}

#[test]
fn a_power_cut_at_any_step_leaves_no_bad_hit() {
    let folder = Folder::new();
    let recorder = Arc::new(Mutex::new(Recorder::default()));
    let (root, recording) = (folder.root(), Arc::clone(&recorder));
    let store = folder.open_hooked(move |step| {
        let mut recorder = guard(&recording);
        let current = snapshot(&root);
        let cut = (step, recorder.durable.clone(), current.clone(), recorder.promised.clone());
        recorder.cuts.push(cut);
        if matches!(step, Step::Sync | Step::LastSync) {
            recorder.durable = current;
        }
        Verdict::Go
    });
    // The format file is synced when the folder is made.
    let format = snapshot(&folder.root()).remove(Path::new("format")).unwrap();
    guard(&recorder).durable.insert("format".into(), format);
    for group in [&[FIRST][..], &[SECOND, THIRD]] {
        for job in group {
            job.publish(&store).unwrap();
        }
        store.flush().unwrap();
        guard(&recorder).promised.extend(group);
    }
    let mut recorder = guard(&recorder);
    let last = (Step::LastSync, recorder.durable.clone(), snapshot(&folder.root()), recorder.promised.clone());
    recorder.cuts.push(last);
    assert!(ALL_STEPS.iter().all(|step| recorder.cuts.iter().any(|(cut, ..)| cut == step)));

    let (mut hits_n, mut misses_n) = (0, 0);
    for (n, (step, durable, current, promised)) in recorder.cuts.iter().enumerate() {
        for variant in 0..24_u64 {
            let mut state = (n as u64) << 32 | variant << 8 | 1;
            let left = survivors(durable, current, |below| match variant {
                0 => 0,
                1 => below - 1,
                _ => {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as usize % below
                }
            });
            let after = Folder::new();
            for (path, content) in left {
                let path = after.root().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            let store = after.open();
            for job in [FIRST, SECOND, THIRD] {
                let hit = job.is_hit(&store);
                if hit {
                    hits_n += 1
                } else {
                    misses_n += 1
                }
                let promised = promised.iter().any(|promised| promised.key() == job.key());
                assert!(hit || !promised, "{} was promised, then lost at cut {n}, {step:?}, {variant}", job.name);
            }
            for job in [FIRST, SECOND, THIRD] {
                job.publish(&store).unwrap();
            }
            assert!([FIRST, SECOND, THIRD].iter().all(|job| job.is_hit(&store)), "retry after cut {n}, {step:?}");
        }
    }
    assert!(hits_n > 0 && misses_n > 0, "the cuts tell something: {hits_n} hits, {misses_n} misses");
}

/// Runs the test `child` in a process of its own.
fn child(task: &str, root: &Path) -> Command {
    let module = module_path!().split_once("::").unwrap().1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::run_as_child"), "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("ECGPIPE_TEST_CHILD", task).env("ECGPIPE_TEST_ROOT", root);
    command.stdout(std::process::Stdio::null());
    command
}

#[test]
#[ignore = "the other half of the tests that start processes"]
fn run_as_child() {
    let (Ok(task), Ok(root)) = (std::env::var("ECGPIPE_TEST_CHILD"), std::env::var("ECGPIPE_TEST_ROOT")) else {
        return;
    };
    let root = PathBuf::from(root);
    match task.split_once(' ').unwrap() {
        ("die", step) => {
            let step = ALL_STEPS.into_iter().find(|known| format!("{known:?}") == step).unwrap();
            let hook: Hook = Arc::new(move |now| {
                if now == step {
                    std::process::abort();
                }
                Verdict::Go
            });
            let store = Store::open_on(&root, Disk { hook: Some(hook) }).unwrap();
            FIRST.publish(&store).unwrap();
            store.flush().unwrap();
        }
        ("compute", start) => compute_all(&root, start.parse().unwrap()),
        (task, _) => panic!("{task} is not a task"),
    }
}

#[test]
fn a_kill_at_any_step_needs_no_repair() {
    for step in ALL_STEPS {
        let folder = Folder::with(&[SECOND]);
        let status = child(&format!("die {step:?}"), &folder.root()).stderr(std::process::Stdio::null()).status();
        assert!(!status.unwrap().success(), "{step:?}: the child was killed");
        let store = folder.open();
        assert!(SECOND.is_hit(&store));
        let hit = FIRST.is_hit(&store);
        assert_eq!(hit, step == Step::LastSync, "{step:?}");
        FIRST.publish(&store).unwrap();
        store.flush().unwrap();
        assert!(FIRST.is_hit(&folder.open()), "{step:?}");
        drop(store);
        folder.gc(&[FIRST, SECOND], Duration::ZERO);
        let left = (folder.files_n("tmp"), folder.files_n("locks"), folder.files_n("leases"));
        assert_eq!(left, (0, 0, 0), "{step:?}: gc removes what a dead process has left");
        assert!(FIRST.is_hit(&folder.open()) && SECOND.is_hit(&folder.open()));
        assert_eq!(folder.open().verify().unwrap().problems, []);
    }
}

const SHARED_JOBS_N: usize = 24;

fn shared_job(n: usize) -> (Key, Vec<KeyField>, Vec<u8>) {
    let (key, fields) = identity(&format!("shared {n}"));
    // Every third job gives the same bytes as its neighbour.
    (key, fields, format!("result {}", n - usize::from(n % 3 == 2)).into_bytes())
}

/// What each process does in the test below: every job, from `start` on, computing what is not there.
fn compute_all(root: &Path, start: usize) {
    let mut log = OpenOptions::new().append(true).create(true).open(root.with_extension("log")).unwrap();
    let store = Store::open(root).unwrap();
    let check = |manifest: Manifest, bytes: &[u8]| {
        assert_eq!(store.read(&manifest.outputs[&"result".into()]).unwrap(), bytes);
    };
    for n in (0..SHARED_JOBS_N).map(|n| (start + n) % SHARED_JOBS_N) {
        let (key, fields, bytes) = shared_job(n);
        if let Lookup::Hit(manifest) = store.lookup(&key).unwrap() {
            check(manifest, &bytes);
            continue;
        }
        let lock = store.lock(&key, || ()).unwrap();
        if let Lookup::Hit(manifest) = store.lookup(&key).unwrap() {
            check(manifest, &bytes);
            continue;
        }
        log.write_all(format!("{n}\n").as_bytes()).unwrap();
        let outputs = vec![new_output("result", &bytes)];
        check(store.publish(lock, new_manifest("shared", fields), outputs).unwrap(), &bytes);
    }
    store.flush().unwrap();
}

#[test]
fn two_processes_compute_each_key_once_beside_gc() {
    let folder = Folder::new();
    drop(folder.open());
    let mut children: Vec<_> =
        [0, 0, 12].iter().map(|start| child(&format!("compute {start}"), &folder.root()).spawn().unwrap()).collect();
    let roots: BTreeSet<Key> = (0..SHARED_JOBS_N).filter(|n| n % 2 == 0).map(|n| shared_job(n).0).collect();
    let options = GcOptions { grace: Duration::ZERO, now: SystemTime::now() + DAY, dry_run: false };
    let mut collections_n = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        folder.open().gc(|| Ok(roots.clone()), options).unwrap();
        collections_n += 1;
    }
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert!(collections_n > 1);
    let log = fs::read_to_string(folder.root().with_extension("log")).unwrap();
    let mut computed_n = BTreeMap::new();
    for line in log.lines() {
        *computed_n.entry(line.parse::<usize>().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(computed_n.len(), SHARED_JOBS_N);
    for n in (0..SHARED_JOBS_N).step_by(2) {
        assert_eq!(computed_n[&n], 1, "job {n}, which gc had to leave alone");
    }
    folder.open().gc(|| Ok(roots.clone()), options).unwrap();
    let store = folder.open();
    assert_eq!(store.keys().unwrap(), roots);
    let report = store.verify().unwrap();
    assert_eq!((report.problems, report.unreferenced_n), (vec![], 0));
}

#[test]
fn gc_keeps_roots_and_what_they_need_and_what_is_young() {
    let folder = Folder::with(&[FIRST, SECOND, THIRD]);
    fs::write(folder.root().join("tmp/4711-0.3"), "left over").unwrap();
    fs::write(folder.root().join("quarantine/blobs-x"), "damaged").unwrap();
    fs::write(folder.root().join("locks").join(THIRD.key().to_hex()), "").unwrap();
    let young = folder.gc(&[], DAY);
    assert_eq!((young.kept_manifests_n, young.kept_blobs_n), (3, 4));
    assert_eq!((young.manifests.files_n, young.temporary.files_n, young.quarantine.files_n), (0, 0, 0));
    assert_eq!(folder.files_n("locks"), 0, "nobody holds it");

    let options = GcOptions { grace: Duration::ZERO, now: SystemTime::now() + DAY, dry_run: true };
    let before = snapshot(&folder.root());
    let roots = BTreeSet::from([SECOND.key()]);
    let dry = folder.open().gc(|| Ok(roots.clone()), options).unwrap();
    let expected_blobs = Removed { files_n: 2, bytes: 5004 };
    assert_eq!((dry.manifests.files_n, dry.blobs), (2, expected_blobs));
    assert_eq!((dry.temporary.bytes, dry.quarantine.bytes), (9, 7));
    assert_eq!((dry.kept_manifests_n, dry.kept_blobs_n, dry.dry_run), (1, 2, true));
    assert_eq!(snapshot(&folder.root()), before);

    let wet = folder.open().gc(|| Ok(roots.clone()), GcOptions { dry_run: false, ..options }).unwrap();
    assert_eq!(wet, GcReport { dry_run: false, ..dry });
    let store = folder.open();
    assert!(SECOND.is_hit(&store));
    assert_eq!((FIRST.miss(&store), THIRD.miss(&store)), (Miss::Absent, Miss::Absent));
    assert_eq!((folder.files_n("tmp"), folder.files_n("quarantine")), (0, 0));
}

#[test]
fn gc_takes_nothing_from_under_a_live_run() {
    let folder = Folder::with(&[FIRST, SECOND, THIRD]);
    for path in all_files(&folder.root().join("manifests")).iter().chain(&all_files(&folder.root().join("blobs"))) {
        age(path);
    }
    let run = folder.open();
    assert!(FIRST.is_hit(&run));
    // A job of this run gives bytes that were there before.
    let (key, fields) = identity("fourth");
    let lock = run.lock(&key, || ()).unwrap();
    run.publish(lock, new_manifest("fourth", fields), vec![new_output("beats", &[7; 5000])]).unwrap();
    let report = folder.gc(&[], Duration::ZERO);
    assert_eq!(report.live_leases_n, 1);
    assert_eq!(report.manifests.files_n, 2, "SECOND and THIRD are old and were not asked for");
    assert_eq!(report.blobs.files_n, 1, "only the empty blob of SECOND is needed by nothing");
    assert!(FIRST.is_hit(&run) && FIRST.is_hit(&folder.open()));
    run.flush().unwrap();
    let manifest = folder.open().lookup(&key).unwrap().hit().unwrap();
    assert_eq!(run.read(&manifest.outputs[&"beats".into()]).unwrap(), &[7; 5000][..]);
    drop(run);
    let report = folder.gc(&[], Duration::ZERO);
    assert_eq!((report.live_leases_n, report.kept_manifests_n, report.kept_blobs_n), (0, 0, 0));
}

#[test]
fn gc_takes_nothing_from_under_a_run_whose_clock_was_set_back() {
    let folder = Folder::with(&[FIRST, SECOND]);
    let run = folder.open();
    THIRD.publish(&run).unwrap();
    run.flush().unwrap();
    // The lease was taken at ten; then it became seven, and now it is eight.
    let now = SystemTime::now();
    let lease = all_files(&folder.root().join("leases")).remove(0);
    File::options().write(true).open(&lease).unwrap().set_modified(now + Duration::from_secs(7200)).unwrap();
    age(&folder.manifest(FIRST));
    let options = GcOptions { grace: Duration::ZERO, now, dry_run: false };
    let report = folder.open().gc(|| Ok(BTreeSet::new()), options).unwrap();
    assert_eq!((report.live_leases_n, report.manifests.files_n, report.blobs.files_n), (1, 0, 0));
    assert!([FIRST, SECOND, THIRD].iter().all(|job| job.is_hit(&run)));
    drop(run);
    assert_eq!(folder.gc(&[], Duration::ZERO).kept_manifests_n, 0, "nobody is left to protect");
}

#[test]
fn the_roots_are_asked_for_behind_the_closed_gate() {
    let folder = Folder::with(&[FIRST]);
    let gate = File::open(folder.root().join("gate")).unwrap();
    let options = GcOptions { grace: Duration::ZERO, now: SystemTime::now() + DAY, dry_run: false };
    // A run that ends before the roots are read has left behind what it needs; none can begin until gc has ended.
    let roots = || {
        assert!(gate.try_lock_shared().is_err(), "the gate is closed");
        Ok(BTreeSet::from([FIRST.key()]))
    };
    assert_eq!(folder.open().gc(roots, options).unwrap().kept_manifests_n, 1);
    let refused = folder.open().gc(|| Err("the list of runs is torn".into()), options).unwrap_err();
    assert_eq!(refused.to_string(), "learn which results are still needed: the list of runs is torn");
    assert!(FIRST.is_hit(&folder.open()));
}

#[test]
fn gc_puts_back_what_a_run_has_just_found() {
    let folder = Folder::with(&[FIRST]);
    for path in all_files(&folder.root().join("blobs")).iter().chain([&folder.manifest(FIRST)]) {
        age(path);
    }
    let run = Arc::new(folder.open());
    let finding = Arc::clone(&run);
    let mut collector = folder.open_hooked(move |step| {
        if step == Step::Collect {
            assert!(FIRST.is_hit(&finding));
        }
        Verdict::Go
    });
    let options = GcOptions { grace: Duration::ZERO, now: SystemTime::now(), dry_run: false };
    let report = collector.gc(|| Ok(BTreeSet::new()), options).unwrap();
    assert_eq!((report.manifests.files_n, report.blobs.files_n), (0, 0));
    assert!(FIRST.is_hit(&run));
}

#[test]
fn a_hit_beside_gc_can_be_read() {
    let folder = Folder::with(&[FIRST]);
    let run = folder.open();
    let barrier = Barrier::new(2);
    let (mut hits_n, mut misses_n) = (0, 0);
    std::thread::scope(|scope| {
        const ROUNDS_N: usize = 60;
        scope.spawn(|| {
            for _ in 0..ROUNDS_N {
                barrier.wait();
                folder.gc(&[], Duration::ZERO);
                barrier.wait();
            }
        });
        for round in 0..ROUNDS_N {
            if !FIRST.is_hit(&run) {
                FIRST.publish(&run).unwrap();
                run.flush().unwrap();
            }
            for path in all_files(&folder.root().join("blobs")).iter().chain([&folder.manifest(FIRST)]) {
                age(path);
            }
            barrier.wait();
            if round % 2 == 0 {
                // A hit reads as it should, or it is a miss.
                if FIRST.is_hit(&run) { hits_n += 1 } else { misses_n += 1 }
            } else {
                // The publication finds the blob of FIRST, which nothing but FIRST needs, and gc is taking FIRST.
                SECOND.publish(&run).unwrap();
                run.flush().unwrap();
                assert!(SECOND.is_hit(&run));
            }
            barrier.wait();
            if round % 2 == 1 {
                assert!(SECOND.is_hit(&folder.open()));
                fs::remove_file(folder.manifest(SECOND)).unwrap();
            }
        }
    });
    assert_eq!(hits_n + misses_n, 30);
}

#[test]
fn verify_finds_everything_and_repair_moves_it_away() {
    let folder = Folder::with(&[FIRST, SECOND, THIRD]);
    let sound = folder.open().verify().unwrap();
    assert_eq!((sound.manifests_n, sound.blobs_n, sound.bytes, sound.unreferenced_n), (3, 4, 5015, 0));
    assert_eq!(sound.problems, []);

    let (key, mut fields) = identity("liar");
    fields[0].value = "another".into();
    let store = folder.open();
    store.publish(store.lock(&key, || ()).unwrap(), new_manifest("liar", fields), vec![]).unwrap();
    drop(store);
    fs::write(folder.blob(b"one hundred"), b"one hundreD").unwrap();
    fs::write(folder.manifest(THIRD), b"{}").unwrap();
    let stranger = folder.root().join("blobs/notes.txt");
    fs::write(&stranger, "").unwrap();

    let found = folder.open().verify().unwrap();
    let kinds = |report: &VerifyReport| -> Vec<&'static str> {
        let kind = |problem: &Problem| match &problem.kind {
            ProblemKind::Blob { .. } => "blob",
            ProblemKind::Manifest { .. } => "manifest",
            ProblemKind::Explanation => "explanation",
            ProblemKind::Output { .. } => "output",
            ProblemKind::Stranger => "stranger",
            ProblemKind::Unreadable { .. } => "unreadable",
        };
        let mut kinds: Vec<_> = report.problems.iter().map(kind).collect();
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(kinds(&found), ["blob", "explanation", "manifest", "output", "output", "stranger"]);
    assert!(found.problems.iter().all(|problem| problem.quarantined.is_none()));

    let repaired = folder.open().repair().unwrap();
    assert_eq!(kinds(&repaired), kinds(&found));
    assert_eq!(repaired.problems.iter().filter(|problem| problem.quarantined.is_some()).count(), 5);
    let after = folder.open().verify().unwrap();
    assert_eq!(kinds(&after), ["stranger"]);
    assert!(stranger.exists());
    for job in [FIRST, SECOND, THIRD] {
        assert_eq!(job.miss(&folder.open()), Miss::Absent);
    }
}

#[test]
fn sizes_add_up_by_stage() {
    let folder = Folder::with(&[FIRST, SECOND, THIRD]);
    fs::remove_file(folder.manifest(THIRD)).unwrap();
    fs::write(folder.root().join("quarantine/blobs-x"), "damaged").unwrap();
    let stats = folder.open().stats().unwrap();
    assert_eq!((stats.manifests_n, stats.blobs_n, stats.blob_bytes), (2, 4, 5015));
    assert_eq!((stats.unreferenced_bytes, stats.quarantine_bytes), (5000, 7));
    assert_eq!(stats.stages["first"], StageSize { manifests_n: 1, blobs_n: 2, bytes: 15 });
    assert_eq!(stats.stages["second"], StageSize { manifests_n: 1, blobs_n: 2, bytes: 11 });
}

/// Saves a checkpoint of the job, as a run does that is killed after it.
fn save_checkpoint(store: &Store, job: TestJob, content: &[u8]) {
    let lock = store.lock(&job.key(), || panic!("nobody else computes {}", job.name)).unwrap();
    store.save_checkpoint(&lock, content).unwrap();
}

fn load_checkpoint(store: &Store, job: TestJob) -> Result<Option<Vec<u8>>, StoreError> {
    store.load_checkpoint(&store.lock(&job.key(), || panic!("nobody else computes {}", job.name)).unwrap())
}

#[test]
fn the_last_checkpoint_is_loaded_by_whoever_opens_the_store() {
    let folder = Folder::new();
    assert_eq!(load_checkpoint(&folder.open(), FIRST).unwrap(), None);
    assert!(!folder.root().join(CHECKPOINT_FOLDER).exists(), "made when it is needed");
    for content in [&b"epoch 1"[..], b"", &[7; 100_000]] {
        save_checkpoint(&folder.open(), FIRST, content);
        assert_eq!(load_checkpoint(&folder.open(), FIRST).unwrap().as_deref(), Some(content));
    }
    assert_eq!((folder.files_n(CHECKPOINT_FOLDER), folder.files_n("tmp")), (1, 0));
    assert!(folder.open().lookup(&FIRST.key()).unwrap().hit().is_none(), "it is no result");
    let stats = folder.open().stats().unwrap();
    // Its head, the key and the digest are 85 bytes.
    assert_eq!((stats.checkpoints_n, stats.checkpoint_bytes), (1, 100_085));
    assert_eq!(folder.open().verify().unwrap().problems, []);
    let refused = Store::open_read_only(&folder.root()).unwrap().lock(&FIRST.key(), || ()).unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "who cannot lock cannot save: {refused}");
}

#[test]
fn no_flip_or_cut_of_a_checkpoint_is_served() {
    let folder = Folder::new();
    save_checkpoint(&folder.open(), FIRST, b"after epoch 3");
    let path = folder.root().join(CHECKPOINT_FOLDER).join(FIRST.key().to_hex());
    let whole = fs::read(&path).unwrap();
    let flip = |position: usize| {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        flipped
    };
    let cuts = (0..whole.len()).map(|byte_n| whole[..byte_n].to_vec());
    let others = damages(&whole).into_iter().map(|(_, content)| content);
    for content in (0..whole.len()).map(flip).chain(cuts).chain(others) {
        fs::write(&path, &content).unwrap();
        let error = load_checkpoint(&folder.open(), FIRST).unwrap_err();
        assert_eq!(error.to_string(), format!("read the checkpoint {}: it is damaged", path.display()), "{content:?}");
    }
    // The next one replaces it.
    let store = folder.open();
    save_checkpoint(&store, FIRST, b"after epoch 1");
    assert_eq!(load_checkpoint(&store, FIRST).unwrap().as_deref(), Some(&b"after epoch 1"[..]));
}

#[test]
fn a_checkpoint_is_of_one_key_alone() {
    let folder = Folder::new();
    save_checkpoint(&folder.open(), FIRST, b"of the first");
    assert_eq!(load_checkpoint(&folder.open(), SECOND).unwrap(), None);
    let checkpoints = folder.root().join(CHECKPOINT_FOLDER);
    fs::copy(checkpoints.join(FIRST.key().to_hex()), checkpoints.join(SECOND.key().to_hex())).unwrap();
    assert!(matches!(load_checkpoint(&folder.open(), SECOND), Err(StoreError::DamagedCheckpoint { .. })));
}

#[test]
fn a_checkpoint_goes_when_its_result_has_its_name_and_not_before() {
    let folder = Folder::new();
    let path = folder.root().join(CHECKPOINT_FOLDER).join(FIRST.key().to_hex());
    save_checkpoint(&folder.open(), SECOND, b"of another job");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (watch, heard) = (path.clone(), Arc::clone(&seen));
    let store = folder.open_hooked(move |step| {
        guard(&heard).push((step, watch.exists()));
        // The first publication is lost.
        let first = guard(&heard).iter().filter(|(seen, _)| *seen == Step::Sync).count() == 1;
        if step == Step::Sync && first { Verdict::Fail(EIO) } else { Verdict::Go }
    });
    save_checkpoint(&store, FIRST, b"of a job that is then done");
    FIRST.publish(&store).unwrap();
    assert!(store.flush().is_err() && path.exists(), "its result is lost, so it is still needed");
    FIRST.publish(&store).unwrap();
    store.flush().unwrap();
    assert!(!path.exists() && folder.files_n(CHECKPOINT_FOLDER) == 1, "the other job's stays");
    let seen = guard(&seen);
    let before_the_name = seen.iter().filter(|(step, _)| *step != Step::LastSync);
    assert!(before_the_name.clone().all(|(_, is_there)| *is_there), "{seen:?}");
    assert!(before_the_name.clone().any(|(step, _)| *step == Step::ManifestRename), "{seen:?}");
}

#[test]
fn gc_removes_checkpoints_of_jobs_that_are_done_or_forgotten() {
    let folder = Folder::with(&[FIRST]);
    for job in [FIRST, SECOND, THIRD] {
        save_checkpoint(&folder.open(), job, b"unfinished");
    }
    let path = |job: TestJob| folder.root().join(CHECKPOINT_FOLDER).join(job.key().to_hex());
    let stranger = folder.root().join(CHECKPOINT_FOLDER).join("no key");
    fs::write(&stranger, "?").unwrap();
    let gc = |days_later: u32, grace: Duration| {
        let options = GcOptions { grace, now: SystemTime::now() + DAY * days_later, dry_run: false };
        let report = folder.open().gc(|| Ok(BTreeSet::from([FIRST.key()])), options).unwrap();
        (report.checkpoints.files_n, [FIRST, SECOND, THIRD].map(|job| path(job).exists()))
    };
    assert_eq!(gc(0, DAY), (0, [true, true, true]), "all are young");
    assert_eq!(gc(2, DAY), (2, [false, true, true]), "the first is done");
    assert!(!stranger.exists());
    assert_eq!(gc(6, Duration::ZERO), (0, [false, true, true]), "somebody may still go on with them");
    let store = folder.open();
    age(&path(SECOND));
    assert_eq!(gc(8, DAY * 30), (0, [false, true, true]), "the grace period is longer");
    assert_eq!(gc(8, Duration::ZERO), (1, [false, false, true]), "a run may have saved the third");
    drop(store);
    assert_eq!(gc(8, Duration::ZERO), (1, [false, false, false]));
    assert!(FIRST.is_hit(&folder.open()));
}

#[test]
fn a_store_of_checkpoints_alone_is_a_store() {
    let folder = Folder::new();
    save_checkpoint(&folder.open(), FIRST, b"unfinished");
    // What a power cut leaves of the format file that was being written first.
    fs::write(folder.root().join("format"), "").unwrap();
    assert_eq!(load_checkpoint(&folder.open(), FIRST).unwrap().as_deref(), Some(&b"unfinished"[..]));
}

/// Something that happens to a store.
#[derive(Debug, Clone)]
enum Act {
    Publish(usize),
    /// Alters the n-th file (modulo their number): a flip at a position, or a cut there.
    Flip {
        file: usize,
        position: usize,
        bit: u8,
    },
    Cut {
        file: usize,
        position: usize,
    },
    Remove {
        file: usize,
    },
    Gc {
        root: usize,
    },
    Repair,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..3_usize).prop_map(Act::Publish),
        2 => (0..64_usize, 0..6000_usize, 0..8_u8)
            .prop_map(|(file, position, bit)| Act::Flip { file, position, bit }),
        2 => (0..64_usize, 0..6000_usize).prop_map(|(file, position)| Act::Cut { file, position }),
        1 => (0..64_usize).prop_map(|file| Act::Remove { file }),
        1 => (0..3_usize).prop_map(|root| Act::Gc { root }),
        1 => Just(Act::Repair),
        1 => Just(Act::Reopen),
    ];
    proptest::collection::vec(act, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the files, a read gives the right bytes or an error, and publishing again always heals.
    #[test]
    fn no_history_of_damage_serves_a_wrong_byte(acts in acts()) {
        let jobs = [FIRST, SECOND, THIRD];
        let folder = Folder::new();
        let mut store = folder.open();
        for act in acts {
            let files: Vec<_> = ["blobs", "manifests", "locks", "leases", "tmp", "quarantine"]
                .iter()
                .flat_map(|name| all_files(&folder.root().join(name)))
                .collect();
            let alter = |file: usize, change: &dyn Fn(&mut Vec<u8>)| {
                if let Some(path) = files.get(file % files.len().max(1)) {
                    let mut content = fs::read(path).unwrap();
                    change(&mut content);
                    fs::write(path, content).unwrap();
                }
            };
            match act {
                Act::Publish(n) => {
                    jobs[n].publish(&store).unwrap();
                    store.flush().unwrap();
                    prop_assert!(jobs[n].is_hit(&store));
                }
                Act::Flip { file, position, bit } => alter(file, &|content| {
                    let size = content.len();
                    if size > 0 {
                        content[position % size] ^= 1 << bit;
                    }
                }),
                Act::Cut { file, position } => alter(file, &|content| content.truncate(position % (content.len() + 1))),
                Act::Remove { file } => {
                    if let Some(path) = files.get(file % files.len().max(1)) {
                        fs::remove_file(path).unwrap();
                    }
                }
                Act::Gc { root } => {
                    let options = GcOptions { grace: Duration::ZERO, now: SystemTime::now(), dry_run: false };
                    store.gc(|| Ok(BTreeSet::from([jobs[root].key()])), options).unwrap();
                }
                Act::Repair => drop(store.repair().unwrap()),
                Act::Reopen => store = folder.open(),
            }
            for job in jobs {
                if let Lookup::Hit(manifest) = store.lookup(&job.key()).unwrap() {
                    for (name, bytes) in job.outputs {
                        if let Ok(read) = store.read(&manifest.outputs[&OutputName::from(*name)]) {
                            prop_assert_eq!(&read[..], *bytes);
                        }
                    }
                }
            }
        }
        for job in jobs {
            job.publish(&store).unwrap();
            prop_assert!(job.is_hit(&store));
        }
    }
}
