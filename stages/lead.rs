//! Owns the choice of a lead and its samples in mV, for the stages that read one.
//!
//! Leads are chosen by name, never by position: record 114 of MIT-BIH has its two leads swapped, and databases disagree
//! on the order. It must not know what the samples are for.
//!
//! Invariant: a lead that is read in order by [`LeadReader`] takes two pieces of the record in memory, however long the
//! record is (`tests::reads_any_range_and_keeps_two_pieces`).

use std::ops::Range;

use ecgpipe_sdk::{FactProblem, Lead, Place, Signals, StageError, StageFacts, facts::names, kinds::LeadSamples};
use serde_json::Value;

use crate::agreement::some_of;

/// The default order of preference. MLII first, as the modified limb lead II of ambulatory recorders has upright, tall
/// QRS complexes in most patients and is the lead that the labels of MIT-BIH were placed on; II is its clinical twin; I
/// also has an upright R wave; V5 lies over the left ventricle; V1 comes last, for its small r wave.
#[must_use]
pub fn default_preference() -> Vec<String> {
    ["MLII", "II", "I", "V5", "V1"].map(str::to_owned).to_vec()
}

/// How many mV one unit is; `None` for what is not a voltage. An empty unit means mV, as in the WFDB format.
#[must_use]
pub fn mv_per_unit(units: &str) -> Option<f64> {
    match units.trim() {
        "" | "mV" | "mv" | "MV" => Some(1.0),
        "uV" | "uv" | "UV" | "\u{b5}V" | "\u{3bc}V" => Some(1e-3),
        "V" | "v" => Some(1e3),
        "nV" | "nv" => Some(1e-6),
        _ => None,
    }
}

/// The index of the lead that comes first in `preferred` (compared without case); else of the first lead that is a
/// voltage.
///
/// # Errors
/// If the record has no lead, if the preferred lead is not a voltage, or if no lead is.
pub fn choose(signals: &Signals, preferred: &[String]) -> Result<usize, StageError> {
    let leads: Vec<(&str, &str)> = signals.leads.iter().map(|lead| (lead.name.as_str(), lead.units.as_str())).collect();
    match best(&leads, preferred) {
        Choice::Voltage(idx) => Ok(idx),
        Choice::Other(idx) => Err(not_a_voltage(signals, &signals.leads[idx])),
        Choice::None => Err(StageError::new("the record has no leads").record(&signals.record)),
    }
}

/// Places of up to `lead_n` leads, the one of [`choose`] first, then the other voltages in the order of the record.
///
/// # Errors
/// As [`choose`].
pub fn choose_several(signals: &Signals, preferred: &[String], lead_n: usize) -> Result<Vec<usize>, StageError> {
    let first = choose(signals, preferred)?;
    let is_voltage = |idx: &usize| mv_per_unit(&signals.leads[*idx].units).is_some();
    let others = (0..signals.leads.len()).filter(|&idx| idx != first).filter(is_voltage);
    Ok(std::iter::once(first).chain(others).take(lead_n).collect())
}

/// What [`choose`] will say, as far as the headers are known: refuses records whose chosen lead is no voltage.
pub fn check_records(facts: &mut StageFacts<'_>, port: &'static str, preferred: &[String]) {
    let mut wrong = Vec::new();
    for (record, leads) in facts.by_record(port, names::RECORD_LEADS) {
        let leads = leads.as_array().into_iter().flatten();
        let text =
            |lead: &'_ Value, place: usize| lead.get(place).and_then(Value::as_str).unwrap_or_default().to_owned();
        let leads: Vec<(String, String)> = leads.map(|lead| (text(lead, 0), text(lead, 1))).collect();
        let named: Vec<(&str, &str)> = leads.iter().map(|(name, units)| (name.as_str(), units.as_str())).collect();
        if let Choice::Other(idx) = best(&named, preferred) {
            wrong.push(format!("record {record}: lead `{}` is in `{}`", leads[idx].0, leads[idx].1));
        }
    }
    if let Some(shown) = some_of(&wrong) {
        let message = format!("the lead to read is not in mV, uV, nV or V: {shown}");
        let problem = FactProblem::error(Place::Port(port), message);
        facts.tell(problem.help("name an ECG lead in `leads`, or leave these records out at the source"));
    }
}

