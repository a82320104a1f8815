//! Joins a split with windows and features into the arrays that a model learns from.

use std::collections::BTreeMap;

use ecgpipe_nn::{Beats, Samples, Signature};
use ecgpipe_sdk::{All, Features, NormalisedWindows, Part, Predictions, RecordId, Split, StageError};

use crate::aami::AamiClass;

/// The beats of one part of a split, in the order of records and beats.
#[derive(Debug, Default)]
pub struct Dataset {
    /// `beat_n` rows of window samples in [0, 1].
    pub windows: Vec<f32>,
    /// `beat_n` rows of features; a row of NaN where a beat has none. `None` without features at all.
    pub features: Option<Vec<f32>>,
    /// Class of each beat, as an index into [`AamiClass::ALL`].
    pub labels: Vec<u8>,
    /// Record and beat of each row.
    pub places: Vec<(RecordId, i64)>,
}

impl Dataset {
    /// The beats as a model takes them.
    #[must_use]
    pub fn beats(&self) -> Beats<'_> {
        Beats { windows: &self.windows, features: self.features.as_deref() }
    }

    /// The beats with their classes.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        Samples { beats: self.beats(), labels: &self.labels }
    }

    /// How many beats there are.
    #[must_use]
    pub fn beat_n(&self) -> usize {
        self.labels.len()
    }
}

/// What a model of these windows and features takes and gives.
///
/// # Errors
/// If two records have windows of different length or different features.
pub fn signature(windows: &All<NormalisedWindows>, features: Option<&All<Features>>) -> Result<Signature, StageError> {
    Ok(Signature { window_n: window_n(windows)?, ..Signature::aami(feature_names(features)?) })
}

/// The names of the features, which must be the same for all records; empty without features.
///
/// # Errors
/// If two records have different features.
fn feature_names(features: Option<&All<Features>>) -> Result<Vec<String>, StageError> {
    let Some(features) = features else { return Ok(Vec::new()) };
    let mut names: Option<&Vec<String>> = None;
    for (record, features) in features.iter() {
        if names.is_some_and(|names| *names != features.names) {
            let message = format!(
                "it has the features {:?}, other records have {:?}",
                features.names,
                names.unwrap_or(&Vec::new())
            );
            return Err(StageError::new(message).record(record));
        }
        names = Some(&features.names);
    }
    Ok(names.cloned().unwrap_or_default())
}

/// The length of the windows, which must be the same for all records.
///
/// # Errors
/// If two records have windows of different length, or there is no record.
fn window_n(windows: &All<NormalisedWindows>) -> Result<usize, StageError> {
    let mut lengths = windows.iter().map(|(record, windows)| (record, windows.windows.length_n));
    let Some((_, length_n)) = lengths.next() else { return Err(StageError::new("there are no windows")) };
    match lengths.find(|(_, other)| *other != length_n) {
        None => Ok(length_n),
        Some((record, other)) => {
            Err(StageError::new(format!("its windows have {other} samples, others have {length_n}")).record(record))
        }
    }
}

/// The beats of `part` that have a window.
///
/// # Errors
/// If the split names a record that has no windows, or a class that is not AAMI's.
pub fn gather(
    part: Part,
    windows: &All<NormalisedWindows>,
    features: Option<&All<Features>>,
    split: &Split,
) -> Result<Dataset, StageError> {
    let feature_n = feature_names(features)?.len();
    let mut dataset = Dataset { features: features.map(|_| Vec::new()), ..Dataset::default() };
    for (record, rows) in split.beats_of(part) {
        let missing = || StageError::new("the split names it, but it has no windows").record(record);
        let own = &windows.get(record).ok_or_else(missing)?.windows;
        let features = features.and_then(|features| features.get(record));
        let feature_rows = features.map(Features::to_rows).unwrap_or_default();
        for row in rows {
            // Both lists are sorted by beat, and a beat whose window was dropped is in the split only.
            let Ok(window_idx) = own.beat_idx.binary_search(&row.beat_idx) else { continue };
            let class = AamiClass::from_letter(&row.class)
                .ok_or_else(|| StageError::new(format!("`{}` is not an AAMI class", row.class)).record(record))?;
            dataset.windows.extend_from_slice(own.window(window_idx));
            dataset.labels.push(class.index() as u8);
            dataset.places.push((record.clone(), row.beat_idx));
            if let Some(rows) = &mut dataset.features {
                let found = features.and_then(|features| features.beat_idx.binary_search(&row.beat_idx).ok());
                match found {
                    Some(idx) => rows.extend_from_slice(&feature_rows[idx * feature_n..][..feature_n]),
                    None => rows.extend(std::iter::repeat_n(f32::NAN, feature_n)),
                }
            }
        }
    }
    Ok(dataset)
}

