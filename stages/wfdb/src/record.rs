//! Records in memory: a header and the samples of all its signals, which stay integers.
//!
//! Reading one whole is reading all of its frames at once ([`RecordReader`]).

use std::path::{Path, PathBuf};

use crate::error::{WfdbError, shown};
use crate::reader::RecordReader;
use crate::samples::{INVALID_I32, Samples};
use crate::source::DataFile;
use crate::writer::check_header;
use crate::{Format, Header, Signal, Timing};

/// A record: its header and the samples of all its signals.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The header, as it was read.
    pub header: Header,
    /// One lead for each signal of the header, in the same order.
    pub leads: Vec<Lead>,
    /// Frames in the record: samples of each lead that has one sample a frame.
    pub sample_n: u64,
}

/// One signal of a record: what it measures and its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Lead {
    /// The signal's description in the header, such as `MLII`.
    pub name: String,
    /// Physical unit, such as `mV`.
    pub units: String,
    /// ADC units per physical unit; finite and not 0.
    pub gain_adu_per_unit: f64,
    /// The sample value of 0 physical units.
    pub baseline_adu: i32,
    /// Samples in each frame, usually 1; the lead's own frequency is the record's times this.
    pub samples_per_frame: u32,
    /// ADC samples; `sample_n` of the record times `samples_per_frame` of them.
    pub samples: Samples,
}

impl Lead {
    /// The sample at `idx` in physical units; NaN if it is invalid.
    ///
    /// # Panics
    ///
    /// If `idx` is behind the end, as indexing a slice does.
    pub fn physical(&self, idx: usize) -> f32 {
        self.to_physical(self.samples.get(idx).expect("the caller indexes within the lead"))
    }

    /// All samples in physical units; NaN for an invalid one.
    pub fn physical_iter(&self) -> impl Iterator<Item = f32> {
        self.samples.iter().map(|sample| self.to_physical(sample))
    }

    fn to_physical(&self, sample: i32) -> f32 {
        to_physical(sample, self.baseline_adu, self.gain_adu_per_unit)
    }
}

impl Signal {
    /// A sample of this signal in physical units; NaN if it is invalid ([`INVALID_I32`]).
    pub fn to_physical(&self, sample: i32) -> f32 {
        to_physical(sample, self.baseline_adu, self.gain_adu_per_unit)
    }
}

fn to_physical(sample: i32, baseline_adu: i32, gain_adu_per_unit: f64) -> f32 {
    if sample == INVALID_I32 {
        return f32::NAN;
    }
    ((f64::from(sample) - f64::from(baseline_adu)) / gain_adu_per_unit) as f32
}

impl Record {
    /// A new record, to be written: all leads in one file `NAME.dat` of one format, one sample a frame each.
    ///
    /// The header's ADC resolution follows from the format, and its ADC zero is the baseline; change
    /// `record.header` for another. Checksums and initial values are filled in when the record is encoded.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Encode`] if the name is not letters, digits, `_` and `-`, if leads differ in length or have none,
    /// or if the frequency or a gain is out of bounds.
    pub fn new(name: &str, sampling_frequency_hz: f64, format: Format, leads: Vec<Lead>) -> Result<Record, WfdbError> {
        let signals = leads
            .iter()
            .map(|lead| Signal {
                file_name: format!("{name}.dat"),
                format,
                samples_per_frame: 1,
                skew_n: 0,
                byte_offset: 0,
                gain_adu_per_unit: lead.gain_adu_per_unit,
                is_calibrated: true,
                baseline_adu: lead.baseline_adu,
                units: lead.units.clone(),
                adc_resolution_bits: format.resolution_bits(),
                adc_zero_adu: lead.baseline_adu,
                initial_value_adu: None,
                checksum: None,
                block_size: 0,
                description: lead.name.clone(),
            })
            .collect();
        let sample_n = leads.first().map_or(0, |lead| lead.samples.len() as u64);
        let header = Header {
            record_name: name.to_owned(),
            sampling_frequency_hz,
            counter_frequency_hz: sampling_frequency_hz,
            base_counter: 0.0,
            sample_n: Some(sample_n),
            base_time: None,
            base_date: None,
            signals,
            segments: Vec::new(),
            segment_signal_n: 0,
            comments: Vec::new(),
        };
        let record = Record { header, leads, sample_n };
        record.check()?;
        Ok(record)
    }

