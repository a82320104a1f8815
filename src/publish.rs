//! Owns the files that a run gives to people: `models/`, `plots/` and whatever `publish:` names.
//!
//! A published file is an artifact's bytes with its provenance written into it where its kind has a place for that. A small
//! state file beside the store remembers what was published from which artifact, so that a run which changes nothing
//! writes nothing and reads nothing.
//!
//! Invariant: a target is replaced whole (temporary file, then rename), never half written.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use ecgpipe_sdk::{KindSpec, Provenance};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    store::{OutputRef, PUBLISHED_TEMPORARY_PREFIX as TEMPORARY_PREFIX, ReadError, Store},
    whole_file::{self, Content},
};

/// One artifact to publish.
pub struct Publication<'a> {
    /// Target relative to the project folder.
    pub target: &'a str,
    /// Whether the target is a folder for the artifact's files.
    pub folder: bool,
    /// The artifact's kind.
    pub kind: KindSpec,
    /// The artifact.
    pub output: &'a OutputRef,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// One file that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFile {
    /// Path relative to the project folder.
    pub path: String,
    /// Whether it had to be written.
    pub written: bool,
    /// Length in bytes.
    pub size: u64,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Digest of the artifact that it was made from.
    pub artifact: Digest,
    /// Which of the publications it belongs to.
    pub publication_idx: usize,
}

/// Why a file could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The artifact is gone or damaged.
    #[error("failed to publish {target}: {source}")]
    Read {
        /// The target.
        target: String,
        /// What is wrong.
        source: ReadError,
    },
    /// The artifact does not decode.
    #[error("failed to publish {target}: {message}")]
    Decode {
        /// The target.
        target: String,
        /// What is wrong.
        message: String,
    },
    /// Two artifacts would overwrite each other.
    #[error("failed to publish {path}: both {first} and {second} give it; publish one of them elsewhere")]
    Clash {
        /// The file.
        path: String,
        /// One output.
        first: String,
        /// The other.
        second: String,
    },
    /// The file system refuses.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What was published when, by target.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    format: u32,
    targets: BTreeMap<String, TargetState>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TargetState {
    artifact: Digest,
    provenance: Digest,
    files: BTreeMap<String, FileMark>,
}

/// What a file looked like right after it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileMark {
    size: u64,
    mtime_ns: u64,
    digest: Digest,
}

const FORMAT: u32 = 2;

