//! Owns the choice of beats among candidates: the most plausible sequence.
//!
//! Every candidate brings evidence: the logarithm of its energy over a part of the local QRS level, and what it has
//! from noise and shape. Every step from one beat to the next costs: a gap that is long for the local rhythm (so a weak
//! beat in it is believed: the search-back), a short one, a weak blunt candidate soon after a strong one (a T wave), a
//! weak one soon before a strong one (a P wave), and a step over a rival as strong (a T wave instead of the ventricular
//! beat before it). The sequence with the largest total is found by dynamic programming (Viterbi 1967).
//!
//! Invariant: the result is a function of the arguments. The module knows neither samples nor what is settled.

use super::{
    constants::{TUNED, WaveTest},
    energy::Candidate,
    logarithm::ln,
};

/// A candidate, with what does not depend on the beats around it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    /// Logarithm of its energy.
    log_energy: f32,
    /// Evidence from noise and shape.
    prior: f32,
    /// Where the strongest candidate shortly before is, if there is one.
    rival_idx: Option<i64>,
    /// What it costs to step over the rival.
    rival_cost: f32,
}

impl Judged {
    /// `likeness`: evidence from the shape. `earlier`: the candidates before, in time order.
    pub(super) fn new(candidate: Candidate, likeness: f32, earlier: &[Self], work_hz: f32) -> Self {
        let log_energy = ln(candidate.energy);
        let weak = (ln(TUNED.noise_ratio * candidate.noise) - log_energy).max(0.0);
        let rival = rival(&candidate, earlier, work_hz);
        let excess = rival.map_or(0.0, |rival| rival.log_energy - log_energy + TUNED.rival_margin);
        Self {
            prior: likeness - TUNED.noise_weight * weak,
            rival_idx: rival.map(|rival| rival.candidate.work_idx),
            rival_cost: TUNED.rival_weight * excess.max(0.0),
            log_energy,
            candidate,
        }
    }
}

/// The strongest candidate shortly before: stepping over it must be worth it.
fn rival<'a>(here: &Candidate, earlier: &'a [Judged], work_hz: f32) -> Option<&'a Judged> {
    /// Closer maxima belong to the same deflection.
    const SAME_DEFLECTION_S: f32 = 0.09;
    let mut rival: Option<&Judged> = None;
    for judged in earlier.iter().rev() {
        let distance_s = (here.work_idx - judged.candidate.work_idx) as f32 / work_hz;
        if distance_s > TUNED.rival_s {
            break;
        }
        let energy = judged.candidate.energy;
        if distance_s > SAME_DEFLECTION_S && rival.is_none_or(|rival| energy > rival.candidate.energy) {
            rival = Some(judged);
        }
    }
    rival
}

/// What holds around the decision: the same for all candidates of one search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// Energy of a typical QRS complex.
    pub(super) level: f32,
    /// Part of it that speaks neither for nor against a beat.
    pub(super) threshold: f32,
    /// The local RR interval; `None` as long as nothing is known of the rhythm.
    pub(super) rr_s: Option<f32>,
    /// No beat follows another within this time.
    pub(super) refractory_s: f32,
}

/// What follows from the surroundings for every candidate and step of one search.
///
/// Steps are many and short to judge, so that it is written without branches, and with logarithms made before.
struct Costs {
    around: Surroundings,
    /// Logarithms of intervals: what is longer costs as too long, what is shorter as too short or too hasty.
    log_long: f32,
    log_short: f32,
    log_hasty: f32,
}

impl Costs {
    fn new(around: &Surroundings) -> Self {
        let known = |interval_s: f32, otherwise: f32| if around.rr_s.is_some() { ln(interval_s) } else { otherwise };
        let rr_s = around.rr_s.unwrap_or(0.0);
        Self {
            around: *around,
            log_long: known(TUNED.long_ratio * rr_s, f32::INFINITY),
            log_short: known(TUNED.short_ratio * rr_s, f32::NEG_INFINITY),
            log_hasty: known(TUNED.hasty_s, f32::NEG_INFINITY),
        }
    }

    /// Logarithm of the energy that speaks neither for nor against a beat where there is so much noise.
    fn log_scale(&self, noise: f32) -> f32 {
        ln(self.around.threshold * (self.around.level + TUNED.noise_part * noise))
    }

