//! Owns the choice of patients to hold out: about a wanted share of the beats, with every class on both sides where
//! that is possible at all; once ([`balanced`], [`random`]) or until every patient was held out ([`deal`]).
//!
//! Invariant: a function of the counts, the share and the random numbers alone; ties go to the patient that comes
//! first.

use rand::{Rng, seq::SliceRandom};

/// Beats of each AAMI class of one patient.
pub type ClassCounts = [i64; 5];

/// From this number of patients on, swaps of two patients are not tried: their number grows with the square.
const SWAP_PATIENT_N: usize = 200;

/// Class Q has so few beats outside of paced records that its share must not steer the choice.
const CLASS_WEIGHTS: [f64; 5] = [1.0, 1.0, 1.0, 1.0, 0.1];

/// How well a choice fits. Smaller is better, the first field first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Misfit {
    /// Classes of two or more patients that one side lacks, and sides without a patient.
    missing_n: usize,
    /// Weighted distance of the shares (of all beats and of each class) from the wanted share.
    distance: f64,
}

/// Holds out the patients that fit best: whichever change of one patient or swap of two fits better is made, until none
/// does.
#[must_use]
pub fn balanced(patients: &[ClassCounts], share: f64) -> Vec<bool> {
    let held = vec![false; patients.len()];
    if share <= 0.0 || patients.len() < 2 {
        return held;
    }
    improve(patients, share, held, |new, old| (new.missing_n, new.distance + 1e-9) < (old.missing_n, old.distance))
}

/// Deals patients into folds: for each patient its fold, 0 to `fold_n - 1`. Each fold takes its share of whom the folds
/// before have left.
#[must_use]
pub fn deal(patients: &[ClassCounts], fold_n: usize) -> Vec<usize> {
    let mut folds = vec![fold_n.saturating_sub(1); patients.len()];
    let mut left: Vec<usize> = (0..patients.len()).collect();
    for fold in 0..fold_n.saturating_sub(1) {
        let counts: Vec<ClassCounts> = left.iter().map(|&patient| patients[patient]).collect();
        let held = balanced(&counts, 1.0 / (fold_n - fold) as f64);
        let taken = |place: &usize| held[*place];
        (0..left.len()).filter(taken).for_each(|place| folds[left[place]] = fold);
        left = (0..left.len()).filter(|place| !taken(place)).map(|place| left[place]).collect();
    }
    folds
}

/// Holds out random patients, then changes as few as it takes to have every class on both sides.
#[must_use]
pub fn random(patients: &[ClassCounts], share: f64, rng: &mut impl Rng) -> Vec<bool> {
    let mut held = vec![false; patients.len()];
    if share <= 0.0 || patients.len() < 2 {
        return held;
    }
    let mut order: Vec<usize> = (0..patients.len()).collect();
    order.shuffle(rng);
    let total: i64 = patients.iter().flatten().sum();
    let wanted = share * total as f64;
    let mut beat_n = 0.0;
    for patient in order {
        let with = beat_n + patients[patient].iter().sum::<i64>() as f64;
        if (with - wanted).abs() < (beat_n - wanted).abs() {
            held[patient] = true;
            beat_n = with;
        }
    }
    improve(patients, share, held, |new, old| new.missing_n < old.missing_n)
}

fn improve(patients: &[ClassCounts], share: f64, mut held: Vec<bool>, better: fn(Misfit, Misfit) -> bool) -> Vec<bool> {
    let mut current = misfit(patients, share, &held);
    loop {
        let mut best: Option<(Misfit, Vec<usize>)> = None;
        let mut consider = |held: &mut Vec<bool>, change: &[usize]| {
            change.iter().for_each(|patient| held[*patient] = !held[*patient]);
            let candidate = misfit(patients, share, held);
            change.iter().for_each(|patient| held[*patient] = !held[*patient]);
            let leads = best.as_ref().is_none_or(|(leader, _)| candidate < *leader);
            if better(candidate, current) && leads {
                best = Some((candidate, change.to_vec()));
            }
        };
        for patient in 0..patients.len() {
            consider(&mut held, &[patient]);
        }
        if patients.len() <= SWAP_PATIENT_N {
            for first in 0..patients.len() {
                for second in first + 1..patients.len() {
                    if held[first] != held[second] {
                        consider(&mut held, &[first, second]);
                    }
                }
            }
        }
        let Some((misfit, change)) = best else { return held };
        change.iter().for_each(|patient| held[*patient] = !held[*patient]);
        current = misfit;
    }
}

