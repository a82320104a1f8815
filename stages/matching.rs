//! Owns the pairing of detected beats with reference beats: which detection stands for which annotated beat.
//!
//! The rule is that of ANSI/AAMI EC57 as the WFDB tool `bxb` (10.7.0) applies it. Both lists are walked in time order.
//! The earlier of the two beats at hand is paired with the other one if they are within the match window and if the
//! *next* beat of the earlier one's own list is not at least as close; else it stays alone: a false positive if it was
//! detected, a missed beat if it was annotated. A next beat that is as close or closer is no rival if it has a better
//! partner of its own: the beat after the other one (`bxb` since November 2002; it matters above 200 beats a minute
//! alone).
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
    for step in Walk::new(reference, detected, window_n) {
        if step.outcome == Outcome::Pair {
            pairs[step.reference_idx] = Some(step.detected_idx);
        }
    }
    pairs
}

/// What became of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both beats at hand are one.
    Pair,
    /// The reference beat at hand was not detected.
    Missed,
    /// The detected beat at hand is none.
    Extra,
}

/// One step of a [`Walk`]: the beats at hand, and what became of the earlier one or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The reference beat at hand; the length of the list behind its last beat.
    pub reference_idx: usize,
    /// The detected beat at hand; the length of the list behind its last beat.
    pub detected_idx: usize,
    /// What became of them.
    pub outcome: Outcome,
}

/// A walk over both lists, each beat once.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    reference: &'a [i64],
    detected: &'a [i64],
    window_n: u64,
    end_idx: i64,
    reference_idx: usize,
    detected_idx: usize,
}

impl<'a> Walk<'a> {
    /// Over all beats.
    #[must_use]
    pub fn new(reference: &'a [i64], detected: &'a [i64], window_n: i64) -> Self {
        let window_n = u64::try_from(window_n).unwrap_or(0);
        Self { reference, detected, window_n, end_idx: i64::MAX, reference_idx: 0, detected_idx: 0 }
    }

    /// Over the beats from `start_idx` to `end_idx`, both included.
    ///
    /// At the start it is the reference that decides what is inside. A detected beat before the start that stands for
    /// the first reference beat takes part; one within the window after the start that stands for none may belong to a
    /// reference beat before it, and is passed over.
    #[must_use]
    pub fn within(self, start_idx: i64, end_idx: i64) -> Self {
        let reference_idx = self.reference.partition_point(|&beat| beat < start_idx);
        let mut detected_idx = self.detected.partition_point(|&beat| beat < start_idx);
        if start_idx > 0 {
            let first = self.reference.get(reference_idx).copied();
            let to_first = |idx: Option<usize>| gap(first, idx.and_then(|idx| self.detected.get(idx)).copied());
            let [before_n, here_n, next_n] =
                [detected_idx.checked_sub(1), Some(detected_idx), Some(detected_idx + 1)].map(to_first);
            let is_just_inside = gap(self.detected.get(detected_idx).copied(), Some(start_idx)) <= self.window_n;
            if before_n <= self.window_n && before_n < here_n {
                detected_idx -= 1;
            } else if is_just_inside && next_n < here_n {
                detected_idx += 1;
            }
        }
        Self { end_idx, reference_idx, detected_idx, ..self }
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (reference_idx, detected_idx) = (self.reference_idx, self.detected_idx);
        let here = self.reference.get(reference_idx).copied();
        let there = self.detected.get(detected_idx).copied();
        let is_inside = |beat: Option<i64>| beat.is_some_and(|beat| beat <= self.end_idx);
        if !is_inside(here) && !is_inside(there) {
            return None;
        }
        let here_next = self.reference.get(reference_idx + 1).copied();
        let there_next = self.detected.get(detected_idx + 1).copied();
        let is_detected_first = there.is_some_and(|there| here.is_none_or(|here| there < here));
        let rival_n = if is_detected_first { gap(here, there_next) } else { gap(there, here_next) };
        let distance_n = gap(here, there);
        let is_pair = distance_n <= self.window_n && (distance_n < rival_n || gap(here_next, there_next) < rival_n);
        let outcome = match (is_pair, is_detected_first) {
            (true, _) => Outcome::Pair,
            (false, true) => Outcome::Extra,
            (false, false) => Outcome::Missed,
        };
        self.reference_idx += usize::from(outcome != Outcome::Extra);
        self.detected_idx += usize::from(outcome != Outcome::Missed);
        Some(Step { reference_idx, detected_idx, outcome })
    }
}

/// The distance of two beats; of one that does not exist, the largest there is.
fn gap(one: Option<i64>, other: Option<i64>) -> u64 {
    one.zip(other).map_or(u64::MAX, |(one, other)| one.abs_diff(other))
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

    /// The case that made `bxb` look one beat further, from the description of the change of 24 November 2002.
    #[test]
    fn a_rival_with_a_better_partner_is_none() {
        assert_eq!(match_beats(&[96, 160], &[128, 185], 37), [Some(0), Some(1)]);
        assert_eq!(match_beats(&[128, 185], &[96, 160], 37), [Some(0), Some(1)]);
    }

    fn outcomes(walk: Walk<'_>) -> Vec<(usize, usize, Outcome)> {
        walk.map(|step| (step.reference_idx, step.detected_idx, step.outcome)).collect()
    }

    #[test]
    fn the_reference_decides_what_is_inside_a_period() {
        use Outcome::{Extra, Missed, Pair};
        // Detected just before the start, annotated just after it: it is found.
        let walk = Walk::new(&[900, 1010, 2000], &[890, 990, 2001], 54).within(1000, 3000);
        assert_eq!(outcomes(walk), [(1, 1, Pair), (2, 2, Pair)]);
        // Annotated before the start, detected after it: neither counts.
        let walk = Walk::new(&[990, 2000], &[1010, 2001], 54).within(1000, 3000);
        assert_eq!(outcomes(walk), [(1, 1, Pair)]);
        // Further inside it is a false positive, whatever is near it outside.
        let walk = Walk::new(&[990, 2000], &[1055, 2001], 54).within(1000, 3000);
        assert_eq!(outcomes(walk), [(1, 0, Extra), (1, 1, Pair)]);
        // What is behind the end does not count, but may stand for what is before it.
        let walk = Walk::new(&[1990, 2500], &[2010, 2600], 54).within(0, 2000);
        assert_eq!(outcomes(walk), [(0, 0, Pair)]);
        let walk = Walk::new(&[1990, 2500], &[2100], 54).within(0, 2000);
        assert_eq!(outcomes(walk), [(0, 0, Missed)]);
    }

    #[test]
    fn positions_at_both_ends_of_their_type_do_no_harm() {
        let ends = [i64::MIN, i64::MAX];
        assert_eq!(match_beats(&ends, &ends, i64::MAX), [Some(0), Some(1)]);
        assert_eq!(match_beats(&ends, &ends, -1), [Some(0), Some(1)]);
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
        fn every_beat_is_walked_over_once(reference in positions(), detected in positions(), window_n in 0i64..100) {
            let (mut reference_n, mut detected_n) = (0, 0);
            for step in Walk::new(&reference, &detected, window_n) {
                prop_assert_eq!((step.reference_idx, step.detected_idx), (reference_n, detected_n));
                reference_n += usize::from(step.outcome != Outcome::Extra);
                detected_n += usize::from(step.outcome != Outcome::Missed);
            }
            prop_assert_eq!((reference_n, detected_n), (reference.len(), detected.len()));
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
