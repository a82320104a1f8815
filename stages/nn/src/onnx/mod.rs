//! ONNX files: writing one from a [`Model`], and reading what one says about itself without any engine.
//!
//! The contract of every file written here:
//! - input `window` `(batch, 1, window_n)`, `f32`, each window normalised to `[0, 1]`: all that stock ONNX Runtime
//!   needs;
//! - input `features` `(feature_batch, feature_n + 1)`, `f32`, optional (where the model has features): the
//!   features in natural units, and in the last column 1 where they are known and 0 where they are not (the others
//!   are then not used, but must be finite). It is an initializer as well, one row of zeros, which means "not known"
//!   for the whole batch; `feature_batch` is 1 or `batch`;
//! - output `probabilities` `(batch, class_n)`, rows that sum to 1;
//! - metadata: the caller's, [`FORMAT_KEY`] and [`SIGNATURE_KEY`].
//!
//! All preprocessing beyond the window's normalisation is inside the graph. Opset 17 and IR version 8 (ONNX 1.12,
//! 2022) are the newest that both engines of [`crate::inference`] fully cover.
//!
//! Invariants: the same model and metadata give the same bytes (`the_same_model_gives_the_same_bytes`); bytes that
//! were not written here are refused with a reason before an engine sees them (`hostile_bytes_are_errors`).

use std::collections::BTreeMap;

use prost::Message;

use crate::baseline::LogisticConfig;
use crate::model::{Architecture, EnsembleConfig, FEATURE_LIMIT_DEVIATIONS, Model, ModelError, Signature};
use crate::network::{NetworkConfig, WindowUse};

#[expect(unreachable_pub, clippy::all, reason = "a generated file")]
#[rustfmt::skip]
pub(crate) mod proto;

use proto::attribute_proto::AttributeType;
use proto::tensor_proto::{DataLocation, DataType};
use proto::tensor_shape_proto::{Dimension, dimension};
use proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Metadata key of the number of the contract above.
pub const FORMAT_KEY: &str = "ecgpipe.onnx_format";
/// Metadata key of the [`Signature`], as JSON.
pub const SIGNATURE_KEY: &str = "ecgpipe.signature";
/// The contract's number. A reader refuses any other: a new number means a new contract.
pub const FORMAT: &str = "2";
/// Name of the window input.
pub const WINDOW_INPUT: &str = "window";
/// Name of the optional input of features.
pub const FEATURES_INPUT: &str = "features";
/// Name of the output.
pub const PROBABILITIES_OUTPUT: &str = "probabilities";

const OPSET_VERSION: i64 = 17;
const IR_VERSION: i64 = 8;
/// The operators that this crate writes, and so the only ones that it reads.
const OPERATORS: [&str; 14] = [
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Flatten",
    "Gemm",
    "MatMul",
    "Mul",
    "Relu",
    "Slice",
    "Softmax",
    "Sub",
];
/// Larger numbers in an attribute (a kernel, a stride, an axis) are not from here.
const ATTRIBUTE_MAX: i64 = 1 << 16;

