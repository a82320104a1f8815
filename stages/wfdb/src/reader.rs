//! Reading a record in parts: any range of frames, or chunk after chunk, in bounded memory.
//!
//! Invariant: what is read in chunks or ranges is what is read whole (`chunks_of_any_size_are_the_whole`).
//!
//! Invariant: memory depends on what is asked for, on one window a file ([`DataFile`]) and on the header, not on the
//! length of the record (`a_file_larger_than_memory_is_read_in_chunks`).

use std::ops::Range;
use std::path::Path;

use crate::error::{WfdbError, shown};
use crate::format::Layout;
use crate::header::MAX_HEADER_BYTE_N;
use crate::record::with_extension;
use crate::samples::Samples;
use crate::segments::Segments;
use crate::signal_file::SignalFile;
use crate::source::DataFile;
use crate::{Format, Header, Lead, Record, Signal, Timing};

/// Most samples in one item of [`RecordReader::chunks`], all signals together, unless one frame has more: 4 Mi, which is
/// 16 MiB of memory at most.
pub const MAX_CHUNK_SAMPLE_N: usize = 4 << 20;
/// Memory that one read may take whatever the size of the record's files: 64 MiB.
pub const FREE_BYTE_N: u64 = 64 << 20;
/// Memory that one read may take for each byte of the record's files, if that is more. FLAC and gaps cost no bytes, so a
/// small file could claim any length.
pub const MAX_EXPANSION: u64 = 64;

/// Gives the file of that name. It is called for each signal file when a record is opened, and for each segment of a
/// multi-segment record when it is reached.
pub(crate) type Open<'a> = Box<dyn FnMut(&str) -> Result<DataFile<'a>, WfdbError> + Send + 'a>;

/// An open record, from which samples can be read in any order.
///
/// ```no_run
/// let mut reader = ecgpipe_wfdb::RecordReader::open("mitdb/100")?;
/// let minute = reader.read(0..21_600)?;
/// for chunk in reader.chunks(360) {
///     let chunk = chunk?;
///     println!("from {}: {} frames of {} leads", chunk.first_frame_idx, chunk.frame_n, chunk.samples.len());
/// }
/// # Ok::<(), ecgpipe_wfdb::WfdbError>(())
/// ```
pub struct RecordReader<'a> {
    header: Header,
    sample_n: u64,
    body: Body<'a>,
}

enum Body<'a> {
    Files(Vec<SignalFile<'a>>),
    Segments(Box<Segments<'a>>),
}

/// Some consecutive frames of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The position of the first one in the record.
    pub first_frame_idx: u64,
    /// How many they are.
    pub frame_n: usize,
    /// The samples of each signal of [`RecordReader::signals`]: `frame_n` times its samples per frame of them.
    pub samples: Vec<Samples>,
    /// What is known about their truth.
    pub verification: Verification,
}

/// Whether checksums were compared. They are sums over whole signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The whole record has passed in order, this chunk being its end: every checksum and initial value that the
    /// headers give holds.
    Whole,
    /// Lengths hold, and so do initial values if the record's start has passed; checksums could not be compared.
    Part,
}

impl Chunk {
    /// An empty chunk, to be filled by [`RecordReader::read_into`].
    pub fn new() -> Chunk {
        Chunk { first_frame_idx: 0, frame_n: 0, samples: Vec::new(), verification: Verification::Part }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk::new()
    }
}

