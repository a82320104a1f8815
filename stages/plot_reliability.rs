//! `plot_reliability`: how often beats are right at what probability, and what setting uncertain beats aside gives.
//!
//! Both panels look at the probability of the predicted class alone, for that is what a reader sees beside a beat. Nothing
//! is scaled here: the probabilities count as they come, so that the figure judges what the model's user gets.
//!
//! Sources: reliability diagrams, Niculescu-Mizil & Caruana, ICML 2005; accuracy against coverage, El-Yaniv & Wiener, JMLR 11
//! (2010).

use ecgpipe_sdk::{
    All, Calibration, Context, Files, Metrics, NamedFile, One, Part, Predictions, Split, Stage, StageError, StageFacts,
    ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agreement::check_beats,
    calibration::{Bin, Coverage, Labelled, bins, coverages, expected_error, widest},
    chart::{
        self, Axis, Color, Frame, GRID, INK, LABEL, MARGIN, MUTED, RULE, SMALL, SUBTITLE, Scene, Stroke, WHITE,
        grouped, palette,
    },
};

/// Draws a reliability diagram and an accuracy-coverage curve.
pub struct PlotReliability;

/// Which beats, and under what name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Part of the split to look at. Default: `test`.
    pub part: Part,
    /// Bins of equal width over the probabilities 0 to 1, 2 to 50. Default: 10.
    #[schemars(range(min = 2, max = 50))]
    pub bin_n: usize,
    /// Prefix of the metrics and end of the file names, for pipelines that draw several: `cv` gives
    /// `cv/calibration_error` and `reliability_cv.svg`. Letters, digits and `_`. Default: empty, which gives the part's
    /// name to the metrics and `reliability.svg`.
    pub name: String,
}

impl Params {
    fn prefix(&self) -> &str {
        if self.name.is_empty() { self.part.as_str() } else { &self.name }
    }

    fn stem(&self, base: &str) -> String {
        if self.name.is_empty() { base.to_owned() } else { format!("{base}_{}", self.name) }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self { part: Part::Test, bin_n: 10, name: String::new() }
    }
}

ports! {
    /// What `plot_reliability` takes.
    pub struct Inputs {
        /// Class probabilities of every record, calibrated if the model is. They are taken as they are.
        pub predictions: All<Predictions>,
        /// Which beats are in the part, and their reference classes.
        pub split: One<Split>,
        /// The probability below which a beat is uncertain, to be marked in the figure; nothing else of it is used.
        pub calibration: Option<One<Calibration>>,
    }
}

ports! {
    /// What `plot_reliability` gives.
    pub struct Outputs {
        /// `reliability.svg` and `reliability.png`; `reliability.csv` with a row a bin, `coverage.csv` with points of the
        /// curve. With a `name`, `_<name>` stands before the dot.
        pub figures: One<Files>,
        /// `<name>/calibration_error`, `<name>/log_loss` and `<name>/brier`, with a calibration `<name>/certain_share` and
        /// `<name>/certain_accuracy` as well, at step 0.
        pub metrics: One<Metrics>,
    }
}

impl Stage for PlotReliability {
    const NAME: &'static str = "plot_reliability";
    const SUMMARY: &'static str =
        "draws how often beats are right at what probability, and what setting uncertain beats aside gives";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(2..=50).contains(&params.bin_n) {
            return Err(format!("`bin_n` must be 2 to 50, not {}", params.bin_n));
        }
        if !params.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("`name` must be letters, digits and `_`, not `{}`", params.name));
        }
        Ok(())
    }

    fn facts(_params: &Params, facts: &mut StageFacts<'_>) {
        check_beats(facts, &["predictions", "split"]);
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let labelled = Labelled::gather(params.part, &inputs.predictions, &inputs.split)?;
        let (part, beat_n) = (params.part.as_str(), labelled.labels.len());
        if beat_n == 0 {
            cx.warn(format!("no reliability to draw: no beat of the {part} part has a prediction"));
        }
        if labelled.absent_n > 0 {
            let (absent_n, all_n) = (grouped(labelled.absent_n as i64), beats(labelled.absent_n + beat_n));
            cx.note(format!("{absent_n} of the {all_n} of the {part} part had no prediction and take no part"));
        }
        let bound = inputs.calibration.map(|calibration| calibration.uncertain_below);
        let reliability = Reliability::of(&labelled, params.bin_n, bound);
        let mut files: Vec<NamedFile> = chart::figure(&params.stem("reliability"), &draw(&reliability, params))?.into();
        for (base, text) in [("reliability", bins_csv(&reliability.bins)), ("coverage", curve_csv(&reliability.curve))]
        {
            files.push(NamedFile { name: format!("{}.csv", params.stem(base)), bytes: text.into_bytes() });
        }
        let metrics = reliability.metrics(params.prefix());
        Ok(Outputs { figures: One::new(Files::new(files)), metrics: One::new(metrics) })
    }
}

