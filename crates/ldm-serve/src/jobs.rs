//! The queue: jobs that wait, run, and have ended.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use ldm_core::files;
use tokio::sync::watch;

use crate::active::{Active, JobBatch, Waiting};
use crate::ends::End;
use crate::files::{check_content, folder_size, make_private, write_unsynced};
use crate::job::{Job, JobState, JobView, now};
use crate::journal::Journal;
use crate::options::Limits;
use crate::queue::{QueueSnapshot, SharedSnapshot};
use crate::request::GenerationRequest;
use crate::{ErrorKind, ServeError, job};

/// A job during which a server died this often is suspect: it runs last, and alone.
const SUSPECT: u32 = 3;
/// A job during which a server died this often does not run again: the last times it ran alone, so that it is to blame.
const ATTEMPTS: u32 = 6;

/// All jobs. Those that have not ended are in memory; all are in the journal, and their files in folders of their own.
#[derive(Debug)]
pub(crate) struct Jobs {
    active: Mutex<Active>,
    /// Wakes the worker.
    wake: Condvar,
    pub(crate) journal: Journal,
    pub(crate) folder: PathBuf,
    queue_limit: usize,
    queue_bytes: u64,
    /// Counts changes of the queue, for those who watch it.
    changes: watch::Sender<u64>,
    snapshot: SharedSnapshot,
    /// Jobs that have ended, whose results a client may be about to read.
    pub(crate) ended: Mutex<Vec<Weak<Job>>>,
}

/// The files of a request.
#[derive(Debug, Default)]
pub(crate) struct InputFiles {
    pub(crate) image: Option<Vec<u8>>,
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) label_map: Option<Vec<u8>>,
}

impl Jobs {
    /// The jobs of the folder `data`, which is created where absent. Those that had not ended wait again.
    ///
    /// # Errors
    /// As [`Journal::open`]; when the folder cannot be read or written.
    pub(crate) fn open(data: &Path, limits: &Limits) -> Result<Self, ServeError> {
        let (folder, journal) = (data.join("jobs"), data.join("journal.sqlite"));
        // Folders above are as others make them.
        data.parent().map_or(Ok(()), files::make_folder)?;
        make_private(&folder)?;
        check_content(&folder, journal.exists())?;
        let journal = Journal::open(&journal)?;
        let changes = watch::Sender::new(0);
        let jobs = Self {
            active: Mutex::default(),
            wake: Condvar::new(),
            journal,
            folder,
            queue_limit: limits.queue,
            queue_bytes: limits.queue_bytes,
            changes,
            snapshot: SharedSnapshot::default(),
            ended: Mutex::default(),
        };
        jobs.recover()?;
        jobs.keep_reserve();
        Ok(jobs)
    }

    fn recover(&self) -> Result<(), ServeError> {
        self.reopen_incomplete()?;
        let mut suspects = Vec::new();
        for (view, attempts) in self.journal.unfinished()? {
            let mut job = Job::new(view.id, view.origin, view.request, view.created);
            if attempts >= SUSPECT {
                job.batch_key.clone_from(&job.id);
            }
            job.bytes = folder_size(&self.folder.join(&job.id)) + job.request.bytes();
            let job = Arc::new(job);
            let mut active = self.active();
            active.by_id.insert(job.id.clone(), Arc::clone(&job));
            if attempts >= ATTEMPTS {
                drop(active);
                let message = format!("the server died {attempts} times while this job ran");
                self.finish(&job, End::Failed(ServeError::new(ErrorKind::Internal, message)));
            } else if attempts >= SUSPECT {
                suspects.push((attempts, Waiting { job, next: 0 }));
            } else {
                active.waiting.push_back(Waiting { job, next: 0 });
            }
        }
        // Those with the fewest deaths first: the one to blame keeps no other from its turn.
        suspects.sort_by_key(|(attempts, _)| *attempts);
        self.active().waiting.extend(suspects.into_iter().map(|(_, waiting)| waiting));
        self.remove_unknown_folders()
    }

