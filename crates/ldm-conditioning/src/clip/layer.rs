//! Layers of CLIP's transformers.

use ldm_core::nn::attention::{merge_heads, split_heads};
use ldm_core::nn::{Linear, linear};
use tch::Tensor;
use tch::nn::{self, LayerNorm, LayerNormConfig, Path};

use crate::Activation;

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSizes {
    pub(crate) width: i64,
    /// Channels within the feed-forward part.
    pub(crate) inside: i64,
    pub(crate) heads: i64,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
}

pub(crate) fn norm(vs: &Path, sizes: LayerSizes) -> LayerNorm {
    let settings = LayerNormConfig { eps: sizes.eps, ..LayerNormConfig::default() };
    nn::layer_norm(vs, vec![sizes.width], settings)
}

pub(crate) fn of_norm(norm: &LayerNorm) -> impl Iterator<Item = &Tensor> {
    norm.ws.iter().chain(&norm.bs)
}

/// Pre-norm attention and feed-forward. transformers `CLIPEncoderLayer`.
#[derive(Debug)]
pub(crate) struct ClipLayer {
    norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl ClipLayer {
    pub(crate) fn new(vs: &Path, sizes: LayerSizes) -> Self {
        let LayerSizes { width, inside, heads, activation, .. } = sizes;
        let project = |name| linear(&(vs / "self_attn" / name), width, width, true);
        Self {
            norm1: norm(&(vs / "layer_norm1"), sizes),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            norm2: norm(&(vs / "layer_norm2"), sizes),
            fc1: linear(&(vs / "mlp" / "fc1"), width, inside, true),
            fc2: linear(&(vs / "mlp" / "fc2"), inside, width, true),
            heads,
            activation,
        }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let linear = [&self.q_proj, &self.k_proj, &self.v_proj, &self.out_proj, &self.fc1, &self.fc2];
        let linear = linear.into_iter().flat_map(Linear::parameters);
        linear.chain(of_norm(&self.norm1)).chain(of_norm(&self.norm2))
    }

    /// Maps `[B, L, D]` to the same shape, with an `attention` of q, k and v.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        attention: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let normed = x.apply(&self.norm1);
        let heads = |layer: &Linear| split_heads(&normed.apply(layer), self.heads); // [B, heads, L, d]
        let attended = attention(&heads(&self.q_proj), &heads(&self.k_proj), &heads(&self.v_proj));
        let x = self.out_proj.plus(&merge_heads(&attended), x);
        let inside = x.apply(&self.norm2).apply(&self.fc1);
        let inside = match self.activation {
            Activation::QuickGelu => &inside * (&inside * 1.702).sigmoid(),
            Activation::Gelu => inside.gelu("none"),
        };
        self.fc2.plus(&inside, &x)
    }
}
