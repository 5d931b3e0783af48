//! One HTTP request for the rest of a file.

use std::io::{self, Read};
use std::time::Duration;

use ldm_core::Error;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::part::PartialFile;

/// An error message with its arguments.
macro_rules! error {
    ($($part:tt)*) => { Error::invalid(format!($($part)*)) };
}

const CONNECT: Duration = Duration::from_secs(20);
/// The longest time without data from the server.
const SILENCE: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("ldm/", env!("CARGO_PKG_VERSION"));

/// The failure of a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Transient(Error),
    /// Another attempt would fail too.
    Permanent(Error),
}

/// An HTTP client. Proxies come from the usual variables, root certificates from the system.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .http_status_as_error(false)
            .user_agent(USER_AGENT)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Self { agent: config.new_agent() }
    }

    /// Appends the missing bytes of the `size` bytes at `url` to `part`; `at` gets the number of bytes so far. A server
    /// without range requests sends the whole file, and the part starts over.
    pub(crate) fn fetch(
        &self,
        url: &str,
        part: &mut PartialFile,
        size: u64,
        mut at: impl FnMut(u64),
    ) -> Result<(), Failure> {
        // No redirection from https to http.
        let https = url.starts_with("https:");
        let mut request = self
            .agent
            .get(url)
            .config()
            .https_only(https)
            .build()
            .header(header::ACCEPT_ENCODING, "identity");
        if part.length() > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", part.length()));
        }
        let mut response = request.call().map_err(|error| network(url, &error))?;
        check(url, &response, part, size)?;
        if response.status() == StatusCode::OK {
            part.clear().map_err(|error| disk(part, size, error))?;
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            at(part.length());
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(url, part, size, &network_words(&error.into()).1)),
            };
            if count == 0 {
                break;
            }
            if part.length() + count as u64 > size {
                return Err(Failure::Permanent(error!("{url}: expected {size} bytes, got more")));
            }
            part.append(&buffer[..count]).map_err(|error| disk(part, size, error))?;
        }
        if part.length() < size {
            return Err(broken(url, part, size, "the server closed the connection"));
        }
        Ok(())
    }
}

/// Checks that the body continues `part`.
fn check(url: &str, response: &Response<Body>, part: &mut PartialFile, size: u64) -> Result<(), Failure> {
    let status = response.status();
    let headers = response.headers();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let other_size = |found: &str| Failure::Permanent(error!("{url}: expected {size} bytes, got {found}"));
    match status {
        StatusCode::OK => match header(header::CONTENT_LENGTH) {
            Some(length) if length.parse() != Ok(size) => Err(other_size(length)),
            _ => Ok(()),
        },
        StatusCode::PARTIAL_CONTENT => {
            let range = header(header::CONTENT_RANGE).unwrap_or_default();
            let (place, total) = range.split_once('/').unwrap_or_default();
            if total != "*" && total.parse() != Ok(size) {
                return Err(other_size(total));
            }
            if place.starts_with(&format!("bytes {}-", part.length())) {
                return Ok(());
            }
            let length = part.length();
            part.clear().map_err(|error| disk(part, size, error))?;
            Err(Failure::Transient(error!("{url}: expected bytes from {length} on, got `{range}`")))
        }
        // The part is longer than the file, or the server has no ranges.
        StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => {
            part.clear().map_err(|error| disk(part, size, error))?;
            Err(Failure::Transient(error!("{url}: {status}")))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::Transient(error!("{url}: {status}")))
        }
        _ if status.is_server_error() => Err(Failure::Transient(error!("{url}: {status}"))),
        _ => Err(Failure::Permanent(error!("{url}: {status}"))),
    }
}

fn broken(url: &str, part: &PartialFile, size: u64, why: &str) -> Failure {
    Failure::Transient(error!("{url}: the transfer ended after {} of {size} bytes: {why}", part.length()))
}

fn disk(part: &PartialFile, size: u64, error: io::Error) -> Failure {
    let error = if error.kind() == io::ErrorKind::StorageFull {
        format!("the disk is full, {} bytes are missing", size - part.length().min(size))
    } else {
        error.to_string()
    };
    Failure::Permanent(Error::format(part.path(), error))
}

fn network(url: &str, error: &ureq::Error) -> Failure {
    let (passing, why) = network_words(error);
    let error = error!("{url}: {why}");
    if passing { Failure::Transient(error) } else { Failure::Permanent(error) }
}

/// Returns the reason in words, and true when another attempt may succeed.
fn network_words(error: &ureq::Error) -> (bool, String) {
    use io::ErrorKind as Kind;
    match error {
        ureq::Error::HostNotFound => (false, "no such host, or no network".into()),
        ureq::Error::Timeout(_) => (true, "the server did not respond in time".into()),
        ureq::Error::Io(error) => match error.kind() {
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                (true, "the server closed the connection".into())
            }
            Kind::TimedOut | Kind::WouldBlock => (true, "the server did not respond in time".into()),
            _ => (false, format!("no connection: {error}")),
        },
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            (false, format!("{error}; SSL_CERT_FILE names other root certificates"))
        }
        _ => (false, error.to_string()),
    }
}
