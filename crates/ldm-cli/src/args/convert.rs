//! `ldm convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ldm_pipelines::lora::LoraFile;

use super::numbers::finite;

/// Model formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelFormat {
    /// A folder: config.yaml, model.safetensors, tokenizer/.
    Ldm,
    /// One file, .safetensors or in the format of torch.save, with its config NAME.yaml next to it.
    Compvis,
    /// A folder: model_index.json and a subfolder per component; for a first stage alone, that component.
    Diffusers,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(value_name = "IN")]
    pub(crate) source: PathBuf,
    /// Output file or folder.
    pub(crate) out: PathBuf,
    /// Output format.
    #[arg(long, value_enum)]
    pub(crate) to: ModelFormat,
    /// Dtype of the weights: f32, bf16 or f16. Default: that of IN.
    #[arg(long)]
    pub(crate) dtype: Option<String>,
    /// Pass over the tensors whose names start with NAME; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) ignore: Vec<String>,
    /// Use the EMA weights if IN has both (the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Use the weights without EMA.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// Config of a checkpoint file that has none next to it.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Tokenizer: a folder or a vocabulary file. Default: the one next to the model, else that of `ldm weights`.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Merge a LoRA into the weights, with strength 1 by default; may be repeated.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]")]
    pub(crate) loras: Vec<LoraFile>,
    /// Merge the model B of the same architecture into IN: IN · (1 − W) + B · W.
    #[arg(long, value_name = "B", requires = "weight")]
    pub(crate) merge: Option<PathBuf>,
    /// Weight W of the merged model, commonly 0 to 1.
    #[arg(long, value_name = "W", value_parser = finite, allow_hyphen_values = true, requires = "merge")]
    pub(crate) weight: Option<f64>,
    /// Add the difference to the model C instead: IN + W · (B − C).
    #[arg(long, value_name = "C", requires = "merge")]
    pub(crate) minus: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
}
