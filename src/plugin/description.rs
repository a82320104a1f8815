//! Owns `stage.yaml`: from its text to a [`Description`], or to a report of all that is wrong with it, each with its place.
//!
//! Nothing is run and no program is looked for here; the sources are read for the identity of the code.
//!
//! Invariant: the identity of the code is a function of the command, the sources by name, the ports and the parameters,
//! never of where the folder lies (`the_identity_follows_what_decides_the_result`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ecgpipe_sdk::{BoundParams, Cardinality, ParamError, PortSpec, StageSpec, kinds};
use serde_json::{Map, Value, json};

use super::params::{self, Param};
use crate::{
    diagnostic::{Diagnostic, Report, Sources, Span, suggest},
    digest::{Digest, KeyEncoder},
    pipeline::{
        Form,
        yaml::{self, Data, Entry, Node},
    },
};

/// The file that makes a folder a plugin.
pub const FILE: &str = "stage.yaml";

/// Longest time of a job of a plugin that says nothing.
const DEFAULT_TIME: Duration = Duration::from_secs(3600);
/// Most memory of a plugin that says nothing.
const DEFAULT_MEMORY_MB: u64 = 4096;

/// What a `stage.yaml` says.
#[derive(Clone, Debug)]
pub struct Description {
    /// The stage as data, with the identity of its code.
    pub spec: StageSpec,
    /// The plugin's folder.
    pub folder: PathBuf,
    /// Program and arguments as written.
    pub command: Vec<String>,
    /// How long and how large a job may get.
    pub limits: Limits,
    /// Variables of the environment that the program is given.
    pub environment: Vec<String>,
    /// Where a source finds its records.
    pub records: Option<Records>,
    params: BTreeMap<String, Param>,
    sources: Option<Vec<String>>,
}

/// What a job may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Elapsed time.
    pub time: Option<Duration>,
    /// Address space of each of its processes.
    pub memory_mb: Option<u64>,
}

/// Where a source finds its records: one file each, named by the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// A folder in `data/raw` or in `$ECGPIPE_DATA`.
    pub folder: String,
    /// What the files' names end with.
    pub suffix: String,
}

impl Description {
    /// Reads `folder/stage.yaml`; `shown` is the name of that file in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn read(folder: &Path, shown: &str) -> Result<Self, Report> {
        let mut sources = Sources::default();
        let text = match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => text,
            Err(error) => {
                return Err(Report::new(vec![Diagnostic::new(format!("cannot read `{shown}`: {error}"))], sources));
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let file = sources.add(shown, text);
        let mut reading = Reading::default();
        let root = yaml::parse(&file, text, &mut reading.form.diagnostics);
        let description = root.and_then(|root| reading.description(&root, folder));
        let diagnostics = reading.form.diagnostics;
        match description {
            Some(description) if diagnostics.is_empty() => Ok(description),
            _ if diagnostics.is_empty() => {
                let empty = Diagnostic::new(format!("`{shown}` is empty"));
                Err(Report::new(vec![empty.help(EXAMPLE.to_owned())], sources))
            }
            _ => Err(Report::new(diagnostics, sources)),
        }
    }

    /// [`ecgpipe_sdk::ErasedStage::bind`] of a plugin.
    ///
    /// # Errors
    /// The first parameter at fault.
    pub fn bind(&self, given: &Value) -> Result<BoundParams, ParamError> {
        params::bind(&self.params, given).map(BoundParams::checked)
    }

    /// The identity of the code as it is on the disk at this moment.
    ///
    /// # Errors
    /// A source that cannot be read, with its path in the text.
    pub fn code(&self) -> Result<String, io::Error> {
        let mut encoder = KeyEncoder::new();
        encoder.field("protocol", super::protocol::FORMAT.to_string());
        for (idx, word) in self.command.iter().enumerate() {
            encoder.field(format!("command.{idx}"), word);
        }
        for (direction, ports) in [("in", &self.spec.inputs), ("out", &self.spec.outputs)] {
            for port in ports {
                let passes = format!("{:?} {:?} {}", port.kind, port.cardinality, port.optional);
                encoder.field(format!("port.{direction}.{}", port.name), passes);
            }
        }
        for (name, param) in &self.params {
            encoder.field(format!("param.{name}"), param.type_name());
        }
        for name in &self.environment {
            encoder.field(format!("environment.{name}"), "");
        }
        for (name, path) in self.source_files()? {
            let bytes = fs::read(&path).map_err(|error| with_path(&path, &error))?;
            encoder.field(format!("source.{name}"), Digest::of(&bytes).to_hex());
        }
        let (key, _) = encoder.finish().map_err(io::Error::other)?;
        Ok(key.to_hex())
    }

