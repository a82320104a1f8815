//! What recordings of all formats have in common: they open, tell what they are, and are read a piece at a time.

use std::{ffi::OsStr, path::Path};

use ecgpipe_wfdb::{
    Annotations, BaseDate, BaseTime, Header, MAX_SAMPLE_N, MAX_SAMPLING_FREQUENCY_HZ, MAX_SIGNAL_N, Signal, Timing,
};

use crate::{
    csv::CsvFile,
    edf::Edf,
    error::{FormatError, shown},
    npy::NpyFile,
    scale::{Precision, Scale, Spread, Wanted},
};

/// Values of all leads that are held at a time while a table is read.
const PIECE_VALUE_N: u64 = 1 << 16;

/// The formats, by the extension of the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// EDF, EDF+, BDF, BDF+: `.edf` and `.bdf`.
    Edf,
    /// A text table: `.csv` and `.tsv`.
    Csv,
    /// A NumPy array: `.npy`.
    Npy,
}

impl FileFormat {
    /// Every extension, in small letters.
    pub const EXTENSIONS: [&str; 5] = ["edf", "bdf", "csv", "tsv", "npy"];

    /// The format of a file, by its name; `None` if it is none of them.
    pub fn of(path: &Path) -> Option<FileFormat> {
        let extension = path.extension().and_then(OsStr::to_str)?.to_ascii_lowercase();
        match extension.as_str() {
            "edf" | "bdf" => Some(FileFormat::Edf),
            "csv" | "tsv" => Some(FileFormat::Csv),
            "npy" => Some(FileFormat::Npy),
            _ => None,
        }
    }
}

/// What the axes of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// A row is a moment.
    SamplesByLeads,
    /// A row is a lead.
    LeadsBySamples,
}

/// What a file does not say, and which part of it to read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The leads to read, by name (without regard to case) or place (`#1` is the first), in this order; all of them if empty.
    pub leads: Vec<String>,
    /// Samples per second, for CSV without a time column and for `.npy`.
    pub sampling_frequency_hz: Option<f64>,
    /// The axes of a two-dimensional `.npy` array.
    pub axes: Option<Axes>,
    /// Names of the leads in file order, where the file has none.
    pub lead_names: Vec<String>,
    /// The unit of leads for which the file gives none; mV without it.
    pub units: Option<String>,
    /// ADC units per physical unit, instead of a choice by the values. Not for EDF, which has its own.
    pub gain_adu_per_unit: Option<f64>,
    /// The sample that stands for 0 physical units, where [`Options::gain_adu_per_unit`] is given.
    pub baseline_adu: Option<i32>,
    /// Bits that samples may have, 2 to 32. Values that need more are rounded; without it exact values may have 32, others 16.
    pub bit_n: Option<u32>,
}

/// What opening a file gives beside its samples.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) annotations: Annotations,
    pub(crate) notes: Vec<String>,
}

/// What a table of values says of itself.
pub(crate) struct Table {
    /// Not known before the whole table was read if it has a time column.
    pub(crate) sampling_frequency_hz: f64,
    /// By lead.
    pub(crate) names: Vec<Option<String>>,
    /// By lead.
    pub(crate) units: Vec<Option<String>>,
    /// Whether the numbers are ADC units, if the type tells.
    pub(crate) is_adc: Option<bool>,
    pub(crate) precision: Precision,
    pub(crate) comments: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// An open recording.
///
/// Opening reads annotations (EDF+) or all values once (CSV, `.npy`), so that length, gains and faults are known; samples are
/// not kept.
#[derive(Debug)]
pub struct Recording {
    header: Header,
    annotations: Annotations,
    notes: Vec<String>,
    file: Source,
    frame_n: u64,
    next_frame_idx: u64,
}

#[derive(Debug)]
enum Source {
    Edf(Box<Edf>),
    Table(Box<Values>),
}

/// A table of values, and how they become samples.
#[derive(Debug)]
struct Values {
    file: TableFile,
    /// Leads of the file.
    lead_n: usize,
    /// The chosen ones, with their scales.
    chosen: Vec<(usize, Scale)>,
    columns: Vec<Vec<f64>>,
}

#[derive(Debug)]
enum TableFile {
    Csv(CsvFile),
    Npy(NpyFile),
}

impl Recording {
    /// Opens a file; its format follows from its name.
    ///
    /// # Errors
    /// If the file cannot be read, breaks its format, or does not say something that `options` do not say either.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Recording, FormatError> {
        let path = path.as_ref();
        let origin = path.display().to_string();
        check(options, &origin)?;
        let format = FileFormat::of(path).ok_or_else(|| {
            let known = FileFormat::EXTENSIONS.join(", .");
            let problem = format!("the name does not tell the format; give it one of the extensions .{known}");
            FormatError::Choice { origin: origin.clone(), problem }
        })?;
        let (file, mut opened) = match format {
            FileFormat::Edf => {
                if options.gain_adu_per_unit.is_some() || options.sampling_frequency_hz.is_some() {
                    let problem = "an EDF file has its own sampling frequency and gains; leave them out".to_owned();
                    return Err(FormatError::Choice { origin, problem });
                }
                let (edf, opened) = Edf::open(path, options)?;
                (Source::Edf(Box::new(edf)), opened)
            }
            FileFormat::Csv => {
                let (file, table) = CsvFile::open(path)?;
                open_table(TableFile::Csv(file), table, options, &origin)?
            }
            FileFormat::Npy => {
                let (file, table) = NpyFile::open(path, options)?;
                open_table(TableFile::Npy(file), table, options, &origin)?
            }
        };
        opened.header.record_name = record_name(path);
        for signal in &mut opened.header.signals {
            signal.file_name = format!("{}.dat", opened.header.record_name);
        }
        Ok(Recording {
            frame_n: opened.header.sample_n.unwrap_or_default(),
            header: opened.header,
            annotations: opened.annotations,
            notes: opened.notes,
            file,
            next_frame_idx: 0,
        })
    }