    /// What it costs that an RR interval is long; it is given by its logarithm.
    fn long_cost(&self, log_interval: f32) -> f32 {
        least(TUNED.long_weight * positive(log_interval - self.log_long), TUNED.long_max)
    }

    /// What it costs that it is short.
    fn short_cost(&self, log_interval: f32) -> f32 {
        TUNED.short_weight * positive(self.log_short - log_interval)
            + TUNED.hasty_weight * positive(self.log_hasty - log_interval)
    }

    /// What it costs that there is no beat for so long at an end. Half an interval is missing there.
    fn end_cost(&self, interval_s: f32) -> f32 {
        match self.around.rr_s {
            Some(rr_s) if interval_s > rr_s => self.long_cost(ln(interval_s + 0.5 * rr_s)),
            _ => 0.0,
        }
    }

    /// What it costs that one of two beats may be a wave of the other one, and that one may be stepped over.
    fn wave_cost(&self, from: &Candidate, to: &Judged, interval_s: f32) -> f32 {
        let log_ratio = to.candidate.log_sharp_energy - from.log_sharp_energy;
        let skips_rival = to.rival_idx.is_some_and(|rival_idx| from.work_idx < rival_idx);
        wave_cost(&TUNED.t_wave, interval_s, -log_ratio)
            + wave_cost(&TUNED.p_wave, interval_s, log_ratio)
            + if skips_rival { to.rival_cost } else { 0.0 }
    }
}

/// What it costs that the weaker one of two beats may be a wave of the stronger one; `log_ratio` is the logarithm of how
/// much stronger that is.
fn wave_cost(test: &WaveTest, interval_s: f32, log_ratio: f32) -> f32 {
    let part = least(positive((test.within_s - interval_s) * (1.0 / test.ramp_s)), 1.0);
    test.weight * positive(log_ratio + test.log_ratio) * part
}

/// The larger one of a number and zero; one instruction, which `f32::max` with its care for NaN is not.
fn positive(value: f32) -> f32 {
    if value > 0.0 { value } else { 0.0 }
}

/// The smaller one, likewise.
fn least(value: f32, limit: f32) -> f32 {
    if value < limit { value } else { limit }
}

/// The stretch to decide on.
#[derive(Clone, Copy)]
pub(super) struct Open<'a> {
    /// The last beat that is settled; without one, the stretch starts at working sample 0.
    pub(super) anchor: Option<&'a Judged>,
    /// All candidates after it that are not settled, in time order.
    pub(super) candidates: &'a [Judged],
    /// Where the stretch ends, in working samples.
    pub(super) end_idx: i64,
    /// The time of a working sample.
    pub(super) step_s: f32,
}

impl Open<'_> {
    fn seconds(&self, from_idx: i64, to_idx: i64) -> f32 {
        (to_idx - from_idx) as f32 * self.step_s
    }
}

/// What [`best_sequence`] works on, kept between calls.
pub(super) struct Search {
    /// Logarithms of intervals in s, by their number of working samples.
    log_intervals: Vec<f32>,
    nodes: Vec<Node>,
}

/// A candidate in the search.
struct Node {
    candidate_idx: usize,
    /// The best total of a sequence that ends here.
    total: f32,
    /// The largest total up to here.
    largest: f32,
    /// The beat before it in the sequence that ends here; past the last node if there is none.
    before: usize,
}

impl Search {
    pub(super) fn new(work_hz: f32) -> Self {
        /// At no rhythm does a longer interval cost more: 2 s times `long_ratio` and what takes the cost to `long_max`.
        const LONGEST_S: f32 = 5.0;
        let interval_n = (LONGEST_S * work_hz).ceil() as usize;
        let log_intervals = (0..=interval_n).map(|samples| ln(samples as f32 / work_hz)).collect();
        Self { log_intervals, nodes: Vec::new() }
    }
}

