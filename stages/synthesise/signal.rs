//! Owns what a recorder makes of a heart: waves summed up in each lead, breathing, drift, noise, and the ADC.
//!
//! All sums are in f64 and rounded to whole ADC units at the end, so that a last-bit difference between two systems'
//! `exp` and `sin` does not reach the samples in practice.

use std::f64::consts::TAU;

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{
    patient::{Lead, Patient, Shape, Wave},
    timeline::{Beat, Origin, Timeline},
};

/// Disturbances of a recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disturbances {
    /// RMS of muscle noise at rest.
    pub(super) muscle_mv: f64,
    /// Amplitude of the mains hum.
    pub(super) mains_mv: f64,
    /// RMS of the baseline's wander.
    pub(super) wander_mv: f64,
}

/// Where a beat is annotated: at the largest deflection of its QRS complex in MLII, without noise.
pub(super) fn fiducial_s(patient: &Patient, beat: &Beat) -> f64 {
    const REACH_MS: i32 = 100;
    let lead = patient.reference_lead();
    let height = |at_s: f64| -> f64 {
        let part = |part: Part<'_>| -> f64 {
            let wave_mv = |wave| value(&stretched(wave, beat.stretch), at_s - part.lag_s);
            part.share * part.shape.qrs.iter().map(wave_mv).sum::<f64>()
        };
        parts(lead, beat.origin).into_iter().flatten().map(part).sum::<f64>().abs()
    };
    let offsets = (-REACH_MS..=REACH_MS).map(|ms| f64::from(ms) / 1e3);
    let highest = offsets.max_by(|&a, &b| height(a).total_cmp(&height(b)));
    beat.at_s + highest.expect("the range is not empty")
}

/// One lead in mV. Breathing and mains are those of the patient: the same in all leads but for their size.
pub(super) fn record(
    patient: &Patient,
    lead: &Lead,
    timeline: &Timeline,
    sample_n: usize,
    disturbances: Disturbances,
    rng: &mut Xoshiro256PlusPlus,
) -> Vec<f64> {
    let mut track = Track { hz: patient.sampling_frequency_hz, samples_mv: vec![0.0; sample_n] };
    for beat in &timeline.beats {
        // The heart turns as the chest fills: its height in a lead follows the breath by some percent.
        let gain = beat.gain * (1.0 + 0.04 * (TAU * patient.breathing_hz * beat.at_s).sin());
        for part in parts(lead, beat.origin).into_iter().flatten() {
            let (at_s, gain) = (beat.at_s + part.lag_s, gain * part.share);
            for wave in &part.shape.qrs {
                track.add(&stretched(wave, beat.stretch), at_s, gain);
            }
            // QT goes with the root of the cycle (Bazett).
            track.add(&stretched(&part.shape.t, beat.stretch * beat.cycle_s.sqrt()), at_s, gain);
        }
    }
    for p_wave in &timeline.atrial_waves {
        for wave in if p_wave.is_ectopic { &lead.ectopic_p } else { &lead.p } {
            track.add(wave, p_wave.at_s, 1.0);
        }
    }
    for &spike_s in &timeline.spikes_s {
        track.add(&lead.spike, spike_s, 1.0);
    }
    track.add_wander(patient, disturbances.wander_mv, rng);
    track.add_noise(patient, disturbances, rng);
    track.samples_mv
}

/// One of the shapes that a beat is mixed of.
struct Part<'a> {
    shape: &'a Shape,
    share: f64,
    /// How much later than the beat's time it comes.
    lag_s: f64,
}

/// In a fusion beat the conducted part is fast: it is half over when the other wavefront reaches its height.
const FUSION_LAG_S: f64 = 0.035;

fn parts(lead: &Lead, origin: Origin) -> [Option<Part<'_>>; 2] {
    let whole = |shape| [Some(Part { shape, share: 1.0, lag_s: 0.0 }), None];
    let mixed = |shape, share| {
        let conducted = Part { shape: &lead.conducted, share: 1.0 - share, lag_s: 0.0 };
        [Some(conducted), Some(Part { shape, share, lag_s: FUSION_LAG_S })]
    };
    match origin {
        Origin::Conducted => whole(&lead.conducted),
        Origin::Ectopic(focus) => whole(&lead.ectopic[focus]),
        Origin::Fusion(focus, share) => mixed(&lead.ectopic[focus], share),
        Origin::Paced => whole(&lead.paced),
        Origin::PacedFusion(share) => mixed(&lead.paced, share),
    }
}

fn stretched(wave: &Wave, factor: f64) -> Wave {
    Wave { at_s: wave.at_s * factor, left_s: wave.left_s * factor, right_s: wave.right_s * factor, ..*wave }
}

fn value(wave: &Wave, at_s: f64) -> f64 {
    let offset_s = at_s - wave.at_s;
    let deviations = offset_s / if offset_s < 0.0 { wave.left_s } else { wave.right_s };
    wave.amplitude_mv * (-0.5 * deviations * deviations).exp()
}

struct Track {
    hz: f64,
    samples_mv: Vec<f64>,
}

/// Slow curves are computed so often and joined by straight lines: nothing in them is faster than 1 Hz.
const SLOW_HZ: f64 = 16.0;

