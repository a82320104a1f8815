//! Owns how sure the gross figures are: patients are drawn with replacement, as many as there are, and every figure is
//! taken of each such group (Efron & Tibshirani, "An introduction to the bootstrap", 1993; percentile intervals).
//!
//! Patients are drawn and not beats, because the beats of a patient are alike: that is what a figure between patients is
//! unsure of. Invariant: the same matrices give the same intervals, whatever else runs
//! (`tests::the_same_patients_give_the_same_intervals`).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{MACROS, Matrix};
use crate::aami::AamiClass;

/// Share of the draws that an interval holds, half of the rest on either side.
pub(super) const CONFIDENCE: f64 = 0.95;

/// Where a figure lies in most draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// The metric, as `f1_s`.
    pub name: String,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The figures that have intervals, by name; `None` for a ratio of nothing to nothing.
fn figures(matrix: &Matrix) -> Vec<(String, Option<f64>)> {
    let mut figures = vec![("accuracy".to_owned(), matrix.accuracy())];
    let f1 = |class: &AamiClass| (format!("f1_{}", class.letter().to_ascii_lowercase()), matrix.f1(*class));
    figures.extend(AamiClass::ALL.iter().map(f1));
    figures.extend(MACROS.iter().map(|(name, classes)| ((*name).to_owned(), matrix.macro_f1(classes))));
    figures
}

/// Intervals of the pooled figures of patients. A figure that some draw does not have (no beat of its class) is judged by
/// the draws that have it; none of fewer than two patients.
pub(super) fn intervals(patients: &BTreeMap<&str, Matrix>, draw_n: usize) -> Vec<Interval> {
    let matrices: Vec<&Matrix> = patients.values().collect();
    if matrices.len() < 2 || draw_n == 0 {
        return Vec::new();
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..draw_n {
        let mut pooled = Matrix::default();
        for _ in 0..matrices.len() {
            pooled.add(matrices[rng.random_range(0..matrices.len())]);
        }
        for (name, value) in figures(&pooled) {
            values.entry(name).or_default().extend(value);
        }
    }
    let names = figures(&Matrix::default()).into_iter().map(|(name, _)| name);
    let interval = |name: String| {
        let of = values.get_mut(&name).filter(|values| !values.is_empty())?;
        of.sort_by(f64::total_cmp);
        let at = |share: f64| of[((share * of.len() as f64) as usize).min(of.len() - 1)];
        let outside = (1.0 - CONFIDENCE) / 2.0;
        Some(Interval { name, low: at(outside), high: at(1.0 - outside) })
    };
    names.filter_map(interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A patient with N and V beats of which some are right.
    fn patient(n: [i64; 2], v: [i64; 2]) -> Matrix {
        let mut matrix = Matrix::default();
        (matrix.cells[0][0], matrix.cells[0][2]) = (n[0], n[1]);
        (matrix.cells[2][2], matrix.cells[2][0]) = (v[0], v[1]);
        matrix
    }

    #[test]
    fn the_same_patients_give_the_same_intervals() {
        let patients = BTreeMap::from([
            ("a", patient([90, 10], [5, 5])),
            ("b", patient([100, 0], [10, 0])),
            ("c", patient([50, 50], [0, 0])),
        ]);
        let all = intervals(&patients, 500);
        assert_eq!(all, intervals(&patients, 500));
        let accuracy = &all[0];
        assert_eq!((accuracy.name.as_str(), accuracy.low, accuracy.high), ("accuracy", 0.5, 1.0));
        // No patient has S, F or Q beats, nor has a macro-F1 of them a value.
        let names: Vec<&str> = all.iter().map(|interval| interval.name.as_str()).collect();
        assert_eq!(names, ["accuracy", "f1_n", "f1_v"]);
    }

    #[test]
    fn patients_who_are_alike_leave_no_doubt() {
        let patients = BTreeMap::from([("a", patient([9, 1], [5, 5])), ("b", patient([9, 1], [5, 5]))]);
        for interval in intervals(&patients, 100) {
            assert_eq!(interval.low, interval.high, "{}", interval.name);
        }
        assert_eq!(intervals(&BTreeMap::from([("a", patient([9, 1], [5, 5]))]), 100), []);
        assert_eq!(intervals(&patients, 0), []);
    }
}
