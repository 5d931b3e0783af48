//! Scaled dot-product attention.

use ldm_libtorch::kernels;
use tch::{Device, Kind, Tensor};

/// The most keys for which two bf16 products are faster than libtorch's flash attention on a CPU. That one sets up a
/// oneDNN product for each head and each block: seven times the time of the products for 64 queries and 64 keys in
/// training, level at 256 keys (AMD EPYC, libtorch 2.11, 2026-11-29).
const FEW_KEYS: i64 = 128;

/// Scaled dot-product attention over heads: softmax(q kᵀ / √d) v.
///
/// libtorch selects the kernel (flash, memory-efficient, or plain) and computes the softmax in f32. On a CPU, bf16 with
/// few keys takes two products.
/// Vaswani et al. 2017, eq. 1.
///
/// # Shapes
/// - `q`: `[B, heads, L, d]`; `k`, `v`: `[B, heads, S, d]`
/// - returns `[B, heads, L, d]`
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    if q.device() == Device::Cpu && q.kind() == Kind::BFloat16 && k.size()[2] <= FEW_KEYS {
        return attention_by_products(q, k, v);
    }
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0., false, None, false)
}

/// [`attention`] as two products, with the scores in the dtype of `q` and the softmax in f32.
fn attention_by_products(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = (q.size()[3] as f64).sqrt().recip();
    let scores = (q * scale).matmul(&k.transpose(2, 3));
    scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v)
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
