//! Owns the way from samples to energy: what of a lead, around each moment, could be a QRS complex.
//!
//! Every lead is averaged down to about `WORK_HZ` and passed through two pairs of Gabor filters (cosine and sine under
//! one Gaussian, Gabor 1946). The magnitude of a pair is one smooth bump a QRS complex, whatever its polarity and
//! shape. The narrow pair is tuned to QRS complexes of conducted beats, the wide one to those of ventricular beats.
//! The energy of a lead is the weighted sum of the two.
//!
//! Missing samples: a short run is bridged by a straight line. A long one is taken out: what follows goes on at the
//! level where the lead stopped, so that neither end of it looks like a deflection. Before the first sample and after
//! the last one there is such a gap.
//!
//! Several leads: each energy counts in parts of its own recent QRS level, times a weight that grows with how far its
//! QRS complexes stand out of what lies between them. A lead that is off or buried in noise thus fades out.
//!
//! Invariants: what is computed depends on the samples alone, not on how they were cut when pushed; memory does not
//! grow with the length of the record. The module knows neither beats nor rhythm.

use std::{
    collections::VecDeque,
    f32::consts::PI,
    ops::{Add, Mul, Range, Sub},
};

use super::{constants::TUNED, logarithm::ln, quantiles::Quantiles};

/// The frequency that leads are averaged down to, about: QRS complexes have no energy that matters above 40 Hz.
const WORK_HZ: f64 = 125.0;

/// What is not below is no voltage of a heart, whatever the gain.
const MAX_MV: f32 = 1e9;

/// How many samples are averaged into one.
pub(super) fn work_factor(sampling_frequency_hz: f64) -> usize {
    (sampling_frequency_hz / WORK_HZ).round().max(1.0) as usize
}

/// Points of a shape.
pub(super) const SHAPE_N: usize = 16;

/// A place where a beat may be.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Position in working samples.
    pub(super) work_idx: i64,
    /// Energy there.
    pub(super) energy: f32,
    /// Logarithm of the energy, discounted for bluntness.
    pub(super) log_sharp_energy: f32,
    /// Median energy of the seconds around: that of what is not QRS.
    pub(super) noise: f32,
    /// Samples around it at equal steps, less their mean.
    pub(super) shape: [f32; SHAPE_N],
}

/// What the energy of one hop is like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    /// Largest energy.
    pub(super) peak: f32,
    /// Median energy.
    pub(super) median: f32,
}

/// Energy of a stretch of one lead.
pub(crate) struct QrsEnergy {
    /// One number a working sample, in mV.
    pub(crate) energy: Vec<f32>,
    /// Samples a working sample.
    pub(crate) factor: usize,
    /// Working samples a second.
    pub(crate) hz: f32,
}

/// The energy of a stretch of one lead by itself, past both ends of which it counts as constant. `None` without samples
/// and where [`super::MIN_SAMPLING_FREQUENCY_HZ`] is not reached.
pub(crate) fn qrs_energy(samples: &[f32], sampling_frequency_hz: f64) -> Option<QrsEnergy> {
    let is_fast_enough = sampling_frequency_hz.is_finite() && sampling_frequency_hz >= super::MIN_SAMPLING_FREQUENCY_HZ;
    if samples.is_empty() || !is_fast_enough {
        return None;
    }
    let mut energy = Energy::new(1, sampling_frequency_hz, 0.0);
    let (factor, hz, half_n) = (energy.factor, energy.work_hz, energy.half_n);
    let lead = &mut energy.leads[0];
    lead.extend_by(factor, samples);
    (0..half_n).for_each(|_| lead.push(f32::NAN));
    lead.filter(&energy.filters, samples.len().div_ceil(factor));
    Some(QrsEnergy { energy: std::mem::take(&mut lead.total), factor, hz })
}

