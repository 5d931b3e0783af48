//! `ldm eval clip-score`.

use anyhow::Context;
use ldm_conditioning::Clip;
use ldm_study::evaluation::clip_score;
use serde_json::json;

use crate::args::ClipScoreArgs;
use crate::model;
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::terminal::{self, outln};

pub(crate) fn run(args: &ClipScoreArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let clip = Clip::open(&args.clip, device).context("--clip")?;
    let reporter = CliReporter::new(printer);
    let prompts = args.prompts_from.as_deref();
    let found = clip_score(&clip, &args.generated, prompts, args.batch_size.get(), &reporter)?;
    if args.json {
        let mut document = json!(found);
        document["prompts"] = json!(args.prompts_from);
        document["clip"] = json!(args.clip);
        document["ldm"] = env!("CARGO_PKG_VERSION").into();
        terminal::write_json(&document, false)?;
    } else {
        outln!("{} generated images ({}), by {}", found.made_images, found.made, args.clip.display())?;
        outln!("{:<24} {:.4} +- {:.4}", "clip_score", found.clip_score.mean, found.clip_score.std)?;
    }
    Ok(())
}
