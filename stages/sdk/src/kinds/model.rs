//! The `model` kind: the named tensors of a trained model.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    table::{Table, TableWriter},
};

/// A trained model as plain data: what kind of network it is, and its tensors by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Which code can run it, for example `cnn` or `logistic`.
    pub family: String,
    /// Architecture and what it was told of its inputs, as the family defines.
    pub config: serde_json::Value,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A tensor of 32-bit floats, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// `shape` product many values.
    pub values: Vec<f32>,
}

impl Kind for Model {
    const NAME: &'static str = "model";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "a trained model: named tensors of 32-bit floats (little-endian), architecture in the metadata";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        for (name, tensor) in &self.tensors {
            if tensor.shape.iter().product::<usize>() != tensor.values.len() {
                let message =
                    format!("tensor `{name}` has {} values for shape {:?}", tensor.values.len(), tensor.shape);
                return Err(KindError::Invalid { kind: Self::NAME, message });
            }
        }
        let shape = |tensor: &Tensor| tensor.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let blobs: Vec<Vec<u8>> = self
            .tensors
            .values()
            .map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("family", &self.family)
            .meta("config", &self.config)
            .text("name", self.tensors.keys())
            .text("shape", self.tensors.values().map(shape))
            .binary("values", blobs.iter().map(Vec::as_slice))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let table = Table::read(bytes, Self::NAME, Self::VERSION).map_err(table_error::<Self>)?;
        let read = |name| table.text(name).map_err(table_error::<Self>);
        let blobs = table.binary("values").map_err(table_error::<Self>)?;
        let mut tensors = BTreeMap::new();
        for ((name, shape), blob) in read("name")?.into_iter().zip(read("shape")?).zip(blobs) {
            let invalid = |message: String| KindError::Invalid { kind: Self::NAME, message };
            let sizes = shape.split('x').filter(|size| !size.is_empty()).map(str::parse::<usize>);
            let sizes: Vec<usize> =
                sizes.collect::<Result<_, _>>().map_err(|_| invalid(format!("tensor `{name}` has shape `{shape}`")))?;
            if sizes.iter().product::<usize>() * 4 != blob.len() {
                return Err(invalid(format!("tensor `{name}` of shape {shape} has {} bytes", blob.len())));
            }
            let values = blob.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            tensors.insert(name, Tensor { shape: sizes, values: values.collect() });
        }
        let family = table.meta("family").map_err(table_error::<Self>)?;
        let config = table.meta("config").map_err(table_error::<Self>)?;
        Ok(Self { family, config, tensors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor { shape: shape.to_vec(), values: values.to_vec() };
        super::super::check_round_trip(&Model {
            family: "cnn".to_owned(),
            config: serde_json::json!({"classes": ["N", "S"], "kernel_n": 7}),
            tensors: BTreeMap::from([
                ("bias".to_owned(), tensor(&[2], &[0.5, -1.0])),
                ("weight".to_owned(), tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, f32::MIN_POSITIVE])),
            ]),
        });
    }
}