/// All leads, on their way from samples to candidates.
pub(super) struct Energy {
    pub(super) work_hz: f32,
    factor: usize,
    hop_n: usize,
    half_n: usize,
    filters: Filters,
    leads: Vec<Lead>,
    /// Working samples pushed so far.
    work_n: i64,
    /// Energy of all leads together; the first entry is for `first_idx`.
    total: Vec<f32>,
    /// The narrow filter's part of it.
    narrow: Vec<f32>,
    first_idx: i64,
    /// Candidates are found up to here.
    found_idx: i64,
    /// The latest stretches of `total`, the newest last.
    stretches: [Stretch; 2],
    /// Where the points of a shape are, from `shape_reach_n` before its candidate on: the working sample before each, and
    /// how far it is on the way to the next one.
    shape_places: [(usize, f32); SHAPE_N],
    scratch: Quantiles,
}

impl Energy {
    /// For leads of which `hop_s` at a time will be pushed.
    pub(super) fn new(lead_n: usize, sampling_frequency_hz: f64, hop_s: f64) -> Self {
        let factor = work_factor(sampling_frequency_hz);
        let work_hz = (sampling_frequency_hz / factor as f64) as f32;
        let filters = Filters::new(work_hz);
        let half_n = filters.half_n();
        let mut energy = Self {
            work_hz,
            factor,
            hop_n: (hop_s * f64::from(work_hz)).round() as usize,
            half_n,
            leads: Vec::new(),
            filters,
            work_n: 0,
            total: Vec::new(),
            narrow: Vec::new(),
            first_idx: 0,
            found_idx: 0,
            stretches: [Stretch::default(); 2],
            shape_places: [(0, 0.0); SHAPE_N],
            scratch: Quantiles::default(),
        };
        let first = energy.shape_reach_n() as f32 - energy.shape_step_n() * (SHAPE_N as f32 - 1.0) / 2.0;
        energy.shape_places = std::array::from_fn(|point| {
            let place = first + energy.shape_step_n() * point as f32;
            (place as usize, place.fract())
        });
        // A candidate is found up to a hop and its reach after its energy, the last ones of a record as late as all filters
        // let them be.
        let history_n = energy.hop_n + energy.lag_n() + 2 * energy.margin_n() + 2;
        let min_gap_n = (TUNED.min_gap_s * work_hz) as usize;
        energy.leads = (0..lead_n).map(|_| Lead::new(half_n + history_n, min_gap_n)).collect();
        if let Some(first) = energy.leads.first_mut() {
            first.trust = TUNED.first_lead_trust;
        }
        energy
    }

    /// Samples a hop.
    pub(super) fn hop_sample_n(&self) -> usize {
        self.hop_n * self.factor
    }

    /// How many samples after a candidate it can be found.
    pub(super) fn lag_sample_n(&self) -> usize {
        self.lag_n() * self.factor
    }

    fn lag_n(&self) -> usize {
        self.filter_lag_n() + self.margin_n()
    }

    fn margin_n(&self) -> usize {
        self.reach_n().max(self.shape_reach_n())
    }

    fn filter_lag_n(&self) -> usize {
        self.half_n + (TUNED.min_gap_s * self.work_hz) as usize
    }

    fn reach_n(&self) -> usize {
        (TUNED.separation_s * self.work_hz).round().max(1.0) as usize
    }

    fn shape_step_n(&self) -> f32 {
        TUNED.shape_step_s * self.work_hz
    }

    fn shape_reach_n(&self) -> usize {
        (self.shape_step_n() * SHAPE_N as f32 / 2.0).ceil() as usize + 1
    }

    pub(super) fn sample_idx(&self, work_idx: i64) -> i64 {
        work_idx * self.factor as i64 + (self.factor as i64 - 1) / 2
    }

