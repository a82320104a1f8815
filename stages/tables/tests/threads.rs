//! Whatever the number of threads that polars uses, results are the same.
//!
//! Polars reads `POLARS_MAX_THREADS` once a process, so the test runs itself again in one process a setting.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the parent process reads what the child prints")]

use std::process::Command;

use ecgpipe_tables::{Tally, rhythm_features};

const CHILD: &str = "ECGPIPE_TABLES_CHILD";

#[test]
fn results_do_not_depend_on_threads() {
    if std::env::var_os(CHILD).is_some() {
        println!("digest {}", digest());
        return;
    }
    let of = |threads: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "results_do_not_depend_on_threads", "--nocapture"])
            .env("POLARS_MAX_THREADS", threads)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.split_once("digest ")).unwrap().1.to_owned()
    };
    let one = of("1");
    assert!(one.len() > 1000, "the child printed too little: {one}");
    assert_eq!(one, of("2"));
    assert_eq!(one, of("7"));
}

/// The bits of features and counts of 100,000 pseudo-random beats.
fn digest() -> String {
    let mut state = 1u64;
    let mut draw = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut position = 0;
    let positions: Vec<i64> = (0..100_000)
        .map(|_| {
            position += 150 + i64::try_from(draw(300)).unwrap();
            position
        })
        .collect();
    let features = rhythm_features(&positions, 360.0).unwrap();
    let sums = features
        .columns
        .iter()
        .map(|column| column.iter().fold(0u32, |sum, value| sum.rotate_left(1) ^ value.to_bits()));
    let mut codes = |limit: u64| (0..100_000).map(|_| u32::try_from(draw(limit)).unwrap()).collect::<Vec<_>>();
    let tally = Tally::of_beats(vec![("record", codes(48)), ("class", codes(5))]).unwrap();
    let joined =
        tally.join("record", "patient", &(0..48).map(|code| (code % 7 != 0).then_some(code / 2)).collect::<Vec<_>>());
    let counts = joined.unwrap().list(["patient", "class", "record"]).unwrap();
    format!("{:x?} {counts:?}", sums.collect::<Vec<_>>())
}
