//! Scores of predicted classes during training. Reports for people (AAMI EC57 and more) are not made here.

use serde::{Deserialize, Serialize};

/// How well probabilities fit the true classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Mean cross-entropy in nats, weighted by class where the training loss is.
    pub loss: f64,
    /// Share of the beats whose most probable class is the true one.
    pub accuracy: f64,
    /// Mean F1 over the classes that occur often enough to be counted, see [`crate::TrainingConfig::score_beat_n_min`].
    pub macro_f1: f64,
    /// F1 of each class, in the order of the signature; 0 for a class that occurs nowhere.
    pub class_f1: Vec<f64>,
}

/// Counts of (true class, predicted class), and the summed loss.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    class_n: usize,
    counts: Vec<u64>,
    loss_sum: f64,
    weight_sum: f64,
}

impl Tally {
    pub(crate) fn new(class_n: usize) -> Self {
        Self { class_n, counts: vec![0; class_n * class_n], loss_sum: 0.0, weight_sum: 0.0 }
    }

    /// Counts one beat from the logarithms of its probabilities.
    pub(crate) fn add(&mut self, log_probabilities: &[f32], class_idx: usize, weight: f32) {
        let mut best_idx = 0;
        for (idx, value) in log_probabilities.iter().enumerate() {
            if *value > log_probabilities[best_idx] {
                best_idx = idx;
            }
        }
        self.counts[class_idx * self.class_n + best_idx] += 1;
        self.loss_sum -= f64::from(weight) * f64::from(log_probabilities[class_idx]);
        self.weight_sum += f64::from(weight);
    }

    pub(crate) fn scores(&self, beat_n_min: usize) -> Scores {
        let n = self.class_n;
        let row_n = |class: usize| self.counts[class * n..][..n].iter().sum::<u64>();
        let class_f1: Vec<f64> = (0..n)
            .map(|class| {
                let hit_n = self.counts[class * n + class];
                let claimed_n: u64 = (0..n).map(|row| self.counts[row * n + class]).sum();
                let all_n = row_n(class) + claimed_n;
                if all_n == 0 { 0.0 } else { 2.0 * hit_n as f64 / all_n as f64 }
            })
            .collect();
        let total_n: u64 = self.counts.iter().sum();
        let hit_n: u64 = (0..n).map(|class| self.counts[class * n + class]).sum();
        let mean_over = |beat_n_min: u64| {
            let counted: Vec<f64> = (0..n).filter(|class| row_n(*class) >= beat_n_min).map(|c| class_f1[c]).collect();
            (!counted.is_empty()).then(|| counted.iter().sum::<f64>() / counted.len() as f64)
        };
        Scores {
            loss: self.loss_sum / self.weight_sum.max(f64::MIN_POSITIVE),
            accuracy: hit_n as f64 / total_n.max(1) as f64,
            // A small set may have no class that is frequent enough: then every class that occurs is counted.
            macro_f1: mean_over(beat_n_min.max(1) as u64).or_else(|| mean_over(1)).unwrap_or(0.0),
            class_f1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_their_definitions() {
        let mut tally = Tally::new(3);
        let predicted = |class: usize| [0, 1, 2].map(|idx| if idx == class { 0.8_f32.ln() } else { 0.1_f32.ln() });
        for (truth, guess) in [(0, 0), (0, 0), (0, 1), (1, 1), (2, 0)] {
            tally.add(&predicted(guess), truth, 1.0);
        }
        let scores = tally.scores(1);
        // By hand: F1 = 2 hits / (true + predicted): class 0: 4/6, class 1: 2/3, class 2: 0/1.
        let expected = [2.0 / 3.0, 2.0 / 3.0, 0.0];
        assert!(scores.class_f1.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{scores:?}");
        assert!((scores.accuracy - 0.6).abs() < 1e-12 && (scores.macro_f1 - 4.0 / 9.0).abs() < 1e-12, "{scores:?}");
        let loss = -(3.0 * 0.8_f64.ln() + 2.0 * 0.1_f64.ln()) / 5.0;
        assert!((scores.loss - loss).abs() < 1e-6, "{scores:?}");
        // Only class 0 occurs three times.
        assert!((tally.scores(3).macro_f1 - 2.0 / 3.0).abs() < 1e-12);
    }
}
