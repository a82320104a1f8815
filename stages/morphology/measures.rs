//! Owns what is measured on a beat against the dominant beat of its record.
//!
//! Every measure is taken lead by lead and given as the least and the greatest over the leads, so that neither the order of
//! the leads nor their number matters. Amplitudes are in units of the record's usual QRS height, ratios are natural
//! logarithms, times are in ms. All are finite for any signal (`super::tests::any_signal_gives_finite_numbers`).

use std::ops::Range;

use super::{
    filter::WORK_HZ,
    groups::Groups,
    shapes::{P, QRS, SHAPE_N, Shapes, T, median},
};
use crate::sums::{dot, maximum, minimum, sum, sum_pairs};

/// What is measured on each lead; a feature's name is this with `_min` or `_max`.
///
/// | name | what | source |
/// |---|---|---|
/// | `qrs_correlation` | correlation of the QRS complex with the dominant one | Hu 1997; Llamedo & Martinez 2012 |
/// | `qrs_best_correlation` | the same, moved by up to 40 ms | cross-correlation, as template matching does |
/// | `qrs_lag_ms` | the move that fits best, without its sign | the same |
/// | `qrs_height_log` | peak-to-peak amplitude over the dominant one | de Chazal 2004, relative to the record |
/// | `qrs_area_log` | mean absolute amplitude over the dominant one | Hu 1997 |
/// | `qrs_difference` | root mean square of the difference | the record's own heartbeat as reference |
/// | `qrs_width_ms` | time between 5 and 95 % of the summed squared slope | duration without a threshold on amplitude |
/// | `qrs_width_difference_ms` | less that of the dominant beat | de Chazal 2004: QRS duration |
/// | `qrs_top_difference` | highest point less that of the dominant beat | |
/// | `qrs_bottom_difference` | lowest point less that of the dominant beat | |
/// | `qrs_slope_log` | steepest slope over the dominant one | |
/// | `p_correlation` | correlation of the stretch of the P wave | absent or other P waves: atrial origin |
/// | `p_difference` | root mean square of the difference there | the same |
/// | `p_height_log` | peak-to-peak amplitude there over the dominant one | the same |
/// | `p_noise_log` | dominant P wave over the beat's deviation from it | whether P can be judged at all |
/// | `p_projection` | how much of the dominant P wave is there: 0 none, 1 all | least squares |
/// | `t_correlation` | correlation of the stretch of the T wave | repolarisation follows an ectopic QRS |
/// | `t_difference` | root mean square of the difference there | the same |
/// | `t_level_difference` | its mean less that of the dominant beat | de Chazal 2004: T wave morphology |
/// | `roughness_log` | mean absolute second difference over the dominant one | noise |
const LEAD_NAMES: [&str; 20] = [
    "qrs_correlation",
    "qrs_best_correlation",
    "qrs_lag_ms",
    "qrs_height_log",
    "qrs_area_log",
    "qrs_difference",
    "qrs_width_ms",
    "qrs_width_difference_ms",
    "qrs_top_difference",
    "qrs_bottom_difference",
    "qrs_slope_log",
    "p_correlation",
    "p_difference",
    "p_height_log",
    "p_noise_log",
    "p_projection",
    "t_correlation",
    "t_difference",
    "t_level_difference",
    "roughness_log",
];

/// What is measured on all leads together.
///
/// | name | what |
/// |---|---|
/// | `alike_share_log` | ln(0.01 + share of the record's beats that look alike) |
/// | `alike_share_relative` | that share over the share of the dominant beat |
/// | `cosine_to_dominant` | 1: as the dominant beat, 0: unrelated, -1: turned over |
/// | `cosine_to_previous` | the same with the beat before |
/// | `cosine_to_next` | the same with the beat after |
/// | `mix_dominant` | share of the dominant beat in the best sum of it and the commonest unlike beat |
/// | `mix_other` | share of the unlike beat in that sum: a fusion beat has some of both |
/// | `mix_least` | the lesser of the two |
/// | `mix_rest` | part of the beat that the sum does not explain |
/// | `spike_log` | ln(0.01 + height of the sharpest spike up to 0.3 s before the R-peak or 0.04 s after it): a pacemaker's stimulus |
/// | `record_spike_log` | the same of half of the record's beats or more |
/// | `record_qrs_width_ms` | `qrs_width_ms` of the dominant beat on its narrowest lead: bundle branch block, pacing |
const RECORD_NAMES: [&str; 12] = [
    "alike_share_log",
    "alike_share_relative",
    "cosine_to_dominant",
    "cosine_to_previous",
    "cosine_to_next",
    "mix_dominant",
    "mix_other",
    "mix_least",
    "mix_rest",
    "spike_log",
    "record_spike_log",
    "record_qrs_width_ms",
];

