//! The judgement of made signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ecgpipe_sdk::{
    Lead, RecordId,
    kinds::{Beat, INVALID_SAMPLE, PeakSource},
};
use proptest::prelude::*;

use super::{
    monitor::{Judgement, Monitor, Reason, TRUSTED},
    *,
};
use crate::detect_peaks::detector::tests::noise;

const HZ: f64 = 250.0;
const SECOND_N: usize = 250;

/// Beats of 1 mV and 80 ms every 0.8 s, with a T wave.
fn ecg(seconds: usize) -> (Vec<f32>, Vec<i64>) {
    let mut signal = vec![0.0f32; seconds * SECOND_N];
    let beats: Vec<i64> = (0..).map(|n| 100 + 200 * n).take_while(|&beat| beat + 100 < signal.len() as i64).collect();
    for (idx, sample) in signal.iter_mut().enumerate() {
        let since = (idx + 200 - 100) % 200;
        let bump = |centre: f32, width: f32| (-0.5 * ((since as f32 - centre) / width).powi(2)).exp();
        *sample = bump(0.0, 4.0) + bump(200.0, 4.0) + 0.2 * bump(70.0, 15.0) + 0.002 * (idx as f32 * 0.7).sin();
    }
    (signal, beats)
}

fn judge(leads: &[&[f32]], beats: Option<&[i64]>) -> Vec<Judgement> {
    let mut monitor = match beats {
        None => Monitor::new(leads.len(), HZ, 10.0),
        Some(beats) => {
            let mut monitor = Monitor::with_beats(leads.len(), HZ, 10.0);
            monitor.push_beats(beats, i64::MAX);
            monitor
        }
    };
    monitor.push(leads);
    monitor.finish()
}

/// Replaces the third window of six and says what is thought of all six then.
#[track_caller]
fn check(change: impl Fn(usize, f32) -> f32, reason: Reason) {
    let (signal, beats) = ecg(60);
    let window = 20 * SECOND_N..30 * SECOND_N;
    let changed: Vec<f32> =
        signal.iter().enumerate().map(|(idx, &s)| if window.contains(&idx) { change(idx, s) } else { s }).collect();
    for beats in [None, Some(&beats[..])] {
        let all: Vec<Judgement> =
            judge(&[&changed], beats).into_iter().filter(|judgement| judgement.lead_idx.is_none()).collect();
        assert_eq!(all.len(), 6);
        for (place, judgement) in all.iter().enumerate() {
            if place == 2 {
                assert!(judgement.score < TRUSTED && judgement.reason == Some(reason), "{judgement:?}");
            } else {
                assert!(judgement.score >= TRUSTED && judgement.reason.is_none(), "{judgement:?}");
            }
        }
    }
}

#[test]
fn says_what_is_wrong() {
    let noise = noise(60 * SECOND_N);
    check(|_, _| f32::NAN, Reason::Missing);
    check(|idx, _| 1e-4 * noise[idx], Reason::Flat);
    check(|_, _| 0.5, Reason::Flat);
    check(|_, sample| (4.0 * sample).clamp(-0.02, 0.03), Reason::Clipped);
    check(|idx, sample| sample + 3.0 * noise[idx], Reason::Noise);
}

#[test]
fn says_what_is_wrong_with_the_rhythm() {
    let (signal, beats) = ecg(60);
    let all = |beats: &[i64]| -> Vec<Option<Reason>> {
        let of_all = judge(&[&signal], Some(beats)).into_iter().filter(|judgement| judgement.lead_idx.is_none());
        of_all.map(|judgement| judgement.reason).collect()
    };
    assert_eq!(all(&beats), [None; 6]);
    let without: Vec<i64> = beats.iter().copied().filter(|beat| !(5500..6400).contains(beat)).collect();
    assert_eq!(all(&without), [None, None, Some(Reason::NoBeats), None, None, None]);
    assert_eq!(all(&[]), [Some(Reason::NoBeats); 6]);
    let many: Vec<i64> = (0..60 * SECOND_N as i64).step_by(50).collect();
    assert!(all(&many).iter().all(|reason| matches!(reason, Some(Reason::ImplausibleRhythm | Reason::Noise))));
}

