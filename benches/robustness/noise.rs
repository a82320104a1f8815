//! Owns noise of our own making, added to a lead at a signal-to-noise ratio: what a detector has to bear.
//!
//! Three kinds, as in the MIT-BIH Noise Stress Test Database (Moody, Muldrow & Mark, "A noise stress test for arrhythmia
//! detectors", Computers in Cardiology 11:381-384, 1984), whose recordings are not used: each is drawn from a seeded
//! generator.
//!
//! The ratio is theirs (WFDB's `nst` and `sigamp`): `10 log10(S / N)` with `S` an eighth of the square of the peak-to-peak
//! amplitude of the QRS complex (the power of a sine wave of that amplitude), measured within 50 ms of each of the first
//! 300 beats, and `N` the square of the noise's standard deviation in windows of one second, 300 of them; of both, the
//! mean without the largest and the smallest twentieth.

use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_xoshiro::Xoshiro256PlusPlus;

/// What disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Gaussian noise of 0.05 to 0.5 Hz: breathing, slow movement.
    BaselineWander,
    /// Gaussian noise of 20 to 100 Hz in bursts: the envelope is the exponential of Gaussian noise below 0.5 Hz.
    Muscle,
    /// Jumps that come at random, on average 1.5 a second, each with a rise of 10 to 60 ms, a decay of 0.1 to 1 s and a
    /// normally distributed height, and Gaussian noise of 1 to 10 Hz: an electrode that slips.
    ElectrodeMotion,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::BaselineWander, Self::Muscle, Self::ElectrodeMotion];

    /// Its name.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BaselineWander => "baseline wander",
            Self::Muscle => "muscle noise",
            Self::ElectrodeMotion => "electrode motion",
        }
    }
}

/// The lead with noise at that ratio.
///
/// `beats` are the positions of its beats, in samples.
pub(crate) fn add(lead: &[f32], beats: &[i64], hz: f64, kind: Kind, snr_db: f64, seed: u64) -> Vec<f32> {
    let noise = make(kind, lead.len(), hz, seed);
    let signal_power = qrs_amplitude(lead, beats, hz).powi(2) / 8.0;
    let noise_power = deviation(&noise, hz).powi(2);
    let gain = (signal_power / noise_power / 10f64.powf(snr_db / 10.0)).sqrt();
    lead.iter().zip(noise).map(|(sample, noise)| (f64::from(*sample) + gain * noise) as f32).collect()
}

fn make(kind: Kind, sample_n: usize, hz: f64, seed: u64) -> Vec<f64> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    match kind {
        Kind::BaselineWander => band(white(&mut rng, sample_n), hz, 0.05, 0.5),
        Kind::Muscle => {
            let envelope = normalised(band(white(&mut rng, sample_n), hz, 0.02, 0.5));
            let fast = band(white(&mut rng, sample_n), hz, 20.0, 100.0);
            fast.iter().zip(envelope).map(|(fast, envelope)| fast * envelope.exp()).collect()
        }
        Kind::ElectrodeMotion => {
            let mut noise = normalised(band(white(&mut rng, sample_n), hz, 1.0, 10.0));
            let mut jumps = vec![0.0; sample_n];
            let mut time_s = 0.0;
            loop {
                // Intervals of a Poisson process.
                time_s += -(1.0 - rng.random::<f64>()).ln() / 1.5;
                let from = (time_s * hz) as usize;
                if from >= sample_n {
                    break;
                }
                let height: f64 = rng.sample(StandardNormal);
                let rise_s = rng.random_range(0.01..0.06);
                let decay_s = rng.random_range(0.1..1.0);
                let reach_n = (5.0 * decay_s * hz) as usize;
                for (idx, jump) in jumps[from..].iter_mut().take(reach_n).enumerate() {
                    let after_s = idx as f64 / hz;
                    *jump += height * (1.0 - (-after_s / rise_s).exp()) * (-after_s / decay_s).exp();
                }
            }
            let jumps = normalised(jumps);
            noise.iter_mut().zip(jumps).for_each(|(noise, jump)| *noise = 0.5 * *noise + jump);
            noise
        }
    }
}

fn white(rng: &mut Xoshiro256PlusPlus, sample_n: usize) -> Vec<f64> {
    (0..sample_n).map(|_| rng.sample(StandardNormal)).collect()
}

/// Two passes each of a first-order high-pass and a first-order low-pass filter.
fn band(mut signal: Vec<f64>, hz: f64, low_hz: f64, high_hz: f64) -> Vec<f64> {
    let part = |cutoff_hz: f64| 1.0 - (-2.0 * std::f64::consts::PI * cutoff_hz / hz).exp();
    for _ in 0..2 {
        let (mut slow, mut smooth) = (0.0, 0.0);
        for sample in &mut signal {
            slow += part(low_hz) * (*sample - slow);
            smooth += part(high_hz) * (*sample - slow - smooth);
            *sample = smooth;
        }
    }
    signal
}

fn normalised(signal: Vec<f64>) -> Vec<f64> {
    let power = signal.iter().map(|sample| sample * sample).sum::<f64>() / signal.len().max(1) as f64;
    signal.into_iter().map(|sample| sample / power.sqrt().max(f64::MIN_POSITIVE)).collect()
}

/// Peak-to-peak amplitude of a typical QRS complex.
fn qrs_amplitude(lead: &[f32], beats: &[i64], hz: f64) -> f64 {
    let reach_n = (0.05 * hz) as i64;
    let range = |&beat: &i64| {
        let around = &lead[(beat - reach_n).max(0) as usize..((beat + reach_n + 1) as usize).min(lead.len())];
        let (low, high) =
            around.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &s| (low.min(s), high.max(s)));
        f64::from(high - low)
    };
    trimmed_mean(beats.iter().take(300).map(range).collect())
}

/// Standard deviation of typical seconds.
fn deviation(noise: &[f64], hz: f64) -> f64 {
    let of_second = |second: &[f64]| {
        let mean = second.iter().sum::<f64>() / second.len() as f64;
        (second.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / second.len() as f64).sqrt()
    };
    trimmed_mean(noise.chunks_exact(hz as usize).take(300).map(of_second).collect())
}

fn trimmed_mean(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let cut_n = values.len() / 20;
    let kept = &values[cut_n..values.len() - cut_n];
    kept.iter().sum::<f64>() / kept.len() as f64
}
