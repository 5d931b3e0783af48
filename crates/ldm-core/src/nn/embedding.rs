//! The sinusoidal timestep embedding.

use tch::{Kind, Tensor};

/// Embeds timesteps as `[cos(t·ω), sin(t·ω)]` with ω_i = 10000^(−i/half), cosines first.
///
/// # Shapes
/// - `t`: `[B]`, integer or fractional, in steps
/// - returns `[B, dim]` f32; an odd `dim` is padded with a zero
///
/// Ho et al. 2020, §B. CompVis `diffusionmodules/util.py:151`.
pub fn timestep_embedding(t: &Tensor, dim: i64) -> Tensor {
    let half = dim / 2;
    // In f64, rounded once: libtorch's f32 exponential differs in its last bit between CPUs, and t multiplies that.
    let steps = Tensor::arange(half, (Kind::Double, t.device()));
    let frequencies = (steps * (-(10_000_f64).ln() / half as f64)).exp().to_kind(Kind::Float); // [half]
    let angles = t.to_kind(Kind::Float).unsqueeze(1) * frequencies.unsqueeze(0); //  [B, half]
    let embedding = Tensor::cat(&[angles.cos(), angles.sin()], 1);
    if dim % 2 == 0 { embedding } else { embedding.constant_pad_nd([0, 1]) }
}
