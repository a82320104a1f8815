//! Owns the way from EDF, BDF, CSV and `.npy` files to artifacts: the counterpart of `ingest_wfdb` for people without WFDB.
//!
//! Bytes are read by [`ecgpipe_formats`], which reads every format as what it would be as a WFDB record; records and
//! patients are chosen by [`crate::record_source`] as in `ingest_wfdb`.
//!
//! Invariant: every file that decides the result is listed by [`Stage::sources`] and nothing else is read
//! (`tests::lists_the_file_and_its_annotations`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ecgpipe_formats::{FileFormat, FormatError, Options, Recording};
use ecgpipe_sdk::{
    Annotations, Context, Each, Lead, NoInputs, RecordId, Signals, SourceContext, SourceFile, SourceRecord, Stage,
    StageError, StageFacts,
    facts::{RecordFacts, names},
    ports,
};
use ecgpipe_wfdb::{Header, read_annotations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::record_source::{AnnotationRule, Origin, RecordChoice, annotation_rows, shown, told};

/// Reads EDF, BDF, CSV and NumPy files.
pub struct IngestFiles;

/// Which files to read, and what they do not say of themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The folder of the files: a path, such as `./holter`, or a name that is looked for in `data/raw` and in
    /// `$ECGPIPE_DATA`. Every .edf, .bdf, .csv, .tsv and .npy file in it is a record, named as the file without its extension.
    pub folder: String,
    /// The files to read instead of all in the folder, by their paths below it, such as `ward3/a.edf`.
    pub files: Vec<String>,
    /// The records to read, by name. Default: all.
    pub records: Option<Vec<String>>,
    /// Records to leave out, by name.
    pub exclude: Vec<String>,
    /// The leads to read, by name or by place (`#1` is the first). They must share one sampling frequency; an EDF file
    /// often has others beside the ECG. Default: all.
    pub leads: Vec<String>,
    /// The extension of a WFDB annotation file beside each file, such as `atr`. Default: none; the annotations are those
    /// within an EDF+ file.
    pub annotator: Option<String>,
    /// What to do with a record that has no such annotation file.
    pub annotations: AnnotationRule,
    /// The patient of a record, by record, where they are not one and the same. Two records of one patient must not
    /// stand on both sides of a split.
    pub patients: BTreeMap<String, String>,
    /// Samples per second, in Hz, for `.npy` files and for CSV files without a time column.
    #[schemars(range(max = 1e9))]
    pub sampling_frequency_hz: Option<f64>,
    /// What the rows of two-dimensional `.npy` arrays are.
    pub axes: Option<Axes>,
    /// Names of all leads, in file order, where files have none.
    pub lead_names: Vec<String>,
    /// The unit of leads for which a file gives none. Default: mV.
    pub units: Option<String>,
    /// ADC units per physical unit. Default: the smallest power of ten that keeps every value.
    pub gain_adu_per_unit: Option<f64>,
    /// The sample that stands for 0 physical units, with `gain_adu_per_unit`.
    pub baseline_adu: Option<i32>,
}

/// What the axes of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axes {
    /// A row is a moment.
    SamplesByLeads,
    /// A row is a lead.
    LeadsBySamples,
}

ports! {
    /// What `ingest_files` gives.
    pub struct Outputs {
        /// The samples of the leads.
        pub signals: Each<Signals>,
        /// The annotations.
        pub annotations: Each<Annotations>,
    }
}

impl Stage for IngestFiles {
    const NAME: &'static str = "ingest_files";
    const SUMMARY: &'static str =
        "reads EDF, BDF, CSV and NumPy files: every value checked, annotations of EDF+ or of a file beside";