    /// The header that the recording would have as a WFDB record of that name.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Frames in the recording: samples of a lead that has one sample a frame.
    pub fn frame_n(&self) -> u64 {
        self.frame_n
    }

    /// The annotations in the file itself; none but in EDF+ and BDF+. Positions count samples of the fastest lead, whose
    /// frequency is their `time_resolution_hz`.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// What is needed to check annotations of this recording that stand in another file.
    pub fn timing(&self) -> Timing {
        Timing { sampling_frequency_hz: Some(self.header.sampling_frequency_hz), sample_n: Some(self.frame_n) }
    }

    /// What had to be decided or was changed, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The frame that [`Recording::read`] gives next.
    pub fn position(&self) -> u64 {
        self.next_frame_idx
    }

    /// Goes to a frame; behind the end there is nothing to read.
    pub fn seek(&mut self, frame_idx: u64) {
        self.next_frame_idx = frame_idx.min(self.frame_n);
    }

    /// Reads the next `frame_n` frames, or as many as are left, and gives how many those were: 0 at the end. `pieces` has one
    /// vector a signal, which is emptied first; [`INVALID_I32`](ecgpipe_wfdb::INVALID_I32) stands for an invalid sample.
    ///
    /// # Errors
    /// If the file cannot be read or was changed meanwhile.
    ///
    /// # Panics
    /// If `pieces` has not one vector for each signal of the header.
    pub fn read(&mut self, frame_n: usize, pieces: &mut [Vec<i32>]) -> Result<usize, FormatError> {
        assert_eq!(pieces.len(), self.header.signals.len(), "one piece a signal");
        pieces.iter_mut().for_each(Vec::clear);
        let taken_n = (frame_n as u64).min(self.frame_n - self.next_frame_idx);
        if taken_n == 0 {
            return Ok(0);
        }
        match &mut self.file {
            Source::Edf(edf) => edf.read(self.next_frame_idx, taken_n, pieces)?,
            Source::Table(values) => {
                values.read(self.next_frame_idx, taken_n, pieces, &self.header)?;
            }
        }
        self.next_frame_idx += taken_n;
        Ok(usize::try_from(taken_n).expect("at most what was asked for"))
    }
}

impl Values {
    fn read(
        &mut self,
        frame_idx: u64,
        frame_n: u64,
        pieces: &mut [Vec<i32>],
        header: &Header,
    ) -> Result<(), FormatError> {
        let piece_n = (PIECE_VALUE_N / self.lead_n as u64).max(1);
        let mut at = frame_idx;
        while at < frame_idx + frame_n {
            let taken_n = piece_n.min(frame_idx + frame_n - at);
            self.columns.iter_mut().for_each(Vec::clear);
            self.file.read(at, taken_n, &mut self.columns)?;
            for ((lead_idx, scale), piece) in self.chosen.iter().zip(&mut *pieces) {
                let column = &self.columns[*lead_idx];
                let changed = || FormatError::Choice {
                    origin: header.record_name.clone(),
                    problem: "the file changed while it was read; read it again".to_owned(),
                };
                if column.len() as u64 != taken_n {
                    return Err(changed());
                }
                for value in column {
                    piece.push(scale.sample(*value).ok_or_else(changed)?);
                }
            }
            at += taken_n;
        }
        Ok(())
    }
}

