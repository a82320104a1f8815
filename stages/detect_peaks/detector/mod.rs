//! Owns the QRS detector: where the beats of a record are.
//!
//! It works on a stream: samples come in chunks of any size, R-peaks come out a bounded time later, and memory does not
//! grow. Within its look-ahead it is not a chain of running thresholds but a search for the most plausible *sequence* of
//! beats. It stands in the line of Pan & Tompkins (1985: band-pass energy, signal and noise levels, search-back, T-wave
//! test), with their rules as costs instead of branches:
//!
//! 1. **Energy** ([`energy`]). Each lead is averaged down to about 125 Hz and passed through two pairs of Gabor filters,
//!    whose magnitude is one smooth bump a QRS complex. Several leads are added, each by how far its QRS complexes stand
//!    out. The local maxima are candidates; P waves, T waves and noise are among them.
//! 2. **Sequence** ([`sequence`]). Candidates bring evidence for or against a beat, steps between them cost; the sequence
//!    with the largest total is found by dynamic programming.
//! 3. **Decision** ([`decision`]). Every second the open stretch is decided anew, with the level, the rhythm and the
//!    shapes of the beats around; what has the look-ahead behind it is settled.
//! 4. **R-peaks** ([`refine`]). Every settled beat is moved to the largest deflection of the QRS complex on the signal
//!    itself.
//!
//! All constants are in [`constants`]: one set for every record, chosen on the 22 records of DS1 (de Chazal et al. 2004)
//! alone. Filters are made for the sampling frequency at hand, so that 100 to 1000 Hz give the same answer. Figures:
//! `docs/detector.md`.
//!
//! Invariants:
//!
//! - the result is in ascending order without doubles and inside the record;
//! - it does not depend on how the record was cut into chunks (`tests::chunks_do_not_matter`);
//! - an R-peak is given at most [`Detector::delay_s`] after its sample was pushed (`tests::beats_come_in_time`), and what is
//!   kept does not grow (`tests::memory_does_not_grow`);
//! - scaling or inverting all leads does not change which beats are found
//!   (`tests::gain_polarity_and_offset_do_not_matter`).
//!
//! The module knows neither stages nor annotations.

mod constants;
mod decision;
mod energy;
mod logarithm;
mod quantiles;
mod refine;
mod sequence;
#[cfg(test)]
pub(crate) mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::energy::{QrsEnergy, qrs_energy};
pub use self::refine::{REFINE_CONTEXT_S, refine, refine_one};
use self::{
    constants::{HOP_S, LOOK_AHEAD_S, THRESHOLD_PERCENT},
    decision::{Decision, Settled},
    energy::{Candidate, Energy},
    quantiles::Quantiles,
};

/// The lowest sampling frequency that shows a QRS complex well enough to find it.
pub const MIN_SAMPLING_FREQUENCY_HZ: f64 = 50.0;

/// What a user may change of the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorParams {
    /// No beat follows another within this time, in ms (100 to 400): the heart's absolute refractory period (Pan &
    /// Tompkins 1985).
    #[schemars(range(min = 100, max = 400))]
    pub refractory_ms: f64,
    /// Energy that speaks neither for nor against a beat, in percent of the energy of the beats around it (1 to 100).
    /// Lower finds weaker beats and more noise.
    #[schemars(range(min = 1, max = 100))]
    pub threshold_percent: f64,
    /// How much of what follows a beat is seen before it is settled, in s (1 to 60). R-peaks come out at most about 1.4 s
    /// later than this. Longer finds hardly more.
    #[schemars(range(min = 1, max = 60))]
    pub look_ahead_s: f64,
}

impl Default for DetectorParams {
    fn default() -> Self {
        Self { refractory_ms: 200.0, threshold_percent: THRESHOLD_PERCENT, look_ahead_s: LOOK_AHEAD_S }
    }
}

/// The R-peaks of a record, as sample indices in ascending order: a [`Detector`] that is given everything at once.
///
/// `leads` are one or more leads in mV, the most trusted first; samples that are not finite are invalid; if the leads
/// differ in length, the shortest counts. Below [`MIN_SAMPLING_FREQUENCY_HZ`] and without samples the result is empty.
#[must_use]
pub fn detect(leads: &[&[f32]], sampling_frequency_hz: f64, params: &DetectorParams) -> Vec<i64> {
    let sample_n = leads.iter().map(|lead| lead.len()).min().unwrap_or(0);
    let leads: Vec<&[f32]> = leads.iter().map(|lead| &lead[..sample_n]).collect();
    let mut detector = Detector::new(leads.len(), sampling_frequency_hz, params);
    detector.push(&leads);
    detector.finish()
}

/// The detector on a stream of samples.
///
/// With several leads, their energies are added, each by its own scale and weighted by how far its QRS complexes stand
/// out, and R-peaks are placed on the first lead that counts and is valid there.
pub struct Detector {
    /// `None` where nothing can be found: without leads, or with a sampling frequency that is too low.
    stream: Option<Stream>,
    peaks: Vec<i64>,
}

impl Detector {
    /// For a record with so many leads. Below [`MIN_SAMPLING_FREQUENCY_HZ`] and without leads it finds nothing.
    #[must_use]
    pub fn new(lead_n: usize, sampling_frequency_hz: f64, params: &DetectorParams) -> Self {
        let is_fast_enough = sampling_frequency_hz.is_finite() && sampling_frequency_hz >= MIN_SAMPLING_FREQUENCY_HZ;
        let stream = (lead_n > 0 && is_fast_enough).then(|| Stream::new(lead_n, sampling_frequency_hz, params));
        Self { stream, peaks: Vec::new() }
    }

