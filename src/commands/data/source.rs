//! Owns an open recording of any format, and which annotation files stand beside it.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use ecgpipe_formats::{FileFormat, Options, Recording, select};
use ecgpipe_wfdb::{
    Annotations, Chunk, Header, INVALID_I16, INVALID_I32, RecordReader, Samples, Signal, Timing, read_annotations,
};

use super::{Exit, Failure, bar};

/// Samples of all leads that are held at a time.
const PIECE_SAMPLE_N: usize = 1 << 16;

/// Extensions of files that stand beside records and hold no annotations.
const OTHER_EXTENSIONS: [&str; 28] = [
    "bdf", "bib", "csv", "dat", "edf", "flac", "gz", "hea", "htm", "html", "jpg", "json", "mat", "md", "md5", "npy",
    "npz", "onnx", "parquet", "pdf", "png", "sha256", "svg", "tsv", "txt", "wav", "xws", "zip",
];

/// An open recording.
pub(super) struct Source {
    /// The file that was named or that the name stands for: a header or a foreign file.
    path: PathBuf,
    body: Body,
    /// Places of the leads that are read, in the recording.
    picked: Vec<usize>,
    signals: Vec<Signal>,
}

enum Body {
    Wfdb { reader: Box<RecordReader<'static>>, chunk: Chunk },
    File { recording: Box<Recording>, pieces: Vec<Vec<i32>> },
}

impl Source {
    /// Opens a recording, and picks leads as [`Options::leads`] says.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, Failure> {
        if path.is_dir() {
            let message = format!("{}: this is a folder", path.display());
            let help = "name one recording in it; `ecgpipe data verify` takes a folder";
            return Err(Failure::usage(message).help(help));
        }
        let (path, body) = match FileFormat::of(path) {
            Some(_) => {
                let recording = Box::new(Recording::open(path, options)?);
                let pieces = vec![Vec::new(); recording.header().signals.len()];
                (path.to_owned(), Body::File { recording, pieces })
            }
            None => {
                if *options != (Options { leads: options.leads.clone(), bit_n: options.bit_n, ..Options::default() }) {
                    let message = format!("{}: a WFDB record says all of itself", path.display());
                    let help = "leave out the options for CSV and NumPy files, or name a file with its extension";
                    return Err(Failure::usage(message).help(help));
                }
                let reader = RecordReader::open(path)?;
                let path = with_extension(path, "hea");
                (path, Body::Wfdb { reader: Box::new(reader), chunk: Chunk::new() })
            }
        };
        let (picked, signals) = match &body {
            Body::Wfdb { reader, .. } => {
                let names: Vec<String> = reader.signals().iter().map(|signal| signal.description.clone()).collect();
                let picked = select(&names, &options.leads, &path.display().to_string())?;
                let signals = picked.iter().map(|&idx| reader.signals()[idx].clone()).collect();
                (picked, signals)
            }
            // A foreign file reads only what was asked for.
            Body::File { recording, .. } => {
                let signals = recording.header().signals.clone();
                ((0..signals.len()).collect(), signals)
            }
        };
        Ok(Self { path, body, picked, signals })
    }

