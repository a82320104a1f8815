//! The text header of a record, as header(5) of the WFDB applications guide defines it.
//!
//! Pure: text in, [`Header`] out, and back. It opens no file and allocates nothing by the numbers that it reads.

use crate::Format;
use crate::error::{WfdbError, shown};
use crate::source::is_plain_file_name;

/// Sampling frequency of a record whose header gives none (header(5)).
pub const DEFAULT_SAMPLING_FREQUENCY_HZ: f64 = 250.0;
/// ADC gain of a signal whose header gives none, or 0 (header(5)); the unit is then mV, and nothing was calibrated.
pub const DEFAULT_GAIN_ADU_PER_UNIT: f64 = 200.0;
/// Largest header that is parsed.
pub const MAX_HEADER_BYTE_N: usize = 16 << 20;
/// Most signals in a record.
pub const MAX_SIGNAL_N: usize = 4096;
/// Most segments in a multi-segment record.
pub const MAX_SEGMENT_N: usize = 1 << 20;
/// Most samples of one signal in a frame.
pub const MAX_SAMPLES_PER_FRAME: u32 = 10_000;
/// Most frames by which a signal is late in its file.
pub const MAX_SKEW_N: u32 = 1 << 16;
/// Most frames in a record: 2^40, which is 96 years at 360 Hz.
pub const MAX_SAMPLE_N: u64 = 1 << 40;
/// Highest sampling or counter frequency.
pub const MAX_SAMPLING_FREQUENCY_HZ: f64 = 1e9;

/// A parsed header. Every default of header(5) is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Name of the record: letters, digits, `_` and `-`.
    pub record_name: String,
    /// Frames per second, which is samples per second of a signal with one sample a frame.
    pub sampling_frequency_hz: f64,
    /// Counter ticks per second; the sampling frequency if the header gives none.
    pub counter_frequency_hz: f64,
    /// Counter value at sample 0; 0 if the header gives none.
    pub base_counter: f64,
    /// Frames in the record; `None` if the header gives none or 0, which means "as many as the signal files hold".
    pub sample_n: Option<u64>,
    /// Time of day of sample 0.
    pub base_time: Option<BaseTime>,
    /// Date of sample 0.
    pub base_date: Option<BaseDate>,
    /// The signals, in the header's order. Empty for a multi-segment record.
    pub signals: Vec<Signal>,
    /// The segments of a multi-segment record, in order; empty for an ordinary one.
    pub segments: Vec<Segment>,
    /// The number of signals of a multi-segment record, which its segments describe; 0 for an ordinary one.
    pub segment_signal_n: usize,
    /// Comment lines, without `#` and surrounding blanks.
    pub comments: Vec<String>,
}

/// One signal line of a header.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// The signal file, a plain name in the header's folder.
    pub file_name: String,
    /// How samples are stored.
    pub format: Format,
    /// Samples in each frame; 1 unless this signal is sampled faster than the record's frequency.
    pub samples_per_frame: u32,
    /// Frames by which this signal is late in the file.
    pub skew_n: u32,
    /// Bytes before the first sample in the file.
    pub byte_offset: u64,
    /// ADC units per physical unit; never 0.
    pub gain_adu_per_unit: f64,
    /// Whether the header gave the gain; if not, physical units are a guess by convention.
    pub is_calibrated: bool,
    /// The sample value of 0 physical units.
    pub baseline_adu: i32,
    /// Physical unit, `mV` by default.
    pub units: String,
    /// Significant bits of a sample.
    pub adc_resolution_bits: u8,
    /// The sample value in the middle of the ADC's range.
    pub adc_zero_adu: i32,
    /// The first sample; `None` if the header does not give it.
    pub initial_value_adu: Option<i32>,
    /// Sum of all samples modulo 2^16; `None` if the header does not give it.
    pub checksum: Option<i16>,
    /// Size of the blocks in which the C library reads the file; 0 leaves it to the library, and a negative number
    /// means a file that cannot be sought in, such as a tape. The bytes are the same whatever it is.
    pub block_size: i32,
    /// What the signal is: the lead's name, such as `MLII`. `record R, signal I` if the header gives none.
    pub description: String,
}

