//! `ldm convert`: a model from one format to another. Values are unchanged, except by LoRAs.

use anyhow::{Context, bail};
use ldm_core::device::parse_dtype;
use ldm_pipelines::{ConvertOptions, ConvertTarget, ModelSource, convert};

use crate::args::{ConvertArgs, ModelFormat};
use crate::output;
use crate::progress::Printer;

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    // First, since reading the model may take long.
    output::ensure_new(&args.out, args.force)?;
    if args.force && args.out.is_dir() && !looks_like_a_model(&args.out) {
        bail!("{}: expected a model to replace, got a folder without one", args.out.display());
    }
    let options = ConvertOptions {
        to: match args.to {
            ModelFormat::Ldm => ConvertTarget::Ldm,
            ModelFormat::Compvis => ConvertTarget::Compvis,
            ModelFormat::Diffusers => ConvertTarget::Diffusers,
        },
        kind: args.dtype.as_deref().map(parse_dtype).transpose()?,
        ema: args.ema || !args.no_ema,
        tokenizer: args.tokenizer.clone(),
        loras: args.loras.clone(),
        force: args.force,
    };
    let source = ModelSource::find(&args.source, args.config.as_deref(), options.ema)?;
    source.notes.iter().for_each(|note| Printer::warn(note));
    convert(&source, &args.out, &options, &mut Printer::warn)
        .with_context(|| format!("{} as {}", args.source.display(), args.out.display()))?;
    println!("{}", args.out.display());
    Ok(())
}

/// Returns whether a folder is empty or contains a model: --force with a wrong path must not remove a home folder.
fn looks_like_a_model(folder: &std::path::Path) -> bool {
    let empty = folder.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    empty
        || ["model_index.json", "config.json", "model.safetensors"]
            .iter()
            .any(|name| folder.join(name).is_file())
}
