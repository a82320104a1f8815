//! `ecgpipe trace`: from a published ONNX file alone to the parameters, the code and the raw bytes that made it.

use std::{collections::BTreeMap, fs, path::Path};

use ecgpipe_sdk::{Onnx, Provenance};
use serde::Serialize;

use super::{Exit, Failure, print, print_json};
use crate::{cli::Trace, digest::Digest};

/// What became of one raw file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Same,
    Differs,
    Missing,
}

pub(super) fn trace(args: &Trace) -> Result<Exit, Failure> {
    let shown = args.file.display();
    let bytes =
        fs::read(&args.file).map_err(|error| Failure::environment(format!("failed to read {shown}: {error}")))?;
    let provenance = Onnx::provenance(&bytes)
        .map_err(|error| Failure::usage(format!("{shown} is {error}")))?
        .ok_or_else(|| Failure::usage(format!("{shown} carries no provenance: it was not published by ecgpipe")))?;
    let verdicts = args.verify.as_deref().map(|folder| verify(&provenance, folder));
    if args.json {
        print_json(&serde_json::json!({"provenance": provenance, "raw_files": verdicts}));
    } else {
        print(&tree(&shown.to_string(), &provenance, verdicts.as_ref()));
    }
    let all_same =
        verdicts.is_none_or(|records| records.values().flat_map(BTreeMap::values).all(|v| *v == Verdict::Same));
    Ok(if all_same { Exit::Success } else { Exit::Failed })
}

type Verdicts = BTreeMap<String, BTreeMap<String, Verdict>>;

fn verify(provenance: &Provenance, folder: &Path) -> Verdicts {
    let verdict = |name: &str, digest: &str| match fs::read(folder.join(name)) {
        Ok(bytes) if Digest::of(&bytes).to_hex() == digest => Verdict::Same,
        Ok(_) => Verdict::Differs,
        Err(_) => Verdict::Missing,
    };
    let of_record = |files: &BTreeMap<String, String>| {
        files.iter().map(|(name, digest)| (name.clone(), verdict(name, digest))).collect()
    };
    provenance.sources.iter().map(|(record, files)| (record.clone(), of_record(files))).collect()
}

fn tree(file: &str, provenance: &Provenance, verdicts: Option<&Verdicts>) -> String {
    let commit = provenance.git_commit.as_deref().unwrap_or("unknown");
    let dirty = if provenance.git_dirty { " with uncommitted changes" } else { "" };
    let mut text = format!(
        "{file}\n  output    {} of pipeline `{}`, seed {}\n  key       {}\n  digest    {}\n  commit    {commit}{dirty}\n  ecgpipe   {}\n",
        provenance.output, provenance.pipeline, provenance.seed, provenance.key, provenance.digest, provenance.ecgpipe,
    );
    text.push_str("  stages\n");
    for (name, stage) in &provenance.stages {
        text.push_str(&format!("    {name} ({}, code {})\n", stage.uses, &stage.code[..stage.code.len().min(10)]));
        for (port, from) in &stage.inputs {
            text.push_str(&format!("      {port} <- {from}\n"));
        }
        if let Some(params) = stage.params.as_object() {
            for (name, value) in params {
                text.push_str(&format!("      {name}: {value}\n"));
            }
        }
    }
    let file_n: usize = provenance.sources.values().map(BTreeMap::len).sum();
    text.push_str(&format!("  raw files: {file_n} of {} records\n", provenance.sources.len()));
    for (record, files) in &provenance.sources {
        for (name, digest) in files {
            let verdict = verdicts.and_then(|records| records.get(record)?.get(name)).map(|verdict| match verdict {
                Verdict::Same => "  same",
                Verdict::Differs => "  DIFFERS",
                Verdict::Missing => "  MISSING",
            });
            text.push_str(&format!("    {name}  {}{}\n", &digest[..digest.len().min(16)], verdict.unwrap_or_default()));
        }
    }
    text
}
