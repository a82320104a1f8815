//! The example stages in other languages, and what `ecgpipe stages new` writes in them, run by the program in projects of
//! their own. Those in Python need `python3` with numpy and pyarrow first on PATH, and say so when they are skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use ecgpipe_sdk::{Kind, Signals, kinds::INVALID_SAMPLE};
use serde_json::Value;
use tempfile::TempDir;

/// Two records of a database, less their baseline, and the beats in what is left.
const DENOISE: &str = "
stages:
  ingest: {uses: ingest_wfdb, with: {database: clinic, annotations: optional}}
  denoise: {uses: median_filter, in: {signals: ingest.signals}}
  peaks: {uses: detect_peaks, in: {signals: denoise.signals}}
publish: {out/: [ingest.signals, denoise.signals]}
";

/// Sampling frequency of each record, whole and fractional widths of the windows.
const RECORDS: [(&str, i64); 2] = [("r1", 360), ("r2", 257)];

/// Makes the files of `checksums`.
const MAKE_YAML: &str = "
name: make
summary: makes two files
command: [sh, make.sh]
inputs: {}
outputs: {files: {kind: files, cardinality: one, doc: Two files.}}
";
const MAKE_SH: &str = "
mkdir -p outputs/files
printf abc >'outputs/files/b c.txt'
: >outputs/files/a
printf '{\"format\": 1}' >result.json
";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether there is a Python for plugins, in the environment that they are given; says what is skipped where there is none.
fn python_or_skip(test: &str) -> bool {
    let home = TempDir::new().unwrap();
    let found = Command::new("python3")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", home.path())
        .args(["-c", "import numpy, pyarrow.parquet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: {test}: there is no python3 with numpy and pyarrow on PATH");
    }
    found
}

/// A project in a folder of its own.
struct Project(TempDir);

/// What a run did.
struct Run {
    code: Option<i32>,
    events: Vec<Value>,
    stderr: String,
}

impl Project {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// With an example stage of this repository.
    fn with_plugin(name: &str) -> Self {
        let project = Self::new();
        for entry in fs::read_dir(repository().join("stages").join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let file = path.file_name().unwrap().to_str().unwrap();
                project.write(&format!("stages/{name}/{file}"), &fs::read(&path).unwrap());
            }
        }
        project
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.0.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Replaces a text that is there once.
    fn edit(&self, path: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(path)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from} in {path}");
        self.write(path, text.replace(from, to).as_bytes());
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for variable in ["ECGPIPE_DATA", "ECGPIPE_STORE", "MLFLOW_TRACKING_URI"] {
            command.env_remove(variable);
        }
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        let args = [&["run", "--offline", "--json"], args].concat();
        let output = self.command(env!("CARGO_BIN_EXE_ecgpipe"), &args).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        Run {
            code: output.status.code(),
            events: stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs something that must succeed.
    #[track_caller]
    fn succeed(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Run {
    /// The jobs that were computed by a run that succeeded, sorted.
    #[track_caller]
    fn computed(&self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let computed = self.events.iter().filter(|event| event["event"] == "computed");
        let names: BTreeSet<String> = computed.map(|event| job_name(&event["job"])).collect();
        names.into_iter().collect()
    }
}

fn job_name(job: &Value) -> String {
    let node = job["node"].as_str().unwrap();
    job["record"].as_str().map_or_else(|| node.to_owned(), |record| format!("{node}[{record}]"))
}

/// A WFDB record of 20 s and two leads: spikes, noise and a wandering baseline; -32768 is how format 16 says "missing".
fn write_record(project: &Project, name: &str, frequency_hz: i64) {
    let sample_n = 20 * frequency_hz;
    let mut noise: u32 = 2004;
    let mut leads = [Vec::new(), Vec::new()];
    for sample_idx in 0..sample_n {
        let spike = if sample_idx % frequency_hz < frequency_hz / 20 { 250 } else { 0 };
        // A triangle of 7 s.
        let period = 7 * frequency_hz;
        let wander = (sample_idx % period - period / 2).abs() * 400 / period;
        for (lead_idx, lead) in leads.iter_mut().enumerate() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let missing = lead_idx == 0 && (sample_idx / 50 % 9 == 3 || sample_idx < 7);
            let value = 1000 + spike + wander + i64::from(noise >> 27);
            lead.push(if missing { i16::MIN } else { i16::try_from(value).unwrap() });
        }
    }
    let mut header = format!("{name} 2 {frequency_hz} {sample_n}\n");
    for (lead, lead_name) in leads.iter().zip(["MLII", "V1"]) {
        let checksum = lead.iter().fold(0i16, |sum, &sample| sum.wrapping_add(sample));
        header += &format!("{name}.dat 16 200(1024)/mV 12 0 {} {checksum} 0 {lead_name}\n", lead[0]);
    }
    let bytes: Vec<u8> =
        leads[0].iter().zip(&leads[1]).flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()]).flatten().collect();
    project.write(&format!("data/raw/clinic/{name}.hea"), header.as_bytes());
    project.write(&format!("data/raw/clinic/{name}.dat"), &bytes);
}

