//! Jobs: submission, state, events, files.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, VARY};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::answers::JsonBody;
use crate::encoding::AnswerFormat;
use crate::job::{Job, JobView, Status};
use crate::request::GenerationRequest;
use crate::server::App;
use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// The longest wait of one request.
const LONGEST_WAIT: f64 = 60.;
/// The longest stream of the queue.
const LONGEST_STREAM: Duration = Duration::from_mins(10);

/// `POST /v1/jobs`: accepts a job and answers at once.
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<GenerationRequest>,
) -> Result<Response, ServeError> {
    let job = app.submit(request, "v1", None).await?;
    let view = app.find(job.id.clone()).await?;
    let location = [(LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(view)).into_response())
}

/// A part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Jobs before the first.
    #[serde(default)]
    offset: u32,
    /// The number of jobs, at most 500.
    #[serde(default = "page_limit")]
    limit: u32,
}

fn page_limit() -> u32 {
    50
}

/// Jobs: those that run, those that wait, those that have ended, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    jobs: Vec<JobView>,
    /// Jobs that wait, also beyond this part of the list.
    waiting: usize,
}

/// `GET /v1/jobs`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(page): Query<Page>,
) -> Result<Json<JobList>, ServeError> {
    blocking(move || {
        let jobs = app.jobs.list(page.offset as usize, page.limit.min(500) as usize)?;
        Ok(Json(JobList { jobs, waiting: app.jobs.waiting() }))
    })
    .await
}

/// The time to wait for the end.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    /// Seconds, at most 60: the answer comes at the end of the job, or after them.
    #[serde(default)]
    wait: f64,
}

/// `GET /v1/jobs/{id}`.
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(Wait { wait }): Query<Wait>,
) -> Result<Json<JobView>, ServeError> {
    if wait > 0.
        && let Some(job) = app.jobs.active_job(&id)
        // Where too many wait, the answer comes at once.
        && let Ok(_waiting) = app.waits.follow()
    {
        let longest = Duration::from_secs_f64(wait.min(LONGEST_WAIT));
        let _ = tokio::time::timeout(longest, app.wait(&job)).await;
    }
    Ok(Json(app.find(id).await?))
}

/// `POST /v1/jobs/{id}/cancel`.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ServeError> {
    blocking(move || {
        app.jobs.cancel(&id)?;
        app.jobs.find(&id).map(Json)
    })
    .await
}

/// `DELETE /v1/jobs/{id}`: removes a job that has ended, with its images.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ServeError> {
    blocking(move || app.jobs.remove(&id).map(|()| StatusCode::NO_CONTENT)).await
}