/// One segment line of a multi-segment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The segment's record name; `~` for a gap.
    pub record_name: String,
    /// Its length in frames.
    pub sample_n: u64,
}

/// A time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseTime {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999,999,999.
    pub nanosecond: u32,
}

impl std::fmt::Display for BaseTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.hour, self.minute, self.second)?;
        if self.nanosecond == 0 {
            return Ok(());
        }
        let digits = format!("{:09}", self.nanosecond);
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// A date, as it stands in the header. De-identified records have years far in the future or the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseDate {
    /// 1 to 31.
    pub day: u8,
    /// 1 to 12.
    pub month: u8,
    /// 0 to 9999.
    pub year: u16,
}

impl std::fmt::Display for BaseDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}/{:02}/{:04}", self.day, self.month, self.year)
    }
}

impl Header {
    /// Parses the bytes of a header. `origin` names the file in errors.
    ///
    /// # Errors
    ///
    /// Anything that header(5) does not allow, at its line and column: a missing or malformed field, a count over its
    /// limit, text after the last field, a line too few or too many, a signal file outside the header's folder.
    pub fn parse(bytes: impl AsRef<[u8]>, origin: &str) -> Result<Header, WfdbError> {
        let bytes = bytes.as_ref();
        if bytes.len() > MAX_HEADER_BYTE_N {
            return Err(WfdbError::TooLarge {
                origin: origin.to_owned(),
                found_byte_n: bytes.len() as u64,
                limit_byte_n: MAX_HEADER_BYTE_N as u64,
                help: "this is not a WFDB header",
            });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| WfdbError::NotUtf8 { origin: origin.to_owned(), byte_offset: error.valid_up_to() })?;

        let mut comments = Vec::new();
        let mut lines = Vec::new();
        for (line_idx, line) in text.lines().enumerate() {
            // The same blanks as between fields: a line is never empty here and a name there.
            let trimmed = line.trim_start_matches(is_blank);
            match trimmed.strip_prefix('#') {
                Some(comment) => comments.push(comment.trim().to_owned()),
                None if trimmed.is_empty() => {}
                None => lines.push(Fields::new(origin, line_idx + 1, line)),
            }
        }
        let last_line = text.lines().count().max(1);
        let mut lines = lines.into_iter();
        let Some(mut record_line) = lines.next() else {
            let empty = Fields::new(origin, last_line, "");
            return Err(empty.fail(
                1,
                "record line",
                "",
                "is missing; a header starts with `NAME SIGNALS FREQUENCY SAMPLES`",
            ));
        };
        let (mut header, counts) = parse_record_line(&mut record_line)?;
        header.comments = comments;

        let (wanted_n, kind) = match counts.segment_n {
            Some(segment_n) => (segment_n, "segment"),
            None => (counts.signal_n, "signal"),
        };
        for line_idx in 0..wanted_n {
            let Some(mut line) = lines.next() else {
                return Err(record_line.fail(
                    counts.column,
                    "number of signals or segments",
                    &wanted_n.to_string(),
                    &format!("needs as many {kind} lines, but only {line_idx} follow; add the missing lines, or correct the number"),
                ));
            };
            if counts.segment_n.is_some() {
                header.segments.push(parse_segment_line(&mut line)?);
            } else {
                header.signals.push(parse_signal_line(&mut line, &header.record_name, line_idx)?);
            }
            line.expect_end()?;
        }
        if let Some(line) = lines.next() {
            return Err(line.fail(
                1,
                "line",
                line.text,
                &format!("follows after the {wanted_n} {kind} lines that line {} announces; start it with # if it is a comment, or correct the number", record_line.line),
            ));
        }
        Ok(header)
    }

    /// The header as text, which parses to an equal header.
    ///
    /// # Errors
    ///
    /// [`WfdbError::Encode`] if a name, unit or comment has a character that the format cannot hold.
    pub fn to_text(&self) -> Result<String, WfdbError> {
        let text = self.render();
        let fail = |problem: String| WfdbError::Encode {
            what: format!("header of record {}", shown(&self.record_name)),
            problem,
        };
        // Whatever breaks the line format (a line feed in a comment, a blank in a unit) shows when it is read back.
        match Header::parse(&text, &format!("{}.hea", self.record_name)) {
            Ok(parsed) if parsed == *self => Ok(text),
            Ok(_) => Err(fail(
                "reads back different; names and units must not have blanks, comments and descriptions no line feeds and no surrounding blanks, a record 1 sample or more"
                    .to_owned(),
            )),
            Err(error) => Err(fail(format!("is not valid: {error}"))),
        }
    }

