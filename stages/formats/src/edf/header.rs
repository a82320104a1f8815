//! The header of EDF and BDF: fixed-width text fields. Pure: bytes in, [`EdfHeader`] out; nothing is allocated by the
//! numbers that it holds.
//!
//! Sources: Kemp et al., "A simple format for exchange of digitized polygraphic recordings", 1992 (EDF); Kemp and Olivan,
//! "European data format 'plus' (EDF+)", 2003; BioSemi, "BDF file format" (24-bit samples). All at edfplus.info and
//! biosemi.com.

use ecgpipe_wfdb::{BaseDate, BaseTime, MAX_SIGNAL_N};

use crate::error::{FormatError, shown};

/// Bytes of the header before the signals' fields, and of each signal's fields.
pub(super) const HEADER_UNIT_BYTE_N: usize = 256;
/// Most signals: the format has four digits, WFDB holds 4096.
const MAX_NS: u64 = MAX_SIGNAL_N as u64;
/// Widths of the fields of a signal, in file order: each field stands for all signals together.
const SIGNAL_FIELDS: [(&str, usize); 10] = [
    ("label", 16),
    ("transducer", 80),
    ("physical dimension", 8),
    ("physical minimum", 8),
    ("physical maximum", 8),
    ("digital minimum", 8),
    ("digital maximum", 8),
    ("prefiltering", 80),
    ("samples in each data record", 8),
    ("reserved", 32),
];

/// Whether data records follow one another without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// EDF and BDF without `+`: no gaps, no annotations.
    Plain,
    /// EDF+C: no gaps.
    Continuous,
    /// EDF+D: each data record tells when it starts.
    Interrupted,
}

/// A parsed header.
#[derive(Clone, Debug)]
pub(super) struct EdfHeader {
    pub(super) patient: String,
    pub(super) recording: String,
    pub(super) start_date: BaseDate,
    pub(super) start_time: BaseTime,
    pub(super) continuity: Continuity,
    /// 2 in EDF, 3 in BDF.
    pub(super) sample_byte_n: usize,
    /// Data records; `None` if the recorder did not write it (-1).
    pub(super) record_n: Option<u64>,
    pub(super) record_s: f64,
    pub(super) signals: Vec<EdfSignal>,
    pub(super) notes: Vec<String>,
}

/// One signal as its fields tell it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EdfSignal {
    pub(super) label: String,
    pub(super) units: String,
    pub(super) physical: (f64, f64),
    pub(super) digital: (i32, i32),
    /// Samples in each data record.
    pub(super) sample_n: u32,
    pub(super) is_annotations: bool,
    /// Where the fields of its physical and digital range begin, for errors.
    pub(super) range_byte_offset: u64,
}

impl EdfHeader {
    /// Bytes of the header in the file.
    pub(super) fn byte_n(&self) -> u64 {
        ((self.signals.len() + 1) * HEADER_UNIT_BYTE_N) as u64
    }

    /// Bytes of one data record.
    pub(super) fn record_byte_n(&self) -> u64 {
        // At most 4096 signals of 32-bit counts: far below 64 bits.
        self.signals.iter().map(|signal| u64::from(signal.sample_n) * self.sample_byte_n as u64).sum()
    }

    /// The number of signals, from the first 256 bytes of a file.
    ///
    /// # Errors
    /// If they are not those of an EDF or BDF file, or there are too many signals.
    pub(super) fn signal_n(main: &[u8; HEADER_UNIT_BYTE_N], origin: &str) -> Result<usize, FormatError> {
        let fields = Fields { origin, bytes: main };
        fields.sample_byte_n()?;
        let (signal_n, _) = fields.count(252, 4, "number of signals", 1, MAX_NS)?;
        Ok(usize::try_from(signal_n).expect("at most 4096"))
    }

