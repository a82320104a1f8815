//! Owns what a row of classified beats says about a recording: counts, heart rate, pauses, couplets, runs, bigeminy,
//! trigeminy. Pure: positions and classes in, numbers out.
//!
//! A gap (unreadable signal between two beats) hides beats, so nothing is measured or joined across one: no RR interval, no
//! couplet, no run (`tests::a_gap_joins_nothing`). The same holds for a beat that could not be classified, except that
//! its RR intervals count. It must not know models, files or formats.

use serde::{Serialize, Serializer};

use crate::aami::AamiClass;

/// A beat whose largest probability is lower than this counts as uncertain, where the model does not say better: with five
/// classes, a rival may then be two thirds as likely. A convention of this program, stated wherever it is used.
pub const UNCERTAIN_BELOW: f32 = 0.6;
/// Longer RR intervals are counted: the length from which Holter reports customarily list pauses.
pub const LONG_RR_S: f64 = 2.0;
/// Lowest and highest heart rate are means over this many RR intervals in a row, so that one premature beat or one pause
/// is not a heart rate.
pub const RATE_RR_N: usize = 10;
/// Ectopic beats in a row that make a run; two are a couplet.
pub const RUN_BEAT_N: usize = 3;
/// Single ectopic beats with one (two) normal beats between each that make an episode of bigeminy (trigeminy).
pub const EPISODE_ECTOPIC_N: usize = 3;

/// One beat, as far as rhythm goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beat {
    /// R-peak position in samples.
    pub sample_idx: i64,
    /// The most probable class; `None` if the beat could not be classified.
    pub class: Option<AamiClass>,
    /// Probability of that class; 0 without one.
    pub probability: f32,
    /// Whether the class is a guess: its probability is below the model's bound.
    pub is_uncertain: bool,
    /// Whether the signal between the beat before and this one was unreadable for a while.
    pub is_after_gap: bool,
}

/// What the beats of one recording say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Beats that were found.
    pub beat_n: usize,
    /// Beats that could be classified; percentages are of these.
    pub classified_n: usize,
    /// Beats of each class, in the order of [`AamiClass::ALL`].
    pub classes: Vec<ClassCount>,
    /// Classified beats whose class is a guess.
    pub uncertain_n: usize,
    /// Those of them that are N, and so in no list of flagged beats.
    pub uncertain_normal_n: usize,
    /// `None` if no two beats follow one another.
    pub heart_rate: Option<HeartRate>,
    /// The longest RR interval; the first of equals.
    pub longest_rr: Option<RrInterval>,
    /// RR intervals longer than [`LONG_RR_S`].
    pub long_rr_n: usize,
    /// Ventricular beats.
    pub ventricular: Ectopy,
    /// Supraventricular ectopic beats.
    pub supraventricular: Ectopy,
}

/// How many beats are of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassCount {
    /// The class.
    #[serde(serialize_with = "letter")]
    pub class: AamiClass,
    /// Beats.
    pub beat_n: usize,
    /// Share of the classified beats in percent: the burden, for an ectopic class.
    #[serde(serialize_with = "rounded")]
    pub percent: f64,
}

/// Ventricular rate over all beats, ectopic ones included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeartRate {
    /// RR intervals that count.
    pub rr_n: usize,
    /// Intervals over their total time, per minute.
    #[serde(serialize_with = "rounded")]
    pub mean_bpm: f64,
    /// Lowest mean of [`RATE_RR_N`] intervals; `None` if there are never so many in a row.
    pub lowest: Option<RateAt>,
    /// Highest mean of [`RATE_RR_N`] intervals.
    pub highest: Option<RateAt>,
}

/// A heart rate somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateAt {
    /// Per minute.
    #[serde(serialize_with = "rounded")]
    pub bpm: f64,
    /// The beat at which the first interval begins.
    pub sample_idx: i64,
}

/// One RR interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RrInterval {
    /// How long it is, in seconds.
    #[serde(serialize_with = "rounded")]
    pub rr_s: f64,
    /// The beat at which it begins.
    pub sample_idx: i64,
}

/// How the beats of one ectopic class come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ectopy {
    /// Beats without a neighbour of the same class, those in bigeminy and trigeminy included.
    pub isolated_n: usize,
    /// Two in a row.
    pub couplets: Vec<Episode>,
    /// [`RUN_BEAT_N`] or more in a row.
    pub runs: Vec<Episode>,
    /// [`EPISODE_ECTOPIC_N`] or more single beats with exactly one N between each.
    pub bigeminy: Vec<Episode>,
    /// The same with exactly two N between each.
    pub trigeminy: Vec<Episode>,
}

