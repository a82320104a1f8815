//! Owns YAML as a tree that remembers where each value is written and with which characters.
//!
//! The tree keeps a scalar's own text beside its meaning, so that a record named `0100` is still `0100` where text is
//! wanted. Scalars mean what the core schema of YAML 1.2 says (<https://yaml.org/spec/1.2.2/#103-core-schema>): `yes`
//! and `on` are text, `0100` is a hundred. Duplicate keys, tags and merge keys are errors; anchors and aliases work.
//!
//! This module knows nothing of pipelines.

use std::{collections::BTreeMap, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Marks, StrInput, Tag};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Span};

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The scalar itself, or the first character of a list or mapping.
    pub span: Span,
    /// The value.
    pub data: Data,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Everything that is neither list nor mapping.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file; no key appears twice.
    Map(Vec<Entry>),
}

/// A scalar as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Its text without quotes.
    pub text: String,
    /// Without quotes or block sign, so that it may be more than text.
    pub plain: bool,
}

/// A text and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key; always text, whatever it looks like.
    pub key: Text,
    /// The value.
    pub value: Node,
}

/// Most nodes that aliases may expand to, against "billion laughs" files.
const NODE_LIMIT_N: usize = 100_000;
/// Deepest nesting, so that no file can exhaust the call stack.
const DEPTH_LIMIT_N: usize = 100;

impl Scalar {
    /// The meaning by the YAML 1.2 core schema. Infinities and not-a-number have no JSON value and stay text.
    #[must_use]
    pub fn value(&self) -> Value {
        if !self.plain {
            return Value::String(self.text.clone());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
        }
    }

    /// Whether it means null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value().is_null()
    }
}

fn number(text: &str) -> Option<Value> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Value::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Value::from);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || !digits.contains(|one: char| one.is_ascii_digit())
    {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = unsigned.parse::<u64>() {
        return Some(Value::from(whole));
    }
    if let Ok(whole) = unsigned.parse::<i64>() {
        return Some(Value::from(whole));
    }
    // From here on only what the core schema calls a float; Rust reads nothing more once a digit must come first.
    let real: f64 = unsigned.parse().ok()?;
    serde_json::Number::from_f64(real).map(Value::Number)
}

impl Node {
    /// Whether it is an empty value or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar) if scalar.is_null())
    }

    /// The value of a key, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key.text == key),
            _ => None,
        }
    }

    /// What it is, in words for messages: "the number `5`", "a list".
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            Data::Scalar(scalar) => match scalar.value() {
                Value::Null => "nothing".to_owned(),
                Value::Bool(_) => format!("`{}`", scalar.text),
                Value::Number(_) => format!("the number `{}`", scalar.text),
                _ => format!("the text `{}`", scalar.text),
            },
        }
    }

    /// As JSON, by the core schema alone.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.data {
            Data::Scalar(scalar) => scalar.value(),
            Data::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.text.clone(), entry.value.json())).collect())
            }
        }
    }
}

/// Reads one YAML document. `None` if the text is not YAML at all; what is wrong is added to `diagnostics`.
pub fn parse(file: &Arc<str>, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    let lines = text.split('\n').collect();
    let mut tree = Tree {
        file,
        lines,
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        node_n: 0,
        diagnostics: Vec::new(),
    };
    let node = tree.document();
    let found = tree.diagnostics;
    match node {
        Ok(node) => {
            diagnostics.extend(found);
            node
        }
        Err(stop) => {
            diagnostics.extend(found);
            diagnostics.push(*stop);
            None
        }
    }
}

struct Tree<'a> {
    file: &'a Arc<str>,
    lines: Vec<&'a str>,
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    node_n: usize,
    diagnostics: Vec<Diagnostic>,
}

/// The text ends here for us: the rest cannot be understood.
type Stop = Box<Diagnostic>;

