//! Cuts one stretch of signal around every R-peak, in mV, at one sampling frequency.
//!
//! Method: the lead is chosen by name, converted to mV, resampled where its sampling frequency is another one
//! (`resample`), and copied from `before_n` samples before the R-peak. A window that reaches past an end of the record
//! repeats the sample at that end, so that the first and the last beat count like all others. Invalid samples are
//! bridged by straight lines between the window's own valid ones; a window with too many of them shows no beat and is
//! dropped, and said so. No more of the signal is read than the windows and the filter's reach around them, so that a
//! record of a day takes no more memory than one of an hour.
//!
//! Invariants: windows are in the order of the beats, each is of a beat named by `beat_idx`, every sample is a finite
//! number (guarded by `tests::bridges_short_gaps_and_drops_windows_with_long_ones` and its neighbours). Labels are
//! carried, never read.

use ecgpipe_sdk::{
    Beats, Context, Each, Signals, Stage, StageError, StageFacts, Windows,
    facts::names,
    kinds::{Beat, WindowsWriter},
    ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::check_recording,
    lead::{self, LeadReader},
    resample::{Resampling, resampled_position},
};

/// Cuts one window a beat.
pub struct Window;

/// How to cut.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Samples in a window. 187 at 360 Hz are 519 ms: the P wave, the QRS complex and the first half of the T wave.
    #[schemars(range(min = 2, max = 65_536))]
    pub length_n: usize,
    /// Samples in a window before the R-peak. 90 at 360 Hz are 250 ms: the longest normal PR interval (200 ms) plus the
    /// time from QRS onset to the R-peak (up to 50 ms), so that the window starts before a normal P wave; 269 ms after
    /// the R-peak hold even a wide QRS complex with its ST segment. Both keep the neighbours' R-peaks outside up to 220
    /// beats a minute. Less than `length_n`.
    pub before_n: usize,
    /// Samples per second within a window; records with another sampling frequency are resampled.
    #[schemars(range(min = 10, max = 10_000))]
    pub sampling_frequency_hz: f64,
    /// Leads by name, the best first. The first one that a record has is cut; if it has none of them, its
    /// first lead that is a voltage.
    pub leads: Vec<String>,
    /// What happens to a window that reaches past an end of the record.
    pub edge: Edge,
    /// A window is dropped if more than this part of it (in percent, 0 to 100) has no valid samples; fewer are bridged
    /// by a straight line.
    #[schemars(range(min = 0, max = 100))]
    pub max_invalid_percent: f64,
}

/// What happens to a window that reaches past an end of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// The sample at the end is repeated; no beat is lost.
    Pad,
    /// The window is dropped.
    Drop,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            length_n: 187,
            before_n: 90,
            sampling_frequency_hz: 360.0,
            leads: lead::default_preference(),
            edge: Edge::Pad,
            max_invalid_percent: 20.0,
        }
    }
}

ports! {
    /// What it takes.
    pub struct Inputs {
        /// The recording to cut from.
        pub signals: Each<Signals>,
        /// Where the beats are.
        pub beats: Each<Beats>,
    }
}

ports! {
    /// What it gives.
    pub struct Outputs {
        /// One window a beat, in mV.
        pub windows: Each<Windows>,
    }
}

