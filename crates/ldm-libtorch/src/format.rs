//! The memory format channels_last, in which convolutions are fast.

use tch::{Device, Tensor, nn::VarStore};

use crate::ffi;
use crate::kernels::{Level, kernels};

/// Converts to channels_last: `[B, H, W, C]` in memory, with the shape `[B, C, H, W]` unchanged.
///
/// # Panics
/// When the tensor does not have four dimensions.
pub fn to_channels_last(tensor: &Tensor) -> Tensor {
    ffi::to_channels_last(tensor).expect("a tensor of four dimensions")
}

/// Returns whether the tensor is contiguous in channels_last order; false for one without strides (sparse).
pub fn is_channels_last(tensor: &Tensor) -> bool {
    ffi::is_channels_last(tensor).unwrap_or(false)
}

/// Returns whether a network should run in channels_last: on CUDA always; on the CPU for inference (`training` false) if
/// the kernels of `ldm-kernels` are selected, or if its narrowest convolutions have at least 128 channels, as in every
/// published model.
///
/// `ldm-kernels` takes channels_last maps only. libtorch's group normalization on the CPU reads a channels_last map of fewer than 1024 pixels one value at a time:
/// a training step of a residual block of 64 channels on 16 x 16 pixels takes one and a half times as long, while the
/// forward of one of 320 channels on 64 x 64 takes 0.86 times.
pub fn prefers_channels_last(device: Device, narrowest: i64, training: bool) -> bool {
    let ours = kernels().is_some_and(|level| level > Level::Scalar);
    device.is_cuda() || (!training && (ours || narrowest >= 128))
}

/// Converts every convolution weight of `vs` to channels_last, in place: layers built on it see the change.
/// Convolutions of libtorch then run in and return that format, so a model needs one call at the start.
pub fn channels_last(vs: &VarStore) {
    for mut tensor in vs.variables().into_values() {
        if tensor.dim() == 4 {
            tensor.set_data(&to_channels_last(&tensor.detach()));
        }
    }
}
