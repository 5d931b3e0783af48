//! Tokens of a prompt: given, or from its text or its boxes.

use ldm_core::{Error, Prompt, Result};
use tch::{Device, Kind, Tensor};

use crate::layout::LayoutTokens;
use crate::{Tokenizer, TokenizerKind};

/// Converts prompts to tokens for one model.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The kind of tokenizer; `None` for a model of boxes or tokens.
    kind: Option<TokenizerKind>,
    tokenizer: Option<Tokenizer>,
    /// The encoder of boxes; `None` for a model of text, or without room for a box.
    layout: Option<LayoutTokens>,
    vocab_size: i64,
    max_length: i64,
}

impl Tokens {
    /// Creates the converter for a model of `vocab_size` tokens, at most `max_length` per prompt.
    pub(crate) fn new(
        kind: Option<TokenizerKind>,
        tokenizer: Option<Tokenizer>,
        vocab_size: i64,
        max_length: i64,
    ) -> Result<Self> {
        // A model that takes only tokens ignores a tokenizer.
        let tokenizer = tokenizer.filter(|_| kind.is_some());
        if let (Some(kind), Some(tokenizer)) = (kind, &tokenizer) {
            if tokenizer.kind() != kind {
                let got = tokenizer.kind();
                return Err(Error::invalid(format!("tokenizer: expected {kind}, got {got}")));
            }
            let count = tokenizer.vocab_size();
            if count > vocab_size {
                return Err(Error::invalid(format!(
                    "tokenizer: expected at most {vocab_size} tokens (vocab_size), got {count}"
                )));
            }
            if max_length < 2 {
                return Err(Error::invalid(format!(
                    "max_length: expected at least 2 tokens, for start and end, got {max_length}"
                )));
            }
        }
        let layout =
            if kind.is_none() { LayoutTokens::new(vocab_size, max_length as usize).ok() } else { None };
        Ok(Self { kind, tokenizer, layout, vocab_size, max_length })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The model's length.
    pub(crate) fn max_length(&self) -> i64 {
        self.max_length
    }

    /// Returns `[B, L]` i64: `prompt.tokens` if given, else the tokens of `prompt.text`, or of `prompt.layout` if the model
    /// reads no text, padded to the maximal length.
    pub(crate) fn read(&self, prompt: &Prompt, train: bool) -> Result<Tensor> {
        if let Some(tokens) = &prompt.tokens {
            self.check(tokens, train)?;
            return Ok(tokens.to_kind(Kind::Int64));
        }
        let Some(kind) = self.kind else {
            return match (&self.layout, &prompt.layout) {
                (Some(tokens), Some(boxes)) => tokens.encode(boxes, prompt.crops.as_deref()),
                (Some(_), None) => Err(Error::MissingInput("layout` or `tokens")),
                (None, _) => Err(Error::MissingInput("tokens")),
            };
        };
        let texts = prompt.text.as_ref().ok_or(Error::MissingInput("text"))?;
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| kind.missing())?;
        Ok(tokenizer.encode(texts, self.max_length as usize)?.ids)
    }

    fn check(&self, tokens: &Tensor, train: bool) -> Result<()> {
        if !matches!(tokens.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8) {
            let got = tokens.kind();
            return Err(Error::invalid(format!("tokens: expected integers, got {got:?}")));
        }
        if tokens.dim() != 2 || tokens.size()[1] > self.max_length {
            let expected = format!("[B, L] with L at most {}", self.max_length);
            return Err(Error::Shape { what: "tokens".into(), expected, got: tokens.size() });
        }
        // Reading values from a GPU synchronizes: acceptable once per sample, not in every training step.
        if tokens.numel() == 0 || (train && tokens.device() != Device::Cpu) {
            return Ok(());
        }
        let (low, high) = (tokens.min().int64_value(&[]), tokens.max().int64_value(&[]));
        let wrong = if low < 0 { low } else { high };
        if (0..self.vocab_size).contains(&wrong) {
            return Ok(());
        }
        let last = self.vocab_size - 1;
        Err(Error::invalid(format!("tokens: expected 0 to {last}, got {wrong}")))
    }

    /// Returns empty texts; with a tokenizer their tokens too, to replace precomputed tokens. For layouts, no boxes: the last
    /// token of the vocabulary, which fills unused slots, everywhere (taming-transformers'
    /// `objects_center_points.py:40` `none`).
    pub(crate) fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        if self.kind.is_none() {
            let none =
                Tensor::full([batch, self.max_length], self.vocab_size - 1, (Kind::Int64, Device::Cpu));
            return Ok(Prompt { tokens: Some(none), ..Prompt::default() });
        }
        let texts = vec![String::new(); batch as usize];
        let tokens = match &self.tokenizer {
            Some(tokenizer) => Some(tokenizer.encode(&texts, self.max_length as usize)?.ids),
            None => None,
        };
        Ok(Prompt { text: Some(texts), tokens, ..Prompt::default() })
    }

    /// Returns the truncated part of each text.
    pub(crate) fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        let (Some(tokenizer), Some(texts), None) = (&self.tokenizer, &prompt.text, &prompt.tokens) else {
            return Vec::new();
        };
        // A text that cannot be encoded is an error where it is used.
        tokenizer.encode(texts, self.max_length as usize).map(|encoding| encoding.cut).unwrap_or_default()
    }
}
