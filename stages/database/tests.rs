//! Drives the search and the download against a local HTTP server of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// Three files, as `sha256sum` lists them.
struct Small {
    sums: String,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl Small {
    fn new() -> Small {
        let signal: Vec<u8> = (0..200_000_u32).map(|idx| (idx % 251) as u8).collect();
        let files = BTreeMap::from([("1.dat", signal), ("1.hea", b"1 1 360\n".to_vec()), ("RECORDS", b"1\n".to_vec())]);
        let folder = tempfile::tempdir().unwrap();
        let sum = |(name, bytes): (&&str, &Vec<u8>)| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            format!("{}  {name}\n", sum_of(&path).unwrap())
        };
        Small { sums: files.iter().map(sum).collect(), files }
    }

    fn known(&self) -> Known<'_> {
        let byte_n = self.files.values().map(|bytes| bytes.len() as u64).sum();
        Known { name: "small", url_path: "small/1.0.0", sums: &self.sums, byte_n }
    }
}

/// What a server does with its `n`th request, from 0.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Whole,
    /// The given number of bytes, and then the connection is closed.
    Cut(usize),
    /// Always everything, whatever range is asked for.
    WithoutRanges,
    /// Always the same first bytes, whatever range is asked for.
    CutWithoutRanges(usize),
    WrongByte,
    Status(u16),
}

/// Path and range of a request.
type Request = (String, Option<usize>);

struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(files: BTreeMap<&'static str, Vec<u8>>, answer: impl Fn(usize) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, is_stopped) = (Arc::clone(&requests), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream.unwrap(), &files, &answer, &log);
            }
        });
        Server { address, requests, stopped, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}/files/", self.address)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers one request and closes the connection.
fn serve(
    mut stream: TcpStream,
    files: &BTreeMap<&'static str, Vec<u8>>,
    answer: &dyn Fn(usize) -> Answer,
    log: &Mutex<Vec<Request>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut range = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(from) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = Some(from.trim_end_matches('-').parse::<usize>().unwrap());
        }
    }
    let answer = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), range));
        answer(log.len() - 1)
    };
    let mut bytes = files[path.rsplit('/').next().unwrap()].clone();
    assert!(path.starts_with("/files/small/1.0.0/"), "{path}");
    if let Answer::Status(status) = answer {
        let _ = stream
            .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        return;
    }
    if matches!(answer, Answer::WrongByte) {
        bytes[0] ^= 1;
    }
    let from =
        if matches!(answer, Answer::WithoutRanges | Answer::CutWithoutRanges(_)) { 0 } else { range.unwrap_or(0) };
    let head = match &bytes.get(from..) {
        Some([]) | None => "HTTP/1.1 416 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        Some(rest) if from > 0 => format!(
            "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nConnection: close\r\n\r\n",
            rest.len(),
            bytes.len() - 1,
            bytes.len()
        ),
        Some(rest) => format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len()),
    };
    let rest = bytes.get(from..).unwrap_or_default();
    let sent_n = if let Answer::Cut(byte_n) | Answer::CutWithoutRanges(byte_n) = answer {
        byte_n.min(rest.len())
    } else {
        rest.len()
    };
    // The client may have hung up; that is its affair.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&rest[..sent_n]));
}

fn options(folder: &Path, base_url: String) -> Options {
    Options { data_folder: folder.join("data"), shared_data: None, offline: false, base_url }
}

fn try_locate(small: &Small, options: &Options) -> Result<DatabaseFolder, DatabaseError> {
    locate_among(&[small.known()], "small", options, &|_| {})
}

/// Every file is there, with the right bytes, and nothing else is in the folder.
fn check_complete(small: &Small, database: &DatabaseFolder) {
    let mut names: Vec<String> =
        fs::read_dir(&database.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, small.files.keys().copied().collect::<Vec<_>>());
    for (name, bytes) in &small.files {
        assert_eq!(&fs::read(database.path.join(name)).unwrap(), bytes, "{name}");
    }
    assert!(!database.path.with_file_name(".small.partial").exists());
}

