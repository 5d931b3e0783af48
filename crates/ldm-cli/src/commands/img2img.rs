//! `ldm img2img`: image and text to image.

use std::ops::Range;

use anyhow::Context;
use ldm_core::{Prompt, image};
use ldm_data::Interpolation;
use ldm_pipelines::{ConditioningKind, InitImage};
use serde_json::{Map, Value, json};

use crate::args::Img2imgArgs;
use crate::generation::{GenerationJob, Task};
use crate::images::fitted;
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Img2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.generate, "img2img", args.generate.num_images)?;
    let image = fitted(image::read(&args.image)?, args.size, Interpolation::Bicubic, &args.image)?;
    let image = image::from_rgb8(&image).unsqueeze(0);
    let init = InitImage::new(image, args.strength, None)?;
    let model = model::open_diffusion(&args.model, args.text.tokenizer.as_deref())?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Text])?;
    model.check_image_size(init.size()).with_context(|| args.image.display().to_string())?;
    job.run(&model, &args.model, &Img2imgTask { init, args }, printer)
}

struct Img2imgTask<'a> {
    init: InitImage,
    args: &'a Img2imgArgs,
}

impl Task for Img2imgTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt::text(images.map(|_| self.args.prompt.clone())))
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.text.negative(count)
    }

    fn init(&self) -> Option<&InitImage> {
        Some(&self.init)
    }

    fn heading(&self, _image: usize) -> String {
        format!("{}\n{}", self.args.prompt, self.args.text.heading())
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([
            ("prompt".to_owned(), json!(self.args.prompt)),
            ("negative_prompt".to_owned(), json!(self.args.text.negative_prompt)),
            ("image".to_owned(), json!(self.args.image)),
            ("strength".to_owned(), json!(self.args.strength)),
        ])
    }
}
