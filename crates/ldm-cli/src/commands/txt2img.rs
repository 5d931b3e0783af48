//! `ldm txt2img`: text to image.

use std::ops::Range;

use anyhow::Context;
use ldm::{Hires, Watermark, read_prompts};
use ldm_core::Prompt;
use ldm_pipelines::{ConditioningKind, LatentDiffusion};
use serde_json::{Map, Value, json};

use crate::args::{TextArgs, Txt2imgArgs};
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Txt2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let texts = match (&args.prompts_from, &args.prompt) {
        (Some(path), _) => read_prompts(path)?,
        (None, prompt) => vec![prompt.clone().context("expected a prompt or --prompts-from, got neither")?],
    };
    let hires =
        args.hires.map(|scale| Hires::new(scale, args.hires_strength, args.hires_steps)).transpose()?;
    let each = args.generate.num_images;
    let job = GenerationJob::new(&args.generate, "txt2img", texts.len() * each)?;
    let model = model::open_text(&args.model, &args.text)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Text])?;
    model::warn_about_texts(&model, &texts, &args.text)?;
    let task = TextTask { given: texts, each, hires, args: &args.text, no_watermark: args.no_watermark };
    job.run(&model, &args.model, task, printer)
}

/// Prompts, each for several consecutive images.
struct TextTask<'a> {
    given: Vec<String>,
    each: usize,
    hires: Option<Hires>,
    args: &'a TextArgs,
    no_watermark: bool,
}

impl TextTask<'_> {
    fn of(&self, image: usize) -> &str {
        &self.given[image / self.each]
    }
}

impl Task for TextTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt::text(images.map(|image| self.of(image))))
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.negative(count)
    }

    fn text(&self) -> Option<&TextArgs> {
        Some(self.args)
    }

    fn watermark(&self, model: &LatentDiffusion) -> Watermark {
        if self.no_watermark { Watermark::Never } else { Watermark::of_txt2img(model) }
    }

    fn hires(&self) -> Option<Hires> {
        self.hires
    }

    fn parameters(&self) -> String {
        if self.no_watermark { ", Watermark: false".into() } else { String::new() }
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
