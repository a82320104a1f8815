//! Owns [`Matrix`]: the confusion matrix of one group of beats and every ratio that is read off it.
//!
//! Source: ANSI/AAMI EC57. A reference beat that the detector missed, or that has no prediction, is a false negative of
//! its class; a detected beat without a reference beat is a false positive of the class that it was taken for. A ratio
//! of nothing to nothing is `None`, never a number.

use crate::aami::AamiClass;

/// Place of beats without a reference among the rows.
pub(super) const EXTRA: usize = 5;
/// Place of beats without a prediction among the columns.
pub(super) const MISSED: usize = 5;

/// Beats by reference class (rows, then [`EXTRA`]) and predicted class (columns, then [`MISSED`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    pub(super) cells: [[i64; 6]; 6],
}

impl Matrix {
    /// Adds the beats of another group.
    pub(super) fn add(&mut self, other: &Self) {
        let cells = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        cells.for_each(|(sum, count)| *sum += count);
    }

    /// Reference beats of a class, missed ones included.
    #[must_use]
    pub fn reference_n(&self, class: AamiClass) -> i64 {
        self.cells[class.index()].iter().sum()
    }

    /// Reference beats of all classes.
    #[must_use]
    pub fn beat_n(&self) -> i64 {
        AamiClass::ALL.iter().map(|class| self.reference_n(*class)).sum()
    }

    /// Beats of a class that were recognised.
    #[must_use]
    pub fn true_positives(&self, class: AamiClass) -> i64 {
        self.cells[class.index()][class.index()]
    }

    /// Beats of a class that were taken for another or missed.
    #[must_use]
    pub fn false_negatives(&self, class: AamiClass) -> i64 {
        self.reference_n(class) - self.true_positives(class)
    }

    /// Beats that were wrongly taken for a class, those without a reference included.
    #[must_use]
    pub fn false_positives(&self, class: AamiClass) -> i64 {
        self.cells.iter().map(|row| row[class.index()]).sum::<i64>() - self.true_positives(class)
    }

    /// Reference beats without a prediction.
    #[must_use]
    pub fn missed_n(&self) -> i64 {
        AamiClass::ALL.iter().map(|class| self.cells[class.index()][MISSED]).sum()
    }

    /// Predictions without a reference beat.
    #[must_use]
    pub fn extra_n(&self) -> i64 {
        self.cells[EXTRA].iter().sum()
    }

    /// Sensitivity (Se): recognised out of reference beats.
    #[must_use]
    pub fn sensitivity(&self, class: AamiClass) -> Option<f64> {
        ratio(self.true_positives(class), self.reference_n(class))
    }

    /// Positive predictivity (+P): right out of all that were taken for the class.
    #[must_use]
    pub fn predictivity(&self, class: AamiClass) -> Option<f64> {
        ratio(self.true_positives(class), self.true_positives(class) + self.false_positives(class))
    }

    /// F1: harmonic mean of the two, 0 where beats exist and none is right.
    #[must_use]
    pub fn f1(&self, class: AamiClass) -> Option<f64> {
        let right = 2 * self.true_positives(class);
        ratio(right, right + self.false_positives(class) + self.false_negatives(class))
    }

    /// The mean F1 of some classes; `None` if one of them has none, since a mean over fewer classes would not compare.
    #[must_use]
    pub fn macro_f1(&self, classes: &[AamiClass]) -> Option<f64> {
        let scores: Option<Vec<f64>> = classes.iter().map(|class| self.f1(*class)).collect();
        scores.map(|scores| scores.iter().sum::<f64>() / classes.len() as f64)
    }

    /// Recognised out of all reference beats, missed ones included.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        ratio(AamiClass::ALL.iter().map(|class| self.true_positives(*class)).sum(), self.beat_n())
    }

    /// +P of ventricular ectopic beats by EC57, as `bxb` 10.7 computes it: F and Q beats taken for V are no errors.
    #[must_use]
    pub fn ec57_veb_predictivity(&self) -> Option<f64> {
        self.predictivity_over(AamiClass::V, &[AamiClass::N.index(), AamiClass::S.index(), EXTRA])
    }

    /// +P of supraventricular ectopic beats by EC57, as `bxb` 10.7 computes it: Q beats taken for S are no errors.
    #[must_use]
    pub fn ec57_sveb_predictivity(&self) -> Option<f64> {
        self.predictivity_over(AamiClass::S, &[AamiClass::N.index(), AamiClass::V.index(), AamiClass::F.index(), EXTRA])
    }

    fn predictivity_over(&self, class: AamiClass, wrong: &[usize]) -> Option<f64> {
        let right = self.true_positives(class);
        ratio(right, right + wrong.iter().map(|row| self.cells[*row][class.index()]).sum::<i64>())
    }
}

fn ratio(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_matrix_has_no_ratios() {
        let matrix = Matrix::default();
        assert_eq!((matrix.accuracy(), matrix.macro_f1(&AamiClass::ALL)), (None, None));
        for class in AamiClass::ALL {
            assert_eq!((matrix.sensitivity(class), matrix.predictivity(class), matrix.f1(class)), (None, None, None));
        }
    }

    /// Golden: `bxb -r R -a atr T -f 0 -S FILE` of the WFDB software package 10.7.0 on MIT-BIH 100 and 101, where the
    /// test annotator T is the reference with random misses, extras and relabelled beats. Rows N S V F Q O, columns n s
    /// v f q o.
    #[test]
    fn ec57_figures_are_those_of_bxb() {
        let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.2}", 100.0 * value));
        let figures = |cells| {
            let matrix = Matrix { cells };
            [
                matrix.sensitivity(AamiClass::V),
                matrix.ec57_veb_predictivity(),
                matrix.sensitivity(AamiClass::S),
                matrix.ec57_sveb_predictivity(),
            ]
            .map(percent)
        };
        let none = [0; 6];
        let record_100 =
            [[2145, 4, 4, 10, 9, 67], [0, 32, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0], none, none, [58, 1, 9, 0, 0, 0]];
        assert_eq!(figures(record_100), ["100.00", "7.14", "96.97", "86.49"]);
        let record_101 =
            [[1763, 7, 11, 10, 5, 64], [0, 3, 0, 0, 0, 0], none, none, [0, 0, 0, 0, 2, 0], [55, 0, 5, 0, 0, 0]];
        assert_eq!(figures(record_101), ["-", "0.00", "100.00", "30.00"]);
    }
}
