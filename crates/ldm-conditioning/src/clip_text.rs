//! Text through CLIP's text model, frozen: what Stable Diffusion is conditioned on.

use ldm_core::nn::attention::{causal_attention, merge_heads, split_heads};
use ldm_core::nn::{embedding, linear};
use ldm_core::{Conditioning, Prompt, Result};
use tch::Tensor;
use tch::nn::{self, Init, LayerNorm, LayerNormConfig, Linear, Path};

use crate::tokens::Tokens;
use crate::{Activation, ClipTextConfig, Conditioner, Tokenizer, TokenizerKind};

/// CLIP's text model (Radford et al. 2021, §2.4): every token after the last norm, not pooled and not projected.
///
/// A token sees itself and what stands before it; padding is not masked beyond that, and the U-Net attends to it. The
/// weights take no gradients, as the reference's, until a caller says so for one of them. CompVis' Stable Diffusion `encoders/modules.py:137`
/// `FrozenCLIPEmbedder`, which is transformers' `CLIPTextModel`.
#[derive(Debug)]
pub struct ClipTextEmbedder {
    tokens: Tokens,
    token_embedding: nn::Embedding,    //    [V, D]
    position_embedding: nn::Embedding, // [L, D]
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextEmbedder {
    /// The embedder with its weights at `vs / "transformer" / "text_model"`. Without a tokenizer it takes
    /// `prompt.tokens` alone.
    ///
    /// # Errors
    /// When a size cannot be, or the tokenizer is of another kind or has more tokens than the model.
    pub fn new(vs: &Path, config: &ClipTextConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        config.check()?;
        let kind = Some(TokenizerKind::Clip);
        let tokens = Tokens::new(kind, tokenizer, config.vocab_size, config.max_length)?;
        let vs = vs / "transformer" / "text_model";
        let table = |name, count| {
            let init = Init::Randn { mean: 0., stdev: 0.02 };
            embedding(&(&vs / "embeddings" / name), count, config.hidden_size, init)
        };
        let layer = |index| Layer::new(&(&vs / "encoder" / "layers" / index), config);
        let embedder = Self {
            tokens,
            token_embedding: table("token_embedding", config.vocab_size),
            position_embedding: table("position_embedding", config.max_position_embeddings),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_layer_norm: norm(&(&vs / "final_layer_norm"), config),
        };
        for weight in embedder.parameters() {
            let _ = weight.set_requires_grad(false);
        }
        Ok(embedder)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let mut all = vec![&self.token_embedding.ws, &self.position_embedding.ws];
        all.extend(self.layers.iter().flat_map(Layer::parameters));
        all.extend(of_norm(&self.final_layer_norm));
        all
    }

    /// `[B, L]` i64 on the device of the weights → `[B, L, D]`.
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let length = tokens.size()[1];
        let positions = self.position_embedding.ws.narrow(0, 0, length); // [L, D]
        let x = tokens.apply(&self.token_embedding) + positions; //         [B, L, D]
        self.layers.iter().fold(x, |x, layer| layer.forward(&x)).apply(&self.final_layer_norm)
    }
}

impl Conditioner for ClipTextEmbedder {
    /// # Shapes
    /// - `prompt.text`, `B` texts; or `prompt.tokens`: `[B, L]` integers in `0..vocab_size`, `L` at most `max_length`
    /// - returns context `[B, L, D]`, of a text with `L = max_length`
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let tokens = self.tokens.read(prompt, train)?.to_device(self.token_embedding.ws.device());
        Ok(Conditioning { context: Some(self.forward(&tokens)), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.tokens.null_prompt(batch)
    }

    fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.tokens.cut(prompt)
    }
}

fn norm(vs: &Path, config: &ClipTextConfig) -> LayerNorm {
    let settings = LayerNormConfig { eps: config.layer_norm_eps, ..LayerNormConfig::default() };
    nn::layer_norm(vs, vec![config.hidden_size], settings)
}

fn of_norm(norm: &LayerNorm) -> impl Iterator<Item = &Tensor> {
    norm.ws.iter().chain(&norm.bs)
}

/// Attention, then feed-forward, each after a norm. transformers `CLIPEncoderLayer`.
#[derive(Debug)]
struct Layer {
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

impl Layer {
    fn new(vs: &Path, config: &ClipTextConfig) -> Self {
        let (width, inside) = (config.hidden_size, config.intermediate_size);
        let project = |name| linear(&(vs / "self_attn" / name), width, width, true);
        Self {
            norm1: norm(&(vs / "layer_norm1"), config),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            norm2: norm(&(vs / "layer_norm2"), config),
            fc1: linear(&(vs / "mlp" / "fc1"), width, inside, true),
            fc2: linear(&(vs / "mlp" / "fc2"), inside, width, true),
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        }
    }

    fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let linear = [&self.q_proj, &self.k_proj, &self.v_proj, &self.out_proj, &self.fc1, &self.fc2];
        let linear = linear.into_iter().flat_map(|layer| std::iter::once(&layer.ws).chain(&layer.bs));
        linear.chain(of_norm(&self.norm1)).chain(of_norm(&self.norm2))
    }

    /// `[B, L, D]` → the same.
    fn forward(&self, x: &Tensor) -> Tensor {
        let normed = x.apply(&self.norm1);
        let heads = |layer: &Linear| split_heads(&normed.apply(layer), self.heads); // [B, heads, L, d]
        let seen = causal_attention(&heads(&self.q_proj), &heads(&self.k_proj), &heads(&self.v_proj));
        let x = x + merge_heads(&seen).apply(&self.out_proj);
        let inside = x.apply(&self.norm2).apply(&self.fc1);
        let inside = match self.activation {
            Activation::QuickGelu => &inside * (&inside * 1.702).sigmoid(),
            Activation::Gelu => inside.gelu("none"),
        };
        x + inside.apply(&self.fc2)
    }
}
