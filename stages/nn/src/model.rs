//! A trained classifier as plain data: what it takes and gives ([`Signature`]), how it is built ([`Architecture`]) and
//! its numbers ([`Tensor`] by name).
//!
//! Invariant: a [`Model`] that passed [`Model::check`] has exactly the tensors of its architecture, in their shapes,
//! all finite; prediction and export start with that check (`a_model_with_a_missing_or_misshapen_tensor_is_refused`).
//! This module knows neither burn nor ONNX, so that a caller may store a model in any format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::baseline::{self, LogisticConfig};
use crate::network::{self, NetworkConfig};

/// Standardised features are limited to this many standard deviations, so that one extreme value (a pause of
/// five seconds) cannot decide a beat on its own. Part of the ONNX graph as well.
pub const FEATURE_LIMIT_DEVIATIONS: f32 = 5.0;

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Samples in a window, 187 in the main job.
    pub window_n: usize,
    /// Names of the classes, in the order of the probabilities.
    pub class_names: Vec<String>,
    /// Names of the features of a beat, in their order; may be empty.
    pub feature_names: Vec<String>,
}

impl Signature {
    /// The signature of the main job: 187 samples in, the five AAMI classes (ANSI/AAMI EC57) out.
    pub fn aami(feature_names: Vec<String>) -> Self {
        Self { window_n: 187, class_names: ["N", "S", "V", "F", "Q"].map(str::to_owned).to_vec(), feature_names }
    }

    /// Number of classes.
    pub fn class_n(&self) -> usize {
        self.class_names.len()
    }

    /// Number of features.
    pub fn feature_n(&self) -> usize {
        self.feature_names.len()
    }

    fn check(&self) -> Result<(), ModelError> {
        let problem = |text: String| Err(ModelError::Signature { text });
        if self.window_n == 0 || self.window_n > 1 << 16 {
            return problem(format!("a window of {} samples; 1 to 65536 are possible", self.window_n));
        }
        if self.class_n() < 2 || self.class_n() > 256 {
            return problem(format!("{} classes; 2 to 256 are possible", self.class_n()));
        }
        if self.feature_n() > 1 << 12 {
            return problem(format!("{} features; at most 4096 are possible", self.feature_n()));
        }
        for names in [&self.class_names, &self.feature_names] {
            for (idx, name) in names.iter().enumerate() {
                if name.is_empty() || names[..idx].contains(name) {
                    return problem(format!("the name `{name}` is empty or stands twice in {names:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The kinds of model that this crate trains, predicts with and exports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// The convolutional network, see [`crate::network`].
    Network(NetworkConfig),
    /// Several such networks that were trained apart, see [`Model::ensemble`].
    Ensemble(EnsembleConfig),
    /// The logistic regression, see [`crate::baseline`].
    Logistic(LogisticConfig),
}

impl Architecture {
    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        match self {
            Self::Network(config) => &config.signature,
            Self::Ensemble(config) => &config.member.signature,
            Self::Logistic(config) => &config.signature,
        }
    }
}

/// Networks whose logits are averaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleConfig {
    /// How each of them is built.
    pub member: NetworkConfig,
    /// How many there are, 2 to 64.
    pub member_n: usize,
}

impl EnsembleConfig {
    /// What stands before the names of each member's tensors: `member1.`, `member2.` and so on.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.member_n).map(|member| format!("member{member}."))
    }

    /// The tensors of all members and their shapes.
    fn tensor_shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, ModelError> {
        if !(2..=64).contains(&self.member_n) {
            return Err(ModelError::Architecture {
                text: format!("an ensemble of {} networks; 2 to 64 are possible", self.member_n),
            });
        }
        let own = network::tensor_shapes(&self.member)?;
        let of_member =
            |prefix: String| own.iter().map(move |(name, shape)| (format!("{prefix}{name}"), shape.clone()));
        Ok(self.prefixes().flat_map(of_member).collect())
    }
}

/// Numbers in row-major order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// The numbers; as many as the product of `shape`.
    pub values: Vec<f32>,
}

impl Tensor {
    pub(crate) fn vector(values: Vec<f32>) -> Self {
        Self { shape: vec![values.len()], values }
    }
}

/// A trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// How the model is built.
    pub architecture: Architecture,
    /// Weights and scaling by name. Which names an architecture has is documented in its module.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Model {
    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        self.architecture.signature()
    }

