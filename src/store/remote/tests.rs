//! Remotes in memory and in folders: round trips, interruptions, damage, several writers, stores that keep no promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Barrier;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RetryConfig,
};

use super::*;
use crate::digest::KeyField;
use crate::store::{Lookup, NewManifest, NewOutput, OutputName, Store};

const QUICK: Patience = Patience { base: Duration::from_secs(60), bytes_per_s: 1 << 20, retry_n: 0 };

/// A job: its name decides its key, and its outputs are fixed.
type Job = (&'static str, &'static [(&'static str, &'static [u8])]);

const JOBS: [Job; 4] = [
    ("ingest", &[("signals/100", b"one hundred"), ("report", b"fine")]),
    // Shares a blob with the first, and has an empty one.
    ("window", &[("signals/101", b"one hundred"), ("empty", b"")]),
    ("train", &[("model", &[7; 5000])]),
    ("nothing", &[]),
];
const BLOBS_N: usize = 4;

fn identity(name: &str) -> (Key, Vec<KeyField>) {
    let mut encoder = KeyEncoder::new();
    encoder.field("stage", name).field("code", "c0de");
    encoder.finish().unwrap()
}

fn key(job: &Job) -> Key {
    identity(job.0).0
}

fn publish(store: &Store, job: &Job, cpu_ms: u64) {
    let (key, fields) = identity(job.0);
    let new = NewManifest {
        stage: job.0.into(),
        code: "c0de".into(),
        fields,
        cpu_ms,
        wall_ms: 2,
        version: "0.1.0".into(),
        warnings: vec!["slow".into()],
    };
    let output = |(name, bytes): &(&str, &[u8])| NewOutput {
        name: OutputName::from(*name),
        kind: "bytes".into(),
        rows: Some(3),
        content: Bytes::copy_from_slice(bytes).into(),
    };
    let lock = store.lock(&key, || panic!("nobody else computes {}", job.0)).unwrap();
    store.publish(lock, new, job.1.iter().map(output).collect()).unwrap();
}

struct Project {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Project {
    fn with(jobs: &[Job]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        for job in jobs {
            publish(&store, job, 1);
        }
        store.flush().unwrap();
        Self { _folder: folder, store }
    }

    fn keys(&self) -> BTreeSet<Key> {
        self.store.keys().unwrap()
    }

    fn push(&self, remote: &Remote) -> Result<PushReport, RemoteError> {
        self.push_with(remote, PushOptions::default())
    }

    fn push_with(&self, remote: &Remote, options: PushOptions) -> Result<PushReport, RemoteError> {
        remote.push(&self.store, &self.keys(), options, &|_| {})
    }

    fn pull(&self, remote: &Remote) -> Result<PullReport, RemoteError> {
        remote.pull(&self.store, None, false, &|_| {})
    }

    /// The names of the jobs that are hits; each hit must read as it was computed.
    fn hits(&self) -> Vec<&'static str> {
        let mut hits = Vec::new();
        for job in &JOBS {
            if let Lookup::Hit(manifest) = self.store.lookup(&key(job)).unwrap() {
                assert_eq!(manifest.outputs.len(), job.1.len());
                for (name, bytes) in job.1 {
                    assert_eq!(self.store.read(&manifest.outputs[&OutputName::from(*name)]).unwrap(), *bytes);
                }
                hits.push(job.0);
            }
        }
        hits
    }
}

fn all_names() -> Vec<&'static str> {
    JOBS.iter().map(|job| job.0).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
    List,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Go,
    Fail,
    /// It is done, but the answer is lost.
    FailAfterwards,
    /// It never ends.
    Hang,
    /// Put-if-absent becomes a plain put.
    Ignore,
    /// Put-if-absent looks first and writes then, so that several win.
    Race,
    /// Put-if-absent is refused.
    Refuse,
}

type Hook = Box<dyn Fn(Operation, &str) -> Verdict + Send + Sync>;

/// An object store that does what a hook says.
struct Hooked {
    inner: Arc<dyn ObjectStore>,
    hook: Hook,
    looked: Barrier,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "the cable was pulled".into() }
}

