//! One signal file: from its bytes to one column of samples a signal, for any range of frames, checks included.
//!
//! This is the one decode core: whole records, ranges and chunks all come through [`SignalFile::read`].
//!
//! Invariant: a file has the length that its header gives it, before a byte of it is decoded (`tests/bad_input.rs`).
//!
//! Invariant: checksums and initial values are those of the file's own codes, each frame counted once, whatever the
//! chunks and the skew (`a_flipped_bit_is_found_by_the_chunk_that_ends_the_record`).

use std::ops::Range;

use crate::error::{WfdbError, shown};
use crate::flac::{Flac, FlacError};
use crate::format::Layout;
use crate::samples::{Adu, Samples};
use crate::source::DataFile;
use crate::{Format, Signal};

/// Samples that are decoded at a time: they and their two copies stay in the first-level cache.
const BLOCK_SAMPLE_N: usize = 4096;

/// The signals that share a file, and where its reading is.
pub(crate) struct SignalFile<'a> {
    name: String,
    record: String,
    first_signal_idx: usize,
    signals: Vec<Signal>,
    format: Format,
    /// Samples of all signals in a frame.
    frame_sample_n: usize,
    frame_n: u64,
    coding: Coding<'a>,
    tallies: Vec<Tally>,
    /// Frames from the first one on that `tallies` cover.
    tallied_n: u64,
}

/// How frames come out of the bytes.
enum Coding<'a> {
    /// Every sample is invalid; there is no file.
    Null,
    /// Each frame has its place.
    Fixed(Fixed<'a>),
    /// Each sample is the one before and a difference.
    Difference(Differences<'a>),
    /// FLAC.
    Compressed(Box<Compressed<'a>>),
}

/// Samples of a fixed width, or packed in fixed runs.
struct Fixed<'a> {
    data: DataFile<'a>,
    format: Format,
    byte_offset: u64,
    frame_sample_n: usize,
}

/// What the header says about a signal's samples, as it was found. Both count the file's own codes.
#[derive(Clone, Copy, Default)]
struct Tally {
    initial_code: Option<i32>,
    checksum: u16,
}

/// Where one signal's samples stand in a block of frames, and which of them are wanted.
struct Slot<'a> {
    frame_sample_n: usize,
    first: usize,
    samples_per_frame: usize,
    wanted: &'a Range<usize>,
}