/// Writes a model and its metadata as an ONNX file.
///
/// # Errors
/// When the model's tensors are not those of its architecture, or the metadata has a key that is reserved.
pub fn export(model: &Model, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, OnnxError> {
    model.check()?;
    let signature = model.signature();
    let mut metadata = metadata.clone();
    let signature_json =
        serde_json::to_string(signature).map_err(|error| OnnxError::Signature { text: error.to_string() })?;
    for (key, value) in [(FORMAT_KEY, FORMAT.to_owned()), (SIGNATURE_KEY, signature_json)] {
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(OnnxError::ReservedKey { key: key.to_owned() });
        }
    }

    let mut graph = GraphBuilder::default();
    let logits = match &model.architecture {
        Architecture::Network(config) => {
            let inputs = Known::of(&mut graph, &config.signature);
            let fused = network_graph(&mut graph, model, config, "", inputs.as_ref())?;
            graph.dense("class", &fused, model)
        }
        Architecture::Ensemble(config) => ensemble_graph(&mut graph, model, config)?,
        Architecture::Logistic(config) => logistic_graph(&mut graph, model, config),
    };
    graph.node("Softmax", &[&logits], PROBABILITIES_OUTPUT, vec![int("axis", 1)]);

    let (window_n, feature_n) = (signature.window_n, signature.feature_n());
    let window_text = format!("{window_n} samples around the R peak, normalised to [0, 1]");
    let window_shape = vec![named("batch"), fixed(1), fixed(window_n)];
    let mut input = vec![value_info(WINDOW_INPUT, window_shape, &window_text)];
    if feature_n > 0 {
        let names = signature.feature_names.join(", ");
        let text = format!("optional: {names}; last column: 1 where they are known, else 0");
        input.push(value_info(FEATURES_INPUT, vec![named("feature_batch"), fixed(feature_n + 1)], &text));
        graph.initializers.push(floats(FEATURES_INPUT, &[1, feature_n + 1], vec![0.0; feature_n + 1]));
    }
    let output_shape = vec![named("batch"), fixed(signature.class_n())];
    let output_text = format!("probabilities of the classes {}", signature.class_names.join(", "));
    let proto = ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET_VERSION) }],
        producer_name: Some("ecgpipe".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(GraphProto {
            name: Some("ecgpipe".to_owned()),
            node: graph.nodes,
            initializer: graph.initializers,
            input,
            output: vec![value_info(PROBABILITIES_OUTPUT, output_shape, &output_text)],
            ..GraphProto::default()
        }),
        metadata_props: metadata
            .into_iter()
            .map(|(key, value)| StringStringEntryProto { key: Some(key), value: Some(value) })
            .collect(),
        ..ModelProto::default()
    };
    Ok(proto.encode_to_vec())
}

/// The metadata of a file that [`export`] wrote, the reserved keys included.
///
/// # Errors
/// Says why the bytes are not such a file.
pub fn read_metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, OnnxError> {
    Ok(File::read(bytes)?.metadata)
}

/// What the model in a file takes and gives.
///
/// # Errors
/// Says why the bytes are not a file that [`export`] wrote.
pub fn read_signature(bytes: &[u8]) -> Result<Signature, OnnxError> {
    Ok(File::read(bytes)?.signature)
}

/// A file that keeps the contract.
pub(crate) struct File {
    pub(crate) proto: ModelProto,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) signature: Signature,
}

impl File {
    /// Decodes and checks.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, OnnxError> {
        let proto = ModelProto::decode(bytes).map_err(|source| OnnxError::NotOnnx { byte_n: bytes.len(), source })?;
        if proto.graph.is_none() || proto.ir_version.is_none() {
            return Err(OnnxError::NoGraph { byte_n: bytes.len() });
        }
        let mut metadata = BTreeMap::new();
        for entry in &proto.metadata_props {
            let key = entry.key().to_owned();
            if metadata.insert(key.clone(), entry.value().to_owned()).is_some() {
                return Err(OnnxError::Contract { text: format!("the metadata key `{key}` stands twice") });
            }
        }
        let Some(format) = metadata.get(FORMAT_KEY) else {
            return Err(OnnxError::NotOurs { producer: proto.producer_name().to_owned() });
        };
        if format != FORMAT {
            return Err(OnnxError::Format { found: format.clone() });
        }
        let json = metadata.get(SIGNATURE_KEY).map_or("", String::as_str);
        let signature: Signature =
            serde_json::from_str(json).map_err(|error| OnnxError::Signature { text: error.to_string() })?;
        check_graph(&proto, &signature).map_err(|text| OnnxError::Contract { text })?;
        Ok(Self { proto, metadata, signature })
    }
}

