//! The detector on made signals.

use std::f32::consts::PI;

use proptest::prelude::*;

use super::*;

const RATES_HZ: [f64; 7] = [100.0, 128.0, 200.0, 250.0, 360.0, 500.0, 1000.0];

/// One deflection: amplitude in mV, centre relative to the R-peak and standard deviation in seconds.
type Wave = (f64, f64, f64);
const P: Wave = (0.12, -0.16, 0.02);
const Q: Wave = (-0.1, -0.025, 0.008);
const R: Wave = (1.0, 0.0, 0.011);
const S: Wave = (-0.25, 0.028, 0.009);
const T: Wave = (0.3, 0.28, 0.05);
const NORMAL: [Wave; 5] = [P, Q, R, S, T];

/// The sum of beats given by the time of the R-peak in seconds and their waves.
fn ecg(hz: f64, seconds: f64, beats: &[(f64, &[Wave])]) -> Vec<f32> {
    let mut signal = vec![0.0f32; (seconds * hz) as usize];
    for (time_s, waves) in beats {
        for (amplitude, offset, sigma) in *waves {
            let centre = (time_s + offset) * hz;
            let reach = 5.0 * sigma * hz;
            let last = ((centre + reach) as usize + 1).min(signal.len());
            for (idx, sample) in signal.iter_mut().enumerate().take(last).skip((centre - reach).max(0.0) as usize) {
                *sample += (amplitude * (-0.5 * ((idx as f64 - centre) / (sigma * hz)).powi(2)).exp()) as f32;
            }
        }
    }
    signal
}

/// Times of a rhythm of 75 beats a minute with some variation.
fn rhythm(seconds: f64) -> Vec<f64> {
    let mut times = vec![0.35];
    while let Some(&last) = times.last() {
        let next = last + 0.8 + 0.08 * (times.len() as f64).sin();
        if next > seconds - 0.15 {
            break;
        }
        times.push(next);
    }
    times
}

fn normal(hz: f64, seconds: f64) -> (Vec<f32>, Vec<f64>) {
    let times = rhythm(seconds);
    let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &NORMAL[..])).collect();
    (ecg(hz, seconds, &beats), times)
}

/// Pseudo-random numbers in -1..1 (an xorshift generator).
pub(crate) fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

#[track_caller]
fn check(leads: &[&[f32]], hz: f64, times: &[f64]) {
    let found = detect(leads, hz, &DetectorParams::default());
    let expected: Vec<i64> = times.iter().map(|time| (time * hz).round() as i64).collect();
    let tolerance = (0.012 * hz).ceil() as i64;
    let agrees = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= tolerance);
    let lacks = |these: &[i64], those: &[i64]| -> Vec<i64> {
        these.iter().copied().filter(|a| those.iter().all(|b| (a - b).abs() > tolerance)).collect()
    };
    assert!(agrees, "at {hz} Hz missed {:?}, invented {:?}", lacks(&expected, &found), lacks(&found, &expected));
}

#[test]
fn finds_every_beat_at_every_sampling_frequency() {
    for hz in RATES_HZ {
        let (signal, times) = normal(hz, 30.0);
        check(&[&signal], hz, &times);
    }
}

#[test]
fn gain_polarity_and_offset_do_not_matter() {
    let (signal, times) = normal(360.0, 30.0);
    for (gain, offset) in [(0.01, 0.0), (100.0, 0.0), (-1.0, 0.0), (-0.1, 3.0), (1.0, -5.0)] {
        let changed: Vec<f32> = signal.iter().map(|sample| sample * gain + offset).collect();
        check(&[&changed], 360.0, &times);
    }
}

#[test]
fn tall_t_and_p_waves_are_no_beats() {
    let times = rhythm(60.0);
    for hz in RATES_HZ {
        let tall: [Wave; 5] = [(0.25, -0.16, 0.025), Q, R, S, (1.1, 0.28, 0.05)];
        let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &tall[..])).collect();
        check(&[&ecg(hz, 60.0, &beats)], hz, &times);
    }
}

