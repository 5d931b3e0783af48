//! Training both stages of latent diffusion models, resumable to the bit.
//!
//! A [`RunConfig`] (the file a person writes) becomes an [`Objective`] (what is minimised: a first stage's
//! reconstruction or a diffusion model's denoising), a loader, an [`AdamW`] and an [`Ema`]; the [`Trainer`] is the
//! loop over them, and the [`RunDir`] the only code that knows where things lie on disk.
//!
//! What step *n* draws depends on `(seed, n)` alone, the loader starts at any batch, and a checkpoint holds every
//! state: a run that was stopped and resumed ends with the bits of one that was not.

mod autoencoder;
mod config;
mod diffusion;
mod ema;
mod event;
mod learning_rate;
mod meter;
mod objective;
mod optimizer;
mod parts;
mod preview;
mod ranks;
mod run_dir;
mod state;
mod trainer;

pub use autoencoder::AutoencoderObjective;
pub use config::{
    DataConfig, DataModule, Dtype, EmaConfig, LossConfig, PixelLoss, ReconstructionLoss, RunConfig,
    SampleConfig, TrainConfig,
};
pub use diffusion::DiffusionObjective;
pub use ema::Ema;
pub use event::{Event, Finished};
pub use learning_rate::LearningRate;
pub use objective::{Loss, Moment, Objective, Turn};
pub use optimizer::{AdamW, AdamWConfig};
pub use ranks::Ranks;
pub use run_dir::RunDir;
pub use state::TrainState;
pub use trainer::Trainer;
