//! How to sample, from words and to words.

use anyhow::bail;
use ldm_pipelines::{DiffusersScheduler, Guidance, InitImage, LatentDiffusion, Sampling};
use ldm_schedulers::{SamplerConfig, Spacing};

use crate::args::{GenerateArgs, ModelArgs, SamplingArgs, Side};
use crate::progress::Printer;

/// The solver asked for.
pub(crate) fn asked(
    args: &SamplingArgs,
    model: &LatentDiffusion,
    guidance_scale: f64,
) -> anyhow::Result<Sampling> {
    let told = model.scheduler.as_ref().map(DiffusersScheduler::sampler);
    let (mut sampler, own_spacing) = match (&args.sampler, told) {
        (Some(name), _) => (name.parse()?, None),
        (None, None) => (SamplerConfig::Ddim { eta: 0. }, None),
        (None, Some((sampler, spacing, departs))) => {
            if let Some(text) = departs {
                Printer::warn(&format!("scheduler_config.json: {text}"));
            }
            (sampler, Some(spacing))
        }
    };
    if let Some(eta) = args.eta {
        sampler = sampler.with_eta(eta)?;
    }
    let spacing: Spacing = match &args.spacing {
        Some(spacing) => spacing.parse()?,
        None => own_spacing.unwrap_or_else(|| sampler.spacing()),
    };
    let steps = args.steps.or(spacing.steps()).unwrap_or_else(|| sampler.steps(&model.schedule));
    let size = args.height.zip(args.width).map(|(height, width)| [height, width]);
    let scale = args.guidance_scale.unwrap_or(guidance_scale);
    let shaped = args.guidance_rescale != 0. || args.guidance_interval.is_some();
    if shaped && (scale == 1. || model.config.conditioning_key().is_none()) {
        bail!(
            "--guidance-rescale and --guidance-interval: nothing is guided here, give a --guidance-scale other than 1"
        );
    }
    let trained = model.config.image_size * model.first_stage.factor();
    Ok(Sampling {
        sampler,
        spacing,
        steps,
        guidance: Guidance {
            scale,
            rescale: args.guidance_rescale,
            interval: args.guidance_interval.map_or([0., f64::INFINITY], |span| [span.low, span.high]),
        },
        size,
        tile: args.tile.map(|side| match side {
            Side::Auto => trained,
            Side::Pixels(side) => side,
        }),
    })
}

/// An image that was made.
pub(crate) struct Made<'a> {
    pub(crate) seed: u64,
    /// `[…, H, W]`
    pub(crate) size: Vec<i64>,
    /// The image it began at.
    pub(crate) init: Option<&'a InitImage>,
    /// The seed its noise was turned to, and how far.
    pub(crate) variation: Option<(u64, f64)>,
}

/// How an image was made, in the form the common web UIs read.
pub(crate) fn parameters(made: &Made, sampling: &Sampling, args: &GenerateArgs, named: &ModelArgs) -> String {
    let guidance = &sampling.guidance;
    let [height, width] = [made.size[made.size.len() - 2], made.size[made.size.len() - 1]];
    let model = named.model.file_name().unwrap_or_default().to_string_lossy();
    let mut said = vec![
        format!("Steps: {}", sampling.steps),
        format!("Sampler: {}", sampling.sampler.name()),
        format!("CFG scale: {}", guidance.scale),
        format!("Seed: {}", made.seed),
        format!("Size: {width}x{height}"),
        format!("Model: {model}"),
    ];
    let loras: Vec<String> = args.how.loras.iter().map(ToString::to_string).collect();
    if !loras.is_empty() {
        said.push(format!("Lora: {}", loras.join(" ")));
    }
    if let Some((seed, share)) = made.variation {
        said.push(format!("Variation seed: {seed}, Variation seed strength: {share}"));
    }
    if let Some(init) = made.init {
        said.push(format!("Denoising strength: {}", init.strength()));
    }
    if guidance.rescale != 0. {
        said.push(format!("CFG rescale: {}", guidance.rescale));
    }
    if let Some(span) = args.how.guidance_interval {
        said.push(format!("CFG interval: {}..{}", span.low, span.high));
    }
    let by_name: Option<SamplerConfig> = sampling.sampler.name().parse().ok();
    match (sampling.sampler.eta(), by_name.and_then(|sampler| sampler.eta())) {
        (Some(eta), default) if default != Some(eta) => said.push(format!("Eta: {eta}")),
        _ => {}
    }
    if let Some(spacing) = &args.how.spacing {
        said.push(format!("Spacing: {spacing}"));
    }
    if let Some(tile) = sampling.tile {
        said.push(format!("Tile: {tile}"));
    }
    if let Some(path) = &args.init_noise {
        said.push(format!("Init noise: {}", path.display()));
    }
    said.push(format!("Version: ldm {}", env!("CARGO_PKG_VERSION")));
    said.join(", ")
}
