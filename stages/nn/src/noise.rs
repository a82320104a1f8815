//! Owns noise and waves that cost little: what training adds to samples, millions of times.
//!
//! Plain arithmetic in a fixed order, so that the compiler may use vector instructions and every machine gives the same
//! numbers; the functions of a system's library do neither.

use std::f32::consts::TAU;

/// The sine of so many turns, less than a million, within 0.00001.
#[inline]
#[must_use]
pub fn sine(turns: f32) -> f32 {
    /// Added and taken away again, it rounds to a whole number.
    const ROUNDING: f32 = 12_582_912.0;
    let part = turns - ((turns + ROUNDING) - ROUNDING);
    // The same sine within a quarter of a turn.
    let size = part.abs();
    let turn = if size > 0.25 { 0.5 - size } else { size };
    let (angle, square) = (TAU * turn, TAU * turn * (TAU * turn));
    let series = 1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0)));
    (angle * series).copysign(part)
}

/// A number of mean 0 and variance 1 out of 64 random bits that is hard to tell from a normal one: four uniform numbers
/// together. None is beyond 3.5 deviations.
#[inline]
#[must_use]
pub fn nearly_normal(bits: u64) -> f32 {
    /// Mean and standard deviation of the sum of four numbers that are uniform in 0 to 65535.
    const MEAN: f32 = 131_070.0;
    const DEVIATION: f32 = 37_837.2;
    let four: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
    (four as i32 as f32 - MEAN) / DEVIATION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    #[test]
    fn noise_is_nearly_normal() {
        let mut stream = Stream::new(5, Purpose::Sample, 0, 0);
        let drawn: Vec<f64> = (0..100_000).map(|_| f64::from(stream.nearly_normal())).collect();
        let moment = |power: i32| drawn.iter().map(|value| value.powi(power)).sum::<f64>() / drawn.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.01 && moment(3).abs() < 0.02);
        // 3 for normal numbers; a sum of four uniform ones has 0.3 less.
        assert!((moment(4) - 2.7).abs() < 0.05, "{}", moment(4));
        let within = |limit: f64| drawn.iter().filter(|value| value.abs() < limit).count() as f64 / 1e5;
        assert!((within(1.0) - 0.683).abs() < 0.02 && (within(2.0) - 0.954).abs() < 0.01);
    }

    #[test]
    fn the_sine_is_that_of_the_library() {
        for idx in -3000..3000 {
            let turns = idx as f32 / 300.0;
            assert!((sine(turns) - (TAU * turns).sin()).abs() < 1e-5, "{turns}");
        }
    }
}
