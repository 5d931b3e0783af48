//! Construction of a trainer from its parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_core::device::device_name;
use ldm_core::{Error, Result};
use ldm_data::{Dataset, collate};
use serde_json::json;
use tch::Device;

use super::{Loading, Trainer};
use crate::config::{RunConfig, TrainConfig};
use crate::distributed::Distributed;
use crate::latent_cache::{Augmentations, CacheLatents};
use crate::objective::Objective;
use crate::run::build::Parts;
use crate::run::run_dir::RunDir;
use crate::run::state::{self, TrainState};
use crate::train_step::TrainStep;

/// Collects the parts of a [`Trainer`]: [`Trainer::builder`].
///
/// An objective, data and a run directory are required. [`build`](Self::build) starts a new run;
/// [`resume`](Self::resume) continues one, with the same parts.
#[must_use = "`build` makes the trainer"]
pub struct TrainerBuilder {
    config: TrainConfig,
    run_config: Option<RunConfig>,
    base_learning_rate: Option<f64>,
    objective: Option<Box<dyn Objective>>,
    data: Option<Arc<dyn Dataset>>,
    validation: Option<Arc<dyn Dataset>>,
    loading: Loading,
    run_dir: Option<PathBuf>,
    device: Device,
    distributed: Distributed,
}

impl std::fmt::Debug for TrainerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TrainerBuilder {
    pub(super) fn new(config: TrainConfig) -> Self {
        Self {
            config,
            run_config: None,
            base_learning_rate: None,
            objective: None,
            data: None,
            validation: None,
            loading: Loading { batch_size: 1, workers: 2, strict: false },
            run_dir: None,
            device: Device::Cpu,
            distributed: Distributed::default(),
        }
    }

    /// The builder of a config file, given what it names.
    pub(super) fn from_config(config: RunConfig, parts: Parts) -> Self {
        let (objective, data, validation) = parts;
        Self {
            base_learning_rate: config.base_learning_rate,
            objective: Some(objective),
            data: Some(data),
            validation,
            loading: Loading {
                batch_size: config.data.batch_size,
                workers: config.data.num_workers,
                strict: config.data.strict,
            },
            run_config: Some(config.clone()),
            ..Self::new(config.train)
        }
    }

    /// The model to train and its loss.
    pub fn objective(mut self, objective: impl Objective + 'static) -> Self {
        self.objective = Some(Box::new(objective));
        self
    }

    /// The training set.
    pub fn data(mut self, data: impl Dataset + 'static) -> Self {
        self.data = Some(Arc::new(data));
        self
    }

    /// The held-out set; without one, previews show the training set and nothing is validated.
    pub fn validation(mut self, validation: impl Dataset + 'static) -> Self {
        self.validation = Some(Arc::new(validation));
        self
    }

