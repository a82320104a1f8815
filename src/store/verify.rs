//! Verification of everything that is stored, and sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::blobs::digest_of;
use super::disk::is_broken;
use super::manifests::{self, Manifest, OutputName};
use super::{CHECKPOINT_FOLDER, Shared, Store, StoreError, read_whole};
use crate::digest::{Digest, Key, KeyEncoder};

/// The result of reading every blob and every manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Manifests read.
    pub manifests_n: u64,
    /// Blobs read.
    pub blobs_n: u64,
    /// Bytes of the blobs read.
    pub bytes: u64,
    /// Blobs that no manifest needs. Not a fault: gc removes them.
    pub unreferenced_n: u64,
    /// What is wrong, sorted by path.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: ProblemKind,
    /// Where a repair has moved it.
    pub quarantined: Option<PathBuf>,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The bytes of a blob are not those of its name.
    Blob {
        /// Their digest.
        found: Digest,
    },
    /// A manifest cannot be used.
    Manifest {
        /// Why.
        reason: String,
    },
    /// The fields of a manifest do not make its key, so its explanation is not that of its result.
    Explanation,
    /// A manifest needs a blob that is not there, or not sound, or of another size.
    Output {
        /// The output.
        name: OutputName,
        /// Its blob.
        digest: Digest,
    },
    /// A file that the store did not put there.
    Stranger,
    /// The operating system refuses to read it.
    Unreadable {
        /// What it says.
        reason: String,
        /// The disk has lost the bytes, so a repair moves the file away.
        lost: bool,
    },
}

impl ProblemKind {
    fn unreadable(error: &StoreError) -> Self {
        let lost = matches!(error, StoreError::Io { source, .. } if is_broken(source));
        Self::Unreadable { reason: error.to_string(), lost }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { found } => write!(f, "the bytes have the digest {}", found.short()),
            Self::Manifest { reason } => f.write_str(reason),
            Self::Explanation => f.write_str("the fields do not make the key"),
            Self::Output { name, digest } => {
                write!(f, "output `{name}` needs the blob {}, which is missing or damaged", digest.short())
            }
            Self::Stranger => f.write_str("this file does not belong to the store"),
            Self::Unreadable { reason, .. } => write!(f, "cannot be read: {reason}"),
        }
    }
}

/// Sizes of what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Manifests.
    pub manifests_n: u64,
    /// Their bytes.
    pub manifest_bytes: u64,
    /// Blobs.
    pub blobs_n: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Bytes of blobs that no manifest needs.
    pub unreferenced_bytes: u64,
    /// Bytes in quarantine.
    pub quarantine_bytes: u64,
    /// Checkpoints of unfinished jobs.
    pub checkpoints_n: u64,
    /// Their bytes.
    pub checkpoint_bytes: u64,
    /// By stage. A blob that two stages need counts in both.
    pub stages: BTreeMap<String, StageSize>,
}

/// What one stage has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StageSize {
    /// Its manifests, one a job.
    pub manifests_n: u64,
    /// Its distinct blobs.
    pub blobs_n: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Reads every blob and every manifest and changes nothing.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        self.shared.verify(false)
    }

    /// Verifies, and moves what is damaged to the quarantine, so that it is computed again when it is needed.
    /// Strangers stay where they are.
    pub fn repair(&self) -> Result<VerifyReport, StoreError> {
        self.shared.writable()?.verify(true)
    }

    /// The sizes of what is stored. Reads the manifests, not the blobs.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        self.shared.stats()
    }
}