impl<'a> Tree<'a> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, marks) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    let extra = Diagnostic::at(&self.span(marks), "a second YAML document (`---`) in one file");
                    return Err(Box::new(extra.help("make it a file of its own".to_owned())));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, marks, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Marks), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(self.syntax(&error))),
            None => Ok((Event::StreamEnd, Marks::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let mark = error.marker();
        let line = mark.line().clamp(1, self.lines.len());
        let column = (mark.col() + 1).min(self.lines[line - 1].chars().count().max(1));
        let span = Span { file: Arc::clone(self.file), line, column, length: 1 };
        let in_indentation = |line: &&str| line.trim_start_matches(' ').starts_with('\t');
        // A tab that upsets the parser is often on the line before the one where it notices.
        let tab = self.lines[..line].iter().rposition(in_indentation).filter(|tab_line| line - tab_line <= 2);
        let help = match tab {
            Some(tab_line) => format!("indent line {} with spaces: YAML does not take tabs there", tab_line + 1),
            None => "check indentation, quotes, `: ` after keys and closing brackets above this place".to_owned(),
        };
        Diagnostic::at(&span, format!("not YAML: {}", error.info())).help(help)
    }

    fn span(&self, marks: Marks) -> Span {
        let line = marks.start.line().clamp(1, self.lines.len());
        let text = self.lines[line - 1];
        let column = marks.start.col() + 1;
        let end = if marks.end.line() == marks.start.line() {
            marks.end.col() + 1
        } else {
            text.trim_end().chars().count() + 1
        };
        Span { file: Arc::clone(self.file), line, column, length: end.saturating_sub(column).max(1) }
    }

    fn node(&mut self, event: Event<'a>, marks: Marks, depth: usize) -> Result<Node, Stop> {
        let span = self.span(marks);
        self.node_n += 1;
        if depth > DEPTH_LIMIT_N || self.node_n > NODE_LIMIT_N {
            let what = if depth > DEPTH_LIMIT_N { "nested too deeply" } else { "too many values" };
            return Err(Box::new(Diagnostic::at(&span, format!("{what} to be a pipeline"))));
        }
        let first = Span { length: 1, ..span.clone() };
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = self.tag(tag.as_deref(), &span);
                let plain = style == ScalarStyle::Plain && !as_text;
                (Node { span, data: Data::Scalar(Scalar { text: text.into_owned(), plain }) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), &first);
                (Node { data: Data::List(self.items(depth)?), span: first }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), &first);
                (Node { data: Data::Map(self.entries(depth)?), span: first }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Box::new(Diagnostic::at(&span, "the alias is part of what it stands for")));
                };
                self.node_n += count(&node);
                (node, 0)
            }
            _ => unreachable!("the parser gives a node where a node must be"),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, marks) => items.push(self.node(event, marks, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, marks) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let key = self.node(event, marks, depth + 1)?;
            let (event, marks) = self.next()?;
            let value = self.node(event, marks, depth + 1)?;
            let Data::Scalar(scalar) = key.data else {
                self.diagnostics.push(Diagnostic::at(&key.span, format!("a key must be text, not {}", key.describe())));
                continue;
            };
            let key = Text { text: scalar.text, span: key.span };
            if key.text == "<<" && scalar.plain {
                let merge = Diagnostic::at(&key.span, "merge keys (`<<`) are not part of YAML 1.2");
                let help = "use an alias for a whole value, or `extends` for a whole file";
                self.diagnostics.push(merge.help(help.to_owned()));
            } else if let Some(first) = entries.iter().find(|entry| entry.key.text == key.text) {
                let twice = Diagnostic::at(&key.span, format!("the key `{}` is given twice", key.text));
                self.diagnostics.push(twice.label(&first.key.span, "first here").help("keep one of them".to_owned()));
            } else {
                entries.push(Entry { key, value });
            }
        }
    }

    /// True for `!!str`, the only tag with a use here.
    fn tag(&mut self, tag: Option<&Tag>, span: &Span) -> bool {
        let Some(tag) = tag else { return false };
        if tag.is_yaml_core_schema() && tag.suffix == "str" {
            return true;
        }
        let shown = if tag.is_yaml_core_schema() { "!!" } else { tag.handle.as_str() };
        let message = format!("the tag `{shown}{}` has no meaning in a pipeline", tag.suffix);
        self.diagnostics.push(Diagnostic::at(span, message).help("remove it; quotes make a value text".to_owned()));
        false
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.data {
        Data::Scalar(_) => 0,
        Data::List(items) => items.iter().map(count).sum(),
        Data::Map(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        let mut diagnostics = Vec::new();
        let node = parse(&"t.yaml".into(), text, &mut diagnostics);
        let problems: Vec<String> = diagnostics
            .iter()
            .map(|one| {
                let span = one.span.as_ref().expect("every YAML error has a place");
                format!("{}:{}+{} {}", span.line, span.column, span.length, one.message)
            })
            .collect();
        node.map_or_else(String::new, |node| node.json().to_string()) + &problems.join("; ")
    }

    #[test]
    fn scalars_mean_what_yaml_1_2_says() {
        let cases = [
            ("100", "100"),
            ("0100", "100"),
            ("'0100'", "\"0100\""),
            ("!!str 100", "\"100\""),
            ("+7", "7"),
            ("-7", "-7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("1.5e3", "1500.0"),
            (".5", "0.5"),
            ("18446744073709551615", "18446744073709551615"),
            ("yes", "\"yes\""),
            ("on", "\"on\""),
            ("1_000", "\"1_000\""),
            ("1:30", "\"1:30\""),
            ("inf", "\"inf\""),
            (".inf", "\".inf\""),
            ("-.nan", "\"-.nan\""),
            ("-", "[null]"),
            ("1.2.3", "\"1.2.3\""),
            ("True", "true"),
            ("~", "null"),
            ("[a, 'b', {c: }]", "[\"a\",\"b\",{\"c\":null}]"),
        ];
        for (text, expected) in cases {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn a_scalar_keeps_its_characters() {
        let node = parse(&"t".into(), "[0100, 1e2, 'x']", &mut Vec::new()).expect("it is YAML");
        let Data::List(items) = node.data else { panic!("a list") };
        let texts: Vec<(String, usize, usize)> = items
            .into_iter()
            .map(|item| match item.data {
                Data::Scalar(scalar) => (scalar.text, item.span.column, item.span.length),
                _ => panic!("a scalar"),
            })
            .collect();
        assert_eq!(texts, [("0100".to_owned(), 2, 4), ("1e2".to_owned(), 8, 3), ("x".to_owned(), 13, 3)]);
    }

    #[test]
    fn anchors_work_and_cannot_explode() {
        assert_eq!(json("a: &x {b: 1}\nc: *x"), r#"{"a":{"b":1},"c":{"b":1}}"#);
        let bomb: String = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let alias = format!("*a{}", level - 1);
            text + &format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(", "))
        });
        assert!(json(&bomb).contains("too many values"), "{}", json(&bomb));
        assert!(json("a: &x [*x]").contains("the alias is part of what it stands for"));
        let deep = format!("{}{}", "- ".repeat(500), "x");
        assert!(json(&deep).contains("nested too deeply"), "{}", json(&deep));
    }

    #[test]
    fn what_is_not_for_pipelines_is_refused_by_place() {
        let found = json("a: 1\nb: !foo 2\na: 3\n<<: 4\n[x]: 5\n");
        assert_eq!(
            found,
            "{\"a\":1,\"b\":2}2:4+6 the tag `!foo` has no meaning in a pipeline; \
             3:1+1 the key `a` is given twice; 4:1+2 merge keys (`<<`) are not part of YAML 1.2; \
             5:1+1 a key must be text, not a list"
        );
        assert!(json("a: 1\n---\nb: 2\n").contains("2:1+3 a second YAML document"));
    }
}
