//! `ecgpipe data`: recordings outside of pipelines. WFDB records and foreign files are one thing here, a [`source::Source`]
//! that is read a piece at a time, so that a recording of a day takes no more memory than one of a minute.
//!
//! | module | owns |
//! |---|---|
//! | [`source`] | an open recording of any format, and the annotation files beside it |
//! | [`show`] | what a recording holds |
//! | [`statistics`] | range, median and quality of a lead, gathered a piece at a time |
//! | [`marks`] | annotations by symbol and class, rhythms by time |
//! | [`convert`] | from any recording to WFDB and CSV |
//! | [`verify`] | every record of a folder |

mod convert;
mod marks;
mod show;
mod source;
mod statistics;
mod verify;

use std::io::IsTerminal as _;

use ecgpipe_formats::{Axes, FormatError, Options};
use ecgpipe_wfdb::WfdbError;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Failure, Wiring};
use crate::cli::{Data, DataAxes, Unsaid};

pub(super) fn data(args: &Data, wiring: &Wiring) -> Result<Exit, Failure> {
    match args {
        Data::Show(args) => show::show(args, wiring),
        Data::Convert(args) => convert::convert(args),
        Data::Verify(args) => verify::verify(args),
    }
}

/// The options of a foreign file.
fn options(unsaid: &Unsaid) -> Options {
    Options {
        sampling_frequency_hz: unsaid.fs,
        axes: unsaid.axes.map(|axes| match axes {
            DataAxes::SamplesByLeads => Axes::SamplesByLeads,
            DataAxes::LeadsBySamples => Axes::LeadsBySamples,
        }),
        lead_names: unsaid.names.clone(),
        units: unsaid.units.clone(),
        gain_adu_per_unit: unsaid.gain,
        baseline_adu: unsaid.baseline,
        ..Options::default()
    }
}

/// The message and the advice of a library's error, which end in `; ADVICE`.
fn told(error: &dyn std::error::Error) -> (String, Option<String>) {
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (text, None),
    }
}

impl From<WfdbError> for Failure {
    fn from(error: WfdbError) -> Self {
        let (message, help) = told(&error);
        let exit = match error {
            WfdbError::Io { .. } => Exit::Environment,
            _ => Exit::Failed,
        };
        Self { message, help, exit }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        let (message, help) = told(&error);
        let exit = match error {
            FormatError::Io { .. } => Exit::Environment,
            FormatError::Choice { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        Self { message, help, exit }
    }
}

/// How far work has come, on a terminal.
fn bar(total: u64, unit: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("[{bar:24}] {pos}/{len} {msg}  {eta}").expect("the template is fixed");
    ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(unit)
}

/// Foreign text, fit to be shown.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect::<String>().replace("\\'", "'").replace("\\\"", "\"")
}

/// `h:mm:ss.mmm`, rounded to milliseconds.
fn clock(seconds: f64) -> String {
    let ms = (seconds.max(0.0) * 1e3).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// A count with blanks between thousands.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits are ASCII")).collect();
    groups.join(" ")
}

/// A share in percent that says 0 and 100 only where it is all or nothing.
fn percent(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match share {
        _ if part == 0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        share if share < 0.01 => "<0.01 %".to_owned(),
        share if share > 99.99 => ">99.99 %".to_owned(),
        share => format!("{share:.2} %"),
    }
}

/// A number with a word that has an `s` for all but one.
fn counted(count: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_or_nothing_only_if_they_are() {
        for (part, whole, expected) in [
            (0, 7, "0 %"),
            (7, 7, "100 %"),
            (1, 100_000, "<0.01 %"),
            (99_999, 100_000, ">99.99 %"),
            (1, 3, "33.33 %"),
            (0, 0, "0 %"),
        ] {
            assert_eq!(percent(part, whole), expected);
        }
    }

    #[test]
    fn times_and_counts_are_for_people() {
        assert_eq!(clock(650_000.0 / 360.0), "0:30:05.556");
        assert_eq!(clock(90_061.999_9), "25:01:02.000");
        assert_eq!([thousands(0), thousands(999), thousands(650_000)], ["0", "999", "650 000"]);
        assert_eq!([counted(1, "beat"), counted(2274, "beat")], ["1 beat", "2 274 beats"]);
    }
}
