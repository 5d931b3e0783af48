//! JobProgress and its end before time. A job is named by the client's `force_task_id`, or by its own id; without a name it is
//! the oldest of this API that has not ended, so that no one ends a job of the page or of another API unawares.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::ORIGIN;
use super::body::{JsonObject, WebUiError};
use crate::base64_image::encode;
use crate::job::{Job, JobState};
use crate::server::App;
use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// The job of a question.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct TaskQuery {
    /// The `force_task_id` of its request, or its id.
    id_task: Option<String>,
    /// `true` leaves the preview out.
    skip_current_image: Option<String>,
}

impl TaskQuery {
    fn job(&self, app: &App) -> Option<Arc<Job>> {
        match self.id_task.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => find(app, name),
            None => app.jobs.snapshot().jobs().find(|job| job.origin == ORIGIN).cloned(),
        }
    }
}

fn find(app: &App, name: &str) -> Option<Arc<Job>> {
    app.jobs.tagged(name).or_else(|| app.jobs.active_job(name))
}

/// The progress of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskProgress {
    /// 0 to 1.
    progress: f64,
    /// Seconds that the rest will take.
    eta_relative: f64,
    state: TaskState,
    /// Base64 of a PNG.
    current_image: Option<String>,
    textinfo: Option<String>,
}

/// The state of a job.
#[derive(Debug, Default, Serialize, ToSchema)]
struct TaskState {
    skipped: bool,
    interrupted: bool,
    stopping_generation: bool,
    /// Its `force_task_id`, or its id; empty without one.
    job: String,
    /// Jobs of this API that wait or run.
    job_count: usize,
    /// When it was accepted.
    job_timestamp: String,
    job_no: usize,
    sampling_step: usize,
    sampling_steps: usize,
    /// Its place among all jobs that wait, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<usize>,
}

/// `GET /sdapi/v1/progress`. Without a job all is 0, which clients wait for.
pub(crate) async fn progress(
    State(app): State<Arc<App>>,
    Query(query): Query<TaskQuery>,
) -> Result<Json<TaskProgress>, WebUiError> {
    let Some(job) = query.job(&app) else {
        let state = TaskState { job_timestamp: timestamp(0), ..TaskState::default() };
        return Ok(Json(TaskProgress {
            progress: 0.,
            eta_relative: 0.,
            state,
            current_image: None,
            textinfo: None,
        }));
    };
    let settings = app.sdapi.settings(&app.models, &Map::new())?;
    let skip = matches!(query.skip_current_image.as_deref(), Some("true" | "True" | "1"));
    let status = job.status.borrow().clone();
    let queue = app.jobs.snapshot();
    let view = job.view(queue.position(&job.id));
    let preview = status.preview.as_ref().filter(|_| settings.previews && !skip);
    let of_this = queue.jobs().filter(|job| job.origin == ORIGIN).count();
    let state = TaskState {
        skipped: false,
        interrupted: job.cancel.load(Ordering::Relaxed),
        stopping_generation: false,
        job: job.tag.clone().unwrap_or_else(|| job.id.clone()),
        job_count: of_this.max(1),
        job_timestamp: timestamp(job.created),
        job_no: status.images.len(),
        sampling_step: status.step,
        sampling_steps: status.steps,
        queue_position: view.position,
    };
    Ok(Json(TaskProgress {
        progress: view.progress.share(),
        eta_relative: status.seconds_left.unwrap_or_default(),
        state,
        current_image: preview.map(|preview| encode(&preview.png)),
        textinfo: view.position.map(|position| format!("Waiting, place {position}")),
    }))
}

/// `POST /sdapi/v1/interrupt`: ends a job at its next step; the images that are complete are its answer.
pub(crate) async fn interrupt(
    State(app): State<Arc<App>>,
    Query(query): Query<TaskQuery>,
) -> Result<Json<Value>, WebUiError> {
    end(app, query).await?;
    Ok(Json(json!({})))
}

/// `POST /sdapi/v1/skip`: the same, since a job has no parts to skip.
pub(crate) async fn skip(
    State(app): State<Arc<App>>,
    Query(query): Query<TaskQuery>,
) -> Result<Json<Value>, WebUiError> {
    end(app, query).await?;
    Ok(Json(Value::Null))
}

async fn end(app: Arc<App>, query: TaskQuery) -> Result<(), ServeError> {
    blocking(move || {
        let Some(job) = query.job(&app) else { return Ok(()) };
        match app.jobs.cancel(&job.id) {
            // It has just ended by itself.
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            result => result,
        }
    })
    .await
}

/// A question for the progress of a task.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TaskQuestion {
    id_task: String,
    /// The number of the last preview that the client has.
    #[serde(default = "none_yet")]
    id_live_preview: i64,
    #[serde(default = "wanted")]
    live_preview: bool,
}

fn none_yet() -> i64 {
    -1
}

fn wanted() -> bool {
    true
}

/// The progress of a task.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TaskAnswer {
    active: bool,
    queued: bool,
    paused: bool,
    completed: bool,
    progress: Option<f64>,
    eta: Option<f64>,
    /// A `data:` URL, only where it is newer than the client's.
    live_preview: Option<String>,
    id_live_preview: i64,
    textinfo: Option<String>,
}

/// `POST /internal/progress`.
pub(crate) async fn of_task(
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<TaskAnswer>, WebUiError> {
    let question: TaskQuestion = body.parse()?;
    let shown = question.id_live_preview;
    let Some(job) = find(&app, &question.id_task) else {
        let completed = app.sdapi.has_ended(&question.id_task);
        let textinfo = (!completed).then(|| "Waiting...".to_owned());
        return Ok(Json(TaskAnswer { completed, id_live_preview: shown, textinfo, ..TaskAnswer::default() }));
    };
    let previews = question.live_preview && app.sdapi.settings(&app.models, &Map::new())?.previews;
    let status = job.status.borrow().clone();
    let view = job.view(app.jobs.snapshot().position(&job.id));
    let preview = status.preview.filter(|preview| previews && preview.number as i64 != shown);
    Ok(Json(TaskAnswer {
        active: status.state == JobState::Running,
        queued: status.state == JobState::Queued,
        paused: false,
        completed: status.state.is_final(),
        progress: Some(view.progress.share()),
        eta: status.seconds_left,
        id_live_preview: preview.as_ref().map_or(shown, |preview| preview.number as i64),
        live_preview: preview.map(|preview| format!("data:image/png;base64,{}", encode(&preview.png))),
        textinfo: view.position.map(|position| format!("In queue: {position}/{}", app.jobs.waiting())),
    }))
}

/// `YYYYmmddHHMMSS` in UTC of milliseconds since 1970.
pub(crate) fn timestamp(millis: u64) -> String {
    let (days, seconds) = (millis / 86_400_000, millis / 1000 % 86_400);
    // Howard Hinnant's civil_from_days: years from March on, in eras of 400.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "19700101000000"),
            (951_827_696, "20000229123456"),
            (1_709_251_199, "20240229235959"),
            (1_735_689_600, "20250101000000"),
        ] {
            assert_eq!(timestamp(seconds * 1000), text);
        }
    }
}
