//! `augment`: the features that a record's beats would have in other recordings of other hearts.
//!
//! A network learns from MIT-BIH in an hour what its twenty-odd training patients are like, and then judges others by them.
//! Noise on single beats does not help: what differs between patients is the whole recording. So whole recordings are
//! changed here, and everything that is relative to the record (its rhythm, its dominant beat, its groups) is computed
//! anew on each changed copy:
//!
//! - *which cycles*: blocks of consecutive beats are kept, those with more unusual beats more often; in some copies
//!   supraventricular beats come in runs, up to nine tenths of all, so that "usual" is not always "most";
//! - *which rhythm*: in some copies the atria fibrillate: early beats of the usual shape are left out, RR intervals are drawn
//!   at random, P waves give way to fibrillatory waves. What is left of the usual shape is still conducted normally;
//! - *when*: all RR intervals are stretched by one factor, with a few ms of jitter;
//! - *which beats*: some normal beats are fused with ventricular ones of the record, as when both activations meet in the
//!   ventricles; they are class F, of which the database has hardly any but in two patients;
//! - *what the recorder saw*: leads are rotated into one another (another electrical axis or other electrodes) or one is
//!   lost; noise, wander, and R-peaks off by some ms.
//!
//! Reference symbols say which beats are supraventricular and ventricular; without them, beats that are early or unlike
//! count as such, and no fusion is made. Copies are for training alone; of which records, is the split's to say. A copy is
//! rows of features, several for each beat, in the order of the beats: windows are changed while training (`train_cnn`).
//!
//! Invariant: the same seed gives the same rows, whatever else runs (`tests::same_seed_same_rows`).

use std::f32::consts::FRAC_PI_4;

use ecgpipe_nn::noise::{nearly_normal, sine};
use ecgpipe_sdk::{
    Beats, Context, Each, Features, One, Part, Signals, Split, SplitRow, Stage, StageError, StageFacts, derived_seed,
    facts::names, kinds::Beat, ports,
};
use ecgpipe_tables::rhythm::NAMES;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::{Xoshiro256PlusPlus, rand_core::SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::{AamiClass, EscapeRule},
    causal::check_past,
    lead,
    morphology::{
        self,
        groups::{Groups, timeliness},
        shapes::{MAX_LEAD_N, P, QRS, SHAPE_N, Shapes, scale},
    },
    rhythm,
};

/// Makes changed copies of a record's features.
pub struct Augment;

/// How much is changed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Copies of each record with its own rhythm.
    #[schemars(range(max = 100))]
    pub copies_n: usize,
    /// Copies with runs of supraventricular beats, of records that have such beats.
    #[schemars(range(max = 100))]
    pub runs_n: usize,
    /// Copies in which the atria fibrillate.
    #[schemars(range(max = 100))]
    pub fibrillation_n: usize,
    /// All RR intervals of a copy are multiplied by a factor between exp(-this) and exp(this).
    #[schemars(range(min = 0, max = 1))]
    pub rr_scale_max_log: f64,
    /// Standard deviation of the jitter of R-peaks in time, in ms.
    #[schemars(range(min = 0, max = 50))]
    pub rr_jitter_ms: f64,
    /// Largest standard deviation of the noise on shapes, in parts of the QRS height.
    #[schemars(range(min = 0, max = 1))]
    pub noise_max: f32,
    /// Largest amplitude of the wander under shapes, in parts of the QRS height.
    #[schemars(range(min = 0, max = 1))]
    pub wander_max: f32,
    /// Farthest that an R-peak is off, in samples at 125 Hz (8 ms).
    #[schemars(range(max = 5))]
    pub shift_max_n: usize,
    /// Share of the copies of two-lead records that lose one of them.
    #[schemars(range(min = 0, max = 1))]
    pub single_lead_share: f64,
    /// Share of the normal beats of a copy that are fused with a ventricular beat, in records that have some.
    #[schemars(range(min = 0, max = 0.5))]
    pub fusion_share: f64,
    /// Leads by name, the best first, as in `morphology`.
    pub leads: Vec<String>,
    /// How many beats before a beat its features know, as in `rhythm` and `morphology`.
    #[schemars(range(min = 1))]
    pub past_n: Option<usize>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            copies_n: 4,
            runs_n: 2,
            fibrillation_n: 2,
            rr_scale_max_log: 0.25,
            rr_jitter_ms: 3.0,
            noise_max: 0.04,
            wander_max: 0.06,
            shift_max_n: 2,
            single_lead_share: 0.2,
            fusion_share: 0.08,
            leads: lead::default_preference(),
            past_n: None,
        }
    }
}

