//! Training of the network: AdamW on a class-weighted cross-entropy, with early stopping on a validation set.
//!
//! Invariants:
//! - The result depends on the configuration and the samples alone. A batch is cut in pieces of a fixed size, each
//!   piece's gradients are computed by burn on one thread, and they are added in the order of the pieces
//!   (`the_number_of_threads_does_not_change_a_weight`).
//! - All randomness is data from named streams (see `random.rs`); burn's generator is never asked. So nothing but a
//!   [`Checkpoint`] passes from one epoch to the next (`a_training_that_goes_on_gives_the_same_bits`).
//! - No clock is read for a result; the speed in [`EpochReport`] is for a progress bar only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use burn::tensor::TensorData;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::device::{Device, DeviceError};
use crate::model::{
    Architecture, Beats, BeatsError, Model, ModelError, Samples, Signature, Tensor, mean_and_deviation,
};
use crate::network::{self, NetworkConfig, Piece, Weight, Weights};
use crate::noise::sine;
use crate::random::{Purpose, Stream};
use crate::score::{Scores, Tally};
use crate::workers::Workers;

/// A gradient longer than this (Euclidean norm over all weights) is scaled down to it, so that one odd batch cannot
/// throw the weights far away (Pascanu et al. 2013).
const GRADIENT_NORM_MAX: f64 = 5.0;
/// Decay of the running mean of the gradient in AdamW, and of its square (Kingma and Ba 2015).
const ADAM_DECAY: (f32, f32) = (0.9, 0.999);
const ADAM_EPSILON: f32 = 1e-8;
/// The learning rate ends at this share of its peak.
const FINAL_RATE_SHARE: f64 = 0.01;

/// What the best epoch is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The highest macro-F1 on the validation part.
    MacroF1,
    /// The lowest loss on the validation part.
    Loss,
}

/// How the network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// The network.
    pub network: NetworkConfig,
    /// Where it is trained. A graphics card takes a batch as one piece, and gives other bits.
    pub device: Device,
    /// Seed of all randomness.
    pub seed: u64,
    /// Passes over the training set, at most.
    pub epoch_n: usize,
    /// Beats for one step of the optimiser.
    pub batch_n: usize,
    /// Beats in one piece of a batch, the unit of work of a thread. It changes the order of additions, so it is part
    /// of the configuration; 128 makes four of the batch of the main job and keeps a layer in the second-level cache.
    pub piece_n: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of all steps over which the learning rate rises linearly; it then falls as a cosine to 1 % of its peak.
    pub warmup_share: f64,
    /// Decoupled weight decay (Loshchilov and Hutter 2019); biases have none.
    pub weight_decay: f64,
    /// A beat of a class with `n` beats weighs `n` to minus this power: 0 all beats alike, 1 all classes alike.
    pub class_weight_power: f64,
    /// Share of the hidden units that are switched off for a beat.
    pub dropout: f32,
    /// Share of the beats whose features are hidden, so that the network also answers from the window alone. With
    /// [`WindowUse::WithoutFeatures`](crate::WindowUse) it learns windows of these beats only.
    pub feature_dropout: f32,
    /// Share of the single features that are replaced by their mean, so that no class hangs on one of them.
    pub feature_mask_share: f32,
    /// Standard deviation of the noise added to features, in their standard deviations.
    pub feature_noise: f32,
    /// Share of the beats with features whose window is hidden, so that the network learns what the features alone say before it
    /// recognises patients by their windows. Without a meaning for [`WindowUse::WithoutFeatures`](crate::WindowUse).
    pub window_dropout: f32,
    /// A training window is moved by up to this many samples either way, as a detector may miss the R peak.
    pub shift_max_n: usize,
    /// Standard deviation of the white noise added to a training window, in units of the window's range.
    pub noise_deviation: f32,
    /// A slow wave of up to this amplitude is added to a training window, as baseline wander (and other patients' ST
    /// segments and T waves) would be, in units of the window's range.
    pub wander_max: f32,
    /// A training window is stretched or shrunk around its middle by up to this share, as other patients' waves are
    /// longer or shorter.
    pub stretch_max: f32,
    /// Share of the training windows that are turned upside down, as with another electrical axis or swapped electrodes:
    /// the shape counts, not its direction.
    pub inversion_share: f32,
    /// What the best epoch is chosen by; its weights are the result.
    pub selection: Selection,
    /// Training stops after this many epochs without a better one; 0 never stops early.
    pub patience_epoch_n: usize,
    /// A class counts in macro-F1 from this many beats on: the F1 of a class with 7 beats would choose by chance.
    pub score_beat_n_min: usize,
    /// Whether a class without any training beat is an error.
    pub require_every_class: bool,
}

