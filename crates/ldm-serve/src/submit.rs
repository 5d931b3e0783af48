//! From requests to jobs, and waiting for them: what all APIs share.

use std::sync::Arc;

use crate::check::check;
use crate::job::{Job, JobView, Status};
use crate::request::GenerationRequest;
use crate::server::App;
use crate::{ErrorKind, ServeError};

impl App {
    /// Checks a request and accepts it as a job. `tag` is the name that the client gives it.
    ///
    /// # Errors
    /// As [`check`] and [`Jobs::submit`](crate::jobs::Jobs::submit).
    pub(crate) async fn submit(
        self: &Arc<Self>,
        mut request: GenerationRequest,
        origin: &'static str,
        tag: Option<String>,
    ) -> Result<Arc<Job>, ServeError> {
        let app = Arc::clone(self);
        blocking(move || {
            let inputs = check(&mut request, &app.models, &app.options.limits)?;
            app.jobs.submit(request, origin, tag, inputs)
        })
        .await
    }

    /// Waits until a job has ended.
    ///
    /// # Errors
    /// When the server stops before.
    pub(crate) async fn wait(&self, job: &Job) -> Result<Status, ServeError> {
        let mut status = job.status.subscribe();
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            ended = status.wait_for(|status| status.state.is_final()) => {
                ended.map(|status| status.clone()).map_err(|_| stopped())
            }
            _ = stopping.wait_for(|stopping| *stopping) => Err(stopped()),
        }
    }

    /// The view of a client of a job.
    ///
    /// # Errors
    /// As [`Jobs::find`](crate::jobs::Jobs::find).
    pub(crate) async fn find(self: &Arc<Self>, id: String) -> Result<JobView, ServeError> {
        let app = Arc::clone(self);
        blocking(move || app.jobs.find(&id)).await
    }

    /// The PNG of an image of a job.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn png(&self, id: &str, index: usize) -> Result<Vec<u8>, ServeError> {
        let bytes = tokio::fs::read(self.jobs.image(id, index)).await;
        bytes.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ServeError::new(ErrorKind::NotFound, format!("no such image: {index}"))
            }
            _ => error.into(),
        })
    }
}

/// The server stopped while a client waited; the job is in the journal.
fn stopped() -> ServeError {
    ServeError::new(ErrorKind::Stopping, "the server is stopping; the job runs at its next start")
}

/// Runs what reads or writes files, or decodes images, where it stops no one else.
///
/// # Errors
/// That of `work`; a panic in it is [`ErrorKind::Internal`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| {
        Err(ServeError::new(ErrorKind::Internal, "the server failed to answer this request"))
    })
}
