//! The trainer's builder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_core::device::device_name;
use ldm_core::{Error, Result, memory};
use ldm_data::{Dataset, Example, collate, first_readable, refuse_passed_over};
use serde_json::json;
use tch::Device;

use super::{Loading, Trainer};
use crate::config::{RunConfig, TrainConfig};
use crate::distributed::Distributed;
use crate::latent_cache::{Augmentations, CacheLatents};
use crate::objective::Objective;
use crate::optim::EmaConfig;
use crate::run::build::Parts;
use crate::run::run_dir::{RunDir, run_and_step};
use crate::run::state::TrainState;
use crate::train_step::TrainStep;

/// Builder of a [`Trainer`], returned by [`Trainer::builder`].
///
/// An objective, a training set and a run directory are required. [`build`](Self::build) creates a new run;
/// [`resume`](Self::resume) resumes one, given the same objective, data, batch size and seed.
#[must_use = "call `build` or `resume` to get a trainer"]
pub struct TrainerBuilder {
    pub(super) config: TrainConfig,
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

    /// The builder for a config file and the parts built from it.
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

    /// Sets the model to train and its losses. Required.
    pub fn objective(mut self, objective: impl Objective + 'static) -> Self {
        self.objective = Some(Box::new(objective));
        self
    }

    /// Sets the training set. Required.
    pub fn data(mut self, data: impl Dataset + 'static) -> Self {
        self.data = Some(Arc::new(data));
        self
    }

    /// Sets the held-out set; without one, previews use the training set and there is no validation.
    pub fn validation(mut self, validation: impl Dataset + 'static) -> Self {
        self.validation = Some(Arc::new(validation));
        self
    }

