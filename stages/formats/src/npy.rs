//! NumPy's `.npy` arrays (format 1.0 to 3.0, C order): arrays of floats as a whole ([`read()`], [`write`]), and recordings a
//! piece at a time (`NpyFile`).
//!
//! Source: numpy.lib.format, "NPY format", NumPy Enhancement Proposal 1.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{
    error::{FormatError, open_file, shown, unreadable},
    recording::{Axes, Options, Table},
    scale::Precision,
};

/// An array of 32-bit floats in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`.
    pub values: Vec<f32>,
}

/// Why bytes are not such an array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// They do not begin like a `.npy` file.
    #[error("not a .npy file: it does not begin with \\x93NUMPY")]
    Magic,
    /// The header is cut off or malformed.
    #[error("malformed .npy header: {0}")]
    Header(String),
    /// The numbers are of another type.
    #[error("the array holds `{0}`; save it as 32- or 64-bit floats (`array.astype('float32')`)")]
    Type(String),
    /// The numbers are in Fortran order.
    #[error("the array is in Fortran order; save it with `numpy.ascontiguousarray`")]
    Order,
    /// There are more or fewer bytes than the shape needs.
    #[error("the shape {shape:?} needs {expected} bytes of data, the file has {found}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Bytes that it needs.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Data begins at a multiple of this, as NumPy writes it.
const ALIGNMENT: usize = 64;
/// Largest header that is read; those of plain arrays have about a hundred bytes.
const MAX_HEADER_BYTE_N: usize = 1 << 20;