/// Farthest move of a QRS complex against the dominant one, in working samples: 40 ms.
const LAG_MAX_N: usize = 5;
/// Moves of a QRS complex in both directions and none, and one more that makes whole vectors.
const MOVE_N: usize = 2 * LAG_MAX_N + 2;
/// The slopes from one sample of the QRS complex to the next.
const QRS_SLOPES: Range<usize> = QRS.start..QRS.end - 1;
/// Keeps logarithms and ratios finite: one hundredth of a QRS height is noise.
const FLOOR: f32 = 0.01;
/// Larger numbers say nothing more.
const LIMIT: f32 = 10.0;

/// All names, in column order.
pub(super) fn names() -> Vec<String> {
    let of_lead = LEAD_NAMES.iter().flat_map(|name| ["min", "max"].map(|which| format!("{name}_{which}")));
    of_lead.chain(RECORD_NAMES.map(str::to_owned)).collect()
}

/// One column for each of [`names`].
pub(crate) fn columns(shapes: &Shapes, groups: &Groups) -> Vec<Vec<f32>> {
    let dominant: Vec<Dominant<'_>> = groups.dominant.iter().map(|shape| Dominant::new(shape)).collect();
    let mixture = Mixture::new(groups);
    let greatest_density = maximum(&groups.density).max(f32::MIN_POSITIVE);
    let spike = |beat_idx: usize| shapes.spikes.iter().map(|lead| lead[beat_idx]).fold(0.0, f32::max);
    let spikes: Vec<f32> = (0..shapes.beat_n).map(spike).collect();
    let record_spike_log = limited((FLOOR + median(&mut spikes.clone())).ln());
    let record_width_ms = dominant.iter().map(|own| own.measured.width_ms).fold(f32::INFINITY, f32::min);
    let mut columns = vec![Vec::with_capacity(shapes.beat_n); 2 * LEAD_NAMES.len() + RECORD_NAMES.len()];
    for (beat_idx, spike) in spikes.into_iter().enumerate() {
        let mut least = [f32::INFINITY; LEAD_NAMES.len()];
        let mut greatest = [f32::NEG_INFINITY; LEAD_NAMES.len()];
        for (lead_idx, own) in dominant.iter().enumerate() {
            let values = own.measure(shapes.of(lead_idx, beat_idx));
            for (idx, value) in values.into_iter().enumerate() {
                (least[idx], greatest[idx]) = (least[idx].min(value), greatest[idx].max(value));
            }
        }
        let of_leads = least.into_iter().zip(greatest).flat_map(|(least, greatest)| [least, greatest]);
        let density = groups.density[beat_idx];
        let to_next = groups.to_previous.get(beat_idx + 1).copied().unwrap_or(1.0);
        let [mix_dominant, mix_other, mix_least, mix_rest] = mixture.of(shapes, beat_idx);
        let of_record: [f32; RECORD_NAMES.len()] = [
            (FLOOR + density).ln(),
            density / greatest_density,
            groups.to_dominant[beat_idx],
            groups.to_previous[beat_idx],
            to_next,
            mix_dominant,
            mix_other,
            mix_least,
            mix_rest,
            limited((FLOOR + spike).ln()),
            record_spike_log,
            record_width_ms,
        ];
        for (column, value) in columns.iter_mut().zip(of_leads.chain(of_record)) {
            column.push(value);
        }
    }
    columns
}

/// The dominant beat of one lead and what of it is needed again and again.
struct Dominant<'a> {
    shape: &'a [f32],
    /// The QRS complex less its mean, and the sum of its squares.
    qrs: Stretch<{ QRS.end - QRS.start }>,
    measured: Measured,
}

