//! Owns features that know nothing of what comes after their beat: what a monitor could compute as it goes.
//!
//! Each beat's features are the last row of those of a recording that ends with this beat and begins so many beats before. It is
//! the same code as for whole recordings, so that nothing can look ahead by mistake, and it costs as much more as there are
//! beats in the past.

use std::ops::Range;

/// Whether `past_n` is possible, for the stages that have such a parameter.
///
/// # Errors
/// Says what is, where it is not.
pub(crate) fn check_past(past_n: Option<usize>) -> Result<(), String> {
    if past_n == Some(0) { Err("`past_n` must be 1 or more".to_owned()) } else { Ok(()) }
}

/// The last row of each `columns_of(beats)`, for the ranges that end with each of `beat_n` beats and have at most `past_n`
/// beats before it.
///
/// # Errors
/// Those of `columns_of`.
pub(crate) fn last_rows<E>(
    beat_n: usize,
    past_n: usize,
    mut columns_of: impl FnMut(Range<usize>) -> Result<Vec<Vec<f32>>, E>,
) -> Result<Vec<Vec<f32>>, E> {
    // An empty range tells how many columns there are.
    let mut columns = vec![Vec::with_capacity(beat_n); columns_of(0..0)?.len()];
    for beat_idx in 0..beat_n {
        let last = columns_of(beat_idx.saturating_sub(past_n)..beat_idx + 1)?;
        for (column, of_range) in columns.iter_mut().zip(last) {
            column.extend(of_range.last());
        }
    }
    Ok(columns)
}
