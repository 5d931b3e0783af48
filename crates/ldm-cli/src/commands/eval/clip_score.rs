//! `ldm eval clip-score`.

use anyhow::Context;
use ldm_conditioning::Clip;
use ldm_study::evaluation::clip_score;
use serde_json::json;

use crate::args::ClipScoreArgs;
use crate::model;
use crate::progress::Printer;
use crate::reporter::CliReporter;

pub(crate) fn run(args: &ClipScoreArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let clip = Clip::open(&args.clip, device).context("--clip")?;
    let reporter = CliReporter::new(printer);
    let (prompts, batch) = (args.prompts_from.as_deref(), args.batch_size.get());
    let found = clip_score(&clip, &args.generated, prompts, batch, args.strict, &reporter)?;
    let mut document = json!(found);
    document["prompts"] = json!(args.prompts_from);
    document["clip"] = json!(args.clip);
    document["ldm"] = env!("CARGO_PKG_VERSION").into();
    Ok(super::print(&document, &found.table(&args.clip.display().to_string()), args.json)?)
}