    /// Takes the next hop of every lead, at the end of the record what is left. Adds the candidates that it brings, in
    /// time order, and gives what the energy is like; `None` as long as there is none.
    pub(super) fn push(&mut self, hop: &[&[f32]], is_last: bool, candidates: &mut Vec<Candidate>) -> Option<Stretch> {
        for (lead, samples) in self.leads.iter_mut().zip(hop) {
            lead.extend_by(self.factor, samples);
        }
        self.work_n += hop[0].len().div_ceil(self.factor) as i64;
        if is_last {
            let lag_n = self.lag_n();
            self.leads.iter_mut().for_each(|lead| (0..lag_n).for_each(|_| lead.push(f32::NAN)));
        }
        let pushed_n = self.leads[0].work.len();
        let output_n = pushed_n.saturating_sub(self.leads[0].padding_n + self.filter_lag_n());
        if output_n == 0 {
            return None;
        }
        self.filter(output_n);
        self.find(candidates);
        Some(self.stretches[1])
    }

    /// No candidate will come any more before this working sample.
    pub(super) fn known_idx(&self) -> i64 {
        self.found_idx
    }

    /// How many working samples were pushed.
    pub(super) fn work_n(&self) -> i64 {
        self.work_n
    }

    /// How many numbers are kept.
    #[cfg(test)]
    pub(super) fn kept_n(&self) -> usize {
        let of_lead = |lead: &Lead| lead.work.capacity() + lead.total.capacity() + 2 * lead.gaps.capacity();
        self.total.capacity() + self.leads.iter().map(of_lead).sum::<usize>()
    }

    /// The next `output_n` energies of all leads.
    fn filter(&mut self, output_n: usize) {
        let start = self.total.len();
        let many = self.leads.len() > 1;
        self.total.resize(start + output_n, 0.0);
        self.narrow.resize(start + output_n, 0.0);
        for lead in &mut self.leads {
            lead.filter(&self.filters, output_n);
            if many {
                lead.weigh(&mut self.scratch);
            }
        }
        let sum: f32 = self.leads.iter().map(|lead| lead.weight).sum();
        for lead in &mut self.leads {
            if !many {
                self.total[start..].copy_from_slice(&lead.total);
                self.narrow[start..].copy_from_slice(&lead.narrow);
                continue;
            }
            let to = if lead.weight > 0.0 { lead.weight / sum / lead.scale } else { 0.0 };
            let from = lead.gain.replace(to).unwrap_or(to);
            let step = (to - from) / output_n as f32;
            for idx in 0..output_n {
                let gain = from + step * (idx + 1) as f32;
                self.total[start + idx] += gain * lead.total[idx];
                self.narrow[start + idx] += gain * lead.narrow[idx];
            }
        }
        self.stretches = [self.stretches[1], stretch(&self.total[start..], &mut self.scratch)];
    }

    /// Which lead R-peaks are to be placed on: the first one that counts.
    pub(super) fn trusted_lead_idx(&self) -> usize {
        /// A lead with less than this part of the best one's weight does not count.
        const LEAST_PART: f32 = 0.1;
        let best = self.leads.iter().fold(0.0, |best: f32, lead| best.max(lead.weight));
        self.leads.iter().position(|lead| lead.weight >= LEAST_PART * best).unwrap_or(0)
    }

    /// All local maxima of the energy between `found_idx` and where energies end.
    fn find(&mut self, candidates: &mut Vec<Candidate>) {
        /// So many samples at a time: most pieces have no maximum, which is seen side by side.
        const PIECE_N: usize = 8;
        let margin_n = self.margin_n();
        let end_idx = self.first_idx + self.total.len() as i64 - margin_n as i64;
        let total = &self.total;
        let [before, newest] = self.stretches;
        let noise = 0.5 * (before.median + newest.median);
        let least = TUNED.candidate_part * before.peak.max(newest.peak);
        let is_maximum = |before: f32, here: f32, after: f32| (here >= least) & (here > before) & (here >= after);
        let from = (self.found_idx.max(1) - self.first_idx) as usize;
        let to = total.len().saturating_sub(margin_n).max(from);
        let (pieces, rest) = total[from..to].as_chunks::<PIECE_N>();
        for (start, piece) in (from..).step_by(PIECE_N).zip(pieces) {
            let (before, after) = (&total[start - 1..][..PIECE_N], &total[start + 1..][..PIECE_N]);
            let any = (0..PIECE_N).fold(false, |any, idx| any | is_maximum(before[idx], piece[idx], after[idx]));
            if any {
                let maxima = (0..PIECE_N).filter(|&idx| is_maximum(before[idx], piece[idx], after[idx]));
                candidates.extend(maxima.filter_map(|idx| self.candidate(start + idx, noise)));
            }
        }
        let maxima = (to - rest.len()..to).filter(|&idx| is_maximum(total[idx - 1], total[idx], total[idx + 1]));
        candidates.extend(maxima.filter_map(|idx| self.candidate(idx, noise)));
        self.found_idx = self.found_idx.max(end_idx);
        // What later maxima are compared with stays.
        let keep_n = 2 * margin_n + 2;
        if self.total.len() > keep_n {
            let drop_n = self.total.len() - keep_n;
            self.total.drain(..drop_n);
            self.narrow.drain(..drop_n);
            self.first_idx += drop_n as i64;
        }
    }