fn misfit(patients: &[ClassCounts], share: f64, held: &[bool]) -> Misfit {
    let held_n = held.iter().filter(|held| **held).count();
    let mut missing_n = usize::from(held_n == 0) + usize::from(held_n == patients.len());
    let (mut held_total, mut total, mut distance) = (0, 0, 0.0);
    for (class, weight) in CLASS_WEIGHTS.iter().enumerate() {
        let of = |side: bool| {
            patients.iter().zip(held).filter(move |(_, held)| **held == side).map(|(counts, _)| counts[class])
        };
        let (held_n, kept_n): (i64, i64) = (of(true).sum(), of(false).sum());
        held_total += held_n;
        total += held_n + kept_n;
        if patients.iter().filter(|counts| counts[class] > 0).count() >= 2 {
            missing_n += usize::from(held_n == 0) + usize::from(kept_n == 0);
            distance += weight * (held_n as f64 / (held_n + kept_n) as f64 - share).abs();
        }
    }
    distance += 2.0 * (held_total as f64 / total.max(1) as f64 - share).abs();
    Misfit { missing_n, distance }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    const PATIENTS: [ClassCounts; 6] = [
        [2000, 0, 10, 0, 0],
        [1500, 30, 0, 0, 0],
        [1800, 0, 100, 300, 0],
        [1000, 60, 90, 5, 0],
        [2200, 1, 1, 10, 0],
        [1900, 0, 0, 0, 4],
    ];

    fn sides_with(class: usize, held: &[bool]) -> usize {
        let on = |side| PATIENTS.iter().zip(held).any(|(counts, held)| *held == side && counts[class] > 0);
        usize::from(on(true)) + usize::from(on(false))
    }

    #[test]
    fn every_shared_class_is_on_both_sides() {
        let mut choices = vec![balanced(&PATIENTS, 0.2)];
        for seed in 0..50 {
            choices.push(random(&PATIENTS, 0.3, &mut Xoshiro256PlusPlus::seed_from_u64(seed)));
        }
        for held in &choices {
            assert!((0..4).all(|class| sides_with(class, held) == 2), "{held:?}");
        }
        choices.sort();
        choices.dedup();
        assert!(choices.len() > 3, "the seed should change the choice");
    }

    #[test]
    fn balanced_is_near_the_share() {
        let held = balanced(&PATIENTS, 0.2);
        let beats = |side: bool| -> i64 {
            PATIENTS.iter().zip(&held).filter(|(_, held)| **held == side).flat_map(|(counts, _)| counts).sum()
        };
        let share = beats(true) as f64 / (beats(true) + beats(false)) as f64;
        assert!((0.1..0.3).contains(&share), "{share}");
    }

    #[test]
    fn nothing_is_held_out_of_one_patient_or_for_no_share() {
        assert_eq!(balanced(&PATIENTS[..1], 0.5), [false]);
        assert_eq!(balanced(&PATIENTS, 0.0), [false; 6]);
        assert_eq!(balanced(&[], 0.5), [false; 0]);
    }

    #[test]
    fn patients_without_a_shared_class_are_still_parted() {
        let held = balanced(&[[100, 0, 0, 0, 0], [0, 0, 50, 0, 0]], 0.1);
        assert_eq!(held.iter().filter(|held| **held).count(), 1);
    }
}
