//! `ldm convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ldm_pipelines::lora::LoraFile;

/// Form of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A folder: config.yaml, model.safetensors, tokenizer/.
    Ldm,
    /// One file, .safetensors or as torch.save writes it, with its config NAME.yaml next to it.
    Compvis,
    /// A folder: model_index.json, and one for each part; of a first stage alone that part.
    Diffusers,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(value_name = "IN")]
    pub(crate) source: PathBuf,
    /// Output file or folder.
    pub(crate) out: PathBuf,
    /// Output form.
    #[arg(long, value_enum)]
    pub(crate) to: Form,
    /// f32, bf16 or f16: the dtype of the weights; that of IN where absent.
    #[arg(long)]
    pub(crate) dtype: Option<String>,
    /// Use the EMA of the weights where IN has both (the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Use the weights as trained.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// The config of a checkpoint file without one next to it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The tokenizer: a folder, or its vocabulary. Else the one next to the model, else the one of `ldm weights`.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Add a LoRA to the weights, at a strength of 1 where none is given; several add up.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]")]
    pub(crate) loras: Vec<LoraFile>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
}
