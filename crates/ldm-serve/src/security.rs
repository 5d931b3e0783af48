//! Who may send requests, and what browsers may do with answers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::options::Access;
use crate::server::App;
use crate::{ErrorKind, ServeError, answers};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The headers of every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
];

/// Refuses hosts, origins and credentials that are not the server's, answers preflights of CORS, and adds the headers.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (origin, path) = (request.headers().get(header::ORIGIN).cloned(), request.uri().path().to_owned());
    let allowed = origin.as_ref().and_then(|origin| allowed_origin(&app.options.access, origin));
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match admit(&app, &request, allowed.is_some()) {
        Err(error) => refused(&path, &error),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    app.metrics.answered(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(allowed) = allowed {
        allow(headers, allowed, preflight);
    } else {
        let name = HeaderName::from_static("cross-origin-resource-policy");
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    response
}

fn admit(app: &App, request: &Request, allowed_origin: bool) -> Result<(), ServeError> {
    let headers = request.headers();
    check_host(app, headers)?;
    if let Some(origin) = headers.get(header::ORIGIN)
        && !allowed_origin
        && !is_own(origin, headers)
    {
        let message = "a page of another origin may not send requests; see --cors";
        return Err(ServeError::new(ErrorKind::Forbidden, message));
    }
    // A preflight has no credentials; it does nothing.
    if request.method() == Method::OPTIONS || request.uri().path() == "/health" {
        return Ok(());
    }
    check_credentials(&app.options.access, headers)
}

/// A server for this machine alone answers to its names alone: a page whose name was made to point here (DNS rebinding) has
/// another.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ServeError> {
    let access = &app.options.access;
    if !app.address.ip().is_loopback() || !access.is_open() {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let local = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if local {
        return Ok(());
    }
    Err(ServeError::new(ErrorKind::Forbidden, "expected the host localhost or 127.0.0.1"))
}

/// True for a page of this server.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    from.is_some() && from == host
}

/// The value of `Access-Control-Allow-Origin`, for an origin that may send requests.
fn allowed_origin(access: &Access, origin: &HeaderValue) -> Option<HeaderValue> {
    let text = origin.to_str().ok()?;
    let known = |allowed: &String| allowed == "*" || allowed.trim_end_matches('/') == text;
    access.origins.iter().any(known).then(|| origin.clone())
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if preflight {
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-api-key"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Compares credentials with all that are known, in a time that does not depend on where they differ.
fn check_credentials(access: &Access, headers: &HeaderMap) -> Result<(), ServeError> {
    if access.is_open() {
        return Ok(()); // SillyTavern sends empty credentials to every server
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, value) = given.split_once(' ').unwrap_or(("", given));
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let basic = || String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok();
    let pair = if scheme.eq_ignore_ascii_case("basic") { basic() } else { None };
    let key = match (scheme.eq_ignore_ascii_case("bearer"), &pair) {
        (true, _) => Some(value.trim()),
        (false, Some(pair)) => pair.split_once(':').map(|(_, password)| password),
        (false, None) => key,
    };
    let by_key = any_equal(&access.keys, key.unwrap_or_default());
    let by_user = any_equal(&access.users, pair.as_deref().unwrap_or_default());
    if bool::from(by_key | by_user) {
        return Ok(());
    }
    let message = if given.is_empty() && headers.get("x-api-key").is_none() {
        "expected an API key or a user, got none"
    } else {
        "the API key or the user is wrong"
    };
    Err(ServeError::new(ErrorKind::Unauthorized, message))
}

/// Hashes have one length, so that the time does not depend on it.
fn any_equal(known: &[String], given: &str) -> Choice {
    let given = Sha256::digest(given.as_bytes());
    let each = known.iter().map(|known| Sha256::digest(known.as_bytes()).ct_eq(&given));
    each.fold(Choice::from(0), |any, equal| any | equal)
}

fn refused(path: &str, error: &ServeError) -> Response {
    let mut response = answers::of_path(path, error);
    if error.kind == ErrorKind::Unauthorized {
        let challenge = HeaderValue::from_static("Basic realm=\"ldm\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let each = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        each.collect()
    }

    #[test]
    fn credentials_are_compared() {
        let access = Access {
            keys: vec!["secret".into(), "other".into()],
            users: vec!["ada:love".into()],
            origins: Vec::new(),
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (name, value, right) in [
            ("authorization", "Bearer secret".to_owned(), true),
            ("authorization", "bearer other".to_owned(), true),
            ("x-api-key", "secret".to_owned(), true),
            ("authorization", basic("ada:love"), true),
            ("authorization", basic("anyone:secret"), true),
            ("authorization", basic("ada:hate"), false),
            ("authorization", basic(":"), false),
            ("authorization", "Bearer ".to_owned(), false),
            ("authorization", "Bearer secre".to_owned(), false),
            ("authorization", "Basic %%%".to_owned(), false),
            ("authorization", "secret".to_owned(), false),
            ("x-api-key", String::new(), false),
            ("accept", "*/*".to_owned(), false),
        ] {
            let admitted = check_credentials(&access, &headers(&[(name, &value)])).is_ok();
            assert_eq!(admitted, right, "{name}: {value}");
        }
        assert!(check_credentials(&Access::default(), &headers(&[("authorization", &basic(":"))])).is_ok());
    }

    #[test]
    fn origins_are_compared() {
        let access = Access { origins: vec!["https://ui.example/".into()], ..Access::default() };
        let of = |origin: &str| allowed_origin(&access, &HeaderValue::from_str(origin).unwrap()).is_some();
        assert!(of("https://ui.example"));
        assert!(!of("https://ui.example.evil") && !of("http://ui.example") && !of("null"));
        let own = |origin: &'static str| {
            is_own(&HeaderValue::from_static(origin), &headers(&[("host", "127.0.0.1:7860")]))
        };
        assert!(own("http://127.0.0.1:7860"));
        assert!(!own("http://127.0.0.1:7861") && !own("null") && !own("http://evil"));
    }
}
