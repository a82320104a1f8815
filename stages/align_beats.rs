//! `align_beats`: moves each beat to the centre of its QRS complex, so that everything cut around it is cut alike.
//!
//! Where in a QRS complex "the R-peak" is, is a convention, and not one for all: a cardiologist marks the main wave, a detector
//! the largest deflection, which in a wide or paced complex may be 100 ms away, or a pacemaker's spike. Windows and measures
//! around such a mark then show another stretch of the same beat. The centre of the QRS complex does not depend on who marked
//! it: it is where the energy of the slope is densest.
//!
//! Method: mean shift (Fukunaga & Hostetler 1975; Cheng 1995) from the mark, on the squared slope of up to two leads in the
//! band of 0.5 to 40 Hz, each in units of its own usual QRS height, under a Gaussian kernel. The kernel is wide enough to make
//! one hill of a wide QRS complex, and narrow enough not to see the T wave. A beat is moved by [`REACH_S`] at most.
//!
//! Invariants: no beat is added, lost or relabelled, and their order stays; marks anywhere in a wide QRS complex end within 20 ms
//! of its middle (`tests::marks_anywhere_in_a_wide_complex_end_at_its_middle`); gain, polarity and order of the leads do not matter. Beats that
//! the detector missed stay where the reference has them.

use ecgpipe_sdk::{Beats, Context, Each, Signals, Stage, StageError, StageFacts, ports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::check_recording,
    lead::{self, LeadReader},
    morphology::{
        filter::{LowPass, WORK_HZ, filtered_lead},
        shapes::{MAX_LEAD_N, check_lead_n, usual_height},
    },
    resample::resampled_position,
    sums::dot,
};

/// Moves beats to the centres of their QRS complexes.
pub struct AlignBeats;

/// How to find centres.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Leads by name, the best first, as in `morphology`.
    pub leads: Vec<String>,
    /// How many leads are looked at where there are more, 1 or 2; the second one is the record's next voltage.
    #[schemars(range(min = 1, max = 2))]
    pub leads_n: usize,
    /// Standard deviation of the kernel in ms: half the width of the widest QRS complex that shall be one.
    #[schemars(range(min = 10, max = 100))]
    pub kernel_ms: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { leads: lead::default_preference(), leads_n: MAX_LEAD_N, kernel_ms: 50.0 }
    }
}

ports! {
    /// What `align_beats` takes.
    pub struct Inputs {
        /// The recording.
        pub signals: Each<Signals>,
        /// Where the beats are; detected beats and reference beats alike.
        pub beats: Each<Beats>,
    }
}

ports! {
    /// What `align_beats` gives.
    pub struct Outputs {
        /// The same beats in the same order, each at the centre of its QRS complex.
        pub beats: Each<Beats>,
    }
}

impl Stage for AlignBeats {
    const NAME: &'static str = "align_beats";
    const SUMMARY: &'static str =
        "moves each beat to the centre of its QRS complex, so that it does not matter who marked it, or where";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        check_lead_n(params.leads_n)?;
        if !(10.0..=100.0).contains(&params.kernel_ms) {
            return Err(format!("`kernel_ms` must be 10 to 100 ms, not {}", params.kernel_ms));
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        lead::check_records(facts, "signals", &params.leads);
        facts.pass("beats", "beats");
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        Ok(Outputs { beats: Each::new(aligned(params, &inputs.signals, &inputs.beats)?) })
    }
}

/// Farthest that a beat is moved, in s: half the longest QRS complex, and a mark at its edge.
const REACH_S: f64 = 0.15;
/// The kernel ends at so many standard deviations.
const KERNEL_REACH: f64 = 3.0;
/// Steps after which a place counts as found; from a mark in the complex it takes about ten.
const STEP_N_MAX: usize = 50;
/// A step shorter than this, in working samples of 8 ms, is the last one.
const STEP_MIN: f64 = 0.02;

/// The beats, each at the centre of its QRS complex; the stage without its surroundings.
///
/// # Errors
/// If signals and beats are not of one record, no lead is a voltage, or the samples cannot be read.
pub fn aligned(params: &Params, signals: &Signals, beats: &Beats) -> Result<Beats, StageError> {
    check_recording(signals, beats)?;
    let hz = signals.sampling_frequency_hz;
    let marks: Vec<f64> = beats.beats.iter().map(|beat| resampled_position(beat.sample_idx, hz, WORK_HZ)).collect();
    let energy = slope_energy(params, signals, &marks)?;
    let deviation = params.kernel_ms / 1000.0 * WORK_HZ;
    let mut aligned = beats.clone();
    let mut least = i64::MIN;
    for (idx, (beat, &mark)) in aligned.beats.iter_mut().zip(&marks).enumerate() {
        // Half way to a neighbour, another beat begins.
        let half_way = |other: Option<&f64>| other.map_or(f64::INFINITY, |other| (other - mark).abs() / 2.0);
        let reach = REACH_S * WORK_HZ;
        let before = reach.min(half_way(idx.checked_sub(1).map(|idx| &marks[idx])));
        let after = reach.min(half_way(marks.get(idx + 1)));
        let centre = densest(&energy, mark, deviation).clamp(mark - before, mark + after);
        let sample_idx = ((centre / WORK_HZ * hz).round() as i64).clamp(0, (beats.sample_n - 1).max(0));
        beat.sample_idx = sample_idx.max(least);
        least = beat.sample_idx.saturating_add(1);
    }
    Ok(aligned)
}

