//! `plot_strips`: the most informative seconds of a record as an ECG strip on millimetre paper, for a reader who checks
//! what the model says.
//!
//! The paper is the usual one: 25 mm/s and 10 mm/mV, fine lines every 1 mm and bold ones every 5 mm, with a calibration
//! pulse of 1 mV and 200 ms before each lead. The files state their size in millimetres, so a print at 100 % is to scale.

use ecgpipe_sdk::{
    Beats, Context, Each, FactProblem, Files, Place, Predictions, Signals, Stage, StageError, StageFacts, facts::names,
    kinds::Beat, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::{AamiClass, EscapeRule},
    agreement::{check_beats, some_of},
    chart::{
        self, Color, Frame, INK, LABEL, MARGIN, MUTED, SMALL, SUBTITLE, Scene, Stroke, TITLE, TextStyle, WHITE,
        grouped, palette, text_width,
    },
    lead,
};

/// Draws a strip of a record.
pub struct PlotStrips;

/// Which records, and how much of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Records to draw, by name; the others give no files. Default: none named, which means every record.
    pub records: Vec<String>,
    /// Length of the strip in seconds, 1 to 30. Default: 10.
    #[schemars(range(min = 1, max = 30))]
    pub seconds: u32,
    /// To which class the reference symbols of escape beats belong when a prediction is compared with them: `de_chazal`
    /// (N) or `ec57` (S). Default: `de_chazal`.
    pub escape_rule: EscapeRule,
}

impl Default for Params {
    fn default() -> Self {
        Self { records: Vec::new(), seconds: 10, escape_rule: EscapeRule::default() }
    }
}

ports! {
    /// What `plot_strips` takes.
    pub struct Inputs {
        /// The recording.
        pub signals: Each<Signals>,
        /// Where its beats are.
        pub beats: Each<Beats>,
        /// What the model says of them.
        pub predictions: Each<Predictions>,
    }
}

ports! {
    /// What `plot_strips` gives.
    pub struct Outputs {
        /// `strip_<record>.svg` and `strip_<record>.png`; nothing for a record that was not asked for.
        pub figures: Each<Files>,
    }
}

impl Stage for PlotStrips {
    const NAME: &'static str = "plot_strips";
    const SUMMARY: &'static str =
        "draws the most informative seconds of each record on ECG paper, with the predicted classes";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(1..=30).contains(&params.seconds) {
            return Err(format!("`seconds` must be 1 to 30, not {}", params.seconds));
        }
        match params.records.iter().find(|name| ecgpipe_sdk::RecordId::new(name).is_err()) {
            Some(name) => Err(format!("`records` names `{name}`, which is not a record name")),
            None => Ok(()),
        }
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        check_beats(facts, &["beats", "predictions"]);
        if let Some(known) = facts.list("signals", names::RECORDS) {
            let unknown: Vec<String> =
                params.records.iter().filter(|record| !known.contains(&record.as_str())).cloned().collect();
            if let Some(shown) = some_of(&unknown) {
                let message = format!("`records` names records that there are not: {shown}");
                let problem = FactProblem::warning(Place::Parameter("records"), message);
                facts.tell(problem.help(format!("`{}` has {} records", facts.from("signals"), known.len())));
            }
        }
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        let signals = &*inputs.signals;
        if !params.records.is_empty() && !params.records.iter().any(|name| name == signals.record.as_str()) {
            return Ok(Outputs { figures: Each::new(Files::default()) });
        }
        let frequency_hz = signals.sampling_frequency_hz;
        if !(frequency_hz > 0.0 && frequency_hz.is_finite()) {
            let message = format!("the recording has a sampling frequency of {frequency_hz} Hz");
            return Err(StageError::new(message).record(&signals.record));
        }
        let marks = marks(&inputs.beats, &inputs.predictions, params.escape_rule);
        let scene = draw(signals, &marks, params)?;
        let files = chart::figure(&format!("strip_{}", signals.record), &scene)?;
        Ok(Outputs { figures: Each::new(Files::new(files.into())) })
    }
}

