//! Owns the QRS detector: where the beats of a record are.
//!
//! The detector sees the whole record before it decides, so it is not a chain of running thresholds but a search for
//! the most plausible *sequence* of beats. It stands in the line of Pan & Tompkins (1985: band-pass energy, signal and
//! noise levels, search-back, T-wave test), with their rules as costs instead of branches:
//!
//! 1. **Energy.** The lead is averaged down to about 125 Hz and passed through two pairs of Gabor filters (cosine and
//!    sine under one Gaussian, Gabor 1946). The magnitude of a pair is one smooth bump a QRS complex, whatever its
//!    polarity and shape. The narrow pair is tuned to QRS complexes of conducted beats, the wide one to those of
//!    ventricular beats.
//! 2. **Candidates** are the local maxima of the weighted sum of the two. P waves, T waves and noise are among them.
//! 3. **Sequence.** Every candidate brings evidence: the logarithm of its energy over a part of the local QRS level.
//!    Every step from one beat to the next costs: a gap that is long for the local rhythm (so a weak beat in it is
//!    believed: the search-back), a short one, a weak blunt candidate soon after a strong one (a T wave), a weak one
//!    soon before a strong one (a P wave), and a step over a rival as strong (a T wave instead of the ventricular beat
//!    before it). The sequence with the largest total is found by dynamic programming (Viterbi 1967). Local level and
//!    rhythm come from the sequence found before; there are three rounds, the first without any rhythm.
//! 4. **R-peaks.** Every beat is moved to the largest deflection of the QRS complex on the signal itself, see
//!    [`refine`].
//!
//! All constants are in `TUNED`, one set for every record, chosen by random search on the 22 records of DS1 (de Chazal
//! et al. 2004) alone. Filters are made for the sampling frequency at hand, so that 100 to 1000 Hz give the same
//! answer.
//!
//! Invariants: the result is in ascending order without doubles, inside the record, and a function of the arguments
//! alone; scaling or inverting all leads does not change which beats are found
//! (`tests::gain_polarity_and_offset_do_not_matter`). The module knows neither stages nor annotations.

use std::f32::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lead::interpolate_invalid;

/// The lowest sampling frequency that shows a QRS complex well enough to find it.
pub const MIN_SAMPLING_FREQUENCY_HZ: f64 = 50.0;

/// What a user may change of the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorParams {
    /// No beat follows another within this time, in ms (100 to 400): the heart's absolute refractory period (Pan &
    /// Tompkins 1985).
    #[schemars(range(min = 100, max = 400))]
    pub refractory_ms: f64,
    /// Energy that speaks neither for nor against a beat, in percent of the energy of the beats around it (1 to 100).
    /// Lower finds weaker beats and more noise.
    #[schemars(range(min = 1, max = 100))]
    pub threshold_percent: f64,
}

impl Default for DetectorParams {
    fn default() -> Self {
        Self { refractory_ms: 200.0, threshold_percent: THRESHOLD_PERCENT }
    }
}

/// The R-peaks of a record, as sample indices in ascending order.
///
/// `leads` are one or more leads in mV, the most trusted first; samples that are not finite are invalid; if the leads
/// differ in length, the shortest counts. With several leads, their energies are added, each by its own scale, and
/// R-peaks are placed on the first lead that is valid there. Below [`MIN_SAMPLING_FREQUENCY_HZ`] and without samples
/// the result is empty.
#[must_use]
pub fn detect(leads: &[&[f32]], sampling_frequency_hz: f64, params: &DetectorParams) -> Vec<i64> {
    let sample_n = leads.iter().map(|lead| lead.len()).min().unwrap_or(0);
    if sample_n == 0 || !sampling_frequency_hz.is_finite() || sampling_frequency_hz < MIN_SAMPLING_FREQUENCY_HZ {
        return Vec::new();
    }
    let leads: Vec<&[f32]> = leads.iter().map(|lead| &lead[..sample_n]).collect();
    let energy = Energy::of(&leads, sampling_frequency_hz);
    let candidates = candidates(&energy);
    let beats = select(&candidates, energy.duration_s(), params);
    let centres: Vec<i64> = beats.iter().map(|&idx| energy.sample_idx(candidates[idx].work_idx)).collect();
    refine(&leads, sampling_frequency_hz, &centres)
}

/// Moves every position to the largest deflection of the QRS complex around it: one position out for one in, in
/// ascending order if they were, without doubles if there were none.
///
/// The deflection is that of the lead smoothed over 14 ms (which keeps the QRS complex and removes what is above about
/// 40 Hz) from the median of the 0.5 s around it (which is on the baseline, since a QRS complex is a small part of
/// 0.5 s). It is looked for within 100 ms, and less than half way to the neighbours. An upward deflection wins over a
/// downward one unless the latter is `DOWNWARD_RATIO` times as large, so that beats with R and S waves of one size do
/// not alternate. A position outside the leads stays.
#[must_use]
pub fn refine(leads: &[&[f32]], sampling_frequency_hz: f64, centres: &[i64]) -> Vec<i64> {
    let sample_n = leads.iter().map(|lead| lead.len()).min().unwrap_or(0) as i64;
    let reach_n = (REFINE_REACH_S * sampling_frequency_hz) as i64;
    let mut scratch = Vec::new();
    let mut peak = |idx: usize| {
        let centre = centres[idx];
        if !(0..sample_n).contains(&centre) {
            return centre;
        }
        let reach = |neighbour: Option<&i64>| {
            neighbour.map_or(reach_n, |other| ((centre - other).abs() - 1) / 2).clamp(0, reach_n)
        };
        let first = (centre - reach(centres[..idx].last())).max(0) as usize;
        let last = (centre + reach(centres.get(idx + 1))).min(sample_n - 1) as usize;
        let valid = |lead: &&&[f32]| lead[first..=last].iter().all(|sample| sample.is_finite());
        let lead = leads.iter().find(valid).or(leads.first()).expect("a position inside a lead");
        largest_deflection(lead, sampling_frequency_hz, centre as usize, (first, last), &mut scratch) as i64
    };
    (0..centres.len()).map(&mut peak).collect()
}

