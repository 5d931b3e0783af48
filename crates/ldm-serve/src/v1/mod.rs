//! The server's own API: jobs of every kind of model, their events and files, and what the page needs.

mod jobs;
mod parameters;
mod runs;
mod server;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::server::App;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/server", get(server::server))
        .route("/v1/models", get(server::models))
        .route("/v1/models/{name}", get(server::model))
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/{id}", get(jobs::find).delete(jobs::remove))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/events", get(jobs::events))
        .route("/v1/jobs/{id}/preview", get(jobs::preview))
        .route("/v1/jobs/{id}/images/{index}", get(jobs::image))
        .route("/v1/jobs/{id}/latents/{index}", get(jobs::latents))
        .route("/v1/events", get(jobs::queue_events))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{name}", get(runs::find))
        .route("/v1/runs/{name}/metrics", get(runs::metrics))
        .route("/v1/runs/{name}/samples/{file}", get(runs::sample))
        .route("/v1/parameters", post(parameters::read))
}