/// What the figure, the tables and the metrics show.
struct Reliability {
    beat_n: usize,
    bins: Vec<Bin>,
    /// From the surest beat to all.
    curve: Vec<Coverage>,
    calibration_error: f64,
    log_loss: f64,
    brier: f64,
    certain: Option<Certain>,
}

/// The beats that are not uncertain.
struct Certain {
    /// Their probability is at least this.
    bound: f64,
    share: f64,
    /// Share of them that was right; `None` where there are none.
    accuracy: Option<f64>,
}

impl Reliability {
    fn of(labelled: &Labelled, bin_n: usize, bound: Option<f64>) -> Self {
        let judged = labelled.judged();
        let certain = |bound: f64| {
            // The probability as the model gave it, without what the logarithm and back made of its last digits: the bound
            // often is the probability of a beat.
            let is_kept = |probability: f64| f64::from(probability as f32) >= bound;
            let kept: Vec<bool> =
                judged.iter().filter(|beat| is_kept(beat.probability)).map(|beat| beat.is_right).collect();
            let right_n = kept.iter().filter(|is_right| **is_right).count();
            let accuracy = (!kept.is_empty()).then(|| right_n as f64 / kept.len() as f64);
            Certain { bound, share: kept.len() as f64 / judged.len().max(1) as f64, accuracy }
        };
        let bins = bins(&judged, bin_n);
        Self {
            beat_n: judged.len(),
            calibration_error: expected_error(&bins),
            bins,
            curve: coverages(&judged),
            log_loss: labelled.loss(),
            brier: labelled.brier(),
            certain: bound.map(certain),
        }
    }

    /// Share of all beats that was right.
    fn accuracy(&self) -> f64 {
        self.curve.last().map_or(0.0, |all| all.accuracy)
    }

    /// None where there are no beats: 0 would read as perfect.
    fn metrics(&self, prefix: &str) -> Metrics {
        let mut metrics = Metrics::default();
        if self.beat_n == 0 {
            return metrics;
        }
        let scores =
            [("calibration_error", self.calibration_error), ("log_loss", self.log_loss), ("brier", self.brier)];
        let certain = self.certain.as_ref().into_iter().flat_map(|certain| {
            let accuracy = certain.accuracy.map(|accuracy| ("certain_accuracy", accuracy));
            [Some(("certain_share", certain.share)), accuracy].into_iter().flatten()
        });
        for (key, value) in scores.into_iter().chain(certain) {
            metrics.push(format!("{prefix}/{key}"), 0, value);
        }
        metrics
    }
}

/// A row a bin; a bin without beats has neither a mean nor an accuracy.
fn bins_csv(bins: &[Bin]) -> String {
    let mut text = "low,high,beats,mean_probability,accuracy\n".to_owned();
    for bin in bins {
        let of_beats = match bin.beat_n {
            0 => ",".to_owned(),
            _ => format!("{:.6},{:.6}", bin.probability, bin.accuracy),
        };
        text.push_str(&format!("{:.6},{:.6},{},{of_beats}\n", bin.low, bin.high, bin.beat_n));
    }
    text
}

