//! The two ways in which the reference makes tokens of a text.

use std::fmt;

use ldm_core::Error;

/// Which tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// BERT's WordPiece, lower-casing: `[CLS] … [SEP]`, filled up with `[PAD]`.
    Bert,
    /// CLIP's byte pairs, lower-casing: `<|startoftext|> … <|endoftext|>`, filled up with `<|endoftext|>`.
    Clip,
}

impl TokenizerKind {
    /// What `ldm weights get` calls its files.
    pub fn download(self) -> &'static str {
        match self {
            Self::Bert => "bert-tokenizer",
            Self::Clip => "clip-tokenizer",
        }
    }

    /// The tokens that begin a text, end it, and fill it up.
    pub(crate) fn marks(self) -> [&'static str; 3] {
        match self {
            Self::Bert => ["[CLS]", "[SEP]", "[PAD]"],
            Self::Clip => ["<|startoftext|>", "<|endoftext|>", "<|endoftext|>"],
        }
    }

    /// That a text cannot be read, and what to type.
    pub(crate) fn missing(self) -> Error {
        Error::invalid(format!(
            "this model reads text by a {self} tokenizer, which is missing: {}",
            self.remedy()
        ))
    }

    pub(crate) fn remedy(self) -> String {
        format!("type `ldm weights get {}`, or say --tokenizer PATH", self.download())
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
