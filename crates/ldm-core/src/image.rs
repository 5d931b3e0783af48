//! Conversion between tensors and images.

use std::borrow::Cow;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits,
    RgbImage, RgbaImage,
};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, channels, files};

/// Converts 8-bit RGB to a `[3, H, W]` tensor in `[-1, 1]`: x / 127.5 − 1.
pub fn from_rgb8(image: &RgbImage) -> Tensor {
    let (width, height) = image.dimensions();
    let bytes =
        Tensor::from_data_size(image.as_raw(), &[i64::from(height), i64::from(width), 3], Kind::Uint8);
    bytes.permute([2, 0, 1]).to_kind(Kind::Float).contiguous() / 127.5 - 1.
}

/// Converts one image in `[-1, 1]` to 8 bits, clamped and rounded to the nearest.
///
/// CompVis' scripts truncate; rounding, as in diffusers, makes a round trip exact.
///
/// # Shapes
/// - `image`: `[C, H, W]` of 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA) channels
///
/// # Panics
/// When the shape differs.
pub fn to_8bit(image: &Tensor) -> DynamicImage {
    let (channels, height, width) = image.size3().expect("[C, H, W]");
    let scaled = ((image.detach().to_device(Device::Cpu).to_kind(Kind::Float) + 1.) * 127.5).clamp(0., 255.);
    let bytes = scaled.round().to_kind(Kind::Uint8).permute([1, 2, 0]).contiguous();
    let mut raw = vec![0; (channels * height * width) as usize];
    let count = raw.len();
    bytes.copy_data(&mut raw, count);
    let (width, height) = (width as u32, height as u32);
    match channels {
        1 => GrayImage::from_raw(width, height, raw).map(Into::into),
        2 => GrayAlphaImage::from_raw(width, height, raw).map(Into::into),
        3 => RgbImage::from_raw(width, height, raw).map(Into::into),
        4 => RgbaImage::from_raw(width, height, raw).map(Into::into),
        _ => panic!("an image has 1 to 4 channels, got {channels}"),
    }
    .expect("C·H·W bytes")
}

/// Converts one image in `[-1, 1]` to 8-bit RGB, as [`to_8bit`] and [`channels::shown`].
///
/// # Shapes
/// - `image`: `[C, H, W]` of 1 to 4 channels
///
/// # Panics
/// When the shape differs.
pub fn to_rgb8(image: &Tensor) -> RgbImage {
    to_8bit(&channels::shown(&image.unsqueeze(0)).squeeze_dim(0)).into_rgb8()
}

/// Limit of the memory that a decoded image takes, in bytes; that of the crate `image`. The size that a file claims
/// must not decide it.
pub const LARGEST: u64 = 512 << 20;

/// Reads an image of any supported format as RGB, as [`decode`].
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not a complete image.
pub fn read(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    decode(&bytes).map_err(|error| Error::format(path, format!("expected a readable image: {error}")))
}

/// Decodes an image as RGB: turned upright by its EXIF orientation, and without alpha, which is dropped as in PIL's
/// `convert("RGB")`. The format is detected from the first bytes.
pub fn decode(bytes: &[u8]) -> ImageResult<RgbImage> {
    decode_upright(bytes).map(DynamicImage::into_rgb8)
}

/// Decodes an image and turns it by its EXIF orientation: PIL's `ImageOps.exif_transpose`, as in
/// `diffusers.utils.load_image`. The format is detected from the first bytes.
///
/// # Errors
/// [`image::ImageError`] when it is not a complete image, or takes more than [`LARGEST`] bytes.
pub fn decode_upright(bytes: &[u8]) -> ImageResult<DynamicImage> {
    let mut decoder = reader(bytes)?.into_decoder()?;
    let orientation = orientation_of(&mut decoder, bytes);
    let mut limits = Limits::default();
    limits.max_alloc = Some(LARGEST);
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Reads width and height of an image as [`decode`] returns it, from its first bytes.
pub fn dimensions(bytes: &[u8]) -> ImageResult<[u32; 2]> {
    let mut decoder = reader(bytes)?.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let on_its_side = matches!(
        orientation_of(&mut decoder, bytes),
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if on_its_side { [height, width] } else { [width, height] })
}

/// Reads the orientation in EXIF data, with or without its `Exif` mark; upright where there is none.
pub fn orientation(exif: &[u8]) -> Orientation {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

fn reader(bytes: &[u8]) -> ImageResult<ImageReader<Cursor<Cow<'_, [u8]>>>> {
    Ok(ImageReader::new(Cursor::new(without_profile(bytes))).with_guessed_format()?)
}

/// Removes the color profiles of a PNG, which nothing here reads: they are compressed, and may expand to as much memory
/// as the largest image.
fn without_profile(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (mut kept, mut start, mut at) = (None, 0, 8);
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        while let Some(&[a, b, c, d, ref kind @ ..]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>)
            && kind != b"IDAT"
        {
            // Length, kind and checksum are twelve bytes.
            let end = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(at + 12).min(bytes.len());
            if kind == b"iCCP" {
                kept.get_or_insert_with(Vec::new).extend_from_slice(&bytes[start..at]);
                start = end;
            }
            at = end;
        }
    }
    match kept {
        None => Cow::Borrowed(bytes),
        Some(mut kept) => {
            kept.extend_from_slice(&bytes[start..]);
            Cow::Owned(kept)
        }
    }
}

