//! The worker: the thread that has the models, forms batches and samples them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ldm::Images;
use ldm_core::image as images;
use ldm_schedulers::SamplingStep;

use crate::active::BatchPart;
use crate::check::check_work;
use crate::ends::End;
use crate::files::write_unsynced;
use crate::job::{Job, JobImage, JobPreview};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::models::{Loaded, ModelCache, ModelInfo, Models};
use crate::options::Limits;
use crate::{ErrorKind, ServeError, render, sdapi};

/// The shortest time between two previews of a job.
const PREVIEW: Duration = Duration::from_millis(150);

/// The thread that samples.
pub(crate) struct Worker {
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) models: Arc<Models>,
    pub(crate) cache: ModelCache,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) batch_size: usize,
    pub(crate) limits: Limits,
    /// Set when the server stops and cannot wait any longer.
    pub(crate) abort: Arc<AtomicBool>,
}

impl Worker {
    /// Samples batches until the server stops.
    pub(crate) fn run(mut self) {
        while let Some(batch) = self.jobs.next_batch(self.batch_size) {
            if let Err(error) = self.jobs.start(&batch) {
                fail(&self.jobs, &batch.parts, &error);
                continue;
            }
            self.sample(&batch.parts);
        }
    }

    /// Samples parts together, and where that fails each job alone, so that a job is not blamed for another.
    fn sample(&mut self, parts: &[BatchPart]) {
        let parts: Vec<BatchPart> = parts.iter().filter(|part| !self.ended(&part.job)).cloned().collect();
        if parts.is_empty() {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.generate(&parts)));
        let result = result.unwrap_or_else(|panic| {
            // What a panic leaves of a model is not to be trusted.
            self.cache.clear();
            Err(ServeError::new(ErrorKind::Internal, panic_message(&*panic)))
        });
        let Err(error) = result else { return };
        if self.abort.load(Ordering::Relaxed) {
            return; // put back for the next start
        }
        let canceled = error.kind == ErrorKind::Canceled;
        match parts.as_slice() {
            [part] if canceled && part.job.is_canceled() => self.jobs.finish(&part.job, End::Canceled),
            [part] => {
                // Quoted: the message may repeat words of the request.
                tracing::warn!(job = part.job.id, error = ?error.message, "failed");
                self.metrics.failed(error.kind);
                self.jobs.finish(&part.job, End::Failed(error));
            }
            several => several.iter().for_each(|part| self.sample(std::slice::from_ref(part))),
        }
    }

    /// Ends a job that was canceled or whose time was over between its batches; true for one that has ended.
    fn ended(&self, job: &Arc<Job>) -> bool {
        if job.is_canceled() {
            self.jobs.finish(job, End::Canceled);
            return true;
        }
        if job.is_late(self.limits.job) {
            self.metrics.failed(ErrorKind::TimedOut);
            self.jobs.finish(job, End::Failed(too_long(self.limits.job)));
            return true;
        }
        job.status.borrow().state.is_final()
    }

    fn generate(&mut self, parts: &[BatchPart]) -> Result<(), ServeError> {
        let shared = &parts[0].job.request;
        let info = self.models.find(shared.model.as_deref())?;
        let loaded = self.models.get(&mut self.cache, shared.model.as_deref(), &shared.loras)?;
        let steps = render::steps(shared, loaded.pipeline.model(), info)?;
        if shared.steps.is_none() {
            parts.iter().try_for_each(|part| check_work(&part.job.request, info, steps, &self.limits))?;
        }
        for part in parts {
            part.job.status.send_if_modified(|status| {
                status.steps = steps * part.job.request.images();
                false
            });
        }
        let count = parts.iter().map(|part| part.images.len()).sum();
        let fitting = fitting(loaded, info, parts, count)?;
        for parts in split(parts, fitting) {
            let run = BatchRun {
                jobs: &self.jobs,
                parts: &parts,
                info,
                steps,
                limit: self.limits.job,
                abort: &self.abort,
                metrics: &self.metrics,
            };
            run.generate(loaded)?;
        }
        Ok(())
    }
}

