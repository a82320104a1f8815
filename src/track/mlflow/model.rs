//! The files of an MLflow model, written by hand around an ONNX file.
//!
//! They load with `mlflow.onnx.load_model` and `mlflow.pyfunc.load_model` (checked against MLflow 3.17.2 by
//! `tests/mlflow.rs`). Times and digests come from the run, so the same model gives the same files.

use super::names::utc_text;
use super::spool::{LoggedModel, TensorSpec};
use super::wire::{TensorColumn, WireTensor};

/// Name of the model file inside the model.
pub(super) const ONNX_FILE: &str = "model.onnx";
/// What stands in for the Python of whoever loads the model; MLflow only warns when it differs.
const PYTHON_VERSION: &str = "3.11.0";

/// Where a model belongs.
pub(super) struct Place<'a> {
    pub(super) run_id: &'a str,
    pub(super) model_id: &'a str,
    pub(super) run_uuid: &'a str,
    pub(super) mlflow_version: &'a str,
    pub(super) size_bytes: u64,
}

/// All files of the model except the ONNX file: name and content. `MLmodel` comes last, because it makes the rest a model.
pub(super) fn files(model: &LoggedModel, place: &Place<'_>) -> Vec<(&'static str, String)> {
    let requirements = format!("mlflow\nonnx>={}\nonnxruntime\nnumpy\n", model.onnx_version);
    let python_env =
        format!("python: {PYTHON_VERSION}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n");
    let conda = format!(
        "channels:\n- conda-forge\ndependencies:\n- python={PYTHON_VERSION}\n- pip\n- pip:\n  - mlflow\n  - onnx>={}\n  - \
         onnxruntime\n  - numpy\nname: mlflow-env\n",
        model.onnx_version
    );
    let mut files = vec![("requirements.txt", requirements), ("python_env.yaml", python_env), ("conda.yaml", conda)];
    if let Some(example) = &model.input_example {
        let input = model.inputs.first().filter(|input| !input.name.is_empty());
        let example =
            input.map_or_else(|| example.clone(), |input| serde_json::json!({ input.name.as_str(): example }));
        files.push(("input_example.json", example.to_string()));
        files.push(("serving_input_example.json", serde_json::json!({ "inputs": example }).to_string()));
    }
    files.push(("MLmodel", mlmodel(model, place)));
    files
}

/// A list of tensors as MLflow writes it in signatures and dataset schemas.
pub(super) fn tensor_columns(tensors: &[TensorSpec], named: bool) -> String {
    let columns = tensors.iter().map(|tensor| TensorColumn {
        name: (named && !tensor.name.is_empty()).then_some(tensor.name.as_str()),
        kind: "tensor",
        tensor_spec: WireTensor { dtype: &tensor.dtype, shape: &tensor.shape },
    });
    serde_json::to_string(&columns.collect::<Vec<_>>()).expect("columns are plain data with text keys")
}

fn mlmodel(model: &LoggedModel, place: &Place<'_>) -> String {
    let example = if model.input_example.is_some() {
        "saved_input_example_info:\n  artifact_path: input_example.json\n  format: tf-serving\n  serving_input_path: \
         serving_input_example.json\n  type: ndarray\n"
    } else {
        ""
    };
    // The model's uuid is the server's id for it: nothing here may be drawn at random.
    let uuid = place.model_id.trim_start_matches("m-");
    format!(
        "artifact_path: {artifact_path}\n\
         flavors:\n  \
           onnx:\n    \
             code: null\n    \
             data: {ONNX_FILE}\n    \
             onnx_version: {onnx_version}\n    \
             providers:\n    \
             - CPUExecutionProvider\n  \
           python_function:\n    \
             data: {ONNX_FILE}\n    \
             env:\n      \
               conda: conda.yaml\n      \
               virtualenv: python_env.yaml\n    \
             loader_module: mlflow.onnx\n    \
             python_version: {PYTHON_VERSION}\n\
         metadata:\n  \
           ecgpipe.run_uuid: {run_uuid}\n\
         mlflow_version: {mlflow_version}\n\
         model_id: {model_id}\n\
         model_size_bytes: {size_bytes}\n\
         model_uuid: {uuid}\n\
         run_id: {run_id}\n\
         {example}\
         signature:\n  \
           inputs: {inputs}\n  \
           outputs: {outputs}\n  \
           params: null\n\
         utc_time_created: {time}\n",
        artifact_path = quoted(&format!("models:/{}", place.model_id)),
        onnx_version = quoted(&model.onnx_version),
        run_uuid = quoted(place.run_uuid),
        mlflow_version = quoted(place.mlflow_version),
        model_id = quoted(place.model_id),
        size_bytes = place.size_bytes,
        uuid = quoted(uuid),
        run_id = quoted(place.run_id),
        inputs = quoted(&tensor_columns(&model.inputs, true)),
        outputs = quoted(&tensor_columns(&model.outputs, true)),
        time = quoted(&utc_text(model.time_ms)),
    )
}

/// A text as a double-quoted YAML scalar, which a JSON text is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
