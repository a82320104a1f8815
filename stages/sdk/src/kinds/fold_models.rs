//! The `fold_models` kind: the models of a cross-validation, each with the records that it has not seen.

use bytes::Bytes;

use super::{Model, table_error};
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// One model for each fold.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldModels {
    /// The folds, in their order.
    pub folds: Vec<Fold>,
}

/// A fold: what was held out, and the model that learned from the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// Records that the model has not seen. In no other fold.
    pub held_out: Vec<RecordId>,
    /// The model.
    pub model: Model,
}

impl FoldModels {
    /// The model that has not seen a record; `None` where the record is in no fold.
    #[must_use]
    pub fn of(&self, record: &RecordId) -> Option<&Model> {
        self.folds.iter().find(|fold| fold.held_out.contains(record)).map(|fold| &fold.model)
    }
}

impl Kind for FoldModels {
    const NAME: &'static str = "fold_models";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "the models of a cross-validation, one a fold (each as an artifact of kind model), with the records held out";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let held_out: Vec<&Vec<RecordId>> = self.folds.iter().map(|fold| &fold.held_out).collect();
        let models = self.folds.iter().map(|fold| fold.model.encode()).collect::<Result<Vec<_>, _>>()?;
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("held_out", &held_out)
            .binary("model", models.iter().map(Vec::as_slice))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            Ok((table.meta::<Vec<Vec<RecordId>>>("held_out")?, table.binary("model")?))
        };
        let (held_out, models) = read().map_err(table_error::<Self>)?;
        if held_out.len() != models.len() {
            let message = format!("{} models for {} folds", models.len(), held_out.len());
            return Err(KindError::Invalid { kind: Self::NAME, message });
        }
        let fold = |(held_out, model): (Vec<RecordId>, Vec<u8>)| {
            Ok(Fold { held_out, model: Model::decode(&Bytes::from(model))? })
        };
        Ok(Self { folds: held_out.into_iter().zip(models).map(fold).collect::<Result<_, KindError>>()? })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::Tensor, *};

    #[test]
    fn round_trips_and_finds_the_model_that_has_not_seen_a_record() {
        let record = |name| RecordId::new(name).unwrap();
        let model = |value| Model {
            family: "network".to_owned(),
            config: serde_json::json!({"n": 1}),
            tensors: BTreeMap::from([("bias".to_owned(), Tensor { shape: vec![1], values: vec![value] })]),
        };
        let folds = FoldModels {
            folds: vec![
                Fold { held_out: vec![record("101"), record("106")], model: model(1.0) },
                Fold { held_out: vec![record("208")], model: model(2.0) },
            ],
        };
        super::super::check_round_trip(&folds);
        assert_eq!(folds.of(&record("208")), Some(&model(2.0)));
        assert_eq!(folds.of(&record("100")), None);
    }
}
