//! The convolutional network: strided one-dimensional convolutions over the window, a dense branch for the features, and their
//! sum.
//!
//! ```text
//! window -> standardise -> [convolution, ReLU] x k -> flatten -> dense -> a
//! features -> standardise, limit -> dense -> ReLU -> dense -> b
//! a + b (of a beat whose window or features are not used, the other alone) -> ReLU -> dense -> ReLU -> dense -> softmax
//! ```
//!
//! - The two branches are fused by addition, so that a beat without features is a sum without that term, and so is one whose
//!   window is left aside ([`WindowUse`]).
//! - The last convolution is flattened, not averaged: windows are centred on the R peak, so that a position means
//!   something (a P wave is before it).
//! - There is no normalisation layer: inputs are standardised and weights start as He et al. (2015) say, which trains
//!   four layers well, and nothing then couples the beats of a batch, so that a batch may be cut in any pieces.
//! - Convolutions are matrix products over patches, channels last. A kernel is a whole number of strides, so patches
//!   are views of the layer below put side by side, and nearly all the work, backward too, is in matrix products.
//!
//! Tensors, with the layout of each (`k` counts samples in a kernel, `c` channels of the layer below):
//! `convolution{i}.weight [(k, c), channel]`, `convolution{i}.bias`, `window.weight [(position, channel), hidden]`,
//! `window.bias`, `feature_hidden.weight`, `feature_hidden.bias`, `features.weight`, `features.bias` (all four only where
//! there are features), `fused.weight`, `fused.bias`, `class.weight`, `class.bias`, `scaling.window_mean [1]`,
//! `scaling.window_deviation [1]`, `scaling.feature_mean`, `scaling.feature_deviation`. Dense weights are `[in, out]`.
//!
//! This module knows nothing of training; randomness comes in as data.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Beats, Model, ModelError, Signature, Tensor, standardise_features};
use crate::random::{Purpose, Stream};

type Matrix = burn::tensor::Tensor<2>;

/// One convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvolutionConfig {
    /// Channels that it gives.
    pub channel_n: usize,
    /// Samples (of the layer below) that one output sees. From the second convolution on a multiple of `stride_n`.
    pub kernel_n: usize,
    /// Samples (of the layer below) from one output to the next.
    pub stride_n: usize,
}

/// When a network looks at the window of a beat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowUse {
    /// Always.
    #[default]
    Always,
    /// Only if the beat's features are not known. Where features tell the shape as well, and relative to the record, the window
    /// adds what the training patients' waves look like and where their R-peaks are taken to be, of which other patients have
    /// no use.
    WithoutFeatures,
}

/// How the network is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// What the network takes and gives.
    pub signature: Signature,
    /// The convolutions, first to last. None is padded; samples that no kernel reaches at the end are not seen.
    pub convolutions: Vec<ConvolutionConfig>,
    /// When the window is looked at.
    pub window_use: WindowUse,
    /// Width of the layer in which window and features are added.
    pub hidden_n: usize,
    /// Width of the first layer of the branch of the features.
    pub feature_hidden_n: usize,
    /// Width of the layer between the sum and the classes.
    pub fused_n: usize,
}

impl NetworkConfig {
    /// The network of the main job: 7-sample kernels first (19 ms at 360 Hz), so that 187 samples are seen without
    /// padding and without a rest; outputs of the last convolution see 91 samples (253 ms). It is small on purpose: with
    /// twice the channels it learned the training patients better and others worse (record-grouped split of DS1).
    pub fn new(signature: Signature) -> Self {
        let convolution = |channel_n, kernel_n, stride_n| ConvolutionConfig { channel_n, kernel_n, stride_n };
        Self {
            signature,
            convolutions: vec![
                convolution(16, 7, 4),
                convolution(24, 4, 2),
                convolution(32, 4, 2),
                convolution(48, 4, 2),
            ],
            window_use: WindowUse::default(),
            hidden_n: 32,
            feature_hidden_n: 32,
            fused_n: 32,
        }
    }

    /// Whether the window of a beat with these features is used.
    pub(crate) fn looks_at_window(&self, features: Option<&[f32]>) -> bool {
        features.is_none() || self.window_use == WindowUse::Always
    }

