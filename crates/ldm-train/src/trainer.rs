//! The loop, flat, in the order things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldm_core::device::device_name;
use ldm_core::noise::PerStep;
use ldm_core::{Error, Result};
use ldm_data::{Dataset, Loader, LoaderConfig, Position, collate};
use ldm_pipelines::{ModelConfig, hand_on_tokenizer};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::config::{Dtype, RunConfig};
use crate::ema::Ema;
use crate::event::{Event, Finished};
use crate::guard::Guard;
use crate::keep::Keep;
use crate::latent_statistics::LatentStatistics;
use crate::latent_cache;
use crate::loss_scale::LossScale;
use crate::meter::{Meter, integers};
use crate::objective::{Objective, Turn};
use crate::optimizer::AdamW;
use crate::parts::parts;
use crate::run_dir::RunDir;
use crate::state::{self, TrainState};

mod step;
mod validation;

/// Noise of what follows a step has numbers that no forward pass has.
const AFTER: u64 = 1 << 63;

/// Pictures whose latents are measured at the end of a first stage's training.
const STATISTICS_OF: usize = 1024;

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
            let batch = collate(vec![example])?;
            objective.check_batch(&batch)?;
            latent_cache::check(&config, &*objective, &batch)?;
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
    /// When a file cannot be written, when a picture cannot be read and the run is strict, or when
    /// `train.max_skipped` steps in a row had gradients that are no numbers.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event)) -> Result<Finished> {
        let (train, rate) = (self.config.train.clone(), self.config.learning_rate()?);
        if let Some(path) = train.cache_latents.path(self.run.root()) {
            let cache = latent_cache::open_or_make(&path, &self.config, &*self.objective, stop, observe)?;
            let Some(cache) = cache else {
                self.checkpoint(false)?;
                return Ok(Finished::Stopped);
            };
            self.data = cache;
        }
        let mut loader = self.loader(self.state.position())?;
        if self.state.step == 0 {
            // On a batch of its own, so that the run sees every picture of the epoch all the same.
            let first = self.loader(Position::default())?.next().expect("an endless loader")?;
            self.objective.prepare(&first, &mut PerStep::new(train.seed, 0, u64::MAX))?;
        }
        let mut events = self.run.events((self.state.step > 0).then_some(self.state.step))?;
        self.objective.notes().iter().for_each(|note| observe(Event::Note(note)));
        let mut meter = Meter::default();
        let mut guard = Guard::new(self.state.skipped, self.device);
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
            let overflow = Tensor::stack(&overflows, 0).sum(Kind::Float);
            guard.saw(&overflow);
            if let Some(scale) = &mut self.loss_scale {
                meter.add("loss_scale", scale.scale());
                scale.update(&overflow);
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
                let line = meter.take(seconds, lr, &self.state, self.device);
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
                let path = self.checkpoint(at_end)?;
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

    fn diverged(&self, steps: u64) -> Error {
        let (done, root) = (self.state.step, self.run.root());
        let since = if steps == done { "from the first step on".into() } else { format!("for {steps} steps") };
        let kept = match self.run.newest_checkpoint() {
            Ok(path) => format!("{} is kept", path.display()),
            Err(_) => "no checkpoint was written".into(),
        };
        let why = format!(
            "the gradients are no numbers {since}, up to step {done}, and none of these steps was taken: {kept}; try a lower learning rate, train.clip_grad or train.dtype=f32"
        );
        Error::data(root, why)
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

    fn checkpoint(&self, at_end: bool) -> Result<PathBuf> {
        let (objective, ema) = (&*self.objective, self.ema.as_ref());
        let path = self.run.checkpoint(self.state.step, &Keep::from(&self.config.train), |folder| {
            let optimizers = self.turns.iter().map(|(_, optimizer)| optimizer);
            state::write(folder, &self.state, objective, optimizers, ema, self.loss_scale.as_ref())
        })?;
        let mut metadata = BTreeMap::new();
        if !self.data.classes().is_empty() {
            let classes = serde_json::to_string(self.data.classes()).expect("a list of words");
            metadata.insert("classes".to_owned(), classes);
        }
        if at_end {
            let mut batches = self.pictures(&self.data, STATISTICS_OF, true)?;
            let found = self.averaged(|| self.objective.latent_statistics(&mut batches))?;
            metadata.extend(found.as_ref().map(LatentStatistics::entry));
        }
        state::write_model(&self.run.model(), &self.config.model_text(), metadata, objective, ema)?;
        if let ModelConfig::LatentDiffusion(model) = &self.config.model {
            hand_on_tokenizer(&model.cond_stage_config, &self.run.model())?;
        }
        Ok(path)
    }
}
