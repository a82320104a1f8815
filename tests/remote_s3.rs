//! The remote cache on a real S3 server.
//!
//! `.ci/s3-server run cargo test --release --test remote_s3` starts one (moto) and sets what is read here: `ECGPIPE_TEST_S3`,
//! the bucket, without which the tests say that they are skipped, and the `AWS_*` variables, which the program reads itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::{collections::BTreeSet, sync::Barrier};

use bytes::Bytes;
use ecgpipe::{
    digest::{Key, KeyEncoder},
    store::{
        Lookup, NewManifest, NewOutput, Store,
        remote::{PushOptions, PushReport, ReadThrough, Remote, RemoteError},
    },
};

/// More results than S3 lists on one page.
const JOB_N: usize = 1010;

/// A prefix of this test's own in the bucket, if there is a server.
fn url(test: &str) -> Option<String> {
    let bucket = std::env::var("ECGPIPE_TEST_S3").unwrap_or_default();
    if bucket.is_empty() {
        eprintln!("skipped: {test}: ECGPIPE_TEST_S3 is not set (.ci/s3-server run ... sets it)");
        return None;
    }
    Some(format!("{bucket}/{test}-{}", std::process::id()))
}

fn publish(store: &Store, name: &str, bytes: &[u8]) -> Key {
    let mut encoder = KeyEncoder::new();
    encoder.field("stage", name);
    let (key, fields) = encoder.finish().unwrap();
    let new = NewManifest {
        stage: name.to_owned(),
        code: "c0de".to_owned(),
        fields,
        cpu_ms: 1,
        wall_ms: 1,
        version: "0.1.0".to_owned(),
        warnings: Vec::new(),
    };
    let content = Bytes::copy_from_slice(bytes).into();
    let output = NewOutput { name: "out".into(), kind: "bytes".to_owned(), rows: None, content };
    store.publish(store.lock(&key, || ()).unwrap(), new, vec![output]).unwrap();
    key
}

struct Project {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { _folder: folder, store }
    }

    fn with(job_n: usize) -> Self {
        let project = Self::new();
        for job in 0..job_n {
            publish(&project.store, &job.to_string(), b"the same bytes");
        }
        project.store.flush().unwrap();
        project
    }

    fn keys(&self) -> BTreeSet<Key> {
        self.store.keys().unwrap()
    }

    fn push(&self, url: &str) -> PushReport {
        let remote = Remote::open_to_push(url, false).unwrap();
        remote.push(&self.store, &self.keys(), PushOptions::default(), &|_| {}).unwrap()
    }
}

#[test]
fn thousands_of_results_travel_once() {
    let Some(url) = url("travel") else { return };
    let here = Project::with(JOB_N);
    publish(&here.store, "large", &vec![7; 20 << 20]);
    publish(&here.store, "empty", b"");
    here.store.flush().unwrap();
    let pushed = here.push(&url);
    assert_eq!((pushed.results_n, pushed.put_if_absent), (JOB_N + 2, Some(true)));
    let again = here.push(&url);
    assert_eq!((again.results_n, again.blobs_n, again.present_n), (0, 0, JOB_N + 2));

    let there = Project::new();
    let remote = Remote::open(&url).unwrap();
    let pulled = remote.pull(&there.store, None, false, &|_| {}).unwrap();
    assert_eq!((pulled.results_n, pulled.warnings.len()), (JOB_N + 2, 0));
    assert_eq!(there.keys(), here.keys());
    for key in here.keys() {
        let Lookup::Hit(manifest) = there.store.lookup(&key).unwrap() else { panic!("{key} was not brought") };
        there.store.read(&manifest.outputs[&"out".into()]).unwrap();
    }
    assert_eq!(remote.pull(&there.store, None, false, &|_| {}).unwrap().present_n, JOB_N + 2);
}

#[test]
fn a_run_finds_results() {
    let Some(url) = url("run") else { return };
    let here = Project::with(3);
    here.push(&url);
    let mut there = Project::new();
    there.store.attach(ReadThrough::new(&url).unwrap());
    for key in here.keys() {
        there.store.fetch(&key, &|text| panic!("{text}")).unwrap();
    }
    assert_eq!(there.store.fetch(&Key::from_bytes([1; 32]), &|text| panic!("{text}")), None);
    there.store.flush().unwrap();
    assert_eq!(there.keys(), here.keys());
}

#[test]
fn of_two_results_of_one_key_the_first_stays() {
    let Some(url) = url("writers") else { return };
    let start = Barrier::new(4);
    let conflicts_n: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer: usize| {
                let (url, start) = (&url, &start);
                scope.spawn(move || {
                    // All agree but for one stage.
                    let here = Project::with(20);
                    publish(&here.store, "random", writer.to_string().as_bytes());
                    here.store.flush().unwrap();
                    start.wait();
                    let pushed = here.push(url);
                    assert_eq!(pushed.results_n + pushed.present_n + pushed.conflicts.len(), 21, "{pushed:?}");
                    assert!(pushed.conflicts.iter().all(|conflict| conflict.stage == "random"));
                    pushed.conflicts.len()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(conflicts_n, 3);
    let there = Project::new();
    let pulled = Remote::open(&url).unwrap().pull(&there.store, None, false, &|_| {}).unwrap();
    assert_eq!((pulled.results_n, pulled.warnings.len()), (21, 0));
}

#[test]
fn a_bucket_or_a_remote_that_is_not_there_is_named() {
    let Some(url) = url("absent") else { return };
    let absent = Remote::open(&url).unwrap_err();
    assert!(matches!(&absent, RemoteError::Absent { url: named } if *named == url), "{absent}");

    let bucket = "s3://ecgpipe-no-such-bucket/x";
    let here = Project::with(1);
    let remote = Remote::open_to_push(bucket, false).unwrap();
    let error = remote.push(&here.store, &here.keys(), PushOptions::default(), &|_| {}).unwrap_err();
    assert!(error.to_string().contains(bucket), "{error}");
    assert!(error.help().unwrap().contains("bucket"), "{error}: {:?}", error.help());
}
