//! One batch of a generation job: sampling, and the files of its images.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use ldm::{Hires, ImageGrid, NpzImages, Parameters, Previews, SafetyFilter, Watermark};
use ldm_core::device::dtype_name;
use ldm_core::{files, image};
use ldm_pipelines::{
    Control, GenerateRequest, Init, InitImage, LatentDiffusion, Sampling, Variation, generate,
};
use ldm_schedulers::SamplingStep;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::{GenerationJob, Task};
use crate::args::ModelArgs;
use crate::output;
use crate::progress::{Printer, Progress};
use crate::terminal::{self, StdoutError, outln};

/// Consecutive images of a job that are sampled together, and the origin of their noise.
pub(super) struct ImageBatch {
    /// The number of their task.
    pub(super) task: usize,
    /// Their numbers in the task.
    pub(super) images: Range<usize>,
    pub(super) seeds: Vec<u64>,
    pub(super) variation: Option<Variation>,
    /// The noise of `--init-noise`, `[B, C, h, w]`.
    pub(super) noise: Option<Tensor>,
}

/// Latents `[B, C, h, w]` and post-processed images `[B, 3, H, W]` of a batch.
struct BatchSamples {
    latents: Tensor,
    images: Tensor,
}

/// Samples the batches of a job one by one, and writes their images.
pub(super) struct BatchRunner<'a> {
    pub(super) job: &'a GenerationJob<'a>,
    pub(super) model: &'a LatentDiffusion,
    pub(super) model_args: &'a ModelArgs,
    pub(super) sampling: Sampling,
    pub(super) controls: &'a [Control<'a>],
    /// Steps per batch.
    pub(super) steps: usize,
    pub(super) watermark: Watermark,
    pub(super) previews: Option<Previews>,
    pub(super) bar: Progress,
    /// The images of `grid.png`, if it is requested.
    pub(super) grid: Option<ImageGrid>,
    pub(super) npz: Option<NpzImages>,
    pub(super) started: Instant,
    /// True once the overflow of the first stage was reported.
    pub(super) warned: bool,
    pub(super) safety: Option<SafetyFilter>,
    /// True for each image so far that the safety checker found unsafe.
    pub(super) flags: Vec<bool>,
}

