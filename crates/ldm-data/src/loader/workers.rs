//! Worker threads that build batches ahead and deliver them in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use ldm_core::{Error, Result};

use crate::loader::batch_builder::{BatchBuilder, BuiltBatch};

/// The worker threads. Dropping stops and joins them, each after its current image.
pub(crate) struct Workers {
    queue: Arc<WorkerQueue>,
    threads: Vec<JoinHandle<()>>,
}

struct WorkerQueue {
    state: Mutex<State>,
    /// Signals a finished batch.
    made: Condvar,
    /// Signals a taken batch, or the end.
    taken: Condvar,
    stop: AtomicBool,
    prefetch: u64,
    end: Option<u64>,
}

struct State {
    /// The first batch that no worker has claimed.
    next: u64,
    /// The batch that is taken next.
    given: u64,
    done: BTreeMap<u64, Result<BuiltBatch>>,
}

impl Workers {
    /// Starts `count` threads that build the batches `from..end`, `prefetch` of them ahead.
    pub(crate) fn start(
        builder: &Arc<BatchBuilder>,
        count: usize,
        prefetch: u64,
        from: u64,
        end: Option<u64>,
    ) -> Result<Self> {
        let queue = Arc::new(WorkerQueue {
            state: Mutex::new(State { next: from, given: from, done: BTreeMap::new() }),
            made: Condvar::new(),
            taken: Condvar::new(),
            stop: AtomicBool::new(false),
            prefetch,
            end,
        });
        let mut workers = Self { queue, threads: Vec::with_capacity(count) };
        for number in 0..count {
            let (queue, builder) = (Arc::clone(&workers.queue), Arc::clone(builder));
            let thread = Builder::new()
                .name(format!("ldm-data-{number}"))
                .spawn(move || queue.work(&builder))
                .map_err(|error| {
                    Error::invalid(format!("loader: starting {count} worker threads: {error}"))
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Waits for batch `number` and takes it. Callers take the numbers in order.
    pub(crate) fn take(&mut self, number: u64) -> Result<BuiltBatch> {
        let mut state = self.queue.lock();
        loop {
            if let Some(made) = state.done.remove(&number) {
                state.given = number + 1;
                self.queue.taken.notify_all();
                return made;
            }
            state = self.queue.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        {
            // Under the lock, so that no worker is between checking `stop` and waiting.
            let _state = self.queue.lock();
            self.queue.stop.store(true, Ordering::Relaxed);
        }
        self.queue.taken.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches panics of the dataset; one that panicked elsewhere is gone anyway.
            let _ = thread.join();
        }
    }
}

impl WorkerQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn work(&self, builder: &BatchBuilder) {
        while let Some(number) = self.claim() {
            let made = builder.build(number, &|| self.stopped());
            self.lock().done.insert(number, made);
            self.made.notify_one();
        }
    }

    /// Claims the next batch as soon as there is room for it; none at the end.
    fn claim(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if self.stopped() || self.end.is_some_and(|end| state.next >= end) {
                return None;
            }
            if state.next < state.given + self.prefetch {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