    /// How many numbers the model has.
    pub fn parameter_n(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.values.len()).sum()
    }

    /// Refuses a model whose tensors are not those of its architecture.
    ///
    /// # Errors
    /// Names the tensor that is missing, unknown, misshapen or not finite.
    pub fn check(&self) -> Result<(), ModelError> {
        self.signature().check()?;
        let shapes = match &self.architecture {
            Architecture::Network(config) => network::tensor_shapes(config)?,
            Architecture::Ensemble(config) => config.tensor_shapes()?,
            Architecture::Logistic(config) => baseline::tensor_shapes(config)?,
        };
        for (name, shape) in &shapes {
            let tensor = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.clone() })?;
            if tensor.shape != *shape || tensor.values.len() != shape.iter().product::<usize>() {
                return Err(ModelError::TensorShape {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: tensor.shape.clone(),
                    value_n: tensor.values.len(),
                });
            }
            if let Some(idx) = tensor.values.iter().position(|value| !value.is_finite()) {
                return Err(ModelError::NotFinite { name: name.clone(), idx });
            }
            if name.ends_with("_deviation") && tensor.values.iter().any(|value| *value <= 0.0) {
                return Err(ModelError::Deviation { name: name.clone() });
            }
        }
        if let Some(name) = self.tensors.keys().find(|name| !shapes.contains_key(*name)) {
            return Err(ModelError::UnknownTensor { name: name.clone() });
        }
        Ok(())
    }

    /// The model whose logits are the mean of those of networks that were trained apart: errors of chance cancel
    /// (Lakshminarayanan et al. 2017, who average probabilities; the mean of the logits is a network again). One network stays
    /// what it is.
    ///
    /// # Errors
    /// If they are not networks of one architecture.
    pub fn ensemble(members: Vec<Self>) -> Result<Self, ModelError> {
        let problem = |text: &str| Err(ModelError::Architecture { text: text.to_owned() });
        let member_n = members.len();
        let Some(first) = members.first() else { return problem("an ensemble of no network") };
        if member_n == 1 {
            return Ok(first.clone());
        }
        let Architecture::Network(member) = first.architecture.clone() else {
            return problem("an ensemble is of networks, not of other models");
        };
        let config = EnsembleConfig { member, member_n };
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (prefix, model) in config.prefixes().zip(&members) {
            if model.architecture != first.architecture {
                return problem("the networks of an ensemble are of one architecture");
            }
            tensors.extend(model.tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
        }
        let model = Self { architecture: Architecture::Ensemble(config), tensors };
        model.check()?;
        Ok(model)
    }

    /// The networks that a model is made of: those of an ensemble, else itself alone.
    pub(crate) fn members(&self) -> Vec<Cow<'_, Self>> {
        let Architecture::Ensemble(config) = &self.architecture else { return vec![Cow::Borrowed(self)] };
        let member = |prefix: String| {
            let own = self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
            let tensors = own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
            Cow::Owned(Self { architecture: Architecture::Network(config.member.clone()), tensors })
        };
        config.prefixes().map(member).collect()
    }

    /// The model whose logits are these, divided by `temperature`, plus a bias a class: a calibrated one. What it takes and
    /// how it is built stay as they are, since only the weights before the classes change.
    ///
    /// # Errors
    /// If the temperature is not above 0, or the biases are not one finite number a class.
    pub fn scaled(&self, temperature: f64, bias: &[f64]) -> Result<Self, ModelError> {
        let class_n = self.signature().class_n();
        let is_good = temperature.is_finite() && temperature > 0.0;
        if !is_good || bias.len() != class_n || !bias.iter().all(|bias| bias.is_finite()) {
            let text = format!("temperature {temperature} and {} biases for {class_n} classes", bias.len());
            return Err(ModelError::Scaling { text });
        }
        let mut model = self.clone();
        let is_last = |name: &str| match &self.architecture {
            Architecture::Network(_) | Architecture::Ensemble(_) => name.ends_with("class.weight"),
            Architecture::Logistic(_) => ["window.weight", "features.weight"].contains(&name),
        };
        let divide = |value: &mut f32, bias: f64| *value = (f64::from(*value) / temperature + bias) as f32;
        for (name, tensor) in &mut model.tensors {
            if is_last(name) {
                tensor.values.iter_mut().for_each(|value| divide(value, 0.0));
            } else if name.ends_with("class.bias") {
                tensor.values.iter_mut().zip(bias).for_each(|(value, bias)| divide(value, *bias));
            }
        }
        model.check()?;
        Ok(model)
    }

    /// The values of a tensor.
    ///
    /// # Panics
    /// On a name that the architecture does not have: [`Model::check`] comes first.
    pub(crate) fn values(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).expect("the model was checked against its architecture").values
    }
}