    /// Parses a whole header: 256 bytes, and 256 for each signal.
    ///
    /// # Errors
    /// A field that is malformed or out of its limits, at its offset.
    pub(super) fn parse(bytes: &[u8], origin: &str) -> Result<Self, FormatError> {
        let fields = Fields { origin, bytes };
        let mut notes = Vec::new();
        let sample_byte_n = fields.sample_byte_n()?;
        let patient = fields.text(8, 80, "patient", &mut notes)?;
        let recording = fields.text(88, 80, "recording", &mut notes)?;
        let (signal_n, _) = fields.count(252, 4, "number of signals", 1, MAX_NS)?;
        let signal_n = usize::try_from(signal_n).expect("at most 4096");

        let byte_n = (signal_n + 1) * HEADER_UNIT_BYTE_N;
        let (claimed, found) = fields.count(184, 8, "bytes in the header", 0, u64::from(u32::MAX))?;
        if claimed != byte_n as u64 {
            let problem = format!("should be {byte_n} for {signal_n} signals; the header is damaged");
            return Err(fields.fail(184, "bytes in the header", found, &problem));
        }
        let reserved = fields.text(192, 44, "reserved field", &mut notes)?;
        let continuity = match reserved.get(..5) {
            Some("EDF+C" | "BDF+C") => Continuity::Continuous,
            Some("EDF+D" | "BDF+D") => Continuity::Interrupted,
            _ => Continuity::Plain,
        };
        let record_n = match fields.ascii(236, 8, "number of data records")?.trim() {
            "-1" => None,
            _ => Some(fields.count(236, 8, "number of data records", 1, u64::MAX)?.0),
        };
        let (record_s, found) = fields.number(244, 8, "duration of a data record")?;
        if record_s < 0.0 {
            return Err(fields.fail(244, "duration of a data record", found, "is negative; the header is damaged"));
        }
        let start_time = fields.start_time()?;
        let start_date = fields.start_date(&recording, continuity, &mut notes)?;

        let mut signals = Vec::with_capacity(signal_n);
        for signal_idx in 0..signal_n {
            signals.push(fields.signal(signal_idx, signal_n, &mut notes)?);
        }
        if continuity != Continuity::Plain && !signals.iter().any(|signal| signal.is_annotations) {
            let problem = "promises a signal `EDF Annotations` with the times of the data records, but there is none; \
                           the header is damaged";
            return Err(fields.fail(192, "reserved field", &reserved, problem));
        }
        if continuity == Continuity::Plain {
            // Without the `+` such a signal is one of numbers; nobody means that.
            if let Some(signal) = signals.iter().find(|signal| signal.is_annotations) {
                let problem = format!(
                    "should be EDF+C or EDF+D (BDF+C, BDF+D) in a file with the signal `{}`; correct the field",
                    shown(&signal.label)
                );
                return Err(fields.fail(192, "reserved field", &reserved, &problem));
            }
        }
        Ok(Self {
            patient,
            recording,
            start_date,
            start_time,
            continuity,
            sample_byte_n,
            record_n,
            record_s,
            signals,
            notes,
        })
    }
}

