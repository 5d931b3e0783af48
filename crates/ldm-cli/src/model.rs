//! From flags to an opened model.

use std::path::Path;

use anyhow::{Context, bail};
use ldm_core::device::{device_name, parse_device, parse_dtype};
use ldm_pipelines::{ConditioningKind, LatentDiffusion, LoadOptions, Model};
use tch::{Device, Kind};

use crate::args::{DeviceArgs, ModelArgs};
use crate::progress::Printer;

/// The requested device, with the threads set.
pub(crate) fn device(args: &DeviceArgs, printer: Option<Printer>) -> anyhow::Result<Device> {
    if let Some(threads) = args.threads {
        ldm_libtorch::set_threads(threads);
    }
    let device = parse_device(&args.device)?;
    if let (Some(printer), "auto") = (printer, args.device.as_str()) {
        printer.detail(&format!("device: {}", device_name(device)));
    }
    Ok(device)
}

/// Opens a model to encode and decode.
pub(crate) fn open(args: &ModelArgs) -> anyhow::Result<Model> {
    let model = open_with(args, None)?;
    keep_freed_memory(parse_dtype(&args.dtype)?);
    Ok(model)
}

/// Keeps freed memory for a model in f32: decoding is faster for more memory (`docs/performance.md`); half precision on the
/// CPU is chosen to save it. Best called once the weights are in channels_last, else their first copies are kept too.
pub(crate) fn keep_freed_memory(kind: Kind) {
    if kind == Kind::Float {
        ldm_libtorch::keep_freed_memory();
    }
}

/// Opens a model, with its tokenizer where there is one.
fn open_with(args: &ModelArgs, tokenizer: Option<&Path>) -> anyhow::Result<Model> {
    let how = LoadOptions {
        config: args.config.clone(),
        tokenizer: tokenizer.map(Path::to_path_buf),
        ema: args.ema || !args.no_ema,
        device: device(&args.device, None)?,
        kind: parse_dtype(&args.dtype)?,
    };
    Ok(Model::open(&args.model, &how, &mut Printer::warn)?)
}

/// Opens a whole diffusion model.
pub(crate) fn open_diffusion(
    args: &ModelArgs,
    tokenizer: Option<&Path>,
) -> anyhow::Result<Box<LatentDiffusion>> {
    match open_with(args, tokenizer)? {
        Model::Diffusion(model) => Ok(model),
        Model::FirstStage(_) => {
            bail!("{}: expected a diffusion model, got a first stage alone", args.model.display())
        }
    }
}

/// Refuses a model that is conditioned on something else than a command `gives`.
pub(crate) fn check_conditioning(
    model: &LatentDiffusion,
    args: &ModelArgs,
    gives: &[ConditioningKind],
) -> anyhow::Result<()> {
    let needs = ConditioningKind::of(&model.config);
    if gives.contains(&needs) {
        return Ok(());
    }
    let other = match needs {
        ConditioningKind::Unconditional | ConditioningKind::Class => "use ldm sample",
        ConditioningKind::Text => "use ldm txt2img",
        ConditioningKind::Layout => "use ldm layout2img",
        ConditioningKind::LowResolution => "use ldm upscale",
        ConditioningKind::SemanticMap => "use ldm semantic2img",
        ConditioningKind::Inpainting | ConditioningKind::TextInpainting => "use ldm inpaint",
        ConditioningKind::Embedding => "no command gives it that yet",
    };
    bail!("{}: this model is conditioned on {needs}: {other}", args.model.display())
}

/// The class of a word: a number below `count`, or one of `names`.
pub(crate) fn class(word: &str, names: &[String], count: i64) -> anyhow::Result<i64> {
    if let Some(index) = names.iter().position(|name| name == word) {
        return Ok(index as i64);
    }
    let number: Option<i64> = word.parse().ok();
    number.filter(|number| (0..count).contains(number)).with_context(|| {
        let known =
            if names.is_empty() { String::new() } else { format!(", or one of {}", names.join(", ")) };
        format!("unknown class, expected 0 to {}{known}: {word}", count - 1)
    })
}