/// A row a point of the curve, from the surest beat to all.
fn curve_csv(curve: &[Coverage]) -> String {
    let mut text = "probability,coverage,accuracy\n".to_owned();
    for point in thinned(curve) {
        // Probabilities crowd below 1, where single precision has steps of 6e-8.
        text.push_str(&format!("{:.8},{:.6},{:.6}\n", point.probability, point.coverage, point.accuracy));
    }
    text
}

/// At most `ROW_N` points, evenly chosen, the first and the last among them.
fn thinned(curve: &[Coverage]) -> Vec<Coverage> {
    const ROW_N: usize = 200;
    if curve.len() <= ROW_N {
        return curve.to_vec();
    }
    (0..ROW_N).map(|row| curve[row * (curve.len() - 1) / (ROW_N - 1)]).collect()
}

const TITLE: &str = "Reliability";
/// Ticks and turned label on the left of a plot.
const AXIS_WIDTH: f64 = 72.0;
const PANEL_GAP: f64 = 38.0;
const TOP: f64 = 150.0;
/// Side of the reliability diagram, a square.
const SIDE: f64 = 320.0;
/// Height of the strip of beat counts under it, and its distance.
const STRIP: f64 = 64.0;
const STRIP_GAP: f64 = 16.0;
/// Width of the accuracy-coverage curve; it ends where the strip ends.
const CURVE_WIDTH: f64 = 360.0;
/// Radius of the dot of a bin that holds all beats, and the least of any.
const RADIUS: (f64, f64) = (10.0, 3.0);

fn draw(reliability: &Reliability, params: &Params) -> Scene {
    if reliability.beat_n == 0 {
        let part = params.part.as_str();
        return chart::empty(TITLE, &format!("No beat of the {part} part has a prediction."));
    }
    let diagram = Frame { x: MARGIN + AXIS_WIDTH, y: TOP, width: SIDE, height: SIDE };
    let strip = Frame { x: diagram.x, y: diagram.bottom() + STRIP_GAP, width: SIDE, height: STRIP };
    let plot =
        Frame { x: diagram.right() + PANEL_GAP + AXIS_WIDTH, y: TOP, width: CURVE_WIDTH, height: strip.bottom() - TOP };
    let mut scene = Scene::new(TITLE, plot.right() + 12.0 + MARGIN, plot.bottom() + 42.0 + MARGIN);
    let subject = match params.part {
        Part::Training => "Training part",
        Part::Validation => "Validation part",
        Part::Test => "Test part",
    };
    let name = if params.name.is_empty() { String::new() } else { format!(" ({})", params.name) };
    let (beats, right) = (beats(reliability.beat_n), percent(reliability.accuracy()));
    chart::heading(&mut scene, &format!("{subject}{name}: {beats}, {right} right"));
    let scores = format!(
        "Expected calibration error {:.4}, negative log-likelihood {:.4}, Brier score {:.4}",
        reliability.calibration_error, reliability.log_loss, reliability.brier
    );
    scene.text((MARGIN, 76.0), &scores, SUBTITLE);
    draw_diagram(&mut scene, diagram, reliability);
    draw_strip(&mut scene, strip, &reliability.bins);
    draw_curve(&mut scene, plot, reliability);
    scene
}

fn data_color() -> Color {
    palette::blues(0.8)
}

/// Panel title over a plot, and a line of small print under it.
fn panel_heading(scene: &mut Scene, plot: Frame, title: &str) -> (f64, f64) {
    scene.text((plot.x, plot.y - 36.0), title, LABEL.bold());
    (plot.x, plot.y - 18.0)
}

/// Ticks and lines of a vertical axis; `unit` follows each number.
fn draw_y_axis(scene: &mut Scene, plot: Frame, (axis, unit): (&Axis, &str)) {
    for (value, text) in axis.ticks() {
        let y = plot.bottom() - axis.share(*value) * plot.height;
        scene.line(vec![(plot.x, y), (plot.right(), y)], Stroke::new(GRID, 1.0));
        scene.text((plot.x - 8.0, y + 4.0), &format!("{text}{unit}"), SMALL.end());
    }
}

