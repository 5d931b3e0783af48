//! What a diffusion model needs of a first stage.

use std::fmt::Debug;

use ldm_core::{Error, Result, Tiles};
use tch::{Tensor, nn};

use crate::autoencoder::Autoencoder;
use crate::config::FirstStageConfig;
use crate::identity::IdentityFirstStage;
use crate::posterior::Posterior;

/// Pixels ↔ latents. `encode` and `decode` do not scale; the diffusion model owns the scale factor.
pub trait FirstStage: Debug + Send {
    /// An image's latent: a distribution (`kl`), or the point before quantization (`vq`).
    ///
    /// # Shapes
    /// - `image`: `[B, C, H, W]` in `[-1, 1]`, sides divisible by [`factor`](Self::factor)
    /// - the posterior is over `[B, latent_channels, H/f, W/f]`
    fn encode(&self, image: &Tensor) -> Posterior;

    /// A latent's image; `vq` quantizes first, as CompVis' `VQModelInterface`.
    ///
    /// # Shapes
    /// - `z`: `[B, latent_channels, h, w]`
    /// - returns `[B, C, h·f, w·f]`, about `[-1, 1]` and not clamped
    fn decode(&self, z: &Tensor) -> Tensor;

    /// [`decode`](Self::decode) in tiles of the latent, without seams, and in the memory that one of them takes beside the
    /// image.
    fn decode_tiled(&self, z: &Tensor, tiles: &Tiles) -> Tensor;

    /// How many times smaller a side of the latent is.
    fn factor(&self) -> i64;

    /// Channels of the latent.
    fn latent_channels(&self) -> i64;

    /// `[C, h, w]` of the latent of an image of `[H, W]` pixels.
    fn latent_size(&self, image: [i64; 2]) -> [i64; 3] {
        let factor = self.factor();
        [self.latent_channels(), image[0] / factor, image[1] / factor]
    }

    /// Checks an image's `[H, W]`: the network would silently cut what the factor does not divide.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the nearest sizes that can be.
    fn check_image_size(&self, image: [i64; 2]) -> Result<()> {
        let (factor, [height, width]) = (self.factor(), image);
        if image.iter().all(|side| *side > 0 && side % factor == 0) {
            return Ok(());
        }
        let below = image.map(|side| (side / factor * factor).max(factor));
        let above = image.map(|side| ((side + factor - 1) / factor * factor).max(factor));
        let nearest = if below == above {
            format!("{}x{}", below[0], below[1])
        } else {
            format!("{}x{} or {}x{}", below[0], below[1], above[0], above[1])
        };
        Err(Error::invalid(format!(
            "height and width must be multiples of {factor} for this first stage, nearest {nearest}, got: {height}x{width}"
        )))
    }
}

/// Builds the first stage that `config` names. `vs` is where `encoder` hangs (`first_stage_model` in a CompVis file).
///
/// # Errors
/// [`Error::Invalid`] for a config no model can be built from; [`Error::Io`] and [`Error::Format`] about the file of
/// `remap`.
pub fn build(vs: &nn::Path, config: &FirstStageConfig) -> Result<Box<dyn FirstStage>> {
    match config {
        FirstStageConfig::Identity(identity) => {
            config.validate()?;
            Ok(Box::new(IdentityFirstStage::new(&identity.clone().unwrap_or_default())))
        }
        FirstStageConfig::Kl(_) | FirstStageConfig::Vq(_) => Ok(Box::new(Autoencoder::new(vs, config)?)),
    }
}
