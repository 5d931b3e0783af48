//! `ldm convert`: one form of a model to another. Every value stays what it is, but for LoRAs.

use anyhow::{Context, bail};
use ldm_core::device::parse_dtype;
use ldm_pipelines::{Converting, ModelSource, ConvertTarget, convert};

use crate::args::{ConvertArgs, Form};
use crate::output;
use crate::progress::Printer;

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    // Before anything is read, which may take long.
    output::ensure_new(&args.out, args.force)?;
    if args.force && args.out.is_dir() && !looks_like_a_model(&args.out) {
        bail!("{}: a folder that holds no model, and is not replaced even with --force", args.out.display());
    }
    let how = Converting {
        to: match args.to {
            Form::Ldm => ConvertTarget::Ldm,
            Form::Compvis => ConvertTarget::Compvis,
            Form::Diffusers => ConvertTarget::Diffusers,
        },
        kind: args.dtype.as_deref().map(parse_dtype).transpose()?,
        ema: args.ema || !args.no_ema,
        tokenizer: args.tokenizer.clone(),
        loras: args.loras.clone(),
        force: args.force,
    };
    let source = ModelSource::find(&args.source, args.config.as_deref(), how.ema)?;
    source.notes.iter().for_each(|note| Printer::warn(note));
    convert(&source, &args.out, &how, &mut Printer::warn)
        .with_context(|| format!("{} as {}", args.source.display(), args.out.display()))?;
    println!("{}", args.out.display());
    Ok(())
}

/// Checks for a model of this command or of diffusers: --force on a wrong path must not remove a home folder.
fn looks_like_a_model(folder: &std::path::Path) -> bool {
    let empty = folder.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    empty
        || ["model_index.json", "config.json", "model.safetensors"]
            .iter()
            .any(|name| folder.join(name).is_file())
}
