//! The signal formats of signal(5): how one sample is laid out in a file. Knows nothing of headers or leads.
//!
//! A new format is one variant, its row in each `match` here, and nothing elsewhere.

/// A signal format, named by its number in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Format {
    /// 0: a null signal, without a file.
    Null,
    /// 8: first differences, one byte a sample.
    Difference8,
    /// 16: two's complement, little-endian, two bytes a sample.
    Fixed16,
    /// 24: two's complement, little-endian, three bytes a sample.
    Fixed24,
    /// 32: two's complement, little-endian, four bytes a sample.
    Fixed32,
    /// 61: two's complement, big-endian, two bytes a sample.
    BigEndian16,
    /// 80: offset binary, one byte a sample.
    Offset8,
    /// 160: offset binary, little-endian, two bytes a sample.
    Offset16,
    /// 212: two 12-bit samples in three bytes.
    Packed212,
    /// 310: three 10-bit samples in four bytes.
    Packed310,
    /// 311: three 10-bit samples in four bytes, another packing.
    Packed311,
    /// 508: FLAC, 8 bits.
    Flac8,
    /// 516: FLAC, 16 bits.
    Flac16,
    /// 524: FLAC, 24 bits.
    Flac24,
}

impl Format {
    /// Every format of signal(5), in the order of their numbers.
    pub const ALL: [Format; 14] = [
        Format::Null,
        Format::Difference8,
        Format::Fixed16,
        Format::Fixed24,
        Format::Fixed32,
        Format::BigEndian16,
        Format::Offset8,
        Format::Offset16,
        Format::Packed212,
        Format::Packed310,
        Format::Packed311,
        Format::Flac8,
        Format::Flac16,
        Format::Flac24,
    ];

    /// The number that names the format in a header, such as 212.
    pub fn number(self) -> u32 {
        match self {
            Format::Null => 0,
            Format::Difference8 => 8,
            Format::Fixed16 => 16,
            Format::Fixed24 => 24,
            Format::Fixed32 => 32,
            Format::BigEndian16 => 61,
            Format::Offset8 => 80,
            Format::Offset16 => 160,
            Format::Packed212 => 212,
            Format::Packed310 => 310,
            Format::Packed311 => 311,
            Format::Flac8 => 508,
            Format::Flac16 => 516,
            Format::Flac24 => 524,
        }
    }