    /// Positions after each convolution.
    ///
    /// # Errors
    /// Says which layer does not fit.
    pub(crate) fn positions(&self) -> Result<Vec<usize>, ModelError> {
        let problem = |text: String| Err(ModelError::Architecture { text });
        let mut positions = Vec::with_capacity(self.convolutions.len());
        let mut length_n = self.signature.window_n;
        for (idx, convolution) in self.convolutions.iter().enumerate() {
            let ConvolutionConfig { channel_n, kernel_n, stride_n } = *convolution;
            if channel_n == 0 || channel_n > 4096 || stride_n == 0 || kernel_n < stride_n {
                return problem(format!(
                    "convolution {idx} has {channel_n} channels, a kernel of {kernel_n} and a stride of {stride_n}; \
                     needed are 1 to 4096 channels and a kernel no shorter than the stride"
                ));
            }
            if idx > 0 && !kernel_n.is_multiple_of(stride_n) {
                return problem(format!(
                    "the kernel of convolution {idx} ({kernel_n}) is not a multiple of its stride ({stride_n})"
                ));
            }
            if kernel_n > length_n {
                return problem(format!(
                    "the kernel of convolution {idx} ({kernel_n}) is longer than its input ({length_n})"
                ));
            }
            length_n = (length_n - kernel_n) / stride_n + 1;
            positions.push(length_n);
        }
        if self.convolutions.is_empty() {
            return problem("there is no convolution".to_owned());
        }
        for (name, width) in
            [("hidden_n", self.hidden_n), ("feature_hidden_n", self.feature_hidden_n), ("fused_n", self.fused_n)]
        {
            if width == 0 || width > 1 << 14 {
                return problem(format!("`{name}` is {width}; 1 to 16384 are possible"));
            }
        }
        Ok(positions)
    }

    /// Length of the flattened last convolution.
    fn flat_n(&self, positions: &[usize]) -> usize {
        positions.last().zip(self.convolutions.last()).map_or(0, |(position_n, last)| position_n * last.channel_n)
    }
}

/// The tensors of a network and their shapes.
pub(crate) fn tensor_shapes(config: &NetworkConfig) -> Result<BTreeMap<String, Vec<usize>>, ModelError> {
    let positions = config.positions()?;
    let mut shapes = BTreeMap::new();
    let mut layer = |name: &str, input_n: usize, output_n: usize| {
        shapes.insert(format!("{name}.weight"), vec![input_n, output_n]);
        shapes.insert(format!("{name}.bias"), vec![output_n]);
    };
    let mut channel_n = 1;
    for (idx, convolution) in config.convolutions.iter().enumerate() {
        layer(&format!("convolution{idx}"), convolution.kernel_n * channel_n, convolution.channel_n);
        channel_n = convolution.channel_n;
    }
    layer("window", config.flat_n(&positions), config.hidden_n);
    let feature_n = config.signature.feature_n();
    if feature_n > 0 {
        layer("feature_hidden", feature_n, config.feature_hidden_n);
        layer("features", config.feature_hidden_n, config.hidden_n);
    }
    layer("fused", config.hidden_n, config.fused_n);
    layer("class", config.fused_n, config.signature.class_n());
    for (name, length_n) in [("window", 1), ("feature", feature_n)] {
        shapes.insert(format!("scaling.{name}_mean"), vec![length_n]);
        shapes.insert(format!("scaling.{name}_deviation"), vec![length_n]);
    }
    Ok(shapes)
}

/// Whether training changes this tensor.
pub(crate) fn is_trained(name: &str) -> bool {
    !name.starts_with("scaling.")
}

/// Initial weights: normal with the deviation sqrt(2 / inputs) (He et al. 2015) before a ReLU, sqrt(1 / inputs)
/// before the softmax and the sum; biases 0; scaling 0 and 1.
pub(crate) fn initial_tensors(config: &NetworkConfig, seed: u64) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let tensor = |(idx, (name, shape)): (usize, (String, Vec<usize>))| {
        let value_n = shape.iter().product();
        let values = if let [input_n, _] = shape[..] {
            let gain = if name == "class.weight" || name == "features.weight" { 1.0 } else { 2.0 };
            Stream::new(seed, Purpose::Weights, idx as u64, 0).normals(value_n, (gain / input_n as f32).sqrt())
        } else {
            vec![if name.ends_with("_deviation") { 1.0 } else { 0.0 }; value_n]
        };
        (name, Tensor { shape, values })
    };
    Ok(tensor_shapes(config)?.into_iter().enumerate().map(tensor).collect())
}

/// A piece of a batch, ready for [`forward`]: what its beats give to each branch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece {
    /// The patches of the first convolution: `[(beat with a window, position), kernel]`.
    patches: Vec<f32>,
    /// Standardised: `[beat with features, feature_n]`.
    features: Vec<f32>,
    /// For each beat, whether its window is used.
    has_window: Vec<bool>,
    /// For each beat, whether it has features.
    has_features: Vec<bool>,
}

