//! The first stage of one factor: trained, and what it loses.

use std::sync::Arc;
use std::time::Instant;

use ldm_core::image;
use ldm_data::Dataset;
use ldm_metrics::{FeatureNetwork, Lpips, Reconstructions};
use ldm_pipelines::{LoadOptions, Model};
use tch::{Device, Kind, Tensor};

use super::Work;
use super::config::MeasureConfig;
use super::judge::batches;
use super::layout::{Part, write};
use super::plan::open_held_back;
use super::results::{FirstStage, Training};
use super::training::{Points, train};
use crate::progress::Printer;

/// Pairs on the sheet.
const SHOWN: i64 = 8;

pub(super) fn run(work: &Work, f: i64) -> anyhow::Result<()> {
    let folder = &work.folder;
    let root = folder.of(f, "first-stage");
    let trained = train(
        &folder.of(f, "first-stage.yaml"),
        &root,
        work.study.study.budget.first_stage,
        Points(1),
        (work.device, work.stop, work.printer),
        &mut |_| Ok(()),
    )?;
    let model = Model::open(&root, &LoadOptions::new(work.device), &mut Printer::warn)?;
    let data = open_held_back(&trained.config)?;
    let (found, sheet) = measure(&model, &data, &work.study.study.measure, trained.training, work.device)?;
    image::write_png(folder.of(f, "reconstructions.png"), &sheet, &[])?;
    write(&folder.done(Part::FirstStage(f)), &found)
}

/// What becomes of held-back images; and the first of them above their reconstructions.
fn measure(
    model: &Model,
    data: &Arc<dyn Dataset>,
    measure: &MeasureConfig,
    training: Training,
    device: Device,
) -> anyhow::Result<(FirstStage, Tensor)> {
    let (lpips, network) =
        (Lpips::published_or_random(device)?, FeatureNetwork::published_or_random(device)?);
    let mut measured = Reconstructions::new(lpips, network);
    let (mut times, mut sheet) = (Vec::new(), None);
    for batch in batches(data, measure.reconstructions, measure.batch_size)? {
        let images = batch?.images.to_device(device);
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
    let found = FirstStage {
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
    Ok((found, sheet.expect("a study measures two images or more")))
}

/// Until the device has made it.
fn wait(x: &Tensor) {
    let _ = x.sum(Kind::Float).double_value(&[]);
}
