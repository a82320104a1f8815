//! Recordings as text tables: one line a moment, one column a lead.
//!
//! Lines that begin with `#` stand before everything else and become comments. Columns are separated by tabs if the first
//! line has one, else by semicolons, else by commas. A line whose fields are not all numbers is a header; it may be
//! followed by a line of units, as `rdsamp -c` writes it. A header names leads, with units in brackets (`MLII (mV)`), and may
//! have a time column (`time (s)`, `time (ms)`, `Elapsed time` as `m:ss.mmm`) and a column that counts lines (`sample #`,
//! or one without a name in the first place, as pandas writes it).
//!
//! An empty field, `NaN`, `NA`, `null` or `-` is an invalid sample. A decimal comma is read only between semicolons.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use ecgpipe_wfdb::MAX_SIGNAL_N;

use crate::{
    error::{FormatError, open_file, shown, unreadable},
    recording::{Options, Table},
    scale::Precision,
};

/// Longest line that is read.
pub const MAX_LINE_BYTE_N: usize = 1 << 20;
/// Most columns: leads that a WFDB record can have, and two more.
pub const MAX_COLUMN_N: usize = MAX_SIGNAL_N + 2;

/// A first column without a name that rises so many times in a row, and to the end, is no lead.
const RISING_N: u64 = 20;
/// Decimals of a sampling frequency that are tried before it is taken as it comes.
const MAX_FREQUENCY_DECIMAL_N: i32 = 9;

/// A recording in a text table, read line by line.
#[derive(Debug)]
pub(crate) struct CsvFile {
    lines: Lines,
    separator: u8,
    columns: Vec<Column>,
    has_header: bool,
    data_start: Position,
    next_sample_idx: u64,
    /// What the time column allows, gathered while the file is read for the first time.
    clock: Clock,
    /// Whether it has been read to its end: then times and counts are known to be right.
    is_checked: bool,
    /// Whether the first column has risen from line to line so far.
    is_rising: bool,
    last_first: f64,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Column {
    Lead,
    /// Times, with the number of seconds in one of its units.
    Time {
        second_n: f64,
    },
    Index,
}

impl CsvFile {
    pub(crate) fn open(path: &Path) -> Result<(Self, Table), FormatError> {
        let mut lines = Lines::open(path)?;
        let mut comments = Vec::new();
        let mut start = lines.position;
        let first = loop {
            let Some(line) = lines.next()? else {
                let problem = "the file has no lines; it needs one a sample".to_owned();
                return Err(lines.fail(0, problem));
            };
            match line.strip_prefix('#') {
                Some(comment) => comments.push(comment.trim().to_owned()),
                None => break line.to_owned(),
            }
            start = lines.position;
        };
        let separator = [b'\t', b';', b','].into_iter().find(|mark| first.bytes().any(|byte| byte == *mark));
        let separator = separator.unwrap_or(b',');
        let names: Vec<(usize, String)> =
            split(&first, separator).map(|(at, field)| (at, field.trim().to_owned())).collect();
        if names.len() > MAX_COLUMN_N {
            let problem = format!("{} columns are more than the limit of {MAX_COLUMN_N}; split the file", names.len());
            return Err(lines.fail(0, problem));
        }
        let has_header = names.iter().any(|(_, name)| value(name, separator).is_none() && clock_s(name).is_none());
        let mut heads: Vec<Head> = if has_header {
            names
                .iter()
                .map(|(at, name)| head(name).map_err(|problem| lines.fail(*at, problem)))
                .collect::<Result<_, _>>()?
        } else {
            vec![Head { name: String::new(), units: None }; names.len()]
        };
        let mut data_start = start;
        if has_header {
            data_start = lines.position;
            if let Some(second) = lines.next()? {
                let fields: Vec<String> = split(second, separator).map(|(_, field)| field.trim().to_owned()).collect();
                let is_units = fields.len() == heads.len()
                    && fields.iter().any(|field| value(field, separator).is_none() && clock_s(field).is_none())
                    && fields.iter().all(|field| field.bytes().all(|byte| !byte.is_ascii_digit()));
                if is_units {
                    data_start = lines.position;
                    for (head, field) in heads.iter_mut().zip(&fields) {
                        let units = field.trim_start_matches(['(', '[']).trim_end_matches([')', ']']).trim();
                        head.units = head.units.take().or_else(|| (!units.is_empty()).then(|| units.to_owned()));
                    }
                }
            }
        }
        let head_line = start.line_n + 1;
        let mut notes = Vec::new();
        let mut columns = Vec::with_capacity(heads.len());
        for (column_idx, head) in heads.iter().enumerate() {
            let column = kind(head, column_idx, has_header)
                .map_err(|problem| lines.fail_at(head_line, names[column_idx].0, problem))?;
            if let Column::Time { .. } = column
                && head.units.is_none()
            {
                notes.push(format!("column `{}` has no unit: numbers in it are taken as seconds", shown(&head.name)));
            }
            if column != Column::Lead && columns.contains(&column) {
                let problem = format!("column `{}` is a second one of its kind; keep one of them", shown(&head.name));
                return Err(lines.fail_at(head_line, names[column_idx].0, problem));
            }
            columns.push(column);
        }
        let leads: Vec<&Head> =
            heads.iter().zip(&columns).filter(|(_, column)| **column == Column::Lead).map(|(head, _)| head).collect();
        if leads.is_empty() {
            return Err(lines.fail_at(head_line, 0, "no column is a lead; name one, such as `MLII (mV)`".to_owned()));
        }
        let table = Table {
            sampling_frequency_hz: f64::NAN,
            names: leads.iter().map(|head| (!head.name.is_empty()).then(|| head.name.clone())).collect(),
            units: leads.iter().map(|head| head.units.clone()).collect(),
            is_adc: None,
            precision: Precision::Double,
            comments,
            notes,
        };
        lines.rewind(data_start)?;
        let csv = Self {
            lines,
            separator,
            columns,
            has_header,
            data_start,
            next_sample_idx: 0,
            clock: Clock::default(),
            is_checked: false,
            is_rising: true,
            last_first: f64::NEG_INFINITY,
        };
        Ok((csv, table))
    }

