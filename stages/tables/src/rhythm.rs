//! Owns the rhythm features of one record: what its R-peak positions alone say about each beat.
//!
//! Nothing here looks at a label or at the signal, so the same numbers can be had from any recording. Every length is
//! counted in seconds or as a logarithm of a ratio, so the sampling frequency does not matter (guarded by
//! `tests::sampling_frequency_does_not_matter`).
//!
//! Notation: `p` is the natural logarithm of the RR interval before a beat, `q` of the one after it, both from
//! intervals clipped to [`RR_MIN_S`]..[`RR_MAX_S`]. A median or quantile "of the record" is over all `p`; a "local" one
//! is over the `p` of the beat and of so many neighbours on each side (fewer at the ends of the record).
//!
//! Why an upper quantile beside the median: where premature beats are the majority of a stretch or of a whole record
//! (MIT-BIH 232 is a regular run of atrial premature beats), the median is itself premature, and only the long
//! intervals show the patient's own rhythm.

use polars::{
    polars_compute::rolling::{RollingQuantileParams, no_nulls::rolling_quantile},
    prelude::*,
};

/// Shorter intervals count as this long: 300 beats a minute, beyond any human ventricular rate that an ECG resolves.
pub const RR_MIN_S: f64 = 0.2;
/// Longer intervals count as this long: a pause of 3 s is significant whatever its length (the usual Holter limit), and
/// lost signal can make intervals of any length.
pub const RR_MAX_S: f64 = 3.0;
/// The interval of a record with a single beat, which has none: 60 beats a minute.
pub const RR_UNKNOWN_S: f64 = 1.0;
/// Neighbours on each side of the short local stretch: about 15 s.
pub const SHORT_BEAT_N: usize = 10;
/// Neighbours on each side of the long local stretch: about 40 s.
pub const LONG_BEAT_N: usize = 25;
/// Keeps the logarithm of an irregularity finite: one hundredth, in units of `p`, is 1 % of an interval.
pub const IRREGULARITY_FLOOR: f64 = 0.01;

/// Names of the features, in column order. `_s` is seconds; `_log` is a difference of logarithms, 0 when equal.
///
/// | name | what | source |
/// |---|---|---|
/// | `rr_before_s` | RR interval before the beat, clipped | de Chazal 2004: pre-RR |
/// | `rr_after_s` | RR interval after the beat, clipped | de Chazal 2004: post-RR |
/// | `rr_before_over_after_log` | `p - q`: below 0 for a premature beat with a pause after it | the two above as one ratio |
/// | `rr_before_over_previous_log` | `p` minus the `p` of the beat before | successive intervals as a ratio |
/// | `rr_before_over_record_median_log` | `p` minus the record's median | de Chazal 2004: average RR, here a median |
/// | `rr_after_over_record_median_log` | `q` minus the record's median | the same |
/// | `rr_before_over_record_q90_log` | `p` minus the record's 90 % quantile | see the module |
/// | `rr_before_over_short_median_log` | `p` minus the median of ±10 beats | de Chazal 2004: local RR of ten beats |
/// | `rr_before_over_long_median_log` | `p` minus the median of ±25 beats | the same over a longer stretch |
/// | `rr_before_over_short_q90_log` | `p` minus the 90 % quantile of ±10 beats | see the module |
/// | `rr_before_over_long_q90_log` | `p` minus the 90 % quantile of ±25 beats | see the module |
/// | `rr_after_over_short_q90_log` | `q` minus the 90 % quantile of ±10 beats | see the module |
/// | `rr_after_over_long_q90_log` | `q` minus the 90 % quantile of ±25 beats | see the module |
/// | `rr_irregularity_long_log` | ln(0.01 + median of the absolute steps of `p`) over ±25 beats: high in atrial fibrillation | RMSSD with a median for the mean |
/// | `rr_spread_long_log` | 90 % minus 10 % quantile of `p` over ±25 beats | the same, without regard to order |
/// | `rr_irregularity_record_log` | the irregularity of the whole record | the same |
pub const NAMES: [&str; 16] = [
    "rr_before_s",
    "rr_after_s",
    "rr_before_over_after_log",
    "rr_before_over_previous_log",
    "rr_before_over_record_median_log",
    "rr_after_over_record_median_log",
    "rr_before_over_record_q90_log",
    "rr_before_over_short_median_log",
    "rr_before_over_long_median_log",
    "rr_before_over_short_q90_log",
    "rr_before_over_long_q90_log",
    "rr_after_over_short_q90_log",
    "rr_after_over_long_q90_log",
    "rr_irregularity_long_log",
    "rr_spread_long_log",
    "rr_irregularity_record_log",
];

