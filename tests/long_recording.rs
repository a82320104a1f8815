//! A long recording goes through ingest, detection and windows in bounded memory: what is in memory does not grow with the
//! length of the record.
//!
//! The whole program runs, and the peak of its memory is what the kernel says of a child that has ended. The records are
//! shorter than a day, so that the test takes seconds; the day is run by hand:
//! `cargo test --release --test long_recording -- --ignored --nocapture`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and a figure is to be seen")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Command,
};

use nix::sys::resource::{UsageWho, getrusage};

const LEAD_N: usize = 12;
const FREQUENCY_HZ: usize = 1000;

/// What a day of twelve leads at 1 kHz may take, in MB.
const LIMIT_MB: i64 = 200;

const PIPELINE: &str = "\
name: long
stages:
  ingest:  {uses: ingest_wfdb, with: {database: data/raw/long, annotations: optional}}
  peaks:   {uses: detect_peaks, in: {signals: ingest.signals}, with: {all_leads: false}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
";

/// A beat every 0.8 s on a noisy baseline, the same on all leads but for its size.
fn write_record(folder: &Path, minute_n: usize) -> usize {
    fs::create_dir_all(folder).unwrap();
    let frame_n = minute_n * 60 * FREQUENCY_HZ;
    let mut file = BufWriter::new(File::create(folder.join("long.dat")).unwrap());
    let (mut checksums, mut first, mut noise) = ([0i16; LEAD_N], [0i16; LEAD_N], 1u32);
    for frame_idx in 0..frame_n {
        let from_peak = (frame_idx % 800).abs_diff(400) as i32;
        let beat = (240 - 6 * from_peak).max(0);
        for lead_idx in 0..LEAD_N {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (beat * (lead_idx as i32 + 4) / 8 + (noise >> 28) as i32) as i16;
            checksums[lead_idx] = checksums[lead_idx].wrapping_add(sample);
            if frame_idx == 0 {
                first[lead_idx] = sample;
            }
            file.write_all(&sample.to_le_bytes()).unwrap();
        }
    }
    file.flush().unwrap();
    let mut header = format!("long {LEAD_N} {FREQUENCY_HZ} {frame_n}\n");
    for lead_idx in 0..LEAD_N {
        let (first, checksum) = (first[lead_idx], checksums[lead_idx]);
        header += &format!("long.dat 16 200(0)/mV 16 0 {first} {checksum} 0 lead {lead_idx}\n");
    }
    fs::write(folder.join("long.hea"), header).unwrap();
    minute_n * 60 * 1000 / 800
}

/// Runs the pipeline on such a record and gives the peak of all children so far, in MB.
fn peak_mb(minute_n: usize) -> i64 {
    let project = tempfile::tempdir().unwrap();
    let beat_n = write_record(&project.path().join("data/raw/long"), minute_n);
    fs::write(project.path().join("long.yaml"), PIPELINE).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_ecgpipe"));
    let output = program.arg("-C").arg(project.path()).args(["run", "long.yaml", "--offline"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("3 computed"), "{text}");
    // Nothing is left of the files that outputs were written into.
    let left: Vec<_> = fs::read_dir(project.path().join("data/store/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let listed = Command::new(env!("CARGO_BIN_EXE_ecgpipe"))
        .arg("-C")
        .arg(project.path())
        .args(["cache", "verify"])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(beat_n > 100);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let (peak_mb, cpu_s) = (usage.max_rss() / 1024, usage.user_time().tv_sec() + usage.system_time().tv_sec());
    eprintln!("{minute_n} minutes: peak {peak_mb} MB; all runs so far: {cpu_s} CPU s");
    peak_mb
}

#[test]
#[ignore = "a file of 2 GB, a minute"]
fn a_day_of_twelve_leads() {
    let mb = peak_mb(24 * 60);
    assert!(mb <= LIMIT_MB, "{mb} MB");
}

#[test]
fn memory_does_not_grow_with_the_length_of_a_record() {
    let (short_min, long_min) = (60, 300);
    let (short_mb, long_mb) = (peak_mb(short_min), peak_mb(long_min));
    assert!(long_mb <= LIMIT_MB, "{long_mb} MB");
    // What the threads and the allocator happen to hold moves by tens of MB from run to run; whoever kept the samples would
    // keep at least the whole of what the file grew by.
    let file_grew_mb = ((long_min - short_min) * 60 * FREQUENCY_HZ * LEAD_N * 2 / 1_000_000) as i64;
    assert!(
        long_mb <= short_mb + file_grew_mb / 4,
        "{short_mb} MB for {short_min} minutes, {long_mb} MB for {long_min}, which are {file_grew_mb} MB more of samples"
    );
}
