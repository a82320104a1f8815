//! Counts the beats before each beat: a skeleton that `ecgpipe stages new` wrote. Say here what the stage does, by which
//! method, and from which source.

use ecgpipe_sdk::{Beats, Context, Each, Features, Stage, StageError, ports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts the beats before each beat.
pub struct NewStage;

/// Doc comments are the manual: unit, default, effect.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How far back beats are counted, in seconds. Above 0.
    pub seconds: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { seconds: 60.0 }
    }
}

ports! {
    /// What it takes.
    pub struct Inputs {
        /// Where the beats are.
        pub beats: Each<Beats>,
    }
}

ports! {
    /// What it gives.
    pub struct Outputs {
        /// One number a beat.
        pub features: Each<Features>,
    }
}

impl Stage for NewStage {
    const NAME: &'static str = "new_stage";
    const SUMMARY: &'static str = "counts the beats before each beat";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.seconds > 0.0 { Ok(()) } else { Err("`seconds` must be above 0".to_owned()) }
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        Ok(Outputs { features: Each::new(count_before(&inputs.beats, params.seconds)) })
    }
}

/// How many beats lie at most `seconds` before each beat.
fn count_before(beats: &Beats, seconds: f64) -> Features {
    let span_n = seconds * beats.sampling_frequency_hz;
    let mut from = 0;
    let counts = beats.beats.iter().enumerate().map(|(idx, beat)| {
        while (beat.sample_idx - beats.beats[from].sample_idx) as f64 > span_n {
            from += 1;
        }
        (idx - from) as f32
    });
    let counts = counts.collect();
    Features {
        record: beats.record.clone(),
        names: vec!["beats_before".to_owned()],
        beat_idx: (0..beats.beats.len() as i64).collect(),
        columns: vec![counts],
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ecgpipe_sdk::{RecordId, Registry, kinds};
    use serde_json::json;

    use super::*;

    fn beats(positions: &[i64]) -> Beats {
        let beat = |&sample_idx: &i64| kinds::Beat { sample_idx, symbol: None };
        Beats {
            record: RecordId::new("100").unwrap(),
            patient: "100".to_owned(),
            sampling_frequency_hz: 100.0,
            sample_n: 10_000,
            source: kinds::PeakSource::Reference,
            beats: positions.iter().map(beat).collect(),
            missed: Vec::new(),
        }
    }

    #[test]
    fn counts_what_lies_before() {
        let features = count_before(&beats(&[0, 100, 150, 350]), 2.0);
        assert_eq!(features.columns, [[0.0, 1.0, 2.0, 1.0]]);
    }

    #[test]
    fn parameters_are_checked() {
        let mut registry = Registry::new();
        registry.register::<NewStage>("code");
        let stage = registry.get("new_stage").unwrap();
        assert!(stage.bind(&json!({"seconds": 5})).is_ok());
        assert_eq!(stage.bind(&json!({"seconds": 0})).unwrap_err().path, "seconds");
    }
}
