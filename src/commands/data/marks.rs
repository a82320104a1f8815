//! Annotations by symbol and AAMI class, and rhythms by time.

use std::collections::BTreeMap;

use ecgpipe_wfdb::{AnnotationCode, Annotations};
use serde::Serialize;

use super::shown;
use crate::commands::BeatClass;

/// What one annotator says of a recording.
#[derive(Debug, Serialize)]
pub(super) struct Marks {
    /// The annotator's name; none for annotations within the file.
    pub(super) annotator: Option<String>,
    /// All annotations.
    pub(super) annotation_n: u64,
    /// Those that are beats of an AAMI class.
    pub(super) beat_n: u64,
    /// Most frequent first.
    pub(super) symbols: Vec<Symbol>,
    /// Beats by class, escape beats as de Chazal 2004 has them: N.
    pub(super) de_chazal: BTreeMap<&'static str, u64>,
    /// Beats by class, escape beats as ANSI/AAMI EC57 has them: S.
    pub(super) ec57: BTreeMap<&'static str, u64>,
    /// Rhythms, the one that holds longest first.
    pub(super) rhythms: Vec<Rhythm>,
    /// Every stretch of a rhythm, in order.
    pub(super) episodes: Vec<Episode>,
}

/// How often a symbol was used.
#[derive(Debug, Serialize)]
pub(super) struct Symbol {
    pub(super) symbol: String,
    pub(super) count: u64,
    pub(super) meaning: String,
    /// The classes of a beat; none for what is none.
    #[serde(skip)]
    pub(super) class: Option<BeatClass>,
}

/// One rhythm, by its text in the file, such as `(AFIB`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rhythm {
    pub(super) name: String,
    pub(super) episode_n: u64,
    pub(super) seconds: f64,
}

/// A stretch of one rhythm.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Episode {
    pub(super) name: String,
    pub(super) from_s: f64,
    pub(super) to_s: f64,
}

/// What is counted against.
#[derive(Clone, Copy)]
pub(super) struct Counting {
    /// Length of the recording.
    pub(super) length_s: f64,
    pub(super) beat_class: fn(&str) -> Option<BeatClass>,
}

impl Counting {
    /// Counts annotations whose positions count at `hz`.
    pub(super) fn marks(&self, annotator: Option<String>, annotations: &Annotations, hz: f64) -> Marks {
        let mut by_code: BTreeMap<AnnotationCode, u64> = BTreeMap::new();
        for annotation in &annotations.items {
            *by_code.entry(annotation.code).or_default() += 1;
        }
        let mut symbols: Vec<Symbol> = by_code
            .into_iter()
            .map(|(code, count)| match annotations.definitions.get(&code.number()) {
                // A file may define symbols of its own for codes that have none.
                Some(own) => {
                    Symbol { symbol: own.symbol.clone(), count, meaning: own.description.clone(), class: None }
                }
                None => {
                    let (symbol, meaning) = (code.symbol().to_owned(), code.description().to_owned());
                    Symbol { class: (self.beat_class)(&symbol), symbol, count, meaning }
                }
            })
            .collect();
        // Codes are in order already, which decides between equal counts.
        symbols.sort_by_key(|symbol| std::cmp::Reverse(symbol.count));
        let mut classes = [BTreeMap::new(), BTreeMap::new()];
        for symbol in &symbols {
            if let Some(class) = symbol.class {
                for (counts, letter) in classes.iter_mut().zip([class.de_chazal, class.ec57]) {
                    *counts.entry(letter).or_default() += symbol.count;
                }
            }
        }
        let [de_chazal, ec57] = classes;
        let episodes = episodes(annotations, hz, self.length_s);
        Marks {
            annotator,
            annotation_n: annotations.items.len() as u64,
            beat_n: de_chazal.values().sum(),
            symbols,
            de_chazal,
            ec57,
            rhythms: rhythms(&episodes),
            episodes,
        }
    }
}

