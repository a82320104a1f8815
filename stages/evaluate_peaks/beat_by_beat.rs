//! Owns the beat-by-beat comparison of ANSI/AAMI EC57: which beats agree, which are missed, extra or of another class.
//!
//! Method: `bxb` of WFDB 10.7, the reference implementation of the standard (bxb(1), WFDB Applications Guide). Beats
//! are paired by [`crate::matching`]. A reference beat without a partner is paired with `X` if the test annotator was
//! shut down there, else with `O`; a test beat without a partner with `X` in a shutdown of the reference, else with
//! `O`, and not at all within ventricular fibrillation of the reference. The RR interval error compares, at every step
//! of the walk, the intervals that end at both beats at hand.
//!
//! One difference from `bxb`: a beat at sample 0 counts (`bxb` takes it for the state before its first beat).
//!
//! Invariants: every reference beat in the period is counted once, and every test beat that is neither in fibrillation
//! of the reference nor passed over at the start (`tests::counts_add_up`).

use super::annotator::{Annotator, Cover};
use crate::{
    aami::AamiClass,
    matching::{Outcome, Walk},
};

/// The row or column of what is no beat of the other annotator.
pub const NONE: usize = 5;
/// The row or column of what falls into a shutdown of the other annotator.
pub const SHUTDOWN: usize = 6;

/// Reference (rows) against test (columns): the AAMI classes in their order, [`NONE`] and [`SHUTDOWN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// The counts.
    pub cells: [[u64; 7]; 7],
}

impl Matrix {
    /// The same without supraventricular ectopic beats: they are N, as in `bxb -l`.
    #[must_use]
    pub fn without_sveb(&self) -> Self {
        let class = |place: usize| if place == AamiClass::S.index() { AamiClass::N.index() } else { place };
        let mut merged = Self::default();
        for (reference, row) in self.cells.iter().enumerate() {
            for (test, count) in row.iter().enumerate() {
                merged.cells[class(reference)][class(test)] += count;
            }
        }
        merged
    }

    /// The sum over rows and columns.
    #[must_use]
    pub fn sum(&self, rows: &[usize], columns: &[usize]) -> u64 {
        rows.iter().flat_map(|&row| columns.iter().map(move |&column| self.cells[row][column])).sum()
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        let cells = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        cells.for_each(|(cell, more)| *cell += more);
    }

    /// Beats found, whatever their class.
    #[must_use]
    pub fn found_n(&self) -> u64 {
        self.sum(&BEATS, &BEATS)
    }

    /// Reference beats that were not found.
    #[must_use]
    pub fn missed_n(&self) -> u64 {
        self.sum(&BEATS, &[NONE, SHUTDOWN])
    }

    /// Test beats that are none.
    #[must_use]
    pub fn extra_n(&self) -> u64 {
        self.sum(&[NONE, SHUTDOWN], &BEATS)
    }

    /// Reference beats of a class.
    #[must_use]
    pub fn reference_n(&self, class: AamiClass) -> u64 {
        self.cells[class.index()].iter().sum()
    }

    /// Test beats of a class that are one, out of those that count: fusion and unclassifiable beats taken for V, and
    /// unclassifiable ones taken for S, are no errors.
    #[must_use]
    pub fn predicted(&self, class: AamiClass) -> (u64, u64) {
        let [n, s, v, f, _] = PLACES;
        let counted: &[usize] = if class == AamiClass::V { &[n, s, v] } else { &[n, s, v, f] };
        let column = [class.index()];
        (self.cells[class.index()][class.index()], self.sum(counted, &column) + self.sum(&[NONE, SHUTDOWN], &column))
    }
}

/// The places of the classes.
const PLACES: [usize; 5] = [0, 1, 2, 3, 4];
/// The rows and columns of beats.
pub const BEATS: [usize; 5] = PLACES;

/// The part of a record that is scored, both ends included, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first sample.
    pub start_idx: i64,
    /// The last sample.
    pub end_idx: i64,
}

