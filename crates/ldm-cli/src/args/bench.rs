//! `ldm bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DeviceArgs;

/// A part of a model to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageArg {
    /// The first stage: encoding, and decoding.
    Autoencoder,
    /// One forward pass of the U-Net.
    Unet,
    /// Sampling, from noise to images.
    Sample,
    /// One training step: loss, gradients, optimizer, EMA.
    Train,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The part to time; all but training where absent, which takes several times the memory.
    #[arg(value_enum)]
    pub(crate) stage: Option<StageArg>,
    /// A run directory, a model folder, a diffusers folder, or a checkpoint file.
    #[arg(long, required_unless_present = "config")]
    pub(crate) model: Option<PathBuf>,
    /// The model's config; without --model it is timed with random weights.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) batch_size: i64,
    /// Height in pixels; that of training where absent.
    #[arg(long, requires = "width", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) width: Option<i64>,
    /// DDIM steps of a sample, without guidance.
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
    /// Timed runs, after two to warm up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeats: u64,
    /// f32, bf16 or f16: the dtype of the weights; for training that of autocast, with weights in f32.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print the time by operation below the table.
    #[arg(long, conflicts_with = "json")]
    pub(crate) operations: bool,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