#[test]
fn the_sums_of_mitdb_name_all_files_of_48_records() {
    let [mitdb] = KNOWN else { panic!("one database is known") };
    let files: Vec<(&str, &str)> = mitdb.sums.lines().map(|line| line.split_once("  ").unwrap()).collect();
    assert_eq!(files.len(), 48 * 3 + 1);
    for extension in [".hea", ".dat", ".atr"] {
        assert_eq!(files.iter().filter(|(_, name)| name.ends_with(extension)).count(), 48, "{extension}");
    }
    assert!(files.iter().all(|(sum, _)| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert!(files.iter().any(|(_, name)| *name == "RECORDS"));
}

#[test]
fn the_sums_of_mitdb_are_those_of_its_files() {
    let Some(folder) = std::env::var_os("ECGPIPE_DATA").filter(|folder| !folder.is_empty()) else {
        // Not `eprintln!`, which the test harness swallows.
        writeln!(io::stderr(), "skipped: set ECGPIPE_DATA to the folder that holds mitdb/").unwrap();
        return;
    };
    let folder = PathBuf::from(folder).join("mitdb");
    let mut byte_n = 0;
    for (sum, name) in KNOWN[0].sums.lines().map(|line| line.split_once("  ").unwrap()) {
        assert_eq!(sum_of(&folder.join(name)).unwrap(), sum, "{name}");
        byte_n += fs::metadata(folder.join(name)).unwrap().len();
    }
    assert_eq!(byte_n, KNOWN[0].byte_n);
    assert_eq!(list_records(&folder).unwrap().len(), 48);
}

#[test]
fn downloads_a_database_whole() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |_| Answer::Whole);
    let seen = RefCell::new(Vec::new());
    let progress = |progress: DownloadProgress<'_>| seen.borrow_mut().push((progress.file_idx, progress.done_byte_n));
    let options = options(folder.path(), server.url());
    let database = locate_among(&[small.known()], "small", &options, &progress).unwrap();
    assert_eq!(database.found, Found::Downloaded);
    assert_eq!(database.path, folder.path().join("data/raw/small"));
    check_complete(&small, &database);
    assert_eq!(list_records(&database.path).unwrap(), ["1"]);

    let seen = seen.into_inner();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&(2, small.known().byte_n)));
    assert_eq!(server.requests().len(), 3);

    // The next search asks nobody.
    assert_eq!(try_locate(&small, &options).unwrap().found, Found::InDataFolder);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn resumes_a_cut_file_in_the_same_run() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |n| if n == 0 { Answer::Cut(70_000) } else { Answer::Whole });
    let database = try_locate(&small, &options(folder.path(), server.url())).unwrap();
    check_complete(&small, &database);
    let path = "/files/small/1.0.0/1.dat".to_owned();
    assert_eq!(server.requests()[..2], [(path.clone(), None), (path, Some(70_000))]);
}

#[test]
fn resumes_a_cut_download_in_the_next_run() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |n| Answer::Cut(if n == 0 { 70_000 } else { 0 }));
    let error = try_locate(&small, &options(folder.path(), server.url())).unwrap_err().to_string();
    assert!(error.contains("1.dat: the download stopped: ") && error.contains("; run again to go on"), "{error}");
    assert!(!folder.path().join("data/raw/small").exists());
    drop(server);

    let server = Server::start(small.files.clone(), |_| Answer::Whole);
    check_complete(&small, &try_locate(&small, &options(folder.path(), server.url())).unwrap());
    assert_eq!(server.requests()[0], ("/files/small/1.0.0/1.dat".to_owned(), Some(70_000)));
}

#[test]
fn resumes_at_a_server_without_ranges() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(small.files.clone(), |n| if n == 0 { Answer::Cut(70_000) } else { Answer::WithoutRanges });
    check_complete(&small, &try_locate(&small, &options(folder.path(), server.url())).unwrap());
}

#[test]
fn gives_up_on_a_file_that_comes_no_further() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |_| Answer::CutWithoutRanges(70_000));
    let error = try_locate(&small, &options(folder.path(), server.url())).unwrap_err().to_string();
    assert!(error.contains("1.dat: the download stopped: "), "{error}");
    assert_eq!(server.requests().len(), 4, "the first attempt brought something, three did not");
}

#[test]
fn two_searches_at_once_download_once() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |_| Answer::Whole);
    let options = options(folder.path(), server.url());
    let mut found = std::thread::scope(|scope| {
        let search = || try_locate(&small, &options).unwrap().found;
        [scope.spawn(search), scope.spawn(search)].map(|thread| thread.join().unwrap())
    });
    found.sort_by_key(|found| *found == Found::Downloaded);
    assert_eq!(found, [Found::InDataFolder, Found::Downloaded]);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn leaves_a_folder_of_something_else_alone() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |_| Answer::Whole);
    let options = options(folder.path(), server.url());
    let own = options.data_folder.join("raw/small");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("notes.txt"), "mine").unwrap();
    let error = try_locate(&small, &options).unwrap_err().to_string();
    assert!(
        error.contains("small: making place for a download (what is here has no records: move it away): "),
        "{error}"
    );
    assert_eq!(server.requests(), []);
    assert!(own.join("notes.txt").exists());
}

#[test]
fn resumes_from_pieces_that_an_earlier_run_left() {
    let small = Small::new();
    let signal = &small.files["1.dat"];
    let longer = [&signal[..], &[7]].concat();
    let pieces: [(&str, &[u8]); 5] = [
        ("1.dat.part", signal),
        ("1.dat.part", &longer),
        ("1.dat.part", b"something else"),
        ("1.dat", b"damaged"),
        ("1.dat", signal),
    ];
    for (name, piece) in pieces {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("data/raw/.small.partial");
        fs::create_dir_all(&partial).unwrap();
        fs::write(partial.join(name), piece).unwrap();
        let server = Server::start(small.files.clone(), |_| Answer::Whole);
        check_complete(&small, &try_locate(&small, &options(folder.path(), server.url())).unwrap());
    }
}

