//! Owns [`Tally`]: a table of beats or of counts of beats, keyed by code columns, with the few relational operations
//! that splits and evaluations need.
//!
//! A code is an index into a list that the caller keeps (its records, its classes, ...), so that a table of 100,000
//! beats holds no text.
//!
//! Invariant: counts are whole numbers and every listing is sorted, so that neither the order of the rows nor the
//! number of threads shows in a result (guarded by `tests::order_of_rows_does_not_show` and `tests/threads.rs`).

use polars::prelude::*;

/// Name of the column of counts; not allowed as a key.
const COUNT: &str = "beat_n";

/// Rows of codes, each with a number of beats.
#[derive(Clone, Debug)]
pub struct Tally {
    /// `u32` key columns in declaration order, then `beat_n` as `i64`.
    frame: DataFrame,
}

/// Why a tally cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    /// A code without an entry in the table that it is joined with.
    #[error("code {code} of `{key}` is not in a lookup of {entry_n} entries")]
    Lookup {
        /// The key column.
        key: String,
        /// The code.
        code: u32,
        /// Entries of the lookup.
        entry_n: usize,
    },
    /// Polars refused: unequal lengths, a key twice, or a key that is not there.
    #[error("the table of beats is malformed: {0}")]
    Frame(#[from] PolarsError),
}

impl Tally {
    /// One row a beat. All columns must have one length and different names.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if they do not.
    pub fn of_beats(keys: Vec<(&str, Vec<u32>)>) -> Result<Self, TallyError> {
        let beat_n = keys.first().map_or(0, |(_, codes)| codes.len());
        Self::weighted(keys, vec![1; beat_n])
    }

    /// One row a combination of codes, with the beats that it stands for.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if lengths differ or names repeat.
    pub fn weighted(keys: Vec<(&str, Vec<u32>)>, counts: Vec<i64>) -> Result<Self, TallyError> {
        let columns = keys.into_iter().map(|(key, codes)| Column::new(key.into(), codes));
        let columns = columns.chain([Column::new(COUNT.into(), counts)]).collect();
        Ok(Self { frame: DataFrame::new_infer_height(columns)? })
    }

    /// Sums the beats of every combination of `keys`; the other keys are gone. Combinations without a row do not
    /// appear.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if a key is not there.
    #[expect(deprecated, reason = "polars moved `sum` of groups to its lazy engine, which is left out of the build")]
    pub fn sum_by(&self, keys: &[&str]) -> Result<Self, TallyError> {
        // Polars gives an empty frame its own column types; an empty table needs no grouping.
        if self.frame.height() == 0 {
            return Ok(Self { frame: self.frame.select(keys.iter().copied().chain([COUNT]))? });
        }
        let mut frame = self.frame.group_by(keys.iter().copied())?.select([COUNT]).sum()?;
        frame.rename(&format!("{COUNT}_sum"), COUNT.into())?;
        Ok(Self { frame: frame.sort(keys.iter().copied(), SortMultipleOptions::default())? })
    }

    /// Joins a lookup table: adds the key `to`, which is `lookup[code of from]`. Rows whose entry is `None` are
    /// dropped, as in an inner join. The order of the rows stays.
    ///
    /// # Errors
    /// [`TallyError::Lookup`] for a code outside of the lookup, [`TallyError::Frame`] if `from` is not there.
    pub fn join(&self, from: &str, to: &str, lookup: &[Option<u32>]) -> Result<Self, TallyError> {
        let codes = self.frame.column(from)?.u32()?;
        if let Some(code) = codes.max().filter(|code| *code as usize >= lookup.len()) {
            return Err(TallyError::Lookup { key: from.to_owned(), code, entry_n: lookup.len() });
        }
        let lookup = UInt32Chunked::new(to.into(), lookup);
        let joined = lookup.into_series().take(codes)?.with_name(to.into());
        let found = joined.is_not_null();
        let mut frame = self.frame.clone();
        let place = frame.width() - 1;
        frame.insert_column(place, joined.into())?;
        Ok(Self { frame: frame.filter(&found)? })
    }

