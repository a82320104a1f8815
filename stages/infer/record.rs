//! Owns the way from a WFDB record to classified beats: read, find beats, cut windows, scale, features, model.

use std::{fs, path::Path};

use ecgpipe_formats::{FileFormat, Options, is_ecg_lead};
use ecgpipe_sdk::{Features, RecordId, Signals, StageError};
use ecgpipe_tables::rhythm::NAMES;
use ecgpipe_wfdb::Header;
use serde::Serialize;

use super::{
    NOT_JUDGED, Request,
    findings::{Beat, RATE_RR_N, Summary, rr_before_s, summarise},
    model::{About, EngineUsed, ModelFile},
    most_probable, not_a_number,
    preparation::{Preparation, preparation},
    quality::{Stretch, after_gap, unreadable},
    shown,
};
use crate::{
    aami::AamiClass,
    align_beats, detect_peaks,
    infer_onnx::predict,
    ingest_files,
    ingest_wfdb::{AnnotationRule, Source, ingest, record_files},
    lead::{self, mv_per_unit},
    morphology,
    normalise::min_max,
    rhythm, window,
};

/// Sampling frequencies for which the detector and the resampling were measured.
const TESTED_HZ: std::ops::RangeInclusive<f64> = 100.0..=1000.0;

/// Everything that was found in a record.
#[derive(Clone, Debug)]
pub struct RecordFindings {
    /// The record.
    pub record: RecordInfo,
    /// The model.
    pub model: About,
    /// What computed.
    pub engine: EngineUsed,
    /// How the model's input was prepared.
    pub prepared: Prepared,
    /// The classes in the order of the probabilities.
    pub classes: Vec<AamiClass>,
    /// The findings in numbers.
    pub summary: Summary,
    /// Stretches of the lead that cannot be read.
    pub unreadable: Vec<Stretch>,
    /// Every beat, in time order.
    pub beats: Vec<Finding>,
    /// A beat whose largest probability is lower is uncertain.
    pub uncertain_below: f32,
    /// What a reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// The record, as its header tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordInfo {
    /// Its name.
    pub name: String,
    /// The header file, as it was named.
    pub path: String,
    /// Samples per second.
    pub sampling_frequency_hz: f64,
    /// Samples of each lead.
    pub sample_n: usize,
    /// All leads.
    pub leads: Vec<String>,
    /// The one that was classified.
    pub lead: String,
    /// Those on which shapes were compared, if the model asks for that.
    pub shape_leads: Vec<String>,
    /// Date and time of the first sample, if the header gives them.
    pub start: Option<String>,
    /// Comment lines.
    pub comments: Vec<String>,
}

/// How the model's input was prepared.
#[derive(Clone, Debug, Serialize)]
pub struct Prepared {
    /// Parameters of the QRS detector's stage.
    pub detect_peaks: detect_peaks::Params,
    /// Parameters of the window stage.
    pub window: window::Params,
    /// How beats were moved before anything was cut or measured, if they were.
    pub align_beats: Option<align_beats::Params>,
    /// Features that the model got; empty if it takes none.
    pub features: Vec<String>,
    /// Whether the model looked at the windows, too.
    pub window_used: bool,
}

/// One beat and what the model says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Position and class.
    pub beat: Beat,
    /// RR interval before it in seconds; `None` for the first beat and where the signal in between is unreadable.
    pub rr_before_s: Option<f64>,
    /// Probability of each class; empty if the beat could not be classified.
    pub probabilities: Vec<f32>,
}

