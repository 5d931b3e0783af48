//! OpenAI's images API: generations, edits and variations. `/v1/models` is shared with the server's own API.
//!
//! A request names a model of this server or none, which is the default one. The names of OpenAI's own models, which clients
//! send by habit, are unknown models, 404 with the known names: an image of another model under their name would be a lie
//! that nobody sees. Keys that mean nothing here (`style`, `user`, `moderation`, `background`) are accepted without effect,
//! as is every unknown key, since clients of other servers send many.

pub(crate) mod answer;
pub(crate) mod fields;
mod images;
mod mask;
mod multipart;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::server::App;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/images/variations", post(images::variations))
}
