//! Owns what is known of earlier runs: which keys each stage had for each record, from the run folders and the manifests
//! of the store; and from that, the answer to why a job is computed now.
//!
//! A miss is explained against the earlier key of the same stage (and record) from which it differs in the fewest fields,
//! the latest of equals, whatever the node, the pipeline or the run was called. An input that changed is followed to the
//! job that gave it, and on to the changes that nothing further up explains.
//!
//! It is asked on misses only, and what it reads is bounded: run folders until [`MOST_BYTES`], manifests until
//! [`MOST_READS_N`]. Where no run folder knows a stage and record (a shared cache, a run that was killed), the manifests
//! that were used last are searched, once and at most [`MOST_SCANNED_N`]. Beyond that explanations get shorter, never wrong: a key is compared with fewer earlier ones, and an
//! input is named without its cause.
//!
//! Invariant: without an earlier run, a miss costs no manifest read (`without_a_past_nothing_is_read`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use ecgpipe_sdk::RecordId;
use serde::Deserialize;

use crate::{
    digest::{Digest, Key, KeyField},
    engine::{Asked, Giver},
    event::JobName,
    explain::{Cause, Difference, Why, differences, distance},
    store::{Lookup, Manifest, Store},
    track::run_folder::{self, RunFile},
};

/// Bytes of `jobs.json` that are read, the latest runs of the pipeline first: some 0.1 s of CPU time.
const MOST_BYTES: u64 = 16 << 20;
/// Manifests that are read beyond one a miss; each costs about 30 us.
const MOST_READS_N: usize = 4000;
/// Manifests that are searched for what no run folder knows.
const MOST_SCANNED_N: usize = 1000;
/// Earlier keys of one stage and record that are looked at.
const MOST_KEYS_N: usize = 8;
/// Causes that are kept of one miss.
const MOST_CAUSES_N: usize = 8;

/// Earlier runs, read when the first miss asks.
pub struct History {
    runs: PathBuf,
    pipeline: String,
    /// From the run folders.
    recorded: OnceLock<Past>,
    /// From the store.
    stored: OnceLock<Past>,
    state: Mutex<State>,
}

/// What was computed before: by stage and record, the latest first.
#[derive(Default)]
struct Past(BTreeMap<String, BTreeMap<Option<RecordId>, Vec<Earlier>>>);

#[derive(Clone)]
struct Earlier {
    key: Key,
    outputs: Vec<Digest>,
}

struct State {
    reads_left_n: usize,
    /// What was found for the jobs that were explained already: what their nearest earlier one gave, and what changed.
    explained: BTreeMap<Key, Explained>,
}

struct Explained {
    earlier_outputs: Vec<Digest>,
    causes: Arc<Vec<Cause>>,
}

/// What of a `jobs.json` entry matters here.
#[derive(Deserialize)]
struct JobLine {
    job: JobName,
    uses: String,
    key: Key,
    outputs: BTreeMap<String, Digest>,
}

impl History {
    /// The history in a folder of runs; where not all can be read, those of this pipeline go first.
    #[must_use]
    pub fn new(runs: &Path, pipeline: &str) -> Self {
        let state = State { reads_left_n: MOST_READS_N, explained: BTreeMap::new() };
        let (runs, pipeline) = (runs.to_owned(), pipeline.to_owned());
        Self { runs, pipeline, recorded: OnceLock::new(), stored: OnceLock::new(), state: Mutex::new(state) }
    }

    /// Why a job has to be computed whose key the store does not know.
    #[must_use]
    pub fn why(&self, asked: &Asked<'_>) -> Why {
        let record = asked.job.record.as_ref();
        let earlier = self.earlier(asked.store, asked.stage, record);
        if earlier.iter().any(|earlier| earlier.key == *asked.key) {
            return Why::Gone;
        }
        let Some((nearest, manifest)) = self.nearest(asked.store, asked.fields, earlier) else {
            let other = record.filter(|_| earlier.is_empty()).and_then(|_| self.of_other_record(asked));
            let Some(other) = other else { return Why::New };
            let of_record = |one: &Difference| {
                one.field == "record" || one.field.starts_with("source.") || one.field.starts_with("input.")
            };
            let mut differences = differences(&other.fields, asked.fields);
            differences.retain(|one| !of_record(one));
            return Why::NewRecord { differences };
        };
        let differences = differences(&manifest.fields, asked.fields);
        let causes = self.causes(asked, asked.job, &differences);
        self.remember(asked.job, asked.key, nearest.outputs.clone(), &differences, &causes);
        Why::Changed { differences, causes }
    }