/// Scene pixels of a millimetre of paper.
const MM: f64 = 4.0;
const MM_PER_S: f64 = 25.0;
const MM_PER_MV: f64 = 10.0;
/// Room at the left of a lead for the calibration pulse, in mm.
const CALIBRATION_MM: f64 = 15.0;
/// Height of a lead's paper: as much as its signal needs, between these, in whole bold squares, in mm.
const LEAST_LEAD_MM: f64 = 25.0;
const MOST_LEAD_MM: f64 = 80.0;
const FOOTER: &str = "Decision support, not a diagnosis; verify every strip.";

const PAPER: Color = Color::hex(0xff_fa_f8);
const FINE: Stroke = Stroke::new(Color::hex(0xf8_dc_d6), 0.5);
const BOLD: Stroke = Stroke::new(Color::hex(0xee_b4_a8), 1.0);
const TRACE: Stroke = Stroke::new(Color::hex(0x16_1b_22), 1.1);
/// What simplifying a trace may move it by, in mm: half of the pen's width, and 2.5 uV.
const TOLERANCE_MM: f64 = 0.025;

/// One beat as the strip shows it.
#[derive(Clone, Debug, PartialEq)]
struct Mark {
    sample_idx: i64,
    /// `None` for a beat without a prediction, and for a reference beat that the detector missed.
    predicted: Option<AamiClass>,
    symbol: Option<String>,
    kind: MarkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkKind {
    /// Agrees with the reference, or there is no reference.
    Unopposed,
    /// Disagrees with the reference.
    Wrong,
    /// A reference beat that the detector missed.
    Missed,
}

impl Mark {
    /// Whether a reader should look at it: predicted ectopic or fused, predicted wrongly, or missed.
    fn is_informative(&self) -> bool {
        let ectopic = matches!(self.predicted, Some(AamiClass::S | AamiClass::V | AamiClass::F));
        ectopic || self.kind != MarkKind::Unopposed
    }
}

/// Joins beats and predictions by beat; sorted by time.
fn marks(beats: &Beats, predictions: &Predictions, rule: EscapeRule) -> Vec<Mark> {
    let mut predicted: Vec<Option<AamiClass>> = vec![None; beats.beats.len()];
    for (row_idx, &beat_idx) in predictions.beat_idx.iter().enumerate() {
        let slot = usize::try_from(beat_idx).ok().and_then(|beat_idx| predicted.get_mut(beat_idx));
        if let (Some(slot), false) = (slot, predictions.classes.is_empty()) {
            *slot = AamiClass::from_letter(&predictions.classes[predictions.class_idx(row_idx)]);
        }
    }
    let found = beats.beats.iter().zip(predicted).map(|(beat, predicted)| {
        let truth = beat.symbol.as_deref().and_then(|symbol| rule.class(symbol));
        let wrong = matches!((predicted, truth), (Some(predicted), Some(truth)) if predicted != truth);
        let kind = if wrong { MarkKind::Wrong } else { MarkKind::Unopposed };
        Mark { sample_idx: beat.sample_idx, predicted, symbol: beat.symbol.clone(), kind }
    });
    let missed = beats.missed.iter().map(|Beat { sample_idx, symbol }| Mark {
        sample_idx: *sample_idx,
        predicted: None,
        symbol: symbol.clone(),
        kind: MarkKind::Missed,
    });
    let mut marks: Vec<Mark> = found.chain(missed).collect();
    marks.sort_by_key(|mark| mark.sample_idx);
    marks
}

/// The part of a record that is drawn, in seconds from its start.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    start_s: f64,
    length_s: f64,
}

/// The span, starting at a whole second, that holds most informative beats (ties: the earliest); the middle of the record
/// where no beat is informative.
fn most_informative(marks: &[Mark], record_s: f64, frequency_hz: f64, seconds: u32) -> Span {
    let length_s = f64::from(seconds).min(record_s);
    let last_start_s = (record_s - length_s).max(0.0).floor();
    let times: Vec<f64> =
        marks.iter().filter(|mark| mark.is_informative()).map(|mark| mark.sample_idx as f64 / frequency_hz).collect();
    let mut best: Option<(usize, f64)> = None;
    for &time in &times {
        // Half a second of lead-in, so that the first beat is whole.
        let start_s = (time - 0.5).floor().clamp(0.0, last_start_s);
        let from = times.partition_point(|&time| time < start_s);
        let count = times.partition_point(|&time| time < start_s + length_s) - from;
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, start_s));
        }
    }
    let start_s = best.map_or(((record_s - length_s) / 2.0).floor().max(0.0), |(_, start_s)| start_s);
    Span { start_s, length_s }
}

