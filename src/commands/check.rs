//! `ecgpipe check`: all errors of a pipeline file at once; exit 2 if there is one.

use super::{Exit, Failure, Wiring, print, print_json};
use crate::{cli::Check, pipeline};

pub(super) fn check(args: &Check, wiring: &Wiring) -> Result<Exit, Failure> {
    let checked = pipeline::load(&args.pipeline.pipeline, &args.pipeline.sets)
        .and_then(|pipeline| crate::plan::plan(&pipeline, &wiring.registry));
    match checked {
        Ok(plan) if args.json => print_json(&serde_json::json!({"ok": true, "nodes": plan.nodes().len()})),
        Ok(plan) => {
            let (node_n, publish_n) = (plan.nodes().len(), plan.publish().len());
            print(&format!("{}: ok, {node_n} nodes, {publish_n} published outputs", args.pipeline.pipeline.display()));
        }
        Err(report) if args.json => {
            print_json(&report.json());
            return Ok(Exit::Usage);
        }
        Err(report) => return Err(report.into()),
    }
    Ok(Exit::Success)
}
