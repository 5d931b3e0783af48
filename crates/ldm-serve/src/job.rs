//! Jobs: their states, and what a client sees of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::request::GenerationRequest;
use crate::{ErrorKind, ServeError};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Is being sampled.
    Running,
    /// Its images are there.
    Done,
    /// Ended with an error.
    Failed,
    /// Was canceled; images that were complete are there.
    Canceled,
}

impl JobState {
    /// True once nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Canceled)
    }

    /// The name in answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The state of a name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Canceled];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// An image of a job, whose PNG is in the job's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobImage {
    /// The place in the job, from 0.
    pub index: usize,
    /// The seed.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The text `parameters` of the PNG.
    pub parameters: String,
    /// True where the safety checker replaced it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nsfw: bool,
}

/// The part of a job that changes while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: JobState,
    /// Steps done, of all images, and their number, which is known once it runs.
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// Complete images, in the order of their places.
    pub(crate) images: Vec<JobImage>,
    pub(crate) preview: Option<Arc<JobPreview>>,
    pub(crate) error: Option<ServeError>,
    /// Warnings.
    pub(crate) notes: Vec<String>,
    /// Seconds that the rest will take, by the steps so far.
    pub(crate) seconds_left: Option<f64>,
    /// Milliseconds since 1970.
    pub(crate) started: Option<u64>,
    pub(crate) finished: Option<u64>,
}

/// The denoised image of a step, in small.
#[derive(Debug)]
pub(crate) struct JobPreview {
    /// Number among the previews of the job, from 1.
    pub(crate) number: usize,
    /// A PNG.
    pub(crate) png: Vec<u8>,
    /// Width and height of the images of the job.
    pub(crate) size: [u32; 2],
}

/// A job that waits or runs, or has just ended.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// The API that it came by.
    pub(crate) origin: String,
    /// The name that the client gave it.
    pub(crate) tag: Option<String>,
    /// With its seed, and the names of its input files in place of base64.
    pub(crate) request: GenerationRequest,
    /// Of its texts and input files.
    pub(crate) bytes: u64,
    pub(crate) batch_key: String,
    pub(crate) created: u64,
    /// When its first batch began.
    pub(crate) begun: OnceLock<Instant>,
    pub(crate) cancel: AtomicBool,
    /// Set by the first who ends it.
    pub(crate) ending: AtomicBool,
    pub(crate) status: watch::Sender<Status>,
}

impl Job {
    /// A job that waits.
    pub(crate) fn new(id: String, origin: String, request: GenerationRequest, created: u64) -> Self {
        let status = Status {
            state: JobState::Queued,
            step: 0,
            steps: 0,
            images: Vec::new(),
            preview: None,
            error: None,
            notes: Vec::new(),
            seconds_left: None,
            started: None,
            finished: None,
        };
        Self {
            batch_key: request.batch_key(),
            id,
            tag: None,
            bytes: 0,
            begun: OnceLock::new(),
            origin,
            request,
            created,
            cancel: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            status: watch::Sender::new(status),
        }
    }

    /// The seed of image `index`.
    pub(crate) fn seed(&self, index: usize) -> u64 {
        self.request.seed.unwrap_or_default().wrapping_add(index as u64)
    }

    /// True once it has run for longer than `limit`.
    pub(crate) fn is_late(&self, limit: Option<Duration>) -> bool {
        limit.zip(self.begun.get()).is_some_and(|(limit, begun)| begun.elapsed() > limit)
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// The view of a client; `position` is that in the queue, from 1.
    pub(crate) fn view(&self, position: Option<usize>) -> JobView {
        let status = self.status.borrow();
        JobView {
            id: self.id.clone(),
            origin: self.origin.clone(),
            state: status.state,
            position,
            created: self.created,
            started: status.started,
            finished: status.finished,
            progress: JobProgress {
                step: status.step,
                steps: status.steps,
                seconds_left: status.seconds_left,
                preview: status.preview.as_ref().map(|preview| preview.number),
            },
            request: self.request.clone(),
            images: status.images.clone(),
            notes: status.notes.clone(),
            error: status.error.clone(),
        }
    }
}

/// A job as a client sees it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobView {
    /// The name of the job, which nobody can guess.
    pub id: String,
    /// The API that it came by: `v1`, `sdapi` or `openai`.
    pub origin: String,
    /// The state.
    pub state: JobState,
    /// The place in the queue, from 1, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// When it was accepted, in milliseconds since 1970.
    pub created: u64,
    /// When its sampling began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
    /// The progress.
    pub progress: JobProgress,
    /// The request, with its seed; images, masks and maps are left out.
    pub request: GenerationRequest,
    /// The complete images.
    pub images: Vec<JobImage>,
    /// Warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ServeError>,
}

/// The progress of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobProgress {
    /// Steps done.
    pub step: usize,
    /// Steps in all; 0 while they are unknown.
    pub steps: usize,
    /// Seconds that the rest will take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// The number of the newest preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<usize>,
}

impl JobProgress {
    /// The share that is done.
    pub(crate) fn share(self) -> f64 {
        if self.steps == 0 { 0. } else { self.step as f64 / self.steps as f64 }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// A new name of a job: 128 random bits.
///
/// # Errors
/// When the system has no random numbers.
pub(crate) fn new_id() -> Result<String, ServeError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServeError::new(ErrorKind::Internal, format!("random numbers: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
