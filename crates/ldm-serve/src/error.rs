//! Errors of requests and jobs.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of an error, which determines its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A request that cannot be fulfilled as it stands: 400.
    Invalid,
    /// Missing or wrong credentials: 401.
    Unauthorized,
    /// A page of another origin, or a host that is not this server's: 403.
    Forbidden,
    /// No such job, model or file: 404.
    NotFound,
    /// Not possible in the present state, as canceling a finished job: 409.
    Conflict,
    /// A result that was removed since its retention ended: 410.
    Expired,
    /// A body, or an image, beyond the limits: 413.
    TooLarge,
    /// A full queue: 429.
    Busy,
    /// The job was canceled: 409.
    Canceled,
    /// The job ran longer than the server allows: 400.
    TimedOut,
    /// A fault of the server: 500.
    Internal,
    /// The server is stopping: 503.
    Stopping,
    /// The disk is full, or files cannot be written: 507.
    Storage,
}

/// An error of a request or a job, as every API answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct ServeError {
    /// The kind.
    pub kind: ErrorKind,
    /// One sentence: `FIELD: expected X, got Y`.
    pub message: String,
    /// The field of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ServeError {
    /// An error of a kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
    }

    /// A field with an invalid value: `FIELD: expected EXPECTED, got GOT`.
    pub(crate) fn expected(
        field: &str,
        expected: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Self {
        Self::invalid(field, format!("expected {expected}, got {got}"))
    }

    /// A field with an invalid value: `FIELD: MESSAGE`.
    pub(crate) fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self {
            kind: ErrorKind::Invalid,
            message: format!("{field}: {message}"),
            field: Some(field.to_owned()),
        }
    }

    /// The status of an answer with this error.
    pub(crate) fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::Invalid | ErrorKind::TimedOut => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Canceled => StatusCode::CONFLICT,
            ErrorKind::Expired => StatusCode::GONE,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Storage => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

/// Errors of the libraries: those of inputs are the client's, all others the server's.
impl From<ldm_core::Error> for ServeError {
    fn from(error: ldm_core::Error) -> Self {
        use ldm_core::Error;
        let kind = match &error {
            Error::Invalid(_) | Error::MissingInput(_) | Error::Shape { .. } => ErrorKind::Invalid,
            Error::Stopped => ErrorKind::Canceled,
            Error::Io { source, .. } if is_full(source) => ErrorKind::Storage,
            _ => ErrorKind::Internal,
        };
        if kind == ErrorKind::Storage { full() } else { Self::new(kind, error.to_string()) }
    }
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> Self {
        if is_full(&error) { full() } else { Self::new(ErrorKind::Internal, error.to_string()) }
    }
}

impl From<rusqlite::Error> for ServeError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return full();
        }
        Self::new(ErrorKind::Internal, format!("journal: {error}"))
    }
}

fn full() -> ServeError {
    ServeError::new(
        ErrorKind::Storage,
        "the disk of the server is full; remove jobs, or set --keep-size lower",
    )
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