impl Piece {
    pub(crate) fn beat_n(&self) -> usize {
        self.has_window.len()
    }

    /// Adds a beat by what is used of it: its window, in `[0, 1]`, and features, in natural units.
    pub(crate) fn push(
        &mut self,
        model: &Model,
        config: &NetworkConfig,
        window: Option<&[f32]>,
        features: Option<&[f32]>,
    ) {
        self.has_window.push(window.is_some());
        self.has_features.push(features.is_some());
        if let Some(window) = window {
            let [mean, deviation] =
                ["mean", "deviation"].map(|name| model.values(&format!("scaling.window_{name}"))[0]);
            let first = config.convolutions[0];
            for patch in window.windows(first.kernel_n).step_by(first.stride_n) {
                self.patches.extend(patch.iter().map(|value| (value - mean) / deviation));
            }
        }
        if let Some(row) = features {
            let [mean, deviation] = ["mean", "deviation"].map(|name| model.values(&format!("scaling.feature_{name}")));
            let start_idx = self.features.len();
            self.features.resize(start_idx + row.len(), 0.0);
            standardise_features(row, mean, deviation, &mut self.features[start_idx..]);
        }
    }

    /// Adds the beats of another piece.
    pub(crate) fn append(&mut self, other: Self) {
        self.patches.extend(other.patches);
        self.features.extend(other.features);
        self.has_window.extend(other.has_window);
        self.has_features.extend(other.has_features);
    }
}

/// The weights on a burn device.
pub(crate) struct Weights(pub(crate) BTreeMap<String, Weight>);

/// A weight matrix or a bias, which are different types in burn.
pub(crate) enum Weight {
    Matrix(Matrix),
    Bias(burn::tensor::Tensor<1>),
}

impl Weights {
    /// Copies the trained tensors of a checked model to `device`; with `track`, gradients can be asked for.
    pub(crate) fn new(model: &Model, device: &Device, track: bool) -> Self {
        let weight = |(name, tensor): (&String, &Tensor)| {
            let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
            let weight = if tensor.shape.len() == 2 {
                let matrix = Matrix::from_data(data, device);
                Weight::Matrix(if track { matrix.require_grad() } else { matrix })
            } else {
                let bias = burn::tensor::Tensor::<1>::from_data(data, device);
                Weight::Bias(if track { bias.require_grad() } else { bias })
            };
            (name.clone(), weight)
        };
        Self(model.tensors.iter().filter(|(name, _)| is_trained(name)).map(weight).collect())
    }

    fn dense(&self, name: &str, input: Matrix) -> Matrix {
        let invariant = "the model was checked against its architecture";
        let Some(Weight::Matrix(weight)) = self.0.get(&format!("{name}.weight")) else { panic!("{invariant}") };
        let Some(Weight::Bias(bias)) = self.0.get(&format!("{name}.bias")) else { panic!("{invariant}") };
        input.matmul(weight.clone()) + bias.clone().unsqueeze::<2>()
    }
}

/// The logits `[beat, class]` of a piece. `dropout` multiplies the hidden layer that both branches give (`beat_n * hidden_n`
/// values).
pub(crate) fn forward(
    config: &NetworkConfig,
    positions: &[usize],
    weights: &Weights,
    piece: Piece,
    dropout: Option<Vec<f32>>,
    device: &Device,
) -> Matrix {
    let beat_n = piece.beat_n();
    let matrix = |values: Vec<f32>, columns: usize| {
        let row_n = values.len() / columns;
        Matrix::from_data(TensorData::new(values, [row_n, columns]), device)
    };
    let by_window = (!piece.patches.is_empty()).then(|| {
        let patches = matrix(piece.patches, config.convolutions[0].kernel_n);
        placed(window_branch(config, positions, weights, patches), &piece.has_window, device)
    });
    let by_features = (!piece.features.is_empty()).then(|| {
        let hidden = relu(weights.dense("feature_hidden", matrix(piece.features, config.signature.feature_n())));
        placed(weights.dense("features", hidden), &piece.has_features, device)
    });
    let hidden = match (by_window, by_features) {
        (Some(by_window), Some(by_features)) => by_window + by_features,
        (Some(branch), None) | (None, Some(branch)) => branch,
        (None, None) => Matrix::zeros([beat_n, config.hidden_n], device),
    };
    let mut hidden = relu(hidden);
    if let Some(dropout) = dropout {
        hidden = hidden * matrix(dropout, config.hidden_n);
    }
    weights.dense("class", relu(weights.dense("fused", hidden)))
}