impl TableFile {
    fn read(&mut self, sample_idx: u64, sample_n: u64, columns: &mut [Vec<f64>]) -> Result<(), FormatError> {
        match self {
            TableFile::Csv(file) => file.read(sample_idx, sample_n, columns),
            TableFile::Npy(file) => file.read(sample_idx, sample_n, columns),
        }
    }
}

/// Reads all values of a table once, and chooses how they become samples.
fn open_table(
    mut file: TableFile,
    table: Table,
    options: &Options,
    origin: &str,
) -> Result<(Source, Opened), FormatError> {
    let choice = |problem: String| FormatError::Choice { origin: origin.to_owned(), problem };
    let lead_n = table.names.len();
    if lead_n > MAX_SIGNAL_N {
        return Err(choice(format!(
            "{lead_n} leads are more than the limit of {MAX_SIGNAL_N}; are rows and columns the other way round?"
        )));
    }
    let mut notes = table.notes;
    let names = lead_names(&table.names, options, origin)?;
    let picked = select(&names, &options.leads, origin)?;

    let wanted = Wanted {
        gain_adu_per_unit: options.gain_adu_per_unit,
        baseline_adu: options.baseline_adu,
        bit_n: options.bit_n,
        is_adc: table.is_adc == Some(true),
    };
    let mut spreads = vec![Spread::new(table.precision, &wanted); lead_n];
    let mut columns = vec![Vec::new(); lead_n];
    let piece_n = (PIECE_VALUE_N / lead_n as u64).max(1);
    let mut sample_n = 0;
    loop {
        columns.iter_mut().for_each(Vec::clear);
        file.read(sample_n, piece_n, &mut columns)?;
        for ((column, spread), name) in columns.iter().zip(&mut spreads).zip(&names) {
            for (idx, value) in column.iter().enumerate() {
                if value.is_infinite() {
                    let what = format!("lead {}, sample {}", shown(name), sample_n + idx as u64);
                    let problem = "the value is not finite; write NaN for a sample that is missing".to_owned();
                    return Err(FormatError::Value { origin: origin.to_owned(), what, problem });
                }
                spread.add(*value);
            }
        }
        let read_n = columns[0].len() as u64;
        sample_n += read_n;
        if read_n < piece_n {
            break;
        }
    }
    if sample_n == 0 || sample_n > MAX_SAMPLE_N {
        return Err(choice(format!("the file has {sample_n} samples; a record has 1 to {MAX_SAMPLE_N}")));
    }
    let sampling_frequency_hz = match &mut file {
        TableFile::Csv(csv) => csv.sampling_frequency_hz(options, sample_n, &mut notes)?,
        TableFile::Npy(npy) => {
            debug_assert_eq!(npy.sample_n(), sample_n);
            table.sampling_frequency_hz
        }
    };
    if !(sampling_frequency_hz > 0.0 && sampling_frequency_hz <= MAX_SAMPLING_FREQUENCY_HZ) {
        return Err(choice(format!("a sampling frequency of {sampling_frequency_hz} Hz cannot be; give another")));
    }

    let mut signals = Vec::new();
    let mut chosen = Vec::new();
    let (mut assumed, mut uncalibrated) = (Vec::new(), Vec::new());
    for &lead_idx in &picked {
        let (spread, name) = (&spreads[lead_idx], &names[lead_idx]);
        let units = table.units[lead_idx].clone().or_else(|| options.units.clone());
        // Whole numbers without a unit are what an ADC gives; 995 mV are no ECG.
        let is_adc = table.is_adc.unwrap_or(units.is_none() && spread.is_whole());
        let scale = Scale::choose(spread, &Wanted { is_adc, ..wanted });
        match (units.is_none(), scale.is_calibrated) {
            (_, false) => uncalibrated.push(shown(name)),
            (true, true) => assumed.push(shown(name)),
            (false, true) => {}
        }
        let units = units.unwrap_or_else(|| "mV".to_owned());
        if scale.error_units > 0.0 {
            notes.push(format!(
                "lead {}: values were rounded to steps of {} {units}, by up to {:.3e} {units}",
                shown(name),
                1.0 / scale.gain_adu_per_unit.abs(),
                scale.error_units
            ));
        }
        if scale.sample(spread.min()).is_none() || scale.sample(spread.max()).is_none() {
            let what = format!("lead {}", shown(name));
            let problem = format!(
                "values from {} to {} at {} ADC units each do not fit in 32 bits; give a smaller gain",
                spread.min(),
                spread.max(),
                scale.gain_adu_per_unit
            );
            return Err(FormatError::Value { origin: origin.to_owned(), what, problem });
        }
        signals.push(Signal {
            file_name: String::new(),
            format: scale.format,
            samples_per_frame: 1,
            skew_n: 0,
            byte_offset: 0,
            gain_adu_per_unit: scale.gain_adu_per_unit,
            is_calibrated: scale.is_calibrated,
            baseline_adu: scale.baseline_adu,
            units,
            adc_resolution_bits: scale.bit_n(),
            adc_zero_adu: scale.baseline_adu,
            initial_value_adu: None,
            checksum: None,
            block_size: 0,
            description: name.clone(),
        });
        chosen.push((lead_idx, scale));
    }
    if !assumed.is_empty() {
        notes.push(format!("the file gives no unit for {}: mV is assumed", assumed.join(", ")));
    }
    if !uncalibrated.is_empty() {
        notes.push(format!(
            "{}: whole numbers without a unit are taken as ADC units of unknown gain (WFDB assumes 200 a mV); give gain and baseline \
             if you know them",
            uncalibrated.join(", ")
        ));
    }
    let header = Header {
        record_name: String::new(),
        sampling_frequency_hz,
        counter_frequency_hz: sampling_frequency_hz,
        base_counter: 0.0,
        sample_n: Some(sample_n),
        base_time: None,
        base_date: None,
        signals,
        segment_signal_n: 0,
        segments: Vec::new(),
        comments: table.comments,
    };
    let values = Values { file, lead_n, chosen, columns };
    Ok((Source::Table(Box::new(values)), Opened { header, annotations: Annotations::default(), notes }))
}

