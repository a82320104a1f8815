//! Owns the change of a signal's sampling frequency, between any two frequencies.
//!
//! Method: band-limited interpolation. Every output sample is the sum of the input samples around its time, weighted by
//! a sinc under a Kaiser window (Kaiser & Schafer 1980; Smith, "Digital Audio Resampling", CCRMA). The filter is even
//! about the output sample's own time, so that the phase is linear with no delay: a peak keeps its time. When the
//! frequency is lowered, the same filter is stretched, so that it also removes what would fold.
//!
//! With `Nyquist` for half of the lower of the two frequencies:
//!
//! | band | gain |
//! |---|---|
//! | 0 to 0.84 Nyquist | 1 within 0.1 % |
//! | from Nyquist up | below -78 dB |
//!
//! (guarded by `tests::passes_the_pass_band` and `tests::removes_what_would_fold`).
//!
//! Invariants: the same frequency gives the same samples; the sum of the weights is 1, so that a constant stays itself;
//! an output sample is invalid (NaN) exactly where the input samples nearest to it are.

use std::{
    f64::consts::PI,
    ops::{Range, RangeInclusive},
};

use crate::{lead::interpolate_invalid, sums::dot};

/// Zero crossings of the sinc on each side: the half length of the filter in samples of the lower frequency.
const CROSSING_N: usize = 32;
/// Kaiser's shape parameter for 80 dB: 0.1102 (80 - 8.7).
const KAISER_BETA: f64 = 7.857;
/// Half-amplitude frequency as a part of the lower frequency. The transition band is (80 - 8) / (2.285 * 64) / 2 pi =
/// 0.078 wide and ends at 0.5.
const CUTOFF: f64 = 0.461;
/// Rows of the filter table between two input samples; linear interpolation between rows errs by less than -100 dB.
const PHASE_N: usize = 512;
/// The widest change of frequency; more is a wrong header, not a signal.
const MAX_RATIO: f64 = 256.0;

/// Why a signal could not be resampled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ResampleError {
    /// A frequency is not a positive number, or they are too far apart.
    #[error(
        "cannot resample from {from_hz} Hz to {to_hz} Hz: both must be positive and at most {MAX_RATIO} times one \
         another"
    )]
    Frequency {
        /// Of the input.
        from_hz: f64,
        /// Of the output.
        to_hz: f64,
    },
}

/// The time of input sample `sample_idx` in samples of the output; sample 0 stays sample 0.
#[must_use]
pub fn resampled_position(sample_idx: i64, from_hz: f64, to_hz: f64) -> f64 {
    sample_idx as f64 * to_hz / from_hz
}

/// How many input samples an output sample lasts.
///
/// # Errors
/// If a frequency is not a positive number or the two are more than 256 times apart.
pub(crate) fn step(from_hz: f64, to_hz: f64) -> Result<f64, ResampleError> {
    let valid = |hz: f64| hz.is_finite() && hz > 0.0;
    if !valid(from_hz) || !valid(to_hz) || !(1.0 / MAX_RATIO..=MAX_RATIO).contains(&(to_hz / from_hz)) {
        return Err(ResampleError::Frequency { from_hz, to_hz });
    }
    Ok(from_hz / to_hz)
}

/// How many output samples, of `step` input samples each, begin within an input of so many.
pub(crate) fn resampled_n(input_n: usize, step: f64) -> usize {
    (input_n as f64 / step - 1e-9).ceil() as usize
}

/// The input samples nearest to an output sample at `position`: those that decide whether it is valid.
pub(crate) fn nearest(position: f64, step: f64, input_n: usize) -> RangeInclusive<usize> {
    let reach = 0.5 * step.max(1.0);
    let first = (position - reach).ceil().max(0.0) as usize;
    let last = ((position + reach).floor() as usize).min(input_n - 1);
    first.min(last)..=last
}

/// The signal at another sampling frequency: `signal.len() * to_hz / from_hz` samples, rounded up.
///
/// Invalid samples are NaN. Past both ends the signal counts as constant.
///
/// # Errors
/// If a frequency is not a positive number or the two are more than 256 times apart.
pub fn resample(signal: &[f32], from_hz: f64, to_hz: f64) -> Result<Vec<f32>, ResampleError> {
    let change = Resampling::new(from_hz, to_hz)?;
    let output = 0..change.output_n(signal.len());
    Ok(change.apply(signal, 0, signal.len(), output))
}

