//! The `confusion` kind: how often each class was taken for each.

use bytes::Bytes;

use super::table_error;
use crate::{
    kind::{Kind, KindError},
    table::{Table, TableWriter},
};

/// Confusion counts for several views of one set of predictions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confusion {
    /// Class names, in table order.
    pub classes: Vec<String>,
    /// Counts that are not zero.
    pub rows: Vec<ConfusionRow>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionRow {
    /// Which beats count: `all`, `aami` (without paced records), ...
    pub view: String,
    /// Which escape-beat rule made the classes: `de_chazal` or `ec57`.
    pub escape_rule: String,
    /// The record, or `*` for all together.
    pub record: String,
    /// Reference class.
    pub truth: String,
    /// Predicted class; `missed` for a reference beat that was not detected.
    pub predicted: String,
    /// Beats.
    pub count: i64,
}

impl Confusion {
    /// The matrix of one view: `[truth][predicted]` in the order of `classes`; missed beats are left out.
    #[must_use]
    pub fn matrix(&self, view: &str, escape_rule: &str, record: &str) -> Vec<Vec<i64>> {
        let class_idx = |name: &str| self.classes.iter().position(|class| class == name);
        let mut matrix = vec![vec![0; self.classes.len()]; self.classes.len()];
        for row in &self.rows {
            if row.view == view
                && row.escape_rule == escape_rule
                && row.record == record
                && let (Some(truth), Some(predicted)) = (class_idx(&row.truth), class_idx(&row.predicted))
            {
                matrix[truth][predicted] += row.count;
            }
        }
        matrix
    }
}

impl Kind for Confusion {
    const NAME: &'static str = "confusion";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "confusion counts by view, escape-beat rule, record, reference and predicted class";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("classes", &self.classes)
            .text("view", self.rows.iter().map(|row| &row.view))
            .text("escape_rule", self.rows.iter().map(|row| &row.escape_rule))
            .text("record", self.rows.iter().map(|row| &row.record))
            .text("truth", self.rows.iter().map(|row| &row.truth))
            .text("predicted", self.rows.iter().map(|row| &row.predicted))
            .i64("count", self.rows.iter().map(|row| row.count))
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let (views, rules, records) = (table.text("view")?, table.text("escape_rule")?, table.text("record")?);
            let (truths, predicteds, counts) = (table.text("truth")?, table.text("predicted")?, table.i64("count")?);
            let rows = views.into_iter().zip(rules).zip(records).zip(truths).zip(predicteds).zip(counts);
            let rows = rows.map(|(((((view, escape_rule), record), truth), predicted), count)| ConfusionRow {
                view,
                escape_rule,
                record,
                truth,
                predicted,
                count,
            });
            Ok(Self { classes: table.meta("classes")?, rows: rows.collect() })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_gives_a_matrix() {
        let row = |truth: &str, predicted: &str, count| ConfusionRow {
            view: "all".to_owned(),
            escape_rule: "ec57".to_owned(),
            record: "*".to_owned(),
            truth: truth.to_owned(),
            predicted: predicted.to_owned(),
            count,
        };
        let confusion = Confusion {
            classes: vec!["N".to_owned(), "V".to_owned()],
            rows: vec![row("N", "N", 5), row("V", "N", 1), row("V", "missed", 2)],
        };
        super::super::check_round_trip(&confusion);
        assert_eq!(confusion.matrix("all", "ec57", "*"), [[5, 0], [1, 0]]);
    }
}