impl TrainingConfig {
    /// The training of the main job. Values were chosen among a few by record-grouped cross-validation on DS1, never on
    /// DS2: `docs/model.md`.
    pub fn new(network: NetworkConfig) -> Self {
        Self {
            network,
            device: Device::Cpu,
            seed: 2025,
            epoch_n: 5,
            batch_n: 256,
            piece_n: 128,
            learning_rate: 1e-3,
            warmup_share: 0.1,
            weight_decay: 1e-2,
            class_weight_power: 0.5,
            dropout: 0.5,
            feature_dropout: 0.05,
            feature_mask_share: 0.0,
            feature_noise: 0.0,
            window_dropout: 0.15,
            shift_max_n: 5,
            noise_deviation: 0.03,
            wander_max: 0.3,
            stretch_max: 0.15,
            inversion_share: 0.5,
            selection: Selection::MacroF1,
            patience_epoch_n: 0,
            score_beat_n_min: 20,
            require_every_class: true,
        }
    }

    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// Names the parameter, its value and what is possible.
    pub fn check(&self) -> Result<(), TrainingError> {
        let share = |value: f64| (0.0..1.0).contains(&value);
        let checks = [
            ("epoch_n", self.epoch_n as f64, self.epoch_n > 0, "at least 1"),
            ("batch_n", self.batch_n as f64, self.batch_n > 0, "at least 1"),
            ("piece_n", self.piece_n as f64, self.piece_n > 0, "at least 1"),
            (
                "learning_rate",
                self.learning_rate,
                self.learning_rate > 0.0 && self.learning_rate <= 1.0,
                "above 0, at most 1",
            ),
            ("warmup_share", self.warmup_share, share(self.warmup_share), "0 up to, not including, 1"),
            ("weight_decay", self.weight_decay, share(self.weight_decay), "0 up to, not including, 1"),
            ("class_weight_power", self.class_weight_power, (0.0..=1.0).contains(&self.class_weight_power), "0 to 1"),
            ("dropout", f64::from(self.dropout), share(f64::from(self.dropout)), "0 up to, not including, 1"),
            ("window_dropout", f64::from(self.window_dropout), (0.0..=1.0).contains(&self.window_dropout), "0 to 1"),
            ("feature_dropout", f64::from(self.feature_dropout), (0.0..=1.0).contains(&self.feature_dropout), "0 to 1"),
            (
                "feature_mask_share",
                f64::from(self.feature_mask_share),
                (0.0..1.0).contains(&self.feature_mask_share),
                "at least 0 and below 1",
            ),
            ("feature_noise", f64::from(self.feature_noise), (0.0..=1.0).contains(&self.feature_noise), "0 to 1"),
            (
                "shift_max_n",
                self.shift_max_n as f64,
                self.shift_max_n < self.network.signature.window_n,
                "less than the window",
            ),
            ("noise_deviation", f64::from(self.noise_deviation), (0.0..=1.0).contains(&self.noise_deviation), "0 to 1"),
            ("wander_max", f64::from(self.wander_max), (0.0..=1.0).contains(&self.wander_max), "0 to 1"),
            ("stretch_max", f64::from(self.stretch_max), (0.0..=0.5).contains(&self.stretch_max), "0 to 0.5"),
            ("inversion_share", f64::from(self.inversion_share), (0.0..=1.0).contains(&self.inversion_share), "0 to 1"),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, possible)) => Err(TrainingError::Parameter { name, value, possible }),
            None => Ok(()),
        }
    }
}

/// The scores of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochScores {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The learning rate of its last step.
    pub learning_rate: f64,
    /// Scores on the training set, gathered while the weights moved, with noise and dropout.
    pub training: Scores,
    /// Scores on the validation set after the epoch, if there is one. The loss is weighted as in training.
    pub validation: Option<Scores>,
}

/// What a caller hears after every epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochReport {
    /// The scores, part of the result.
    pub scores: EpochScores,
    /// Epochs at most.
    pub epoch_n: usize,
    /// Whether this is the best epoch yet.
    pub best: bool,
    /// Training beats a second; for a progress bar, not part of any result.
    pub beats_per_s: f64,
}

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All epochs were done.
    Completed,
    /// There was no better epoch for [`TrainingConfig::patience_epoch_n`] epochs.
    Early,
}

/// What a caller hears while a network is trained.
#[derive(Debug, Clone, Copy)]
pub enum Moment<'a> {
    /// The training begins, or goes on from a checkpoint that was found to be of it.
    Begins {
        /// Scores of the epochs that are finished already.
        history: &'a [EpochScores],
    },
    /// A batch was trained on, or some thousand beats were scored.
    Working {
        /// The epoch that is not finished, from 1.
        epoch: usize,
        /// Steps of the optimiser so far, in all epochs.
        step: usize,
        /// Steps in all epochs.
        step_n: usize,
    },
    /// An epoch is finished.
    Epoch {
        /// Its scores.
        report: &'a EpochReport,
        /// The state after it, from which another call can go on.
        checkpoint: &'a Checkpoint,
    },
}

/// How a training is carried out: nothing of it changes the result.
pub struct Conduct<'a> {
    /// Threads at work.
    pub thread_n: NonZeroUsize,
    /// Goes on from here, instead of beginning. It must be of this very training.
    pub from: Option<Checkpoint>,
    /// Hears of every batch and epoch, and may break off; a training that has just come to its end is not broken off.
    pub hear: &'a mut dyn FnMut(Moment<'_>) -> ControlFlow<()>,
}

impl<'a> Conduct<'a> {
    /// A training from its beginning.
    pub fn new(thread_n: NonZeroUsize, hear: &'a mut dyn FnMut(Moment<'_>) -> ControlFlow<()>) -> Self {
        Self { thread_n, from: None, hear }
    }
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The model of the best epoch.
    pub model: Model,
    /// The best epoch, from 1.
    pub best_epoch: usize,
    /// Scores of every epoch.
    pub history: Vec<EpochScores>,
    /// Why training ended.
    pub ending: Ending,
}

/// Beats of an epoch that are drawn instead of taken once each, with replacement: rare classes, or small groups within a
/// class, are then seen as often as `weights` says, each time disturbed otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws<'a> {
    /// How likely each beat is drawn, relative to the others. None below 0, one at least above.
    pub weights: &'a [f64],
    /// Beats an epoch. At least 1.
    pub draw_n: usize,
}

/// Trains a network on `training` and chooses the best epoch on `validation` (which may be empty: then the last epoch is
/// the best).
///
/// # Errors
/// On parameters, samples or layers that do not fit, on a class without training beats, when the loss stops being a
/// number, on a checkpoint of another training ([`TrainingError::Checkpoint`]), and if the caller breaks off
/// ([`TrainingError::Stopped`]).
pub fn train(
    config: &TrainingConfig,
    training: Samples<'_>,
    validation: Samples<'_>,
    conduct: Conduct<'_>,
) -> Result<Trained, TrainingError> {
    config.check()?;
    Run::new(config, training, conduct.thread_n)?.train(validation, conduct)
}

