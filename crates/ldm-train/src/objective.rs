//! Training objectives: the loss of a model and the parameters it trains.

pub(crate) mod autoencoder;
pub(crate) mod batch_resize;
pub(crate) mod classifier;
pub(crate) mod consistency;
pub(crate) mod diffusion;
mod diffusion_preview;
pub(crate) mod embedding;
pub(crate) mod embedding_config;
pub(crate) mod first_stage_images;
pub(crate) mod init_from;
pub(crate) mod lora;
pub(crate) mod lora_config;
pub(crate) mod losses;
pub(crate) mod model_checks;
pub(crate) mod preview_grid;
pub(crate) mod prompt_for;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use ldm_checkpoint::Checkpoint;
use ldm_conditioning::TextualInversion;
use ldm_core::{NoiseSource, Result};
use ldm_data::Batch;
use tch::Tensor;

use crate::config::SampleConfig;
use crate::latents::LatentStatistics;

/// Tensors by name.
pub type NamedTensors = Vec<(String, Tensor)>;

/// The loss of a batch: the scalar to minimize, and scalars to log. All are 0-dimensional tensors on the device; their
/// values are read only in logged steps.
#[derive(Debug)]
pub struct Loss {
    /// The scalar to minimize.
    pub total: Tensor,
    /// Scalars to log by name, detached.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// The part of a step that belongs to one optimizer, with its own loss, forward pass and parameters.
///
/// A diffusion model has one phase; a first stage with a discriminator has two (CompVis' `optimizer_idx` 0 and 1).
#[derive(Debug)]
pub struct Phase {
    /// Its name in the log if there are several: `generator`, `discriminator`.
    pub name: &'static str,
    /// The trained parameters, by name, sorted; disjoint from those of other phases.
    pub trainable: NamedTensors,
    /// Multiplier of the learning rate (`lr_g_factor`).
    pub lr_scale: f64,
}

impl Phase {
    /// A phase at the configured learning rate (`lr_scale` 1).
    pub fn new(name: &'static str, trainable: NamedTensors) -> Self {
        Self { name, trainable, lr_scale: 1. }
    }
}

/// The phase and the step of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// An index into [`Objective::phases`].
    pub phase: usize,
    /// Optimizer steps taken before this one, CompVis' `global_step`.
    pub global_step: u64,
}

/// A model and its losses: everything the training loop needs to know. It owns no optimizer and writes no files.
///
/// [`phases`](Self::phases), [`loss`](Self::loss), [`weights`](Self::weights) and [`load`](Self::load) are enough to
/// train and resume. Validation, previews, export and cached latents are separate traits, returned by the `as_…`
/// methods.
pub trait Objective {
    /// The phases of a step, in the order they run.
    fn phases(&self) -> Vec<Phase>;

    /// Computes the loss of a micro-batch in one phase; the parameters of the other phases do not require gradients.
    /// Resume is bit-exact if all randomness comes from `noise`.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when the batch does not fit the model.
    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss>;

    /// All tensors of a checkpoint of the model, by name, sorted.
    fn weights(&self) -> NamedTensors;

    /// Loads a checkpoint of [`weights`](Self::weights), in place.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing every missing, unexpected or misshaped tensor.
    fn load(&mut self, checkpoint: Checkpoint) -> Result<()>;

    /// The parameters with an EMA, by name, sorted; by default all trained parameters.
    fn ema_parameters(&self) -> NamedTensors {
        self.phases().into_iter().flat_map(|phase| phase.trainable).collect()
    }

    /// Checks that images of `[H, W]` pixels fit the model.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the nearest sizes that fit.
    fn check_size(&self, _size: [i64; 2]) -> Result<()> {
        Ok(())
    }

    /// The least number of values of a step that are in memory at once for each image of `[H, W]` pixels, besides the image
    /// itself, by which batches that cannot fit are refused. With `cached` latents no image is encoded. 0 by default: it is not known.
    fn activations(&self, _size: [i64; 2], _cached: bool) -> i64 {
        0
    }

