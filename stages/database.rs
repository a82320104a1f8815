//! Where a WFDB database is found, and how it gets there.
//!
//! A database is asked for by name (`mitdb`) or by the path of its folder. By name it is looked for in
//! `DATA/raw/mitdb`, then in `SHARED/mitdb`, and then downloaded into the first place. This module owns that search, the
//! download and the list of records; it knows nothing of what a record holds.
//!
//! The environment and the working directory enter only through [`Options`]; the one exception is the HTTP proxy, which
//! the HTTP client takes from its usual environment variables.
//!
//! - Invariant: a folder in `DATA/raw` appears whole or not at all. A download grows in `DATA/raw/.NAME.partial`, every
//!   file in it is checked against the SHA-256 sum that is compiled in, and the folder is renamed when the last one is
//!   there (`tests::downloads_a_database_whole`, `tests::refuses_wrong_bytes`).
//! - Invariant: a download that was cut goes on where it stopped, in the same run or the next (`tests::resumes_*`).
//! - Invariant: two processes that want the same database download it once: an OS lock on `DATA/raw/.NAME.lock`, which
//!   the kernel releases with the process (`tests::two_searches_at_once_download_once`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Where PhysioNet serves its databases; the value of [`Options::base_url`] outside tests.
pub const PHYSIONET_URL: &str = "https://physionet.org/files";

/// No file of a database that is downloaded is larger; a server that sends more is not the right one.
const MAX_FILE_BYTE_N: u64 = 64 << 20;
/// Attempts in a row that may bring a file no further before the download gives up.
const MAX_VAIN_ATTEMPT_N: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may stay silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// A database that can be downloaded.
#[derive(Debug, Clone, Copy)]
struct Known<'a> {
    name: &'a str,
    /// Under the base URL.
    url_path: &'a str,
    /// One line a file, as `sha256sum` writes and checks them. The list of files is this list.
    sums: &'a str,
    /// All files together.
    byte_n: u64,
}

/// The sums of mitdb are those of PhysioNet's own `SHA256SUMS.txt`, for RECORDS and the header, signal and reference
/// annotation file of each of the 48 records.
const KNOWN: &[Known<'static>] = &[Known {
    name: "mitdb",
    url_path: "mitdb/1.0.0",
    sums: include_str!("database/mitdb.sha256"),
    byte_n: 93_857_258,
}];

/// Where to look, and whether to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The project's data folder, `data`; databases are in its `raw` folder.
    pub data_folder: PathBuf,
    /// A folder of databases shared between projects: the value of `ECGPIPE_DATA`, if it is set and not empty.
    pub shared_data: Option<PathBuf>,
    /// Never download.
    pub offline: bool,
    /// The server's folder of databases, [`PHYSIONET_URL`].
    pub base_url: String,
}

/// A database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFolder {
    /// The database's name; for a path the name of its last folder.
    pub name: String,
    /// The folder that holds its records.
    pub path: PathBuf,
    /// How it was found.
    pub found: Found,
}

/// How a database was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The caller gave its path.
    ByPath,
    /// In the project's data folder.
    InDataFolder,
    /// In the shared folder of databases.
    InSharedData,
    /// It was not there, and was downloaded into the project's data folder.
    Downloaded,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    /// The database.
    pub database: &'a str,
    /// The file that is being fetched.
    pub file_name: &'a str,
    /// Its position in the list of files, from 0.
    pub file_idx: usize,
    /// How many files there are.
    pub file_n: usize,
    /// Bytes that are there, of all files, earlier attempts included.
    pub done_byte_n: u64,
    /// Bytes of the whole database.
    pub total_byte_n: u64,
}