#[test]
fn one_good_lead_is_enough() {
    let (signal, beats) = ecg(30);
    let noise = noise(30 * SECOND_N);
    let judgements = judge(&[&noise, &signal], Some(&beats));
    for window in judgements.chunks(3) {
        assert_eq!([window[0].lead_idx, window[1].lead_idx, window[2].lead_idx], [Some(0), Some(1), None]);
        assert!(window[0].score < 0.5 && window[1].score >= TRUSTED, "{window:?}");
        assert_eq!((window[2].score, window[2].reason), (window[1].score, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn chunks_do_not_matter(
        chunk_ns in prop::collection::vec(1usize..2000, 1..6),
        noise_part in 0.0f32..2.0,
        lag_n in 0usize..3000,
    ) {
        let (signal, beats) = ecg(45);
        let signal: Vec<f32> = signal.iter().zip(noise(signal.len())).map(|(s, noise)| s + noise_part * noise).collect();
        let at_once = judge(&[&signal], Some(&beats));
        prop_assert!(at_once.iter().all(|judgement| (0.0..=1.0).contains(&judgement.score)));
        let mut monitor = Monitor::with_beats(1, HZ, 10.0);
        let (mut from, mut known) = (0, 0);
        let mut found = Vec::new();
        for chunk_n in chunk_ns.into_iter().cycle() {
            let to = (from + chunk_n).min(signal.len());
            monitor.push(&[&signal[from..to]]);
            let until = if to == signal.len() { i64::MAX } else { to.saturating_sub(lag_n) as i64 };
            let new: Vec<i64> = beats.iter().copied().filter(|beat| (known..until).contains(beat)).collect();
            monitor.push_beats(&new, until);
            known = until;
            found.extend(monitor.drain());
            from = to;
            if from == signal.len() {
                break;
            }
        }
        found.extend(monitor.finish());
        prop_assert_eq!(found, at_once);
    }
}

fn signals(samples: Vec<i32>) -> Signals {
    let lead = |name: &str, units: &str, samples: Vec<i32>| Lead {
        name: name.to_owned(),
        units: units.to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 0,
        samples: samples.into(),
    };
    Signals {
        record: RecordId::new("p1").unwrap(),
        patient: "p1".to_owned(),
        sampling_frequency_hz: HZ,
        leads: vec![lead("RESP", "L", samples.clone()), lead("MLII", "mV", samples)],
        comments: Vec::new(),
    }
}

#[test]
fn windows_cover_the_record() {
    for sample_n in [0usize, 1, 100, 2499, 2500, 2501, 2624, 2625, 2626, 12_345] {
        let found = quality(&Params::default(), &signals(vec![INVALID_SAMPLE; sample_n]), None).unwrap();
        let mut next_idx = 0;
        for pair in found.rows.chunks(2) {
            assert_eq!((pair[0].lead.as_deref(), pair[1].lead.as_deref()), (Some("MLII"), None));
            assert_eq!((pair[0].start_idx, pair[0].end_idx), (pair[1].start_idx, pair[1].end_idx));
            assert_eq!(pair[0].start_idx, next_idx);
            assert_eq!((pair[0].score, pair[0].reason.as_deref()), (0.0, Some("missing")));
            next_idx = pair[0].end_idx;
        }
        assert_eq!((next_idx, found.sample_n), (sample_n as i64, sample_n as i64));
    }
}

#[test]
fn refuses_what_does_not_belong_together() {
    let mut beats = Beats {
        record: RecordId::new("p1").unwrap(),
        patient: "p1".to_owned(),
        sampling_frequency_hz: HZ,
        sample_n: 100,
        source: PeakSource::Detected,
        beats: vec![Beat { sample_idx: 5, symbol: None }],
        missed: Vec::new(),
    };
    assert!(quality(&Params::default(), &signals(vec![0; 100]), Some(&beats)).is_ok());
    beats.sampling_frequency_hz = 360.0;
    let error = quality(&Params::default(), &signals(vec![0; 100]), Some(&beats)).unwrap_err().to_string();
    assert_eq!(error, "record p1: signals are of record p1 at 250 Hz, beats are of record p1 at 360 Hz");
    let mut other = signals(vec![0; 100]);
    other.leads.truncate(1);
    let error = quality(&Params::default(), &other, None).unwrap_err().to_string();
    assert_eq!(error, "record p1: the record has no lead in mV, uV, nV or V");
}

#[test]
fn checks_parameters() {
    assert_eq!(SignalQuality::check(&Params::default()), Ok(()));
    let error = SignalQuality::check(&Params { window_s: 1.0 }).unwrap_err();
    assert_eq!(error, "`window_s` must be 2 to 60 s, not 1");
}
