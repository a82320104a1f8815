//! Finds the R-peaks of a record, or takes them from the reference, and joins the two.
//!
//! [`detector`] owns the method, [`crate::matching`] the pairing. Detected beats carry the symbol of the
//! reference beat within the match window; reference beats without a detected one are kept apart as missed, so that an
//! evaluation counts them as errors. Only annotations that mark a beat count: rhythm, noise and other marks, and
//! ventricular flutter waves (as in ANSI/AAMI EC57), are left out.
//!
//! Invariants: beats are in time order and inside the record; with a reference, every reference beat inside the record
//! is either the label of exactly one beat or missed (`tests::every_reference_beat_is_found_or_missed`). A reference
//! never changes where beats are detected. The record passes piece by piece, however long it is.

pub mod detector;

use ecgpipe_sdk::{
    Annotations, Beats, Context, Each, FactProblem, Place, Signals, Stage, StageError, StageFacts,
    facts::names,
    kinds::{Beat, PeakSource},
    ports,
};
use ecgpipe_wfdb::AnnotationCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::some_of,
    lead::{self, LeadReader},
    matching,
};
use detector::{Detector, DetectorParams};

/// Finds R-peaks.
pub struct DetectPeaks;

/// Where beats come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Whether beats are detected or taken from the reference annotations.
    pub peaks: Peaks,
    /// Leads by name, the best first. The first one that a record has is searched; if it has none of them, its first
    /// lead that is a voltage.
    pub leads: Vec<String>,
    /// Search all leads that are voltages together, the one chosen by `leads` first and with twice the weight: steadier in noise.
    /// Without it, that lead alone is searched.
    pub all_leads: bool,
    /// How far a detected beat may be from a reference beat to be the same, in ms. ANSI/AAMI EC57 has 150.
    #[schemars(range(min = 1, max = 1000))]
    pub match_window_ms: f64,
    /// With `peaks: reference`: move every annotated position to the largest deflection of the QRS complex within 100
    /// ms. Without it, positions stay as annotated.
    pub refine: bool,
    /// Settings of the detector.
    pub detector: DetectorParams,
}

/// Where beats come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Peaks {
    /// From the reference annotations.
    Reference,
    /// From the QRS detector; labels from the reference where one is connected.
    Detected,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            peaks: Peaks::Detected,
            leads: lead::default_preference(),
            all_leads: true,
            match_window_ms: 150.0,
            refine: false,
            detector: DetectorParams::default(),
        }
    }
}

ports! {
    /// What it takes.
    pub struct Inputs {
        /// The recording.
        pub signals: Each<Signals>,
        /// The reference annotations: positions with `peaks: reference`, labels with `peaks: detected`.
        pub annotations: Option<Each<Annotations>>,
    }
}

ports! {
    /// What it gives.
    pub struct Outputs {
        /// Where the beats are.
        pub beats: Each<Beats>,
    }
}

