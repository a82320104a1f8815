//! Owns the step from a plan to its jobs: which records there are, and which raw files each is read from.
//!
//! Sources are asked here, so that everything about the inputs is known, and every missing file reported, before the first
//! stage runs.

use std::{collections::BTreeMap, path::PathBuf};

use ecgpipe_sdk::{RecordId, Registry, SourceContext, SourceRecord, StageError, StageEvent};

use crate::{
    event::Event,
    event::JobName,
    plan::Plan,
    schedule::{Need, NodeShape},
};

/// Where sources look, and where stages that are processes leave what they write.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The project's `data` folder.
    pub data_folder: PathBuf,
    /// `$ECGPIPE_DATA`.
    pub shared_data: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
    /// The folder for the logs of jobs, one file each; made when the first is written.
    pub logs: Option<PathBuf>,
}

/// The records of every node.
#[derive(Debug)]
pub struct Expansion {
    /// Per node: its records, sorted; empty for a node that does not run per record.
    pub records: Vec<Vec<RecordId>>,
    /// Per source node: what it said of each of its records.
    pub sources: BTreeMap<usize, Vec<SourceRecord>>,
    /// The same for the schedule.
    pub shapes: Vec<NodeShape>,
}

/// A node whose records cannot be known.
#[derive(Debug, thiserror::Error)]
#[error("stage `{node}`: {error}")]
pub struct ExpandError {
    /// The node.
    pub node: String,
    /// What is wrong.
    pub error: StageError,
}

/// Asks every selected source for its records and lays out the jobs.
///
/// # Errors
/// All sources that cannot list their records, and all nodes whose inputs have different records.
pub fn expand(
    plan: &Plan,
    registry: &Registry,
    selected: &std::collections::BTreeSet<usize>,
    surroundings: &Surroundings,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Expansion, Vec<ExpandError>> {
    let mut errors = Vec::new();
    let mut sources = BTreeMap::new();
    let mut records: Vec<Vec<RecordId>> = Vec::with_capacity(plan.nodes().len());
    for (node_idx, node) in plan.nodes().iter().enumerate() {
        let mut own = Vec::new();
        let failed = |error: StageError| ExpandError { node: node.name.clone(), error };
        if !selected.contains(&node_idx) || !node.per_record {
        } else if node.source {
            let tell =
                |event: StageEvent| events(Event::of_stage(JobName { node: node.name.clone(), record: None }, event));
            let cx = SourceContext {
                data_folder: surroundings.data_folder.clone(),
                shared_data: surroundings.shared_data.clone(),
                offline: surroundings.offline,
                events: &tell,
            };
            let stage = registry.get(&node.uses).expect("a plan names registered stages only");
            match stage.sources(&node.params, &cx) {
                Ok(mut listed) => {
                    listed.sort_by(|a, b| a.record.cmp(&b.record));
                    match listed.windows(2).find(|pair| pair[0].record == pair[1].record) {
                        Some(pair) => {
                            errors.push(failed(StageError::new(format!("lists record {} twice", pair[0].record))))
                        }
                        None if listed.is_empty() => errors.push(failed(
                            StageError::new("has no records")
                                .help("check its `records`, `exclude` and `database` parameters"),
                        )),
                        None => {}
                    }
                    own = listed.iter().map(|source| source.record.clone()).collect();
                    sources.insert(node_idx, listed);
                }
                Err(error) => errors.push(failed(error)),
            }
        } else {
            let mut each =
                node.inputs.iter().filter(|(_, edge)| !edge.gather && plan.nodes()[edge.node_idx].per_record);
            if let Some((first_port, first)) = each.next() {
                own = records[first.node_idx].clone();
                for (port, edge) in each {
                    if records[edge.node_idx] != own {
                        errors.push(failed(different_records(first_port, &own, port, &records[edge.node_idx])));
                    }
                }
            }
        }
        records.push(own);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let shapes = plan.nodes().iter().zip(&records).map(|(node, records)| NodeShape {
        job_n: if node.per_record { records.len() } else { 1 },
        per_record: node.per_record,
        needs: node
            .inputs
            .values()
            .map(|edge| Need {
                node_idx: edge.node_idx,
                same_record: !edge.gather && node.per_record && plan.nodes()[edge.node_idx].per_record,
            })
            .collect(),
    });
    Ok(Expansion { shapes: shapes.collect(), records, sources })
}

fn different_records(first_port: &str, first: &[RecordId], port: &str, other: &[RecordId]) -> StageError {
    let only = |a: &[RecordId], b: &[RecordId]| {
        let missing: Vec<&str> = a.iter().filter(|record| !b.contains(record)).map(RecordId::as_str).take(10).collect();
        missing.join(", ")
    };
    let message = format!(
        "its inputs have different records: only `{first_port}` has {{{}}}, only `{port}` has {{{}}}",
        only(first, other),
        only(other, first)
    );
    StageError::new(message).help("feed both ports from one source, or give both sources the same `records`")
}
