//! Decoding into 8-bit RGB, as PIL's `convert("RGB")`.

use image::{DynamicImage, RgbImage};
use ldm_checkpoint::NPY_MAGIC;

use crate::image::npy;

/// File extensions of images. The format itself is detected from the first bytes of a file.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];

/// Decodes an image; the error is a message without the name of the file.
///
/// Gray becomes three equal channels, a palette its colors, alpha is dropped (not composited), and 16 bits are reduced
/// to the upper 8. The EXIF orientation is applied. All as PIL, except that PIL clips 16-bit gray at 255, which would
/// make most such images white.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.starts_with(NPY_MAGIC) {
        return npy::decode(bytes);
    }
    check_format(bytes)?;
    if is_truncated_jpeg(bytes) {
        return Err("expected the end of a JPEG, got a truncated file".to_owned());
    }
    let image = ldm_core::image::decode_upright(bytes)
        .map_err(|error| format!("expected a readable image, got {error}"))?;
    Ok(match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => upper_bytes(&image),
        other => other.to_rgb8(),
    })
}

/// Reads width and height, upright, from the first bytes alone.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<[u32; 2], String> {
    let [width, height] = if bytes.starts_with(NPY_MAGIC) {
        npy::dimensions(bytes)?
    } else {
        check_format(bytes)?;
        ldm_core::image::dimensions(bytes)
            .map_err(|error| format!("expected a readable image, got {error}"))?
    };
    if width == 0 || height == 0 {
        return Err(format!("expected an image with pixels, got {width}x{height}"));
    }
    Ok([width, height])
}

/// Decodes the alpha channel of an image as three equal channels, opaque where it has none.
pub(crate) fn decode_alpha(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.starts_with(NPY_MAGIC) {
        return Ok(ldm_core::image::alpha_of(&npy::decode(bytes)?.into()));
    }
    check_format(bytes)?;
    let image = ldm_core::image::decode_upright(bytes)
        .map_err(|error| format!("expected a readable image, got {error}"))?;
    Ok(ldm_core::image::alpha_of(&image))
}

/// Refuses bytes that are no image of a known format.
fn check_format(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("expected an image, got an empty file".to_owned());
    }
    if image::guess_format(bytes).is_err() {
        return Err(format!(
            "expected an image, got first bytes that are none of {}",
            IMAGE_EXTENSIONS.join(", ")
        ));
    }
    Ok(())
}

fn upper_bytes(image: &DynamicImage) -> RgbImage {
    let deep = image.to_rgb16();
    let bytes = deep.as_raw().iter().map(|value| (value >> 8) as u8).collect();
    RgbImage::from_raw(deep.width(), deep.height(), bytes).expect("three bytes a pixel")
}

/// Returns true for a JPEG with truncated image data. The decoder would fill the rest with gray without an error.
fn is_truncated_jpeg(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return false;
    }
    // Skips the segments before the image data: a thumbnail among them has its own end marker.
    let mut at = 2;
    while let [0xff, marker, high, low] = *bytes.get(at..at + 4).unwrap_or(&[]) {
        match marker {
            0xda => return !bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            0xff => at += 1, // a fill byte
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    at + 4 > bytes.len()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};

    use super::*;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_image_without_pixels_is_refused() {
        // A GIF, as a fuzzer made one.
        let error = dimensions(&[&b"GIF87a"[..], &[0; 512]].concat()).unwrap_err();
        assert_eq!(error, "expected an image with pixels, got 0x0");
    }

    fn noise(side: u32) -> RgbImage {
        RgbImage::from_fn(side, side, |x, y| Rgb([(x * 37 + y * 101) as u8, (x * y) as u8, (x ^ y) as u8]))
    }

    #[track_caller]
    fn check_pixel(bytes: &[u8], expected: [u8; 3]) {
        assert_eq!(decode(bytes).unwrap().get_pixel(1, 1).0, expected);
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let png = ImageFormat::Png;
        check_pixel(&encoded(ImageBuffer::from_pixel(2, 2, Luma([77u8])), png), [77; 3]);
        check_pixel(&encoded(ImageBuffer::from_pixel(2, 2, LumaA([77u8, 0])), png), [77; 3]);
        check_pixel(&encoded(ImageBuffer::from_pixel(2, 2, Rgba([1u8, 2, 3, 0])), png), [1, 2, 3]);
        check_pixel(&encoded(ImageBuffer::from_pixel(2, 2, Rgb([0x01ffu16, 0xfe80, 3])), png), [1, 0xfe, 0]);
        check_pixel(&encoded(ImageBuffer::from_pixel(2, 2, Luma([0x80ffu16])), png), [0x80; 3]);
    }

    #[test]
    fn a_palette_becomes_its_colors() {
        // A GIF stores a palette.
        let gif = encoded(ImageBuffer::from_pixel(3, 3, Rgba([10u8, 200, 30, 255])), ImageFormat::Gif);
        check_pixel(&gif, [10, 200, 30]);
    }

    #[test]
    fn the_format_is_detected_by_content() {
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
            let bytes = encoded(noise(20), format);
            assert_eq!(decode(&bytes).unwrap(), noise(20), "{format:?}");
            assert_eq!(dimensions(&bytes).unwrap(), [20, 20], "{format:?}");
        }
    }

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        let message = decode(bytes).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn errors_name_the_defect() {
        check_refused(&[], "expected an image, got an empty file");
        check_refused(b"hello, I am text", "expected an image, got first bytes that are none of png, jpg");
        let png = encoded(noise(40), ImageFormat::Png);
        check_refused(&png[..png.len() / 2], "expected a readable image, got ");
        let jpeg = encoded(noise(40), ImageFormat::Jpeg);
        assert!(decode(&jpeg).is_ok());
        for cut in [jpeg.len() / 4, jpeg.len() / 2, jpeg.len() - 20, jpeg.len() - 1] {
            check_refused(&jpeg[..cut], "expected the end of a JPEG, got a truncated file");
        }
        assert!(decode(&[&jpeg[..], b"trailing"].concat()).is_ok());
    }
}
