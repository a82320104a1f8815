//! `plot_beats`: what the beats of each class look like in the test part, and which beats the model got wrong although it
//! was sure.
//!
//! Examples are chosen by position alone (evenly spaced over records and time), so nobody picked the pretty ones. The
//! median beat is over all test beats of a class, sample by sample.

use std::collections::BTreeMap;

use ecgpipe_sdk::{
    All, Context, Files, NormalisedWindows, One, Part, Predictions, RecordId, Split, Stage, StageError, StageFacts,
    ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::AamiClass,
    agreement::check_beats,
    chart::{
        self, Color, Frame, GRID, INK, LABEL, MARGIN, MUTED, RULE, SMALL, Scene, Stroke, grouped, palette, text_width,
    },
};

/// Draws example beats of each class.
pub struct PlotBeats;

/// How many beats.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Example beats a class, evenly spaced over the test part; 0 shows the median beat only. Default: 30.
    #[schemars(range(max = 200))]
    pub example_n: usize,
    /// Mistakes a class, the most confident first and of different records where there are any. Default: 2.
    #[schemars(range(max = 5))]
    pub mistake_n: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { example_n: 30, mistake_n: 2 }
    }
}

ports! {
    /// What `plot_beats` takes.
    pub struct Inputs {
        /// The beats, scaled to 0 to 1.
        pub windows: All<NormalisedWindows>,
        /// What the model says of them.
        pub predictions: All<Predictions>,
        /// Which of them are for test, and their reference classes.
        pub split: One<Split>,
    }
}

ports! {
    /// What `plot_beats` gives.
    pub struct Outputs {
        /// `example_beats.svg` and `example_beats.png`.
        pub figures: One<Files>,
    }
}

impl Stage for PlotBeats {
    const NAME: &'static str = "plot_beats";
    const SUMMARY: &'static str = "draws example beats, median beat and the most confident mistakes of each class";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.example_n > 200 {
            return Err(format!("`example_n` must be at most 200, not {}", params.example_n));
        }
        if params.mistake_n > 5 {
            return Err(format!("`mistake_n` must be at most 5, not {}", params.mistake_n));
        }
        Ok(())
    }

    fn facts(_: &Params, facts: &mut StageFacts<'_>) {
        check_beats(facts, &["windows", "predictions", "split"]);
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let beats = test_beats(&inputs)?;
        if beats.is_empty() {
            cx.warn("no test beat has both a window and a prediction");
        }
        let files = chart::figure("example_beats", &draw(&beats, params))?;
        Ok(Outputs { figures: One::new(Files::new(files.into())) })
    }
}

const TITLE: &str = "Beats of the test part";
/// Size of the plot inside of a panel.
const PLOT: (f64, f64) = (184.0, 118.0);
const GAP: f64 = 16.0;
const TICK_WIDTH: f64 = 34.0;
const TOP: f64 = 150.0;

/// What simplifying a beat may move it by, in pixels.
const TOLERANCE: f64 = 0.25;

/// A beat of the test part with all that is known of it.
struct TestBeat<'a> {
    record: &'a RecordId,
    sample_idx: i64,
    truth: AamiClass,
    predicted: AamiClass,
    probability: f32,
    samples: &'a [f32],
    /// Time of the first sample after the R-peak (negative), and between samples, in ms.
    start_ms: f64,
    step_ms: f64,
}

impl TestBeat<'_> {
    fn is_right(&self) -> bool {
        self.truth == self.predicted
    }
}