/// A beat that the annotators do not agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// Where the reference has it, or the test annotator if the reference does not.
    pub sample_idx: i64,
    /// Row.
    pub reference: usize,
    /// Column.
    pub test: usize,
}

/// What was counted in one record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Which classes met.
    pub matrix: Matrix,
    /// How many RR intervals were compared.
    pub interval_n: u64,
    /// The sum of their squared errors, in samples squared.
    pub squared_error_n: f64,
    /// How long the test annotator was shut down, in samples; the learning period counts too, as in `bxb`.
    pub shutdown_n: i64,
    /// Where the annotators disagree, in time order.
    pub discrepancies: Vec<Discrepancy>,
}

/// Compares two annotators of a record. `window_n` is the match window in samples.
#[must_use]
pub fn compare(reference: &Annotator, test: &Annotator, period: Period, window_n: i64) -> Comparison {
    let mut compared = Comparison { shutdown_n: shutdown_n(test, period), ..Comparison::default() };
    let fibrillation = Cover::of(&reference.fibrillation);
    let [reference_shutdown, test_shutdown] = [reference, test].map(|annotator| Cover::of(&annotator.shutdown));
    let walk = Walk::new(&reference.beats, &test.beats, window_n).within(period.start_idx, period.end_idx);
    for step in walk {
        let interval_n = |annotator: &Annotator, idx: usize| annotator.intervals_n.get(idx).copied().flatten();
        let intervals = interval_n(reference, step.reference_idx).zip(interval_n(test, step.detected_idx));
        if let Some((reference_n, test_n)) = intervals {
            compared.squared_error_n += ((reference_n - test_n) as f64).powi(2);
            compared.interval_n += 1;
        }
        let class = |annotator: &Annotator, idx: usize| annotator.classes[idx].index();
        let (sample_idx, row, column) = match step.outcome {
            Outcome::Pair => {
                let classes = (class(reference, step.reference_idx), class(test, step.detected_idx));
                (reference.beats[step.reference_idx], classes.0, classes.1)
            }
            Outcome::Missed => {
                let sample_idx = reference.beats[step.reference_idx];
                let none = if test_shutdown.contains(sample_idx) { SHUTDOWN } else { NONE };
                (sample_idx, class(reference, step.reference_idx), none)
            }
            Outcome::Extra => {
                let sample_idx = test.beats[step.detected_idx];
                if fibrillation.contains(sample_idx) {
                    continue;
                }
                let none = if reference_shutdown.contains(sample_idx) { SHUTDOWN } else { NONE };
                (sample_idx, none, class(test, step.detected_idx))
            }
        };
        compared.matrix.cells[row][column] += 1;
        if row != column {
            compared.discrepancies.push(Discrepancy { sample_idx, reference: row, test: column });
        }
    }
    compared
}

/// Shutdown that begins before the period ends.
fn shutdown_n(test: &Annotator, period: Period) -> i64 {
    let begun = test.shutdown.iter().filter(|episode| episode.start_idx <= period.end_idx);
    let lengths_n = begun.map(|episode| episode.end_idx.min(period.end_idx).saturating_sub(episode.start_idx));
    lengths_n.fold(0, i64::saturating_add)
}

impl Comparison {
    /// The root mean square of the RR interval errors in ms; `None` without intervals.
    #[must_use]
    pub fn interval_error_ms(&self, sampling_frequency_hz: f64) -> Option<f64> {
        // In the order of `bxb`, whose last digit depends on it; a second is a whole number of samples there.
        let second_n = (sampling_frequency_hz + 0.5).floor();
        (self.interval_n > 0).then(|| (self.squared_error_n / self.interval_n as f64).sqrt() * 1000.0 / second_n)
    }

    /// The duration of shutdown in whole seconds.
    #[must_use]
    pub fn shutdown_s(&self, sampling_frequency_hz: f64) -> i64 {
        let half_second_n = (0.5 * sampling_frequency_hz + 0.5).floor() as i64;
        let second_n = ((sampling_frequency_hz + 0.5).floor() as i64).max(1);
        self.shutdown_n.saturating_add(half_second_n) / second_n
    }
}
