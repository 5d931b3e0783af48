//! The ends of jobs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::files::folder_size;
use crate::job::{Job, JobProgress, JobState, JobView, Status, now};
use crate::jobs::Jobs;
use crate::{ErrorKind, ServeError};

/// The end of a job.
#[derive(Debug)]
pub(crate) enum End {
    Done,
    Failed(ServeError),
    Canceled,
}

impl Jobs {
    /// Writes the end of a job, once. Images that were complete are kept.
    pub(crate) fn finish(&self, job: &Arc<Job>, end: End) {
        let mut active = self.active();
        if !active.by_id.contains_key(&job.id) || job.ending.swap(true, Ordering::Relaxed) {
            return;
        }
        active.waiting.retain(|waiting| waiting.job.id != job.id);
        drop(active);
        let (state, error) = match end {
            End::Done => (JobState::Done, None),
            End::Failed(error) => (JobState::Failed, Some(error)),
            End::Canceled => {
                (JobState::Canceled, Some(ServeError::new(ErrorKind::Canceled, "the job was canceled")))
            }
        };
        let mut last: Status = job.status.borrow().clone();
        last = Status { state, error, finished: Some(now()), preview: None, seconds_left: None, ..last };
        // Written before it is seen: who sees the end finds it.
        let progress = JobProgress { step: last.step, steps: last.steps, ..JobProgress::default() };
        let view =
            JobView { state, finished: last.finished, error: last.error.clone(), progress, ..job.view(None) };
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|job| job.strong_count() > 0);
        ended.push(Arc::downgrade(job));
        drop(ended);
        let written = self.journal.finish(&view, folder_size(&self.folder.join(&job.id)));
        // Under one lock, so that a job is always found.
        let mut active = self.active();
        active.by_id.remove(&job.id);
        if let Err(error) = &written {
            tracing::error!(job = job.id, %error, "the end of a job could not be written yet");
            active.unwritten.insert(job.id.clone(), view);
        }
        job.status.send_replace(last);
        drop(active);
        self.changed();
        if written.is_ok() {
            self.write_ends();
        }
    }

    /// IDs of jobs that have ended and that a client still waits for.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().filter_map(|job| Some(job.upgrade()?.id.clone())).collect()
    }

    /// Writes the ends that could not be written when they came, for example since the disk was full.
    pub(crate) fn write_ends(&self) {
        let unwritten: Vec<JobView> = self.active().unwritten.values().cloned().collect();
        for view in unwritten {
            if self.journal.finish(&view, folder_size(&self.folder.join(&view.id))).is_err() {
                return;
            }
            self.active().unwritten.remove(&view.id);
        }
    }
}
