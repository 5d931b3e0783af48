//! Training both stages of latent diffusion models, resumable to the bit.
//!
//! A [`RunConfig`] (the file a person writes) becomes an [`Objective`] (what is minimized: a first stage's
//! reconstruction, a diffusion model's denoising, or the class of noisy latents), a loader, an [`AdamW`] and an [`Ema`]; the [`Trainer`] is the
//! loop over them, and the [`RunDir`] the only code that knows where things lie on disk.
//!
//! What step *n* draws depends on `(seed, n)` alone, the loader starts at any batch, and a checkpoint holds every
//! state: a run that was stopped and resumed ends with the bits of one that was not.

mod autoencoder;
mod cache_latents;
mod classifier;
mod config;
mod config_paths;
mod data_section;
mod diffusion;
mod distributed;
mod ema;
mod event;
mod event_file;
mod first_stage_loss;
mod init_from;
mod latent_cache;
mod latent_statistics;
mod latent_views;
mod latents;
mod learning_rate;
mod lora;
mod lora_config;
mod loss_scale;
mod loss_weight;
mod meter;
mod non_finite_guard;
mod objective;
mod optimizer;
mod parts;
mod preview;
mod prompt_for;
mod retention;
mod run_dir;
mod state;
mod trainer;

pub use autoencoder::AutoencoderObjective;
pub use cache_latents::CacheLatents;
pub use classifier::ClassifierObjective;
pub use config::{DataConfig, DataModule, Dtype, RunConfig, SampleConfig, TrainConfig};
pub use diffusion::{DiffusionObjective, DiffusionTraining};
pub use distributed::Distributed;
pub use ema::{Ema, EmaConfig};
pub use event::{Event, Finished};
pub use first_stage_loss::{
    AdversarialLoss, CriticLoss, Discriminator, DiscriminatorConfig, LossConfig, PerceptualLoss, PixelLoss,
    ReconstructionLoss,
};
pub use init_from::InitFrom;
pub use latent_cache::{LatentCache, MadeOf};
pub use latent_statistics::LatentStatistics;
pub use latent_views::Views;
pub use learning_rate::LearningRate;
pub use lora::LoraObjective;
pub use lora_config::{LoraConfig, LoraTarget};
pub use loss_scale::LossScale;
pub use loss_weight::{DiffusionLoss, min_snr_weights};
pub use objective::{Exported, Loss, Objective, Phase, StepInfo};
pub use optimizer::{AdamW, AdamWConfig, found_inf};
pub use prompt_for::prompt_for;
pub use retention::{BestMode, KeepBest, Retention};
pub use run_dir::RunDir;
pub use state::TrainState;
pub use trainer::Trainer;
