//! Owns what is measured on a beat against the dominant beat of its record.
//!
//! Every measure is taken lead by lead and given as the least and the greatest over the leads, so that neither the order of
//! the leads nor their number matters. Amplitudes are in units of the record's usual QRS height, ratios are natural
//! logarithms, times are in ms. All are finite for any signal (`super::tests::any_signal_gives_finite_numbers`).

use super::{
    filter::WORK_HZ,
    groups::{Groups, dot},
    shapes::{P, QRS, SHAPE_N, Shapes, T, maximum, median, minimum, peak_to_peak},
};

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
/// | `spike_log` | ln(0.01 + height of the sharpest spike before the beat): a pacemaker's stimulus |
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
    let dominant: Vec<Dominant> = groups.dominant.iter().map(|shape| Dominant::new(shape)).collect();
    let greatest_density = groups.density.iter().copied().fold(0.0, f32::max).max(f32::MIN_POSITIVE);
    let spike = |beat_idx: usize| shapes.spikes.iter().map(|lead| lead[beat_idx]).fold(0.0, f32::max);
    let spikes: Vec<f32> = (0..shapes.beat_n).map(spike).collect();
    let record_spike = median(&mut spikes.clone());
    let record_width_ms = dominant.iter().map(|own| own.width_ms).fold(f32::INFINITY, f32::min);
    let column_n = 2 * LEAD_NAMES.len() + RECORD_NAMES.len();
    let mut columns = vec![Vec::with_capacity(shapes.beat_n); column_n];
    for (beat_idx, spike) in spikes.into_iter().enumerate() {
        let mut row = Vec::with_capacity(column_n);
        let leads: Vec<[f32; LEAD_NAMES.len()]> =
            dominant.iter().enumerate().map(|(lead_idx, own)| own.measure(shapes.of(lead_idx, beat_idx))).collect();
        for idx in 0..LEAD_NAMES.len() {
            let values = || leads.iter().map(|lead| lead[idx]);
            row.push(values().fold(f32::INFINITY, f32::min));
            row.push(values().fold(f32::NEG_INFINITY, f32::max));
        }
        let density = groups.density[beat_idx];
        let to_next = groups.to_previous.get(beat_idx + 1).copied().unwrap_or(1.0);
        row.extend([(FLOOR + density).ln(), density / greatest_density, groups.to_dominant[beat_idx]]);
        row.extend([groups.to_previous[beat_idx], to_next]);
        row.extend(mixture(shapes, groups, beat_idx));
        row.extend([limited((FLOOR + spike).ln()), limited((FLOOR + record_spike).ln()), record_width_ms]);
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

/// The dominant beat of one lead and what of it is needed again and again.
struct Dominant<'a> {
    shape: &'a [f32],
    height: f32,
    area: f32,
    width_ms: f32,
    slope: f32,
    p_height: f32,
    p_deviations: Vec<f32>,
    p_power: f32,
    roughness: f32,
}

impl<'a> Dominant<'a> {
    fn new(shape: &'a [f32]) -> Self {
        let qrs = &shape[QRS];
        let p_deviations = less_mean(&shape[P]);
        Self {
            shape,
            height: peak_to_peak(qrs),
            area: mean_absolute(qrs),
            width_ms: width_ms(qrs),
            slope: steepest(qrs),
            p_height: peak_to_peak(&shape[P]),
            p_power: dot(&p_deviations, &p_deviations),
            p_deviations,
            roughness: roughness(shape),
        }
    }

    /// Numbers in the order of [`LEAD_NAMES`].
    fn measure(&self, shape: &[f32]) -> [f32; LEAD_NAMES.len()] {
        let own_qrs = &self.shape[QRS];
        let qrs = &shape[QRS];
        let same_place = correlation(qrs, own_qrs);
        let (mut best, mut lag_n) = (same_place, 0usize);
        for lag in 1..=LAG_MAX_N {
            for start in [QRS.start - lag, QRS.start + lag] {
                let moved = correlation(&shape[start..start + QRS.len()], own_qrs);
                if moved > best {
                    (best, lag_n) = (moved, lag);
                }
            }
        }
        let width_ms = width_ms(qrs);
        let p = &shape[P];
        let p_deviations = less_mean(p);
        let p_rest: Vec<f32> = p_deviations.iter().zip(&self.p_deviations).map(|(a, b)| a - b).collect();
        let p_rest_rms = root_mean_square(&p_rest);
        [
            same_place,
            best,
            lag_n as f32 * (1000.0 / WORK_HZ) as f32,
            log_ratio(peak_to_peak(qrs), self.height),
            log_ratio(mean_absolute(qrs), self.area),
            difference(qrs, own_qrs),
            width_ms,
            width_ms - self.width_ms,
            limited(maximum(qrs) - maximum(own_qrs)),
            limited(minimum(qrs) - minimum(own_qrs)),
            log_ratio(steepest(qrs), self.slope),
            correlation(p, &self.shape[P]),
            limited(p_rest_rms),
            log_ratio(peak_to_peak(p), self.p_height),
            log_ratio(self.p_height, p_rest_rms),
            limited(dot(&p_deviations, &self.p_deviations) / (self.p_power + FLOOR * FLOOR)),
            correlation(&shape[T], &self.shape[T]),
            difference(&shape[T], &self.shape[T]),
            limited(mean(&shape[T]) - mean(&self.shape[T])),
            log_ratio(roughness(shape), self.roughness),
        ]
    }
}

