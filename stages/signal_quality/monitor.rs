//! Owns the judgement of a window: whether beats found in it can be trusted, and if not, why.
//!
//! Each lead is judged by itself, and all together by the best one:
//!
//! - **missing**: the part of samples that are invalid;
//! - **flat**: the part of time in which the lead hardly moves (of each second: less than a fiftieth of what the lead's
//!   windows usually span, or no change at all). Flat stretches and rails are the first of the checks of Zhao & Zhang
//!   (2018) and of the 2011 PhysioNet/CinC challenge (Silva, Moody & Celi);
//! - **clipped**: the part of samples that repeat the largest or smallest value of the window for 16 ms or more;
//! - **noise**: the probability that the detector errs in the window, by how far QRS complexes stand out of what lies
//!   between them (after the signal quality indices of Li, Mark & Clifford 2008, which ask the same of power spectra and
//!   of two detectors): with beats, how far the weaker ones are above the larger ones of the other deflections. The
//!   weights of a logistic regression on the 22 records of DS1 with noise added are in [`NOISE`] and [`NOISE_ALONE`].
//!
//! With beats, the rhythm is judged too, on the row for all leads (as Orphanidou et al. 2015 do, with limits that leave
//! room for arrhythmia): **no beats** for three seconds or more, or an **implausible rhythm** of more than 250 beats a
//! minute.
//!
//! Invariants: windows lie side by side from the first sample on, and only the last one may be shorter; a score is
//! between 0 and 1; what is given does not depend on how samples were cut when pushed
//! (`tests::chunks_do_not_matter`); memory does not grow as long as beats keep up with samples.

use std::collections::VecDeque;

use crate::detect_peaks::detector::{QrsEnergy, qrs_energy};

/// Why a window cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Samples are invalid.
    Missing,
    /// The lead does not move.
    Flat,
    /// Samples lie at a limit.
    Clipped,
    /// QRS complexes do not stand out.
    Noise,
    /// No beat was found for too long.
    NoBeats,
    /// More beats than a heart has.
    ImplausibleRhythm,
}

impl Reason {
    /// Its name in the table.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Flat => "flat",
            Self::Clipped => "clipped",
            Self::Noise => "noise",
            Self::NoBeats => "no_beats",
            Self::ImplausibleRhythm => "implausible_rhythm",
        }
    }
}

/// What a window is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// First sample.
    pub start_idx: i64,
    /// One past the last sample.
    pub end_idx: i64,
    /// Which lead; `None` for all together.
    pub lead_idx: Option<usize>,
    /// 0 where nothing can be trusted, 1 where nothing speaks against it.
    pub score: f32,
    /// What lowers the score most; `None` at [`TRUSTED`] and above.
    pub reason: Option<Reason>,
}

/// A window with this score or more gives no reason for doubt: the detector is more likely to be right than to err in it.
pub const TRUSTED: f32 = 0.5;

/// Intercept and weights of the logarithms of margin and contrast, see [`Contrast`]: with beats.
const NOISE: [f32; 3] = [-0.93, 4.0, -0.92];
/// Without beats: intercept and weight of the logarithm of the contrast.
const NOISE_ALONE: [f32; 2] = [-3.38, 1.91];

/// Signal beyond both ends of a window that the filters and RR intervals need.
const MARGIN_S: f64 = 0.5;
/// A pause of a healthy heart is shorter (Orphanidou et al. 2015).
const NO_BEATS_S: f64 = 3.0;
/// The shortest plausible median RR interval.
const SHORTEST_RR_S: f64 = 0.24;
/// The score that an implausible rhythm leaves.
const RHYTHM_SCORE: f32 = 0.3;
/// A lead that spans less than this part of its usual span within a second is flat.
const FLAT_PART: f32 = 0.02;
/// So many windows make the usual span.
const USUAL_WINDOW_N: usize = 30;