/// Why a database, or the list of its records, could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The name is neither a name nor a path.
    #[error("database name `{}` is not letters, digits, `-`, `_` and `.`; give a name such as mitdb, or the path of a folder, such as ./{}", .name.escape_debug(), .name.escape_debug())]
    Name {
        /// What was given.
        name: String,
    },
    /// A path was given, and no folder is there.
    #[error("{}: there is no such folder; give the folder that holds the records' .hea files", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The database is in none of its places and could not be downloaded.
    #[error("database {name} is not in {looked_in}, and was not downloaded: {why}; {ways_out}")]
    NotFound {
        /// The database.
        name: String,
        /// The places.
        looked_in: String,
        /// Why there was no download.
        why: String,
        /// All that the user can do.
        ways_out: String,
    },
    /// The server does not have a file.
    #[error("{url}: the server answered {status}; {ways_out}")]
    Status {
        /// The file's address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// All that the user can do.
        ways_out: String,
    },
    /// The download stopped in the middle.
    #[error("{url}: the download stopped: {why}; run again to go on where it stopped, or {ways_out}")]
    Interrupted {
        /// The file's address.
        url: String,
        /// Why.
        why: String,
        /// All else that the user can do.
        ways_out: String,
    },
    /// A file that was downloaded is not the one that it should be.
    #[error(
        "{url}: its SHA-256 sum is {found}, but {expected} is right; the server or a proxy sends something else: open the address in a browser, or {ways_out}"
    )]
    Sum {
        /// The file's address.
        url: String,
        /// The sum that is compiled in.
        expected: String,
        /// The sum of what came.
        found: String,
        /// All else that the user can do.
        ways_out: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {doing}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder has no records.
    #[error("{}: there is neither a file RECORDS nor a .hea file; give the folder that holds the records' .hea files", .folder.display())]
    NoRecords {
        /// The folder.
        folder: PathBuf,
    },
    /// RECORDS is wrong.
    #[error("{}:{line}: record `{}` {problem}", .path.display(), .record.escape_debug())]
    Records {
        /// The file RECORDS.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The record on that line.
        record: String,
        /// What is wrong, and a way out.
        problem: &'static str,
    },
}

/// Finds a database, and downloads it if it is known and neither here nor offline.
///
/// `name_or_path` with a path separator is a folder, taken as it is. `progress` is told of every file and every chunk.
///
/// # Errors
///
/// A path without a folder, a name in none of its places that cannot be downloaded, and a download that fails: see
/// [`DatabaseError`]. What a failed download has fetched is kept for the next one.
pub fn locate(
    name_or_path: &str,
    options: &Options,
    progress: &dyn Fn(DownloadProgress<'_>),
) -> Result<DatabaseFolder, DatabaseError> {
    locate_among(KNOWN, name_or_path, options, progress)
}

/// The records of a database's folder: those of its file RECORDS in their order, or else all `.hea` files by name.
///
/// Each name is a path below the folder, without an extension; its header exists.
///
/// # Errors
///
/// A folder that cannot be read or has no records, and a line of RECORDS that is doubled, has no header, or leaves the
/// folder.
pub fn list_records(folder: &Path) -> Result<Vec<String>, DatabaseError> {
    let list_path = folder.join("RECORDS");
    let records = match fs::read_to_string(&list_path) {
        Ok(text) => checked_records(folder, &list_path, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => header_names(folder)?.into_iter().collect(),
        Err(source) => return Err(DatabaseError::Io { path: list_path, doing: "reading the list of records", source }),
    };
    if records.is_empty() {
        return Err(DatabaseError::NoRecords { folder: folder.to_owned() });
    }
    Ok(records)
}

fn checked_records(folder: &Path, list_path: &Path, text: &str) -> Result<Vec<String>, DatabaseError> {
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    for (line_idx, line) in text.lines().enumerate() {
        let record = line.trim();
        if record.is_empty() {
            continue;
        }
        let fail = |problem| {
            Err(DatabaseError::Records {
                path: list_path.to_owned(),
                line: line_idx + 1,
                record: record.chars().take(60).collect(),
                problem,
            })
        };
        let is_inside = record.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_inside || record.contains(['\\', ':']) || record.contains(char::is_control) {
            return fail("leaves the folder or is no record name; correct the line");
        }
        if !folder.join(format!("{record}.hea")).is_file() {
            return fail("has no .hea file here; put it there, or remove the line");
        }
        if !seen.insert(record) {
            return fail("stands there twice; remove one line");
        }
        records.push(record.to_owned());
    }
    Ok(records)
}

fn header_names(folder: &Path) -> Result<BTreeSet<String>, DatabaseError> {
    let failed = |source| DatabaseError::Io { path: folder.to_owned(), doing: "listing the folder", source };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_header = path.extension().is_some_and(|extension| extension == "hea");
        if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_header) {
            names.insert(stem.to_owned());
        }
    }
    Ok(names)
}

