//! Range, median and quality of a lead, gathered a piece at a time in memory that does not grow with the recording.

use ecgpipe_wfdb::INVALID_I32;

/// A signal that keeps one value for this long comes from an electrode that is off or an amplifier at its limit: between
/// two beats, even of a quiet recording, noise changes the last bit. As in the findings of `ecgpipe infer`.
const FLAT_S: f64 = 1.0;
/// A row of samples at the lowest or highest value of the lead is clipped if it is as long as both of these. The top of a
/// real wave is round: two samples may share its value, more of them only at high sampling frequencies.
const CLIPPED_S: f64 = 0.01;
const CLIPPED_SAMPLE_N: u64 = 3;

/// Values that are counted one by one: those of 16 bits.
const NARROW_N: usize = 1 << 16;

/// What is known of a lead's samples so far.
#[derive(Debug)]
pub(super) struct Statistics {
    flat_n: u64,
    clipped_n: u64,
    invalid_n: u64,
    flat_sample_n: u64,
    /// Samples in clipped rows at the lowest value, and at the highest.
    at_limit_n: [u64; 2],
    limits: Option<(i32, i32)>,
    /// The value of the row that goes on, and how long it is.
    row: (i32, u64),
    /// How often each value of 16 bits was there.
    narrow: Vec<u64>,
    /// How often values beyond 16 bits were there, by their upper 16 bits.
    wide: Vec<u64>,
}

/// What is known at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) sample_n: u64,
    pub(super) valid_n: u64,
    pub(super) flat_n: u64,
    pub(super) clipped_n: u64,
    /// Lowest and highest value in ADC units.
    pub(super) limits_adu: Option<(i32, i32)>,
    /// The two values in the middle, which are one if the number of values is odd.
    pub(super) median_adu: Option<(Middle, Middle)>,
}

/// A value, or the upper half of one that only a second look can tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Middle {
    Known(i32),
    /// Upper 16 bits, and how many values with these come before it.
    Above(i32, u64),
}

impl Statistics {
    pub(super) fn new(sampling_frequency_hz: f64) -> Self {
        let sample_n = |seconds: f64| (seconds * sampling_frequency_hz).ceil() as u64;
        Self {
            flat_n: sample_n(FLAT_S).max(2),
            clipped_n: sample_n(CLIPPED_S).max(CLIPPED_SAMPLE_N),
            invalid_n: 0,
            flat_sample_n: 0,
            at_limit_n: [0; 2],
            limits: None,
            row: (INVALID_I32, 0),
            narrow: vec![0; NARROW_N],
            wide: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, samples: &[i32]) {
        for row in samples.chunk_by(|a, b| a == b) {
            let (value, row_n) = (row[0], row.len() as u64);
            if value == self.row.0 {
                self.row.1 += row_n;
            } else {
                self.end_row();
                self.row = (value, row_n);
            }
            if value == INVALID_I32 {
                self.invalid_n += row_n;
            } else if let Ok(narrow) = i16::try_from(value) {
                self.narrow[usize::from(narrow.cast_unsigned() ^ 0x8000)] += row_n;
            } else {
                if self.wide.is_empty() {
                    self.wide = vec![0; NARROW_N];
                }
                self.wide[upper_idx(value)] += row_n;
            }
        }
    }

    fn end_row(&mut self) {
        let (value, row_n) = self.row;
        if row_n == 0 || value == INVALID_I32 {
            return;
        }
        let (low, high) = self.limits.get_or_insert((value, value));
        if value < *low {
            (*low, self.at_limit_n[0]) = (value, 0);
        }
        if value > *high {
            (*high, self.at_limit_n[1]) = (value, 0);
        }
        if row_n >= self.flat_n {
            self.flat_sample_n += row_n;
        } else if row_n >= self.clipped_n {
            // A lead of one value is flat, not clipped; which of the limits it is does not matter.
            if value == *low {
                self.at_limit_n[0] += row_n;
            } else if value == *high {
                self.at_limit_n[1] += row_n;
            }
        }
    }

    pub(super) fn finish(&mut self) -> Summary {
        self.end_row();
        self.row = (INVALID_I32, 0);
        let valid_n: u64 = self.narrow.iter().sum::<u64>() + self.wide.iter().sum::<u64>();
        let is_one_value = self.limits.is_none_or(|(low, high)| low == high);
        Summary {
            sample_n: valid_n + self.invalid_n,
            valid_n,
            flat_n: self.flat_sample_n,
            clipped_n: if is_one_value { 0 } else { self.at_limit_n.iter().sum() },
            limits_adu: self.limits,
            median_adu: (valid_n > 0).then(|| (self.value_at((valid_n - 1) / 2), self.value_at(valid_n / 2))),
        }
    }

    /// The value at a place in the order of all values.
    fn value_at(&self, place: u64) -> Middle {
        let mut before_n = 0;
        let negative = self.wide.iter().enumerate().take(NARROW_N / 2);
        let positive = self.wide.iter().enumerate().skip(NARROW_N / 2);
        let upper = |(idx, count): (usize, &u64)| (Middle::Above(idx as i32 - (1 << 15), 0), *count);
        let known = |(idx, count): (usize, &u64)| (Middle::Known(idx as i32 - (1 << 15)), *count);
        let all = negative.map(upper).chain(self.narrow.iter().enumerate().map(known)).chain(positive.map(upper));
        for (middle, count) in all {
            if place < before_n + count {
                return match middle {
                    Middle::Above(upper, _) => Middle::Above(upper, place - before_n),
                    known => known,
                };
            }
            before_n += count;
        }
        unreachable!("there are more values than {place}")
    }
}

/// The place of a value's upper 16 bits, the lowest first.
fn upper_idx(value: i32) -> usize {
    ((value >> 16) + (1 << 15)) as usize
}

/// A second look at the values beyond 16 bits that share the upper half of a value in the middle.
#[derive(Debug)]
pub(super) struct SecondLook {
    upper: i32,
    lower: Vec<u64>,
}

impl SecondLook {
    /// What is needed to tell these values; one look for both if they share their upper half.
    pub(super) fn at(middles: (Middle, Middle)) -> Vec<SecondLook> {
        let mut uppers: Vec<i32> = [middles.0, middles.1]
            .into_iter()
            .filter_map(|middle| if let Middle::Above(upper, _) = middle { Some(upper) } else { None })
            .collect();
        uppers.dedup();
        uppers.into_iter().map(|upper| SecondLook { upper, lower: vec![0; NARROW_N] }).collect()
    }

