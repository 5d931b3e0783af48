//! One image and what is known of it.

use ldm_core::LayoutBox;

/// One image and what is known of it: plain data, made in any thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// `[C, H, W]` values in `[-1, 1]`; none where a latent takes their place.
    pub image: Vec<f32>,
    /// `[C, H, W]`; `C` is 3.
    pub size: [usize; 3],
    /// Its class, an index into [`crate::Dataset::classes`].
    pub class: Option<i64>,
    /// Its caption.
    pub caption: Option<String>,
    /// What is where in it; relative to it, or to the whole image where `encode_crop` says so.
    pub boxes: Vec<LayoutBox>,
    /// Whether `boxes` are relative to the whole image, and `crop` belongs to them.
    pub encode_crop: bool,
    /// `[x0, y0, width, height]`: which part of the whole image this is, relative to it; mirrored where it is.
    pub crop: [f64; 4],
    /// `[H, W]`, what each pixel shows; 0 is the background.
    pub label_map: Option<Vec<u8>>,
    /// What an encoder said of it, kept in its place.
    pub latent: Option<Latent>,
    /// The condition that is made of it.
    pub given: Option<Condition>,
    /// What to call it: a relative file name, or a number.
    pub name: String,
}

/// What an encoder said of an image: a point, or a mean and a log-variance of as many channels side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// `[C, h, w]` values, or `[2C, h, w]`.
    pub values: Vec<f32>,
    /// The shape of `values`.
    pub size: [usize; 3],
}

/// The condition that is made of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The image, smaller.
    LowResolution {
        /// `[C, h, w]` values in `[-1, 1]`.
        image: Vec<f32>,
        /// `[C, h, w]`; `C` is 3.
        size: [usize; 3],
    },
    /// A hole in it.
    MaskInput {
        /// `[H, W]` of 0 and 1; 1 is the hole.
        mask: Vec<u8>,
    },
    /// Its label map, of so many labels.
    OneHot {
        /// `K`.
        labels: usize,
    },
}

impl Condition {
    /// What it is called in an error.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::LowResolution { .. } => "small image",
            Self::MaskInput { .. } => "mask",
            Self::OneHot { .. } => "label map",
        }
    }
}

/// Interleaved 8-bit pixels as planes in `[-1, 1]`.
///
/// # Shapes
/// `[H, W, 3]` to `[3, H, W]`, each value `x / 127.5 - 1`.
pub(crate) fn to_chw(pixels: &[u8]) -> Vec<f32> {
    let mut planes = Vec::with_capacity(pixels.len());
    for channel in 0..3 {
        planes.extend(pixels.iter().skip(channel).step_by(3).map(|&value| f32::from(value) / 127.5 - 1.));
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_in_order_and_in_range() {
        assert_eq!(to_chw(&[0, 255, 51, 255, 0, 102]), [-1., 1., 1., -1., -0.6, -0.19999999]);
    }
}
