//! `ecgpipe data convert`: from any recording to a WFDB record or a CSV file, a piece at a time.
//!
//! Invariants: nothing is left behind after an error, and no file is written over unless asked for (`tests/data.rs`:
//! `what_exists_is_written_over_only_by_force`); samples stay as they are or the difference is told
//! (`a_sample_that_does_not_fit_is_named`).
#![expect(clippy::print_stderr, reason = "what was lost or rounded is told beside the data")]

use std::{
    fs,
    io::{self, BufWriter, Write as _},
    ops::Range,
    path::{Path, PathBuf},
};

use ecgpipe_formats::{FileFormat, Options, start_after};
use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, Format, Header, INVALID_I32, RecordWriter, Samples, Signal, Timing,
    read_annotations, write_annotations,
};

use super::{
    clock, counted, options, shown,
    source::{Source, check_annotator, with_extension},
    thousands,
};
use crate::{
    cli::DataConvert,
    commands::{Exit, Failure, print},
    whole_file,
};

/// Decimals of a time in seconds that does not end before.
const TIME_DECIMAL_N: usize = 6;
/// Most decimals of a value.
const MAX_VALUE_DECIMAL_N: usize = 12;

pub(super) fn convert(args: &DataConvert) -> Result<Exit, Failure> {
    let target = Target::of(&args.output)?;
    let format = args.format.map(writable).transpose()?;
    if let (Some(_), Target::Csv { .. }) = (format, &target) {
        return Err(Failure::usage("a CSV file has no signal format").help("leave out `--format`"));
    }
    args.annotators.iter().try_for_each(|annotator| check_annotator(annotator))?;
    let options = Options { leads: args.leads.clone(), bit_n: format.and_then(bit_n), ..options(&args.unsaid) };
    let source = Source::open(&args.input, &options)?;
    let notes = source.notes().to_vec();
    let mut conversion = Conversion { frames: frames(args, &source)?, source, notes };
    let header = conversion.header(&target.name(), format);
    let annotations = conversion.annotations(&args.annotators, &header)?;

    let outputs = target.outputs(annotations.iter().map(|(annotator, _)| annotator.as_str()));
    refuse_collisions(&outputs, &conversion.source, args.force)?;
    let folder = folder_of(&args.output);
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let (lead_n, hz) = (header.signals.len(), header.sampling_frequency_hz);
    let what = match &target {
        Target::Wfdb { header: path, .. } => {
            let written = conversion.write_record(header, folder_of(path))?;
            for (annotator, found) in &annotations {
                write_annotations(path, annotator, found)?;
            }
            format!("format {}", written.signals[0].format)
        }
        Target::Csv { path } => {
            conversion.write_csv(&header, path)?;
            for (annotator, found) in &annotations {
                write_annotations_csv(&path.with_extension(format!("{annotator}.csv")), found, hz)?;
            }
            "one line a sample".to_owned()
        }
    };
    let mut text = format!("{} at {hz} Hz, {}, {what}\n", counted(lead_n as u64, "lead"), clock(conversion.seconds()));
    for (annotator, found) in &annotations {
        text += &format!("annotations {annotator}: {}\n", thousands(found.items.len() as u64));
    }
    for output in &outputs {
        text += &format!("wrote {}\n", output.display());
    }
    print(&text);
    for note in &conversion.notes {
        eprintln!("note: {note}");
    }
    Ok(Exit::Success)
}

/// A part of a recording on its way.
struct Conversion {
    source: Source,
    frames: Range<u64>,
    /// What was decided, rounded or left behind.
    notes: Vec<String>,
}

impl Conversion {
    fn seconds(&self) -> f64 {
        (self.frames.end - self.frames.start) as f64 / self.source.header().sampling_frequency_hz
    }

