//! The diffusion model of one factor: trained, and measured along the way.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use ldm_core::device::peak_memory;
use ldm_pipelines::{LatentDiffusion, LoadOptions, Model};
use tch::Device;

use super::Work;
use super::judge::Judge;
use super::layout::{Part, write};
use super::plan::open_held_back;
use super::results::{BySteps, Diffusion, Point, Sampling};
use super::training::{Points, train};
use crate::progress::Printer;

/// Trains, and measures where a point is due.
pub(super) fn run(work: &Work, f: i64) -> anyhow::Result<()> {
    let (folder, measure) = (&work.folder, &work.study.study.measure);
    let (config, root) = (folder.of(f, "diffusion.yaml"), folder.of(f, "diffusion"));
    let judge = Judge::of(&config, measure, work.device)?;
    let path = folder.of(f, "points.jsonl");
    let mut points = read_points(&path)?;
    let mut latent = None;
    let trained = train(
        &config,
        &root,
        work.study.study.budget.diffusion,
        Points(measure.points),
        (work.device, work.stop, work.printer),
        &mut |moment| {
            let model = open(moment.model, work.device)?;
            let side = model.config.image_size;
            latent = Some([model.config.channels, side, side]);
            if points.iter().any(|point: &Point| point.step == moment.step) {
                return Ok(());
            }
            let made = judge.look(&model, measure.progress_steps)?;
            work.printer
                .say(&format!("step {}: Fréchet distance {:.4}", moment.step, made.quality.frechet_distance));
            made.write(&folder.of(f, &format!("samples-{:07}.png", moment.step)))?;
            let (step, images, seconds) = (moment.step, moment.images, moment.seconds);
            let point = Point { step, images, seconds, quality: made.quality };
            append(&path, &point)?;
            points.push(point);
            Ok(())
        },
    )?;
    let latent = latent.context("a run ends with a measurement")?;
    write(&folder.done(Part::Diffusion(f)), &Diffusion { latent, training: trained.training, points })
}

/// Measures the trained model at each number of steps, and times it.
pub(super) fn sample(work: &Work, f: i64) -> anyhow::Result<()> {
    let (folder, measure) = (&work.folder, &work.study.study.measure);
    let judge = Judge::of(&folder.of(f, "diffusion.yaml"), measure, work.device)?;
    let model = open(&folder.of(f, "diffusion"), work.device)?;
    judge.warm_up(&model)?;
    let mut by_steps = Vec::new();
    for steps in measure.sampling_steps.iter().copied() {
        if work.stopped() {
            return Err(work.interrupted());
        }
        let made = judge.look(&model, steps)?;
        let seconds_per_image = made.seconds / made.quality.images as f64;
        work.printer.say(&format!(
            "{steps} steps: Fréchet distance {:.4}, {:.2} images a second",
            made.quality.frechet_distance,
            1. / seconds_per_image
        ));
        made.write(&folder.of(f, &format!("samples-{steps}-steps.png")))?;
        let images_per_second = 1. / seconds_per_image;
        by_steps.push(BySteps { steps, images_per_second, seconds_per_image, quality: made.quality });
    }
    write(&folder.done(Part::Sampling(f)), &Sampling { peak_memory: peak_memory(work.device), by_steps })
}

impl Judge {
    /// For the run of `config`.
    fn of(config: &Path, measure: &super::config::MeasureConfig, device: Device) -> anyhow::Result<Self> {
        let run = ldm_train::RunConfig::read(config, &[])?;
        Self::new(open_held_back(&run)?, measure, device)
    }
}

fn open(path: &Path, device: Device) -> anyhow::Result<Box<LatentDiffusion>> {
    match Model::open(path, &LoadOptions::new(device), &mut Printer::warn)? {
        Model::Diffusion(model) => Ok(model),
        Model::FirstStage(_) => bail!("{}: not a diffusion model", path.display()),
    }
}

fn read_points(path: &Path) -> anyhow::Result<Vec<Point>> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

fn append(path: &Path, point: &Point) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // One write: a line is there whole or not at all.
    let line = serde_json::to_string(point).expect("plain numbers");
    file.write_all(format!("{line}\n").as_bytes()).with_context(|| path.display().to_string())
}
