//! Bad input is refused, and the message says where, what was found and what to do.
//!
//! Each table holds what other readers accept silently, crash on or try to allocate for.

use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, Format, Header, Lead, Record, Samples, Timing, WfdbError,
    decode_annotations, decode_record, encode_annotations, encode_record, read_record,
};

/// Two leads, four frames: `1 2 3 4` and `-1 -2 -3 -4`, with true checksums and initial values.
const HEADER: &str = "r 2 360 4\nr.dat 16 200 11 1024 1 10 0 MLII\nr.dat 16 200 11 1024 -1 -10 0 V5\n";
const DATA: [u8; 16] = [1, 0, 0xff, 0xff, 2, 0, 0xfe, 0xff, 3, 0, 0xfd, 0xff, 4, 0, 0xfc, 0xff];

fn message(header: &str, data: &[u8]) -> String {
    match decode_record(header, "r.hea", |_| Ok(data)) {
        Ok(_) => format!("accepted: {header:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_good_record_is_read() {
    assert!(decode_record(HEADER, "r.hea", |_| Ok(DATA)).is_ok());
}

#[test]
fn headers() {
    let long = format!("{} 1\n", "x".repeat(100) + "!");
    let cases: &[(&str, &str)] = &[
        ("", "r.hea:1:1: record line `` is missing; a header starts with"),
        ("# only a comment\n\n", "r.hea:2:1: record line `` is missing"),
        ("r\n", "r.hea:1:2: number of signals `` is missing; write a count, such as 2"),
        ("../r 1 360 4\nr.dat 16\n", "r.hea:1:1: record name `..` is not a name of letters, digits, _ and -"),
        (&long, "xxxxx...` is not a name of letters"),
        ("r two\n", "r.hea:1:3: number of signals `two` is not a whole number, 0 or more"),
        ("r 2000000000 360 4\n", "r.hea:1:3: number of signals `2000000000` is more than the limit of 4096"),
        ("r -2 360 4\n", "r.hea:1:3: number of signals `-2` is not a whole number"),
        (
            "r 2 0 4\n",
            "r.hea:1:5: sampling frequency `0` is not a frequency in Hz above 0 and up to 1e9; write it as a number, such as 360",
        ),
        ("r 2 NaN 4\n", "r.hea:1:5: sampling frequency `NaN` is not"),
        ("r 2 -360 4\n", "r.hea:1:5: sampling frequency `-360` is not"),
        ("r 2 inf 4\n", "r.hea:1:5: sampling frequency `inf` is not"),
        ("r 2 360/0 4\n", "r.hea:1:9: counter frequency `0` is not"),
        ("r 2 360(x) 4\n", "r.hea:1:9: base counter value `x` is not a finite number"),
        ("r 2 360(1 4\n", "r.hea:1:9: base counter value `1` does not end with `)`"),
        ("r 2 360 -5\n", "r.hea:1:9: number of samples `-5` is not a whole number, 0 or more"),
        (
            "r 2 360 99999999999999999999\n",
            "r.hea:1:9: number of samples `99999999999999999999` is more than the limit",
        ),
        ("r 2 360 4 25:00:00\n", "r.hea:1:11: base time `25:00:00` is not a time of day; write HH:MM:SS"),
        ("r 2 360 4 9:0:0 25.04.1989\n", "r.hea:1:17: base date `25.04.1989` is not a date; write DD/MM/YYYY"),
        ("r 2 360 4 9:0:0 05-04-1989\n", "r.hea:1:17: base date `05-04-1989` is not a date; write DD/MM/YYYY"),
        ("r 2 360 4 2006\n", "r.hea:1:11: base time `2006` is not a time of day"),
        ("r 2 360 4 9:0:0 31/13/1989\n", "r.hea:1:17: base date `31/13/1989` is not a date"),
        ("r 2 360 4 9:0:0 1/1/1989 more\n", "r.hea:1:26: field `more` is one more than the line can have; remove it"),
        (
            "r 2 360 4\nr.dat 16\n",
            "r.hea:1:3: number of signals or segments `2` needs as many signal lines, but only 1 follow",
        ),
        (
            "r 1 360 4\nr.dat 16\nr.dat 16\n",
            "r.hea:3:1: line `r.dat 16` follows after the 1 signal lines that line 1 announces",
        ),
        ("r 1 360 4\nr.dat\n", "r.hea:2:6: signal format `` is missing"),
        (
            "r 1 360 4\nr.dat 213\n",
            "r.hea:2:7: signal format `213` is unknown; WFDB has 0, 8, 16, 24, 32, 61, 80, 160, 212,",
        ),
        ("r 1 360 4\nr.dat 16x0\n", "r.hea:2:10: samples per frame `0` is less than 1"),
        ("r 1 360 4\nr.dat 16x70000\n", "r.hea:2:10: samples per frame `70000` is more than the limit of 10000"),
        ("r 1 360 4\nr.dat 16+5x2\n", "r.hea:2:11: signal format `x2` does not belong here"),
        ("r 1 360 4\nr.dat 16 two\n", "r.hea:2:10: ADC gain `two` is not a finite number"),
        ("r 1 360 4\nr.dat 16 inf\n", "r.hea:2:10: ADC gain `inf` is not a finite number"),
        ("r 1 360 4\nr.dat 16 200(1\n", "r.hea:2:13: baseline `(1` does not end with `)`"),
        ("r 1 360 4\nr.dat 16 200(1.5)\n", "r.hea:2:14: baseline `1.5` is not a whole number of 32 bits"),
        ("r 1 360 4\nr.dat 16 200(1)mV\n", "r.hea:2:16: units `mV` are not `/` and a unit"),
        ("r 1 360 4\nr.dat 16 200 99\n", "r.hea:2:14: ADC resolution `99` is more than the limit of 32"),
        ("r 1 360 4\nr.dat 16 200 12 0 0 70000\n", "r.hea:2:21: checksum `70000` is not a 16-bit number"),
        (
            "r 1 360 4\n../r.dat 16\n",
            "r.hea:2:1: signal file name `../r.dat` leaves the header's folder or is no plain file name; put the file beside its header",
        ),
        ("r 1 360 4\n/etc/passwd 16\n", "r.hea:2:1: signal file name `/etc/passwd` leaves"),
        ("r 1 360 4\n.. 16\n", "r.hea:2:1: signal file name `..` leaves"),
        ("r 1 360 4\na\\b 16\n", "r.hea:2:1: signal file name `a\\\\b` leaves"),
        ("r 1 360 4\na\0b 16\n", "r.hea:2:1: signal file name `a\\0b` leaves"),
        ("r 1 360 4\nC:b 16\n", "r.hea:2:1: signal file name `C:b` leaves"),
        ("r 2 360 4\na 16\na 212\n", "r.hea:1:1: signal file `a` is given two formats or byte offsets"),
        ("r 3 360 4\na 16\nb 16\na 16\n", "r.hea:1:1: signal file `a` is named again after another file"),
        ("r 1 360 4\nr.dat 16:65537\n", "r.hea:2:10: skew `65537` is more than the limit of 65536"),
        ("r/0 1 360 4\n", "r.hea:1:3: number of segments `0` is less than 1"),
        ("r/99999999999 1 360 4\n", "r.hea:1:3: number of segments `99999999999` is more than the limit"),
        (
            "r/2 1 360 4\na 2\n",
            "r.hea:1:3: number of signals or segments `2` needs as many segment lines, but only 1 follow",
        ),
    ];
    for (header, expected) in cases {
        let message = message(header, &DATA);
        assert!(message.contains(expected), "\n  header: {header:?}\nexpected: {expected}\n   found: {message}");
    }
}

#[test]
fn a_header_that_is_no_text() {
    let error = Header::parse(b"r 1\nr.dat 16 \xff\n", "r.hea").expect_err("not UTF-8");
    assert_eq!(
        error.to_string(),
        "r.hea: byte 13 is not UTF-8; a header is plain text: save the file as UTF-8 or ASCII"
    );
    let error = Header::parse(vec![b' '; (16 << 20) + 1], "r.hea").expect_err("too large");
    assert_eq!(
        error.to_string(),
        "r.hea: 16777217 bytes are more than the limit of 16777216; this is not a WFDB header"
    );
}

#[test]
fn signal_files() {
    let mut flipped = DATA;
    flipped[8] ^= 4;
    let mut first = DATA;
    first[0] = 7;
    let mut extra = DATA.to_vec();
    extra.push(0);
    let cases: &[(&str, &[u8], &str)] = &[
        (
            HEADER,
            &flipped,
            "r.dat: record r, signal 0 (MLII): the samples add up to checksum 14, but the header says 10; the file is damaged or belongs to another header: fetch the record again",
        ),
        (
            HEADER,
            &first,
            "r.dat: record r, signal 0 (MLII): the first sample is 7, but the header says 1; the file is damaged",
        ),
        (
            HEADER,
            &DATA[..15],
            "r.dat: record r needs 16 bytes (4 frames of 2 samples in format 16), but the file has 15, 1 too few; fetch the record again, or correct its header",
        ),
        (HEADER, &extra, "the file has 17, 1 too many"),
        (HEADER, &[], "the file has 0, 16 too few"),
        (
            "r 1 360 100000000000\nr.dat 212\n",
            &DATA,
            "needs 150000000000 bytes (100000000000 frames of 1 samples in format 212), but the file has 16",
        ),
        ("r 1 360 1099511627776\nr.dat 16x10000\n", &DATA, "needs 21990232555520000 bytes"),
        (
            "r 1 360 4\nr.dat 16+18446744073709551615\n",
            &DATA,
            "needs 18446744073709551615 bytes (its byte offset alone), but the file has 16",
        ),
        ("r 1 360 4\nr.dat 16+9\n", &DATA, "needs 17 bytes (4 frames of 1 samples in format 16 after 9 other bytes)"),
        (
            "r 2 360\nr.dat 16\nr.dat 16\n",
            &DATA[..15],
            "needs 12 bytes (3 frames of 2 samples in format 16), but the file has 15, 3 too many",
        ),
        (
            "r 2 360\na.dat 16\nb.dat 80\n",
            &DATA,
            "b.dat: record r needs 8 bytes (8 frames of 1 samples in format 80), but the file has 16, 8 too many",
        ),
        ("r 1 360 3\nr.dat 212\n", &DATA[..4], "needs 5 bytes"),
    ];
    for (header, data, expected) in cases {
        let message = message(header, data);
        assert!(message.contains(expected), "\n  header: {header:?}\nexpected: {expected}\n   found: {message}");
    }
}

#[test]
fn a_missing_file_and_a_renamed_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = read_record(folder.path().join("none")).expect_err("no header").to_string();
    assert!(error.contains("none.hea: ") && error.contains("; check the record's path"), "{error}");

    std::fs::write(folder.path().join("r.hea"), HEADER).expect("writable");
    let error = read_record(folder.path().join("r")).expect_err("no signal file").to_string();
    assert!(
        error.contains("r.dat: ") && error.contains("; a record needs its header and all of its signal files"),
        "{error}"
    );

    // A file of the wrong size is not even read: this one would fill the memory.
    let huge = std::fs::File::create(folder.path().join("r.dat")).expect("writable");
    if huge.set_len(7 << 30).is_ok() {
        let error = read_record(folder.path().join("r")).expect_err("too long").to_string();
        assert!(error.contains("the file has 7516192768, 7516192752 too many"), "{error}");
    }
    drop(huge);

    std::fs::write(folder.path().join("r.dat"), DATA).expect("writable");
    assert!(read_record(folder.path().join("r")).is_ok());
    std::fs::rename(folder.path().join("r.hea"), folder.path().join("s.hea")).expect("writable");
    let error = read_record(folder.path().join("s")).expect_err("another name").to_string();
    assert!(
        error.ends_with("s.hea:1:1: record name `r` is not the name of its file, s; give both the same name"),
        "{error}"
    );
}

/// The words of an annotation file.
fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const fn word(code: u16, data: u16) -> u16 {
    code << 10 | data
}

#[test]
fn annotation_files() {
    let (skip, num, sub, chn, aux) = (word(59, 0), word(60, 0), word(61, 0), word(62, 0), word(63, 0));
    let beat = word(1, 10);
    let timing = Timing { sampling_frequency_hz: Some(360.0), sample_n: Some(100) };
    let mut odd = words(&[beat]);
    odd.push(7);
    let note = |text: &str| {
        let mut bytes = words(&[word(22, 0), word(63, text.len() as u16)]);
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    };
    let mut aha = vec![0, b'N'];
    aha.resize(1024, 0xff);
    let cases: &[(Vec<u8>, &str)] = &[
        (
            vec![],
            "r.atr: byte 0: the file ends here and without its end mark (two 0 bytes); it is cut short: fetch it again",
        ),
        (words(&[beat]), "r.atr: byte 2: the file ends here and without its end mark"),
        (odd, "r.atr: byte 2: the file ends within a word and without its end mark"),
        (words(&[skip, 0]), "r.atr: byte 4: the file ends here"),
        (
            words(&[beat, 0, 0]),
            "r.atr: byte 4: 2 bytes follow the end mark; the file is damaged, or two files were joined",
        ),
        (
            words(&[beat, aux | 9, 0x4141, 0]),
            "r.atr: byte 2: AUX needs 10 bytes, but the file has only 4 more; it is cut short",
        ),
        (words(&[beat, aux | 300, 0]), "r.atr: byte 2: AUX gives 300 bytes, but 255 are the most"),
        (words(&[beat, aux, aux, 0]), "r.atr: byte 4: a second AUX for one annotation"),
        (
            words(&[skip, 0xffff, 0xffec, beat, 0]),
            "r.atr: byte 6: the annotation N is at sample -10, before the record starts; the SKIP before it is damaged",
        ),
        (
            words(&[beat, skip, 0xffff, 0xfff0, beat, 0]),
            "r.atr: byte 8: the annotation N at sample 4 follows one at 10; annotations must be in order of time: sort the file with `sortann`",
        ),
        (
            words(&[skip, 0x7fff, 0xffff, beat, 0]),
            "r.atr: byte 6: the annotation N is at sample 2147483657, but the record has 100; the file is damaged or belongs to another record",
        ),
        (words(&[word(1, 100), 0]), "r.atr: byte 0: the annotation N is at sample 100, but the record has 100"),
        (words(&[word(33, 101), 0]), "r.atr: byte 0: the annotation ] is at sample 101, but the record has 100"),
        (words(&[skip | 1, 0, 5, beat, 0]), "r.atr: byte 0: a SKIP word has data 1 where 0 belongs"),
        (words(&[num | 1, 0]), "r.atr: byte 0: word 0xf001 modifies an annotation, but none stands before it"),
        (words(&[beat, sub | 0x155, 0]), "r.atr: byte 2: SUB gives 341, which is not a number of 8 bits"),
        (words(&[beat, num | 0x300, 0]), "r.atr: byte 2: NUM gives 768, which is not a number of 8 bits"),
        (words(&[beat, chn | 256, 0]), "r.atr: byte 2: CHN gives signal 256, but 255 is the highest"),
        (
            words(&[word(50, 1), 0]),
            "r.atr: byte 0: code 50 is not defined (1 to 49 are); this is no annotation file in MIT format",
        ),
        (
            aha,
            "r.atr: byte 0: an annotation starts with 0x00 and has the codes 0x4e (AHA) and 255 (MIT), which are none",
        ),
        (
            [note("## time resolution: 0"), words(&[0])].concat(),
            "r.atr: byte 0: the time resolution `0` is not a frequency above 0",
        ),
        ([note("## time resolution: NaN"), words(&[0])].concat(), "the time resolution `NaN` is not"),
        ([note("## time resolution: 9"), note("## time resolution: 8"), words(&[0])].concat(), "or the second one"),
        (
            [note("## annotation type definitions"), note("99 x"), words(&[0])].concat(),
            "r.atr: byte 34: `99 x` does not define a code",
        ),
        (
            [note("## annotation type definitions"), words(&[beat, 0])].concat(),
            "r.atr: byte 34: an annotation stands before the note `## end of definitions`",
        ),
        (
            [note("## annotation type definitions"), words(&[0])].concat(),
            "r.atr: byte 34: the note `## end of definitions` is missing",
        ),
    ];
    for (bytes, expected) in cases {
        let message = match decode_annotations(bytes, "r.atr", timing) {
            Ok(annotations) => format!("accepted: {annotations:?}"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(expected), "\n   bytes: {bytes:02x?}\nexpected: {expected}\n   found: {message}");
    }
}

#[test]
fn an_episode_may_end_where_the_record_ends() {
    let timing = Timing { sampling_frequency_hz: None, sample_n: Some(100) };
    let annotations = decode_annotations(words(&[word(33, 100), 0]), "r.atr", timing).expect("valid");
    assert_eq!(annotations.items, [Annotation::new(100, AnnotationCode::from_symbol("]").expect("a symbol"))]);
}

#[test]
fn records_that_cannot_be_written() {
    let lead = |samples: Vec<i16>| Lead {
        name: "MLII".to_owned(),
        units: "mV".to_owned(),
        gain_adu_per_unit: 200.0,
        baseline_adu: 0,
        samples_per_frame: 1,
        samples: Samples::Narrow(samples),
    };
    let made = |name, hz, format, leads| Record::new(name, hz, format, leads).and_then(|record| encode_record(&record));
    let silent = Lead { gain_adu_per_unit: 0.0, ..lead(vec![1]) };
    let blank = Lead { units: "m V".to_owned(), ..lead(vec![1]) };
    let cases: Vec<(Result<_, WfdbError>, &str)> = vec![
        (
            made("../r", 360.0, Format::Fixed16, vec![lead(vec![1])]),
            "record ../r: the name must be letters, digits, _ and -",
        ),
        (made("r", f64::NAN, Format::Fixed16, vec![lead(vec![1])]), "record r: the sampling frequency must be above 0"),
        (made("r", 360.0, Format::Fixed16, vec![]), "record r: it needs one lead for each signal"),
        (made("r", 360.0, Format::Fixed16, vec![lead(vec![])]), "record r: it needs one sample or more"),
        (
            made("r", 360.0, Format::Fixed16, vec![lead(vec![1]), lead(vec![1, 2])]),
            "record r, lead 1 (MLII): it must have as many samples",
        ),
        (made("r", 360.0, Format::Fixed16, vec![silent]), "record r, lead 0 (MLII): the gain must be finite and not 0"),
        (made("r", 360.0, Format::Fixed16, vec![blank]), "header of record r: "),
        (
            made("r", 360.0, Format::Packed212, vec![lead(vec![0, 2048])]),
            "record r, lead 0 (MLII): sample 1 is 2048, but format 212 holds -2047 to 2047; choose a wider format",
        ),
        (
            made("r", 360.0, Format::Packed212, vec![lead(vec![-2048])]),
            "record r, lead 0 (MLII): sample 0 is -2048, but format 212 holds",
        ),
        (
            made("r", 360.0, Format::Flac16, vec![lead(vec![1])]),
            "r.hea: writing signal format 516 is not supported; write format 16 or 212",
        ),
    ];
    for (result, expected) in cases {
        let message = result.expect_err(expected).to_string();
        assert!(message.starts_with(expected), "\nexpected: {expected}\n   found: {message}");
    }
}

#[test]
fn annotations_that_cannot_be_written() {
    let beat = |sample_idx| Annotation::new(sample_idx, AnnotationCode::NORMAL);
    let note = |text: &str| Annotation { aux: text.as_bytes().to_vec(), ..Annotation::new(0, AnnotationCode::NOTE) };
    let cases = [
        (
            vec![beat(5), beat(4)],
            "annotation 1 (N at sample 4): it follows one at sample 5; sort the annotations by time",
        ),
        (vec![beat(u64::MAX)], "annotation 0 (N at sample 18446744073709551615): it is later than any record can be"),
        (
            vec![note(&"x".repeat(256))],
            "annotation 0 (\" at sample 0): it has 256 auxiliary bytes, but 255 are the most",
        ),
        (vec![note("## time resolution: 5")], "annotation 0 (\" at sample 0): its text speaks about the whole file"),
    ];
    for (items, expected) in cases {
        let message =
            encode_annotations(&Annotations { items, ..Annotations::default() }).expect_err(expected).to_string();
        assert!(message.starts_with(expected), "\nexpected: {expected}\n   found: {message}");
    }
}
