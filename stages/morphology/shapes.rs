//! Owns the shapes of all beats of a record as numbers that can be compared: cut, scaled by the record itself, turned so that
//! polarity does not matter.
//!
//! It must not know what is measured on them, nor any label.

use std::ops::Range;

use ecgpipe_sdk::{Beats, Signals, StageError, kinds::Beat};

use super::filter::{LowPass, WORK_HZ, filtered_lead};
use crate::{
    agreement::check_recording,
    lead::{self, LeadReader},
    resample::resampled_position,
    sums::{maximum, minimum},
};

/// Working samples of a shape before the R-peak: 0.6 s.
pub(super) const BEFORE_N: usize = 75;
/// Working samples of a shape: 0.6 s before to 1.0 s after the R-peak.
pub(crate) const SHAPE_N: usize = 200;
/// The QRS complex: 0.10 s before to 0.13 s after the R-peak.
pub(crate) const QRS: Range<usize> = 62..92;
/// The P wave: 0.26 to 0.09 s before the R-peak.
pub(crate) const P: Range<usize> = 42..64;
/// The T wave: 0.14 to 0.42 s after the R-peak.
pub(super) const T: Range<usize> = 92..128;
/// Leads that are looked at, at most: the preferred one and one more.
pub(crate) const MAX_LEAD_N: usize = 2;
/// A spike rises and falls within this time.
const SPIKE_REACH_S: f64 = 0.006;
/// A spike is looked for from so long before the R-peak to so long after it: a detector may take the spike itself for the
/// peak, or the beginning of the QRS complex.
const SPIKE_BEFORE_S: f64 = 0.3;
const SPIKE_AFTER_S: f64 = 0.04;
/// Lower than any voltage of a heart on the skin.
const LEAST_MV: f32 = 1e-4;

/// Whether so many leads can be looked at, for the stages that have a parameter `leads_n`.
///
/// # Errors
/// Says how many can, where they cannot.
pub(crate) fn check_lead_n(leads_n: usize) -> Result<(), String> {
    match leads_n {
        1..=MAX_LEAD_N => Ok(()),
        _ => Err(format!("`leads_n` must be 1 or 2, not {leads_n}")),
    }
}

/// The beats of a record, lead by lead.
pub(crate) struct Shapes {
    /// One lead: [`SHAPE_N`] numbers a beat, in units of the record's usual QRS height on this lead.
    pub(crate) leads: Vec<Vec<f32>>,
    /// One lead: for each beat the height of the sharpest spike before or at the start of its QRS complex, in the same units.
    pub(crate) spikes: Vec<Vec<f32>>,
    pub(crate) beat_n: usize,
}

impl Shapes {
    /// Cuts the beats out of so many leads, or as many as there are, the preferred one first.
    ///
    /// # Errors
    /// If signals and beats are not of one record, no lead is a voltage, or the samples cannot be read.
    pub(crate) fn cut(
        signals: &Signals,
        beats: &Beats,
        preferred: &[String],
        lead_n: usize,
    ) -> Result<Self, StageError> {
        check_recording(signals, beats)?;
        let mut low_pass = LowPass::of(signals)?;
        let mut cut = Self { leads: Vec::new(), spikes: Vec::new(), beat_n: beats.beats.len() };
        for lead_idx in lead::choose_several(signals, preferred, lead_n)? {
            let mut reader = LeadReader::new(signals, lead_idx);
            let samples = filtered_lead(&mut reader, signals.sample_n(), &mut low_pass)?;
            let mut shapes = Vec::with_capacity(beats.beats.len() * SHAPE_N);
            for beat in &beats.beats {
                let peak = resampled_position(beat.sample_idx, signals.sampling_frequency_hz, WORK_HZ).round() as i64;
                append_shape(&samples, peak - BEFORE_N as i64, &mut shapes);
            }
            let factor = scale(&mut shapes).abs();
            let spikes = spikes_mv(&mut reader, beats, signals.sample_n())?;
            cut.leads.push(shapes);
            cut.spikes.push(spikes.into_iter().map(|mv| mv * factor).collect());
        }
        Ok(cut)
    }

    /// Some of the beats alone, in units of their own usual QRS height.
    pub(super) fn part(&self, beats: Range<usize>) -> Self {
        let mut part = Self { leads: Vec::new(), spikes: Vec::new(), beat_n: beats.len() };
        for (lead, spikes) in self.leads.iter().zip(&self.spikes) {
            let mut shapes = lead[beats.start * SHAPE_N..beats.end * SHAPE_N].to_vec();
            let factor = scale(&mut shapes).abs();
            part.leads.push(shapes);
            part.spikes.push(spikes[beats.clone()].iter().map(|spike| spike * factor).collect());
        }
        part
    }

    /// The shape of one beat on one lead.
    pub(crate) fn of(&self, lead_idx: usize, beat_idx: usize) -> &[f32] {
        &self.leads[lead_idx][beat_idx * SHAPE_N..][..SHAPE_N]
    }
}