    fn render(&self) -> String {
        use std::fmt::Write as _;
        let mut text = self.record_name.clone();
        if !self.segments.is_empty() {
            let _ = write!(text, "/{}", self.segments.len());
        }
        let signal_n = self.signals.len() + self.segment_signal_n;
        let _ = write!(text, " {signal_n} {}", self.sampling_frequency_hz);
        if self.counter_frequency_hz != self.sampling_frequency_hz || self.base_counter != 0.0 {
            let _ = write!(text, "/{}", self.counter_frequency_hz);
        }
        if self.base_counter != 0.0 {
            let _ = write!(text, "({})", self.base_counter);
        }
        if self.sample_n.is_some() || self.base_time.is_some() || self.base_date.is_some() {
            let _ = write!(text, " {}", self.sample_n.unwrap_or(0));
        }
        if let Some(time) = self.base_time {
            let _ = write!(text, " {time}");
        } else if self.base_date.is_some() {
            // A date needs a time before it.
            text.push_str(" 00:00:00");
        }
        if let Some(date) = self.base_date {
            let _ = write!(text, " {date}");
        }
        text.push('\n');
        for signal in &self.signals {
            signal.render(&mut text);
        }
        for segment in &self.segments {
            let _ = writeln!(text, "{} {}", segment.record_name, segment.sample_n);
        }
        for comment in &self.comments {
            let _ = writeln!(text, "# {comment}");
        }
        text
    }
}

impl Signal {
    fn render(&self, text: &mut String) {
        use std::fmt::Write as _;
        let _ = write!(text, "{} {}", self.file_name, self.format);
        if self.samples_per_frame != 1 {
            let _ = write!(text, "x{}", self.samples_per_frame);
        }
        if self.skew_n != 0 {
            let _ = write!(text, ":{}", self.skew_n);
        }
        if self.byte_offset != 0 {
            let _ = write!(text, "+{}", self.byte_offset);
        }
        let gain = if self.is_calibrated { self.gain_adu_per_unit } else { 0.0 };
        let _ = write!(
            text,
            " {gain}({})/{} {} {}",
            self.baseline_adu, self.units, self.adc_resolution_bits, self.adc_zero_adu
        );
        // The rest is positional: a value can only follow if those before it are there.
        if let Some(initial_value) = self.initial_value_adu {
            let _ = write!(text, " {initial_value}");
            if let Some(checksum) = self.checksum {
                let _ = write!(text, " {checksum} {} {}", self.block_size, self.description);
            }
        }
        text.push('\n');
    }
}

struct Counts {
    signal_n: usize,
    segment_n: Option<usize>,
    column: usize,
}