impl Hooked {
    async fn ask(&self, operation: Operation, path: &Path) -> object_store::Result<Verdict> {
        match (self.hook)(operation, path.as_ref()) {
            Verdict::Fail => Err(broken()),
            Verdict::Hang => std::future::pending().await,
            verdict => Ok(verdict),
        }
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let verdict = self.ask(Operation::Put, path).await?;
        if options.mode == PutMode::Create {
            match verdict {
                Verdict::Refuse => {
                    return Err(object_store::Error::NotImplemented {
                        operation: "put-if-absent".into(),
                        implementer: "test".into(),
                    });
                }
                Verdict::Race => {
                    if self.inner.head(path).await.is_ok() {
                        options.mode = PutMode::Create;
                    } else {
                        // All have looked before any of them writes.
                        self.looked.wait();
                        options.mode = PutMode::Overwrite;
                    }
                }
                Verdict::Ignore => options.mode = PutMode::Overwrite,
                _ => {}
            }
        }
        let put = self.inner.put_opts(path, payload, options).await;
        if verdict == Verdict::FailAfterwards { Err(broken()) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let verdict = self.ask(Operation::Get, path).await?;
        let got = self.inner.get_opts(path, options).await;
        if verdict == Verdict::FailAfterwards { Err(broken()) } else { got }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match (self.hook)(Operation::Delete, "") {
            Verdict::Fail | Verdict::FailAfterwards => {
                futures_util::stream::once(std::future::ready(Err(broken()))).boxed()
            }
            _ => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match (self.hook)(Operation::List, prefix.map_or("", |path| path.as_ref())) {
            Verdict::Fail | Verdict::FailAfterwards => {
                futures_util::stream::once(std::future::ready(Err(broken()))).boxed()
            }
            Verdict::Hang => futures_util::stream::pending().boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.ask(Operation::List, &Path::default()).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An object store in memory that outlives its remotes.
#[derive(Clone)]
struct Server(Arc<InMemory>);

impl Server {
    fn new() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    /// One to which all jobs were pushed.
    fn full() -> Self {
        let server = Self::new();
        let report = Project::with(&JOBS).push(&server.remote()).unwrap();
        assert_eq!((report.results_n, report.blobs_n), (JOBS.len(), BLOBS_N));
        server
    }

    fn remote(&self) -> Remote {
        self.hooked(|_, _| Verdict::Go)
    }

    fn hooked(&self, hook: impl Fn(Operation, &str) -> Verdict + Send + Sync + 'static) -> Remote {
        let looked = Barrier::new(4);
        let store = Hooked { inner: Arc::clone(&self.0) as Arc<dyn ObjectStore>, hook: Box::new(hook), looked };
        remote_on(Arc::new(store), QUICK)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let objects = self.remote().objects;
        match objects.get(name, 0, u64::MAX).unwrap() {
            Fetched::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }

    fn write(&self, name: &str, bytes: impl Into<Bytes>) {
        self.remote().objects.put(name, bytes.into()).unwrap();
    }

    fn remove(&self, name: &str) {
        self.remote().objects.delete(name).unwrap();
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.remote().objects.list(folder).unwrap().into_keys().collect()
    }
}

fn remote_on(store: Arc<dyn ObjectStore>, patience: Patience) -> Remote {
    Remote::on(Objects::on("s3://bucket/team", store, Path::from("team"), patience).unwrap())
}

/// A remote whose `n`th operation meets `verdict`; the counter goes on after it.
fn failing_at(server: &Server, n: usize, verdict: Verdict) -> (Remote, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let hook = move |_, _: &str| if counted.fetch_add(1, Ordering::SeqCst) == n { verdict } else { Verdict::Go };
    (server.hooked(hook), count)
}

fn blob_of(bytes: &[u8]) -> String {
    blob_name(&Digest::of(bytes))
}

#[test]
fn what_is_pushed_is_pulled_and_nothing_travels_twice() {
    let (server, here) = (Server::new(), Project::with(&JOBS));
    let dry = here.push_with(&server.remote(), PushOptions { dry_run: true, verify: false }).unwrap();
    assert_eq!((dry.results_n, dry.blobs_n, dry.bytes, dry.put_if_absent), (4, 4, 5015, None));
    assert!(server.names("").is_empty(), "a dry run writes nothing");

    let pushed = here.push(&server.remote()).unwrap();
    assert_eq!((pushed.results_n, pushed.blobs_n, pushed.bytes, pushed.present_n), (4, 4, 5015, 0));
    assert_eq!((pushed.put_if_absent, &pushed.warnings), (Some(true), &Vec::new()));
    assert!(server.names(PROBE).is_empty());

    let there = Project::with(&[]);
    let dry = server.remote().pull(&there.store, None, true, &|_| {}).unwrap();
    assert_eq!((dry.results_n, dry.blobs_n, there.hits().len()), (4, 5, 0), "a shared blob counts twice");
    let pulled = there.pull(&server.remote()).unwrap();
    assert_eq!((pulled.results_n, pulled.present_n, &pulled.warnings), (4, 0, &Vec::new()));
    assert_eq!(there.hits(), all_names());
    for job in &JOBS {
        let manifest = |project: &Project| project.store.lookup(&key(job)).unwrap();
        assert_eq!(manifest(&there), manifest(&here), "times and warnings are kept");
    }

    // A second time: what is there is listed, not asked for one by one.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let remote = server.hooked(move |operation, path| {
        guard(&log).push((operation, path.to_owned()));
        Verdict::Go
    });
    let again = here.push(&remote).unwrap();
    assert_eq!((again.results_n, again.blobs_n, again.present_n), (0, 0, 4));
    let again = there.pull(&remote).unwrap();
    assert_eq!((again.results_n, again.blobs_n, again.present_n), (0, 0, 4));
    let asked = guard(&asked);
    let touched = |operation| asked.iter().any(|(o, path)| *o == operation && path.contains("/manifests/"));
    assert!(!touched(Operation::Put) && !touched(Operation::Get), "{asked:?}");
    assert!(asked.iter().filter(|(operation, _)| *operation == Operation::List).count() == 3, "{asked:?}");
}

#[test]
fn a_folder_is_a_remote() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("shared/cache").display().to_string();
    let here = Project::with(&JOBS);
    let absent = Remote::open(&url).unwrap_err();
    assert!(matches!(absent, RemoteError::Absent { .. }), "{absent}");
    here.push_with(&Remote::open_to_push(&url, true).unwrap(), PushOptions { dry_run: true, verify: false }).unwrap();
    assert!(!folder.path().join("shared").exists(), "a dry run makes no folder");

    let pushed = here.push(&Remote::open_to_push(&url, false).unwrap()).unwrap();
    assert_eq!((pushed.results_n, pushed.put_if_absent), (4, Some(true)));
    for name in [blob_of(b"fine"), manifest_name(&key(&JOBS[0])), "format".to_owned()] {
        assert!(folder.path().join("shared/cache").join(&name).is_file(), "{name}");
    }
    let there = Project::with(&[]);
    let pulled = there.pull(&Remote::open(&format!("file://{url}")).unwrap()).unwrap();
    assert_eq!((pulled.results_n, there.hits()), (4, all_names()));
}

#[test]
fn only_the_wanted_keys_travel() {
    let server = Server::new();
    let here = Project::with(&JOBS);
    let wanted = BTreeSet::from([key(&JOBS[0]), Key::from_bytes([9; 32])]);
    let pushed = server.remote().push(&here.store, &wanted, PushOptions::default(), &|_| {}).unwrap();
    assert_eq!((pushed.results_n, pushed.gone_n), (1, 1));
    here.push(&server.remote()).unwrap();
    let there = Project::with(&[]);
    let pulled = server.remote().pull(&there.store, Some(&wanted), false, &|_| {}).unwrap();
    assert_eq!((pulled.results_n, pulled.absent_n, there.hits()), (1, 1, vec!["ingest"]));
}

/// What is there after any interruption: every manifest has all its blobs.
fn check_sound(server: &Server) {
    if server.read(FORMAT_OBJECT).is_none() {
        assert!(server.names("").is_empty(), "the format comes first");
        return;
    }
    let there = Project::with(&[]);
    let pulled = there.pull(&server.remote()).unwrap();
    assert_eq!(pulled.warnings, Vec::<String>::new());
    assert_eq!(pulled.results_n, server.names(MANIFESTS).len());
    assert_eq!(there.hits().len(), pulled.results_n);
}

#[test]
fn a_push_goes_on_after_a_failure_at_any_operation() {
    let here = Project::with(&JOBS);
    for verdict in [Verdict::Fail, Verdict::FailAfterwards] {
        let mut failed_n = 0;
        for n in 0.. {
            let server = Server::new();
            let (remote, count) = failing_at(&server, n, verdict);
            let first = here.push(&remote);
            check_sound(&server);
            let before: BTreeSet<String> = server.names(BLOBS).into_iter().collect();
            let manifests_n = server.names(MANIFESTS).len();
            failed_n += usize::from(first.is_err());
            if count.load(Ordering::SeqCst) <= n {
                first.unwrap();
                break;
            }
            let second = here.push(&server.remote()).unwrap();
            assert_eq!(second.blobs_n, BLOBS_N - before.len(), "only what is missing ({n})");
            assert_eq!(second.results_n, JOBS.len() - manifests_n);
            assert_eq!((second.conflicts.len(), second.warnings.len()), (0, 0), "{second:?}");
            check_sound(&server);
            assert_eq!(server.names(MANIFESTS).len(), JOBS.len());
        }
        // Put, get and list of the format, two lists, four blobs, four manifests; the rest belongs to the probe.
        assert!(failed_n >= 13, "{failed_n}");
    }
}

#[test]
fn a_pull_goes_on_after_a_failure_at_any_operation() {
    let server = Server::full();
    for n in 0.. {
        let there = Project::with(&[]);
        let (remote, count) = failing_at(&server, n, Verdict::Fail);
        let first = there.pull(&remote);
        let before_n = there.hits().len();
        if count.load(Ordering::SeqCst) <= n {
            assert_eq!(first.unwrap().results_n, JOBS.len());
            // A list, four manifests, four blobs. The blob that two results share is fetched twice where both look for it
            // before either has it.
            let least_n = 1 + JOBS.len() + BLOBS_N;
            assert!((least_n..=least_n + 1).contains(&n), "{n}");
            break;
        }
        let error = first.unwrap_err();
        assert!(error.to_string().contains("s3://bucket/team/"), "{error}");
        assert!(error.help().is_some());
        let second = there.pull(&server.remote()).unwrap();
        assert_eq!((second.results_n, second.present_n), (JOBS.len() - before_n, before_n), "{n}");
        assert_eq!(there.hits(), all_names());
    }
}

/// Damages a full server, then: `damaged` jobs are not brought, each with a warning that names `object`; all others are.
#[track_caller]
fn check_damage(what: &str, object: &str, damaged: &[&str], damage: impl FnOnce(&Server)) {
    let server = Server::full();
    damage(&server);
    let there = Project::with(&[]);
    let pulled = there.pull(&server.remote()).unwrap();
    let sound: Vec<&str> = all_names().into_iter().filter(|name| !damaged.contains(name)).collect();
    assert_eq!(there.hits(), sound, "{what}");
    assert_eq!(pulled.warnings.len(), damaged.len(), "{what}: {:?}", pulled.warnings);
    assert!(pulled.warnings.iter().all(|warning| warning.contains(object)), "{what}: {:?}", pulled.warnings);
    assert_eq!(there.store.verify().unwrap().problems, Vec::new(), "{what}");

    // The same beside a run.
    let mut beside = Project::with(&[]);
    beside.store.attach(ReadThrough::on(server.remote()));
    for job in &JOBS {
        let warnings = Mutex::new(Vec::new());
        let found = beside.store.fetch(&key(job), &|text| guard(&warnings).push(text));
        assert_eq!(found.is_none(), damaged.contains(&job.0), "{what}: {}", job.0);
        assert_eq!(guard(&warnings).len(), usize::from(found.is_none()), "{what}");
    }
    assert_eq!(beside.hits(), sound, "{what}");

    // Whoever has the results repairs the remote.
    let here = Project::with(&JOBS);
    let repaired = here.push_with(&server.remote(), PushOptions { dry_run: false, verify: true }).unwrap();
    assert_eq!(repaired.conflicts, Vec::new(), "{what}");
    let there = Project::with(&[]);
    assert_eq!(there.pull(&server.remote()).unwrap().warnings, Vec::<String>::new(), "{what}");
    assert_eq!(there.hits(), all_names(), "{what}");
}

#[test]
fn nothing_damaged_is_brought() {
    let blob = blob_of(b"fine");
    for position in 0..4 {
        check_damage("a flipped blob", &blob, &["ingest"], |server| {
            let mut bytes = b"fine".to_vec();
            bytes[position] ^= 1;
            server.write(&blob, bytes);
        });
        check_damage("a truncated blob", &blob, &["ingest"], |server| {
            server.write(&blob, b"fine"[..position].to_vec())
        });
    }
    check_damage("a longer blob", &blob, &["ingest"], |server| server.write(&blob, b"finer".to_vec()));
    check_damage("a missing blob", &blob, &["ingest"], |server| server.remove(&blob));
    check_damage("a shared blob", &blob_of(b"one hundred"), &["ingest", "window"], |server| {
        server.write(&blob_of(b"one hundred"), b"two hundred".to_vec());
    });
    check_damage("the bytes of another blob", &blob, &["ingest"], |server| {
        server.write(&blob, server.read(&blob_of(b"one hundred")).unwrap());
    });
    check_damage("an empty blob that is not", &blob_of(b""), &["window"], |server| {
        server.write(&blob_of(b""), b"x".to_vec());
    });

    let manifest = manifest_name(&key(&JOBS[2]));
    let text = Server::full().read(&manifest).unwrap();
    for position in (0..text.len()).step_by(7) {
        check_damage("a flipped manifest", &manifest, &["train"], |server| {
            let mut text = text.clone();
            text[position] ^= 1;
            server.write(&manifest, text);
        });
        check_damage("a truncated manifest", &manifest, &["train"], |server| {
            server.write(&manifest, text[..position].to_vec());
        });
    }
    check_damage("the manifest of another key", &manifest, &["train"], |server| {
        server.write(&manifest, server.read(&manifest_name(&key(&JOBS[0]))).unwrap());
    });
    check_damage("a manifest whose fields do not make its key", &manifest, &["train"], |server| {
        let mut forged = manifests::decode(&text, &key(&JOBS[2])).unwrap();
        forged.fields[0].value = "other".into();
        server.write(&manifest, manifests::encode(&forged));
    });
    check_damage("a manifest with another size", &blob_of(&[7; 5000]), &["train"], |server| {
        let mut forged = manifests::decode(&text, &key(&JOBS[2])).unwrap();
        forged.outputs.values_mut().for_each(|output| output.size -= 1);
        server.write(&manifest, manifests::encode(&forged));
    });
}

#[test]
fn the_results_of_another_version_are_left_alone() {
    let server = Server::full();
    let name = manifest_name(&key(&JOBS[2]));
    let text = b"{\"format\":9,\"new\":[]}";
    let newer = [text.as_slice(), format!("\n\"{}\"\n", Digest::of(text)).as_bytes()].concat();
    server.write(&name, newer.clone());
    let there = Project::with(&[]);
    let pulled = there.pull(&server.remote()).unwrap();
    assert_eq!((pulled.results_n, pulled.other_version_n, pulled.warnings.len()), (3, 1, 0));
    let here = Project::with(&JOBS);
    let pushed = here.push_with(&server.remote(), PushOptions { dry_run: false, verify: true }).unwrap();
    assert_eq!((pushed.other_version_n, pushed.warnings.len()), (1, 0));
    assert_eq!(server.read(&name).unwrap(), newer);
}

#[test]
fn strangers_in_the_lists_are_ignored() {
    let server = Server::full();
    for name in ["manifests/readme.txt", "manifests/ab/x.json", "manifests/ab/cd/e.json", "blobs/zz/zz"] {
        server.write(name, b"hello".to_vec());
    }
    let misplaced = format!("manifests/00/{}", manifest_name(&key(&JOBS[0])).rsplit_once('/').unwrap().1);
    server.write(&misplaced, b"hello".to_vec());
    let there = Project::with(&[]);
    assert_eq!(there.pull(&server.remote()).unwrap().warnings, Vec::<String>::new());
    assert_eq!(there.hits(), all_names());
}

#[test]
fn what_is_not_a_remote_is_never_written_to() {
    let here = Project::with(&JOBS);
    for (name, text, found) in [
        ("format", "ecgpipe-remote 2\n", "ecgpipe-remote 2"),
        ("format", "ecgpipe-store 1\n", "ecgpipe-store 1"),
        ("format", "", "\"\""),
        ("letter.txt", "dear reader", "letter.txt"),
        ("photos/1.jpg", "x", "photos"),
    ] {
        let server = Server::new();
        server.write(name, text);
        let error = here.push(&server.remote()).unwrap_err();
        assert!(error.to_string().contains(found) && error.help().is_some(), "{error}");
        assert_eq!(server.names("").len(), 1, "{name}");
    }
}

#[test]
fn several_writers_at_once_agree() {
    for weakness in [Verdict::Go, Verdict::Ignore, Verdict::Refuse] {
        let server = Server::new();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for cpu_ms in 0..4 {
                let (server, start) = (&server, &start);
                scope.spawn(move || {
                    let here = Project::with(&[]);
                    JOBS.iter().for_each(|job| publish(&here.store, job, cpu_ms));
                    here.store.flush().unwrap();
                    let remote = server.hooked(move |_, _| weakness);
                    start.wait();
                    let pushed = here.push(&remote).unwrap();
                    assert_eq!((pushed.conflicts.len(), pushed.warnings.len()), (0, 0), "{pushed:?}");
                    assert_eq!(pushed.results_n + pushed.present_n, JOBS.len());
                });
            }
        });
        check_sound(&server);
        assert_eq!(server.names(MANIFESTS).len(), JOBS.len());
    }
}

const OTHER_TRAIN: Job = ("train", &[("model", &[8; 5000])]);

#[test]
fn a_stage_that_is_not_deterministic_is_named_and_overwrites_nothing() {
    for weakness in [Verdict::Go, Verdict::Ignore] {
        let server = Server::full();
        let other = Project::with(&[JOBS[0], OTHER_TRAIN]);
        for verify in [false, true] {
            let remote = server.hooked(move |_, _| weakness);
            let pushed = other.push_with(&remote, PushOptions { dry_run: false, verify }).unwrap();
            let [conflict] = &pushed.conflicts[..] else { panic!("{pushed:?}") };
            assert_eq!((conflict.stage.as_str(), &conflict.outputs), ("train", &vec!["model".to_owned()]));
            assert_eq!((pushed.results_n, pushed.present_n), (0, 1));
        }
        check_sound(&server);
        assert_eq!(server.names(BLOBS).len(), BLOBS_N, "nor are its bytes of use to anybody");
    }
}

#[test]
fn of_two_results_sent_at_once_one_wins_and_the_other_is_told() {
    for _ in 0..20 {
        let server = Server::new();
        server.remote().prepare().unwrap();
        let (start, conflicts_n) = (Barrier::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for job in [JOBS[2], OTHER_TRAIN] {
                let (server, start, conflicts_n) = (&server, &start, &conflicts_n);
                scope.spawn(move || {
                    let (here, remote) = (Project::with(&[job]), server.remote());
                    start.wait();
                    conflicts_n.fetch_add(here.push(&remote).unwrap().conflicts.len(), Ordering::SeqCst);
                });
            }
        });
        assert_eq!(conflicts_n.into_inner(), 1);
        let there = Project::with(&[]);
        assert_eq!(there.pull(&server.remote()).unwrap().warnings, Vec::<String>::new());
    }
}