impl Track {
    /// Adds a wave of a beat at `beat_s`.
    fn add(&mut self, wave: &Wave, beat_s: f64, gain: f64) {
        // Behind 4.5 standard deviations a wave of 2 mV is below a tenth of an ADC unit.
        const REACH: f64 = 4.5;
        let peak_s = beat_s + wave.at_s;
        let first_idx = ((peak_s - REACH * wave.left_s) * self.hz).ceil().max(0.0) as usize;
        let end_idx = ((peak_s + REACH * wave.right_s) * self.hz).floor() + 1.0;
        let end_idx = (end_idx.max(0.0) as usize).min(self.samples_mv.len());
        for idx in first_idx..end_idx {
            self.samples_mv[idx] += gain * value(wave, idx as f64 / self.hz - beat_s);
        }
    }

    /// Calls `each` with every sample and a curve that is given at [`SLOW_HZ`].
    fn with_slow(&mut self, knots: &[f64], mut each: impl FnMut(&mut f64, f64)) {
        let knots_a_sample = SLOW_HZ / self.hz;
        for (idx, sample_mv) in self.samples_mv.iter_mut().enumerate() {
            let position = idx as f64 * knots_a_sample;
            let (knot, rest) = (position as usize, position.fract());
            each(sample_mv, knots[knot] * (1.0 - rest) + knots[knot + 1] * rest);
        }
    }

    fn knot_n(&self) -> usize {
        (self.samples_mv.len() as f64 / self.hz * SLOW_HZ).ceil() as usize + 2
    }

    /// Breathing moves the electrodes; their potential drifts with power as 1/f.
    fn add_wander(&mut self, patient: &Patient, wander_mv: f64, rng: &mut Xoshiro256PlusPlus) {
        const DRIFT_HZ: [f64; 7] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64];
        let breathing_mv = wander_mv * rng.random_range(0.5..1.3);
        // Frequencies an octave apart hold as much power each where power goes as 1/f.
        let drift_mv = wander_mv * (2.0 / DRIFT_HZ.len() as f64).sqrt() * 0.7;
        let mut sinusoids = vec![(patient.breathing_hz, breathing_mv, rng.random_range(0.0..TAU))];
        for hz in DRIFT_HZ {
            sinusoids.push((hz * rng.random_range(0.8..1.25), drift_mv, rng.random_range(0.0..TAU)));
        }
        let at = |knot: usize| -> f64 {
            let at_s = knot as f64 / SLOW_HZ;
            sinusoids.iter().map(|(hz, height, phase)| height * (TAU * hz * at_s + phase).sin()).sum()
        };
        let knots: Vec<f64> = (0..self.knot_n()).map(at).collect();
        self.with_slow(&knots, |sample_mv, wander_mv| *sample_mv += wander_mv);
    }

    /// Muscle noise with bursts, flicker noise of the electrodes, mains hum.
    fn add_noise(&mut self, patient: &Patient, disturbances: Disturbances, rng: &mut Xoshiro256PlusPlus) {
        let muscle_mv = disturbances.muscle_mv * patient.noise_gain;
        let bursts = self.draw_bursts(rng);
        // Flicker noise as the sum of relaxations a decade apart (van der Ziel 1950), together half of the muscle noise.
        let decays = [0.03, 0.3, 3.0].map(|relaxation_s: f64| (-1.0 / (relaxation_s * self.hz)).exp());
        let drives = decays.map(|decay| 0.5 * muscle_mv * ((1.0 - decay * decay) / 3.0).sqrt());
        let mut relaxations = [0.0; 3];
        // Muscle noise has little power below 20 Hz: the difference of neighbours, scaled to unit power.
        const NEIGHBOUR: f64 = 0.6;
        let unit = 1.0 / (1.0_f64 + NEIGHBOUR * NEIGHBOUR).sqrt();
        let mut last: f64 = 0.0;
        let mains_mv = disturbances.mains_mv * patient.noise_gain;
        let (mut hum, mut hum_quarter) = rng.random_range(0.0..TAU).sin_cos();
        let (turn, turn_quarter) = (TAU * patient.mains_hz / self.hz).sin_cos();
        self.with_slow(&bursts, |sample_mv, burst| {
            let (white, flicker): (f64, f64) = (StandardNormal.sample(rng), StandardNormal.sample(rng));
            *sample_mv += muscle_mv * burst * unit * (white - NEIGHBOUR * last);
            last = white;
            for ((relaxation, decay), drive) in relaxations.iter_mut().zip(decays).zip(drives) {
                *relaxation = *relaxation * decay + drive * flicker;
                *sample_mv += *relaxation;
            }
            *sample_mv += mains_mv * hum;
            (hum, hum_quarter) = (hum * turn_quarter + hum_quarter * turn, hum_quarter * turn_quarter - hum * turn);
        });
    }

    /// The gain of the muscle noise over time: 1, and two to four times that for some seconds of each minute.
    fn draw_bursts(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<f64> {
        let mut gains = vec![1.0; self.knot_n()];
        let duration_s = gains.len() as f64 / SLOW_HZ;
        let mut at_s = rng.random_range(0.0..60.0);
        while at_s < duration_s {
            let (length_s, gain) = (rng.random_range(1.0..5.0), rng.random_range(2.0..4.0));
            let end = (((at_s + length_s) * SLOW_HZ) as usize).min(gains.len());
            for value in &mut gains[((at_s * SLOW_HZ) as usize).min(end)..end] {
                *value = gain;
            }
            at_s += length_s + rng.random_range(20.0..80.0);
        }
        gains
    }
}