/// A rhythm holds from its change to the next one, the last one to the end of the recording.
fn episodes(annotations: &Annotations, hz: f64, length_s: f64) -> Vec<Episode> {
    let mut episodes: Vec<Episode> = Vec::new();
    for annotation in annotations.items.iter().filter(|annotation| annotation.code == AnnotationCode::RHYTHM) {
        let from_s = annotation.sample_idx as f64 / hz;
        let name = shown(annotation.aux_text().trim());
        if let Some(last) = episodes.last_mut() {
            last.to_s = from_s;
            if last.name == name {
                last.to_s = length_s;
                continue;
            }
        }
        episodes.push(Episode { name, from_s, to_s: length_s });
    }
    episodes
}

fn rhythms(episodes: &[Episode]) -> Vec<Rhythm> {
    let mut by_name: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for episode in episodes {
        let (episode_n, seconds) = by_name.entry(&episode.name).or_default();
        *episode_n += 1;
        *seconds += episode.to_s - episode.from_s;
    }
    let mut rhythms: Vec<Rhythm> = by_name
        .into_iter()
        .map(|(name, (episode_n, seconds))| Rhythm { name: name.to_owned(), episode_n, seconds })
        .collect();
    rhythms.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rhythms
}

/// What the text of a rhythm change means, as far as annot(5) lists it.
pub(super) fn rhythm_meaning(name: &str) -> &'static str {
    match name {
        "(AB" => "atrial bigeminy",
        "(AFIB" => "atrial fibrillation",
        "(AFL" => "atrial flutter",
        "(ASYS" => "asystole",
        "(B" => "ventricular bigeminy",
        "(BI" => "first degree heart block",
        "(BII" => "second degree heart block",
        "(HGEA" => "high grade ventricular ectopic activity",
        "(IVR" => "idioventricular rhythm",
        "(N" => "normal sinus rhythm",
        "(NOD" => "nodal (AV junctional) rhythm",
        "(P" => "paced rhythm",
        "(PREX" => "pre-excitation (WPW)",
        "(SBR" => "sinus bradycardia",
        "(SVTA" => "supraventricular tachyarrhythmia",
        "(T" => "ventricular trigeminy",
        "(VER" => "ventricular escape rhythm",
        "(VF" => "ventricular fibrillation",
        "(VFL" => "ventricular flutter",
        "(VT" => "ventricular tachycardia",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use ecgpipe_wfdb::Annotation;

    use super::*;

    /// Rhythm changes at 10 Hz in a recording of 100 s, as `position text`.
    fn check(changes: &[(u64, &str)], expected: &str) {
        let change = |&(sample_idx, text): &(u64, &str)| Annotation {
            aux: format!("{text}\0").into_bytes(),
            ..Annotation::new(sample_idx, AnnotationCode::RHYTHM)
        };
        let annotations = Annotations { items: changes.iter().map(change).collect(), ..Annotations::default() };
        let found = episodes(&annotations, 10.0, 100.0);
        let shown: Vec<String> =
            found.iter().map(|episode| format!("{} {}-{}", episode.name, episode.from_s, episode.to_s)).collect();
        assert_eq!(shown.join(", "), expected);
    }

    #[test]
    fn a_rhythm_holds_until_the_next_one() {
        check(&[], "");
        check(&[(5, "(N")], "(N 0.5-100");
        check(&[(0, "(N"), (100, "(AFIB"), (150, "(N")], "(N 0-10, (AFIB 10-15, (N 15-100");
        check(&[(0, "(N"), (100, "(N"), (150, "(B")], "(N 0-15, (B 15-100");
    }

    #[test]
    fn the_longest_rhythm_comes_first() {
        let episode = |name: &str, from_s, to_s| Episode { name: name.to_owned(), from_s, to_s };
        let found = rhythms(&[episode("(B", 0.0, 1.0), episode("(N", 1.0, 5.0), episode("(B", 5.0, 6.0)]);
        let shown: Vec<String> =
            found.iter().map(|rhythm| format!("{} {} {}", rhythm.name, rhythm.episode_n, rhythm.seconds)).collect();
        assert_eq!(shown, ["(N 1 4", "(B 2 2"]);
    }
}