/// [`train`] on drawn beats.
///
/// # Errors
/// As [`train`], and on weights that are not one for each beat or of which none can be drawn.
pub fn train_on_draws(
    config: &TrainingConfig,
    training: Samples<'_>,
    draws: Draws<'_>,
    validation: Samples<'_>,
    conduct: Conduct<'_>,
) -> Result<Trained, TrainingError> {
    config.check()?;
    let mut run = Run::new(config, training, conduct.thread_n)?;
    run.draws = Some(Drawing::new(draws, training.labels.len())?);
    run.train(validation, conduct)
}

/// Whom a training tells that it is alive.
type Hear<'a> = &'a mut dyn FnMut(Moment<'_>) -> ControlFlow<()>;

/// What the finished epochs have given.
#[derive(Default)]
struct Past {
    history: Vec<EpochScores>,
    /// The best epoch, from 1, and its tensors.
    best: Option<(usize, BTreeMap<String, Tensor>)>,
}

impl Past {
    fn best_epoch(&self) -> usize {
        self.best.as_ref().map_or(0, |(epoch, _)| *epoch)
    }

    /// Adds an epoch and tells whether it is the best yet.
    fn add(&mut self, scores: &EpochScores, selection: Selection, tensors: &BTreeMap<String, Tensor>) -> bool {
        let is_better = match (&self.best, &scores.validation) {
            (Some((best_epoch, _)), Some(now)) => {
                let before = self.history[best_epoch - 1].validation.as_ref().unwrap_or(now);
                match selection {
                    Selection::MacroF1 => now.macro_f1 > before.macro_f1,
                    Selection::Loss => now.loss < before.loss,
                }
            }
            _ => true,
        };
        self.history.push(scores.clone());
        if is_better {
            self.best = Some((self.history.len(), tensors.clone()));
        }
        is_better
    }

    /// Why no epoch follows, if none does.
    fn ending(&self, config: &TrainingConfig) -> Option<Ending> {
        let epoch = self.history.len();
        if config.patience_epoch_n > 0 && epoch - self.best_epoch() >= config.patience_epoch_n {
            return Some(Ending::Early);
        }
        (epoch >= config.epoch_n).then_some(Ending::Completed)
    }
}

/// The probabilities `[beat, class]` that a model gives, computed by burn (or, for a logistic model, directly).
///
/// # Errors
/// On a model or on beats that do not fit.
pub fn predict(model: &Model, beats: Beats<'_>, thread_n: NonZeroUsize) -> Result<Vec<f32>, TrainingError> {
    model.check()?;
    let beat_n = beats.check(model.signature()).map_err(|source| TrainingError::Samples { set: "given", source })?;
    let workers = Workers::new(thread_n).map_err(|source| TrainingError::Threads { source })?;
    let mut values = log_probabilities(&workers, model, beats, 0..beat_n)?;
    values.iter_mut().for_each(|value| *value = value.exp());
    Ok(values)
}

/// Beats whose log-probabilities are one piece of work.
const SCORED_PIECE_N: usize = 128;

/// Log-probabilities of checked beats, in pieces over all workers.
fn log_probabilities(
    workers: &Workers,
    model: &Model,
    beats: Beats<'_>,
    rows: Range<usize>,
) -> Result<Vec<f32>, TrainingError> {
    let members = model.members();
    let piece = |idx: usize| {
        let start = rows.start + idx * SCORED_PIECE_N;
        let range = start..rows.end.min(start + SCORED_PIECE_N);
        match &model.architecture {
            Architecture::Network(config) => network::log_probabilities(&members, config, beats, range),
            Architecture::Ensemble(config) => network::log_probabilities(&members, &config.member, beats, range),
            Architecture::Logistic(config) => Ok(crate::baseline::log_probabilities(model, config, beats, range)),
        }
    };
    let mut all = Vec::with_capacity(rows.len() * model.signature().class_n());
    for part in workers.map(rows.len().div_ceil(SCORED_PIECE_N), piece) {
        all.extend(part?);
    }
    Ok(all)
}

/// The state of a training.
struct Run<'a> {
    config: &'a TrainingConfig,
    training: Samples<'a>,
    workers: Workers,
    device: burn::tensor::Device,
    positions: Vec<usize>,
    class_weights: Vec<f32>,
    model: Model,
    /// Running means of gradients and of their squares, by tensor.
    moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    step: usize,
    draws: Option<Drawing>,
}

/// Beats to draw from.
struct Drawing {
    /// Sums of the weights up to and with each beat.
    sums: Vec<f64>,
    draw_n: usize,
}

impl Drawing {
    fn new(draws: Draws<'_>, beat_n: usize) -> Result<Self, TrainingError> {
        let weights = draws.weights;
        let total: f64 = weights.iter().sum();
        let are_good = weights.len() == beat_n && weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        if !are_good || total <= 0.0 || draws.draw_n == 0 {
            return Err(TrainingError::Draws { weight_n: weights.len(), beat_n, draw_n: draws.draw_n });
        }
        let mut sum = 0.0;
        let sums = weights.iter().map(|weight| {
            sum += weight / total;
            sum
        });
        Ok(Self { sums: sums.collect(), draw_n: draws.draw_n })
    }

    /// A beat with a weight above 0.
    fn draw(&self, stream: &mut Stream) -> usize {
        // 24 bits are too few where there are millions of beats.
        let place = f64::from(stream.uniform()) + f64::from(stream.uniform()) / f64::from(1_u32 << 24);
        let last = self.sums.last().copied().unwrap_or(1.0);
        self.sums.partition_point(|sum| *sum <= place * last).min(self.sums.len() - 1)
    }
}

/// A beat of an epoch.
#[derive(Clone, Copy)]
struct Taken {
    sample_idx: usize,
    /// Names the stream of its noise: a beat that is drawn twice is disturbed in two ways.
    stream_idx: u64,
}

