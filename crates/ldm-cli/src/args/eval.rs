//! `ldm eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DataArgs, DeviceArgs, ModelArgs, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// What a first stage loses of pictures: PSNR, SSIM, LPIPS, and the distance of the sets.
    #[command(
        after_help = "Example:\n  ldm eval reconstruction photos.tar --size 128 --model runs/kl-f4 --out eval"
    )]
    Reconstruction(ReconstructionArgs),
    /// How far made pictures are from real ones: Fréchet and kernel distance, precision, recall, density, coverage.
    #[command(after_help = "Example:\n  ldm eval generation outputs/sample-1 photos.tar --size 64 --json")]
    Generation(GenerationArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) how: MeasureArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GenerationArgs {
    /// The made pictures: a folder (its grid.png is left out), or whatever a dataset can be.
    pub(crate) made: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) how: MeasureArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How sets are measured.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Pictures of each set, the first of a fixed shuffle; all where absent.
    #[arg(short = 'n', long)]
    pub(crate) num_images: Option<usize>,
    /// Pictures at once.
    #[arg(long, default_value_t = 16)]
    pub(crate) batch_size: usize,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}
