//! `plot_curves`: how loss and scores went over the epochs of a training, as one figure with a panel a metric.
//!
//! Training and validation share a panel, for their distance is what shows overfitting; the epoch whose model was kept
//! is marked, for it is not the last one when training stopped early.

use std::collections::BTreeMap;

use ecgpipe_sdk::{Context, Files, Metrics, One, Stage, StageError, ports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chart::{self, Axis, Color, Frame, GRID, LABEL, MARGIN, MUTED, RULE, SMALL, Scene, Stroke, WHITE};

/// Draws the training curves.
pub struct PlotCurves;

/// What to draw.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Metrics to draw, one panel each, from left to right: `loss` stands for `train/loss` and `validation/loss`. A
    /// metric that was not measured is left out. Default: `loss`, `accuracy`, `macro_f1`.
    pub metrics: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { metrics: ["loss", "accuracy", "macro_f1"].map(str::to_owned).to_vec() }
    }
}

ports! {
    /// What `plot_curves` takes.
    pub struct Inputs {
        /// Metrics of a training, by epoch from 1: `train/loss`, `validation/loss`, `train/accuracy`, ...;
        /// `train/best_epoch` at step 0 says which epoch was kept, else it is the one of lowest validation loss.
        pub metrics: One<Metrics>,
    }
}

ports! {
    /// What `plot_curves` gives.
    pub struct Outputs {
        /// `training_curves.svg` and `training_curves.png`.
        pub figures: One<Files>,
    }
}

impl Stage for PlotCurves {
    const NAME: &'static str = "plot_curves";
    const SUMMARY: &'static str = "draws loss and scores of training and validation over the epochs";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        match params.metrics.len() {
            0 => Err("`metrics` must name at least one metric".to_owned()),
            1..=6 => Ok(()),
            panel_n => Err(format!("`metrics` must name at most 6 metrics, not {panel_n}: use two stages")),
        }
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let curves = Curves::read(&inputs.metrics, &params.metrics);
        if curves.panels.is_empty() {
            cx.warn(format!("no training curve: no epoch has {}", params.metrics.join(", ")));
        }
        let files = chart::figure("training_curves", &draw(&curves))?;
        Ok(Outputs { figures: One::new(Files::new(files.into())) })
    }
}

const TITLE: &str = "Training curves";
const TRAINING: Color = Color::hex(0x5b_7a_9c);
const VALIDATION: Color = Color::hex(0xc8_40_00);
/// Size of the plot inside of a panel; the rest of a panel is its labels.
const PLOT: (f64, f64) = (330.0, 230.0);
const TICK_WIDTH: f64 = 46.0;
const PANEL_GAP: f64 = 22.0;

/// The points of a metrics table that a figure shows.
struct Curves {
    panels: Vec<Panel>,
    first_epoch: i64,
    last_epoch: i64,
    best_epoch: Option<i64>,
    /// Whether the training named the best epoch, and it was not just found by its loss.
    is_told: bool,
    non_finite_n: usize,
}

struct Panel {
    label: String,
    is_loss: bool,
    training: Curve,
    validation: Curve,
}

/// Value by epoch, for the last of several values of one epoch is what counts.
type Curve = BTreeMap<i64, f64>;

impl Curves {
    fn read(metrics: &Metrics, names: &[String]) -> Self {
        let curve = |section: &str, name: &str| -> Curve {
            let key = format!("{section}/{name}");
            let points = metrics.points.iter().filter(|point| point.key == key && point.step > 0);
            points.map(|point| (point.step, point.value)).collect()
        };
        let panels: Vec<Panel> = names
            .iter()
            .map(|name| Panel {
                label: label(name),
                is_loss: name.contains("loss"),
                training: curve("train", name),
                validation: curve("validation", name),
            })
            .filter(|panel| !panel.training.is_empty() || !panel.validation.is_empty())
            .collect();
        let epochs = || panels.iter().flat_map(|panel| panel.training.keys().chain(panel.validation.keys())).copied();
        let (first_epoch, last_epoch) = (epochs().min().unwrap_or(1), epochs().max().unwrap_or(1));
        let told = metrics.points.iter().find(|point| point.key == "train/best_epoch").map(|point| point.value as i64);
        let best_epoch = told.or_else(|| lowest(&curve("validation", "loss")));
        let best_epoch = best_epoch.filter(|epoch| (first_epoch..=last_epoch).contains(epoch));
        let values = panels.iter().flat_map(|panel| panel.training.values().chain(panel.validation.values()));
        let non_finite_n = values.filter(|value| !value.is_finite()).count();
        Self { panels, first_epoch, last_epoch, best_epoch, is_told: told.is_some(), non_finite_n }
    }
}