/// The rows of a branch at the places of the beats that it is of; the other beats have rows of zeros.
fn placed(branch: Matrix, is_of: &[bool], device: &Device) -> Matrix {
    let [row_n, column_n] = branch.dims();
    if row_n == is_of.len() {
        return branch;
    }
    let mut next = 0;
    let row = |is_of: &bool| match is_of {
        true => {
            next += 1;
            next - 1
        }
        false => row_n as i64,
    };
    let rows: Vec<i64> = is_of.iter().map(row).collect();
    let rows = burn::tensor::Tensor::<1, Int>::from_data(TensorData::new(rows, [is_of.len()]), device);
    Matrix::cat(vec![branch, Matrix::zeros([1, column_n], device)], 0).select(0, rows)
}

/// What the hidden layer gets of windows: patches of the first convolution to `[beat, hidden]`.
fn window_branch(config: &NetworkConfig, positions: &[usize], weights: &Weights, patches: Matrix) -> Matrix {
    let beat_n = patches.dims()[0] / positions[0];
    let mut activation = relu(weights.dense("convolution0", patches));
    for (idx, convolution) in config.convolutions.iter().enumerate().skip(1) {
        let below_n = positions[idx - 1];
        let patches = patches_of(activation, beat_n, below_n, config.convolutions[idx - 1].channel_n, convolution);
        activation = relu(weights.dense(&format!("convolution{idx}"), patches));
    }
    weights.dense("window", activation.reshape([beat_n, config.flat_n(positions)]))
}

/// The patches `[(beat, position), (k, c)]` of a convolution over `[(beat, below position), c]`.
fn patches_of(
    below: Matrix,
    beat_n: usize,
    below_n: usize,
    channel_n: usize,
    convolution: &ConvolutionConfig,
) -> Matrix {
    let ConvolutionConfig { kernel_n, stride_n, .. } = *convolution;
    let (block_n, tap_n) = (below_n / stride_n, kernel_n / stride_n);
    let position_n = block_n - tap_n + 1;
    let mut below = below.reshape([beat_n, below_n, channel_n]);
    if block_n * stride_n < below_n {
        below = below.narrow(1, 0, block_n * stride_n);
    }
    let blocks = below.reshape([beat_n, block_n, stride_n * channel_n]);
    let patches = if tap_n == 1 {
        blocks
    } else {
        burn::tensor::Tensor::cat((0..tap_n).map(|tap| blocks.clone().narrow(1, tap, position_n)).collect(), 2)
    };
    patches.reshape([beat_n * position_n, kernel_n * channel_n])
}

/// The logarithms of the probabilities `[beat, class]` of checked beats, `from..to`: of the mean of the logits of all networks,
/// which are of one architecture.
pub(crate) fn log_probabilities(
    members: &[Cow<'_, Model>],
    config: &NetworkConfig,
    beats: Beats<'_>,
    range: std::ops::Range<usize>,
) -> Result<Vec<f32>, ModelError> {
    let positions = config.positions()?;
    let device = Device::flex();
    let window_n = config.signature.window_n;
    let logits = |model: &Cow<'_, Model>| {
        let mut piece = Piece::default();
        for idx in range.clone() {
            let features = beats.feature_row(&config.signature, idx);
            let window = config.looks_at_window(features).then(|| &beats.windows[idx * window_n..][..window_n]);
            piece.push(model, config, window, features);
        }
        forward(config, &positions, &Weights::new(model, &device, false), piece, None, &device)
    };
    let sum = members.iter().map(logits).reduce(|sum, logits| sum + logits).expect("a model has one network or more");
    let mean = if members.len() == 1 { sum } else { sum / members.len() as f32 };
    Ok(to_values(burn::tensor::activation::log_softmax(mean, 1)))
}