fn locate_among(
    known: &[Known<'_>],
    name_or_path: &str,
    options: &Options,
    progress: &dyn Fn(DownloadProgress<'_>),
) -> Result<DatabaseFolder, DatabaseError> {
    if name_or_path.contains(['/', '\\']) || matches!(name_or_path, "." | "..") {
        return by_path(Path::new(name_or_path));
    }
    let name = name_or_path;
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_name_byte) {
        return Err(DatabaseError::Name { name: name.to_owned() });
    }
    let folder = |path, found| DatabaseFolder { name: name.to_owned(), path, found };

    let own_path = options.data_folder.join("raw").join(name);
    if has_records(&own_path) {
        return Ok(folder(own_path, Found::InDataFolder));
    }
    let shared_path = options.shared_data.as_ref().map(|shared| shared.join(name));
    if let Some(path) = shared_path.as_ref().filter(|path| has_records(path)) {
        return Ok(folder(path.clone(), Found::InSharedData));
    }

    let search = Search { name, own_path: &own_path, shared_path: shared_path.as_deref(), options, progress };
    let Some(known) = known.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = known.iter().map(|known| known.name).collect();
        return Err(search.not_found(None, format!("only {} can be downloaded", names.join(", "))));
    };
    if options.offline {
        return Err(search.not_found(Some(known), "offline".to_owned()));
    }
    let found = search.download(known)?;
    Ok(folder(own_path, found))
}

fn by_path(path: &Path) -> Result<DatabaseFolder, DatabaseError> {
    if !path.is_dir() {
        return Err(DatabaseError::NotAFolder { path: path.to_owned() });
    }
    let name = path.file_name().map_or_else(|| "database".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(DatabaseFolder { name, path: path.to_owned(), found: Found::ByPath })
}

/// Whether a folder is a database: an empty folder, or one of something else, is not.
fn has_records(folder: &Path) -> bool {
    folder.join("RECORDS").is_file() || header_names(folder).is_ok_and(|names| !names.is_empty())
}

/// One search for one database that was not found at once.
struct Search<'a> {
    name: &'a str,
    own_path: &'a Path,
    shared_path: Option<&'a Path>,
    options: &'a Options,
    progress: &'a dyn Fn(DownloadProgress<'_>),
}

impl Search<'_> {
    fn not_found(&self, known: Option<&Known<'_>>, why: String) -> DatabaseError {
        let looked_in = match self.shared_path {
            Some(shared) => format!("{} or {}", self.own_path.display(), shared.display()),
            None => format!("{} (and ECGPIPE_DATA is not set)", self.own_path.display()),
        };
        let again = if known.is_some() { ", or run once with network" } else { "" };
        let ways_out = format!("{}{again}", self.ways_out(known));
        DatabaseError::NotFound { name: self.name.to_owned(), looked_in, why, ways_out }
    }

    /// What helps without a download.
    fn ways_out(&self, known: Option<&Known<'_>>) -> String {
        let files = match known {
            Some(known) => format!("the files of {}/{}/", self.options.base_url.trim_end_matches('/'), known.url_path),
            None => "its files".to_owned(),
        };
        format!(
            "set ECGPIPE_DATA to a folder that holds {}/, or put {files} into {} by hand",
            self.name,
            self.own_path.display()
        )
    }

    fn download(&self, known: &Known<'_>) -> Result<Found, DatabaseError> {
        let raw = self.own_path.parent().expect("the path of a database is DATA/raw/NAME");
        let partial = raw.join(format!(".{}.partial", self.name));
        fs::create_dir_all(raw).map_err(io_error(raw, "creating the folder"))?;
        let lock_path = raw.join(format!(".{}.lock", self.name));
        let lock = File::create(&lock_path).map_err(io_error(&lock_path, "creating the lock file"))?;
        lock.lock().map_err(io_error(&lock_path, "waiting for another download"))?;
        if has_records(self.own_path) {
            // Another process was faster.
            return Ok(Found::InDataFolder);
        }
        // Only an empty folder goes; whatever else is there is the user's, and is met before the download, not after.
        match fs::remove_dir(self.own_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let doing = "making place for a download (what is here has no records: move it away)";
                return Err(io_error(self.own_path, doing)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&partial).map_err(io_error(&partial, "creating the folder"))?;

        let agent = agent(&self.options.base_url);
        let files: Vec<(&str, &str)> = known.sums.lines().filter_map(|line| line.split_once("  ")).collect();
        let mut done_byte_n = 0;
        for (file_idx, (sum, file_name)) in files.iter().enumerate() {
            let fetch = Fetch {
                search: self,
                known,
                agent: &agent,
                url: format!("{}/{}/{file_name}", self.options.base_url.trim_end_matches('/'), known.url_path),
                sum,
                file_name,
                file_idx,
                file_n: files.len(),
                done_byte_n,
            };
            done_byte_n += fetch.run(&partial.join(file_name))?;
        }
        sync_folder(&partial)?;
        fs::rename(&partial, self.own_path).map_err(io_error(self.own_path, "moving the complete download here"))?;
        sync_folder(raw)?;
        Ok(Found::Downloaded)
    }
}

