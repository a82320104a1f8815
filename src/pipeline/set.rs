//! Owns `--set`: values from the command line, put into the tree as if they stood in the file.
//!
//! Whether a parameter exists is checked with all others, when the plan is made; its place is then the option itself.

use std::sync::Arc;

use super::{
    PIPELINE_KEYS, settable,
    yaml::{self, Data, Entry, Node, Text},
};
use crate::diagnostic::{COMMAND_LINE, Diagnostic, Sources, Span, nearest, suggest};

/// How an option looks in the text that places point into.
const OPTION: &str = "--set ";

pub(super) fn apply(root: &mut Node, sets: &[String], sources: &mut Sources, diagnostics: &mut Vec<Diagnostic>) {
    if sets.is_empty() {
        return;
    }
    // One line an option, so that a place on line n is in the nth option.
    let lines: Vec<String> = sets.iter().map(|set| OPTION.to_owned() + &set.replace(['\n', '\r'], " ")).collect();
    let file = sources.add(COMMAND_LINE, &lines.join("\n"));
    for (idx, line) in lines.iter().enumerate() {
        let option = Set { file: &file, line: idx + 1, text: &line[OPTION.len()..] };
        if let Err(problem) = option.apply(root, diagnostics) {
            diagnostics.push(*problem);
        }
    }
}

struct Set<'a> {
    file: &'a Arc<str>,
    line: usize,
    text: &'a str,
}