    /// Checks that a batch holds everything the model is conditioned on.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] with the missing condition, [`ldm_core::Error::Invalid`] with an invalid one.
    fn check_batch(&self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    /// Initializes statistics, such as the scale of the latents, from a first batch. Called once, before the first step
    /// of a new run; resumed runs load them instead.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when the batch does not fit the model.
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        Ok(())
    }

    /// Modifies gradients before the optimizer step; called after every backward pass.
    fn after_backward(&mut self, _phase: usize) {}

    /// Updates state that has no gradient; called once per step, after the optimizers of all phases.
    fn after_step(&mut self, _noise: &mut dyn NoiseSource) {}

    /// Notes for the user, shown once at the start of a run: anything that the config does not imply.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Validation metrics, if the objective has any.
    fn as_validate(&self) -> Option<&dyn Validate> {
        None
    }

    /// Preview images, if the objective renders any.
    fn as_preview(&self) -> Option<&dyn Preview> {
        None
    }

    /// Export of the trained model; by default [`weights`](Self::weights), with the EMA in place of its parameters.
    fn as_export(&self) -> Option<&dyn Export> {
        None
    }

    /// Encoder for `train.cache_latents`, if the model can train on latents alone.
    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        None
    }
}

/// Validation metrics of an objective.
pub trait Validate {
    /// Computes metrics over held-out images, by name (`val/loss`). The trainer calls it with the EMA in place of the
    /// weights.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when an image cannot be read or a batch does not fit the model.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>>;

    /// The names of the metrics, by which `train.keep_best.metric` is checked before the first step; by default none,
    /// and the first validation checks it.
    fn metrics(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// Preview images of a model under training.
pub trait Preview {
    /// Checks that the model can render images with these settings; called before the first step.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the key below `train.samples`.
    fn check(&self, _config: &SampleConfig) -> Result<()> {
        Ok(())
    }

    /// Renders one image `[C, H, W]` in `[-1, 1]`: samples, or reconstructions of the held-out `batch`. The trainer
    /// calls it with the EMA in place of the weights. Once `stop` is set, sampling ends before its next step.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when the batch does not fit the model; [`ldm_core::Error::Stopped`] if `stop` was set meanwhile.
    fn preview(&self, batch: &Batch, config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor>;
}

/// Export of a trained model.
pub trait Export {
    /// Exports the model; the tensors of `ema` replace the parameters of the same names.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when the model cannot be exported.
    fn export(&self, ema: &[(String, Tensor)]) -> Result<Exported>;

    /// Computes statistics of a first stage's latents over these images, from which a diffusion model takes its scale.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when an image cannot be read.
    fn latent_statistics(
        &self,
        _batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Option<LatentStatistics>> {
        Ok(None)
    }
}

/// An encoder whose output can be cached in place of the images.
pub trait LatentEncoder {
    /// Computes the moments of the latents of a batch's images: mean and log-variance along the channels,
    /// `[B, 2C, h, w]`, or `[B, C, h, w]` if the latent is deterministic.
    ///
    /// # Errors
    /// [`ldm_core::Error`] when the images do not fit the first stage.
    fn latent_moments(&self, batch: &Batch) -> Result<Tensor>;

    /// Weights that include those of the encoder, by their names in a diffusion model (`first_stage_model.…`), sorted;
    /// the cache fingerprints these names alone.
    fn encoder_weights(&self) -> NamedTensors;
}

/// An exported model.
#[derive(Debug)]
pub enum Exported {
    /// The model's weights; parameters with an EMA are replaced by it.
    Model(NamedTensors),
    /// A LoRA file, without its base model.
    Lora {
        /// Tensors by their names in the file.
        tensors: NamedTensors,
        /// Metadata of the file.
        metadata: BTreeMap<String, String>,
    },
    /// A learned word, without its base model.
    Embedding(TextualInversion),
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