/// How far from the centre of its energy the R-peak of a beat may be.
const REFINE_REACH_S: f64 = 0.08;
/// Half of the time that counts for the baseline under a QRS complex.
const BASELINE_REACH_S: f64 = 0.25;
/// How many times as large a downward deflection must be to be the R-peak.
///
/// The reference annotators of MIT-BIH put their marks on the upward R wave where there is one, and on the downward
/// peak of the others. On DS1, lead 0, with
/// this ratio, 90.2 % of the R-peaks (of ventricular beats 57.2 %) are within 1 sample (3 ms) of the mark, 97.8 % (92.6
/// %) within 8 samples (22 ms).
const DOWNWARD_RATIO: f32 = 2.0;

fn largest_deflection(
    lead: &[f32],
    sampling_frequency_hz: f64,
    centre: usize,
    (first, last): (usize, usize),
    scratch: &mut Vec<f32>,
) -> usize {
    let baseline_reach_n = (BASELINE_REACH_S * sampling_frequency_hz) as usize;
    // 125 samples a second are enough for a median.
    let step = work_factor(sampling_frequency_hz);
    let around = &lead[centre.saturating_sub(baseline_reach_n)..(centre + baseline_reach_n + 1).min(lead.len())];
    scratch.clear();
    scratch.extend(around.iter().step_by(step).copied().filter(|sample| sample.is_finite()));
    let baseline = quantile(scratch, 0.5);
    let smooth_n = (0.0056 * sampling_frequency_hz) as usize;
    let mut high = (f32::NEG_INFINITY, centre);
    let mut low = (f32::INFINITY, centre);
    for idx in first..=last {
        let samples = &lead[idx.saturating_sub(smooth_n)..(idx + smooth_n + 1).min(lead.len())];
        let deflection = samples.iter().sum::<f32>() / samples.len() as f32 - baseline;
        // An invalid sample compares as neither.
        if deflection > high.0 {
            high = (deflection, idx);
        }
        if deflection < low.0 {
            low = (deflection, idx);
        }
    }
    if high.0 * DOWNWARD_RATIO >= -low.0 { high.1 } else { low.1 }
}

/// The frequency that leads are averaged down to, about: QRS complexes have no energy that matters above 40 Hz.
const WORK_HZ: f64 = 125.0;

/// How many samples are averaged into one.
fn work_factor(sampling_frequency_hz: f64) -> usize {
    (sampling_frequency_hz / WORK_HZ).round().max(1.0) as usize
}

/// Energy of QRS complexes over time, at the working frequency, in mV or (several leads) in parts of a typical QRS.
struct Energy {
    work_hz: f32,
    factor: usize,
    sample_n: usize,
    /// Weighted sum of the narrow and the wide filter's magnitude.
    total: Vec<f32>,
    /// The narrow filter's part in narrow and wide, by sample.
    narrow: Vec<f32>,
    /// Stretches of the working signal without valid samples in any lead.
    gaps: Vec<(usize, usize)>,
}

impl Energy {
    fn of(leads: &[&[f32]], sampling_frequency_hz: f64) -> Self {
        let factor = work_factor(sampling_frequency_hz);
        let work_hz = (sampling_frequency_hz / factor as f64) as f32;
        let sample_n = leads[0].len();
        let filters =
            [Gabor::new(TUNED.narrow_hz, TUNED.narrow_ms, work_hz), Gabor::new(TUNED.wide_hz, TUNED.wide_ms, work_hz)];
        let min_gap_n = (TUNED.min_gap_s * work_hz) as usize;
        let mut energy: Option<Self> = None;
        for lead in leads {
            let mut work = average(lead, factor);
            let gaps = gaps(&work, min_gap_n);
            interpolate_invalid(&mut work);
            let [narrow, wide] = [filters[0].magnitude(&work), filters[1].magnitude(&work)];
            let total: Vec<f32> = narrow.iter().zip(&wide).map(|(n, w)| n + TUNED.wide_part * w).collect();
            let one = Self { work_hz, factor, sample_n, total, narrow, gaps };
            let one = if leads.len() > 1 { one.scaled() } else { one };
            energy = Some(match energy {
                None => one,
                Some(sum) => sum.plus(&one),
            });
        }
        energy.expect("there is a lead")
    }

