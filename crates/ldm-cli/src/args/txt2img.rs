//! `ldm txt2img`.

use std::path::PathBuf;

use clap::Args;
use ldm_core::Prompt;

use super::{GenerateArgs, ModelArgs};

#[derive(Debug, Args)]
pub(crate) struct Txt2imgArgs {
    /// What the images show.
    #[arg(required_unless_present = "prompts_from", conflicts_with = "prompts_from")]
    pub(crate) prompt: Option<String>,
    /// A file of prompts, one a line; empty lines count for nothing.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts_from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
    /// Hide nothing in the images.
    #[arg(long, conflicts_with = "watermark")]
    pub(crate) no_watermark: bool,
}

impl TextArgs {
    /// What `count` images are guided away from, where anything is said.
    pub(crate) fn negative(&self, count: usize) -> Option<Prompt> {
        let text = &self.negative_prompt;
        (!text.is_empty()).then(|| Prompt::text(std::iter::repeat_n(text, count)))
    }

    /// Its line of an image's parameters.
    pub(crate) fn heading(&self) -> String {
        match self.negative_prompt.as_str() {
            "" => String::new(),
            negative => format!("Negative prompt: {negative}\n"),
        }
    }
}

/// What goes with a prompt.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// What they are to be guided away from.
    #[arg(long, default_value = "")]
    pub(crate) negative_prompt: String,
    /// The tokenizer: a folder, or its vocabulary. Else the one beside the model, else the one of `ldm weights`.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
}
