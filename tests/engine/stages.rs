//! Small stages with the real trait. Every body counts itself, so that a test can say which bodies ran.
//!
//! What a body must do besides its work (fail, panic, change a file) is set from outside, by project: a disk that fails is
//! not a parameter either. Tests run side by side in one process; the project's data folder tells them apart.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use ecgpipe_sdk::{
    All, BoundParams, Context, Each, ErasedStage, Files, Kind, KindError, Metrics, NamedFile, NoInputs, One, Onnx,
    ParamError, PortValue, PortValues, RecordId, Registry, SourceContext, SourceFile, SourceRecord, Stage, StageError,
    StageSpec, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What goes wrong in a body.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// It gives an error.
    Fail,
    /// It panics.
    Panic,
    /// Somebody appends to this file while it runs.
    Append(PathBuf),
}

static BODIES: Mutex<BTreeMap<PathBuf, Vec<String>>> = Mutex::new(BTreeMap::new());
static TROUBLES: Mutex<BTreeMap<(PathBuf, String), Trouble>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the list of bodies that ran in a project since it was last taken, sorted.
pub(crate) fn take_bodies(data_folder: &Path) -> Vec<String> {
    let mut bodies = lock(&BODIES).remove(data_folder).unwrap_or_default();
    bodies.sort();
    bodies
}

/// Sets, or with `None` ends, what goes wrong in a body: `stage` or `stage[record]`.
pub(crate) fn set_trouble(data_folder: &Path, body: &str, trouble: Option<Trouble>) {
    let key = (data_folder.to_owned(), body.to_owned());
    match trouble {
        Some(trouble) => lock(&TROUBLES).insert(key, trouble),
        None => lock(&TROUBLES).remove(&key),
    };
}

