//! Work with images outside of the queue: decoding, resizing, encoding.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// Requests whose images wait for a core; the rest is refused.
const LINE: usize = 64;

/// The cores for work with images of requests.
#[derive(Debug)]
pub(crate) struct ImageWork {
    cores: Arc<Semaphore>,
    line: Arc<Semaphore>,
}

impl ImageWork {
    /// One at a time for each core: more would only take memory.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores: Arc::new(Semaphore::new(cores)), line: Arc::new(Semaphore::new(cores + LINE)) }
    }

    /// Does the work of a request.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when too many wait; that of `work`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let Ok(_place) = Arc::clone(&self.line).try_acquire_owned() else {
            let message = format!("images of {LINE} requests wait to be prepared");
            return Err(ServeError::new(ErrorKind::Busy, message));
        };
        self.finish(work).await
    }

    /// Does the work of an answer, however many wait: its job is done.
    ///
    /// # Errors
    /// That of `work`.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let core = Arc::clone(&self.cores).acquire_owned().await;
        blocking(move || {
            // Until the work ends, also where its client has gone.
            let _core = core;
            work()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_is_done_on_the_cores_alone_and_a_long_line_refused() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let images = Arc::new(ImageWork::new());
        let cores = images.cores.available_permits();
        let (go, started) = (Arc::new(std::sync::Barrier::new(cores + 1)), mpsc::channel());
        let all: Vec<_> = (0..cores + LINE)
            .map(|_| {
                let (images, go, start) = (Arc::clone(&images), Arc::clone(&go), started.0.clone());
                runtime.spawn(async move {
                    let work = move || {
                        start.send(()).unwrap();
                        go.wait();
                        Ok(())
                    };
                    images.run(work).await
                })
            })
            .collect();
        (0..cores).for_each(|_| started.1.recv().unwrap());
        while images.line.available_permits() > 0 {
            std::thread::yield_now();
        }
        assert!(started.1.try_recv().is_err(), "more than the cores work");
        let refused = runtime.block_on(images.run(|| Ok(()))).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Busy);
        all.iter().for_each(tokio::task::JoinHandle::abort);
        go.wait();
    }
}