fn draw(signals: &Signals, marks: &[Mark], params: &Params) -> Result<Scene, StageError> {
    let frequency_hz = signals.sampling_frequency_hz;
    let title = format!("Record {}", signals.record);
    let record_s = signals.sample_n() as f64 / frequency_hz;
    let leads: Vec<(&ecgpipe_sdk::Lead, f64)> =
        signals.leads.iter().filter_map(|lead| Some((lead, lead::mv_per_unit(&lead.units)?))).collect();
    if leads.is_empty() || signals.sample_n() == 0 {
        let reason = if signals.leads.is_empty() || signals.sample_n() > 0 { "no lead in mV" } else { "no samples" };
        return Ok(chart::empty(&title, &format!("The record has {reason}.")));
    }
    let span = most_informative(marks, record_s, frequency_hz, params.seconds);
    let traces = leads.iter().map(|(lead, mv_per_unit)| Trace::of(lead, *mv_per_unit, (span, frequency_hz)));
    let traces: Vec<Trace> = traces.collect::<Result<_, StageError>>()?;

    // Whole seconds of paper, even where the record ends before.
    let paper_mm = CALIBRATION_MM + (span.length_s * MM_PER_S / 5.0).ceil().max(5.0) * 5.0;
    let leads_mm: f64 = traces.iter().map(|trace| trace.height_mm).sum();
    let paper = Frame { x: MARGIN, y: 118.0, width: paper_mm * MM, height: leads_mm * MM };
    let key = Key::lay_out(marks.iter().any(|mark| mark.symbol.is_some()), paper.width.max(560.0));
    let height = paper.bottom() + 34.0 + key.height() + 24.0 + MARGIN;
    let mut scene = Scene::new(&title, 2.0 * MARGIN + paper.width.max(560.0), height).at_true_size(MM);

    let shown: Vec<&Mark> = marks
        .iter()
        .filter(|mark| {
            let time_s = mark.sample_idx as f64 / frequency_hz;
            time_s >= span.start_s && time_s < span.start_s + span.length_s
        })
        .collect();
    heading(&mut scene, &title, (signals, &traces, span), &shown);
    draw_paper(&mut scene, paper);
    let x_of = |time_s: f64| paper.x + (CALIBRATION_MM + (time_s - span.start_s) * MM_PER_S) * MM;
    for mark in &shown {
        draw_mark(&mut scene, paper, mark, x_of(mark.sample_idx as f64 / frequency_hz));
    }
    row_names(&mut scene, paper, &shown);
    let mut top = paper.y;
    for trace in &traces {
        let frame = Frame { y: top, height: trace.height_mm * MM, ..paper };
        trace.draw(&mut scene, frame, x_of);
        top = frame.bottom();
    }
    let end_s = span.start_s + span.length_s;
    for second in 0..=span.length_s as u32 {
        let time_s = span.start_s + f64::from(second);
        let crowded = span.length_s > 15.0 && second % 2 == 1;
        if time_s <= end_s && !crowded {
            scene.text((x_of(time_s), paper.bottom() + 17.0), &clock(time_s), SMALL.middle());
        }
    }
    key.draw(&mut scene, paper.bottom() + 44.0);
    let y = scene_bottom(height);
    scene.text((MARGIN, y), "25 mm/s, 10 mm/mV", SUBTITLE);
    scene.text((MARGIN + paper.width.max(560.0), y), FOOTER, SUBTITLE.color(INK).bold().end());
    Ok(scene)
}

fn scene_bottom(height: f64) -> f64 {
    height - MARGIN + 2.0
}

