//! Trains the convolutional network on windows and, where connected, features of beats and changed copies of them.
//!
//! The network, its training and the sources of its choices are documented in `ecgpipe-nn`.
//!
//! A training that was killed or stopped goes on after its last epoch that was kept, with the same result as without
//! (`tests/training.rs`).

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use ecgpipe_nn::{
    Conduct, Device, DeviceError, Draws, EpochScores, Moment, NetworkConfig, Samples, Scores, Selection, Signature,
    Trained, TrainingConfig, TrainingError, WindowUse, train, train_on_draws,
};
use ecgpipe_sdk::{
    All, Context, FactProblem, Features, Metrics, Model, NormalisedWindows, One, Part, Place, Split, Stage, StageError,
    StageFacts, derived_seed, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::AamiClass,
    agreement::{check_beats, training_facts},
    dataset::{add_copies, draw_weights, gather, signature},
    model_artifact::to_artifact,
    saved_trainings::SavedTrainings,
};

/// How often progress is told within an epoch.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Trains the convolutional beat classifier.
pub struct TrainCnn;

/// Parameters of `train_cnn`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Where it is trained; `--device` sets it for all stages. A graphics card adds in another order, so that its result is as
    /// good but not bit for bit repeatable.
    pub device: Device,
    /// How many networks are trained apart, each with a seed and with copies of its own (one out of so many): the model's logits
    /// are the mean of theirs. It takes so many times as long, and errors of chance cancel. 1 to 64.
    #[schemars(range(min = 1, max = 64))]
    pub members_n: usize,
    /// Passes over the training part, at most. At least 1.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Share of each class (`N`, `S`, `V`, `F`, `Q`; in any unit) among the beats of an epoch, which are then drawn, every
    /// record that has the class as often as any other. Without shares each beat is seen once an epoch.
    pub class_shares: BTreeMap<String, f64>,
    /// Beats that are drawn an epoch, with `class_shares`. At least 1.
    #[schemars(range(min = 1))]
    pub draws_n: usize,
    /// Beats in one step of the optimiser. At least 1.
    #[schemars(range(min = 1))]
    pub batch_n: usize,
    /// Highest learning rate of the schedule (linear rise, then cosine).
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Decoupled weight decay.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub weight_decay: f64,
    /// A beat of a class with n beats weighs n to minus this power: 0 all beats alike, 1 all classes alike. With
    /// `class_shares` all drawn beats weigh alike.
    #[schemars(range(min = 0, max = 1))]
    pub class_weight_power: f64,
    /// Width of the layer in which window and features are added.
    #[schemars(range(min = 1, max = 16_384))]
    pub hidden_n: usize,
    /// Width of the first layer of the branch of the features.
    #[schemars(range(min = 1, max = 16_384))]
    pub feature_hidden_n: usize,
    /// Width of the layer before the classes.
    #[schemars(range(min = 1, max = 16_384))]
    pub fused_n: usize,
    /// Share of hidden units switched off while training.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// When the model looks at the window of a beat.
    pub window_use: WindowUse,
    /// Share of beats whose features are hidden while training, so that the model also answers from the window alone. With
    /// `window_use: without_features` these are the beats whose windows are learnt.
    #[schemars(range(min = 0, max = 1))]
    pub feature_dropout: f64,
    /// Share of single features that are replaced by their mean while training, so that no class hangs on one of them.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub feature_mask_share: f64,
    /// Standard deviation of the noise added to features while training, in their standard deviations.
    #[schemars(range(min = 0, max = 1))]
    pub feature_noise: f64,
    /// Share of beats with features whose window is hidden while training, so that the model learns what the features alone say.
    /// Without a meaning for `window_use: without_features`.
    #[schemars(range(min = 0, max = 1))]
    pub window_dropout: f64,
    /// Training windows are moved by up to this many samples either way, as a detector may miss the R-peak.
    pub shift_max_n: usize,
    /// Standard deviation of the noise added to training windows, in units of the window's range.
    #[schemars(range(min = 0, max = 1))]
    pub noise_deviation: f64,
    /// A slow wave of up to this amplitude is added to training windows (baseline wander), in units of the window's
    /// range.
    #[schemars(range(min = 0, max = 1))]
    pub wander_max: f64,
    /// Training windows are stretched or shrunk by up to this share, as waves of other patients are.
    #[schemars(range(min = 0, max = 0.5))]
    pub stretch_max: f64,
    /// Share of training windows that are turned upside down, so that the shape counts and not its direction.
    #[schemars(range(min = 0, max = 1))]
    pub inversion_share: f64,
    /// What the best epoch is chosen by; its weights are the result.
    pub choose_by: Selection,
    /// Training stops after this many epochs without a better one; 0 never stops early.
    pub patience_epochs: usize,
    /// Whether a class without any training beat is an error.
    pub require_every_class: bool,
}

