//! The `split` kind: which beat is for training, which for validation, which for test.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableError, TableWriter},
};

/// A part of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What the model is fitted to: it looks better here than it is.
    Training,
    /// What chooses the model (early stopping).
    Validation,
    /// What neither sees; it is looked at once.
    Test,
}

impl Part {
    /// `training`, `validation` or `test`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Training, Self::Validation, Self::Test].into_iter().find(|part| part.as_str() == text)
    }
}

/// A split of the labelled beats of all records.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Name of the strategy, for example `ds1_ds2`.
    pub strategy: String,
    /// Patients that are on both sides.
    pub leaks: Vec<Leak>,
    /// One row a beat that takes part, sorted by record and beat.
    pub rows: Vec<SplitRow>,
}

/// One beat of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitRow {
    /// The record.
    pub record: RecordId,
    /// The patient.
    pub patient: String,
    /// The beat of the record's `beats` artifact.
    pub beat_idx: i64,
    /// AAMI class as `split` was told to see it: `N`, `S`, `V`, `F` or `Q`.
    pub class: String,
    /// The part.
    pub part: Part,
}

/// A patient that is on both sides of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// The patient.
    pub patient: String,
    /// Its records and the parts that they are in.
    pub records: BTreeMap<RecordId, Vec<Part>>,
}

impl Split {
    /// The rows of one part and record, for joining with that record's artifacts.
    #[must_use]
    pub fn beats_of(&self, part: Part) -> BTreeMap<&RecordId, Vec<&SplitRow>> {
        let mut beats: BTreeMap<&RecordId, Vec<&SplitRow>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.part == part) {
            beats.entry(&row.record).or_default().push(row);
        }
        beats
    }
}

impl Kind for Split {
    const NAME: &'static str = "split";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "part (training, validation, test), patient and AAMI class of every beat; patients that leak";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("strategy", &self.strategy)
            .meta("leaks", &self.leaks)
            .text("record", self.rows.iter().map(|row| row.record.as_str()))
            .text("patient", self.rows.iter().map(|row| &row.patient))
            .i64("beat_idx", self.rows.iter().map(|row| row.beat_idx))
            .text("class", self.rows.iter().map(|row| &row.class))
            .text("part", self.rows.iter().map(|row| row.part.as_str()))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let (records, patients, beats) = (table.text("record")?, table.text("patient")?, table.i64("beat_idx")?);
            let rows = records.into_iter().zip(patients).zip(beats).zip(table.text("class")?).zip(table.text("part")?);
            let rows = rows.map(|((((record, patient), beat_idx), class), part)| {
                let malformed =
                    |value: &str| TableError::Metadata { key: "row".to_owned(), detail: format!(" ({value})") };
                Ok(SplitRow {
                    record: RecordId::new(&record).map_err(|error| malformed(&error.to_string()))?,
                    patient,
                    beat_idx,
                    class,
                    part: Part::parse(&part).ok_or_else(|| malformed(&part))?,
                })
            });
            let rows = rows.collect::<Result<_, TableError>>()?;
            Ok(Self { strategy: table.meta("strategy")?, leaks: table.meta("leaks")?, rows })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let record = |name| RecordId::new(name).expect("a valid name");
        let row = |name, beat_idx, part| SplitRow {
            record: record(name),
            patient: "201".to_owned(),
            beat_idx,
            class: "V".to_owned(),
            part,
        };
        let records = BTreeMap::from([(record("201"), vec![Part::Training]), (record("202"), vec![Part::Test])]);
        super::super::check_round_trip(&Split {
            strategy: "ds1_ds2".to_owned(),
            leaks: vec![Leak { patient: "201".to_owned(), records }],
            rows: vec![row("201", 0, Part::Training), row("201", 3, Part::Validation), row("202", 1, Part::Test)],
        });
    }
}