#[test]
fn finds_ventricular_beats_and_weak_beats() {
    let wide: [Wave; 2] = [(-1.6, 0.0, 0.035), (0.6, 0.25, 0.06)];
    let weak: [Wave; 5] = [P, Q, (0.4, 0.0, 0.011), S, (0.12, 0.28, 0.05)];
    let mut times = rhythm(60.0);
    times[20] -= 0.3;
    let mut beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &NORMAL[..])).collect();
    beats[20].1 = &wide;
    beats[40].1 = &weak;
    for hz in RATES_HZ {
        check(&[&ecg(hz, 60.0, &beats)], hz, &times);
    }
}

#[test]
fn survives_hum_noise_wander_and_clipping() {
    let (signal, times) = normal(360.0, 60.0);
    let noise = noise(signal.len());
    let with = |extra: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        signal.iter().enumerate().map(|(idx, &sample)| extra(idx, sample)).collect()
    };
    let wave = |idx: usize, hz: f32| (2.0 * PI * hz * idx as f32 / 360.0).sin();
    check(&[&with(&|idx, sample| sample + 0.2 * wave(idx, 50.0))], 360.0, &times);
    check(&[&with(&|idx, sample| sample + 0.2 * wave(idx, 60.0))], 360.0, &times);
    check(&[&with(&|idx, sample| sample + 2.0 * wave(idx, 0.2))], 360.0, &times);
    check(&[&with(&|idx, sample| sample + 0.1 * noise[idx])], 360.0, &times);
    check(&[&with(&|_, sample| sample.clamp(-0.1, 0.6))], 360.0, &times);
}

#[test]
fn missing_and_flat_stretches_hold_no_beats_and_cost_none() {
    let (signal, times) = normal(360.0, 60.0);
    let noise = noise(signal.len());
    let outside: Vec<f64> = times.iter().copied().filter(|time| !(19.7..30.3).contains(time)).collect();
    let replaced = |fill: &dyn Fn(usize) -> f32| -> Vec<f32> {
        let replace = |(idx, &sample): (usize, &f32)| if (7200..10800).contains(&idx) { fill(idx) } else { sample };
        signal.iter().enumerate().map(replace).collect()
    };
    check(&[&replaced(&|_| f32::NAN)], 360.0, &outside);
    check(&[&replaced(&|_| 0.0)], 360.0, &outside);
    check(&[&replaced(&|idx| if noise[idx] > 0.9 { 0.005 } else { 0.0 })], 360.0, &outside);
}

#[test]
fn single_invalid_samples_do_not_hide_a_beat() {
    let (mut signal, times) = normal(360.0, 30.0);
    for time in &times {
        signal[(time * 360.0) as usize + 3] = f32::NAN;
    }
    check(&[&signal], 360.0, &times);
}

#[test]
fn nothing_gives_nothing() {
    let params = DetectorParams::default();
    for signal in [vec![], vec![0.3], vec![0.0; 5000], vec![f32::NAN; 5000], vec![f32::INFINITY; 50]] {
        assert!(detect(&[&signal], 360.0, &params).is_empty(), "{} samples", signal.len());
    }
    assert!(detect(&[], 360.0, &params).is_empty());
    let (signal, _) = normal(360.0, 10.0);
    for hz in [0.0, -360.0, f64::NAN, 20.0] {
        assert!(detect(&[&signal], hz, &params).is_empty());
    }
}

#[test]
fn a_second_lead_helps_where_the_first_is_off() {
    let (signal, times) = normal(360.0, 60.0);
    let mut first = signal.clone();
    first[7200..10800].fill(f32::NAN);
    let second: Vec<f32> = signal.iter().map(|sample| -0.4 * sample).collect();
    check(&[&first, &second], 360.0, &times);
    // A flat lead is no hindrance.
    check(&[&signal, &vec![0.0; signal.len()]], 360.0, &times);
}