#[test]
fn refuses_wrong_bytes() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |_| Answer::WrongByte);
    let options = options(folder.path(), server.url());
    let error = try_locate(&small, &options).unwrap_err().to_string();
    assert!(error.contains("1.dat: its SHA-256 sum is ") && error.contains("; the server or a proxy sends"), "{error}");
    assert!(error.contains("set ECGPIPE_DATA to a folder that holds small/"), "{error}");
    assert!(!options.data_folder.join("raw/small").exists());
    assert_eq!(fs::read_dir(options.data_folder.join("raw/.small.partial")).unwrap().count(), 0);
}

#[test]
fn reports_a_file_that_the_server_does_not_have() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(small.files.clone(), |n| if n == 1 { Answer::Status(404) } else { Answer::Whole });
    let error = try_locate(&small, &options(folder.path(), server.url())).unwrap_err().to_string();
    assert!(error.contains("/files/small/1.0.0/1.hea: the server answered 404; set ECGPIPE_DATA"), "{error}");
}

#[test]
fn names_every_way_out_without_a_network() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let online = options(folder.path(), format!("http://{address}/files"));
    let offline = Options { offline: true, shared_data: Some(folder.path().join("shared")), ..online.clone() };
    let own = folder.path().join("data/raw/small");
    for (options, why) in [(&online, "1.dat cannot be reached ("), (&offline, "was not downloaded: offline; ")] {
        let error = try_locate(&small, options).unwrap_err().to_string();
        let files = format!("put the files of http://{address}/files/small/1.0.0/ into {} by hand", own.display());
        let start = format!("database small is not in {}", own.display());
        let wanted =
            [&start, why, "set ECGPIPE_DATA to a folder that holds small/", &files, ", or run once with network"];
        for part in wanted {
            assert!(error.contains(part), "\nexpected: {part}\n   found: {error}");
        }
    }
    let error = locate_among(&[small.known()], "other", &offline, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("only small can be downloaded") && !error.contains("network"), "{error}");
}

#[test]
fn looks_in_the_data_folder_then_in_the_shared_one() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    let options = Options { shared_data: Some(shared.clone()), offline: true, ..options(folder.path(), String::new()) };
    let put = |folder: &Path| {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("7.hea"), "7 0\n").unwrap();
    };
    put(&shared.join("small"));
    // A folder without records is not a database.
    fs::create_dir_all(options.data_folder.join("raw/small")).unwrap();
    let found = try_locate(&small, &options).unwrap();
    assert_eq!((found.found, found.path), (Found::InSharedData, shared.join("small")));

    put(&options.data_folder.join("raw/small"));
    let found = try_locate(&small, &options).unwrap();
    assert_eq!((found.found, found.path), (Found::InDataFolder, options.data_folder.join("raw/small")));

    let path = format!("{}/small", shared.display());
    let found = try_locate_path(&path, &options).unwrap();
    assert_eq!((found.found, found.name.as_str(), found.path), (Found::ByPath, "small", PathBuf::from(&path)));
    let error = try_locate_path("no/such", &options).unwrap_err().to_string();
    assert_eq!(error, "no/such: there is no such folder; give the folder that holds the records' .hea files");
    for name in ["", ".hidden", "mit db", "mitdb\0"] {
        assert!(matches!(try_locate_path(name, &options), Err(DatabaseError::Name { .. })), "{name:?}");
    }
}

fn try_locate_path(name: &str, options: &Options) -> Result<DatabaseFolder, DatabaseError> {
    locate(name, options, &|_| {})
}

#[test]
fn lists_records() {
    let folder = tempfile::tempdir().unwrap();
    let check = |expected: Result<&[&str], &str>| match (list_records(folder.path()), expected) {
        (Ok(records), Ok(expected)) => assert_eq!(records, expected),
        (Err(error), Err(expected)) => assert!(error.to_string().ends_with(expected), "{error}"),
        (found, expected) => panic!("expected {expected:?}, found {found:?}"),
    };
    check(Err("there is neither a file RECORDS nor a .hea file; give the folder that holds the records' .hea files"));
    for name in ["9.hea", "10.hea", "10.dat", "sub.hea"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    check(Ok(&["10", "9", "sub"]));
    let list = |text: &str| fs::write(folder.path().join("RECORDS"), text).unwrap();
    list("9\r\n\n 10\n");
    check(Ok(&["9", "10"]));
    list("9\n11\n");
    check(Err("RECORDS:2: record `11` has no .hea file here; put it there, or remove the line"));
    list("9\n9\n");
    check(Err("RECORDS:2: record `9` stands there twice; remove one line"));
    for record in ["../9", "/9", "a//9", "a\\9"] {
        list(record);
        let problem = "leaves the folder or is no record name; correct the line";
        check(Err(&format!("RECORDS:1: record `{}` {problem}", record.escape_debug())));
    }
}
