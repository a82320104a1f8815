//! Owns the question "what may run next": a pure state machine over jobs, without clock, thread or I/O.
//!
//! Jobs are laid out node by node: a node that runs per record has one job a record, any other node one job. Dependencies
//! are between nodes: on the same record's job (`Each` to `Each`), or on all of a node's jobs (`All`, `One`). The second
//! sort is counted once a node, so the cost is linear in the number of jobs.
//!
//! Invariant: no job is given out before everything that it depends on is done
//! (`tests::no_job_starts_before_its_inputs`).
//! Invariant: the order in which jobs are given out does not depend on when others finish, except through dependencies:
//! among ready jobs it is always the most downstream node, then the first record.

use std::collections::BTreeSet;

/// What the schedule must know of a node.
#[derive(Clone, Debug)]
pub struct NodeShape {
    /// Jobs: the number of records, or 1.
    pub job_n: usize,
    /// Whether it runs per record.
    pub per_record: bool,
    /// Nodes that it depends on, each with whether the dependency is record by record.
    pub needs: Vec<Need>,
}

/// A dependency on an earlier node.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The node, by position.
    pub node_idx: usize,
    /// True: on the same record's job. False: on all of its jobs.
    pub same_record: bool,
}

/// One job: node and record by position (record 0 for a node that does not run per record).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The node.
    pub node_idx: usize,
    /// The record.
    pub record_idx: usize,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its outputs are there.
    Done,
    /// They are not, and what depends on them cannot run.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { missing: usize },
    Ready,
    Running,
    Done,
    Failed,
    Skipped,
}

/// The state of all jobs.
pub struct Schedule {
    nodes: Vec<Node>,
    ready: BTreeSet<(std::cmp::Reverse<usize>, usize)>,
    open_n: usize,
}

struct Node {
    states: Vec<State>,
    undone_n: usize,
    per_record: bool,
    needs: Vec<Need>,
    dependents: Vec<Need>,
}

impl Schedule {
    /// Nodes in topological order; those that are not `selected` count as done from the start and are never given out.
    #[must_use]
    pub fn new(shapes: &[NodeShape], selected: &BTreeSet<usize>) -> Self {
        let mut nodes: Vec<Node> = shapes
            .iter()
            .enumerate()
            .map(|(node_idx, shape)| {
                let chosen = selected.contains(&node_idx);
                let state = if chosen { State::Waiting { missing: 0 } } else { State::Done };
                Node {
                    states: vec![state; shape.job_n],
                    undone_n: if chosen { shape.job_n } else { 0 },
                    per_record: shape.per_record,
                    needs: shape.needs.clone(),
                    dependents: Vec::new(),
                }
            })
            .collect();
        // A node that is not selected waits for nothing; its records need not even be known.
        for (node_idx, shape) in shapes.iter().enumerate().filter(|(node_idx, _)| selected.contains(node_idx)) {
            for need in &shape.needs {
                nodes[need.node_idx].dependents.push(Need { node_idx, same_record: need.same_record });
            }
        }
        let open_n = nodes.iter().map(|node| node.undone_n).sum();
        let mut schedule = Self { nodes, ready: BTreeSet::new(), open_n };
        for node_idx in 0..schedule.nodes.len() {
            for record_idx in 0..schedule.nodes[node_idx].states.len() {
                schedule.count_missing(JobId { node_idx, record_idx });
            }
        }
        schedule
    }

    /// Gives out the next job; it counts as running until [`Schedule::finish`].
    pub fn next_job(&mut self) -> Option<JobId> {
        let (std::cmp::Reverse(node_idx), record_idx) = self.ready.pop_first()?;
        let job = JobId { node_idx, record_idx };
        *self.state_mut(job) = State::Running;
        Some(job)
    }

    /// Records the end of a running job. On failure, returns the jobs that can no longer run, in order.
    pub fn finish(&mut self, job: JobId, end: End) -> Vec<JobId> {
        debug_assert_eq!(*self.state_mut(job), State::Running, "{job:?}");
        self.open_n -= 1;
        match end {
            End::Done => {
                *self.state_mut(job) = State::Done;
                self.nodes[job.node_idx].undone_n -= 1;
                let complete = self.nodes[job.node_idx].undone_n == 0;
                for need in self.nodes[job.node_idx].dependents.clone() {
                    if need.same_record {
                        self.meet(JobId { node_idx: need.node_idx, record_idx: job.record_idx });
                    } else if complete {
                        for record_idx in 0..self.nodes[need.node_idx].states.len() {
                            self.meet(JobId { node_idx: need.node_idx, record_idx });
                        }
                    }
                }
                Vec::new()
            }
            End::Failed => {
                *self.state_mut(job) = State::Failed;
                let mut skipped = BTreeSet::new();
                self.skip_dependents(job, &mut skipped);
                skipped.into_iter().collect()
            }
        }
    }

