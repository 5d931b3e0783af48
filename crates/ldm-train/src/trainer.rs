//! The loop, flat, in the order things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::device::device_name;
use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig, Position};
use ldm_libtorch::GradientReducer;
use ldm_pipelines::{ModelConfig, hand_on_tokenizer};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::config::{Dtype, RunConfig};
use crate::ema::Ema;
use crate::event::{Event, Finished};
use crate::meter::{Meter, integers};
use crate::objective::{Moment, Objective, Turn};
use crate::optimizer::AdamW;
use crate::parts::{Parts, parts};
use crate::ranks::Ranks;
use crate::run_dir::RunDir;
use crate::state::{self, TrainState};

/// Noise of what follows a step has numbers that no forward pass has.
const AFTER: u64 = 1 << 63;

/// A run: a model under training, its data, and where both are kept.
pub struct Trainer {
    ranks: Ranks,
    config: RunConfig,
    run: RunDir,
    device: Device,
    objective: Box<dyn Objective>,
    /// What each of the objective's turns moves, and by what; the gradients are the mean over all ranks.
    turns: Vec<(Turn, AdamW, Box<dyn GradientReducer>)>,
    ema: Option<Ema>,
    data: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
    state: TrainState,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("run", &self.run).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Trainer {
    /// Starts a run in a new folder `root`. Nothing is written before everything that can be wrong was looked at.
    ///
    /// # Errors
    /// Whatever is wrong with the config, the data, the first stage's checkpoint or the folder.
    pub fn create(config: RunConfig, root: &Path, device: Device) -> Result<Self> {
        Self::create_among(Ranks::default(), config, root, device)
    }

    /// [`Trainer::create`] on each of several ranks, all with the same config; rank 0 alone writes.
    ///
    /// # Errors
    /// As [`Trainer::create`], when the ranks' configs differ, and when a rank has ended.
    pub fn create_among(ranks: Ranks, config: RunConfig, root: &Path, device: Device) -> Result<Self> {
        ranks.agree(config.path(), &config.to_text())?;
        let (objective, data, validation) = parts(&config, device, &ranks)?;
        // One picture tells the size of all; one that cannot be read is the loader's to name.
        if let Ok(example) = data.get(0, config.train.seed) {
            let [_, height, width] = example.size;
            objective.check_size([height as i64, width as i64])?;
        }
        let environment = json!({
            "ldm": env!("CARGO_PKG_VERSION"),
            "torch": ldm_libtorch::TORCH_VERSION,
            "device": device_name(device),
            "threads": ldm_libtorch::threads(),
            "ranks": ranks.world(),
            "seed": config.train.seed,
            "data": data.fingerprint(),
        });
        let run = ranks.first_alone(|| {
            let run = RunDir::create(root)?;
            run.write_head(&config.to_text(), &environment)?;
            Ok(run)
        })?;
        let run = run.unwrap_or_else(|| RunDir::of_others(root));
        Self::assemble(ranks, config, run, device, (objective, data, validation))?.alike()
    }

    /// Goes on with the run in `root` from its newest complete checkpoint.
    ///
    /// # Errors
    /// When there is none, or it does not fit the run's config.
    pub fn resume(root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        Self::resume_among(Ranks::default(), root, overrides, device)
    }

    /// [`Trainer::resume`] on each of several ranks, as many as the run was started with.
    ///
    /// # Errors
    /// As [`Trainer::resume`], when the ranks' configs, checkpoints or number differ, and when a rank has ended.
    pub fn resume_among(ranks: Ranks, root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        let run = RunDir::open(root)?;
        let config = RunConfig::read(run.config(), overrides)?;
        let checkpoint = run.newest_checkpoint()?;
        ranks.agree(config.path(), &format!("{}{}", config.to_text(), checkpoint.display()))?;
        let parts = parts(&config, device, &ranks)?;
        let mut trainer = Self::assemble(ranks, config, run, device, parts)?;
        let optimizers = trainer.turns.iter_mut().map(|(_, optimizer, _)| optimizer);
        trainer.state = state::read(&checkpoint, &mut *trainer.objective, optimizers, trainer.ema.as_mut())?;
        let (was, now) = (trainer.state.ranks, trainer.ranks.world());
        if was != now {
            return Err(Error::data(
                root,
                format!(
                    "this run's order of pictures is that of its {was} ranks, go on with it by --nproc {was}, got {now}"
                ),
            ));
        }
        trainer.ranks.first_alone(|| trainer.run.truncate_metrics(trainer.state.step))?;
        trainer.alike()
    }

    /// Every rank starts from rank 0's weights to the bit, whatever device drew or read them.
    fn alike(self) -> Result<Self> {
        let weights: Vec<Tensor> = self.objective.weights().into_iter().map(|(_, tensor)| tensor).collect();
        self.ranks.take_over(&weights)?;
        Ok(self)
    }

    fn assemble(
        ranks: Ranks,
        config: RunConfig,
        run: RunDir,
        device: Device,
        (objective, data, validation): Parts,
    ) -> Result<Self> {
        let turns = objective
            .turns()
            .into_iter()
            .map(|turn| {
                let params =
                    turn.trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
                let optimizer = AdamW::new(params.collect(), config.train.optimizer);
                let params: Vec<Tensor> =
                    turn.trainable.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
                let reducer = ranks.reducer(&params)?;
                Ok((turn, optimizer, reducer))
            })
            .collect::<Result<_>>()?;
        let ema = config.train.ema.map(|ema| Ema::new(objective.averaged(), ema.decay));
        let state = TrainState { ranks: ranks.world(), ..TrainState::default() };
        Ok(Self { ranks, config, run, device, objective, turns, ema, data, validation, state })
    }

    /// Where it is kept.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Where it stands.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Parameters under training.
    pub fn parameters(&self) -> usize {
        self.turns.iter().flat_map(|(turn, ..)| &turn.trainable).map(|(_, tensor)| tensor.numel()).sum()
    }

    /// Trains until all steps are taken, or until `stop` is set: then a checkpoint is written and the run can be
    /// resumed.
    ///
    /// # Errors
    /// When a file cannot be written, when a picture cannot be read and the run is strict, or when the loss is no
    /// number.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world());
        let (train, rate) = (self.config.train.clone(), self.config.learning_rate(world)?);
        let mut loader = self.loader(rank, self.state.position())?;
        if self.state.step == 0 {
            // On a batch of its own, so that the run sees every picture of the epoch all the same; on rank 0's, on all
            // ranks, as the reference (`ddpm.py:479`, whose buffer DDP takes from rank 0).
            let first = self.loader(0, Position::default())?.next().expect("an endless loader")?;
            self.objective.prepare(&first, &mut PerStep::new(train.seed, 0, u64::MAX))?;
        }
        let mut meter = Meter::default();
        let mut last = Instant::now();
        let mut named = BTreeSet::new();
        while self.state.step < train.steps {
            let step = self.state.step;
            let lr = rate * train.schedule.at(step, train.steps);
            for micro in 0..train.accumulate {
                let waiting = Instant::now();
                let batch = loader.next().expect("an endless loader")?;
                meter.waited += waiting.elapsed().as_secs_f64();
                self.state.images += batch.images.size()[0] as u64 * world as u64;
                meter.images += batch.images.size()[0] as u64;
                for turn in 0..self.turns.len() {
                    self.backward(turn, &batch, micro, &mut meter)?;
                    // In the last micro-batch a turn moves before the next one looks, as Lightning has it.
                    if micro + 1 == train.accumulate {
                        self.take(turn, lr, &mut meter)?;
                    }
                }
            }
            self.objective.after_step(&mut PerStep::new(train.seed, 0, AFTER | step));
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
            if done.is_multiple_of(train.log_every) || at_end || stopping {
                let seconds = last.elapsed().as_secs_f64();
                self.state.seconds += seconds;
                let mut line = meter.take(seconds, lr, &self.state, self.device);
                self.ranks.together(&mut line)?;
                if line.values().any(|value| !value.is_finite()) {
                    return Err(Error::data(
                        self.run.root(),
                        format!(
                            "a loss is not a number at step {done}: the last checkpoint is kept; try a lower learning rate or train.clip_grad"
                        ),
                    ));
                }
                if self.ranks.is_first() {
                    self.run.log(&integers(&line))?;
                }
                observe(Event::Logged(&line));
                for (index, why) in loader.skipped() {
                    if named.insert(*index) {
                        observe(Event::Skipped(why));
                    }
                }
                last = Instant::now();
            }
            let due = |every: u64| at_end || (every > 0 && done.is_multiple_of(every));
            if (due(train.checkpoint_every) || stopping)
                && let Some(path) = self.ranks.first_alone(|| self.checkpoint())?
            {
                observe(Event::Checkpoint(&path));
            }
            if train.samples.count > 0
                && due(train.samples.every)
                && !stopping
                && let Some(path) = self.ranks.first_alone(|| self.sample())?
            {
                observe(Event::Sample(&path));
            }
            if due(train.validate_every) && !stopping {
                let numbers = self.ranks.first_alone(|| self.validate())?.unwrap_or_default();
                if !numbers.is_empty() {
                    observe(Event::Validated(&numbers));
                }
            }
            if stopping && !at_end {
                return Ok(Finished::Stopped);
            }
        }
        Ok(Finished::Done)
    }

