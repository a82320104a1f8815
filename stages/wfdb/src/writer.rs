//! Writing records: samples into the bytes of signal files, with the checksums and initial values that the header gets.
//!
//! Invariant: what is written reads back equal, whatever the chunks that it came in (`chunks_are_written_as_the_whole_is`).

use std::path::{Path, PathBuf};

use crate::error::{WfdbError, shown};
use crate::header::{DEFAULT_GAIN_ADU_PER_UNIT, MAX_SAMPLES_PER_FRAME, MAX_SAMPLING_FREQUENCY_HZ, is_record_name};
use crate::output::OutputFile;
use crate::reader::groups;
use crate::samples::{Adu as _, INVALID_I32, Samples, widen};
use crate::{Format, Header, Record, Signal, format};

/// Samples that are interleaved at a time.
const BLOCK_SAMPLE_N: usize = 4096;

/// Writes a record chunk after chunk into a folder, in memory that does not depend on its length.
///
/// Files get their names when all is written, the header last: before, and after an error, nothing can be seen of them.
///
/// ```no_run
/// use ecgpipe_wfdb::{Format, RecordReader, RecordWriter};
/// let mut reader = RecordReader::open("mitdb/100")?;
/// let mut writer = RecordWriter::create("converted", reader.header_for("100", Format::Fixed16))?;
/// for chunk in reader.chunks(65_536) {
///     writer.write(&chunk?.samples)?;
/// }
/// writer.finish()?;
/// # Ok::<(), ecgpipe_wfdb::WfdbError>(())
/// ```
#[derive(Debug)]
pub struct RecordWriter {
    folder: PathBuf,
    encoder: RecordEncoder,
    files: Vec<OutputFile>,
    buffers: Vec<Vec<u8>>,
}

impl RecordWriter {
    /// Starts a record in a folder that exists. Lengths, checksums and initial values of the header are computed, byte
    /// offsets set to 0; everything else is written as it is.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Encode`] if the header is not valid; [`WfdbError::Unsupported`] if a format or a skew cannot be
    /// written; [`WfdbError::Io`] if a file cannot be created.
    pub fn create(folder: impl AsRef<Path>, header: Header) -> Result<RecordWriter, WfdbError> {
        let encoder = RecordEncoder::new(header)?;
        let folder = folder.as_ref().to_owned();
        let create = |file: &FileEncoder| OutputFile::create(folder.join(&file.name));
        let files: Vec<OutputFile> = encoder.files.iter().map(create).collect::<Result<_, _>>()?;
        let buffers = vec![Vec::new(); files.len()];
        Ok(RecordWriter { folder, encoder, files, buffers })
    }

    /// Adds frames: the samples of each signal of the header, such as those of a [`Chunk`](crate::Chunk).
    ///
    /// # Errors
    ///
    /// [`WfdbError::Encode`] if signals differ in their number of frames, or a sample does not fit its format;
    /// [`WfdbError::Io`] if a file cannot be written. The record can then not be finished.
    pub fn write(&mut self, samples: &[Samples]) -> Result<(), WfdbError> {
        self.encoder.push(&samples.iter().collect::<Vec<_>>(), &mut self.buffers)?;
        self.write_buffers()
    }

    /// Completes the record, and gives its header as it was written.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Encode`] if there are no frames, if something could not be written before, or if the header has text
    /// that its format cannot hold; [`WfdbError::Io`] if a file cannot be written.
    pub fn finish(mut self) -> Result<Header, WfdbError> {
        let header = self.encoder.finish(&mut self.buffers)?;
        self.write_buffers()?;
        let mut header_file = OutputFile::create(self.folder.join(format!("{}.hea", header.record_name)))?;
        header_file.write(header.to_text()?.as_bytes())?;
        // A header never names a missing file.
        for file in self.files {
            file.publish()?;
        }
        header_file.publish()?;
        Ok(header)
    }