/// Refuses what this crate never writes, so that an engine never parses it: other operators, files beside the file,
/// nested graphs, tensors whose size is not what they hold, inputs and outputs of other names or shapes.
fn check_graph(proto: &ModelProto, signature: &Signature) -> Result<(), String> {
    let graph = proto.graph.as_ref().ok_or("there is no graph")?;
    if !proto.functions.is_empty() || !proto.training_info.is_empty() || !graph.sparse_initializer.is_empty() {
        return Err("it holds functions, training information or sparse tensors".to_owned());
    }
    let opsets: Vec<_> = proto.opset_import.iter().map(|opset| (opset.domain(), opset.version())).collect();
    if opsets != [("", OPSET_VERSION)] {
        return Err(format!("its operator sets are {opsets:?}, not version {OPSET_VERSION}"));
    }
    for node in &graph.node {
        let name = node.op_type();
        if !OPERATORS.contains(&name) || !node.domain().is_empty() {
            return Err(format!("it has the operator `{name}`, which no model of ecgpipe has"));
        }
        for attribute in &node.attribute {
            let ints = attribute.ints.iter().chain(attribute.i.as_ref());
            let strange = ints.clone().any(|value| value.unsigned_abs() > ATTRIBUTE_MAX as u64)
                || (attribute.name().ends_with("s") && name == "Conv" && attribute.ints.iter().any(|value| *value < 0))
                || (["strides", "kernel_shape"].contains(&attribute.name()) && attribute.ints.iter().any(|v| *v < 1));
            if strange || attribute.g.is_some() || attribute.t.is_some() || !attribute.graphs.is_empty() {
                return Err(format!("attribute `{}` of an operator `{name}` is out of range", attribute.name()));
            }
        }
    }
    for tensor in &graph.initializer {
        let size = tensor.dims.iter().try_fold(1_usize, |size, dim| size.checked_mul(usize::try_from(*dim).ok()?));
        let width = match tensor.data_type() {
            value if value == DataType::Float as i32 => 4,
            value if value == DataType::Int64 as i32 => 8,
            other => return Err(format!("tensor `{}` has the data type {other}", tensor.name())),
        };
        let outside = tensor.data_location() != DataLocation::Default || !tensor.external_data.is_empty();
        if outside
            || tensor.segment.is_some()
            || size.and_then(|size| size.checked_mul(width)) != Some(tensor.raw_data().len())
        {
            return Err(format!("tensor `{}` does not hold what its shape {:?} says", tensor.name(), tensor.dims));
        }
    }
    let shape = |values: &[ValueInfoProto]| -> Vec<(String, Vec<Option<i64>>)> {
        values.iter().map(|value| (value.name().to_owned(), dimensions(value))).collect()
    };
    let size = |n: usize| i64::try_from(n).ok();
    let mut inputs = vec![(WINDOW_INPUT.to_owned(), vec![None, Some(1), size(signature.window_n)])];
    if signature.feature_n() > 0 {
        inputs.push((FEATURES_INPUT.to_owned(), vec![None, size(signature.feature_n() + 1)]));
    }
    let outputs = vec![(PROBABILITIES_OUTPUT.to_owned(), vec![None, size(signature.class_n())])];
    for (what, expected, found) in [("inputs", inputs, shape(&graph.input)), ("outputs", outputs, shape(&graph.output))]
    {
        if expected != found {
            return Err(format!("its {what} are {found:?}, not {expected:?}"));
        }
    }
    Ok(())
}

/// The dimensions of an `f32` tensor; `None` for one that is named.
fn dimensions(value: &ValueInfoProto) -> Vec<Option<i64>> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Vec::new();
    };
    if tensor.elem_type() != DataType::Float as i32 {
        return Vec::new();
    }
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    dims.map(|dim| match &dim.value {
        Some(dimension::Value::DimValue(n)) => Some(*n),
        _ => None,
    })
    .collect()
}

/// Writes all networks of an ensemble up to the mean of their logits and gives its name. The mean is one layer: their last
/// activations side by side, times their last weights one under another, divided by their number.
fn ensemble_graph(graph: &mut GraphBuilder, model: &Model, config: &EnsembleConfig) -> Result<String, ModelError> {
    let inputs = Known::of(graph, &config.member.signature);
    let (mut fused, mut weights) = (Vec::new(), Vec::new());
    let mut bias = vec![0.0_f64; model.signature().class_n()];
    for prefix in config.prefixes() {
        fused.push(network_graph(graph, model, &config.member, &prefix, inputs.as_ref())?);
        weights.extend_from_slice(model.values(&format!("{prefix}class.weight")));
        let own = model.values(&format!("{prefix}class.bias"));
        bias.iter_mut().zip(own).for_each(|(sum, own)| *sum += f64::from(*own));
    }
    let mean = |sum: f64| (sum / config.member_n as f64) as f32;
    weights.iter_mut().for_each(|weight| *weight = mean(f64::from(*weight)));
    let class_n = bias.len();
    graph.initializers.push(floats("class.weight", &[weights.len() / class_n, class_n], weights));
    graph.initializers.push(floats("class.bias", &[class_n], bias.into_iter().map(mean).collect()));
    let fused: Vec<&str> = fused.iter().map(String::as_str).collect();
    let fused = graph.node("Concat", &fused, "fused.all", vec![int("axis", 1)]);
    Ok(graph.node("Gemm", &[&fused, "class.weight", "class.bias"], "class.sum", Vec::new()))
}

