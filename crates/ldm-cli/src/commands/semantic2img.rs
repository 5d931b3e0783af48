//! `ldm semantic2img`: semantic map to images.

use std::ops::Range;

use anyhow::Context;
use ldm::{input_fields, one_hot_labels, read_labels};
use ldm_core::Prompt;
use ldm_pipelines::ConditioningKind;
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::Semantic2imgArgs;
use crate::generation::repeated;
use crate::generation::{GenerationJob, Task};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &Semantic2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.generate, "semantic2img", args.generate.num_images)?;
    let labels = read_labels(&args.map, args.palette.as_deref())?;
    let model = model::open_diffusion(&args.model, None)?;
    model::check_conditioning(&model, &args.model, &[ConditioningKind::SemanticMap])?;
    let map = one_hot_labels(&labels, &model).with_context(|| args.map.display().to_string())?;
    let mut fields = input_fields("Init image", &args.map)?;
    if let Some(palette) = &args.palette {
        fields += &input_fields("Palette", palette)?;
    }
    let name = args.map.display().to_string();
    job.run(&model, &args.model, SemanticMapTask { map, name, fields }, printer)
}

/// A one-hot map.
struct SemanticMapTask {
    map: Tensor,
    name: String,
    fields: String,
}

impl Task for SemanticMapTask {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        Ok(Prompt { mask: Some(repeated(&self.map, images)), ..Prompt::default() })
    }

    fn heading(&self, _image: usize) -> String {
        format!("map: {}\n", self.name)
    }

    fn parameters(&self) -> String {
        self.fields.clone()
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        Map::from_iter([("map".to_owned(), json!(self.name))])
    }
}
