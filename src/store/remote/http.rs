//! HTTP for `object_store`, through the client that the program has anyway.
//!
//! `object_store` brings reqwest, a second HTTP stack with a second cryptography; its `HttpConnector` lets us do without.
//! Each request is a blocking call of ureq on a thread of the runtime's pool. Retries are not made here: `object_store`
//! makes them, and wants to know of every failure whether the request may have had an effect.

use std::io::{self, ErrorKind};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

/// A connection that moves no byte for so long is dead. How long a whole operation may take is decided in `objects.rs`.
const STALL: Duration = Duration::from_secs(30);

const CONNECT: Duration = Duration::from_secs(5);

/// More than the largest object that S3 takes in one request, so that the client's own limit is never what decides.
const MAX_BODY_BYTES: u64 = 6 << 30;

/// Makes clients that share one pool of connections.
#[derive(Debug)]
pub(super) struct Connector {
    agent: Agent,
}

impl Connector {
    /// Keeps up to `connection_n` connections open.
    pub(super) fn new(connection_n: usize) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A signature is for one address only. S3's answer names the right region, which is worth more than a retry.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("ecgpipe/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(connection_n)
            .max_idle_connections_per_host(connection_n)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .timeout_recv_response(Some(STALL))
            .build()
            .new_agent();
        Self { agent }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service { agent: self.agent.clone() }))
    }
}

#[derive(Debug)]
struct Service {
    agent: Agent,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let agent = self.agent.clone();
        let answer = tokio::task::spawn_blocking(move || -> Result<Response<Vec<u8>>, ureq::Error> {
            let response = if body.is_empty() && !matches!(head.method.as_str(), "PUT" | "POST") {
                agent.run(Request::from_parts(head, ()))?
            } else {
                agent.run(Request::from_parts(head, &body[..]))?
            };
            whole(response)
        });
        let answer = answer.await.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        Ok(answer.map_err(broken)?.map(HttpResponseBody::from))
    }
}

fn whole(response: Response<Body>) -> Result<Response<Vec<u8>>, ureq::Error> {
    let (head, body) = response.into_parts();
    let bytes = body.into_with_config().limit(MAX_BODY_BYTES).read_to_vec()?;
    Ok(Response::from_parts(head, bytes))
}

/// What a request that got no answer means. Everything that the remote is asked for may be asked for twice, so a connection
/// that broke is always worth another try.
fn broken(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(error) => io_kind(error),
        ureq::Error::Protocol(_) => HttpErrorKind::Decode,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

fn io_kind(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            HttpErrorKind::Connect
        }
        ErrorKind::TimedOut => HttpErrorKind::Timeout,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => HttpErrorKind::Request,
        // Rustls reports a bad certificate this way; another try gets the same.
        ErrorKind::InvalidData => HttpErrorKind::Decode,
        _ => HttpErrorKind::Request,
    }
}
