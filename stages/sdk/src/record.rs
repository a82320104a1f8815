//! Owns [`RecordId`]: the name of one recording, safe in file names, cache keys and reports.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of one recording, for example `100` or `p003`.
///
/// Invariant: 1 to 64 characters out of letters, digits, `_`, `-` and `.`, not starting with a dot, so that it can stand
/// in a file name (guarded by `tests::refuses_names_that_could_leave_a_folder`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(String);

/// The text is not usable as a record name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a record name: use 1 to 64 letters, digits, `_`, `-` or `.`, not starting with a dot")]
pub struct RecordIdError(String);

impl RecordId {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// If the name is empty, longer than 64 characters, or has a character that is not allowed.
    pub fn new(name: &str) -> Result<Self, RecordIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(RecordIdError(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<String> for RecordId {
    type Error = RecordIdError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<RecordId> for String {
    fn from(record: RecordId) -> Self {
        record.0
    }
}

#[cfg(test)]
mod tests {
    use super::RecordId;

    #[test]
    fn refuses_names_that_could_leave_a_folder() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0b", "ä", ".hidden", &"x".repeat(65)] {
            assert!(RecordId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["100", "p003", "sel-1.2_a"] {
            assert_eq!(RecordId::new(good).map(String::from).as_deref(), Ok(good));
        }
    }
}