/// Copies a tensor out of burn.
pub(crate) fn to_values<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("every tensor of this crate holds f32")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// The network, written once more as loops over single numbers.
    fn slow_logits(model: &Model, config: &NetworkConfig, window: &[f32], features: Option<&[f32]>) -> Vec<f32> {
        let dense = |name: &str, input: &[f32]| -> Vec<f32> {
            let weight = &model.values(&format!("{name}.weight"));
            let bias = model.values(&format!("{name}.bias"));
            let term = |out: usize| -> f32 {
                input.iter().enumerate().map(|(idx, value)| value * weight[idx * bias.len() + out]).sum()
            };
            (0..bias.len()).map(|out| bias[out] + term(out)).collect()
        };
        let relu = |values: Vec<f32>| -> Vec<f32> { values.into_iter().map(|value| value.max(0.0)).collect() };
        let (mean, deviation) = (model.values("scaling.window_mean")[0], model.values("scaling.window_deviation")[0]);
        let mut layer: Vec<Vec<f32>> = window.iter().map(|value| vec![(value - mean) / deviation]).collect();
        for (idx, convolution) in config.convolutions.iter().enumerate() {
            let positions = (0..).map(|position| position * convolution.stride_n);
            layer = positions
                .take_while(|start| start + convolution.kernel_n <= layer.len())
                .map(|start| {
                    relu(dense(&format!("convolution{idx}"), &layer[start..][..convolution.kernel_n].concat()))
                })
                .collect();
        }
        let mut hidden = dense("window", &layer.concat());
        if let Some(features) = features {
            if config.window_use == WindowUse::WithoutFeatures {
                hidden.fill(0.0);
            }
            let (mean, deviation) = (model.values("scaling.feature_mean"), model.values("scaling.feature_deviation"));
            let scaled: Vec<f32> = (0..features.len())
                .map(|idx| ((features[idx] - mean[idx]) / deviation[idx]).clamp(-5.0, 5.0))
                .collect();
            let branch = dense("features", &relu(dense("feature_hidden", &scaled)));
            hidden.iter_mut().zip(branch).for_each(|(sum, value)| *sum += value);
        }
        dense("class", &relu(dense("fused", &relu(hidden))))
    }

    #[test]
    fn patches_give_the_same_network_as_loops_over_single_numbers() {
        let signature = Signature::aami(vec!["a".to_owned(), "b".to_owned()]);
        let mut config = NetworkConfig::new(signature);
        // A rest at the end, three taps and one tap, as well as the default of two.
        config.convolutions[1] = ConvolutionConfig { channel_n: 5, kernel_n: 9, stride_n: 3 };
        config.convolutions[2] = ConvolutionConfig { channel_n: 6, kernel_n: 2, stride_n: 2 };
        config.convolutions[3] = ConvolutionConfig { channel_n: 7, kernel_n: 4, stride_n: 2 };
        let mut tensors = initial_tensors(&config, 3).unwrap();
        let mut stream = Stream::new(3, Purpose::Sample, 0, 0);
        for (name, tensor) in &mut tensors {
            if !name.ends_with("weight") {
                tensor.values.iter_mut().for_each(|value| *value = 0.2 + stream.uniform());
            }
        }
        let windows: Vec<f32> = (0..3 * 187).map(|_| stream.uniform()).collect();
        let features = [0.5, 9.0, f32::NAN, f32::NAN, -0.3, 0.1];
        let beats = Beats { windows: &windows, features: Some(&features) };
        for window_use in [WindowUse::Always, WindowUse::WithoutFeatures] {
            config.window_use = window_use;
            let architecture = crate::Architecture::Network(config.clone());
            let model = Model { architecture, tensors: tensors.clone() };
            model.check().unwrap();
            let found = log_probabilities(&[Cow::Borrowed(&model)], &config, beats, 0..3).unwrap();
            for idx in 0..3 {
                let row = (idx != 1).then(|| &features[2 * idx..][..2]);
                let logits = slow_logits(&model, &config, &windows[187 * idx..][..187], row);
                let log_sum = logits.iter().map(|value| value.exp()).sum::<f32>().ln();
                for (class, logit) in logits.iter().enumerate() {
                    let difference = (found[5 * idx + class] - (logit - log_sum)).abs();
                    assert!(difference < 2e-4, "{window_use:?}, beat {idx} class {class}: {difference}");
                }
            }
        }
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_by_name() {
        let check = |change: fn(&mut NetworkConfig), expected: &str| {
            let mut config = NetworkConfig::new(Signature::aami(Vec::new()));
            change(&mut config);
            let message = config.positions().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(|config| config.convolutions[2].kernel_n = 5, "convolution 2 (5) is not a multiple of its stride (2)");
        check(|config| config.convolutions[0].kernel_n = 188, "longer than its input (187)");
        check(|config| config.convolutions[1].stride_n = 0, "a stride of 0");
        check(|config| config.convolutions.clear(), "no convolution");
        check(|config| config.hidden_n = 0, "`hidden_n` is 0");
        assert_eq!(NetworkConfig::new(Signature::aami(Vec::new())).positions().unwrap(), [46, 22, 10, 4]);
    }
}
