//! Owns which beats of a record look alike: the dominant beat, the commonest other one, and how usual each beat is.
//!
//! Beats are compared by the cosine between their QRS complexes, all leads side by side, each without its mean (de Chazal et
//! al. 2004 compare with a fixed heartbeat; Llamedo & Martinez 2012 with the record's own clusters). How usual a beat is, is
//! its density: the share of reference beats that are alike. Reference beats are at most [`REFERENCE_N`] at equal steps
//! through the record, so that a day costs no more a beat than half an hour.
//!
//! The dominant beat is the common one that is also conducted, as far as that can be told without labels: of two common
//! shapes, the one counts for less whose beats come early or whose QRS complexes are wide. In MIT-BIH 208 ventricular beats
//! are more alike than the patient's own, and would be dominant by their number alone.
//!
//! It must not know any label.

use super::{
    measures::{slopes, width_ms},
    shapes::{QRS, SHAPE_N, Shapes, median},
};
use crate::sums::{dot, sum};

/// Beats that all others are compared with.
const REFERENCE_N: usize = 256;
/// Reference beats that a beat is compared with at once: their sums stay in the registers of a processor.
const BLOCK_N: usize = 32;
/// Beats are alike from this cosine on.
const ALIKE: f32 = 0.9;
/// Beats below are of another origin than the dominant ones, or of another conduction.
const UNLIKE: f32 = 0.6;
/// Fewer unlike beats make no kind of their own.
const LEAST_KIND_N: usize = 3;
/// RR intervals before a beat, on each side, whose upper tenth it is early against: about 40 s.
const EARLY_BEAT_N: usize = 25;
/// A beat is in time from this part of the longer RR intervals around it on.
const IN_TIME: f32 = 0.85;
/// With fewer beats in time, the dominant beat is the median of all that are alike.
const LEAST_IN_TIME_N: usize = 8;
/// A shape whose summed slope is spread wider than this is held against it.
const NARROW_MS: f32 = 80.0;

/// The groups of one record.
pub(crate) struct Groups {
    /// The dominant beat, lead by lead: the median of those beats like the most usual one that come in time.
    pub(super) dominant: Vec<Vec<f32>>,
    /// The commonest beat of those unlike the dominant one, if there is one.
    pub(super) other: Option<Vec<Vec<f32>>>,
    /// For each beat, the share of reference beats that are like it.
    pub(super) density: Vec<f32>,
    /// For each beat, its cosine to the dominant beat.
    pub(crate) to_dominant: Vec<f32>,
    /// For each beat, its cosine to the one before; 1 for the first.
    pub(super) to_previous: Vec<f32>,
}

impl Groups {
    /// `positions` are those of the R-peaks, in samples of any frequency.
    pub(crate) fn of(shapes: &Shapes, positions: &[i64]) -> Self {
        let units = Units::of(shapes);
        let everyone: Vec<usize> = (0..shapes.beat_n).collect();
        let references = References::of(&units, spread(&everyone));
        let density: Vec<f32> = units.each().map(|unit| references.share_alike(unit)).collect();
        let usual = |&idx: &usize| {
            let timely = timeliness(positions, idx);
            density[idx] * timely * timely * narrowness(shapes, idx)
        };
        let usual: Vec<f32> = references.beats.iter().map(usual).collect();
        let score = |&idx: &usize| -> f32 { references.alike(units.unit(idx)).map(|place| usual[place]).sum() };
        let scores: Vec<f32> = references.beats.iter().map(score).collect();
        // Where most beats of this shape come early, its P wave is that of the others.
        let dominant = references.around(greatest(&scores), &units).map(|(idx, alike)| {
            let in_time =
                alike.iter().copied().filter(|&idx| timeliness(positions, idx) >= IN_TIME).collect::<Vec<_>>();
            template(shapes, if in_time.len() < LEAST_IN_TIME_N { &alike } else { &in_time }, idx)
        });
        let dominant = dominant.unwrap_or_else(|| vec![vec![0.0; SHAPE_N]; shapes.leads.len()]);
        let mut dominant_unit = Vec::new();
        append_unit(dominant.iter().map(|lead| &lead[QRS]), &mut dominant_unit);
        let to_dominant: Vec<f32> = units.each().map(|unit| dot(unit, &dominant_unit)).collect();

        let unlike: Vec<usize> = everyone.iter().copied().filter(|&idx| to_dominant[idx] < UNLIKE).collect();
        let unlike = References::of(&units, spread(&unlike));
        let kinds: Vec<f32> = unlike.beats.iter().map(|&idx| unlike.share_alike(units.unit(idx))).collect();
        let other = unlike.around(greatest(&kinds), &units).filter(|(_, alike)| alike.len() >= LEAST_KIND_N);
        let other = other.map(|(idx, alike)| template(shapes, &alike, idx));

        let to_previous = |idx: usize| if idx == 0 { 1.0 } else { dot(units.unit(idx), units.unit(idx - 1)) };
        let to_previous = (0..shapes.beat_n).map(to_previous).collect();
        Self { dominant, other, density, to_dominant, to_previous }
    }
}