impl Ectopy {
    /// The run of most beats; the first of equals.
    #[must_use]
    pub fn longest_run(&self) -> Option<&Episode> {
        self.runs.iter().reduce(|best, run| if run.beat_n > best.beat_n { run } else { best })
    }

    /// The run of the highest rate; the first of equals.
    #[must_use]
    pub fn fastest_run(&self) -> Option<&Episode> {
        self.runs.iter().reduce(|best, run| if run.rate_bpm > best.rate_bpm { run } else { best })
    }
}

/// Beats in a row, from the first ectopic beat to the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Episode {
    /// The first beat.
    pub beat_idx: usize,
    /// All beats, those of other classes in between included.
    pub beat_n: usize,
    /// Where the first beat is.
    pub sample_idx: i64,
    /// From the first R-peak to the last, in seconds.
    #[serde(serialize_with = "rounded")]
    pub duration_s: f64,
    /// Mean rate over the intervals between them, per minute.
    #[serde(serialize_with = "rounded")]
    pub rate_bpm: f64,
}

/// Sums up the beats of one recording.
///
/// `beats` are in ascending order without doubles; `sampling_frequency_hz` is above 0.
#[must_use]
pub fn summarise(beats: &[Beat], sampling_frequency_hz: f64) -> Summary {
    let classified_n = beats.iter().filter(|beat| beat.class.is_some()).count();
    let count = |class: AamiClass| {
        let beat_n = beats.iter().filter(|beat| beat.class == Some(class)).count();
        let percent = if classified_n > 0 { 100.0 * beat_n as f64 / classified_n as f64 } else { 0.0 };
        ClassCount { class, beat_n, percent }
    };
    let uncertain = || beats.iter().filter(|beat| beat.is_uncertain);
    let intervals = rr_before_s(beats, sampling_frequency_hz);
    let longest = (1..beats.len()).filter_map(|idx| Some((idx, intervals[idx]?)));
    let longest = longest.reduce(|best, next| if next.1 > best.1 { next } else { best });
    Summary {
        beat_n: beats.len(),
        classified_n,
        classes: AamiClass::ALL.into_iter().map(count).collect(),
        uncertain_n: uncertain().count(),
        uncertain_normal_n: uncertain().filter(|beat| beat.class == Some(AamiClass::N)).count(),
        heart_rate: heart_rate(beats, &intervals),
        longest_rr: longest.map(|(idx, rr_s)| RrInterval { rr_s, sample_idx: beats[idx - 1].sample_idx }),
        long_rr_n: intervals.iter().flatten().filter(|rr_s| **rr_s > LONG_RR_S).count(),
        ventricular: ectopy(beats, sampling_frequency_hz, AamiClass::V),
        supraventricular: ectopy(beats, sampling_frequency_hz, AamiClass::S),
    }
}

/// The RR interval before each beat in seconds; `None` for the first beat and after a gap.
#[must_use]
pub fn rr_before_s(beats: &[Beat], sampling_frequency_hz: f64) -> Vec<Option<f64>> {
    let before = |idx: usize| {
        let previous = beats.get(idx.checked_sub(1)?)?;
        let known = !beats[idx].is_after_gap;
        known.then(|| (beats[idx].sample_idx - previous.sample_idx) as f64 / sampling_frequency_hz)
    };
    (0..beats.len()).map(before).collect()
}

fn heart_rate(beats: &[Beat], intervals: &[Option<f64>]) -> Option<HeartRate> {
    let known: Vec<f64> = intervals.iter().copied().flatten().collect();
    if known.is_empty() {
        return None;
    }
    let mut extremes: Option<(RateAt, RateAt)> = None;
    for (first, row) in intervals.windows(RATE_RR_N).enumerate() {
        let Some(total_s) = row.iter().copied().sum::<Option<f64>>() else { continue };
        let rate = RateAt { bpm: 60.0 * RATE_RR_N as f64 / total_s, sample_idx: beats[first - 1].sample_idx };
        let (lowest, highest) = extremes.unwrap_or((rate, rate));
        let lower = if rate.bpm < lowest.bpm { rate } else { lowest };
        extremes = Some((lower, if rate.bpm > highest.bpm { rate } else { highest }));
    }
    let mean_bpm = 60.0 * known.len() as f64 / known.iter().sum::<f64>();
    let (lowest, highest) = extremes.unzip();
    Some(HeartRate { rr_n: known.len(), mean_bpm, lowest, highest })
}