fn signals(project: &Project, node: &str, record: &str) -> Signals {
    let path = format!("out/{node}_signals[{record}].parquet");
    Signals::decode(&Bytes::from(project.read(&path))).unwrap()
}

/// The lower median of what is there within `half_n` samples of each sample, computed as one would on paper.
fn plain_median(samples: &[Option<i64>], half_n: usize) -> Vec<Option<i64>> {
    let median_at = |idx: usize| {
        samples[idx]?;
        let window = &samples[idx.saturating_sub(half_n)..(idx + half_n + 1).min(samples.len())];
        let mut present: Vec<i64> = window.iter().copied().flatten().collect();
        present.sort_unstable();
        Some(present[(present.len() - 1) / 2])
    };
    (0..samples.len()).map(median_at).collect()
}

#[test]
fn the_median_filter_takes_away_what_two_plain_medians_find() {
    if !python_or_skip("the_median_filter_takes_away_what_two_plain_medians_find") {
        return;
    }
    let project = Project::with_plugin("median_filter");
    project.write("denoise.yaml", DENOISE.as_bytes());
    for (record, frequency_hz) in RECORDS {
        write_record(&project, record, frequency_hz);
    }
    assert_eq!(project.run(&["denoise.yaml"]).computed().len(), 3 * RECORDS.len());
    for (record, frequency_hz) in RECORDS {
        let (before, after) = (signals(&project, "ingest", record), signals(&project, "denoise", record));
        assert_eq!(after.leads.len(), 2);
        let mut missing_n = 0;
        for (before, after) in before.leads.iter().zip(&after.leads) {
            let samples = before.samples.to_vec().unwrap();
            let samples: Vec<Option<i64>> =
                samples.iter().map(|&sample| (sample != INVALID_SAMPLE).then_some(i64::from(sample))).collect();
            let half_n = |width_ms: i64| usize::try_from(width_ms * frequency_hz / 2000).unwrap();
            let baseline = plain_median(&plain_median(&samples, half_n(200)), half_n(600));
            let expected = samples.iter().zip(baseline).map(|(sample, baseline)| {
                sample.zip(baseline).map_or(INVALID_SAMPLE, |(sample, baseline)| {
                    i32::try_from(sample - baseline + i64::from(before.baseline_adu)).unwrap()
                })
            });
            let found = after.samples.to_vec().unwrap();
            assert_eq!(found, expected.collect::<Vec<_>>(), "{record} {}", before.name);
            missing_n += found.iter().filter(|&&sample| sample == INVALID_SAMPLE).count();
        }
        assert!(missing_n > 100);
        // All but the samples is as it was.
        assert_eq!(after.without_samples(), before.without_samples());
    }
}

