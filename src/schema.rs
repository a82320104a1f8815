//! Owns what is generated from the known stages for people and editors: the JSON Schema of pipeline files and the
//! stage catalogue.
//!
//! Invariant: both are functions of the registry alone, objects sorted by key, so that a stale copy can be detected
//! (`generated_texts_are_stable`).

use std::{collections::BTreeMap, fmt::Write};

use ecgpipe_sdk::{Cardinality, PortSpec, Registry, StageSpec, kinds::layout::LAYOUTS};
use serde_json::{Map, Value, json};

use crate::plan::{describe_schema, schema_alternatives, sorted};

/// The JSON Schema (draft 2020-12) of pipeline files, for completion and checks in editors:
/// `# yaml-language-server: $schema=schema.json`. The parameters and inputs of a stage follow from its `uses`.
#[must_use]
pub fn pipeline_schema(registry: &Registry) -> Value {
    let specs: Vec<&StageSpec> = registry.iter().map(|stage| stage.spec()).collect();
    let outputs = json!({
        // `null` takes an inherited input or target out again; the planner refuses it elsewhere.
        "type": ["string", "null"],
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]*\\.[a-z0-9_]+$",
        "description": "An output, as `node.port`.",
    });
    let mut definitions = Map::new();
    definitions.insert("output".to_owned(), outputs);
    let mut choices = Vec::new();
    let mut conditions = Vec::new();
    let mut needs = Vec::new();
    for spec in &specs {
        choices.push(json!({"const": spec.name, "description": spec.summary}));
        definitions.insert(format!("{}.in", spec.name), inputs_schema(spec));
        let mut with = params_schema(spec);
        hoist(&mut with, spec.name, &mut definitions);
        definitions.insert(format!("{}.with", spec.name), with);
        let uses = json!({"type": "object", "properties": {"uses": {"const": spec.name}}, "required": ["uses"]});
        let required: Vec<&str> = spec.inputs.iter().filter(|port| !port.optional).map(|port| port.name).collect();
        if !required.is_empty() {
            let then = json!({"required": ["in"], "properties": {"in": {"required": required}}});
            needs.push(json!({"if": &uses, "then": then}));
        }
        conditions.push(json!({
            "if": uses,
            "then": {"properties": {
                "in": {"$ref": format!("#/$defs/{}.in", spec.name)},
                "with": {"$ref": format!("#/$defs/{}.with", spec.name)},
            }},
        }));
    }
    let mut node = json!({
        "type": ["object", "null"],
        "description": "One use of a stage.",
        "properties": {
            "uses": {"description": "The stage to use.", "oneOf": choices},
            "in": {"type": "object", "description": "What each input port takes: `port: node.port`."},
            "with": {"type": ["object", "null"], "description": "Parameters; those left out have their defaults."},
        },
        "additionalProperties": false,
    });
    let mut whole = json!({"type": "object", "required": ["uses"]});
    // An empty `allOf` is not a schema.
    for (schema, all) in [(&mut node, conditions), (&mut whole, needs)] {
        if !all.is_empty() {
            schema["allOf"] = Value::Array(all);
        }
    }
    definitions.insert("whole_stage".to_owned(), whole);
    definitions.insert("stage".to_owned(), node);
    sorted(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ecgpipe pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]*$",
                "description": "The pipeline's name; by default the file's.",
            },
            "extends": {
                "type": "string",
                "description": "A pipeline file, relative to this one, that this one is merged over. `null` takes a stage, an input or a published target out again.",
            },
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": u64::MAX,
                "default": crate::pipeline::DEFAULT_SEED,
                "description": "All randomness comes from it.",
            },
            "tracking": {
                "type": "object",
                "additionalProperties": false,
                "description": "Where runs are reported.",
                "properties": {
                    "experiment": {"type": "string", "description": "The experiment that runs belong to."},
                    "uri": {"type": "string", "description": "The tracking server."},
                    "registered_model": {"type": "string", "description": "The name under which a trained model is registered."},
                },
            },
            "stages": {
                "type": "object",
                "description": "The graph: a name for each node, and the stage that it uses.",
                "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]*$"},
                "additionalProperties": {"$ref": "#/$defs/stage"},
            },
            "publish": {
                "type": "object",
                "description": "What is copied out of the store when it is there: target to output. A target that ends with `/` is a folder.",
                "propertyNames": {"not": {"pattern": "^[/~]|(^|/)\\.\\.(/|$)"}},
                "patternProperties": {
                    "/$": {
                        "oneOf": [
                            {"$ref": "#/$defs/output"},
                            {"type": "array", "items": {"$ref": "#/$defs/output"}, "uniqueItems": true},
                        ],
                    },
                },
                "additionalProperties": {"$ref": "#/$defs/output"},
            },
        },
        // Only a file that extends another may leave `stages` and `uses` to it, or take something out with `null`.
        "if": {"not": {"required": ["extends"]}},
        "then": {
            "required": ["stages"],
            "properties": {
                "stages": {"additionalProperties": {"$ref": "#/$defs/whole_stage"}},
                // Any target: a schema below `patternProperties` may have said what else holds.
                "publish": {"patternProperties": {"": {"type": ["string", "array"]}}},
            },
        },
        "$defs": definitions,
    }))
}

