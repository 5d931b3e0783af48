//! Options of reading a text prompt.

use std::fmt;
use std::str::FromStr;

use ldm_core::{Error, Result};

/// The syntax of a text prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptSyntax {
    /// Every character is text, truncated to the model's length, as in CompVis' scripts and diffusers.
    #[default]
    Plain,
    /// AUTOMATIC1111's: `(a:1.2)`, `(a)`, `[a]`, `\(`, `BREAK`, and chunks of 75 tokens. Texts through CLIP only.
    Weights,
}

impl PromptSyntax {
    /// All names, in the order of the variants.
    pub const NAMES: [&'static str; 2] = ["plain", "weights"];
}

impl fmt::Display for PromptSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => Self::NAMES[0],
            Self::Weights => Self::NAMES[1],
        })
    }
}

impl FromStr for PromptSyntax {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "plain" => Ok(Self::Plain),
            "weights" => Ok(Self::Weights),
            _ => Err(Error::expected("prompt syntax", Self::NAMES.join(" or "), word)),
        }
    }
}

/// Options of reading a text prompt, the same for the prompt and the negative prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOptions {
    /// The syntax.
    pub syntax: PromptSyntax,
    /// The layer of CLIP's text model that is the context, counted from the last, which is 1 (Stable Diffusion's), as
    /// AUTOMATIC1111's "Clip skip": 2 leaves out the last layer. diffusers' `clip_skip` is one less. The last norm is
    /// applied to every choice, as in both.
    pub clip_skip: u32,
    /// The least number of chunks, each of the model's length; shorter texts are padded by empty chunks.
    pub chunks: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { syntax: PromptSyntax::Plain, clip_skip: 1, chunks: 1 }
    }
}

impl TextOptions {
    /// Refuses options other than the default, for models whose text is not encoded by CLIP.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option.
    pub fn refuse(&self) -> Result<()> {
        const MODEL: &str = "for a model without CLIP's text model";
        if self.syntax != PromptSyntax::Plain {
            return Err(Error::expected("prompt syntax", format!("plain {MODEL}"), self.syntax));
        }
        if self.clip_skip != 1 {
            return Err(Error::expected("clip skip", format!("1 {MODEL}"), self.clip_skip));
        }
        Ok(())
    }
}