/// Every body's first line.
fn begin(stage: &str, cx: &Context<'_>) -> Result<(), StageError> {
    let body = cx.record().map_or_else(|_| stage.to_owned(), |record| format!("{stage}[{record}]"));
    lock(&BODIES).entry(cx.data_folder().to_owned()).or_default().push(body.clone());
    let trouble = lock(&TROUBLES).get(&(cx.data_folder().to_owned(), body.clone())).cloned();
    match trouble {
        None => Ok(()),
        Some(Trouble::Fail) => {
            Err(StageError::new(format!("the body of {body} was told to fail")).help("tell it not to"))
        }
        Some(Trouble::Panic) => panic!("the body of {body} was told to panic"),
        Some(Trouble::Append(path)) => {
            let append = || fs::OpenOptions::new().append(true).open(&path)?.write_all(b" more");
            append().map_err(|error| StageError::from_error(&error))
        }
    }
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Kind for Text {
    const NAME: &'static str = "text";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "a text";
    const EXTENSION: &'static str = "txt";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        Ok(self.0.clone().into_bytes())
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
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
text_ports!(JoinIn { texts: All<Text> });
text_ports!(LabelIn { text: Each<Text>, joined: One<Text> });
text_ports!(MixIn { text: Each<Text>, other: Each<Text> });
text_ports!(ScoreIn { joined: One<Text>, noisy: Option<All<Text>> });
text_ports!(ScoreOut { text: One<Text>, metrics: One<Metrics> });
text_ports!(ExportIn { text: One<Text> });
text_ports!(ExportOut { onnx: One<Onnx> });

/// The source: every `.txt` file of a folder is a record.
pub(crate) struct ReadText;

/// Parameters of [`ReadText`].
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReadTextParams {
    /// Whether the records are listed backwards.
    backwards: bool,
}

impl Stage for ReadText {
    const NAME: &'static str = "read_text";
    const SUMMARY: &'static str = "Reads texts.";
    type Params = ReadTextParams;
    type Inputs = NoInputs;
    type Outputs = EachOut;

    fn sources(params: &ReadTextParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        let entries = fs::read_dir(cx.data_folder.join("texts")).map_err(|error| StageError::from_error(&error))?;
        let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(|error| StageError::from_error(&error))?;
        paths.sort();
        if params.backwards {
            paths.reverse();
        }
        let record = |path: PathBuf| {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            let record = RecordId::new(&name).map_err(|error| StageError::from_error(&error))?;
            Ok(SourceRecord::new(record, vec![SourceFile { name: format!("{name}.txt"), path }]))
        };
        paths.into_iter().map(record).collect()
    }

    fn run(_: &ReadTextParams, _: NoInputs, cx: &Context<'_>) -> Result<EachOut, StageError> {
        let text = fs::read_to_string(&cx.files()[0].path).map_err(|error| StageError::from_error(&error))?;
        begin(Self::NAME, cx)?;
        Ok(EachOut { text: Each::new(Text(text)) })
    }
}

/// Evens out white space and shortens words, so that many changes of its input do not change its output.
pub(crate) struct Tidy;

/// Parameters of [`Tidy`].
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TidyParams {
    /// Characters that are kept of a word.
    width_n: usize,
    /// Changes nothing.
    remark: String,
}

impl Default for TidyParams {
    fn default() -> Self {
        Self { width_n: 4, remark: String::new() }
    }
}

impl Stage for Tidy {
    const NAME: &'static str = "tidy";
    const SUMMARY: &'static str = "Shortens words.";
    type Params = TidyParams;
    type Inputs = EachIn;
    type Outputs = EachOut;

    fn run(params: &TidyParams, inputs: EachIn, cx: &Context<'_>) -> Result<EachOut, StageError> {
        begin(Self::NAME, cx)?;
        let words = inputs.text.0.split_whitespace().map(|word| word.chars().take(params.width_n).collect::<String>());
        Ok(EachOut { text: Each::new(Text(words.collect::<Vec<_>>().join(" "))) })
    }
}

/// Parameters of a stage that has one which changes nothing.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Remark {
    /// Changes nothing.
    remark: String,
}

macro_rules! stage {
    ($type:ident, $name:literal, $params:ty, $inputs:ty => $outputs:ty, [$($constant:item)*], |$param:ident, $input:ident, $cx:ident| $body:expr) => {
        pub(crate) struct $type;

        impl Stage for $type {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = "For a test.";
            $($constant)*
            type Params = $params;
            type Inputs = $inputs;
            type Outputs = $outputs;

            fn run($param: &$params, $input: $inputs, $cx: &Context<'_>) -> Result<$outputs, StageError> {
                begin($name, $cx)?;
                $body
            }
        }
    };
}

stage!(Noise, "noise", Remark, EachIn => EachOut, [const SEEDED: bool = true;], |_params, inputs, cx| {
    Ok(EachOut { text: Each::new(Text(format!("{} {:016x}", inputs.text.0, cx.seed()?))) })
});

stage!(Join, "join", Remark, JoinIn => OneOut, [], |_params, inputs, _cx| {
    let lines: Vec<String> = inputs.texts.iter().map(|(record, text)| format!("{record}: {}", text.0)).collect();
    Ok(OneOut { text: One::new(Text(lines.join("\n"))) })
});

stage!(Label, "label", Remark, LabelIn => EachOut, [], |_params, inputs, _cx| {
    Ok(EachOut { text: Each::new(Text(format!("{} of {}", inputs.text.0, inputs.joined.0.len()))) })
});

stage!(Mix, "mix", Remark, MixIn => EachOut, [], |_params, inputs, _cx| {
    Ok(EachOut { text: Each::new(Text(format!("{}+{}", inputs.text.0, inputs.other.0))) })
});

/// Parameters of [`Score`].
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScoreParams {
    /// Added to the length.
    offset: u32,
}

stage!(Score, "score", ScoreParams, ScoreIn => ScoreOut, [const EXCLUSIVE: bool = true;], |params, inputs, cx| {
    let noisy_n: usize = inputs.noisy.as_ref().map_or(0, |noisy| noisy.iter().map(|(_, text)| text.0.len()).sum());
    let length_n = inputs.joined.0.len() + noisy_n + params.offset as usize;
    cx.metric("live/length", 1, length_n as f64);
    cx.warn(format!("the text has only {length_n} characters"));
    let mut metrics = Metrics::default();
    metrics.push("live/length", 1, length_n as f64);
    metrics.push("length", 0, length_n as f64);
    Ok(ScoreOut { text: One::new(Text(inputs.joined.0.to_uppercase())), metrics: One::new(metrics) })
});

stage!(Export, "export", Remark, ExportIn => ExportOut, [], |_params, inputs, _cx| {
    // `ir_version: 8` and a `doc_string` (fields 1 and 6 of ONNX's ModelProto).
    let text = &inputs.text.0.as_bytes()[..inputs.text.0.len().min(100)];
    let bytes = [&[0x08, 0x08, 0x32, text.len() as u8], text].concat();
    Ok(ExportOut { onnx: One::new(Onnx { bytes: bytes.into() }) })
});

text_ports!(DrawIn { text: One<Text> });

ports! {
    pub(crate) struct DrawOut {
        /// What is drawn.
        pub(crate) files: One<Files>,
    }
}

/// Parameters of [`Draw`].
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DrawParams {
    /// Whether the time of day gets into the drawing: what no stage may do.
    drifts: bool,
}

stage!(Draw, "draw", DrawParams, DrawIn => DrawOut, [], |params, inputs, _cx| {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let drift = if params.drifts { since.as_nanos().to_string() } else { String::new() };
    let file = |name: &str, bytes: String| NamedFile { name: name.to_owned(), bytes: bytes.into_bytes() };
    let svg = format!("<svg><text>{}</text></svg>", inputs.text.0);
    Ok(DrawOut { files: One::new(Files::new(vec![file("a.svg", svg), file("b.yaml", format!("drift: '{drift}'"))])) })
});

/// What [`Crooked`] puts on its output port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crook {
    /// An artifact of another type than the port's kind.
    WrongType,
    /// Nothing.
    Nothing,
}

