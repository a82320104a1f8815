//! Owns the band of a lead that the shape of a beat is judged in: 0.5 to 40 Hz, at one sampling frequency.
//!
//! Below is the wander of the baseline, above muscle noise and the mains. Both filters have the gain of a Butterworth filter of
//! second order that is run forwards and backwards, so that no wave is moved (zero phase). Everything after this module works at
//! [`WORK_HZ`]: the shapes of two recorders are then the same shapes.
//!
//! - [`LowPass`] changes the sampling frequency, too: what such a filter makes of a single sample is short, so it is looked up
//!   between samples and weights those of the recorder directly. Only what is kept is ever computed.
//! - The wander is slow: it is found at [`WORK_HZ`] / [`WANDER_STEP_N`] and subtracted.
//!
//! It must not know beats.

use std::{
    f64::consts::{PI, SQRT_2},
    ops::Range,
};

use ecgpipe_sdk::{Signals, StageError};

use crate::{
    lead::{self, LeadReader},
    resample::{ResampleError, bessel_i0, nearest, resampled_n, step},
    sums::{dot, sum},
};

/// Samples per second that shapes are judged at.
pub(crate) const WORK_HZ: f64 = 125.0;
const HIGH_PASS_HZ: f64 = 0.5;
const LOW_PASS_HZ: f64 = 40.0;
/// The highest cutoff as a part of the sampling frequency, for recorders that are slower than [`WORK_HZ`].
const LOW_PASS_MAX: f64 = 0.4;
/// How far the low-pass filter reaches on each side, in samples of the lower frequency; 55 ms. What is left out is below 1 % of
/// the filter, and the window over the rest changes its gain by less than 0.02
/// (`tests::the_low_pass_has_the_gain_of_butterworths`).
const REACH_N: f64 = 6.875;
/// Kaiser's shape parameter of that window, a mild one: the filter fades by itself.
const KAISER_BETA: f64 = 1.0;
/// Samples of that filter on each side that those between them are made of: what is left out is below 0.0002. An even number
/// ([`LowPass::at`]).
const RESPONSE_HALF_N: usize = 20;
/// Times between two input samples that the low-pass filter is looked up for, the nearest one counts: 3 us at 360 Hz.
const PHASE_N: usize = 512;
/// An input sample as an integer: what that rounds off, over a piece, is far below a phase.
const ONE: u64 = 1 << 32;
/// Output samples that are filtered at a time: little enough to stay in a processor's cache.
const PIECE_N: usize = 1 << 13;
/// Working samples that the wander is averaged over and found once in: 64 ms.
const WANDER_STEP_N: usize = 8;

/// A whole lead in mV at [`WORK_HZ`], filtered; invalid samples are bridged by straight lines.
///
/// # Errors
/// If the lead is not a voltage or its samples cannot be read.
pub(crate) fn filtered_lead(
    reader: &mut LeadReader<'_>,
    input_n: usize,
    low_pass: &mut LowPass,
) -> Result<Vec<f32>, StageError> {
    let output_n = resampled_n(input_n, low_pass.step);
    let mut samples = Vec::with_capacity(output_n);
    for start in (0..output_n).step_by(PIECE_N) {
        let piece = start..(start + PIECE_N).min(output_n);
        let input = low_pass.input_of(&piece, input_n);
        low_pass.append(reader.read(input.clone())?, input.start, input_n, piece, &mut samples);
    }
    lead::interpolate_invalid(&mut samples);
    subtract_wander(&mut samples);
    Ok(samples)
}

/// A low-pass filter from one sampling frequency straight to [`WORK_HZ`].
pub(crate) struct LowPass {
    /// Input samples per output sample.
    step: f64,
    /// Input samples before and after an output sample that it is made of.
    half_n: usize,
    /// Samples of the lower frequency per input sample.
    scale: f64,
    /// What the filter makes of a one among zeros, at the lower frequency; the one is in the middle.
    response: Vec<f32>,
    /// For each phase `2 * half_n` weights; empty until it is needed: 360 Hz need 25 of them.
    rows: Vec<Vec<f32>>,
}