/// Which lead comes first.
enum Choice {
    Voltage(usize),
    Other(usize),
    None,
}

/// Of leads as (name, unit).
fn best(leads: &[(&str, &str)], preferred: &[String]) -> Choice {
    let is_voltage = |idx: usize| mv_per_unit(leads[idx].1).is_some();
    let position = |wanted: &String| leads.iter().position(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let named = preferred.iter().find_map(position);
    match named.or_else(|| (0..leads.len()).find(|&idx| is_voltage(idx))) {
        Some(idx) if is_voltage(idx) => Choice::Voltage(idx),
        Some(idx) => Choice::Other(idx),
        None if leads.is_empty() => Choice::None,
        None => Choice::Other(0),
    }
}

/// Some of the lead's samples in mV; NaN where the recorder had none.
///
/// # Errors
/// If the lead is not a voltage, if its gain is not a positive or negative number, or if its samples cannot be read.
///
/// # Panics
/// If the range is not within the lead, as slicing does.
pub fn millivolts(signals: &Signals, lead_idx: usize, range: Range<usize>) -> Result<Vec<f32>, StageError> {
    let lead = &signals.leads[lead_idx];
    let mv_per_unit = mv_per_unit(&lead.units).ok_or_else(|| not_a_voltage(signals, lead))?;
    if !lead.gain_adu_per_unit.is_finite() || lead.gain_adu_per_unit == 0.0 {
        let message = format!("lead `{}` has a gain of {} ADC units per mV", lead.name, lead.gain_adu_per_unit);
        return Err(StageError::new(message)
            .help("write the recorder's gain into the header; 200 is the WFDB format's default")
            .record(&signals.record));
    }
    let mut samples = lead.physical(range)?;
    if mv_per_unit != 1.0 {
        samples.iter_mut().for_each(|sample| *sample = (f64::from(*sample) * mv_per_unit) as f32);
    }
    Ok(samples)
}

/// Reads a lead in mV here and there, best in order of time: what was read last of a stored lead is kept. A lead in memory is
/// read where it lies.
pub struct LeadReader<'a> {
    signals: &'a Signals,
    lead_idx: usize,
    pieces: Vec<Range<usize>>,
    /// The pieces that were read last, by index, at most two.
    held: Vec<(usize, Vec<f32>)>,
}

impl<'a> LeadReader<'a> {
    /// A reader of one lead.
    #[must_use]
    pub fn new(signals: &'a Signals, lead_idx: usize) -> Self {
        Self { signals, lead_idx, pieces: signals.pieces().collect(), held: Vec::new() }
    }

    /// Some samples; NaN where the recorder had none.
    ///
    /// # Errors
    /// As [`millivolts`].
    ///
    /// # Panics
    /// If the range is not within the lead, as slicing does.
    pub fn read(&mut self, range: Range<usize>) -> Result<Vec<f32>, StageError> {
        assert!(range.end <= self.signals.sample_n(), "{range:?} of {}", self.signals.sample_n());
        if matches!(self.signals.leads[self.lead_idx].samples, LeadSamples::Memory(_)) {
            return millivolts(self.signals, self.lead_idx, range);
        }
        let mut samples = Vec::with_capacity(range.len());
        let first_idx = self.pieces.partition_point(|piece| piece.end <= range.start);
        for piece_idx in first_idx..self.pieces.len() {
            let piece = self.pieces[piece_idx].clone();
            if piece.start >= range.end {
                break;
            }
            let wanted = range.start.max(piece.start) - piece.start..range.end.min(piece.end) - piece.start;
            samples.extend_from_slice(&self.piece(piece_idx)?[wanted]);
        }
        Ok(samples)
    }

