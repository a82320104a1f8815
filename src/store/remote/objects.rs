//! The few operations on an object store, made blocking and given a time limit.
//!
//! This is the only place that knows of futures: one small runtime lives here, and every operation waits for its end on the
//! thread that asks. Whoever wants several at once uses several threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::http::Connector;
use super::{PARALLEL_N, RemoteError};

/// How long an operation may take, and how often it is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For an operation that moves no bytes, retries included.
    pub(super) base: Duration,
    /// The slowest connection that is worth waiting for.
    pub(super) bytes_per_s: u64,
    /// Tries after the first.
    pub(super) retry_n: usize,
}

impl Patience {
    /// For a transfer that somebody asked for.
    pub(super) const TRANSFER: Self = Self { base: Duration::from_secs(120), bytes_per_s: 20_000, retry_n: 8 };
    /// Beside a run, which can do without.
    pub(super) const RUN: Self = Self { base: Duration::from_secs(10), bytes_per_s: 200_000, retry_n: 2 };

    fn limit(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes / self.bytes_per_s.max(1))
    }

    fn retries(&self) -> RetryConfig {
        let backoff = BackoffConfig { max_backoff: self.base / 8, ..BackoffConfig::default() };
        RetryConfig { backoff, max_retries: self.retry_n, retry_timeout: self.base / 2 }
    }
}

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

impl Place {
    /// Reads `file:///folder`, `s3://bucket/prefix`, or a plain path.
    pub(super) fn parse(url: &str) -> Result<Self, RemoteError> {
        let wrong = |reason: &str| RemoteError::Url { url: without_credentials(url), reason: reason.to_owned() };
        let Some((scheme, rest)) = url.split_once("://") else {
            return if url.is_empty() { Err(wrong("it is empty")) } else { Ok(Self::Folder(PathBuf::from(url))) };
        };
        match scheme {
            "file" => match rest.strip_prefix("localhost").unwrap_or(rest) {
                path if path.starts_with('/') => Ok(Self::Folder(PathBuf::from(path))),
                _ => Err(wrong("a file URL has the whole path: file:///folder")),
            },
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.contains('@') || bucket.contains(':') {
                    return Err(wrong("credentials and ports do not belong there"));
                }
                if bucket.is_empty() {
                    return Err(wrong("it names no bucket: s3://bucket/prefix"));
                }
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            _ => Err(wrong("it begins with neither file:// nor s3://, and is no path")),
        }
    }

    /// Tells whether the network is needed.
    pub(super) fn is_far(&self) -> bool {
        matches!(self, Self::S3 { .. })
    }
}

/// The URL as it may be shown: what stands before an `@` is left out.
pub(super) fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, place)) => format!("{scheme}://...@{place}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

/// What there is under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched {
    Absent,
    /// It is larger than anything that could be meant.
    TooLarge(u64),
    Bytes(Bytes),
}

/// What a put that must not overwrite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Written,
    /// Something is there already; it was left alone.
    Exists,
}

/// An object store under one prefix.
#[derive(Debug)]
pub(super) struct Objects {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    patience: Patience,
    /// Taken on drop only.
    runtime: Option<Runtime>,
}