    /// Forward and backward of one micro-batch for one turn.
    fn backward(&mut self, turn: usize, batch: &Batch, micro: u64, meter: &mut Meter) -> Result<()> {
        for (index, (other, optimizer, _)) in self.turns.iter_mut().enumerate() {
            for (_, tensor) in &other.trainable {
                let _ = tensor.set_requires_grad(index == turn);
            }
            if index == turn && micro == 0 {
                optimizer.zero_grad();
            }
        }
        let step = self.state.step;
        let pass = (step * self.config.train.accumulate + micro) * self.turns.len() as u64 + turn as u64;
        let mut noise = PerStep::shared(self.config.train.seed, self.ranks.rank(), self.ranks.world(), pass);
        let loss = {
            let kind = if self.config.train.dtype == Dtype::Bf16 { Kind::BFloat16 } else { Kind::Float };
            let _autocast = ldm_libtorch::autocast(self.device, kind);
            self.objective.loss(Moment { turn, step }, batch, &mut noise)?
        };
        if micro + 1 == self.config.train.accumulate {
            self.turns[turn].2.arm();
        }
        (loss.total / self.config.train.accumulate as f64).backward();
        for (name, value) in &loss.parts {
            meter.add(name, value);
        }
        Ok(())
    }

    /// Clips one turn's gradients, the mean over all ranks, and moves its parameters.
    fn take(&mut self, turn: usize, lr: f64, meter: &mut Meter) -> Result<()> {
        let several = self.turns.len() > 1;
        let (turn, optimizer, reducer) = &mut self.turns[turn];
        reducer.finish()?;
        let norm = optimizer.clip(self.config.train.clip_grad);
        meter.add(&if several { format!("grad_norm/{}", turn.name) } else { "grad_norm".into() }, &norm);
        optimizer.step(lr * turn.rate);
        Ok(())
    }