    /// Sets the number of images per micro-batch and rank; 1 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.loading.batch_size = batch_size;
        self
    }

    /// Sets the number of loader threads, 2 by default; batches do not depend on it. 0 reads in the training thread.
    pub fn workers(mut self, workers: usize) -> Self {
        self.loading.workers = workers;
        self
    }

    /// Fails at an unreadable image; by default it is reported once and skipped.
    pub fn strict(mut self, strict: bool) -> Self {
        self.loading.strict = strict;
        self
    }

    /// Sets the learning rate per image of a step, used if [`TrainConfig::learning_rate`] is absent: it is multiplied
    /// by ranks, batch size and accumulated micro-batches (CompVis `main.py:686`).
    pub fn base_learning_rate(mut self, base_learning_rate: f64) -> Self {
        self.base_learning_rate = Some(base_learning_rate);
        self
    }

    /// Sets the folder of the run. Required.
    pub fn run_dir(mut self, root: impl Into<PathBuf>) -> Self {
        self.run_dir = Some(root.into());
        self
    }

    /// Sets the device of the objective; the CPU by default.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sets the process group; one rank by default.
    pub fn distributed(mut self, distributed: Distributed) -> Self {
        self.distributed = distributed;
        self
    }

    /// Creates a new run; [`Trainer::run`] starts it. Nothing is written unless all checks pass.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a part is missing, a value is out of range or the parts do not fit each other;
    /// [`Error::Data`] when the folder is not empty; [`Error::Ranks`] when another rank has ended.
    pub fn build(self) -> Result<Trainer> {
        self.check()?;
        let root = self.root()?.to_path_buf();
        let text = self.config_text();
        if self.run_config.is_none() {
            self.distributed.check_same_config(&root, &text)?;
        }
        self.check_data()?;
        self.check_preview()?;
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

    /// Resumes the run in the folder from its newest complete checkpoint, or from the one that the path names
    /// (`RUN/checkpoints/step-0000600`). Objective, data, batch size and seed must be those the run was started with;
    /// its `config.yaml` is not read.
    ///
    /// # Errors
    /// [`Error::Data`] when there is no complete checkpoint or the number of ranks differs; [`Error::Weights`] when the
    /// checkpoint does not fit the objective; otherwise as [`build`](Self::build).
    pub fn resume(self) -> Result<Trainer> {
        self.check()?;
        let (root, step) = run_and_step(self.root()?);
        let run = RunDir::open_to_resume(&root, &self.distributed)?;
        let required = self.config.ema.as_ref().map(EmaConfig::files).unwrap_or_default();
        let from = run.checkpoints().find(step, &required)?;
        let text = format!("{}{}", self.config_text(), from.path.display());
        self.distributed.check_same_config(run.root(), &text)?;
        self.resume_from(run, from, false)
    }

    /// The text of the run's `config.yaml`: the resolved config file, or only `train` and `loader`.
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

    /// Checks the parts; those of a config file were checked when it was read.
    fn check(&self) -> Result<()> {
        let objective = self.objective_ref()?;
        if self.config.keep_best.is_some() && objective.as_validate().is_none() {
            return Err(Error::invalid(
                "train.keep_best: expected an objective with validation, got one without",
            ));
        }
        if self.run_config.is_some() {
            return Ok(());
        }
        self.config.check(self.validation.is_some()).map_err(Error::invalid)?;
        for (key, given) in [
            ("init_from", self.config.init_from.is_some()),
            ("lora", self.config.lora.is_some()),
            ("embedding", self.config.embedding.is_some()),
            ("consistency", self.config.consistency.is_some()),
            ("with_prior_preservation", self.config.with_prior_preservation),
        ] {
            if given {
                return Err(Error::invalid(format!(
                    "train.{key}: expected none with a custom objective, got one; try loading its weights"
                )));
            }
        }
        if self.loading.batch_size == 0 {
            return Err(Error::invalid("batch_size: expected at least 1, got 0"));
        }
        self.learning_rate()?;
        self.distributed.check_batch(self.data_ref()?.len(), self.loading.batch_size)
    }

    /// Checks the objective against the first readable example of each set, so that no run ends at its first step or at its
    /// first validation, and the batches of training against the memory.
    fn check_data(&self) -> Result<()> {
        let (objective, data) = (self.objective_ref()?, self.data_ref()?);
        if self.loading.strict {
            std::iter::once(data).chain(&self.validation).try_for_each(|set| refuse_passed_over(&**set))?;
        }
        if let Some(held_out) = &self.validation {
            let example = first_readable(&**held_out, 0)?;
            objective.check_size(size_of(&example)).map_err(|error| match error {
                Error::Invalid(message) => {
                    self.in_config(Error::Invalid(format!("data.params.validation: {message}")))
                }
                other => other,
            })?;
            objective.check_batch(&collate(vec![example])?)?;
        }
        let example = first_readable(&**data, self.config.seed)?;
        objective.check_size(size_of(&example))?;
        let companion = data.companion(0, self.config.seed).ok().flatten();
        self.check_memory(&example, companion.is_some()).map_err(|error| self.in_config(error))?;
        let batch = collate(std::iter::once(example).chain(companion).collect())?;
        objective.check_batch(&batch)?;
        if self.config.cache_latents != CacheLatents::No {
            self.augmentations()?;
            if objective.as_latent_encoder().is_none() {
                return Err(Error::invalid(
                    "train.cache_latents: expected a model that trains on latents, got one of images",
                ));
            }
        }
        Ok(())
    }

    /// Refuses batches of images like `example`, `with_companions` twice as many, that cannot fit in memory.
    fn check_memory(&self, example: &Example, with_companions: bool) -> Result<()> {
        let [height, width] = size_of(example);
        let cached = self.config.cache_latents.path(self.root()?).is_some_and(|file| file.exists());
        let pixels = if cached { 0 } else { 4 * example.image.len() };
        let activations = match self.device {
            Device::Cpu => self.objective_ref()?.activations([height, width], cached),
            _ => 0, // CUDA fails at the allocation, with its own message
        };
        let activations = activations as f64 * self.config.dtype.kind().elt_size_in_bytes() as f64;
        let count = self.loading.batch_size * (1 + usize::from(with_companions));
        let key = if self.run_config.is_some() { "data.params.batch_size" } else { "batch_size" };
        let got = format!("{count} images of {height}x{width}");
        memory::check(key, got, count as f64 * (pixels as f64 + activations))
    }

    /// Checks `train.samples` and the names of metrics against the objective.
    pub(super) fn check_preview(&self) -> Result<()> {
        let objective = self.objective_ref()?;
        if let Some(preview) = objective.as_preview()
            && self.config.samples.count > 0
        {
            preview.check(&self.config.samples).map_err(|error| self.in_config(error))?;
        }
        if let (Some(best), Some(validate)) = (&self.config.keep_best, objective.as_validate()) {
            let known = validate.metrics();
            if !known.is_empty() && !known.contains(&best.metric.as_str()) {
                let (known, got) = (known.join(", "), &best.metric);
                let message = format!("train.keep_best.metric: expected one of {known}, got {got}");
                return Err(self.in_config(Error::invalid(message)));
            }
        }
        Ok(())
    }

    /// Adds the config file, if any, to an [`Error::Invalid`].
    fn in_config(&self, error: Error) -> Error {
        match (error, &self.run_config) {
            (Error::Invalid(message), Some(config)) => Error::config(config.path(), message),
            (other, _) => other,
        }
    }

    fn augmentations(&self) -> Result<Augmentations> {
        match &self.run_config {
            Some(config) => {
                Augmentations::open(&config.data.train, config.path().parent().unwrap_or(Path::new(".")))
            }
            None => Augmentations::none(Arc::clone(self.data_ref()?)),
        }
    }

    /// The learning rate before its schedule.
    fn learning_rate(&self) -> Result<f64> {
        let batch = self.distributed.world_size() * self.loading.batch_size;
        let rate = self.config.base_rate(self.base_learning_rate, batch).unwrap_or(f64::NAN);
        if rate.is_finite() && rate > 0. {
            return Ok(rate);
        }
        let got = if rate.is_nan() { "none".into() } else { rate.to_string() };
        Err(Error::invalid(format!("train.learning_rate: expected a positive number, got {got}")))
    }

    pub(super) fn assemble(self, run: RunDir) -> Result<Trainer> {
        let world = self.distributed.world_size();
        let learning_rate = self.learning_rate()?;
        let augmentations =
            (self.config.cache_latents != CacheLatents::No).then(|| self.augmentations()).transpose()?;
        let data = Arc::clone(self.data_ref()?);
        let none = || Error::invalid("trainer: expected an objective, got none");
        let objective = self.objective.ok_or_else(none)?;
        let train_step = TrainStep::new(objective, (&self.config).into(), self.device, self.distributed)?;
        Ok(Trainer {
            train_step,
            config: self.config,
            run_config: self.run_config,
            learning_rate,
            loading: self.loading,
            notes: run.note().into_iter().collect(),
            run,
            device: self.device,
            data,
            validation: self.validation,
            augmentations,
            state: TrainState { ranks: world, ..TrainState::default() },
            request: None,
        })
    }
}

/// Height and width of an example.
fn size_of(example: &Example) -> [i64; 2] {
    let [_, height, width] = example.size;
    [height as i64, width as i64]
}
