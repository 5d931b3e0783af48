//! Which model on which device, and what only looks at them.

use std::path::PathBuf;

use clap::Args;

/// Where and how to compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; auto takes CUDA when it works.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Threads of one operation on the CPU.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// Which model, on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// The config of a checkpoint file that has none beside it and does not tell by its names.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Take the running average of the weights where the file holds both (this is the default).
    #[arg(long, overrides_with = "no_ema")]
    pub(crate) ema: bool,
    /// Take the weights as trained.
    #[arg(long)]
    pub(crate) no_ema: bool,
    /// f32, bf16 or f16: the dtype of the weights.
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
    /// A checkpoint, a model folder, a run, or a PNG made by ldm.
    pub(crate) path: PathBuf,
    /// A config to hold the names and shapes against.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
