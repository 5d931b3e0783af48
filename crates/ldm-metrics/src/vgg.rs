//! The convolutions of VGG16.

use ldm_core::nn::{Conv2d, conv2d};
use tch::Tensor;
use tch::nn::{Module, Path};

/// A convolution: its index in torchvision's `features`, channels in, channels out.
type VggConv = (usize, i64, i64);

/// The convolutions between two poolings; a ReLU follows each.
pub(crate) const SLICES: [&[VggConv]; 5] = [
    &[(0, 3, 64), (2, 64, 64)],
    &[(5, 64, 128), (7, 128, 128)],
    &[(10, 128, 256), (12, 256, 256), (14, 256, 256)],
    &[(17, 256, 512), (19, 512, 512), (21, 512, 512)],
    &[(24, 512, 512), (26, 512, 512), (28, 512, 512)],
];

/// Channels of the five outputs.
pub(crate) const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

/// VGG16 up to relu5_3 (Simonyan & Zisserman 2015, configuration D), with outputs before each pooling and at the end.
///
/// Names are taming-transformers' (`slice1.0.weight`, …, `slice5.28.bias`): the index within `features` of
/// torchvision's VGG16, below the slice. taming-transformers `lpips.py:67` `vgg16`.
#[derive(Debug)]
pub(crate) struct Vgg16 {
    slices: Vec<Vec<Conv2d>>,
}

impl Vgg16 {
    pub(crate) fn new(vs: &Path) -> Self {
        let slice = |(slice, layers): (usize, &&[VggConv])| {
            let vs = vs / format!("slice{}", slice + 1);
            let conv = |(index, from, to): &VggConv| conv2d(&(&vs / *index), *from, *to, 3, 1, 1);
            layers.iter().map(conv).collect()
        };
        Self { slices: SLICES.iter().enumerate().map(slice).collect() }
    }

    /// Computes relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]`, sides of at least 16
    /// - returns five of `[B, C, H/s, W/s]`, C as [`CHANNELS`], s = 1, 2, 4, 8, 16
    pub(crate) fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let mut taps: Vec<Tensor> = Vec::with_capacity(self.slices.len());
        for slice in &self.slices {
            let start = match taps.last() {
                None => x.shallow_clone(),
                Some(tap) => tap.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
            };
            taps.push(slice.iter().fold(start, |h, conv| conv.forward(&h).relu()));
        }
        taps
    }
}