impl Stage for DetectPeaks {
    const NAME: &'static str = "detect_peaks";
    const SUMMARY: &'static str =
        "finds R-peaks with an own QRS detector, or takes them from the reference annotations";

    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(1.0..=1000.0).contains(&params.match_window_ms) {
            return Err(format!("`match_window_ms` must be 1 to 1000 ms, not {}", params.match_window_ms));
        }
        let detector = &params.detector;
        if !(100.0..=400.0).contains(&detector.refractory_ms) {
            return Err(format!("`detector.refractory_ms` must be 100 to 400 ms, not {}", detector.refractory_ms));
        }
        if !(1.0..=100.0).contains(&detector.threshold_percent) {
            let percent = detector.threshold_percent;
            return Err(format!("`detector.threshold_percent` must be 1 to 100, not {percent}"));
        }
        if !(1.0..=60.0).contains(&detector.look_ahead_s) {
            return Err(format!("`detector.look_ahead_s` must be 1 to 60 s, not {}", detector.look_ahead_s));
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        let is_labelled = facts.is_connected("annotations");
        facts.pass_only("signals", "beats", &[names::PATIENT, names::RECORD_FS_HZ]);
        facts.identify("beats", names::BEATS);
        facts.set("beats", names::LABELS, is_labelled);
        let peaks = match params.peaks {
            Peaks::Reference => "annotated",
            Peaks::Detected => "detected",
        };
        facts.set_by("beats", names::PEAKS, peaks, "peaks");
        if params.peaks == Peaks::Reference && !is_labelled {
            let message = "`peaks: reference` needs reference annotations, but none are connected";
            let problem = FactProblem::error(Place::Parameter("peaks"), message);
            facts.tell(problem.help("connect `annotations`, or set `peaks: detected`"));
        }
        if params.peaks == Peaks::Reference && !params.refine {
            return;
        }
        lead::check_records(facts, "signals", &params.leads);
        let min_hz = detector::MIN_SAMPLING_FREQUENCY_HZ;
        let hz = facts.by_record("signals", names::RECORD_FS_HZ).into_iter();
        let slow = hz.filter_map(|(record, hz)| Some((record, hz.as_f64().filter(|hz| *hz < min_hz)?)));
        let slow: Vec<String> = slow.map(|(record, hz)| format!("record {record} has {hz} Hz")).collect();
        if let Some(shown) = some_of(&slow) {
            let message = format!("the sampling frequency is too low to find QRS complexes: {shown}");
            let problem = FactProblem::error(Place::Port("signals"), message);
            facts.tell(problem.help(format!(
                "the detector needs at least {min_hz} Hz; use `peaks: reference` with annotations, or leave these records out"
            )));
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let beats = find(params, &inputs.signals, inputs.annotations.as_deref())?;
        if beats.beats.is_empty() {
            let source = match params.peaks {
                Peaks::Reference => "in the reference annotations",
                Peaks::Detected => "by the QRS detector",
            };
            cx.warn(format!("record {}: no beat was found {source}", beats.record));
        }
        Ok(Outputs { beats: Each::new(beats) })
    }
}

/// The beats of one record; the stage without its surroundings.
///
/// # Errors
/// If the reference is wanted but not given, if annotations and signals do not belong together, if no lead is a
/// voltage, or if the sampling frequency is too low to see a QRS complex.
pub fn find(params: &Params, signals: &Signals, annotations: Option<&Annotations>) -> Result<Beats, StageError> {
    let reference = annotations.map(|annotations| reference_beats(signals, annotations)).transpose()?;
    let (source, beats, missed) = match (params.peaks, reference) {
        (Peaks::Reference, None) => {
            return Err(StageError::new("`peaks: reference` needs reference annotations, but none are connected")
                .help("connect `annotations`, or set `peaks: detected`")
                .record(&signals.record));
        }
        (Peaks::Reference, Some(reference)) if params.refine => {
            (PeakSource::Reference, refined(params, signals, reference)?, Vec::new())
        }
        (Peaks::Reference, Some(reference)) => (PeakSource::Reference, reference, Vec::new()),
        (Peaks::Detected, reference) => {
            let hz = signals.sampling_frequency_hz;
            let detected = detected(params, signals)?;
            let window_n = (params.match_window_ms * hz / 1000.0).round() as i64;
            let (beats, missed) = labelled(&detected, reference.unwrap_or_default(), window_n);
            (PeakSource::Detected, beats, missed)
        }
    };
    Ok(Beats {
        record: signals.record.clone(),
        patient: signals.patient.clone(),
        sampling_frequency_hz: signals.sampling_frequency_hz,
        sample_n: signals.sample_n() as i64,
        source,
        beats,
        missed,
    })
}

/// The R-peaks, found while the record passes piece by piece.
fn detected(params: &Params, signals: &Signals) -> Result<Vec<i64>, StageError> {
    let leads = searched_leads(params, signals)?;
    let mut detector = Detector::new(leads.len(), signals.sampling_frequency_hz, &params.detector);
    let mut peaks = Vec::new();
    lead::each_chunk(signals, &leads, |samples| {
        detector.push(samples);
        peaks.extend(detector.drain());
    })?;
    peaks.extend(detector.finish());
    Ok(peaks)
}

/// Detected beats with the symbols of the reference beats that they stand for, and the reference beats without one.
fn labelled(detected: &[i64], reference: Vec<Beat>, window_n: i64) -> (Vec<Beat>, Vec<Beat>) {
    let mut beats: Vec<Beat> = detected.iter().map(|&sample_idx| Beat { sample_idx, symbol: None }).collect();
    let positions: Vec<i64> = reference.iter().map(|beat| beat.sample_idx).collect();
    let pairs = matching::match_beats(&positions, detected, window_n);
    let mut missed = Vec::new();
    for (beat, pair) in reference.into_iter().zip(pairs) {
        match pair {
            Some(idx) => beats[idx].symbol = beat.symbol,
            None => missed.push(beat),
        }
    }
    (beats, missed)
}

/// The annotated beats inside the record, in time order.
fn reference_beats(signals: &Signals, annotations: &Annotations) -> Result<Vec<Beat>, StageError> {
    if annotations.record != signals.record || annotations.sampling_frequency_hz != signals.sampling_frequency_hz {
        return Err(StageError::new(format!(
            "signals are of record {} at {} Hz, annotations are of record {} at {} Hz",
            signals.record, signals.sampling_frequency_hz, annotations.record, annotations.sampling_frequency_hz
        ))
        .help("connect `signals` and `annotations` to the same stage")
        .record(&signals.record));
    }
    let inside = 0..signals.sample_n() as i64;
    let is_beat = |symbol: &str| AnnotationCode::from_symbol(symbol).is_some_and(AnnotationCode::is_beat);
    let rows = annotations.annotations.iter().filter(|row| is_beat(&row.symbol) && inside.contains(&row.sample_idx));
    let mut beats: Vec<Beat> =
        rows.map(|row| Beat { sample_idx: row.sample_idx, symbol: Some(row.symbol.clone()) }).collect();
    beats.sort_by_key(|beat| beat.sample_idx);
    Ok(beats)
}

/// The annotated beats, each moved to its R-peak.
fn refined(params: &Params, signals: &Signals, reference: Vec<Beat>) -> Result<Vec<Beat>, StageError> {
    let hz = signals.sampling_frequency_hz;
    let mut leads: Vec<LeadReader<'_>> =
        searched_leads(params, signals)?.into_iter().map(|idx| LeadReader::new(signals, idx)).collect();
    let context_n = (detector::REFINE_CONTEXT_S * hz) as i64 + 1;
    let marks: Vec<i64> = reference.iter().map(|beat| beat.sample_idx).collect();
    let mut refined = reference;
    for (idx, &mark) in marks.iter().enumerate() {
        let (start, end) = ((mark - context_n).max(0), (mark + context_n + 1).min(signals.sample_n() as i64));
        let around = leads.iter_mut().map(|lead| lead.read(start as usize..end as usize));
        let around: Vec<Vec<f32>> = around.collect::<Result<_, StageError>>()?;
        let around: Vec<&[f32]> = around.iter().map(Vec::as_slice).collect();
        // The neighbours bound how far the R-peak may be.
        let neighbours = [marks[..idx].last(), marks.get(idx + 1)].map(|other| other.map(|other| other - start));
        refined[idx].sample_idx = start + detector::refine_one(&around, hz, mark - start, neighbours);
    }
    Ok(refined)
}

/// The leads to search, by index, the preferred one first.
fn searched_leads(params: &Params, signals: &Signals) -> Result<Vec<usize>, StageError> {
    let hz = signals.sampling_frequency_hz;
    if !hz.is_finite() || hz < detector::MIN_SAMPLING_FREQUENCY_HZ {
        let min_hz = detector::MIN_SAMPLING_FREQUENCY_HZ;
        return Err(StageError::new(format!("a sampling frequency of {hz} Hz is too low to find QRS complexes"))
            .help(format!("the detector needs at least {min_hz} Hz; use `peaks: reference` with annotations"))
            .record(&signals.record));
    }
    let first = lead::choose(signals, &params.leads)?;
    let others = (0..signals.leads.len())
        .filter(|&idx| params.all_leads && idx != first && lead::mv_per_unit(&signals.leads[idx].units).is_some());
    Ok(std::iter::once(first).chain(others).collect())
}

#[cfg(test)]
mod mitdb_tests;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::{Mutex, atomic::AtomicBool};

