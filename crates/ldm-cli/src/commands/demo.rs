//! `ldm demo`: the main job on an embedded default, from nothing to a report.

mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ldm_core::{Prompt, image};
use ldm_data::{Batch, Loader, LoaderConfig};
use ldm_metrics::psnr;
use ldm_pipelines::{GenerateRequest, LatentDiffusion, LoadOptions, Model, Sampling, generate};
use ldm_schedulers::{SamplerConfig, Spacing};
use ldm_train::{Finished, RunConfig, Trainer};
use tch::{Device, Kind, Tensor};

use crate::args::DemoArgs;
use crate::interrupt::Stop;
use crate::progress::Printer;
use crate::report::Interrupted;
use crate::{commands, model};

const FIRST_STAGE: &str = include_str!("../demo/first-stage.yaml");
const DIFFUSION: &str = include_str!("../demo/diffusion.yaml");
/// Samples a class in the report.
const PER_CLASS: usize = 4;
/// Guidance of the report's samples.
const GUIDANCE: f64 = 2.;

pub(crate) fn run(args: &DemoArgs, printer: Printer) -> anyhow::Result<()> {
    let started = Instant::now();
    let device = model::device(&args.device, Some(printer))?;
    let out = &args.out;
    if out.exists() && std::fs::read_dir(out).with_context(|| out.display().to_string())?.next().is_some() {
        if !args.force {
            bail!("{}: exists, and is not overwritten without --force", out.display());
        }
        // The demo's own things alone: whatever else lies there is somebody's.
        for run in
            ["first-stage", "diffusion"].map(|name| out.join(name)).into_iter().filter(|run| run.is_dir())
        {
            std::fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
        }
    }
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let stop = Stop::on_signals()?;

    let first = stage(
        FIRST_STAGE,
        &args.first_stage,
        &out.join("first-stage"),
        device,
        &stop,
        printer,
        "first stage (1 of 2)",
    )?;
    let data = first.config.data.train.open(Path::new("."))?;
    let classes = data.classes().to_vec();
    let text = DIFFUSION
        .replace("FIRST_STAGE", &serde_json::to_string(&first.model)?)
        .replace("NULL_CLASS", &classes.len().to_string())
        .replace("CLASSES", &(classes.len() + 1).to_string());
    let second =
        stage(&text, &args.diffusion, &out.join("diffusion"), device, &stop, printer, "diffusion (2 of 2)")?;

    printer.say("sampling and writing the report");
    let Model::Diffusion(model) = Model::open(&second.model, &LoadOptions::new(device), &mut Printer::warn)?
    else {
        bail!("{}: not a diffusion model", second.model.display());
    };
    let originals = held_back(&first.config)?.images;
    let (pairs, decibels) = reconstructions(&model, &originals.narrow(0, 0, originals.size()[0].min(8)));
    let begun = Instant::now();
    let rows = samples(&model, &classes)?;
    let sampling_seconds = begun.elapsed().as_secs_f64();
    let denoising = denoising_steps(&model)?;
    let sheet = rows.iter().map(|(_, images)| images.shallow_clone()).collect::<Vec<_>>();
    image::write_png(
        out.join("samples.png"),
        &image::grid(&Tensor::cat(&sheet, 0), PER_CLASS as i64, 2),
        &[],
    )?;

    let report = report::Report {
        stages: [&first, &second],
        pairs,
        decibels,
        rows,
        denoising,
        sampling_seconds,
        total_seconds: started.elapsed().as_secs_f64(),
        device,
    };
    let path = out.join("report.html");
    ldm_core::files::write_bytes(&path, report.html()?.as_bytes())?;
    println!("{}", path.display());
    Ok(())
}

/// A trained stage.
pub(crate) struct Stage {
    title: &'static str,
    config: RunConfig,
    /// The folder one hands on.
    model: PathBuf,
    metrics: PathBuf,
    parameters: usize,
    seconds: f64,
}

fn stage(
    text: &str,
    overrides: &[String],
    root: &Path,
    device: Device,
    stop: &Stop,
    printer: Printer,
    title: &'static str,
) -> anyhow::Result<Stage> {
    printer.say(title);
    let begun = Instant::now();
    let config = RunConfig::parse(text, "demo.yaml", overrides)?;
    let mut trainer = Trainer::create(config.clone(), root, device)?;
    if commands::train::train(&mut trainer, stop, printer)? == Finished::Stopped {
        return Err(Interrupted(stop.code()).into());
    }
    Ok(Stage {
        title,
        config,
        model: trainer.run_dir().model(),
        metrics: trainer.run_dir().metrics(),
        parameters: trainer.parameters(),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn held_back(config: &RunConfig) -> anyhow::Result<Batch> {
    let set = config.data.validation.as_ref().context("the demo has a validation set")?;
    let data = set.open(Path::new("."))?;
    let count = data.len().min(512);
    let loader = LoaderConfig { workers: 0, shuffle: false, ..LoaderConfig::new(count, 0) };
    Ok(Loader::one_pass(data, loader)?.next().context("the validation set is empty")??)
}

/// Originals and what became of them, with the PSNR of each.
fn reconstructions(model: &LatentDiffusion, originals: &Tensor) -> ([Tensor; 2], Vec<f64>) {
    let on_device = originals.to_device(model.vs().device());
    let back = tch::no_grad(|| model.first_stage.decode(&model.first_stage.encode(&on_device).mode()));
    let decibels =
        Vec::<f64>::try_from(psnr(&back, &on_device).to_kind(Kind::Double)).expect("one number an image");
    ([originals.shallow_clone(), back], decibels)
}

/// How the report samples.
fn sampling() -> Sampling {
    Sampling {
        sampler: SamplerConfig::Ddim { eta: 1. },
        spacing: Spacing::Uniform,
        steps: 50,
        guidance: GUIDANCE.into(),
        size: None,
        tile: None,
        thresholding: None,
    }
}

/// Samples of each class.
fn samples(model: &LatentDiffusion, classes: &[String]) -> anyhow::Result<Vec<(String, Tensor)>> {
    let mut rows = Vec::new();
    for (index, name) in classes.iter().enumerate() {
        let seeds: Vec<u64> = (0..PER_CLASS).map(|i| (index * PER_CLASS + i) as u64).collect();
        let prompt = Prompt::class(&[index as i64; PER_CLASS]);
        let made = generate(model, &GenerateRequest::new(&prompt, &seeds, &sampling()), &mut |_| {})?;
        rows.push((name.clone(), made.images.clamp(-1., 1.)));
    }
    Ok(rows)
}

/// What the model takes for the image at eight moments of one sampling.
fn denoising_steps(model: &LatentDiffusion) -> anyhow::Result<Tensor> {
    let sampling = sampling();
    let mut seen = Vec::new();
    generate(model, &GenerateRequest::new(&Prompt::class(&[0]), &[1], &sampling), &mut |step| {
        if step.index % (sampling.steps / 7) == 0 || step.index + 1 == sampling.steps {
            seen.push(step.denoised.x0.shallow_clone());
        }
    })?;
    Ok(model.decode(&Tensor::cat(&seen, 0)).clamp(-1., 1.))
}

/// An image grid as PNG bytes.
fn png(images: &Tensor, columns: i64) -> Vec<u8> {
    image::png(&image::to_rgb8(&image::grid(&images.to_kind(Kind::Float).clamp(-1., 1.), columns, 2)), &[])
}
