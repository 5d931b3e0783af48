//! The description of all APIs by OpenAPI, and a page that shows it.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::answers::ErrorBody;
use crate::openai::answer::ImagesAnswer;
use crate::openai::fields::ImageFields;
use crate::parameters::Found;
use crate::server::App;
use crate::{GenerationRequest, JobView, ModelInfo};

/// The files of the page with their paths and types.
const PAGE: [(&str, &str, &str); 3] = [
    ("/docs", "text/html; charset=utf-8", include_str!("../web/docs.html")),
    ("/docs.css", "text/css; charset=utf-8", include_str!("../web/docs.css")),
    ("/docs.js", "text/javascript; charset=utf-8", include_str!("../web/docs.js")),
];

/// An operation: method, path, summary, schema of the body, and schema or MIME type of the answer; empty where there is none.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// The server's own API.
const OWN: [Row; 18] = [
    ("get", "/v1/server", "The server: samplers, limits, the default model", "", "ServerInfo"),
    ("get", "/v1/models", "The models; also of OpenAI's API", "", "ModelList"),
    ("get", "/v1/models/{name}", "A model", "", "Model"),
    ("get", "/v1/jobs", "Jobs: running, waiting, ended; query: offset, limit", "", "JobList"),
    ("post", "/v1/jobs", "Accepts a job and answers at once", "GenerationRequest", "JobView"),
    ("get", "/v1/jobs/{id}", "A job; query: wait, the seconds to wait for its end", "", "JobView"),
    ("delete", "/v1/jobs/{id}", "Removes a job that has ended, with its images", "", ""),
    ("post", "/v1/jobs/{id}/cancel", "Cancels a job", "", "JobView"),
    ("get", "/v1/jobs/{id}/events", "The job, whenever it changes, until its end", "", "text/event-stream"),
    ("get", "/v1/jobs/{id}/preview", "The newest preview", "", "image/png"),
    ("get", "/v1/jobs/{id}/images/{index}", "An image; query: format, download", "", "image/png"),
    ("get", "/v1/jobs/{id}/latents/{index}", "Latents as safetensors", "", "application/octet-stream"),
    ("get", "/v1/events", "IDs of running and waiting jobs, whenever they change", "", "text/event-stream"),
    ("post", "/v1/parameters", "The settings in a PNG, which is the body", "image/png", "ReadParameters"),
    ("get", "/v1/runs", "Training runs", "", "application/json"),
    ("get", "/v1/runs/{name}", "A training run", "", "application/json"),
    ("get", "/v1/runs/{name}/metrics", "The metrics of a training run", "", "application/json"),
    ("get", "/v1/runs/{name}/samples/{file}", "A sample of a training run", "", "image/png"),
];

/// OpenAI's images API.
const OPENAI: [Row; 3] = [
    (
        "post",
        "/v1/images/generations",
        "Images of a text; with stream, events",
        "ImageFields",
        "ImagesAnswer",
    ),
    (
        "post",
        "/v1/images/edits",
        "An image, sampled anew where its mask is transparent",
        "ImageUpload",
        "ImagesAnswer",
    ),
    ("post", "/v1/images/variations", "Variations of an image", "ImageUpload", "ImagesAnswer"),
];

/// AUTOMATIC1111's API below `/sdapi/v1`: bodies and answers are as in its own description.
const SDAPI: [(&str, &str, &str); 35] = [
    ("post", "txt2img", "Images of a text"),
    ("post", "img2img", "Images from an initial image, with or without a mask"),
    ("post", "extra-single-image", "An enlarged image"),
    ("post", "extra-batch-images", "Enlarged images"),
    ("post", "png-info", "The parameters of an image"),
    ("post", "interrogate", "Refused: no model describes images"),
    ("get", "progress", "The progress of the running job; query: id_task"),
    ("post", "interrupt", "Ends the running job"),
    ("post", "skip", "Skips the running image"),
    ("get", "options", "The options"),
    ("post", "options", "Sets options"),
    ("get", "cmd-flags", "Flags of the command line"),
    ("get", "samplers", "Samplers"),
    ("get", "schedulers", "Spacings of the timesteps"),
    ("get", "upscalers", "Upscalers"),
    ("get", "latent-upscale-modes", "Interpolations of latents"),
    ("get", "sd-models", "Models"),
    ("get", "loras", "LoRAs"),
    ("get", "embeddings", "Learned words"),
    ("get", "memory", "Memory"),
    ("get", "scripts", "Scripts: none"),
    ("post", "unload-checkpoint", "Accepted without effect"),
    ("post", "reload-checkpoint", "Accepted without effect"),
    ("get", "sd-vae", "An empty list"),
    ("get", "hypernetworks", "An empty list"),
    ("get", "face-restorers", "An empty list"),
    ("get", "realesrgan-models", "An empty list"),
    ("get", "prompt-styles", "An empty list"),
    ("get", "script-info", "An empty list"),
    ("get", "extensions", "An empty list"),
    ("post", "refresh-checkpoints", "Accepted without effect"),
    ("post", "refresh-loras", "Accepted without effect"),
    ("post", "refresh-vae", "Accepted without effect"),
    ("post", "refresh-embeddings", "Accepted without effect"),
    ("post", "/internal/progress", "The progress of a job by its name"),
];

/// Other paths.
const SERVER: [Row; 3] = [
    ("get", "/health", "`ok`, or 503 while the server stops; needs no credentials", "", "text/plain"),
    ("get", "/metrics", "Counters in the format of OpenMetrics", "", "application/openmetrics-text"),
    ("get", "/openapi.json", "This description", "", "application/json"),
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The routes of the description and its page.
pub(crate) fn routes() -> Router<Arc<App>> {
    let routes = Router::new().route("/openapi.json", get(async || file("application/json", &DOCUMENT)));
    PAGE.into_iter()
        .fold(routes, |routes, (path, kind, text)| routes.route(path, get(async move || file(kind, text))))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text)
}