/// Refuses options that no file could have.
fn check(options: &Options, origin: &str) -> Result<(), FormatError> {
    let choice = |problem: &str| Err(FormatError::Choice { origin: origin.to_owned(), problem: problem.to_owned() });
    if options.sampling_frequency_hz.is_some_and(|hz| !(hz > 0.0 && hz <= MAX_SAMPLING_FREQUENCY_HZ)) {
        return choice("the sampling frequency must be a number above 0 and up to 1e9; give it in Hz, such as 360");
    }
    if options.gain_adu_per_unit.is_some_and(|gain| !gain.is_finite() || gain == 0.0) {
        return choice(
            "the gain must be a finite number other than 0; give it in ADC units per physical unit, such as 200",
        );
    }
    if options
        .units
        .as_ref()
        .is_some_and(|units| units.is_empty() || units.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return choice("the unit must be a word without blanks; give one such as mV");
    }
    if options.lead_names.iter().any(|name| name.trim() != name || name.is_empty() || name.contains(char::is_control)) {
        return choice(
            "a lead's name must not be empty or have control characters or blanks around it; give one such as MLII",
        );
    }
    Ok(())
}

fn lead_names(found: &[Option<String>], options: &Options, origin: &str) -> Result<Vec<String>, FormatError> {
    let given = &options.lead_names;
    if !given.is_empty() && given.len() != found.len() {
        let problem =
            format!("{} lead names were given, but the file has {} leads; name each", given.len(), found.len());
        return Err(FormatError::Choice { origin: origin.to_owned(), problem });
    }
    let name = |(idx, found): (usize, &Option<String>)| {
        given.get(idx).or(found.as_ref()).cloned().unwrap_or_else(|| format!("lead_{}", idx + 1))
    };
    Ok(found.iter().enumerate().map(name).collect())
}

/// The places of the leads that were asked for, by name or place as [`Options::leads`] has them; all of them if none was.
///
/// # Errors
/// [`FormatError::Choice`] for a lead that is not there, is asked for twice, or has a name that another one has, too.
pub fn select(names: &[String], wanted: &[String], origin: &str) -> Result<Vec<usize>, FormatError> {
    if wanted.is_empty() {
        return Ok((0..names.len()).collect());
    }
    let listing = || {
        let names: Vec<String> = names.iter().take(60).map(|name| shown(name)).collect();
        names.join(", ")
    };
    let mut picked = Vec::new();
    for lead in wanted {
        let by_place = lead.strip_prefix('#').and_then(|place| place.parse::<usize>().ok());
        let found: Vec<usize> = match by_place {
            Some(place) => place.checked_sub(1).filter(|idx| *idx < names.len()).into_iter().collect(),
            None => (0..names.len()).filter(|&idx| names[idx].eq_ignore_ascii_case(lead)).collect(),
        };
        let problem = match found[..] {
            [idx] if picked.contains(&idx) => format!("lead `{}` is asked for twice; name each once", shown(lead)),
            [idx] => {
                picked.push(idx);
                continue;
            }
            [] => format!("there is no lead `{}`; the file has {}", shown(lead), listing()),
            [first, ..] => {
                format!(
                    "{} leads are called `{}`; choose one by its place, such as #{}",
                    found.len(),
                    shown(lead),
                    first + 1
                )
            }
        };
        return Err(FormatError::Choice { origin: origin.to_owned(), problem });
    }
    Ok(picked)
}