#[test]
fn a_store_that_keeps_no_promise_is_found_out() {
    for (verdict, honest) in
        [(Verdict::Go, true), (Verdict::Ignore, false), (Verdict::Race, false), (Verdict::Refuse, false)]
    {
        let server = Server::new();
        let remote = server.hooked(move |_, _| verdict);
        assert_eq!(remote.prepare().unwrap(), honest, "{verdict:?}");
        assert_eq!(remote.prepare().unwrap(), honest, "{verdict:?}, when the remote is there already");
        assert_eq!(server.read(FORMAT_OBJECT).unwrap(), format_text());
        assert!(server.names(PROBE).is_empty());
    }
    // Who may not remove can push all the same.
    let server = Server::new();
    let no_delete = |operation, _: &str| if operation == Operation::Delete { Verdict::Fail } else { Verdict::Go };
    assert!(server.hooked(no_delete).prepare().unwrap());
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let (server, here) = (Server::new(), Project::with(&JOBS));
    let hex = Digest::of(b"fine").to_hex();
    std::fs::write(here.store.root().join("blobs").join(&hex[..2]).join(&hex), "fime").unwrap();
    let pushed = here.push(&server.remote()).unwrap();
    assert_eq!((pushed.results_n, pushed.warnings.len()), (3, 1));
    assert!(pushed.warnings[0].contains("damaged"), "{:?}", pushed.warnings);
    check_sound(&server);
}

