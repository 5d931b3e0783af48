//! `ldm eval reconstruction`: what a first stage loses.

use ldm_core::{files, image};
use ldm_metrics::{FeatureNetwork, Lpips, MeanStd, SetFeatures, Trunk, psnr, ssim};
use serde_json::{Value, json};
use tch::Tensor;

use super::set;
use crate::args::ReconstructionArgs;
use crate::progress::Talk;
use crate::{model, output};

/// Pairs on a picture of the best and of the worst.
const SHOWN: usize = 8;

pub(crate) fn run(args: &ReconstructionArgs, talk: Talk) -> anyhow::Result<()> {
    let folder = output::folder(&args.output, "eval");
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    [&results, &best, &worst].into_iter().try_for_each(|path| output::free(path, args.output.force))?;
    let model = model::open(&args.model)?;
    let device = model::device(&args.model.device, None)?;
    let data = set::open(&args.data)?;
    let (count, batches) = set::batches(&data, &args.how, args.data.strict)?;
    let lpips = Lpips::published_or_random(device)?;
    let network = FeatureNetwork::published_or_random(device)?;
    let (mut ratio, mut likeness, mut looks) = (MeanStd::new(), MeanStd::new(), MeanStd::new());
    let (mut real, mut back) = (SetFeatures::default(), SetFeatures::default());
    let mut shown = Shown::default();
    let mut bar = talk.bar(count as u64, 0);
    let mut done = 0;
    for batch in batches {
        let batch = batch?;
        let pictures = batch.images.to_device(device);
        model.first_stage().check_image_size([pictures.size()[2], pictures.size()[3]])?;
        let made = model.decode(&model.encode(&pictures).mode());
        if made.isfinite().all().int64_value(&[]) == 0 {
            anyhow::bail!("the first stage decodes values that are no numbers: try --dtype f32");
        }
        let decibels = psnr(&made, &pictures);
        ratio.add(&decibels);
        likeness.add(&ssim(&made, &pictures)?);
        looks.add(&tch::no_grad(|| lpips.distance(&made.clamp(-1., 1.), &pictures)));
        real.add(&network, &pictures)?;
        back.add(&network, &made)?;
        shown.add(&decibels, &pictures, &made);
        done += pictures.size()[0] as u64;
        bar.at(done);
    }
    bar.finish();
    let trunk = match lpips.trunk() {
        Trunk::Published => "published",
        Trunk::Random => "random VGG16: no published LPIPS",
    };
    let of = |sum: &MeanStd| json!({"mean": sum.mean(), "std": sum.std()});
    let rfid = (done > 1).then(|| real.frechet(&back)).transpose()?;
    let document = json!({
        "model": args.model.model, "dtype": args.model.dtype, "dataset": data.name(),
        "fingerprint": data.fingerprint(), "images": done,
        "psnr": of(&ratio), "ssim": of(&likeness), "lpips": of(&looks), "lpips_trunk": trunk,
        "frechet_distance": rfid, "features": network.name(),
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
        println!("{:<17} {mean:.4} +- {std:.4}{unit}", name.to_uppercase());
    };
    println!("{} pictures of {}", document["images"], document["dataset"].as_str().unwrap_or_default());
    line("psnr", " dB");
    line("ssim", "");
    line("lpips", &format!(" ({})", document["lpips_trunk"].as_str().unwrap_or_default()));
    let features = document["features"].as_str().unwrap_or_default();
    println!("{:<17} {:.4} ({features})", "Frechet distance", number(&document["frechet_distance"]));
}

/// The pairs whose ratio is highest, and lowest.
#[derive(Default)]
struct Shown {
    /// Ratio, picture, reconstruction; by ratio.
    pairs: Vec<(f64, Tensor, Tensor)>,
}

impl Shown {
    fn add(&mut self, decibels: &Tensor, pictures: &Tensor, made: &Tensor) {
        for index in 0..pictures.size()[0] {
            let kept = |x: &Tensor| x.get(index).to_device(tch::Device::Cpu).copy();
            self.pairs.push((decibels.double_value(&[index]), kept(pictures), kept(made)));
        }
        self.pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        // What is neither among the lowest nor among the highest.
        let last = self.pairs.len().saturating_sub(SHOWN);
        if last > SHOWN {
            self.pairs.drain(SHOWN..last);
        }
    }

    /// Pictures above, what became of them below.
    fn write(&self, best: &std::path::Path, worst: &std::path::Path) -> anyhow::Result<()> {
        let size = self.pairs.first().map(|pair| pair.1.size());
        if self.pairs.iter().any(|pair| Some(pair.1.size()) != size) {
            return Ok(()); // a sheet needs one size
        }
        let count = self.pairs.len().min(SHOWN);
        let sheet = |path: &std::path::Path, pairs: &[(f64, Tensor, Tensor)]| {
            let above = pairs.iter().map(|pair| &pair.1);
            let rows: Vec<&Tensor> = above.chain(pairs.iter().map(|pair| &pair.2)).collect();
            let grid = image::grid(&Tensor::stack(&rows, 0).clamp(-1., 1.), pairs.len() as i64, 2);
            image::write_png(path, &grid, &[])
        };
        sheet(worst, &self.pairs[..count])?;
        Ok(sheet(best, &self.pairs[self.pairs.len() - count..])?)
    }
}
