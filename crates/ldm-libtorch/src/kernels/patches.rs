//! Convolutions of small maps as products of patches (im2col).

use tch::Tensor;

use super::{LinearTensors, level_for, linear};
use crate::format::{is_channels_last, to_channels_last};

/// Values of the patches of an image up to which the product is taken: beyond, copying them costs more than the convolution
/// gains. The limit is that of one image, so that an image has the same bytes alone and in a batch.
const VALUES: i64 = 1 << 20;

/// Convolves a channels_last `x` `[B, C, H, W]` with `weight` `[K, C, k, k]` and `bias` `[K]`; returns `[B, K, H', W']`,
/// channels_last. None where libtorch's convolution is the one to use: another dtype, device or format, a large map, or
/// gradients.
///
/// Each output pixel is a row of the product, whose sums do not depend on the other rows, and the weights are read once for
/// the batch.
pub fn conv_of_patches(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: i64,
    padding: i64,
) -> Option<Tensor> {
    level_for([x, weight])?;
    let (batch, channels, height, width) = x.size4().ok()?;
    let [features, weight_channels, kernel, kernel_width] = weight.size()[..] else { return None };
    let [rows, columns] = [height, width].map(|side| (side + 2 * padding - kernel) / stride + 1);
    let patch = kernel * kernel * channels;
    if !is_channels_last(x)
        || (weight_channels, kernel_width) != (channels, kernel)
        || rows.min(columns) < 1
        || rows * columns * patch > VALUES
    {
        return None;
    }
    let padded =
        x.permute([0, 2, 3, 1]).constant_pad_nd([0, 0, padding, padding, padding, padding]).contiguous();
    let strides = padded.stride();
    let patches = padded
        .as_strided(
            [batch, rows, columns, kernel, kernel, channels],
            [strides[0], stride * strides[1], stride * strides[2], strides[1], strides[2], strides[3]],
            None,
        )
        .reshape([batch * rows * columns, patch]);
    let weight = to_channels_last(weight).permute([0, 2, 3, 1]).reshape([features, patch]);
    let y = linear(&patches, LinearTensors { weight: &weight, bias }, None)?;
    Some(y.view([batch, rows, columns, features]).permute([0, 3, 1, 2]))
}
