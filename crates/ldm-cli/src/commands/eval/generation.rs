//! `ldm eval generation`.

use anyhow::{Context, bail};
use ldm_core::files;
use ldm_pipelines::ConditioningKind;
use ldm_study::evaluation::{
    GeneratedImages, GenerationEvaluator, ImageGenerator, ReferenceSet, open_generated,
};
use serde_json::{Value, json};

use super::{options, source};
use crate::args::{GenerationArgs, MakerArgs, ModelArgs};
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::{model, output, sampling};

pub(crate) fn run(args: &GenerationArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = output::folder(&args.output, "eval");
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    let with_images = args.made.is_some() || args.maker.model.is_some();
    let written = if with_images { vec![&results, &best, &worst] } else { Vec::new() };
    let mut written = written.into_iter().chain(&args.save_statistics);
    written.try_for_each(|path| output::ensure_new(path, args.output.force))?;
    let device = model::device(&args.device, Some(printer))?;
    let reference = ReferenceSet::open(source(&args.data))?;
    if reference.is_statistics() && args.save_statistics.is_some() {
        bail!("--save-statistics: expected images, got the statistics {}", args.data.dataset.display());
    }
    let generated = match &args.made {
        Some(path) => Some(GeneratedImages::Set(open_generated(path, args.data.size)?)),
        None => generator(args)?.map(|generator| GeneratedImages::Model(Box::new(generator))),
    };
    if args.made.is_some() {
        refuse_sampling(&args.maker)?;
    }
    let sampling = match &generated {
        Some(GeneratedImages::Model(generator)) => sampling_document(&args.maker, generator),
        _ => Value::Null,
    };
    let reporter = CliReporter::new(printer);
    let mut evaluator = GenerationEvaluator::new(options(&args.how), device, &reporter)?;
    let statistics = args.save_statistics.as_deref();
    let Some(mut generated) = generated else {
        let path = statistics.context("expected generated images, --model or --save-statistics")?;
        evaluator.save_statistics(&reference, path)?;
        println!("{}", path.display());
        return Ok(());
    };
    let found = evaluator.evaluate(&reference, &mut generated, statistics)?;
    let mut document = found.document();
    document.insert("sampling".into(), sampling);
    document.insert("ldm".into(), env!("CARGO_PKG_VERSION").into());
    output::make(&folder)?;
    if let Some(nearest) = &found.nearest {
        nearest.extremes.write(&best, &worst)?;
    }
    let document = Value::Object(document);
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    if args.how.json {
        println!("{document:#}");
    } else {
        print(&document);
    }
    Ok(())
}

/// The model that generates the images, if any.
fn generator(args: &GenerationArgs) -> anyhow::Result<Option<ImageGenerator>> {
    let (MakerArgs { sampling: how, seed, .. }, Some(path)) = (&args.maker, &args.maker.model) else {
        return refuse_sampling(&args.maker).map(|()| None);
    };
    let named = ModelArgs {
        model: path.clone(),
        config: args.maker.config.clone(),
        ema: false,
        no_ema: args.maker.no_ema,
        dtype: args.maker.dtype.clone(),
        device: args.device.clone(),
    };
    let model = model::open_diffusion(&named, None)?;
    model::check_conditioning(&model, &named, &[ConditioningKind::Unconditional, ConditioningKind::Class])
        .context("--model: generate the images first, and give their folder")?;
    if ImageGenerator::classes_of(&model).is_empty() && how.guidance_scale.is_some_and(|scale| scale != 1.) {
        bail!("--guidance-scale: expected a conditional model, got an unconditional one");
    }
    model.merge(&how.loras)?;
    model.to_channels_last();
    model::keep_freed_memory(model.kind());
    let sampling = sampling::resolve(how, &model)?;
    Ok(Some(ImageGenerator::new(model, sampling, *seed)?))
}

/// The options that generate the same images again.
fn sampling_document(args: &MakerArgs, generator: &ImageGenerator) -> Value {
    let (how, sampling) = (&args.sampling, generator.sampling());
    let guidance = &sampling.guidance;
    let loras: Vec<String> = how.loras.iter().map(ToString::to_string).collect();
    json!({
        "model": args.model, "ema": !args.no_ema, "dtype": args.dtype, "loras": loras,
        "seed": args.seed, "classes": generator.classes().len(),
        "sampler": sampling.sampler.name(), "eta": sampling.sampler.eta(),
        "spacing": how.spacing, "steps": sampling.steps,
        "guidance_scale": guidance.scale, "guidance_rescale": guidance.rescale,
        "guidance_interval": how.guidance_interval.map(|span| [span.low, span.high]),
        "size": sampling.size, "tile": sampling.tile,
    })
}

/// Refuses options of sampling without a model.
fn refuse_sampling(args: &MakerArgs) -> anyhow::Result<()> {
    let how = &args.sampling;
    let given = [
        ("--sampler", how.sampler.is_some()),
        ("--spacing", how.spacing.is_some()),
        ("--steps", how.steps.is_some()),
        ("--eta", how.eta.is_some()),
        ("--guidance-scale", how.guidance_scale.is_some()),
        ("--guidance-rescale", how.guidance_rescale != 0.),
        ("--guidance-interval", how.guidance_interval.is_some()),
        ("--height", how.height.is_some()),
        ("--tile", how.tile.is_some()),
        ("--lora", !how.loras.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => bail!("{name}: expected --model, which generates the images"),
        None => Ok(()),
    }
}

fn print(document: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("an unnamed set").to_owned();
    let generated = document["made"].as_str().map_or_else(
        || format!("{}, seed {}", text(&document["sampling"]["model"]), document["sampling"]["seed"]),
        ToOwned::to_owned,
    );
    println!("{} made images ({generated})", document["made_images"]);
    match document["images"].as_i64() {
        Some(images) => println!("{images} real images ({})", text(&document["dataset"])),
        None => println!("real images: {}", text(&document["statistics"])),
    }
    println!("{:<24} {}", "features", text(&document["features"]));
    for name in ["frechet_distance", "spatial_frechet_distance", "precision", "recall", "density", "coverage"]
    {
        if let Some(value) = document[name].as_f64() {
            println!("{name:<24} {value:.4}");
        }
    }
    for name in ["kernel_distance", "inception_score", "nearest_real"] {
        if let (Some(mean), Some(std)) = (document[name]["mean"].as_f64(), document[name]["std"].as_f64()) {
            println!("{name:<24} {mean:.6} +- {std:.6}");
        }
    }
}
