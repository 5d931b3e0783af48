//! `ldm layout2img`: labeled boxes to images.

use std::ops::Range;

use ldm::{Layout, input_fields, read_layouts};
use ldm_core::Prompt;
use ldm_pipelines::ConditioningKind;
use serde_json::{Map, Value, json};

use crate::args::Layout2imgArgs;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Layout2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let layouts = read_layouts(&args.layout, args.image.as_deref())?;
    let each = args.generate.num_images;
    let job = GenerationJob::new(&args.generate, "layout2img", layouts.len() * each)?;
    let model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::Layout])?;
    let layouts = layouts
        .into_iter()
        .map(|layout| layout.by_number(&model.box_classes, &args.layout))
        .collect::<ldm_core::Result<Vec<_>>>()?;
    let fields = input_fields("Layout", &args.layout)?;
    job.run(&model, &args.model, LayoutTask { given: layouts, each, fields }, printer)
}

/// Layouts, each for several consecutive images.
struct LayoutTask {
    given: Vec<Layout<i64>>,
    each: usize,
    fields: String,
}

impl LayoutTask {
    fn of(&self, image: usize) -> &Layout<i64> {
        &self.given[image / self.each]
    }
}

impl Task for LayoutTask {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        let layouts = images.map(|image| self.of(image).boxes()).collect();
        Ok(Prompt { layout: Some(layouts), ..Prompt::default() })
    }

    fn heading(&self, image: usize) -> String {
        format!("layout: {}\n", self.of(image).name)
    }

    fn parameters(&self) -> String {
        self.fields.clone()
    }

    fn json(&self, image: usize) -> Map<String, Value> {
        Map::from_iter([("layout".to_owned(), json!(self.of(image).name))])
    }
}