/// Small ticks and numbers under a plot, and what they are of.
fn draw_x_axis(scene: &mut Scene, plot: Frame, (ticks, label): (&[(f64, String)], &str)) {
    for (x, text) in ticks {
        scene.line(vec![(*x, plot.bottom()), (*x, plot.bottom() + 4.0)], Stroke::new(RULE, 1.0));
        scene.text((*x, plot.bottom() + 18.0), text, SMALL.middle());
    }
    scene.line(vec![(plot.x, plot.bottom()), (plot.right(), plot.bottom())], Stroke::new(RULE, 1.0));
    scene.text((plot.x + plot.width / 2.0, plot.bottom() + 38.0), label, LABEL.color(MUTED).middle());
}

fn y_label(scene: &mut Scene, plot: Frame, label: &str) {
    let at = (plot.x - AXIS_WIDTH + 11.0, plot.y + plot.height / 2.0);
    scene.text(at, label, LABEL.color(MUTED).middle().turned());
}

fn draw_diagram(scene: &mut Scene, plot: Frame, reliability: &Reliability) {
    let axis = Axis::round(0.0, 1.0, 5);
    let place = |x: f64, y: f64| (plot.x + x * plot.width, plot.bottom() - y * plot.height);
    let small = panel_heading(scene, plot, "How often beats are right");
    scene.text(small, "dashed: perfect; a larger dot holds more beats", SMALL);
    y_label(scene, plot, "share of beats that were right");
    draw_y_axis(scene, plot, (&axis, ""));
    for (value, _) in axis.ticks() {
        scene.line(vec![place(*value, 0.0), place(*value, 1.0)], Stroke::new(GRID, 1.0));
    }
    scene.line(vec![place(0.0, 0.0), place(1.0, 0.0)], Stroke::new(RULE, 1.0));
    scene.line(vec![place(0.0, 0.0), place(1.0, 1.0)], Stroke::new(MUTED, 1.0).dashed(4.0, 4.0));
    let filled: Vec<&Bin> = reliability.bins.iter().filter(|bin| bin.beat_n > 0).collect();
    let points = filled.iter().map(|bin| place(bin.probability, bin.accuracy)).collect();
    scene.line(points, Stroke::new(data_color().faded(45), 1.5));
    for bin in filled {
        let share = bin.beat_n as f64 / reliability.beat_n as f64;
        let radius = (RADIUS.0 * share.sqrt()).max(RADIUS.1);
        scene.disc(place(bin.probability, bin.accuracy), radius + 1.0, WHITE);
        scene.disc(place(bin.probability, bin.accuracy), radius, data_color());
    }
}

/// Beats a bin on a logarithmic scale, for most of them are in the last.
fn draw_strip(scene: &mut Scene, plot: Frame, bins: &[Bin]) {
    /// The scale begins here, so that a single beat is seen.
    const LOW: f64 = 0.5;
    let high = bins.iter().map(|bin| bin.beat_n).max().unwrap_or(0).max(10) as f64 * 1.2;
    // Hundredths of a pixel, for the last bit of a logarithm is not the same everywhere.
    let height = |beat_n: f64| (plot.height * 100.0 * (beat_n / LOW).log10() / (high / LOW).log10()).round() / 100.0;
    y_label(scene, plot, "beats");
    let decades: Vec<f64> =
        std::iter::successors(Some(1.0), |ten| Some(ten * 10.0)).take_while(|ten| *ten < high).collect();
    let stride = decades.len().div_ceil(4);
    for ten in decades.into_iter().step_by(stride) {
        let y = plot.bottom() - height(ten);
        scene.line(vec![(plot.x, y), (plot.right(), y)], Stroke::new(GRID, 1.0));
        scene.text((plot.x - 8.0, y + 4.0), &grouped(ten as i64), SMALL.end());
    }
    for bin in bins.iter().filter(|bin| bin.beat_n > 0) {
        let height = height(bin.beat_n as f64);
        let (left, right) = (plot.x + bin.low * plot.width, plot.x + bin.high * plot.width);
        let frame = Frame { x: left + 0.5, y: plot.bottom() - height, width: right - left - 1.0, height };
        scene.rect(frame, palette::blues(0.45));
    }
    let axis = Axis::round(0.0, 1.0, 5);
    let ticks: Vec<(f64, String)> =
        axis.ticks().iter().map(|(value, text)| (plot.x + value * plot.width, text.clone())).collect();
    draw_x_axis(scene, plot, (&ticks, "probability of the predicted class"));
}