    /// Appends the values of all leads from `sample_idx` on, as many as `sample_n` or are left.
    pub(crate) fn read(&mut self, sample_idx: u64, sample_n: u64, leads: &mut [Vec<f64>]) -> Result<(), FormatError> {
        if sample_idx < self.next_sample_idx {
            self.lines.rewind(self.data_start)?;
            self.next_sample_idx = 0;
        }
        while self.next_sample_idx < sample_idx {
            if self.lines.next()?.is_none() {
                return Ok(());
            }
            self.next_sample_idx += 1;
        }
        for _ in 0..sample_n {
            if !self.line(leads)? {
                break;
            }
            self.next_sample_idx += 1;
        }
        Ok(())
    }

    /// Reads one line; `false` at the end.
    fn line(&mut self, leads: &mut [Vec<f64>]) -> Result<bool, FormatError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        if line.trim().is_empty() {
            let line_number = self.lines.position.line_n;
            while let Some(more) = self.lines.next()? {
                if !more.trim().is_empty() {
                    let problem =
                        "the line is empty; write NaN for a sample that is missing, or remove the line".to_owned();
                    return Err(self.lines.fail_at(line_number, 0, problem));
                }
            }
            return Ok(false);
        }
        let mut lead_idx = 0;
        let mut field_n = 0;
        let mut wrong = None;
        for (at, field) in split(line, self.separator) {
            let Some(column) = self.columns.get(field_n) else {
                field_n += 1;
                continue;
            };
            let field = field.trim();
            let found = match column {
                Column::Lead => match value(field, self.separator) {
                    Some(value) => {
                        if field_n == 0 {
                            self.is_rising &= value > self.last_first;
                            self.last_first = value;
                        }
                        leads[lead_idx].push(value);
                        lead_idx += 1;
                        Ok(())
                    }
                    None => Err(no_value(field, self.separator)),
                },
                Column::Time { .. } | Column::Index if self.is_checked => Ok(()),
                Column::Time { second_n } => self.clock.add(field, self.separator, *second_n, self.next_sample_idx),
                Column::Index => self.clock.count(field, self.next_sample_idx),
            };
            if let Err(problem) = found {
                wrong = Some((at, problem));
                break;
            }
            field_n += 1;
        }
        if let Some((at, problem)) = wrong {
            return Err(self.lines.fail(at, problem));
        }
        if field_n != self.columns.len() {
            let (have, want) = (field_n, self.columns.len());
            let comma = if self.separator == b',' { " (with a decimal comma, separate columns by ;)" } else { "" };
            let problem = format!("the line has {have} fields, but the first one has {want}{comma}; correct it");
            return Err(self.lines.fail(0, problem));
        }
        Ok(true)
    }

