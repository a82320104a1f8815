//! Owns findings as JSON: everything, one line a beat, keys in a fixed order.

use serde::{Serialize, Serializer};

use super::{
    NOTICE,
    findings::{EPISODE_ECTOPIC_N, LONG_RR_S, RATE_RR_N, RUN_BEAT_N},
    record::{Finding, RecordFindings},
    windows::WindowFindings,
};
use crate::aami::AamiClass;

/// The version of the structure below.
const FORMAT: u32 = 1;

/// Everything that was found in a record.
#[must_use]
pub fn of_record(findings: &RecordFindings) -> String {
    let hz = findings.record.sampling_frequency_hz;
    let unreadable = findings.unreadable.iter().map(|stretch| Unreadable {
        start_s: thousandths(stretch.first_idx as f64 / hz),
        end_s: thousandths(stretch.end_idx as f64 / hz),
    });
    let beats = findings.beats.iter().enumerate();
    let beats = beats.map(|(beat_idx, finding)| line(&BeatRow::of(beat_idx, finding, &findings.classes, hz)));
    document(&[
        ("format", pretty(&FORMAT)),
        ("kind", pretty(&"record")),
        ("notice", pretty(&NOTICE)),
        ("record", pretty(&findings.record)),
        ("duration_s", pretty(&thousandths(findings.record.sample_n as f64 / hz))),
        ("model", pretty(&findings.model)),
        ("engine", pretty(&findings.engine)),
        ("prepared", pretty(&findings.prepared)),
        ("definitions", pretty(&Definitions::of(findings))),
        ("summary", pretty(&findings.summary)),
        ("unreadable", pretty(&unreadable.collect::<Vec<_>>())),
        ("notes", pretty(&findings.notes)),
        ("beats", lines(beats)),
    ])
}

/// Everything that the model says about windows.
#[must_use]
pub fn of_windows(findings: &WindowFindings) -> String {
    let windows = findings.windows.iter().enumerate().map(|(window_idx, window)| {
        line(&WindowRow {
            window_idx,
            class: window.class.letter(),
            probability: ten_thousandths(window.probability),
            probabilities: ByClass { classes: &findings.classes, probabilities: &window.probabilities },
            uncertain: window.is_uncertain,
        })
    });
    document(&[
        ("format", pretty(&FORMAT)),
        ("kind", pretty(&"windows")),
        ("notice", pretty(&NOTICE)),
        ("path", pretty(&findings.path)),
        ("window_n", pretty(&findings.window_n)),
        ("model", pretty(&findings.model)),
        ("engine", pretty(&findings.engine)),
        ("uncertain_below", pretty(&ten_thousandths(findings.uncertain_below))),
        ("notes", pretty(&findings.notes)),
        ("windows", lines(windows)),
    ])
}

#[derive(Serialize)]
struct Unreadable {
    start_s: f64,
    end_s: f64,
}

/// What the words of the summary mean.
#[derive(Serialize)]
struct Definitions {
    uncertain_below: f64,
    long_rr_s: f64,
    rate_rr_n: usize,
    run_beat_n: usize,
    episode_ectopic_n: usize,
    classes: &'static str,
}

impl Definitions {
    fn of(findings: &RecordFindings) -> Self {
        Self {
            uncertain_below: ten_thousandths(findings.uncertain_below),
            long_rr_s: LONG_RR_S,
            rate_rr_n: RATE_RR_N,
            run_beat_n: RUN_BEAT_N,
            episode_ectopic_n: EPISODE_ECTOPIC_N,
            classes: "ANSI/AAMI EC57",
        }
    }
}

#[derive(Serialize)]
struct BeatRow<'a> {
    beat_idx: usize,
    sample_idx: i64,
    time_s: f64,
    class: Option<&'static str>,
    probability: Option<f64>,
    uncertain: bool,
    rr_before_s: Option<f64>,
    probabilities: Option<ByClass<'a>>,
}

impl<'a> BeatRow<'a> {
    fn of(beat_idx: usize, finding: &'a Finding, classes: &'a [AamiClass], sampling_frequency_hz: f64) -> Self {
        let beat = &finding.beat;
        Self {
            beat_idx,
            sample_idx: beat.sample_idx,
            time_s: thousandths(beat.sample_idx as f64 / sampling_frequency_hz),
            class: beat.class.map(AamiClass::letter),
            probability: beat.class.map(|_| ten_thousandths(beat.probability)),
            uncertain: beat.is_uncertain,
            rr_before_s: finding.rr_before_s.map(thousandths),
            probabilities: beat.class.map(|_| ByClass { classes, probabilities: &finding.probabilities }),
        }
    }
}

#[derive(Serialize)]
struct WindowRow<'a> {
    window_idx: usize,
    class: &'static str,
    probability: f64,
    uncertain: bool,
    probabilities: ByClass<'a>,
}

/// Probabilities under the letters of their classes, in the model's order.
struct ByClass<'a> {
    classes: &'a [AamiClass],
    probabilities: &'a [f32],
}

impl Serialize for ByClass<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.classes.iter().zip(self.probabilities);
        serializer.collect_map(entries.map(|(class, probability)| (class.letter(), ten_thousandths(*probability))))
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn ten_thousandths(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

/// An object with the given values, each of them JSON.
fn document(entries: &[(&str, String)]) -> String {
    let entry = |(key, value): &(&str, String)| format!("  \"{key}\": {}", value.replace('\n', "\n  "));
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!("{{\n{}\n}}\n", entries.join(",\n"))
}

fn lines(rows: impl Iterator<Item = String>) -> String {
    let rows: Vec<String> = rows.map(|row| format!("\n  {row}")).collect();
    if rows.is_empty() { "[]".to_owned() } else { format!("[{}\n]", rows.join(",")) }
}

// A JSON text holds no line breaks but those between values, so that it can be moved to the right as it is.
fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("findings are plain data")
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("findings are plain data")
}