impl Default for Params {
    fn default() -> Self {
        let defaults = TrainingConfig::new(NetworkConfig::new(Signature::aami(Vec::new())));
        Self {
            device: Device::Cpu,
            members_n: 1,
            epochs: defaults.epoch_n,
            class_shares: BTreeMap::new(),
            draws_n: 50_000,
            batch_n: defaults.batch_n,
            learning_rate: defaults.learning_rate,
            weight_decay: defaults.weight_decay,
            class_weight_power: defaults.class_weight_power,
            hidden_n: defaults.network.hidden_n,
            feature_hidden_n: defaults.network.feature_hidden_n,
            fused_n: defaults.network.fused_n,
            dropout: decimal(defaults.dropout),
            window_use: defaults.network.window_use,
            feature_dropout: decimal(defaults.feature_dropout),
            window_dropout: decimal(defaults.window_dropout),
            feature_mask_share: decimal(defaults.feature_mask_share),
            feature_noise: decimal(defaults.feature_noise),
            shift_max_n: defaults.shift_max_n,
            noise_deviation: decimal(defaults.noise_deviation),
            wander_max: decimal(defaults.wander_max),
            stretch_max: decimal(defaults.stretch_max),
            inversion_share: decimal(defaults.inversion_share),
            choose_by: defaults.selection,
            patience_epochs: defaults.patience_epoch_n,
            require_every_class: defaults.require_every_class,
        }
    }
}

impl Params {
    fn config(&self, signature: Signature, seed: u64) -> TrainingConfig {
        let network = NetworkConfig {
            hidden_n: self.hidden_n,
            feature_hidden_n: self.feature_hidden_n,
            fused_n: self.fused_n,
            window_use: self.window_use,
            ..NetworkConfig::new(signature)
        };
        TrainingConfig {
            device: self.device,
            seed,
            epoch_n: self.epochs,
            batch_n: self.batch_n,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            class_weight_power: if self.class_shares.is_empty() { self.class_weight_power } else { 0.0 },
            dropout: self.dropout as f32,
            feature_dropout: self.feature_dropout as f32,
            window_dropout: self.window_dropout as f32,
            feature_mask_share: self.feature_mask_share as f32,
            feature_noise: self.feature_noise as f32,
            shift_max_n: self.shift_max_n,
            noise_deviation: self.noise_deviation as f32,
            wander_max: self.wander_max as f32,
            stretch_max: self.stretch_max as f32,
            inversion_share: self.inversion_share as f32,
            selection: self.choose_by,
            patience_epoch_n: self.patience_epochs,
            require_every_class: self.require_every_class,
            ..TrainingConfig::new(network)
        }
    }

