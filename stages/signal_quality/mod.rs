//! `signal_quality`: where beats found in a record can be trusted, and why not.
//!
//! The method, its sources and its constants are in [`monitor`], which works on a stream; this stage names leads and
//! reads records.
//!
//! Invariant: windows cover the record without gaps (`tests::windows_cover_the_record`).

pub mod monitor;

use ecgpipe_sdk::{
    Beats, Context, Each, Quality, Signals, Stage, StageError, StageFacts, facts::names, kinds::QualityRow, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{agreement::check_recording, lead};
use monitor::{Judgement, Monitor};

/// Judges the quality of signals.
pub struct SignalQuality;

/// How quality is judged.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Length of a window, in s (2 to 60). Default: 10.
    #[schemars(range(min = 2, max = 60))]
    pub window_s: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { window_s: 10.0 }
    }
}

ports! {
    /// What `signal_quality` takes.
    pub struct Inputs {
        /// The recording. Leads that are no voltages are left out.
        pub signals: Each<Signals>,
        /// Beats found in it: with them the rhythm is judged as well, and noise much better.
        pub beats: Option<Each<Beats>>,
    }
}

ports! {
    /// What `signal_quality` gives.
    pub struct Outputs {
        /// Score and reason for every window and lead, and for all leads together.
        pub quality: Each<Quality>,
    }
}

impl Stage for SignalQuality {
    const NAME: &'static str = "signal_quality";
    const SUMMARY: &'static str =
        "says for every window where beats cannot be trusted, and why: missing, flat, clipped, noise, rhythm";

    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if (2.0..=60.0).contains(&params.window_s) {
            Ok(())
        } else {
            Err(format!("`window_s` must be 2 to 60 s, not {}", params.window_s))
        }
    }

    fn facts(_params: &Params, facts: &mut StageFacts<'_>) {
        facts.pass_only("signals", "quality", &[names::PATIENT, names::RECORD_FS_HZ]);
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        Ok(Outputs { quality: Each::new(quality(params, &inputs.signals, inputs.beats.as_deref())?) })
    }
}

/// The quality of one record; the stage without its surroundings.
///
/// # Errors
/// If beats and signals do not belong together, if no lead is a voltage, or if the sampling frequency is not a positive
/// number.
pub fn quality(params: &Params, signals: &Signals, beats: Option<&Beats>) -> Result<Quality, StageError> {
    let hz = signals.sampling_frequency_hz;
    if !hz.is_finite() || hz <= 0.0 {
        return Err(StageError::new(format!("a sampling frequency of {hz} Hz is not a positive number"))
            .help("correct the record's header")
            .record(&signals.record));
    }
    let voltages: Vec<usize> =
        (0..signals.leads.len()).filter(|&idx| lead::mv_per_unit(&signals.leads[idx].units).is_some()).collect();
    if voltages.is_empty() {
        return Err(StageError::new("the record has no lead in mV, uV, nV or V")
            .help("leave the record out at the source")
            .record(&signals.record));
    }
    if let Some(beats) = beats {
        check_recording(signals, beats)
            .map_err(|error| error.help("connect `signals` and `beats` of the same source"))?;
    }
    let mut monitor = match beats {
        None => Monitor::new(voltages.len(), hz, params.window_s),
        Some(beats) => {
            let mut monitor = Monitor::with_beats(voltages.len(), hz, params.window_s);
            let positions: Vec<i64> = beats.beats.iter().map(|beat| beat.sample_idx).collect();
            monitor.push_beats(&positions, i64::MAX);
            monitor
        }
    };
    lead::each_chunk(signals, &voltages, |samples| monitor.push(samples))?;
    let judgements = monitor.finish();
    let name = |judgement: &Judgement| judgement.lead_idx.map(|idx| signals.leads[voltages[idx]].name.clone());
    let row = |judgement: Judgement| QualityRow {
        start_idx: judgement.start_idx,
        end_idx: judgement.end_idx,
        lead: name(&judgement),
        score: judgement.score,
        reason: judgement.reason.map(|reason| reason.text().to_owned()),
    };
    Ok(Quality {
        record: signals.record.clone(),
        sampling_frequency_hz: hz,
        sample_n: signals.sample_n() as i64,
        rows: judgements.into_iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests;