/// What is measured on a beat alone.
struct Measured {
    top: f32,
    bottom: f32,
    area: f32,
    width_ms: f32,
    slope: f32,
    p: Stretch<{ P.end - P.start }>,
    p_height: f32,
    t: Stretch<{ T.end - T.start }>,
    roughness: f32,
}

impl Measured {
    fn new(shape: &[f32]) -> Self {
        let qrs = &shape[QRS];
        let slopes = slopes(shape);
        let bends = sum_pairs(&slopes[1..], &slopes[..SHAPE_N - 2], |after, before| (after - before).abs());
        let qrs_slopes = &slopes[QRS_SLOPES];
        Self {
            top: maximum(qrs),
            bottom: minimum(qrs),
            area: sum(qrs, f32::abs) / qrs.len() as f32,
            width_ms: width_ms(&slopes),
            slope: maximum(qrs_slopes).max(-minimum(qrs_slopes)),
            p: Stretch::new(&shape[P]),
            p_height: maximum(&shape[P]) - minimum(&shape[P]),
            t: Stretch::new(&shape[T]),
            roughness: bends / (SHAPE_N - 2) as f32,
        }
    }
}

impl<'a> Dominant<'a> {
    fn new(shape: &'a [f32]) -> Self {
        Self { shape, qrs: Stretch::new(&shape[QRS]), measured: Measured::new(shape) }
    }

    /// Numbers in the order of [`LEAD_NAMES`].
    fn measure(&self, shape: &[f32]) -> [f32; LEAD_NAMES.len()] {
        let moved = self.moved_correlations(shape);
        let (mut best, mut lag_n) = (moved[LAG_MAX_N], 0usize);
        for lag in 1..=LAG_MAX_N {
            for correlation in [moved[LAG_MAX_N - lag], moved[LAG_MAX_N + lag]] {
                if correlation > best {
                    (best, lag_n) = (correlation, lag);
                }
            }
        }
        let (found, own) = (Measured::new(shape), &self.measured);
        let p_rest = root_mean_square_difference(&found.p.deviations, &own.p.deviations);
        [
            moved[LAG_MAX_N],
            best,
            lag_n as f32 * (1000.0 / WORK_HZ) as f32,
            log_ratio(found.top - found.bottom, own.top - own.bottom),
            log_ratio(found.area, own.area),
            root_mean_square_difference(&shape[QRS], &self.shape[QRS]),
            found.width_ms,
            found.width_ms - own.width_ms,
            limited(found.top - own.top),
            limited(found.bottom - own.bottom),
            log_ratio(found.slope, own.slope),
            found.p.correlation(&own.p),
            p_rest,
            log_ratio(found.p_height, own.p_height),
            log_ratio(own.p_height, p_rest),
            limited(dot(&found.p.deviations, &own.p.deviations) / (own.p.power + FLOOR * FLOOR)),
            found.t.correlation(&own.t),
            root_mean_square_difference(&shape[T], &self.shape[T]),
            limited(found.t.mean - own.t.mean),
            log_ratio(found.roughness, own.roughness),
        ]
    }

    /// Correlations with the dominant QRS complex of one that is moved by -[`LAG_MAX_N`], ..., 0, ..., [`LAG_MAX_N`] samples:
    /// all moves at once, sample by sample.
    fn moved_correlations(&self, shape: &[f32]) -> [f32; MOVE_N] {
        let (mut products, mut sums, mut squares) = ([0.0f32; MOVE_N], [0.0f32; MOVE_N], [0.0f32; MOVE_N]);
        let starts = shape[QRS.start - LAG_MAX_N..].windows(MOVE_N);
        for (own, samples) in self.qrs.deviations.iter().zip(starts) {
            for (idx, sample) in samples.iter().enumerate() {
                products[idx] += own * sample;
                sums[idx] += sample;
                squares[idx] += sample * sample;
            }
        }
        std::array::from_fn(|idx| {
            let power = squares[idx] - sums[idx] * sums[idx] / QRS.len() as f32;
            correlation(products[idx], power * self.qrs.power)
        })
    }
}

/// The QRS complex as a sum of the dominant and the commonest unlike one, by least squares over all leads.
struct Mixture<'a> {
    groups: &'a Groups,
    dominant_power: f32,
    other_power: f32,
    shared: f32,
}