#[test]
fn refinement_keeps_count_and_order() {
    let (signal, times) = normal(360.0, 30.0);
    let marks: Vec<i64> = times.iter().map(|time| (time * 360.0) as i64 + 9).collect();
    let expected: Vec<i64> = times.iter().map(|time| (time * 360.0).round() as i64).collect();
    let refined = refine(&[&signal], 360.0, &marks);
    assert!(refined.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1), "{refined:?} for {expected:?}");
    let close = [100, 101, 105, 120, -4, 1_000_000];
    assert_eq!(refine(&[&signal], 360.0, &close).len(), close.len());
    assert!(refine(&[&signal], 360.0, &close[..4]).is_sorted_by(|a, b| a < b));
}

/// What a stream gives when it is cut into chunks of these lengths, over and over, and drained after each.
fn in_chunks(leads: &[&[f32]], hz: f64, chunk_ns: &[usize]) -> Vec<i64> {
    let mut detector = Detector::new(leads.len(), hz, &DetectorParams::default());
    let mut found = Vec::new();
    let mut from = 0;
    for &chunk_n in chunk_ns.iter().cycle() {
        let to = (from + chunk_n).min(leads[0].len());
        let chunk: Vec<&[f32]> = leads.iter().map(|lead| &lead[from..to]).collect();
        detector.push(&chunk);
        found.extend(detector.drain());
        from = to;
        if from == leads[0].len() {
            break;
        }
    }
    found.extend(detector.finish());
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn chunks_do_not_matter(
        rate in 0..RATES_HZ.len(),
        lead_n in 1usize..=3,
        chunk_ns in prop::collection::vec(1usize..3000, 1..8),
        gap in (0usize..5000, 0usize..800),
        noise_part in 0.0f32..0.5,
    ) {
        let hz = RATES_HZ[rate];
        let (signal, _) = normal(hz, 25.0);
        let noise = noise(3 * signal.len());
        let mut leads: Vec<Vec<f32>> = noise
            .chunks(signal.len())
            .take(lead_n)
            .map(|noise| signal.iter().zip(noise).map(|(sample, noise)| sample + noise_part * noise).collect())
            .collect();
        let from = gap.0.min(signal.len());
        let to = (gap.0 + gap.1).min(signal.len());
        leads[0][from..to].fill(f32::NAN);
        let leads: Vec<&[f32]> = leads.iter().map(Vec::as_slice).collect();
        let at_once = detect(&leads, hz, &DetectorParams::default());
        prop_assert!(at_once.is_sorted_by(|a, b| a < b));
        prop_assert!(at_once.iter().all(|&peak| (0..signal.len() as i64).contains(&peak)));
        prop_assert_eq!(in_chunks(&leads, hz, &chunk_ns), at_once);
    }

    /// Whatever comes in: no panic, and what comes out is in order and inside.
    #[test]
    fn survives_anything(
        samples in prop::collection::vec(
            prop_oneof![
                4 => -2.0f32..2.0,
                1 => any::<f32>(),
                1 => Just(f32::NAN),
                1 => Just(f32::MAX),
                1 => Just(0.0f32),
            ],
            0..2000,
        ),
        repeat_n in 1usize..6,
        hz in prop_oneof![50.0f64..2000.0, Just(50.0), Just(1e7)],
    ) {
        let signal = samples.repeat(repeat_n);
        let found = detect(&[&signal, &signal], hz, &DetectorParams::default());
        prop_assert!(found.is_sorted_by(|a, b| a < b));
        prop_assert!(found.iter().all(|&peak| (0..signal.len() as i64).contains(&peak)));
    }
}

#[test]
fn records_of_any_length_end_in_a_last_hop() {
    // Noise has candidates everywhere, also where the samples before the last hop are needed once more.
    for hz in [50.0, 62.5, 100.0, 360.0] {
        for sample_n in 0..(4.5 * hz) as usize {
            let signal = noise(sample_n);
            let found = detect(&[&signal, &signal], hz, &DetectorParams::default());
            assert!(found.iter().all(|&peak| (0..sample_n as i64).contains(&peak)), "{hz} Hz, {sample_n}");
        }
    }
}