    type Params = Params;
    type Inputs = NoInputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if params.folder.trim().is_empty() {
            return Err("`folder` must be the path of a folder, such as ./holter, or a name; it is empty".to_owned());
        }
        let is_extension = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if let Some(annotator) = &params.annotator
            && (annotator.is_empty() || !annotator.bytes().all(is_extension) || is_record_file(annotator))
        {
            return Err(format!(
                "`annotator` must be the extension of an annotation file, such as atr, not `{annotator}`"
            ));
        }
        if params.annotator.is_none() && params.annotations != AnnotationRule::default() {
            return Err("`annotations` is about the files of `annotator`, which is not given".to_owned());
        }
        if params.baseline_adu.is_some() && params.gain_adu_per_unit.is_none() {
            return Err("`baseline_adu` means nothing without `gain_adu_per_unit`".to_owned());
        }
        choice(params).check()
    }

    fn facts(params: &Params, facts: &mut StageFacts<'_>) {
        let wanted = params.patients.iter().filter(|(record, _)| choice(params).is_wanted(record));
        let patients: Map<String, Value> = wanted.map(|(record, patient)| (record.clone(), json!(patient))).collect();
        if !patients.is_empty() {
            facts.set("signals", names::PATIENT, patients);
        }
    }

    fn sources(params: &Params, cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        let folder = locate(&params.folder, cx)?;
        let paths = if params.files.is_empty() { files_of(&folder)? } else { named_files(&folder, &params.files)? };
        let origin = Origin { kind: "folder", name: &params.folder };
        let by_name = paths.iter().map(|path| (record_name(path), path.as_str()));
        let source = |(record, path): (RecordId, &str)| {
            let path = folder.join(path);
            let file_name =
                |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let mut files = vec![SourceFile { name: file_name(&path), path: path.clone() }];
            if let Some(annotator) = &params.annotator {
                let beside = path.with_extension(annotator);
                if beside.is_file() {
                    files.push(SourceFile { name: file_name(&beside), path: beside });
                } else if params.annotations == AnnotationRule::Required {
                    let message = format!("{}: the record has no such annotation file", beside.display());
                    let help = "name another `annotator`, or set `annotations: optional` to go on without it";
                    return Err(StageError::new(message).help(help).record(&record));
                }
            }
            let facts = facts_of(params, &path, &record).map_err(|error| told(&error).record(&record))?;
            Ok(SourceRecord { record, files, facts })
        };
        choice(params).choose(origin, by_name)?.into_iter().map(source).collect()
    }

    fn run(params: &Params, _inputs: NoInputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let record = cx.record()?;
        let file = cx.files().first().ok_or_else(|| StageError::new("the record has no file").record(record))?;
        let loaded = load(record, patient(params, record), &file.path, &options(params))?;
        for note in loaded.notes {
            cx.note(note);
        }
        let mut annotations = loaded.annotations;
        if params.annotator.is_some() {
            annotations.annotations = match cx.files().get(1) {
                Some(beside) => {
                    beside_rows(&beside.path, &loaded.header).map_err(|error| told(&error).record(record))?
                }
                None => Vec::new(),
            };
        }
        Ok(Outputs { signals: Each::new(loaded.signals), annotations: Each::new(annotations) })
    }
}

/// A file as artifacts.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The samples of the leads.
    pub signals: Signals,
    /// The annotations within the file.
    pub annotations: Annotations,
    /// The header that it would have as a WFDB record.
    pub header: Header,
    /// What had to be decided to read it.
    pub notes: Vec<String>,
}

