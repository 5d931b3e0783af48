//! `ldm eval clip-score`: how well images show what they were asked for.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, bail};
use ldm_conditioning::Clip;
use ldm_core::Prompt;
use ldm_data::{Dataset, collate};
use ldm_metrics::MeanStd;
use serde_json::json;
use tch::Kind;

use super::set;
use crate::args::ClipScoreArgs;
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &ClipScoreArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let clip = Clip::open(&args.clip, device).context("--clip")?;
    // As CLIP's own preparation: the smaller side resized by PIL's bicubic, the middle cut.
    let data = set::open_made(&args.made, Some(clip.side() as u32))?;
    let prompts = prompts(args, &*data)?;
    for cut in clip.cut(&Prompt::text(prompts.iter().cloned())).into_iter().flatten() {
        Printer::warn(&format!("a prompt is longer than CLIP reads, left out: {cut}"));
    }
    let mut score = MeanStd::new();
    let mut bar = printer.bar(data.len() as u64, 0);
    let indices: Vec<usize> = (0..data.len()).collect();
    for some in indices.chunks(args.batch_size.get()) {
        let batch = collate(some.iter().map(|index| data.get(*index, 0)).collect::<Result<_, _>>()?)?;
        let images = clip.images(&batch.images)?;
        let texts = clip.texts(&Prompt::text(some.iter().map(|index| prompts[*index].clone())))?;
        score.add(&((texts * images).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float) * 100.));
        bar.at(score.count() as u64);
    }
    bar.finish();
    if args.json {
        let document = json!({
            "made": data.name(), "made_images": score.count(), "made_fingerprint": data.fingerprint(),
            "prompts": args.prompts_from, "clip": args.clip,
            "clip_score": {"mean": score.mean(), "std": score.std()},
            "ldm": env!("CARGO_PKG_VERSION"),
        });
        println!("{document:#}");
    } else {
        println!("{} made images ({}), by {}", score.count(), data.name(), args.clip.display());
        println!("{:<24} {:.4} +- {:.4}", "clip_score", score.mean(), score.std());
    }
    Ok(())
}

/// What each image was asked to show.
fn prompts(args: &ClipScoreArgs, data: &dyn Dataset) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.prompts_from else {
        return (0..data.len()).map(|index| own(&args.made.join(data.peek(index)?.name))).collect();
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let prompts: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if prompts.len() != data.len() {
        bail!("{}: {} lines for {} images", path.display(), prompts.len(), data.len());
    }
    Ok(prompts)
}

/// The prompt in an image's `parameters`, before what it was guided away from and how it was made.
fn own(path: &Path) -> anyhow::Result<String> {
    let nothing = || format!("{}: no prompt in it, give --prompts-from", path.display());
    let file = File::open(path).with_context(nothing)?;
    let reader = png::Decoder::new(BufReader::new(file)).read_info().with_context(nothing)?;
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == "parameters");
    let text = match info.utf8_text.iter().find(|chunk| chunk.keyword == "parameters") {
        Some(chunk) => Some(chunk.get_text()?),
        None => latin.map(|chunk| chunk.text.clone()),
    };
    let lines = text.unwrap_or_default();
    let lines = lines
        .lines()
        .take_while(|line| !["Negative prompt: ", "Steps: "].iter().any(|word| line.starts_with(word)));
    let prompt = lines.collect::<Vec<_>>().join("\n");
    if prompt.is_empty() {
        bail!("{}", nothing());
    }
    Ok(prompt)
}
