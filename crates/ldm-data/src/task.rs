//! Tasks: conditions made of the image itself.

pub(crate) mod inpainting;
pub(crate) mod super_resolution;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::example::{Condition, to_chw};
use crate::rng::Rng;
use crate::task::inpainting::{InpaintingConfig, Masks};
use crate::task::super_resolution::SuperResolutionConfig;

/// Condition made of an image.
///
/// ```yaml
/// task: { target: super_resolution, params: { degradation: bsrgan_light } }
/// task: { target: inpainting, params: { masks: { target: thick } } }
/// task: { target: semantic }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// The image at low resolution, in `Prompt.image`.
    SuperResolution(SuperResolutionConfig),
    /// A mask, in `Prompt.mask`, and the masked image, in `Prompt.image`.
    Inpainting(InpaintingConfig),
    /// The label map, one-hot, in `Prompt.mask`.
    Semantic,
}

/// A checked [`TaskConfig`].
#[derive(Debug, Clone)]
pub(crate) struct CheckedTask(TaskConfig);

impl CheckedTask {
    /// Checks the config; `size` is the side of the images where all have one.
    pub(crate) fn new(config: TaskConfig, size: Option<u32>) -> Result<Self> {
        if let TaskConfig::SuperResolution(config) = &config {
            config.check(size).map_err(|message| Error::invalid(format!("task: {message}")))?;
        }
        Ok(Self(config))
    }

    /// Returns true when it needs mask files.
    pub(crate) fn needs_files(&self) -> bool {
        matches!(&self.0, TaskConfig::Inpainting(InpaintingConfig { masks: Masks::Files(_) }))
    }

    /// Makes the condition of an image; random choices come from `rng`. `mask` is the image's own where it has one, and
    /// `labels` the number of labels of its map.
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
