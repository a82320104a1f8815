//! Owns what one annotator says of a record, as ANSI/AAMI EC57 reads it: beats with their classes, stretches of
//! ventricular fibrillation, stretches that are not readable, and the marks that begin and end runs of ectopic beats.
//!
//! The rules are those of the standard's reference programs `bxb` (beats) and `rxr` (runs) of WFDB 10.7, described in
//! the WFDB Applications Guide:
//!
//! - Beats between `[` and `]` (ventricular fibrillation or flutter) are not beats.
//! - Shutdown, which is where no signal is readable, begins with a `~` that has bits 4 and 5 of its subtype set and
//!   ends with the next annotation if that is a `~` without them. A `~` that is alone stands in the middle of its
//!   stretch, as in the AHA database: from one match window behind the beat before it to one before the annotation
//!   after it.
//! - For runs, normal beats within atrial fibrillation (rhythm `(AF...`) are supraventricular, and fibrillation of the
//!   ventricles (`[`, or a rhythm `(VF...`) is a run of the greatest length.
//!
//! Two malformed inputs are read by their meaning where `bxb` depends on what else it has just read: an episode without
//! an end lasts to the end of the record, and flutter waves (`!`) outside of `[` and `]` are no beats.
//!
//! It must not know the other annotator.

use crate::aami::{AamiClass, EscapeRule};

/// Behind every sample: where an episode without an end mark ends.
const OPEN_END: i64 = i64::MAX;
/// Bits of the subtype of a `~`, one for each of two signals.
const BOTH_SIGNALS_UNREADABLE: i32 = 0x30;

/// An annotation, as far as scores depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark<'a> {
    /// Position.
    pub sample_idx: i64,
    /// WFDB symbol.
    pub symbol: &'a str,
    /// WFDB `subtyp`.
    pub subtype: i32,
    /// WFDB `aux`.
    pub aux: &'a str,
}

/// A stretch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The first sample.
    pub start_idx: i64,
    /// The last sample.
    pub end_idx: i64,
}

/// What an annotator says of a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotator {
    /// Positions of the beats outside of ventricular fibrillation, in ascending order.
    pub beats: Vec<i64>,
    /// Their classes.
    pub classes: Vec<AamiClass>,
    /// The interval from the beat before each, in samples; `None` where there is none to measure: at the first beat,
    /// after a beat at sample 0, and where ventricular fibrillation or shutdown begins in between.
    pub intervals_n: Vec<Option<i64>>,
    /// Ventricular fibrillation or flutter.
    pub fibrillation: Vec<Episode>,
    /// Where no signal is readable.
    pub shutdown: Vec<Episode>,
    /// What begins, continues or ends a run.
    pub run_marks: Vec<(i64, RunMark)>,
}

/// What an annotation means for runs of ectopic beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMark {
    /// A ventricular ectopic or fusion beat.
    Ventricular,
    /// A supraventricular ectopic beat, or a normal one within atrial fibrillation.
    Supraventricular,
    /// Any other beat.
    OtherBeat,
    /// Shutdown begins.
    Unreadable,
    /// Fibrillation of the ventricles begins.
    FibrillationStart,
    /// It ends.
    FibrillationEnd,
    /// Atrial fibrillation begins.
    AtrialStart,
    /// It ends.
    AtrialEnd,
}

