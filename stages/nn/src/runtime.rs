//! Finding, fetching and loading ONNX Runtime's shared library.
//!
//! The library is not linked: it is looked for when it is needed, in this order:
//! 1. the file that `$ORT_DYLIB_PATH` names;
//! 2. the cache folder, where an earlier fetch put it;
//! 3. the Python package `onnxruntime`, if `python3` has one;
//! 4. the wheel of that package on PyPI, whose library is put into the cache folder, unless the search is offline.
//!
//! Nothing found is not an error: [`Search::run`] says what was tried, and tract serves instead.
//!
//! Invariants: what comes from the network is used only if its SHA-256 is the one pinned here, and a cached library is
//! checked again before it is loaded (`a_cached_library_that_was_changed_is_not_loaded`); a file in the cache is
//! renamed into place whole. ONNX Runtime allows one environment in a process, so the first library that loads stays
//! for good.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// Version of ONNX Runtime that is fetched. Any library from 1.24 on (the enabled `api-24` of `ort`) can be loaded.
pub const FETCHED_VERSION: &str = "1.32.0";
/// Environment variable that names the library to use.
pub const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
/// The largest wheel is 28 MB; more than this is not one.
const DOWNLOAD_BYTE_N_MAX: u64 = 64 << 20;

/// A wheel on PyPI and the library in it. Digests: `https://pypi.org/simple/onnxruntime/`, and `sha256sum` of the
/// library in the verified wheel.
struct Wheel {
    system: &'static str,
    architecture: &'static str,
    url: &'static str,
    wheel_sha256: &'static str,
    member: &'static str,
    library_sha256: &'static str,
}

const WHEELS: [Wheel; 3] = [
    Wheel {
        system: "linux",
        architecture: "x86_64",
        url: "https://files.pythonhosted.org/packages/1d/46/e6f356c9539d2eed44126de3421a81e217da2ad91b22dc11b379cb1e384f/onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        wheel_sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        library_sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    },
    Wheel {
        system: "linux",
        architecture: "aarch64",
        url: "https://files.pythonhosted.org/packages/b7/30/103820b32e9dc1d1fcfc5b519fd2de5bd699d25a25895caf5d726350d1b5/onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        wheel_sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        library_sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    },
    Wheel {
        system: "macos",
        architecture: "aarch64",
        url: "https://files.pythonhosted.org/packages/b7/5d/50be370b540a6cb9ea173503f5418e8315dfe5757400ad7720542d348b94/onnxruntime-1.32.0-cp311-cp311-macosx_14_0_arm64.whl",
        wheel_sha256: "366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c",
        member: "onnxruntime/capi/libonnxruntime.1.32.0.dylib",
        library_sha256: "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
    },
];

/// Where to look for ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Folder where a fetched library is kept; without one nothing is fetched.
    pub cache_folder: Option<PathBuf>,
    /// Whether to ask `python3` for its package.
    pub ask_python: bool,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// The outcome of a [`Search`].
#[derive(Debug, Clone)]
pub struct Found {
    /// The loaded library, if there is one.
    pub library: Option<Library>,
    /// What was tried before and did not serve, one sentence each, for a person.
    pub notes: Vec<String>,
}

impl Search {
    /// Looks for the library and loads the first that serves.
    pub fn run(&self) -> Found {
        let mut notes = Vec::new();
        if let Some(library) = loaded() {
            return Found { library: Some(library), notes };
        }
        type Place<'a> = (&'static str, &'a dyn Fn() -> Option<Result<PathBuf, RuntimeError>>);
        let places: [Place<'_>; 4] = [
            (PATH_VARIABLE, &|| {
                std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()).map(|path| Ok(path.into()))
            }),
            ("the cache folder", &|| self.cached()),
            ("the Python package", &|| self.ask_python.then(python_library)),
            ("PyPI", &|| (!self.offline).then(|| self.fetch())),
        ];
        for (name, place) in places {
            match place().map(|path| path.and_then(|path| Library::load(&path))) {
                Some(Ok(library)) => return Found { library: Some(library), notes },
                Some(Err(error)) => notes.push(format!("{name}: {error}")),
                None => {}
            }
        }
        Found { library: None, notes }
    }

    /// The cached library, verified.
    fn cached(&self) -> Option<Result<PathBuf, RuntimeError>> {
        let wheel = wheel().ok()?;
        let path = cached_path(self.cache_folder.as_ref()?, wheel);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(source) => return Some(Err(RuntimeError::File { path, source })),
        };
        Some(verify(&bytes, wheel.library_sha256, &path.display().to_string()).map(|()| path))
    }

    /// Fetches the wheel and puts its library into the cache folder.
    fn fetch(&self) -> Result<PathBuf, RuntimeError> {
        let folder = self.cache_folder.as_ref().ok_or(RuntimeError::NoCacheFolder)?;
        let wheel = wheel()?;
        let bytes = download(wheel.url)?;
        verify(&bytes, wheel.wheel_sha256, wheel.url)?;
        let damaged = |error: &dyn std::fmt::Display| RuntimeError::Wheel { url: wheel.url, text: error.to_string() };
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let mut library = Vec::new();
        let member = archive.by_name(wheel.member).map_err(|error| damaged(&error))?;
        member.take(DOWNLOAD_BYTE_N_MAX).read_to_end(&mut library).map_err(|error| damaged(&error))?;
        verify(&library, wheel.library_sha256, wheel.member)?;
        let path = cached_path(folder, wheel);
        publish(&path, &library).map_err(|source| RuntimeError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// ONNX Runtime, loaded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Library {
    /// The file that it came from.
    pub path: PathBuf,
    /// Its version, such as `1.32.0`.
    pub version: String,
    pub(crate) environment: Arc<ort::environment::Environment>,
}

/// ONNX Runtime allows one environment in a process. And ort 2.0.0-rc.14 must not be asked again after a library
/// failed to load: it then takes the empty slot of the failed one for a library. So the first outcome stays.
static LOADED: Mutex<Option<Result<Library, String>>> = Mutex::new(None);

fn loaded() -> Option<Library> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).clone()?.ok()
}