#[test]
fn what_somebody_computes_just_now_is_left_to_them() {
    let server = Server::full();
    let there = Project::with(&[]);
    let lock = there.store.lock(&key(&JOBS[2]), || ()).unwrap();
    let pulled = there.pull(&server.remote()).unwrap();
    assert_eq!((pulled.results_n, pulled.busy_n), (3, 1));
    drop(lock);
    assert_eq!(there.pull(&server.remote()).unwrap().results_n, 1);
}

#[test]
fn a_pull_repairs_a_store_and_uses_the_blobs_that_it_has() {
    let server = Server::full();
    let there = Project::with(&[JOBS[1], JOBS[2]]);
    let hex = Digest::of(&[7; 5000]).to_hex();
    std::fs::remove_file(there.store.root().join("blobs").join(&hex[..2]).join(&hex)).unwrap();
    let pulled = there.pull(&server.remote()).unwrap();
    // `ingest` shares a blob with `window`, which is here; of `train` only the blob was lost.
    assert_eq!((pulled.results_n, pulled.present_n, pulled.blobs_n), (3, 1, 2));
    assert_eq!(there.hits(), all_names());
}

#[test]
fn a_run_finds_results_in_its_remote() {
    let server = Server::full();
    let mut there = Project::with(&[]);
    there.store.attach(ReadThrough::on(server.remote()));
    let warn = |text: String| panic!("{text}");
    for job in &JOBS {
        assert_eq!(there.store.peek_remote(&key(job), &warn).unwrap().stage, job.0);
        assert!(there.store.lookup(&key(job)).unwrap().hit().is_none(), "a peek brings nothing");
        let fetched = there.store.fetch(&key(job), &warn).unwrap();
        assert_eq!(there.store.lookup(&key(job)).unwrap(), Lookup::Hit(fetched));
    }
    assert_eq!(there.store.fetch(&Key::from_bytes([9; 32]), &warn), None);
    assert_eq!(there.hits(), all_names());
    let summary = there.store.remote().unwrap().summary().unwrap();
    assert_eq!((summary.results_n, summary.bytes, summary.empty), (4, 5015, false));
}

