//! Operations that overwrite a tensor of the caller if no gradient is needed: on a CPU, a new tensor costs more than the
//! arithmetic.

use tch::Tensor;

/// Computes x·sigmoid(x) for any shape. `x` must not share memory with a tensor used later.
pub fn silu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}

/// Computes x + h for equal shapes, in the memory format of x. `h` must not share memory with a tensor used later.
pub fn add(mut h: Tensor, x: &Tensor) -> Tensor {
    // With two dtypes, as under autocast, the sum has the wider one; with two memory formats x's, so that a network keeps
    // its own.
    let fits = h.kind() == x.kind() && h.stride() == x.stride();
    if fits && !h.requires_grad() && !x.requires_grad() { h.g_add_(x) } else { x + h }
}