/// Adds what was made of the beats of a dataset: rows of features, several for each beat. Copies have the beat's own window
/// and class; fusion beats are F, and have a flat window, since nobody knows theirs. Of the rows of each beat those count that
/// are `member`, counted from 0, modulo `member_n`, so that the networks of an ensemble learn from different copies.
///
/// # Errors
/// If they have other features than the beats.
pub fn add_copies(
    dataset: &mut Dataset,
    copies: Option<&All<Features>>,
    fusions: Option<&All<Features>>,
    windows: &All<NormalisedWindows>,
    features: Option<&All<Features>>,
    (member, member_n): (usize, usize),
) -> Result<(), StageError> {
    let names = feature_names(features)?;
    for (record, copies) in [copies, fusions].into_iter().flatten().flat_map(All::iter) {
        if copies.names != names {
            let message = format!("its copies have the features {:?}, its beats have {names:?}", copies.names);
            return Err(StageError::new(message)
                .help("connect `features` to features in the order in which `augment` computes them")
                .record(record));
        }
    }
    let Some(mut rows) = dataset.features.take() else { return Ok(()) };
    let beat_n = dataset.places.len();
    // The rows of `made` that are of a beat.
    let rows_of = |made: &Features, beat_idx: i64| {
        let first = made.beat_idx.partition_point(|&idx| idx < beat_idx);
        let made_n = made.beat_idx[first..].iter().take_while(|&&idx| idx == beat_idx).count();
        (first..first + made_n).skip(member).step_by(member_n)
    };
    // Hundreds of megabytes: a vector that grows as it goes would take up to twice as much.
    let count = |(record, beat_idx): &(RecordId, i64)| -> usize {
        let made = [copies, fusions].into_iter().flatten().filter_map(|made| made.get(record));
        made.map(|made| rows_of(made, *beat_idx).len()).sum()
    };
    let added_n: usize = dataset.places.iter().map(count).sum();
    dataset.windows.reserve_exact(added_n * window_n(windows)?);
    rows.reserve_exact(added_n * names.len());
    for (made, class) in [(copies, None), (fusions, Some(AamiClass::F))] {
        let Some(made) = made else { continue };
        for place in 0..beat_n {
            let (record, beat_idx) = dataset.places[place].clone();
            let (Some(made), Some(own)) = (made.get(&record), windows.get(&record)) else { continue };
            let Ok(window_idx) = own.windows.beat_idx.binary_search(&beat_idx) else { continue };
            for row in rows_of(made, beat_idx) {
                match class {
                    None => dataset.windows.extend_from_slice(own.windows.window(window_idx)),
                    Some(_) => dataset.windows.extend(std::iter::repeat_n(0.0, own.windows.length_n)),
                }
                dataset.labels.push(class.map_or(dataset.labels[place], |class| class.index() as u8));
                dataset.places.push((record.clone(), beat_idx));
                rows.extend(made.columns.iter().map(|column| column[row]));
            }
        }
    }
    dataset.features = Some(rows);
    Ok(())
}

