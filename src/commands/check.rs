//! `ecgpipe check`: all errors and warnings of pipeline files at once; exit 2 if there is an error.
#![expect(clippy::print_stderr, reason = "talking to the user is this module's task")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Exit, Failure, Wiring, print, print_json, shown};
use crate::{
    cli::Check,
    diagnostic::{Level, Report},
    pipeline,
    plan::Plan,
};

pub(super) fn check(args: &Check, wiring: &Wiring) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    for path in &args.pipelines {
        files.extend(pipelines(path)?);
    }
    let checked: Vec<(PathBuf, Result<Plan, Report>)> = files
        .into_iter()
        .map(|file| {
            let planned =
                pipeline::load(&file, &args.sets).and_then(|pipeline| crate::plan::plan(&pipeline, &wiring.registry));
            (file, planned)
        })
        .collect();
    if args.json {
        print_json(&as_json(&checked));
    } else {
        for (file, planned) in &checked {
            if let Some(report) = report(planned) {
                eprint!("{}", shown(report));
            }
            if let Ok(plan) = planned {
                print(&good(file, plan));
            }
        }
    }
    let is_good = checked.iter().all(|(_, planned)| planned.is_ok());
    Ok(if is_good { Exit::Success } else { Exit::Usage })
}

/// The file itself, or the pipeline files right in a folder, sorted.
fn pipelines(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable =
        |error: std::io::Error| Failure::usage(format!("failed to list the folder {}: {error}", path.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        let failure = Failure::usage(format!("the folder {} has no pipeline file", path.display()));
        return Err(failure.help("pipeline files end with .yaml or .yml"));
    }
    Ok(found)
}

fn report(planned: &Result<Plan, Report>) -> Option<&Report> {
    planned.as_ref().map_or_else(Some, |plan| plan.warnings().report.as_ref())
}

fn good(file: &Path, plan: &Plan) -> String {
    let warning_n = plan.warnings().report.as_ref().map_or(0, |report| report.of(Level::Warning).count());
    let warnings = match warning_n {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        many => format!(", {many} warnings"),
    };
    let (node_n, publish_n) = (plan.nodes().len(), plan.publish().len());
    format!("{}: ok, {node_n} nodes, {publish_n} published outputs{warnings}", file.display())
}

/// Errors and warnings of all files, and for each file whether it is right.
fn as_json(checked: &[(PathBuf, Result<Plan, Report>)]) -> Value {
    let reports: Vec<Value> = checked.iter().filter_map(|(_, planned)| Some(report(planned)?.json())).collect();
    let all = |key: &str| -> Vec<Value> {
        reports.iter().filter_map(|report| report[key].as_array()).flatten().cloned().collect()
    };
    let files = checked.iter().map(|(file, planned)| {
        let node_n = planned.as_ref().ok().map(|plan| plan.nodes().len());
        json!({"file": file.display().to_string(), "ok": planned.is_ok(), "nodes": node_n})
    });
    json!({
        "format": 1,
        "ok": checked.iter().all(|(_, planned)| planned.is_ok()),
        "files": files.collect::<Vec<_>>(),
        "errors": all("errors"),
        "warnings": all("warnings"),
    })
}
