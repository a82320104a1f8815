//! The `signals` kind: the samples of one record.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{check_lengths, table_error};
use crate::{
    kind::{Kind, KindError},
    record::RecordId,
    table::{Table, TableWriter},
};

/// Stands for a sample that the recorder marked as invalid; null in the Parquet file.
pub const INVALID_SAMPLE: i32 = i32::MIN;

/// One record's samples, lead by lead, as the ADC gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// The record.
    pub record: RecordId,
    /// The patient; two records of one patient share it. The record's own name where nothing else is known.
    pub patient: String,
    /// Samples per second of every lead.
    pub sampling_frequency_hz: f64,
    /// Leads in file order, all of one length.
    pub leads: Vec<Lead>,
    /// Comment lines of the header.
    pub comments: Vec<String>,
}

/// One lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// Its name, for example `MLII`.
    pub name: String,
    /// Physical unit, for example `mV`.
    pub units: String,
    /// ADC units per physical unit.
    pub gain_adu_per_unit: f64,
    /// ADC value of 0 physical units.
    pub baseline_adu: i32,
    /// ADC values; [`INVALID_SAMPLE`] where the recorder had none.
    pub samples: Vec<i32>,
}

impl Lead {
    /// A sample in physical units; NaN where it is invalid.
    #[must_use]
    pub fn physical(&self, sample_idx: usize) -> f32 {
        to_physical(self.samples[sample_idx], self.gain_adu_per_unit, self.baseline_adu)
    }

    /// All samples in physical units; NaN where invalid. The same bits as [`Lead::physical`] gives one by one.
    #[must_use]
    pub fn to_physical(&self) -> Vec<f32> {
        /// Differences of two integers up to here are exact in `f32`.
        const EXACT: i32 = 1 << 23;
        let fits = |adu: i32| (-EXACT..=EXACT).contains(&adu);
        let gain = self.gain_adu_per_unit as f32;
        // No early exit, so that the compiler may use vector instructions.
        let all_fit = self.samples.iter().fold(true, |all, &sample| all & (fits(sample) | (sample == INVALID_SAMPLE)));
        if f64::from(gain) != self.gain_adu_per_unit || !fits(self.baseline_adu) || !all_fit {
            let physical = |&sample: &i32| to_physical(sample, self.gain_adu_per_unit, self.baseline_adu);
            return self.samples.iter().map(physical).collect();
        }
        // Both operands are exact, so that dividing once in `f32` rounds as dividing in `f64` and rounding that (Figueroa
        // 1995: twice the precision and two bits are enough).
        let physical = |&sample: &i32| {
            let difference = sample.wrapping_sub(self.baseline_adu) as f32;
            if sample == INVALID_SAMPLE { f32::NAN } else { difference / gain }
        };
        self.samples.iter().map(physical).collect()
    }
}

fn to_physical(sample: i32, gain_adu_per_unit: f64, baseline_adu: i32) -> f32 {
    if sample == INVALID_SAMPLE {
        return f32::NAN;
    }
    ((f64::from(sample) - f64::from(baseline_adu)) / gain_adu_per_unit) as f32
}

impl Signals {
    /// Samples per lead.
    #[must_use]
    pub fn sample_n(&self) -> usize {
        self.leads.first().map_or(0, |lead| lead.samples.len())
    }

    /// The lead that comes first in `preferred` (compared without case), else the first lead.
    /// WFDB record 114 of MIT-BIH has its leads swapped, so position says nothing.
    #[must_use]
    pub fn preferred_lead_idx(&self, preferred: &[String]) -> usize {
        let named = |name: &String| self.leads.iter().position(|lead| lead.name.eq_ignore_ascii_case(name));
        preferred.iter().find_map(named).unwrap_or(0)
    }
}

#[derive(Serialize, Deserialize)]
struct LeadMeta {
    name: String,
    units: String,
    gain_adu_per_unit: f64,
    baseline_adu: i32,
}

