//! `align_beats`: moves each beat to the centre of its QRS complex, or to where most of its record's marks are against that
//! centre, so that everything cut around it is cut alike.
//!
//! Where in a QRS complex "the R-peak" is, is a convention, and not one for all: a cardiologist marks the main wave, a detector
//! the largest deflection, which in a wide or paced complex may be 100 ms away, or a pacemaker's spike. Windows and measures
//! around such a mark then show another stretch of the same beat. The centre of the QRS complex does not depend on who marked
//! it: it is where the energy of the slope is densest.
//!
//! Method: mean shift (Fukunaga & Hostetler 1975; Cheng 1995) from the mark, on the squared slope of up to two leads in the
//! band of 0.5 to 40 Hz, each in units of its own usual QRS height, under a Gaussian kernel. The kernel is wide enough to make
//! one hill of a wide QRS complex, and narrow enough not to see the T wave. A beat is moved by [`REACH_S`] at most. The centre of
//! a wide complex is still uncertain by some 20 ms, so beats that look alike are then moved until they lie on one another:
//! each to where the size of its slope correlates best with the record's usual one, in turns (Woody 1967).
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
        shapes::{MAX_LEAD_N, check_lead_n, median, usual_height},
    },
    resample::resampled_position,
    sums::dot,
};

/// Moves beats to the centres of their QRS complexes.
pub struct AlignBeats;

/// Where beats are put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At the centre of the QRS complex.
    #[default]
    Centre,
    /// Where most marks of this record are, against the centre: marks that are off are moved. Beats of other shapes than the
    /// record's usual one keep theirs.
    UsualMark,
}

/// How to find centres, and where to put beats.
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
    /// Where beats are put.
    pub to: Place,
}

impl Default for Params {
    fn default() -> Self {
        Self { leads: lead::default_preference(), leads_n: MAX_LEAD_N, kernel_ms: 50.0, to: Place::Centre }
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
        /// The same beats in the same order, at their new places.
        pub beats: Each<Beats>,
    }
}

