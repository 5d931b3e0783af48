//! channels_last: the memory format in which convolutions are fast.

use tch::{Device, Tensor, nn::VarStore};

use crate::ffi;

/// The same tensor laid out as `[B, H, W, C]` in memory; its shape stays `[B, C, H, W]`.
///
/// # Panics
/// When the tensor has not four dimensions.
pub fn to_channels_last(tensor: &Tensor) -> Tensor {
    ffi::to_channels_last(tensor).expect("a tensor of four dimensions")
}

/// Whether the tensor is contiguous in the channels_last order.
pub fn is_channels_last(tensor: &Tensor) -> bool {
    ffi::is_channels_last(tensor)
}

/// Whether a network should run channels_last: on CUDA always; on the CPU when it only answers (`training` false) and
/// its narrowest convolutions have at least 128 channels, as every published model.
///
/// libtorch's group normalization on the CPU reads a channels_last map of fewer than 1024 pixels one value at a time:
/// a training step of a residual block of 64 channels on 16 x 16 pixels takes one and a half times as long, while the
/// forward of one of 320 channels on 64 x 64 takes 0.86 times.
pub fn prefers_channels_last(device: Device, narrowest: i64, training: bool) -> bool {
    device.is_cuda() || (!training && narrowest >= 128)
}

/// Lays out every convolution weight of `vs` as channels_last, in place: layers built on it see the change.
/// Convolutions of libtorch then run and answer in that format, so one call at the start is all a model needs.
pub fn channels_last(vs: &VarStore) {
    for mut tensor in vs.variables().into_values() {
        if tensor.dim() == 4 {
            tensor.set_data(&to_channels_last(&tensor.detach()));
        }
    }
}
