//! Invents a WFDB database: recordings of patients who never lived, with every AAMI class annotated.
//!
//! A pipeline that starts here needs no download and no consent, and exercises every later stage: several sampling
//! frequencies, one and two leads, leads in another order, two signal formats, bundle branch blocks, couplets,
//! bigeminy, pacemakers, noise and drift. The model is in [`patient`] (who), [`timeline`] (when) and [`signal`] (what
//! the recorder saw). It is a means to test and to teach; a classifier that was trained on it knows nothing of people.
//!
//! Invariant: the bytes of a record follow from parameters, record and seed (`tests::same_seed_same_bytes`); which
//! classes a patient has follows from the record alone, so that no seed loses a class
//! (`tests::each_class_is_in_three_patients_or_more`).

mod patient;
mod signal;
mod timeline;

#[cfg(test)]
mod tests;

use ecgpipe_sdk::{
    Context, Each, NamedFile, NoInputs, RawRecord, RecordId, SourceContext, SourceRecord, Stage, StageError, ports,
};
use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, Format, Lead, Record, Samples, WfdbError, encode_annotations,
    encode_record,
};
use rand_xoshiro::{Xoshiro256PlusPlus, rand_core::SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use patient::Patient;
use signal::Disturbances;
use timeline::{Shares, Timeline};

/// So many patients hold each AAMI class three times or more.
pub const ALL_CLASSES_PATIENTS_N: usize = 12;

const MAX_PATIENTS_N: usize = 999;
const DURATION_S: std::ops::RangeInclusive<f64> = 5.0..=86_400.0;
/// As the MIT-BIH Arrhythmia Database: 200 ADC units per mV.
const GAIN_ADU_PER_MV: f64 = 200.0;

/// Invents recordings.
pub struct Synthesise;

/// What to invent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How many patients, 1 to 999, one record each: `p001`, `p002`, ... Patients have one of eight roles in turn, so
    /// that 12 or more patients hold each of the AAMI classes N, S, V, F and Q at least three times. A patient stays
    /// the same when more are asked for.
    #[schemars(range(min = 1, max = 999))]
    pub patients_n: usize,
    /// Length of each recording in seconds, 5 to 86400.
    #[schemars(range(min = 5, max = 86_400))]
    pub duration_s: f64,
    /// Share of the patients with two leads (MLII and V1 or V5), 0 to 1; the others have MLII alone.
    #[schemars(range(min = 0, max = 1))]
    pub two_leads_fraction: f64,
    /// Share of premature atrial beats (`A`, class S) in a patient who has the most of them; four of eight patients
    /// have any. Together with `ventricular_fraction` and `fusion_fraction` at most 0.4.
    pub atrial_fraction: f64,
    /// Share of premature ventricular beats (`V`) in a patient who has the most of them; seven of eight have any.
    pub ventricular_fraction: f64,
    /// Share of fusion beats (`F`) in a patient who has the most of them; four of eight have any.
    pub fusion_fraction: f64,
    /// Share of paced beats (`/`, class Q) in a patient with a pacemaker, 0 to 1; two of eight have one. The others of
    /// their beats are their own.
    #[schemars(range(min = 0, max = 1))]
    pub paced_fraction: f64,
    /// RMS of muscle noise at rest in mV; it doubles to quadruples for some seconds of each minute.
    #[schemars(range(min = 0, max = 2))]
    pub noise_mv: f64,
    /// Amplitude of the mains hum in mV, 60 Hz for every other patient and 50 Hz for the rest.
    #[schemars(range(min = 0, max = 2))]
    pub mains_mv: f64,
    /// Wander of the baseline in mV: breathing and drift.
    #[schemars(range(min = 0, max = 2))]
    pub wander_mv: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            patients_n: 20,
            duration_s: 300.0,
            two_leads_fraction: 0.7,
            atrial_fraction: 0.12,
            ventricular_fraction: 0.12,
            fusion_fraction: 0.07,
            paced_fraction: 0.8,
            noise_mv: 0.015,
            mains_mv: 0.006,
            wander_mv: 0.08,
        }
    }
}