    use ecgpipe_sdk::{Lead, RecordId, StageEvent, kinds::Annotation};

    use super::*;

    /// 20 s at 360 Hz with a triangle of 80 ms and 1 mV at every second, on the lead MLII; nothing on V5.
    fn signals() -> Signals {
        let mut samples = vec![0; 7200];
        for beat in 1..20 {
            (-14..=14i32).for_each(|offset| samples[(beat * 360 + offset) as usize] = 200 - 200 * offset.abs() / 14);
        }
        let lead = |name: &str, samples: Vec<i32>| Lead {
            name: name.to_owned(),
            units: "mV".to_owned(),
            gain_adu_per_unit: 200.0,
            baseline_adu: 0,
            samples: samples.into(),
        };
        Signals {
            record: RecordId::new("p1").unwrap(),
            patient: "p1".to_owned(),
            sampling_frequency_hz: 360.0,
            leads: vec![lead("V5", vec![0; 7200]), lead("MLII", samples)],
            comments: Vec::new(),
        }
    }

    fn annotations(rows: &[(i64, &str)]) -> Annotations {
        let annotation = |&(sample_idx, symbol): &(i64, &str)| Annotation {
            sample_idx,
            symbol: symbol.to_owned(),
            subtype: 0,
            chan: 0,
            num: 0,
            aux: String::new(),
        };
        Annotations {
            record: RecordId::new("p1").unwrap(),
            sampling_frequency_hz: 360.0,
            sample_n: 7200,
            annotations: rows.iter().map(annotation).collect(),
        }
    }

