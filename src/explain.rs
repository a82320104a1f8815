//! Owns the answer to "why was this computed": which fields of a key differ from those of an earlier one, and which changes
//! further up they come from.
//!
//! Pure: it compares lists of fields. Where the earlier ones come from is the business of [`crate::history`].

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ecgpipe_sdk::RecordId;
use serde::{Deserialize, Serialize};

use crate::{
    digest::{HEX_N, KeyField, SHORT_HEX_N},
    event::JobName,
};

/// Why a job had to be computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Why {
    /// Nothing like it was computed before.
    New,
    /// The stage has not seen this record before; it has seen others.
    NewRecord {
        /// What differs besides the record and what is read of it, sorted by name.
        differences: Vec<Difference>,
    },
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
        /// For inputs that changed: what changed further up, as far as it is known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        causes: Vec<Cause>,
    },
    /// Its key is not known yet: another job has to be computed first. Only before a run.
    Waits {
        /// The job that it waits for.
        job: JobName,
        /// Why that has to be computed.
        why: Box<Why>,
    },
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The field: `param.length_n`, `input.signals`, `source.100.dat`, `code`, `seed`.
    pub field: String,
    /// Its earlier value, if it had one.
    pub old: Option<String>,
    /// Its value now, if it has one.
    pub new: Option<String>,
}

/// A change further up that an input's change comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// The job whose key changed.
    pub job: JobName,
    /// In what; `output.<port>` where the key did not change but the bytes did: the stage is not deterministic.
    pub difference: Difference,
}

/// The fields in which two keys differ, sorted by name.
#[must_use]
pub fn differences(old: &[KeyField], new: &[KeyField]) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(old, new, |old, new| {
        let field = old.or(new).expect("a field that differs is on one side").name.clone();
        let value = |field: Option<&KeyField>| field.map(|field| field.value.clone());
        found.push(Difference { field, old: value(old), new: value(new) });
    });
    found
}

/// In how many fields two keys differ.
#[must_use]
pub fn distance(old: &[KeyField], new: &[KeyField]) -> usize {
    let mut differing_n = 0;
    walk(old, new, |_, _| differing_n += 1);
    differing_n
}

/// Calls `differs` for each field that differs; both lists are sorted by name, as every key's are.
fn walk<'a>(
    old: &'a [KeyField],
    new: &'a [KeyField],
    mut differs: impl FnMut(Option<&'a KeyField>, Option<&'a KeyField>),
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        match order {
            Ordering::Less => differs(old.next(), None),
            Ordering::Greater => differs(None, new.next()),
            Ordering::Equal => {
                let (old, new) = (old.next(), new.next());
                if old != new {
                    differs(old, new);
                }
            }
        }
    }
}

/// The port and the record of an input's field: `input.windows[100]`.
#[must_use]
pub fn input_of(field: &str) -> Option<(&str, Option<RecordId>)> {
    let input = field.strip_prefix("input.")?;
    match input.strip_suffix(']').and_then(|input| input.split_once('[')) {
        Some((port, record)) => Some((port, Some(RecordId::new(record).ok()?))),
        None => Some((input, None)),
    }
}

impl Difference {
    /// Whether it is an input that was there before, and now has other bytes.
    #[must_use]
    pub fn is_changed_input(&self) -> bool {
        self.field.starts_with("input.") && self.old.is_some() && self.new.is_some()
    }

