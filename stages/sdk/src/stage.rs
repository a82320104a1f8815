//! Owns the [`Stage`] trait that method developers implement, and [`ErasedStage`], the same thing as data for engines.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    context::{Context, SourceContext, SourceRecord},
    error::StageError,
    ports::{Cardinality, PortSpec, PortValues, Ports},
};

/// A step of a pipeline: a pure function of its parameters, its inputs and (where declared) a seed.
///
/// There is no `self`: all that a stage knows is in its arguments.
pub trait Stage: Sized + Send + Sync + 'static {
    /// The name in pipelines; also the name of the file that holds the stage.
    const NAME: &'static str;
    /// One sentence for the catalogue.
    const SUMMARY: &'static str;
    /// Whether it draws random numbers; only then is the pipeline's seed part of its key.
    const SEEDED: bool = false;
    /// Whether one job may use every core (training); such jobs run alone.
    const EXCLUSIVE: bool = false;
    /// Parameters. Doc comments are the manual; `Default` is the only place for defaults.
    type Params: Serialize + DeserializeOwned + JsonSchema + Default + Send + Sync;
    /// What it takes.
    type Inputs: Ports;
    /// What it gives.
    type Outputs: Ports;

    /// Checks what the types cannot (ranges, combinations); run before anything starts.
    ///
    /// # Errors
    /// A sentence for the user: which parameter, what is allowed.
    fn check(_params: &Self::Params) -> Result<(), String> {
        Ok(())
    }

    /// For a source (per-record outputs without a per-record input): the records that it gives, cheaply.
    ///
    /// # Errors
    /// If the records cannot be found.
    fn sources(_params: &Self::Params, _cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        Ok(Vec::new())
    }

    /// Does the work.
    ///
    /// # Errors
    /// What is wrong with the input, where, and what to do about it.
    fn run(params: &Self::Params, inputs: Self::Inputs, cx: &Context<'_>) -> Result<Self::Outputs, StageError>;
}

/// A stage as data.
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// [`Stage::NAME`].
    pub name: &'static str,
    /// [`Stage::SUMMARY`].
    pub summary: &'static str,
    /// [`Stage::SEEDED`].
    pub seeded: bool,
    /// [`Stage::EXCLUSIVE`].
    pub exclusive: bool,
    /// Input ports.
    pub inputs: Vec<PortSpec>,
    /// Output ports.
    pub outputs: Vec<PortSpec>,
    /// Default parameters as a JSON object.
    pub defaults: Value,
    /// JSON schema of the parameters.
    pub schema: Value,
    /// Identity of the code that computes the result: a digest over its sources and deciding libraries, hex.
    pub code: String,
}

impl StageSpec {
    /// Whether it runs once per record.
    #[must_use]
    pub fn per_record(&self) -> bool {
        self.outputs.iter().any(|port| port.cardinality == Cardinality::Each)
    }
}

/// Parameters that were checked and completed with defaults, in a canonical form.
///
/// Only [`ErasedStage::bind`] makes one, so that it is always valid for its stage.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundParams(Value);

impl BoundParams {
    /// For [`ErasedStage::bind`] of a stage that is no [`Stage`] (a plugin) alone: it vouches that `params` is an object
    /// with every parameter, each valid and in its one canonical form (a number never once as `1` and once as `1.0`).
    #[must_use]
    pub fn checked(params: Value) -> Self {
        Self(params)
    }

    /// The parameters as a JSON object with every parameter present.
    #[must_use]
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Every leaf as (dotted path, canonical text), sorted by path: for keys, explanations and trackers.
    #[must_use]
    pub fn flattened(&self) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        flatten("", &self.0, &mut leaves);
        leaves.sort();
        leaves
    }
}

