//! The training loop of a run, and the ways to start or resume one.

use std::path::Path;
use std::sync::Arc;

use ldm_core::Result;
use ldm_data::Dataset;
use tch::Device;

use crate::config::{RunConfig, TrainConfig};
use crate::distributed::Distributed;
use crate::latent_cache::Augmentations;
use crate::run::build::build;
use crate::run::run_dir::RunDir;
use crate::run::state::TrainState;
use crate::train_step::TrainStep;

mod builder;
mod checkpoint;
mod due;
mod run;
mod validation;

pub use builder::TrainerBuilder;

/// A training run: a [`TrainStep`], its data, and its [`RunDir`].
///
/// [`Trainer::builder`] takes any [`Objective`](crate::Objective) and any [`Dataset`]; [`Trainer::create`] and
/// [`Trainer::resume`] make them from a [`RunConfig`], which is what `ldm train` does.
pub struct Trainer {
    train_step: TrainStep,
    config: TrainConfig,
    /// The config file, of a run that has one.
    run_config: Option<RunConfig>,
    /// Before its schedule.
    learning_rate: f64,
    loading: Loading,
    run: RunDir,
    device: Device,
    data: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
    /// The sets to encode, with `train.cache_latents`.
    augmentations: Option<Augmentations>,
    state: TrainState,
}

/// Batching of a run's data.
#[derive(Debug, Clone, Copy)]
struct Loading {
    batch_size: usize,
    workers: usize,
    strict: bool,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("run", &self.run).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Trainer {
    /// A run of one's own objective and data.
    pub fn builder(config: TrainConfig) -> TrainerBuilder {
        TrainerBuilder::new(config)
    }

    /// Starts a run in a new folder `root`. Nothing is written before everything was checked.
    ///
    /// # Errors
    /// Whatever is wrong with the config, the data, the first stage's checkpoint or the folder.
    pub fn create(config: RunConfig, root: &Path, device: Device) -> Result<Self> {
        Self::create_among(Distributed::default(), config, root, device)
    }

    /// [`Trainer::create`] on each of several ranks, all with the same config; rank 0 alone writes.
    ///
    /// # Errors
    /// As [`Trainer::create`]; when the ranks' configs differ; when a rank has ended.
    pub fn create_among(
        distributed: Distributed,
        config: RunConfig,
        root: &Path,
        device: Device,
    ) -> Result<Self> {
        let config = config.complete()?;
        distributed.check_same_config(config.path(), &config.to_text())?;
        let parts = build(&config, device, &distributed, true)?;
        TrainerBuilder::from_config(config, parts)
            .device(device)
            .distributed(distributed)
            .run_dir(root)
            .build()
    }

    /// Resumes the run in `root` from its newest complete checkpoint.
    ///
    /// # Errors
    /// When there is none, or it does not fit the run's config.
    pub fn resume(root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        Self::resume_among(Distributed::default(), root, overrides, device)
    }

    /// [`Trainer::resume`] on each of several ranks, as many as the run was started with.
    ///
    /// # Errors
    /// As [`Trainer::resume`]; when the ranks' configs, checkpoints or number differ; when a rank has ended.
    pub fn resume_among(
        distributed: Distributed,
        root: &Path,
        overrides: &[String],
        device: Device,
    ) -> Result<Self> {
        let run = RunDir::open_to_resume(root, &distributed)?;
        let config = RunConfig::read(run.config(), overrides)?;
        let checkpoint = run.newest_checkpoint()?;
        distributed
            .check_same_config(config.path(), &format!("{}{}", config.to_text(), checkpoint.display()))?;
        let parts = build(&config, device, &distributed, false)?;
        TrainerBuilder::from_config(config, parts)
            .device(device)
            .distributed(distributed)
            .resume_from(run, &checkpoint)
    }

    /// The run directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// The position of the run: steps, images, epochs.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The training step: the objective, its optimizers, the EMA.
    pub fn train_step(&self) -> &TrainStep {
        &self.train_step
    }

    /// The number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.train_step.parameters()
    }
}