/// Reads one file.
///
/// # Errors
/// If it cannot be read, is damaged, does not say something that `options` do not say either, or has leads of different sampling
/// frequencies.
pub fn load(record: &RecordId, patient: &str, path: &Path, options: &Options) -> Result<Loaded, StageError> {
    /// Frames that are read at a time.
    const PIECE_FRAME_N: usize = 1 << 16;
    let failed = |error: FormatError| told(&error).record(record);
    let mut recording = Recording::open(path, options).map_err(failed)?;
    let header = recording.header().clone();
    if let Some(slow) =
        header.signals.iter().find(|signal| signal.samples_per_frame != header.signals[0].samples_per_frame)
    {
        let frequency = |samples_per_frame: u32| header.sampling_frequency_hz * f64::from(samples_per_frame);
        let (first, lead) = (&header.signals[0], shown(&slow.description));
        let message = format!(
            "{}: lead {lead} has {} Hz, but the first lead has {} Hz: leads of different sampling frequencies are not supported",
            path.display(),
            frequency(slow.samples_per_frame),
            frequency(first.samples_per_frame)
        );
        let names: Vec<String> = header.signals.iter().map(|signal| shown(&signal.description)).collect();
        let help = format!("name leads of one frequency in `leads`; the file has {}", names.join(", "));
        return Err(StageError::new(message).help(help).record(record));
    }
    let mut samples = vec![Vec::new(); header.signals.len()];
    let mut pieces = samples.clone();
    while recording.read(PIECE_FRAME_N, &mut pieces).map_err(failed)? > 0 {
        samples.iter_mut().zip(&pieces).for_each(|(whole, piece): (&mut Vec<i32>, _)| whole.extend_from_slice(piece));
    }
    let leads = header.signals.iter().zip(samples).map(|(signal, samples)| Lead {
        name: signal.description.clone(),
        units: signal.units.clone(),
        gain_adu_per_unit: signal.gain_adu_per_unit,
        baseline_adu: signal.baseline_adu,
        samples,
    });
    let signals = Signals {
        record: record.clone(),
        patient: patient.to_owned(),
        sampling_frequency_hz: header.sampling_frequency_hz,
        leads: leads.collect(),
        comments: header.comments.clone(),
    };
    let annotations = Annotations {
        record: record.clone(),
        sampling_frequency_hz: header.sampling_frequency_hz,
        sample_n: i64::try_from(recording.frame_n()).expect("the samples are in memory"),
        // All leads share one frequency, so that positions count their samples.
        annotations: annotation_rows(recording.annotations(), 1),
    };
    Ok(Loaded { signals, annotations, notes: recording.notes().to_vec(), header })
}

/// The header that a file would have as a WFDB record, with all of its leads.
///
/// # Errors
/// If it cannot be read, is damaged, or does not say of itself what must be known.
pub fn header(record: &RecordId, path: &Path) -> Result<Header, StageError> {
    let recording = Recording::open(path, &Options::default()).map_err(|error| told(&error).record(record))?;
    Ok(recording.header().clone())
}

/// The annotations in a WFDB file beside a recording.
fn beside_rows(path: &Path, header: &Header) -> Result<Vec<ecgpipe_sdk::kinds::Annotation>, ecgpipe_wfdb::WfdbError> {
    let annotator = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    Ok(annotation_rows(&read_annotations(path.with_extension("hea"), annotator, header.timing())?, 1))
}

/// Whether a file of this extension is a recording or belongs to one.
fn is_record_file(extension: &str) -> bool {
    FileFormat::EXTENSIONS.contains(&extension) || matches!(extension, "hea" | "dat")
}

fn choice(params: &Params) -> RecordChoice<'_> {
    RecordChoice { records: params.records.as_deref(), exclude: &params.exclude, patients: &params.patients }
}

fn patient<'a>(params: &'a Params, record: &'a RecordId) -> &'a str {
    params.patients.get(record.as_str()).map_or(record.as_str(), String::as_str)
}

fn options(params: &Params) -> Options {
    Options {
        leads: params.leads.clone(),
        sampling_frequency_hz: params.sampling_frequency_hz,
        axes: params.axes.map(|axes| match axes {
            Axes::SamplesByLeads => ecgpipe_formats::Axes::SamplesByLeads,
            Axes::LeadsBySamples => ecgpipe_formats::Axes::LeadsBySamples,
        }),
        lead_names: params.lead_names.clone(),
        units: params.units.clone(),
        gain_adu_per_unit: params.gain_adu_per_unit,
        baseline_adu: params.baseline_adu,
        bit_n: None,
    }
}

/// What is known of a record before its samples are read: all that later stages rely on of EDF and BDF, whose header says it;
/// the patient alone of tables, which must be read whole to know more.
fn facts_of(params: &Params, path: &Path, record: &RecordId) -> Result<RecordFacts, FormatError> {
    let mut facts = RecordFacts::from([(names::PATIENT.key, json!(patient(params, record)))]);
    if FileFormat::of(path) == Some(FileFormat::Edf) {
        let recording = Recording::open(path, &options(params))?;
        let header = recording.header();
        let leads: Vec<Value> = header.signals.iter().map(|signal| json!([signal.description, signal.units])).collect();
        facts.insert(names::RECORD_FS_HZ.key, json!(header.sampling_frequency_hz));
        facts.insert(names::RECORD_LEADS.key, json!(leads));
    }
    Ok(facts)
}

