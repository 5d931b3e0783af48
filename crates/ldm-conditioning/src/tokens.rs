//! What a conditioner of tokens reads of a prompt: tokens, made of its text or its boxes, or given.

use ldm_core::{Error, Prompt, Result};
use tch::{Device, Kind, Tensor};

use crate::layout::LayoutTokens;
use crate::{Tokenizer, TokenizerKind};

/// Reads tokens out of prompts, for one model.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// What makes tokens of text for this model; none where it takes boxes or tokens alone.
    kind: Option<TokenizerKind>,
    tokenizer: Option<Tokenizer>,
    /// What makes tokens of boxes; none where the model takes text, or has no room for a box.
    layout: Option<LayoutTokens>,
    vocab_size: i64,
    max_length: i64,
}

impl Tokens {
    /// For a model of `vocab_size` tokens and at most `max_length` of them a prompt.
    pub(crate) fn new(
        kind: Option<TokenizerKind>,
        tokenizer: Option<Tokenizer>,
        vocab_size: i64,
        max_length: i64,
    ) -> Result<Self> {
        // A model that takes tokens alone passes a tokenizer over.
        let tokenizer = tokenizer.filter(|_| kind.is_some());
        if let (Some(kind), Some(tokenizer)) = (kind, &tokenizer) {
            if tokenizer.kind() != kind {
                let got = tokenizer.kind();
                return Err(Error::invalid(format!("this model needs a {kind} tokenizer, got one of {got}")));
            }
            let count = tokenizer.vocab_size();
            if count > vocab_size {
                return Err(Error::invalid(format!(
                    "the tokenizer has {count} tokens, and the model knows {vocab_size} (vocab_size)"
                )));
            }
            if max_length < 2 {
                return Err(Error::invalid(format!(
                    "a text needs at least 2 tokens, its beginning and its end, and the model has room for \
                     {max_length}"
                )));
            }
        }
        let layout =
            if kind.is_none() { LayoutTokens::new(vocab_size, max_length as usize).ok() } else { None };
        Ok(Self { kind, tokenizer, layout, vocab_size, max_length })
    }

    /// `[B, L]` i64: `prompt.tokens` where there are any, else the tokens of `prompt.text`, or of `prompt.layout` where
    /// the model reads no text, padded to the most the model takes.
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
        // Reading values from a GPU waits for it: once for a sample is nothing, in every training step it is not.
        if tokens.numel() == 0 || (train && tokens.device() != Device::Cpu) {
            return Ok(());
        }
        let (low, high) = (tokens.min().int64_value(&[]), tokens.max().int64_value(&[]));
        let wrong = if low < 0 { low } else { high };
        if (0..self.vocab_size).contains(&wrong) {
            return Ok(());
        }
        let last = self.vocab_size - 1;
        Err(Error::invalid(format!("tokens: this model knows the tokens 0 to {last}, got {wrong}")))
    }

    /// Empty texts; with a tokenizer their tokens too, so that tokens made ahead can be replaced by them. Where tokens
    /// are layouts, the one that fills unused places, the vocabulary's last (taming-transformers'
    /// `objects_center_points.py:40` `none`), everywhere: no boxes at all.
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

    /// Of each text, what does not fit.
    pub(crate) fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        let (Some(tokenizer), Some(texts), None) = (&self.tokenizer, &prompt.text, &prompt.tokens) else {
            return Vec::new();
        };
        // What cannot be encoded says so where it is needed.
        tokenizer.encode(texts, self.max_length as usize).map(|encoding| encoding.cut).unwrap_or_default()
    }
}
