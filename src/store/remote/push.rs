//! From a store to a remote: blobs first, then the manifests that need them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;

use super::objects::Put;
use super::{
    BLOBS, FORMAT_OBJECT, Found, MANIFESTS, PROBE, Progress, Remote, RemoteError, Tell, blob_name, format_text,
    in_parallel, listed_hash, manifest_name,
};
use crate::digest::{Digest, Key};
use crate::store::manifests::{self, Manifest, OutputRef};
use crate::store::{Lookup, Store};

/// Writers that the probe sets against each other.
const RACERS_N: usize = 4;

/// How to push.
#[derive(Debug, Clone, Copy, Default)]
pub struct PushOptions {
    /// Write nothing.
    pub dry_run: bool,
    /// Read what the remote has already, and replace what is damaged.
    pub verify: bool,
}

/// What a push did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PushReport {
    /// Nothing was written.
    pub dry_run: bool,
    /// Results sent.
    pub results_n: usize,
    /// Blobs sent.
    pub blobs_n: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Results that the remote had already.
    pub present_n: usize,
    /// Results that were asked for but are not in the store (any more).
    pub gone_n: usize,
    /// Results that another version has put there; they were left alone.
    pub other_version_n: usize,
    /// Whether the remote can refuse to overwrite; unknown in a dry run. Without that, every result is looked at before
    /// and after it is written.
    pub put_if_absent: Option<bool>,
    /// Results that the remote has with other bytes. They were left alone.
    pub conflicts: Vec<Conflict>,
    /// What is damaged, here or there.
    pub warnings: Vec<String>,
}

/// One key, two results: the stage is not deterministic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The stage.
    pub stage: String,
    /// The key.
    pub key: Key,
    /// The outputs that differ.
    pub outputs: Vec<String>,
}

/// What has to be done for a result.
enum Need {
    Nothing,
    Blobs,
    BlobsAndManifest,
    /// What is there under the key is damaged.
    Replacement(String),
    Other,
    Conflict(Conflict),
}

/// What became of a manifest.
enum Placed {
    Written,
    Present,
    Other,
    Conflict(Conflict),
    Unsound(String),
}

impl Remote {
    /// Sends the results of `keys`, as far as the remote does not have them.
    ///
    /// # Errors
    /// If the remote cannot be reached or read, or the store fails. What was sent until then stays, and is not sent again.
    pub fn push(
        &self,
        store: &Store,
        keys: &BTreeSet<Key>,
        options: PushOptions,
        tell: Tell<'_>,
    ) -> Result<PushReport, RemoteError> {
        let mut report = PushReport { dry_run: options.dry_run, ..PushReport::default() };
        if options.dry_run {
            self.has_format()?;
        } else {
            report.put_if_absent = Some(self.prepare()?);
        }
        let mut local = Vec::new();
        for key in keys {
            match store.lookup(key)? {
                Lookup::Hit(manifest) => local.push(manifest),
                Lookup::Miss(miss) => {
                    report.gone_n += 1;
                    report.warnings.extend(miss.is_warning().then(|| miss.to_string()));
                }
            }
        }
        let mut there = self.inventory()?;
        if options.verify {
            self.drop_damaged(&local, &mut there, &mut report)?;
        }

        let needs = in_parallel(&local, |manifest| self.need(manifest, &there, options.verify))?;
        let mut blobs: BTreeMap<Digest, &OutputRef> = BTreeMap::new();
        let mut wanted = Vec::new();
        for (manifest, need) in local.iter().zip(needs) {
            match need {
                Need::Nothing => {
                    report.present_n += 1;
                    continue;
                }
                Need::Other => {
                    report.other_version_n += 1;
                    continue;
                }
                Need::Conflict(conflict) => {
                    report.conflicts.push(conflict);
                    continue;
                }
                Need::Blobs => wanted.push((manifest, false, false)),
                Need::BlobsAndManifest => wanted.push((manifest, true, false)),
                Need::Replacement(warning) => {
                    report.warnings.push(format!("{warning}; it is replaced"));
                    wanted.push((manifest, true, true));
                }
            }
            let missing = manifest.outputs.values().filter(|output| !there.has(output));
            blobs.extend(missing.map(|output| (output.digest, output)));
        }
        if options.dry_run {
            report.results_n = wanted.len();
            report.blobs_n = blobs.len();
            report.bytes = blobs.values().map(|output| output.size).sum();
            return Ok(report);
        }

        let blobs: Vec<&OutputRef> = blobs.into_values().collect();
        let unread = self.send_blobs(store, &blobs, &mut report, tell)?;
        wanted.retain(|(manifest, ..)| !manifest.outputs.values().any(|output| unread.contains(&output.digest)));
        let guarded = report.put_if_absent == Some(true);
        let (done_n, total_n) = (AtomicUsize::new(0), wanted.len());
        let placed = in_parallel(&wanted, |(manifest, whole, replace)| {
            let placed = if *whole { self.place(manifest, *replace, guarded)? } else { Placed::Written };
            let done_n = done_n.fetch_add(1, Ordering::Relaxed) + 1;
            tell(Progress { unit: "results", done_n, total_n, bytes: 0 });
            Ok(placed)
        })?;
        for placed in placed {
            match placed {
                Placed::Written => report.results_n += 1,
                Placed::Present => report.present_n += 1,
                Placed::Other => report.other_version_n += 1,
                Placed::Conflict(conflict) => report.conflicts.push(conflict),
                Placed::Unsound(warning) => report.warnings.push(warning),
            }
        }
        Ok(report)
    }