fn draw_curve(scene: &mut Scene, plot: Frame, reliability: &Reliability) {
    let x_axis = Axis::round(100.0 * lowest_coverage(reliability), 100.0, 5);
    let shown: Vec<&Coverage> =
        reliability.curve.iter().filter(|point| x_axis.share(100.0 * point.coverage) >= 0.0).collect();
    let y_axis = accuracy_axis(&shown, reliability);
    // All beats are at the left: to the right, more and more are set aside.
    let x_of = |coverage: f64| plot.x + (1.0 - x_axis.share(100.0 * coverage)) * plot.width;
    let place =
        |coverage: f64, accuracy: f64| (x_of(coverage), plot.bottom() - y_axis.share(100.0 * accuracy) * plot.height);
    let small = panel_heading(scene, plot, "What setting uncertain beats aside gives");
    y_label(scene, plot, "share of the kept beats that were right");
    draw_y_axis(scene, plot, (&y_axis, " %"));
    let ticks: Vec<(f64, String)> =
        x_axis.ticks().iter().map(|(value, text)| (x_of(value / 100.0), format!("{text} %"))).collect();
    draw_x_axis(scene, plot, (&ticks, "share of beats kept"));
    let points: Vec<(f64, f64)> = shown.iter().map(|point| place(point.coverage, point.accuracy)).collect();
    if let [only] = points[..] {
        scene.disc(only, 3.0, data_color());
    }
    let certain = reliability.certain.as_ref();
    let marked = certain.and_then(|certain| certain.accuracy.map(|accuracy| place(certain.share, accuracy)));
    if let Some((x, y)) = marked {
        let guides = vec![vec![(plot.x, y), (x, y)], vec![(x, y), (x, plot.bottom())]];
        scene.lines(guides, Stroke::new(MUTED, 1.0).dashed(4.0, 4.0));
    }
    scene.line(chart::simplified(&points, 0.1), Stroke::new(data_color(), 2.0));
    let text = certain.map_or_else(|| "the least probable beats are set aside first".to_owned(), told);
    let Some(at) = marked else {
        scene.text(small, &text, SMALL);
        return;
    };
    scene.disc(at, 6.5, WHITE);
    scene.disc(at, 5.0, INK);
    scene.disc((small.0 + 5.0, small.1 - 4.0), 5.0, INK);
    scene.text((small.0 + 15.0, small.1), &text, SMALL.bold().color(INK));
}

/// What the bound gives, in words.
fn told(certain: &Certain) -> String {
    // Close below 1, two decimals would say 1.
    let decimals = if certain.bound < 0.99 { 2 } else { 4 };
    let bound = format!("{:.decimals$}", certain.bound);
    match certain.accuracy {
        Some(accuracy) => {
            format!("{bound}: {} of the beats kept, {} of them right", percent(certain.share), percent(accuracy))
        }
        None if certain.bound > 1.0 => "no beat is certain: the calibration found no bound".to_owned(),
        None => format!("no beat is certain: none reaches {bound}"),
    }
}

/// The curve is drawn from all beats down to somewhat below the bound, and below where it has nearly all that can be gained:
/// from there on, hardly anything but chance moves it.
fn lowest_coverage(reliability: &Reliability) -> f64 {
    const GAINED: f64 = 0.9;
    /// The best of fewer than these would be luck.
    const LEAST: f64 = 0.1;
    let meant = reliability.curve.iter().filter(|point| point.coverage >= LEAST);
    let all = reliability.accuracy();
    let best = meant.map(|point| point.accuracy).fold(all, f64::max);
    let gained = widest(&reliability.curve, all + GAINED * (best - all)).map_or(1.0, |point| point.coverage);
    let marked = reliability.certain.as_ref().filter(|certain| certain.accuracy.is_some());
    let lowest = marked.map_or(1.0, |certain| certain.share).min(gained);
    (1.0 - 1.25 * (1.0 - lowest)).clamp(0.0, 0.95)
}