ports! {
    /// What `synthesise` gives.
    pub struct Outputs {
        /// Header, signals and annotations (annotator `atr`) of one invented patient.
        pub raw: Each<RawRecord>,
    }
}

impl Stage for Synthesise {
    const NAME: &'static str = "synthesise";
    const SUMMARY: &'static str =
        "invents patients: an ECGSYN-like model of N, S, V, F and Q beats, written as annotated WFDB records";
    const SEEDED: bool = true;

    type Params = Params;
    type Inputs = NoInputs;
    type Outputs = Outputs;

    fn check(params: &Params) -> Result<(), String> {
        if !(1..=MAX_PATIENTS_N).contains(&params.patients_n) {
            return Err(format!("`patients_n` must be 1 to {MAX_PATIENTS_N}, not {}", params.patients_n));
        }
        if !DURATION_S.contains(&params.duration_s) {
            let (low, high) = (DURATION_S.start(), DURATION_S.end());
            return Err(format!("`duration_s` must be {low} to {high} seconds, not {}", params.duration_s));
        }
        for (name, fraction) in [
            ("two_leads_fraction", params.two_leads_fraction),
            ("atrial_fraction", params.atrial_fraction),
            ("ventricular_fraction", params.ventricular_fraction),
            ("fusion_fraction", params.fusion_fraction),
            ("paced_fraction", params.paced_fraction),
        ] {
            if !(0.0..=1.0).contains(&fraction) {
                return Err(format!("`{name}` must be 0 to 1, not {fraction}"));
            }
        }
        // A sinus beat must fit between any two others.
        let early = params.atrial_fraction + params.ventricular_fraction + params.fusion_fraction;
        if early > 0.4 {
            return Err(format!(
                "`atrial_fraction`, `ventricular_fraction` and `fusion_fraction` must not add up to more than 0.4, not {early}"
            ));
        }
        for (name, mv) in
            [("noise_mv", params.noise_mv), ("mains_mv", params.mains_mv), ("wander_mv", params.wander_mv)]
        {
            if !(0.0..=2.0).contains(&mv) {
                return Err(format!("`{name}` must be 0 to 2 mV, not {mv}"));
            }
        }
        Ok(())
    }

    fn sources(params: &Params, _cx: &SourceContext<'_>) -> Result<Vec<SourceRecord>, StageError> {
        let source = |patient_idx| {
            let record = RecordId::new(&record_name(patient_idx)).map_err(|error| StageError::from_error(&error))?;
            Ok(SourceRecord::new(record, Vec::new()))
        };
        (0..params.patients_n).map(source).collect()
    }

    fn run(params: &Params, _: NoInputs, cx: &Context<'_>) -> Result<Outputs, StageError> {
        let record = cx.record()?;
        let patient_idx = (0..params.patients_n).find(|&idx| record_name(idx) == record.as_str()).ok_or_else(|| {
            let (first, last) = (record_name(0), record_name(params.patients_n - 1));
            StageError::new(format!("there is no such patient; `patients_n` gives {first} to {last}")).record(record)
        })?;
        let files = invent(params, patient_idx, cx.seed()?)
            .map_err(|error| StageError::new(error.to_string()).record(record))?;
        Ok(Outputs { raw: Each::new(RawRecord::new(files)) })
    }
}

fn record_name(patient_idx: usize) -> String {
    format!("p{:03}", patient_idx + 1)
}

