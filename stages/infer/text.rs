//! Owns findings in words, for a cardiologist: what was read, a summary, then every flagged beat.

use super::{
    NOTICE,
    findings::{EPISODE_ECTOPIC_N, Ectopy, Episode, LONG_RR_S, RATE_RR_N, RUN_BEAT_N, Summary},
    model::{About, EngineUsed},
    quality::Stretch,
    record::{Finding, RecordFindings, is_of_rhythm},
    windows::WindowFindings,
};

use crate::aami::AamiClass;

/// Flagged beats that are listed; the rest is counted.
const LISTED_BEAT_N: usize = 200;
/// Episodes and unreadable stretches that are listed.
const LISTED_EPISODE_N: usize = 40;
/// Width of the column of names.
const NAME_N: usize = 13;
/// Columns of a terminal that long lines are broken at.
const WIDTH_N: usize = 100;

/// The findings of a record.
#[must_use]
pub fn of_record(findings: &RecordFindings) -> String {
    let mut page = Page::default();
    page.line("ECG FINDINGS FOR REVIEW");
    page.line("");
    record_head(&mut page, findings);
    summary(&mut page, findings);
    if findings.summary.classified_n > 0 {
        patterns(&mut page, findings);
        flagged(&mut page, findings);
    }
    page.notes(&findings.notes);
    page.text
}

/// What the model says about windows.
#[must_use]
pub fn of_windows(findings: &WindowFindings) -> String {
    let mut page = Page::default();
    page.line("HEARTBEAT WINDOWS FOR REVIEW");
    page.line("");
    let window_n = findings.windows.len();
    page.named("Windows", &format!("{window_n} of {} samples ({})", findings.window_n, findings.path));
    model_head(&mut page, &findings.model, &findings.engine);
    page.named("Rhythm", "not available: a window has no RR intervals");
    page.title("CLASSES");
    let letters: String = findings.classes.iter().map(|class| format!("{:>8}", class.letter())).collect();
    page.line(&format!("  {:>7}  class  probability  {letters}", "window"));
    for (window_idx, window) in findings.windows.iter().enumerate().take(LISTED_BEAT_N) {
        let each: String = window.probabilities.iter().map(|probability| format!("{probability:>8.3}")).collect();
        let doubt = doubt(window.is_uncertain);
        let (class, probability) = (window.class, window.probability);
        page.line(&format!("  {window_idx:>7}  {class:<5}  {probability:>9.3} {doubt}  {each}"));
    }
    page.omitted(window_n, LISTED_BEAT_N, "windows", "--format csv lists all");
    page.line("");
    for class in &findings.classes {
        page.line(&format!("  {class} = {}", class.name()));
    }
    page.line(&format!("  ? = uncertain: probability below {:.2}", findings.uncertain_below));
    page.notes(&findings.notes);
    page.text
}

fn record_head(page: &mut Page, findings: &RecordFindings) {
    let record = &findings.record;
    let hz = record.sampling_frequency_hz;
    page.named("Record", &format!("{} ({})", record.name, record.path));
    if let Some(start) = &record.start {
        page.named("Start", &format!("{start}; times below count from here"));
    }
    let length = clock(record.sample_n as i64, hz);
    page.named("Duration", &format!("{length} ({} samples at {hz} Hz)", record.sample_n));
    let leads = record.leads.join(", ");
    let also = match record.shape_leads.split_first() {
        Some((_, [])) | None => String::new(),
        Some((_, others)) => format!(", for shapes also {}", others.join(", ")),
    };
    page.named("Leads", &if record.leads.len() > 1 { format!("{leads}; read: {}{also}", record.lead) } else { leads });
    for comment in &record.comments {
        page.named("Comment", comment);
    }
    model_head(page, &findings.model, &findings.engine);
    let window = &findings.prepared.window;
    let features = &findings.prepared.features;
    let has_shapes = !features.iter().all(|name| is_of_rhythm(name));
    let rhythm = "the RR intervals around it";
    let context = if has_shapes {
        format!("{rhythm}, and its shape against the record's other beats")
    } else {
        rhythm.to_owned()
    };
    let samples = format!("{} samples of each beat at {} Hz", window.length_n, window.sampling_frequency_hz);
    let judged_by = match (findings.prepared.window_used, features.is_empty()) {
        (false, _) => format!("of each beat {context}"),
        (true, true) => samples,
        (true, false) => format!("{samples}{} {context}", if has_shapes { "," } else { " and" }),
    };
    page.named("Judged by", &judged_by);
}