impl Library {
    /// Loads a library file. Once one is loaded, every later call gives that one, whatever its path. A file that
    /// looks like the right library and still does not load (say, for want of another library) makes every later call
    /// fail in this process.
    ///
    /// # Errors
    /// When the file is no library, is no ONNX Runtime, or is older than version 1.24.
    pub fn load(path: &Path) -> Result<Self, RuntimeError> {
        let problem = |text: String| RuntimeError::Load { path: path.to_owned(), text };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some(Ok(library)) => return Ok(library.clone()),
            Some(Err(text)) => {
                return Err(problem(format!("an earlier library failed to load ({text}), which is final")));
            }
            None => {}
        }
        let version = inspect(path).map_err(problem)?;
        let library = Self::load_inspected(path, version);
        *loaded = Some(library.clone());
        library.map_err(problem)
    }

    fn load_inspected(path: &Path, version: String) -> Result<Self, String> {
        // ort resolves a relative path beside the executable; here it means what it means everywhere else.
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let builder = ort::init_from(&path).map_err(|error| error.to_string())?;
        let environment =
            builder.with_name("ecgpipe").with_telemetry(false).build().map_err(|error| error.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(Self { path, version, environment: Arc::new(environment) })
    }
}

/// Finds out from its bytes whether a file is ONNX Runtime for this system and new enough, because a failed load is
/// final. Gives its version.
fn inspect(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let magic: &[u8] = match std::env::consts::OS {
        "macos" => &[0xcf, 0xfa, 0xed, 0xfe],
        "windows" => b"MZ",
        _ => b"\x7fELF",
    };
    if !bytes.starts_with(magic) {
        return Err("it is no shared library of this system".to_owned());
    }
    let find = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text);
    if find(b"OrtGetApiBase").is_none() {
        return Err("it does not export `OrtGetApiBase`".to_owned());
    }
    // Linux libraries carry the version in their symbols (`VERS_1.32.0`), others at most in their name.
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let version = match find(b"VERS_1.") {
        Some(at) => &bytes[at + 5..],
        None => &name[name.iter().position(u8::is_ascii_digit).unwrap_or(name.len())..],
    };
    let length = version.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(version.len());
    let version = String::from_utf8_lossy(&version[..length]).trim_matches('.').to_owned();
    match version.split('.').nth(1).map(str::parse::<u32>) {
        Some(Ok(minor)) if minor < ort::MINOR_VERSION => {
            Err(format!("it is version {version}; needed is 1.{} or newer", ort::MINOR_VERSION))
        }
        Some(Ok(_)) => Ok(version),
        _ => Ok("of unknown version".to_owned()),
    }
}

fn wheel() -> Result<&'static Wheel, RuntimeError> {
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    WHEELS
        .iter()
        .find(|wheel| wheel.system == system && wheel.architecture == architecture)
        .ok_or(RuntimeError::Platform { system, architecture })
}

fn cached_path(folder: &Path, wheel: &Wheel) -> PathBuf {
    let name = wheel.member.rsplit('/').next().unwrap_or(wheel.member);
    folder.join(format!("{}-{}-{name}", wheel.system, wheel.architecture))
}

fn verify(bytes: &[u8], expected: &'static str, what: &str) -> Result<(), RuntimeError> {
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected { Ok(()) } else { Err(RuntimeError::Digest { what: what.to_owned(), expected, found }) }
}

/// Asks Python where its package is, without importing it.
fn python_library() -> Result<PathBuf, RuntimeError> {
    const PROGRAM: &str = "import importlib.util as u; s = u.find_spec('onnxruntime'); \
                           print(s.submodule_search_locations[0] if s else '')";
    let problem = |text: String| RuntimeError::Python { text };
    let output = Command::new("python3")
        .args(["-I", "-c", PROGRAM])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| problem(format!("`python3` could not be run: {error}")))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || folder.is_empty() {
        return Err(problem("`python3` has no package `onnxruntime`".to_owned()));
    }
    let folder = PathBuf::from(folder).join("capi");
    let entries = fs::read_dir(&folder).map_err(|source| RuntimeError::File { path: folder.clone(), source })?;
    let mut libraries: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    libraries.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonnxruntime.") || name == "onnxruntime.dll"
    });
    libraries.sort();
    libraries.pop().ok_or_else(|| problem(format!("there is no library in {}", folder.display())))
}

