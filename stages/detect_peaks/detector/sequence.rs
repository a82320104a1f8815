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
        let weak = ln(TUNED.noise_ratio * candidate.noise / candidate.energy).max(0.0);
        let rival = rival(&candidate, earlier, work_hz);
        let excess = rival.map_or(0.0, |rival| ln(rival.energy / candidate.energy) + TUNED.rival_margin);
        Self {
            prior: likeness - TUNED.noise_weight * weak,
            rival_idx: rival.map(|rival| rival.work_idx),
            rival_cost: TUNED.rival_weight * excess.max(0.0),
            candidate,
        }
    }
}

/// The strongest candidate shortly before: stepping over it must be worth it.
fn rival<'a>(here: &Candidate, earlier: &'a [Judged], work_hz: f32) -> Option<&'a Candidate> {
    /// Closer maxima belong to the same deflection.
    const SAME_DEFLECTION_S: f32 = 0.09;
    let mut rival: Option<&Candidate> = None;
    for Judged { candidate, .. } in earlier.iter().rev() {
        let distance_s = (here.work_idx - candidate.work_idx) as f32 / work_hz;
        if distance_s > TUNED.rival_s {
            break;
        }
        if distance_s > SAME_DEFLECTION_S && rival.is_none_or(|rival| candidate.energy > rival.energy) {
            rival = Some(candidate);
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

impl Surroundings {
    /// For (positive) or against (negative) a beat.
    fn evidence(&self, judged: &Judged) -> f32 {
        let candidate = &judged.candidate;
        let scale = self.threshold * (self.level + TUNED.noise_part * candidate.noise);
        (ln(candidate.energy / scale) * TUNED.evidence_slope).min(TUNED.evidence_max) + judged.prior
    }

    /// What an RR interval costs.
    fn rhythm_cost(&self, interval_s: f32) -> f32 {
        let Some(rr_s) = self.rr_s else { return 0.0 };
        let ratio = interval_s / rr_s;
        if ratio > TUNED.long_ratio {
            return (TUNED.long_weight * ln(ratio / TUNED.long_ratio)).min(TUNED.long_max);
        }
        let missing = |least: f32, value: f32| if value < least { ln(least / value) } else { 0.0 };
        TUNED.short_weight * missing(TUNED.short_ratio, ratio) + TUNED.hasty_weight * missing(TUNED.hasty_s, interval_s)
    }

    /// Whether a still longer interval costs no less.
    fn is_long(&self, interval_s: f32) -> bool {
        self.rr_s.is_some_and(|rr_s| interval_s > TUNED.long_ratio * rr_s)
    }

    /// What it costs that there is no beat for so long at an end. Half an interval is missing there.
    fn end_cost(&self, interval_s: f32) -> f32 {
        match self.rr_s {
            Some(rr_s) if interval_s > rr_s => self.rhythm_cost(interval_s + 0.5 * rr_s),
            _ => 0.0,
        }
    }

    /// What it costs to go from one beat to the next.
    fn step_cost(&self, from: &Candidate, to: &Judged, interval_s: f32, rhythm_cost: f32) -> f32 {
        let log_ratio = to.candidate.log_sharp_energy - from.log_sharp_energy;
        let wave_cost =
            wave_cost(&TUNED.t_wave, interval_s, -log_ratio) + wave_cost(&TUNED.p_wave, interval_s, log_ratio);
        let skips_rival = to.rival_idx.is_some_and(|rival_idx| from.work_idx < rival_idx);
        rhythm_cost + wave_cost + if skips_rival { to.rival_cost } else { 0.0 }
    }
}

/// What it costs that the weaker one of two beats may be a wave of the stronger one; `log_ratio` is the logarithm of how
/// much stronger that is.
fn wave_cost(test: &WaveTest, interval_s: f32, log_ratio: f32) -> f32 {
    if interval_s >= test.within_s {
        return 0.0;
    }
    let part = ((test.within_s - interval_s) / test.ramp_s).min(1.0);
    test.weight * (log_ratio + test.log_ratio).max(0.0) * part
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
    pub(super) work_hz: f32,
}

impl Open<'_> {
    fn seconds(&self, from_idx: i64, to_idx: i64) -> f32 {
        (to_idx - from_idx) as f32 / self.work_hz
    }
}

/// What [`best_sequence`] works on, kept between calls.
#[derive(Default)]
pub(super) struct Search {
    /// The best total of a sequence that ends at each candidate.
    totals: Vec<f32>,
    /// The beat before it in that sequence.
    before: Vec<Option<usize>>,
    /// The largest total up to and including each candidate.
    largest: Vec<f32>,
}

/// The sequence of open candidates with the largest sum of evidence less costs, as indices in ascending order.
///
/// Predecessors are looked for backwards. Costs are never negative and do not fall as a gap grows, so that the search
/// ends as soon as the best total so far, less what the gap costs already, is no gain: the result is exact, and the
/// usual candidate looks at a few predecessors only.
pub(super) fn best_sequence(open: &Open<'_>, around: &Surroundings, search: &mut Search, beats: &mut Vec<usize>) {
    let Search { totals, before, largest } = search;
    totals.clear();
    before.clear();
    largest.clear();
    for (idx, here) in open.candidates.iter().enumerate() {
        let here_idx = here.candidate.work_idx;
        let mut best = match open.anchor {
            Some(anchor) => {
                let interval_s = open.seconds(anchor.candidate.work_idx, here_idx);
                let cost = around.step_cost(&anchor.candidate, here, interval_s, around.rhythm_cost(interval_s));
                if interval_s < around.refractory_s { f32::NEG_INFINITY } else { -cost }
            }
            None => -around.end_cost(open.seconds(0, here_idx)) - here.rival_cost,
        };
        let mut best_before = None;
        for previous in (0..idx).rev() {
            let there = &open.candidates[previous].candidate;
            let interval_s = open.seconds(there.work_idx, here_idx);
            if interval_s < around.refractory_s {
                continue;
            }
            let rhythm_cost = around.rhythm_cost(interval_s);
            let growing_cost = if around.is_long(interval_s) { rhythm_cost } else { 0.0 };
            if largest[previous] - growing_cost <= best {
                break;
            }
            let total = totals[previous] - around.step_cost(there, here, interval_s, rhythm_cost);
            if total > best {
                (best, best_before) = (total, Some(previous));
            }
        }
        let total = best + around.evidence(here);
        totals.push(total);
        before.push(best_before);
        largest.push(largest.last().map_or(total, |&so_far: &f32| so_far.max(total)));
    }

    // No beat at all is a sequence as well, where there is one before.
    let nothing = open.anchor.map(|anchor| -around.end_cost(open.seconds(anchor.candidate.work_idx, open.end_idx)));
    let mut best = nothing.unwrap_or(f32::NEG_INFINITY);
    let mut last = None;
    for (idx, judged) in open.candidates.iter().enumerate().rev() {
        let total = totals[idx] - around.end_cost(open.seconds(judged.candidate.work_idx, open.end_idx));
        if total > best {
            (best, last) = (total, Some(idx));
        }
        if largest[idx] <= best {
            break;
        }
    }
    beats.clear();
    beats.extend(std::iter::successors(last, |&idx| before[idx]));
    beats.reverse();
}
