//! The `windows` and `normalised_windows` kinds: a stretch of signal around every beat of one record.
//!
//! Invariant: the bytes of windows do not depend on the pieces in which they were written
//! (`tests::pieces_give_the_same_bytes`).

use std::io::Write;

use bytes::Bytes;

use super::{check_lengths, table_error};
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableError, TableStream, TableWriter},
};

/// One window a beat, in mV.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// The record.
    pub record: RecordId,
    /// The patient.
    pub patient: String,
    /// Name of the lead that was cut.
    pub lead: String,
    /// Samples per second within a window (after resampling).
    pub sampling_frequency_hz: f64,
    /// Samples in a window.
    pub length_n: usize,
    /// Samples in a window before the R-peak.
    pub before_n: usize,
    /// Which beat of the record's `beats` artifact each window is of.
    pub beat_idx: Vec<i64>,
    /// R-peak position in the original record, in samples of the original sampling frequency.
    pub sample_idx: Vec<i64>,
    /// Reference symbol of each beat where known.
    pub symbol: Vec<Option<String>>,
    /// `beat_idx.len()` rows of `length_n` samples, in mV.
    pub samples: Vec<f32>,
}

/// One window a beat, scaled to [0, 1], with the scale kept beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalisedWindows {
    /// As [`Windows`], but `samples` has no unit and lies in [0, 1].
    pub windows: Windows,
    /// What became 0, in mV.
    pub minimum_mv: Vec<f32>,
    /// What became 1 less what became 0, in mV; 0 for a flat window, whose samples are then all 0.
    pub range_mv: Vec<f32>,
    /// The record's amplitude scale: median `range_mv` over its windows; what scaling each beat by itself takes away.
    pub record_range_mv: f32,
}

impl Windows {
    /// How many windows there are.
    #[must_use]
    pub fn beat_n(&self) -> usize {
        self.beat_idx.len()
    }

    /// The samples of one window.
    #[must_use]
    pub fn window(&self, row_idx: usize) -> &[f32] {
        &self.samples[row_idx * self.length_n..(row_idx + 1) * self.length_n]
    }

    fn check<K: Kind>(&self) -> Result<(), KindError> {
        let beat_n = self.beat_n();
        check_lengths::<K>(beat_n, &[("sample_idx", self.sample_idx.len()), ("symbol", self.symbol.len())])?;
        check_lengths::<K>(beat_n * self.length_n, &[("samples", self.samples.len())])
    }

    /// Takes all windows out and leaves the rest.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let empty = Self {
            record: self.record.clone(),
            patient: self.patient.clone(),
            lead: self.lead.clone(),
            beat_idx: Vec::new(),
            sample_idx: Vec::new(),
            symbol: Vec::new(),
            samples: Vec::new(),
            ..*self
        };
        std::mem::replace(self, empty)
    }

    fn table<K: Kind>(&self) -> TableWriter {
        TableWriter::new(K::NAME, K::VERSION)
            .meta("record", &self.record)
            .meta("patient", &self.patient)
            .meta("lead", &self.lead)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("length_n", &self.length_n)
            .meta("before_n", &self.before_n)
            .i64("beat_idx", self.beat_idx.iter().copied())
            .unit("sample_idx", "samples of the original record")
            .i64("sample_idx", self.sample_idx.iter().copied())
            .optional_text("symbol", self.symbol.iter().map(Option::as_ref))
            .f32_rows("samples", self.length_n, self.samples.clone())
    }

    fn read(table: &Table) -> Result<Self, TableError> {
        Ok(Self {
            record: table.meta("record")?,
            patient: table.meta("patient")?,
            lead: table.meta("lead")?,
            sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
            length_n: table.meta("length_n")?,
            before_n: table.meta("before_n")?,
            beat_idx: table.i64("beat_idx")?,
            sample_idx: table.i64("sample_idx")?,
            symbol: table.optional_text("symbol")?,
            samples: table.f32_rows("samples")?,
        })
    }
}

/// Writes windows piece by piece, so that they are never in memory as a whole.
pub struct WindowsWriter<W: Write + Send>(TableStream<W>);

