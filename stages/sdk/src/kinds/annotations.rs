//! The `annotations` kind: everything that an annotator wrote about one record.

use bytes::Bytes;

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// All annotations of one record by one annotator, in time order.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotations {
    /// The record.
    pub record: RecordId,
    /// Samples per second of the positions.
    pub sampling_frequency_hz: f64,
    /// Length of the record in samples.
    pub sample_n: i64,
    /// The annotations.
    pub annotations: Vec<Annotation>,
}

/// One annotation, with the fields of the WFDB format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Position.
    pub sample_idx: i64,
    /// WFDB symbol: `N`, `V`, `+`, `~`, ...
    pub symbol: String,
    /// WFDB `subtyp`.
    pub subtype: i32,
    /// WFDB `chan`.
    pub chan: i32,
    /// WFDB `num`.
    pub num: i32,
    /// WFDB `aux`, for example the rhythm `(AFIB`; empty when absent.
    pub aux: String,
}

impl Kind for Annotations {
    const NAME: &'static str = "annotations";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "reference annotations of one record: position in samples, WFDB symbol, subtype, chan, num, aux";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let rows = &self.annotations;
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("sample_n", &self.sample_n)
            .unit("sample_idx", "samples")
            .i64("sample_idx", rows.iter().map(|row| row.sample_idx))
            .text("symbol", rows.iter().map(|row| &row.symbol))
            .i32("subtype", rows.iter().map(|row| row.subtype).collect())
            .i32("chan", rows.iter().map(|row| row.chan).collect())
            .i32("num", rows.iter().map(|row| row.num).collect())
            .text("aux", rows.iter().map(|row| &row.aux))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let (positions, symbols, auxs) = (table.i64("sample_idx")?, table.text("symbol")?, table.text("aux")?);
            let (subtypes, chans, nums) = (table.i32("subtype")?, table.i32("chan")?, table.i32("num")?);
            let rows = positions.into_iter().zip(symbols).zip(auxs).zip(subtypes).zip(chans).zip(nums);
            let annotations = rows
                .map(|(((((sample_idx, symbol), aux), subtype), chan), num)| Annotation {
                    sample_idx,
                    symbol,
                    subtype,
                    chan,
                    num,
                    aux,
                })
                .collect();
            Ok(Self {
                record: table.meta("record")?,
                sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
                sample_n: table.meta("sample_n")?,
                annotations,
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let annotation = |sample_idx, symbol: &str, aux: &str| Annotation {
            sample_idx,
            symbol: symbol.to_owned(),
            subtype: -1,
            chan: 1,
            num: 2,
            aux: aux.to_owned(),
        };
        super::super::check_round_trip(&Annotations {
            record: RecordId::new("100").expect("a valid name"),
            sampling_frequency_hz: 360.0,
            sample_n: 650_000,
            annotations: vec![annotation(18, "+", "(N"), annotation(77, "N", "")],
        });
    }
}