/// A parameter that a stage does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Dotted path of the parameter inside `with:`, empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// A stage whose types were erased: what an engine works with.
pub trait ErasedStage: Send + Sync {
    /// The stage as data.
    fn spec(&self) -> &StageSpec;
    /// Checks parameters and fills in defaults.
    ///
    /// # Errors
    /// The first parameter at fault, by path.
    fn bind(&self, params: &Value) -> Result<BoundParams, ParamError>;
    /// [`Stage::sources`].
    ///
    /// # Errors
    /// As the stage's own.
    fn sources(&self, params: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError>;
    /// [`Stage::run`].
    ///
    /// # Errors
    /// As the stage's own; also if the inputs do not fit the ports.
    fn run(&self, params: &BoundParams, inputs: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError>;
}

/// Erases a stage's types. `code` is the identity of its code, hex.
#[must_use]
pub fn erase<S: Stage>(code: &str) -> Box<dyn ErasedStage> {
    let defaults = serde_json::to_value(S::Params::default()).expect("default parameters are plain data");
    let schema = schemars::schema_for!(S::Params).to_value();
    let spec = StageSpec {
        name: S::NAME,
        summary: S::SUMMARY,
        seeded: S::SEEDED,
        exclusive: S::EXCLUSIVE,
        inputs: S::Inputs::specs(),
        outputs: S::Outputs::specs(),
        defaults,
        schema,
        code: code.to_owned(),
    };
    Box::new(Erased::<S> { spec, stage: PhantomData })
}

struct Erased<S> {
    spec: StageSpec,
    stage: PhantomData<fn() -> S>,
}

impl<S: Stage> Erased<S> {
    fn typed(params: &BoundParams) -> Result<S::Params, StageError> {
        serde_json::from_value(params.0.clone())
            .map_err(|error| StageError::new(format!("bound parameters of `{}` do not fit: {error}", S::NAME)))
    }
}

impl<S: Stage> ErasedStage for Erased<S> {
    fn spec(&self) -> &StageSpec {
        &self.spec
    }

    fn bind(&self, params: &Value) -> Result<BoundParams, ParamError> {
        let merged = merge(&self.spec.defaults, params);
        let typed: S::Params = serde_path_to_error::deserialize(&merged).map_err(|error| ParamError {
            path: error.path().to_string().trim_start_matches('.').to_owned(),
            message: error.inner().to_string(),
        })?;
        S::check(&typed).map_err(|message| {
            // A check names its parameter first in backticks by custom; the path lets the engine point at the line.
            let named = message.split('`').nth(1).unwrap_or_default().to_owned();
            let path = if self.spec.defaults.get(named.split('.').next().unwrap_or_default()).is_some() {
                named
            } else {
                String::new()
            };
            ParamError { path, message }
        })?;
        let canonical = serde_json::to_value(&typed)
            .map_err(|error| ParamError { path: String::new(), message: error.to_string() })?;
        Ok(BoundParams(canonical))
    }

    fn sources(&self, params: &BoundParams, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        S::sources(&Self::typed(params)?, cx)
    }

    fn run(&self, params: &BoundParams, inputs: PortValues, cx: &Context<'_>) -> Result<PortValues, StageError> {
        let params = Self::typed(params)?;
        let inputs = S::Inputs::take(inputs)?;
        Ok(S::run(&params, inputs, cx)?.give())
    }
}

/// Objects merge key by key, everything else is replaced.
fn merge(defaults: &Value, params: &Value) -> Value {
    match (defaults, params) {
        (_, Value::Null) => defaults.clone(),
        (Value::Object(defaults), Value::Object(params)) => {
            let mut merged = defaults.clone();
            for (name, value) in params {
                let inner = defaults.get(name).map_or_else(
                    || value.clone(),
                    |default| match (default, value) {
                        (Value::Object(_), Value::Object(_)) => merge(default, value),
                        _ => value.clone(),
                    },
                );
                merged.insert(name.clone(), inner);
            }
            Value::Object(merged)
        }
        _ => params.clone(),
    }
}

fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                flatten(&child(name), value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (idx, value) in items.iter().enumerate() {
                flatten(&child(&idx.to_string()), value, leaves);
            }
        }
        // A text that reads as another JSON value stays in quotes, so that "null" and null never share a key.
        Value::String(text) if serde_json::from_str::<Value>(text).is_err() => {
            leaves.push((path.to_owned(), text.clone()))
        }
        other => leaves.push((path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging_keeps_defaults_beside_given_values() {
        let defaults = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        assert_eq!(
            merge(&defaults, &json!({"b": {"d": 4}, "e": [9]})),
            json!({"a": 1, "b": {"c": 2, "d": 4}, "e": [9]})
        );
        assert_eq!(merge(&defaults, &Value::Null), defaults);
    }

    #[test]
    fn flattening_is_sorted_and_keeps_lists_of_plain_values_whole() {
        let params = BoundParams(json!({"z": true, "a": {"y": [1, 2], "x": "text"}}));
        let leaves: Vec<String> =
            params.flattened().into_iter().map(|(path, value)| format!("{path}={value}")).collect();
        assert_eq!(leaves, ["a.x=text", "a.y=[1,2]", "z=true"]);
    }
}
