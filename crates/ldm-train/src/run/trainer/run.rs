//! The training loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use ldm_data::{Loader, LoaderConfig, Position};
use tch::Device;

use super::due::Due;
use super::{Loading, Trainer};
use crate::latent_cache;
use crate::optim::Ema;
use crate::run::event::{Event, Finished};
use crate::run::event_file::EventFile;
use crate::run::meter::{Meter, to_json};
use crate::run::non_finite_guard::NonFiniteGuard;
use crate::run::state::TrainState;

/// Callback for the events of a run.
type Observe<'a> = &'a mut dyn FnMut(Event);

/// State of the loop that is not part of checkpoints.
struct LoopState {
    loader: Loader,
    meter: Meter,
    guard: NonFiniteGuard,
    /// On rank 0 only.
    events: Option<EventFile>,
    /// Time of the last line of the log, moved forward by the duration of validations, checkpoints and samples.
    last: Instant,
    /// Indices of unreadable images that were reported.
    reported: BTreeSet<usize>,
    /// Errors of unreadable held-out images that were reported.
    left_out: BTreeSet<String>,
}

impl Trainer {
    /// Trains until all steps are taken, or until `stop` is set; then it finishes the current step, writes a checkpoint
    /// and returns [`Finished::Stopped`]. Validations and the statistics of the end are stopped between two batches, samples
    /// between two steps of their sampler; a resumed run makes those of the end. `observe` is called at every [`Event`].
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written; the error of an unreadable image if the run is strict, after writing
    /// a checkpoint on one rank; [`Error::Data`] when `train.max_skipped` steps in a row had NaN or Inf gradients; [`Error::Ranks`]
    /// when another rank has ended; the errors of the objective.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let _switches = self.config.switches(self.device);
        self.notes.drain(..).for_each(|note| observe(Event::Note(&note)));
        if self.state.step > 0 && self.state.step == self.config.steps {
            return self.finalize(stop, observe);
        }
        if !self.cache_latents(stop, observe)? {
            return Ok(Finished::Stopped);
        }
        let mut state = self.start(observe)?;
        while self.state.step < self.config.steps {
            let before = self.state.clone();
            let lr = match self.step(&mut state) {
                Ok(lr) => lr,
                Err(error) => return Err(self.rescued(before, error, observe)),
            };
            observe(Event::Step { step: self.state.step, steps: self.config.steps });
            let mut due = self.due(stop)?;
            if due.check_finite {
                self.check_finite(&state)?;
            }
            if due.log {
                self.log(&mut state, lr, observe)?;
            }
            let pause = Instant::now();
            self.state.validation.clear();
            if due.validate && !self.log_validation(&mut state.events, &mut state.left_out, stop, observe)? {
                due = due.stopped();
            }
            let complete = due.at_end && !due.stop;
            if due.checkpoint
                && let Some(path) =
                    self.ranks().rank_zero_only(|| self.checkpoint(complete.then_some(stop)))?
            {
                observe(Event::Checkpoint(&path));
            }
            if due.samples {
                self.log_samples(&mut state, stop, observe)?;
            }
            // At the end, a signal since the step has left out what a resumed run will complete.
            if due.stop || (due.at_end && self.ranks().any(stop.load(Ordering::Relaxed))?) {
                return Ok(Finished::Stopped);
            }
            state.last += pause.elapsed();
        }
        Ok(Finished::Done)
    }

    /// [`Trainer::run`] without a stop flag and events.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn run_to_end(&mut self) -> Result<()> {
        self.run(&AtomicBool::new(false), &mut |_| {}).map(drop)
    }

    /// Opens the loader and the log, and prepares the objective of a new run.
    fn start(&mut self, observe: Observe) -> Result<LoopState> {
        let loader = self.loader(self.ranks().rank(), self.state.position())?;
        if self.state.step == 0 {
            // On a separate batch, so that the run still sees every image of the epoch. All ranks use that of rank 0,
            // as in CompVis (`ddpm.py:479`, whose buffer DDP takes from rank 0).
            let first = self.loader(0, Position::default())?.next().expect("an infinite loader")?;
            let mut noise = PerStep::new(self.config.seed, 0, u64::MAX);
            self.train_step.objective_mut().prepare(&first, &mut noise)?;
        }
        let from = (self.state.step > 0).then_some(self.state.step);
        let events = self.ranks().is_rank_zero().then(|| self.run.events(from)).transpose()?;
        self.train_step.objective().notes().iter().for_each(|note| observe(Event::Note(note)));
        let sets = std::iter::once(&self.data).chain(&self.validation);
        sets.flat_map(|set| set.passed_over()).for_each(|entry| observe(Event::Skipped(entry)));
        Ok(LoopState {
            loader,
            meter: Meter::default(),
            guard: NonFiniteGuard::new(self.state.skipped, self.device),
            events,
            last: Instant::now(),
            reported: BTreeSet::new(),
            left_out: BTreeSet::new(),
        })
    }

    /// Takes an optimizer step and returns its learning rate.
    fn step(&mut self, state: &mut LoopState) -> Result<f64> {
        let (step, world) = (self.state.step, self.ranks().world_size() as u64);
        let lr = self.learning_rate * self.config.schedule.at(step, self.config.steps);
        let (loader, meter, images) = (&mut state.loader, &mut state.meter, &mut self.state.images);
        let report = self.train_step.step(lr, &mut || {
            let requested = Instant::now();
            let batch = loader.next().expect("an infinite loader")?;
            meter.waited += requested.elapsed().as_secs_f64();
            *images += batch.names.len() as u64 * world;
            meter.images += batch.names.len() as u64;
            Ok(batch)
        })?;
        state.meter.add(report.scalars);
        state.guard.record(&report.found_inf);
        let position = state.loader.position();
        self.state.step += 1;
        (self.state.epoch, self.state.batch) = (position.epoch, position.batch);
        self.state.ema_updates = self.train_step.ema().map_or(0, Ema::updates);
        Ok(lr)
    }

    /// Writes a checkpoint of the state `before` a step whose first batch could not be read, as CompVis does
    /// (`main.py:725`), and returns the error. Ranks fail together and write none.
    fn rescued(&mut self, before: TrainState, error: Error, observe: Observe) -> Error {
        if before.step > 0 && self.ranks().world_size() == 1 && !self.train_step.is_within_step() {
            self.state = before;
            if let Ok(path) = self.write_checkpoint() {
                observe(Event::Checkpoint(&path));
            }
        }
        error
    }

    fn due(&self, stop: &AtomicBool) -> Result<Due> {
        let asked = self.request.as_ref().is_some_and(|request| request.swap(false, Ordering::Relaxed));
        let flags = [stop.load(Ordering::Relaxed), asked];
        // A GPU works on queued steps while the host goes on. On the CPU a step takes as long as it takes, and a stop
        // should not cost another one.
        let [stop, asked] = match self.device {
            Device::Cpu => self.ranks().any_of(flags)?,
            _ => self.ranks().any_of_previous(flags)?,
        };
        let has_preview = self.train_step.objective().as_preview().is_some();
        let due = Due::after(self.state.step, &self.config, stop, self.validation.is_some(), has_preview);
        Ok(if asked { due.with_checkpoint() } else { due })
    }

    /// Fails if too many steps in a row had NaN or Inf gradients.
    fn check_finite(&mut self, state: &LoopState) -> Result<()> {
        let (in_a_row, skipped) = state.guard.read();
        self.state.skipped = skipped;
        if in_a_row >= self.config.max_skipped {
            return Err(self.diverged(in_a_row));
        }
        Ok(())
    }

    /// Writes a line of the log, with means since the last one.
    fn log(&mut self, state: &mut LoopState, lr: f64, observe: Observe) -> Result<()> {
        let seconds = state.last.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        let mut line = state.meter.take(seconds, lr, &self.state, self.device);
        self.ranks().reduce_metrics(&mut line)?;
        line.retain(|_, value| value.is_finite());
        if let Some(events) = &mut state.events {
            self.run.log(&to_json(&line))?;
            events.scalars(self.state.step, &line)?;
        }
        observe(Event::Logged(&line));
        for (index, message) in state.loader.skipped() {
            if state.reported.insert(*index) {
                observe(Event::Skipped(message));
            }
        }
        state.last = Instant::now();
        Ok(())
    }

    /// Validates and logs the metrics; `left_out` has the images already reported. Returns `false` if `stop` was set meanwhile.
    fn log_validation(
        &mut self,
        events: &mut Option<EventFile>,
        left_out: &mut BTreeSet<String>,
        stop: &AtomicBool,
        observe: Observe,
    ) -> Result<bool> {
        let found = self.ranks().rank_zero_only(|| self.validate(stop))?;
        if self.ranks().any(matches!(found, Some(None)))? {
            return Ok(false);
        }
        let (metrics, skipped) = found.flatten().unwrap_or_default();
        for message in skipped {
            if left_out.insert(message.clone()) {
                observe(Event::Skipped(&message));
            }
        }
        if let Some(events) = events {
            events.scalars(self.state.step, &metrics)?;
            observe(Event::Validated(&metrics));
        }
        self.state.validation = metrics;
        Ok(true)
    }

    /// Writes and logs a preview image, unless `stop` is set meanwhile.
    fn log_samples(&self, state: &mut LoopState, stop: &AtomicBool, observe: Observe) -> Result<()> {
        if let Some(path) = self.ranks().rank_zero_only(|| self.sample(stop))?.flatten() {
            if let Some(events) = &mut state.events {
                let image = std::fs::read(&path).map_err(Error::io(&path))?;
                events.image(self.state.step, "samples", &image)?;
            }
            observe(Event::Sample(&path));
        }
        Ok(())
    }

    /// Writes the missing outputs of a run that was killed or stopped after its last step.
    fn finalize(&mut self, stop: &AtomicBool, observe: Observe) -> Result<Finished> {
        let done = self.state.step;
        let validates = self.validation.is_some() && self.train_step.objective().as_validate().is_some();
        if validates && self.state.validation.is_empty() {
            let mut events = self.ranks().is_rank_zero().then(|| self.run.events(Some(done))).transpose()?;
            if !self.log_validation(&mut events, &mut BTreeSet::new(), stop, observe)? {
                return Ok(Finished::Stopped);
            }
            // With the metrics, for `keep_best`.
            self.ranks().rank_zero_only(|| self.write_checkpoint())?;
        }
        let has_preview = self.train_step.objective().as_preview().is_some();
        let write_outputs = || {
            self.export_model(Some(stop))?;
            let has_sample = !has_preview || self.config.samples.count == 0 || self.run.sample(done).exists();
            if has_sample {
                return Ok(None);
            }
            let Some(path) = self.sample(stop)? else { return Ok(None) };
            let image = std::fs::read(&path).map_err(Error::io(&path))?;
            self.run.events(Some(done))?.image(done, "samples", &image)?;
            Ok(Some(path))
        };
        if let Some(path) = self.ranks().rank_zero_only(write_outputs)?.flatten() {
            observe(Event::Sample(&path));
        }
        let stopped = self.ranks().any(stop.load(Ordering::Relaxed))?;
        Ok(if stopped { Finished::Stopped } else { Finished::Done })
    }

    /// Replaces the images by their cached latents if configured. Returns `false` if the run was stopped.
    fn cache_latents(&mut self, stop: &AtomicBool, observe: Observe) -> Result<bool> {
        let (Some(path), Some(augmentations)) =
            (self.config.cache_latents.path(self.run.root()), &self.augmentations)
        else {
            return Ok(true);
        };
        let encoder = self.train_step.objective().as_latent_encoder();
        let encoder = encoder
            .ok_or_else(|| Error::invalid("train.cache_latents: expected a latent encoder, got none"))?;
        let Loading { batch_size: batch, strict, workers } = self.loading;
        let device = self.device;
        let mut open = || {
            let writer = latent_cache::CacheWriter { augmentations, batch, strict, workers, device, encoder };
            writer.open_or_write(&path, stop, &mut *observe)
        };
        let first = self.ranks().rank_zero_only(&mut open)?;
        if self.ranks().any(matches!(first, Some(None)))? {
            self.ranks().rank_zero_only(|| self.checkpoint(None))?;
            return Ok(false);
        }
        // The file exists by now: the other ranks open it.
        if let Some(cache) = first.map_or_else(open, Ok)? {
            self.data = Arc::new(cache);
        }
        Ok(true)
    }

    fn diverged(&self, steps: u64) -> Error {
        let (done, root) = (self.state.step, self.run.root());
        let last = match self.run.newest_checkpoint() {
            Ok(path) => format!("the last checkpoint is {}", path.display()),
            Err(_) => "no checkpoint was written".into(),
        };
        let since = if steps == done { ", the first of the run" } else { "" };
        Error::data(
            root,
            format!(
                "expected finite gradients, got NaN or Inf in {steps} steps in a row{since}, up to step {done}, \
                 all skipped; {last}; try a lower learning rate, train.clip_grad or train.dtype=f32"
            ),
        )
    }

    fn loader(&self, rank: usize, start: Position) -> Result<Loader> {
        let config = LoaderConfig {
            workers: self.loading.workers,
            strict: self.loading.strict,
            rank,
            world: self.ranks().world_size(),
            device: self.device,
            ..LoaderConfig::new(self.loading.batch_size, self.config.seed)
        };
        Loader::new(Arc::clone(&self.data), config, start)
    }

    fn ranks(&self) -> &crate::Distributed {
        self.train_step.distributed()
    }
}
