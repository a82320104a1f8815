//! The `signals` kind: the samples of one record.
//!
//! A short recording is in memory. A long one stays in its Parquet file, of which a reader takes a range of one lead at a
//! time ([`LeadSamples::read`], best along [`Signals::pieces`]); it is written piece by piece by [`SignalsWriter`].
//!
//! Invariant: the bytes of a recording do not depend on the way in which it was written
//! (`tests::pieces_give_the_same_bytes`).

use std::{borrow::Cow, io::Write, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{check_lengths, table_error};
use crate::{
    content::{Content, IN_MEMORY_LIMIT_BYTES},
    kind::{Kind, KindError},
    record::RecordId,
    table::{GROUP_ROW_N, StoredTable, TableError, TableStream, TableWriter},
};

/// Stands for a sample that the recorder marked as invalid; null in the Parquet file.
pub const INVALID_SAMPLE: i32 = i32::MIN;

/// One record's samples, lead by lead, as the ADC gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// The record.
    pub record: RecordId,
    /// The patient; two records of one patient share it. The record's own name where nothing else is known.
    pub patient: String,
    /// Samples per second of every lead.
    pub sampling_frequency_hz: f64,
    /// Leads in file order, all of one length.
    pub leads: Vec<Lead>,
    /// Comment lines of the header.
    pub comments: Vec<String>,
}

/// One lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// Its name, for example `MLII`.
    pub name: String,
    /// Physical unit, for example `mV`.
    pub units: String,
    /// ADC units per physical unit.
    pub gain_adu_per_unit: f64,
    /// ADC value of 0 physical units.
    pub baseline_adu: i32,
    /// ADC values; [`INVALID_SAMPLE`] where the recorder had none.
    pub samples: LeadSamples,
}

/// The samples of one lead, wherever they are.
#[derive(Clone, Debug)]
pub enum LeadSamples {
    /// In memory.
    Memory(Vec<i32>),
    /// In a Parquet file.
    Stored(StoredLead),
}

/// A lead's column in a Parquet file.
#[derive(Clone, Debug)]
pub struct StoredLead {
    table: StoredTable,
    column: String,
}

impl From<Vec<i32>> for LeadSamples {
    fn from(samples: Vec<i32>) -> Self {
        Self::Memory(samples)
    }
}

/// By their values. Stored samples that cannot be read are equal to none.
impl PartialEq for LeadSamples {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && pieces(self.len()).all(|piece| match (self.read(piece.clone()), other.read(piece)) {
                (Ok(own), Ok(others)) => own == others,
                _ => false,
            })
    }
}

impl LeadSamples {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(samples) => samples.len(),
            Self::Stored(stored) => stored.table.row_n(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    ///
    /// # Errors
    /// If they are stored and cannot be read.
    ///
    /// # Panics
    /// If the range is not within the lead, as slicing does.
    pub fn read(&self, range: Range<usize>) -> Result<Cow<'_, [i32]>, KindError> {
        match self {
            Self::Memory(samples) => Ok(Cow::Borrowed(&samples[range])),
            Self::Stored(stored) => {
                let read = stored.table.i32_nullable(&stored.column, range, INVALID_SAMPLE);
                read.map(Cow::Owned).map_err(table_error::<Signals>)
            }
        }
    }

    /// All of them, brought into memory.
    ///
    /// # Errors
    /// If they are stored and cannot be read.
    pub fn to_vec(&self) -> Result<Vec<i32>, KindError> {
        self.read(0..self.len()).map(Cow::into_owned)
    }
}

impl Lead {
    /// Some samples in physical units; NaN where invalid.
    ///
    /// # Errors
    /// If they are stored and cannot be read.
    ///
    /// # Panics
    /// If the range is not within the lead, as slicing does.
    pub fn physical(&self, range: Range<usize>) -> Result<Vec<f32>, KindError> {
        /// Differences of two integers up to here are exact in `f32`.
        const EXACT: i32 = 1 << 23;
        let samples = self.samples.read(range)?;
        let fits = |adu: i32| (-EXACT..=EXACT).contains(&adu);
        let gain = self.gain_adu_per_unit as f32;
        // No early exit, so that the compiler may use vector instructions.
        let all_fit = samples.iter().fold(true, |all, &sample| all & (fits(sample) | (sample == INVALID_SAMPLE)));
        if f64::from(gain) != self.gain_adu_per_unit || !fits(self.baseline_adu) || !all_fit {
            let physical = |&sample: &i32| to_physical(sample, self.gain_adu_per_unit, self.baseline_adu);
            return Ok(samples.iter().map(physical).collect());
        }
        // Both operands are exact, so that dividing once in `f32` rounds as dividing in `f64` and rounding that (Figueroa
        // 1995: twice the precision and two bits are enough).
        let physical = |&sample: &i32| {
            let difference = sample.wrapping_sub(self.baseline_adu) as f32;
            if sample == INVALID_SAMPLE { f32::NAN } else { difference / gain }
        };
        Ok(samples.iter().map(physical).collect())
    }
}

