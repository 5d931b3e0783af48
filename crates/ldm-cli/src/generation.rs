//! Generation jobs: from prompts to image files, for every command that samples.

mod batch;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ldm::Watermark;
use ldm_checkpoint::Checkpoint;
use ldm_core::Prompt;
use ldm_pipelines::{GuidingClassifier, InitImage, LatentDiffusion, Variation};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::args::{GenerateArgs, ModelArgs, VariationStrength};
use crate::previews::{self, Previews};
use crate::progress::Printer;
use crate::{model, output, sampling};

use batch::{BatchRunner, ImageBatch};

/// The task of a command: the conditions of its images, and the text written about them.
pub(crate) trait Task {
    /// Returns the prompts of a range of images.
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt>;

    /// Returns the negative prompt of `count` images; `None` is the empty prompt.
    fn negative(&self, _count: usize) -> Option<Prompt> {
        None
    }

    /// Returns the initial image.
    fn init(&self) -> Option<&InitImage> {
        None
    }

    /// Returns the guiding classifier.
    fn classifier(&self) -> Option<&GuidingClassifier> {
        None
    }

    /// Post-processes sampled images, `[B, 3, H, W]`.
    fn finish(&self, images: Tensor) -> Tensor {
        images
    }

    /// Returns the default watermark.
    fn watermark(&self, _model: &LatentDiffusion) -> Watermark {
        Watermark::Never
    }

    /// Returns the lines of `parameters` before the one that begins with `Steps`, each with its newline.
    fn heading(&self, image: usize) -> String;

    /// Additions to the last line of `parameters`: `, KEY: VALUE` each.
    fn parameters(&self) -> String {
        String::new()
    }

    /// Returns the fields of an image's JSON line.
    fn json(&self, image: usize) -> Map<String, Value>;
}

/// A number of images to generate, with checked output paths.
pub(crate) struct GenerationJob<'a> {
    args: &'a GenerateArgs,
    count: usize,
    folder: PathBuf,
    noise: Option<Tensor>,
}

impl<'a> GenerationJob<'a> {
    /// Checks the flags, before a model is opened.
    ///
    /// # Errors
    /// When there are no images, when output files exist, and when the noise has another number of images.
    pub(crate) fn new(args: &'a GenerateArgs, command: &str, count: usize) -> anyhow::Result<Self> {
        if count == 0 || args.batch_size == 0 {
            bail!("--num-images and --batch-size: expected at least 1, got 0");
        }
        if let Some(path) = &args.save_latents {
            output::ensure_new(path, args.output.force)?;
        }
        let noise =
            args.init_noise.as_ref().map(|path| Checkpoint::open(path)?.tensor("noise")).transpose()?;
        if let Some(noise) = &noise
            && noise.size().first() != Some(&(count as i64))
        {
            bail!(
                "--init-noise: expected noise of {count} images, got {}",
                noise.size().first().unwrap_or(&0)
            );
        }
        let folder = output::folder(&args.output, command);
        output::ensure_all_new(&folder, count, args.output.force)?;
        if args.preview_every.is_some() {
            output::ensure_new(&previews::folder(&folder), args.output.force)?;
        }
        Ok(Self { args, count, folder, noise })
    }

    /// Generates and writes the images, and prints their paths.
    pub(crate) fn run(
        &self,
        model: &LatentDiffusion,
        model_args: &ModelArgs,
        task: &dyn Task,
        printer: Printer,
    ) -> anyhow::Result<()> {
        let args = self.args;
        self.check_start(task)?;
        model.merge(&args.sampling.loras)?;
        model.to_channels_last();
        model::keep_freed_memory(model.kind());
        let sampling = sampling::resolve(&args.sampling, model)?;
        let steps = task.init().map_or(sampling.steps, |init| init.steps(sampling.steps));
        let previews = self.previews(model, steps)?;
        let watermark = if args.watermark { Watermark::Always } else { task.watermark(model) };
        let bar = printer.bar((self.count.div_ceil(args.batch_size) * steps) as u64, 0);
        let mut runner = BatchRunner {
            job: self,
            model,
            model_args,
            task,
            sampling,
            steps,
            watermark,
            previews,
            bar,
            started: Instant::now(),
            warned: false,
        };
        let (mut latents, mut images) = (Vec::new(), Vec::new());
        for start in (0..self.count).step_by(args.batch_size) {
            let samples = runner.run(&self.batch(start))?;
            latents.push(samples.latents);
            images.push(samples.images);
        }
        runner.bar.finish();
        output::grid(&self.folder, &Tensor::cat(&images, 0), watermark)?;
        if let Some(path) = &args.save_latents {
            ldm_checkpoint::save(path, &[("latents".into(), Tensor::cat(&latents, 0))], &BTreeMap::new())?;
        }
        Ok(())
    }

    /// Refuses flags of the noise if the task starts from an image.
    fn check_start(&self, task: &dyn Task) -> anyhow::Result<()> {
        let flags = [
            ("--init-noise", self.noise.is_some()),
            ("--variation-seed", self.args.variation_seed.is_some()),
        ];
        if let (Some(_), Some((flag, _))) = (task.init(), flags.iter().find(|(_, given)| *given)) {
            bail!("{flag}: expected a command that starts from noise, got an initial image");
        }
        Ok(())
    }

    /// Returns the writer of the previews, if requested, for `steps` steps.
    fn previews(&self, model: &LatentDiffusion, steps: usize) -> anyhow::Result<Option<Previews>> {
        let Some(every) = self.args.preview_every else { return Ok(None) };
        if every.get() > steps {
            bail!("--preview-every: expected at most {steps}, the number of steps, got {every}");
        }
        Ok(Some(Previews::new(every, &self.folder, model)?))
    }

    /// Returns the batch whose first image is `start`.
    fn batch(&self, start: usize) -> ImageBatch {
        let args = self.args;
        let count = args.batch_size.min(self.count - start);
        let images = start..start + count;
        // Along an interpolation all images have the same two seeds.
        let fixed = matches!(args.variation_strength, Some(VariationStrength::Along(..)));
        let seeds = |first: u64| -> Vec<u64> {
            images.clone().map(|index| first + if fixed { 0 } else { index as u64 }).collect()
        };
        let variation = args.variation_seed.zip(args.variation_strength).map(|(seed, strength)| Variation {
            seeds: seeds(seed),
            strengths: images
                .clone()
                .map(|index| strength.of(index % args.num_images, args.num_images))
                .collect(),
        });
        ImageBatch {
            seeds: seeds(args.seed),
            variation,
            noise: self.noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64)),
            images,
        }
    }
}