/// The folder: as a path, or by name where databases are.
fn locate(folder: &str, cx: &SourceContext<'_>) -> Result<PathBuf, StageError> {
    let is_path = folder.contains(['/', '\\']) || matches!(folder, "." | "..");
    let candidates: Vec<PathBuf> = match is_path {
        true => vec![PathBuf::from(folder)],
        false => [Some(cx.data_folder.join("raw")), cx.shared_data.clone()]
            .into_iter()
            .flatten()
            .map(|place| place.join(folder))
            .collect(),
    };
    candidates.iter().find(|path| path.is_dir()).cloned().ok_or_else(|| {
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        let message = format!("{}: there is no such folder", looked.join(" or "));
        StageError::new(message).help("give the folder that holds the files; a path has a / in it, such as ./holter")
    })
}

/// Every file of a known format in the folder, by name.
fn files_of(folder: &Path) -> Result<Vec<String>, StageError> {
    let failed = |error: io::Error| StageError::new(format!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && FileFormat::of(&path).is_some()
            && path.is_file()
        {
            found.push(name.to_owned());
        }
    }
    if found.is_empty() {
        let message = format!("{}: there is no .{} file", folder.display(), FileFormat::EXTENSIONS.join(", ."));
        return Err(
            StageError::new(message).help("give the folder that holds the files; WFDB records are for `ingest_wfdb`")
        );
    }
    found.sort();
    Ok(found)
}

/// The files that were named, which must lie in the folder.
fn named_files(folder: &Path, files: &[String]) -> Result<Vec<String>, StageError> {
    for file in files {
        let is_inside = file.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !file.contains(['\\', ':'])
            && !file.contains(char::is_control);
        let refuse = |problem: &str, help: &str| {
            Err(StageError::new(format!("`files` names `{}`, {problem}", shown(file))).help(help))
        };
        if !is_inside {
            return refuse("which leaves the folder or is no path", "give paths below `folder`, such as ward3/a.edf");
        }
        if FileFormat::of(Path::new(file)).is_none() {
            let known = format!("the extensions are .{}", FileFormat::EXTENSIONS.join(", ."));
            return refuse("whose name does not tell a format", &known);
        }
        if !folder.join(file).is_file() {
            return refuse("but there is no such file", "check the path below `folder`");
        }
    }
    Ok(files.to_vec())
}