    /// The candidate at a local maximum of the energy, if it is the largest around and not in a gap of all leads.
    fn candidate(&self, idx: usize, noise: f32) -> Option<Candidate> {
        let (reach_n, energy, narrow) = (self.reach_n(), self.total[idx], self.narrow[idx]);
        let work_idx = self.first_idx + idx as i64;
        let edge_n = ((TUNED.edge_s * self.work_hz).ceil() as i64).max(1);
        let around = &self.total[idx.saturating_sub(reach_n)..=idx + reach_n];
        if around.iter().any(|&other| other > energy) || self.leads.iter().all(|lead| lead.is_gap(work_idx, edge_n)) {
            return None;
        }
        let wide = (energy - narrow) / TUNED.wide_part;
        let sharpness = narrow / (narrow + wide);
        let log_sharp_energy = ln(energy) + TUNED.sharpness_power * ln(sharpness);
        Some(Candidate { work_idx, energy, log_sharp_energy, noise, shape: self.shape(work_idx) })
    }

    /// The samples around a candidate, of all leads in proportion to what they count, less their mean.
    fn shape(&self, work_idx: i64) -> [f32; SHAPE_N] {
        let reach_n = self.shape_reach_n();
        let mut shape = [0.0; SHAPE_N];
        for lead in &self.leads {
            let gain = lead.gain.unwrap_or(1.0);
            let around = &lead.work[(work_idx - lead.first_idx) as usize - reach_n..][..2 * reach_n + 1];
            for (value, &(idx, part)) in shape.iter_mut().zip(&self.shape_places) {
                *value += gain * (around[idx] * (1.0 - part) + around[idx + 1] * part);
            }
        }
        let mean = shape.iter().sum::<f32>() / SHAPE_N as f32;
        shape.iter_mut().for_each(|value| *value -= mean);
        shape
    }
}

fn stretch(total: &[f32], scratch: &mut Quantiles) -> Stretch {
    let larger = |max: f32, energy: f32| if energy > max { energy } else { max };
    // Several maxima side by side.
    let (chunks, rest) = total.as_chunks::<8>();
    let mut peaks = [0.0f32; 8];
    for chunk in chunks {
        peaks.iter_mut().zip(chunk).for_each(|(peak, &energy)| *peak = larger(*peak, energy));
    }
    let peak = peaks.iter().chain(rest).copied().fold(0.0, larger);
    Stretch { peak, median: scratch.take(total.as_chunks::<3>().0.iter().map(|chunk| chunk[0])).at(0.5) }
}

/// Mean of the valid samples; NaN if more than half of them are invalid.
fn mean(samples: &[f32]) -> f32 {
    let sum = samples.iter().sum::<f32>();
    if sum.abs() < MAX_MV {
        return sum / samples.len() as f32;
    }
    let valid = samples.iter().filter(|sample| sample.abs() < MAX_MV);
    let (total, valid_n) = valid.fold((0.0, 0), |(total, n), sample| (total + sample, n + 1));
    if 2 * valid_n < samples.len() || valid_n == 0 { f32::NAN } else { total / valid_n as f32 }
}