fn model_head(page: &mut Page, model: &About, engine: &EngineUsed) {
    page.named("Model", &format!("{} (sha256 {})", model.path, short(&model.sha256)));
    if let Some(origin) = &model.origin {
        let dirty = if origin.git_dirty { " with uncommitted changes" } else { "" };
        let commit = match &origin.git_commit {
            Some(commit) => format!("git commit {}{dirty}", short(commit)),
            None => "no git commit".to_owned(),
        };
        let (pipeline, seed, version) = (&origin.pipeline, origin.seed, &origin.ecgpipe);
        page.named("", &format!("pipeline {pipeline}, seed {seed}, {commit}, ecgpipe {version}"));
    }
    page.named("Engine", &format!("{} {}", engine.name, engine.version));
}

fn summary(page: &mut Page, findings: &RecordFindings) {
    let (summary, hz) = (&findings.summary, findings.record.sampling_frequency_hz);
    page.title("SUMMARY");
    if summary.beat_n == 0 {
        page.named("Beats", &format!("none found in lead {}", findings.record.lead));
    } else {
        classes(page, summary);
        page.line("");
        let percent = |class: AamiClass| summary.classes[class.index()].percent;
        let (pvc, pac) = (percent(AamiClass::V), percent(AamiClass::S));
        page.named("Burden", &format!("PVC (V) {pvc:.2} %, PAC and other supraventricular ectopy (S) {pac:.2} %"));
        page.named("Heart rate", &heart_rate(summary, hz));
        if let Some(longest) = summary.longest_rr {
            let over = match summary.long_rr_n {
                0 => format!("none over {LONG_RR_S} s"),
                n => format!("{n} over {LONG_RR_S} s"),
            };
            page.named("Longest RR", &format!("{:.3} s from {}; {over}", longest.rr_s, clock(longest.sample_idx, hz)));
        }
        page.named("Uncertain", &uncertain(summary, findings.uncertain_below));
    }
    unreadable(page, findings);
}

fn classes(page: &mut Page, summary: &Summary) {
    page.line(&format!("{:<13}{:<3}{:<36}{:>9}{:>10}", "Beats", "", "", "count", "percent"));
    for count in &summary.classes {
        let (letter, name) = (count.class.letter(), count.class.name());
        page.line(&format!("{:<13}{letter:<3}{name:<36}{:>9}{:>10.2}", "", count.beat_n, count.percent));
    }
    page.line(&format!("{:<13}{:<3}{:<36}{:>9}", "", "", "classified", summary.classified_n));
    if summary.beat_n > summary.classified_n {
        let name = "not classified: too few valid samples";
        page.line(&format!("{:<16}{name:<37}{:>8}", "", summary.beat_n - summary.classified_n));
    }
}

fn heart_rate(summary: &Summary, hz: f64) -> String {
    let Some(rate) = &summary.heart_rate else { return "not known: no two beats in a row".to_owned() };
    let mean = format!("mean {:.0}/min", rate.mean_bpm);
    match (rate.lowest, rate.highest) {
        (Some(lowest), Some(highest)) => format!(
            "{mean}; lowest {:.0}/min from {}, highest {:.0}/min from {} (each over {RATE_RR_N} RR intervals)",
            lowest.bpm,
            clock(lowest.sample_idx, hz),
            highest.bpm,
            clock(highest.sample_idx, hz)
        ),
        _ => format!("{mean}; lowest and highest not known: never {RATE_RR_N} RR intervals in a row"),
    }
}