    fn write_buffers(&mut self) -> Result<(), WfdbError> {
        for (file, buffer) in self.files.iter_mut().zip(&mut self.buffers) {
            file.write(buffer)?;
            buffer.clear();
        }
        Ok(())
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
    let mut encoder = RecordEncoder::new(header_of(record)?)?;
    let mut buffers = vec![Vec::new(); encoder.files.len()];
    encoder.push(&record.leads.iter().map(|lead| &lead.samples).collect::<Vec<_>>(), &mut buffers)?;
    let header = encoder.finish(&mut buffers)?;
    let mut files = vec![(format!("{}.hea", header.record_name), header.to_text()?.into_bytes())];
    files.extend(encoder.files.into_iter().map(|file| file.name).zip(buffers));
    Ok(files)
}

/// Writes a record into a folder that exists, as [`RecordWriter`] does.
///
/// # Errors
///
/// Everything that [`encode_record`] refuses, and a file that cannot be written.
pub fn write_record(folder: impl AsRef<Path>, record: &Record) -> Result<(), WfdbError> {
    let mut writer = RecordWriter::create(folder, header_of(record)?)?;
    writer.encoder.push(&record.leads.iter().map(|lead| &lead.samples).collect::<Vec<_>>(), &mut writer.buffers)?;
    writer.finish()?;
    Ok(())
}

/// The record's header with what its leads say.
fn header_of(record: &Record) -> Result<Header, WfdbError> {
    record.check()?;
    let mut header = record.header.clone();
    for (signal, lead) in header.signals.iter_mut().zip(&record.leads) {
        signal.gain_adu_per_unit = lead.gain_adu_per_unit;
        signal.is_calibrated |= lead.gain_adu_per_unit != DEFAULT_GAIN_ADU_PER_UNIT;
        signal.baseline_adu = lead.baseline_adu;
        signal.units.clone_from(&lead.units);
        signal.description.clone_from(&lead.name);
    }
    Ok(header)
}

/// Turns frames into the bytes of signal files.
#[derive(Debug)]
struct RecordEncoder {
    header: Header,
    files: Vec<FileEncoder>,
    frame_n: u64,
    /// Whether something could not be encoded: files and sums no longer belong to each other.
    is_broken: bool,
}

#[derive(Debug)]
struct FileEncoder {
    name: String,
    format: Format,
    first_signal_idx: usize,
    tallies: Vec<Tally>,
    /// Codes that do not fill a pack yet, and room for a block.
    codes: Vec<i32>,
}

/// What the header says about a signal's samples.
#[derive(Debug, Clone, Default)]
struct Tally {
    initial_code: Option<i32>,
    checksum: u16,
    /// The last sample, from which the next one differs.
    last: Option<i32>,
}

impl RecordEncoder {
    fn new(mut header: Header) -> Result<RecordEncoder, WfdbError> {
        check_header(&header)?;
        let origin = format!("{}.hea", header.record_name);
        let unsupported = |what: String, help| WfdbError::Unsupported { origin: origin.clone(), what, help };
        for signal in &mut header.signals {
            if !signal.format.is_writable() {
                return Err(unsupported(format!("writing signal format {}", signal.format), "write format 16 or 212"));
            }
            if signal.skew_n != 0 {
                return Err(unsupported("writing a skewed signal".to_owned(), "set the skew to 0"));
            }
            signal.byte_offset = 0;
        }
        let mut files = Vec::new();
        let mut first_signal_idx = 0;
        for signals in groups(&header, &origin)? {
            let name = signals[0].file_name.clone();
            // On some systems the case of a name makes no difference.
            if name.eq_ignore_ascii_case(&origin) {
                return Err(WfdbError::Encode {
                    what: format!("record {}", shown(&header.record_name)),
                    problem: format!("its signal file would overwrite its header {origin}; name it .dat"),
                });
            }
            files.push(FileEncoder {
                name,
                format: signals[0].format,
                first_signal_idx,
                tallies: vec![Tally::default(); signals.len()],
                codes: Vec::new(),
            });
            first_signal_idx += signals.len();
        }
        Ok(RecordEncoder { header, files, frame_n: 0, is_broken: false })
    }

