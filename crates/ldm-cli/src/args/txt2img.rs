//! `ldm txt2img`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use ldm::Hires;
use ldm_conditioning::{EmbeddingFile, PromptSyntax, TextOptions};
use ldm_core::Prompt;

use super::numbers::{finite, unit_interval};
use super::{ControlArgs, GenerateArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct Txt2imgArgs {
    /// Text prompt.
    #[arg(required_unless_present = "prompts_from", conflicts_with = "prompts_from")]
    pub(crate) prompt: Option<String>,
    /// File of prompts, one per line; - is stdin. Empty lines are skipped.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts_from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
    /// Enlarge each image by SCALE and denoise it again: a large image with the composition of a small one.
    #[arg(long, value_name = "SCALE", value_parser = finite, allow_hyphen_values = true)]
    pub(crate) hires: Option<f64>,
    /// Denoising strength of the second pass.
    #[arg(long, value_name = "SHARE", default_value_t = Hires::STRENGTH, value_parser = unit_interval, allow_hyphen_values = true)]
    pub(crate) hires_strength: f64,
    /// Steps of the second pass, of which the share of its strength is run. Default: those of the first.
    #[arg(long, value_name = "N", requires = "hires")]
    pub(crate) hires_steps: Option<usize>,
    /// Embed no watermark.
    #[arg(long, conflicts_with = "watermark")]
    pub(crate) no_watermark: bool,
}

impl TextArgs {
    /// Returns the negative prompt of `count` images, if it is not empty.
    pub(crate) fn negative(&self, count: usize) -> Option<Prompt> {
        let text = &self.negative_prompt;
        (!text.is_empty()).then(|| Prompt::text(std::iter::repeat_n(text, count)))
    }

    /// Returns the options of reading texts.
    pub(crate) fn options(&self) -> ldm_core::Result<TextOptions> {
        let syntax = self.prompt_syntax.parse()?;
        Ok(TextOptions { syntax, clip_skip: self.clip_skip, ..TextOptions::default() })
    }

    /// Returns the line of the negative prompt in `parameters`.
    pub(crate) fn heading(&self) -> String {
        match self.negative_prompt.as_str() {
            "" => String::new(),
            negative => format!("Negative prompt: {negative}\n"),
        }
    }
}

/// Flags of text conditioning.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// Negative prompt.
    #[arg(long, default_value = "")]
    pub(crate) negative_prompt: String,
    /// Tokenizer: a folder or a vocabulary file. Default: the one next to the model, else that of `ldm weights`.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Syntax of prompts: plain text, truncated to the model's length, or weights as in AUTOMATIC1111: (a:1.2), (a), [a],
    /// \( and BREAK, of any length.
    #[arg(long, default_value = "plain", value_parser = PossibleValuesParser::new(PromptSyntax::NAMES))]
    pub(crate) prompt_syntax: String,
    /// Layer of CLIP's text model, counted from the last, which is 1 (AUTOMATIC1111's Clip skip; diffusers' clip_skip is
    /// one less).
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) clip_skip: u32,
    /// Add a learned word (textual inversion) for prompts to use; may be repeated. TOKEN is that of the file by default, or
    /// the file's name.
    #[arg(long = "embedding", value_name = "FILE[:TOKEN]")]
    pub(crate) embeddings: Vec<EmbeddingFile>,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}
