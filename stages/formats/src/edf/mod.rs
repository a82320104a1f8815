//! EDF and BDF files, with and without `+`: a strict reader that holds one data record at a time.
//!
//! Samples stay the integers of the file. What EDF says in other words becomes WFDB: signals of different frequencies are
//! samples per frame, gaps between data records (EDF+D) are invalid samples, annotations are notes (code `"`, the text as
//! auxiliary text; one with a duration becomes `(text` and `text)`, as `rdedfann` of wfdb-python has it).
//!
//! Crates that were looked at first, and why they are not used here: `edf-rs` 0.2.0 (reads EDF+ and BDF+, but calls itself
//! unstable, holds errors without places, sizes buffers by the header and reads annotations past the end of their
//! signal), `edfplus` 0.1.0 (one release; refuses EDF+D), `edf-reader` 0.6.0 (panics on malformed numbers), `edf`
//! 0.0.0-alpha and `edflib` (bindings to a C library).

mod header;
mod tal;

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, Format, Header, INVALID_I32, MAX_SAMPLE_N, MAX_SAMPLES_PER_FRAME,
    MAX_SAMPLING_FREQUENCY_HZ, Signal,
};

use self::header::{Continuity, EdfHeader, EdfSignal, HEADER_UNIT_BYTE_N};
use crate::{
    error::{FormatError, open_file, shown, unreadable},
    recording::{Opened, Options, select, start_after},
};

/// Largest data record that is read. The specification recommends at most 61,440 bytes.
pub const MAX_DATA_RECORD_BYTE_N: u64 = 64 << 20;
/// Most annotations in a file.
pub const MAX_ANNOTATION_N: usize = 1 << 20;
/// Gaps may make a recording so many times as long as what was recorded, plus [`MAX_GAP_SAMPLE_N`] samples: a small file must not
/// ask for a huge recording.
pub const MAX_GAP_FACTOR: u64 = 100;
/// Invalid samples that gaps may always add, all leads together: two hours of twelve leads at 200 Hz.
pub const MAX_GAP_SAMPLE_N: u64 = 1 << 24;

/// Data records are read until they fill this, or one at a time if they are larger.
const BUFFER_BYTE_N: u64 = 1 << 20;
/// Longest auxiliary text of an annotation in a WFDB file.
const MAX_AUX_BYTE_N: usize = 255;
/// A part of a frame that is not worth a word.
const NEGLIGIBLE_FRAME: f64 = 1e-3;

/// An open file.
#[derive(Debug)]
pub(crate) struct Edf {
    file: File,
    path: PathBuf,
    header: EdfHeader,
    chosen: Vec<Chosen>,
    record_frame_n: u64,
    /// Runs of data records without a gap, in order.
    segments: Vec<Segment>,
    frame_n: u64,
    /// Data records in memory, the number of the first one, and how many there are.
    buffer: Vec<u8>,
    buffered: (u64, u64),
}

/// A signal that is read.
#[derive(Debug)]
struct Chosen {
    /// Where its samples are in a data record.
    byte_offset: usize,
    samples_per_frame: usize,
}

/// Data records that follow one another without a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    first_frame_idx: u64,
    first_record_idx: u64,
    record_n: u64,
}

impl Edf {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<(Self, Opened), FormatError> {
        let origin = path.display().to_string();
        let (mut file, found_byte_n) = open_file(path)?;
        let header = read_header(&mut file, path, &origin, found_byte_n)?;
        let mut notes = header.notes.clone();
        let record_n = record_n(&header, found_byte_n, &origin, &mut notes)?;

        let ordinary: Vec<usize> =
            (0..header.signals.len()).filter(|&idx| !header.signals[idx].is_annotations).collect();
        let names: Vec<String> = ordinary.iter().map(|&idx| lead_name(&header.signals[idx].label)).collect();
        let picked: Vec<usize> =
            select(&names, &options.leads, &origin)?.into_iter().map(|place| ordinary[place]).collect();
        if picked.is_empty() {
            let problem = "the file has annotations, but no signals; read it with a tool for annotations".to_owned();
            return Err(FormatError::Choice { origin, problem });
        }
        let record_frame_n = picked.iter().map(|&idx| u64::from(header.signals[idx].sample_n)).fold(0, greatest_common);
        let sampling_frequency_hz = record_frame_n as f64 / header.record_s;
        if !(sampling_frequency_hz > 0.0 && sampling_frequency_hz <= MAX_SAMPLING_FREQUENCY_HZ) {
            return Err(FormatError::Edf {
                origin,
                byte_offset: 244,
                field: "duration of a data record".to_owned(),
                found: header.record_s.to_string(),
                problem: format!(
                    "gives a sampling frequency of {sampling_frequency_hz} Hz, outside 0 to {MAX_SAMPLING_FREQUENCY_HZ:e}; \
                     correct the field"
                ),
            });
        }

