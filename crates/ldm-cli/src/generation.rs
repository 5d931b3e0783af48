//! Generation jobs: from prompts to image files, for every command that samples.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ldm::{Parameters, Watermark};
use ldm_checkpoint::Checkpoint;
use ldm_core::{Prompt, files, image};
use ldm_pipelines::{
    GenerateRequest, GuidingClassifier, Init, InitImage, LatentDiffusion, Variation, generate,
};
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::{GenerateArgs, ModelArgs, VariationStrength};
use crate::model;
use crate::previews::{self, Previews};
use crate::progress::Printer;
use crate::{output, sampling};

/// The images of a command: their conditions, and what is written about them.
pub(crate) trait Task {
    /// The prompts of some of the images.
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt>;

    /// The negative prompt of `count` images; the empty prompt where absent.
    fn negative(&self, _count: usize) -> Option<Prompt> {
        None
    }

    /// The initial image.
    fn init(&self) -> Option<&InitImage> {
        None
    }

    /// The classifier that guides them.
    fn classifier(&self) -> Option<&GuidingClassifier> {
        None
    }

    /// Post-processes sampled images, `[B, 3, H, W]`.
    fn finish(&self, images: Tensor) -> Tensor {
        images
    }

    /// The default watermark.
    fn watermark(&self, _model: &LatentDiffusion) -> Watermark {
        Watermark::Never
    }

    /// The lines of `parameters` before the one that begins with `Steps`, each with its newline.
    fn heading(&self, image: usize) -> String;

    /// Additions to the last line of `parameters`: `, KEY: VALUE` each.
    fn parameters(&self) -> String {
        String::new()
    }

    /// The fields of an image's JSON line.
    fn json(&self, image: usize) -> Map<String, Value>;
}

/// A number of images to generate, whose output paths are checked.
pub(crate) struct GenerationJob<'a> {
    args: &'a GenerateArgs,
    count: usize,
    folder: PathBuf,
    noise: Option<Tensor>,
}

impl<'a> GenerationJob<'a> {
    /// Checks the flags before a model is opened.
    ///
    /// # Errors
    /// For no images, existing files, and noise of another number of images.
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
        named: &ModelArgs,
        task: &dyn Task,
        printer: Printer,
    ) -> anyhow::Result<()> {
        let args = self.args;
        let noise =
            [("--init-noise", self.noise.is_some()), ("--variation-seed", args.variation_seed.is_some())];
        if let (Some(_), Some((name, _))) = (task.init(), noise.iter().find(|(_, given)| *given)) {
            bail!("{name}: expected a command that starts from noise, got an initial image");
        }
        model.merge(&args.how.loras)?;
        model.to_channels_last();
        model::keep_freed_memory(model.kind());
        let sampling = sampling::resolve(&args.how, model)?;
        let steps = task.init().map_or(sampling.steps, |init| init.steps(sampling.steps));
        if let Some(every) = args.preview_every.filter(|every| every.get() > steps) {
            bail!("--preview-every: expected at most {steps}, the number of steps, got {every}");
        }
        let mut previews =
            args.preview_every.map(|every| Previews::new(every, &self.folder, model)).transpose()?;
        let mut bar = printer.bar((self.count.div_ceil(args.batch_size) * steps) as u64, 0);
        let watermark = if args.watermark { Watermark::Always } else { task.watermark(model) };
        let started = Instant::now();
        let (mut latents, mut all_images, mut widened) = (Vec::new(), Vec::new(), false);
        for start in (0..self.count).step_by(args.batch_size) {
            let count = args.batch_size.min(self.count - start);
            let of_batch = start..start + count;
            let along = matches!(args.variation_strength, Some(VariationStrength::Along(..)));
            let numbered = |first: u64| {
                of_batch
                    .clone()
                    .map(|index| first + if along { 0 } else { index as u64 })
                    .collect::<Vec<u64>>()
            };
            let seeds = numbered(args.seed);
            let variation =
                args.variation_seed.zip(args.variation_strength).map(|(seed, strength)| Variation {
                    seeds: numbered(seed),
                    strengths: of_batch
                        .clone()
                        .map(|index| strength.of(index % args.num_images, args.num_images))
                        .collect(),
                });
            let noise = self.noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64));
            let begun = Instant::now();
            let before = (start / args.batch_size * steps) as u64;
            let (prompt, negative) = (task.prompt(of_batch.clone())?, task.negative(count));
            let init = match (task.init(), &variation) {
                (Some(image), _) => Init::Image(image),
                (None, Some(variation)) => Init::Between(variation),
                (None, None) => noise.as_ref().into(),
            };
            let request = GenerateRequest::new(&prompt, &seeds, &sampling)
                .negative(negative.as_ref())
                .init(init)
                .classifier(task.classifier());
            let made = generate(model, &request, &mut |step| {
                let done = before + step.index as u64 + 1;
                bar.at(done);
                bar.message(format!("{:.1} steps/s", done as f64 / started.elapsed().as_secs_f64()));
                if let Some(previews) = &mut previews {
                    previews.see(start, &step);
                }
            })?;
            previews.as_mut().map_or(Ok(()), Previews::wrong)?;
            if made.decoded_in_f32 && !std::mem::replace(&mut widened, true) {
                Printer::warn(&format!("the first stage overflowed in {}, and was run in f32", named.dtype));
            }
            let images = task.finish(made.images);
            let marked = (0..count as i64)
                .map(|index| watermark.apply(&images.get(index)))
                .collect::<ldm_core::Result<Vec<_>>>()?;
            output::make(&self.folder)?;
            let seconds = begun.elapsed().as_secs_f64() / count as f64;
            for (index, seed) in seeds.iter().enumerate() {
                let number = start + index;
                let size = images.size();
                let parameters = Parameters {
                    sampling: &sampling,
                    seed: *seed,
                    size: [size[2], size[3]],
                    model: &named.model.file_name().unwrap_or_default().to_string_lossy(),
                    loras: &args.how.loras,
                    variation: variation.as_ref().map(|to| (to.seeds[index], to.strengths[index])),
                    strength: task.init().map(InitImage::strength),
                    guidance_interval: args
                        .how
                        .guidance_interval
                        .map(|interval| [interval.low, interval.high]),
                    spacing: args.how.spacing.as_deref(),
                    init_noise: args.init_noise.as_deref(),
                };
                let text = format!("{}{parameters}{}", task.heading(number), task.parameters());
                let path = output::image(&self.folder, number);
                files::write_bytes(&path, &image::png(&marked[index], &[("parameters", &text)]))?;
                if args.json {
                    let mut line = task.json(number);
                    line.insert("path".into(), json!(path));
                    line.insert("seed".into(), json!(seed));
                    line.insert("sampler".into(), json!(sampling.sampler.name()));
                    line.insert("seconds".into(), json!(seconds));
                    println!("{}", Value::Object(line));
                } else {
                    println!("{}", path.display());
                }
            }
            latents.push(made.latents);
            all_images.push(images);
        }
        bar.finish();
        output::grid(&self.folder, &Tensor::cat(&all_images, 0), watermark)?;
        if let Some(path) = &args.save_latents {
            ldm_checkpoint::save(path, &[("latents".into(), Tensor::cat(&latents, 0))], &BTreeMap::new())?;
        }
        Ok(())
    }
}