    /// Keeps the rows whose code of `key` is one of `codes`.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if the key is not there.
    pub fn keep(&self, key: &str, codes: &[u32]) -> Result<Self, TallyError> {
        let column = self.frame.column(key)?.u32()?;
        let mask = codes
            .iter()
            .fold(BooleanChunked::full(key.into(), false, column.len()), |mask, code| mask | column.equal(*code));
        Ok(Self { frame: self.frame.filter(&mask)? })
    }

    /// The codes of one key, row by row.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if the key is not there.
    pub fn codes(&self, key: &str) -> Result<Vec<u32>, TallyError> {
        Ok(self.frame.column(key)?.u32()?.into_no_null_iter().collect())
    }

    /// The beats of every combination of `keys` that has a row, sorted by the codes: `([code of each key], beats)`.
    ///
    /// # Errors
    /// [`TallyError::Frame`] if a key is not there.
    pub fn list<const N: usize>(&self, keys: [&str; N]) -> Result<Vec<([u32; N], i64)>, TallyError> {
        let summed = self.sum_by(&keys)?;
        let counts = summed.frame.column(COUNT)?.i64()?.into_no_null_iter();
        let mut rows: Vec<([u32; N], i64)> = counts.map(|beat_n| ([0; N], beat_n)).collect();
        for (place, key) in keys.iter().enumerate() {
            for (row, code) in rows.iter_mut().zip(summed.codes(key)?) {
                row.0[place] = code;
            }
        }
        Ok(rows)
    }

    /// All beats.
    ///
    /// # Errors
    /// Never, as long as the counts are whole numbers.
    pub fn total(&self) -> Result<i64, TallyError> {
        Ok(self.frame.column(COUNT)?.i64()?.sum().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn beats() -> Tally {
        Tally::of_beats(vec![("record", vec![1, 0, 0, 1, 1]), ("class", vec![0, 2, 0, 2, 2])]).unwrap()
    }

    #[test]
    fn sums_by_any_keys() {
        assert_eq!(beats().list(["record", "class"]).unwrap(), [([0, 0], 1), ([0, 2], 1), ([1, 0], 1), ([1, 2], 2)]);
        assert_eq!(beats().list(["class"]).unwrap(), [([0], 2), ([2], 3)]);
        assert_eq!(beats().sum_by(&["record"]).unwrap().list(["record"]).unwrap(), [([0], 2), ([1], 3)]);
        assert_eq!(beats().total().unwrap(), 5);
    }

    #[test]
    fn order_of_rows_does_not_show() {
        let turned = Tally::of_beats(vec![("record", vec![1, 1, 1, 0, 0]), ("class", vec![2, 2, 0, 0, 2])]).unwrap();
        assert_eq!(turned.list(["record", "class"]).unwrap(), beats().list(["record", "class"]).unwrap());
    }

    #[test]
    fn joins_a_lookup_and_drops_what_it_leaves_out() {
        let joined = beats().join("class", "group", &[Some(7), None, Some(9)]).unwrap();
        assert_eq!(joined.codes("group").unwrap(), [7, 9, 7, 9, 9]);
        let dropped = beats().join("class", "group", &[None, None, Some(9)]).unwrap();
        assert_eq!(dropped.list(["record", "group"]).unwrap(), [([0, 9], 1), ([1, 9], 2)]);
        let error = beats().join("class", "group", &[None, None]).unwrap_err().to_string();
        assert_eq!(error, "code 2 of `class` is not in a lookup of 2 entries");
    }

    #[test]
    fn keeps_some_codes() {
        assert_eq!(beats().keep("class", &[2]).unwrap().total().unwrap(), 3);
        assert_eq!(beats().keep("class", &[0, 2]).unwrap().total().unwrap(), 5);
        assert_eq!(beats().keep("class", &[]).unwrap().list(["record"]).unwrap(), []);
    }

    #[test]
    fn an_empty_table_has_no_rows() {
        let empty = Tally::of_beats(vec![("record", vec![]), ("class", vec![])]).unwrap();
        assert_eq!(empty.list(["record", "class"]).unwrap(), []);
        assert_eq!(empty.total().unwrap(), 0);
    }

    #[test]
    fn refuses_unequal_columns_and_unknown_keys() {
        assert!(Tally::of_beats(vec![("record", vec![1]), ("class", vec![])]).is_err());
        assert!(beats().sum_by(&["patient"]).is_err());
    }
}
