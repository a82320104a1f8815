//! Owns what the bytes of each kind look like to a program that is not built with this crate: columns, types, units and
//! metadata. For the manual; encoding and decoding do not read it.
//!
//! Invariant: it says what [`crate::Kind::encode`] writes (`tests::every_layout_is_what_encoding_gives`).

use super::{
    Annotations, Beats, Calibration, Confusion, Features, Files, FoldModels, Metrics, Model, NormalisedWindows, Onnx,
    Predictions, Quality, RawRecord, Signals, Split, Windows,
};
use crate::kind::KindSpec;

/// What one kind looks like from outside.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The kind.
    pub kind: KindSpec,
    /// The columns of its table; none for a bundle, which is a folder of plain files, and for a format of its own.
    pub columns: &'static [Column],
    /// What belongs to the whole table, besides `ecgpipe.kind` and `unit.<column>`: name, and what it holds, as JSON.
    pub metadata: &'static [(&'static str, &'static str)],
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name; `<...>` stands for what changes from table to table.
    pub name: &'static str,
    /// Its type as pyarrow names it.
    pub data_type: &'static str,
    /// Whether a value may be null.
    pub nullable: bool,
    /// Its unit as `unit.<column>` in the metadata states it; empty for a number without a unit and for text.
    pub unit: &'static str,
    /// What it holds.
    pub doc: &'static str,
}

const fn column(name: &'static str, data_type: &'static str, doc: &'static str) -> Column {
    Column { name, data_type, nullable: false, unit: "", doc }
}

impl Column {
    const fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }
}

const RECORD: (&str, &str) = ("record", "the record's name, text");
const PATIENT: (&str, &str) = ("patient", "the patient, text; two records of one patient share it");
const FREQUENCY: (&str, &str) = ("sampling_frequency_hz", "samples per second, number");
const SAMPLE_N: (&str, &str) = ("sample_n", "length of the record in samples, integer");
const LEAD: (&str, &str) = ("lead", "name of the lead that was cut, text");
const LENGTH_N: (&str, &str) = ("length_n", "samples in a window, integer");
const BEFORE_N: (&str, &str) = ("before_n", "samples of a window before the R-peak, integer");
const CLASSES: (&str, &str) = ("classes", "class names in their order, list of text");

const BEAT_IDX: Column = column("beat_idx", "int64", "which beat of the record's `beats` (from 0)");
const PEAK_IDX: Column =
    column("sample_idx", "int64", "R-peak in the original record").unit("samples of the original record");
const SYMBOL: Column =
    column("symbol", "string", "WFDB symbol of the reference beat; null where none is known").nullable();

