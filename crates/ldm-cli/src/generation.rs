//! Generation jobs: from prompts to image files, for every command that samples.

mod batch;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use ldm::{Hires, ImageGrid, InputImages, NpzImages, OpenControls, Previews, SafetyFilter, Watermark};
use ldm_checkpoint::{Axis, Checkpoint};
use ldm_core::{FileContent, Prompt};
use ldm_pipelines::{GuidingClassifier, InitImage, LatentDiffusion, Variation, VariationStrength};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::args::{GenerateArgs, ModelArgs, TextArgs};
use crate::output::OutputFolder;
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

    /// Returns the flags of text, for commands that have them.
    fn text(&self) -> Option<&TextArgs> {
        None
    }

    /// Returns the initial image.
    fn init(&self) -> Option<&InitImage> {
        None
    }

    /// Returns the second pass.
    fn hires(&self) -> Option<Hires> {
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

/// Images to generate, with checked output paths.
pub(crate) struct GenerationJob<'a> {
    args: &'a GenerateArgs,
    /// The names of the input images, without extension, where they are the files of a folder: one task each.
    inputs: Vec<String>,
    /// Images per task.
    count: usize,
    folder: OutputFolder,
    noise: Option<Tensor>,
}

impl<'a> GenerationJob<'a> {
    /// Checks the flags of one task of `count` images, before a model is opened.
    ///
    /// # Errors
    /// When output files exist, and when the noise has another number of images.
    pub(crate) fn new(args: &'a GenerateArgs, command: &str, count: usize) -> anyhow::Result<Self> {
        Self::with_inputs(args, command, Vec::new(), count)
    }

    /// [`new`](Self::new) of a task for each input image. The files of a folder give their names to the output.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when two inputs differ only in the extension.
    pub(crate) fn of_inputs(
        args: &'a GenerateArgs,
        command: &str,
        inputs: &InputImages,
    ) -> anyhow::Result<Self> {
        Self::with_inputs(args, command, inputs.names()?, args.num_images)
    }

    fn with_inputs(
        args: &'a GenerateArgs,
        command: &str,
        inputs: Vec<String>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let force = args.output.force;
        for (path, content) in
            [(&args.save_latents, FileContent::Safetensors), (&args.save_npz, FileContent::Npz)]
        {
            path.iter().try_for_each(|path| output::ensure_writable(path, content, force))?;
        }
        let axes = ["B", "C", "h", "w"].map(Axis::Any);
        let read = |path| Checkpoint::open(path)?.floats("noise", &axes);
        let noise = args.init_noise.as_ref().map(read).transpose()?;
        if let Some(noise) = &noise
            && noise.size().first() != Some(&(count as i64))
        {
            bail!(
                "--init-noise: expected noise of {count} images, got {}",
                noise.size().first().unwrap_or(&0)
            );
        }
        let folder = OutputFolder::new(&args.output, command)?;
        let job = Self { args, inputs, count, folder, noise };
        let written = (0..count).filter(|image| args.only.is_none_or(|only| only == *image));
        let paths = (0..job.tasks()).flat_map(|task| written.clone().map(move |image| (task, image)));
        let mut paths = paths.map(|(task, image)| job.path(task, image)).chain([output::grid(&job.folder)]);
        paths.try_for_each(|path| output::ensure_replaceable(&path, FileContent::Png, force))?;
        if args.preview_every.is_some() {
            output::ensure_new(&Previews::folder(&job.folder), force)?;
        }
        drop(paths);
        Ok(job)
    }

    fn tasks(&self) -> usize {
        self.inputs.len().max(1)
    }

    /// Returns the path of an image of a task: `00000.png`, or by the name of the input, `NAME.png` or `NAME-00000.png`.
    fn path(&self, task: usize, image: usize) -> PathBuf {
        match self.inputs.get(task) {
            None => output::image(&self.folder, image),
            Some(name) if self.count == 1 => self.folder.join(format!("{name}.png")),
            Some(name) => self.folder.join(format!("{name}-{image:05}.png")),
        }
    }

