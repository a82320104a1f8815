//! Owns the text of the WFDB tools: the line formats and reports of `bxb` and `rxr`, and the summaries of `sumstats`,
//! byte for byte as version 10.7 writes them, so that `sumstats` and every script for these files read them.
//!
//! Formats: bxb(1), rxr(1) and sumstats(1) of the WFDB Applications Guide, tables 3, A.2, A.3 and A.7 of ANSI/AAMI
//! EC57. What they call by a letter: rows are capitals (reference), columns are small letters (test); a prime marks a
//! sum, `Nn'` being all N beats found as N, F or Q.
//!
//! Invariant: what is written equals the files of the C tools on 48 records and three annotators
//! (`golden_tests::beat_by_beat_files_are_those_of_bxb`, `golden_tests::run_by_run_files_are_those_of_rxr`).
//!
//! It counts nothing.

use std::fmt::Write;

use super::{
    beat_by_beat::{Comparison, Matrix, NONE, SHUTDOWN},
    run_by_run::{Ectopy, RunCounts, Runs},
};
use crate::aami::AamiClass::{self, F, N, Q, S, V};

/// Whether supraventricular ectopic beats have a class of their own (`-L`, `-S`) or are N (`-l`, `-s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sveb {
    /// They are N.
    AreNormal,
    /// They are S.
    Apart,
}

impl Sveb {
    /// Classes in the order of the tools.
    fn classes(self) -> &'static [AamiClass] {
        match self {
            Self::AreNormal => &[N, V, F, Q],
            Self::Apart => &[N, S, V, F, Q],
        }
    }

    fn matrix(self, matrix: &Matrix) -> Matrix {
        match self {
            Self::AreNormal => matrix.without_sveb(),
            Self::Apart => *matrix,
        }
    }
}

/// The scores of one record.
#[derive(Clone, Debug)]
pub struct Scored<'a> {
    /// The record's name.
    pub record: &'a str,
    /// Samples per second.
    pub sampling_frequency_hz: f64,
    /// What was counted.
    pub comparison: &'a Comparison,
}

