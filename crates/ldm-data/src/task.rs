//! What is to be learned of an image: a condition made of the image itself.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::example::{Condition, to_chw};
use crate::inpainting::{InpaintingConfig, Masks};
use crate::rng::Rng;
use crate::super_resolution::SuperResolutionConfig;

/// Which condition is made of an image.
///
/// ```yaml
/// task: { target: super_resolution, params: { degradation: bsrgan_light } }
/// task: { target: inpainting, params: { masks: { target: thick } } }
/// task: { target: semantic }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// A small image of it, in `Prompt.image`.
    SuperResolution(SuperResolutionConfig),
    /// A hole in it, in `Prompt.mask`, and the image with the hole, in `Prompt.image`.
    Inpainting(InpaintingConfig),
    /// Its label map, one-hot, in `Prompt.mask`.
    Semantic,
}

/// A checked [`TaskConfig`].
#[derive(Debug, Clone)]
pub(crate) struct Task(TaskConfig);

impl Task {
    /// Checks the config, for images of `size` a side where they are of one.
    pub(crate) fn new(config: TaskConfig, size: Option<u32>) -> Result<Self> {
        if let TaskConfig::SuperResolution(config) = &config {
            config.check(size).map_err(|message| Error::invalid(format!("task: {message}")))?;
        }
        Ok(Self(config))
    }

    /// Whether it needs files of masks.
    pub(crate) fn needs_files(&self) -> bool {
        matches!(&self.0, TaskConfig::Inpainting(InpaintingConfig { masks: Masks::Files(_) }))
    }

    /// What is given of an image; what is left to chance is drawn from `rng`. `mask` is the image's own where it has
    /// one, and `labels` how many labels its map has.
    pub(crate) fn make(
        &self,
        image: &RgbImage,
        mask: Option<Vec<u8>>,
        labels: usize,
        rng: &mut Rng,
    ) -> std::result::Result<Condition, String> {
        Ok(match &self.0 {
            TaskConfig::SuperResolution(config) => {
                let low = config.degrade(image, rng)?;
                let size = [3, low.height() as usize, low.width() as usize];
                Condition::LowResolution { image: to_chw(low.as_raw()), size }
            }
            TaskConfig::Inpainting(InpaintingConfig { masks }) => Condition::MaskInput {
                mask: mask.unwrap_or_else(|| masks.draw(image.width(), image.height(), rng)),
            },
            TaskConfig::Semantic => Condition::OneHot { labels },
        })
    }
}
