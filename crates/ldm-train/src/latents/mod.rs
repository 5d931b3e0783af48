//! Latents in training.

mod encode;
mod statistics;

pub(crate) use encode::{evenly_spaced_timesteps, latent_moments, latents};
pub use statistics::LatentStatistics;
pub(crate) use statistics::LatentSums;