/// The number of images of `count` that fit in memory together.
fn fitting(
    loaded: &Loaded,
    info: &ModelInfo,
    parts: &[BatchPart],
    count: usize,
) -> Result<usize, ServeError> {
    let request = &parts[0].job.request;
    let size = [request.height.unwrap_or(info.height), request.width.unwrap_or(info.width)];
    let scale = request.hires.map_or(1., |hires| hires.scale);
    let size = size.map(|side| (side as f64 * scale) as i64 / info.multiple * info.multiple);
    let mut count = count;
    loop {
        match loaded.pipeline.model().check_generated(count, Some(size), request.tile.is_some()) {
            Ok(()) => return Ok(count),
            Err(error) if count == 1 => {
                let message = format!("{error}; try a smaller height and width, or tile");
                return Err(ServeError::new(ErrorKind::Invalid, message));
            }
            Err(_) => count = count.div_ceil(2),
        }
    }
}

/// Parts of at most `count` images each.
fn split(parts: &[BatchPart], count: usize) -> Vec<Vec<BatchPart>> {
    let mut groups: Vec<Vec<BatchPart>> = vec![Vec::new()];
    let mut room = count;
    for part in parts {
        let mut next = part.images.start;
        while next < part.images.end {
            if room == 0 {
                groups.push(Vec::new());
                room = count;
            }
            let end = part.images.end.min(next + room);
            let group = groups.last_mut().expect("at least one");
            group.push(BatchPart { job: Arc::clone(&part.job), images: next..end });
            room -= end - next;
            next = end;
        }
    }
    groups
}

/// Images that are sampled in one run.
struct BatchRun<'a> {
    jobs: &'a Jobs,
    parts: &'a [BatchPart],
    info: &'a ModelInfo,
    /// Steps of each image.
    steps: usize,
    limit: Option<Duration>,
    abort: &'a AtomicBool,
    metrics: &'a Metrics,
}

