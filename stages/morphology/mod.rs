//! `morphology`: features of each beat from its shape, against the other beats of the same record.
//!
//! What a beat looks like says little across patients: a bundle branch block of one is the ectopic beat of another. What
//! carries over is how much a beat differs from what is usual *in its own record*. So the record's dominant beat is found
//! without any label ([`groups`]), and each beat is measured against it ([`measures`]): QRS complex, P wave and T wave apart, on
//! up to two leads. What a feature is, with its source, stands there.
//!
//! Invariants: labels are never looked at; gain, polarity and the order of the leads do not matter
//! (`tests::gain_polarity_and_order_of_leads_do_not_matter`); every number is finite. The whole record decides what is usual,
//! so a beat's features depend on beats after it.

mod context;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod measures;
pub(crate) mod shapes;

use std::{convert::Infallible, ops::Range};

use ecgpipe_sdk::{Beats, Context, Each, Features, Signals, Stage, StageError, StageFacts, facts::names, ports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{
    context::Measured,
    groups::Groups,
    shapes::{MAX_LEAD_N, Shapes, check_lead_n},
};
use crate::{
    causal::{check_past, last_rows},
    lead,
};

/// Computes features of each beat from its shape.
pub struct Morphology;

/// Which leads.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Leads by name, the best first. The first one that a record has, else its first lead that is a voltage, is looked at.
    pub leads: Vec<String>,
    /// How many leads are looked at where there are more, 1 or 2; the second one is the record's next voltage.
    #[schemars(range(min = 1, max = 2))]
    pub leads_n: usize,
    /// How many beats before a beat its features know at most, and none after it: what a monitor could compute as it goes. It
    /// takes time in proportion. Default: the whole recording.
    #[schemars(range(min = 1))]
    pub past_n: Option<usize>,
}

impl Default for Params {
    fn default() -> Self {
        Self { leads: lead::default_preference(), leads_n: MAX_LEAD_N, past_n: None }
    }
}

ports! {
    /// What `morphology` takes.
    pub struct Inputs {
        /// The recording.
        pub signals: Each<Signals>,
        /// Where the beats are; detected beats and reference beats alike.
        pub beats: Each<Beats>,
        /// Other features of the same beats, such as those of `rhythm`: they come first in the output.
        pub features: Option<Each<Features>>,
    }
}

ports! {
    /// What `morphology` gives.
    pub struct Outputs {
        /// One row a beat, in the order of the beats.
        pub features: Each<Features>,
    }
}

impl Stage for Morphology {
    const NAME: &'static str = "morphology";
    const SUMMARY: &'static str =
        "features of each beat from its shape against the record's own dominant beat: QRS, P and T on up to two leads";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        check_lead_n(params.leads_n)?;
        check_past(params.past_n)
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        lead::check_records(facts, "signals", &params.leads);
        facts.same(&["beats", "features"], &[names::BEATS], "compute both from the same beats");
        facts.pass("beats", "features");
        let before = facts.get("features", names::FEATURES).and_then(|fact| fact.value.as_array().cloned());
        let all = before.unwrap_or_default().into_iter().chain(feature_names().into_iter().map(Value::from));
        facts.set("features", names::FEATURES, Value::Array(all.collect()));
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        let own = features(params, &inputs.signals, &inputs.beats)?;
        let features = match inputs.features.as_deref() {
            Some(before) => joined(before, own)?,
            None => own,
        };
        Ok(Outputs { features: Each::new(features) })
    }
}

/// The names of all features, in column order.
#[must_use]
pub fn feature_names() -> Vec<String> {
    measures::names().into_iter().chain(context::names()).collect()
}

/// One column for each of [`feature_names`]. `positions` are those of the R-peaks, in samples of any frequency.
/// With `past_n` a beat knows so many before it, and none after.
pub(crate) fn columns(shapes: &Shapes, positions: &[i64], past_n: Option<usize>) -> Vec<Vec<f32>> {
    let Some(past_n) = past_n else { return columns_of_all(shapes, positions) };
    let part =
        |beats: Range<usize>| Ok::<_, Infallible>(columns_of_all(&shapes.part(beats.clone()), &positions[beats]));
    last_rows(positions.len(), past_n, part).unwrap_or_else(|never| match never {})
}

fn columns_of_all(shapes: &Shapes, positions: &[i64]) -> Vec<Vec<f32>> {
    let groups = Groups::of(shapes, positions);
    let mut columns = measures::columns(shapes, &groups);
    let names = measures::names();
    let column = |wanted: &str| {
        let place = names.iter().position(|name| name == wanted).expect("a measure's own name");
        &columns[place][..]
    };
    let measured = Measured { p_correlation: column("p_correlation_max"), p_projection: column("p_projection_max") };
    let context = context::columns(positions, &groups, &measured);
    columns.extend(context);
    columns
}

/// The features of every beat.
///
/// # Errors
/// If signals and beats are not of one record, no lead is a voltage, or the samples cannot be read.
pub fn features(params: &Params, signals: &Signals, beats: &Beats) -> Result<Features, StageError> {
    let shapes = Shapes::cut(signals, beats, &params.leads, params.leads_n)?;
    let positions: Vec<i64> = beats.beats.iter().map(|beat| beat.sample_idx).collect();
    Ok(Features {
        record: beats.record.clone(),
        beat_idx: (0..).take(beats.beats.len()).collect(),
        names: feature_names(),
        columns: columns(&shapes, &positions, params.past_n),
    })
}

/// Two sets of features of the same beats as one.
///
/// # Errors
/// If they are of other records or beats, or a name is in both.
pub fn joined(first: &Features, second: Features) -> Result<Features, StageError> {
    if first.record != second.record || first.beat_idx != second.beat_idx {
        let message = format!(
            "the features on port `features` are of {} beats of record {}, the beats are {} of record {}",
            first.beat_idx.len(),
            first.record,
            second.beat_idx.len(),
            second.record
        );
        return Err(StageError::new(message).help("compute both from the same beats").record(&second.record));
    }
    if let Some(name) = second.names.iter().find(|name| first.names.contains(name)) {
        let message = format!("the features on port `features` have `{name}` already");
        return Err(StageError::new(message).record(&second.record));
    }
    let mut features = first.clone();
    features.names.extend(second.names);
    features.columns.extend(second.columns);
    Ok(features)
}

#[cfg(test)]
pub(crate) mod tests;
