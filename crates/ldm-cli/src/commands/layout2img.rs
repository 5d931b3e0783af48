//! `ldm layout2img`: pictures of labelled boxes.

use std::ops::Range;

use ldm_core::Prompt;
use ldm_pipelines::Needs;
use serde_json::{Map, Value, json};

use crate::args::Layout2imgArgs;
use crate::layout_file::{self, Layout};
use crate::making::{Making, Subject};
use crate::model;
use crate::progress::Talk;

pub(crate) fn run(args: &Layout2imgArgs, talk: Talk) -> anyhow::Result<()> {
    let layouts = layout_file::read(&args.layout, args.image.as_deref())?;
    let each = args.generate.num_images;
    let making = Making::new(&args.generate, "layout2img", layouts.len() * each)?;
    let model = model::open_diffusion(&args.model, None)?;
    model::check_needs(&model, &args.model, &[Needs::Layout])?;
    let layouts = layouts
        .into_iter()
        .map(|layout| layout.by_number(&model.box_classes, &args.layout))
        .collect::<anyhow::Result<Vec<_>>>()?;
    making.run(&model, &args.model, 1., &Layouts { given: layouts, each }, talk)
}

/// Layouts, each for several pictures in a row.
struct Layouts {
    given: Vec<Layout<i64>>,
    each: usize,
}

impl Layouts {
    fn of(&self, picture: usize) -> &Layout<i64> {
        &self.given[picture / self.each]
    }
}

impl Subject for Layouts {
    fn prompt(&self, pictures: Range<usize>) -> anyhow::Result<Prompt> {
        let layouts = pictures.map(|picture| self.of(picture).boxes()).collect();
        Ok(Prompt { layout: Some(layouts), ..Prompt::default() })
    }

    fn heading(&self, picture: usize) -> String {
        format!("layout: {}\n", self.of(picture).name)
    }

    fn json(&self, picture: usize) -> Map<String, Value> {
        Map::from_iter([("layout".to_owned(), json!(self.of(picture).name))])
    }
}