/// Judges a stream of samples, window by window.
pub struct Monitor {
    hz: f64,
    window_n: usize,
    margin_n: usize,
    /// Samples from `first_idx` on.
    leads: Vec<Vec<f32>>,
    first_idx: i64,
    /// Start of the next window.
    next_idx: i64,
    /// What each lead's windows span.
    spans: Vec<VecDeque<f32>>,
    /// Beats that may still matter, and up to where they are known; `None` without beats.
    beats: Option<(VecDeque<i64>, i64)>,
    judgements: Vec<Judgement>,
}

impl Monitor {
    /// For signals alone. `window_s` is the length of a window.
    #[must_use]
    pub fn new(lead_n: usize, sampling_frequency_hz: f64, window_s: f64) -> Self {
        let n = |seconds: f64| ((seconds * sampling_frequency_hz).round() as usize).max(1);
        Self {
            hz: sampling_frequency_hz,
            window_n: n(window_s),
            margin_n: n(MARGIN_S),
            leads: vec![Vec::new(); lead_n],
            first_idx: 0,
            next_idx: 0,
            spans: vec![VecDeque::new(); lead_n],
            beats: None,
            judgements: Vec::new(),
        }
    }

    /// For signals and the beats found in them.
    #[must_use]
    pub fn with_beats(lead_n: usize, sampling_frequency_hz: f64, window_s: f64) -> Self {
        Self { beats: Some((VecDeque::new(), 0)), ..Self::new(lead_n, sampling_frequency_hz, window_s) }
    }

    /// The next samples of every lead, in mV and as many of each lead; what is not finite is invalid.
    ///
    /// # Panics
    /// If there are not as many leads as `new` was told, or if they differ in length.
    pub fn push(&mut self, leads: &[&[f32]]) {
        assert_eq!(leads.len(), self.leads.len(), "as many leads as the monitor was made for");
        assert!(leads.iter().all(|lead| lead.len() == leads[0].len()), "leads of one length");
        self.leads.iter_mut().zip(leads).for_each(|(kept, lead)| kept.extend_from_slice(lead));
        self.judge_whole();
    }

    /// The next beats, in ascending order, all that there are before `known_idx`.
    pub fn push_beats(&mut self, beats: &[i64], known_idx: i64) {
        if let Some((kept, known)) = &mut self.beats {
            kept.extend(beats);
            *known = known_idx;
        }
        self.judge_whole();
    }

    /// The judgements since the last call: of each window one a lead, then one of all.
    pub fn drain(&mut self) -> impl Iterator<Item = Judgement> + '_ {
        self.judgements.drain(..)
    }

    /// The judgements that [`Self::drain`] has not given, that of the last window included.
    #[must_use]
    pub fn finish(mut self) -> Vec<Judgement> {
        if let Some((_, known)) = &mut self.beats {
            *known = i64::MAX;
        }
        self.judge_whole();
        while self.next_idx < self.end_idx() {
            self.judge(self.end_idx().min(self.next_idx + self.window_n as i64));
        }
        self.judgements
    }

    fn end_idx(&self) -> i64 {
        self.first_idx + self.leads.first().map_or(0, Vec::len) as i64
    }

    /// The windows that all is known of.
    fn judge_whole(&mut self) {
        loop {
            let end_idx = self.next_idx + self.window_n as i64;
            let needed_idx = end_idx + self.margin_n as i64;
            let known = self.beats.as_ref().map_or(i64::MAX, |(_, known)| *known);
            if self.end_idx() < needed_idx || known < needed_idx {
                return;
            }
            self.judge(end_idx);
        }
    }

    fn judge(&mut self, end_idx: i64) {
        let start_idx = self.next_idx;
        let margin_n = self.margin_n as i64;
        let before_n = margin_n.min(start_idx - self.first_idx) as usize;
        let (from, to) = ((start_idx - self.first_idx) as usize, (end_idx - self.first_idx) as usize);
        let beats: Option<Vec<i64>> = self.beats.as_ref().map(|(beats, _)| beats.iter().copied().collect());
        let mut best: Option<(f32, Option<Reason>)> = None;
        for (lead_idx, lead) in self.leads.iter().enumerate() {
            let around = &lead[from - before_n..lead.len().min(to + self.margin_n)];
            let local: Option<Vec<i64>> =
                beats.as_ref().map(|beats| beats.iter().map(|beat| beat - start_idx + before_n as i64).collect());
            let window = Window { around, before_n, window_n: to - from, hz: self.hz };
            let (score, reason) = window.judge(&mut self.spans[lead_idx], local.as_deref());
            self.judgements.push(Judgement { start_idx, end_idx, lead_idx: Some(lead_idx), score, reason });
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, reason));
            }
        }
        let (mut score, mut reason) = best.unwrap_or((0.0, Some(Reason::Missing)));
        if let Some(rhythm) = beats.and_then(|beats| implausible(&beats, start_idx, end_idx, self.hz))
            && score > RHYTHM_SCORE
        {
            (score, reason) = (RHYTHM_SCORE, Some(rhythm));
        }
        self.judgements.push(Judgement { start_idx, end_idx, lead_idx: None, score, reason });

        self.next_idx = end_idx;
        let kept_idx = (end_idx - margin_n).max(self.first_idx);
        let dropped_n = (kept_idx - self.first_idx) as usize;
        self.leads.iter_mut().for_each(|lead| drop(lead.drain(..dropped_n)));
        self.first_idx = kept_idx;
        if let Some((beats, _)) = &mut self.beats {
            // The last beat of the window is needed for the first interval of the next one.
            while beats.get(1).is_some_and(|&second| second < end_idx) {
                beats.pop_front();
            }
        }
    }
}

