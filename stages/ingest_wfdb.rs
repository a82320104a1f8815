//! Owns the way from WFDB files to artifacts: which records a database holds, which files belong to each, and their
//! samples and annotations as [`Signals`] and [`Annotations`].
//!
//! Bytes are read by [`ecgpipe_wfdb`], which checks lengths, checksums and initial values and guesses nothing; the place
//! of a database is found by [`crate::database`]. What is left for this stage is to choose records, to know patients, and
//! to say which record is at fault.
//!
//! A record that is too long for memory is passed on piece by piece, as it is read.
//!
//! Invariant: every file that decides the result is listed by [`Stage::sources`] and nothing else is read
//! (`tests::refuses`, `tests::lists_every_file_of_a_record`).

use std::{borrow::Cow, collections::BTreeMap, fs, io, path::Path};

use ecgpipe_sdk::{
    Annotations, Content, Context, Each, Lead, RawRecord, RecordId, Signals, SourceContext, SourceFile, SourceRecord,
    Stage, StageError, StageEvent, StageFacts,
    facts::{FactProblem, Place, RecordFacts, names},
    kinds::{Annotation, INVALID_SAMPLE},
    ports,
};
use ecgpipe_wfdb::{
    Chunk, DataFile, Format, Header, INVALID_I16, INVALID_I32, RecordReader, Samples, Signal, Timing, WfdbError,
    decode_annotations,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    database, long_recording,
    record_source::{Origin, RecordChoice, annotation_rows, shown, told},
};

pub use crate::record_source::AnnotationRule;

/// Reads WFDB records.
pub struct IngestWfdb;

/// Which records to read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// A name, such as `mitdb`, which is looked for in `data/raw` and in `$ECGPIPE_DATA` and downloaded if it is in
    /// neither; or the path of a folder, such as `./my/records`. Not used if `raw` is connected.
    pub database: String,
    /// The records to read, by name. Default: all.
    pub records: Option<Vec<String>>,
    /// Records to leave out, by name. AAMI EC57 leaves out the paced ones of mitdb: 102, 104, 107, 217.
    pub exclude: Vec<String>,
    /// Which annotation file to read: the extension of its name.
    pub annotator: String,
    /// What to do with a record that has no annotation file.
    pub annotations: AnnotationRule,
    /// The patient of a record, by record, where they are not one and the same. Two records of one patient must not
    /// stand on both sides of a split. Known without being said: records 201 and 202 of mitdb are of one patient.
    pub patients: BTreeMap<String, String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            database: "mitdb".to_owned(),
            records: None,
            exclude: Vec::new(),
            annotator: "atr".to_owned(),
            annotations: AnnotationRule::default(),
            patients: BTreeMap::new(),
        }
    }
}

ports! {
    /// What `ingest_wfdb` takes.
    pub struct Inputs {
        /// Records as bytes, instead of a database.
        pub raw: Option<Each<RawRecord>>,
    }
}

ports! {
    /// What `ingest_wfdb` gives.
    pub struct Outputs {
        /// The samples of all leads.
        pub signals: Each<Signals>,
        /// The annotations of one annotator.
        pub annotations: Each<Annotations>,
    }
}

impl Stage for IngestWfdb {
    const NAME: &'static str = "ingest_wfdb";
    const SUMMARY: &'static str =
        "reads WFDB records, of a database or as bytes: every sample checked, annotations by one annotator";

    type Params = Params;
    type Inputs = Inputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.database.trim().is_empty() {
            return Err("`database` must be a name, such as mitdb, or the path of a folder; it is empty".to_owned());
        }
        let annotator = &params.annotator;
        let is_extension = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if annotator.is_empty() || !annotator.bytes().all(is_extension) || matches!(annotator.as_str(), "hea" | "dat") {
            return Err(format!(
                "`annotator` must be the extension of an annotation file, such as atr, not `{annotator}`"
            ));
        }
        choice(params).check()
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        facts.pass("raw", "signals");
        if facts.is_connected("raw") {
            let unused = [("records", params.records.is_some()), ("exclude", !params.exclude.is_empty())];
            for (parameter, _) in unused.into_iter().filter(|(_, is_given)| *is_given) {
                let message =
                    format!("`{parameter}` chooses nothing here: the records are those of `{}`", facts.from("raw"));
                let help = "choose records at their source, or take the parameter out";
                facts.tell(FactProblem::warning(Place::Parameter(parameter), message).help(help));
            }
        }
        let database = (!facts.is_connected("raw")).then(|| database_name(&params.database)).flatten();
        let patients = named_patients(params, database);
        if !patients.is_empty() {
            facts.set("signals", names::PATIENT, patients);
        }
    }

    fn sources(params: &Params, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        let options = database::Options {
            data_folder: cx.data_folder.clone(),
            shared_data: cx.shared_data.clone(),
            offline: cx.offline,
            base_url: database::PHYSIONET_URL.to_owned(),
        };
        let progress = |progress: database::DownloadProgress<'_>| {
            let (done, total) = (progress.done_byte_n, progress.total_byte_n);
            (cx.events)(StageEvent::Progress { done, total, unit: "bytes".into() });
        };
        let found = database::locate(&params.database, &options, &progress).map_err(|error| told(&error))?;
        if found.found == database::Found::Downloaded {
            (cx.events)(StageEvent::Note(format!("downloaded {} into {}", found.name, found.path.display())));
        }
        let paths = database::list_records(&found.path).map_err(|error| told(&error))?;
        let origin = Origin { kind: "database", name: &found.name };
        let by_name = paths.iter().map(|path| (path.rsplit('/').next().unwrap_or(path), path.as_str()));
        let chosen = choice(params).choose(origin, by_name)?;
        let source = |(record, path): (RecordId, &str)| {
            let path = found.path.join(path);
            let (files, header, signals) = record_files(&path, &record, &params.annotator, params.annotations)?;
            let patient = patient(params, database_name(&params.database), &record);
            let facts = header_facts(&header, &signals, patient);
            Ok(SourceRecord { record, files, facts })
        };
        chosen.into_iter().map(source).collect()
    }

    fn run(params: &Params, inputs: Inputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let record = cx.record()?;
        let (patient, source) = match &inputs.raw {
            Some(raw) => (patient(params, None, record), Source::Bundle(raw)),
            None => (patient(params, database_name(&params.database), record), Source::Files(cx.files())),
        };
        let reading = Reading::open(record, patient, source)?;
        let annotations = reading.annotations(&params.annotator, params.annotations)?;
        for text in reading.held_leads() {
            cx.note(text);
        }
        let signals = match reading.is_long() {
            true => Each::encoded(reading.spool(cx)?),
            false => Each::new(reading.signals()?),
        };
        Ok(Outputs { signals, annotations: Each::new(annotations) })
    }
}

