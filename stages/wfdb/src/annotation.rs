//! Annotation files: events at sample positions, such as beats and rhythm changes, and the MIT format of annot(5).
//!
//! The file is a run of 16-bit words: six bits of code, ten of data. Codes up to 49 are annotations, whose data is the
//! time since the one before; 59 to 63 carry what does not fit. Words are written in the order of the C library (SKIP,
//! annotation, SUB, CHN, NUM, AUX), so that a file that it wrote is written again byte for byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{WfdbError, shown};
use crate::header::{MAX_SAMPLE_N, MAX_SAMPLING_FREQUENCY_HZ, is_record_name};
use crate::output::OutputFile;
use crate::record::with_extension;
use crate::source::DataFile;
use crate::{AnnotationCode, Header, aha};

/// Largest annotation file that is read: 256 MiB, more than a hundred million beats.
pub const MAX_ANNOTATION_FILE_BYTE_N: u64 = 256 << 20;

const SKIP: u16 = 59;
const NUM: u16 = 60;
const SUB: u16 = 61;
const CHN: u16 = 62;
const AUX: u16 = 63;
/// Longest interval that an annotation word holds; longer ones need a SKIP.
const MAX_INTERVAL: u64 = 0x3ff;

const RESOLUTION_NOTE: &str = "## time resolution: ";
const DEFINITIONS_NOTE: &str = "## annotation type definitions";
const DEFINITIONS_END_NOTE: &str = "## end of definitions";

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Position, in samples (frames) from the start of the record.
    pub sample_idx: u64,
    /// What it says.
    pub code: AnnotationCode,
    /// A number whose meaning depends on the code; 0 if there is none.
    pub subtype: i8,
    /// The signal that it belongs to; in old files always 0.
    pub chan: u8,
    /// A number that users may give a meaning.
    pub num: i8,
    /// Auxiliary bytes as they stand in the file, 255 at most; often text that ends with a NUL, see
    /// [`aux_text`](Self::aux_text).
    pub aux: Vec<u8>,
}

impl Annotation {
    /// An annotation with nothing but a position and a code.
    pub fn new(sample_idx: u64, code: AnnotationCode) -> Annotation {
        Annotation { sample_idx, code, subtype: 0, chan: 0, num: 0, aux: Vec::new() }
    }

    /// The auxiliary text, such as `(AFIB` of a rhythm change, without the NULs that the C tools put at its end. Bytes
    /// that are not UTF-8 are replaced.
    pub fn aux_text(&self) -> Cow<'_, str> {
        let end = self.aux.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        String::from_utf8_lossy(&self.aux[..end])
    }
}

/// What an annotation file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Annotations {
    /// The annotations, by position. Null annotations (code 0) only move time and are not kept.
    pub items: Vec<Annotation>,
    /// The frequency that positions count in, if the file says (`## time resolution`). After a conversion to the
    /// record's samples (see [`Timing`]) the record's sampling frequency.
    pub time_resolution_hz: Option<f64>,
    /// Codes that the file defines for itself, by number.
    pub definitions: BTreeMap<u8, CodeDefinition>,
}

/// What a file says one of its own codes means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeDefinition {
    /// The symbol: one word.
    pub symbol: String,
    /// What it means; may be empty.
    pub description: String,
}

/// What a reader knows of the record whose annotations it reads; each part that is there is checked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timing {
    /// The record's sampling frequency. If the file's own time resolution differs, positions are converted to it, to
    /// the nearest sample.
    pub sampling_frequency_hz: Option<f64>,
    /// Frames in the record. A QRS annotation must stand on one of them; other marks may also stand just behind the
    /// last one, where an episode ends.
    pub sample_n: Option<u64>,
}

impl Header {
    /// What is needed to check the annotations of this record. Without a number of samples in the header their
    /// positions have no upper bound; [`Record::timing`](crate::Record::timing) always has one.
    pub fn timing(&self) -> Timing {
        Timing { sampling_frequency_hz: Some(self.sampling_frequency_hz), sample_n: self.sample_n }
    }
}

