//! Starting points of sampling: noise, variations and images.

use ldm_core::noise::{Seeded, slerp};
use ldm_core::{Error, NoiseSource, Result};
use ldm_schedulers::{InpaintMask, NoiseLevel, SamplerPlan, Spacing, stochastic_encode};
use tch::{Kind, Tensor};

use crate::{LatentDiffusion, Sampling};

/// The starting point of sampling.
#[derive(Debug, Default, Clone, Copy)]
pub enum Init<'a> {
    /// Noise drawn from the seeds.
    #[default]
    Seeds,
    /// This unit Gaussian noise, `[B, C, h, w]`.
    Noise(&'a Tensor),
    /// Noise between that of the seeds and that of others.
    Between(&'a Variation),
    /// An image.
    Image(&'a InitImage),
}

/// Variations: the initial noise is interpolated spherically toward that of other seeds, which keeps its norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// A seed for each image.
    pub seeds: Vec<u64>,
    /// The strength for each: 0 is the noise of the image's own seed, 1 that of the other.
    pub strengths: Vec<f64>,
}

impl<'a> From<Option<&'a Tensor>> for Init<'a> {
    fn from(noise: Option<&'a Tensor>) -> Self {
        noise.map_or(Self::Seeds, Self::Noise)
    }
}

/// The first sample of a run, and the levels from it on.
pub(crate) struct RunStart<'a> {
    /// `[B, C, h, w]`
    pub(crate) x: Tensor,
    /// The remaining levels.
    pub(crate) levels: &'a [NoiseLevel],
    /// The part of the sample that stays as it is.
    pub(crate) mask: Option<InpaintMask>,
}

impl Init<'_> {
    /// The size of the images: that of an initial image, or the requested one.
    pub(crate) fn size(self, requested: Option<[i64; 2]>) -> Result<Option<[i64; 2]>> {
        let Self::Image(init) = self else { return Ok(requested) };
        let [height, width] = init.size();
        match requested {
            Some(size) if size != [height, width] => Err(Error::invalid(format!(
                "height and width: expected {height} x {width}, the size of the initial image, got {} x {}",
                size[0], size[1]
            ))),
            _ => Ok(Some([height, width])),
        }
    }

    /// Samples of `size` to start `plan` from.
    pub(crate) fn start<'a>(
        self,
        model: &LatentDiffusion,
        size: [i64; 4],
        sampling: &Sampling,
        plan: &'a SamplerPlan,
        noise: &mut dyn NoiseSource,
    ) -> Result<RunStart<'a>> {
        let device = model.vs().device();
        let x = match self {
            Self::Image(init) => return init.start(model, size[0], sampling, plan, noise),
            Self::Noise(given) if given.size() == size => given.to_device(device).to_kind(Kind::Float),
            Self::Noise(given) => {
                let expected = format!("{size:?}");
                return Err(Error::Shape { what: "init noise".into(), expected, got: given.size() });
            }
            Self::Seeds => noise.like(&Tensor::zeros(size, (Kind::Float, device))),
            Self::Between(other) => {
                let [seeds, strengths] = [other.seeds.len(), other.strengths.len()].map(|count| count as i64);
                if seeds != size[0] || strengths != size[0] {
                    let expected = format!("{} seeds and strengths, one per image", size[0]);
                    return Err(Error::Shape {
                        what: "variation".into(),
                        expected,
                        got: vec![seeds, strengths],
                    });
                }
                let x = noise.like(&Tensor::zeros(size, (Kind::Float, device)));
                slerp(&x, &Seeded::new(other.seeds.iter().copied()).like(&x), &other.strengths)
            }
        };
        Ok(RunStart { x: plan.initial(x), levels: plan.levels(), mask: None })
    }
}

/// An initial image: noised according to `strength`, and denoised from there (SDEdit, Meng et al. 2022). CompVis
/// stable-diffusion `scripts/img2img.py`.
#[derive(Debug)]
pub struct InitImage {
    image: Tensor,
    strength: f64,
    fill: Option<Tensor>,
}

