//! Float images, for arithmetic that would lose precision in 8 bits.

use image::RgbImage;

/// An image of three interleaved channels, in `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FloatImage {
    /// Width in pixels.
    pub(crate) width: usize,
    /// Height in pixels.
    pub(crate) height: usize,
    /// `[H, W, 3]`.
    pub(crate) values: Vec<f32>,
}

impl FloatImage {
    /// CompVis `utils_image.py:249` `uint2single`.
    pub(crate) fn of(image: &RgbImage) -> Self {
        let values = image.as_raw().iter().map(|&value| (f64::from(value) / 255.) as f32).collect();
        Self { width: image.width() as usize, height: image.height() as usize, values }
    }

    /// Clamps and rounds, halves to even. CompVis `utils_image.py:254` `single2uint`.
    pub(crate) fn to_image(&self) -> RgbImage {
        let round = |value: &f32| (value.clamp(0., 1.) * 255.).round_ties_even() as u8;
        let raw = self.values.iter().map(round).collect();
        RgbImage::from_raw(self.width as u32, self.height as u32, raw).expect("three values a pixel")
    }

    pub(crate) fn clamp(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = value.clamp(0., 1.));
        self
    }
}
