//! A run beside a remote cache that others fill.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ecgpipe::{event::Event, event::RunStatus, store::Store};

use crate::project::{ALL_BODIES, Options, Project};

/// A project that has run, and a remote to which it has pushed.
struct Shared {
    first: Project,
    folder: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let shared = Self { first: Project::new(), folder: tempfile::tempdir().unwrap() };
        assert_eq!(shared.first.run().bodies, ALL_BODIES);
        assert_eq!(shared.first.push(&shared.url()).results_n, 14);
        shared
    }

    fn url(&self) -> String {
        self.folder.path().join("remote").display().to_string()
    }

    fn options(&self) -> Options {
        Options { remote: Some(self.url()), ..Options::default() }
    }

    /// The object of a blob.
    fn blob(&self, output: &str) -> PathBuf {
        let hex = self.first.run().digests[output].to_hex();
        self.folder.path().join("remote/blobs").join(&hex[..2]).join(hex)
    }
}

fn results_n(store: &Path) -> usize {
    Store::open_read_only(store).unwrap().keys().unwrap().len()
}

#[test]
fn a_fresh_clone_with_a_shared_remote_computes_nothing() {
    let shared = Shared::new();
    for jobs in [1, 4] {
        let clone = Project::new();
        let planned = clone.run_with(&Options { dry_run: true, ..shared.options() });
        assert_eq!((planned.counts.hits, planned.counts.skipped), (14, 0), "a plan knows");
        assert_eq!(results_n(&clone.store_folder()), 0, "and brings nothing");

        let ran = clone.run_with(&Options { jobs, ..shared.options() });
        assert_eq!(ran.bodies, "");
        assert_eq!((ran.counts.hits, ran.counts.computed), (14, 0));
        let first = shared.first.run();
        assert_eq!(ran.digests, first.digests);
        assert_eq!((ran.metrics(), ran.warnings()), (first.metrics(), first.warnings()));
        assert!(ran.report.jobs.iter().all(|job| job.why.is_none()), "a hit needs no reason");
        assert!(!ran.events.iter().any(|event| matches!(event, Event::Miss { .. } | Event::Started { .. })));

        // What was brought is here now.
        let again = clone.run();
        assert_eq!((again.bodies.as_str(), again.counts.hits), ("", 14));
    }
}

#[test]
fn only_what_the_remote_lacks_is_computed_and_explained() {
    let shared = Shared::new();
    let mut clone = Project::new();
    clone.write("b", "other text");
    clone.edit("uses: label", "uses: label, with: {remark: x}");
    let ran = clone.run_with(&shared.options());
    assert_eq!(ran.bodies, "join label[a] label[b] label[c] noise[b] read_text[b] score tidy[b]");
    assert_eq!(ran.why("join").unwrap(), "not computed before");
    assert_eq!(ran.digests, clone.run_fresh(1).digests);
    let misses = ran.events.iter().filter(|event| matches!(event, Event::Miss { .. })).count();
    assert_eq!(misses, 8, "each is said once");
}

#[test]
fn a_lost_blob_comes_back_from_the_remote() {
    let shared = Shared::new();
    let digest = shared.first.run().digests["tidy[b].text"];
    fs::remove_file(shared.first.blob_path(&digest)).unwrap();
    let ran = shared.first.run_with(&shared.options());
    assert_eq!((ran.bodies.as_str(), ran.counts.hits), ("", 14));
}

#[test]
fn what_is_forced_is_computed() {
    let shared = Shared::new();
    let clone = Project::new();
    let ran = clone.run_with(&Options { force: vec!["join"], ..shared.options() });
    assert_eq!(ran.bodies, "join");
}

#[test]
fn a_damaged_remote_costs_one_body_and_a_warning_each() {
    let shared = Shared::new();
    let (flipped, missing) = (shared.blob("tidy[b].text"), shared.blob("score.text"));
    let mut bytes = fs::read(&flipped).unwrap();
    bytes[0] ^= 1;
    fs::write(&flipped, bytes).unwrap();
    fs::remove_file(&missing).unwrap();
    let clone = Project::new();
    let ran = clone.run_with(&shared.options());
    assert_eq!(ran.bodies, "score tidy[b]");
    assert_eq!(ran.status, RunStatus::Finished);
    assert_eq!(ran.digests, shared.first.run().digests);
    let warnings: BTreeMap<String, usize> = ran.warnings().into_iter().fold(BTreeMap::new(), |mut by, warning| {
        *by.entry(warning.split(':').next().unwrap().to_owned()).or_default() += 1;
        by
    });
    assert_eq!(warnings.get("tidy[b]"), Some(&1), "{:?}", ran.warnings());
    assert!(ran.warnings().iter().any(|text| text.contains(flipped.file_name().unwrap().to_str().unwrap())));
    assert!(ran.warnings().iter().any(|text| text.contains(missing.file_name().unwrap().to_str().unwrap())));
}

#[test]
fn a_run_goes_on_without_a_remote_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear reader").unwrap();
    for dry_run in [true, false] {
        let project = Project::new();
        let expected = project.run_fresh(1);
        let remote = Some(folder.path().display().to_string());
        let ran = project.run_with(&Options { remote, jobs: 4, dry_run, ..Options::default() });
        let about = |text: &&String| text.contains("letter.txt") && text.contains("goes on without");
        assert_eq!(ran.warnings().iter().filter(about).count(), 1, "{:?}", ran.warnings());
        assert_eq!(ran.status, RunStatus::Finished);
        if !dry_run {
            assert_eq!(ran.bodies, ALL_BODIES);
            assert_eq!(ran.digests, expected.digests);
        }
    }
}
