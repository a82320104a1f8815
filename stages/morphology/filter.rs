//! Owns the band of a lead that the shape of a beat is judged in: 0.5 to 40 Hz, at one sampling frequency.
//!
//! Below is the wander of the baseline, above muscle noise and the mains. The filters are Butterworth's of second order, run
//! forwards and backwards, so that no wave is moved (zero phase; the gain is that of the filter squared). Everything after
//! this module works at [`WORK_HZ`]: the shapes of two recorders are then the same shapes.
//!
//! It must not know beats.

use std::f64::consts::{PI, SQRT_2};

use ecgpipe_sdk::{Signals, StageError};

use crate::{
    lead::{self, LeadReader},
    resample::Resampling,
};

/// Samples per second that shapes are judged at.
pub(super) const WORK_HZ: f64 = 125.0;
const HIGH_PASS_HZ: f64 = 0.5;
const LOW_PASS_HZ: f64 = 40.0;
/// Samples that are resampled at a time.
const PIECE_N: usize = 1 << 16;

/// A whole lead in mV at [`WORK_HZ`], which `resampling` leads to, filtered; invalid samples are bridged by straight lines.
///
/// # Errors
/// If the lead is not a voltage or its samples cannot be read.
pub(super) fn filtered_lead(
    signals: &Signals,
    lead_idx: usize,
    resampling: &Resampling,
) -> Result<Vec<f32>, StageError> {
    let input_n = signals.sample_n();
    let output_n = resampling.output_n(input_n);
    let mut reader = LeadReader::new(signals, lead_idx);
    let mut samples = Vec::with_capacity(output_n);
    for start in (0..output_n).step_by(PIECE_N) {
        let piece = start..(start + PIECE_N).min(output_n);
        let input = resampling.input_of(&piece, input_n);
        samples.extend(resampling.apply(&reader.read(input.clone())?, input.start, input_n, piece));
    }
    lead::interpolate_invalid(&mut samples);
    both_ways(&Section::high_pass(HIGH_PASS_HZ), &mut samples);
    both_ways(&Section::low_pass(LOW_PASS_HZ), &mut samples);
    Ok(samples)
}

/// A recursive filter of second order.
struct Section {
    /// Weights of the input, the newest first.
    forward: [f64; 3],
    /// Weights of the output before, the newest first.
    feedback: [f64; 2],
}

impl Section {
    /// Butterworth's low-pass filter by the bilinear transform (Oppenheim & Schafer, "Discrete-Time Signal Processing", 7.1).
    fn low_pass(cutoff_hz: f64) -> Self {
        let k = (PI * cutoff_hz / WORK_HZ).tan();
        let norm = 1.0 / (1.0 + SQRT_2 * k + k * k);
        let gain = k * k * norm;
        Self { forward: [gain, 2.0 * gain, gain], feedback: Self::feedback(k, norm) }
    }

    /// The same for the high-pass filter.
    fn high_pass(cutoff_hz: f64) -> Self {
        let k = (PI * cutoff_hz / WORK_HZ).tan();
        let norm = 1.0 / (1.0 + SQRT_2 * k + k * k);
        Self { forward: [norm, -2.0 * norm, norm], feedback: Self::feedback(k, norm) }
    }

    fn feedback(k: f64, norm: f64) -> [f64; 2] {
        [2.0 * (k * k - 1.0) * norm, (1.0 - SQRT_2 * k + k * k) * norm]
    }

    /// Before the first sample the signal counts as constant, so that the filter starts at rest.
    fn run<'a>(&self, samples: impl Iterator<Item = &'a mut f32>) {
        let [b0, b1, b2] = self.forward;
        let [a1, a2] = self.feedback;
        let mut state: Option<[f64; 2]> = None;
        for sample in samples {
            let input = f64::from(*sample);
            let [s1, s2] = state.unwrap_or_else(|| {
                let rest = input * (b0 + b1 + b2) / (1.0 + a1 + a2);
                [rest - b0 * input, b2 * input - a2 * rest]
            });
            let output = b0 * input + s1;
            state = Some([b1 * input - a1 * output + s2, b2 * input - a2 * output]);
            *sample = output as f32;
        }
    }
}

fn both_ways(section: &Section, samples: &mut [f32]) {
    section.run(samples.iter_mut());
    section.run(samples.iter_mut().rev());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest sample of a filtered sine wave of amplitude 1, away from its ends.
    fn gain(section: &Section, frequency_hz: f64) -> f32 {
        let sample = |idx: i32| (2.0 * PI * frequency_hz * f64::from(idx) / WORK_HZ).sin() as f32;
        let mut samples: Vec<f32> = (0..20_000).map(sample).collect();
        both_ways(section, &mut samples);
        samples[8000..12_000].iter().fold(0.0, |max, sample| max.max(sample.abs()))
    }

    #[test]
    fn halves_at_the_cutoff_and_passes_the_band() {
        let (high, low) = (Section::high_pass(HIGH_PASS_HZ), Section::low_pass(LOW_PASS_HZ));
        for (section, cutoff_hz) in [(&high, HIGH_PASS_HZ), (&low, LOW_PASS_HZ)] {
            assert!((gain(section, cutoff_hz) - 0.5).abs() < 0.01, "{}", gain(section, cutoff_hz));
            assert!((gain(section, 8.0) - 1.0).abs() < 0.01);
        }
        assert!(gain(&high, 0.1) < 0.01 && gain(&low, 60.0) < 0.001);
    }

    #[test]
    fn a_constant_starts_at_rest() {
        let mut level = vec![3.0; 50];
        both_ways(&Section::low_pass(LOW_PASS_HZ), &mut level);
        assert!(level.iter().all(|sample| (sample - 3.0).abs() < 1e-5));
        both_ways(&Section::high_pass(HIGH_PASS_HZ), &mut level);
        assert!(level.iter().all(|sample| sample.abs() < 1e-5));
    }
}
