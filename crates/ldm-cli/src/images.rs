//! Input images of the command line.

use std::ops::Range;
use std::path::Path;

use ::image::RgbImage;
use anyhow::{Context, bail};
use ldm_autoencoder::FirstStage;
use ldm_core::image;
use ldm_data::{Crop, Interpolation, Resize, Rng, Transform, TransformConfig};
use tch::Tensor;

use crate::args::SizeArgs;

/// Reads one image as `[1, 3, H, W]` in `[-1, 1]`, resized and cropped if requested.
///
/// # Errors
/// When the downsampling factor of the first stage does not divide its size.
pub(crate) fn read(path: &Path, args: SizeArgs, first_stage: &dyn FirstStage) -> anyhow::Result<Tensor> {
    let image = fitted(image::read(path)?, args, Interpolation::Bicubic, path)?;
    let (width, height) = image.dimensions();
    if let Err(error) = first_stage.check_image_size([i64::from(height), i64::from(width)]) {
        bail!("{}: {error}, with --resize N or --center-crop N", path.display());
    }
    Ok(image::from_rgb8(&image).unsqueeze(0))
}

/// Resizes and crops the image of `path` if requested.
pub(crate) fn fitted(
    mut image: RgbImage,
    args: SizeArgs,
    interpolation: Interpolation,
    path: &Path,
) -> anyhow::Result<RgbImage> {
    for (size, resize, crop) in
        [(args.resize, Resize::SmallestSide, Crop::None), (args.center_crop, Resize::None, Crop::Center)]
    {
        if size.is_some() {
            let config = TransformConfig { size, resize, crop, interpolation, ..TransformConfig::default() };
            image = Transform::new(config)?
                .apply(image, &mut Rng::of(&[]))
                .map_err(anyhow::Error::msg)
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(image)
}

/// Repeats an image or map, `[1, C, H, W]`, for each of `images`.
pub(crate) fn repeated(tensor: &Tensor, images: Range<usize>) -> Tensor {
    tensor.expand([images.len() as i64, -1, -1, -1], false)
}
