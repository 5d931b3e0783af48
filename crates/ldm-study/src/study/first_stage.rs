//! The first stage of one factor: training and evaluation.

use std::sync::Arc;
use std::time::Instant;

use ldm_core::{Result, channels, image};
use ldm_data::Dataset;
use ldm_metrics::{FeatureNetwork, Lpips, Reconstructions};
use ldm_pipelines::{LoadOptions, Model};
use ldm_train::Finished;
use tch::{Device, Kind, Tensor};

use super::Study;
use super::evaluator::batches;
use super::plan::open_held_out;
use super::results::{FirstStageResult, TrainingCost};
use super::study_dir::{StudyPart, write};
use super::study_file::MeasureConfig;
use super::training::{EvalSchedule, train};

/// Pairs of images on the sheet.
const SHOWN: i64 = 8;

/// Trains and evaluates the first stage.
pub(super) fn run(study: &Study, f: i64) -> Result<Finished> {
    let folder = &study.folder;
    let root = folder.of(f, "first-stage");
    let schedule = EvalSchedule { budget: study.config().budget.first_stage, points: 1 };
    let Some(trained) = train(study, &folder.of(f, "first-stage.yaml"), &root, schedule, &mut |_| Ok(()))?
    else {
        return Ok(Finished::Stopped);
    };
    let mut warn = |note: &str| study.reporter.warn(note);
    let model = Model::open(&root, &LoadOptions::new(study.device), &mut warn)?;
    let data = open_held_out(&trained.config)?;
    let (found, sheet) = measure(&model, &data, &study.config().measure, trained.cost, study.device)?;
    image::write_png(folder.of(f, "reconstructions.png"), &sheet, &[])?;
    write(&folder.result(StudyPart::FirstStage(f)), &found)?;
    Ok(Finished::Done)
}

/// Evaluates reconstructions of held-out images; also returns the first ones above their reconstructions.
fn measure(
    model: &Model,
    data: &Arc<dyn Dataset>,
    measure: &MeasureConfig,
    training: TrainingCost,
    device: Device,
) -> Result<(FirstStageResult, Tensor)> {
    let (lpips, network) =
        (Lpips::published_or_random(device)?, FeatureNetwork::published_or_random(device)?);
    let mut measured = Reconstructions::new(lpips, network);
    let (mut times, mut sheet) = (Vec::new(), None);
    for batch in batches(data, measure.reconstructions, measure.batch_size)? {
        let images = channels::shown(&batch?.images).to_device(device);
        let begun = Instant::now();
        let z = model.encode(&images).mode();
        wait(&z);
        let between = Instant::now();
        let made = model.decode(&z);
        wait(&made);
        let count = images.size()[0];
        times.push((count as f64, (between - begun).as_secs_f64(), between.elapsed().as_secs_f64()));
        let _ = measured.add(&made, &images)?;
        sheet.get_or_insert_with(|| {
            let shown = SHOWN.min(count);
            let rows = [&images, &made.clamp(-1., 1.)].map(|rows| rows.narrow(0, 0, shown));
            image::grid(&Tensor::cat(&rows, 0).to_device(Device::Cpu), shown, 2)
        });
    }
    // The first batch warms up, unless it is the only one.
    let timed = if times.len() > 1 { &times[1..] } else { &times[..] };
    let rate = |seconds: fn(&(f64, f64, f64)) -> f64| {
        timed.iter().map(|batch| batch.0).sum::<f64>() / timed.iter().map(seconds).sum::<f64>()
    };
    let found = FirstStageResult {
        training,
        images: measured.count() as u64,
        psnr: (&measured.psnr).into(),
        ssim: (&measured.ssim).into(),
        lpips: (&measured.lpips_distance).into(),
        lpips_trunk: measured.trunk().name().into(),
        frechet_distance: measured.frechet()?.0,
        encoded_per_second: rate(|batch| batch.1),
        decoded_per_second: rate(|batch| batch.2),
    };
    Ok((found, sheet.expect("a checked study reconstructs two images or more")))
}

/// Waits until the device has computed a tensor.
fn wait(x: &Tensor) {
    let _ = x.sum(Kind::Float).double_value(&[]);
}