/// Writes one network up to the activations before its logits and gives their name. The names of its tensors and nodes begin
/// with `prefix`; `inputs` are features and whether they are known, if it takes any.
fn network_graph(
    graph: &mut GraphBuilder,
    model: &Model,
    config: &NetworkConfig,
    prefix: &str,
    inputs: Option<&Known>,
) -> Result<String, ModelError> {
    let full = |name: &str| format!("{prefix}{name}");
    let positions = config.positions()?;
    let mut below = WINDOW_INPUT.to_owned();
    let mut channel_n = 1;
    for (idx, convolution) in config.convolutions.iter().enumerate() {
        let name = full(&format!("convolution{idx}"));
        let (kernel_n, out_n) = (convolution.kernel_n, convolution.channel_n);
        // burn: [(k, c), out]; ONNX: [out, c, k].
        let weight = model.values(&format!("{name}.weight"));
        let mut bias = model.values(&format!("{name}.bias")).to_vec();
        let mut kernel = vec![0.0; weight.len()];
        for out in 0..out_n {
            for channel in 0..channel_n {
                for k in 0..kernel_n {
                    kernel[(out * channel_n + channel) * kernel_n + k] =
                        weight[(k * channel_n + channel) * out_n + out];
                }
            }
        }
        if idx == 0 {
            // The window's standardisation (x - mean) / deviation is folded into the first convolution.
            let mean = f64::from(model.values(&full("scaling.window_mean"))[0]);
            let deviation = f64::from(model.values(&full("scaling.window_deviation"))[0]);
            for (out, bias) in bias.iter_mut().enumerate() {
                let row = &mut kernel[out * kernel_n..][..kernel_n];
                let sum: f64 = row.iter().map(|value| f64::from(*value)).sum();
                *bias = (f64::from(*bias) - sum * mean / deviation) as f32;
                row.iter_mut().for_each(|value| *value = (f64::from(*value) / deviation) as f32);
            }
        }
        graph.initializers.push(floats(&format!("{name}.weight"), &[out_n, channel_n, kernel_n], kernel));
        graph.initializers.push(floats(&format!("{name}.bias"), &[out_n], bias));
        let inputs = [below.as_str(), &format!("{name}.weight"), &format!("{name}.bias")];
        let attributes = vec![
            ints("dilations", &[1]),
            int("group", 1),
            ints("kernel_shape", &[kernel_n]),
            ints("pads", &[0, 0]),
            ints("strides", &[convolution.stride_n]),
        ];
        let sum = graph.node("Conv", &inputs, &format!("{name}.sum"), attributes);
        below = graph.node("Relu", &[&sum], &format!("{name}.relu"), Vec::new());
        channel_n = out_n;
    }
    let flat = graph.node("Flatten", &[&below], &full("flat"), vec![int("axis", 1)]);
    // burn flattens (position, channel), ONNX (channel, position).
    let weight = model.values(&full("window.weight"));
    let (hidden_n, position_n) = (config.hidden_n, positions.last().copied().unwrap_or(0));
    let mut permuted = Vec::with_capacity(weight.len());
    for channel in 0..channel_n {
        for position in 0..position_n {
            permuted.extend_from_slice(&weight[(position * channel_n + channel) * hidden_n..][..hidden_n]);
        }
    }
    let mut hidden = graph.gemm(&full("window"), &flat, &[weight.len() / hidden_n, hidden_n], permuted, model);
    if let Some(Known { features, present, absent }) = inputs {
        let features = limited(graph, model, prefix, features);
        let branch = graph.dense(&full("feature_hidden"), &features, model);
        let branch = graph.node("Relu", &[&branch], &full("feature_hidden.relu"), Vec::new());
        let branch = graph.dense(&full("features"), &branch, model);
        let branch = graph.node("Mul", &[&branch, present], &full("features.masked"), Vec::new());
        if config.window_use == WindowUse::WithoutFeatures {
            hidden = graph.node("Mul", &[&hidden, absent], &full("window.masked"), Vec::new());
        }
        hidden = graph.node("Add", &[&hidden, &branch], &full("hidden"), Vec::new());
    }
    let hidden = graph.node("Relu", &[&hidden], &full("hidden.relu"), Vec::new());
    let fused = graph.dense(&full("fused"), &hidden, model);
    Ok(graph.node("Relu", &[&fused], &full("fused.relu"), Vec::new()))
}