    /// Without what only one record has, so that the reasons of many records can be added up.
    fn general(&self) -> String {
        let digests = [&self.old, &self.new].into_iter().flatten().all(|value| is_digest(value));
        if self.field.starts_with("source.") {
            "raw files changed".to_owned()
        } else if let (Some((port, Some(_))), None, _) | (Some((port, Some(_))), _, None) =
            (input_of(&self.field), &self.old, &self.new)
        {
            format!("input.{port} has other records")
        } else if digests {
            format!("{} changed", self.field)
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| match value {
            None => "none".to_owned(),
            Some(value) if is_digest(value) => value[..SHORT_HEX_N].to_owned(),
            Some(value) => value.clone(),
        };
        write!(formatter, "{} {} -> {}", self.field, shown(&self.old), shown(&self.new))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { field, old, new } = &self.difference;
        match (field.starts_with("input."), old, new) {
            (true, None, _) => write!(formatter, "{}: {field} is new", self.job),
            (true, _, None) => write!(formatter, "{}: {field} is gone", self.job),
            _ => write!(formatter, "{}: {}", self.job, self.difference),
        }
    }
}

/// How many differences a line shows before it only counts the rest.
const SHOWN_N: usize = 3;

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => formatter.write_str("not computed before"),
            Self::NewRecord { differences } if differences.is_empty() => formatter.write_str("a new record"),
            Self::NewRecord { differences } => {
                write!(formatter, "a new record; {}", shown(differences.iter().map(ToString::to_string), "; "))
            }
            Self::Forced => formatter.write_str("forced"),
            Self::Gone => formatter.write_str("its result is no longer in the store"),
            Self::Damaged { message } => formatter.write_str(message),
            Self::Lost => formatter.write_str("its result was lost and is needed again"),
            Self::Changed { differences, causes } => {
                let one_input =
                    causes.is_empty() && differences.iter().filter(|one| one.is_changed_input()).count() == 1;
                let (inputs, own): (Vec<&Difference>, Vec<&Difference>) =
                    differences.iter().partition(|one| one.field.starts_with("input.") && !one_input);
                let named = |filter: fn(&Difference) -> bool, plural: &str, singular: &str| {
                    let fields: Vec<String> =
                        inputs.iter().filter(|one| filter(one)).map(|one| one.field.clone()).collect();
                    let verb = if fields.len() == 1 { singular } else { plural };
                    (!fields.is_empty()).then(|| format!("{} {verb}", shown(fields.into_iter(), ", ")))
                };
                let mut parts: Vec<String> = Vec::new();
                if !own.is_empty() {
                    parts.push(shown(own.into_iter().map(ToString::to_string), "; "));
                }
                parts.extend(named(|one| one.old.is_none(), "are new", "is new"));
                parts.extend(named(|one| one.new.is_none(), "are gone", "is gone"));
                parts.extend(named(Difference::is_changed_input, "changed", "changed"));
                formatter.write_str(&parts.join("; "))?;
                if causes.is_empty() {
                    return Ok(());
                }
                write!(formatter, " because {}", shown(causes.iter().map(ToString::to_string), ", "))
            }
            Self::Waits { job, why } => write!(formatter, "waits for {job} ({why})"),
        }
    }
}

impl Why {
    /// The reason without what only one record has (record, digests): equal for all records of a stage to which the same
    /// has happened.
    #[must_use]
    pub fn general(&self) -> String {
        match self {
            Self::Damaged { .. } => "its stored result is damaged".to_owned(),
            Self::NewRecord { differences } if !differences.is_empty() => {
                format!("a new record; {}", distinct(differences.iter().map(Difference::general), "; "))
            }
            Self::Changed { differences, causes } => {
                let mut parts: Vec<String> = Vec::new();
                let own = differences.iter().filter(|one| !one.field.starts_with("input."));
                let mut own: Vec<String> = own.map(Difference::general).collect();
                own.dedup();
                parts.extend(own);
                let ports = |filter: fn(&Difference) -> bool| -> BTreeSet<String> {
                    let inputs = differences.iter().filter(|one| filter(one));
                    inputs.filter_map(|one| Some(format!("input.{}", input_of(&one.field)?.0))).collect()
                };
                let mut named = |ports: BTreeSet<String>, verb: &str| {
                    if !ports.is_empty() {
                        parts.push(format!("{} {verb}", distinct(ports.into_iter(), ", ")));
                    }
                };
                named(ports(|one| one.old.is_none()), "has new records");
                named(ports(|one| one.new.is_none()), "has lost records");
                named(ports(Difference::is_changed_input), "changed");
                let because = distinct(
                    causes.iter().map(|cause| format!("{}: {}", cause.job.node, cause.difference.general())),
                    ", ",
                );
                let because = if because.is_empty() { because } else { format!(" because {because}") };
                parts.join("; ") + &because
            }
            Self::Waits { job, why } => format!("waits for {} ({})", job.node, why.general()),
            Self::New | Self::NewRecord { .. } | Self::Forced | Self::Gone | Self::Lost => self.to_string(),
        }
    }
}

/// The first few, and how many more there are.
fn shown(all: impl Iterator<Item = String>, separator: &str) -> String {
    let all: Vec<String> = all.collect();
    let first = all[..all.len().min(SHOWN_N)].join(separator);
    match all.len().saturating_sub(SHOWN_N) {
        0 => first,
        rest => format!("{first} and {rest} more"),
    }
}