fn inputs_schema(spec: &StageSpec) -> Value {
    let ports: Map<String, Value> = spec
        .inputs
        .iter()
        .map(|port| {
            let description =
                format!("{} Takes {}{}.", port.doc, amount(port), if port.optional { ", may be left out" } else { "" });
            (port.name.to_owned(), json!({"description": description.trim(), "$ref": "#/$defs/output"}))
        })
        .collect();
    json!({"type": "object", "properties": ports, "additionalProperties": false})
}

/// The schema of the parameters for editors: with defaults, and with numbers where text is wanted, since the planner
/// takes `100` for the record of that name.
fn params_schema(spec: &StageSpec) -> Value {
    let mut schema = spec.schema.clone();
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
        map.remove("title");
        map.insert("description".to_owned(), json!(format!("Parameters of `{}`.", spec.name)));
        if map.get("properties").is_none() {
            map.insert("additionalProperties".to_owned(), json!(false));
        }
        // Editors may write `with:` with nothing below.
        map.insert("type".to_owned(), json!(["object", "null"]));
        if let (Some(properties), Some(defaults)) =
            (map.get_mut("properties").and_then(Value::as_object_mut), spec.defaults.as_object())
        {
            for (name, property) in properties {
                if let (Some(property), Some(default)) = (property.as_object_mut(), defaults.get(name)) {
                    property.entry("default").or_insert_with(|| default.clone());
                }
            }
        }
        // With defaults for all of them, no parameter is required in a file.
        map.remove("required");
    }
    let mut relaxed = schema;
    relax(&mut relaxed);
    relaxed
}

fn relax(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_free_text = map.get("type").is_some_and(|name| name == "string")
                && !["enum", "const", "pattern"].iter().any(|key| map.contains_key(*key));
            if is_free_text {
                map.insert("type".to_owned(), json!(["string", "number"]));
            }
            for (key, inner) in map.iter_mut() {
                if !matches!(key.as_str(), "default" | "examples" | "const" | "enum") {
                    relax(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(relax),
        _ => {}
    }
}

/// Moves a schema's own `$defs` to the root, under the stage's name.
fn hoist(schema: &mut Value, stage: &str, definitions: &mut Map<String, Value>) {
    redirect(schema, stage);
    if let Some(Value::Object(own)) = schema.as_object_mut().and_then(|map| map.remove("$defs")) {
        for (name, definition) in own {
            definitions.insert(format!("{stage}.{name}"), definition);
        }
    }
}

fn redirect(schema: &mut Value, stage: &str) {
    match schema {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::String(path) if key == "$ref" => {
                        if let Some(name) = path.strip_prefix("#/$defs/") {
                            *path = format!("#/$defs/{stage}.{name}");
                        }
                    }
                    inner => redirect(inner, stage),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, stage)),
        _ => {}
    }
}

/// What passes a port, in words.
fn amount(port: &PortSpec) -> String {
    let kind = port.kind.name;
    match port.cardinality {
        Cardinality::Each => format!("`{kind}` of each record"),
        Cardinality::All => format!("`{kind}` of all records"),
        Cardinality::One => format!("one `{kind}`"),
    }
}