        let mut edf = Self {
            file,
            path: path.to_owned(),
            chosen: Vec::new(),
            record_frame_n,
            segments: vec![Segment { first_frame_idx: 0, first_record_idx: 0, record_n }],
            frame_n: record_n.saturating_mul(record_frame_n),
            buffer: Vec::new(),
            buffered: (0, 0),
            header,
        };
        let mut signals = Vec::new();
        for &idx in &picked {
            let samples_per_frame = u64::from(edf.header.signals[idx].sample_n) / record_frame_n;
            let samples_per_frame =
                u32::try_from(samples_per_frame).ok().filter(|n| *n <= MAX_SAMPLES_PER_FRAME).ok_or_else(|| {
                    let name = shown(&edf.header.signals[idx].label);
                    let problem = format!(
                        "signal {name} has {samples_per_frame} samples in the time in which another one has 1, more than the \
                         {MAX_SAMPLES_PER_FRAME} that WFDB holds; choose leads of like frequencies"
                    );
                    FormatError::Choice { origin: origin.clone(), problem }
                })?;
            let before = edf.header.signals[..idx].iter().map(|signal| u64::from(signal.sample_n)).sum::<u64>();
            edf.chosen.push(Chosen {
                byte_offset: usize::try_from(before).expect("within a data record") * edf.header.sample_byte_n,
                samples_per_frame: samples_per_frame as usize,
            });
            let signal = &edf.header.signals[idx];
            signals.push(wfdb_signal(signal, edf.header.sample_byte_n, samples_per_frame, &origin, &mut notes)?);
        }

        let (start_s, lists) = match edf.header.continuity {
            Continuity::Plain => (0.0, Vec::new()),
            _ => edf.scan(&origin, sampling_frequency_hz, &mut notes)?,
        };
        if edf.frame_n > MAX_SAMPLE_N {
            let problem = format!("{} frames are more than the limit of {MAX_SAMPLE_N}; split the file", edf.frame_n);
            return Err(FormatError::Choice { origin, problem });
        }
        let finest_n = edf.chosen.iter().map(|signal| signal.samples_per_frame).max().unwrap_or(1);
        let fastest = Fastest {
            sampling_frequency_hz: sampling_frequency_hz * finest_n as f64,
            sample_n: edf.frame_n * finest_n as u64,
        };
        let annotations = to_annotations(&lists, start_s, fastest, &mut notes);
        let (base_time, base_date) = start_after(edf.header.start_time, Some(edf.header.start_date), start_s);
        let comments = [("patient", &edf.header.patient), ("recording", &edf.header.recording)]
            .into_iter()
            .filter(|(_, text)| text.chars().any(|letter| letter != 'X' && letter != ' '))
            .map(|(field, text)| format!("{field}: {}", text.trim()))
            .collect();
        let header = Header {
            record_name: String::new(),
            sampling_frequency_hz,
            counter_frequency_hz: sampling_frequency_hz,
            base_counter: 0.0,
            sample_n: Some(edf.frame_n),
            base_time: Some(base_time),
            base_date,
            signals,
            segment_signal_n: 0,
            segments: Vec::new(),
            comments,
        };
        Ok((edf, Opened { header, annotations, notes }))
    }

