//! Owns the run-by-run comparison of ANSI/AAMI EC57: couplets, short and long runs of ectopic beats that were found,
//! and those that were really there.
//!
//! Method: `rxr` of WFDB 10.7, the reference implementation of the standard (rxr(1), WFDB Applications Guide). A run of
//! one annotator lasts from one match window before its first beat to one behind its last; the other annotator's
//! longest run that lies in there is what it is compared with. Runs of the reference give sensitivity, runs of the test
//! annotator positive predictivity. Lengths stop at 6, which stands for all longer runs and for fibrillation.
//!
//! One difference from `rxr`: an annotator without any annotation in the period has no runs (`rxr` gives up).

use super::{
    annotator::{Annotator, RunMark},
    beat_by_beat::Period,
};

/// Length of a long run: the longest that is told apart.
const LONG: usize = 6;

/// Which runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ectopy {
    /// Of ventricular ectopic and fusion beats.
    Ventricular,
    /// Of supraventricular ectopic beats.
    Supraventricular,
}

/// Runs of one kind and of one class of lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Runs of the reference that the test annotator found.
    pub found_n: u64,
    /// Runs of the reference that it did not find.
    pub missed_n: u64,
    /// Runs of the test annotator that the reference has.
    pub right_n: u64,
    /// Runs of the test annotator that the reference does not have.
    pub false_n: u64,
}

/// What was counted in one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Two beats.
    pub couplets: RunCounts,
    /// Three to five beats.
    pub short: RunCounts,
    /// Six beats or more, and fibrillation.
    pub long: RunCounts,
}

/// Compares the runs of two annotators of a record. `window_n` is the match window in samples.
#[must_use]
pub fn compare(reference: &Annotator, test: &Annotator, period: Period, window_n: i64, ectopy: Ectopy) -> Runs {
    let sensitivity = lengths(&reference.run_marks, &test.run_marks, period, window_n, ectopy);
    let predictivity = lengths(&test.run_marks, &reference.run_marks, period, window_n, ectopy);
    // At least as long as the shortest of the class; a run that is longer than its partner is found all the same.
    let counts = |shortest: usize, longest: usize| {
        let tally = |pairs: &[[u64; LONG + 1]; LONG + 1], is_found: bool| -> u64 {
            let rows = pairs[shortest..=longest].iter();
            rows.flat_map(|row| if is_found { &row[shortest..] } else { &row[..shortest] }).sum()
        };
        RunCounts {
            found_n: tally(&sensitivity, true),
            missed_n: tally(&sensitivity, false),
            right_n: tally(&predictivity, true),
            false_n: tally(&predictivity, false),
        }
    };
    Runs { couplets: counts(2, 2), short: counts(3, 5), long: counts(LONG, LONG) }
}

/// How often a run of `own` (row: its length) met a longest run of `other` (column).
fn lengths(
    own: &[(i64, RunMark)],
    other: &[(i64, RunMark)],
    period: Period,
    window_n: i64,
    ectopy: Ectopy,
) -> [[u64; LONG + 1]; LONG + 1] {
    let mut pairs = [[0; LONG + 1]; LONG + 1];
    let mut search = Search { marks: other, at: 0, fibrillation_end_idx: 0, ectopy };
    let inside = own.partition_point(|(sample_idx, _)| *sample_idx < period.start_idx);
    let end = own.partition_point(|(sample_idx, _)| *sample_idx <= period.end_idx).max(inside);

    // Fibrillation that began before the period is a run from its start.
    let mut before = own[..inside].iter().rev().map(|(_, mark)| ectopy.role(*mark));
    let last = before.find(|role| matches!(role, Role::Opens | Role::Closes | Role::ClosesOther));
    let mut length = if last == Some(Role::Opens) { LONG } else { 0 };
    let (mut start_idx, mut end_idx) = (0, 0);
    if length > 0 {
        start_idx = period.start_idx.saturating_sub(window_n);
        end_idx = period.start_idx.saturating_add(window_n);
    }
    for &(sample_idx, mark) in &own[inside..end] {
        match (ectopy.role(mark), length) {
            (Role::Extends, 0) => {
                length = 1;
                (start_idx, end_idx) = (sample_idx.saturating_sub(window_n), sample_idx.saturating_add(window_n));
            }
            (Role::Extends, _) => {
                length = (length + 1).min(LONG);
                end_idx = sample_idx.saturating_add(window_n);
            }
            (Role::Opens, 0) => {
                length = LONG;
                start_idx = sample_idx.saturating_sub(window_n);
            }
            (Role::Closes, 1..) => end_idx = sample_idx.saturating_add(window_n),
            (Role::Breaks, 1..) => {
                pairs[length][search.longest_run(start_idx, end_idx)] += 1;
                length = 0;
            }
            _ => {}
        }
    }
    // A run that nothing breaks before the annotations end, ends there; one that the period cuts is not counted.
    if length > 0 && end == own.len() {
        pairs[length][search.longest_run(start_idx, end_idx)] += 1;
    }
    pairs
}

