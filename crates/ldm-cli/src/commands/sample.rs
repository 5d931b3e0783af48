//! `ldm sample`: unconditional and by class.

use std::ops::Range;

use anyhow::{Context, bail};
use ldm_core::Prompt;
use ldm_pipelines::{LatentDiffusion, Needs};
use serde_json::{Map, Value, json};

use crate::args::SampleArgs;
use crate::making::{Making, Subject};
use crate::model;
use crate::progress::Talk;

pub(crate) fn run(args: &SampleArgs, talk: Talk) -> anyhow::Result<()> {
    let making = Making::new(&args.generate, "sample", args.generate.num_images)?;
    let model = model::open_diffusion(&args.model, None)?;
    model::check_needs(&model, &args.model, &[Needs::Nothing, Needs::Class])?;
    let subject = Classes { asked: classes(args, &model)?, model: &model };
    making.run(&model, &args.model, 1., &subject, talk)
}

/// A class a picture, or none.
struct Classes<'a> {
    asked: Vec<i64>,
    model: &'a LatentDiffusion,
}

impl Classes<'_> {
    /// Its name, or else its number.
    fn name(&self, picture: usize) -> Option<String> {
        let class = *self.asked.get(picture)?;
        Some(self.model.classes.get(class as usize).cloned().unwrap_or_else(|| class.to_string()))
    }
}

impl Subject for Classes<'_> {
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(self.asked.get(pictures).map_or_else(Prompt::default, Prompt::class))
    }

    fn heading(&self, picture: usize) -> String {
        self.name(picture).map_or(String::new(), |class| format!("class: {class}\n"))
    }

    fn json(&self, picture: usize) -> Map<String, Value> {
        Map::from_iter([("class".to_owned(), json!(self.name(picture)))])
    }
}

/// A class a picture, those asked for taken in turn.
fn classes(args: &SampleArgs, model: &LatentDiffusion) -> anyhow::Result<Vec<i64>> {
    let Some(count) = model.config.classes() else {
        if !args.class.is_empty() {
            bail!("--class: this model is unconditional");
        }
        if args.generate.guidance_scale.is_some_and(|scale| scale != 1.) {
            bail!("--guidance-scale: this model is unconditional, and has nothing to be guided away from");
        }
        return Ok(Vec::new());
    };
    if args.class.is_empty() {
        let known = if model.classes.is_empty() {
            format!("a number from 0 to {}", count - 1)
        } else {
            model.classes.join(", ")
        };
        bail!("this model is conditioned on a class: give --class, one of {known}");
    }
    let asked: Vec<i64> = args
        .class
        .iter()
        .map(|word| model::class(word.trim(), &model.classes, count))
        .collect::<anyhow::Result<_>>()
        .context("--class")?;
    Ok(asked.iter().copied().cycle().take(args.generate.num_images).collect())
}
