//! Owns the files for people and programs: `summary.md`, `summary.json`, `records.csv`, `errors.csv`.
//!
//! They only write down what an [`Evaluation`] says. Records with the most errors come first. A ratio of nothing to
//! nothing is `-` (empty in CSV, null in JSON).

use std::{collections::BTreeMap, fmt::Write};

use ecgpipe_sdk::NamedFile;
use serde::Serialize;

use super::{
    DETECTION_RATIO_N, Evaluation, Params, RATIOS, RUN_KINDS, RUN_RATIOS, RecordScores, View,
    beat_by_beat::{Discrepancy, Matrix, NONE, SHUTDOWN},
    ratio,
    run_by_run::Ectopy,
};
use crate::aami::AamiClass;

/// All of them.
pub(super) fn files(evaluation: &Evaluation, params: &Params) -> Vec<NamedFile> {
    let mut json = serde_json::to_vec_pretty(&json(evaluation, params)).expect("plain data");
    json.push(b'\n');
    let file = |name: &str, bytes: Vec<u8>| NamedFile { name: name.to_owned(), bytes };
    vec![
        file("summary.md", markdown(evaluation, params).into_bytes()),
        file("summary.json", json),
        file("records.csv", records_csv(evaluation).into_bytes()),
        file("errors.csv", errors_csv(evaluation).into_bytes()),
    ]
}

fn markdown(evaluation: &Evaluation, params: &Params) -> String {
    let mut text = String::new();
    let what = if evaluation.is_detection_only { "Beat detection" } else { "Beats and their classes" };
    let _ = writeln!(text, "# {what}, scored by ANSI/AAMI EC57\n");
    let _ = writeln!(
        text,
        "`{}` against the reference `{}`; a beat counts as found within {} ms. Se and +P in %.\n",
        params.test_name, params.reference_name, params.match_window_ms
    );
    text.push_str("| view | records | beats | found | missed | extra | Se | +P | average Se | average +P |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for view in &evaluation.views {
        let gross = view.matrix();
        let _ = write!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            view_title(view),
            view.records.len(),
            gross.found_n() + gross.missed_n(),
            gross.found_n(),
            gross.missed_n(),
            gross.extra_n()
        );
        for (_, ratio) in &RATIOS[..DETECTION_RATIO_N] {
            let _ = write!(text, " **{}** |", percent(ratio(&gross)));
        }
        for (_, ratio) in &RATIOS[..DETECTION_RATIO_N] {
            let _ = write!(text, " {} |", percent(view.average(|scores| ratio(&scores.comparison.matrix))));
        }
        text.push('\n');
    }
    text.push('\n');
    if !evaluation.is_detection_only {
        class_section(&mut text, evaluation);
        run_section(&mut text, evaluation);
    }
    for view in &evaluation.views {
        record_section(&mut text, view);
    }
    notes(&mut text, evaluation, params);
    text
}

fn view_title(view: &View) -> String {
    match view.start_s {
        0.0 => format!("`{}` (whole records)", view.name),
        start_s => format!("`{}` (from {start_s} s)", view.name),
    }
}

fn class_section(text: &mut String, evaluation: &Evaluation) {
    text.push_str("## Ectopic beats\n\n");
    text.push_str("| view | class | beats | Se | +P | average Se | average +P |\n|---|---|--:|--:|--:|--:|--:|\n");
    for view in &evaluation.views {
        let gross = view.matrix();
        let ratios = RATIOS[DETECTION_RATIO_N..].chunks(2);
        for (class, ratios) in [AamiClass::V, AamiClass::S].into_iter().zip(ratios) {
            let _ = write!(text, "| `{}` | {class} {} | {} |", view.name, class.name(), gross.reference_n(class));
            for (_, ratio) in ratios {
                let _ = write!(text, " **{}** |", percent(ratio(&gross)));
            }
            for (_, ratio) in ratios {
                let _ = write!(text, " {} |", percent(view.average(|scores| ratio(&scores.comparison.matrix))));
            }
            text.push('\n');
        }
    }
    for view in &evaluation.views {
        let _ = writeln!(text, "\nView {}, rows: reference, columns: `test`:\n", view_title(view));
        matrix(text, &view.matrix());
    }
    text.push('\n');
}

fn matrix(text: &mut String, matrix: &Matrix) {
    text.push_str("| |");
    AamiClass::ALL.iter().for_each(|class| text.push_str(&format!(" {} |", class.letter().to_ascii_lowercase())));
    text.push_str(" missed | in shutdown |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (row, cells) in matrix.cells.iter().enumerate() {
        let _ = write!(text, "| **{}** |", place_name(row).unwrap_or("extra"));
        for (column, count) in cells.iter().enumerate() {
            let is_possible = row < NONE || column < NONE;
            let _ = if is_possible { write!(text, " {count} |") } else { write!(text, " |") };
        }
        text.push('\n');
    }
}

/// The name of a row or column, if it is not that of no beat at all.
fn place_name(place: usize) -> Option<&'static str> {
    if place == SHUTDOWN {
        return Some("in shutdown");
    }
    AamiClass::ALL.get(place).map(|class| class.letter())
}