fn heading(scene: &mut Scene, title: &str, (signals, traces, span): (&Signals, &[Trace], Span), shown: &[&Mark]) {
    let names: Vec<&str> = traces.iter().map(|trace| trace.name.as_str()).collect();
    let leads = if names.len() == 1 { "lead" } else { "leads" };
    let when = format!("{} to {}", clock(span.start_s), clock(span.start_s + span.length_s));
    scene.text((MARGIN, 38.0), title, TITLE);
    let x = MARGIN + text_width(title, TITLE) + 12.0;
    scene.text((x, 38.0), &format!("{when}, {leads} {}", names.join(", ")), LABEL.size(14.0));
    let count = |fits: fn(&Mark) -> bool| shown.iter().filter(|mark| fits(mark)).count();
    let ectopic_n = count(|mark| matches!(mark.predicted, Some(AamiClass::S | AamiClass::V | AamiClass::F)));
    let wrong_n = count(|mark| mark.kind == MarkKind::Wrong);
    let missed_n = count(|mark| mark.kind == MarkKind::Missed);
    let beat_n = shown.len() - missed_n;
    let mut text = format!("{beat_n} beat{}, {ectopic_n} predicted S, V or F", if beat_n == 1 { "" } else { "s" });
    if shown.iter().any(|mark| mark.symbol.is_some()) {
        text.push_str(&format!(", {wrong_n} unlike the reference"));
    }
    if missed_n > 0 {
        text.push_str(&format!(", {missed_n} of the reference not detected"));
    }
    let skipped: Vec<String> = signals
        .leads
        .iter()
        .filter(|lead| lead::mv_per_unit(&lead.units).is_none())
        .map(|lead| format!("{} ({})", lead.name, lead.units))
        .collect();
    if !skipped.is_empty() {
        text.push_str(&format!("; not drawn, for it is not a voltage: {}", skipped.join(", ")));
    }
    scene.text((MARGIN, 58.0), &text, SUBTITLE);
}

fn draw_paper(scene: &mut Scene, paper: Frame) {
    scene.rect(paper, PAPER);
    // Half a line's width off, so that a fine line fills one column of the PNG instead of half of two.
    let lines = |step_mm: usize, but_mm: usize, shift: f64| {
        let columns = (0..=(paper.width / MM).round() as usize)
            .step_by(step_mm)
            .filter(move |mm| mm % but_mm != 0 || step_mm == but_mm);
        let rows = (0..=(paper.height / MM).round() as usize)
            .step_by(step_mm)
            .filter(move |mm| mm % but_mm != 0 || step_mm == but_mm);
        let columns = columns.map(move |mm| paper.x + mm as f64 * MM + shift);
        let rows = rows.map(move |mm| paper.y + mm as f64 * MM + shift);
        columns
            .map(|x| vec![(x, paper.y), (x, paper.bottom())])
            .chain(rows.map(|y| vec![(paper.x, y), (paper.right(), y)]))
            .collect::<Vec<_>>()
    };
    scene.lines(lines(1, 5, 0.25), FINE);
    scene.lines(lines(5, 5, 0.0), BOLD);
}

/// Baselines of the two rows above the paper.
const PREDICTED_Y: f64 = -22.0;
const SYMBOL_Y: f64 = -7.0;
const SYMBOL: TextStyle = TextStyle::new(10.0, MUTED);

fn row_names(scene: &mut Scene, paper: Frame, shown: &[&Mark]) {
    scene.text((paper.x, paper.y + PREDICTED_Y), "predicted", SYMBOL);
    if shown.iter().any(|mark| mark.symbol.is_some()) {
        scene.text((paper.x, paper.y + SYMBOL_Y), "reference", SYMBOL);
    }
}

