//! What a stage is: the [`Stage`] trait, its [`ports`], the [`kinds`] of artifacts that travel between stages, and the
//! [`Registry`] of stages by name.
//!
//! A stage is a pure function from parameters and input artifacts to output artifacts; it knows nothing of files,
//! caches, threads or machines. Everything that does (the engine, a plugin host, a cluster worker) talks to stages
//! through [`ErasedStage`], the object-safe face of the trait.
//!
//! ```text
//! Stage (typed)  --register-->  Registry  --ErasedStage-->  engine
//!    |  Params: serde + JSON schema
//!    |  Inputs / Outputs: structs of ports made by `ports!`
//!    '- each port: a Kind (one Parquet schema) and a cardinality (Each / All / One)
//! ```
//!
//! Invariant: encoding an artifact gives the same bytes on every run, whatever the machine or the number of threads
//! (guarded by `table::tests::same_rows_give_the_same_bytes`).

pub mod content;
pub mod context;
pub mod error;
pub mod facts;
pub mod kind;
pub mod kinds;
pub mod ports;
pub mod provenance;
pub mod random;
pub mod record;
pub mod registry;
pub mod stage;
pub mod table;

pub use content::{Content, SpoolFile};
pub use context::{Cancelled, Checkpoints, Context, SourceContext, SourceFile, SourceRecord, StageEvent};
pub use error::StageError;
pub use facts::{FactProblem, Place, StageFacts};
pub use kind::{Artifact, Kind, KindError, KindSpec, MetricPoint, NamedFile};
pub use kinds::{
    Annotations, Beats, Calibration, Confusion, Features, Files, Fold, FoldModels, Lead, Metrics, Model,
    NormalisedWindows, Onnx, Part, Predictions, Quality, RawRecord, Signals, Split, SplitRow, Tensor, Windows,
};
pub use ports::{All, Cardinality, Each, NoInputs, One, Port, PortSpec, PortValue, PortValues, Ports};
pub use provenance::Provenance;
pub use random::derived_seed;
pub use record::RecordId;
pub use registry::Registry;
pub use schemars::{self, JsonSchema};
pub use serde::{self, Deserialize, Serialize};
pub use stage::{BoundParams, ErasedStage, ParamError, Stage, StageSpec};
