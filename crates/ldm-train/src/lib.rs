//! Training of latent diffusion models, with bit-exact resume.
//!
//! A [`RunConfig`], the YAML file of `ldm train`, becomes an [`Objective`] (a first stage's reconstruction, a diffusion
//! model's denoising, or the classification of noisy latents), datasets and a [`TrainConfig`]. The [`Trainer`] is the
//! loop over [`TrainStep`]s, and the [`RunDir`] defines the layout of a run on disk.
//!
//! The noise of step *n* depends only on `(seed, n)`, the loader starts at any batch, and checkpoints hold the complete
//! state, so a stopped and resumed run is bit-identical to an uninterrupted one.
//!
//! # Custom objectives and datasets
//!
//! [`Trainer::builder`] takes any [`Objective`] and any [`ldm_data::Dataset`]. An objective has four required methods:
//!
//! ```no_run
//! use ldm_checkpoint::Checkpoint;
//! use ldm_core::{NoiseSource, Result};
//! use ldm_data::{Batch, Dataset, Example};
//! use ldm_train::{Loss, NamedTensors, Objective, Phase, StepInfo, TrainConfig, Trainer};
//! use tch::{Device, Kind, Tensor, nn};
//!
//! /// Denoises images of 8x8 pixels by one linear layer.
//! struct Denoiser { vs: nn::VarStore, weight: Tensor }
//!
//! impl Objective for Denoiser {
//!     fn phases(&self) -> Vec<Phase> {
//!         vec![Phase::new("denoiser", self.weights())]
//!     }
//!     fn loss(&self, _: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
//!         let x = batch.images.flatten(1, -1); // [B, 192]
//!         let total = ((&x + noise.like(&x)).mm(&self.weight) - x).square().mean(Kind::Float);
//!         Ok(Loss { parts: vec![("loss", total.detach())], total })
//!     }
//!     fn weights(&self) -> NamedTensors {
//!         vec![("weight".into(), self.weight.shallow_clone())]
//!     }
//!     fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
//!         checkpoint.load_into(&mut self.vs)
//!     }
//! }
//!
//! /// Horizontal waves.
//! struct Waves;
//!
//! impl Dataset for Waves {
//!     fn len(&self) -> usize { 100 }
//!     fn get(&self, index: usize, _seed: u64) -> Result<Example> {
//!         let wave = |pixel: usize| ((pixel % 8) as f32 + index as f32).sin();
//!         Ok(Example::new((0..3 * 64).map(wave).collect(), [3, 8, 8]))
//!     }
//! }
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let weight = vs.root().zeros("weight", &[192, 192]);
//! let config = TrainConfig { steps: 1000, learning_rate: Some(1e-3), ..TrainConfig::default() };
//! let mut trainer = Trainer::builder(config)
//!     .objective(Denoiser { vs, weight })
//!     .data(Waves)
//!     .batch_size(16)
//!     .run_dir("runs/waves")
//!     .build()?; // or `resume()`
//! trainer.run_to_end()?;
//! # Ok::<(), ldm_core::Error>(())
//! ```
//!
//! [`Validate`], [`Preview`], [`Export`] and [`LatentEncoder`] add validation, preview images, another exported form
//! and cached latents; an objective exposes them through its `as_…` methods.

mod config;
mod distributed;
mod latent_cache;
mod latents;
mod objective;
mod optim;
mod run;
mod train_step;

pub use config::{DataConfig, DataModule, Dtype, RunConfig, SampleConfig, TrainConfig};
pub use distributed::Distributed;
pub use latent_cache::{Augmentations, CacheFingerprint, CacheLatents, LatentCache};
pub use latents::LatentStatistics;
pub use objective::autoencoder::AutoencoderObjective;
pub use objective::classifier::ClassifierObjective;
pub use objective::consistency::ConsistencyConfig;
pub use objective::diffusion::{DiffusionObjective, DiffusionTraining};
pub use objective::embedding::EmbeddingObjective;
pub use objective::embedding_config::EmbeddingConfig;
pub use objective::init_from::InitFrom;
pub use objective::lora::LoraObjective;
pub use objective::lora_config::{LoraConfig, LoraTarget};
pub use objective::losses::{
    AdversarialLoss, DiffusionLoss, Discriminator, DiscriminatorConfig, DiscriminatorLoss, LossConfig,
    PerceptualLoss, PixelLoss, ReconstructionLoss, min_snr_weights,
};
pub use objective::model_checks::{check_classes, check_label_maps};
pub use objective::prompt_for::prompt_for;
pub use objective::{
    Export, Exported, LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate,
};
pub use optim::{
    AdamW, AdamWConfig, Ema, EmaConfig, LearningRate, LearningRateCycles, LossScale, found_inf, grad_scale,
};
pub use run::event::{Event, Finished};
pub use run::launch::{Launcher, exit_text};
pub use run::retention::{BestMode, KeepBest, Retention};
pub use run::run_dir::RunDir;
pub use run::state::TrainState;
pub use run::trainer::{Trainer, TrainerBuilder};
pub use train_step::{PhaseOptimizer, StepReport, TrainStep, TrainStepConfig};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct TrainReadme;
