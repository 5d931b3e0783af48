//! Self-attention over the positions of a map.

use ldm_core::Result;
use ldm_core::nn::attention::{attention, merge_heads};
use ldm_core::nn::{GroupNorm, conv1d_1x1, zero_conv1d_1x1};
use tch::Tensor;
use tch::nn::{Conv1D, Path};

use crate::parameters::Parameters;
use crate::resblock::EPS;

/// How the channels of `qkv` are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Head by head, each with its queries, keys and values.
    HeadsFirst,
    /// All queries, all keys, all values, each head by head.
    QkvFirst,
}

/// What an [`AttentionBlock`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttentionPlan {
    pub(crate) channels: i64,
    pub(crate) heads: i64,
    pub(crate) order: Order,
}

impl AttentionPlan {
    pub(crate) fn parameters(self, list: &mut Parameters) {
        list.norm("norm", self.channels);
        list.conv1d("qkv", self.channels, 3 * self.channels);
        list.conv1d("proj_out", self.channels, self.channels);
    }
}

/// Attention of every position to every other, added to its input; starts as the identity.
///
/// The reference's 1×1 convolutions over `[B, C, h·w]` are linear layers over `[B, h·w, C]`, which is how a
/// channels_last map lies in memory. CompVis `openaimodel.py:278` `AttentionBlock`.
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

    /// `[B, C, h, w]` → the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let tokens = x.apply(&self.norm).flatten(2, 3).transpose(1, 2); // [B, h·w, C]
        let h = attend(&per_position(&tokens, &self.qkv), self.heads, self.order);
        let h = per_position(&h, &self.proj_out); //                       [B, h·w, C]
        x + h.transpose(1, 2).view_as(x)
    }
}

/// A convolution of kernel 1 over `[B, C, L]`, applied to `[B, L, C]`.
pub(crate) fn per_position(tokens: &Tensor, conv: &Conv1D) -> Tensor {
    tokens.linear(&conv.ws.squeeze_dim(-1), conv.bs.as_ref())
}

/// `[B, L, 3C]` → `[B, L, C]`.
///
/// CompVis `openaimodel.py:337` `QKVAttentionLegacy`, `:369` `QKVAttention`: there queries and keys are each divided
/// by d^(1/4), here their product by √d.
pub(crate) fn attend(qkv: &Tensor, heads: i64, order: Order) -> Tensor {
    let (batch, length, width) = qkv.size3().expect("[B, L, 3C]");
    let head = width / (3 * heads);
    let parts = match order {
        Order::HeadsFirst => qkv.view([batch, length, heads, 3, head]).permute([3, 0, 2, 1, 4]),
        Order::QkvFirst => qkv.view([batch, length, 3, heads, head]).permute([2, 0, 3, 1, 4]),
    }
    .unbind(0); // q, k, v: [B, heads, L, d]
    merge_heads(&attention(&parts[0], &parts[1], &parts[2]))
}