    /// Makes the remote if there is none, and finds out whether it can refuse to overwrite.
    ///
    /// The format object is written again with the bytes that it has: a store that honours put-if-absent refuses, and one
    /// that ignores it changes nothing. Some check honestly but lose races, so several writers then write one new object
    /// at once, of whom just one may win.
    pub(super) fn prepare(&self) -> Result<bool, RemoteError> {
        if !self.has_format()? {
            // Several may do this at once: they write the same.
            self.objects.put(FORMAT_OBJECT, format_text())?;
        }
        match self.objects.put_new(FORMAT_OBJECT, format_text()) {
            Ok(Put::Exists) => {}
            Ok(Put::Written) => return Ok(false),
            Err(_) => {
                // It knows no conditions, or does not let us write at all: then this fails too, with the plainer reason.
                self.objects.put(FORMAT_OBJECT, format_text())?;
                return Ok(false);
            }
        }
        let name = format!("{PROBE}/{}", unique());
        let racers: Vec<usize> = (0..RACERS_N).collect();
        let won = in_parallel(&racers, |racer| self.objects.put_new(&name, Bytes::from(format!("{racer}\n"))));
        // Who may not remove leaves an object of two bytes.
        let _ = self.objects.delete(&name);
        Ok(won?.iter().filter(|put| **put == Put::Written).count() == 1)
    }

    fn inventory(&self) -> Result<Inventory, RemoteError> {
        let folders = [BLOBS, MANIFESTS];
        let mut listed = in_parallel(&folders, |folder| self.objects.list(folder))?;
        let (manifests, blobs) = (listed.pop().unwrap_or_default(), listed.pop().unwrap_or_default());
        let manifests = manifests.keys().filter_map(|name| listed_hash(name, ".json")).map(Key::from_bytes).collect();
        let blobs = blobs
            .into_iter()
            .filter_map(|(name, size)| Some((Digest::from_bytes(listed_hash(&name, "")?), size)))
            .collect();
        Ok(Inventory { manifests, blobs })
    }

    /// Reads the blobs that `local` needs and the remote has, and strikes the damaged ones from the inventory.
    fn drop_damaged(
        &self,
        local: &[Manifest],
        there: &mut Inventory,
        report: &mut PushReport,
    ) -> Result<(), RemoteError> {
        let needed: BTreeMap<Digest, &OutputRef> =
            local.iter().flat_map(|manifest| manifest.outputs.values()).map(|output| (output.digest, output)).collect();
        let present: Vec<&OutputRef> = needed.into_values().filter(|output| there.has(output)).collect();
        let damaged = in_parallel(&present, |output| {
            let _room = self.room.take(output.size);
            Ok(self.blob(output)?.err().map(|warning| (output.digest, warning)))
        })?;
        for (digest, warning) in damaged.into_iter().flatten() {
            there.blobs.remove(&digest);
            report.warnings.push(format!("{warning}; it is replaced"));
        }
        Ok(())
    }

