//! Owns the identity of a job: which facts decide its result, and nothing else.
//!
//! In the key: stage name, stage code, bound parameters, the digest of every input by port and record, the digest of
//! every raw file by name, the versions of the kinds on both sides, the record, and the pipeline's seed where the stage
//! draws random numbers. Not in it: node names, paths, threads, machines, times.
//!
//! Pure: no I/O, no clock. [`KeyEncoder`] hashes and explains in one walk.

use ecgpipe_sdk::StageSpec;

use crate::{
    digest::{Key, KeyEncoder, KeyError, KeyField},
    job::{Job, JobInput},
};

/// The key of a job and the fields that made it.
///
/// # Errors
/// If two fields have one name: a defect of the encoder's caller.
pub fn job_key(job: &Job, spec: &StageSpec) -> Result<(Key, Vec<KeyField>), KeyError> {
    let mut encoder = KeyEncoder::new();
    encoder.field("stage", spec.name).field("code", spec.code.as_str());
    for (path, value) in job.params.flattened() {
        encoder.field(format!("param.{path}"), value);
    }
    if let Some(seed) = job.seed {
        encoder.field("seed", seed.to_string());
    }
    if let Some(record) = &job.name.record {
        encoder.field("record", record.as_str());
    }
    for port in spec.inputs.iter().filter(|port| job.inputs.contains_key(port.name)) {
        encoder.field(format!("kind.in.{}", port.name), format!("{:?}", port.kind));
    }
    for port in &spec.outputs {
        encoder.field(format!("kind.out.{}", port.name), format!("{:?}", port.kind));
    }
    for (port, input) in &job.inputs {
        match input {
            JobInput::Single(output) => {
                encoder.field(format!("input.{port}"), output.digest.to_hex());
            }
            JobInput::Many(outputs) => {
                for (record, output) in outputs {
                    encoder.field(format!("input.{port}[{record}]"), output.digest.to_hex());
                }
            }
        }
    }
    for raw in &job.files {
        encoder.field(format!("source.{}", raw.file.name), raw.state.digest.to_hex());
    }
    encoder.finish()
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