/// A piece of a batch, ready for the network.
struct Prepared {
    piece: Piece,
    /// Factors of the hidden units, beat after beat.
    dropout: Vec<f32>,
    /// `[beat, class]`: what the logarithms of the probabilities are multiplied with for the loss.
    targets: Vec<f32>,
}

impl Prepared {
    /// This piece and another after it.
    fn and(mut self, other: Self) -> Self {
        self.piece.append(other.piece);
        self.dropout.extend(other.dropout);
        self.targets.extend(other.targets);
        self
    }
}

/// What one piece of a batch gives.
struct PieceGradients {
    gradients: Vec<Vec<f32>>,
    log_probabilities: Vec<f32>,
}

impl<'a> Run<'a> {
    fn new(config: &'a TrainingConfig, training: Samples<'a>, thread_n: NonZeroUsize) -> Result<Self, TrainingError> {
        let positions = config.network.positions()?;
        let device = config.device.open()?.autodiff();
        let mut tensors = network::initial_tensors(&config.network, config.seed)?;
        let signature = &config.network.signature;
        training.check(signature).map_err(|source| TrainingError::Samples { set: "training", source })?;
        let class_weights = class_weights(config, training)?;
        tensors.extend(scaling(signature, training.beats));
        let zeros = |tensor: &Tensor| (vec![0.0; tensor.values.len()], vec![0.0; tensor.values.len()]);
        let moments = tensors.iter().filter(|(name, _)| network::is_trained(name));
        let moments = moments.map(|(name, tensor)| (name.clone(), zeros(tensor))).collect();
        let model = Model { architecture: Architecture::Network(config.network.clone()), tensors };
        model.check()?;
        let workers = Workers::new(thread_n).map_err(|source| TrainingError::Threads { source })?;
        Ok(Self { config, training, workers, device, positions, class_weights, model, moments, step: 0, draws: None })
    }

    /// Epoch after epoch until the end.
    fn train(mut self, validation: Samples<'_>, conduct: Conduct<'_>) -> Result<Trained, TrainingError> {
        let (config, hear) = (self.config, conduct.hear);
        validation.check(self.signature()).map_err(|source| TrainingError::Samples { set: "validation", source })?;
        let identity = self.identity(validation);
        let mut past = match conduct.from {
            None => Past::default(),
            Some(checkpoint) => self.go_on(checkpoint, &identity)?,
        };
        if hear(Moment::Begins { history: &past.history }).is_break() && past.ending(config).is_none() {
            return Err(TrainingError::Stopped { epoch: past.history.len() + 1 });
        }
        let ending = loop {
            if let Some(ending) = past.ending(config) {
                break ending;
            }
            let epoch = past.history.len() + 1;
            let start = Instant::now();
            let training = self.epoch(epoch, hear)?;
            let beats_per_s = self.beats_per_epoch() as f64 / start.elapsed().as_secs_f64().max(1e-9);
            let validation =
                (!validation.labels.is_empty()).then(|| self.score(epoch, validation, hear)).transpose()?;
            let scores = EpochScores { epoch, learning_rate: self.learning_rate(), training, validation };
            let best = past.add(&scores, config.selection, &self.model.tensors);
            let report = EpochReport { scores, epoch_n: config.epoch_n, best, beats_per_s };
            let checkpoint = self.checkpoint(&identity, &past);
            let broken_off = hear(Moment::Epoch { report: &report, checkpoint: &checkpoint }).is_break();
            if broken_off && past.ending(config).is_none() {
                return Err(TrainingError::Stopped { epoch: epoch + 1 });
            }
        };
        let (best_epoch, tensors) = past.best.expect("there is at least one epoch, and the first is the best yet");
        Ok(Trained { model: Model { tensors, ..self.model }, best_epoch, history: past.history, ending })
    }

    /// What decides the result, as far as it can be told in a few words; the scaling tensors say more of the samples.
    fn identity(&self, validation: Samples<'_>) -> String {
        let (training_n, validation_n) = (self.training.labels.len(), validation.labels.len());
        let draw_n = self.draws.as_ref().map(|draws| draws.draw_n);
        format!(
            "{:?}, {training_n} beats weighing {:?}, {draw_n:?} drawn, {validation_n} to validate",
            self.config, self.class_weights
        )
    }

    fn checkpoint(&self, identity: &str, past: &Past) -> Checkpoint {
        Checkpoint {
            identity: identity.to_owned(),
            step: self.step,
            tensors: self.model.tensors.clone(),
            moments: self.moments.clone(),
            best: past.best.clone().expect("there was an epoch, and the first is the best yet"),
            history: past.history.clone(),
        }
    }

    /// Takes up the state of a checkpoint, if it is of this training.
    fn go_on(&mut self, checkpoint: Checkpoint, identity: &str) -> Result<Past, CheckpointError> {
        let other = |what| Err(CheckpointError::Other { what });
        if checkpoint.identity != identity {
            return other("configuration or samples");
        }
        let fits = |tensors: &BTreeMap<String, Tensor>| {
            let same = |((name, tensor), (own_name, own)): ((&String, &Tensor), (&String, &Tensor))| {
                // What is not trained was computed from the samples.
                let same_values = network::is_trained(name) || bits(&tensor.values).eq(bits(&own.values));
                name == own_name && tensor.shape == own.shape && tensor.values.len() == own.values.len() && same_values
            };
            tensors.len() == self.model.tensors.len() && tensors.iter().zip(&self.model.tensors).all(same)
        };
        let (best_epoch, best) = &checkpoint.best;
        if !fits(&checkpoint.tensors) || !fits(best) {
            return other("tensors");
        }
        let have_lengths = self.moments.iter().zip(&checkpoint.moments).all(|((own_name, own), (name, moments))| {
            name == own_name && [&moments.0, &moments.1].iter().all(|values| values.len() == own.0.len())
        });
        if checkpoint.moments.len() != self.moments.len() || !have_lengths {
            return other("moments");
        }
        let epoch = checkpoint.history.len();
        let are_in_order = checkpoint.history.iter().zip(1..).all(|(scores, epoch)| scores.epoch == epoch);
        let is_possible = (1..=self.config.epoch_n).contains(&epoch) && (1..=epoch).contains(best_epoch);
        if !are_in_order || !is_possible || checkpoint.step != epoch * self.steps_per_epoch() {
            return other("epochs");
        }
        self.step = checkpoint.step;
        self.model.tensors = checkpoint.tensors;
        self.moments = checkpoint.moments;
        Ok(Past { history: checkpoint.history, best: Some(checkpoint.best) })
    }