#[test]
fn a_remote_that_fails_is_given_up_with_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    std::fs::create_dir(folder.path().join("home")).unwrap();
    std::fs::write(folder.path().join("home/letter.txt"), "x").unwrap();
    let in_folder = |name: &str| ReadThrough::new(&folder.path().join(name).display().to_string()).unwrap();
    let server = Server::full();
    let asked_n = Arc::new(AtomicUsize::new(0));
    let verdict = |verdict| {
        let asked_n = Arc::clone(&asked_n);
        let patience = Patience { base: Duration::from_millis(20), bytes_per_s: 1 << 30, retry_n: 0 };
        let hook: Hook = Box::new(move |_, _| {
            asked_n.fetch_add(1, Ordering::SeqCst);
            verdict
        });
        let inner = Arc::clone(&server.0) as Arc<dyn ObjectStore>;
        ReadThrough::on(remote_on(Arc::new(Hooked { inner, hook, looked: Barrier::new(1) }), patience))
    };
    for (remote, said) in [
        (in_folder("file"), "file"),
        (in_folder("home"), "letter.txt"),
        (verdict(Verdict::Fail), "the cable was pulled"),
        (verdict(Verdict::Hang), "no answer within"),
    ] {
        let mut there = Project::with(&[]);
        there.store.attach(remote);
        let warnings = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for job in &JOBS {
                let (store, warnings) = (&there.store, &warnings);
                scope.spawn(move || assert_eq!(store.fetch(&key(job), &|text| guard(warnings).push(text)), None));
            }
        });
        for job in &JOBS {
            assert_eq!(there.store.peek_remote(&key(job), &|text| guard(&warnings).push(text)), None);
        }
        let warnings = guard(&warnings);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(said) && warnings[0].contains("goes on without"), "{warnings:?}");
        assert!(there.store.remote().unwrap().is_given_up());
        assert_eq!(there.hits(), Vec::<&str>::new());
    }
    assert!(asked_n.load(Ordering::SeqCst) <= 2 * JOBS.len(), "it is not asked again");

    // Where nothing is yet, nothing is wrong.
    let mut there = Project::with(&[]);
    there.store.attach(in_folder("nothing-here"));
    assert_eq!(there.store.fetch(&key(&JOBS[0]), &|text| panic!("{text}")), None);
    assert!(there.store.remote().unwrap().summary().unwrap().empty);
}