    /// By its own scale: the energy of a typical QRS complex becomes 1.
    fn scaled(mut self) -> Self {
        let scale = typical_energy(&block_maxima(&self.total, self.block_n()));
        if scale > 0.0 {
            self.total.iter_mut().chain(&mut self.narrow).for_each(|value| *value /= scale);
        }
        self
    }

    fn plus(mut self, other: &Self) -> Self {
        self.total.iter_mut().zip(&other.total).for_each(|(sum, value)| *sum += value);
        self.narrow.iter_mut().zip(&other.narrow).for_each(|(sum, value)| *sum += value);
        let in_both = |&(from, to): &(usize, usize)| {
            other.gaps.iter().map(move |&(a, b)| (a.max(from), b.min(to))).filter(|(from, to)| from < to)
        };
        self.gaps = self.gaps.iter().flat_map(in_both).collect();
        self
    }

    /// The narrow filter's part of the energy: high for sharp deflections, low for blunt ones.
    fn sharpness(&self, work_idx: usize) -> f32 {
        let wide = (self.total[work_idx] - self.narrow[work_idx]) / TUNED.wide_part;
        self.narrow[work_idx] / (self.narrow[work_idx] + wide)
    }

    fn block_n(&self) -> usize {
        (TUNED.block_s * self.work_hz) as usize
    }

    fn duration_s(&self) -> f32 {
        self.total.len() as f32 / self.work_hz
    }

    fn sample_idx(&self, work_idx: usize) -> i64 {
        (work_idx * self.factor + (self.factor - 1) / 2).min(self.sample_n - 1) as i64
    }
}

/// Means of `factor` samples each; NaN where more than half of them are invalid.
fn average(lead: &[f32], factor: usize) -> Vec<f32> {
    let mean = |samples: &[f32]| {
        let mean = samples.iter().sum::<f32>() / samples.len() as f32;
        if mean.is_finite() {
            return mean;
        }
        let valid = samples.iter().filter(|sample| sample.is_finite());
        let (total, valid_n) = valid.fold((0.0, 0), |(total, n), sample| (total + sample, n + 1));
        if 2 * valid_n < samples.len() || valid_n == 0 { f32::NAN } else { total / valid_n as f32 }
    };
    match factor {
        1 => lead.iter().map(|sample| if sample.is_finite() { *sample } else { f32::NAN }).collect(),
        _ => lead.chunks(factor).map(mean).collect(),
    }
}

/// Stretches of at least `min_n` invalid samples.
fn gaps(samples: &[f32], min_n: usize) -> Vec<(usize, usize)> {
    let mut gaps = Vec::new();
    let mut idx = 0;
    while let Some(offset) = samples[idx..].iter().position(|sample| sample.is_nan()) {
        let from = idx + offset;
        let to = samples[from..].iter().position(|sample| !sample.is_nan()).map_or(samples.len(), |n| from + n);
        if to - from >= min_n.max(1) {
            gaps.push((from, to));
        }
        idx = to;
    }
    gaps
}

/// A pair of linear-phase filters: a cosine and a sine of one frequency under one Gaussian, without gain at 0 Hz.
struct Gabor {
    /// Weights of the cosine filter from its middle to its end; it is even.
    even: Vec<f32>,
    /// Weights of the sine filter; it is odd.
    odd: Vec<f32>,
}

impl Gabor {
    fn new(centre_hz: f32, sigma_ms: f32, sampling_frequency_hz: f32) -> Self {
        let sigma_n = sigma_ms * 1e-3 * sampling_frequency_hz;
        let half_n = (3.0 * sigma_n).ceil() as usize;
        let window: Vec<f32> = (0..=half_n).map(|idx| (-0.5 * (idx as f32 / sigma_n).powi(2)).exp()).collect();
        let turn = 2.0 * PI * centre_hz / sampling_frequency_hz;
        let mut even: Vec<f32> = window.iter().enumerate().map(|(idx, w)| w * (turn * idx as f32).cos()).collect();
        let mut odd: Vec<f32> = window.iter().enumerate().map(|(idx, w)| w * (turn * idx as f32).sin()).collect();
        let total = |half: &[f32]| half[0] + 2.0 * half[1..].iter().sum::<f32>();
        let offset = total(&even) / total(&window);
        even.iter_mut().zip(&window).for_each(|(weight, w)| *weight -= offset * w);
        // A sine wave of the centre frequency and amplitude 1 gives about 1.
        let norm = total(&window) / 2.0;
        even.iter_mut().chain(&mut odd).for_each(|weight| *weight /= norm);
        Self { even, odd }
    }

