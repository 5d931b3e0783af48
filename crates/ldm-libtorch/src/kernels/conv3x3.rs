//! 3x3 convolutions.

use ldm_kernels::{Conv3x3, Conv3x3Epilogue, Conv3x3Prologue, ImageSize, Level, ScaleShift};
use tch::{Kind, Tensor};

use super::{counted, empty_image, level_for_maps};
use crate::ffi::{Number, TorchThreads, values, values_mut};
use crate::format::is_channels_last;
use crate::to_channels_last;

/// The operations before and after the sums of a fused convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct FusedConv<'a> {
    /// Scale and shift `[B, C]` of a norm, which is followed by SiLU, before the convolution.
    pub norm: Option<&'a ScaleShift>,
    /// `[B, K]`, added to each image.
    pub image_bias: Option<&'a Tensor>,
    /// `[B, K, H, W]`, added to the result.
    pub residual: Option<&'a Tensor>,
}

/// Pixels of an image from which on our convolution is the faster one. The limit is that of one image, so that an image has
/// the same bytes alone and in a batch.
const PIXELS: i64 = 64;
/// Channels, in and out, from which on it is.
const CHANNELS: i64 = 32;

/// Convolves a channels_last `x` `[B, C, H, W]` with `weight` `[K, C, 3, 3]` and `bias` `[K]`, stride 1, padding 1. None where
/// libtorch's convolution is the one to use: another dtype, device or format, a very small map, or gradients.
pub fn conv3x3(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, fused: FusedConv<'_>) -> Option<Tensor> {
    let level = level_of(x, weight)?;
    let (batch, channels, height, width) = x.size4().ok()?;
    let out = weight.size()[0];
    // Other sizes are broadcast by libtorch.
    let fits = |other: Option<&Tensor>, size: &[i64]| {
        other.is_none_or(|other| {
            other.kind() == x.kind() && level_for_maps([other]).is_some() && other.size() == size
        })
    };
    if !(fits(bias, &[out])
        && fits(fused.image_bias, &[batch, out])
        && fits(fused.residual, &[batch, out, height, width]))
    {
        return None;
    }
    let weight = to_channels_last(weight);
    let residual = fused.residual.map(to_channels_last);
    let [bias, image_bias] =
        [bias, fused.image_bias].map(|biases| Some(biases?.to_kind(Kind::Float).contiguous()));
    let mut y = empty_image([batch, out, height, width], x.kind());
    let size = ImageSize { batch: batch as usize, height: height as usize, width: width as usize };
    let cost = || {
        let (pixels, channels, out) = (size.pixels(), channels as usize, out as usize);
        let residual = if residual.is_some() { out } else { 0 };
        let bytes = x.kind().elt_size_in_bytes();
        [2 * 9 * pixels * channels * out, bytes * (pixels * (channels + out + residual) + 9 * channels * out)]
    };
    let tensors = ConvTensors {
        size,
        channels: channels as usize,
        x,
        weight: &weight,
        norm: fused.norm,
        bias: bias.as_ref(),
        image_bias: image_bias.as_ref(),
        residual: residual.as_ref(),
    };
    counted(c"ldm::conv3x3", cost, || match x.kind() {
        Kind::BFloat16 => {
            ldm_kernels::conv3x3_bf16(&TorchThreads, level, tensors.values(), values_mut(&mut y));
        }
        _ => ldm_kernels::conv3x3(&TorchThreads, level, tensors.values(), values_mut(&mut y)),
    });
    Some(y)
}

/// The tensors of a convolution in their memory formats; the biases in f32.
struct ConvTensors<'a> {
    size: ImageSize,
    channels: usize,
    x: &'a Tensor,
    weight: &'a Tensor,
    norm: Option<&'a ScaleShift>,
    bias: Option<&'a Tensor>,
    image_bias: Option<&'a Tensor>,
    residual: Option<&'a Tensor>,
}

impl<'a> ConvTensors<'a> {
    fn values<T: Number>(&self) -> Conv3x3<'a, T> {
        Conv3x3 {
            size: self.size,
            channels: self.channels,
            input: values(self.x),
            weight: values(self.weight),
            prologue: self.norm.map(|norm| Conv3x3Prologue { scale: &norm.scale, shift: &norm.shift }),
            epilogue: Conv3x3Epilogue {
                bias: self.bias.map(values),
                image_bias: self.image_bias.map(values),
                residual: self.residual.map(values),
            },
        }
    }
}

/// Returns whether [`conv3x3`] would take `x`.
pub fn takes_conv3x3(x: &Tensor, weight: &Tensor) -> bool {
    level_of(x, weight).is_some()
}

fn level_of(x: &Tensor, weight: &Tensor) -> Option<Level> {
    let level = level_for_maps([x, weight])?;
    let (_, channels, height, width) = x.size4().ok()?;
    let is_large = height * width >= PIXELS
        && channels >= CHANNELS
        && weight.size()[0] >= CHANNELS
        && level > Level::Scalar;
    (is_large && is_channels_last(x)).then_some(level)
}