    /// The record's name.
    pub fn name(&self) -> &str {
        &self.header.record_name
    }

    /// Frames per second: the frequency of each lead that has one sample a frame.
    pub fn sampling_frequency_hz(&self) -> f64 {
        self.header.sampling_frequency_hz
    }

    /// The header's comment lines.
    pub fn comments(&self) -> &[String] {
        &self.header.comments
    }

    /// The first lead of that name. Leads are chosen by name: mitdb's record 114 has MLII second.
    pub fn lead(&self, name: &str) -> Option<&Lead> {
        self.leads.iter().find(|lead| lead.name == name)
    }

    /// What is needed to check the annotations of this record.
    pub fn timing(&self) -> Timing {
        Timing { sampling_frequency_hz: Some(self.sampling_frequency_hz()), sample_n: Some(self.sample_n) }
    }

    /// Checks that header and leads agree, and that a WFDB file can hold them.
    pub(crate) fn check(&self) -> Result<(), WfdbError> {
        let fail = |what: String, problem: &str| Err(WfdbError::Encode { what, problem: problem.to_owned() });
        let record = format!("record {}", shown(self.name()));
        check_header(&self.header)?;
        if self.leads.len() != self.header.signals.len() {
            return fail(record, "it needs one lead for each signal of its header, and one or more");
        }
        if self.sample_n == 0 {
            return fail(record, "it needs one sample or more, and no segments");
        }
        for (lead_idx, (lead, signal)) in self.leads.iter().zip(&self.header.signals).enumerate() {
            let what = format!("{record}, lead {lead_idx} ({})", shown(&lead.name));
            if lead.samples_per_frame != signal.samples_per_frame {
                return fail(what, "samples per frame must be those of the header");
            }
            let wanted_n = self.sample_n.checked_mul(u64::from(lead.samples_per_frame));
            if wanted_n != Some(lead.samples.len() as u64) {
                return fail(
                    what,
                    "it must have as many samples as the record has frames, times its samples per frame",
                );
            }
        }
        Ok(())
    }
}

/// Reads a record. `path` is a header (`mitdb/100.hea`) or the record's path without an extension (`mitdb/100`).
///
/// # Errors
///
/// Everything that [`RecordReader::open`] and [`RecordReader::read_all`] refuse.
pub fn read_record(path: impl AsRef<Path>) -> Result<Record, WfdbError> {
    RecordReader::open(path)?.read_all()
}

/// Decodes a record from bytes. `origin` names the header in errors; `load` gives the bytes of a signal file that the
/// header names, and is called once a file, in the header's order (for the files of segments, see
/// [`RecordReader::new`]).
///
/// # Errors
///
/// Everything that [`RecordReader::new`] and [`RecordReader::read_all`] refuse.
pub fn decode_record<'a, B: AsRef<[u8]> + Send + 'a>(
    header_bytes: impl AsRef<[u8]>,
    origin: &str,
    mut load: impl FnMut(&str) -> Result<B, WfdbError> + Send + 'a,
) -> Result<Record, WfdbError> {
    RecordReader::new(header_bytes, origin, move |file_name| load(file_name).map(DataFile::in_memory))?.read_all()
}

/// `path` itself if it has the extension `hea`, `dat` or the wanted one, exchanged; else with the wanted one added.
pub(crate) fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let is_file = path.extension().is_some_and(|found| found == "hea" || found == "dat" || found == extension);
    if is_file {
        return path.with_extension(extension);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