    /// Appends the bytes of some frames to one buffer a file.
    fn push(&mut self, samples: &[&Samples], buffers: &mut [Vec<u8>]) -> Result<(), WfdbError> {
        let record = || format!("record {}", shown(&self.header.record_name));
        let signals = &self.header.signals;
        let frame_n = samples
            .first()
            .zip(signals.first())
            .map_or(0, |(samples, signal)| samples.len() / signal.samples_per_frame as usize);
        let is_full =
            |(samples, signal): (&&Samples, &Signal)| samples.len() == frame_n * signal.samples_per_frame as usize;
        if samples.len() != signals.len() || !samples.iter().zip(signals).all(is_full) {
            let problem = "the samples must be those of all its signals, and of equally many whole frames";
            return Err(WfdbError::Encode { what: record(), problem: problem.to_owned() });
        }
        self.is_broken = true;
        for (file, buffer) in self.files.iter_mut().zip(buffers) {
            let range = file.first_signal_idx..file.first_signal_idx + file.tallies.len();
            file.push(&signals[range.clone()], &samples[range], frame_n, self.frame_n, buffer).map_err(
                |(signal_idx, problem)| WfdbError::Encode {
                    what: format!("{}, lead {signal_idx} ({})", record(), shown(&signals[signal_idx].description)),
                    problem,
                },
            )?;
        }
        self.is_broken = false;
        self.frame_n += frame_n as u64;
        Ok(())
    }

    /// Appends what is left to the buffers, and gives the complete header.
    fn finish(&mut self, buffers: &mut [Vec<u8>]) -> Result<Header, WfdbError> {
        let fail = |problem: &str| WfdbError::Encode {
            what: format!("record {}", shown(&self.header.record_name)),
            problem: problem.to_owned(),
        };
        if self.is_broken {
            return Err(fail("a part of it could not be written; write it again from its start"));
        }
        if self.frame_n == 0 {
            return Err(fail("it needs one sample or more, and no segments"));
        }
        let mut header = self.header.clone();
        header.sample_n = Some(self.frame_n);
        for (file, buffer) in self.files.iter_mut().zip(buffers) {
            format::encode(file.format, &std::mem::take(&mut file.codes), buffer);
            for (signal, tally) in header.signals[file.first_signal_idx..].iter_mut().zip(&file.tallies) {
                signal.initial_value_adu = tally.initial_code;
                signal.checksum = Some(tally.checksum.cast_signed());
            }
        }
        Ok(header)
    }
}

impl FileEncoder {
    /// Appends the bytes of some frames, but for what does not fill a pack. An error names the signal.
    fn push(
        &mut self,
        signals: &[Signal],
        samples: &[&Samples],
        frame_n: usize,
        first_frame_idx: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), (usize, String)> {
        let frame_sample_n: usize = signals.iter().map(|signal| signal.samples_per_frame as usize).sum();
        let (pack_sample_n, _) = self.format.pack();
        let block_frame_n = (BLOCK_SAMPLE_N / frame_sample_n).max(1);
        for start in (0..frame_n).step_by(block_frame_n) {
            let block_frame_n = block_frame_n.min(frame_n - start);
            let kept_n = self.codes.len();
            self.codes.resize(kept_n + block_frame_n * frame_sample_n, 0);
            let mut first = 0;
            for (idx, (signal, samples)) in signals.iter().zip(samples).enumerate() {
                let samples_per_frame = signal.samples_per_frame as usize;
                let range = start * samples_per_frame..(start + block_frame_n) * samples_per_frame;
                let frames = self.codes[kept_n..].chunks_exact_mut(frame_sample_n);
                let own = first..first + samples_per_frame;
                first = own.end;
                let slots = frames.flat_map(|frame| &mut frame[own.clone()]);
                let tally = &mut self.tallies[idx];
                let done_n = first_frame_idx.saturating_mul(samples_per_frame as u64) + range.start as u64;
                let encoded = match samples {
                    Samples::Narrow(samples) => {
                        tally.encode(self.format, samples[range].iter().copied().map(widen), slots)
                    }
                    Samples::Wide(samples) => tally.encode(self.format, samples[range].iter().copied(), slots),
                };
                encoded.map_err(|wrong| {
                    let place = format!("sample {} is {}, but ", done_n + wrong.idx as u64, wrong.sample);
                    (self.first_signal_idx + idx, place + &wrong.problem)
                })?;
            }
            let whole_n = self.codes.len() / pack_sample_n * pack_sample_n;
            format::encode(self.format, &self.codes[..whole_n], buffer);
            self.codes.drain(..whole_n);
        }
        Ok(())
    }
}

/// A sample that its format does not hold. The problem completes "sample 1 is 2, but ...".
struct Wrong {
    idx: usize,
    sample: i32,
    problem: String,
}

impl Tally {
    /// Puts what stands in the file for each sample into its slot.
    fn encode<'s>(
        &mut self,
        format: Format,
        samples: impl Iterator<Item = i32>,
        slots: impl Iterator<Item = &'s mut i32>,
    ) -> Result<(), Wrong> {
        let (invalid_code, max_code) = format.layout().codes();
        let mut checksum = self.checksum;
        for (idx, (sample, slot)) in samples.zip(slots).enumerate() {
            let wrong = |problem: String| Wrong { idx, sample, problem };
            let is_invalid = sample == INVALID_I32 && format != Format::Difference8;
            if !is_invalid && (sample <= invalid_code || sample > max_code) {
                return Err(wrong(no_code(format, sample)));
            }
            let code = if is_invalid { invalid_code } else { sample };
            let initial_code = *self.initial_code.get_or_insert(code);
            checksum = checksum.wrapping_add(code.low_bits());
            *slot = code;
            if format == Format::Difference8 {
                let last = self.last.replace(code).unwrap_or(initial_code);
                let difference = code.checked_sub(last).filter(|difference| (-128..=127).contains(difference));
                *slot = difference.ok_or_else(|| {
                    wrong(format!(
                        "the one before is {last}, and format 8 holds differences of -128 to 127; choose another format"
                    ))
                })?;
            }
        }
        self.checksum = checksum;
        Ok(())
    }
}