    /// The file: a header or a foreign file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that is read, but for those of segments.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        if let Body::Wfdb { reader, .. } = &self.body {
            files.extend(reader.header().signals.iter().map(|signal| self.path.with_file_name(&signal.file_name)));
        }
        files
    }

    /// What the format is called.
    pub(super) fn format_name(&self) -> &'static str {
        match (&self.body, FileFormat::of(&self.path)) {
            (Body::Wfdb { .. }, _) => "WFDB",
            (_, Some(FileFormat::Edf)) if self.path.extension().is_some_and(|end| end.eq_ignore_ascii_case("bdf")) => {
                "BDF"
            }
            (_, Some(FileFormat::Edf)) => "EDF",
            (_, Some(FileFormat::Csv)) => "CSV",
            _ => "NumPy",
        }
    }

    /// The header; its signals are not those of [`Source::signals`] if leads were picked or there are segments.
    pub(super) fn header(&self) -> &Header {
        match &self.body {
            Body::Wfdb { reader, .. } => reader.header(),
            Body::File { recording, .. } => recording.header(),
        }
    }

    /// The picked leads.
    pub(super) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Where a lead of the recording stands among the picked ones, if it is one of them.
    pub(super) fn place_of(&self, lead_idx: usize) -> Option<usize> {
        match &self.body {
            Body::Wfdb { .. } => self.picked.iter().position(|&idx| idx == lead_idx),
            // Annotations of these files belong to no lead.
            Body::File { .. } => Some(0),
        }
    }

    /// Frames in the recording.
    pub(super) fn frame_n(&self) -> u64 {
        match &self.body {
            Body::Wfdb { reader, .. } => reader.sample_n(),
            Body::File { recording, .. } => recording.frame_n(),
        }
    }

    /// Frames that are read at a time.
    fn piece_frame_n(&self) -> u64 {
        let frame_sample_n: usize = match &self.body {
            Body::Wfdb { reader, .. } => reader.frame_sample_n(),
            Body::File { .. } => self.signals.iter().map(|signal| signal.samples_per_frame as usize).sum(),
        };
        (PIECE_SAMPLE_N / frame_sample_n.max(1)).max(1) as u64
    }

    /// What was decided while it was opened.
    pub(super) fn notes(&self) -> &[String] {
        match &self.body {
            Body::Wfdb { .. } => &[],
            Body::File { recording, .. } => recording.notes(),
        }
    }

    /// Reads frames that are in the recording, a piece at a time, with a bar on a terminal. A piece has the samples of each picked
    /// lead, `INVALID_I32` where there is none.
    pub(super) fn each_piece(
        &mut self,
        frames: Range<u64>,
        mut take: impl FnMut(&mut Vec<Vec<i32>>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let bar = bar(frames.end - frames.start, "frames");
        let mut pieces = Vec::new();
        let mut at = frames.start;
        while at < frames.end {
            let end = frames.end.min(at + self.piece_frame_n());
            self.read(at..end, &mut pieces)?;
            take(&mut pieces)?;
            bar.inc(end - at);
            at = end;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Reads frames that are in the recording.
    fn read(&mut self, frames: Range<u64>, picked: &mut Vec<Vec<i32>>) -> Result<(), Failure> {
        picked.resize(self.picked.len(), Vec::new());
        match &mut self.body {
            Body::Wfdb { reader, chunk } => {
                reader.read_into(frames, chunk)?;
                for (&idx, piece) in self.picked.iter().zip(picked) {
                    piece.clear();
                    match &chunk.samples[idx] {
                        Samples::Wide(samples) => piece.extend_from_slice(samples),
                        Samples::Narrow(samples) => piece.extend(
                            samples.iter().map(
                                |&sample| {
                                    if sample == INVALID_I16 { INVALID_I32 } else { i32::from(sample) }
                                },
                            ),
                        ),
                    }
                }
            }
            Body::File { recording, pieces } => {
                if recording.position() != frames.start {
                    recording.seek(frames.start);
                }
                let frame_n = usize::try_from(frames.end - frames.start).expect("a piece is in memory");
                recording.read(frame_n, pieces)?;
                pieces.iter_mut().zip(picked).for_each(|(piece, picked)| std::mem::swap(piece, picked));
            }
        }
        Ok(())
    }

    /// The annotations in the file itself, if there are any.
    pub(super) fn own_annotations(&self) -> Option<&Annotations> {
        match &self.body {
            Body::Wfdb { .. } => None,
            Body::File { recording, .. } => Some(recording.annotations()).filter(|found| !found.items.is_empty()),
        }
    }

    /// The annotation files beside the recording, by extension.
    pub(super) fn annotators(&self) -> Vec<String> {
        let header = self.header();
        let name = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let signal_files = header.signals.iter().map(|signal| signal.file_name.as_str()).collect();
        annotators_of(self.path.parent().unwrap_or(Path::new("")), name, &signal_files)
    }

    /// The path of an annotation file.
    pub(super) fn annotation_path(&self, annotator: &str) -> PathBuf {
        self.path.with_extension(annotator)
    }

    /// What annotation files are checked against.
    pub(super) fn timing(&self) -> Timing {
        Timing { sampling_frequency_hz: Some(self.header().sampling_frequency_hz), sample_n: Some(self.frame_n()) }
    }

    /// Reads an annotation file beside the recording.
    pub(super) fn annotations(&self, annotator: &str) -> Result<Annotations, Failure> {
        check_annotator(annotator)?;
        let path = self.annotation_path(annotator);
        if !path.is_file() {
            let message = format!("{}: there is no such annotation file", path.display());
            let found = self.annotators();
            let help = match found.as_slice() {
                [] => "the recording has no annotation files".to_owned(),
                found => format!("the recording has {}", found.join(", ")),
            };
            return Err(Failure { message, help: Some(help), exit: Exit::Environment });
        }
        Ok(read_annotations(self.path.with_extension("hea"), annotator, self.timing())?)
    }
}

/// An annotator's name is that of a file's extension.
pub(super) fn check_annotator(annotator: &str) -> Result<(), Failure> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !annotator.is_empty() && annotator.bytes().all(is_name) && !matches!(annotator, "hea" | "dat") {
        return Ok(());
    }
    let message = format!("`{}` is no annotator", super::shown(annotator));
    Err(Failure::usage(message).help("give the extension of an annotation file, such as atr"))
}

/// The annotation files of a record in a folder, by extension: files of the record's name that are none of its signal files and
/// not known to be something else. Names that end with `-` are backups of the WFDB tools.
pub(super) fn annotators_of(folder: &Path, record: &str, signal_files: &BTreeSet<&str>) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_name = |end: &str| end.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else { continue };
        let Some(end) = file_name.strip_prefix(record).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let is_other = OTHER_EXTENSIONS.contains(&end.to_ascii_lowercase().as_str()) || end.ends_with('-');
        if !end.is_empty() && is_name(end) && !is_other && !signal_files.contains(file_name) && entry.path().is_file() {
            found.insert(end.to_owned());
        }
    }
    found.into_iter().collect()
}

/// The path with this extension, instead of one of WFDB's own or behind the name.
pub(super) fn with_extension(path: &Path, extension: &str) -> PathBuf {
    if path.extension().is_some_and(|end| end == "hea" || end == "dat") {
        return path.with_extension(extension);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