/// Records of one patient in databases that this program knows: database, record, patient.
const KNOWN_PATIENTS: &[(&str, &str, &str)] = &[
    // "Two records, 201 and 202, are from the same patient": Moody and Mark, The impact of the MIT-BIH Arrhythmia
    // Database, IEEE Eng Med Biol 20(3), 2001, and the database's own directory.
    ("mitdb", "202", "201"),
];

fn patient<'a>(params: &'a Params, database: Option<&str>, record: &'a RecordId) -> &'a str {
    let is_known = |(of, known, _): &&(&str, &str, &'static str)| Some(*of) == database && *known == record.as_str();
    let known = || KNOWN_PATIENTS.iter().find(is_known).map(|(_, _, patient)| *patient);
    let named = params.patients.get(record.as_str()).map(String::as_str);
    named.or_else(known).unwrap_or(record.as_str())
}

/// The patients of the records whose patient is not called as they are, as far as `records` and `exclude` leave them in.
fn named_patients(params: &Params, database: Option<&str>) -> Map<String, Value> {
    let known = KNOWN_PATIENTS.iter().filter(|(of, _, _)| Some(*of) == database);
    let known = known.flat_map(|(_, record, patient)| [(*record, *patient), (*patient, *patient)]);
    let named = params.patients.iter().map(|(record, patient)| (record.as_str(), patient.as_str()));
    let all: BTreeMap<&str, &str> = known.chain(named).collect();
    all.into_iter()
        .filter(|(record, _)| choice(params).is_wanted(record))
        .map(|(record, patient)| (record.to_owned(), patient.into()))
        .collect()
}

/// What a header says that later stages rely on.
fn header_facts(header: &Header, signals: &[Signal], patient: &str) -> RecordFacts {
    let hz = header.sampling_frequency_hz * f64::from(frame_sample_n(signals));
    let leads: Vec<Value> = signals.iter().map(|signal| json!([signal.description, signal.units])).collect();
    RecordFacts::from([
        (names::PATIENT.key, json!(patient)),
        (names::RECORD_FS_HZ.key, json!(hz)),
        (names::RECORD_LEADS.key, json!(leads)),
    ])
}

/// `mitdb` of `mitdb` and of `/data/mitdb`.
fn database_name(name_or_path: &str) -> Option<&str> {
    Path::new(name_or_path).file_name()?.to_str()
}

fn choice(params: &Params) -> RecordChoice<'_> {
    RecordChoice { records: params.records.as_deref(), exclude: &params.exclude, patients: &params.patients }
}

/// The files of one record (header, signal files, annotation file; of a multi-segment record those of its segments too),
/// its header, and its signals. `path` is that of the record without an extension.
///
/// Only headers are read; the others must exist.
///
/// # Errors
/// A header that is missing or wrong, a signal file that is missing or in another folder, an annotation file that is
/// missing though required.
pub fn record_files(
    path: &Path,
    record: &RecordId,
    annotator: &str,
    rule: AnnotationRule,
) -> Result<(Vec<SourceFile>, Header, Vec<Signal>), StageError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = |name: String| SourceFile { path: folder.join(&name), name };
    let read_header = |file: &SourceFile| {
        let bytes = fs::read(&file.path).map_err(|error| unreadable(&file.path, &error).record(record))?;
        Header::parse(&bytes, &file.path.display().to_string()).map_err(|error| told(&error).record(record))
    };
    let header_file = file(format!("{record}.hea"));
    let header = read_header(&header_file)?;
    check_header(record, &header, &header_file.path.display().to_string())?;

    let mut files = vec![header_file];
    let mut headers = vec![header.clone()];
    for segment in header.segments.iter().filter(|segment| segment.record_name != "~") {
        let segment_file = file(format!("{}.hea", segment.record_name));
        if !files.contains(&segment_file) {
            headers.push(read_header(&segment_file)?);
            files.push(segment_file);
        }
    }
    for signal in headers.iter().flat_map(|header| &header.signals) {
        if !names_a_file(signal) || files.iter().any(|file| file.name == signal.file_name) {
            continue;
        }
        let signal_file = file(signal.file_name.clone());
        if !signal_file.path.is_file() {
            return Err(missing_signals(record, &signal_file.path.display().to_string()));
        }
        files.push(signal_file);
    }
    let annotation_file = file(format!("{record}.{annotator}"));
    if annotation_file.path.is_file() {
        files.push(annotation_file);
    } else if rule == AnnotationRule::Required {
        return Err(missing_annotations(record, &annotation_file.path.display().to_string()));
    }
    let signals = match header.segments.is_empty() {
        true => header.signals.clone(),
        // Which leads there are, the layout says, or all segments together.
        false => RecordReader::open(path).map_err(|error| told(&error).record(record))?.signals().to_vec(),
    };
    Ok((files, header, signals))
}

