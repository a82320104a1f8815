//! Owns the report files: `report.md` for people, `report.csv` for tables, `report.json` for programs.
//!
//! It only writes down what an [`Evaluation`] says; a ratio of nothing to nothing is `-` (empty in CSV, null in JSON).

use std::fmt::Write;

use ecgpipe_sdk::NamedFile;
use serde::Serialize;

use super::{
    Evaluation, Group, Interval, MACROS, Matrix, Params, PartEvaluation, View,
    bootstrap::CONFIDENCE,
    column_name,
    matrix::{EXTRA, MISSED},
    row_name,
};
use crate::aami::{AamiClass, EscapeRule};

/// All report files.
pub(super) fn files(evaluation: &Evaluation, params: &Params) -> Vec<NamedFile> {
    let mut json = serde_json::to_vec_pretty(&json(evaluation)).expect("plain data");
    json.push(b'\n');
    vec![
        NamedFile { name: "report.md".to_owned(), bytes: markdown(evaluation, params).into_bytes() },
        NamedFile { name: "report.csv".to_owned(), bytes: csv(evaluation).into_bytes() },
        NamedFile { name: "report.json".to_owned(), bytes: json },
    ]
}

fn markdown(evaluation: &Evaluation, params: &Params) -> String {
    let mut text = String::from("# Evaluation by AAMI classes\n\n");
    let _ = writeln!(
        text,
        "Split `{}`; main figures: escape-beat rule `{}`, view `{}`.\n",
        evaluation.strategy,
        params.escape_rule.as_str(),
        params.view.as_str()
    );
    for part in &evaluation.parts {
        part_section(&mut text, part, params);
    }
    text.push_str("## How it was counted\n\n");
    for note in &evaluation.notes {
        let _ = writeln!(text, "- {note}");
    }
    let names =
        |records: &[ecgpipe_sdk::RecordId]| records.iter().map(|record| record.as_str()).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "- Escape beats (`e`, `j`, `n`) are N under `de_chazal` (de Chazal 2004) and S under `ec57` (as `bxb` counts).\n\
         - View `all`: every record of the part. View `aami`: without paced records ({}).\n\
         - View `without_dominating`: also without records that decide a class alone ({}).\n\
         - View `after_learning_period`: as `aami`, without the first {} s of each record.\n\
         - Gross figures pool all beats; an average is the mean over the records that have the ratio, so that every patient \
         counts alike.\n\
         - A missed beat, or one without a prediction, is a false negative of its class and wrong in the accuracy. A detected \
         beat without a reference beat (`extra`) is a false positive of the class it was taken for.\n\
         - `-` is a ratio of nothing to nothing. A macro-F1 exists only where each of its classes has an F1.\n\
         - EC57 +P: F and Q beats taken for V, and Q beats taken for S, are not counted as errors (ANSI/AAMI EC57, `bxb`).\n\
         - Decision support, not a diagnosis: these figures say how often labels agree with a reference, on these records.\n",
        names(&params.paced_records),
        names(&params.dominating_records),
        params.learning_period_s
    );
    text
}

fn part_section(text: &mut String, part: &PartEvaluation, params: &Params) {
    let main = part.group(params.view, params.escape_rule);
    let name = match part.name == part.part.as_str() {
        true => format!("Part `{}`", part.name),
        false => format!("`{}` (part `{}`)", part.name, part.part.as_str()),
    };
    let _ = writeln!(text, "## {name}: {} records, {} beats\n", main.records.len(), main.gross.beat_n());
    if main.gross.beat_n() == 0 {
        text.push_str("No labelled beat of this part is in the main view.\n\n");
    }
    summary(text, part, params);
    intervals(text, part, params);
    matrix(text, &main.gross);
    classes(text, main);
    records(text, main);
}