impl<W: Write + Send> WindowsWriter<W> {
    /// Begins with the first windows, of which there may be none; all others share what these say of themselves.
    ///
    /// # Errors
    /// If the windows break the kind's rules, or the sink cannot be written.
    pub fn new(first: &Windows, sink: W) -> Result<Self, KindError> {
        first.check::<Windows>()?;
        let table = first.table::<Windows>().unit("samples", "mV");
        table.stream(sink).map(Self).map_err(table_error::<Windows>)
    }

    /// Appends windows.
    ///
    /// # Errors
    /// As [`WindowsWriter::new`].
    pub fn write(&mut self, windows: &Windows) -> Result<(), KindError> {
        windows.check::<Windows>()?;
        self.0.append(windows.table::<Windows>()).map_err(table_error::<Windows>)
    }

    /// Ends the windows and gives the sink back.
    ///
    /// # Errors
    /// If the sink cannot be written.
    pub fn finish(self) -> Result<W, KindError> {
        self.0.finish().map_err(table_error::<Windows>)
    }
}

impl Kind for Windows {
    const NAME: &'static str = "windows";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "one window a beat in mV: beat, R-peak position, reference symbol, samples";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        WindowsWriter::new(self, Vec::new())?.finish()
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let windows = Table::read(bytes, Self::NAME, Self::VERSION).and_then(|table| Self::read(&table));
        let windows = windows.map_err(table_error::<Self>)?;
        windows.check::<Self>()?;
        Ok(windows)
    }
}

impl Kind for NormalisedWindows {
    const NAME: &'static str = "normalised_windows";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "one window a beat scaled to [0, 1], with the minimum and range in mV that were taken out";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        self.windows.check::<Self>()?;
        let lengths = [("minimum_mv", self.minimum_mv.len()), ("range_mv", self.range_mv.len())];
        check_lengths::<Self>(self.windows.beat_n(), &lengths)?;
        self.windows
            .table::<Self>()
            .unit("samples", "1")
            .meta("record_range_mv", &self.record_range_mv)
            .f32("minimum_mv", self.minimum_mv.clone())
            .f32("range_mv", self.range_mv.clone())
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            Ok(Self {
                windows: Windows::read(&table)?,
                minimum_mv: table.f32("minimum_mv")?,
                range_mv: table.f32("range_mv")?,
                record_range_mv: table.meta("record_range_mv")?,
            })
        };
        let normalised: Self = read().map_err(table_error::<Self>)?;
        normalised.windows.check::<Self>()?;
        Ok(normalised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows() -> Windows {
        Windows {
            record: RecordId::new("100").expect("a valid name"),
            patient: "100".to_owned(),
            lead: "MLII".to_owned(),
            sampling_frequency_hz: 360.0,
            length_n: 3,
            before_n: 1,
            beat_idx: vec![0, 2],
            sample_idx: vec![77, 662],
            symbol: vec![Some("N".to_owned()), None],
            samples: vec![0.0, 1.0, 0.25, 1.0, 0.0, 0.5],
        }
    }

    #[test]
    fn round_trips() {
        super::super::check_round_trip(&windows());
        super::super::check_round_trip(&NormalisedWindows {
            windows: windows(),
            minimum_mv: vec![-0.5, -0.25],
            range_mv: vec![1.0, 1.5],
            record_range_mv: 1.25,
        });
    }

    #[test]
    fn pieces_give_the_same_bytes() {
        let whole = windows();
        let row = |row_idx: usize| Windows {
            beat_idx: vec![whole.beat_idx[row_idx]],
            sample_idx: vec![whole.sample_idx[row_idx]],
            symbol: vec![whole.symbol[row_idx].clone()],
            samples: whole.window(row_idx).to_vec(),
            ..whole.clone()
        };
        let mut rest = row(0);
        let first = rest.take();
        assert_eq!((first.beat_n(), rest.beat_n(), &rest.lead), (1, 0, &whole.lead));
        let mut writer = WindowsWriter::new(&first, Vec::new()).expect("a sink");
        writer.write(&rest).expect("a valid piece");
        writer.write(&row(1)).expect("a valid piece");
        assert_eq!(writer.finish().expect("a sink"), whole.encode().expect("a valid value"));
    }

    #[test]
    fn refuses_a_broken_last_row() {
        let mut windows = windows();
        windows.samples.pop();
        let error = windows.encode().expect_err("a row is short").to_string();
        assert_eq!(error, "windows: column `samples` has 5 entries, expected 6");
    }
}
