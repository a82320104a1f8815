//! `ecgpipe data`, from the command line: what is shown, converted, refused and found damaged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ended;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ecgpipe_formats::{Options, Recording};
use ecgpipe_wfdb::{
    Annotation, AnnotationCode, Annotations, Format, INVALID_I16, Lead, Record, Samples, read_annotations, read_record,
    write_annotations, write_record,
};
use ended::Ended;
use expect_test::{Expect, expect};
use tempfile::TempDir;

/// A folder of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn call(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecgpipe"));
        command.current_dir(self.0.path()).arg("data").args(args).stdin(Stdio::null());
        Ended::new(command.output().unwrap())
    }

    /// The record `db/NAME`: two leads at 100 Hz for 12 s, with beats and rhythms.
    fn record(&self, name: &str) {
        fs::create_dir_all(self.path("db")).unwrap();
        let lead = |name: &str, samples: Vec<i16>| Lead {
            name: name.to_owned(),
            units: "mV".to_owned(),
            gain_adu_per_unit: 200.0,
            baseline_adu: 1024,
            samples_per_frame: 1,
            samples: Samples::Narrow(samples),
        };
        let mut first: Vec<i16> = (0..1200).map(|idx| 1024 + (idx * 37 % 401) - 200).collect();
        first[100..110].fill(INVALID_I16);
        first[300..304].fill(1500);
        let mut second: Vec<i16> = (0..1200).map(|idx| 1000 + (idx * 11 % 301) - 150).collect();
        second[600..800].fill(1024);
        let leads = vec![lead("MLII", first), lead("V5", second)];
        let mut record = Record::new(name, 100.0, Format::Packed212, leads).unwrap();
        record.header.comments = vec!["69 M 1085 1629 x1".to_owned(), "Aldomet, Inderal".to_owned()];
        write_record(self.path("db"), &record).unwrap();
        let beat = |sample_idx, symbol| Annotation::new(sample_idx, AnnotationCode::from_symbol(symbol).unwrap());
        let rhythm = |sample_idx, text: &str| Annotation { aux: text.as_bytes().to_vec(), ..beat(sample_idx, "+") };
        let items = vec![
            rhythm(10, "(N\0"),
            beat(50, "N"),
            beat(150, "N"),
            Annotation { chan: 1, ..beat(240, "V") },
            beat(350, "j"),
            rhythm(800, "(AFIB\0"),
            beat(1000, "N"),
        ];
        write_annotations(self.path(&format!("db/{name}")), "atr", &Annotations { items, ..Annotations::default() })
            .unwrap();
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(path)).unwrap();
        change(&mut bytes);
        fs::write(self.path(path), bytes).unwrap();
    }
}

