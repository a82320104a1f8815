//! Owns the parameters of a plugin: how `stage.yaml` declares them, their JSON schema, and how values are bound.
//!
//! Invariant: a value has one bound form however it is written (`200` and `200.0` for a number), so that it has one key
//! (`a_number_has_one_form`).

use std::collections::BTreeMap;

use ecgpipe_sdk::ParamError;
use serde_json::{Map, Value, json};

use crate::{
    diagnostic::{Diagnostic, Span, suggest},
    pipeline::{
        Form,
        yaml::{Data, Entry, Node},
    },
};

/// A parameter.
#[derive(Clone, Debug)]
pub(super) struct Param {
    scalar: Scalar,
    list: bool,
    minimum: Option<f64>,
    maximum: Option<f64>,
    one_of: Vec<Value>,
    /// The default in its bound form.
    pub(super) default: Value,
    /// Its JSON schema.
    pub(super) schema: Value,
}

/// What a value, or each value of a list, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Integer,
    Number,
    Boolean,
    Text,
}

const SCALARS: [(&str, Scalar); 4] =
    [("integer", Scalar::Integer), ("number", Scalar::Number), ("boolean", Scalar::Boolean), ("text", Scalar::Text)];
const TYPES: [&str; 5] = ["integer", "number", "boolean", "text", "list"];
const KEYS: [&str; 7] = ["type", "of", "default", "minimum", "maximum", "one_of", "doc"];
const EXAMPLE: &str = "{type: number, default: 200, minimum: 1, doc: Width of the filter in milliseconds.}";

impl Param {
    /// What it is, for the identity of the code.
    pub(super) fn type_name(&self) -> &'static str {
        match (self.list, self.scalar) {
            (false, Scalar::Integer) => "integer",
            (false, Scalar::Number) => "number",
            (false, Scalar::Boolean) => "boolean",
            (false, Scalar::Text) => "text",
            (true, Scalar::Integer) => "list of integer",
            (true, Scalar::Number) => "list of number",
            (true, Scalar::Boolean) => "list of boolean",
            (true, Scalar::Text) => "list of text",
        }
    }

    /// The bound form of a value; what is wanted, in words, if it is not one.
    fn bound(&self, value: &Value) -> Result<Value, String> {
        match (self.list, value) {
            (true, Value::Array(items)) => items.iter().map(|item| self.bound_scalar(item)).collect(),
            (true, _) => Err("a list".to_owned()),
            (false, _) => self.bound_scalar(value),
        }
    }

    fn bound_scalar(&self, value: &Value) -> Result<Value, String> {
        let bound = match (self.scalar, value) {
            (Scalar::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => Some(value.clone()),
            (Scalar::Number, Value::Number(number)) => number.as_f64().map(Value::from),
            (Scalar::Boolean, Value::Bool(_)) | (Scalar::Text, Value::String(_)) => Some(value.clone()),
            _ => None,
        };
        let in_range = |value: &Value| {
            value.as_f64().is_none_or(|value| {
                self.minimum.is_none_or(|least| value >= least) && self.maximum.is_none_or(|most| value <= most)
            })
        };
        let allowed = |value: &Value| self.one_of.is_empty() || self.one_of.contains(value);
        bound.filter(|value| in_range(value) && allowed(value)).ok_or_else(|| self.wanted())
    }

    fn wanted(&self) -> String {
        if !self.one_of.is_empty() {
            let shown: Vec<String> = self.one_of.iter().map(|value| format!("`{}`", plain(value))).collect();
            return shown.join(" or ");
        }
        let what = match self.scalar {
            Scalar::Integer => "a whole number",
            Scalar::Number => "a number",
            Scalar::Boolean => "`true` or `false`",
            Scalar::Text => "text",
        };
        let limits = match (self.minimum, self.maximum) {
            (Some(least), Some(most)) => format!(" from {least} to {most}"),
            (Some(least), None) => format!(" of at least {least}"),
            (None, Some(most)) => format!(" of at most {most}"),
            (None, None) => String::new(),
        };
        format!("{what}{limits}")
    }

    fn schema(&self, doc: &str) -> Value {
        let name = match self.scalar {
            Scalar::Integer => "integer",
            Scalar::Number => "number",
            Scalar::Boolean => "boolean",
            Scalar::Text => "string",
        };
        let mut one = Map::from_iter([("type".to_owned(), json!(name))]);
        let limits = [("minimum", self.minimum), ("maximum", self.maximum)];
        one.extend(limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?)))));
        if !self.one_of.is_empty() {
            one.insert("enum".to_owned(), json!(self.one_of));
        }
        let mut schema = if self.list { json!({"type": "array", "items": one}) } else { Value::Object(one) };
        schema["description"] = json!(doc);
        schema["default"] = self.default.clone();
        schema
    }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every parameter in its bound form, defaults filled in.
