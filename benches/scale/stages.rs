//! Owns the stages of the synthetic pipeline: real stages with the real trait whose work is next to nothing, so that what is
//! measured is the engine.
//!
//! The pipeline has five stages a record and both shapes that join records: a stage that gathers all of them, and one whose
//! single result spreads over all of them again.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use ecgpipe_sdk::{
    All, Context, Each, JsonSchema, Kind, KindError, Metrics, NoInputs, One, RecordId, Registry, SourceContext,
    SourceFile, SourceRecord, Stage, StageError, ports,
};
use serde::{Deserialize, Serialize};

/// Five stages a record and two that gather: 5 n + 2 jobs for n records.
pub(crate) const PIPELINE: &str = "
name: scale
stages:
  read:    {uses: read_text}
  tidy:    {uses: tidy, in: {text: read.text}}
  count:   {uses: count, in: {text: tidy.text}}
  join:    {uses: join, in: {texts: tidy.text}}
  compare: {uses: compare, in: {text: tidy.text, joined: join.text}}
  score:   {uses: score, in: {text: compare.text, counted: count.text}}
  sum:     {uses: sum, in: {texts: score.text}}
publish: {report.txt: sum.text}
";

/// Jobs of [`PIPELINE`] over so many records.
pub(crate) fn job_n(record_n: usize) -> usize {
    5 * record_n + 2
}

/// Writes the pipeline and one small raw file a record into a project folder.
pub(crate) fn write_project(project: &Path, record_n: usize) -> io::Result<()> {
    let texts = project.join("data/texts");
    fs::create_dir_all(&texts)?;
    fs::write(project.join("pipeline.yaml"), PIPELINE)?;
    for record_idx in 0..record_n {
        fs::write(texts.join(format!("r{record_idx:05}.txt")), raw_text(record_idx, 0))?;
    }
    Ok(())
}

/// What is in the raw file of a record, in its first version or a later one.
pub(crate) fn raw_text(record_idx: usize, version: usize) -> String {
    let words = (0..12).map(|word_idx| format!("word{:06}", (record_idx + 1) * (word_idx + 7 + version) % 999_983));
    words.collect::<Vec<_>>().join(" ")
}

static DECODED_N: AtomicU64 = AtomicU64::new(0);

/// How many texts were decoded so far.
pub(crate) fn decoded_n() -> u64 {
    DECODED_N.load(Ordering::Relaxed)
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Kind for Text {
    const NAME: &'static str = "text";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "a text";
    const EXTENSION: &'static str = "txt";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        Ok(self.0.clone().into_bytes())
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        DECODED_N.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8(bytes.to_vec());
        text.map(Self).map_err(|error| KindError::Invalid { kind: Self::NAME, message: error.to_string() })
    }
}

macro_rules! text_ports {
    ($name:ident { $($field:ident : $port:ty),* }) => {
        ports! {
            pub(crate) struct $name {
                $(
                    /// A text.
                    pub(crate) $field: $port,
                )*
            }
        }
    };
}

text_ports!(EachOut { text: Each<Text> });
text_ports!(EachIn { text: Each<Text> });
text_ports!(OneOut { text: One<Text> });
text_ports!(GatherIn { texts: All<Text> });
text_ports!(CompareIn { text: Each<Text>, joined: One<Text> });
text_ports!(ScoreIn { text: Each<Text>, counted: Each<Text> });
text_ports!(SumOut { text: One<Text>, metrics: One<Metrics> });

/// Parameters of every stage.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Params {
    /// Put before the text.
    prefix: String,
    /// Changes nothing.
    remark: String,
}

macro_rules! stage {
    ($type:ident, $name:literal, $inputs:ty => $outputs:ty, |$params:ident, $input:ident| $body:expr) => {
        struct $type;

        impl Stage for $type {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = "For a measurement.";
            type Params = Params;
            type Inputs = $inputs;
            type Outputs = $outputs;

            fn run($params: &Params, $input: $inputs, _: &Context<'_>) -> Result<$outputs, StageError> {
                Ok($body)
            }
        }
    };
}

/// The source: every file of `data/texts` is a record.
struct ReadText;

impl Stage for ReadText {
    const NAME: &'static str = "read_text";
    const SUMMARY: &'static str = "Reads texts.";
    type Params = Params;
    type Inputs = NoInputs;
    type Outputs = EachOut;

    fn sources(_: &Params, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        let io = |error: io::Error| StageError::from_error(&error);
        let mut records = Vec::new();
        for entry in fs::read_dir(cx.data_folder.join("texts")).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let record = RecordId::new(stem).map_err(|error| StageError::from_error(&error))?;
            records.push(SourceRecord::new(record.clone(), vec![SourceFile { name: format!("{record}.txt"), path }]));
        }
        Ok(records)
    }

    fn run(params: &Params, _: NoInputs, cx: &Context<'_>) -> Result<EachOut, StageError> {
        let text = fs::read_to_string(&cx.files()[0].path).map_err(|error| StageError::from_error(&error))?;
        Ok(EachOut { text: Each::new(Text(format!("{}{text}", params.prefix))) })
    }
}

stage!(Tidy, "tidy", EachIn => EachOut, |params, inputs| {
    EachOut { text: Each::new(Text(format!("{}{}", params.prefix, inputs.text.0.to_uppercase()))) }
});

stage!(Count, "count", EachIn => EachOut, |params, inputs| {
    EachOut { text: Each::new(Text(format!("{}{}", params.prefix, inputs.text.0.matches('7').count()))) }
});

stage!(Join, "join", GatherIn => OneOut, |params, inputs| {
    let letter_n: usize = inputs.texts.iter().map(|(_, text)| text.0.len()).sum();
    OneOut { text: One::new(Text(format!("{}{letter_n} letters in {} texts", params.prefix, inputs.texts.len()))) }
});

stage!(Compare, "compare", CompareIn => EachOut, |params, inputs| {
    EachOut { text: Each::new(Text(format!("{}{} of {}", params.prefix, inputs.text.0.len(), inputs.joined.0))) }
});

stage!(Score, "score", ScoreIn => EachOut, |params, inputs| {
    EachOut { text: Each::new(Text(format!("{}{} {}", params.prefix, inputs.text.0, inputs.counted.0))) }
});

stage!(Sum, "sum", GatherIn => SumOut, |params, inputs| {
    let lines = inputs.texts.iter().map(|(record, text)| format!("{}{record}: {}\n", params.prefix, text.0));
    let mut metrics = Metrics::default();
    metrics.push("texts", 0, inputs.texts.len() as f64);
    SumOut { text: One::new(Text(lines.collect())), metrics: One::new(metrics) }
});

/// All of these stages.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register::<ReadText>("c0");
    registry.register::<Tidy>("c0");
    registry.register::<Count>("c0");
    registry.register::<Join>("c0");
    registry.register::<Compare>("c0");
    registry.register::<Score>("c0");
    registry.register::<Sum>("c0");
    registry
}
