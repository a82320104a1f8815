//! Owns the decision in time: which beats are settled, and what they say of those that are still open.
//!
//! Every hop of the record brings candidates. The open stretch, from the last settled beat to the newest candidate, is
//! then decided anew, and what has the look-ahead behind it is settled for good. What the search goes by (the QRS level,
//! the RR interval, the shapes of beats and of other waves) comes from the beats settled last and from those that the
//! search before found in the open stretch.
//!
//! Against being caught in a wrong idea of the record: the level is never far above the largest energies of the last
//! seconds; beats are forgotten after `memory_s`; with too few of them the search starts over without any rhythm.
//!
//! Invariants: what is settled does not change; memory does not grow with the length of the record (candidates of the
//! open stretch, and fixed numbers of stretches, beats and shapes). The module knows no samples.

use std::collections::VecDeque;

use super::{
    DetectorParams,
    constants::{THRESHOLD_PERCENT, TUNED},
    energy::{Candidate, SHAPE_N, Stretch},
    logarithm::ln,
    quantiles::{Quantiles, RollingQuantile},
    sequence::{Judged, Open, Search, Surroundings, best_sequence},
};

/// A beat that is settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// Position in working samples.
    pub(super) work_idx: i64,
    /// The most plausible next one.
    pub(super) next_idx: Option<i64>,
}

/// The state of the decision.
pub(super) struct Decision {
    work_hz: f32,
    look_ahead_n: i64,
    refractory_s: f32,
    threshold: f32,
    /// Candidates: first some that are settled, kept as rivals, then the open ones.
    judged: Vec<Judged>,
    settled_n: usize,
    /// The last settled beat.
    anchor: Option<Judged>,
    /// The most plausible beats among the open candidates, as indices into them.
    path: Vec<usize>,
    recent: VecDeque<Beat>,
    /// Largest energies of the latest stretches, and of those of the last minute.
    latest_peaks: RollingQuantile,
    minute_peaks: RollingQuantile,
    beat_shapes: Shapes,
    other_shapes: Shapes,
    search: Search,
    /// For the level and for the RR interval.
    energies: Quantiles,
    intervals: Quantiles,
}

/// What of a beat is needed later.
#[derive(Clone, Copy)]
struct Beat {
    work_idx: i64,
    energy: f32,
}

impl Beat {
    fn of(judged: &Judged) -> Self {
        Self { work_idx: judged.candidate.work_idx, energy: judged.candidate.energy }
    }
}

/// Energy of QRS complexes by the largest energy of each stretch.
struct Levels {
    /// Over the latest stretches.
    here: f32,
    /// No QRS complex has less: a part of the level of the last minute.
    floor: f32,
}

impl Decision {
    pub(super) fn new(work_hz: f32, params: &DetectorParams) -> Self {
        Self {
            work_hz,
            look_ahead_n: (params.look_ahead_s * f64::from(work_hz)).round() as i64,
            refractory_s: (params.refractory_ms / 1000.0) as f32,
            threshold: (params.threshold_percent / 100.0) as f32,
            judged: Vec::new(),
            settled_n: 0,
            anchor: None,
            path: Vec::new(),
            recent: VecDeque::new(),
            latest_peaks: RollingQuantile::new(TUNED.level_stretch_n),
            minute_peaks: RollingQuantile::new(TUNED.floor_stretch_n),
            beat_shapes: Shapes::default(),
            other_shapes: Shapes::default(),
            search: Search::new(work_hz),
            energies: Quantiles::default(),
            intervals: Quantiles::default(),
        }
    }

