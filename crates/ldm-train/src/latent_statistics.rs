//! What a first stage's file says of its latents.

use ldm_core::weights::Checkpoint;
use ldm_core::{Error, Result};
use serde::Deserialize;

/// The metadata entry they are kept in, as JSON.
const ENTRY: &str = "latent_statistics";

/// Mean and spread of the unscaled latents that a first stage makes of the pictures it was trained on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentStatistics {
    /// The mean of each channel.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel.
    pub std: Vec<f64>,
    /// The standard deviation of all channels together.
    pub overall_std: f64,
}

impl LatentStatistics {
    /// Those in a checkpoint's metadata, where it has any.
    ///
    /// # Errors
    /// [`Error::Format`] when the entry cannot be read, when it is of another number of channels, and when
    /// `overall_std` is not positive.
    pub fn of(checkpoint: &Checkpoint, channels: i64) -> Result<Option<Self>> {
        let Some(text) = checkpoint.metadata().get(ENTRY) else { return Ok(None) };
        let wrong =
            |message: String| Error::format(checkpoint.path(), format!("metadata `{ENTRY}`: {message}"));
        let found: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for (key, list) in [("mean", &found.mean), ("std", &found.std)] {
            if list.len() as i64 != channels {
                return Err(wrong(format!("{key}: expected {channels} channels, got {}", list.len())));
            }
        }
        if !(found.overall_std.is_finite() && found.overall_std > 0.) {
            return Err(wrong(format!("overall_std: expected a positive number, got {}", found.overall_std)));
        }
        Ok(Some(found))
    }
}
