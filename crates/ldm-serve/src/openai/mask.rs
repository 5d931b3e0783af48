//! Masks by transparency.

use image::{DynamicImage, Rgb, RgbImage};
use ldm_core::image as images;

use crate::ServeError;
use crate::render::covering;

/// The opacity below which a pixel of the mask is in the area to change.
const OPAQUE: u8 = 128;

/// A PNG, white where the mask is transparent, which is the area to change; fitted to `size` as the image is.
///
/// # Errors
/// For a file that is no image, of another size than `image`, without an alpha channel, or nowhere transparent.
pub(super) fn white_where_transparent(
    bytes: &[u8],
    image: [u32; 2],
    size: Option<[u32; 2]>,
) -> Result<Vec<u8>, ServeError> {
    let mask = images::decode_upright(bytes)
        .map_err(|error| ServeError::invalid("mask", format!("expected a readable PNG: {error}")))?;
    let (width, height) = (mask.width(), mask.height());
    if [width, height] != image {
        let expected = format!("the size of the image, {}x{}", image[0], image[1]);
        return Err(ServeError::expected("mask", expected, format!("{width}x{height}")));
    }
    let area = "transparent pixels, which are the area to change";
    if !mask.color().has_alpha() {
        return Err(ServeError::expected("mask", area, "an image without an alpha channel"));
    }
    let mut white = RgbImage::from_fn(width, height, {
        let alpha = mask.into_rgba8();
        move |x, y| Rgb([if alpha.get_pixel(x, y).0[3] < OPAQUE { 255 } else { 0 }; 3])
    });
    if white.iter().all(|value| *value == 0) {
        return Err(ServeError::expected("mask", area, "none"));
    }
    if let Some([width, height]) = size {
        white = covering(white, width, height);
    }
    Ok(images::png(&DynamicImage::ImageRgb8(white), &[]))
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    #[test]
    fn transparent_pixels_are_white() {
        let alpha = |x: u32| if x < 2 { 0 } else { 255 };
        let mask = RgbaImage::from_fn(8, 4, |x, _| Rgba([9, 9, 9, alpha(x)]));
        let png = images::png(&DynamicImage::ImageRgba8(mask.clone()), &[]);
        let white = images::decode(&white_where_transparent(&png, [8, 4], None).unwrap()).unwrap();
        assert!(white.enumerate_pixels().all(|(x, _, value)| value.0 == [255 - alpha(x); 3]));
        // The middle of the image, as the image is cropped: without the transparent part.
        let fitted = images::decode(&white_where_transparent(&png, [8, 4], Some([4, 4])).unwrap()).unwrap();
        assert!(fitted.dimensions() == (4, 4) && fitted.iter().all(|value| *value < 128));
        let error = white_where_transparent(&png, [4, 4], None).unwrap_err();
        assert_eq!(error.message, "mask: expected the size of the image, 4x4, got 8x4");
        let opaque = images::png(&DynamicImage::ImageRgb8(RgbImage::new(8, 4)), &[]);
        assert!(
            white_where_transparent(&opaque, [8, 4], None).unwrap_err().message.ends_with("an alpha channel")
        );
    }
}
