//! Inpainting and outpainting.

use std::ops::Range;

use anyhow::{Context, bail};
use ldm::Inpainting;
use ldm_core::Prompt;
use ldm_pipelines::{ConditioningKind, InitImage, LatentDiffusion};
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::{FillArgs, TextArgs};
use crate::generation::repeated;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

/// Inputs of inpainting: image, mask and condition.
pub(crate) struct Filling<'a> {
    /// `[1, 3, H, W]`
    pub(crate) image: Tensor,
    /// `[1, 1, H, W]`, 1 in the area to fill.
    pub(crate) mask: Tensor,
    /// For text-conditional models.
    pub(crate) prompt: Option<&'a str>,
    /// Denoising strength, for models that are not trained for inpainting.
    pub(crate) strength: Option<f64>,
    /// The path of the image.
    pub(crate) name: String,
    /// The line of `parameters` with the inputs.
    pub(crate) heading: String,
    /// Their fields.
    pub(crate) fields: String,
    /// The inputs in the JSON line.
    pub(crate) json: Map<String, Value>,
}

/// Inpaints, with a model trained for it or any other, and composites each result with its image.
pub(crate) fn run<'a>(
    mut fillings: impl Iterator<Item = anyhow::Result<Filling<'a>>>,
    args: &'a FillArgs,
    job: &GenerationJob,
    printer: Printer,
) -> anyhow::Result<()> {
    // The first before the model, since opening that may take long.
    let filling = fillings.next().context("expected an image, got none")??;
    let model = model::open_text(&args.model, &args.text)?;
    let name = args.model.model.display();
    let accepted = [
        ConditioningKind::Inpainting,
        ConditioningKind::TextInpainting,
        ConditioningKind::Text,
        ConditioningKind::Unconditional,
    ];
    model::check_conditioning(&model, &args.model, &accepted)?;
    let needs = ConditioningKind::of(&model.config);
    let by_text = matches!(needs, ConditioningKind::TextInpainting | ConditioningKind::Text);
    let trained = matches!(needs, ConditioningKind::Inpainting | ConditioningKind::TextInpainting);
    if !by_text && filling.prompt.is_some() {
        bail!("{name}: expected a text-conditional model for the prompt, got one conditioned on {needs}");
    }
    if !by_text && !args.text.negative_prompt.is_empty() {
        bail!(
            "{name}: expected a text-conditional model for --negative-prompt, got one conditioned on {needs}"
        );
    }
    if trained && filling.strength.is_some() {
        bail!("--strength: expected a model not trained for inpainting, got {name}");
    }
    model::warn_about_texts(&model, filling.prompt.map(str::to_owned).as_slice(), &args.text)?;
    let tasks = std::iter::once(Ok(filling)).chain(fillings).map(|filling| {
        Ok(Box::new(InpaintingTask::new(filling?, &model, by_text, trained, args)?) as Box<dyn Task>)
    });
    job.run_each(&model, &args.model, tasks, printer)
}

struct InpaintingTask<'a> {
    filling: Filling<'a>,
    inpainting: Inpainting,
    /// The start of models that are not trained for inpainting.
    init: Option<InitImage>,
    text: Option<String>,
    args: &'a FillArgs,
}

impl<'a> InpaintingTask<'a> {
    fn new(
        filling: Filling<'a>,
        model: &LatentDiffusion,
        by_text: bool,
        trained: bool,
        args: &'a FillArgs,
    ) -> anyhow::Result<Self> {
        let size = [filling.image.size()[2], filling.image.size()[3]];
        model.check_image_size(size).with_context(|| filling.name.clone())?;
        let copies = || (filling.image.shallow_clone(), filling.mask.shallow_clone());
        let init = (!trained)
            .then(|| {
                let (image, mask) = copies();
                InitImage::new(image, filling.strength.unwrap_or(1.), Some(mask))
            })
            .transpose()?;
        let (image, mask) = copies();
        let inpainting = Inpainting::new(image, mask, args.feather)?;
        let text = by_text.then(|| filling.prompt.unwrap_or_default().to_owned());
        Ok(Self { filling, inpainting, init, text, args })
    }
}

impl Task for InpaintingTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        let given = |of: &Tensor| self.init.is_none().then(|| repeated(of, images.clone()));
        Ok(Prompt {
            image: given(&self.filling.image),
            mask: given(&self.filling.mask),
            text: self.text.as_ref().map(|text| vec![text.clone(); images.len()]),
            ..Prompt::default()
        })
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.text.negative(count)
    }

    fn text(&self) -> Option<&TextArgs> {
        Some(&self.args.text)
    }

    fn init(&self) -> Option<&InitImage> {
        self.init.as_ref()
    }

    fn finish(&self, images: Tensor) -> Tensor {
        self.inpainting.composite(&images)
    }

    fn heading(&self, _image: usize) -> String {
        let prompt = self.text.as_deref().map_or(String::new(), |text| format!("{text}\n"));
        let negative = self.args.text.heading();
        format!("{prompt}{negative}{}\n", self.filling.heading)
    }

    fn parameters(&self) -> String {
        let feather = self.args.feather;
        let feather = if feather == 0 { String::new() } else { format!(", Feather: {feather}") };
        format!("{}{feather}", self.filling.fields)
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        let mut line = self.filling.json.clone();
        line.insert("prompt".into(), json!(self.text));
        line
    }
}
