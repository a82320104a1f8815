//! Records: headers and signal files together, read and written whole.
//!
//! One core decodes bytes ([`decode_record`]); [`read_record`] gives it files. Samples stay integers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{WfdbError, shown};
use crate::format;
use crate::header;
use crate::reader::{RecordReader, groups};
use crate::samples::{Adu as _, INVALID_I32, Samples};
use crate::source::DataFile;
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
        if sample == INVALID_I32 {
            return f32::NAN;
        }
        let adu = f64::from(sample) - f64::from(self.baseline_adu);
        (adu / self.gain_adu_per_unit) as f32
    }
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
    fn check(&self) -> Result<(), WfdbError> {
        let fail = |what: String, problem: &str| Err(WfdbError::Encode { what, problem: problem.to_owned() });
        let record = format!("record {}", shown(self.name()));
        if !header::is_record_name(self.name()) {
            return fail(record, "the name must be letters, digits, _ and -");
        }
        if !(self.sampling_frequency_hz() > 0.0 && self.sampling_frequency_hz() <= header::MAX_SAMPLING_FREQUENCY_HZ) {
            return fail(record, "the sampling frequency must be above 0 and up to 1e9 Hz");
        }
        if self.leads.is_empty() || self.leads.len() != self.header.signals.len() {
            return fail(record, "it needs one lead for each signal of its header, and one or more");
        }
        if self.sample_n == 0 || !self.header.segments.is_empty() {
            return fail(record, "it needs one sample or more, and no segments");
        }
        for (lead_idx, (lead, signal)) in self.leads.iter().zip(&self.header.signals).enumerate() {
            let what = format!("record {}, lead {lead_idx} ({})", shown(self.name()), shown(&lead.name));
            if !lead.gain_adu_per_unit.is_finite() || lead.gain_adu_per_unit == 0.0 {
                return fail(what, "the gain must be finite and not 0");
            }
            if lead.samples_per_frame != signal.samples_per_frame || lead.samples_per_frame == 0 {
                return fail(what, "samples per frame must be 1 or more, and those of the header");
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

/// Encodes a record: its header, named `NAME.hea`, and its signal files, in the header's order.
///
/// Names, units, gains, baselines and samples are those of `record.leads`; file names, formats, ADC resolutions and
/// everything else those of `record.header`. Lengths, checksums and initial values are computed, byte offsets set to 0.
///
/// # Errors
///
/// [`WfdbError::Encode`] if header and leads do not agree, if text does not fit in a header, or if a sample does not
/// fit its format; [`WfdbError::Unsupported`] if a format or a skew cannot be written.
pub fn encode_record(record: &Record) -> Result<Vec<(String, Vec<u8>)>, WfdbError> {
    record.check()?;
    let origin = format!("{}.hea", record.name());
    let mut header = record.header.clone();
    header.sample_n = Some(record.sample_n);

    // The codes of every signal, in its format.
    let mut all_codes = Vec::with_capacity(record.leads.len());
    for (signal_idx, (signal, lead)) in header.signals.iter_mut().zip(&record.leads).enumerate() {
        if signal.skew_n != 0 {
            return Err(WfdbError::Unsupported {
                origin,
                what: "writing a skewed signal".to_owned(),
                help: "set the skew to 0",
            });
        }
        let what = || format!("record {}, lead {signal_idx} ({})", shown(record.name()), shown(&lead.name));
        let codes = to_codes(&lead.samples, signal.format, &origin, &what)?;
        signal.byte_offset = 0;
        signal.gain_adu_per_unit = lead.gain_adu_per_unit;
        signal.is_calibrated |= lead.gain_adu_per_unit != header::DEFAULT_GAIN_ADU_PER_UNIT;
        signal.baseline_adu = lead.baseline_adu;
        signal.units.clone_from(&lead.units);
        signal.description.clone_from(&lead.name);
        signal.initial_value_adu = codes.first().copied();
        let checksum = codes.iter().fold(0_u16, |sum, code| sum.wrapping_add(code.low_bits()));
        signal.checksum = Some(checksum.cast_signed());
        all_codes.push(codes);
    }

    let mut files = vec![(origin.clone(), header.to_text()?.into_bytes())];
    let mut columns = &all_codes[..];
    for group in groups(&header, &origin)? {
        let file_name = &group[0].file_name;
        if *file_name == origin {
            return Err(WfdbError::Encode {
                what: format!("record {}", shown(record.name())),
                problem: format!("its signal file would overwrite its header {origin}; name it .dat"),
            });
        }
        let (own, rest) = columns.split_at(group.len());
        columns = rest;
        let mut interleaved = Vec::with_capacity(own.iter().map(Vec::len).sum());
        for frame_idx in 0..usize::try_from(record.sample_n).expect("the samples are in memory") {
            for (codes, signal) in own.iter().zip(group) {
                let samples_per_frame = signal.samples_per_frame as usize;
                interleaved.extend_from_slice(&codes[frame_idx * samples_per_frame..][..samples_per_frame]);
            }
        }
        let mut bytes = Vec::with_capacity(interleaved.len() * 2);
        format::encode(group[0].format, &interleaved, &mut bytes);
        files.push((file_name.clone(), bytes));
    }
    Ok(files)
}

fn to_codes(samples: &Samples, format: Format, origin: &str, what: &dyn Fn() -> String) -> Result<Vec<i32>, WfdbError> {
    if !format.is_writable() || format == Format::Difference8 {
        return Err(WfdbError::Unsupported {
            origin: origin.to_owned(),
            what: format!("writing signal format {format}"),
            help: "write format 16 or 212",
        });
    }
    let (invalid_code, max_code) = format.layout().codes();
    let mut codes = Vec::with_capacity(samples.len());
    for (sample_idx, sample) in samples.iter().enumerate() {
        codes.push(match sample {
            INVALID_I32 => invalid_code,
            _ if sample > invalid_code && sample <= max_code => sample,
            _ => {
                return Err(WfdbError::Encode {
                    what: what(),
                    problem: format!(
                        "sample {sample_idx} is {sample}, but format {format} holds {} to {max_code}; choose a wider format, \
                         or mark the sample as invalid",
                        invalid_code + 1
                    ),
                });
            }
        });
    }
    Ok(codes)
}

/// Writes a record into a folder that exists: its signal files first, so that a header never names a missing file.
///
/// # Errors
///
/// Everything that [`encode_record`] refuses, and a file that cannot be written.
pub fn write_record(folder: impl AsRef<Path>, record: &Record) -> Result<(), WfdbError> {
    for (file_name, bytes) in encode_record(record)?.into_iter().rev() {
        let path = folder.as_ref().join(file_name);
        fs::write(&path, bytes).map_err(|source| WfdbError::Io {
            path,
            source,
            help: "check that the folder exists and can be written to",
        })?;
    }
    Ok(())
}