/// One lead.
struct Lead {
    /// Working samples; the next energy is that of `work[padding_n]`.
    work: Vec<f32>,
    padding_n: usize,
    /// Position of the first of them.
    first_idx: i64,
    /// How many at the end are invalid.
    invalid_n: usize,
    min_gap_n: usize,
    /// Gaps, as positions; the last one may still be growing.
    gaps: VecDeque<Range<i64>>,
    /// Energies of the newest hop.
    total: Vec<f32>,
    narrow: Vec<f32>,
    /// Of several leads: the latest stretches, and what they say.
    stretches: VecDeque<Stretch>,
    scale: f32,
    weight: f32,
    gain: Option<f32>,
    /// Its weight counts so many times.
    trust: f32,
}

impl Lead {
    fn new(padding_n: usize, min_gap_n: usize) -> Self {
        let first_idx = -(padding_n as i64);
        Self {
            work: vec![0.0; padding_n],
            padding_n,
            first_idx,
            invalid_n: padding_n,
            min_gap_n,
            // The padding is a gap.
            gaps: std::iter::once(first_idx..0).collect(),
            total: Vec::new(),
            narrow: Vec::new(),
            stretches: VecDeque::new(),
            scale: 0.0,
            weight: 0.0,
            gain: None,
            trust: 1.0,
        }
    }

    /// Samples, `factor` of which make one working sample.
    fn extend_by(&mut self, factor: usize, samples: &[f32]) {
        match factor {
            1 => self.extend::<1>(samples),
            2 => self.extend::<2>(samples),
            3 => self.extend::<3>(samples),
            4 => self.extend::<4>(samples),
            8 => self.extend::<8>(samples),
            _ => samples.chunks(factor).for_each(|samples| self.push(mean(samples))),
        }
    }

    /// Samples, `FACTOR` of which make one working sample.
    fn extend<const FACTOR: usize>(&mut self, samples: &[f32]) {
        /// So many working samples at a time.
        const PIECE_N: usize = 24;
        let (whole, rest) = samples.as_chunks::<FACTOR>();
        let mut pieces = whole.chunks_exact(PIECE_N);
        for piece in &mut pieces {
            let mut sums = [0.0f32; PIECE_N];
            sums.iter_mut().zip(piece).for_each(|(to, samples)| *to = samples.iter().sum());
            // Almost always.
            if self.invalid_n == 0 && sums.iter().fold(true, |valid, sum| valid & (sum.abs() < MAX_MV)) {
                self.work.extend_from_slice(&sums.map(|sum| sum / FACTOR as f32));
            } else {
                piece.iter().for_each(|samples| self.push(mean(samples)));
            }
        }
        pieces.remainder().iter().for_each(|samples| self.push(mean(samples)));
        if !rest.is_empty() {
            self.push(mean(rest));
        }
    }

    fn push(&mut self, sample: f32) {
        let here_idx = self.first_idx + self.work.len() as i64;
        let last = self.work.last().copied().unwrap_or(0.0);
        if sample.is_nan() {
            self.work.push(last);
            self.invalid_n += 1;
            if self.invalid_n >= self.min_gap_n {
                let gap = here_idx + 1 - self.invalid_n as i64..here_idx + 1;
                match self.gaps.back_mut().filter(|earlier| earlier.end == here_idx) {
                    Some(earlier) => earlier.end = gap.end,
                    None => self.gaps.push_back(gap),
                }
            }
            return;
        }
        if self.invalid_n >= self.min_gap_n {
            let jump = sample - last;
            self.work.iter_mut().for_each(|earlier| *earlier += jump);
        } else if self.invalid_n > 0 {
            let from = self.work.len() - self.invalid_n;
            let step = (sample - last) / (self.invalid_n + 1) as f32;
            self.work[from..].iter_mut().enumerate().for_each(|(idx, bridged)| *bridged += step * (idx + 1) as f32);
        }
        self.invalid_n = 0;
        self.work.push(sample);
    }

    /// Whether a gap is at that place or less than `edge_n` from it.
    fn is_gap(&self, work_idx: i64, edge_n: i64) -> bool {
        self.gaps.iter().any(|gap| (gap.start - edge_n..gap.end + edge_n).contains(&work_idx))
    }