    /// Says that the training is alive, and ends it where the caller breaks off.
    fn tell(&self, epoch: usize, hear: Hear<'_>) -> Result<(), TrainingError> {
        let step_n = self.config.epoch_n * self.steps_per_epoch();
        match hear(Moment::Working { epoch, step: self.step, step_n }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TrainingError::Stopped { epoch }),
        }
    }

    fn signature(&self) -> &'a Signature {
        &self.config.network.signature
    }

    fn beats_per_epoch(&self) -> usize {
        self.draws.as_ref().map_or(self.training.labels.len(), |draws| draws.draw_n)
    }

    fn steps_per_epoch(&self) -> usize {
        self.beats_per_epoch().div_ceil(self.config.batch_n)
    }

    /// The learning rate of the current step.
    fn learning_rate(&self) -> f64 {
        let step_n = (self.config.epoch_n * self.steps_per_epoch()).max(1) as f64;
        let progress = self.step as f64 / step_n;
        let warmup = self.config.warmup_share;
        let share = if progress < warmup {
            progress / warmup
        } else {
            let cosine = (std::f64::consts::PI * (progress - warmup) / (1.0 - warmup)).cos();
            FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * 0.5 * (1.0 + cosine)
        };
        self.config.learning_rate * share
    }

    /// The beats of an epoch, in their order.
    fn taken(&self, epoch: usize) -> Vec<Taken> {
        let mut stream = Stream::new(self.config.seed, Purpose::Order, epoch as u64, 0);
        if let Some(draws) = &self.draws {
            let draw = |stream_idx| Taken { sample_idx: draws.draw(&mut stream), stream_idx };
            return (0..draws.draw_n as u64).map(draw).collect();
        }
        let mut order: Vec<usize> = (0..self.training.labels.len()).collect();
        stream.shuffle(&mut order);
        order.into_iter().map(|sample_idx| Taken { sample_idx, stream_idx: sample_idx as u64 }).collect()
    }

    /// One pass over the training set, or as many draws from it.
    fn epoch(&mut self, epoch: usize, hear: Hear<'_>) -> Result<Scores, TrainingError> {
        let class_n = self.signature().class_n();
        let mut tally = Tally::new(class_n);
        for (batch_idx, batch) in self.taken(epoch).chunks(self.config.batch_n).enumerate() {
            let batch_weight: f32 = batch.iter().map(|taken| self.class_weight(taken.sample_idx)).sum();
            let pieces: Vec<&[Taken]> = batch.chunks(self.config.piece_n).collect();
            let prepared = |piece_idx: usize| self.prepared(epoch, pieces[piece_idx], batch_weight);
            let results = match self.config.device {
                Device::Cpu => self.workers.map(pieces.len(), |piece_idx| self.gradients(prepared(piece_idx))),
                Device::Cuda | Device::Wgpu => {
                    let whole = self.workers.map(pieces.len(), prepared).into_iter().reduce(Prepared::and);
                    whole.map(|whole| self.gradients(whole)).into_iter().collect()
                }
            };
            let rows = results.iter().flat_map(|result| result.log_probabilities.chunks_exact(class_n));
            for (row, taken) in rows.zip(batch) {
                if !row.iter().all(|value| value.is_finite()) {
                    return Err(TrainingError::Diverged { epoch, batch_idx });
                }
                let label = usize::from(self.training.labels[taken.sample_idx]);
                tally.add(row, label, self.class_weight(taken.sample_idx));
            }
            self.step += 1;
            if !self.update(results) {
                return Err(TrainingError::Diverged { epoch, batch_idx });
            }
            self.tell(epoch, hear)?;
        }
        Ok(tally.scores(self.config.score_beat_n_min))
    }

    fn class_weight(&self, sample_idx: usize) -> f32 {
        self.class_weights[usize::from(self.training.labels[sample_idx])]
    }

    /// A row of features of which some are their mean, with noise.
    fn disturbed_features<'b>(&self, row: &'b [f32], stream: &mut Stream) -> Cow<'b, [f32]> {
        let (share, noise) = (self.config.feature_mask_share, self.config.feature_noise);
        if share == 0.0 && noise == 0.0 {
            return Cow::Borrowed(row);
        }
        let (mean, deviation) =
            (self.model.values("scaling.feature_mean"), self.model.values("scaling.feature_deviation"));
        let feature = |idx: usize| match stream.uniform() < share {
            true => mean[idx],
            false if noise > 0.0 => row[idx] + noise * stream.nearly_normal() * deviation[idx],
            false => row[idx],
        };
        Cow::Owned((0..row.len()).map(feature).collect())
    }

    /// A piece of a batch, drawn, disturbed and ready for the network.
    fn prepared(&self, epoch: usize, samples: &[Taken], batch_weight: f32) -> Prepared {
        let config = self.config;
        let signature = self.signature();
        let (window_n, class_n) = (signature.window_n, signature.class_n());
        let mut piece = Piece::default();
        let mut dropout = Vec::with_capacity(samples.len() * config.network.hidden_n);
        let mut targets = vec![0.0; samples.len() * class_n];
        let mut window = Vec::with_capacity(window_n);
        for (row, &Taken { sample_idx, stream_idx }) in samples.iter().enumerate() {
            let mut stream = Stream::new(config.seed, Purpose::Sample, epoch as u64, stream_idx);
            let own = &self.training.beats.windows[sample_idx * window_n..][..window_n];
            // A beat without a window (a flat one) has its features alone, and keeps them.
            let has_window = own.iter().any(|sample| *sample != own[0]);
            let features = self.training.beats.feature_row(signature, sample_idx);
            let features = features.filter(|_| stream.uniform() >= config.feature_dropout || !has_window);
            let looks = match features {
                None => true,
                Some(_) if !config.network.looks_at_window(features) || !has_window => false,
                Some(_) => stream.uniform() >= config.window_dropout,
            };
            if looks {
                disturb(config, own, &mut stream, &mut window);
            }
            let features = features.map(|row| self.disturbed_features(row, &mut stream));
            piece.push(&self.model, &config.network, looks.then_some(&window), features.as_deref());
            let kept = 1.0 / (1.0 - config.dropout);
            let unit = |_| if stream.uniform() < config.dropout { 0.0 } else { kept };
            dropout.extend((0..config.network.hidden_n).map(unit));
            let label = usize::from(self.training.labels[sample_idx]);
            targets[row * class_n + label] = -self.class_weights[label] / batch_weight;
        }
        Prepared { piece, dropout, targets }
    }

    /// The gradients of a piece's share of the batch's mean loss.
    fn gradients(&self, prepared: Prepared) -> PieceGradients {
        let (config, device) = (self.config, &self.device);
        let shape = [prepared.piece.beat_n(), self.signature().class_n()];
        let weights = Weights::new(&self.model, device, true);
        let dropout = (config.dropout > 0.0).then_some(prepared.dropout);
        let logits = network::forward(&config.network, &self.positions, &weights, prepared.piece, dropout, device);
        let log_probabilities = burn::tensor::activation::log_softmax(logits, 1);
        let targets = burn::tensor::Tensor::from_data(TensorData::new(prepared.targets, shape), device);
        let mut gradients = (log_probabilities.clone() * targets).sum().backward();
        // A weight that no beat of the piece reached has no gradient.
        let values = |weight: &Weight| match weight {
            Weight::Matrix(matrix) => matrix.grad_remove(&mut gradients).map(network::to_values),
            Weight::Bias(bias) => bias.grad_remove(&mut gradients).map(network::to_values),
        };
        let gradients = weights.0.values().map(values).map(Option::unwrap_or_default).collect();
        PieceGradients { gradients, log_probabilities: network::to_values(log_probabilities.inner()) }
    }

    /// One step of AdamW; false where the gradient is not a number.
    fn update(&mut self, pieces: Vec<PieceGradients>) -> bool {
        let rate = self.learning_rate() as f32;
        let mut gradients: Vec<Vec<f32>> = self.moments.values().map(|(first, _)| vec![0.0; first.len()]).collect();
        for piece in &pieces {
            for (sum, part) in gradients.iter_mut().zip(&piece.gradients) {
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
        }
        let norm = gradients.iter().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return false;
        }
        let shrink = if norm > GRADIENT_NORM_MAX { (GRADIENT_NORM_MAX / norm) as f32 } else { 1.0 };
        let power = i32::try_from(self.step).unwrap_or(i32::MAX);
        let unbias = (1.0 - ADAM_DECAY.0.powi(power), 1.0 - ADAM_DECAY.1.powi(power));
        for ((name, (first, second)), gradient) in self.moments.iter_mut().zip(&gradients) {
            let tensor = self.model.tensors.get_mut(name).expect("moments have the names of tensors");
            let decay = if tensor.shape.len() == 2 { rate * self.config.weight_decay as f32 } else { 0.0 };
            for (((value, first), second), gradient) in tensor.values.iter_mut().zip(first).zip(second).zip(gradient) {
                let gradient = gradient * shrink;
                *first += (1.0 - ADAM_DECAY.0) * (gradient - *first);
                *second += (1.0 - ADAM_DECAY.1) * (gradient * gradient - *second);
                let direction = (*first / unbias.0) / ((*second / unbias.1).sqrt() + ADAM_EPSILON);
                *value -= rate * direction + decay * *value;
            }
        }
        true
    }

    /// Scores of the current weights, without noise and dropout.
    fn score(&self, epoch: usize, samples: Samples<'_>, hear: Hear<'_>) -> Result<Scores, TrainingError> {
        // A fraction of a second; a whole number of pieces, so that each is what it is without the cut.
        const CHUNK_N: usize = 32 * SCORED_PIECE_N;
        let class_n = self.signature().class_n();
        let mut tally = Tally::new(class_n);
        for (labels, start) in samples.labels.chunks(CHUNK_N).zip((0..).step_by(CHUNK_N)) {
            let rows = start..start + labels.len();
            let values = log_probabilities(&self.workers, &self.model, samples.beats, rows)?;
            for (row, label) in values.chunks_exact(class_n).zip(labels) {
                tally.add(row, usize::from(*label), self.class_weights[usize::from(*label)]);
            }
            self.tell(epoch, hear)?;
        }
        Ok(tally.scores(self.config.score_beat_n_min))
    }
}

