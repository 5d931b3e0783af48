//! Errors as answers, in the form of each API.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{ErrorKind, ServeError};

/// The body of an error of the server's own API, with the keys of OpenAI's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ServeError,
}

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

/// The form of OpenAI's API, with our `kind` and `field` under its names.
impl IntoResponse for ServeError {
    fn into_response(self) -> Response {
        let kind = if self.status().is_server_error() { "server_error" } else { "invalid_request_error" };
        let body = json!({"error": {
            "message": self.message, "type": kind, "param": self.field, "code": self.kind,
        }});
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
    let kind = if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE { ErrorKind::TooLarge } else { ErrorKind::Invalid };
    ServeError::new(kind, rejection.body_text())
}