/// Joins split, windows and predictions by record and beat; sorted by record and time.
fn test_beats(inputs: &Inputs) -> Result<Vec<TestBeat<'_>>, StageError> {
    let mut beats = Vec::new();
    for (record, rows) in inputs.split.beats_of(Part::Test) {
        let (Some(normalised), Some(predictions)) = (inputs.windows.get(record), inputs.predictions.get(record)) else {
            continue;
        };
        let windows = &normalised.windows;
        let frequency_hz = windows.sampling_frequency_hz;
        if !(frequency_hz > 0.0 && frequency_hz.is_finite()) {
            let message = format!("the windows have a sampling frequency of {frequency_hz} Hz");
            return Err(StageError::new(message).record(record));
        }
        let row_of = |beat_idx: &[i64]| -> BTreeMap<i64, usize> {
            beat_idx.iter().enumerate().map(|(row_idx, &beat_idx)| (beat_idx, row_idx)).collect()
        };
        let (window_rows, prediction_rows) = (row_of(&windows.beat_idx), row_of(&predictions.beat_idx));
        for row in rows {
            let places = (window_rows.get(&row.beat_idx), prediction_rows.get(&row.beat_idx));
            let (Some(&window_row), Some(&prediction_row)) = places else { continue };
            let class_idx = predictions.class_idx(prediction_row);
            let class = |letter: &str| {
                AamiClass::from_letter(letter)
                    .ok_or_else(|| StageError::new(format!("`{letter}` is not an AAMI class")).record(record))
            };
            let step_ms = 1000.0 / frequency_hz;
            beats.push(TestBeat {
                record,
                sample_idx: windows.sample_idx[window_row],
                truth: class(&row.class)?,
                predicted: class(predictions.classes.get(class_idx).map_or("", String::as_str))?,
                probability: predictions.row(prediction_row).get(class_idx).copied().unwrap_or(f32::NAN),
                samples: windows.window(window_row),
                start_ms: -(windows.before_n as f64) * step_ms,
                step_ms,
            });
        }
    }
    Ok(beats)
}

/// One class's beats and what is drawn of them.
struct Class<'a> {
    class: AamiClass,
    beat_n: usize,
    right_n: usize,
    median: Vec<(f64, f64)>,
    examples: Vec<&'a TestBeat<'a>>,
    mistakes: Vec<&'a TestBeat<'a>>,
}

impl<'a> Class<'a> {
    fn of(class: AamiClass, beats: &'a [TestBeat<'a>], params: &Params) -> Self {
        let own: Vec<&TestBeat<'_>> = beats.iter().filter(|beat| beat.truth == class).collect();
        let example_n = params.example_n.min(own.len());
        // The middles of equal stretches: neither the first nor the last beat of a record is favoured.
        let examples = (0..example_n).map(|idx| own[(2 * idx + 1) * own.len() / (2 * example_n)]).collect();
        Self {
            class,
            beat_n: own.len(),
            right_n: own.iter().filter(|beat| beat.is_right()).count(),
            median: median(&own),
            examples,
            mistakes: most_confident_mistakes(&own, params.mistake_n),
        }
    }
}

/// The mistakes of highest probability (ties: the earliest), one a record as long as there are other records.
fn most_confident_mistakes<'a>(beats: &[&'a TestBeat<'a>], mistake_n: usize) -> Vec<&'a TestBeat<'a>> {
    let mut mistakes: Vec<&TestBeat<'_>> = beats.iter().copied().filter(|beat| !beat.is_right()).collect();
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let mut seen: BTreeMap<&RecordId, usize> = BTreeMap::new();
    let mut by_turn: Vec<(usize, &TestBeat<'_>)> = Vec::with_capacity(mistakes.len());
    for beat in mistakes {
        let turn = seen.entry(beat.record).or_default();
        by_turn.push((*turn, beat));
        *turn += 1;
    }
    by_turn.sort_by_key(|(turn, _)| *turn);
    by_turn.into_iter().take(mistake_n).map(|(_, beat)| beat).collect()
}

/// The median beat as (ms, amplitude), over the beats that have the first one's sampling.
fn median(beats: &[&TestBeat<'_>]) -> Vec<(f64, f64)> {
    let Some(first) = beats.first() else { return Vec::new() };
    let same = |beat: &&&TestBeat<'_>| {
        (beat.start_ms, beat.step_ms, beat.samples.len()) == (first.start_ms, first.step_ms, first.samples.len())
    };
    let windows: Vec<&[f32]> = beats.iter().filter(same).map(|beat| beat.samples).collect();
    let mut column: Vec<f32> = Vec::with_capacity(windows.len());
    (0..first.samples.len())
        .map(|idx| {
            column.clear();
            column.extend(windows.iter().map(|samples| samples[idx]).filter(|value| value.is_finite()));
            let middle = column.len() / 2;
            let value =
                if column.is_empty() { f32::NAN } else { *column.select_nth_unstable_by(middle, f32::total_cmp).1 };
            (first.start_ms + idx as f64 * first.step_ms, f64::from(value))
        })
        .collect()
}