/// Numbers as they are in memory: NaN equals itself, and 0 is not -0.
fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|value| value.to_bits())
}

/// Turns a window upside down or not, moves and stretches it (its ends are repeated), adds a slow wave and noise, and
/// scales the sum to `[0, 1]` again, as all windows are that the network will see.
fn disturb(config: &TrainingConfig, window: &[f32], stream: &mut Stream, to: &mut Vec<f32>) {
    let last = (window.len() - 1) as f32;
    let middle = last / 2.0;
    let shift = stream.below(2 * config.shift_max_n + 1) as f32 - config.shift_max_n as f32;
    let mut signed = || 2.0 * stream.uniform() - 1.0;
    let (stretch, wander) = (1.0 + config.stretch_max * signed(), config.wander_max * signed());
    // At most one turn in a window: slower than 2 Hz in a window of half a second.
    let (turn_n, phase) = (stream.uniform(), stream.uniform());
    let inverted = stream.uniform() < config.inversion_share;
    to.clear();
    to.extend((0..window.len()).map(|idx| {
        let offset = idx as f32 - middle;
        let place = (middle + offset * stretch + shift).clamp(0.0, last);
        let (below_idx, share) = (place as usize, place.fract());
        let below = window[below_idx];
        let value = below + share * (window[(below_idx + 1).min(window.len() - 1)] - below);
        let wave = sine(phase + turn_n * idx as f32 / last.max(1.0));
        (if inverted { 1.0 - value } else { value }) + wander * wave
    }));
    if config.noise_deviation > 0.0 {
        to.iter_mut().for_each(|value| *value += config.noise_deviation * stream.nearly_normal());
    }
    let minimum = to.iter().copied().fold(f32::INFINITY, f32::min);
    let range = to.iter().copied().fold(f32::NEG_INFINITY, f32::max) - minimum;
    if range >= f32::MIN_POSITIVE {
        to.iter_mut().for_each(|value| *value = (*value - minimum) / range);
    }
}

