//! `ecgpipe data verify`: every record of a folder, every problem of every record.
//!
//! A record is read to its end for each problem that is found: the reader stops at the first one, which is then taken out of
//! what it expects. Records without problems, the usual case, are read once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use ecgpipe_wfdb::{Chunk, DataFile, Header, MAX_HEADER_BYTE_N, RecordReader, Timing, WfdbError, read_annotations};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    bar, counted, shown,
    source::{annotators_of, check_annotator},
};
use crate::{
    cli::DataVerify,
    commands::{Exit, Failure, human_bytes, print, print_json},
};

/// The list of records of a database, and that of its annotators, as PhysioNet has them.
const RECORDS: &str = "RECORDS";
const ANNOTATORS: &str = "ANNOTATORS";
const SUMS: &str = "SHA256SUMS.txt";
/// Largest list that is read.
const MAX_LIST_BYTE_N: u64 = 64 << 20;
/// Frames that are decoded at a time.
const PIECE_FRAME_N: usize = 1 << 14;
/// How deep `RECORDS` may name folders.
const MAX_DEPTH: usize = 4;

/// What `--json` gives.
#[derive(Serialize)]
struct Report {
    /// Grows when fields change their meaning or go.
    format: u32,
    folder: String,
    records: Vec<RecordReport>,
    /// Of the folder's lists themselves.
    problems: Vec<String>,
    sums: Option<SumsReport>,
    problem_n: usize,
}

/// One record.
#[derive(Default, Serialize)]
struct RecordReport {
    record: String,
    lead_n: usize,
    sample_n: u64,
    byte_n: u64,
    /// Annotations by annotator.
    annotations: BTreeMap<String, usize>,
    problems: Vec<String>,
}

/// What SHA256SUMS.txt says.
#[derive(Default, Serialize)]
struct SumsReport {
    listed_n: usize,
    same_n: usize,
    /// Listed, but not here.
    missing: Vec<String>,
    problems: Vec<String>,
}

pub(super) fn verify(args: &DataVerify) -> Result<Exit, Failure> {
    args.annotators.iter().try_for_each(|annotator| check_annotator(annotator))?;
    if args.jobs == Some(0) {
        return Err(Failure::usage("`--jobs 0` does nothing").help("give 1 or more"));
    }
    let folder = &args.folder;
    if !folder.is_dir() {
        let message = format!("{}: there is no such folder", folder.display());
        return Err(Failure::environment(message).help("give the folder that holds the records' .hea files"));
    }
    let mut problems = Vec::new();
    let records = records(folder, &mut problems)?;
    let annotators = match args.annotators.as_slice() {
        [] => list(&folder.join(ANNOTATORS), &mut problems)
            .map(|lines| lines.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()),
        named => Some(named.to_vec()),
    };
    let mut sums_problems = Vec::new();
    let sums = list(&folder.join(SUMS), &mut sums_problems);
    let (sums, missing, listed_n) = match &sums {
        Some(lines) => parse_sums(folder, lines, &mut sums_problems),
        None => (Vec::new(), Vec::new(), 0),
    };
    let has_sums = listed_n > 0 || !sums_problems.is_empty();
    if records.is_empty() && problems.is_empty() && !has_sums {
        let message = format!("{}: there is neither a file RECORDS nor a .hea file", folder.display());
        return Err(Failure::environment(message).help("give the folder that holds the records' .hea files"));
    }

    let work: Vec<Work<'_>> =
        records.iter().map(Work::Record).chain(sums.iter().map(|(path, sum)| Work::Sum(path, sum))).collect();
    let check = Check { folder, annotators: annotators.as_deref(), is_named: !args.annotators.is_empty() };
    let done = in_parallel(&work, args.jobs, |work| match work {
        Work::Record(record) => Done::Record(check.record(record)),
        Work::Sum(path, sum) => Done::Sum(check.sum(path, sum)),
    });
    let mut report = Report {
        format: 1,
        folder: folder.display().to_string(),
        records: Vec::new(),
        problems,
        sums: has_sums.then_some(SumsReport { listed_n, missing, problems: sums_problems, same_n: 0 }),
        problem_n: 0,
    };
    for done in done {
        match (done, &mut report.sums) {
            (Done::Record(record), _) => report.records.push(record),
            (Done::Sum(Ok(())), Some(sums)) => sums.same_n += 1,
            (Done::Sum(Err(problem)), Some(sums)) => sums.problems.push(problem),
            (Done::Sum(_), None) => {}
        }
    }
    report.problem_n = report.problems.len()
        + report.records.iter().map(|record| record.problems.len()).sum::<usize>()
        + report.sums.as_ref().map_or(0, |sums| sums.problems.len());
    if args.json {
        print_json(&report);
    } else {
        print(&text(&report));
    }
    Ok(if report.problem_n == 0 { Exit::Success } else { Exit::Failed })
}

