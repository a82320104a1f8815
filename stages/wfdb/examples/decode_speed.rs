//! Measures decoding on one core: `cargo run --release --example decode_speed -- FOLDER_OF_MITDB`.
//!
//! Reads the records into memory, then decodes them several times as they are (format 212) and rewritten in format 16,
//! checksums verified, and prints the best speed of each, in bytes of input.

#![expect(clippy::print_stdout, reason = "an example that measures prints what it measured")]

use std::time::Instant;

use ecgpipe_wfdb::{Format, decode_annotations, decode_record, encode_record, read_record};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).ok_or("give the folder of a WFDB database")?);
    let names = std::fs::read_to_string(folder.join("RECORDS"))?;
    let mut narrow = Vec::new();
    let mut wide = Vec::new();
    let mut annotations = Vec::new();
    for name in names.split_whitespace() {
        let mut record = read_record(folder.join(name))?;
        annotations.push((std::fs::read(folder.join(format!("{name}.atr")))?, record.timing()));
        narrow.push((
            std::fs::read(folder.join(format!("{name}.hea")))?,
            std::fs::read(folder.join(format!("{name}.dat")))?,
        ));
        for signal in &mut record.header.signals {
            signal.format = Format::Fixed16;
        }
        let [(_, header), (_, data)] = <[_; 2]>::try_from(encode_record(&record)?).map_err(|_| "one signal file")?;
        wide.push((header, data));
    }
    for (what, records) in [("212", &narrow), ("16", &wide)] {
        let byte_n: usize = records.iter().map(|(_, data)| data.len()).sum();
        let mut best_s = f64::INFINITY;
        for _ in 0..7 {
            let start = Instant::now();
            for (header, data) in records {
                decode_record(header, "speed.hea", |_| Ok(data))?;
            }
            best_s = best_s.min(start.elapsed().as_secs_f64());
        }
        println!("format {what}: {byte_n} bytes in {:.1} ms, {:.2} GB/s", best_s * 1e3, byte_n as f64 / best_s / 1e9);
    }
    let byte_n: usize = annotations.iter().map(|(bytes, _)| bytes.len()).sum();
    let mut best_s = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        for (bytes, timing) in &annotations {
            decode_annotations(bytes, "speed.atr", *timing)?;
        }
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    println!("annotations: {byte_n} bytes in {:.1} ms, {:.2} GB/s", best_s * 1e3, byte_n as f64 / best_s / 1e9);
    Ok(())
}