#[test]
fn editing_the_program_runs_that_stage_again_and_what_really_changed() {
    if !python_or_skip("editing_the_program_runs_that_stage_again_and_what_really_changed") {
        return;
    }
    let project = Project::with_plugin("median_filter");
    project.write("denoise.yaml", DENOISE.as_bytes());
    for (record, frequency_hz) in RECORDS {
        write_record(&project, record, frequency_hz);
    }
    let computed = || project.run(&["denoise.yaml"]).computed();
    assert_eq!(computed(), ["denoise[r1]", "denoise[r2]", "ingest[r1]", "ingest[r2]", "peaks[r1]", "peaks[r2]"]);
    assert_eq!(computed(), [""; 0]);

    // What is not among the sources of the stage decides nothing.
    let program = "stages/median_filter/median_filter.py";
    project.write("stages/median_filter/README.md", b"Another text.");
    project.write("stages/median_filter/test_median_filter.py", b"");
    project.write(program, &project.read(program));
    assert_eq!(computed(), [""; 0]);

    // A comment: the stage runs again and gives the same bytes, so that nothing after it does.
    project.edit(program, "    estimate = values\n", "    estimate = values  # To begin with.\n");
    assert_eq!(computed(), ["denoise[r1]", "denoise[r2]"]);

    // Arithmetic: what it gives is other, and so is what is made from that.
    let before = signals(&project, "denoise", "r2");
    project.edit(program, "values - estimate + baseline_adu", "values - estimate + baseline_adu + 3");
    assert_eq!(computed(), ["denoise[r1]", "denoise[r2]", "peaks[r1]", "peaks[r2]"]);
    let after = signals(&project, "denoise", "r2");
    let sample = |signals: &Signals| signals.leads[1].samples.read(100..101).unwrap()[0];
    assert_eq!(sample(&after), sample(&before) + 3);

    // And back: all of it is still there.
    project.edit(program, "baseline_adu + 3", "baseline_adu");
    project.edit(program, "  # To begin with.", "");
    assert_eq!(computed(), [""; 0]);
    assert_eq!(signals(&project, "denoise", "r2"), before);

    // One record.
    write_record(&project, "r2", 300);
    assert_eq!(computed(), ["denoise[r2]", "ingest[r2]", "peaks[r2]"]);
}

#[test]
fn the_denoised_pipeline_cuts_its_windows_from_what_the_plugin_gives() {
    if !python_or_skip("the_denoised_pipeline_cuts_its_windows_from_what_the_plugin_gives") {
        return;
    }
    let project = Project::with_plugin("median_filter");
    for file in ["quickstart.yaml", "denoised.yaml"] {
        project.write(&format!("pipelines/{file}"), &fs::read(repository().join("pipelines").join(file)).unwrap());
    }
    project.succeed(env!("CARGO_BIN_EXE_ecgpipe"), &["check", "pipelines/denoised.yaml"]);
    let small =
        ["--target", "windows", "--set", "raw.patients_n=2", "--set", "raw.duration_s=30", "pipelines/denoised.yaml"];
    let nodes = |run: Run| -> BTreeSet<String> {
        run.computed().iter().map(|job| job.split('[').next().unwrap().to_owned()).collect()
    };
    let all = ["denoise", "ingest", "peaks", "raw", "windows"].map(str::to_owned);
    assert_eq!(nodes(project.run(&small)), all.into());
    assert_eq!(nodes(project.run(&small)), [].into());
    // Peaks are looked for in the recording itself.
    let wider = [&small[..], &["--set", "denoise.second_ms=800"]].concat();
    assert_eq!(nodes(project.run(&wider)), ["denoise", "windows"].map(str::to_owned).into());
}

#[test]
fn checksums_are_those_of_the_files() {
    let project = Project::with_plugin("checksums");
    project.write("stages/make/stage.yaml", MAKE_YAML.as_bytes());
    project.write("stages/make/make.sh", MAKE_SH.as_bytes());
    project.write(
        "sums.yaml",
        b"
stages:
  make: {uses: make}
  sums: {uses: checksums, in: {files: make.files}}
publish: {out/: [make.files, sums.manifest]}
",
    );
    assert_eq!(project.run(&["sums.yaml"]).computed(), ["make", "sums"]);
    // FIPS 180-2: the sums of nothing and of `abc`.
    let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
                    ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b c.txt\n";
    assert_eq!(String::from_utf8(project.read("out/SHA256SUMS")).unwrap(), expected);
    assert_eq!(project.run(&["sums.yaml"]).computed(), [""; 0]);

    // Another file: both. The same files made otherwise: only what makes them.
    project.edit("stages/make/make.sh", "printf abc", "printf abd");
    assert_eq!(project.run(&["sums.yaml"]).computed(), ["make", "sums"]);
    project.edit("stages/make/make.sh", "printf abd", "{ printf ab; printf d; }");
    assert_eq!(project.run(&["sums.yaml"]).computed(), ["make"]);
}

