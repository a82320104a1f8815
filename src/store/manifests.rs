//! The manifest: what one job produced, and the explanation of its key.
//!
//! A manifest is a file of two JSON lines: the manifest itself, then the BLAKE3 digest of the first line. The second
//! line finds every torn, truncated or flipped manifest (`finds_every_flip_and_every_truncation`); `jq` reads both.
//!
//! Nothing in a manifest enters an artifact or a key: the times in it may differ between two runs of one job.
//!
//! On `format`: an old reader on a new file and a new reader on an old file both see [`Damage::Format`], which is a
//! miss and leaves the file alone, so two versions can share a folder of manifests without harm.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ecgpipe_sdk::Content;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, HEX_N, Key, KeyField};

/// The format of a manifest that this version writes and reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// The name of an output within one job: a port, or a port and a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutputName(String);

impl OutputName {
    /// Any text that is not empty will do; the store gives it no meaning.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for OutputName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A stored output: enough to find its bytes and to know that they are right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputRef {
    /// The artifact kind, as the producer calls it.
    pub kind: String,
    /// The digest of the bytes: the name of the blob.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Rows of a table; absent for what is not a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// The outputs of a job by name, for those who keep many of them: a map of one entry takes a kilobyte, this a tenth of
/// that, and clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs(Arc<[(OutputName, OutputRef)]>);

impl Outputs {
    /// An output by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OutputRef> {
        let position = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(&self.0[position].1)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&OutputName, &OutputRef)> {
        self.0.iter().map(|(name, output)| (name, output))
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Outputs {
    fn default() -> Self {
        BTreeMap::new().into()
    }
}

impl From<BTreeMap<OutputName, OutputRef>> for Outputs {
    fn from(outputs: BTreeMap<OutputName, OutputRef>) -> Self {
        Self(outputs.into_iter().collect())
    }
}

/// An output on its way into the store.
#[derive(Debug, Clone)]
pub struct NewOutput {
    /// Its name, unique within the job.
    pub name: OutputName,
    /// The artifact kind.
    pub kind: String,
    /// Rows, for a table.
    pub rows: Option<u64>,
    /// The bytes; of a file the store takes over the file itself, which must lie in [`super::Store::temporary_folder`].
    pub content: Content,
}

/// What is known of a finished job besides its key and its outputs.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// The name under which [`super::Store::stats`] adds up sizes: the stage.
    pub stage: String,
    /// The code identity of the stage.
    pub code: String,
    /// The fields that made the key, as `KeyEncoder::finish` gave them.
    pub fields: Vec<KeyField>,
    /// CPU time of the computation, in milliseconds.
    pub cpu_ms: u64,
    /// Elapsed time of the computation, in milliseconds.
    pub wall_ms: u64,
    /// The version of the program that computed.
    pub version: String,
    /// What the user was warned of while it was computed; said again when the result is used again.
    pub warnings: Vec<String>,
}

/// What one job produced, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The identity of the job.
    pub key: Key,
    /// The stage.
    pub stage: String,
    /// The code identity of the stage.
    pub code: String,
    /// The version of the program that computed. Not part of the key.
    pub version: String,
    /// The explanation of the key, sorted by name.
    #[serde(serialize_with = "fields_as_map", deserialize_with = "fields_from_map")]
    pub fields: Vec<KeyField>,
    /// The outputs by name.
    pub outputs: BTreeMap<OutputName, OutputRef>,
    /// CPU time of the computation, in milliseconds. Not part of the key.
    pub cpu_ms: u64,
    /// Elapsed time of the computation, in milliseconds. Not part of the key.
    pub wall_ms: u64,
    /// What the user was warned of. Not part of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why the file of a manifest is not one that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The file is not two lines, or its second line is not the digest of the first: torn or flipped.
    Torn,
    /// Another version wrote it.
    Format {
        /// The format number found.
        found: u32,
    },
    /// The digest is right but the text is not a manifest.
    Syntax(String),
    /// It is the manifest of another job.
    OtherKey(Key),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("it is torn or altered: its checksum does not match"),
            Self::Format { found } => write!(f, "it has format {found}, this version reads {MANIFEST_FORMAT}"),
            Self::Syntax(reason) => write!(f, "it is not a manifest: {reason}"),
            Self::OtherKey(key) => write!(f, "it belongs to the key {}", key.short()),
        }
    }
}