/// The features of every beat of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct RhythmFeatures {
    /// One column for each of [`NAMES`], one entry a beat, always finite.
    pub columns: Vec<Vec<f32>>,
}

/// Why there are no features.
#[derive(Debug, thiserror::Error)]
pub enum RhythmError {
    /// Positions must be in time order.
    #[error("beat {beat_idx} is at sample {sample_idx}, before the beat that precedes it in the list: sort the beats")]
    Order {
        /// The beat at fault.
        beat_idx: usize,
        /// Its position.
        sample_idx: i64,
    },
    /// Positions need a time scale.
    #[error("the sampling frequency is {0} Hz, not a positive number")]
    SamplingFrequency(f64),
    /// Polars refused.
    #[error("the RR table is malformed: {0}")]
    Frame(#[from] PolarsError),
}

/// Computes the features of R-peaks at `sample_idx`, in time order.
///
/// The first beat has no interval before it and the last one none after it: they count as the record's median interval,
/// so that all their ratios to the record are neutral. Beats at one position count as [`RR_MIN_S`] apart.
///
/// # Errors
/// [`RhythmError::Order`] and [`RhythmError::SamplingFrequency`] for input without a meaning.
pub fn rhythm_features(sample_idx: &[i64], sampling_frequency_hz: f64) -> Result<RhythmFeatures, RhythmError> {
    if !(sampling_frequency_hz.is_finite() && sampling_frequency_hz > 0.0) {
        return Err(RhythmError::SamplingFrequency(sampling_frequency_hz));
    }
    if let Some(before) = sample_idx.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(RhythmError::Order { beat_idx: before + 1, sample_idx: sample_idx[before + 1] });
    }
    let Some(first_idx) = sample_idx.first() else {
        return Ok(RhythmFeatures { columns: vec![Vec::new(); NAMES.len()] });
    };

    // Whole numbers are subtracted before the division, so that an interval does not depend on where in the record it
    // is.
    let position = Int64Chunked::from_slice("sample_idx".into(), sample_idx);
    let previous = position.shift_and_fill(1, Some(*first_idx));
    let step = &position - &previous;
    let intervals: Vec<f64> = step
        .into_no_null_iter()
        .skip(1)
        .map(|step_n| (step_n as f64 / sampling_frequency_hz).clamp(RR_MIN_S, RR_MAX_S).ln())
        .collect();
    let intervals = Float64Chunked::from_vec("ln_rr".into(), intervals);
    let median = quantile(&intervals, 0.5)?.unwrap_or_else(|| RR_UNKNOWN_S.ln());
    let record_q90 = quantile(&intervals, 0.9)?.unwrap_or(median);

    let mut before = Float64Chunked::from_slice("p".into(), &[median]);
    before.append(&intervals)?;
    let before = before.rechunk().into_owned();
    let mut after = intervals.clone();
    after.append(&Float64Chunked::from_slice("q".into(), &[median]))?;
    let after = after.rechunk().into_owned();
    let previous = before.shift_and_fill(1, Some(median));

