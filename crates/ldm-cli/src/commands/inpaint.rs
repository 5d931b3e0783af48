//! `ldm inpaint`: fills the masked area of an image; the rest is unchanged.

use anyhow::bail;
use image::imageops::{self, FilterType};
use ldm_core::image as images;
use ldm_data::Interpolation;
use serde_json::{Map, json};
use tch::{Kind, Tensor};

use super::filling::{self, Filling};
use crate::args::InpaintArgs;
use crate::generation::GenerationJob;
use crate::images::fitted;
use crate::progress::Printer;

pub(crate) fn run(args: &InpaintArgs, printer: Printer) -> anyhow::Result<()> {
    let job = GenerationJob::new(&args.fill.generate, "inpaint", args.fill.generate.num_images)?;
    let (image, mask) = read(args)?;
    let filling = Filling {
        image,
        mask,
        prompt: args.prompt.as_deref(),
        strength: args.strength,
        name: args.image.display().to_string(),
        heading: format!("inpaint: {}, {}", args.image.display(), args.mask.display()),
        json: Map::from_iter([
            ("image".to_owned(), json!(args.image)),
            ("mask".to_owned(), json!(args.mask)),
        ]),
    };
    filling::run(filling, &args.fill, &job, printer)
}

/// Returns the image `[1, 3, H, W]` and the mask `[1, 1, H, W]`, 0 or 1.
fn read(args: &InpaintArgs) -> anyhow::Result<(Tensor, Tensor)> {
    let image = images::read(&args.image)?;
    let mut mask = images::read(&args.mask)?;
    if mask.dimensions() != image.dimensions() {
        let ((width, height), (w, h)) = (image.dimensions(), mask.dimensions());
        if !args.resize_mask {
            bail!(
                "{}: expected {width}x{height}, as the image, got {w}x{h}; try --resize-mask",
                args.mask.display()
            );
        }
        mask = imageops::resize(&mask, width, height, FilterType::Nearest);
    }
    let image = fitted(image, args.size, Interpolation::Bicubic, &args.image)?;
    let mask = imageops::grayscale(&fitted(mask, args.size, Interpolation::Nearest, &args.mask)?);
    if mask.iter().all(|value| *value < 128) {
        bail!("{}: expected white pixels in the mask, got none", args.mask.display());
    }
    let (width, height) = mask.dimensions();
    let white = Tensor::from_slice(mask.as_raw()).view([1, 1, i64::from(height), i64::from(width)]).ge(128);
    Ok((images::from_rgb8(&image).unsqueeze(0), white.to_kind(Kind::Float)))
}
