//! Generation of images from prompts and seeds.

use std::sync::atomic::{AtomicBool, Ordering};

use ldm_conditioning::TextOptions;
use ldm_core::noise::Seeded;
use ldm_core::{Conditioning, Error, Prompt, Result};
use ldm_schedulers::{AncestralNoise, Denoiser, SamplerConfig, SamplerRun, SamplingStep, Spacing};
use ldm_unet::UNet;
use tch::{Kind, Tensor};

use super::classifier_guidance::GuidingClassifier;
use super::control::{Control, PreparedControl, check_files};
use super::deep_cache::{DeepCache, ReusedFeatures};
use super::guidance::{ClassifierFreeGuidance, Conditioned, Guidance};
use super::init::Init;
use super::network::Network;
use super::quantized_denoiser::QuantizedDenoiser;
use super::tiling::Tiling;
use crate::condition_schedule::NoisyConditioned;
use crate::memory::Footprint;
use crate::{LatentDiffusion, Thresholding};

/// Settings of sampling. [`LatentDiffusion::default_sampling`] has those of a model.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// The solver.
    pub sampler: SamplerConfig,
    /// The noise levels it visits.
    pub spacing: Spacing,
    /// The number of steps.
    pub steps: usize,
    /// Classifier-free guidance; a scale of 1 is none.
    pub guidance: Guidance,
    /// Height and width of the images in pixels; the size the model was trained at where absent.
    pub size: Option<[i64; 2]>,
    /// Side in pixels of the tiles a larger image is sampled and decoded in; all at once where absent.
    pub tile: Option<i64>,
    /// Smallest and largest weight of a whole tile, by its place in the image ([`Tiles::with_tie_breaker`]).
    ///
    /// [`Tiles::with_tie_breaker`]: ldm_core::Tiles::with_tie_breaker
    pub tile_tie: Option<[f64; 2]>,
    /// Thresholding of predicted clean samples.
    pub thresholding: Option<Thresholding>,
    /// Temperature and dropout of the noise that the solver adds.
    pub ancestral: AncestralNoise,
    /// Quantizes predicted clean samples to the codebook of a VQ first stage.
    pub quantize_denoised: bool,
    /// Reuse of deep features.
    pub deep_cache: Option<DeepCache>,
    /// Share of the tokens, 0 to below 1, that are merged around the self-attention of the largest maps with transformers
    /// ([`Evaluation::merged_tokens`]).
    ///
    /// [`Evaluation::merged_tokens`]: ldm_unet::Evaluation::merged_tokens
    pub token_merging: f64,
    /// Syntax of texts, and CLIP skip.
    pub text: TextOptions,
}

impl Sampling {
    /// A sampler over its own spacing, without guidance, at the size of the model.
    pub fn new(sampler: SamplerConfig, steps: usize) -> Self {
        let (spacing, guidance) = (sampler.spacing(), 1_f64.into());
        let ancestral = AncestralNoise::default();
        Self {
            sampler,
            spacing,
            steps,
            guidance,
            size: None,
            tile: None,
            tile_tie: None,
            thresholding: None,
            ancestral,
            quantize_denoised: false,
            deep_cache: None,
            token_merging: 0.,
            text: TextOptions::default(),
        }
    }
}

/// The inputs of [`generate`].
#[derive(Debug, Clone, Copy)]
pub struct GenerateRequest<'a> {
    /// The condition of each image.
    pub prompt: &'a Prompt,
    /// The condition to guide away from; the empty prompt where absent.
    pub negative: Option<&'a Prompt>,
    /// A seed for each image.
    pub seeds: &'a [u64],
    /// Sampler, steps, guidance, size.
    pub sampling: &'a Sampling,
    /// The starting point.
    pub init: Init<'a>,
    /// A classifier that guides the images to the class of the prompt.
    pub classifier: Option<&'a GuidingClassifier>,
    /// ControlNets that steer the images.
    pub controls: &'a [Control<'a>],
    /// Stops the sampling before its next step once it is set.
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> GenerateRequest<'a> {
    /// Images of `prompt`, one for each seed, from noise.
    pub fn new(prompt: &'a Prompt, seeds: &'a [u64], sampling: &'a Sampling) -> Self {
        Self {
            prompt,
            negative: None,
            seeds,
            sampling,
            init: Init::Seeds,
            classifier: None,
            controls: &[],
            stop: None,
        }
    }

    /// With a negative prompt.
    #[must_use]
    pub fn negative(self, negative: Option<&'a Prompt>) -> Self {
        Self { negative, ..self }
    }

    /// With a starting point.
    #[must_use]
    pub fn init(self, init: impl Into<Init<'a>>) -> Self {
        Self { init: init.into(), ..self }
    }

    /// With classifier guidance.
    #[must_use]
    pub fn classifier(self, classifier: Option<&'a GuidingClassifier>) -> Self {
        Self { classifier, ..self }
    }

    /// With ControlNets.
    #[must_use]
    pub fn controls(self, controls: &'a [Control<'a>]) -> Self {
        Self { controls, ..self }
    }

    /// With a flag that stops it.
    #[must_use]
    pub fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }
}

