//! Small images of large ones.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::degradation::{Plan, Strength};
use crate::interpolation::Interpolation;
use crate::resize::resize;
use crate::rng::Rng;

/// How a small image is made of a large one. CompVis `ldm/data/imagenet.py:300` `ImageNetSR`; its cut is the
/// transform's: `resize: square_crop_first, crop: random_square, min_crop_f: 0.5, max_crop_f: 1, interpolation: cv_area`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperResolutionConfig {
    /// What is done to it.
    pub degradation: Degradation,
    /// How many times smaller it becomes; it divides the image's sides.
    #[serde(default = "four")]
    pub downscale_f: u32,
}

fn four() -> u32 {
    4
}

/// What is done to an image. The reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// BSRGAN's: blurs, noise and JPEG in random order (CompVis `bsrgan.py:526`).
    Bsrgan,
    /// The same, less of it (CompVis `bsrgan_light.py:534`): the published model's.
    BsrganLight,
    /// PIL's resizing, antialiased.
    PilNearest,
    /// As above.
    PilBilinear,
    /// As above; the paper's.
    PilBicubic,
    /// As above.
    PilBox,
    /// As above.
    PilHamming,
    /// As above.
    PilLanczos,
    /// OpenCV's resizing, not antialiased.
    CvNearest,
    /// As above.
    CvBilinear,
    /// As above.
    CvBicubic,
    /// OpenCV's mean over a pixel's area.
    CvArea,
    /// OpenCV's resizing, not antialiased.
    CvLanczos,
}

impl Degradation {
    /// The interpolation it is, if it is no more than one.
    fn interpolation(self) -> Result<Interpolation, Strength> {
        Ok(match self {
            Self::Bsrgan => return Err(Strength::Full),
            Self::BsrganLight => return Err(Strength::Light),
            Self::PilNearest => Interpolation::Nearest,
            Self::PilBilinear => Interpolation::Bilinear,
            Self::PilBicubic => Interpolation::Bicubic,
            Self::PilBox => Interpolation::Box,
            Self::PilHamming => Interpolation::Hamming,
            Self::PilLanczos => Interpolation::Lanczos,
            Self::CvNearest => Interpolation::CvNearest,
            Self::CvBilinear => Interpolation::CvBilinear,
            Self::CvBicubic => Interpolation::CvBicubic,
            Self::CvArea => Interpolation::CvArea,
            Self::CvLanczos => Interpolation::CvLanczos,
        })
    }
}

impl SuperResolutionConfig {
    /// Refuses what cannot be, for images of `size` a side.
    pub(crate) fn check(&self, size: Option<u32>) -> Result<(), String> {
        let factor = self.downscale_f;
        if factor == 0 {
            return Err("downscale_f must be at least 1, got 0".to_owned());
        }
        match size {
            Some(size) if size % factor != 0 => {
                Err(format!("downscale_f must divide the size of the images, got {factor} for {size}"))
            }
            _ => Ok(()),
        }
    }

    /// The small image.
    pub(crate) fn degrade(&self, image: &RgbImage, rng: &mut Rng) -> Result<RgbImage, String> {
        let (width, height) = image.dimensions();
        let factor = self.downscale_f;
        if width % factor != 0 || height % factor != 0 {
            return Err(format!("is {width}x{height}, which downscale_f {factor} does not divide"));
        }
        Ok(match self.degradation.interpolation() {
            Ok(interpolation) => resize(image, width / factor, height / factor, interpolation),
            Err(strength) => Plan::draw(strength, factor as usize, rng).apply(image),
        })
    }
}