/// All stages as Markdown: one line a stage, then an entry for each.
#[must_use]
pub fn stage_catalogue(registry: &Registry) -> String {
    let mut text = "| stage | what it does |\n|---|---|\n".to_owned();
    for stage in registry.iter() {
        let spec = stage.spec();
        line(&mut text, format_args!("| [`{0}`](#{0}) | {1} |", spec.name, cell(spec.summary)));
    }
    for stage in registry.iter() {
        text.push('\n');
        text.push_str(&stage_entry(stage.spec()));
    }
    text
}

/// One stage as Markdown: what it does, ports, parameters.
#[must_use]
pub fn stage_entry(spec: &StageSpec) -> String {
    let mut text = format!("### {}\n\n{}\n", spec.name, spec.summary);
    let traits: Vec<&str> = [
        (spec.per_record(), "runs once per record"),
        (spec.seeded, "draws random numbers from the pipeline's `seed`"),
        (spec.exclusive, "may use every core, so it runs alone"),
    ]
    .into_iter()
    .filter_map(|(on, words)| on.then_some(words))
    .collect();
    if !traits.is_empty() {
        let mut sentence = traits.join("; ");
        sentence[..1].make_ascii_uppercase();
        line(&mut text, format_args!("{sentence}."));
    }
    if !(spec.inputs.is_empty() && spec.outputs.is_empty()) {
        text.push_str("\n| port | passes | |\n|---|---|---|\n");
        for (direction, ports) in [("in", &spec.inputs), ("out", &spec.outputs)] {
            for port in ports {
                let optional = if port.optional { " (optional)" } else { "" };
                let (name, passes, doc) = (port.name, amount(port), cell(port.doc));
                line(&mut text, format_args!("| {direction} `{name}` | {passes}{optional} | {doc} |"));
            }
        }
    }
    let mut rows = Vec::new();
    parameter_rows(&spec.schema, &spec.schema, Some(&spec.defaults), "", 0, &mut rows);
    if rows.is_empty() {
        text.push_str("\nNo parameters.\n");
    } else {
        text.push_str("\n| parameter | takes | default | |\n|---|---|---|---|\n");
        rows.iter().for_each(|row| line(&mut text, format_args!("{row}")));
    }
    text
}

/// All kinds of artifacts as Markdown: what they hold, and what their bytes look like to a program in another language.
#[must_use]
pub fn kind_tables() -> String {
    let mut text = String::new();
    for layout in LAYOUTS {
        let kind = layout.kind;
        let separator = if text.is_empty() { "" } else { "\n" };
        line(&mut text, format_args!("{separator}### {} (version {})\n\n{}\n", kind.name, kind.version, kind.summary));
        if kind.bundle {
            text.push_str("A folder of plain files.\n");
        } else if layout.columns.is_empty() {
            line(&mut text, format_args!("A file `.{}`.", kind.extension));
        } else {
            text.push_str("| column | type | unit | |\n|---|---|---|---|\n");
        }
        for column in layout.columns {
            let null = if column.nullable { " or null" } else { "" };
            let (name, data_type, doc) = (column.name, column.data_type, cell(column.doc));
            line(&mut text, format_args!("| `{name}` | {data_type}{null} | {} | {doc} |", column.unit));
        }
        if !layout.metadata.is_empty() {
            text.push_str("\n| metadata | |\n|---|---|\n");
            for (name, doc) in layout.metadata {
                line(&mut text, format_args!("| `{name}` | {} |", cell(doc)));
            }
        }
    }
    text
}

/// One row a parameter, nested ones by their dotted path.
fn parameter_rows(
    root: &Value,
    schema: &Value,
    defaults: Option<&Value>,
    path: &str,
    depth: usize,
    rows: &mut Vec<String>,
) {
    // A schema may refer to itself; nobody nests parameters deeper.
    if depth > 8 {
        return;
    }
    let objects = schema_alternatives(root, schema);
    tag_rows(&objects, defaults, path, rows);
    for object in objects {
        let tag = object.get("properties").and_then(Value::as_object).into_iter().flatten();
        let tag = tag.filter_map(|(name, property)| Some(format!("`{name}: {}`", property.get("const")?.as_str()?)));
        let tag: Vec<String> = tag.collect();
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if property.get("const").is_some() {
                continue;
            }
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let default = defaults.and_then(|defaults| defaults.get(name)).or_else(|| property.get("default"));
            let alternatives = schema_alternatives(root, property);
            let is_nested = |choice: &&&Value| choice.get("properties").is_some();
            let mut takes: Vec<String> = Vec::new();
            for words in alternatives.iter().map(|choice| takes_words(root, choice)) {
                if !takes.contains(&words) {
                    takes.push(words);
                }
            }
            let has_nested = alternatives.iter().any(|choice| is_nested(&choice));
            let shown = match default {
                Some(default) if !(has_nested && default.is_object()) => format!("`{default}`"),
                _ => String::new(),
            };
            let mut doc = property.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !tag.is_empty() {
                doc = format!("With {}: {doc}", tag.join(", "));
            }
            for choice in &alternatives {
                if let (Some(name), Some(of)) =
                    (choice.get("const").and_then(Value::as_str), choice.get("description").and_then(Value::as_str))
                {
                    doc = format!("{doc} `{name}`: {of}");
                }
            }
            rows.push(format!("| `{inner}` | {} | {} | {} |", takes.join(" or "), cell(&shown), cell(&doc)));
            if has_nested {
                parameter_rows(root, property, default, &inner, depth + 1, rows);
            }
        }
    }
}

