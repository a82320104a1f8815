//! What the features of a beat cost: `ECGPIPE_DATA=DATA cargo bench -p ecgpipe-stages --bench features`, with the MIT-BIH
//! Arrhythmia Database in `DATA/mitdb`. Prints beats per CPU second of `rhythm` and `morphology` over all 48 records, decoded
//! beforehand, on one thread, and CPU seconds a record of `augment`.
//!
//! `-- write FILE` keeps the features of `morphology` in a file instead, and `-- compare FILE` says how far those of this
//! program are from them: for each feature the correlation over all beats and the largest difference.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a bench does")]

#[path = "../mitdb.rs"]
mod mitdb;

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ecgpipe_sdk::{
    Beats, Lead, RecordId, Signals,
    kinds::{Beat, INVALID_SAMPLE, PeakSource},
};
use ecgpipe_stages::{augment, morphology, rhythm};
use ecgpipe_wfdb::{INVALID_I32, read_annotations, read_record};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

const ROUND_N: usize = 9;

fn main() -> ExitCode {
    let Some(folder) = mitdb::folder() else { return ExitCode::FAILURE };
    let recordings: Vec<Recording> = mitdb::RECORDS.iter().map(|record| Recording::read(&folder, record)).collect();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => speed(&recordings),
        ["write", file] => write(&recordings, &PathBuf::from(file)),
        ["compare", file] => compare(&recordings, &PathBuf::from(file)),
        _ => {
            eprintln!("say nothing, `write FILE` or `compare FILE`, not {arguments:?}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

struct Recording {
    signals: Signals,
    beats: Beats,
}

impl Recording {
    fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let read = read_record(&path).expect("a record of the database");
        let annotations = read_annotations(&path, "atr", read.timing()).expect("its annotations").items;
        let lead = |lead: &ecgpipe_wfdb::Lead| Lead {
            name: lead.name.clone(),
            units: lead.units.clone(),
            gain_adu_per_unit: lead.gain_adu_per_unit,
            baseline_adu: lead.baseline_adu,
            samples: lead
                .samples
                .iter()
                .map(|sample| if sample == INVALID_I32 { INVALID_SAMPLE } else { sample })
                .collect::<Vec<i32>>()
                .into(),
        };
        let signals = Signals {
            record: RecordId::new(name).expect("a name of the database"),
            patient: name.to_owned(),
            sampling_frequency_hz: read.sampling_frequency_hz(),
            leads: read.leads.iter().map(lead).collect(),
            comments: Vec::new(),
        };
        let is_beat = |annotation: &&ecgpipe_wfdb::Annotation| annotation.code.is_beat();
        let beat =
            |annotation: &ecgpipe_wfdb::Annotation| Beat { sample_idx: annotation.sample_idx as i64, symbol: None };
        let beats = Beats {
            record: signals.record.clone(),
            patient: signals.patient.clone(),
            sampling_frequency_hz: signals.sampling_frequency_hz,
            sample_n: signals.sample_n() as i64,
            source: PeakSource::Reference,
            beats: annotations.iter().filter(is_beat).map(beat).collect(),
            missed: Vec::new(),
        };
        Self { signals, beats }
    }

    fn morphology(&self) -> ecgpipe_sdk::Features {
        morphology::features(&morphology::Params::default(), &self.signals, &self.beats).expect("two leads in mV")
    }
}

fn speed(recordings: &[Recording]) {
    let all = rhythm::Params::default();
    let rhythm = times_s(ROUND_N, || {
        for recording in recordings {
            black_box(rhythm::features(&all, &recording.beats).expect("beats in order"));
        }
    });
    let morphology = times_s(ROUND_N, || {
        for recording in recordings {
            black_box(recording.morphology());
        }
    });
    let both: Vec<f64> = rhythm.iter().zip(&morphology).map(|(rhythm, morphology)| rhythm + morphology).collect();
    let beat_n: usize = recordings.iter().map(|recording| recording.beats.beats.len()).sum();
    println!("{beat_n} beats of {} records; beats per CPU second on one thread, {ROUND_N} rounds:", recordings.len());
    for (name, times) in [("rhythm", rhythm), ("morphology", morphology), ("both", both)] {
        let [least, median, most] = least_median_most(times).map(|time_s| beat_n as f64 / time_s);
        println!("{name}: median {median:.0}, from {most:.0} to {least:.0}");
    }
    let augment = times_s(3, || {
        for recording in recordings {
            let params = augment::Params::default();
            black_box(augment::copies(&params, &recording.signals, &recording.beats, 1).expect("two leads in mV"));
        }
    });
    let [least, median, most] = least_median_most(augment).map(|time_s| time_s / recordings.len() as f64);
    println!("augment: CPU seconds a record, 3 rounds: median {median:.3}, from {least:.3} to {most:.3}");
}

/// CPU seconds of each round.
fn times_s(round_n: usize, mut act: impl FnMut()) -> Vec<f64> {
    let mut round = || {
        let start_us = cpu_us();
        act();
        (cpu_us() - start_us) as f64 / 1e6
    };
    (0..round_n).map(|_| round()).collect()
}

fn least_median_most(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [0, times.len() / 2, times.len() - 1].map(|idx| times[idx])
}

/// CPU time of this process so far, that of the kernel for it included.
fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

/// One column a feature, all records one after another.
fn columns(recordings: &[Recording]) -> Vec<Vec<f32>> {
    let mut columns = vec![Vec::new(); morphology::feature_names().len()];
    for recording in recordings {
        let features = recording.morphology();
        columns.iter_mut().zip(&features.columns).for_each(|(column, part)| column.extend(part));
    }
    columns
}

fn write(recordings: &[Recording], file: &Path) {
    let bytes: Vec<u8> = columns(recordings).iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(file, bytes).expect("a file that can be written");
}

fn compare(recordings: &[Recording], file: &Path) {
    let columns = columns(recordings);
    let bytes = std::fs::read(file).expect("a file of `write`");
    let (numbers, rest) = bytes.as_chunks::<4>();
    let before: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let row_n = columns[0].len();
    assert!(rest.is_empty() && before.len() == columns.len() * row_n, "a file of `write` of the same records");
    let mut lines: Vec<(f64, String)> = Vec::new();
    for ((name, now), before) in morphology::feature_names().iter().zip(&columns).zip(before.chunks_exact(row_n)) {
        assert!(now.iter().all(|value| value.is_finite()), "{name} is finite");
        let correlation = correlation(before, now);
        let most = before.iter().zip(now).map(|(before, now)| (before - now).abs()).fold(0.0, f32::max);
        lines.push((correlation, format!("| {name} | {correlation:.5} | {most:.3} |")));
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("| feature | correlation | largest difference |\n|---|---|---|");
    lines.iter().for_each(|(_, line)| println!("{line}"));
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let mean = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - mean_a, f64::from(b) - mean_b);
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    ab / (aa * bb).sqrt()
}