    /// Reads the annotation signals of all data records: when each starts, and what happened.
    fn scan(
        &mut self,
        origin: &str,
        sampling_frequency_hz: f64,
        notes: &mut Vec<String>,
    ) -> Result<(f64, Vec<Event>), FormatError> {
        let record_n = self.segments[0].record_n;
        let signals: Vec<(usize, u64, usize)> = self
            .header
            .signals
            .iter()
            .scan(0_u64, |at, signal| {
                let byte_n = u64::from(signal.sample_n) * self.header.sample_byte_n as u64;
                let begin = *at;
                *at += byte_n;
                Some((signal.is_annotations, begin, byte_n))
            })
            .enumerate()
            .filter(|(_, (is_annotations, ..))| *is_annotations)
            .map(|(idx, (_, begin, byte_n))| (idx, begin, usize::try_from(byte_n).expect("within a data record")))
            .collect();
        let mut timeline = Timeline {
            is_continuous: self.header.continuity == Continuity::Continuous,
            sampling_frequency_hz,
            record_frame_n: self.record_frame_n,
            start_s: 0.0,
            segments: Vec::new(),
            most_moved: (0.0, 0),
        };
        let mut events = Vec::new();
        let mut bytes = Vec::new();
        for record_idx in 0..record_n {
            for (place, &(signal_idx, begin, byte_n)) in signals.iter().enumerate() {
                let byte_offset = self.header.byte_n() + record_idx * self.header.record_byte_n() + begin;
                bytes.resize(byte_n, 0);
                self.file
                    .seek(SeekFrom::Start(byte_offset))
                    .and_then(|_| self.file.read_exact(&mut bytes))
                    .map_err(unreadable(&self.path))?;
                let fail = |byte_offset: u64, found: String, problem: String| FormatError::Edf {
                    origin: origin.to_owned(),
                    byte_offset,
                    field: format!("annotations of data record {} (signal {})", record_idx + 1, signal_idx + 1),
                    found,
                    problem,
                };
                let lists = tal::parse(&bytes).map_err(|error| {
                    fail(byte_offset + error.byte_offset as u64, error.found, error.problem.to_owned())
                })?;
                if place == 0 {
                    let onset_s = lists.first().filter(|list| list.is_time_keeping).map(|list| list.onset_s);
                    let problem = match onset_s {
                        Some(onset_s) => timeline.add(record_idx, onset_s).err().map(|problem| (onset_s, problem)),
                        None => {
                            let problem = "do not begin with the time of the record (an onset with an empty text); the file is damaged";
                            return Err(fail(byte_offset, String::new(), problem.to_owned()));
                        }
                    };
                    if let Some((onset_s, problem)) = problem {
                        return Err(fail(byte_offset, format!("{onset_s:+}"), problem));
                    }
                }
                for list in &lists {
                    for text in &list.texts {
                        if events.len() == MAX_ANNOTATION_N {
                            let problem =
                                format!("are more than the limit of {MAX_ANNOTATION_N} in all; split the file");
                            return Err(fail(byte_offset, shown(text), problem));
                        }
                        let text = (*text).to_owned();
                        events.push(Event { onset_s: list.onset_s, duration_s: list.duration_s, text });
                    }
                }
            }
        }
        let (moved, moved_record_idx) = timeline.most_moved;
        if moved > NEGLIGIBLE_FRAME {
            notes.push(format!(
                "data records do not start on a sample: they were moved by up to {moved:.3} of one (data record {})",
                moved_record_idx + 1
            ));
        }
        let start_s = timeline.start_s;
        self.segments = timeline.segments;
        let last = self.segments.last().expect("there is one data record or more");
        let recorded_n = self.frame_n;
        self.frame_n = last.first_frame_idx + last.record_n * self.record_frame_n;
        let gap_n = self.frame_n - recorded_n;
        if gap_n > 0 {
            let frame_sample_n = self.chosen.iter().map(|signal| signal.samples_per_frame as u64).sum::<u64>();
            let limit_n = recorded_n.saturating_mul(MAX_GAP_FACTOR).saturating_add(MAX_GAP_SAMPLE_N / frame_sample_n);
            if gap_n > limit_n {
                let problem = format!(
                    "the gaps between data records would be {gap_n} invalid samples beside {recorded_n} recorded ones, more than \
                     the limit of {limit_n}; split the file at its gaps"
                );
                return Err(FormatError::Choice { origin: origin.to_owned(), problem });
            }
            let gaps = self.segments.len() - 1;
            let (gaps, seconds) = (
                if gaps == 1 { "1 gap".to_owned() } else { format!("{gaps} gaps") },
                gap_n as f64 / sampling_frequency_hz,
            );
            notes.push(format!("{gaps} between data records, {seconds:.3} s in all, became invalid samples"));
        }
        Ok((start_s, events))
    }

