//! `plot_confusion`: one confusion matrix with counts, row shares, sensitivities and positive predictivities.
//!
//! Colour is the share of the row: with 9 of 10 beats normal, counts would show the first row only. Sensitivity (Se) and
//! positive predictivity (+P) are those of ANSI/AAMI EC57: a missed beat counts against Se.

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{
    Confusion, Context, FactProblem, Files, One, Place, Stage, StageError, StageFacts, facts::names, ports,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    aami::{AamiClass, EscapeRule},
    chart::{self, Color, Frame, LABEL, MARGIN, MUTED, RULE, SMALL, Scene, grouped, palette},
};

/// Draws a confusion matrix.
pub struct PlotConfusion;

/// Which matrix.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which beats count, by the name of `evaluate`: `all`, `aami` (without paced records), ... Default: `all`.
    pub view: String,
    /// To which class escape beats belong: `de_chazal` (N) or `ec57` (S). Default: `de_chazal`.
    pub escape_rule: EscapeRule,
    /// A record, or `*` for all together. Default: `*`.
    pub record: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { view: "all".to_owned(), escape_rule: EscapeRule::default(), record: "*".to_owned() }
    }
}

ports! {
    /// What `plot_confusion` takes.
    pub struct Inputs {
        /// The counts.
        pub confusion: One<Confusion>,
    }
}

ports! {
    /// What `plot_confusion` gives.
    pub struct Outputs {
        /// `confusion_<view>_<escape rule>.svg` and `.png`, with `_<record>` at the end for one record.
        pub figures: One<Files>,
    }
}

impl Stage for PlotConfusion {
    const NAME: &'static str = "plot_confusion";
    const SUMMARY: &'static str =
        "draws a confusion matrix with counts, row shares, sensitivity and positive predictivity";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        for (name, value) in [("view", &params.view), ("record", &params.record)] {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            if !(name == "record" && value == "*") && (value.is_empty() || !value.bytes().all(fits)) {
                return Err(format!("`{name}` must be letters, digits, `_`, `-` or `.`, not `{value}`"));
            }
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        let Some(views) = facts.get("confusion", names::VIEWS) else { return };
        if facts.list("confusion", names::VIEWS).is_some_and(|known| !known.contains(&params.view.as_str())) {
            let message = format!("`{}` has no view `{}`", facts.from("confusion"), params.view);
            let problem = FactProblem::error(Place::Parameter("view"), message).because(names::VIEWS, views);
            facts.tell(problem.help(format!("it has {}", names::VIEWS.read(&views.value))));
        }
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        let matrix = Matrix::read(&inputs.confusion, params)?;
        let mut stem = format!("confusion_{}_{}", params.view, params.escape_rule.as_str());
        if params.record != "*" {
            stem.push_str(&format!("_{}", params.record));
        }
        let files = chart::figure(&stem, &draw(&matrix, params))?;
        Ok(Outputs { figures: One::new(Files::new(files.into())) })
    }
}

const TITLE: &str = "Confusion matrix";
const CELL: (f64, f64) = (92.0, 60.0);
const GAP: f64 = 3.0;
const ROW_LABEL_WIDTH: f64 = 118.0;
const TOP: f64 = 118.0;

/// Counts by reference (row) and prediction (column).
struct Matrix {
    /// The classes, then what is not a class.
    rows: Vec<String>,
    /// The classes, then what is not a class, for example `missed`.
    columns: Vec<String>,
    class_n: usize,
    counts: Vec<Vec<i64>>,
}

