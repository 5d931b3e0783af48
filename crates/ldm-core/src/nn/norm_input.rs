//! A map on its way from a convolution to a norm.

use ldm_libtorch::cuda_kernels::NormExtras;
use tch::Tensor;

/// The input of a norm: the sum of a map and, on CUDA, what the norm adds itself instead of a pass of its own over the map.
#[derive(Debug)]
pub struct NormInput<'a> {
    /// `[B, C, h, w]`, or with 1 or 3 axes for its positions.
    pub(super) map: Tensor,
    /// `[C]`: the bias of the convolution that made the map.
    pub(super) bias: Option<&'a Tensor>,
    /// `[B, C]`: a time embedding.
    pub(super) to_image: Option<&'a Tensor>,
}

impl From<Tensor> for NormInput<'_> {
    /// Nothing is left to add.
    fn from(map: Tensor) -> Self {
        Self { map, bias: None, to_image: None }
    }
}

impl NormInput<'_> {
    /// The map, if nothing is left to add.
    pub fn whole(&self) -> Option<&Tensor> {
        (self.bias.is_none() && self.to_image.is_none()).then_some(&self.map)
    }

    /// The sum.
    pub(super) fn sum(&self) -> Tensor {
        let dims = self.map.dim();
        let over_pixels = |of: &Tensor| {
            let mut size = of.size();
            size.resize(dims, 1);
            of.reshape(size.as_slice()) // [B, C, 1, 1]
        };
        let mut sum = self.map.shallow_clone();
        if let Some(bias) = self.bias {
            // As in the convolution, where autocast lowers the bias.
            sum = &sum + over_pixels(&bias.unsqueeze(0).to_kind(self.map.kind()));
        }
        if let Some(to_image) = self.to_image {
            sum = &sum + over_pixels(to_image);
        }
        sum
    }

    pub(super) fn extras(&self) -> NormExtras<'_> {
        NormExtras { channel_shift: self.bias, image_shift: self.to_image, ..NormExtras::default() }
    }
}
