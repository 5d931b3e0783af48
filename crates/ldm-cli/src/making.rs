//! From a prompt to images on the disk: what every command that samples does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ldm_checkpoint::Checkpoint;
use ldm_core::{Prompt, files, image};
use ldm_pipelines::{Init, InitImage, LatentDiffusion, Variation, generate};
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::{GenerateArgs, ModelArgs, Turn};
use crate::model;
use crate::output::{self, Mark};
use crate::previews::{self, Previews};
use crate::progress::Printer;
use crate::sampling::{self, Made};

/// What the images of a command show.
pub(crate) trait Subject {
    /// The prompts of some of the images.
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt>;

    /// What as many are guided away from; the prompt that says nothing where absent.
    fn negative(&self, _count: usize) -> Option<Prompt> {
        None
    }

    /// The image they begin at.
    fn init(&self) -> Option<&InitImage> {
        None
    }

    /// What becomes of the images that were made, `[B, 3, H, W]`.
    fn finish(&self, made: Tensor) -> Tensor {
        made
    }

    /// The watermark they carry where nobody says.
    fn mark(&self, _model: &LatentDiffusion) -> Mark {
        Mark::Never
    }

    /// The lines of `parameters` before the one that begins with `Steps`, each with its end.
    fn heading(&self, image: usize) -> String;

    /// What the last line of `parameters` says beside: `, KEY: VALUE` each.
    fn parameters(&self) -> String {
        String::new()
    }

    /// What a JSON line says of it.
    fn json(&self, image: usize) -> Map<String, Value>;
}

/// ImageSet that were asked for, and for which there is room.
pub(crate) struct Making<'a> {
    args: &'a GenerateArgs,
    count: usize,
    folder: PathBuf,
    noise: Option<Tensor>,
}

impl<'a> Making<'a> {
    /// Refuses, before a model is opened, what cannot be: no images, files that are there already, noise that does
    /// not suffice.
    pub(crate) fn new(args: &'a GenerateArgs, command: &str, count: usize) -> anyhow::Result<Self> {
        if count == 0 || args.batch_size == 0 {
            bail!("--num-images and --batch-size: expected at least 1");
        }
        if let Some(path) = &args.save_latents {
            output::free(path, args.output.force)?;
        }
        let noise =
            args.init_noise.as_ref().map(|path| Checkpoint::open(path)?.tensor("noise")).transpose()?;
        if let Some(noise) = &noise
            && noise.size().first() != Some(&(count as i64))
        {
            bail!("--init-noise holds {} images, {count} are asked for", noise.size().first().unwrap_or(&0));
        }
        let folder = output::folder(&args.output, command);
        output::all_free(&folder, count, args.output.force)?;
        if args.preview_every.is_some() {
            output::free(&previews::folder(&folder), args.output.force)?;
        }
        Ok(Self { args, count, folder, noise })
    }

    /// Makes them, and says where they are.
    pub(crate) fn run(
        &self,
        model: &LatentDiffusion,
        named: &ModelArgs,
        guidance_scale: f64,
        subject: &dyn Subject,
        printer: Printer,
    ) -> anyhow::Result<()> {
        let args = self.args;
        let noise =
            [("--init-noise", self.noise.is_some()), ("--variation-seed", args.variation_seed.is_some())];
        if let (Some(_), Some((name, _))) = (subject.init(), noise.iter().find(|(_, given)| *given)) {
            bail!("{name}: these images begin at an image, and not at noise");
        }
        model.merge(&args.how.loras)?;
        model.lay_out();
        model::keep_freed_memory(model.kind());
        let sampling = sampling::asked(&args.how, model, guidance_scale)?;
        let steps = subject.init().map_or(sampling.steps, |init| init.steps(sampling.steps));
        if let Some(every) = args.preview_every.filter(|every| every.get() > steps) {
            bail!("--preview-every {every}: there are {steps} steps");
        }
        let mut previews =
            args.preview_every.map(|every| Previews::new(every, &self.folder, model)).transpose()?;
        let mut bar = printer.bar((self.count.div_ceil(args.batch_size) * steps) as u64, 0);
        let mark = if args.watermark { Mark::Always } else { subject.mark(model) };
        let started = Instant::now();
        let (mut latents, mut all_images, mut widened) = (Vec::new(), Vec::new(), false);
        for start in (0..self.count).step_by(args.batch_size) {
            let count = args.batch_size.min(self.count - start);
            let of_batch = start..start + count;
            let along = matches!(args.variation_strength, Some(Turn::Along(..)));
            let numbered = |first: u64| {
                of_batch
                    .clone()
                    .map(|index| first + if along { 0 } else { index as u64 })
                    .collect::<Vec<u64>>()
            };
            let seeds = numbered(args.seed);
            let variation = args.variation_seed.zip(args.variation_strength).map(|(seed, turn)| Variation {
                seeds: numbered(seed),
                shares: of_batch
                    .clone()
                    .map(|index| turn.of(index % args.num_images, args.num_images))
                    .collect(),
            });
            let noise = self.noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64));
            let begun = Instant::now();
            let before = (start / args.batch_size * steps) as u64;
            let made = generate(
                model,
                &subject.prompt(of_batch.clone())?,
                subject.negative(count).as_ref(),
                &seeds,
                &sampling,
                match (subject.init(), &variation) {
                    (Some(image), _) => Init::Image(image),
                    (None, Some(variation)) => Init::Between(variation),
                    (None, None) => noise.as_ref().into(),
                },
                &mut |step| {
                    let done = before + step.index as u64 + 1;
                    bar.at(done);
                    bar.message(format!("{:.1} steps/s", done as f64 / started.elapsed().as_secs_f64()));
                    if let Some(previews) = &mut previews {
                        previews.see(start, &step);
                    }
                },
            )?;
            previews.as_mut().map_or(Ok(()), Previews::wrong)?;
            if made.decoded_in_f32 && !std::mem::replace(&mut widened, true) {
                Printer::warn(&format!("the first stage overflowed in {}, and was run in f32", named.dtype));
            }
            let images = subject.finish(made.images);
            let marked = (0..count as i64)
                .map(|index| mark.put(&images.get(index)))
                .collect::<anyhow::Result<Vec<_>>>()?;
            output::make(&self.folder)?;
            let seconds = begun.elapsed().as_secs_f64() / count as f64;
            for (index, seed) in seeds.iter().enumerate() {
                let number = start + index;
                let how = Made {
                    seed: *seed,
                    size: images.size(),
                    init: subject.init(),
                    variation: variation.as_ref().map(|to| (to.seeds[index], to.shares[index])),
                };
                let text = subject.heading(number)
                    + &sampling::parameters(&how, &sampling, args, named)
                    + &subject.parameters();
                let path = output::image(&self.folder, number);
                files::write_bytes(&path, &image::png(&marked[index], &[("parameters", &text)]))?;
                if args.json {
                    let mut line = subject.json(number);
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
        output::grid(&self.folder, &Tensor::cat(&all_images, 0), mark)?;
        if let Some(path) = &args.save_latents {
            ldm_checkpoint::save(path, &[("latents".into(), Tensor::cat(&latents, 0))], &BTreeMap::new())?;
        }
        Ok(())
    }
}