/// All kinds, by name.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        kind: KindSpec::of::<Annotations>(),
        columns: &[
            column("sample_idx", "int64", "position, ascending").unit("samples"),
            column("symbol", "string", "WFDB symbol"),
            column("subtype", "int32", "WFDB `subtyp`"),
            column("chan", "int32", "WFDB `chan`"),
            column("num", "int32", "WFDB `num`"),
            column("aux", "string", "WFDB `aux`, for example `(AFIB`; empty where there is none"),
        ],
        metadata: &[RECORD, FREQUENCY, SAMPLE_N],
    },
    Layout {
        kind: KindSpec::of::<Beats>(),
        columns: &[
            column("sample_idx", "int64", "R-peak; ascending within `found`").unit("samples"),
            SYMBOL,
            column("found", "bool", "false for reference beats that a detector missed; these rows come last"),
        ],
        metadata: &[RECORD, PATIENT, FREQUENCY, SAMPLE_N, ("source", "`\"reference\"` or `\"detected\"`")],
    },
    Layout {
        kind: KindSpec::of::<Calibration>(),
        columns: &[
            column("class", "string", "the class, in the order of the probabilities"),
            column("bias", "double", "what is added to the logarithm of its odds, after the division"),
        ],
        metadata: &[
            ("temperature", "what log-probabilities are divided by, number above 0"),
            ("uncertain_below", "a beat whose largest probability is lower is uncertain, number"),
            ("accuracy", "share of the other beats that was right where the bound was chosen, number"),
            ("coverage", "share of the beats that was not uncertain there, number"),
            ("beat_n", "beats there, number"),
        ],
    },
    Layout {
        kind: KindSpec::of::<Confusion>(),
        columns: &[
            column("view", "string", "which beats count: `all`, `aami`, ..."),
            column("escape_rule", "string", "`de_chazal` or `ec57`"),
            column("record", "string", "the record; `*` for all together"),
            column("truth", "string", "reference class"),
            column("predicted", "string", "predicted class; `missed` for a beat that was not detected"),
            column("count", "int64", "beats"),
        ],
        metadata: &[CLASSES],
    },
    Layout {
        kind: KindSpec::of::<Features>(),
        columns: &[BEAT_IDX, column("<name>", "float", "a column a feature, named in `names`; finite")],
        metadata: &[RECORD, ("names", "names of the feature columns in their order, list of text")],
    },
    Layout { kind: KindSpec::of::<Files>(), columns: &[], metadata: &[] },
    Layout {
        kind: KindSpec::of::<FoldModels>(),
        columns: &[column("model", "binary", "the model of a fold, as an artifact of kind `model`")],
        metadata: &[("held_out", "for each fold the records that its model has not seen, list of lists of text")],
    },
    Layout {
        kind: KindSpec::of::<Metrics>(),
        columns: &[
            column("key", "string", "name, `/` between section and metric"),
            column("step", "int64", "epoch or other counter; 0 for what is measured once"),
            column("value", "double", "the value"),
        ],
        metadata: &[],
    },
    Layout {
        kind: KindSpec::of::<Model>(),
        columns: &[
            column("name", "string", "the tensor's name; ascending"),
            column("shape", "string", "dimensions joined by `x`, for example `16x1x7`"),
            column("values", "binary", "floats of 32 bits, little-endian, row-major"),
        ],
        metadata: &[("family", "which code can run it, text"), ("config", "architecture, as the family defines it")],
    },
    Layout {
        kind: KindSpec::of::<NormalisedWindows>(),
        columns: &[
            BEAT_IDX,
            PEAK_IDX,
            SYMBOL,
            column("samples", "list<float>", "`length_n` samples in [0, 1]").unit("1"),
            column("minimum_mv", "float", "what became 0, in mV"),
            column("range_mv", "float", "what became 1 less what became 0, in mV; 0 for a flat window"),
        ],
        metadata: &[
            RECORD,
            PATIENT,
            LEAD,
            FREQUENCY,
            LENGTH_N,
            BEFORE_N,
            ("record_range_mv", "median of `range_mv`, in mV, number"),
        ],
    },
    Layout { kind: KindSpec::of::<Onnx>(), columns: &[], metadata: &[] },
    Layout {
        kind: KindSpec::of::<Predictions>(),
        columns: &[
            BEAT_IDX,
            PEAK_IDX,
            SYMBOL,
            column("probabilities", "list<float>", "one a class, in the order of `classes`"),
        ],
        metadata: &[RECORD, PATIENT, CLASSES],
    },
    Layout {
        kind: KindSpec::of::<Quality>(),
        columns: &[
            column("start_idx", "int64", "first sample of the window, ascending").unit("samples"),
            column("end_idx", "int64", "one past its last sample").unit("samples"),
            column("lead", "string", "name of the lead; null for all together, the last row of a window").nullable(),
            column("score", "float", "0 where nothing can be trusted, 1 where nothing speaks against it"),
            column("reason", "string", "what lowers the score most; null where there is no reason for doubt")
                .nullable(),
        ],
        metadata: &[RECORD, FREQUENCY, SAMPLE_N],
    },
    Layout { kind: KindSpec::of::<RawRecord>(), columns: &[], metadata: &[] },
    Layout {
        kind: KindSpec::of::<Signals>(),
        columns: &[column("lead_<n>", "int32", "samples of lead n (from 0); null where one is missing")
            .nullable()
            .unit("adu")],
        metadata: &[
            RECORD,
            PATIENT,
            FREQUENCY,
            (
                "leads",
                "list of `{name, units, gain_adu_per_unit, baseline_adu}`: value in `units` = (sample - baseline_adu) / \
                 gain_adu_per_unit",
            ),
            ("comments", "comment lines of the header, list of text"),
        ],
    },
    Layout {
        kind: KindSpec::of::<Split>(),
        columns: &[
            column("record", "string", "the record; ascending"),
            column("patient", "string", "the patient"),
            BEAT_IDX,
            column("class", "string", "AAMI class: `N`, `S`, `V`, `F` or `Q`"),
            column("part", "string", "`training`, `validation` or `test`"),
        ],
        metadata: &[
            ("strategy", "how it was split, text"),
            ("leaks", "patients on both sides, list of `{patient, records: {record: [part]}}`"),
        ],
    },
    Layout {
        kind: KindSpec::of::<Windows>(),
        columns: &[BEAT_IDX, PEAK_IDX, SYMBOL, column("samples", "list<float>", "`length_n` samples").unit("mV")],
        metadata: &[RECORD, PATIENT, LEAD, FREQUENCY, LENGTH_N, BEFORE_N],
    },
];

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use arrow_schema::DataType;
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

    use super::*;
    use crate::{
        kind::{Artifact, MetricPoint, NamedFile},
        kinds::{
            self, Annotation, Beat, ConfusionRow, Fold, INVALID_SAMPLE, Lead, Part, PeakSource, QualityRow, SplitRow,
            Tensor,
        },
        record::RecordId,
    };

    /// One artifact of each kind, with a null wherever there may be one.
    fn examples() -> BTreeMap<&'static str, Artifact> {
        let record = RecordId::new("100").expect("a valid name");
        let text = str::to_owned;
        let beat = |sample_idx, symbol: Option<&str>| Beat { sample_idx, symbol: symbol.map(str::to_owned) };
        let windows = Windows {
            record: record.clone(),
            patient: text("100"),
            lead: text("MLII"),
            sampling_frequency_hz: 360.0,
            length_n: 2,
            before_n: 1,
            beat_idx: vec![0, 1],
            sample_idx: vec![77, 370],
            symbol: vec![Some(text("N")), None],
            samples: vec![0.0, 1.0, 1.0, 0.0],
        };
        let lead = Lead {
            name: text("MLII"),
            units: text("mV"),
            gain_adu_per_unit: 200.0,
            baseline_adu: 1024,
            samples: vec![1, INVALID_SAMPLE].into(),
        };
        let files = vec![NamedFile { name: text("a.svg"), bytes: vec![1] }];
        let tensor = Tensor { shape: vec![1, 2], values: vec![0.5, 1.0] };
        let model = Model {
            family: text("cnn"),
            config: serde_json::json!({}),
            tensors: BTreeMap::from([(text("bias"), tensor)]),
        };
        let all: [(&'static str, Artifact); 17] = [
            (
                "annotations",
                Arc::new(Annotations {
                    record: record.clone(),
                    sampling_frequency_hz: 360.0,
                    sample_n: 1000,
                    annotations: vec![Annotation {
                        sample_idx: 5,
                        symbol: text("N"),
                        subtype: 0,
                        chan: 0,
                        num: 0,
                        aux: text(""),
                    }],
                }),
            ),
            (
                "beats",
                Arc::new(Beats {
                    record: record.clone(),
                    patient: text("100"),
                    sampling_frequency_hz: 360.0,
                    sample_n: 1000,
                    source: PeakSource::Detected,
                    beats: vec![beat(77, Some("N")), beat(370, None)],
                    missed: vec![beat(662, Some("V"))],
                }),
            ),
            (
                "calibration",
                Arc::new(Calibration {
                    temperature: 1.5,
                    classes: vec![text("N"), text("V")],
                    bias: vec![0.0, 0.5],
                    uncertain_below: 0.7,
                    accuracy: 0.99,
                    coverage: 0.9,
                    beat_n: 100,
                }),
            ),
            (
                "confusion",
                Arc::new(Confusion {
                    classes: vec![text("N")],
                    rows: vec![ConfusionRow {
                        view: text("all"),
                        escape_rule: text("ec57"),
                        record: text("*"),
                        truth: text("N"),
                        predicted: text("N"),
                        count: 3,
                    }],
                }),
            ),
            (
                "features",
                Arc::new(Features {
                    record: record.clone(),
                    names: vec![text("rr_s")],
                    beat_idx: vec![0],
                    columns: vec![vec![0.8]],
                }),
            ),
            ("files", Arc::new(Files::new(files.clone()))),
            (
                "fold_models",
                Arc::new(FoldModels { folds: vec![Fold { held_out: vec![record.clone()], model: model.clone() }] }),
            ),
            ("metrics", Arc::new(Metrics { points: vec![MetricPoint { key: text("a"), step: 0, value: 1.0 }] })),
            ("model", Arc::new(model)),
            (
                "normalised_windows",
                Arc::new(NormalisedWindows {
                    windows: windows.clone(),
                    minimum_mv: vec![0.0, 0.0],
                    range_mv: vec![1.0, 1.0],
                    record_range_mv: 1.0,
                }),
            ),
            ("onnx", Arc::new(Onnx { bytes: Bytes::new() })),
            (
                "predictions",
                Arc::new(Predictions {
                    record: record.clone(),
                    patient: text("100"),
                    classes: vec![text("N"), text("V")],
                    beat_idx: vec![0, 1],
                    sample_idx: vec![77, 370],
                    symbol: vec![Some(text("N")), None],
                    probabilities: vec![1.0, 0.0, 0.5, 0.5],
                }),
            ),
            (
                "quality",
                Arc::new(Quality {
                    record: record.clone(),
                    sampling_frequency_hz: 360.0,
                    sample_n: 3600,
                    rows: vec![QualityRow { start_idx: 0, end_idx: 3600, lead: None, score: 1.0, reason: None }],
                }),
            ),
            ("raw_record", Arc::new(RawRecord::new(files))),
            (
                "signals",
                Arc::new(Signals {
                    record: record.clone(),
                    patient: text("100"),
                    sampling_frequency_hz: 360.0,
                    leads: vec![lead],
                    comments: Vec::new(),
                }),
            ),
            (
                "split",
                Arc::new(Split {
                    strategy: text("by_patient"),
                    leaks: Vec::new(),
                    rows: vec![SplitRow {
                        record,
                        patient: text("100"),
                        beat_idx: 0,
                        class: text("N"),
                        part: Part::Test,
                    }],
                }),
            ),
            ("windows", Arc::new(windows)),
        ];
        all.into()
    }

    fn type_name(data_type: &DataType) -> String {
        match data_type {
            DataType::Int32 => "int32".to_owned(),
            DataType::Int64 => "int64".to_owned(),
            DataType::Float32 => "float".to_owned(),
            DataType::Float64 => "double".to_owned(),
            DataType::Boolean => "bool".to_owned(),
            DataType::Utf8 => "string".to_owned(),
            DataType::Binary => "binary".to_owned(),
            DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
            other => panic!("a column of type {other}"),
        }
    }

    /// A name of the layout, without what changes, against the name in a table.
    fn is_named(layout: &str, found: &str) -> bool {
        match layout.split_once('<') {
            Some((beginning, _)) => found.starts_with(beginning),
            None => layout == found,
        }
    }

    #[test]
    fn every_layout_is_what_encoding_gives() {
        let examples = examples();
        let names: Vec<&str> = LAYOUTS.iter().map(|layout| layout.kind.name).collect();
        assert_eq!(names, kinds::all().iter().map(|kind| kind.name).collect::<Vec<_>>());
        assert_eq!(names, examples.keys().copied().collect::<Vec<_>>());
        for layout in LAYOUTS {
            let (kind, artifact) = (layout.kind, &examples[layout.kind.name]);
            assert_eq!(kind.bundle, kind.files(artifact).is_some(), "{}", kind.name);
            let is_table = !kind.bundle && kind.extension == "parquet";
            assert_eq!(is_table, !layout.columns.is_empty(), "{}", kind.name);
            if !is_table {
                continue;
            }
            let bytes = Bytes::from(kind.encode(artifact).expect("a valid example"));
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let table = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).expect("own bytes");
            let entries = table.metadata().file_metadata().key_value_metadata().expect("every table has some");
            let metadata: BTreeMap<&str, &str> =
                entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_deref().unwrap_or_default())).collect();
            let fields = table.schema().fields();
            assert_eq!(fields.len(), layout.columns.len(), "{}", kind.name);
            for (field, column) in fields.iter().zip(layout.columns) {
                let place = format!("{}.{}", kind.name, column.name);
                assert!(is_named(column.name, field.name()), "{place} is {}", field.name());
                assert_eq!(type_name(field.data_type()), column.data_type, "{place}");
                assert_eq!(field.is_nullable(), column.nullable, "{place}");
                let unit = metadata.get(format!("unit.{}", field.name()).as_str()).copied().unwrap_or_default();
                assert_eq!(unit, column.unit, "{place}");
            }
            let others = metadata.keys().filter(|key| **key != "ecgpipe.kind" && !key.starts_with("unit."));
            let described: BTreeSet<&str> = layout.metadata.iter().map(|(name, _)| *name).collect();
            assert_eq!(others.copied().collect::<BTreeSet<_>>(), described, "{}", kind.name);
        }
    }
}
