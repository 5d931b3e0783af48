//! The trainer: starts, resumes and runs the training loop.

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
/// [`Trainer::resume`] build both from a [`RunConfig`], as `ldm train` does.
pub struct Trainer {
    train_step: TrainStep,
    config: TrainConfig,
    /// The config file; absent for runs of [`Trainer::builder`].
    run_config: Option<RunConfig>,
    /// The learning rate before its schedule.
    learning_rate: f64,
    loading: Loading,
    run: RunDir,
    device: Device,
    data: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
    /// The datasets to encode, with `train.cache_latents`.
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
    /// Builds a run of any objective and dataset; see [`TrainerBuilder`].
    pub fn builder(config: TrainConfig) -> TrainerBuilder {
        TrainerBuilder::new(config)
    }

    /// Creates a run in the new folder `root`; [`Trainer::run`] starts it. Nothing is written unless all checks pass.
    ///
    /// # Errors
    /// [`Error::Config`](ldm_core::Error::Config) when the config is invalid; [`Error::Data`](ldm_core::Error::Data)
    /// when the folder is not empty; the errors of opening the datasets and of loading the checkpoints that the config
    /// names.
    pub fn create(config: RunConfig, root: &Path, device: Device) -> Result<Self> {
        Self::create_distributed(Distributed::default(), config, root, device)
    }

    /// [`Trainer::create`] on several ranks, called on each with the same config. Only rank 0 writes files.
    ///
    /// # Errors
    /// As [`Trainer::create`]; [`Error::Config`](ldm_core::Error::Config) when the ranks' configs differ;
    /// [`Error::Ranks`](ldm_core::Error::Ranks) when another rank has ended.
    pub fn create_distributed(
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

    /// Resumes the run in `root` from its newest complete checkpoint, with `overrides` (`train.steps=2000`) of its
    /// config.
    ///
    /// # Errors
    /// [`Error::Data`](ldm_core::Error::Data) when there is no complete checkpoint or the run has several ranks;
    /// [`Error::Weights`](ldm_core::Error::Weights) when the checkpoint does not fit the config; as
    /// [`Trainer::create`].
    pub fn resume(root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        Self::resume_distributed(Distributed::default(), root, overrides, device)
    }

    /// [`Trainer::resume`] on several ranks, as many as the run was started with.
    ///
    /// # Errors
    /// As [`Trainer::resume`]; [`Error::Data`](ldm_core::Error::Data) when the number of ranks differs;
    /// [`Error::Config`](ldm_core::Error::Config) when the ranks' configs or checkpoints differ;
    /// [`Error::Ranks`](ldm_core::Error::Ranks) when another rank has ended.
    pub fn resume_distributed(
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

    /// The progress of the run: steps, images, epochs.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The training step: the objective, its optimizers, the EMA.
    pub fn train_step(&self) -> &TrainStep {
        &self.train_step
    }

    /// The number of trained scalar parameters.
    pub fn parameters(&self) -> usize {
        self.train_step.parameters()
    }
}
