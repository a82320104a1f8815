//! Training, prediction with burn, and the baseline, through the public API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use ecgpipe_nn::{
    BaselineConfig, Beats, Conduct, Draws, Ending, Model, Moment, Samples, Selection, Trained, TrainingConfig,
    TrainingError, WindowUse, predict, train, train_baseline, train_on_draws,
};

mod synthetic;
use synthetic::{Set, config, signature};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn threads(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn run(config: &TrainingConfig, training: &Set, validation: &Set, thread_n: usize) -> Result<Trained, TrainingError> {
    let mut hear = |_: Moment<'_>| ControlFlow::Continue(());
    train(config, training.samples(), validation.samples(), Conduct::new(threads(thread_n), &mut hear))
}

fn accuracy(model: &Model, beats: Beats<'_>, labels: &[u8]) -> f64 {
    let probabilities = predict(model, beats, ONE).unwrap();
    let hit = |(row, label): &(&[f32], &u8)| row.iter().all(|value| *value <= row[usize::from(**label)]);
    probabilities.chunks(5).zip(labels).filter(hit).count() as f64 / labels.len() as f64
}

#[test]
fn the_number_of_threads_does_not_change_a_weight() {
    let (training, validation) = (Set::new(300, 1), Set::new(100, 2));
    let config = TrainingConfig { epoch_n: 2, ..config() };
    let one = run(&config, &training, &validation, 1).unwrap();
    for thread_n in [1, 2, 3] {
        let other = run(&config, &training, &validation, thread_n).unwrap();
        assert_eq!(one.history, other.history);
        for (name, tensor) in &one.model.tensors {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&tensor.values), bits(&other.model.tensors[name].values), "{name}, {thread_n} threads");
        }
        assert_eq!(
            predict(&one.model, validation.beats(), ONE).unwrap(),
            predict(&one.model, validation.beats(), threads(thread_n)).unwrap()
        );
    }
    let other_seed = run(&TrainingConfig { seed: 7, ..config }, &training, &validation, 1).unwrap();
    assert_ne!(one.model.tensors, other_seed.model.tensors);
}

#[test]
fn the_network_learns_from_windows_and_features() {
    let (training, validation, test) = (Set::new(1500, 3), Set::new(300, 4), Set::new(500, 5));
    let trained = run(&config(), &training, &validation, 2).unwrap();
    let with_features = accuracy(&trained.model, test.beats(), &test.labels);
    assert!(with_features > 0.95, "accuracy with features {with_features}");
    // Without features, classes 0 and 1 cannot be told apart, and the others still can.
    let window_only = Beats { features: None, ..test.beats() };
    let without = accuracy(&trained.model, window_only, &test.labels);
    assert!((0.7..0.9).contains(&without), "accuracy without features {without}");
    let absent = vec![f32::NAN; test.features.len()];
    let all_absent = Beats { features: Some(&absent), ..test.beats() };
    assert_eq!(predict(&trained.model, window_only, ONE).unwrap(), predict(&trained.model, all_absent, ONE).unwrap());
    let last = trained.history.last().unwrap();
    assert!(last.training.loss < 0.5 * trained.history[0].training.loss, "{:?}", trained.history);
}

#[test]
fn a_window_can_be_left_to_beats_without_features() {
    let (training, validation, test) = (Set::new(1500, 3), Set::new(300, 4), Set::new(500, 5));
    let mut config = TrainingConfig { feature_dropout: 0.5, ..config() };
    config.network.window_use = WindowUse::WithoutFeatures;
    let model = run(&config, &training, &validation, 2).unwrap().model;
    let blank = vec![0.5; test.windows.len()];
    let expected = predict(&model, test.beats(), ONE).unwrap();
    assert_eq!(predict(&model, Beats { windows: &blank, ..test.beats() }, ONE).unwrap(), expected);
    let by_features = accuracy(&model, test.beats(), &test.labels);
    assert!((0.3..0.7).contains(&by_features), "features tell class 1 from class 0, not the others: {by_features}");
    let by_window = accuracy(&model, Beats { features: None, ..test.beats() }, &test.labels);
    assert!((0.7..0.9).contains(&by_window), "windows tell all classes but 0 and 1: {by_window}");
}

