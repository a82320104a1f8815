//! Owns the way from a `.npy` array of windows to classes.

use std::{fs, io};

use ecgpipe_formats::npy;
use ecgpipe_nn::Beats;
use ecgpipe_sdk::StageError;

use super::{
    Request,
    model::{About, EngineUsed, ModelFile},
    most_probable, not_a_number,
};
use crate::aami::AamiClass;

/// How far from 0 and 1 the extremes of a scaled window may be before a note says so.
const SCALE_TOLERANCE: f32 = 0.01;

/// What the model says about windows.
#[derive(Clone, Debug)]
pub struct WindowFindings {
    /// The file, as it was named.
    pub path: String,
    /// Samples in a window.
    pub window_n: usize,
    /// The model.
    pub model: About,
    /// What computed.
    pub engine: EngineUsed,
    /// The classes in the order of the probabilities.
    pub classes: Vec<AamiClass>,
    /// A window whose largest probability is lower is uncertain.
    pub uncertain_below: f32,
    /// Every window, in the order of the file.
    pub windows: Vec<WindowFinding>,
    /// What a reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// What the model says about one window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowFinding {
    /// The most probable class.
    pub class: AamiClass,
    /// Its probability.
    pub probability: f32,
    /// Whether the class is a guess: its probability is below the model's bound.
    pub is_uncertain: bool,
    /// Probability of each class.
    pub probabilities: Vec<f32>,
}

/// Reads windows and classifies them.
///
/// # Errors
/// If the file is missing, no array of windows of the model's length, or not in [0, 1]; if the model cannot be used.
pub fn read(model: &ModelFile, request: &Request<'_>) -> Result<WindowFindings, StageError> {
    let path = request.input.display().to_string();
    let refuse = |text: String| StageError::new(format!("{path}: {text}"));
    let bytes = fs::read(request.input).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse("there is no such file".to_owned()).help("check the path"),
        _ => refuse(error.to_string()),
    })?;
    let window_n = model.signature.window_n;
    let array = npy::read(&bytes).map_err(|error| {
        refuse(error.to_string())
            .help(format!("save windows with `numpy.save`, as 32-bit floats of shape (N, 1, {window_n})"))
    })?;
    let values = windows_of(&array, window_n).map_err(|(text, help)| refuse(text).help(help))?;
    let (mut session, engine, engine_note) = model.open(request.data_folder, request.offline)?;
    let probabilities =
        session.probabilities(Beats { windows: values, features: None }).map_err(|error| refuse(error.to_string()))?;
    let finding = |(window_idx, row): (usize, &[f32])| {
        let top = most_probable(row).ok_or_else(|| not_a_number("window", window_idx))?;
        Ok(WindowFinding {
            class: model.classes[top],
            probability: row[top],
            is_uncertain: row[top] < model.uncertain_below(),
            probabilities: row.to_vec(),
        })
    };
    let rows = probabilities.chunks_exact(model.classes.len()).enumerate();
    let windows = rows.map(finding).collect::<Result<_, StageError>>()?;
    let mut notes = notes_on_windows(values, window_n);
    if !model.signature.feature_names.is_empty() {
        notes.push(
            "a window has no neighbours, so the model judged by shape alone; premature beats (S) show mainly in RR intervals: give the record instead"
                .to_owned(),
        );
    }
    notes.extend(engine_note);
    notes.push(model.on_probabilities());
    if model.certainty.is_some() && !model.signature.feature_names.is_empty() {
        notes.push("they were made frequencies for beats with features, which a window alone has not".to_owned());
    }
    Ok(WindowFindings {
        path,
        window_n,
        model: model.about.clone(),
        engine,
        classes: model.classes.clone(),
        uncertain_below: model.uncertain_below(),
        windows,
        notes,
    })
}

/// The values of an array of windows in [0, 1], or what is wrong and what to do.
fn windows_of(array: &npy::Array, window_n: usize) -> Result<&[f32], (String, String)> {
    let is_fit = match array.shape[..] {
        [n] | [_, n] | [_, 1, n] => n == window_n,
        _ => false,
    };
    if !is_fit {
        let sizes: Vec<String> = array.shape.iter().map(usize::to_string).collect();
        let text = format!("the shape is ({})", sizes.join(", "));
        return Err((text, format!("the model takes ({window_n},), (N, {window_n}) or (N, 1, {window_n})")));
    }
    if array.values.is_empty() {
        return Err(("there are no windows in the array".to_owned(), "save at least one window".to_owned()));
    }
    if let Some(idx) = array.values.iter().position(|value| !(0.0..=1.0).contains(value)) {
        let text =
            format!("sample {} of window {} is {}, outside [0, 1]", idx % window_n, idx / window_n, array.values[idx]);
        let help =
            "scale each window by itself, `(x - x.min()) / (x.max() - x.min())`, or give the WFDB record instead";
        return Err((text, help.to_owned()));
    }
    Ok(&array.values)
}

fn notes_on_windows(values: &[f32], window_n: usize) -> Vec<String> {
    let (mut flat_n, mut unscaled_n) = (0, 0);
    for window in values.chunks_exact(window_n) {
        let (low, high) =
            window.iter().fold((f32::MAX, f32::MIN), |(low, high), &value| (low.min(value), high.max(value)));
        if low == high {
            flat_n += 1;
        } else if low > SCALE_TOLERANCE || high < 1.0 - SCALE_TOLERANCE {
            unscaled_n += 1;
        }
    }
    let mut notes = Vec::new();
    if flat_n > 0 {
        notes.push(format!("windows that are flat, and so show no beat: {flat_n}"));
    }
    if unscaled_n > 0 {
        notes.push(format!("windows that do not span 0 to 1, as those that the model learned from do: {unscaled_n}; scale each by itself"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_an_array() {
        let check = |shape: &[usize], values: Vec<f32>, expected: Result<usize, &str>| {
            let array = npy::Array { shape: shape.to_vec(), values };
            let found = windows_of(&array, 3).map(<[f32]>::len).map_err(|(text, _)| text);
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check(&[3], vec![0.0, 0.5, 1.0], Ok(3));
        check(&[2, 3], vec![0.0; 6], Ok(6));
        check(&[2, 1, 3], vec![0.0; 6], Ok(6));
        check(&[2, 2], vec![0.0; 4], Err("the shape is (2, 2)"));
        check(&[1, 2, 3], vec![0.0; 6], Err("the shape is (1, 2, 3)"));
        check(&[], vec![0.5], Err("the shape is ()"));
        check(&[0, 1, 3], Vec::new(), Err("there are no windows in the array"));
        check(&[2, 3], vec![0.0, 0.0, 0.0, 0.0, 1.5, 0.0], Err("sample 1 of window 1 is 1.5, outside [0, 1]"));
        check(&[3], vec![0.0, f32::NAN, 1.0], Err("sample 1 of window 0 is NaN, outside [0, 1]"));
    }

    #[test]
    fn notes_windows_that_no_model_learned_from() {
        assert_eq!(notes_on_windows(&[0.0, 0.5, 1.0], 3), [] as [&str; 0]);
        let notes = notes_on_windows(&[0.2, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9], 3);
        assert!(notes[0].ends_with(": 1") && notes[1].contains(": 2;"), "{notes:?}");
    }
}
