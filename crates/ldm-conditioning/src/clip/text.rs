//! CLIP's text model, the frozen conditioner of Stable Diffusion.

use ldm_core::nn::attention::causal_attention;
use ldm_core::nn::embedding;
use ldm_core::{Conditioning, Prompt, Result};
use tch::Tensor;
use tch::nn::{self, Init, LayerNorm, Path};

use crate::clip::layer::{ClipLayer, LayerSizes, norm, of_norm};
use crate::tokens::Tokens;
use crate::{ClipTextConfig, Conditioner, Tokenizer, TokenizerKind};

/// CLIP's text model (Radford et al. 2021, §2.4): every token after the last norm, neither pooled nor projected.
///
/// Attention is causal and does not mask padding; the U-Net attends to padding too. The weights are frozen, as in the
/// reference, unless a caller sets `requires_grad` of one. CompVis' Stable Diffusion `encoders/modules.py:137`
/// `FrozenCLIPEmbedder`, which is transformers' `CLIPTextModel`.
#[derive(Debug)]
pub struct ClipTextEmbedder {
    tokens: Tokens,
    token_embedding: nn::Embedding,    //    [V, D]
    position_embedding: nn::Embedding, // [L, D]
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextEmbedder {
    /// The embedder with its weights at `vs / "transformer" / "text_model"`. Without a tokenizer it takes
    /// `prompt.tokens` alone.
    ///
    /// # Errors
    /// If a size is invalid, or the tokenizer is of another kind or has more tokens than the model.
    pub fn new(vs: &Path, config: &ClipTextConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        Self::within(&(vs / "transformer" / "text_model"), config, tokenizer)
    }

    /// [`ClipTextEmbedder::new`] with the weights directly at `vs`.
    pub(crate) fn within(vs: &Path, config: &ClipTextConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        config.check()?;
        let kind = Some(TokenizerKind::Clip);
        let tokens = Tokens::new(kind, tokenizer, config.vocab_size, config.max_length)?;
        let table = |name, count| {
            let init = Init::Randn { mean: 0., stdev: 0.02 };
            embedding(&(vs / "embeddings" / name), count, config.hidden_size, init)
        };
        let sizes = LayerSizes {
            width: config.hidden_size,
            inside: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
        };
        let layer = |index| ClipLayer::new(&(vs / "encoder" / "layers" / index), sizes);
        let embedder = Self {
            tokens,
            token_embedding: table("token_embedding", config.vocab_size),
            position_embedding: table("position_embedding", config.max_position_embeddings),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_layer_norm: norm(&(vs / "final_layer_norm"), sizes),
        };
        for weight in embedder.parameters() {
            let _ = weight.set_requires_grad(false);
        }
        Ok(embedder)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let mut all = vec![&self.token_embedding.ws, &self.position_embedding.ws];
        all.extend(self.layers.iter().flat_map(ClipLayer::parameters));
        all.extend(of_norm(&self.final_layer_norm));
        all
    }

    /// Encodes `[B, L]` i64 on the device of the weights as `[B, L, D]`.
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let length = tokens.size()[1];
        let positions = self.position_embedding.ws.narrow(0, 0, length); // [L, D]
        let x = tokens.apply(&self.token_embedding) + positions; //         [B, L, D]
        self.layers
            .iter()
            .fold(x, |x, layer| layer.forward(&x, causal_attention))
            .apply(&self.final_layer_norm)
    }
}

impl ClipTextEmbedder {
    /// The token at the end mark of each text, which attends to all of it: `[B, D]`. The end mark is the greatest token;
    /// openai/CLIP `model.py:354`.
    pub(crate) fn pooled(&self, prompt: &Prompt) -> Result<Tensor> {
        let tokens = self.tokens.read(prompt, false)?.to_device(self.token_embedding.ws.device());
        let context = self.forward(&tokens); //                                                [B, L, D]
        let end = tokens.argmax(1, true).unsqueeze(2).expand([-1, -1, context.size()[2]], false);
        Ok(context.gather(1, &end, false).squeeze_dim(1))
    }
}

impl Conditioner for ClipTextEmbedder {
    /// # Shapes
    /// - `prompt.text`, `B` texts; or `prompt.tokens`: `[B, L]` integers in `0..vocab_size`, `L` at most `max_length`
    /// - returns context `[B, L, D]`, with `L = max_length` for a text
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