fn run_section(text: &mut String, evaluation: &Evaluation) {
    text.push_str("## Runs of ectopic beats\n\n");
    text.push_str("| view | of | couplets | Se | +P | 3 to 5 beats | Se | +P | 6 beats or more | Se | +P |\n");
    text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for view in &evaluation.views {
        for (class, runs) in [("V, F", view.runs(Ectopy::Ventricular)), ("S", view.runs(Ectopy::Supraventricular))] {
            let _ = write!(text, "| `{}` | {class} |", view.name);
            for pair in runs.figures().chunks(2) {
                let _ = write!(text, " {} |", pair[0].1);
                for (part, whole) in pair {
                    let _ = write!(text, " {} |", percent(ratio(*part, *whole)));
                }
            }
            text.push('\n');
        }
    }
    text.push('\n');
}

fn record_section(text: &mut String, view: &View) {
    let _ = writeln!(text, "## Records, worst first: {}\n", view_title(view));
    let all_n: u64 = view.records.iter().map(error_n).sum();
    let (wrong, right): (Vec<&RecordScores>, Vec<&RecordScores>) =
        worst_first(view).into_iter().partition(|scores| error_n(scores) > 0);
    if !wrong.is_empty() {
        text.push_str("| record | errors | of all, so far | missed | extra | beats | Se | +P | RR error |\n");
        text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    }
    let mut so_far_n = 0;
    for scores in wrong {
        let matrix = &scores.comparison.matrix;
        so_far_n += error_n(scores);
        let _ = write!(
            text,
            "| {} | {} | {:.0} % | {} | {} | {} |",
            scores.record,
            error_n(scores),
            100.0 * so_far_n as f64 / all_n as f64,
            matrix.missed_n(),
            matrix.extra_n(),
            matrix.found_n() + matrix.missed_n()
        );
        for (_, ratio) in &RATIOS[..DETECTION_RATIO_N] {
            let _ = write!(text, " {} |", percent(ratio(matrix)));
        }
        let error_ms =
            scores.interval_error_ms().map_or_else(|| "-".to_owned(), |error_ms| format!("{error_ms:.1} ms"));
        let _ = writeln!(text, " {error_ms} |");
    }
    if !right.is_empty() {
        let names: Vec<&str> = right.iter().map(|scores| scores.record.as_str()).collect();
        let _ = writeln!(text, "\nWithout an error: {}.", names.join(", "));
    }
    text.push('\n');
}

fn error_n(scores: &RecordScores) -> u64 {
    scores.comparison.matrix.missed_n() + scores.comparison.matrix.extra_n()
}

/// By errors, then by name.
fn worst_first(view: &View) -> Vec<&RecordScores> {
    let mut records: Vec<&RecordScores> = view.records.iter().collect();
    records.sort_by_key(|scores| std::cmp::Reverse(error_n(scores)));
    records
}

fn notes(text: &mut String, evaluation: &Evaluation, params: &Params) {
    text.push_str("## How it was counted\n\n");
    for note in &evaluation.notes {
        let _ = writeln!(text, "- {note}.");
    }
    if evaluation.is_detection_only {
        text.push_str(
            "- Positions alone were tested: beats of a detector have no classes. In the files of the C tools each of them \
             is `N`, so that figures of V and S in there mean nothing.\n",
        );
    } else {
        text.push_str(
            "- Escape beats `e`, `j`, `n` are S. +P of V: F and Q beats taken for V are no errors, nor Q beats taken for S \
             in +P of S.\n",
        );
    }
    if let Some(end_s) = params.end_s {
        let _ = writeln!(text, "- Scoring stops at {end_s} s.");
    }
    let is_standard = params.match_window_ms == 150.0 && params.learning_period_s == 300.0 && params.end_s.is_none();
    if !is_standard {
        text.push_str(
            "- Match window, learning period or end are not those of EC57: do not compare with published figures.\n",
        );
    }
    text.push_str(
        "- Counted as `bxb`, `rxr` and `sumstats` of WFDB 10.7 count, which EC57 names as its reference; their own files \
         stand beside this one.\n\
         - Gross figures pool all beats; an average is the mean over the records that have the ratio, so that every record \
         counts alike.\n\
         - Beats within ventricular fibrillation or flutter of the reference are no errors, found or not.\n\
         - Where one side marks the signal as unreadable, beats of the other count as errors, in a row or column of their \
         own.\n\
         - RR error: root mean square of the differences of RR intervals, one at each step through both sides' beats; a missed \
         beat makes it jump.\n\
         - Decision support, not a diagnosis: these figures say how often beats agree with a reference, on these records.\n",
    );
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.3}", 100.0 * ratio))
}