fn to_physical(sample: i32, gain_adu_per_unit: f64, baseline_adu: i32) -> f32 {
    if sample == INVALID_SAMPLE {
        return f32::NAN;
    }
    ((f64::from(sample) - f64::from(baseline_adu)) / gain_adu_per_unit) as f32
}

/// Ranges that cover `sample_n` samples in order; a stored lead is read along them without reading anything twice.
fn pieces(sample_n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..sample_n).step_by(GROUP_ROW_N).map(move |start| start..(start + GROUP_ROW_N).min(sample_n))
}

impl Signals {
    /// Samples per lead.
    #[must_use]
    pub fn sample_n(&self) -> usize {
        self.leads.first().map_or(0, |lead| lead.samples.len())
    }

    /// Ranges that cover the record in order, about a million samples each: along them a stored recording is read
    /// without reading anything twice, and one in memory without copies that matter.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(self.sample_n())
    }

    /// The lead that comes first in `preferred` (compared without case), else the first lead.
    /// WFDB record 114 of MIT-BIH has its leads swapped, so position says nothing.
    #[must_use]
    pub fn preferred_lead_idx(&self, preferred: &[String]) -> usize {
        let named = |name: &String| self.leads.iter().position(|lead| lead.name.eq_ignore_ascii_case(name));
        preferred.iter().find_map(named).unwrap_or(0)
    }

    /// The same without samples: what [`SignalsWriter::new`] takes.
    #[must_use]
    pub fn without_samples(&self) -> Self {
        let lead = |lead: &Lead| Lead { samples: Vec::new().into(), ..lead.clone() };
        Self { leads: self.leads.iter().map(lead).collect(), ..self.clone() }
    }

    /// The beginning of the table, without columns.
    fn table(&self) -> TableWriter {
        let lead = |lead: &Lead| LeadMeta {
            name: lead.name.clone(),
            units: lead.units.clone(),
            gain_adu_per_unit: lead.gain_adu_per_unit,
            baseline_adu: lead.baseline_adu,
        };
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("patient", &self.patient)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("comments", &self.comments)
            .meta("leads", &self.leads.iter().map(lead).collect::<Vec<_>>())
    }

    /// Everything but the samples, and the lead's own from `samples`.
    fn of(
        table: &StoredTable,
        mut samples: impl FnMut(&str) -> Result<LeadSamples, TableError>,
    ) -> Result<Self, TableError> {
        let meta: Vec<LeadMeta> = table.meta("leads")?;
        let leads = meta.into_iter().enumerate().map(|(idx, meta)| {
            Ok(Lead {
                name: meta.name,
                units: meta.units,
                gain_adu_per_unit: meta.gain_adu_per_unit,
                baseline_adu: meta.baseline_adu,
                samples: samples(&column_name(idx))?,
            })
        });
        Ok(Self {
            record: table.meta("record")?,
            patient: table.meta("patient")?,
            sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
            leads: leads.collect::<Result<_, TableError>>()?,
            comments: table.meta("comments")?,
        })
    }
}

fn column_name(lead_idx: usize) -> String {
    format!("lead_{lead_idx}")
}

/// Writes a recording piece by piece, so that it is never in memory as a whole.
pub struct SignalsWriter<W: Write + Send> {
    stream: TableStream<W>,
    has_invalid: Vec<bool>,
}

impl<W: Write + Send> SignalsWriter<W> {
    /// Begins a recording. `head` is everything but its samples ([`Signals::without_samples`]); `has_invalid` says of each
    /// lead whether any of its samples is invalid, which the table must know from the start.
    ///
    /// # Errors
    /// If the sink cannot be written.
    ///
    /// # Panics
    /// If `has_invalid` is not one a lead.
    pub fn new(head: &Signals, has_invalid: &[bool], sink: W) -> Result<Self, KindError> {
        assert_eq!(head.leads.len(), has_invalid.len(), "one a lead");
        let mut table = head.table();
        for idx in 0..head.leads.len() {
            table = table.unit(&column_name(idx), "adu");
        }
        let none: &[i32] = &[];
        let table = with_columns(table, has_invalid, (0..head.leads.len()).map(|_| none));
        let stream = table.stream(sink).map_err(table_error::<Signals>)?;
        Ok(Self { stream, has_invalid: has_invalid.to_vec() })
    }

