//! Latents under training.

mod encode;
mod statistics;

pub(crate) use encode::{evenly_spaced_timesteps, latents, moments};
pub use statistics::LatentStatistics;
pub(crate) use statistics::LatentSums;