/// The sequence of open candidates with the largest sum of evidence less costs, as indices in ascending order.
///
/// Predecessors are looked for backwards. Costs are never negative and do not fall as a gap grows, so that the search
/// ends as soon as the best total so far, less what the gap costs already, is no gain, and what can be no beat is left
/// out: the result is exact, and the usual candidate looks at a few predecessors only.
pub(super) fn best_sequence(open: &Open<'_>, around: &Surroundings, search: &mut Search, beats: &mut Vec<usize>) {
    let Search { log_intervals, nodes } = search;
    let log_interval =
        |from_idx: i64, to_idx: i64| log_intervals[(log_intervals.len() - 1).min((to_idx - from_idx) as usize)];
    let costs = Costs::new(around);
    // Candidates of one hop have the same.
    let (mut noise, mut log_scale) = (0.0, costs.log_scale(0.0));
    let least_evidence = least_evidence(open, around);
    nodes.clear();
    for (candidate_idx, here) in open.candidates.iter().enumerate() {
        if here.candidate.noise != noise {
            noise = here.candidate.noise;
            log_scale = costs.log_scale(noise);
        }
        let evidence = least((here.log_energy - log_scale) * TUNED.evidence_slope, TUNED.evidence_max) + here.prior;
        if evidence < least_evidence {
            continue;
        }
        let here_idx = here.candidate.work_idx;
        let mut best = match open.anchor {
            Some(anchor) => {
                let anchor_idx = anchor.candidate.work_idx;
                let interval_s = open.seconds(anchor_idx, here_idx);
                let log_interval = log_interval(anchor_idx, here_idx);
                let cost = costs.long_cost(log_interval)
                    + costs.short_cost(log_interval)
                    + costs.wave_cost(&anchor.candidate, here, interval_s);
                if interval_s < around.refractory_s { f32::NEG_INFINITY } else { -cost }
            }
            None => -costs.end_cost(open.seconds(0, here_idx)) - here.rival_cost,
        };
        let mut before = usize::MAX;
        for (previous, node) in nodes.iter().enumerate().rev() {
            let there = &open.candidates[node.candidate_idx].candidate;
            let interval_s = open.seconds(there.work_idx, here_idx);
            if interval_s < around.refractory_s {
                continue;
            }
            let log_interval = log_interval(there.work_idx, here_idx);
            let long_cost = costs.long_cost(log_interval);
            if node.largest - long_cost <= best {
                break;
            }
            let cost = long_cost + costs.short_cost(log_interval) + costs.wave_cost(there, here, interval_s);
            let total = node.total - cost;
            (best, before) = if total > best { (total, previous) } else { (best, before) };
        }
        let total = best + evidence;
        let largest = nodes.last().map_or(total, |node: &Node| node.largest.max(total));
        nodes.push(Node { candidate_idx, total, largest, before });
    }

    // No beat at all is a sequence as well, where there is one before.
    let nothing = open.anchor.map(|anchor| -costs.end_cost(open.seconds(anchor.candidate.work_idx, open.end_idx)));
    let mut best = nothing.unwrap_or(f32::NEG_INFINITY);
    let mut last = None;
    for (idx, node) in nodes.iter().enumerate().rev() {
        let work_idx = open.candidates[node.candidate_idx].candidate.work_idx;
        let total = node.total - costs.end_cost(open.seconds(work_idx, open.end_idx));
        if total > best {
            (best, last) = (total, Some(idx));
        }
        if node.largest <= best {
            break;
        }
    }
    beats.clear();
    let path = std::iter::successors(last, |&idx| Some(nodes[idx].before).filter(|&before| before < nodes.len()));
    beats.extend(path.map(|idx| nodes[idx].candidate_idx));
    beats.reverse();
}

/// A candidate with less evidence is in no best sequence: to leave it out saves more than it costs.
///
/// It costs at most that one gap more is long and one rival more is stepped over. Beats near enough for a cost between
/// waves have no room for another one between them, unless the refractory period is set shorter.
fn least_evidence(open: &Open<'_>, around: &Surroundings) -> f32 {
    let has_room = 2.0 * around.refractory_s < TUNED.t_wave.within_s.max(TUNED.p_wave.within_s);
    // Without an anchor, a sequence has at least one beat.
    if has_room || open.anchor.is_none() {
        return f32::NEG_INFINITY;
    }
    -TUNED.long_max - open.candidates.iter().fold(0.0, |most: f32, judged| most.max(judged.rival_cost))
}