/// Generated images and their latents.
#[derive(Debug)]
pub struct Generated {
    /// `[B, C, h, w]` f32: the sampler's result, before it is divided by the scale factor.
    pub latents: Tensor,
    /// `[B, C', H, W]` f32 in `[-1, 1]`, not clamped, of 1 to 4 channels; label maps in colors
    /// ([`FirstStage::shown`](ldm_autoencoder::FirstStage::shown)).
    pub images: Tensor,
    /// The first stage was run in f32, since it overflowed in the weights' own dtype.
    pub decoded_in_f32: bool,
}

/// Samples one image for each seed.
///
/// Image `i` starts from what `torch.Generator("cpu").manual_seed(seeds[i])` draws, or from `init`, and takes its
/// further noise from the same generator: its noise does not depend on the batch it is in. With a guidance scale other than 1
/// the model is guided away from `negative`, or from the empty prompt. An initial image, or one in the prompt,
/// determines the size where none is requested. `observe` is called at every step.
///
/// # Errors
/// [`Error::Invalid`] when the size does not fit the model, the prompt's image or the memory, when the sampler cannot take so many
/// steps, when the model has no unconditional prompt to guide away from, when a control has no step of the run or no
/// finite scale, or when the result holds NaN or Inf;
/// [`Error::Format`] when a program wrote to the file of the weights meanwhile;
/// [`Error::MissingInput`] when the prompt lacks what the model is conditioned on; [`Error::Shape`] for noise of a
/// wrong shape, or prompts that are not one per seed; [`Error::Stopped`] once the request's flag is set.
pub fn generate(
    model: &LatentDiffusion,
    request: &GenerateRequest,
    observe: &mut dyn FnMut(SamplingStep),
) -> Result<Generated> {
    let &GenerateRequest { prompt, negative, seeds, sampling, init, classifier, controls, stop } = request;
    let count = seeds.len() as i64;
    model.first_stage.check_shown()?;
    sampling.ancestral.check()?;
    check_shortcuts(&model.unet, sampling)?;
    if let (Some(_), Some([_, _, height, width])) =
        (&prompt.image, prompt.mask.as_ref().map(Tensor::size).as_deref())
    {
        // The condition is encoded as a whole, also where the image is sampled in tiles.
        model.footprint().check(count, [*height, *width])?;
    }
    let guided = sampling.guidance.scale != 1. && model.config.conditioning_key().is_some();
    let (cond, uncond) = tch::no_grad(|| model.condition_text(prompt, negative, guided, &sampling.text))?;
    check_count(&cond, count)?;
    let shape = latent_shape(model, init.size(sampling.size)?, cond.concat.as_ref())?;
    check_memory(model, count, &shape, sampling.tile.is_some())?;
    let tiling = sampling.tile.map(|side| Tiling::new(model, [shape[1], shape[2]], side, sampling.tile_tie));
    let tiling = tiling.transpose()?;
    let plan = sampling.sampler.plan(&model.schedule, &sampling.spacing, sampling.steps)?;
    let size = [count, shape[0], shape[1], shape[2]];
    let classifier = match classifier {
        Some(classifier) => Some((classifier, classifier.labels(prompt, size, model.vs().device())?)),
        None => None,
    };
    let mut noise = Seeded::new(seeds.iter().copied());
    let start = init.start(model, size, sampling, &plan, &mut noise)?;
    model.to_channels_last();
    let steering = PreparedControl::all(controls, model, [shape[1], shape[2]], start.levels)?;
    let deep = sampling.deep_cache.map(ReusedFeatures::new);
    tch::no_grad(|| {
        let network = Network::new(&model.unet, model.parameterization).recorded_in(&model.recordings);
        let mut network =
            network.steered_by(&steering).reusing(deep.as_ref()).merging_tokens(sampling.token_merging);
        if let Some(tiling) = &tiling {
            network = network.in_tiles(tiling.denoise.clone());
        }
        let cond = cast(cond, model.kind());
        let uncond = uncond.map(|uncond| cast(uncond, model.kind()));
        let mut denoiser: Box<dyn Denoiser + '_> = match uncond {
            uncond if model.noises_condition() => {
                let (guidance, noise) = (sampling.guidance, NoisyConditioned::noise(seeds));
                Box::new(NoisyConditioned { model, network, cond, uncond, guidance, noise })
            }
            None => Box::new(Conditioned::new(network, &cond)),
            Some(uncond) => Box::new(ClassifierFreeGuidance::new(network, &uncond, &cond, sampling.guidance)),
        };
        if let Some((classifier, labels)) = classifier {
            denoiser = Box::new(classifier.guide(denoiser, labels));
        }
        if let Some(thresholding) = sampling.thresholding {
            denoiser = thresholding.apply(denoiser);
        }
        if sampling.quantize_denoised {
            denoiser = Box::new(QuantizedDenoiser::new(denoiser, model)?);
        }
        let (levels, mask, ancestral) = (start.levels, start.mask.as_ref(), sampling.ancestral);
        let run =
            SamplerRun { denoiser: &*denoiser, levels, mask, noise: &mut noise, ancestral, observe, stop };
        let latents = plan.sampler().sample(start.x, run);
        if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Stopped);
        }
        let decoded = model.decode_finite(&latents, tiling.as_ref().map(|tiling| &tiling.decode))?;
        model.check_files()?;
        check_files(controls)?;
        let images = model.first_stage.shown(&decoded.images);
        Ok(Generated { latents, images, decoded_in_f32: decoded.in_f32 })
    })
}