impl Set<'_> {
    /// The span of some bytes of the option's text.
    fn span(&self, start: usize, end: usize) -> Span {
        let column = OPTION.len() + self.text[..start].chars().count() + 1;
        let length = self.text[start..end].chars().count().max(1);
        Span { file: Arc::clone(self.file), line: self.line, column, length }
    }

    fn apply(&self, root: &mut Node, diagnostics: &mut Vec<Diagnostic>) -> Result<(), Box<Diagnostic>> {
        let whole = self.span(0, self.text.len());
        let fail = |diagnostic: Diagnostic, help: &str| Box::new(diagnostic.help(help.to_owned()));
        let Some(equals) = self.text.find('=') else {
            let problem = Diagnostic::at(&whole, format!("`--set {}` has no `=`", self.text));
            return Err(fail(problem, "write `--set node.parameter=value`"));
        };
        let mut path = Vec::new();
        let mut start = 0;
        for part in self.text[..equals].split('.') {
            path.push(Text { text: part.trim().to_owned(), span: self.span(start, start + part.len()) });
            start += part.len() + 1;
        }
        if path.iter().any(|part| part.text.is_empty()) {
            let problem = Diagnostic::at(&self.span(0, equals), format!("`{}` is not a path", &self.text[..equals]));
            return Err(fail(problem, "write `--set node.parameter=value`"));
        }
        let Some(value) = self.value(equals + 1, diagnostics)? else { return Ok(()) };
        let names: Vec<&str> = path.iter().map(|part| part.text.as_str()).collect();
        match names.as_slice() {
            ["seed" | "name"] | ["tracking", _] => {
                put(root, &path, value);
                Ok(())
            }
            [top, ..] if PIPELINE_KEYS.contains(top) => {
                let problem = Diagnostic::at(&self.span(0, equals), format!("`{}` cannot be set", names.join(".")));
                let help = format!("parameters can (`node.parameter=value`), and {}", settable());
                Err(Box::new(problem.help(help)))
            }
            [node, ..] => {
                let names_known: Vec<String> = match root.get("stages").map(|entry| &entry.value.data) {
                    Some(Data::Map(entries)) => entries.iter().map(|entry| entry.key.text.clone()).collect(),
                    _ => Vec::new(),
                };
                let known: Vec<&str> = names_known.iter().map(String::as_str).collect();
                if !known.contains(node) {
                    let message = format!("`--set {}`: the pipeline has no stage `{node}`", names.join("."));
                    let help = match nearest(node, PIPELINE_KEYS) {
                        Some(key) if nearest(node, known.iter().copied()).is_none() => {
                            Some(format!("did you mean `{key}`?"))
                        }
                        _ => suggest(node, &known, "its stages are"),
                    };
                    return Err(Box::new(Diagnostic::at(&path[0].span, message).help(help)));
                }
                if path.len() == 1 {
                    let problem = Diagnostic::at(&path[0].span, format!("`--set {node}` names no parameter"));
                    return Err(fail(problem, "write `--set node.parameter=value`"));
                }
                let key = |text: &str| Text { text: text.to_owned(), span: path[0].span.clone() };
                let mut full = vec![key("stages"), path[0].clone(), key("with")];
                full.extend_from_slice(&path[1..]);
                put(root, &full, value);
                Ok(())
            }
            [] => unreachable!("splitting gives at least one part"),
        }
    }

    /// The value; nothing if it is not YAML, which is in `diagnostics` then.
    fn value(&self, start: usize, diagnostics: &mut Vec<Diagnostic>) -> Result<Option<Node>, Box<Diagnostic>> {
        let text = self.text[start..].trim();
        let start = self.text.len() - self.text[start..].trim_start().len();
        if text.is_empty() {
            let problem =
                Diagnostic::at(&self.span(0, self.text.len()), format!("`--set {}` gives no value", self.text.trim()));
            return Err(Box::new(problem.help("write `''` for an empty text, `null` for no value".to_owned())));
        }
        let mut found = Vec::new();
        let node = yaml::parse(self.file, text, &mut found);
        let move_span = |span: &mut Span| {
            span.column += OPTION.len() + self.text[..start].chars().count();
            span.line = self.line;
        };
        for problem in &mut found {
            if problem.message.starts_with("not YAML") {
                // What helps in a file, indentation above all, does not on a command line.
                problem.help = Some("close every bracket; put text with special characters in quotes".to_owned());
            }
            problem.span.iter_mut().for_each(&move_span);
            problem.labels.iter_mut().for_each(|label| move_span(&mut label.span));
        }
        let is_yaml = found.is_empty();
        diagnostics.append(&mut found);
        let read = node.as_ref().and_then(|node| match &node.data {
            Data::Scalar(scalar) => Some(scalar),
            _ => None,
        });
        // A comment makes no sense here: who writes `#5` or `run #3` means the whole.
        let lost = match (&node, read) {
            (None, _) => is_yaml,
            (_, Some(scalar)) => scalar.plain && scalar.text.len() < text.len() && text.contains(" #"),
            _ => false,
        };
        if lost {
            let left = read.map_or_else(|| "nothing".to_owned(), |scalar| format!("only `{}`", scalar.text));
            let message = format!("`#` begins a comment: of `{text}` {left} would be read");
            let problem = Diagnostic::at(&self.span(start, self.text.trim_end().len()), message);
            return Err(Box::new(problem.help(format!("put it in quotes: `'{}'`", text.replace('\'', "''")))));
        }
        let Some(mut node) = node else { return Ok(None) };
        relocate(&mut node, &move_span);
        Ok(Some(node))
    }
}

fn relocate(node: &mut Node, move_span: &dyn Fn(&mut Span)) {
    move_span(&mut node.span);
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| relocate(item, move_span)),
        Data::Map(entries) => {
            for entry in entries {
                move_span(&mut entry.key.span);
                relocate(&mut entry.value, move_span);
            }
        }
    }
}

/// Puts a value at a path; what stands in the way and is no mapping gives way.
fn put(node: &mut Node, path: &[Text], value: Node) {
    let Some((key, rest)) = path.split_first() else {
        *node = value;
        return;
    };
    if !matches!(node.data, Data::Map(_)) {
        *node = Node { span: key.span.clone(), data: Data::Map(Vec::new()) };
    }
    let Data::Map(entries) = &mut node.data else { unreachable!("it was just made a mapping") };
    let at = entries.iter().position(|entry| entry.key.text == key.text).unwrap_or_else(|| {
        let empty = Node { span: key.span.clone(), data: Data::Map(Vec::new()) };
        entries.push(Entry { key: key.clone(), value: empty });
        entries.len() - 1
    });
    if rest.is_empty() {
        // A wrong name must be shown where it was last written.
        entries[at].key.span = key.span.clone();
    }
    put(&mut entries[at].value, rest, value);
}