impl Matrix {
    /// # Errors
    /// If there is no such view, with the views that there are.
    fn read(confusion: &Confusion, params: &Params) -> Result<Self, StageError> {
        let rule = params.escape_rule.as_str();
        let fits = |row: &&ecgpipe_sdk::kinds::ConfusionRow| {
            row.view == params.view && row.escape_rule == rule && row.record == params.record
        };
        let found: Vec<_> = confusion.rows.iter().filter(fits).collect();
        if found.is_empty() && !confusion.rows.is_empty() {
            return Err(absent(confusion, params));
        }
        let with_others = |names: BTreeSet<&String>| -> Vec<String> {
            let others = names.into_iter().filter(|name| !confusion.classes.contains(name));
            confusion.classes.iter().chain(others).cloned().collect()
        };
        let rows = with_others(found.iter().map(|row| &row.truth).collect());
        let columns = with_others(found.iter().map(|row| &row.predicted).collect());
        let mut counts = vec![vec![0; columns.len()]; rows.len()];
        let place = |names: &[String], name: &String| names.iter().position(|other| other == name);
        for row in found {
            if let (Some(truth), Some(predicted)) = (place(&rows, &row.truth), place(&columns, &row.predicted)) {
                counts[truth][predicted] += row.count;
            }
        }
        Ok(Self { rows, columns, class_n: confusion.classes.len(), counts })
    }

    fn row_sum(&self, row: usize) -> i64 {
        self.counts[row].iter().sum()
    }

    fn column_sum(&self, column: usize) -> i64 {
        self.counts.iter().map(|row| row[column]).sum()
    }

    fn sum(&self) -> i64 {
        (0..self.rows.len()).map(|row| self.row_sum(row)).sum()
    }

    fn right_n(&self) -> i64 {
        (0..self.class_n).map(|class| self.counts[class][class]).sum()
    }
}

fn absent(confusion: &Confusion, params: &Params) -> StageError {
    let mut views: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for row in &confusion.rows {
        views.entry((&row.view, &row.escape_rule)).or_default().insert(&row.record);
    }
    let rule = params.escape_rule.as_str();
    if let Some(records) = views.get(&(params.view.as_str(), rule)) {
        let records: Vec<&str> = records.iter().copied().collect();
        let message = format!(
            "the confusion counts of view `{}` with escape rule `{rule}` have no record `{}`",
            params.view, params.record
        );
        return StageError::new(message).help(format!("set `record` to one of {}", records.join(", ")));
    }
    let message = format!("there are no confusion counts for view `{}` with escape rule `{rule}`", params.view);
    let views: Vec<String> = views.keys().map(|(view, rule)| format!("`{view}` with `{rule}`")).collect();
    StageError::new(message).help(format!("there are: {}", views.join(", ")))
}

fn draw(matrix: &Matrix, params: &Params) -> Scene {
    if matrix.sum() == 0 {
        return chart::empty(TITLE, "There are no beats with a reference label to compare with.");
    }
    let (row_n, column_n) = (matrix.rows.len(), matrix.columns.len());
    let x_of = |column: usize| {
        let apart = if column >= matrix.class_n { 8.0 } else { 0.0 };
        MARGIN + 20.0 + ROW_LABEL_WIDTH + column as f64 * (CELL.0 + GAP) + apart
    };
    let y_of = |row: usize| {
        let apart = if row >= matrix.class_n { 8.0 } else { 0.0 };
        TOP + row as f64 * (CELL.1 + GAP) + apart
    };
    let right = x_of(column_n - 1) + CELL.0;
    let bottom = y_of(row_n - 1) + CELL.1;
    let key_height = (matrix.class_n.div_ceil(2) as f64 * 18.0 - 4.0).max(46.0);
    let mut scene = Scene::new(TITLE, right + 16.0 + 70.0 + MARGIN, bottom + 60.0 + key_height + MARGIN);
    chart::heading(&mut scene, &subtitle(matrix, params));
    let middle = (x_of(0) + x_of(matrix.class_n - 1) + CELL.0) / 2.0;
    scene.text((middle, TOP - 30.0), "predicted class", LABEL.color(MUTED).middle());
    let middle = (y_of(0) + y_of(matrix.class_n - 1) + CELL.1) / 2.0;
    scene.text((MARGIN + 11.0, middle), "reference class", LABEL.color(MUTED).middle().turned());
    for (column, name) in matrix.columns.iter().enumerate() {
        let style = LABEL.color(if column < matrix.class_n { palette::of(name).ink } else { MUTED });
        let style = if column < matrix.class_n { style.size(15.0).bold() } else { style };
        scene.text((x_of(column) + CELL.0 / 2.0, TOP - 9.0), name, style.middle());
    }
    for row in 0..row_n {
        draw_row(&mut scene, matrix, row, (&x_of, y_of(row)));
    }
    draw_margins(&mut scene, matrix, (&x_of, &y_of));
    draw_key(&mut scene, matrix, bottom + 60.0, right);
    scene
}