    /// The files that make up the code: name with `/` within the plugin's folder, and path.
    fn source_files(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        match &self.sources {
            Some(names) => Ok(names.iter().map(|name| (name.clone(), self.folder.join(name))).collect()),
            None => {
                let mut files = BTreeMap::new();
                walk(&self.folder, "", &mut files)?;
                Ok(files)
            }
        }
    }
}

/// Every file of the folder that may decide a result. `stage.yaml` is not one: what it says enters the identity by
/// itself, so that another wording of a doc text computes nothing anew.
fn walk(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| with_path(folder, &error))? {
        let path = entry.map_err(|error| with_path(folder, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(with_path(&path, &io::Error::other("the name is not UTF-8")));
        };
        let skipped = name.starts_with('.')
            || ["__pycache__", "tests"].contains(&name)
            || name.ends_with(".pyc")
            || prefix.is_empty() && [FILE, "README.md"].contains(&name);
        if skipped {
            continue;
        }
        let inner = format!("{prefix}{name}");
        let link = fs::symlink_metadata(&path).map_err(|error| with_path(&path, &error))?.is_symlink();
        let metadata = fs::metadata(&path).map_err(|error| with_path(&path, &error))?;
        match (metadata.is_dir(), link) {
            (true, true) => {
                let message = "a link to a folder: name its files under `sources`";
                return Err(with_path(&path, &io::Error::other(message)));
            }
            (true, false) => walk(&path, &format!("{inner}/"), files)?,
            (false, _) => {
                files.insert(inner, path);
            }
        }
    }
    Ok(())
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("read {}: {error}", path.display()))
}

const EXAMPLE: &str = "a stage.yaml has at least `name`, `summary`, `command` and `outputs`";
const KEYS: [&str; 12] = [
    "name",
    "summary",
    "command",
    "inputs",
    "outputs",
    "params",
    "sources",
    "seeded",
    "exclusive",
    "limits",
    "environment",
    "records",
];
const PORT_KEYS: [&str; 4] = ["kind", "cardinality", "doc", "optional"];
const LIMIT_KEYS: [&str; 2] = ["time_s", "memory_mb"];
const RECORD_KEYS: [&str; 2] = ["folder", "suffix"];

#[derive(Default)]
struct Reading {
    form: Form,
}

impl Reading {
    fn description(&mut self, root: &Node, folder: &Path) -> Option<Description> {
        if root.is_null() {
            return None;
        }
        for entry in self.form.entries(&root.span, "a stage.yaml", root, "name: denoise") {
            if !KEYS.contains(&entry.key.text.as_str()) {
                self.form.unknown(&entry.key, "a stage.yaml", &KEYS);
            }
        }
        if !matches!(root.data, Data::Map(_)) {
            return None;
        }
        let name = self.name(root, folder);
        let summary = self.required_text(root, "summary", "summary: Removes baseline wander.");
        let command = self.command(root);
        let inputs = self.ports(root, "inputs");
        let outputs = self.ports(root, "outputs");
        if root.get("outputs").is_none() {
            let example = "outputs: {signals: {kind: signals, cardinality: each, doc: The recording.}}";
            self.missing(&root.span, "the plugin has no `outputs`", example);
        }
        let params = self.params(root);
        let sources = root.get("sources").map(|entry| self.sources(entry, folder));
        let seeded = self.flag(root, "seeded");
        let exclusive = self.flag(root, "exclusive");
        let limits = self.limits(root);
        let environment = self.environment(root);
        let records = root.get("records").and_then(|entry| self.records(entry));
        self.shape(root, &inputs, &outputs, records.is_some());
        if !self.form.diagnostics.is_empty() {
            return None;
        }
        let property = |(name, param): (&String, &Param)| (name.clone(), param.schema.clone());
        let default = |(name, param): (&String, &Param)| (name.clone(), param.default.clone());
        let properties: Map<String, Value> = params.iter().map(property).collect();
        let spec = StageSpec {
            name: leak(&name?),
            summary: leak(&summary?),
            seeded,
            exclusive,
            inputs,
            outputs,
            defaults: Value::Object(params.iter().map(default).collect()),
            schema: json!({"type": "object", "properties": properties, "additionalProperties": false}),
            code: String::new(),
        };
        let folder = folder.to_owned();
        let mut description = Description { spec, folder, command, limits, environment, records, params, sources };
        match description.code() {
            Ok(code) => description.spec.code = code,
            Err(error) => {
                let span = root.get("sources").map_or(&root.span, |entry| &entry.key.span);
                self.form.error(span, format!("the sources cannot be read: failed to {error}"));
            }
        }
        Some(description)
    }