/// What is wrong with the rhythm, if anything.
fn implausible(beats: &[i64], start_idx: i64, end_idx: i64, hz: f64) -> Option<Reason> {
    let last_before = beats.iter().copied().filter(|&beat| beat < start_idx).next_back();
    let inside: Vec<i64> = beats.iter().copied().filter(|beat| (start_idx..end_idx).contains(beat)).collect();
    let marks: Vec<i64> = last_before.into_iter().chain(inside.iter().copied()).collect();
    let mut intervals: Vec<i64> = marks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // What is known of the intervals at both ends.
    let first_n = inside.first().map_or(end_idx, |&beat| beat) - last_before.unwrap_or(start_idx).max(start_idx);
    let last_n = end_idx - inside.last().copied().unwrap_or(start_idx);
    let longest_n = intervals.iter().copied().chain([first_n, last_n]).max().unwrap_or(0);
    if longest_n as f64 >= NO_BEATS_S * hz {
        return Some(Reason::NoBeats);
    }
    intervals.sort_unstable();
    let median = intervals.get(intervals.len() / 2)?;
    ((*median as f64) < SHORTEST_RR_S * hz).then_some(Reason::ImplausibleRhythm)
}

/// One window of one lead, with what is around it.
struct Window<'a> {
    around: &'a [f32],
    before_n: usize,
    window_n: usize,
    hz: f64,
}

impl Window<'_> {
    fn inside(&self) -> &[f32] {
        &self.around[self.before_n..self.before_n + self.window_n]
    }

    fn judge(&self, spans: &mut VecDeque<f32>, beats: Option<&[i64]>) -> (f32, Option<Reason>) {
        let noise = Contrast::of(self, beats).map_or(0.0, |contrast| contrast.score());
        let scores = [
            (1.0 - self.missing_part(), Reason::Missing),
            (1.0 - self.flat_part(spans), Reason::Flat),
            ((1.0 - 5.0 * self.clipped_part()).max(0.0), Reason::Clipped),
            (noise, Reason::Noise),
        ];
        let worst = scores.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("four scores");
        (worst.0, (worst.0 < TRUSTED).then_some(worst.1))
    }

    fn missing_part(&self) -> f32 {
        self.inside().iter().filter(|sample| !sample.is_finite()).count() as f32 / self.window_n as f32
    }

    fn flat_part(&self, spans: &mut VecDeque<f32>) -> f32 {
        let span = |samples: &[f32]| {
            let valid = samples.iter().copied().filter(|sample| sample.is_finite());
            let (low, high) =
                valid.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
            (high - low).max(0.0)
        };
        let second_n = (self.hz as usize).clamp(1, self.window_n.max(1));
        let seconds: Vec<f32> = self.inside().chunks(second_n).map(span).collect();
        let largest = seconds.iter().copied().fold(0.0, f32::max);
        if largest > 0.0 {
            spans.push_back(largest);
        }
        if spans.len() > USUAL_WINDOW_N {
            spans.pop_front();
        }
        let mut sorted: Vec<f32> = spans.iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        seconds.iter().filter(|&&span| span <= FLAT_PART * usual).count() as f32 / seconds.len() as f32
    }

    fn clipped_part(&self) -> f32 {
        let valid = || self.inside().iter().copied().filter(|sample| sample.is_finite());
        let (low, high) = valid().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
        if low >= high {
            return 0.0;
        }
        let least_n = (0.016 * self.hz).ceil().max(4.0) as usize;
        let runs = self.inside().chunk_by(|a, b| a == b);
        let at_limit = runs.filter(|run| run.len() >= least_n && (run[0] == low || run[0] == high));
        at_limit.map(<[f32]>::len).sum::<usize>() as f32 / self.window_n as f32
    }
}