/// The QRS complex as a sum of the dominant and the commonest unlike one, by least squares over all leads: `mix_dominant`,
/// `mix_other`, `mix_least`, `mix_rest`.
fn mixture(shapes: &Shapes, groups: &Groups, beat_idx: usize) -> [f32; 4] {
    let (mut aa, mut ab, mut bb, mut ax, mut bx, mut xx) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (lead_idx, dominant) in groups.dominant.iter().enumerate() {
        let (a, x) = (&dominant[QRS], &shapes.of(lead_idx, beat_idx)[QRS]);
        (aa, ax, xx) = (aa + dot(a, a), ax + dot(a, x), xx + dot(x, x));
        if let Some(other) = &groups.other {
            let b = &other[lead_idx][QRS];
            (ab, bb, bx) = (ab + dot(a, b), bb + dot(b, b), bx + dot(b, x));
        }
    }
    // A little is added to the diagonal, so that two nearly equal shapes share what they explain.
    let ridge = 0.1 * FLOOR * (aa + bb) + f32::MIN_POSITIVE;
    let (aa, bb) = (aa + ridge, bb + ridge);
    let determinant = (aa * bb - ab * ab).max(f32::MIN_POSITIVE);
    let (a, b) = ((ax * bb - bx * ab) / determinant, (bx * aa - ax * ab) / determinant);
    let explained = a * ax + b * bx;
    let rest = if xx > 0.0 { ((xx - explained) / xx).clamp(0.0, 1.0).sqrt() } else { 0.0 };
    [limited(a), limited(b), limited(a.min(b)), rest]
}

fn limited(value: f32) -> f32 {
    if value.is_finite() { value.clamp(-LIMIT, LIMIT) } else { 0.0 }
}

fn log_ratio(value: f32, reference: f32) -> f32 {
    limited(((value + FLOOR) / (reference + FLOOR)).ln())
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

fn mean_absolute(values: &[f32]) -> f32 {
    values.iter().map(|value| value.abs()).sum::<f32>() / values.len() as f32
}

fn root_mean_square(values: &[f32]) -> f32 {
    (dot(values, values) / values.len() as f32).sqrt()
}

fn less_mean(values: &[f32]) -> Vec<f32> {
    let mean = mean(values);
    values.iter().map(|value| value - mean).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    limited((sum / a.len() as f32).sqrt())
}

/// Pearson's correlation; 0 where a side is flat.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len() as f32;
    let (sum_a, sum_b) = (a.iter().sum::<f32>(), b.iter().sum::<f32>());
    let covariance = dot(a, b) - sum_a * sum_b / n;
    let variances = (dot(a, a) - sum_a * sum_a / n) * (dot(b, b) - sum_b * sum_b / n);
    if variances > 1e-12 { (covariance / variances.sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
}

fn steepest(values: &[f32]) -> f32 {
    values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
}

/// Time between 5 and 95 % of the summed squared slope.
pub(super) fn width_ms(qrs: &[f32]) -> f32 {
    let energies = || qrs.windows(2).map(|pair| (pair[1] - pair[0]) * (pair[1] - pair[0]));
    let total: f32 = energies().sum();
    let (mut sum, mut start, mut end) = (0.0, 0, 0);
    for (idx, energy) in energies().enumerate() {
        sum += energy;
        if sum < 0.05 * total {
            start = idx + 1;
        }
        if sum < 0.95 * total {
            end = idx + 1;
        }
    }
    (end - start) as f32 * (1000.0 / WORK_HZ) as f32
}

fn roughness(shape: &[f32]) -> f32 {
    let second = shape.windows(3).map(|three| (three[0] - 2.0 * three[1] + three[2]).abs());
    second.sum::<f32>() / (SHAPE_N - 2) as f32
}
