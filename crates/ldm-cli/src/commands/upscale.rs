//! `ldm upscale`: super-resolution by the downsampling factor of the first stage.

use std::ops::Range;

use anyhow::Context;
use ldm_core::{Prompt, image};
use ldm_pipelines::ConditioningKind;
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::UpscaleArgs;
use crate::generation::{GenerationJob, Task};
use crate::images::repeated;
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &UpscaleArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.generate, "upscale", args.generate.num_images)?;
    let small = image::from_rgb8(&image::read(&args.image)?).unsqueeze(0);
    let model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::LowResolution])?;
    let [height, width] = [small.size()[2], small.size()[3]];
    model.unet.check_size([height, width]).with_context(|| args.image.display().to_string())?;
    job.run(
        &model,
        &args.model,
        &UpscaleTask { image: small, name: args.image.display().to_string() },
        printer,
    )
}

/// A low-resolution image of the size of the latent.
struct UpscaleTask {
    image: Tensor,
    name: String,
}

impl Task for UpscaleTask {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt { image: Some(repeated(&self.image, images)), ..Prompt::default() })
    }

    fn heading(&self, _image: usize) -> String {
        format!("upscale: {}\n", self.name)
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([("image".to_owned(), json!(self.name))])
    }
}