/// Fetches a file. Proxies come from the usual variables (`HTTPS_PROXY`, `NO_PROXY`, ...), trusted certificates from
/// `$SSL_CERT_FILE` where it is set, else from Mozilla's list.
fn download(url: &'static str) -> Result<Vec<u8>, RuntimeError> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let pem = fs::read(&path).map_err(|source| RuntimeError::File { path, source })?;
        let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .https_only(true)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(300)))
        .user_agent(concat!("ecgpipe/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let response = agent
        .get(url)
        .call()
        .and_then(|mut response| response.body_mut().with_config().limit(DOWNLOAD_BYTE_N_MAX).read_to_vec());
    response.map_err(|error| RuntimeError::Download { url, text: error.to_string() })
}

/// Writes a file whole: under another name first, renamed into place when it is on disk.
fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".onnxruntime-{}.tmp", std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error says more than one about cleaning up would.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Why a library could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The file is not a usable library.
    #[error("{} cannot be loaded as ONNX Runtime: {text}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        text: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes are not the pinned ones.
    #[error("{what} has the SHA-256 {found}, not {expected}; it is not used")]
    Digest {
        /// The file or address.
        what: String,
        /// The pinned digest.
        expected: &'static str,
        /// The digest of the bytes.
        found: String,
    },
    /// Python could not help.
    #[error("{text}")]
    Python {
        /// Why.
        text: String,
    },
    /// The network could not help.
    #[error("{url} could not be fetched: {text}")]
    Download {
        /// The address.
        url: &'static str,
        /// What the client said.
        text: String,
    },
    /// The wheel is not what it should be.
    #[error("{url} could not be unpacked: {text}")]
    Wheel {
        /// The address.
        url: &'static str,
        /// What the unpacker said.
        text: String,
    },
    /// There is nowhere to put a fetched library.
    #[error("no cache folder was given, so nothing is fetched")]
    NoCacheFolder,
    /// PyPI has no library for this machine.
    #[error("no library is pinned for {system} on {architecture}; install one and name it in ${PATH_VARIABLE}")]
    Platform {
        /// The operating system.
        system: &'static str,
        /// The processor.
        architecture: &'static str,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it skips")]
mod tests {
    use super::*;

    /// A new folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ecgpipe-nn-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_cached_library_that_was_changed_is_not_loaded() {
        let folder = Folder::new("cached");
        let search = Search { cache_folder: Some(folder.0.clone()), ask_python: false, offline: true };
        assert!(search.cached().is_none(), "an empty cache is not an error");
        let Ok(wheel) = wheel() else { return };
        let path = cached_path(&folder.0, wheel);
        publish(&path, b"not the library").unwrap();
        let error = search.cached().unwrap().unwrap_err().to_string();
        assert!(error.contains("SHA-256") && error.contains("is not used"), "{error}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_is_no_library_is_a_clean_error_and_not_final() {
        let folder = Folder::new("no-library");
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = folder.0.join(name);
            fs::write(&path, bytes).unwrap();
            let error = inspect(&path).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("text.so", b"text", "no shared library");
        if std::env::consts::OS == "linux" {
            check("other.so", b"\x7fELF and nothing else", "does not export");
            check("old.so", b"\x7fELF OrtGetApiBase VERS_1.17.1\0", "it is version 1.17.1; needed is 1.24");
        }
        assert!(inspect(&folder.0.join("missing.so")).is_err());
        if loaded().is_none() {
            let error = Library::load(&folder.0.join("text.so")).unwrap_err().to_string();
            assert!(error.contains("text.so cannot be loaded as ONNX Runtime"), "{error}");
            assert!(LOADED.lock().unwrap().is_none());
        }
    }

    #[test]
    fn nothing_found_says_what_was_tried() {
        if loaded().is_some() || std::env::var_os(PATH_VARIABLE).is_some() {
            return;
        }
        let found = Search { cache_folder: None, ask_python: false, offline: false }.run();
        assert!(found.library.is_none());
        assert!(found.notes[0].contains("no cache folder"), "{:?}", found.notes);
    }

    /// Needs the network, so it runs only where `ECGPIPE_TEST_FETCH` is set.
    #[test]
    fn the_pinned_wheel_is_fetched_verified_and_loaded_from_the_cache() {
        if std::env::var_os("ECGPIPE_TEST_FETCH").is_none() {
            eprintln!("skipped: set ECGPIPE_TEST_FETCH to fetch ONNX Runtime from PyPI");
            return;
        }
        let folder = Folder::new("fetch");
        let search = Search { cache_folder: Some(folder.0.join("onnxruntime")), ask_python: false, offline: false };
        let path = search.fetch().unwrap();
        assert_eq!(search.cached().unwrap().unwrap(), path);
        let library = Library::load(&path).unwrap();
        assert_eq!(library.version, FETCHED_VERSION);
    }
}