/// A change of the sampling frequency that is applied to any part of a signal.
///
/// Invariant: a part is what it would be in the whole, as long as the input has no invalid samples that reach out of
/// the part (`tests::a_part_is_that_of_the_whole`).
pub struct Resampling {
    /// Input samples per output sample.
    step: f64,
    /// `None` if the frequencies are the same.
    filter: Option<Filter>,
}

impl Resampling {
    /// From one frequency to another.
    ///
    /// # Errors
    /// If a frequency is not a positive number or the two are more than 256 times apart.
    pub fn new(from_hz: f64, to_hz: f64) -> Result<Self, ResampleError> {
        let step = step(from_hz, to_hz)?;
        Ok(Self { step, filter: (from_hz != to_hz).then(|| Filter::new(from_hz, to_hz)) })
    }

    /// How many output samples a signal of `input_n` samples has.
    #[must_use]
    pub fn output_n(&self, input_n: usize) -> usize {
        match self.filter {
            Some(_) => resampled_n(input_n, self.step),
            None => input_n,
        }
    }

    /// The input samples that decide some output samples of a signal of `input_n` samples.
    #[must_use]
    pub fn input_of(&self, output: &Range<usize>, input_n: usize) -> Range<usize> {
        let Some(filter) = &self.filter else { return output.clone() };
        if output.is_empty() {
            return 0..0;
        }
        let first = ((output.start as f64 * self.step).floor() as usize + 1).saturating_sub(filter.half_n);
        let last = ((output.end - 1) as f64 * self.step).floor() as usize + 1 + filter.half_n;
        first.min(input_n)..last.min(input_n)
    }

    /// Some output samples. `input` begins at sample `input_start` of a signal of `input_n` samples and holds at least
    /// [`Resampling::input_of`] them.
    #[must_use]
    pub fn apply(&self, input: &[f32], input_start: usize, input_n: usize, output: Range<usize>) -> Vec<f32> {
        let Some(filter) = &self.filter else {
            return input[output.start - input_start..output.end - input_start].to_vec();
        };
        if input.is_empty() {
            return Vec::new();
        }
        let mut filled = input.to_vec();
        let invalid_n = interpolate_invalid(&mut filled);
        let padded = pad(&filled, filter.half_n);
        let padded_start = input_start as i64 - filter.half_n as i64;
        let mut resampled: Vec<f32> =
            output.clone().map(|idx| filter.at(&padded, padded_start, idx as f64 * self.step)).collect();
        if invalid_n > 0 {
            for (idx, sample) in output.zip(&mut resampled) {
                let nearest = nearest(idx as f64 * self.step, self.step, input_n);
                let nearest = nearest.start() - input_start..=nearest.end() - input_start;
                if input[nearest].iter().any(|sample| sample.is_nan()) {
                    *sample = f32::NAN;
                }
            }
        }
        resampled
    }
}

/// The sampled filter: `PHASE_N + 1` rows of `2 * half_n` weights. Row `p` is for a time `p / PHASE_N` after an input
/// sample.
struct Filter {
    half_n: usize,
    weights: Vec<f32>,
}

impl Filter {
    fn new(from_hz: f64, to_hz: f64) -> Self {
        // Relative to the input: below 1 when the frequency is lowered.
        let scale = (to_hz / from_hz).min(1.0);
        let half_width = CROSSING_N as f64 / scale;
        let half_n = half_width.ceil() as usize;
        let mut weights = Vec::with_capacity((PHASE_N + 1) * 2 * half_n);
        for phase in 0..=PHASE_N {
            let time = phase as f64 / PHASE_N as f64;
            let row: Vec<f64> = (0..2 * half_n)
                .map(|tap| {
                    let distance = tap as f64 - (half_n - 1) as f64 - time;
                    let edge = distance / half_width;
                    if edge.abs() >= 1.0 {
                        return 0.0;
                    }
                    sinc(2.0 * CUTOFF * scale * distance) * bessel_i0(KAISER_BETA * (1.0 - edge * edge).sqrt())
                })
                .collect();
            let total: f64 = row.iter().sum();
            weights.extend(row.iter().map(|weight| (weight / total) as f32));
        }
        Self { half_n, weights }
    }

