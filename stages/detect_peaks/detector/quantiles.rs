//! Owns quantiles of a few numbers, of which the detector needs many.

/// Numbers of which a quantile is wanted.
///
/// They are kept as integers of the same order, which are faster to compare.
#[derive(Default)]
pub(in crate::detect_peaks) struct Quantiles {
    keys: Vec<i32>,
}

impl Quantiles {
    /// These numbers and no others.
    pub(in crate::detect_peaks) fn take(&mut self, values: impl IntoIterator<Item = f32>) -> &mut Self {
        self.keys.clear();
        self.keys.extend(values.into_iter().map(|value| Self::flipped(value.to_bits() as i32)));
        self
    }

    /// The value at that part of the sorted ones; 0 if there are none.
    pub(in crate::detect_peaks) fn at(&mut self, part: f32) -> f32 {
        if self.keys.is_empty() {
            return 0.0;
        }
        let idx = ((self.keys.len() - 1) as f32 * part).round() as usize;
        f32::from_bits(Self::flipped(*self.keys.select_nth_unstable(idx).1) as u32)
    }

    /// Of two floats, the bits of the larger one as an integer are larger, except below zero. This is its own inverse.
    fn flipped(bits: i32) -> i32 {
        bits ^ (((bits >> 31) as u32) >> 1) as i32
    }
}