impl<'a> Mixture<'a> {
    fn new(groups: &'a Groups) -> Self {
        let over_leads =
            |a: &[Vec<f32>], b: &[Vec<f32>]| -> f32 { a.iter().zip(b).map(|(a, b)| dot(&a[QRS], &b[QRS])).sum() };
        let dominant_power = over_leads(&groups.dominant, &groups.dominant);
        let other_power = groups.other.as_ref().map_or(0.0, |other| over_leads(other, other));
        let shared = groups.other.as_ref().map_or(0.0, |other| over_leads(&groups.dominant, other));
        // A little is added to the powers, so that two nearly equal shapes share what they explain.
        let ridge = 0.1 * FLOOR * (dominant_power + other_power) + f32::MIN_POSITIVE;
        Self { groups, dominant_power: dominant_power + ridge, other_power: other_power + ridge, shared }
    }

    /// `mix_dominant`, `mix_other`, `mix_least`, `mix_rest` of a beat.
    fn of(&self, shapes: &Shapes, beat_idx: usize) -> [f32; 4] {
        let (aa, bb, ab) = (self.dominant_power, self.other_power, self.shared);
        let (mut ax, mut bx, mut xx) = (0.0, 0.0, 0.0);
        for (lead_idx, dominant) in self.groups.dominant.iter().enumerate() {
            let x = &shapes.of(lead_idx, beat_idx)[QRS];
            (ax, xx) = (ax + dot(&dominant[QRS], x), xx + dot(x, x));
            if let Some(other) = &self.groups.other {
                bx += dot(&other[lead_idx][QRS], x);
            }
        }
        let determinant = (aa * bb - ab * ab).max(f32::MIN_POSITIVE);
        let (a, b) = ((ax * bb - bx * ab) / determinant, (bx * aa - ax * ab) / determinant);
        let explained = a * ax + b * bx;
        let rest = if xx > 0.0 { ((xx - explained) / xx).clamp(0.0, 1.0).sqrt() } else { 0.0 };
        [limited(a), limited(b), limited(a.min(b)), rest]
    }
}

/// A part of a shape: its mean and what differs from it.
struct Stretch<const N: usize> {
    mean: f32,
    deviations: [f32; N],
    /// The sum of the squares of the deviations.
    power: f32,
}

impl<const N: usize> Stretch<N> {
    fn new(samples: &[f32]) -> Self {
        let mean = sum(samples, |sample| sample) / N as f32;
        let deviations = std::array::from_fn(|idx| samples[idx] - mean);
        Self { mean, power: dot(&deviations, &deviations), deviations }
    }

    fn correlation(&self, other: &Self) -> f32 {
        correlation(dot(&self.deviations, &other.deviations), self.power * other.power)
    }
}

fn limited(value: f32) -> f32 {
    if value.is_finite() { value.clamp(-LIMIT, LIMIT) } else { 0.0 }
}

fn log_ratio(value: f32, reference: f32) -> f32 {
    limited(((value + FLOOR) / (reference + FLOOR)).ln())
}

fn root_mean_square_difference(a: &[f32], b: &[f32]) -> f32 {
    limited((sum_pairs(a, b, |a, b| (a - b) * (a - b)) / a.len() as f32).sqrt())
}

/// Pearson's, of the sum of the products of both sides' deviations and of the product of the sums of their squares; 0 where a
/// side is flat.
fn correlation(covariance: f32, variances: f32) -> f32 {
    if variances > 1e-12 { (covariance / variances.sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
}

/// From each sample of a shape to the next.
pub(super) fn slopes(shape: &[f32]) -> [f32; SHAPE_N - 1] {
    std::array::from_fn(|idx| shape[idx + 1] - shape[idx])
}

/// Time between 5 and 95 % of the summed squared slope of the QRS complex, of the slopes of a shape.
pub(super) fn width_ms(slopes: &[f32; SHAPE_N - 1]) -> f32 {
    let mut total = 0.0;
    let sums: [f32; QRS_SLOPES.end - QRS_SLOPES.start] = std::array::from_fn(|idx| {
        total += slopes[QRS_SLOPES.start + idx] * slopes[QRS_SLOPES.start + idx];
        total
    });
    let below = |part: f32| sums.iter().map(|sum| u16::from(*sum < part * total)).sum::<u16>();
    f32::from(below(0.95) - below(0.05)) * (1000.0 / WORK_HZ) as f32
}