fn draw_mark(scene: &mut Scene, paper: Frame, mark: &Mark, x: f64) {
    let y = paper.y + PREDICTED_Y;
    let letter = mark.predicted.map_or("–", AamiClass::letter);
    let colors = palette::of(letter);
    let style = LABEL.size(13.0).bold().color(colors.ink);
    if mark.is_informative() && mark.kind != MarkKind::Missed {
        let (left, right) = ((x - 3.5).max(paper.x), (x + 3.5).min(paper.right()));
        let band = Frame { x: left, width: right - left, ..paper };
        scene.rect(band, colors.fill.faded(28));
    }
    match mark.kind {
        MarkKind::Missed => {
            let line = vec![(x, paper.y), (x, paper.bottom())];
            scene.line(line, Stroke::new(MUTED, 1.0).dashed(3.0, 3.0));
        }
        MarkKind::Wrong => {
            let frame = Frame { x: x - 9.0, y: y - 13.0, width: 18.0, height: 17.0 };
            scene.rect(frame, colors.ink);
            scene.text((x, y), letter, style.color(WHITE).middle());
        }
        MarkKind::Unopposed => scene.text((x, y), letter, style.middle()),
    }
    if let Some(symbol) = &mark.symbol {
        let style = if mark.kind == MarkKind::Unopposed { SYMBOL } else { SYMBOL.color(INK).bold() };
        scene.text((x, paper.y + SYMBOL_Y), symbol, style.middle());
    }
    if mark.kind != MarkKind::Missed {
        // A tick at the R-peak, on the edge of the paper where it hides nothing.
        scene.line(vec![(x, paper.y), (x, paper.y + 5.0)], Stroke::new(colors.fill, 2.0));
    }
}

/// What the letters and marks mean, in lines that fit.
struct Key {
    lines: Vec<Vec<(String, TextStyle)>>,
}

impl Key {
    fn lay_out(has_reference: bool, width: f64) -> Self {
        let mut entries: Vec<Vec<(String, TextStyle)>> = AamiClass::ALL
            .iter()
            .map(|class| {
                let ink = palette::of(class.letter()).ink;
                vec![(class.letter().to_owned(), SMALL.bold().color(ink)), (class.name().to_owned(), SMALL)]
            })
            .collect();
        if has_reference {
            let text = "white on colour: unlike the reference; dashed line: reference beat that was not detected";
            entries.push(vec![(text.to_owned(), SMALL)]);
        }
        let mut lines: Vec<Vec<(String, TextStyle)>> = vec![Vec::new()];
        let mut used = 0.0;
        for entry in entries {
            let entry_width = entry_width(&entry);
            if used + entry_width > width && used > 0.0 {
                lines.push(Vec::new());
                used = 0.0;
            }
            used += entry_width;
            lines.last_mut().expect("there is a first line").extend(entry);
        }
        Self { lines }
    }

    fn height(&self) -> f64 {
        self.lines.len() as f64 * 17.0
    }

    fn draw(&self, scene: &mut Scene, top: f64) {
        for (idx, line) in self.lines.iter().enumerate() {
            let mut x = MARGIN;
            for (text, style) in line {
                scene.text((x, top + idx as f64 * 17.0), text, *style);
                x += text_width(text, *style) + gap_after(text);
            }
        }
    }
}

fn entry_width(entry: &[(String, TextStyle)]) -> f64 {
    entry.iter().map(|(text, style)| text_width(text, *style) + gap_after(text)).sum()
}

/// A letter stands close to its meaning, meanings apart.
fn gap_after(text: &str) -> f64 {
    if text.len() == 1 { 6.0 } else { 18.0 }
}

/// One lead's samples inside of the span, in mV, and the paper that they need.
struct Trace {
    name: String,
    /// (seconds from the record's start, mV); NaN where the recorder had no sample.
    points: Vec<(f64, f64)>,
    height_mm: f64,
    /// The voltage in the middle of the paper.
    middle_mv: f64,
    is_clipped: bool,
}

impl Trace {
    fn of(lead: &ecgpipe_sdk::Lead, mv_per_unit: f64, (span, frequency_hz): (Span, f64)) -> Result<Self, StageError> {
        let first = (span.start_s * frequency_hz).ceil() as usize;
        let end = (((span.start_s + span.length_s) * frequency_hz).ceil() as usize).min(lead.samples.len());
        let samples = lead.physical(first.min(end)..end)?;
        let points: Vec<(f64, f64)> = (first..end)
            .zip(samples)
            .map(|(idx, sample)| (idx as f64 / frequency_hz, f64::from(sample) * mv_per_unit))
            .map(|(time_s, mv)| (time_s, if mv.is_finite() { mv } else { f64::NAN }))
            .collect();
        let mut values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        let need_mm = ((high - low) * MM_PER_MV + 6.0) / 5.0;
        let height_mm = (need_mm.ceil() * 5.0).clamp(LEAST_LEAD_MM, MOST_LEAD_MM);
        let is_clipped = (high - low) * MM_PER_MV > height_mm;
        // Where the paper cannot hold all, its middle is that of all but the outermost hundredths.
        let middle_mv = if is_clipped {
            let outer_n = values.len() / 100;
            (values[outer_n] + values[values.len() - 1 - outer_n]) / 2.0
        } else {
            (low + high) / 2.0
        };
        // Steps of 0.1 mV put whole tenths of a millivolt onto lines of the paper.
        let middle_mv = (middle_mv * 10.0).round() / 10.0;
        Ok(Self { name: lead.name.clone(), points, height_mm, middle_mv, is_clipped })
    }

