//! The constants of the method, and where they come from.

/// A pair of beats where the weaker one may be a wave of the stronger one's.
pub(super) struct WaveTest {
    /// Longest time between wave and QRS complex.
    pub(super) within_s: f32,
    /// The cost counts in full from this much below.
    pub(super) ramp_s: f32,
    /// Logarithm of the energy of the weaker one, sharpness included, in parts of the stronger one, below which it costs.
    pub(super) log_ratio: f32,
    /// Cost by the logarithm of what is missing.
    pub(super) weight: f32,
}

/// The constants of the method; [`TUNED`] says where they come from.
pub(super) struct Constants {
    /// Centre frequency of the narrow filter.
    pub(super) narrow_hz: f32,
    /// Standard deviation of its Gaussian.
    pub(super) narrow_ms: f32,
    /// Centre frequency of the wide filter.
    pub(super) wide_hz: f32,
    /// Standard deviation of its Gaussian.
    pub(super) wide_ms: f32,
    /// Weight of the wide filter's energy beside the narrow one's.
    pub(super) wide_part: f32,
    /// A candidate is the largest within this time on both sides.
    pub(super) separation_s: f32,
    /// A candidate has at least this part of the largest energy of the last two seconds.
    pub(super) candidate_part: f32,
    /// No candidate lies this close to a gap or an end of the record, where half a deflection looks like a whole one.
    pub(super) edge_s: f32,
    /// Invalid samples over at least this time are a gap, which has no candidates.
    pub(super) min_gap_s: f32,
    /// Time between the points of a shape.
    pub(super) shape_step_s: f32,
    /// A lead's weight comes from so many stretches.
    pub(super) weight_stretch_n: usize,
    /// Exponent of the contrast between QRS complexes and what lies between them in a lead's weight.
    pub(super) weight_power: f32,
    /// The first lead, the most trusted one, counts so many times.
    pub(super) first_lead_trust: f32,
    /// The level before beats are known is a quantile of the largest energies of so many stretches.
    pub(super) level_stretch_n: usize,
    /// Which quantile.
    pub(super) stretch_quantile: f32,
    /// The same over so many stretches gives the floor.
    pub(super) floor_stretch_n: usize,
    /// No level is below this part of it, so that the noise of a silent stretch is no heartbeat.
    pub(super) level_floor: f32,
    /// No level is above so many times that of the latest stretches.
    pub(super) level_guard: f32,
    /// The level is a quantile of the energies of so many settled beats...
    pub(super) level_before_n: usize,
    /// ...and so many open ones.
    pub(super) level_after_n: usize,
    /// Which quantile.
    pub(super) level_quantile: f32,
    /// The local RR interval is the median over so many settled beats...
    pub(super) rr_before_n: usize,
    /// ...and so many open ones.
    pub(super) rr_after_n: usize,
    /// Beats are forgotten after this time.
    pub(super) memory_s: f32,
    /// As `threshold_percent`, as long as nothing is known of the rhythm.
    pub(super) first_threshold_percent: f64,
    /// How much of the noise is added to the level.
    pub(super) noise_part: f32,
    /// A candidate with less than so many times the noise...
    pub(super) noise_ratio: f32,
    /// ...loses evidence by the logarithm of what is missing.
    pub(super) noise_weight: f32,
    /// Evidence by the logarithm of the energy.
    pub(super) evidence_slope: f32,
    /// The most that the energy of one candidate may say for it.
    pub(super) evidence_max: f32,
    /// Evidence by the logarithm of how much farther the shape is from other waves than from beats.
    pub(super) likeness_weight: f32,
    /// The most that it may say for or against.
    pub(super) likeness_max: f32,
    /// Added to both distances: nearer than this is the same shape.
    pub(super) likeness_floor: f32,
    /// Exponent of sharpness in the comparison with P and T waves.
    pub(super) sharpness_power: f32,
    /// An RR interval longer than so many times the local one costs.
    pub(super) long_ratio: f32,
    /// Cost by the logarithm.
    pub(super) long_weight: f32,
    /// The most that a long one costs; less than a clear beat says for itself, so that a new, slower rhythm is found.
    pub(super) long_max: f32,
    /// An RR interval shorter than so many times the local one costs.
    pub(super) short_ratio: f32,
    /// Cost by the logarithm.
    pub(super) short_weight: f32,
    /// An RR interval shorter than this costs, whatever the rhythm.
    pub(super) hasty_s: f32,
    /// Cost by the logarithm.
    pub(super) hasty_weight: f32,
    /// A weak candidate after a beat.
    pub(super) t_wave: WaveTest,
    /// A weak candidate before a beat.
    pub(super) p_wave: WaveTest,
    /// How far back a rival may be.
    pub(super) rival_s: f32,
    /// Logarithm by which the rival may be weaker and still cost.
    pub(super) rival_margin: f32,
    /// Cost by the logarithm of the rival's strength.
    pub(super) rival_weight: f32,
}

