//! Attention.

use ldm_kernels::AttentionSize;
use tch::{Device, Kind, Tensor};

use super::{counted, level_for};
use crate::ffi::{TorchThreads, values, values_mut};

/// softmax(q kᵀ / √d) v over `heads`, for contiguous `q` `[B, L, heads·d]`, `k` and `v` `[B, S, heads·d]`. None where
/// libtorch's is the one to use.
pub fn attention([q, k, v]: [&Tensor; 3], heads: i64) -> Option<Tensor> {
    let level = level_for([q, k, v])?;
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
    let mut y = Tensor::empty([batch, queries, width], (Kind::Float, Device::Cpu));
    let cost = || [4 * q.numel() * size.keys, 8 * (q.numel() + k.numel())];
    counted(c"ldm::attention", cost, || {
        let inputs = [values(q), values(k), values(v)];
        ldm_kernels::attention(&TorchThreads, level, size, inputs, values_mut(&mut y));
    });
    Some(y)
}
