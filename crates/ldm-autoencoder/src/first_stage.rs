//! The interface between a diffusion model and its first stage.

use std::fmt::Debug;

use ldm_core::{Result, Tiles, check_multiple};
use tch::Tensor;

use crate::posterior::Posterior;

/// An encoder of images into latents, and its decoder. Neither scales; the diffusion model owns the scale factor.
pub trait FirstStage: Debug + Send {
    /// Encodes an image: a distribution over latents (`kl`), or the point before quantization (`vq`).
    ///
    /// # Shapes
    /// - `image`: `[B, C, H, W]` in `[-1, 1]`, sides divisible by [`factor`](Self::factor)
    /// - the posterior is over `[B, latent_channels, H/f, W/f]`
    fn encode(&self, image: &Tensor) -> Posterior;

    /// Decodes a latent; `vq` quantizes first, as CompVis' `VQModelInterface`.
    ///
    /// # Shapes
    /// - `z`: `[B, latent_channels, h, w]`
    /// - returns `[B, C, h·f, w·f]`, about `[-1, 1]` and not clamped
    fn decode(&self, z: &Tensor) -> Tensor;

    /// Decodes tile by tile, without seams; memory is bounded by one tile plus the image.
    fn decode_tiled(&self, z: &Tensor, tiles: &Tiles) -> Tensor;

    /// The downsampling factor f: side of the image over side of the latent.
    fn factor(&self) -> i64;

    /// Channels of the latent.
    fn latent_channels(&self) -> i64;

    /// Shape `[C, h, w]` of the latent of an `[H, W]` image.
    fn latent_size(&self, image: [i64; 2]) -> [i64; 3] {
        let factor = self.factor();
        [self.latent_channels(), image[0] / factor, image[1] / factor]
    }

    /// Checks an image's `[H, W]`: the network would silently crop to a multiple of the factor.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with the nearest valid sizes.
    fn check_image_size(&self, image: [i64; 2]) -> Result<()> {
        check_multiple("image", image, self.factor())
    }
}