    /// The shares in the order of the classes; `None` where beats are not drawn.
    fn shares(&self) -> Result<Option<[f64; AamiClass::ALL.len()]>, String> {
        if self.class_shares.is_empty() {
            return Ok(None);
        }
        let mut shares = [0.0; AamiClass::ALL.len()];
        for (letter, share) in &self.class_shares {
            let Some(class) = AamiClass::from_letter(letter) else {
                return Err(format!("`class_shares` must name classes out of N, S, V, F, Q; there is no `{letter}`"));
            };
            if !(share.is_finite() && *share >= 0.0) {
                return Err(format!("the share of {letter} in `class_shares` must be 0 or more, not {share}"));
            }
            shares[class.index()] = *share;
        }
        if shares.iter().all(|share| *share == 0.0) {
            return Err("`class_shares` must give one class a share above 0".to_owned());
        }
        if self.draws_n == 0 {
            return Err("`draws_n` must be at least 1".to_owned());
        }
        Ok(Some(shares))
    }
}

ports! {
    /// What `train_cnn` takes.
    pub struct Inputs {
        /// Windows of all records.
        pub windows: All<NormalisedWindows>,
        /// Features of all records; the network uses them where they are known.
        pub features: Option<All<Features>>,
        /// Changed copies of the records' features, of `augment`: those of training beats are trained on too.
        pub copies: Option<All<Features>>,
        /// Beats that were made fusion beats, of `augment`: trained on as class F, without a window.
        pub fusions: Option<All<Features>>,
        /// Which beats are for training and validation.
        pub split: One<Split>,
    }
}

ports! {
    /// What `train_cnn` gives.
    pub struct Outputs {
        /// The weights of the best epoch.
        pub model: One<Model>,
        /// Loss, accuracy and macro-F1 per epoch, for training and validation.
        pub metrics: One<Metrics>,
    }
}

impl Stage for TrainCnn {
    const NAME: &'static str = "train_cnn";
    const SUMMARY: &'static str = "trains a compact convolutional network on windows and features (burn)";
    const SEEDED: bool = true;
    const EXCLUSIVE: bool = true;
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        params.shares()?;
        let device = params.device;
        if !device.is_built_in() {
            return Err(format!("`device`: {}", DeviceError::NotBuiltIn { device }));
        }
        if !(1..=64).contains(&params.members_n) {
            return Err(format!("`members_n` must be 1 to 64, not {}", params.members_n));
        }
        let config = params.config(Signature::aami(Vec::new()), 0);
        config.check().map_err(|error| {
            let text = error.to_string();
            // The library's names for the two parameters that read better otherwise here.
            text.replace("epoch_n", "epochs").replace("patience_epochs_n", "patience_epochs")
        })
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        training_facts(facts, "model");
        check_inputs(params, facts, Place::Parameter("shift_max_n"));
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let given = Given {
            windows: &inputs.windows,
            features: inputs.features.as_ref(),
            copies: inputs.copies.as_ref(),
            fusions: inputs.fusions.as_ref(),
            split: &inputs.split,
        };
        let turn = Turn { idx: 0, turn_n: 1, seed: cx.seed()?, prefix: String::new() };
        let mut metrics = Metrics::default();
        let model = fit(params, &given, &turn, &mut SavedTrainings::load(cx), &mut metrics, cx)?;
        metrics.push("train/parameters", 0, model.parameter_n() as f64);
        Ok(Outputs { model: One::new(to_artifact(&model)?), metrics: One::new(metrics) })
    }
}

/// What a stage that trains this network says of its inputs beyond [`training_facts`]; `place` is where its parameters
/// stand.
pub fn check_inputs(params: &Params, facts: &mut StageFacts<'_>, place: Place) {
    check_beats(facts, &["windows", "copies", "fusions"]);
    let help =
        "connect `features` to `morphology` after `rhythm`, both with all features: these are what `augment` computes";
    facts.same(&["copies", "fusions", "features"], &[names::FEATURES], help);
    if let Some(length_n) = facts.get("windows", names::LENGTH_N)
        && length_n.value.as_u64().is_some_and(|length_n| params.shift_max_n as u64 >= length_n)
    {
        let message = format!(
            "`shift_max_n` must be less than the length of a window ({}), not {}",
            length_n.value, params.shift_max_n
        );
        facts.tell(FactProblem::error(place, message).because(names::LENGTH_N, length_n));
    }
}