    fn draw(&self, scene: &mut Scene, frame: Frame, x_of: impl Fn(f64) -> f64) {
        let middle_y = frame.y + frame.height / 2.0;
        let half = frame.height / 2.0;
        // Half of an odd number of bold squares is not on a bold line; the trace does not mind.
        let y_of = |mv: f64| middle_y - ((mv - self.middle_mv) * MM_PER_MV * MM).clamp(-half, half);
        let baseline = middle_y + 5.0 * MM;
        let left = frame.x + 5.0 * MM;
        let pulse = [
            (left - 2.0 * MM, baseline),
            (left, baseline),
            (left, baseline - MM_PER_MV * MM),
            (left + 5.0 * MM, baseline - MM_PER_MV * MM),
            (left + 5.0 * MM, baseline),
            (left + 7.0 * MM, baseline),
        ];
        scene.line(pulse.to_vec(), TRACE);
        let points: Vec<(f64, f64)> = self
            .points
            .iter()
            .map(|&(time_s, mv)| (x_of(time_s), if mv.is_nan() { f64::NAN } else { y_of(mv) }))
            .collect();
        let pieces = points.split(|point| point.1.is_nan()).filter(|piece| !piece.is_empty());
        let lines: Vec<Vec<(f64, f64)>> = pieces.map(|piece| chart::simplified(piece, TOLERANCE_MM * MM)).collect();
        let has_samples = !lines.is_empty();
        scene.lines(lines, TRACE);
        let mut name = self.name.clone();
        if self.is_clipped {
            name.push_str(" (clipped)");
        } else if !has_samples {
            name.push_str(" (no valid samples)");
        }
        let style = LABEL.bold();
        let back = Frame { x: frame.x + 3.0, y: frame.y + 4.0, width: text_width(&name, style) + 6.0, height: 17.0 };
        scene.rect(back, PAPER.faded(85));
        scene.text((frame.x + 6.0, frame.y + 17.0), &name, style);
    }
}