ports! {
    /// What `augment` takes.
    pub struct Inputs {
        /// The recording.
        pub signals: Each<Signals>,
        /// Where the beats are.
        pub beats: Each<Beats>,
        /// Which beats are trained on: of records without any, no copies are made.
        pub split: Option<One<Split>>,
    }
}

ports! {
    /// What `augment` gives.
    pub struct Outputs {
        /// The features of `rhythm` and `morphology` in this order, for several copies of each beat.
        pub features: Each<Features>,
        /// The same of beats that were made fusion beats; `beat_idx` is the normal beat that each was.
        pub fusions: Each<Features>,
    }
}

impl Stage for Augment {
    const NAME: &'static str = "augment";
    const SUMMARY: &'static str = "features of changed copies of a record (other rhythms, leads, noise), to train on more patients than there are";
    const SEEDED: bool = true;
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        let checks = [
            ("copies_n", params.copies_n as f64, 0.0, 100.0),
            ("runs_n", params.runs_n as f64, 0.0, 100.0),
            ("fibrillation_n", params.fibrillation_n as f64, 0.0, 100.0),
            ("rr_scale_max_log", params.rr_scale_max_log, 0.0, 1.0),
            ("rr_jitter_ms", params.rr_jitter_ms, 0.0, 50.0),
            ("noise_max", f64::from(params.noise_max), 0.0, 1.0),
            ("wander_max", f64::from(params.wander_max), 0.0, 1.0),
            ("shift_max_n", params.shift_max_n as f64, 0.0, 5.0),
            ("single_lead_share", params.single_lead_share, 0.0, 1.0),
            ("fusion_share", params.fusion_share, 0.0, 0.5),
        ];
        match checks.into_iter().find(|(_, value, low, high)| !(*low..=*high).contains(value)) {
            Some((name, value, low, high)) => Err(format!("`{name}` must be {low} to {high}, not {value}")),
            None => check_past(params.past_n),
        }
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        lead::check_records(facts, "signals", &params.leads);
        for port in ["features", "fusions"] {
            facts.pass("beats", port);
            facts.set(port, names::FEATURES, all_names());
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let beats = &inputs.beats;
        let trains = |row: &SplitRow| row.part == Part::Training && row.record == beats.record;
        let [features, fusions] = match &inputs.split {
            Some(split) if !split.rows.iter().any(trains) => Copies::new().features(beats),
            _ => copies(params, &inputs.signals, beats, cx.seed()?)?,
        };
        Ok(Outputs { features: Each::new(features), fusions: Each::new(fusions) })
    }
}

/// The names of the features, those of `rhythm` first.
fn all_names() -> Vec<String> {
    NAMES.iter().map(|name| (*name).to_owned()).chain(morphology::feature_names()).collect()
}

/// Rows of features as they are computed, copy after copy.
struct Copies {
    copies: Rows,
    /// Those of beats that were fused.
    fusions: Rows,
}

/// Rows as columns, and the beat of each.
struct Rows {
    beat_idx: Vec<i64>,
    columns: Vec<Vec<f32>>,
}

impl Rows {
    fn new() -> Self {
        Self { beat_idx: Vec::new(), columns: vec![Vec::new(); all_names().len()] }
    }

    /// In the order of the beats; rows of one beat in the order in which they were made.
    fn features(self, beats: &Beats) -> Features {
        let mut order: Vec<usize> = (0..self.beat_idx.len()).collect();
        order.sort_by_key(|&row| self.beat_idx[row]);
        let sorted = |column: &Vec<f32>| order.iter().map(|&row| column[row]).collect();
        Features {
            record: beats.record.clone(),
            beat_idx: order.iter().map(|&row| self.beat_idx[row]).collect(),
            names: all_names(),
            columns: self.columns.iter().map(sorted).collect(),
        }
    }
}

impl Copies {
    fn new() -> Self {
        Self { copies: Rows::new(), fusions: Rows::new() }
    }

