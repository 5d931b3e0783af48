//! Conversion between tensors and images.

use std::path::Path;

use image::{DynamicImage, RgbImage};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, files};

/// Converts 8-bit RGB to a `[3, H, W]` tensor in `[-1, 1]`: x / 127.5 − 1.
pub fn from_rgb8(image: &RgbImage) -> Tensor {
    let (width, height) = image.dimensions();
    let bytes =
        Tensor::from_data_size(image.as_raw(), &[i64::from(height), i64::from(width), 3], Kind::Uint8);
    bytes.permute([2, 0, 1]).to_kind(Kind::Float).contiguous() / 127.5 - 1.
}

/// Converts one image in `[-1, 1]` to 8-bit RGB, clamped and rounded to the nearest.
///
/// CompVis' scripts truncate; rounding, as in diffusers, makes a round trip exact.
///
/// # Shapes
/// - `image`: `[3, H, W]`
///
/// # Panics
/// When the shape differs.
pub fn to_rgb8(image: &Tensor) -> RgbImage {
    let (channels, height, width) = image.size3().expect("[3, H, W]");
    assert_eq!(channels, 3, "[3, H, W]");
    let scaled = ((image.detach().to_device(Device::Cpu).to_kind(Kind::Float) + 1.) * 127.5).clamp(0., 255.);
    let bytes = scaled.round().to_kind(Kind::Uint8).permute([1, 2, 0]).contiguous();
    let mut raw = vec![0; (3 * height * width) as usize];
    let count = raw.len();
    bytes.copy_data(&mut raw, count);
    RgbImage::from_raw(width as u32, height as u32, raw).expect("3·H·W bytes")
}

/// Reads an image of any supported format as RGB; alpha is dropped and EXIF orientation ignored, as in PIL's
/// `convert("RGB")`.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not a complete image.
pub fn read(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    decode(&bytes).map_err(|error| Error::format(path, format!("expected a readable image: {error}")))
}

/// [`read`] from bytes; the format is detected from their head.
pub fn decode(bytes: &[u8]) -> std::result::Result<RgbImage, image::ImageError> {
    image::load_from_memory(bytes).map(DynamicImage::into_rgb8)
}

/// Arranges images in a grid of `columns` with `padding` black pixels around each, as torchvision's `make_grid`.
///
/// # Shapes
/// - `images`: `[B, 3, H, W]` in `[-1, 1]`; returns `[3, H', W']`
///
/// # Panics
/// When the shape differs.
pub fn grid(images: &Tensor, columns: i64, padding: i64) -> Tensor {
    let (count, channels, height, width) = images.size4().expect("[B, 3, H, W]");
    let columns = columns.clamp(1, count.max(1));
    let rows = (count + columns - 1) / columns;
    let size = [channels, rows * (height + padding) + padding, columns * (width + padding) + padding];
    let canvas = Tensor::full(size, -1., (Kind::Float, images.device()));
    for index in 0..count {
        let top = padding + index / columns * (height + padding);
        let left = padding + index % columns * (width + padding);
        canvas.narrow(1, top, height).narrow(2, left, width).copy_(&images.get(index));
    }
    canvas
}

/// Encodes an image as PNG with text chunks (`keyword`, `text`).
///
/// # Panics
/// When a keyword is longer than PNG's 79 characters.
pub fn png(image: &RgbImage, texts: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = image.dimensions();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // iTXt, which carries UTF-8, unlike tEXt.
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).expect("a short keyword");
    }
    let mut writer = encoder.write_header().expect("a vector takes all bytes");
    writer.write_image_data(image.as_raw()).expect("3·H·W bytes");
    writer.finish().expect("a vector takes all bytes");
    bytes
}

/// Writes one image in `[-1, 1]` as PNG, atomically.
///
/// # Shapes
/// - `image`: `[3, H, W]`
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub fn write_png(path: impl AsRef<Path>, image: &Tensor, texts: &[(&str, &str)]) -> Result<()> {
    files::write_bytes(path, &png(&to_rgb8(image), texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_exact() {
        let image =
            RgbImage::from_fn(256, 3, |x, y| image::Rgb([x as u8, (255 - x) as u8, (x * (y + 1)) as u8]));
        assert_eq!(to_rgb8(&from_rgb8(&image)), image);
        assert_eq!(decode(&png(&image, &[("parameters", "a prompt, 图")])).unwrap(), image);
    }

    #[test]
    fn a_grid_has_rows_of_images() {
        let images =
            Tensor::arange(3, (Kind::Float, Device::Cpu)).view([3, 1, 1, 1]).expand([3, 3, 4, 5], false);
        let grid = grid(&images, 2, 2);
        assert_eq!(grid.size(), [3, 2 * 6 + 2, 2 * 7 + 2]);
        let at = |y, x| grid.double_value(&[0, y, x]);
        assert_eq!([at(2, 2), at(2, 9), at(8, 2), at(8, 9), at(0, 0)], [0., 1., 2., -1., -1.]);
    }
}
