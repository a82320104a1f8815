//! Time-stamped annotation lists (TAL) of EDF+: what stands in the bytes of a signal `EDF Annotations`.
//!
//! `+123.4 0x15 5.0 0x14 text 0x14 text 0x14 0x00`: onset, an optional duration, texts; then NULs up to the end of the
//! signal's bytes. The first list of a data record has an empty first text: it tells when the record starts.

use crate::error::shown;

const DURATION_MARK: u8 = 0x15;
const TEXT_MARK: u8 = 0x14;

/// One list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tal<'a> {
    /// Seconds after the start time of the file.
    pub(super) onset_s: f64,
    pub(super) duration_s: Option<f64>,
    /// The texts; empty ones are left out.
    pub(super) texts: Vec<&'a str>,
    /// Whether the first text is empty: the onset is that of the data record.
    pub(super) is_time_keeping: bool,
}

/// What is wrong, at which byte of the signal's bytes, and what stands there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TalError {
    pub(super) byte_offset: usize,
    pub(super) found: String,
    pub(super) problem: &'static str,
}

/// The lists in one data record's bytes of one annotation signal.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Tal<'_>>, TalError> {
    let fail = |byte_offset: usize, problem| {
        let rest = &bytes[byte_offset.min(bytes.len())..];
        let found = shown(&String::from_utf8_lossy(&rest[..rest.len().min(20)]));
        TalError { byte_offset, found, problem }
    };
    let mut lists = Vec::new();
    let mut at = 0;
    while bytes.get(at).is_some_and(|byte| *byte != 0) {
        let length = bytes[at..].iter().position(|byte| *byte == 0);
        let length = length.ok_or_else(|| fail(at, "is a list that does not end with a NUL; the file is damaged"))?;
        let list = &bytes[at..at + length];
        let Some(body) = list.strip_suffix(&[TEXT_MARK]) else {
            return Err(fail(at, "is a list that does not end with the byte 0x14; the file is damaged"));
        };
        let mut parts = body.split(|byte| *byte == TEXT_MARK);
        let head = parts.next().expect("splitting gives one part or more");
        let (onset, duration) = match head.iter().position(|byte| *byte == DURATION_MARK) {
            Some(mark) => (&head[..mark], Some(&head[mark + 1..])),
            None => (head, None),
        };
        let onset_s = match onset {
            [b'+' | b'-', digits @ ..] => decimal(digits).map(|size| if onset[0] == b'-' { -size } else { size }),
            _ => None,
        };
        let onset_s =
            onset_s.ok_or_else(|| fail(at, "does not begin with an onset, such as +12.5; the file is damaged"))?;
        let duration_s = match duration {
            // Some writers leave the mark but no number.
            None | Some([]) => None,
            Some(digits) => Some(
                decimal(digits)
                    .ok_or_else(|| fail(at + onset.len() + 1, "is not a duration, such as 2.5; the file is damaged"))?,
            ),
        };
        let mut texts = Vec::new();
        let mut text_at = at + head.len() + 1;
        let mut is_time_keeping = false;
        for (text_idx, part) in parts.enumerate() {
            let text = std::str::from_utf8(part)
                .map_err(|_| fail(text_at, "is an annotation that is not UTF-8; the file is damaged"))?;
            is_time_keeping |= text_idx == 0 && text.is_empty();
            texts.extend((!text.is_empty()).then_some(text));
            text_at += part.len() + 1;
        }
        lists.push(Tal { onset_s, duration_s, texts, is_time_keeping });
        at += length + 1;
        // Lists may be followed by one NUL each or by more.
        if bytes.get(at) == Some(&0) {
            break;
        }
    }
    match bytes[at.min(bytes.len())..].iter().position(|byte| *byte != 0) {
        Some(rest) => Err(fail(at + rest, "stands behind the unused bytes of the signal; the file is damaged")),
        None => Ok(lists),
    }
}

/// `12`, `12.5` or `.5`, without sign and exponent.
fn decimal(digits: &[u8]) -> Option<f64> {
    let is_decimal = !digits.is_empty()
        && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && digits.iter().filter(|byte| **byte == b'.').count() <= 1
        && digits.iter().any(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok()?.parse::<f64>().ok()?;
    (is_decimal && number.is_finite()).then_some(number)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let lists = match parse(bytes) {
            Ok(lists) => lists,
            Err(error) => {
                let text = format!("byte {}: `{}` {}", error.byte_offset, error.found, error.problem);
                assert_eq!(text, expected);
                return;
            }
        };
        let shown: Vec<String> = lists
            .iter()
            .map(|tal| {
                let keeping = if tal.is_time_keeping { "!" } else { "" };
                let duration = tal.duration_s.map(|duration| format!("~{duration}")).unwrap_or_default();
                format!("{keeping}{}{duration}[{}]", tal.onset_s, tal.texts.join("|"))
            })
            .collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn reads_the_examples_of_the_specification() {
        check(
            b"+180\x14Lights off\x14Close door\x14\0+180\x14Lights off\x14\0\0",
            "180[Lights off|Close door] 180[Lights off]",
        );
        check(b"+0\x14\x14\0+1.25\x150.5\x14Apnea\x14\0\0\0", "!0[] 1.25~0.5[Apnea]");
        check(b"+567\x14\x14\0", "!567[]");
        check("-0.5\u{15}\u{14}caf\u{e9}\u{14}\u{0}".as_bytes(), "-0.5[caf\u{e9}]");
        check(b"\0\0\0", "");
        check(b"", "");
    }

    #[test]
    fn refuses_what_is_none() {
        check(
            b"180\x14x\x14\0",
            "byte 0: `180\\u{14}x\\u{14}\\0` does not begin with an onset, such as +12.5; the file is damaged",
        );
        check(
            b"+1\x14x\x14",
            "byte 0: `+1\\u{14}x\\u{14}` is a list that does not end with a NUL; the file is damaged",
        );
        check(
            b"+1\x14x\0",
            "byte 0: `+1\\u{14}x\\0` is a list that does not end with the byte 0x14; the file is damaged",
        );
        check(
            b"+1\x15a\x14x\x14\0",
            "byte 3: `a\\u{14}x\\u{14}\\0` is not a duration, such as 2.5; the file is damaged",
        );
        check(
            b"+1\x14\x14\0\0\0+2\x14\x14\0",
            "byte 7: `+2\\u{14}\\u{14}\\0` stands behind the unused bytes of the signal; the file is damaged",
        );
        check(
            b"+1\x14\xff\x14\0",
            "byte 3: `\u{fffd}\\u{14}\\0` is an annotation that is not UTF-8; the file is damaged",
        );
        for onset in ["+", "+1.2.3", "+1e3", "+.", "+ 1", "+inf"] {
            assert!(parse(format!("{onset}\u{14}\u{14}\0").as_bytes()).is_err(), "{onset}");
        }
        assert_eq!(parse(b"+.5\x14\x14\0").unwrap()[0].onset_s, 0.5);
    }
}