/// Writes the logistic regression up to its logits and gives their name.
fn logistic_graph(graph: &mut GraphBuilder, model: &Model, config: &LogisticConfig) -> String {
    let pooling =
        vec![ints("kernel_shape", &[config.pool_n]), ints("pads", &[0, 0]), ints("strides", &[config.pool_n])];
    let pooled = graph.node("AveragePool", &[WINDOW_INPUT], "pooled", pooling);
    let flat = graph.node("Flatten", &[&pooled], "flat", vec![int("axis", 1)]);
    let standardised = standardised(graph, model, "", "window", &flat);
    for name in ["window.weight", "class.bias"] {
        graph.tensor(model, name);
    }
    let logits = graph.node("Gemm", &[&standardised, "window.weight", "class.bias"], "window.logits", Vec::new());
    let Some((features, present)) = feature_inputs(graph, &config.signature) else { return logits };
    let features = limited(graph, model, "", &features);
    graph.tensor(model, "features.weight");
    let branch = graph.node("MatMul", &[&features, "features.weight"], "features.logits", Vec::new());
    let branch = graph.node("Mul", &[&branch, &present], "features.masked", Vec::new());
    graph.node("Add", &[&logits, &branch], "logits", Vec::new())
}

/// The names of what a network takes of the input of features.
struct Known {
    /// The features.
    features: String,
    /// 1 where they are known, else 0.
    present: String,
    /// 0 where they are known, else 1.
    absent: String,
}

impl Known {
    /// Writes them, where a model takes features.
    fn of(graph: &mut GraphBuilder, signature: &Signature) -> Option<Self> {
        let (features, present) = feature_inputs(graph, signature)?;
        graph.initializers.push(floats("features.one", &[], vec![1.0]));
        let absent = graph.node("Sub", &["features.one", &present], "features.absent", Vec::new());
        Some(Self { features, present, absent })
    }
}

/// Splits the input of features in features and the column that says whether they are known; nothing where a model takes
/// none.
fn feature_inputs(graph: &mut GraphBuilder, signature: &Signature) -> Option<(String, String)> {
    let feature_n = signature.feature_n();
    if feature_n == 0 {
        return None;
    }
    let bounds = [("start", 0), ("split", feature_n), ("end", feature_n + 1), ("axis", 1)];
    for (name, value) in bounds {
        graph.initializers.push(integers(&format!("features.{name}"), &[value]));
    }
    let features = graph.node(
        "Slice",
        &[FEATURES_INPUT, "features.start", "features.split", "features.axis"],
        "features.values",
        Vec::new(),
    );
    let present = graph.node(
        "Slice",
        &[FEATURES_INPUT, "features.split", "features.end", "features.axis"],
        "features.present",
        Vec::new(),
    );
    graph.initializers.push(floats("features.lowest", &[], vec![-FEATURE_LIMIT_DEVIATIONS]));
    graph.initializers.push(floats("features.highest", &[], vec![FEATURE_LIMIT_DEVIATIONS]));
    Some((features, present))
}

/// Writes features in standard deviations, within their limits.
fn limited(graph: &mut GraphBuilder, model: &Model, prefix: &str, features: &str) -> String {
    let features = standardised(graph, model, prefix, "feature", features);
    let name = format!("{prefix}features.limited");
    graph.node("Clip", &[&features, "features.lowest", "features.highest"], &name, Vec::new())
}

