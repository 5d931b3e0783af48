//! `ldm eval generation`.

use anyhow::{Context, bail};
use ldm_core::device::{dtype_name, parse_dtype_for};
use ldm_core::{FileContent, files};
use ldm_pipelines::ConditioningKind;
use ldm_study::evaluation::{
    GeneratedImages, GenerationEvaluator, ImageGenerator, ReferenceSet, generation_table, open_generated,
};
use serde_json::{Value, json};
use tch::Kind;

use super::{options, source};
use crate::args::{GenerationArgs, GeneratorArgs, ModelArgs};
use crate::output::OutputFolder;
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::terminal::outln;
use crate::{model, output, sampling};

pub(crate) fn run(args: &GenerationArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = OutputFolder::new(&args.output, "eval")?;
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    let with_images = args.generated.is_some() || args.generator.model.is_some();
    let force = args.output.force;
    if with_images {
        [&results, &best, &worst].into_iter().try_for_each(|path| output::ensure_new(path, force))?;
    }
    if let Some(path) = &args.save_statistics {
        output::ensure_writable(path, FileContent::Npz, force)?;
    }
    let device = model::device(&args.device, Some(printer))?;
    let reference = ReferenceSet::open(source(&args.data))?;
    if reference.is_statistics() && args.save_statistics.is_some() {
        bail!("--save-statistics: expected images, got the statistics {}", args.data.dataset.display());
    }
    let generated = match &args.generated {
        Some(path) => Some(GeneratedImages::Set(open_generated(path, args.data.size)?)),
        None => generator(args)?.map(|generator| GeneratedImages::Model(Box::new(generator))),
    };
    if args.generated.is_some() {
        refuse_sampling(&args.generator)?;
    }
    let sampling = match &generated {
        Some(GeneratedImages::Model(generator)) => {
            sampling_document(&args.generator, generator, parse_dtype_for(&args.generator.dtype, device)?)
        }
        _ => Value::Null,
    };
    let reporter = CliReporter::new(printer);
    let mut evaluator = GenerationEvaluator::new(options(&args.metrics), device, &reporter)?;
    let statistics = args.save_statistics.as_deref();
    let Some(mut generated) = generated else {
        let path = statistics.context("expected generated images, --model or --save-statistics, got none")?;
        evaluator.save_statistics(&reference, path)?;
        outln!("{}", path.display())?;
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
    Ok(super::print(&document, &generation_table(&document), args.metrics.json)?)
}

/// Opens the model of `--model`, if given.
fn generator(args: &GenerationArgs) -> anyhow::Result<Option<ImageGenerator>> {
    let (GeneratorArgs { sampling: flags, seed, .. }, Some(path)) = (&args.generator, &args.generator.model)
    else {
        return refuse_sampling(&args.generator).map(|()| None);
    };
    let model_args = ModelArgs {
        model: path.clone(),
        config: args.generator.config.clone(),
        ema: false,
        overrides: Vec::new(),
        ignore: Vec::new(),
        no_ema: args.generator.no_ema,
        dtype: args.generator.dtype.clone(),
        device: args.device.clone(),
    };
    let model = model::open_diffusion(&model_args, None)?;
    model::check_conditioning(
        &model,
        &model_args,
        &[ConditioningKind::Unconditional, ConditioningKind::Class],
    )
    .context("--model: try generating the images first, then evaluating their folder")?;
    if ImageGenerator::classes_of(&model).is_empty() && flags.guidance_scale.is_some_and(|scale| scale != 1.)
    {
        bail!("--guidance-scale: expected a conditional model, got an unconditional one");
    }
    model.merge(&flags.loras)?;
    model.to_channels_last();
    model::keep_freed_memory(model.kind());
    let sampling = sampling::resolve(flags, &model)?;
    Ok(Some(ImageGenerator::new(model, sampling, *seed)?))
}

/// Returns the options that reproduce the generated images.
fn sampling_document(args: &GeneratorArgs, generator: &ImageGenerator, kind: Kind) -> Value {
    let (flags, sampling) = (&args.sampling, generator.sampling());
    let guidance = &sampling.guidance;
    let loras: Vec<String> = flags.loras.iter().map(ToString::to_string).collect();
    json!({
        "model": args.model, "ema": !args.no_ema, "dtype": dtype_name(kind), "loras": loras,
        "seed": args.seed, "classes": generator.classes().len(),
        "sampler": sampling.sampler.name(), "eta": sampling.sampler.eta(),
        "spacing": flags.spacing, "steps": sampling.steps,
        "guidance_scale": guidance.scale, "guidance_rescale": guidance.rescale,
        "guidance_interval": flags.guidance_interval.map(|span| [span.low, span.high]),
        "size": sampling.size, "tile": sampling.tile, "deep_cache": sampling.deep_cache.map(|cache| cache.to_string()),
        "token_merging": sampling.token_merging,
    })
}

/// Refuses sampling flags without `--model`.
fn refuse_sampling(args: &GeneratorArgs) -> anyhow::Result<()> {
    let flags = &args.sampling;
    let given = [
        ("--sampler", flags.sampler.is_some()),
        ("--spacing", flags.spacing.is_some()),
        ("--steps", flags.steps.is_some()),
        ("--eta", flags.eta.is_some()),
        ("--guidance-scale", flags.guidance_scale.is_some()),
        ("--guidance-rescale", flags.guidance_rescale != 0.),
        ("--guidance-interval", flags.guidance_interval.is_some()),
        ("--height", flags.height.is_some()),
        ("--tile", flags.tile.is_some()),
        ("--deep-cache", flags.deep_cache.is_some()),
        ("--token-merging", flags.token_merging != 0.),
        ("--fast", flags.fast),
        ("--lora", !flags.loras.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => bail!("{name}: expected --model, which generates the images"),
        None => Ok(()),
    }
}
