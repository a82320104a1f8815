//! `rhythm`: features of each beat from the intervals between R-peaks alone.
//!
//! The method, its sources and the conventions at the ends of a record are in [`ecgpipe_tables::rhythm`]; this stage
//! chooses columns. Labels are never looked at, so the same features can be had from any recording.

use ecgpipe_sdk::{Beats, Context, Each, Features, Stage, StageError, StageFacts, facts::names, ports};
use ecgpipe_tables::{RhythmError, rhythm::NAMES, rhythm_features};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::causal::{check_past, last_rows};

/// Computes features of each beat from RR intervals.
pub struct Rhythm;

/// Which features.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Names of the features to give, in this order. `_s` is in seconds; `_log` is a difference of natural logarithms.
    /// Default: all 16.
    pub features: Vec<String>,
    /// How many beats before a beat its features know at most, and none after it: what a monitor could compute as it goes. It
    /// takes time in proportion. Default: the whole recording.
    #[schemars(range(min = 1))]
    pub past_n: Option<usize>,
}

impl Default for Params {
    fn default() -> Self {
        Self { features: NAMES.map(str::to_owned).to_vec(), past_n: None }
    }
}

ports! {
    /// What `rhythm` takes.
    pub struct Inputs {
        /// Where the beats are; detected beats and reference beats alike.
        pub beats: Each<Beats>,
    }
}

ports! {
    /// What `rhythm` gives.
    pub struct Outputs {
        /// One row a beat, in the order of the beats.
        pub features: Each<Features>,
    }
}

impl Stage for Rhythm {
    const NAME: &'static str = "rhythm";
    const SUMMARY: &'static str =
        "features of each beat from RR intervals: durations, and ratios to local and whole-record rhythm";
    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        check_past(params.past_n)?;
        if params.features.is_empty() {
            return Err("`features` must name at least one feature".to_owned());
        }
        for (place, name) in params.features.iter().enumerate() {
            if !NAMES.contains(&name.as_str()) {
                return Err(format!("`features` must be out of {}; there is no `{name}`", NAMES.join(", ")));
            }
            if params.features[..place].contains(name) {
                return Err(format!("`features` names `{name}` twice"));
            }
        }
        Ok(())
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        facts.pass("beats", "features");
        facts.set_by("features", names::FEATURES, params.features.clone(), "features");
    }

    fn run(params: &Params, inputs: Inputs, _cx: &Context<'_>) -> Result<Outputs, StageError> {
        Ok(Outputs { features: Each::new(features(params, &inputs.beats)?) })
    }
}

/// All features of beats at these positions, one column for each of [`NAMES`]; of what a beat may know, see
/// [`Params::past_n`].
///
/// # Errors
/// If the positions are not in time order.
pub(crate) fn columns(positions: &[i64], hz: f64, past_n: Option<usize>) -> Result<Vec<Vec<f32>>, RhythmError> {
    match past_n {
        None => Ok(rhythm_features(positions, hz)?.columns),
        Some(past_n) => last_rows(positions.len(), past_n, |beats| Ok(rhythm_features(&positions[beats], hz)?.columns)),
    }
}

