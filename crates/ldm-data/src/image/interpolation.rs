//! Interpolations.

use serde::{Deserialize, Serialize};

/// Interpolation of a resize. The first six names and results are PIL's, antialiased; the names that begin with `cv_`
/// are OpenCV's, of which only `cv_area` is antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest pixel; not antialiased.
    Nearest,
    /// The mean over the area of a pixel.
    Box,
    /// A triangle.
    #[serde(alias = "linear")]
    Bilinear,
    /// A raised cosine, as sharp as bilinear and less uneven.
    Hamming,
    /// A cubic with a = -0.5, as Catmull-Rom.
    #[default]
    Bicubic,
    /// A windowed sinc of three lobes.
    Lanczos,
    /// `INTER_NEAREST`: the pixel at the position rounded down.
    CvNearest,
    /// `INTER_LINEAR`.
    CvBilinear,
    /// `INTER_CUBIC`: a cubic with a = -0.75.
    CvBicubic,
    /// `INTER_AREA`: the mean over the area of a pixel; linear for enlargement.
    CvArea,
    /// `INTER_LANCZOS4`: a windowed sinc of four lobes.
    CvLanczos,
}

/// OpenCV's interpolations, by its own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenCv {
    Nearest,
    Linear,
    Cubic,
    Area,
    Lanczos4,
}

impl Interpolation {
    /// The corresponding interpolation of OpenCV, for the names `cv_…`.
    pub(crate) fn opencv(self) -> Option<OpenCv> {
        Some(match self {
            Self::CvNearest => OpenCv::Nearest,
            Self::CvBilinear => OpenCv::Linear,
            Self::CvBicubic => OpenCv::Cubic,
            Self::CvArea => OpenCv::Area,
            Self::CvLanczos => OpenCv::Lanczos4,
            _ => return None,
        })
    }
}
