//! Attention.

use ldm_kernels::{AttentionSize, Level, has_bf16_products};
use tch::{Device, Kind, Tensor};

use super::{counted, level_for, level_of_dtype};
use crate::ffi::{TorchThreads, values, values_mut};

/// softmax(q kᵀ / √d) v over `heads`, for contiguous `q` `[B, L, heads·d]`, `k` and `v` `[B, S, heads·d]`. None where
/// libtorch's is the one to use.
pub fn attention([q, k, v]: [&Tensor; 3], heads: i64) -> Option<Tensor> {
    let level = level_for([q, k, v]).or_else(|| {
        level_of_dtype(Kind::BFloat16, [q, k, v])
            .filter(|level| *level == Level::Avx512 && has_bf16_products())
    })?;
    let (batch, queries, width) = q.size3().ok()?;
    let contiguous = [q, k, v].iter().all(|tokens| tokens.is_contiguous());
    // Other batches are broadcast by libtorch.
    if !contiguous || k.size() != v.size() || k.size3().ok()?.0 != batch {
        return None;
    }
    let size = AttentionSize {
        batch: batch as usize,
        heads: heads as usize,
        queries: queries as usize,
        keys: k.size()[1] as usize,
        head_size: (width / heads) as usize,
    };
    let mut y = Tensor::empty([batch, queries, width], (q.kind(), Device::Cpu));
    let cost = || [4 * q.numel() * size.keys, 2 * q.kind().elt_size_in_bytes() * (q.numel() + k.numel())];
    counted(c"ldm::attention", cost, || {
        if q.kind() == Kind::BFloat16 {
            let inputs = [values(q), values(k), values(v)];
            ldm_kernels::attention_bf16(&TorchThreads, size, inputs, values_mut(&mut y));
        } else {
            let inputs = [values(q), values(k), values(v)];
            ldm_kernels::attention(&TorchThreads, level, size, inputs, values_mut(&mut y));
        }
    });
    Some(y)
}