impl Annotator {
    /// Reads annotations, which are in time order. `window_n` is the match window in samples.
    #[must_use]
    pub fn read(marks: &[Mark<'_>], window_n: i64) -> Self {
        let mut read = Self { run_marks: run_marks(marks), ..Self::default() };
        let mut rest = marks.iter().peekable();
        while let Some(mark) = rest.next() {
            if mark.symbol == "[" {
                let end = rest.by_ref().find(|mark| mark.symbol == "]");
                let end_idx = end.map_or(OPEN_END, |mark| mark.sample_idx);
                read.fibrillation.push(Episode { start_idx: mark.sample_idx, end_idx });
            } else if is_shutdown(mark) {
                let next = rest.peek().copied();
                let episode = match next {
                    None => Episode { start_idx: mark.sample_idx, end_idx: OPEN_END },
                    Some(next) if next.symbol == "~" && !is_shutdown(next) => {
                        rest.next();
                        Episode { start_idx: mark.sample_idx, end_idx: next.sample_idx }
                    }
                    Some(next) => read.shutdown_around(next.sample_idx, window_n),
                };
                read.shutdown.push(episode);
            } else if let Some(class) = EscapeRule::Ec57.class(mark.symbol) {
                read.beats.push(mark.sample_idx);
                read.classes.push(class);
            }
        }
        read.intervals_n = read.intervals_n();
        read
    }

    /// The stretch around a lone shutdown mark whose next annotation is at `next_idx`.
    fn shutdown_around(&self, next_idx: i64, window_n: i64) -> Episode {
        let before_idx = self.beats.last().copied().max(self.fibrillation.last().map(|episode| episode.end_idx));
        let end_idx = next_idx.saturating_sub(window_n);
        Episode { start_idx: before_idx.unwrap_or(0).saturating_add(window_n).min(end_idx), end_idx }
    }

    fn intervals_n(&self) -> Vec<Option<i64>> {
        let episodes = self.fibrillation.iter().chain(&self.shutdown);
        let mut onsets: Vec<i64> = episodes.map(|episode| episode.start_idx).collect();
        onsets.sort_unstable();
        let interval = |pair: &[i64]| {
            let [before, beat] = *pair else { return None };
            let next_onset = onsets.get(onsets.partition_point(|&onset| onset < before));
            let is_interrupted = next_onset.is_some_and(|&onset| onset < beat);
            (before != 0 && beat > before && !is_interrupted).then(|| beat.saturating_sub(before))
        };
        let first = self.beats.first().map(|_| None);
        first.into_iter().chain(self.beats.windows(2).map(interval)).collect()
    }
}

/// Episodes, to be asked for positions.
#[derive(Clone, Debug)]
pub struct Cover {
    /// By start: where an episode starts, and the last sample of all that have started.
    reach: Vec<(i64, i64)>,
}

impl Cover {
    /// Of episodes in any order, which may overlap.
    #[must_use]
    pub fn of(episodes: &[Episode]) -> Self {
        let mut reach: Vec<(i64, i64)> = episodes.iter().map(|episode| (episode.start_idx, episode.end_idx)).collect();
        reach.sort_unstable();
        for place in 1..reach.len() {
            reach[place].1 = reach[place].1.max(reach[place - 1].1);
        }
        Self { reach }
    }

    /// Whether a position is within one of them.
    #[must_use]
    pub fn contains(&self, sample_idx: i64) -> bool {
        let started_n = self.reach.partition_point(|(start_idx, _)| *start_idx <= sample_idx);
        self.reach[..started_n].last().is_some_and(|(_, end_idx)| sample_idx <= *end_idx)
    }
}

fn is_shutdown(mark: &Mark<'_>) -> bool {
    mark.symbol == "~" && mark.subtype & BOTH_SIGNALS_UNREADABLE == BOTH_SIGNALS_UNREADABLE
}

/// Marks that change nothing for runs are left out.
fn run_marks(marks: &[Mark<'_>]) -> Vec<(i64, RunMark)> {
    /// At most one of them is in progress; whichever begins ends the other.
    #[derive(PartialEq)]
    enum Rhythm {
        Other,
        Atrial,
        Ventricular,
    }
    let (mut rhythm, mut is_unreadable) = (Rhythm::Other, false);
    let begin = |next: Rhythm, rhythm: &mut Rhythm| {
        let ended = std::mem::replace(rhythm, next);
        match (ended, &*rhythm) {
            (Rhythm::Atrial, Rhythm::Atrial) | (Rhythm::Ventricular, Rhythm::Ventricular) => None,
            (_, Rhythm::Atrial) => Some(RunMark::AtrialStart),
            (_, Rhythm::Ventricular) => Some(RunMark::FibrillationStart),
            (Rhythm::Atrial, Rhythm::Other) => Some(RunMark::AtrialEnd),
            (Rhythm::Ventricular, Rhythm::Other) => Some(RunMark::FibrillationEnd),
            (Rhythm::Other, Rhythm::Other) => None,
        }
    };
    let mut meaning = |mark: &Mark<'_>| match mark.symbol {
        "[" => begin(Rhythm::Ventricular, &mut rhythm),
        "]" if rhythm == Rhythm::Ventricular => begin(Rhythm::Other, &mut rhythm),
        "+" if mark.aux.is_empty() => None,
        "+" if mark.aux.starts_with("(AF") => begin(Rhythm::Atrial, &mut rhythm),
        "+" if mark.aux.starts_with("(VF") => begin(Rhythm::Ventricular, &mut rhythm),
        "+" => begin(Rhythm::Other, &mut rhythm),
        "~" => {
            let was_unreadable = std::mem::replace(&mut is_unreadable, is_shutdown(mark));
            (is_unreadable && !was_unreadable).then_some(RunMark::Unreadable)
        }
        symbol => EscapeRule::Ec57.class(symbol).map(|class| match class {
            AamiClass::V | AamiClass::F => RunMark::Ventricular,
            AamiClass::S => RunMark::Supraventricular,
            AamiClass::N if rhythm == Rhythm::Atrial => RunMark::Supraventricular,
            AamiClass::N | AamiClass::Q => RunMark::OtherBeat,
        }),
    };
    marks.iter().filter_map(|mark| Some((mark.sample_idx, meaning(mark)?))).collect()
}