impl Stage for AlignBeats {
    const NAME: &'static str = "align_beats";
    const SUMMARY: &'static str = "moves beats to the centres of their QRS complexes, or to where most marks of the record are, so that all are cut alike";
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

/// Turns in which beats are laid on one another.
const ROUND_N: usize = 4;
/// Farthest that a beat is moved in a turn, in working samples of 8 ms.
const MOVE_MAX_N: usize = 6;
/// Working samples that are compared: 0.13 s on either side.
const USUAL_N: usize = 33;
/// Working samples that a beat is compared in.
const CUT_N: usize = USUAL_N + 2 * MOVE_MAX_N;
/// Beats of a lower cosine are of another shape and stay where they are.
const ALIKE: f32 = 0.85;

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
    let mut centres: Vec<f64> = marks.iter().map(|&mark| densest(&energy, mark, deviation)).collect();
    let are_alike = lay_on_one_another(energy, &mut centres);
    if params.to == Place::UsualMark {
        let offset = |idx: usize| (marks[idx] - centres[idx]) as f32;
        let mut offsets: Vec<f32> = (0..marks.len()).filter(|&idx| are_alike[idx]).map(offset).collect();
        let usual = f64::from(median(&mut offsets));
        for ((centre, &mark), is_alike) in centres.iter_mut().zip(&marks).zip(are_alike) {
            *centre = if is_alike { *centre + usual } else { mark };
        }
    }
    let mut aligned = beats.clone();
    let mut least = i64::MIN;
    for (idx, ((beat, &mark), centre)) in aligned.beats.iter_mut().zip(&marks).zip(centres).enumerate() {
        // Half way to a neighbour, another beat begins.
        let half_way = |other: Option<&f64>| other.map_or(f64::INFINITY, |other| (other - mark).abs() / 2.0);
        let reach = REACH_S * WORK_HZ;
        let before = reach.min(half_way(idx.checked_sub(1).map(|idx| &marks[idx])));
        let after = reach.min(half_way(marks.get(idx + 1)));
        let centre = centre.clamp(mark - before, mark + after);
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

/// Moves beats that look alike until they lie on one another, and tells which these are.
fn lay_on_one_another(mut energy: Vec<f32>, centres: &mut [f64]) -> Vec<bool> {
    energy.iter_mut().for_each(|energy| *energy = energy.sqrt());
    let mut are_alike = vec![false; centres.len()];
    for _ in 0..ROUND_N {
        let cuts: Vec<[f32; CUT_N]> = centres.iter().map(|&centre| cut(&energy, centre)).collect();
        let Some(usual) = usual(&cuts) else { break };
        for ((centre, cut), is_alike) in centres.iter_mut().zip(&cuts).zip(&mut are_alike) {
            let best_move = best_move(&usual, cut);
            *is_alike = best_move.is_some();
            *centre += best_move.unwrap_or(0.0);
        }
    }
    are_alike
}

/// The slope around a place, between the working samples.
fn cut(slope: &[f32], centre: f64) -> [f32; CUT_N] {
    let start = centre - (CUT_N / 2) as f64;
    let (first, share) = (start.floor() as i64, (start - start.floor()) as f32);
    let at = |idx: i64| usize::try_from(idx).ok().and_then(|idx| slope.get(idx)).copied().unwrap_or(0.0);
    std::array::from_fn(|idx| {
        let [below, above] = [0, 1].map(|next| at(first + idx as i64 + next));
        below + share * (above - below)
    })
}

/// The usual slope, of length 1: the median at each place over all beats, each of length 1. Nothing where all is flat.
fn usual(cuts: &[[f32; CUT_N]]) -> Option<[f32; USUAL_N]> {
    let lengths: Vec<f32> = cuts.iter().map(|cut| length(&cut[MOVE_MAX_N..][..USUAL_N])).collect();
    let mut usual: [f32; USUAL_N] = std::array::from_fn(|place| {
        let lengths = lengths.iter().zip(cuts).filter(|(length, _)| **length > 0.0);
        median(&mut lengths.map(|(length, cut)| cut[MOVE_MAX_N + place] / length).collect::<Vec<f32>>())
    });
    let length = length(&usual);
    usual.iter_mut().for_each(|value| *value /= length);
    (length > 0.0).then_some(usual)
}

/// How far a beat is moved to lie on the usual one, in working samples; nothing if it is not alike, or would go on.
fn best_move(usual: &[f32; USUAL_N], cut: &[f32; CUT_N]) -> Option<f64> {
    let cosines: [f32; 2 * MOVE_MAX_N + 1] = std::array::from_fn(|start| {
        let part = &cut[start..][..USUAL_N];
        dot(usual, part) / length(part).max(f32::MIN_POSITIVE)
    });
    let best = (0..cosines.len()).fold(MOVE_MAX_N, |best, idx| if cosines[idx] > cosines[best] { idx } else { best });
    if cosines[best] < ALIKE || best == 0 || best == cosines.len() - 1 {
        return None;
    }
    // The top of the parabola through the best cosine and its neighbours.
    let [before, top, after] = [best - 1, best, best + 1].map(|idx| f64::from(cosines[idx]));
    let bend = before - 2.0 * top + after;
    let part = if bend < 0.0 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 };
    Some(best as f64 - MOVE_MAX_N as f64 + part)
}

fn length(values: &[f32]) -> f32 {
    dot(values, values).sqrt()
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
    fn marks_that_are_off_are_moved_to_where_most_are() {
        let signals = signals([1.0, -0.4]);
        let mark = |second: i64| 360 * second + if second % 3 == 0 { 25 } else { -16 };
        let marks: Vec<i64> = (1..9).map(mark).collect();
        let params = Params { to: Place::UsualMark, ..Params::default() };
        for (beat, second) in aligned(&params, &signals, &beats(&marks)).unwrap().beats.iter().zip(1..) {
            assert!((beat.sample_idx - (360 * second - 16)).abs() <= 2, "{second}: {}", beat.sample_idx - 360 * second);
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
