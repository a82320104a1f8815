//! `ecgpipe plan`: every job, whether it would be a hit, and why not.

use std::{collections::BTreeMap, sync::Mutex};

use serde::Serialize;

use super::{Exit, Failure, Wiring, load, open_work_store, print, print_json, run, surroundings, table};
use crate::{
    cli::PlanArgs,
    engine::{Request, run as run_engine},
    event::Event,
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
    let (_, plan) = load(&args.pipeline, &wiring.registry)?;
    let store = open_work_store(&args.work)?;
    let previous = super::previous(plan.name());
    let events = Mutex::new(Vec::new());
    let tell = |event: Event| events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    let request = Request {
        plan: &plan,
        registry: &wiring.registry,
        store: &store,
        surroundings: &surroundings(args.work.offline),
        selected: plan.select(&args.work.targets)?,
        force: run::named(&plan, &args.work.force)?,
        jobs: 1,
        keep_going: true,
        dry_run: true,
        previous: &previous,
        cancel: run::cancel_on_signal(),
        events: &tell,
    };
    run_engine(&request).map_err(run::engine_failure)?;
    let nodes = summarise(&plan, &events.into_inner().unwrap_or_default());
    if args.json {
        print_json(&nodes);
        return Ok(Exit::Success);
    }
    let mut rows = vec![["node", "stage", "jobs", "cached", "to compute", "why"].map(str::to_owned).to_vec()];
    for node in &nodes {
        let why: Vec<String> = node
            .why
            .iter()
            .take(3)
            .map(|(why, job_n)| if *job_n == node.to_compute { why.clone() } else { format!("{job_n}x {why}") })
            .collect();
        rows.push(vec![
            node.node.clone(),
            node.uses.clone(),
            node.jobs.to_string(),
            node.cached.to_string(),
            node.to_compute.to_string(),
            why.join("; "),
        ]);
    }
    print(&table(&rows));
    Ok(Exit::Success)
}

fn summarise(plan: &crate::plan::Plan, events: &[Event]) -> Vec<NodePlan> {
    let mut nodes: BTreeMap<String, NodePlan> = BTreeMap::new();
    let mut order = Vec::new();
    for event in events {
        match event {
            Event::Planned { jobs, order: names } => {
                order.clone_from(names);
                for name in names {
                    let uses = plan.find(name).map(|idx| plan.nodes()[idx].uses.clone()).unwrap_or_default();
                    let node = NodePlan {
                        node: name.clone(),
                        uses,
                        jobs: jobs[name],
                        cached: 0,
                        to_compute: 0,
                        why: BTreeMap::new(),
                    };
                    nodes.insert(name.clone(), node);
                }
            }
            Event::Hit { job, .. } => {
                if let Some(node) = nodes.get_mut(&job.node) {
                    node.cached += 1;
                }
            }
            Event::Miss { job, why, .. } => {
                if let Some(node) = nodes.get_mut(&job.node) {
                    node.to_compute += 1;
                    *node.why.entry(why.clone()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    order.iter().filter_map(|name| nodes.remove(name)).collect()
}