impl<'a> RecordReader<'a> {
    /// Opens a record. `path` is a header (`mitdb/100.hea`) or the record's path without an extension (`mitdb/100`).
    ///
    /// # Errors
    ///
    /// Everything that [`RecordReader::new`] refuses; a file that cannot be opened, or that is a link out of the record's
    /// folder; and a header that calls itself by another name than its file.
    pub fn open(path: impl AsRef<Path>) -> Result<RecordReader<'a>, WfdbError> {
        let header_path = with_extension(path.as_ref(), "hea");
        let origin = header_path.display().to_string();
        let help = "check the record's path; it has no extension or .hea";
        let mut data = DataFile::open_or(header_path.clone(), help)?;
        let header = Header::parse(data.read_whole(&origin, MAX_HEADER_BYTE_N as u64)?, &origin)?;
        let stem = header_path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        check_name(&header, &stem, &origin)?;
        let open = move |file_name: &str| DataFile::open_beside(&header_path, file_name);
        RecordReader::with(header, &origin, Box::new(open))
    }

    /// Opens a record whose files are anywhere. `origin` names the header in errors; `open` gives the file of a name: it
    /// is called once for each signal file, in the header's order. Of a multi-segment record it is called for the
    /// headers (`NAME.hea`) and signal files of segments, when they are reached.
    ///
    /// # Errors
    ///
    /// An invalid header, an unsupported part of WFDB, and a signal file whose length is not exactly what the header
    /// says.
    pub fn new(
        header_bytes: impl AsRef<[u8]>,
        origin: &str,
        open: impl FnMut(&str) -> Result<DataFile<'a>, WfdbError> + Send + 'a,
    ) -> Result<RecordReader<'a>, WfdbError> {
        RecordReader::with(Header::parse(header_bytes, origin)?, origin, Box::new(open))
    }

    fn with(header: Header, origin: &str, mut open: Open<'a>) -> Result<RecordReader<'a>, WfdbError> {
        if header.segments.is_empty() {
            return RecordReader::of_files(header, origin, &mut open);
        }
        let segments = Segments::open(&header, origin, open)?;
        Ok(RecordReader { header, sample_n: segments.sample_n(), body: Body::Segments(Box::new(segments)) })
    }

    /// An ordinary record, or one segment.
    pub(crate) fn of_files(header: Header, origin: &str, open: &mut Open<'a>) -> Result<RecordReader<'a>, WfdbError> {
        let mut files = Vec::new();
        let mut first_signal_idx = 0;
        let mut sample_n = header.sample_n;
        for signals in groups(&header, origin)? {
            let file = SignalFile::open(&header.record_name, first_signal_idx, signals.to_vec(), sample_n, open)?;
            first_signal_idx += signals.len();
            if !file.is_null() {
                sample_n = Some(file.frame_n());
            }
            files.push(file);
        }
        // Null signals are as long as the rest of the record, which may be known only now.
        let sample_n = sample_n.unwrap_or(0);
        files.iter_mut().filter(|file| file.is_null()).for_each(|file| file.set_frame_n(sample_n));
        Ok(RecordReader { header, sample_n, body: Body::Files(files) })
    }

    /// The header, as it was read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The signals, in the order of a chunk's samples: those of the header, or of a multi-segment record's layout.
    pub fn signals(&self) -> &[Signal] {
        match &self.body {
            Body::Files(_) => &self.header.signals,
            Body::Segments(segments) => segments.signals(),
        }
    }

    /// Frames in the record.
    pub fn sample_n(&self) -> u64 {
        self.sample_n
    }

    /// What is needed to check the annotations of this record.
    pub fn timing(&self) -> Timing {
        Timing { sampling_frequency_hz: Some(self.header.sampling_frequency_hz), sample_n: Some(self.sample_n) }
    }

    /// Bytes of the signal files of an ordinary record.
    pub(crate) fn byte_n(&self) -> u64 {
        match &self.body {
            Body::Files(files) => files.iter().map(SignalFile::byte_n).fold(0, u64::saturating_add),
            Body::Segments(_) => 0,
        }
    }

    /// Samples of all signals in a frame.
    pub fn frame_sample_n(&self) -> usize {
        self.signals().iter().map(|signal| signal.samples_per_frame as usize).sum()
    }

    /// Reads some frames, such as `read(0..3600)`. If they are all frames of the record, it is verified.
    ///
    /// Cost: what the range costs. Differences (format 8) and FLAC are also decoded from the last place before it that is
    /// known: where the last read ended, for FLAC a block that was decoded before, or the start of the file.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Range`], [`WfdbError::OverBudget`], a checksum or initial value that does not hold, a damaged file.
    pub fn read(&mut self, frames: Range<u64>) -> Result<Chunk, WfdbError> {
        let mut chunk = Chunk::new();
        self.read_into(frames, &mut chunk)?;
        Ok(chunk)
    }

    /// Like [`read`](Self::read), in a chunk whose memory is used again. After an error its content means nothing.
    ///
    /// Verification goes over all reads that follow each other from the first frame to the last.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_into(&mut self, frames: Range<u64>, chunk: &mut Chunk) -> Result<(), WfdbError> {
        if frames.start > frames.end || frames.end > self.sample_n {
            return Err(WfdbError::Range {
                record: shown(&self.header.record_name),
                start: frames.start,
                end: frames.end,
                frame_n: self.sample_n,
            });
        }
        let frame_n = self.check_budget(&frames)?;
        chunk.first_frame_idx = frames.start;
        chunk.frame_n = frame_n;
        self.shape(chunk);
        let mut is_whole = frames.end == self.sample_n;
        match &mut self.body {
            Body::Files(files) => {
                let mut columns = &mut chunk.samples[..];
                for file in &mut *files {
                    let (own, rest) = columns.split_at_mut(file.signal_n());
                    file.read(frames.clone(), own)?;
                    columns = rest;
                }
                if is_whole {
                    for file in files {
                        is_whole &= file.verify()?;
                    }
                }
            }
            Body::Segments(segments) => is_whole &= segments.read(frames, &mut chunk.samples)?,
        }
        chunk.verification = if is_whole { Verification::Whole } else { Verification::Part };
        Ok(())
    }

    /// Empties the columns of a chunk, or makes them.
    fn shape(&self, chunk: &mut Chunk) {
        let empty = |signal: &Signal| match &self.body {
            Body::Files(_) => Samples::of(signal.format),
            Body::Segments(_) => Samples::Wide(Vec::new()),
        };
        let signals = self.signals();
        chunk.samples.truncate(signals.len());
        for (column, signal) in chunk.samples.iter_mut().zip(signals) {
            let empty = empty(signal);
            if std::mem::discriminant(column) == std::mem::discriminant(&empty) {
                column.clear();
            } else {
                *column = empty;
            }
        }
        let made_n = chunk.samples.len();
        chunk.samples.extend(signals[made_n..].iter().map(empty));
    }

    /// Refuses what the record's files do not make plausible; gives the number of frames as a number of memory.
    fn check_budget(&mut self, frames: &Range<u64>) -> Result<usize, WfdbError> {
        let wanted_n = (frames.end - frames.start).saturating_mul(self.frame_sample_n() as u64);
        let is_narrow = |signal: &Signal| matches!(signal.format.layout(), Layout::Narrow { .. });
        let sample_byte_n = match &self.body {
            Body::Files(_) if self.signals().iter().all(is_narrow) => 2,
            _ => 4,
        };
        let wanted_byte_n = wanted_n.saturating_mul(sample_byte_n);
        let mut limit_byte_n = FREE_BYTE_N;
        if wanted_byte_n > limit_byte_n {
            let byte_n = match &mut self.body {
                Body::Files(_) => self.byte_n(),
                Body::Segments(segments) => segments.byte_n(frames)?,
            };
            limit_byte_n = byte_n.saturating_mul(MAX_EXPANSION).max(FREE_BYTE_N);
        }
        match usize::try_from(frames.end - frames.start) {
            Ok(frame_n) if wanted_byte_n <= limit_byte_n => Ok(frame_n),
            _ => Err(WfdbError::OverBudget { record: shown(&self.header.record_name), wanted_n, limit_byte_n }),
        }
    }

    /// The whole record in chunks of `frame_n` frames: fewer if they have more than [`MAX_CHUNK_SAMPLE_N`] samples, and
    /// fewer at the end.
    ///
    /// The last chunk is [`Verification::Whole`], or an error stands in its place. After an error there are no more.
    pub fn chunks(&mut self, frame_n: usize) -> Chunks<'_, 'a> {
        let limit_n = (MAX_CHUNK_SAMPLE_N / self.frame_sample_n().max(1)).max(1);
        Chunks { frame_n: frame_n.clamp(1, limit_n) as u64, next: Some(0), reader: self }
    }

    /// A header to write what is read with [`RecordWriter`](crate::RecordWriter): an ordinary record of that name with
    /// these signals, all in one file of one format.
    pub fn header_for(&self, name: &str, format: Format) -> Header {
        let mut header = self.header.clone();
        name.clone_into(&mut header.record_name);
        (header.segments, header.segment_signal_n) = (Vec::new(), 0);
        header.signals = self.signals().to_vec();
        for signal in &mut header.signals {
            signal.file_name = format!("{name}.dat");
            (signal.format, signal.skew_n, signal.byte_offset, signal.block_size) = (format, 0, 0, 0);
        }
        header
    }

    /// The whole record in memory.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_all(mut self) -> Result<Record, WfdbError> {
        let chunk = self.read(0..self.sample_n)?;
        let lead = |(signal, samples): (&Signal, Samples)| Lead {
            name: signal.description.clone(),
            units: signal.units.clone(),
            gain_adu_per_unit: signal.gain_adu_per_unit,
            baseline_adu: signal.baseline_adu,
            samples_per_frame: signal.samples_per_frame,
            samples,
        };
        let leads = self.signals().iter().zip(chunk.samples).map(lead).collect();
        Ok(Record { sample_n: self.sample_n, leads, header: self.header })
    }
}

