//! Records: headers and signal files together, read and written whole.
//!
//! One core decodes bytes ([`decode_record`]); [`read_record`] gives it files. Samples stay integers.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{WfdbError, shown};
use crate::format::{self, Layout};
use crate::header::{self, MAX_HEADER_BYTE_N};
use crate::{Format, Header, Signal, Timing};

/// Largest signal file that [`read_record`] loads: 8 GiB.
pub const MAX_SIGNAL_FILE_BYTE_N: u64 = 8 << 30;
/// An invalid sample in [`Samples::Narrow`], whatever the file's format calls it (-2048 in format 212).
pub const INVALID_I16: i16 = i16::MIN;
/// An invalid sample in [`Samples::Wide`], and in what [`Samples::get`] and [`Samples::iter`] give.
pub const INVALID_I32: i32 = i32::MIN;

/// Samples that are decoded at a time: they and their two copies stay in the first-level cache.
const BLOCK_SAMPLE_N: usize = 4096;

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

/// ADC samples, in the narrowest integer that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// Formats of up to 16 bits. [`INVALID_I16`] marks an invalid sample.
    Narrow(Vec<i16>),
    /// Formats of 24 and 32 bits. [`INVALID_I32`] marks an invalid sample.
    Wide(Vec<i32>),
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Samples::Narrow(samples) => samples.len(),
            Samples::Wide(samples) => samples.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `idx`, in ADC units; [`INVALID_I32`] if it is invalid, `None` behind the end.
    pub fn get(&self, idx: usize) -> Option<i32> {
        match self {
            Samples::Narrow(samples) => samples.get(idx).copied().map(widen),
            Samples::Wide(samples) => samples.get(idx).copied(),
        }
    }

    /// All samples, in ADC units; [`INVALID_I32`] for an invalid one.
    pub fn iter(&self) -> impl Iterator<Item = i32> {
        let (narrow, wide): (&[i16], &[i32]) = match self {
            Samples::Narrow(samples) => (samples, &[]),
            Samples::Wide(samples) => (&[], samples),
        };
        narrow.iter().copied().map(widen).chain(wide.iter().copied())
    }

    /// The samples as they lie in memory, if they are narrow: so for every format but 24 and 32.
    pub fn as_i16(&self) -> Option<&[i16]> {
        match self {
            Samples::Narrow(samples) => Some(samples),
            Samples::Wide(_) => None,
        }
    }
}