/// The first epoch of lowest value.
fn lowest(curve: &Curve) -> Option<i64> {
    let finite = curve.iter().filter(|(_, value)| value.is_finite());
    finite.min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0))).map(|(&epoch, _)| epoch)
}

fn label(name: &str) -> String {
    match name {
        "macro_f1" => "macro F1".to_owned(),
        other => other.replace('_', " "),
    }
}

fn draw(curves: &Curves) -> Scene {
    if curves.panels.is_empty() {
        return chart::empty(TITLE, "There are no epochs to draw: this model was not trained step by step.");
    }
    let panel_n = curves.panels.len() as f64;
    let panel_width = TICK_WIDTH + PLOT.0;
    let width = 2.0 * MARGIN + panel_n * panel_width + (panel_n - 1.0) * PANEL_GAP;
    let mut scene = Scene::new(TITLE, width.max(520.0), 116.0 + PLOT.1 + 50.0 + MARGIN);
    chart::heading(&mut scene, &subtitle(curves));
    let x_axis = Axis::whole(curves.first_epoch, curves.last_epoch, 6);
    for (idx, panel) in curves.panels.iter().enumerate() {
        let x = MARGIN + TICK_WIDTH + idx as f64 * (panel_width + PANEL_GAP);
        let plot = Frame { x, y: 128.0, width: PLOT.0, height: PLOT.1 };
        draw_panel(&mut scene, plot, (curves, panel), &x_axis);
    }
    legend(&mut scene, curves);
    scene
}

fn subtitle(curves: &Curves) -> String {
    let epoch_n = curves.last_epoch - curves.first_epoch + 1;
    let mut text = format!("{epoch_n} epoch{}", if epoch_n == 1 { "" } else { "s" });
    if let Some(best) = curves.best_epoch {
        text.push_str(&match curves.is_told {
            true => format!("; the model of epoch {best} was kept"),
            false => format!("; lowest validation loss at epoch {best}"),
        });
    }
    if curves.non_finite_n > 0 {
        text.push_str(&format!("; {} values are not finite and left out", curves.non_finite_n));
    }
    text
}

fn legend(scene: &mut Scene, curves: &Curves) {
    let mut x = MARGIN;
    let y = 80.0;
    let has = |of: fn(&Panel) -> &Curve| curves.panels.iter().any(|panel| !of(panel).is_empty());
    let entries = [
        ("training", TRAINING, has(|panel| &panel.training)),
        ("validation", VALIDATION, has(|panel| &panel.validation)),
    ];
    for (name, color, _) in entries.into_iter().filter(|(.., shown)| *shown) {
        scene.line(vec![(x, y - 4.0), (x + 20.0, y - 4.0)], Stroke::new(color, 2.5));
        scene.text((x + 27.0, y), name, LABEL);
        x += 27.0 + chart::text_width(name, LABEL) + 22.0;
    }
}

fn draw_panel(scene: &mut Scene, plot: Frame, (curves, panel): (&Curves, &Panel), x_axis: &Axis) {
    let y_axis = value_axis(panel);
    let place = |epoch: i64, value: f64| {
        (plot.x + x_axis.share(epoch as f64) * plot.width, plot.bottom() - y_axis.share(value) * plot.height)
    };
    scene.text((plot.x, plot.y - 10.0), &panel.label, LABEL.bold());
    for (value, text) in y_axis.ticks() {
        let y = plot.bottom() - y_axis.share(*value) * plot.height;
        scene.line(vec![(plot.x, y), (plot.right(), y)], Stroke::new(GRID, 1.0));
        scene.text((plot.x - 8.0, y + 4.0), text, SMALL.end());
    }
    for (value, text) in x_axis.ticks() {
        let x = plot.x + x_axis.share(*value) * plot.width;
        scene.line(vec![(x, plot.bottom()), (x, plot.bottom() + 4.0)], Stroke::new(RULE, 1.0));
        scene.text((x, plot.bottom() + 18.0), text, SMALL.middle());
    }
    scene.line(vec![(plot.x, plot.bottom()), (plot.right(), plot.bottom())], Stroke::new(RULE, 1.0));
    scene.text((plot.x + plot.width / 2.0, plot.bottom() + 38.0), "epoch", LABEL.color(MUTED).middle());
    if let Some(best) = curves.best_epoch {
        let (x, _) = place(best, 0.0);
        scene.line(vec![(x, plot.y), (x, plot.bottom())], Stroke::new(MUTED, 1.0).dashed(4.0, 4.0));
    }
    for (curve, color) in [(&panel.training, TRAINING), (&panel.validation, VALIDATION)] {
        // An epoch that is missing breaks the line, as a value that is not finite does.
        let epochs = curve.keys().next().copied().unwrap_or(0)..=curve.keys().last().copied().unwrap_or(-1);
        let points: Vec<(f64, f64)> =
            epochs.map(|epoch| place(epoch, curve.get(&epoch).copied().unwrap_or(f64::NAN))).collect();
        let alone = |idx: usize| {
            let breaks = |point: Option<&(f64, f64)>| point.is_none_or(|point| !point.1.is_finite());
            breaks(idx.checked_sub(1).and_then(|idx| points.get(idx))) && breaks(points.get(idx + 1))
        };
        for (_, &point) in points.iter().enumerate().filter(|(idx, _)| alone(*idx)) {
            scene.disc(point, 3.0, color);
        }
        scene.line(points, Stroke::new(color, 2.0));
    }
    if let Some((best, value, color)) = best_point(curves, panel) {
        scene.disc(place(best, value), 5.5, WHITE);
        scene.disc(place(best, value), 4.0, color);
        // The number stands above the panel, where no curve can run through it.
        let text = format!("epoch {best}: {value:.3}");
        scene.text((plot.right(), plot.y - 10.0), &text, SMALL.color(color).bold().end());
    }
}

