//! The `beats` kind: where the R-peaks of one record are.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// R-peaks of one record, in time order, with the reference label where one is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Beats {
    /// The record.
    pub record: RecordId,
    /// The patient.
    pub patient: String,
    /// Samples per second of the positions.
    pub sampling_frequency_hz: f64,
    /// Length of the record in samples.
    pub sample_n: i64,
    /// Where the positions come from.
    pub source: PeakSource,
    /// The beats that later stages work on.
    pub beats: Vec<Beat>,
    /// Reference beats that the detector missed (always empty for [`PeakSource::Reference`]): they count as errors in
    /// an evaluation.
    pub missed: Vec<Beat>,
}

/// One beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// R-peak position.
    pub sample_idx: i64,
    /// WFDB symbol of the reference beat at this place; `None` if there is no reference or no match within 150 ms.
    pub symbol: Option<String>,
}

/// Where R-peak positions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeakSource {
    /// The reference annotations.
    Reference,
    /// The QRS detector.
    Detected,
}

impl Kind for Beats {
    const NAME: &'static str = "beats";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "R-peaks of one record: position in samples, reference symbol where known, reference beats that were missed";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let rows = || self.beats.iter().map(|beat| (beat, true)).chain(self.missed.iter().map(|beat| (beat, false)));
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("patient", &self.patient)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("sample_n", &self.sample_n)
            .meta("source", &self.source)
            .unit("sample_idx", "samples")
            .i64("sample_idx", rows().map(|(beat, _)| beat.sample_idx))
            .optional_text("symbol", rows().map(|(beat, _)| beat.symbol.as_ref()))
            .bool("found", rows().map(|(_, found)| found).collect())
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let (mut beats, mut missed) = (Vec::new(), Vec::new());
            let rows =
                table.i64("sample_idx")?.into_iter().zip(table.optional_text("symbol")?).zip(table.bool("found")?);
            for ((sample_idx, symbol), found) in rows {
                if found { &mut beats } else { &mut missed }.push(Beat { sample_idx, symbol });
            }
            Ok(Self {
                record: table.meta("record")?,
                patient: table.meta("patient")?,
                sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
                sample_n: table.meta("sample_n")?,
                source: table.meta("source")?,
                beats,
                missed,
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_found_and_missed_beats() {
        let beat = |sample_idx, symbol: Option<&str>| Beat { sample_idx, symbol: symbol.map(str::to_owned) };
        super::super::check_round_trip(&Beats {
            record: RecordId::new("100").expect("a valid name"),
            patient: "100".to_owned(),
            sampling_frequency_hz: 360.0,
            sample_n: 1000,
            source: PeakSource::Detected,
            beats: vec![beat(77, Some("N")), beat(370, None)],
            missed: vec![beat(662, Some("V"))],
        });
    }
}
