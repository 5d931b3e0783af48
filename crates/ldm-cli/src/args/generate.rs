//! Flags that all sampling commands share.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use ldm::SafetyMode;
use ldm_pipelines::lora::LoraFile;
use ldm_pipelines::{DeepCache, Interval, TileSize, VariationStrength};
use ldm_schedulers::SamplerConfig;

use super::OutputArgs;
use super::numbers::{finite, image_count, side, unit_interval};

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Number of images; with several prompts, per prompt.
    #[arg(short = 'n', long, default_value_t = 1, value_parser = image_count)]
    pub(crate) num_images: usize,
    /// Images per batch.
    #[arg(long, default_value_t = 8, value_parser = image_count)]
    pub(crate) batch_size: usize,
    /// Seed; image i uses SEED + i.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Interpolate the noise of each image toward that of this seed; image i uses SEED + i.
    #[arg(long, value_name = "SEED", requires = "variation_strength")]
    pub(crate) variation_seed: Option<u64>,
    /// Interpolation strength, 0 to 1. With FROM..TO the images of a prompt interpolate between the two seeds.
    #[arg(
        long,
        value_name = "SHARE|FROM..TO",
        allow_hyphen_values = true,
        requires = "variation_seed",
        conflicts_with = "init_noise"
    )]
    pub(crate) variation_strength: Option<VariationStrength>,
    /// Initial unit Gaussian noise: safetensors, tensor `noise` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) init_noise: Option<PathBuf>,
    /// Also save the sampled latents: safetensors, tensor `latents` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) save_latents: Option<PathBuf>,
    /// Also save the images in one NumPy archive: `arr_0`, u8 [B, H, W, 3], as CompVis' sample_diffusion.py.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_npz: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Write no separate image files.
    #[arg(long, alias = "skip_save")]
    pub(crate) skip_save: bool,
    /// Write no grid.png. It shows the first images: at most 256, and 64 megapixels.
    #[arg(long, alias = "skip_grid")]
    pub(crate) skip_grid: bool,
    /// Images per row of grid.png. Default: as many as rows.
    #[arg(long, alias = "n_rows", value_name = "N", value_parser = image_count)]
    pub(crate) n_rows: Option<usize>,
    /// Save a preview of the denoised image every N steps, in previews/ next to the images.
    #[arg(long, value_name = "N")]
    pub(crate) preview_every: Option<std::num::NonZeroUsize>,
    /// Embed the watermark `StableDiffusionV1`, which the invisible-watermark tool reads; txt2img with a Stable
    /// Diffusion model does so by default, as CompVis does.
    #[arg(long)]
    pub(crate) watermark: bool,
    /// Use of the safety checker: block replaces unsafe images by black ones, warn reports them.
    #[arg(long, default_value = "block", value_parser = PossibleValuesParser::new(SafetyMode::NAMES))]
    pub(crate) safety: String,
    /// Safety checker: a folder of diffusers, or its safety_checker. Default: that of the model's folder, if it has one.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) safety_checker: Option<PathBuf>,
    /// Write one image of the batch, by its place: of `ldm redo`.
    #[arg(long, hide = true)]
    pub(crate) only: Option<usize>,
    /// Print one JSON line per image.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Sampling flags.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Sampler. Default: that of the diffusers folder, else ddim.
    #[arg(long, value_parser = PossibleValuesParser::new(SamplerConfig::NAMES))]
    pub(crate) sampler: Option<String>,
    /// Spacing of the timesteps: uniform, quad, time_uniform, leading, trailing, linspace, karras, exponential,
    /// sgm_uniform, align_your_steps, lcm, or a list such as 999,500,1. Default: that of the diffusers folder, else the sampler's own.
    #[arg(long)]
    pub(crate) spacing: Option<String>,
    /// Number of steps. Default: all timesteps for ddpm, 4 for lcm, else 50.
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// Stochasticity, 0 to 1, of ddim, euler_a, dpmpp_2m_sde and dpmpp_3m_sde.
    #[arg(long, value_parser = finite, allow_hyphen_values = true)]
    pub(crate) eta: Option<f64>,
    /// Classifier-free guidance scale; 1 disables guidance. Default: 7.5 for CLIP text, 5 for other text and
    /// embeddings, else 1.
    #[arg(long, value_parser = finite, allow_hyphen_values = true)]
    pub(crate) guidance_scale: Option<f64>,
    /// Guidance rescale, 0 to 1: rescales the guided prediction toward the contrast of the unguided one; try 0.7 if
    /// large guidance scales overexpose.
    #[arg(long, value_name = "SHARE", default_value_t = 0., value_parser = unit_interval, allow_hyphen_values = true)]
    pub(crate) guidance_rescale: f64,
    /// Guide only at noise-to-signal ratios in this range, e.g. 0.3..5.
    #[arg(long, value_name = "LOW..HIGH", allow_hyphen_values = true)]
    pub(crate) guidance_interval: Option<Interval>,
    /// Height in pixels.
    #[arg(long, requires = "width", value_parser = side)]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height", value_parser = side)]
    pub(crate) width: Option<i64>,
    /// Sample and decode a large image in overlapping square tiles of this side in pixels; auto is the training size.
    #[arg(long, value_name = "PIXELS|auto", allow_hyphen_values = true)]
    pub(crate) tile: Option<TileSize>,
    /// Weight tiles by their distance from the border of the image, within LOW to HIGH (CompVis' tie breaker; its
    /// clip_min_tie_weight and clip_max_tie_weight).
    #[arg(long, value_name = "LOW..HIGH", requires = "tile")]
    pub(crate) tile_tie: Option<Interval>,
    /// Factor of the noise that stochastic samplers add in their steps. Default: 1.
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Probability that an element of this noise is dropped, from 0 to below 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0., value_parser = unit_interval, allow_hyphen_values = true)]
    pub(crate) noise_dropout: f64,
    /// Quantize predicted clean samples to the codebook of a VQ first stage in every step.
    #[arg(long)]
    pub(crate) quantize_denoised: bool,
    /// Compute the deep blocks at every INTERVAL-th evaluation only (DeepCache): faster, less exact. Default DEPTH: 2.
    #[arg(long, value_name = "INTERVAL[:DEPTH]")]
    pub(crate) deep_cache: Option<DeepCache>,
    /// Merge this share of similar tokens around self-attention in the largest transformers: faster, less exact; try 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0., value_parser = unit_interval)]
    pub(crate) token_merging: f64,
    /// Defaults for speed: dpmpp_2m in 20 steps with --deep-cache 2; other flags override them.
    #[arg(long)]
    pub(crate) fast: bool,
    /// Merge a LoRA into the weights, with strength 1 by default; may be repeated.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]")]
    pub(crate) loras: Vec<LoraFile>,
}