fn subtitle(matrix: &Matrix, params: &Params) -> String {
    let records = if params.record == "*" { "All records".to_owned() } else { format!("Record {}", params.record) };
    let beat_n = (0..matrix.class_n).map(|row| matrix.row_sum(row)).sum::<i64>();
    let accuracy = percent(matrix.right_n(), beat_n);
    let rule = match params.escape_rule {
        EscapeRule::DeChazal => "escape beats counted as N (de_chazal)",
        EscapeRule::Ec57 => "escape beats counted as S (ec57)",
    };
    let beats = if beat_n == 1 { "beat" } else { "beats" };
    format!("{records}, view {}, {rule}: {} {beats}, accuracy {accuracy}", params.view, grouped(beat_n))
}

fn draw_row(scene: &mut Scene, matrix: &Matrix, row: usize, (x_of, y): (&impl Fn(usize) -> f64, f64)) {
    let name = &matrix.rows[row];
    let sum = matrix.row_sum(row);
    let is_class = row < matrix.class_n;
    let x_label = x_of(0) - 12.0;
    let style = if is_class { LABEL.size(15.0).bold().color(palette::of(name).ink) } else { LABEL.color(MUTED) };
    scene.text((x_label, y + CELL.1 / 2.0 - 1.0), name, style.end());
    let beats = if sum == 1 { "1 beat".to_owned() } else { format!("{} beats", grouped(sum)) };
    scene.text((x_label, y + CELL.1 / 2.0 + 15.0), &beats, SMALL.end());
    for (column, &count) in matrix.counts[row].iter().enumerate() {
        let frame = Frame { x: x_of(column), y, width: CELL.0, height: CELL.1 };
        let share = if sum > 0 { count as f64 / sum as f64 } else { 0.0 };
        let fill = if sum > 0 { palette::blues(share) } else { Color::hex(0xf4_f5_f6) };
        scene.rect(frame, fill);
        let ink = palette::ink_on(fill);
        let middle = frame.x + frame.width / 2.0;
        if sum == 0 {
            scene.text((middle, frame.y + frame.height / 2.0 + 4.0), "–", SMALL.middle());
            continue;
        }
        let strong = LABEL.size(15.0).color(ink).middle();
        let strong = if row == column { strong.bold() } else { strong };
        scene.text((middle, frame.y + frame.height / 2.0 - 1.0), &grouped(count), strong);
        scene.text((middle, frame.y + frame.height / 2.0 + 16.0), &percent(count, sum), SMALL.color(ink).middle());
    }
}

fn draw_margins(scene: &mut Scene, matrix: &Matrix, (x_of, y_of): (&impl Fn(usize) -> f64, &impl Fn(usize) -> f64)) {
    let x = x_of(matrix.columns.len() - 1) + CELL.0 + 16.0 + 35.0;
    let y = y_of(matrix.rows.len() - 1) + CELL.1 + 28.0;
    scene.text((x, TOP - 9.0), "Se", LABEL.bold().middle());
    scene.text((x_of(0) - 12.0, y), "+P", LABEL.bold().end());
    for class in 0..matrix.class_n {
        let right_n = matrix.counts[class][class];
        let sensitivity = percent(right_n, matrix.row_sum(class));
        let predictivity = percent(right_n, matrix.column_sum(class));
        let style = LABEL.size(13.0).middle();
        scene.text((x, y_of(class) + CELL.1 / 2.0 + 5.0), &sensitivity, style);
        scene.text((x_of(class) + CELL.0 / 2.0, y), &predictivity, style);
    }
}