/// Epoch, value and colour of the best epoch: on the validation curve where there is one.
fn best_point(curves: &Curves, panel: &Panel) -> Option<(i64, f64, Color)> {
    let best = curves.best_epoch?;
    let (curve, color) =
        if panel.validation.is_empty() { (&panel.training, TRAINING) } else { (&panel.validation, VALIDATION) };
    let value = curve.get(&best).copied().filter(|value| value.is_finite())?;
    Some((best, value, color))
}

/// A loss starts at 0 unless that would flatten its curves; a score ends at 1 unless it is far below.
fn value_axis(panel: &Panel) -> Axis {
    let values = panel.training.values().chain(panel.validation.values()).copied().filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return Axis::round(0.0, 1.0, 5);
    }
    let low = if low > 0.0 && low < 0.5 * high { 0.0 } else { low };
    let high = if !panel.is_loss && high <= 1.0 && high > 0.9 { 1.0 } else { high };
    Axis::round(low, high, 5)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn svg(metrics: &Metrics) -> String {
        let curves = Curves::read(metrics, &Params::default().metrics);
        let [svg, png] = chart::figure("training_curves", &draw(&curves)).unwrap();
        assert!(png.bytes.starts_with(b"\x89PNG"));
        String::from_utf8(svg.bytes).unwrap()
    }

    fn metrics(epoch_n: i64, names: &[&str]) -> Metrics {
        let mut metrics = Metrics::default();
        for epoch in 1..=epoch_n {
            for (idx, name) in names.iter().enumerate() {
                let distance = (epoch - 7).abs() as f64;
                metrics.push(*name, epoch, 0.2 + 0.01 * distance + 0.1 * idx as f64);
            }
        }
        metrics
    }

    #[test]
    fn panels_are_the_metrics_that_were_measured() {
        let svg = svg(&metrics(12, &["train/loss", "validation/loss", "train/accuracy", "validation/accuracy"]));
        for expected in [">loss<", "accuracy", "12 epochs; lowest validation loss at epoch 7", "epoch 7: 0.300"] {
            assert!(svg.contains(expected), "{expected}");
        }
        assert!(!svg.contains("macro F1"));
    }

    #[test]
    fn the_epoch_that_training_names_is_marked() {
        let mut metrics = metrics(12, &["train/loss", "validation/loss"]);
        metrics.push("train/best_epoch", 0, 5.0);
        assert!(svg(&metrics).contains("the model of epoch 5 was kept"));
    }

    #[test]
    fn few_broken_and_no_epochs_can_be_drawn() {
        assert!(svg(&metrics(1, &["train/loss"])).contains(">1 epoch</text>"));
        let mut broken = metrics(4, &["train/loss", "validation/loss"]);
        broken.points.iter_mut().filter(|point| point.step == 2).for_each(|point| point.value = f64::NAN);
        assert!(svg(&broken).contains("2 values are not finite"));
        broken.points.iter_mut().for_each(|point| point.value = f64::INFINITY);
        assert!(svg(&broken).contains("8 values are not finite"));
        assert!(svg(&Metrics::default()).contains("There are no epochs to draw"));
        // Scores of a model without epochs are at step 0.
        let mut baseline = Metrics::default();
        baseline.push("train/accuracy", 0, 0.9);
        assert!(svg(&baseline).contains("There are no epochs to draw"));
    }

    #[test]
    fn refuses_no_metrics() {
        let none = Params { metrics: Vec::new() };
        assert_eq!(PlotCurves::check(&none).unwrap_err(), "`metrics` must name at least one metric");
        assert!(PlotCurves::check(&Params::default()).is_ok());
    }
}