/// The orientation of an image. Damaged EXIF data is no reason to refuse one.
fn orientation_of(decoder: &mut impl ImageDecoder, bytes: &[u8]) -> Orientation {
    if image::guess_format(bytes).is_ok_and(|format| format == ImageFormat::Tiff) {
        // EXIF data is a TIFF without an image; the decoder of TIFF does not read the tag.
        return orientation(bytes);
    }
    let exif = decoder.exif_metadata().ok().flatten();
    exif.map_or(Orientation::NoTransforms, |exif| orientation(&exif))
}

/// Reads the alpha channel of an image as three equal channels, opaque where the file has none.
///
/// # Errors
/// As [`read`].
pub fn read_alpha(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let image = decode_upright(&bytes)
        .map_err(|error| Error::format(path, format!("expected a readable image: {error}")))?;
    Ok(alpha_of(&image))
}

/// The alpha channel of an image as three equal channels.
pub fn alpha_of(image: &DynamicImage) -> RgbImage {
    let rgba = image.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| image::Rgb([rgba.get_pixel(x, y).0[3]; 3]))
}

/// Reads a mask, see [`mask_of`].
///
/// # Errors
/// As [`read`].
pub fn read_mask(path: impl AsRef<Path>) -> Result<(RgbImage, bool)> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let image = decode_upright(&bytes)
        .map_err(|error| Error::format(path, format!("expected a readable image: {error}")))?;
    Ok(mask_of(image))
}

/// The pixels of a mask, white where it fills: its alpha channel where any pixel is transparent, as in AUTOMATIC1111's web
/// UI, else its color; and true if it is the alpha channel.
pub fn mask_of(image: DynamicImage) -> (RgbImage, bool) {
    let alpha = alpha_of(&image);
    let by_alpha = alpha.iter().any(|value| *value < 255);
    (if by_alpha { alpha } else { image.into_rgb8() }, by_alpha)
}

/// Arranges images in a grid of `columns` with `padding` black pixels around each, as torchvision's `make_grid`.
///
/// # Shapes
/// - `images`: `[B, C, H, W]` in `[-1, 1]`; returns `[C, H', W']`
///
/// # Panics
/// When the shape differs.
pub fn grid(images: &Tensor, columns: i64, padding: i64) -> Tensor {
    let (count, channels, height, width) = images.size4().expect("[B, C, H, W]");
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

/// Encodes an image of 8 bits as PNG with text chunks (`keyword`, `text`).
///
/// # Panics
/// When a keyword is longer than PNG's 79 characters, or the image has not 8 bits.
pub fn png(image: &DynamicImage, texts: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(match image {
        DynamicImage::ImageLuma8(_) => png::ColorType::Grayscale,
        DynamicImage::ImageLumaA8(_) => png::ColorType::GrayscaleAlpha,
        DynamicImage::ImageRgb8(_) => png::ColorType::Rgb,
        DynamicImage::ImageRgba8(_) => png::ColorType::Rgba,
        _ => panic!("an image of 8 bits"),
    });
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // iTXt, which carries UTF-8, unlike tEXt.
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).expect("a short keyword");
    }
    let mut writer = encoder.write_header().expect("a vector takes all bytes");
    writer.write_image_data(image.as_bytes()).expect("C·H·W bytes");
    writer.finish().expect("a vector takes all bytes");
    bytes
}