    /// What follows from the whole file, once it was read to its end.
    ///
    /// # Errors
    /// If the sampling frequency is neither given nor in the file, or both and they differ.
    pub(crate) fn sampling_frequency_hz(
        &mut self,
        options: &Options,
        sample_n: u64,
        notes: &mut Vec<String>,
    ) -> Result<f64, FormatError> {
        self.is_checked = true;
        let choice = |problem: String| FormatError::Choice { origin: self.lines.origin.clone(), problem };
        if !self.has_header && self.columns.len() > 1 && self.is_rising && sample_n >= RISING_N {
            return Err(choice(
                "the first column rises from line to line like a time or a count, but the file has no header that says so; add a \
                 line such as `time (s),MLII (mV)` before the first one"
                    .to_owned(),
            ));
        }
        let has_clock = self.columns.iter().any(|column| matches!(column, Column::Time { .. }));
        match (options.sampling_frequency_hz, has_clock) {
            (None, false) => {
                Err(choice("the file has no time column; give the sampling frequency (in Hz, such as 360)".to_owned()))
            }
            (Some(given), false) => Ok(given),
            (given, true) => self.clock.frequency(given, notes).map_err(choice),
        }
    }
}

/// The name and unit of a column.
#[derive(Clone, Debug, PartialEq)]
struct Head {
    name: String,
    units: Option<String>,
}

/// `MLII (mV)` and `MLII [mV]` as name and unit.
fn head(text: &str) -> Result<Head, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("column name `{}` has control characters; correct it", shown(text)));
    }
    for (open, close) in [('(', ')'), ('[', ']')] {
        if let Some((name, units)) = text.strip_suffix(close).and_then(|text| text.rsplit_once(open)) {
            let units = units.trim().replace(['\u{b5}', '\u{3bc}'], "u");
            if units.contains(char::is_whitespace) {
                return Err(format!("unit `{}` has blanks; write it without, such as mV", shown(&units)));
            }
            let units = (!units.is_empty()).then_some(units);
            return Ok(Head { name: name.trim().to_owned(), units });
        }
    }
    Ok(Head { name: text.to_owned(), units: None })
}

fn kind(head: &Head, column_idx: usize, has_header: bool) -> Result<Column, String> {
    let name = head.name.to_ascii_lowercase();
    match name.as_str() {
        "time" | "t" | "elapsed time" | "elapsed_time" | "timestamp" => {
            let second_n = match head.units.as_deref() {
                None | Some("s" | "sec" | "seconds") => 1.0,
                Some("ms" | "msec" | "milliseconds") => 1e-3,
                Some("us" | "microseconds") => 1e-6,
                // A clock, as `rdsamp` calls it.
                Some(units) if units.contains(':') => 1.0,
                Some(units) => {
                    return Err(format!("unit `{}` of the time is not s, ms or us; convert it", shown(units)));
                }
            };
            Ok(Column::Time { second_n })
        }
        "time_s" | "seconds" => Ok(Column::Time { second_n: 1.0 }),
        "time_ms" | "milliseconds" => Ok(Column::Time { second_n: 1e-3 }),
        "sample" | "samples" | "sample #" | "sample_idx" | "index" | "#" => Ok(Column::Index),
        "" if has_header && column_idx == 0 => Ok(Column::Index),
        _ => Ok(Column::Lead),
    }
}