impl Objects {
    /// `make` says that a folder which does not exist is made; without it, it is `None`.
    pub(super) fn open(url: &str, place: &Place, patience: Patience, make: bool) -> Result<Option<Self>, RemoteError> {
        match place {
            Place::Folder(folder) => {
                let failed = |error: std::io::Error| {
                    let error = object_store::Error::Generic { store: "folder", source: error.into() };
                    RemoteError::access("open", url, &error)
                };
                if make {
                    fs::create_dir_all(folder).map_err(failed)?;
                } else if !folder.try_exists().map_err(failed)? {
                    return Ok(None);
                }
                let store = LocalFileSystem::new_with_prefix(folder).map(|store| store.with_fsync(true));
                let store = store.map_err(|error| RemoteError::access("open", url, &error))?;
                Self::on(url, Arc::new(store), Path::default(), patience).map(Some)
            }
            Place::S3 { bucket, prefix } => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(patience.retries())
                    .with_http_connector(Connector::new(PARALLEL_N));
                // An endpoint without encryption is the user's own word; there is no other way to mean it.
                let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
                if endpoint.iter().any(|key| builder.get_config_value(key).is_some_and(|url| url.starts_with("http:")))
                {
                    builder = builder.with_allow_http(true);
                }
                let store = builder.build().map_err(|error| RemoteError::access("open", url, &error))?;
                let prefix = Path::parse(prefix)
                    .map_err(|error| RemoteError::Url { url: url.to_owned(), reason: error.to_string() })?;
                Self::on(url, Arc::new(store), prefix, patience).map(Some)
            }
        }
    }

    pub(super) fn on(
        url: &str,
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        patience: Patience,
    ) -> Result<Self, RemoteError> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            // As many as may be asked at once, and some that still wait for an answer which nobody wants any more.
            .max_blocking_threads(PARALLEL_N * 2)
            .build()
            .map_err(|source| RemoteError::Runtime { source })?;
        Ok(Self { url: url.to_owned(), store, prefix, patience, runtime: Some(runtime) })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The address of an object, for people.
    pub(super) fn address(&self, name: &str) -> String {
        format!("{}/{name}", self.url.trim_end_matches('/'))
    }

    /// Reads an object of at most `most` bytes, of which some `expected` are expected.
    pub(super) fn get(&self, name: &str, expected: u64, most: u64) -> Result<Fetched, RemoteError> {
        let path = self.path(name);
        let read = async {
            match self.store.get(&path).await {
                Ok(found) if found.meta.size > most => Ok(Fetched::TooLarge(found.meta.size)),
                Ok(found) => found.bytes().await.map(Fetched::Bytes),
                Err(object_store::Error::NotFound { .. }) => Ok(Fetched::Absent),
                Err(error) => Err(error),
            }
        };
        self.wait("read", name, expected, read)
    }

    /// Writes an object, whatever was there.
    pub(super) fn put(&self, name: &str, bytes: Bytes) -> Result<(), RemoteError> {
        let (path, size) = (self.path(name), bytes.len() as u64);
        self.wait("write", name, size, async { self.store.put(&path, bytes.into()).await.map(|_| ()) })
    }

    /// Writes an object unless there is one; a store that cannot do that says so, or lies (`Remote::prepare` finds out).
    pub(super) fn put_new(&self, name: &str, bytes: Bytes) -> Result<Put, RemoteError> {
        let (path, size) = (self.path(name), bytes.len() as u64);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let write = async {
            match self.store.put_opts(&path, bytes.into(), options).await {
                Ok(_) => Ok(Put::Written),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(Put::Exists)
                }
                Err(error) => Err(error),
            }
        };
        self.wait("write", name, size, write)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), RemoteError> {
        let path = self.path(name);
        self.wait("remove", name, 0, async { self.store.delete(&path).await })
    }

    /// The sizes of all objects in a folder and below it, by their names in it.
    pub(super) fn list(&self, folder: &str) -> Result<BTreeMap<String, u64>, RemoteError> {
        let path = self.path(folder);
        let list = async {
            let mut found = BTreeMap::new();
            let mut listed = self.store.list(Some(&path));
            while let Some(object) = listed.try_next().await? {
                if let Some(parts) = object.location.prefix_match(&path) {
                    let name: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                    found.insert(name.join("/"), object.size);
                }
            }
            Ok(found)
        };
        // A list has as many pages as it has, so it gets the time of a large object.
        self.wait("list", folder, self.patience.bytes_per_s * 600, list)
    }

    /// A name at the top that is none of `known`: a folder or an object.
    pub(super) fn stranger(&self, known: &[&str]) -> Result<Option<String>, RemoteError> {
        let look = async {
            let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
            let found = self.store.list_with_delimiter(prefix).await?;
            let paths = found.common_prefixes.iter().chain(found.objects.iter().map(|object| &object.location));
            let names = paths.filter_map(|path| path.filename().map(str::to_owned));
            Ok(names.into_iter().find(|name| !known.contains(&name.as_str())))
        };
        self.wait("list", "", 0, look)
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn wait<T>(
        &self,
        action: &'static str,
        name: &str,
        bytes: u64,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, RemoteError> {
        let runtime = self.runtime.as_ref().expect("the runtime is taken on drop only");
        let limit = self.patience.limit(bytes);
        // The timer is made inside, where the runtime is known.
        match runtime.block_on(async { tokio::time::timeout(limit, operation).await }) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(RemoteError::access(action, &self.address(name), &error)),
            Err(_) => Err(RemoteError::Slow { action, url: self.address(name), limit }),
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A thread that still waits for a dead server is not worth waiting for.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn places_are_read_from_urls_and_paths() {
        let s3 = |bucket: &str, prefix: &str| Place::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(Place::parse("s3://cache/team/ecg/").unwrap(), s3("cache", "team/ecg"));
        assert_eq!(Place::parse("s3://cache").unwrap(), s3("cache", ""));
        assert_eq!(Place::parse("file:///mnt/cache").unwrap(), Place::Folder("/mnt/cache".into()));
        assert_eq!(Place::parse("file://localhost/mnt").unwrap(), Place::Folder("/mnt".into()));
        assert_eq!(Place::parse("../cache").unwrap(), Place::Folder("../cache".into()));
        for wrong in ["", "s3://", "s3:///x", "file://x/y", "gs://bucket", "https://example.org/x", "s3://host:9000/x"]
        {
            assert!(matches!(Place::parse(wrong), Err(RemoteError::Url { .. })), "{wrong}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        let error = Place::parse("s3://AKIA123:secret@bucket/x").unwrap_err().to_string();
        assert!(error.contains("bucket/x") && !error.contains("AKIA123") && !error.contains("secret"), "{error}");
    }
}
