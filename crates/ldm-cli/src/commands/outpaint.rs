//! `ldm outpaint`: extends an image past its borders.

use anyhow::{Context, bail};
use ldm::{InputImages, extended, input_fields};
use ldm_core::image as images;
use ldm_data::Interpolation;
use serde_json::{Map, json};

use super::filling::{self, Filling};
use crate::args::OutpaintArgs;
use crate::generation::GenerationJob;
use crate::progress::Printer;

pub(crate) fn run(args: &OutpaintArgs, printer: Printer) -> anyhow::Result<()> {
    let inputs = InputImages::find(&args.image)?;
    let job = GenerationJob::of_inputs(&args.fill.generate, "outpaint", &inputs)?;
    let sides = [args.left, args.right, args.top, args.bottom].map(i64::from);
    if sides == [0; 4] {
        bail!("expected --left, --right, --top or --bottom, got none");
    }
    let added = json!({"left": args.left, "right": args.right, "top": args.top, "bottom": args.bottom});
    let fillings = inputs.paths.iter().map(|path| {
        let image = args.size.size().fit(images::read(path)?, Interpolation::Bicubic, path)?;
        let [image, mask] = extended(&image, sides).with_context(|| path.display().to_string())?;
        Ok(Filling {
            image,
            mask,
            prompt: args.prompt.as_deref(),
            strength: None,
            name: path.display().to_string(),
            heading: format!(
                "outpaint: {}, left {}, right {}, top {}, bottom {}",
                path.display(),
                args.left,
                args.right,
                args.top,
                args.bottom
            ),
            fields: format!("{}{}", input_fields("Init image", path)?, args.size.size()),
            json: Map::from_iter([("image".to_owned(), json!(path)), ("added".to_owned(), added.clone())]),
        })
    });
    filling::run(fillings, &args.fill, &job, printer)
}
