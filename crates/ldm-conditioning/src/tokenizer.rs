//! Tokenizers of texts.

mod bert;
mod clip;
mod export;
pub(crate) mod files;
pub(crate) mod kind;

use std::path::Path;

use ldm_core::{Error, Result};
use tch::Tensor;

use crate::TokenizerKind;
use crate::tokenizer::files::open;

/// A tokenizer equal to those of CompVis.
///
/// Its ids are those of transformers' `BertTokenizer` (`bert-base-uncased`) and `CLIPTokenizer`
/// (`openai/clip-vit-large-patch14`) in transformers 5, the "fast" ones of earlier releases.
///
/// The `CLIPTokenizer` at the time of CompVis' Stable Diffusion differed in rare characters. With `ftfy`, as in the
/// reference's environment, it repaired text first: mojibake, HTML entities, curly quotes, ligatures, full-width letters.
/// Without, it removed control characters and separated CJK characters. Neither is done here, as in transformers today.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    kind: TokenizerKind,
    inner: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
}

/// A batch of texts as tokens.
#[derive(Debug)]
pub struct Encoding {
    /// `[B, L]` i64 on the CPU.
    pub ids: Tensor,
    /// The truncated part of each text.
    pub cut: Vec<Option<String>>,
}

impl Tokenizer {
    /// Reads a tokenizer from a folder or a file.
    ///
    /// A folder holds `tokenizer.json`; for CLIP `vocab.json` and `merges.txt`, or OpenAI's
    /// `bpe_simple_vocab_16e6.txt.gz`; for BERT `vocab.txt` or `bert-base-uncased-vocab.txt`; or a folder
    /// `tokenizer` with one of these, as in models of diffusers. A file is `tokenizer.json`, BERT's list of words, or
    /// CLIP's list of merges, plain or gzipped.
    ///
    /// # Errors
    /// If there is none of that kind, with the command to get it; if a file is damaged or of another kind.
    pub fn open(kind: TokenizerKind, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut inner, pad) = open(kind, path)?;
        // A file may set both; here they are arguments.
        inner.with_padding(None);
        inner.with_truncation(None).expect("no truncation is valid");
        let [start, end, default_pad] = kind.marks();
        let id = |token: &str| {
            inner.token_to_id(token).ok_or_else(|| {
                Error::format(
                    path,
                    format!("expected a {kind} tokenizer, got one without the token `{token}`"),
                )
            })
        };
        let (start, end, pad) = (id(start)?, id(end)?, id(pad.as_deref().unwrap_or(default_pad))?);
        Ok(Self { kind, inner, start, end, pad })
    }

    /// The kind.
    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// The wrapped tokenizer.
    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Start, end and padding tokens.
    pub(crate) fn marks(&self) -> [u32; 3] {
        [self.start, self.end, self.pad]
    }

    /// The greatest id plus one; ids may have gaps.
    pub fn vocab_size(&self) -> i64 {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| i64::from(id) + 1)
    }

    /// Encodes a text without marks: each token, and its place in bytes.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<(i64, usize)>> {
        let encoding = self.inner.encode(text, false).map_err(|error| {
            Error::invalid(format!("text `{text}`: expected text for the tokenizer: {error}"))
        })?;
        let places = encoding.get_offsets().iter().map(|(from, _)| *from);
        Ok(encoding.get_ids().iter().copied().map(i64::from).zip(places).collect())
    }

    /// The number of a token.
    pub(crate) fn id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// Encodes each text as `max_length` tokens: start token, text, truncated if too long, end token, padding.
    ///
    /// # Errors
    /// If the tokenizer fails, which the published ones never do.
    ///
    /// # Panics
    /// If `max_length` has no room for start and end token.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S], max_length: usize) -> Result<Encoding> {
        assert!(max_length >= 2, "expected room for start and end token");
        let mut ids = Vec::with_capacity(texts.len() * max_length);
        let mut cut = Vec::with_capacity(texts.len());
        for text in texts {
            let text = text.as_ref();
            let all = self.tokens(text)?;
            let room = max_length - 2;
            let truncated = &all[..all.len().min(room)];
            ids.push(i64::from(self.start));
            ids.extend(truncated.iter().map(|(id, _)| *id));
            ids.push(i64::from(self.end));
            ids.extend(std::iter::repeat_n(i64::from(self.pad), room - truncated.len()));
            cut.push(all.get(room).map(|(_, from)| from_byte(text, *from)));
        }
        let ids = Tensor::from_slice(&ids).view([texts.len() as i64, max_length as i64]);
        Ok(Encoding { ids, cut })
    }
}

/// The text from the character that contains byte `from`: a token may begin within one.
pub(crate) fn from_byte(text: &str, from: usize) -> String {
    text[text.floor_char_boundary(from)..].trim().to_owned()
}
