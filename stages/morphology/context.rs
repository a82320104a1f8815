//! Owns what a beat is like among its neighbours and in its record: its RR interval against those of conducted beats alone,
//! and how regular rhythm and P waves are around it.
//!
//! The features of `rhythm` know positions alone, so that after every ventricular premature beat the pause counts as the
//! patient's own rhythm, and its neighbours look early. Here only intervals between two beats that look like the dominant one
//! count: where supraventricular premature beats are many, their early intervals still do, and an upper quantile tells them
//! from the patient's own.
//!
//! It must not know samples of the signal, nor any label.

use super::groups::Groups;

/// Names in column order. `p` and `q` are the natural logarithms of the RR intervals before and after the beat; a
/// *conducted* interval lies between two beats whose cosine to the dominant beat is [`CONDUCTED`] or more.
///
/// | name | what |
/// |---|---|
/// | `rr_before_over_conducted_q90_log` | `p` less the 90 % quantile of the record's conducted intervals |
/// | `rr_before_over_conducted_median_log` | the same with the median |
/// | `rr_after_over_conducted_median_log` | `q` less that median |
/// | `rr_before_over_conducted_long_q90_log` | `p` less the 90 % quantile of the 51 nearest conducted intervals |
/// | `rr_pair_over_conducted_median_log` | mean of both intervals over that median: 0 after a full compensatory pause |
/// | `rr_irregularity_conducted_log` | ln(0.01 + median step between conducted intervals that follow one another) near the beat |
/// | `early_share_around` | share of the 21 beats around whose interval is below 0.8 of the nearby 90 % quantile |
/// | `p_correlation_around` | mean of `p_correlation_max` over the 21 beats around: P waves that come and go |
/// | `p_projection_around` | the same of `p_projection_max` |
/// | `cosine_to_dominant_around` | the same of `cosine_to_dominant` |
/// | `record_p_correlation` | median of `p_correlation_max` over the record: low in atrial fibrillation |
/// | `record_irregularity_conducted_log` | as above, over the record |
const NAMES: [&str; 12] = [
    "rr_before_over_conducted_q90_log",
    "rr_before_over_conducted_median_log",
    "rr_after_over_conducted_median_log",
    "rr_before_over_conducted_long_q90_log",
    "rr_pair_over_conducted_median_log",
    "rr_irregularity_conducted_log",
    "early_share_around",
    "p_correlation_around",
    "p_projection_around",
    "cosine_to_dominant_around",
    "record_p_correlation",
    "record_irregularity_conducted_log",
];

/// From this cosine to the dominant beat on, a beat was conducted as it was.
const CONDUCTED: f32 = 0.8;
/// Beats on each side that count as around.
const AROUND_BEAT_N: usize = 10;
/// Conducted intervals on each side that count as near.
const NEAR_INTERVAL_N: usize = 25;
/// With fewer conducted intervals in the record, all intervals count.
const LEAST_INTERVAL_N: usize = 8;
/// Early is below this part of the nearby 90 % quantile.
const EARLY_LOG: f32 = -0.223;
/// Keeps logarithms of steps finite.
const FLOOR: f32 = 0.01;
/// Farthest that an interval counts from the record's usual one, as a logarithm.
const LIMIT_LOG: f32 = 2.0;

/// All names, in column order.
pub(super) fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| (*name).to_owned())
}

/// Columns of the measures that are averaged here.
pub(super) struct Measured<'a> {
    pub(super) p_correlation: &'a [f32],
    pub(super) p_projection: &'a [f32],
}

/// One column for each of [`NAMES`]. `positions` are those of the R-peaks, in samples of any frequency.
pub(super) fn columns(positions: &[i64], groups: &Groups, measured: &Measured<'_>) -> Vec<Vec<f32>> {
    let beat_n = positions.len();
    let like = &groups.to_dominant;
    // The interval before beat idx + 1 is at idx.
    let logs: Vec<f32> = positions.windows(2).map(|pair| ((pair[1] - pair[0]).max(1) as f32).ln()).collect();
    let mut conducted: Vec<usize> =
        (0..logs.len()).filter(|&idx| like[idx] >= CONDUCTED && like[idx + 1] >= CONDUCTED).collect();
    if conducted.len() < LEAST_INTERVAL_N {
        conducted = (0..logs.len()).collect();
    }
    let values: Vec<f32> = conducted.iter().map(|&idx| logs[idx]).collect();
    let median = quantile(&mut values.clone(), 0.5);
    let q90 = quantile(&mut values.clone(), 0.9);
    // The step into a conducted interval from the one before, where that is conducted too.
    let step = |place: usize| {
        let follows = place > 0 && conducted[place] == conducted[place - 1] + 1;
        follows.then(|| (values[place] - values[place - 1]).abs())
    };
    let steps: Vec<Option<f32>> = (0..values.len()).map(step).collect();
    let irregularity = |steps: &[Option<f32>]| {
        let mut known: Vec<f32> = steps.iter().copied().flatten().collect();
        (FLOOR + quantile(&mut known, 0.5)).ln()
    };
    let record_irregularity = irregularity(&steps);

    // Near the beat: the window over conducted intervals slides with it.
    let near = |beat_idx: usize| {
        let place = conducted.partition_point(|&idx| idx + 1 < beat_idx);
        place.saturating_sub(NEAR_INTERVAL_N)..(place + NEAR_INTERVAL_N + 1).min(conducted.len())
    };
    let before = |idx: usize| idx.checked_sub(1).map_or(median, |idx| logs[idx]);
    let after = |idx: usize| logs.get(idx).copied().unwrap_or(median);
    let limited = |value: f32| value.clamp(-LIMIT_LOG, LIMIT_LOG);
    let mut columns = vec![Vec::with_capacity(beat_n); NAMES.len()];
    let mut early = Vec::with_capacity(beat_n);
    for beat_idx in 0..beat_n {
        let near = near(beat_idx);
        let near_q90 = if near.is_empty() { median } else { quantile(&mut values[near.clone()].to_vec(), 0.9) };
        let (p, q) = (before(beat_idx), after(beat_idx));
        let pair = f32::midpoint(p.exp(), q.exp()).ln() - median;
        early.push(f32::from(u8::from(p - near_q90 < EARLY_LOG)));
        let row = [p - q90, p - median, q - median, p - near_q90, pair].map(limited);
        for (column, value) in columns.iter_mut().zip(row.into_iter().chain([irregularity(&steps[near])])) {
            column.push(value);
        }
    }
    let averaged = [&early[..], measured.p_correlation, measured.p_projection, like];
    for (column, values) in columns[6..10].iter_mut().zip(averaged) {
        *column = means_around(values);
    }
    columns[10] = vec![quantile(&mut measured.p_correlation.to_vec(), 0.5); beat_n];
    columns[11] = vec![record_irregularity; beat_n];
    columns
}

