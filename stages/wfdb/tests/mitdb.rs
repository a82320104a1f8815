//! All 48 records of the MIT-BIH Arrhythmia Database 1.0.0, if `ECGPIPE_DATA` names a folder with `mitdb/` in it.

use std::io::Write as _;
use std::path::PathBuf;

use ecgpipe_wfdb::{
    AnnotationCode, Annotations, Record, Timing, decode_annotations, encode_annotations, encode_record,
    read_annotations, read_record,
};

/// The database's folder; `None`, with a line that says so, if it is not there.
fn mitdb() -> Option<PathBuf> {
    match std::env::var_os("ECGPIPE_DATA") {
        Some(folder) if !folder.is_empty() => Some(PathBuf::from(folder).join("mitdb")),
        _ => {
            // Not `eprintln!`, which the test harness swallows.
            writeln!(std::io::stderr(), "skipped: set ECGPIPE_DATA to the folder that holds mitdb/").expect("stderr");
            None
        }
    }
}

fn records(folder: &std::path::Path) -> Vec<(PathBuf, Record, Annotations)> {
    let names = std::fs::read_to_string(folder.join("RECORDS")).expect("ECGPIPE_DATA/mitdb/RECORDS can be read");
    let read = |name: &str| {
        let path = folder.join(name);
        let record = read_record(&path).expect("mitdb is valid");
        let annotations = read_annotations(&path, "atr", record.timing()).expect("mitdb is valid");
        (path, record, annotations)
    };
    names.split_whitespace().map(read).collect()
}

#[test]
fn reads_and_writes_every_record() {
    let Some(folder) = mitdb() else { return };
    let records = records(&folder);
    assert_eq!(records.len(), 48);
    let mut beat_n = 0;
    let mut qrs_n = 0;
    for (path, record, annotations) in &records {
        // Checksums and initial values were verified by the reader.
        let name = record.name();
        assert_eq!(
            (record.leads.len(), record.sample_n, record.sampling_frequency_hz()),
            (2, 650_000, 360.0),
            "{name}"
        );
        assert!(record.header.signals.iter().all(|signal| signal.checksum.is_some()), "{name}");
        beat_n += annotations.items.iter().filter(|annotation| annotation.code.is_beat()).count();
        qrs_n += annotations.items.iter().filter(|annotation| annotation.code.is_qrs()).count();

        let atr = std::fs::read(path.with_extension("atr")).expect("it was read before");
        assert_eq!(encode_annotations(annotations).expect("it can be written"), atr, "{name}.atr");
        assert_eq!(&decode_annotations(&atr, name, Timing::default()).expect("valid"), annotations);
        let files = encode_record(record).expect("it can be written");
        assert_eq!(files[1].1, std::fs::read(path.with_extension("dat")).expect("it was read before"), "{name}.dat");
    }
    // The usual total, and with the 472 flutter waves of record 207.
    assert_eq!((beat_n, qrs_n), (109_494, 109_966));
}

/// Facts of wfdb-python 4.3.1: `r = wfdb.rdrecord("mitdb/114", physical=False); print(r.sig_name, r.d_signal[-3:],
/// wfdb.rdrecord("mitdb/114").p_signal[0])` and `a = wfdb.rdann("mitdb/207", "atr"); print(len(a.sample),
/// a.sample[:3], a.symbol[:3], a.aux_note[0], a.subtype[:3], collections.Counter(a.symbol)["!"])`.
#[test]
fn agrees_with_wfdb_python() {
    let Some(folder) = mitdb() else { return };
    let record = read_record(folder.join("114")).expect("mitdb is valid");
    assert_eq!(record.leads.iter().map(|lead| lead.name.as_str()).collect::<Vec<_>>(), ["V5", "MLII"]);
    let last: Vec<Vec<i32>> = record.leads.iter().map(|lead| lead.samples.iter().skip(649_997).collect()).collect();
    assert_eq!(last, LAST_OF_114);
    assert_eq!([record.leads[0].physical(0), record.leads[1].physical(0)], FIRST_OF_114_MV);

    let timing = record.timing();
    let annotations = read_annotations(folder.join("207"), "atr", timing).expect("mitdb is valid");
    assert_eq!(annotations.items.len(), ANNOTATION_N_OF_207);
    let first: Vec<_> = annotations.items[..3]
        .iter()
        .map(|annotation| (annotation.sample_idx, annotation.code.symbol(), annotation.subtype))
        .collect();
    assert_eq!(first, FIRST_OF_207);
    assert_eq!(annotations.items[0].aux_text(), "(B");
    let flutter_n = annotations.items.iter().filter(|item| item.code == AnnotationCode::FLUTTER_WAVE).count();
    assert_eq!(flutter_n, 472);
}

const LAST_OF_114: [[i32; 3]; 2] = [[951, 950, 1024], [981, 979, 1024]];
const FIRST_OF_114_MV: [f32; 2] = [-0.045, 0.015];
const ANNOTATION_N_OF_207: usize = 2385;
const FIRST_OF_207: [(u64, &str, i8); 3] = [(9, "+", 0), (50, "R", 0), (312, "V", 0)];