/// The named features of every beat in `beats.beats`, in that order.
///
/// # Errors
/// If the beats are not in time order, or a name is not one of [`NAMES`].
pub fn features(params: &Params, beats: &Beats) -> Result<Features, StageError> {
    let names = &params.features;
    let sample_idx: Vec<i64> = beats.beats.iter().map(|beat| beat.sample_idx).collect();
    let computed = columns(&sample_idx, beats.sampling_frequency_hz, params.past_n)
        .map_err(|error| StageError::from_error(&error).record(&beats.record))?;
    let column = |name: &String| {
        let place = NAMES.iter().position(|known| known == name);
        place
            .map(|place| computed[place].clone())
            .ok_or_else(|| StageError::new(format!("no feature is named `{name}`")))
    };
    Ok(Features {
        record: beats.record.clone(),
        beat_idx: (0..).take(sample_idx.len()).collect(),
        names: names.clone(),
        columns: names.iter().map(column).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use ecgpipe_sdk::{
        Kind, RecordId,
        kinds::{Beat, PeakSource},
    };

    use super::*;

    fn beats(labels: [Option<&str>; 4]) -> Beats {
        let beat = |(place, symbol): (usize, Option<&str>)| Beat {
            sample_idx: [100, 400, 600, 1000][place],
            symbol: symbol.map(str::to_owned),
        };
        Beats {
            record: RecordId::new("x1").unwrap(),
            patient: "x".to_owned(),
            sampling_frequency_hz: 400.0,
            sample_n: 2000,
            source: PeakSource::Detected,
            beats: labels.into_iter().enumerate().map(beat).collect(),
            missed: vec![Beat { sample_idx: 800, symbol: Some("N".to_owned()) }],
        }
    }

    #[test]
    fn gives_the_named_columns_and_never_looks_at_labels() {
        let params = Params { features: vec!["rr_after_s".to_owned(), "rr_before_s".to_owned()], ..Params::default() };
        let given = features(&params, &beats([Some("N"), Some("V"), None, Some("N")])).unwrap();
        assert_eq!(given.beat_idx, [0, 1, 2, 3]);
        let rounded: Vec<f32> = given.columns.concat().iter().map(|rr| (rr * 1e4).round() / 1e4).collect();
        // The missed beat at 800 does not count; the ends hold the record's median interval, 0.75 s.
        assert_eq!(rounded, [0.75, 0.5, 1.0, 0.75, 0.75, 0.75, 0.5, 1.0]);
        assert_eq!(given, features(&params, &beats([None; 4])).unwrap());
    }

    #[test]
    fn all_features_can_be_stored() {
        let given = features(&Params::default(), &beats([None; 4])).unwrap();
        assert_eq!(given.names.len(), 16);
        given.encode().unwrap();
    }

    #[test]
    fn with_a_past_alone_a_beat_knows_nothing_of_what_follows() {
        let positions = [0, 400, 700, 1200, 1500, 1850, 2400, 2700];
        let whole = columns(&positions, 400.0, None).unwrap();
        let past = columns(&positions, 400.0, Some(4)).unwrap();
        assert_ne!(whole, past);
        for beat_idx in 0..positions.len() {
            let until_then = columns(&positions[beat_idx.saturating_sub(4)..=beat_idx], 400.0, None).unwrap();
            for (column, until_then) in past.iter().zip(until_then) {
                assert_eq!(column[beat_idx], *until_then.last().unwrap(), "beat {beat_idx}");
            }
        }
        assert_eq!(columns(&[], 400.0, Some(4)).unwrap(), vec![Vec::<f32>::new(); NAMES.len()]);
    }

    #[test]
    fn says_which_name_is_wrong() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let check = |names: &[&str]| Rhythm::check(&Params { features: named(names), ..Params::default() });
        assert_eq!(check(&["rr_after_s"]), Ok(()));
        assert!(check(&["rr"]).unwrap_err().ends_with("there is no `rr`"));
        assert_eq!(check(&["rr_after_s", "rr_after_s"]).unwrap_err(), "`features` names `rr_after_s` twice");
        assert_eq!(check(&[]).unwrap_err(), "`features` must name at least one feature");
    }

    /// In record 232 atrial premature beats outnumber normal ones, so a median says nothing: the upper quantile must.
    #[test]
    fn the_upper_quantile_tells_s_from_n_in_record_232() {
        let folder = std::env::var_os("ECGPIPE_DATA").map(|data| std::path::PathBuf::from(data).join("mitdb"));
        let Some(folder) = folder.filter(|folder| folder.join("232.atr").exists()) else {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "skipped: the environment variable ECGPIPE_DATA names no folder with mitdb")
                .unwrap();
            return;
        };
        let timing = ecgpipe_wfdb::Timing { sampling_frequency_hz: Some(360.0), sample_n: Some(650_000) };
        let read = ecgpipe_wfdb::read_annotations(folder.join("232"), "atr", timing).unwrap().items;
        let read: Vec<_> = read.into_iter().filter(|annotation| annotation.code.is_beat()).collect();
        let beat =
            |annotation: &ecgpipe_wfdb::Annotation| Beat { sample_idx: annotation.sample_idx as i64, symbol: None };
        let beats = Beats { beats: read.iter().map(beat).collect(), sampling_frequency_hz: 360.0, ..beats([None; 4]) };
        let given = features(&Params::default(), &beats).unwrap();
        let auc = |name: &str| {
            let values = &given.columns[given.names.iter().position(|known| known == name).unwrap()];
            let of = |premature: bool| {
                let rows = read.iter().zip(values).filter(move |(beat, _)| (beat.code.symbol() == "A") == premature);
                rows.map(|(_, value)| *value).collect::<Vec<f32>>()
            };
            let (s, n) = (of(true), of(false));
            let wins: f64 = s
                .iter()
                .flat_map(|s| n.iter().map(move |n| f64::from(u8::from(s < n)) + f64::from(u8::from(s == n)) / 2.0))
                .sum();
            wins / (s.len() * n.len()) as f64
        };
        assert!(auc("rr_before_over_record_q90_log") > 0.99, "{}", auc("rr_before_over_record_q90_log"));
        assert!(auc("rr_before_over_long_q90_log") > 0.95, "{}", auc("rr_before_over_long_q90_log"));
    }
}