/// The QRS complexes of all beats, each as a vector of length 1.
struct Units {
    unit_n: usize,
    samples: Vec<f32>,
}

impl Units {
    fn of(shapes: &Shapes) -> Self {
        let unit_n = shapes.leads.len() * QRS.len();
        let mut samples = Vec::with_capacity(shapes.beat_n * unit_n);
        for beat_idx in 0..shapes.beat_n {
            let leads = (0..shapes.leads.len()).map(|lead_idx| &shapes.of(lead_idx, beat_idx)[QRS]);
            append_unit(leads, &mut samples);
        }
        Self { unit_n, samples }
    }

    fn unit(&self, beat_idx: usize) -> &[f32] {
        &self.samples[beat_idx * self.unit_n..][..self.unit_n]
    }

    fn each(&self) -> impl Iterator<Item = &[f32]> {
        self.samples.chunks_exact(self.unit_n)
    }
}

/// Beats that others are compared with, laid out so that one beat is compared with [`BLOCK_N`] of them at once.
struct References {
    /// Indices of the beats.
    beats: Vec<usize>,
    /// For each block the first sample of all of its units, then the second one, and so on; 0 where there are no more beats.
    blocks: Vec<Vec<[f32; BLOCK_N]>>,
}

impl References {
    fn of(units: &Units, beats: Vec<usize>) -> Self {
        let block = |beats: &[usize]| {
            let mut rows = vec![[0.0; BLOCK_N]; units.unit_n];
            for (place, &idx) in beats.iter().enumerate() {
                rows.iter_mut().zip(units.unit(idx)).for_each(|(row, sample)| row[place] = *sample);
            }
            rows
        };
        Self { blocks: beats.chunks(BLOCK_N).map(block).collect(), beats }
    }

    /// The places of those that a beat is like.
    fn alike(&self, unit: &[f32]) -> impl Iterator<Item = usize> {
        let places = |(block_idx, block): (usize, &Vec<[f32; BLOCK_N]>)| {
            let cosines = cosines(block, unit);
            (0..BLOCK_N).filter(move |&idx| cosines[idx] > ALIKE).map(move |idx| block_idx * BLOCK_N + idx)
        };
        self.blocks.iter().enumerate().flat_map(places)
    }

    /// The share of those that a beat is like.
    fn share_alike(&self, unit: &[f32]) -> f32 {
        let alike_n = |block: &Vec<[f32; BLOCK_N]>| -> u32 {
            cosines(block, unit).iter().map(|cosine| u32::from(*cosine > ALIKE)).sum()
        };
        self.blocks.iter().map(alike_n).sum::<u32>() as f32 / self.beats.len().max(1) as f32
    }

