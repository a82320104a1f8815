//! The baseline: multinomial logistic regression (linfa, L-BFGS) on the pooled window and the features.
//!
//! A convolutional network has to beat it. Its ONNX file has the same inputs and output as the network's. A beat
//! without features is scored as if each were at its mean.
//!
//! linfa weighs all rows alike, so classes are balanced by rows: each class gets its share of `row_n` rows, taken
//! evenly spaced from its beats, fewer or (repeated) more than it has. No randomness is involved.
//!
//! Tensors: `window.weight [pooled, class]`, `features.weight [feature_n, class]` (where there are features),
//! `class.bias`, `scaling.window_mean [pooled]`, `scaling.window_deviation`, `scaling.feature_mean`,
//! `scaling.feature_deviation`.

use std::collections::BTreeMap;
use std::ops::Range;

use linfa::traits::Fit;
use linfa::{Dataset, ParamGuard};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::model::{
    Architecture, Beats, Model, ModelError, Samples, Signature, Tensor, mean_and_deviation, standardise_features,
};
use crate::train::TrainingError;

/// How the logistic regression is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogisticConfig {
    /// What the model takes and gives.
    pub signature: Signature,
    /// The window is averaged over this many samples at a time; a rest at its end is not used.
    pub pool_n: usize,
}

/// How the logistic regression is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineConfig {
    /// The model.
    pub logistic: LogisticConfig,
    /// L2 penalty on all weights, for the sum (not the mean) of the loss over `row_n` rows.
    pub penalty: f64,
    /// Iterations of the solver, at most.
    pub iteration_n: u64,
    /// A class with `n` beats gets rows in proportion to `n` to the power of one minus this: 0 as in the data, 1 all
    /// classes alike.
    pub class_weight_power: f64,
    /// Rows that the solver sees.
    pub row_n: usize,
    /// Whether a class without any training beat is an error.
    pub require_every_class: bool,
}

impl BaselineConfig {
    /// The baseline of the main job: means over 4 samples (11 ms), 20,000 rows.
    pub fn new(signature: Signature) -> Self {
        Self {
            logistic: LogisticConfig { signature, pool_n: 4 },
            penalty: 1.0,
            iteration_n: 100,
            class_weight_power: 0.5,
            row_n: 20_000,
            require_every_class: true,
        }
    }
}

/// The tensors of a logistic regression and their shapes.
pub(crate) fn tensor_shapes(config: &LogisticConfig) -> Result<BTreeMap<String, Vec<usize>>, ModelError> {
    let LogisticConfig { signature, pool_n } = config;
    if *pool_n == 0 || *pool_n > signature.window_n {
        let text = format!("`pool_n` is {pool_n}; 1 to {} are possible", signature.window_n);
        return Err(ModelError::Architecture { text });
    }
    let (pooled_n, feature_n, class_n) = (signature.window_n / pool_n, signature.feature_n(), signature.class_n());
    let mut shapes = BTreeMap::from([
        ("window.weight".to_owned(), vec![pooled_n, class_n]),
        ("class.bias".to_owned(), vec![class_n]),
        ("scaling.window_mean".to_owned(), vec![pooled_n]),
        ("scaling.window_deviation".to_owned(), vec![pooled_n]),
        ("scaling.feature_mean".to_owned(), vec![feature_n]),
        ("scaling.feature_deviation".to_owned(), vec![feature_n]),
    ]);
    if feature_n > 0 {
        shapes.insert("features.weight".to_owned(), vec![feature_n, class_n]);
    }
    Ok(shapes)
}