    fn need(&self, manifest: &Manifest, there: &Inventory, verify: bool) -> Result<Need, RemoteError> {
        let complete = manifest.outputs.values().all(|output| there.has(output));
        if !there.manifests.contains(&manifest.key) {
            return Ok(Need::BlobsAndManifest);
        }
        if complete && !verify {
            return Ok(Need::Nothing);
        }
        // Either blobs were lost there, or the manifest names others: the stage gave other bytes to somebody else.
        Ok(match self.manifest(&manifest.key)? {
            Found::Absent => Need::BlobsAndManifest,
            Found::OtherVersion => Need::Other,
            Found::Damaged(warning) => Need::Replacement(warning),
            Found::Manifest(other) => match conflict(manifest, &other) {
                Some(conflict) => Need::Conflict(conflict),
                None if manifest.outputs != other.outputs => {
                    let address = self.objects.address(&manifest_name(&manifest.key));
                    Need::Replacement(format!("{address} has the right digests with wrong sizes, kinds or rows"))
                }
                None if complete => Need::Nothing,
                None => Need::Blobs,
            },
        })
    }

    /// Sends blobs; gives those that the store could not read.
    fn send_blobs(
        &self,
        store: &Store,
        blobs: &[&OutputRef],
        report: &mut PushReport,
        tell: Tell<'_>,
    ) -> Result<BTreeSet<Digest>, RemoteError> {
        let (done_n, bytes, total_n) = (AtomicUsize::new(0), AtomicU64::new(0), blobs.len());
        let sent = in_parallel(blobs, |output| {
            let _room = self.room.take(output.size);
            let content = match store.read(output) {
                Ok(content) => content,
                Err(error) => return Ok(Some((output.digest, error.to_string()))),
            };
            // Its name is its digest, so whoever else writes it writes the same.
            self.objects.put(&blob_name(&output.digest), content)?;
            let bytes = bytes.fetch_add(output.size, Ordering::Relaxed) + output.size;
            let done_n = done_n.fetch_add(1, Ordering::Relaxed) + 1;
            tell(Progress { unit: "blobs", done_n, total_n, bytes });
            Ok(None)
        })?;
        let mut unread = BTreeSet::new();
        for (digest, warning) in sent.into_iter().flatten() {
            report.warnings.push(format!("{warning}; what needs it was not sent"));
            unread.insert(digest);
        }
        report.blobs_n = done_n.into_inner();
        report.bytes = bytes.into_inner();
        Ok(unread)
    }

    /// Writes a manifest whose blobs are there. `guarded` says that the remote refuses to overwrite. Where it does not, the
    /// manifest is looked for just before and just after, so that two writers with different results find each other out.
    fn place(&self, manifest: &Manifest, replace: bool, guarded: bool) -> Result<Placed, RemoteError> {
        let name = manifest_name(&manifest.key);
        let text = Bytes::from(manifests::encode(manifest));
        let written = if replace || (!guarded && matches!(self.manifest(&manifest.key)?, Found::Absent)) {
            self.objects.put(&name, text.clone())?;
            true
        } else {
            guarded && self.objects.put_new(&name, text.clone())? == Put::Written
        };
        if written && guarded {
            return Ok(Placed::Written);
        }
        Ok(match self.manifest(&manifest.key)? {
            Found::Manifest(other) => match conflict(manifest, &other) {
                Some(conflict) => Placed::Conflict(conflict),
                None if written => Placed::Written,
                None => Placed::Present,
            },
            Found::OtherVersion => Placed::Other,
            Found::Damaged(_) if !written => {
                self.objects.put(&name, text)?;
                Placed::Written
            }
            Found::Damaged(warning) => Placed::Unsound(warning),
            Found::Absent => Placed::Unsound(format!("{} was written but is not there", self.objects.address(&name))),
        })
    }
}

/// What a remote has, by its lists.
struct Inventory {
    manifests: BTreeSet<Key>,
    /// With their sizes.
    blobs: BTreeMap<Digest, u64>,
}

impl Inventory {
    fn has(&self, output: &OutputRef) -> bool {
        self.blobs.get(&output.digest) == Some(&output.size)
    }
}

/// How two results of one key differ, if they do.
fn conflict(ours: &Manifest, theirs: &Manifest) -> Option<Conflict> {
    let digest = |manifest: &Manifest, name| manifest.outputs.get(name).map(|output| output.digest);
    let names: BTreeSet<_> = ours.outputs.keys().chain(theirs.outputs.keys()).collect();
    let differing = names.into_iter().filter(|name| digest(ours, name) != digest(theirs, name));
    let outputs: Vec<String> = differing.map(ToString::to_string).collect();
    (!outputs.is_empty()).then(|| Conflict { stage: ours.stage.clone(), key: ours.key, outputs })
}

/// A name that no other probe has; it decides nothing.
fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    Digest::of(format!("{host}\n{}\n{}\n{n}", now.as_nanos(), std::process::id()).as_bytes()).short()
}