    /// The value at `position`, in input samples; `padded` begins at input sample `start` and has `half_n` samples more at
    /// both ends than are needed.
    fn at(&self, padded: &[f32], start: i64, position: f64) -> f32 {
        let sample_idx = position.floor();
        let phase = (position - sample_idx) * PHASE_N as f64;
        let row_idx = (phase as usize).min(PHASE_N - 1);
        let part = (phase - row_idx as f64) as f32;
        let tap_n = 2 * self.half_n;
        // Past the last input sample, everything within reach is its repetition.
        let first = (sample_idx as i64 + 1 - self.half_n as i64 - start) as usize;
        let first = first.min(padded.len() - tap_n);
        let samples = &padded[first..first + tap_n];
        let low = dot(&self.weights[row_idx * tap_n..(row_idx + 1) * tap_n], samples);
        if part == 0.0 {
            return low;
        }
        let high = dot(&self.weights[(row_idx + 1) * tap_n..(row_idx + 2) * tap_n], samples);
        low + part * (high - low)
    }
}

fn pad(signal: &[f32], half_n: usize) -> Vec<f32> {
    let (first, last) = (signal[0], signal[signal.len() - 1]);
    let mut padded = vec![first; half_n];
    padded.extend_from_slice(signal);
    padded.resize(signal.len() + 2 * half_n, last);
    padded
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The modified Bessel function of the first kind and order 0, by its power series.
pub(crate) fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut total) = (1.0, 1.0);
    for order in 1..64 {
        term *= quarter / f64::from(order * order);
        total += term;
        if term < total * 1e-16 {
            break;
        }
    }
    total
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PAIRS_HZ: [(f64, f64); 8] = [
        (360.0, 250.0),
        (250.0, 360.0),
        (100.0, 360.0),
        (1000.0, 360.0),
        (500.0, 360.0),
        (128.0, 360.0),
        (360.0, 257.3),
        (1000.0, 100.0),
    ];

    fn sine(hz: f64, sampling_frequency_hz: f64, seconds: f64) -> Vec<f32> {
        let sample_n = (seconds * sampling_frequency_hz) as usize;
        (0..sample_n).map(|idx| (2.0 * PI * hz * idx as f64 / sampling_frequency_hz + 0.3).sin() as f32).collect()
    }

    /// The largest absolute value away from the ends, where padding shows.
    fn inner_peak(signal: &[f32]) -> f32 {
        let margin_n = signal.len() / 8;
        signal[margin_n..signal.len() - margin_n].iter().fold(0.0, |peak, sample| sample.abs().max(peak))
    }

    #[test]
    fn passes_the_pass_band() {
        for (from_hz, to_hz) in PAIRS_HZ {
            for part in [0.02, 0.1, 0.5, 0.84] {
                let hz = part * from_hz.min(to_hz) / 2.0;
                let output = resample(&sine(hz, from_hz, 12.0), from_hz, to_hz).unwrap();
                let expected = sine(hz, to_hz, 12.0);
                let differences: Vec<f32> = output.iter().zip(&expected).map(|(a, b)| a - b).collect();
                assert!(
                    inner_peak(&differences) < 1e-3,
                    "{from_hz} to {to_hz} at {hz} Hz: {}",
                    inner_peak(&differences)
                );
            }
        }
    }

    #[test]
    fn a_part_is_that_of_the_whole() {
        for (from_hz, to_hz) in PAIRS_HZ {
            let signal = sine(7.3, from_hz, 9.7);
            let whole = resample(&signal, from_hz, to_hz).unwrap();
            let change = Resampling::new(from_hz, to_hz).unwrap();
            for (start, end) in [(0, 1), (0, 187), (500, 687), (whole.len() - 187, whole.len()), (3, whole.len() - 5)] {
                let input = change.input_of(&(start..end), signal.len());
                let part = change.apply(&signal[input.clone()], input.start, signal.len(), start..end);
                assert_eq!(part, whole[start..end], "{from_hz} to {to_hz} Hz, {start} to {end}");
            }
        }
    }

    #[test]
    fn removes_what_would_fold() {
        for (from_hz, to_hz) in PAIRS_HZ.into_iter().filter(|(from_hz, to_hz)| to_hz < from_hz) {
            for hz in [0.5 * to_hz, 0.6 * to_hz, 0.4 * (from_hz - to_hz) + 0.5 * to_hz] {
                let output = resample(&sine(hz.min(0.49 * from_hz), from_hz, 12.0), from_hz, to_hz).unwrap();
                assert!(inner_peak(&output) < 1.26e-4, "{from_hz} to {to_hz} at {hz} Hz: {}", inner_peak(&output));
            }
        }
    }

    #[test]
    fn keeps_length_and_constants() {
        for (from_hz, to_hz) in PAIRS_HZ {
            for sample_n in [1, 2, 7, 1000] {
                let output = resample(&vec![0.75; sample_n], from_hz, to_hz).unwrap();
                assert_eq!(output.len(), (sample_n as f64 * to_hz / from_hz - 1e-9).ceil() as usize);
                assert!(output.iter().all(|sample| (sample - 0.75).abs() < 1e-6));
            }
        }
        assert!(resample(&[], 360.0, 250.0).unwrap().is_empty());
        assert_eq!(resample(&[1.0, f32::INFINITY], 360.0, 360.0).unwrap(), [1.0, f32::INFINITY]);
    }

    #[test]
    fn peaks_keep_their_time() {
        // A QRS-like spike of 80 ms at 100 ms steps that fall between samples.
        let spike = |seconds: f64, centre: f64| (-0.5 * ((seconds - centre) / 0.012).powi(2)).exp() as f32;
        for (from_hz, to_hz) in PAIRS_HZ {
            for tenth in 3..17 {
                let centre_idx = (from_hz * 0.1 * f64::from(tenth)).round() as i64;
                let centre = centre_idx as f64 / from_hz;
                let input: Vec<f32> =
                    (0..(2.0 * from_hz) as usize).map(|idx| spike(idx as f64 / from_hz, centre)).collect();
                let output = resample(&input, from_hz, to_hz).unwrap();
                let peak_idx = (0..output.len()).max_by(|&a, &b| output[a].total_cmp(&output[b])).unwrap();
                let expected = resampled_position(centre_idx, from_hz, to_hz);
                assert!((peak_idx as f64 - expected).abs() <= 0.51, "{from_hz} to {to_hz}: {peak_idx} for {expected}");
            }
        }
    }

    #[test]
    fn invalid_samples_stay_where_they_are() {
        for (from_hz, to_hz) in PAIRS_HZ {
            let mut input = sine(3.0, from_hz, 4.0);
            let (gap_start, gap_end) = (1.0, 1.5);
            let inside = |seconds: f64| seconds >= gap_start && seconds < gap_end;
            for (idx, sample) in input.iter_mut().enumerate() {
                if inside(idx as f64 / from_hz) {
                    *sample = f32::NAN;
                }
            }
            let output = resample(&input, from_hz, to_hz).unwrap();
            let slack = 1.0 / from_hz.min(to_hz);
            for (idx, sample) in output.iter().enumerate() {
                let seconds = idx as f64 / to_hz;
                if seconds > gap_start + slack && seconds < gap_end - slack {
                    assert!(sample.is_nan(), "{from_hz} to {to_hz}: {seconds} s is valid");
                } else if seconds < gap_start - slack || seconds > gap_end + slack {
                    assert!(!sample.is_nan(), "{from_hz} to {to_hz}: {seconds} s is invalid");
                }
            }
            assert!(resample(&[f32::NAN; 50], from_hz, to_hz).unwrap().iter().all(|sample| sample.is_nan()));
        }
    }

    #[test]
    fn refuses_impossible_frequencies() {
        for (from_hz, to_hz) in [(0.0, 360.0), (360.0, -1.0), (f64::NAN, 360.0), (360.0, f64::INFINITY), (1.0, 360.0)] {
            assert!(resample(&[1.0, 2.0], from_hz, to_hz).is_err(), "{from_hz} to {to_hz}");
        }
    }
}