fn uncertain(summary: &Summary, below: f32) -> String {
    match summary.uncertain_n {
        0 => format!("no beat has a probability below {below:.2}"),
        n => {
            let normal = match summary.uncertain_normal_n {
                0 => "none of them N".to_owned(),
                normal_n if normal_n == n => "N and so not in the list below".to_owned(),
                n => format!("{n} of them N and so not in the list below"),
            };
            format!("{n} {} with a probability below {below:.2}, {normal}", if n == 1 { "beat" } else { "beats" })
        }
    }
}

fn unreadable(page: &mut Page, findings: &RecordFindings) {
    let hz = findings.record.sampling_frequency_hz;
    let stretches = &findings.unreadable;
    if stretches.is_empty() {
        page.named("Unreadable", "no time without signal (noise is not judged)");
        return;
    }
    let sample_n: usize = stretches.iter().map(|stretch| stretch.end_idx - stretch.first_idx).sum();
    let percent = 100.0 * sample_n as f64 / findings.record.sample_n as f64;
    let part = format!(
        "{} ({percent:.1} %) without samples or flat, in {} {}; beats on either side are not joined",
        clock(sample_n as i64, hz),
        stretches.len(),
        if stretches.len() == 1 { "stretch" } else { "stretches" }
    );
    page.named("Unreadable", &part);
    let one =
        |stretch: &Stretch| format!("{} to {}", clock(stretch.first_idx as i64, hz), clock(stretch.end_idx as i64, hz));
    for stretch in stretches.iter().take(LISTED_EPISODE_N) {
        page.named("", &one(stretch));
    }
    page.omitted(stretches.len(), LISTED_EPISODE_N, "stretches", "--format json lists all");
}

fn patterns(page: &mut Page, findings: &RecordFindings) {
    let summary = &findings.summary;
    let kinds = [("V ventricular", "V", &summary.ventricular), ("S supraventricular", "S", &summary.supraventricular)];
    page.title("ECTOPIC PATTERNS");
    let runs = format!("runs of {RUN_BEAT_N}+");
    page.line(&format!(
        "  {:<20}{:>9}{:>10}{runs:>12}{:>10}{:>11}",
        "", "isolated", "couplets", "bigeminy", "trigeminy"
    ));
    for (name, _, ectopy) in kinds {
        let n = [ectopy.couplets.len(), ectopy.runs.len(), ectopy.bigeminy.len(), ectopy.trigeminy.len()];
        page.line(&format!("  {name:<20}{:>9}{:>10}{:>12}{:>10}{:>11}", ectopy.isolated_n, n[0], n[1], n[2], n[3]));
    }
    let hz = findings.record.sampling_frequency_hz;
    for (_, letter, ectopy) in kinds {
        let (Some(longest), Some(fastest)) = (ectopy.longest_run(), ectopy.fastest_run()) else { continue };
        page.line("");
        page.line(&format!("  Longest run of {letter}: {}", run(longest, hz)));
        page.line(&format!("  Fastest run of {letter}: {}", run(fastest, hz)));
    }
    let mut rows: Vec<(&Episode, String)> =
        kinds.into_iter().flat_map(|(_, letter, ectopy)| rows(letter, ectopy)).collect();
    // What matters most comes first, so that what is omitted matters least.
    let rank = |name: &str| ["run", "couplet", "bigeminy", "trigeminy"].iter().position(|kind| name.ends_with(kind));
    rows.sort_by_key(|(episode, name)| (rank(name), name.clone(), episode.beat_idx));
    if rows.is_empty() {
        return;
    }
    page.line("");
    page.line(&format!("  {:<14}{:<18}{:>6}{:>12}{:>10}", "from", "pattern", "beats", "duration", "rate"));
    for (episode, name) in rows.iter().take(LISTED_EPISODE_N) {
        let (from, rate) = (clock(episode.sample_idx, hz), format!("{:.0}/min", episode.rate_bpm));
        page.line(&format!("  {from:<14}{name:<18}{:>6}{:>10.1} s{rate:>10}", episode.beat_n, episode.duration_s));
    }
    page.omitted(rows.len(), LISTED_EPISODE_N, "patterns", "--format json lists all");
    if rows.iter().any(|(_, name)| name.ends_with("geminy")) {
        page.line("");
        let n = EPISODE_ECTOPIC_N;
        page.line(&format!("  Bigeminy (trigeminy): {n} or more single ectopic beats with one (two) N between each."));
    }
}

