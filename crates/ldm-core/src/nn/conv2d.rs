//! A 2-D convolution, and its fusion with the norm before it and the sums after it.

use ldm_libtorch::kernels::{FusedConv, PreparedConv3x3};
use tch::Tensor;
use tch::nn::Module;

use super::{GroupNorm, add};

/// A 2-D convolution; parameters `weight` `[K, C, k, k]` and, optionally, `bias` `[K]`.
///
/// On the CPU in f32 without gradients, large 3x3 convolutions of channels_last maps are those of `ldm-kernels`; all
/// others are libtorch's.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    prepared: PreparedConv3x3,
}

/// Additions to a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct Added<'a> {
    /// `[B, K]`, to each image: a time embedding.
    pub to_image: Option<&'a Tensor>,
    /// `[B, K, h, w]`: the input of a residual block.
    pub residual: Option<&'a Tensor>,
}

impl Conv2d {
    /// A convolution of given parameters.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: i64, padding: i64) -> Self {
        Self { weight, bias, stride, padding, prepared: PreparedConv3x3::default() }
    }

    /// `[K, C, k, k]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[K]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The convolution of silu(norm(x)), plus what is added: half of a residual block.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`
    /// - returns `[B, K, h', w']`
    pub fn normed(&self, norm: &GroupNorm, x: &Tensor, added: Added<'_>) -> Tensor {
        if self.is_same_3x3()
            && self.prepared.takes(x, &self.weight)
            && let Some(scale_shift) = norm.scale_shift(x)
        {
            let Added { to_image, residual } = added;
            let fused = FusedConv { norm: Some(&scale_shift), image_bias: to_image, residual };
            if let Some(y) = self.prepared.forward(x, &self.weight, self.bias.as_ref(), fused) {
                return y;
            }
        }
        self.plus(&norm.forward_silu(x), added)
    }

    /// The convolution of `x`, plus what is added.
    pub fn plus(&self, x: &Tensor, added: Added<'_>) -> Tensor {
        let Added { to_image, residual } = added;
        if self.is_same_3x3() {
            let fused = FusedConv { norm: None, image_bias: to_image, residual };
            if let Some(y) = self.prepared.forward(x, &self.weight, self.bias.as_ref(), fused) {
                return y;
            }
        }
        let bias = self.bias.as_ref();
        let mut y = x.conv2d(&self.weight, bias, [self.stride; 2], [self.padding; 2], [1, 1], 1);
        if let Some(bias) = to_image {
            y = &y + bias.unsqueeze(-1).unsqueeze(-1); // under autocast the dtypes may differ
        }
        match residual {
            Some(residual) => add(y, residual),
            None => y,
        }
    }

    /// Returns whether this is a 3x3 convolution that keeps the size of its input.
    fn is_same_3x3(&self) -> bool {
        self.weight.size()[2..] == [3, 3] && (self.stride, self.padding) == (1, 1)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.plus(x, Added::default())
    }
}