/// The fields of a line with the byte where each begins. A field in quotation marks may hold the separator.
fn split(line: &str, separator: u8) -> impl Iterator<Item = (usize, &str)> {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let begin = at?;
        let rest = &line[begin..];
        let quote = rest.bytes().next().filter(|byte| matches!(byte, b'"' | b'\''));
        if let Some(quote) = quote
            && let Some(length) = rest[1..].bytes().position(|byte| byte == quote)
        {
            let after = begin + 1 + length + 1;
            match line.as_bytes().get(after) {
                None => {
                    at = None;
                    return Some((begin, &line[begin + 1..after - 1]));
                }
                Some(byte) if *byte == separator => {
                    at = Some(after + 1);
                    return Some((begin, &line[begin + 1..after - 1]));
                }
                // Not a quoted field after all.
                Some(_) => {}
            }
        }
        let length = rest.bytes().position(|byte| byte == separator);
        at = length.map(|length| begin + length + 1);
        Some((begin, &rest[..length.unwrap_or(rest.len())]))
    })
}

/// A finite number, or NaN for an invalid sample; `None` for anything else.
fn value(field: &str, separator: u8) -> Option<f64> {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    // Digits behind a comma that was taken for a separator often begin with a 0; numbers do not.
    let is_split = |text: &str| {
        let digits = text.trim_start_matches(['+', '-']).as_bytes();
        separator == b',' && digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit()
    };
    let is_invalid = |text: &str| {
        text.is_empty()
            || text == "-"
            || ["nan", "na", "n/a", "null"].iter().any(|word| text.eq_ignore_ascii_case(word))
    };
    if is_number(field)
        && !is_split(field)
        && let Some(number) = field.parse::<f64>().ok().filter(|number| number.is_finite())
    {
        return Some(number);
    }
    if separator == b';' && field.bytes().filter(|byte| *byte == b',').count() == 1 && !field.contains('.') {
        let point = field.replace(',', ".");
        return if is_number(&point) { point.parse::<f64>().ok().filter(|number| number.is_finite()) } else { None };
    }
    is_invalid(field).then_some(f64::NAN)
}

/// Why a field is no value.
fn no_value(field: &str, separator: u8) -> String {
    let found = shown(field);
    if field.contains(',') {
        return format!("`{found}` has a comma; write decimals with a point, or separate columns by ;");
    }
    if separator == b',' && field.trim_start_matches(['+', '-']).starts_with('0') && !field.contains(['.', 'e', 'E']) {
        return format!(
            "`{found}` begins with a 0 as if it stood behind a decimal comma; write decimals with a point, or separate columns by ;"
        );
    }
    if field.parse::<f64>().is_ok_and(f64::is_infinite) {
        return format!("`{found}` is not finite; write NaN for a sample that is missing");
    }
    format!("`{found}` is not a number; write NaN for a sample that is missing")
}

/// `m:ss`, `h:mm:ss`, with decimals or without, in seconds.
fn clock_s(field: &str) -> Option<f64> {
    let mut parts = field.split(':').rev();
    let seconds = parts.next()?;
    let mut total_s =
        seconds.parse::<f64>().ok().filter(|s| seconds.starts_with(|c: char| c.is_ascii_digit()) && *s < 60.0)?;
    let (mut factor_s, mut part_n) = (60.0, 0);
    for part in parts {
        if part.is_empty() || part.len() > 6 || !part.bytes().all(|byte| byte.is_ascii_digit()) || part_n == 2 {
            return None;
        }
        total_s += part.parse::<f64>().ok()? * factor_s;
        factor_s *= 60.0;
        part_n += 1;
    }
    (part_n > 0).then_some(total_s)
}

