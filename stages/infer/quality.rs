//! Owns which stretches of a lead cannot be read: the recorder gave no samples, or always the same one.
//!
//! Noise that hides beats is not judged here; it shows in uncertain beats.

/// Samples that are missing for this long may hide a QRS complex, which lasts 0.06 to 0.12 s (and up to 0.2 s where wide).
const MIN_INVALID_S: f64 = 0.2;
/// A signal that keeps one value for this long comes from an electrode that is off or an amplifier at its limit: between
/// two beats, even of a quiet recording, noise changes the last bit.
const MIN_FLAT_S: f64 = 1.0;

/// A stretch of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its first sample.
    pub first_idx: usize,
    /// The sample after its last.
    pub end_idx: usize,
}

/// The stretches of a lead that cannot be read, in order and apart from one another. Invalid samples are NaN.
#[must_use]
pub fn unreadable(samples: &[f32], sampling_frequency_hz: f64) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut first_idx = 0;
    for row in samples.chunk_by(|a, b| a == b || (a.is_nan() && b.is_nan())) {
        let end_idx = first_idx + row.len();
        let limit_s = if row[0].is_nan() { MIN_INVALID_S } else { MIN_FLAT_S };
        if row.len() as f64 >= limit_s * sampling_frequency_hz {
            match stretches.last_mut() {
                Some(last) if last.end_idx == first_idx => last.end_idx = end_idx,
                _ => stretches.push(Stretch { first_idx, end_idx }),
            }
        }
        first_idx = end_idx;
    }
    stretches
}

/// For each beat, whether a stretch lies between the beat before and this one; `stretches` and `sample_idx` are in order.
#[must_use]
pub fn after_gap(sample_idx: &[i64], stretches: &[Stretch]) -> Vec<bool> {
    let mut next = 0;
    let mut previous = i64::MIN;
    let mut flag = |&at: &i64| {
        while next < stretches.len() && (stretches[next].end_idx as i64) <= previous {
            next += 1;
        }
        let gap = stretches.get(next).is_some_and(|stretch| (stretch.first_idx as i64) < at);
        previous = at;
        gap
    };
    sample_idx.iter().map(&mut flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At 10 Hz: 2 invalid samples or 10 equal ones count. `x` is invalid, a letter a value.
    fn check(text: &str, expected: &[(usize, usize)]) {
        let sample = |letter: char| if letter == 'x' { f32::NAN } else { letter as u32 as f32 };
        let samples: Vec<f32> = text.chars().map(sample).collect();
        let found: Vec<(usize, usize)> =
            unreadable(&samples, 10.0).iter().map(|stretch| (stretch.first_idx, stretch.end_idx)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn finds_invalid_and_flat_stretches() {
        check("", &[]);
        check("abcabc", &[]);
        check("axbxxbxxxc", &[(3, 5), (6, 9)]);
        check("aaaaaaaaa", &[]);
        check("baaaaaaaaaac", &[(1, 11)]);
        check("aaaaaaaaaaxxbbbbbbbbbbc", &[(0, 22)]);
        check("xxxx", &[(0, 4)]);
    }

    #[test]
    fn a_beat_is_after_a_gap_that_ends_or_begins_before_it() {
        let stretches = [Stretch { first_idx: 0, end_idx: 5 }, Stretch { first_idx: 20, end_idx: 30 }];
        assert_eq!(after_gap(&[7, 12, 18, 35, 40], &stretches), [true, false, false, true, false]);
        // A beat within a stretch has unreadable signal on both of its sides.
        assert_eq!(after_gap(&[10, 25, 35], &stretches[1..]), [false, true, true]);
        assert_eq!(after_gap(&[10, 25], &[]), [false, false]);
    }
}