/// The mean of each value and [`AROUND_BEAT_N`] neighbours on each side.
fn means_around(values: &[f32]) -> Vec<f32> {
    let mean = |idx: usize| {
        let around = &values[idx.saturating_sub(AROUND_BEAT_N)..(idx + AROUND_BEAT_N + 1).min(values.len())];
        around.iter().sum::<f32>() / around.len() as f32
    };
    (0..values.len()).map(mean).collect()
}

/// A quantile without interpolation, the lower of two; 0 of nothing.
fn quantile(values: &mut [f32], share: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let place = ((values.len() - 1) as f32 * share) as usize;
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns of beats at these times (in ms), of which those named look otherwise.
    fn of(times: &[i64], unlike: &[usize]) -> impl Fn(&str) -> Vec<f32> + use<> {
        let beat_n = times.len();
        let like = (0..beat_n).map(|idx| if unlike.contains(&idx) { 0.2 } else { 0.98 }).collect();
        let ones = vec![1.0; beat_n];
        let groups = Groups {
            dominant: Vec::new(),
            other: None,
            density: ones.clone(),
            to_dominant: like,
            to_previous: ones.clone(),
        };
        let measured = Measured { p_correlation: &ones, p_projection: &ones };
        let columns = columns(times, &groups, &measured);
        assert!(columns.iter().all(|column| column.len() == beat_n && column.iter().all(|value| value.is_finite())));
        move |name| columns[NAMES.iter().position(|known| *known == name).expect("a name")].clone()
    }

    /// Times of beats after these intervals, in ms.
    fn after(intervals: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut time = 0;
        let times = intervals.into_iter().map(|interval| {
            time += interval;
            time
        });
        std::iter::once(0).chain(times).collect()
    }

    #[test]
    fn pauses_after_ventricular_beats_are_not_the_patients_rhythm() {
        // Trigeminy: 800, 500 (V), 1100.
        let times = after((0..40).flat_map(|_| [800, 500, 1100]));
        let ventricular: Vec<usize> = (0..40).map(|idx| 3 * idx + 2).collect();
        let column = of(&times, &ventricular);
        let q90 = column("rr_before_over_conducted_q90_log");
        // The only conducted interval is that of 800 ms: beats after it are in time, and nobody is early but V.
        assert!(q90[31].abs() < 1e-6 && (q90[32] - (500.0_f32 / 800.0).ln()).abs() < 1e-6, "{q90:?}");
        let pair = column("rr_pair_over_conducted_median_log");
        assert!(pair[32].abs() < 1e-6, "the pause compensates: {}", pair[32]);
        assert!(column("early_share_around")[60] > 0.3);
    }

    #[test]
    fn where_most_beats_are_early_the_upper_quantile_tells() {
        // Runs of seven at 700 ms, then two at 1900 ms.
        let times = after((0..20).flat_map(|_| [700, 700, 700, 700, 700, 700, 700, 1900, 1900]));
        let column = of(&times, &[]);
        let (q90, median) = (column("rr_before_over_conducted_q90_log"), column("rr_before_over_conducted_median_log"));
        let early = (700.0_f32 / 1900.0).ln();
        assert!((q90[50] - early).abs() < 1e-5 && median[50].abs() < 1e-5, "{} {}", q90[50], median[50]);
        let near = column("rr_before_over_conducted_long_q90_log");
        assert!((near[50] - early).abs() < 1e-5, "{}", near[50]);
    }

    #[test]
    fn ventricular_beats_do_not_make_a_rhythm_irregular() {
        let regular = after(std::iter::repeat_n(800, 100));
        let mut with_extrasystoles = regular.clone();
        let unlike: Vec<usize> = (5..100).step_by(10).collect();
        unlike.iter().for_each(|&idx| with_extrasystoles[idx] -= 300);
        let name = "record_irregularity_conducted_log";
        assert_eq!(of(&with_extrasystoles, &unlike)(name), of(&regular, &[])(name));
        let irregular = after((0..100).map(|idx| 600 + 397 * idx % 500));
        assert!(of(&irregular, &[])(name)[0] > of(&regular, &[])(name)[0] + 2.0);
    }

    #[test]
    fn few_beats_have_finite_numbers() {
        for beat_n in 0..4 {
            of(&after(std::iter::repeat_n(800, beat_n))[..beat_n], &[])("early_share_around");
            of(&vec![7; beat_n], &[0])("early_share_around");
        }
    }
}
