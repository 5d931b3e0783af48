//! The sinusoidal timestep embedding.

use tch::{Device, Kind, Tensor};

/// Embeds timesteps as `[cos(t·ω), sin(t·ω)]` with ω_i = 10000^(−i/half), cosines first. The frequencies ω are computed
/// once.
///
/// Ho et al. 2020, §B. CompVis `diffusionmodules/util.py:151`.
#[derive(Debug)]
pub struct TimestepEmbedding {
    /// `[1, half]` f32.
    frequencies: Tensor,
    dim: i64,
}

impl TimestepEmbedding {
    /// An embedding of `dim` channels for timesteps on `device`.
    pub fn new(dim: i64, device: Device) -> Self {
        let half = dim / 2;
        // In f64, rounded once: libtorch's f32 exponential differs in its last bit between CPUs, and t multiplies that.
        let steps = Tensor::arange(half, (Kind::Double, device));
        let frequencies = (steps * (-(10_000_f64).ln() / half as f64)).exp().to_kind(Kind::Float);
        Self { frequencies: frequencies.unsqueeze(0), dim }
    }

    /// Embeds timesteps.
    ///
    /// # Shapes
    /// - `t`: `[B]`, integer or fractional, in steps
    /// - returns `[B, dim]` f32; an odd `dim` is padded with a zero
    pub fn forward(&self, t: &Tensor) -> Tensor {
        let angles = t.to_kind(Kind::Float).unsqueeze(1) * &self.frequencies; //         [B, half]
        let embedding = Tensor::cat(&[angles.cos(), angles.sin()], 1);
        if self.dim % 2 == 0 { embedding } else { embedding.constant_pad_nd([0, 1]) }
    }
}