    /// The magnitude of the pair at every sample; past both ends the signal counts as constant.
    fn magnitude(&self, signal: &[f32]) -> Vec<f32> {
        /// Samples at a time: the sums stay in the first-level cache.
        const BLOCK_N: usize = 512;
        let half_n = self.even.len() - 1;
        let (first, last) = (signal[0], signal[signal.len() - 1]);
        let mut padded = Vec::with_capacity(signal.len() + 2 * half_n);
        padded.resize(half_n, first);
        padded.extend_from_slice(signal);
        padded.resize(signal.len() + 2 * half_n, last);

        let mut output = Vec::with_capacity(signal.len());
        let (mut even, mut odd) = ([0.0f32; BLOCK_N], [0.0f32; BLOCK_N]);
        for start in (0..signal.len()).step_by(BLOCK_N) {
            let block_n = BLOCK_N.min(signal.len() - start);
            let (even, odd) = (&mut even[..block_n], &mut odd[..block_n]);
            let middle = start + half_n;
            even.iter_mut().zip(&padded[middle..]).for_each(|(sum, sample)| *sum = self.even[0] * sample);
            odd.fill(0.0);
            for distance in 1..=half_n {
                let (even_weight, odd_weight) = (self.even[distance], self.odd[distance]);
                let after = &padded[middle + distance..][..block_n];
                let before = &padded[middle - distance..][..block_n];
                for idx in 0..block_n {
                    even[idx] += even_weight * (after[idx] + before[idx]);
                    odd[idx] += odd_weight * (after[idx] - before[idx]);
                }
            }
            output.extend(even.iter().zip(&*odd).map(|(even, odd)| (even * even + odd * odd).sqrt()));
        }
        output
    }
}

/// A place where a beat may be.
struct Candidate {
    work_idx: usize,
    time_s: f32,
    /// Energy there.
    energy: f32,
    /// Logarithm of the energy, discounted for bluntness.
    log_sharp_energy: f32,
    /// Median energy of the seconds around: that of what is not QRS.
    noise: f32,
    /// Energy of a typical QRS complex of the minute around.
    level: f32,
}

/// All local maxima of the energy that could be a beat.
fn candidates(energy: &Energy) -> Vec<Candidate> {
    let total = &energy.total;
    let work_n = total.len();
    let block_n = energy.block_n().max(1);
    let maxima = block_maxima(total, block_n);
    let typical = typical_energy(&maxima);
    if typical.is_nan() || typical <= 0.0 {
        return Vec::new();
    }
    let mut scratch = Vec::new();
    let levels: Vec<f32> = (0..maxima.len())
        .map(|idx| {
            scratch.clear();
            scratch.extend_from_slice(around(&maxima, idx, TUNED.level_block_n, TUNED.level_block_n + 1));
            quantile(&mut scratch, 0.5).max(TUNED.level_floor * typical)
        })
        .collect();
    let noise_n = ((TUNED.noise_s * energy.work_hz) as usize).max(1);
    let noises: Vec<f32> = total
        .chunks(noise_n)
        .map(|stretch| {
            scratch.clear();
            scratch.extend(stretch.iter().step_by(3));
            quantile(&mut scratch, 0.5)
        })
        .collect();

    let reach_n = (TUNED.separation_s * energy.work_hz).round().max(1.0) as usize;
    let edge_n = ((TUNED.edge_s * energy.work_hz).ceil() as usize).max(1);
    let mut gaps = energy.gaps.iter().peekable();
    let mut candidates = Vec::new();
    for idx in edge_n..work_n.saturating_sub(edge_n) {
        let here = total[idx];
        // Written so that the usual sample costs two comparisons.
        if here <= total[idx - 1] || here < total[idx + 1] {
            continue;
        }
        let level = levels[idx / block_n];
        if here < TUNED.candidate_part * level || around(total, idx, reach_n, reach_n + 1).iter().any(|&e| e > here) {
            continue;
        }
        while gaps.next_if(|(_, to)| *to <= idx).is_some() {}
        if gaps.peek().is_some_and(|(from, _)| *from <= idx) {
            continue;
        }
        candidates.push(Candidate {
            work_idx: idx,
            time_s: idx as f32 / energy.work_hz,
            energy: here,
            log_sharp_energy: here.ln() + TUNED.sharpness_power * energy.sharpness(idx).ln(),
            noise: noises[idx / noise_n],
            level,
        });
    }
    candidates
}

fn block_maxima(total: &[f32], block_n: usize) -> Vec<f32> {
    total.chunks(block_n.max(1)).map(|block| block.iter().fold(0.0, |max, &e| if e > max { e } else { max })).collect()
}

/// The upper quartile of block maxima: above it in a record that is silent for up to three quarters of its time.
fn typical_energy(maxima: &[f32]) -> f32 {
    quantile(&mut maxima.to_vec(), 0.75)
}