    /// Nothing that is done under the lock panics halfway.
    pub(crate) fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A counter that grows with every change of the queue.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Accepts a checked request: once it returns, the job is in the journal. `tag` is the name that the client gave it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when too many wait, [`ErrorKind::Stopping`], [`ErrorKind::Conflict`] for the tag of a job that
    /// has not ended, and when it cannot be written.
    pub(crate) fn submit(
        &self,
        mut request: GenerationRequest,
        origin: &str,
        tag: Option<String>,
        inputs: InputFiles,
    ) -> Result<Arc<Job>, ServeError> {
        let id = job::new_id()?;
        if request.seed.is_none() {
            let random = u64::from_str_radix(&job::new_id()?[..8], 16).expect("hexadecimal");
            request.seed = Some(random);
        }
        self.check_room()?;
        let folder = self.folder.join(&id);
        let job = match self.accept(id, request, origin, tag, inputs) {
            Ok(job) => job,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                return Err(error);
            }
        };
        // The worker may begin meanwhile.
        if let Err(error) = self.sync(&job) {
            self.finish(&job, End::Failed(error.clone()));
            return Err(error);
        }
        Ok(job)
    }

    fn accept(
        &self,
        id: String,
        mut request: GenerationRequest,
        origin: &str,
        tag: Option<String>,
        inputs: InputFiles,
    ) -> Result<Arc<Job>, ServeError> {
        let InputFiles { image, mask, label_map } = inputs;
        let files = [&image, &mask, &label_map].map(|bytes| bytes.as_ref().map_or(0, Vec::len) as u64);
        for (name, bytes, field) in [
            ("image", image, &mut request.image),
            ("mask", mask, &mut request.mask),
            ("label-map", label_map, &mut request.label_map),
        ] {
            *field = bytes.is_some().then(|| format!("{id}/{name}"));
            if let Some(bytes) = bytes {
                write_unsynced(&self.folder.join(&id).join(name), &bytes)?;
            }
        }
        let mut job = Job::new(id, origin.to_owned(), request, now());
        job.tag = tag;
        job.bytes = files.iter().sum::<u64>() + job.request.bytes();
        let job = Arc::new(job);
        let mut active = self.active();
        // Again, now that others had time to come before.
        self.check_room_of(&active)?;
        let bytes: u64 = active.waiting.iter().map(|waiting| waiting.job.bytes).sum();
        if bytes + job.bytes > self.queue_bytes {
            let message = format!("the queue is full: {bytes} bytes of requests and images wait");
            return Err(ServeError::new(ErrorKind::Busy, message));
        }
        if let Some(tag) = &job.tag
            && active.by_id.values().any(|other| other.tag.as_ref() == Some(tag))
        {
            let message = format!("expected a new name of the job, got {tag}, which has not ended");
            return Err(ServeError::new(ErrorKind::Conflict, message));
        }
        self.journal.accept(&job.view(None))?;
        active.by_id.insert(job.id.clone(), Arc::clone(&job));
        active.waiting.push_back(Waiting { job: Arc::clone(&job), next: 0 });
        drop(active);
        self.wake.notify_all();
        self.changed();
        Ok(job)
    }

    fn check_room(&self) -> Result<(), ServeError> {
        self.check_room_of(&self.active())
    }

    fn check_room_of(&self, active: &Active) -> Result<(), ServeError> {
        if active.stopping {
            return Err(ServeError::new(ErrorKind::Stopping, "the server is stopping"));
        }
        let waiting = active.waiting.len();
        if waiting >= self.queue_limit {
            let message = format!("the queue is full: {waiting} jobs wait");
            return Err(ServeError::new(ErrorKind::Busy, message));
        }
        Ok(())
    }

    /// Waits for jobs, and takes up to `count` images of the oldest and of all that can be sampled with them. None once the
    /// server stops.
    pub(crate) fn next_batch(&self, count: usize) -> Option<JobBatch> {
        let mut active = self.active();
        loop {
            if active.stopping {
                return None;
            }
            if let Some(batch) = active.take(count) {
                drop(active);
                self.changed();
                return Some(batch);
            }
            active = self.wake.wait(active).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks the jobs of a batch as running.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(crate) fn start(&self, batch: &JobBatch) -> Result<(), ServeError> {
        let time = now();
        let new: Vec<_> = batch.parts.iter().filter(|part| part.images.start == 0).collect();
        let ids: Vec<_> = new.iter().map(|part| part.job.id.as_str()).collect();
        if !ids.is_empty() {
            self.journal.start(&ids, time)?;
        }
        for part in new {
            part.job.begun.get_or_init(Instant::now);
            part.job.status.send_if_modified(|status| {
                // It may have been canceled since it was taken.
                if status.state.is_final() {
                    return false;
                }
                status.state = JobState::Running;
                status.started = Some(time);
                true
            });
        }
        self.changed();
        Ok(())
    }

    /// Cancels a job: at once where it waits, at its next step where it runs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], and [`ErrorKind::Conflict`] for a job that has ended.
    pub(crate) fn cancel(&self, id: &str) -> Result<(), ServeError> {
        let active = self.active();
        let Some(job) = active.by_id.get(id).cloned() else {
            drop(active);
            let view = self.find(id)?;
            let message = format!("expected a job that has not ended, got one that is {}", view.state.name());
            return Err(ServeError::new(ErrorKind::Conflict, message));
        };
        job.cancel.store(true, Ordering::Relaxed);
        let untouched = active.waiting.iter().any(|waiting| waiting.job.id == id && waiting.next == 0);
        drop(active);
        if untouched {
            self.finish(&job, End::Canceled);
        }
        Ok(())
    }

    /// The view of a client of a job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; when the journal cannot be read.
    pub(crate) fn find(&self, id: &str) -> Result<JobView, ServeError> {
        let active = self.active();
        if let Some(job) = active.by_id.get(id) {
            return Ok(job.view(active.position(id)));
        }
        if let Some(view) = active.unwritten.get(id) {
            return Ok(view.clone());
        }
        drop(active);
        self.journal
            .find(id)?
            .ok_or_else(|| ServeError::new(ErrorKind::NotFound, format!("no such job: {}", shown(id))))
    }

    /// The queue after its newest change.
    pub(crate) fn snapshot(&self) -> Arc<QueueSnapshot> {
        let number = *self.changes.borrow();
        self.snapshot.after(number, || QueueSnapshot::new(&self.active()))
    }

    /// A job that has not ended.
    pub(crate) fn active_job(&self, id: &str) -> Option<Arc<Job>> {
        self.active().by_id.get(id).cloned()
    }

    /// A job that has not ended, by the name that its client gave it.
    pub(crate) fn tagged(&self, tag: &str) -> Option<Arc<Job>> {
        self.active().by_id.values().find(|job| job.tag.as_deref() == Some(tag)).cloned()
    }

    /// Views of the jobs that have not ended, then of those that have, the newest first; `count` after `skip`.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn list(&self, skip: usize, count: usize) -> Result<Vec<JobView>, ServeError> {
        let active = self.active();
        let queue = QueueSnapshot::new(&active);
        let unwritten: Vec<_> = active.unwritten.values().cloned().collect();
        drop(active);
        let (unended, ended) = (queue.jobs().count(), unwritten.len());
        let part = queue.jobs().skip(skip).take(count);
        let mut views: Vec<_> = part.map(|job| job.view(queue.position(&job.id))).collect();
        let room = count - views.len();
        views.extend(unwritten.into_iter().skip(skip.saturating_sub(unended)).take(room));
        let rest = count - views.len();
        if rest > 0 {
            views.extend(self.journal.ended(skip.saturating_sub(unended + ended), rest)?);
        }
        Ok(views)
    }

    /// The number of jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.active().waiting.len()
    }

    /// Refuses new jobs, and lets the worker end. Jobs that wait do so in the journal.
    pub(crate) fn stop(&self) {
        self.active().stopping = true;
        self.wake.notify_all();
        self.changed();
    }

    /// True once [`stop`](Self::stop) was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.active().stopping
    }

    /// Puts running jobs back for the next start, without blame.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(crate) fn put_back(&self) -> Result<(), ServeError> {
        self.journal.put_back()
    }
}

/// The start of a text from a request, for messages.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
