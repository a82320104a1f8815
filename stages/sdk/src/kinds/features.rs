//! The `features` kind: named numbers for every beat of one record.

use bytes::Bytes;

use super::{check_lengths, table_error};
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableError, TableWriter},
};

/// Named numbers a beat. The row order is that of the record's `beats`, and `beat_idx` says which beats they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// The record.
    pub record: RecordId,
    /// Which beat of the record's `beats` artifact each row is of.
    pub beat_idx: Vec<i64>,
    /// Feature names with their units, for example `rr_before_s`.
    pub names: Vec<String>,
    /// One column a name, one entry a beat. Always finite.
    pub columns: Vec<Vec<f32>>,
}

impl Features {
    /// The rows as one block, `names.len()` numbers a beat.
    #[must_use]
    pub fn to_rows(&self) -> Vec<f32> {
        (0..self.beat_idx.len()).flat_map(|row| self.columns.iter().map(move |column| column[row])).collect()
    }
}

impl Kind for Features {
    const NAME: &'static str = "features";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "named numbers a beat (units in the names), always finite";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        check_lengths::<Self>(self.names.len(), &[("columns", self.columns.len())])?;
        for (name, column) in self.names.iter().zip(&self.columns) {
            check_lengths::<Self>(self.beat_idx.len(), &[(name, column.len())])?;
            if let Some(row) = column.iter().position(|value| !value.is_finite()) {
                let message =
                    format!("`{name}` of beat {} is {}, not a finite number", self.beat_idx[row], column[row]);
                return Err(KindError::Invalid { kind: Self::NAME, message });
            }
        }
        let mut table = TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("names", &self.names)
            .i64("beat_idx", self.beat_idx.iter().copied());
        for (name, column) in self.names.iter().zip(&self.columns) {
            table = table.f32(name, column.clone());
        }
        table.finish().map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let names: Vec<String> = table.meta("names")?;
            let columns = names.iter().map(|name| table.f32(name)).collect::<Result<_, TableError>>()?;
            Ok(Self { record: table.meta("record")?, beat_idx: table.i64("beat_idx")?, names, columns })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: Vec<f32>) -> Features {
        Features {
            record: RecordId::new("100").expect("a valid name"),
            beat_idx: vec![0, 1],
            names: vec!["rr_before_s".to_owned(), "rr_after_s".to_owned()],
            columns: vec![values, vec![3.0, 4.0]],
        }
    }

    #[test]
    fn round_trips_and_gives_rows() {
        super::super::check_round_trip(&features(vec![1.0, 2.0]));
        assert_eq!(features(vec![1.0, 2.0]).to_rows(), [1.0, 3.0, 2.0, 4.0]);
    }

    #[test]
    fn refuses_what_is_not_finite() {
        let error = features(vec![1.0, f32::NAN]).encode().expect_err("a NaN").to_string();
        assert_eq!(error, "features: `rr_before_s` of beat 1 is NaN, not a finite number");
    }
}
