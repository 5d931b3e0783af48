//! channels_last: the memory format in which convolutions are fast.

use tch::{Tensor, nn::VarStore};

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

/// Lays out every convolution weight of `vs` as channels_last, in place: layers built on it see the change.
/// Convolutions of libtorch then run and answer in that format, so one call at the start is all a model needs.
pub fn channels_last(vs: &VarStore) {
    for mut tensor in vs.variables().into_values() {
        if tensor.dim() == 4 {
            tensor.set_data(&to_channels_last(&tensor.detach()));
        }
    }
}
