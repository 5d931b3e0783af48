//! From a prompt to pictures on the disk: what every command that samples does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ldm_core::weights::{self, Checkpoint};
use ldm_core::{Prompt, image};
use ldm_pipelines::{DiffusersScheduler, Init, InitImage, LatentDiffusion, Sampling, generate};
use ldm_schedulers::{SamplerConfig, Spacing};
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::{GenerateArgs, ModelArgs};
use crate::output;
use crate::progress::Talk;

/// What the pictures of a command show.
pub(crate) trait Subject {
    /// The prompts of some of the pictures.
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt>;

    /// What as many are guided away from; the prompt that says nothing where absent.
    fn negative(&self, _count: usize) -> Option<Prompt> {
        None
    }

    /// The picture they begin at.
    fn init(&self) -> Option<&InitImage> {
        None
    }

    /// What becomes of the pictures that were made, `[B, 3, H, W]`.
    fn finish(&self, made: Tensor) -> Tensor {
        made
    }

    /// The lines of `parameters` before the one that begins with `Steps`, each with its end.
    fn heading(&self, picture: usize) -> String;

    /// What the last line of `parameters` says beside: `, KEY: VALUE` each.
    fn parameters(&self) -> String {
        String::new()
    }

    /// What a JSON line says of it.
    fn json(&self, picture: usize) -> Map<String, Value>;
}

/// Pictures that were asked for, and for which there is room.
pub(crate) struct Making<'a> {
    args: &'a GenerateArgs,
    count: usize,
    folder: PathBuf,
    noise: Option<Tensor>,
}

impl<'a> Making<'a> {
    /// Refuses, before a model is opened, what cannot be: no pictures, files that are there already, noise that does
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
            bail!(
                "--init-noise holds {} pictures, {count} are asked for",
                noise.size().first().unwrap_or(&0)
            );
        }
        let folder = output::folder(&args.output, command);
        output::all_free(&folder, count, args.output.force)?;
        Ok(Self { args, count, folder, noise })
    }

    /// Makes them, and says where they are.
    pub(crate) fn run(
        &self,
        model: &LatentDiffusion,
        named: &ModelArgs,
        guidance_scale: f64,
        subject: &dyn Subject,
        talk: Talk,
    ) -> anyhow::Result<()> {
        let args = self.args;
        if subject.init().is_some() && self.noise.is_some() {
            bail!("--init-noise: these pictures begin at a picture, and not at noise");
        }
        model.merge(&args.loras)?;
        model.lay_out();
        // Not before: it would keep the weights' first copies too, a third more memory in f16.
        ldm_libtorch::keep_freed_memory();
        let sampling = sampling(args, model, guidance_scale)?;
        let steps = subject.init().map_or(sampling.steps, |init| init.steps(sampling.steps));
        let mut bar = talk.bar((self.count.div_ceil(args.batch_size) * steps) as u64, 0);
        let (mut latents, mut pictures) = (Vec::new(), Vec::new());
        for start in (0..self.count).step_by(args.batch_size) {
            let count = args.batch_size.min(self.count - start);
            let seeds: Vec<u64> = (start..start + count).map(|index| args.seed + index as u64).collect();
            let noise = self.noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64));
            let begun = Instant::now();
            let before = (start / args.batch_size * steps) as u64;
            let made = generate(
                model,
                &subject.prompt(start..start + count)?,
                subject.negative(count).as_ref(),
                &seeds,
                &sampling,
                match subject.init() {
                    Some(image) => Init::Image(image),
                    None => noise.as_ref().into(),
                },
                &mut |step| bar.at(before + step.index as u64 + 1),
            )?;
            let finite = made.images.isfinite().all().int64_value(&[]) == 1;
            if !finite {
                bail!("the model decoded values that are no numbers: try --dtype f32");
            }
            let images = subject.finish(made.images);
            output::make(&self.folder)?;
            let seconds = begun.elapsed().as_secs_f64() / count as f64;
            for (index, seed) in seeds.iter().enumerate() {
                let number = start + index;
                let text = subject.heading(number)
                    + &parameters(*seed, &sampling, &images, subject.init(), args, named)
                    + &subject.parameters();
                let path = output::picture(&self.folder, number);
                image::write_png(&path, &images.get(index as i64), &[("parameters", &text)])?;
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
            pictures.push(images);
        }
        bar.finish();
        output::grid(&self.folder, &Tensor::cat(&pictures, 0))?;
        if let Some(path) = &args.save_latents {
            weights::save(path, &[("latents".into(), Tensor::cat(&latents, 0))], &BTreeMap::new())?;
        }
        Ok(())
    }
}

/// The solver asked for.
fn sampling(args: &GenerateArgs, model: &LatentDiffusion, guidance_scale: f64) -> anyhow::Result<Sampling> {
    let told = model.scheduler.as_ref().map(DiffusersScheduler::sampler);
    let (mut sampler, own_spacing) = match (&args.sampler, told) {
        (Some(name), _) => (name.parse()?, None),
        (None, None) => (SamplerConfig::Ddim { eta: 0. }, None),
        (None, Some((sampler, spacing, departs))) => {
            if let Some(text) = departs {
                Talk::warn(&format!("scheduler_config.json: {text}"));
            }
            (sampler, Some(spacing))
        }
    };
    if let Some(eta) = args.eta {
        sampler = sampler.with_eta(eta)?;
    }
    let spacing: Spacing = match &args.spacing {
        Some(spacing) => spacing.parse()?,
        None => own_spacing.unwrap_or_else(|| sampler.spacing()),
    };
    let steps = args.steps.or(spacing.steps()).unwrap_or_else(|| sampler.steps(&model.schedule));
    let size = args.height.zip(args.width).map(|(height, width)| [height, width]);
    Ok(Sampling {
        sampler,
        spacing,
        steps,
        guidance_scale: args.guidance_scale.unwrap_or(guidance_scale),
        size,
    })
}

/// How a picture was made, in the form the common web UIs read.
fn parameters(
    seed: u64,
    sampling: &Sampling,
    images: &Tensor,
    init: Option<&InitImage>,
    args: &GenerateArgs,
    named: &ModelArgs,
) -> String {
    let size = images.size();
    let loras: Vec<String> = args.loras.iter().map(ToString::to_string).collect();
    let loras = if loras.is_empty() { String::new() } else { format!(", Lora: {}", loras.join(" ")) };
    let by_name: Option<SamplerConfig> = sampling.sampler.name().parse().ok();
    let eta = match (sampling.sampler.eta(), by_name.and_then(|sampler| sampler.eta())) {
        (Some(eta), default) if default != Some(eta) => format!(", Eta: {eta}"),
        _ => String::new(),
    };
    let strength = init.map_or(String::new(), |init| format!(", Denoising strength: {}", init.strength()));
    let spacing = args.spacing.as_ref().map_or(String::new(), |spacing| format!(", Spacing: {spacing}"));
    let noise =
        args.init_noise.as_ref().map_or(String::new(), |path| format!(", Init noise: {}", path.display()));
    format!(
        "Steps: {}, Sampler: {}, CFG scale: {}, Seed: {seed}, Size: {}x{}, Model: {}{loras}{strength}{eta}{spacing}{noise}, Version: ldm {}",
        sampling.steps,
        sampling.sampler.name(),
        sampling.guidance_scale,
        size[3],
        size[2],
        named.model.file_name().unwrap_or_default().to_string_lossy(),
        env!("CARGO_PKG_VERSION"),
    )
}