/// The bytes of a format 1.0 file.
#[must_use]
pub fn write(array: &Array) -> Vec<u8> {
    let sizes: Vec<String> = array.shape.iter().map(|size| format!("{size},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.join(" ").trim_end());
    let prefix_n = MAGIC.len() + 4;
    let padding = ALIGNMENT - (prefix_n + header.len() + 1) % ALIGNMENT;
    header.push_str(&" ".repeat(padding % ALIGNMENT));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(array.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The array in a file's bytes; 64-bit floats are rounded to 32 bits.
///
/// # Errors
/// See [`NpyError`].
pub fn read(bytes: &[u8]) -> Result<Array, NpyError> {
    let (head, data) = Head::parse(bytes)?;
    let element = match head.element()? {
        element @ (Element::F4 | Element::F8) => element,
        Element::I2 | Element::I4 => return Err(NpyError::Type(head.descr)),
    };
    let expected = head.data_byte_n(element)?;
    if data.len() != expected {
        return Err(NpyError::Length { shape: head.shape, expected, found: data.len() });
    }
    let mut values = Vec::with_capacity(expected / element.byte_n());
    element.decode(data, |value| values.push(value as f32));
    Ok(Array { shape: head.shape, values })
}

/// What stands before the data.
#[derive(Debug)]
struct Head {
    descr: String,
    shape: Vec<usize>,
    /// Where the data begins.
    byte_n: usize,
}

impl Head {
    /// The head of an array and the bytes that follow it.
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), NpyError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
        let cut = || NpyError::Header("the file ends within it".to_owned());
        let (&[major, _], rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let (header_n, rest) = match major {
            1 => rest.split_first_chunk::<2>().map(|(size, rest)| (usize::from(u16::from_le_bytes(*size)), rest)),
            2 | 3 => rest.split_first_chunk::<4>().map(|(size, rest)| (u32::from_le_bytes(*size) as usize, rest)),
            other => return Err(NpyError::Header(format!("format {other} is not known"))),
        }
        .ok_or_else(cut)?;
        if header_n > rest.len() {
            return Err(cut());
        }
        let (header, data) = rest.split_at(header_n);
        let header = std::str::from_utf8(header).map_err(|_| NpyError::Header("it is not text".to_owned()))?;
        let descr = value_of(header, "descr")?.trim_matches(['\'', '"']).to_owned();
        if value_of(header, "fortran_order")? != "False" {
            return Err(NpyError::Order);
        }
        let shape = shape_of(header)?;
        Ok((Self { descr, shape, byte_n: bytes.len() - data.len() }, data))
    }

    fn element(&self) -> Result<Element, NpyError> {
        match self.descr.as_str() {
            "<f4" | "=f4" => Ok(Element::F4),
            "<f8" | "=f8" => Ok(Element::F8),
            "<i2" | "=i2" => Ok(Element::I2),
            "<i4" | "=i4" => Ok(Element::I4),
            _ => Err(NpyError::Type(shown(&self.descr))),
        }
    }

    fn data_byte_n(&self, element: Element) -> Result<usize, NpyError> {
        let byte_n = self.shape.iter().try_fold(element.byte_n(), |product, &size| product.checked_mul(size));
        byte_n.ok_or_else(|| NpyError::Header(format!("the shape {:?} is absurd", self.shape)))
    }
}

/// The type of the numbers, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F4,
    F8,
    I2,
    I4,
}

impl Element {
    fn byte_n(self) -> usize {
        match self {
            Self::I2 => 2,
            Self::F4 | Self::I4 => 4,
            Self::F8 => 8,
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::I2 | Self::I4)
    }

    fn decode(self, bytes: &[u8], mut take: impl FnMut(f64)) {
        match self {
            Self::F4 => bytes.as_chunks::<4>().0.iter().for_each(|four| take(f64::from(f32::from_le_bytes(*four)))),
            Self::F8 => bytes.as_chunks::<8>().0.iter().for_each(|eight| take(f64::from_le_bytes(*eight))),
            Self::I2 => bytes.as_chunks::<2>().0.iter().for_each(|two| take(f64::from(i16::from_le_bytes(*two)))),
            Self::I4 => bytes.as_chunks::<4>().0.iter().for_each(|four| take(f64::from(i32::from_le_bytes(*four)))),
        }
    }
}

/// A recording in a `.npy` file, read a piece at a time.
#[derive(Debug)]
pub(crate) struct NpyFile {
    file: File,
    path: PathBuf,
    element: Element,
    data_byte_offset: u64,
    axes: Axes,
    lead_n: usize,
    sample_n: u64,
}

impl NpyFile {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<(Self, Table), FormatError> {
        let origin = path.display().to_string();
        let wrong = |problem| FormatError::Npy { origin: origin.clone(), problem };
        let choice = |problem: String| FormatError::Choice { origin: origin.clone(), problem };
        let (mut file, found_byte_n) = open_file(path)?;
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_HEADER_BYTE_N as u64).read_to_end(&mut bytes).map_err(unreadable(path))?;
        let (head, _) = Head::parse(&bytes).map_err(wrong)?;
        let element = head.element().map_err(wrong)?;
        let expected = head.data_byte_n(element).map_err(wrong)?;
        let found = found_byte_n.saturating_sub(head.byte_n as u64);
        if found != expected as u64 {
            let found = usize::try_from(found).unwrap_or(usize::MAX);
            return Err(wrong(NpyError::Length { shape: head.shape, expected, found }));
        }
        let (axes, lead_n, sample_n) = match (&head.shape[..], options.axes) {
            (&[sample_n], _) => (Axes::SamplesByLeads, 1, sample_n),
            (&[sample_n, lead_n], Some(Axes::SamplesByLeads)) => (Axes::SamplesByLeads, lead_n, sample_n),
            (&[lead_n, sample_n], Some(Axes::LeadsBySamples)) => (Axes::LeadsBySamples, lead_n, sample_n),
            (&[a, b], None) => {
                let problem = format!(
                    "the array has {a} rows of {b} numbers, and nothing says which are the leads; say so: `samples-by-leads` if a \
                     row is a moment, `leads-by-samples` if a row is a lead"
                );
                return Err(choice(problem));
            }
            _ => {
                let problem = format!(
                    "the array has the shape {:?}, but a recording has one or two dimensions; save one recording a file",
                    head.shape
                );
                return Err(choice(problem));
            }
        };
        if sample_n == 0 || lead_n == 0 {
            return Err(choice(format!("the array of shape {:?} has no samples; save one that has", head.shape)));
        }
        let sampling_frequency_hz = options.sampling_frequency_hz.ok_or_else(|| {
            choice("an array does not say its sampling frequency; give it (in Hz, such as 360)".to_owned())
        })?;
        let table = Table {
            sampling_frequency_hz,
            names: vec![None; lead_n],
            units: vec![None; lead_n],
            is_adc: element.is_whole().then_some(true),
            precision: if element == Element::F4 { Precision::Single } else { Precision::Double },
            comments: Vec::new(),
            notes: Vec::new(),
        };
        let data_byte_offset = head.byte_n as u64;
        let npy =
            Self { file, path: path.to_owned(), element, data_byte_offset, axes, lead_n, sample_n: sample_n as u64 };
        Ok((npy, table))
    }

    /// Samples of each lead.
    pub(crate) fn sample_n(&self) -> u64 {
        self.sample_n
    }

    /// Appends the values of all leads from `sample_idx` on, as many as `sample_n` or are left.
    pub(crate) fn read(&mut self, sample_idx: u64, sample_n: u64, columns: &mut [Vec<f64>]) -> Result<(), FormatError> {
        let taken_n = sample_n.min(self.sample_n - sample_idx.min(self.sample_n));
        let byte_n = self.element.byte_n() as u64;
        let mut bytes = Vec::new();
        let mut load = |first: u64, value_n: u64| {
            bytes.resize(usize::try_from(value_n * byte_n).expect("a piece is in memory"), 0);
            let byte_offset = self.data_byte_offset + first * byte_n;
            let loaded = self.file.seek(SeekFrom::Start(byte_offset)).and_then(|_| self.file.read_exact(&mut bytes));
            loaded.map_err(unreadable(&self.path)).map(|()| std::mem::take(&mut bytes))
        };
        match self.axes {
            Axes::SamplesByLeads => {
                let lead_n = self.lead_n;
                let bytes = load(sample_idx * lead_n as u64, taken_n * lead_n as u64)?;
                let mut lead_idx = 0;
                self.element.decode(&bytes, |value| {
                    columns[lead_idx].push(value);
                    lead_idx = (lead_idx + 1) % lead_n;
                });
            }
            Axes::LeadsBySamples => {
                for (lead_idx, column) in columns.iter_mut().enumerate() {
                    let bytes = load(lead_idx as u64 * self.sample_n + sample_idx, taken_n)?;
                    self.element.decode(&bytes, |value| column.push(value));
                }
            }
        }
        Ok(())
    }
}

/// The text of one entry of the header, which is a Python dictionary of literals.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let missing = || NpyError::Header(format!("it has no `{key}`"));
    let after = [format!("'{key}'"), format!("\"{key}\"")]
        .iter()
        .find_map(|quoted| Some(header.split_once(quoted.as_str())?.1));
    let value = after.and_then(|rest| rest.trim_start().strip_prefix(':')).ok_or_else(missing)?.trim_start();
    let end = if value.starts_with('(') { value.find(')').map(|at| at + 1) } else { value.find([',', '}']) };
    Ok(value[..end.ok_or_else(missing)?].trim())
}

