//! ADC samples in memory: the integers that hold them, and their invalid value.

use crate::Format;
use crate::format::{self, Layout};

/// An invalid sample in [`Samples::Narrow`], whatever the file's format calls it (-2048 in format 212).
pub const INVALID_I16: i16 = i16::MIN;
/// An invalid sample in [`Samples::Wide`], and in what [`Samples::get`] and [`Samples::iter`] give.
pub const INVALID_I32: i32 = i32::MIN;

/// ADC samples, in the narrowest integer that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// Formats of up to 16 bits. [`INVALID_I16`] marks an invalid sample.
    Narrow(Vec<i16>),
    /// Formats of 24 and 32 bits, differences (format 8), and signals of a multi-segment record. [`INVALID_I32`] marks
    /// an invalid sample.
    Wide(Vec<i32>),
}

impl Samples {
    /// No samples yet, of the width that a format needs.
    pub(crate) fn of(format: Format) -> Samples {
        match format.layout() {
            Layout::Narrow { .. } => Samples::Narrow(Vec::new()),
            Layout::Wide { .. } => Samples::Wide(Vec::new()),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Samples::Narrow(samples) => samples.len(),
            Samples::Wide(samples) => samples.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `idx`, in ADC units; [`INVALID_I32`] if it is invalid, `None` behind the end.
    pub fn get(&self, idx: usize) -> Option<i32> {
        match self {
            Samples::Narrow(samples) => samples.get(idx).copied().map(widen),
            Samples::Wide(samples) => samples.get(idx).copied(),
        }
    }

    /// All samples, in ADC units; [`INVALID_I32`] for an invalid one.
    pub fn iter(&self) -> impl Iterator<Item = i32> {
        let (narrow, wide): (&[i16], &[i32]) = match self {
            Samples::Narrow(samples) => (samples, &[]),
            Samples::Wide(samples) => (&[], samples),
        };
        narrow.iter().copied().map(widen).chain(wide.iter().copied())
    }

    /// The samples as they lie in memory, if they are narrow.
    pub fn as_i16(&self) -> Option<&[i16]> {
        match self {
            Samples::Narrow(samples) => Some(samples),
            Samples::Wide(_) => None,
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Samples::Narrow(samples) => samples.clear(),
            Samples::Wide(samples) => samples.clear(),
        }
    }

    pub(crate) fn reserve(&mut self, sample_n: usize) {
        match self {
            Samples::Narrow(samples) => samples.reserve(sample_n),
            Samples::Wide(samples) => samples.reserve(sample_n),
        }
    }

    /// Adds invalid samples up to a length.
    pub(crate) fn pad(&mut self, sample_n: usize) {
        match self {
            Samples::Narrow(samples) => samples.resize(sample_n, INVALID_I16),
            Samples::Wide(samples) => samples.resize(sample_n, INVALID_I32),
        }
    }
}

pub(crate) fn widen(sample: i16) -> i32 {
    if sample == INVALID_I16 { INVALID_I32 } else { i32::from(sample) }
}

/// An integer that holds samples.
pub(crate) trait Adu: Copy + Default + PartialEq + Into<i32> {
    const INVALID: Self;

    /// The lower 16 bits, for the checksum.
    fn low_bits(self) -> u16;

    /// The value, which fits.
    fn from_code(code: i32) -> Self;

    /// Decodes whole packs of a format whose samples fit.
    fn decode(format: Format, bytes: &[u8], out: &mut [Self]);

    /// The vector of a column of this width.
    fn column(samples: &mut Samples) -> &mut Vec<Self>;
}

impl Adu for i16 {
    const INVALID: i16 = INVALID_I16;

    fn low_bits(self) -> u16 {
        self.cast_unsigned()
    }

    fn from_code(code: i32) -> i16 {
        i16::try_from(code).expect("a code of a narrow format")
    }

    fn decode(format: Format, bytes: &[u8], out: &mut [i16]) {
        format::decode_narrow(format, bytes, out);
    }

    fn column(samples: &mut Samples) -> &mut Vec<i16> {
        match samples {
            Samples::Narrow(samples) => samples,
            Samples::Wide(_) => unreachable!("a column is made for its format"),
        }
    }
}

impl Adu for i32 {
    const INVALID: i32 = INVALID_I32;

    fn low_bits(self) -> u16 {
        let [low, high, ..] = self.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn from_code(code: i32) -> i32 {
        code
    }

    fn decode(format: Format, bytes: &[u8], out: &mut [i32]) {
        format::decode_wide(format, bytes, out);
    }

    fn column(samples: &mut Samples) -> &mut Vec<i32> {
        match samples {
            Samples::Wide(samples) => samples,
            Samples::Narrow(_) => unreachable!("a column is made for its format"),
        }
    }
}