/// The squared slope over all leads, each in units of its usual QRS height, one number a working sample.
fn slope_energy(params: &Params, signals: &Signals, marks: &[f64]) -> Result<Vec<f32>, StageError> {
    let mut low_pass = LowPass::of(signals)?;
    let mut energy = Vec::new();
    for lead_idx in lead::choose_several(signals, &params.leads, params.leads_n)? {
        let mut reader = LeadReader::new(signals, lead_idx);
        let samples = filtered_lead(&mut reader, signals.sample_n(), &mut low_pass)?;
        let height = usual_height(&samples, marks.iter().map(|mark| mark.round() as i64));
        energy.resize(samples.len(), 0.0);
        for (energy, pair) in energy.iter_mut().skip(1).zip(samples.windows(3)) {
            let slope = (pair[2] - pair[0]) / height;
            *energy += slope * slope;
        }
    }
    Ok(energy)
}

/// Climbs from `mark` to where the energy under a Gaussian kernel is densest.
fn densest(energy: &[f32], mark: f64, deviation: f64) -> f64 {
    let reach_n = (KERNEL_REACH * deviation).ceil() as i64;
    let mut centre = mark;
    for _ in 0..STEP_N_MAX {
        let middle = centre.round() as i64;
        let [start, end] =
            [middle - reach_n, middle + reach_n + 1].map(|idx| idx.clamp(0, energy.len() as i64) as usize);
        let weight = |idx: usize| {
            let distance = (idx as f64 - centre) / deviation;
            (-0.5 * distance * distance).exp() as f32
        };
        let offsets: Vec<f32> = (start..end).map(|idx| (idx as i64 - middle) as f32).collect();
        let weighed: Vec<f32> = (start..end).map(|idx| weight(idx) * energy[idx]).collect();
        let total: f32 = weighed.iter().sum();
        if total <= 0.0 {
            return mark;
        }
        let next = middle as f64 + f64::from(dot(&weighed, &offsets) / total);
        let step = next - centre;
        centre = next;
        if step.abs() < STEP_MIN {
            break;
        }
    }
    centre
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ecgpipe_sdk::{
        Lead, RecordId,
        kinds::{Beat, PeakSource},
    };

    use super::*;

    /// A wide QRS complex (two humps, 160 ms) and a T wave after every second, at 360 Hz; the second lead is turned over.
    fn signals(gains: [f64; 2]) -> Signals {
        let hump = |at_s: f64, width_s: f64, time_s: f64| (-0.5 * ((time_s - at_s) / width_s).powi(2)).exp();
        let voltage = |idx: usize| {
            let time_s = idx as f64 / 360.0;
            let phase_s = (time_s + 0.4).rem_euclid(1.0) - 0.4;
            hump(-0.045, 0.02, phase_s) - 0.8 * hump(0.045, 0.02, phase_s) + 0.25 * hump(0.32, 0.05, phase_s)
        };
        let lead = |name: &str, gain: f64| Lead {
            name: name.to_owned(),
            units: "mV".to_owned(),
            gain_adu_per_unit: 1000.0,
            baseline_adu: 0,
            samples: (0..10 * 360).map(|idx| (1000.0 * gain * voltage(idx)).round() as i32).collect::<Vec<_>>().into(),
        };
        Signals {
            record: RecordId::new("p1").unwrap(),
            patient: "p1".to_owned(),
            sampling_frequency_hz: 360.0,
            leads: vec![lead("MLII", gains[0]), lead("V1", gains[1])],
            comments: Vec::new(),
        }
    }

    fn beats(marks: &[i64]) -> Beats {
        Beats {
            record: RecordId::new("p1").unwrap(),
            patient: "p1".to_owned(),
            sampling_frequency_hz: 360.0,
            sample_n: 3600,
            source: PeakSource::Reference,
            beats: marks.iter().map(|&sample_idx| Beat { sample_idx, symbol: Some("N".to_owned()) }).collect(),
            missed: vec![Beat { sample_idx: 7, symbol: Some("V".to_owned()) }],
        }
    }

    fn places(signals: &Signals, marks: &[i64]) -> Vec<i64> {
        let aligned = aligned(&Params::default(), signals, &beats(marks)).unwrap();
        assert_eq!(aligned.missed, beats(marks).missed);
        aligned.beats.iter().map(|beat| beat.sample_idx).collect()
    }

    #[test]
    fn marks_anywhere_in_a_wide_complex_end_at_its_middle() {
        let signals = signals([1.0, -0.4]);
        for off in [-30, -25, -16, 0, 8, 16, 25, 30] {
            let marks: Vec<i64> = (1..9).map(|second| 360 * second + off).collect();
            for (place, second) in places(&signals, &marks).into_iter().zip(1..) {
                assert!((place - 360 * second).abs() <= 7, "mark {off} samples off: {}", place - 360 * second);
            }
        }
    }

    #[test]
    fn gain_polarity_and_order_of_leads_do_not_matter() {
        let marks: Vec<i64> = (1..9).map(|second| 360 * second + 12).collect();
        let expected = places(&signals([1.0, -0.4]), &marks);
        let mut turned = signals([-2.0, 0.8]);
        turned.leads.reverse();
        for (place, expected) in places(&turned, &marks).into_iter().zip(expected) {
            assert!((place - expected).abs() <= 1, "{place} {expected}");
        }
    }

    #[test]
    fn order_and_number_stay_and_nothing_leaves_the_record() {
        // Two marks in one complex, one on a flat stretch, one at each end.
        let marks = [0, 350, 365, 540, 720, 3599];
        let places = places(&signals([1.0, 0.0]), &marks);
        assert_eq!(places.len(), marks.len());
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
        assert!(places.iter().all(|place| (0..3600).contains(place)), "{places:?}");
        let flat = self::places(&signals([0.0, 0.0]), &marks);
        assert_eq!(flat, marks);
        assert!(self::places(&signals([1.0, 1.0]), &[]).is_empty());
    }
}
