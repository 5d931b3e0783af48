//! All routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

use crate::server::App;
use crate::{ErrorKind, ServeError, answers, bodies, openai, openapi, page, sdapi, security, v1};

/// The routes of a server.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let limits = &app.options.limits;
    Router::new()
        .merge(page::routes())
        .merge(v1::routes())
        .merge(openai::routes())
        .merge(sdapi::routes())
        .merge(openapi::routes())
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(app))
        .layer(DefaultBodyLimit::max(limits.body))
        .layer(from_fn_with_state(Arc::clone(app), bodies::bounded))
        .layer(from_fn_with_state(Arc::clone(app), check_length))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(app), security::guard))
        .layer(from_fn_with_state(Arc::clone(app), log))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    if app.jobs.is_stopping() {
        return ServeError::new(ErrorKind::Stopping, "the server is stopping").into_response();
    }
    ([(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.text(app.jobs.waiting())).into_response()
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("no such path: {}", path.chars().take(200).collect::<String>());
    answers::of_path(path, &ServeError::new(ErrorKind::NotFound, message))
}

async fn wrong_method(method: Method, request: Request) -> Response {
    let message = format!("{method} is not a method of this path");
    let error = ServeError::new(ErrorKind::Invalid, message);
    let mut response = answers::of_path(request.uri().path(), &error);
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Refuses a body by the length that its head announces, before any of it is read.
async fn check_length(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let limit = app.options.limits.body as u64;
    match length {
        Some(length) if length > limit => {
            let message = format!("expected a body of at most {limit} bytes, got {length}");
            answers::of_path(request.uri().path(), &ServeError::new(ErrorKind::TooLarge, message))
        }
        _ => next.run(request).await,
    }
}

/// A panic in a handler is an answer, and the server goes on.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    tracing::error!("a handler panicked: {text}");
    ServeError::new(ErrorKind::Internal, "the server failed to answer this request").into_response()
}

/// Logs a request with its answer and its time, without its query and body.
async fn log(State(_): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = std::time::Instant::now();
    let mut response = next.run(request).await;
    let seconds = begun.elapsed();
    let status = response.status().as_u16();
    if seconds > Duration::from_secs(1) || status >= 500 {
        tracing::info!(%method, path, status, ms = seconds.as_millis() as u64);
    } else {
        tracing::debug!(%method, path, status, ms = seconds.as_millis() as u64);
    }
    // As AUTOMATIC1111.
    if let Ok(value) = HeaderValue::from_str(&format!("{:.4}", seconds.as_secs_f64())) {
        response.headers_mut().insert(HeaderName::from_static("x-process-time"), value);
    }
    response
}
