//! Where the server is and how to speak to it: MLflow's own environment variables, read once.

use std::path::PathBuf;
use std::time::Duration;

/// How to reach a tracking server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http://` or `https://`, without credentials and without a trailing slash.
    pub tracking_uri: String,
    /// What to say about ourselves, if anything.
    pub credentials: Option<Credentials>,
    /// Accept any certificate (`MLFLOW_TRACKING_INSECURE_TLS`).
    pub insecure_tls: bool,
    /// PEM file with the authorities to trust instead of the public ones (`MLFLOW_TRACKING_SERVER_CERT_PATH`).
    pub server_cert: Option<PathBuf>,
    /// `MLFLOW_EXPERIMENT_NAME`; the experiment that a [`RunDescription`](super::RunDescription) names is the one used.
    pub experiment: Option<String>,
    /// Longest wait for one answer (`MLFLOW_HTTP_REQUEST_TIMEOUT`, seconds; 120).
    pub request_timeout: Duration,
    /// How often [`sync`](super::sync) repeats a request that may yet succeed, and a [`Sender`](super::Sender) one that
    /// the server answers with 500 (`MLFLOW_HTTP_REQUEST_MAX_RETRIES`; 7). Outages do not count for a sender.
    pub max_retries: u32,
    /// First pause before a repetition; doubled each time, up to 30 s.
    pub retry_pause: Duration,
    /// How often a [`Sender`](super::Sender) looks for something new.
    pub poll: Duration,
}

/// What proves to the server who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    Basic {
        /// Name of the account.
        username: String,
        /// Its password.
        password: String,
    },
    /// `MLFLOW_TRACKING_TOKEN`.
    Bearer(String),
}

// By hand, so that no log ever shows a secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::Bearer(_) => write!(f, "Bearer"),
        }
    }
}

/// Why the settings make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The address is of a kind that has no server behind it.
    #[error(
        "use the tracking address `{uri}`: only http:// and https:// servers are spoken to; start one over that store, \
         `mlflow server --backend-store-uri {uri} --port 5000`, and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
    )]
    NoServer {
        /// The address as given.
        uri: String,
    },
    /// The address has no host.
    #[error("use the tracking address `{uri}`: it names no host; write it as http://host:port")]
    NoHost {
        /// The address as given.
        uri: String,
    },
    /// A variable has a value that it cannot have.
    #[error("read {variable}: `{value}` is not {wanted}")]
    Value {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Two settings exclude each other.
    #[error(
        "choose how to check the certificate: MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH are both set; unset one"
    )]
    BothTls,
}

impl Settings {
    /// Settings for a server that asks for nothing.
    ///
    /// # Errors
    ///
    /// When `tracking_uri` is no `http://` or `https://` address.
    pub fn new(tracking_uri: &str) -> Result<Self, SettingsError> {
        let (tracking_uri, credentials) = split_uri(tracking_uri)?;
        Ok(Self {
            tracking_uri,
            credentials,
            insecure_tls: false,
            server_cert: None,
            experiment: None,
            request_timeout: Duration::from_secs(120),
            max_retries: 7,
            retry_pause: Duration::from_millis(500),
            poll: Duration::from_secs(1),
        })
    }

    /// Settings from MLflow's environment variables. `tracking_uri_from_file` is what the pipeline file says; the
    /// variable `MLFLOW_TRACKING_URI` beats it. `None` when neither names a server: the run is then not copied.
    ///
    /// An empty variable counts as not set.
    ///
    /// # Errors
    ///
    /// When an address or a number makes no sense, or two variables exclude each other.
    pub fn from_environment(
        vars: &dyn Fn(&str) -> Option<String>,
        tracking_uri_from_file: Option<&str>,
    ) -> Result<Option<Self>, SettingsError> {
        let var = |name: &str| vars(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let Some(uri) = var("MLFLOW_TRACKING_URI").or_else(|| tracking_uri_from_file.map(str::to_owned)) else {
            return Ok(None);
        };
        let mut settings = Self::new(&uri)?;
        match (var("MLFLOW_TRACKING_USERNAME"), var("MLFLOW_TRACKING_PASSWORD"), var("MLFLOW_TRACKING_TOKEN")) {
            (Some(username), password, _) => {
                let password = password.unwrap_or_default();
                settings.credentials = Some(Credentials::Basic { username, password });
            }
            (None, _, Some(token)) => settings.credentials = Some(Credentials::Bearer(token)),
            (None, _, None) => {}
        }
        if let Some(value) = var("MLFLOW_TRACKING_INSECURE_TLS") {
            settings.insecure_tls = match value.to_ascii_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => {
                    let variable = "MLFLOW_TRACKING_INSECURE_TLS";
                    return Err(SettingsError::Value { variable, value, wanted: "true or false" });
                }
            };
        }
        settings.server_cert = var("MLFLOW_TRACKING_SERVER_CERT_PATH").map(PathBuf::from);
        if settings.insecure_tls && settings.server_cert.is_some() {
            return Err(SettingsError::BothTls);
        }
        settings.experiment = var("MLFLOW_EXPERIMENT_NAME");
        if let Some(value) = var("MLFLOW_HTTP_REQUEST_TIMEOUT") {
            let variable = "MLFLOW_HTTP_REQUEST_TIMEOUT";
            let timeout_s = value.parse::<u32>().ok().filter(|&timeout_s| timeout_s > 0);
            let wanted = "a whole number of seconds, at least 1";
            let timeout_s = timeout_s.ok_or(SettingsError::Value { variable, value, wanted })?;
            settings.request_timeout = Duration::from_secs(u64::from(timeout_s));
        }
        if let Some(value) = var("MLFLOW_HTTP_REQUEST_MAX_RETRIES") {
            let variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES";
            let max_retries = value.parse::<u32>().ok();
            let wanted = "a whole number";
            settings.max_retries = max_retries.ok_or(SettingsError::Value { variable, value, wanted })?;
        }
        Ok(Some(settings))
    }

