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
    measures::width_ms,
    shapes::{QRS, SHAPE_N, Shapes, median},
};

/// Beats that all others are compared with.
const REFERENCE_N: usize = 256;
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
        let units: Vec<f32> = (0..shapes.beat_n).flat_map(|beat_idx| unit_qrs(shapes, beat_idx)).collect();
        let unit_n = shapes.leads.len() * QRS.len();
        let unit = |beat_idx: usize| &units[beat_idx * unit_n..][..unit_n];
        let everyone: Vec<usize> = (0..shapes.beat_n).collect();
        let references = spread(&everyone);
        let density: Vec<f32> = (0..shapes.beat_n).map(|idx| share_alike(unit(idx), &references, unit)).collect();
        let timely = timeliness(positions);
        let usual = |idx: usize| density[idx] * timely[idx] * timely[idx] * narrowness(shapes, idx);
        let scores: Vec<f32> = references
            .iter()
            .map(|&idx| {
                let alike = references.iter().filter(|&&other| dot(unit(other), unit(idx)) > ALIKE);
                alike.map(|&other| usual(other)).sum()
            })
            .collect();
        let most_usual = greatest(&scores).map(|place| references[place]);
        let alike = |to: usize, among: &[usize]| -> Vec<usize> {
            among.iter().copied().filter(|&idx| dot(unit(idx), unit(to)) > ALIKE).collect()
        };
        // Where most beats of this shape come early, its P wave is that of the others.
        let dominant = most_usual.map(|idx| {
            let members = alike(idx, &references);
            let in_time: Vec<usize> = members.iter().copied().filter(|&idx| timely[idx] >= IN_TIME).collect();
            template(shapes, if in_time.len() < LEAST_IN_TIME_N { &members } else { &in_time }, idx)
        });
        let dominant = dominant.unwrap_or_else(|| vec![vec![0.0; SHAPE_N]; shapes.leads.len()]);
        let dominant_unit = unit_of(dominant.iter().map(|lead| &lead[QRS]));
        let to_dominant: Vec<f32> = (0..shapes.beat_n).map(|idx| dot(unit(idx), &dominant_unit)).collect();

        let unlike: Vec<usize> = everyone.iter().copied().filter(|&idx| to_dominant[idx] < UNLIKE).collect();
        let unlike = spread(&unlike);
        let kinds: Vec<f32> = unlike.iter().map(|&idx| share_alike(unit(idx), &unlike, unit)).collect();
        let members = greatest(&kinds).map(|place| (unlike[place], alike(unlike[place], &unlike)));
        let other = members.filter(|(_, members)| members.len() >= LEAST_KIND_N);
        let other = other.map(|(idx, members)| template(shapes, &members, idx));

        let to_previous =
            (0..shapes.beat_n).map(|idx| if idx == 0 { 1.0 } else { dot(unit(idx), unit(idx - 1)) }).collect();
        Self { dominant, other, density, to_dominant, to_previous }
    }
}

/// At most [`REFERENCE_N`] of the beats, at equal steps.
fn spread(beats: &[usize]) -> Vec<usize> {
    let kept_n = beats.len().min(REFERENCE_N);
    (0..kept_n).map(|idx| beats[idx * beats.len() / kept_n]).collect()
}

fn share_alike<'a>(unit: &[f32], references: &[usize], of: impl Fn(usize) -> &'a [f32]) -> f32 {
    let alike_n = references.iter().filter(|&&idx| dot(of(idx), unit) > ALIKE).count();
    alike_n as f32 / references.len().max(1) as f32
}

/// The place of the greatest, of equal ones the first.
fn greatest(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
}

/// For each beat, the RR interval before it as a part of the longer ones around, 1 at most; 1 for the first beat.
pub(crate) fn timeliness(positions: &[i64]) -> Vec<f32> {
    let intervals: Vec<f32> = positions.windows(2).map(|pair| (pair[1] - pair[0]) as f32).collect();
    let part = |idx: usize| {
        let around = &intervals[idx.saturating_sub(EARLY_BEAT_N)..(idx + EARLY_BEAT_N + 1).min(intervals.len())];
        let mut around = around.to_vec();
        let place = (around.len() - 1) * 9 / 10;
        let long = *around.select_nth_unstable_by(place, f32::total_cmp).1;
        if long > 0.0 { (intervals[idx] / long).clamp(0.0, 1.0) } else { 1.0 }
    };
    let parts = (0..intervals.len()).map(part);
    std::iter::once(1.0).take(positions.len()).chain(parts).collect()
}

/// 1 for a narrow QRS complex, less for a wide one: by the narrowest lead.
fn narrowness(shapes: &Shapes, beat_idx: usize) -> f32 {
    let widths = (0..shapes.leads.len()).map(|lead_idx| width_ms(&shapes.of(lead_idx, beat_idx)[QRS]));
    (NARROW_MS / widths.fold(f32::INFINITY, f32::min).max(NARROW_MS)).min(1.0)
}

/// The median of some beats, sample by sample; of `alone` without any.
fn template(shapes: &Shapes, members: &[usize], alone: usize) -> Vec<Vec<f32>> {
    let members = if members.is_empty() { &[alone][..] } else { members };
    let lead = |lead_idx: usize| {
        let sample = |sample_idx: usize| {
            let mut values: Vec<f32> = members.iter().map(|&idx| shapes.of(lead_idx, idx)[sample_idx]).collect();
            median(&mut values)
        };
        (0..SHAPE_N).map(sample).collect()
    };
    (0..shapes.leads.len()).map(lead).collect()
}

fn unit_qrs(shapes: &Shapes, beat_idx: usize) -> Vec<f32> {
    unit_of((0..shapes.leads.len()).map(|lead_idx| &shapes.of(lead_idx, beat_idx)[QRS]))
}

/// QRS complexes side by side, each less its mean, together of length 1 (or 0 where there is nothing).
fn unit_of<'a>(leads: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut unit = Vec::with_capacity(2 * QRS.len());
    for qrs in leads {
        let mean = qrs.iter().sum::<f32>() / qrs.len() as f32;
        unit.extend(qrs.iter().map(|sample| sample - mean));
    }
    let length = dot(&unit, &unit).sqrt();
    if length > 0.0 {
        unit.iter_mut().for_each(|sample| *sample /= length);
    }
    unit
}

/// Eight sums at once, so that the order of additions does not depend on the machine.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        (0..8).for_each(|idx| sums[idx] += a[idx] * b[idx]);
    }
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest
}