fn shape_of(header: &str) -> Result<Vec<usize>, NpyError> {
    let text = value_of(header, "shape")?;
    let malformed = || NpyError::Header(format!("the shape `{text}` is malformed"));
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(malformed)?;
    inner
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| malformed()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array() -> Array {
        Array { shape: vec![2, 1, 3], values: vec![0.0, 0.5, 1.0, 0.25, 1.0, 0.0] }
    }

    #[test]
    fn round_trips_with_aligned_data() {
        let bytes = write(&array());
        assert_eq!((bytes.len() - 24) % ALIGNMENT, 0);
        assert_eq!(read(&bytes), Ok(array()));
    }

    /// Written by `numpy.save(f, numpy.array([[1.5, -2.0]]))` of NumPy 1.26.
    #[test]
    fn reads_what_numpy_writes() {
        let mut bytes =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }".to_vec();
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        bytes.extend([1.5f64, -2.0].iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(read(&bytes), Ok(Array { shape: vec![1, 2], values: vec![1.5, -2.0] }));
    }

    #[test]
    fn says_what_is_wrong() {
        let good = write(&array());
        let edited = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|window| window == from.as_bytes()).expect("the header has it");
            let mut bytes = good.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            read(&bytes).expect_err("an edited header").to_string()
        };
        assert_eq!(read(b"hello"), Err(NpyError::Magic));
        assert_eq!(read(&good[..40]).expect_err("cut").to_string(), "malformed .npy header: the file ends within it");
        let short = read(&good[..good.len() - 1]).expect_err("cut").to_string();
        assert_eq!(short, "the shape [2, 1, 3] needs 24 bytes of data, the file has 23");
        assert!(edited("<f4", "<i4").starts_with("the array holds `<i4`"));
        assert!(edited("False", "True ").starts_with("the array is in Fortran order"));
        assert!(edited("(2,", "(x,").contains("is malformed"));
    }
}
