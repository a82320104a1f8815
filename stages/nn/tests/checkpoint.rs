//! Trainings that stop and go on, through the public API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use ecgpipe_nn::{
    Checkpoint, CheckpointError, Conduct, Draws, Ending, Moment, Selection, Trained, TrainingConfig, TrainingError,
    train, train_on_draws,
};

mod synthetic;
use synthetic::{Set, config};

/// What is trained.
struct Task {
    config: TrainingConfig,
    training: Set,
    validation: Set,
    /// Weights and number of draws, where beats are drawn.
    draws: Option<(Vec<f64>, usize)>,
}

impl Task {
    fn new(validation_n: usize, change: fn(&mut TrainingConfig)) -> Self {
        let mut config = TrainingConfig { epoch_n: 4, ..config() };
        change(&mut config);
        Self { config, training: Set::new(150, 1), validation: Set::new(validation_n, 2), draws: None }
    }

    fn drawn(mut self) -> Self {
        let weights = self.training.labels.iter().map(|label| 1.0 + f64::from(*label)).collect();
        self.draws = Some((weights, 130));
        self
    }

    fn train(
        &self,
        thread_n: usize,
        from: Option<Checkpoint>,
        hear: &mut dyn FnMut(Moment<'_>) -> ControlFlow<()>,
    ) -> Result<Trained, TrainingError> {
        let conduct = Conduct { thread_n: NonZeroUsize::new(thread_n).unwrap(), from, hear };
        let (training, validation) = (self.training.samples(), self.validation.samples());
        match &self.draws {
            None => train(&self.config, training, validation, conduct),
            Some((weights, draw_n)) => {
                let draws = Draws { weights, draw_n: *draw_n };
                train_on_draws(&self.config, training, draws, validation, conduct)
            }
        }
    }

    /// The training without an interruption and the checkpoint after each of its epochs.
    fn whole(&self) -> (Trained, Vec<Checkpoint>) {
        let mut checkpoints = Vec::new();
        let mut hear = |moment: Moment<'_>| {
            if let Moment::Epoch { checkpoint, .. } = moment {
                checkpoints.push(checkpoint.clone());
            }
            ControlFlow::Continue(())
        };
        (self.train(1, None, &mut hear).unwrap(), checkpoints)
    }

