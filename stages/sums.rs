//! Owns sums over samples, and their extremes: eight at once, so that the compiler may use vector instructions, and in a
//! fixed order, so that the machine does not matter.
//!
//! It must not know what the samples are.

/// Partial results.
const LANE_N: usize = 8;

/// The sum of products.
///
/// `resample` stands on the order of these additions, to the last bit (`tests::the_order_of_additions_is_fixed`).
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(a, b, |a, b| a * b)
}

/// The sum over pairs of what `of` makes of them.
pub(crate) fn sum_pairs(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANE_N];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANE_N), b.chunks_exact(LANE_N));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| of(*a, *b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANE_N {
            sums[lane] += of(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The sum of what `of` makes of each value.
pub(crate) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    sum_pairs(values, values, |value, _| of(value))
}

/// The greatest; negative infinity of nothing.
pub(crate) fn maximum(values: &[f32]) -> f32 {
    extreme(values, f32::NEG_INFINITY, |best, value| if value > best { value } else { best })
}

/// The least; infinity of nothing.
pub(crate) fn minimum(values: &[f32]) -> f32 {
    extreme(values, f32::INFINITY, |best, value| if value < best { value } else { best })
}

/// `better` keeps the first of two unless the second is a better number; NaN never is.
fn extreme(values: &[f32], start: f32, better: impl Fn(f32, f32) -> f32) -> f32 {
    let mut best = [start; LANE_N];
    let chunks = values.chunks_exact(LANE_N);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANE_N {
            best[lane] = better(best[lane], chunk[lane]);
        }
    }
    best.iter().chain(rest).fold(start, |best, value| better(best, *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_additions_is_fixed() {
        // One is lost beside 2^24, two or three are not: another order gives another sum.
        let mut values = [1.0; 11];
        values[0] = 16_777_216.0;
        let expected = 16_777_216.0 + 3.0;
        assert_eq!(dot(&values, &[1.0; 11]), expected);
        assert_eq!(sum(&values, |value| value), expected);
        assert_eq!((dot(&[], &[]), dot(&[2.0, 3.0], &[5.0, 7.0])), (0.0, 31.0));
    }

    #[test]
    fn extremes_are_found_at_any_place_and_nan_is_none() {
        for place in 0..19 {
            let mut values = [f32::NAN; 19];
            values[place] = -2.0;
            assert_eq!((maximum(&values), minimum(&values)), (-2.0, -2.0), "{place}");
        }
        assert_eq!((maximum(&[]), minimum(&[])), (f32::NEG_INFINITY, f32::INFINITY));
    }
}