/// The bytes of the file of `manifest`.
pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut text = serde_json::to_vec(manifest).expect("a manifest has string keys and cannot fail to serialise");
    let check = Digest::of(&text);
    text.extend_from_slice(b"\n\"");
    text.extend_from_slice(check.to_hex().as_bytes());
    text.extend_from_slice(b"\"\n");
    text
}

/// The manifest in `file`, if it is whole and belongs to `key`.
pub(super) fn decode(file: &[u8], key: &Key) -> Result<Manifest, Damage> {
    const TAIL_N: usize = HEX_N + 4;
    let (text, tail) = file.split_at_checked(file.len().saturating_sub(TAIL_N)).ok_or(Damage::Torn)?;
    let check = tail.strip_prefix(b"\n\"").and_then(|tail| tail.strip_suffix(b"\"\n")).ok_or(Damage::Torn)?;
    if check != Digest::of(text).to_hex().as_bytes() {
        return Err(Damage::Torn);
    }
    let manifest: Manifest = serde_json::from_slice(text).map_err(|error| explain(text, &error))?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(Damage::Format { found: manifest.format });
    }
    if manifest.key != *key {
        return Err(Damage::OtherKey(manifest.key));
    }
    Ok(manifest)
}

/// A manifest of another format need not have today's shape, so its number is looked for on its own.
fn explain(text: &[u8], error: &serde_json::Error) -> Damage {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    match serde_json::from_slice::<Head>(text) {
        Ok(Head { format }) if format != MANIFEST_FORMAT => Damage::Format { found: format },
        _ => Damage::Syntax(error.to_string()),
    }
}

fn fields_as_map<S: Serializer>(fields: &[KeyField], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(fields.len()))?;
    for field in fields {
        map.serialize_entry(&field.name, &field.value)?;
    }
    map.end()
}

fn fields_from_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyField>, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<KeyField>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the fields of a key by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<KeyField>, A::Error> {
            let mut fields = Vec::new();
            while let Some((name, value)) = map.next_entry()? {
                fields.push(KeyField { name, value });
            }
            Ok(fields)
        }
    }
    deserializer.deserialize_map(Fields)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::digest::KeyEncoder;

    fn manifest() -> Manifest {
        let mut encoder = KeyEncoder::new();
        encoder.field("stage", "window").field("param.length_n", "187").field("source.100.dat", "\"quoted\"\né");
        let (key, fields) = encoder.finish().unwrap();
        let output = OutputRef { kind: "windows".into(), digest: Digest::of(b"abc"), size: 3, rows: Some(1) };
        Manifest {
            format: MANIFEST_FORMAT,
            key,
            stage: "window".into(),
            code: "c0de".into(),
            version: "0.1.0".into(),
            fields,
            outputs: BTreeMap::from([("windows/100".into(), output)]),
            cpu_ms: 12,
            wall_ms: 34,
            warnings: vec!["slow".into()],
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let manifest = manifest();
        assert_eq!(decode(&encode(&manifest), &manifest.key), Ok(manifest));
    }

    #[test]
    fn finds_every_flip_and_every_truncation() {
        let manifest = manifest();
        let whole = encode(&manifest);
        for position in 0..whole.len() {
            assert_eq!(decode(&whole[..position], &manifest.key), Err(Damage::Torn), "cut at {position}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << bit;
                assert_eq!(decode(&flipped, &manifest.key), Err(Damage::Torn), "bit {bit} of byte {position}");
            }
        }
        assert_eq!(decode(&vec![0; whole.len()], &manifest.key), Err(Damage::Torn));
        assert_eq!(decode(&[whole.as_slice(), b"\n"].concat(), &manifest.key), Err(Damage::Torn));
    }

    #[test]
    fn tells_another_format_from_another_key_and_from_nonsense() {
        let manifest = manifest();
        let sealed = |text: &str| format!("{text}\n\"{}\"\n", Digest::of(text.as_bytes())).into_bytes();
        let other = Key::from_bytes([7; 32]);
        assert_eq!(decode(&encode(&manifest), &other), Err(Damage::OtherKey(manifest.key)));
        let newer = Manifest { format: 2, ..manifest.clone() };
        assert_eq!(decode(&encode(&newer), &manifest.key), Err(Damage::Format { found: 2 }));
        assert_eq!(decode(&sealed("{\"format\":9,\"x\":[]}"), &manifest.key), Err(Damage::Format { found: 9 }));
        assert!(matches!(decode(&sealed("{\"format\":1}"), &manifest.key), Err(Damage::Syntax(_))));
        assert!(matches!(decode(&sealed("[]"), &manifest.key), Err(Damage::Syntax(_))));
    }
}
