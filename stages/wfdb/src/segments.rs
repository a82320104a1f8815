//! Multi-segment records: ordinary records that follow each other in time, read as one.
//!
//! In a record of fixed layout every segment has the same signals in the same order. In one of variable layout the first
//! segment is a header alone (the layout), segments have some of its signals, found by their description, and what is
//! missing is invalid. `~` is a gap.
//!
//! All samples are wide and in the ADC units of the layout, or of the first segment in a record of fixed layout. Where a
//! segment has another gain or baseline they are converted and rounded as the C library does:
//! `floor((sample - baseline) * gain' / gain + baseline' + 0.5)`.
//!
//! Invariant: one segment is open at a time (`one_segment_is_open_at_a_time`).

use std::ops::Range;

use crate::error::{WfdbError, shown};
use crate::header::MAX_HEADER_BYTE_N;
use crate::reader::{Chunk, Open, RecordReader, Verification, check_name};
use crate::samples::{INVALID_I32, Samples};
use crate::{Header, Segment, Signal};

/// Name of a gap.
const GAP: &str = "~";

pub(crate) struct Segments<'a> {
    origin: String,
    sampling_frequency_hz: f64,
    parts: Vec<Part>,
    /// The signals of the whole.
    signals: Vec<Signal>,
    is_variable: bool,
    open: Open<'a>,
    current: Option<Current<'a>>,
    /// Frames from the first one on that have passed in order, in segments that were verified as they ended.
    passed_n: u64,
    scratch: Chunk,
}

/// A segment and where it starts.
struct Part {
    segment: Segment,
    start: u64,
}

struct Current<'a> {
    part_idx: usize,
    reader: RecordReader<'a>,
    /// Where each signal of the segment goes; `None` for a null signal that the layout lacks.
    mappings: Vec<Option<Mapping>>,
}

/// One of the layout's columns, and the way to its ADC units; `None` if they are the same.
struct Mapping {
    column_idx: usize,
    conversion: Option<Conversion>,
}

struct Conversion {
    scale: f64,
    offset: f64,
}

impl<'a> Segments<'a> {
    pub(crate) fn open(header: &Header, origin: &str, open: Open<'a>) -> Result<Segments<'a>, WfdbError> {
        let mut parts = Vec::with_capacity(header.segments.len());
        let mut start: u64 = 0;
        for segment in &header.segments {
            parts.push(Part { segment: segment.clone(), start });
            // At most 2^20 segments of 2^40 frames.
            start += segment.sample_n;
        }
        if let Some(sample_n) = header.sample_n.filter(|sample_n| *sample_n != start) {
            return Err(WfdbError::Header {
                origin: origin.to_owned(),
                line: 1,
                column: 1,
                field: "number of samples",
                found: sample_n.to_string(),
                problem: format!("is not that of all segments, which is {start}; correct one of them"),
            });
        }
        let mut segments = Segments {
            origin: origin.to_owned(),
            sampling_frequency_hz: header.sampling_frequency_hz,
            parts,
            signals: Vec::new(),
            is_variable: false,
            open,
            current: None,
            passed_n: 0,
            scratch: Chunk::new(),
        };
        // The layout, or the first segment that has signals, says what the whole has.
        let Some(first_idx) = segments.parts.iter().position(|part| part.segment.record_name != GAP) else {
            return Err(
                segments.fail(0, "all segments are gaps, so that nothing says which signals there are".to_owned())
            );
        };
        segments.is_variable = first_idx == 0 && segments.parts[0].segment.sample_n == 0;
        let (first, _) = segments.header_of(first_idx)?;
        segments.signals = first.signals;
        if segments.signals.len() != header.segment_signal_n {
            let (found_n, wanted_n) = (segments.signals.len(), header.segment_signal_n);
            let problem = format!("it has {found_n} signals, but line 1 of the whole record's header says {wanted_n}");
            return Err(segments.fail(first_idx, problem));
        }
        Ok(segments)
    }

    pub(crate) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    pub(crate) fn sample_n(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start + part.segment.sample_n)
    }

