//! Who may send requests, and what browsers may do with answers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

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
    let guessed = ["authorization", "x-api-key"].iter().any(|name| request.headers().contains_key(*name));
    let mut response = match admit(&app, &request, allowed.is_some(), preflight) {
        Err(error) => {
            if guessed && error.kind == ErrorKind::Unauthorized {
                tokio::time::sleep(REFUSAL).await;
            }
            refused(&path, &error)
        }
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    app.metrics.answered(response.status().as_u16());
    let headers = response.headers_mut();
    // Prompts, and whatever else is not said to be public.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
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

fn admit(app: &App, request: &Request, allowed_origin: bool, preflight: bool) -> Result<(), ServeError> {
    let headers = request.headers();
    check_host(app, headers)?;
    let own = headers.get(header::ORIGIN).map(|origin| is_own(origin, headers));
    let foreign = match own {
        Some(own) => !own && !allowed_origin,
        None => is_cross_site(request),
    };
    if foreign {
        let message = "a page of another origin may not send requests; see --cors";
        return Err(ServeError::new(ErrorKind::Forbidden, message));
    }
    // A preflight has no credentials; it does nothing.
    if preflight || request.uri().path() == "/health" {
        return Ok(());
    }
    check_credentials(&app.options.access, headers)
}

/// The delay of an answer to wrong credentials: guesses take time.
const REFUSAL: Duration = Duration::from_millis(250);

/// True for a request that a browser sends for a page of another site without its origin, as for an image; not for a link to a
/// page of this server.
fn is_cross_site(request: &Request) -> bool {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let foreign = matches!(header("sec-fetch-site"), Some("cross-site" | "same-site"));
    let followed = request.method() == Method::GET
        && header("sec-fetch-mode") == Some("navigate")
        && header("sec-fetch-dest") == Some("document");
    foreign && !followed
}

/// A server without credentials answers to names of its own alone: a page whose name was made to point here (DNS rebinding)
/// has another. An address cannot be made to point elsewhere.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ServeError> {
    let access = &app.options.access;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !access.is_open() || is_own_name(host, &access.hosts, app.host_name.as_deref()) {
        return Ok(());
    }
    let host: String = host.chars().take(100).collect();
    let message = format!("{host} is not a name of this server; see --allowed-host, or use its address");
    Err(ServeError::new(ErrorKind::Forbidden, message))
}

/// True for an address, `localhost`, the name of this machine, and names that were allowed; `host` may have a port.
fn is_own_name(host: &str, allowed: &[String], machine: Option<&str>) -> bool {
    let port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(name, digits)| port(digits) && !name.ends_with(':'));
    let name = name.map_or(host, |(name, _)| name);
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if bracketed.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok()) || name.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let machine = machine.map(str::to_ascii_lowercase).filter(|machine| !machine.is_empty());
    let is_machine = |machine: &String| name == *machine || name.strip_suffix(".local") == Some(machine);
    name == "localhost"
        || name.ends_with(".localhost")
        || machine.as_ref().is_some_and(is_machine)
        || allowed.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
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
            ..Access::default()
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

    #[test]
    fn names_of_this_server_are_known() {
        let allowed = ["studio.example".to_owned()];
        let own = |host: &str| is_own_name(host, &allowed, Some("Box"));
        for host in [
            "127.0.0.1:7860",
            "192.168.1.5",
            "[::1]:7860",
            "[::1]",
            "localhost",
            "LOCALHOST:80",
            "a.localhost",
            "box:7860",
            "box.local",
            "Studio.example:443",
        ] {
            assert!(own(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7860",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "box.evil",
            "[evil]",
            "::1x",
        ] {
            assert!(!own(host), "{host}");
        }
        assert!(!is_own_name("", &[], Some("")) && !is_own_name("box", &[], None));
    }

    #[test]
    fn requests_of_other_sites_are_known_without_an_origin() {
        let of = |method: &str, pairs: &[(&str, &str)]| {
            let mut request = Request::builder().method(method);
            for (name, value) in pairs {
                request = request.header(*name, *value);
            }
            is_cross_site(&request.body(axum::body::Body::empty()).unwrap())
        };
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(!of("GET", &[]) && !of("GET", &link) && !of("GET", &[("sec-fetch-site", "same-origin")]));
        assert!(of("POST", &link), "a form");
        assert!(of("GET", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), "an image");
        assert!(of("GET", &[link[0], link[1], ("sec-fetch-dest", "iframe")]), "a frame");
        assert!(of("POST", &[("sec-fetch-site", "same-site")]), "another port");
    }
}