/// What a mark does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It is a beat of it.
    Extends,
    /// It ends it.
    Breaks,
    /// Fibrillation of the same chambers begins.
    Opens,
    /// It ends.
    Closes,
    /// Fibrillation of the other chambers begins.
    OpensOther,
    /// It ends.
    ClosesOther,
}

impl Ectopy {
    fn role(self, mark: RunMark) -> Role {
        match (mark, self) {
            (RunMark::Ventricular, Self::Ventricular) | (RunMark::Supraventricular, Self::Supraventricular) => {
                Role::Extends
            }
            (
                RunMark::Ventricular | RunMark::Supraventricular | RunMark::OtherBeat | RunMark::Unreadable,
                Self::Ventricular | Self::Supraventricular,
            ) => Role::Breaks,
            (RunMark::FibrillationStart, Self::Ventricular) | (RunMark::AtrialStart, Self::Supraventricular) => {
                Role::Opens
            }
            (RunMark::FibrillationEnd, Self::Ventricular) | (RunMark::AtrialEnd, Self::Supraventricular) => {
                Role::Closes
            }
            (RunMark::FibrillationStart, Self::Supraventricular) | (RunMark::AtrialStart, Self::Ventricular) => {
                Role::OpensOther
            }
            (RunMark::FibrillationEnd, Self::Supraventricular) | (RunMark::AtrialEnd, Self::Ventricular) => {
                Role::ClosesOther
            }
        }
    }
}

/// The other annotator's marks, read forward once: what was within one run is not seen again by the next.
struct Search<'a> {
    marks: &'a [(i64, RunMark)],
    at: usize,
    /// Where the latest fibrillation that met a run ends.
    fibrillation_end_idx: i64,
    ectopy: Ectopy,
}

impl Search<'_> {
    /// The length of the longest run from `start_idx` to `end_idx`.
    fn longest_run(&mut self, start_idx: i64, end_idx: i64) -> usize {
        if self.fibrillation_end_idx > start_idx {
            return LONG;
        }
        while let Some(role) = self.next_until(start_idx.saturating_sub(1)) {
            if role == Role::Opens {
                let fibrillation_end_idx = self.pass_fibrillation();
                if fibrillation_end_idx > start_idx {
                    self.fibrillation_end_idx = fibrillation_end_idx;
                    return LONG;
                }
            }
        }
        let (mut longest, mut length) = (0, 0);
        while let Some(role) = self.next_until(end_idx) {
            match role {
                Role::Extends => length = (length + 1).min(LONG),
                Role::Breaks | Role::OpensOther => length = 0,
                Role::Opens => {
                    self.fibrillation_end_idx = self.pass_fibrillation();
                    return LONG;
                }
                Role::Closes | Role::ClosesOther => {}
            }
            longest = longest.max(length);
        }
        longest
    }

    /// The next mark, if it is not behind `last_idx`.
    fn next_until(&mut self, last_idx: i64) -> Option<Role> {
        let (_, mark) = self.marks.get(self.at).filter(|(sample_idx, _)| *sample_idx <= last_idx)?;
        self.at += 1;
        Some(self.ectopy.role(*mark))
    }

    /// Reads to the end of a fibrillation and gives its position; behind every sample if nothing ends it.
    fn pass_fibrillation(&mut self) -> i64 {
        let ends = |mark: RunMark| {
            mark == RunMark::Unreadable || matches!(self.ectopy.role(mark), Role::Closes | Role::OpensOther)
        };
        let end = self.marks[self.at..].iter().position(|(_, mark)| ends(*mark));
        let passed = end.and_then(|place| self.marks.get(self.at + place));
        self.at = end.map_or(self.marks.len(), |place| self.at + place + 1);
        passed.map_or(i64::MAX, |(sample_idx, _)| *sample_idx)
    }
}

impl RunCounts {
    /// Found, missed, right, false.
    #[must_use]
    pub fn cells(&self) -> [u64; 4] {
        [self.found_n, self.missed_n, self.right_n, self.false_n]
    }
}

impl Runs {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in
            [(&mut self.couplets, &other.couplets), (&mut self.short, &other.short), (&mut self.long, &other.long)]
        {
            own.found_n += more.found_n;
            own.missed_n += more.missed_n;
            own.right_n += more.right_n;
            own.false_n += more.false_n;
        }
    }

    /// Couplets, short and long runs.
    #[must_use]
    pub fn classes(&self) -> [RunCounts; 3] {
        [self.couplets, self.short, self.long]
    }

    /// Sensitivity and positive predictivity of couplets, short and long runs, each as a part and its whole.
    #[must_use]
    pub fn figures(&self) -> [(u64, u64); 6] {
        let [couplets, short, long] = self.classes().map(|counts| {
            [(counts.found_n, counts.found_n + counts.missed_n), (counts.right_n, counts.right_n + counts.false_n)]
        });
        [couplets[0], couplets[1], short[0], short[1], long[0], long[1]]
    }
}
