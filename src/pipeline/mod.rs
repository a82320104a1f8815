//! Owns pipelines as they are written: YAML files, `extends` and `--set` put together, every value with its place.
//!
//! A [`Pipeline`] has the right form, but nothing in it has a meaning yet: whether a stage, port or parameter exists is
//! for [`crate::plan`] to say, since only it knows the stages.
//!
//! How files go together: `extends` names a file relative to the one that says it. Mappings are merged key by key, the
//! extending file wins; lists and plain values are replaced whole. `null` takes a stage, an input or a published target
//! out again, and gives a parameter its default back. Where the extending file gives a stage another `uses`, the `with`
//! of the extended file is dropped: those parameters were another stage's.
//!
//! Errors of form do not hide errors of meaning: a pipeline that could be read at all carries its own errors along, and
//! planning reports them with those that it finds itself. What has the wrong form is left out, and never missed.
//!
//! Invariant: all errors of form are reported together (`all_errors_are_reported_at_once`).

mod set;
#[cfg(test)]
mod tests;
pub mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Report, Sources, Span, list, suggest};
use yaml::{Data, Entry, Node, Text};

/// The seed of a pipeline that gives none.
pub const DEFAULT_SEED: u64 = 0;

/// A pipeline as it is written.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// `name`, or the file's name without extension.
    pub name: String,
    /// `seed`, or [`DEFAULT_SEED`].
    pub seed: u64,
    /// `tracking`.
    pub tracking: Tracking,
    /// `stages`, by node.
    pub stages: BTreeMap<String, StageEntry>,
    /// `publish`, by target.
    pub publish: Vec<PublishEntry>,
    /// The file and those that it extends, nearest first.
    pub files: Vec<PathBuf>,
    /// The texts of the files and of `--set`.
    pub sources: Sources,
    /// Nodes left out for their form.
    pub(crate) broken: BTreeSet<String>,
    /// What has the wrong form.
    pub(crate) problems: Vec<Diagnostic>,
}

impl Pipeline {
    /// What is wrong with the form, for those who do not plan; [`crate::plan::plan`] reports it too.
    #[must_use]
    pub fn problems(&self) -> Option<Report> {
        let report = || Report::new(self.problems.clone(), self.sources.clone());
        (!self.problems.is_empty()).then(report)
    }
}

/// Where runs are reported, as far as the pipeline says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tracking {
    /// The experiment that runs belong to.
    pub experiment: Option<String>,
    /// The tracking server.
    pub uri: Option<String>,
    /// The name under which a trained model is registered.
    pub registered_model: Option<String>,
}

/// One entry of `stages`.
#[derive(Clone, Debug)]
pub struct StageEntry {
    /// The node's name.
    pub name: Text,
    /// The stage that it uses.
    pub uses: Text,
    /// The key `in`, if it is there.
    pub inputs_key: Option<Span>,
    /// What is connected: port to `node.port`, sorted by port; nothing where the value had the wrong form.
    pub inputs: Vec<(Text, Option<Text>)>,
    /// The key `with` and its mapping, if it is there.
    pub with: Option<Entry>,
}

/// One entry of `publish`.
#[derive(Clone, Debug)]
pub struct PublishEntry {
    /// The target as written.
    pub written: Text,
    /// The target without `.` and doubled `/`, relative to the project; without the `/` that marks a folder.
    pub target: String,
    /// Whether the target is a folder.
    pub folder: bool,
    /// What is published, each `node.port`.
    pub outputs: Vec<Text>,
}

/// Reads a pipeline file, what it extends, and the `--set` options (`node.param=value`, `seed=7`,
/// `tracking.experiment=name`).
///
/// # Errors
/// A file that cannot be read or is not YAML, or a loop of `extends`. All other errors of form are
/// [`Pipeline::problems`], which planning reports together with its own.
pub fn load(path: &Path, sets: &[String]) -> Result<Pipeline, Report> {
    load_with(path, sets, &|path| std::fs::read_to_string(path))
}