/// [`shown`] without repetitions, in the order of their first places.
fn distinct(all: impl Iterator<Item = String>, separator: &str) -> String {
    let mut seen = BTreeMap::new();
    let distinct: Vec<String> = all.filter(|text| seen.insert(text.clone(), ()).is_none()).collect();
    shown(distinct.into_iter(), separator)
}

fn is_digest(value: &str) -> bool {
    value.len() == HEX_N && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Vec<KeyField> {
        list.iter().map(|(name, value)| KeyField { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
    }

    fn changed(old: &[(&str, &str)], new: &[(&str, &str)], causes: Vec<Cause>) -> Why {
        let (old, new) = (fields(old), fields(new));
        let differences = differences(&old, &new);
        assert_eq!(distance(&old, &new), differences.len());
        Why::Changed { differences, causes }
    }

    #[test]
    fn names_what_changed_appeared_and_went() {
        let old = [("param.a", "1"), ("param.b", "2"), ("stage", "window")];
        let new = [("param.a", "5"), ("seed", "7"), ("stage", "window")];
        let why = changed(&old, &new, Vec::new());
        assert_eq!(why.to_string(), "param.a 1 -> 5; param.b 2 -> none; seed none -> 7");
        assert_eq!(why.general(), why.to_string());
    }

    #[test]
    fn shortens_digests_and_long_lists() {
        let digest = "ab".repeat(32);
        let why = changed(&[("p0", &digest), ("p1", "1"), ("p2", "1"), ("p3", "1"), ("p4", "1")], &[], Vec::new());
        assert_eq!(why.to_string(), "p0 ababababab -> none; p1 1 -> none; p2 1 -> none and 2 more");
    }

    #[test]
    fn inputs_are_named_with_what_changed_further_up() {
        let (one, two) = ("ab".repeat(32), "cd".repeat(32));
        let [one, two] = [one.as_str(), two.as_str()];
        let cause = |record: &str, field: &str, old: &str, new: &str| Cause {
            job: JobName { node: "ingest".to_owned(), record: RecordId::new(record).ok() },
            difference: Difference { field: field.to_owned(), old: Some(old.to_owned()), new: Some(new.to_owned()) },
        };
        let why = changed(&[("input.x", one)], &[("input.x", two)], Vec::new());
        assert_eq!(why.to_string(), "input.x ababababab -> cdcdcdcdcd");
        assert_eq!(why.general(), "input.x changed");
        let causes = vec![cause("100", "source.100.dat", one, two), cause("101", "source.101.dat", one, two)];
        let old = [("input.x[100]", one), ("input.x[101]", one), ("input.x[102]", one), ("param.a", "1")];
        let new = [("input.x[100]", two), ("input.x[101]", two), ("input.x[103]", one), ("param.a", "2")];
        let why = changed(&old, &new, causes);
        let expected = "param.a 1 -> 2; input.x[103] is new; input.x[102] is gone; input.x[100], input.x[101] changed \
                        because ingest[100]: source.100.dat ababababab -> cdcdcdcdcd, ingest[101]: source.101.dat \
                        ababababab -> cdcdcdcdcd";
        assert_eq!(why.to_string(), expected);
        let general = "param.a 1 -> 2; input.x has new records; input.x has lost records; input.x changed because \
                       ingest: raw files changed";
        assert_eq!(why.general(), general);
        let job = JobName { node: "train".to_owned(), record: None };
        let waits = Why::Waits { job, why: Box::new(changed(&[("param.a", "1")], &[("param.a", "2")], Vec::new())) };
        assert_eq!(waits.to_string(), "waits for train (param.a 1 -> 2)");
    }

    #[test]
    fn the_field_of_an_input_has_a_port_and_perhaps_a_record() {
        assert_eq!(input_of("input.x"), Some(("x", None)));
        assert_eq!(input_of("input.x[100]"), Some(("x", RecordId::new("100").ok())));
        assert_eq!(input_of("param.x"), None);
    }

    #[test]
    fn what_earlier_runs_wrote_is_still_read() {
        let read = serde_json::from_str::<Why>("{\"reason\":\"changed\",\"differences\":[]}");
        assert!(matches!(read, Ok(Why::Changed { causes, .. }) if causes.is_empty()));
    }
}
