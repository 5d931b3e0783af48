//! The loop, flat, in the order things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::device::device_name;
use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use ldm_data::{Batch, Dataset, Loader, LoaderConfig, Position, collate};
use ldm_pipelines::{ModelConfig, hand_on_tokenizer};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::config::{Dtype, RunConfig};
use crate::ema::Ema;
use crate::event::{Event, Finished};
use crate::keep::Keep;
use crate::loss_scale::LossScale;
use crate::meter::{Meter, integers};
use crate::objective::{Moment, Objective, Turn};
use crate::optimizer::{AdamW, found_inf};
use crate::parts::parts;
use crate::run_dir::RunDir;
use crate::state::{self, TrainState};

/// Noise of what follows a step has numbers that no forward pass has.
const AFTER: u64 = 1 << 63;

/// A run: a model under training, its data, and where both are kept.
pub struct Trainer {
    config: RunConfig,
    run: RunDir,
    device: Device,
    objective: Box<dyn Objective>,
    /// What each of the objective's turns moves, and by what.
    turns: Vec<(Turn, AdamW)>,
    ema: Option<Ema>,
    /// With f16 alone.
    loss_scale: Option<LossScale>,
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
        let (objective, data, validation) = parts(&config, device)?;
        // One picture tells the size of all; one that cannot be read is the loader's to name.
        if let Ok(example) = data.get(0, config.train.seed) {
            let [_, height, width] = example.size;
            objective.check_size([height as i64, width as i64])?;
            objective.check_batch(&collate(vec![example])?)?;
        }
        let run = RunDir::create(root)?;
        let environment = json!({
            "ldm": env!("CARGO_PKG_VERSION"),
            "torch": ldm_libtorch::TORCH_VERSION,
            "device": device_name(device),
            "threads": ldm_libtorch::threads(),
            "seed": config.train.seed,
            "data": data.fingerprint(),
        });
        run.write_head(&config.to_text(), &environment)?;
        Ok(Self::assemble(config, run, device, objective, data, validation))
    }

    /// Goes on with the run in `root` from its newest complete checkpoint.
    ///
    /// # Errors
    /// When there is none, or it does not fit the run's config.
    pub fn resume(root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        let run = RunDir::open(root)?;
        let config = RunConfig::read(run.config(), overrides)?;
        let checkpoint = run.newest_checkpoint()?;
        let (objective, data, validation) = parts(&config, device)?;
        let mut trainer = Self::assemble(config, run, device, objective, data, validation);
        let optimizers = trainer.turns.iter_mut().map(|(_, optimizer)| optimizer);
        trainer.state = state::read(
            &checkpoint,
            &mut *trainer.objective,
            optimizers,
            trainer.ema.as_mut(),
            trainer.loss_scale.as_ref(),
        )?;
        trainer.run.truncate_metrics(trainer.state.step)?;
        Ok(trainer)
    }

    fn assemble(
        config: RunConfig,
        run: RunDir,
        device: Device,
        objective: Box<dyn Objective>,
        data: Arc<dyn Dataset>,
        validation: Option<Arc<dyn Dataset>>,
    ) -> Self {
        let turns = objective
            .turns()
            .into_iter()
            .map(|turn| {
                let params =
                    turn.trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
                let optimizer = AdamW::new(params.collect(), config.train.optimizer);
                (turn, optimizer)
            })
            .collect();
        let ema = config.train.ema.as_ref().map(|ema| Ema::new(objective.averaged(), ema));
        let loss_scale = (config.train.dtype == Dtype::F16).then(|| LossScale::new(device));
        Self {
            config,
            run,
            device,
            objective,
            turns,
            ema,
            loss_scale,
            data,
            validation,
            state: TrainState::default(),
        }
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
        self.turns.iter().flat_map(|(turn, _)| &turn.trainable).map(|(_, tensor)| tensor.numel()).sum()
    }

    /// Trains until all steps are taken, or until `stop` is set: then a checkpoint is written and the run can be
    /// resumed.
    ///
    /// # Errors
    /// When a file cannot be written, when a picture cannot be read and the run is strict, or when the loss is no
    /// number.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let (train, rate) = (self.config.train.clone(), self.config.learning_rate()?);
        let mut loader = self.loader(self.state.position())?;
        if self.state.step == 0 {
            // On a batch of its own, so that the run sees every picture of the epoch all the same.
            let first = self.loader(Position::default())?.next().expect("an endless loader")?;
            self.objective.prepare(&first, &mut PerStep::new(train.seed, 0, u64::MAX))?;
        }
        let mut events = self.run.events((self.state.step > 0).then_some(self.state.step))?;
        let mut meter = Meter::default();
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
                self.state.images += batch.images.size()[0] as u64;
                meter.images += batch.images.size()[0] as u64;
                for turn in 0..self.turns.len() {
                    self.backward(turn, &batch, micro, &mut meter)?;
                    // In the last micro-batch a turn moves before the next one looks, as Lightning has it.
                    if micro + 1 == train.accumulate {
                        overflows.push(self.take(turn, lr, &mut meter));
                    }
                }
            }
            if let Some(scale) = &mut self.loss_scale {
                meter.add("loss_scale", scale.scale());
                scale.update(&Tensor::stack(&overflows, 0).sum(Kind::Float));
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
            let (at_end, stopping) = (done == train.steps, stop.load(Ordering::Relaxed));
            if done.is_multiple_of(train.log_every) || at_end || stopping {
                let seconds = last.elapsed().as_secs_f64();
                self.state.seconds += seconds;
                let line = meter.take(seconds, lr, &self.state, self.device);
                if line.values().any(|value| !value.is_finite()) {
                    return Err(Error::data(
                        self.run.root(),
                        format!(
                            "a loss is not a number at step {done}: the last checkpoint is kept; try a lower learning rate or train.clip_grad"
                        ),
                    ));
                }
                self.run.log(&integers(&line))?;
                events.scalars(done, &line)?;
                observe(Event::Logged(&line));
                for (index, why) in loader.skipped() {
                    if named.insert(*index) {
                        observe(Event::Skipped(why));
                    }
                }
                last = Instant::now();
            }
            let due = |every: u64| at_end || (every > 0 && done.is_multiple_of(every));
            self.state.validation.clear();
            if due(train.validate_every) && !stopping {
                let numbers = self.validate()?;
                if !numbers.is_empty() {
                    events.scalars(done, &numbers)?;
                    observe(Event::Validated(&numbers));
                    self.state.validation = numbers;
                }
            }
            let rated = train.keep_best.is_some() && !self.state.validation.is_empty();
            if due(train.checkpoint_every) || rated || stopping {
                let path = self.checkpoint()?;
                observe(Event::Checkpoint(&path));
            }
            if train.samples.count > 0 && due(train.samples.every) && !stopping {
                let path = self.sample()?;
                events.picture(done, "samples", &std::fs::read(&path).map_err(Error::io(&path))?)?;
                observe(Event::Sample(&path));
            }
            if stopping && !at_end {
                return Ok(Finished::Stopped);
            }
        }
        Ok(Finished::Done)
    }

    /// Forward and backward of one micro-batch for one turn.
    fn backward(&mut self, turn: usize, batch: &Batch, micro: u64, meter: &mut Meter) -> Result<()> {
        for (index, (other, optimizer)) in self.turns.iter_mut().enumerate() {
            for (_, tensor) in &other.trainable {
                let _ = tensor.set_requires_grad(index == turn);
            }
            if index == turn && micro == 0 {
                optimizer.zero_grad();
            }
        }
        let step = self.state.step;
        let pass = (step * self.config.train.accumulate + micro) * self.turns.len() as u64 + turn as u64;
        let mut noise = PerStep::new(self.config.train.seed, 0, pass);
        let loss = {
            let _autocast = ldm_libtorch::autocast(self.device, self.config.train.dtype.kind());
            self.objective.loss(Moment { turn, step }, batch, &mut noise)?
        };
        let total = loss.total / self.config.train.accumulate as f64;
        self.loss_scale.as_ref().map_or(total.shallow_clone(), |scale| total * scale.scale()).backward();
        self.objective.after_backward(turn);
        for (name, value) in &loss.parts {
            meter.add(name, value);
        }
        Ok(())
    }

    /// Clips one turn's gradients and moves its parameters, where no gradient overflowed; 1 where one did, which
    /// nobody waits to learn.
    fn take(&mut self, turn: usize, lr: f64, meter: &mut Meter) -> Tensor {
        let several = self.turns.len() > 1;
        let (turn, optimizer) = &mut self.turns[turn];
        if let Some(scale) = &self.loss_scale {
            optimizer.unscale(scale.scale());
        }
        let norm = optimizer.clip(self.config.train.clip_grad);
        let overflow = found_inf(&norm);
        // With a loss scale an overflow now and then is how the scale is found.
        let shown = if self.loss_scale.is_some() { norm.nan_to_num(0., 0., 0.) } else { norm };
        meter.add(&if several { format!("grad_norm/{}", turn.name) } else { "grad_norm".into() }, &shown);
        optimizer.step(lr * turn.rate, Some(&overflow));
        overflow
    }

    fn loader(&self, start: Position) -> Result<Loader> {
        let data = &self.config.data;
        let config = LoaderConfig {
            workers: data.num_workers,
            strict: data.strict,
            ..LoaderConfig::new(data.batch_size, self.config.train.seed)
        };
        Loader::new(Arc::clone(&self.data), config, start)
    }

    fn checkpoint(&self) -> Result<PathBuf> {
        let (objective, ema) = (&*self.objective, self.ema.as_ref());
        let path = self.run.checkpoint(self.state.step, &Keep::from(&self.config.train), |folder| {
            let optimizers = self.turns.iter().map(|(_, optimizer)| optimizer);
            state::write(folder, &self.state, objective, optimizers, ema, self.loss_scale.as_ref())
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
        if let Some(best) = &self.config.train.keep_best
            && !line.is_empty()
            && !line.contains_key(&best.metric)
        {
            let known: Vec<&str> = line.keys().map(String::as_str).collect();
            let (known, metric) = (known.join(", "), &best.metric);
            let message = format!("train.keep_best.metric: the validation gives {known}, got: {metric}");
            return Err(Error::config(self.run.config(), message));
        }
        if !line.is_empty() {
            line.insert("step".into(), self.state.step as f64);
            self.run.log(&integers(&line))?;
        }
        Ok(line)
    }
}