fn parse_record_line(line: &mut Fields<'_>) -> Result<(Header, Counts), WfdbError> {
    let (column, name_field) = line.required("record name", "a name, such as 100")?;
    let (name, segments) = match name_field.split_once('/') {
        Some((name, segments)) => (name, Some(segments)),
        None => (name_field, None),
    };
    if !is_record_name(name) {
        return Err(line.fail(column, "record name", name, "is not a name of letters, digits, _ and -"));
    }
    let segments_column = column + name.len() + 1;
    let segment_n = segments
        .map(|text| line.count(segments_column, "number of segments", text, 1, MAX_SEGMENT_N as u64))
        .transpose()?;

    let (signals_column, text) = line.required("number of signals", "a count, such as 2")?;
    let signal_n = line.count(signals_column, "number of signals", text, 0, MAX_SIGNAL_N as u64)?;

    let mut sampling_frequency_hz = DEFAULT_SAMPLING_FREQUENCY_HZ;
    let mut counter_frequency_hz = None;
    let mut base_counter = 0.0;
    if let Some((column, field)) = line.next() {
        let (rates, base) = match field.split_once('(') {
            Some((rates, base)) => (rates, Some((column + rates.len() + 1, base))),
            None => (field, None),
        };
        let (sampling, counter) = match rates.split_once('/') {
            Some((sampling, counter)) => (sampling, Some((column + sampling.len() + 1, counter))),
            None => (rates, None),
        };
        sampling_frequency_hz = line.frequency(column, "sampling frequency", sampling)?;
        if let Some((column, counter)) = counter {
            counter_frequency_hz = Some(line.frequency(column, "counter frequency", counter)?);
        }
        if let Some((column, base)) = base {
            let number = base
                .strip_suffix(')')
                .ok_or_else(|| line.fail(column, "base counter value", base, "does not end with `)`"))?;
            base_counter = line.number(column, "base counter value", number)?;
        }
    }

    let sample_n = match line.next() {
        Some((column, text)) => match line.count(column, "number of samples", text, 0, MAX_SAMPLE_N)? {
            0 => None,
            sample_n => Some(sample_n),
        },
        None => None,
    };
    let (base_time, base_date) = parse_base(line)?;
    line.expect_end()?;

    let to_usize = |count: u64| usize::try_from(count).expect("the limits fit in 32 bits");
    let header = Header {
        record_name: name.to_owned(),
        sampling_frequency_hz,
        counter_frequency_hz: counter_frequency_hz.unwrap_or(sampling_frequency_hz),
        base_counter,
        sample_n,
        base_time,
        base_date,
        signals: Vec::new(),
        segments: Vec::new(),
        segment_signal_n: if segment_n.is_some() { to_usize(signal_n) } else { 0 },
        comments: Vec::new(),
    };
    let column = if segment_n.is_some() { segments_column } else { signals_column };
    Ok((header, Counts { signal_n: to_usize(signal_n), segment_n: segment_n.map(to_usize), column }))
}

fn parse_signal_line(line: &mut Fields<'_>, record_name: &str, signal_idx: usize) -> Result<Signal, WfdbError> {
    let (column, file_name) = line.required("signal file name", "a file name, such as 100.dat")?;
    if !is_plain_file_name(file_name) {
        return Err(line.fail(
            column,
            "signal file name",
            file_name,
            "leaves the header's folder or is no plain file name; put the file beside its header and give its name only",
        ));
    }

    let (column, field) = line.required("signal format", "a format, such as 212")?;
    let (format, samples_per_frame, skew_n, byte_offset) = parse_format_field(line, column, field)?;

    let mut gain_adu_per_unit = 0.0;
    let mut baseline_adu = None;
    let mut units = "mV";
    if let Some((column, field)) = line.next() {
        let gain_len = field.find(['(', '/']).unwrap_or(field.len());
        let (gain, rest) = field.split_at(gain_len);
        gain_adu_per_unit = line.number(column, "ADC gain", gain)?;
        let mut rest_column = column + gain_len;
        let mut rest = rest;
        if let Some(inner) = rest.strip_prefix('(') {
            let Some((baseline, after)) = inner.split_once(')') else {
                return Err(line.fail(rest_column, "baseline", rest, "does not end with `)`"));
            };
            baseline_adu = Some(line.integer(rest_column + 1, "baseline", baseline)?);
            rest_column += baseline.len() + 2;
            rest = after;
        }
        if !rest.is_empty() {
            units = rest
                .strip_prefix('/')
                .filter(|units| !units.is_empty())
                .ok_or_else(|| line.fail(rest_column, "units", rest, "are not `/` and a unit, such as /mV"))?;
        }
    }
    let is_calibrated = gain_adu_per_unit != 0.0;
    if !is_calibrated {
        gain_adu_per_unit = DEFAULT_GAIN_ADU_PER_UNIT;
    }

    let adc_resolution_bits = match line.next() {
        Some((column, text)) => {
            let bits = line.count(column, "ADC resolution", text, 0, 32)?;
            u8::try_from(bits).expect("at most 32")
        }
        None => 0,
    };
    let adc_zero_adu = match line.next() {
        Some((column, text)) => line.integer(column, "ADC zero", text)?,
        None => 0,
    };
    let initial_value_adu = match line.next() {
        Some((column, text)) => Some(line.integer(column, "initial value", text)?),
        None => None,
    };
    let checksum = match line.next() {
        Some((column, text)) => {
            let sum = line.integer(column, "checksum", text)?;
            // The C library writes the sum signed, wfdb-python unsigned.
            let sum = i16::try_from(sum).ok().or_else(|| u16::try_from(sum).ok().map(u16::cast_signed));
            Some(sum.ok_or_else(|| line.fail(column, "checksum", text, "is not a 16-bit number, -32768 to 65535"))?)
        }
        None => None,
    };
    let block_size = match line.next() {
        Some((column, text)) => line.integer(column, "block size", text)?,
        None => 0,
    };
    let description = match line.rest() {
        "" => format!("record {record_name}, signal {signal_idx}"),
        text => text.to_owned(),
    };
    Ok(Signal {
        file_name: file_name.to_owned(),
        format,
        samples_per_frame,
        skew_n,
        byte_offset,
        gain_adu_per_unit,
        is_calibrated,
        baseline_adu: baseline_adu.unwrap_or(adc_zero_adu),
        units: units.to_owned(),
        adc_resolution_bits: match adc_resolution_bits {
            0 => format.default_adc_resolution_bits(),
            bits => bits,
        },
        adc_zero_adu,
        initial_value_adu,
        checksum,
        block_size,
        description,
    })
}