/// In percent, never above 100: every step of an axis divides it.
fn accuracy_axis(shown: &[&Coverage], reliability: &Reliability) -> Axis {
    let marked = reliability.certain.as_ref().and_then(|certain| certain.accuracy);
    let accuracies = shown.iter().map(|point| point.accuracy).chain(marked);
    let (low, high) = accuracies.fold((1.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let high = (100.0 * high).max(0.5);
    Axis::round((100.0 * low).min(high - 0.5), high, 6)
}

/// One decimal; two where one would say 100 of what is not all.
fn percent(share: f64) -> String {
    let decimals = if (0.9995..1.0).contains(&share) { 2 } else { 1 };
    format!("{:.decimals$} %", 100.0 * share)
}

fn beats(beat_n: usize) -> String {
    format!("{} beat{}", grouped(beat_n as i64), if beat_n == 1 { "" } else { "s" })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex, atomic::AtomicBool},
    };

    use ecgpipe_sdk::{RecordId, SplitRow, StageEvent};

    use super::*;

    /// What the stage gives and says.
    struct Given {
        files: BTreeMap<String, Vec<u8>>,
        metrics: BTreeMap<String, f64>,
        told: Vec<StageEvent>,
    }

    impl Given {
        fn text(&self, name: &str) -> String {
            String::from_utf8(self.files[name].clone()).unwrap()
        }

        fn check(&self, key: &str, expected: f64) {
            assert!((self.metrics[key] - expected).abs() < 1e-6, "{key}: {:?}", self.metrics);
        }
    }

    /// Beats by the probability of the predicted class N, whether that is right, and how many; those of probability 0 have
    /// no prediction.
    fn run(params: &Params, beats: &[(f32, bool, usize)], uncertain_below: Option<f64>) -> Given {
        let record = RecordId::new("p1").unwrap();
        let classes = ["N", "S", "V"].map(str::to_owned).to_vec();
        let each: Vec<(f32, bool)> = beats.iter().flat_map(|&(p, right, n)| vec![(p, right); n]).collect();
        let row = |(idx, (_, is_right)): (usize, &(f32, bool))| SplitRow {
            record: record.clone(),
            patient: "p1".to_owned(),
            beat_idx: idx as i64,
            class: if *is_right { "N" } else { "V" }.to_owned(),
            part: params.part,
        };
        let rows: Vec<SplitRow> = each.iter().enumerate().map(row).collect();
        let known: Vec<(i64, f32)> =
            each.iter().enumerate().filter(|(_, beat)| beat.0 > 0.0).map(|(idx, beat)| (idx as i64, beat.0)).collect();
        let predictions = Predictions {
            record: record.clone(),
            patient: "p1".to_owned(),
            classes: classes.clone(),
            beat_idx: known.iter().map(|(idx, _)| *idx).collect(),
            sample_idx: known.iter().map(|(idx, _)| idx * 360).collect(),
            symbol: vec![None; known.len()],
            probabilities: known.iter().flat_map(|(_, p)| [*p, (1.0 - p) / 2.0, (1.0 - p) / 2.0]).collect(),
        };
        let calibration = uncertain_below.map(|uncertain_below| {
            // Only the bound counts: a temperature of 2 would change every probability.
            let bias = vec![0.0; 3];
            One::new(Calibration {
                temperature: 2.0,
                classes,
                bias,
                uncertain_below,
                accuracy: 1.0,
                coverage: 1.0,
                beat_n: 1,
            })
        });
        let inputs = Inputs {
            predictions: All::new(BTreeMap::from([(record, Arc::new(predictions))])),
            split: One::new(Split { strategy: "lists".to_owned(), leaks: vec![], rows }),
            calibration,
        };
        let (told, cancel) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let events = |event| told.lock().unwrap().push(event);
        let outputs = PlotReliability::run(params, inputs, &Context::new(&cancel, &events)).unwrap();
        let files = outputs.figures.files.iter().map(|file| (file.name.clone(), file.bytes.clone())).collect();
        assert!(outputs.metrics.points.iter().all(|point| point.step == 0));
        let metrics = outputs.metrics.points.iter().map(|point| (point.key.clone(), point.value)).collect();
        Given { files, metrics, told: told.into_inner().unwrap() }
    }

    /// 70 of 100 beats are right at 0.75, 950 of 1,000 at 0.95.
    const BEATS: [(f32, bool, usize); 4] = [(0.75, true, 70), (0.75, false, 30), (0.95, true, 950), (0.95, false, 50)];

    #[test]
    fn panels_and_metrics_have_the_numbers() {
        let given = run(&Params::default(), &BEATS, Some(f64::from(0.95_f32)));
        assert!(given.files["reliability.png"].starts_with(b"\x89PNG"));
        let names: Vec<&String> = given.files.keys().collect();
        assert_eq!(names, ["coverage.csv", "reliability.csv", "reliability.png", "reliability.svg"]);
        assert!(given.told.is_empty(), "{:?}", given.told);
        let svg = given.text("reliability.svg");
        for expected in [
            "<title>Reliability</title>",
            "Test part: 1,100 beats, 92.7 % right",
            "Expected calibration error 0.0045, negative log-likelihood 0.",
            "0.95: 90.9 % of the beats kept, 95.0 % of them right",
            ">1,000<",
            ">100 %<",
            ">90 %<",
        ] {
            assert!(svg.contains(expected), "{expected}\n{svg}");
        }
        given.check("test/calibration_error", 0.05 * 100.0 / 1100.0);
        let rows = [(0.75_f64, 70.0, 30.0), (0.95, 950.0, 50.0)];
        let sum = |of: fn(f64) -> (f64, f64)| {
            rows.iter().map(|(p, right, wrong)| right * of(*p).0 + wrong * of(*p).1).sum::<f64>() / 1100.0
        };
        given.check("test/log_loss", sum(|p| (-p.ln(), -((1.0 - p) / 2.0).ln())));
        let brier = |p: f64| {
            let other = (1.0 - p) / 2.0;
            ((1.0 - p).powi(2) + 2.0 * other.powi(2), p.powi(2) + other.powi(2) + (1.0 - other).powi(2))
        };
        given.check("test/brier", sum(brier));
        given.check("test/certain_share", 1000.0 / 1100.0);
        given.check("test/certain_accuracy", 0.95);
    }

    #[test]
    fn a_bound_is_marked_only_where_there_is_one() {
        let given = run(&Params::default(), &BEATS, None);
        assert!(!given.text("reliability.svg").contains("of the beats kept"));
        let keys: Vec<&String> = given.metrics.keys().collect();
        assert_eq!(keys, ["test/brier", "test/calibration_error", "test/log_loss"]);
        // No beat reaches it: a share, but no accuracy.
        let given = run(&Params::default(), &BEATS, Some(0.999));
        assert!(given.text("reliability.svg").contains("no beat is certain: none reaches 0.9990"));
        given.check("test/certain_share", 0.0);
        assert!(!given.metrics.contains_key("test/certain_accuracy"));
        // What `calibrate` gives where nothing is good enough.
        let given = run(&Params::default(), &BEATS, Some(1.0 + f64::EPSILON));
        assert!(given.text("reliability.svg").contains("the calibration found no bound"));
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!([0.0, 0.945, 0.9994, 0.9996, 1.0].map(percent), ["0.0 %", "94.5 %", "99.9 %", "99.96 %", "100.0 %"]);
    }

    #[test]
    fn a_name_is_in_metrics_and_file_names() {
        let params = Params { part: Part::Validation, name: "cv".to_owned(), ..Params::default() };
        let given = run(&params, &BEATS, None);
        let names: Vec<&String> = given.files.keys().collect();
        assert_eq!(names, ["coverage_cv.csv", "reliability_cv.csv", "reliability_cv.png", "reliability_cv.svg"]);
        assert!(given.metrics.keys().all(|key| key.starts_with("cv/")), "{:?}", given.metrics);
        assert!(given.text("reliability_cv.svg").contains("Validation part (cv): 1,100 beats"));
        let given = run(&Params { name: String::new(), ..params }, &BEATS, None);
        assert!(given.metrics.contains_key("validation/brier"));
    }

    #[test]
    fn tables_have_bins_and_the_curve() {
        let given = run(&Params { bin_n: 4, ..Params::default() }, &BEATS, None);
        let bins = "low,high,beats,mean_probability,accuracy\n\
                    0.000000,0.250000,0,,\n\
                    0.250000,0.500000,0,,\n\
                    0.500000,0.750000,0,,\n\
                    0.750000,1.000000,1100,0.931818,0.927273\n";
        assert_eq!(given.text("reliability.csv"), bins);
        let curve = "probability,coverage,accuracy\n\
                     0.94999999,0.909091,0.950000\n\
                     0.75000000,1.000000,0.927273\n";
        assert_eq!(given.text("coverage.csv"), curve);
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let point = |idx: usize| Coverage { probability: 1.0, coverage: idx as f64, accuracy: 1.0 };
        for point_n in [0, 1, 199, 200, 201, 399, 50_000] {
            let curve: Vec<Coverage> = (0..point_n).map(point).collect();
            let rows = thinned(&curve);
            assert_eq!(rows.len(), point_n.min(200));
            assert_eq!((rows.first(), rows.last()), (curve.first(), curve.last()));
            assert!(rows.windows(2).all(|pair| pair[0].coverage < pair[1].coverage));
        }
    }

    #[test]
    fn no_beats_can_be_drawn() {
        let given = run(&Params::default(), &[], Some(0.8));
        assert!(given.text("reliability.svg").contains("No beat of the test part has a prediction."));
        assert_eq!(given.text("coverage.csv"), "probability,coverage,accuracy\n");
        assert!(given.metrics.is_empty());
        let warning = "no reliability to draw: no beat of the test part has a prediction";
        assert_eq!(given.told, [StageEvent::Warning(warning.to_owned())]);
    }

    #[test]
    fn few_and_perfect_beats_can_be_drawn() {
        for beats in [&[(0.6, true, 1)][..], &[(0.6, false, 1)], &[(1.0, true, 5)], &[(1.0, false, 5), (0.5, true, 5)]]
        {
            for uncertain_below in [None, Some(0.0), Some(0.7)] {
                let svg = run(&Params::default(), beats, uncertain_below).text("reliability.svg");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains(">105 %<") && !svg.contains(">110 %<"), "{svg}");
            }
        }
    }

    #[test]
    fn beats_without_a_prediction_are_told() {
        let given = run(&Params::default(), &[(0.9, true, 8), (0.0, true, 1_200)], None);
        let note = "1,200 of the 1,208 beats of the test part had no prediction and take no part";
        assert_eq!(given.told, [StageEvent::Note(note.to_owned())]);
        assert!(given.text("reliability.svg").contains("Test part: 8 beats, 100.0 % right"));
    }

    #[test]
    fn checks_parameters() {
        let check = |params: &Params| PlotReliability::check(params);
        assert_eq!(check(&Params::default()), Ok(()));
        for bin_n in [2, 50] {
            assert_eq!(check(&Params { bin_n, ..Params::default() }), Ok(()));
        }
        for bin_n in [0, 1, 51] {
            let error = check(&Params { bin_n, ..Params::default() }).unwrap_err();
            assert_eq!(error, format!("`bin_n` must be 2 to 50, not {bin_n}"));
        }
        let named = |name: &str| check(&Params { name: name.to_owned(), ..Params::default() });
        assert_eq!(named("cv_2"), Ok(()));
        for name in ["../a", "a b", "é", "a-b", "a.b"] {
            assert_eq!(named(name).unwrap_err(), format!("`name` must be letters, digits and `_`, not `{name}`"));
        }
    }
}