/// The WFDB files of one patient.
///
/// # Errors
/// If the record cannot be written as WFDB: a defect of the model.
pub fn invent(params: &Params, patient_idx: usize, seed: u64) -> Result<Vec<NamedFile>, WfdbError> {
    // Streams that do not overlap: another noise leaves the beats where they are.
    let mut body_rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut timeline_rng = body_rng.clone();
    timeline_rng.jump();
    let mut noise_rng = timeline_rng.clone();
    noise_rng.jump();

    let patient = Patient::invent(patient_idx, params.two_leads_fraction, &mut body_rng);
    let shares = Shares {
        atrial: params.atrial_fraction,
        ventricular: params.ventricular_fraction,
        fusion: params.fusion_fraction,
        paced: params.paced_fraction,
    };
    let timeline = timeline::live(&patient, shares, params.duration_s, &mut timeline_rng);
    let disturbances =
        Disturbances { muscle_mv: params.noise_mv, mains_mv: params.mains_mv, wander_mv: params.wander_mv };
    let sample_n = (params.duration_s * patient.sampling_frequency_hz).round() as usize;
    let converter = Converter::of(patient_idx);
    let leads = patient
        .leads
        .iter()
        .map(|lead| {
            let samples_mv = signal::record(&patient, lead, &timeline, sample_n, disturbances, &mut noise_rng);
            Lead {
                name: lead.placement.name().to_owned(),
                units: "mV".to_owned(),
                gain_adu_per_unit: GAIN_ADU_PER_MV,
                baseline_adu: converter.zero_adu.into(),
                samples_per_frame: 1,
                samples: Samples::Narrow(samples_mv.into_iter().map(|mv| converter.convert(mv)).collect()),
            }
        })
        .collect();

    let name = record_name(patient_idx);
    let mut record = Record::new(&name, patient.sampling_frequency_hz, converter.format, leads)?;
    record.header.comments = vec![
        format!("{} {} synthetic", patient.age, patient.sex),
        "invented by the stage `synthesise` of ecgpipe: no such patient exists".to_owned(),
        patient.role.description.to_owned(),
    ];
    for signal in &mut record.header.signals {
        signal.adc_resolution_bits = converter.resolution_bits;
    }
    let mut files = encode_record(&record)?;
    let annotations = annotate(&patient, &timeline, sample_n)?;
    files.push((format!("{name}.atr"), encode_annotations(&annotations)?));
    Ok(files.into_iter().map(|(name, bytes)| NamedFile { name, bytes }).collect())
}

/// An ADC and the file format that it writes.
struct Converter {
    format: Format,
    resolution_bits: u8,
    zero_adu: i16,
}

impl Converter {
    /// Two of three patients are recorded as in the MIT-BIH Arrhythmia Database, the others with one more bit.
    fn of(patient_idx: usize) -> Self {
        if patient_idx % 3 == 2 {
            Self { format: Format::Fixed16, resolution_bits: 12, zero_adu: 0 }
        } else {
            Self { format: Format::Packed212, resolution_bits: 11, zero_adu: 1024 }
        }
    }

    /// Saturates as an ADC does.
    fn convert(&self, mv: f64) -> i16 {
        let half = f64::from(1_u16 << (self.resolution_bits - 1));
        let adu = (mv * GAIN_ADU_PER_MV).round().clamp(-half, half - 1.0);
        adu as i16 + self.zero_adu
    }
}

/// Beats at their fiducial points and changes of rhythm, those that lie in the recording, by time.
fn annotate(patient: &Patient, timeline: &Timeline, sample_n: usize) -> Result<Annotations, WfdbError> {
    let code = |symbol: &str| AnnotationCode::from_symbol(symbol).expect("the model uses symbols of WFDB");
    let sample_idx = |at_s: f64| (at_s * patient.sampling_frequency_hz).round();
    let inside = |idx: &f64| (0.0..sample_n as f64).contains(idx);
    let mut items = Vec::new();
    for rhythm in &timeline.rhythms {
        let Some(idx) = Some(sample_idx(rhythm.at_s)).filter(inside) else { continue };
        let mut item = Annotation::new(idx as u64, AnnotationCode::RHYTHM);
        // The C tools write a NUL behind the text.
        item.aux = format!("{}\0", rhythm.name).into_bytes();
        items.push(item);
    }
    for beat in &timeline.beats {
        let Some(idx) = Some(sample_idx(signal::fiducial_s(patient, beat))).filter(inside) else { continue };
        items.push(Annotation::new(idx as u64, code(beat.symbol)));
    }
    // A stable sort: a rhythm stands before a beat at the same sample.
    items.sort_by_key(|item| item.sample_idx);
    Ok(Annotations { items, ..Annotations::default() })
}
