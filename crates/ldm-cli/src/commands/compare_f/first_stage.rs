//! The first stage of one factor: trained, and what it loses.

use std::sync::Arc;
use std::time::Instant;

use ldm_core::image;
use ldm_data::Dataset;
use ldm_metrics::{FeatureNetwork, Kept, Lpips, MeanStd, SetFeatures, Trunk, psnr, ssim};
use ldm_pipelines::{Model, Opening};
use tch::{Device, Kind, Tensor};

use super::Work;
use super::config::MeasureConfig;
use super::judge::batches;
use super::layout::{Part, write};
use super::plan::open_held_back;
use super::results::{FirstStage, Training};
use super::training::{Points, train};
use crate::progress::Talk;

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
        (work.device, work.stop, work.talk),
        &mut |_| Ok(()),
    )?;
    let model = Model::open(&root, &Opening::on(work.device), &mut Talk::warn)?;
    let data = open_held_back(&trained.config)?;
    let (found, sheet) = measure(&model, &data, &work.study.study.measure, trained.training, work.device)?;
    image::write_png(folder.of(f, "reconstructions.png"), &sheet, &[])?;
    write(&folder.done(Part::FirstStage(f)), &found)
}

/// What becomes of held-back pictures; and the first of them above their reconstructions.
fn measure(
    model: &Model,
    data: &Arc<dyn Dataset>,
    measure: &MeasureConfig,
    training: Training,
    device: Device,
) -> anyhow::Result<(FirstStage, Tensor)> {
    let (lpips, network) =
        (Lpips::published_or_random(device)?, FeatureNetwork::published_or_random(device)?);
    let [mut ratio, mut likeness, mut looks] = [(); 3].map(|()| MeanStd::new());
    let [mut real, mut back] = [Kept::Nothing; 2].map(SetFeatures::keeping);
    let (mut times, mut done, mut sheet) = (Vec::new(), 0, None);
    for batch in batches(data, measure.reconstructions, measure.batch_size)? {
        let pictures = batch?.images.to_device(device);
        let begun = Instant::now();
        let z = model.encode(&pictures).mode();
        wait(&z);
        let between = Instant::now();
        let made = model.decode(&z);
        wait(&made);
        let count = pictures.size()[0];
        times.push((count as f64, (between - begun).as_secs_f64(), between.elapsed().as_secs_f64()));
        done += count;
        ratio.add(&psnr(&made, &pictures));
        likeness.add(&ssim(&made, &pictures)?);
        looks.add(&tch::no_grad(|| lpips.distance(&made.clamp(-1., 1.), &pictures)));
        let _ = real.add(&network, &pictures)?;
        let _ = back.add(&network, &made.clamp(-1., 1.))?;
        sheet.get_or_insert_with(|| {
            let shown = SHOWN.min(count);
            let rows = [&pictures, &made.clamp(-1., 1.)].map(|rows| rows.narrow(0, 0, shown));
            image::grid(&Tensor::cat(&rows, 0).to_device(Device::Cpu), shown, 2)
        });
    }
    // The first batch warms up, unless it is the only one.
    let timed = if times.len() > 1 { &times[1..] } else { &times[..] };
    let rate = |seconds: fn(&(f64, f64, f64)) -> f64| {
        timed.iter().map(|batch| batch.0).sum::<f64>() / timed.iter().map(seconds).sum::<f64>()
    };
    let trunk = match lpips.trunk() {
        Trunk::Published => "published",
        Trunk::Random => "random VGG16: no published LPIPS",
    };
    let found = FirstStage {
        training,
        images: done as u64,
        psnr: (&ratio).into(),
        ssim: (&likeness).into(),
        lpips: (&looks).into(),
        lpips_trunk: trunk.into(),
        frechet_distance: real.moments()?.frechet(&back.moments()?)?.0,
        encoded_per_second: rate(|batch| batch.1),
        decoded_per_second: rate(|batch| batch.2),
    };
    Ok((found, sheet.expect("a study measures two pictures or more")))
}

/// Until the device has made it.
fn wait(x: &Tensor) {
    let _ = x.sum(Kind::Float).double_value(&[]);
}
