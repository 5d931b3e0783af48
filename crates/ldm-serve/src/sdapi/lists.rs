//! Lists of what clients may choose from.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sysinfo::{MemoryRefreshKind, System};
use utoipa::ToSchema;

use super::body::WebUiError;
use super::names::{SAMPLERS, SCHEDULERS};
use super::options::title;
use crate::models::ConditionedOn;
use crate::server::App;
use crate::{ErrorKind, ServeError};

/// A sampler.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SamplerItem {
    name: &'static str,
    aliases: Vec<&'static str>,
    /// The scheduler that `automatic` is.
    #[schema(value_type = Object)]
    options: Value,
}

/// `GET /sdapi/v1/samplers`.
pub(crate) async fn samplers() -> Json<Vec<SamplerItem>> {
    let each = SAMPLERS.iter().map(|sampler| SamplerItem {
        name: sampler.theirs,
        aliases: sampler.aliases.iter().copied().chain([sampler.ours]).collect(),
        options: sampler.automatic().map_or_else(|| json!({}), |name| json!({"scheduler": name})),
    });
    Json(each.collect())
}

/// A scheduler.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SchedulerItem {
    name: &'static str,
    label: &'static str,
    aliases: Option<&'static [&'static str]>,
    default_rho: f64,
    need_inner_model: bool,
}

/// `GET /sdapi/v1/schedulers`.
pub(crate) async fn schedulers() -> Json<Vec<SchedulerItem>> {
    let each = SCHEDULERS.iter().map(|scheduler| SchedulerItem {
        name: scheduler.name,
        label: scheduler.label,
        aliases: Some(scheduler.aliases).filter(|aliases| !aliases.is_empty()),
        default_rho: scheduler.rho.unwrap_or(-1.),
        need_inner_model: matches!(
            scheduler.spacing,
            Some("linspace" | "sgm_uniform" | "trailing" | "uniform")
        ),
    });
    Json(each.collect())
}

/// An upscaler.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpscalerItem {
    name: String,
    model_name: Option<String>,
    model_path: Option<String>,
    model_url: Option<String>,
    scale: f64,
}

/// `GET /sdapi/v1/upscalers`: filters, and the models that enlarge images.
pub(crate) async fn upscalers(State(app): State<Arc<App>>) -> Json<Vec<UpscalerItem>> {
    let filters = ["None", "Lanczos", "Nearest"].map(|name| UpscalerItem {
        name: name.to_owned(),
        model_name: None,
        model_path: None,
        model_url: None,
        scale: 4.,
    });
    let models = app.models.infos().iter().filter(|info| info.conditioning == ConditionedOn::LowResolution);
    let models = models.map(|info| UpscalerItem {
        name: info.name.clone(),
        model_name: Some(info.name.clone()),
        model_path: Some(info.path.clone()),
        model_url: None,
        scale: 4.,
    });
    Json(filters.into_iter().chain(models).collect())
}

/// `GET /sdapi/v1/latent-upscale-modes`: names that clients send by default. The second pass enlarges images, by Lanczos.
pub(crate) async fn latent_upscale_modes() -> Json<Value> {
    Json(json!([{"name": "Latent"}]))
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointItem {
    /// The value that option `sd_model_checkpoint` takes.
    title: String,
    model_name: String,
    /// None: it would take long to compute.
    hash: Option<String>,
    sha256: Option<String>,
    filename: String,
    config: Option<String>,
}

/// `GET /sdapi/v1/sd-models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Vec<CheckpointItem>> {
    let each = app.models.infos().iter().map(|info| CheckpointItem {
        title: title(info),
        model_name: info.name.clone(),
        hash: None,
        sha256: None,
        filename: info.path.clone(),
        config: None,
    });
    Json(each.collect())
}

/// A LoRA, which prompts name as `<lora:NAME:WEIGHT>`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoraItem {
    name: String,
    alias: String,
    path: String,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// `GET /sdapi/v1/loras`.
pub(crate) async fn loras(State(app): State<Arc<App>>) -> Json<Vec<LoraItem>> {
    let each = app.models.loras().iter().map(|(name, path)| LoraItem {
        name: name.clone(),
        alias: name.clone(),
        path: path.display().to_string(),
        metadata: Map::new(),
    });
    Json(each.collect())
}

/// `GET /sdapi/v1/embeddings`: learned words.
pub(crate) async fn embeddings(State(app): State<Arc<App>>) -> Json<Value> {
    let unknown = json!({"step": null, "sd_checkpoint": null, "sd_checkpoint_name": null, "shape": null, "vectors": null});
    let loaded: Map<_, _> = app.models.words().iter().map(|word| (word.clone(), unknown.clone())).collect();
    Json(json!({"loaded": loaded, "skipped": {}}))
}

/// `GET /sdapi/v1/memory`: bytes.
pub(crate) async fn memory() -> Json<Value> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let (total, free) = (system.total_memory(), system.available_memory());
    let ram = json!({"free": free, "used": total.saturating_sub(free), "total": total});
    Json(json!({"ram": ram, "cuda": {"error": "the memory of GPUs is not known"}}))
}

/// `GET /sdapi/v1/cmd-flags`: the options of the program that say what it can do.
pub(crate) async fn flags(State(app): State<Arc<App>>) -> Json<Value> {
    let access = &app.options.access;
    let listen = !app.address.ip().is_loopback();
    Json(json!({
        "api": true,
        "nowebui": false,
        "api_log": false,
        "api_server_stop": false,
        "listen": listen,
        "port": app.address.port(),
        "cors_allow_origins": (!access.origins.is_empty()).then(|| access.origins.join(",")),
        "ckpt": app.models.find(None).map(|info| info.path.clone()).ok(),
        "lowvram": false,
        "medvram": false,
        "no_half": app.options.kind == tch::Kind::Float,
    }))
}

/// `GET /sdapi/v1/scripts`: none.
pub(crate) async fn scripts() -> Json<Value> {
    Json(json!({"txt2img": [], "img2img": []}))
}

/// An empty list, of what the server does not have.
pub(crate) async fn none() -> Json<[(); 0]> {
    Json([])
}

/// An answer to requests to look for files again: the server has those that it started with.
pub(crate) async fn nothing() -> Json<Value> {
    Json(Value::Null)
}

/// An answer to requests to unload or load models, which the server does by itself.
pub(crate) async fn unchanged() -> Json<Value> {
    Json(json!({}))
}

/// `/sdapi/v1/interrogate`.
pub(crate) async fn no_captions() -> WebUiError {
    ServeError::new(ErrorKind::NotFound, "Model not found: there is no model that describes images").into()
}