#[test]
fn beats_come_in_time() {
    for hz in RATES_HZ {
        let (signal, _) = normal(hz, 60.0);
        let mut detector = Detector::new(1, hz, &DetectorParams::default());
        let delay_n = (detector.delay_s() * hz).round() as i64;
        let mut due = detect(&[&signal], hz, &DetectorParams::default()).into_iter().peekable();
        for (pushed_n, sample) in (1..).zip(&signal) {
            detector.push(&[&[*sample]]);
            for peak in detector.drain() {
                assert_eq!(Some(peak), due.next(), "at {hz} Hz");
            }
            assert!(due.peek().is_none_or(|&peak| peak + delay_n >= pushed_n), "at {hz} Hz {:?} is late", due.peek());
        }
    }
}

#[test]
fn memory_does_not_grow() {
    let hz = 250.0;
    let (signal, _) = normal(hz, 60.0);
    let noise = noise(signal.len());
    let kept_n = |minute_n: usize| {
        let mut detector = Detector::new(2, hz, &DetectorParams::default());
        for _ in 0..minute_n {
            detector.push(&[&signal, &noise]);
            assert!(detector.drain().count() > 0);
        }
        let stream = detector.stream.expect("a stream");
        stream.samples.iter().map(Vec::capacity).sum::<usize>() + stream.energy.kept_n() + stream.decision.kept_n()
    };
    let early_n = kept_n(5);
    assert!(kept_n(200) <= early_n + early_n / 4, "{} after {early_n}", kept_n(200));
}

#[test]
fn noise_after_a_large_artefact_does_not_hide_beats() {
    let (mut signal, times) = normal(360.0, 120.0);
    let noise = noise(signal.len());
    for idx in 14400..18000 {
        signal[idx] += 30.0 * noise[idx];
    }
    let found = detect(&[&signal], 360.0, &DetectorParams::default());
    let late: Vec<i64> = times.iter().filter(|&&time| time > 56.0).map(|time| (time * 360.0).round() as i64).collect();
    let found: Vec<i64> = found.into_iter().filter(|&peak| peak > 56 * 360).collect();
    assert!(
        found.len() == late.len() && found.iter().zip(&late).all(|(a, b)| (a - b).abs() <= 5),
        "{found:?} {late:?}"
    );
}

#[test]
fn a_pause_is_a_pause_and_the_beat_after_it_is_found() {
    let times: Vec<f64> = rhythm(120.0).into_iter().filter(|time| !(40.0..46.5).contains(time)).collect();
    let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, &NORMAL[..])).collect();
    let noise = noise(120 * 360);
    let signal: Vec<f32> = ecg(360.0, 120.0, &beats).iter().zip(noise).map(|(s, noise)| s + 0.02 * noise).collect();
    check(&[&signal], 360.0, &times);
}

#[test]
fn a_change_of_rhythm_or_size_is_followed() {
    let sized = |size: f64| NORMAL.map(|(amplitude, offset, sigma)| (size * amplitude, offset, sigma));
    let check_change = |fast_s: f64, slow_s: f64, before: &[Wave], after: &[Wave]| {
        let fast = (0..150).map(|n| 0.5 + fast_s * f64::from(n));
        let change_s = 0.5 + 150.0 * fast_s + 0.5;
        let times: Vec<f64> = fast.chain((0..40).map(|n| change_s + slow_s * f64::from(n))).collect();
        let waves = |time: f64| if time < change_s { before } else { after };
        let beats: Vec<(f64, &[Wave])> = times.iter().map(|&time| (time, waves(time))).collect();
        check(&[&ecg(360.0, change_s + 40.0 * slow_s, &beats)], 360.0, &times);
    };
    check_change(0.35, 1.4, &[Q, R, S], &NORMAL);
    check_change(0.8, 0.8, &NORMAL, &sized(0.4));
    check_change(0.8, 0.8, &NORMAL, &sized(4.0));
}
