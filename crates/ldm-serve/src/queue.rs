//! The queue at a moment, computed once for all who watch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::active::Active;
use crate::job::Job;

/// The jobs that have not ended, in their order.
#[derive(Debug, Default)]
pub(crate) struct QueueSnapshot {
    /// Jobs that run, the oldest first.
    pub(crate) running: Vec<Arc<Job>>,
    /// Jobs that wait, the next first.
    pub(crate) waiting: Vec<Arc<Job>>,
    /// Places by ID, from 1.
    places: HashMap<String, usize>,
}

impl QueueSnapshot {
    /// In one pass: a thousand jobs may wait.
    pub(crate) fn new(active: &Active) -> Self {
        let [running, waiting] = active.running_and_waiting();
        let places = waiting.iter().enumerate().map(|(index, job)| (job.id.clone(), index + 1)).collect();
        Self { running, waiting, places }
    }

    /// The place of a job in the queue, from 1; none once it runs.
    pub(crate) fn position(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// Jobs that run, then those that wait.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.running.iter().chain(&self.waiting)
    }
}

/// The newest snapshot, with the number of the change after which it was made.
#[derive(Debug, Default)]
pub(crate) struct SharedSnapshot(Mutex<Option<(u64, Arc<QueueSnapshot>)>>);

impl SharedSnapshot {
    /// The snapshot after change `number`, made where nobody has asked since.
    pub(crate) fn after(&self, number: u64, make: impl FnOnce() -> QueueSnapshot) -> Arc<QueueSnapshot> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((made, snapshot)) if *made >= number => Arc::clone(snapshot),
            _ => {
                let snapshot = Arc::new(make());
                *newest = Some((number, Arc::clone(&snapshot)));
                snapshot
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_made_once_for_a_change() {
        let (shared, made) = (SharedSnapshot::default(), std::cell::Cell::new(0));
        let snapshot = |number| {
            shared.after(number, || {
                made.set(made.get() + 1);
                QueueSnapshot::default()
            })
        };
        (0..50).for_each(|_| drop(snapshot(1)));
        assert_eq!(made.get(), 1);
        drop((snapshot(2), snapshot(1)));
        assert_eq!(made.get(), 2);
    }
}
