//! Input and output flags of images, and the commands of a first stage.

use std::path::PathBuf;

use clap::Args;
use ldm::InputSize;

use super::ModelArgs;
use super::numbers::{input_side, side};

/// Output flags.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Output folder. Default: outputs/COMMAND-N.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Input images of a first stage.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Input images.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
}

/// Resizing and cropping of input images.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SizeArgs {
    /// Resize the smallest side to N pixels first.
    #[arg(long, value_name = "N", value_parser = input_side)]
    pub(crate) resize: Option<u32>,
    /// Crop the central square of N x N pixels.
    #[arg(long, value_name = "N", value_parser = input_side)]
    pub(crate) center_crop: Option<u32>,
}

impl SizeArgs {
    pub(crate) fn size(self) -> InputSize {
        InputSize { resize: self.resize, center_crop: self.center_crop }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Output file: safetensors, tensor `latents` [B, C, h, w] f32, unscaled.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Write the ids of the codebook entries of a VQ first stage instead: tensor `ids` [B, h, w] i64.
    #[arg(long, conflicts_with = "sample")]
    pub(crate) ids: bool,
    /// Encode large images in overlapping square tiles of this side in pixels, in the memory of one tile.
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    pub(crate) tile: Option<i64>,
    /// Sample from the posterior instead of taking its mode.
    #[arg(long)]
    pub(crate) sample: bool,
    /// Seed; image i uses SEED + i.
    #[arg(long, default_value_t = 0, requires = "sample")]
    pub(crate) seed: u64,
    /// Replace an existing file.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Latents written by `ldm encode`: tensor `latents`, or `ids` for codebook entries of a VQ first stage, [B, h, w]
    /// or the scores of each entry [B, K, h, w].
    pub(crate) latents: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Decode large latents in overlapping square tiles of this side in pixels, in the memory of one tile.
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    pub(crate) tile: Option<i64>,
    /// Decode the latents of a VQ first stage as they are, not quantized.
    #[arg(long, conflicts_with = "tile")]
    pub(crate) no_quantize: bool,
    /// Also save the pixels: safetensors, tensor `pixels` [B, C, H, W] in [-1, 1], not clamped.
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
    /// Encode and decode large images in overlapping square tiles of this side in pixels.
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    pub(crate) tile: Option<i64>,
    /// Print one JSON line per image.
    #[arg(long)]
    pub(crate) json: bool,
}