impl<'a> SignalFile<'a> {
    /// `signals` are those of one file, in order; their formats and byte offsets agree. Opens the file, unless they are
    /// null signals, and checks its size. `frame_n` is the header's number of frames, or that of an earlier file.
    pub(crate) fn open(
        record: &str,
        first_signal_idx: usize,
        signals: Vec<Signal>,
        frame_n: Option<u64>,
        open: &mut dyn FnMut(&str) -> Result<DataFile<'a>, WfdbError>,
    ) -> Result<SignalFile<'a>, WfdbError> {
        let first = &signals[0];
        let format = first.format;
        let mut file = SignalFile {
            name: first.file_name.clone(),
            record: record.to_owned(),
            first_signal_idx,
            // At most 4096 signals of 10,000 samples a frame: this cannot overflow 32 bits.
            frame_sample_n: signals.iter().map(|signal| signal.samples_per_frame as usize).sum(),
            format,
            frame_n: frame_n.unwrap_or(0),
            coding: Coding::Null,
            tallies: vec![Tally::default(); signals.len()],
            tallied_n: 0,
            signals,
        };
        if format == Format::Null {
            return Ok(file);
        }
        let mut data = open(&file.name)?;
        let place = Place { file: file.name.clone(), record: file.record.clone() };
        let byte_offset = file.signals[0].byte_offset;
        if format.is_flac() {
            let compressed = Compressed::open(data, &file.signals, frame_n, place)?;
            file.frame_n = compressed.frame_n;
            file.coding = Coding::Compressed(Box::new(compressed));
            return Ok(file);
        }
        file.frame_n = file.check_length(&mut data, frame_n)?;
        file.coding = match format {
            Format::Difference8 => Coding::Difference(Differences::new(data, byte_offset, &file.signals, place)),
            _ => Coding::Fixed(Fixed { data, format, byte_offset, frame_sample_n: file.frame_sample_n }),
        };
        Ok(file)
    }

    pub(crate) fn frame_n(&self) -> u64 {
        self.frame_n
    }

    /// How long null signals are.
    pub(crate) fn set_frame_n(&mut self, frame_n: u64) {
        self.frame_n = frame_n;
    }

    pub(crate) fn signal_n(&self) -> usize {
        self.signals.len()
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.coding, Coding::Null)
    }

    /// Size of the file; 0 for null signals.
    pub(crate) fn byte_n(&self) -> u64 {
        match &self.coding {
            Coding::Null => 0,
            Coding::Fixed(fixed) => fixed.data.byte_n(),
            Coding::Difference(differences) => differences.data.byte_n(),
            Coding::Compressed(compressed) => compressed.flac.data.byte_n(),
        }
    }

    /// The number of frames in the file: the header's, if it gives one and the length of the file agrees.
    fn check_length(&self, data: &mut DataFile<'_>, wanted: Option<u64>) -> Result<u64, WfdbError> {
        let (format, frame_sample_n) = (self.format, self.frame_sample_n as u64);
        let byte_offset = self.signals[0].byte_offset;
        let found_byte_n = data.byte_n();
        let wrong_length = |expected_byte_n, reason| WfdbError::Length {
            file: self.name.clone(),
            record: self.record.clone(),
            expected_byte_n,
            found_byte_n,
            reason,
        };
        let Some(data_byte_n) = found_byte_n.checked_sub(byte_offset) else {
            return Err(wrong_length(byte_offset, "its byte offset alone".to_owned()));
        };
        let frame_n = match wanted {
            Some(frame_n) => frame_n,
            None => format.sample_n(data_byte_n) / frame_sample_n,
        };
        // What overflows 64 bits cannot be the size of a file.
        let total_sample_n = frame_n.saturating_mul(frame_sample_n);
        let expected_byte_n = format.byte_n(total_sample_n).unwrap_or(u64::MAX).saturating_add(byte_offset);
        if expected_byte_n == found_byte_n || self.has_other_end(data, total_sample_n, expected_byte_n)? {
            return Ok(frame_n);
        }
        let offset_note = match byte_offset {
            0 => String::new(),
            byte_offset => format!(" after {byte_offset} other bytes"),
        };
        let reason = format!("{frame_n} frames of {frame_sample_n} samples in format {format}{offset_note}");
        Err(wrong_length(expected_byte_n, reason))
    }

    /// Whether the file ends with a begun pack in another way than the C library would write it: padded to a whole pack
    /// with zeros, or, for two samples of format 311, without the fourth byte.
    fn has_other_end(
        &self,
        data: &mut DataFile<'_>,
        total_sample_n: u64,
        expected_byte_n: u64,
    ) -> Result<bool, WfdbError> {
        let (pack_sample_n, pack_byte_n) = self.format.pack();
        let tail_sample_n = total_sample_n % pack_sample_n as u64;
        let found_byte_n = data.byte_n();
        if self.format == Format::Packed311
            && tail_sample_n == 2
            && found_byte_n.checked_add(1) == Some(expected_byte_n)
        {
            return Ok(true);
        }
        let pack_at = self.format.byte_n(total_sample_n - tail_sample_n).and_then(|at| {
            let at = at.checked_add(self.signals[0].byte_offset)?;
            (at.checked_add(pack_byte_n as u64)? == found_byte_n).then_some(at)
        });
        match pack_at {
            Some(at) if tail_sample_n > 0 => {
                let pack = data.read(at, pack_byte_n)?;
                let mut samples = [0; 3];
                crate::format::decode_narrow(self.format, pack, &mut samples[..pack_sample_n]);
                let used_n = usize::try_from(tail_sample_n).expect("at most 2");
                Ok(samples[used_n..].iter().all(|sample| *sample == 0))
            }
            _ => Ok(false),
        }
    }

    /// Appends the samples of `frames`, which lie in the file, to one column a signal.
    pub(crate) fn read(&mut self, frames: Range<u64>, columns: &mut [Samples]) -> Result<(), WfdbError> {
        for (signal, column) in self.signals.iter().zip(&mut *columns) {
            column.reserve(sample_n(&frames, signal));
        }
        let ends: Vec<usize> = self
            .signals
            .iter()
            .zip(&*columns)
            .map(|(signal, column)| column.len() + sample_n(&frames, signal))
            .collect();
        if frames.start == 0 {
            self.tallied_n = 0;
            self.tallies.fill(Tally::default());
        }
        if !matches!(self.coding, Coding::Null) {
            // Skewed signals are late in the file: their last samples of the range stand behind it.
            let skew_n = self.signals.iter().map(|signal| signal.skew_n).max().unwrap_or(0);
            let late = frames.end..frames.end.saturating_add(skew_n.into()).min(self.frame_n);
            for part in [frames.clone(), late] {
                match self.format.layout() {
                    Layout::Narrow { invalid_code, .. } => self.read_part(part, &frames, invalid_code, columns)?,
                    Layout::Wide { invalid_code, .. } => self.read_part(part, &frames, invalid_code, columns)?,
                }
                // The next range may start here.
                self.coding.keep(frames.end);
            }
        }
        for (column, end) in columns.iter_mut().zip(ends) {
            column.pad(end);
        }
        Ok(())
    }

    /// Decodes the file's frames `part`, tallies what is new, and appends what belongs to `frames` of the record.
    fn read_part<T: Adu>(
        &mut self,
        part: Range<u64>,
        frames: &Range<u64>,
        invalid_code: T,
        columns: &mut [Samples],
    ) -> Result<(), WfdbError> {
        let frame_sample_n = self.frame_sample_n;
        // Two samples more than the block: it is decoded from the start of a pack.
        let block_frame_n = match BLOCK_SAMPLE_N / frame_sample_n {
            // A multiple of every pack, so that blocks start with a whole one.
            block_frame_n @ 6.. => block_frame_n / 6 * 6,
            block_frame_n => block_frame_n.max(1),
        };
        let part_n = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let mut buffer = vec![T::default(); block_frame_n.min(part_n) * frame_sample_n + 2];
        let mut at = part.start;
        while at < part.end {
            let end = part.end.min(at + block_frame_n as u64);
            let frame_n = usize::try_from(end - at).expect("at most a block");
            let block = self.coding.decode(at, frame_n * frame_sample_n, &mut buffer)?;

            // Rows of the block that were not tallied yet, if they follow those that were.
            let is_next = (at..end).contains(&self.tallied_n);
            let new = is_next.then(|| clip(self.tallied_n..end, at, frame_n));
            let mut first = 0;
            for ((signal, column), tally) in self.signals.iter().zip(&mut *columns).zip(&mut self.tallies) {
                let samples_per_frame = signal.samples_per_frame as usize;
                let skew_n = u64::from(signal.skew_n);
                let wanted = clip(frames.start.saturating_add(skew_n)..frames.end.saturating_add(skew_n), at, frame_n);
                let slot = Slot { frame_sample_n, first, samples_per_frame, wanted: &wanted };
                first += samples_per_frame;
                let column = T::column(column);
                let column_n = column.len();
                slot.gather(block, column);
                let gathered = &mut column[column_n..];
                if let Some(new) = &new {
                    if self.tallied_n == 0 {
                        tally.initial_code = Some(block[slot.first].into());
                    }
                    let sum = if *new == wanted {
                        gathered.iter().fold(0_u16, |sum, code| sum.wrapping_add(code.low_bits()))
                    } else {
                        slot.sum(block, new)
                    };
                    tally.checksum = tally.checksum.wrapping_add(sum);
                }
                if invalid_code != T::INVALID {
                    for code in gathered {
                        *code = if *code == invalid_code { T::INVALID } else { *code };
                    }
                }
            }
            if is_next {
                self.tallied_n = end;
                if at == 0 {
                    self.check_initial_values()?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Whether all frames have passed in order. If so, every checksum and initial value of the header holds.
    pub(crate) fn verify(&self) -> Result<bool, WfdbError> {
        if self.is_null() {
            return Ok(true);
        }
        if self.tallied_n < self.frame_n {
            return Ok(false);
        }
        self.check_initial_values()?;
        for (idx, (signal, tally)) in self.signals.iter().zip(&self.tallies).enumerate() {
            let found = tally.checksum.cast_signed();
            if let Some(expected) = signal.checksum.filter(|expected| *expected != found) {
                return Err(WfdbError::Checksum {
                    file: self.name.clone(),
                    record: self.record.clone(),
                    signal_idx: self.first_signal_idx + idx,
                    signal: shown(&signal.description),
                    expected,
                    found,
                });
            }
        }
        Ok(true)
    }

    fn check_initial_values(&self) -> Result<(), WfdbError> {
        if self.format == Format::Difference8 {
            // Here it is where the differences start from: the first one may be other than 0.
            return Ok(());
        }
        for (idx, (signal, tally)) in self.signals.iter().zip(&self.tallies).enumerate() {
            if let (Some(expected), Some(found)) = (signal.initial_value_adu, tally.initial_code)
                && expected != found
            {
                return Err(WfdbError::InitialValue {
                    file: self.name.clone(),
                    record: self.record.clone(),
                    signal_idx: self.first_signal_idx + idx,
                    signal: shown(&signal.description),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Samples that a signal has in so many frames. They are to be held in memory: the caller has checked that they fit.
fn sample_n(frames: &Range<u64>, signal: &Signal) -> usize {
    let frame_n = usize::try_from(frames.end - frames.start).expect("the frames fit in memory");
    frame_n * signal.samples_per_frame as usize
}

/// The part of `frames` that lies in the block of `frame_n` frames at `at`, as rows of the block.
fn clip(frames: Range<u64>, at: u64, frame_n: usize) -> Range<usize> {
    let row = |frame: u64| usize::try_from(frame.saturating_sub(at)).map_or(frame_n, |row| row.min(frame_n));
    let start = row(frames.start);
    start..row(frames.end).max(start)
}

impl Slot<'_> {
    /// Appends the wanted samples of a block of frames.
    fn gather<T: Copy>(&self, block: &[T], column: &mut Vec<T>) {
        let frame_sample_n = self.frame_sample_n;
        let block = &block[self.wanted.start * frame_sample_n..self.wanted.end * frame_sample_n];
        match (frame_sample_n, self.first, self.samples_per_frame) {
            (1, ..) => column.extend_from_slice(block),
            // Two leads are the usual case; the compiler makes vector code of a fixed stride.
            (2, 0, 1) => column.extend(block.as_chunks::<2>().0.iter().map(|[sample, _]| *sample)),
            (2, 1, 1) => column.extend(block.as_chunks::<2>().0.iter().map(|[_, sample]| *sample)),
            (_, first, 1) => column.extend(block.chunks_exact(frame_sample_n).map(|frame| frame[first])),
            (_, first, samples_per_frame) => {
                for frame in block.chunks_exact(frame_sample_n) {
                    column.extend_from_slice(&frame[first..first + samples_per_frame]);
                }
            }
        }
    }

    /// The checksum of some rows.
    fn sum<T: Adu>(&self, block: &[T], rows: &Range<usize>) -> u16 {
        let frames = block[rows.start * self.frame_sample_n..].chunks_exact(self.frame_sample_n).take(rows.len());
        let codes = frames.flat_map(|frame| &frame[self.first..self.first + self.samples_per_frame]);
        codes.fold(0_u16, |sum, code| sum.wrapping_add(code.low_bits()))
    }
}

impl Coding<'_> {
    /// Decodes `sample_n` samples from frame `at` on, of all signals as they stand in the file, into `buffer`, and gives
    /// the part of it that holds them.
    fn decode<'b, T: Adu>(&mut self, at: u64, sample_n: usize, buffer: &'b mut [T]) -> Result<&'b [T], WfdbError> {
        match self {
            Coding::Null => unreachable!("null signals have nothing to decode"),
            Coding::Fixed(fixed) => fixed.decode(at, sample_n, buffer),
            Coding::Difference(differences) => differences.decode(at, &mut buffer[..sample_n]),
            Coding::Compressed(compressed) => compressed.decode(at, &mut buffer[..sample_n]),
        }
    }

    /// Remembers frame `at`, if decoding stands there, so that going back to it is cheap.
    fn keep(&mut self, at: u64) {
        if let Coding::Difference(differences) = self
            && differences.now.frame == at
        {
            differences.kept.clone_from(&differences.now);
        }
    }
}

impl Fixed<'_> {
    fn decode<'b, T: Adu>(&mut self, at: u64, sample_n: usize, buffer: &'b mut [T]) -> Result<&'b [T], WfdbError> {
        // The file has the length that follows from its header: nothing overflows, and these bytes are in it.
        let (pack_sample_n, _) = self.format.pack();
        let first = at * self.frame_sample_n as u64;
        let before_n = usize::try_from(first % pack_sample_n as u64).expect("at most 2");
        let byte_n = |sample_n: u64| self.format.byte_n(sample_n).expect("within the file");
        let start = self.byte_offset + byte_n(first - before_n as u64);
        let wanted_n = before_n + sample_n;
        let wanted_byte_n = usize::try_from(byte_n(wanted_n as u64)).expect("a block or a frame");
        // Format 311 may lack the last byte of its last pack.
        let rest_n = usize::try_from(self.data.byte_n() - start).unwrap_or(usize::MAX);
        let bytes = self.data.read(start, wanted_byte_n.min(rest_n))?;
        T::decode(self.format, bytes, &mut buffer[..wanted_n]);
        Ok(&buffer[before_n..wanted_n])
    }
}

/// Samples as differences. A range is decoded from the frame that was kept, or from the first one.
struct Differences<'a> {
    data: DataFile<'a>,
    byte_offset: u64,
    place: Place,
    /// The signal of each sample of a frame.
    signal_idxs: Vec<usize>,
    starts: Vec<i32>,
    now: Values,
    kept: Values,
}

/// The last sample of each signal before a frame.
#[derive(Clone)]
struct Values {
    frame: u64,
    last: Vec<i32>,
}

impl<'a> Differences<'a> {
    fn new(data: DataFile<'a>, byte_offset: u64, signals: &[Signal], place: Place) -> Differences<'a> {
        let each = |(idx, signal): (usize, &Signal)| std::iter::repeat_n(idx, signal.samples_per_frame as usize);
        let signal_idxs = signals.iter().enumerate().flat_map(each).collect();
        // header(5): without an initial value it is the ADC zero.
        let starts: Vec<i32> =
            signals.iter().map(|signal| signal.initial_value_adu.unwrap_or(signal.adc_zero_adu)).collect();
        let now = Values { frame: 0, last: starts.clone() };
        Differences { data, byte_offset, place, signal_idxs, starts, kept: now.clone(), now }
    }

    fn decode<'b, T: Adu>(&mut self, at: u64, buffer: &'b mut [T]) -> Result<&'b [T], WfdbError> {
        if at < self.now.frame {
            if at >= self.kept.frame {
                self.now.clone_from(&self.kept);
            } else {
                self.now = Values { frame: 0, last: self.starts.clone() };
            }
        }
        let mut skipped = Vec::new();
        while self.now.frame < at {
            let skip_n = usize::try_from(at - self.now.frame).unwrap_or(usize::MAX);
            let frame_n = skip_n.min((BLOCK_SAMPLE_N / self.signal_idxs.len()).max(1));
            skipped.resize(frame_n * self.signal_idxs.len(), T::default());
            self.integrate(&mut skipped)?;
        }
        self.integrate(buffer)?;
        Ok(buffer)
    }

    /// Decodes the next frames.
    fn integrate<T: Adu>(&mut self, block: &mut [T]) -> Result<(), WfdbError> {
        let frame_sample_n = self.signal_idxs.len();
        let start = self.byte_offset + self.now.frame * frame_sample_n as u64;
        let bytes = self.data.read(start, block.len())?;
        T::decode(Format::Difference8, bytes, block);
        for (frame_idx, frame) in block.chunks_exact_mut(frame_sample_n).enumerate() {
            for (sample_idx, (sample, signal_idx)) in frame.iter_mut().zip(&self.signal_idxs).enumerate() {
                let last = &mut self.now.last[*signal_idx];
                // The lowest value of 32 bits means an invalid sample.
                let next = last.checked_add((*sample).into()).filter(|next| *next != i32::MIN);
                let Some(next) = next else {
                    // Behind every frame: the next read starts over.
                    self.now.frame = u64::MAX;
                    let byte_offset = start + (frame_idx * frame_sample_n + sample_idx) as u64;
                    return Err(self.place.damaged(byte_offset, "the differences add up to more than 32 bits hold"));
                };
                *last = next;
                *sample = T::from_code(next);
            }
        }
        self.now.frame += (block.len() / frame_sample_n) as u64;
        Ok(())
    }
}

