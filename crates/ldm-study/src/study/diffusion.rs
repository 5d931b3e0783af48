//! The diffusion model of one factor: training with evaluations, and timing.

use std::io::ErrorKind;
use std::path::Path;

use ldm_core::device::peak_memory;
use ldm_core::{Error, Result, files};
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
use crate::context::bail;

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
        points.push(point);
        write_points(&path, &points)?;
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

/// Reads the points so far. A last line that cannot be read was torn by a power cut or a full disk: it is left out, and
/// its checkpoint is measured again.
fn read_points(path: &Path) -> Result<Vec<QualityPoint>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::io(path))?,
    };
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut points = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_slice(line) {
            Ok(point) => points.push(point),
            Err(_) if index + 1 == lines.len() => {}
            Err(error) => return Err(Error::format(path, format!("line {}: {error}", index + 1))),
        }
    }
    Ok(points)
}

/// Writes all points, a line each, in place of the file.
fn write_points(path: &Path, points: &[QualityPoint]) -> Result<()> {
    let line = |point| serde_json::to_string(point).expect("numbers and strings serialize") + "\n";
    files::write_bytes(path, points.iter().map(line).collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, distance: f64) -> QualityPoint {
        let quality = format!(r#"{{"images": 4, "frechet_distance": {distance}}}"#);
        let quality = serde_json::from_str(&quality).unwrap();
        QualityPoint { step, images: 4 * step, seconds: 1., quality }
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.jsonl");
        assert!(read_points(&path).unwrap().is_empty());
        let mut points = vec![point(10, 1.5), point(20, 0.5)];
        points[1].quality.frechet_distance = f64::NAN;
        write_points(&path, &points).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let steps =
            || read_points(&path).map(|points| points.iter().map(|point| point.step).collect::<Vec<_>>());
        assert_eq!(steps().unwrap(), [10, 20]);
        assert!(read_points(&path).unwrap()[1].quality.frechet_distance.is_nan());
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in second + 1..whole.len() - 1 {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(steps().unwrap(), [10], "cut at {cut}");
        }
        std::fs::write(&path, [&whole[..30], b"\xff\n", &whole[second..]].concat()).unwrap();
        let error = steps().unwrap_err().to_string();
        assert!(error.contains("points.jsonl: line 1: "), "{error}");
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(read_points(&folder.path().join("folder")).is_err(), "an error that is not an absence");
    }
}