/// Reads the annotations of a record, such as `read_annotations("mitdb/100", "atr", record.timing())`.
///
/// `path` is the record's path without an extension, or its header.
///
/// # Errors
///
/// Everything that [`decode_annotations`] refuses, and a file that cannot be read.
pub fn read_annotations(path: impl AsRef<Path>, annotator: &str, timing: Timing) -> Result<Annotations, WfdbError> {
    let path = annotation_path(path.as_ref(), annotator)?;
    let help = "check the record's path and the annotator's name, which is the file's extension";
    let origin = path.display().to_string();
    let mut data = DataFile::open_or(path, help)?;
    decode_annotations(data.read_whole(&origin, MAX_ANNOTATION_FILE_BYTE_N)?, &origin, timing)
}

/// Writes the annotations of a record, in `PATH.ANNOTATOR`.
///
/// # Errors
///
/// Everything that [`encode_annotations`] refuses, and a file that cannot be written.
pub fn write_annotations(path: impl AsRef<Path>, annotator: &str, annotations: &Annotations) -> Result<(), WfdbError> {
    let bytes = encode_annotations(annotations)?;
    let mut file = OutputFile::create(annotation_path(path.as_ref(), annotator)?)?;
    file.write(&bytes)?;
    file.publish()
}

fn annotation_path(path: &Path, annotator: &str) -> Result<std::path::PathBuf, WfdbError> {
    if is_record_name(annotator) {
        return Ok(with_extension(path, annotator));
    }
    Err(WfdbError::Encode {
        what: format!("annotator `{}`", shown(annotator)),
        problem: "the name must be letters, digits, _ and -, such as atr".to_owned(),
    })
}

/// Decodes an annotation file, in MIT or AHA format. `origin` names it in errors.
///
/// # Errors
///
/// [`WfdbError::Annotation`] with the offset of the word that breaks the format: a file without its end mark or with
/// bytes after it, an unknown code, data or auxiliary text behind the end, a position before 0, before the annotation
/// before it, or behind the record's end. [`WfdbError::Unsupported`] for a file from the tapes of the AHA database.
pub fn decode_annotations(bytes: impl AsRef<[u8]>, origin: &str, timing: Timing) -> Result<Annotations, WfdbError> {
    match salvage_annotations(bytes, origin, timing) {
        (annotations, None) => Ok(annotations),
        (_, Some(error)) => Err(error),
    }
}

/// Decodes a damaged annotation file as far as it goes: what stands before the first error, and the error. The last
/// annotation may lack what followed it.
///
/// For a tool that shows what is left of a file, and says that it is damaged; [`decode_annotations`] is for all others.
pub fn salvage_annotations(bytes: impl AsRef<[u8]>, origin: &str, timing: Timing) -> (Annotations, Option<WfdbError>) {
    let bytes = bytes.as_ref();
    if bytes.len() as u64 > MAX_ANNOTATION_FILE_BYTE_N {
        let error = WfdbError::TooLarge {
            origin: origin.to_owned(),
            found_byte_n: bytes.len() as u64,
            limit_byte_n: MAX_ANNOTATION_FILE_BYTE_N,
            help: "this is not the annotation file of one record",
        };
        return (Annotations::default(), Some(error));
    }
    let mut reader = AnnotationReader {
        origin,
        annotations: Annotations::default(),
        timing,
        is_head: true,
        is_in_definitions: false,
    };
    let result = if aha::is_aha(bytes) { aha::decode(bytes, &mut reader) } else { decode_mit(bytes, &mut reader) };
    let mut annotations = reader.annotations;
    if let (Some(resolution), Some(record_hz)) = (&mut annotations.time_resolution_hz, timing.sampling_frequency_hz) {
        *resolution = record_hz;
    }
    (annotations, result.err())
}