/// One line for each view and record, and for all records of a view together (`*`).
fn records_csv(evaluation: &Evaluation) -> String {
    let mut text = String::from("view,record,beats,found,missed,extra,rr_error_ms");
    evaluation.ratios().iter().for_each(|(name, _)| text.push_str(&format!(",{name}")));
    text.push('\n');
    for view in &evaluation.views {
        let gross = view.matrix();
        let mut line = |record: &str, matrix: &Matrix, error_ms: Option<f64>| {
            let found_n = matrix.found_n();
            let (missed_n, extra_n) = (matrix.missed_n(), matrix.extra_n());
            let beat_n = found_n + missed_n;
            let error_ms = error_ms.map_or_else(String::new, |error_ms| format!("{error_ms:.2}"));
            let _ = write!(text, "{},{record},{beat_n},{found_n},{missed_n},{extra_n},{error_ms}", view.name);
            for (_, ratio) in evaluation.ratios() {
                let _ = write!(text, ",{}", ratio(matrix).map_or_else(String::new, |ratio| format!("{ratio:.6}")));
            }
            text.push('\n');
        };
        line("*", &gross, view.average(RecordScores::interval_error_ms));
        for scores in worst_first(view) {
            line(scores.record.as_str(), &scores.comparison.matrix, scores.interval_error_ms());
        }
    }
    text
}

/// One line for each beat of the view `full` that the annotators do not agree on, in time order.
fn errors_csv(evaluation: &Evaluation) -> String {
    let mut text = String::from("record,sample_idx,time_s,error,reference,test\n");
    let full = evaluation.views.iter().find(|view| view.name == "full");
    for scores in full.iter().flat_map(|view| &view.records) {
        for Discrepancy { sample_idx, reference, test } in &scores.comparison.discrepancies {
            let error = match (*reference >= NONE, *test >= NONE) {
                (true, _) => "extra",
                (_, true) => "missed",
                _ if evaluation.is_detection_only => continue,
                _ => "class",
            };
            let time_s = *sample_idx as f64 / scores.sampling_frequency_hz;
            let name = |place: usize| place_name(place).unwrap_or("");
            let (reference, test) = (name(*reference), name(*test));
            let _ = writeln!(text, "{},{sample_idx},{time_s:.3},{error},{reference},{test}", scores.record);
        }
    }
    text
}

/// The JSON summary. `format` counts up when a field changes its meaning.
#[derive(Serialize)]
struct Summary<'a> {
    format: u32,
    reference: &'a str,
    test: &'a str,
    is_detection_only: bool,
    match_window_ms: f64,
    end_s: Option<f64>,
    notes: &'a [String],
    views: Vec<ViewSummary<'a>>,
}

#[derive(Serialize)]
struct ViewSummary<'a> {
    view: &'a str,
    start_s: f64,
    gross: Figures,
    /// Means over records.
    average: BTreeMap<&'static str, Option<f64>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    runs: BTreeMap<&'static str, BTreeMap<&'static str, [u64; 2]>>,
    records: BTreeMap<&'a str, Figures>,
}

#[derive(Serialize)]
struct Figures {
    beat_n: u64,
    found_n: u64,
    missed_n: u64,
    extra_n: u64,
    ratios: BTreeMap<&'static str, Option<f64>>,
    /// Of a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    rr_error_ms: Option<f64>,
    /// Rows: reference N, S, V, F, Q, none, in shutdown; columns: test, in the same order.
    matrix: [[u64; 7]; 7],
}

fn json<'a>(evaluation: &'a Evaluation, params: &'a Params) -> Summary<'a> {
    let figures = |matrix: &Matrix, rr_error_ms: Option<f64>| Figures {
        beat_n: matrix.found_n() + matrix.missed_n(),
        found_n: matrix.found_n(),
        missed_n: matrix.missed_n(),
        extra_n: matrix.extra_n(),
        ratios: evaluation.ratios().iter().map(|(name, ratio)| (*name, ratio(matrix))).collect(),
        rr_error_ms,
        matrix: matrix.cells,
    };
    let views = evaluation.views.iter().map(|view| {
        let averages = evaluation
            .ratios()
            .iter()
            .map(|(name, ratio)| (*name, view.average(|scores| ratio(&scores.comparison.matrix))));
        let average_error = ("rr_error_ms", view.average(RecordScores::interval_error_ms));
        let kinds = RUN_KINDS.into_iter().filter(|_| !evaluation.is_detection_only);
        let runs = kinds.map(|(name, ectopy)| {
            let figures = view.runs(ectopy).figures().map(|(part, whole)| [part, whole]);
            (name, RUN_RATIOS.into_iter().zip(figures).collect())
        });
        let records = view
            .records
            .iter()
            .map(|scores| (scores.record.as_str(), figures(&scores.comparison.matrix, scores.interval_error_ms())));
        ViewSummary {
            view: view.name,
            start_s: view.start_s,
            gross: figures(&view.matrix(), None),
            average: averages.chain([average_error]).collect(),
            runs: runs.collect(),
            records: records.collect(),
        }
    });
    Summary {
        format: 1,
        reference: &params.reference_name,
        test: &params.test_name,
        is_detection_only: evaluation.is_detection_only,
        match_window_ms: params.match_window_ms,
        end_s: params.end_s,
        notes: &evaluation.notes,
        views: views.collect(),
    }
}
