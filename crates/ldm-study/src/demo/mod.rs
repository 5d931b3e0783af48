//! The demo: both stages trained on synthetic scenes, samples, and a report.

mod embedded;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ldm_core::{Error, Prompt, Result, image};
use ldm_data::{Batch, Loader, LoaderConfig};
use ldm_metrics::psnr;
use ldm_pipelines::{GenerateRequest, LatentDiffusion, LoadOptions, Model, Sampling, generate};
use ldm_schedulers::SamplerConfig;
use ldm_train::{Finished, RunConfig, Trainer};
use tch::{Device, Kind, Tensor};

use crate::Reporter;
use crate::context::bail;

const FIRST_STAGE: &str = include_str!("first-stage.yaml");
const DIFFUSION: &str = include_str!("diffusion.yaml");
/// Samples per class in the report.
const PER_CLASS: usize = 4;
/// Scale of guidance in the report.
const GUIDANCE: f64 = 2.;

/// Overrides of the demo's configs, as `KEY=VALUE`.
#[derive(Debug, Clone, Default)]
pub struct DemoOverrides {
    /// Overrides of the first stage.
    pub first_stage: Vec<String>,
    /// Overrides of the diffusion model.
    pub diffusion: Vec<String>,
}

/// Trains both stages in the folder `out`, writes a report and returns its path; `None` if it was stopped. The report also
/// shows images of the text model at `text_model`.
///
/// # Errors
/// When a config is wrong, training fails, or a file cannot be written.
pub fn demo(
    out: &Path,
    overrides: &DemoOverrides,
    text_model: Option<&Path>,
    device: Device,
    stop: &AtomicBool,
    reporter: &dyn Reporter,
) -> Result<Option<PathBuf>> {
    let started = Instant::now();
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let training = StageTraining { out, device, stop, reporter };
    let Some(first) =
        training.run("first stage (1 of 2)", "first-stage", FIRST_STAGE, &overrides.first_stage)?
    else {
        return Ok(None);
    };
    let data = first.config.data.train.open(Path::new("."))?;
    let classes = data.classes().to_vec();
    let text = DIFFUSION
        .replace("FIRST_STAGE", &serde_json::json!(first.model).to_string())
        .replace("NULL_CLASS", &classes.len().to_string())
        .replace("CLASSES", &(classes.len() + 1).to_string());
    let Some(second) = training.run("diffusion (2 of 2)", "diffusion", &text, &overrides.diffusion)? else {
        return Ok(None);
    };

    reporter.say("sampling and writing the report");
    match write_report(text_model, [&first, &second], &classes, &training, started) {
        Err(Error::Stopped) => Ok(None),
        written => written.map(Some),
    }
}

/// Samples both stages and writes the report; returns its path.
fn write_report(
    text_model: Option<&Path>,
    stages: [&TrainedStage; 2],
    classes: &[String],
    training: &StageTraining,
    started: Instant,
) -> Result<PathBuf> {
    let [first, second] = stages;
    let &StageTraining { out, device, stop, reporter } = training;
    let mut warn = |note: &str| reporter.warn(note);
    let Model::Diffusion(model) = Model::open(&second.model, &LoadOptions::new(device), &mut warn)? else {
        bail!("{}: expected a diffusion model, got a first stage", second.model.display());
    };
    let originals = held_out(&first.config)?.images;
    let (pairs, decibels) = reconstructions(&model, &originals.narrow(0, 0, originals.size()[0].min(8)));
    let begun = Instant::now();
    let rows = samples(&model, classes, stop)?;
    let sampling_seconds = begun.elapsed().as_secs_f64();
    let denoising = denoising_steps(&model, stop)?;
    let emoji = text_model.map(|path| embedded::draw(path, device, stop)).transpose()?;
    let sheet = rows.iter().map(|(_, images)| images.shallow_clone()).collect::<Vec<_>>();
    let grid = image::grid(&Tensor::cat(&sheet, 0), PER_CLASS as i64, 2);
    image::write_png(out.join("samples.png"), &grid, &[])?;

    let report = report::DemoReport {
        stages,
        pairs,
        decibels,
        rows,
        denoising,
        emoji,
        sampling_seconds,
        total_seconds: started.elapsed().as_secs_f64(),
        device,
    };
    let path = out.join("report.html");
    ldm_core::files::write_bytes(&path, report.html()?.as_bytes())?;
    Ok(path)
}