/// `GET /v1/jobs/{id}/events`: the job, whenever it changes, until it has ended.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ServeError> {
    let permit = app.waits.follow()?;
    let job = app.jobs.active_job(&id);
    let ended = if job.is_some() { None } else { Some(app.find(id).await?) };
    let changes = app.jobs.changes();
    let start = match (job, ended) {
        (Some(job), _) => EventState::Following { status: job.status.subscribe(), job, changes, first: true },
        (None, view) => EventState::Ended(view.map(Box::new)),
    };
    let events = stream::unfold((app, start, permit), |(app, state, permit)| async {
        let (view, state) = next_event(&app, state).await?;
        let name = view.state.name();
        let event = Event::default().event(name).json_data(&view).unwrap_or_default();
        Some((Ok(event), (app, state, permit)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

enum EventState {
    Following { job: Arc<Job>, status: watch::Receiver<Status>, changes: watch::Receiver<u64>, first: bool },
    Ended(Option<Box<JobView>>),
}

async fn next_event(app: &Arc<App>, state: EventState) -> Option<(JobView, EventState)> {
    let EventState::Following { job, mut status, mut changes, first } = state else {
        let EventState::Ended(view) = state else { return None };
        return Some((*view?, EventState::Ended(None)));
    };
    if !first {
        let mut stopping = app.stopping.subscribe();
        tokio::select! {
            _ = status.changed() => {}
            // Its place in the queue.
            _ = changes.changed(), if !status.borrow().state.is_final() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        }
    }
    status.borrow_and_update();
    changes.borrow_and_update();
    let view = job.view(app.jobs.snapshot().position(&job.id));
    let next = if view.state.is_final() {
        EventState::Ended(None)
    } else {
        EventState::Following { job, status, changes, first: false }
    };
    Some((view, next))
}

/// The queue at a moment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// IDs of jobs that run.
    running: Vec<String>,
    /// IDs of jobs that wait, in their order.
    waiting: Vec<String>,
}

/// `GET /v1/events`: the queue, whenever it changes. It ends after a while, so that no client has a place forever; browsers
/// connect again by themselves.
pub(crate) async fn queue_events(
    State(app): State<Arc<App>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ServeError> {
    let (permit, end) = (app.waits.follow()?, Instant::now() + LONGEST_STREAM);
    let state = (app.jobs.changes(), app, permit, true);
    let events = stream::unfold(state, move |(mut changes, app, permit, first)| async move {
        if !first {
            let mut stopping = app.stopping.subscribe();
            tokio::select! {
                _ = changes.changed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep_until(end) => return None,
            }
            // Changes come in bursts.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        changes.borrow_and_update();
        let queue = app.jobs.snapshot();
        let ids = |jobs: &[Arc<Job>]| jobs.iter().map(|job| job.id.clone()).collect();
        let view = QueueView { running: ids(&queue.running), waiting: ids(&queue.waiting) };
        let event = Event::default().event("queue").json_data(view);
        Some((Ok(event.unwrap_or_default()), (changes, app, permit, false)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// `GET /v1/jobs/{id}/preview`: the newest preview, a small PNG.
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ServeError> {
    let job = app.jobs.active_job(&id);
    let preview = job.and_then(|job| job.status.borrow().preview.clone());
    let preview = preview.ok_or_else(|| ServeError::new(ErrorKind::NotFound, "no preview"))?;
    Ok(([(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "no-store")], preview.png.clone()).into_response())
}

/// The form of an image.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageQuery {
    /// `png`, with its parameters; `jpeg` or `webp`.
    #[serde(default)]
    format: AnswerFormat,
    /// True for a file to save rather than an image to show.
    #[serde(default)]
    download: bool,
}

/// `GET /v1/jobs/{id}/images/{index}`.
pub(crate) async fn image(
    State(app): State<Arc<App>>,
    Path((id, index)): Path<(String, usize)>,
    Query(form): Query<ImageQuery>,
) -> Result<Response, ServeError> {
    let id = app.find(id).await?.id;
    let png = app.png(&id, index).await?;
    let bytes = match form.format {
        AnswerFormat::Png => png,
        format => app.images.run(move || format.encode(png, 90)).await?,
    };
    let kind = if form.download { "attachment" } else { "inline" };
    let name = format!("{kind}; filename=\"{}-{index}.{}\"", &id[..8], form.format.extension());
    let headers = [
        (CONTENT_TYPE, form.format.mime().to_owned()),
        // The bytes of an image never change.
        (CACHE_CONTROL, "private, max-age=3600, immutable".to_owned()),
        (VARY, "authorization, x-api-key".to_owned()),
        (CONTENT_DISPOSITION, name),
    ];
    Ok((headers, bytes).into_response())
}

/// `GET /v1/jobs/{id}/latents/{index}`: safetensors, tensor `latents` [1, C, h, w] f32, of a job that keeps them.
pub(crate) async fn latents(
    State(app): State<Arc<App>>,
    Path((id, index)): Path<(String, usize)>,
) -> Result<Response, ServeError> {
    let id = app.find(id).await?.id;
    let bytes = tokio::fs::read(app.jobs.latents(&id, index)).await.map_err(|_| {
        ServeError::new(ErrorKind::NotFound, "no latents; they are kept of requests with `latents`")
    })?;
    let name = format!("attachment; filename=\"{}-{index}.safetensors\"", &id[..8]);
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, bytes).into_response())
}