impl std::fmt::Debug for RecordReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordReader")
            .field("header", &self.header)
            .field("sample_n", &self.sample_n)
            .finish_non_exhaustive()
    }
}

/// The chunks of a record, in order.
#[derive(Debug)]
pub struct Chunks<'r, 'a> {
    reader: &'r mut RecordReader<'a>,
    frame_n: u64,
    /// The next chunk's first frame; `None` at the end.
    next: Option<u64>,
}

impl Chunks<'_, '_> {
    /// The next chunk, in memory that is used again: `while chunks.next_into(&mut chunk)? { ... }`. Gives `false` when
    /// there are no more.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::read`].
    pub fn next_into(&mut self, chunk: &mut Chunk) -> Result<bool, WfdbError> {
        let Some(start) = self.next.take() else { return Ok(false) };
        let end = self.reader.sample_n.min(start + self.frame_n);
        self.reader.read_into(start..end, chunk)?;
        self.next = (end < self.reader.sample_n).then_some(end);
        Ok(true)
    }
}

impl Iterator for Chunks<'_, '_> {
    type Item = Result<Chunk, WfdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chunk = Chunk::new();
        match self.next_into(&mut chunk) {
            Ok(true) => Some(Ok(chunk)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Checks that a header is that of its file.
pub(crate) fn check_name(header: &Header, wanted: &str, origin: &str) -> Result<(), WfdbError> {
    if header.record_name == wanted {
        return Ok(());
    }
    Err(WfdbError::Header {
        origin: origin.to_owned(),
        line: 1,
        column: 1,
        field: "record name",
        found: shown(&header.record_name),
        problem: format!("is not the name of its file, {}; give both the same name", shown(wanted)),
    })
}

/// The signals of each file, in the header's order. Null signals have no file: neighbours are taken together.
pub(crate) fn groups<'h>(header: &'h Header, origin: &str) -> Result<Vec<&'h [Signal]>, WfdbError> {
    let fail = |signal: &Signal, problem: &str| WfdbError::Header {
        origin: origin.to_owned(),
        line: 1,
        column: 1,
        field: "signal file",
        found: shown(&signal.file_name),
        problem: problem.to_owned(),
    };
    let is_null = |signal: &Signal| signal.format == Format::Null;
    let mut names = std::collections::BTreeSet::new();
    let mut groups = Vec::new();
    for signals in header.signals.chunk_by(|a, b| match (is_null(a), is_null(b)) {
        (false, false) => a.file_name == b.file_name,
        (a, b) => a && b,
    }) {
        let first = &signals[0];
        if !is_null(first) && !names.insert(&first.file_name) {
            return Err(fail(first, "is named again after another file; list the signals of one file together"));
        }
        if signals.iter().any(|signal| signal.format != first.format || signal.byte_offset != first.byte_offset) {
            return Err(fail(first, "is given two formats or byte offsets; all signals of a file must agree on them"));
        }
        groups.push(signals);
    }
    Ok(groups)
}
