//! A run: made, or taken up again.

use std::path::Path;
use std::sync::Arc;

use ldm_core::device::device_name;
use ldm_core::{Error, Result};
use ldm_data::{Dataset, collate};
use ldm_libtorch::GradientReducer;
use serde_json::json;
use tch::{Device, Tensor};

use crate::config::{Dtype, RunConfig};
use crate::distributed::Distributed;
use crate::latent_cache;
use crate::objective::{Objective, Phase};
use crate::optim::AdamW;
use crate::optim::Ema;
use crate::optim::LossScale;
use crate::run::build::{Parts, parts};
use crate::run::run_dir::RunDir;
use crate::run::state::{self, TrainState};

mod checkpoint;
mod run;
mod step;
mod validation;

/// A run: a model under training, its data, and where both are kept.
pub struct Trainer {
    ranks: Distributed,
    config: RunConfig,
    run: RunDir,
    device: Device,
    objective: Box<dyn Objective>,
    /// What each of the objective's phases moves, and by what; the gradients are the mean over all ranks.
    phases: Vec<(Phase, AdamW, Box<dyn GradientReducer>)>,
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
        Self::create_among(Distributed::default(), config, root, device)
    }

    /// [`Trainer::create`] on each of several ranks, all with the same config; rank 0 alone writes.
    ///
    /// # Errors
    /// As [`Trainer::create`], when the ranks' configs differ, and when a rank has ended.
    pub fn create_among(ranks: Distributed, config: RunConfig, root: &Path, device: Device) -> Result<Self> {
        let config = config.complete()?;
        ranks.check_same_config(config.path(), &config.to_text())?;
        let (objective, data, validation) = parts(&config, device, &ranks, true)?;
        // One image tells the size of all; one that cannot be read is the loader's to name.
        if let Ok(example) = data.get(0, config.train.seed) {
            let [_, height, width] = example.size;
            objective.check_size([height as i64, width as i64])?;
            let batch = collate(vec![example])?;
            objective.check_batch(&batch)?;
            latent_cache::check(&config, &*objective, &batch)?;
        }
        let environment = json!({
            "ldm": env!("CARGO_PKG_VERSION"),
            "torch": ldm_libtorch::TORCH_VERSION,
            "device": device_name(device),
            "threads": ldm_libtorch::threads(),
            "ranks": ranks.world_size(),
            "seed": config.train.seed,
            "data": data.fingerprint(),
        });
        let run = ranks.rank_zero_only(|| {
            let run = RunDir::create(root)?;
            run.write_head(&config.to_text(), &environment)?;
            Ok(run)
        })?;
        let run = run.unwrap_or_else(|| RunDir::of_others(root));
        Self::assemble(ranks, config, run, device, (objective, data, validation))?.sync_weights()
    }

    /// Goes on with the run in `root` from its newest complete checkpoint.
    ///
    /// # Errors
    /// When there is none, or it does not fit the run's config.
    pub fn resume(root: &Path, overrides: &[String], device: Device) -> Result<Self> {
        Self::resume_among(Distributed::default(), root, overrides, device)
    }

    /// [`Trainer::resume`] on each of several ranks, as many as the run was started with.
    ///
    /// # Errors
    /// As [`Trainer::resume`], when the ranks' configs, checkpoints or number differ, and when a rank has ended.
    pub fn resume_among(
        ranks: Distributed,
        root: &Path,
        overrides: &[String],
        device: Device,
    ) -> Result<Self> {
        let mut run = RunDir::open(root)?;
        ranks.rank_zero_only(|| run.lock())?;
        let config = RunConfig::read(run.config(), overrides)?;
        let checkpoint = run.newest_checkpoint()?;
        ranks.check_same_config(config.path(), &format!("{}{}", config.to_text(), checkpoint.display()))?;
        let parts = parts(&config, device, &ranks, false)?;
        let mut trainer = Self::assemble(ranks, config, run, device, parts)?;
        let optimizers = trainer.phases.iter_mut().map(|(_, optimizer, _)| optimizer);
        trainer.state = state::read(
            &checkpoint,
            &mut *trainer.objective,
            optimizers,
            trainer.ema.as_mut(),
            trainer.loss_scale.as_ref(),
        )?;
        let (was, now) = (trainer.state.ranks, trainer.ranks.world_size());
        if was != now {
            return Err(Error::data(
                root,
                format!(
                    "this run's order of images is that of its {was} ranks, go on with it by --nproc {was}, got {now}"
                ),
            ));
        }
        trainer.ranks.rank_zero_only(|| trainer.run.truncate_metrics(trainer.state.step))?;
        trainer.sync_weights()
    }

    /// Every rank starts from rank 0's weights to the bit, whatever device drew or read them.
    fn sync_weights(self) -> Result<Self> {
        self.broadcast_weights()?;
        Ok(self)
    }

    /// Gives every rank the weights of rank 0.
    fn broadcast_weights(&self) -> Result<()> {
        let weights: Vec<Tensor> = self.objective.weights().into_iter().map(|(_, tensor)| tensor).collect();
        self.ranks.broadcast_weights(&weights)
    }

    fn assemble(
        ranks: Distributed,
        config: RunConfig,
        run: RunDir,
        device: Device,
        (objective, data, validation): Parts,
    ) -> Result<Self> {
        let phases = objective
            .phases()
            .into_iter()
            .map(|phase| {
                let params =
                    phase.trainable.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
                let optimizer = AdamW::new(params.collect(), config.train.optimizer);
                let params: Vec<Tensor> =
                    phase.trainable.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
                let reducer = ranks.reducer(&params)?;
                Ok((phase, optimizer, reducer))
            })
            .collect::<Result<_>>()?;
        let ema = config.train.ema.as_ref().map(|ema| Ema::new(objective.ema_parameters(), ema));
        let loss_scale = (config.train.dtype == Dtype::F16).then(|| LossScale::new(device));
        let state = TrainState { ranks: ranks.world_size(), ..TrainState::default() };
        Ok(Self { ranks, config, run, device, objective, phases, ema, loss_scale, data, validation, state })
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
        self.phases.iter().flat_map(|(phase, ..)| &phase.trainable).map(|(_, tensor)| tensor.numel()).sum()
    }
}
