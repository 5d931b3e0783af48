//! `ldm bench`.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::DeviceArgs;
use super::numbers::side;

/// Benchmark stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageArg {
    /// Encoding and decoding by the first stage.
    Autoencoder,
    /// One forward pass of the U-Net.
    Unet,
    /// Sampling, from noise to decoded images.
    Sample,
    /// One training step: loss, gradients, optimizer, EMA.
    Train,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Stage to time. Default: all but train, which needs several times the memory.
    #[arg(value_enum)]
    pub(crate) stage: Option<StageArg>,
    /// A run directory, a model folder, a diffusers folder, a checkpoint file, or emoji, the model inside the program.
    #[arg(long, required_unless_present = "config", value_parser = PathBufValueParser::new().try_map(ldm::model_path))]
    pub(crate) model: Option<PathBuf>,
    /// Config of the model; without --model its weights are random.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=65536))]
    pub(crate) batch_size: i64,
    /// Height in pixels. Default: the training size.
    #[arg(long, requires = "width", value_parser = side)]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height", value_parser = side)]
    pub(crate) width: Option<i64>,
    /// DDIM steps per sample, without guidance.
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
    /// Timed runs, after two warm-up runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeats: u64,
    /// Dtype of the weights: f32, bf16, f16 or auto; for train the autocast dtype, with f32 weights.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Also print the time per operation.
    #[arg(long, conflicts_with = "json")]
    pub(crate) operations: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