    fn loader(&self, rank: usize, start: Position) -> Result<Loader> {
        let data = &self.config.data;
        let config = LoaderConfig {
            workers: data.num_workers,
            strict: data.strict,
            rank,
            world: self.ranks.world(),
            ..LoaderConfig::new(data.batch_size, self.config.train.seed)
        };
        Loader::new(Arc::clone(&self.data), config, start)
    }

    fn checkpoint(&self) -> Result<PathBuf> {
        let (objective, ema) = (&*self.objective, self.ema.as_ref());
        let path = self.run.checkpoint(self.state.step, self.config.train.keep, |folder| {
            let optimizers = self.turns.iter().map(|(_, optimizer, _)| optimizer);
            state::write(folder, &self.state, objective, optimizers, ema)
        })?;
        state::write_model(
            &self.run.model(),
            &self.config.model_text(),
            self.data.classes(),
            objective,
            ema,
        )?;
        if let ModelConfig::LatentDiffusion(model) = &self.config.model {
            hand_on_tokenizer(&model.cond_stage_config, &self.run.model())?;
        }
        Ok(path)
    }

    /// Held-back pictures in order, or the training set's own where there are none.
    fn held_back(&self, count: usize, shuffle: bool) -> Result<impl Iterator<Item = Result<Batch>> + use<>> {
        let data = self.validation.as_ref().unwrap_or(&self.data);
        let batch_size = self.config.data.batch_size;
        let config = LoaderConfig {
            workers: self.config.data.num_workers,
            strict: self.config.data.strict,
            drop_last: false,
            shuffle,
            ..LoaderConfig::new(batch_size, 0)
        };
        let batches = if count == 0 { usize::MAX } else { count.div_ceil(batch_size) };
        Ok(Loader::one_pass(Arc::clone(data), config)?.take(batches))
    }

    fn averaged<T>(&self, body: impl FnOnce() -> T) -> T {
        match &self.ema {
            Some(ema) => tch::no_grad(|| ema.swapped(body)),
            None => tch::no_grad(body),
        }
    }

    fn sample(&self) -> Result<PathBuf> {
        let config = &self.config.train.samples;
        // Shuffled, always alike: sets are often sorted by class.
        let mut batches = self.held_back(config.count, true)?;
        let first = batches.next().ok_or_else(|| Error::data(self.run.root(), "no picture to show"))??;
        let picture = self.averaged(|| self.objective.preview(&first, config))?;
        let path = self.run.sample(self.state.step);
        ldm_core::image::write_png(&path, &picture, &[])?;
        Ok(path)
    }

    fn validate(&self) -> Result<BTreeMap<String, f64>> {
        if self.validation.is_none() {
            return Ok(BTreeMap::new());
        }
        let mut batches = self.held_back(self.config.train.validate_images, false)?;
        let found = self.averaged(|| self.objective.validate(&mut batches))?;
        let mut line: BTreeMap<String, f64> =
            found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if !line.is_empty() {
            line.insert("step".into(), self.state.step as f64);
            self.run.log(&integers(&line))?;
        }
        Ok(line)
    }
}