impl Kind for Signals {
    const NAME: &'static str = "signals";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "samples of one record: a column of ADC values a lead (null = invalid), gain and baseline in the metadata";

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        let lengths: Vec<(&str, usize)> =
            self.leads.iter().map(|lead| (lead.name.as_str(), lead.samples.len())).collect();
        check_lengths::<Self>(self.sample_n(), &lengths)?;
        let leads: Vec<LeadMeta> = self
            .leads
            .iter()
            .map(|lead| LeadMeta {
                name: lead.name.clone(),
                units: lead.units.clone(),
                gain_adu_per_unit: lead.gain_adu_per_unit,
                baseline_adu: lead.baseline_adu,
            })
            .collect();
        let mut table = TableWriter::new(Self::NAME, Self::VERSION)
            .meta("record", &self.record)
            .meta("patient", &self.patient)
            .meta("sampling_frequency_hz", &self.sampling_frequency_hz)
            .meta("comments", &self.comments)
            .meta("leads", &leads);
        for (idx, lead) in self.leads.iter().enumerate() {
            let column = format!("lead_{idx}");
            table = table.unit(&column, "adu").i32_nullable(&column, &lead.samples, INVALID_SAMPLE);
        }
        table.finish().map_err(table_error::<Self>)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        let read = || {
            let table = Table::read(bytes, Self::NAME, Self::VERSION)?;
            let meta: Vec<LeadMeta> = table.meta("leads")?;
            let leads = meta.into_iter().enumerate().map(|(idx, meta)| {
                Ok(Lead {
                    name: meta.name,
                    units: meta.units,
                    gain_adu_per_unit: meta.gain_adu_per_unit,
                    baseline_adu: meta.baseline_adu,
                    samples: table.i32_nullable(&format!("lead_{idx}"), INVALID_SAMPLE)?,
                })
            });
            Ok(Self {
                record: table.meta("record")?,
                patient: table.meta("patient")?,
                sampling_frequency_hz: table.meta("sampling_frequency_hz")?,
                leads: leads.collect::<Result<_, crate::table::TableError>>()?,
                comments: table.meta("comments")?,
            })
        };
        read().map_err(table_error::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(name: &str, samples: Vec<i32>) -> Lead {
        Lead { name: name.to_owned(), units: "mV".to_owned(), gain_adu_per_unit: 200.0, baseline_adu: 1024, samples }
    }

    fn signals(leads: Vec<Lead>) -> Signals {
        Signals {
            record: RecordId::new("100").expect("a valid name"),
            patient: "100".to_owned(),
            sampling_frequency_hz: 360.0,
            leads,
            comments: vec!["69 M 1085 1629 x1".to_owned()],
        }
    }

    #[test]
    fn round_trips_with_invalid_samples() {
        let leads = vec![lead("V5", vec![1, INVALID_SAMPLE, -3]), lead("MLII", vec![1024, 1224, 5])];
        super::super::check_round_trip(&signals(leads));
    }

    #[test]
    fn refuses_leads_of_unequal_length() {
        let error = signals(vec![lead("a", vec![1, 2]), lead("b", vec![1])]).encode().expect_err("unequal lengths");
        assert_eq!(error.to_string(), "signals: column `b` has 1 entries, expected 2");
    }

    #[test]
    fn physical_values_follow_gain_and_baseline() {
        let lead = lead("MLII", vec![1024, 1224, INVALID_SAMPLE]);
        assert_eq!((lead.physical(0), lead.physical(1)), (0.0, 1.0));
        assert!(lead.to_physical()[2].is_nan());
    }

    #[test]
    fn all_samples_at_once_have_the_same_bits_as_one_by_one() {
        let samples: Vec<i32> = (-3000..3000).map(|idx| idx * 2797).chain([INVALID_SAMPLE, i32::MAX, 0, 1]).collect();
        for part in [&samples[..6001], &samples[..]] {
            for (gain_adu_per_unit, baseline_adu) in
                [(200.0, 1024), (1000.0, -8), (204.7, 0), (-3.0, 1 << 23), (0.3, i32::MAX), (1e-30, 7)]
            {
                let lead = Lead { gain_adu_per_unit, baseline_adu, ..lead("I", part.to_vec()) };
                let at_once: Vec<u32> = lead.to_physical().into_iter().map(f32::to_bits).collect();
                let one_by_one: Vec<u32> = (0..part.len()).map(|idx| lead.physical(idx).to_bits()).collect();
                assert_eq!(at_once, one_by_one, "{gain_adu_per_unit} {baseline_adu}");
            }
        }
    }

    #[test]
    fn leads_are_chosen_by_name() {
        let signals = signals(vec![lead("V5", vec![]), lead("MLII", vec![])]);
        assert_eq!(signals.preferred_lead_idx(&["mlii".to_owned()]), 1);
        assert_eq!(signals.preferred_lead_idx(&["I".to_owned()]), 0);
    }
}
