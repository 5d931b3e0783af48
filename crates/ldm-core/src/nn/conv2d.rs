//! A 2-D convolution, and its fusion with the norm before it and the sums after it.

use ldm_libtorch::cuda_kernels::{self, BiasExtras};
use ldm_libtorch::kernels::{self, FusedConv, LinearTensors};
use tch::Tensor;
use tch::nn::Module;

use super::{GroupNorm, NormInput, add};

/// A 2-D convolution; parameters `weight` `[K, C, k, k]` and, optionally, `bias` `[K]`.
///
/// On the CPU without gradients, 3x3 convolutions of stride 1 of channels_last maps in f32 and (without AMX) bf16, and 1x1
/// convolutions in f32, are those of `ldm-kernels`; all others are libtorch's. On CUDA its sums are those of
/// `ldm_libtorch::cuda_kernels`, or the next norm's.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
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
        Self { weight, bias, stride, padding }
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
            && !cuda_kernels::serves(x)
            && kernels::takes_conv3x3(x, &self.weight)
            && let Some(scale_shift) = norm.scale_shift(x)
        {
            let Added { to_image, residual } = added;
            let fused = FusedConv { norm: Some(&scale_shift), image_bias: to_image, residual };
            if let Some(y) = kernels::conv3x3(x, &self.weight, self.bias.as_ref(), fused) {
                return y;
            }
        }
        self.plus(&norm.forward_silu(x), added)
    }

    /// [`normed`](Self::normed) of a sum.
    pub fn normed_sum(&self, norm: &GroupNorm, x: &NormInput<'_>, added: Added<'_>) -> Tensor {
        match x.whole() {
            Some(x) => self.normed(norm, x, added),
            None => self.plus(&norm.forward_silu_of(x, None), added),
        }
    }

    /// The convolution of silu(norm(x)), plus `to_image`, for another norm.
    pub fn normed_to_norm<'a>(
        &'a self,
        norm: &GroupNorm,
        x: &Tensor,
        to_image: Option<&'a Tensor>,
    ) -> NormInput<'a> {
        if cuda_kernels::serves(x) {
            return self.to_norm(&norm.forward_silu(x), to_image);
        }
        self.normed(norm, x, Added { to_image, residual: None }).into()
    }

    /// The convolution of `x`, plus `to_image`, for a norm.
    pub fn to_norm<'a>(&'a self, x: &Tensor, to_image: Option<&'a Tensor>) -> NormInput<'a> {
        if cuda_kernels::serves(x) {
            return NormInput { map: self.libtorch(x, None), bias: self.bias.as_ref(), to_image };
        }
        self.plus(x, Added { to_image, residual: None }).into()
    }

    /// The convolution of `x`, plus what is added.
    pub fn plus(&self, x: &Tensor, added: Added<'_>) -> Tensor {
        let Added { to_image, residual } = added;
        if cuda_kernels::serves(x) && (to_image.is_some() || residual.is_some()) {
            return self.plus_on_cuda(x, added);
        }
        if self.is_same_3x3() {
            let fused = FusedConv { norm: None, image_bias: to_image, residual };
            if let Some(y) = kernels::conv3x3(x, &self.weight, self.bias.as_ref(), fused) {
                return y;
            }
        }
        let bias = self.bias.as_ref();
        if self.is_1x1()
            && to_image.is_none()
            && let Some(y) = kernels::conv1x1(x, LinearTensors { weight: &self.weight, bias }, residual)
        {
            return y;
        }
        let mut y = self.convolved(x);
        if let Some(bias) = to_image {
            y = &y + bias.unsqueeze(-1).unsqueeze(-1); // under autocast the dtypes may differ
        }
        match residual {
            Some(residual) => add(y, residual),
            None => y,
        }
    }

    /// The convolution by a kernel that takes any size.
    fn convolved(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref();
        kernels::conv_of_patches(x, &self.weight, bias, self.stride, self.padding)
            .unwrap_or_else(|| kernels::each_image(x, |x| self.libtorch(x, bias)))
    }

    /// [`plus`](Self::plus) with all sums, also the bias, in one pass over the map.
    fn plus_on_cuda(&self, x: &Tensor, Added { to_image, residual }: Added<'_>) -> Tensor {
        let y = self.libtorch(x, None);
        let extras = BiasExtras { channel_bias: self.bias.as_ref(), image_bias: to_image, residual };
        cuda_kernels::bias_add(&y, extras).unwrap_or_else(|| {
            let sum = NormInput { map: y, bias: self.bias.as_ref(), to_image }.sum();
            match residual {
                Some(residual) => sum + residual,
                None => sum,
            }
        })
    }

    fn libtorch(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x.conv2d(&self.weight, bias, [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }

    /// Returns whether this is a 3x3 convolution that keeps the size of its input.
    fn is_same_3x3(&self) -> bool {
        self.weight.size()[2..] == [3, 3] && (self.stride, self.padding) == (1, 1)
    }

    fn is_1x1(&self) -> bool {
        self.weight.size()[2..] == [1, 1] && (self.stride, self.padding) == (1, 0)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.plus(x, Added::default())
    }
}
