//! Owns [`StageError`]: why a stage could not do its work, in words for its user.

use crate::{kind::KindError, record::RecordId};

/// Why a stage failed. The message is a lowercase fragment that completes "failed to ...: "; advice goes into `help`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageError {
    /// What is wrong and where (record, lead, byte, file).
    pub message: String,
    /// What the user can do about it.
    pub help: Option<String>,
    /// The record at fault, where the stage knows it and the engine might not.
    pub record: Option<RecordId>,
    /// True when the stage stopped because it was asked to ([`crate::Context::check_cancelled`]).
    pub cancelled: bool,
}

impl StageError {
    /// An error with a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, record: None, cancelled: false }
    }

    /// Wraps a library's error, keeping the chain of its causes in the text.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(chain(error))
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the record at fault.
    #[must_use]
    pub fn record(mut self, record: &RecordId) -> Self {
        self.record = Some(record.clone());
        self
    }
}

/// An error and its causes in one line; a cause that an error tells itself is not told twice.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(&format!(": {inner}"));
        }
        cause = error.source();
    }
    text
}

impl std::fmt::Display for StageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.record {
            Some(record) => write!(formatter, "record {record}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl std::error::Error for StageError {}

impl From<KindError> for StageError {
    fn from(error: KindError) -> Self {
        Self::from_error(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::StageError;

    #[derive(Debug, thiserror::Error)]
    #[error("read {path}: {source}")]
    struct Telling {
        path: &'static str,
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("decode the header")]
    struct Silent(#[source] Telling);

    #[test]
    fn every_cause_is_told_once() {
        let telling = || Telling { path: "100.hea", source: std::io::Error::other("no luck") };
        assert_eq!(StageError::from_error(&telling()).message, "read 100.hea: no luck");
        assert_eq!(StageError::from_error(&Silent(telling())).message, "decode the header: read 100.hea: no luck");
    }
}