/// Trains the baseline. A class without training beats (where that is allowed) gets a probability near 0.
///
/// # Errors
/// On parameters or samples that do not fit, on a class without training beats, and when the solver fails.
pub fn train_baseline(config: &BaselineConfig, training: Samples<'_>) -> Result<Model, TrainingError> {
    check(config)?;
    let signature = &config.logistic.signature;
    let architecture = Architecture::Logistic(config.logistic.clone());
    tensor_shapes(&config.logistic)?;
    training.check(signature).map_err(|source| TrainingError::Samples { set: "training", source })?;
    let (class_n, feature_n) = (signature.class_n(), signature.feature_n());
    let counts = training.class_counts(class_n);
    let present: Vec<usize> = (0..class_n).filter(|class| counts[*class] > 0).collect();
    if let Some(idx) = counts.iter().position(|count| *count == 0)
        && (config.require_every_class || present.len() < 2)
    {
        return Err(TrainingError::EmptyClass { class_name: signature.class_names[idx].clone() });
    }

    let pooled_n = signature.window_n / config.logistic.pool_n;
    let beat_n = training.labels.len();
    let pooled: Vec<f32> =
        training.beats.windows.chunks_exact(signature.window_n).flat_map(|w| pool(w, &config.logistic)).collect();
    let (window_mean, window_deviation) = mean_and_deviation(pooled.chunks_exact(pooled_n), pooled_n);
    let feature_rows = (0..beat_n).filter_map(|idx| training.beats.feature_row(signature, idx));
    let (feature_mean, feature_deviation) = mean_and_deviation(feature_rows, feature_n);

    let rows = balanced_rows(config, training.labels, &counts);
    let mut records = Array2::<f64>::zeros((rows.len(), pooled_n + feature_n));
    let mut standardised = vec![0.0; feature_n];
    for (mut record, &beat_idx) in records.rows_mut().into_iter().zip(&rows) {
        let window = &pooled[beat_idx * pooled_n..][..pooled_n];
        for (idx, value) in window.iter().enumerate() {
            record[idx] = f64::from((value - window_mean[idx]) / window_deviation[idx]);
        }
        if let Some(row) = training.beats.feature_row(signature, beat_idx) {
            standardise_features(row, &feature_mean, &feature_deviation, &mut standardised);
            standardised.iter().enumerate().for_each(|(idx, value)| record[pooled_n + idx] = f64::from(*value));
        }
    }
    let targets: Array1<usize> = rows.iter().map(|idx| usize::from(training.labels[*idx])).collect();
    let solver_error = |error: &dyn std::fmt::Display| TrainingError::Solver { text: error.to_string() };
    let parameters = MultiLogisticRegression::<f64>::default()
        .alpha(config.penalty)
        .max_iterations(config.iteration_n)
        // linfa's loss is a sum over rows; its own default tolerance is for one row.
        .gradient_tolerance(1e-4 * rows.len() as f64)
        .check()
        .map_err(|error| solver_error(&error))?;
    let fitted = parameters.fit(&Dataset::new(records, targets)).map_err(|error| solver_error(&error))?;

    let mut weight = vec![0.0; (pooled_n + feature_n) * class_n];
    // A class that was never seen: e to the -20 is 2e-9.
    let mut bias = vec![-20.0; class_n];
    for (column, &class) in fitted.classes().iter().enumerate() {
        bias[class] = fitted.intercept()[column] as f32;
        for row in 0..pooled_n + feature_n {
            weight[row * class_n + class] = fitted.params()[[row, column]] as f32;
        }
    }
    let feature_weight = weight.split_off(pooled_n * class_n);
    let matrix = |values: Vec<f32>| Tensor { shape: vec![values.len() / class_n, class_n], values };
    let mut tensors = BTreeMap::from([
        ("window.weight".to_owned(), matrix(weight)),
        ("class.bias".to_owned(), Tensor::vector(bias)),
        ("scaling.window_mean".to_owned(), Tensor::vector(window_mean)),
        ("scaling.window_deviation".to_owned(), Tensor::vector(window_deviation)),
        ("scaling.feature_mean".to_owned(), Tensor::vector(feature_mean)),
        ("scaling.feature_deviation".to_owned(), Tensor::vector(feature_deviation)),
    ]);
    if feature_n > 0 {
        tensors.insert("features.weight".to_owned(), matrix(feature_weight));
    }
    let model = Model { architecture, tensors };
    model.check()?;
    Ok(model)
}

fn check(config: &BaselineConfig) -> Result<(), TrainingError> {
    let checks = [
        ("penalty", config.penalty, config.penalty > 0.0 && config.penalty.is_finite(), "any number above 0"),
        ("iteration_n", config.iteration_n as f64, config.iteration_n > 0, "at least 1"),
        ("class_weight_power", config.class_weight_power, (0.0..=1.0).contains(&config.class_weight_power), "0 to 1"),
        ("row_n", config.row_n as f64, config.row_n > 0, "at least 1"),
    ];
    match checks.into_iter().find(|(_, _, good, _)| !good) {
        Some((name, value, _, possible)) => Err(TrainingError::Parameter { name, value, possible }),
        None => Ok(()),
    }
}

/// The beats that the solver sees, class by class, each class evenly spaced.
fn balanced_rows(config: &BaselineConfig, labels: &[u8], counts: &[usize]) -> Vec<usize> {
    let share = |count: usize| if count == 0 { 0.0 } else { (count as f64).powf(1.0 - config.class_weight_power) };
    let total: f64 = counts.iter().map(|count| share(*count)).sum();
    let mut rows = Vec::new();
    for (class, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let members: Vec<usize> = (0..labels.len()).filter(|idx| usize::from(labels[*idx]) == class).collect();
        let wanted_n = ((share(count) / total * config.row_n as f64).round() as usize).max(1);
        rows.extend((0..wanted_n).map(|idx| members[idx * count / wanted_n]));
    }
    rows
}

fn pool(window: &[f32], config: &LogisticConfig) -> impl Iterator<Item = f32> {
    window.chunks_exact(config.pool_n).map(|part| part.iter().sum::<f32>() / part.len() as f32)
}

/// The log-probabilities `[beat, class]` of checked beats.
pub(crate) fn log_probabilities(
    model: &Model,
    config: &LogisticConfig,
    beats: Beats<'_>,
    range: Range<usize>,
) -> Vec<f32> {
    let signature = &config.signature;
    let mut all = Vec::with_capacity(range.len() * signature.class_n());
    let mut features = vec![0.0; signature.feature_n()];
    let (mean, deviation) = (model.values("scaling.window_mean"), model.values("scaling.window_deviation"));
    let mut logits = vec![0.0; signature.class_n()];
    for idx in range {
        logits.copy_from_slice(model.values("class.bias"));
        let mut add = |value: f32, weights: &[f32]| {
            logits.iter_mut().zip(weights).for_each(|(logit, weight)| *logit += value * weight);
        };
        let window = pool(&beats.windows[idx * signature.window_n..][..signature.window_n], config);
        for (feature, value) in window.enumerate() {
            let row = &model.values("window.weight")[feature * signature.class_n()..];
            add((value - mean[feature]) / deviation[feature], row);
        }
        if let Some(row) = beats.feature_row(signature, idx) {
            let (mean, deviation) = (model.values("scaling.feature_mean"), model.values("scaling.feature_deviation"));
            standardise_features(row, mean, deviation, &mut features);
            for (feature, value) in features.iter().enumerate() {
                add(*value, &model.values("features.weight")[feature * signature.class_n()..]);
            }
        }
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = logits.iter().map(|logit| (logit - highest).exp()).sum::<f32>().ln() + highest;
        all.extend(logits.iter().map(|logit| logit - log_sum));
    }
    all
}