fn ectopy(beats: &[Beat], sampling_frequency_hz: f64, class: AamiClass) -> Ectopy {
    let episode = |first: usize, last: usize| {
        let duration_s = (beats[last].sample_idx - beats[first].sample_idx) as f64 / sampling_frequency_hz;
        let rate_bpm = 60.0 * (last - first) as f64 / duration_s;
        Episode { beat_idx: first, beat_n: last - first + 1, sample_idx: beats[first].sample_idx, duration_s, rate_bpm }
    };
    let (mut isolated, mut couplets, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0;
    for row in beats.chunk_by(|a, b| a.class == b.class && !b.is_after_gap) {
        if row[0].class == Some(class) {
            match row.len() {
                1 => isolated.push(first),
                n if n < RUN_BEAT_N => couplets.push(episode(first, first + n - 1)),
                n => runs.push(episode(first, first + n - 1)),
            }
        }
        first += row.len();
    }
    let episodes = |normal_n: usize| {
        let follows = |a: &usize, b: &usize| {
            let step = &beats[a + 1..=*b];
            step.len() == normal_n + 1
                && step[..normal_n].iter().all(|beat| beat.class == Some(AamiClass::N))
                && !step.iter().any(|beat| beat.is_after_gap)
        };
        let chains = isolated.chunk_by(follows).filter(|chain| chain.len() >= EPISODE_ECTOPIC_N);
        chains.map(|chain| episode(chain[0], chain[chain.len() - 1])).collect()
    };
    let (bigeminy, trigeminy) = (episodes(1), episodes(2));
    Ectopy { isolated_n: isolated.len(), couplets, runs, bigeminy, trigeminy }
}

fn letter<S: Serializer>(class: &AamiClass, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.letter())
}

