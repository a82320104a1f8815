//! Input of which other readers crash, or which they believe: one test a kind. The tables of `bad_input.rs` have the rest.

use std::path::Path;

use ecgpipe_wfdb::{
    AnnotationCode, DataFile, Header, RecordReader, Timing, WfdbError, decode_annotations, decode_record,
    read_annotations, read_record, salvage_annotations, write_annotations,
};

/// Two leads, four frames: `1 2 3 4` and `-1 -2 -3 -4`, with true checksums and initial values.
const HEADER: &str = "r 2 360 4\nr.dat 16 200 11 1024 1 10 0 MLII\nr.dat 16 200 11 1024 -1 -10 0 V5\n";
const DATA: [u8; 16] = [1, 0, 0xff, 0xff, 2, 0, 0xfe, 0xff, 3, 0, 0xfd, 0xff, 4, 0, 0xfc, 0xff];

/// A record's error starts so.
fn refused(header: impl AsRef<[u8]>, data: &[u8], expected: &str) {
    let error = decode_record(header, "r.hea", |_| Ok(data)).expect_err(expected).to_string();
    assert!(error.starts_with(expected), "\nexpected: {expected}\n   found: {error}");
}

/// A header's error starts so, and no file is asked for.
fn refused_unread(header: impl AsRef<[u8]>, expected: &str) {
    let open = |name: &str| -> Result<DataFile<'static>, WfdbError> { panic!("{name} is asked for") };
    let error = RecordReader::new(header, "r.hea", open).expect_err(expected).to_string();
    assert!(error.starts_with(expected), "\nexpected: {expected}\n   found: {error}");
}

/// An annotation file's error starts so; of its annotations the first are left.
fn refused_annotations(bytes: &[u8], left_n: usize, expected: &str) {
    let timing = Timing { sampling_frequency_hz: Some(360.0), sample_n: Some(1000) };
    let error = decode_annotations(bytes, "r.atr", timing).expect_err(expected).to_string();
    assert!(error.starts_with(expected), "\nexpected: {expected}\n   found: {error}");
    let (left, salvage_error) = salvage_annotations(bytes, "r.atr", timing);
    assert_eq!(left.items.len(), left_n, "{left:?}");
    assert_eq!(salvage_error.expect("it is damaged").to_string(), error);
}