/// `h:mm:ss` from the record's start, with tenths where they matter.
fn clock(time_s: f64) -> String {
    let tenths = (time_s * 10.0).round() as i64;
    let (seconds, part) = (tenths / 10, tenths % 10);
    let text = format!("{}:{:02}:{:02}", grouped(seconds / 3600), seconds / 60 % 60, seconds % 60);
    if part == 0 { text } else { format!("{text}.{part}") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use ecgpipe_sdk::{
        Lead, RecordId,
        kinds::{INVALID_SAMPLE, PeakSource},
    };

    use super::*;

    const FREQUENCY_HZ: i64 = 100;

    fn signals(second_n: usize, leads: &[(&str, &str)]) -> Signals {
        let samples: Vec<i32> = (0..second_n * FREQUENCY_HZ as usize)
            .map(|idx| if idx % 100 == 50 { 200 } else { (idx % 7) as i32 })
            .collect();
        let lead = |(name, units): &(&str, &str)| Lead {
            name: (*name).to_owned(),
            units: (*units).to_owned(),
            gain_adu_per_unit: 200.0,
            baseline_adu: 0,
            samples: samples.clone().into(),
        };
        Signals {
            record: RecordId::new("p1").unwrap(),
            patient: "p1".to_owned(),
            sampling_frequency_hz: FREQUENCY_HZ as f64,
            leads: leads.iter().map(lead).collect(),
            comments: vec![],
        }
    }

    /// One beat a second from 0.5 s on: predicted class and reference symbol by letter, `.` for none.
    fn beats(predicted: &str, symbols: &str) -> (Beats, Predictions) {
        let known = |letter: char| (letter != '.').then(|| letter.to_string());
        let all: Vec<Beat> = symbols
            .chars()
            .enumerate()
            .map(|(idx, letter)| Beat { sample_idx: idx as i64 * FREQUENCY_HZ + 50, symbol: known(letter) })
            .collect();
        let classes = ["N", "S", "V", "F", "Q"].map(str::to_owned).to_vec();
        let rows: Vec<(i64, char)> = predicted
            .chars()
            .enumerate()
            .filter(|(_, letter)| *letter != '.')
            .map(|(idx, letter)| (idx as i64, letter))
            .collect();
        let probabilities = rows
            .iter()
            .flat_map(|(_, letter)| classes.iter().map(|class| f32::from(u8::from(class.starts_with(*letter)))))
            .collect();
        let record = RecordId::new("p1").unwrap();
        let predictions = Predictions {
            record: record.clone(),
            patient: "p1".to_owned(),
            classes: classes.clone(),
            beat_idx: rows.iter().map(|(idx, _)| *idx).collect(),
            sample_idx: rows.iter().map(|(idx, _)| all[*idx as usize].sample_idx).collect(),
            symbol: rows.iter().map(|(idx, _)| all[*idx as usize].symbol.clone()).collect(),
            probabilities,
        };
        let beats = Beats {
            record,
            patient: "p1".to_owned(),
            sampling_frequency_hz: FREQUENCY_HZ as f64,
            sample_n: all.len() as i64 * FREQUENCY_HZ,
            source: PeakSource::Reference,
            beats: all,
            missed: vec![],
        };
        (beats, predictions)
    }

    fn run(params: &Params, signals: Signals, (beats, predictions): (Beats, Predictions)) -> Result<Files, StageError> {
        let inputs =
            Inputs { signals: Each::new(signals), beats: Each::new(beats), predictions: Each::new(predictions) };
        let cancel = AtomicBool::new(false);
        let outputs = PlotStrips::run(params, inputs, &Context::new(&cancel, &|_| {}))?;
        Ok(Files::clone(&outputs.figures))
    }

    fn svg(signals: Signals, beats: (Beats, Predictions)) -> String {
        let files = run(&Params::default(), signals, beats).unwrap().files;
        assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["strip_p1.png", "strip_p1.svg"]);
        String::from_utf8(files[1].bytes.clone()).unwrap()
    }

    fn start(predicted: &str, symbols: &str) -> f64 {
        let (beats, predictions) = beats(predicted, symbols);
        let marks = marks(&beats, &predictions, EscapeRule::DeChazal);
        most_informative(&marks, symbols.len() as f64, FREQUENCY_HZ as f64, 3).start_s
    }

    #[test]
    fn the_span_with_most_ectopic_or_wrong_beats_is_chosen() {
        // Ectopic beats count, whether right or not; so do wrong ones.
        assert_eq!(start("NNNVNNNNNNVVN", "NNNVNNNNNNVVN"), 10.0);
        assert_eq!(start("NNNNNNNNNNNNN", "NNNNNNAVNNNNN"), 6.0);
        // Of equal spans the earliest; an escape beat is N, and paced beats are not ectopic.
        assert_eq!(start("NNVNNNNNNNVNN", "NNVNNNNNNNVNN"), 2.0);
        assert_eq!(start("NNNNNNNNNNNQN", "NNNNNNNNNjN/N"), 5.0);
        // Without anything to see, the middle; never beyond the end.
        assert_eq!(start("NNNNNNNNNNNNN", "............."), 5.0);
        assert_eq!(start("NNNNNNNNNNNNV", "............."), 10.0);
    }

    #[test]
    fn letters_symbols_and_texts_are_there() {
        let svg =
            svg(signals(20, &[("MLII", "mV"), ("V1", "uV"), ("ABP", "mmHg")]), beats("NNVNS.NNNNNN", "NNVNNNNNNNNN"));
        for expected in [
            "<title>Record p1</title>",
            "0:00:02 to 0:00:12, leads MLII, V1",
            "10 beats, 2 predicted S, V or F, 1 unlike the reference; not drawn, for it is not a voltage: ABP (mmHg)",
            "Decision support, not a diagnosis; verify every strip.",
            "25 mm/s, 10 mm/mV",
            ">–</text>",
        ] {
            assert!(svg.contains(expected), "{expected}");
        }
        // 10 s and the calibration's 15 mm; the letter of a mistake is white on its colour.
        assert!(svg.contains(r#"width="277mm""#), "{}", &svg[..200]);
        assert!(svg.contains(r##"fill="#ffffff">S</text>"##));
    }

    #[test]
    fn missed_reference_beats_are_shown() {
        let (mut beats, predictions) = beats("NNNN", "NNNN");
        beats.missed = vec![Beat { sample_idx: 110, symbol: Some("V".to_owned()) }];
        let svg = svg(signals(4, &[("II", "mV")]), (beats, predictions));
        assert!(
            svg.contains("4 beats, 0 predicted S, V or F, 0 unlike the reference, 1 of the reference not detected")
        );
        assert!(svg.contains("stroke-dasharray"));
    }

    #[test]
    fn only_the_records_asked_for_are_drawn() {
        let others = Params { records: vec!["208".to_owned()], ..Params::default() };
        assert_eq!(run(&others, signals(4, &[("II", "mV")]), beats("NNNN", "....")).unwrap(), Files::default());
        let this = Params { records: vec!["p1".to_owned()], ..Params::default() };
        assert_eq!(run(&this, signals(4, &[("II", "mV")]), beats("NNNN", "....")).unwrap().files.len(), 2);
    }

    #[test]
    fn twice_the_same_bytes() {
        let strip =
            || run(&Params::default(), signals(20, &[("II", "mV")]), beats("NNVNS.NNNNNN", "NNVNNNNNNNNN")).unwrap();
        assert_eq!(strip(), strip());
    }

    #[test]
    fn gaps_empty_and_odd_records_can_be_drawn() {
        let mut gaps = signals(12, &[("II", "mV"), ("V5", "mV")]);
        let mut samples = gaps.leads[0].samples.to_vec().unwrap();
        samples[300..420].fill(INVALID_SAMPLE);
        gaps.leads[0].samples = samples.into();
        gaps.leads[1].samples = vec![INVALID_SAMPLE; gaps.sample_n()].into();
        let drawn = svg(gaps, beats("NNNNNNNNNNNN", "............"));
        assert!(drawn.contains("V5 (no valid samples)") && !drawn.contains("NaN"));
        assert!(!drawn.contains("reference"));
        let mut tall = signals(12, &[("II", "mV")]);
        let mut samples = tall.leads[0].samples.to_vec().unwrap();
        samples[500] = 100_000;
        tall.leads[0].samples = samples.into();
        assert!(svg(tall, beats("", "")).contains("II (clipped)"));
        let mut gainless = signals(12, &[("II", "mV")]);
        gainless.leads[0].gain_adu_per_unit = 0.0;
        assert!(!svg(gainless, beats("", "")).contains("NaN"));
        assert!(svg(signals(0, &[("II", "mV")]), beats("", "")).contains("The record has no samples."));
        assert!(svg(signals(3, &[]), beats("", "")).contains("The record has no lead in mV."));
        assert!(svg(signals(3, &[("ABP", "mmHg")]), beats("", "")).contains("The record has no lead in mV."));
        let mut still = signals(3, &[("II", "mV")]);
        still.sampling_frequency_hz = 0.0;
        let error = run(&Params::default(), still, beats("", "")).unwrap_err();
        assert_eq!(error.to_string(), "record p1: the recording has a sampling frequency of 0 Hz");
    }

    #[test]
    fn times_are_written_from_the_start_of_the_record() {
        assert_eq!([0.0, 9.9, 61.0, 3725.0].map(clock), ["0:00:00", "0:00:09.9", "0:01:01", "1:02:05"]);
    }

    #[test]
    fn refuses_impossible_parameters() {
        let refused = |params: Params| PlotStrips::check(&params).unwrap_err();
        assert_eq!(refused(Params { seconds: 0, ..Params::default() }), "`seconds` must be 1 to 30, not 0");
        let names = Params { records: vec!["../x".to_owned()], ..Params::default() };
        assert_eq!(refused(names), "`records` names `../x`, which is not a record name");
        assert!(PlotStrips::check(&Params::default()).is_ok());
    }
}