    /// The earlier keys of a stage and record, the latest first.
    fn earlier(&self, store: &Store, stage: &str, record: Option<&RecordId>) -> &[Earlier] {
        let recorded = self.recorded.get_or_init(|| Past::recorded(&self.runs, &self.pipeline)).of(stage, record);
        if !recorded.is_empty() {
            return recorded;
        }
        self.stored.get_or_init(|| Past::stored(store)).of(stage, record)
    }

    /// What the stage did last for some other record.
    fn of_other_record(&self, asked: &Asked<'_>) -> Option<Manifest> {
        let pasts = [self.recorded.get(), self.stored.get()].into_iter().flatten();
        let other = pasts.filter_map(|past| past.0.get(asked.stage)?.values().flatten().next()).next()?;
        self.read(asked.store, &other.key)
    }

    /// The earlier key that differs in the fewest fields; of equals, the latest.
    fn nearest<'a>(
        &self,
        store: &Store,
        fields: &[KeyField],
        earlier: &'a [Earlier],
    ) -> Option<(&'a Earlier, Manifest)> {
        let mut best: Option<(usize, &Earlier, Manifest)> = None;
        for (idx, candidate) in earlier.iter().take(MOST_KEYS_N).enumerate() {
            // The latest is always read: it is the one that a miss has had to cost so far.
            let manifest = if idx == 0 { peek(store, &candidate.key) } else { self.read(store, &candidate.key) };
            let Some(manifest) = manifest else { continue };
            let differing_n = distance(&manifest.fields, fields);
            if best.as_ref().is_none_or(|(best_n, _, _)| differing_n < *best_n) {
                best = Some((differing_n, candidate, manifest));
            }
            if differing_n <= 1 {
                break;
            }
        }
        best.map(|(_, earlier, manifest)| (earlier, manifest))
    }

    /// What changed further up so that the inputs among `differences` did.
    fn causes(&self, asked: &Asked<'_>, job: &JobName, differences: &[Difference]) -> Vec<Cause> {
        let mut causes = BTreeSet::new();
        for difference in differences.iter().filter(|one| one.is_changed_input()) {
            if causes.len() >= MOST_CAUSES_N {
                break;
            }
            let old: Option<Digest> = difference.old.as_ref().and_then(|old| old.parse().ok());
            if let (Some(old), Some(giver)) = (old, (asked.giver)(job, &difference.field)) {
                causes.extend(self.causes_of(asked, &giver, old));
            }
        }
        causes.into_iter().take(MOST_CAUSES_N).collect()
    }

    /// What changed between the earlier job that gave the bytes `old` and the one that gives them now.
    fn causes_of(&self, asked: &Asked<'_>, giver: &Giver, old: Digest) -> Vec<Cause> {
        let known = self
            .state()
            .explained
            .get(&giver.key)
            .and_then(|explained| explained.earlier_outputs.contains(&old).then(|| Vec::clone(&explained.causes)));
        if let Some(known) = known {
            return known;
        }
        let record = giver.job.record.as_ref();
        let earlier =
            self.earlier(asked.store, &giver.stage, record).iter().find(|earlier| earlier.outputs.contains(&old));
        let Some(earlier) = earlier else { return Vec::new() };
        if earlier.key == giver.key {
            let field = "output".to_owned();
            let difference =
                Difference { field, old: Some(old.to_hex()), new: Some("other bytes of one key".to_owned()) };
            return vec![Cause { job: giver.job.clone(), difference }];
        }
        let before = self.read(asked.store, &earlier.key);
        let (Some(before), Some(now)) = (before, self.read(asked.store, &giver.key)) else { return Vec::new() };
        let differences = differences(&before.fields, &now.fields);
        let causes = self.causes(asked, &giver.job, &differences);
        self.remember(&giver.job, &giver.key, earlier.outputs.clone(), &differences, &causes)
    }

    /// Keeps what was found, for the jobs further down; gives the causes that these have.
    fn remember(
        &self,
        job: &JobName,
        key: &Key,
        earlier_outputs: Vec<Digest>,
        differences: &[Difference],
        causes: &[Cause],
    ) -> Vec<Cause> {
        // A changed input is explained by its own causes; where they are not known, it is itself the last that is.
        let own = differences.iter().filter(|one| !one.is_changed_input() || causes.is_empty());
        let own = own.map(|difference| Cause { job: job.clone(), difference: difference.clone() });
        let all: BTreeSet<Cause> = own.chain(causes.iter().cloned()).collect();
        let causes: Vec<Cause> = all.into_iter().take(MOST_CAUSES_N).collect();
        let explained = Explained { earlier_outputs, causes: Arc::new(causes.clone()) };
        self.state().explained.insert(*key, explained);
        causes
    }

    /// Reads a manifest while the bound allows it.
    fn read(&self, store: &Store, key: &Key) -> Option<Manifest> {
        {
            let mut state = self.state();
            state.reads_left_n = state.reads_left_n.checked_sub(1)?;
        }
        peek(store, key)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A manifest for an explanation; one that cannot be read explains nothing.
fn peek(store: &Store, key: &Key) -> Option<Manifest> {
    store.peek(key).ok().and_then(Lookup::hit)
}

impl Past {
    fn recorded(runs: &Path, pipeline: &str) -> Self {
        let mut past = Self::default();
        let mut left = MOST_BYTES;
        for folder in folders(runs, pipeline) {
            let size = fs::metadata(folder.join("jobs.json")).map_or(0, |metadata| metadata.len());
            let Some(rest) = left.checked_sub(size) else { break };
            left = rest;
            // A run that was killed has no such file.
            let jobs = run_folder::read::<Vec<JobLine>>(&folder, "jobs.json").unwrap_or_default();
            for line in jobs.into_iter().filter(|line| !line.outputs.is_empty()) {
                let earlier = Earlier { key: line.key, outputs: line.outputs.into_values().collect() };
                past.add(line.uses, line.job.record, earlier);
            }
        }
        past
    }

    fn stored(store: &Store) -> Self {
        let mut past = Self::default();
        for key in store.recent_keys(MOST_SCANNED_N).unwrap_or_default() {
            let Some(manifest) = peek(store, &key) else { continue };
            let record = manifest.fields.iter().find(|field| field.name == "record");
            let record = record.and_then(|field| RecordId::new(&field.value).ok());
            let outputs = manifest.outputs.values().map(|output| output.digest).collect();
            past.add(manifest.stage, record, Earlier { key, outputs });
        }
        past
    }

    fn add(&mut self, stage: String, record: Option<RecordId>, earlier: Earlier) {
        let known = self.0.entry(stage).or_default().entry(record).or_default();
        if known.iter().all(|known| known.key != earlier.key) {
            known.push(earlier);
        }
    }

    fn of(&self, stage: &str, record: Option<&RecordId>) -> &[Earlier] {
        let known = self.0.get(stage).and_then(|records| records.get(&record.cloned()));
        known.map(Vec::as_slice).unwrap_or_default()
    }
}

/// The run folders, the latest first, those of the pipeline before the others.
fn folders(runs: &Path, pipeline: &str) -> Vec<PathBuf> {
    let mut names: Vec<String> = fs::read_dir(runs)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    // Ids begin with the time.
    names.sort_by(|a, b| b.cmp(a));
    let folders = names.into_iter().map(|name| runs.join(name));
    let of_pipeline =
        |folder: &PathBuf| run_folder::read::<RunFile>(folder, "run.json").is_ok_and(|run| run.pipeline == pipeline);
    let (own, others): (Vec<PathBuf>, Vec<PathBuf>) = folders.partition(of_pipeline);
    own.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::digest::KeyEncoder;

    #[test]
    fn without_a_past_nothing_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let history = History::new(&folder.path().join("runs"), "full");
        let mut encoder = KeyEncoder::new();
        encoder.field("stage", "window").field("input.signals", "ab".repeat(32));
        let (key, fields) = encoder.finish().unwrap();
        for record in 0..100 {
            let job = JobName { node: "windows".to_owned(), record: RecordId::new(&record.to_string()).ok() };
            let giver = |_: &JobName, _: &str| -> Option<Giver> { panic!("no input changed") };
            let asked = Asked { job: &job, stage: "window", key: &key, fields: &fields, store: &store, giver: &giver };
            assert_eq!(history.why(&asked), Why::New);
        }
        assert_eq!(history.state().reads_left_n, MOST_READS_N);
        assert!(history.state().explained.is_empty());
    }
}