    /// Where a person looks at a run.
    pub(super) fn run_url(&self, experiment_id: &str, run_id: &str) -> String {
        format!("{}/#/experiments/{experiment_id}/runs/{run_id}", self.tracking_uri)
    }
}

/// The address without what must not be shown, and the credentials that stood in it.
fn split_uri(uri: &str) -> Result<(String, Option<Credentials>), SettingsError> {
    let no_server = || SettingsError::NoServer { uri: uri.to_owned() };
    let (scheme, rest) = uri.trim().split_once("://").ok_or_else(no_server)?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(no_server());
    }
    let rest = rest.trim_end_matches('/');
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash_idx| rest.split_at(slash_idx));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() || host.starts_with(':') {
        return Err(SettingsError::NoHost { uri: format!("{scheme}://{host}{path}") });
    }
    let credentials = user.map(|user| {
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        Credentials::Basic { username: username.to_owned(), password: password.to_owned() }
    });
    Ok((format!("{scheme}://{host}{path}"), credentials))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn read(pairs: &[(&str, &str)], from_file: Option<&str>) -> Result<Option<Settings>, SettingsError> {
        let vars = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        Settings::from_environment(&vars, from_file)
    }

    #[test]
    fn nothing_named_means_no_copy() {
        assert_eq!(read(&[], None).unwrap(), None);
        assert_eq!(read(&[("MLFLOW_TRACKING_URI", "")], None).unwrap(), None);
    }

    #[test]
    fn the_environment_beats_the_file() {
        let settings = read(&[("MLFLOW_TRACKING_URI", "http://a:1/")], Some("http://b:2")).unwrap().unwrap();
        assert_eq!(settings.tracking_uri, "http://a:1");
        assert_eq!(read(&[], Some("https://b:2/ml/")).unwrap().unwrap().tracking_uri, "https://b:2/ml");
    }

    #[test]
    fn basic_beats_bearer_and_nothing_secret_is_shown() {
        let pairs = [
            ("MLFLOW_TRACKING_URI", "http://a"),
            ("MLFLOW_TRACKING_USERNAME", "eve"),
            ("MLFLOW_TRACKING_PASSWORD", "s3cret"),
            ("MLFLOW_TRACKING_TOKEN", "t0ken"),
        ];
        let settings = read(&pairs, None).unwrap().unwrap();
        let basic = Credentials::Basic { username: "eve".into(), password: "s3cret".into() };
        assert_eq!(settings.credentials, Some(basic));
        assert!(!format!("{settings:?}").contains("s3cret"));
        let settings = read(&[pairs[0], pairs[3]], None).unwrap().unwrap();
        assert_eq!(settings.credentials, Some(Credentials::Bearer("t0ken".into())));
        let settings = read(&[("MLFLOW_TRACKING_URI", "http://eve:s3cret@a:5000")], None).unwrap().unwrap();
        assert_eq!(settings.tracking_uri, "http://a:5000");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn stores_without_a_server_get_advice() {
        for uri in ["file:///tmp/mlruns", "sqlite:///mlflow.db", "./mlruns", "databricks", "postgresql://u@h/db"] {
            let text = read(&[("MLFLOW_TRACKING_URI", uri)], None).unwrap_err().to_string();
            assert!(text.contains(uri) && text.contains("mlflow server"), "{text}");
        }
        assert!(matches!(read(&[("MLFLOW_TRACKING_URI", "http://:80")], None), Err(SettingsError::NoHost { .. })));
    }

    #[test]
    fn wrong_values_are_named() {
        let check = |name: &'static str, value: &str| {
            let text = read(&[("MLFLOW_TRACKING_URI", "http://a"), (name, value)], None).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(value), "{text}");
        };
        check("MLFLOW_HTTP_REQUEST_TIMEOUT", "0");
        check("MLFLOW_HTTP_REQUEST_TIMEOUT", "1m");
        check("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "-1");
        check("MLFLOW_TRACKING_INSECURE_TLS", "maybe");
        let both = [
            ("MLFLOW_TRACKING_URI", "https://a"),
            ("MLFLOW_TRACKING_INSECURE_TLS", "true"),
            ("MLFLOW_TRACKING_SERVER_CERT_PATH", "/ca.pem"),
        ];
        assert_eq!(read(&both, None), Err(SettingsError::BothTls));
    }
}