/// What the times of the lines say about the time between two of them.
///
/// A time that was written with so many decimals is right within one of its last digit. Every line so narrows the
/// interval in which the step must be; where nothing is left, the lines are not evenly spaced.
#[derive(Debug, Default)]
struct Clock {
    first_s: f64,
    last_s: f64,
    /// The smallest and largest step in seconds; 0 and infinity at first.
    step_s: Option<(f64, f64)>,
    /// Most decimals of a time so far.
    decimal_n: i32,
    first_count: i64,
}

impl Clock {
    fn add(&mut self, field: &str, separator: u8, second_n: f64, sample_idx: u64) -> Result<(), String> {
        let (at_s, second_n) = match clock_s(field) {
            Some(at_s) => (at_s, 1.0),
            None => match value(field, separator).filter(|number| !number.is_nan()) {
                Some(number) => (number * second_n, second_n),
                None => {
                    let found = shown(field);
                    return Err(format!("`{found}` is not a time; write a number of seconds, or m:ss.mmm"));
                }
            },
        };
        let decimals = field.rsplit(['.', ',']).next().filter(|_| field.contains(['.', ','])).unwrap_or_default();
        self.decimal_n = self.decimal_n.max(decimals.len() as i32);
        if sample_idx == 0 {
            (self.first_s, self.last_s) = (at_s, at_s);
            self.step_s = None;
            return Ok(());
        }
        let idx = sample_idx as f64;
        let resolution_s = second_n * 10_f64.powi(-self.decimal_n) + at_s.abs() * 1e-15;
        let elapsed_s = at_s - self.first_s;
        let (low, high) = self.step_s.unwrap_or((0.0, f64::INFINITY));
        let narrowed = (low.max((elapsed_s - resolution_s) / idx), high.min((elapsed_s + resolution_s) / idx));
        if at_s < self.last_s {
            return Err(format!(
                "the time {at_s} s is before that of the line before, {} s; times must rise",
                self.last_s
            ));
        }
        self.last_s = at_s;
        if narrowed.0 > narrowed.1 {
            let expected_s = self.first_s + (low + high) / 2.0 * idx;
            return Err(format!(
                "the time is {at_s} s where {expected_s:.6} s would follow; samples must be evenly spaced: fill gaps with lines of NaN"
            ));
        }
        self.step_s = Some(narrowed);
        Ok(())
    }

    fn count(&mut self, field: &str, sample_idx: u64) -> Result<(), String> {
        let count = field
            .parse::<i64>()
            .map_err(|_| format!("`{}` is not a count; number the lines 0, 1, 2, ...", shown(field)))?;
        if sample_idx == 0 {
            self.first_count = count;
        }
        let expected = i64::try_from(sample_idx).ok().and_then(|idx| self.first_count.checked_add(idx));
        if Some(count) != expected {
            let expected = expected.unwrap_or(i64::MAX);
            return Err(format!("the count is {count}, but {expected} follows; lines are missing: fill them with NaN"));
        }
        Ok(())
    }