/// `FORMAT[xSAMPLES][:SKEW][+OFFSET]`.
fn parse_format_field(line: &Fields<'_>, column: usize, field: &str) -> Result<(Format, u32, u32, u64), WfdbError> {
    let mut at = 0;
    let mut digits = |prefix: Option<char>| -> Option<(usize, &str)> {
        let mut rest = &field[at..];
        if let Some(prefix) = prefix {
            rest = rest.strip_prefix(prefix)?;
            at += prefix.len_utf8();
        }
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let start = at;
        at += len;
        Some((column + start, &rest[..len]))
    };
    let format_digits = digits(None);
    let samples_digits = digits(Some('x'));
    let skew_digits = digits(Some(':'));
    let offset_digits = digits(Some('+'));
    if at != field.len() {
        return Err(line.fail(
            column + at,
            "signal format",
            &field[at..],
            "does not belong here; write FORMAT, FORMATxSAMPLES, FORMAT:SKEW or FORMAT+OFFSET, such as 212x2",
        ));
    }
    let (format_column, text) = format_digits.expect("there is no prefix that could be missing");
    let number = line.count(format_column, "signal format", text, 0, u64::from(u32::MAX))?;
    let format = u32::try_from(number).ok().and_then(Format::from_number).ok_or_else(|| {
        let known: Vec<String> = Format::ALL.iter().map(Format::to_string).collect();
        line.fail(format_column, "signal format", text, &format!("is unknown; WFDB has {}", known.join(", ")))
    })?;
    let counted = |digits: Option<(usize, &str)>, field, min, max, default| match digits {
        Some((column, text)) => line.count(column, field, text, min, max),
        None => Ok(default),
    };
    let samples = counted(samples_digits, "samples per frame", 1, u64::from(MAX_SAMPLES_PER_FRAME), 1)?;
    let skew = counted(skew_digits, "skew", 0, u64::from(MAX_SKEW_N), 0)?;
    let offset = counted(offset_digits, "byte offset", 0, u64::MAX, 0)?;
    let to_u32 = |count| u32::try_from(count).expect("checked against a limit of 32 bits");
    Ok((format, to_u32(samples), to_u32(skew), offset))
}

fn parse_segment_line(line: &mut Fields<'_>) -> Result<Segment, WfdbError> {
    let (column, name) = line.required("segment name", "a record name, or ~ for a gap")?;
    if name != "~" && !is_record_name(name) {
        return Err(line.fail(column, "segment name", name, "is neither a record name nor ~"));
    }
    let (column, text) = line.required("segment length", "a number of samples")?;
    let sample_n = line.count(column, "segment length", text, 0, MAX_SAMPLE_N)?;
    Ok(Segment { record_name: name.to_owned(), sample_n })
}