    fn piece(&mut self, piece_idx: usize) -> Result<&[f32], StageError> {
        if !self.held.iter().any(|(idx, _)| *idx == piece_idx) {
            let samples = millivolts(self.signals, self.lead_idx, self.pieces[piece_idx].clone())?;
            self.held.truncate(1);
            self.held.insert(0, (piece_idx, samples));
        }
        Ok(self.held.iter().find(|(idx, _)| *idx == piece_idx).map_or(&[], |(_, samples)| samples))
    }
}

/// Passes a record on in order, some samples of these leads at a time, in mV and as many of each.
///
/// # Errors
/// As [`millivolts`].
pub fn each_chunk(signals: &Signals, lead_idxs: &[usize], mut take: impl FnMut(&[&[f32]])) -> Result<(), StageError> {
    /// Samples of each lead at a time.
    const CHUNK_N: usize = 1 << 16;
    let mut leads: Vec<LeadReader<'_>> = lead_idxs.iter().map(|&idx| LeadReader::new(signals, idx)).collect();
    let sample_n = signals.sample_n();
    for start in (0..sample_n).step_by(CHUNK_N) {
        let chunk = start..(start + CHUNK_N).min(sample_n);
        let samples = leads.iter_mut().map(|lead| lead.read(chunk.clone()));
        let samples: Vec<Vec<f32>> = samples.collect::<Result<_, StageError>>()?;
        take(&samples.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    Ok(())
}

/// Replaces invalid (NaN) samples by a straight line between their valid neighbours, at the ends by the nearest valid
/// sample; all of them by 0 where none is valid. Gives back how many there were.
pub fn interpolate_invalid(samples: &mut [f32]) -> usize {
    let mut invalid_n = 0;
    let mut idx = 0;
    while let Some(offset) = samples[idx..].iter().position(|sample| sample.is_nan()) {
        let from = idx + offset;
        let to = samples[from..].iter().position(|sample| !sample.is_nan()).map_or(samples.len(), |gap_n| from + gap_n);
        let before = from.checked_sub(1).map(|idx| samples[idx]);
        let after = samples.get(to).copied();
        let first = before.or(after).unwrap_or(0.0);
        let last = after.unwrap_or(first);
        let step_n = (to - from + 1) as f32;
        for (step, sample) in samples[from..to].iter_mut().enumerate() {
            *sample = first + (last - first) * ((step + 1) as f32 / step_n);
        }
        invalid_n += to - from;
        idx = to;
    }
    invalid_n
}

fn not_a_voltage(signals: &Signals, lead: &Lead) -> StageError {
    let names: Vec<String> = signals.leads.iter().map(|lead| format!("`{}` in {}", lead.name, lead.units)).collect();
    StageError::new(format!("lead `{}` is in `{}`, not in mV, uV, nV or V", lead.name, lead.units))
        .help(format!("name an ECG lead in `leads`; the record has {}", names.join(", ")))
        .record(&signals.record)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write as _;

    use ecgpipe_sdk::{Kind, RecordId, SpoolFile, kinds::INVALID_SAMPLE};

    use super::*;

    fn signals(leads: &[(&str, &str)]) -> Signals {
        let lead = |&(name, units): &(&str, &str)| Lead {
            name: name.to_owned(),
            units: units.to_owned(),
            gain_adu_per_unit: 200.0,
            baseline_adu: 1024,
            samples: vec![1024, 1224, INVALID_SAMPLE].into(),
        };
        Signals {
            record: RecordId::new("114").unwrap(),
            patient: "114".to_owned(),
            sampling_frequency_hz: 360.0,
            leads: leads.iter().map(lead).collect(),
            comments: Vec::new(),
        }
    }

    fn chosen(leads: &[(&str, &str)]) -> Result<usize, String> {
        choose(&signals(leads), &default_preference()).map_err(|error| error.to_string())
    }

    #[test]
    fn chooses_by_name_then_the_first_voltage() {
        assert_eq!(chosen(&[("V5", "mV"), ("MLII", "mV")]), Ok(1));
        assert_eq!(chosen(&[("aVR", "mV"), ("ii", "uV")]), Ok(1));
        assert_eq!(chosen(&[("ABP", "mmHg"), ("ECG", "mV")]), Ok(1));
        assert_eq!(chosen(&[]), Err("record 114: the record has no leads".to_owned()));
        let error = "record 114: lead `ABP` is in `mmHg`, not in mV, uV, nV or V";
        assert_eq!(chosen(&[("ABP", "mmHg")]), Err(error.to_owned()));
        let error = "record 114: lead `II` is in `adu`, not in mV, uV, nV or V";
        assert_eq!(chosen(&[("ECG", "mV"), ("II", "adu")]), Err(error.to_owned()));
    }

    #[test]
    fn converts_to_millivolts() {
        for (units, one) in [("mV", 1.0), ("", 1.0), ("uV", 1e-3), ("\u{b5}V", 1e-3), ("V", 1e3), ("nV", 1e-6)] {
            let samples = millivolts(&signals(&[("I", units)]), 0, 0..3).unwrap();
            assert_eq!(samples[..2], [0.0, one], "{units}");
            assert!(samples[2].is_nan());
        }
    }

    #[test]
    fn refuses_a_gain_of_zero() {
        let mut signals = signals(&[("I", "mV")]);
        signals.leads[0].gain_adu_per_unit = 0.0;
        let error = millivolts(&signals, 0, 0..3).unwrap_err();
        assert_eq!(error.message, "lead `I` has a gain of 0 ADC units per mV");
    }

    #[test]
    fn reads_any_range_and_keeps_two_pieces() {
        let mut signals = signals(&[("I", "mV")]);
        // Noise, so that the file is too long to be read into memory.
        let adu = |idx: u32| idx.wrapping_mul(0x9e37_79b9) as i32 >> 9;
        signals.leads[0].samples = (0..8 << 20).map(adu).collect::<Vec<_>>().into();
        let folder = tempfile::tempdir().unwrap();
        let mut spool = SpoolFile::create(folder.path()).unwrap();
        spool.write_all(&signals.encode().unwrap()).unwrap();
        let stored = Signals::open(&spool.finish().unwrap()).unwrap();
        assert!(matches!(stored.leads[0].samples, LeadSamples::Stored(_)));
        let pieces: Vec<Range<usize>> = signals.pieces().take(3).collect();
        let expected = millivolts(&signals, 0, 0..pieces[2].end).unwrap();
        for (signals, held_n) in [(&signals, 0), (&stored, 2)] {
            let mut reader = LeadReader::new(signals, 0);
            let (second, last) = (pieces[1].start, pieces[2].end);
            for range in [
                0..0,
                0..10,
                second - 5..second + 5,
                second..second,
                7..second + 1,
                3..last,
                last - 1..last,
                last..last,
            ] {
                assert!(reader.read(range.clone()).unwrap() == expected[range]);
                assert!(reader.held.len() <= held_n);
            }
        }
    }

    #[test]
    fn draws_straight_lines_over_gaps() {
        let nan = f32::NAN;
        let check = |mut samples: Vec<f32>, expected: &[f32], invalid_n| {
            assert_eq!(interpolate_invalid(&mut samples), invalid_n);
            assert_eq!(samples, expected);
        };
        check(vec![nan, nan, 2.0, nan, nan, nan, 6.0, nan], &[2.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0], 6);
        check(vec![nan, nan], &[0.0, 0.0], 2);
        check(vec![1.0, 2.0], &[1.0, 2.0], 0);
        check(vec![], &[], 0);
    }
}