/// How far QRS complexes stand out.
#[derive(Clone, Copy, Debug)]
struct Contrast {
    /// Logarithm of the upper quartile of the largest energies of each second over the median energy.
    log_contrast: f32,
    /// Logarithm of the lower quartile of the energies at beats over the upper quartile of the largest ones between
    /// them; `None` without beats.
    log_margin: Option<f32>,
}

impl Contrast {
    /// The probability that the detector does not err.
    fn score(&self) -> f32 {
        match self.log_margin {
            Some(log_margin) => logistic(NOISE[0] + NOISE[1] * log_margin + NOISE[2] * self.log_contrast),
            None => logistic(NOISE_ALONE[0] + NOISE_ALONE[1] * self.log_contrast),
        }
    }

    /// `None` where there is no energy.
    fn of(window: &Window<'_>, beats: Option<&[i64]>) -> Option<Self> {
        let QrsEnergy { energy, factor, hz } = qrs_energy(window.around, window.hz)?;
        let (from, to) = (window.before_n / factor, ((window.before_n + window.window_n) / factor).min(energy.len()));
        let inside = energy.get(from..to).filter(|inside| !inside.is_empty())?;
        let largest = |energy: &[f32]| energy.iter().copied().fold(0.0, f32::max);
        let mut peaks: Vec<f32> = inside.chunks((hz as usize).max(1)).map(largest).collect();
        let mut all = inside.to_vec();
        let (peak, median) = (quantile(&mut peaks, 0.75), quantile(&mut all, 0.5));
        if peak <= 0.0 {
            return None;
        }
        let log_ratio = |strong: f32, weak: f32| (strong / weak.max(peak * 1e-3)).max(1e-3).ln();
        let mut contrast = Self { log_contrast: log_ratio(peak, median), log_margin: None };
        if let Some(beats) = beats {
            let reach_n = (0.1 * hz) as usize;
            let at: Vec<usize> = beats
                .iter()
                .filter(|&&beat| beat >= 0)
                .map(|&beat| beat as usize / factor)
                .filter(|beat| (from..to).contains(beat))
                .collect();
            let around = |at: usize| at.saturating_sub(reach_n).max(from)..(at + reach_n).min(to);
            let mut strong: Vec<f32> = at.iter().map(|&at| largest(&energy[around(at)])).collect();
            let mut edge = from;
            let mut weak = Vec::new();
            for around in at.iter().map(|&at| around(at)).chain(std::iter::once(to..to)) {
                if edge < around.start {
                    weak.push(largest(&energy[edge..around.start]));
                }
                edge = edge.max(around.end);
            }
            if !strong.is_empty() {
                contrast.log_margin = Some(log_ratio(quantile(&mut strong, 0.25), quantile(&mut weak, 0.75)));
            }
        }
        Some(contrast)
    }
}

fn quantile(values: &mut [f32], part: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let idx = ((values.len() - 1) as f32 * part).round() as usize;
    *values.select_nth_unstable_by(idx, f32::total_cmp).1
}

fn logistic(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