/// [`load`] with another way to read files.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, sets: &[String], read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Pipeline, Report> {
    let mut files = Files { read, sources: Sources::default(), diagnostics: Vec::new(), chain: Vec::new() };
    let root = files.load(path, None);
    let Files { mut sources, mut diagnostics, chain, .. } = files;
    let Some(mut root) = root else { return Err(Report::new(diagnostics, sources)) };
    set::apply(&mut root, sets, &mut sources, &mut diagnostics);
    let mut form = Form { diagnostics };
    let stem = path.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let pipeline = form.pipeline(&root, stem);
    Ok(Pipeline { files: chain, sources, problems: form.diagnostics, ..pipeline })
}

struct Files<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    chain: Vec<PathBuf>,
}

impl Files<'_> {
    fn load(&mut self, path: &Path, named_at: Option<&Span>) -> Option<Node> {
        let path = &lexical(path);
        let problem = |message: String| match named_at {
            Some(span) => Diagnostic::at(span, message),
            None => Diagnostic::new(message),
        };
        if let Some(position) = self.chain.iter().position(|one| one == path) {
            let chain = self.chain[position..].iter().chain([path]).map(|path| format!("`{}`", path.display()));
            let message = format!("pipelines extend each other in a loop: {}", chain.collect::<Vec<_>>().join(" -> "));
            self.diagnostics.push(problem(message).help("take one `extends` out".to_owned()));
            return None;
        }
        let text = match (self.read)(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read the pipeline file `{}`: {error}", path.display());
                let help = match named_at {
                    Some(_) => "`extends` is relative to the file that says it",
                    None => "check the path; pipelines are usually in `pipelines/`",
                };
                self.diagnostics.push(problem(message).help(help.to_owned()));
                return None;
            }
        };
        self.chain.push(path.clone());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let file = self.sources.add(&path.to_string_lossy(), text);
        let mut node = match yaml::parse(&file, text, &mut self.diagnostics) {
            Some(node) if !node.is_null() => node,
            Some(_) => {
                self.diagnostics.push(empty_file(&file));
                return None;
            }
            None => {
                if self.diagnostics.is_empty() {
                    self.diagnostics.push(empty_file(&file));
                }
                return None;
            }
        };
        let Data::Map(entries) = &mut node.data else { return Some(node) };
        let Some(at) = entries.iter().position(|entry| entry.key.text == "extends") else { return Some(node) };
        let extends = entries.remove(at);
        let Data::Scalar(base) = &extends.value.data else {
            let message = format!("`extends` wants the path of one file, but is {}", extends.value.describe());
            // With two bases that share a third, which value wins would be a guess.
            let help = "extend one file, which may extend another in turn";
            self.diagnostics.push(Diagnostic::at(&extends.value.span, message).help(help.to_owned()));
            return None;
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        // Without what it extends a file is half a pipeline, and most errors in it would be false.
        let base = self.load(&folder.join(&base.text), Some(&extends.value.span))?;
        Some(extend(base, node, &[]))
    }
}

fn empty_file(file: &Arc<str>) -> Diagnostic {
    let help = "a pipeline has at least `stages: {<node>: {uses: <stage>}}`";
    Diagnostic::new(format!("the pipeline file `{file}` is empty")).help(help.to_owned())
}

/// `a/b/../c/./d` is `a/c/d`: a loop of `extends` shows whichever way the paths are written.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The extended tree under the extending one. `path` are the keys above.
fn extend(base: Node, over: Node, path: &[&str]) -> Node {
    let (Data::Map(base_entries), Data::Map(over_entries)) = (&base.data, &over.data) else { return over };
    let mut entries = base_entries.clone();
    if let [.., "stages", _] = path {
        let uses = |node: &Node| match node.get("uses").map(|entry| &entry.value.data) {
            Some(Data::Scalar(scalar)) => Some(scalar.text.clone()),
            _ => None,
        };
        if uses(&over).is_some_and(|new| uses(&base).is_some_and(|old| old != new)) {
            entries.retain(|entry| entry.key.text != "with");
        }
    }
    for entry in over_entries {
        let name = entry.key.text.as_str();
        let removable = matches!(path, ["stages"] | ["publish"] | ["stages", _, "in"]);
        match entries.iter_mut().find(|old| old.key.text == name) {
            Some(_) if removable && entry.value.is_null() => entries.retain(|old| old.key.text != name),
            Some(old) => {
                let inner: Vec<&str> = path.iter().copied().chain([name]).collect();
                let value = extend(old.value.clone(), entry.value.clone(), &inner);
                *old = Entry { key: entry.key.clone(), value };
            }
            None => entries.push(entry.clone()),
        }
    }
    Node { span: over.span, data: Data::Map(entries) }
}