    /// Appends the next samples of every lead from `frame_idx` on: `frame_n` frames, or as many as are left.
    pub(crate) fn read(&mut self, frame_idx: u64, frame_n: u64, pieces: &mut [Vec<i32>]) -> Result<(), FormatError> {
        let mut at = frame_idx;
        let end = self.frame_n.min(frame_idx + frame_n);
        while at < end {
            let next = self.segments.partition_point(|segment| segment.first_frame_idx <= at);
            let segment = self.segments[next - 1];
            let segment_end = segment.first_frame_idx + segment.record_n * self.record_frame_n;
            if at >= segment_end {
                let gap_end = self.segments.get(next).map_or(end, |segment| segment.first_frame_idx).min(end);
                for (signal, piece) in self.chosen.iter().zip(&mut *pieces) {
                    let sample_n =
                        usize::try_from(gap_end - at).expect("a piece is in memory") * signal.samples_per_frame;
                    piece.resize(piece.len() + sample_n, INVALID_I32);
                }
                at = gap_end;
                continue;
            }
            let inside = at - segment.first_frame_idx;
            let record_idx = segment.first_record_idx + inside / self.record_frame_n;
            let skipped_n = inside % self.record_frame_n;
            let taken_n = (self.record_frame_n - skipped_n).min(end - at);
            self.load(record_idx, segment.first_record_idx + segment.record_n)?;
            let record_byte_n = usize::try_from(self.header.record_byte_n()).expect("within the limit");
            let begin = usize::try_from(record_idx - self.buffered.0).expect("in the buffer") * record_byte_n;
            let record = &self.buffer[begin..begin + record_byte_n];
            let (skipped_n, frame_n) = (skipped_n as usize, taken_n as usize);
            for (signal, piece) in self.chosen.iter().zip(&mut *pieces) {
                let byte_n = signal.samples_per_frame * self.header.sample_byte_n;
                let bytes = &record[signal.byte_offset + skipped_n * byte_n..][..frame_n * byte_n];
                if self.header.sample_byte_n == 2 {
                    piece.extend(bytes.as_chunks::<2>().0.iter().map(|pair| i32::from(i16::from_le_bytes(*pair))));
                } else {
                    let wide = |[low, middle, high]: &[u8; 3]| i32::from_le_bytes([0, *low, *middle, *high]) >> 8;
                    piece.extend(bytes.as_chunks::<3>().0.iter().map(wide));
                }
            }
            at += taken_n;
        }
        Ok(())
    }

    /// Makes sure that a data record is in the buffer, and those before `end_idx` that fit into it.
    fn load(&mut self, record_idx: u64, end_idx: u64) -> Result<(), FormatError> {
        let (first_idx, buffered_n) = self.buffered;
        if (first_idx..first_idx + buffered_n).contains(&record_idx) {
            return Ok(());
        }
        let record_byte_n = self.header.record_byte_n();
        let wanted_n = (BUFFER_BYTE_N / record_byte_n).max(1).min(end_idx - record_idx);
        self.buffered = (0, 0);
        self.buffer.resize(usize::try_from(wanted_n * record_byte_n).expect("within the limit"), 0);
        let byte_offset = self.header.byte_n() + record_idx * record_byte_n;
        self.file
            .seek(SeekFrom::Start(byte_offset))
            .and_then(|_| self.file.read_exact(&mut self.buffer))
            .map_err(unreadable(&self.path))?;
        self.buffered = (record_idx, wanted_n);
        Ok(())
    }
}

fn read_header(file: &mut File, path: &Path, origin: &str, found_byte_n: u64) -> Result<EdfHeader, FormatError> {
    let too_short = |expected_byte_n: u64, reason: &str| FormatError::Length {
        origin: origin.to_owned(),
        expected_byte_n,
        found_byte_n,
        reason: reason.to_owned(),
        help: "this is another format, or it is cut short: fetch it again",
    };
    if found_byte_n < HEADER_UNIT_BYTE_N as u64 {
        return Err(too_short(HEADER_UNIT_BYTE_N as u64, "its fixed part alone"));
    }
    let mut main = [0; HEADER_UNIT_BYTE_N];
    file.read_exact(&mut main).map_err(unreadable(path))?;
    let signal_n = EdfHeader::signal_n(&main, origin)?;
    let byte_n = (signal_n + 1) * HEADER_UNIT_BYTE_N;
    if found_byte_n < byte_n as u64 {
        return Err(too_short(byte_n as u64, &format!("its part on {signal_n} signals alone")));
    }
    let mut bytes = main.to_vec();
    bytes.resize(byte_n, 0);
    file.read_exact(&mut bytes[HEADER_UNIT_BYTE_N..]).map_err(unreadable(path))?;
    EdfHeader::parse(&bytes, origin)
}

