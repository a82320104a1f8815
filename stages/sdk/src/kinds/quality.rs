//! The `quality` kind: where beats found in one record can be trusted.

use bytes::Bytes;

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// Signal quality of one record, window by window; of each window one row a lead and one of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// The record.
    pub record: RecordId,
    /// Samples per second of the positions.
    pub sampling_frequency_hz: f64,
    /// Length of the record in samples.
    pub sample_n: i64,
    /// The rows, in time order.
    pub rows: Vec<QualityRow>,
}

/// One window of one lead, or of all.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityRow {
    /// First sample.
    pub start_idx: i64,
    /// One past the last sample.
    pub end_idx: i64,
    /// Name of the lead; `None` for all together.
    pub lead: Option<String>,
    /// 0 where nothing can be trusted, 1 where nothing speaks against it.
    pub score: f32,
    /// What lowers the score most; `None` where there is no reason for doubt.
    pub reason: Option<String>,
}

impl Kind for Quality {
    const NAME: &'static str = "quality";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "signal quality of one record by window: start, end, lead, score from 0 to 1, reason for doubt";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        if let Some(row) = self.rows.iter().find(|row| !(0.0..=1.0).contains(&row.score)) {
            let message = format!("the score at sample {} is {}, not from 0 to 1", row.start_idx, row.score);
            return Err(KindError::Invalid { kind: Self::NAME, message });
        }
        let rows = &self.rows;
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("sample_n", &self.sample_n)
            .unit("start_idx", "samples")
            .unit("end_idx", "samples")
            .i64("start_idx", rows.iter().map(|row| row.start_idx))
            .i64("end_idx", rows.iter().map(|row| row.end_idx))
            .optional_text("lead", rows.iter().map(|row| row.lead.as_ref()))
            .f32("score", rows.iter().map(|row| row.score).collect())
            .optional_text("reason", rows.iter().map(|row| row.reason.as_ref()))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let columns = table.i64("start_idx")?.into_iter().zip(table.i64("end_idx")?);
            let columns = columns.zip(table.optional_text("lead")?).zip(table.f32("score")?);
            let rows =
                columns.zip(table.optional_text("reason")?).map(|((((start_idx, end_idx), lead), score), reason)| {
                    QualityRow { start_idx, end_idx, lead, score, reason }
                });
            Ok(Self {
                record: table.meta("record")?,
                sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
                sample_n: table.meta("sample_n")?,
                rows: rows.collect(),
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(score: f32) -> Quality {
        let row = |lead: Option<&str>, reason: Option<&str>| QualityRow {
            start_idx: 0,
            end_idx: 3600,
            lead: lead.map(str::to_owned),
            score,
            reason: reason.map(str::to_owned),
        };
        Quality {
            record: RecordId::new("100").expect("a valid name"),
            sampling_frequency_hz: 360.0,
            sample_n: 3600,
            rows: vec![row(Some("MLII"), Some("noise")), row(None, None)],
        }
    }

    #[test]
    fn round_trips() {
        super::super::check_round_trip(&quality(0.25));
    }

    #[test]
    fn refuses_a_score_out_of_range() {
        for score in [1.5, -0.1, f32::NAN] {
            assert!(quality(score).encode().is_err(), "{score}");
        }
    }
}