/// Reads a record and classifies its beats.
///
/// # Errors
/// If the record is missing or damaged, has no such lead, or its leads are no voltages; if the model cannot be used.
pub fn read(model: &ModelFile, request: &Request<'_>) -> Result<RecordFindings, StageError> {
    let Preparation {
        mut detect_peaks,
        mut align_beats,
        mut window,
        mut morphology,
        window_beside_features,
        mut notes,
    } = preparation(&model.about.metadata, model.provenance.as_ref())?;
    let (signals, mut info, read_notes) = signals(request.input)?;
    notes.extend(read_notes);
    if let Some(name) = request.lead {
        let lead = named_lead(&signals, name)?;
        window.leads = vec![lead.clone()];
        detect_peaks.leads = vec![lead];
        // Whoever names a lead may do so because the others are bad.
        detect_peaks.all_leads = false;
        morphology = morphology::Params { leads: window.leads.clone(), leads_n: 1, ..morphology };
        align_beats =
            align_beats.map(|params| align_beats::Params { leads: window.leads.clone(), leads_n: 1, ..params });
    }
    let lead_idx = lead::choose(&signals, &window.leads)?;
    info.lead = shown(&signals.leads[lead_idx].name);
    notes.extend(notes_on_record(&signals, request.lead, &window.leads));

    let (mut session, engine, engine_note) = model.open(request.data_folder, request.offline)?;
    notes.extend(engine_note);
    let beats = detect_peaks::find(&detect_peaks, &signals, None)?;
    // Findings are told at the R-peaks; what the model is given is cut around where beats are moved to.
    let moved = align_beats.as_ref().map(|params| align_beats::aligned(params, &signals, &beats)).transpose()?;
    let moved = moved.as_ref().unwrap_or(&beats);
    let windows = min_max(&window::cut(&window, &signals, moved)?);
    let (features, features_note) = features(model, &morphology, &signals, moved)?;
    notes.extend(features_note);
    if features.as_ref().is_some_and(|features| !features.names.iter().all(|name| is_of_rhythm(name))) {
        let leads = lead::choose_several(&signals, &morphology.leads, morphology.leads_n)?;
        info.shape_leads = leads.into_iter().map(|idx| shown(&signals.leads[idx].name)).collect();
    }
    let predictions = predict(&mut session, &windows, features.as_ref())?;

    let unreadable =
        unreadable(&lead::millivolts(&signals, lead_idx, 0..signals.sample_n())?, signals.sampling_frequency_hz);
    let positions: Vec<i64> = beats.beats.iter().map(|beat| beat.sample_idx).collect();
    let gaps = after_gap(&positions, &unreadable);
    let mut rows = vec![None; positions.len()];
    for (row_idx, &beat_idx) in predictions.beat_idx.iter().enumerate() {
        rows[beat_idx as usize] = Some(predictions.row(row_idx));
    }
    let classified = |beat_idx: usize| {
        let top = match rows[beat_idx] {
            Some(row) => Some(most_probable(row).ok_or_else(|| not_a_number("beat", beat_idx))?),
            None => None,
        };
        let probability = top.zip(rows[beat_idx]).map_or(0.0, |(top, row)| row[top]);
        Ok(Beat {
            sample_idx: positions[beat_idx],
            class: top.map(|top| model.classes[top]),
            probability,
            is_uncertain: top.is_some() && probability < model.uncertain_below(),
            is_after_gap: gaps[beat_idx],
        })
    };
    let beats = (0..positions.len()).map(classified).collect::<Result<Vec<Beat>, StageError>>()?;
    let summary = summarise(&beats, signals.sampling_frequency_hz);
    notes.extend(notes_on_beats(&summary, &info.lead));
    notes.extend([NOT_JUDGED.to_owned(), model.on_probabilities()]);
    let intervals = rr_before_s(&beats, signals.sampling_frequency_hz);
    let finding = |((beat, rr_before_s), row): ((Beat, Option<f64>), Option<&[f32]>)| Finding {
        beat,
        rr_before_s,
        probabilities: row.unwrap_or_default().to_vec(),
    };
    Ok(RecordFindings {
        record: info,
        model: model.about.clone(),
        engine,
        prepared: Prepared {
            detect_peaks,
            window,
            align_beats,
            window_used: window_beside_features || features.is_none(),
            features: features.map(|features| features.names).unwrap_or_default(),
        },
        classes: model.classes.clone(),
        summary,
        unreadable,
        uncertain_below: model.uncertain_below(),
        beats: beats.into_iter().zip(intervals).zip(rows).map(finding).collect(),
        notes,
    })
}

