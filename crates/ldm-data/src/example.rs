//! One image with its labels.

use ldm_core::LayoutBox;

/// One image with its labels: plain data, made in any thread.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// `[C, H, W]` values in `[-1, 1]`; empty where a latent replaces them.
    pub image: Vec<f32>,
    /// `[C, H, W]`; `C` is 3.
    pub size: [usize; 3],
    /// Class, an index into [`crate::Dataset::classes`].
    pub class: Option<i64>,
    /// Caption.
    pub caption: Option<String>,
    /// Labeled boxes, relative to the image, or to the whole image before the crop with `encode_crop`.
    pub boxes: Vec<LayoutBox>,
    /// Makes `boxes` relative to the image before the crop, and `crop` part of the condition.
    pub encode_crop: bool,
    /// `[x0, y0, width, height]` of the crop, relative to the whole image; flipped where the image is.
    pub crop: [f64; 4],
    /// `[H, W]` labels of the pixels; 0 is the background.
    pub label_map: Option<Vec<u8>>,
    /// Latent of an encoder, in place of the image.
    pub latent: Option<Latent>,
    /// Condition made of the image.
    pub condition: Option<Condition>,
    /// Embeddings of the image's nearest neighbors, nearest first: `[k, D]`, all of one `D`.
    pub neighbors: Option<Vec<Vec<f32>>>,
    /// Name: a relative file name, or a number.
    pub name: String,
}

impl Example {
    /// Creates an example of an image alone, without labels and without a name.
    ///
    /// # Shapes
    /// - `image`: `[C, H, W]` values in `[-1, 1]`, of the shape `size`; `C` is 3
    pub fn new(image: Vec<f32>, size: [usize; 3]) -> Self {
        Self {
            image,
            size,
            class: None,
            caption: None,
            boxes: Vec::new(),
            encode_crop: false,
            crop: [0., 0., 1., 1.],
            label_map: None,
            latent: None,
            condition: None,
            neighbors: None,
            name: String::new(),
        }
    }
}

/// Latent of an image: a sample, or mean and log-variance concatenated on the channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// `[C, h, w]` values, or `[2C, h, w]`.
    pub values: Vec<f32>,
    /// Shape of `values`.
    pub size: [usize; 3],
}

/// Condition made of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The image at low resolution.
    LowResolution {
        /// `[C, h, w]` values in `[-1, 1]`.
        image: Vec<f32>,
        /// `[C, h, w]`; `C` is 3.
        size: [usize; 3],
    },
    /// A mask for inpainting.
    MaskInput {
        /// `[H, W]` of 0 and 1; 1 is filled in.
        mask: Vec<u8>,
    },
    /// The label map, one-hot.
    OneHot {
        /// Number of labels `K`.
        labels: usize,
    },
}

impl Condition {
    /// The word for it in errors.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::LowResolution { .. } => "small image",
            Self::MaskInput { .. } => "mask",
            Self::OneHot { .. } => "label map",
        }
    }
}

/// Converts interleaved 8-bit pixels into planes in `[-1, 1]`.
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
