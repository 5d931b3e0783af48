//! The memory format channels_last, in which convolutions are fast.

use tch::{Device, Kind, Tensor, nn::VarStore};

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

/// Returns whether a network should run in channels_last: on CUDA always; on the CPU without gradients (`training` false) if
/// its narrowest convolutions have at least 128 channels, as in every published model.
///
/// libtorch's group normalization on the CPU reads a channels_last map of fewer than 1024 pixels one value at a time:
/// a training step of a residual block of 64 channels on 16 x 16 pixels takes one and a half times as long, while the
/// forward of one of 320 channels on 64 x 64 takes 0.86 times.
pub fn prefers_channels_last(device: Device, narrowest: i64, training: bool) -> bool {
    device.is_cuda() || (!training && narrowest >= 128)
}

/// [`prefers_channels_last`] for a network that only computes without gradients, with weights of `kind`: on the CPU also
/// narrow ones in f32 where the kernels of `ldm-kernels` are selected, which take channels_last maps only.
pub fn infers_in_channels_last(device: Device, narrowest: i64, kind: Kind) -> bool {
    let ours = kind == Kind::Float && kernels().is_some_and(|level| level > Level::Scalar);
    ours || prefers_channels_last(device, narrowest, false)
}

/// Converts every convolution weight of `vs` to channels_last, in place: layers built on it see the change.
/// Convolutions of libtorch then run in and return that format, so a model needs one call at the start.
///
/// On CUDA the weight of a 1x1 convolution has that format's strides too, since its convolution runs in the format of its
/// weight if its input, such as the result of a group normalization, is in none. On the CPU it keeps those it has.
pub fn channels_last(vs: &VarStore) {
    let convert = if vs.device().is_cuda() { restrided } else { to_channels_last };
    for mut tensor in vs.variables().into_values() {
        if tensor.dim() == 4 {
            tensor.set_data(&convert(&tensor.detach()));
        }
    }
}

/// [`to_channels_last`], with the strides of that format also where a side or the number of channels is 1 and several sets of
/// strides describe the same memory. As `Tensor.to(memory_format=torch.channels_last)` of PyTorch, without its copy.
fn restrided(tensor: &Tensor) -> Tensor {
    ffi::restride_channels_last(tensor).expect("a tensor of four dimensions")
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn strides_are_those_of_pytorch() {
        // `torch.randn(size).to(memory_format=torch.channels_last).stride()` of torch 2.11.
        let cases = [
            ([6, 5, 3, 3], [45, 1, 15, 5]),
            ([6, 5, 1, 1], [5, 1, 5, 5]),
            ([6, 1, 3, 3], [9, 1, 3, 1]),
            ([6, 5, 1, 3], [15, 1, 15, 5]),
            ([2, 5, 3, 1], [15, 1, 5, 5]),
            ([1, 1, 1, 1], [1, 1, 1, 1]),
        ];
        for (size, strides) in cases {
            let tensor = Tensor::randn(size, (Kind::Float, Device::Cpu));
            let last = restrided(&tensor);
            assert_eq!((last.size(), last.stride()), (size.to_vec(), strides.to_vec()));
            assert_eq!(last, tensor, "the values stay");
            assert!(is_channels_last(&last));
        }
        let weight = Tensor::randn([6, 5, 1, 1], (Kind::Float, Device::Cpu));
        assert_eq!(to_channels_last(&weight).stride(), [5, 1, 1, 1], "why the function is needed");
        assert_eq!(restrided(&weight).data_ptr(), weight.data_ptr(), "no copy of a 1x1 weight");
    }
}