    /// The simplest sampling frequency that the times allow: the one with the fewest decimals.
    fn frequency(&self, given: Option<f64>, notes: &mut Vec<String>) -> Result<f64, String> {
        let Some((low_s, high_s)) = self.step_s else {
            return given.ok_or_else(|| "one time alone does not tell a sampling frequency; give it".to_owned());
        };
        // The quotients are rounded: a part in 10^12 belongs to the interval.
        let (low_hz, high_hz) = (1.0 / high_s * (1.0 - 1e-12), 1.0 / low_s.max(0.0) * (1.0 + 1e-12));
        if let Some(given) = given {
            if (low_hz..=high_hz).contains(&given) {
                return Ok(given);
            }
            return Err(format!(
                "the times of the lines allow {low_hz:.6} to {high_hz:.6} Hz, but {given} Hz were given; leave it out, or remove \
                 the time column"
            ));
        }
        if self.first_s != 0.0 {
            notes.push(format!("times begin at {} s; the record begins at its first sample", self.first_s));
        }
        for decimal_n in 0..=MAX_FREQUENCY_DECIMAL_N {
            let power = 10_f64.powi(decimal_n);
            let (first, last) = ((low_hz * power).ceil(), (high_hz * power).floor());
            if first > last {
                continue;
            }
            if decimal_n == 0 && first < last {
                return Err(format!(
                    "the times of the lines allow {first} to {last} Hz; give the sampling frequency, or times with more decimals"
                ));
            }
            let middle = (low_hz + high_hz) / 2.0;
            let hz = ((middle * power).round().clamp(first, last)) / power;
            if first < last {
                notes.push(format!("the times of the lines allow {low_hz:.9} to {high_hz:.9} Hz: {hz} Hz was taken"));
            }
            return Ok(hz);
        }
        Ok((low_hz + high_hz) / 2.0)
    }
}

/// Where a line begins.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    byte_offset: u64,
    /// Lines before.
    line_n: u64,
}

