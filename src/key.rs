//! Owns the identity of a job: which facts decide its result, and nothing else.
//!
//! In the key: stage name, stage code, bound parameters, the digest of every input by port and record, the digest of
//! every raw file by name, the versions of the kinds on both sides, the record, and the pipeline's seed where the stage
//! draws random numbers. Not in it: node names, paths, threads, machines, times.
//!
//! Pure: no I/O, no clock. [`KeyEncoder`] hashes and explains one list of fields.

use ecgpipe_sdk::{BoundParams, RecordId, StageSpec};

use crate::{
    digest::{Digest, KeyEncoder},
    job::RawFile,
};

/// What the keys of all jobs of a node have in common; made once a node.
#[derive(Debug)]
pub struct NodeIdentity {
    fields: Vec<(String, String)>,
}

impl NodeIdentity {
    /// `seed` is that of the pipeline, for a stage that draws random numbers; `is_connected` tells input ports.
    #[must_use]
    pub fn new(spec: &StageSpec, params: &BoundParams, seed: Option<u64>, is_connected: impl Fn(&str) -> bool) -> Self {
        let mut fields = vec![("stage".to_owned(), spec.name.to_owned()), ("code".to_owned(), spec.code.clone())];
        fields.extend(params.flattened().into_iter().map(|(path, value)| (format!("param.{path}"), value)));
        fields.extend(seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        for port in spec.inputs.iter().filter(|port| is_connected(port.name)) {
            fields.push((format!("kind.in.{}", port.name), format!("{:?}", port.kind)));
        }
        for port in &spec.outputs {
            fields.push((format!("kind.out.{}", port.name), format!("{:?}", port.kind)));
        }
        Self { fields }
    }
}

/// An input of a job, as its key sees it.
#[derive(Clone, Copy, Debug)]
pub struct InputIdentity<'a> {
    /// The input port.
    pub port: &'a str,
    /// Of which record, on a port that gathers.
    pub record: Option<&'a RecordId>,
    /// The content.
    pub digest: &'a Digest,
}

/// The fields of a job's key.
pub fn key_fields<'a>(
    node: &'a NodeIdentity,
    record: Option<&'a RecordId>,
    inputs: impl Iterator<Item = InputIdentity<'a>>,
    files: &[RawFile],
) -> KeyEncoder<'a> {
    let mut encoder = KeyEncoder::new();
    for (name, value) in &node.fields {
        encoder.field(name, value);
    }
    if let Some(record) = record {
        encoder.field("record", record.as_str());
    }
    for InputIdentity { port, record, digest } in inputs {
        let name = record.map_or_else(|| format!("input.{port}"), |record| format!("input.{port}[{record}]"));
        encoder.field(name, digest.to_hex());
    }
    for raw in files {
        encoder.field(format!("source.{}", raw.file.name), raw.state.digest.to_hex());
    }
    encoder
}

/// The seed that a stage sees: one of its own for each stage and record, so that no two draw the same numbers.
#[must_use]
pub fn stage_seed(pipeline_seed: u64, stage: &str, record: Option<&str>) -> u64 {
    let text = format!("ecgpipe seed v1\n{pipeline_seed}\n{stage}\n{}", record.unwrap_or_default());
    let hash = blake3::hash(text.as_bytes());
    let bytes = hash.as_bytes();
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

#[cfg(test)]
mod tests {
    use super::stage_seed;

    #[test]
    fn seeds_differ_by_stage_and_record() {
        let seeds = [
            stage_seed(1, "split", None),
            stage_seed(2, "split", None),
            stage_seed(1, "train", None),
            stage_seed(1, "split", Some("100")),
        ];
        let distinct: std::collections::BTreeSet<u64> = seeds.into_iter().collect();
        assert_eq!(distinct.len(), seeds.len());
        assert_eq!(stage_seed(1, "split", None), seeds[0]);
    }
}
