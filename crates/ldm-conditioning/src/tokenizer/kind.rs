//! The two kinds of tokenizers of CompVis.

use std::fmt;

use ldm_core::Error;

/// A kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// BERT's WordPiece, lower-casing: `[CLS] … [SEP]`, padded with `[PAD]`.
    Bert,
    /// CLIP's byte pairs, lower-casing: `<|startoftext|> … <|endoftext|>`, padded with `<|endoftext|>`.
    Clip,
}

impl TokenizerKind {
    /// Name of its files for `ldm weights get`.
    pub fn download(self) -> &'static str {
        match self {
            Self::Bert => "bert-tokenizer",
            Self::Clip => "clip-tokenizer",
        }
    }

    /// Start, end and padding tokens.
    pub(crate) fn marks(self) -> [&'static str; 3] {
        match self {
            Self::Bert => ["[CLS]", "[SEP]", "[PAD]"],
            Self::Clip => ["<|startoftext|>", "<|endoftext|>", "<|endoftext|>"],
        }
    }

    /// The error about a text without a tokenizer.
    pub(crate) fn missing(self) -> Error {
        Error::invalid(format!("text: expected a {self} tokenizer, got none; try {}", self.remedy()))
    }

    /// The advice of an error.
    pub(crate) fn remedy(self) -> String {
        format!("`ldm weights get {}` or --tokenizer PATH", self.download())
    }
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Bert => "bert",
            Self::Clip => "clip",
        })
    }
}
