//! Owns diagnostics: what is wrong with a pipeline, where it is written, and what to do about it.
//!
//! A [`Report`] carries every error that was found together with the texts that they point into, so that it can be
//! shown (as rustc shows its own) or written as JSON long after the files were read.
//!
//! Invariant: a report that leaves this crate in an `Err` holds at least one diagnostic, sorted by place
//! (`a_report_is_sorted_by_place`).
//!
//! This module does no I/O and knows nothing of YAML, stages or plans.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level as Shown, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

/// A place in a text: some characters of one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The file as it was named to ecgpipe, or [`COMMAND_LINE`].
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The first character, from 1.
    pub column: usize,
    /// How many characters, at least 1.
    pub length: usize,
}

/// The file of a [`Span`] into the `--set` options: line `n` is the `n`th of them.
pub const COMMAND_LINE: &str = "command line";

/// Another place that matters to a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// Why it matters, a lowercase fragment.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing may start.
    #[default]
    Error,
    /// The user should look at it.
    Warning,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where; none if the error has no place, for example a file that cannot be read.
    pub span: Option<Span>,
    /// What is wrong, with the facts: a lowercase fragment.
    pub message: String,
    /// Other places.
    pub labels: Vec<Label>,
    /// Facts that explain the error.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
    /// How bad it is.
    pub level: Level,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn at(span: &Span, message: impl Into<String>) -> Self {
        Self { span: Some(span.clone()), ..Self::new(message) }
    }

    /// An error without a place.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        let (labels, notes) = (Vec::new(), Vec::new());
        Self { span: None, message: message.into(), labels, notes, help: None, level: Level::Error }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(self) -> Self {
        Self { level: Level::Warning, ..self }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a place.
    #[must_use]
    pub fn label(mut self, span: &Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span: span.clone(), text: text.into() });
        self
    }

    fn json(&self) -> Value {
        let place =
            |span: &Span| json!({"file": &*span.file, "line": span.line, "column": span.column, "length": span.length});
        let labels: Vec<Value> =
            self.labels.iter().map(|label| json!({"span": place(&label.span), "text": label.text})).collect();
        json!({
            "message": self.message,
            "span": self.span.as_ref().map(place),
            "labels": labels,
            "notes": self.notes,
            "help": self.help,
        })
    }
}

/// The texts that diagnostics point into, by file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<Arc<str>, Arc<str>>);

impl Sources {
    /// Adds a text; a text with the same name is replaced.
    pub fn add(&mut self, file: &str, text: &str) -> Arc<str> {
        let file: Arc<str> = file.into();
        self.0.insert(Arc::clone(&file), text.into());
        file
    }

    /// The text of a file.
    #[must_use]
    pub fn get(&self, file: &str) -> Option<&str> {
        self.0.get(file).map(|text| &**text)
    }

    /// All texts, by file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(file, text)| (&**file, &**text))
    }

    /// The bytes that a span covers.
    fn range(&self, span: &Span) -> Option<(&str, Range<usize>)> {
        let text = self.get(&span.file)?;
        let line_start: usize = text.split_inclusive('\n').take(span.line - 1).map(str::len).sum();
        let line = text.get(line_start..)?.split('\n').next().unwrap_or_default();
        let byte_of = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte);
        let start = byte_of(span.column - 1);
        let end = byte_of(span.column - 1 + span.length).max(start);
        Some((text, line_start + start..line_start + end))
    }
}

/// Everything that is wrong or doubtful, with the texts to show it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    sources: Sources,
}

impl Report {
    /// Sorts errors and warnings by place and drops repetitions.
    #[must_use]
    pub fn new(mut diagnostics: Vec<Diagnostic>, sources: Sources) -> Self {
        diagnostics.sort();
        diagnostics.dedup();
        Self { diagnostics, sources }
    }

    /// Errors and warnings, sorted by place; those without a place come first.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is more than warnings.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.of(Level::Error).next().is_some()
    }

    /// Those of one level, sorted by place.
    pub fn of(&self, level: Level) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(move |diagnostic| diagnostic.level == level)
    }

    /// The texts that the errors point into.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// For a terminal or a file without colours.
    #[must_use]
    pub fn plain(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// For a terminal with colours (ANSI escapes).
    #[must_use]
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    /// For programs: `{"format": 1, "errors": [{message, span, labels, notes, help}], "warnings": [...]}`.
    #[must_use]
    pub fn json(&self) -> Value {
        let of = |level| self.of(level).map(Diagnostic::json).collect::<Vec<_>>();
        json!({"format": 1, "errors": of(Level::Error), "warnings": of(Level::Warning)})
    }

    fn render(&self, renderer: &Renderer) -> String {
        let blocks: Vec<String> =
            self.diagnostics.iter().map(|diagnostic| self.render_one(renderer, diagnostic)).collect();
        blocks.join("\n\n") + "\n"
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let level = match diagnostic.level {
            Level::Error => Shown::ERROR,
            Level::Warning => Shown::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(normalize_untrusted_str(&diagnostic.message)));
        let main = diagnostic.span.as_ref();
        if let Some((span, (text, range))) = main.and_then(|span| Some((span, self.sources.range(span)?))) {
            let same_file =
                diagnostic.labels.iter().filter(|label| label.span.file == span.file && label.span != *span);
            let others = same_file.filter_map(|label| {
                let (_, range) = self.sources.range(&label.span)?;
                Some(AnnotationKind::Context.span(range).label(normalize_untrusted_str(&label.text)))
            });
            let own = diagnostic.labels.iter().find(|label| label.span == *span);
            let own = own.map(|label| normalize_untrusted_str(&label.text));
            let snippet = Snippet::source(text).path(&*span.file);
            group =
                group.element(snippet.annotation(AnnotationKind::Primary.span(range).label(own)).annotations(others));
        }
        for label in diagnostic.labels.iter().filter(|label| main.is_none_or(|span| span.file != label.span.file)) {
            if let Some((text, range)) = self.sources.range(&label.span) {
                let annotation = AnnotationKind::Context.span(range).label(normalize_untrusted_str(&label.text));
                group = group.element(Snippet::source(text).path(&*label.span.file).annotation(annotation));
            }
        }
        for note in &diagnostic.notes {
            group = group.element(Shown::NOTE.message(normalize_untrusted_str(note)));
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Shown::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.plain())
    }
}