    /// Takes the candidates of a hop and what its energy is like; adds the beats that become settled.
    ///
    /// `known_idx`: all candidates before are known. `end_idx`: where the record ends, if it does.
    pub(super) fn hop(
        &mut self,
        stretch: Option<Stretch>,
        candidates: &mut Vec<Candidate>,
        known_idx: i64,
        end_idx: Option<i64>,
        settled: &mut Vec<Settled>,
    ) {
        if let Some(stretch) = stretch {
            self.latest_peaks.push(stretch.peak);
            self.minute_peaks.push(stretch.peak);
        }
        for candidate in candidates.drain(..) {
            let likeness = self.likeness(&candidate.shape);
            let judged = Judged::new(candidate, likeness, &self.judged, self.work_hz);
            self.judged.push(judged);
        }
        self.decide(end_idx.unwrap_or(known_idx));
        self.settle(if end_idx.is_some() { i64::MAX } else { known_idx - self.look_ahead_n }, settled);
    }

    /// How many candidates, beats and stretches are kept.
    #[cfg(test)]
    pub(super) fn kept_n(&self) -> usize {
        self.judged.capacity() + self.recent.capacity() + self.path.capacity()
    }

    /// Evidence from the shape: whether it is nearer to the latest beats than to the latest other waves.
    fn likeness(&self, shape: &[f32; SHAPE_N]) -> f32 {
        let (Some(beat), Some(other)) = (self.beat_shapes.distance(shape), self.other_shapes.distance(shape)) else {
            return 0.0;
        };
        let ratio = (other + TUNED.likeness_floor) / (beat + TUNED.likeness_floor);
        (TUNED.likeness_weight * ln(ratio)).clamp(-TUNED.likeness_max, TUNED.likeness_max)
    }

    fn decide(&mut self, end_idx: i64) {
        /// With fewer beats to go by, the search starts over.
        const FEW_BEAT_N: usize = 4;
        let levels = self.levels();
        if levels.here.is_nan() || levels.here <= 0.0 {
            self.path.clear();
            return;
        }
        let open = Open {
            anchor: self.anchor.as_ref(),
            candidates: &self.judged[self.settled_n..],
            end_idx,
            step_s: 1.0 / self.work_hz,
        };
        let (search, path) = (&mut self.search, &mut self.path);
        if self.recent.len() + path.len() < FEW_BEAT_N {
            let first_part = (TUNED.first_threshold_percent / THRESHOLD_PERCENT) as f32;
            let around = Surroundings {
                level: levels.here,
                threshold: self.threshold * first_part,
                rr_s: None,
                refractory_s: self.refractory_s,
            };
            best_sequence(&open, &around, search, path);
        }
        // As long as little is settled, most of what the search goes by comes from the search before.
        let round_n = if self.recent.len() < TUNED.level_before_n { 2 } else { 1 };
        for _ in 0..round_n {
            let local = |before_n: usize, after_n: usize| {
                let before = self.recent.range(self.recent.len().saturating_sub(before_n)..).copied();
                before.chain(path.iter().take(after_n).map(|&idx| Beat::of(&open.candidates[idx])))
            };
            let energies = local(TUNED.level_before_n, TUNED.level_after_n).map(|beat| beat.energy);
            let level = self.energies.take(energies).at(TUNED.level_quantile);
            let mut times = local(TUNED.rr_before_n, TUNED.rr_after_n).map(|beat| beat.work_idx);
            let mut last = times.next().unwrap_or(0);
            let intervals = times.map(|time| (time - std::mem::replace(&mut last, time)) as f32 / self.work_hz);
            let rr_s = self.intervals.take(intervals).at(0.5);
            let around = Surroundings {
                level: level.min(TUNED.level_guard * levels.here).max(levels.floor),
                threshold: self.threshold,
                rr_s: Some(if rr_s > 0.0 { rr_s.clamp(0.3, 2.0) } else { 0.8 }),
                refractory_s: self.refractory_s,
            };
            best_sequence(&open, &around, search, path);
        }
    }

    fn levels(&self) -> Levels {
        let floor = TUNED.level_floor * self.minute_peaks.at(TUNED.stretch_quantile);
        Levels { here: self.latest_peaks.at(TUNED.stretch_quantile).max(floor), floor }
    }

