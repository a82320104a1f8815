//! The `predictions` kind: class probabilities for every beat of one record.

use bytes::Bytes;

use super::{check_lengths, table_error};
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// Class probabilities a beat.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// The record.
    pub record: RecordId,
    /// The patient.
    pub patient: String,
    /// Class names in the order of the probabilities: `N`, `S`, `V`, `F`, `Q`.
    pub classes: Vec<String>,
    /// Which beat of the record's `beats` artifact each row is of.
    pub beat_idx: Vec<i64>,
    /// R-peak position in the original record, in samples.
    pub sample_idx: Vec<i64>,
    /// Reference symbol of each beat where known.
    pub symbol: Vec<Option<String>>,
    /// `beat_idx.len()` rows of `classes.len()` probabilities.
    pub probabilities: Vec<f32>,
}

impl Predictions {
    /// The probabilities of one beat.
    #[must_use]
    pub fn row(&self, row_idx: usize) -> &[f32] {
        &self.probabilities[row_idx * self.classes.len()..(row_idx + 1) * self.classes.len()]
    }

    /// The index of the most probable class of one beat; the first of equals.
    #[must_use]
    pub fn class_idx(&self, row_idx: usize) -> usize {
        let row = self.row(row_idx);
        (1..row.len()).fold(0, |best, idx| if row[idx] > row[best] { idx } else { best })
    }
}

impl Kind for Predictions {
    const NAME: &'static str = "predictions";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "class probabilities a beat, with position and reference symbol where known";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let (beat_n, class_n) = (self.beat_idx.len(), self.classes.len());
        check_lengths::<Self>(beat_n, &[("sample_idx", self.sample_idx.len()), ("symbol", self.symbol.len())])?;
        check_lengths::<Self>(beat_n * class_n, &[("probabilities", self.probabilities.len())])?;
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("patient", &self.patient)
            .meta("classes", &self.classes)
            .i64("beat_idx", self.beat_idx.iter().copied())
            .unit("sample_idx", "samples of the original record")
            .i64("sample_idx", self.sample_idx.iter().copied())
            .optional_text("symbol", self.symbol.iter().map(Option::as_ref))
            .f32_rows("probabilities", class_n, self.probabilities.clone())
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            Ok(Self {
                record: table.meta("record")?,
                patient: table.meta("patient")?,
                classes: table.meta("classes")?,
                beat_idx: table.i64("beat_idx")?,
                sample_idx: table.i64("sample_idx")?,
                symbol: table.optional_text("symbol")?,
                probabilities: table.f32_rows("probabilities")?,
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_finds_the_class() {
        let predictions = Predictions {
            record: RecordId::new("100").expect("a valid name"),
            patient: "100".to_owned(),
            classes: vec!["N".to_owned(), "S".to_owned()],
            beat_idx: vec![0, 1],
            sample_idx: vec![77, 370],
            symbol: vec![None, Some("A".to_owned())],
            probabilities: vec![0.5, 0.5, 0.25, 0.75],
        };
        super::super::check_round_trip(&predictions);
        assert_eq!((predictions.class_idx(0), predictions.class_idx(1)), (0, 1));
    }
}
