//! The server and its models.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use ldm_schedulers::{SamplerConfig, Spacing};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ServeError;
use crate::models::ModelInfo;
use crate::server::App;

/// The choices of a client.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerInfo {
    /// The version of the program.
    version: &'static str,
    /// The model of requests that name none.
    default_model: String,
    samplers: Vec<&'static str>,
    spacings: Vec<&'static str>,
    /// Names of LoRAs.
    loras: Vec<String>,
    /// Learned words, which prompts of models by CLIP may use.
    words: Vec<String>,
    /// True where training runs are shown.
    runs: bool,
    limits: LimitsInfo,
    /// Jobs that wait.
    waiting: usize,
}

/// The bounds of requests.
#[derive(Debug, Serialize, ToSchema)]
struct LimitsInfo {
    /// Bytes of a body.
    body: usize,
    /// Pixels of an image.
    pixels: u64,
    /// Sampling steps.
    steps: usize,
    /// Images of a job.
    images: usize,
    /// Jobs that wait.
    queue: usize,
}

/// `GET /v1/server`.
pub(crate) async fn server(State(app): State<Arc<App>>) -> Json<ServerInfo> {
    let limits = &app.options.limits;
    Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION"),
        default_model: app.models.default(),
        samplers: SamplerConfig::NAMES.to_vec(),
        spacings: Spacing::NAMES.to_vec(),
        loras: app.models.loras().iter().map(|(name, _)| name.clone()).collect(),
        words: app.models.words().to_vec(),
        runs: app.options.runs.is_some(),
        limits: LimitsInfo {
            body: limits.body,
            pixels: limits.pixels,
            steps: limits.steps,
            images: limits.images,
            queue: limits.queue,
        },
        waiting: app.jobs.waiting(),
    })
}

/// A list of models, as OpenAI's API has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<ModelInfo>,
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: app.models.infos().to_vec() })
}

/// `GET /v1/models/{name}`.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<ModelInfo>, ServeError> {
    Ok(Json(app.models.find(Some(&name))?.clone()))
}