/// The keys of a pipeline file.
pub(crate) const PIPELINE_KEYS: [&str; 6] = ["name", "extends", "seed", "tracking", "stages", "publish"];
const TRACKING_KEYS: [&str; 3] = ["experiment", "uri", "registered_model"];
const STAGE_KEYS: [&str; 3] = ["uses", "in", "with"];

/// Folders of the project that nothing is published into, each with what is wrong with it.
const TAKEN_FOLDERS: [(&str, &str); 2] = [
    ("runs", "lies in `runs/`, where ecgpipe records its runs"),
    ("data/store", "lies in `data/store/`, which is the cache"),
];

/// What inputs and targets take, for messages.
const OUTPUT: &str = "an output, written `node.port`";

/// What a name is made of, so that `node.port` has one reading and names can be file names.
fn good_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_' || one == '-')
}

/// Reads mappings and texts and keeps what has the wrong form; for pipelines and for what else people write in YAML.
#[derive(Default)]
pub(crate) struct Form {
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Form {
    pub(crate) fn error(&mut self, span: &Span, message: String) {
        self.diagnostics.push(Diagnostic::at(span, message));
    }

    pub(crate) fn entries<'a>(&mut self, place: &Span, what: &str, node: &'a Node, example: &str) -> &'a [Entry] {
        match &node.data {
            Data::Map(entries) => entries,
            _ => {
                let message = format!("{what} wants a mapping, but is {}", node.describe());
                let place = if node.is_null() { place } else { &node.span };
                self.diagnostics.push(Diagnostic::at(place, message).help(format!("for example `{example}`")));
                &[]
            }
        }
    }

    pub(crate) fn text(&mut self, what: &str, entry: &Entry) -> Option<Text> {
        self.text_as(what, "text", entry)
    }

    fn text_as(&mut self, what: &str, wants: &str, entry: &Entry) -> Option<Text> {
        match &entry.value.data {
            Data::Scalar(scalar) if !scalar.is_null() && !scalar.text.is_empty() => {
                Some(Text { text: scalar.text.clone(), span: entry.value.span.clone() })
            }
            _ => {
                let span = if entry.value.is_null() { &entry.key.span } else { &entry.value.span };
                let problem = Diagnostic::at(span, format!("{what} wants {wants}, but is {}", entry.value.describe()));
                let help =
                    if wants == OUTPUT { "for example `ingest.signals`" } else { "write a word, or a text in quotes" };
                self.diagnostics.push(problem.help(help.to_owned()));
                None
            }
        }
    }

    pub(crate) fn unknown(&mut self, key: &Text, what: &str, known: &[&str]) {
        let message = format!("{what} has no key `{}`", key.text);
        self.diagnostics.push(Diagnostic::at(&key.span, message).help(suggest(&key.text, known, "its keys are")));
    }

    fn pipeline(&mut self, root: &Node, stem: String) -> Pipeline {
        let example = "stages: {peaks: {uses: detect_peaks}}";
        let mut pipeline = Pipeline {
            name: stem,
            seed: DEFAULT_SEED,
            tracking: Tracking::default(),
            stages: BTreeMap::new(),
            publish: Vec::new(),
            files: Vec::new(),
            sources: Sources::default(),
            broken: BTreeSet::new(),
            problems: Vec::new(),
        };
        let mut has_stages = false;
        let is_mapping = matches!(root.data, Data::Map(_));
        for entry in self.entries(&root.span, "a pipeline file", root, example) {
            match entry.key.text.as_str() {
                "name" => {
                    if let Some(name) = self.text("`name`", entry) {
                        self.check_name(&name, "a pipeline");
                        pipeline.name = name.text;
                    }
                }
                "seed" => pipeline.seed = self.seed(entry),
                "tracking" => pipeline.tracking = self.tracking(entry),
                "stages" => {
                    has_stages = true;
                    let stages = self.entries(&entry.key.span, "`stages`", &entry.value, example);
                    for stage in stages {
                        match self.stage(stage) {
                            Some(stage) => {
                                pipeline.stages.insert(stage.name.text.clone(), stage);
                            }
                            None => {
                                pipeline.broken.insert(stage.key.text.clone());
                            }
                        }
                    }
                }
                "publish" => {
                    let example = "publish: {models/ecg_model.onnx: export.onnx}";
                    let targets = self.entries(&entry.key.span, "`publish`", &entry.value, example);
                    let mut publish: Vec<PublishEntry> =
                        targets.iter().filter_map(|target| self.publish(target)).collect();
                    publish.sort_by(|a, b| (&a.target, &a.written.span).cmp(&(&b.target, &b.written.span)));
                    pipeline.publish = publish;
                }
                _ => self.unknown(&entry.key, "a pipeline file", &PIPELINE_KEYS),
            }
        }
        if is_mapping && !has_stages {
            let missing = Diagnostic::at(&root.span, "the pipeline has no `stages`");
            self.diagnostics.push(missing.help(format!("for example `{example}`")));
        }
        pipeline
    }

    fn check_name(&mut self, name: &Text, of: &str) -> bool {
        let good = good_name(&name.text);
        if !good {
            let message = format!("`{}` cannot be the name of {of}", name.text);
            let help = "a name has letters, digits, `_` and `-` only, and does not begin with `-`";
            self.diagnostics.push(Diagnostic::at(&name.span, message).help(help.to_owned()));
        }
        good
    }

    fn seed(&mut self, entry: &Entry) -> u64 {
        match entry.value.json() {
            Value::Number(number) if number.is_u64() => number.as_u64().unwrap_or(DEFAULT_SEED),
            _ => {
                let span = if entry.value.is_null() { &entry.key.span } else { &entry.value.span };
                let message =
                    format!("`seed` wants a whole number from 0 to 2^64 - 1, but is {}", entry.value.describe());
                self.diagnostics.push(Diagnostic::at(span, message).help("for example `seed: 2025`".to_owned()));
                DEFAULT_SEED
            }
        }
    }

    fn tracking(&mut self, entry: &Entry) -> Tracking {
        let mut tracking = Tracking::default();
        for entry in self.entries(&entry.key.span, "`tracking`", &entry.value, "tracking: {experiment: mitbih}") {
            let name = format!("`tracking.{}`", entry.key.text);
            let field = match entry.key.text.as_str() {
                "experiment" => &mut tracking.experiment,
                "uri" => &mut tracking.uri,
                "registered_model" => &mut tracking.registered_model,
                _ => {
                    self.unknown(&entry.key, "`tracking`", &TRACKING_KEYS);
                    continue;
                }
            };
            *field = self.text(&name, entry).map(|text| text.text);
        }
        tracking
    }

    fn stage(&mut self, entry: &Entry) -> Option<StageEntry> {
        let name = &entry.key;
        let mut good = self.check_name(name, "a stage");
        if PIPELINE_KEYS.contains(&name.text.as_str()) {
            let message = format!(
                "`{}` cannot be the name of a stage: it is a key of the pipeline, which `--set` means",
                name.text
            );
            self.diagnostics.push(Diagnostic::at(&name.span, message).help("choose another name".to_owned()));
            good = false;
        }
        let what = format!("stage `{}`", name.text);
        let mut uses = None;
        let mut has_uses = false;
        let mut inputs_key = None;
        let mut inputs = Vec::new();
        let mut with = None;
        let entries =
            self.entries(&name.span, &what, &entry.value, "{uses: detect_peaks, in: {signals: ingest.signals}}");
        for part in entries {
            match part.key.text.as_str() {
                "uses" => {
                    has_uses = true;
                    uses = self.text(&format!("{what}: `uses`"), part);
                }
                "in" => {
                    good &= matches!(part.value.data, Data::Map(_));
                    inputs_key = Some(part.key.span.clone());
                    let example = "in: {signals: ingest.signals}";
                    for port in self.entries(&part.key.span, &format!("{what}: `in`"), &part.value, example) {
                        let input = format!("{what}: input `{}`", port.key.text);
                        inputs.push((port.key.clone(), self.text_as(&input, OUTPUT, port)));
                    }
                    inputs.sort_by(|(a, _), (b, _)| a.text.cmp(&b.text));
                }
                // An empty `with:` is what remains when its last line is commented out.
                "with" if part.value.is_null() => {}
                "with" => {
                    self.entries(&part.key.span, &format!("{what}: `with`"), &part.value, "with: {length_n: 187}");
                    with = Some(part.clone()).filter(|part| matches!(part.value.data, Data::Map(_)));
                }
                _ => {
                    let message = format!("{what} has no key `{}`", part.key.text);
                    let help =
                        suggest(&part.key.text, &STAGE_KEYS, "parameters go under `with:`; the keys of a stage are");
                    self.diagnostics.push(Diagnostic::at(&part.key.span, message).help(help));
                }
            }
        }
        if !has_uses && matches!(entry.value.data, Data::Map(_)) {
            let message = format!("{what} does not say which stage it uses");
            let help = "add `uses: <stage>`; `ecgpipe stages` lists them";
            self.diagnostics.push(Diagnostic::at(&name.span, message).help(help.to_owned()));
        }
        let uses = uses.filter(|_| good)?;
        Some(StageEntry { name: name.clone(), uses, inputs_key, inputs, with })
    }

    fn publish(&mut self, entry: &Entry) -> Option<PublishEntry> {
        let written = entry.key.clone();
        let what = format!("publish `{}`", written.text);
        let outputs = match &entry.value.data {
            Data::List(items) => items
                .iter()
                .filter_map(|item| self.text_as(&what, OUTPUT, &Entry { key: written.clone(), value: item.clone() }))
                .collect(),
            _ => Vec::from_iter(self.text_as(&what, OUTPUT, entry)),
        };
        let folder = written.text.ends_with('/');
        let problem = if written.text.starts_with(['/', '~']) || written.text.contains(['\\', ':']) {
            Some("is not a path inside the project, written with `/`")
        } else if written.text.split('/').any(|part| part == "..") {
            Some("leads out of the project folder")
        } else if written.text.chars().any(char::is_control) {
            Some("has control characters")
        } else if matches!(&entry.value.data, Data::List(_)) && !folder {
            Some("is one file, but a list is published to it")
        } else {
            None
        };
        let parts = written.text.split('/').filter(|part| !part.is_empty() && *part != ".");
        let target = parts.collect::<Vec<_>>().join("/");
        let problem = problem.or_else(|| target.is_empty().then_some("is the project folder itself"));
        let problem = problem.or_else(|| {
            let taken = TAKEN_FOLDERS.iter().find(|(folder, _)| Path::new(&target).starts_with(folder));
            taken.map(|(_, problem)| *problem)
        });
        if let Some(problem) = problem {
            let message = format!("the target `{}` {problem}", written.text);
            let help =
                "a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`";
            self.diagnostics.push(Diagnostic::at(&written.span, message).help(help.to_owned()));
            return None;
        }
        Some(PublishEntry { written, target, folder, outputs })
    }
}

/// "`name`, `extends`, ..." for messages about the command line.
fn settable() -> String {
    list(["seed", "name", "tracking.experiment", "tracking.uri", "tracking.registered_model"])
}
