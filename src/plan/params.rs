//! Owns how the parameters under `with:` become a stage's own: guided by its JSON schema, then bound by the stage.
//!
//! The schema is used for what it can do better than deserialisation: to find all unknown names and all values of a
//! wrong type at once, each with its place, and to keep a value's own characters where text is wanted (`0100`). The
//! stage has the last word.
//!
//! `null` gives a parameter that takes no null its default again: that is how a file that extends another, or `--set`, takes
//! a value back. A value that was only forgotten (`epochs:`) stays an error.

use std::collections::BTreeMap;

use ecgpipe_sdk::{BoundParams, ErasedStage};
use serde_json::{Map, Value};

use crate::{
    diagnostic::{Diagnostic, Span, list, nearest, suggest},
    pipeline::{
        StageEntry,
        yaml::{Data, Entry, Node, Scalar},
    },
};

pub(super) fn bind(
    stage: &dyn ErasedStage,
    entry: &StageEntry,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<BoundParams> {
    let mut reading = Reading {
        name: &entry.name.text,
        uses: stage.spec().name,
        defaults: &stage.spec().defaults,
        root: &stage.spec().schema,
        places: BTreeMap::new(),
        wrong: Vec::new(),
        diagnostics: Vec::new(),
    };
    let given = match &entry.with {
        Some(with) => reading.value(&[&stage.spec().schema], &with.value, "").unwrap_or(Value::Object(Map::new())),
        None => Value::Object(Map::new()),
    };
    let Reading { places, wrong, diagnostics: found, .. } = reading;
    let is_good = found.is_empty();
    diagnostics.extend(found);
    match stage.bind(&given) {
        Ok(params) => is_good.then_some(params),
        Err(error) => {
            // Where a parameter was wrong already, its default stood in: what is said about it would mislead.
            let mentions = |path: &String| {
                let first = path.split('.').next().unwrap_or_default();
                error.message.contains(&format!("`{first}`")) || error.path.split(['.', '[']).next() == Some(first)
            };
            if !wrong.iter().any(mentions) {
                let help = default_of(&stage.spec().defaults, &error.path);
                diagnostics.push(refusal(entry, &places, &error.path, &error.message).help(help));
            }
            None
        }
    }
}

/// What the stage itself does not accept.
fn refusal(entry: &StageEntry, places: &BTreeMap<String, Span>, path: &str, message: &str) -> Diagnostic {
    let clean = path.replace('[', ".").replace(']', "");
    let mut place = None;
    let mut above = Some(clean.as_str());
    while let Some(path) = above.filter(|path| !path.is_empty()) {
        place = place.or_else(|| places.get(path));
        above = path.rsplit_once('.').map(|(above, _)| above);
    }
    let subject = match message.split('`').nth(1) {
        _ if path.is_empty() => String::new(),
        Some(named) if named == path || path.starts_with(&format!("{named}.")) => String::new(),
        _ => format!("parameter `{path}`: "),
    };
    let name = &entry.name.text;
    let diagnostic = |span: &Span| Diagnostic::at(span, format!("stage `{name}`: {subject}{message}"));
    match (place, &entry.with) {
        (Some(span), _) => diagnostic(span),
        (None, Some(with)) => diagnostic(&with.key.span),
        (None, None) => diagnostic(&entry.uses.span),
    }
}

/// Advice that always holds: what stands there when nothing is written.
fn default_of(defaults: &Value, path: &str) -> Option<String> {
    const SHOWN_N: usize = 60;
    let pointer = format!("/{}", path.replace('[', ".").replace(']', "").replace('.', "/"));
    let text = crate::plan::sorted(defaults.pointer(&pointer)?.clone()).to_string();
    (text.chars().count() <= SHOWN_N).then(|| format!("the default is `{text}`"))
}

/// The schema that every value meets.
static ANYTHING: Value = Value::Bool(true);

struct Reading<'a> {
    name: &'a str,
    uses: &'a str,
    defaults: &'a Value,
    root: &'a Value,
    /// Where each value is written, by dotted path.
    places: BTreeMap<String, Span>,
    /// Paths that were left out since their values are of a wrong type.
    wrong: Vec<String>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reading<'a> {
    /// The value as JSON, or `None` if it cannot be what any of the schemas wants.
    fn value(&mut self, schemas: &[&'a Value], node: &Node, path: &str) -> Option<Value> {
        if !path.is_empty() {
            self.places.insert(path.to_owned(), node.span.clone());
        }
        let choices: Vec<&Value> = schemas.iter().flat_map(|schema| alternatives(self.root, schema)).collect();
        if choices.iter().any(|choice| accepts_anything(choice)) {
            return Some(node.json());
        }
        match &node.data {
            Data::Scalar(scalar) => self.scalar(&choices, scalar, node, path),
            Data::List(items) => self.list(&choices, items, node, path),
            Data::Map(entries) => self.map(&choices, entries, node, path),
        }
    }

    fn wrong(&mut self, choices: &[&Value], node: &Node, path: &str, help: Option<String>) -> Option<Value> {
        let wants: Vec<String> =
            choices.iter().map(|choice| describe(choice)).filter(|text| !text.is_empty()).collect();
        let message = format!(
            "stage `{}`: parameter `{path}` wants {}, but is {}",
            self.name,
            wants.join(", or "),
            node.describe()
        );
        let help = help.or_else(|| default_of(self.defaults, path));
        self.diagnostics.push(Diagnostic::at(&node.span, message).help(help));
        self.wrong.push(path.to_owned());
        None
    }

    fn scalar(&mut self, choices: &[&'a Value], scalar: &Scalar, node: &Node, path: &str) -> Option<Value> {
        let value = scalar.value();
        if choices.iter().any(|choice| accepts(choice, &value)) {
            return Some(value);
        }
        // A stage's own text, not YAML's idea of it: records are named `100` and `0100`.
        let text = Value::String(scalar.text.clone());
        if !value.is_null() && choices.iter().any(|choice| accepts(choice, &text)) {
            return Some(text);
        }
        let names: Vec<&str> = choices.iter().flat_map(|choice| constants(choice)).collect();
        let only_names = choices.iter().all(|choice| is_null_type(choice) || !constants(choice).is_empty());
        if !value.is_null() && !names.is_empty() && only_names {
            let message = format!("stage `{}`: parameter `{path}` cannot be `{}`", self.name, scalar.text);
            let help = match nearest(&scalar.text, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`? allowed are {}", list(names)),
                None => format!("allowed are {}", list(names)),
            };
            self.diagnostics.push(Diagnostic::at(&node.span, message).help(help));
            self.wrong.push(path.to_owned());
            return None;
        }
        let wants = |name: &str| choices.iter().any(|choice| has_type(choice, name));
        let help = match scalar.text.to_lowercase().as_str() {
            "yes" | "on" | "y" if scalar.plain && wants("boolean") => Some("YAML 1.2 says `true`".to_owned()),
            "no" | "off" | "n" if scalar.plain && wants("boolean") => Some("YAML 1.2 says `false`".to_owned()),
            text if (wants("number") || wants("integer")) && text.contains(['_', ',']) => {
                let digits = text.replace('_', "").replace(',', ".");
                digits.parse::<f64>().is_ok().then(|| format!("write `{digits}`"))
            }
            _ if (wants("number") || wants("integer")) && !scalar.plain => Some("remove the quotes".to_owned()),
            text if wants("array") => Some(format!("write `[{text}]` for a list of one")),
            _ => None,
        };
        self.wrong(choices, node, path, help)
    }

    fn list(&mut self, choices: &[&'a Value], items: &[Node], node: &Node, path: &str) -> Option<Value> {
        let Some(choice) = choices.iter().find(|choice| has_type(choice, "array")) else {
            return self.wrong(choices, node, path, None);
        };
        let limit =
            |name: &str| choice.get(name).and_then(Value::as_u64).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (least_n, most_n) = (limit("minItems").unwrap_or(0), limit("maxItems").unwrap_or(usize::MAX));
        if !(least_n..=most_n).contains(&items.len()) {
            let wants = match (least_n, most_n) {
                (least_n, most_n) if least_n == most_n => format!("{least_n} values"),
                (least_n, usize::MAX) => format!("{least_n} values or more"),
                (0, most_n) => format!("{most_n} values at most"),
                (least_n, most_n) => format!("{least_n} to {most_n} values"),
            };
            let message = format!("stage `{}`: parameter `{path}` wants {wants}, but has {}", self.name, items.len());
            self.diagnostics.push(Diagnostic::at(&node.span, message));
            self.wrong.push(path.to_owned());
            return None;
        }
        let prefix = choice.get("prefixItems").and_then(Value::as_array);
        let mut values = Vec::with_capacity(items.len());
        for (idx, item) in items.iter().enumerate() {
            let first = prefix.and_then(|prefix| prefix.get(idx));
            let schema = first.or_else(|| choice.get("items")).unwrap_or(&ANYTHING);
            values.push(self.value(&[schema], item, &format!("{path}.{idx}")));
        }
        // A list with one wrong value is left out whole: what remains would be another list.
        values.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
    }

    fn takes_null(&self, schemas: &[&'a Value]) -> bool {
        let mut choices = schemas.iter().flat_map(|schema| alternatives(self.root, schema));
        choices.any(|choice| accepts_anything(choice) || accepts(choice, &Value::Null))
    }

    fn map(&mut self, choices: &[&'a Value], entries: &[Entry], node: &Node, path: &str) -> Option<Value> {
        let objects: Vec<&Value> = choices.iter().copied().filter(|choice| has_type(choice, "object")).collect();
        if objects.is_empty() {
            return self.wrong(choices, node, path, None);
        }
        // Of the variants of an enum with a tag, the one that the tag says; if it says none, all names are possible.
        let is_tagged = |object: &&&Value| {
            let tags = properties(object).filter_map(|(name, schema)| Some((name, schema.get("const")?)));
            let mut tags = tags.peekable();
            tags.peek().is_some()
                && tags.all(|(name, tag)| {
                    entries.iter().any(|entry| entry.key.text == *name && entry.value.json() == *tag)
                })
        };
        let chosen = match objects.iter().find(is_tagged) {
            Some(one) => vec![*one],
            None => objects,
        };
        let mut map = Map::new();
        for entry in entries {
            let key = &entry.key;
            let inner = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
            let schemas: Vec<&Value> = chosen.iter().filter_map(|object| property(object, &key.text)).collect();
            if schemas.is_empty() {
                let names: Vec<&str> =
                    chosen.iter().flat_map(|object| properties(object)).map(|(name, _)| name.as_str()).collect();
                let of = if path.is_empty() { String::new() } else { format!("`{path}` of ") };
                let message = format!("stage `{}`: {of}`{}` has no parameter `{}`", self.name, self.uses, key.text);
                let help = suggest(&key.text, &names, "its parameters are");
                let help = help.or_else(|| Some("it takes none".to_owned()));
                self.diagnostics.push(Diagnostic::at(&key.span, message).help(help));
                continue;
            }
            if says_null(&entry.value) && !self.takes_null(&schemas) {
                continue;
            }
            if let Some(value) = self.value(&schemas, &entry.value, &inner) {
                map.insert(key.text.clone(), value);
            }
        }
        Some(Value::Object(map))
    }
}

/// Written out, not just left empty, which is more likely a mistake.
fn says_null(node: &Node) -> bool {
    matches!(&node.data, Data::Scalar(scalar) if scalar.is_null() && !scalar.text.is_empty())
}

/// The schemas of which a value must meet one: references followed, `anyOf` and `oneOf` opened.
pub(crate) fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut queue = vec![schema];
    // A schema that refers to itself is legal; every real one is found long before this bound.
    for _ in 0..1000 {
        let Some(schema) = queue.pop() else { break };
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        if let Some(target) = reference.and_then(|path| root.pointer(path)) {
            queue.push(target);
            continue;
        }
        let inner = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array());
        match inner {
            Some(inner) => queue.extend(inner.iter().rev()),
            None => match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([only]) => queue.push(only),
                _ => found.push(schema),
            },
        }
    }
    found
}

/// The paths of all parameters of this name, at any depth of named parameters, such as `train.epochs`.
pub(crate) fn paths_named(root: &Value, name: &str) -> Vec<String> {
    fn add(root: &Value, schema: &Value, name: &str, before: &str, depth: usize, paths: &mut Vec<String>) {
        // Deeper than anyone writes: a schema may contain itself.
        if depth > 8 {
            return;
        }
        for object in alternatives(root, schema) {
            for (inner_name, inner) in properties(object) {
                let path = format!("{before}{inner_name}");
                if inner_name == name && !paths.contains(&path) {
                    paths.push(path.clone());
                }
                add(root, inner, name, &format!("{path}."), depth + 1, paths);
            }
        }
    }
    let mut paths = Vec::new();
    add(root, root, name, "", 0, &mut paths);
    paths
}

fn accepts_anything(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            !["type", "enum", "const", "properties", "items", "prefixItems"].iter().any(|key| map.contains_key(*key))
        }
        _ => true,
    }
}

fn has_type(schema: &Value, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(many)) => many.iter().any(|one| one == name),
        _ => match name {
            "object" => schema.get("properties").is_some(),
            "array" => schema.get("items").is_some() || schema.get("prefixItems").is_some(),
            _ => false,
        },
    }
}

fn is_null_type(schema: &Value) -> bool {
    schema.get("type").is_some_and(|name| name == "null")
}

/// The texts of `enum` and `const`.
fn constants(schema: &Value) -> Vec<&str> {
    let many = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    many.chain(schema.get("const")).filter_map(Value::as_str).collect()
}

fn accepts(schema: &Value, value: &Value) -> bool {
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        return allowed.contains(value);
    }
    match value {
        Value::Null => has_type(schema, "null"),
        Value::Bool(_) => has_type(schema, "boolean"),
        Value::String(_) => has_type(schema, "string"),
        Value::Number(number) => {
            let is_whole = number.is_u64() || number.is_i64();
            let fits_type = has_type(schema, "number") || is_whole && has_type(schema, "integer");
            fits_type && number.as_f64().is_some_and(|value| in_range(schema, value))
        }
        _ => false,
    }
}

fn in_range(schema: &Value, value: f64) -> bool {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    limit("minimum").is_none_or(|least| value >= least)
        && limit("maximum").is_none_or(|most| value <= most)
        && limit("exclusiveMinimum").is_none_or(|below| value > below)
        && limit("exclusiveMaximum").is_none_or(|above| value < above)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    // A struct without `deny_unknown_fields` says nothing of further names; a wrong name is still a mistake then.
    let further = || match schema.get("additionalProperties") {
        None if schema.get("properties").is_none() => Some(&ANYTHING),
        None | Some(Value::Bool(false)) => None,
        Some(schema) => Some(schema),
    };
    named.or_else(further)
}

/// What a schema takes, in words.
pub(crate) fn describe(schema: &Value) -> String {
    let names = constants(schema);
    if !names.is_empty() {
        return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
    }
    let limit = |name: &str| schema.get(name).filter(|value| value.is_number()).map(ToString::to_string);
    let plain = |text: String| text.strip_suffix(".0").map(str::to_owned).unwrap_or(text);
    let limits: Vec<String> = [
        limit("minimum").map(|least| format!("at least {}", plain(least))),
        limit("exclusiveMinimum").map(|below| format!("above {}", plain(below))),
        limit("maximum").map(|most| format!("at most {}", plain(most))),
        limit("exclusiveMaximum").map(|above| format!("below {}", plain(above))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let limits = if limits.is_empty() { String::new() } else { format!(" of {}", limits.join(" and ")) };
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec!["object"],
    };
    let word = |name: &str| match name {
        "integer" => format!("a whole number{limits}"),
        "number" => format!("a number{limits}"),
        "boolean" => "`true` or `false`".to_owned(),
        "string" => "text".to_owned(),
        "array" => "a list".to_owned(),
        "null" => "`null`".to_owned(),
        _ => "a mapping".to_owned(),
    };
    types.into_iter().map(word).collect::<Vec<_>>().join(" or ")
}
