//! Operations on a tensor that only the caller holds, in its own memory where no gradient is wanted: a fresh tensor
//! costs a CPU more than the arithmetic does.

use tch::Tensor;

/// x·sigmoid(x), of any shape. `x` must not share its memory with what is used later.
pub fn silu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}

/// x + h, of one shape, in the layout of x. `h` must not share its memory with what is used later.
pub fn add(mut h: Tensor, x: &Tensor) -> Tensor {
    // Of two kinds, as under autocast, the sum has the wider one; of two layouts x's, so that a network keeps its own.
    let fits = h.kind() == x.kind() && h.stride() == x.stride();
    if fits && !h.requires_grad() && !x.requires_grad() { h.g_add_(x) } else { x + h }
}