/// The samples of a record, what its header says, and what had to be decided to read it.
fn signals(input: &Path) -> Result<(Signals, RecordInfo, Vec<String>), StageError> {
    if input.is_dir() {
        return Err(StageError::new(format!("{}: this is a folder", input.display()))
            .help("name one record in it, such as folder/100 for folder/100.hea and folder/100.dat"));
    }
    if FileFormat::of(input).is_some() {
        return signals_of_file(input);
    }
    let is_wfdb =
        |extension: &std::ffi::OsStr| extension.eq_ignore_ascii_case("hea") || extension.eq_ignore_ascii_case("dat");
    let path = if input.extension().is_some_and(is_wfdb) { input.with_extension("") } else { input.to_owned() };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let record = RecordId::new(name).map_err(|error| {
        StageError::new(format!("{}: {error}", input.display())).help(
            "give a WFDB record, such as path/100 or path/100.hea, an .edf, .bdf or .csv file, or windows as .npy",
        )
    })?;
    // The annotator's name only serves to leave its file out: findings never come from annotations.
    let (mut files, ..) = record_files(&path, &record, "atr", AnnotationRule::Optional)?;
    files.retain(|file| file.name != format!("{record}.atr"));
    let (signals, _) = ingest(&record, record.as_str(), "atr", AnnotationRule::Optional, Source::Files(&files))?;
    if signals.sample_n() == 0 {
        return Err(StageError::new("the record has no samples")
            .help("fetch it again: its signal file is empty")
            .record(&record));
    }
    let header_path = &files.first().ok_or_else(|| StageError::new("the record has no header").record(&record))?.path;
    let start = fs::read(header_path).ok().and_then(|bytes| start(&Header::parse(bytes, name).ok()?));
    let info = RecordInfo::of(&signals, header_path, start);
    Ok((signals, info, Vec::new()))
}

/// The same of an EDF, BDF or CSV file, of which only the ECG leads are read, or where none is named as one the voltages, as far
/// as they share the frequency of the first: recorders of sleep have other signals beside them.
fn signals_of_file(input: &Path) -> Result<(Signals, RecordInfo, Vec<String>), StageError> {
    let stem = input.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let record = RecordId::new(&stem)
        .map_err(|error| StageError::new(format!("{}: {error}", input.display())).help("rename the file"))?;
    let header = ingest_files::header(&record, input)?;
    let voltages: Vec<usize> =
        (0..header.signals.len()).filter(|&idx| mv_per_unit(&header.signals[idx].units).is_some()).collect();
    let ecg: Vec<usize> =
        voltages.iter().copied().filter(|&idx| is_ecg_lead(&header.signals[idx].description)).collect();
    let wanted = if ecg.is_empty() { voltages } else { ecg };
    let samples_per_frame = |idx: usize| header.signals[idx].samples_per_frame;
    let is_alike = |idx: &&usize| samples_per_frame(**idx) == samples_per_frame(wanted[0]);
    let leads: Vec<String> = wanted.iter().filter(is_alike).map(|idx| format!("#{}", idx + 1)).collect();
    let left_n = header.signals.len() - leads.len();
    let options = Options { leads, ..Options::default() };
    let loaded = ingest_files::load(&record, record.as_str(), input, &options)?;
    let mut notes = loaded.notes;
    if left_n > 0 {
        notes.push(format!("{left_n} other signals of the file were not read"));
    }
    let info = RecordInfo::of(&loaded.signals, input, start(&loaded.header));
    Ok((loaded.signals, info, notes))
}

impl RecordInfo {
    fn of(signals: &Signals, path: &Path, start: Option<String>) -> Self {
        Self {
            name: signals.record.to_string(),
            path: path.display().to_string(),
            sampling_frequency_hz: signals.sampling_frequency_hz,
            sample_n: signals.sample_n(),
            leads: signals.leads.iter().map(|lead| shown(&lead.name)).collect(),
            lead: String::new(),
            shape_leads: Vec::new(),
            start,
            comments: signals.comments.iter().map(|line| shown(line)).collect(),
        }
    }
}