/// One row for the property that tells the variants of an enum apart.
fn tag_rows(objects: &[&Value], defaults: Option<&Value>, path: &str, rows: &mut Vec<String>) {
    let mut tags: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for object in objects {
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(value) = property.get("const").and_then(Value::as_str) {
                let doc = object.get("description").and_then(Value::as_str).unwrap_or_default();
                tags.entry(name).or_default().push((value, doc));
            }
        }
    }
    for (name, variants) in tags {
        let inner = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let takes: Vec<String> = variants.iter().map(|(value, _)| format!("`{value}`")).collect();
        let docs: Vec<String> = variants.iter().map(|(value, doc)| format!("`{value}`: {doc}")).collect();
        let default = defaults.and_then(|defaults| defaults.get(name)).map(|default| format!("`{default}`"));
        rows.push(format!(
            "| `{inner}` | {} | {} | {} |",
            takes.join(" or "),
            cell(&default.unwrap_or_default()),
            cell(&docs.join(" "))
        ));
    }
}

fn takes_words(root: &Value, schema: &Value) -> String {
    let is_list = schema.get("type").is_some_and(|name| name == "array");
    match schema.get("items").filter(|_| is_list) {
        Some(items) => {
            let inner = schema_alternatives(root, items).into_iter().map(describe_schema).collect::<Vec<_>>();
            format!("a list of {}", inner.join(" or "))
        }
        None => describe_schema(schema),
    }
}