    /// Bytes of the signal files of all segments in a range; opens them one after the other.
    pub(crate) fn byte_n(&mut self, frames: &Range<u64>) -> Result<u64, WfdbError> {
        let mut byte_n: u64 = 0;
        for part_idx in self.overlapping(frames) {
            if self.parts[part_idx].segment.record_name != GAP {
                byte_n = byte_n.saturating_add(self.reader_of(part_idx)?.byte_n());
            }
        }
        Ok(byte_n)
    }

    /// The segments that have one of these frames.
    fn overlapping(&self, frames: &Range<u64>) -> Range<usize> {
        let start = self.parts.partition_point(|part| part.start + part.segment.sample_n <= frames.start);
        let end = self.parts.partition_point(|part| part.start < frames.end);
        start..end.max(start)
    }

    /// Appends the samples of some frames to one wide column a signal. Gives whether all frames have passed in order and
    /// every segment holds what its header says.
    pub(crate) fn read(&mut self, frames: Range<u64>, columns: &mut [Samples]) -> Result<bool, WfdbError> {
        if frames.start == 0 {
            self.passed_n = 0;
        }
        let mut is_verified = frames.start == self.passed_n;
        for part_idx in self.overlapping(&frames) {
            let Part { segment, start } = &self.parts[part_idx];
            let (start, sample_n) = (*start, segment.sample_n);
            let own = frames.start.max(start) - start..frames.end.min(start + sample_n) - start;
            if own.is_empty() {
                continue;
            }
            if segment.record_name != GAP {
                is_verified &= self.read_part(part_idx, own.clone(), columns)? || own.end < sample_n;
            }
            let read_n = usize::try_from(start + own.end - frames.start).expect("the frames fit in memory");
            for (signal, column) in self.signals.iter().zip(&mut *columns) {
                column.pad(read_n * signal.samples_per_frame as usize);
            }
        }
        if is_verified {
            self.passed_n = frames.end;
        }
        Ok(is_verified && self.passed_n == self.sample_n())
    }

    /// Appends what a segment has in some of its frames; gives whether it ended here, verified.
    fn read_part(&mut self, part_idx: usize, frames: Range<u64>, columns: &mut [Samples]) -> Result<bool, WfdbError> {
        if self.current.as_ref().is_none_or(|current| current.part_idx != part_idx) {
            self.current = None;
            let reader = self.reader_of(part_idx)?;
            let mappings = self.mappings(part_idx, reader.signals())?;
            self.current = Some(Current { part_idx, reader, mappings });
        }
        let current = self.current.as_mut().expect("it was just opened");
        current.reader.read_into(frames, &mut self.scratch)?;
        for (mapping, samples) in current.mappings.iter().zip(&self.scratch.samples) {
            let Some(mapping) = mapping else { continue };
            let Samples::Wide(column) = &mut columns[mapping.column_idx] else {
                unreachable!("columns of a multi-segment record are wide")
            };
            let Some(conversion) = &mapping.conversion else {
                column.extend(samples.iter());
                continue;
            };
            for sample in samples.iter() {
                let Some(converted) = conversion.convert(sample) else {
                    let signal = shown(&self.signals[mapping.column_idx].description);
                    let problem = format!(
                        "sample {sample} of {signal} is more than 32 bits hold in the units of the whole record; \
                         correct the gains in the segment's header or in the layout"
                    );
                    return Err(self.fail(part_idx, problem));
                };
                column.push(converted);
            }
        }
        Ok(self.scratch.verification == Verification::Whole)
    }

    /// The header of a segment, and its name for errors.
    fn header_of(&mut self, part_idx: usize) -> Result<(Header, String), WfdbError> {
        let name = &self.parts[part_idx].segment.record_name;
        let origin = format!("{name}.hea");
        let mut data = (self.open)(&origin)?;
        let header = Header::parse(data.read_whole(&origin, MAX_HEADER_BYTE_N as u64)?, &origin)?;
        check_name(&header, name, &origin)?;
        if !header.segments.is_empty() {
            let problem = "it is a multi-segment record itself; segments must be ordinary records";
            return Err(self.fail(part_idx, problem.to_owned()));
        }
        if header.sampling_frequency_hz != self.sampling_frequency_hz {
            let (found_hz, wanted_hz) = (header.sampling_frequency_hz, self.sampling_frequency_hz);
            return Err(self.fail(part_idx, format!("it has {found_hz} Hz, but the whole record has {wanted_hz} Hz")));
        }
        Ok((header, origin))
    }

