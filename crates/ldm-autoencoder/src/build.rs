//! A first stage from its config.

use ldm_core::Result;
use tch::nn;

use crate::autoencoder::Autoencoder;
use crate::config::FirstStageConfig;
use crate::first_stage::FirstStage;
use crate::identity::IdentityFirstStage;

/// Builds the first stage of `config` at `vs`, the parent of `encoder` (`first_stage_model` in a CompVis file).
///
/// # Errors
/// [`ldm_core::Error::Invalid`] for an invalid config; [`Io`](ldm_core::Error::Io) and
/// [`Format`](ldm_core::Error::Format) for the file of `remap`.
pub fn build(vs: &nn::Path, config: &FirstStageConfig) -> Result<Box<dyn FirstStage>> {
    match config {
        FirstStageConfig::Identity(identity) => {
            config.validate()?;
            Ok(Box::new(IdentityFirstStage::new(&identity.clone().unwrap_or_default())))
        }
        FirstStageConfig::Kl(_) | FirstStageConfig::Vq(_) => Ok(Box::new(Autoencoder::new(vs, config)?)),
    }
}
