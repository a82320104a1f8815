//! The stage of the suite in Rust, with the source before it. The same stage in `sh` and in Python is beside this file.

use std::sync::Arc;

use ecgpipe_sdk::{
    Beats, BoundParams, Context, Each, ErasedStage, Files, Metrics, NamedFile, NoInputs, ParamError, PortValue,
    PortValues, RecordId, Registry, SourceContext, SourceRecord, Stage, StageError, StageSpec,
    kinds::{Beat, PeakSource},
    ports,
    stage::erase,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

ports! {
    /// What the suite's stage takes, and what its source gives.
    pub(crate) struct Inputs {
        /// Two files.
        pub(crate) files: Each<Files>,
        /// Three beats.
        pub(crate) beats: Each<Beats>,
        /// A table of another kind.
        pub(crate) other: Each<Metrics>,
    }
}

ports! {
    /// What the suite's stage gives.
    pub(crate) struct Outputs {
        /// The files, and what the stage knows of its job.
        pub(crate) files: Each<Files>,
        /// The beats.
        pub(crate) beats: Each<Beats>,
    }
}

/// The source: one record.
struct Make;

/// No parameters.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nothing {}

fn record() -> RecordId {
    RecordId::new("a").unwrap()
}

fn named(name: &str, text: &str) -> NamedFile {
    NamedFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

pub(crate) fn beats() -> Beats {
    let beat = |sample_idx, symbol: Option<&str>| Beat { sample_idx, symbol: symbol.map(str::to_owned) };
    Beats {
        record: record(),
        patient: "a".to_owned(),
        sampling_frequency_hz: 360.0,
        sample_n: 1000,
        source: PeakSource::Detected,
        beats: vec![beat(77, Some("N")), beat(370, None)],
        missed: vec![beat(662, Some("V"))],
    }
}

impl Stage for Make {
    const NAME: &'static str = "make";
    const SUMMARY: &'static str = "For a test.";
    type Params = Nothing;
    type Inputs = NoInputs;
    type Outputs = Inputs;

    fn sources(_: &Nothing, _: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        Ok(vec![SourceRecord::new(record(), Vec::new())])
    }

    fn run(_: &Nothing, _: NoInputs, _: &Context<'_>) -> Result<Inputs, StageError> {
        let mut other = Metrics::default();
        other.push("length", 0, 1.5);
        let files = Files::new(vec![named("one.txt", "1\n"), named("two.bin", "\0\n\r2")]);
        Ok(Inputs { files: Each::new(files), beats: Each::new(beats()), other: Each::new(other) })
    }
}

/// Parameters of [`Conform`].
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Params {
    /// What it does.
    mode: String,
    /// Changes the result.
    salt: f64,
    /// A named pipe that it holds open while it lives, if there is one.
    pipe: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { mode: "good".to_owned(), salt: 0.5, pipe: String::new() }
    }
}

/// The stage of the suite.
struct Conform;

impl Stage for Conform {
    const NAME: &'static str = "conform";
    const SUMMARY: &'static str = "For a test.";
    const SEEDED: bool = true;
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        match params.mode.as_str() {
            "error" => return Err(StageError::new("told to fail").help("tell it not to").record(cx.record()?)),
            "panic" => panic!("told to panic"),
            "abort" => std::process::abort(),
            "kill" => {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            }
            "events" => {
                cx.progress(1, 2, "parts");
                cx.metric("loss", 3, 0.25);
                cx.note("a note");
                cx.warn("a warning");
            }
            "hang" => loop {
                cx.check_cancelled()?;
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            },
            _ => {}
        }
        let facts = format!(
            "mode={} salt={:?} seed={} record={} threads={}\n",
            params.mode,
            params.salt,
            cx.seed()?,
            cx.record()?,
            cx.threads()
        );
        let files = inputs.files.files.iter().cloned().chain([named("facts.txt", &facts)]).collect();
        Ok(Outputs { files: Each::new(Files::new(files)), beats: Each::new(Beats::clone(&inputs.beats)) })
    }
}

/// [`Conform`] without its types, so that it can also give what no typed stage can.
struct Crooked(Box<dyn ErasedStage>);

impl ErasedStage for Crooked {
    fn spec(&self) -> &StageSpec {
        self.0.spec()
    }

    fn bind(&self, params: &serde_json::Value) -> Result<BoundParams, ParamError> {
        self.0.bind(params)
    }

    fn sources(&self, params: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        self.0.sources(params, cx)
    }

    fn run(&self, params: &BoundParams, inputs: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError> {
        let mut outputs = self.0.run(params, inputs, cx)?;
        match params.as_json()["mode"].as_str() {
            Some("missing_output") => drop(outputs.remove("beats")),
            Some("wrong_kind") => drop(outputs.insert("beats", PortValue::Single(Arc::new(Metrics::default())))),
            _ => {}
        }
        Ok(outputs)
    }
}

/// The source alone.
pub(crate) fn source() -> Registry {
    let mut registry = Registry::new();
    registry.register::<Make>("c0");
    registry
}

/// The source and the stage.
pub(crate) fn registry() -> Registry {
    let mut registry = source();
    registry.add(Box::new(Crooked(erase::<Conform>("c0"))));
    registry
}
