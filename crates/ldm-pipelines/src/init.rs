//! Where a walk begins.

use ldm_core::noise::{Seeded, slerp};
use ldm_core::{Error, NoiseSource, Result};
use ldm_schedulers::{InpaintMask, NoiseLevel, SamplerConfig, Spacing, stochastic_encode};
use tch::{Kind, Tensor};

use crate::{LatentDiffusion, Sampling};

/// Where a walk begins.
#[derive(Debug, Default, Clone, Copy)]
pub enum Init<'a> {
    /// At noise that the seeds draw.
    #[default]
    Seeds,
    /// At this noise, `[B, C, h, w]`, unit Gaussian.
    Noise(&'a Tensor),
    /// At noise between what the seeds draw and what others draw.
    Between(&'a Variation),
    /// At an image.
    Image(&'a InitImage),
}

/// Images near those of the seeds: their first noise is turned toward that of other seeds, on the great circle, so that
/// it stays as long as noise is.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// One an image.
    pub seeds: Vec<u64>,
    /// How far each is turned: 0 not at all, 1 all the way.
    pub shares: Vec<f64>,
}

impl<'a> From<Option<&'a Tensor>> for Init<'a> {
    fn from(noise: Option<&'a Tensor>) -> Self {
        noise.map_or(Self::Seeds, Self::Noise)
    }
}

/// A sample, and the way it has before it.
pub(crate) struct Begun<'a> {
    /// `[B, C, h, w]`
    pub(crate) x: Tensor,
    /// The part of the ladder that is left.
    pub(crate) levels: &'a [NoiseLevel],
    /// The part of the sample that is not to change.
    pub(crate) kept: Option<InpaintMask>,
}

impl Init<'_> {
    /// The size of the images: that of an image to begin at, or the one that is asked for.
    pub(crate) fn size(self, asked: Option<[i64; 2]>) -> Result<Option<[i64; 2]>> {
        let Self::Image(init) = self else { return Ok(asked) };
        let [height, width] = init.size();
        match asked {
            Some(asked) if asked != [height, width] => Err(Error::invalid(format!(
                "height and width: the image to begin at has {height} x {width}, got: {} x {}",
                asked[0], asked[1]
            ))),
            _ => Ok(Some([height, width])),
        }
    }

    /// Samples of `size` at the beginning of what is left of `ladder`.
    pub(crate) fn begin<'a>(
        self,
        model: &LatentDiffusion,
        size: [i64; 4],
        sampling: &Sampling,
        ladder: &'a [NoiseLevel],
        noise: &mut dyn NoiseSource,
    ) -> Result<Begun<'a>> {
        let device = model.vs().device();
        let x = match self {
            Self::Image(init) => return Ok(init.begin(model, size[0], sampling, ladder, noise)),
            Self::Noise(given) if given.size() == size => given.to_device(device).to_kind(Kind::Float),
            Self::Noise(given) => {
                let expected = format!("{size:?}");
                return Err(Error::Shape { what: "init noise".into(), expected, got: given.size() });
            }
            Self::Seeds => noise.like(&Tensor::zeros(size, (Kind::Float, device))),
            Self::Between(other) => {
                let [seeds, shares] = [other.seeds.len(), other.shares.len()].map(|count| count as i64);
                if seeds != size[0] || shares != size[0] {
                    let expected = format!("{} seeds and shares, one an image", size[0]);
                    return Err(Error::Shape {
                        what: "variation".into(),
                        expected,
                        got: vec![seeds, shares],
                    });
                }
                let x = noise.like(&Tensor::zeros(size, (Kind::Float, device)));
                slerp(&x, &Seeded::new(other.seeds.iter().copied()).like(&x), &other.shares)
            }
        };
        let x = sampling.sampler.start(&sampling.spacing, x, ladder[0]);
        Ok(Begun { x, levels: ladder, kept: None })
    }
}

/// An image to begin at: noised as far as `strength` says, and denoised from there (SDEdit, Meng et al. 2022). CompVis
/// stable-diffusion `scripts/img2img.py`.
#[derive(Debug)]
pub struct InitImage {
    image: Tensor,
    strength: f64,
    fill: Option<Tensor>,
}

impl InitImage {
    /// `strength` of 1 leaves nothing of the image but what is not to be filled, 0 leaves all of it. With `fill` what is
    /// 0 in it is put back before every step, with the noise of that level (CompVis `ddim.py:143`), so that any model
    /// fills the rest.
    ///
    /// # Shapes
    /// - `image`: `[1, 3, H, W]` in `[-1, 1]`, the same for every seed; `fill`: `[1, 1, H, W]`, 0 or 1
    ///
    /// # Errors
    /// [`Error::Invalid`] when `strength` is not in `[0, 1]`; [`Error::Shape`] for other shapes.
    pub fn new(image: Tensor, strength: f64, fill: Option<Tensor>) -> Result<Self> {
        if !(0. ..=1.).contains(&strength) {
            return Err(Error::invalid(format!("strength: expected a number in [0, 1], got {strength}")));
        }
        let size = image.size();
        let [1, 3, height, width] = size[..] else {
            return Err(Error::Shape {
                what: "the image".into(),
                expected: "[1, 3, H, W]".into(),
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

    /// How much of it is made anew.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// How many of `steps` are taken: CompVis' `int(strength * ddim_steps)`.
    pub fn steps(&self, steps: usize) -> usize {
        (self.strength * steps as f64) as usize
    }

    /// The samples to begin at, the part of the ladder that is left, and what is kept of them.
    ///
    /// On the reference's own ladders the noise is that of the level above the first one visited, as in the reference;
    /// on all others of the first one.
    fn begin<'a>(
        &self,
        model: &LatentDiffusion,
        count: i64,
        sampling: &Sampling,
        ladder: &'a [NoiseLevel],
        noise: &mut dyn NoiseSource,
    ) -> Begun<'a> {
        let x0 = model.encode(&self.image.expand([count, -1, -1, -1], false), noise); // [B, C, h, w]
        let kept = self.fill.as_ref().map(|fill| {
            let fill = fill.to_device(x0.device()).to_kind(Kind::Float);
            // What stands for any pixel to be filled is filled.
            let [height, width] = [x0.size()[2], x0.size()[3]];
            InpaintMask { x0: x0.shallow_clone(), mask: 1. - fill.adaptive_max_pool2d([height, width]).0 }
        });
        let steps = self.steps(ladder.len() - 1);
        let levels = &ladder[ladder.len() - 1 - steps..];
        let theirs = matches!(sampling.sampler, SamplerConfig::Ddim { .. } | SamplerConfig::Plms {})
            && matches!(sampling.spacing, Spacing::Uniform | Spacing::Quad);
        let x = match levels[0] {
            _ if steps == 0 => x0,
            _ if theirs => stochastic_encode(&x0, ladder, steps, noise).0,
            at => &x0 * at.alpha + noise.like(&x0) * at.sigma,
        };
        Begun { x, levels, kept }
    }
}