    /// The header of the result: all signals in one file, in one format.
    fn header(&mut self, name: &str, format: Option<Format>) -> Header {
        let mut header = self.source.header().clone();
        name.clone_into(&mut header.record_name);
        if !header.segments.is_empty() {
            self.notes.push(format!("{} became one record", counted(header.segments.len() as u64, "segment")));
        }
        (header.segments, header.segment_signal_n) = (Vec::new(), 0);
        header.signals = self.source.signals().to_vec();
        header.sample_n = None;
        let format = format.unwrap_or_else(|| common_format(&header.signals));
        // Without the slow leads, a frame of several samples becomes several frames.
        let finest_n = header.signals.iter().map(|signal| signal.samples_per_frame).fold(0, greatest_common).max(1);
        for signal in &mut header.signals {
            signal.file_name = format!("{name}.dat");
            (signal.format, signal.skew_n, signal.byte_offset, signal.block_size) = (format, 0, 0, 0);
            signal.samples_per_frame /= finest_n;
            (signal.initial_value_adu, signal.checksum) = (None, None);
        }
        if self.frames.start > 0 {
            let from_s = self.frames.start as f64 / header.sampling_frequency_hz;
            header.base_counter += from_s * header.counter_frequency_hz;
            if let Some(time) = header.base_time {
                let (time, date) = start_after(time, header.base_date, from_s);
                (header.base_time, header.base_date) = (Some(time), date);
            }
        }
        let is_counter_own = header.counter_frequency_hz != header.sampling_frequency_hz;
        header.sampling_frequency_hz *= f64::from(finest_n);
        if !is_counter_own {
            header.counter_frequency_hz = header.sampling_frequency_hz;
            header.base_counter *= f64::from(finest_n);
        }
        header
    }

    /// The annotations to write, by annotator.
    fn annotations(&mut self, named: &[String], header: &Header) -> Result<Vec<(String, Annotations)>, Failure> {
        let beside = self.source.annotators();
        let mut wanted: Vec<(String, Annotations)> = Vec::new();
        let mut named = named.to_vec();
        let is_named = !named.is_empty();
        if let Some(own) = self.source.own_annotations() {
            let annotator = if named.is_empty() { "atr".to_owned() } else { named.remove(0) };
            wanted.push((annotator, own.clone()));
        }
        if !is_named && wanted.is_empty() {
            named.extend(beside.iter().find(|annotator| *annotator == "atr").cloned());
        }
        let left: Vec<&str> =
            beside.iter().map(String::as_str).filter(|beside| !named.iter().any(|taken| taken == beside)).collect();
        if !left.is_empty() {
            self.notes
                .push(format!("annotation files stay behind: {}; `--annotator` takes them along", left.join(", ")));
        }
        for annotator in named {
            // Once checked against the record, and once in the file's own time.
            self.source.annotations(&annotator)?;
            let raw = read_annotations(self.source.path().with_extension("hea"), &annotator, Timing::default())?;
            wanted.push((annotator, raw));
        }
        let old_hz = self.source.header().sampling_frequency_hz;
        for (annotator, found) in &mut wanted {
            let hz = found.time_resolution_hz.unwrap_or(old_hz);
            let position = |frame: u64| (frame as f64 / old_hz * hz).round() as u64;
            let (first, end) = (position(self.frames.start), position(self.frames.end));
            let is_rhythm_before = |item: &&Annotation| item.code == AnnotationCode::RHYTHM && item.sample_idx < first;
            let rhythm = found.items.iter().rfind(is_rhythm_before).map(|item| item.aux_text().trim().to_owned());
            let before_n = found.items.len();
            let is_to_end = self.frames.end == self.source.frame_n();
            found.items.retain(|item| item.sample_idx >= first && (item.sample_idx < end || is_to_end));
            let cut_n = before_n - found.items.len();
            if cut_n > 0 {
                let cut = counted(cut_n as u64, "annotation");
                self.notes.push(format!("{cut} of {annotator} outside of the time are left out"));
            }
            if let Some(rhythm) = rhythm {
                let rhythm = shown(&rhythm);
                self.notes.push(format!("the rhythm {rhythm} holds at the beginning; {annotator} told it before"));
            }
            let mut stray_n = 0;
            for item in &mut found.items {
                item.sample_idx -= first;
                match self.source.place_of(usize::from(item.chan)) {
                    Some(place) => item.chan = u8::try_from(place).unwrap_or(0),
                    None => {
                        item.chan = 0;
                        stray_n += 1;
                    }
                }
            }
            if stray_n > 0 {
                self.notes.push(format!(
                    "{} of {annotator} of a lead that stays behind are told of the first one",
                    counted(stray_n, "annotation")
                ));
            }
            found.time_resolution_hz =
                (hz != header.sampling_frequency_hz || found.time_resolution_hz.is_some()).then_some(hz);
        }
        Ok(wanted)
    }