/// The most plausible sequence of beats, as ascending indices into the candidates.
fn select(candidates: &[Candidate], duration_s: f32, params: &DetectorParams) -> Vec<usize> {
    let typical = quantile(&mut candidates.iter().map(|candidate| candidate.level).collect::<Vec<_>>(), 0.75);
    let threshold = (params.threshold_percent / 100.0) as f32;
    let first_threshold = threshold * (TUNED.first_threshold_percent / THRESHOLD_PERCENT) as f32;
    let evidence = |candidate: &Candidate, level: f32, threshold: f32| {
        let part = candidate.energy / (level + TUNED.noise_part * candidate.noise);
        let weak = (TUNED.noise_ratio * candidate.noise / candidate.energy).ln().max(0.0);
        ((part / threshold).ln() * TUNED.evidence_slope).min(TUNED.evidence_max) - TUNED.noise_weight * weak
    };
    let refractory_s = (params.refractory_ms / 1000.0) as f32;
    let mut expected: Vec<Expected> = candidates
        .iter()
        .map(|candidate| Expected { evidence: evidence(candidate, candidate.level, first_threshold), rr_s: None })
        .collect();
    let mut beats = best_sequence(candidates, &expected, duration_s, refractory_s);
    for _ in 0..2 {
        if beats.is_empty() {
            break;
        }
        let energies: Vec<f32> = beats.iter().map(|&idx| candidates[idx].energy).collect();
        let intervals: Vec<f32> =
            beats.windows(2).map(|pair| candidates[pair[1]].time_s - candidates[pair[0]].time_s).collect();
        let mut scratch = Vec::new();
        let mut local = |values: &[f32], idx: usize, before_n: usize, after_n: usize, part: f32| {
            scratch.clear();
            scratch.extend_from_slice(around(values, idx, before_n, after_n));
            if scratch.is_empty() { None } else { Some(quantile(&mut scratch, part)) }
        };
        let context: Vec<(f32, f32)> = (0..beats.len())
            .map(|idx| {
                let level_n = TUNED.level_beat_n;
                let level = local(&energies, idx, level_n, level_n + 1, TUNED.level_quantile).unwrap_or(0.0);
                let rr_s = local(&intervals, idx, TUNED.rr_beat_n, TUNED.rr_beat_n, 0.5).unwrap_or(0.8);
                (level.max(TUNED.level_floor * typical), rr_s.clamp(0.3, 2.0))
            })
            .collect();
        let mut nearest = 0;
        for (candidate, expected) in candidates.iter().zip(&mut expected) {
            let distance = |idx: usize| (candidates[beats[idx]].time_s - candidate.time_s).abs();
            while nearest + 1 < beats.len() && distance(nearest + 1) <= distance(nearest) {
                nearest += 1;
            }
            let (level, rr_s) = context[nearest];
            *expected = Expected { evidence: evidence(candidate, level, threshold), rr_s: Some(rr_s) };
        }
        beats = best_sequence(candidates, &expected, duration_s, refractory_s);
    }
    beats
}

/// What is expected of a candidate before the sequence is known.
struct Expected {
    /// For (positive) or against (negative) a beat.
    evidence: f32,
    /// The local RR interval; `None` as long as nothing is known of the rhythm.
    rr_s: Option<f32>,
}

impl Expected {
    /// What an RR interval costs.
    fn rhythm_cost(&self, interval_s: f32) -> f32 {
        let Some(rr_s) = self.rr_s else { return 0.0 };
        let ratio = interval_s / rr_s;
        if ratio > TUNED.long_ratio {
            TUNED.long_weight * (ratio / TUNED.long_ratio).ln()
        } else if ratio < TUNED.short_ratio {
            TUNED.short_weight * (TUNED.short_ratio / ratio).ln()
        } else {
            0.0
        }
    }

    /// Whether a still longer interval costs no less.
    fn is_long(&self, interval_s: f32) -> bool {
        self.rr_s.is_some_and(|rr_s| interval_s > TUNED.long_ratio * rr_s)
    }

    /// What it costs that the record has no beat for so long at an end. Half an interval is missing there.
    fn end_cost(&self, interval_s: f32) -> f32 {
        match self.rr_s {
            Some(rr_s) if interval_s > rr_s => self.rhythm_cost(interval_s + 0.5 * rr_s),
            _ => 0.0,
        }
    }
}

/// The sequence of candidates with the largest sum of evidence less costs.
///
/// Predecessors are looked for backwards. Costs are never negative and grow with a gap, so that the search ends as soon
/// as the best total so far, less what the gap costs already, is no gain: the result is exact, and the usual candidate
/// looks at a few predecessors only.
fn best_sequence(candidates: &[Candidate], expected: &[Expected], duration_s: f32, refractory_s: f32) -> Vec<usize> {
    let mut totals: Vec<f32> = Vec::with_capacity(candidates.len());
    let mut before: Vec<Option<usize>> = Vec::with_capacity(candidates.len());
    // The largest total up to and including each candidate.
    let mut largest: Vec<f32> = Vec::with_capacity(candidates.len());
    for (idx, (here, expected)) in candidates.iter().zip(expected).enumerate() {
        let rival = rival_before(candidates, idx);
        let rival_cost = rival.map_or(0.0, |rival| {
            let excess = (candidates[rival].energy / here.energy).ln() + TUNED.rival_margin;
            TUNED.rival_weight * excess.max(0.0)
        });
        let mut best = (-expected.end_cost(here.time_s) - rival_cost, None);
        for previous in (0..idx).rev() {
            let there = &candidates[previous];
            let interval_s = here.time_s - there.time_s;
            if interval_s < refractory_s {
                continue;
            }
            let rhythm_cost = expected.rhythm_cost(interval_s);
            let growing_cost = if expected.is_long(interval_s) { rhythm_cost } else { 0.0 };
            if largest[previous] - growing_cost <= best.0 {
                break;
            }
            let ratio = here.log_sharp_energy - there.log_sharp_energy;
            let wave_cost = TUNED.t_wave.cost(interval_s, -ratio) + TUNED.p_wave.cost(interval_s, ratio);
            let skip_cost = if rival.is_some_and(|rival| previous < rival) { rival_cost } else { 0.0 };
            let total = totals[previous] - rhythm_cost - wave_cost - skip_cost;
            if total > best.0 {
                best = (total, Some(previous));
            }
        }
        let total = best.0 + expected.evidence;
        totals.push(total);
        before.push(best.1);
        largest.push(largest.last().map_or(total, |&so_far: &f32| so_far.max(total)));
    }

    let mut last: Option<(f32, usize)> = None;
    for idx in (0..candidates.len()).rev() {
        let end_cost = expected[idx].end_cost(duration_s - candidates[idx].time_s);
        if last.is_none_or(|(total, _)| totals[idx] - end_cost > total) {
            last = Some((totals[idx] - end_cost, idx));
        }
        if last.is_some_and(|(total, _)| largest[idx] <= total) {
            break;
        }
    }
    let mut beats: Vec<usize> = std::iter::successors(last.map(|(_, idx)| idx), |&idx| before[idx]).collect();
    beats.reverse();
    beats
}

