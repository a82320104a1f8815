//! `ecgpipe runs`: what was run, with what, and how it came out.

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::MetricPoint;
use serde_json::json;

use super::{Exit, Failure, print, print_json, runs_folder, table};
use crate::{
    cli::Runs,
    track::run_folder::{self, JobFile, RunFile},
};

pub(super) fn runs(args: &Runs) -> Result<Exit, Failure> {
    match args {
        Runs::List { json } => list(*json),
        Runs::Show { run, json } => show(run, *json),
        Runs::Diff { a, b, json } => diff(a, b, *json),
    }
    .map(|()| Exit::Success)
}

struct Recorded {
    run: RunFile,
    params: BTreeMap<String, String>,
    metrics: Vec<MetricPoint>,
    jobs: Vec<JobFile>,
}

fn recorded(name: &str) -> Result<Recorded, Failure> {
    let (folder, run) = run_folder::find(&runs_folder(), name)?;
    // A run that was killed has not written everything; what is there is shown.
    Ok(Recorded {
        run,
        params: run_folder::read(&folder, "params.json").unwrap_or_default(),
        metrics: run_folder::read(&folder, "metrics.json").unwrap_or_default(),
        jobs: run_folder::read(&folder, "jobs.json").unwrap_or_default(),
    })
}

fn status(run: &RunFile) -> &'static str {
    run.status.map_or("unfinished", crate::event::RunStatus::as_str)
}

fn list(json: bool) -> Result<(), Failure> {
    let all = run_folder::list(&runs_folder());
    if json {
        print_json(&all.into_iter().map(|(_, run)| run).collect::<Vec<_>>());
        return Ok(());
    }
    let mut rows =
        vec![["run", "status", "cached", "computed", "seconds", "commit", "set"].map(str::to_owned).to_vec()];
    for (_, run) in all {
        let counts = run.counts.unwrap_or_default();
        let seconds =
            run.ended_ms.map_or_else(|| "-".to_owned(), |end| format!("{:.1}", (end - run.started_ms) as f64 / 1e3));
        let commit = run.git.as_ref().map_or_else(
            || "-".to_owned(),
            |git| format!("{}{}", &git.commit[..7.min(git.commit.len())], if git.dirty { "+" } else { "" }),
        );
        let status = status(&run).to_owned();
        rows.push(vec![
            run.id,
            status,
            counts.hits.to_string(),
            counts.computed.to_string(),
            seconds,
            commit,
            run.sets.join(" "),
        ]);
    }
    print(&table(&rows));
    Ok(())
}

fn show(name: &str, json: bool) -> Result<(), Failure> {
    let recorded = recorded(name)?;
    if json {
        print_json(&json!({
            "run": recorded.run, "params": recorded.params, "metrics": recorded.metrics, "jobs": recorded.jobs,
        }));
        return Ok(());
    }
    let run = &recorded.run;
    let counts = run.counts.unwrap_or_default();
    let mut text =
        format!("run       {}\npipeline  {} ({})\nstatus    {}\n", run.id, run.pipeline, run.file, status(run));
    text.push_str(&format!(
        "jobs      {} cached, {} computed, {} failed, {} not run\n",
        counts.hits, counts.computed, counts.failed, counts.skipped
    ));
    if let Some(git) = &run.git {
        text.push_str(&format!(
            "commit    {}{}\n",
            git.commit,
            if git.dirty { " with uncommitted changes" } else { "" }
        ));
    }
    let rows: Vec<Vec<String>> =
        recorded.params.iter().map(|(name, value)| vec![format!("  {name}"), value.clone()]).collect();
    text.push_str(&format!("\nparameters\n{}", table(&rows)));
    let rows: Vec<Vec<String>> = last_values(&recorded.metrics)
        .into_iter()
        .map(|(key, value)| vec![format!("  {key}"), format!("{value:.4}")])
        .collect();
    text.push_str(&format!("\nmetrics (last step)\n{}", table(&rows)));
    print(&text);
    Ok(())
}

fn last_values(points: &[MetricPoint]) -> BTreeMap<String, f64> {
    let mut last: BTreeMap<String, (i64, f64)> = BTreeMap::new();
    for point in points {
        let entry = last.entry(point.key.clone()).or_insert((point.step, point.value));
        if point.step >= entry.0 {
            *entry = (point.step, point.value);
        }
    }
    last.into_iter().map(|(key, (_, value))| (key, value)).collect()
}

fn diff(a: &str, b: &str, json: bool) -> Result<(), Failure> {
    let (a, b) = (recorded(a)?, recorded(b)?);
    let params = differing(&a.params, &b.params);
    let format_all = |metrics: &[MetricPoint]| -> BTreeMap<String, String> {
        last_values(metrics).into_iter().map(|(key, value)| (key, format!("{value:.6}"))).collect()
    };
    let metrics = differing(&format_all(&a.metrics), &format_all(&b.metrics));
    let outputs = |jobs: &[JobFile]| -> BTreeMap<String, String> {
        let mut by_node: BTreeMap<String, String> = BTreeMap::new();
        for job in jobs {
            let digests: Vec<String> = job.outputs.values().map(|digest| digest.short()).collect();
            by_node.entry(job.job.node.clone()).or_default().push_str(&digests.concat());
        }
        by_node
    };
    let nodes: Vec<String> = differing(&outputs(&a.jobs), &outputs(&b.jobs)).into_iter().map(|row| row.0).collect();
    if json {
        let rows = |rows: &[(String, Option<String>, Option<String>)]| -> Vec<serde_json::Value> {
            rows.iter().map(|(name, a, b)| json!({"name": name, "a": a, "b": b})).collect()
        };
        print_json(&json!({
            "a": a.run.id, "b": b.run.id, "params": rows(&params), "metrics": rows(&metrics), "nodes_with_other_outputs": nodes,
        }));
        return Ok(());
    }
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![vec![String::new(), a.run.id.clone(), b.run.id.clone()]];
    rows.extend(params.iter().chain(&metrics).map(|(name, a, b)| vec![name.clone(), shown(a), shown(b)]));
    let mut text = if rows.len() == 1 { "no parameter or metric differs\n".to_owned() } else { table(&rows) };
    if !nodes.is_empty() {
        text.push_str(&format!("nodes with other outputs: {}\n", nodes.join(", ")));
    }
    print(&text);
    Ok(())
}

type Differing = Vec<(String, Option<String>, Option<String>)>;

fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Differing {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differing.map(|name| (name.clone(), a.get(name).cloned(), b.get(name).cloned())).collect()
}