fn decode_mit(bytes: &[u8], reader: &mut AnnotationReader<'_>) -> Result<(), WfdbError> {
    let mut words = Words { bytes, at: 0, origin: reader.origin };
    let mut current = None;
    let result = decode_words(&mut words, reader, &mut current);
    if result.is_err()
        && let Some(pending) = current
    {
        // It was complete, or lacks what the error is about. An error of its own would only hide the first one.
        let _ = reader.push(pending);
    }
    result
}

fn decode_words(
    words: &mut Words<'_>,
    reader: &mut AnnotationReader<'_>,
    current: &mut Option<Pending>,
) -> Result<(), WfdbError> {
    let mut time: i64 = 0;
    let mut chan = 0;
    let mut num = 0;
    loop {
        let word_at = words.at;
        let word = words.next()?;
        let (code, data) = (word >> 10, word & 0x3ff);
        match (code, &mut *current) {
            (0..=49, _) => {
                if let Some(pending) = current.take() {
                    reader.push(pending)?;
                }
                if word == 0 {
                    break;
                }
                time += i64::from(data);
                let code = AnnotationCode::new(u8::try_from(code).expect("at most 49"));
                *current = Some(Pending { word_at, time, code, subtype: 0, chan, num, aux: None });
            }
            (SKIP, _) => {
                if data != 0 {
                    return Err(words
                        .fail(word_at, format!("a SKIP word has data {data} where 0 belongs; the file is damaged")));
                }
                let (high, low) = (words.next()?, words.next()?);
                time += i64::from((u32::from(high) << 16 | u32::from(low)).cast_signed());
            }
            (NUM | SUB | CHN | AUX, None) => {
                return Err(words.fail(
                    word_at,
                    format!("word {word:#06x} modifies an annotation, but none stands before it; the file is damaged"),
                ));
            }
            (NUM, Some(pending)) => {
                num = words.signed_byte(word_at, "NUM", data)?;
                pending.num = num;
            }
            (SUB, Some(pending)) => pending.subtype = words.signed_byte(word_at, "SUB", data)?,
            (CHN, Some(pending)) => {
                chan = u8::try_from(data).map_err(|_| {
                    words.fail(word_at, format!("CHN gives signal {data}, but 255 is the highest; the file is damaged"))
                })?;
                pending.chan = chan;
            }
            (AUX, Some(pending)) => {
                if pending.aux.is_some() {
                    return Err(words.fail(word_at, "a second AUX for one annotation; the file is damaged".to_owned()));
                }
                pending.aux = Some(words.aux(word_at, data)?);
            }
            _ => {
                return Err(words.fail(word_at, format!("code {code} is not defined (1 to 49 are); this is no annotation file in MIT format, or it is damaged")));
            }
        }
    }
    let extra_byte_n = words.bytes.len() - words.at;
    if extra_byte_n > 0 {
        return Err(words.fail(
            words.at,
            format!("{extra_byte_n} bytes follow the end mark; the file is damaged, or two files were joined: fetch it again"),
        ));
    }
    if reader.is_in_definitions {
        return Err(words.fail(
            words.at - 2,
            format!("the note `{DEFINITIONS_END_NOTE}` is missing before the end; the file is damaged"),
        ));
    }
    Ok(())
}

/// An annotation as it stands in the file. A code of `None` is a null annotation.
pub(crate) struct Pending {
    pub(crate) word_at: usize,
    pub(crate) time: i64,
    pub(crate) code: Option<AnnotationCode>,
    pub(crate) subtype: i8,
    pub(crate) chan: u8,
    pub(crate) num: i8,
    pub(crate) aux: Option<Vec<u8>>,
}

/// Takes annotations of a file, and checks each.
pub(crate) struct AnnotationReader<'a> {
    origin: &'a str,
    annotations: Annotations,
    timing: Timing,
    /// Whether only notes at time 0 were seen: there a note can speak about the whole file.
    is_head: bool,
    is_in_definitions: bool,
}