/// What a network learns from.
pub struct Given<'a> {
    /// Windows of all records.
    pub windows: &'a All<NormalisedWindows>,
    /// Features of all records, where they are used.
    pub features: Option<&'a All<Features>>,
    /// Changed copies of the features.
    pub copies: Option<&'a All<Features>>,
    /// Features of made fusion beats.
    pub fusions: Option<&'a All<Features>>,
    /// Which beats train and which choose the epoch.
    pub split: &'a Split,
}

/// One of the trainings of a job.
pub struct Turn {
    /// Which one, from 0.
    pub idx: usize,
    /// Of how many.
    pub turn_n: usize,
    /// Seed of all its randomness.
    pub seed: u64,
    /// Stands before the keys of its metrics.
    pub prefix: String,
}

impl Turn {
    /// The training of one member (from 0) of an ensemble.
    fn of_member(&self, member: usize, member_n: usize) -> Self {
        if member_n == 1 {
            return Self { prefix: self.prefix.clone(), ..*self };
        }
        Self {
            idx: self.idx * member_n + member,
            turn_n: self.turn_n * member_n,
            seed: derived_seed(self.seed, member as u64 + 1),
            prefix: format!("{}member_{}/", self.prefix, member + 1),
        }
    }

    /// So much of this training, as part of all trainings of the job: `done` of `total`.
    fn progress(&self, cx: &Context<'_>, done: usize, total: usize, unit: &'static str) {
        cx.progress((self.idx * total + done) as u64, (self.turn_n * total) as u64, unit);
    }

    /// ` of training 2 of 5`, or nothing where there is one alone.
    fn shown(&self) -> String {
        if self.turn_n == 1 { String::new() } else { format!(" of training {} of {}", self.idx + 1, self.turn_n) }
    }
}

/// Trains a network or several, from the last epoch that was kept; metrics are reported as they come, those of epochs that an
/// earlier run has finished once more, and added to `metrics`.
///
/// # Errors
/// On inputs that do not fit one another, on what [`ecgpipe_nn::train()`] refuses, and if the run was cancelled.
pub fn fit(
    params: &Params,
    given: &Given<'_>,
    turn: &Turn,
    saved: &mut SavedTrainings<'_>,
    metrics: &mut Metrics,
    cx: &Context<'_>,
) -> Result<ecgpipe_nn::Model, StageError> {
    let signature = signature(given.windows, given.features)?;
    let shares = params.shares().map_err(StageError::new)?;
    let gather = |part| gather(part, given.windows, given.features, given.split);
    let validation = gather(Part::Validation)?;
    let member_n = params.members_n;
    let mut members = Vec::with_capacity(member_n);
    for member in 0..member_n {
        let turn = turn.of_member(member, member_n);
        let mut training = gather(Part::Training)?;
        if member == 0 {
            cx.note(format!("{} training beats, {} validation beats", training.beat_n(), validation.beat_n()));
        }
        if given.copies.is_some() || given.fusions.is_some() {
            let which = (member, member_n);
            add_copies(&mut training, given.copies, given.fusions, given.windows, given.features, which)?;
            cx.note(format!("{} rows to train on with changed copies", training.beat_n()));
        }
        let weights = shares.map(|shares| draw_weights(&training, &shares));
        let data = Data { training: training.samples(), validation: validation.samples(), weights };
        let trained = train_member(params, &signature, &data, &turn, saved, cx)?;
        add_history(metrics, &trained, &turn.prefix);
        metrics.push(format!("{}train/best_epoch", turn.prefix), 0, trained.best_epoch as f64);
        members.push(trained);
    }
    if member_n > 1 {
        add_mean_history(metrics, &members, &turn.prefix);
    }
    let models = members.into_iter().map(|trained| trained.model).collect();
    ecgpipe_nn::Model::ensemble(models).map_err(|error| StageError::from_error(&error))
}

/// What one network learns from.
struct Data<'a> {
    training: Samples<'a>,
    validation: Samples<'a>,
    /// How likely each beat is drawn, where beats are drawn.
    weights: Option<Vec<f64>>,
}

