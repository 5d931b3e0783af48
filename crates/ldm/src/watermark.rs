//! Watermarks of saved images.

use image::RgbImage;
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

    /// The 8-bit image of one in `[-1, 1]`, with the watermark.
    ///
    /// # Shapes
    /// - `image`: `[3, H, W]`
    ///
    /// # Errors
    /// [`Error::Invalid`] for an image that is too small, if [`Always`](Self::Always).
    pub fn apply(self, image: &Tensor) -> Result<RgbImage> {
        let mut image = images::to_rgb8(image);
        if self != Self::Never {
            let done = watermark::embed(&mut image, watermark::STABLE_DIFFUSION);
            if self == Self::Always {
                done.map_err(|error| Error::invalid(format!("watermark: {error}")))?;
            }
        }
        Ok(image)
    }
}
