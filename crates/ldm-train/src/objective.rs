//! What is minimized.

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
use ldm_pipelines::ModelSource;
use tch::Tensor;

use crate::config::SampleConfig;
use crate::latents::LatentStatistics;
use crate::objective::init_from::InitFrom;

/// The scalar to minimize, and numbers to log by name. The parts stay on the device: nobody reads a value in a step
/// that is not logged.
#[derive(Debug)]
pub struct Loss {
    /// The scalar to minimize.
    pub total: Tensor,
    /// Scalars to log.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// One optimizer's part in a step: a loss of its own, for parameters of its own, by a forward pass of its own.
///
/// A diffusion model has one phase; a first stage that is trained against a discriminator has two, as the reference's
/// `optimizer_idx` 0 and 1.
#[derive(Debug)]
pub struct Phase {
    /// Its name in the log where there are several: `generator`, `discriminator`.
    pub name: &'static str,
    /// The parameters it trains, by name, sorted; no other phase trains them.
    pub trainable: Vec<(String, Tensor)>,
    /// Multiplier of the learning rate (`lr_g_factor`).
    pub rate: f64,
}

/// Where in a run a loss is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// Which of [`Objective::phases`].
    pub phase: usize,
    /// Optimizer steps taken before this one, CompVis' `global_step`.
    pub step: u64,
}

/// What one hands on of a run.
#[derive(Debug)]
pub enum Exported {
    /// The model's weights; those that have an average give it their place.
    Model(Vec<(String, Tensor)>),
    /// A LoRA's file; the model it changes is not handed on.
    Lora {
        /// By the names of the file.
        tensors: Vec<(String, Tensor)>,
        /// What the file says beside them.
        metadata: BTreeMap<String, String>,
    },
}

/// A model under training, seen by the loop. Owns no optimizer, writes no file.
pub trait Objective {
    /// Whether images of `[H, W]` fit the model.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the nearest sizes that do.
    fn check_size(&self, size: [i64; 2]) -> Result<()>;

    /// Whether a batch holds what the model is prompt_for of its images.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] naming what is not there; whatever is wrong with what is.
    fn check_batch(&self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    /// Once, before the first step of a new run: what must be measured on the first batch.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn prepare(&mut self, first: &Batch, noise: &mut dyn NoiseSource) -> Result<()>;

    /// What the model trains on in an image's place, of images `[B, 3, H, W]`, so that it can be kept: a latent's
    /// mean and log-variance side by side, `[B, 2C, h, w]`, or `[B, C, h, w]` where there is no evenly_spaced_timesteps. None where
    /// the model needs the image.
    fn moments(&self, _images: &Tensor) -> Option<Tensor> {
        None
    }

    /// The weights that [`Objective::moments`] come from, among others, by the names of a diffusion model
    /// (`first_stage_model.…`), sorted.
    fn encoder(&self) -> Vec<(String, Tensor)> {
        self.weights()
    }

    /// The parts of a step, in the order they are taken.
    fn phases(&self) -> Vec<Phase>;

    /// The loss of one batch in one phase. While it runs, the parameters of the other phases take no gradient.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn loss(&self, moment: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss>;

    /// After every backward pass of a phase: what is made of gradients before an optimizer sees them.
    fn after_backward(&mut self, _turn: usize) {}

    /// Once a step, when every phase's optimizer has moved: what a model does with its state beside gradients.
    fn after_step(&mut self, _noise: &mut dyn NoiseSource) {}

    /// The parameters the running average covers, by name, sorted.
    fn ema_parameters(&self) -> Vec<(String, Tensor)>;

    /// Everything a checkpoint of the model holds, by CompVis' names, sorted.
    fn weights(&self) -> Vec<(String, Tensor)>;

    /// Sentences for the person who trains, to be shown once: what is not as the config alone would let them expect.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Of a first stage: how its latents are evenly_spaced_timesteps over these images, for the diffusion model that will stand on it.
    ///
    /// # Errors
    /// When an image cannot be read.
    fn latent_statistics(
        &self,
        _batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Option<LatentStatistics>> {
        Ok(None)
    }

    /// Takes over what [`Objective::weights`] gave.
    ///
    /// # Errors
    /// When a name or a shape does not fit.
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()>;

    /// Starts a new run from the weights of `source` in the place of fresh ones, as far as `from` says.
    ///
    /// # Errors
    /// When it is another kind of model, and [`ldm_core::Error::Weights`] listing what does not fit.
    fn start_from(&mut self, source: ModelSource, from: &InitFrom) -> Result<()>;

    /// What one hands on; `averages` stand for the parameters of their names.
    ///
    /// # Errors
    /// When it has no form in which it could be.
    fn export(&self, _averages: &[(String, Tensor)]) -> Result<Exported> {
        Ok(Exported::Model(self.weights()))
    }

    /// Numbers that tell how good the model is, over held-back images.
    ///
    /// # Errors
    /// When an image cannot be read.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>>;

    /// One image `[3, H, W]` in `[-1, 1]` that shows how far the model is; `batch` are held-back images.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn preview(&self, batch: &Batch, config: &SampleConfig) -> Result<Tensor>;
}

/// Those of `variables` that take gradients.
pub(crate) fn with_gradients(variables: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    variables.into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
}

/// The variables whose names start with one of `prefixes`, sorted.
pub(crate) fn variables(vs: &tch::nn::VarStore, prefixes: &[&str]) -> Vec<(String, Tensor)> {
    let mut found: Vec<(String, Tensor)> = vs
        .variables()
        .into_iter()
        .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}
