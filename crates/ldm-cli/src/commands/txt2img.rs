//! `ldm txt2img`: text to image.

use std::io::Read as _;
use std::ops::Range;

use anyhow::{Context, bail};
use ldm::Watermark;
use ldm_core::{Prompt, text};
use ldm_pipelines::{ConditioningKind, LatentDiffusion};
use serde_json::{Map, Value, json};

use crate::args::{TextArgs, Txt2imgArgs};
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Txt2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let texts = prompts(args)?;
    let each = args.generate.num_images;
    let job = GenerationJob::new(&args.generate, "txt2img", texts.len() * each)?;
    let model = model::open_text(&args.model, &args.text)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Text])?;
    model::warn_about_texts(&model, &texts, &args.text)?;
    let task = TextTask { given: texts, each, args: &args.text, no_watermark: args.no_watermark };
    job.run(&model, &args.model, task, printer)
}

/// Reads the prompts.
fn prompts(args: &Txt2imgArgs) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.prompts_from else {
        return Ok(vec![args.prompt.clone().context("expected a prompt or --prompts-from, got neither")?]);
    };
    let text = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("stdin")?;
        text::decode(&bytes).map_err(anyhow::Error::msg).context("stdin")?
    } else {
        text::read(path)?
    };
    let prompts: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    if prompts.is_empty() {
        bail!("{}: expected one prompt per line, got none", path.display());
    }
    Ok(prompts)
}

/// Prompts, each for several consecutive images.
struct TextTask<'a> {
    given: Vec<String>,
    each: usize,
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