impl BatchRun<'_> {
    fn generate(&self, loaded: &mut Loaded) -> Result<(), ServeError> {
        let (stop, begun) = (AtomicBool::new(false), Instant::now());
        let timed_out = Cell::new(false);
        let previewed = RefCell::new((Instant::now(), 0));
        let count: usize = self.parts.iter().map(|part| part.images.len()).sum();
        let images = {
            let on_step = |step: &SamplingStep| {
                let over = self.parts.iter().any(|part| part.job.is_late(self.limit));
                timed_out.set(over);
                let unwanted = self.parts.iter().all(|part| part.job.is_canceled());
                if over || unwanted || self.abort.load(Ordering::Relaxed) {
                    stop.store(true, Ordering::Relaxed);
                }
                let done = step.index + 1;
                let mut previewed = previewed.borrow_mut();
                let preview = previewed.0.elapsed() >= PREVIEW && done < self.steps;
                if preview {
                    *previewed = (Instant::now(), previewed.1 + 1);
                }
                self.report(loaded, step, preview, begun.elapsed().as_secs_f64() / done as f64);
            };
            let request = render::request(self.parts, loaded.pipeline.model(), self.info, self.jobs)?;
            // Preparing images takes a while too.
            if self.parts.iter().all(|part| part.job.is_canceled()) || self.abort.load(Ordering::Relaxed) {
                return Err(ldm_core::Error::Stopped.into());
            }
            loaded.pipeline.generate(&request.stopped_by(&stop).on_step(on_step))
        };
        let images = match images {
            Err(ldm_core::Error::Stopped) if timed_out.get() => {
                return Err(too_long(self.limit));
            }
            result => result?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        loaded.seconds_per_step = Some(seconds / (self.steps * count).max(1) as f64);
        self.metrics.sampled(count, self.steps * count, seconds);
        self.save(&images)
    }

    /// Sends the progress, and a preview where it is time, to the jobs.
    fn report(&self, loaded: &Loaded, step: &SamplingStep, preview: bool, seconds_per_step: f64) {
        let colors = loaded.colors.as_ref().filter(|_| preview);
        let shown = colors.map(|colors| colors.images(&step.denoised.x0));
        let factor = loaded.pipeline.model().first_stage.factor() as u32;
        let mut first = 0;
        for part in self.parts {
            let png = shown.as_ref().map(|shown| {
                let small = images::to_8bit(&shown.get(first));
                (images::png(&small, &[]), [small.width() * factor, small.height() * factor])
            });
            first += part.images.len() as i64;
            part.job.status.send_modify(|status| {
                let before = part.images.start * self.steps;
                // Some spacings have a step more than was asked for.
                status.step = (before + (step.index + 1) * part.images.len()).min(status.steps);
                let left = status.steps.saturating_sub(status.step) as f64 / part.images.len() as f64;
                status.seconds_left = Some(left * seconds_per_step);
                if let Some((png, size)) = png {
                    let number = status.preview.as_ref().map_or(0, |last| last.number) + 1;
                    status.preview = Some(Arc::new(JobPreview { number, png, size }));
                }
            });
        }
    }

    /// Writes the images into the folders of their jobs, and ends the jobs that are complete.
    fn save(&self, images: &Images) -> Result<(), ServeError> {
        let mut at = 0;
        for part in self.parts {
            for index in part.images.clone() {
                let saved = self.save_image(images, at, &part.job, index)?;
                at += 1;
                part.job.status.send_modify(|status| {
                    status.step = status.step.max((index + 1) * self.steps);
                    status.images.retain(|image| image.index != index);
                    status.images.push(saved);
                    for note in images.notes() {
                        if !status.notes.contains(note) {
                            status.notes.push(note.clone());
                        }
                    }
                });
            }
            if part.job.is_canceled() {
                self.jobs.finish(&part.job, End::Canceled);
            } else if part.images.end == part.job.request.images() {
                self.metrics.finished();
                self.jobs.finish(&part.job, End::Done);
            }
        }
        Ok(())
    }

    fn save_image(
        &self,
        images: &Images,
        at: usize,
        job: &Job,
        index: usize,
    ) -> Result<JobImage, ServeError> {
        let parameters = match images.parameters(at) {
            text if job.origin == sdapi::ORIGIN => sdapi::renamed(text),
            text => text.to_owned(),
        };
        write_unsynced(&self.jobs.image(&job.id, index), &images.png_with(at, &parameters)?)?;
        if job.request.latents {
            let latents = images.latents().narrow(0, at as i64, 1).contiguous();
            let path = self.jobs.latents(&job.id, index);
            ldm_checkpoint::save(path, &[("latents".into(), latents)], &BTreeMap::new())?;
        }
        let size = images.tensor().size();
        Ok(JobImage {
            index,
            seed: job.seed(index),
            width: size[3] as u32,
            height: size[2] as u32,
            parameters,
            nsfw: images.flagged().get(at).copied().unwrap_or_default(),
        })
    }
}

fn too_long(limit: Option<Duration>) -> ServeError {
    let seconds = limit.unwrap_or_default().as_secs();
    let message =
        format!("the job took longer than {seconds} s, the server's limit; try fewer steps or images");
    ServeError::new(ErrorKind::TimedOut, message)
}

fn fail(jobs: &Jobs, parts: &[BatchPart], error: &ServeError) {
    for part in parts {
        jobs.finish(&part.job, End::Failed(error.clone()));
    }
}

/// The message of a panic; of libtorch's long ones the first line.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the worker panicked");
    let first = text.lines().next().unwrap_or_default();
    if first.contains("allocate memory") {
        return format!("out of memory; try a smaller height and width, fewer images, or tile ({first})");
    }
    first.to_owned()
}
