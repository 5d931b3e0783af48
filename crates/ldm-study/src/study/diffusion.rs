//! The diffusion model of one factor: training with evaluations, and timing.

use std::io::Write;
use std::path::Path;

use ldm_core::device::peak_memory;
use ldm_core::{Error, Result};
use ldm_pipelines::{LatentDiffusion, LoadOptions, Model};
use ldm_train::{Finished, RunConfig};
use tch::Device;

use super::Study;
use super::evaluator::Evaluator;
use super::plan::open_held_out;
use super::results::{BySteps, DiffusionResult, QualityPoint, SamplingResult};
use super::study_dir::{StudyPart, write};
use super::study_file::MeasureConfig;
use super::training::{EvalSchedule, train};
use crate::context::{Context, bail};

/// Trains the model and evaluates the checkpoints.
pub(super) fn run(study: &Study, f: i64) -> Result<Finished> {
    let (folder, measure) = (&study.folder, &study.config().measure);
    let (config, root) = (folder.of(f, "diffusion.yaml"), folder.of(f, "diffusion"));
    let evaluator = Evaluator::of(&config, measure, study.device)?;
    let path = folder.of(f, "points.jsonl");
    let mut points = read_points(&path)?;
    let mut latent = None;
    let schedule = EvalSchedule { budget: study.config().budget.diffusion, points: measure.points };
    let trained = train(study, &config, &root, schedule, &mut |due| {
        let model = open(study, due.model)?;
        let side = model.config.image_size;
        latent = Some([model.config.channels, side, side]);
        if points.iter().any(|point: &QualityPoint| point.step == due.step) {
            return Ok(());
        }
        let set = evaluator.evaluate(&model, measure.progress_steps)?;
        let distance = set.quality.frechet_distance;
        study.reporter.say(&format!("step {}: Fréchet distance {distance:.4}", due.step));
        set.write(&folder.of(f, &format!("samples-{:07}.png", due.step)))?;
        let (step, images, seconds) = (due.step, due.images, due.seconds);
        let point = QualityPoint { step, images, seconds, quality: set.quality };
        append(&path, &point)?;
        points.push(point);
        Ok(())
    })?;
    let Some(trained) = trained else { return Ok(Finished::Stopped) };
    let latent = latent.expect("a run ends with a checkpoint that is due");
    let result = DiffusionResult { latent, training: trained.cost, points };
    write(&folder.result(StudyPart::Diffusion(f)), &result)?;
    Ok(Finished::Done)
}

/// Evaluates and times the trained model at each number of sampling steps.
pub(super) fn sample(study: &Study, f: i64) -> Result<Finished> {
    let (folder, measure) = (&study.folder, &study.config().measure);
    let evaluator = Evaluator::of(&folder.of(f, "diffusion.yaml"), measure, study.device)?;
    let model = open(study, &folder.of(f, "diffusion"))?;
    evaluator.warm_up(&model)?;
    let mut by_steps = Vec::new();
    for steps in measure.sampling_steps.iter().copied() {
        if study.stopped() {
            return Ok(Finished::Stopped);
        }
        let set = evaluator.evaluate(&model, steps)?;
        let seconds_per_image = set.seconds / set.quality.images as f64;
        let images_per_second = 1. / seconds_per_image;
        study.reporter.say(&format!(
            "{steps} steps: Fréchet distance {:.4}, {images_per_second:.2} images/s",
            set.quality.frechet_distance,
        ));
        set.write(&folder.of(f, &format!("samples-{steps}-steps.png")))?;
        by_steps.push(BySteps { steps, images_per_second, seconds_per_image, quality: set.quality });
    }
    let result = SamplingResult { peak_memory: peak_memory(study.device), by_steps };
    write(&folder.result(StudyPart::Sampling(f)), &result)?;
    Ok(Finished::Done)
}

impl Evaluator {
    /// Creates the evaluator of a run from its config.
    fn of(config: &Path, measure: &MeasureConfig, device: Device) -> Result<Self> {
        Self::new(open_held_out(&RunConfig::read(config, &[])?)?, measure, device)
    }
}

fn open(study: &Study, path: &Path) -> Result<Box<LatentDiffusion>> {
    let mut warn = |note: &str| study.reporter.warn(note);
    match Model::open(path, &LoadOptions::new(study.device), &mut warn)? {
        Model::Diffusion(model) => Ok(model),
        Model::FirstStage(_) => bail!("{}: expected a diffusion model, got a first stage", path.display()),
    }
}

fn read_points(path: &Path) -> Result<Vec<QualityPoint>> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

fn append(path: &Path, point: &QualityPoint) -> Result<()> {
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
    // One write, so that a line is complete or absent.
    let line = serde_json::to_string(point).expect("numbers and strings serialize");
    file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(path))
}