    fn add(&mut self, params: &Params, original: &Original<'_>, rhythm: Rhythm, seed: u64) -> Result<(), StageError> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut cycles =
            if rhythm == Rhythm::Runs { original.runs(&mut rng) } else { original.cycles(rhythm, &mut rng) };
        original.fuse(&mut cycles, params.fusion_share, &mut rng);
        let positions = positions(params, &cycles, &mut rng);
        let shapes = changed(params, &original.shapes, &cycles, rhythm, &mut rng);
        let rhythm = rhythm::columns(&positions, POSITION_HZ, params.past_n)
            .map_err(|error| StageError::from_error(&error).record(&original.beats.record))?;
        let columns: Vec<Vec<f32>> =
            rhythm.into_iter().chain(morphology::columns(&shapes, &positions, params.past_n)).collect();
        for (rows, is_fusion) in [(&mut self.copies, false), (&mut self.fusions, true)] {
            let places = || (0..cycles.len()).filter(|&idx| cycles[idx].fusion.is_some() == is_fusion);
            rows.beat_idx.extend(places().map(|idx| cycles[idx].beat_idx as i64));
            for (all, added) in rows.columns.iter_mut().zip(&columns) {
                all.extend(places().map(|idx| added[idx]));
            }
        }
        Ok(())
    }

    fn features(self, beats: &Beats) -> [Features; 2] {
        [self.copies, self.fusions].map(|rows| rows.features(beats))
    }
}

/// Positions in a copy are counted in ms.
const POSITION_HZ: f64 = 1000.0;
/// Beats that stay together.
const BLOCK_BEAT_N: std::ops::RangeInclusive<usize> = 20..=80;
/// A beat is early below this part of the long RR intervals around it.
const EARLY: f32 = 0.8;
/// A beat is unlike the dominant one below this cosine.
const UNLIKE: f32 = 0.9;
/// Share of the blocks without unusual beats that are kept.
const PLAIN_BLOCK_SHARE: f32 = 0.4;
/// Share of the beats that are supraventricular where they come in runs: anything between.
const RUN_SHARE: std::ops::Range<f32> = 0.2..0.9;
/// Mean length of such runs: anything between, for a copy.
const RUN_BEAT_N: std::ops::Range<f32> = 1.5..10.0;
/// From this median step between the logarithms of RR intervals on, no run can be told.
const IRREGULAR_LOG: f64 = 0.07;
/// Standard deviation of the logarithm of RR intervals within a run.
const RUN_RR_SD_LOG: f64 = 0.03;
/// Fewest and most beats of a copy with runs.
const RUN_COPY_BEAT_N: std::ops::RangeInclusive<usize> = 120..=1000;
/// After a run the sinus node may be late by up to this factor (overdrive suppression).
const PAUSE: std::ops::Range<f64> = 1.0..2.0;
/// Share of the ventricular beat in a fusion beat.
const FUSION: std::ops::Range<f32> = 0.25..0.75;
/// A fusion beat comes in time or a little before: its RR interval as a part of the normal beat's.
const FUSION_INTERVAL: std::ops::Range<f64> = 0.85..1.0;
/// Farthest that the ventricular activation is before or after the other, in working samples (8 ms).
const FUSION_SHIFT_N: i64 = 3;

/// What happens to the rhythm of a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rhythm {
    /// Blocks of it stay.
    AsIs,
    /// Supraventricular beats come in runs.
    Runs,
    /// RR intervals are random and P waves are gone.
    Fibrillation,
}

/// Standard deviation of the logarithm of RR intervals in atrial fibrillation, least and greatest; 0.2 to 0.3 is usual
/// (Tateno & Glass 2001 have a coefficient of variation of 0.24).
const FIBRILLATION_RR_SD_LOG: std::ops::Range<f64> = 0.12..0.32;
/// Amplitude of fibrillatory waves in parts of the QRS height, and how many there are in the 1.6 s of a shape: 4 to 9 a
/// second.
const FIBRILLATION_WAVE: std::ops::Range<f32> = 0.0..0.08;
const FIBRILLATION_WAVE_N: std::ops::Range<f32> = 6.4..14.4;

/// A beat and the RR interval before it.
#[derive(Clone)]
struct Cycle {
    beat_idx: usize,
    interval_s: f64,
    fusion: Option<Fusion>,
}

/// The ventricular beat that a beat is fused with.
#[derive(Clone)]
struct Fusion {
    beat_idx: usize,
    share: f32,
    shift_n: i64,
}

