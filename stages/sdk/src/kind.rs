//! Owns what a kind of artifact is: one in-memory type, one name and version, one encoding.
//!
//! A kind must not know where its bytes are kept nor which stage made it.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{content::Content, provenance::Provenance, table::TableError};

/// A kind of artifact: the type that stages work with and its bytes in the store.
///
/// Invariant: `decode(encode(x))` equals `x`, and `encode` is a function of `x` alone (guarded by the round-trip test in
/// each module of [`crate::kinds`]).
pub trait Kind: Any + Send + Sync + Sized {
    /// The name in pipelines and messages, for example `signals`.
    const NAME: &'static str;
    /// Counts up whenever the schema or the meaning of a column changes; part of every key that sees the kind.
    const VERSION: u32;
    /// One line for the catalogue: what it holds, shapes and units.
    const SUMMARY: &'static str;
    /// File name extension of the encoded bytes.
    const EXTENSION: &'static str = "parquet";

    /// The bytes to store.
    ///
    /// # Errors
    /// If the value breaks the kind's own rules (columns of unequal length, for example).
    fn encode(&self) -> Result<Vec<u8>, KindError>;

    /// The value out of stored bytes.
    ///
    /// # Errors
    /// If the bytes are not of this kind and version.
    fn decode(bytes: &Bytes) -> Result<Self, KindError>;

    /// The value out of stored content. A kind whose artifacts can be larger than memory keeps the content and reads it
    /// when it is asked; all others decode it.
    ///
    /// # Errors
    /// As [`Kind::decode`]; also if the content cannot be read.
    fn open(content: &Content) -> Result<Self, KindError> {
        let bytes = content.bytes().map_err(|source| KindError::Read { kind: Self::NAME, source })?;
        Self::decode(&bytes)
    }

    /// For a kind that is a bundle of files ([`Kind::files`] gives them): the value that these files make.
    const FROM_FILES: Option<fn(Vec<NamedFile>) -> Self> = None;

    /// Metric points for the run's record, if the kind carries any.
    fn metrics(&self) -> Vec<MetricPoint> {
        Vec::new()
    }

    /// The files that publishing gives; `None` means one file: the encoded bytes themselves.
    fn files(&self) -> Option<Vec<NamedFile>> {
        None
    }

    /// Writes provenance into encoded bytes that are about to be published; kinds without a place for it do nothing.
    fn stamp(bytes: Bytes, _provenance: &Provenance) -> Bytes {
        bytes
    }
}

/// An artifact of any kind in memory.
pub type Artifact = Arc<dyn Any + Send + Sync>;

/// One value of one metric at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// Name with `/` between section and metric, for example `train/loss`.
    pub key: String,
    /// Epoch or other counter; 0 for a metric that is measured once.
    pub step: i64,
    /// The value; a non-finite value is kept here and left out by trackers that cannot show it.
    pub value: f64,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// A file name without a folder.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Why bytes and value do not go together.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// The table could not be written or read.
    #[error("{kind}: {source}")]
    Table {
        /// The kind's name.
        kind: &'static str,
        /// What is wrong with the table.
        source: TableError,
    },
    /// Stored content could not be read.
    #[error("{kind}: failed to read its stored bytes: {source}")]
    Read {
        /// The kind's name.
        kind: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The value breaks a rule of its kind.
    #[error("{kind}: {message}")]
    Invalid {
        /// The kind's name.
        kind: &'static str,
        /// The broken rule.
        message: String,
    },
}

/// A [`Kind`] as data, for code that handles artifacts of all kinds alike.
#[derive(Clone, Copy)]
pub struct KindSpec {
    /// [`Kind::NAME`].
    pub name: &'static str,
    /// [`Kind::VERSION`].
    pub version: u32,
    /// [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// [`Kind::EXTENSION`].
    pub extension: &'static str,
    /// Whether it is a bundle of files, which programs outside are given as a folder.
    pub bundle: bool,
    encode: fn(&Artifact) -> Result<Vec<u8>, KindError>,
    decode: fn(&Bytes) -> Result<Artifact, KindError>,
    open: fn(&Content) -> Result<Artifact, KindError>,
    metrics: fn(&Artifact) -> Vec<MetricPoint>,
    files: fn(&Artifact) -> Option<Vec<NamedFile>>,
    stamp: fn(Bytes, &Provenance) -> Bytes,
    from_files: fn(Vec<NamedFile>) -> Option<Artifact>,
}

impl KindSpec {
    /// The spec of `K`.
    #[must_use]
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            version: K::VERSION,
            summary: K::SUMMARY,
            extension: K::EXTENSION,
            bundle: K::FROM_FILES.is_some(),
            encode: |artifact| cast::<K>(artifact)?.encode(),
            decode: |bytes| Ok(Arc::new(K::decode(bytes)?) as Artifact),
            open: |content| Ok(Arc::new(K::open(content)?) as Artifact),
            metrics: |artifact| cast::<K>(artifact).map(Kind::metrics).unwrap_or_default(),
            files: |artifact| cast::<K>(artifact).ok().and_then(Kind::files),
            stamp: K::stamp,
            from_files: |files| K::FROM_FILES.map(|make| Arc::new(make(files)) as Artifact),
        }
    }

    /// [`Kind::encode`] for an artifact of this kind.
    ///
    /// # Errors
    /// As the kind's own; also if the artifact is of another kind.
    pub fn encode(&self, artifact: &Artifact) -> Result<Vec<u8>, KindError> {
        (self.encode)(artifact)
    }

    /// [`Kind::decode`].
    ///
    /// # Errors
    /// As the kind's own.
    pub fn decode(&self, bytes: &Bytes) -> Result<Artifact, KindError> {
        (self.decode)(bytes)
    }

    /// [`Kind::open`].
    ///
    /// # Errors
    /// As the kind's own.
    pub fn open(&self, content: &Content) -> Result<Artifact, KindError> {
        (self.open)(content)
    }

    /// [`Kind::metrics`].
    #[must_use]
    pub fn metrics(&self, artifact: &Artifact) -> Vec<MetricPoint> {
        (self.metrics)(artifact)
    }

    /// [`Kind::files`].
    #[must_use]
    pub fn files(&self, artifact: &Artifact) -> Option<Vec<NamedFile>> {
        (self.files)(artifact)
    }

    /// [`Kind::FROM_FILES`]: the artifact that some files make, if the kind is a bundle.
    #[must_use]
    pub fn from_files(&self, files: Vec<NamedFile>) -> Option<Artifact> {
        (self.from_files)(files)
    }

    /// [`Kind::stamp`].
    #[must_use]
    pub fn stamp(&self, bytes: Bytes, provenance: &Provenance) -> Bytes {
        (self.stamp)(bytes, provenance)
    }
}

impl std::fmt::Debug for KindSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} v{}", self.name, self.version)
    }
}

impl PartialEq for KindSpec {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.version) == (other.name, other.version)
    }
}

impl Eq for KindSpec {}

fn cast<K: Kind>(artifact: &Artifact) -> Result<&K, KindError> {
    artifact.downcast_ref::<K>().ok_or_else(|| KindError::Invalid {
        kind: K::NAME,
        message: "the artifact in memory is of another kind".to_owned(),
    })
}
