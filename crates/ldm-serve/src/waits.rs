//! Connections that stay open: how many may wait for jobs or follow events, so that room is left for others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{ErrorKind, ServeError};

/// Places for requests that stay open.
#[derive(Debug)]
pub(crate) struct Waits {
    answers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Waits {
    /// Half of `connections` for requests that wait for their job, and a quarter for streams of events.
    pub(crate) fn new(connections: usize) -> Self {
        let of = |share: usize| Arc::new(Semaphore::new((connections / share).max(1)));
        Self { answers: of(2), streams: of(4) }
    }

    /// A place for a request that is answered at the end of its job.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when there is none.
    pub(crate) fn answer(&self) -> Result<OwnedSemaphorePermit, ServeError> {
        place(&self.answers, "requests wait for their jobs; try again, or use /v1/jobs, which does not wait")
    }

    /// A place for a stream of events, or a question for a job that waits.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when there is none.
    pub(crate) fn follow(&self) -> Result<OwnedSemaphorePermit, ServeError> {
        place(&self.streams, "clients follow events; try again, or ask for the job now and then")
    }
}

fn place(places: &Arc<Semaphore>, who: &str) -> Result<OwnedSemaphorePermit, ServeError> {
    let free = Arc::clone(places).try_acquire_owned();
    free.map_err(|_| ServeError::new(ErrorKind::Busy, format!("too many {who}")))
}
