//! Kinds of images that a first stage encodes.

use ldm_core::{Error, Result, channels};
use tch::Tensor;

/// Images as a first stage takes and returns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Pixels of so many channels in `[-1, 1]`: see [`ldm_core::channels`].
    Pixels(i64),
    /// One-hot label maps of so many labels, 0 or 1: CompVis' `image_key: segmentation`.
    LabelMap(i64),
}

impl ImageKind {
    /// The value of CompVis' `image_key` for label maps.
    pub(crate) const SEGMENTATION: &'static str = "segmentation";

    /// Channels of an image.
    pub fn channels(self) -> i64 {
        match self {
            Self::Pixels(channels) | Self::LabelMap(channels) => channels,
        }
    }

    /// Returns the channels of pixels that an image file can hold.
    ///
    /// # Errors
    /// [`Error::Invalid`] for label maps, and for pixels of more channels than an image file has.
    pub fn pixels(self) -> Result<i64> {
        match self {
            Self::Pixels(channels) => channels::check("first stage", channels).map(|()| channels),
            Self::LabelMap(labels) => Err(Error::invalid(format!(
                "first stage: expected one of images, got one of maps of {labels} labels"
            ))),
        }
    }

    /// Converts images of 1 to 4 channels to those that the first stage takes ([`channels::convert`]); others, and
    /// label maps, are returned as they are.
    pub fn convert(self, images: &Tensor) -> Tensor {
        let image = |channels: i64| (1..=4).contains(&channels);
        match self {
            Self::Pixels(to) if images.dim() == 4 && image(to) && image(images.size()[1]) => {
                channels::convert(images, to)
            }
            _ => images.shallow_clone(),
        }
    }
}
