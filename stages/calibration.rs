//! Owns what probabilities are worth: how often beats are right at what probability, and what makes the two agree.
//!
//! It must not know where probabilities come from. Invariants: temperature alone never changes which class is the most
//! probable one (`tests::temperature_changes_no_class`), and fitting never makes the loss worse on what it is fitted on
//! (`tests::fitting_undoes_what_was_done`).
//!
//! Sources: temperature and vector scaling, Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks",
//! ICML 2017; expected calibration error, Naeini, Cooper & Hauskrecht, AAAI 2015; coverage and risk, El-Yaniv & Wiener,
//! JMLR 11 (2010).

use std::collections::BTreeMap;

use ecgpipe_sdk::{All, Part, Predictions, RecordId, Split, StageError};

/// Probabilities are taken for at least this, so that a logarithm is finite.
const LEAST: f64 = 1e-12;

/// Labelled beats with their probabilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    /// Class names in the order of the probabilities.
    pub classes: Vec<String>,
    /// Row-major, a row of `classes.len()` natural logarithms of probabilities a beat.
    pub log_probabilities: Vec<f64>,
    /// The reference class of each beat, an index of `classes`.
    pub labels: Vec<usize>,
    /// Beats of the part without a prediction; they take no part.
    pub absent_n: usize,
}

impl Labelled {
    /// The labelled beats of a part, in the order of the split.
    ///
    /// # Errors
    /// If a class of the split is none of the predictions', or records have different classes.
    pub fn gather(part: Part, predictions: &All<Predictions>, split: &Split) -> Result<Self, StageError> {
        let by_record: BTreeMap<&RecordId, &Predictions> = predictions.iter().collect();
        let mut labelled = Self::default();
        for (record, beats) in split.beats_of(part) {
            let Some(own) = by_record.get(record) else {
                labelled.absent_n += beats.len();
                continue;
            };
            if labelled.classes.is_empty() {
                labelled.classes.clone_from(&own.classes);
            } else if labelled.classes != own.classes {
                let message = format!("its classes are {:?}, those of others {:?}", own.classes, labelled.classes);
                return Err(StageError::new(message).record(record));
            }
            for beat in beats {
                let Ok(row_idx) = own.beat_idx.binary_search(&beat.beat_idx) else {
                    labelled.absent_n += 1;
                    continue;
                };
                let label = own.classes.iter().position(|class| *class == beat.class).ok_or_else(|| {
                    let message = format!("beat {} is of class {}, which no prediction has", beat.beat_idx, beat.class);
                    StageError::new(message).record(record)
                })?;
                let logs = own.row(row_idx).iter().map(|probability| f64::from(*probability).max(LEAST).ln());
                labelled.log_probabilities.extend(logs);
                labelled.labels.push(label);
            }
        }
        Ok(labelled)
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], usize)> {
        self.log_probabilities.chunks_exact(self.classes.len().max(1)).zip(self.labels.iter().copied())
    }

    /// The probabilities under a scaling.
    #[must_use]
    pub fn scaled(&self, scaling: &Scaling) -> Self {
        let mut scaled = self.clone();
        for row in scaled.log_probabilities.chunks_exact_mut(self.classes.len().max(1)) {
            scaling.apply(row);
        }
        scaled
    }

    /// The largest probability of each beat and whether its class is the reference's.
    #[must_use]
    pub fn judged(&self) -> Vec<Judged> {
        let judge = |(row, label): (&[f64], usize)| {
            let best = (1..row.len()).fold(0, |best, idx| if row[idx] > row[best] { idx } else { best });
            Judged { probability: row[best].exp(), is_right: best == label }
        };
        self.rows().map(judge).collect()
    }

    /// Mean negative log-likelihood a beat; 0 of none.
    #[must_use]
    pub fn loss(&self) -> f64 {
        mean(self.rows().map(|(row, label)| -row[label]))
    }

    /// Mean squared distance of the probabilities from 1 for the reference class and 0 for the others (Brier 1950);
    /// 0 of no beat.
    #[must_use]
    pub fn brier(&self) -> f64 {
        let distance = |(row, label): (&[f64], usize)| {
            let square = |(idx, log): (usize, &f64)| (log.exp() - f64::from(u8::from(idx == label))).powi(2);
            row.iter().enumerate().map(square).sum::<f64>()
        };
        mean(self.rows().map(distance))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

/// Divides log-probabilities by a temperature and adds a bias a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Above 0.
    pub temperature: f64,
    /// One a class.
    pub bias: Vec<f64>,
}

impl Scaling {
    /// Changes nothing.
    #[must_use]
    pub fn none(class_n: usize) -> Self {
        Self { temperature: 1.0, bias: vec![0.0; class_n] }
    }

