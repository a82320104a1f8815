//! Hostile and damaged files: each gives an error that says where and what to do, never a panic or a large allocation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ecgpipe_formats::{Axes, Options, Recording};
use expect_test::expect;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// A file in a folder of its own.
struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Why a file of these bytes is refused, without its folder.
    #[track_caller]
    fn refusal(&self, name: &str, bytes: &[u8], options: &Options) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        let error = Recording::open(&path, options).expect_err("the file is wrong");
        error.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// `bytes` with other ones from `at` on.
fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn refuses_edf_that_breaks_its_format() {
    let scratch = Scratch::new();
    let mut table = String::new();
    let mut check = |bytes: Vec<u8>| {
        table += &format!(
            "{}
",
            scratch.refusal("x.edf", &bytes, &Options::default())
        );
    };
    // plain.edf has one signal, so that its fields begin at 256; plus.edf has four.
    let plain = || fixture("plain.edf");
    check(Vec::new());
    check(plain()[..300].to_vec());
    check(with(plain(), 0, b"1"));
    check(with(plain(), 252, b"9999"));
    check(with(plain(), 252, b"0   "));
    check(with(plain(), 252, b"-1  "));
    check(with(plain(), 184, b"256 "));
    check(with(plain(), 10, b"\x07"));
    check(with(plain(), 168, b"31.13.99"));
    check(with(plain(), 168, b"02-03-02"));
    check(with(plain(), 176, b"24.00.00"));
    check(with(plain(), 236, b"99999999"));
    check(with(plain(), 236, b"2 "));
    check(with(plain(), 236, b"-2"));
    check(with(plain(), 244, b"0"));
    check(with(plain(), 244, b"-1"));
    check(with(plain(), 244, b"nan"));
    check(with(plain(), 244, b"0,5"));
    let signal = |field_at: usize| 256 + field_at;
    check(with(plain(), signal(104), b"5       "));
    check(with(plain(), signal(120), b"2000    "));
    check(with(plain(), signal(128), b"40000"));
    check(with(plain(), signal(120), b"99999999"));
    check(with(plain(), signal(216), b"99999999"));
    check(with(plain(), signal(216), b"0       "));
    check(with(plain(), 192, b"EDF+C"));
    check(with(fixture("plus.edf"), 192, b"     "));
    check(plain()[..2011].to_vec());
    expect![[r#"
        x.edf: the header asks for 256 bytes (its fixed part alone), but the file has 0; this is another format, or it is cut short: fetch it again
        x.edf: the header asks for 512 bytes (its part on 1 signals alone), but the file has 300; this is another format, or it is cut short: fetch it again
        x.edf: byte 0: version `1       ` is neither that of EDF (0 and seven blanks) nor that of BDF; this is another format, or it is damaged
        x.edf: byte 252: number of signals `9999` is more than the limit of 4096; split the file
        x.edf: byte 252: number of signals `0` is not a whole number of 1 or more; the header is damaged
        x.edf: byte 252: number of signals `-1` is not a whole number of 1 or more; the header is damaged
        x.edf: byte 184: bytes in the header `256     ` should be 512 for 1 signals; the header is damaged
        x.edf: byte 8: patient `P-\u{7} X X X                                                   ...` has control characters; the header is damaged
        x.edf: byte 168: start date `31.13.99` is not a date dd.mm.yy, such as 25.04.89; correct it
        x.edf: byte 168: start date `02-03-02` is not a date dd.mm.yy, such as 25.04.89; correct it
        x.edf: byte 176: start time `24.00.00` is not a time hh.mm.ss, such as 09.30.00; correct it
        x.edf: the header asks for 50000000012 bytes (99999999 data records of 500 bytes after 512 bytes of header), but the file has 2012; it is cut short: fetch it again
        x.edf: the header asks for 1512 bytes (2 data records of 500 bytes after 512 bytes of header), but the file has 2012; it has more than its header knows of: fetch it again
        x.edf: byte 236: number of data records `-2` is not a whole number of 1 or more; the header is damaged
        x.edf: byte 244: duration of a data record `0` gives a sampling frequency of inf Hz, outside 0 to 1e9; correct the field
        x.edf: byte 244: duration of a data record `-1` is negative; the header is damaged
        x.edf: byte 244: duration of a data record `nan` is not a number; the header is damaged
        x.edf: byte 244: duration of a data record `0,5` has a comma; the format wants a point before decimals: correct it
        x.edf: byte 360: range of signal ECG II `5 to 5` is empty, so that samples mean nothing: correct the header, or leave this signal out by naming the leads to read
        x.edf: byte 360: range of signal ECG II `2000 to 2000` must rise: the header is damaged, or leave this signal out by naming the leads to read
        x.edf: byte 360: range of signal ECG II `-2000 to 40000` does not fit in the samples of the file; the header is damaged
        x.edf: byte 360: range of signal ECG II `99999999 to 2000` must rise: the header is damaged, or leave this signal out by naming the leads to read
        x.edf: a data record of 199999998 bytes is more than the limit of 67108864; write it with records of a second or so
        x.edf: byte 472: samples in each data record of signal 1 `0` is not a whole number of 1 or more; the header is damaged
        x.edf: byte 192: reserved field `EDF+C` promises a signal `EDF Annotations` with the times of the data records, but there is none; the header is damaged
        x.edf: byte 192: reserved field `` should be EDF+C or EDF+D (BDF+C, BDF+D) in a file with the signal `EDF Annotations`; correct the field
        x.edf: the header asks for 2012 bytes (3 data records of 500 bytes after 512 bytes of header), but the file has 2011; it is cut short: fetch it again
    "#]].assert_eq(&table);
}

#[test]
fn refuses_annotations_that_break_their_format() {
    let scratch = Scratch::new();
    let mut table = String::new();
    let mut check = |bytes: Vec<u8>| {
        table += &format!(
            "{}
",
            scratch.refusal("x.edf", &bytes, &Options::default())
        );
    };
    let plus = || fixture("plus.edf");
    // Behind 1280 bytes of header and 550 samples.
    let tal_at = 1280 + 2 * 550;
    assert_eq!(&plus()[tal_at..tal_at + 5], b"+0\x14\x14\0");
    check(with(plus(), tal_at, b"x"));
    check(with(plus(), tal_at, b"+7"));
    check(with(plus(), tal_at, b"-1"));
    check(with(plus(), tal_at + 1214, b"+9"));
    check(with(plus(), tal_at + 2, b"\x14x"));
    // A record a hundred million seconds away must not become an invalid sample for each moment in between.
    let mut far = fixture("gaps.edf");
    let last_at = 1280 + 3 * 1214 + 1100;
    far[last_at..last_at + 114].fill(0);
    let far = with(far, last_at, b"+99999999\x14\x14\0");
    check(far);
    expect![[r#"
        x.edf: byte 2380: annotations of data record 1 (signal 4) `x0\u{14}\u{14}\0+0.5000\u{14}lights ` does not begin with an onset, such as +12.5; the file is damaged
        x.edf: byte 3594: annotations of data record 2 (signal 4) `+1` is before the end of the data record before it, at 8 s; the file is damaged
        x.edf: byte 2380: annotations of data record 1 (signal 4) `-1` is before the start time of the file; the file is damaged
        x.edf: byte 3594: annotations of data record 2 (signal 4) `+9` is not 1 s, where the record before it ends, although the header says that there are no gaps (EDF+C); if there are, write EDF+D
        x.edf: byte 2380: annotations of data record 1 (signal 4) `+0\u{14}x\0+0.5000\u{14}lights ` is a list that does not end with the byte 0x14; the file is damaged
        x.edf: the gaps between data records would be 4999999775 invalid samples beside 200 recorded ones, more than the limit of 1545201; split the file at its gaps
    "#]].assert_eq(&table);
}

#[test]
fn refuses_tables_that_cannot_be_understood() {
    let scratch = Scratch::new();
    let at_360 = Options { sampling_frequency_hz: Some(360.0), ..Options::default() };
    let mut table = String::new();
    let mut check = |text: &[u8], options: &Options| table += &format!("{}\n", scratch.refusal("x.csv", text, options));
    check(b"", &at_360);
    check(b"# only\n", &at_360);
    check(b"I (mV)\n", &at_360);
    check(b"I,II\n1,2\n3\n", &at_360);
    check(b"I (mV)\tII\n0,5\t1\n", &at_360);
    check(b"I (mV),II\n0,05\n", &at_360);
    check(b"I (mV)\n1\ninf\n", &at_360);
    check(b"I (mV)\n1\nx\x1b[31m\n", &at_360);
    check(b"I (mV)\n1\n\n2\n", &at_360);
    check(b"I (mV)\n1\n2\xff\n", &at_360);
    check(b"\xff\xfeI\0\n\0", &at_360);
    check(b"I (mV)\n1\n", &Options::default());
    check(b"time (h),I\n1,2\n", &Options::default());
    check(b"time,time,I\n1,1,2\n", &Options::default());
    check(b"time\n1\n", &Options::default());
    check(b"time,I\nx,2\n", &Options::default());
    check(b"time,I\n0,2\n1,2\n2,2\n9,2\n", &Options::default());
    check(b"sample,I\n0,2\n2,2\n", &at_360);
    check(b"time,I\n0.00,2\n0.01,2\n0.02,3\n", &at_360);
    check(b"I (m V)\n1\n", &at_360);
    let rising: String = (0..30).map(|idx| format!("{idx},5\n")).collect();
    check(rising.as_bytes(), &at_360);
    let wide = format!("{}1\n", "1,".repeat(5000));
    check(wide.as_bytes(), &at_360);
    check(&[b'1'; 2 << 20], &at_360);
    let huge_gain = Options { gain_adu_per_unit: Some(1e12), ..at_360.clone() };
    check(b"I (mV)\n1\n", &huge_gain);
    expect![[r#"
        x.csv:1:1: the file has no lines; it needs one a sample
        x.csv:1:1: the file has no lines; it needs one a sample
        x.csv: the file has 0 samples; a record has 1 to 1099511627776
        x.csv:3:1: the line has 1 fields, but the first one has 2 (with a decimal comma, separate columns by ;); correct it
        x.csv:2:1: `0,5` has a comma; write decimals with a point, or separate columns by ;
        x.csv:2:3: `05` begins with a 0 as if it stood behind a decimal comma; write decimals with a point, or separate columns by ;
        x.csv:3:1: `inf` is not finite; write NaN for a sample that is missing
        x.csv:3:1: `x\u{1b}[31m` is not a number; write NaN for a sample that is missing
        x.csv:3:1: the line is empty; write NaN for a sample that is missing, or remove the line
        x.csv:3:2: the byte is not UTF-8; save the file as UTF-8
        x.csv:1:1: the file is in UTF-16; save it as UTF-8 (`CSV UTF-8` in spreadsheets)
        x.csv: the file has no time column; give the sampling frequency (in Hz, such as 360)
        x.csv:1:1: unit `h` of the time is not s, ms or us; convert it
        x.csv:1:6: column `time` is a second one of its kind; keep one of them
        x.csv:1:1: no column is a lead; name one, such as `MLII (mV)`
        x.csv:2:1: `x` is not a time; write a number of seconds, or m:ss.mmm
        x.csv:5:1: the time is 9 s where 3.000000 s would follow; samples must be evenly spaced: fill gaps with lines of NaN
        x.csv:3:1: the count is 2, but 1 follows; lines are missing: fill them with NaN
        x.csv: the times of the lines allow 66.666667 to 200.000000 Hz, but 360 Hz were given; leave it out, or remove the time column
        x.csv:1:1: unit `m V` has blanks; write it without, such as mV
        x.csv: the first column rises from line to line like a time or a count, but the file has no header that says so; add a line such as `time (s),MLII (mV)` before the first one
        x.csv:1:1: 5001 columns are more than the limit of 4098; split the file
        x.csv:1:1: the line has more than the limit of 1048576 bytes; this is no table of a recording
        x.csv: lead I: values from 1 to 1 at 1000000000000 ADC units each do not fit in 32 bits; give a smaller gain
    "#]].assert_eq(&table);
}

#[test]
fn refuses_arrays_that_cannot_be_understood() {
    let scratch = Scratch::new();
    let at_360 = Options { sampling_frequency_hz: Some(360.0), ..Options::default() };
    let mut table = String::new();
    let mut check =
        |bytes: &[u8], options: &Options| table += &format!("{}\n", scratch.refusal("x.npy", bytes, options));
    let rows = fixture("rows.npy");
    let edited = |from: &str, to: &str| {
        let at = rows.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        with(rows.clone(), at, to.as_bytes())
    };
    check(&rows, &at_360);
    let by_leads = Options { axes: Some(Axes::SamplesByLeads), ..at_360.clone() };
    check(&rows, &Options { sampling_frequency_hz: None, ..by_leads.clone() });
    check(&edited("<f4", ">f4"), &by_leads);
    check(&edited("False", "True "), &by_leads);
    check(&edited("(300, 2)", "(2,3,50)"), &by_leads);
    check(&edited("(300, 2)", "(9999,9)"), &by_leads);
    check(&rows[..rows.len() - 1], &by_leads);
    let infinite = with(rows.clone(), rows.len() - 4, &f32::INFINITY.to_le_bytes());
    check(&infinite, &by_leads);
    let names = Options { lead_names: vec!["I".to_owned()], ..by_leads.clone() };
    check(&rows, &names);
    let none = Options { leads: vec!["aVR".to_owned()], ..by_leads };
    check(&rows, &none);
    let error = Recording::open(scratch.path("none.npy"), &at_360).unwrap_err().to_string();
    assert!(error.ends_with("none.npy: No such file or directory (os error 2); check the path"), "{error}");
    let error = Recording::open("x.mat", &at_360).unwrap_err().to_string();
    assert_eq!(
        error,
        "x.mat: the name does not tell the format; give it one of the extensions .edf, .bdf, .csv, .tsv, .npy"
    );
    expect![[r#"
        x.npy: the array has 300 rows of 2 numbers, and nothing says which are the leads; say so: `samples-by-leads` if a row is a moment, `leads-by-samples` if a row is a lead
        x.npy: an array does not say its sampling frequency; give it (in Hz, such as 360)
        x.npy: the array holds `>f4`; save it as 32- or 64-bit floats (`array.astype('float32')`)
        x.npy: the array is in Fortran order; save it with `numpy.ascontiguousarray`
        x.npy: the shape [2, 3, 50] needs 1200 bytes of data, the file has 2400
        x.npy: the shape [9999, 9] needs 359964 bytes of data, the file has 2400
        x.npy: the shape [300, 2] needs 2400 bytes of data, the file has 2399
        x.npy: lead lead_2, sample 299: the value is not finite; write NaN for a sample that is missing
        x.npy: 1 lead names were given, but the file has 2 leads; name each
        x.npy: there is no lead `aVR`; the file has lead_1, lead_2
    "#]].assert_eq(&table);
}

/// Deterministic mutations of every fixture: what still opens is read to its end, and the length is bounded by what the file could
/// hold.
#[test]
fn a_changed_file_is_an_error_or_a_recording() {
    let scratch = Scratch::new();
    let at_360 = Options { sampling_frequency_hz: Some(360.0), axes: Some(Axes::SamplesByLeads), ..Options::default() };
    let mut random = 2025_u64;
    let mut next = move |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let (mut opened_n, mut refused_n) = (0, 0);
    for name in [
        "plain.edf",
        "plus.edf",
        "gaps.edf",
        "plus.bdf",
        "rows.npy",
        "one.npy",
        "pandas.csv",
        "rdsamp.csv",
        "german.csv",
    ] {
        let original = fixture(name);
        let path = scratch.path(name);
        // The interesting bytes are at the front.
        let front_n = original.len().min(1400);
        for _ in 0..600 {
            let mut bytes = original.clone();
            for _ in 0..=next(3) {
                let at = if next(4) == 0 { next(bytes.len()) } else { next(front_n.min(bytes.len())) };
                match next(5) {
                    0 => bytes[at] ^= 1 << next(8),
                    1 => bytes[at] = b"0123456789-+. ,;\n\t\x14\x15\0\xff"[next(22)],
                    2 => bytes.truncate(at.max(1)),
                    3 => bytes.insert(at, b"09 \0"[next(4)]),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    bytes.push(0);
                }
            }
            // A new file each time: writing over one costs milliseconds on some file systems.
            let _ = fs::remove_file(&path);
            fs::write(&path, &bytes).unwrap();
            let options = if name.ends_with("df") { Options::default() } else { at_360.clone() };
            let Ok(mut recording) = Recording::open(&path, &options) else {
                refused_n += 1;
                continue;
            };
            opened_n += 1;
            let frame_sample_n: u64 =
                recording.header().signals.iter().map(|signal| u64::from(signal.samples_per_frame)).sum();
            let sample_n = recording.frame_n() * frame_sample_n;
            assert!(
                sample_n <= 101 * bytes.len() as u64 + (1 << 24),
                "{name}: {sample_n} samples of {} bytes",
                bytes.len()
            );
            let mut pieces = vec![Vec::new(); recording.header().signals.len()];
            let mut frame_n = 0;
            while let Ok(read_n @ 1..) = recording.read(4096, &mut pieces) {
                frame_n += read_n as u64;
            }
            assert!(frame_n <= recording.frame_n());
        }
    }
    assert!(opened_n > 500 && refused_n > 500, "{opened_n} opened, {refused_n} refused");
}
