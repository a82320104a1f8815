//! Beats that are easy to tell apart, for tests of training and export.

use ecgpipe_nn::{Beats, NetworkConfig, Samples, Signature, TrainingConfig};

/// Windows, features (two a beat) and labels.
pub(crate) struct Set {
    pub(crate) windows: Vec<f32>,
    pub(crate) features: Vec<f32>,
    pub(crate) labels: Vec<u8>,
}

impl Set {
    /// `beat_n` beats of five classes in turn. Classes 0 and 1 have the same windows and differ in their features
    /// alone; the others differ in the place and width of a bump.
    pub(crate) fn new(beat_n: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let mut set = Self { windows: Vec::new(), features: Vec::new(), labels: Vec::new() };
        for beat_idx in 0..beat_n {
            let class = beat_idx % 5;
            let (centre, width) = [(93.0, 6.0), (93.0, 6.0), (93.0, 18.0), (60.0, 10.0), (130.0, 10.0)][class];
            let centre = centre + 6.0 * (uniform() - 0.5);
            set.windows.extend((0..187).map(|idx| {
                let distance = (idx as f32 - centre) / width;
                0.1 + 0.8 * (-distance * distance).exp() + 0.1 * (uniform() - 0.5)
            }));
            let ratio = if class == 1 { 0.7 } else { 1.0 };
            set.features.extend([ratio + 0.1 * (uniform() - 0.5), 800.0 + 100.0 * uniform()]);
            set.labels.push(class as u8);
        }
        set
    }

    pub(crate) fn beats(&self) -> Beats<'_> {
        Beats { windows: &self.windows, features: Some(&self.features) }
    }

    pub(crate) fn samples(&self) -> Samples<'_> {
        Samples { beats: self.beats(), labels: &self.labels }
    }
}

/// The signature of the sets.
pub(crate) fn signature() -> Signature {
    Signature::aami(vec!["rr_ratio".to_owned(), "rr_ms".to_owned()])
}

/// A small network, trained for a few short epochs.
pub(crate) fn config() -> TrainingConfig {
    let mut network = NetworkConfig::new(signature());
    for (convolution, channel_n) in network.convolutions.iter_mut().zip([8, 12, 16, 24]) {
        convolution.channel_n = channel_n;
    }
    network.hidden_n = 32;
    network.fused_n = 24;
    network.feature_hidden_n = 12;
    TrainingConfig {
        epoch_n: 8,
        batch_n: 64,
        piece_n: 16,
        learning_rate: 2e-3,
        dropout: 0.3,
        feature_dropout: 0.2,
        window_dropout: 0.1,
        wander_max: 0.1,
        stretch_max: 0.05,
        inversion_share: 0.1,
        ..TrainingConfig::new(network)
    }
}