    /// Appends samples: as many of each lead, in the order of the leads.
    ///
    /// # Errors
    /// If leads are missing or differ in length, if a sample is invalid in a lead that was said to have none, or if the sink
    /// cannot be written.
    pub fn write(&mut self, leads: &[&[i32]]) -> Result<(), KindError> {
        let invalid = |message: String| KindError::Invalid { kind: Signals::NAME, message };
        if leads.len() != self.has_invalid.len() {
            return Err(invalid(format!("{} leads were given, expected {}", leads.len(), self.has_invalid.len())));
        }
        for (idx, (samples, has_invalid)) in leads.iter().zip(&self.has_invalid).enumerate() {
            if !has_invalid && samples.contains(&INVALID_SAMPLE) {
                return Err(invalid(format!("lead {idx} has an invalid sample, but was said to have none")));
            }
        }
        let table = TableWriter::new(Signals::NAME, Signals::VERSION);
        let piece = with_columns(table, &self.has_invalid, leads.iter().copied());
        self.stream.append(piece).map_err(table_error::<Signals>)
    }

    /// Ends the recording and gives the sink back.
    ///
    /// # Errors
    /// If the sink cannot be written.
    pub fn finish(self) -> Result<W, KindError> {
        self.stream.finish().map_err(table_error::<Signals>)
    }
}

fn with_columns<'a>(table: TableWriter, has_invalid: &[bool], leads: impl Iterator<Item = &'a [i32]>) -> TableWriter {
    has_invalid.iter().zip(leads).enumerate().fold(table, |table, (idx, (has_invalid, samples))| {
        if *has_invalid {
            table.i32_piece_with_nulls(&column_name(idx), samples, INVALID_SAMPLE)
        } else {
            table.i32(&column_name(idx), samples.to_vec())
        }
    })
}

#[derive(Serialize, Deserialize)]
struct LeadMeta {
    name: String,
    units: String,
    gain_adu_per_unit: f64,
    baseline_adu: i32,
}