/// The weight of a beat of each class, with a mean of 1 over the training set.
fn class_weights(config: &TrainingConfig, training: Samples<'_>) -> Result<Vec<f32>, TrainingError> {
    let signature = &config.network.signature;
    let counts = training.class_counts(signature.class_n());
    let total_n: usize = counts.iter().sum();
    if total_n == 0 {
        return Err(TrainingError::NoSamples);
    }
    if config.require_every_class
        && let Some(idx) = counts.iter().position(|count| *count == 0)
    {
        return Err(TrainingError::EmptyClass { class_name: signature.class_names[idx].clone() });
    }
    let raw: Vec<f64> =
        counts.iter().map(|count| (total_n as f64 / (*count).max(1) as f64).powf(config.class_weight_power)).collect();
    let mean = raw.iter().zip(&counts).map(|(weight, count)| weight * *count as f64).sum::<f64>() / total_n as f64;
    Ok(raw.iter().map(|weight| (weight / mean) as f32).collect())
}

/// Mean and standard deviation of the training set: one pair for all samples of a window, one for each feature.
fn scaling(signature: &Signature, beats: Beats<'_>) -> BTreeMap<String, Tensor> {
    let (window_mean, window_deviation) = mean_and_deviation(beats.windows.chunks(1), 1);
    let beat_n = beats.windows.len() / signature.window_n;
    let rows = (0..beat_n).filter_map(|idx| beats.feature_row(signature, idx));
    let (feature_mean, feature_deviation) = mean_and_deviation(rows, signature.feature_n());
    [
        ("scaling.window_mean", window_mean),
        ("scaling.window_deviation", window_deviation),
        ("scaling.feature_mean", feature_mean),
        ("scaling.feature_deviation", feature_deviation),
    ]
    .map(|(name, values)| (name.to_owned(), Tensor::vector(values)))
    .into()
}

