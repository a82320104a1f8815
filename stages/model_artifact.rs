//! Turns a trained model into its artifact and back.

use ecgpipe_nn as nn;
use ecgpipe_sdk::{Model, StageError, Tensor};

/// The artifact of a trained model.
///
/// # Errors
/// If the architecture cannot be written as JSON: a defect.
pub fn to_artifact(model: &nn::Model) -> Result<Model, StageError> {
    let family = match model.architecture {
        nn::Architecture::Network(_) => "network",
        nn::Architecture::Ensemble(_) => "ensemble",
        nn::Architecture::Logistic(_) => "logistic",
    };
    let config = serde_json::to_value(&model.architecture).map_err(|error| StageError::from_error(&error))?;
    let tensors = model
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), Tensor { shape: tensor.shape.clone(), values: tensor.values.clone() }));
    Ok(Model { family: family.to_owned(), config, tensors: tensors.collect() })
}

/// The model in an artifact, checked.
///
/// # Errors
/// If the artifact is of another version or its tensors do not fit.
pub fn from_artifact(artifact: &Model) -> Result<nn::Model, StageError> {
    let architecture = serde_json::from_value(artifact.config.clone())
        .map_err(|error| StageError::new(format!("the model's architecture is malformed: {error}")))?;
    let tensors = artifact.tensors.iter().map(|(name, tensor)| {
        (name.clone(), nn::Tensor { shape: tensor.shape.clone(), values: tensor.values.clone() })
    });
    let model = nn::Model { architecture, tensors: tensors.collect() };
    model.check().map_err(|error| StageError::from_error(&error))?;
    Ok(model)
}