/// The bytes of a header, field by field.
struct Fields<'a> {
    origin: &'a str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn fail(&self, byte_offset: usize, field: &str, found: &str, problem: &str) -> FormatError {
        FormatError::Edf {
            origin: self.origin.to_owned(),
            byte_offset: byte_offset as u64,
            field: field.to_owned(),
            found: shown(found),
            problem: problem.to_owned(),
        }
    }

    fn slice(&self, byte_offset: usize, byte_n: usize) -> &'a [u8] {
        &self.bytes[byte_offset..byte_offset + byte_n]
    }

    fn sample_byte_n(&self) -> Result<usize, FormatError> {
        match self.slice(0, 8) {
            b"0       " => Ok(2),
            b"\xffBIOSEMI" => Ok(3),
            other => Err(self.fail(
                0,
                "version",
                &String::from_utf8_lossy(other),
                "is neither that of EDF (0 and seven blanks) nor that of BDF; this is another format, or it is damaged",
            )),
        }
    }

    /// A field of printable ASCII characters.
    fn ascii(&self, byte_offset: usize, byte_n: usize, field: &str) -> Result<&'a str, FormatError> {
        let bytes = self.slice(byte_offset, byte_n);
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(text),
            _ => Err(self.fail(
                byte_offset,
                field,
                &String::from_utf8_lossy(bytes),
                "has bytes that are no printable ASCII characters; the header is damaged",
            )),
        }
    }

    /// A field that people write: the specification has ASCII, devices have more.
    fn text(
        &self,
        byte_offset: usize,
        byte_n: usize,
        field: &str,
        notes: &mut Vec<String>,
    ) -> Result<String, FormatError> {
        let bytes = self.slice(byte_offset, byte_n);
        if bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            let problem = "has control characters; the header is damaged";
            return Err(self.fail(byte_offset, field, &String::from_utf8_lossy(bytes), problem));
        }
        let (text, encoding) = match std::str::from_utf8(bytes) {
            Ok(text) => (text.to_owned(), "UTF-8"),
            Err(_) => (bytes.iter().map(|byte| char::from(*byte)).collect(), "Latin-1"),
        };
        if !text.is_ascii() {
            notes.push(format!("byte {byte_offset}: the {field} is not ASCII and was read as {encoding}"));
        }
        Ok(text.trim_end().to_owned())
    }

    fn count(
        &self,
        byte_offset: usize,
        byte_n: usize,
        field: &str,
        min: u64,
        max: u64,
    ) -> Result<(u64, &'a str), FormatError> {
        let found = self.ascii(byte_offset, byte_n, field)?;
        let digits = found.trim();
        let count = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
        match count {
            Some(count) if (min..=max).contains(&count) => Ok((count, found)),
            Some(count) if count > max => {
                Err(self.fail(byte_offset, field, digits, &format!("is more than the limit of {max}; split the file")))
            }
            _ => {
                let problem = format!("is not a whole number of {min} or more; the header is damaged");
                Err(self.fail(byte_offset, field, digits, &problem))
            }
        }
    }

    fn number(&self, byte_offset: usize, byte_n: usize, field: &str) -> Result<(f64, &'a str), FormatError> {
        let found = self.ascii(byte_offset, byte_n, field)?;
        let text = found.trim();
        let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && text.bytes().all(is_number) => Ok((number, text)),
            _ if text.contains(',') => Err(self.fail(
                byte_offset,
                field,
                text,
                "has a comma; the format wants a point before decimals: correct it",
            )),
            _ => Err(self.fail(byte_offset, field, text, "is not a number; the header is damaged")),
        }
    }

    /// `AA.BB.CC` as three numbers of two digits.
    fn dotted(&self, byte_offset: usize, field: &str, wanted: &str) -> Result<([u8; 3], &'a str), FormatError> {
        let found = self.ascii(byte_offset, 8, field)?;
        let two = |text: &str| match text.as_bytes() {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some((tens - b'0') * 10 + (ones - b'0')),
            // Some devices write a blank instead of the leading zero.
            [b' ', ones @ b'0'..=b'9'] => Some(ones - b'0'),
            // EDF+ writes `yy` for years that two digits cannot tell.
            b"yy" => Some(u8::MAX),
            _ => None,
        };
        let parts: Vec<Option<u8>> = found.split('.').map(two).collect();
        match parts[..] {
            [Some(a), Some(b), Some(c)] => Ok(([a, b, c], found)),
            _ => Err(self.fail(byte_offset, field, found, &format!("is not {wanted}; correct it"))),
        }
    }

    fn start_time(&self) -> Result<BaseTime, FormatError> {
        let wanted = "a time hh.mm.ss, such as 09.30.00";
        let ([hour, minute, second], found) = self.dotted(176, "start time", wanted)?;
        if hour < 24 && minute < 60 && second < 60 {
            return Ok(BaseTime { hour, minute, second, nanosecond: 0 });
        }
        Err(self.fail(176, "start time", found, &format!("is not {wanted}; correct it")))
    }

    /// The date, whose two-digit year means 1985 to 2084; EDF+ has the whole year in the recording field.
    fn start_date(
        &self,
        recording: &str,
        continuity: Continuity,
        notes: &mut Vec<String>,
    ) -> Result<BaseDate, FormatError> {
        let wanted = "a date dd.mm.yy, such as 25.04.89";
        let ([day, month, year], found) = self.dotted(168, "start date", wanted)?;
        let long = if continuity == Continuity::Plain { None } else { long_date(recording) };
        if !(1..=31).contains(&day) || !(1..=12).contains(&month) || (year == u8::MAX && long.is_none()) {
            return Err(self.fail(168, "start date", found, &format!("is not {wanted}; correct it")));
        }
        let century = if year >= 85 { 1900 } else { 2000 };
        match long {
            Some(long)
                if (long.day, long.month) == (day, month)
                    && (year == u8::MAX || long.year % 100 == u16::from(year)) =>
            {
                Ok(long)
            }
            Some(long) if year == u8::MAX => Ok(long),
            Some(long) => {
                notes.push(format!(
                    "the start date is {found}, but the recording field says {long}: the former was taken"
                ));
                Ok(BaseDate { day, month, year: century + u16::from(year) })
            }
            None => Ok(BaseDate { day, month, year: century + u16::from(year) }),
        }
    }

    fn signal(&self, signal_idx: usize, signal_n: usize, notes: &mut Vec<String>) -> Result<EdfSignal, FormatError> {
        // Where field number `field_idx` of this signal is.
        let at = |field_idx: usize| {
            let before: usize = SIGNAL_FIELDS[..field_idx].iter().map(|(_, byte_n)| byte_n * signal_n).sum();
            HEADER_UNIT_BYTE_N + before + signal_idx * SIGNAL_FIELDS[field_idx].1
        };
        let named = |field_idx: usize| format!("{} of signal {}", SIGNAL_FIELDS[field_idx].0, signal_idx + 1);
        let label = self.text(at(0), 16, &named(0), notes)?;
        let is_annotations = matches!(label.as_str(), "EDF Annotations" | "BDF Annotations");
        let units = units(&self.text(at(2), 8, &named(2), &mut Vec::new())?);
        let (sample_n, _) = self.count(at(8), 8, &named(8), 1, u64::from(u32::MAX))?;
        let sample_n = u32::try_from(sample_n).expect("checked against a limit of 32 bits");
        let range_byte_offset = at(3) as u64;
        if is_annotations {
            // Its range means nothing.
            return Ok(EdfSignal {
                label,
                units,
                physical: (-1.0, 1.0),
                digital: (-1, 1),
                sample_n,
                is_annotations,
                range_byte_offset,
            });
        }
        let physical = (self.number(at(3), 8, &named(3))?.0, self.number(at(4), 8, &named(4))?.0);
        let whole = |field_idx: usize| {
            let found = self.ascii(at(field_idx), 8, &named(field_idx))?.trim();
            found.parse::<i32>().map_err(|_| {
                self.fail(at(field_idx), &named(field_idx), found, "is not a whole number; the header is damaged")
            })
        };
        let digital = (whole(5)?, whole(6)?);
        Ok(EdfSignal { label, units, physical, digital, sample_n, is_annotations, range_byte_offset })
    }
}