/// Text that keeps to one cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::plan::test_stages::registry;

    #[test]
    fn the_catalogue_shows_ports_and_parameters() {
        let registry = registry();
        let entry = |name: &str| stage_entry(registry.get(name).expect("the stage exists").spec());
        expect![[r####"
            ### ingest

            Reads records.
            Runs once per record.

            | port | passes | |
            |---|---|---|
            | out `signals` | `signals` of each record | The recording, in mV. |

            | parameter | takes | default | |
            |---|---|---|---|
            | `database` | text | `"mitdb"` | The database; a folder of `data/raw/`. |
            | `leads` | `all` or `first` | `"all"` | Which leads. `all`: Every lead of the record. `first`: The first lead only. |
            | `limit_n` | a whole number of at least 0 or `null` | `null` | Stop after so many records. |
            | `records` | a list of text | `[]` | The records to read, all if empty. |

            ### detect_peaks

            Finds R-peaks.
            Runs once per record.

            | port | passes | |
            |---|---|---|
            | in `signals` | `signals` of each record | The recording to look at. |
            | out `beats` | `beats` of each record | Where the beats are. |

            | parameter | takes | default | |
            |---|---|---|---|
            | `band` | a mapping |  | The band that holds the QRS complex. |
            | `band.high_hz` | a number | `15.0` | Upper edge, in Hz. |
            | `band.low_hz` | a number | `5.0` | Lower edge, in Hz. |
            | `search_back` | `true` or `false` | `false` | Look for missed beats. |
            | `threshold` | a mapping |  | How the threshold is found. |
            | `threshold.method` | `fixed` or `adaptive` | `"adaptive"` | `fixed`: The same everywhere. `adaptive`: Follows the signal. |
            | `threshold.level_mv` | a number |  | With `method: fixed`: In mV. |
            | `threshold.rate` | a number | `0.125` | With `method: adaptive`: How fast, from 0 to 1. |

            ### train

            Trains a classifier.
            Draws random numbers from the pipeline's `seed`; may use every core, so it runs alone.

            | port | passes | |
            |---|---|---|
            | in `windows` | `windows` of all records | All windows. |
            | in `split` | one `split` | The parts. |
            | in `start` | one `model` (optional) | A model to start from. |
            | out `model` | one `model` | The trained model. |
            | out `metrics` | one `metrics` | Loss and accuracy by epoch. |

            No parameters.
        "####]].assert_eq(&[entry("ingest"), entry("detect_peaks"), entry("train")].join("\n"));
        assert!(
            stage_catalogue(&registry).starts_with("| stage | what it does |\n|---|---|\n| [`confused`](#confused) |")
        );
    }

    #[test]
    fn a_file_that_extends_nothing_connects_every_input_that_a_stage_needs() {
        let schema = pipeline_schema(&registry());
        assert_eq!(schema["then"]["properties"]["stages"]["additionalProperties"]["$ref"], "#/$defs/whole_stage");
        let conditions = schema["$defs"]["whole_stage"]["allOf"].as_array().expect("stages need inputs");
        let of = |name: &str| conditions.iter().find(|one| one["if"]["properties"]["uses"]["const"] == name);
        let train = &of("train").expect("it has inputs")["then"];
        assert_eq!(train["properties"]["in"]["required"], json!(["windows", "split"]), "`start` is optional");
        assert_eq!(train["required"], json!(["in"]));
        assert_eq!(of("ingest"), None);
        // A list needs a folder.
        assert_eq!(schema["properties"]["publish"]["additionalProperties"]["$ref"], "#/$defs/output");
    }

    #[test]
    fn the_schema_of_a_stage_hangs_on_uses() {
        let schema = pipeline_schema(&registry());
        if let Ok(path) = std::env::var("ECGPIPE_SCHEMA") {
            std::fs::write(path, schema.to_string()).expect("the schema can be written");
        }
        let definitions = &schema["$defs"];
        expect![[r##"
            {
              "additionalProperties": false,
              "description": "Parameters of `detect_peaks`.",
              "properties": {
                "band": {
                  "$ref": "#/$defs/detect_peaks.Band",
                  "default": {
                    "high_hz": 15.0,
                    "low_hz": 5.0
                  },
                  "description": "The band that holds the QRS complex."
                },
                "search_back": {
                  "default": false,
                  "description": "Look for missed beats.",
                  "type": "boolean"
                },
                "threshold": {
                  "$ref": "#/$defs/detect_peaks.Threshold",
                  "default": {
                    "method": "adaptive",
                    "rate": 0.125
                  },
                  "description": "How the threshold is found."
                }
              },
              "type": [
                "object",
                "null"
              ]
            }"##]]
        .assert_eq(&serde_json::to_string_pretty(&definitions["detect_peaks.with"]).expect("plain data"));
        expect![[r##"
            {
              "additionalProperties": false,
              "properties": {
                "beats": {
                  "$ref": "#/$defs/output",
                  "description": "Where the beats are. Takes `beats` of each record."
                },
                "signals": {
                  "$ref": "#/$defs/output",
                  "description": "The recording to cut from. Takes `signals` of each record."
                }
              },
              "type": "object"
            }"##]]
        .assert_eq(&serde_json::to_string_pretty(&definitions["window.in"]).expect("plain data"));
        assert_eq!(definitions["ingest.with"]["properties"]["records"]["items"]["type"], json!(["string", "number"]));
    }

    #[test]
    fn every_reference_of_the_schema_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, inner)| match inner {
                    Value::String(path) if key == "$ref" => found.push(path.clone()),
                    inner => references(inner, found),
                }),
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let schema = pipeline_schema(&registry());
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 20);
        for path in found {
            assert!(schema.pointer(path.trim_start_matches('#')).is_some(), "{path}");
        }
    }

    #[test]
    fn generated_texts_are_stable() {
        assert_eq!(pipeline_schema(&registry()).to_string(), pipeline_schema(&registry()).to_string());
        assert_eq!(stage_catalogue(&registry()), stage_catalogue(&registry()));
        // With no stages there is still a schema, and its `allOf` is not the forbidden empty list.
        let empty = pipeline_schema(&Registry::new());
        assert!(empty["$defs"]["stage"].get("allOf").is_none());
    }
}
