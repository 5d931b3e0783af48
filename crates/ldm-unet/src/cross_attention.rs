//! Cross-attention, and the feed-forward layer after it.

use ldm_core::nn::attention::token_attention;
use ldm_core::nn::{Linear, linear};
use tch::Tensor;
use tch::nn::Path;

use crate::parameters::ParameterNames;

/// Sizes of a [`CrossAttention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrossAttentionPlan {
    pub(crate) channels: i64,
    pub(crate) context: i64,
    pub(crate) heads: i64,
}

impl CrossAttentionPlan {
    pub(crate) fn parameters(self, list: &mut ParameterNames) {
        for (name, width) in [("to_q", self.channels), ("to_k", self.context), ("to_v", self.context)] {
            list.within(name, |list| list.add("weight", &[self.channels, width]));
        }
        list.within("to_out", |list| list.linear(0, self.channels, self.channels));
    }
}

/// Projected keys and values.
#[derive(Debug)]
pub(crate) struct KeyValue {
    pub(crate) key: Tensor,   // [B, L, heads·d]
    pub(crate) value: Tensor, // [B, L, heads·d]
}

/// Attention from one sequence to another, or to itself. No token is masked: CompVis attends to text padding
/// too.
///
/// CompVis `attention.py:152` `CrossAttention`.
#[derive(Debug)]
pub(crate) struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

impl CrossAttention {
    pub(crate) fn new(vs: &Path, plan: CrossAttentionPlan) -> Self {
        Self {
            to_q: linear(&(vs / "to_q"), plan.channels, plan.channels, false),
            to_k: linear(&(vs / "to_k"), plan.context, plan.channels, false),
            to_v: linear(&(vs / "to_v"), plan.context, plan.channels, false),
            to_out: linear(&(vs / "to_out" / 0), plan.channels, plan.channels, true),
            heads: plan.heads,
        }
    }

    /// Projects `[B, L, context]` to the keys and values of [`CrossAttention::attend`].
    pub(crate) fn project(&self, tokens: &Tensor) -> KeyValue {
        KeyValue { key: tokens.apply(&self.to_k), value: tokens.apply(&self.to_v) }
    }

    /// Attends to `key` and `value`, and adds `residual`: `[B, N, C]` to the same shape.
    pub(crate) fn attend(
        &self,
        x: &Tensor,
        key: &Tensor,
        value: &Tensor,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let attended = token_attention(&x.apply(&self.to_q), key, value, self.heads);
        match residual {
            Some(residual) => self.to_out.plus(&attended, residual),
            None => attended.apply(&self.to_out),
        }
    }

    /// Attends to `x` itself, and adds `residual`.
    pub(crate) fn attend_self(&self, x: &Tensor, residual: Option<&Tensor>) -> Tensor {
        let KeyValue { key, value } = self.project(x);
        self.attend(x, &key, &value, residual)
    }
}

/// Feed-forward layer of fourfold width with an exact GEGLU (Shazeer 2020).
///
/// CompVis `attention.py:37` `GEGLU`, `:48` `FeedForward`.
#[derive(Debug)]
pub(crate) struct GatedFeedForward {
    proj: Linear,
    out: Linear,
}

impl GatedFeedForward {
    const WIDTH: i64 = 4;

    pub(crate) fn parameters(channels: i64, list: &mut ParameterNames) {
        list.within("net", |list| {
            list.within(0, |list| list.linear("proj", channels, 2 * Self::WIDTH * channels));
            list.linear(2, Self::WIDTH * channels, channels);
        });
    }

    pub(crate) fn new(vs: &Path, channels: i64) -> Self {
        let net = vs / "net";
        Self {
            proj: linear(&(&net / 0 / "proj"), channels, 2 * Self::WIDTH * channels, true),
            out: linear(&(&net / 2), Self::WIDTH * channels, channels, true),
        }
    }

    /// The layer of `x`, plus `residual`: `[B, N, C]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.out.plus(&self.proj.geglu(x), residual)
    }
}
