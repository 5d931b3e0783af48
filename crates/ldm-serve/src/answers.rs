//! Errors as answers, in the form of each API.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// An error of the API that a path belongs to.
pub(crate) fn of_path(path: &str, error: &ServeError) -> Response {
    if path.starts_with("/sdapi/") || path.starts_with("/internal/") {
        crate::sdapi::error(error)
    } else {
        error.clone().into_response()
    }
}

/// An answer with a status and a JSON body, and what every error has.
pub(crate) fn with_status(error: &ServeError, body: Value) -> Response {
    let mut response = (error.status(), Json(body)).into_response();
    let headers = response.headers_mut();
    if matches!(error.kind, ErrorKind::Busy | ErrorKind::Stopping) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    } else {
        // OpenAI's clients repeat requests that failed by themselves, which would only be as slow again.
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
    }
    response
}

/// The body of an error, as OpenAI's API has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorFields,
}

/// The fields of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorFields {
    /// One sentence: `FIELD: expected X, got Y`.
    message: String,
    /// `server_error` or `invalid_request_error`.
    r#type: &'static str,
    /// The field of the request.
    param: Option<String>,
    /// The kind of the error.
    code: ErrorKind,
}

impl From<ServeError> for ErrorBody {
    fn from(error: ServeError) -> Self {
        let ours = error.status().is_server_error();
        let r#type = if ours { "server_error" } else { "invalid_request_error" };
        Self { error: ErrorFields { message: error.message, r#type, param: error.field, code: error.kind } }
    }
}

impl IntoResponse for ServeError {
    fn into_response(self) -> Response {
        let body = serde_json::to_value(ErrorBody::from(self.clone())).expect("texts");
        with_status(&self, body)
    }
}

/// A JSON body; an error names the key.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for JsonBody<T> {
    type Rejection = ServeError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServeError> {
        if declared(request.headers()) != DeclaredType::Json {
            return Err(not_json());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| rejected(&error))?;
        // Large ones take a while.
        blocking(move || from_bytes(&bytes)).await.map(Self)
    }
}

/// The content type of a body, as its request declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeclaredType {
    Json,
    /// Nothing.
    None,
    /// Also what pages of other origins may send unasked: text and forms.
    Other,
}

/// The type of a body.
pub(crate) fn declared(headers: &HeaderMap) -> DeclaredType {
    let Some(value) = headers.get(CONTENT_TYPE) else { return DeclaredType::None };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let json = kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
    if json { DeclaredType::Json } else { DeclaredType::Other }
}

/// The error of a body that does not say that it is JSON.
pub(crate) fn not_json() -> ServeError {
    ServeError::new(ErrorKind::Invalid, "expected JSON with the header Content-Type: application/json")
}

/// A value of JSON; an error names the key.
fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ServeError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| at_key(&error))?;
    json.end().map_err(|error| ServeError::new(ErrorKind::Invalid, error.to_string()))?;
    Ok(value)
}

/// A value of a type; an error names the key.
pub(crate) fn parse<T: DeserializeOwned>(value: Value) -> Result<T, ServeError> {
    serde_path_to_error::deserialize(value).map_err(|error| at_key(&error))
}

fn at_key(error: &serde_path_to_error::Error<serde_json::Error>) -> ServeError {
    let (path, inner) = (error.path().to_string(), error.inner());
    let text = inner.to_string();
    // The place in the text says nothing that the key does not.
    let place = format!(" at line {} column {}", inner.line(), inner.column());
    let message = if inner.is_data() { text.strip_suffix(&place).unwrap_or(&text) } else { &text };
    if path == "." || !inner.is_data() {
        return ServeError::new(ErrorKind::Invalid, message);
    }
    ServeError::invalid(&path, message)
}

/// The error of a body that was not read to its end.
pub(crate) fn rejected(rejection: &BytesRejection) -> ServeError {
    let large = rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE;
    ServeError::new(if large { ErrorKind::TooLarge } else { ErrorKind::Invalid }, rejection.body_text())
}