impl Shared {
    fn verify(&self, repair: bool) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        let mut problem = |path: PathBuf, kind: ProblemKind| {
            let movable = !matches!(kind, ProblemKind::Stranger | ProblemKind::Unreadable { lost: false, .. });
            let file = if repair && movable { File::open(&path).ok() } else { None };
            let quarantined = file.and_then(|file| self.quarantine(&path, &file));
            report.problems.push(Problem { path, kind, quarantined });
        };
        let mut sound = BTreeMap::new();
        let blobs = self.walk("blobs", "")?;
        for (hash, path) in blobs.ours {
            let digest = Digest::from_bytes(hash);
            match digest_of(&path) {
                Ok((found, byte_n, _)) => {
                    report.blobs_n += 1;
                    report.bytes += byte_n;
                    if found == digest {
                        sound.insert(digest, byte_n);
                    } else {
                        problem(path, ProblemKind::Blob { found });
                    }
                }
                // gc, or a read that found it damaged, was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => problem(path.clone(), ProblemKind::unreadable(&StoreError::io("read", &path, error))),
            }
        }
        let mut needed = BTreeSet::new();
        let manifests = self.walk("manifests", ".json")?;
        for (hash, path) in manifests.ours {
            let text = match read_whole(&path) {
                Ok(Some((_, text))) => text,
                Ok(None) => continue,
                Err(error) => {
                    problem(path, ProblemKind::unreadable(&error));
                    continue;
                }
            };
            report.manifests_n += 1;
            match manifests::decode(&text, &Key::from_bytes(hash)) {
                Err(damage @ manifests::Damage::Format { .. }) => {
                    // Another version's: reported, and left to it.
                    problem(path, ProblemKind::Unreadable { reason: damage.to_string(), lost: false });
                }
                Err(damage) => problem(path, ProblemKind::Manifest { reason: damage.to_string() }),
                Ok(manifest) => {
                    needed.extend(manifest.outputs.values().map(|output| output.digest));
                    // gc may have taken the manifest, then its blobs, since it was read.
                    if let Some(kind) = self.fault(&manifest, &sound)
                        && path.exists()
                    {
                        problem(path, kind);
                    }
                }
            }
        }
        for path in blobs.strangers.into_iter().chain(manifests.strangers) {
            problem(path, ProblemKind::Stranger);
        }
        report.unreferenced_n = sound.keys().filter(|digest| !needed.contains(digest)).count() as u64;
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }

    /// The first thing that is wrong with a manifest that can be read.
    fn fault(&self, manifest: &Manifest, sound: &BTreeMap<Digest, u64>) -> Option<ProblemKind> {
        if KeyEncoder::key_of(&manifest.fields) != Ok(manifest.key) {
            return Some(ProblemKind::Explanation);
        }
        let bad = manifest.outputs.iter().find(|(_, output)| match sound.get(&output.digest) {
            Some(&size) => size != output.size,
            // A run may have published it after the blobs were walked.
            None => !self.is_sound(&output.digest),
        });
        bad.map(|(name, output)| ProblemKind::Output { name: name.clone(), digest: output.digest })
    }

    fn is_sound(&self, digest: &Digest) -> bool {
        matches!(digest_of(&self.blob_path(digest)), Ok((found, ..)) if found == *digest)
    }

    fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = Stats::default();
        let mut by_stage: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
        for (hash, path) in self.walk("manifests", ".json")?.ours {
            let Some((_, text)) = read_whole(&path)? else { continue };
            stats.manifests_n += 1;
            stats.manifest_bytes += text.len() as u64;
            if let Ok(manifest) = manifests::decode(&text, &Key::from_bytes(hash)) {
                stats.stages.entry(manifest.stage.clone()).or_default().manifests_n += 1;
                let digests = by_stage.entry(manifest.stage).or_default();
                digests.extend(manifest.outputs.values().map(|output| output.digest));
            }
        }
        let mut sizes = BTreeMap::new();
        for (hash, path) in self.walk("blobs", "")?.ours {
            let size = size_of(&path);
            sizes.insert(Digest::from_bytes(hash), size);
            stats.blobs_n += 1;
            stats.blob_bytes += size;
        }
        let needed: BTreeSet<&Digest> = by_stage.values().flatten().collect();
        let unreferenced = sizes.iter().filter(|(digest, _)| !needed.contains(digest));
        stats.unreferenced_bytes = unreferenced.map(|(_, size)| size).sum();
        for (stage, digests) in &by_stage {
            let size = stats.stages.entry(stage.clone()).or_default();
            size.blobs_n = digests.len() as u64;
            size.bytes = digests.iter().filter_map(|digest| sizes.get(digest)).sum();
        }
        for path in self.list(&self.root.join("quarantine"))? {
            stats.quarantine_bytes += size_of(&path);
        }
        for path in self.list(&self.root.join(CHECKPOINT_FOLDER))? {
            stats.checkpoints_n += 1;
            stats.checkpoint_bytes += size_of(&path);
        }
        Ok(stats)
    }
}

/// The size of a file; 0 if it has just gone.
fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
