//! OpenAI's images API.

use std::sync::Arc;

use axum::Router;

use crate::server::App;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
}