    // The step into the first beat and the one out of its stand-in interval are not real: both count as regular.
    let real = before.len().saturating_sub(2);
    let steps: Vec<f64> =
        before.into_no_null_iter().zip(previous.into_no_null_iter()).map(|(p, p_1)| (p - p_1).abs()).collect();
    let record_step = quantile(&Float64Chunked::from_slice("steps".into(), &steps[steps.len() - real..]), 0.5)?;
    let record_irregularity = (IRREGULARITY_FLOOR + record_step.unwrap_or(0.0)).ln();
    let local_irregularity = rolling(&steps, LONG_BEAT_N, 0.5)?.apply_values(|step| (IRREGULARITY_FLOOR + step).ln());

    let p: &[f64] = before.cont_slice()?;
    let short_median = rolling(p, SHORT_BEAT_N, 0.5)?;
    let short_q90 = rolling(p, SHORT_BEAT_N, 0.9)?;
    let long_median = rolling(p, LONG_BEAT_N, 0.5)?;
    let long_q90 = rolling(p, LONG_BEAT_N, 0.9)?;
    let long_q10 = rolling(p, LONG_BEAT_N, 0.1)?;

    let columns: [Float64Chunked; NAMES.len()] = [
        before.apply_values(f64::exp),
        after.apply_values(f64::exp),
        &before - &after,
        &before - &previous,
        &before - median,
        &after - median,
        &before - record_q90,
        &before - &short_median,
        &before - &long_median,
        &before - &short_q90,
        &before - &long_q90,
        &after - &short_q90,
        &after - &long_q90,
        local_irregularity,
        &long_q90 - &long_q10,
        Float64Chunked::full("irregularity".into(), record_irregularity, before.len()),
    ];
    let to_f32 = |column: &Float64Chunked| column.into_no_null_iter().map(|value| value as f32).collect();
    Ok(RhythmFeatures { columns: columns.iter().map(to_f32).collect() })
}

/// A quantile with linear interpolation; `None` of no values.
fn quantile(values: &Float64Chunked, probability: f64) -> PolarsResult<Option<f64>> {
    ChunkQuantile::quantile(values, probability, QuantileMethod::Linear)
}