/// Trains one network.
fn train_member(
    params: &Params,
    signature: &Signature,
    data: &Data<'_>,
    turn: &Turn,
    saved: &mut SavedTrainings<'_>,
    cx: &Context<'_>,
) -> Result<Trained, StageError> {
    let config = params.config(signature.clone(), turn.seed);
    let thread_n = NonZeroUsize::new(cx.threads()).unwrap_or(NonZeroUsize::MIN);
    let (samples, validation) = (data.training, data.validation);
    let mut from = saved.get(turn.idx);
    let trained = loop {
        let mut hear = listener(params, turn, saved, cx);
        let conduct = Conduct { thread_n, from: from.take(), hear: &mut hear };
        let trained = match &data.weights {
            None => train(&config, samples, validation, conduct),
            Some(weights) => {
                let draws = Draws { weights, draw_n: params.draws_n };
                train_on_draws(&config, samples, draws, validation, conduct)
            }
        };
        match trained {
            // Its key says that it is of this training, so this is a defect; but it must not be in the way.
            Err(TrainingError::Checkpoint(error)) => cx.note(format!("begins anew: {error}")),
            other => break other,
        }
    };
    match trained {
        Err(TrainingError::Stopped { epoch }) => {
            cx.note(farewell(params, turn, epoch, saved.write()));
            Err(ecgpipe_sdk::Cancelled.into())
        }
        trained => {
            // Never lost to a kill: the next training may not come to the end of an epoch for long.
            if turn.idx + 1 < turn.turn_n {
                saved.write();
            }
            trained.map_err(|error| StageError::from_error(&error))
        }
    }
}