/// The lines of a file.
#[derive(Debug)]
struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    origin: String,
    line: Vec<u8>,
    position: Position,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, FormatError> {
        let (file, _) = open_file(path)?;
        let mut lines = Self {
            reader: BufReader::with_capacity(1 << 16, file),
            path: path.to_owned(),
            origin: path.display().to_string(),
            line: Vec::new(),
            position: Position::default(),
        };
        let begin = lines.reader.fill_buf().map_err(unreadable(path))?;
        if begin.starts_with(b"\xff\xfe") || begin.starts_with(b"\xfe\xff") {
            return Err(lines.fail_at(
                1,
                0,
                "the file is in UTF-16; save it as UTF-8 (`CSV UTF-8` in spreadsheets)".to_owned(),
            ));
        }
        if begin.starts_with(b"\xef\xbb\xbf") {
            lines.rewind(Position { byte_offset: 3, line_n: 0 })?;
        }
        Ok(lines)
    }

    /// The next line, without its end.
    fn next(&mut self) -> Result<Option<&str>, FormatError> {
        self.line.clear();
        let byte_n = self
            .reader
            .by_ref()
            .take(MAX_LINE_BYTE_N as u64 + 1)
            .read_until(b'\n', &mut self.line)
            .map_err(unreadable(&self.path))?;
        if byte_n == 0 {
            return Ok(None);
        }
        self.position.byte_offset += byte_n as u64;
        self.position.line_n += 1;
        if byte_n > MAX_LINE_BYTE_N {
            let problem =
                format!("the line has more than the limit of {MAX_LINE_BYTE_N} bytes; this is no table of a recording");
            return Err(self.fail(0, problem));
        }
        while self.line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.pop();
        }
        match std::str::from_utf8(&self.line) {
            Ok(_) => {}
            Err(error) => {
                let at = error.valid_up_to();
                return Err(self.fail(at, "the byte is not UTF-8; save the file as UTF-8".to_owned()));
            }
        }
        Ok(Some(std::str::from_utf8(&self.line).expect("just checked")))
    }

    fn rewind(&mut self, position: Position) -> Result<(), FormatError> {
        self.reader.seek(SeekFrom::Start(position.byte_offset)).map_err(unreadable(&self.path))?;
        self.position = position;
        Ok(())
    }

    /// An error in the line that was read last, at a byte from 0.
    fn fail(&self, at: usize, problem: String) -> FormatError {
        self.fail_at(self.position.line_n.max(1), at, problem)
    }

    fn fail_at(&self, line: u64, at: usize, problem: String) -> FormatError {
        FormatError::Csv { origin: self.origin.clone(), line, column: at + 1, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_outside_of_quotation_marks() {
        let fields = |line, separator| {
            split(line, separator).map(|(at, field)| format!("{at}:{field}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fields("a,b,,c", b','), "0:a 2:b 4: 5:c");
        assert_eq!(fields("", b','), "0:");
        assert_eq!(fields("'sample #','MLII'", b','), "0:sample # 11:MLII");
        assert_eq!(fields("\"a,b\",c", b','), "0:a,b 6:c");
        assert_eq!(fields("'a,b", b','), "0:'a 3:b");
        assert_eq!(fields("1;2;", b';'), "0:1 2:2 4:");
    }

    #[test]
    fn values_are_numbers_or_invalid_or_refused() {
        for (field, separator, expected) in [
            ("1.5", b',', Some("1.5")),
            ("-.5e-3", b',', Some("-0.0005")),
            ("+2", b'\t', Some("2")),
            ("", b',', Some("NaN")),
            ("NaN", b',', Some("NaN")),
            ("-", b',', Some("NaN")),
            ("n/a", b',', Some("NaN")),
            ("1,5", b';', Some("1.5")),
            ("1.000,5", b';', None),
            ("1,5", b'\t', None),
            ("045", b',', None),
            ("045", b';', Some("45")),
            ("0.5", b',', Some("0.5")),
            ("inf", b',', None),
            ("1e999", b',', None),
            ("0x10", b',', None),
            ("1 2", b',', None),
        ] {
            assert_eq!(value(field, separator).map(|value| value.to_string()).as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn clocks_are_read() {
        for (field, expected) in [
            ("0:00.000", Some(0.0)),
            ("1:02.5", Some(62.5)),
            ("10:00:00.25", Some(36000.25)),
            ("1:60", None),
            ("1:2:3:4", None),
            ("5", None),
            (":5", None),
            ("1:", None),
            ("-1:05", None),
        ] {
            assert_eq!(clock_s(field), expected, "{field}");
        }
    }

    /// Times of lines: the frequency, or what is wrong.
    fn check(times: impl IntoIterator<Item = String>, expected: &str) {
        let mut clock = Clock::default();
        for (idx, time) in times.into_iter().enumerate() {
            if let Err(problem) = clock.add(&time, b',', 1.0, idx as u64) {
                assert_eq!(format!("{idx}: {problem}"), expected);
                return;
            }
        }
        let found = clock.frequency(None, &mut Vec::new());
        assert_eq!(found.map_or_else(|problem| problem, |hz| hz.to_string()), expected);
    }

    #[test]
    fn the_frequency_is_the_simplest_that_the_times_allow() {
        let times =
            |hz: f64, n: usize, decimal_n: usize| (0..n).map(move |idx| format!("{:.decimal_n$}", idx as f64 / hz));
        check(times(360.0, 3600, 3), "360");
        check(times(257.0, 3600, 3), "257");
        check(times(128.25, 100_000, 3), "128.25");
        check((0..100).map(|idx| (f64::from(idx) / 360.0).to_string()), "360");
        check((0..100).map(|idx| (f64::from(idx) / (1000.0 / 3.0)).to_string()), "333.333333333");
        check(
            times(360.0, 10, 3),
            "the times of the lines allow 350 to 375 Hz; give the sampling frequency, or times with more decimals",
        );
        check(["0".to_owned()], "one time alone does not tell a sampling frequency; give it");
        check(
            // One line is missing.
            times(360.0, 100, 3).chain((101..105).map(|idx| format!("{:.3}", f64::from(idx) / 360.0))),
            "100: the time is 0.281 s where 0.277762 s would follow; samples must be evenly spaced: fill gaps with lines of NaN",
        );
        check(["5", "4"].map(str::to_owned), "1: the time 4 s is before that of the line before, 5 s; times must rise");
    }
}