impl AnnotationReader<'_> {
    pub(crate) fn origin(&self) -> &str {
        self.origin
    }

    pub(crate) fn fail(&self, byte_offset: usize, problem: String) -> WfdbError {
        WfdbError::Annotation { origin: self.origin.to_owned(), byte_offset, problem }
    }

    pub(crate) fn push(&mut self, pending: Pending) -> Result<(), WfdbError> {
        let Pending { word_at, time, code: Some(code), subtype, chan, num, aux } = pending else {
            return Ok(());
        };
        let aux = aux.unwrap_or_default();
        self.is_head &= time == 0 && code == AnnotationCode::NOTE;
        if self.is_head && self.take_note(word_at, &aux)? {
            return Ok(());
        }
        if self.is_in_definitions {
            return Err(self.fail(
                word_at,
                format!("an annotation stands before the note `{DEFINITIONS_END_NOTE}`; the file is damaged"),
            ));
        }
        let Ok(file_time) = u64::try_from(time) else {
            return Err(self.fail(
                word_at,
                format!(
                    "the annotation {code} is at sample {time}, before the record starts; the SKIP before it is damaged"
                ),
            ));
        };
        let sample_idx = self.to_sample_idx(file_time);
        if let Some(last) = self.annotations.items.last()
            && sample_idx < last.sample_idx
        {
            return Err(self.fail(
                word_at,
                format!(
                    "the annotation {code} at sample {sample_idx} follows one at {}; annotations must be in order of time: sort the file with `sortann` of the WFDB tools",
                    last.sample_idx
                ),
            ));
        }
        // Marks that close an episode stand behind its last sample.
        let end_idx = self.timing.sample_n.unwrap_or(MAX_SAMPLE_N);
        if sample_idx > end_idx || (sample_idx == end_idx && code.is_qrs()) {
            return Err(self.fail(
                word_at,
                format!("the annotation {code} is at sample {sample_idx}, but the record has {end_idx}; the file is damaged or belongs to another record"),
            ));
        }
        self.annotations.items.push(Annotation { sample_idx, code, subtype, chan, num, aux });
        Ok(())
    }

    /// Takes in a note that speaks about the whole file; gives whether it was one.
    fn take_note(&mut self, word_at: usize, aux: &[u8]) -> Result<bool, WfdbError> {
        let Ok(text) = std::str::from_utf8(aux) else { return Ok(false) };
        let text = text.trim_end_matches('\0');
        if self.is_in_definitions {
            if text == DEFINITIONS_END_NOTE {
                self.is_in_definitions = false;
                return Ok(true);
            }
            let (code, definition) = parse_definition(text).ok_or_else(|| {
                self.fail(
                    word_at,
                    format!(
                        "`{}` does not define a code; the file is damaged (a definition is CODE SYMBOL DESCRIPTION)",
                        shown(text)
                    ),
                )
            })?;
            self.annotations.definitions.insert(code, definition);
            return Ok(true);
        }
        if text == DEFINITIONS_NOTE {
            self.is_in_definitions = true;
            return Ok(true);
        }
        let Some(number) = text.strip_prefix(RESOLUTION_NOTE) else { return Ok(false) };
        match number.trim().parse::<f64>() {
            Ok(hz) if hz > 0.0 && hz <= MAX_SAMPLING_FREQUENCY_HZ && self.annotations.time_resolution_hz.is_none() => {
                self.annotations.time_resolution_hz = Some(hz);
                Ok(true)
            }
            _ => Err(self.fail(
                word_at,
                format!("the time resolution `{}` is not a frequency above 0 and up to 1e9 Hz, or the second one; the file is damaged", shown(number)),
            )),
        }
    }

    fn to_sample_idx(&self, file_time: u64) -> u64 {
        let Some(record_hz) = self.timing.sampling_frequency_hz else { return file_time };
        let Some(file_hz) = self.annotations.time_resolution_hz else { return file_time };
        if file_hz == record_hz {
            return file_time;
        }
        // As the C library rounds. Both frequencies are bounded, and a time is below 2^57: no infinity, no NaN.
        (file_time as f64 * record_hz / file_hz + 0.5).floor() as u64
    }
}

