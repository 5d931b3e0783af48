//! The transformer of the token embedders.

use ldm_core::nn::attention::{attention, merge_heads, split_heads};
use ldm_core::nn::{Linear, embedding, layer_norm, linear};
use ldm_core::{Error, Result};
use tch::nn::{Embedding, Init, LayerNorm, Path};
use tch::{Device, Tensor};

/// CompVis' `DEFAULT_DIM_HEAD` and `heads`, fixed for every config (`x_transformer.py:12`, `:374`).
pub(crate) const HEADS: i64 = 8;
pub(crate) const HEAD_WIDTH: i64 = 64;
/// Expansion factor of the feed-forward layers.
pub(crate) const FEED_FORWARD: i64 = 4;

/// Configuration of a [`TokenEncoder`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenEncoderConfig {
    pub(crate) width: i64,
    pub(crate) layers: i64,
    pub(crate) vocab_size: i64,
    pub(crate) max_length: i64,
    pub(crate) dropout: f64,
}

/// A pre-norm transformer encoder of tokens with learned positions (Xiong et al. 2020): x-transformers with the options
/// of CompVis. No token is masked.
///
/// CompVis `x_transformer.py:548` `TransformerWrapper` around `:541` `Encoder`.
#[derive(Debug)]
pub(crate) struct TokenEncoder {
    token_emb: Embedding, // [V, D]
    pos_emb: Embedding,   // [L, D]
    layers: Vec<(SelfAttention, EncoderFeedForward)>,
    norm: LayerNorm,
    /// Unused, but in every state dict of CompVis.
    _to_logits: Linear,
    dropout: f64,
}

impl TokenEncoder {
    pub(crate) fn new(vs: &Path, config: &TokenEncoderConfig) -> Result<Self> {
        let TokenEncoderConfig { width, layers, vocab_size, max_length, dropout } = *config;
        if !(0. ..1.).contains(&dropout) {
            return Err(Error::invalid(format!(
                "embedding_dropout: expected a probability in [0, 1), got {dropout}"
            )));
        }
        let table = |vs, count| embedding(&vs, count, width, Init::Randn { mean: 0., stdev: 0.02 });
        let below = vs / "attn_layers" / "layers";
        let layers = (0..layers)
            .map(|layer| {
                let attention = SelfAttention::new(&(&below / (2 * layer)), width);
                (attention, EncoderFeedForward::new(&(&below / (2 * layer + 1)), width))
            })
            .collect();
        Ok(Self {
            token_emb: table(vs / "token_emb", vocab_size),
            pos_emb: table(vs / "pos_emb" / "emb", max_length),
            layers,
            norm: layer_norm(&(vs / "norm"), width),
            _to_logits: linear(&(vs / "to_logits"), width, vocab_size, true),
            dropout,
        })
    }

    pub(crate) fn device(&self) -> Device {
        self.token_emb.ws.device()
    }

    /// Encodes `[B, L]` i64 on the device of the weights as `[B, L, D]`.
    pub(crate) fn forward(&self, tokens: &Tensor, train: bool) -> Tensor {
        let length = tokens.size()[1];
        let positions = self.pos_emb.ws.narrow(0, 0, length); //         [L, D]
        let x = tokens.apply(&self.token_emb) + positions; //           [B, L, D]
        let x = x.dropout(self.dropout, train);
        let each = |x: Tensor, (attention, feed_forward): &(SelfAttention, EncoderFeedForward)| {
            let x = &x + attention.forward(&x);
            &x + feed_forward.forward(&x)
        };
        self.layers.iter().fold(x, each).apply(&self.norm)
    }
}

/// Pre-norm self-attention, the first half of a layer. CompVis `x_transformer.py:215` `Attention`.
#[derive(Debug)]
struct SelfAttention {
    norm: LayerNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl SelfAttention {
    fn new(vs: &Path, width: i64) -> Self {
        let (block, inner) = (vs / 1, HEADS * HEAD_WIDTH);
        Self {
            norm: layer_norm(&(vs / 0), width),
            to_q: linear(&(&block / "to_q"), width, inner, false),
            to_k: linear(&(&block / "to_k"), width, inner, false),
            to_v: linear(&(&block / "to_v"), width, inner, false),
            to_out: linear(&(&block / "to_out"), inner, width, true),
        }
    }

    /// Maps `[B, L, D]` to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.apply(&self.norm);
        let heads = |layer: &Linear| split_heads(&x.apply(layer), HEADS); // [B, heads, L, d]
        merge_heads(&attention(&heads(&self.to_q), &heads(&self.to_k), &heads(&self.to_v)))
            .apply(&self.to_out)
    }
}

/// Pre-norm feed-forward, the second half of a layer. CompVis `x_transformer.py:194` `FeedForward`, without a gate.
#[derive(Debug)]
struct EncoderFeedForward {
    norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl EncoderFeedForward {
    fn new(vs: &Path, width: i64) -> Self {
        let net = vs / 1 / "net";
        Self {
            norm: layer_norm(&(vs / 0), width),
            up: linear(&(&net / 0 / 0), width, FEED_FORWARD * width, true),
            down: linear(&(&net / 2), FEED_FORWARD * width, width, true),
        }
    }

    /// Maps `[B, L, D]` to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        x.apply(&self.norm).apply(&self.up).gelu("none").apply(&self.down)
    }
}
