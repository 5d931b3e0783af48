//! `ldm bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DeviceArgs;

/// What of a model is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The first stage: encoding, and decoding.
    Autoencoder,
    /// One forward pass of the U-Net.
    Unet,
    /// From noise to images.
    Sample,
    /// One step of training: loss, gradients, optimizer, average.
    Train,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What is timed; all but training where absent, which takes several times the memory.
    #[arg(value_enum)]
    pub(crate) stage: Option<Stage>,
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(long, required_unless_present = "config")]
    pub(crate) model: Option<PathBuf>,
    /// The model's config; alone, the model it describes is timed with fresh weights.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// ImageSet at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) batch_size: i64,
    /// Height in pixels; what the model was trained at where absent.
    #[arg(long, requires = "width", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) width: Option<i64>,
    /// Steps of ddim that a sample takes, without guidance.
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
    /// Timed runs, after two to warm up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeats: u64,
    /// f32, bf16 or f16: the dtype of the weights; for training, of the autocast beside weights in f32.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Below the table, where each stage's time goes, operation by operation.
    #[arg(long, conflicts_with = "json")]
    pub(crate) operations: bool,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