impl Kind for Signals {
    const NAME: &'static str = "signals";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "samples of one record: a column of ADC values a lead (null = invalid), gain and baseline in the metadata";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let lengths: Vec<(&str, usize)> =
            self.leads.iter().map(|lead| (lead.name.as_str(), lead.samples.len())).collect();
        check_lengths::<Self>(self.sample_n(), &lengths)?;
        let mut has_invalid = vec![false; self.leads.len()];
        for piece in self.pieces() {
            for (has_invalid, lead) in has_invalid.iter_mut().zip(&self.leads) {
                *has_invalid |= lead.samples.read(piece.clone())?.contains(&INVALID_SAMPLE);
            }
        }
        let mut writer = SignalsWriter::new(self, &has_invalid, Vec::new())?;
        for piece in self.pieces() {
            let read = self.leads.iter().map(|lead| lead.samples.read(piece.clone()));
            let leads: Vec<Cow<'_, [i32]>> = read.collect::<Result<_, KindError>>()?;
            writer.write(&leads.iter().map(|samples| &samples[..]).collect::<Vec<_>>())?;
        }
        writer.finish()
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let stored = StoredTable::open(&Content::Memory(bytes.clone()), Self::NAME, Self::VERSION)?;
            let table = stored.load()?;
            Self::of(&stored, |column| Ok(table.i32_nullable(column, INVALID_SAMPLE)?.into()))
        };
        read().map_err(table_error::<Self>)
    }

    /// A long recording stays where it is.
    fn open(content: &Content) -> Result<Self, KindError> {
        let is_short = content.byte_n() <= IN_MEMORY_LIMIT_BYTES;
        if is_short || matches!(content, Content::Memory(_)) {
            let bytes = content.bytes().map_err(|source| KindError::Read { kind: Self::NAME, source })?;
            return Self::decode(&bytes);
        }
        let read = || {
            let table = StoredTable::open(content, Self::NAME, Self::VERSION)?;
            Self::of(&table, |column| {
                table.check_i32(column)?;
                Ok(LeadSamples::Stored(StoredLead { table: table.clone(), column: column.to_owned() }))
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::SpoolFile;

    fn lead(name: &str, samples: Vec<i32>) -> Lead {
        Lead {
            name: name.to_owned(),
            units: "mV".to_owned(),
            gain_adu_per_unit: 200.0,
            baseline_adu: 1024,
            samples: samples.into(),
        }
    }

    fn signals(leads: Vec<Lead>) -> Signals {
        Signals {
            record: RecordId::new("100").expect("a valid name"),
            patient: "100".to_owned(),
            sampling_frequency_hz: 360.0,
            leads,
            comments: vec!["69 M 1085 1629 x1".to_owned()],
        }
    }

    #[test]
    fn round_trips_with_invalid_samples() {
        let leads = vec![lead("V5", vec![1, INVALID_SAMPLE, -3]), lead("MLII", vec![1024, 1224, 5])];
        super::super::check_round_trip(&signals(leads));
    }

    #[test]
    fn refuses_leads_of_unequal_length() {
        let error = signals(vec![lead("a", vec![1, 2]), lead("b", vec![1])]).encode().expect_err("unequal lengths");
        assert_eq!(error.to_string(), "signals: column `b` has 1 entries, expected 2");
    }

    #[test]
    fn physical_values_follow_gain_and_baseline() {
        let physical = lead("MLII", vec![1024, 1224, INVALID_SAMPLE]).physical(0..3).expect("in memory");
        assert_eq!(physical[..2], [0.0, 1.0]);
        assert!(physical[2].is_nan());
    }

    #[test]
    fn the_fast_way_to_physical_values_has_the_bits_of_the_slow_one() {
        let samples: Vec<i32> = (-3000..3000).map(|idx| idx * 2797).chain([INVALID_SAMPLE, i32::MAX, 0, 1]).collect();
        for part in [&samples[..6001], &samples[..]] {
            for (gain_adu_per_unit, baseline_adu) in
                [(200.0, 1024), (1000.0, -8), (204.7, 0), (-3.0, 1 << 23), (0.3, i32::MAX), (1e-30, 7)]
            {
                let lead = Lead { gain_adu_per_unit, baseline_adu, ..lead("I", part.to_vec()) };
                let found = lead.physical(0..part.len()).expect("in memory").into_iter().map(f32::to_bits);
                let expected =
                    part.iter().map(|&sample| to_physical(sample, gain_adu_per_unit, baseline_adu).to_bits());
                assert!(found.eq(expected), "{gain_adu_per_unit} {baseline_adu}");
            }
        }
    }

    /// Two leads over three row groups, the second with an invalid sample in the second group.
    fn long() -> Signals {
        let samples = |factor: i32| (0..2 * GROUP_ROW_N as i32 + 1000).map(|idx| idx * factor % 2039).collect();
        let mut second: Vec<i32> = samples(7);
        second[GROUP_ROW_N + 3] = INVALID_SAMPLE;
        signals(vec![lead("MLII", samples(1)), lead("V5", second)])
    }

    #[test]
    fn pieces_give_the_same_bytes() {
        let signals = long();
        let whole = signals.encode().expect("a valid value");
        let mut writer = SignalsWriter::new(&signals.without_samples(), &[false, true], Vec::new()).expect("a sink");
        let leads: Vec<Vec<i32>> = signals.leads.iter().map(|lead| lead.samples.to_vec().expect("in memory")).collect();
        for start in (0..signals.sample_n()).step_by(700_001) {
            let end = (start + 700_001).min(signals.sample_n());
            writer.write(&[&leads[0][start..end], &leads[1][start..end]]).expect("a valid piece");
        }
        assert!(writer.finish().expect("a sink") == whole);
    }

    #[test]
    fn a_writer_refuses_what_it_was_not_told() {
        let head = signals(vec![lead("MLII", vec![]), lead("V5", vec![])]);
        let error = |leads: &[&[i32]]| {
            let mut writer = SignalsWriter::new(&head, &[false, true], Vec::new()).expect("a sink");
            writer.write(leads).expect_err("not as told").to_string()
        };
        let invalid = [INVALID_SAMPLE];
        assert_eq!(error(&[&[1]]), "signals: 1 leads were given, expected 2");
        assert_eq!(error(&[&invalid, &[1]]), "signals: lead 0 has an invalid sample, but was said to have none");
        assert!(error(&[&[1, 2], &[1]]).starts_with("signals: columns do not make a table"));
    }

    #[test]
    fn a_long_recording_stays_in_its_file() {
        let signals = Signals {
            // Noise, so that the file is above the limit.
            leads: vec![lead(
                "MLII",
                (0..8 << 20).map(|idx: i32| idx.wrapping_mul(0x9e37_79b9_u32 as i32) >> 9).collect(),
            )],
            ..long()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = SpoolFile::create(folder.path()).expect("a file");
        spool.write_all(&signals.encode().expect("a valid value")).expect("space");
        let content = spool.finish().expect("space");
        assert!(content.byte_n() > IN_MEMORY_LIMIT_BYTES);
        let opened = Signals::open(&content).expect("its own bytes");
        assert!(matches!(opened.leads[0].samples, LeadSamples::Stored(_)));
        assert!(opened == signals);
        assert!(opened.encode().expect("a valid value") == content.bytes().expect("a file"));
        let range = GROUP_ROW_N - 7..GROUP_ROW_N + 9;
        let bits = |signals: &Signals| -> Vec<u32> {
            signals.leads[0].physical(range.clone()).expect("stored").into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(&opened), bits(&signals));
    }

    #[test]
    fn leads_are_chosen_by_name() {
        let signals = signals(vec![lead("V5", vec![]), lead("MLII", vec![])]);
        assert_eq!(signals.preferred_lead_idx(&["mlii".to_owned()]), 1);
        assert_eq!(signals.preferred_lead_idx(&["I".to_owned()]), 0);
    }
}
