//! Measures reading on one core: `cargo run --release --example decode_speed -- FOLDER_OF_MITDB`.
//!
//! Decodes the records of a database from memory several times, as they are (format 212) and rewritten in format 16,
//! checksums verified: whole, and in chunks of 10 s. Then reads them from disk, which is in memory by then. Prints the
//! best CPU time of each, and the speed in bytes of input.

#![expect(clippy::print_stdout, reason = "an example that measures prints what it measured")]

use std::path::PathBuf;

use ecgpipe_wfdb::{
    Chunk, DataFile, Format, RecordReader, WfdbError, decode_annotations, decode_record, encode_record, read_record,
};

const CHUNK_FRAME_N: usize = 3600;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("give the folder of a WFDB database")?);
    let names = std::fs::read_to_string(folder.join("RECORDS"))?;
    let paths: Vec<PathBuf> = names.split_whitespace().map(|name| folder.join(name)).collect();
    let mut narrow = Vec::new();
    let mut wide = Vec::new();
    let mut annotations = Vec::new();
    for path in &paths {
        let mut record = read_record(path)?;
        annotations.push((std::fs::read(path.with_extension("atr"))?, record.timing()));
        narrow.push((std::fs::read(path.with_extension("hea"))?, std::fs::read(path.with_extension("dat"))?));
        for signal in &mut record.header.signals {
            signal.format = Format::Fixed16;
        }
        let [(_, header), (_, data)] = <[_; 2]>::try_from(encode_record(&record)?).map_err(|_| "one signal file")?;
        wide.push((header, data));
    }
    for (format, records) in [("212", &narrow), ("16", &wide)] {
        let byte_n = records.iter().map(|(_, data)| data.len()).sum();
        measure(&format!("format {format}, whole"), byte_n, || {
            records.iter().try_for_each(|(header, data)| decode_record(header, "speed.hea", |_| Ok(data)).map(drop))
        })?;
        let mut chunk = Chunk::new();
        measure(&format!("format {format}, in chunks"), byte_n, || {
            records.iter().try_for_each(|(header, data)| {
                let mut reader = RecordReader::new(header, "speed.hea", |_| Ok(DataFile::in_memory(data)))?;
                drain(&mut reader, &mut chunk)
            })
        })?;
    }
    let byte_n = narrow.iter().map(|(_, data)| data.len()).sum();
    measure("from disk, whole", byte_n, || paths.iter().try_for_each(|path| read_record(path).map(drop)))?;
    let mut chunk = Chunk::new();
    measure("from disk, in chunks", byte_n, || {
        paths.iter().try_for_each(|path| drain(&mut RecordReader::open(path)?, &mut chunk))
    })?;
    let byte_n = annotations.iter().map(|(bytes, _)| bytes.len()).sum();
    measure("annotations", byte_n, || {
        annotations.iter().try_for_each(|(bytes, timing)| decode_annotations(bytes, "speed.atr", *timing).map(drop))
    })?;
    Ok(())
}

fn drain(reader: &mut RecordReader<'_>, chunk: &mut Chunk) -> Result<(), WfdbError> {
    let mut chunks = reader.chunks(CHUNK_FRAME_N);
    while chunks.next_into(chunk)? {}
    Ok(())
}

/// Runs work several times and prints the best time.
fn measure(what: &str, byte_n: usize, mut work: impl FnMut() -> Result<(), WfdbError>) -> Result<(), WfdbError> {
    let mut best_s = f64::INFINITY;
    for _ in 0..9 {
        let start_s = cpu_s();
        work()?;
        best_s = best_s.min(cpu_s() - start_s);
    }
    println!("{what}: {byte_n} bytes in {:.1} ms, {:.2} GB/s", best_s * 1e3, byte_n as f64 / best_s / 1e9);
    Ok(())
}

/// CPU time of this thread so far.
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
