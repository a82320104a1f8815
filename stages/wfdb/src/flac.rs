//! FLAC streams (RFC 9639), as formats 508, 516 and 524 hold them: one channel a signal.
//!
//! Own code: of the pure Rust decoders, `claxon` has had no release since 2020, knows no way back in a file and trusts
//! `unsafe`, and `symphonia` is a framework under the MPL. What is left out: Ogg, the stream's MD5 (each frame has a CRC,
//! each signal its WFDB checksum), sampling rates (the header's count), and seek tables.
//!
//! Invariant: no more than one block of at most 65,535 samples a channel is held, and an index of [`MAX_INDEX_N`] places
//! (`fuzz/`).

use crate::source::DataFile;

/// Bytes of the signature and of the block that describes the stream, with its own head.
const HEAD_BYTE_N: u64 = 4 + 4 + 34;
/// Most places that are remembered for going back.
const MAX_INDEX_N: usize = 1024;

/// What is wrong with a stream, and at which byte.
#[derive(Debug)]
pub(crate) enum FlacError {
    /// The bytes break the format.
    Damaged { byte_offset: u64, problem: String },
    /// They cannot be read.
    Source(crate::WfdbError),
}

impl From<crate::WfdbError> for FlacError {
    fn from(error: crate::WfdbError) -> FlacError {
        FlacError::Source(error)
    }
}

fn damaged(byte_offset: u64, problem: impl Into<String>) -> FlacError {
    FlacError::Damaged { byte_offset, problem: problem.into() }
}

/// A stream and its current block.
pub(crate) struct Flac<'a> {
    pub(crate) data: DataFile<'a>,
    info: Info,
    /// Where the next block starts.
    next: Place,
    index: Vec<Place>,
    index_stride: u64,
    /// Position of the current block's first sample.
    block_at: u64,
    block_n: usize,
    channels: Vec<Vec<i32>>,
}

#[derive(Clone, Copy)]
struct Place {
    block_idx: u64,
    sample: u64,
    byte: u64,
}

/// What the stream says about itself.
pub(crate) struct Info {
    min_block_n: u32,
    max_block_n: u32,
    pub(crate) channel_n: usize,
    pub(crate) bits: u32,
    /// Samples of each channel, if the stream says.
    pub(crate) sample_n: Option<u64>,
}