    pub(super) fn add(&mut self, samples: &[i32]) {
        for &sample in samples {
            if sample >> 16 == self.upper && sample != INVALID_I32 && i16::try_from(sample).is_err() {
                self.lower[(sample & 0xffff) as usize] += 1;
            }
        }
    }

    /// The value in the middle, after all samples were added.
    pub(super) fn value(looks: &[SecondLook], middle: Middle) -> i32 {
        let (upper, place) = match middle {
            Middle::Known(value) => return value,
            Middle::Above(upper, place) => (upper, place),
        };
        let look = looks.iter().find(|look| look.upper == upper).expect("one look for each upper half");
        let mut before_n = 0;
        let lower = look.lower.iter().position(|count| {
            before_n += count;
            place < before_n
        });
        upper * (1 << 16) + lower.expect("both looks see the same samples") as i32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// At 10 Hz: 10 equal samples are flat, 3 at a limit clipped. `x` is invalid, a letter a value.
    fn check(text: &str, expected: &str) {
        let samples: Vec<i32> =
            text.chars().map(|letter| if letter == 'x' { INVALID_I32 } else { letter as i32 }).collect();
        for piece_n in [1, 3, 1000] {
            let mut statistics = Statistics::new(10.0);
            samples.chunks(piece_n).for_each(|piece| statistics.add(piece));
            let found = statistics.finish();
            let letter = |value: i32| char::from_u32(value as u32).unwrap_or('?');
            let limits =
                found.limits_adu.map_or(String::new(), |(low, high)| format!("{}{}", letter(low), letter(high)));
            let shown = format!(
                "{}/{} {limits} flat {} clipped {}",
                found.valid_n, found.sample_n, found.flat_n, found.clipped_n
            );
            assert_eq!(shown, expected, "{text} in pieces of {piece_n}");
        }
    }

    #[test]
    fn flat_and_clipped_samples_are_counted() {
        check("", "0/0  flat 0 clipped 0");
        check("xx", "0/2  flat 0 clipped 0");
        check("abcxba", "5/6 ac flat 0 clipped 0");
        check("bccccccccccb", "12/12 bc flat 10 clipped 0");
        check("abbbcccb", "8/8 ac flat 0 clipped 3");
        check("bbbabbb", "7/7 ab flat 0 clipped 3");
        check("bbbaaabcccbaaa", "14/14 ac flat 0 clipped 9");
        check("aaaaaaaaaaaaa", "13/13 aa flat 13 clipped 0");
        check("aaa", "3/3 aa flat 0 clipped 0");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_median_is_that_of_sorting(
            samples in prop::collection::vec(prop_oneof![-5_i32..5, any::<i32>(), -70_000_i32..70_000], 1..60),
        ) {
            let mut statistics = Statistics::new(10.0);
            statistics.add(&samples);
            let found = statistics.finish();
            let mut sorted: Vec<i32> = samples.iter().copied().filter(|sample| *sample != INVALID_I32).collect();
            sorted.sort_unstable();
            prop_assert_eq!(found.valid_n, sorted.len() as u64);
            let Some(middles) = found.median_adu else { return Ok(()) };
            let mut looks = SecondLook::at(middles);
            looks.iter_mut().for_each(|look| look.add(&samples));
            let values = (SecondLook::value(&looks, middles.0), SecondLook::value(&looks, middles.1));
            prop_assert_eq!(values, (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]));
        }
    }
}
