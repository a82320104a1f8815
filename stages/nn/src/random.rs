//! All randomness of training, as independent streams: each is named by what it is for and where it is used, so that no
//! number depends on the order in which threads ask for theirs.
//!
//! Invariant: burn's own random generator is never used; a stream depends on its name alone
//! (`the_number_of_threads_does_not_change_a_weight`).

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::noise::nearly_normal;

/// What a stream of random numbers is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The initial weights of tensor `a`.
    Weights = 1,
    /// The order of the samples in epoch `a`.
    Order = 2,
    /// Noise, shift, dropout of sample `b` in epoch `a`.
    Sample = 3,
}

/// One stream of random numbers.
pub(crate) struct Stream(Xoshiro256PlusPlus);

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        // SplitMix64 finalisers (Steele, Lea and Flood 2014) between the parts, so that near seeds give far streams.
        let mixed = [purpose as u64, a, b].into_iter().fold(seed, |state, part| mix(state ^ mix(part)));
        Self(Xoshiro256PlusPlus::seed_from_u64(mixed))
    }

    /// Uniform in `[0, 1)`, with 24 random bits.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform among `0..n`; the bias is below 2^-32 for every `n` of this crate.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Two independent standard normal numbers (Box and Muller 1958).
    pub(crate) fn normal_pair(&mut self) -> (f32, f32) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f32::consts::TAU * self.uniform()).sin_cos();
        (radius * cosine, radius * sine)
    }

    /// A nearly normal number ([`crate::noise`]), for noise.
    pub(crate) fn nearly_normal(&mut self) -> f32 {
        nearly_normal(self.0.next_u64())
    }

    /// `n` normal numbers of the given standard deviation.
    pub(crate) fn normals(&mut self, n: usize, deviation: f32) -> Vec<f32> {
        let mut values = Vec::with_capacity(n + 1);
        while values.len() < n {
            let (a, b) = self.normal_pair();
            values.extend([a * deviation, b * deviation]);
        }
        values.truncate(n);
        values
    }

    /// Shuffles in place (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for idx in (1..items.len()).rev() {
            items.swap(idx, self.below(idx + 1));
        }
    }
}

fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let values = Stream::new(7, Purpose::Weights, 0, 0).normals(100_001, 1.0);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_moves_most() {
        let mut items: Vec<usize> = (0..1000).collect();
        Stream::new(7, Purpose::Order, 3, 0).shuffle(&mut items);
        let kept_n = items.iter().enumerate().filter(|(idx, item)| idx == *item).count();
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(idx, item)| idx == *item) && kept_n < 20);
    }

    #[test]
    fn streams_of_near_names_differ() {
        let first = |a, b| Stream::new(1, Purpose::Sample, a, b).uniform();
        assert!(first(0, 0) != first(0, 1) && first(0, 1) != first(1, 0));
    }
}
