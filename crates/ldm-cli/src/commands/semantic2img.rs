//! `ldm semantic2img`: semantic map to images.

use std::ops::Range;

use anyhow::{Context, bail};
use image::GrayImage;
use ldm_core::{Prompt, image as images};
use ldm_data::{read_label_map, read_palette};
use ldm_pipelines::{ConditioningKind, LatentDiffusion};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use crate::args::Semantic2imgArgs;
use crate::generation::repeated;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Semantic2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.generate, "semantic2img", args.generate.num_images)?;
    let labels = labels(args)?;
    let model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::SemanticMap])?;
    let map = one_hot(&labels, &model).with_context(|| args.map.display().to_string())?;
    job.run(&model, &args.model, SemanticMapTask { map, name: args.map.display().to_string() }, printer)
}

/// Reads the label of each pixel.
fn labels(args: &Semantic2imgArgs) -> anyhow::Result<GrayImage> {
    let Some(file) = &args.palette else { return Ok(read_label_map(&args.map)?) };
    let palette = read_palette(file)?;
    let image = images::read(&args.map)?;
    let mut labels = GrayImage::new(image.width(), image.height());
    for (x, y, pixel) in image.enumerate_pixels() {
        let Some(label) = palette.get(&pixel.0) else {
            bail!(
                "{}: expected a color of {} at column {x}, row {y}, got {:?}",
                args.map.display(),
                file.display(),
                pixel.0
            )
        };
        labels.get_pixel_mut(x, y).0 = [*label];
    }
    Ok(labels)
}

/// Converts labels to a one-hot map, `[1, K, H, W]`.
pub(crate) fn one_hot(labels: &GrayImage, model: &LatentDiffusion) -> anyhow::Result<Tensor> {
    let count = model.config.map_classes().expect("a model that needs a map");
    if let Some((x, y, pixel)) = labels.enumerate_pixels().find(|(.., pixel)| i64::from(pixel.0[0]) >= count)
    {
        bail!("expected a class from 0 to {} at column {x}, row {y}, got {}", count - 1, pixel.0[0]);
    }
    let size = [i64::from(labels.height()), i64::from(labels.width())];
    model.first_stage.check_image_size(size)?;
    let map = Tensor::from_slice(labels.as_raw()).view([1, 1, size[0], size[1]]).to_kind(Kind::Int64);
    let zeros = Tensor::zeros([1, count, size[0], size[1]], (Kind::Float, Device::Cpu));
    Ok(zeros.scatter_value(1, &map, 1.))
}

/// A one-hot map.
struct SemanticMapTask {
    map: Tensor,
    name: String,
}

impl Task for SemanticMapTask {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt { mask: Some(repeated(&self.map, images)), ..Prompt::default() })
    }

    fn heading(&self, _image: usize) -> String {
        format!("map: {}\n", self.name)
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([("map".to_owned(), json!(self.name))])
    }
}
