//! The `calibration` kind: what turns a model's probabilities into frequencies, and below which one a beat is uncertain.

use bytes::Bytes;

use super::{check_lengths, table_error};
use crate::{
    kind::{Kind, KindError},
    table::{Table, TableWriter},
};

/// Log-probabilities are divided by the temperature, then each class's bias is added; the rest is softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Above 1 where the model is surer than it should be.
    pub temperature: f64,
    /// Class names in the order of the probabilities.
    pub classes: Vec<String>,
    /// What is added to the logarithm of each class's odds; all 0 for temperature alone.
    pub bias: Vec<f64>,
    /// A beat whose largest calibrated probability is lower than this is uncertain.
    pub uncertain_below: f64,
    /// Share of the beats at or above it that were right where it was chosen.
    pub accuracy: f64,
    /// Share of the beats at or above it there.
    pub coverage: f64,
    /// Beats that it was fitted on.
    pub beat_n: u64,
}

impl Kind for Calibration {
    const NAME: &'static str = "calibration";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "temperature and class biases that make probabilities frequencies, and the bound of uncertain beats";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        check_lengths::<Self>(self.classes.len(), &[("bias", self.bias.len())])?;
        TableWriter::new(Self::NAME, Self::VERSION)
            .meta("temperature", &self.temperature)
            .meta("uncertain_below", &self.uncertain_below)
            .meta("accuracy", &self.accuracy)
            .meta("coverage", &self.coverage)
            .meta("beat_n", &self.beat_n)
            .text("class", self.classes.iter())
            .f64("bias", self.bias.clone())
            .finish()
            .map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            Ok(Self {
                temperature: table.meta("temperature")?,
                classes: table.text("class")?,
                bias: table.f64("bias")?,
                uncertain_below: table.meta("uncertain_below")?,
                accuracy: table.meta("accuracy")?,
                coverage: table.meta("coverage")?,
                beat_n: table.meta("beat_n")?,
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        super::super::check_round_trip(&Calibration {
            temperature: 1.25,
            classes: vec!["N".to_owned(), "V".to_owned()],
            bias: vec![0.0, -0.3],
            uncertain_below: 0.7,
            accuracy: 0.99,
            coverage: 0.875,
            beat_n: 50_000,
        });
    }
}