/// Reports a training and keeps its epochs; breaks off where the run is cancelled.
fn listener<'a>(
    params: &'a Params,
    turn: &'a Turn,
    saved: &'a mut SavedTrainings<'_>,
    cx: &'a Context<'_>,
) -> impl FnMut(Moment<'_>) -> ControlFlow<()> + 'a {
    let tell_scores = |scores: &EpochScores| {
        for (key, value) in epoch_values(scores) {
            cx.metric(format!("{}{key}", turn.prefix), scores.epoch as i64, value);
        }
    };
    let mut told_at = Instant::now();
    move |moment| {
        match moment {
            Moment::Begins { history } => {
                if !history.is_empty() {
                    cx.note(format!("goes on after epoch {} of {}{}", history.len(), params.epochs, turn.shown()));
                    history.iter().for_each(tell_scores);
                }
                turn.progress(cx, history.len(), params.epochs, "epochs");
            }
            Moment::Working { step, step_n, .. } => {
                if told_at.elapsed() >= TELL_EVERY {
                    told_at = Instant::now();
                    turn.progress(cx, step, step_n, "steps");
                }
            }
            Moment::Epoch { report, checkpoint } => {
                saved.set(turn.idx, checkpoint);
                tell_scores(&report.scores);
                turn.progress(cx, report.scores.epoch, params.epochs, "epochs");
            }
        }
        if cx.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What a person hears of a training that was stopped in an epoch (from 1).
fn farewell(params: &Params, turn: &Turn, epoch: usize, is_kept: bool) -> String {
    let next = match (epoch, turn.idx) {
        (1, 0) => "the next run begins anew".to_owned(),
        _ if !is_kept => "the next run begins anew".to_owned(),
        (1, finished_n) => format!("the next run goes on after training {finished_n}"),
        (_, _) => format!("the next run goes on after epoch {}", epoch - 1),
    };
    format!("stopped in epoch {epoch} of {}{}; {next}", params.epochs, turn.shown())
}

/// The mean over the members of an ensemble of what they scored in each epoch that all of them came to.
fn add_mean_history(metrics: &mut Metrics, members: &[Trained], prefix: &str) {
    let epoch_n = members.iter().map(|member| member.history.len()).min().unwrap_or(0);
    for epoch in 0..epoch_n {
        let all: Vec<_> = members.iter().map(|member| epoch_values(&member.history[epoch])).collect();
        for (idx, (key, _)) in all[0].iter().enumerate() {
            let mean = all.iter().map(|values| values[idx].1).sum::<f64>() / all.len() as f64;
            metrics.push(format!("{prefix}{key}"), epoch as i64 + 1, mean);
        }
    }
}

/// The scores of all epochs as metrics, their keys with `prefix` in front.
fn add_history(metrics: &mut Metrics, trained: &Trained, prefix: &str) {
    for scores in &trained.history {
        for (key, value) in epoch_values(scores) {
            metrics.push(format!("{prefix}{key}"), scores.epoch as i64, value);
        }
    }
}

/// The 64-bit number that is written as this 32-bit one is: 0.3, not 0.30000001192092896.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

fn epoch_values(scores: &EpochScores) -> Vec<(String, f64)> {
    let of = |part: &str, scores: &Scores| {
        [("loss", scores.loss), ("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1)]
            .map(|(name, value)| (format!("{part}/{name}"), value))
    };
    let mut values = of("train", &scores.training).to_vec();
    if let Some(validation) = &scores.validation {
        values.extend(of("validation", validation));
    }
    values.push(("train/learning_rate".to_owned(), scores.learning_rate));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shares: &[(&str, f64)], draws_n: usize) -> Result<(), String> {
        let class_shares = shares.iter().map(|(class, share)| ((*class).to_owned(), *share)).collect();
        TrainCnn::check(&Params { class_shares, draws_n, ..Params::default() })
    }

    #[test]
    fn every_member_has_a_turn_a_seed_and_keys_of_its_own() {
        let turn = Turn { idx: 1, turn_n: 5, seed: 7, prefix: "cv/fold_2/".to_owned() };
        let alone = turn.of_member(0, 1);
        assert_eq!((alone.idx, alone.turn_n, alone.seed, alone.prefix.as_str()), (1, 5, 7, "cv/fold_2/"));
        let members = [0, 1, 2].map(|member| turn.of_member(member, 3));
        assert_eq!(members.each_ref().map(|turn| (turn.idx, turn.turn_n)), [(3, 15), (4, 15), (5, 15)]);
        assert_eq!(members[2].prefix, "cv/fold_2/member_3/");
        assert!(members[0].seed != members[1].seed && members[1].seed != members[2].seed);
    }

    #[test]
    fn a_device_that_is_not_compiled_in_is_refused_before_anything_runs() {
        for device in [Device::Cuda, Device::Wgpu] {
            let checked = TrainCnn::check(&Params { device, ..Params::default() });
            match device.is_built_in() {
                true => assert_eq!(checked, Ok(())),
                false => assert!(checked.expect_err("refused").contains("--features")),
            }
        }
        let error = TrainCnn::check(&Params { members_n: 0, ..Params::default() }).expect_err("refused");
        assert_eq!(error, "`members_n` must be 1 to 64, not 0");
    }

    #[test]
    fn shares_are_of_classes_and_one_is_above_0() {
        assert_eq!(check(&[], 0), Ok(()));
        assert_eq!(check(&[("N", 3.0), ("V", 0.5)], 1), Ok(()));
        let message = |shares, draws_n| check(shares, draws_n).expect_err("refused");
        assert!(message(&[("X", 1.0)], 1).contains("there is no `X`"));
        assert!(message(&[("N", -1.0)], 1).contains("the share of N in `class_shares` must be 0 or more, not -1"));
        assert!(message(&[("N", 0.0)], 1).contains("must give one class a share above 0"));
        assert_eq!(message(&[("N", 1.0)], 0), "`draws_n` must be at least 1");
    }

    #[test]
    fn drawn_beats_weigh_alike() {
        let class_shares = BTreeMap::from([("N".to_owned(), 1.0)]);
        let config = |params: Params| params.config(Signature::aami(Vec::new()), 0).class_weight_power;
        assert_eq!(config(Params { class_shares, ..Params::default() }), 0.0);
        assert_eq!(config(Params::default()), Params::default().class_weight_power);
    }
}
