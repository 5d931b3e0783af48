//! The sampling settings of the flags.

use ldm_conditioning::TextOptions;
use ldm_pipelines::{LatentDiffusion, Sampling, SamplingOptions};

use crate::args::SamplingArgs;
use crate::progress::Printer;

/// Resolves the sampling settings of the flags, with the defaults of `model`.
pub(crate) fn resolve(args: &SamplingArgs, model: &LatentDiffusion) -> anyhow::Result<Sampling> {
    let options = SamplingOptions {
        sampler: args.sampler.as_deref().map(str::parse).transpose()?,
        eta: args.eta,
        spacing: args.spacing.as_deref().map(str::parse).transpose()?,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        guidance_rescale: args.guidance_rescale,
        guidance_interval: args.guidance_interval.map(|interval| [interval.low, interval.high]),
        size: args.height.zip(args.width).map(|(height, width)| [height, width]),
        tile: args.tile,
        tile_tie: args.tile_tie.map(|tie| [tie.low, tie.high]),
        temperature: args.temperature,
        noise_dropout: args.noise_dropout,
        quantize_denoised: args.quantize_denoised,
        deep_cache: args.deep_cache,
        token_merging: args.token_merging,
        text: TextOptions::default(), // of the commands that read text
    };
    let options = if args.fast { options.fast() } else { options };
    Ok(options.resolve(model, &mut Printer::warn)?)
}