/// A FLAC stream with one channel a signal. Signals of several samples a frame are channels of as many times the rate.
struct Compressed<'a> {
    flac: Flac<'a>,
    place: Place,
    samples_per_frame: usize,
    /// Samples of a channel before the record's first: what the header calls a byte offset.
    before_n: u64,
    frame_n: u64,
}

impl<'a> Compressed<'a> {
    fn open(
        data: DataFile<'a>,
        signals: &[Signal],
        wanted_frame_n: Option<u64>,
        place: Place,
    ) -> Result<Compressed<'a>, WfdbError> {
        let flac = Flac::open(data).map_err(|error| place.flac(error))?;
        let first = &signals[0];
        let info = flac.info();
        let max_bits = u32::from(first.format.resolution_bits());
        if info.channel_n != signals.len() || info.bits > max_bits {
            let problem = format!(
                "the FLAC stream has {} channels of {} bits, but the header {} signals of format {}",
                info.channel_n,
                info.bits,
                signals.len(),
                first.format
            );
            return Err(place.damaged(18, &problem));
        }
        if signals.iter().any(|signal| signal.samples_per_frame != first.samples_per_frame) {
            return Err(place.damaged(18, "signals of one FLAC stream must have equally many samples a frame"));
        }
        let samples_per_frame = u64::from(first.samples_per_frame);
        let stream_n = info.sample_n.map(|sample_n| sample_n.saturating_sub(first.byte_offset));
        let Some(frame_n) = wanted_frame_n.or(stream_n.map(|stream_n| stream_n / samples_per_frame)) else {
            return Err(place.damaged(21, "neither the header nor the FLAC stream gives the number of samples"));
        };
        let wanted_n = frame_n.saturating_mul(samples_per_frame).saturating_add(first.byte_offset);
        if let Some(found_n) = info.sample_n.filter(|found_n| *found_n != wanted_n) {
            let problem = format!(
                "the FLAC stream has {found_n} samples of each signal, but {frame_n} frames of {samples_per_frame} after \
                 an offset of {} need {wanted_n}",
                first.byte_offset
            );
            return Err(place.damaged(21, &problem));
        }
        let (samples_per_frame, before_n) = (first.samples_per_frame as usize, first.byte_offset);
        Ok(Compressed { flac, place, samples_per_frame, before_n, frame_n })
    }

    fn decode<'b, T: Adu>(&mut self, at: u64, buffer: &'b mut [T]) -> Result<&'b [T], WfdbError> {
        let samples_per_frame = self.samples_per_frame;
        let frame_sample_n = samples_per_frame * self.flac.info().channel_n;
        let sample_n = buffer.len() / frame_sample_n * samples_per_frame;
        // A stream that does not say its length may end anywhere.
        let too_far = || self.place.damaged(21, "the header's offset and length are more than any FLAC stream holds");
        let first = at.checked_mul(samples_per_frame as u64).and_then(|first| first.checked_add(self.before_n));
        let first = first.ok_or_else(too_far)?;
        let mut done_n = 0;
        while done_n < sample_n {
            let channels = self.flac.samples_at(first + done_n as u64).map_err(|error| self.place.flac(error))?;
            let mut block_n = 0;
            for (channel_idx, channel) in channels.enumerate() {
                block_n = channel.len().min(sample_n - done_n);
                for (idx, sample) in (done_n..).zip(&channel[..block_n]) {
                    let in_frame = channel_idx * samples_per_frame + idx % samples_per_frame;
                    buffer[idx / samples_per_frame * frame_sample_n + in_frame] = T::from_code(*sample);
                }
            }
            done_n += block_n;
        }
        if at + (sample_n / samples_per_frame) as u64 == self.frame_n && !self.flac.is_at_end() {
            let problem = "bytes follow the last FLAC frame that the header needs";
            return Err(self.place.damaged(self.flac.byte_offset(), problem));
        }
        Ok(buffer)
    }
}

/// Names a file in errors about its content.
struct Place {
    file: String,
    record: String,
}

impl Place {
    fn damaged(&self, byte_offset: u64, problem: &str) -> WfdbError {
        WfdbError::SignalData {
            file: self.file.clone(),
            record: self.record.clone(),
            byte_offset,
            problem: problem.to_owned(),
        }
    }

    fn flac(&self, error: FlacError) -> WfdbError {
        match error {
            FlacError::Source(error) => error,
            FlacError::Damaged { byte_offset, problem } => self.damaged(byte_offset, &problem),
        }
    }
}