    /// Makes final what lies before `edge_idx` and forgets what is not needed any more.
    fn settle(&mut self, edge_idx: i64, settled: &mut Vec<Settled>) {
        let open = &self.judged[self.settled_n..];
        let open_n = open.iter().take_while(|judged| judged.candidate.work_idx < edge_idx).count();
        let beat_n = self.path.iter().take_while(|&&idx| idx < open_n).count();
        let mut next_beat = 0;
        for (idx, judged) in open[..open_n].iter().enumerate() {
            if self.path.get(next_beat) != Some(&idx) {
                self.other_shapes.push(&judged.candidate.shape);
                continue;
            }
            next_beat += 1;
            let next_idx = self.path.get(next_beat).map(|&idx| open[idx].candidate.work_idx);
            settled.push(Settled { work_idx: judged.candidate.work_idx, next_idx });
            self.recent.push_back(Beat::of(judged));
            self.beat_shapes.push(&judged.candidate.shape);
            self.anchor = Some(judged.clone());
        }
        self.path.drain(..beat_n);
        self.path.iter_mut().for_each(|idx| *idx -= open_n);
        self.settled_n += open_n;

        let since = |seconds: f32| edge_idx.saturating_sub((seconds * self.work_hz) as i64);
        let rival_idx = since(TUNED.rival_s);
        let dropped_n = self.judged[..self.settled_n].partition_point(|judged| judged.candidate.work_idx < rival_idx);
        self.judged.drain(..dropped_n);
        self.settled_n -= dropped_n;
        let needed_n = TUNED.level_before_n.max(TUNED.rr_before_n);
        let oldest_idx = since(TUNED.memory_s);
        while self.recent.front().is_some_and(|beat| self.recent.len() > needed_n || beat.work_idx < oldest_idx) {
            self.recent.pop_front();
        }
    }
}

/// The latest shapes of one sort.
#[derive(Default)]
struct Shapes {
    /// One row a point of the shapes: they are compared side by side.
    points: [[f32; Self::MAX_N]; SHAPE_N],
    powers: [f32; Self::MAX_N],
    shape_n: usize,
    oldest: usize,
}

impl Shapes {
    /// So many are remembered.
    const MAX_N: usize = 16;

    fn push(&mut self, shape: &[f32; SHAPE_N]) {
        self.points.iter_mut().zip(shape).for_each(|(row, point)| row[self.oldest] = *point);
        self.powers[self.oldest] = power(shape);
        self.shape_n = Self::MAX_N.min(self.shape_n + 1);
        self.oldest = (self.oldest + 1) % Self::MAX_N;
    }

    /// How far the shape is from the second nearest one: 0 for the same, 1 for an unrelated one, 2 for its opposite. The
    /// nearest one alone may be a mistake. `None` as long as there are few.
    fn distance(&self, shape: &[f32; SHAPE_N]) -> Option<f32> {
        const FEW_N: usize = 4;
        if self.shape_n < FEW_N {
            return None;
        }
        // First the products, then the distances.
        let mut distances = [0.0f32; Self::MAX_N];
        for (row, point) in self.points.iter().zip(shape) {
            distances.iter_mut().zip(row).for_each(|(product, other)| *product += point * other);
        }
        let power = power(shape);
        for (distance, other_power) in distances.iter_mut().zip(&self.powers) {
            let both = power + other_power;
            let both = if both > f32::MIN_POSITIVE { both } else { f32::MIN_POSITIVE };
            *distance = 1.0 - 2.0 * *distance / both;
        }
        let (mut nearest, mut second) = (2.0f32, 2.0f32);
        for &distance in &distances[..self.shape_n] {
            // Without a branch: which one is nearest cannot be guessed.
            let farther = if distance > nearest { distance } else { nearest };
            second = if farther < second { farther } else { second };
            nearest = if distance < nearest { distance } else { nearest };
        }
        Some(second)
    }
}

fn power(shape: &[f32; SHAPE_N]) -> f32 {
    // Four sums at once.
    let mut sums = [0.0f32; 4];
    for points in shape.as_chunks::<4>().0 {
        sums.iter_mut().zip(points).for_each(|(sum, point)| *sum += point * point);
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}