/// A record as it is, and what copies are drawn by.
struct Original<'a> {
    beats: &'a Beats,
    shapes: Shapes,
    /// Positions of the R-peaks.
    samples: Vec<i64>,
    /// For each beat, its RR interval as a part of the longer ones around.
    timely: Vec<f32>,
    /// For each beat, its cosine to the dominant one.
    to_dominant: Vec<f32>,
    /// The class of each beat's reference symbol, if it has one.
    classes: Vec<Option<AamiClass>>,
}

impl<'a> Original<'a> {
    fn new(params: &Params, signals: &Signals, beats: &'a Beats) -> Result<Self, StageError> {
        let shapes = Shapes::cut(signals, beats, &params.leads, MAX_LEAD_N)?;
        let samples: Vec<i64> = beats.beats.iter().map(|beat| beat.sample_idx).collect();
        let to_dominant = Groups::of(&shapes, &samples).to_dominant;
        let class = |beat: &Beat| EscapeRule::DeChazal.class(beat.symbol.as_deref()?);
        let classes = beats.beats.iter().map(class).collect();
        let timely = (0..samples.len()).map(|idx| timeliness(&samples, idx)).collect();
        Ok(Self { beats, shapes, samples, timely, to_dominant, classes })
    }

    fn is_early(&self, idx: usize) -> bool {
        self.timely[idx] < EARLY
    }

    fn is_unusual(&self, idx: usize) -> bool {
        self.is_early(idx) || self.to_dominant[idx] < UNLIKE
    }

    /// Whether a beat is supraventricular and premature: by its symbol, else as an early beat of the usual shape.
    fn is_supraventricular(&self, idx: usize) -> bool {
        match self.classes[idx] {
            Some(class) => class == AamiClass::S,
            None => self.is_early(idx) && self.to_dominant[idx] >= UNLIKE,
        }
    }

    fn cycle(&self, beat_idx: usize) -> Cycle {
        let step_n = match beat_idx {
            0 => self.samples.get(1).map_or(0, |next| next - self.samples[0]),
            _ => self.samples[beat_idx] - self.samples[beat_idx - 1],
        };
        let interval_s = step_n as f64 / self.beats.sampling_frequency_hz;
        Cycle { beat_idx, interval_s: if interval_s > 0.0 { interval_s } else { 1.0 }, fusion: None }
    }

    /// How irregular the beats are that are not premature: the median step of the logarithm of their RR intervals.
    fn irregularity(&self) -> f64 {
        let is_normal = |idx: usize| !self.is_early(idx) && self.to_dominant[idx] >= UNLIKE;
        let log = |idx: usize| self.cycle(idx).interval_s.ln();
        let pairs = (2..self.samples.len()).filter(|&idx| (idx - 2..=idx).all(is_normal));
        let mut steps: Vec<f64> = pairs.map(|idx| (log(idx) - log(idx - 1)).abs()).collect();
        let middle = steps.len() / 2;
        if steps.is_empty() { 0.0 } else { *steps.select_nth_unstable_by(middle, f64::total_cmp).1 }
    }

