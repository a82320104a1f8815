//! Scales every window to [0, 1] and keeps beside it what that takes away.
//!
//! Method: minimum to 0, maximum to 1, beat by beat, as the networks trained on 187-sample beats expect (Kachuee et al.
//! 2018). It makes the classifier blind to gain, offset and baseline wander, but also to amplitude, which tells a
//! ventricular beat from its neighbours: hence `minimum_mv`, `range_mv` and the record's median range.
//!
//! Invariant: every sample is in [0, 1]; a window that is not flat holds a 0 and a 1
//! (`tests::scales_to_the_unit_interval`). A window is scaled by itself, so that one record is enough for inference.

use ecgpipe_sdk::{
    Context, Each, FactProblem, NormalisedWindows, Place, Stage, StageError, StageFacts, Windows, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scales every window to [0, 1].
pub struct Normalise;

/// There is nothing to choose.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {}

ports! {
    /// What it takes.
    pub struct Inputs {
        /// One window a beat, in mV.
        pub windows: Each<Windows>,
    }
}

ports! {
    /// What it gives.
    pub struct Outputs {
        /// The same windows in [0, 1], with minimum and range.
        pub windows: Each<NormalisedWindows>,
    }
}

impl Stage for Normalise {
    const NAME: &'static str = "normalise";
    const SUMMARY: &'static str = "scales every window to [0, 1] and keeps its minimum and range in mV";

    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        if let Some(unit) = facts.get("windows", names::UNIT).filter(|unit| *unit.value != "mV") {
            let message = format!("`{}` has {}, not in mV", facts.from("windows"), names::UNIT.read(&unit.value));
            let problem = FactProblem::error(Place::Port("windows"), message).because(names::UNIT, unit);
            facts.tell(problem.help("scale windows once, and from mV: minimum and range are kept in that unit"));
        }
        facts.pass("windows", "windows");
        facts.set("windows", names::UNIT, "[0, 1]");
        facts.set("windows", names::NORMALISATION, "minimum and maximum, beat by beat");
    }

    fn run(_: &Params, inputs: Inputs, _: &Context<'_>) -> Result<Outputs, StageError> {
        Ok(Outputs { windows: Each::new(min_max(&inputs.windows)) })
    }
}

/// Scales every window: its minimum becomes 0, its maximum 1; a flat window becomes 0 with a range of 0.
///
/// Samples are finite numbers, as the `window` stage gives them. The record's range is the median over its windows (the
/// mean of the middle two), 0 for a record without windows.
#[must_use]
pub fn min_max(windows: &Windows) -> NormalisedWindows {
    let beat_n = windows.beat_n();
    let mut samples = Vec::with_capacity(windows.samples.len());
    let (mut minimum_mv, mut range_mv) = (Vec::with_capacity(beat_n), Vec::with_capacity(beat_n));
    for row_idx in 0..beat_n {
        let window = windows.window(row_idx);
        let (minimum, maximum) = extremes(window);
        let range = maximum - minimum;
        // A range too small for a division to stay finite is no signal either.
        if range >= f32::MIN_POSITIVE {
            samples.extend(window.iter().map(|sample| (sample - minimum) / range));
        } else {
            samples.resize(samples.len() + window.len(), 0.0);
        }
        minimum_mv.push(minimum);
        range_mv.push(if range >= f32::MIN_POSITIVE { range } else { 0.0 });
    }
    let record_range_mv = median(range_mv.clone());
    let windows = Windows {
        record: windows.record.clone(),
        patient: windows.patient.clone(),
        lead: windows.lead.clone(),
        sampling_frequency_hz: windows.sampling_frequency_hz,
        length_n: windows.length_n,
        before_n: windows.before_n,
        beat_idx: windows.beat_idx.clone(),
        sample_idx: windows.sample_idx.clone(),
        symbol: windows.symbol.clone(),
        samples,
    };
    NormalisedWindows { windows, minimum_mv, range_mv, record_range_mv }
}

/// Minimum and maximum; eight at a time, so that the compiler may use vector instructions.
fn extremes(window: &[f32]) -> (f32, f32) {
    let Some(&first) = window.first() else { return (0.0, 0.0) };
    let (mut low, mut high) = ([first; 8], [first; 8]);
    let rows = window.chunks_exact(8);
    let (mut minimum, mut maximum) = (first, first);
    for &sample in rows.remainder() {
        (minimum, maximum) = (lower(minimum, sample), higher(maximum, sample));
    }
    for row in rows {
        for lane in 0..8 {
            low[lane] = lower(low[lane], row[lane]);
            high[lane] = higher(high[lane], row[lane]);
        }
    }
    (low.into_iter().fold(minimum, lower), high.into_iter().fold(maximum, higher))
}

// `f32::min` and `f32::max` treat NaN apart, which keeps them off the vector instructions.
fn lower(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

fn higher(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

fn median(mut values: Vec<f32>) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    if !even {
        return upper;
    }
    let lower = below.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    lower + (upper - lower) / 2.0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ecgpipe_sdk::RecordId;
    use proptest::prelude::*;

    use super::*;

    fn windows(length_n: usize, samples: Vec<f32>) -> Windows {
        let beat_n = samples.len() / length_n;
        Windows {
            record: RecordId::new("100").unwrap(),
            patient: "100".to_owned(),
            lead: "MLII".to_owned(),
            sampling_frequency_hz: 360.0,
            length_n,
            before_n: 0,
            beat_idx: (0..beat_n as i64).collect(),
            sample_idx: (0..beat_n as i64).collect(),
            symbol: vec![None; beat_n],
            samples,
        }
    }

    #[test]
    fn keeps_what_scaling_takes_away() {
        let normalised = min_max(&windows(3, vec![-1.0, 0.0, 3.0, 5.0, 5.0, 5.0, 0.5, 0.25, 0.0]));
        assert_eq!(normalised.windows.samples, [0.0, 0.25, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0]);
        assert_eq!(normalised.minimum_mv, [-1.0, 5.0, 0.0]);
        assert_eq!(normalised.range_mv, [4.0, 0.0, 0.5]);
        assert_eq!(normalised.record_range_mv, 0.5);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 100.0]), 3.5);
        assert_eq!(median(vec![2.0]), 2.0);
        assert_eq!(min_max(&windows(3, Vec::new())).record_range_mv, 0.0);
    }

    proptest! {
        #[test]
        fn scales_to_the_unit_interval(samples in prop::collection::vec(-1e6f32..1e6, 1..400)) {
            let length_n = samples.len();
            let normalised = min_max(&windows(length_n, samples.clone()));
            let scaled = normalised.windows.window(0);
            prop_assert!(scaled.iter().all(|sample| (0.0..=1.0).contains(sample)));
            let flat = samples.iter().all(|&sample| sample == samples[0]);
            prop_assert_eq!(scaled.contains(&1.0), !flat);
            prop_assert!(scaled.contains(&0.0));
            for (&sample, &scaled) in samples.iter().zip(scaled) {
                let back = normalised.minimum_mv[0] + scaled * normalised.range_mv[0];
                prop_assert!((back - sample).abs() <= 1e-6 * normalised.range_mv[0].max(sample.abs()));
            }
        }
    }
}