/// The strongest candidate shortly before: stepping over it must be worth it.
fn rival_before(candidates: &[Candidate], idx: usize) -> Option<usize> {
    /// Closer maxima belong to the same deflection.
    const SAME_DEFLECTION_S: f32 = 0.09;
    let mut rival: Option<usize> = None;
    for other in (0..idx).rev() {
        let distance_s = candidates[idx].time_s - candidates[other].time_s;
        if distance_s > TUNED.rival_s {
            break;
        }
        let stronger = rival.is_none_or(|rival| candidates[other].energy > candidates[rival].energy);
        if distance_s > SAME_DEFLECTION_S && stronger {
            rival = Some(other);
        }
    }
    rival
}

/// `values[idx - before_n..idx + after_n]`, cut to what there is.
fn around(values: &[f32], idx: usize, before_n: usize, after_n: usize) -> &[f32] {
    let end = (idx + after_n).min(values.len());
    &values[idx.saturating_sub(before_n).min(end)..end]
}

/// The value at that part of the sorted values; 0 if there are none.
fn quantile(values: &mut [f32], part: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let idx = ((values.len() - 1) as f32 * part).round() as usize;
    *values.select_nth_unstable_by(idx, f32::total_cmp).1
}

/// A pair of beats where the weaker one may be a wave of the stronger one's.
struct WaveTest {
    /// Longest time between wave and QRS complex.
    within_s: f32,
    /// The cost counts in full from this much below.
    ramp_s: f32,
    /// Energy of the weaker one, sharpness included, in parts of the stronger one, below which it costs.
    ratio: f32,
    /// Cost by the logarithm of what is missing.
    weight: f32,
}

impl WaveTest {
    /// `log_ratio`: logarithm of how much stronger the QRS complex is than the wave in question.
    fn cost(&self, interval_s: f32, log_ratio: f32) -> f32 {
        if interval_s >= self.within_s {
            return 0.0;
        }
        let missing = log_ratio + self.ratio.ln();
        let part = ((self.within_s - interval_s) / self.ramp_s).min(1.0);
        self.weight * missing.max(0.0) * part
    }
}

/// The constants of the method; `TUNED` says where they come from.
struct Constants {
    /// Centre frequency of the narrow filter.
    narrow_hz: f32,
    /// Standard deviation of its Gaussian.
    narrow_ms: f32,
    /// Centre frequency of the wide filter.
    wide_hz: f32,
    /// Standard deviation of its Gaussian.
    wide_ms: f32,
    /// Weight of the wide filter's energy beside the narrow one's.
    wide_part: f32,
    /// A candidate is the largest within this time on both sides.
    separation_s: f32,
    /// A candidate has at least this part of the local level.
    candidate_part: f32,
    /// No candidate lies this close to an end of the record, where half a deflection looks like a whole one.
    edge_s: f32,
    /// A gap in the signal at least this long has no candidates.
    min_gap_s: f32,
    /// The level before beats are known is the median over blocks of this length of their largest energy.
    block_s: f32,
    /// So many blocks on both sides.
    level_block_n: usize,
    /// No level is below this part of the record's typical one, so that the noise of a silent stretch is no heartbeat.
    level_floor: f32,
    /// Noise is the median energy of stretches of this length.
    noise_s: f32,
    /// How much of the noise is added to the level.
    noise_part: f32,
    /// A candidate with less than so many times the noise...
    noise_ratio: f32,
    /// ...loses evidence by the logarithm of what is missing.
    noise_weight: f32,
    /// As `threshold_percent`, in the first round.
    first_threshold_percent: f64,
    /// Evidence by the logarithm of the energy.
    evidence_slope: f32,
    /// The most that one candidate may say for itself.
    evidence_max: f32,
    /// Exponent of sharpness in the comparison with P and T waves.
    sharpness_power: f32,
    /// The level is a quantile of the energies of so many beats on both sides.
    level_beat_n: usize,
    /// Which quantile.
    level_quantile: f32,
    /// The local RR interval is the median of so many on both sides.
    rr_beat_n: usize,
    /// An RR interval longer than so many times the local one costs.
    long_ratio: f32,
    /// Cost by the logarithm.
    long_weight: f32,
    /// An RR interval shorter than so many times the local one costs.
    short_ratio: f32,
    /// Cost by the logarithm.
    short_weight: f32,
    /// A weak candidate after a beat.
    t_wave: WaveTest,
    /// A weak candidate before a beat.
    p_wave: WaveTest,
    /// How far back a rival may be.
    rival_s: f32,
    /// Logarithm by which the rival may be weaker and still cost.
    rival_margin: f32,
    /// Cost by the logarithm of the rival's strength.
    rival_weight: f32,
}