/// `HH:MM:SS`, `MM:SS` or `SS`, with an optional fraction of up to nine digits.
fn parse_time(text: &str) -> Option<BaseTime> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanosecond = format!("{fraction:0<9}").parse().ok()?;
    let mut parts = [0; 3];
    let given: Vec<&str> = whole.split(':').collect();
    let first = 3_usize.checked_sub(given.len())?;
    for (part, text) in parts[first..].iter_mut().zip(given) {
        *part = small_number(text, 2)?;
    }
    let [hour, minute, second] = parts.map(|part| u8::try_from(part).unwrap_or(u8::MAX));
    (hour < 24 && minute < 60 && second < 60).then_some(BaseTime { hour, minute, second, nanosecond })
}

/// Time and date of the first sample; a date stands behind a time, or before it.
///
/// header(5) has `HH:MM:SS DD/MM/YYYY`. Databases of PhysioNet also have the date first, and as `YYYY-MM-DD` or
/// `DD-Mon-YYYY` (wfdb-python issues 128, 351 and 415): they can be meant in one way only.
fn parse_base(line: &mut Fields<'_>) -> Result<(Option<BaseTime>, Option<BaseDate>), WfdbError> {
    let Some((first_column, first)) = line.next() else { return Ok((None, None)) };
    let second = line.next();
    if let Some((column, text)) = second
        && let Some(date) = parse_date(first)
    {
        return Ok((Some(base_time(line, column, text)?), Some(date)));
    }
    let time = base_time(line, first_column, first)?;
    let Some((column, text)) = second else { return Ok((Some(time), None)) };
    let date = parse_date(text)
        .ok_or_else(|| line.fail(column, "base date", text, "is not a date; write DD/MM/YYYY, such as 25/04/1989"))?;
    Ok((Some(time), Some(date)))
}

fn base_time(line: &Fields<'_>, column: usize, text: &str) -> Result<BaseTime, WfdbError> {
    parse_time(text).ok_or_else(|| {
        line.fail(column, "base time", text, "is not a time of day; write HH:MM:SS, such as 09:30:00.25")
    })
}

/// `DD/MM/YYYY`, `YYYY-MM-DD` or `DD-Mon-YYYY`.
fn parse_date(text: &str) -> Option<BaseDate> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let parts: Vec<&str> = text.split(['/', '-']).collect();
    let [first, month, last] = parts[..] else { return None };
    let is_standard = text.contains('/') && !text.contains('-');
    let (day, year) = if is_standard || (last.len() == 4 && !text.contains('/')) {
        (small_number(first, 2)?, small_number(last, 4)?)
    } else if first.len() == 4 && !text.contains('/') {
        (small_number(last, 2)?, small_number(first, 4)?)
    } else {
        return None;
    };
    let month = match MONTHS.iter().position(|name| !is_standard && name.eq_ignore_ascii_case(month)) {
        Some(month_idx) => month_idx as u16 + 1,
        // Of two numbers with dashes between nobody knows which one is the month.
        None if is_standard || first.len() == 4 => small_number(month, 2)?,
        None => return None,
    };
    let is_date = (1..=31).contains(&day) && (1..=12).contains(&month);
    is_date.then_some(BaseDate { day: u8::try_from(day).ok()?, month: u8::try_from(month).ok()?, year })
}

