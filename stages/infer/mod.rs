//! Findings from a recording: `ecgpipe infer`. Not a stage: it chains the pure parts of the stages on one input, with the
//! parameters that its model was trained with, and puts the result in words.
//!
//! | module | owns |
//! |---|---|
//! | [`model`] | the model's file: what it is, where it comes from, opening it |
//! | [`preparation`] | how the model's input must be prepared |
//! | [`quality`] | which stretches of a lead cannot be read |
//! | [`record`] | from a WFDB record, or an EDF, BDF or CSV file, to classified beats |
//! | [`windows`] | from a `.npy` array of windows to classes |
//! | [`findings`] | what a row of classified beats says |
//! | [`text`], [`json`], [`csv`] | the same findings in three forms |
//!
//! Invariants: only header and signal files of a record are read, never annotations (`tests::annotations_are_not_read`); the
//! same input, model and engine give the same text, which holds no clock time and no absolute path of its own
//! (`tests::findings_are_the_same_each_time`).

pub mod csv;
pub mod findings;
pub mod json;
pub mod model;
pub mod preparation;
pub mod quality;
pub mod record;
pub mod text;
pub mod windows;

#[cfg(test)]
mod tests;

use std::path::Path;

use ecgpipe_sdk::StageError;

use model::ModelFile;

/// What to read, with what, and in which form to tell it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A WFDB record (with or without `.hea` or `.dat`), an EDF, BDF or CSV file, or a `.npy` file of windows.
    pub input: &'a Path,
    /// The exported model.
    pub model: &'a Path,
    /// The lead to read, by name; without it, the model's own preference decides.
    pub lead: Option<&'a str>,
    /// The form of the findings.
    pub format: Format,
    /// The project's `data` folder, for the ONNX Runtime library.
    pub data_folder: &'a Path,
    /// Never use the network.
    pub offline: bool,
}

/// The form of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a cardiologist.
    Text,
    /// Everything, for programs.
    Json,
    /// One line a beat, for tables.
    Csv,
}

/// Stands under all findings.
pub const NOTICE: &str = "Decision support for review by a cardiologist; not a diagnosis. Verify every strip.";
/// Stands beside the findings of every record: what they are silent about.
pub const NOT_JUDGED: &str = "not judged: atrial fibrillation and flutter, conduction (AV and bundle branch block), ST segments, QT; \
                              a beat that the detector missed or invented also changes RR intervals, rates and patterns";
/// Stands beside the probabilities of a model that was not calibrated.
pub const UNCALIBRATED: &str =
    "probabilities are the model's own and not calibrated: of beats at 0.90, more or fewer than 90 % may be right";

/// The findings in the wanted form.
///
/// # Errors
/// If the model or the input is missing, damaged or not what it should be; each says what to do.
pub fn run(request: &Request<'_>) -> Result<String, StageError> {
    let model = ModelFile::read(request.model)?;
    let is_windows = request.input.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    if is_windows {
        if let Some(lead) = request.lead {
            let message =
                format!("`--lead {}` was given, but {} holds windows, not leads", shown(lead), request.input.display());
            return Err(StageError::new(message).help("leave `--lead` out, or give a WFDB record"));
        }
        let findings = windows::read(&model, request)?;
        return Ok(match request.format {
            Format::Text => text::of_windows(&findings),
            Format::Json => json::of_windows(&findings),
            Format::Csv => csv::of_windows(&findings),
        });
    }
    let findings = record::read(&model, request)?;
    Ok(match request.format {
        Format::Text => text::of_record(&findings),
        Format::Json => json::of_record(&findings),
        Format::Csv => csv::of_record(&findings),
    })
}

/// Foreign text, fit to be shown: no control characters, and not endless.
fn shown(text: &str) -> String {
    const SHOWN_CHAR_N: usize = 120;
    let clean = |character: char| if character.is_control() { '?' } else { character };
    let mut shown: String = text.chars().take(SHOWN_CHAR_N).map(clean).collect();
    if text.chars().nth(SHOWN_CHAR_N).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The index of the largest probability, the first of equals; `None` if one is not a number, as a damaged model may give.
fn most_probable(probabilities: &[f32]) -> Option<usize> {
    let all_known = !probabilities.is_empty() && probabilities.iter().all(|probability| probability.is_finite());
    let larger = |best, idx: usize| if probabilities[idx] > probabilities[best] { idx } else { best };
    all_known.then(|| (1..probabilities.len()).fold(0, larger))
}

fn not_a_number(what: &str, idx: usize) -> StageError {
    StageError::new(format!("the model gave {what} {idx} a probability that is not a number"))
        .help("the model is damaged: publish it again with `ecgpipe run`")
}