/// Why a model could not be trained or could not predict.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A parameter has an impossible value.
    #[error("`{name}` is {value}; possible is {possible}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is possible.
        possible: &'static str,
    },
    /// The model or its architecture is not usable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The samples do not fit the model.
    #[error("the {set} set does not fit the model: {source}")]
    Samples {
        /// Which set.
        set: &'static str,
        /// What is wrong.
        source: BeatsError,
    },
    /// The training set is empty.
    #[error("the training set has no beats")]
    NoSamples,
    /// A class has no training beats.
    #[error(
        "the training set has no beat of class {class_name}; choose another split, or \
         allow empty classes (`require_every_class: false`)"
    )]
    EmptyClass {
        /// The class.
        class_name: String,
    },
    /// Beats cannot be drawn.
    #[error(
        "{draw_n} beats cannot be drawn with {weight_n} weights for {beat_n} beats: needed are one weight of 0 or more for \
         each, one above 0, and 1 draw or more"
    )]
    Draws {
        /// How many weights were given.
        weight_n: usize,
        /// How many beats there are.
        beat_n: usize,
        /// How many draws were asked for.
        draw_n: usize,
    },
    /// The loss or a gradient became NaN or infinite.
    #[error("the loss stopped being a number in epoch {epoch}, batch {batch_idx}; a lower `learning_rate` helps")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The batch, from 0.
        batch_idx: usize,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The checkpoint is not of this training.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The caller broke off.
    #[error("the training was stopped in epoch {epoch}")]
    Stopped {
        /// The epoch that is not finished, from 1.
        epoch: usize,
    },
    /// The baseline's solver failed.
    #[error("the solver of the logistic regression failed: {text}")]
    Solver {
        /// What it said.
        text: String,
    },
    /// The system gave no thread.
    #[error("no thread could be started: {source}")]
    Threads {
        /// What the system said.
        source: rayon::ThreadPoolBuildError,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn windows(beat_n: usize) -> Vec<f32> {
        (0..beat_n * 187).map(|idx| (idx * 7919 % 1009) as f32 / 1009.0).collect()
    }

    fn config() -> TrainingConfig {
        TrainingConfig::new(NetworkConfig::new(Signature::aami(Vec::new())))
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_training() {
        let (config, windows) = (config(), windows(10));
        let labels: Vec<u8> = (0..10).map(|idx| idx % 5).collect();
        let samples = Samples { beats: Beats { windows: &windows, features: None }, labels: &labels };
        let mut run = Run::new(&config, samples, NonZeroUsize::MIN).unwrap();
        run.epoch(1, &mut |_| ControlFlow::Continue(())).unwrap();
        for tensor in run.model.tensors.values_mut() {
            tensor.values.iter_mut().for_each(|value| *value *= 1e12);
        }
        let message = run.epoch(2, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(message.contains("stopped being a number in epoch 2, batch 0"), "{message}");
    }

    #[test]
    fn rare_classes_weigh_more_and_the_mean_weight_is_1() {
        let labels: Vec<u8> = (0..105_u8).map(|idx| idx.saturating_sub(100)).collect();
        let samples = Samples { beats: Beats { windows: &[], features: None }, labels: &labels };
        let weights = class_weights(&config(), samples).unwrap();
        assert!((weights[1] / weights[0] - 101_f32.sqrt()).abs() < 1e-3, "{weights:?}");
        let mean = labels.iter().map(|label| weights[usize::from(*label)]).sum::<f32>() / 105.0;
        assert!((mean - 1.0).abs() < 1e-5, "{weights:?}");
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let (config, windows) = (TrainingConfig { epoch_n: 12, ..config() }, windows(10));
        let labels: Vec<u8> = (0..10).map(|idx| idx % 5).collect();
        let samples = Samples { beats: Beats { windows: &windows, features: None }, labels: &labels };
        // 12 epochs of one step; the warm-up is 1.2 steps.
        let mut run = Run::new(&config, samples, NonZeroUsize::MIN).unwrap();
        let mut rates = Vec::new();
        for step in 1..=12 {
            run.step = step;
            rates.push(run.learning_rate() / config.learning_rate);
        }
        assert!((rates[0] - 1.0 / 1.2).abs() < 1e-9 && (rates[11] - 0.01).abs() < 1e-9, "{rates:?}");
        assert!(rates[1] > 0.98 && rates[1..].is_sorted_by(|a, b| a > b), "{rates:?}");
    }

    /// `disturb` with nothing but what `change` asks for, on sample after sample.
    fn disturbed(window: &[f32], change: fn(&mut TrainingConfig)) -> Vec<Vec<f32>> {
        let mut config = TrainingConfig {
            shift_max_n: 0,
            noise_deviation: 0.0,
            wander_max: 0.0,
            stretch_max: 0.0,
            inversion_share: 0.0,
            ..config()
        };
        change(&mut config);
        let one = |sample| {
            let mut to = Vec::new();
            disturb(&config, window, &mut Stream::new(1, Purpose::Sample, 0, sample), &mut to);
            to
        };
        (0..50).map(one).collect()
    }

    /// A triangle with its top at sample 93, from 0 to 1.
    fn triangle() -> Vec<f32> {
        (0..187).map(|idx| 1.0 - (idx as f32 - 93.0).abs() / 93.0).collect()
    }

    #[test]
    fn a_shifted_window_repeats_its_ends() {
        let window: Vec<f32> = triangle().iter().map(|value| (2.0 * value - 1.0).max(0.0)).collect();
        let top = |moved: &Vec<f32>| moved.iter().position(|value| *value == 1.0).unwrap();
        let all = disturbed(&window, |config| config.shift_max_n = 2);
        for moved in &all {
            let shift = 93 - top(moved) as i64;
            let at = |idx: i64| window[(idx + shift).clamp(0, 186) as usize];
            assert!((0..187).all(|idx| (moved[idx as usize] - at(idx)).abs() < 1e-5), "{shift}");
        }
        let seen: std::collections::BTreeSet<usize> = all.iter().map(top).collect();
        assert_eq!(seen, (91..=95).collect());
    }

    #[test]
    fn a_window_is_turned_upside_down_as_often_as_asked() {
        let window = triangle();
        let all = disturbed(&window, |config| config.inversion_share = 0.5);
        let inverted: Vec<f32> = window.iter().map(|value| 1.0 - value).collect();
        let inverted_n = all.iter().filter(|moved| **moved == inverted).count();
        assert!((15..=35).contains(&inverted_n) && inverted_n + all.iter().filter(|m| **m == window).count() == 50);
    }

    #[test]
    fn a_stretched_window_keeps_its_middle() {
        let above_half_n = |moved: &[f32]| moved.iter().filter(|value| **value > 0.5).count();
        let window: Vec<f32> = triangle().iter().map(|value| (4.0 * value - 3.0).max(0.0)).collect();
        let all = disturbed(&window, |config| config.stretch_max = 0.2);
        let widths: Vec<usize> = all.iter().map(|moved| above_half_n(moved)).collect();
        assert!(all.iter().all(|moved| (moved[93] - 1.0).abs() < 1e-5));
        let width = above_half_n(&window) as f32;
        let (least, most) = (widths.iter().min().unwrap(), widths.iter().max().unwrap());
        assert!((*least as f32) < width * 0.9 && *least as f32 >= width / 1.2 - 2.0, "{widths:?}");
        assert!((*most as f32) > width * 1.1 && *most as f32 <= width / 0.8 + 2.0, "{widths:?}");
    }

    #[test]
    fn whatever_is_added_a_window_stays_in_the_unit_interval() {
        let all = disturbed(&triangle(), |config| {
            (config.wander_max, config.noise_deviation, config.inversion_share) = (0.5, 0.1, 0.5);
        });
        for moved in &all {
            assert!(
                moved.iter().all(|value| (0.0..=1.0).contains(value)) && moved.contains(&0.0) && moved.contains(&1.0)
            );
        }
        let flat = disturbed(&[0.0; 187], |config| config.inversion_share = 0.0);
        assert!(flat.iter().flatten().all(|value| *value == 0.0));
        let wander = disturbed(&triangle(), |config| config.wander_max = 0.5);
        assert!(wander.iter().any(|moved| (moved[0] - moved[186]).abs() > 0.2), "the wave changes nothing");
    }
}
