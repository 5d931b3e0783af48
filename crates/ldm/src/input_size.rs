//! Sizes of input images.

use std::fmt;
use std::path::Path;

use image::{DynamicImage, RgbImage};
use ldm_autoencoder::ImageKind;
use ldm_core::{Error, Result, channels};
use ldm_data::{Crop, Interpolation, Resize, Rng, Transform, TransformConfig, read_label_map};
use ldm_pipelines::Model;
use tch::{Device, Kind, Tensor};

use crate::semantic_map::check_one_hot;

/// Resizing and cropping of input images; [`Display`](fmt::Display) writes the fields of `parameters`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    /// Length of the smallest side in pixels, first.
    pub resize: Option<u32>,
    /// Side in pixels of the central square, then.
    pub center_crop: Option<u32>,
}

impl InputSize {
    /// Reads one image as the first stage of `model` takes it, `[1, C, H, W]`: pixels in `[-1, 1]`, or a one-hot label
    /// map, resized to the nearest pixel.
    ///
    /// # Errors
    /// As reading of images; [`Error::Format`] when the downsampling factor of the first stage does not divide its size,
    /// the first stage takes no images, or a label is none of its own.
    pub fn read(self, path: &Path, model: &Model) -> Result<Tensor> {
        let pixels = |image: RgbImage| {
            let image = self.fit(image, Interpolation::Bicubic, path)?;
            Ok::<_, Error>(ldm_core::image::from_rgb8(&image).unsqueeze(0))
        };
        let tensor = match model.input() {
            ImageKind::LabelMap(labels) => self.label_map(path, labels)?,
            kind @ ImageKind::Pixels(_) => {
                let count = kind.pixels()?;
                let mut image = pixels(ldm_core::image::read(path)?)?;
                if channels::has_alpha(count) {
                    let alpha = pixels(ldm_core::image::read_alpha(path)?)?;
                    image = Tensor::cat(&[image, alpha.narrow(1, 0, 1)], 1);
                }
                channels::convert(&image, count)
            }
        };
        let size = tensor.size();
        if let Err(error) = model.first_stage().check_image_size([size[2], size[3]]) {
            return Err(Error::format(path, format!("{error}, with --resize N or --center-crop N")));
        }
        Ok(tensor)
    }

    fn label_map(self, path: &Path, labels: i64) -> Result<Tensor> {
        let map = DynamicImage::from(read_label_map(path)?).into_rgb8();
        let map = self.fit(map, Interpolation::Nearest, path)?;
        let (width, height) = map.dimensions();
        check_one_hot(labels, [height.into(), width.into()])
            .map_err(|error| Error::format(path, error.to_string()))?;
        let values: Vec<i64> = map.pixels().map(|pixel| i64::from(pixel.0[0])).collect();
        if let Some(wrong) = values.iter().find(|value| **value >= labels) {
            return Err(Error::format(
                path,
                format!("expected labels from 0 to {}, got {wrong}", labels - 1),
            ));
        }
        let size = [1, 1, i64::from(height), i64::from(width)];
        let zeros = Tensor::zeros([1, labels, size[2], size[3]], (Kind::Float, Device::Cpu));
        Ok(zeros.scatter_value(1, &Tensor::from_slice(&values).view(size), 1.))
    }

    /// Resizes and crops the image of `path` if requested.
    ///
    /// # Errors
    /// [`Error::Format`] for an image that is smaller than the crop.
    pub fn fit(self, mut image: RgbImage, interpolation: Interpolation, path: &Path) -> Result<RgbImage> {
        let Self { resize, center_crop } = self;
        for (size, resize, crop) in
            [(resize, Resize::SmallestSide, Crop::None), (center_crop, Resize::None, Crop::Center)]
        {
            if size.is_some() {
                let config =
                    TransformConfig { size, resize, crop, interpolation, ..TransformConfig::default() };
                let fitted = Transform::new(config)?.apply(image, &mut Rng::of(&[]));
                image = fitted.map_err(|message| Error::format(path, message))?;
            }
        }
        Ok(image)
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, side) in [("Resize", self.resize), ("Center crop", self.center_crop)] {
            if let Some(side) = side {
                write!(f, ", {name}: {side}")?;
            }
        }
        Ok(())
    }
}
