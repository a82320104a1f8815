//! Owns the last step: from the middle of a QRS complex to its R-peak.

use super::{energy::work_factor, quantiles::Quantiles};

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
    let mut scratch = Quantiles::default();
    (0..centres.len())
        .map(|idx| {
            let neighbours = [centres[..idx].last().copied(), centres.get(idx + 1).copied()];
            peak(leads, sampling_frequency_hz, centres[idx], neighbours, &mut scratch)
        })
        .collect()
}

/// As [`refine`], for one beat between its neighbours, where there are any.
#[must_use]
pub fn refine_one(leads: &[&[f32]], sampling_frequency_hz: f64, centre: i64, neighbours: [Option<i64>; 2]) -> i64 {
    peak(leads, sampling_frequency_hz, centre, neighbours, &mut Quantiles::default())
}

/// The R-peak of one beat between its neighbours, where there are any.
pub(super) fn peak(
    leads: &[&[f32]],
    sampling_frequency_hz: f64,
    centre: i64,
    neighbours: [Option<i64>; 2],
    scratch: &mut Quantiles,
) -> i64 {
    let sample_n = leads.iter().map(|lead| lead.len()).min().unwrap_or(0) as i64;
    if !(0..sample_n).contains(&centre) {
        return centre;
    }
    let reach_n = (REACH_S * sampling_frequency_hz) as i64;
    let [before_n, after_n] =
        neighbours.map(|other| other.map_or(reach_n, |other| ((centre - other).abs() - 1) / 2).clamp(0, reach_n));
    let first = (centre - before_n).max(0) as usize;
    let last = (centre + after_n).min(sample_n - 1) as usize;
    let valid = |lead: &&&[f32]| lead[first..=last].iter().fold(true, |valid, sample| valid & sample.is_finite());
    let lead = leads.iter().find(valid).or(leads.first()).expect("a position inside a lead");
    largest_deflection(lead, sampling_frequency_hz, centre as usize, (first, last), scratch) as i64
}

/// A part of the leads that holds so much on both sides of a position gives the R-peak that the whole would.
pub const REFINE_CONTEXT_S: f64 = BASELINE_REACH_S + 0.05;

/// How far from the centre of its energy the R-peak of a beat may be.
pub(super) const REACH_S: f64 = 0.08;
/// Half of the time that counts for the baseline under a QRS complex.
pub(super) const BASELINE_REACH_S: f64 = 0.25;
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
    scratch: &mut Quantiles,
) -> usize {
    let baseline_reach_n = (BASELINE_REACH_S * sampling_frequency_hz) as usize;
    // 62 samples a second are enough for a median.
    let step = 2 * work_factor(sampling_frequency_hz);
    let around = &lead[centre.saturating_sub(baseline_reach_n)..(centre + baseline_reach_n + 1).min(lead.len())];
    let baseline = scratch.take(around.iter().step_by(step).copied().filter(|sample| sample.is_finite())).at(0.5);
    let smooth_n = (0.0056 * sampling_frequency_hz) as usize;
    let mut extremes = Extremes { high: (f32::NEG_INFINITY, centre), low: (f32::INFINITY, centre) };
    if first >= smooth_n && last + smooth_n < lead.len() {
        let width_n = 2 * smooth_n + 1;
        let part = 1.0 / width_n as f32;
        // In pieces whose sums can be made side by side.
        for from in (first..=last).step_by(PIECE_N) {
            let piece_n = PIECE_N.min(last + 1 - from);
            let mut sums = [0.0f32; PIECE_N];
            for samples in lead[from - smooth_n..].windows(piece_n).take(width_n) {
                sums.iter_mut().zip(samples).for_each(|(sum, sample)| *sum += sample);
            }
            sums.iter_mut().for_each(|sum| *sum = *sum * part - baseline);
            extremes.take_all(from, &sums[..piece_n]);
        }
    } else {
        for idx in first..=last {
            let samples = &lead[idx.saturating_sub(smooth_n)..(idx + smooth_n + 1).min(lead.len())];
            extremes.take(idx, samples.iter().sum::<f32>() / samples.len() as f32 - baseline);
        }
    }
    let Extremes { high, low } = extremes;
    if high.0 * DOWNWARD_RATIO >= -low.0 { high.1 } else { low.1 }
}

/// How many smoothed samples are made at a time.
const PIECE_N: usize = 64;

/// The largest deflections, with their places.
struct Extremes {
    high: (f32, usize),
    low: (f32, usize),
}

impl Extremes {
    fn take(&mut self, idx: usize, deflection: f32) {
        // An invalid sample compares as neither.
        if deflection > self.high.0 {
            self.high = (deflection, idx);
        }
        if deflection < self.low.0 {
            self.low = (deflection, idx);
        }
    }

    /// As [`Self::take`] one after the other, but first sees how large they get, several at a time.
    fn take_all(&mut self, from: usize, deflections: &[f32]) {
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let smaller = |a: f32, b: f32| if b < a { b } else { a };
        let (chunks, rest) = deflections.as_chunks::<4>();
        let (mut high, mut low) = ([self.high.0; 4], [self.low.0; 4]);
        for chunk in chunks {
            high.iter_mut().zip(chunk).for_each(|(high, &deflection)| *high = larger(*high, deflection));
            low.iter_mut().zip(chunk).for_each(|(low, &deflection)| *low = smaller(*low, deflection));
        }
        let high = high.iter().chain(rest).copied().fold(self.high.0, larger);
        let low = low.iter().chain(rest).copied().fold(self.low.0, smaller);
        let first = |wanted: f32| deflections.iter().position(|&deflection| deflection == wanted);
        if high > self.high.0 {
            self.high = (high, from + first(high).unwrap_or(0));
        }
        if low < self.low.0 {
            self.low = (low, from + first(low).unwrap_or(0));
        }
    }
}