    /// Why this training does not go on from a checkpoint.
    fn refuses(&self, checkpoint: &Checkpoint) -> String {
        let mut hear = |_: Moment<'_>| panic!("it is trained");
        match self.train(1, Some(checkpoint.clone()), &mut hear) {
            Err(TrainingError::Checkpoint(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn assert_same_bits(one: &Trained, other: &Trained, what: &str) {
    assert_eq!((one.best_epoch, one.ending), (other.best_epoch, other.ending), "{what}");
    assert_eq!(one.model.architecture, other.model.architecture, "{what}");
    let names = |trained: &Trained| trained.model.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "{what}");
    for (name, tensor) in &one.model.tensors {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&tensor.values), bits(&other.model.tensors[name].values), "{what}: {name}");
    }
    let bits = |trained: &Trained| {
        let scores = trained.history.iter().flat_map(|scores| scores.validation.iter().chain([&scores.training]));
        let of = |scores: &ecgpipe_nn::Scores| {
            let named = [scores.loss, scores.accuracy, scores.macro_f1];
            named.iter().chain(&scores.class_f1).map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        let rates = trained.history.iter().map(|scores| vec![scores.epoch as u64, scores.learning_rate.to_bits()]);
        scores.map(of).chain(rates).collect::<Vec<_>>()
    };
    assert_eq!(bits(one), bits(other), "{what}");
}

/// A training that stops at any place of any epoch and goes on gives what it gives without: result, history and every
/// checkpoint that follows.
#[test]
fn a_training_that_goes_on_gives_the_same_bits() {
    let early = |config: &mut TrainingConfig| {
        (config.epoch_n, config.patience_epoch_n, config.learning_rate) = (40, 2, 2e-2);
        config.selection = Selection::Loss;
    };
    let tasks = [
        ("without validation", Task::new(0, |_| ())),
        ("with validation", Task::new(60, |_| ())),
        ("until no epoch is better", Task::new(60, early)),
        ("on drawn beats", Task::new(60, |_| ()).drawn()),
        ("on drawn beats without validation", Task::new(0, |_| ()).drawn()),
        ("on drawn beats until no epoch is better", Task::new(60, early).drawn()),
    ];
    for (name, task) in &tasks {
        let (whole, checkpoints) = task.whole();
        let stops_early = task.config.patience_epoch_n > 0;
        assert_eq!(whole.ending, if stops_early { Ending::Early } else { Ending::Completed }, "{name}");
        assert!(!stops_early || whole.best_epoch < whole.history.len(), "{name}");
        for (epoch_idx, thread_n) in (0..checkpoints.len()).flat_map(|idx| [(idx, 1), (idx, 3)]) {
            let what = format!("{name}, after epoch {} with {thread_n} threads", epoch_idx + 1);
            // In the second batch of the next epoch it stops once more, and what that epoch has done counts for nothing.
            let mut heard_n = 0;
            let mut hear = |_: Moment<'_>| {
                heard_n += 1;
                if heard_n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let from = Checkpoint::from_bytes(&checkpoints[epoch_idx].to_bytes()).unwrap();
            assert_eq!(from, checkpoints[epoch_idx], "{what}");
            assert_eq!(from.history(), &whole.history[..=epoch_idx], "{what}");
            let stopped = task.train(thread_n, Some(from.clone()), &mut hear);
            let is_last = epoch_idx + 1 == checkpoints.len();
            assert_eq!(stopped.is_ok(), is_last, "{what}");

            let mut seen = Vec::new();
            let mut hear = |moment: Moment<'_>| {
                match moment {
                    Moment::Begins { history } => assert_eq!(history, &whole.history[..=epoch_idx], "{what}"),
                    Moment::Working { .. } => {}
                    Moment::Epoch { report, checkpoint } => {
                        assert!(*checkpoint == checkpoints[report.scores.epoch - 1], "{what}");
                        seen.push(report.scores.epoch);
                    }
                }
                ControlFlow::Continue(())
            };
            let resumed = task.train(thread_n, Some(from), &mut hear).unwrap();
            assert_same_bits(&whole, &resumed, &what);
            assert_eq!(
                seen,
                (epoch_idx + 2..=checkpoints.len()).collect::<Vec<_>>(),
                "{what}: no epoch is trained twice"
            );
        }
    }
}

#[test]
fn no_flip_or_cut_of_a_checkpoint_is_read() {
    let (_, checkpoints) = Task::new(60, |config| config.epoch_n = 2).whole();
    let bytes = checkpoints[1].to_bytes();
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoints[1]);
    // Every byte of the beginning and of the end, some of what is between.
    let ends = (0..600).chain(bytes.len() - 600..bytes.len());
    for idx in ends.chain((600..bytes.len() - 600).step_by(499)) {
        let mut flipped = bytes.clone();
        flipped[idx] ^= 1 << (idx % 8);
        assert_eq!(Checkpoint::from_bytes(&flipped), Err(CheckpointError::Damaged), "byte {idx}");
        assert_eq!(Checkpoint::from_bytes(&bytes[..idx]), Err(CheckpointError::Damaged), "cut at {idx}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(Checkpoint::from_bytes(&longer), Err(CheckpointError::Damaged));
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let task = || Task::new(60, |config| config.epoch_n = 3);
    let (_, checkpoints) = task().whole();
    let own = &checkpoints[1];
    let check = |change: fn(&mut Task), expected: &str| {
        let mut other = task();
        change(&mut other);
        let message = other.refuses(own);
        assert_eq!(message, format!("the checkpoint is of another training: its {expected} differ"));
    };
    check(|task| task.config.seed += 1, "configuration or samples");
    check(|task| task.config.learning_rate *= 1.000_000_1, "configuration or samples");
    check(|task| task.config.epoch_n = 1, "configuration or samples");
    check(|task| task.config.network.hidden_n += 1, "configuration or samples");
    check(|task| task.training = Set::new(151, 1), "configuration or samples");
    check(|task| task.training.labels[0] = 1, "configuration or samples");
    check(|task| task.validation = Set::new(59, 2), "configuration or samples");
    check(|task| task.draws = Some((vec![1.0; 150], 150)), "configuration or samples");
    check(|task| task.training.windows[0] += 0.5, "tensors");
    check(|task| task.training = Set::new(150, 3), "tensors");
}
