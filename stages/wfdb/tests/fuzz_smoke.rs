//! A short fuzz run in every test: the corpus of `fuzz/`, and a fixed number of mutations of it from a fixed seed.

use std::collections::BTreeMap;
use std::path::Path;

use rand::{RngExt as _, SeedableRng as _};

#[expect(unreachable_pub, reason = "a crate of its own when it is fuzzed")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Mutated inputs of each target.
const MUTATION_N: usize = 50_000;

/// The inputs of a target, by name: those of the corpus, and what was found and repaired.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut inputs = BTreeMap::new();
    for folder in ["corpus", "findings"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("the folder can be read").path();
            inputs.insert(path.clone(), std::fs::read(path).expect("the file can be read"));
        }
    }
    assert!(!inputs.is_empty(), "the corpus of {target} is missing");
    inputs.into_values().collect()
}

fn check(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| run(input));
    let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(2025);
    for _ in 0..MUTATION_N {
        let mut input = corpus[random.random_range(0..corpus.len())].clone();
        for _ in 0..random.random_range(1..5) {
            mutate(&mut input, &corpus, &mut random);
        }
        run(&input);
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut impl rand::Rng) {
    /// What readers trip over.
    const WORDS: &[&[u8]] = &[
        b"0",
        b"-1",
        b"1",
        b"65536",
        b"4294967296",
        b"99999999999999999999",
        b"NaN",
        b"~",
        b"\n",
        b" ",
        b"\0",
        b"\xff\xff",
    ];
    let at = random.random_range(0..=input.len());
    match random.random_range(0..6) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => {
            let end = random.random_range(at..=input.len());
            input.drain(at..end);
        }
        3 => input.truncate(at),
        4 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            input.splice(at..at, word.iter().copied());
        }
        _ => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let start = random.random_range(0..=other.len());
            let end = random.random_range(start..=other.len().min(start + 64));
            input.splice(at..at, other[start..end].iter().copied());
        }
    }
}

#[test]
fn any_header_has_an_answer() {
    check("header", fuzz::header);
}

#[test]
fn any_signals_have_an_answer() {
    check("signals", fuzz::signals);
}

#[test]
fn any_annotations_have_an_answer() {
    check("annotations", fuzz::annotations);
}
