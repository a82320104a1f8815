//! Owns which inputs belong together. The stages around a model say it before anything runs: rows of the same beats, windows
//! cut and scaled for a model as those that it learned from. Stages of a recording and its beats say it when they run.
//!
//! It must not know how anything is computed, so that no stage's code identity depends on another's through it.

use ecgpipe_sdk::{
    Beats, FactProblem, Place, Signals, StageError, StageFacts,
    facts::{FactName, names},
};
use serde_json::{Value, json};

/// How the windows of a model are cut and scaled: what training and inference must have in common.
const PREPARATION: [FactName; 5] =
    [names::LENGTH_N, names::BEFORE_N, names::WINDOW_FS_HZ, names::UNIT, names::NORMALISATION];

/// What may differ between training and inference, but seldom should.
const SURROUNDINGS: [FactName; 2] = [names::LEADS, names::PEAKS];

/// Refuses inputs whose rows are numbered by different beats.
pub fn check_beats(facts: &mut StageFacts<'_>, ports: &[&'static str]) {
    let help = "connect them to the same beats: rows are joined by the number of the beat in its record";
    facts.same(ports, &[names::BEATS], help);
}

/// What every stage that trains says: its inputs are of the same beats, and what it gives on the port `model` is of their
/// windows, features and split.
pub fn training_facts(facts: &mut StageFacts<'_>, model: &'static str) {
    check_beats(facts, &["windows", "features", "split"]);
    facts.pass_only("windows", model, &PREPARATION);
    facts.pass_only("windows", model, &SURROUNDINGS);
    if facts.is_connected("features") {
        facts.pass_only("features", model, &[names::FEATURES]);
    } else {
        facts.set(model, names::FEATURES, json!([]));
    }
    facts.pass_only("split", model, &[names::SPLIT, names::LEARNED_RECORDS, names::ESCAPE_RULE]);
}

/// What every stage that uses a model says: `windows` and `features` are prepared as those that the model on port `model`
/// learned from.
pub fn check_model_inputs(facts: &mut StageFacts<'_>, model: &'static str) {
    let help = "cut and scale windows for a model as those that it was trained on: one chain of stages can feed both";
    facts.same(&[model, "windows"], &PREPARATION, help);
    let help = "take both from one chain of stages, unless this difference is what you want to measure";
    facts.same_or_warn(&[model, "windows"], &SURROUNDINGS, help);
    let Some(learned) = facts.get(model, names::FEATURES) else { return };
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    if !facts.is_connected("features") {
        if !is_empty(&learned.value) {
            let message = format!(
                "`{}` was trained with features, but `features` is not connected: it answers from the windows alone",
                facts.from(model)
            );
            let problem = FactProblem::warning(Place::Port(model), message).because(names::FEATURES, learned);
            facts.tell(problem.help("connect `features` to the features of the same beats"));
        }
    } else if is_empty(&learned.value) {
        let message = format!("`{}` was trained without features, but `features` is connected", facts.from(model));
        let problem = FactProblem::error(Place::Port("features"), message).because(names::FEATURES, learned);
        facts.tell(problem.help("take `features` out here, or connect it to the stage that trains"));
    } else {
        facts.same(&[model, "features"], &[names::FEATURES], "give both the same `features`, in the same order");
    }
}

/// Refuses a recording and beats that are not of one record at one sampling frequency: what a stage of both asks when it runs.
///
/// # Errors
/// Names both records and frequencies.
pub fn check_recording(signals: &Signals, beats: &Beats) -> Result<(), StageError> {
    let (signals_hz, beats_hz) = (signals.sampling_frequency_hz, beats.sampling_frequency_hz);
    if signals.record == beats.record && signals_hz == beats_hz {
        return Ok(());
    }
    Err(StageError::new(format!(
        "signals are of record {} at {signals_hz} Hz, beats are of record {} at {beats_hz} Hz",
        signals.record, beats.record
    ))
    .help("connect `signals` to the port that the beats were found on")
    .record(&signals.record))
}

/// The first of many, and how many there are; nothing of none.
#[must_use]
pub fn some_of(items: &[String]) -> Option<String> {
    const SHOWN_N: usize = 5;
    let rest_n = items.len().saturating_sub(SHOWN_N);
    let rest = if rest_n > 0 { format!(" and {rest_n} more") } else { String::new() };
    (!items.is_empty()).then(|| format!("{}{rest}", items[..items.len().min(SHOWN_N)].join(", ")))
}
