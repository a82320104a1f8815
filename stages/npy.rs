//! Reads and writes NumPy's `.npy` arrays of 32-bit floats, as far as windows need it (format 1.0 to 3.0, C order).
//!
//! Source: numpy.lib.format, "NPY format", NumPy Enhancement Proposal 1.

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

const MAGIC: &[u8] = b"\x93NUMPY";
/// Data begins at a multiple of this, as NumPy writes it.
const ALIGNMENT: usize = 64;

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
    let too_large = || NpyError::Header(format!("the shape {shape:?} is absurd"));
    let value_n = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)).ok_or_else(too_large)?;
    let value_size = match descr.as_str() {
        "<f4" | "=f4" => 4,
        "<f8" | "=f8" => 8,
        _ => return Err(NpyError::Type(descr)),
    };
    let expected = value_n.checked_mul(value_size).ok_or_else(too_large)?;
    if data.len() != expected {
        return Err(NpyError::Length { shape, expected, found: data.len() });
    }
    let values = if value_size == 4 {
        data.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
    } else {
        let eight = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32;
        data.chunks_exact(8).map(eight).collect()
    };
    Ok(Array { shape, values })
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
