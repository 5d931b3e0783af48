//! Convolutions over the positions of sequences, images and volumes.

use ldm_core::nn::{Added, Conv2d, GroupNorm, NormInput, add, conv2d, variable, zero_conv2d};
use tch::Tensor;
use tch::nn::{Init, Module, Path};

/// A convolution over 1, 2 or 3 axes. CompVis `diffusionmodules/util.py:207` `conv_nd`.
#[derive(Debug)]
pub(crate) enum ConvNd {
    /// Over images.
    Image(Conv2d),
    /// Over sequences and volumes.
    Other { weight: Tensor, bias: Tensor, stride: Vec<i64>, padding: i64 },
}

/// Sizes of a [`ConvNd`] of stride 1 that keeps the size of its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvSizes {
    pub(crate) dims: i64,
    pub(crate) channels_in: i64,
    pub(crate) channels_out: i64,
    pub(crate) kernel: i64,
}

impl ConvNd {
    /// With PyTorch's initialization.
    pub(crate) fn new(vs: &Path, sizes: ConvSizes) -> Self {
        let ConvSizes { dims, channels_in, channels_out, kernel } = sizes;
        if dims == 2 {
            return Self::Image(conv2d(vs, channels_in, channels_out, kernel, 1, kernel / 2));
        }
        // Kaiming's uniform distribution with a = √5, torch's default.
        let bound = 1. / ((channels_in * kernel.pow(dims as u32)) as f64).sqrt();
        Self::other(vs, sizes, Init::Uniform { lo: -bound, up: bound })
    }

    /// Initialized to zero, so that a residual branch initially has no effect.
    pub(crate) fn zero(vs: &Path, sizes: ConvSizes) -> Self {
        let ConvSizes { dims, channels_in, channels_out, kernel } = sizes;
        if dims == 2 {
            return Self::Image(zero_conv2d(vs, channels_in, channels_out, kernel));
        }
        Self::other(vs, sizes, Init::Const(0.))
    }

    /// Of kernel 3 and stride 2, except along the first axis of volumes (CompVis `openaimodel.py:152`).
    pub(crate) fn halving(vs: &Path, dims: i64, channels: i64) -> Self {
        if dims == 2 {
            return Self::Image(conv2d(vs, channels, channels, 3, 2, 1));
        }
        let sizes = ConvSizes { dims, channels_in: channels, channels_out: channels, kernel: 3 };
        match Self::new(vs, sizes) {
            Self::Other { weight, bias, padding, .. } => {
                Self::Other { weight, bias, stride: halves(dims), padding }
            }
            Self::Image(_) => unreachable!("images are handled above"),
        }
    }

    /// The convolution of silu(norm(x)), plus what is added, as [`Conv2d::normed`].
    pub(crate) fn normed(&self, norm: &GroupNorm, x: &Tensor, added: Added<'_>) -> Tensor {
        match self {
            Self::Image(conv) => conv.normed(norm, x, added),
            Self::Other { .. } => self.plus(&norm.forward_silu(x), added),
        }
    }

    /// [`Conv2d::normed_sum`].
    pub(crate) fn normed_sum(&self, norm: &GroupNorm, x: &NormInput<'_>, added: Added<'_>) -> Tensor {
        match self {
            Self::Image(conv) => conv.normed_sum(norm, x, added),
            Self::Other { .. } => self.plus(&norm.forward_silu_of(x, None), added),
        }
    }

    /// [`Conv2d::normed_to_norm`].
    pub(crate) fn normed_to_norm<'a>(
        &'a self,
        norm: &GroupNorm,
        x: &Tensor,
        to_image: Option<&'a Tensor>,
    ) -> NormInput<'a> {
        match self {
            Self::Image(conv) => conv.normed_to_norm(norm, x, to_image),
            Self::Other { .. } => self.to_norm(&norm.forward_silu(x), to_image),
        }
    }

    /// [`Conv2d::to_norm`].
    pub(crate) fn to_norm<'a>(&'a self, x: &Tensor, to_image: Option<&'a Tensor>) -> NormInput<'a> {
        match self {
            Self::Image(conv) => conv.to_norm(x, to_image),
            Self::Other { .. } => self.plus(x, Added { to_image, residual: None }).into(),
        }
    }

    /// The convolution of `x`, plus what is added.
    pub(crate) fn plus(&self, x: &Tensor, added: Added<'_>) -> Tensor {
        if let Self::Image(conv) = self {
            return conv.plus(x, added);
        }
        let mut y = self.forward(x);
        if let Some(bias) = added.to_image {
            let mut size = bias.size();
            size.resize(y.dim(), 1); // [B, K, 1, …]
            y = &y + bias.view(size.as_slice());
        }
        match added.residual {
            Some(residual) => add(y, residual),
            None => y,
        }
    }

    fn other(vs: &Path, sizes: ConvSizes, init: Init) -> Self {
        let ConvSizes { dims, channels_in, channels_out, kernel } = sizes;
        let mut shape = vec![channels_out, channels_in];
        shape.resize(2 + dims as usize, kernel);
        let bias = variable(vs, "bias", &[channels_out], init);
        let weight = variable(vs, "weight", &shape, init);
        Self::Other { weight, bias, stride: vec![1; dims as usize], padding: kernel / 2 }
    }
}

/// Strides that halve the size: of volumes, which CompVis treats as images in time, the last two axes alone.
pub(crate) fn halves(dims: i64) -> Vec<i64> {
    if dims == 3 { vec![1, 2, 2] } else { vec![2; dims as usize] }
}

impl Module for ConvNd {
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Image(conv) => x.apply(conv),
            Self::Other { weight, bias, stride, padding } => {
                let axes = vec![1; stride.len()];
                let padding = vec![*padding; stride.len()];
                if stride.len() == 1 {
                    x.conv1d(weight, Some(bias), stride, padding, axes, 1)
                } else {
                    x.conv3d(weight, Some(bias), stride, padding, axes, 1)
                }
            }
        }
    }
}
