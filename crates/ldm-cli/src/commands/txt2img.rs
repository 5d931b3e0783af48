//! `ldm txt2img`: images of what a text says.

use std::ops::Range;

use anyhow::{Context, bail};
use ldm_core::Prompt;
use ldm_pipelines::{ConditioningKind, LatentDiffusion};
use serde_json::{Map, Value, json};

use crate::args::{TextArgs, Txt2imgArgs};
use crate::making::{Making, Subject};
use crate::model;
use crate::output::Mark;
use crate::progress::Printer;

pub(crate) fn run(args: &Txt2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let texts = prompts(args)?;
    let each = args.generate.num_images;
    let making = Making::new(&args.generate, "txt2img", texts.len() * each)?;
    let model = model::open_diffusion(&args.model, args.text.tokenizer.as_deref())?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Text])?;
    warn_of_cuts(&model, "the prompt", &texts);
    warn_of_cuts(&model, "the negative prompt", std::slice::from_ref(&args.text.negative_prompt));
    let subject = Texts { given: texts, each, args: &args.text, unmarked: args.no_watermark };
    making.run(&model, &args.model, model::guidance_scale(&model), &subject, printer)
}

/// What to draw, a text each.
fn prompts(args: &Txt2imgArgs) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.prompts_from else {
        return Ok(vec![args.prompt.clone().context("a prompt, or --prompts-from")?]);
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let prompts: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    if prompts.is_empty() {
        bail!("{}: expected a prompt a line, and there is none", path.display());
    }
    Ok(prompts)
}

/// Says what of each text the model does not read.
fn warn_of_cuts(model: &LatentDiffusion, what: &str, texts: &[String]) {
    let cuts = model.conditioner.cut(&Prompt::text(texts.iter().cloned()));
    for cut in cuts.into_iter().flatten() {
        Printer::warn(&format!("{what} is longer than the model reads, left out: {cut}"));
    }
}

/// Texts, each for several images in a row.
struct Texts<'a> {
    given: Vec<String>,
    each: usize,
    args: &'a TextArgs,
    unmarked: bool,
}

impl Texts<'_> {
    fn of(&self, image: usize) -> &str {
        &self.given[image / self.each]
    }
}

impl Subject for Texts<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt::text(images.map(|image| self.of(image))))
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.negative(count)
    }

    /// As the reference's script, which does it for Stable Diffusion alone.
    fn mark(&self, model: &LatentDiffusion) -> Mark {
        if model.config.clip() && !self.unmarked { Mark::WherePossible } else { Mark::Never }
    }

    fn heading(&self, image: usize) -> String {
        format!("{}\n{}", self.of(image), self.args.heading())
    }

    fn json(&self, image: usize) -> Map<String, Value> {
        Map::from_iter([
            ("prompt".to_owned(), json!(self.of(image))),
            ("negative_prompt".to_owned(), json!(self.args.negative_prompt)),
        ])
    }
}