#[test]
fn transfers_stay_within_their_room() {
    let room = Room::new(10);
    let most = AtomicUsize::new(0);
    let held = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for bytes in [3, 7, 10, 25] {
                    let taken = room.take(bytes);
                    let now = held.fetch_add(taken.bytes as usize, Ordering::SeqCst) + taken.bytes as usize;
                    most.fetch_max(now, Ordering::SeqCst);
                    held.fetch_sub(taken.bytes as usize, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(most.into_inner() <= 10);
    assert_eq!(*guard(&room.free), 10);
}

/// An S3 server that plays its lines, one a connection: `None` hangs up. Gives the heads of the requests.
fn play(lines: Vec<Option<&'static str>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for line in lines {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).unwrap());
            if let Some(line) = line {
                stream.write_all(line.as_bytes()).unwrap();
            }
        }
        heads
    });
    (url, thread)
}

fn s3(endpoint: &str, retry_n: usize) -> Objects {
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_access_key_id("id")
        .with_secret_access_key("hush")
        .with_retry(RetryConfig { max_retries: retry_n, ..RetryConfig::default() })
        .with_http_connector(http::Connector::new(1))
        .build()
        .unwrap();
    Objects::on("s3://bucket", Arc::new(store), Path::default(), QUICK).unwrap()
}

