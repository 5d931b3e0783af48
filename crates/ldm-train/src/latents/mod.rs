//! Latents in training.

mod encode;
mod input;
mod statistics;

pub(crate) use encode::{encoded, evenly_spaced_timesteps, latent_moments, latents};
pub(crate) use input::{input_images, one_hot};
pub use statistics::LatentStatistics;
pub(crate) use statistics::LatentSums;