/// Beats to predict or to learn from: windows and, where the model uses them, features.
///
/// Windows are row-major `n * window_n`, normalised to `[0, 1]`; features are row-major `n * feature_n` in their
/// natural units. A row of features that is all NaN means "no features known for this beat"; a row with some NaN
/// is an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beats<'a> {
    /// The windows.
    pub windows: &'a [f32],
    /// The features; `None` when none are known for any beat.
    pub features: Option<&'a [f32]>,
}

impl Beats<'_> {
    /// Checks lengths and values against a signature.
    ///
    /// # Errors
    /// Says which length or which beat is wrong.
    pub fn check(&self, signature: &Signature) -> Result<usize, BeatsError> {
        let window_n = signature.window_n;
        if !self.windows.len().is_multiple_of(window_n) {
            return Err(BeatsError::Windows { value_n: self.windows.len(), window_n });
        }
        let beat_n = self.windows.len() / window_n;
        if let Some(idx) = self.windows.iter().position(|value| !value.is_finite()) {
            return Err(BeatsError::Window { beat_idx: idx / window_n, sample_idx: idx % window_n });
        }
        if let Some(features) = self.features {
            let feature_n = signature.feature_n();
            if features.len() != beat_n * feature_n {
                return Err(BeatsError::Features { value_n: features.len(), beat_n, feature_n });
            }
            for (beat_idx, row) in features.chunks_exact(feature_n.max(1)).enumerate() {
                if !row.iter().all(|value| value.is_nan())
                    && let Some(idx) = row.iter().position(|value| !value.is_finite())
                {
                    return Err(BeatsError::FeatureValue { beat_idx, name: signature.feature_names[idx].clone() });
                }
            }
        }
        Ok(beat_n)
    }

    /// The features of one checked beat, or `None` where they are absent.
    pub(crate) fn feature_row(&self, signature: &Signature, beat_idx: usize) -> Option<&[f32]> {
        let feature_n = signature.feature_n();
        let row = &self.features?[beat_idx * feature_n..][..feature_n];
        row.first().is_some_and(|value| !value.is_nan()).then_some(row)
    }
}

/// Beats with their classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Samples<'a> {
    /// The beats.
    pub beats: Beats<'a>,
    /// The class of each beat, as an index into [`Signature::class_names`].
    pub labels: &'a [u8],
}

impl Samples<'_> {
    /// Checks the beats and their labels.
    ///
    /// # Errors
    /// Says which length, beat or label is wrong.
    pub fn check(&self, signature: &Signature) -> Result<usize, BeatsError> {
        let beat_n = self.beats.check(signature)?;
        if self.labels.len() != beat_n {
            return Err(BeatsError::Labels { label_n: self.labels.len(), beat_n });
        }
        match self.labels.iter().position(|label| usize::from(*label) >= signature.class_n()) {
            Some(beat_idx) => Err(BeatsError::Label { beat_idx, class_idx: self.labels[beat_idx] }),
            None => Ok(beat_n),
        }
    }

    /// How many beats each class has.
    pub(crate) fn class_counts(&self, class_n: usize) -> Vec<usize> {
        let mut counts = vec![0; class_n];
        for label in self.labels {
            counts[usize::from(*label)] += 1;
        }
        counts
    }
}

