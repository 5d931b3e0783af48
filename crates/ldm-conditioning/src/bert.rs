//! Text and token embedders trained with the U-Net.

pub(crate) mod token_encoder;
pub(crate) mod transformer;

use ldm_core::{Conditioning, Prompt, Result, upload};
use serde::{Deserialize, Serialize};
use tch::nn;

use crate::bert::token_encoder::{TokenEncoder, TokenEncoderConfig};
use crate::checks::at_least_one;
use crate::tokens::Tokens;
use crate::{Conditioner, Tokenizer, TokenizerKind};

/// Configuration of a [`BertEmbedder`], under CompVis' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// `D`, channels of a token.
    pub n_embed: i64,
    /// Layers of attention and feed-forward.
    pub n_layer: i64,
    /// Vocabulary size.
    #[serde(default = "vocab_size")]
    pub vocab_size: i64,
    /// `L`, the number of tokens that texts are truncated and padded to.
    #[serde(default = "max_seq_len")]
    pub max_seq_len: i64,
    /// CompVis' device. Inert: the weights decide the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// If true, prompts are text, else tokens.
    #[serde(default = "yes")]
    pub use_tokenizer: bool,
    /// Dropout probability of the embedded tokens in training, in `[0, 1)`.
    #[serde(default)]
    pub embedding_dropout: f64,
}

fn vocab_size() -> i64 {
    30522
}

pub(crate) fn max_seq_len() -> i64 {
    77
}

fn yes() -> bool {
    true
}

impl BertConfig {
    /// Checks the sizes.
    pub(crate) fn check(&self) -> Result<()> {
        at_least_one(
            "bert conditioning",
            &[
                ("n_embed", self.n_embed),
                ("n_layer", self.n_layer),
                ("vocab_size", self.vocab_size),
                ("max_seq_len", self.max_seq_len),
            ],
        )
    }

    fn encoder(&self) -> TokenEncoderConfig {
        TokenEncoderConfig {
            width: self.n_embed,
            layers: self.n_layer,
            vocab_size: self.vocab_size,
            max_length: self.max_seq_len,
            dropout: self.embedding_dropout,
        }
    }
}

/// A transformer encoder of tokens, trained with the U-Net; only its tokenizer is BERT's.
///
/// No token is masked: the encoder and the U-Net attend to padding. CompVis `encoders/modules.py:80`
/// `BERTEmbedder`.
#[derive(Debug)]
pub struct BertEmbedder {
    tokens: Tokens,
    transformer: TokenEncoder,
}

impl BertEmbedder {
    /// The embedder with its weights at `vs / "transformer"`. Without a tokenizer it takes only `prompt.tokens`.
    ///
    /// # Errors
    /// If a size is invalid, or the tokenizer is of another kind or has more tokens than the model.
    pub fn new(vs: &nn::Path, config: &BertConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        config.check()?;
        let kind = config.use_tokenizer.then_some(TokenizerKind::Bert);
        let tokens = Tokens::new(kind, tokenizer, config.vocab_size, config.max_seq_len)?;
        let transformer = TokenEncoder::new(&(vs / "transformer"), &config.encoder())?;
        Ok(Self { tokens, transformer })
    }
}

impl Conditioner for BertEmbedder {
    /// # Shapes
    /// - `prompt.tokens`: `[B, L]` integers in `0..vocab_size`, `L` at most `max_seq_len`; or `prompt.text`, `B` texts
    /// - returns context `[B, L, D]`, with `L = max_seq_len` for a text
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let tokens = upload(&self.tokens.read(prompt, train)?, self.transformer.device());
        let context = self.transformer.forward(&tokens, train);
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.tokens.null_prompt(batch)
    }

    fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.tokens.cut(prompt)
    }
}
