//! `ecgpipe data show`: what a recording holds. All samples are read once, so that a damaged file is found out.

use ecgpipe_wfdb::Signal;
use serde::Serialize;

use super::{
    clock, counted,
    marks::{Counting, Marks, rhythm_meaning},
    options, percent, shown,
    source::Source,
    statistics::{SecondLook, Statistics, Summary},
    thousands,
};
use crate::{
    cli::DataShow,
    commands::{Exit, Failure, Wiring, print, print_json, table},
};

/// What `--json` gives.
#[derive(Serialize)]
struct Shown {
    /// Grows when fields change their meaning or go.
    format: u32,
    record: String,
    path: String,
    file_format: &'static str,
    /// Frames a second: samples of a lead with one sample a frame.
    sampling_frequency_hz: f64,
    sample_n: u64,
    seconds: f64,
    start_date: Option<String>,
    start_time: Option<String>,
    segment_n: usize,
    comments: Vec<String>,
    leads: Vec<LeadShown>,
    annotations: Vec<Marks>,
    /// What had to be decided to read it, and annotation files that cannot be read.
    notes: Vec<String>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct LeadShown {
    name: String,
    units: String,
    sampling_frequency_hz: f64,
    signal_format: Option<u32>,
    gain_adu_per_unit: f64,
    is_calibrated: bool,
    baseline_adu: i32,
    sample_n: u64,
    valid_n: u64,
    flat_n: u64,
    clipped_n: u64,
    /// The unit of the values that follow: mV for every voltage, else the lead's own.
    values_in: String,
    min: Option<f64>,
    median: Option<f64>,
    max: Option<f64>,
}

pub(super) fn show(args: &DataShow, wiring: &Wiring) -> Result<Exit, Failure> {
    let mut source = Source::open(&args.record, &options(&args.unsaid))?;
    let summaries = summaries(&mut source)?;
    let header = source.header().clone();
    let length_s = source.frame_n() as f64 / header.sampling_frequency_hz;
    let counting = Counting { length_s, beat_class: wiring.beat_class };
    let (mut annotations, mut problems) = (Vec::new(), Vec::new());
    if let Some(own) = source.own_annotations() {
        let hz = own.time_resolution_hz.unwrap_or(header.sampling_frequency_hz);
        annotations.push(counting.marks(None, own, hz));
    }
    let is_named = !args.annotators.is_empty();
    let annotators = if is_named { args.annotators.clone() } else { source.annotators() };
    for annotator in annotators {
        match source.annotations(&annotator) {
            Ok(found) => {
                annotations.push(counting.marks(Some(annotator), &found, header.sampling_frequency_hz));
            }
            Err(failure) if is_named => return Err(failure),
            Err(failure) => {
                let help = failure.help.map(|help| format!("; {help}")).unwrap_or_default();
                problems.push(format!("{}{help}", failure.message));
            }
        }
    }
    let has_signal_format = source.format_name() == "WFDB";
    let leads = source.signals().iter().zip(&summaries);
    let lead_shown = |(signal, known): (&Signal, &Known)| LeadShown {
        signal_format: has_signal_format.then(|| signal.format.number()),
        ..lead(signal, known, (wiring.mv_per_unit)(&signal.units))
    };
    let shown = Shown {
        format: 1,
        record: header.record_name.clone(),
        path: source.path().display().to_string(),
        file_format: source.format_name(),
        sampling_frequency_hz: header.sampling_frequency_hz,
        sample_n: source.frame_n(),
        seconds: length_s,
        start_date: header.base_date.map(|date| date.to_string()),
        start_time: header.base_time.map(|time| time.to_string()),
        segment_n: header.segments.len(),
        comments: header.comments.clone(),
        leads: leads.map(lead_shown).collect(),
        annotations,
        notes: source.notes().to_vec(),
        problems,
    };
    if args.json {
        print_json(&shown);
    } else {
        print(&text(&shown));
    }
    Ok(if shown.problems.is_empty() { Exit::Success } else { Exit::Failed })
}

/// A lead's summary, with its median told.
struct Known {
    /// The lead's own sampling frequency.
    hz: f64,
    summary: Summary,
    median_adu: Option<f64>,
}

/// Reads all samples; and once more the leads of more than 16 bits whose median is beyond them.
fn summaries(source: &mut Source) -> Result<Vec<Known>, Failure> {
    let frame_hz = source.header().sampling_frequency_hz;
    let lead_hz: Vec<f64> =
        source.signals().iter().map(|signal| frame_hz * f64::from(signal.samples_per_frame)).collect();
    let mut all: Vec<Statistics> = lead_hz.iter().map(|hz| Statistics::new(*hz)).collect();
    let frames = 0..source.frame_n();
    source.each_piece(frames.clone(), |pieces| {
        all.iter_mut().zip(pieces).for_each(|(statistics, piece)| statistics.add(piece));
        Ok(())
    })?;
    let found: Vec<Summary> = all.iter_mut().map(Statistics::finish).collect();
    let mut looks: Vec<Vec<SecondLook>> =
        found.iter().map(|summary| summary.median_adu.map(SecondLook::at).unwrap_or_default()).collect();
    if looks.iter().any(|looks| !looks.is_empty()) {
        source.each_piece(frames, |pieces| {
            for (looks, piece) in looks.iter_mut().zip(pieces) {
                looks.iter_mut().for_each(|look| look.add(piece));
            }
            Ok(())
        })?;
    }
    let known = |((summary, looks), hz): ((&Summary, &Vec<SecondLook>), f64)| {
        let value = |middle| f64::from(SecondLook::value(looks, middle));
        let median_adu = summary.median_adu.map(|(low, high)| (value(low) + value(high)) / 2.0);
        Known { hz, summary: *summary, median_adu }
    };
    Ok(found.iter().zip(&looks).zip(lead_hz).map(known).collect())
}

fn lead(signal: &Signal, known: &Known, mv_per_unit: Option<f64>) -> LeadShown {
    let (factor, values_in) = match mv_per_unit {
        Some(factor) => (factor, "mV".to_owned()),
        None => (1.0, signal.units.clone()),
    };
    let physical = |adu: f64| (adu - f64::from(signal.baseline_adu)) / signal.gain_adu_per_unit * factor;
    let limits = known.summary.limits_adu.map(|(low, high)| {
        let (low, high) = (physical(f64::from(low)), physical(f64::from(high)));
        // A negative gain turns a lead upside down.
        (low.min(high), low.max(high))
    });
    LeadShown {
        name: signal.description.clone(),
        units: signal.units.clone(),
        sampling_frequency_hz: known.hz,
        signal_format: None,
        gain_adu_per_unit: signal.gain_adu_per_unit,
        is_calibrated: signal.is_calibrated,
        baseline_adu: signal.baseline_adu,
        sample_n: known.summary.sample_n,
        valid_n: known.summary.valid_n,
        flat_n: known.summary.flat_n,
        clipped_n: known.summary.clipped_n,
        values_in,
        min: limits.map(|(low, _)| low),
        median: known.median_adu.map(physical),
        max: limits.map(|(_, high)| high),
    }
}

fn text(record: &Shown) -> String {
    let mut text = format!("record {}  {}\n", record.record, shown(&record.path));
    let segments = if record.segment_n > 0 {
        format!(" of {}", counted(record.segment_n as u64, "segment"))
    } else {
        String::new()
    };
    text += &format!(
        "{}{segments}, {} at {} Hz, {} each, {}\n",
        record.file_format,
        counted(record.leads.len() as u64, "lead"),
        record.sampling_frequency_hz,
        counted(record.sample_n, if is_uniform(record) { "sample" } else { "frame" }),
        clock(record.seconds)
    );
    match (&record.start_date, &record.start_time) {
        (None, None) => text += "start not known\n",
        (date, time) => {
            let parts: Vec<&str> = [date, time].into_iter().flatten().map(String::as_str).collect();
            text += &format!("start {}\n", parts.join(" "));
        }
    }
    for (idx, comment) in record.comments.iter().enumerate() {
        let head = if idx == 0 { "comments" } else { "        " };
        text += &format!("{head} {}\n", shown(comment));
    }
    text.push('\n');
    text += &table(&lead_rows(record));
    for marks in &record.annotations {
        text.push('\n');
        text += &marks_text(marks, record.seconds);
    }
    let lines = record.notes.iter().map(|note| format!("note: {}\n", shown_line(note)));
    let lines: String =
        lines.chain(record.problems.iter().map(|problem| format!("problem: {}\n", shown_line(problem)))).collect();
    if !lines.is_empty() {
        text.push('\n');
        text += &lines;
    }
    text
}

/// Our own sentence with foreign words, which are escaped already where they can hurt.
fn shown_line(line: &str) -> String {
    line.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn is_uniform(record: &Shown) -> bool {
    record.leads.iter().all(|lead| lead.sampling_frequency_hz == record.sampling_frequency_hz)
}

fn lead_rows(record: &Shown) -> Vec<Vec<String>> {
    let has_format = record.leads.iter().any(|lead| lead.signal_format.is_some());
    let is_uniform = is_uniform(record);
    let row = |cells: Vec<(bool, String)>| {
        cells.into_iter().filter(|(is_shown, _)| *is_shown).map(|(_, cell)| cell).collect()
    };
    let cell = |text: &str| (true, text.to_owned());
    let mut rows: Vec<Vec<String>> = vec![row(vec![
        cell("lead"),
        (!is_uniform, "Hz".to_owned()),
        (has_format, "format".to_owned()),
        cell("gain"),
        cell("baseline"),
        cell("valid"),
        cell("min"),
        cell("median"),
        cell("max"),
        cell("unit"),
        cell("flat"),
        cell("clipped"),
    ])];
    for lead in &record.leads {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let gain = match lead.is_calibrated {
            true => format!("{}/{}", significant(lead.gain_adu_per_unit), shown(&lead.units)),
            false => format!("not known ({} assumed)", significant(lead.gain_adu_per_unit)),
        };
        rows.push(row(vec![
            (true, shown(&lead.name)),
            (!is_uniform, lead.sampling_frequency_hz.to_string()),
            (has_format, lead.signal_format.map(|number| number.to_string()).unwrap_or_default()),
            (true, gain),
            (true, lead.baseline_adu.to_string()),
            (true, percent(lead.valid_n, lead.sample_n)),
            (true, number(lead.min)),
            (true, number(lead.median)),
            (true, number(lead.max)),
            (true, shown(&lead.values_in)),
            (true, percent(lead.flat_n, lead.sample_n)),
            (true, percent(lead.clipped_n, lead.sample_n)),
        ]));
    }
    rows
}

/// At most seven digits, as many as a header means.
fn significant(number: f64) -> String {
    let rounded: f64 = format!("{number:.6e}").parse().unwrap_or(number);
    rounded.to_string()
}

fn marks_text(marks: &Marks, length_s: f64) -> String {
    let name = match &marks.annotator {
        Some(annotator) => format!("annotations {annotator}"),
        None => "annotations in the file".to_owned(),
    };
    let beats = if marks.beat_n > 0 { format!(", {}", counted(marks.beat_n, "beat")) } else { String::new() };
    let mut text = format!("{name}: {}{beats}\n", thousands(marks.annotation_n));
    let mut rows = vec![["symbol", "count", "class", "meaning"].map(str::to_owned).to_vec()];
    for symbol in &marks.symbols {
        let class = match symbol.class {
            None => String::new(),
            Some(class) if class.de_chazal == class.ec57 => class.ec57.to_owned(),
            Some(class) => format!("{} or {}", class.de_chazal, class.ec57),
        };
        rows.push(vec![shown(&symbol.symbol), thousands(symbol.count), class, shown(&symbol.meaning)]);
    }
    text += &table(&rows);
    let classes = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        let cells: Vec<String> = ["N", "S", "V", "F", "Q"]
            .iter()
            .map(|letter| format!("{letter} {}", thousands(counts.get(letter).copied().unwrap_or_default())))
            .collect();
        cells.join(", ")
    };
    if marks.beat_n > 0 {
        if marks.de_chazal == marks.ec57 {
            text += &format!("AAMI classes: {}\n", classes(&marks.ec57));
        } else {
            text += &format!("AAMI classes, escape beats as N (de Chazal 2004): {}\n", classes(&marks.de_chazal));
            text += &format!("AAMI classes, escape beats as S (EC57): {}\n", classes(&marks.ec57));
        }
    }
    if !marks.rhythms.is_empty() {
        let mut rows = vec![["rhythm", "episodes", "time", "share", "meaning"].map(str::to_owned).to_vec()];
        for rhythm in &marks.rhythms {
            let ms = |seconds: f64| (seconds * 1e3).round() as u64;
            rows.push(vec![
                rhythm.name.clone(),
                rhythm.episode_n.to_string(),
                clock(rhythm.seconds),
                percent(ms(rhythm.seconds), ms(length_s)),
                rhythm_meaning(&rhythm.name).to_owned(),
            ]);
        }
        text.push('\n');
        text += &table(&rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_are_shown_as_they_were_meant() {
        for (gain, expected) in
            [(200.0, "200"), (32.000_059_127_9, "32.00006"), (1e6 / 3.0, "333333.3"), (-0.5, "-0.5")]
        {
            assert_eq!(significant(gain), expected);
        }
    }
}
