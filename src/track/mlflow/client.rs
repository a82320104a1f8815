//! One request to the server, repeated for as long as that makes sense.
//!
//! Every failure is sorted into three kinds, and nothing above this module looks at a status code:
//!
//! - it may pass (no connection, 408, 429, 5xx): repeated here, with growing pauses, until patience or time runs out;
//! - this one request is wrong ([`Refusal`], other 4xx): the caller sets the item aside and goes on;
//! - nothing will work ([`Halt`]): stop, keep the spool, say what to do.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::names::{base64, url_path};
use super::settings::{Credentials, Settings};
use super::wire::ErrorBody;

/// Root of the REST interface.
pub(super) const API: &str = "/api/2.0/mlflow";
const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How much of an answer is read into memory.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Why the sending stops altogether, with a way out where there is one. The spool keeps what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Halt(pub(super) String);

/// The server understood, and does not want this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// MLflow's word for it, or nothing.
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn is_missing(&self) -> bool {
        self.code == "RESOURCE_DOES_NOT_EXIST"
    }

    pub(super) fn already_there(&self) -> bool {
        self.code == "RESOURCE_ALREADY_EXISTS" || self.message.contains("UNIQUE constraint")
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = super::names::cut(&self.message, 300);
        let message = message.as_deref().unwrap_or(&self.message);
        write!(f, "the server answered {} {} {message}", self.status, self.code)
    }
}

/// An answer, or a refusal of this request; the outer error ends the sending.
pub(super) type Answer<T> = Result<Result<T, Refusal>, Halt>;

/// How long to go on in the face of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// For as long as the run lasts.
    Endless,
    /// So many repetitions of one request.
    Repeats(u32),
}

/// Tells a thread that somebody waits for it, and until when.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    finishing: bool,
    deadline: Option<Instant>,
}

impl Bell {
    /// Finish, and be done at `deadline`.
    pub(super) fn ring(&self, deadline: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = BellState { finishing: true, deadline: Some(deadline) };
        self.rung.notify_all();
    }

    pub(super) fn is_rung(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).finishing
    }

    /// What is left until the deadline; `None` when there is no deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.state.lock().unwrap_or_else(PoisonError::into_inner).deadline;
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Wait for `pause`, shorter when the bell rings meanwhile or the deadline comes. `false` when it is too late.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_finishing = state.finishing;
        let left = state.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let pause = left.map_or(pause, |left| left.min(pause));
        let waited = self.rung.wait_timeout_while(state, pause, |state| state.finishing == was_finishing);
        drop(waited);
        self.time_left() != Some(Duration::ZERO)
    }
}

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    settings: Settings,
    authorization: Option<String>,
    patience: Patience,
    bell: Arc<Bell>,
}

