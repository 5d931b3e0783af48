//! The interface between a diffusion model and its first stage.

use std::fmt::Debug;

use ldm_core::{Error, Result, Tiles, channels, check_multiple};
use tch::Tensor;

use crate::codebook::Codebook;
use crate::image_kind::ImageKind;
use crate::posterior::Posterior;

/// An encoder of images into latents, and its decoder. Neither scales; the diffusion model owns the scale factor.
pub trait FirstStage: Debug + Send {
    /// Encodes an image: a distribution over latents (`kl`), or the point before quantization (`vq`).
    ///
    /// # Shapes
    /// - `image`: `[B, C, H, W]` in `[-1, 1]`, sides divisible by [`factor`](Self::factor)
    /// - the posterior is over `[B, latent_channels, H/f, W/f]`
    fn encode(&self, image: &Tensor) -> Posterior;

    /// Encodes tile by tile; memory is bounded by one tile plus the latent. Every tile has norm statistics of its own, and
    /// the moments of neighbors are blended.
    ///
    /// # Shapes
    /// - as [`encode`](Self::encode); `tiles` are tiles of the latent
    ///
    /// CompVis `ddpm.py:826` `encode_first_stage` with `split_input_params`.
    fn encode_tiled(&self, image: &Tensor, tiles: &Tiles) -> Posterior;

    /// Decodes a latent; `vq` quantizes first, as CompVis' `VQModelInterface`.
    ///
    /// # Shapes
    /// - `z`: `[B, latent_channels, h, w]`
    /// - returns `[B, C, h·f, w·f]`, about `[-1, 1]` and not clamped
    fn decode(&self, z: &Tensor) -> Tensor;

    /// Decodes tile by tile, without seams; memory is bounded by one tile plus the image.
    fn decode_tiled(&self, z: &Tensor, tiles: &Tiles) -> Tensor;

    /// The codebook of a VQ first stage.
    fn codebook(&self) -> Option<&Codebook> {
        None
    }

    /// Decodes a latent without quantizing it: CompVis' `force_not_quantize`.
    ///
    /// # Shapes
    /// - as [`decode`](Self::decode)
    fn decode_unquantized(&self, z: &Tensor) -> Tensor {
        self.decode(z)
    }

    /// Images that it encodes.
    fn input(&self) -> ImageKind;

    /// Channels of decoded images.
    fn output_channels(&self) -> i64;

    /// Shows decoded images as images of 1 to 4 channels: label maps in colors, anything else unchanged.
    ///
    /// # Shapes
    /// - `images`: `[B, output_channels, H, W]`
    fn shown(&self, images: &Tensor) -> Tensor {
        match self.input() {
            ImageKind::Pixels(_) => images.shallow_clone(),
            ImageKind::LabelMap(_) => channels::label_colors(images),
        }
    }

    /// Checks that decoded images can be [shown](Self::shown) and written.
    ///
    /// # Errors
    /// [`Error::Invalid`] for pixels of more channels than an image file has.
    fn check_shown(&self) -> Result<()> {
        match self.input() {
            ImageKind::Pixels(_) => channels::check("out_ch", self.output_channels()),
            ImageKind::LabelMap(_) => Ok(()),
        }
    }

    /// Checks that images and their reconstructions have the same channels, so that they can be compared.
    ///
    /// # Errors
    /// [`Error::Invalid`] with both numbers.
    fn check_reconstructs(&self) -> Result<()> {
        let (taken, made) = (self.input().channels(), self.output_channels());
        if taken == made {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "first stage: expected as many decoded channels as it encodes, {taken}, got {made}"
        )))
    }

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
