//! `ldm eval generation`: how far made pictures are from real ones.

use std::sync::Arc;

use ldm_data::Dataset;
use ldm_metrics::{FeatureNetwork, MeanStd, SetFeatures};
use serde_json::{Value, json};
use tch::Device;

use super::set;
use crate::args::GenerationArgs;
use crate::model;
use crate::progress::Talk;

pub(crate) fn run(args: &GenerationArgs, talk: Talk) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(talk))?;
    let network = FeatureNetwork::published_or_random(device)?;
    let (real, made) = (set::open(&args.data)?, set::open_made(&args.made, args.data.size)?);
    let [of_real, of_made] = [&real, &made].map(|data| gathered(data, args, &network, device, talk));
    let (of_real, of_made) = (of_real?, of_made?);
    let found = of_real.distance(&of_made)?;
    let sum = |sum: &MeanStd| json!({"mean": sum.mean(), "std": sum.std()});
    let document = json!({
        "made": made.name(), "made_images": of_made.count(), "made_fingerprint": made.fingerprint(),
        "dataset": real.name(), "images": of_real.count(), "fingerprint": real.fingerprint(),
        "features": network.name(),
        "frechet_distance": found.frechet,
        "kernel_distance": found.kernel.as_ref().map(sum),
        "precision": found.manifold.map(|of| of.precision), "recall": found.manifold.map(|of| of.recall),
        "density": found.manifold.map(|of| of.density), "coverage": found.manifold.map(|of| of.coverage),
        "inception_score": found.inception_score.as_ref().map(sum),
        "ldm": env!("CARGO_PKG_VERSION"),
    });
    if args.how.json {
        println!("{document:#}");
    } else {
        say(&document);
    }
    Ok(())
}

fn gathered(
    data: &Arc<dyn Dataset>,
    args: &GenerationArgs,
    network: &FeatureNetwork,
    device: Device,
    talk: Talk,
) -> anyhow::Result<SetFeatures> {
    let (count, batches) = set::batches(data, &args.how, args.data.strict)?;
    let (mut features, mut bar) = (SetFeatures::default(), talk.bar(count as u64, 0));
    for batch in batches {
        features.add(network, &batch?.images.to_device(device))?;
        bar.at(features.count() as u64);
    }
    bar.finish();
    Ok(features)
}

fn say(document: &Value) {
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    println!("{} made pictures ({})", document["made_images"], text("made"));
    println!("{} real pictures ({})", document["images"], text("dataset"));
    println!("features          {}", text("features"));
    for name in ["frechet_distance", "precision", "recall", "density", "coverage"] {
        if let Some(value) = document[name].as_f64() {
            println!("{name:<17} {value:.4}");
        }
    }
    for name in ["kernel_distance", "inception_score"] {
        if let (Some(mean), Some(std)) = (document[name]["mean"].as_f64(), document[name]["std"].as_f64()) {
            println!("{name:<17} {mean:.6} +- {std:.6}");
        }
    }
}