pub(super) fn bind(params: &BTreeMap<String, Param>, given: &Value) -> Result<Value, ParamError> {
    let empty = Map::new();
    let given = match given {
        Value::Null => &empty,
        Value::Object(given) => given,
        _ => return Err(ParamError { path: String::new(), message: "parameters are a mapping".to_owned() }),
    };
    if let Some(name) = given.keys().find(|name| !params.contains_key(*name)) {
        return Err(ParamError { path: name.clone(), message: format!("there is no parameter `{name}`") });
    }
    let mut bound = Map::new();
    for (name, param) in params {
        let value = match given.get(name) {
            None => param.default.clone(),
            Some(value) => param.bound(value).map_err(|wanted| {
                let message = format!("`{name}` wants {wanted}, but is `{}`", plain(value));
                ParamError { path: name.clone(), message }
            })?,
        };
        bound.insert(name.clone(), value);
    }
    Ok(Value::Object(bound))
}

/// Reads one entry of `params`.
pub(super) fn read(entry: &Entry, form: &mut Form) -> Option<Param> {
    let what = format!("parameter `{}`", entry.key.text);
    for inner in form.entries(&entry.key.span, &what, &entry.value, EXAMPLE) {
        if !KEYS.contains(&inner.key.text.as_str()) {
            form.unknown(&inner.key, &what, &KEYS);
        }
    }
    if !matches!(entry.value.data, Data::Map(_)) {
        return None;
    }
    let missing = |key: &str, form: &mut Form| {
        let problem = Diagnostic::at(&entry.key.span, format!("{what} has no `{key}`"));
        form.diagnostics.push(problem.help(format!("for example `{EXAMPLE}`")));
    };
    for key in ["type", "default", "doc"] {
        if entry.value.get(key).is_none() {
            missing(key, form);
        }
    }
    let doc = entry.value.get("doc").and_then(|doc| form.text(&format!("`doc` of {what}"), doc));
    let (scalar, list) = read_type(entry, &what, form)?;
    let mut param = Param {
        scalar,
        list,
        minimum: limit(entry, "minimum", scalar, &what, form),
        maximum: limit(entry, "maximum", scalar, &what, form),
        one_of: Vec::new(),
        default: Value::Null,
        schema: Value::Null,
    };
    if let (Some(least), Some(most)) = (param.minimum, param.maximum)
        && least > most
    {
        form.error(&entry.key.span, format!("{what}: `minimum` is above `maximum`"));
        return None;
    }
    if let Some(one_of) = entry.value.get("one_of") {
        let Data::List(items) = &one_of.value.data else {
            form.error(&one_of.value.span, format!("`one_of` of {what} wants a list"));
            return None;
        };
        let allowed: Vec<Value> =
            items.iter().filter_map(|item| bound(&Param { list: false, ..param.clone() }, item, &what, form)).collect();
        param.one_of = allowed;
    }
    let default = &entry.value.get("default")?.value;
    param.default = bound(&param, default, &what, form)?;
    param.schema = param.schema(&doc?.text);
    Some(param)
}

fn read_type(entry: &Entry, what: &str, form: &mut Form) -> Option<(Scalar, bool)> {
    let named = form.text(&format!("`type` of {what}"), entry.value.get("type")?)?;
    let scalar_of = |name: &str| SCALARS.iter().find(|(known, _)| *known == name).map(|(_, scalar)| *scalar);
    let of = entry.value.get("of");
    let unknown = |name: &str, span: &Span, names: &[&str], form: &mut Form| {
        let problem = Diagnostic::at(span, format!("{what}: there is no type `{name}`"));
        form.diagnostics.push(problem.help(suggest(name, names, "types are")));
    };
    if named.text == "list" {
        let Some(of) = of else {
            let problem = Diagnostic::at(&named.span, format!("{what}: a list of what?"));
            form.diagnostics.push(problem.help("for example `{type: list, of: integer, ...}`".to_owned()));
            return None;
        };
        let of = form.text(&format!("`of` of {what}"), of)?;
        let scalar = scalar_of(&of.text);
        if scalar.is_none() {
            unknown(&of.text, &of.span, &TYPES[..4], form);
        }
        return scalar.map(|scalar| (scalar, true));
    }
    if let Some(of) = of {
        form.error(&of.key.span, format!("{what}: `of` is for lists"));
    }
    let scalar = scalar_of(&named.text);
    if scalar.is_none() {
        unknown(&named.text, &named.span, &TYPES, form);
    }
    scalar.map(|scalar| (scalar, false))
}

fn limit(entry: &Entry, key: &str, scalar: Scalar, what: &str, form: &mut Form) -> Option<f64> {
    let inner = entry.value.get(key)?;
    let number = inner.value.json().as_f64().filter(|_| matches!(scalar, Scalar::Integer | Scalar::Number));
    if number.is_none() {
        form.error(&inner.value.span, format!("`{key}` of {what} wants a number, and is for numbers only"));
    }
    number
}

/// A value of `stage.yaml` in its bound form. Text keeps its own characters, whatever YAML takes them for.
fn bound(param: &Param, node: &Node, what: &str, form: &mut Form) -> Option<Value> {
    let json = |node: &Node| match &node.data {
        Data::Scalar(scalar) if param.scalar == Scalar::Text && !scalar.is_null() => Value::String(scalar.text.clone()),
        _ => node.json(),
    };
    let value = match &node.data {
        Data::List(items) => Value::Array(items.iter().map(json).collect()),
        _ => json(node),
    };
    match param.bound(&value) {
        Ok(value) => Some(value),
        Err(wanted) => {
            form.error(&node.span, format!("{what} wants {wanted}, but this is {}", node.describe()));
            None
        }
    }
}