fn fixture(name: &str) -> String {
    format!("{}/stages/formats/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What stands on stdout and stderr, with the exit code.
#[track_caller]
fn check(ended: &Ended, expected: &Expect) {
    let text = format!("{}{}exit {}\n", ended.stdout, ended.stderr, ended.code.unwrap());
    expected.assert_eq(&text.replace(&fixture(""), "FIXTURES/"));
}

#[test]
fn show_tells_what_a_record_holds() {
    let folder = Folder::new();
    folder.record("a");
    check(
        &folder.call(&["show", "db/a"]),
        &expect![[r#"
        record a  db/a.hea
        WFDB, 2 leads at 100 Hz, 1 200 samples each, 0:00:12.000
        start not known
        comments 69 M 1085 1629 x1
                 Aldomet, Inderal

        lead  format  gain    baseline  valid    min     median  max    unit  flat     clipped
        MLII  212     200/mV  1024      99.17 %  -3.000  -0.365  2.380  mV    0 %      0.33 %
        V5    212     200/mV  1024      100 %    -0.870  0.000   0.630  mV    16.67 %  0 %

        annotations atr: 7, 5 beats
        symbol  count  class   meaning
        N       3      N       normal beat
        +       2              rhythm change
        V       1      V       premature ventricular contraction
        j       1      N or S  nodal (junctional) escape beat
        AAMI classes, escape beats as N (de Chazal 2004): N 4, S 0, V 1, F 0, Q 0
        AAMI classes, escape beats as S (EC57): N 3, S 1, V 1, F 0, Q 0

        rhythm  episodes  time         share    meaning
        (N      1         0:00:07.900  65.83 %  normal sinus rhythm
        (AFIB   1         0:00:04.000  33.33 %  atrial fibrillation
        exit 0
    "#]],
    );
    check(
        &folder.call(&["show", "db/a.dat", "--annotator", "qrs"]),
        &expect![[r#"
        error: db/a.qrs: there is no such annotation file
        help: the recording has atr
        exit 3
    "#]],
    );
    // A damaged annotation file beside is told, and all else is shown.
    fs::write(folder.path("db/a.qrs"), [1, 2, 3]).unwrap();
    let ended = folder.call(&["show", "db/a"]).exits(1);
    ended.prints(&["annotations atr: 7, 5 beats", "problem: db/a.qrs: byte 2: the file ends within a word"]);
}

#[test]
fn show_tells_what_foreign_files_hold() {
    let folder = Folder::new();
    check(
        &folder.call(&["show", &fixture("gaps.edf")]),
        &expect![[r#"
        record gaps  FIXTURES/gaps.edf
        EDF, 3 leads at 50 Hz, 300 frames each, 0:00:06.000
        start 02/03/2002 23:59:58.5
        comments patient: P-7 X X X
                 recording: Startdate 02-MAR-2002 X X X ward_3

        lead  Hz   gain    baseline  valid    min     median  max     unit  flat  clipped
        V5    250  10/uV   0         66.67 %  -3.277  -0.240  3.273   mV    0 %   0 %
        II    250  400/mV  0         66.67 %  -4.997  -0.129  4.992   mV    0 %   0 %
        SpO2  50   10/%    0         66.67 %  0.000   9.950   19.900  %     0 %   0 %

        annotations in the file: 4
        symbol  count  class  meaning
        "       4             comment

        note: 1 gap between data records, 2.000 s in all, became invalid samples
        note: annotations outside of the recorded time were left out: 1
        exit 0
    "#]],
    );
    check(
        &folder.call(&["show", &fixture("german.csv")]),
        &expect![[r#"
        record german  FIXTURES/german.csv
        CSV, 2 leads at 360 Hz, 300 samples each, 0:00:00.833
        start not known
        comments a comment

        lead  gain     baseline  valid    min     median  max    unit  flat  clipped
        MLII  1000/mV  0         100 %    -9.995  -0.752  9.985  mV    0 %   0 %
        V5    1000/uV  0         99.67 %  -0.007  0.000   0.007  mV    0 %   0 %
        exit 0
    "#]],
    );
    let npy = fixture("columns.npy");
    check(
        &folder.call(&["show", &npy, "--fs", "360"]),
        &expect![[r#"
        error: FIXTURES/columns.npy: the array has 2 rows of 300 numbers, and nothing says which are the leads
        help: say so: `samples-by-leads` if a row is a moment, `leads-by-samples` if a row is a lead
        exit 2
    "#]],
    );
    let args = ["show", &npy, "--fs", "360", "--axes", "leads-by-samples", "--names", "MLII,V5", "--units", "mV"];
    check(
        &folder.call(&args),
        &expect![[r#"
        record columns  FIXTURES/columns.npy
        NumPy, 2 leads at 360 Hz, 300 samples each, 0:00:00.833
        start not known

        lead  gain     baseline  valid    min     median  max    unit  flat  clipped
        MLII  1000/mV  0         100 %    -9.995  -0.752  9.985  mV    0 %   0 %
        V5    1000/mV  0         99.67 %  -7.500  0.000   7.500  mV    0 %   0 %
        exit 0
    "#]],
    );
}

#[test]
fn show_gives_json() {
    let folder = Folder::new();
    folder.record("a");
    let json = folder.call(&["show", "db/a", "--json"]).exits(0).json();
    assert_eq!((json["record"].as_str(), json["sample_n"].as_u64()), (Some("a"), Some(1200)));
    let lead = &json["leads"][0];
    assert_eq!(
        (lead["valid_n"].as_u64(), lead["clipped_n"].as_u64(), lead["flat_n"].as_u64()),
        (Some(1190), Some(4), Some(0))
    );
    assert_eq!(json["leads"][1]["flat_n"].as_u64(), Some(200));
    let marks = &json["annotations"][0];
    assert_eq!(marks["de_chazal"], serde_json::json!({"N": 4, "V": 1}));
    assert_eq!(marks["ec57"], serde_json::json!({"N": 3, "S": 1, "V": 1}));
    assert_eq!(marks["episodes"][1], serde_json::json!({"name": "(AFIB", "from_s": 8.0, "to_s": 12.0}));
}

/// Expected: `r = wfdb.rdrecord("mitdb/100"); p = r.p_signal; print(p.min(0), np.median(p, 0), p.max(0))` and
/// `collections.Counter(wfdb.rdann("mitdb/100", "atr").symbol)` of wfdb-python 4.3.1 and numpy 2.4.6.
#[test]
#[expect(clippy::print_stderr, reason = "a test says why it did not run")]
fn show_agrees_with_wfdb_python_on_a_real_record() {
    let Some(data) = std::env::var_os("ECGPIPE_DATA").filter(|data| Path::new(data).join("mitdb").is_dir()) else {
        eprintln!(
            "skipped: show_agrees_with_wfdb_python_on_a_real_record: set ECGPIPE_DATA to a folder that holds mitdb"
        );
        return;
    };
    let record = Path::new(&data).join("mitdb/100").display().to_string();
    let json = Folder::new().call(&["show", &record, "--json"]).exits(0).json();
    let values = |name: &str| {
        json["leads"].as_array().unwrap().iter().map(|lead| lead[name].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(values("min"), [-2.715, -2.465]);
    assert_eq!(values("median"), [-0.335, -0.205]);
    assert_eq!(values("max"), [1.435, 1.225]);
    assert_eq!(json["annotations"][0]["ec57"], serde_json::json!({"N": 2239, "S": 33, "V": 1}));
    assert_eq!(json["annotations"][0]["annotation_n"].as_u64(), Some(2274));
}

#[test]
fn convert_keeps_every_sample() {
    let folder = Folder::new();
    folder.record("a");
    check(
        &folder.call(&["convert", "db/a", "out/b", "--format", "16"]),
        &expect![[r#"
        2 leads at 100 Hz, 0:00:12.000, format 16
        annotations atr: 7
        wrote out/b.hea
        wrote out/b.dat
        wrote out/b.atr
        exit 0
    "#]],
    );
    let (before, after) = (read_record(folder.path("db/a")).unwrap(), read_record(folder.path("out/b")).unwrap());
    assert_eq!((&before.leads, &before.header.comments), (&after.leads, &after.header.comments));
    let marks = |path| read_annotations(folder.path(path), "atr", before.timing()).unwrap();
    assert_eq!(marks("db/a"), marks("out/b"));

    // Over CSV and back: the same values, invalid samples included.
    check(
        &folder.call(&["convert", "out/b", "c.csv"]),
        &expect![[r#"
        2 leads at 100 Hz, 0:00:12.000, one line a sample
        annotations atr: 7
        wrote c.csv
        wrote c.atr.csv
        note: CSV has no place for 2 comment lines, gains and baselines
        exit 0
    "#]],
    );
    assert!(
        fs::read_to_string(folder.path("c.csv"))
            .unwrap()
            .starts_with("time (s),MLII (mV),V5 (mV)\n0.00,-1.000,-0.870\n")
    );
    check(
        &folder.call(&["convert", "c.csv", "d", "--gain", "200", "--baseline", "1024"]),
        &expect![[r#"
        2 leads at 100 Hz, 0:00:12.000, format 16
        wrote d.hea
        wrote d.dat
        exit 0
    "#]],
    );
    assert_eq!(read_record(folder.path("d")).unwrap().leads, before.leads);
}

#[test]
fn convert_reads_foreign_files() {
    let folder = Folder::new();
    check(
        &folder.call(&["convert", &fixture("gaps.edf"), "e"]),
        &expect![[r#"
        3 leads at 50 Hz, 0:00:06.000, format 16
        annotations atr: 4
        wrote e.hea
        wrote e.dat
        wrote e.atr
        note: 1 gap between data records, 2.000 s in all, became invalid samples
        note: annotations outside of the recorded time were left out: 1
        exit 0
    "#]],
    );
    let record = read_record(folder.path("e")).unwrap();
    let mut recording = Recording::open(fixture("gaps.edf"), &Options::default()).unwrap();
    let mut pieces = vec![Vec::new(); 3];
    recording.read(1000, &mut pieces).unwrap();
    for (lead, piece) in record.leads.iter().zip(&pieces) {
        assert_eq!(&lead.samples.iter().collect::<Vec<_>>(), piece);
    }
    // Annotations keep the time of the fastest lead.
    let marks = fs::read(folder.path("e.atr")).unwrap();
    assert!(marks.windows(22).any(|window| window == b"## time resolution: 25"), "{marks:?}");

    folder.call(&["convert", &fixture("gaps.edf"), "f", "--leads", "II,V5"]).exits(0);
    let record = read_record(folder.path("f")).unwrap();
    assert_eq!((record.sampling_frequency_hz(), record.sample_n, record.leads[1].name.as_str()), (250.0, 1500, "V5"));
    folder
        .call(&["convert", &fixture("gaps.edf"), "g.csv"])
        .exits(2)
        .says(&["choose leads of one frequency by `--leads`"]);
    assert_eq!(folder.files("."), ["e.atr", "e.dat", "e.hea", "f.atr", "f.dat", "f.hea"]);
}

#[test]
fn convert_takes_a_part() {
    let folder = Folder::new();
    folder.record("a");
    check(
        &folder.call(&["convert", "db/a", "b", "--from", "2", "--to", "0:04", "--leads", "V5"]),
        &expect![[r#"
        1 lead at 100 Hz, 0:00:02.000, format 212
        annotations atr: 2
        wrote b.hea
        wrote b.dat
        wrote b.atr
        note: 5 annotations of atr outside of the time are left out
        note: the rhythm (N holds at the beginning; atr told it before
        note: 1 annotation of atr of a lead that stays behind are told of the first one
        exit 0
    "#]],
    );
    let (whole, part) = (read_record(folder.path("db/a")).unwrap(), read_record(folder.path("b")).unwrap());
    assert_eq!(part.leads[0].samples.as_i16(), Some(&whole.leads[1].samples.as_i16().unwrap()[200..400]));
    let marks = read_annotations(folder.path("b"), "atr", part.timing()).unwrap();
    let shown: Vec<_> = marks.items.iter().map(|mark| (mark.sample_idx, mark.code.symbol(), mark.chan)).collect();
    assert_eq!(shown, [(40, "V", 0), (150, "j", 0)]);
    for (args, said) in [
        (["--from", "x"], "`--from x` is no time"),
        (["--to", "13"], "`--to 13` is behind the end of the recording, 0:00:12.000"),
        (["--to", "0"], "there is no sample between"),
        (["--leads", "V1"], "there is no lead `V1`; the file has MLII, V5"),
        (["--format", "17"], "signal format 17 cannot be written"),
        (["--annotator", "qrs"], "there is no such annotation file"),
        (["--fs", "100"], "a WFDB record says all of itself"),
    ] {
        let said: Vec<&str> = said.split("; the").take(1).collect();
        let ended = folder.call(&[&["convert", "db/a", "c"], &args[..]].concat());
        assert!(matches!(ended.code, Some(2 | 3)), "{args:?}: {ended:?}");
        ended.says(&said);
    }
    assert!(!folder.path("c.hea").exists());
}

#[test]
fn what_exists_is_written_over_only_by_force() {
    let folder = Folder::new();
    folder.record("a");
    folder.call(&["convert", "db/a", "b"]).exits(0);
    let before = fs::read(folder.path("b.hea")).unwrap();
    folder
        .call(&["convert", "db/a", "b", "--format", "16"])
        .exits(2)
        .says(&["b.hea: there is such a file already", "--force"]);
    assert_eq!(fs::read(folder.path("b.hea")).unwrap(), before);
    folder.call(&["convert", "db/a", "b", "--format", "16", "--force"]).exits(0);
    assert_ne!(fs::read(folder.path("b.hea")).unwrap(), before);
    folder.call(&["convert", "db/a", "db/a", "--force"]).exits(2).says(&["db/a.hea: this is what is to be converted"]);
    folder.call(&["convert", "db/a", "x.edf"]).exits(2).says(&["this format can be read, not written"]);
    folder.call(&["convert", "db/a", "a.b"]).exits(2).says(&["`a.b` is no name of a WFDB record"]);
}

#[test]
fn a_sample_that_does_not_fit_is_named() {
    let folder = Folder::new();
    fs::create_dir(folder.path("out")).unwrap();
    check(
        &folder.call(&["convert", &fixture("plus.bdf"), "out/x", "--format", "16"]),
        &expect![[r#"
        error: record x, lead 0 (A1): sample 0 is -8388607, but format 16 holds -32767 to 32767
        help: choose a wider format, or mark the sample as invalid
        exit 1
    "#]],
    );
    assert!(folder.files("out").is_empty(), "nothing is left behind");
}

#[test]
fn verify_finds_every_problem_of_every_record() {
    let folder = Folder::new();
    for name in ["a", "b", "c", "d"] {
        folder.record(name);
    }
    fs::write(folder.path("db/RECORDS"), "a\nb\nc\nd\n").unwrap();
    check(
        &folder.call(&["verify", "db"]),
        &expect![[r#"
        db: 4 records, 15.1 kB
        annotations atr: 4 files with 28 annotations
        no problems
        exit 0
    "#]],
    );

    // Both leads and the annotations of b, the length of c, the header of d, and a line of RECORDS.
    folder.change("db/b.dat", |bytes| {
        bytes[601] ^= 0x21;
        bytes[602] ^= 4;
    });
    folder.change("db/b.atr", |bytes| bytes.truncate(5));
    folder.change("db/c.dat", |bytes| bytes.truncate(3000));
    folder.change("db/d.hea", |bytes| bytes[0] = b'e');
    fs::write(folder.path("db/RECORDS"), "a\nb\nc\nd\n../z\nq\n").unwrap();
    let sums =
        format!("{}  a.hea\n{}  a.dat\n{}  missing.txt\nno sum\n", "0".repeat(64), "1".repeat(64), "2".repeat(64));
    fs::write(folder.path("db/SHA256SUMS.txt"), sums).unwrap();
    let ended = folder.call(&["verify", "db", "--jobs", "3"]);
    let hidden = |text: &str| {
        let is_sum = |word: &str| word.trim_end_matches(',').len() == 64;
        text.split(' ').map(|word| if is_sum(word) { "SUM," } else { word }).collect::<Vec<_>>().join(" ")
    };
    let ended = Ended { stdout: hidden(&ended.stdout), ..ended };
    check(
        &ended,
        &expect![[r#"
        lists
          RECORDS: `../z` leaves the folder or is no record name
        record b
          b.dat: record b, signal 0 (MLII): the samples add up to checksum 24383, but the header says 24639
            help: the file is damaged or belongs to another header: fetch the record again
          b.dat: record b, signal 1 (V5): the samples add up to checksum 24456, but the header says 24972
            help: the file is damaged or belongs to another header: fetch the record again
          b.atr: byte 2: AUX needs 4 bytes, but the file has only 1 more
            help: it is cut short: fetch it again
        record c
          c.dat: record c needs 3600 bytes (1200 frames of 2 samples in format 212), but the file has 3000, 600 too few
            help: fetch the record again, or correct its header
        record d
          d.hea: the header is of record `e`
            help: give both the same name
        record q
          q.hea: No such file or directory (os error 2)
            help: put the header there, or take the record out of RECORDS
        SHA256SUMS.txt
          SHA256SUMS.txt:4: `no sum` is no sum and path below the folder
          a.hea: the SHA-256 sum is SUM, but SHA256SUMS.txt says 0000000000000000000000000000000000000000000000000000000000000000
          a.dat: the SHA-256 sum is SUM, but SHA256SUMS.txt says 1111111111111111111111111111111111111111111111111111111111111111

        db: 5 records, 11.3 kB
        annotations atr: 3 files with 21 annotations
        SHA256SUMS.txt: 0 files of 4 lines the same, 1 not here (missing.txt)
        10 problems, 4 of 5 records have some
        exit 1
    "#]],
    );

    let json = folder.call(&["verify", "db", "--json"]).exits(1).json();
    assert_eq!(json["problem_n"].as_u64(), Some(10));
    assert_eq!(json["records"][0]["problems"].as_array().unwrap().len(), 0);
    let names: Vec<_> =
        json["records"].as_array().unwrap().iter().map(|record| record["record"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "q"]);
}

#[test]
fn verify_refuses_what_is_no_database() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    folder.call(&["verify", "none"]).exits(3).says(&["none: there is no such folder"]);
    folder.call(&["verify", "empty"]).exits(3).says(&["neither a file RECORDS nor a .hea file"]);
    folder.record("a");
    folder.call(&["verify", "db", "--annotator", "qrs"]).exits(1).prints(&["a.qrs: there is no such annotation file"]);
    folder.call(&["verify", "db", "--jobs", "0"]).exits(2).says(&["`--jobs 0` does nothing"]);
}

#[test]
#[expect(clippy::print_stderr, reason = "a test says why it did not run")]
fn verify_finds_a_real_database_sound() {
    let Some(data) = std::env::var_os("ECGPIPE_DATA").filter(|data| Path::new(data).join("mitdb").is_dir()) else {
        eprintln!("skipped: verify_finds_a_real_database_sound: set ECGPIPE_DATA to a folder that holds mitdb");
        return;
    };
    let ended = Folder::new().call(&["verify", &Path::new(&data).join("mitdb").display().to_string()]).exits(0);
    ended.prints(&["48 records", "annotations atr: 48 files with 112 647 annotations", "no problems"]);
}
