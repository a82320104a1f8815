//! The `onnx` kind: an ONNX file, and the provenance written into it when it is published.
//!
//! An ONNX file is one protobuf message (`ModelProto`); its `metadata_props` is a repeated field, so entries can be added
//! by appending bytes and read by walking the top level, without knowledge of the graph.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    kind::{Kind, KindError},
    provenance::Provenance,
};

/// An ONNX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onnx {
    /// The file's bytes.
    pub bytes: Bytes,
}

/// The bytes are not an ONNX file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ONNX file: {0}")]
pub struct OnnxMetadataError(String);

/// `ModelProto.metadata_props`, as the ONNX standard numbers it.
const METADATA_PROPS: u64 = 14;
/// Key of the provenance among the metadata.
const PROVENANCE_KEY: &str = "ecgpipe.provenance";

impl Onnx {
    /// The provenance in a published file's metadata, if it has one.
    ///
    /// # Errors
    /// If the bytes are not ONNX or the provenance in it is malformed.
    pub fn provenance(bytes: &[u8]) -> Result<Option<Provenance>, OnnxMetadataError> {
        let Some(json) = Self::metadata(bytes)?.remove(PROVENANCE_KEY) else { return Ok(None) };
        serde_json::from_str(&json)
            .map(Some)
            .map_err(|error| OnnxMetadataError(format!("metadata `{PROVENANCE_KEY}` is malformed: {error}")))
    }

    /// The file as it was before a provenance was written into it: the artifact that the provenance's digest names.
    ///
    /// # Errors
    /// If the bytes are not a protobuf message of ONNX's shape.
    pub fn without_provenance(bytes: &[u8]) -> Result<Vec<u8>, OnnxMetadataError> {
        let (mut rest, mut kept) = (bytes, Vec::with_capacity(bytes.len()));
        while !rest.is_empty() {
            let before = rest;
            let (number, value) = field(&mut rest).ok_or_else(|| malformed(bytes, before))?;
            let is_provenance =
                number == METADATA_PROPS && value.map(entry).transpose()?.is_some_and(|(key, _)| key == PROVENANCE_KEY);
            if !is_provenance {
                kept.extend_from_slice(&before[..before.len() - rest.len()]);
            }
        }
        Ok(kept)
    }

    /// All of a file's `metadata_props`.
    ///
    /// # Errors
    /// If the bytes are not a protobuf message of ONNX's shape.
    pub fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, OnnxMetadataError> {
        let mut metadata = BTreeMap::new();
        for field in fields(bytes) {
            let (number, value) = field?;
            if number != METADATA_PROPS {
                continue;
            }
            let (key, text) = entry(value)?;
            metadata.insert(key, text);
        }
        Ok(metadata)
    }
}

impl Kind for Onnx {
    const NAME: &'static str = "onnx";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "an ONNX file: windows (N, 1, length) in [0, 1] to class probabilities (N, classes)";
    const EXTENSION: &'static str = "onnx";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        Ok(self.bytes.to_vec())
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        Ok(Self { bytes: bytes.clone() })
    }

    fn stamp(bytes: Bytes, provenance: &Provenance) -> Bytes {
        let json = serde_json::to_value(provenance).expect("provenance is plain data").to_string();
        let mut entry = Vec::new();
        append_field(&mut entry, 1, PROVENANCE_KEY.as_bytes());
        append_field(&mut entry, 2, json.as_bytes());
        let mut stamped = bytes.to_vec();
        append_field(&mut stamped, METADATA_PROPS, &entry);
        stamped.into()
    }
}

/// Key and value of a `StringStringEntryProto`.
fn entry(message: &[u8]) -> Result<(String, String), OnnxMetadataError> {
    let (mut key, mut text) = (String::new(), String::new());
    for field in fields(message) {
        match field? {
            (1, bytes) => key = utf8(bytes)?,
            (2, bytes) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok((key, text))
}

fn malformed(message: &[u8], rest: &[u8]) -> OnnxMetadataError {
    OnnxMetadataError(format!("malformed protobuf field near byte {}", message.len() - rest.len()))
}

fn utf8(bytes: &[u8]) -> Result<String, OnnxMetadataError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| OnnxMetadataError("metadata is not UTF-8".to_owned()))
}

fn append_field(message: &mut Vec<u8>, number: u64, value: &[u8]) {
    append_varint(message, number << 3 | 2);
    append_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn append_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// The length-delimited fields of a protobuf message; others are checked and passed over.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), OnnxMetadataError>> {
    let mut rest = message;
    let mut failed = false;
    std::iter::from_fn(move || {
        while !rest.is_empty() && !failed {
            match field(&mut rest) {
                Some((number, Some(value))) => return Some(Ok((number, value))),
                Some((_, None)) => {}
                None => {
                    failed = true;
                    return Some(Err(malformed(message, rest)));
                }
            }
        }
        None
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let tag = varint(rest)?;
    let (number, wire_type) = (tag >> 3, tag & 7);
    let length = match wire_type {
        0 => return varint(rest).map(|_| (number, None)),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    if number == 0 || length > rest.len() {
        return None;
    }
    let (value, tail) = rest.split_at(length);
    *rest = tail;
    Some((number, (wire_type == 2).then_some(value)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        Provenance {
            format: Provenance::FORMAT,
            pipeline: "full".to_owned(),
            seed: 2025,
            output: "export.onnx".to_owned(),
            key: "ab".to_owned(),
            digest: "cd".to_owned(),
            git_commit: Some("0123456".to_owned()),
            git_dirty: false,
            ecgpipe: "0.1.0".to_owned(),
            stages: BTreeMap::new(),
            sources: BTreeMap::from([("100".to_owned(), BTreeMap::from([("100.dat".to_owned(), "ef".to_owned())]))]),
        }
    }

    #[test]
    fn provenance_is_appended_and_read_back() {
        let mut model = Vec::new();
        append_varint(&mut model, 1 << 3); // ir_version
        append_varint(&mut model, 10);
        append_field(&mut model, 7, &[0xff; 300]); // a graph that is not looked into
        let stamped = Onnx::stamp(Bytes::from(model.clone()), &provenance());
        assert!(stamped.starts_with(&model));
        assert_eq!(Onnx::provenance(&stamped), Ok(Some(provenance())));
        assert_eq!(Onnx::provenance(&model), Ok(None));
        assert_eq!(Onnx::without_provenance(&stamped), Ok(model.clone()));
        assert_eq!(Onnx::without_provenance(&model), Ok(model));
    }

    #[test]
    fn refuses_what_is_not_onnx() {
        for bad in [&b"\x89PNG\r\n"[..], b"hello, this is text", &[0xff; 40]] {
            assert!(Onnx::metadata(bad).is_err(), "{bad:?}");
        }
    }
}
