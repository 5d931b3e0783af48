//! `ldm upscale`: super-resolution by the downsampling factor of the first stage.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use ldm::{InputImages, input_fields};
use ldm_core::{Prompt, image};
use ldm_pipelines::ConditioningKind;
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::UpscaleArgs;
use crate::generation::repeated;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &UpscaleArgs, printer: Printer) -> anyhow::Result<()> {
    let inputs = InputImages::find(&args.image)?;
    let job = GenerationJob::of_inputs(&args.generate, "upscale", &inputs)?;
    let mut tasks = inputs.paths.iter().map(|path| UpscaleTask::read(path));
    // The first before the model, since opening that may take long.
    let first = Ok(tasks.next().expect("at least one image")?);
    let model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::LowResolution])?;
    let tasks = std::iter::once(first).chain(tasks).map(|task| {
        let task = task?;
        let [height, width] = [task.image.size()[2], task.image.size()[3]];
        model.unet.check_size([height, width]).with_context(|| task.path.display().to_string())?;
        Ok(Box::new(task) as Box<dyn Task>)
    });
    job.run_each(&model, &args.model, tasks, printer)
}

/// A low-resolution image of the size of the latent.
struct UpscaleTask<'a> {
    path: &'a Path,
    image: Tensor,
    fields: String,
}

impl<'a> UpscaleTask<'a> {
    fn read(path: &'a Path) -> anyhow::Result<Self> {
        let image = image::from_rgb8(&image::read(path)?).unsqueeze(0);
        Ok(Self { path, image, fields: input_fields("Init image", path)? })
    }
}

impl Task for UpscaleTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt { image: Some(repeated(&self.image, images)), ..Prompt::default() })
    }

    fn heading(&self, _image: usize) -> String {
        format!("upscale: {}\n", self.path.display())
    }

    fn parameters(&self) -> String {
        self.fields.clone()
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([("image".to_owned(), json!(self.path))])
    }
}
