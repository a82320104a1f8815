//! Records with known shapes, and what must come out of them. The makers of records serve `augment` too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use ecgpipe_sdk::{
    Lead, RecordId,
    kinds::{Beat, INVALID_SAMPLE, PeakSource},
};

use super::*;

pub(crate) const BEAT_N: usize = 60;

/// Every tenth beat from the fifth on is wide and tall, without a P wave.
pub(crate) fn is_ectopic(beat_idx: usize) -> bool {
    beat_idx % 10 == 5
}

/// One beat a second at 360 Hz: P wave, QRS complex and T wave as bumps, on two leads of different gain.
pub(crate) fn signals() -> Signals {
    let bump = |time_s: f64, at_s: f64, width_s: f64| (-0.5 * ((time_s - at_s) / width_s).powi(2)).exp();
    let sample = |idx: usize, share: f64| {
        let (beat_idx, time_s) = (idx / 360, (idx % 360) as f64 / 360.0 - 0.5);
        let mv = if is_ectopic(beat_idx) {
            1.6 * bump(time_s, 0.02, 0.035) - 0.5 * bump(time_s, 0.25, 0.06)
        } else {
            0.15 * bump(time_s, -0.17, 0.02) + bump(time_s, 0.0, 0.012) + 0.3 * bump(time_s, 0.25, 0.04)
        };
        (mv * share * 1000.0).round() as i32
    };
    let lead = |name: &str, share: f64| Lead {
        name: name.to_owned(),
        units: "mV".to_owned(),
        gain_adu_per_unit: 1000.0,
        baseline_adu: 0,
        samples: (0..BEAT_N * 360).map(|idx| sample(idx, share)).collect::<Vec<_>>().into(),
    };
    Signals {
        record: RecordId::new("p1").unwrap(),
        patient: "p1".to_owned(),
        sampling_frequency_hz: 360.0,
        leads: vec![lead("MLII", 1.0), lead("V5", 0.4)],
        comments: Vec::new(),
    }
}

pub(crate) fn beats(signals: &Signals) -> Beats {
    Beats {
        record: signals.record.clone(),
        patient: signals.patient.clone(),
        sampling_frequency_hz: signals.sampling_frequency_hz,
        sample_n: signals.sample_n() as i64,
        source: PeakSource::Detected,
        beats: (0..BEAT_N as i64).map(|idx| Beat { sample_idx: idx * 360 + 180, symbol: None }).collect(),
        missed: Vec::new(),
    }
}

fn computed(signals: &Signals) -> Features {
    features(&Params::default(), signals, &beats(signals)).unwrap()
}

pub(crate) fn column<'a>(features: &'a Features, name: &str) -> &'a [f32] {
    let place = features.names.iter().position(|known| known == name).unwrap();
    &features.columns[place]
}

#[test]
fn ectopic_beats_differ_from_the_dominant_one_and_the_others_do_not() {
    let features = computed(&signals());
    for beat_idx in 1..BEAT_N - 1 {
        let value = |name: &str| column(&features, name)[beat_idx];
        if is_ectopic(beat_idx) {
            assert!(value("qrs_correlation_max") < 0.8 && value("cosine_to_dominant") < 0.8, "{beat_idx}");
            assert!(value("qrs_width_difference_ms_min") >= 30.0, "{}", value("qrs_width_difference_ms_min"));
            assert!((value("qrs_height_log_min") - 1.6f32.ln()).abs() < 0.1, "{}", value("qrs_height_log_min"));
            assert!(value("p_projection_max") < 0.3, "{}", value("p_projection_max"));
            assert!((value("alike_share_relative") - 6.0 / 54.0).abs() < 0.01, "{}", value("alike_share_relative"));
        } else {
            assert!(value("qrs_correlation_min") > 0.99 && value("qrs_difference_max") < 0.05, "{beat_idx}");
            assert!((value("p_projection_min") - 1.0).abs() < 0.2, "{}", value("p_projection_min"));
            assert!((value("mix_dominant") - 1.0).abs() < 0.1 && value("mix_other").abs() < 0.1, "{beat_idx}");
        }
    }
}

#[test]
fn a_fusion_beat_is_some_of_both() {
    let mut signals = signals();
    for lead in &mut signals.leads {
        let mut samples = lead.samples.to_vec().unwrap();
        // Beat 30 becomes the mean of beats 31 (dominant) and 35 (ectopic).
        for idx in 0..360 {
            samples[30 * 360 + idx] = (samples[31 * 360 + idx] + samples[35 * 360 + idx]) / 2;
        }
        lead.samples = samples.into();
    }
    let features = computed(&signals);
    let value = |name: &str, beat_idx: usize| column(&features, name)[beat_idx];
    assert!((value("mix_dominant", 30) - 0.5).abs() < 0.1 && (value("mix_other", 30) - 0.5).abs() < 0.1);
    assert!(value("mix_least", 30) > 0.4 && value("mix_least", 31) < 0.1 && value("mix_least", 35) < 0.1);
    assert!(value("mix_rest", 30) < 0.2);
}

#[test]
fn gain_polarity_and_order_of_leads_do_not_matter() {
    let expected = computed(&signals());
    let mut changed = signals();
    changed.leads[0].gain_adu_per_unit = -250.0;
    changed.leads[1].gain_adu_per_unit = 8000.0;
    changed.leads.reverse();
    let found = computed(&changed);
    for ((name, expected), found) in expected.names.iter().zip(&expected.columns).zip(&found.columns) {
        for (beat_idx, (expected, found)) in expected.iter().zip(found).enumerate() {
            assert!((expected - found).abs() < 2e-3 * expected.abs().max(1.0), "{name} {beat_idx}: {expected} {found}");
        }
    }
}

