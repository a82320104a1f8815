//! Owns the answer to "why was this computed": which fields of a key differ from those of an earlier one.
//!
//! Pure: it compares two lists of fields. Where the earlier one comes from is the caller's business.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::digest::KeyField;

/// Why a job had to be computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Why {
    /// Nothing like it was computed before.
    New,
    /// The user asked for it.
    Forced,
    /// It has run before with the same key, but the store no longer has the result.
    Gone,
    /// What the store had was damaged.
    Damaged {
        /// What was found.
        message: String,
    },
    /// Its outputs were found lost or damaged when a later stage read them.
    Lost,
    /// Some fields of the key changed.
    Changed {
        /// Which, sorted by name.
        differences: Vec<Difference>,
    },
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field: `param.length_n`, `input.signals`, `source.100.dat`, `code`, `seed`.
    pub field: String,
    /// Its earlier value, if it had one.
    pub old: Option<String>,
    /// Its value now, if it has one.
    pub new: Option<String>,
}

/// Compares the fields of a job with those of its nearest earlier run.
#[must_use]
pub fn why(fields: &[KeyField], earlier: Option<&[KeyField]>, same_key_before: bool) -> Why {
    match earlier {
        Some(earlier) => Why::Changed { differences: differences(earlier, fields) },
        None if same_key_before => Why::Gone,
        None => Why::New,
    }
}

/// The fields in which two keys differ, sorted by name.
#[must_use]
pub fn differences(old: &[KeyField], new: &[KeyField]) -> Vec<Difference> {
    fn by_name(fields: &[KeyField]) -> BTreeMap<&str, &str> {
        fields.iter().map(|field| (field.name.as_str(), field.value.as_str())).collect()
    }
    let (old, new) = (by_name(old), by_name(new));
    let names: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let differing = names.into_iter().filter(|name| old.get(name) != new.get(name));
    let owned = |value: Option<&&str>| value.map(|value| (*value).to_owned());
    differing
        .map(|name| Difference { field: name.to_owned(), old: owned(old.get(name)), new: owned(new.get(name)) })
        .collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| match value {
            None => "none".to_owned(),
            Some(value) if is_digest(value) => value[..10].to_owned(),
            Some(value) => value.clone(),
        };
        write!(formatter, "{} {} -> {}", self.field, shown(&self.old), shown(&self.new))
    }
}

/// How many differences a line shows before it only counts the rest.
const SHOWN_N: usize = 3;

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => formatter.write_str("not computed before"),
            Self::Forced => formatter.write_str("forced"),
            Self::Gone => formatter.write_str("its result is no longer in the store"),
            Self::Damaged { message } => formatter.write_str(message),
            Self::Lost => formatter.write_str("its result was lost and is needed again"),
            Self::Changed { differences } => {
                let shown: Vec<String> = differences.iter().take(SHOWN_N).map(ToString::to_string).collect();
                formatter.write_str(&shown.join("; "))?;
                match differences.len().saturating_sub(SHOWN_N) {
                    0 => Ok(()),
                    rest => write!(formatter, "; and {rest} more"),
                }
            }
        }
    }
}

fn is_digest(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Vec<KeyField> {
        list.iter().map(|(name, value)| KeyField { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
    }

    #[test]
    fn names_what_changed_appeared_and_went() {
        let old = fields(&[("param.a", "1"), ("param.b", "2"), ("stage", "window")]);
        let new = fields(&[("param.a", "5"), ("seed", "7"), ("stage", "window")]);
        let why = why(&new, Some(&old), false);
        assert_eq!(why.to_string(), "param.a 1 -> 5; param.b 2 -> none; seed none -> 7");
    }

    #[test]
    fn tells_new_from_gone() {
        assert_eq!(why(&[], None, false), Why::New);
        assert_eq!(why(&[], None, true), Why::Gone);
    }

    #[test]
    fn shortens_digests_and_long_lists() {
        let digest = "ab".repeat(32);
        let old = fields(&[("input.a", &digest), ("p1", "1"), ("p2", "1"), ("p3", "1"), ("p4", "1")]);
        let shown = why(&[], Some(&old), false).to_string();
        assert_eq!(shown, "input.a ababababab -> none; p1 1 -> none; p2 1 -> none; and 2 more");
    }
}