impl LowPass {
    /// The filter for the leads of a record.
    ///
    /// # Errors
    /// As [`LowPass::new`], with the record's name.
    pub(crate) fn of(signals: &Signals) -> Result<Self, StageError> {
        Self::new(signals.sampling_frequency_hz).map_err(|error| StageError::from_error(&error).record(&signals.record))
    }

    /// # Errors
    /// If the frequency is not a positive number or more than 256 times another than [`WORK_HZ`].
    pub(super) fn new(from_hz: f64) -> Result<Self, ResampleError> {
        let step = step(from_hz, WORK_HZ)?;
        let lower_hz = from_hz.min(WORK_HZ);
        let mut response = vec![0.0; 2 * RESPONSE_HALF_N + 1];
        response[RESPONSE_HALF_N] = 1.0;
        both_ways(&Section::low_pass(LOW_PASS_HZ.min(LOW_PASS_MAX * lower_hz) / lower_hz), &mut response);
        let scale = lower_hz / from_hz;
        // Whole vectors of weights.
        let half_n = ((REACH_N / scale / 4.0).ceil() * 4.0) as usize;
        Ok(Self { step, half_n, scale, response, rows: vec![Vec::new(); PHASE_N + 1] })
    }

    /// The input samples that decide some output samples, also those that a signal does not have: from its first sample on,
    /// which may be negative.
    fn needed(&self, output: &Range<usize>) -> Range<i64> {
        let before = |idx: usize| (idx as f64 * self.step) as i64;
        let half_n = self.half_n as i64;
        // One more at the end, as a position may be rounded up to the next input sample.
        before(output.start) + 1 - half_n..before(output.end - 1) + 2 + half_n
    }

    /// The input samples that decide some output samples of a signal of `input_n` samples.
    fn input_of(&self, output: &Range<usize>, input_n: usize) -> Range<usize> {
        let needed = self.needed(output);
        let [start, end] = [needed.start, needed.end].map(|idx| idx.clamp(0, input_n as i64) as usize);
        start..end
    }

    /// Appends some output samples, NaN where the nearest input is. `input` begins at sample `input_start` of a signal of
    /// `input_n` samples and holds [`LowPass::input_of`] them; past its ends the signal counts as constant.
    fn append(
        &mut self,
        mut input: Vec<f32>,
        input_start: usize,
        input_n: usize,
        output: Range<usize>,
        to: &mut Vec<f32>,
    ) {
        // No early exit, so that the compiler may use vector instructions.
        let invalid: Vec<bool> = if input.iter().fold(false, |any, sample| any | sample.is_nan()) {
            let is_invalid = |idx: usize| {
                let nearest = nearest(idx as f64 * self.step, self.step, input_n);
                input[nearest.start() - input_start..=nearest.end() - input_start].iter().any(|sample| sample.is_nan())
            };
            output.clone().map(is_invalid).collect()
        } else {
            Vec::new()
        };
        if !invalid.is_empty() {
            lead::interpolate_invalid(&mut input);
        }
        let (Some(&first), Some(&last)) = (input.first(), input.last()) else { return };
        let needed = self.needed(&output);
        input.splice(0..0, std::iter::repeat_n(first, (input_start as i64 - needed.start) as usize));
        input.resize(input.len().max((needed.end - needed.start) as usize), last);
        let start = to.len();
        // From here on in 2^32ths of an input sample: floats would be converted several times a sample.
        let first_position = output.start as f64 * self.step - needed.start as f64 - (self.half_n - 1) as f64;
        let [mut position, step] = [first_position, self.step].map(|position| (position * ONE as f64).round() as u64);
        for _ in output {
            let phase = ((position % ONE + ONE / PHASE_N as u64 / 2) / (ONE / PHASE_N as u64)) as usize;
            if self.rows[phase].is_empty() {
                self.rows[phase] = self.weights(phase as f64 / PHASE_N as f64);
            }
            let place = (position / ONE) as usize;
            to.push(dot(&self.rows[phase], &input[place..place + 2 * self.half_n]));
            position += step;
        }
        for (sample, _) in to[start..].iter_mut().zip(&invalid).filter(|(_, is_invalid)| **is_invalid) {
            *sample = f32::NAN;
        }
    }

