//! Annotation codes: the table of `ecgcodes.h`, their symbols and which of them are beats.

/// What an annotation says, as a number of `ecgcodes.h` (WFDB 10.7).
///
/// Codes 1 to 49 are legal; 15, 17 and 42 to 49 have no meaning of their own (a file may define one, see
/// [`crate::CodeDefinition`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnotationCode(u8);

/// Symbol and description by code. The bracketed symbols are those that the C library prints for codes without one.
const TABLE: [(&str, &str); 50] = [
    (" ", "not an annotation"),
    ("N", "normal beat"),
    ("L", "left bundle branch block beat"),
    ("R", "right bundle branch block beat"),
    ("a", "aberrated atrial premature beat"),
    ("V", "premature ventricular contraction"),
    ("F", "fusion of ventricular and normal beat"),
    ("J", "nodal (junctional) premature beat"),
    ("A", "atrial premature beat"),
    ("S", "supraventricular premature or ectopic beat"),
    ("E", "ventricular escape beat"),
    ("j", "nodal (junctional) escape beat"),
    ("/", "paced beat"),
    ("Q", "unclassifiable beat"),
    ("~", "change in signal quality"),
    ("[15]", "code 15, without a meaning"),
    ("|", "isolated QRS-like artifact"),
    ("[17]", "code 17, without a meaning"),
    ("s", "ST segment change"),
    ("T", "T-wave change"),
    ("*", "systole"),
    ("D", "diastole"),
    ("\"", "comment"),
    ("=", "measurement"),
    ("p", "P-wave peak"),
    ("B", "bundle branch block beat (unspecified)"),
    ("^", "non-captured pacemaker artifact"),
    ("t", "T-wave peak"),
    ("+", "rhythm change"),
    ("u", "U-wave peak"),
    ("?", "beat not classified during learning"),
    ("!", "ventricular flutter wave"),
    ("[", "start of ventricular flutter or fibrillation"),
    ("]", "end of ventricular flutter or fibrillation"),
    ("e", "atrial escape beat"),
    ("n", "supraventricular escape beat"),
    ("@", "link to external data"),
    ("x", "non-conducted P-wave (blocked atrial premature beat)"),
    ("f", "fusion of paced and normal beat"),
    ("(", "waveform onset"),
    (")", "waveform end"),
    ("r", "R-on-T premature ventricular contraction"),
    ("[42]", "code 42, user-defined"),
    ("[43]", "code 43, user-defined"),
    ("[44]", "code 44, user-defined"),
    ("[45]", "code 45, user-defined"),
    ("[46]", "code 46, user-defined"),
    ("[47]", "code 47, user-defined"),
    ("[48]", "code 48, user-defined"),
    ("[49]", "code 49, user-defined"),
];

impl AnnotationCode {
    /// `N`: normal beat.
    pub const NORMAL: AnnotationCode = AnnotationCode(1);
    /// `V`: premature ventricular contraction.
    pub const PVC: AnnotationCode = AnnotationCode(5);
    /// `F`: fusion of ventricular and normal beat.
    pub const FUSION: AnnotationCode = AnnotationCode(6);
    /// `S`: supraventricular premature or ectopic beat.
    pub const SVPB: AnnotationCode = AnnotationCode(9);
    /// `Q`: unclassifiable beat.
    pub const UNKNOWN: AnnotationCode = AnnotationCode(13);
    /// `~`: change in signal quality.
    pub const NOISE: AnnotationCode = AnnotationCode(14);
    /// `"`: comment.
    pub const NOTE: AnnotationCode = AnnotationCode(22);
    /// `+`: rhythm change, named in the auxiliary text.
    pub const RHYTHM: AnnotationCode = AnnotationCode(28);
    /// `!`: ventricular flutter wave.
    pub const FLUTTER_WAVE: AnnotationCode = AnnotationCode(31);

    /// The code of that number; `None` outside 1 to 49.
    pub fn new(number: u8) -> Option<AnnotationCode> {
        (1..=49).contains(&number).then_some(AnnotationCode(number))
    }

    /// The code of a symbol such as `N` or `V`; `None` if no code has it.
    pub fn from_symbol(symbol: &str) -> Option<AnnotationCode> {
        let number = TABLE.iter().skip(1).position(|(known, _)| *known == symbol)? + 1;
        Some(AnnotationCode(u8::try_from(number).expect("the table has 50 rows")))
    }

    /// The number of the code, 1 to 49.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The symbol that the WFDB tools print, such as `N`; `[42]` for a code without one.
    pub fn symbol(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// What the code means, in words.
    pub fn description(self) -> &'static str {
        TABLE[usize::from(self.0)].1
    }

    /// Whether the code marks a QRS complex, as `isqrs` of the C library's `ecgmap.h` (and `is_qrs` of wfdb-python)
    /// has it: the beats, and ventricular flutter waves.
    pub fn is_qrs(self) -> bool {
        matches!(self.0, 1..=13 | 25 | 30 | 31 | 34 | 35 | 38 | 41)
    }

    /// Whether the code marks a beat: [`is_qrs`](Self::is_qrs) without flutter waves (`!`).
    ///
    /// ANSI/AAMI EC57 does not count flutter waves as beats, and neither does the usual total of the MIT-BIH
    /// Arrhythmia Database: 109,494 beats, and 472 flutter waves in record 207.
    pub fn is_beat(self) -> bool {
        self.is_qrs() && self != AnnotationCode::FLUTTER_WAVE
    }
}

impl std::fmt::Display for AnnotationCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.symbol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_name_codes_both_ways() {
        for number in 1..=49 {
            let code = AnnotationCode::new(number).expect("legal");
            assert_eq!(AnnotationCode::from_symbol(code.symbol()), Some(code));
        }
        assert_eq!(AnnotationCode::new(0), None);
        assert_eq!(AnnotationCode::new(50), None);
        assert_eq!(AnnotationCode::from_symbol(" "), None);
        assert_eq!(AnnotationCode::from_symbol("NN"), None);
    }

    /// The symbols for which `wfdb.io.annotation.is_qrs` of wfdb-python 4.3.1 is true:
    /// `"".join(l.symbol for l in wfdb.io.annotation.ann_labels if wfdb.io.annotation.is_qrs[l.label_store])`.
    #[test]
    fn qrs_codes_are_those_of_wfdb_python() {
        let symbols: String =
            (1..=49).filter_map(AnnotationCode::new).filter(|code| code.is_qrs()).map(AnnotationCode::symbol).collect();
        assert_eq!(symbols, "NLRaVFJASEj/QB?!enfr");
        assert!(!AnnotationCode::FLUTTER_WAVE.is_beat());
    }
}
