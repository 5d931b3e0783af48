//! `ldm inpaint`: fills the masked area of an image; the rest is unchanged.

use ldm::{InputImages, MaskFile, input_fields};
use serde_json::{Map, json};

use super::filling::{self, Filling};
use crate::args::InpaintArgs;
use crate::generation::GenerationJob;
use crate::progress::Printer;

pub(crate) fn run(args: &InpaintArgs, printer: Printer) -> anyhow::Result<()> {
    let mut inputs = InputImages::find(&args.image)?;
    // CompVis' scripts have images and masks in one folder.
    inputs.retain(|path| !path.file_stem().unwrap_or_default().to_string_lossy().ends_with("_mask"));
    let job = GenerationJob::of_inputs(&args.fill.generate, "inpaint", &inputs)?;
    let resized = if args.resize_mask { ", Resize mask: true" } else { "" };
    let fillings = inputs.paths.iter().map(|path| {
        let mask_path = MaskFile::find(path, &args.mask)?;
        let (image, mask, by_alpha) =
            MaskFile::read_with_image(path, &mask_path, args.size.size(), args.resize_mask)?;
        if by_alpha {
            let name = mask_path.display();
            Printer::warn(&format!("{name}: the mask is the alpha channel: what is opaque is filled"));
        }
        Ok(Filling {
            image,
            mask,
            prompt: args.prompt.as_deref(),
            strength: args.strength,
            name: path.display().to_string(),
            heading: format!("inpaint: {}, {}", path.display(), mask_path.display()),
            fields: format!(
                "{}{}{}{resized}",
                input_fields("Init image", path)?,
                input_fields("Mask", &mask_path)?,
                args.size.size()
            ),
            json: Map::from_iter([("image".to_owned(), json!(path)), ("mask".to_owned(), json!(mask_path))]),
        })
    });
    filling::run(fillings, &args.fill, &job, printer)
}