/// A file's name without its folder and extension.
fn record_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use ecgpipe_sdk::kinds::INVALID_SAMPLE;
    use ecgpipe_wfdb::{AnnotationCode, encode_annotations};
    use expect_test::expect;

    use super::*;

    /// A folder with `a.edf` (a fixture of pyedflib: two ECG leads at 250 Hz, one signal at 50 Hz, annotations), `b.csv` and
    /// `c.npy` (two leads at 360 Hz).
    fn with_folder<T>(work: impl FnOnce(&Path) -> T) -> T {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("ward");
        fs::create_dir(&folder).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("formats/tests/fixtures");
        for (from, to) in [("gaps.edf", "a.edf"), ("rdsamp.csv", "b.csv"), ("rows.npy", "c.npy")] {
            fs::copy(fixtures.join(from), folder.join(to)).unwrap();
        }
        work(&folder)
    }

    fn params_of(folder: &Path) -> Params {
        Params { folder: folder.display().to_string(), ..Params::default() }
    }

    fn sources(params: &Params) -> Result<Vec<SourceRecord>, StageError> {
        let cx = SourceContext {
            data_folder: PathBuf::from("no-such-folder"),
            shared_data: None,
            offline: true,
            events: &|_| {},
        };
        IngestFiles::check(params).map_err(StageError::new)?;
        IngestFiles::sources(params, &cx)
    }

    fn run(params: &Params, source: &SourceRecord) -> Result<Outputs, StageError> {
        let (cancel, events) = (AtomicBool::new(false), |_| {});
        let cx = Context::new(&cancel, &events).with_record(Some(&source.record)).with_files(&source.files);
        IngestFiles::run(params, NoInputs, &cx)
    }

    /// Reads one record.
    fn read(params: &Params, record: &str) -> Result<Outputs, StageError> {
        let params = Params { records: Some(vec![record.to_owned()]), ..params.clone() };
        run(&params, &sources(&params)?[0])
    }

    #[test]
    fn every_format_gives_signals_and_annotations() {
        with_folder(|folder| {
            let edf = read(&Params { leads: vec!["V5".into(), "II".into()], ..params_of(folder) }, "a").unwrap();
            assert_eq!((edf.signals.sampling_frequency_hz, edf.signals.sample_n()), (250.0, 1500));
            assert_eq!(edf.signals.leads[0].samples[499..501], [6987, INVALID_SAMPLE]);
            let marks =
                edf.annotations.annotations.iter().map(|row| format!("{} {} {}", row.sample_idx, row.symbol, row.aux));
            assert_eq!(
                marks.collect::<Vec<_>>(),
                ["0 \" lights off", "188 \" (Apnoe \u{fc}", "813 \" Apnoe \u{fc})", "875 \" end"]
            );
            assert_eq!((edf.annotations.sampling_frequency_hz, edf.annotations.sample_n), (250.0, 1500));

            let csv = read(&params_of(folder), "b").unwrap();
            let npy = Params {
                axes: Some(Axes::SamplesByLeads),
                sampling_frequency_hz: Some(360.0),
                lead_names: vec!["MLII".into(), "V5".into()],
                patients: BTreeMap::from([("c".to_owned(), "p".to_owned())]),
                ..params_of(folder)
            };
            let npy = read(&npy, "c").unwrap();
            assert_eq!(npy.signals.patient, "p");
            assert_eq!(csv.signals.leads, npy.signals.leads, "the same numbers as text and as floats");
            assert_eq!(csv.signals.sampling_frequency_hz, npy.signals.sampling_frequency_hz);
            assert_eq!(csv.signals.leads[1].samples[7], INVALID_SAMPLE);
        });
    }

    #[test]
    fn lists_the_file_and_its_annotations() {
        with_folder(|folder| {
            let beat = ecgpipe_wfdb::Annotation::new(100, AnnotationCode::NORMAL);
            let beats = ecgpipe_wfdb::Annotations { items: vec![beat], ..Default::default() };
            fs::write(folder.join("b.atr"), encode_annotations(&beats).unwrap()).unwrap();
            let params = Params {
                annotator: Some("atr".to_owned()),
                annotations: AnnotationRule::Optional,
                exclude: vec!["c".to_owned()],
                leads: vec!["#1".to_owned()],
                ..params_of(folder)
            };
            let listed = sources(&params).unwrap();
            let names: Vec<_> = listed.iter().flat_map(|source| &source.files).map(|file| file.name.as_str()).collect();
            assert_eq!(names, ["a.edf", "b.csv", "b.atr"]);
            let rows = |idx: usize| run(&params, &listed[idx]).unwrap().annotations.annotations.clone();
            assert!(rows(0).is_empty(), "the annotator is asked for, not the file's own annotations");
            assert_eq!(
                rows(1).iter().map(|row| (row.sample_idx, row.symbol.as_str())).collect::<Vec<_>>(),
                [(100, "N")]
            );
            let facts = serde_json::to_string(&listed[0].facts).unwrap();
            assert_eq!(facts, r#"{"record.fs_hz":250.0,"record.leads":[["V5","uV"]],"record.patient":"a"}"#);
        });
    }

    #[test]
    fn refuses_what_cannot_be_read() {
        type Spoil = fn(&Path, &mut Params);
        let cases: [(&str, Spoil); 14] = [
            ("no folder", |folder, params| params.folder = folder.join("x").display().to_string()),
            ("a folder by name", |_, params| params.folder = "nowhere".to_owned()),
            ("an empty folder", |folder, params| {
                fs::create_dir(folder.join("empty")).unwrap();
                params.folder = folder.join("empty").display().to_string();
            }),
            ("leads of two frequencies", |_, params| params.records = Some(vec!["a".to_owned()])),
            ("no such lead", |_, params| params.leads = vec!["V9".to_owned()]),
            ("an array without axes", |_, params| params.records = Some(vec!["c".to_owned()])),
            ("a damaged file", |folder, params| {
                fs::write(folder.join("b.csv"), "I (mV)\n1\nx\n").unwrap();
                params.records = Some(vec!["b".to_owned()]);
            }),
            ("two files of one name", |folder, _| {
                fs::copy(folder.join("a.edf"), folder.join("a.bdf")).unwrap();
            }),
            ("a name that names no record", |folder, params| {
                fs::rename(folder.join("a.edf"), folder.join("a b.edf")).unwrap();
                params.leads = vec!["#1".to_owned()];
            }),
            ("no annotations", |_, params| params.annotator = Some("atr".to_owned())),
            ("an annotator that is none", |_, params| params.annotator = Some("edf".to_owned())),
            ("a path out of the folder", |_, params| params.files = vec!["../a.edf".to_owned()]),
            ("a file that is not there", |_, params| params.files = vec!["z.edf".to_owned()]),
            ("an unknown record", |_, params| params.exclude = vec!["z".to_owned()]),
        ];
        let mut table = String::new();
        for (case, spoil) in cases {
            let told = with_folder(|folder| {
                let mut params = params_of(folder);
                spoil(folder, &mut params);
                let error = sources(&params)
                    .and_then(|listed| run(&params, &listed[0]))
                    .err()
                    .unwrap_or_else(|| panic!("{case} is not refused"));
                let help = error.help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default();
                let text = format!("{case}: {error}{help}\n");
                text.replace(&format!("{}/", folder.display()), "").replace(&folder.display().to_string(), "WARD")
            });
            table += &told;
        }
        expect![[r#"
            no folder: x: there is no such folder
              help: give the folder that holds the files; a path has a / in it, such as ./holter
            a folder by name: no-such-folder/raw/nowhere: there is no such folder
              help: give the folder that holds the files; a path has a / in it, such as ./holter
            an empty folder: empty: there is no .edf, .bdf, .csv, .tsv, .npy file
              help: give the folder that holds the files; WFDB records are for `ingest_wfdb`
            leads of two frequencies: record a: a.edf: lead SpO2 has 50 Hz, but the first lead has 250 Hz: leads of different sampling frequencies are not supported
              help: name leads of one frequency in `leads`; the file has V5, II, SpO2
            no such lead: record a: a.edf: there is no lead `V9`
              help: the file has V5, II, SpO2
            an array without axes: record c: c.npy: the array has 300 rows of 2 numbers, and nothing says which are the leads
              help: say so: `samples-by-leads` if a row is a moment, `leads-by-samples` if a row is a lead
            a damaged file: record b: b.csv:3:1: `x` is not a number
              help: write NaN for a sample that is missing
            two files of one name: folder WARD has two records named `a`: a.bdf and a.edf
              help: results are kept by record: give `folder` the folder of one of them, or rename one
            a name that names no record: folder WARD: `a b` is not a record name: use 1 to 64 letters, digits, `_`, `-` or `.`, not starting with a dot
              help: rename the record, or leave it out by `exclude`
            no annotations: record a: a.atr: the record has no such annotation file
              help: name another `annotator`, or set `annotations: optional` to go on without it
            an annotator that is none: `annotator` must be the extension of an annotation file, such as atr, not `edf`
            a path out of the folder: `files` names `../a.edf`, which leaves the folder or is no path
              help: give paths below `folder`, such as ward3/a.edf
            a file that is not there: `files` names `z.edf`, but there is no such file
              help: check the path below `folder`
            an unknown record: `exclude` names record `z`, but folder WARD has no such record
              help: the folder has a, b, c
        "#]].assert_eq(&table);
    }
}
