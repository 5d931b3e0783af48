//! Attention over all pixels.

use ldm_core::Result;
use ldm_core::nn::attention::token_attention;
use ldm_core::nn::{Added, Conv2d, GroupNorm, NormStats, conv2d, conv2d_1x1};
use tch::Tensor;
use tch::nn::{Module, Path};

use crate::encoder_config::AttentionType;
use crate::layer_context::LayerContext;
use crate::resnet::NORM_EPS;

/// Optional attention after a residual block.
#[derive(Debug)]
pub(crate) enum Attention {
    Vanilla(Box<AttnBlock>),
    Linear(Box<LinearAttention>),
    None,
}

impl Attention {
    pub(crate) fn new(vs: &Path, channels: i64, kind: AttentionType) -> Result<Self> {
        Ok(match kind {
            AttentionType::Vanilla => Self::Vanilla(Box::new(AttnBlock::new(vs, channels)?)),
            AttentionType::Linear => Self::Linear(Box::new(LinearAttention::new(vs, channels))),
            AttentionType::None => Self::None,
        })
    }

    pub(crate) fn forward(&self, x: Tensor, context: &mut LayerContext) -> Tensor {
        match self {
            Self::Vanilla(block) => block.forward(&x, context),
            Self::Linear(block) => block.forward(&x, context),
            Self::None => x,
        }
    }
}

/// x + proj_out(attention(q, k, v)) with one head and 1×1 convolutions. CompVis `model.py:150`.
#[derive(Debug)]
pub(crate) struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    fn new(vs: &Path, channels: i64) -> Result<Self> {
        let conv = |name: &str| conv2d(&(vs / name), channels, channels, 1, 1, 0);
        Ok(Self {
            norm: GroupNorm::new(&(vs / "norm"), channels, NORM_EPS)?,
            q: conv("q"),
            k: conv("k"),
            v: conv("v"),
            proj_out: conv("proj_out"),
        })
    }

    fn forward(&self, x: &Tensor, context: &mut LayerContext) -> Tensor {
        let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
        let h = self.norm.forward_by(x, &mut context.norm_stats);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|conv| tokens(&conv.forward(&h)));
        let [k, v] = record_or_replay([k, v], &mut context.norm_stats);
        let h = token_attention(&q, &k, &v, 1); // [B, L, C]
        self.proj_out.plus(&pixels(&h, height, width), Added { to_image: None, residual: Some(x) })
    }
}

/// to_out(q·(softmax(k)ᵀ v)), the softmax over pixels, one head. Neither norm nor residual: its output replaces x, as
/// in CompVis (`attention.py:80`, `model.py:144`).
#[derive(Debug)]
pub(crate) struct LinearAttention {
    to_qkv: Conv2d,
    to_out: Conv2d,
}

impl LinearAttention {
    fn new(vs: &Path, channels: i64) -> Self {
        Self {
            to_qkv: conv2d_1x1(&(vs / "to_qkv"), channels, 3 * channels, false),
            to_out: conv2d(&(vs / "to_out"), channels, channels, 1, 1, 0),
        }
    }

    fn forward(&self, x: &Tensor, context: &mut LayerContext) -> Tensor {
        let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
        let qkv = tokens(&self.to_qkv.forward(x)).chunk(3, 2);
        let [q, k, v] = [&qkv[0], &qkv[1], &qkv[2]]; //                [B, L, C] each
        let [k, v] = record_or_replay([k.shallow_clone(), v.shallow_clone()], &mut context.norm_stats);
        let summary = k.softmax(1, k.kind()).transpose(1, 2).matmul(&v); // [B, C, C]
        self.to_out.forward(&pixels(&q.matmul(&summary), height, width))
    }
}

/// Keys and values: those of the whole latent while a tile is decoded (`Replay`).
fn record_or_replay(own: [Tensor; 2], norm_stats: &mut NormStats) -> [Tensor; 2] {
    match norm_stats {
        NormStats::Local => own,
        NormStats::Record(recorded) => {
            recorded.push(own.each_ref().map(Tensor::shallow_clone));
            own
        }
        NormStats::Replay(recorded) => {
            recorded.next().expect("one entry per recorded layer").each_ref().map(Tensor::shallow_clone)
        }
    }
}

/// `[B, C, h, w]` → `[B, h·w, C]`, contiguous: a view of a channels_last tensor, a copy of another.
fn tokens(x: &Tensor) -> Tensor {
    x.flatten(2, 3).transpose(1, 2).contiguous()
}

/// `[B, h·w, C]` → `[B, C, h, w]`, a channels_last view.
fn pixels(x: &Tensor, height: i64, width: i64) -> Tensor {
    let (batch, _, channels) = x.size3().expect("[B, L, C]");
    x.transpose(1, 2).reshape([batch, channels, height, width])
}
