//! Errors as answers, in the form of each API.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

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

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ServeError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServeError> {
        let Json(value) = Json::<Value>::from_request(request, state).await.map_err(rejected)?;
        parse(value).map(Self)
    }
}

/// A value of a type; an error names the key.
pub(crate) fn parse<T: DeserializeOwned>(value: Value) -> Result<T, ServeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        if path == "." {
            return ServeError::new(ErrorKind::Invalid, message);
        }
        ServeError::invalid(&path, message)
    })
}

fn rejected(rejection: JsonRejection) -> ServeError {
    let status = rejection.status();
    let kind = if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        ErrorKind::TooLarge
    } else {
        ErrorKind::Invalid
    };
    ServeError::new(kind, rejection.body_text())
}