fn run(episode: &Episode, hz: f64) -> String {
    let (from, rate) = (clock(episode.sample_idx, hz), episode.rate_bpm);
    format!("{} beats, {:.1} s, {rate:.0}/min, from {from}", episode.beat_n, episode.duration_s)
}

/// Couplets, runs and episodes of one class with their names.
fn rows<'a>(letter: &str, ectopy: &'a Ectopy) -> Vec<(&'a Episode, String)> {
    let kinds = [
        ("couplet", &ectopy.couplets),
        ("run", &ectopy.runs),
        ("bigeminy", &ectopy.bigeminy),
        ("trigeminy", &ectopy.trigeminy),
    ];
    let named = |(name, episodes): (&str, &'a Vec<Episode>)| {
        let name = format!("{letter} {name}");
        episodes.iter().map(move |episode| (episode, name.clone())).collect::<Vec<_>>()
    };
    kinds.into_iter().flat_map(named).collect()
}

fn flagged(page: &mut Page, findings: &RecordFindings) {
    let is_flagged = |finding: &&Finding| finding.beat.class.is_some_and(|class| class != AamiClass::N);
    let list: Vec<&Finding> = findings.beats.iter().filter(is_flagged).collect();
    page.title("FLAGGED BEATS");
    if list.is_empty() {
        page.line("  none: every classified beat is N");
        return;
    }
    page.line(&format!("  {:<14}{:>10}  class  probability  RR before", "time", "sample"));
    let hz = findings.record.sampling_frequency_hz;
    for finding in list.iter().take(LISTED_BEAT_N) {
        let beat = &finding.beat;
        let class = beat.class.map_or("", AamiClass::letter);
        let rr_before = finding.rr_before_s.map_or("-".to_owned(), |rr_s| format!("{rr_s:.3} s"));
        let (time, doubt) = (clock(beat.sample_idx, hz), doubt(beat.is_uncertain));
        let row = format!(
            "  {time:<14}{:>10}  {class:<5}  {:>9.2} {doubt}  {rr_before:>9}",
            beat.sample_idx, beat.probability
        );
        page.line(row.trim_end());
    }
    page.omitted(list.len(), LISTED_BEAT_N, "flagged beats", "--format csv lists all");
    page.line("");
    page.line(&format!("  ? = uncertain: probability below {:.2}", findings.uncertain_below));
}

fn doubt(is_uncertain: bool) -> char {
    if is_uncertain { '?' } else { ' ' }
}