fn document() -> Value {
    let mut paths = Map::new();
    for (tag, rows) in [("v1", &OWN[..]), ("openai", &OPENAI[..]), ("server", &SERVER[..])] {
        for (method, path, summary, body, answer) in rows {
            add(&mut paths, method, path, operation(tag, path, summary, body, answer));
        }
    }
    for (method, name, summary) in SDAPI {
        let path = if name.starts_with('/') { name.to_owned() } else { format!("/sdapi/v1/{name}") };
        let body = if method == "post" { "application/json" } else { "" };
        add(&mut paths, method, &path, operation("sdapi", &path, summary, body, "application/json"));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "ldm serve", "version": env!("CARGO_PKG_VERSION"),
            "description": "Latent diffusion models: the server's own API, OpenAI's images API, and AUTOMATIC1111's."},
        "tags": [
            {"name": "v1", "description": "The server's own API"},
            {"name": "openai", "description": "OpenAI's images API"},
            {"name": "sdapi", "description": "AUTOMATIC1111's API"},
            {"name": "server", "description": "The server"},
        ],
        // Only where the server has keys.
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {"schemas": schemas(), "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"},
        }},
    })
}

fn add(paths: &mut Map<String, Value>, method: &str, path: &str, operation: Value) {
    paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
}

fn operation(tag: &str, path: &str, summary: &str, body: &str, answer: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.map(|name| {
        let kind = if name == "index" { "integer" } else { "string" };
        json!({"name": name, "in": "path", "required": true, "schema": {"type": kind}})
    });
    // `query: NAME, NAME` of the summary.
    let queries = summary.split_once("query: ").map_or("", |(_, names)| names).split(',');
    let names = queries.filter_map(|name| name.split_whitespace().next()).filter(|name| *name != "the");
    let in_query = names.map(|name| {
        let kind = match name {
            "offset" | "limit" => "integer",
            "wait" => "number",
            "download" => "boolean",
            _ => "string",
        };
        json!({"name": name, "in": "query", "schema": {"type": kind}})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let status = match (path, answer) {
        ("/v1/jobs", "JobView") => "202",
        (_, "") => "204",
        _ => "200",
    };
    let error = if tag == "sdapi" { "application/json" } else { "ErrorBody" };
    let mut operation = json!({
        "tags": [tag],
        "summary": summary,
        "responses": {
            status: {"description": "The answer"},
            "default": {"description": "An error", "content": content(error)},
        },
    });
    if !answer.is_empty() {
        operation["responses"][status]["content"] = content(answer);
    }
    if tag == "openai" {
        operation["responses"][status]["content"]["text/event-stream"] =
            json!({"schema": {"type": "string"}});
    }
    if !body.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content(body)});
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    operation
}

/// The content of a schema, or of a MIME type.
fn content(of: &str) -> Value {
    let (kind, schema) = match of {
        "ImageUpload" => ("multipart/form-data", reference(of)),
        "application/json" => (of, json!({})),
        _ if of.starts_with("text/") || of.ends_with("text") => (of, json!({"type": "string"})),
        _ if of.contains('/') => (of, json!({"type": "string", "format": "binary"})),
        _ => ("application/json", reference(of)),
    };
    json!({kind: {"schema": schema}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn schemas() -> Map<String, Value> {
    let mut found: Vec<(String, RefOr<Schema>)> = Vec::new();
    collect::<GenerationRequest>(&mut found);
    collect::<JobView>(&mut found);
    collect::<ModelInfo>(&mut found);
    collect::<ErrorBody>(&mut found);
    collect::<Found>(&mut found);
    collect::<ImageFields>(&mut found);
    collect::<ImagesAnswer>(&mut found);
    let derived = found.into_iter().map(|(name, schema)| (name, json!(schema)));
    derived.chain(written()).collect()
}

fn collect<T: ToSchema + PartialSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    found.push((T::name().into_owned(), T::schema()));
    T::schemas(found);
}

/// Schemas of answers that are lists of others, and of the form with an image.
fn written() -> [(String, Value); 6] {
    let (text, count) = (json!({"type": "string"}), json!({"type": "integer", "minimum": 0}));
    let list = |items: &Value| json!({"type": "array", "items": items});
    let object = |properties: Value| {
        let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).cloned().collect();
        json!({"type": "object", "required": required, "properties": properties})
    };
    let limits = json!({"body": count, "pixels": count, "steps": count, "images": count, "queue": count});
    let binary = json!({"type": "string", "format": "binary"});
    let model = object(json!({"id": text, "object": text, "created": count, "owned_by": text}));
    let files =
        json!({"type": "object", "required": ["image"], "properties": {"image": binary, "mask": binary}});
    [
        ("JobList", object(json!({"jobs": list(&reference("JobView")), "waiting": count}))),
        ("ModelList", object(json!({"object": text, "data": list(&reference("Model"))}))),
        ("Model", json!({"allOf": [reference("ModelInfo"), model]})),
        ("ReadParameters", json!({"allOf": [reference("Found"), object(json!({"text": text}))]})),
        ("ImageUpload", json!({"allOf": [reference("ImageFields"), files]})),
        (
            "ServerInfo",
            object(json!({
                "version": text, "default_model": text, "samplers": list(&text), "spacings": list(&text),
                "loras": list(&text), "words": list(&text), "runs": {"type": "boolean"},
                "limits": object(limits), "waiting": count,
            })),
        ),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
}
