//! AUTOMATIC1111's API: the routes below `/sdapi/v1`, and the progress of the web UI's own page.

pub(crate) mod answer;
mod body;
pub(crate) mod extras;
mod fill;
pub(crate) mod form;
mod images;
pub(crate) mod lists;
mod mask;
mod names;
pub(crate) mod options;
pub(crate) mod png_info;
pub(crate) mod progress;
mod prompt;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::ServeError;
use crate::server::App;

pub(crate) use names::renamed;
pub(crate) use options::SdapiState;

/// The origin of its jobs.
pub(crate) const ORIGIN: &str = "sdapi";

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    let routes = Router::new()
        .route("/txt2img", post(answer::text_to_image))
        .route("/img2img", post(answer::image_to_image))
        .route("/extra-single-image", post(extras::single))
        .route("/extra-batch-images", post(extras::batch))
        .route("/png-info", post(png_info::read))
        // Also for GET, by which clients find out whether there is one.
        .route("/interrogate", any(lists::no_captions))
        .route("/progress", get(progress::progress))
        .route("/interrupt", post(progress::interrupt))
        .route("/skip", post(progress::skip))
        .route("/options", get(options::get).post(options::set))
        .route("/cmd-flags", get(lists::flags))
        .route("/samplers", get(lists::samplers))
        .route("/schedulers", get(lists::schedulers))
        .route("/upscalers", get(lists::upscalers))
        .route("/latent-upscale-modes", get(lists::latent_upscale_modes))
        .route("/sd-models", get(lists::models))
        .route("/loras", get(lists::loras))
        .route("/embeddings", get(lists::embeddings))
        .route("/memory", get(lists::memory))
        .route("/scripts", get(lists::scripts))
        .route("/unload-checkpoint", post(lists::unchanged))
        .route("/reload-checkpoint", post(lists::unchanged));
    let empty = [
        "sd-vae",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "script-info",
        "extensions",
    ];
    let routes =
        empty.iter().fold(routes, |routes, name| routes.route(&format!("/{name}"), get(lists::none)));
    let refresh = ["refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings"];
    let routes =
        refresh.iter().fold(routes, |routes, name| routes.route(&format!("/{name}"), post(lists::nothing)));
    Router::new().nest("/sdapi/v1", routes).route("/internal/progress", post(progress::of_task))
}

/// An error in its form.
pub(crate) fn error(error: &ServeError) -> Response {
    body::error(error)
}
