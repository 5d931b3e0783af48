//! Linear layers and 1x1 convolutions.

use ldm_kernels::{Level, LinearParameters};
use tch::{Device, Kind, Tensor};

use super::{counted, empty_image, level_for};
use crate::ffi::{TorchThreads, values, values_mut};
use crate::format::is_channels_last;
use crate::to_channels_last;

/// The parameters of a linear layer.
#[derive(Debug, Clone, Copy)]
pub struct LinearTensors<'a> {
    /// `[K, C]`, or `[K, C, 1]` and `[K, C, 1, 1]` of a convolution.
    pub weight: &'a Tensor,
    /// `[K]`.
    pub bias: Option<&'a Tensor>,
}

impl<'a> LinearTensors<'a> {
    /// The level at which our kernels apply these parameters to rows of `channels` values. They also serve a few rows, where
    /// libtorch's products are as fast: its sums depend on the number of rows, and so on the batch.
    fn level(self, x: &Tensor, channels: i64) -> Option<Level> {
        let level = level_for([x, self.weight])?;
        let size = self.weight.size();
        let fits = size.len() >= 2 && size[1] == channels && size[2..].iter().all(|&size| size == 1);
        let bias = self.bias.is_none_or(|bias| level_for([bias]).is_some() && bias.size() == size[..1]);
        (fits && bias && level > Level::Scalar && self.weight.is_contiguous()).then_some(level)
    }

    /// Output features.
    fn features_out(self) -> i64 {
        self.weight.size()[0]
    }

    fn values(self) -> LinearParameters<'a> {
        let features = self.weight.size()[1] as usize;
        LinearParameters { features, weight: values(self.weight), bias: self.bias.map(values) }
    }

    /// Multiplications and additions, and bytes.
    fn cost(self, x: &Tensor, y: &Tensor, residual: bool) -> [usize; 2] {
        let outputs = y.numel() * if residual { 2 } else { 1 };
        let rows = x.numel() / self.weight.size()[1] as usize;
        [2 * rows * self.weight.numel(), 4 * (x.numel() + outputs + self.weight.numel())]
    }
}

/// `x·weightᵀ + bias + residual` for contiguous rows `x` `[B, L, C]` or `[B, C]`; returns `[B, L, K]` or `[B, K]`. None where
/// libtorch's is the one to use: another dtype or device, or gradients.
pub fn linear(x: &Tensor, parameters: LinearTensors<'_>, residual: Option<&Tensor>) -> Option<Tensor> {
    let mut size = x.size();
    let channels = *size.last().filter(|_| matches!(x.dim(), 2 | 3))?;
    let level = parameters.level(x, channels)?;
    *size.last_mut()? = parameters.features_out();
    let fits = |other: &Tensor| level_for([other]).is_some() && other.is_contiguous() && other.size() == size;
    if !x.is_contiguous() || !residual.is_none_or(fits) {
        return None;
    }
    let mut y = Tensor::empty(&size, (Kind::Float, Device::Cpu));
    let cost = parameters.cost(x, &y, residual.is_some());
    counted(
        c"ldm::linear",
        || cost,
        || {
            let (residual, output) = (residual.map(values), values_mut(&mut y));
            ldm_kernels::linear(&TorchThreads, level, values(x), parameters.values(), residual, output);
        },
    );
    Some(y)
}

/// [`linear`] of a channels_last `x` `[B, C, H, W]`; returns `[B, K, H, W]`, as `residual`.
pub fn conv1x1(x: &Tensor, parameters: LinearTensors<'_>, residual: Option<&Tensor>) -> Option<Tensor> {
    let (batch, channels, height, width) = x.size4().ok()?;
    let level = parameters.level(x, channels)?;
    let size = [batch, parameters.features_out(), height, width];
    let fits = |other: &Tensor| level_for([other]).is_some() && other.size() == size;
    if !is_channels_last(x) || !residual.is_none_or(fits) {
        return None;
    }
    let residual = residual.map(to_channels_last);
    let mut y = empty_image(size, Kind::Float);
    let cost = parameters.cost(x, &y, residual.is_some());
    counted(
        c"ldm::conv1x1",
        || cost,
        || {
            let (residual, output) = (residual.as_ref().map(values), values_mut(&mut y));
            ldm_kernels::linear(&TorchThreads, level, values(x), parameters.values(), residual, output);
        },
    );
    Some(y)
}

/// x·gelu(gate) of a linear layer with the outputs `[x, gate]`, for contiguous tokens `x` `[B, L, C]`; returns `[B, L, K / 2]`. None
/// where [`linear`] returns none.
pub fn linear_geglu(x: &Tensor, parameters: LinearTensors<'_>) -> Option<Tensor> {
    let (batch, length, channels) = x.size3().ok()?;
    let level = parameters.level(x, channels)?;
    if !x.is_contiguous() || parameters.features_out() % 2 != 0 {
        return None;
    }
    let mut y = Tensor::empty([batch, length, parameters.features_out() / 2], (Kind::Float, Device::Cpu));
    let cost = parameters.cost(x, &y, false);
    counted(
        c"ldm::linear_geglu",
        || cost,
        || {
            ldm_kernels::linear_geglu(
                &TorchThreads,
                level,
                values(x),
                parameters.values(),
                values_mut(&mut y),
            );
        },
    );
    Some(y)
}