/// Date and time of the first sample, as far as the header gives them.
fn start(header: &Header) -> Option<String> {
    let parts = [header.base_date.map(|date| date.to_string()), header.base_time.map(|time| time.to_string())];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(" "))
}

/// The record's own spelling of a lead's name.
fn named_lead(signals: &Signals, name: &str) -> Result<String, StageError> {
    let found = signals.leads.iter().find(|lead| lead.name.eq_ignore_ascii_case(name));
    found.map(|lead| lead.name.clone()).ok_or_else(|| {
        let names: Vec<String> = signals.leads.iter().map(|lead| shown(&lead.name)).collect();
        StageError::new(format!("there is no lead `{}`", shown(name)))
            .help(format!("the record has the leads {}; choose one by `--lead`", names.join(", ")))
            .record(&signals.record)
    })
}

/// The features that the model takes, in its order; what there is to say where it gets none.
fn features(
    model: &ModelFile,
    morphology: &morphology::Params,
    signals: &Signals,
    beats: &ecgpipe_sdk::Beats,
) -> Result<(Option<Features>, Option<String>), StageError> {
    let names = &model.signature.feature_names;
    if names.is_empty() {
        return Ok((None, Some("the model judges the shape of each beat alone: it takes no RR intervals".to_owned())));
    }
    let shape_names = morphology::feature_names();
    if let Some(unknown) = names.iter().find(|name| !is_of_rhythm(name) && !shape_names.contains(name)) {
        let note = format!(
            "the model was trained with `{}`, which this version cannot compute: shape alone decided",
            shown(unknown)
        );
        return Ok((None, Some(note)));
    }
    let mut all = rhythm::features(&rhythm::Params { past_n: morphology.past_n, ..rhythm::Params::default() }, beats)?;
    if !names.iter().all(|name| is_of_rhythm(name)) {
        all = morphology::joined(&all, morphology::features(morphology, signals, beats)?)?;
    }
    let place = |name: &String| all.names.iter().position(|known| known == name);
    let columns = names.iter().filter_map(place).map(|place| all.columns[place].clone()).collect();
    Ok((Some(Features { names: names.clone(), columns, ..all }), None))
}

/// Whether a feature is of RR intervals alone.
pub(super) fn is_of_rhythm(name: &str) -> bool {
    NAMES.contains(&name)
}

fn notes_on_record(signals: &Signals, wanted: Option<&str>, preferred: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    let hz = signals.sampling_frequency_hz;
    if !TESTED_HZ.contains(&hz) {
        let (low, high) = (TESTED_HZ.start(), TESTED_HZ.end());
        notes.push(format!(
            "the sampling frequency of {hz} Hz is outside the {low} to {high} Hz that this program was tested with"
        ));
    }
    let is_preferred = |lead: &ecgpipe_sdk::Lead| preferred.iter().any(|name| lead.name.eq_ignore_ascii_case(name));
    if wanted.is_none() && !signals.leads.iter().any(is_preferred) {
        let names = preferred.join(", ");
        notes.push(format!(
            "the record has none of the leads that the model prefers ({names}): its first voltage was read"
        ));
    }
    if wanted
        .is_some_and(|name| !lead::default_preference().first().is_some_and(|first| first.eq_ignore_ascii_case(name)))
    {
        notes.push(
            "the lead was chosen by hand: a model knows the shape of beats in the leads that it was trained on"
                .to_owned(),
        );
    }
    notes
}

fn notes_on_beats(summary: &Summary, lead: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if summary.beat_n == 0 {
        notes.push(format!(
            "no beat was found in lead {lead}: look at the signal, it may be lead-off, noise or asystole"
        ));
    } else if summary.beat_n <= RATE_RR_N {
        notes.push(format!(
            "only {} beats were found: too few to know the record's own rhythm, on which classes depend",
            summary.beat_n
        ));
    }
    let unclassified_n = summary.beat_n - summary.classified_n;
    if unclassified_n > 0 {
        notes.push(format!("{unclassified_n} beats could not be classified: too few valid samples around them"));
    }
    notes
}