/// `Startdate 02-MAR-2002 ...` of EDF+.
fn long_date(recording: &str) -> Option<BaseDate> {
    const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    let mut parts = recording.strip_prefix("Startdate ")?.split(' ').next()?.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(month))? + 1;
    let is_digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(day, 2) || !is_digits(year, 4) || parts.next().is_some() {
        return None;
    }
    let day = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    Some(BaseDate { day, month: u8::try_from(month).ok()?, year: year.parse().ok()? })
}

/// A unit as WFDB can hold it: the micro sign as `u`, blanks as `_`, `NU` (no unit) where there is none.
fn units(text: &str) -> String {
    let text = text.trim().replace(['\u{b5}', '\u{3bc}'], "u");
    if text.is_empty() { "NU".to_owned() } else { text.split_whitespace().collect::<Vec<_>>().join("_") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_year_is_that_of_the_recording_field() {
        let date = long_date("Startdate 02-MAR-2002 PSG-1234 NN X").expect("a date");
        assert_eq!((date.day, date.month, date.year), (2, 3, 2002));
        for other in
            ["", "Startdate X X X X", "Startdate 2-MAR-2002", "Startdate 02-MRZ-2002", "Startdate 02-MAR-2002-1"]
        {
            assert_eq!(long_date(other), None, "{other}");
        }
    }

    #[test]
    fn units_have_no_blanks_and_no_micro_sign() {
        for (text, expected) in [("uV", "uV"), ("\u{b5}V  ", "uV"), ("", "NU"), ("deg C", "deg_C")] {
            assert_eq!(units(text), expected);
        }
    }
}
