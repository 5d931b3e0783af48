//! From a prompt and seeds to pictures.

use ldm_conditioning::ConditionerConfig;
use ldm_core::noise::Seeded;
use ldm_core::{Conditioning, Error, NoiseSource, Prompt, Result};
use ldm_schedulers::{Denoiser, SamplerConfig, Spacing, Step};
use tch::{Kind, Tensor};

use crate::{Guided, LatentDiffusion, Unguided};

/// How to sample.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// The solver.
    pub sampler: SamplerConfig,
    /// Which noise levels it visits.
    pub spacing: Spacing,
    /// How many.
    pub steps: usize,
    /// Classifier-free guidance; 1 is none.
    pub guidance_scale: f64,
    /// Height and width of the pictures in pixels; the size the model was trained at where absent.
    pub size: Option<[i64; 2]>,
}

/// What came out.
#[derive(Debug)]
pub struct Generated {
    /// `[B, C, h, w]` f32: the sampler's result, before it is divided by the scale factor.
    pub latents: Tensor,
    /// `[B, 3, H, W]` f32 in `[-1, 1]`, not clamped.
    pub images: Tensor,
}

/// Samples one picture a seed.
///
/// Picture `i` starts from what `torch.Generator("cpu").manual_seed(seeds[i])` draws, or from `init_noise`
/// (`[B, C, h, w]`, unit Gaussian), and takes its further noise from the same generator: it does not depend on the
/// batch it is in. `observe` sees every step.
///
/// # Errors
/// [`Error::Invalid`] when the size does not fit the model, the sampler cannot take so many steps, or guidance is
/// asked for and the model has nothing to be guided away from; [`Error::MissingInput`] when the prompt lacks what
/// the model needs; [`Error::Shape`] for a wrong `init_noise`.
pub fn generate(
    model: &LatentDiffusion,
    prompt: &Prompt,
    seeds: &[u64],
    sampling: &Sampling,
    init_noise: Option<&Tensor>,
    observe: &mut dyn FnMut(Step),
) -> Result<Generated> {
    let count = seeds.len() as i64;
    let device = model.vs().device();
    let shape = latent_shape(model, sampling.size)?;
    let levels = model.schedule.ladder(sampling.spacing, sampling.steps)?;
    let sampler = sampling.sampler.build(&model.schedule)?;
    let mut noise = Seeded::new(seeds.iter().copied());
    let size = [count, shape[0], shape[1], shape[2]];
    let blank = Tensor::zeros(size, (Kind::Float, device));
    let x = match init_noise {
        Some(given) if given.size() == size => given.to_device(device).to_kind(Kind::Float),
        Some(given) => {
            return Err(Error::Shape {
                what: "init noise".into(),
                expected: format!("{size:?}"),
                got: given.size(),
            });
        }
        None => noise.like(&blank),
    };
    tch::no_grad(|| {
        let cond = cast(model.conditioner.condition(prompt, false)?, model.kind());
        let latents = {
            let run = |denoiser: &dyn Denoiser| sampler.sample(denoiser, x, &levels, &mut noise, observe);
            if sampling.guidance_scale == 1.
                || model.config.cond_stage_config == ConditionerConfig::Unconditional
            {
                run(&Unguided::new(&model.unet, model.parameterization, &cond))
            } else {
                let uncond = cast(model.conditioner.unconditional(count)?, model.kind());
                run(&Guided::new(
                    &model.unet,
                    model.parameterization,
                    &uncond,
                    &cond,
                    sampling.guidance_scale,
                ))
            }
        };
        let images = model.decode(&latents);
        Ok(Generated { latents, images })
    })
}

/// `[C, h, w]` of the latents of pictures of `size`.
fn latent_shape(model: &LatentDiffusion, size: Option<[i64; 2]>) -> Result<[i64; 3]> {
    let Some(size) = size else {
        return Ok([model.config.channels, model.config.image_size, model.config.image_size]);
    };
    let multiple = model.first_stage.factor() * model.unet.factor();
    for side in size {
        if side <= 0 || side % multiple != 0 {
            let below = (side / multiple * multiple).max(multiple);
            return Err(Error::invalid(format!(
                "this model makes pictures whose sides are multiples of {multiple} (nearest: {below} and {}), got: {side}",
                below + multiple
            )));
        }
    }
    Ok(model.first_stage.latent_size(size))
}

fn cast(cond: Conditioning, kind: Kind) -> Conditioning {
    Conditioning {
        concat: cond.concat.map(|tensor| tensor.to_kind(kind)),
        context: cond.context.map(|tensor| tensor.to_kind(kind)),
        label: cond.label,
    }
}