/// The number of data records, if the length of the file agrees.
fn record_n(header: &EdfHeader, found_byte_n: u64, origin: &str, notes: &mut Vec<String>) -> Result<u64, FormatError> {
    let record_byte_n = header.record_byte_n();
    if record_byte_n > MAX_DATA_RECORD_BYTE_N {
        let problem = format!(
            "a data record of {record_byte_n} bytes is more than the limit of {MAX_DATA_RECORD_BYTE_N}; write it with records of \
             a second or so"
        );
        return Err(FormatError::Choice { origin: origin.to_owned(), problem });
    }
    let data_byte_n = found_byte_n - header.byte_n();
    let record_n = header.record_n.unwrap_or(data_byte_n.div_ceil(record_byte_n).max(1));
    let expected_byte_n = record_n.saturating_mul(record_byte_n).saturating_add(header.byte_n());
    if expected_byte_n != found_byte_n {
        let reason =
            format!("{record_n} data records of {record_byte_n} bytes after {} bytes of header", header.byte_n());
        let help = if found_byte_n < expected_byte_n {
            "it is cut short: fetch it again"
        } else {
            "it has more than its header knows of: fetch it again"
        };
        return Err(FormatError::Length { origin: origin.to_owned(), expected_byte_n, found_byte_n, reason, help });
    }
    if header.record_n.is_none() {
        notes.push(format!(
            "the header does not give the number of data records (-1): the file has {record_n}; the recorder may have stopped early"
        ));
    }
    Ok(record_n)
}

/// The lead's name: `II` of the label `ECG II`, as EDF+ writes the standard leads; else the whole label, so that `ECG chest`
/// still tells what it is.
fn lead_name(label: &str) -> String {
    let label = label.trim();
    let lead = ["ECG ", "EKG "].iter().find_map(|kind| label.strip_prefix(kind)).map(str::trim);
    lead.filter(|lead| is_ecg_lead(lead)).unwrap_or(if label.is_empty() { "unnamed" } else { label }).to_owned()
}