/// How likely each beat is drawn: a class by its share (in the order of [`AamiClass::ALL`]), every record that has the class
/// as likely as any other, and a record's beats alike. A class without beats gets nothing.
#[must_use]
pub fn draw_weights(dataset: &Dataset, class_shares: &[f64; AamiClass::ALL.len()]) -> Vec<f64> {
    let groups = || dataset.labels.iter().zip(&dataset.places).map(|(&label, (record, _))| (label, record));
    let mut beat_n: BTreeMap<(u8, &RecordId), usize> = BTreeMap::new();
    groups().for_each(|group| *beat_n.entry(group).or_default() += 1);
    let mut record_n = [0usize; AamiClass::ALL.len()];
    beat_n.keys().for_each(|(label, _)| record_n[usize::from(*label)] += 1);
    let weight = |group: (u8, &RecordId)| {
        let class = usize::from(group.0);
        class_shares[class] / record_n[class] as f64 / beat_n[&group] as f64
    };
    groups().map(weight).collect()
}

/// What a model takes of one record: its features aligned with its windows, where there are any.
///
/// # Errors
/// If windows or features are not those that the model was trained on.
pub fn model_features(
    signature: &Signature,
    windows: &NormalisedWindows,
    features: Option<&Features>,
) -> Result<Option<Vec<f32>>, StageError> {
    let own = &windows.windows;
    if own.length_n != signature.window_n {
        let message = format!("windows have {} samples, the model takes {}", own.length_n, signature.window_n);
        return Err(StageError::new(message).record(&own.record));
    }
    match features {
        Some(features) if features.names != signature.feature_names => {
            let message = format!("features are {:?}, the model takes {:?}", features.names, signature.feature_names);
            Err(StageError::new(message).record(&own.record))
        }
        Some(features) if !features.names.is_empty() => Ok(Some(align(windows, features))),
        _ => Ok(None),
    }
}

/// What a model says of a record's windows, in their order.
#[must_use]
pub fn predictions(windows: &NormalisedWindows, classes: Vec<String>, probabilities: Vec<f32>) -> Predictions {
    let own = &windows.windows;
    Predictions {
        record: own.record.clone(),
        patient: own.patient.clone(),
        classes,
        beat_idx: own.beat_idx.clone(),
        sample_idx: own.sample_idx.clone(),
        symbol: own.symbol.clone(),
        probabilities,
    }
}

