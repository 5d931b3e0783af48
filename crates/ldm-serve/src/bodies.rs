//! Bodies of requests: the memory that all of them may take, and the rate at which they must come.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::server::App;
use crate::{ErrorKind, ServeError, answers};

/// Bytes of the unit in which memory is counted.
const UNIT: usize = 1 << 10;
/// The least bytes a second of a body, after the time that every part of it has.
const LEAST_RATE: usize = 128 << 10;

/// The memory that bodies of requests may take together.
#[derive(Debug)]
pub(crate) struct BodyMemory(Arc<Semaphore>);

/// The memory of a request: of its body, and then of what it keeps while its job waits. It is given back when the request ends.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom {
    all: Arc<Semaphore>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// Set where there was no more.
    refused: Arc<AtomicBool>,
}

impl BodyMemory {
    /// `bytes` for all bodies.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS))))
    }

    fn room(&self) -> BodyRoom {
        BodyRoom { all: Arc::clone(&self.0), taken: Arc::default(), refused: Arc::default() }
    }
}

impl BodyRoom {
    fn taken(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes more or gives some back, so that `bytes` are taken.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] where other requests have the rest.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), ServeError> {
        let units = bytes.div_ceil(UNIT);
        let mut taken = self.taken();
        let before = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if units < before {
            let rest = taken.as_mut().and_then(|taken| taken.split(before - units));
            drop(rest);
            return Ok(());
        }
        let more = u32::try_from(units - before).ok();
        let more = more.and_then(|more| Arc::clone(&self.all).try_acquire_many_owned(more).ok());
        let Some(more) = more else {
            self.refused.store(true, Ordering::Relaxed);
            return Err(full());
        };
        match taken.as_mut() {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Ok(())
    }

    /// Takes at least `bytes`.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), ServeError> {
        let before = self.taken().as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT;
        self.keep(bytes.max(before))
    }
}

fn full() -> ServeError {
    let message = "the memory for bodies of requests is full: too many large requests at once";
    ServeError::new(ErrorKind::Busy, message)
}

impl<S: Send + Sync> FromRequestParts<S> for BodyRoom {
    type Rejection = Infallible;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, Infallible>> + Send {
        let room = parts.extensions.get::<Self>().cloned();
        ready(Ok(room.expect("every request passes `bounded`")))
    }
}

/// A body as it comes.
struct IncomingBody {
    stream: BodyDataStream,
    room: BodyRoom,
    begun: Instant,
    /// The time for a part that stalls.
    stall: Duration,
    received: usize,
    /// Bytes that a body may have.
    most: usize,
}

impl IncomingBody {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        let bytes = match self.part().await? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = self.room.keep(self.received) {
            // Read to its end, since clients do not read an answer before they have sent all.
            while self.received <= self.most && matches!(self.part().await, Some(Ok(_))) {}
            return Some(Err(error.into()));
        }
        Some(Ok(bytes))
    }

    async fn part(&mut self) -> Option<Result<Bytes, BoxError>> {
        let earned = Duration::from_secs_f64(self.received as f64 / LEAST_RATE as f64);
        let Ok(part) = timeout_at(self.begun + self.stall + earned, self.stream.next()).await else {
            let seconds = self.begun.elapsed().as_secs();
            return Some(Err(format!("the body is not complete after {seconds} s").into()));
        };
        let part = part?.map_err(Into::into);
        self.received += part.as_ref().map_or(0, Bytes::len);
        Some(part)
    }
}

/// Counts the body of a request, and ends one that comes too slowly.
pub(crate) async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (path, room) = (request.uri().path().to_owned(), app.bodies.room());
    let (limits, counted) = (&app.options.limits, room.clone());
    let mut request = request.map(|body| {
        let body = IncomingBody {
            stream: body.into_data_stream(),
            room: counted,
            begun: Instant::now(),
            stall: limits.read,
            received: 0,
            most: limits.body,
        };
        Body::from_stream(stream::unfold(Some(body), |body| async {
            let mut body = body?;
            let part = body.next().await?;
            let rest = part.is_ok().then_some(body);
            Some((part, rest))
        }))
    });
    request.extensions_mut().insert(room.clone());
    let response = next.run(request).await;
    // What reads bodies knows no other error than a wrong one.
    if room.refused.load(Ordering::Relaxed) && response.status().is_client_error() {
        return answers::of_path(&path, &full());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_in_part_and_in_whole() {
        let memory = BodyMemory::new(10 * UNIT);
        let (first, second) = (memory.room(), memory.room());
        first.keep(8 * UNIT).unwrap();
        assert_eq!(second.keep(3 * UNIT).unwrap_err().kind, ErrorKind::Busy);
        first.keep(UNIT + 1).unwrap();
        second.keep(8 * UNIT).unwrap();
        drop((first, second));
        memory.room().keep(10 * UNIT).unwrap();
        assert!(memory.room().keep(10 * UNIT + 1).is_err());
    }
}