    fn rows(beats: &[Beat]) -> Vec<(i64, &str)> {
        beats.iter().map(|beat| (beat.sample_idx, beat.symbol.as_deref().unwrap_or("-"))).collect()
    }

    const MARKS: [(i64, &str); 8] =
        [(18, "+"), (365, "N"), (500, "~"), (715, "V"), (1600, "A"), (1800, "!"), (2165, "/"), (9000, "N")];

    #[test]
    fn the_reference_is_beats_only_with_their_symbols() {
        let params = Params { peaks: Peaks::Reference, ..Params::default() };
        let found = find(&params, &signals(), Some(&annotations(&MARKS))).unwrap();
        assert_eq!(rows(&found.beats), [(365, "N"), (715, "V"), (1600, "A"), (2165, "/")]);
        assert_eq!((found.source, found.missed.len(), found.sample_n), (PeakSource::Reference, 0, 7200));
    }

    #[test]
    fn the_reference_can_be_moved_to_the_peaks() {
        let params = Params { peaks: Peaks::Reference, refine: true, ..Params::default() };
        let found = find(&params, &signals(), Some(&annotations(&MARKS[1..4]))).unwrap();
        assert_eq!(rows(&found.beats), [(360, "N"), (720, "V")]);
    }

    #[test]
    fn every_reference_beat_is_found_or_missed() {
        let found = find(&Params::default(), &signals(), Some(&annotations(&MARKS))).unwrap();
        assert_eq!(found.source, PeakSource::Detected);
        assert_eq!(rows(&found.missed), [(1600, "A")]);
        let expected: Vec<(i64, &str)> = (1..20)
            .map(|beat| {
                (
                    beat * 360,
                    match beat {
                        1 => "N",
                        2 => "V",
                        6 => "/",
                        _ => "-",
                    },
                )
            })
            .collect();
        assert_eq!(rows(&found.beats), expected);
        // A reference changes labels, not positions.
        let alone = find(&Params { all_leads: false, ..Params::default() }, &signals(), None).unwrap();
        let positions = |beats: &Beats| beats.beats.iter().map(|beat| beat.sample_idx).collect::<Vec<_>>();
        assert_eq!(positions(&alone), positions(&found));
        assert_eq!(find(&Params::default(), &signals(), None).unwrap(), alone);
    }