    /// Runs of supraventricular beats, and what follows such beats in between; nothing where there are none of either, or
    /// where all is irregular, so that a run could not be told from atrial fibrillation.
    fn runs(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<Cycle> {
        let (premature, others): (Vec<usize>, Vec<usize>) =
            (0..self.samples.len()).partition(|&idx| self.is_supraventricular(idx));
        let is_other = |idx: &usize| others.binary_search(idx).is_ok();
        let after: Vec<usize> = premature.iter().map(|idx| idx + 1).filter(is_other).collect();
        if after.is_empty() || self.irregularity() > IRREGULAR_LOG {
            return Vec::new();
        }
        let (share, run_n) = (rng.random_range(RUN_SHARE), rng.random_range(RUN_BEAT_N));
        let pause = if rng.random::<bool>() { rng.random_range(PAUSE) } else { 1.0 };
        // Lengths of runs and of what is between are geometric around their means.
        let length = |mean: f32, rng: &mut Xoshiro256PlusPlus| {
            1 + (-(1.0 - rng.random::<f32>()).ln() * (mean - 1.0).max(0.0)).round() as usize
        };
        // About as many premature beats as the record has, so that single ones are learnt as well.
        let beat_n =
            ((premature.len() as f32 / share) as usize).clamp(*RUN_COPY_BEAT_N.start(), *RUN_COPY_BEAT_N.end());
        let mut cycles = Vec::with_capacity(beat_n + 100);
        while cycles.len() < beat_n {
            // An atrial focus is regular: a run has the interval of its first beat.
            let interval_s = self.cycle(premature[rng.random_range(0..premature.len())]).interval_s;
            for _ in 0..length(run_n, rng) {
                let normal: f64 = StandardNormal.sample(rng);
                let beat_idx = premature[rng.random_range(0..premature.len())];
                let interval_s = interval_s * (RUN_RR_SD_LOG * normal).exp();
                cycles.push(Cycle { interval_s, ..self.cycle(beat_idx) });
            }
            let start = after[rng.random_range(0..after.len())];
            let between = (start..self.samples.len()).filter(|&idx| !self.is_supraventricular(idx));
            let first = cycles.len();
            cycles.extend(between.take(length(run_n * (1.0 - share) / share, rng)).map(|idx| self.cycle(idx)));
            cycles[first].interval_s *= pause;
        }
        cycles
    }

    /// Makes some normal beats fusion beats.
    fn fuse(&self, cycles: &mut [Cycle], share: f64, rng: &mut Xoshiro256PlusPlus) {
        let ventricular: Vec<usize> =
            (0..self.samples.len()).filter(|&idx| self.classes[idx] == Some(AamiClass::V)).collect();
        if ventricular.is_empty() {
            return;
        }
        for cycle in cycles {
            if self.classes[cycle.beat_idx] == Some(AamiClass::N) && rng.random::<f64>() < share {
                cycle.interval_s *= rng.random_range(FUSION_INTERVAL);
                cycle.fusion = Some(Fusion {
                    beat_idx: ventricular[rng.random_range(0..ventricular.len())],
                    share: rng.random_range(FUSION),
                    shift_n: rng.random_range(-FUSION_SHIFT_N..=FUSION_SHIFT_N),
                });
            }
        }
    }

    /// The cycles of a copy.
    fn cycles(&self, rhythm: Rhythm, rng: &mut Xoshiro256PlusPlus) -> Vec<Cycle> {
        let mut cycles = Vec::with_capacity(self.samples.len());
        let mut start = 0;
        while start < self.samples.len() {
            let end = (start + rng.random_range(BLOCK_BEAT_N)).min(self.samples.len());
            let unusual_n = (start..end).filter(|&idx| self.is_unusual(idx)).count();
            let share = unusual_n as f32 / (end - start) as f32;
            let is_kept = rng.random::<f32>() < PLAIN_BLOCK_SHARE + 4.0 * share;
            // A record of a few beats keeps at least the first block.
            if is_kept || (cycles.is_empty() && end == self.samples.len()) {
                // Fibrillation has no supraventricular premature beats: they could not be told.
                let stays = |idx: &usize| rhythm != Rhythm::Fibrillation || !self.is_supraventricular(*idx);
                cycles.extend((start..end).filter(stays).map(|idx| self.cycle(idx)));
            }
            start = end;
        }
        if rhythm == Rhythm::Fibrillation {
            let mean_s = cycles.iter().map(|cycle| cycle.interval_s).sum::<f64>() / cycles.len().max(1) as f64;
            let deviation = rng.random_range(FIBRILLATION_RR_SD_LOG);
            for cycle in &mut cycles {
                let normal: f64 = StandardNormal.sample(rng);
                cycle.interval_s = mean_s * (deviation * normal).exp();
            }
        }
        cycles
    }
}

/// Where the beats of a copy are, in ms.
fn positions(params: &Params, cycles: &[Cycle], rng: &mut Xoshiro256PlusPlus) -> Vec<i64> {
    let factor = ((2.0 * rng.random::<f64>() - 1.0) * params.rr_scale_max_log).exp();
    let mut time_ms = 0.0;
    let mut last = -1;
    let position = |cycle: &Cycle| {
        time_ms += 1000.0 * factor * cycle.interval_s;
        let jitter: f64 = StandardNormal.sample(rng);
        last = ((time_ms + params.rr_jitter_ms * jitter).round() as i64).max(last + 1);
        last
    };
    cycles.iter().map(position).collect()
}

/// The shapes of a copy.
fn changed(
    params: &Params,
    original: &Shapes,
    cycles: &[Cycle],
    rhythm: Rhythm,
    rng: &mut Xoshiro256PlusPlus,
) -> Shapes {
    let lead_n = original.leads.len();
    // New leads as sums of the old ones.
    let mixing: Vec<Vec<f32>> = if lead_n == 2 {
        let angle = (2.0 * rng.random::<f32>() - 1.0) * FRAC_PI_4;
        let kept = if rng.random::<f64>() < params.single_lead_share { 1 } else { 2 };
        let (sine, cosine) = angle.sin_cos();
        let mut rows = vec![vec![cosine, sine], vec![-sine, cosine]];
        if rng.random::<bool>() {
            rows.reverse();
        }
        rows.truncate(kept);
        rows
    } else {
        vec![vec![1.0]]
    };
    let (noise, wander) = (params.noise_max * rng.random::<f32>(), params.wander_max * rng.random::<f32>());
    let fibrillates = rhythm == Rhythm::Fibrillation;
    let fibrillation = if fibrillates { rng.random_range(FIBRILLATION_WAVE) } else { 0.0 };
    let mut leads = vec![Vec::with_capacity(cycles.len() * SHAPE_N); mixing.len()];
    for cycle in cycles {
        let shift = rng.random_range(0..=2 * params.shift_max_n) as i64 - params.shift_max_n as i64;
        // Half a turn to three turns in the 1.6 s of a shape.
        let (turn_n, phase) = (0.5 + 2.5 * rng.random::<f32>(), rng.random::<f32>());
        let (atrial_n, atrial_phase) = (rng.random_range(FIBRILLATION_WAVE_N), rng.random::<f32>());
        let moved = (0..lead_n).map(|lead_idx| {
            let mut shape = moved(original.of(lead_idx, cycle.beat_idx), shift);
            if let Some(fusion) = &cycle.fusion {
                let other = self::moved(original.of(lead_idx, fusion.beat_idx), shift + fusion.shift_n);
                shape.iter_mut().zip(other).for_each(|(sample, other)| *sample += fusion.share * (other - *sample));
            }
            shape
        });
        let moved: Vec<[f32; SHAPE_N]> = moved.collect();
        let under = waves(wander, phase, turn_n);
        for (shapes, weights) in leads.iter_mut().zip(&mixing) {
            let mut shape = under;
            for (weight, old) in weights.iter().zip(&moved) {
                shape.iter_mut().zip(old).for_each(|(sample, old)| *sample += weight * old);
            }
            if noise > 0.0 {
                let mut before = 0.0;
                for sample in &mut shape {
                    let normal = nearly_normal(rng.random());
                    // Neighbours share half of their noise, as below 40 Hz.
                    *sample += noise * 0.7 * (normal + before);
                    before = normal;
                }
            }
            if fibrillates {
                shape[P.start..QRS.start].fill(f32::NAN);
                lead::interpolate_invalid(&mut shape);
                let atrial = waves(fibrillation, atrial_phase, atrial_n);
                shape.iter_mut().zip(atrial).for_each(|(sample, wave)| *sample += wave);
            }
            shapes.extend_from_slice(&shape);
        }
    }
    // A rotated lead has some of each old one's spikes, and is scaled by its own QRS height.
    let spikes = leads.iter_mut().zip(&mixing).map(|(lead, weights)| {
        let factor = scale(lead).abs();
        let spike = |cycle: &Cycle| {
            let old = original.spikes.iter().map(|old| old[cycle.beat_idx]);
            factor * weights.iter().zip(old).map(|(weight, old)| weight.abs() * old).sum::<f32>()
        };
        cycles.iter().map(spike).collect()
    });
    let spikes = spikes.collect();
    Shapes { leads, spikes, beat_n: cycles.len() }
}

/// A shape as if it began so many samples later, or earlier; the sample at its end is repeated.
fn moved(shape: &[f32], shift: i64) -> [f32; SHAPE_N] {
    let (shift_n, kept_n) = (shift.unsigned_abs() as usize, SHAPE_N - shift.unsigned_abs() as usize);
    let mut moved = [0.0; SHAPE_N];
    if shift >= 0 {
        moved[..kept_n].copy_from_slice(&shape[shift_n..]);
        moved[kept_n..].fill(shape[SHAPE_N - 1]);
    } else {
        moved[shift_n..].copy_from_slice(&shape[..kept_n]);
        moved[..shift_n].fill(shape[0]);
    }
    moved
}

/// Sine waves: `turn_n` in a shape, from `phase` (in turns) on.
fn waves(amplitude: f32, phase: f32, turn_n: f32) -> [f32; SHAPE_N] {
    std::array::from_fn(|idx| amplitude * sine(phase + turn_n * (idx as f32 / SHAPE_N as f32)))
}

/// The features of copies and of the fusion beats in them, for [`Params`] and a seed.
///
/// # Errors
/// As [`morphology::features`].
pub fn copies(params: &Params, signals: &Signals, beats: &Beats, seed: u64) -> Result<[Features; 2], StageError> {
    let original = Original::new(params, signals, beats)?;
    let mut copies = Copies::new();
    let kinds =
        [(Rhythm::AsIs, params.copies_n), (Rhythm::Runs, params.runs_n), (Rhythm::Fibrillation, params.fibrillation_n)];
    for (kind_seed, (rhythm, copy_n)) in (0..).map(|kind| derived_seed(seed, kind)).zip(kinds) {
        for copy_idx in 0..copy_n as u64 {
            // A seed of its own for each copy, so that more copies change none.
            copies.add(params, &original, rhythm, derived_seed(kind_seed, copy_idx))?;
        }
    }
    Ok(copies.features(beats))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::f32::consts::TAU;

    use super::*;
    use crate::morphology::tests::{BEAT_N, beats, column, is_ectopic, signals};

    fn copied(params: &Params, seed: u64) -> Features {
        let signals = signals();
        let [copies, _] = copies(params, &signals, &beats(&signals), seed).unwrap();
        copies
    }

    /// Copies of one kind alone.
    fn only(rhythm: Rhythm) -> Features {
        let n = |kind| 8 * usize::from(rhythm == kind);
        let (copies_n, runs_n, fibrillation_n) = (n(Rhythm::AsIs), n(Rhythm::Runs), n(Rhythm::Fibrillation));
        copied(&Params { copies_n, runs_n, fibrillation_n, ..Params::default() }, 7)
    }

    #[test]
    fn same_seed_same_rows() {
        let params = Params::default();
        let first = copied(&params, 1);
        assert_eq!(first, copied(&params, 1));
        assert_ne!(first, copied(&params, 2));
        assert_eq!(first.names[..NAMES.len()], NAMES);
        assert_eq!(first.names[NAMES.len()..], morphology::feature_names());
        assert!(first.columns.iter().flatten().all(|value| value.is_finite()));
        assert!(first.beat_idx.is_sorted() && first.beat_idx.iter().all(|idx| (0..BEAT_N as i64).contains(idx)));
        // More copies leave those before as they are.
        let fewer = copied(&Params { copies_n: 1, runs_n: 0, fibrillation_n: 0, ..params }, 1);
        for (row, beat_idx) in fewer.beat_idx.iter().enumerate() {
            let place = first.beat_idx.iter().position(|other| other == beat_idx).unwrap();
            assert!((0..first.names.len()).all(|idx| first.columns[idx][place] == fewer.columns[idx][row]));
        }
    }

    #[test]
    fn waves_are_sines() {
        let (amplitude, phase, turn_n) = (0.5, 0.3, 14.4);
        for (idx, found) in waves(amplitude, phase, turn_n).into_iter().enumerate() {
            let expected = amplitude * (TAU * (phase + turn_n * idx as f32 / SHAPE_N as f32)).sin();
            assert!((found - expected).abs() < 2e-5, "{idx}: {found} {expected}");
        }
    }

    #[test]
    fn a_moved_shape_repeats_its_ends() {
        let shape: Vec<f32> = (0u16..).take(SHAPE_N).map(f32::from).collect();
        for shift in -5..=5 {
            let expected: [f32; SHAPE_N] =
                std::array::from_fn(|idx| shape[(idx as i64 + shift).clamp(0, SHAPE_N as i64 - 1) as usize]);
            assert_eq!(moved(&shape, shift), expected, "{shift}");
        }
    }

    #[test]
    fn what_is_unlike_stays_unlike() {
        // A narrow QRS complex that is off by 16 ms is unlike, too.
        let features = copied(
            &Params { copies_n: 2, runs_n: 0, fibrillation_n: 0, shift_max_n: 0, noise_max: 0.01, ..Params::default() },
            3,
        );
        let cosine = column(&features, "cosine_to_dominant");
        for (row, &beat_idx) in features.beat_idx.iter().enumerate() {
            assert_eq!(cosine[row] < 0.85, is_ectopic(beat_idx as usize), "beat {beat_idx}: {}", cosine[row]);
        }
    }

    #[test]
    fn fibrillation_is_irregular_and_without_p_waves() {
        let (as_is, fibrillation) = (only(Rhythm::AsIs), only(Rhythm::Fibrillation));
        let mean = |features: &Features, name: &str| {
            let column = column(features, name);
            column.iter().sum::<f32>() / column.len() as f32
        };
        assert!(mean(&as_is, "rr_irregularity_record_log") < -3.5, "a beat a second, but for the jitter");
        assert!(mean(&fibrillation, "rr_irregularity_record_log") > -2.5);
        // Against a dominant beat without a P wave there is nothing to project on.
        let p = [&as_is, &fibrillation].map(|features| mean(features, "p_correlation_max"));
        assert!(p[1] < p[0] - 0.2, "{p:?}");
    }

    /// The beats with reference symbols: V for the ectopic ones, A for every tenth from the second on, else N.
    fn labelled(signals: &Signals) -> Beats {
        let mut beats = beats(signals);
        for (idx, beat) in beats.beats.iter_mut().enumerate() {
            let symbol = if is_ectopic(idx) { "V" } else { ["N", "A"][usize::from(idx % 10 == 2)] };
            beat.symbol = Some(symbol.to_owned());
        }
        beats
    }

    #[test]
    fn runs_are_of_premature_beats_and_as_many_as_there_are() {
        let signals = signals();
        let params = Params { copies_n: 0, fibrillation_n: 0, runs_n: 20, fusion_share: 0.0, ..Params::default() };
        let [features, fusions] = copies(&params, &signals, &labelled(&signals), 5).unwrap();
        assert!(fusions.beat_idx.is_empty());
        let premature_n = features.beat_idx.iter().filter(|&&idx| idx % 10 == 2).count();
        let share = premature_n as f32 / features.beat_idx.len() as f32;
        assert!((0.35..0.75).contains(&share), "20 copies of shares between 0.2 and 0.9: {share}");
        // Without premature beats there are no runs.
        let none = copies(&params, &signals, &beats(&signals), 5).unwrap();
        assert!(none[0].beat_idx.is_empty());
    }

    #[test]
    fn fusion_beats_are_between_normal_and_ventricular_ones() {
        let signals = signals();
        let params = Params { runs_n: 0, fibrillation_n: 0, fusion_share: 0.2, shift_max_n: 0, ..Params::default() };
        let [features, fusions] = copies(&params, &signals, &labelled(&signals), 5).unwrap();
        let share = fusions.beat_idx.len() as f32 / (features.beat_idx.len() + fusions.beat_idx.len()) as f32;
        assert!((0.1..0.2).contains(&share), "a fifth of the four fifths that are N: {share}");
        assert!(fusions.beat_idx.iter().all(|&idx| !is_ectopic(idx as usize) && idx % 10 != 2));
        let mean = |features: &Features, is_of: &dyn Fn(i64) -> bool| {
            let cosines = column(features, "cosine_to_dominant");
            let of: Vec<f32> = features
                .beat_idx
                .iter()
                .zip(cosines)
                .filter(|(idx, _)| is_of(**idx))
                .map(|(_, cosine)| *cosine)
                .collect();
            of.iter().sum::<f32>() / of.len() as f32
        };
        let fused = mean(&fusions, &|_| true);
        let (ventricular, normal) =
            (mean(&features, &|idx| is_ectopic(idx as usize)), mean(&features, &|idx| !is_ectopic(idx as usize)));
        assert!(ventricular + 0.05 < fused && fused + 0.02 < normal, "{ventricular} {fused} {normal}");
    }

    #[test]
    fn beats_of_another_recording_are_refused() {
        let signals = signals();
        let mut other = beats(&signals);
        other.sampling_frequency_hz = 250.0;
        let error = copies(&Params::default(), &signals, &other, 1).unwrap_err().to_string();
        assert_eq!(error, "record p1: signals are of record p1 at 360 Hz, beats are of record p1 at 250 Hz");
    }

    #[test]
    fn parameters_have_their_ranges() {
        assert_eq!(Augment::check(&Params::default()), Ok(()));
        let error = Augment::check(&Params { copies_n: 101, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`copies_n` must be 0 to 100, not 101");
        let error = Augment::check(&Params { noise_max: f32::NAN, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`noise_max` must be 0 to 1, not NaN");
    }
}