/// The default of [`DetectorParams::threshold_percent`].
const THRESHOLD_PERCENT: f64 = 31.1;

/// Found by random search on the 22 records of DS1: missed and extra beats of whole records on lead 0, plus a quarter
/// of those on lead 1 (at most 120 a record), so that the constants do not lean on one kind of lead. Set by hand,
/// without effect on DS1: `candidate_part`, `edge_s`, `min_gap_s`, `level_floor` and both `ramp_s`.
const TUNED: Constants = Constants {
    narrow_hz: 14.7,
    narrow_ms: 29.3,
    wide_hz: 7.66,
    wide_ms: 44.7,
    wide_part: 0.215,
    separation_s: 0.0815,
    candidate_part: 0.08,
    edge_s: 0.03,
    min_gap_s: 0.1,
    block_s: 8.28,
    level_block_n: 6,
    level_floor: 0.1,
    noise_s: 1.68,
    noise_part: 0.361,
    noise_ratio: 4.4,
    noise_weight: 1.24,
    first_threshold_percent: 47.7,
    evidence_slope: 1.26,
    evidence_max: 1.43,
    sharpness_power: 0.722,
    level_beat_n: 22,
    level_quantile: 0.516,
    rr_beat_n: 14,
    long_ratio: 1.27,
    long_weight: 2.32,
    short_ratio: 0.647,
    short_weight: 0.607,
    t_wave: WaveTest { within_s: 0.373, ramp_s: 0.15, ratio: 1.07, weight: 1.17 },
    p_wave: WaveTest { within_s: 0.263, ramp_s: 0.1, ratio: 0.302, weight: 0.312 },
    rival_s: 0.476,
    rival_margin: 0.344,
    rival_weight: 0.28,
};

#[cfg(test)]
mod tests {
    use super::*;

    const RATES_HZ: [f64; 7] = [100.0, 128.0, 200.0, 250.0, 360.0, 500.0, 1000.0];

    /// One deflection: amplitude in mV, centre relative to the R-peak and standard deviation in seconds.
    type Wave = (f64, f64, f64);
    const P: Wave = (0.12, -0.16, 0.02);
    const Q: Wave = (-0.1, -0.025, 0.008);
    const R: Wave = (1.0, 0.0, 0.011);
    const S: Wave = (-0.25, 0.028, 0.009);
    const T: Wave = (0.3, 0.28, 0.05);
    const NORMAL: [Wave; 5] = [P, Q, R, S, T];

    /// The sum of beats given by the time of the R-peak in seconds and their waves.
    fn ecg(hz: f64, seconds: f64, beats: &[(f64, &[Wave])]) -> Vec<f32> {
        let mut signal = vec![0.0f32; (seconds * hz) as usize];
        for (time_s, waves) in beats {
            for (amplitude, offset, sigma) in *waves {
                let centre = (time_s + offset) * hz;
                let reach = 5.0 * sigma * hz;
                let last = ((centre + reach) as usize + 1).min(signal.len());
                for (idx, sample) in signal.iter_mut().enumerate().take(last).skip((centre - reach).max(0.0) as usize) {
                    *sample += (amplitude * (-0.5 * ((idx as f64 - centre) / (sigma * hz)).powi(2)).exp()) as f32;
                }
            }
        }
        signal
    }

    /// Times of a rhythm of 75 beats a minute with some variation.
    fn rhythm(seconds: f64) -> Vec<f64> {
        let mut times = vec![0.35];
        while let Some(&last) = times.last() {
            let next = last + 0.8 + 0.08 * (times.len() as f64).sin();
            if next > seconds - 0.15 {
                break;
            }
            times.push(next);
        }
        times
    }