#[test]
fn with_a_past_alone_a_beat_knows_nothing_of_what_follows() {
    let (signals, params) = (signals(), Params { past_n: Some(20), ..Params::default() });
    let all = beats(&signals);
    let past = features(&params, &signals, &all).unwrap();
    assert_ne!(past, computed(&signals));
    let mut first = all;
    first.beats.truncate(40);
    let of_first = features(&params, &signals, &first).unwrap();
    for (name, (whole, first)) in past.names.iter().zip(past.columns.iter().zip(&of_first.columns)) {
        // The unit of the voltages is another one, so that they are rounded otherwise.
        let differs = |(whole, first): (&f32, &f32)| (whole - first).abs() > 1e-3 * first.abs().max(1.0);
        assert!(!whole.iter().zip(first).any(differs), "{name}: {whole:?} {first:?}");
    }
}

#[test]
fn any_signal_gives_finite_numbers() {
    let flat = |value: i32| {
        let mut signals = signals();
        signals.leads.iter_mut().for_each(|lead| lead.samples = vec![value; BEAT_N * 360].into());
        signals
    };
    let mut clipped = signals();
    let samples = clipped.leads[0].samples.to_vec().unwrap();
    clipped.leads[0].samples =
        samples.iter().map(|sample| (sample * 1000).clamp(-32_768, 32_767)).collect::<Vec<_>>().into();
    let mut single = signals();
    single.leads.truncate(1);
    for signals in [flat(0), flat(30_000), flat(INVALID_SAMPLE), clipped, single] {
        let features = computed(&signals);
        assert_eq!((features.names.len(), features.columns[0].len()), (features.columns.len(), BEAT_N));
        assert!(features.columns.iter().flatten().all(|value| value.is_finite()));
    }
    let signals = signals();
    let mut none = beats(&signals);
    none.beats.clear();
    assert!(features(&Params::default(), &signals, &none).unwrap().columns.iter().all(Vec::is_empty));
    none.beats = vec![Beat { sample_idx: 0, symbol: None }];
    let one = features(&Params::default(), &signals, &none).unwrap();
    assert!(one.columns.iter().flatten().all(|value| value.is_finite()));
}

#[test]
fn a_pacing_spike_is_seen_and_a_heart_has_none() {
    let without = computed(&signals());
    // 110 ms before the R-peak, and 28 ms after it, where a detector has taken the spike's surroundings for the peak.
    for place in [140, 190] {
        let mut signals = signals();
        let mut samples = signals.leads[0].samples.to_vec().unwrap();
        // One sample, half as high as the QRS complex.
        (0..BEAT_N).for_each(|beat_idx| samples[beat_idx * 360 + place] += 500);
        signals.leads[0].samples = samples.into();
        let with = computed(&signals);
        for beat_idx in 1..BEAT_N {
            let (without, with) = (column(&without, "spike_log")[beat_idx], column(&with, "spike_log")[beat_idx]);
            // The top of a narrow QRS complex counts for a tenth of its height.
            assert!(without < 0.15f32.ln() && with > 0.3f32.ln(), "{place}, {beat_idx}: {without} {with}");
        }
        assert!(column(&with, "record_spike_log")[0] > 0.3f32.ln());
    }
}

#[test]
fn common_early_wide_beats_do_not_become_dominant() {
    // Ectopic beats that are exactly alike are the majority of the references; the conducted ones are noisy.
    let mut signals = signals();
    let positions: Vec<i64> =
        (0..BEAT_N as i64).map(|idx| if idx % 2 == 0 { idx * 360 + 90 } else { idx * 360 - 90 }).collect();
    let ectopic = |idx: usize| idx % 2 == 1;
    let bump = |distance: i64, width: f64| (1000.0 * (-0.5 * (distance as f64 / width).powi(2)).exp()) as i32;
    let mut samples = vec![0; BEAT_N * 360];
    for (idx, &position) in positions.iter().enumerate() {
        for at in (position - 80).max(0)..(position + 80).min(samples.len() as i64) {
            let width = if ectopic(idx) { 18.0 } else { 4.0 + (idx % 6) as f64 };
            samples[at as usize] += bump(at - position, width);
        }
    }
    signals.leads.truncate(1);
    signals.leads[0].samples = samples.into();
    let mut beats = beats(&signals);
    beats.beats = positions.iter().map(|&sample_idx| Beat { sample_idx, symbol: None }).collect();
    let features = features(&Params::default(), &signals, &beats).unwrap();
    let wide = column(&features, "qrs_width_difference_ms_min");
    for (idx, &width) in wide.iter().enumerate().take(BEAT_N - 4).skip(4) {
        assert_eq!(width > 40.0, ectopic(idx), "beat {idx}: {width}");
    }
}

#[test]
fn features_are_joined_and_doubles_refused() {
    let own = computed(&signals());
    let first = Features { names: vec!["rr_before_s".to_owned()], columns: vec![vec![0.8; BEAT_N]], ..own.clone() };
    let both = joined(&first, own.clone()).unwrap();
    assert_eq!(both.names.len(), 1 + own.names.len());
    assert_eq!((both.names[0].as_str(), both.columns[0][0]), ("rr_before_s", 0.8));
    let error = joined(&own, own.clone()).unwrap_err().to_string();
    assert!(error.contains("have `qrs_correlation_min` already"), "{error}");
    let fewer = Features { beat_idx: vec![0], names: Vec::new(), columns: Vec::new(), ..own.clone() };
    assert!(joined(&fewer, own).unwrap_err().to_string().contains("1 beats of record p1, the beats are 60"));
}
