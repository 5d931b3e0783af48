//! The model and the device of the flags.

use std::path::Path;

use anyhow::{Context, bail};
use ldm_conditioning::EmbeddingFile;
use ldm_core::device::{device_name, parse_device, parse_dtype_for};
use ldm_libtorch::kernels;
use ldm_pipelines::{ConditioningKind, LatentDiffusion, LoadOptions, Model};
use tch::{Device, Kind};

use crate::args::{DeviceArgs, ModelArgs, TextArgs};
use crate::progress::Printer;

/// Returns the requested device, and sets the number of threads, the kernels and TF32.
pub(crate) fn device(args: &DeviceArgs, printer: Option<Printer>) -> anyhow::Result<Device> {
    if let Some(threads) = args.threads {
        ldm_libtorch::set_threads(usize::from(threads));
    }
    kernels::configure(args.kernels == "ldm").map_err(anyhow::Error::msg)?;
    let device = parse_device(&args.device)?;
    if args.tf32 && device.is_cuda() {
        ldm_libtorch::set_tf32(true);
    }
    if let (Some(printer), "auto") = (printer, args.device.as_str()) {
        printer.detail(&format!("device: {}", device_name(device)));
    }
    Ok(device)
}

/// Opens a model for encoding and decoding.
pub(crate) fn open(args: &ModelArgs) -> anyhow::Result<Model> {
    let model = open_with(args, None)?;
    keep_freed_memory(model.kind());
    Ok(model)
}

/// Keeps freed memory, which is faster and may need more of it (`docs/guide/performance.md`), except in f16, which a CPU
/// computes for its size alone. Call it after the conversion of the weights to channels_last, or the memory of their first
/// copies stays allocated.
pub(crate) fn keep_freed_memory(kind: Kind) {
    if kind != Kind::Half {
        ldm_libtorch::keep_freed_memory();
    }
}

/// Opens a model, with its tokenizer if it has one.
fn open_with(args: &ModelArgs, tokenizer: Option<&Path>) -> anyhow::Result<Model> {
    let device = device(&args.device, None)?;
    let options = LoadOptions {
        config: args.config.clone(),
        tokenizer: tokenizer.map(Path::to_path_buf),
        overrides: args.overrides.clone(),
        ignore: args.ignore.clone(),
        ema: args.ema || !args.no_ema,
        device,
        kind: parse_dtype_for(&args.dtype, device)?,
    };
    Model::open(&args.model, &options, &mut Printer::warn).map_err(with_hint)
}

/// Adds `--ignore` to the error of a file that has all weights, and other tensors.
pub(crate) fn with_hint(error: ldm_core::Error) -> anyhow::Error {
    match &error {
        ldm_core::Error::Weights { mismatch, .. }
            if mismatch.missing.is_empty() && mismatch.misshaped.is_empty() =>
        {
            anyhow::anyhow!("{error}; try --ignore NAME")
        }
        _ => error.into(),
    }
}

/// Opens a diffusion model with its first stage.
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

/// Opens a diffusion model with the tokenizer and the learned words of the flags.
pub(crate) fn open_text(args: &ModelArgs, text: &TextArgs) -> anyhow::Result<Box<LatentDiffusion>> {
    text.control.files().check()?;
    let embeddings = text.embeddings.iter().map(EmbeddingFile::read).collect::<ldm_core::Result<Vec<_>>>()?;
    let mut model = open_diffusion(args, text.tokenizer.as_deref())?;
    for (embedding, file) in embeddings.into_iter().zip(&text.embeddings) {
        model.conditioner.add_embedding(embedding).with_context(|| file.path.display().to_string())?;
    }
    Ok(model)
}

/// Warns about prompts, and the negative one, that are not read as they were meant, it seems.
pub(crate) fn warn_about_texts(
    model: &LatentDiffusion,
    prompts: &[String],
    text: &TextArgs,
) -> anyhow::Result<()> {
    let options = text.options()?;
    let negative = std::slice::from_ref(&text.negative_prompt);
    for (name, texts) in [("the prompt", prompts), ("the negative prompt", negative)] {
        model.text_warnings(name, texts, &options).iter().for_each(|warning| Printer::warn(warning));
    }
    Ok(())
}

/// Refuses a model whose conditioning is not among `accepted`, the kinds that the command provides.
pub(crate) fn check_conditioning(
    model: &LatentDiffusion,
    args: &ModelArgs,
    accepted: &[ConditioningKind],
) -> anyhow::Result<()> {
    let needs = ConditioningKind::of(&model.config);
    if accepted.contains(&needs) {
        return Ok(());
    }
    let command = match needs {
        ConditioningKind::Unconditional | ConditioningKind::Class => "try ldm sample",
        ConditioningKind::Text => "try ldm txt2img",
        ConditioningKind::Layout => "try ldm layout2img",
        ConditioningKind::LowResolution => "try ldm upscale",
        ConditioningKind::SemanticMap => "try ldm semantic2img",
        ConditioningKind::Inpainting | ConditioningKind::TextInpainting => "try ldm inpaint",
        ConditioningKind::ClipImage | ConditioningKind::Embedding => "try ldm knn2img",
        ConditioningKind::Hybrid => "try ldm sample with --image, where the other condition is a class",
    };
    let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    bail!(
        "{}: expected a model conditioned on {}, got one conditioned on {needs}; {command}",
        args.model.display(),
        accepted.join(" or ")
    )
}
