//! The trainer: starts, resumes and runs the training loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ldm_core::Result;
use ldm_data::Dataset;
use tch::Device;

use crate::config::{RunConfig, TrainConfig};
use crate::distributed::Distributed;
use crate::latent_cache::Augmentations;
use crate::optim::EmaConfig;
use crate::run::build::build;
use crate::run::run_dir::{RunDir, run_and_step};
use crate::run::state::TrainState;
use crate::train_step::TrainStep;

mod builder;
mod checkpoint;
mod due;
mod resumption;
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
    /// Notes on the checkpoint and the data of a resumed run, for the first [`Event`](crate::Event)s.
    notes: Vec<String>,
    /// Asks for a checkpoint after the current step.
    request: Option<Arc<AtomicBool>>,
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

    /// Resumes a run, with `overrides` (`train.steps=2000`) of its config, which become part of it. `path` is the run,
    /// which goes on from its newest complete checkpoint, or one of its checkpoints (`RUN/checkpoints/step-0000600`);
    /// then the later ones are renamed. A checkpoint that is damaged is passed over, which [`Event::Note`] says.
    ///
    /// Keys that change the model, the data or the sequence of random numbers cannot be overridden.
    ///
    /// # Errors
    /// [`Error::Data`](ldm_core::Error::Data) when there is no complete checkpoint or the run has several ranks;
    /// [`Error::Config`](ldm_core::Error::Config) when a key cannot be overridden, or when more steps are taken than
    /// the config has; [`Error::Weights`](ldm_core::Error::Weights) when the checkpoint does not fit the config; as
    /// [`Trainer::create`].
    ///
    /// [`Event::Note`]: crate::Event::Note
    pub fn resume(path: &Path, overrides: &[String], device: Device) -> Result<Self> {
        Self::resume_distributed(Distributed::default(), path, overrides, device)
    }

    /// [`Trainer::resume`] on several ranks, as many as the run was started with.
    ///
    /// # Errors
    /// As [`Trainer::resume`]; [`Error::Data`](ldm_core::Error::Data) when the number of ranks differs;
    /// [`Error::Config`](ldm_core::Error::Config) when the ranks' configs or checkpoints differ;
    /// [`Error::Ranks`](ldm_core::Error::Ranks) when another rank has ended.
    pub fn resume_distributed(
        distributed: Distributed,
        path: &Path,
        overrides: &[String],
        device: Device,
    ) -> Result<Self> {
        let (root, step) = run_and_step(path);
        let run = RunDir::open_to_resume(&root, &distributed)?;
        let config = RunConfig::read_to_resume(run.config(), overrides)?;
        let required = config.train.ema.as_ref().map(EmaConfig::files).unwrap_or_default();
        let from = run.checkpoints().find(step, &required)?;
        distributed
            .check_same_config(config.path(), &format!("{}{}", config.to_text(), from.path.display()))?;
        let parts = build(&config, device, &distributed, false)?;
        let changed = !overrides.is_empty();
        TrainerBuilder::from_config(config, parts)
            .device(device)
            .distributed(distributed)
            .resume_from(run, from, changed)
    }

    /// Sets a flag that asks for a checkpoint: when another thread sets it, [`Trainer::run`] clears it, writes a
    /// checkpoint after the current step, and goes on.
    pub fn checkpoint_on(&mut self, request: Arc<AtomicBool>) {
        self.request = Some(request);
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