impl Stage for Window {
    const NAME: &'static str = "window";
    const SUMMARY: &'static str = "cuts a stretch of one lead around every R-peak, in mV at one sampling frequency";

    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(2..=65_536).contains(&params.length_n) {
            return Err(format!("`length_n` must be 2 to 65536 samples, not {}", params.length_n));
        }
        if params.before_n >= params.length_n {
            let (before_n, length_n) = (params.before_n, params.length_n);
            return Err(format!("`before_n` must be less than `length_n` ({length_n}), not {before_n}"));
        }
        if !(10.0..=10_000.0).contains(&params.sampling_frequency_hz) {
            let hz = params.sampling_frequency_hz;
            return Err(format!("`sampling_frequency_hz` must be 10 to 10000 Hz, not {hz}"));
        }
        if !(0.0..=100.0).contains(&params.max_invalid_percent) {
            return Err(format!("`max_invalid_percent` must be 0 to 100, not {}", params.max_invalid_percent));
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        facts.pass("beats", "windows");
        facts.set_by("windows", names::LENGTH_N, params.length_n, "length_n");
        facts.set_by("windows", names::BEFORE_N, params.before_n, "before_n");
        facts.set_by("windows", names::WINDOW_FS_HZ, params.sampling_frequency_hz, "sampling_frequency_hz");
        facts.set_by("windows", names::LEADS, params.leads.clone(), "leads");
        facts.set("windows", names::UNIT, "mV");
        lead::check_records(facts, "signals", &params.leads);
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let (signals, beats) = (&inputs.signals, &inputs.beats);
        let mut cutting = Cutting::new(params, signals, beats)?;
        let is_large = beats.beats.len() * params.length_n > IN_MEMORY_SAMPLE_N;
        let windows = if is_large {
            let mut writer = WindowsWriter::new(&cutting.windows, cx.spool()?)?;
            while cutting.advance(PIECE_BEAT_N)? {
                writer.write(&cutting.windows.take())?;
                cx.check_cancelled()?;
            }
            Each::encoded(writer.finish()?.finish().map_err(|error| StageError::from_error(&error))?)
        } else {
            while cutting.advance(PIECE_BEAT_N)? {}
            Each::new(cutting.windows)
        };
        let record = &signals.record;
        if cutting.invalid_n > 0 {
            cx.warn(format!(
                "record {record}: {} of {} beats have no window: more than {} % of it has no valid samples",
                cutting.invalid_n,
                beats.beats.len(),
                params.max_invalid_percent
            ));
        }
        if cutting.edge_n > 0 {
            cx.note(format!(
                "record {record}: {} beats have no window: it would reach past an end of the record",
                cutting.edge_n
            ));
        }
        Ok(Outputs { windows })
    }
}

/// Samples of all windows up to which they are kept in memory: 4 MB. A record of MIT-BIH has up to 640,000.
const IN_MEMORY_SAMPLE_N: usize = 1 << 20;
/// Beats that are cut at a time where windows are too many for memory.
const PIECE_BEAT_N: usize = 2048;

/// Cuts one window for every beat of one record; the stage without its surroundings.
///
/// # Errors
/// If signals and beats are not of the same record, if no lead is a voltage, or if the record cannot be resampled.
pub fn cut(params: &Params, signals: &Signals, beats: &Beats) -> Result<Windows, StageError> {
    let mut cutting = Cutting::new(params, signals, beats)?;
    while cutting.advance(PIECE_BEAT_N)? {}
    Ok(cutting.windows)
}

/// Windows as far as they are cut.
struct Cutting<'a> {
    params: &'a Params,
    beats: &'a [Beat],
    lead: LeadReader<'a>,
    resampling: Resampling,
    from_hz: f64,
    input_n: usize,
    /// The next beat.
    beat_idx: usize,
    /// One row a beat, in the order of the beats.
    windows: Windows,
    /// Beats that were dropped for invalid samples.
    invalid_n: usize,
    /// Beats that were dropped because their window reaches past an end of the record.
    edge_n: usize,
}

impl<'a> Cutting<'a> {
    fn new(params: &'a Params, signals: &'a Signals, beats: &'a Beats) -> Result<Self, StageError> {
        let (from_hz, to_hz) = (signals.sampling_frequency_hz, params.sampling_frequency_hz);
        check_recording(signals, beats)?;
        let lead_idx = lead::choose(signals, &params.leads)?;
        let resampling =
            Resampling::new(from_hz, to_hz).map_err(|error| StageError::from_error(&error).record(&signals.record))?;
        let windows = Windows {
            record: signals.record.clone(),
            patient: signals.patient.clone(),
            lead: signals.leads[lead_idx].name.clone(),
            sampling_frequency_hz: to_hz,
            length_n: params.length_n,
            before_n: params.before_n,
            beat_idx: Vec::new(),
            sample_idx: Vec::new(),
            symbol: Vec::new(),
            samples: Vec::new(),
        };
        Ok(Self {
            params,
            beats: &beats.beats,
            lead: LeadReader::new(signals, lead_idx),
            resampling,
            from_hz,
            input_n: signals.sample_n(),
            beat_idx: 0,
            windows,
            invalid_n: 0,
            edge_n: 0,
        })
    }

