//! Writes small records with annotations into a folder: `cargo run --example write_record -- FOLDER`.
//!
//! Any WFDB tool reads them, such as wfdb-python:
//!
//! ```python
//! import wfdb
//! print(wfdb.rdrecord("FOLDER/demo212", physical=False).d_signal[:8], wfdb.rdann("FOLDER/demo212", "atr").__dict__)
//! ```

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, CodeDefinition, Format, INVALID_I16, Lead, Record, Samples,
    write_annotations, write_record,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).ok_or("give a folder")?);
    let lead = |name: &str, step: i16| Lead {
        name: name.to_owned(),
        units: "mV".to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 0,
        samples_per_frame: 1,
        samples: Samples::Narrow((0..3001).map(|idx| (idx * step) % 2048).chain([INVALID_I16, -2047]).collect()),
    };
    for (name, format) in [
        ("demo212", Format::Packed212),
        ("demo16", Format::Fixed16),
        ("demo61", Format::BigEndian16),
        ("demo160", Format::Offset16),
        ("demo24", Format::Fixed24),
    ] {
        // One lead of 3,003 samples ends format 212 with two bytes.
        let leads =
            if format == Format::Packed212 { vec![lead("MLII", 7)] } else { vec![lead("MLII", 7), lead("V5", -5)] };
        let mut record = Record::new(name, 360.0, format, leads)?;
        record.header.comments.push("written by ecgpipe-wfdb".to_owned());
        write_record(&folder, &record)?;

        let mut annotations = Annotations { time_resolution_hz: Some(360.0), ..Annotations::default() };
        let custom = CodeDefinition { symbol: "z".to_owned(), description: "a code of my own".to_owned() };
        annotations.definitions.insert(42, custom);
        let rhythm = Annotation { aux: b"(AFIB".to_vec(), ..Annotation::new(0, AnnotationCode::RHYTHM) };
        let beat = Annotation { chan: 1, num: 2, ..Annotation::new(1023, AnnotationCode::NORMAL) };
        let noise = Annotation { subtype: -1, aux: b"even".to_vec(), ..Annotation::new(1024, AnnotationCode::NOISE) };
        let last = Annotation::new(3002, AnnotationCode::new(42).ok_or("42 is a code")?);
        annotations.items.extend([rhythm, beat, noise, last]);
        write_annotations(folder.join(name), "atr", &annotations)?;
    }
    Ok(())
}
