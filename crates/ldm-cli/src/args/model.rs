//! Model and device flags, and the arguments of `ldm doctor` and `ldm inspect`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// Device flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// Device: auto, cpu, cuda or cuda:N; auto uses CUDA if it works.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// On CUDA compute f32 products and convolutions with 10 bits of mantissa (TF32), which is faster; metrics do without.
    #[arg(long)]
    pub(crate) tf32: bool,
    /// CPU threads per operation.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Kernels on the CPU in f32: ldm (its own where they are faster) or libtorch.
    #[arg(long, default_value = "ldm", value_parser = ["ldm", "libtorch"])]
    pub(crate) kernels: String,
}

/// Model flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A run directory, a model folder, a diffusers folder, a checkpoint file, or emoji, the model inside the program.
    #[arg(long, value_parser = PathBufValueParser::new().try_map(ldm::model_path))]
    pub(crate) model: PathBuf,
    /// Config of a checkpoint file that has none next to it, if it cannot be inferred from the tensor names.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Changes of the config, of the commands that take them.
    #[arg(skip)]
    pub(crate) overrides: Vec<String>,
    /// Pass over the tensors whose names start with NAME; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) ignore: Vec<String>,
    /// Use the EMA weights if the file has both (the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Use the weights without EMA.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// Dtype of the weights: f32, bf16, f16, or auto: bf16 on GPUs and CPUs that multiply it, else f32.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A checkpoint, a model folder, a run, a PNG written by ldm, or emoji, the model inside the program.
    #[arg(value_parser = PathBufValueParser::new().try_map(ldm::model_path))]
    pub(crate) path: PathBuf,
    /// Config to check the names and shapes against.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