/// Each class then hangs on more than one feature, here on the window too: a model that was trained with masks loses less
/// where the feature that tells two classes apart is gone.
#[test]
fn masked_features_are_trusted_less() {
    let (training, validation, test) = (Set::new(1500, 3), Set::new(300, 4), Set::new(500, 5));
    let probability = |feature_mask_share: f32, feature_noise: f32| {
        let config = TrainingConfig { feature_mask_share, feature_noise, epoch_n: 24, ..config() };
        let model = run(&config, &training, &validation, 2).unwrap().model;
        assert!(accuracy(&model, test.beats(), &test.labels) > 0.9);
        // How sure the model is of class 0 or 1, which the features alone tell apart.
        let rows = predict(&model, test.beats(), ONE).unwrap();
        let of = rows.chunks_exact(5).zip(&test.labels).filter(|(_, label)| **label < 2);
        let sure: Vec<f32> = of.map(|(row, label)| row[usize::from(*label)]).collect();
        sure.iter().sum::<f32>() / sure.len() as f32
    };
    let (plain, masked, noisy) = (probability(0.0, 0.0), probability(0.5, 0.0), probability(0.0, 1.0));
    assert!(masked < plain - 0.05 && noisy < plain - 0.01, "{plain} {masked} {noisy}");
}

#[test]
fn the_best_epoch_is_restored_and_training_stops_early() {
    let (training, validation) = (Set::new(200, 6), Set::new(100, 7));
    for selection in [Selection::MacroF1, Selection::Loss] {
        let config = TrainingConfig { selection, epoch_n: 60, patience_epoch_n: 3, learning_rate: 1e-2, ..config() };
        let trained = run(&config, &training, &validation, 2).unwrap();
        assert_eq!(trained.ending, Ending::Early, "{:?}", trained.history);
        assert_eq!(trained.history.len(), trained.best_epoch + 3);
        let best = trained.history[trained.best_epoch - 1].validation.as_ref().unwrap();
        assert!(trained.history.iter().all(|scores| {
            let scores = scores.validation.as_ref().unwrap();
            if selection == Selection::Loss { scores.loss >= best.loss } else { scores.macro_f1 <= best.macro_f1 }
        }));
        // The weights are those of that epoch, not of the last one.
        let found = accuracy(&trained.model, validation.beats(), &validation.labels);
        assert!((found - best.accuracy).abs() < 1e-9, "{found} is not {}", best.accuracy);
    }
}

#[test]
fn a_caller_can_break_off_at_every_batch_and_epoch_but_not_after_the_last() {
    let (training, validation) = (Set::new(200, 8), Set::new(50, 9));
    let config = TrainingConfig { epoch_n: 2, ..config() };
    // Breaks off when it hears for the n-th time; the answer is what it heard: `b` for the beginning, `w` for work in an
    // epoch, `E` for its end.
    let stopped_at = |n: usize| {
        let mut heard = String::new();
        let mut hear = |moment: Moment<'_>| {
            heard.push(match moment {
                Moment::Begins { history } => {
                    if history.is_empty() {
                        'b'
                    } else {
                        '?'
                    }
                }
                Moment::Working { .. } => 'w',
                Moment::Epoch { .. } => 'E',
            });
            if heard.len() == n { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let trained = train(&config, training.samples(), validation.samples(), Conduct::new(ONE, &mut hear));
        (heard, trained)
    };
    // Four batches and one validation an epoch.
    let all = "bwwwwwEwwwwwE";
    for n in 1..all.len() {
        let (heard, trained) = stopped_at(n);
        let epoch = if n < 7 { 1 } else { 2 };
        let error = trained.unwrap_err();
        assert!(matches!(error, TrainingError::Stopped { epoch: found } if found == epoch), "{n}: {error}");
        assert_eq!(heard, all[..n]);
    }
    let (heard, trained) = stopped_at(all.len());
    assert_eq!((heard.as_str(), trained.unwrap().ending), (all, Ending::Completed));
}

#[test]
fn drawn_beats_are_those_with_a_weight_and_threads_do_not_matter() {
    let (training, validation) = (Set::new(300, 11), Set::new(50, 12));
    // Class Q is never drawn, and so never answered.
    let weights: Vec<f64> = training.labels.iter().map(|&label| if label == 4 { 0.0 } else { 1.0 }).collect();
    let draws = Draws { weights: &weights, draw_n: 1000 };
    let train_on = |threads: usize, draws: Draws<'_>| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut hear = |_: Moment<'_>| ControlFlow::Continue(());
        train_on_draws(&config(), training.samples(), draws, validation.samples(), Conduct::new(threads, &mut hear))
    };
    let trained = train_on(1, draws).unwrap();
    assert_eq!(trained.model, train_on(2, draws).unwrap().model);
    let probabilities = predict(&trained.model, training.beats(), ONE).unwrap();
    assert!(probabilities.chunks_exact(5).all(|row| row[4] < 0.5 * row.iter().copied().fold(0.0, f32::max)));
    for (weights, draw_n) in
        [(&weights[1..], 10), (&weights[..], 0), (&vec![0.0; 300][..], 10), (&vec![-1.0; 300][..], 10)]
    {
        let message = train_on(1, Draws { weights, draw_n }).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{draw_n} beats cannot be drawn with {} weights", weights.len())),
            "{message}"
        );
    }
}