fn widen(sample: i16) -> i32 {
    if sample == INVALID_I16 { INVALID_I32 } else { i32::from(sample) }
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
                adc_resolution_bits: match format {
                    Format::Offset8 => 8,
                    Format::Packed212 => 12,
                    Format::Fixed24 => 24,
                    Format::Fixed32 => 32,
                    _ => 16,
                },
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
/// Everything that [`decode_record`] refuses, a file that cannot be read, and a header that calls itself by another
/// name than its file.
pub fn read_record(path: impl AsRef<Path>) -> Result<Record, WfdbError> {
    let header_path = with_extension(path.as_ref(), "hea");
    let bytes =
        read_file(&header_path, MAX_HEADER_BYTE_N as u64, "check the record's path; it has no extension or .hea")?;
    let origin = header_path.display().to_string();
    let folder = header_path.parent().unwrap_or(Path::new(""));
    let record = decode(Header::parse(&bytes, &origin)?, &origin, |file_name, check_size| {
        let help = "a record needs its header and all of its signal files in one folder";
        read_file_checked(&folder.join(file_name), MAX_SIGNAL_FILE_BYTE_N, help, check_size)
    })?;
    let stem = header_path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if stem != record.name() {
        return Err(WfdbError::Header {
            origin,
            line: 1,
            column: 1,
            field: "record name",
            found: shown(record.name()),
            problem: format!("is not the name of its file, {}; give both the same name", shown(&stem)),
        });
    }
    Ok(record)
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

pub(crate) fn read_file(path: &Path, limit_byte_n: u64, help: &'static str) -> Result<Vec<u8>, WfdbError> {
    read_file_checked(path, limit_byte_n, help, &|_| Ok(()))
}

/// Reads a file whole, unless it is larger than the limit or `check_size` refuses its size.
fn read_file_checked(
    path: &Path,
    limit_byte_n: u64,
    help: &'static str,
    check_size: &dyn Fn(u64) -> Result<(), WfdbError>,
) -> Result<Vec<u8>, WfdbError> {
    let failed = |source| WfdbError::Io { path: path.to_owned(), source, help };
    let file = fs::File::open(path).map_err(failed)?;
    let found_byte_n = file.metadata().map_err(failed)?.len();
    let too_large = |found_byte_n| WfdbError::TooLarge {
        origin: path.display().to_string(),
        found_byte_n,
        limit_byte_n,
        help: "this is not the file of one WFDB record, or the record must be split",
    };
    if found_byte_n > limit_byte_n {
        return Err(too_large(found_byte_n));
    }
    check_size(found_byte_n)?;
    // A device or a pipe has no size of its own: the limit holds for what is really read.
    let mut bytes = Vec::with_capacity(usize::try_from(found_byte_n).unwrap_or(0));
    file.take(limit_byte_n + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit_byte_n { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Decodes a record from bytes. `origin` names the header in errors; `load` gives the bytes of a signal file that the
/// header names, and is called once a file, in the header's order.
///
/// # Errors
///
/// An invalid header, an unsupported format, a signal file whose length is not exactly what the header says, and a
/// checksum or initial value that does not hold.
pub fn decode_record<B: AsRef<[u8]>>(
    header_bytes: impl AsRef<[u8]>,
    origin: &str,
    mut load: impl FnMut(&str) -> Result<B, WfdbError>,
) -> Result<Record, WfdbError> {
    decode(Header::parse(header_bytes, origin)?, origin, |file_name, _| load(file_name))
}

/// The core of reading. `load` may call its second argument with the size of a file before it reads it.
fn decode<B: AsRef<[u8]>>(
    header: Header,
    origin: &str,
    mut load: impl FnMut(&str, &dyn Fn(u64) -> Result<(), WfdbError>) -> Result<B, WfdbError>,
) -> Result<Record, WfdbError> {
    let unsupported = |what: String, help| WfdbError::Unsupported { origin: origin.to_owned(), what, help };
    if !header.segments.is_empty() {
        let what = format!("a record of {} segments", header.segments.len());
        return Err(unsupported(what, "read its segments one by one"));
    }
    for signal in &header.signals {
        if !signal.format.is_supported() {
            return Err(unsupported(
                format!("signal format {} ({})", signal.format, shown(&signal.file_name)),
                "convert the record to format 16 with `xform` of the WFDB tools",
            ));
        }
        if signal.skew_n != 0 {
            return Err(unsupported(
                format!("a skew of {} frames ({})", signal.skew_n, shown(&signal.description)),
                "remove the skew with `xform` of the WFDB tools",
            ));
        }
    }

    let mut leads = Vec::with_capacity(header.signals.len());
    let mut sample_n = header.sample_n;
    for group in groups(&header, origin)? {
        let record = &header.record_name;
        let check_size = |byte_n| frame_n(&group, byte_n, None, sample_n, record).map(|_| ());
        let bytes = load(group.file_name(), &check_size)?;
        let bytes = bytes.as_ref();
        let frame_n = frame_n(&group, bytes.len() as u64, Some(bytes), sample_n, record)?;
        sample_n = Some(frame_n);
        leads.extend(decode_group(&group, bytes, frame_n, record)?);
    }
    Ok(Record { header, leads, sample_n: sample_n.unwrap_or(0) })
}

/// The signals that share a file.
struct Group<'a> {
    signals: &'a [Signal],
    first_signal_idx: usize,
    /// Samples of all signals in one frame; one or more.
    frame_sample_n: usize,
}

impl Group<'_> {
    fn file_name(&self) -> &str {
        &self.signals[0].file_name
    }

    fn format(&self) -> Format {
        self.signals[0].format
    }

    fn byte_offset(&self) -> u64 {
        self.signals[0].byte_offset
    }
}

fn groups<'a>(header: &'a Header, origin: &str) -> Result<Vec<Group<'a>>, WfdbError> {
    let fail = |signal: &Signal, problem: &str| WfdbError::Header {
        origin: origin.to_owned(),
        line: 1,
        column: 1,
        field: "signal file",
        found: shown(&signal.file_name),
        problem: problem.to_owned(),
    };
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut first_signal_idx = 0;
    for signals in header.signals.chunk_by(|a, b| a.file_name == b.file_name) {
        let first = &signals[0];
        if groups.iter().any(|group| group.file_name() == first.file_name) {
            return Err(fail(first, "is named again after another file; list the signals of one file together"));
        }
        if signals.iter().any(|signal| signal.format != first.format || signal.byte_offset != first.byte_offset) {
            return Err(fail(first, "is given two formats or byte offsets; all signals of a file must agree on them"));
        }
        // At most 4096 signals of 10,000 samples a frame: this cannot overflow 32 bits.
        let frame_sample_n = signals.iter().map(|signal| signal.samples_per_frame as usize).sum();
        groups.push(Group { signals, first_signal_idx, frame_sample_n });
        first_signal_idx += signals.len();
    }
    Ok(groups)
}

/// The number of frames in the group's file: the header's, if it gives one and the length of the file agrees.
///
/// Without `bytes` the file is known only by its size.
fn frame_n(
    group: &Group<'_>,
    found_byte_n: u64,
    bytes: Option<&[u8]>,
    wanted: Option<u64>,
    record: &str,
) -> Result<u64, WfdbError> {
    let frame_sample_n = group.frame_sample_n as u64;
    let format = group.format();
    let wrong_length = |expected_byte_n, reason| WfdbError::Length {
        file: group.file_name().to_owned(),
        record: record.to_owned(),
        expected_byte_n,
        found_byte_n,
        reason,
    };
    let offset_note = match group.byte_offset() {
        0 => String::new(),
        byte_offset => format!(" after {byte_offset} other bytes"),
    };
    let Some(data_byte_n) = found_byte_n.checked_sub(group.byte_offset()) else {
        return Err(wrong_length(group.byte_offset(), "its byte offset alone".to_owned()));
    };
    let frame_n = match wanted {
        Some(frame_n) => frame_n,
        None => format.sample_n(data_byte_n) / frame_sample_n,
    };
    // What overflows 64 bits cannot be the size of a file.
    let total_sample_n = frame_n.saturating_mul(frame_sample_n);
    let expected_byte_n = format.byte_n(total_sample_n).unwrap_or(u64::MAX).saturating_add(group.byte_offset());
    if expected_byte_n == found_byte_n {
        return Ok(frame_n);
    }
    // An odd number of samples in format 212 may end with a whole triple, if the half that is not used is 0.
    if format == Format::Packed212
        && total_sample_n % 2 == 1
        && expected_byte_n.checked_add(1) == Some(found_byte_n)
        && bytes.is_none_or(|bytes| matches!(bytes, [.., nibbles, 0] if nibbles & 0xf0 == 0))
    {
        return Ok(frame_n);
    }
    let reason = format!("{frame_n} frames of {frame_sample_n} samples in format {format}{offset_note}");
    Err(wrong_length(expected_byte_n, reason))
}

fn decode_group(group: &Group<'_>, bytes: &[u8], frame_n: u64, record: &str) -> Result<Vec<Lead>, WfdbError> {
    let offset = usize::try_from(group.byte_offset()).expect("not more than the file's length");
    let frame_n = usize::try_from(frame_n).expect("the frames fit in a file that is in memory");
    let data = &bytes[offset..];
    let format = group.format();
    let (columns, starts): (Vec<Samples>, Vec<Start>) = match format.layout() {
        Some(Layout::Narrow { invalid_code, .. }) => {
            let (columns, starts) = deinterleave(group, data, frame_n, invalid_code, format::decode_narrow);
            (columns.into_iter().map(Samples::Narrow).collect(), starts)
        }
        Some(Layout::Wide { invalid_code, .. }) => {
            let (columns, starts) = deinterleave(group, data, frame_n, invalid_code, format::decode_wide);
            (columns.into_iter().map(Samples::Wide).collect(), starts)
        }
        None => (Vec::new(), Vec::new()),
    };

    let mut leads = Vec::with_capacity(group.signals.len());
    for (idx, ((signal, samples), start)) in group.signals.iter().zip(columns).zip(starts).enumerate() {
        let signal_idx = group.first_signal_idx + idx;
        if let (Some(expected), Some(found)) = (signal.initial_value_adu, start.initial_code)
            && expected != found
        {
            return Err(WfdbError::InitialValue {
                file: group.file_name().to_owned(),
                record: record.to_owned(),
                signal_idx,
                signal: shown(&signal.description),
                expected,
                found,
            });
        }
        if let Some(expected) = signal.checksum
            && expected != start.checksum
        {
            return Err(WfdbError::Checksum {
                file: group.file_name().to_owned(),
                record: record.to_owned(),
                signal_idx,
                signal: shown(&signal.description),
                expected,
                found: start.checksum,
            });
        }
        leads.push(Lead {
            name: signal.description.clone(),
            units: signal.units.clone(),
            gain_adu_per_unit: signal.gain_adu_per_unit,
            baseline_adu: signal.baseline_adu,
            samples_per_frame: signal.samples_per_frame,
            samples,
        });
    }
    Ok(leads)
}

/// What the header says about a signal's samples, as it was found. Both count the file's own codes.
#[derive(Clone, Copy, Default)]
struct Start {
    initial_code: Option<i32>,
    checksum: i16,
}

/// An integer that holds samples.
trait Adu: Copy + Default + PartialEq + Into<i32> {
    const INVALID: Self;
    /// The lower 16 bits, for the checksum.
    fn low_bits(self) -> u16;
}

impl Adu for i16 {
    const INVALID: i16 = INVALID_I16;
    fn low_bits(self) -> u16 {
        self.cast_unsigned()
    }
}

impl Adu for i32 {
    const INVALID: i32 = INVALID_I32;
    fn low_bits(self) -> u16 {
        let [low, high, ..] = self.to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}

/// Decodes interleaved frames into one column a signal. `data` holds `frame_n` frames; the caller has checked that.
fn deinterleave<T: Adu>(
    group: &Group<'_>,
    data: &[u8],
    frame_n: usize,
    invalid_code: T,
    decode: fn(Format, &[u8], &mut [T]),
) -> (Vec<Vec<T>>, Vec<Start>) {
    let format = group.format();
    let frame_sample_n = group.frame_sample_n;
    let mut columns: Vec<Vec<T>> =
        group.signals.iter().map(|signal| Vec::with_capacity(frame_n * signal.samples_per_frame as usize)).collect();
    let mut starts = vec![Start::default(); group.signals.len()];

    // An even number of frames a block, so that a block of format 212 ends with a whole triple.
    let block_frame_n = (BLOCK_SAMPLE_N / frame_sample_n).next_multiple_of(2).max(2);
    let mut block = vec![T::default(); block_frame_n.min(frame_n) * frame_sample_n];
    let mut done_frame_n = 0;
    while done_frame_n < frame_n {
        let block_frame_n = block_frame_n.min(frame_n - done_frame_n);
        let block = &mut block[..block_frame_n * frame_sample_n];
        let byte_idx = |sample_n: usize| {
            let byte_n = format.byte_n(sample_n as u64).expect("within a file that is in memory");
            usize::try_from(byte_n).expect("within a file that is in memory")
        };
        let start = byte_idx(done_frame_n * frame_sample_n);
        decode(format, &data[start..start + byte_idx(block.len())], block);

        let mut sample_in_frame = 0;
        for ((signal, column), start) in group.signals.iter().zip(&mut columns).zip(&mut starts) {
            let samples_per_frame = signal.samples_per_frame as usize;
            let new = column.len();
            gather(block, frame_sample_n, sample_in_frame, samples_per_frame, column);
            sample_in_frame += samples_per_frame;

            let new = &mut column[new..];
            if done_frame_n == 0 {
                start.initial_code = new.first().map(|code| (*code).into());
            }
            let sum = new.iter().fold(0_u16, |sum, code| sum.wrapping_add(code.low_bits()));
            start.checksum = start.checksum.wrapping_add(sum.cast_signed());
            if invalid_code != T::INVALID {
                for code in new {
                    *code = if *code == invalid_code { T::INVALID } else { *code };
                }
            }
        }
        done_frame_n += block_frame_n;
    }
    (columns, starts)
}

/// Appends one signal's samples of a block of frames to its column.
fn gather<T: Copy>(block: &[T], frame_sample_n: usize, first: usize, sample_n: usize, column: &mut Vec<T>) {
    match (frame_sample_n, first, sample_n) {
        (1, ..) => column.extend_from_slice(block),
        // Two leads are the usual case; the compiler makes vector code of a fixed stride.
        (2, 0, 1) => column.extend(block.as_chunks::<2>().0.iter().map(|[sample, _]| *sample)),
        (2, 1, 1) => column.extend(block.as_chunks::<2>().0.iter().map(|[_, sample]| *sample)),
        (_, _, 1) => column.extend(block.chunks_exact(frame_sample_n).map(|frame| frame[first])),
        _ => {
            for frame in block.chunks_exact(frame_sample_n) {
                column.extend_from_slice(&frame[first..first + sample_n]);
            }
        }
    }
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
    for group in groups(&header, &origin)? {
        if group.file_name() == origin {
            return Err(WfdbError::Encode {
                what: format!("record {}", shown(record.name())),
                problem: format!("its signal file would overwrite its header {origin}; name it .dat"),
            });
        }
        let columns = &all_codes[group.first_signal_idx..][..group.signals.len()];
        let mut interleaved = Vec::with_capacity(columns.iter().map(Vec::len).sum());
        for frame_idx in 0..usize::try_from(record.sample_n).expect("the samples are in memory") {
            for (codes, signal) in columns.iter().zip(group.signals) {
                let samples_per_frame = signal.samples_per_frame as usize;
                interleaved.extend_from_slice(&codes[frame_idx * samples_per_frame..][..samples_per_frame]);
            }
        }
        let mut bytes = Vec::with_capacity(interleaved.len() * 2);
        format::encode(group.format(), &interleaved, &mut bytes);
        files.push((group.file_name().to_owned(), bytes));
    }
    Ok(files)
}

fn to_codes(samples: &Samples, format: Format, origin: &str, what: &dyn Fn() -> String) -> Result<Vec<i32>, WfdbError> {
    let (invalid_code, max_code) = match format.layout() {
        Some(Layout::Narrow { invalid_code, max_code }) => (i32::from(invalid_code), i32::from(max_code)),
        Some(Layout::Wide { invalid_code, max_code }) => (invalid_code, max_code),
        None => {
            return Err(WfdbError::Unsupported {
                origin: origin.to_owned(),
                what: format!("writing signal format {format}"),
                help: "write format 16 or 212",
            });
        }
    };
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
