//! Owns findings as a table: one line a beat or window. Only numbers and class letters, so nothing needs quotes.

use super::{record::RecordFindings, windows::WindowFindings};
use crate::aami::AamiClass;

/// One line a beat, after a line of column names. What is not known is empty.
#[must_use]
pub fn of_record(findings: &RecordFindings) -> String {
    let mut csv = format!("beat_idx,sample_idx,time_s,{},rr_before_s\n", class_columns(&findings.classes));
    for (beat_idx, finding) in findings.beats.iter().enumerate() {
        let beat = &finding.beat;
        let time_s = beat.sample_idx as f64 / findings.record.sampling_frequency_hz;
        let class = match beat.class {
            Some(class) => class_cells(class, beat.probability, beat.is_uncertain, &finding.probabilities),
            None => ",".repeat(2 + findings.classes.len()),
        };
        let rr_before = finding.rr_before_s.map(|rr_s| format!("{rr_s:.3}")).unwrap_or_default();
        csv.push_str(&format!("{beat_idx},{},{time_s:.3},{class},{rr_before}\n", beat.sample_idx));
    }
    csv
}

/// One line a window, after a line of column names.
#[must_use]
pub fn of_windows(findings: &WindowFindings) -> String {
    let mut csv = format!("window_idx,{}\n", class_columns(&findings.classes));
    for (window_idx, window) in findings.windows.iter().enumerate() {
        let class = class_cells(window.class, window.probability, window.is_uncertain, &window.probabilities);
        csv.push_str(&format!("{window_idx},{class}\n"));
    }
    csv
}

fn class_columns(classes: &[AamiClass]) -> String {
    let each: Vec<String> = classes.iter().map(|class| format!("probability_{class}")).collect();
    format!("class,probability,uncertain,{}", each.join(","))
}

fn class_cells(class: AamiClass, probability: f32, is_uncertain: bool, probabilities: &[f32]) -> String {
    let each: Vec<String> = probabilities.iter().map(|probability| format!("{probability:.4}")).collect();
    format!("{class},{probability:.4},{},{}", u8::from(is_uncertain), each.join(","))
}