/// A beat at 10, one at 30, and the words behind them.
fn beats_and(words: &[u16]) -> Vec<u8> {
    [&[1 << 10 | 10, 1 << 10 | 20][..], words].concat().iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_flipped_byte() {
    for at in 0..DATA.len() {
        let mut data = DATA;
        data[at] ^= 0x10;
        let error = decode_record(HEADER, "r.hea", |_| Ok(data)).expect_err("one byte is wrong");
        assert!(matches!(error, WfdbError::Checksum { .. } | WfdbError::InitialValue { .. }), "{error}");
    }
}

#[test]
fn extra_bytes() {
    let data = [&DATA[..], &[0, 0]].concat();
    refused(
        HEADER,
        &data,
        "r.dat: record r needs 16 bytes (4 frames of 2 samples in format 16), but the file has 18, 2 too many",
    );
}

#[test]
fn a_truncated_signal_file() {
    refused(
        HEADER,
        &DATA[..14],
        "r.dat: record r needs 16 bytes (4 frames of 2 samples in format 16), but the file has 14, 2 too few",
    );
}

#[test]
fn a_truncated_annotation_file() {
    let aux = 63 << 10;
    refused_annotations(&beats_and(&[])[..3], 1, "r.atr: byte 2: the file ends within a word and without its end mark");
    refused_annotations(
        &beats_and(&[aux | 8, 0x4141]),
        2,
        "r.atr: byte 4: AUX needs 8 bytes, but the file has only 2 more",
    );
}

/// The last beat is complete, so that it is left over; other readers drop it and say nothing.
#[test]
fn a_missing_end_mark() {
    refused_annotations(&beats_and(&[]), 2, "r.atr: byte 4: the file ends here and without its end mark (two 0 bytes)");
    refused_annotations(&[], 0, "r.atr: byte 0: the file ends here");
}

#[test]
fn bytes_behind_the_end_mark() {
    refused_annotations(&beats_and(&[0, 0x0401]), 2, "r.atr: byte 6: 2 bytes follow the end mark");
}

#[test]
fn a_negative_skip() {
    let skip = 59 << 10;
    refused_annotations(
        &beats_and(&[skip, 0xffff, 0xff00, 1 << 10, 0]),
        2,
        "r.atr: byte 10: the annotation N is at sample -226, before the record starts",
    );
    refused_annotations(
        &beats_and(&[skip, 0xffff, 0xfff0, 1 << 10, 0]),
        2,
        "r.atr: byte 10: the annotation N at sample 14 follows one at 30",
    );
}

#[test]
fn a_huge_skip() {
    refused_annotations(
        &beats_and(&[59 << 10, 0x7fff, 0xffff, 1 << 10, 0]),
        2,
        "r.atr: byte 10: the annotation N is at sample 2147483677, but the record has 1000",
    );
    // Many of them: times have 64 bits (wfdb-python issue 55: an overflow), and without a record 2^40 is the end.
    let skips = [59 << 10, 0x7fff, 0xffff].repeat(600);
    let bytes = beats_and(&[&skips[..], &[1 << 10, 0]].concat());
    let error = decode_annotations(bytes, "r.atr", Timing::default()).expect_err("later than any record").to_string();
    assert!(
        error.starts_with(
            "r.atr: byte 3604: the annotation N is at sample 1288490188230, but the record has 1099511627776"
        ),
        "{error}"
    );
}

#[test]
fn auxiliary_text_past_the_end() {
    refused_annotations(
        &beats_and(&[63 << 10 | 255, 0]),
        2,
        "r.atr: byte 4: AUX needs 256 bytes, but the file has only 2 more",
    );
}

#[test]
fn an_annotation_beyond_the_record() {
    refused_annotations(
        &beats_and(&[1 << 10 | 1000, 0]),
        2,
        "r.atr: byte 4: the annotation N is at sample 1030, but the record has 1000; the file is damaged or belongs to another record",
    );
}

#[test]
fn absurd_numbers_of_samples() {
    refused("r 1 360 100000000000\nr.dat 16\n", &DATA, "r.dat: record r needs 200000000000 bytes");
    refused("r 1 360 1099511627776\nr.dat 32x10000\n", &DATA, "r.dat: record r needs 43980465111040000 bytes");
    refused_unread(
        "r 1 360 99999999999999999999\nr.dat 16\n",
        "r.hea:1:9: number of samples `99999999999999999999` is more than the limit",
    );
    refused(
        "r 1 360 1099511627776\n~ 0\n",
        &[],
        "record r: 1099511627776 samples would take more than 67108864 bytes of memory",
    );
}

#[test]
fn absurd_samples_per_frame() {
    refused_unread(
        "r 1 360 4\nr.dat 16x70000\n",
        "r.hea:2:10: samples per frame `70000` is more than the limit of 10000",
    );
}

#[test]
fn absurd_numbers_of_signals() {
    refused_unread("r 2000000000 360 4\n", "r.hea:1:3: number of signals `2000000000` is more than the limit of 4096");
    refused_unread(
        "r 4096 360 4\nr.dat 16\n",
        "r.hea:1:3: number of signals or segments `4096` needs as many signal lines, but only 1 follow",
    );
}

#[test]
fn absurd_segments() {
    refused_unread(
        "r/2000000000 1 360 4\n",
        "r.hea:1:3: number of segments `2000000000` is more than the limit of 1048576",
    );
    let lengths = "r/3 1 360\n~ 1099511627776\n~ 1099511627776\na 1\n";
    let open = |name: &str| Ok(DataFile::in_memory(if name == "a.hea" { "a 1 360 1\na.dat 16\n" } else { "12" }));
    let mut reader = RecordReader::new(lengths, "r.hea", open).expect("only a claim");
    let error = reader.read(0..reader.sample_n()).expect_err("a gap costs no bytes");
    assert!(matches!(error, WfdbError::OverBudget { .. }), "{error}");
}

#[test]
fn sampling_frequencies_that_cannot_be() {
    for hz in ["0", "NaN", "-360", "inf", "1e10", "0x10"] {
        refused_unread(
            format!("r 1 {hz} 4\nr.dat 16\n"),
            &format!("r.hea:1:5: sampling frequency `{hz}` is not a frequency"),
        );
    }
}

#[test]
fn a_negative_number_of_samples() {
    refused_unread("r 1 360 -5\nr.dat 16\n", "r.hea:1:9: number of samples `-5` is not a whole number, 0 or more");
}

#[test]
fn integers_that_overflow() {
    refused_unread(
        "r 1 360 4\nr.dat 99999999999999999999\n",
        "r.hea:2:7: signal format `99999999999999999999` is more than",
    );
    refused_unread(
        "r 1 360 4\nr.dat 16 200(99999999999)\n",
        "r.hea:2:14: baseline `99999999999` is not a whole number of 32 bits",
    );
    refused_unread(
        "r 1 360 4\nr.dat 16 200 12 0 0 0 99999999999\n",
        "r.hea:2:23: block size `99999999999` is not a whole number",
    );
    refused("r 1 360 4\nr.dat 16+18446744073709551615\n", &DATA, "r.dat: record r needs 18446744073709551615 bytes");
    // Differences that leave 32 bits, upwards and to the code of an invalid sample.
    for (start, difference) in [(i32::MAX, 1_u8), (-i32::MAX, 0xff)] {
        let header = format!("r 1 360 1\nr.dat 8 200 12 0 {start}\n");
        refused(header, &[difference], "r.dat: record r, byte 0: the differences add up to more than 32 bits hold");
    }
}

#[test]
fn gains_that_are_no_numbers() {
    for gain in ["NaN", "inf", "-inf", "1e999"] {
        refused_unread(
            format!("r 1 360 4\nr.dat 16 {gain}\n"),
            &format!("r.hea:2:10: ADC gain `{gain}` is not a finite number"),
        );
    }
}

#[test]
fn paths_that_leave_the_folder() {
    for name in ["../r.dat", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:b", "..\\r.dat"] {
        let shown = name.escape_debug();
        refused_unread(
            format!("r 1 360 4\n{name} 16\n"),
            &format!("r.hea:2:1: signal file name `{shown}` leaves the header's folder"),
        );
    }
    for name in ["../r", "/r", "a/b", "..", "a.b"] {
        refused_unread(format!("r/1 1 360 4\n{name} 4\n"), "r.hea:2:1: segment name");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let error = read_annotations(folder.path().join("r"), "../atr", Timing::default()).expect_err("a path").to_string();
    assert!(error.starts_with("annotator `../atr`: the name must be letters"), "{error}");
    let error = DataFile::open_beside(&folder.path().join("r.hea"), "../r.dat").expect_err("a path").to_string();
    assert!(error.contains("it leads to ../r.dat, outside of the record's folder"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_folder() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().expect("a folder");
    let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
    for folder in [&inside, &outside] {
        std::fs::create_dir(folder).expect("writable");
    }
    std::fs::write(outside.join("r.dat"), DATA).expect("writable");
    std::fs::write(inside.join("r.hea"), HEADER).expect("writable");
    symlink(outside.join("r.dat"), inside.join("r.dat")).expect("a file system with links");
    let error = read_record(inside.join("r")).expect_err("the link leaves").to_string();
    let real = outside.canonicalize().expect("it is there");
    let expected = format!("it leads to {}, outside of the record's folder", real.join("r.dat").display());
    assert!(error.contains(&expected), "{error}");

    // Within the folder a link is as good as a file.
    std::fs::remove_file(inside.join("r.dat")).expect("writable");
    std::fs::write(inside.join("other.dat"), DATA).expect("writable");
    symlink("other.dat", inside.join("r.dat")).expect("a file system with links");
    read_record(inside.join("r")).expect("the link stays");

    // A folder of links to a record that lies together elsewhere, and a link to a folder.
    let links = root.path().join("links");
    std::fs::create_dir(&links).expect("writable");
    std::fs::write(outside.join("r.hea"), HEADER).expect("writable");
    for name in ["r.hea", "r.dat"] {
        symlink(outside.join(name), links.join(name)).expect("a file system with links");
    }
    read_record(links.join("r")).expect("header and signals are in one folder");
    symlink(&outside, root.path().join("folder")).expect("a file system with links");
    read_record(root.path().join("folder/r")).expect("the folder is a link, its files are not");

    // Links to nothing and in circles.
    for (name, target) in [("none", "nowhere"), ("circle", "circle.dat")] {
        std::fs::write(inside.join(format!("{name}.hea")), format!("{name} 1 360 4\n{name}.dat 16\n"))
            .expect("writable");
        symlink(target, inside.join(format!("{name}.dat"))).expect("a file system with links");
        assert!(matches!(read_record(inside.join(name)), Err(WfdbError::Io { .. })));
    }
}

#[cfg(unix)]
#[test]
fn devices_and_folders_are_no_signal_files() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("r.hea"), HEADER).expect("writable");
    std::fs::create_dir(folder.path().join("r.dat")).expect("writable");
    let error = read_record(folder.path().join("r")).expect_err("a folder").to_string();
    assert!(error.contains("r.dat: it is no regular file; "), "{error}");
    // A device would never end.
    let error = DataFile::open(Path::new("/dev/zero")).expect_err("a device").to_string();
    assert!(error.contains("/dev/zero: it is no regular file; "), "{error}");
}

#[test]
fn nul_bytes() {
    refused_unread("r\0 1 360 4\n", "r.hea:1:1: record name `r\\0` is not a name");
    refused_unread("r 1 360 4\na\0b 16\n", "r.hea:2:1: signal file name `a\\0b` leaves");
    refused_unread("\0".repeat(100), "r.hea:1:1: record name `\\0\\0");
    // In a description it harms nothing.
    assert!(Header::parse("r 1 360 4\nr.dat 16 200 12 0 0 0 0 a\0b\n", "r.hea").is_ok());
}

#[test]
fn text_that_is_not_utf_8() {
    refused_unread(b"r 1 360 4\nr.dat 16 200/\xb5V\n", "r.hea: byte 23 is not UTF-8; a header is plain text");
    refused_unread(b"\xff\xfer\0", "r.hea: byte 0 is not UTF-8");
    // In an annotation's text it is replaced where it is shown, and kept where it is stored.
    let bytes = beats_and(&[63 << 10 | 2, 0x41ff, 0]);
    let annotations = decode_annotations(bytes, "r.atr", Timing::default()).expect("valid");
    assert_eq!(annotations.items[1].aux, [0xff, 0x41]);
    assert_eq!(annotations.items[1].aux_text(), "\u{fffd}A");
}

#[test]
fn messages_do_not_send_control_codes_or_floods() {
    let error = Header::parse(format!("\x1b[31m{}\n", "x".repeat(10_000)), "r.hea").expect_err("no name").to_string();
    assert!(error.len() < 200 && !error.contains('\x1b'), "{error}");
}

#[test]
fn a_file_that_is_no_record_at_all() {
    refused_unread("<!DOCTYPE html>\n<html>\n", "r.hea:1:1: record name `<!DOCTYPE` is not a name");
    refused(
        "r 1 360 4\nr.dat 516\n",
        &[0; 100],
        "r.dat: record r, byte 0: it is no FLAC stream, which starts with fLaC",
    );
    refused(
        "r 1 360 4\nr.dat 516\n",
        b"fLaC",
        "r.dat: record r, byte 0: a FLAC stream needs 42 bytes or more, but the file has 4",
    );
}

/// A FLAC stream of `flacx2` of `make_fixtures.py`, and what can be wrong with it.
#[test]
fn damaged_flac_streams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let header = std::fs::read_to_string(folder.join("flacx2.hea")).expect("the fixture is there");
    let data = std::fs::read(folder.join("flacx2.dat")).expect("the fixture is there");
    assert!(decode_record(&header, "flacx2.hea", |_| Ok(&data)).is_ok());
    // The samples of each block are behind a check value; what stands before is metadata.
    let first_block = data.windows(2).position(|pair| pair == [0xff, 0xf8]).expect("a block");
    for at in first_block..data.len() {
        let mut damaged = data.clone();
        damaged[at] ^= 1;
        let error = decode_record(&header, "flacx2.hea", |_| Ok(&damaged)).expect_err("a flipped bit");
        assert!(matches!(error, WfdbError::SignalData { .. }), "byte {at}: {error}");
    }
    for end in 0..data.len() {
        let error = decode_record(&header, "flacx2.hea", |_| Ok(&data[..end])).expect_err("cut short");
        assert!(matches!(error, WfdbError::SignalData { .. }), "{end} bytes: {error}");
    }
    let refuse = |header: &str, data: &[u8], expected: &str| {
        let error = decode_record(header, "flacx2.hea", |_| Ok(data)).expect_err(expected).to_string();
        assert!(error.contains(expected), "\nexpected: {expected}\n   found: {error}");
    };
    refuse(&header, &[&data[..], &[0]].concat(), "bytes follow the last FLAC frame that the header needs");
    refuse(
        &header.replace(" 516", " 508"),
        &data,
        "the FLAC stream has 2 channels of 16 bits, but the header 2 signals of format 508",
    );
    refuse(
        &header.replacen(" 516x2", " 516x4", 1),
        &data,
        "signals of one FLAC stream must have equally many samples a frame",
    );
    refuse(
        &header.replace(" 20\n", " 21\n"),
        &data,
        "byte 21: the FLAC stream has 40 samples of each signal, but 21 frames of 2 after an offset of 0 need 42",
    );
}

#[test]
fn a_record_that_is_still_being_written() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("r.hea"), HEADER).expect("writable");
    std::fs::write(folder.path().join("r.dat"), DATA).expect("writable");
    let mut reader = RecordReader::open(folder.path().join("r")).expect("valid");
    std::fs::write(folder.path().join("r.dat"), &DATA[..8]).expect("writable");
    let error = reader.read(0..4).expect_err("it shrank").to_string();
    assert!(error.contains("r.dat: ") && error.contains("whether the file is still being written"), "{error}");
}

#[test]
fn writing_never_follows_a_link_or_leaves_a_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r");
    let beat = ecgpipe_wfdb::Annotation::new(5, AnnotationCode::NORMAL);
    let annotations = ecgpipe_wfdb::Annotations { items: vec![beat], ..Default::default() };
    #[cfg(unix)]
    {
        std::fs::write(folder.path().join("victim"), "untouched").expect("writable");
        std::os::unix::fs::symlink("victim", folder.path().join("r.atr")).expect("a file system with links");
    }
    write_annotations(&path, "atr", &annotations).expect("the link is replaced");
    #[cfg(unix)]
    assert_eq!(std::fs::read_to_string(folder.path().join("victim")).expect("it is there"), "untouched");
    assert_eq!(read_annotations(&path, "atr", Timing::default()).expect("valid"), annotations);
    let error =
        write_annotations(folder.path().join("none/r"), "atr", &annotations).expect_err("no folder").to_string();
    assert!(error.contains("check that the folder exists and can be written to"), "{error}");
    let left = std::fs::read_dir(folder.path())
        .expect("readable")
        .filter(|entry| entry.as_ref().expect("readable").file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(left.count(), 0);
}
