//! `ecgpipe plan`: every job, whether it would be a hit, and why not.

use std::collections::BTreeMap;

use ecgpipe_sdk::Registry;
use serde::Serialize;

use super::{Exit, Failure, Wiring, load, on_device, open_work_store, print, print_json, run, surroundings, table};
use crate::{
    cli::PlanArgs,
    engine::{Request, RunReport, run as run_engine},
    expand::Surroundings,
    explain::Why,
    plan::Plan,
    store::Store,
};

#[derive(Serialize)]
struct NodePlan {
    node: String,
    uses: String,
    jobs: usize,
    cached: usize,
    to_compute: usize,
    /// Distinct reasons, each with the number of jobs.
    why: BTreeMap<String, usize>,
}

pub(super) fn plan(args: &PlanArgs, wiring: &Wiring) -> Result<Exit, Failure> {
    let (_, plan) = load(&on_device(&args.pipeline, &args.work, &wiring.registry)?, &wiring.registry)?;
    let store = open_work_store(&args.work)?;
    let (targets, force) = (&args.work.targets, &args.work.force);
    let report = dry_run(&plan, &wiring.registry, &store, &surroundings(args.work.offline), targets, force)?;
    if args.json {
        print_json(&summarise(&plan, &report));
    } else {
        print(&outlook(&plan, &report));
    }
    Ok(Exit::Success)
}

/// What a run would do, node by node, for people.
pub(super) fn outlook(plan: &Plan, report: &RunReport) -> String {
    let mut rows = vec![node_head()];
    for node in summarise(plan, report) {
        rows.push(node_row(&node.node, &node.uses, [node.jobs, node.cached, node.to_compute], &node.why));
    }
    table(&rows)
}

/// The head of a table of nodes, for [`node_row`].
pub(super) fn node_head() -> Vec<String> {
    ["node", "stage", "jobs", "cached", "to compute", "why"].map(str::to_owned).to_vec()
}

/// A node's line: how many jobs it has, how many of them are cached and how many are to be computed, and the first reasons.
pub(super) fn node_row(name: &str, uses: &str, counts: [usize; 3], why: &BTreeMap<String, usize>) -> Vec<String> {
    let [.., to_compute_n] = counts;
    let why: Vec<String> = why
        .iter()
        .take(3)
        .map(|(why, job_n)| if *job_n == to_compute_n { why.clone() } else { format!("{job_n}x {why}") })
        .collect();
    let [jobs, cached, to_compute] = counts.map(|job_n| job_n.to_string());
    vec![name.to_owned(), uses.to_owned(), jobs, cached, to_compute, why.join("; ")]
}

/// What a run would do: every job's key and reason, as far as they are known before anything is computed.
pub(super) fn dry_run(
    plan: &Plan,
    registry: &Registry,
    store: &Store,
    surroundings: &Surroundings,
    targets: &[String],
    force: &[String],
) -> Result<RunReport, Failure> {
    let request = Request {
        plan,
        registry,
        store,
        surroundings,
        selected: plan.select(targets)?,
        force: run::named(plan, force)?,
        jobs: 1,
        keep_going: true,
        dry_run: true,
        previous: &super::previous(plan.name()),
        cancel: run::cancel_on_signal(),
        events: &|_| {},
    };
    run_engine(&request).map_err(run::engine_failure)
}

fn summarise(plan: &Plan, report: &RunReport) -> Vec<NodePlan> {
    let mut nodes: BTreeMap<usize, NodePlan> = BTreeMap::new();
    let known = report.jobs.iter().map(|job| (job.node_idx, job.why.as_ref()));
    let waiting = report.waiting.iter().map(|job| (job.node_idx, Some(&job.why)));
    // How many jobs of a node are computed for reasons of their own: others that wait for the only one are told its record.
    let mut own_n: BTreeMap<&str, usize> = BTreeMap::new();
    for job in report.jobs.iter().filter(|job| job.why.is_some()) {
        *own_n.entry(job.name.node.as_str()).or_default() += 1;
    }
    for (node_idx, why) in known.chain(waiting) {
        let of_plan = &plan.nodes()[node_idx];
        let node = nodes.entry(node_idx).or_insert_with(|| NodePlan {
            node: of_plan.name.clone(),
            uses: of_plan.uses.clone(),
            jobs: 0,
            cached: 0,
            to_compute: 0,
            why: BTreeMap::new(),
        });
        node.jobs += 1;
        let Some(why) = why else {
            node.cached += 1;
            continue;
        };
        node.to_compute += 1;
        let is_only = match why {
            Why::Waits { job, .. } => own_n.get(job.node.as_str()) == Some(&1),
            _ => own_n.get(of_plan.name.as_str()) == Some(&1),
        };
        let reason = if is_only { why.to_string() } else { why.general() };
        *node.why.entry(reason).or_default() += 1;
    }
    nodes.into_values().collect()
}