/// Whether a name is that of an ECG lead: one of the standard ones, or one with `ECG` or `EKG` in it.
pub fn is_ecg_lead(name: &str) -> bool {
    const STANDARD: [&str; 24] = [
        "I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", "V9", "V3R", "V4R",
        "MLI", "MLII", "MLIII", "MCL1", "CM5", "V", "D2",
    ];
    let upper = name.to_ascii_uppercase();
    upper.contains("ECG") || upper.contains("EKG") || STANDARD.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn wfdb_signal(
    signal: &EdfSignal,
    sample_byte_n: usize,
    samples_per_frame: u32,
    origin: &str,
    notes: &mut Vec<String>,
) -> Result<Signal, FormatError> {
    let name = lead_name(&signal.label);
    let ((physical_min, physical_max), (digital_min, digital_max)) = (signal.physical, signal.digital);
    let bit_n = sample_byte_n as u32 * 8;
    let limit = 1_i64 << (bit_n - 1);
    let fail = |found: String, problem: &str| FormatError::Edf {
        origin: origin.to_owned(),
        byte_offset: signal.range_byte_offset,
        field: format!("range of signal {}", shown(&signal.label)),
        found,
        problem: problem.to_owned(),
    };
    let digital_range = format!("{digital_min} to {digital_max}");
    if digital_min >= digital_max {
        return Err(fail(
            digital_range,
            "must rise: the header is damaged, or leave this signal out by naming the leads to read",
        ));
    }
    if i64::from(digital_min) < -limit || i64::from(digital_max) >= limit {
        return Err(fail(digital_range, "does not fit in the samples of the file; the header is damaged"));
    }
    if physical_min == physical_max {
        let found = format!("{physical_min} to {physical_max}");
        return Err(fail(
            found,
            "is empty, so that samples mean nothing: correct the header, or leave this signal out by naming the leads to read",
        ));
    }
    let digital_span = f64::from(digital_max) - f64::from(digital_min);
    let physical_span = physical_max - physical_min;
    // The header's eight characters do not know the gain better than this; what is behind it is noise of the division.
    let gain_adu_per_unit = rounded_to_12_digits(digital_span / physical_span);
    let zero_adu = (f64::from(digital_min) * physical_max - f64::from(digital_max) * physical_min) / physical_span;
    let baseline_adu = zero_adu.round();
    if !gain_adu_per_unit.is_finite() || gain_adu_per_unit == 0.0 || baseline_adu.abs() > f64::from(i32::MAX) {
        let found = format!("{physical_min} to {physical_max}");
        return Err(fail(found, "gives a gain or a zero that is out of bounds; the header is damaged"));
    }
    let moved_adu = (zero_adu - baseline_adu).abs();
    if moved_adu > NEGLIGIBLE_FRAME {
        let units = moved_adu / gain_adu_per_unit.abs();
        notes.push(format!(
            "lead {}: 0 {} lies at {zero_adu:.3} of the ADC, and WFDB has whole numbers there: every value moves by {units:.3e} {}",
            shown(&name),
            signal.units,
            signal.units
        ));
    }
    Ok(Signal {
        file_name: String::new(),
        format: if sample_byte_n == 2 { Format::Fixed16 } else { Format::Fixed24 },
        samples_per_frame,
        skew_n: 0,
        byte_offset: 0,
        gain_adu_per_unit,
        is_calibrated: true,
        baseline_adu: baseline_adu as i32,
        units: signal.units.clone(),
        adc_resolution_bits: bit_n as u8,
        adc_zero_adu: 0,
        initial_value_adu: None,
        checksum: None,
        block_size: 0,
        description: name,
    })
}

fn rounded_to_12_digits(number: f64) -> f64 {
    format!("{number:.11e}").parse().unwrap_or(number)
}

fn greatest_common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common(b, a % b) }
}

/// When data records start.
struct Timeline {
    is_continuous: bool,
    sampling_frequency_hz: f64,
    record_frame_n: u64,
    /// Start of the first record.
    start_s: f64,
    segments: Vec<Segment>,
    /// The largest distance of a record's start from a sample, in frames, and its record.
    most_moved: (f64, u64),
}

impl Timeline {
    /// Adds the next data record; an error says what is wrong with its onset.
    fn add(&mut self, record_idx: u64, onset_s: f64) -> Result<(), String> {
        let Some(segment) = self.segments.last_mut() else {
            if onset_s < 0.0 {
                return Err("is before the start time of the file; the file is damaged".to_owned());
            }
            self.start_s = onset_s;
            self.segments.push(Segment { first_frame_idx: 0, first_record_idx: 0, record_n: 1 });
            return Ok(());
        };
        let expected_idx = segment.first_frame_idx + segment.record_n * self.record_frame_n;
        let found = (onset_s - self.start_s) * self.sampling_frequency_hz;
        let distance = found - expected_idx as f64;
        if distance < -0.5 {
            let expected_s = self.start_s + expected_idx as f64 / self.sampling_frequency_hz;
            return Err(format!(
                "is before the end of the data record before it, at {expected_s} s; the file is damaged"
            ));
        }
        if distance > MAX_SAMPLE_N as f64 {
            return Err(format!("is more than the limit of {MAX_SAMPLE_N} samples away; the file is damaged"));
        }
        let moved = if distance <= 0.5 {
            segment.record_n += 1;
            distance.abs()
        } else if self.is_continuous {
            let expected_s = self.start_s + expected_idx as f64 / self.sampling_frequency_hz;
            return Err(format!(
                "is not {expected_s} s, where the record before it ends, although the header says that there are no gaps (EDF+C); \
                 if there are, write EDF+D"
            ));
        } else {
            let first_frame_idx = found.round() as u64;
            self.segments.push(Segment { first_frame_idx, first_record_idx: record_idx, record_n: 1 });
            (found - found.round()).abs()
        };
        if moved > self.most_moved.0 {
            self.most_moved = (moved, record_idx);
        }
        Ok(())
    }
}