fn draw(beats: &[TestBeat<'_>], params: &Params) -> Scene {
    let classes = AamiClass::ALL.map(|class| Class::of(class, beats, params));
    if beats.is_empty() {
        return chart::empty(TITLE, "The test part holds no beat that has both a window and a prediction.");
    }
    let column_width = PLOT.0 + GAP;
    let width = 2.0 * MARGIN + TICK_WIDTH + classes.len() as f64 * column_width - GAP;
    let mistakes_top = TOP + PLOT.1 + 84.0;
    let mistake_height = PLOT.1 + 62.0;
    let height = match params.mistake_n {
        0 => TOP + PLOT.1 + 40.0 + MARGIN,
        row_n => mistakes_top + row_n as f64 * mistake_height - 22.0 + MARGIN,
    };
    let mut scene = Scene::new(TITLE, width, height);
    let record_n = beats.iter().map(|beat| beat.record).collect::<std::collections::BTreeSet<_>>().len();
    let right_n = beats.iter().filter(|beat| beat.is_right()).count();
    chart::heading(
        &mut scene,
        &format!(
            "{} beats of {record_n} record{}, {} predicted right; amplitude scaled to 0 to 1, time in ms around the R-peak",
            grouped(beats.len() as i64),
            if record_n == 1 { "" } else { "s" },
            grouped(right_n as i64),
        ),
    );
    legend(&mut scene, params);
    let (start_ms, end_ms) = span(beats);
    for (idx, class) in classes.iter().enumerate() {
        let x = MARGIN + TICK_WIDTH + idx as f64 * column_width;
        let panel =
            Panel { start_ms, end_ms, plot: Frame { x, y: TOP, width: PLOT.0, height: PLOT.1 }, is_first: idx == 0 };
        draw_examples(&mut scene, panel, class);
        for row in 0..params.mistake_n {
            let y = mistakes_top + 16.0 + row as f64 * mistake_height;
            let panel = Panel { plot: Frame { y, ..panel.plot }, ..panel };
            draw_mistake(&mut scene, panel, (class, &classes), row);
        }
    }
    if params.mistake_n > 0 {
        scene.text((MARGIN, mistakes_top - 26.0), "Most confident mistakes", LABEL.size(14.0).bold());
    }
    scene
}

/// From the earliest to the latest sample of any beat, in ms.
fn span(beats: &[TestBeat<'_>]) -> (f64, f64) {
    let end = |beat: &TestBeat<'_>| beat.start_ms + beat.samples.len().saturating_sub(1) as f64 * beat.step_ms;
    let start_ms = beats.iter().map(|beat| beat.start_ms).fold(0.0, f64::min);
    let end_ms = beats.iter().map(end).fold(start_ms + 1.0, f64::max);
    (start_ms, end_ms)
}

fn legend(scene: &mut Scene, params: &Params) {
    let y = 84.0;
    let mut x = MARGIN;
    let mut entry = |scene: &mut Scene, stroke: Stroke, text: &str| {
        scene.line(vec![(x, y - 4.0), (x + 22.0, y - 4.0)], stroke);
        scene.text((x + 29.0, y), text, SMALL);
        x += 29.0 + text_width(text, SMALL) + 20.0;
    };
    entry(scene, Stroke::new(palette::of("N").fill, 3.0), "median of all test beats of the class (in its colour)");
    if params.example_n > 0 {
        entry(scene, Stroke::new(palette::of("N").fill.faded(45), 1.2), "example, predicted right");
        entry(scene, WRONG_EXAMPLE, "example, predicted wrong");
    }
    if params.mistake_n > 0 {
        entry(scene, MISTAKE, "the mistaken beat");
    }
}

const WRONG_EXAMPLE: Stroke = Stroke::new(INK.faded(55), 1.0).dashed(3.0, 2.5);
const MISTAKE: Stroke = Stroke::new(INK, 1.8);

/// Where a panel is and which time it spans.
#[derive(Clone, Copy)]
struct Panel {
    plot: Frame,
    start_ms: f64,
    end_ms: f64,
    is_first: bool,
}

impl Panel {
    fn place(&self, (ms, amplitude): (f64, f64)) -> (f64, f64) {
        let x = self.plot.x + (ms - self.start_ms) / (self.end_ms - self.start_ms) * self.plot.width;
        // A little room above 1 and below 0, so that thick lines stay inside.
        (x, self.plot.bottom() - (0.04 + 0.92 * amplitude.clamp(0.0, 1.0)) * self.plot.height)
    }

    /// Places of (ms, amplitude), less those that nobody would miss.
    fn curve(&self, points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
        let place = |(ms, amplitude): (f64, f64)| {
            if amplitude.is_finite() { self.place((ms, amplitude)) } else { (f64::NAN, f64::NAN) }
        };
        let points: Vec<(f64, f64)> = points.map(place).collect();
        if points.iter().all(|point| point.0.is_finite()) { chart::simplified(&points, TOLERANCE) } else { points }
    }

    fn beat(&self, beat: &TestBeat<'_>) -> Vec<(f64, f64)> {
        let samples = beat.samples.iter().enumerate();
        self.curve(samples.map(|(idx, &sample)| (beat.start_ms + idx as f64 * beat.step_ms, f64::from(sample))))
    }

    fn axes(&self, scene: &mut Scene) {
        for (amplitude, text) in [(0.0, "0"), (0.5, ""), (1.0, "1")] {
            let (_, y) = self.place((0.0, amplitude));
            scene.line(vec![(self.plot.x, y), (self.plot.right(), y)], Stroke::new(GRID, 1.0));
            if self.is_first {
                scene.text((self.plot.x - 7.0, y + 4.0), text, SMALL.end());
            }
        }
        let step_ms = if self.end_ms - self.start_ms > 1200.0 { 500 } else { 100 };
        let first = (self.start_ms / f64::from(step_ms)).ceil() as i32;
        let last = (self.end_ms / f64::from(step_ms)).floor() as i32;
        for ms in (first..=last).map(|idx| idx * step_ms) {
            let (x, _) = self.place((f64::from(ms), 0.0));
            let ink = if ms == 0 { RULE } else { GRID };
            scene.line(vec![(x, self.plot.y), (x, self.plot.bottom())], Stroke::new(ink, 1.0));
            if ms % (2 * step_ms) == 0 {
                let text = if ms < 0 { format!("\u{2212}{}", -ms) } else { ms.to_string() };
                scene.text((x, self.plot.bottom() + 15.0), &text, SMALL.size(10.0).middle());
            }
        }
        scene.frame(self.plot, RULE);
    }

    fn remark(&self, scene: &mut Scene, text: &str) {
        scene.rect(self.plot, Color::hex(0xf6_f7_f8));
        let middle = (self.plot.x + self.plot.width / 2.0, self.plot.y + self.plot.height / 2.0 + 4.0);
        scene.text(middle, text, SMALL.middle());
    }
}

fn draw_examples(scene: &mut Scene, panel: Panel, class: &Class<'_>) {
    let letter = class.class.letter();
    let colors = palette::of(letter);
    let plot = panel.plot;
    scene.text((plot.x, plot.y - 26.0), letter, LABEL.size(17.0).bold().color(colors.ink));
    let name_x = plot.x + text_width(letter, LABEL.size(17.0).bold()) + 6.0;
    scene.text((name_x, plot.y - 26.0), class.class.name(), SMALL.size(10.0).color(colors.ink));
    if class.beat_n == 0 {
        panel.remark(scene, "no test beats");
        return;
    }
    let counts = format!("{} of {} right", grouped(class.right_n as i64), grouped(class.beat_n as i64));
    scene.text((plot.x, plot.y - 9.0), &counts, SMALL);
    panel.axes(scene);
    let (right, wrong): (Vec<_>, Vec<_>) = class.examples.iter().partition(|beat| beat.is_right());
    for beat in right {
        scene.line(panel.beat(beat), Stroke::new(colors.fill.faded(32), 1.0));
    }
    for beat in wrong {
        scene.line(panel.beat(beat), WRONG_EXAMPLE);
    }
    scene.line(panel.curve(class.median.iter().copied()), Stroke::new(colors.fill, 3.0));
}

fn draw_mistake(scene: &mut Scene, panel: Panel, (class, classes): (&Class<'_>, &[Class<'_>]), row: usize) {
    let plot = panel.plot;
    let Some(beat) = class.mistakes.get(row) else {
        let text = match (class.beat_n, row) {
            (0, _) => "no test beats",
            (_, 0) => "no mistakes",
            _ => "no further mistakes",
        };
        panel.remark(scene, text);
        return;
    };
    let (truth, predicted) = (beat.truth.letter(), beat.predicted.letter());
    let bold = LABEL.size(13.0).bold();
    let mut x = plot.x;
    for (text, style) in [
        (truth, bold.color(palette::of(truth).ink)),
        (" → ", LABEL.color(MUTED)),
        (predicted, bold.color(palette::of(predicted).ink)),
    ] {
        // A blank at the end of a text has no width in SVG, so each piece is placed by itself.
        let blank = text_width(" ", style);
        let lead = if text.starts_with(' ') { blank } else { 0.0 };
        scene.text((x + lead, plot.y - 20.0), text.trim(), style);
        x += text_width(text, style);
    }
    let probability = format!("with probability {:.2}", beat.probability);
    scene.text((plot.right(), plot.y - 20.0), &probability, SMALL.size(10.0).end());
    let origin = format!("record {}, sample {}", beat.record, grouped(beat.sample_idx));
    scene.text((plot.x, plot.y - 6.0), &shortened(&origin, plot.width), SMALL.size(10.0));
    panel.axes(scene);
    for class in [beat.predicted, beat.truth] {
        let color = palette::of(class.letter()).fill;
        let median = panel.curve(classes[class.index()].median.iter().copied());
        scene.line(median, Stroke::new(color.faded(70), 2.5));
    }
    scene.line(panel.beat(beat), MISTAKE);
}

/// A text that fits, with an ellipsis in its middle where needed.
fn shortened(text: &str, width: f64) -> String {
    let style = SMALL.size(10.0);
    let letters: Vec<char> = text.chars().collect();
    let mut kept_n = letters.len();
    let mut short = text.to_owned();
    while text_width(&short, style) > width && kept_n > 2 {
        kept_n -= 1;
        let head: String = letters[..kept_n / 2].iter().collect();
        let tail: String = letters[letters.len() - (kept_n - kept_n / 2)..].iter().collect();
        short = format!("{head}…{tail}");
    }
    short
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use ecgpipe_sdk::{SplitRow, Windows};

    use super::*;

    /// Beats as (record, reference class, predicted class, probability).
    fn inputs(beats: &[(&str, &str, &str, f32)]) -> Inputs {
        let mut windows: BTreeMap<RecordId, Arc<NormalisedWindows>> = BTreeMap::new();
        let mut predictions: BTreeMap<RecordId, Arc<Predictions>> = BTreeMap::new();
        let mut rows = Vec::new();
        let classes = ["N", "S", "V", "F", "Q"].map(str::to_owned).to_vec();
        for (idx, (record, truth, predicted, probability)) in beats.iter().enumerate() {
            let record = RecordId::new(record).unwrap();
            let beat_idx = idx as i64;
            let sample_idx = 1000 * beat_idx;
            let entry = windows.entry(record.clone()).or_insert_with(|| {
                Arc::new(NormalisedWindows {
                    windows: Windows {
                        record: record.clone(),
                        patient: record.to_string(),
                        lead: "MLII".to_owned(),
                        sampling_frequency_hz: 10.0,
                        length_n: 4,
                        before_n: 2,
                        beat_idx: vec![],
                        sample_idx: vec![],
                        symbol: vec![],
                        samples: vec![],
                    },
                    minimum_mv: vec![],
                    range_mv: vec![],
                    record_range_mv: 1.0,
                })
            });
            let entry = Arc::get_mut(entry).unwrap();
            entry.windows.beat_idx.push(beat_idx);
            entry.windows.sample_idx.push(sample_idx);
            entry.windows.symbol.push(None);
            entry.windows.samples.extend([0.0, idx as f32 * 0.1, 1.0, if idx == 1 { f32::NAN } else { 0.3 }]);
            let entry = predictions.entry(record.clone()).or_insert_with(|| {
                Arc::new(Predictions {
                    record: record.clone(),
                    patient: record.to_string(),
                    classes: classes.clone(),
                    beat_idx: vec![],
                    sample_idx: vec![],
                    symbol: vec![],
                    probabilities: vec![],
                })
            });
            let entry = Arc::get_mut(entry).unwrap();
            entry.beat_idx.push(beat_idx);
            entry.sample_idx.push(sample_idx);
            entry.symbol.push(None);
            entry.probabilities.extend(classes.iter().map(|class| if class == predicted { *probability } else { 0.0 }));
            let patient = record.to_string();
            rows.push(SplitRow { record, patient, beat_idx, class: (*truth).to_owned(), part: Part::Test });
        }
        let split = Split { strategy: "test".to_owned(), leaks: vec![], rows };
        Inputs { windows: All::new(windows), predictions: All::new(predictions), split: One::new(split) }
    }

    const BEATS: [(&str, &str, &str, f32); 6] = [
        ("100", "N", "N", 0.9),
        ("100", "N", "N", 0.8),
        ("208", "V", "N", 0.7),
        ("208", "V", "F", 0.99),
        ("208", "V", "F", 0.98),
        ("233", "V", "N", 0.6),
    ];

    fn svg(inputs: &Inputs, params: &Params) -> String {
        let [svg, png] = chart::figure("example_beats", &draw(&test_beats(inputs).unwrap(), params)).unwrap();
        assert!(png.bytes.starts_with(b"\x89PNG"));
        String::from_utf8(svg.bytes).unwrap()
    }

    #[test]
    fn counts_and_mistakes_are_written() {
        let svg = svg(&inputs(&BEATS), &Params::default());
        for expected in ["2 of 2 right", "0 of 4 right", "record 208, sample 3,000", "with probability 0.99"] {
            assert!(svg.contains(expected), "{expected}");
        }
        // The second mistake is of another record, although record 208 has a more confident one.
        assert!(svg.contains("record 233, sample 5,000") && !svg.contains("sample 4,000"));
        // S, F and Q have neither examples nor two mistakes; N has no mistakes.
        assert_eq!((svg.matches("no test beats").count(), svg.matches("no mistakes").count()), (9, 1));
        assert_eq!(svg.matches("no further mistakes").count(), 1);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn only_test_beats_with_window_and_prediction_are_shown() {
        let mut inputs = inputs(&BEATS);
        let mut split = Split::clone(&inputs.split);
        split.rows[0].part = Part::Training;
        split.rows[5].beat_idx = 77;
        inputs.split = One::new(split);
        assert!(svg(&inputs, &Params::default()).contains("4 beats of 2 records, 1 predicted right"));
    }

    #[test]
    fn the_median_is_taken_sample_by_sample() {
        let inputs = inputs(&[("1", "N", "N", 0.5), ("1", "N", "N", 0.5), ("1", "N", "N", 0.5)]);
        let beats = test_beats(&inputs).unwrap();
        let own: Vec<&TestBeat<'_>> = beats.iter().collect();
        let medians = median(&own);
        assert_eq!(medians.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [-200.0, -100.0, 0.0, 100.0]);
        // The second beat's last sample is not a number and does not count.
        let expected = [0.0, 0.1, 1.0, 0.3];
        assert!(
            medians.iter().zip(expected).all(|((_, value), expected)| (value - expected).abs() < 1e-6),
            "{medians:?}"
        );
    }

    #[test]
    fn no_beats_and_no_examples_can_be_drawn() {
        assert!(svg(&inputs(&[]), &Params::default()).contains("The test part holds no beat"));
        let svg = svg(&inputs(&BEATS), &Params { example_n: 0, mistake_n: 0 });
        assert!(!svg.contains("mistake"));
    }

    #[test]
    fn examples_are_spread_evenly() {
        let many: Vec<_> = (0..100).map(|_| ("1", "N", "N", 0.5)).collect();
        let inputs = inputs(&many);
        let beats = test_beats(&inputs).unwrap();
        let class = Class::of(AamiClass::N, &beats, &Params { example_n: 4, mistake_n: 0 });
        let places: Vec<i64> = class.examples.iter().map(|beat| beat.sample_idx / 1000).collect();
        assert_eq!(places, [12, 37, 62, 87]);
    }

    #[test]
    fn refuses_too_many() {
        assert!(
            PlotBeats::check(&Params { example_n: 201, ..Params::default() }).unwrap_err().starts_with("`example_n`")
        );
        assert!(
            PlotBeats::check(&Params { mistake_n: 6, ..Params::default() }).unwrap_err().starts_with("`mistake_n`")
        );
    }
}
