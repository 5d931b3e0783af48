//! Training objectives: the loss of a model and the parameters it trains.

pub(crate) mod autoencoder;
pub(crate) mod classifier;
pub(crate) mod diffusion;
pub(crate) mod init_from;
pub(crate) mod lora;
pub(crate) mod lora_config;
pub(crate) mod losses;
pub(crate) mod preview_grid;
pub(crate) mod prompt_for;

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::{NoiseSource, Result};
use ldm_data::Batch;
use tch::Tensor;

use crate::config::SampleConfig;
use crate::latents::LatentStatistics;

/// Tensors by name.
pub type NamedTensors = Vec<(String, Tensor)>;

/// The scalar to minimize, and scalars to log. All stay on the device: their values are read in steps that are logged,
/// and in no other.
#[derive(Debug)]
pub struct Loss {
    /// The scalar to minimize.
    pub total: Tensor,
    /// Scalars to log, detached.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// One optimizer's part of a step: its own loss and forward pass, for its own parameters.
///
/// A diffusion model has one phase; a first stage with a discriminator has two, CompVis' `optimizer_idx` 0 and 1.
#[derive(Debug)]
pub struct Phase {
    /// Its name in the log where there are several: `generator`, `discriminator`.
    pub name: &'static str,
    /// The parameters it trains, by name, sorted; no other phase trains them.
    pub trainable: NamedTensors,
    /// Multiplier of the learning rate (`lr_g_factor`).
    pub lr_scale: f64,
}

impl Phase {
    /// A phase at the configured learning rate.
    pub fn new(name: &'static str, trainable: NamedTensors) -> Self {
        Self { name, trainable, lr_scale: 1. }
    }
}

/// The place of a loss in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// An index into [`Objective::phases`].
    pub phase: usize,
    /// Optimizer steps taken before this one, CompVis' `global_step`.
    pub global_step: u64,
}

/// A model under training, as the training loop sees it. It owns no optimizer and writes no file.
///
/// [`phases`](Self::phases), [`loss`](Self::loss), [`weights`](Self::weights) and [`load`](Self::load) are enough to
/// train and resume. Validation, previews, export and cached latents are traits of their own, reached by the `as_…`
/// methods.
pub trait Objective {
    /// The phases of a step, in the order they are taken.
    fn phases(&self) -> Vec<Phase>;

    /// The loss of one batch in one phase. While it runs, the parameters of the other phases require no gradient.
    /// A run resumes to the bit if everything random comes from `noise`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss>;

    /// Everything a checkpoint of the model holds, by name, sorted.
    fn weights(&self) -> NamedTensors;

    /// Loads a checkpoint of [`weights`](Self::weights), in place.
    ///
    /// # Errors
    /// When a name or a shape does not fit.
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()>;

    /// The parameters with an EMA, by name, sorted; by default all that are trained.
    fn ema_parameters(&self) -> NamedTensors {
        self.phases().into_iter().flat_map(|phase| phase.trainable).collect()
    }

    /// Checks that images of `[H, W]` fit the model.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the nearest sizes that do.
    fn check_size(&self, _size: [i64; 2]) -> Result<()> {
        Ok(())
    }

    /// Checks that a batch holds everything the model is conditioned on.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] naming what is missing; otherwise what is wrong with it.
    fn check_batch(&self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    /// Measures what a new run needs on a first batch; called once, before the first step.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        Ok(())
    }

    /// Changes gradients before an optimizer sees them; called after every backward pass.
    fn after_backward(&mut self, _phase: usize) {}

    /// Updates state other than by gradients; called once a step, after every phase's optimizer.
    fn after_step(&mut self, _noise: &mut dyn NoiseSource) {}

    /// Notes for the user, shown once: anything the config alone would not let them expect.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Validation, where the objective has one.
    fn as_validate(&self) -> Option<&dyn Validate> {
        None
    }

    /// Preview images, where the objective makes some.
    fn as_preview(&self) -> Option<&dyn Preview> {
        None
    }

    /// Export of the trained model; by default it is [`weights`](Self::weights), with the EMA in its place.
    fn as_export(&self) -> Option<&dyn Export> {
        None
    }

    /// Encoding for `train.cache_latents`, where the model can train on latents alone.
    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        None
    }
}

/// Validation metrics of an objective.
pub trait Validate {
    /// Computes metrics over held-out images, by name: `val/loss`. The EMA is in the place of the weights meanwhile.
    ///
    /// # Errors
    /// When an image cannot be read.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>>;
}

/// Preview images of a model under training.
pub trait Preview {
    /// Renders one image `[3, H, W]` in `[-1, 1]`: samples, or reconstructions of `batch`, which is held-out. The EMA is
    /// in the place of the weights meanwhile.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn preview(&self, batch: &Batch, config: &SampleConfig) -> Result<Tensor>;
}

/// Export of a trained model.
pub trait Export {
    /// The model to export; `ema` replaces the parameters of its names.
    ///
    /// # Errors
    /// When the model has no exported form.
    fn export(&self, ema: &[(String, Tensor)]) -> Result<Exported>;

    /// Statistics of a first stage's latents over these images, for the diffusion model that will use it.
    ///
    /// # Errors
    /// When an image cannot be read.
    fn latent_statistics(
        &self,
        _batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Option<LatentStatistics>> {
        Ok(None)
    }
}

/// An encoder whose output can be cached in place of the images.
pub trait LatentEncoder {
    /// The moments of the latents of images `[B, 3, H, W]`: mean and log-variance along the channels, `[B, 2C, h, w]`, or
    /// `[B, C, h, w]` where the latent is deterministic.
    fn latent_moments(&self, images: &Tensor) -> Tensor;

    /// The weights that the moments depend on, by the names of a diffusion model (`first_stage_model.…`), sorted.
    fn encoder_weights(&self) -> NamedTensors;
}

/// An exported model.
#[derive(Debug)]
pub enum Exported {
    /// The model's weights; those with an EMA are replaced by it.
    Model(NamedTensors),
    /// A LoRA file, without its base model.
    Lora {
        /// By the names of the file.
        tensors: NamedTensors,
        /// Metadata of the file.
        metadata: BTreeMap<String, String>,
    },
}

/// The variables that require gradients.
pub(crate) fn with_gradients(variables: NamedTensors) -> NamedTensors {
    variables.into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
}

/// The variables whose names start with one of `prefixes`, sorted.
pub(crate) fn variables(vs: &tch::nn::VarStore, prefixes: &[&str]) -> NamedTensors {
    let mut found: NamedTensors = vs
        .variables()
        .into_iter()
        .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The same tensors, not copied.
pub(crate) fn shallow(tensors: &[(String, Tensor)]) -> NamedTensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}
