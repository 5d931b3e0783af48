//! `ldm eval reconstruction`: what a first stage loses.

use ldm_core::files;
use ldm_metrics::{Lpips, MeanStd, Reconstructions, ms_ssim};
use serde_json::{Value, json};

use super::set;
use super::shown::Shown;
use crate::args::ReconstructionArgs;
use crate::progress::Printer;
use crate::{model, output};

pub(crate) fn run(args: &ReconstructionArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = output::folder(&args.output, "eval");
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    [&results, &best, &worst].into_iter().try_for_each(|path| output::ensure_new(path, args.output.force))?;
    let model = model::open(&args.model)?;
    let device = model::device(&args.model.device, None)?;
    let data = set::open(&args.data)?;
    let (count, batches) = set::batches(&data, &args.how, args.data.strict)?;
    let lpips = Lpips::published_or_random(device)?;
    let network = set::network(&args.how, device)?;
    let mut measured = Reconstructions::new(lpips, network);
    let mut scales = Some(MeanStd::new());
    let mut shown = Shown::default();
    let mut bar = printer.bar(count as u64, 0);
    for batch in batches {
        let batch = batch?;
        let images = batch.images.to_device(device);
        model.first_stage().check_image_size([images.size()[2], images.size()[3]])?;
        let made = model.decode(&model.encode(&images).mode());
        if made.isfinite().all().int64_value(&[]) == 0 {
            anyhow::bail!("the first stage decodes values that are no numbers: try --dtype f32");
        }
        let decibels = measured.add(&made, &images)?;
        // Of none where one is too small for it.
        scales = scales.zip(ms_ssim(&made, &images).ok()).map(|(mut scales, found)| {
            scales.add(&found);
            scales
        });
        shown.add(&decibels, &batch.names, &[&images, &made]);
        bar.at(measured.count() as u64);
    }
    bar.finish();
    let done = measured.count();
    let of = |sum: &MeanStd| json!({"mean": sum.mean(), "std": sum.std()});
    let sets = (done > 1).then(|| measured.frechet()).transpose()?;
    set::warn_of_rank(measured.network(), done);
    let [of_best, of_worst] = shown.names();
    let document = json!({
        "model": args.model.model, "dtype": args.model.dtype, "dataset": data.name(),
        "fingerprint": data.fingerprint(), "images": done,
        "psnr": of(&measured.psnr), "ssim": of(&measured.ssim), "ms_ssim": scales.as_ref().map(of),
        "lpips": of(&measured.lpips_distance), "lpips_trunk": measured.trunk().name(), "best": of_best, "worst": of_worst,
        "frechet_distance": sets.map(|(pooled, _)| pooled),
        "spatial_frechet_distance": sets.and_then(|(_, spatial)| spatial),
        "inception_score": measured.back.inception_score()?.as_ref().map(of), "features": measured.network().name(),
        "ldm": env!("CARGO_PKG_VERSION"),
    });
    output::make(&folder)?;
    shown.write(&best, &worst)?;
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    say(&document, args.how.json);
    Ok(())
}

fn say(document: &Value, as_json: bool) {
    if as_json {
        println!("{document:#}");
        return;
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let line = |name: &str, unit: &str| {
        let (mean, std) = (number(&document[name]["mean"]), number(&document[name]["std"]));
        if !mean.is_nan() {
            println!("{:<17} {mean:.4} +- {std:.4}{unit}", name.to_uppercase().replace('_', "-"));
        }
    };
    println!("{} images of {}", document["images"], document["dataset"].as_str().unwrap_or_default());
    line("psnr", " dB");
    line("ssim", "");
    line("ms_ssim", "");
    line("lpips", &format!(" ({})", document["lpips_trunk"].as_str().unwrap_or_default()));
    let features = document["features"].as_str().unwrap_or_default();
    println!("{:<17} {:.4} ({features})", "Frechet distance", number(&document["frechet_distance"]));
}
