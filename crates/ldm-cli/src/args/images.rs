//! ImageSet in, images out, and what a first stage does with them.

use std::path::PathBuf;

use clap::Args;

use super::ModelArgs;

/// Where images go.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Folder; outputs/COMMAND-N where absent.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
}

/// ImageSet for a first stage.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// ImageSet.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
}

/// What becomes of an image that has not the size a model takes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SizeArgs {
    /// Resize the smallest side first.
    #[arg(long, value_name = "N")]
    pub(crate) resize: Option<u32>,
    /// Cut a centerd square of this side.
    #[arg(long, value_name = "N")]
    pub(crate) center_crop: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Where the latents go: safetensors, tensor `latents` [B, C, h, w] f32, unscaled.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Draw from the posterior; the mode where absent.
    #[arg(long)]
    pub(crate) sample: bool,
    /// Image i draws with seed + i.
    #[arg(long, default_value_t = 0, requires = "sample")]
    pub(crate) seed: u64,
    /// Replace an existing file.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Latents as `ldm encode` writes them.
    pub(crate) latents: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Decode large latents in overlapping tiles of so many pixels a side, in the memory of one.
    #[arg(long, value_name = "PIXELS")]
    pub(crate) tile: Option<i64>,
    /// Where the pixels go as well: safetensors, tensor `pixels` [B, 3, H, W] in [-1, 1], not clamped.
    #[arg(long)]
    pub(crate) save_pixels: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// One JSON line an image.
    #[arg(long)]
    pub(crate) json: bool,
}