/// Every so often the open stretch is decided anew; also the length of a stretch.
pub(super) const HOP_S: f64 = 1.0;

/// The default of [`super::DetectorParams::threshold_percent`].
pub(super) const THRESHOLD_PERCENT: f64 = 31.1;

/// The default of [`super::DetectorParams::look_ahead_s`].
pub(super) const LOOK_AHEAD_S: f64 = 6.0;

/// Found by random search on the 22 records of DS1 alone: missed and extra beats of whole records on lead 0; with a
/// quarter of their weight those on lead 1 (at most 60 a record), and with 3 % those on lead 0 with muscle noise of 6 dB
/// or electrode motion of 12 dB, so that the constants do not lean on one kind of lead. The filters, `noise_ratio`,
/// `noise_weight`, the T-wave test's `within_s` and `long_ratio` are from an earlier search of the same kind on DS1. Set
/// by hand on DS1: `hasty_s` (the shortest RR interval there is 250 ms, and 3 of 10,000 are below 270 ms), `weight_power`,
/// `first_lead_trust`, `shape_step_s`, and, without effect there, `candidate_part`, `edge_s`, `min_gap_s`,
/// `level_floor`, the numbers of stretches for weight and floor, and both `ramp_s`.
pub(super) const TUNED: Constants = Constants {
    narrow_hz: 14.7,
    narrow_ms: 29.3,
    wide_hz: 7.66,
    wide_ms: 44.7,
    wide_part: 0.215,
    separation_s: 0.0815,
    candidate_part: 0.08,
    edge_s: 0.03,
    min_gap_s: 0.1,
    shape_step_s: 0.01,
    weight_stretch_n: 12,
    weight_power: 2.0,
    first_lead_trust: 2.0,
    level_stretch_n: 13,
    stretch_quantile: 0.822,
    floor_stretch_n: 60,
    level_floor: 0.1,
    level_guard: 1.6,
    level_before_n: 16,
    level_after_n: 17,
    level_quantile: 0.464,
    rr_before_n: 10,
    rr_after_n: 14,
    memory_s: 15.0,
    first_threshold_percent: 58.6,
    noise_part: 0.356,
    noise_ratio: 4.4,
    noise_weight: 1.24,
    evidence_slope: 1.47,
    evidence_max: 1.43,
    likeness_weight: 0.25,
    likeness_max: 1.84,
    likeness_floor: 0.121,
    sharpness_power: 0.593,
    long_ratio: 1.27,
    long_weight: 2.29,
    long_max: 1.14,
    short_ratio: 0.65,
    short_weight: 0.725,
    hasty_s: 0.27,
    hasty_weight: 4.97,
    t_wave: WaveTest { within_s: 0.373, ramp_s: 0.15, log_ratio: 0.0655, weight: 1.09 },
    p_wave: WaveTest { within_s: 0.395, ramp_s: 0.1, log_ratio: -1.71, weight: 0.423 },
    rival_s: 0.515,
    rival_margin: 0.276,
    rival_weight: 0.31,
};