    /// The next samples of every lead, in mV and as many of each lead; what is not finite is invalid.
    ///
    /// # Panics
    /// If there are not as many leads as `new` was told, or if they differ in length.
    pub fn push(&mut self, leads: &[&[f32]]) {
        if let Some(stream) = &mut self.stream {
            stream.push(leads, &mut self.peaks);
        }
    }

    /// The R-peaks found since the last call, as sample indices from the first pushed sample on, in ascending order.
    pub fn drain(&mut self) -> impl Iterator<Item = i64> + '_ {
        self.peaks.drain(..)
    }

    /// The R-peaks that [`Self::drain`] has not given, those of the last seconds included.
    #[must_use]
    pub fn finish(mut self) -> Vec<i64> {
        if let Some(mut stream) = self.stream {
            stream.hop(true, &mut self.peaks);
        }
        self.peaks
    }

    /// The most signal, in s, that must be pushed after an R-peak before it is given: the look-ahead, one hop, and what
    /// the filters need. 0 where nothing can be found.
    #[must_use]
    pub fn delay_s(&self) -> f64 {
        self.stream.as_ref().map_or(0.0, |stream| stream.delay_n as f64 / stream.sampling_frequency_hz)
    }
}

/// The state of a detector.
struct Stream {
    sampling_frequency_hz: f64,
    delay_n: usize,
    energy: Energy,
    decision: Decision,
    /// Samples that may still be needed; the first one is `first_sample_idx`.
    samples: Vec<Vec<f32>>,
    first_sample_idx: i64,
    /// How many of them the energy has seen.
    seen_n: usize,
    last_centre: Option<i64>,
    last_peak: i64,
    candidates: Vec<Candidate>,
    settled: Vec<Settled>,
    scratch: Quantiles,
}

impl Stream {
    fn new(lead_n: usize, sampling_frequency_hz: f64, params: &DetectorParams) -> Self {
        let energy = Energy::new(lead_n, sampling_frequency_hz, HOP_S);
        let look_ahead_n = (params.look_ahead_s * sampling_frequency_hz).ceil() as usize;
        let refine_n = (refine::REACH_S * sampling_frequency_hz).ceil() as usize;
        Self {
            sampling_frequency_hz,
            delay_n: look_ahead_n + energy.hop_sample_n() + energy.lag_sample_n() + refine_n,
            decision: Decision::new(energy.work_hz, params),
            energy,
            samples: vec![Vec::new(); lead_n],
            first_sample_idx: 0,
            seen_n: 0,
            last_centre: None,
            last_peak: -1,
            candidates: Vec::new(),
            settled: Vec::new(),
            scratch: Quantiles::default(),
        }
    }

    fn push(&mut self, leads: &[&[f32]], peaks: &mut Vec<i64>) {
        assert_eq!(leads.len(), self.samples.len(), "as many leads as the detector was made for");
        let sample_n = leads[0].len();
        assert!(leads.iter().all(|lead| lead.len() == sample_n), "leads of one length");
        let hop_n = self.energy.hop_sample_n();
        let mut from = 0;
        while from < sample_n {
            let waiting_n = self.samples[0].len() - self.seen_n;
            let to = sample_n.min(from + hop_n - waiting_n);
            self.samples.iter_mut().zip(leads).for_each(|(kept, lead)| kept.extend_from_slice(&lead[from..to]));
            if waiting_n + to - from == hop_n {
                self.hop(false, peaks);
            }
            from = to;
        }
    }

    /// Works on the samples that the energy has not seen: a whole hop, at the end of the record what is left.
    fn hop(&mut self, is_last: bool, peaks: &mut Vec<i64>) {
        let new: Vec<&[f32]> = self.samples.iter().map(|lead| &lead[self.seen_n..]).collect();
        let stretch = self.energy.push(&new, is_last, &mut self.candidates);
        self.seen_n = self.samples[0].len();
        let end_idx = is_last.then(|| self.energy.work_n());
        self.decision.hop(stretch, &mut self.candidates, self.energy.known_idx(), end_idx, &mut self.settled);

        let trusted_idx = self.energy.trusted_lead_idx();
        let leads = self.samples[trusted_idx..].iter().chain(&self.samples[..trusted_idx]);
        let leads: Vec<&[f32]> = leads.map(Vec::as_slice).collect();
        let local = |work_idx: i64| self.energy.sample_idx(work_idx) - self.first_sample_idx;
        for beat in self.settled.drain(..) {
            let neighbours = [self.last_centre.map(local), beat.next_idx.map(local)];
            let centre = local(beat.work_idx).min(self.samples[0].len() as i64 - 1);
            let peak = refine::peak(&leads, self.sampling_frequency_hz, centre, neighbours, &mut self.scratch);
            // What seemed to be the next beat may give way to an earlier one.
            self.last_peak = (peak + self.first_sample_idx).max(self.last_peak + 1);
            self.last_centre = Some(beat.work_idx);
            peaks.push(self.last_peak);
        }

        // Moved rarely: it costs as much as it keeps.
        let kept_n = self.delay_n + (refine::BASELINE_REACH_S * self.sampling_frequency_hz) as usize + 1;
        if self.seen_n > 4 * kept_n {
            let dropped_n = self.seen_n - kept_n;
            self.samples.iter_mut().for_each(|lead| drop(lead.drain(..dropped_n)));
            self.first_sample_idx += dropped_n as i64;
            self.seen_n = kept_n;
        }
    }
}