fn parse_definition(text: &str) -> Option<(u8, CodeDefinition)> {
    let mut parts = text.splitn(3, ' ');
    let code = AnnotationCode::new(parts.next()?.parse().ok()?)?;
    let symbol = parts.next().filter(|symbol| !symbol.is_empty())?;
    let description = parts.next().unwrap_or_default();
    Some((code.number(), CodeDefinition { symbol: symbol.to_owned(), description: description.to_owned() }))
}

/// The little-endian words of a file.
struct Words<'a> {
    bytes: &'a [u8],
    at: usize,
    origin: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u16, WfdbError> {
        match &self.bytes[self.at..] {
            [low, high, ..] => {
                self.at += 2;
                Ok(u16::from_le_bytes([*low, *high]))
            }
            rest => Err(self.fail(
                self.at,
                format!(
                    "the file ends {} and without its end mark (two 0 bytes); it is cut short: fetch it again",
                    if rest.is_empty() { "here" } else { "within a word" }
                ),
            )),
        }
    }

    /// `aux_n` bytes, and a NUL after an odd number of them.
    fn aux(&mut self, word_at: usize, aux_n: u16) -> Result<Vec<u8>, WfdbError> {
        let aux_n = usize::from(aux_n);
        if aux_n > 255 {
            return Err(
                self.fail(word_at, format!("AUX gives {aux_n} bytes, but 255 are the most; the file is damaged"))
            );
        }
        let rest = &self.bytes[self.at..];
        let padded_n = aux_n.next_multiple_of(2);
        let Some(padded) = rest.get(..padded_n) else {
            return Err(self.fail(
                word_at,
                format!(
                    "AUX needs {padded_n} bytes, but the file has only {} more; it is cut short: fetch it again",
                    rest.len()
                ),
            ));
        };
        self.at += padded_n;
        Ok(padded[..aux_n].to_vec())
    }

    /// The lower byte of ten bits that hold a signed byte. The C library extends the sign to ten bits, wfdb-python does
    /// not.
    fn signed_byte(&self, word_at: usize, name: &str, data: u16) -> Result<i8, WfdbError> {
        let byte = u8::try_from(data & 0xff).expect("masked").cast_signed();
        let is_extended = data >> 8 == 0b11 && byte < 0;
        if data >> 8 == 0 || is_extended {
            return Ok(byte);
        }
        Err(self.fail(word_at, format!("{name} gives {data}, which is not a number of 8 bits; the file is damaged")))
    }

    fn fail(&self, byte_offset: usize, problem: String) -> WfdbError {
        WfdbError::Annotation { origin: self.origin.to_owned(), byte_offset, problem }
    }
}

/// Encodes an annotation file in MIT format, as the C library would write it.
///
/// # Errors
///
/// [`WfdbError::Encode`] if annotations are not in order of time, if one is later than
/// [`MAX_SAMPLE_N`](crate::MAX_SAMPLE_N), has more than 255 auxiliary bytes or speaks about the whole file (use the
/// fields of [`Annotations`]), or if a definition or the time resolution cannot be written.
pub fn encode_annotations(annotations: &Annotations) -> Result<Vec<u8>, WfdbError> {
    let mut bytes = Vec::with_capacity(annotations.items.len() * 2 + 2);
    encode_head(annotations, &mut bytes)?;

    let mut time = 0;
    let mut chan = 0;
    let mut num = 0;
    for (idx, annotation) in annotations.items.iter().enumerate() {
        let fail = |problem: &str| {
            Err(WfdbError::Encode {
                what: format!("annotation {idx} ({} at sample {})", annotation.code, annotation.sample_idx),
                problem: problem.to_owned(),
            })
        };
        if annotation.sample_idx > MAX_SAMPLE_N {
            return fail("it is later than any record can be");
        }
        let Some(mut interval) = annotation.sample_idx.checked_sub(time) else {
            return fail(&format!("it follows one at sample {time}; sort the annotations by time"));
        };
        if annotation.aux.len() > 255 {
            return fail(&format!(
                "it has {} auxiliary bytes, but 255 are the most; shorten its text",
                annotation.aux.len()
            ));
        }
        let is_note = annotation.sample_idx == 0 && annotation.code == AnnotationCode::NOTE;
        let marks = [RESOLUTION_NOTE, DEFINITIONS_NOTE, DEFINITIONS_END_NOTE];
        if is_note && marks.iter().any(|mark| annotation.aux.starts_with(mark.as_bytes())) {
            return fail("its text speaks about the whole file; set `time_resolution_hz` or `definitions` instead");
        }

        while interval > MAX_INTERVAL {
            let skipped = i32::try_from(interval).unwrap_or(i32::MAX);
            put_skip(skipped, &mut bytes);
            interval -= u64::from(skipped.unsigned_abs());
        }
        let interval = u16::try_from(interval).expect("at most MAX_INTERVAL");
        put_word(u16::from(annotation.code.number()), interval, &mut bytes);
        if annotation.subtype != 0 {
            put_word(SUB, i16::from(annotation.subtype).cast_unsigned() & 0x3ff, &mut bytes);
        }
        if annotation.chan != chan {
            put_word(CHN, u16::from(annotation.chan), &mut bytes);
        }
        if annotation.num != num {
            put_word(NUM, i16::from(annotation.num).cast_unsigned() & 0x3ff, &mut bytes);
        }
        if !annotation.aux.is_empty() {
            put_aux(&annotation.aux, &mut bytes);
        }
        (time, chan, num) = (annotation.sample_idx, annotation.chan, annotation.num);
    }
    bytes.extend([0, 0]);
    Ok(bytes)
}