#[test]
fn what_cannot_be_trained_is_a_typed_error() {
    let set = Set::new(100, 10);
    let check = |config: TrainingConfig, samples: Samples<'_>, expected: &str| {
        let mut hear = |_: Moment<'_>| ControlFlow::Continue(());
        let result = train(&config, samples, set.samples(), Conduct::new(ONE, &mut hear));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let no_q: Vec<u8> = set.labels.iter().map(|label| label % 4).collect();
    check(config(), Samples { labels: &no_q, ..set.samples() }, "no beat of class Q");
    let allowed = TrainingConfig { require_every_class: false, epoch_n: 1, ..config() };
    let samples = Samples { labels: &no_q, ..set.samples() };
    let mut hear = |_: Moment<'_>| ControlFlow::Continue(());
    train(&allowed, samples, set.samples(), Conduct::new(ONE, &mut hear)).unwrap();

    check(TrainingConfig { dropout: 1.0, ..config() }, set.samples(), "`dropout` is 1; possible is 0 up to");
    check(TrainingConfig { learning_rate: f64::NAN, ..config() }, set.samples(), "`learning_rate` is NaN");
    check(config(), Samples { labels: &set.labels[1..], ..set.samples() }, "99 labels were given for 100 beats");
    let labels: Vec<u8> = set.labels.iter().map(|label| label + 1).collect();
    check(config(), Samples { labels: &labels, ..set.samples() }, "the label of beat 4 is class 5");
    let beats = Beats { windows: &set.windows[..186], features: None };
    check(config(), Samples { beats, labels: &[] }, "186 window values are not a multiple");
    check(config(), Samples { beats: Beats { windows: &[], features: None }, labels: &[] }, "has no beats");
    let mut features = set.features.clone();
    features[5] = f32::NAN;
    let beats = Beats { features: Some(&features), ..set.beats() };
    check(config(), Samples { beats, ..set.samples() }, "feature `rr_ms` of beat 2");
}

#[test]
fn a_model_with_a_missing_or_misshapen_tensor_is_refused() {
    let set = Set::new(50, 11);
    let model = run(&TrainingConfig { epoch_n: 1, ..config() }, &set, &set, 1).unwrap().model;
    let check = |change: fn(&mut Model), expected: &str| {
        let mut model = model.clone();
        change(&mut model);
        let message = predict(&model, set.beats(), ONE).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(|model| drop(model.tensors.remove("fused.bias")), "no tensor `fused.bias`");
    check(|model| model.tensors.get_mut("class.bias").unwrap().shape = vec![1, 5], "`class.bias` has the shape [1, 5]");
    check(|model| model.tensors.get_mut("class.bias").unwrap().values.truncate(4), "and 4 values");
    check(|model| model.tensors.get_mut("class.bias").unwrap().values[3] = f32::NAN, "value 3 of tensor `class.bias`");
    check(|model| model.tensors.get_mut("scaling.window_deviation").unwrap().values[0] = 0.0, "not positive");
    let extra = |model: &mut Model| drop(model.tensors.insert("extra".to_owned(), model.tensors["class.bias"].clone()));
    check(extra, "`extra`, which its architecture does not know");
    let json = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Model>(&json).unwrap(), model);
}

#[test]
fn the_baseline_learns_and_is_reproducible() {
    let (training, test) = (Set::new(1000, 12), Set::new(500, 13));
    let config = BaselineConfig { row_n: 800, ..BaselineConfig::new(signature()) };
    let model = train_baseline(&config, training.samples()).unwrap();
    assert_eq!(model, train_baseline(&config, training.samples()).unwrap());
    let found = accuracy(&model, test.beats(), &test.labels);
    assert!(found > 0.9, "accuracy {found}");
    let without = accuracy(&model, Beats { features: None, ..test.beats() }, &test.labels);
    assert!((0.6..0.9).contains(&without), "accuracy without features {without}");

    let no_q: Vec<u8> = training.labels.iter().map(|label| label % 4).collect();
    let samples = Samples { labels: &no_q, ..training.samples() };
    let message = train_baseline(&config, samples).unwrap_err().to_string();
    assert!(message.contains("no beat of class Q"), "{message}");
    let allowed = BaselineConfig { require_every_class: false, ..config };
    let model = train_baseline(&allowed, samples).unwrap();
    let probabilities = predict(&model, test.beats(), ONE).unwrap();
    assert!(probabilities.chunks(5).all(|row| row[4] < 1e-3), "a class that was never seen is never likely");
}