/// A trained stage.
struct TrainedStage {
    title: &'static str,
    config: RunConfig,
    /// The folder of the exported model.
    model: PathBuf,
    metrics: PathBuf,
    parameters: usize,
    seconds: f64,
}

/// Training of the stages.
struct StageTraining<'a> {
    out: &'a Path,
    device: Device,
    stop: &'a AtomicBool,
    reporter: &'a dyn Reporter,
}

impl StageTraining<'_> {
    fn run(
        &self,
        title: &'static str,
        folder: &str,
        text: &str,
        overrides: &[String],
    ) -> Result<Option<TrainedStage>> {
        self.reporter.say(title);
        let begun = Instant::now();
        let config = RunConfig::parse(text, "demo.yaml", overrides)?;
        let mut trainer = Trainer::create(config.clone(), &self.out.join(folder), self.device)?;
        if self.reporter.train(&mut trainer, self.stop, &mut |_| {})? == Finished::Stopped {
            return Ok(None);
        }
        Ok(Some(TrainedStage {
            title,
            config,
            model: trainer.run_dir().model(),
            metrics: trainer.run_dir().metrics(),
            parameters: trainer.parameters(),
            seconds: begun.elapsed().as_secs_f64(),
        }))
    }
}

fn held_out(config: &RunConfig) -> Result<Batch> {
    let set =
        config.data.validation.as_ref().ok_or_else(|| Error::invalid("data.validation: expected a set"))?;
    let data = set.open(Path::new("."))?;
    let count = data.len().min(512);
    let loader = LoaderConfig { workers: 0, shuffle: false, ..LoaderConfig::new(count, 0) };
    Loader::one_pass(data, loader)?
        .next()
        .ok_or_else(|| Error::invalid("data.validation: expected images"))?
}

/// Originals and reconstructions, with the PSNR of each.
fn reconstructions(model: &LatentDiffusion, originals: &Tensor) -> ([Tensor; 2], Vec<f64>) {
    let on_device = originals.to_device(model.vs().device());
    let back = tch::no_grad(|| model.first_stage.decode(&model.first_stage.encode(&on_device).mode()));
    let decibels =
        Vec::<f64>::try_from(psnr(&back, &on_device).to_kind(Kind::Double)).expect("one value per image");
    ([originals.shallow_clone(), back], decibels)
}

/// Returns the sampling of the report.
fn sampling() -> Sampling {
    Sampling { guidance: GUIDANCE.into(), ..Sampling::new(SamplerConfig::Ddim { eta: 1. }, 50) }
}

/// Samples of each class.
fn samples(model: &LatentDiffusion, classes: &[String], stop: &AtomicBool) -> Result<Vec<(String, Tensor)>> {
    let mut rows = Vec::new();
    for (index, name) in classes.iter().enumerate() {
        let seeds: Vec<u64> = (0..PER_CLASS).map(|i| (index * PER_CLASS + i) as u64).collect();
        let prompt = Prompt::class(&[index as i64; PER_CLASS]);
        let sampling = sampling();
        let request = GenerateRequest::new(&prompt, &seeds, &sampling).stopped_by(stop);
        let made = generate(model, &request, &mut |_| {})?;
        rows.push((name.clone(), made.images.clamp(-1., 1.)));
    }
    Ok(rows)
}

/// Returns the predicted image at eight steps of one sampling run.
fn denoising_steps(model: &LatentDiffusion, stop: &AtomicBool) -> Result<Tensor> {
    let sampling = sampling();
    let mut seen = Vec::new();
    let prompt = Prompt::class(&[0]);
    let request = GenerateRequest::new(&prompt, &[1], &sampling).stopped_by(stop);
    generate(model, &request, &mut |step| {
        if step.index % (sampling.steps / 7) == 0 || step.index + 1 == sampling.steps {
            seen.push(step.denoised.x0.shallow_clone());
        }
    })?;
    Ok(model.decode(&Tensor::cat(&seen, 0)).clamp(-1., 1.))
}

/// Returns an image grid as PNG bytes.
fn png(images: &Tensor, columns: i64) -> Vec<u8> {
    image::png(&image::to_8bit(&image::grid(&images.to_kind(Kind::Float).clamp(-1., 1.), columns, 2)), &[])
}
