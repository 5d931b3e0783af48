//! Super-resolution: low-resolution images made of the originals.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::degradation::{DegradationPlan, Strength};
use crate::image::interpolation::Interpolation;
use crate::image::resize::resize;
use crate::rng::Rng;

/// Low-resolution image made of the original. CompVis `ldm/data/imagenet.py:300` `ImageNetSR`; its crop is that of the
/// transform: `resize: square_crop_first, crop: random_square, min_crop_f: 0.5, max_crop_f: 1, interpolation: cv_area`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperResolutionConfig {
    /// Degradation of the original.
    pub degradation: Degradation,
    /// Factor of reduction; it divides the sides of the image.
    #[serde(default = "four")]
    pub downscale_f: u32,
}

fn four() -> u32 {
    4
}

/// Degradation of an image, by CompVis' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// BSRGAN's: blurs, noise and JPEG in random order (CompVis `bsrgan.py:526`).
    Bsrgan,
    /// A weaker one (CompVis `bsrgan_light.py:534`): that of the published model.
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
    /// OpenCV's mean over the area of a pixel.
    CvArea,
    /// OpenCV's resizing, not antialiased.
    CvLanczos,
}

impl Degradation {
    /// The interpolation of a degradation that consists of one.
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
    /// Refuses an invalid factor; `size` is the side of the images where all have one.
    pub(crate) fn check(&self, size: Option<u32>) -> Result<(), String> {
        let factor = self.downscale_f;
        if factor == 0 {
            return Err("downscale_f: expected at least 1, got 0".to_owned());
        }
        match size {
            Some(size) if size % factor != 0 => {
                Err(format!("downscale_f: expected a divisor of the size {size}, got {factor}"))
            }
            _ => Ok(()),
        }
    }

    /// Makes the low-resolution image.
    pub(crate) fn degrade(&self, image: &RgbImage, rng: &mut Rng) -> Result<RgbImage, String> {
        let (width, height) = image.dimensions();
        let factor = self.downscale_f;
        if width % factor != 0 || height % factor != 0 {
            return Err(format!("expected sides that downscale_f {factor} divides, got {width}x{height}"));
        }
        Ok(match self.degradation.interpolation() {
            Ok(interpolation) => resize(image, width / factor, height / factor, interpolation),
            Err(strength) => DegradationPlan::draw(strength, factor as usize, rng).apply(image),
        })
    }
}
