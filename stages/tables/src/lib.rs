//! Owns the tables over beats that need a data frame: [`rhythm`] features of one record, and [`Tally`], counts of beats
//! by any combination of codes (record, patient, class, part, ...), which splits and evaluations are made of.
//!
//! It is the one crate that sees polars, and only its eager frames: the lazy engine would double the compile time of
//! the workspace, and nothing here has a plan worth optimising. Polars stays inside: the interface is slices and
//! vectors.
//!
//! Invariant: every result is a function of its arguments, whatever the number of threads that polars uses (guarded by
//! `tests/threads.rs`).
//!
//! It must not know records, files, symbols or stages: only positions and codes.

pub mod rhythm;
pub mod tally;

pub use rhythm::{RhythmError, RhythmFeatures, rhythm_features};
pub use tally::{Tally, TallyError};
