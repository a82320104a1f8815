//! Owns how a recording that is too long for memory becomes an artifact: it is passed twice, piece by piece.
//!
//! The first pass verifies what is read and looks for invalid samples, which the table must know of before its first row;
//! the second one writes. So nothing wrong is ever written, and no more than a piece is in memory.
//!
//! Invariant: the bytes are those that the recording in memory would have
//! (`ingest_wfdb::tests::a_long_record_is_stored_as_a_short_one_would_be`). It must not know where samples come from.

use ecgpipe_sdk::{
    Content, Context, Signals, StageError,
    kinds::{INVALID_SAMPLE, SignalsWriter},
};

/// Samples of all leads up to which a recording is read into memory: 32 MB. A record of MIT-BIH has 1.3 million.
pub const IN_MEMORY_SAMPLE_N: u64 = 8 << 20;
/// Samples of all leads that a piece should have.
pub const PIECE_SAMPLE_N: usize = 1 << 20;

/// Takes some samples of all leads, as many of each, in the order of the leads.
pub type Take<'a> = dyn FnMut(&[&[i32]]) -> Result<(), StageError> + 'a;

/// Whether a recording is too long for memory. `sample_n` counts those of one lead.
#[must_use]
pub fn is_long(sample_n: u64, lead_n: usize) -> bool {
    sample_n.saturating_mul(lead_n as u64) > IN_MEMORY_SAMPLE_N
}

/// Writes a recording of which `head` is everything but the samples. `pass` gives all of them in order, piece by piece, and is
/// called twice.
///
/// # Errors
/// Those of `pass`; if the file cannot be written; if the run was stopped.
pub fn write(
    head: &Signals,
    cx: &Context<'_>,
    mut pass: impl FnMut(&mut Take<'_>) -> Result<(), StageError>,
) -> Result<Content, StageError> {
    let mut has_invalid = vec![false; head.leads.len()];
    let mut sample_n = 0;
    pass(&mut |leads| {
        cx.check_cancelled()?;
        sample_n += piece_n(leads);
        for (has_invalid, samples) in has_invalid.iter_mut().zip(leads) {
            *has_invalid |= samples.contains(&INVALID_SAMPLE);
        }
        Ok(())
    })?;
    let mut writer = SignalsWriter::new(head, &has_invalid, cx.spool()?)?;
    let mut written_n = 0;
    pass(&mut |leads| {
        cx.check_cancelled()?;
        writer.write(leads)?;
        written_n += piece_n(leads);
        cx.progress(written_n, sample_n, "samples");
        Ok(())
    })?;
    writer.finish()?.finish().map_err(|error| StageError::from_error(&error))
}

fn piece_n(leads: &[&[i32]]) -> u64 {
    leads.first().map_or(0, |samples| samples.len() as u64)
}
