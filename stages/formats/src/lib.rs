//! Recordings in the formats that people have who do not have WFDB: EDF, EDF+, BDF, BDF+, CSV and NumPy's `.npy`.
//!
//! [`Recording`] reads all of them as what they would be as WFDB records: a [`Header`](ecgpipe_wfdb::Header), integer
//! samples, annotations. It reads a piece at a time, so that a recording of a day takes no more memory than one of a
//! minute, and the same strictness holds as in [`ecgpipe_wfdb`]: what is wrong is refused with file, place and field, and
//! whatever had to be decided (a unit that is not there, a value that had to be rounded) is told by [`Recording::notes`].
//!
//! ```no_run
//! use ecgpipe_formats::{Options, Recording};
//!
//! let mut recording = Recording::open("holter.edf", &Options::default())?;
//! println!("{} leads at {} Hz", recording.header().signals.len(), recording.header().sampling_frequency_hz);
//! let mut pieces = vec![Vec::new(); recording.header().signals.len()];
//! while recording.read(4096, &mut pieces)? > 0 {
//!     println!("{} samples of the first lead", pieces[0].len());
//! }
//! # Ok::<(), ecgpipe_formats::FormatError>(())
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `edf` | EDF and BDF, with and without `+` |
//! | `csv` | text tables: dialect, time column, values |
//! | [`npy`] | NumPy arrays |
//! | `scale` | from physical values to integers and what that costs |
//! | `recording` | what all of them have in common |
//!
//! - Invariant: hostile bytes give an error, never a panic and never an allocation beyond the `MAX_*` limits
//!   (`tests/hostile.rs`: `a_changed_file_is_an_error_or_a_recording`).
//! - Invariant: a piece has the same samples however large the pieces are (`tests/recordings.rs`:
//!   `pieces_of_any_size_are_the_same_samples`).

mod csv;
mod edf;
mod error;
pub mod npy;
mod recording;
mod scale;

pub use csv::{MAX_COLUMN_N, MAX_LINE_BYTE_N};
pub use edf::{MAX_ANNOTATION_N, MAX_DATA_RECORD_BYTE_N, MAX_GAP_FACTOR, MAX_GAP_SAMPLE_N, is_ecg_lead};
pub use error::FormatError;
pub use recording::{Axes, FileFormat, Options, Recording, select, start_after};