/// `bxb -l FILE1` or `bxb -L FILE1`: one line a record.
#[must_use]
pub fn beat_lines(records: &[Scored<'_>], sveb: Sveb) -> String {
    let mut text = String::from(match sveb {
        Sveb::AreNormal => "Record Nn' Vn' Fn' On'  Nv   Vv  Fv' Ov' No' Vo' Fo'  Q Se   Q +P   V Se   V +P  V FPR\n",
        Sveb::Apart => {
            "Record Nn' Sn' Vn' Fn' On'  Ns  Ss  Vs  Fs' Os' Nv  Sv   Vv  Fv' Ov' No' So' Vo' Fo'  Q Se   Q +P   V Se   V +P   S Se   S +P RR err\n"
        }
    });
    for scored in records {
        let matrix = sveb.matrix(&scored.comparison.matrix);
        let condensed = Condensed::of(&matrix, sveb);
        let _ = write!(text, "{:>4}", scored.record);
        condensed.write_cells(&mut text, 5);
        for ratio in beat_ratios(&matrix, sveb) {
            ratio.write_column(&mut text);
        }
        if sveb == Sveb::Apart {
            match scored.comparison.interval_error_ms(scored.sampling_frequency_hz) {
                Some(error_ms) => _ = write!(text, " {error_ms:6.2}"),
                None => text.push_str("     -"),
            }
        }
        text.push('\n');
    }
    text
}

/// `bxb -l ... FILE2` or `bxb -L ... FILE2`: beats missed in shutdown, one line a record.
#[must_use]
pub fn shutdown_lines(records: &[Scored<'_>], sveb: Sveb) -> String {
    let mut text = String::from(match sveb {
        Sveb::AreNormal => {
            "Record Nx   Vx   Fx   Qx  % beats  % N    % V    % F   Total Shutdown\n                           missed missed missed missed      Time\n"
        }
        Sveb::Apart => {
            "Record Nx   Sx   Vx   Fx   Qx  % beats  % N    % S    % V    % F   Total Shutdown\n                                missed missed missed missed missed      Time\n"
        }
    });
    for scored in records {
        let matrix = sveb.matrix(&scored.comparison.matrix);
        let _ = write!(text, "{:>4}", scored.record);
        for class in sveb.classes() {
            let _ = write!(text, " {:4}", matrix.cells[class.index()][SHUTDOWN]);
        }
        text.push_str("  ");
        for (_, ratio) in shutdown_ratios(&matrix, sveb) {
            ratio.write_column(&mut text);
        }
        let _ = write!(text, "{:5} seconds", scored.comparison.shutdown_s(scored.sampling_frequency_hz));
        for class in AamiClass::ALL {
            let _ = write!(text, " {}", matrix.reference_n(class));
        }
        text.push('\n');
    }
    text
}

/// `bxb -s FILE` or `bxb -S FILE`: the whole matrix and the figures of one record.
#[must_use]
pub fn beat_report(scored: &Scored<'_>, reference: &str, test: &str, sveb: Sveb) -> String {
    let matrix = sveb.matrix(&scored.comparison.matrix);
    let mut text = format!(
        "Beat-by-beat comparison results for record {}\nReference annotator: {reference}\n     Test annotator: {test}\n\n",
        scored.record
    );
    text.push_str("               Algorithm\n        ");
    let columns = sveb.classes().iter().map(|class| class.letter().to_ascii_lowercase());
    let columns: Vec<String> = columns.chain(["o".to_owned(), "x".to_owned()]).collect();
    let _ = writeln!(text, "{}", columns.join("    "));
    let _ = writeln!(text, "   {}", "_".repeat(5 * columns.len() + 1));
    let places: Vec<usize> = sveb.classes().iter().map(|class| class.index()).collect();
    let rows = sveb.classes().iter().map(|class| (class.letter(), class.index(), true));
    for (letter, row, is_beat) in rows.chain([("O", NONE, false), ("X", SHUTDOWN, false)]) {
        let _ = write!(text, " {letter} |");
        let others: &[usize] = if is_beat { &[NONE, SHUTDOWN] } else { &[] };
        for &column in places.iter().chain(others) {
            let _ = write!(text, " {:4}", matrix.cells[row][column]);
        }
        text.push('\n');
    }
    text.push('\n');
    let names = ["QRS sensitivity", "QRS positive predictivity", "VEB sensitivity", "VEB positive predictivity"];
    let names = names.into_iter().chain(
        match sveb {
            Sveb::AreNormal => ["VEB false positive rate"].as_slice(),
            Sveb::Apart => ["SVEB sensitivity", "SVEB positive predictivity"].as_slice(),
        }
        .iter()
        .copied(),
    );
    for (name, ratio) in names.zip(beat_ratios(&matrix, sveb)) {
        ratio.write_line(&mut text, name);
    }
    match (sveb, scored.comparison.interval_error_ms(scored.sampling_frequency_hz)) {
        (Sveb::AreNormal, _) => {}
        (Sveb::Apart, Some(error_ms)) => _ = write!(text, "     RMS RR interval error: {error_ms:6.2} ms"),
        (Sveb::Apart, None) => text.push_str("     RMS RR interval error:      -"),
    }
    text.push('\n');
    text
}

/// What `bxb` writes behind [`beat_report`] on the standard output: beats missed in shutdown.
#[must_use]
pub fn shutdown_report(scored: &Scored<'_>, sveb: Sveb) -> String {
    let mut text = String::from("\n");
    for (name, ratio) in shutdown_ratios(&sveb.matrix(&scored.comparison.matrix), sveb) {
        ratio.write_line(&mut text, &format!("{name} missed in shutdown"));
    }
    let seconds = scored.comparison.shutdown_s(scored.sampling_frequency_hz);
    let _ = writeln!(text, "       Total shutdown time: {seconds:5} seconds");
    text
}

/// `sumstats` on the lines of [`beat_lines`].
#[must_use]
pub fn beat_summary(records: &[Scored<'_>], sveb: Sveb) -> String {
    let mut text = beat_lines(records, sveb);
    let condensed: Vec<Condensed> =
        records.iter().map(|scored| Condensed::of(&sveb.matrix(&scored.comparison.matrix), sveb)).collect();
    let mut sum = Condensed { cells: [[0; 4]; 5], sveb };
    condensed.iter().for_each(|one| sum.add(one));
    let (rule_n, indent_n) = match sveb {
        Sveb::AreNormal => (86, 54),
        Sveb::Apart => (132, 83),
    };
    let _ = write!(text, "{}\nSum{}", "_".repeat(rule_n), if sveb == Sveb::AreNormal { " " } else { "" });
    sum.write_cells(&mut text, 6);
    let _ = write!(text, "\n{:indent_n$}", "Gross");
    let decimals = |figure: usize| if figure == 4 && sveb == Sveb::AreNormal { 3 } else { 2 };
    for (figure, (part, whole)) in sum.figures().into_iter().enumerate() {
        Ratio { part: part as f64, whole: whole as f64, decimals: decimals(figure) }.write_column(&mut text);
    }
    let _ = write!(text, "\n{:indent_n$}", "Average");
    for figure in 0..sum.figures().len() {
        let figures = condensed.iter().map(|one| one.figures()[figure]).filter(|(_, whole)| *whole > 0);
        let (ratios, record_n) = figures
            .fold((0.0, 0), |(ratios, record_n), (part, whole)| (ratios + part as f64 / whole as f64, record_n + 1));
        Ratio { part: ratios, whole: f64::from(record_n), decimals: decimals(figure) }.write_column(&mut text);
    }
    if sveb == Sveb::Apart {
        // As printed: `sumstats` has nothing but the lines.
        let errors =
            records.iter().filter_map(|scored| scored.comparison.interval_error_ms(scored.sampling_frequency_hz));
        let errors = errors.map(|error_ms| format!("{error_ms:.2}").parse::<f64>().expect("it was just written"));
        let (sum, record_n) = errors.fold((0.0, 0), |(sum, record_n), error_ms| (sum + error_ms, record_n + 1));
        Ratio { part: sum / 100.0, whole: f64::from(record_n), decimals: 2 }.write_column(&mut text);
    }
    let (veb_n, sveb_n) = (sum.figures()[2].1, sum.figures().get(4).map_or(0, |(_, whole)| *whole));
    let _ = write!(text, "\nTotal QRS complexes: {}  Total VEBs: {veb_n}", sum.figures()[0].1);
    if sveb == Sveb::Apart {
        let _ = write!(text, "  Total SVEBs: {sveb_n}");
    }
    text.push('\n');
    write_record_count(&mut text, records.len());
    text
}

const RUN_HEADER: &str = "Record CTs CFN CTp CFP STs SFN STp SFP LTs LFN LTp LFP  CSe C+P SSe S+P LSe L+P\n";

/// `rxr -L FILE1` (ventricular runs) or `rxr -L ... FILE2` (supraventricular ones): one line a record.
#[must_use]
pub fn run_lines(records: &[(&str, Runs)], ectopy: Ectopy) -> String {
    let mut text = String::new();
    if ectopy == Ectopy::Supraventricular {
        text.push_str("(SVE run detection)\n");
    }
    text.push_str(RUN_HEADER);
    for (record, runs) in records {
        let _ = write!(text, "{record:>4}");
        for counts in runs.classes() {
            let _ =
                write!(text, " {:3} {:3} {:3} {:3}", counts.found_n, counts.missed_n, counts.right_n, counts.false_n);
        }
        text.push(' ');
        for (part, whole) in runs.figures() {
            match whole {
                0 => text.push_str("   -"),
                // Rounded as `rxr` does: halves go up.
                _ => _ = write!(text, " {:3}", (100.0 * part as f64 / whole as f64 + 0.5).floor()),
            }
        }
        text.push('\n');
    }
    text
}

/// `sumstats` on the lines of [`run_lines`].
#[must_use]
pub fn run_summary(records: &[(&str, Runs)], ectopy: Ectopy) -> String {
    let mut sum = Runs::default();
    records.iter().for_each(|(_, runs)| sum.add(runs));
    let mut text = format!("{}{}\nSum  ", run_lines(records, ectopy), "_".repeat(77));
    for (place, count) in sum.classes().iter().flat_map(RunCounts::cells).enumerate() {
        let width = if place == 0 { 4 } else { 3 };
        let _ = write!(text, " {count:width$}");
    }
    let _ = write!(text, "\n{:55}", "Gross");
    let write_ratio = |text: &mut String, part: f64, whole: f64| {
        if whole > 0.0 {
            let _ = write!(text, " {:3.0}", 100.0 * part / whole);
        } else {
            text.push_str("   -");
        }
    };
    for (part, whole) in sum.figures() {
        write_ratio(&mut text, part as f64, whole as f64);
    }
    let _ = write!(text, "\n{:55}", "Average");
    for figure in 0..sum.figures().len() {
        let figures = records.iter().map(|(_, runs)| runs.figures()[figure]).filter(|(_, whole)| *whole > 0);
        let ratios: Vec<f64> = figures.map(|(part, whole)| part as f64 / whole as f64).collect();
        write_ratio(&mut text, ratios.iter().sum(), ratios.len() as f64);
    }
    let [couplets, short, long] = sum.classes().map(|counts| counts.found_n + counts.missed_n);
    let _ = writeln!(text, "\nTotal couplets: {couplets}  Total short runs: {short}  Total long runs: {long}");
    write_record_count(&mut text, records.len());
    text
}

fn write_record_count(text: &mut String, record_n: usize) {
    let _ = writeln!(text, "\nSummary of results from {record_n} record{}", if record_n == 1 { "" } else { "s" });
}

/// Part of a whole, printed in percent; `-` of nothing.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    // Whole numbers, but for averages; so that they print as such.
    part: f64,
    whole: f64,
    decimals: usize,
}

impl Ratio {
    fn of(part: u64, whole: u64) -> Self {
        Self { part: part as f64, whole: whole as f64, decimals: 2 }
    }

    fn percent(self) -> Option<f64> {
        (self.whole > 0.0).then(|| 100.0 * self.part / self.whole)
    }

    fn write_column(self, text: &mut String) {
        let decimals = self.decimals;
        match self.percent() {
            Some(percent) => _ = write!(text, " {percent:6.decimals$}"),
            None => text.push_str("      -"),
        }
    }

    fn write_line(self, text: &mut String, name: &str) {
        let decimals = self.decimals;
        match self.percent() {
            Some(percent) => _ = write!(text, "{name:>26}: {percent:6.decimals$}%"),
            None => _ = write!(text, "{name:>26}:      - "),
        }
        let _ = writeln!(text, " ({}/{})", self.part, self.whole);
    }
}

/// Se and +P of QRS complexes and of VEBs, then the VEB false positive rate, or Se and +P of SVEBs.
fn beat_ratios(matrix: &Matrix, sveb: Sveb) -> Vec<Ratio> {
    let found_n = matrix.found_n();
    let (veb_n, veb_predicted_n) = matrix.predicted(V);
    let mut ratios = vec![
        Ratio::of(found_n, found_n + matrix.missed_n()),
        Ratio::of(found_n, found_n + matrix.extra_n()),
        Ratio::of(veb_n, matrix.reference_n(V)),
        Ratio::of(veb_n, veb_predicted_n),
    ];
    match sveb {
        Sveb::AreNormal => {
            let false_n = veb_predicted_n - veb_n;
            let others = [N, S, F, Q].map(AamiClass::index);
            let true_n = matrix.sum(&[others.as_slice(), &[NONE, SHUTDOWN]].concat(), &others);
            ratios.push(Ratio { decimals: 3, ..Ratio::of(false_n, true_n + false_n) });
        }
        Sveb::Apart => {
            let (sveb_n, sveb_predicted_n) = matrix.predicted(S);
            ratios.push(Ratio::of(sveb_n, matrix.reference_n(S)));
            ratios.push(Ratio::of(sveb_n, sveb_predicted_n));
        }
    }
    ratios
}

/// Beats missed in shutdown: all but S, as `bxb` has it, and those of each class but Q.
fn shutdown_ratios(matrix: &Matrix, sveb: Sveb) -> Vec<(&'static str, Ratio)> {
    let all_n = matrix.sum(&[N, V, F, Q].map(AamiClass::index), &[SHUTDOWN]);
    let classes =
        sveb.classes().iter().filter(|class| **class != Q).map(|class| {
            (class.letter(), Ratio::of(matrix.cells[class.index()][SHUTDOWN], matrix.reference_n(*class)))
        });
    let all = ("Beats", Ratio::of(all_n, matrix.found_n() + matrix.missed_n()));
    std::iter::once(all).chain(classes).collect()
}

/// A matrix in which F and Q are one, what no reference beat stands for is one row, what was not found one column, and
/// beats taken for N, F or Q are one column.
#[derive(Clone, Copy, Debug)]
struct Condensed {
    /// Rows N, S, V, F, O; columns n, s, v, o.
    cells: [[u64; 4]; 5],
    sveb: Sveb,
}

impl Condensed {
    fn of(matrix: &Matrix, sveb: Sveb) -> Self {
        let row = |place: usize| place.min(F.index()) + usize::from(place >= NONE);
        let column = |place: usize| match place {
            NONE | SHUTDOWN => 3,
            place if place == S.index() => 1,
            place if place == V.index() => 2,
            _ => 0,
        };
        let mut cells = [[0; 4]; 5];
        for (reference, counts) in matrix.cells.iter().enumerate() {
            for (test, count) in counts.iter().enumerate() {
                cells[row(reference)][column(test)] += count;
            }
        }
        Self { cells, sveb }
    }

    fn add(&mut self, other: &Self) {
        let cells = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        cells.for_each(|(cell, more)| *cell += more);
    }

    /// Column by column; the first cell is wider, and that of VEBs found.
    fn write_cells(&self, text: &mut String, first_width: usize) {
        let is_shown = |place: usize| self.sveb == Sveb::Apart || place != 1;
        for column in (0..4).filter(|place| is_shown(*place)) {
            for row in (0..5).filter(|place| is_shown(*place)) {
                let width = match (row, column) {
                    (0, 0) => first_width,
                    (2, 2) => 4,
                    // Nobody misses what is no beat.
                    (4, 3) => continue,
                    _ => 3,
                };
                let _ = write!(text, " {:width$}", self.cells[row][column]);
            }
        }
    }

    /// What [`beat_ratios`] has, as `sumstats` counts it: fusion beats taken for S are no errors there.
    fn figures(&self) -> Vec<(u64, u64)> {
        let [n, s, v, f, o] = self.cells;
        let beats = [n, s, v, f];
        let found_n: u64 = beats.iter().map(|row| row[..3].iter().sum::<u64>()).sum();
        let missed_n: u64 = beats.iter().map(|row| row[3]).sum();
        let extra_n: u64 = o[..3].iter().sum();
        let mut figures = vec![
            (found_n, found_n + missed_n),
            (found_n, found_n + extra_n),
            (v[2], v.iter().sum()),
            (v[2], n[2] + s[2] + v[2] + o[2]),
        ];
        match self.sveb {
            Sveb::AreNormal => figures.push((n[2] + o[2], n[0] + f[0] + o[0] + n[2] + o[2])),
            Sveb::Apart => figures.extend([(s[1], s.iter().sum()), (s[1], n[1] + s[1] + v[1] + o[1])]),
        }
        figures
    }
}
