//! What MLflow accepts as a name or a value, and how everything else is made to fit.
//!
//! Invariant: [`allowed_name`] is a pure function of the name alone, so that a metric has the same name in every run and
//! runs stay comparable (`renames_are_stable_and_do_not_collide`).

use std::borrow::Cow;

use crate::utc::Utc;

/// Longest name of a metric, parameter or tag, in characters (MLflow `MAX_ENTITY_KEY_LENGTH`, 3.17.2).
pub(super) const NAME_CHAR_N: usize = 250;
/// Longest value of a parameter, in characters (`MAX_PARAM_VAL_LENGTH`, 3.17.2).
pub(super) const PARAM_CHAR_N: usize = 6000;
/// The same on servers older than 2.8, tried when the longer value is refused.
pub(super) const OLD_PARAM_CHAR_N: usize = 500;
/// Longest value of a tag, in characters (`MAX_TAG_VAL_LENGTH`, 3.17.2).
pub(super) const TAG_CHAR_N: usize = 8000;
/// How much of a dataset's digest is shown beside its name. MLflow takes 36 characters at most
/// (`MAX_DATASET_DIGEST_SIZE`, 3.17.2); its own are 8, and more than 12 push the name out of its column.
pub(super) const DATASET_DIGEST_CHAR_N: usize = 12;

/// The name under which MLflow is told about `name`.
///
/// MLflow takes letters, digits, `_ - . : /` and spaces, at most 250 characters, and refuses names that are no clean
/// relative path (`/a`, `a//b`, `a/../b`). Such names pass unchanged. In every other name the offending characters
/// become `_`, and `-` with six hexadecimal digits of the BLAKE3 of the original is added, so that two originals do not
/// fall together: `F1 (macro)` becomes `F1 _macro_-9d0f6c` or the like, in every run the same.
pub fn allowed_name(name: &str) -> Cow<'_, str> {
    let char_allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' ');
    let segment_allowed = |segment: &str| !matches!(segment, "" | "." | "..");
    if name.chars().all(char_allowed)
        && name.split('/').all(segment_allowed)
        && !name.starts_with("..")
        && !name.trim().is_empty()
        && name.chars().count() <= NAME_CHAR_N
    {
        return Cow::Borrowed(name);
    }
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let suffix = format!("-{}", &digest.as_str()[..6]);
    let segments = name.split('/').filter(|segment| segment_allowed(segment)).collect::<Vec<_>>();
    let cleaned = segments.join("/").chars().map(|c| if char_allowed(c) { c } else { '_' }).collect::<String>();
    let cleaned = cleaned.trim_start_matches('.');
    let kept = cleaned.chars().take(NAME_CHAR_N - suffix.len()).collect::<String>();
    Cow::Owned(if kept.trim().is_empty() { format!("name{suffix}") } else { kept + &suffix })
}

/// `text` in at most `char_n` characters; `None` when it fits as it is. What is cut ends in `…`.
pub(super) fn cut(text: &str, char_n: usize) -> Option<String> {
    // The number of bytes bounds the number of characters, which is the usual case and saves the count.
    if text.len() <= char_n || text.chars().count() <= char_n {
        return None;
    }
    Some(text.chars().take(char_n - 1).chain(['…']).collect())
}

/// A path inside a URL: each segment percent-encoded, the slashes kept.
pub(super) fn url_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Base64 with padding (RFC 4648), as the `Basic` scheme wants it.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| (word << 8) | u32::from(byte)) << (8 * (3 - group.len()));
        for sextet_idx in 0..4 {
            if sextet_idx <= group.len() {
                let sextet = (word >> (18 - 6 * sextet_idx)) & 63;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// A time in milliseconds since 1970 as `2026-11-23 06:13:56.042000` (UTC), the form that an `MLmodel` file uses.
pub(super) fn utc_text(time_ms: i64) -> String {
    let Utc { year, month, day, hour, minute, second, millisecond } = Utc::from_ms(time_ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millisecond:03}000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn accepted_names_pass_unchanged() {
        for name in ["train/loss", "F1 macro", "a.b-c_d:e", "évaluation/précision", "system/cpu"] {
            assert_eq!(allowed_name(name), name);
        }
    }

    #[test]
    fn renames_are_stable_and_do_not_collide() {
        let names =
            ["F1 (macro)", "F1 [macro]", "/abs", "abs/", "a//b", "a/../b", "a/./b", "", " ", "..", "%", "#", "..a"];
        let mut seen = BTreeSet::new();
        for name in names {
            let allowed = allowed_name(name).into_owned();
            assert_eq!(allowed_name(&allowed), allowed, "the name for {name:?} is itself accepted");
            assert!(seen.insert(allowed.clone()), "{allowed} stands for two names");
        }
        assert!(allowed_name("F1 (macro)").starts_with("F1 _macro_-"));
        let long = "x".repeat(300);
        assert_eq!(allowed_name(&long).chars().count(), NAME_CHAR_N);
        assert_ne!(allowed_name(&long), allowed_name(&"x".repeat(301)));
    }

    #[test]
    fn cuts_by_characters_not_bytes() {
        assert_eq!(cut("ééé", 3), None);
        assert_eq!(cut("éééé", 3).as_deref(), Some("éé…"));
    }

    #[test]
    fn encodes_as_the_standards_say() {
        // RFC 4648, section 10.
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(url_path("plots/a b é.png"), "plots/a%20b%20%C3%A9.png");
        // date -u -d @1795414436.042 '+%F %T.%6N'
        assert_eq!(utc_text(1_795_414_436_042), "2026-11-23 06:13:56.042000");
        // date -u -d @951782400 '+%F %T.%6N'
        assert_eq!(utc_text(951_782_400_000), "2000-02-29 00:00:00.000000");
    }
}