/// A stage whose output is not what its ports say: what no typed stage can do, but a plugin could.
pub(crate) struct Crooked {
    spec: StageSpec,
    straight: Box<dyn ErasedStage>,
    crook: Crook,
}

impl Crooked {
    pub(crate) fn new(crook: Crook) -> Self {
        let straight = ecgpipe_sdk::stage::erase::<Tidy>("c0");
        let name = match crook {
            Crook::WrongType => "wrong_type",
            Crook::Nothing => "nothing",
        };
        Self { spec: StageSpec { name, ..straight.spec().clone() }, straight, crook }
    }
}

impl ErasedStage for Crooked {
    fn spec(&self) -> &StageSpec {
        &self.spec
    }

    fn bind(&self, params: &serde_json::Value) -> Result<BoundParams, ParamError> {
        self.straight.bind(params)
    }

    fn sources(&self, params: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        self.straight.sources(params, cx)
    }

    fn run(&self, _: &BoundParams, _: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError> {
        begin(self.spec.name, cx)?;
        Ok(match self.crook {
            Crook::WrongType => PortValues::from([("text", PortValue::Single(Arc::new(42_u32)))]),
            Crook::Nothing => PortValues::new(),
        })
    }
}

/// All of these stages; `codes` gives some of them another code identity.
pub(crate) fn registry(codes: &BTreeMap<String, String>) -> Registry {
    fn add<S: Stage>(registry: &mut Registry, codes: &BTreeMap<String, String>) {
        registry.register::<S>(codes.get(S::NAME).map_or("c0", String::as_str));
    }
    let mut registry = Registry::new();
    add::<ReadText>(&mut registry, codes);
    add::<Tidy>(&mut registry, codes);
    add::<Noise>(&mut registry, codes);
    add::<Join>(&mut registry, codes);
    add::<Label>(&mut registry, codes);
    add::<Mix>(&mut registry, codes);
    add::<Score>(&mut registry, codes);
    add::<Export>(&mut registry, codes);
    add::<Draw>(&mut registry, codes);
    registry.add(Box::new(Crooked::new(Crook::WrongType)));
    registry.add(Box::new(Crooked::new(Crook::Nothing)));
    registry
}