/// An annotation of the file.
struct Event {
    onset_s: f64,
    duration_s: Option<f64>,
    text: String,
}

/// The fastest lead. Annotations count its samples: a frame may be as long as the slowest lead's sample.
#[derive(Clone, Copy)]
struct Fastest {
    sampling_frequency_hz: f64,
    sample_n: u64,
}

fn to_annotations(events: &[Event], start_s: f64, fastest: Fastest, notes: &mut Vec<String>) -> Annotations {
    let Fastest { sampling_frequency_hz, sample_n } = fastest;
    let position = |at_s: f64| {
        let sample = ((at_s - start_s) * sampling_frequency_hz).round();
        (sample >= 0.0 && sample <= sample_n as f64).then_some(sample as u64)
    };
    let (mut outside_n, mut cut_n) = (0_usize, 0_usize);
    let mut items = Vec::new();
    let mut note = |sample_idx: u64, text: String| {
        let mut aux = text;
        if aux.len() > MAX_AUX_BYTE_N {
            let end = (0..=MAX_AUX_BYTE_N).rev().find(|&end| aux.is_char_boundary(end)).unwrap_or_default();
            aux.truncate(end);
            cut_n += 1;
        }
        items.push(Annotation { aux: aux.into_bytes(), ..Annotation::new(sample_idx, AnnotationCode::NOTE) });
    };
    for event in events {
        let Some(sample_idx) = position(event.onset_s) else {
            outside_n += 1;
            continue;
        };
        match event.duration_s.filter(|duration_s| *duration_s > 0.0) {
            None => note(sample_idx, event.text.clone()),
            Some(duration_s) => {
                note(sample_idx, format!("({}", event.text));
                note(position(event.onset_s + duration_s).unwrap_or(sample_n), format!("{})", event.text));
            }
        }
    }
    items.sort_by_key(|annotation| annotation.sample_idx);
    if outside_n > 0 {
        notes.push(format!("annotations outside of the recorded time were left out: {outside_n}"));
    }
    if cut_n > 0 {
        notes.push(format!("annotations of more than {MAX_AUX_BYTE_N} bytes were cut to what WFDB holds: {cut_n}"));
    }
    let time_resolution_hz = (!items.is_empty()).then_some(sampling_frequency_hz);
    Annotations { items, time_resolution_hz, ..Annotations::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_named_without_the_type_of_its_signal() {
        for (label, name) in [
            ("ECG II", "II"),
            ("EKG  V5", "V5"),
            ("ECG", "ECG"),
            ("ECG chest", "ECG chest"),
            ("EEG Fpz-Cz", "EEG Fpz-Cz"),
            ("ECG ", "ECG"),
            ("", "unnamed"),
        ] {
            assert_eq!(lead_name(label), name);
        }
    }

    /// Onsets at 10 Hz with records of one second: where segments start, or what is wrong.
    fn check(is_continuous: bool, onsets: &[f64], expected: &str) {
        let mut timeline = Timeline {
            is_continuous,
            sampling_frequency_hz: 10.0,
            record_frame_n: 10,
            start_s: 0.0,
            segments: Vec::new(),
            most_moved: (0.0, 0),
        };
        for (record_idx, &onset_s) in onsets.iter().enumerate() {
            if let Err(problem) = timeline.add(record_idx as u64, onset_s) {
                assert_eq!(format!("{record_idx}: {problem}"), expected);
                return;
            }
        }
        let segments: Vec<String> = timeline
            .segments
            .iter()
            .map(|segment| format!("{}+{}", segment.first_frame_idx, segment.record_n))
            .collect();
        assert_eq!(segments.join(" "), expected);
    }

    #[test]
    fn gaps_are_between_segments() {
        check(false, &[0.0, 1.0, 2.0], "0+3");
        check(false, &[0.25, 1.25, 5.25, 6.25], "0+2 50+2");
        check(false, &[0.0, 1.04, 3.52], "0+2 35+1");
        check(false, &[0.0, 0.9], "1: is before the end of the data record before it, at 1 s; the file is damaged");
        check(
            true,
            &[0.0, 2.0],
            "1: is not 1 s, where the record before it ends, although the header says that there are no gaps (EDF+C); if there are, write EDF+D",
        );
        check(false, &[-1.0], "0: is before the start time of the file; the file is damaged");
    }
}
