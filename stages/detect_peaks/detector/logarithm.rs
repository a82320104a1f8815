//! Owns the natural logarithm, of which the detector needs tens of thousands a minute.
//!
//! The one of the standard library is a call into the C library of the machine, which may round otherwise on another. This
//! one is arithmetic alone: the same everywhere, and a third of the time.

use std::f32::consts::SQRT_2;

/// Natural logarithm of a positive number, to 2 parts in 10^7 or 10^-7, whichever is more. What is no positive number of
/// normal size gives something finite: zero about -88, infinity about 89.
///
/// The polynomial is that of `logf` in the Cephes library (Moshier 1992).
#[inline]
pub(super) fn ln(value: f32) -> f32 {
    const MANTISSA_BITS: u32 = 23;
    const LEAST: i32 = (SQRT_2 / 2.0).to_bits() as i32;
    let bits = value.to_bits() as i32 - LEAST;
    let exponent = (bits >> MANTISSA_BITS) as f32;
    // From the square root of a half to that of two, less 1.
    let x = f32::from_bits(((bits & ((1 << MANTISSA_BITS) - 1)) + LEAST) as u32) - 1.0;
    let square = x * x;
    let high = ((7.037_683_6e-2 * x - 1.151_461e-1) * x + 1.167_699_9e-1) * square;
    let middle = (-1.242_014_1e-1 * x + 1.424_932_3e-1) * x - 1.666_805_8e-1;
    let low = (2.000_071_5e-1 * x - 2.499_999_4e-1) * x + 3.333_333e-1;
    let cubic = square * x;
    let rest = (high * x + middle) * cubic + low;
    // ln 2 in two parts, the larger one exact in every product.
    exponent * 0.693_359_4 + (x + (rest * cubic - 0.5 * square + exponent * -2.121_944_4e-4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_that_of_the_standard_library(exponent in -80.0f32..80.0) {
            for value in [exponent.exp(), 1.0 + exponent / 100.0] {
                let (expected, found) = (f64::from(value).ln(), f64::from(ln(value)));
                prop_assert!((found - expected).abs() <= 1e-7_f64.max(2e-7 * expected.abs()), "ln {value}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn is_finite_for_any_number() {
        for value in [0.0, -1.0, f32::MIN_POSITIVE / 3.0, f32::INFINITY, f32::NAN, f32::MAX] {
            assert!(ln(value).is_finite());
        }
        assert!(ln(0.0) < -80.0 && ln(f32::INFINITY) > 80.0);
    }
}
