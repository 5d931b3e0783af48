//! `lossconfig` of a first stage.

use ldm_autoencoder::FirstStageConfig;
use ldm_core::{Error, Result};
use serde::Deserialize;

use super::adversarial_config::AdversarialLoss;

/// A first-stage loss and its parameters: the tree `{target, params}`, by CompVis' names or ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", content = "params", deny_unknown_fields)]
pub enum LossConfig {
    /// Pixels and the latent's regularization, without perceptual and adversarial terms.
    #[serde(rename = "reconstruction")]
    Reconstruction(ReconstructionLoss),
    /// Pixels, LPIPS, a discriminator, and the KL term: sums over an image.
    #[serde(
        rename = "lpips_with_discriminator",
        alias = "ldm.modules.losses.LPIPSWithDiscriminator",
        alias = "ldm.modules.losses.contperceptual.LPIPSWithDiscriminator"
    )]
    Kl(AdversarialLoss),
    /// Pixels, LPIPS, a discriminator, and the codebook loss: means.
    #[serde(
        rename = "vq_lpips_with_discriminator",
        alias = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
        alias = "ldm.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"
    )]
    Vq(AdversarialLoss),
    /// No loss, as in inference configs; training uses [`ReconstructionLoss::default`].
    #[serde(
        rename = "none",
        alias = "torch.nn.Identity",
        alias = "taming.modules.losses.DummyLoss",
        alias = "taming.modules.losses.vqperceptual.DummyLoss",
        alias = "ldm.modules.losses.contperceptual.DummyLoss"
    )]
    None,
}

/// Reconstruction plus the latent's regularization.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconstructionLoss {
    /// The error of a pixel.
    pub pixel_loss: PixelLoss,
    /// Weight of the KL term, on sums over a sample as in CompVis (KL first stages).
    pub kl_weight: f64,
    /// Weight of the codebook and commitment terms (VQ first stages).
    pub codebook_weight: f64,
}

impl Default for ReconstructionLoss {
    fn default() -> Self {
        Self { pixel_loss: PixelLoss::L1, kl_weight: 1e-6, codebook_weight: 1. }
    }
}

impl ReconstructionLoss {
    /// Checks the values. The message of an error begins with the key.
    fn check(&self) -> std::result::Result<(), String> {
        for (key, value) in [("kl_weight", self.kl_weight), ("codebook_weight", self.codebook_weight)] {
            if !(value.is_finite() && value >= 0.) {
                return Err(format!("`{key}`: expected at least 0, got {value}"));
            }
        }
        Ok(())
    }
}

/// The error of a pixel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelLoss {
    /// Absolute difference, as in CompVis.
    #[default]
    L1,
    /// Squared difference.
    L2,
}

impl PixelLoss {
    /// The error of each element.
    pub(crate) fn of(self, difference: &tch::Tensor) -> tch::Tensor {
        match self {
            Self::L1 => difference.abs(),
            Self::L2 => difference.square(),
        }
    }
}

impl LossConfig {
    /// Channels of the discriminator's condition, if it has one, for images of `channels`.
    pub(crate) fn condition_channels(&self, channels: i64) -> Option<i64> {
        match self {
            Self::Kl(loss) | Self::Vq(loss) => loss.condition_channels(channels),
            Self::Reconstruction(_) | Self::None => None,
        }
    }

    /// Reads the `lossconfig` of `config` and checks it against the model; [`LossConfig::None`] if absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] with an unknown or invalid key, or when the loss is for another kind of model.
    pub fn of(config: &FirstStageConfig) -> Result<Self> {
        let (given, net) = match config {
            FirstStageConfig::Kl(config) => (&config.lossconfig, &config.ddconfig),
            FirstStageConfig::Vq(config) => (&config.lossconfig, &config.ddconfig),
            FirstStageConfig::Identity(_) => {
                return Err(Error::invalid(
                    "model.target: expected a first stage with weights, got identity",
                ));
            }
        };
        let Some(given) = given else { return Ok(Self::None) };
        let refuse = |message: String| Error::invalid(format!("lossconfig: {message}"));
        let loss: Self = serde_yaml::from_value(given.clone()).map_err(|error| refuse(error.to_string()))?;
        let checked = match (&loss, config) {
            (Self::Kl(adversarial), FirstStageConfig::Kl(_)) => adversarial.check(net, None),
            (Self::Vq(adversarial), FirstStageConfig::Vq(vq)) => adversarial.check(net, Some(vq)),
            (Self::Kl(_), _) => {
                Err("target: expected the loss of a vq first stage, got lpips_with_discriminator".into())
            }
            (Self::Vq(_), _) => {
                Err("target: expected the loss of a kl first stage, got vq_lpips_with_discriminator".into())
            }
            (Self::Reconstruction(loss), _) => loss.check(),
            (Self::None, _) => Ok(()),
        };
        checked.map_err(refuse)?;
        Ok(loss)
    }
}