    fn normal(hz: f64, seconds: f64) -> (Vec<f32>, Vec<f64>) {
        let times = rhythm(seconds);
        let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &NORMAL[..])).collect();
        (ecg(hz, seconds, &beats), times)
    }

    /// Pseudo-random numbers in -1..1 (an xorshift generator).
    fn noise(n: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[track_caller]
    fn check(leads: &[&[f32]], hz: f64, times: &[f64]) {
        let found = detect(leads, hz, &DetectorParams::default());
        let expected: Vec<i64> = times.iter().map(|time| (time * hz).round() as i64).collect();
        let tolerance = (0.012 * hz).ceil() as i64;
        let agrees =
            found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= tolerance);
        assert!(agrees, "at {hz} Hz found {found:?}\nexpected {expected:?}");
    }

    #[test]
    fn finds_every_beat_at_every_sampling_frequency() {
        for hz in RATES_HZ {
            let (signal, times) = normal(hz, 30.0);
            check(&[&signal], hz, &times);
        }
    }

    #[test]
    fn gain_polarity_and_offset_do_not_matter() {
        let (signal, times) = normal(360.0, 30.0);
        for (gain, offset) in [(0.01, 0.0), (100.0, 0.0), (-1.0, 0.0), (-0.1, 3.0), (1.0, -5.0)] {
            let changed: Vec<f32> = signal.iter().map(|sample| sample * gain + offset).collect();
            check(&[&changed], 360.0, &times);
        }
    }

    #[test]
    fn tall_t_and_p_waves_are_no_beats() {
        let times = rhythm(60.0);
        for hz in RATES_HZ {
            let tall: [Wave; 5] = [(0.25, -0.16, 0.025), Q, R, S, (1.1, 0.28, 0.05)];
            let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &tall[..])).collect();
            check(&[&ecg(hz, 60.0, &beats)], hz, &times);
        }
    }

    #[test]
    fn finds_ventricular_beats_and_weak_beats() {
        let wide: [Wave; 2] = [(-1.6, 0.0, 0.035), (0.6, 0.25, 0.06)];
        let weak: [Wave; 5] = [P, Q, (0.4, 0.0, 0.011), S, (0.12, 0.28, 0.05)];
        let mut times = rhythm(60.0);
        times[20] -= 0.3;
        let mut beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &NORMAL[..])).collect();
        beats[20].1 = &wide;
        beats[40].1 = &weak;
        for hz in RATES_HZ {
            check(&[&ecg(hz, 60.0, &beats)], hz, &times);
        }
    }

    #[test]
    fn survives_hum_noise_wander_and_clipping() {
        let (signal, times) = normal(360.0, 60.0);
        let noise = noise(signal.len());
        let with = |extra: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            signal.iter().enumerate().map(|(idx, &sample)| extra(idx, sample)).collect()
        };
        let wave = |idx: usize, hz: f32| (2.0 * PI * hz * idx as f32 / 360.0).sin();
        check(&[&with(&|idx, sample| sample + 0.2 * wave(idx, 50.0))], 360.0, &times);
        check(&[&with(&|idx, sample| sample + 0.2 * wave(idx, 60.0))], 360.0, &times);
        check(&[&with(&|idx, sample| sample + 2.0 * wave(idx, 0.2))], 360.0, &times);
        check(&[&with(&|idx, sample| sample + 0.1 * noise[idx])], 360.0, &times);
        check(&[&with(&|_, sample| sample.clamp(-0.1, 0.6))], 360.0, &times);
    }

    #[test]
    fn missing_and_flat_stretches_hold_no_beats_and_cost_none() {
        let (signal, times) = normal(360.0, 60.0);
        let noise = noise(signal.len());
        let outside: Vec<f64> = times.iter().copied().filter(|time| !(19.7..30.3).contains(time)).collect();
        let replaced = |fill: &dyn Fn(usize) -> f32| -> Vec<f32> {
            let replace = |(idx, &sample): (usize, &f32)| if (7200..10800).contains(&idx) { fill(idx) } else { sample };
            signal.iter().enumerate().map(replace).collect()
        };
        check(&[&replaced(&|_| f32::NAN)], 360.0, &outside);
        check(&[&replaced(&|_| 0.0)], 360.0, &outside);
        check(&[&replaced(&|idx| if noise[idx] > 0.9 { 0.005 } else { 0.0 })], 360.0, &outside);
    }

    #[test]
    fn single_invalid_samples_do_not_hide_a_beat() {
        let (mut signal, times) = normal(360.0, 30.0);
        for time in &times {
            signal[(time * 360.0) as usize + 3] = f32::NAN;
        }
        check(&[&signal], 360.0, &times);
    }

    #[test]
    fn nothing_gives_nothing() {
        let params = DetectorParams::default();
        for signal in [vec![], vec![0.3], vec![0.0; 5000], vec![f32::NAN; 5000], vec![f32::INFINITY; 50]] {
            assert!(detect(&[&signal], 360.0, &params).is_empty(), "{} samples", signal.len());
        }
        assert!(detect(&[], 360.0, &params).is_empty());
        let (signal, _) = normal(360.0, 10.0);
        for hz in [0.0, -360.0, f64::NAN, 20.0] {
            assert!(detect(&[&signal], hz, &params).is_empty());
        }
    }

    #[test]
    fn a_second_lead_helps_where_the_first_is_off() {
        let (signal, times) = normal(360.0, 60.0);
        let mut first = signal.clone();
        first[7200..10800].fill(f32::NAN);
        let second: Vec<f32> = signal.iter().map(|sample| -0.4 * sample).collect();
        check(&[&first, &second], 360.0, &times);
        // A flat lead is no hindrance.
        check(&[&signal, &vec![0.0; signal.len()]], 360.0, &times);
    }

    #[test]
    fn refinement_keeps_count_and_order() {
        let (signal, times) = normal(360.0, 30.0);
        let marks: Vec<i64> = times.iter().map(|time| (time * 360.0) as i64 + 9).collect();
        let expected: Vec<i64> = times.iter().map(|time| (time * 360.0).round() as i64).collect();
        let refined = refine(&[&signal], 360.0, &marks);
        assert!(refined.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1), "{refined:?} for {expected:?}");
        let close = [100, 101, 105, 120, -4, 1_000_000];
        assert_eq!(refine(&[&signal], 360.0, &close).len(), close.len());
        assert!(refine(&[&signal], 360.0, &close[..4]).is_sorted_by(|a, b| a < b));
    }
}
