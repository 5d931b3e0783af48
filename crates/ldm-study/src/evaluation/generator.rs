//! Images generated on the fly.

use std::ops::Range;
use std::sync::Arc;

use ldm_core::device::dtype_name;
use ldm_core::{Prompt, Result, image};
use ldm_data::Dataset;
use ldm_pipelines::{GenerateRequest, LatentDiffusion, Sampling, generate};
use tch::Tensor;

use crate::Reporter;

/// Generated images, to compare with real ones.
pub enum GeneratedImages {
    /// A set, see [`super::open_generated`].
    Set(Arc<dyn Dataset>),
    /// A model that generates them.
    Model(Box<ImageGenerator>),
}

/// A model and its sampling settings: unconditional, or cycling through its classes.
pub struct ImageGenerator {
    model: Box<LatentDiffusion>,
    sampling: Sampling,
    seed: u64,
    classes: Vec<i64>,
    overflowed: bool,
}

impl ImageGenerator {
    /// Creates a generator whose image `i` has the seed `seed + i`.
    ///
    /// # Errors
    /// When the model does not support this sampling.
    pub fn new(model: Box<LatentDiffusion>, sampling: Sampling, seed: u64) -> Result<Self> {
        sampling.sampler.plan(&model.schedule, &sampling.spacing, sampling.steps)?;
        let classes = Self::classes_of(&model);
        Ok(Self { model, sampling, seed, classes, overflowed: false })
    }

    /// Returns the classes of a model, without the null class.
    pub fn classes_of(model: &LatentDiffusion) -> Vec<i64> {
        let null = model.conditioner.null_prompt(1).ok().and_then(|prompt| prompt.class);
        let null = null.map(|class| class.int64_value(&[0]));
        (0..model.config.classes().unwrap_or(0)).filter(|class| Some(*class) != null).collect()
    }

    /// Returns the classes it generates; none of an unconditional model.
    pub fn classes(&self) -> &[i64] {
        &self.classes
    }

    /// Returns the sampling.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Generates some of `count` images, as `ldm sample` saves them: `[B, 3, H, W]` in `[-1, 1]`, quantized to 8 bits;
    /// gray in three equal channels.
    ///
    /// # Errors
    /// As [`generate`].
    pub(super) fn images(
        &mut self,
        images: Range<usize>,
        count: usize,
        reporter: &dyn Reporter,
    ) -> Result<Tensor> {
        let seeds: Vec<u64> = images.clone().map(|image| self.seed + image as u64).collect();
        let prompt = match self.classes.len() {
            0 => Prompt::default(),
            known => {
                let used = known.min(count);
                // Fewer images than classes are spread evenly over the classes.
                let class = |image: usize| self.classes[image % used * known / used];
                Prompt::class(&images.map(class).collect::<Vec<i64>>())
            }
        };
        let request = GenerateRequest::new(&prompt, &seeds, &self.sampling);
        let generated = generate(&self.model, &request, &mut |_| {})?;
        if generated.decoded_in_f32 && !std::mem::replace(&mut self.overflowed, true) {
            let dtype = dtype_name(self.model.kind());
            reporter.warn(&format!("the first stage overflowed in {dtype}, and was run in f32"));
        }
        let saved = (0..seeds.len() as i64)
            .map(|index| image::from_rgb8(&image::to_rgb8(&generated.images.get(index))));
        Ok(Tensor::stack(&saved.collect::<Vec<_>>(), 0))
    }

    /// Returns the name of an image.
    pub(super) fn name(&self, image: usize) -> String {
        format!("seed {}", self.seed + image as u64)
    }
}
