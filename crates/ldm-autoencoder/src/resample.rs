//! Downsampling and upsampling by two.

use ldm_core::nn::{Conv2d, conv2d};
use tch::Tensor;
use tch::nn::{Module, Path};

/// Halves the resolution: a 3×3 convolution of stride 2, or 2×2 average pooling.
///
/// CompVis `model.py:60`.
#[derive(Debug)]
pub(crate) struct Downsample(Option<Conv2d>);

impl Downsample {
    pub(crate) fn new(vs: &Path, channels: i64, learned: bool) -> Self {
        Self(learned.then(|| conv2d(&(vs / "conv"), channels, channels, 3, 2, 0)))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match &self.0 {
            // CompVis pads right and bottom only; symmetric padding would shift the image.
            Some(conv) => conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
            None => x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>),
        }
    }
}

/// Doubles the resolution: nearest neighbor, then a 3×3 convolution if learned.
///
/// CompVis `model.py:42`.
#[derive(Debug)]
pub(crate) struct Upsample(Option<Conv2d>);

impl Upsample {
    pub(crate) fn new(vs: &Path, channels: i64, learned: bool) -> Self {
        Self(learned.then(|| conv2d(&(vs / "conv"), channels, channels, 3, 1, 1)))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
        let x = x.upsample_nearest2d([2 * height, 2 * width], None, None);
        match &self.0 {
            Some(conv) => conv.forward(&x),
            None => x,
        }
    }
}
