//! A latent diffusion model, and what one does with it: encode, decode, generate.
//!
//! [`LatentDiffusion`] owns a first stage, a U-Net, a conditioner and a noise schedule, built from a config and
//! loaded strictly; [`generate`] samples from it. [`Model::open`] takes what people have: a run directory, a model
//! folder, or a checkpoint file with its config. Nothing here knows that training exists.

mod config;
mod generate;
mod guided;
mod latent_diffusion;
mod open;

pub use config::{ConditioningKey, LatentDiffusionConfig, LossType, ModelConfig, ModelFile, UNetSection};
pub use generate::{Generated, Sampling, generate};
pub use guided::{Guided, Unguided};
pub use latent_diffusion::{LatentDiffusion, SCHEDULE_BUFFERS};
pub use open::{FirstStageModel, Model, weights_file};