    /// The next `output_n` energies.
    fn filter(&mut self, filters: &Filters, output_n: usize) {
        let padded = &self.work[self.padding_n - filters.half_n()..];
        filters.energy(padded, output_n, &mut self.total, &mut self.narrow);
        self.work.drain(..output_n);
        self.first_idx += output_n as i64;
        while let Some(gap) = self.gaps.front()
            && gap.end < self.first_idx
        {
            self.gaps.pop_front();
        }
    }

    /// How far the QRS complexes of the latest stretches stand out, and how large they are.
    fn weigh(&mut self, scratch: &mut Quantiles) {
        /// Less is no QRS complex, and more contrast is not real either.
        const LEAST_MV: f32 = 1e-9;
        const MOST_CONTRAST: f32 = 1e3;
        /// A QRS complex may be so many times the usual one.
        const MOST_USUAL: f32 = 2.0;
        self.stretches.push_back(stretch(&self.total, scratch));
        if self.stretches.len() > TUNED.weight_stretch_n {
            self.stretches.pop_front();
        }
        self.scale = scratch.take(self.stretches.iter().map(|stretch| stretch.peak)).at(0.75);
        let noise = scratch.take(self.stretches.iter().map(|stretch| stretch.median)).at(0.5);
        let contrast = self.scale / noise.max(self.scale / MOST_CONTRAST);
        let newest = self.stretches.iter().rev().take(2).fold(0.0, |max: f32, stretch| max.max(stretch.peak));
        // A lead that has just fallen silent or gone wild counts less at once.
        let usual = (newest / self.scale).min(MOST_USUAL * self.scale / newest).min(1.0);
        self.weight =
            if self.scale > LEAST_MV { self.trust * (contrast * usual).powf(TUNED.weight_power) } else { 0.0 };
    }
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
}

/// The narrow and the wide pair, run together: what the samples on both sides of a place have in common and in what they
/// differ is needed by both.
struct Filters {
    /// Weights of the middle sample, in the two cosine filters. The sine filters have none.
    middle: [Four; 2],
    /// Weights as far out as the narrow pair reaches: its cosine and its sine, then those of the wide pair.
    shared: Vec<[Four; 4]>,
    /// Those of the wide pair farther out.
    farther: Vec<[Four; 2]>,
}

impl Filters {
    fn new(sampling_frequency_hz: f32) -> Self {
        let narrow = Gabor::new(TUNED.narrow_hz, TUNED.narrow_ms, sampling_frequency_hz);
        let mut wide = Gabor::new(TUNED.wide_hz, TUNED.wide_ms, sampling_frequency_hz);
        // Zeros where the narrow one should reach farther.
        let half_n = narrow.even.len().max(wide.even.len());
        wide.even.resize(half_n, 0.0);
        wide.odd.resize(half_n, 0.0);
        let (shared_n, all) = (narrow.even.len(), 1..half_n);
        Self {
            middle: [Four::of(narrow.even[0]), Four::of(wide.even[0])],
            shared: (1..shared_n)
                .map(|idx| [narrow.even[idx], narrow.odd[idx], wide.even[idx], wide.odd[idx]].map(Four::of))
                .collect(),
            farther: all.skip(shared_n - 1).map(|idx| [wide.even[idx], wide.odd[idx]].map(Four::of)).collect(),
        }
    }

    fn half_n(&self) -> usize {
        self.shared.len() + self.farther.len()
    }

