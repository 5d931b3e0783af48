//! Training both stages of latent diffusion models, resumable to the bit.
//!
//! A [`RunConfig`] (the file a person writes) becomes an [`Objective`] (what is minimized: a first stage's
//! reconstruction, a diffusion model's denoising, or the class of noisy latents), a loader, an [`AdamW`] and an [`Ema`]; the [`Trainer`] is the
//! loop over them, and the [`RunDir`] the only code that knows where things lie on disk.
//!
//! What step *n* draws depends on `(seed, n)` alone, the loader starts at any batch, and a checkpoint holds every
//! state: a run that was stopped and resumed ends with the bits of one that was not.

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
pub use objective::diffusion::{DiffusionObjective, DiffusionTraining};
pub use objective::init_from::InitFrom;
pub use objective::lora::LoraObjective;
pub use objective::lora_config::{LoraConfig, LoraTarget};
pub use objective::losses::{
    AdversarialLoss, DiffusionLoss, Discriminator, DiscriminatorConfig, DiscriminatorLoss, LossConfig,
    PerceptualLoss, PixelLoss, ReconstructionLoss, min_snr_weights,
};
pub use objective::prompt_for::prompt_for;
pub use objective::{
    Export, Exported, LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate,
};
pub use optim::{AdamW, AdamWConfig, Ema, EmaConfig, LearningRate, LossScale, found_inf};
pub use run::event::{Event, Finished};
pub use run::retention::{BestMode, KeepBest, Retention};
pub use run::run_dir::RunDir;
pub use run::state::TrainState;
pub use run::trainer::{Trainer, TrainerBuilder};
pub use train_step::{PhaseOptimizer, StepReport, TrainStep, TrainStepConfig};