    /// The format of that number, if signal(5) has one.
    pub fn from_number(number: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.number() == number)
    }

    /// Whether this crate writes the format; it reads all of them.
    pub fn is_writable(self) -> bool {
        !matches!(self, Format::Null | Format::Flac8 | Format::Flac16 | Format::Flac24)
    }

    /// Whether the samples are compressed as FLAC.
    pub fn is_flac(self) -> bool {
        matches!(self, Format::Flac8 | Format::Flac16 | Format::Flac24)
    }

    /// Significant bits of a sample.
    pub(crate) fn resolution_bits(self) -> u8 {
        match self {
            Format::Offset8 | Format::Difference8 | Format::Flac8 => 8,
            Format::Packed310 | Format::Packed311 => 10,
            Format::Packed212 => 12,
            Format::Fixed24 | Format::Flac24 => 24,
            Format::Fixed32 => 32,
            _ => 16,
        }
    }

    /// The ADC resolution that header(5) assumes when the header gives none: 10 bits for differences, else 12.
    pub(crate) fn default_adc_resolution_bits(self) -> u8 {
        if self == Format::Difference8 { 10 } else { 12 }
    }

    /// Which integer holds a sample.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Format::Offset8 | Format::Flac8 => Layout::Narrow { invalid_code: -(1 << 7), max_code: (1 << 7) - 1 },
            Format::Packed310 | Format::Packed311 => Layout::Narrow { invalid_code: -(1 << 9), max_code: (1 << 9) - 1 },
            Format::Packed212 => Layout::Narrow { invalid_code: -(1 << 11), max_code: (1 << 11) - 1 },
            Format::Null | Format::Fixed16 | Format::BigEndian16 | Format::Offset16 | Format::Flac16 => {
                Layout::Narrow { invalid_code: i16::MIN, max_code: i16::MAX }
            }
            Format::Fixed24 | Format::Flac24 => Layout::Wide { invalid_code: -(1 << 23), max_code: (1 << 23) - 1 },
            // Differences add up to any value, and have no code for an invalid one.
            Format::Difference8 | Format::Fixed32 => Layout::Wide { invalid_code: i32::MIN, max_code: i32::MAX },
        }
    }

    /// The smallest run of samples that ends with a whole byte: samples and bytes of it. Not for null signals and FLAC.
    pub(crate) fn pack(self) -> (usize, usize) {
        match self {
            Format::Offset8 | Format::Difference8 => (1, 1),
            Format::Packed212 => (2, 3),
            Format::Packed310 | Format::Packed311 => (3, 4),
            Format::Fixed24 => (1, 3),
            Format::Fixed32 => (1, 4),
            _ => (1, 2),
        }
    }

    /// Bytes that `sample_n` samples take in a file, as the C library writes it, or `None` on overflow. Not for null
    /// signals and FLAC.
    pub(crate) fn byte_n(self, sample_n: u64) -> Option<u64> {
        let (pack_sample_n, pack_byte_n) = self.pack();
        let (pack_sample_n, pack_byte_n) = (pack_sample_n as u64, pack_byte_n as u64);
        // A begun pack: one sample takes two bytes in every packed format, two samples of 310 and 311 take all four.
        let tail_byte_n = sample_n % pack_sample_n * 2;
        (sample_n / pack_sample_n).checked_mul(pack_byte_n)?.checked_add(tail_byte_n)
    }

    /// Samples that fit into `byte_n` bytes, rounded down. Not for null signals and FLAC.
    pub(crate) fn sample_n(self, byte_n: u64) -> u64 {
        let (pack_sample_n, pack_byte_n) = self.pack();
        let (pack_sample_n, pack_byte_n) = (pack_sample_n as u64, pack_byte_n as u64);
        let tail_sample_n = if pack_sample_n > 1 { byte_n % pack_byte_n / 2 } else { 0 };
        // Whole packs first: `byte_n * 3` could overflow.
        byte_n / pack_byte_n * pack_sample_n + tail_sample_n
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// Which integer holds a sample, and which codes mean something special.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// Samples fit into 16 bits.
    Narrow { invalid_code: i16, max_code: i16 },
    /// Samples need 32 bits.
    Wide { invalid_code: i32, max_code: i32 },
}

impl Layout {
    /// The code of an invalid sample, and the highest code.
    pub(crate) fn codes(self) -> (i32, i32) {
        match self {
            Layout::Narrow { invalid_code, max_code } => (invalid_code.into(), max_code.into()),
            Layout::Wide { invalid_code, max_code } => (invalid_code, max_code),
        }
    }
}

/// Decodes the samples of `bytes` into `out`. Bytes of packed samples start with a whole pack.
///
/// `bytes` holds exactly `out.len()` samples; the caller has checked that.
pub(crate) fn decode_narrow(format: Format, bytes: &[u8], out: &mut [i16]) {
    match format {
        Format::Offset8 => {
            for (sample, byte) in out.iter_mut().zip(bytes) {
                *sample = i16::from(*byte) - 128;
            }
        }
        Format::Packed212 => decode_212(bytes, out),
        Format::Packed310 => decode_thirds(bytes, out, |word| {
            [word << 21, word << 5, ((word >> 11) & 0x1f | (word >> 22) & 0x3e0) << 22]
        }),
        Format::Packed311 => decode_thirds(bytes, out, |word| [word << 22, word << 12, word << 2]),
        Format::BigEndian16 => {
            for (sample, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *sample = i16::from_be_bytes(*pair);
            }
        }
        Format::Offset16 => {
            for (sample, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *sample = i16::from_le_bytes(*pair) ^ i16::MIN;
            }
        }
        _ => {
            for (sample, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *sample = i16::from_le_bytes(*pair);
            }
        }
    }
}