/// Signals without samples have no file, and `~` for its name.
fn names_a_file(signal: &Signal) -> bool {
    signal.format != Format::Null
}

/// Where the bytes of a record are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In files, as [`record_files`] lists them.
    Files(&'a [SourceFile]),
    /// In memory.
    Bundle(&'a RawRecord),
}

impl<'a> Source<'a> {
    /// The content of one file; `None` if it is not part of the record.
    fn load(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, StageError> {
        match *self {
            Self::Bundle(raw) => Ok(raw.file(name).map(Cow::Borrowed)),
            Self::Files(files) => {
                let Some(file) = files.iter().find(|file| file.name == name) else { return Ok(None) };
                let bytes = fs::read(&file.path).map_err(|error| unreadable(&file.path, &error))?;
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }

    /// Whether a file is part of the record.
    fn has(&self, name: &str) -> bool {
        match *self {
            Self::Bundle(raw) => raw.file(name).is_some(),
            Self::Files(files) => files.iter().any(|file| file.name == name),
        }
    }

    /// A reader of the record with this header.
    fn reader(self, header_bytes: &[u8], origin: &str) -> Result<RecordReader<'a>, WfdbError> {
        RecordReader::new(header_bytes, origin, move |name| {
            let missing = || WfdbError::Io {
                path: name.into(),
                source: io::ErrorKind::NotFound.into(),
                help: "a record needs its header and all of its signal files in one folder",
            };
            match self {
                Self::Bundle(raw) => raw.file(name).map(DataFile::in_memory).ok_or_else(missing),
                Self::Files(files) => {
                    let file = files.iter().find(|file| file.name == name).ok_or_else(missing)?;
                    DataFile::open(&file.path)
                }
            }
        })
    }

    /// What a file is called in messages: its path if it has one.
    fn origin(&self, name: &str) -> String {
        let path = match *self {
            Self::Bundle(_) => None,
            Self::Files(files) => files.iter().find(|file| file.name == name).map(|file| &file.path),
        };
        path.map_or_else(|| name.to_owned(), |path| path.display().to_string())
    }
}

/// Reads one record into memory, checks all that its header promises, and converts it.
///
/// # Errors
/// A file that is missing or cannot be read, or that breaks its format; a header of another record.
pub fn ingest(
    record: &RecordId,
    patient: &str,
    annotator: &str,
    rule: AnnotationRule,
    source: Source<'_>,
) -> Result<(Signals, Annotations), StageError> {
    let reading = Reading::open(record, patient, source)?;
    let annotations = reading.annotations(annotator, rule)?;
    Ok((reading.signals()?, annotations))
}

/// A record that is about to be read.
///
/// Leads of several samples a frame make it one of a higher sampling frequency; of the leads that have fewer of them each
/// sample is repeated, as the C library does in its high-resolution mode.
struct Reading<'a> {
    source: Source<'a>,
    header_bytes: Cow<'a, [u8]>,
    origin: String,
    reader: RecordReader<'a>,
    /// All but the samples.
    head: Signals,
    /// Samples that the fastest lead has in a frame.
    frame_sample_n: u32,
}

impl<'a> Reading<'a> {
    fn open(record: &RecordId, patient: &str, source: Source<'a>) -> Result<Self, StageError> {
        let header_name = format!("{record}.hea");
        let origin = source.origin(&header_name);
        let header_bytes = source.load(&header_name).map_err(|error| error.record(record))?.ok_or_else(|| {
            StageError::new(format!("{header_name}: the record has no header"))
                .help("a record begins with its .hea file")
                .record(record)
        })?;
        let header = Header::parse(&header_bytes, &origin).map_err(|error| told(&error).record(record))?;
        check_header(record, &header, &origin)?;
        let absent = header.signals.iter().find(|signal| names_a_file(signal) && !source.has(&signal.file_name));
        if let Some(signal) = absent {
            return Err(missing_signals(record, &source.origin(&signal.file_name)));
        }
        let reader = source.reader(&header_bytes, &origin).map_err(|error| told(&error).record(record))?;
        let frame_sample_n = frame_sample_n(reader.signals());
        let lead = |signal: &Signal| Lead {
            name: signal.description.clone(),
            units: signal.units.clone(),
            gain_adu_per_unit: signal.gain_adu_per_unit,
            baseline_adu: signal.baseline_adu,
            samples: Vec::new().into(),
        };
        let head = Signals {
            record: record.clone(),
            patient: patient.to_owned(),
            sampling_frequency_hz: header.sampling_frequency_hz * f64::from(frame_sample_n),
            leads: reader.signals().iter().map(lead).collect(),
            comments: header.comments,
        };
        Ok(Self { source, header_bytes, origin, reader, head, frame_sample_n })
    }

    /// Whether the record is too long for memory.
    fn is_long(&self) -> bool {
        let sample_n = self.reader.sample_n().saturating_mul(u64::from(self.frame_sample_n));
        long_recording::is_long(sample_n, self.head.leads.len())
    }

    /// What the user should know of leads that are slower than others.
    fn held_leads(&self) -> Vec<String> {
        let slow = self.reader.signals().iter().filter(|signal| signal.samples_per_frame != self.frame_sample_n);
        let told = slow.map(|signal| {
            let (lead, own_n, all_n) = (shown(&signal.description), signal.samples_per_frame, self.frame_sample_n);
            let record = &self.head.record;
            format!(
                "record {record}: lead {lead} has {own_n} samples a frame where others have {all_n}; they are repeated"
            )
        });
        told.collect()
    }

    /// The record in memory.
    fn signals(self) -> Result<Signals, StageError> {
        let (mut signals, frame_sample_n) = (self.head, self.frame_sample_n);
        let record = self.reader.read_all().map_err(|error| told(&error).record(&signals.record))?;
        for (lead, read) in signals.leads.iter_mut().zip(record.leads) {
            let samples_per_frame = read.samples_per_frame;
            lead.samples = repeated(widen(read.samples), samples_per_frame, frame_sample_n).into();
        }
        Ok(signals)
    }

    /// The record as the store will keep it, in a file.
    fn spool(self, cx: &Context<'_>) -> Result<Content, StageError> {
        let told = |error: WfdbError| told(&error).record(&self.head.record);
        let per_frame: Vec<u32> = self.reader.signals().iter().map(|signal| signal.samples_per_frame).collect();
        let frame_n = long_recording::PIECE_SAMPLE_N / (per_frame.len() * self.frame_sample_n as usize).max(1);
        long_recording::write(&self.head, cx, |take| {
            let mut reader = self.source.reader(&self.header_bytes, &self.origin).map_err(told)?;
            let mut chunks = reader.chunks(frame_n.max(1));
            let mut chunk = Chunk::new();
            while chunks.next_into(&mut chunk).map_err(told)? {
                let read = std::mem::take(&mut chunk.samples).into_iter().zip(&per_frame);
                let leads: Vec<Vec<i32>> =
                    read.map(|(samples, own_n)| repeated(widen(samples), *own_n, self.frame_sample_n)).collect();
                take(&leads.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            }
            Ok(())
        })
    }

    fn annotations(&self, annotator: &str, rule: AnnotationRule) -> Result<Annotations, StageError> {
        let record = &self.head.record;
        let name = format!("{record}.{annotator}");
        let origin = self.source.origin(&name);
        let annotations = match self.source.load(&name).map_err(|error| error.record(record))? {
            Some(bytes) => convert_annotations(&bytes, &origin, self.reader.timing(), self.frame_sample_n)
                .map_err(|error| told(&error).record(record))?,
            None if rule == AnnotationRule::Optional => Vec::new(),
            None => return Err(missing_annotations(record, &origin)),
        };
        Ok(Annotations {
            record: record.clone(),
            sampling_frequency_hz: self.head.sampling_frequency_hz,
            sample_n: (self.reader.sample_n() * u64::from(self.frame_sample_n)).cast_signed(),
            annotations,
        })
    }
}

/// Refuses what cannot become [`Signals`] whatever its signal files hold.
fn check_header(record: &RecordId, header: &Header, origin: &str) -> Result<(), StageError> {
    let refuse = |message: String, help: &str| Err(StageError::new(message).help(help).record(record));
    if header.record_name != record.as_str() {
        let found = shown(&header.record_name);
        return refuse(format!("{origin}:1: the header is of record `{found}`"), "give header and file the same name");
    }
    if header.signals.is_empty() && header.segments.is_empty() {
        return refuse(format!("{origin}:1: the record has no signals"), "leave it out by `exclude`");
    }
    Ok(())
}

/// Samples that the fastest lead has in a frame.
fn frame_sample_n(signals: &[Signal]) -> u32 {
    signals.iter().map(|signal| signal.samples_per_frame).max().unwrap_or(1)
}

/// `own_n` samples a frame as `frame_sample_n` of them: each stands where the last one at or before its time is.
fn repeated(samples: Vec<i32>, own_n: u32, frame_sample_n: u32) -> Vec<i32> {
    if own_n == frame_sample_n {
        return samples;
    }
    let (own_n, all_n) = (own_n as usize, frame_sample_n as usize);
    let frames = samples.chunks_exact(own_n);
    frames.flat_map(|frame| (0..all_n).map(|place| frame[place * own_n / all_n])).collect()
}

fn widen(samples: Samples) -> Vec<i32> {
    // The crate's invalid sample is the SDK's, so that wide samples move over as they are.
    const { assert!(INVALID_I32 == INVALID_SAMPLE) };
    match samples {
        Samples::Wide(samples) => samples,
        Samples::Narrow(samples) => {
            let widened = |sample| if sample == INVALID_I16 { INVALID_SAMPLE } else { i32::from(sample) };
            samples.iter().copied().map(widened).collect()
        }
    }
}

fn convert_annotations(
    bytes: &[u8],
    origin: &str,
    timing: Timing,
    frame_sample_n: u32,
) -> Result<Vec<Annotation>, WfdbError> {
    Ok(annotation_rows(&decode_annotations(bytes, origin, timing)?, frame_sample_n))
}

fn unreadable(path: &Path, error: &io::Error) -> StageError {
    let help = match error.kind() {
        io::ErrorKind::NotFound => {
            "check the path; a record needs its header and all of its signal files in one folder"
        }
        io::ErrorKind::PermissionDenied => "give yourself the right to read it",
        _ => "see whether the disk is well",
    };
    StageError::new(format!("{}: {error}", path.display())).help(help)
}

fn missing_signals(record: &RecordId, origin: &str) -> StageError {
    let message = format!("{origin}: the header names this signal file, but it is missing");
    StageError::new(message).help("a record needs its header and all of its signal files in one folder").record(record)
}

fn missing_annotations(record: &RecordId, origin: &str) -> StageError {
    let message = format!("{origin}: the record has no such annotation file");
    let help = "name another `annotator`, or set `annotations: optional` to go on without reference beats";
    StageError::new(message).help(help).record(record)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why it did not run")]
mod tests {
    use std::{path::PathBuf, sync::atomic::AtomicBool};

    use ecgpipe_sdk::{Kind, NamedFile};
    use expect_test::expect;

    use super::*;
    use crate::synthesise;

    /// A database of two records (p002 in format 212, p003 in format 16, both with two leads) in a folder of its own.
    fn with_database<T>(work: impl FnOnce(&Path) -> T) -> T {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("invented");
        fs::create_dir(&folder).unwrap();
        for file in [invented(1), invented(2)].concat() {
            fs::write(folder.join(file.name), file.bytes).unwrap();
        }
        work(&folder)
    }

    fn invented(patient_idx: usize) -> Vec<NamedFile> {
        let params = synthesise::Params { duration_s: 10.0, two_leads_fraction: 1.0, ..Default::default() };
        synthesise::invent(&params, patient_idx, 7).unwrap()
    }

    fn params_of(folder: &Path) -> Params {
        Params { database: folder.display().to_string(), ..Params::default() }
    }

    fn sources(params: &Params) -> Result<Vec<SourceRecord>, StageError> {
        let cx = SourceContext {
            data_folder: PathBuf::from("no-such-folder"),
            shared_data: std::env::var_os("ECGPIPE_DATA").map(PathBuf::from),
            offline: true,
            events: &|_| {},
        };
        IngestWfdb::sources(params, &cx)
    }

    fn run(params: &Params, source: &SourceRecord, raw: Option<RawRecord>) -> Result<Outputs, StageError> {
        let (cancel, events) = (AtomicBool::new(false), |_| {});
        let cx = Context::new(&cancel, &events).with_record(Some(&source.record)).with_files(&source.files);
        IngestWfdb::run(params, Inputs { raw: raw.map(Each::new) }, &cx)
    }

    #[test]
    fn lists_every_file_of_a_record() {
        let listed = with_database(|folder| sources(&params_of(folder)).unwrap());
        let names: Vec<_> = listed.iter().flat_map(|source| &source.files).map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["p002.hea", "p002.dat", "p002.atr", "p003.hea", "p003.dat", "p003.atr"]);
    }

    #[test]
    fn reads_back_what_was_invented_from_files_and_from_bytes() {
        with_database(|folder| {
            let params = params_of(folder);
            for (source, patient_idx) in sources(&params).unwrap().iter().zip([1, 2]) {
                let raw = RawRecord::new(invented(patient_idx));
                let header = Header::parse(raw.file(&format!("{}.hea", source.record)).unwrap(), "").unwrap();
                let from_files = run(&params, source, None).unwrap();
                let bare = SourceRecord { files: Vec::new(), ..source.clone() };
                let from_bytes = run(&params, &bare, Some(raw)).unwrap();
                assert_eq!(*from_files.signals, *from_bytes.signals);
                assert_eq!(*from_files.annotations, *from_bytes.annotations);

                let (signals, annotations) = (from_files.signals, from_files.annotations);
                assert_eq!((signals.sampling_frequency_hz, signals.sample_n()), (360.0, 3600));
                assert_eq!((annotations.sampling_frequency_hz, annotations.sample_n), (360.0, 3600));
                assert_eq!(signals.patient, source.record.as_str());
                assert_eq!(signals.comments, header.comments);
                for (lead, signal) in signals.leads.iter().zip(&header.signals) {
                    assert_eq!((&lead.name, &lead.units), (&signal.description, &signal.units));
                    assert_eq!((lead.gain_adu_per_unit, lead.baseline_adu), (200.0, signal.baseline_adu));
                    assert_eq!(lead.samples.read(0..1).unwrap()[..], [signal.initial_value_adu.unwrap()]);
                }
                let rhythm = &annotations.annotations[0];
                assert_eq!((rhythm.symbol.as_str(), rhythm.aux.as_str()), ("+", "(N"));
                assert!(annotations.annotations.len() > 8, "{}", annotations.annotations.len());
            }
        });
    }

    /// Runs the stage on a database that was spoilt, and gives what a user would read.
    fn refusal(spoil: &dyn Fn(&Path, &mut Params)) -> String {
        with_database(|folder| {
            let mut params = params_of(folder);
            spoil(folder, &mut params);
            if let Err(message) = IngestWfdb::check(&params) {
                return message;
            }
            let outcome = sources(&params)
                .and_then(|sources| sources.iter().try_for_each(|source| run(&params, source, None).map(drop)));
            let error = outcome.expect_err("a spoilt database was accepted");
            let text = format!("{error}\n  help: {}", error.help.as_deref().unwrap_or("-"));
            text.replace(&folder.display().to_string(), "DB")
        })
    }

    fn edit(path: &Path, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(path).unwrap();
        fs::write(path, edit(bytes)).unwrap();
    }

    fn replace(path: &Path, from: &str, to: &str) {
        edit(path, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{from} is not in {text}");
            text.replacen(from, to, 1).into_bytes()
        });
    }

    #[test]
    fn refuses() {
        type Case = (&'static str, Box<dyn Fn(&Path, &mut Params)>);
        let cases: Vec<Case> = vec![
            ("no folder", Box::new(|folder, params| params.database = folder.join("x").display().to_string())),
            (
                "empty folder",
                Box::new(|folder, params| {
                    fs::create_dir(folder.join("empty")).unwrap();
                    params.database = folder.join("empty").display().to_string();
                }),
            ),
            (
                "no header",
                Box::new(|folder, _| {
                    fs::write(folder.join("RECORDS"), "p002\np004\n").unwrap();
                }),
            ),
            ("no signals", Box::new(|folder, _| fs::remove_file(folder.join("p002.dat")).unwrap())),
            ("no annotations", Box::new(|folder, _| fs::remove_file(folder.join("p003.atr")).unwrap())),
            ("another annotator", Box::new(|_, params| params.annotator = "qrs".to_owned())),
            (
                "truncated signals",
                Box::new(|folder, _| {
                    edit(&folder.join("p002.dat"), |mut bytes| {
                        bytes.truncate(bytes.len() - 1000);
                        bytes
                    })
                }),
            ),
            (
                "surplus signals",
                Box::new(|folder, _| {
                    edit(&folder.join("p003.dat"), |mut bytes| {
                        bytes.push(0);
                        bytes
                    })
                }),
            ),
            (
                "a flipped bit",
                Box::new(|folder, _| {
                    edit(&folder.join("p003.dat"), |mut bytes| {
                        bytes[5000] ^= 1;
                        bytes
                    })
                }),
            ),
            (
                "truncated annotations",
                Box::new(|folder, _| {
                    edit(&folder.join("p002.atr"), |mut bytes| {
                        bytes.truncate(bytes.len() - 3);
                        bytes
                    })
                }),
            ),
            ("absurd length", Box::new(|folder, _| replace(&folder.join("p002.hea"), "360 3600", "360 100000000000"))),
            (
                "absurd number of signals",
                Box::new(|folder, _| replace(&folder.join("p002.hea"), " 2 360", " 2000000000 360")),
            ),
            ("no frequency", Box::new(|folder, _| replace(&folder.join("p002.hea"), "360 3600", "0 3600"))),
            (
                "a path out of the folder",
                Box::new(|folder, _| replace(&folder.join("p002.hea"), "p002.dat", "../../etc/passwd")),
            ),
            (
                "RECORDS out of the folder",
                Box::new(|folder, _| fs::write(folder.join("RECORDS"), "../p002\n").unwrap()),
            ),
            (
                "another record's header",
                Box::new(|folder, _| {
                    fs::copy(folder.join("p002.hea"), folder.join("p003.hea")).unwrap();
                }),
            ),
            (
                "segments without files",
                Box::new(|folder, _| {
                    fs::write(folder.join("p002.hea"), "p002/2 2 360 3600\nx 1800\ny 1800\n").unwrap();
                }),
            ),
            (
                "a header without signals",
                Box::new(|folder, _| fs::write(folder.join("p002.hea"), "p002 0 360 3600\n").unwrap()),
            ),
            ("an unknown record", Box::new(|_, params| params.records = Some(vec!["p20".to_owned()]))),
            ("an unknown exclusion", Box::new(|_, params| params.exclude = vec!["p2\n".to_owned()])),
            (
                "an unknown record's patient",
                Box::new(|_, params| {
                    params.patients = BTreeMap::from([("x".to_owned(), "y".to_owned())]);
                }),
            ),
            ("nothing left", Box::new(|_, params| params.exclude = vec!["p002".to_owned(), "p003".to_owned()])),
            (
                "two records of one name",
                Box::new(|folder, _| {
                    fs::create_dir(folder.join("more")).unwrap();
                    fs::copy(folder.join("p002.hea"), folder.join("more/p002.hea")).unwrap();
                    fs::write(folder.join("RECORDS"), "p002\nmore/p002\n").unwrap();
                }),
            ),
            ("no records asked for", Box::new(|_, params| params.records = Some(Vec::new()))),
            ("a record twice", Box::new(|_, params| params.records = Some(vec!["p002".to_owned(), "p002".to_owned()]))),
            ("annotator with a path", Box::new(|_, params| params.annotator = "../atr".to_owned())),
            ("no database", Box::new(|_, params| params.database = " ".to_owned())),
        ];
        let table: String = cases.iter().map(|(case, spoil)| format!("{case}: {}\n", refusal(spoil))).collect();
        expect![[r#"
            no folder: DB/x: there is no such folder
              help: give the folder that holds the records' .hea files
            empty folder: DB/empty: there is neither a file RECORDS nor a .hea file
              help: give the folder that holds the records' .hea files
            no header: DB/RECORDS:2: record `p004` has no .hea file here
              help: put it there, or remove the line
            no signals: record p002: DB/p002.dat: the header names this signal file, but it is missing
              help: a record needs its header and all of its signal files in one folder
            no annotations: record p003: DB/p003.atr: the record has no such annotation file
              help: name another `annotator`, or set `annotations: optional` to go on without reference beats
            another annotator: record p002: DB/p002.qrs: the record has no such annotation file
              help: name another `annotator`, or set `annotations: optional` to go on without reference beats
            truncated signals: record p002: p002.dat: record p002 needs 10800 bytes (3600 frames of 2 samples in format 212), but the file has 9800, 1000 too few
              help: fetch the record again, or correct its header
            surplus signals: record p003: p003.dat: record p003 needs 14400 bytes (3600 frames of 2 samples in format 16), but the file has 14401, 1 too many
              help: fetch the record again, or correct its header
            a flipped bit: record p003: p003.dat: record p003, signal 0 (MLII): the samples add up to checksum 28483, but the header says 28484
              help: the file is damaged or belongs to another header: fetch the record again
            truncated annotations: record p002: DB/p002.atr: byte 48: the file ends within a word and without its end mark (two 0 bytes)
              help: it is cut short: fetch it again
            absurd length: record p002: p002.dat: record p002 needs 300000000000 bytes (100000000000 frames of 2 samples in format 212), but the file has 10800, 299999989200 too few
              help: fetch the record again, or correct its header
            absurd number of signals: record p002: DB/p002.hea:1:6: number of signals `2000000000` is more than the limit of 4096
              help: if the file is really that large, split it
            no frequency: record p002: DB/p002.hea:1:8: sampling frequency `0` is not a frequency in Hz above 0 and up to 1e9
              help: write it as a number, such as 360
            a path out of the folder: record p002: DB/p002.hea:2:1: signal file name `../../etc/passwd` leaves the header's folder or is no plain file name
              help: put the file beside its header and give its name only
            RECORDS out of the folder: DB/RECORDS:1: record `../p002` leaves the folder or is no record name
              help: correct the line
            another record's header: record p003: DB/p003.hea:1: the header is of record `p002`
              help: give header and file the same name
            segments without files: record p002: DB/x.hea: No such file or directory (os error 2)
              help: check the path; a record needs its header and all of its signal files in one folder
            a header without signals: record p002: DB/p002.hea:1: the record has no signals
              help: leave it out by `exclude`
            an unknown record: `records` names record `p20`, but database invented has no such record
              help: the database has p002, p003
            an unknown exclusion: `exclude` names record `p2\n`, but database invented has no such record
              help: the database has p002, p003
            an unknown record's patient: `patients` names record `x`, but database invented has no such record
              help: the database has p002, p003
            nothing left: no record of database invented is left: `exclude` names all of them
              help: take a record out of `exclude`
            two records of one name: database invented has two records named `p002`: p002 and more/p002
              help: results are kept by record: give `database` the folder of one of them, or rename one
            no records asked for: `records` must name one record or more; leave it out to read all
            a record twice: `records` must name each record once, but `p002` stands there twice
            annotator with a path: `annotator` must be the extension of an annotation file, such as atr, not `../atr`
            no database: `database` must be a name, such as mitdb, or the path of a folder; it is empty
        "#]].assert_eq(&table);
    }

    #[test]
    fn a_record_without_annotations_is_empty_if_they_are_optional() {
        with_database(|folder| {
            fs::remove_file(folder.join("p002.atr")).unwrap();
            let params = Params { annotations: AnnotationRule::Optional, ..params_of(folder) };
            let listed = sources(&params).unwrap();
            let annotation_ns: Vec<_> =
                listed.iter().map(|source| run(&params, source, None).unwrap().annotations.annotations.len()).collect();
            assert_eq!(annotation_ns[0], 0);
            assert!(annotation_ns[1] > 8, "{annotation_ns:?}");
        });
    }

    #[test]
    fn invalid_samples_stay_invalid() {
        with_database(|folder| {
            // The first sample of the first lead, in format 16.
            edit(&folder.join("p003.dat"), |mut bytes| {
                bytes[..2].copy_from_slice(&i16::MIN.to_le_bytes());
                bytes
            });
            replace(&folder.join("p003.hea"), "p003.dat 16 200(0)/mV 12 0 ", "p003.dat 16 200(0)/mV 12 0\n# ");
            let params = Params { records: Some(vec!["p003".to_owned()]), ..params_of(folder) };
            let signals = run(&params, &sources(&params).unwrap()[0], None).unwrap().signals;
            let samples = signals.leads[0].samples.to_vec().unwrap();
            assert_eq!(samples[0], INVALID_SAMPLE);
            assert!(samples[1..].iter().all(|&sample| sample.abs() < 2048));
        });
    }

    /// What becomes of a record that was written by hand: `files` by name, signals as 16-bit numbers.
    fn read_by_hand(headers: &[(&str, &str)], files: &[(&str, &[i16])]) -> (Vec<String>, Signals) {
        with_database(|folder| {
            for (name, text) in headers {
                fs::write(folder.join(name), text).unwrap();
            }
            for (name, samples) in files {
                let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                fs::write(folder.join(name), bytes).unwrap();
            }
            let records = Some(vec!["p009".to_owned()]);
            let params = Params { records, annotations: AnnotationRule::Optional, ..params_of(folder) };
            let source = sources(&params).unwrap().remove(0);
            let names = source.files.iter().map(|file| file.name.clone()).collect();
            let signals = run(&params, &source, None).unwrap().signals.share();
            (names, (*signals).clone())
        })
    }

    #[test]
    fn the_samples_of_slower_leads_are_repeated() {
        let header = "p009 2 180 4\np009.dat 16x2 200/mV\np009.dat 16 200/mV\n";
        let samples = [0, 1, 100, 2, 3, 101, 4, 5, 102, 6, 7, 103];
        let (_, signals) = read_by_hand(&[("p009.hea", header)], &[("p009.dat", &samples)]);
        let lead = |idx: usize| signals.leads[idx].samples.to_vec().unwrap();
        assert_eq!(signals.sampling_frequency_hz, 360.0);
        assert_eq!(lead(0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(lead(1), [100, 100, 101, 101, 102, 102, 103, 103]);
        assert_eq!(repeated(vec![1, 2, 3, 4, 5, 6], 3, 5), [1, 1, 2, 2, 3, 4, 4, 5, 5, 6]);
    }

    #[test]
    fn segments_are_joined_and_their_files_are_listed() {
        let headers = [
            ("p009.hea", "p009/3 1 360 10\np009a 4\n~ 2\np009b 4\n"),
            ("p009a.hea", "p009a 1 360 4\np009a.dat 16 200/mV 12 0 1 10 0 MLII\n"),
            ("p009b.hea", "p009b 1 360 4\np009b.dat 16 200/mV 12 0 5 26 0 MLII\n"),
        ];
        let files = [("p009a.dat", &[1, 2, 3, 4][..]), ("p009b.dat", &[5, 6, 7, 8][..])];
        let (names, signals) = read_by_hand(&headers, &files);
        assert_eq!(names, ["p009.hea", "p009a.hea", "p009b.hea", "p009a.dat", "p009b.dat"]);
        assert_eq!(signals.leads[0].name, "MLII");
        let expected = [1, 2, 3, 4, INVALID_SAMPLE, INVALID_SAMPLE, 5, 6, 7, 8];
        assert_eq!(signals.leads[0].samples.to_vec().unwrap(), expected);
    }

    #[test]
    fn a_long_record_is_stored_as_a_short_one_would_be() {
        let frame_n = long_recording::IN_MEMORY_SAMPLE_N as usize / 2 + 12_345;
        let sample = |frame_idx: usize, lead_idx: usize| (frame_idx * (lead_idx + 3) % 1999) as i16 - 700;
        let lead = |lead_idx: usize| {
            let mut samples: Vec<i16> = (0..frame_n).map(|frame_idx| sample(frame_idx, lead_idx)).collect();
            samples[frame_n - 5] = if lead_idx == 1 { INVALID_I16 } else { 0 };
            ecgpipe_wfdb::Lead {
                name: format!("lead {lead_idx}"),
                units: "mV".to_owned(),
                gain_adu_per_unit: 200.0,
                baseline_adu: 0,
                samples_per_frame: 1,
                samples: Samples::Narrow(samples),
            }
        };
        let format = ecgpipe_wfdb::Format::Fixed16;
        let record = ecgpipe_wfdb::Record::new("p009", 1000.0, format, vec![lead(0), lead(1)]).unwrap();
        let files = ecgpipe_wfdb::encode_record(&record).unwrap().into_iter();
        let raw = RawRecord::new(files.map(|(name, bytes)| NamedFile { name, bytes }).collect());
        let record = RecordId::new("p009").unwrap();
        let open = || Reading::open(&record, "p009", Source::Bundle(&raw)).unwrap();
        assert!(open().is_long());
        let (cancel, events) = (AtomicBool::new(false), |_| ());
        let spooled = open().spool(&Context::new(&cancel, &events)).unwrap();
        let in_memory = open().signals().unwrap().encode().unwrap();
        assert!(spooled.bytes().unwrap() == in_memory);
    }

    #[test]
    fn several_samples_a_frame_in_every_lead_are_a_higher_frequency() {
        with_database(|folder| {
            // 1800 frames of two samples: the same numbers as 3600 frames of one, if there is one lead.
            let mut record = ecgpipe_wfdb::Record::new(
                "p009",
                180.0,
                ecgpipe_wfdb::Format::Fixed16,
                vec![ecgpipe_wfdb::Lead {
                    name: "MLII".to_owned(),
                    units: "mV".to_owned(),
                    gain_adu_per_unit: 200.0,
                    baseline_adu: 0,
                    samples_per_frame: 1,
                    samples: Samples::Narrow((0..3600).collect()),
                }],
            )
            .unwrap();
            record.sample_n = 1800;
            record.leads[0].samples_per_frame = 2;
            record.header.signals[0].samples_per_frame = 2;
            let mut files = ecgpipe_wfdb::encode_record(&record).unwrap();
            let beat = ecgpipe_wfdb::Annotation::new(100, ecgpipe_wfdb::AnnotationCode::NORMAL);
            let beats = ecgpipe_wfdb::Annotations { items: vec![beat], ..Default::default() };
            files.push(("p009.atr".to_owned(), ecgpipe_wfdb::encode_annotations(&beats).unwrap()));
            for (name, bytes) in files {
                fs::write(folder.join(name), bytes).unwrap();
            }
            let params = Params { records: Some(vec!["p009".to_owned()]), ..params_of(folder) };
            let outputs = run(&params, &sources(&params).unwrap()[0], None).unwrap();
            assert_eq!((outputs.signals.sampling_frequency_hz, outputs.signals.sample_n()), (360.0, 3600));
            assert_eq!((outputs.annotations.sampling_frequency_hz, outputs.annotations.sample_n), (360.0, 3600));
            assert_eq!(outputs.annotations.annotations[0].sample_idx, 200);
        });
    }

    #[test]
    fn patients_are_known_or_named_or_the_record_itself() {
        let record = |name| RecordId::new(name).unwrap();
        let named = Params { patients: BTreeMap::from([("202".to_owned(), "x".to_owned())]), ..Params::default() };
        for (params, database, name, expected) in [
            (&Params::default(), Some("mitdb"), "202", "201"),
            (&Params::default(), Some("mitdb"), "201", "201"),
            (&Params::default(), Some("mitdb"), "203", "203"),
            (&Params::default(), Some("svdb"), "202", "202"),
            (&Params::default(), None, "202", "202"),
            (&named, Some("mitdb"), "202", "x"),
        ] {
            assert_eq!(patient(params, database, &record(name)), expected, "{database:?} {name}");
        }
        assert_eq!(database_name("/data/mitdb/"), Some("mitdb"));
    }

    /// Expected numbers: the header's first samples, and the counts of `python -c 'import wfdb, collections;
    /// print(collections.Counter(wfdb.rdann("100", "atr").symbol))'` (wfdb-python 4.3.1).
    #[test]
    fn reads_the_mit_bih_arrhythmia_database() {
        if std::env::var_os("ECGPIPE_DATA").is_none_or(|folder| !Path::new(&folder).join("mitdb").is_dir()) {
            eprintln!("skipped: reads_the_mit_bih_arrhythmia_database: set ECGPIPE_DATA to a folder that holds mitdb");
            return;
        }
        let listed = sources(&Params::default()).unwrap();
        assert_eq!(listed.len(), 48);
        assert!(listed.iter().all(|source| source.files.len() == 3));

        let params = Params {
            records: Some(["100", "114", "202"].map(str::to_owned).to_vec()),
            exclude: vec!["102".to_owned()],
            ..Params::default()
        };
        let read: Vec<Outputs> =
            sources(&params).unwrap().iter().map(|source| run(&params, source, None).unwrap()).collect();
        let lead_names = |idx: usize| read[idx].signals.leads.iter().map(|lead| lead.name.as_str()).collect::<Vec<_>>();
        assert_eq!(lead_names(0), ["MLII", "V5"]);
        assert_eq!(lead_names(1), ["V5", "MLII"]);
        assert_eq!(read.iter().map(|output| output.signals.sample_n()).collect::<Vec<_>>(), [650_000; 3]);
        assert_eq!(
            read[0].signals.leads.iter().map(|lead| lead.samples.read(0..1).unwrap()[0]).collect::<Vec<_>>(),
            [995, 1011]
        );
        assert_eq!(
            read.iter().map(|output| output.signals.patient.as_str()).collect::<Vec<_>>(),
            ["100", "114", "201"]
        );
        let count = |symbol| read[0].annotations.annotations.iter().filter(|row| row.symbol == symbol).count();
        assert_eq!([count("N"), count("A"), count("V"), count("+")], [2239, 33, 1, 1]);
        assert_eq!(read[0].annotations.annotations[0].aux, "(N");
    }
}