impl BatchRunner<'_> {
    /// Samples a batch, writes its images and prints their paths. Returns the latents.
    pub(super) fn run(&mut self, task: &dyn Task, batch: &ImageBatch) -> anyhow::Result<Tensor> {
        let begun = Instant::now();
        let samples = self.sample(task, batch)?;
        let marked = (0..samples.images.size()[0])
            .map(|index| self.watermark.apply(&samples.images.get(index)))
            .collect::<ldm_core::Result<Vec<_>>>()?;
        if !(self.job.args.skip_save && self.job.args.skip_grid) {
            output::make(&self.job.folder)?;
        }
        let seconds = begun.elapsed().as_secs_f64() / batch.seeds.len() as f64;
        let size = [samples.images.size()[2], samples.images.size()[3]];
        for (index, pixels) in marked.iter().enumerate() {
            let number = batch.images.start + index;
            if self.job.args.only.is_some_and(|only| only != number) {
                continue;
            }
            let path = (!self.job.args.skip_save).then(|| self.job.path(batch.task, number));
            if let Some(path) = &path {
                let text = self.parameters(task, batch, index, size);
                files::write_bytes(path, &image::png(pixels, &[("parameters", &text)]))?;
            }
            if let Some(npz) = &mut self.npz {
                npz.push(&pixels.to_rgb8())?;
            }
            if let Some(grid) = &mut self.grid {
                grid.push(&samples.images.get(index as i64));
            }
            let mut line = task.json(number);
            if let Some(flag) = self.flags.get(batch.task * self.job.count + number) {
                line.insert("nsfw_content_detected".into(), json!(flag));
            }
            self.print(line, path.as_deref(), batch.seeds[index], seconds)?;
        }
        Ok(samples.latents)
    }

    /// Writes the files of the whole job.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.report_safety();
        self.bar.finish();
        if let Some(grid) = &self.grid {
            let path = output::grid(&self.job.folder);
            grid.save(&path, self.watermark)?;
            if self.job.args.skip_save && !self.job.args.json {
                outln!("{}", path.display())?;
            }
        }
        if let Some(npz) = self.npz {
            npz.finish()?;
        }
        Ok(())
    }

    /// Samples a batch, and shows the progress.
    fn sample(&mut self, task: &dyn Task, batch: &ImageBatch) -> anyhow::Result<BatchSamples> {
        let prompt = task.prompt(batch.images.clone())?;
        let negative = task.negative(batch.seeds.len());
        let init = match (task.init(), &batch.variation) {
            (Some(image), _) => Init::Image(image),
            (None, Some(variation)) => Init::Between(variation),
            (None, None) => batch.noise.as_ref().into(),
        };
        let request = GenerateRequest::new(&prompt, &batch.seeds, &self.sampling)
            .negative(negative.as_ref())
            .init(init)
            .classifier(task.classifier())
            .controls(self.controls);
        let (count, size) = (self.job.count, self.job.args.batch_size);
        let start = batch.task * count + batch.images.start;
        let batches = batch.task * count.div_ceil(size) + batch.images.start / size;
        let before = (batches * self.steps) as u64;
        let (bar, previews, started) = (&mut self.bar, &mut self.previews, self.started);
        let mut observe = |step: SamplingStep| {
            let done = before + step.index as u64 + 1;
            bar.at(done);
            bar.message(format!("{:.1} steps/s", done as f64 / started.elapsed().as_secs_f64()));
            if let Some(previews) = previews.as_mut() {
                previews.observe(start, &step);
            }
        };
        let generated = match task.hires() {
            Some(hires) => hires.generate(self.model, &request, &mut observe)?,
            None => generate(self.model, &request, &mut observe)?,
        };
        self.previews.as_mut().map_or(Ok(()), Previews::result)?;
        if generated.decoded_in_f32 && !std::mem::replace(&mut self.warned, true) {
            let dtype = dtype_name(self.model.kind());
            Printer::warn(&format!("the first stage overflowed in {dtype}, and was run in f32"));
        }
        self.model.recordings.take_failure().iter().for_each(|warning| Printer::warn(warning));
        let images = task.finish(generated.images);
        let images = match &self.safety {
            Some(safety) => safety.check(images, &mut self.flags)?,
            None => images,
        };
        Ok(BatchSamples { latents: generated.latents, images })
    }

    /// Says how many images the safety checker found unsafe.
    fn report_safety(&self) {
        let flagged = self.flags.iter().filter(|flag| **flag).count();
        if let Some(line) = self.safety.as_ref().and_then(|safety| safety.report(flagged, self.flags.len())) {
            Printer::warn(&line);
        }
    }

    /// Returns the text `parameters` of the image at `index` of a batch.
    fn parameters(&self, task: &dyn Task, batch: &ImageBatch, index: usize, size: [i64; 2]) -> String {
        let args = self.job.args;
        let (interval, hires) = (args.sampling.guidance_interval, task.hires());
        let heading = task.heading(batch.images.start + index);
        let parameters = Parameters {
            sampling: &self.sampling,
            seed: batch.seeds[index],
            size: hires.map_or(size, |_| Hires::first_size(self.model, &self.sampling)),
            batch: [index, batch.seeds.len()],
            model: &self.model_args.model.file_name().unwrap_or_default().to_string_lossy(),
            loras: &args.sampling.loras,
            variation: batch.variation.as_ref().map(|to| (to.seeds[index], to.strengths[index])),
            strength: task.init().map(InitImage::strength),
            hires: hires.as_ref(),
            guidance_interval: interval.map(|interval| [interval.low, interval.high]),
            spacing: args.sampling.spacing.as_deref(),
            init_noise: args.init_noise.as_deref(),
            literal_brackets: self.model.reads_brackets_as_text(&heading, &self.sampling.text),
            embeddings: &self.model.conditioner.learned_words(),
            controls: self.controls,
            dtype: self.model.kind(),
            ema: !self.model_args.no_ema,
            overrides: &self.model_args.overrides,
        };
        let watermark = if args.watermark { ", Watermark: true" } else { "" };
        format!("{heading}{parameters}{watermark}{}", task.parameters())
    }

    /// Prints the path of an image, if it was written, or its JSON line.
    fn print(
        &self,
        mut line: Map<String, Value>,
        path: Option<&Path>,
        seed: u64,
        seconds: f64,
    ) -> Result<(), StdoutError> {
        if !self.job.args.json {
            return path.map_or(Ok(()), |path| outln!("{}", path.display()));
        }
        line.insert("path".into(), json!(path));
        line.insert("seed".into(), json!(seed));
        line.insert("sampler".into(), json!(self.sampling.sampler.name()));
        line.insert("seconds".into(), json!(seconds));
        terminal::write_json(&Value::Object(line), true)
    }
}