/// Writes `(input - scaling.{name}_mean) / scaling.{name}_deviation`, names with `prefix` in front.
fn standardised(graph: &mut GraphBuilder, model: &Model, prefix: &str, name: &str, input: &str) -> String {
    let (mean, deviation) = (format!("{prefix}scaling.{name}_mean"), format!("{prefix}scaling.{name}_deviation"));
    graph.tensor(model, &mean);
    graph.tensor(model, &deviation);
    let centred = graph.node("Sub", &[input, &mean], &format!("{prefix}{name}.centred"), Vec::new());
    graph.node("Div", &[&centred, &deviation], &format!("{prefix}{name}.standardised"), Vec::new())
}

/// Nodes and constants in the order of writing.
#[derive(Default)]
struct GraphBuilder {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl GraphBuilder {
    /// Adds a node with one output, which it is named after.
    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> String {
        self.nodes.push(NodeProto {
            name: Some(output.to_owned()),
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
        output.to_owned()
    }

    /// Adds a tensor of the model as it is.
    fn tensor(&mut self, model: &Model, name: &str) {
        let shape = &model.tensors[name].shape;
        self.initializers.push(floats(name, shape, model.values(name).to_vec()));
    }

    /// Adds a dense layer with the model's own weights; burn's `[in, out]` is what Gemm takes.
    fn dense(&mut self, name: &str, input: &str, model: &Model) -> String {
        let weight = &model.tensors[&format!("{name}.weight")];
        self.gemm(name, input, &weight.shape, weight.values.clone(), model)
    }

    /// Adds a dense layer with the given weights and the model's own bias.
    fn gemm(&mut self, name: &str, input: &str, shape: &[usize], weight: Vec<f32>, model: &Model) -> String {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        self.initializers.push(floats(&weight_name, shape, weight));
        self.tensor(model, &bias_name);
        // Not `name` itself: the inputs have the names of two layers.
        self.node("Gemm", &[input, &weight_name, &bias_name], &format!("{name}.sum"), Vec::new())
    }
}

fn floats(name: &str, shape: &[usize], values: Vec<f32>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: shape.iter().map(|n| *n as i64).collect(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}

fn integers(name: &str, values: &[usize]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        raw_data: Some(values.iter().flat_map(|value| (*value as i64).to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.iter().map(|value| *value as i64).collect(),
        ..AttributeProto::default()
    }
}

fn named(name: &str) -> Dimension {
    Dimension { value: Some(dimension::Value::DimParam(name.to_owned())), ..Dimension::default() }
}

fn fixed(n: usize) -> Dimension {
    Dimension { value: Some(dimension::Value::DimValue(n as i64)), ..Dimension::default() }
}

fn value_info(name: &str, dim: Vec<Dimension>, text: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        doc_string: Some(text.to_owned()),
        ..ValueInfoProto::default()
    }
}

/// Why a file could not be written or is not a file of ours.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The model is not usable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The caller's metadata has a reserved key.
    #[error("the metadata key `{key}` is reserved; choose another name")]
    ReservedKey {
        /// The key.
        key: String,
    },
    /// The bytes are not ONNX.
    #[error("the {byte_n} bytes are not an ONNX file: {source}")]
    NotOnnx {
        /// How many bytes were given.
        byte_n: usize,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// The bytes decode, but hold no graph.
    #[error("the {byte_n} bytes are not an ONNX file: they hold no graph")]
    NoGraph {
        /// How many bytes were given.
        byte_n: usize,
    },
    /// The file was not written by this crate.
    #[error(
        "the ONNX file (producer `{producer}`) has no metadata `{FORMAT_KEY}`, so ecgpipe did not write it; \
         export the model with ecgpipe"
    )]
    NotOurs {
        /// Who wrote it, as the file says.
        producer: String,
    },
    /// The file keeps another contract.
    #[error(
        "the ONNX file has the format {found}; this version of ecgpipe reads format {FORMAT}: export the model again"
    )]
    Format {
        /// Its format.
        found: String,
    },
    /// The signature in the metadata cannot be read.
    #[error("the metadata `{SIGNATURE_KEY}` cannot be read: {text}")]
    Signature {
        /// What the JSON decoder said.
        text: String,
    },
    /// The file says that it keeps the contract, but does not.
    #[error("the ONNX file is damaged or was changed: {text}")]
    Contract {
        /// What is wrong.
        text: String,
    },
}