    fn missing(&mut self, span: &Span, message: &str, example: &str) {
        self.form.diagnostics.push(Diagnostic::at(span, message).help(format!("for example `{example}`")));
    }

    fn required_text(&mut self, root: &Node, key: &str, example: &str) -> Option<String> {
        match root.get(key) {
            Some(entry) => self.form.text(&format!("`{key}`"), entry).map(|text| text.text),
            None => {
                self.missing(&root.span, &format!("the plugin has no `{key}`"), example);
                None
            }
        }
    }

    fn name(&mut self, root: &Node, folder: &Path) -> Option<String> {
        let name = self.required_text(root, "name", "name: denoise")?;
        let span = &root.get("name").expect("it was read").value.span;
        let of_folder = folder.file_name().unwrap_or_default().to_string_lossy();
        if !good_name(&name) {
            let message = format!("`{name}` cannot be the name of a stage");
            self.form.diagnostics.push(Diagnostic::at(span, message).help(NAME_HELP.to_owned()));
        } else if name != of_folder {
            let message = format!("the plugin is named `{name}`, but its folder `{of_folder}`");
            self.form.diagnostics.push(Diagnostic::at(span, message).help("give both one name".to_owned()));
        }
        Some(name)
    }

    fn command(&mut self, root: &Node) -> Vec<String> {
        let example = "command: [python3, denoise.py]";
        let Some(entry) = root.get("command") else {
            self.missing(&root.span, "the plugin has no `command`", example);
            return Vec::new();
        };
        let words = self.texts(entry, "`command`", example);
        if words.is_empty() && matches!(entry.value.data, Data::List(_)) {
            self.missing(&entry.value.span, "`command` is empty", example);
        }
        words.into_iter().map(|(word, _)| word).collect()
    }

