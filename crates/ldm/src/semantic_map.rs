//! Semantic maps, read from files.

use std::path::Path;

use image::GrayImage;
use ldm_core::{Error, Result, image as images, memory};
use ldm_data::{read_label_map, read_palette};
use ldm_pipelines::LatentDiffusion;
use tch::{Device, Kind, Tensor};

/// Reads the label of each pixel of the image `map`: its gray level or palette index, or the label of its color in the file
/// `palette`.
///
/// # Errors
/// [`Error::Data`] for a color that the palette does not have; those of reading the files.
pub fn read_labels(map: &Path, palette: Option<&Path>) -> Result<GrayImage> {
    let Some(file) = palette else { return read_label_map(map) };
    let palette = read_palette(file)?;
    let image = images::read(map)?;
    let mut labels = GrayImage::new(image.width(), image.height());
    for (x, y, pixel) in image.enumerate_pixels() {
        let Some(label) = palette.get(&pixel.0) else {
            let file = file.display();
            let message = format!("expected a color of {file} at column {x}, row {y}, got {:?}", pixel.0);
            return Err(Error::data(map, message));
        };
        labels.get_pixel_mut(x, y).0 = [*label];
    }
    Ok(labels)
}

/// Converts labels to the one-hot map of a model.
///
/// # Shapes
/// - returns `[1, K, H, W]` f32
///
/// # Errors
/// [`Error::Invalid`] for a label that the model does not have, and for a size that it does not take, or that does not fit in
/// memory.
///
/// # Panics
/// When the model is not conditioned on a map.
pub fn one_hot_labels(labels: &GrayImage, model: &LatentDiffusion) -> Result<Tensor> {
    let count = model.config.map_classes().expect("a model that needs a map");
    if let Some((x, y, pixel)) = labels.enumerate_pixels().find(|(.., pixel)| i64::from(pixel.0[0]) >= count)
    {
        let (last, got) = (count - 1, pixel.0[0]);
        return Err(Error::invalid(format!(
            "expected a class from 0 to {last} at column {x}, row {y}, got {got}"
        )));
    }
    let size = [i64::from(labels.height()), i64::from(labels.width())];
    model.first_stage.check_image_size(size)?;
    check_one_hot(count, size)?;
    let map = Tensor::from_slice(labels.as_raw()).view([1, 1, size[0], size[1]]).to_kind(Kind::Int64);
    let zeros = Tensor::zeros([1, count, size[0], size[1]], (Kind::Float, Device::Cpu));
    Ok(zeros.scatter_value(1, &map, 1.))
}

/// Refuses a one-hot map that cannot fit in memory.
pub(crate) fn check_one_hot(labels: i64, [height, width]: [i64; 2]) -> Result<()> {
    let bytes = 4. * labels as f64 * height as f64 * width as f64;
    memory::check("map", format!("{labels} classes of {height}x{width}"), bytes)
}