    /// The energy of `output_n` samples and the narrow pair's part of it; the first one is that of `padded[half_n]`.
    fn energy(&self, padded: &[f32], output_n: usize, total: &mut Vec<f32>, narrow: &mut Vec<f32>) {
        total.clear();
        narrow.clear();
        if output_n < BLOCK_N {
            let mut padded = padded[..output_n + 2 * self.half_n()].to_vec();
            padded.resize(BLOCK_N + 2 * self.half_n(), 0.0);
            let [narrow_block, total_block] = self.block(&padded);
            total.extend_from_slice(&total_block.as_flattened()[..output_n]);
            narrow.extend_from_slice(&narrow_block.as_flattened()[..output_n]);
            return;
        }
        total.resize(output_n, 0.0);
        narrow.resize(output_n, 0.0);
        for start in (0..output_n).step_by(BLOCK_N) {
            // The last block overlaps with the one before: no output is made one by one.
            let start = start.min(output_n - BLOCK_N);
            let [narrow_block, total_block] = self.block(&padded[start..]);
            total[start..start + BLOCK_N].copy_from_slice(total_block.as_flattened());
            narrow[start..start + BLOCK_N].copy_from_slice(narrow_block.as_flattened());
        }
    }

    /// The narrow pair's part of some energies, and all of them. Their sums stay in registers.
    #[inline]
    fn block(&self, padded: &[f32]) -> [[[f32; 4]; FOUR_N]; 2] {
        let half_n = self.half_n();
        let padded = &padded[..2 * half_n + BLOCK_N];
        let middle = Four::some(padded[half_n..].first_chunk().expect("a block, and `half_n` samples after it"));
        let mut narrow_even = middle.map(|samples| samples * self.middle[0]);
        let mut wide_even = middle.map(|samples| samples * self.middle[1]);
        let (mut narrow_odd, mut wide_odd) = ([Four::of(0.0); FOUR_N], [Four::of(0.0); FOUR_N]);
        // From the middle outwards.
        let block = |from: usize| Four::some(padded[from..].first_chunk().expect("a block"));
        for (out_n, weights) in (1..).zip(&self.shared) {
            let (after, before) = (block(half_n + out_n), block(half_n - out_n));
            for idx in 0..FOUR_N {
                let (sum, difference) = (after[idx] + before[idx], after[idx] - before[idx]);
                narrow_even[idx] = narrow_even[idx] + sum * weights[0];
                narrow_odd[idx] = narrow_odd[idx] + difference * weights[1];
                wide_even[idx] = wide_even[idx] + sum * weights[2];
                wide_odd[idx] = wide_odd[idx] + difference * weights[3];
            }
        }
        for (out_n, weights) in (self.shared.len() + 1..).zip(&self.farther) {
            let (after, before) = (block(half_n + out_n), block(half_n - out_n));
            for idx in 0..FOUR_N {
                wide_even[idx] = wide_even[idx] + (after[idx] + before[idx]) * weights[0];
                wide_odd[idx] = wide_odd[idx] + (after[idx] - before[idx]) * weights[1];
            }
        }
        let mut result = [[[0.0; 4]; FOUR_N]; 2];
        for idx in 0..FOUR_N {
            let narrow = (narrow_even[idx] * narrow_even[idx] + narrow_odd[idx] * narrow_odd[idx]).root();
            let wide = (wide_even[idx] * wide_even[idx] + wide_odd[idx] * wide_odd[idx]).root();
            result[0][idx] = narrow.0;
            result[1][idx] = (narrow + wide * Four::of(TUNED.wide_part)).0;
        }
        result
    }
}

/// Outputs of the filters at a time: eight registers of sums, of the sixteen that any x86-64 processor has.
const BLOCK_N: usize = 8;
const FOUR_N: usize = BLOCK_N / 4;

/// Four numbers in one register; aligned so that arithmetic reads them from memory directly.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Four([f32; 4]);

impl Four {
    fn of(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline]
    fn some(samples: &[f32; BLOCK_N]) -> [Self; FOUR_N] {
        let (fours, _) = samples.as_chunks::<4>();
        std::array::from_fn(|idx| Self(fours[idx]))
    }

    #[inline]
    fn root(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
}

impl Add for Four {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|idx| self.0[idx] + other.0[idx]))
    }
}

impl Sub for Four {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|idx| self.0[idx] - other.0[idx]))
    }
}

impl Mul for Four {
    type Output = Self;

    #[inline]
    fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|idx| self.0[idx] * other.0[idx]))
    }
}
