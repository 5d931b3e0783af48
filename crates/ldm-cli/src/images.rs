//! Input images of the command line.

use std::ops::Range;
use std::path::Path;

use ::image::{DynamicImage, RgbImage};
use anyhow::{Context, bail};
use ldm_autoencoder::ImageKind;
use ldm_core::{channels, image};
use ldm_data::{Crop, Interpolation, Resize, Rng, Transform, TransformConfig, read_label_map};
use ldm_pipelines::Model;
use tch::{Device, Kind, Tensor};

use crate::args::SizeArgs;

/// Reads one image as the first stage of `model` takes it, `[1, C, H, W]`, resized and cropped if requested: pixels in
/// `[-1, 1]`, or a one-hot label map.
///
/// # Errors
/// When the downsampling factor of the first stage does not divide its size, or the first stage takes no images.
pub(crate) fn read(path: &Path, args: SizeArgs, model: &Model) -> anyhow::Result<Tensor> {
    let pixels = |image: RgbImage| -> anyhow::Result<Tensor> {
        let image = fitted(image, args, Interpolation::Bicubic, path)?;
        Ok(image::from_rgb8(&image).unsqueeze(0))
    };
    let tensor = match model.input() {
        ImageKind::LabelMap(labels) => label_map(path, args, labels)?,
        kind @ ImageKind::Pixels(_) => {
            let count = kind.pixels()?;
            let mut image = pixels(image::read(path)?)?;
            if channels::has_alpha(count) {
                let alpha = pixels(image::read_alpha(path)?)?;
                image = Tensor::cat(&[image, alpha.narrow(1, 0, 1)], 1);
            }
            channels::convert(&image, count)
        }
    };
    let size = tensor.size();
    if let Err(error) = model.first_stage().check_image_size([size[2], size[3]]) {
        bail!("{}: {error}, with --resize N or --center-crop N", path.display());
    }
    Ok(tensor)
}

/// Reads a label map as one-hot, `[1, labels, H, W]`, resized to the nearest pixel.
fn label_map(path: &Path, args: SizeArgs, labels: i64) -> anyhow::Result<Tensor> {
    let map = DynamicImage::from(read_label_map(path)?).into_rgb8();
    let map = fitted(map, args, Interpolation::Nearest, path)?;
    let (width, height) = map.dimensions();
    let values: Vec<i64> = map.pixels().map(|pixel| i64::from(pixel.0[0])).collect();
    if let Some(wrong) = values.iter().find(|value| **value >= labels) {
        bail!("{}: expected labels from 0 to {}, got {wrong}", path.display(), labels - 1);
    }
    let size = [1, 1, i64::from(height), i64::from(width)];
    let zeros = Tensor::zeros([1, labels, size[2], size[3]], (Kind::Float, Device::Cpu));
    Ok(zeros.scatter_value(1, &Tensor::from_slice(&values).view(size), 1.))
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
