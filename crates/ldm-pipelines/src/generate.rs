//! From a prompt and seeds to images.

use ldm_core::noise::Seeded;
use ldm_core::{Conditioning, Error, Prompt, Result};
use ldm_schedulers::{Denoiser, SamplerConfig, SamplerRun, SamplingStep, Spacing};
use tch::{Kind, Tensor};

use crate::init::Init;
use crate::tiling::Tiling;
use crate::{ClassifierFreeGuidance, Conditioned, Guidance, LatentDiffusion, Network};

/// How to sample.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// The solver.
    pub sampler: SamplerConfig,
    /// Which noise levels it visits.
    pub spacing: Spacing,
    /// How many.
    pub steps: usize,
    /// Classifier-free guidance; a scale of 1 is none.
    pub guidance: Guidance,
    /// Height and width of the images in pixels; the size the model was trained at where absent.
    pub size: Option<[i64; 2]>,
    /// Side in pixels of the tiles a larger image is sampled and decoded in; all at once where absent.
    pub tile: Option<i64>,
}

/// What came out.
#[derive(Debug)]
pub struct Generated {
    /// `[B, C, h, w]` f32: the sampler's result, before it is divided by the scale factor.
    pub latents: Tensor,
    /// `[B, 3, H, W]` f32 in `[-1, 1]`, not clamped.
    pub images: Tensor,
    /// The first stage was run in f32, since it overflowed in the weights' own dtype.
    pub decoded_in_f32: bool,
}

/// Samples one image a seed.
///
/// Image `i` starts from what `torch.Generator("cpu").manual_seed(seeds[i])` draws, or where `init` says, and takes its
/// further noise from the same generator: it does not depend on the batch it is in. With a guidance scale other than 1 the
/// model is guided away from `negative`, or from the prompt that says nothing; a classifier of
/// [`LatentDiffusion::with_classifier_guidance`] leads it to the prompt's class. An image to begin at, or in the prompt, decides the size
/// where none is asked for. `observe` sees every step.
///
/// # Errors
/// [`Error::Invalid`] when the size does not fit the model or the prompt's image, the sampler cannot take so many
/// steps, guidance is asked for and the model has nothing to be guided away from, or what came out is no numbers;
/// [`Error::MissingInput`] when the prompt lacks what the model needs; [`Error::Shape`] for noise of a wrong shape, or
/// prompts that are not one a seed.
pub fn generate<'a>(
    model: &LatentDiffusion,
    prompt: &Prompt,
    negative: Option<&Prompt>,
    seeds: &[u64],
    sampling: &Sampling,
    init: impl Into<Init<'a>>,
    observe: &mut dyn FnMut(SamplingStep),
) -> Result<Generated> {
    let (count, init) = (seeds.len() as i64, init.into());
    let guided = sampling.guidance.scale != 1. && model.config.conditioning_key().is_some();
    let (cond, uncond) = tch::no_grad(|| {
        let cond = model.condition(prompt, false)?;
        let uncond = if guided { Some(model.unconditional(&cond, negative)?) } else { None };
        Ok::<_, Error>((cond, uncond))
    })?;
    check_count(&cond, count)?;
    let shape = latent_shape(model, init.size(sampling.size)?, cond.concat.as_ref())?;
    let tiling = sampling.tile.map(|side| Tiling::new(model, [shape[1], shape[2]], side)).transpose()?;
    let levels = sampling.sampler.noise_levels(&model.schedule, &sampling.spacing, sampling.steps)?;
    let sampler = sampling.sampler.build(&model.schedule)?;
    let mut noise = Seeded::new(seeds.iter().copied());
    let size = [count, shape[0], shape[1], shape[2]];
    let led = model
        .classifier
        .as_ref()
        .map(|by| Ok::<_, Error>((by, by.labels(prompt, size, model.vs().device())?)))
        .transpose()?;
    let begun = init.begin(model, size, sampling, &levels, &mut noise)?;
    model.lay_out();
    tch::no_grad(|| {
        let cond = cast(cond, model.kind());
        let bounds = model.scheduler.as_ref().and_then(|scheduler| scheduler.bounds);
        let run = |denoiser: &dyn Denoiser| {
            let walk = |denoiser: &dyn Denoiser| {
                let kept = begun.kept.as_ref();
                let walk = SamplerRun { denoiser, levels: begun.levels, kept, noise: &mut noise, observe };
                sampler.walk(walk, begun.x)
            };
            match bounds {
                Some(bounds) => bounds.hold(denoiser, walk),
                None => walk(denoiser),
            }
        };
        let run = |denoiser: &dyn Denoiser| match &led {
            Some((by, labels)) => by.lead(labels, denoiser, run),
            None => run(denoiser),
        };
        let mut network = Network::new(&model.unet, model.parameterization);
        if let Some(tiling) = &tiling {
            network = network.in_tiles(tiling.denoise.clone());
        }
        let latents = match uncond {
            None => run(&Conditioned::new(network, &cond)),
            Some(uncond) => run(&ClassifierFreeGuidance::new(
                network,
                &cast(uncond, model.kind()),
                &cond,
                sampling.guidance,
            )),
        };
        let decoded = model.decode_finite(&latents, tiling.as_ref().map(|tiling| &tiling.decode))?;
        Ok(Generated { latents, images: decoded.images, decoded_in_f32: decoded.in_f32 })
    })
}

/// One prompt a seed.
fn check_count(cond: &Conditioning, count: i64) -> Result<()> {
    for slot in [&cond.concat, &cond.context, &cond.label].into_iter().flatten() {
        if slot.size()[0] != count {
            return Err(Error::Shape {
                what: "the prompt".into(),
                expected: format!("[{count}, …], one for each seed"),
                got: slot.size(),
            });
        }
    }
    Ok(())
}

/// `[C, h, w]` of the latents of images of `size`, to which `concat` can be joined.
fn latent_shape(
    model: &LatentDiffusion,
    size: Option<[i64; 2]>,
    concat: Option<&Tensor>,
) -> Result<[i64; 3]> {
    let channels = model.config.channels;
    let joined = concat.map(|concat| [concat.size()[2], concat.size()[3]]);
    let Some(size) = size else {
        let side = model.config.image_size;
        let [height, width] = joined.unwrap_or([side, side]);
        model.unet.check_size([height, width])?;
        return Ok([channels, height, width]);
    };
    let multiple = model.first_stage.factor() * model.unet.factor();
    for side in size {
        if side <= 0 || side % multiple != 0 {
            let below = (side / multiple * multiple).max(multiple);
            return Err(Error::invalid(format!(
                "this model makes images whose sides are multiples of {multiple} (nearest: {below} and {}), got: {side}",
                below + multiple
            )));
        }
    }
    let shape = model.first_stage.latent_size(size);
    match joined {
        Some(joined) if joined != shape[1..] => Err(Error::invalid(format!(
            "height and width: the prompt's image makes latents of {}x{}, and {}x{} pixels have {}x{}",
            joined[0], joined[1], size[0], size[1], shape[1], shape[2]
        ))),
        _ => Ok(shape),
    }
}

fn cast(cond: Conditioning, kind: Kind) -> Conditioning {
    Conditioning {
        concat: cond.concat.map(|tensor| tensor.to_kind(kind)),
        context: cond.context.map(|tensor| tensor.to_kind(kind)),
        label: cond.label,
    }
}
