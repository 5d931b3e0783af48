//! The jobs in memory, and the batches that they form.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::job::{Job, JobView};

/// Jobs that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Active {
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) by_id: HashMap<String, Arc<Job>>,
    /// Jobs that have ended, but not by the journal, which could not be written.
    pub(crate) unwritten: HashMap<String, JobView>,
    pub(crate) stopping: bool,
}

/// A job with images that no batch has taken.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) job: Arc<Job>,
    /// The first of them.
    pub(crate) next: usize,
}

/// Images that are sampled together, of one or several jobs with the same key.
#[derive(Debug)]
pub(crate) struct JobBatch {
    pub(crate) parts: Vec<BatchPart>,
}

/// The images of a job in a batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchPart {
    pub(crate) job: Arc<Job>,
    pub(crate) images: Range<usize>,
}

impl Active {
    /// The place of a job that no batch has taken images of, from 1.
    pub(crate) fn position(&self, id: &str) -> Option<usize> {
        let mut untouched = self.waiting.iter().filter(|waiting| waiting.next == 0);
        untouched.position(|waiting| waiting.job.id == id).map(|index| index + 1)
    }

    /// The jobs that run, and those that no batch has taken images of, each in their order.
    pub(crate) fn running_and_waiting(&self) -> [Vec<Arc<Job>>; 2] {
        let untouched = self.waiting.iter().filter(|waiting| waiting.next == 0);
        let waiting: Vec<_> = untouched.map(|waiting| Arc::clone(&waiting.job)).collect();
        let ids: HashSet<_> = waiting.iter().map(|job| job.id.as_str()).collect();
        let runs = |job: &&Arc<Job>| !ids.contains(job.id.as_str());
        let mut running: Vec<_> = self.by_id.values().filter(runs).cloned().collect();
        running.sort_by_key(|job| job.created);
        [running, waiting]
    }

    /// Takes up to `count` images of the oldest job, and of all that can be sampled with them.
    pub(crate) fn take(&mut self, count: usize) -> Option<JobBatch> {
        let key = self.waiting.front()?.job.batch_key.clone();
        let (mut parts, mut left) = (Vec::new(), count.max(1));
        for waiting in &mut self.waiting {
            if left == 0 || waiting.job.batch_key != key {
                continue;
            }
            let end = waiting.job.request.images().min(waiting.next + left);
            parts.push(BatchPart { job: Arc::clone(&waiting.job), images: waiting.next..end });
            left -= end - waiting.next;
            waiting.next = end;
        }
        self.waiting.retain(|waiting| waiting.next < waiting.job.request.images());
        Some(JobBatch { parts })
    }
}
