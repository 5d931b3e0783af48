//! Images and masks of inpainting, read from files.

use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use ldm_core::{Error, Result, image as images};
use ldm_data::Interpolation;
use tch::{Kind, Tensor};

use crate::{InputImages, InputSize};

/// Returns the mask of an image: `mask` itself, or from the folder `mask` the image file of the same name, before the
/// extension, or of that name with `_mask` appended.
///
/// # Errors
/// [`Error::Data`] when the folder has no mask for the image.
pub fn mask_of(image: &Path, mask: &Path) -> Result<PathBuf> {
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
    find(format!("{name}_mask")).or_else(|| find(name.clone())).cloned().ok_or_else(|| {
        let image = image.display();
        Error::data(mask, format!("expected a mask for {image}, {name}_mask.png or {name}.png, got none"))
    })
}

/// Reads an image and its mask, resized and cropped alike; a mask of another size is resized to that of the image if
/// `resize_mask`.
///
/// # Shapes
/// - returns the image `[1, 3, H, W]` in `[-1, 1]`, and the mask `[1, 1, H, W]`, 1 where it is at least 50 % gray
///
/// # Errors
/// [`Error::Data`] for a mask of another size, and for one without white pixels; those of reading the files.
pub fn read_masked(
    [image_path, mask_path]: [&Path; 2],
    size: InputSize,
    resize_mask: bool,
) -> Result<(Tensor, Tensor)> {
    let image = images::read(image_path)?;
    let mut mask = images::read(mask_path)?;
    if mask.dimensions() != image.dimensions() {
        let ((width, height), (w, h)) = (image.dimensions(), mask.dimensions());
        if !resize_mask {
            let message = format!("expected {width}x{height}, as the image, got {w}x{h}; try --resize-mask");
            return Err(Error::data(mask_path, message));
        }
        mask = imageops::resize(&mask, width, height, FilterType::Nearest);
    }
    let image = size.fit(image, Interpolation::Bicubic, image_path)?;
    let mask = imageops::grayscale(&size.fit(mask, Interpolation::Nearest, mask_path)?);
    if mask.iter().all(|value| *value < 128) {
        return Err(Error::data(mask_path, "expected white pixels in the mask, got none"));
    }
    let (width, height) = mask.dimensions();
    let white = Tensor::from_slice(mask.as_raw()).view([1, 1, i64::from(height), i64::from(width)]).ge(128);
    Ok((images::from_rgb8(&image).unsqueeze(0), white.to_kind(Kind::Float)))
}