/// Publishes artifacts under a project folder, in order; what is up to date is left alone.
///
/// # Errors
/// The first file that cannot be written; those before it are in place.
pub fn publish(
    project: &Path,
    store: &Store,
    publications: &[Publication<'_>],
) -> Result<Vec<PublishedFile>, PublishError> {
    let state_path = store.published_path();
    let mut state: State =
        fs::read(&state_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if state.format != FORMAT {
        state = State { format: FORMAT, targets: BTreeMap::new() };
    }
    let (published, changed) = publish_with(&mut state, project, store, publications)?;
    if changed && !store.is_read_only() {
        // Losing this file costs a comparison of bytes the next time, so a failure to write it is no failure.
        let _ = serde_json::to_vec(&state).map(|json| write_whole(store, &state_path, &json));
    }
    Ok(published)
}

/// Publishes artifacts into a folder that is written once, as a run folder is: nothing of it is remembered.
///
/// # Errors
/// As [`publish`].
pub fn publish_copies(
    folder: &Path,
    store: &Store,
    publications: &[Publication<'_>],
) -> Result<Vec<PublishedFile>, PublishError> {
    publish_with(&mut State::default(), folder, store, publications).map(|(published, _)| published)
}

/// What is there now, and whether the state changed.
fn publish_with(
    state: &mut State,
    project: &Path,
    store: &Store,
    publications: &[Publication<'_>],
) -> Result<(Vec<PublishedFile>, bool), PublishError> {
    let (mut published, mut changed) = (Vec::new(), false);
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for (publication_idx, publication) in publications.iter().enumerate() {
        let artifact = publication.output.digest;
        // Several artifacts may share a folder as target, so the artifact's own name is part of the entry's.
        let entry = format!("{}|{}|{}", project.display(), publication.target, publication.provenance.output);
        let provenance = Digest::of(&serde_json::to_vec(&publication.provenance).expect("provenance is plain data"));
        let up_to_date = state.targets.get(&entry).filter(|known| {
            let same = known.artifact == publication.output.digest && known.provenance == provenance;
            same && known.files.iter().all(|(path, mark)| file_mark(&project.join(path), mark.digest) == Some(*mark))
        });
        if let Some(known) = up_to_date {
            for (path, mark) in &known.files {
                claim(&mut owners, path, publication)?;
                let (path, written, size, digest) = (path.clone(), false, mark.size, mark.digest);
                published.push(PublishedFile { path, written, size, digest, artifact, publication_idx });
            }
            continue;
        }
        let mut files = BTreeMap::new();
        for (path, bytes) in content(store, publication)? {
            claim(&mut owners, &path, publication)?;
            let full = project.join(&path);
            let written = fs::read(&full).map_or(true, |present| present != bytes);
            if written {
                write_whole(store, &full, &bytes)
                    .map_err(|source| PublishError::Write { path: full.clone(), source })?;
            }
            let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
            if let Some(mark) = file_mark(&full, digest) {
                files.insert(path.clone(), mark);
            }
            published.push(PublishedFile { path, written, size, digest, artifact, publication_idx });
        }
        changed = true;
        state.targets.insert(entry, TargetState { artifact: publication.output.digest, provenance, files });
    }
    Ok((published, changed))
}

fn claim(owners: &mut BTreeMap<String, String>, path: &str, publication: &Publication<'_>) -> Result<(), PublishError> {
    let second = publication.provenance.output.clone();
    match owners.insert(path.to_owned(), second.clone()) {
        None => Ok(()),
        Some(first) => Err(PublishError::Clash { path: path.to_owned(), first, second }),
    }
}

fn content(store: &Store, publication: &Publication<'_>) -> Result<Vec<(String, Bytes)>, PublishError> {
    let target = || publication.target.to_owned();
    let bytes = store.read(publication.output).map_err(|source| PublishError::Read { target: target(), source })?;
    let decode_error = |message: String| PublishError::Decode { target: target(), message };
    let artifact = publication.kind.decode(&bytes).map_err(|error| decode_error(error.to_string()))?;
    let base = publication.target.trim_end_matches('/');
    match (publication.kind.files(&artifact), publication.folder) {
        (Some(files), true) => {
            Ok(files.into_iter().map(|file| (format!("{base}/{}", file.name), Bytes::from(file.bytes))).collect())
        }
        (Some(files), false) => match <[_; 1]>::try_from(files) {
            Ok([file]) => Ok(vec![(base.to_owned(), Bytes::from(file.bytes))]),
            Err(files) => {
                let message =
                    format!("it is {} files; end the target with `/` to publish them into a folder", files.len());
                Err(decode_error(message))
            }
        },
        (None, folder) => {
            let name = publication.provenance.output.replace('.', "_");
            let path = if folder { format!("{base}/{name}.{}", publication.kind.extension) } else { base.to_owned() };
            Ok(vec![(path, publication.kind.stamp(bytes, &publication.provenance))])
        }
    }
}

/// Where it can, by way of the store's own folder for temporary files, so that a kill leaves nothing beside a user's files.
fn write_whole(store: &Store, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let device = |folder: &Path| fs::metadata(folder).map(|metadata| metadata.dev());
    let way = store.temporary_folder().filter(|way| device(way).ok() == device(folder).ok());
    let way = way.as_deref().unwrap_or(folder);
    whole_file::replace_by_way_of(way, path, TEMPORARY_PREFIX, bytes, Content::Synced)
}

fn file_mark(path: &Path, digest: Digest) -> Option<FileMark> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mtime = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(FileMark { size: metadata.len(), mtime_ns: mtime.as_nanos() as u64, digest })
}
