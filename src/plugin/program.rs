//! Owns the process that runs a job: its environment, its limits, what it says while it works, and its end.
//!
//! A program runs in a process group of its own behind a few lines of `sh`, which set the memory limit and leave a watcher in
//! the group: it holds the other end of a pipe from the host and kills the group when the host is gone, however that happened.
//! When the program ends, is cancelled or takes too long, everything that is left of its group is killed.
//!
//! Invariant: nothing of the host's environment reaches a program but what was named (`the_environment_is_clean`).

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use ecgpipe_sdk::{Context, StageError, StageEvent};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{
    description::Limits,
    protocol::{self, Line, io_error},
};

/// How often a running program is looked at for cancellation and time.
const TICK: Duration = Duration::from_millis(50);
/// How long what a dead program has still in its pipes is waited for.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest line that can be an event, and the piece in which the rest goes to the log.
const LINE_LIMIT_BYTES: u64 = 64 << 10;
/// Most bytes of a job's log; the end is kept beyond it.
const LOG_LIMIT_BYTES: u64 = 16 << 20;
/// What a failure shows of the log.
const TAIL_LINES_N: usize = 10;
const TAIL_LIMIT_BYTES: usize = 4 << 10;

/// Reads the limit and the program from its arguments. The watcher is nobody's child but in the group: a program that waits
/// for its children must not wait for it. Its stdin is a pipe that nobody writes to, so that `read` ends with the host.
const LAUNCHER: &str = r#"exec 3<&0 </dev/null
( ( read -r _ <&3; kill -9 -"$$" ) >/dev/null 2>&1 & )
exec 3<&-
if [ "$1" != none ]; then ulimit -v "$1" || exit 125; fi
shift
exec "$@""#;

/// A program and how to run it.
pub(super) struct Program<'a> {
    /// Program and arguments, without the job.
    pub(super) command: &'a [OsString],
    /// The whole environment; `None` hands on the host's own.
    pub(super) environment: Option<BTreeMap<OsString, OsString>>,
    /// What it may use.
    pub(super) limits: Limits,
}

/// How a program ended.
pub(super) struct Ended {
    /// Its status.
    pub(super) status: ExitStatus,
    /// The last lines of the log.
    pub(super) tail: String,
    /// The log, if something was written and it is kept.
    pub(super) log: Option<PathBuf>,
}