/// The notes that speak about the whole file, and the null annotation that ends them.
fn encode_head(annotations: &Annotations, bytes: &mut Vec<u8>) -> Result<(), WfdbError> {
    let fail = |what: String, problem: &str| Err(WfdbError::Encode { what, problem: problem.to_owned() });
    let mut notes = Vec::new();
    if let Some(hz) = annotations.time_resolution_hz {
        if !(hz > 0.0 && hz <= MAX_SAMPLING_FREQUENCY_HZ) {
            return fail(format!("time resolution {hz}"), "it must be above 0 and up to 1e9 Hz");
        }
        notes.push(format!("{RESOLUTION_NOTE}{hz}"));
    }
    if !annotations.definitions.is_empty() {
        notes.push(DEFINITIONS_NOTE.to_owned());
        for (code, definition) in &annotations.definitions {
            let note = format!("{code} {} {}", definition.symbol, definition.description);
            let what = || format!("definition of code {code}");
            if note.len() > 255 {
                return fail(what(), "it is longer than 255 bytes; shorten its description");
            }
            if note.ends_with('\0') || parse_definition(&note) != Some((*code, definition.clone())) {
                return fail(what(), "it needs a code of 1 to 49 and a symbol of one word, and no NUL at its end");
            }
            notes.push(note);
        }
        notes.push(DEFINITIONS_END_NOTE.to_owned());
    }
    for note in &notes {
        put_word(u16::from(AnnotationCode::NOTE.number()), 0, bytes);
        put_aux(note.as_bytes(), bytes);
    }
    if !notes.is_empty() {
        // A null annotation one sample after -1: two 0 bytes would be the end mark.
        put_skip(-1, bytes);
        put_word(0, 1, bytes);
    }
    Ok(())
}

fn put_word(code: u16, data: u16, bytes: &mut Vec<u8>) {
    bytes.extend((code << 10 | data).to_le_bytes());
}

/// SKIP and its 32 bits, the upper word first, as on a PDP-11.
fn put_skip(interval: i32, bytes: &mut Vec<u8>) {
    put_word(SKIP, 0, bytes);
    let [a, b, c, d] = interval.to_le_bytes();
    bytes.extend([c, d, a, b]);
}

fn put_aux(aux: &[u8], bytes: &mut Vec<u8>) {
    put_word(AUX, u16::try_from(aux.len()).expect("the caller has checked the length"), bytes);
    bytes.extend_from_slice(aux);
    if aux.len() % 2 == 1 {
        bytes.push(0);
    }
}
