//! `ldm convert`: a model from one format to another. Values are unchanged, except by LoRAs and merged models.

use anyhow::Context;
use ldm_core::device::parse_dtype;
use ldm_pipelines::{
    CheckpointMerge, ConvertOptions, ConvertTarget, ModelSource, check_replaceable, convert,
};

use crate::args::{ConvertArgs, ModelFormat};
use crate::model::with_hint;
use crate::output;
use crate::progress::Printer;
use crate::terminal::outln;

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let to = match args.to {
        ModelFormat::Ldm => ConvertTarget::Ldm,
        ModelFormat::Compvis => ConvertTarget::Compvis,
        ModelFormat::Diffusers => ConvertTarget::Diffusers,
    };
    // First, since reading the model may take long.
    output::ensure_new(&args.out, args.force)?;
    check_replaceable(&args.out, to)?;
    let options = ConvertOptions {
        to,
        kind: args.dtype.as_deref().map(parse_dtype).transpose()?,
        ema: args.ema || !args.no_ema,
        tokenizer: args.tokenizer.clone(),
        merge: args.merge.clone().zip(args.weight).map(|(with, weight)| CheckpointMerge {
            with,
            weight,
            minus: args.minus.clone(),
        }),
        loras: args.loras.clone(),
        force: args.force,
    };
    let source = ModelSource::find_without(&args.source, args.config.as_deref(), options.ema, &args.ignore)?;
    source.notes.iter().for_each(|note| Printer::warn(note));
    convert(&source, &args.out, &options, &mut Printer::warn)
        .map_err(with_hint)
        .with_context(|| format!("{} as {}", args.source.display(), args.out.display()))?;
    outln!("{}", args.out.display())?;
    Ok(())
}