/// The features of the beats that have a window, row by row as the windows; NaN where a beat has none.
#[must_use]
pub fn align(windows: &NormalisedWindows, features: &Features) -> Vec<f32> {
    let (rows, feature_n) = (features.to_rows(), features.names.len());
    let mut aligned = Vec::with_capacity(windows.windows.beat_n() * feature_n);
    for beat_idx in &windows.windows.beat_idx {
        match features.beat_idx.binary_search(beat_idx) {
            Ok(idx) => aligned.extend_from_slice(&rows[idx * feature_n..][..feature_n]),
            Err(_) => aligned.extend(std::iter::repeat_n(f32::NAN, feature_n)),
        }
    }
    aligned
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use ecgpipe_sdk::{SplitRow, Windows};

    use super::*;

    pub(crate) fn record(name: &str) -> RecordId {
        RecordId::new(name).expect("a valid name")
    }

    /// Windows of two samples for the given beats; the first sample is the beat's number over 100.
    pub(crate) fn windows(name: &str, beats: &[i64]) -> NormalisedWindows {
        let windows = Windows {
            record: record(name),
            patient: name.to_owned(),
            lead: "MLII".to_owned(),
            sampling_frequency_hz: 360.0,
            length_n: 2,
            before_n: 1,
            beat_idx: beats.to_vec(),
            sample_idx: beats.iter().map(|beat| beat * 300).collect(),
            symbol: vec![Some("N".to_owned()); beats.len()],
            samples: beats.iter().flat_map(|&beat| [beat as f32 / 100.0, 1.0]).collect(),
        };
        let beat_n = beats.len();
        NormalisedWindows { windows, minimum_mv: vec![0.0; beat_n], range_mv: vec![1.0; beat_n], record_range_mv: 1.0 }
    }

    fn row(name: &str, beat_idx: i64, class: &str, part: Part) -> SplitRow {
        SplitRow { record: record(name), patient: name.to_owned(), beat_idx, class: class.to_owned(), part }
    }

    #[test]
    fn beats_without_window_are_left_out_and_missing_features_are_nan() {
        let windows = All::new(BTreeMap::from([(record("a"), Arc::new(windows("a", &[0, 2, 3])))]));
        let features = Features {
            record: record("a"),
            beat_idx: vec![0, 3],
            names: vec!["rr_s".to_owned()],
            columns: vec![vec![0.5, 0.75]],
        };
        let features = All::new(BTreeMap::from([(record("a"), Arc::new(features))]));
        let rows = vec![
            row("a", 0, "N", Part::Training),
            row("a", 1, "V", Part::Training),
            row("a", 2, "V", Part::Training),
            row("a", 3, "S", Part::Test),
        ];
        let split = Split { strategy: "lists".to_owned(), leaks: Vec::new(), rows };
        let training = gather(Part::Training, &windows, Some(&features), &split).expect("gathered");
        assert_eq!(training.labels, [0, 2]);
        assert_eq!(training.windows, [0.0, 1.0, 0.02, 1.0]);
        let feature_rows = training.features.clone().expect("features");
        assert_eq!(feature_rows[0], 0.5);
        assert!(feature_rows[1].is_nan());
        let test = gather(Part::Test, &windows, None, &split).expect("gathered");
        assert_eq!((test.labels.as_slice(), test.features), (&[1][..], None));
    }

    #[test]
    fn copies_bring_the_window_and_the_class_of_their_beat() {
        let windows = All::new(BTreeMap::from([(record("a"), Arc::new(windows("a", &[0, 2, 3])))]));
        let features = |beat_idx: Vec<i64>, name: &str| {
            let column = beat_idx.iter().enumerate().map(|(row, beat)| *beat as f32 + row as f32 / 10.0).collect();
            let features =
                Features { record: record("a"), beat_idx, names: vec![name.to_owned()], columns: vec![column] };
            All::new(BTreeMap::from([(record("a"), Arc::new(features))]))
        };
        let own = features(vec![0, 2, 3], "rr_s");
        let rows =
            vec![row("a", 0, "N", Part::Training), row("a", 2, "V", Part::Training), row("a", 3, "S", Part::Test)];
        let split = Split { strategy: "lists".to_owned(), leaks: Vec::new(), rows };
        let mut training = gather(Part::Training, &windows, Some(&own), &split).expect("gathered");
        // Beat 3 is for the test, beat 0 has no copy.
        add_copies(&mut training, Some(&features(vec![2, 2, 3], "rr_s")), None, &windows, Some(&own), (0, 1))
            .expect("added");
        assert_eq!(training.labels, [0, 2, 2, 2]);
        assert_eq!(training.windows, [0.0, 1.0, 0.02, 1.0, 0.02, 1.0, 0.02, 1.0]);
        assert_eq!(training.features.as_deref(), Some(&[0.0, 2.1, 2.0, 2.1][..]));
        let mut fused = gather(Part::Training, &windows, Some(&own), &split).expect("gathered");
        add_copies(&mut fused, None, Some(&features(vec![0, 3], "rr_s")), &windows, Some(&own), (0, 1)).expect("added");
        assert_eq!((fused.labels.as_slice(), &fused.windows[4..]), (&[0, 2, 3][..], &[0.0, 0.0][..]));
        let weights = draw_weights(&training, &[3.0, 1.0, 1.5, 0.0, 0.0]);
        assert_eq!(weights, [3.0, 0.5, 0.5, 0.5]);
        let error = add_copies(&mut training, None, Some(&features(vec![2], "qrs")), &windows, Some(&own), (0, 1))
            .expect_err("other names");
        assert!(error.to_string().contains("its copies have the features [\"qrs\"]"), "{error}");
    }

    #[test]
    fn a_record_without_windows_is_named() {
        let split = Split { strategy: String::new(), leaks: Vec::new(), rows: vec![row("x", 0, "N", Part::Training)] };
        let error = gather(Part::Training, &All::new(BTreeMap::new()), None, &split).expect_err("no windows");
        assert_eq!(error.to_string(), "record x: the split names it, but it has no windows");
    }
}
