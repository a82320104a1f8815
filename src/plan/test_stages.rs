//! Owns a small registry of stages with the ports of the real ones and nothing behind them, for tests of planning.

use ecgpipe_sdk::{
    All, Beats, Context, Each, FactProblem, Files, JsonSchema, Metrics, Model, NoInputs, One, Place, Registry, Signals,
    Split, Stage, StageError, StageFacts, Windows, facts::names, ports,
};
use serde::{Deserialize, Serialize};

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Ingest>("c0de01");
    registry.register::<DetectPeaks>("c0de02");
    registry.register::<Window>("c0de03");
    registry.register::<SplitPatients>("c0de04");
    registry.register::<Train>("c0de05");
    registry.register::<Plot>("c0de06");
    registry.register::<Smooth>("c0de07");
    registry.register::<Confused>("c0de08");
    registry
}

macro_rules! stage {
    ($stage:ident, $name:literal, $summary:literal, $params:ty, $inputs:ty, $outputs:ty $(, $more:item)*) => {
        pub(crate) struct $stage;

        impl Stage for $stage {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = $summary;
            type Params = $params;
            type Inputs = $inputs;
            type Outputs = $outputs;
            $($more)*

            fn run(_: &Self::Params, _: Self::Inputs, _: &Context<'_>) -> Result<Self::Outputs, StageError> {
                Err(StageError::new("a stage of a planning test does nothing"))
            }
        }
    };
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NoParams {}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IngestParams {
    /// The database; a folder of `data/raw/`.
    database: String,
    /// The records to read, all if empty.
    records: Vec<String>,
    /// Which leads.
    leads: Leads,
    /// Stop after so many records.
    limit_n: Option<u32>,
}

impl Default for IngestParams {
    fn default() -> Self {
        Self { database: "mitdb".to_owned(), records: Vec::new(), leads: Leads::All, limit_n: None }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Leads {
    /// Every lead of the record.
    All,
    /// The first lead only.
    First,
}

ports! {
    /// What it gives.
    pub(crate) struct SignalsOut {
        /// The recording, in mV.
        pub(crate) signals: Each<Signals>,
    }
}

stage!(Ingest, "ingest", "Reads records.", IngestParams, NoInputs, SignalsOut);

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DetectParams {
    /// The band that holds the QRS complex.
    band: Band,
    /// How the threshold is found.
    threshold: Threshold,
    /// Look for missed beats.
    search_back: bool,
}

/// A pass band.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Band {
    /// Lower edge, in Hz.
    low_hz: f64,
    /// Upper edge, in Hz.
    high_hz: f64,
}

impl Default for Band {
    fn default() -> Self {
        Self { low_hz: 5.0, high_hz: 15.0 }
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "method", deny_unknown_fields)]
enum Threshold {
    /// The same everywhere.
    Fixed {
        /// In mV.
        level_mv: f64,
    },
    /// Follows the signal.
    Adaptive {
        /// How fast, from 0 to 1.
        rate: f64,
    },
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Adaptive { rate: 0.125 }
    }
}

ports! {
    /// What it takes.
    pub(crate) struct SignalsIn {
        /// The recording to look at.
        pub(crate) signals: Each<Signals>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct BeatsOut {
        /// Where the beats are.
        pub(crate) beats: Each<Beats>,
    }
}

stage!(
    DetectPeaks,
    "detect_peaks",
    "Finds R-peaks.",
    DetectParams,
    SignalsIn,
    BeatsOut,
    fn check(params: &DetectParams) -> Result<(), String> {
        if params.band.low_hz >= params.band.high_hz {
            return Err(format!("`band.low_hz` must be below `band.high_hz`, not {}", params.band.low_hz));
        }
        Ok(())
    },
    fn facts(params: &DetectParams, facts: &mut StageFacts<'_>) {
        facts.identify("beats", names::BEATS);
        facts.pass_only("signals", "beats", &[names::PATIENT]);
        for (record, hz) in facts.by_record("signals", names::RECORD_FS_HZ) {
            if hz.as_f64().is_some_and(|hz| params.band.high_hz >= hz / 2.0) {
                let message =
                    format!("record {record} has {hz} Hz, too few for `band.high_hz` {}", params.band.high_hz);
                facts.tell(FactProblem::error(Place::Parameter("band.high_hz"), message).help("lower the band"));
            }
        }
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WindowParams {
    /// Samples in a window.
    length_n: usize,
    /// Samples before the R-peak.
    before_n: u16,
}

impl Default for WindowParams {
    fn default() -> Self {
        Self { length_n: 187, before_n: 90 }
    }
}

ports! {
    /// What it takes.
    pub(crate) struct WindowIn {
        /// The recording to cut from.
        pub(crate) signals: Each<Signals>,
        /// Where the beats are.
        pub(crate) beats: Each<Beats>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct WindowOut {
        /// One window a beat, in mV.
        pub(crate) windows: Each<Windows>,
    }
}

stage!(
    Window,
    "window",
    "Cuts one window around each beat.",
    WindowParams,
    WindowIn,
    WindowOut,
    fn check(params: &WindowParams) -> Result<(), String> {
        if params.length_n == 0 {
            return Err("`length_n` must be 1 or more, not 0".to_owned());
        }
        Ok(())
    },
    fn facts(params: &WindowParams, facts: &mut StageFacts<'_>) {
        facts.pass("beats", "windows");
        facts.set_by("windows", names::LENGTH_N, params.length_n, "length_n");
        facts.set_by("windows", names::BEFORE_N, params.before_n, "before_n");
    }
);

ports! {
    /// What it takes.
    pub(crate) struct SplitIn {
        /// All beats.
        pub(crate) beats: All<Beats>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct SplitOut {
        /// Which record is in which part.
        pub(crate) split: One<Split>,
    }
}

stage!(
    SplitPatients,
    "split",
    "Puts each patient into one part.",
    NoParams,
    SplitIn,
    SplitOut,
    fn facts(_: &NoParams, facts: &mut StageFacts<'_>) {
        facts.pass("beats", "split");
        if facts.by_record("beats", names::PATIENT).len() > 1 {
            facts.tell(FactProblem::foretold(Place::Port("beats"), "patients may leak"));
        }
    }
);

ports! {
    /// What it takes.
    pub(crate) struct TrainIn {
        /// All windows.
        pub(crate) windows: All<Windows>,
        /// The parts.
        pub(crate) split: One<Split>,
        /// A model to start from.
        pub(crate) start: Option<One<Model>>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct TrainOut {
        /// The trained model.
        pub(crate) model: One<Model>,
        /// Loss and accuracy by epoch.
        pub(crate) metrics: One<Metrics>,
    }
}

stage!(
    Train,
    "train",
    "Trains a classifier.",
    NoParams,
    TrainIn,
    TrainOut,
    const SEEDED: bool = true;,
    const EXCLUSIVE: bool = true;,
    fn facts(_: &NoParams, facts: &mut StageFacts<'_>) {
        facts.same(&["windows", "split"], &[names::BEATS], "connect them to the same beats");
        facts.pass("windows", "model");
    }
);

ports! {
    /// What it takes.
    pub(crate) struct PredictIn {
        /// The windows of one record.
        pub(crate) windows: Each<Windows>,
        /// The model.
        pub(crate) model: One<Model>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct PredictOut {
        /// What the model says.
        pub(crate) predictions: Each<Files>,
    }
}

// Not in the registry of all planning tests, whose messages list the stages.
stage!(
    Predict,
    "predict",
    "Applies a classifier.",
    NoParams,
    PredictIn,
    PredictOut,
    fn facts(_: &NoParams, facts: &mut StageFacts<'_>) {
        let names = [names::LENGTH_N, names::BEFORE_N];
        facts.same(&["model", "windows"], &names, "cut windows as the model was trained");
        facts.pass("windows", "predictions");
    }
);

ports! {
    /// What it takes.
    pub(crate) struct PlotIn {
        /// What to draw.
        pub(crate) metrics: One<Metrics>,
    }
}

ports! {
    /// What it gives.
    pub(crate) struct PlotOut {
        /// The pictures.
        pub(crate) figures: One<Files>,
    }
}

stage!(Plot, "plot", "Draws curves.", NoParams, PlotIn, PlotOut);

stage!(Smooth, "smooth", "Takes out the noise.", NoParams, SignalsIn, SignalsOut);

stage!(Confused, "confused", "Breaks the rules for ports.", NoParams, SignalsIn, SplitOut);
