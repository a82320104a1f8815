//! ONNX files and the engines that run them, through the public API.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it skips")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use ecgpipe_nn::{
    BaselineConfig, Beats, Conduct, Engine, Model, Moment, Search, Session, TrainingConfig, WindowUse, export, predict,
    read_metadata, read_signature, train, train_baseline,
};

mod synthetic;
use synthetic::{Set, config, signature};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// A network, trained a little.
fn network(set: &Set, seed: u64, window_use: WindowUse) -> Model {
    let mut config = TrainingConfig { epoch_n: 2, seed, ..config() };
    config.network.window_use = window_use;
    let mut hear = |_: Moment<'_>| ControlFlow::Continue(());
    train(&config, set.samples(), set.samples(), Conduct::new(ONE, &mut hear)).unwrap().model
}

/// Two networks, ensembles and a baseline.
fn models() -> Vec<Model> {
    let set = Set::new(200, 21);
    let of_use = |window_use| {
        let members: Vec<Model> = (3..6).map(|seed| network(&set, seed, window_use)).collect();
        [members[0].clone(), Model::ensemble(members).unwrap()]
    };
    let baseline = train_baseline(&BaselineConfig::new(signature()), set.samples()).unwrap();
    [WindowUse::Always, WindowUse::WithoutFeatures].into_iter().flat_map(of_use).chain([baseline]).collect()
}

