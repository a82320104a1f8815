//! The kinds of artifacts, one module each: the in-memory type, its Parquet schema, units and metadata.
//!
//! | kind | holds |
//! |---|---|
//! | `raw_record` | the WFDB files of one record, as bytes |
//! | `signals` | the samples of one record, per lead, in ADC units with their gain |
//! | `annotations` | all reference annotations of one record |
//! | `beats` | R-peak positions of one record, with reference labels where known |
//! | `quality` | where beats of one record can be trusted, by window and lead, and why not |
//! | `windows` | one stretch of signal a beat, in mV |
//! | `normalised_windows` | the same scaled to [0, 1], with the scale kept beside it |
//! | `features` | named numbers a beat |
//! | `split` | which beat is for training, validation or test |
//! | `model` | named tensors of a trained model |
//! | `fold_models` | the models of a cross-validation, each with the records that it has not seen |
//! | `calibration` | what makes a model's probabilities frequencies, and where they are uncertain |
//! | `onnx` | an ONNX file |
//! | `predictions` | class probabilities a beat |
//! | `confusion` | confusion counts, per record and view |
//! | `metrics` | named numbers over steps |
//! | `files` | a bundle of files to publish: figures, reports, samples |

mod annotations;
mod beats;
mod calibration;
mod confusion;
mod features;
mod files;
mod fold_models;
pub mod layout;
mod metrics;
mod model;
mod onnx;
mod predictions;
mod quality;
mod signals;
mod split;
mod windows;

pub use annotations::{Annotation, Annotations};
pub use beats::{Beat, Beats, PeakSource};
pub use calibration::Calibration;
pub use confusion::{Confusion, ConfusionRow};
pub use features::Features;
pub use files::{Files, RawRecord};
pub use fold_models::{Fold, FoldModels};
pub use metrics::Metrics;
pub use model::{Model, Tensor};
pub use onnx::{Onnx, OnnxMetadataError};
pub use predictions::Predictions;
pub use quality::{Quality, QualityRow};
pub use signals::{INVALID_SAMPLE, Lead, LeadSamples, Signals, SignalsWriter, StoredLead};
pub use split::{Leak, Part, Split, SplitRow};
pub use windows::{NormalisedWindows, Windows, WindowsWriter};

use crate::{
    kind::{Kind, KindError, KindSpec},
    table::TableError,
};

/// Every kind, sorted by name.
#[must_use]
pub fn all() -> Vec<KindSpec> {
    let mut kinds = vec![
        KindSpec::of::<RawRecord>(),
        KindSpec::of::<Signals>(),
        KindSpec::of::<Annotations>(),
        KindSpec::of::<Beats>(),
        KindSpec::of::<Windows>(),
        KindSpec::of::<NormalisedWindows>(),
        KindSpec::of::<Features>(),
        KindSpec::of::<Split>(),
        KindSpec::of::<Model>(),
        KindSpec::of::<Onnx>(),
        KindSpec::of::<FoldModels>(),
        KindSpec::of::<Calibration>(),
        KindSpec::of::<Predictions>(),
        KindSpec::of::<Quality>(),
        KindSpec::of::<Confusion>(),
        KindSpec::of::<Metrics>(),
        KindSpec::of::<Files>(),
    ];
    kinds.sort_by_key(|kind| kind.name);
    kinds
}

/// A kind by its name.
#[must_use]
pub fn by_name(name: &str) -> Option<KindSpec> {
    all().into_iter().find(|kind| kind.name == name)
}

fn table_error<K: Kind>(source: TableError) -> KindError {
    KindError::Table { kind: K::NAME, source }
}

/// Fails unless every column has `expected` entries.
fn check_lengths<K: Kind>(expected: usize, columns: &[(&str, usize)]) -> Result<(), KindError> {
    match columns.iter().find(|(_, found)| *found != expected) {
        None => Ok(()),
        Some((name, found)) => Err(KindError::Invalid {
            kind: K::NAME,
            message: format!("column `{name}` has {found} entries, expected {expected}"),
        }),
    }
}

#[cfg(test)]
fn check_round_trip<K: Kind + PartialEq + std::fmt::Debug>(value: &K) {
    let bytes = bytes::Bytes::from(value.encode().expect("a valid value"));
    assert_eq!(&K::decode(&bytes).expect("its own bytes"), value);
    assert_eq!(K::decode(&bytes).expect("its own bytes").encode().expect("a valid value"), bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The table at the head of this file is the list for people; both must name the same kinds.
    #[test]
    fn every_kind_is_found_by_its_name() {
        let rows = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
        let table: BTreeSet<&str> = rows.collect();
        let names: BTreeSet<&str> = super::all().iter().map(|kind| kind.name).collect();
        assert_eq!(names, table);
        assert_eq!(names.len(), super::all().len());
        assert_eq!(super::by_name("signals").map(|kind| kind.version), Some(1));
        assert!(super::by_name("signal").is_none());
    }
}