    fn write_record(&mut self, header: Header, folder: &Path) -> Result<Header, Failure> {
        let mut writer = RecordWriter::create(folder, header)?;
        let mut samples = Vec::new();
        self.source.each_piece(self.frames.clone(), |pieces| {
            samples.extend(pieces.drain(..).map(Samples::Wide));
            writer.write(&samples)?;
            pieces.extend(samples.drain(..).map(|piece| match piece {
                Samples::Wide(piece) => piece,
                Samples::Narrow(_) => Vec::new(),
            }));
            Ok(())
        })?;
        Ok(writer.finish()?)
    }

    fn write_csv(&mut self, header: &Header, path: &Path) -> Result<(), Failure> {
        if let Some(fast) = header.signals.iter().find(|signal| signal.samples_per_frame != 1) {
            let message = format!("lead {} has another sampling frequency than others", shown(&fast.description));
            let help = "a line of CSV is one moment: choose leads of one frequency by `--leads`";
            return Err(Failure::usage(message).help(help));
        }
        self.notes.extend(csv_losses(header));
        let hz = header.sampling_frequency_hz;
        let time_decimal_n = (0..TIME_DECIMAL_N)
            .find(|decimal_n| (10_f64.powi(*decimal_n as i32) / hz).fract() == 0.0)
            .unwrap_or_else(|| {
                // Fast recordings need more, so that lines differ.
                TIME_DECIMAL_N.max(hz.log10().ceil().max(0.0) as usize + 3)
            });
        let columns: Vec<Column> = header.signals.iter().map(|signal| Column::of(signal, &mut self.notes)).collect();
        let mut file = Whole::create(path)?;
        let mut line = String::from("time (s)");
        for signal in &header.signals {
            let name = signal.description.replace(['"', '\n', '\r'], "'");
            let name = if signal.is_calibrated { format!("{name} ({})", signal.units) } else { name };
            line += ",";
            line += &if name.contains([',', '\'']) { format!("\"{name}\"") } else { name };
        }
        file.write(|out| writeln!(out, "{line}"))?;
        let mut sample_idx = 0_u64;
        self.source.each_piece(self.frames.clone(), |pieces| {
            file.write(|out| {
                for row in 0..pieces[0].len() {
                    write!(out, "{:.time_decimal_n$}", sample_idx as f64 / hz)?;
                    for (piece, column) in pieces.iter().zip(&columns) {
                        out.write_all(b",")?;
                        column.write(piece[row], out)?;
                    }
                    out.write_all(b"\n")?;
                    sample_idx += 1;
                }
                Ok(())
            })
        })?;
        file.publish()
    }
}

/// Where to.
enum Target {
    Wfdb { header: PathBuf, name: String },
    Csv { path: PathBuf },
}

impl Target {
    fn of(output: &Path) -> Result<Self, Failure> {
        match FileFormat::of(output) {
            Some(FileFormat::Csv) if output.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv")) => {
                return Ok(Self::Csv { path: output.to_owned() });
            }
            Some(_) => {
                let message = format!("{}: this format can be read, not written", output.display());
                return Err(Failure::usage(message).help("write a WFDB record, such as folder/name, or a .csv file"));
            }
            None => {}
        }
        let header = with_extension(output, "hea");
        let name = header.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(is_name) {
            let message = format!("`{}` is no name of a WFDB record", shown(name));
            return Err(Failure::usage(message).help("use letters, digits, _ and -, such as folder/100"));
        }
        Ok(Self::Wfdb { name: name.to_owned(), header })
    }

    fn name(&self) -> String {
        match self {
            Self::Wfdb { name, .. } => name.clone(),
            Self::Csv { .. } => "csv".to_owned(),
        }
    }

    /// Every file that will be written.
    fn outputs<'a>(&self, annotators: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
        match self {
            Self::Wfdb { header, .. } => {
                ["hea", "dat"].into_iter().chain(annotators).map(|end| header.with_extension(end)).collect()
            }
            Self::Csv { path } => {
                let more = annotators.map(|annotator| path.with_extension(format!("{annotator}.csv")));
                [path.clone()].into_iter().chain(more).collect()
            }
        }
    }
}

fn writable(number: u32) -> Result<Format, Failure> {
    Format::from_number(number).filter(|format| format.is_writable()).ok_or_else(|| {
        let known: Vec<String> =
            Format::ALL.iter().filter(|format| format.is_writable()).map(Format::to_string).collect();
        Failure::usage(format!("signal format {number} cannot be written"))
            .help(format!("the formats are {}", known.join(", ")))
    })
}