fn no_code(format: Format, sample: i32) -> String {
    if format == Format::Difference8 && sample == INVALID_I32 {
        return "format 8 has no invalid samples; choose another format".to_owned();
    }
    let (invalid_code, max_code) = format.layout().codes();
    let min_code = invalid_code + 1;
    format!("format {format} holds {min_code} to {max_code}; choose a wider format, or mark the sample as invalid")
}

/// Checks that a header can be that of an ordinary record, to be written.
pub(crate) fn check_header(header: &Header) -> Result<(), WfdbError> {
    let fail = |what: String, problem: &str| Err(WfdbError::Encode { what, problem: problem.to_owned() });
    let record = format!("record {}", shown(&header.record_name));
    if !is_record_name(&header.record_name) {
        return fail(record, "the name must be letters, digits, _ and -");
    }
    if !(header.sampling_frequency_hz > 0.0 && header.sampling_frequency_hz <= MAX_SAMPLING_FREQUENCY_HZ) {
        return fail(record, "the sampling frequency must be above 0 and up to 1e9 Hz");
    }
    if header.signals.is_empty() || !header.segments.is_empty() {
        return fail(record, "it needs one lead for each signal of its header, and one or more, and no segments");
    }
    for (signal_idx, signal) in header.signals.iter().enumerate() {
        let what = format!("{record}, lead {signal_idx} ({})", shown(&signal.description));
        if !signal.gain_adu_per_unit.is_finite() || signal.gain_adu_per_unit == 0.0 {
            return fail(what, "the gain must be finite and not 0");
        }
        if !(1..=MAX_SAMPLES_PER_FRAME).contains(&signal.samples_per_frame) {
            return fail(what, "samples per frame must be 1 to 10,000");
        }
    }
    Ok(())
}