/// The beginning of a digest: enough to compare by eye.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Time from the start of the record: `hh:mm:ss.mmm`.
fn clock(sample_idx: i64, sampling_frequency_hz: f64) -> String {
    let ms = (sample_idx as f64 * 1e3 / sampling_frequency_hz).round() as i64;
    let (h, min, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{h:02}:{min:02}:{s:02}.{:03}", ms % 1000)
}

/// Lines of text.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn title(&mut self, title: &str) {
        self.line("");
        self.line(title);
        self.line("");
    }

    /// A name and what belongs to it, broken into lines at blanks.
    fn named(&mut self, name: &str, text: &str) {
        self.broken(&format!("{name:<NAME_N$}"), text);
    }

    /// `text` after `lead`, broken into lines at blanks; later lines are as far to the right.
    fn broken(&mut self, lead: &str, text: &str) {
        let margin_n = lead.chars().count();
        let mut line = lead.to_owned();
        let mut line_n = margin_n;
        for word in text.split(' ') {
            let word_n = word.chars().count();
            if line_n > margin_n && line_n + 1 + word_n > WIDTH_N {
                self.line(&line);
                line = " ".repeat(margin_n);
                line_n = margin_n;
            } else if line_n > margin_n {
                line.push(' ');
                line_n += 1;
            }
            line.push_str(word);
            line_n += word_n;
        }
        self.line(&line);
    }

    fn omitted(&mut self, n: usize, listed_n: usize, what: &str, advice: &str) {
        if n > listed_n {
            self.line(&format!("  ... and {} more {what}; {advice}", n - listed_n));
        }
    }

    /// What a reader should know, and the notice that closes all findings.
    fn notes(&mut self, notes: &[String]) {
        if !notes.is_empty() {
            self.title("NOTES");
            for note in notes {
                self.broken("  - ", note);
            }
        }
        self.line("");
        self.line(NOTICE);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::{
            findings::{rr_before_s, summarise, tests::beats},
            model::Origin,
            record::{Prepared, RecordInfo},
        },
        *,
    };

    #[test]
    fn a_clock_counts_from_the_start() {
        assert_eq!(clock(0, 360.0), "00:00:00.000");
        assert_eq!(clock(77, 360.0), "00:00:00.214");
        assert_eq!(clock(359_999, 100.0), "00:59:59.990");
        assert_eq!(clock(26 * 3600 * 128 + 1, 128.0), "26:00:00.008");
    }

    /// Each beat of the text has the probability 0.9, but the last of all, which has 0.5.
    fn findings(text: &str) -> RecordFindings {
        let mut beats = beats(text);
        if let Some(last) = beats.last_mut() {
            last.probability = 0.5;
            last.is_uncertain = true;
        }
        let intervals = rr_before_s(&beats, 1000.0);
        let finding = |(beat, rr_before_s)| Finding { beat, rr_before_s, probabilities: Vec::new() };
        let commit = Some("0123456789abcdef".to_owned());
        let origin = Origin {
            pipeline: "full".to_owned(),
            seed: 7,
            git_commit: commit,
            git_dirty: false,
            ecgpipe: "0.1.0".to_owned(),
            output: "export.onnx".to_owned(),
            digest: "ab".to_owned(),
            record_n: 44,
        };
        RecordFindings {
            record: RecordInfo {
                name: "p1".to_owned(),
                path: "ward/p1.hea".to_owned(),
                sampling_frequency_hz: 1000.0,
                sample_n: 40_000,
                leads: vec!["V1".to_owned(), "MLII".to_owned()],
                lead: "MLII".to_owned(),
                shape_leads: Vec::new(),
                start: Some("01/02/2024 08:30:00".to_owned()),
                comments: vec!["72 F".to_owned()],
            },
            model: About {
                path: "models/ecg_model.onnx".to_owned(),
                sha256: "fedcba9876543210".to_owned(),
                byte_n: 1,
                origin: Some(origin),
                metadata: std::collections::BTreeMap::new(),
            },
            engine: EngineUsed { name: "ONNX Runtime", version: "1.32.0".to_owned() },
            prepared: Prepared {
                detect_peaks: crate::detect_peaks::Params::default(),
                window: crate::window::Params::default(),
                align_beats: None,
                features: vec!["rr_before_s".to_owned()],
                window_used: true,
            },
            classes: AamiClass::ALL.to_vec(),
            summary: summarise(&beats, 1000.0),
            unreadable: vec![Stretch { first_idx: 20_600, end_idx: 22_100 }],
            beats: beats.into_iter().zip(intervals).map(finding).collect(),
            uncertain_below: 0.6,
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn a_cardiologist_reads_this() {
        let expected = expect![[r#"
            ECG FINDINGS FOR REVIEW

            Record       p1 (ward/p1.hea)
            Start        01/02/2024 08:30:00; times below count from here
            Duration     00:00:40.000 (40000 samples at 1000 Hz)
            Leads        V1, MLII; read: MLII
            Comment      72 F
            Model        models/ecg_model.onnx (sha256 fedcba987654)
                         pipeline full, seed 7, git commit 0123456789ab, ecgpipe 0.1.0
            Engine       ONNX Runtime 1.32.0
            Judged by    187 samples of each beat at 360 Hz and the RR intervals around it

            SUMMARY

            Beats                                                   count   percent
                         N  normal or bundle branch block              16     59.26
                         S  supraventricular ectopic                    3     11.11
                         V  ventricular ectopic                         8     29.63
                         F  fusion of ventricular and normal            0      0.00
                         Q  paced or unclassifiable                     0      0.00
                            classified                                 27
                            not classified: too few valid samples       1

            Burden       PVC (V) 29.63 %, PAC and other supraventricular ectopy (S) 11.11 %
            Heart rate   mean 75/min; lowest 75/min from 00:00:00.500, highest 75/min from 00:00:00.500 (each
                         over 10 RR intervals)
            Longest RR   0.800 s from 00:00:00.500; none over 2 s
            Uncertain    1 beat with a probability below 0.60, none of them N
            Unreadable   00:00:01.500 (3.8 %) without samples or flat, in 1 stretch; beats on either side are
                         not joined
                         00:00:20.600 to 00:00:22.100

            ECTOPIC PATTERNS

                                   isolated  couplets  runs of 3+  bigeminy  trigeminy
              V ventricular               3         1           1         1          0
              S supraventricular          1         1           0         0          0

              Longest run of V: 3 beats, 1.6 s, 75/min, from 00:00:09.300
              Fastest run of V: 3 beats, 1.6 s, 75/min, from 00:00:09.300

              from          pattern            beats    duration      rate
              00:00:09.300  V run                  3       1.6 s    75/min
              00:00:13.300  S couplet              2       0.8 s    75/min
              00:00:18.100  V couplet              2       0.8 s    75/min
              00:00:02.100  V bigeminy             5       3.2 s    75/min

              Bigeminy (trigeminy): 3 or more single ectopic beats with one (two) N between each.

            FLAGGED BEATS

              time              sample  class  probability  RR before
              00:00:02.100        2100  V           0.90      0.800 s
              00:00:03.700        3700  V           0.90      0.800 s
              00:00:05.300        5300  V           0.90      0.800 s
              00:00:09.300        9300  V           0.90      0.800 s
              00:00:10.100       10100  V           0.90      0.800 s
              00:00:10.900       10900  V           0.90      0.800 s
              00:00:13.300       13300  S           0.90      0.800 s
              00:00:14.100       14100  S           0.90      0.800 s
              00:00:18.100       18100  V           0.90      0.800 s
              00:00:18.900       18900  V           0.90      0.800 s
              00:00:22.900       22900  S           0.50 ?    0.800 s

              ? = uncertain: probability below 0.60

            NOTES

              - a note

            Decision support for review by a cardiologist; not a diagnosis. Verify every strip.
        "#]];
        expected.assert_eq(&of_record(&findings("NNVNVNVNNNNVVVNNSSNNNNVVN .NS")));
    }

    #[test]
    fn a_record_without_beats_says_so() {
        let text = of_record(&findings(""));
        assert!(text.contains("Beats        none found in lead MLII") && !text.contains("FLAGGED"), "{text}");
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let text = of_record(&findings(&"VVN".repeat(150)));
        assert!(text.contains("  ... and 110 more patterns; --format json lists all"), "{text}");
        assert!(text.contains("  ... and 100 more flagged beats; --format csv lists all"), "{text}");
    }

    #[test]
    fn long_texts_are_broken_at_blanks() {
        let mut page = Page::default();
        page.named("Name", &"word ".repeat(40));
        let lines: Vec<&str> = page.text.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= WIDTH_N), "{lines:?}");
        assert!(lines[1].starts_with("             word"));
    }
}