    fn reader_of(&mut self, part_idx: usize) -> Result<RecordReader<'a>, WfdbError> {
        let (mut header, origin) = self.header_of(part_idx)?;
        let wanted_n = self.parts[part_idx].segment.sample_n;
        let found_n = *header.sample_n.get_or_insert(wanted_n);
        if found_n != wanted_n {
            let problem = format!("it has {found_n} frames, but the whole record's header says {wanted_n}");
            return Err(self.fail(part_idx, problem));
        }
        RecordReader::of_files(header, &origin, &mut self.open)
    }

    /// Finds the column of each signal of a segment.
    fn mappings(&self, part_idx: usize, signals: &[Signal]) -> Result<Vec<Option<Mapping>>, WfdbError> {
        if !self.is_variable && signals.len() != self.signals.len() {
            let (found_n, wanted_n) = (signals.len(), self.signals.len());
            let problem =
                format!("it has {found_n} signals, but the first segment has {wanted_n}, and there is no layout");
            return Err(self.fail(part_idx, problem));
        }
        let mut is_taken = vec![false; self.signals.len()];
        let mut mappings = Vec::with_capacity(signals.len());
        for (signal_idx, signal) in signals.iter().enumerate() {
            let is_it = |idx: &usize| {
                if self.is_variable {
                    !is_taken[*idx] && self.signals[*idx].description == signal.description
                } else {
                    *idx == signal_idx
                }
            };
            let name = shown(&signal.description);
            let Some(column_idx) = (0..self.signals.len()).find(is_it) else {
                if signal.format == crate::Format::Null {
                    mappings.push(None);
                    continue;
                }
                let problem =
                    format!("its signal {name} is not in the layout; add it there, as a line with file ~ and format 0");
                return Err(self.fail(part_idx, problem));
            };
            is_taken[column_idx] = true;
            let whole = &self.signals[column_idx];
            if signal.samples_per_frame != whole.samples_per_frame {
                let (found_n, wanted_n) = (signal.samples_per_frame, whole.samples_per_frame);
                let problem = format!("its signal {name} has {found_n} samples a frame, but in the whole {wanted_n}");
                return Err(self.fail(part_idx, problem));
            }
            if signal.units != whole.units {
                let (found, wanted) = (shown(&signal.units), shown(&whole.units));
                return Err(
                    self.fail(part_idx, format!("its signal {name} is in {found}, but in the whole in {wanted}"))
                );
            }
            mappings.push(Some(Mapping { column_idx, conversion: Conversion::between(signal, whole) }));
        }
        Ok(mappings)
    }

    fn fail(&self, part_idx: usize, problem: String) -> WfdbError {
        WfdbError::Segment {
            origin: self.origin.clone(),
            segment_idx: part_idx,
            segment: shown(&self.parts[part_idx].segment.record_name),
            problem,
        }
    }
}

impl Conversion {
    /// From one signal's ADC units to those of another; `None` if they are the same.
    fn between(from: &Signal, to: &Signal) -> Option<Conversion> {
        if from.gain_adu_per_unit == to.gain_adu_per_unit && from.baseline_adu == to.baseline_adu {
            return None;
        }
        let scale = to.gain_adu_per_unit / from.gain_adu_per_unit;
        Some(Conversion { scale, offset: f64::from(to.baseline_adu) - scale * f64::from(from.baseline_adu) + 0.5 })
    }

    /// `None` if the converted sample does not fit.
    fn convert(&self, sample: i32) -> Option<i32> {
        if sample == INVALID_I32 {
            return Some(INVALID_I32);
        }
        let converted = (f64::from(sample) * self.scale + self.offset).floor();
        // Not NaN either; and the lowest value means an invalid sample.
        let is_valid = converted > f64::from(i32::MIN) && converted <= f64::from(i32::MAX);
        is_valid.then_some(converted as i32)
    }
}