/// Bits of a format's samples; none for differences, whose samples are not bound by them.
fn bit_n(format: Format) -> Option<u32> {
    match format {
        Format::Offset8 => Some(8),
        Format::Packed310 | Format::Packed311 => Some(10),
        Format::Packed212 => Some(12),
        Format::Fixed24 | Format::Flac24 => Some(24),
        Format::Fixed32 => Some(32),
        Format::Difference8 => None,
        _ => Some(16),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("{}: {error}", path.display())).help("check that the folder can be written to")
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses to write over what is there, and over what is read in any case.
fn refuse_collisions(outputs: &[PathBuf], source: &Source, force: bool) -> Result<(), Failure> {
    let real = |path: &Path| path.canonicalize().ok();
    let inputs: Vec<PathBuf> = source.files().iter().filter_map(|path| real(path)).collect();
    for output in outputs {
        if real(output).is_some_and(|output| inputs.contains(&output)) {
            let message = format!("{}: this is what is to be converted", output.display());
            return Err(Failure::usage(message).help("give the result another name"));
        }
        if !force && output.symlink_metadata().is_ok() {
            let message = format!("{}: there is such a file already", output.display());
            return Err(Failure::usage(message).help("give the result another name, or write over it by `--force`"));
        }
    }
    Ok(())
}

/// The frames between `--from` and `--to`.
fn frames(args: &DataConvert, source: &Source) -> Result<Range<u64>, Failure> {
    let hz = source.header().sampling_frequency_hz;
    let frame_n = source.frame_n();
    let at = |option: &str, text: &Option<String>, default: u64| -> Result<u64, Failure> {
        let Some(text) = text else { return Ok(default) };
        let seconds = seconds(text).ok_or_else(|| {
            Failure::usage(format!("`{option} {}` is no time", shown(text)))
                .help("give seconds, m:ss or h:mm:ss, such as 90, 1:30 or 0:01:30.5")
        })?;
        let frame = (seconds * hz).round();
        if frame > frame_n as f64 {
            let end = clock(frame_n as f64 / hz);
            return Err(Failure::usage(format!(
                "`{option} {}` is behind the end of the recording, {end}",
                shown(text)
            )));
        }
        Ok(frame as u64)
    };
    let (from, to) = (at("--from", &args.from, 0)?, at("--to", &args.to, frame_n)?);
    if from >= to {
        return Err(Failure::usage("there is no sample between `--from` and `--to`").help("exchange the two times"));
    }
    Ok(from..to)
}

/// `SS`, `M:SS` or `H:MM:SS`, with decimals or without.
fn seconds(text: &str) -> Option<f64> {
    let parts: Vec<&str> = text.split(':').collect();
    let (last, before) = parts.split_last()?;
    let is_decimal = |part: &str| {
        part.starts_with(|letter: char| letter.is_ascii_digit())
            && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let mut total_s = last.parse::<f64>().ok().filter(|_| is_decimal(last))?;
    if before.len() > 2 || (!before.is_empty() && total_s >= 60.0) {
        return None;
    }
    for (part, factor_s) in before.iter().rev().zip([60.0, 3600.0]) {
        let is_count = !part.is_empty() && part.len() < 7 && part.bytes().all(|byte| byte.is_ascii_digit());
        let count: f64 = part.parse().ok().filter(|_| is_count)?;
        if factor_s == 60.0 && before.len() == 2 && count >= 60.0 {
            return None;
        }
        total_s += count * factor_s;
    }
    Some(total_s)
}

/// The format of all leads if they share one that can be written; else the narrowest of 16, 24 and 32 for all.
fn common_format(signals: &[Signal]) -> Format {
    let first = signals[0].format;
    if first.is_writable() && signals.iter().all(|signal| signal.format == first) {
        return first;
    }
    match signals.iter().filter_map(|signal| bit_n(signal.format)).max() {
        Some(32) => Format::Fixed32,
        Some(24) => Format::Fixed24,
        _ => Format::Fixed16,
    }
}

fn greatest_common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common(b, a % b) }
}