/// One thing to check.
enum Work<'a> {
    Record(&'a String),
    Sum(&'a String, &'a String),
}

enum Done {
    Record(RecordReport),
    Sum(Result<(), String>),
}

/// Does all work on several threads; results are in the order of the work.
fn in_parallel<W: Sync, D: Send>(work: &[W], jobs: Option<usize>, act: impl Fn(&W) -> D + Sync) -> Vec<D> {
    let thread_n = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = bar(work.len() as u64, "records and sums");
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(work.len()));
    std::thread::scope(|scope| {
        for _ in 0..thread_n.min(work.len()) {
            scope.spawn(|| {
                loop {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    let Some(work) = work.get(idx) else { break };
                    let result = act(work);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((idx, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(idx, _)| *idx);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The lines of a list; `None` if there is no such file.
fn list(path: &Path, problems: &mut Vec<String>) -> Option<Vec<String>> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let size = fs::metadata(path).ok()?.len();
    if size > MAX_LIST_BYTE_N {
        problems.push(format!("{name}: {size} bytes are more than the limit of {MAX_LIST_BYTE_N}"));
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()),
        Err(error) => {
            problems.push(format!("{name}: {error}"));
            None
        }
    }
}

/// The records of a folder: those that RECORDS names, also in folders below, and every header of the folder itself. A name is a path
/// below the folder, without an extension.
fn records(folder: &Path, problems: &mut Vec<String>) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    collect(folder, "", 0, &mut found, problems);
    let entries =
        fs::read_dir(folder).map_err(|error| Failure::environment(format!("{}: {error}", folder.display())))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "hea")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            found.insert(stem.to_owned());
        }
    }
    Ok(found)
}

fn collect(root: &Path, below: &str, depth: usize, found: &mut BTreeSet<String>, problems: &mut Vec<String>) {
    let Some(lines) = list(&root.join(below).join(RECORDS), problems) else { return };
    let mut seen = BTreeSet::new();
    for line in lines {
        let shown_line = shown(&line);
        let name = format!("{below}{line}");
        let is_inside = !line.starts_with('/')
            && line.split('/').all(|part| part != ".." && part != ".")
            && !line.contains(['\\', ':'])
            && !line.contains(char::is_control);
        if !is_inside {
            problems.push(format!("{below}{RECORDS}: `{shown_line}` leaves the folder or is no record name"));
        } else if !seen.insert(line.clone()) {
            problems.push(format!("{below}{RECORDS}: `{shown_line}` stands there twice"));
        } else if !line.ends_with('/') {
            found.insert(name);
        } else if depth == MAX_DEPTH {
            problems.push(format!("{below}{RECORDS}: `{shown_line}` is more than {MAX_DEPTH} folders deep"));
        } else if root.join(&name).join(RECORDS).is_file() {
            collect(root, &name, depth + 1, found, problems);
        } else {
            problems.push(format!("{below}{RECORDS}: the folder `{shown_line}` has no file {RECORDS}"));
        }
    }
}

/// Paths and sums of SHA256SUMS.txt whose files are here, the listed files that are not, and how many are listed.
fn parse_sums(
    folder: &Path,
    lines: &[String],
    problems: &mut Vec<String>,
) -> (Vec<(String, String)>, Vec<String>, usize) {
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for (line_idx, line) in lines.iter().enumerate() {
        let (sum, path) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        // `*` marks a binary file.
        let path = path.trim_start().trim_start_matches('*');
        let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_inside = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..");
        if !is_sum || !is_inside {
            problems.push(format!("{SUMS}:{}: `{}` is no sum and path below the folder", line_idx + 1, shown(line)));
        } else if folder.join(path).is_file() {
            here.push((path.to_owned(), sum.to_ascii_lowercase()));
        } else {
            missing.push(path.to_owned());
        }
    }
    (here, missing, lines.len())
}

/// What is checked against.
struct Check<'a> {
    folder: &'a Path,
    annotators: Option<&'a [String]>,
    /// Whether the annotators were named by the user, so that each must be there.
    is_named: bool,
}