    /// Takes back that the `lost` jobs are done, because their outputs turned out to be gone, and lets the running job
    /// `waiter`, which depends on them, wait. Jobs that were already done keep their results: outputs are functions of
    /// inputs, so that the second computation gives the same.
    pub fn reopen(&mut self, lost: &BTreeSet<JobId>, waiter: JobId) {
        for &job in lost {
            if *self.state_mut(job) == State::Done {
                self.open_n += 1;
                self.nodes[job.node_idx].undone_n += 1;
                self.make_ready(job);
            }
        }
        *self.state_mut(waiter) = State::Waiting { missing: 0 };
        // A node of which a whole other one waits is gone through once, however many of that one's jobs are lost.
        let (mut affected, mut whole) = (BTreeSet::new(), BTreeSet::new());
        for job in lost {
            for need in &self.nodes[job.node_idx].dependents {
                if need.same_record {
                    affected.insert(JobId { node_idx: need.node_idx, record_idx: job.record_idx });
                } else {
                    whole.insert(need.node_idx);
                }
            }
        }
        for node_idx in whole {
            let records = 0..self.nodes[node_idx].states.len();
            affected.extend(records.map(|record_idx| JobId { node_idx, record_idx }));
        }
        affected.insert(waiter);
        for job in affected {
            self.count_missing(job);
        }
    }

