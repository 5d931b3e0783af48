//! The gated GELU.

use ldm_libtorch::kernels;
use tch::Tensor;

/// x·gelu(gate) for x and gate along the last axis of `[…, 2·width]`; returns `[…, width]`. The exact GELU
/// (Shazeer 2020; CompVis `attention.py:38`).
pub fn geglu(x: &Tensor) -> Tensor {
    kernels::geglu(x).unwrap_or_else(|| {
        let halves = x.chunk(2, -1); // value, gate
        &halves[0] * halves[1].gelu("none")
    })
}