fn small_number(text: &str, max_digit_n: usize) -> Option<u16> {
    let is_number = (1..=max_digit_n).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Whether `name` can name a record, and so the files that are written for it.
pub(crate) fn is_record_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The blank-separated fields of one line, with their columns.
struct Fields<'a> {
    origin: &'a str,
    line: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(origin: &'a str, line: usize, text: &'a str) -> Fields<'a> {
        Fields { origin, line, text, at: 0 }
    }

    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        let start = self.at + (rest.len() - rest.trim_start_matches(is_blank).len());
        let rest = &self.text[start..];
        let len = rest.find(is_blank).unwrap_or(rest.len());
        self.at = start + len;
        (len > 0).then_some((start + 1, &rest[..len]))
    }

    fn required(&mut self, field: &'static str, wanted: &str) -> Result<(usize, &'a str), WfdbError> {
        let line_end = self.text.len() + 1;
        self.next().ok_or_else(|| self.fail(line_end, field, "", &format!("is missing; write {wanted}")))
    }

    /// All that is left of the line, without surrounding blanks.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_matches(is_blank);
        self.at = self.text.len();
        rest
    }

    fn expect_end(&mut self) -> Result<(), WfdbError> {
        match self.next() {
            None => Ok(()),
            Some((column, text)) => {
                Err(self.fail(column, "field", text, "is one more than the line can have; remove it"))
            }
        }
    }

    fn fail(&self, column: usize, field: &'static str, found: &str, problem: &str) -> WfdbError {
        WfdbError::Header {
            origin: self.origin.to_owned(),
            line: self.line,
            column,
            field,
            found: shown(found),
            problem: problem.to_owned(),
        }
    }

    fn count(&self, column: usize, field: &'static str, text: &str, min: u64, max: u64) -> Result<u64, WfdbError> {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let fail = |problem: String| self.fail(column, field, text, &problem);
        if !is_digits {
            return Err(fail(format!("is not a whole number, {min} or more")));
        }
        match text.parse::<u64>() {
            Ok(count) if count < min => Err(fail(format!("is less than {min}, the least that makes sense"))),
            Ok(count) if count <= max => Ok(count),
            _ => Err(fail(format!("is more than the limit of {max}; if the file is really that large, split it"))),
        }
    }

    fn integer(&self, column: usize, field: &'static str, text: &str) -> Result<i32, WfdbError> {
        text.parse().map_err(|_| self.fail(column, field, text, "is not a whole number of 32 bits"))
    }

    fn number(&self, column: usize, field: &'static str, text: &str) -> Result<f64, WfdbError> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.fail(column, field, text, "is not a finite number")),
        }
    }

    fn frequency(&self, column: usize, field: &'static str, text: &str) -> Result<f64, WfdbError> {
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number <= MAX_SAMPLING_FREQUENCY_HZ => Ok(number),
            _ => Err(self.fail(
                column,
                field,
                text,
                &format!("is not a frequency in Hz above 0 and up to {MAX_SAMPLING_FREQUENCY_HZ:e}; write it as a number, such as 360"),
            )),
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Found by fuzzing: a vertical tab stood before `#`, so that the comment was taken for a signal of that name.
    #[test]
    fn blanks_of_every_kind_stand_before_comments_and_make_empty_lines() {
        let header = Header::parse("r 1 360 4\n\x0c\x0b # note\n\x0b\x0c\t\nr.dat 16\n", "r.hea").expect("a header");
        assert_eq!((header.comments, header.signals.len()), (vec!["note".to_owned()], 1));
        // No blank of a header, though one of Unicode.
        let error = Header::parse("r 1 360 4\n\u{a0}\n", "r.hea").expect_err("no format follows").to_string();
        assert!(error.contains("signal format"), "{error}");
    }

    #[test]
    fn fills_in_every_default_of_the_specification() {
        let header = Header::parse("r 1\nr.dat 16\n", "r.hea").unwrap();
        assert_eq!(header.sampling_frequency_hz, 250.0);
        assert_eq!(header.counter_frequency_hz, 250.0);
        assert_eq!((header.base_counter, header.sample_n), (0.0, None));
        assert_eq!((header.base_time, header.base_date), (None, None));
        let expected = Signal {
            file_name: "r.dat".to_owned(),
            format: Format::Fixed16,
            samples_per_frame: 1,
            skew_n: 0,
            byte_offset: 0,
            gain_adu_per_unit: 200.0,
            is_calibrated: false,
            baseline_adu: 0,
            units: "mV".to_owned(),
            adc_resolution_bits: 12,
            adc_zero_adu: 0,
            initial_value_adu: None,
            checksum: None,
            block_size: 0,
            description: "record r, signal 0".to_owned(),
        };
        assert_eq!(header.signals, [expected]);
    }

    #[test]
    fn reads_every_field() {
        let text = "# before\r\nr_1 2 360/180.5(-3.25) 650000 9:5:7.25 25/4/1989\r\n\
                    a.dat 212x2:3+24 100.5(-7)/uV 11 1024 995 -22131 512 lead one, left\r\n\
                    b.dat 16 -1e2/mmHg 0 5 6 43405 0 \t ABP\n#  after \n\n";
        let header = Header::parse(text, "r_1.hea").unwrap();
        assert_eq!(header.comments, ["before", "after"]);
        assert_eq!(
            (header.sampling_frequency_hz, header.counter_frequency_hz, header.base_counter),
            (360.0, 180.5, -3.25)
        );
        assert_eq!(header.sample_n, Some(650_000));
        assert_eq!(header.base_time.unwrap().to_string(), "09:05:07.25");
        assert_eq!(header.base_date.unwrap().to_string(), "25/04/1989");
        let [first, second] = &header.signals[..] else { panic!("two signals") };
        assert_eq!((first.samples_per_frame, first.skew_n, first.byte_offset), (2, 3, 24));
        assert_eq!((first.gain_adu_per_unit, first.baseline_adu, first.units.as_str()), (100.5, -7, "uV"));
        assert_eq!((first.adc_resolution_bits, first.adc_zero_adu, first.initial_value_adu), (11, 1024, Some(995)));
        assert_eq!((first.checksum, first.block_size), (Some(-22131), 512));
        assert_eq!(first.description, "lead one, left");
        assert_eq!((second.gain_adu_per_unit, second.baseline_adu, second.units.as_str()), (-100.0, 5, "mmHg"));
        assert_eq!((second.adc_resolution_bits, second.checksum), (12, Some(-22131)), "65536 - 22131 is 43405");
        assert_eq!(Header::parse(header.to_text().unwrap(), "again").unwrap(), header);
    }

    /// Headers of PhysioNet databases that wfdb-python refused at some time (issues 128, 351 and 415).
    #[test]
    fn reads_dates_that_can_be_meant_in_one_way_only() {
        for (text, date, time) in [
            ("10:5:0 05/04/89", "05/04/0089", "10:05:00"),
            ("05:05:15 2014-05-08", "08/05/2014", "05:05:15"),
            ("2014-05-08 05:05:15", "08/05/2014", "05:05:15"),
            ("05-May-2020 09:49:17", "05/05/2020", "09:49:17"),
            ("09:49:17.5 5-dec-2020", "05/12/2020", "09:49:17.5"),
            ("05/04/1989 9:0:0", "05/04/1989", "09:00:00"),
        ] {
            let header = Header::parse(format!("r 0 300 9000 {text}\n"), "r.hea").unwrap();
            assert_eq!(header.base_date.unwrap().to_string(), date, "{text}");
            assert_eq!(header.base_time.unwrap().to_string(), time, "{text}");
            assert_eq!(Header::parse(header.to_text().unwrap(), "again").unwrap(), header);
        }
        for text in ["2006", "9:0:0 05-04-2020", "9:0:0 2020/04/05", "9:0:0 1-2/2020", "9:0:0 5/May/2020", "2020-04-05"]
        {
            Header::parse(format!("r 0 300 9000 {text}\n"), "r.hea").unwrap_err();
        }
    }

    #[test]
    fn reads_the_segments_of_a_long_record() {
        let header = Header::parse("long/3 2 125 700\nlayout 0\n~ 100\npart_1 600\n", "long.hea").unwrap();
        let lengths: Vec<_> = header.segments.iter().map(|part| (part.record_name.as_str(), part.sample_n)).collect();
        assert_eq!(lengths, [("layout", 0), ("~", 100), ("part_1", 600)]);
        assert_eq!(header.segment_signal_n, 2);
        assert_eq!(Header::parse(header.to_text().unwrap(), "again").unwrap(), header);
    }

    #[test]
    fn refuses_to_write_what_would_read_back_different() {
        let mut header = Header::parse("r 1 360 1\nr.dat 16 200 12 0 0 0 0 MLII\n", "r.hea").unwrap();
        assert!(header.to_text().is_ok());
        header.comments.push("two\nlines".to_owned());
        let error = header.to_text().unwrap_err().to_string();
        assert!(error.starts_with("header of record r: is not valid: r.hea:4:1: line `lines` follows"), "{error}");
    }
}