    /// Cuts the windows of the next beats; gives whether there were any.
    fn advance(&mut self, beat_n: usize) -> Result<bool, StageError> {
        let end_idx = (self.beat_idx + beat_n).min(self.beats.len());
        let is_any = self.beat_idx < end_idx;
        for beat_idx in self.beat_idx..end_idx {
            self.cut(beat_idx)?;
        }
        self.beat_idx = end_idx;
        Ok(is_any)
    }

    fn cut(&mut self, beat_idx: usize) -> Result<(), StageError> {
        let (params, beat) = (self.params, &self.beats[beat_idx]);
        let peak_idx = resampled_position(beat.sample_idx, self.from_hz, params.sampling_frequency_hz).round() as i64;
        let start = peak_idx - params.before_n as i64;
        let end = start + params.length_n as i64;
        let sample_n = self.resampling.output_n(self.input_n);
        let inside = start >= 0 && end <= sample_n as i64;
        if !inside && (params.edge == Edge::Drop || end <= 0 || start >= sample_n as i64) {
            self.edge_n += 1;
            return Ok(());
        }
        let shown = start.max(0) as usize..(end as usize).min(sample_n);
        let input = self.resampling.input_of(&shown, self.input_n);
        let read = self.lead.read(input.clone())?;
        let mut samples = self.resampling.apply(&read, input.start, self.input_n, shown.clone());
        let invalid_n = samples.iter().filter(|sample| sample.is_nan()).count();
        if invalid_n as f64 > params.max_invalid_percent / 100.0 * params.length_n as f64 {
            self.invalid_n += 1;
            return Ok(());
        }
        if invalid_n > 0 {
            lead::interpolate_invalid(&mut samples);
        }
        let windows = &mut self.windows;
        let row_end = windows.samples.len() + params.length_n;
        let padded_n = (shown.start as i64 - start) as usize;
        windows.samples.resize(windows.samples.len() + padded_n, samples[0]);
        windows.samples.extend_from_slice(&samples);
        windows.samples.resize(row_end, samples[samples.len() - 1]);
        windows.beat_idx.push(beat_idx as i64);
        windows.sample_idx.push(beat.sample_idx);
        windows.symbol.push(beat.symbol.clone());
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ecgpipe_sdk::{
        Lead, RecordId,
        kinds::{INVALID_SAMPLE, PeakSource},
    };

    use super::*;

    fn signals(sampling_frequency_hz: f64, samples: Vec<i32>) -> Signals {
        let lead = |name: &str, samples: Vec<i32>| Lead {
            name: name.to_owned(),
            units: "mV".to_owned(),
            gain_adu_per_unit: 1.0,
            baseline_adu: 0,
            samples: samples.into(),
        };
        Signals {
            record: RecordId::new("p1").unwrap(),
            patient: "p1".to_owned(),
            sampling_frequency_hz,
            leads: vec![lead("V1", vec![0; samples.len()]), lead("MLII", samples)],
            comments: Vec::new(),
        }
    }

    fn beats(signals: &Signals, positions: &[i64]) -> Beats {
        let beat = |&sample_idx| Beat { sample_idx, symbol: Some("N".to_owned()) };
        Beats {
            record: signals.record.clone(),
            patient: signals.patient.clone(),
            sampling_frequency_hz: signals.sampling_frequency_hz,
            sample_n: signals.sample_n() as i64,
            source: PeakSource::Reference,
            beats: positions.iter().map(beat).collect(),
            missed: Vec::new(),
        }
    }

    fn small() -> Params {
        Params { length_n: 5, before_n: 2, max_invalid_percent: 40.0, ..Params::default() }
    }

    /// Cuts out of 0, 1, 2, ... with the given samples invalid.
    fn check(params: &Params, invalid: &[usize], positions: &[i64], expected: &[(i64, [f32; 5])]) -> (usize, usize) {
        let mut samples: Vec<i32> = (0..20).collect();
        invalid.iter().for_each(|&idx| samples[idx] = INVALID_SAMPLE);
        let signals = signals(360.0, samples);
        let beats = beats(&signals, positions);
        let mut cutting = Cutting::new(params, &signals, &beats).unwrap();
        while cutting.advance(1).unwrap() {}
        let windows = &cutting.windows;
        let rows: Vec<(i64, [f32; 5])> = (0..windows.beat_n())
            .map(|row_idx| (windows.beat_idx[row_idx], windows.window(row_idx).try_into().unwrap()))
            .collect();
        assert_eq!(rows, expected);
        assert_eq!(windows.lead, "MLII");
        (cutting.invalid_n, cutting.edge_n)
    }

    #[test]
    fn cuts_around_the_peak() {
        let expected = [(0, [3.0, 4.0, 5.0, 6.0, 7.0]), (1, [8.0, 9.0, 10.0, 11.0, 12.0])];
        assert_eq!(check(&small(), &[], &[5, 10], &expected), (0, 0));
    }

    #[test]
    fn repeats_the_end_or_drops_the_beat() {
        let padded = [
            (0, [0.0, 0.0, 0.0, 1.0, 2.0]),
            (1, [0.0, 0.0, 1.0, 2.0, 3.0]),
            (2, [15.0, 16.0, 17.0, 18.0, 19.0]),
            (3, [17.0, 18.0, 19.0, 19.0, 19.0]),
        ];
        assert_eq!(check(&small(), &[], &[0, 1, 17, 19], &padded), (0, 0));
        let dropped = Params { edge: Edge::Drop, ..small() };
        assert_eq!(check(&dropped, &[], &[0, 1, 17, 19], &padded[2..3]), (0, 3));
        // A beat outside the record has nothing to show, whatever the choice.
        assert_eq!(check(&small(), &[], &[-50, 50], &[]), (0, 2));
    }

    #[test]
    fn bridges_short_gaps_and_drops_windows_with_long_ones() {
        let bridged = [(0, [3.0, 4.0, 5.0, 6.0, 7.0])];
        assert_eq!(check(&small(), &[4, 5], &[5], &bridged), (0, 0));
        assert_eq!(check(&small(), &[4, 5, 6], &[5], &[]), (1, 0));
        assert_eq!(check(&small(), &(0..20).collect::<Vec<_>>(), &[5, 9], &[]), (2, 0));
    }

    #[test]
    fn brings_other_frequencies_to_360_hz() {
        // A bump of the same shape and time at every frequency: the windows agree.
        let bump = |hz: f64| -> Vec<i32> {
            let value = |idx: usize| (-0.5 * ((idx as f64 / hz - 1.0) / 0.02).powi(2)).exp() * 1e6;
            (0..(2.0 * hz) as usize).map(|idx| value(idx) as i32).collect()
        };
        let window = |hz: f64| {
            let signals = signals(hz, bump(hz));
            let beats = beats(&signals, &[hz as i64]);
            cut(&Params::default(), &signals, &beats).unwrap()
        };
        let reference = window(360.0);
        assert_eq!(reference.samples.len(), 187);
        for hz in [100.0, 128.0, 250.0, 500.0, 1000.0] {
            let windows = window(hz);
            assert_eq!((windows.sampling_frequency_hz, windows.sample_idx[0]), (360.0, hz as i64));
            for (found, expected) in windows.samples.iter().zip(&reference.samples) {
                assert!((found - expected).abs() < 2e3, "{hz} Hz: {found} for {expected}");
            }
            assert_eq!(windows.window(0).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0, 90);
        }
    }

    #[test]
    fn refuses_beats_of_another_record() {
        let signals = signals(360.0, vec![0; 10]);
        let mut beats = beats(&signals, &[5]);
        beats.sampling_frequency_hz = 250.0;
        let error = cut(&small(), &signals, &beats).unwrap_err().to_string();
        let expected = "record p1: signals are of record p1 at 360 Hz, beats are of record p1 at 250 Hz";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_record_without_beats_gives_no_windows() {
        assert_eq!(check(&small(), &[], &[], &[]), (0, 0));
    }

    #[test]
    fn checks_parameters() {
        let check = |params: Params| Window::check(&params).unwrap_err();
        assert_eq!(Window::check(&Params::default()), Ok(()));
        assert_eq!(check(Params { length_n: 0, ..small() }), "`length_n` must be 2 to 65536 samples, not 0");
        assert_eq!(check(Params { before_n: 5, ..small() }), "`before_n` must be less than `length_n` (5), not 5");
        let error = check(Params { sampling_frequency_hz: 0.0, ..small() });
        assert_eq!(error, "`sampling_frequency_hz` must be 10 to 10000 Hz, not 0");
        let error = check(Params { max_invalid_percent: f64::NAN, ..small() });
        assert_eq!(error, "`max_invalid_percent` must be 0 to 100, not NaN");
    }
}
