//! `ldm convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ldm_pipelines::lora::LoraFile;

/// Forms of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A folder: config.yaml, model.safetensors, tokenizer/.
    Ldm,
    /// One file, .safetensors or else as torch.save writes it, and its config NAME.yaml beside it.
    Compvis,
    /// A folder: model_index.json, and one for each part; of a first stage alone that part.
    Diffusers,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(value_name = "IN")]
    pub(crate) source: PathBuf,
    /// Where it goes.
    pub(crate) out: PathBuf,
    /// What to make of it.
    #[arg(long, value_enum)]
    pub(crate) to: Form,
    /// f32, bf16 or f16: the dtype of the weights; that of IN where absent.
    #[arg(long)]
    pub(crate) dtype: Option<String>,
    /// Take the running average of the weights where IN holds both (this is the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Take the weights as trained.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// The config of a checkpoint file that has none beside it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The tokenizer: a folder, or its vocabulary. Else the one beside the model, else the one of `ldm weights`.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Add a LoRA to the weights, at a strength of 1 where none is given; several add up.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]")]
    pub(crate) loras: Vec<LoraFile>,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
}
