//! Annotation files in the AHA format of annot(5), as the WFDB library writes them: 16 bytes an annotation.
//!
//! Byte 0 is 0, byte 1 the AHA code, bytes 2 to 5 the time in samples (PDP-11 order), bytes 6 and 7 a serial number,
//! byte 8 the MIT subtype, byte 9 the MIT code, and bytes 10 to 15 text. 0xff in place of byte 0 ends the file, which is
//! padded with it to a multiple of 1,024 bytes.
//!
//! Files from the tapes of the AHA database use the first eight bytes only, and count milliseconds from where annotation
//! starts, which they do not say: they are refused.

use crate::annotation::{Annotation, AnnotationReader, Annotations, Pending};
use crate::error::WfdbError;
use crate::{AnnotationCode, header::MAX_SAMPLE_N};

const ANNOTATION_BYTE_N: usize = 16;
const BLOCK_BYTE_N: usize = 1024;
const TEXT_BYTE_N: usize = 6;
const END: u8 = 0xff;

/// AHA code of each MIT code from 1 on (`ecgmap.h` of WFDB 10.7). `U` is for noise with subtype -1 alone.
const AHA_CODES: &[u8; 49] = b"NNNNVFNNNENPQUOOOOOOOOOONOOOOQO[]NNOONOOROOOOOOOO";

/// Whether the bytes are in this format: they start with a NUL and an AHA code, and are padded with 0xff.
pub(crate) fn is_aha(bytes: &[u8]) -> bool {
    matches!(bytes, [0, code, ..] if mit_code(*code).is_some()) && bytes.last() == Some(&END)
}

/// The MIT code that stands for an AHA code alone.
fn mit_code(aha: u8) -> Option<AnnotationCode> {
    AnnotationCode::new(match aha {
        b'N' => 1,
        b'V' => 5,
        b'F' => 6,
        b'E' => 10,
        b'P' => 12,
        b'Q' => 13,
        b'U' => 14,
        b'O' => 22,
        b'[' => 32,
        b']' => 33,
        b'R' => 41,
        _ => return None,
    })
}

pub(crate) fn decode(bytes: &[u8], reader: &mut AnnotationReader<'_>) -> Result<(), WfdbError> {
    let mut is_from_tape = true;
    let mut at = 0;
    let (annotations, _) = bytes.as_chunks::<ANNOTATION_BYTE_N>();
    for annotation in annotations.iter().take_while(|annotation| annotation[0] != END) {
        let [first, aha, a, b, c, d, _, _, subtype, mit, text @ ..] = *annotation;
        is_from_tape &= annotation[8..] == [0; 8];
        let time = i32::from_le_bytes([c, d, a, b]);
        let code = if mit == 0 { mit_code(aha) } else { AnnotationCode::new(mit) };
        let (Some(code), 0) = (code, first) else {
            let problem = format!(
                "an annotation starts with {first:#04x} and has the codes {aha:#04x} (AHA) and {mit} (MIT), which are none; \
                 the file is damaged"
            );
            return Err(reader.fail(at, problem));
        };
        let mut subtype = subtype.cast_signed();
        if aha == b'U' && subtype == 0 {
            // As the C library has it: an unreadable signal.
            subtype = -1;
        }
        let text_n = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let aux = (text_n > 0).then(|| text[..text_n].to_vec());
        let pending = Pending { word_at: at, time: time.into(), code: Some(code), subtype, chan: 0, num: 0, aux };
        reader.push(pending)?;
        at += ANNOTATION_BYTE_N;
    }
    if is_from_tape && at > 0 {
        return Err(WfdbError::Unsupported {
            origin: reader.origin().to_owned(),
            what: "an annotation file as on the tapes of the AHA database, which counts milliseconds from a start that it \
                   does not give,"
                .to_owned(),
            help: "convert it with `a2m` of the WFDB tools",
        });
    }
    match bytes[at..].iter().position(|byte| *byte != END) {
        None if at < bytes.len() => Ok(()),
        None => Err(reader.fail(
            at,
            "the file ends here and without its end mark (0xff); it is cut short: fetch it again".to_owned(),
        )),
        Some(idx) => Err(reader.fail(
            at + idx,
            format!(
                "the byte {:#04x} follows the end mark; the file is damaged, or cut within an annotation",
                bytes[at + idx]
            ),
        )),
    }
}

/// Encodes an annotation file in AHA format, as the C library would write it.
///
/// # Errors
///
/// [`WfdbError::Encode`] for what the format does not hold: a time behind 2^31 samples, more than six auxiliary bytes or
/// such that end with a NUL, a signal or number other than 0, a time resolution, definitions; and for annotations that are
/// not in order of time.
pub fn encode_aha_annotations(annotations: &Annotations) -> Result<Vec<u8>, WfdbError> {
    let fail = |what: String, problem: &str| Err(WfdbError::Encode { what, problem: problem.to_owned() });
    if annotations.time_resolution_hz.is_some() || !annotations.definitions.is_empty() {
        return fail(
            "annotations in AHA format".to_owned(),
            "the format has no place for a time resolution or definitions; write MIT format",
        );
    }
    let byte_n = annotations.items.len() * ANNOTATION_BYTE_N + 1;
    let mut bytes = Vec::with_capacity(byte_n.next_multiple_of(BLOCK_BYTE_N));
    let mut last_idx = 0;
    for (idx, annotation) in annotations.items.iter().enumerate() {
        let Annotation { sample_idx, code, subtype, chan, num, aux } = annotation;
        let what = || format!("annotation {idx} ({code} at sample {sample_idx})");
        if *sample_idx < last_idx {
            return fail(what(), &format!("it follows one at sample {last_idx}; sort the annotations by time"));
        }
        last_idx = *sample_idx;
        let time = i32::try_from(*sample_idx).ok().filter(|_| *sample_idx <= MAX_SAMPLE_N);
        let (Some(time), 0, 0) = (time, chan, num) else {
            return fail(what(), "AHA format holds times below 2^31, signal 0 and number 0 only; write MIT format");
        };
        if aux.len() > TEXT_BYTE_N || aux.last() == Some(&0) {
            return fail(what(), "AHA format holds six auxiliary bytes that do not end with a NUL; write MIT format");
        }
        let mut aha = AHA_CODES[usize::from(code.number()) - 1];
        if aha == b'U' && *subtype != -1 {
            aha = b'O';
        }
        let [a, b, c, d] = time.to_le_bytes();
        // The serial number starts at 1 and has 16 bits.
        let [low, high, ..] = (idx + 1).to_le_bytes();
        bytes.extend([0, aha, c, d, a, b, low, high, subtype.to_le_bytes()[0], code.number()]);
        bytes.extend_from_slice(aux);
        bytes.resize((idx + 1) * ANNOTATION_BYTE_N, 0);
    }
    bytes.resize(byte_n.next_multiple_of(BLOCK_BYTE_N), END);
    Ok(bytes)
}