    /// The beat at a place and all beats here that it is like.
    fn around(&self, place: Option<usize>, units: &Units) -> Option<(usize, Vec<usize>)> {
        let idx = self.beats[place?];
        Some((idx, self.alike(units.unit(idx)).map(|place| self.beats[place]).collect()))
    }
}

fn cosines(block: &[[f32; BLOCK_N]], unit: &[f32]) -> [f32; BLOCK_N] {
    let mut sums = [0.0; BLOCK_N];
    for (row, sample) in block.iter().zip(unit) {
        for place in 0..BLOCK_N {
            sums[place] += row[place] * sample;
        }
    }
    sums
}

/// At most [`REFERENCE_N`] of the beats, at equal steps.
fn spread(beats: &[usize]) -> Vec<usize> {
    let kept_n = beats.len().min(REFERENCE_N);
    (0..kept_n).map(|idx| beats[idx * beats.len() / kept_n]).collect()
}

/// The place of the greatest, of equal ones the first.
fn greatest(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
}

/// The RR interval before a beat as a part of the longer ones around, 1 at most; 1 for the first beat.
pub(crate) fn timeliness(positions: &[i64], beat_idx: usize) -> f32 {
    let Some(own_idx) = beat_idx.checked_sub(1) else { return 1.0 };
    let interval = |idx: usize| (positions[idx + 1] - positions[idx]) as f32;
    let mut around = [0.0; 2 * EARLY_BEAT_N + 1];
    let (start, end) = (own_idx.saturating_sub(EARLY_BEAT_N), (own_idx + EARLY_BEAT_N + 1).min(positions.len() - 1));
    let around = &mut around[..end - start];
    around.iter_mut().zip(start..).for_each(|(place, idx)| *place = interval(idx));
    let place = (around.len() - 1) * 9 / 10;
    let long = *around.select_nth_unstable_by(place, f32::total_cmp).1;
    if long > 0.0 { (interval(own_idx) / long).clamp(0.0, 1.0) } else { 1.0 }
}

/// 1 for a narrow QRS complex, less for a wide one: by the narrowest lead.
fn narrowness(shapes: &Shapes, beat_idx: usize) -> f32 {
    let widths = (0..shapes.leads.len()).map(|lead_idx| width_ms(&slopes(shapes.of(lead_idx, beat_idx))));
    (NARROW_MS / widths.fold(f32::INFINITY, f32::min).max(NARROW_MS)).min(1.0)
}

/// The median of some beats, sample by sample; of `alone` without any.
fn template(shapes: &Shapes, members: &[usize], alone: usize) -> Vec<Vec<f32>> {
    /// Samples at a time: one line of a processor's cache.
    const STRIP_N: usize = 16;
    let members = if members.is_empty() { &[alone][..] } else { members };
    let mut values = vec![Vec::new(); STRIP_N];
    let mut lead = |lead_idx: usize| {
        let mut medians = Vec::with_capacity(SHAPE_N);
        for start in (0..SHAPE_N).step_by(STRIP_N) {
            values.iter_mut().for_each(Vec::clear);
            for &idx in members {
                let strip = &shapes.of(lead_idx, idx)[start..(start + STRIP_N).min(SHAPE_N)];
                values.iter_mut().zip(strip).for_each(|(values, sample)| values.push(*sample));
            }
            medians.extend(values.iter_mut().take(SHAPE_N - start).map(|values| median(values)));
        }
        medians
    };
    (0..shapes.leads.len()).map(&mut lead).collect()
}

/// Appends QRS complexes side by side, each less its mean, together of length 1 (or 0 where there is nothing).
fn append_unit<'a>(leads: impl Iterator<Item = &'a [f32]>, to: &mut Vec<f32>) {
    let start = to.len();
    for qrs in leads {
        let mean = sum(qrs, |sample| sample) / qrs.len() as f32;
        to.extend(qrs.iter().map(|sample| sample - mean));
    }
    let unit = &mut to[start..];
    let length = dot(unit, unit).sqrt();
    if length > 0.0 {
        unit.iter_mut().for_each(|sample| *sample /= length);
    }
}
