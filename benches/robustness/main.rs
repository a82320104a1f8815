//! How the QRS detector bears noise, other sampling frequencies, polarity and gain: `ECGPIPE_DATA=DATA cargo bench -p
//! ecgpipe-stages --bench robustness`, with the MIT-BIH Arrhythmia Database in `DATA/mitdb`. Prints a Markdown table and, last, what one
//! lead of a record costs; `-- speed` prints that alone.
//!
//! Every row is all 48 records: sensitivity and positive predictivity as `bxb` counts them (150 ms, without the first
//! five minutes, no false positives in ventricular flutter), gross, for the first lead alone and for both. Noise is added to the whole record,
//! to each lead its own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a bench does")]

#[path = "../mitdb.rs"]
mod mitdb;
mod noise;

use std::{path::Path, process::ExitCode};

use ecgpipe_stages::{
    detect_peaks::detector::{DetectorParams, detect},
    matching::match_beats,
    resample::{resample, resampled_position},
};
use ecgpipe_wfdb::{read_annotations, read_record};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

const HZ: f64 = 360.0;
const WINDOW_N: i64 = 54;
const FIVE_MINUTES_N: i64 = 300 * 360;

fn main() -> ExitCode {
    let Some(folder) = mitdb::folder() else { return ExitCode::FAILURE };
    let recordings: Vec<Recording> =
        mitdb::RECORDS.iter().map(|record| Recording::read(&folder.join(record))).collect();
    if std::env::args().any(|argument| argument == "speed") {
        speed(&recordings);
        return ExitCode::SUCCESS;
    }
    println!("| signal | one lead: Se | +P | two leads: Se | +P |\n|---|---|---|---|---|");
    row("as recorded", &recordings, HZ, |_, _, lead| lead.to_vec());
    for kind in noise::Kind::ALL {
        for snr_db in [24.0, 12.0, 6.0, 0.0] {
            row(&format!("{} at {snr_db} dB", kind.text()), &recordings, HZ, |recording, seed, lead| {
                noise::add(lead, &recording.beats, HZ, kind, snr_db, seed)
            });
        }
    }
    for hz in [100.0, 128.0, 250.0, 257.0, 500.0, 1000.0] {
        row(&format!("resampled to {hz} Hz"), &recordings, hz, |_, _, lead| {
            resample(lead, HZ, hz).expect("frequencies near one another")
        });
    }
    for (name, gain) in [("upside down", -1.0), ("gain x0.1", 0.1), ("gain x10", 10.0)] {
        row(name, &recordings, HZ, |_, _, lead| lead.iter().map(|sample| gain * sample).collect());
    }
    for look_ahead_s in [1.0, 2.0, 4.0, 6.0, 10.0, 30.0, 60.0] {
        let params = DetectorParams { look_ahead_s, ..DetectorParams::default() };
        let name = format!("as recorded, look-ahead {look_ahead_s} s");
        row_with(&name, &recordings, HZ, &params, |_, _, lead| lead.to_vec());
    }
    speed(&recordings);
    ExitCode::SUCCESS
}

struct Recording {
    leads: Vec<Vec<f32>>,
    beats: Vec<i64>,
    flutter: Vec<(i64, i64)>,
}

impl Recording {
    fn read(path: &Path) -> Self {
        let record = read_record(path).expect("a record of the database");
        let annotations = read_annotations(path, "atr", record.timing()).expect("its annotations").items;
        let of = |symbol: &'static str| {
            annotations.iter().filter(move |a| a.code.symbol() == symbol).map(|a| a.sample_idx as i64)
        };
        Self {
            leads: record.leads.iter().map(|lead| lead.physical_iter().collect()).collect(),
            beats: annotations.iter().filter(|a| a.code.is_beat()).map(|a| a.sample_idx as i64).collect(),
            flutter: of("[").zip(of("]")).collect(),
        }
    }
}

#[derive(Default)]
struct Counts {
    found_n: usize,
    missed_n: usize,
    extra_n: usize,
}

impl Counts {
    fn add(&mut self, recording: &Recording, detected: &[i64]) {
        let mut extra = vec![true; detected.len()];
        for (&beat, pair) in recording.beats.iter().zip(match_beats(&recording.beats, detected, WINDOW_N)) {
            pair.iter().for_each(|&idx| extra[idx] = false);
            let count = if pair.is_some() { &mut self.found_n } else { &mut self.missed_n };
            *count += usize::from(beat >= FIVE_MINUTES_N);
        }
        let counts =
            |at: i64| at >= FIVE_MINUTES_N && !recording.flutter.iter().any(|&(from, to)| (from..=to).contains(&at));
        self.extra_n += detected.iter().zip(extra).filter(|&(&at, extra)| extra && counts(at)).count();
    }

    fn cells(&self) -> String {
        let percent = |other_n: usize| 100.0 * self.found_n as f64 / (self.found_n + other_n) as f64;
        format!("{:.3} | {:.3}", percent(self.missed_n), percent(self.extra_n))
    }
}

fn row(name: &str, recordings: &[Recording], hz: f64, change: impl Fn(&Recording, u64, &[f32]) -> Vec<f32>) {
    row_with(name, recordings, hz, &DetectorParams::default(), change);
}

fn row_with(
    name: &str,
    recordings: &[Recording],
    hz: f64,
    params: &DetectorParams,
    change: impl Fn(&Recording, u64, &[f32]) -> Vec<f32>,
) {
    let mut counts = [Counts::default(), Counts::default()];
    for (recording, idx) in recordings.iter().zip(0..) {
        let leads = recording.leads.iter().zip(0..).map(|(lead, lead_idx)| change(recording, 2 * idx + lead_idx, lead));
        let leads: Vec<Vec<f32>> = leads.collect();
        let leads: Vec<&[f32]> = leads.iter().map(Vec::as_slice).collect();
        for (counts, leads) in counts.iter_mut().zip([&leads[..1], &leads[..]]) {
            let detected = detect(leads, hz, params);
            let at = |peak: i64| resampled_position(peak, hz, HZ).round() as i64;
            counts.add(recording, &detected.into_iter().map(at).collect::<Vec<i64>>());
        }
    }
    println!("| {name} | {} | {} |", counts[0].cells(), counts[1].cells());
}

/// User CPU time of one lead, as recorded, over all records, several times.
fn speed(recordings: &[Recording]) {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let start_us = user_cpu_us();
            let found_n: usize =
                recordings.iter().map(|r| detect(&[&r.leads[0]], HZ, &DetectorParams::default()).len()).sum();
            assert!(found_n > 0);
            (user_cpu_us() - start_us) as f64 / 1000.0 / recordings.len() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let [least, median, most] = [0, times.len() / 2, times.len() - 1].map(|idx| times[idx]);
    println!("\none lead, ms of user CPU a record of 30 minutes: least {least:.2}, median {median:.2}, most {most:.2}");
}

/// User CPU time of this process so far.
fn user_cpu_us() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage").user_time().num_microseconds()
}