/// Checks that there is one prompt for each seed.
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

/// Checks that the features that are to be reused, and the tokens that are to be merged, exist.
fn check_shortcuts(unet: &UNet, sampling: &Sampling) -> Result<()> {
    if let Some(cache) = sampling.deep_cache {
        cache.check(unet)?;
        if sampling.tile.is_some() {
            return Err(Error::invalid(
                "deep cache: expected no tiles, since each tile has features of its own",
            ));
        }
    }
    let share = sampling.token_merging;
    if !(0. ..1.).contains(&share) {
        return Err(Error::invalid(format!(
            "token merging: expected a share from 0 to below 1, got {share}"
        )));
    }
    if share > 0. && unet.transformer_factor().is_none() {
        return Err(Error::invalid("token merging: expected a model with transformers, such as one of text"));
    }
    Ok(())
}

/// `[C, h, w]` of the latents of images of `size`, with which `concat` can be concatenated.
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
                "height and width: expected multiples of {multiple} (nearest: {below} and {}), got {side}",
                below + multiple
            )));
        }
    }
    let shape = model.first_stage.latent_size(size);
    match joined {
        Some(joined) if joined != shape[1..] => Err(Error::invalid(format!(
            "height and width: expected latents of {}x{}, the size of the prompt's image, got {}x{}, of {}x{} pixels",
            joined[0], joined[1], shape[1], shape[2], size[0], size[1]
        ))),
        _ => Ok(shape),
    }
}

impl LatentDiffusion {
    /// Checks that `count` images of `[height, width]`, by default the model's own size, can be generated in the memory of the
    /// CPU, as a whole or in tiles.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the memory that is available and that is needed at least.
    pub fn check_generated(&self, count: usize, size: Option<[i64; 2]>, tiled: bool) -> Result<()> {
        check_memory(self, count as i64, &latent_shape(self, size, None)?, tiled)
    }
}

/// Refuses images that cannot fit in the memory of the CPU.
fn check_memory(model: &LatentDiffusion, count: i64, latent: &[i64; 3], tiled: bool) -> Result<()> {
    let size = [latent[1], latent[2]].map(|side| side * model.first_stage.factor());
    let network = model.footprint();
    Footprint { channels: if tiled { 0 } else { network.channels }, ..network }.check(count, size)
}

fn cast(cond: Conditioning, kind: Kind) -> Conditioning {
    Conditioning {
        concat: cond.concat.map(|tensor| tensor.to_kind(kind)),
        context: cond.context.map(|tensor| tensor.to_kind(kind)),
        label: cond.label,
    }
}