/// Runs a program in a job's folder until its end.
///
/// # Errors
/// If it cannot be started, was cancelled, or took too long.
pub(super) fn run(program: &Program<'_>, folder: &Path, cx: &Context<'_>) -> Result<Ended, StageError> {
    let memory = program.limits.memory_mb.map_or_else(|| "none".to_owned(), |mb| (mb * 1000 * 1000 / 1024).to_string());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(LAUNCHER).arg("sh").arg(memory).args(program.command).arg(protocol::JOB);
    if let Some(environment) = &program.environment {
        command.env_clear().envs(environment);
    }
    command.current_dir(folder).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| StageError::new(format!("failed to start /bin/sh: {error}")))?;
    let group = Pid::from_child(&child);
    // Held until the end: the watcher lives as long as this end of the pipe.
    let lifeline = child.stdin.take();
    let (sender, receiver) = sync_channel(64);
    let stdout = child.stdout.take().expect("stdout was asked for");
    let stderr = child.stderr.take().expect("stderr was asked for");
    let waiting = sender.clone();
    let (from_stdout, from_stderr) = (sender.clone(), sender);
    // They end with the program's pipes, or with the receiver; nobody has to wait for them.
    std::thread::spawn(move || forward(stdout, Said::Stdout, &from_stdout));
    std::thread::spawn(move || forward(stderr, Said::Stderr, &from_stderr));
    std::thread::spawn(move || {
        // Not reaped yet: its number cannot be another process group's while the group is killed.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(group), options));
        let _ = waiting.send(Said::Ended);
    });

    let started = Instant::now();
    let mut log = Log::new(cx.log());
    let mut stopped = None;
    let mut ended_at: Option<Instant> = None;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Said::Stdout(bytes)) => match event(&bytes) {
                Some(event) => tell(cx, event),
                None => log.write(&bytes),
            },
            Ok(Said::Stderr(bytes)) => log.write(&bytes),
            Ok(Said::Ended) => {
                ended_at = Some(Instant::now());
                let _ = kill_process_group(group, Signal::KILL);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Both pipes are at their end, and the program is.
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(ended_at) = ended_at {
            if ended_at.elapsed() > DRAIN {
                break;
            }
        } else if stopped.is_none() {
            if cx.is_cancelled() {
                stopped = Some(StageError::from(ecgpipe_sdk::Cancelled));
            } else if let Some(time) = program.limits.time.filter(|time| started.elapsed() > *time) {
                stopped = Some(too_long(time));
            }
            if stopped.is_some() {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
    drop(receiver);
    let status = child.wait().map_err(|error| StageError::new(format!("failed to wait for the program: {error}")))?;
    drop(lifeline);
    let (tail, log) = log.end(cx);
    match stopped {
        None => Ok(Ended { status, tail, log }),
        Some(error) if error.cancelled => Err(error),
        Some(error) => Err(with_log(error, &tail, log.as_deref())),
    }
}

/// Puts the end of the log and its place behind an error.
pub(super) fn with_log(mut error: StageError, tail: &str, log: Option<&Path>) -> StageError {
    if !tail.is_empty() {
        error.message.push_str(&format!("; the last lines of its log:\n{tail}"));
    }
    if let Some(log) = log {
        let place = format!("the whole log is {}", log.display());
        error.help = Some(error.help.map_or_else(|| place.clone(), |help| format!("{help}; {place}")));
    }
    error
}

fn too_long(time: Duration) -> StageError {
    let error = StageError::new(format!("the program was stopped after its time limit of {} s", time.as_secs_f64()));
    error.help("raise `limits: {time_s: ...}` in its stage.yaml if it needs longer")
}

/// What comes from the threads that listen to a program.
enum Said {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Ended,
}

fn forward(pipe: impl Read, said: fn(Vec<u8>) -> Said, sender: &SyncSender<Said>) {
    let mut reader = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if sender.send(said(line)).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// An event, if the line is one. Everything else is for the log, other JSON among it.
fn event(line: &[u8]) -> Option<Line> {
    if line.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(line).ok()
}

fn tell(cx: &Context<'_>, line: Line) {
    match line {
        Line::Progress { done, total, unit } => cx.progress(done, total, printable(&unit)),
        Line::Metric(point) => cx.metric(point.key, point.step, point.value),
        Line::Note { text } => cx.note(printable(&text)),
        Line::Warning { text } => cx.warn(printable(&text)),
    }
}

/// The event as a program writes it.
pub(super) fn line(event: &StageEvent) -> Line {
    match event.clone() {
        StageEvent::Progress { done, total, unit } => Line::Progress { done, total, unit: unit.into_owned() },
        StageEvent::Metric(point) => Line::Metric(point),
        StageEvent::Note(text) => Line::Note { text },
        StageEvent::Warning(text) => Line::Warning { text },
    }
}

/// Text that cannot steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() && one != '\n' && one != '\t' { '\u{fffd}' } else { one }).collect()
}

/// What a program writes besides events: a file that is made with the first byte, bounded, and the last lines.
struct Log<'a> {
    path: Option<&'a Path>,
    file: Option<fs::File>,
    written_bytes: u64,
    left_out_bytes: u64,
    tail: VecDeque<u8>,
    trouble: Option<io::Error>,
}

impl<'a> Log<'a> {
    fn new(path: Option<&'a Path>) -> Self {
        Self { path, file: None, written_bytes: 0, left_out_bytes: 0, tail: VecDeque::new(), trouble: None }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.tail.extend(&bytes[bytes.len().saturating_sub(TAIL_LIMIT_BYTES)..]);
        let extra_n = self.tail.len().saturating_sub(TAIL_LIMIT_BYTES);
        self.tail.drain(..extra_n);
        if self.written_bytes + bytes.len() as u64 > LOG_LIMIT_BYTES {
            self.left_out_bytes += bytes.len() as u64;
            return;
        }
        self.written_bytes += bytes.len() as u64;
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(path) = self.path.filter(|_| self.trouble.is_none()) else { return };
        let open = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            fs::File::options().create(true).append(true).open(path)
        };
        let written = match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => open().and_then(|file| self.file.insert(file).write_all(bytes)),
        };
        self.trouble = written.err();
    }

    /// The last lines, and the file if there is one.
    fn end(mut self, cx: &Context<'_>) -> (String, Option<PathBuf>) {
        let tail = String::from_utf8_lossy(self.tail.make_contiguous()).into_owned();
        if self.left_out_bytes > 0 {
            self.append(format!("\n[{} bytes left out; the end:]\n{tail}", self.left_out_bytes).as_bytes());
        }
        if let (Some(path), Some(error)) = (self.path, &self.trouble) {
            cx.note(format!("its log is not complete: failed to write {}: {error}", path.display()));
        }
        let lines: Vec<&str> = tail.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let shown = &lines[lines.len().saturating_sub(TAIL_LINES_N)..];
        let shown: Vec<String> = shown.iter().map(|line| format!("    {}", printable(line))).collect();
        (shown.join("\n"), self.file.and(self.path).map(Path::to_owned))
    }
}