/// A file's name as that of a record: what WFDB does not allow becomes `_`.
fn record_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let name: String = stem.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    if name.is_empty() { "record".to_owned() } else { name }
}

/// Time and date some seconds later. The date is left out if there was none, and behind the year 9999.
pub fn start_after(time: BaseTime, date: Option<BaseDate>, seconds: f64) -> (BaseTime, Option<BaseDate>) {
    const DAY_NS: u128 = 86_400_000_000_000;
    let whole_s = u128::from(time.hour) * 3600 + u128::from(time.minute) * 60 + u128::from(time.second);
    let added_ns = (seconds.max(0.0) * 1e9).round() as u128;
    let total_ns = whole_s * 1_000_000_000 + u128::from(time.nanosecond) + added_ns;
    let (day_n, rest_ns) = (total_ns / DAY_NS, total_ns % DAY_NS);
    let whole_s = rest_ns / 1_000_000_000;
    let small = |number: u128| u8::try_from(number).expect("below 60");
    let time = BaseTime {
        hour: small(whole_s / 3600),
        minute: small(whole_s / 60 % 60),
        second: small(whole_s % 60),
        nanosecond: u32::try_from(rest_ns % 1_000_000_000).expect("below 10^9"),
    };
    (time, date.and_then(|date| days_after(date, day_n)))
}

/// A date some days later, in the Gregorian calendar; `None` behind the year 9999.
fn days_after(mut date: BaseDate, day_n: u128) -> Option<BaseDate> {
    // Year by year would do, but nothing is longer than some days.
    for _ in 0..day_n.min(4_000_000) {
        let is_leap = date.year.is_multiple_of(4) && (!date.year.is_multiple_of(100) || date.year.is_multiple_of(400));
        let length = match date.month {
            2 => 28 + u8::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if date.day < length {
            date.day += 1;
        } else if date.month < 12 {
            (date.day, date.month) = (1, date.month + 1);
        } else if date.year < 9999 {
            (date.day, date.month, date.year) = (1, 1, date.year + 1);
        } else {
            return None;
        }
    }
    Some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_past_midnight() {
        let time = |hour, minute, second, nanosecond| BaseTime { hour, minute, second, nanosecond };
        let date = |day, month, year| BaseDate { day, month, year };
        let start = (time(23, 59, 59, 500_000_000), Some(date(28, 2, 2024)));
        assert_eq!(start_after(start.0, start.1, 0.5), (time(0, 0, 0, 0), Some(date(29, 2, 2024))));
        assert_eq!(start_after(start.0, Some(date(31, 12, 1999)), 86_400.0), (start.0, Some(date(1, 1, 2000))));
        assert_eq!(start_after(start.0, None, 1.0).0, time(0, 0, 0, 500_000_000));
        assert_eq!(start_after(start.0, Some(date(31, 12, 9999)), 1.0).1, None);
    }

    #[test]
    fn leads_are_selected_by_name_or_place() {
        let names = ["MLII", "V5", "v5"].map(str::to_owned);
        let check = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            select(&names, &wanted, "x").map_err(|error| error.to_string())
        };
        assert_eq!(check(&[]), Ok(vec![0, 1, 2]));
        assert_eq!(check(&["#3", "mlii"]), Ok(vec![2, 0]));
        assert_eq!(check(&["V5"]), Err("x: 2 leads are called `V5`; choose one by its place, such as #2".to_owned()));
        assert_eq!(check(&["I"]), Err("x: there is no lead `I`; the file has MLII, V5, v5".to_owned()));
        assert_eq!(check(&["#4"]), Err("x: there is no lead `#4`; the file has MLII, V5, v5".to_owned()));
        assert_eq!(check(&["#1", "MLII"]), Err("x: lead `MLII` is asked for twice; name each once".to_owned()));
    }

    #[test]
    fn a_file_name_becomes_a_record_name() {
        for (path, name) in [("a/b c.edf", "b_c"), ("x.y.csv", "x_y"), ("\u{e9}.npy", "_"), ("100.edf", "100")] {
            assert_eq!(record_name(Path::new(path)), name);
        }
    }
}