impl Check<'_> {
    fn sum(&self, path: &str, expected: &str) -> Result<(), String> {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.folder.join(path))?;
            let mut hasher = Sha256::new();
            let mut chunk = vec![0; 1 << 16];
            loop {
                match file.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(byte_n) => hasher.update(&chunk[..byte_n]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
        };
        match read() {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(format!("{}: the SHA-256 sum is {found}, but {SUMS} says {expected}", shown(path))),
            Err(error) => Err(format!("{}: {error}", shown(path))),
        }
    }

    fn record(&self, record: &str) -> RecordReport {
        let mut report = RecordReport { record: record.to_owned(), ..RecordReport::default() };
        let path = self.folder.join(format!("{record}.hea"));
        let header = match read_header(&path) {
            Ok(header) => header,
            Err(problem) => {
                report.problems.push(self.local(&problem));
                return report;
            }
        };
        let timing = self.samples(&path, header.clone(), &mut report);
        self.annotations(&path, &header, timing, &mut report);
        report
    }

    /// An error without the folder, which is the same for all.
    fn local(&self, error: &dyn std::fmt::Display) -> String {
        error.to_string().replace(&format!("{}/", self.folder.display()), "")
    }

    /// Reads all samples until nothing is wrong any more; gives what annotations are checked against.
    fn samples(&self, path: &Path, mut header: Header, report: &mut RecordReport) -> Timing {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if header.record_name != stem {
            let found = shown(&header.record_name);
            report.problems.push(format!("{stem}.hea: the header is of record `{found}`; give both the same name"));
        }
        let mut timing = header.timing();
        report.lead_n = header.signals.len();
        loop {
            if header.signals.is_empty() && header.segments.is_empty() {
                return timing;
            }
            let error = match read(path, &header) {
                Ok(read) => {
                    report.lead_n = report.lead_n.max(read.lead_n);
                    report.sample_n = read.timing.sample_n.unwrap_or_default();
                    report.byte_n = byte_n(path, &header);
                    return read.timing;
                }
                Err(error) => error,
            };
            report.problems.push(self.local(&error));
            // What the file has takes the place of what the header says, so that the next problem comes to light.
            let signal = match &error {
                WfdbError::Checksum { signal_idx, .. } | WfdbError::InitialValue { signal_idx, .. } => {
                    header.signals.get_mut(*signal_idx)
                }
                _ => None,
            };
            match (&error, signal) {
                (WfdbError::Checksum { found, .. }, Some(signal)) if signal.checksum != Some(*found) => {
                    signal.checksum = Some(*found);
                }
                (WfdbError::InitialValue { found, .. }, Some(signal)) if signal.initial_value_adu != Some(*found) => {
                    signal.initial_value_adu = Some(*found);
                }
                (WfdbError::Length { file, .. } | WfdbError::SignalData { file, .. }, _) => {
                    let before_n = header.signals.len();
                    header.signals.retain(|signal| signal.file_name != *file);
                    timing.sample_n = header.sample_n;
                    if header.signals.len() == before_n {
                        return timing;
                    }
                }
                (WfdbError::Io { path: missing, .. }, _) => {
                    let before_n = header.signals.len();
                    let file_name = missing.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    header.signals.retain(|signal| signal.file_name != file_name);
                    if header.signals.len() == before_n {
                        return timing;
                    }
                }
                _ => return timing,
            }
        }
    }

    fn annotations(&self, path: &Path, header: &Header, timing: Timing, report: &mut RecordReport) {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        let found = match self.annotators {
            Some(annotators) => annotators.to_vec(),
            None => {
                let signal_files = header.signals.iter().map(|signal| signal.file_name.as_str()).collect();
                annotators_of(folder, name, &signal_files)
            }
        };
        for annotator in found {
            let file: PathBuf = path.with_extension(&annotator);
            if !file.is_file() {
                if self.is_named {
                    report.problems.push(format!("{name}.{annotator}: there is no such annotation file"));
                }
                continue;
            }
            match read_annotations(path, &annotator, timing) {
                Ok(read) => {
                    report.byte_n += fs::metadata(&file).map_or(0, |metadata| metadata.len());
                    report.annotations.insert(annotator, read.items.len());
                }
                Err(error) => report.problems.push(self.local(&error)),
            }
        }
    }
}

