//! Self-attention over the positions of a feature map.

use ldm_core::Result;
use ldm_core::nn::attention::token_attention;
use ldm_core::nn::{GroupNorm, conv1d_1x1, project, zero_conv1d_1x1};
use tch::Tensor;
use tch::nn::{Conv1D, Path};

use crate::parameters::ParameterNames;
use crate::resblock::EPS;

/// Channel order of `qkv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Head by head, each with its queries, keys and values.
    HeadsFirst,
    /// All queries, all keys, all values, each head by head.
    QkvFirst,
}

/// Sizes of an [`AttentionBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttentionPlan {
    pub(crate) channels: i64,
    pub(crate) heads: i64,
    pub(crate) order: Order,
}

impl AttentionPlan {
    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        list.norm("norm", self.channels);
        list.conv1d("qkv", self.channels, 3 * self.channels);
        list.conv1d("proj_out", self.channels, self.channels);
    }
}

/// Self-attention with a residual connection, initialized as the identity.
///
/// CompVis' 1×1 convolutions over `[B, C, h·w]` are linear layers over `[B, h·w, C]`, the memory order of a
/// channels_last map. CompVis `openaimodel.py:278` `AttentionBlock`.
#[derive(Debug)]
pub(crate) struct AttentionBlock {
    norm: GroupNorm,
    qkv: Conv1D,
    proj_out: Conv1D,
    heads: i64,
    order: Order,
}

impl AttentionBlock {
    pub(crate) fn new(vs: &Path, plan: AttentionPlan) -> Result<Self> {
        let channels = plan.channels;
        Ok(Self {
            norm: GroupNorm::new(&(vs / "norm"), channels, EPS)?,
            qkv: conv1d_1x1(&(vs / "qkv"), channels, 3 * channels),
            proj_out: zero_conv1d_1x1(&(vs / "proj_out"), channels, channels),
            heads: plan.heads,
            order: plan.order,
        })
    }

    /// Maps `[B, C, h, w]`, or any other axes of positions, to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let tokens = x.apply(&self.norm).flatten(2, -1).transpose(1, 2); // [B, h·w, C]
        let h = attend(&per_position(&tokens, &self.qkv), self.heads, self.order);
        let h = per_position(&h, &self.proj_out); //                       [B, h·w, C]
        x + h.transpose(1, 2).view_as(x)
    }
}

/// Applies a convolution of kernel 1 over `[B, C, L]` to `[B, L, C]`.
pub(crate) fn per_position(tokens: &Tensor, conv: &Conv1D) -> Tensor {
    project(tokens, &conv.ws, conv.bs.as_ref())
}

/// Multi-head attention of packed q, k, v: `[B, L, 3C]` → `[B, L, C]`.
///
/// CompVis `openaimodel.py:337` `QKVAttentionLegacy`, `:369` `QKVAttention`: they divide queries and keys by
/// d^(1/4) each, here the product is divided by √d.
pub(crate) fn attend(qkv: &Tensor, heads: i64, order: Order) -> Tensor {
    let (batch, length, width) = qkv.size3().expect("[B, L, 3C]");
    let head = width / (3 * heads);
    let parts = match order {
        Order::HeadsFirst => qkv.view([batch, length, heads, 3, head]).unbind(3),
        Order::QkvFirst => qkv.view([batch, length, 3, heads, head]).unbind(2),
    }; // q, k, v: [B, L, heads, d]
    let [q, k, v] = [0, 1, 2].map(|part| parts[part].reshape([batch, length, heads * head]));
    token_attention(&q, &k, &v, heads)
}