/// The candidate that the user may have meant: the nearest one within a third of the word's length in edits.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed_n = (word.chars().count() / 3).max(1);
    let fold = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let by_distance = candidates.into_iter().map(|name| (strsim::damerau_levenshtein(&fold(word), &fold(name)), name));
    let near = by_distance.filter(|(distance_n, name)| {
        let begins = word.len() >= 3 && (name.starts_with(word) || word.starts_with(name) && name.len() >= 3);
        *distance_n <= allowed_n || begins
    });
    near.min().map(|(_, name)| name)
}

/// "did you mean `x`?", or all candidates after `otherwise` ("stages are `a`, `b` and `c`"), or nothing to offer.
pub fn suggest(word: &str, candidates: &[&str], otherwise: &str) -> Option<String> {
    match nearest(word, candidates.iter().copied()) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None if candidates.is_empty() => None,
        None => Some(format!("{otherwise} {}", list(candidates.iter().copied()))),
    }
}

/// "`a`, `b` and `c`".
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn span(file: &str, line: usize, column: usize, length: usize) -> Span {
        Span { file: file.into(), line, column, length }
    }

    fn sources() -> Sources {
        let mut sources = Sources::default();
        sources.add("a.yaml", "name: a\nstages:\n  clean: {in: {signals: peaks.beats}}\n");
        sources.add("b.yaml", "größe: 5\nwide: ü: 7");
        sources
    }

    #[test]
    fn a_report_shows_the_line_and_the_advice() {
        let wrong = "stage `clean`: port `signals` wants signals, but `peaks.beats` gives beats";
        let first = Diagnostic::at(&span("a.yaml", 3, 25, 11), wrong)
            .label(&span("a.yaml", 1, 7, 1), "in this pipeline")
            .label(&span("b.yaml", 1, 1, 5), "which extends this one")
            .help("did you mean `ingest.signals`?".to_owned());
        let report = Report::new(vec![first, Diagnostic::new("no place").note("a fact")], sources());
        expect![[r#"
            error: no place
             |
             = note: a fact

            error: stage `clean`: port `signals` wants signals, but `peaks.beats` gives beats
             --> a.yaml:3:25
              |
            1 | name: a
              |       - in this pipeline
            2 | stages:
            3 |   clean: {in: {signals: peaks.beats}}
              |                         ^^^^^^^^^^^
              |
             ::: b.yaml:1:1
              |
            1 | größe: 5
              | ----- which extends this one
              |
              = help: did you mean `ingest.signals`?
        "#]]
        .assert_eq(&report.plain());
        assert!(report.styled().contains("\u{1b}["));
    }

    #[test]
    fn a_report_as_json() {
        let report = Report::new(
            vec![Diagnostic::at(&span("b.yaml", 2, 7, 1), "odd").note("why").help("so".to_owned())],
            sources(),
        );
        expect![[r#"{"errors":[{"help":"so","labels":[],"message":"odd","notes":["why"],"span":{"column":7,"file":"b.yaml","length":1,"line":2}}],"format":1,"warnings":[]}"#]]
            .assert_eq(&report.json().to_string());
    }

    #[test]
    fn a_report_is_sorted_by_place() {
        let at = |file, line| Diagnostic::at(&span(file, line, 1, 1), "x");
        let report = Report::new(vec![at("b.yaml", 1), at("a.yaml", 3), at("a.yaml", 2), at("a.yaml", 3)], sources());
        let places: Vec<String> = report
            .diagnostics()
            .iter()
            .flat_map(|one| &one.span)
            .map(|span| format!("{}:{}", span.file, span.line))
            .collect();
        assert_eq!(places, ["a.yaml:2", "a.yaml:3", "b.yaml:1"]);
    }

    #[test]
    fn a_span_counts_characters_not_bytes() {
        let sources = sources();
        let (text, range) = sources.range(&span("b.yaml", 2, 7, 1)).expect("the file is known");
        assert_eq!(&text[range], "ü");
        let (_, beyond) = sources.range(&span("b.yaml", 9, 70, 4)).expect("a place past the end is clipped");
        assert_eq!(beyond, text.len()..text.len());
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["detect_peaks", "window", "normalise", "split"];
        let of = |word| nearest(word, names).unwrap_or("-");
        let found: Vec<&str> = ["detect_peak", "windwo", "Normalise", "splti", "detect", "train", "x"].map(of).to_vec();
        assert_eq!(found, ["detect_peaks", "window", "normalise", "split", "detect_peaks", "-", "-"]);
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(suggest("zzz", &["a", "b"], "there are"), Some("there are `a` and `b`".to_owned()));
        assert_eq!(suggest("zzz", &[], "there are"), None);
    }
}