fn decode_212(bytes: &[u8], out: &mut [i16]) {
    // Eight samples at a time, four in a 64-bit word.
    let (dozens, _) = bytes.as_chunks::<12>();
    let (eights, _) = out.as_chunks_mut::<8>();
    let done_n = dozens.len().min(eights.len());
    for (eight, dozen) in eights.iter_mut().zip(dozens) {
        // Two words that overlap by four bytes: there is no load of six.
        let first = u64::from_le_bytes(*dozen.first_chunk().expect("8 of 12"));
        let second = u64::from_le_bytes(*dozen.last_chunk().expect("8 of 12")) >> 16;
        let (fours, _) = eight.as_chunks_mut::<4>();
        for (four, word) in fours.iter_mut().zip([first, second]) {
            let spread = spread_212(word);
            for (lane, sample) in four.iter_mut().enumerate() {
                *sample = ((spread >> (16 * lane)) as u16).cast_signed();
            }
        }
    }
    let (bytes, out) = (&bytes[done_n * 12..], &mut out[done_n * 8..]);

    let (triples, byte_tail) = bytes.as_chunks::<3>();
    let (pairs, sample_tail) = out.as_chunks_mut::<2>();
    for (pair, [low, nibbles, high]) in pairs.iter_mut().zip(triples) {
        let word = u64::from_le_bytes([*low, *nibbles, *high, 0, 0, 0, 0, 0]);
        let spread = spread_212(word);
        *pair = [(spread as u16).cast_signed(), ((spread >> 16) as u16).cast_signed()];
    }
    // An odd count ends with two bytes, or with a padded triple, which `byte_tail` then does not hold.
    if let [sample] = sample_tail {
        let (low, nibbles) = match byte_tail {
            [low, nibbles] => (*low, *nibbles),
            _ => triples.get(pairs.len()).map_or((0, 0), |[low, nibbles, _]| (*low, *nibbles)),
        };
        *sample = ((u16::from(low) << 4) | (u16::from(nibbles) << 12)).cast_signed() >> 4;
    }
}

/// Four samples of format 212 in the lower six bytes of a word, as four numbers of 16 bits, the first one lowest.
fn spread_212(word: u64) -> u64 {
    // The low byte and the nibble of the first sample of a pair lie together, those of the second the other way round.
    let codes = (word & 0x0fff)
        | (word & 0x00ff_0000)
        | ((word & 0xf000) << 12)
        | ((word & 0x000f_ff00_0000) << 8)
        | ((word & 0xff00_0000_0000) << 8)
        | ((word & 0x00f0_0000_0000) << 20);
    // The sign of each, in its four upper bits.
    codes | ((codes & 0x0800_0800_0800_0800) * 0b11110)
}

/// Three 10-bit samples in each little-endian word; `split` gives them in the upper bits of a word each, so that the
/// shift back extends their sign.
fn decode_thirds(bytes: &[u8], out: &mut [i16], split: impl Fn(u32) -> [u32; 3]) {
    let samples = |quad: [u8; 4]| {
        split(u32::from_le_bytes(quad)).map(|word| {
            let [.., low, high] = word.to_le_bytes();
            i16::from_le_bytes([low, high]) >> 6
        })
    };
    let (quads, byte_tail) = bytes.as_chunks::<4>();
    let (thirds, sample_tail) = out.as_chunks_mut::<3>();
    for (third, quad) in thirds.iter_mut().zip(quads) {
        *third = samples(*quad);
    }
    // A begun word has two bytes or three, or all four, which `byte_tail` then does not hold.
    let mut quad = [0; 4];
    quad[..byte_tail.len()].copy_from_slice(byte_tail);
    let last = samples(if byte_tail.is_empty() { quads.last().copied().unwrap_or_default() } else { quad });
    sample_tail.copy_from_slice(&last[..sample_tail.len()]);
}

