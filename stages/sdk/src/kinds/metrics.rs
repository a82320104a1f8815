//! The `metrics` kind: named numbers over steps, shown by every tracker.

use bytes::Bytes;

use super::table_error;
use crate::{
    kind::{Kind, KindError, MetricPoint},
    table::{Table, TableWriter},
};

/// Metric points in the order in which they were measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The points.
    pub points: Vec<MetricPoint>,
}

impl Metrics {
    /// Adds a point.
    pub fn push(&mut self, key: impl Into<String>, step: i64, value: f64) {
        self.points.push(MetricPoint { key: key.into(), step, value });
    }
}

impl Kind for Metrics {
    const NAME: &'static str = "metrics";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "named numbers over steps: key, step, value";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        TableWriter::new(Self::NAME, Self::VERSION)
            .text("key", self.points.iter().map(|point| &point.key))
            .i64("step", self.points.iter().map(|point| point.step))
            .f64("value", self.points.iter().map(|point| point.value).collect())
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let rows = table.text("key")?.into_iter().zip(table.i64("step")?).zip(table.f64("value")?);
            Ok(Self { points: rows.map(|((key, step), value)| MetricPoint { key, step, value }).collect() })
        };
        read().map_err(table_error::<Self>)
    }

    fn metrics(&self) -> Vec<MetricPoint> {
        self.points.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let mut metrics = Metrics::default();
        metrics.push("train/loss", 1, 0.75);
        metrics.push("test/f1_s", 0, f64::INFINITY);
        super::super::check_round_trip(&metrics);
    }
}
