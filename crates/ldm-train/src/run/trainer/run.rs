//! The loop, flat, in the order things happen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use ldm_data::{Loader, LoaderConfig, Position};
use tch::{Kind, Tensor};

use super::Trainer;
use crate::latent_cache;
use crate::optim::Ema;
use crate::run::event::{Event, Finished};
use crate::run::meter::{Meter, integers};
use crate::run::non_finite_guard::NonFiniteGuard;

/// Noise of what follows a step has numbers that no forward pass has.
const AFTER: u64 = 1 << 63;

impl Trainer {
    /// Trains until all steps are taken, or until `stop` is set: then a checkpoint is written and the run can be
    /// resumed.
    ///
    /// # Errors
    /// When a file cannot be written, when an image cannot be read and the run is strict, or when
    /// `train.max_skipped` steps in a row had gradients that are no numbers.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world_size());
        let (train, rate) = (self.config.train.clone(), self.config.learning_rate(world)?);
        if self.state.step > 0 && self.state.step == train.steps {
            return self.finalize(observe);
        }
        if !self.keep_latents(stop, observe)? {
            return Ok(Finished::Stopped);
        }
        let mut loader = self.loader(rank, self.state.position())?;
        if self.state.step == 0 {
            // On a batch of its own, so that the run sees every image of the epoch all the same; on rank 0's, on all
            // ranks, as the reference (`ddpm.py:479`, whose buffer DDP takes from rank 0).
            let first = self.loader(0, Position::default())?.next().expect("an endless loader")?;
            self.objective.prepare(&first, &mut PerStep::new(train.seed, 0, u64::MAX))?;
        }
        let from = (self.state.step > 0).then_some(self.state.step);
        let mut events = self.ranks.is_rank_zero().then(|| self.run.events(from)).transpose()?;
        self.objective.notes().iter().for_each(|note| observe(Event::Note(note)));
        let mut meter = Meter::default();
        let mut guard = NonFiniteGuard::new(self.state.skipped, self.device);
        let mut last = Instant::now();
        let mut named = BTreeSet::new();
        while self.state.step < train.steps {
            let step = self.state.step;
            let lr = rate * train.schedule.at(step, train.steps);
            let mut overflows = Vec::new();
            for micro in 0..train.accumulate {
                let waiting = Instant::now();
                let batch = loader.next().expect("an endless loader")?;
                meter.waited += waiting.elapsed().as_secs_f64();
                self.state.images += batch.names.len() as u64 * world as u64;
                meter.images += batch.names.len() as u64;
                for phase in 0..self.phases.len() {
                    self.backward(phase, &batch, micro, &mut meter)?;
                    // In the last micro-batch a phase moves before the next one looks, as Lightning has it.
                    if micro + 1 == train.accumulate {
                        overflows.push(self.take(phase, lr, &mut meter)?);
                    }
                }
            }
            let overflow = Tensor::stack(&overflows, 0).sum(Kind::Float);
            guard.saw(&overflow);
            if let Some(scale) = &mut self.loss_scale {
                meter.add("loss_scale", scale.scale());
                scale.update(&overflow);
            }
            self.objective.after_step(&mut PerStep::new(train.seed, 0, AFTER | step));
            if step == 0 {
                // What looked at its first batch to begin (ActNorm) saw another one on each rank.
                self.broadcast_weights()?;
            }
            if let Some(ema) = &mut self.ema {
                ema.update();
            }
            let position = loader.position();
            self.state.step += 1;
            (self.state.epoch, self.state.batch) = (position.epoch, position.batch);
            self.state.ema_updates = self.ema.as_ref().map_or(0, Ema::updates);

            let done = self.state.step;
            observe(Event::Step { step: done, steps: train.steps });
            let (at_end, stopping) = (done == train.steps, self.ranks.any(stop.load(Ordering::Relaxed))?);
            let logged = done.is_multiple_of(train.log_every) || at_end || stopping;
            if logged || done.is_multiple_of(train.max_skipped) {
                let (in_a_row, skipped) = guard.read();
                self.state.skipped = skipped;
                if in_a_row >= train.max_skipped {
                    return Err(self.diverged(in_a_row));
                }
            }
            if logged {
                let seconds = last.elapsed().as_secs_f64();
                self.state.seconds += seconds;
                let mut line = meter.take(seconds, lr, &self.state, self.device);
                self.ranks.reduce_metrics(&mut line)?;
                line.retain(|_, value| value.is_finite());
                if let Some(events) = &mut events {
                    self.run.log(&integers(&line))?;
                    events.scalars(done, &line)?;
                }
                observe(Event::Logged(&line));
                for (index, why) in loader.skipped() {
                    if named.insert(*index) {
                        observe(Event::Skipped(why));
                    }
                }
                last = Instant::now();
            }
            let pause = Instant::now(); // what follows is no training
            let due = |every: u64| at_end || (every > 0 && done.is_multiple_of(every));
            let validating = self.validation.is_some() && due(train.validate_every) && !stopping;
            self.state.validation.clear();
            if validating {
                let numbers = self.ranks.rank_zero_only(|| self.validate())?.unwrap_or_default();
                if let Some(events) = &mut events {
                    events.scalars(done, &numbers)?;
                    observe(Event::Validated(&numbers));
                }
                self.state.validation = numbers;
            }
            let rated = train.keep_best.is_some() && validating;
            if (due(train.checkpoint_every) || rated || stopping)
                && let Some(path) = self.ranks.rank_zero_only(|| self.checkpoint(at_end))?
            {
                observe(Event::Checkpoint(&path));
            }
            if train.samples.count > 0
                && due(train.samples.every)
                && !stopping
                && let Some(path) = self.ranks.rank_zero_only(|| self.sample())?
            {
                if let Some(events) = &mut events {
                    events.image(done, "samples", &std::fs::read(&path).map_err(Error::io(&path))?)?;
                }
                observe(Event::Sample(&path));
            }
            if stopping && !at_end {
                return Ok(Finished::Stopped);
            }
            last += pause.elapsed();
        }
        Ok(Finished::Done)
    }

    /// A run that ended between its last checkpoint and what follows one: that is made up for.
    fn finalize(&self, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let done = self.state.step;
        let rest = || {
            self.export_model(true)?;
            if self.config.train.samples.count == 0 || self.run.sample(done).exists() {
                return Ok(None);
            }
            let path = self.sample()?;
            let image = std::fs::read(&path).map_err(Error::io(&path))?;
            self.run.events(Some(done))?.image(done, "samples", &image)?;
            Ok(Some(path))
        };
        if let Some(path) = self.ranks.rank_zero_only(rest)?.flatten() {
            observe(Event::Sample(&path));
        }
        Ok(Finished::Done)
    }

    /// Has the images' latents at hand where the run wants them kept; `false` when it was stopped before they were.
    fn keep_latents(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<bool> {
        let Some(path) = self.config.train.cache_latents.path(self.run.root()) else { return Ok(true) };
        let mut get =
            || latent_cache::open_or_make(&path, &self.config, &*self.objective, stop, &mut *observe);
        let first = self.ranks.rank_zero_only(&mut get)?;
        if self.ranks.any(matches!(first, Some(None)))? {
            self.ranks.rank_zero_only(|| self.checkpoint(false))?;
            return Ok(false);
        }
        // Rank 0 has it; for the others it is there by now.
        if let Some(cache) = first.map_or_else(get, Ok)? {
            self.data = cache;
        }
        Ok(true)
    }

    fn diverged(&self, steps: u64) -> Error {
        let (done, root) = (self.state.step, self.run.root());
        let since =
            if steps == done { "from the first step on".into() } else { format!("for {steps} steps") };
        let kept = match self.run.newest_checkpoint() {
            Ok(path) => format!("{} is kept", path.display()),
            Err(_) => "no checkpoint was written".into(),
        };
        let why = format!(
            "the gradients are no numbers {since}, up to step {done}, and none of these steps was taken: {kept}; try a lower learning rate, train.clip_grad or train.dtype=f32"
        );
        Error::data(root, why)
    }

    fn loader(&self, rank: usize, start: Position) -> Result<Loader> {
        let data = &self.config.data;
        let config = LoaderConfig {
            workers: data.num_workers,
            strict: data.strict,
            rank,
            world: self.ranks.world_size(),
            ..LoaderConfig::new(data.batch_size, self.config.train.seed)
        };
        Loader::new(Arc::clone(&self.data), config, start)
    }
}
