//! Watermarks of saved images.

use image::DynamicImage;
use ldm_core::{Error, Result, image as images};
use ldm_pipelines::{ConditioningKind, LatentDiffusion, watermark};
use tch::Tensor;

/// Stable Diffusion's invisible watermark in saved images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    /// In every image; an image that is too small for it is an error.
    Always,
    /// In images that are large enough for it.
    WherePossible,
    /// In none.
    Never,
}

impl Watermark {
    /// The watermark of text-to-image by default: as in CompVis' script, for Stable Diffusion alone.
    pub fn of_txt2img(model: &LatentDiffusion) -> Self {
        let text = ConditioningKind::of(&model.config) == ConditioningKind::Text;
        if text && model.config.clip() { Self::WherePossible } else { Self::Never }
    }

    /// The 8-bit image of one in `[-1, 1]`, with the watermark. The watermark is in the colors, so an image with it is
    /// RGB; gray images and images with alpha have none [where possible](Self::WherePossible).
    ///
    /// # Shapes
    /// - `image`: `[C, H, W]` of 1 to 4 channels
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image that is too small, if [`Always`](Self::Always).
    pub fn apply(self, image: &Tensor) -> Result<DynamicImage> {
        let plain = image.size()[0] != 3 && self != Self::Always;
        if plain || self == Self::Never {
            return Ok(images::to_8bit(image));
        }
        let mut image = images::to_rgb8(image);
        let done = watermark::embed(&mut image, watermark::STABLE_DIFFUSION);
        if self == Self::Always {
            done.map_err(|error| Error::invalid(format!("watermark: {error}")))?;
        }
        Ok(image.into())
    }
}
