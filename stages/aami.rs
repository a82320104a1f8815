//! Owns the map from WFDB beat symbols to the five AAMI classes, under both rules for escape beats, and the list of
//! paced records.
//!
//! Sources: ANSI/AAMI EC57 (classes N, S, V, F, Q), the comparator `bxb` of the WFDB software package 10.7 (rule
//! [`EscapeRule::Ec57`]), de Chazal, O'Dwyer and Reilly 2004 (rule [`EscapeRule::DeChazal`]).
//!
//! It must not know splits or scores.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A heartbeat class of ANSI/AAMI EC57.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AamiClass {
    /// Any beat that is in no other class: normal and bundle branch block beats.
    N,
    /// Supraventricular ectopic beat.
    S,
    /// Ventricular ectopic beat.
    V,
    /// Fusion of a ventricular and a normal beat.
    F,
    /// Unknown: paced, fusion of a paced and a normal beat, unclassifiable.
    Q,
}

impl AamiClass {
    /// The classes in the order of every table, probability vector and label map.
    pub const ALL: [Self; 5] = [Self::N, Self::S, Self::V, Self::F, Self::Q];

    /// The letter: `N`, `S`, `V`, `F` or `Q`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::N => "N",
            Self::S => "S",
            Self::V => "V",
            Self::F => "F",
            Self::Q => "Q",
        }
    }

    /// A name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::N => "normal or bundle branch block",
            Self::S => "supraventricular ectopic",
            Self::V => "ventricular ectopic",
            Self::F => "fusion of ventricular and normal",
            Self::Q => "paced or unclassifiable",
        }
    }

    /// The place in [`AamiClass::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::N => 0,
            Self::S => 1,
            Self::V => 2,
            Self::F => 3,
            Self::Q => 4,
        }
    }

    /// The class of a letter.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.letter() == letter)
    }
}

impl std::fmt::Display for AamiClass {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.letter())
    }
}

/// To which class escape beats (`e`, `j`, `n`) belong. Published results differ in this, so it is always stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EscapeRule {
    /// Escape beats are N, as in de Chazal 2004 and most papers on DS1 and DS2.
    #[default]
    DeChazal,
    /// Escape beats are S, as in the standard's comparator `bxb`.
    Ec57,
}

impl EscapeRule {
    /// Both rules.
    pub const ALL: [Self; 2] = [Self::DeChazal, Self::Ec57];

    /// `de_chazal` or `ec57`, as in parameters and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeChazal => "de_chazal",
            Self::Ec57 => "ec57",
        }
    }

    /// The class of a WFDB symbol; `None` for what is not a beat (rhythm changes, noise, ventricular flutter waves
    /// `!`).
    #[must_use]
    pub fn class(self, symbol: &str) -> Option<AamiClass> {
        match symbol {
            "N" | "L" | "R" | "B" => Some(AamiClass::N),
            "e" | "j" | "n" => Some(match self {
                Self::DeChazal => AamiClass::N,
                Self::Ec57 => AamiClass::S,
            }),
            "A" | "a" | "J" | "S" => Some(AamiClass::S),
            "V" | "E" | "r" => Some(AamiClass::V),
            "F" => Some(AamiClass::F),
            "/" | "f" | "Q" | "?" => Some(AamiClass::Q),
            _ => None,
        }
    }
}

/// Records of the MIT-BIH Arrhythmia Database with paced beats, which EC57 leaves out of figures on beat classes.
pub const PACED_RECORDS: [&str; 4] = ["102", "104", "107", "217"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_places_agree() {
        for (place, class) in AamiClass::ALL.into_iter().enumerate() {
            assert_eq!((class.index(), AamiClass::from_letter(class.letter())), (place, Some(class)));
        }
        assert_eq!(AamiClass::from_letter("n"), None);
    }

    #[test]
    fn every_beat_symbol_has_a_class_and_nothing_else_has() {
        let beats = "NLRBejnAaJSVErF/fQ?";
        for rule in EscapeRule::ALL {
            let classes: String =
                beats.chars().filter_map(|symbol| rule.class(&symbol.to_string())).map(AamiClass::letter).collect();
            let escapes = if rule == EscapeRule::DeChazal { "NNN" } else { "SSS" };
            assert_eq!(classes, format!("NNNN{escapes}SSSSVVVFQQQQ"));
            for other in ["+", "~", "|", "!", "[", "]", "x", "(", ")", "p", "t", "u", "\"", "", "NN"] {
                assert_eq!(rule.class(other), None, "{other}");
            }
        }
    }
}
