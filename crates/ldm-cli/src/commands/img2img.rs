//! `ldm img2img`: image and text to image.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use ldm::{InputImages, input_fields};
use ldm_core::{Prompt, image};
use ldm_data::Interpolation;
use ldm_pipelines::{ConditioningKind, InitImage};
use serde_json::{Map, Value, json};

use crate::args::{Img2imgArgs, TextArgs};
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Img2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let inputs = InputImages::find(&args.image)?;
    let job = GenerationJob::of_inputs(&args.generate, "img2img", &inputs)?;
    let mut tasks = inputs.paths.iter().map(|path| Img2imgTask::read(args, path));
    // The first before the model, since opening that may take long.
    let first = Ok(tasks.next().expect("at least one image")?);
    let model = model::open_text(&args.model, &args.text)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Text])?;
    model::warn_about_texts(&model, std::slice::from_ref(&args.prompt), &args.text)?;
    let tasks = std::iter::once(first).chain(tasks).map(|task| {
        let task = task?;
        model.check_image_size(task.init.size()).with_context(|| task.path.display().to_string())?;
        Ok(Box::new(task) as Box<dyn Task>)
    });
    job.run_each(&model, &args.model, tasks, printer)
}

struct Img2imgTask<'a> {
    path: &'a Path,
    init: InitImage,
    /// The image and its size in `parameters`.
    fields: String,
    args: &'a Img2imgArgs,
}

impl<'a> Img2imgTask<'a> {
    fn read(args: &'a Img2imgArgs, path: &'a Path) -> anyhow::Result<Self> {
        let size = args.size.size();
        let image = size.fit(image::read(path)?, Interpolation::Bicubic, path)?;
        let image = image::from_rgb8(&image).unsqueeze(0);
        let fields = format!("{}{size}", input_fields("Init image", path)?);
        Ok(Self { path, init: InitImage::new(image, args.strength, None)?, fields, args })
    }
}

impl Task for Img2imgTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt::text(images.map(|_| self.args.prompt.clone())))
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.text.negative(count)
    }

    fn text(&self) -> Option<&TextArgs> {
        Some(&self.args.text)
    }

    fn init(&self) -> Option<&InitImage> {
        Some(&self.init)
    }

    fn heading(&self, _image: usize) -> String {
        format!("{}\n{}", self.args.prompt, self.args.text.heading())
    }

    fn parameters(&self) -> String {
        self.fields.clone()
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([
            ("prompt".to_owned(), json!(self.args.prompt)),
            ("negative_prompt".to_owned(), json!(self.args.text.negative_prompt)),
            ("image".to_owned(), json!(self.path)),
            ("strength".to_owned(), json!(self.args.strength)),
        ])
    }
}