/// The words of a command as they are run: files of the plugin's folder by their full path, the program found on `PATH`.
///
/// # Errors
/// A program that there is not, or that is not executable.
pub(super) fn resolve(words: &[String], folder: &Path, search: &OsStr) -> Result<Vec<OsString>, StageError> {
    let mut command: Vec<OsString> = Vec::with_capacity(words.len());
    for word in words {
        let file = folder.join(word);
        command.push(if file.is_file() { std::path::absolute(&file).unwrap_or(file).into() } else { word.into() });
    }
    let Some(first) = command.first_mut() else { return Err(StageError::new("the command is empty")) };
    let shown = first.to_string_lossy().into_owned();
    let executable =
        |path: &Path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if shown.contains('/') {
        return match fs::metadata(&shown) {
            Ok(_) if executable(Path::new(&shown)) => Ok(command),
            Ok(_) => {
                let error = StageError::new(format!("the program {shown} is not executable"));
                Err(error.help(format!("`chmod +x {shown}`, or name its interpreter first in `command`")))
            }
            Err(error) => Err(io_error("find the program", Path::new(&shown), &error)),
        };
    }
    match std::env::split_paths(search).map(|place| place.join(&shown)).find(|path| executable(path)) {
        Some(found) => {
            *first = found.into();
            Ok(command)
        }
        None => {
            let error = StageError::new(format!("there is no program `{shown}` on PATH"));
            Err(error.help(format!("install it, or name a file of {} in `command`", folder.display())))
        }
    }
}

/// The environment of a plugin: enough to find programs, and the same on every machine.
pub(super) fn environment(job: &Path, passed: &[String], threads: usize) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: OsString| environment.insert(name.into(), value);
    for name in passed {
        if let Some(value) = std::env::var_os(name) {
            set(name, value);
        }
    }
    set("PATH", search_path());
    set("HOME", job.join("home").into());
    set("TMPDIR", job.join("tmp").into());
    for name in ["LANG", "LC_ALL"] {
        set(name, "C.UTF-8".into());
    }
    set("TZ", "UTC".into());
    set("PYTHONHASHSEED", "0".into());
    // The plugin's folder is its source; a run must not change it.
    set("PYTHONDONTWRITEBYTECODE", "1".into());
    for name in THREAD_VARIABLES {
        set(name, threads.to_string().into());
    }
    environment
}

/// How the usual numeric libraries are told.
const THREAD_VARIABLES: [&str; 6] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
];

/// Where programs are looked for.
pub(super) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
