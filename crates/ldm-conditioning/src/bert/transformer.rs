//! The embedder of tokens without a tokenizer.

use ldm_core::{Conditioning, Prompt, Result, upload};
use serde::{Deserialize, Serialize};
use tch::nn;

use crate::Conditioner;
use crate::bert::max_seq_len;
use crate::bert::token_encoder::{TokenEncoder, TokenEncoderConfig};
use crate::checks::at_least_one;
use crate::tokens::Tokens;

/// Configuration of a [`TransformerEmbedder`], under CompVis' names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// `D`, channels of a token.
    pub n_embed: i64,
    /// Layers of attention and feed-forward.
    pub n_layer: i64,
    /// Vocabulary size.
    pub vocab_size: i64,
    /// Maximal number of tokens of a prompt.
    #[serde(default = "max_seq_len")]
    pub max_seq_len: i64,
    /// CompVis' device. Inert: the weights decide the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl TransformerConfig {
    fn encoder(&self) -> TokenEncoderConfig {
        TokenEncoderConfig {
            width: self.n_embed,
            layers: self.n_layer,
            vocab_size: self.vocab_size,
            max_length: self.max_seq_len,
            dropout: 0.,
        }
    }
}

/// [`BertEmbedder`](crate::BertEmbedder) without a tokenizer and without dropout.
///
/// CompVis `encoders/modules.py:36` `TransformerEmbedder`.
#[derive(Debug)]
pub struct TransformerEmbedder {
    tokens: Tokens,
    transformer: TokenEncoder,
}

impl TransformerEmbedder {
    /// The embedder with its weights at `vs / "transformer"`.
    ///
    /// # Errors
    /// If a size is not positive.
    pub fn new(vs: &nn::Path, config: &TransformerConfig) -> Result<Self> {
        at_least_one(
            "transformer conditioning",
            &[
                ("n_embed", config.n_embed),
                ("n_layer", config.n_layer),
                ("vocab_size", config.vocab_size),
                ("max_seq_len", config.max_seq_len),
            ],
        )?;
        let tokens = Tokens::new(None, None, config.vocab_size, config.max_seq_len)?;
        let transformer = TokenEncoder::new(&(vs / "transformer"), &config.encoder())?;
        Ok(Self { tokens, transformer })
    }
}

impl Conditioner for TransformerEmbedder {
    /// # Shapes
    /// - `prompt.tokens`: `[B, L]` integers in `0..vocab_size`, `L` at most `max_seq_len`
    /// - returns context `[B, L, D]`
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let tokens = upload(&self.tokens.read(prompt, train)?, self.transformer.device());
        let context = self.transformer.forward(&tokens, train);
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.tokens.null_prompt(batch)
    }
}