fn read_header(path: &Path) -> Result<Header, WfdbError> {
    let origin = path.display().to_string();
    let failed = |source| WfdbError::Io {
        path: path.to_owned(),
        source,
        help: "put the header there, or take the record out of RECORDS",
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_HEADER_BYTE_N as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Header::parse(&bytes, &origin)
}

/// What reading a record to its end tells.
struct WholeRecord {
    timing: Timing,
    lead_n: usize,
}

/// Reads a record to its end, by a header that may differ from the one in the file.
fn read(path: &Path, header: &Header) -> Result<WholeRecord, WfdbError> {
    let origin = path.display().to_string();
    let beside = path.to_owned();
    let mut reader = RecordReader::new(header.to_text()?, &origin, move |name| DataFile::open_beside(&beside, name))?;
    let mut chunk = Chunk::new();
    let mut chunks = reader.chunks(PIECE_FRAME_N);
    while chunks.next_into(&mut chunk)? {}
    Ok(WholeRecord { timing: reader.timing(), lead_n: reader.signals().len() })
}

/// Bytes of the header and the signal files.
fn byte_n(path: &Path, header: &Header) -> u64 {
    let files: BTreeSet<PathBuf> =
        header.signals.iter().map(|signal| path.with_file_name(&signal.file_name)).chain([path.to_owned()]).collect();
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut list = |head: &str, problems: &[String]| {
        if problems.is_empty() {
            return;
        }
        text += &format!("{head}\n");
        for problem in problems {
            text += &match problem.rsplit_once("; ") {
                Some((problem, help)) => format!("  {problem}\n    help: {help}\n"),
                None => format!("  {problem}\n"),
            };
        }
    };
    list("lists", &report.problems);
    for record in &report.records {
        list(&format!("record {}", shown(&record.record)), &record.problems);
    }
    if let Some(sums) = &report.sums {
        list(SUMS, &sums.problems);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let byte_n = report.records.iter().map(|record| record.byte_n).sum();
    text += &format!(
        "{}: {}, {}\n",
        shown(&report.folder),
        counted(report.records.len() as u64, "record"),
        human_bytes(byte_n)
    );
    let mut annotators: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (annotator, count) in report.records.iter().flat_map(|record| &record.annotations) {
        let (file_n, annotation_n) = annotators.entry(annotator).or_default();
        *file_n += 1;
        *annotation_n += *count as u64;
    }
    for (annotator, (file_n, annotation_n)) in annotators {
        text += &format!(
            "annotations {annotator}: {} with {}\n",
            counted(file_n, "file"),
            counted(annotation_n, "annotation")
        );
    }
    if let Some(sums) = &report.sums {
        text += &format!(
            "{SUMS}: {} of {} the same",
            counted(sums.same_n as u64, "file"),
            counted(sums.listed_n as u64, "line")
        );
        text += &match sums.missing.len() {
            0 => "\n".to_owned(),
            missing_n => format!(
                ", {missing_n} not here ({}{})\n",
                shown(&sums.missing[0]),
                if missing_n > 1 { ", ..." } else { "" }
            ),
        };
    }
    let wrong_n = report.records.iter().filter(|record| !record.problems.is_empty()).count();
    text += &match report.problem_n {
        0 => "no problems\n".to_owned(),
        problem_n => format!(
            "{}, {} of {} have some\n",
            counted(problem_n as u64, "problem"),
            wrong_n,
            counted(report.records.len() as u64, "record")
        ),
    };
    text
}