    /// Scales a row of log-probabilities, which stay log-probabilities.
    fn apply(&self, row: &mut [f64]) {
        for (log, bias) in row.iter_mut().zip(&self.bias) {
            *log = *log / self.temperature + bias;
        }
        let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|log| (log - highest).exp()).sum();
        row.iter_mut().for_each(|log| *log -= highest + sum.ln());
    }

    fn loss(&self, labelled: &Labelled) -> f64 {
        let mut scaled = vec![0.0; labelled.classes.len()];
        mean(labelled.rows().map(|(row, label)| {
            scaled.copy_from_slice(row);
            self.apply(&mut scaled);
            -scaled[label]
        }))
    }

    /// The scaling of least loss; with `fit_bias`, biases too, whose squares cost `penalty` each so that a rare class
    /// without evidence keeps 0. The loss is convex in the inverse temperature and the biases, so one after another is
    /// searched until none moves.
    #[must_use]
    pub fn fitted(labelled: &Labelled, fit_bias: bool, penalty: f64) -> Self {
        const ROUND_N: usize = 40;
        const ENOUGH: f64 = 1e-5;
        /// `exp` of it is the highest inverse temperature; a bias beyond it would decide alone.
        const FARTHEST: f64 = 4.0;
        let mut scaling = Self::none(labelled.classes.len());
        if labelled.labels.is_empty() {
            return scaling;
        }
        let cost = |scaling: &Self| {
            scaling.loss(labelled) + penalty * scaling.bias.iter().map(|bias| bias * bias).sum::<f64>()
        };
        for _ in 0..ROUND_N {
            let before = scaling.clone();
            let with = |log: f64| Self { temperature: log.exp(), ..before.clone() };
            scaling.temperature = lowest(-FARTHEST, FARTHEST, |log| cost(&with(log))).exp();
            if fit_bias {
                for class in 0..scaling.bias.len() {
                    let mut trial = scaling.clone();
                    scaling.bias[class] = lowest(-FARTHEST, FARTHEST, |bias| {
                        trial.bias[class] = bias;
                        cost(&trial)
                    });
                }
            }
            let moved = (scaling.temperature / before.temperature).ln().abs()
                + scaling.bias.iter().zip(&before.bias).map(|(new, old)| (new - old).abs()).sum::<f64>();
            if moved < ENOUGH || !fit_bias {
                break;
            }
        }
        scaling
    }
}

/// Where a function of one valley is lowest, by golden sections.
fn lowest(mut low: f64, mut high: f64, mut of: impl FnMut(f64) -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    const WIDTH: f64 = 1e-6;
    let (mut left, mut right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut of_left, mut of_right) = (of(left), of(right));
    while high - low > WIDTH {
        if of_left <= of_right {
            (high, right, of_right) = (right, left, of_left);
            left = high - GOLDEN * (high - low);
            of_left = of(left);
        } else {
            (low, left, of_left) = (left, right, of_right);
            right = low + GOLDEN * (high - low);
            of_right = of(right);
        }
    }
    f64::midpoint(low, high)
}

/// A beat's largest probability, and whether it was right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// 0 to 1.
    pub probability: f64,
    /// Whether the most probable class is the reference's.
    pub is_right: bool,
}

/// Beats whose largest probability lies in one stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// From here.
    pub low: f64,
    /// To below here; the last bin has its end as well.
    pub high: f64,
    /// How many.
    pub beat_n: usize,
    /// Mean of their largest probabilities; the middle of the bin where there are none.
    pub probability: f64,
    /// Share that was right; 0 where there are none.
    pub accuracy: f64,
}

/// Bins of equal width over 0 to 1.
#[must_use]
pub fn bins(judged: &[Judged], bin_n: usize) -> Vec<Bin> {
    let of = |judged: &Judged| ((judged.probability * bin_n as f64) as usize).min(bin_n - 1);
    let mut sums = vec![(0_usize, 0.0, 0_usize); bin_n];
    for beat in judged {
        let (beat_n, probability, right_n) = &mut sums[of(beat)];
        *beat_n += 1;
        *probability += beat.probability;
        *right_n += usize::from(beat.is_right);
    }
    let bin = |(idx, (beat_n, probability, right_n)): (usize, (usize, f64, usize))| {
        let (low, high) = (idx as f64 / bin_n as f64, (idx + 1) as f64 / bin_n as f64);
        let share = |sum: f64, none: f64| if beat_n == 0 { none } else { sum / beat_n as f64 };
        let probability = share(probability, f64::midpoint(low, high));
        Bin { low, high, beat_n, probability, accuracy: share(right_n as f64, 0.0) }
    };
    sums.into_iter().enumerate().map(bin).collect()
}

/// Mean distance of probability and accuracy over the bins, weighted by their beats: 0 is perfect.
#[must_use]
pub fn expected_error(bins: &[Bin]) -> f64 {
    let beat_n: usize = bins.iter().map(|bin| bin.beat_n).sum();
    let distance = |bin: &Bin| bin.beat_n as f64 * (bin.probability - bin.accuracy).abs();
    if beat_n == 0 { 0.0 } else { bins.iter().map(distance).sum::<f64>() / beat_n as f64 }
}