/// Names of the classes and the colour scale.
fn draw_key(scene: &mut Scene, matrix: &Matrix, top: f64, right: f64) {
    scene.rect(Frame { x: MARGIN, y: top - 14.0, width: right + 86.0 - MARGIN, height: 1.0 }, RULE.faded(60));
    for (idx, name) in matrix.rows.iter().take(matrix.class_n).enumerate() {
        let (x, y) = (MARGIN + (idx % 2) as f64 * 225.0, top + 8.0 + (idx / 2) as f64 * 18.0);
        scene.text((x, y), name, SMALL.bold().color(palette::of(name).ink));
        let meaning = AamiClass::from_letter(name).map_or("", AamiClass::name);
        scene.text((x + 16.0, y), meaning, SMALL);
    }
    let (bar_width, step_n) = (100.0, 50);
    let x = right + 86.0 - bar_width;
    for step in 0..step_n {
        // Each step reaches to the bar's end and the next covers it, so that no viewer shows seams.
        let from = bar_width * f64::from(step) / f64::from(step_n);
        let frame = Frame { x: x + from, y: top, width: bar_width - from, height: 10.0 };
        scene.rect(frame, palette::blues((f64::from(step) + 0.5) / f64::from(step_n)));
    }
    scene.text((x, top + 25.0), "0 %", SMALL);
    scene.text((x + bar_width, top + 25.0), "100 %", SMALL.end());
    scene.text((x + bar_width / 2.0, top + 43.0), "share of row", SMALL.middle());
}

/// One decimal; `–` where there is nothing to divide by.
fn percent(part: i64, whole: i64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ecgpipe_sdk::kinds::ConfusionRow;

    use super::*;

    fn row(truth: &str, predicted: &str, count: i64) -> ConfusionRow {
        ConfusionRow {
            view: "all".to_owned(),
            escape_rule: "de_chazal".to_owned(),
            record: "*".to_owned(),
            truth: truth.to_owned(),
            predicted: predicted.to_owned(),
            count,
        }
    }

    fn confusion(rows: Vec<ConfusionRow>) -> Confusion {
        Confusion { classes: ["N", "S", "V", "F", "Q"].map(str::to_owned).to_vec(), rows }
    }

    fn svg(rows: Vec<ConfusionRow>) -> Result<String, StageError> {
        let params = Params::default();
        let matrix = Matrix::read(&confusion(rows), &params)?;
        let [svg, png] = chart::figure("confusion", &draw(&matrix, &params))?;
        assert!(png.bytes.starts_with(b"\x89PNG"));
        Ok(String::from_utf8(svg.bytes).unwrap())
    }

    #[test]
    fn shows_counts_shares_and_margins() {
        let svg =
            svg(vec![row("N", "N", 43_000), row("N", "V", 1_000), row("V", "V", 3_000), row("V", "missed", 1_000)]);
        let svg = svg.unwrap();
        // Se of N and V, +P of V, and the share of missed beats.
        for expected in
            ["43,000", "97.7 %", "75.0 %", "25.0 %", "48,000 beats, accuracy 95.8 %", ">missed<", "4,000 beats"]
        {
            assert!(svg.contains(expected), "{expected}");
        }
        // Classes without beats have no sensitivity and nothing to divide by: three rows of five cells and a `missed`,
        // three sensitivities, three positive predictivities.
        assert_eq!(svg.matches(">–<").count(), 3 * 6 + 3 + 3);
    }

    #[test]
    fn an_absent_view_is_answered_with_those_there_are() {
        let error = |change: fn(&mut ConfusionRow)| {
            let mut row = row("N", "N", 1);
            change(&mut row);
            let error = svg(vec![row]).unwrap_err();
            format!("{}; {}", error.message, error.help.unwrap())
        };
        assert_eq!(
            error(|row| row.view = "aami".to_owned()),
            "there are no confusion counts for view `all` with escape rule `de_chazal`; there are: `aami` with `de_chazal`"
        );
        assert_eq!(
            error(|row| row.record = "208".to_owned()),
            "the confusion counts of view `all` with escape rule `de_chazal` have no record `*`; set `record` to one of 208"
        );
    }

    #[test]
    fn no_counts_at_all_can_be_drawn() {
        assert!(svg(Vec::new()).unwrap().contains("There are no beats with a reference label"));
    }

    #[test]
    fn refuses_names_that_are_no_file_names() {
        let params = Params { view: "../all".to_owned(), ..Params::default() };
        assert!(PlotConfusion::check(&params).unwrap_err().starts_with("`view` must be"));
        assert!(PlotConfusion::check(&Params::default()).is_ok());
    }
}