impl InitImage {
    /// `strength` of 1 runs all steps and keeps next to nothing of the image, 0 returns the image. With `fill` the image is blended in where it is 0,
    /// at every step with the noise of its level (CompVis `ddim.py:143`), so that any model inpaints the rest.
    ///
    /// # Shapes
    /// - `image`: `[1, C', H, W]` in `[-1, 1]` of 1 to 4 channels, the same for every seed, or `[B, C', H, W]`, one for each;
    ///   `fill`: `[1, 1, H, W]`, 0 or 1
    ///
    /// # Errors
    /// [`Error::Invalid`] when `strength` is not in `[0, 1]`; [`Error::Shape`] for other shapes.
    pub fn new(image: Tensor, strength: f64, fill: Option<Tensor>) -> Result<Self> {
        if !(0. ..=1.).contains(&strength) {
            return Err(Error::invalid(format!("strength: expected a number in [0, 1], got {strength}")));
        }
        let size = image.size();
        let [1..=i64::MAX, 1..=4, height, width] = size[..] else {
            return Err(Error::Shape {
                what: "the image".into(),
                expected: "[1, C, H, W] or one for each seed, of 1 to 4 channels".into(),
                got: size,
            });
        };
        if let Some(fill) = &fill
            && fill.size() != [1, 1, height, width]
        {
            let expected = format!("[1, 1, {height}, {width}], the image's");
            return Err(Error::Shape { what: "the mask".into(), expected, got: fill.size() });
        }
        Ok(Self { image, strength, fill })
    }

    /// Height and width.
    pub fn size(&self) -> [i64; 2] {
        [self.image.size()[2], self.image.size()[3]]
    }

    /// The denoising strength.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// The number of steps taken of `steps`: CompVis' `int(strength * ddim_steps)`.
    pub fn steps(&self, steps: usize) -> usize {
        (self.strength * steps as f64) as usize
    }

    /// The noised latents, the remaining levels and the mask.
    ///
    /// For CompVis' own samplers and spacings the noise is that of the level before the first one visited, as in
    /// CompVis; for all others of the first one.
    fn start<'a>(
        &self,
        model: &LatentDiffusion,
        count: i64,
        sampling: &Sampling,
        plan: &'a SamplerPlan,
        noise: &mut dyn NoiseSource,
    ) -> Result<RunStart<'a>> {
        model.input().pixels()?;
        let given = self.image.size();
        if given[0] != 1 && given[0] != count {
            let expected = format!("[1, …] or [{count}, …], one for each seed");
            return Err(Error::Shape { what: "the image".into(), expected, got: given });
        }
        let x0 = model.encode(&self.image.expand([count, -1, -1, -1], false), noise); // [B, C, h, w]
        let mask = self.fill.as_ref().map(|fill| {
            let fill = fill.to_device(x0.device()).to_kind(Kind::Float);
            // A latent pixel is masked if any of its pixels is.
            let [height, width] = [x0.size()[2], x0.size()[3]];
            InpaintMask { x0: x0.shallow_clone(), mask: 1. - fill.adaptive_max_pool2d([height, width]).0 }
        });
        let steps = self.steps(plan.steps());
        let levels = &plan.levels()[plan.steps() - steps..];
        // CompVis' samplers, DDIM and PLMS, are those whose default spacing is `uniform`.
        let of_reference = sampling.sampler.spacing() == Spacing::Uniform
            && matches!(sampling.spacing, Spacing::Uniform | Spacing::Quad);
        let x = match levels[0] {
            _ if steps == 0 => x0,
            _ if of_reference => stochastic_encode(&x0, plan.levels(), steps, noise).0,
            at => &x0 * at.alpha + noise.like(&x0) * at.sigma,
        };
        Ok(RunStart { x, levels, mask })
    }
}
