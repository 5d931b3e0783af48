//! `ldm sample`: unconditional and by class.

use std::time::Instant;

use anyhow::{Context, bail};
use ldm_core::weights::{self, Checkpoint};
use ldm_core::{Prompt, image};
use ldm_pipelines::{LatentDiffusion, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use serde_json::json;
use tch::Tensor;

use crate::args::{SampleArgs, SamplerName};
use crate::progress::Talk;
use crate::{model, output};

pub(crate) fn run(args: &SampleArgs, talk: Talk) -> anyhow::Result<()> {
    if args.num_images == 0 || args.batch_size == 0 {
        bail!("--num-images and --batch-size: expected at least 1");
    }
    if let Some(path) = &args.save_latents {
        output::free(path, args.output.force)?;
    }
    let model = model::open_diffusion(&args.model)?;
    let sampling = sampling(args, &model)?;
    let classes = classes(args, &model)?;
    let noise = args.init_noise.as_ref().map(|path| Checkpoint::open(path)?.tensor("noise")).transpose()?;
    if let Some(noise) = &noise
        && noise.size()[0] != args.num_images as i64
    {
        bail!("--init-noise holds {} pictures, --num-images asks for {}", noise.size()[0], args.num_images);
    }
    let folder = output::folder(&args.output, "sample");
    output::all_free(&folder, args.num_images, args.output.force)?;

    let mut bar = talk.bar((args.num_images.div_ceil(args.batch_size) * sampling.steps) as u64, 0);
    let (mut latents, mut pictures) = (Vec::new(), Vec::new());
    for start in (0..args.num_images).step_by(args.batch_size) {
        let count = args.batch_size.min(args.num_images - start);
        let seeds: Vec<u64> = (start..start + count).map(|index| args.seed + index as u64).collect();
        let prompt = if classes.is_empty() {
            Prompt::default()
        } else {
            Prompt::class(&classes[start..start + count])
        };
        let noise = noise.as_ref().map(|noise| noise.narrow(0, start as i64, count as i64));
        let begun = Instant::now();
        let before = (start / args.batch_size * sampling.steps) as u64;
        let made = generate(&model, &prompt, &seeds, &sampling, noise.as_ref(), &mut |step| {
            bar.at(before + step.index as u64 + 1);
        })?;
        let finite = made.images.isfinite().all().int64_value(&[]) == 1;
        if !finite {
            bail!("the model decoded values that are no numbers: try --dtype f32");
        }
        output::make(&folder)?;
        let seconds = begun.elapsed().as_secs_f64() / count as f64;
        for (index, seed) in seeds.iter().enumerate() {
            let number = start + index;
            let class = classes.get(number).map(|class| class_name(&model, *class));
            let text = parameters(class.as_deref(), *seed, &sampling, &made.images, args);
            let path = output::picture(&folder, number);
            image::write_png(&path, &made.images.get(index as i64), &[("parameters", &text)])?;
            if args.json {
                println!(
                    "{}",
                    json!({"path": path, "seed": seed, "sampler": sampling.sampler.name(), "class": class, "seconds": seconds})
                );
            } else {
                println!("{}", path.display());
            }
        }
        latents.push(made.latents);
        pictures.push(made.images);
    }
    bar.finish();
    output::grid(&folder, &Tensor::cat(&pictures, 0))?;
    if let Some(path) = &args.save_latents {
        weights::save(
            path,
            &[("latents".into(), Tensor::cat(&latents, 0))],
            &std::collections::BTreeMap::new(),
        )?;
    }
    Ok(())
}

/// The solver asked for.
fn sampling(args: &SampleArgs, model: &LatentDiffusion) -> anyhow::Result<Sampling> {
    let mut sampler = match args.sampler {
        SamplerName::Ddpm => SamplerConfig::Ddpm {},
        SamplerName::Ddim => SamplerConfig::Ddim { eta: 0. },
    };
    if let Some(eta) = args.eta {
        sampler = sampler.with_eta(eta)?;
    }
    let spacing = match &args.spacing {
        Some(spacing) => spacing.parse()?,
        None => sampler.spacing(),
    };
    let steps = args.steps.unwrap_or_else(|| sampler.steps(&model.schedule));
    let size = args.height.zip(args.width).map(|(height, width)| [height, width]);
    Ok(Sampling { sampler, spacing, steps, guidance_scale: args.guidance_scale, size })
}

/// A class a picture, those asked for taken in turn.
fn classes(args: &SampleArgs, model: &LatentDiffusion) -> anyhow::Result<Vec<i64>> {
    let Some(config) = model.config.class() else {
        if !args.class.is_empty() {
            bail!("--class: this model is unconditional");
        }
        return Ok(Vec::new());
    };
    if args.class.is_empty() {
        let known = if model.classes.is_empty() {
            format!("a number from 0 to {}", config.n_classes - 1)
        } else {
            model.classes.join(", ")
        };
        bail!("this model is conditioned on a class: give --class, one of {known}");
    }
    let asked: Vec<i64> = args
        .class
        .iter()
        .map(|word| model::class(word.trim(), &model.classes, config.n_classes))
        .collect::<anyhow::Result<_>>()
        .context("--class")?;
    Ok(asked.iter().copied().cycle().take(args.num_images).collect())
}

fn class_name(model: &LatentDiffusion, class: i64) -> String {
    model.classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string())
}

/// Everything that made a picture, in the form the common web UIs read.
fn parameters(
    class: Option<&str>,
    seed: u64,
    sampling: &Sampling,
    images: &Tensor,
    args: &SampleArgs,
) -> String {
    let size = images.size();
    let eta = match sampling.sampler {
        SamplerConfig::Ddim { eta } if eta > 0. => format!(", Eta: {eta}"),
        _ => String::new(),
    };
    let noise =
        args.init_noise.as_ref().map_or(String::new(), |path| format!(", Init noise: {}", path.display()));
    format!(
        "{}Steps: {}, Sampler: {}, CFG scale: {}, Seed: {seed}, Size: {}x{}, Model: {}{eta}{noise}, Version: ldm {}",
        class.map_or(String::new(), |class| format!("class: {class}\n")),
        sampling.steps,
        sampling.sampler.name(),
        sampling.guidance_scale,
        size[3],
        size[2],
        args.model.model.file_name().unwrap_or_default().to_string_lossy(),
        env!("CARGO_PKG_VERSION"),
    )
}