impl Client {
    pub(super) fn new(settings: &Settings, patience: Patience, bell: Arc<Bell>) -> Result<Self, Halt> {
        let mut tls = TlsConfig::builder().disable_verification(settings.insecure_tls);
        if let Some(path) = &settings.server_cert {
            let denied =
                |error: String| Halt(format!("MLFLOW_TRACKING_SERVER_CERT_PATH `{}`: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| denied(error.to_string()))?;
            let mut certificates = Vec::<Certificate<'static>>::new();
            for item in ureq::tls::parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|error| denied(error.to_string()))? {
                    certificates.push(certificate);
                }
            }
            if certificates.is_empty() {
                return Err(denied("it has no certificate; a PEM file is wanted".to_owned()));
            }
            tls = tls.root_certs(RootCerts::from(certificates));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST would become a GET; the user is told the new address instead.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("ecgpipe/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.request_timeout.min(Duration::from_secs(10))))
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = settings.credentials.as_ref().map(|credentials| match credentials {
            Credentials::Basic { username, password } => {
                format!("Basic {}", base64(format!("{username}:{password}").as_bytes()))
            }
            Credentials::Bearer(token) => format!("Bearer {token}"),
        });
        Ok(Self { agent, settings: settings.clone(), authorization, patience, bell })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Answer<T> {
        let url = format!("{}{API}/{path}", self.settings.tracking_uri);
        self.repeat(|| {
            let mut request = self.agent.get(&url).config().timeout_global(Some(self.timeout())).build();
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            for (name, value) in query {
                request = request.query(name, value);
            }
            read_json(request.call())
        })
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.send("POST", path, body, &|| Ok(Ok(None)))
    }

    /// Create something that the server would create again when asked again. Before a repetition, `find` looks whether the
    /// first request took effect and only its answer was lost.
    pub(super) fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        find: &dyn Fn() -> Answer<Option<T>>,
    ) -> Answer<T> {
        self.send("POST", path, body, find)
    }

    pub(super) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.send("PATCH", path, body, &|| Ok(Ok(None)))
    }

    /// The server's version, when it tells.
    pub(super) fn version(&self) -> Answer<String> {
        let url = format!("{}/version", self.settings.tracking_uri);
        self.repeat(|| {
            let mut request = self.agent.get(&url).config().timeout_global(Some(self.timeout())).build();
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            let mut response = accepted(request.call())?;
            let text = response.body_mut().read_to_string().map_err(broken)?;
            let plausible = text.len() < 40 && text.starts_with(|c: char| c.is_ascii_digit());
            let message = "its /version is no version".to_owned();
            if plausible {
                Ok(text.trim().to_owned())
            } else {
                Err(Trouble::Refused(Refusal { status: 200, code: String::new(), message }))
            }
        })
    }

    /// Store `size_bytes` bytes as an artifact. `open` gives them from their start, once an attempt.
    pub(super) fn put_artifact(
        &self,
        artifact_root: &str,
        path: &str,
        size_bytes: u64,
        open: &dyn Fn() -> Result<File, String>,
    ) -> Answer<()> {
        self.put(artifact_root, path, size_bytes, &|| Ok(SendBody::from_owned_reader(open()?)))
    }

    /// Store a text as an artifact.
    pub(super) fn put_text(&self, artifact_root: &str, path: &str, text: &str) -> Answer<()> {
        let body = || Ok(SendBody::from_owned_reader(std::io::Cursor::new(text.to_owned().into_bytes())));
        self.put(artifact_root, path, text.len() as u64, &body)
    }

    fn put(
        &self,
        artifact_root: &str,
        path: &str,
        size_bytes: u64,
        body: &dyn Fn() -> Result<SendBody<'static>, String>,
    ) -> Answer<()> {
        let refused = |message: String| Refusal { status: 0, code: "NOT_SENT".to_owned(), message };
        let url = match artifact_url(&self.settings.tracking_uri, artifact_root, path) {
            Ok(url) => url,
            Err(message) => return Ok(Err(refused(message))),
        };
        self.repeat(|| {
            let body = body().map_err(|message| Trouble::Refused(refused(message)))?;
            // A big file may take its time, as long as it moves; at the end of the run everything has a deadline.
            let mut request = self
                .agent
                .put(&url)
                .config()
                .timeout_global(self.bell.time_left())
                .timeout_per_write(Some(self.timeout()))
                .timeout_per_read(Some(self.timeout()))
                .build()
                .header("Content-Type", "application/octet-stream")
                .header("Content-Length", size_bytes.to_string());
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            accepted(request.send(body)).map(|_| ())
        })
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
        find: &dyn Fn() -> Answer<Option<T>>,
    ) -> Answer<T> {
        let url = format!("{}{API}/{path}", self.settings.tracking_uri);
        let text = serde_json::to_vec(body).expect("a request is plain data with text keys");
        let attempt = || {
            let request = if method == "PATCH" { self.agent.patch(&url) } else { self.agent.post(&url) };
            let mut request = request
                .config()
                .timeout_global(Some(self.timeout()))
                .build()
                .header("Content-Type", "application/json");
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            read_json(request.send(&text))
        };
        self.repeat_unless(attempt, find)
    }

    fn timeout(&self) -> Duration {
        let timeout = self.settings.request_timeout;
        // Zero would mean no limit at all.
        self.bell.time_left().map_or(timeout, |left| left.min(timeout)).max(Duration::from_millis(1))
    }

    fn repeat<T>(&self, attempt: impl Fn() -> Result<T, Trouble>) -> Answer<T> {
        self.repeat_unless(attempt, &|| Ok(Ok(None)))
    }

    fn repeat_unless<T>(
        &self,
        attempt: impl Fn() -> Result<T, Trouble>,
        find: &dyn Fn() -> Answer<Option<T>>,
    ) -> Answer<T> {
        let mut pause = self.settings.retry_pause;
        let mut failure_n = 0u32;
        let mut server_error_n = 0u32;
        loop {
            let (reason, at_least, server_error) = match attempt() {
                Ok(value) => return Ok(Ok(value)),
                Err(Trouble::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Trouble::Denied(reason)) => return Err(Halt(reason)),
                Err(Trouble::MayPass { reason, at_least }) => (reason, at_least, None),
                // 500 is also how MLflow answers what it cannot digest: to repeat that for ever would block the rest.
                Err(Trouble::ServerError(refusal)) => (refusal.to_string(), None, Some(refusal)),
            };
            failure_n += 1;
            if let Some(refusal) = server_error {
                server_error_n += 1;
                if server_error_n > self.settings.max_retries {
                    return Ok(Err(refusal));
                }
            } else if let Patience::Repeats(repeat_n) = self.patience
                && failure_n > repeat_n
            {
                return Err(Halt(reason));
            }
            let wait = at_least.unwrap_or_default().min(2 * LONGEST_PAUSE).max(pause);
            if !self.bell.pause(wait) {
                return Err(Halt(reason));
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
            if let Ok(Some(found)) = find()? {
                return Ok(Ok(found));
            }
        }
    }
}

/// Why one attempt came to nothing.
enum Trouble {
    MayPass { reason: String, at_least: Option<Duration> },
    ServerError(Refusal),
    Refused(Refusal),
    Denied(String),
}

/// The address that takes the artifact `path` below `artifact_root`, as the server named it.
fn artifact_url(tracking_uri: &str, artifact_root: &str, path: &str) -> Result<String, String> {
    let path = url_path(path);
    match artifact_root.split_once(':') {
        Some(("mlflow-artifacts", rest)) => {
            let (server, root) = match rest.strip_prefix("//") {
                // mlflow-artifacts://host:port/1/…; without a host it is mlflow-artifacts:///1/… or :/1/…
                Some(rest) if !rest.starts_with('/') => {
                    let (host, root) = rest.split_once('/').unwrap_or((rest, ""));
                    let scheme = if tracking_uri.starts_with("https") { "https" } else { "http" };
                    (format!("{scheme}://{host}"), root)
                }
                _ => (tracking_uri.to_owned(), rest),
            };
            Ok(format!("{server}{ARTIFACTS}/{}/{path}", url_path(root.trim_matches('/'))))
        }
        _ => Err(format!(
            "the server keeps artifacts at `{artifact_root}`, where only its own clients can write; start it with \
             --serve-artifacts and make a new experiment"
        )),
    }
}

fn read_json<T: DeserializeOwned>(sent: Result<Response<Body>, ureq::Error>) -> Result<T, Trouble> {
    let mut response = accepted(sent)?;
    let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec().map_err(broken)?;
    serde_json::from_slice(&text).map_err(|error| {
        let start = String::from_utf8_lossy(&text[..text.len().min(120)]).into_owned();
        Trouble::Denied(format!(
            "the answer is not MLflow's ({error}): `{start}`; is MLFLOW_TRACKING_URI a tracking server?"
        ))
    })
}

/// The response when it is a success.
fn accepted(sent: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Trouble> {
    let mut response = sent.map_err(broken)?;
    let status = response.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let location = header("location");
    let text =
        response.body_mut().with_config().limit(ANSWER_BYTES).lossy_utf8(true).read_to_string().unwrap_or_default();
    let body = serde_json::from_str::<ErrorBody>(&text)
        .unwrap_or_else(|_| ErrorBody { error_code: String::new(), message: text.trim().chars().take(300).collect() });
    let refusal = Refusal { status, code: body.error_code, message: body.message };
    Err(match status {
        300..=399 => Trouble::Denied(format!(
            "the server sends us elsewhere ({status}); set MLFLOW_TRACKING_URI to {}",
            location.as_deref().unwrap_or("the address that it means")
        )),
        401 => Trouble::Denied(
            "the server wants to know who we are (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
             MLFLOW_TRACKING_TOKEN"
                .to_owned(),
        ),
        403 if refusal.code.is_empty() && refusal.message.contains("Host") => Trouble::Denied(format!(
            "the server does not answer under this host name (403: {}); start it with --allowed-hosts, or use the \
             address that it allows",
            refusal.message
        )),
        403 => Trouble::Denied(format!(
            "the account may not do this (403 {} {}); ask for the right to edit the experiment, or use another account",
            refusal.code, refusal.message
        )),
        408 | 429 | 502 | 503 | 504 => Trouble::MayPass { reason: refusal.to_string(), at_least: retry_after },
        500..=599 => Trouble::ServerError(refusal),
        _ => Trouble::Refused(refusal),
    })
}

/// What a request that got no answer means.
fn broken(error: ureq::Error) -> Trouble {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
            Trouble::Denied(tls_advice(&error.to_string()))
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            Trouble::Denied(format!("the address or the credentials cannot be used: {error}"))
        }
        // Rustls reports a bad certificate through the stream.
        ureq::Error::Io(ref inner) if inner.kind() == std::io::ErrorKind::InvalidData => {
            Trouble::Denied(tls_advice(&error.to_string()))
        }
        error => Trouble::MayPass { reason: format!("no answer: {error}"), at_least: None },
    }
}

fn tls_advice(error: &str) -> String {
    if error.contains("CaUsedAsEndEntity") {
        return format!(
            "the secure connection failed: {error}; the server shows an authority's certificate as its own, as `openssl \
             req -x509` makes them; make it with `-addext basicConstraints=critical,CA:FALSE`, or set \
             MLFLOW_TRACKING_INSECURE_TLS=true"
        );
    }
    format!(
        "the secure connection failed: {error}; for a private authority set MLFLOW_TRACKING_SERVER_CERT_PATH to its PEM \
         file, for a server without TLS write http://"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_go_where_the_server_says() {
        let check = |root: &str, wanted: &str| {
            assert_eq!(artifact_url("http://a:1/ml", root, "p/x y.png").as_deref(), Ok(wanted), "{root}");
        };
        let own = "http://a:1/ml/api/2.0/mlflow-artifacts/artifacts/2/r/artifacts/p/x%20y.png";
        check("mlflow-artifacts:/2/r/artifacts", own);
        check("mlflow-artifacts:///2/r/artifacts", own);
        check("mlflow-artifacts://b:2/2/r", "http://b:2/api/2.0/mlflow-artifacts/artifacts/2/r/p/x%20y.png");
        for root in ["s3://bucket/2/r/artifacts", "/mnt/mlruns/2/r/artifacts"] {
            let text = artifact_url("http://a:1", root, "x").expect_err("only the server can be written to");
            assert!(text.contains(root) && text.contains("--serve-artifacts"), "{text}");
        }
    }

    #[test]
    fn a_pause_ends_at_the_bell_and_at_the_deadline() {
        let bell = Bell::default();
        bell.ring(Instant::now());
        let begin = Instant::now();
        assert!(!bell.pause(Duration::from_secs(60)));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
