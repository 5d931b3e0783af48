//! `ldm knn2img`: a text or an image and its neighbors in a database to images.

use std::ops::Range;

use anyhow::Context;
use ldm::read_image;
use ldm_core::Prompt;
use ldm_pipelines::ConditioningKind;
use ldm_study::retrieval::NamedNeighbor;
use serde_json::{Map, Value, json};
use tch::Tensor;

use crate::args::Knn2imgArgs;
use crate::commands::retrieve::retrieve;
use crate::generation::{GenerationJob, Task, repeated};
use crate::model;
use crate::progress::Printer;
use crate::reporter::CliReporter;

pub(crate) fn run(args: &Knn2imgArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.generate, "knn2img", args.generate.num_images)?;
    let model = model::open_diffusion(&args.model, None)?;
    let accepted = [ConditioningKind::Embedding, ConditioningKind::ClipImage];
    model::check_conditioning(&model, &args.model, &accepted)?;
    let mut task = KnnTask { image: None, context: None, neighbors: Vec::new(), args };
    if ConditioningKind::of(&model.config) == ConditioningKind::ClipImage {
        let path = args.query.image.as_ref().context("--image: expected an image, got none")?;
        task.image = Some(read_image(path)?); // through the model's own CLIP
    } else {
        let (index, reporter) = (args.index.as_deref(), CliReporter::new(printer));
        let (context, neighbors) = retrieve(&args.query, &args.model.device, index, &reporter)?;
        (task.context, task.neighbors) = (Some(context), neighbors);
    }
    job.run(&model, &args.model, task, printer)
}

/// A query, as a model takes it, and its neighbors.
struct KnnTask<'a> {
    /// `[1, 3, H, W]`
    image: Option<Tensor>,
    /// `[1, 1 + k, D]`
    context: Option<Tensor>,
    neighbors: Vec<NamedNeighbor>,
    args: &'a Knn2imgArgs,
}

impl Task for KnnTask<'_> {
    fn prompt(&self, images: Range<usize>) -> anyhow::Result<Prompt> {
        let each = |one: &Tensor| repeated(one, images.clone());
        let (image, embedding) = (self.image.as_ref().map(each), self.context.as_ref().map(each));
        Ok(Prompt { image, embedding, ..Prompt::default() })
    }

    fn heading(&self, _image: usize) -> String {
        let query = &self.args.query;
        let image = query.image.as_ref().map(|path| path.display().to_string());
        format!("knn2img: {}\n", query.prompt.clone().or(image).unwrap_or_default())
    }

    fn parameters(&self) -> String {
        match self.neighbors.len() {
            0 => String::new(),
            k => format!(", Neighbors: {k}"),
        }
    }

    fn json(&self, _image: usize) -> Map<String, Value> {
        let query = &self.args.query;
        Map::from_iter([
            ("prompt".to_owned(), json!(query.prompt)),
            ("image".to_owned(), json!(query.image)),
            ("neighbors".to_owned(), json!(self.neighbors)),
        ])
    }
}