    /// The weights of the input samples around a time so long after one of them; their sum is 1, so that a constant stays
    /// itself.
    fn weights(&self, time: f64) -> Vec<f32> {
        let weight = |tap: usize| {
            let distance = self.scale * (tap as f64 - (self.half_n - 1) as f64 - time);
            let edge = distance / REACH_N;
            if edge.abs() >= 1.0 {
                0.0
            } else {
                self.at(distance) * bessel_i0(KAISER_BETA * (1.0 - edge * edge).sqrt())
            }
        };
        let row: Vec<f64> = (0..2 * self.half_n).map(weight).collect();
        let total: f64 = row.iter().sum();
        row.iter().map(|weight| (weight / total) as f32).collect()
    }

    /// The response `distance` samples from its middle: a sum of sinc functions, as the signal is band-limited, whose sines
    /// differ by their signs alone.
    fn at(&self, distance: f64) -> f64 {
        let (position, sine) = (distance + RESPONSE_HALF_N as f64, (PI * distance).sin());
        let near = position.round();
        if (position - near).abs() < 1e-6 {
            return f64::from(self.response[near as usize]);
        }
        let (mut total, mut signed) = (0.0, sine);
        for (idx, sample) in self.response.iter().enumerate() {
            total += f64::from(*sample) * signed / (PI * (position - idx as f64));
            signed = -signed;
        }
        total
    }
}

/// High-pass filter: takes away what changes more slowly than at 0.5 Hz.
///
/// For Butterworth's filters of one order and cutoff, run both ways, the gains of low-pass and high-pass add up to 1.
fn subtract_wander(samples: &mut [f32]) {
    let (Some(&first), Some(&last)) = (samples.first(), samples.last()) else { return };
    // Means under triangles around every `WANDER_STEP_N`th sample, each of which reaches to the next: mains and heartbeat are not
    // taken for wander.
    let ramp = |block: &[f32]| -> f32 { (0u16..).zip(block).map(|(idx, sample)| f32::from(idx) * sample).sum() };
    let mut wander: Vec<f32> = Vec::with_capacity(samples.len() / WANDER_STEP_N + 2);
    let whole = WANDER_STEP_N as f32;
    let mut rising = first * ramp(&[1.0; WANDER_STEP_N]);
    let mut mean = |block: &[f32]| {
        let ramp = ramp(block);
        let falling = whole * sum(block, |sample| sample) - ramp;
        wander.push((rising + falling) / (whole * whole));
        rising = ramp;
    };
    let blocks = samples.chunks_exact(WANDER_STEP_N);
    let mut rest = [last; WANDER_STEP_N];
    rest[..blocks.remainder().len()].copy_from_slice(blocks.remainder());
    blocks.for_each(&mut mean);
    mean(&rest);
    mean(&[last; WANDER_STEP_N]);
    both_ways(&Section::low_pass(HIGH_PASS_HZ * WANDER_STEP_N as f64 / WORK_HZ), &mut wander);
    for (block, ends) in samples.chunks_mut(WANDER_STEP_N).zip(wander.windows(2)) {
        let slope = (ends[1] - ends[0]) / whole;
        for (idx, sample) in (0u16..).zip(block) {
            *sample -= ends[0] + slope * f32::from(idx);
        }
    }
}

/// A recursive filter of second order.
struct Section {
    /// Weights of the input, the newest first.
    forward: [f64; 3],
    /// Weights of the output before, the newest first.
    feedback: [f64; 2],
}