    /// Generates and writes the images of a task, and prints their paths.
    pub(crate) fn run<'t>(
        &self,
        model: &LatentDiffusion,
        model_args: &ModelArgs,
        task: impl Task + 't,
        printer: Printer,
    ) -> anyhow::Result<()> {
        self.run_each(model, model_args, std::iter::once(Ok(Box::new(task) as Box<dyn Task + 't>)), printer)
    }

    /// [`run`](Self::run) for the task of each input, of which one is in memory at a time.
    pub(crate) fn run_each<'t>(
        &self,
        model: &LatentDiffusion,
        model_args: &ModelArgs,
        tasks: impl Iterator<Item = anyhow::Result<Box<dyn Task + 't>>>,
        printer: Printer,
    ) -> anyhow::Result<()> {
        let args = self.args;
        let mut tasks = tasks.peekable();
        let Some(Ok(first)) = tasks.peek() else {
            return tasks.next().map_or(Ok(()), |error| error.map(drop));
        };
        self.check_start(&**first)?;
        model.merge(&args.sampling.loras)?;
        model.to_channels_last();
        model::keep_freed_memory(model.kind());
        let mut sampling = sampling::resolve(&args.sampling, model)?;
        if let Some(text) = first.text() {
            sampling.text = text.options()?;
        }
        let opened = first.text().map(|text| text.control.files().open(model)).transpose()?;
        let controls = opened.as_ref().map(OpenControls::controls).unwrap_or_default();
        let steps = match (first.init(), first.hires()) {
            (Some(init), _) => init.steps(sampling.steps),
            (None, Some(hires)) => {
                hires.check(model, &sampling, args.batch_size.min(self.count), false)?;
                sampling.steps + hires.steps(sampling.steps)
            }
            (None, None) => sampling.steps,
        };
        let batches = self.tasks() * self.count.div_ceil(args.batch_size);
        let mut runner = BatchRunner {
            job: self,
            model,
            model_args,
            sampling,
            controls: &controls,
            steps,
            watermark: if args.watermark { Watermark::Always } else { first.watermark(model) },
            previews: self.previews(model, steps)?,
            bar: printer.bar((batches * steps) as u64, 0),
            grid: (!args.skip_grid).then(|| ImageGrid::new(args.n_rows)),
            npz: args
                .save_npz
                .as_ref()
                .map(|path| NpzImages::new(path, self.tasks() * args.only.map_or(self.count, |_| 1)))
                .transpose()?,
            started: Instant::now(),
            warned: false,
            safety: SafetyFilter::find(
                &model_args.model,
                args.safety_checker.as_deref(),
                args.safety.parse()?,
                model.vs().device(),
            )?,
            flags: Vec::new(),
        };
        let mut latents = Vec::new();
        for (index, task) in tasks.enumerate() {
            let task = task?;
            for start in (0..self.count).step_by(args.batch_size) {
                let sampled = runner.run(&*task, &self.batch(index, start))?;
                if args.save_latents.is_some() {
                    let first: &Tensor = latents.first().unwrap_or(&sampled);
                    if first.size()[1..] != sampled.size()[1..] {
                        bail!("--save-latents: expected images of one size, got several");
                    }
                    latents.push(sampled);
                }
            }
        }
        runner.finish()?;
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
        Ok(Some(Previews::new(every, &self.folder, model).context("--preview-every")?))
    }

    /// Returns the batch of a task whose first image is `start`.
    fn batch(&self, task: usize, start: usize) -> ImageBatch {
        let args = self.args;
        let count = args.batch_size.min(self.count - start);
        let images = start..start + count;
        // Along an interpolation all images have the same two seeds.
        let fixed = matches!(args.variation_strength, Some(VariationStrength::Along(..)));
        let seeds = |first: u64| -> Vec<u64> {
            images.clone().map(|index| first.wrapping_add(if fixed { 0 } else { index as u64 })).collect()
        };
        let variation = args.variation_seed.zip(args.variation_strength).map(|(seed, strength)| Variation {
            seeds: seeds(seed),
            strengths: images
                .clone()
                .map(|index| strength.of(index % args.num_images, args.num_images))
                .collect(),
        });
        ImageBatch {
            task,
            seeds: seeds(args.seed),
            variation,
            noise: self.noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64)),
            images,
        }
    }
}

/// Repeats an image, a map or a context, `[1, …]`, for each of `images`.
pub(crate) fn repeated(tensor: &Tensor, images: Range<usize>) -> Tensor {
    let mut size = vec![-1; tensor.dim()];
    size[0] = images.len() as i64;
    tensor.expand(size, false)
}