#[test]
fn a_connection_that_breaks_is_tried_again() {
    let sorry = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nLast-Modified: Mon, 23 Nov 2026 08:00:00 GMT\r\nETag: \"x\"\r\n\r\nhel";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nLast-Modified: Mon, 23 Nov 2026 08:00:00 GMT\r\nETag: \"x\"\r\n\
                 Connection: close\r\n\r\nhello";
    let (url, server) = play(vec![None, Some(sorry), Some(cut), Some(whole)]);
    assert_eq!(s3(&url, 5).get("blobs/ab/c", 5, 5).unwrap(), Fetched::Bytes(Bytes::from_static(b"hello")));
    let heads = server.join().unwrap();
    assert_eq!(heads.len(), 4);
    for head in heads {
        assert!(head.starts_with("GET /bucket/blobs/ab/c HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("AWS4-HMAC-SHA256 Credential=id/") && !head.contains("hush"), "{head}");
    }
}

#[test]
fn a_server_that_refuses_is_named_with_advice_and_without_secrets() {
    let denied = "HTTP/1.1 403 Forbidden\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
                  <Error><Code>AccessDenied</Code><Message>No way.</Message></Error>";
    let (url, server) = play(vec![Some(denied)]);
    let error = s3(&url, 0).put("format", Bytes::from_static(b"x")).unwrap_err();
    server.join().unwrap();
    let text = error.to_string();
    assert!(text.contains("write s3://bucket/format") && text.contains("AccessDenied (No way.)"), "{text}");
    assert!(!text.contains("hush") && !text.contains('<'), "{text}");
    assert!(error.help().unwrap().contains("AWS_ACCESS_KEY_ID"), "{:?}", error.help());

    // Nobody listens there any more.
    let error = s3(&url, 1).get("format", 0, 10).unwrap_err();
    assert!(error.to_string().contains("read s3://bucket/format") && error.help().is_some(), "{error}");
}

#[test]
fn parallel_results_keep_their_order() {
    let items: Vec<usize> = (0..100).collect();
    assert_eq!(in_parallel(&items, |item| Ok(item * 2)).unwrap(), (0..200).step_by(2).collect::<Vec<_>>());
    let failed = in_parallel(&items, |item| match item {
        50 => Err(RemoteError::Absent { url: "x".into() }),
        item => Ok(*item),
    });
    assert!(failed.is_err());
    let by_name: BTreeMap<&str, usize> = BTreeMap::new();
    assert!(in_parallel(&by_name.into_iter().collect::<Vec<_>>(), |_| Ok(())).unwrap().is_empty());
}
