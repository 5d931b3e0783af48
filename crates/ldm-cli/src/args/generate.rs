//! What every command that makes images of noise has in common.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use ldm_pipelines::TileSize;
use ldm_pipelines::lora::LoraFile;
use ldm_schedulers::SamplerConfig;

use super::{Interval, OutputArgs, VariationStrength, tile_size, unit_interval};

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// ImageSet; of each prompt, where there are several.
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) num_images: usize,
    /// ImageSet at once.
    #[arg(long, default_value_t = 8)]
    pub(crate) batch_size: usize,
    /// Image i uses seed + i.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) how: SamplingArgs,
    /// Turn the noise of each image toward that of this seed, and of the seeds after it.
    #[arg(long, value_name = "SEED", requires = "variation_strength")]
    pub(crate) variation_seed: Option<u64>,
    /// How far, 0 to 1; as 0..1 the images of a prompt go from the one seed to the other, and both stay as they are.
    #[arg(long, value_name = "SHARE|FROM..TO", requires = "variation_seed", conflicts_with = "init_noise")]
    pub(crate) variation_strength: Option<VariationStrength>,
    /// Unit Gaussian noise to start from: safetensors, tensor `noise` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) init_noise: Option<PathBuf>,
    /// Where the sampler's latents go: safetensors, tensor `latents` [B, C, h, w] f32.
    #[arg(long)]
    pub(crate) save_latents: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Show every N steps what is under the noise, in previews/ beside the images.
    #[arg(long, value_name = "N")]
    pub(crate) preview_every: Option<std::num::NonZeroUsize>,
    /// Hide `StableDiffusionV1` in the images, where the invisible-watermark tool finds it; txt2img with a Stable
    /// Diffusion model does so by itself, as the reference.
    #[arg(long)]
    pub(crate) watermark: bool,
    /// One JSON line an image.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a model is sampled from.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// The solver; what a diffusers folder says, else ddim.
    #[arg(long, value_parser = PossibleValuesParser::new(SamplerConfig::NAMES))]
    pub(crate) sampler: Option<String>,
    /// Which noise levels are visited: uniform, quad, time_uniform, leading, trailing, linspace, karras, exponential,
    /// sgm_uniform, lcm, or levels as 999,500,1; what a diffusers folder says, else the sampler's own.
    #[arg(long)]
    pub(crate) spacing: Option<String>,
    /// Steps; every level for ddpm, 4 for lcm, else 50.
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// Share of fresh noise in a step, 0 to 1, of ddim, euler_a, dpmpp_2m_sde and dpmpp_3m_sde.
    #[arg(long)]
    pub(crate) eta: Option<f64>,
    /// Classifier-free guidance; 1 is none. Without it 7.5 for text through CLIP, 5 for other text, else 1.
    #[arg(long)]
    pub(crate) guidance_scale: Option<f64>,
    /// Share, 0 to 1, of a guided prediction brought back to the contrast of the unguided one; 0.7 where large scales
    /// overexpose.
    #[arg(long, value_name = "SHARE", default_value_t = 0., value_parser = unit_interval)]
    pub(crate) guidance_rescale: f64,
    /// Guide only where the noise is so many times the signal, as 0.3..5.
    #[arg(long, value_name = "LOW..HIGH")]
    pub(crate) guidance_interval: Option<Interval>,
    /// Height in pixels.
    #[arg(long, requires = "width")]
    pub(crate) height: Option<i64>,
    /// Width in pixels.
    #[arg(long, requires = "height")]
    pub(crate) width: Option<i64>,
    /// Sample and decode a larger image in overlapping tiles of so many pixels a side; auto is the size the model was
    /// trained at.
    #[arg(long, value_name = "PIXELS|auto", value_parser = tile_size)]
    pub(crate) tile: Option<TileSize>,
    /// Add a LoRA to the weights, at a strength of 1 where none is given; several add up.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]")]
    pub(crate) loras: Vec<LoraFile>,
}
