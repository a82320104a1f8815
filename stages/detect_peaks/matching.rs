//! Owns the pairing of detected beats with reference beats: which detection stands for which annotated beat.
//!
//! The rule is that of ANSI/AAMI EC57 as the WFDB tool `bxb` (10.7.0) applies it. Both lists are walked in time order.
//! The earlier of the two beats at hand is paired with the other one if they are within the match window and if the
//! *next* beat of the earlier one's own list is not at least as close; else it stays alone: a false positive if it was
//! detected, a missed beat if it was annotated.
//!
//! Invariant: a pairing is one to one, in time order, and never wider than the window
//! (`tests::pairs_are_one_to_one_in_order_and_close`).
//!
//! The module knows positions only: neither labels nor which rhythms do not count.

/// For every reference beat, the index of the detected beat that stands for it; `None` where it was missed.
///
/// Both lists are positions in samples, in ascending order; `window_n` is the widest distance of a pair in samples.
/// Detected beats whose index does not occur are false positives.
#[must_use]
pub fn match_beats(reference: &[i64], detected: &[i64], window_n: i64) -> Vec<Option<usize>> {
    let mut pairs = vec![None; reference.len()];
    let (mut reference_idx, mut detected_idx) = (0, 0);
    while let (Some(&here), Some(&there)) = (reference.get(reference_idx), detected.get(detected_idx)) {
        let distance_n = (here - there).abs();
        let detected_first = there < here;
        let rival = if detected_first {
            detected.get(detected_idx + 1).map(|next| (here - next).abs())
        } else {
            reference.get(reference_idx + 1).map(|next| (there - next).abs())
        };
        if distance_n <= window_n && rival.is_none_or(|rival_n| distance_n < rival_n) {
            pairs[reference_idx] = Some(detected_idx);
            reference_idx += 1;
            detected_idx += 1;
        } else if detected_first {
            detected_idx += 1;
        } else {
            reference_idx += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearer_of_two_wins() {
        // Two detections for one beat: the nearer one stands for it, whatever the order.
        assert_eq!(match_beats(&[100], &[60, 98], 54), [Some(1)]);
        assert_eq!(match_beats(&[100], &[98, 140], 54), [Some(0)]);
        // Two beats for one detection.
        assert_eq!(match_beats(&[60, 98], &[100], 54), [None, Some(0)]);
        assert_eq!(match_beats(&[98, 140], &[100], 54), [Some(0), None]);
    }

    #[test]
    fn the_window_includes_its_end() {
        assert_eq!(match_beats(&[100], &[154], 54), [Some(0)]);
        assert_eq!(match_beats(&[100], &[155], 54), [None]);
        assert_eq!(match_beats(&[100], &[46], 54), [Some(0)]);
        assert_eq!(match_beats(&[100], &[45], 54), [None]);
    }

    #[test]
    fn empty_lists_match_nothing() {
        assert!(match_beats(&[], &[5], 54).is_empty());
        assert_eq!(match_beats(&[5], &[], 54), [None]);
    }

    fn positions() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(1i64..200, 0..60).prop_map(|steps| {
            let running = steps.iter().scan(0, |position, step| {
                *position += step;
                Some(*position)
            });
            running.collect()
        })
    }

    proptest! {
        #[test]
        fn pairs_are_one_to_one_in_order_and_close(
            reference in positions(),
            detected in positions(),
            window_n in 0i64..100,
        ) {
            let pairs = match_beats(&reference, &detected, window_n);
            prop_assert_eq!(pairs.len(), reference.len());
            let found: Vec<usize> = pairs.iter().copied().flatten().collect();
            prop_assert!(found.is_sorted_by(|a, b| a < b));
            for (beat, pair) in reference.iter().zip(&pairs) {
                if let Some(idx) = pair {
                    prop_assert!((beat - detected[*idx]).abs() <= window_n);
                }
            }
        }

        #[test]
        fn swapping_the_lists_swaps_the_pairs(
            reference in positions(),
            detected in positions(),
            window_n in 0i64..100,
        ) {
            // Only where no two positions are equal: at equal times the reference is taken to be first.
            prop_assume!(reference.iter().all(|position| !detected.contains(position)));
            let there = match_beats(&reference, &detected, window_n);
            let back = match_beats(&detected, &reference, window_n);
            for (idx, pair) in there.iter().enumerate() {
                if let Some(other) = pair {
                    prop_assert_eq!(back[*other], Some(idx));
                }
            }
        }

        #[test]
        fn shifted_beats_all_match(steps in prop::collection::vec((120i64..400, -54i64..=54), 1..60)) {
            let mut position = 100;
            let (mut reference, mut detected) = (Vec::new(), Vec::new());
            for (step, shift) in steps {
                position += step;
                reference.push(position);
                detected.push(position + shift);
            }
            let pairs = match_beats(&reference, &detected, 54);
            let all: Vec<Option<usize>> = (0..reference.len()).map(Some).collect();
            prop_assert_eq!(pairs, all);
        }
    }
}
