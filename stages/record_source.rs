//! Owns what the stages that read records have in common: which records of a database or folder are read and whose they are (the
//! parameters `records`, `exclude` and `patients`), what becomes of a record without annotations, and annotations as rows.

use std::collections::{BTreeMap, BTreeSet};

use ecgpipe_sdk::{RecordId, StageError, kinds::Annotation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do with a record that has no annotation file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationRule {
    /// Refuse it.
    #[default]
    Required,
    /// Read it as if its annotation file were empty.
    Optional,
}

/// What the parameters say.
#[derive(Clone, Copy, Debug)]
pub struct RecordChoice<'a> {
    /// The records to read; all of them without it.
    pub records: Option<&'a [String]>,
    /// Records to leave out.
    pub exclude: &'a [String],
    /// The patient, by record.
    pub patients: &'a BTreeMap<String, String>,
}

/// Where records are.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// What it is called in messages, which is also the parameter that names it: `database` or `folder`.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl RecordChoice<'_> {
    /// Refuses lists that cannot be meant.
    ///
    /// # Errors
    /// If `records` is empty, or a list names a record twice.
    pub fn check(&self) -> Result<(), String> {
        if self.records.is_some_and(<[String]>::is_empty) {
            return Err("`records` must name one record or more; leave it out to read all".to_owned());
        }
        for (name, records) in [("records", self.records.unwrap_or_default()), ("exclude", self.exclude)] {
            let mut seen = BTreeSet::new();
            if let Some(twice) = records.iter().find(|&record| !seen.insert(record)) {
                return Err(format!("`{name}` must name each record once, but `{twice}` stands there twice"));
            }
        }
        Ok(())
    }

    /// Whether a record is read.
    #[must_use]
    pub fn is_wanted(&self, record: &str) -> bool {
        let is_named = self.records.is_none_or(|records| records.iter().any(|one| one == record));
        is_named && !self.exclude.iter().any(|one| one == record)
    }

    /// The records to read, each with its path, out of all paths as (record, path).
    ///
    /// # Errors
    /// If two paths are of one record, a list names a record that is not there, a name cannot name a record, or nothing is
    /// left.
    pub fn choose<'p>(
        &self,
        origin: Origin<'_>,
        paths: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> Result<Vec<(RecordId, &'p str)>, StageError> {
        let Origin { kind, name: origin_name } = origin;
        let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, path) in paths {
            if let Some(other) = by_name.insert(name, path) {
                let message = format!("{kind} {origin_name} has two records named `{name}`: {other} and {path}");
                let help =
                    format!("results are kept by record: give `{kind}` the folder of one of them, or rename one");
                return Err(StageError::new(message).help(help));
            }
        }
        let named = self.records.into_iter().flatten().map(|record| ("records", record));
        let named = named.chain(self.exclude.iter().map(|record| ("exclude", record)));
        let named = named.chain(self.patients.keys().map(|record| ("patients", record)));
        let mut unknown = named.filter(|(_, record)| !by_name.contains_key(record.as_str()));
        if let Some((parameter, record)) = unknown.next() {
            let record = shown(record);
            let message = format!("`{parameter}` names record `{record}`, but {kind} {origin_name} has no such record");
            return Err(StageError::new(message).help(format!("the {kind} has {}", listing(by_name.keys().copied()))));
        }
        let mut chosen = Vec::new();
        for (name, path) in by_name.iter().filter(|(name, _)| self.is_wanted(name)) {
            let record = RecordId::new(name).map_err(|error| {
                StageError::new(format!("{kind} {origin_name}: {error}"))
                    .help("rename the record, or leave it out by `exclude`")
            })?;
            chosen.push((record, *path));
        }
        if chosen.is_empty() {
            let message = format!("no record of {kind} {origin_name} is left: `exclude` names all of them");
            return Err(StageError::new(message).help("take a record out of `exclude`"));
        }
        Ok(chosen)
    }
}

/// Names, or the first of them.
fn listing<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN_N: usize = 60;
    let rest_n = names.len().saturating_sub(SHOWN_N);
    let shown: Vec<&str> = names.take(SHOWN_N).collect();
    let rest = if rest_n > 0 { format!(" and {rest_n} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// Annotations as rows, at positions in samples of leads that have so many of them in a frame.
#[must_use]
pub fn annotation_rows(decoded: &ecgpipe_wfdb::Annotations, frame_sample_n: u32) -> Vec<Annotation> {
    let convert = |annotation: &ecgpipe_wfdb::Annotation| {
        // A file may define symbols of its own for codes that have none.
        let symbol = match decoded.definitions.get(&annotation.code.number()) {
            Some(definition) => definition.symbol.clone(),
            None => annotation.code.symbol().to_owned(),
        };
        let frame_idx = i64::try_from(annotation.sample_idx).expect("the position is in the record");
        Annotation {
            sample_idx: frame_idx * i64::from(frame_sample_n),
            symbol,
            subtype: annotation.subtype.into(),
            chan: annotation.chan.into(),
            num: annotation.num.into(),
            aux: annotation.aux_text().into_owned(),
        }
    };
    decoded.items.iter().map(convert).collect()
}

/// A library's error, whose text holds its causes and ends in `; ADVICE`.
#[must_use]
pub fn told(error: &dyn std::error::Error) -> StageError {
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((message, help)) => StageError::new(message).help(help),
        None => StageError::new(text),
    }
}

/// Foreign text, fit to be shown.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}
