//! `ldm img2img`: a picture drawn again, as a text says.

use std::ops::Range;

use anyhow::Context;
use ldm_core::{Prompt, image};
use ldm_data::Interpolation;
use ldm_pipelines::{InitImage, Needs};
use serde_json::{Map, Value, json};

use crate::args::Img2imgArgs;
use crate::making::{Making, Subject};
use crate::model;
use crate::pictures::fitted;
use crate::progress::Talk;

pub(crate) fn run(args: &Img2imgArgs, talk: Talk) -> anyhow::Result<()> {
    let making = Making::new(&args.generate, "img2img", args.generate.num_images)?;
    let picture = fitted(image::read(&args.image)?, args.size, Interpolation::Bicubic, &args.image)?;
    let picture = image::from_rgb8(&picture).unsqueeze(0);
    let init = InitImage::new(picture, args.strength, None)?;
    let model = model::open_diffusion(&args.model, args.text.tokenizer.as_deref())?;
    model::check_needs(&model, &args.model, &[Needs::Text])?;
    model.check_image_size(init.size()).with_context(|| args.image.display().to_string())?;
    making.run(&model, &args.model, model::guidance_scale(&model), &Redrawn { init, args }, talk)
}

struct Redrawn<'a> {
    init: InitImage,
    args: &'a Img2imgArgs,
}

impl Subject for Redrawn<'_> {
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt::text(pictures.map(|_| self.args.prompt.clone())))
    }

    fn negative(&self, count: usize) -> Option<Prompt> {
        self.args.text.negative(count)
    }

    fn init(&self) -> Option<&InitImage> {
        Some(&self.init)
    }

    fn heading(&self, _picture: usize) -> String {
        format!("{}\n{}", self.args.prompt, self.args.text.heading())
    }

    fn json(&self, _picture: usize) -> Map<String, Value> {
        Map::from_iter([
            ("prompt".to_owned(), json!(self.args.prompt)),
            ("negative_prompt".to_owned(), json!(self.args.text.negative_prompt)),
            ("image".to_owned(), json!(self.args.image)),
            ("strength".to_owned(), json!(self.args.strength)),
        ])
    }
}