/// To four decimals: beyond what a sampled signal tells, and short to read.
fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e4).round() / 1e4)
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Beats 0.8 s apart at 1000 Hz: a letter is a beat, `.` one that could not be classified, a blank a gap.
    pub(crate) fn beats(text: &str) -> Vec<Beat> {
        let mut beats = Vec::new();
        let mut is_after_gap = false;
        for (place, letter) in text.chars().enumerate() {
            if letter != ' ' {
                let class = AamiClass::from_letter(&letter.to_string());
                let sample_idx = 500 + 800 * place as i64;
                beats.push(Beat { sample_idx, class, probability: 0.9, is_uncertain: false, is_after_gap });
            }
            is_after_gap = letter == ' ';
        }
        beats
    }

    fn check(text: &str, expected: Expect) {
        let summary = summarise(&beats(text), 1000.0);
        let mut lines = String::new();
        for (name, ectopy) in [("V", &summary.ventricular), ("S", &summary.supraventricular)] {
            let listed = |episodes: &[Episode]| {
                let one = |episode: &Episode| {
                    format!("{}+{} at {:.0}/min", episode.beat_idx, episode.beat_n, episode.rate_bpm)
                };
                episodes.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            let kinds = [
                ("couplets", &ectopy.couplets),
                ("runs", &ectopy.runs),
                ("bigeminy", &ectopy.bigeminy),
                ("trigeminy", &ectopy.trigeminy),
            ];
            for (kind, episodes) in kinds.into_iter().filter(|(_, episodes)| !episodes.is_empty()) {
                lines.push_str(&format!("{name} {kind}: {}\n", listed(episodes)));
            }
            if ectopy.isolated_n > 0 {
                lines.push_str(&format!("{name} isolated: {}\n", ectopy.isolated_n));
            }
        }
        expected.assert_eq(&lines);
    }

    #[test]
    fn finds_couplets_runs_and_bigeminy() {
        check(
            "NNVVNVVVN NVNVNVN",
            expect![[r#"
                V couplets: 2+2 at 75/min
                V runs: 5+3 at 75/min
                V bigeminy: 10+5 at 75/min
                V isolated: 3
            "#]],
        );
        check(
            "SSSSNSSNSN",
            expect![[r#"
                S couplets: 5+2 at 75/min
                S runs: 0+4 at 75/min
                S isolated: 1
            "#]],
        );
    }

    #[test]
    fn finds_trigeminy_and_keeps_it_apart_from_bigeminy() {
        check(
            "VNNVNNVNNVNVNVNVNN",
            expect![[r#"
                V bigeminy: 9+7 at 75/min
                V trigeminy: 0+10 at 75/min
                V isolated: 7
            "#]],
        );
        // Two are no episode, and neither is an alternation with other ectopic beats.
        check(
            "VNVNNVNNNVSVSV",
            expect![[r#"
                V isolated: 6
                S isolated: 2
            "#]],
        );
        // A couplet ends an episode: only single beats count.
        check(
            "VNVNVV",
            expect![[r#"
                V couplets: 4+2 at 75/min
                V isolated: 2
            "#]],
        );
    }

    #[test]
    fn a_gap_joins_nothing() {
        check("V V", expect![["V isolated: 2\n"]]);
        check("VNVN V", expect![["V isolated: 3\n"]]);
        check("VNV NV", expect![["V isolated: 3\n"]]);
        check("VV.V", expect![["V couplets: 0+2 at 75/min\nV isolated: 1\n"]]);
        check("VN V.NV", expect![["V isolated: 3\n"]]);
        let summary = summarise(&beats("NN NN"), 1000.0);
        assert_eq!(summary.longest_rr, Some(RrInterval { rr_s: 0.8, sample_idx: 500 }));
        assert_eq!(rr_before_s(&beats("NN N"), 1000.0), [None, Some(0.8), None]);
    }

    #[test]
    fn counts_are_of_classified_beats() {
        let summary = summarise(&beats("NNNV."), 1000.0);
        let counts: Vec<(usize, f64)> = summary.classes.iter().map(|count| (count.beat_n, count.percent)).collect();
        assert_eq!(counts, [(3, 75.0), (0, 0.0), (1, 25.0), (0, 0.0), (0, 0.0)]);
        assert_eq!((summary.beat_n, summary.classified_n), (5, 4));
    }

    #[test]
    fn rates_are_means_of_ten_intervals() {
        // Twelve intervals of 1 s, twelve of 0.5 s, one of 2.5 s.
        let steps = [vec![1000; 12], vec![500; 12], vec![2500]].concat();
        let mut sample_idx = 0;
        let mut list = vec![Beat { sample_idx, ..beats("N")[0] }];
        for step in steps {
            sample_idx += step;
            list.push(Beat { sample_idx, ..beats("N")[0] });
        }
        let summary = summarise(&list, 1000.0);
        let rate = summary.heart_rate.expect("there are intervals");
        assert_eq!(rate.lowest, Some(RateAt { bpm: 60.0, sample_idx: 0 }));
        assert_eq!(rate.highest, Some(RateAt { bpm: 120.0, sample_idx: 12_000 }));
        assert_eq!((rate.rr_n, (rate.mean_bpm * 1e3).round()), (25, 73_171.0));
        assert_eq!(summary.longest_rr, Some(RrInterval { rr_s: 2.5, sample_idx: 18_000 }));
        assert_eq!(summary.long_rr_n, 1);
    }

    #[test]
    fn few_beats_say_little_but_do_no_harm() {
        let none = summarise(&[], 360.0);
        assert_eq!((none.beat_n, none.heart_rate, none.longest_rr), (0, None, None));
        assert_eq!(summarise(&beats("V"), 360.0).heart_rate, None);
        let rate = summarise(&beats("NN"), 1000.0).heart_rate.expect("one interval");
        assert_eq!((rate.mean_bpm, rate.lowest, rate.highest), (75.0, None, None));
    }

    #[test]
    fn uncertain_beats_are_counted_and_those_of_class_n_apart() {
        let mut list = beats("NNV.");
        list[0].is_uncertain = true;
        list[2].is_uncertain = true;
        let summary = summarise(&list, 1000.0);
        assert_eq!((summary.uncertain_n, summary.uncertain_normal_n), (2, 1));
    }

    #[test]
    fn the_longest_and_the_fastest_run_may_differ() {
        let mut list = beats("VVVVNVVV");
        list.iter_mut().skip(6).enumerate().for_each(|(place, beat)| beat.sample_idx = 4900 + 400 * place as i64);
        let ventricular = summarise(&list, 1000.0).ventricular;
        let longest = ventricular.longest_run().map(|run| (run.beat_idx, run.beat_n));
        let fastest = ventricular.fastest_run().map(|run| (run.beat_idx, run.rate_bpm));
        assert_eq!((longest, fastest), (Some((0, 4)), Some((5, 150.0))));
    }
}