    /// A list of texts, each with its place.
    fn texts<'a>(&mut self, entry: &'a Entry, what: &str, example: &str) -> Vec<(String, &'a Span)> {
        let Data::List(items) = &entry.value.data else {
            let span = if entry.value.is_null() { &entry.key.span } else { &entry.value.span };
            let message = format!("{what} wants a list of texts, but is {}", entry.value.describe());
            self.missing(span, &message, example);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.data {
                Data::Scalar(scalar) if !scalar.is_null() && !scalar.text.is_empty() => {
                    texts.push((scalar.text.clone(), &item.span));
                }
                _ => self.form.error(&item.span, format!("{what} wants texts, but this is {}", item.describe())),
            }
        }
        texts
    }

    fn ports(&mut self, root: &Node, direction: &'static str) -> Vec<PortSpec> {
        let Some(entry) = root.get(direction) else { return Vec::new() };
        let example = "{signals: {kind: signals, cardinality: each, doc: The recording.}}";
        let entries = self.form.entries(&entry.key.span, &format!("`{direction}`"), &entry.value, example);
        entries.iter().filter_map(|entry| self.port(entry, direction)).collect()
    }

    fn port(&mut self, entry: &Entry, direction: &str) -> Option<PortSpec> {
        let what = format!("`{direction}.{}`", entry.key.text);
        if !good_name(&entry.key.text) {
            let message = format!("`{}` cannot be the name of a port", entry.key.text);
            self.form.diagnostics.push(Diagnostic::at(&entry.key.span, message).help(NAME_HELP.to_owned()));
        }
        let example = "{kind: signals, cardinality: each, doc: The recording.}";
        for inner in self.form.entries(&entry.key.span, &what, &entry.value, example) {
            if !PORT_KEYS.contains(&inner.key.text.as_str()) {
                self.form.unknown(&inner.key, &what, &PORT_KEYS);
            }
        }
        if !matches!(entry.value.data, Data::Map(_)) {
            return None;
        }
        let mut text = |key: &str| match entry.value.get(key) {
            Some(inner) => {
                let text = self.form.text(&format!("`{key}` of {what}"), inner)?;
                Some((text.text, &inner.value.span))
            }
            None => {
                let missing = Diagnostic::at(&entry.key.span, format!("{what} has no `{key}`"));
                self.form.diagnostics.push(missing.help(format!("for example `{example}`")));
                None
            }
        };
        let (kind, cardinality, doc) = (text("kind"), text("cardinality"), text("doc"));
        let kind = kind.and_then(|(name, span)| {
            let found = kinds::by_name(&name);
            if found.is_none() {
                let all = kinds::all();
                let names: Vec<&str> = all.iter().map(|kind| kind.name).collect();
                let problem = Diagnostic::at(span, format!("{what}: there is no kind `{name}`"));
                self.form.diagnostics.push(problem.help(suggest(&name, &names, "kinds are")));
            }
            found
        });
        let cardinality = cardinality.and_then(|(name, span)| match name.as_str() {
            "each" => Some(Cardinality::Each),
            "one" => Some(Cardinality::One),
            "all" if direction == "inputs" => Some(Cardinality::All),
            "all" => {
                let problem = Diagnostic::at(span, format!("{what}: an output cannot be `all`"));
                let help = "give one artifact a record (`each`) or a single one (`one`)";
                self.form.diagnostics.push(problem.help(help.to_owned()));
                None
            }
            _ => {
                let problem = Diagnostic::at(span, format!("{what}: there is no cardinality `{name}`"));
                let help = suggest(&name, &["each", "all", "one"], "cardinalities are");
                self.form.diagnostics.push(problem.help(help));
                None
            }
        });
        let optional = self.flag(&entry.value, "optional");
        Some(PortSpec {
            name: leak(&entry.key.text),
            doc: leak(&doc?.0),
            kind: kind?,
            cardinality: cardinality?,
            optional,
        })
    }

    /// Which cardinalities go together; the engine knows two shapes of jobs only.
    fn shape(&mut self, root: &Node, inputs: &[PortSpec], outputs: &[PortSpec], has_records: bool) {
        let (Some(written), false) = (root.get("outputs"), outputs.is_empty()) else { return };
        let count =
            |ports: &[PortSpec], cardinality| ports.iter().filter(|port| port.cardinality == cardinality).count();
        let (each_out_n, one_out_n) = (count(outputs, Cardinality::Each), count(outputs, Cardinality::One));
        let each_in_n = inputs.iter().filter(|port| port.cardinality == Cardinality::Each && !port.optional).count();
        let any_each_in = count(inputs, Cardinality::Each) > 0;
        let mut problem = |message: &str, help: &str| {
            self.form.diagnostics.push(Diagnostic::at(&written.key.span, message).help(help.to_owned()));
        };
        if one_out_n > 0 && (each_out_n > 0 || any_each_in) {
            let help = "make all outputs `each`; or all of them `one`, with inputs that are `one` or `all`";
            problem("ports for one record and for all are mixed", help);
        } else if each_out_n > 0 && each_in_n == 0 && !has_records {
            let help =
                "take an input that is `each` and not optional, or say under `records` where a source finds them";
            problem("the outputs are `each`, but nothing says which records there are", help);
        } else if has_records && (each_out_n == 0 || any_each_in) {
            let help = "`records` is for a source: outputs that are `each`, and no input that is `each`";
            problem("a stage with these ports has no use for `records`", help);
        }
    }

    fn params(&mut self, root: &Node) -> BTreeMap<String, Param> {
        let Some(entry) = root.get("params") else { return BTreeMap::new() };
        let example = "{width_ms: {type: number, default: 200, doc: Width of the filter.}}";
        let entries = self.form.entries(&entry.key.span, "`params`", &entry.value, example);
        let mut params = BTreeMap::new();
        for entry in entries {
            if !good_name(&entry.key.text) {
                let message = format!("`{}` cannot be the name of a parameter", entry.key.text);
                self.form.diagnostics.push(Diagnostic::at(&entry.key.span, message).help(NAME_HELP.to_owned()));
            }
            if let Some(param) = params::read(entry, &mut self.form) {
                params.insert(entry.key.text.clone(), param);
            }
        }
        params
    }

    fn sources(&mut self, entry: &Entry, folder: &Path) -> Vec<String> {
        let listed = self.texts(entry, "`sources`", "sources: [denoise.py]");
        for (name, span) in &listed {
            let path = Path::new(name);
            let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !plain {
                self.form.error(span, format!("the source `{name}` is not a path within the plugin's folder"));
            } else if !folder.join(path).is_file() {
                let problem = Diagnostic::at(span, format!("there is no file `{name}` in the plugin's folder"));
                self.form.diagnostics.push(problem.help("list files, not folders or patterns".to_owned()));
            }
        }
        listed.into_iter().map(|(name, _)| name).collect()
    }

    fn flag(&mut self, node: &Node, key: &str) -> bool {
        let Some(entry) = node.get(key) else { return false };
        match entry.value.json() {
            Value::Bool(flag) => flag,
            _ => {
                let span = if entry.value.is_null() { &entry.key.span } else { &entry.value.span };
                self.form.error(span, format!("`{key}` wants `true` or `false`, but is {}", entry.value.describe()));
                false
            }
        }
    }

    fn limits(&mut self, root: &Node) -> Limits {
        let mut limits = Limits { time: Some(DEFAULT_TIME), memory_mb: Some(DEFAULT_MEMORY_MB) };
        let Some(entry) = root.get("limits") else { return limits };
        for inner in self.form.entries(&entry.key.span, "`limits`", &entry.value, "limits: {time_s: 600}") {
            let number = inner.value.json().as_f64().filter(|value| *value > 0.0 && *value <= 1e9);
            match (inner.key.text.as_str(), number) {
                ("time_s", Some(time_s)) => limits.time = Some(Duration::from_secs_f64(time_s)),
                ("memory_mb", Some(memory_mb)) if memory_mb >= 1.0 => limits.memory_mb = Some(memory_mb as u64),
                ("time_s" | "memory_mb", _) => {
                    let (key, found) = (&inner.key.text, inner.value.describe());
                    let span = if inner.value.is_null() { &inner.key.span } else { &inner.value.span };
                    self.form.error(span, format!("`limits.{key}` wants a number above 0, but is {found}"));
                }
                _ => self.form.unknown(&inner.key, "`limits`", &LIMIT_KEYS),
            }
        }
        limits
    }

    fn environment(&mut self, root: &Node) -> Vec<String> {
        let Some(entry) = root.get("environment") else { return Vec::new() };
        let mut names = Vec::new();
        for (name, span) in self.texts(entry, "`environment`", "environment: [CUDA_VISIBLE_DEVICES]") {
            if name.contains('=') {
                let problem = Diagnostic::at(span, format!("`{name}` is not the name of a variable"));
                let help =
                    "list names only; values come from where ecgpipe runs, and what decides a result is a parameter";
                self.form.diagnostics.push(problem.help(help.to_owned()));
            }
            names.push(name);
        }
        names.sort();
        names.dedup();
        names
    }

    fn records(&mut self, entry: &Entry) -> Option<Records> {
        let example = "records: {folder: texts, suffix: .txt}";
        let (mut folder, mut suffix) = (None, None);
        for inner in self.form.entries(&entry.key.span, "`records`", &entry.value, example) {
            match inner.key.text.as_str() {
                "folder" => {
                    folder = self.form.text("`records.folder`", inner).map(|text| (text.text, &inner.value.span))
                }
                "suffix" => suffix = self.form.text("`records.suffix`", inner).map(|text| text.text),
                _ => self.form.unknown(&inner.key, "`records`", &RECORD_KEYS),
            }
        }
        if let Data::Map(entries) = &entry.value.data {
            for key in RECORD_KEYS.iter().filter(|key| !entries.iter().any(|entry| entry.key.text == **key)) {
                self.missing(&entry.key.span, &format!("`records` has no `{key}`"), example);
            }
        }
        let (folder, span) = folder?;
        if !Path::new(&folder).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            let problem = Diagnostic::at(span, format!("`{folder}` is not a path within `data/raw`"));
            self.form
                .diagnostics
                .push(problem.help("give a plain folder name, without `..` or a leading `/`".to_owned()));
        }
        Some(Records { folder, suffix: suffix? })
    }
}

const NAME_HELP: &str = "a name has lower-case letters, digits and `_`, and begins with a letter";

fn good_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')
}

/// A text for the rest of the process. A stage's names are `&'static str` since built-in stages have constants; plugins are
/// read once a process, so that this is bounded by the size of their files.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