/// What a CSV file has no place for.
fn csv_losses(header: &Header) -> Vec<String> {
    let mut lost = Vec::new();
    if !header.comments.is_empty() {
        lost.push(counted(header.comments.len() as u64, "comment line"));
    }
    if header.base_time.is_some() || header.base_date.is_some() {
        lost.push("the start time".to_owned());
    }
    if header.signals.iter().any(|signal| signal.is_calibrated) {
        lost.push("gains and baselines".to_owned());
    }
    if lost.is_empty() { Vec::new() } else { vec![format!("CSV has no place for {}", lost.join(", "))] }
}

/// How a lead's samples are written.
struct Column {
    gain_adu_per_unit: f64,
    baseline_adu: i32,
    /// Decimals of a value; none for ADC units.
    decimal_n: Option<usize>,
}

impl Column {
    fn of(signal: &Signal, notes: &mut Vec<String>) -> Self {
        let gain = signal.gain_adu_per_unit;
        let decimal_n = signal.is_calibrated.then(|| {
            // 1/200 mV ends after three decimals; a gain of 204.7 never does: one decimal more than a step has.
            let ends = |decimal_n: &usize| (10_f64.powi(*decimal_n as i32) / gain).fract() == 0.0;
            (0..=MAX_VALUE_DECIMAL_N).find(ends).unwrap_or_else(|| {
                let decimal_n = (gain.abs().log10().ceil().max(0.0) as usize + 1).min(MAX_VALUE_DECIMAL_N);
                notes.push(format!(
                    "lead {}: values are rounded to {decimal_n} decimals, a step of the ADC is {:.3e} {}",
                    shown(&signal.description),
                    1.0 / gain.abs(),
                    signal.units
                ));
                decimal_n
            })
        });
        Self { gain_adu_per_unit: gain, baseline_adu: signal.baseline_adu, decimal_n }
    }

    fn write(&self, sample: i32, out: &mut impl io::Write) -> io::Result<()> {
        match self.decimal_n {
            _ if sample == INVALID_I32 => Ok(()),
            None => write!(out, "{sample}"),
            Some(decimal_n) => {
                let value = (f64::from(sample) - f64::from(self.baseline_adu)) / self.gain_adu_per_unit;
                // Adding 0 takes the sign from -0.
                write!(out, "{:.decimal_n$}", value + 0.0)
            }
        }
    }
}

fn write_annotations_csv(path: &Path, annotations: &Annotations, record_hz: f64) -> Result<(), Failure> {
    let hz = annotations.time_resolution_hz.unwrap_or(record_hz);
    let mut file = Whole::create(path)?;
    file.write(|out| {
        writeln!(out, "time (s),symbol,subtype,chan,num,aux")?;
        for item in &annotations.items {
            let symbol = match annotations.definitions.get(&item.code.number()) {
                Some(own) => own.symbol.as_str(),
                None => item.code.symbol(),
            };
            let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
                true => format!("\"{}\"", text.replace('"', "\"\"")),
                false => text.to_owned(),
            };
            let (symbol, aux) = (quoted(symbol), quoted(&item.aux_text()));
            let (seconds, subtype, chan, num) = (item.sample_idx as f64 / hz, item.subtype, item.chan, item.num);
            writeln!(out, "{seconds:.TIME_DECIMAL_N$},{symbol},{subtype},{chan},{num},{aux}")?;
        }
        Ok(())
    })?;
    file.publish()
}

/// A text file that appears whole or not at all.
struct Whole<'a> {
    path: &'a Path,
    out: BufWriter<tempfile::NamedTempFile>,
}

impl<'a> Whole<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = whole_file::temporary(folder_of(path), ".convert-").map_err(|error| unwritable(path, &error))?;
        Ok(Self { path, out: BufWriter::with_capacity(1 << 18, file) })
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<tempfile::NamedTempFile>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut self.out).map_err(|error| unwritable(self.path, &error))
    }

    fn publish(self) -> Result<(), Failure> {
        let failed = |error: io::Error| unwritable(self.path, &error);
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_three_forms() {
        for (text, expected) in [
            ("90", Some(90.0)),
            ("1:30", Some(90.0)),
            ("0:01:30.5", Some(90.5)),
            ("100:00", Some(6000.0)),
            ("1:00:00", Some(3600.0)),
            ("1:60", None),
            ("1:60:00", None),
            ("1:2:3:4", None),
            ("-1", None),
            ("1:", None),
            ("", None),
            ("nan", None),
            ("1e3", None),
            (".5", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