impl Section {
    /// Butterworth's low-pass filter by the bilinear transform (Oppenheim & Schafer, "Discrete-Time Signal Processing", 7.1);
    /// `cutoff` is a part of the sampling frequency.
    fn low_pass(cutoff: f64) -> Self {
        let k = (PI * cutoff).tan();
        let norm = 1.0 / (1.0 + SQRT_2 * k + k * k);
        let gain = k * k * norm;
        Self {
            forward: [gain, 2.0 * gain, gain],
            feedback: [2.0 * (k * k - 1.0) * norm, (1.0 - SQRT_2 * k + k * k) * norm],
        }
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
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn sine(frequency_hz: f64, hz: f64, seconds: f64) -> Vec<f32> {
        let sample = |idx: usize| (2.0 * PI * frequency_hz * idx as f64 / hz).sin() as f32;
        (0..(seconds * hz) as usize).map(sample).collect()
    }

    fn low_passed(input: &[f32], hz: f64) -> Vec<f32> {
        let mut low_pass = LowPass::new(hz).unwrap();
        let output = 0..resampled_n(input.len(), low_pass.step);
        let mut samples = Vec::new();
        low_pass.append(input.to_vec(), 0, input.len(), output, &mut samples);
        samples
    }

    /// How much of a wave of this frequency is in the middle of some samples at [`WORK_HZ`].
    fn amplitude(samples: &[f32], frequency_hz: f64) -> f64 {
        let middle = samples.len() / 4..samples.len() * 3 / 4;
        let count = middle.len() as f64;
        let (mut sine, mut cosine) = (0.0, 0.0);
        for idx in middle {
            let turn = 2.0 * PI * frequency_hz * idx as f64 / WORK_HZ;
            sine += turn.sin() * f64::from(samples[idx]);
            cosine += turn.cos() * f64::from(samples[idx]);
        }
        2.0 * (sine * sine + cosine * cosine).sqrt() / count
    }

    fn largest(samples: &[f32]) -> f32 {
        let middle = samples.len() / 4..samples.len() * 3 / 4;
        samples[middle].iter().fold(0.0, |max, sample| max.max(sample.abs()))
    }

    #[test]
    fn the_low_pass_has_the_gain_of_butterworths() {
        let butterworths = |hz: f64| {
            let slope = |hz: f64| (PI * hz / WORK_HZ).tan();
            1.0 / (1.0 + (slope(hz) / slope(LOW_PASS_HZ)).powi(4))
        };
        for hz in [125.0, 128.0, 250.0, 257.3, 360.0, 500.0, 1000.0] {
            for frequency_hz in [1.0, 8.0, 20.0, 30.0, 40.0, 45.0, 50.0, 55.0, 60.0] {
                let gain = amplitude(&low_passed(&sine(frequency_hz, hz, 16.0), hz), frequency_hz);
                let expected = butterworths(frequency_hz);
                assert!((gain - expected).abs() < 0.02, "{hz} Hz, at {frequency_hz} Hz: {gain}, not {expected}");
            }
            for frequency_hz in [63.0, 70.0, 85.0, 100.0, 124.0, 150.0, 249.0].into_iter().filter(|f| *f < hz / 2.0) {
                let left = largest(&low_passed(&sine(frequency_hz, hz, 16.0), hz));
                assert!(left < 0.006, "{hz} Hz, at {frequency_hz} Hz: {left}");
            }
        }
        // A slower recorder: what it has is kept, and little is added.
        let slow = low_passed(&sine(20.0, 100.0, 16.0), 100.0);
        assert!((amplitude(&slow, 20.0) - 1.0).abs() < 0.05 && amplitude(&slow, 45.0) < 0.05);
    }

    #[test]
    fn pieces_are_those_of_the_whole() {
        for hz in [100.0, 125.0, 257.3, 360.0, 1000.0] {
            let input = sine(7.3, hz, 9.7);
            let whole = low_passed(&input, hz);
            let mut low_pass = LowPass::new(hz).unwrap();
            let mut pieces = Vec::new();
            for start in (0..whole.len()).step_by(187) {
                let piece = start..(start + 187).min(whole.len());
                let needed = low_pass.input_of(&piece, input.len());
                low_pass.append(input[needed.clone()].to_vec(), needed.start, input.len(), piece, &mut pieces);
            }
            assert!(pieces == whole, "{hz} Hz");
        }
    }

    #[test]
    fn the_time_of_a_peak_and_invalid_samples_stay() {
        for hz in [100.0f64, 257.3, 360.0] {
            let at = (4.0 * hz).round() as usize;
            let mut input: Vec<f32> = (0..(8.0 * hz) as usize)
                .map(|idx| (-0.5 * ((idx as f64 - at as f64) / hz / 0.012).powi(2)).exp() as f32)
                .collect();
            let output = low_passed(&input, hz);
            let peak_idx = (0..output.len()).max_by(|&a, &b| output[a].total_cmp(&output[b])).unwrap();
            assert!((peak_idx as f64 - at as f64 * WORK_HZ / hz).abs() <= 0.51, "{hz}: {peak_idx}");

            let gap_s = 2.0..2.5;
            input[(gap_s.start * hz) as usize..(gap_s.end * hz) as usize].fill(f32::NAN);
            let slack_s = 1.0 / hz.min(WORK_HZ);
            for (idx, sample) in low_passed(&input, hz).iter().enumerate() {
                let time_s = idx as f64 / WORK_HZ;
                if time_s > gap_s.start + slack_s && time_s < gap_s.end - slack_s {
                    assert!(sample.is_nan(), "{hz} Hz: {time_s} s");
                } else if time_s < gap_s.start - slack_s || time_s > gap_s.end + slack_s {
                    assert!(!sample.is_nan(), "{hz} Hz: {time_s} s");
                }
            }
        }
        assert!(low_passed(&[f32::NAN; 50], 360.0).iter().all(|sample| sample.is_nan()));
    }

    #[test]
    fn the_wander_goes_and_the_heartbeat_stays() {
        let gain = |frequency_hz: f64| {
            let mut samples = sine(frequency_hz, WORK_HZ, 160.0);
            subtract_wander(&mut samples);
            amplitude(&samples, frequency_hz)
        };
        assert!((gain(HIGH_PASS_HZ) - 0.5).abs() < 0.01, "{}", gain(HIGH_PASS_HZ));
        assert!(gain(0.1) < 0.01, "{}", gain(0.1));
        // What folds at the slow rate, too.
        for frequency_hz in [1.6, 8.0, 15.0, 15.6, 16.2, 31.0, 47.0] {
            let mut samples = sine(frequency_hz, WORK_HZ, 160.0);
            let before = samples.clone();
            subtract_wander(&mut samples);
            let changes: Vec<f32> = before.iter().zip(&samples).map(|(before, after)| before - after).collect();
            assert!(largest(&changes) < 0.012, "{frequency_hz} Hz: {}", largest(&changes));
        }
    }

    #[test]
    fn a_constant_starts_at_rest_and_is_wander() {
        for hz in [100.0, 125.0, 257.3, 360.0] {
            for input_n in [1, 2, 7, 1000] {
                let mut level = low_passed(&vec![3.0; input_n], hz);
                assert_eq!(level.len(), (input_n as f64 * WORK_HZ / hz).ceil() as usize);
                assert!(level.iter().all(|sample| (sample - 3.0).abs() < 1e-5));
                subtract_wander(&mut level);
                assert!(level.iter().all(|sample| sample.abs() < 1e-5), "{hz} {input_n}");
            }
        }
        assert!(low_passed(&[], 360.0).is_empty());
        subtract_wander(&mut []);
    }
}
