//! Group normalization.

use ldm_kernels::{GroupNormParameters, Level, ScaleShift};
use tch::{Kind, Tensor};

use super::{counted, empty_image, level_for_maps};
use crate::ffi::{TorchThreads, values, values_mut};
use crate::format::is_channels_last;

/// Group normalization of a channels_last `x` `[B, C, H, W]` by `weight` and `bias` `[C]`, with SiLU if `silu`. None where
/// libtorch's is the one to use.
pub fn group_norm(x: &Tensor, parameters: GroupNormTensors<'_>, silu: bool) -> Option<Tensor> {
    let level = norm_level(x, parameters)?;
    let (batch, channels, height, width) = x.size4().ok()?;
    let mut y = empty_image([batch, channels, height, width], x.kind());
    let batch = batch as usize;
    let [weight, bias] = parameters.in_f32();
    let parameters = parameters.values(&weight, &bias);
    counted(
        c"ldm::group_norm",
        || [0, 2 * x.kind().elt_size_in_bytes() * x.numel()],
        || {
            if x.kind() == Kind::BFloat16 {
                let (x, y) = (values(x), values_mut(&mut y));
                ldm_kernels::group_norm_bf16(&TorchThreads, level, batch, x, parameters, silu, y);
            } else {
                let (x, y) = (values(x), values_mut(&mut y));
                ldm_kernels::group_norm(&TorchThreads, level, batch, x, parameters, silu, y);
            }
        },
    );
    Some(y)
}

/// Scale and shift of [`group_norm`], for [`FusedConv::norm`](super::FusedConv::norm).
pub fn group_norm_scale_shift(x: &Tensor, parameters: GroupNormTensors<'_>) -> Option<ScaleShift> {
    let level = norm_level(x, parameters)?;
    let batch = x.size()[0] as usize;
    let [weight, bias] = parameters.in_f32();
    let parameters = parameters.values(&weight, &bias);
    Some(counted(
        c"ldm::group_norm",
        || [0, x.kind().elt_size_in_bytes() * x.numel()],
        || match x.kind() {
            Kind::BFloat16 => {
                ldm_kernels::group_norm_scale_shift_bf16(&TorchThreads, level, batch, values(x), parameters)
            }
            _ => ldm_kernels::group_norm_scale_shift(&TorchThreads, level, batch, values(x), parameters),
        },
    ))
}

/// The parameters of a group normalization.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormTensors<'a> {
    /// Groups, which divide the channels.
    pub groups: i64,
    /// `[C]`.
    pub weight: &'a Tensor,
    /// `[C]`.
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNormTensors<'_> {
    fn in_f32(self) -> [Tensor; 2] {
        [self.weight, self.bias].map(|tensor| tensor.to_kind(Kind::Float))
    }

    fn values<'a>(self, weight: &'a Tensor, bias: &'a Tensor) -> GroupNormParameters<'a> {
        let (weight, bias) = (values(weight), values(bias));
        GroupNormParameters { groups: self.groups as usize, weight, bias, eps: self.eps }
    }
}

fn norm_level(x: &Tensor, parameters: GroupNormTensors<'_>) -> Option<Level> {
    let level = level_for_maps([x, parameters.weight, parameters.bias])?;
    (x.dim() == 4 && x.numel() > 0 && is_channels_last(x)).then_some(level)
}