/// Writes one image in `[-1, 1]` as PNG, atomically.
///
/// # Shapes
/// - `image`: `[C, H, W]` of 1 to 4 channels
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub fn write_png(path: impl AsRef<Path>, image: &Tensor, texts: &[(&str, &str)]) -> Result<()> {
    files::write_bytes(path, &png(&to_8bit(image), texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_exact() {
        let image =
            RgbImage::from_fn(256, 3, |x, y| image::Rgb([x as u8, (255 - x) as u8, (x * (y + 1)) as u8]));
        assert_eq!(to_rgb8(&from_rgb8(&image)), image);
        let bytes = png(&image.clone().into(), &[("parameters", "a prompt, 图")]);
        assert_eq!(decode(&bytes).unwrap(), image);
    }

    #[test]
    fn a_color_profile_is_not_read() {
        let image = RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]));
        let bytes = png(&image.clone().into(), &[("parameters", "a prompt")]);
        assert!(matches!(without_profile(&bytes), Cow::Borrowed(same) if same == bytes));
        let header = 8 + 12 + 13;
        for profiles in [1, 3] {
            let profile = [&[0, 0, 0, 5][..], b"iCCPx\0\0??", &[0; 4]].concat().repeat(profiles);
            let whole = [&bytes[..header], &profile, &bytes[header..]].concat();
            assert_eq!(*without_profile(&whole), *bytes);
            assert_eq!(decode(&whole).unwrap(), image);
        }
        // The length is a claim.
        let cut = [&bytes[..header], b"\xff\xff\xff\xffiCCP"].concat();
        assert_eq!(*without_profile(&cut), bytes[..header]);
    }

    #[test]
    fn images_of_one_to_four_channels_are_written_as_they_are() {
        for channels in 1..=4 {
            let image =
                Tensor::arange(channels * 6, (Kind::Float, Device::Cpu)).view([channels, 2, 3]) / 12. - 1.;
            let file = image::load_from_memory(&png(&to_8bit(&image), &[])).unwrap();
            assert_eq!(i64::from(file.color().channel_count()), channels);
            assert_eq!(file, to_8bit(&image));
        }
    }

    #[test]
    fn a_mask_with_transparent_pixels_is_its_alpha_channel() {
        // White, black and white, of which the last is transparent.
        let pixels = [[255, 255, 255, 255], [0, 0, 0, 255], [255, 255, 255, 0]];
        let rgba = image::RgbaImage::from_raw(3, 1, pixels.concat()).unwrap();
        let (mask, by_alpha) = mask_of(rgba.clone().into());
        assert_eq!((mask.into_raw(), by_alpha), ([[255; 3], [255; 3], [0; 3]].concat(), true));
        let opaque = DynamicImage::from(rgba).into_rgb8();
        let (mask, by_alpha) = mask_of(image::DynamicImage::from(opaque.clone()).into_rgba8().into());
        assert_eq!((mask, by_alpha), (opaque, false));
    }

    #[test]
    fn the_alpha_channel_is_opaque_where_there_is_none() {
        let rgba = DynamicImage::from(RgbaImage::from_pixel(2, 1, image::Rgba([1, 2, 3, 9])));
        assert_eq!(alpha_of(&rgba).into_raw(), [9; 6]);
        assert_eq!(alpha_of(&rgba.to_rgb8().into()).into_raw(), [255; 6]);
    }

    /// EXIF data with nothing but an orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation, 0, 0, 0, 0, 0, 0]]
            .concat()
    }

    #[test]
    fn images_are_turned_upright() {
        // PIL 11, `ImageOps.exif_transpose`: width, and the pixels in rows.
        for (orientation, width, expected) in [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
            (9, 3, [1, 2, 3, 4, 5, 6]),
        ] {
            let mut file = Vec::new();
            let mut encoder = image::codecs::png::PngEncoder::new(&mut file);
            image::ImageEncoder::set_exif_metadata(&mut encoder, exif(orientation)).unwrap();
            let gray = image::GrayImage::from_raw(3, 2, vec![1, 2, 3, 4, 5, 6]).unwrap();
            gray.write_with_encoder(encoder).unwrap();
            let found = decode(&file).unwrap();
            assert_eq!(found.width(), width, "{orientation}");
            assert_eq!(found.pixels().map(|pixel| pixel.0[0]).collect::<Vec<_>>(), expected, "{orientation}");
            assert_eq!(dimensions(&file).unwrap(), [width, 6 / width], "{orientation}");
        }
    }

    #[test]
    fn the_claim_of_a_file_does_not_decide_the_memory() {
        let file = ldm_testing::claiming_png(200_000);
        assert!(matches!(decode(&file).unwrap_err(), image::ImageError::Limits(_)));
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