/// One file of a download.
struct Fetch<'a> {
    search: &'a Search<'a>,
    known: &'a Known<'a>,
    agent: &'a ureq::Agent,
    url: String,
    sum: &'a str,
    file_name: &'a str,
    file_idx: usize,
    file_n: usize,
    /// Bytes of the files before this one.
    done_byte_n: u64,
}

/// What an attempt to fetch the rest of a file came to.
enum Attempt {
    /// The server has sent all it has.
    Complete,
    /// It stopped early, and why.
    Cut(String),
}

impl Fetch<'_> {
    /// Makes sure that `path` is the right file; gives its size.
    fn run(&self, path: &Path) -> Result<u64, DatabaseError> {
        if path.is_file() {
            if sum_of(path)? == self.sum {
                return self.finished(path);
            }
            fs::remove_file(path).map_err(io_error(path, "removing a damaged file"))?;
        }
        let mut part_name = path.as_os_str().to_owned();
        part_name.push(".part");
        let part_path = PathBuf::from(part_name);
        let mut part = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part_path)
            .map_err(io_error(&part_path, "opening the file"))?;

        let mut is_resumed = self.fetch_all(&mut part, &part_path)?;
        loop {
            part.sync_all().map_err(io_error(&part_path, "writing the file"))?;
            let found = sum_of(&part_path)?;
            if found == self.sum {
                break;
            }
            truncate(&mut part, &part_path)?;
            if !is_resumed {
                drop(part);
                let _ = fs::remove_file(&part_path);
                return Err(DatabaseError::Sum {
                    url: self.url.clone(),
                    expected: self.sum.to_owned(),
                    found,
                    ways_out: self.search.ways_out(Some(self.known)),
                });
            }
            // The piece that was there may have been of another file: once more, from the start.
            self.fetch_all(&mut part, &part_path)?;
            is_resumed = false;
        }
        drop(part);
        fs::rename(&part_path, path).map_err(io_error(path, "naming the complete file"))?;
        self.finished(path)
    }

    fn finished(&self, path: &Path) -> Result<u64, DatabaseError> {
        let byte_n = fs::metadata(path).map_err(io_error(path, "reading the file's size"))?.len();
        self.report(byte_n);
        Ok(byte_n)
    }

    fn report(&self, file_byte_n: u64) {
        (self.search.progress)(DownloadProgress {
            database: self.known.name,
            file_name: self.file_name,
            file_idx: self.file_idx,
            file_n: self.file_n,
            done_byte_n: self.done_byte_n + file_byte_n,
            total_byte_n: self.known.byte_n,
        });
    }

    /// Fetches what `part` lacks, in as many attempts as it takes; gives whether a piece was there before.
    fn fetch_all(&self, part: &mut File, part_path: &Path) -> Result<bool, DatabaseError> {
        let mut have_byte_n =
            part.seek(io::SeekFrom::End(0)).map_err(io_error(part_path, "reading the file's size"))?;
        let is_resumed = have_byte_n > 0;
        let mut most_byte_n = have_byte_n;
        let mut vain_attempt_n = 0;
        loop {
            self.report(have_byte_n);
            let why = match self.attempt(part, part_path, have_byte_n)? {
                Attempt::Complete => return Ok(is_resumed),
                Attempt::Cut(why) => why,
            };
            have_byte_n = part.seek(io::SeekFrom::End(0)).map_err(io_error(part_path, "reading the file's size"))?;
            // A server without ranges starts over each time: what counts is how far the file has come at all.
            vain_attempt_n = if have_byte_n > most_byte_n { 0 } else { vain_attempt_n + 1 };
            most_byte_n = most_byte_n.max(have_byte_n);
            if vain_attempt_n == MAX_VAIN_ATTEMPT_N {
                return Err(self.interrupted(why));
            }
        }
    }

    /// One request for what `part` lacks behind its first `have_byte_n` bytes.
    fn attempt(&self, part: &mut File, part_path: &Path, have_byte_n: u64) -> Result<Attempt, DatabaseError> {
        let mut request = self.agent.get(&self.url);
        if have_byte_n > 0 {
            request = request.header("Range", format!("bytes={have_byte_n}-"));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            // Nothing at all was fetched before: there is no network, rather than a bad moment of it.
            Err(error) if have_byte_n == 0 && self.done_byte_n == 0 => {
                let why = format!("{} cannot be reached ({error})", self.url);
                return Err(self.search.not_found(Some(self.known), why));
            }
            Err(error) => return Ok(Attempt::Cut(error.to_string())),
        };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        match response.status().as_u16() {
            206 if header("content-range").is_some_and(|range| range.starts_with(&format!("bytes {have_byte_n}-"))) => {
            }
            // The server sends everything (it does not know ranges), or nothing is left to send: the part may be
            // complete, or longer than the file; its sum will tell.
            200 => truncate(part, part_path)?,
            416 => return Ok(Attempt::Complete),
            206 => {
                truncate(part, part_path)?;
                return Ok(Attempt::Cut("the server sent another range than was asked for".to_owned()));
            }
            status => {
                let ways_out = self.search.ways_out(Some(self.known));
                return Err(DatabaseError::Status { url: self.url.clone(), status, ways_out });
            }
        }

        let mut here_byte_n =
            part.seek(io::SeekFrom::End(0)).map_err(io_error(part_path, "reading the file's size"))?;
        let mut body = response.body_mut().as_reader();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let chunk_byte_n = match body.read(&mut chunk) {
                Ok(0) => return Ok(Attempt::Complete),
                Ok(byte_n) => byte_n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Cut(error.to_string())),
            };
            part.write_all(&chunk[..chunk_byte_n]).map_err(io_error(part_path, "writing the file"))?;
            here_byte_n += chunk_byte_n as u64;
            if here_byte_n > MAX_FILE_BYTE_N {
                truncate(part, part_path)?;
                return Err(self.interrupted(format!("the server sends more than {MAX_FILE_BYTE_N} bytes")));
            }
            self.report(here_byte_n);
        }
    }

    fn interrupted(&self, why: String) -> DatabaseError {
        let ways_out = self.search.ways_out(Some(self.known));
        DatabaseError::Interrupted { url: self.url.clone(), why, ways_out }
    }
}

fn agent(base_url: &str) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT))
        .user_agent(concat!("ecgpipe/", env!("CARGO_PKG_VERSION")));
    // A server on this machine is not behind a proxy.
    let is_local =
        ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|host| base_url.starts_with(host));
    let config = if is_local { config.proxy(None) } else { config };
    config.build().into()
}

fn truncate(part: &mut File, part_path: &Path) -> Result<(), DatabaseError> {
    part.set_len(0).and_then(|()| part.rewind()).map_err(io_error(part_path, "emptying the file"))
}

/// The SHA-256 sum of a file, in lower-case hexadecimal digits.
fn sum_of(path: &Path) -> Result<String, DatabaseError> {
    let mut file = File::open(path).map_err(io_error(path, "opening the file"))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(byte_n) => hasher.update(&chunk[..byte_n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path, "reading the file")(error)),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the names in a folder durable. Only Unix can open a folder; elsewhere a rename is as durable as it gets.
fn sync_folder(folder: &Path) -> Result<(), DatabaseError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder, "writing the folder"))?;
    }
    Ok(())
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DatabaseError {
    let path = path.to_owned();
    move |source| DatabaseError::Io { path, doing, source }
}

#[cfg(test)]
mod tests;