fn metadata() -> BTreeMap<String, String> {
    [("provenance", "a \"quoted\" ünïcode value"), ("sampling_hz", "360")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// tract, and ONNX Runtime where one can be found without the network.
fn engines() -> Vec<Engine> {
    let found = Search { cache_folder: None, ask_python: true, offline: true }.run();
    let mut engines = vec![Engine::Tract];
    match found.library {
        Some(library) => engines.push(Engine::Ort(library)),
        None => eprintln!("skipped: ONNX Runtime ({}); set ORT_DYLIB_PATH", found.notes.join("; ")),
    }
    engines
}

#[test]
fn engines_agree_with_burn() {
    let set = Set::new(300, 22);
    for model in models() {
        let bytes = export(&model, &metadata()).unwrap();
        // Every third beat has no features.
        let mut features = set.features.clone();
        features.chunks_mut(2).step_by(3).for_each(|row| row.fill(f32::NAN));
        for features in [None, Some(&set.features), Some(&features)] {
            for beat_n in [0, 1, 7, 300] {
                let beats =
                    Beats { windows: &set.windows[..187 * beat_n], features: features.map(|r| &r[..2 * beat_n]) };
                let expected = predict(&model, beats, ONE).unwrap();
                for engine in engines() {
                    let mut session = Session::open(&bytes, &engine).unwrap();
                    let found = session.probabilities(beats).unwrap();
                    assert_eq!(found.len(), 5 * beat_n);
                    let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
                    assert!(largest < 1e-5, "{:?}, {beat_n} beats: {largest}", session.engine());
                    assert!(found.chunks(5).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
                }
            }
        }
    }
}

#[test]
fn an_ensemble_has_the_mean_of_its_members_logits() {
    let set = Set::new(200, 21);
    let members = vec![network(&set, 3, WindowUse::Always), network(&set, 4, WindowUse::Always)];
    let ensemble = Model::ensemble(members.clone()).unwrap();
    let of = |model: &Model| predict(model, set.samples().beats, ONE).unwrap();
    let (first, second, found) = (of(&members[0]), of(&members[1]), of(&ensemble));
    assert_ne!(first, second);
    for ((first, second), found) in first.chunks(5).zip(second.chunks(5)).zip(found.chunks(5)) {
        // The mean of logits is the geometric mean of probabilities, scaled to a sum of 1.
        let means: Vec<f32> = first.iter().zip(second).map(|(first, second)| (first * second).sqrt()).collect();
        let sum: f32 = means.iter().sum();
        assert!(means.iter().zip(found).all(|(mean, found)| (mean / sum - found).abs() < 1e-5));
    }
    // A temperature divides the logits of all members, so that of the ensemble.
    let scaled = of(&ensemble.scaled(2.0, &[0.0; 5]).unwrap());
    for (found, scaled) in found.chunks(5).zip(scaled.chunks(5)) {
        let ratio = |row: &[f32]| (row[0] / row[1]).ln();
        assert!((ratio(found) - 2.0 * ratio(scaled)).abs() < 1e-3);
    }
    assert_eq!(Model::ensemble(vec![members[0].clone()]).unwrap(), members[0]);
    let other = train_baseline(&BaselineConfig::new(signature()), set.samples()).unwrap();
    for wrong in [vec![], vec![members[0].clone(), other.clone()], vec![other, members[0].clone()]] {
        assert!(Model::ensemble(wrong).unwrap_err().to_string().contains("ensemble"));
    }
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    for model in models() {
        assert_eq!(export(&model, &metadata()).unwrap(), export(&model.clone(), &metadata()).unwrap());
    }
}

#[test]
fn metadata_comes_back() {
    for model in models() {
        let bytes = export(&model, &metadata()).unwrap();
        let found = read_metadata(&bytes).unwrap();
        assert!(metadata().iter().all(|(key, value)| found.get(key) == Some(value)), "{found:?}");
        assert_eq!(read_signature(&bytes).unwrap(), signature());
        let session = Session::open(&bytes, &Engine::Tract).unwrap();
        assert_eq!((session.metadata(), session.signature()), (&found, &signature()));
        assert_eq!(session.engine().name, "tract");
    }
    let reserved = BTreeMap::from([("ecgpipe.signature".to_owned(), String::new())]);
    let message = export(&models()[0], &reserved).unwrap_err().to_string();
    assert!(message.contains("`ecgpipe.signature` is reserved"), "{message}");
}

#[test]
fn beats_that_do_not_fit_are_errors() {
    let bytes = export(&models()[0], &metadata()).unwrap();
    for engine in engines() {
        let mut session = Session::open(&bytes, &engine).unwrap();
        let check = |session: &mut Session, windows: &[f32], features: Option<&[f32]>, expected: &str| {
            let message = session.probabilities(Beats { windows, features }).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&mut session, &[0.5; 186], None, "186 window values");
        check(&mut session, &[0.5; 374], Some(&[1.0; 3]), "3 feature values were given for 2 beats");
        let mut windows = [0.5; 374];
        windows[190] = f32::INFINITY;
        check(&mut session, &windows, None, "sample 3 of the window of beat 1");
    }
}

#[test]
fn hostile_bytes_are_errors() {
    let check = |bytes: &[u8], expected: &str| {
        let message = read_metadata(bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        for engine in engines() {
            assert_eq!(Session::open(bytes, &engine).unwrap_err().to_string(), message);
        }
    };
    check(b"", "0 bytes are not an ONNX file");
    check(b"PK\x03\x04 this is a zip file", "are not an ONNX file");
    // ir_version 8 and an empty graph, from nowhere in particular.
    check(&[0x08, 0x08, 0x3a, 0x00], "so ecgpipe did not write it");

    let good = export(&models()[0], &metadata()).unwrap();
    check(&good[..good.len() - 7], "are not an ONNX file");
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|part| part == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    check(&replaced(b"ecgpipe.onnx_format\x12\x012", b"ecgpipe.onnx_format\x12\x013"), "has the format 3");
    check(&replaced(b"\"window_n\":187", b"\"window_n\":188"), "its inputs are");
    check(&replaced(b"\"window_n\":187", b"\"window_m\":187"), "unknown field `window_m`");
    check(&replaced(b"Softmax", b"Hardmax"), "operator `Hardmax`");
}

#[test]
fn a_file_with_any_byte_changed_never_aborts() {
    let good = export(&models()[0], &metadata()).unwrap();
    let mut state = 5_u64;
    let mut opened_n = 0;
    let mut refused_n = 0;
    for round in 0..120 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = good.clone();
        // Most of the file is weights; the structure in its first and last parts is what is interesting.
        let span = if round % 2 == 0 { 4000.min(bytes.len()) } else { bytes.len() };
        let idx = (state >> 33) as usize % span;
        bytes[idx] ^= 1 << ((state >> 29) & 7);
        match Session::open(&bytes, &Engine::Tract) {
            Ok(mut session) => {
                opened_n += 1;
                // A changed weight is a valid file: what it predicts is its own affair, but it returns.
                let _ = session.probabilities(Beats { windows: &[0.5; 187], features: None });
            }
            Err(error) => {
                refused_n += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(opened_n > 15 && refused_n > 15, "{opened_n} opened, {refused_n} refused");
}
