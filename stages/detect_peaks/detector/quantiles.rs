//! Owns quantiles of a few numbers, of which the detector needs many.

use std::collections::VecDeque;

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
        self.keys.extend(values.into_iter().map(key));
        self
    }

    /// The value at that part of the sorted ones; 0 if there are none.
    pub(in crate::detect_peaks) fn at(&mut self, part: f32) -> f32 {
        let Some(idx) = place(self.keys.len(), part) else { return 0.0 };
        value(if self.keys.len() <= Self::COUNTED_N {
            self.counted(idx)
        } else {
            *self.keys.select_nth_unstable(idx).1
        })
    }

    /// Up to so many numbers are counted rather than sorted.
    const COUNTED_N: usize = 64;

    /// The key with `idx` others before it: the largest one with at most so many below. More comparisons than sorting
    /// takes, but none that the processor must guess, and several at a time.
    fn counted(&mut self, idx: usize) -> i32 {
        const LANE_N: usize = 8;
        let key_n = self.keys.len();
        // Padding is below no key, so that it is never counted.
        self.keys.resize(key_n.next_multiple_of(LANE_N), i32::MAX);
        let mut best = i32::MIN;
        for &key in &self.keys[..key_n] {
            let mut below_n = [0i32; LANE_N];
            for others in self.keys.as_chunks::<LANE_N>().0 {
                below_n.iter_mut().zip(others).for_each(|(below_n, &other)| *below_n += i32::from(other < key));
            }
            let below_n = below_n.iter().sum::<i32>() as usize;
            if below_n == idx {
                best = key;
                break;
            }
            // Of equal ones, none may have as many below.
            best = best.max(if below_n < idx { key } else { i32::MIN });
        }
        self.keys.truncate(key_n);
        best
    }
}

/// Quantiles of the latest numbers, kept in order so that a new one costs little.
pub(super) struct RollingQuantile {
    most_n: usize,
    /// In the order of arrival.
    latest: VecDeque<i32>,
    sorted: Vec<i32>,
}

impl RollingQuantile {
    /// Of the latest `most_n` numbers.
    pub(super) fn new(most_n: usize) -> Self {
        Self { most_n, latest: VecDeque::with_capacity(most_n + 1), sorted: Vec::with_capacity(most_n + 1) }
    }

    pub(super) fn push(&mut self, value: f32) {
        let new = key(value);
        self.sorted.insert(self.sorted.partition_point(|&key| key < new), new);
        self.latest.push_back(new);
        if self.latest.len() > self.most_n
            && let Some(old) = self.latest.pop_front()
        {
            self.sorted.remove(self.sorted.partition_point(|&key| key < old));
        }
    }

    /// The value at that part of the sorted ones; 0 if there are none.
    pub(super) fn at(&self, part: f32) -> f32 {
        place(self.sorted.len(), part).map_or(0.0, |idx| value(self.sorted[idx]))
    }
}

/// Which one of `value_n` sorted values is at that part; `None` without values.
fn place(value_n: usize, part: f32) -> Option<usize> {
    // Rounds half up; `round` would be a call.
    value_n.checked_sub(1).map(|last| (last as f32 * part + 0.5) as usize)
}

/// An integer of the same order.
fn key(value: f32) -> i32 {
    flipped(value.to_bits() as i32)
}

/// The number of a key.
fn value(key: i32) -> f32 {
    f32::from_bits(flipped(key) as u32)
}

/// Of two floats, the bits of the larger one as an integer are larger, except below zero. This is its own inverse.
fn flipped(bits: i32) -> i32 {
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[f32], part: f32) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let expected = sorted[((values.len() - 1) as f32 * part).round() as usize];
        assert_eq!(Quantiles::default().take(values.iter().copied()).at(part), expected);
    }

    proptest! {
        #[test]
        fn are_those_of_the_sorted_numbers(values in prop::collection::vec(-3.0f32..3.0, 1..150), part in 0.0f32..=1.0) {
            check(&values, part);
            // Many of them equal.
            check(&values.iter().map(|value| value.round()).collect::<Vec<_>>(), part);
        }

        #[test]
        fn rolling_ones_are_those_of_the_latest(
            values in prop::collection::vec(-3i8..30, 1..60),
            most_n in 1usize..20,
            part in 0.0f32..=1.0,
        ) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut rolling = RollingQuantile::new(most_n);
            values.iter().for_each(|&value| rolling.push(value));
            let latest = &values[values.len().saturating_sub(most_n)..];
            prop_assert_eq!(rolling.at(part), Quantiles::default().take(latest.iter().copied()).at(part));
        }
    }

    #[test]
    fn of_nothing_are_zero() {
        assert_eq!(Quantiles::default().take([]).at(0.5), 0.0);
        assert_eq!(RollingQuantile::new(3).at(0.5), 0.0);
    }
}