/// The quantile over each value and `beat_n` neighbours on each side.
fn rolling(values: &[f64], beat_n: usize, probability: f64) -> PolarsResult<Float64Chunked> {
    let parameters =
        RollingFnParams::Quantile(RollingQuantileParams { prob: probability, method: QuantileMethod::Linear });
    let quantiles = rolling_quantile(values, 2 * beat_n + 1, 1, true, None, Some(parameters))?;
    Series::from_arrow("quantile".into(), quantiles)?.f64().cloned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn column<'a>(features: &'a RhythmFeatures, name: &str) -> &'a [f32] {
        &features.columns[NAMES.iter().position(|known| *known == name).unwrap()]
    }

    /// Positions at 1000 Hz of a rhythm of 800 ms with one beat 300 ms early and a compensatory pause.
    fn premature() -> Vec<i64> {
        let mut positions: Vec<i64> = (0..60).map(|beat| beat * 800).collect();
        positions[30] -= 300;
        positions
    }

    #[test]
    fn a_premature_beat_stands_out() {
        let features = rhythm_features(&premature(), 1000.0).unwrap();
        let at = |name: &str| f64::from(column(&features, name)[30]);
        let close = |name: &str, expected: f64| {
            assert!((at(name) - expected).abs() < 1e-6, "{name} is {}, not {expected}", at(name));
        };
        close("rr_before_s", 0.5);
        close("rr_after_s", 1.1);
        close("rr_before_over_after_log", (0.5f64 / 1.1).ln());
        close("rr_before_over_previous_log", (0.5f64 / 0.8).ln());
        close("rr_after_over_record_median_log", (1.1f64 / 0.8).ln());
        close("rr_irregularity_long_log", 0.01f64.ln());
        close("rr_irregularity_record_log", 0.01f64.ln());
        close("rr_spread_long_log", 0.0);
        for reference in ["record_median", "record_q90", "short_median", "long_median", "short_q90", "long_q90"] {
            close(&format!("rr_before_over_{reference}_log"), (0.5f64 / 0.8).ln());
        }
        for quiet in [5, 29, 33, 59] {
            assert_eq!(column(&features, "rr_before_over_record_median_log")[quiet], 0.0, "beat {quiet}");
        }
    }

    #[test]
    fn where_premature_beats_are_the_majority_only_the_upper_quantile_sees_them() {
        let mut positions = vec![0i64];
        for beat in 0..200 {
            let step = if beat % 5 == 4 { 1200 } else { 700 };
            positions.push(positions[beat] + step);
        }
        let features = rhythm_features(&positions, 1000.0).unwrap();
        assert_eq!(column(&features, "rr_before_over_record_median_log")[101], 0.0);
        let seen = f64::from(column(&features, "rr_before_over_record_q90_log")[101]);
        assert!((seen - (700.0f64 / 1200.0).ln()).abs() < 1e-6, "{seen}");
    }

    #[test]
    fn sampling_frequency_does_not_matter() {
        let positions = premature();
        let twice: Vec<i64> = positions.iter().map(|position| position * 2).collect();
        let shifted: Vec<i64> = positions.iter().map(|position| position + 123_456).collect();
        let features = rhythm_features(&positions, 1000.0).unwrap();
        assert_eq!(features, rhythm_features(&twice, 2000.0).unwrap());
        assert_eq!(features, rhythm_features(&shifted, 1000.0).unwrap());
        // A frequency that does not divide the intervals moves every position by less than half a sample.
        let coarse: Vec<i64> = positions.iter().map(|position| (*position as f64 * 0.36).round() as i64).collect();
        let coarse = rhythm_features(&coarse, 360.0).unwrap();
        for (name, (fine, coarse)) in NAMES.iter().zip(features.columns.iter().zip(&coarse.columns)) {
            if !name.contains("irregularity") {
                assert!(fine.iter().zip(coarse).all(|(fine, coarse)| (fine - coarse).abs() < 0.01), "{name}");
            }
        }
    }

    #[test]
    fn ends_and_short_records_are_neutral_and_finite() {
        for beat_n in [0usize, 1, 2, 3, 5, 60] {
            let positions: Vec<i64> = (0..beat_n as i64).map(|beat| beat * 300).collect();
            let features = rhythm_features(&positions, 360.0).unwrap();
            assert_eq!(features.columns.len(), NAMES.len());
            assert!(features.columns.iter().all(|column| column.len() == beat_n));
            assert!(features.columns.iter().flatten().all(|value| value.is_finite()), "{beat_n} beats");
        }
        let features = rhythm_features(&[7], 360.0).unwrap();
        assert_eq!((column(&features, "rr_before_s"), column(&features, "rr_after_s")), (&[1.0][..], &[1.0][..]));
        let features = rhythm_features(&premature(), 1000.0).unwrap();
        assert!((column(&features, "rr_before_s")[0] - 0.8).abs() < 1e-6);
        assert!((column(&features, "rr_after_s")[59] - 0.8).abs() < 1e-6);
    }

    #[test]
    fn extreme_positions_stay_finite_and_clipped() {
        let features = rhythm_features(&[0, 0, 1, i64::from(i32::MAX), 1 << 60], 360.0).unwrap();
        let before: Vec<f32> = column(&features, "rr_before_s").iter().map(|rr| (rr * 1e5).round() / 1e5).collect();
        assert_eq!(before[1..], [0.2, 0.2, 3.0, 3.0]);
        assert!(features.columns.iter().flatten().all(|value| value.is_finite()));
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        let error = rhythm_features(&[0, 100, 90], 360.0).unwrap_err().to_string();
        assert_eq!(error, "beat 2 is at sample 90, before the beat that precedes it in the list: sort the beats");
        for frequency in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(rhythm_features(&[0, 100], frequency).is_err(), "{frequency} Hz");
        }
    }
}
