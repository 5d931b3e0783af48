//! Generation in two passes: a small image, and the same enlarged.

use std::fmt;

use ldm_core::{Error, Result, image};
use ldm_data::{Interpolation, resize};
use ldm_pipelines::{GenerateRequest, Generated, Init, InitImage, LatentDiffusion, Sampling, generate};
use ldm_schedulers::SamplingStep;
use tch::Tensor;

/// A second pass over the enlarged image, AUTOMATIC1111's "Hires. fix" with its upscaler Lanczos: the image of the first
/// pass, in 8 bits, is resized by Lanczos' filter and denoised again from `strength` on, as by
/// [`InitImage`], with the same prompt, seeds and sampler. Large images thus keep the composition of the size that the
/// model was trained at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hires {
    scale: f64,
    strength: f64,
    steps: Option<usize>,
}

/// The largest scale.
const LARGEST: f64 = 8.;

impl Hires {
    /// AUTOMATIC1111's default strength.
    pub const STRENGTH: f64 = 0.7;

    /// A pass over the image enlarged by `scale`, of which `strength` of `steps` steps are run; as many steps as in the
    /// first pass where absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a scale that is not above 1 and at most 8, a strength outside `[0, 1]`, and no steps.
    pub fn new(scale: f64, strength: f64, steps: Option<usize>) -> Result<Self> {
        if !(scale > 1. && scale <= LARGEST) {
            return Err(Error::expected("hires", format!("a scale above 1, at most {LARGEST}"), scale));
        }
        if !(0. ..=1.).contains(&strength) {
            return Err(Error::expected("hires strength", "a number in [0, 1]", strength));
        }
        if steps == Some(0) {
            return Err(Error::expected("hires steps", "at least 1", 0));
        }
        Ok(Self { scale, strength, steps })
    }

    /// Height and width of the first pass.
    pub fn first_size(model: &LatentDiffusion, sampling: &Sampling) -> [i64; 2] {
        sampling.size.unwrap_or([model.config.image_size * model.first_stage.factor(); 2])
    }

    /// Height and width of the second pass: those of the first times the scale, rounded to sizes of the model.
    pub fn size(&self, model: &LatentDiffusion, first: [i64; 2]) -> [i64; 2] {
        let multiple = (model.first_stage.factor() * model.unet.factor()) as f64;
        first.map(|side| ((side as f64 * self.scale / multiple).round() * multiple) as i64)
    }

    /// Checks a request of `count` images before its first pass.
    ///
    /// # Errors
    /// [`Error::Invalid`] with an initial image, and for sizes that do not fit the model, or the memory.
    pub fn check(
        &self,
        model: &LatentDiffusion,
        sampling: &Sampling,
        count: usize,
        with_image: bool,
    ) -> Result<()> {
        if with_image {
            return Err(Error::invalid("hires: expected a request without an image, got one"));
        }
        model.input().pixels()?;
        let size = self.size(model, Self::first_size(model, sampling));
        model.check_image_size(size)?;
        model.check_generated(count, Some(size), sampling.tile.is_some()).map_err(|error| match error {
            Error::Invalid(message) => Error::Invalid(format!("hires: {message}")),
            other => other,
        })
    }

    /// The number of steps that the second pass runs after a first one of `steps`.
    pub fn steps(&self, steps: usize) -> usize {
        (self.strength * self.steps.unwrap_or(steps) as f64) as usize
    }

    /// Generates images in two passes. `observe` is called at every step of both, which are numbered on.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate(
        &self,
        model: &LatentDiffusion,
        request: &GenerateRequest,
        observe: &mut dyn FnMut(SamplingStep),
    ) -> Result<Generated> {
        let first = generate(model, request, observe)?;
        let size = first.images.size();
        let [height, width] = self.size(model, [size[2], size[3]]).map(|side| side as u32);
        let enlarged = (0..size[0]).map(|index| {
            let small = image::to_rgb8(&first.images.get(index));
            image::from_rgb8(&resize(&small, width, height, Interpolation::Lanczos))
        });
        let init = InitImage::new(Tensor::stack(&enlarged.collect::<Vec<_>>(), 0), self.strength, None)?;
        let done = request.sampling.steps;
        let steps = self.steps.unwrap_or(done);
        let sampling = Sampling { steps, size: None, ..request.sampling.clone() };
        let request = GenerateRequest { sampling: &sampling, init: Init::Image(&init), ..*request };
        let second = generate(model, &request, &mut |step| {
            observe(SamplingStep { index: step.index + done, ..step });
        })?;
        Ok(Generated { decoded_in_f32: first.decoded_in_f32 || second.decoded_in_f32, ..second })
    }
}

/// Writes the fields of `parameters`, with AUTOMATIC1111's names.
impl fmt::Display for Hires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", Denoising strength: {}, Hires upscale: {}", self.strength, self.scale)?;
        if let Some(steps) = self.steps {
            write!(f, ", Hires steps: {steps}")?;
        }
        f.write_str(", Hires upscaler: Lanczos")
    }
}