    /// Images a micro-batch, on each rank; 1 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.loading.batch_size = batch_size;
        self
    }

    /// Loader threads, 2 by default; batches do not depend on it. 0 reads in the training thread.
    pub fn workers(mut self, workers: usize) -> Self {
        self.loading.workers = workers;
        self
    }

    /// Ends the run at an unreadable image; by default it is reported once and skipped.
    pub fn strict(mut self, strict: bool) -> Self {
        self.loading.strict = strict;
        self
    }

    /// The learning rate for each image of a step, where [`TrainConfig::learning_rate`] is absent (CompVis
    /// `main.py:686`).
    pub fn base_learning_rate(mut self, base_learning_rate: f64) -> Self {
        self.base_learning_rate = Some(base_learning_rate);
        self
    }

    /// The folder of the run.
    pub fn run_dir(mut self, root: impl Into<PathBuf>) -> Self {
        self.run_dir = Some(root.into());
        self
    }

    /// The device of the objective, the CPU by default.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The ranks that share the run; one by default.
    pub fn distributed(mut self, distributed: Distributed) -> Self {
        self.distributed = distributed;
        self
    }

    /// Starts a new run. Nothing is written before everything was checked.
    ///
    /// # Errors
    /// When a part is missing or does not fit the others, and [`Error::Data`] when the folder is not empty.
    pub fn build(self) -> Result<Trainer> {
        self.check()?;
        let root = self.root()?.to_path_buf();
        let text = self.config_text();
        if self.run_config.is_none() {
            self.distributed.check_same_config(&root, &text)?;
        }
        self.check_data()?;
        let environment = json!({
            "ldm": env!("CARGO_PKG_VERSION"),
            "torch": ldm_libtorch::TORCH_VERSION,
            "device": device_name(self.device),
            "threads": ldm_libtorch::threads(),
            "ranks": self.distributed.world_size(),
            "seed": self.config.seed,
            "data": self.data_ref()?.fingerprint(),
        });
        let run = self.distributed.rank_zero_only(|| {
            let run = RunDir::create(&root)?;
            run.write_head(&text, &environment)?;
            Ok(run)
        })?;
        let trainer = self.assemble(run.unwrap_or_else(|| RunDir::of_rank_zero(&root)))?;
        trainer.train_step.sync_weights()?;
        Ok(trainer)
    }

    /// Continues the run in the folder from its newest complete checkpoint. Objective, data, batch size and seed are to
    /// be those it was started with; the run's `config.yaml` is not read.
    ///
    /// # Errors
    /// When there is no checkpoint, or it does not fit the objective.
    pub fn resume(self) -> Result<Trainer> {
        self.check()?;
        let run = RunDir::open_to_resume(self.root()?, &self.distributed)?;
        let checkpoint = run.newest_checkpoint()?;
        let text = format!("{}{}", self.config_text(), checkpoint.display());
        self.distributed.check_same_config(run.root(), &text)?;
        self.resume_from(run, &checkpoint)
    }

    pub(super) fn resume_from(self, run: RunDir, checkpoint: &Path) -> Result<Trainer> {
        let mut trainer = self.assemble(run)?;
        trainer.state = state::read(checkpoint, &mut trainer.train_step)?;
        let (was, now) = (trainer.state.ranks, trainer.train_step.distributed().world_size());
        if was != now {
            return Err(Error::data(
                trainer.run.root(),
                format!(
                    "expected {was} ranks, which the order of images was drawn for, got {now}; try --nproc {was}"
                ),
            ));
        }
        let step = trainer.state.step;
        trainer.train_step.set_global_step(step);
        trainer.train_step.distributed().rank_zero_only(|| trainer.run.truncate_metrics(step))?;
        trainer.train_step.sync_weights()?;
        Ok(trainer)
    }

    /// The text of the run's `config.yaml`: that of its config file, or `train` and `loader` alone.
    fn config_text(&self) -> String {
        if let Some(config) = &self.run_config {
            return config.to_text();
        }
        let Loading { batch_size, workers, strict } = self.loading;
        let loader = json!({"batch_size": batch_size, "num_workers": workers, "strict": strict});
        let tree = serde_yaml::to_value(json!({"loader": loader, "train": self.config}));
        ldm_core::config::to_text(&tree.expect("numbers and strings"))
    }

    fn root(&self) -> Result<&Path> {
        self.run_dir.as_deref().ok_or_else(|| Error::invalid("trainer: expected a run directory, got none"))
    }

    fn data_ref(&self) -> Result<&Arc<dyn Dataset>> {
        self.data.as_ref().ok_or_else(|| Error::invalid("trainer: expected training data, got none"))
    }

    fn objective_ref(&self) -> Result<&dyn Objective> {
        self.objective.as_deref().ok_or_else(|| Error::invalid("trainer: expected an objective, got none"))
    }

    /// Checks the parts; values of a config file are checked already.
    fn check(&self) -> Result<()> {
        let objective = self.objective_ref()?;
        if self.config.keep_best.is_some() && objective.as_validate().is_none() {
            return Err(Error::invalid(
                "train.keep_best: expected an objective that validates; leave it out",
            ));
        }
        if self.run_config.is_some() {
            return Ok(());
        }
        self.config.check(self.validation.is_some()).map_err(Error::invalid)?;
        for (key, given) in
            [("init_from", self.config.init_from.is_some()), ("lora", self.config.lora.is_some())]
        {
            if given {
                return Err(Error::invalid(format!(
                    "train.{key}: expected none beside an objective of one's own; load its weights before"
                )));
            }
        }
        if self.loading.batch_size == 0 {
            return Err(Error::invalid("batch_size: expected at least 1, got 0"));
        }
        self.learning_rate()?;
        self.distributed.check_batch(self.data_ref()?.len(), self.loading.batch_size)
    }

    /// Checks the objective against one example, which has the size of all; one that cannot be read is reported by the
    /// loader.
    fn check_data(&self) -> Result<()> {
        let (objective, data) = (self.objective_ref()?, self.data_ref()?);
        if let Ok(example) = data.get(0, self.config.seed) {
            let [_, height, width] = example.size;
            objective.check_size([height as i64, width as i64])?;
            let batch = collate(vec![example])?;
            objective.check_batch(&batch)?;
            if self.config.cache_latents != CacheLatents::No {
                self.augmentations()?;
                if objective.as_latent_encoder().is_none() {
                    return Err(Error::invalid(
                        "train.cache_latents: this model is trained on the images themselves; leave it out",
                    ));
                }
            }
        }
        Ok(())
    }

    fn augmentations(&self) -> Result<Augmentations> {
        match &self.run_config {
            Some(config) => {
                Augmentations::open(&config.data.train, config.path().parent().unwrap_or(Path::new(".")))
            }
            None => Augmentations::none(Arc::clone(self.data_ref()?)),
        }
    }

    /// The learning rate of all ranks, before its schedule.
    fn learning_rate(&self) -> Result<f64> {
        let batch = self.distributed.world_size() * self.loading.batch_size;
        let rate = self.config.base_rate(self.base_learning_rate, batch).unwrap_or(f64::NAN);
        if rate.is_finite() && rate > 0. {
            return Ok(rate);
        }
        let got = if rate.is_nan() { "none".into() } else { rate.to_string() };
        Err(Error::invalid(format!("train.learning_rate: expected a positive number, got {got}")))
    }

    fn assemble(self, run: RunDir) -> Result<Trainer> {
        let world = self.distributed.world_size();
        let learning_rate = self.learning_rate()?;
        let augmentations =
            (self.config.cache_latents != CacheLatents::No).then(|| self.augmentations()).transpose()?;
        let data = Arc::clone(self.data_ref()?);
        let objective = self.objective.ok_or_else(|| Error::invalid("trainer: expected an objective"))?;
        let train_step = TrainStep::new(objective, (&self.config).into(), self.device, self.distributed)?;
        Ok(Trainer {
            train_step,
            config: self.config,
            run_config: self.run_config,
            learning_rate,
            loading: self.loading,
            run,
            device: self.device,
            data,
            validation: self.validation,
            augmentations,
            state: TrainState { ranks: world, ..TrainState::default() },
        })
    }
}
