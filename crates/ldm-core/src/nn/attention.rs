//! Scaled dot-product attention.

use ldm_libtorch::kernels;
use tch::Tensor;

/// Scaled dot-product attention over heads: softmax(q kᵀ / √d) v.
///
/// libtorch selects the kernel (flash, memory-efficient, or plain) and computes the softmax in f32.
/// Vaswani et al. 2017, eq. 1.
///
/// # Shapes
/// - `q`: `[B, heads, L, d]`; `k`, `v`: `[B, heads, S, d]`
/// - returns `[B, heads, L, d]`
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0., false, None, false)
}

/// [`attention`] over the heads of tokens, in the layout of linear layers.
///
/// # Shapes
/// - `q`: `[B, L, heads·d]`; `k`, `v`: `[B, S, heads·d]`
/// - returns `[B, L, heads·d]`
pub fn token_attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    kernels::attention([q, k, v], heads).unwrap_or_else(|| {
        let [q, k, v] = [q, k, v].map(|tokens| split_heads(tokens, heads));
        merge_heads(&attention(&q, &k, &v))
    })
}

/// Causal [`attention`], in which token `i` attends to tokens up to `i`, as in CLIP's text model.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0., true, None, false)
}

/// Splits heads: `[B, L, heads·d]` → `[B, heads, L, d]`.
///
/// # Panics
/// When `x` does not have three dimensions.
pub fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, length, width) = x.size3().expect("[B, L, D]");
    x.view([batch, length, heads, width / heads]).transpose(1, 2)
}

/// Merges heads: `[B, heads, L, d]` → `[B, L, heads·d]`.
///
/// # Panics
/// When `x` does not have four dimensions.
pub fn merge_heads(x: &Tensor) -> Tensor {
    let (batch, heads, length, width) = x.size4().expect("[B, heads, L, d]");
    x.transpose(1, 2).reshape([batch, length, heads * width])
}
