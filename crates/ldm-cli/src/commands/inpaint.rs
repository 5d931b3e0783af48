//! `ldm inpaint`: fills the masked area of an image; the rest is unchanged.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use image::imageops::{self, FilterType};
use ldm::InputImages;
use ldm_core::image as images;
use ldm_data::Interpolation;
use serde_json::{Map, json};
use tch::{Kind, Tensor};

use super::filling::{self, Filling};
use crate::args::InpaintArgs;
use crate::generation::GenerationJob;
use crate::progress::Printer;

pub(crate) fn run(args: &InpaintArgs, printer: Printer) -> anyhow::Result<()> {
    let mut inputs = InputImages::find(&args.image)?;
    // CompVis' scripts have images and masks in one folder.
    inputs.retain(|path| !path.file_stem().unwrap_or_default().to_string_lossy().ends_with("_mask"));
    let job = GenerationJob::of_inputs(&args.fill.generate, "inpaint", &inputs)?;
    let fillings = inputs.paths.iter().map(|path| {
        let mask_path = mask_of(path, &args.mask)?;
        let (image, mask) = read(args, path, &mask_path)?;
        Ok(Filling {
            image,
            mask,
            prompt: args.prompt.as_deref(),
            strength: args.strength,
            name: path.display().to_string(),
            heading: format!("inpaint: {}, {}", path.display(), mask_path.display()),
            json: Map::from_iter([("image".to_owned(), json!(path)), ("mask".to_owned(), json!(mask_path))]),
        })
    });
    filling::run(fillings, &args.fill, &job, printer)
}

/// Returns the mask of an image: `mask` itself, or from the folder `mask` the image file of the same name, before the
/// extension, or of that name with `_mask` appended.
fn mask_of(image: &Path, mask: &Path) -> anyhow::Result<PathBuf> {
    if !mask.is_dir() {
        return Ok(mask.to_path_buf());
    }
    let name = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let masks = InputImages::find(mask)?.paths;
    let find = |name: String| {
        masks
            .iter()
            .find(|path| path.file_stem().unwrap_or_default().to_string_lossy() == name && *path != image)
    };
    find(format!("{name}_mask")).or_else(|| find(name.clone())).cloned().with_context(|| {
        format!(
            "{}: expected a mask for {}, {name}_mask.png or {name}.png, got none",
            mask.display(),
            image.display()
        )
    })
}

/// Returns the image `[1, 3, H, W]` and the mask `[1, 1, H, W]`, 0 or 1.
fn read(args: &InpaintArgs, image_path: &Path, mask_path: &Path) -> anyhow::Result<(Tensor, Tensor)> {
    let image = images::read(image_path)?;
    let mut mask = images::read(mask_path)?;
    if mask.dimensions() != image.dimensions() {
        let ((width, height), (w, h)) = (image.dimensions(), mask.dimensions());
        if !args.resize_mask {
            bail!(
                "{}: expected {width}x{height}, as the image, got {w}x{h}; try --resize-mask",
                mask_path.display()
            );
        }
        mask = imageops::resize(&mask, width, height, FilterType::Nearest);
    }
    let image = args.size.size().fit(image, Interpolation::Bicubic, image_path)?;
    let mask = imageops::grayscale(&args.size.size().fit(mask, Interpolation::Nearest, mask_path)?);
    if mask.iter().all(|value| *value < 128) {
        bail!("{}: expected white pixels in the mask, got none", mask_path.display());
    }
    let (width, height) = mask.dimensions();
    let white = Tensor::from_slice(mask.as_raw()).view([1, 1, i64::from(height), i64::from(width)]).ge(128);
    Ok((images::from_rgb8(&image).unsqueeze(0), white.to_kind(Kind::Float)))
}