/// What is left, and how good it is, where beats below a probability are set aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The lowest probability that stays.
    pub probability: f64,
    /// Share of the beats that stays.
    pub coverage: f64,
    /// Share of those that is right.
    pub accuracy: f64,
}

/// From the surest beat to all: one point a probability that occurs.
#[must_use]
pub fn coverages(judged: &[Judged]) -> Vec<Coverage> {
    let mut sorted = judged.to_vec();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.is_right.cmp(&b.is_right)));
    let (mut points, mut right_n) = (Vec::new(), 0_usize);
    for (idx, beat) in sorted.iter().enumerate() {
        right_n += usize::from(beat.is_right);
        // Equals stay or go together.
        if sorted.get(idx + 1).is_none_or(|next| next.probability < beat.probability) {
            let kept_n = (idx + 1) as f64;
            let coverage = kept_n / sorted.len() as f64;
            points.push(Coverage { probability: beat.probability, coverage, accuracy: right_n as f64 / kept_n });
        }
    }
    points
}

/// The farthest point at which the beats that stay are still as good as wanted; `None` where no point is.
#[must_use]
pub fn widest(points: &[Coverage], accuracy: f64) -> Option<Coverage> {
    points.iter().rev().find(|point| point.accuracy >= accuracy).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats of three classes whose probabilities are true, then distorted by `scaling`.
    fn labelled(scaling: &Scaling) -> Labelled {
        let mut labelled = Labelled { classes: ["N", "S", "V"].map(str::to_owned).to_vec(), ..Labelled::default() };
        // In a hundred beats with the probabilities 0.72, 0.18, 0.10, as many are of each class.
        for row in [[72, 18, 10], [4, 92, 4], [28, 10, 62], [98, 1, 1]] {
            for (label, beat_n) in row.into_iter().enumerate() {
                for _ in 0..beat_n {
                    labelled.log_probabilities.extend(row.map(|n| (f64::from(n) / 100.0).ln()));
                    labelled.labels.push(label);
                }
            }
        }
        labelled.scaled(scaling)
    }

    #[test]
    fn fitting_undoes_what_was_done() {
        let distorted = labelled(&Scaling { temperature: 0.5, bias: vec![0.0; 3] });
        let fitted = Scaling::fitted(&distorted, false, 0.0);
        assert!((fitted.temperature - 2.0).abs() < 1e-3, "{fitted:?}");
        let truth = labelled(&Scaling::none(3));
        assert!((distorted.scaled(&fitted).loss() - truth.loss()).abs() < 1e-6);
        assert!(truth.loss() < distorted.loss() && truth.brier() < distorted.brier());

        let distorted = labelled(&Scaling { temperature: 0.5, bias: vec![1.0, 0.0, -1.0] });
        let fitted = Scaling::fitted(&distorted, true, 1e-9);
        assert!((fitted.temperature - 2.0).abs() < 0.01, "{fitted:?}");
        // Of biases only their differences count.
        assert!((fitted.bias[0] - fitted.bias[2] + 1.0).abs() < 0.01, "{fitted:?}");
        assert!((distorted.scaled(&fitted).loss() - truth.loss()).abs() < 1e-4);
        assert_eq!(Scaling::fitted(&Labelled::default(), true, 0.0), Scaling::none(0));
    }

    #[test]
    fn temperature_changes_no_class() {
        let truth = labelled(&Scaling::none(3));
        let right = |labelled: &Labelled| labelled.judged().iter().map(|beat| beat.is_right).collect::<Vec<_>>();
        for temperature in [0.1, 0.9, 7.0] {
            assert_eq!(right(&truth.scaled(&Scaling { temperature, bias: vec![0.0; 3] })), right(&truth));
        }
    }

    #[test]
    fn true_probabilities_have_no_calibration_error() {
        let judged = labelled(&Scaling::none(3)).judged();
        let all = bins(&judged, 10);
        assert!(expected_error(&all) < 1e-9, "{all:?}");
        assert_eq!(all.iter().map(|bin| bin.beat_n).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 100, 100, 0, 200]);
        let sure = labelled(&Scaling { temperature: 0.2, bias: vec![0.0; 3] }).judged();
        assert!(expected_error(&bins(&sure, 10)) > 0.1);
        assert_eq!(expected_error(&bins(&[], 10)), 0.0);
        let one = Judged { probability: 1.0, is_right: true };
        assert_eq!(bins(&[one], 10)[9].beat_n, 1, "the last bin has its end");
    }

    #[test]
    fn fewer_beats_are_better_ones() {
        let points = coverages(&labelled(&Scaling::none(3)).judged());
        let rounded: Vec<(f64, f64)> = points.iter().map(|point| (point.coverage, point.accuracy)).collect();
        assert_eq!(rounded, [(0.25, 0.98), (0.5, 0.95), (0.75, 262.0 / 300.0), (1.0, 324.0 / 400.0)]);
        assert_eq!(widest(&points, 0.9).map(|point| point.coverage), Some(0.5));
        assert_eq!(widest(&points, 0.99), None);
        assert_eq!(coverages(&[]), []);
    }
}