#[test]
fn a_new_stage_in_shell_works_at_once() {
    let project = Project::new();
    let ecgpipe = env!("CARGO_BIN_EXE_ecgpipe");
    let written = project.succeed(ecgpipe, &["stages", "new", "file_sizes", "--sh"]);
    assert_eq!(
        written.lines().collect::<Vec<_>>(),
        ["stage.yaml", "file_sizes.sh", "test_file_sizes.sh", "README.md"]
            .map(|file| format!("stages/file_sizes/{file}"))
    );
    assert_eq!(project.succeed("sh", &["stages/file_sizes/test_file_sizes.sh"]), "ok\n");
    assert!(project.succeed(ecgpipe, &["stages", "file_sizes"]).contains("lists the sizes of a bundle of files"));
    project.write("stages/make/stage.yaml", MAKE_YAML.as_bytes());
    project.write("stages/make/make.sh", MAKE_SH.as_bytes());
    project.write(
        "sizes.yaml",
        b"
stages:
  make: {uses: make}
  sizes: {uses: file_sizes, in: {files: make.files}}
publish: {out/: sizes.list}
",
    );
    assert_eq!(project.run(&["sizes.yaml"]).computed(), ["make", "sizes"]);
    assert_eq!(project.read("out/sizes.csv"), b"name,bytes\na,0\nb c.txt,3\n");
    assert_eq!(project.run(&["sizes.yaml"]).computed(), [""; 0]);
}

#[test]
fn a_new_stage_in_python_works_at_once() {
    if !python_or_skip("a_new_stage_in_python_works_at_once") {
        return;
    }
    let project = Project::new();
    let ecgpipe = env!("CARGO_BIN_EXE_ecgpipe");
    let written = project.succeed(ecgpipe, &["stages", "new", "change_gain", "--python"]);
    assert_eq!(
        written.lines().collect::<Vec<_>>(),
        ["stage.yaml", "change_gain.py", "test_change_gain.py", "requirements.txt", "README.md"]
            .map(|file| format!("stages/change_gain/{file}"))
    );
    project.succeed("python3", &["stages/change_gain/test_change_gain.py"]);
    for (record, frequency_hz) in RECORDS {
        write_record(&project, record, frequency_hz);
    }
    project.write(
        "gain.yaml",
        b"
stages:
  ingest: {uses: ingest_wfdb, with: {database: clinic, annotations: optional}}
  gain: {uses: change_gain, in: {signals: ingest.signals}, with: {factor: 2}}
publish: {out/: [ingest.signals, gain.signals]}
",
    );
    assert_eq!(project.run(&["gain.yaml"]).computed(), ["gain[r1]", "gain[r2]", "ingest[r1]", "ingest[r2]"]);
    for (record, _) in RECORDS {
        let (before, after) = (signals(&project, "ingest", record), signals(&project, "gain", record));
        for (before, after) in before.leads.iter().zip(&after.leads) {
            let scaled = |&sample: &i32| if sample == INVALID_SAMPLE { sample } else { 2 * (sample - 1024) + 1024 };
            let expected: Vec<i32> = before.samples.to_vec().unwrap().iter().map(scaled).collect();
            assert_eq!(after.samples.to_vec().unwrap(), expected);
        }
    }
    // The tests have left bytecode behind, which is no source.
    assert_eq!(project.run(&["gain.yaml"]).computed(), [""; 0]);

    // The program's own words reach the user.
    project.edit("stages/change_gain/change_gain.py", ">= 2.0**31", ">= 2.0**9");
    let failed = project.run(&["gain.yaml"]);
    assert_eq!(failed.code, Some(1));
    let event = failed.events.iter().find(|event| event["event"] == "failed").unwrap();
    assert!(event["error"].as_str().unwrap().contains("lead MLII: a sample does not fit 32 bits"), "{event}");
    assert_eq!(event["help"], "use a smaller factor");
}