/// One shape; past the ends of the record their samples are repeated.
fn append_shape(samples: &[f32], start: i64, to: &mut Vec<f32>) {
    let last_idx = samples.len() as i64 - 1;
    if last_idx < 0 {
        to.resize(to.len() + SHAPE_N, 0.0);
    } else if start >= 0 && start + SHAPE_N as i64 <= samples.len() as i64 {
        to.extend_from_slice(&samples[start as usize..][..SHAPE_N]);
    } else {
        to.extend((start..start + SHAPE_N as i64).map(|idx| samples[idx.clamp(0, last_idx) as usize]));
    }
}

/// The median height of the QRS complexes around some places of a lead, in working samples; never 0.
pub(crate) fn usual_height(samples: &[f32], peaks: impl Iterator<Item = i64>) -> f32 {
    let height = |peak: i64| {
        let [start, end] = [QRS.start, QRS.end]
            .map(|place| (peak + place as i64 - BEFORE_N as i64).clamp(0, samples.len() as i64) as usize);
        let qrs = &samples[start..end];
        if qrs.is_empty() { 0.0 } else { maximum(qrs) - minimum(qrs) }
    };
    let mut heights: Vec<f32> = peaks.map(height).collect();
    median(&mut heights).max(LEAST_MV)
}

/// Divides by the median height of the QRS complexes, so that gain does not matter, and turns a lead over whose QRS
/// complexes mostly point down. Gives the factor.
pub(crate) fn scale(shapes: &mut [f32]) -> f32 {
    let extremes = |shape: &[f32]| (maximum(&shape[QRS]), minimum(&shape[QRS]));
    let extremes: Vec<(f32, f32)> = shapes.chunks_exact(SHAPE_N).map(extremes).collect();
    let mut heights: Vec<f32> = extremes.iter().map(|(top, bottom)| top - bottom).collect();
    let mut polarities: Vec<f32> = extremes.iter().map(|(top, bottom)| top + bottom).collect();
    let height = median(&mut heights).max(LEAST_MV);
    let factor = if median(&mut polarities) < 0.0 { -1.0 / height } else { 1.0 / height };
    shapes.iter_mut().for_each(|sample| *sample *= factor);
    factor
}

/// For each beat the height in mV of the sharpest spike before its R-peak or just after it. The stimulus of a pacemaker lasts 0.5 to
/// 2 ms and shows as such a spike in recorders without a pacing channel; the QRS complex of a heart does not turn that fast.
fn spikes_mv(reader: &mut LeadReader<'_>, beats: &Beats, sample_n: usize) -> Result<Vec<f32>, StageError> {
    let hz = beats.sampling_frequency_hz;
    let reach_n = ((SPIKE_REACH_S * hz).round() as usize).max(1);
    let (before_n, after_n) = ((SPIKE_BEFORE_S * hz) as i64, (SPIKE_AFTER_S * hz) as i64);
    let mut spike = |beat: &Beat| {
        let end = (beat.sample_idx + after_n + 1).clamp(0, sample_n as i64) as usize;
        let start = (beat.sample_idx - before_n).clamp(0, end as i64) as usize;
        Ok(sharpest(&reader.read(start..end)?, reach_n))
    };
    beats.beats.iter().map(&mut spike).collect()
}

/// How far a sample is, at most, from those `reach_n` before and after it, on the same side of both.
fn sharpest(samples: &[f32], reach_n: usize) -> f32 {
    let Some(place_n) = samples.len().checked_sub(2 * reach_n) else { return 0.0 };
    let [before, at, after] = [0, reach_n, 2 * reach_n].map(|start| &samples[start..start + place_n]);
    let height = |idx: usize| {
        let (rise, fall) = (at[idx] - before[idx], at[idx] - after[idx]);
        let lesser = if rise.abs() < fall.abs() { rise.abs() } else { fall.abs() };
        // NaN, as of invalid samples, is no spike.
        if rise * fall > 0.0 { lesser } else { 0.0 }
    };
    let heights: Vec<f32> = (0..place_n).map(height).collect();
    maximum(&heights).max(0.0)
}

/// The lower median; 0 of nothing.
pub(crate) fn median(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_stands_out_of_both_sides() {
        let check = |samples: &[f32], expected: f32| assert_eq!(sharpest(samples, 2), expected, "{samples:?}");
        check(&[0.0, 0.0, 3.0, 0.0, 1.0], 2.0);
        check(&[0.0, 0.0, -3.0, 0.0, 1.0], 3.0);
        // Steps and slopes are none, nor is anything beside invalid samples or in too few.
        check(&[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0], 0.0);
        check(&[f32::NAN, 0.0, 3.0, 0.0, 0.0, 0.0], 0.0);
        check(&[0.0, 0.0, f32::NAN, 3.0, 0.0], 0.0);
        check(&[0.0, 5.0, 0.0, 0.0], 0.0);
        check(&[0.0, 5.0, 0.0], 0.0);
        check(&[], 0.0);
    }
}