/// One line for each view and rule.
fn summary(text: &mut String, part: &PartEvaluation, params: &Params) {
    text.push_str("Accuracy and F1 in %, gross:\n\n");
    text.push_str("| view | rule | beats | accuracy | N | S | V | F | Q | macro NSV | macro NSVF | macro all |\n");
    text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for group in &part.groups {
        let main = (group.view, group.rule) == (params.view, params.escape_rule);
        let mark = if main { "**" } else { "" };
        let _ = write!(
            text,
            "| {mark}{}{mark} | {} | {} | {} |",
            group.view.as_str(),
            group.rule.as_str(),
            group.gross.beat_n(),
            percent(group.gross.accuracy())
        );
        for class in AamiClass::ALL {
            let _ = write!(text, " {} |", percent(group.gross.f1(class)));
        }
        for (_, classes) in MACROS {
            let _ = write!(text, " {} |", percent(group.gross.macro_f1(classes)));
        }
        text.push('\n');
    }
    text.push('\n');
}

/// Where the main figures lie in most draws of patients.
fn intervals(text: &mut String, part: &PartEvaluation, params: &Params) {
    if part.intervals.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "{:.0} % intervals of the main view, in %, over {} draws of as many patients as there are:\n",
        100.0 * CONFIDENCE,
        params.bootstrap_n
    );
    text.push_str("| figure | from | to |\n|---|--:|--:|\n");
    for Interval { name, low, high } in &part.intervals {
        let shown = match name.strip_prefix("f1_") {
            Some(class) => format!("F1 {}", class.to_ascii_uppercase()),
            None => name.replace("_f1", " F1").replace("F1_", "F1 ").replace("nsv", "NSV").replace("NSVf", "NSVF"),
        };
        let _ = writeln!(text, "| {shown} | {} | {} |", percent(Some(*low)), percent(Some(*high)));
    }
    text.push('\n');
}

fn matrix(text: &mut String, matrix: &Matrix) {
    text.push_str("Confusion matrix (rows: reference, columns: predicted):\n\n| |");
    (0..=MISSED).for_each(|column| text.push_str(&format!(" {} |", column_name(column))));
    text.push_str(" total |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (place, row) in matrix.cells.iter().enumerate() {
        let _ = write!(text, "| **{}** |", row_name(place));
        for (column, count) in row.iter().enumerate() {
            if (place, column) == (EXTRA, MISSED) {
                text.push_str(" |");
            } else {
                let _ = write!(text, " {count} |");
            }
        }
        let _ = writeln!(text, " {} |", row.iter().sum::<i64>());
    }
    text.push('\n');
}

fn classes(text: &mut String, group: &Group) {
    text.push_str("Per class, in %:\n\n");
    text.push_str("| class | beats | TP | FN | FP | Se | +P | F1 | average Se | average +P | EC57 +P |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for class in AamiClass::ALL {
        let gross = &group.gross;
        let ec57 = match class {
            AamiClass::S => percent(gross.ec57_sveb_predictivity()),
            AamiClass::V => percent(gross.ec57_veb_predictivity()),
            AamiClass::N | AamiClass::F | AamiClass::Q => String::new(),
        };
        let _ = writeln!(
            text,
            "| {class} {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {ec57} |",
            class.name(),
            gross.reference_n(class),
            gross.true_positives(class),
            gross.false_negatives(class),
            gross.false_positives(class),
            percent(gross.sensitivity(class)),
            percent(gross.predictivity(class)),
            percent(gross.f1(class)),
            percent(group.average(|matrix| matrix.sensitivity(class))),
            percent(group.average(|matrix| matrix.predictivity(class))),
        );
    }
    let _ = writeln!(
        text,
        "\nMissed beats: {}; detected beats without a reference: {}.\n",
        group.gross.missed_n(),
        group.gross.extra_n()
    );
}

fn records(text: &mut String, group: &Group) {
    text.push_str("Per record, accuracy, Se and +P in %:\n\n");
    text.push_str(
        "| record | beats | accuracy | S beats | S Se | S +P | V beats | V Se | V +P | F beats | F Se | F +P |\n",
    );
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (record, matrix) in &group.records {
        let _ = write!(text, "| {record} | {} | {} |", matrix.beat_n(), percent(matrix.accuracy()));
        for class in [AamiClass::S, AamiClass::V, AamiClass::F] {
            let _ = write!(
                text,
                " {} | {} | {} |",
                matrix.reference_n(class),
                percent(matrix.sensitivity(class)),
                percent(matrix.predictivity(class))
            );
        }
        text.push('\n');
    }
    text.push('\n');
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}", 100.0 * ratio))
}

