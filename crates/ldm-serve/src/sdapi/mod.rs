//! AUTOMATIC1111's API.

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use serde_json::json;

use crate::server::App;
use crate::{ServeError, answers};

/// What clients have set.
#[derive(Debug, Default)]
pub(crate) struct State;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
}

/// An error in its form.
pub(crate) fn error(error: &ServeError) -> Response {
    let body = json!({"error": format!("{:?}", error.kind), "detail": error.message, "body": "", "errors": error.message});
    answers::with_status(error, body)
}