impl<'a> Flac<'a> {
    /// Reads what stands before the first block.
    pub(crate) fn open(mut data: DataFile<'a>) -> Result<Flac<'a>, FlacError> {
        if data.byte_n() < HEAD_BYTE_N {
            return Err(damaged(
                0,
                format!("a FLAC stream needs {HEAD_BYTE_N} bytes or more, but the file has {}", data.byte_n()),
            ));
        }
        let head = data.read(0, 42)?;
        if !head.starts_with(b"fLaC") {
            return Err(damaged(0, "it is no FLAC stream, which starts with fLaC"));
        }
        if head[4] & 0x7f != 0 || head[5..8] != [0, 0, 34] {
            return Err(damaged(4, "the stream does not start with a description of 34 bytes (STREAMINFO)"));
        }
        let is_last = head[4] & 0x80 != 0;
        let info = Info::parse(&head[8..])?;

        // Other metadata is of no interest here.
        let mut byte = HEAD_BYTE_N;
        let mut is_last = is_last;
        while !is_last {
            if data.byte_n() - byte < 4 {
                return Err(damaged(byte, "the file ends within the stream's metadata"));
            }
            let [kind, length @ ..] = *data.read(byte, 4)?.first_chunk::<4>().expect("four bytes were asked for");
            let [a, b, c] = length;
            let length = u64::from(u32::from_be_bytes([0, a, b, c]));
            if data.byte_n() - byte - 4 < length {
                return Err(damaged(byte, format!("{length} bytes of metadata reach behind the end of the file")));
            }
            byte += 4 + length;
            is_last = kind & 0x80 != 0;
        }
        let first = Place { block_idx: 0, sample: 0, byte };
        Ok(Flac {
            channels: vec![Vec::new(); info.channel_n],
            data,
            info,
            next: first,
            index: vec![first],
            index_stride: 1,
            block_at: 0,
            block_n: 0,
        })
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Whether the last block that was decoded is the end of the file.
    pub(crate) fn is_at_end(&self) -> bool {
        self.next.byte == self.data.byte_n()
    }

    /// The byte behind the last block that was decoded.
    pub(crate) fn byte_offset(&self) -> u64 {
        self.next.byte
    }

    /// The samples of each channel from `sample` on that are in one block: one or more.
    pub(crate) fn samples_at(&mut self, sample: u64) -> Result<impl ExactSizeIterator<Item = &[i32]>, FlacError> {
        if sample < self.block_at {
            let idx = self.index.partition_point(|place| place.sample <= sample) - 1;
            self.next = self.index[idx];
            self.block_n = 0;
        }
        while sample >= self.block_at + self.block_n as u64 || self.block_n == 0 {
            self.decode_block()?;
        }
        let first = usize::try_from(sample - self.block_at).expect("within a block");
        Ok(self.channels.iter().map(move |channel| &channel[first..]))
    }

    fn decode_block(&mut self) -> Result<(), FlacError> {
        let start = self.next;
        // Whatever happens, what was decoded before is gone.
        self.block_n = 0;
        self.block_at = start.sample;
        let rest_n = self.data.byte_n() - start.byte;
        if rest_n == 0 {
            return Err(damaged(start.byte, format!("the stream ends after {} samples of each channel", start.sample)));
        }
        // An encoder stores samples as they are if nothing is shorter: with their heads, twice that is more than enough.
        let channel_byte_n = u64::from(self.info.max_block_n) * u64::from(self.info.bits + 1).div_ceil(8) + 8;
        let limit_byte_n = (channel_byte_n * self.info.channel_n as u64 + 32) * 2;
        let byte_n = usize::try_from(rest_n.min(limit_byte_n)).expect("a block is a few megabytes at most");
        let bytes = self.data.read(start.byte, byte_n)?;
        let mut bits = Bits { bytes, at: 0, byte_offset: start.byte };
        let block_n = decode_block(&mut bits, &self.info, start.sample, &mut self.channels)?;
        let end = bits.at / 8;

        if start.block_idx.is_multiple_of(self.index_stride)
            && self.index.last().is_none_or(|last| last.sample < start.sample)
        {
            self.index.push(start);
            if self.index.len() > MAX_INDEX_N {
                self.index_stride *= 2;
                self.index.retain(|place| place.block_idx.is_multiple_of(self.index_stride));
            }
        }
        self.block_n = block_n;
        self.next = Place {
            block_idx: start.block_idx + 1,
            sample: start.sample + block_n as u64,
            byte: start.byte + end as u64,
        };
        Ok(())
    }
}

impl Info {
    fn parse(bytes: &[u8]) -> Result<Info, FlacError> {
        let mut bits = Bits { bytes, at: 0, byte_offset: 8 };
        let (min_block_n, max_block_n) = (bits.take(16)?, bits.take(16)?);
        // Sizes of frames in bytes, and the sampling rate.
        bits.at += 24 + 24 + 20;
        let channel_n = bits.take(3)? as usize + 1;
        let sample_bits = bits.take(5)? + 1;
        let sample_n = u64::from(bits.take(4)?) << 32 | u64::from(bits.take(32)?);
        if min_block_n < 16 || max_block_n < min_block_n {
            return Err(damaged(
                8,
                format!("the stream's blocks have {min_block_n} to {max_block_n} samples, which cannot be"),
            ));
        }
        if !(4..=24).contains(&sample_bits) {
            return Err(damaged(
                20,
                format!("the stream's samples have {sample_bits} bits; 4 to 24 are possible here"),
            ));
        }
        Ok(Info {
            min_block_n,
            max_block_n,
            channel_n,
            bits: sample_bits,
            sample_n: (sample_n > 0).then_some(sample_n),
        })
    }
}

/// How two channels are stored as one and their difference.
#[derive(Clone, Copy, PartialEq)]
enum Stereo {
    Independent,
    LeftSide,
    SideRight,
    MidSide,
}

/// Decodes one block from its first bit to its last; gives its number of samples.
fn decode_block(
    bits: &mut Bits<'_>,
    info: &Info,
    first_sample: u64,
    channels: &mut [Vec<i32>],
) -> Result<usize, FlacError> {
    let (block_n, stereo) = block_head(bits, info, first_sample)?;
    for (channel_idx, channel) in channels.iter_mut().enumerate() {
        let is_side = match stereo {
            Stereo::Independent => false,
            Stereo::LeftSide | Stereo::MidSide => channel_idx == 1,
            Stereo::SideRight => channel_idx == 0,
        };
        channel.clear();
        channel.resize(block_n, 0);
        channel_samples(bits, info.bits + u32::from(is_side), channel)?;
    }
    bits.at = bits.at.next_multiple_of(8);
    let end = bits.at / 8;
    let found = u16::try_from(bits.take(16)?).expect("16 bits");
    // A fuzzer would not get past the check values.
    if crc16(&bits.bytes[..end]) != found && !cfg!(fuzzing) {
        return Err(bits.damaged("the check value of this FLAC frame (CRC-16) does not hold"));
    }
    if stereo != Stereo::Independent {
        let [first, second] = channels else { unreachable!("the head was checked") };
        for (first, second) in first.iter_mut().zip(&mut *second) {
            // At most 25 bits each.
            match stereo {
                Stereo::LeftSide => *second = *first - *second,
                Stereo::SideRight => *first += *second,
                _ => {
                    let (mid, side) = ((*first << 1) | (*second & 1), *second);
                    (*first, *second) = ((mid + side) >> 1, (mid - side) >> 1);
                }
            }
        }
        let is_in_range = |sample: &i32| fits(i64::from(*sample), info.bits);
        if !(first.iter().all(is_in_range) && second.iter().all(is_in_range)) {
            return Err(bits.damaged("a sample does not fit the stream's number of bits"));
        }
    }
    Ok(block_n)
}

/// The head of a block (a frame header of RFC 9639): number of samples, and how two channels are stored.
fn block_head(bits: &mut Bits<'_>, info: &Info, first_sample: u64) -> Result<(usize, Stereo), FlacError> {
    if bits.take(15)? != 0b111_1111_1111_1100 {
        return Err(bits.damaged("no FLAC frame starts here"));
    }
    let has_variable_blocks = bits.take(1)? == 1;
    let (block_code, rate_code) = (bits.take(4)?, bits.take(4)?);
    let (channel_code, bits_code, reserved) = (bits.take(4)?, bits.take(3)?, bits.take(1)?);
    let number = coded_number(bits)?;
    let block_n = match block_code {
        1 => 192,
        2..=5 => 576 << (block_code - 2),
        6 => bits.take(8)? + 1,
        7 => bits.take(16)? + 1,
        8..=15 => 256 << (block_code - 8),
        _ => return Err(bits.damaged("the size of a FLAC frame has a reserved code")),
    };
    match rate_code {
        12 => bits.take(8)?,
        13 | 14 => bits.take(16)?,
        15 => return Err(bits.damaged("the rate of a FLAC frame has a code that cannot be")),
        _ => 0,
    };
    let end = bits.at / 8;
    let found = bits.take(8)?;
    if u32::from(crc8(&bits.bytes[..end])) != found && !cfg!(fuzzing) {
        return Err(bits.damaged("the check value of a FLAC frame's head (CRC-8) does not hold"));
    }

    let sample_bits = match bits_code {
        0 => info.bits,
        1 => 8,
        2 => 12,
        4 => 16,
        5 => 20,
        6 => 24,
        _ => 0,
    };
    let (channel_n, stereo) = match channel_code {
        0..=7 => (channel_code as usize + 1, Stereo::Independent),
        8 => (2, Stereo::LeftSide),
        9 => (2, Stereo::SideRight),
        10 => (2, Stereo::MidSide),
        _ => (0, Stereo::Independent),
    };
    if sample_bits != info.bits || channel_n != info.channel_n || reserved != 0 {
        return Err(bits.damaged("a FLAC frame has other bits or channels than its stream"));
    }
    // Every frame but the last has the stream's one size, or says at which sample it is.
    let wanted = if has_variable_blocks { first_sample } else { first_sample / u64::from(info.min_block_n) };
    let is_aligned = has_variable_blocks || first_sample.is_multiple_of(u64::from(info.min_block_n));
    if number != wanted || !is_aligned {
        return Err(bits.damaged(format!("a FLAC frame is number {number} where {wanted} belongs")));
    }
    if block_n > info.max_block_n {
        return Err(
            bits.damaged(format!("a FLAC frame has {block_n} samples, but its stream at most {}", info.max_block_n))
        );
    }
    Ok((block_n as usize, stereo))
}

/// A number of up to 36 bits, coded like a character of UTF-8.
fn coded_number(bits: &mut Bits<'_>) -> Result<u64, FlacError> {
    let first = bits.take(8)?;
    let more_n = match first {
        0..=0x7f => return Ok(first.into()),
        0xc0..=0xdf => 1,
        0xe0..=0xef => 2,
        0xf0..=0xf7 => 3,
        0xf8..=0xfb => 4,
        0xfc | 0xfd => 5,
        0xfe => 6,
        _ => return Err(bits.damaged("the number of a FLAC frame is badly coded")),
    };
    let mut number = u64::from(first & (0x3f >> more_n));
    for _ in 0..more_n {
        let byte = bits.take(8)?;
        if byte >> 6 != 0b10 {
            return Err(bits.damaged("the number of a FLAC frame is badly coded"));
        }
        number = number << 6 | u64::from(byte & 0x3f);
    }
    Ok(number)
}

/// One channel of a block (a subframe of RFC 9639).
fn channel_samples(bits: &mut Bits<'_>, sample_bits: u32, samples: &mut [i32]) -> Result<(), FlacError> {
    if bits.take(1)? != 0 {
        return Err(bits.damaged("a FLAC subframe does not start with 0"));
    }
    let kind = bits.take(6)?;
    let wasted_bits = if bits.take(1)? == 1 { bits.unary()? + 1 } else { 0 };
    if wasted_bits >= sample_bits {
        return Err(bits.damaged(format!("{wasted_bits} of {sample_bits} bits are unused")));
    }
    let used_bits = sample_bits - wasted_bits;
    match kind {
        0 => samples.fill(bits.signed(used_bits)?),
        1 => {
            for sample in &mut *samples {
                *sample = bits.signed(used_bits)?;
            }
        }
        8..=12 => {
            /// The fixed predictors: a polynomial through the samples before.
            const FIXED: [&[i32]; 5] = [&[], &[1], &[2, -1], &[3, -3, 1], &[4, -6, 4, -1]];
            let coefficients = FIXED[kind as usize - 8];
            warm_up(bits, used_bits, coefficients.len(), samples)?;
            residuals(bits, coefficients.len(), samples)?;
            predict(bits, used_bits, coefficients, 0, samples)?;
        }
        32..=63 => {
            let order = kind as usize - 31;
            warm_up(bits, used_bits, order, samples)?;
            let precision_bits = bits.take(4)? + 1;
            let shift = bits.signed(5)?;
            if precision_bits == 16 || shift < 0 {
                return Err(bits.damaged("the predictor of a FLAC subframe has a precision or a shift that cannot be"));
            }
            let mut coefficients = [0; 32];
            for coefficient in &mut coefficients[..order] {
                *coefficient = bits.signed(precision_bits)?;
            }
            residuals(bits, order, samples)?;
            predict(bits, used_bits, &coefficients[..order], shift.cast_unsigned(), samples)?;
        }
        _ => return Err(bits.damaged("a FLAC subframe has a reserved kind")),
    }
    for sample in samples {
        *sample <<= wasted_bits;
    }
    Ok(())
}

/// The first samples, as they are.
fn warm_up(bits: &mut Bits<'_>, used_bits: u32, order: usize, samples: &mut [i32]) -> Result<(), FlacError> {
    if order > samples.len() {
        return Err(bits.damaged("the predictor of a FLAC subframe looks at more samples than the frame has"));
    }
    for sample in &mut samples[..order] {
        *sample = bits.signed(used_bits)?;
    }
    Ok(())
}

/// What the predictor misses, in the place of the samples behind the first ones.
fn residuals(bits: &mut Bits<'_>, order: usize, samples: &mut [i32]) -> Result<(), FlacError> {
    let parameter_bits = match bits.take(2)? {
        0 => 4,
        1 => 5,
        _ => return Err(bits.damaged("the residual of a FLAC subframe has a reserved coding")),
    };
    let partition_n = 1_usize << bits.take(4)?;
    let partition_sample_n = samples.len() / partition_n;
    if partition_sample_n * partition_n != samples.len() || partition_sample_n < order {
        return Err(bits.damaged("the residual of a FLAC subframe is in parts that do not fit its size"));
    }
    let mut start = order;
    for partition_idx in 1..=partition_n {
        let end = partition_idx * partition_sample_n;
        let part = &mut samples[start..end];
        start = end;
        let parameter = bits.take(parameter_bits)?;
        if parameter == (1 << parameter_bits) - 1 {
            let raw_bits = bits.take(5)?;
            for residual in part {
                *residual = if raw_bits == 0 { 0 } else { bits.signed(raw_bits)? };
            }
            continue;
        }
        for residual in part {
            let high = bits.unary()?;
            let low = bits.take(parameter)?;
            let folded = u64::from(high) << parameter | u64::from(low);
            let Ok(folded) = u32::try_from(folded) else {
                return Err(bits.damaged("a residual of a FLAC subframe is more than 32 bits hold"));
            };
            *residual = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
        }
    }
    Ok(())
}

/// Adds the prediction from the samples before to each residual.
fn predict(
    bits: &Bits<'_>,
    used_bits: u32,
    coefficients: &[i32],
    shift: u32,
    samples: &mut [i32],
) -> Result<(), FlacError> {
    let order = coefficients.len();
    for idx in order..samples.len() {
        let (before, rest) = samples.split_at_mut(idx);
        let recent = before[idx - order..].iter().rev();
        // 32 products of 25 by 15 bits: no overflow.
        let sum: i64 = coefficients.iter().zip(recent).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        let sample = (sum >> shift) + i64::from(rest[0]);
        if !fits(sample, used_bits) {
            return Err(bits.damaged("a sample does not fit the stream's number of bits"));
        }
        rest[0] = i32::try_from(sample).expect("at most 25 bits");
    }
    Ok(())
}

/// Whether a sample is a signed number of so many bits.
fn fits(sample: i64, bits: u32) -> bool {
    let limit = 1_i64 << (bits - 1);
    (-limit..limit).contains(&sample)
}

/// The bits of some bytes, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bit.
    at: usize,
    /// Where the bytes are in the file.
    byte_offset: u64,
}

impl Bits<'_> {
    /// 57 bits or more from the next one on, in the upper bits of a word; zeros behind the end.
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => {
                let mut bytes = [0; 8];
                bytes[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(bytes)
            }
        };
        word << (self.at % 8)
    }

    /// The next bits, 32 at most, as a number.
    fn take(&mut self, bit_n: u32) -> Result<u32, FlacError> {
        let word = self.peek();
        self.skip(bit_n)?;
        let number = if bit_n == 0 { 0 } else { word >> (64 - bit_n) };
        Ok(u32::try_from(number).expect("at most 32 bits"))
    }

    /// The next bits, 1 to 32, as a signed number.
    fn signed(&mut self, bit_n: u32) -> Result<i32, FlacError> {
        Ok((self.take(bit_n)? << (32 - bit_n)).cast_signed() >> (32 - bit_n))
    }

    /// The number of zeros before the next one, which is taken too.
    fn unary(&mut self) -> Result<u32, FlacError> {
        let mut zero_n = 0;
        loop {
            let found_n = self.peek().leading_zeros();
            if found_n < 57 {
                self.skip(found_n + 1)?;
                return Ok(zero_n + found_n);
            }
            self.skip(57)?;
            zero_n += 57;
        }
    }

    fn skip(&mut self, bit_n: u32) -> Result<(), FlacError> {
        self.at += bit_n as usize;
        if self.at > self.bytes.len() * 8 {
            let byte_offset = self.byte_offset + self.bytes.len() as u64;
            return Err(damaged(
                byte_offset,
                "the file ends within a FLAC frame, or the frame is longer than any can be",
            ));
        }
        Ok(())
    }

    fn damaged(&self, problem: impl Into<String>) -> FlacError {
        damaged(self.byte_offset + (self.at / 8) as u64, problem)
    }
}

/// CRC-8 with the polynomial x^8 + x^2 + x + 1.
fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 }))
}

/// CRC-16 with the polynomial x^16 + x^15 + x^2 + 1.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut idx = 0;
        while idx < 256 {
            let mut crc = (idx as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
                bit += 1;
            }
            table[idx] = crc;
            idx += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| {
        let [high, low] = crc.to_be_bytes();
        u16::from_be_bytes([low, 0]) ^ TABLE[usize::from(high ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values of the catalogue of parametrised CRC algorithms for the text `123456789`: CRC-8/SMBUS and
    /// CRC-16/UMTS.
    #[test]
    fn check_values_are_those_of_the_catalogue() {
        assert_eq!(crc8(b"123456789"), 0xf4);
        assert_eq!(crc16(b"123456789"), 0xfee8);
    }

    #[test]
    fn bits_are_taken_from_the_highest_on() {
        let mut bits = Bits { bytes: &[0b1010_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0b0001_1111], at: 0, byte_offset: 0 };
        assert_eq!(bits.take(3).expect("there"), 0b101);
        assert_eq!(bits.unary().expect("there"), 5 + 64 + 3);
        assert_eq!(bits.signed(4).expect("there"), -1);
        assert!(bits.take(1).is_err());
    }
}