/// Per-column mean and standard deviation of row-major values; a constant column gets the deviation 1.
pub(crate) fn mean_and_deviation<'a>(
    rows: impl Iterator<Item = &'a [f32]> + Clone,
    column_n: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut row_n = 0_usize;
    let mut mean = vec![0.0_f64; column_n];
    for row in rows.clone() {
        row_n += 1;
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let divisor = row_n.max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= divisor);
    let mut variance = vec![0.0_f64; column_n];
    for row in rows {
        for ((sum, value), mean) in variance.iter_mut().zip(row).zip(&mean) {
            *sum += (f64::from(*value) - mean).powi(2);
        }
    }
    let deviation = variance.iter().map(|sum| {
        let deviation = (sum / divisor).sqrt() as f32;
        if deviation > 1e-6 { deviation } else { 1.0 }
    });
    (mean.iter().map(|value| *value as f32).collect(), deviation.collect())
}

/// A value in standard deviations from the mean, limited to [`FEATURE_LIMIT_DEVIATIONS`].
pub(crate) fn standardise_features(row: &[f32], mean: &[f32], deviation: &[f32], to: &mut [f32]) {
    for (idx, to) in to.iter_mut().enumerate() {
        *to = ((row[idx] - mean[idx]) / deviation[idx]).clamp(-FEATURE_LIMIT_DEVIATIONS, FEATURE_LIMIT_DEVIATIONS);
    }
}

/// Why a model is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The signature makes no sense.
    #[error("the signature of the model has {text}")]
    Signature {
        /// What is wrong with it.
        text: String,
    },
    /// The layers do not fit the window or each other.
    #[error("the architecture does not fit: {text}")]
    Architecture {
        /// What is wrong with it.
        text: String,
    },
    /// A tensor is missing.
    #[error("the model has no tensor `{name}`, which its architecture needs")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor is not one of the architecture's.
    #[error("the model has a tensor `{name}`, which its architecture does not know")]
    UnknownTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the architecture says.
    #[error("tensor `{name}` has the shape {found:?} and {value_n} values; its architecture needs {expected:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// Shape that the architecture says.
        expected: Vec<usize>,
        /// Shape of the tensor.
        found: Vec<usize>,
        /// How many values the tensor holds.
        value_n: usize,
    },
    /// A tensor holds NaN or an infinity.
    #[error("value {idx} of tensor `{name}` is not a finite number")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Position of the value.
        idx: usize,
    },
    /// A temperature that is not above 0, or biases that are not one a class.
    #[error("a model cannot be scaled by {text}")]
    Scaling {
        /// What was given.
        text: String,
    },
    /// A standard deviation is not positive.
    #[error("tensor `{name}` holds a standard deviation that is not positive")]
    Deviation {
        /// Name of the tensor.
        name: String,
    },
}

/// Why beats do not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeatsError {
    /// The windows do not divide into whole beats.
    #[error("{value_n} window values are not a multiple of the window length {window_n}")]
    Windows {
        /// How many values were given.
        value_n: usize,
        /// Length of a window.
        window_n: usize,
    },
    /// A window holds NaN or an infinity.
    #[error("sample {sample_idx} of the window of beat {beat_idx} is not a finite number")]
    Window {
        /// The beat.
        beat_idx: usize,
        /// The sample in its window.
        sample_idx: usize,
    },
    /// The features do not divide into one row a beat.
    #[error("{value_n} feature values were given for {beat_n} beats; the model takes {feature_n} for each")]
    Features {
        /// How many values were given.
        value_n: usize,
        /// How many beats there are.
        beat_n: usize,
        /// How many features a beat has.
        feature_n: usize,
    },
    /// A feature is NaN or infinite while others of its beat are known.
    #[error("feature `{name}` of beat {beat_idx} is not a finite number; give all features of a beat, or NaN for all")]
    FeatureValue {
        /// The beat.
        beat_idx: usize,
        /// The feature.
        name: String,
    },
    /// There are more or fewer labels than beats.
    #[error("{label_n} labels were given for {beat_n} beats")]
    Labels {
        /// How many labels were given.
        label_n: usize,
        /// How many beats there are.
        beat_n: usize,
    },
    /// A label is not a class.
    #[error("the label of beat {beat_idx} is class {class_idx}, which the model does not have")]
    Label {
        /// The beat.
        beat_idx: usize,
        /// The label.
        class_idx: u8,
    },
}