    /// True when no job is left that could still run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open_n == 0
    }

    /// Every job that neither ended nor was skipped, in order: what a stopped run leaves undone.
    #[must_use]
    pub fn open_jobs(&self) -> Vec<JobId> {
        let open = |state: &State| matches!(state, State::Waiting { .. } | State::Ready | State::Running);
        let jobs = self.nodes.iter().enumerate().flat_map(|(node_idx, node)| {
            let jobs = node.states.iter().enumerate().filter(move |(_, state)| open(state));
            jobs.map(move |(record_idx, _)| JobId { node_idx, record_idx })
        });
        jobs.collect()
    }

    /// Counts anew what a waiting job still waits for.
    fn count_missing(&mut self, job: JobId) {
        if !matches!(self.state_mut(job), State::Waiting { .. }) {
            return;
        }
        let unmet = |need: &&Need| {
            let node = &self.nodes[need.node_idx];
            if need.same_record { node.states[job.record_idx] != State::Done } else { node.undone_n > 0 }
        };
        let missing = self.nodes[job.node_idx].needs.iter().filter(unmet).count();
        if missing == 0 {
            self.make_ready(job);
        } else {
            *self.state_mut(job) = State::Waiting { missing };
        }
    }

    fn meet(&mut self, job: JobId) {
        if let State::Waiting { missing } = self.state_mut(job) {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.make_ready(job);
            }
        }
    }

    fn skip_dependents(&mut self, job: JobId, skipped: &mut BTreeSet<JobId>) {
        for need in self.nodes[job.node_idx].dependents.clone() {
            let node = &self.nodes[need.node_idx];
            let records = if need.same_record && node.per_record {
                job.record_idx..job.record_idx + 1
            } else {
                0..node.states.len()
            };
            for record_idx in records {
                let dependent = JobId { node_idx: need.node_idx, record_idx };
                if matches!(self.state_mut(dependent), State::Waiting { .. }) {
                    *self.state_mut(dependent) = State::Skipped;
                    self.open_n -= 1;
                    skipped.insert(dependent);
                    self.skip_dependents(dependent, skipped);
                }
            }
        }
    }

    fn make_ready(&mut self, job: JobId) {
        *self.state_mut(job) = State::Ready;
        self.ready.insert((std::cmp::Reverse(job.node_idx), job.record_idx));
    }

    fn state_mut(&mut self, job: JobId) -> &mut State {
        &mut self.nodes[job.node_idx].states[job.record_idx]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// source(3 records) -> each(3) -> gather(1) -> spread(3, needs gather and source per record)
    fn shapes() -> Vec<NodeShape> {
        let need = |node_idx, same_record| Need { node_idx, same_record };
        vec![
            NodeShape { job_n: 3, per_record: true, needs: vec![] },
            NodeShape { job_n: 3, per_record: true, needs: vec![need(0, true)] },
            NodeShape { job_n: 1, per_record: false, needs: vec![need(1, false)] },
            NodeShape { job_n: 3, per_record: true, needs: vec![need(2, false), need(0, true)] },
        ]
    }

    fn all() -> BTreeSet<usize> {
        (0..4).collect()
    }

    type Jobs = Vec<(usize, usize)>;

    /// Runs everything, one job after the other: the jobs in the order in which they were given out, and those skipped.
    fn drain(schedule: &mut Schedule, failing: Option<JobId>) -> (Jobs, Jobs) {
        let (mut order, mut skipped) = (Vec::new(), Vec::new());
        while let Some(job) = schedule.next_job() {
            order.push((job.node_idx, job.record_idx));
            let end = if Some(job) == failing { End::Failed } else { End::Done };
            skipped.extend(schedule.finish(job, end).into_iter().map(|job| (job.node_idx, job.record_idx)));
        }
        (order, skipped)
    }

    #[test]
    fn no_job_starts_before_its_inputs() {
        let mut schedule = Schedule::new(&shapes(), &all());
        let (order, skipped) = drain(&mut schedule, None);
        let chains = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)];
        assert_eq!(order, chains, "records go depth first, the gather after all of them");
        assert!(skipped.is_empty() && schedule.is_complete());
    }

    #[test]
    fn a_failure_skips_what_depends_on_it_and_nothing_else() {
        let mut schedule = Schedule::new(&shapes(), &all());
        let (order, skipped) = drain(&mut schedule, Some(JobId { node_idx: 1, record_idx: 1 }));
        assert_eq!(order, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
        assert_eq!(skipped, [(2, 0), (3, 0), (3, 1), (3, 2)]);
        assert!(schedule.is_complete());
    }

    #[test]
    fn unselected_nodes_are_never_given_out() {
        // As the expansion gives it: the records of a node that is not selected are not known.
        let mut shapes = shapes();
        shapes[3].job_n = 0;
        let mut schedule = Schedule::new(&shapes, &BTreeSet::from([0, 1]));
        let (order, _) = drain(&mut schedule, None);
        assert_eq!(order.len(), 6);
        assert!(schedule.is_complete());
    }

    #[test]
    fn a_lost_output_is_computed_again_before_its_reader() {
        let mut schedule = Schedule::new(&shapes(), &all());
        let source = JobId { node_idx: 0, record_idx: 0 };
        let reader = JobId { node_idx: 1, record_idx: 0 };
        assert_eq!(schedule.next_job(), Some(source));
        schedule.finish(source, End::Done);
        assert_eq!(schedule.next_job(), Some(reader));
        schedule.reopen(&BTreeSet::from([source]), reader);
        let (order, _) = drain(&mut schedule, None);
        let position = |job: (usize, usize)| order.iter().position(|&given| given == job);
        assert!(position((0, 0)) < position((1, 0)) && position((1, 0)).is_some(), "{order:?}");
        assert_eq!(order.len(), 10, "every job once, the lost one again: {order:?}");
        assert!(schedule.is_complete());
    }

    #[test]
    fn a_job_that_waits_for_two_does_not_start_when_one_is_computed_again() {
        let need = |node_idx, same_record| Need { node_idx, same_record };
        let shape = |needs| NodeShape { job_n: 1, per_record: false, needs };
        // 0 and 1 are inputs of 3; 2 reads 0 and finds it lost while 1 still runs.
        let shapes =
            [shape(vec![]), shape(vec![]), shape(vec![need(0, false)]), shape(vec![need(0, false), need(1, false)])];
        let mut schedule = Schedule::new(&shapes, &all());
        let job = |node_idx| JobId { node_idx, record_idx: 0 };
        assert_eq!(schedule.next_job(), Some(job(1)));
        assert_eq!(schedule.next_job(), Some(job(0)));
        schedule.finish(job(0), End::Done);
        assert_eq!(schedule.next_job(), Some(job(2)));
        schedule.reopen(&BTreeSet::from([job(0)]), job(2));
        assert_eq!(schedule.next_job(), Some(job(0)));
        schedule.finish(job(0), End::Done);
        assert_eq!(schedule.next_job(), Some(job(2)));
        assert_eq!(schedule.next_job(), None, "node 3 still waits for node 1");
        schedule.finish(job(1), End::Done);
        assert_eq!(schedule.next_job(), Some(job(3)));
    }

    #[test]
    fn a_gather_over_no_records_runs_at_once() {
        let mut shapes = shapes();
        for shape in &mut shapes {
            shape.job_n = if shape.per_record { 0 } else { 1 };
        }
        let mut schedule = Schedule::new(&shapes, &all());
        assert_eq!(schedule.next_job(), Some(JobId { node_idx: 2, record_idx: 0 }));
    }
}