    #[test]
    fn refuses_what_does_not_belong_together() {
        let params = Params { peaks: Peaks::Reference, ..Params::default() };
        let error = find(&params, &signals(), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "record p1: `peaks: reference` needs reference annotations, but none are connected"
        );
        assert_eq!(error.help.unwrap(), "connect `annotations`, or set `peaks: detected`");

        let mut other = annotations(&MARKS);
        other.sampling_frequency_hz = 250.0;
        let error = find(&params, &signals(), Some(&other)).unwrap_err().to_string();
        assert_eq!(error, "record p1: signals are of record p1 at 360 Hz, annotations are of record p1 at 250 Hz");

        let mut slow = signals();
        slow.sampling_frequency_hz = 25.0;
        let error = find(&Params::default(), &slow, None).unwrap_err().to_string();
        assert_eq!(error, "record p1: a sampling frequency of 25 Hz is too low to find QRS complexes");
    }

    #[test]
    fn refines_beat_by_beat_as_on_the_whole_record() {
        let signals = signals();
        let marks = [3, 361, 380, 741, 1085, 1086, 1430, 7190, 7199];
        let rows: Vec<(i64, &str)> = marks.iter().map(|&mark| (mark, "N")).collect();
        let params = Params { peaks: Peaks::Reference, refine: true, ..Params::default() };
        let found = find(&params, &signals, Some(&annotations(&rows))).unwrap();
        let lead = lead::millivolts(&signals, 1, 0..signals.sample_n()).unwrap();
        let expected = detector::refine(&[&lead], 360.0, &marks);
        assert_ne!(expected, marks);
        assert_eq!(found.beats.iter().map(|beat| beat.sample_idx).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn warns_of_a_record_without_beats() {
        let mut flat = signals();
        flat.leads[1].samples = vec![0; 7200].into();
        let (cancel, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let keep = |event: StageEvent| events.lock().unwrap().push(event);
        let inputs = Inputs { signals: Each::new(flat), annotations: None };
        let outputs = DetectPeaks::run(&Params::default(), inputs, &Context::new(&cancel, &keep)).unwrap();
        assert_eq!(outputs.beats.beats, []);
        let expected = "record p1: no beat was found by the QRS detector";
        assert_eq!(events.into_inner().unwrap(), [StageEvent::Warning(expected.to_owned())]);
    }

    #[test]
    fn checks_parameters() {
        assert_eq!(DetectPeaks::check(&Params::default()), Ok(()));
        let error = DetectPeaks::check(&Params { match_window_ms: 0.0, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`match_window_ms` must be 1 to 1000 ms, not 0");
        let detector = DetectorParams { refractory_ms: 50.0, ..DetectorParams::default() };
        let error = DetectPeaks::check(&Params { detector, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`detector.refractory_ms` must be 100 to 400 ms, not 50");
        let detector = DetectorParams { look_ahead_s: 0.0, ..DetectorParams::default() };
        let error = DetectPeaks::check(&Params { detector, ..Params::default() }).unwrap_err();
        assert_eq!(error, "`detector.look_ahead_s` must be 1 to 60 s, not 0");
    }
}