/// Like [`decode_narrow`], for the formats of more than 16 bits.
pub(crate) fn decode_wide(format: Format, bytes: &[u8], out: &mut [i32]) {
    match format {
        Format::Difference8 => {
            for (difference, byte) in out.iter_mut().zip(bytes) {
                *difference = i32::from(byte.cast_signed());
            }
        }
        Format::Fixed24 => {
            for (sample, [low, middle, high]) in out.iter_mut().zip(bytes.as_chunks::<3>().0) {
                *sample = i32::from_le_bytes([0, *low, *middle, *high]) >> 8;
            }
        }
        _ => {
            for (sample, quad) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *sample = i32::from_le_bytes(*quad);
            }
        }
    }
}

/// Appends `codes` in the layout of `format`. Every code is in the format's range; the caller has checked that. Those of
/// format 8 are the differences.
///
/// A pack that is not full ends as the C library and wfdb-python write it: one sample takes two bytes, two of format 310
/// or 311 take four.
pub(crate) fn encode(format: Format, codes: &[i32], out: &mut Vec<u8>) {
    match format {
        Format::Difference8 => out.extend(codes.iter().map(|difference| difference.to_le_bytes()[0])),
        Format::Packed310 | Format::Packed311 => {
            for third in codes.chunks(3) {
                let code = |idx: usize| third.get(idx).map_or(0, |code| code.cast_unsigned() & 0x3ff);
                let word = if format == Format::Packed310 {
                    code(0) << 1 | code(1) << 17 | (code(2) & 0x1f) << 11 | (code(2) >> 5) << 27
                } else {
                    code(0) | code(1) << 10 | code(2) << 20
                };
                let byte_n = if third.len() == 1 { 2 } else { 4 };
                out.extend_from_slice(&word.to_le_bytes()[..byte_n]);
            }
        }
        Format::Offset8 => out.extend(codes.iter().map(|code| (code + 128).to_le_bytes()[0])),
        Format::Packed212 => {
            for pair in codes.chunks(2) {
                let [first_low, first_high, ..] = pair[0].to_le_bytes();
                match pair.get(1) {
                    Some(second) => {
                        let [second_low, second_high, ..] = second.to_le_bytes();
                        out.extend([first_low, (first_high & 0x0f) | (second_high << 4), second_low]);
                    }
                    None => out.extend([first_low, first_high & 0x0f]),
                }
            }
        }
        Format::Fixed24 => out.extend(codes.iter().flat_map(|code| {
            let [low, middle, high, _] = code.to_le_bytes();
            [low, middle, high]
        })),
        Format::Fixed32 => out.extend(codes.iter().flat_map(|code| code.to_le_bytes())),
        _ => {
            for code in codes {
                let [low, high, ..] = code.to_le_bytes();
                out.extend(match format {
                    Format::BigEndian16 => [high, low],
                    Format::Offset16 => [low, high ^ 0x80],
                    _ => [low, high],
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_formats_both_ways() {
        for format in Format::ALL {
            assert_eq!(Format::from_number(format.number()), Some(format));
        }
        assert_eq!(Format::from_number(213), None);
    }

    #[test]
    fn sizes_agree_both_ways() {
        for format in Format::ALL.into_iter().filter(|format| format.is_writable()) {
            for sample_n in 0..50 {
                let byte_n = format.byte_n(sample_n).expect("small");
                // Two samples that fill four bytes look like three.
                let is_filled = format.pack().0 == 3 && sample_n % 3 == 2;
                assert_eq!(format.sample_n(byte_n), sample_n + u64::from(is_filled), "format {format}");
            }
            assert!(format.sample_n(u64::MAX) > 0);
        }
        assert_eq!(Format::Fixed16.byte_n(u64::MAX), None);
    }

    /// The bit pattern of signal(5): the first sample's low byte, both high nibbles, the second sample's low byte.
    #[test]
    fn packs_two_samples_of_212_in_three_bytes() {
        let mut bytes = Vec::new();
        encode(Format::Packed212, &[0x123, -2, 5], &mut bytes);
        assert_eq!(bytes, [0x23, 0xf1, 0xfe, 0x05, 0x00]);
        let mut samples = [0; 3];
        decode_narrow(Format::Packed212, &bytes, &mut samples);
        assert_eq!(samples, [0x123, -2, 5]);
    }

    /// Bit patterns of signal(5), by hand: each sample has one bit set, at its lowest and at its highest place.
    #[test]
    fn packs_three_samples_of_310_and_311_in_four_bytes() {
        let check = |format, codes: &[i32], expected: &[u8]| {
            let mut bytes = Vec::new();
            encode(format, codes, &mut bytes);
            assert_eq!(bytes, expected, "format {format}, {codes:?}");
            let mut samples = vec![0; codes.len()];
            decode_narrow(format, &bytes, &mut samples);
            assert_eq!(samples.into_iter().map(i32::from).collect::<Vec<_>>(), codes, "format {format}");
        };
        check(Format::Packed310, &[1, 0, 0], &[0x02, 0, 0, 0]);
        check(Format::Packed310, &[-512, 0, 0], &[0, 0x04, 0, 0]);
        check(Format::Packed310, &[0, 1, 0], &[0, 0, 0x02, 0]);
        check(Format::Packed310, &[0, -512, 0], &[0, 0, 0, 0x04]);
        check(Format::Packed310, &[0, 0, 1], &[0, 0x08, 0, 0]);
        check(Format::Packed310, &[0, 0, -512], &[0, 0, 0, 0x80]);
        check(Format::Packed310, &[-1, -1], &[0xfe, 0x07, 0xfe, 0x07]);
        check(Format::Packed310, &[-1], &[0xfe, 0x07]);
        check(Format::Packed311, &[1, 0, 0], &[0x01, 0, 0, 0]);
        check(Format::Packed311, &[-512, 0, 0], &[0, 0x02, 0, 0]);
        check(Format::Packed311, &[0, 1, 0], &[0, 0x04, 0, 0]);
        check(Format::Packed311, &[0, -512, 0], &[0, 0, 0x08, 0]);
        check(Format::Packed311, &[0, 0, 1], &[0, 0, 0x10, 0]);
        check(Format::Packed311, &[0, 0, -512], &[0, 0, 0, 0x20]);
        check(Format::Packed311, &[-1, -1], &[0xff, 0xff, 0x0f, 0]);
        check(Format::Packed311, &[-1], &[0xff, 0x03]);
        // Three bytes hold two samples of format 311; the C library writes four.
        let mut samples = [0; 2];
        decode_narrow(Format::Packed311, &[0xff, 0xff, 0x0f], &mut samples);
        assert_eq!(samples, [-1, -1]);
    }

    #[test]
    fn each_format_keeps_its_extremes() {
        for format in Format::ALL.into_iter().filter(|format| format.is_writable()) {
            let (invalid_code, max_code) = match format {
                Format::Difference8 => (-128, 127),
                _ => format.layout().codes(),
            };
            let codes = [invalid_code, -1, 0, 1, max_code];
            let mut bytes = Vec::new();
            encode(format, &codes, &mut bytes);
            assert_eq!(Some(bytes.len() as u64), format.byte_n(codes.len() as u64));
            let decoded: Vec<i32> = match format.layout() {
                Layout::Narrow { .. } => {
                    let mut samples = vec![0; codes.len()];
                    decode_narrow(format, &bytes, &mut samples);
                    samples.into_iter().map(i32::from).collect()
                }
                Layout::Wide { .. } => {
                    let mut samples = vec![0; codes.len()];
                    decode_wide(format, &bytes, &mut samples);
                    samples
                }
            };
            assert_eq!(decoded, codes, "format {format}");
        }
    }
}