/// One line for each part, view, rule, record (`*` for the gross figures) and class.
fn csv(evaluation: &Evaluation) -> String {
    let mut text = String::from("part,view,escape_rule,record,class,beat_n,tp,fn,fp,missed,se,ppv,f1\n");
    let number = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.6}"));
    for part in &evaluation.parts {
        for group in &part.groups {
            let records = group.records.iter().map(|(record, matrix)| (record.as_str(), matrix));
            for (record, matrix) in [("*", &group.gross)].into_iter().chain(records) {
                for class in AamiClass::ALL {
                    let _ = writeln!(
                        text,
                        "{},{},{},{record},{class},{},{},{},{},{},{},{},{}",
                        part.part.as_str(),
                        group.view.as_str(),
                        group.rule.as_str(),
                        matrix.reference_n(class),
                        matrix.true_positives(class),
                        matrix.false_negatives(class),
                        matrix.false_positives(class),
                        matrix.cells[class.index()][MISSED],
                        number(matrix.sensitivity(class)),
                        number(matrix.predictivity(class)),
                        number(matrix.f1(class)),
                    );
                }
            }
        }
    }
    text
}

/// The JSON report. `format` counts up when a field changes its meaning.
#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    strategy: &'a str,
    classes: Vec<ClassName>,
    rows: Vec<&'static str>,
    columns: Vec<&'static str>,
    notes: &'a [String],
    groups: Vec<GroupReport<'a>>,
}

#[derive(Serialize)]
struct ClassName {
    letter: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct GroupReport<'a> {
    part: &'static str,
    view: View,
    escape_rule: EscapeRule,
    gross: MatrixReport<'a>,
    records: std::collections::BTreeMap<&'a str, MatrixReport<'a>>,
}

#[derive(Serialize)]
struct MatrixReport<'a> {
    beat_n: i64,
    missed_n: i64,
    extra_n: i64,
    accuracy: Option<f64>,
    macro_f1_nsv: Option<f64>,
    macro_f1_nsvf: Option<f64>,
    macro_f1: Option<f64>,
    /// In the order of `classes`.
    se: [Option<f64>; 5],
    ppv: [Option<f64>; 5],
    f1: [Option<f64>; 5],
    ec57_ppv_v: Option<f64>,
    ec57_ppv_s: Option<f64>,
    /// `rows` by `columns`.
    matrix: &'a [[i64; 6]; 6],
}

fn json(evaluation: &Evaluation) -> Report<'_> {
    let groups = evaluation.parts.iter().flat_map(|part| {
        part.groups.iter().map(|group| GroupReport {
            part: part.part.as_str(),
            view: group.view,
            escape_rule: group.rule,
            gross: matrix_report(&group.gross),
            records: group.records.iter().map(|(record, matrix)| (record.as_str(), matrix_report(matrix))).collect(),
        })
    });
    Report {
        format: 1,
        strategy: &evaluation.strategy,
        classes: AamiClass::ALL.iter().map(|class| ClassName { letter: class.letter(), name: class.name() }).collect(),
        rows: (0..=EXTRA).map(row_name).collect(),
        columns: (0..=MISSED).map(column_name).collect(),
        notes: &evaluation.notes,
        groups: groups.collect(),
    }
}

fn matrix_report(matrix: &Matrix) -> MatrixReport<'_> {
    let [nsv, nsvf, all] = MACROS.map(|(_, classes)| matrix.macro_f1(classes));
    MatrixReport {
        beat_n: matrix.beat_n(),
        missed_n: matrix.missed_n(),
        extra_n: matrix.extra_n(),
        accuracy: matrix.accuracy(),
        macro_f1_nsv: nsv,
        macro_f1_nsvf: nsvf,
        macro_f1: all,
        se: AamiClass::ALL.map(|class| matrix.sensitivity(class)),
        ppv: AamiClass::ALL.map(|class| matrix.predictivity(class)),
        f1: AamiClass::ALL.map(|class| matrix.f1(class)),
        ec57_ppv_v: matrix.ec57_veb_predictivity(),
        ec57_ppv_s: matrix.ec57_sveb_predictivity(),
        matrix: &matrix.cells,
    }
}
