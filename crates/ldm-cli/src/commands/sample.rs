//! `ldm sample`: unconditional and by class.

use std::ops::Range;

use anyhow::{Context, bail};
use ldm_core::Prompt;
use ldm_pipelines::{ConditioningKind, LatentDiffusion};
use serde_json::{Map, Value, json};

use crate::args::SampleArgs;
use crate::classifier::{self, Leading};
use crate::making::{Making, Subject};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &SampleArgs, printer: Printer) -> anyhow::Result<()> {
    classifier::check(&args.classifier, &args.class)?;
    let making = Making::new(&args.generate, "sample", args.generate.num_images)?;
    let mut model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(
        &model,
        &args.model,
        &[ConditioningKind::Unconditional, ConditioningKind::Class],
    )?;
    let leading = Leading::of(&args.classifier, &mut model)?;
    let subject = Classes { asked: classes(args, &model, leading.as_ref())?, model: &model, leading };
    making.run(&model, &args.model, 1., &subject, printer)
}

/// A class an image, or none.
struct Classes<'a> {
    asked: Vec<i64>,
    model: &'a LatentDiffusion,
    leading: Option<Leading>,
}

impl Classes<'_> {
    /// Its name, or else its number.
    fn name(&self, image: usize) -> Option<String> {
        let class = *self.asked.get(image)?;
        let own = self.model.classes.get(class as usize);
        let name = own.or_else(|| self.leading.as_ref().and_then(|by| by.class_name(class)));
        Some(name.cloned().unwrap_or_else(|| class.to_string()))
    }
}

impl Subject for Classes<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(self.asked.get(images).map_or_else(Prompt::default, Prompt::class))
    }

    fn heading(&self, image: usize) -> String {
        self.name(image).map_or(String::new(), |class| format!("class: {class}\n"))
    }

    fn parameters(&self) -> String {
        self.leading.as_ref().map_or(String::new(), Leading::parameters)
    }

    fn json(&self, image: usize) -> Map<String, Value> {
        let class = [("class".to_owned(), json!(self.name(image)))];
        class.into_iter().chain(self.leading.iter().flat_map(Leading::json)).collect()
    }
}

/// A class an image, those asked for taken in turn.
fn classes(
    args: &SampleArgs,
    model: &LatentDiffusion,
    leading: Option<&Leading>,
) -> anyhow::Result<Vec<i64>> {
    let Some(count) = model.config.classes() else {
        if !args.class.is_empty() && leading.is_none() {
            bail!("--class: this model is unconditional");
        }
        if args.generate.how.guidance_scale.is_some_and(|scale| scale != 1.) {
            bail!("--guidance-scale: this model is unconditional, and has nothing to be guided away from");
        }
        return match leading {
            Some(leading) => asked(args, |word| leading.class(word)),
            None => Ok(Vec::new()),
        };
    };
    if args.class.is_empty() {
        let known = if model.classes.is_empty() {
            format!("a number from 0 to {}", count - 1)
        } else {
            model.classes.join(", ")
        };
        bail!("this model is conditioned on a class: give --class, one of {known}");
    }
    let asked = asked(args, |word| model::class(word, &model.classes, count))?;
    for class in &asked {
        leading.map_or(Ok(()), |leading| leading.knows(*class))?;
    }
    Ok(asked)
}

/// The words after `--class` as classes, taken in turn.
fn asked(args: &SampleArgs, class: impl Fn(&str) -> anyhow::Result<i64>) -> anyhow::Result<Vec<i64>> {
    let words = args.class.iter().map(|word| class(word.trim()));
    let asked: Vec<i64> = words.collect::<anyhow::Result<_>>().context("--class")?;
    Ok(asked.iter().copied().cycle().take(args.generate.num_images).collect())
}
