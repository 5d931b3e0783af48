//! Mask files of inpainting.

use std::path::Path;

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use ldm::MaskFile;

/// The filled area, row by row.
fn area(path: &Path) -> Result<(Vec<f32>, bool), String> {
    let mask = MaskFile::read(path, (4, 2), false).map_err(|error| error.to_string())?;
    let area = mask.area().map_err(|error| error.to_string())?;
    assert_eq!(area.size(), [1, 1, 2, 4]);
    Ok((Vec::try_from(area.view([-1])).unwrap(), mask.by_alpha))
}

#[test]
fn white_or_opaque_pixels_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let left = [1., 1., 0., 0., 1., 1., 0., 0.].to_vec();
    let gray = |x| Rgb([if x < 2 { 128_u8 } else { 127 }; 3]);
    RgbImage::from_fn(4, 2, |x, _| gray(x)).save(path("gray.png")).unwrap();
    assert_eq!(area(&path("gray.png")), Ok((left.clone(), false)));
    // White strokes on a transparent white ground, as drawing programs write them: the color alone would fill it all.
    let pixel = |x| Rgba([255, 255, 255, if x < 2 { 255 } else { 0 }]);
    RgbaImage::from_fn(4, 2, |x, _| pixel(x)).save(path("alpha.png")).unwrap();
    assert_eq!(area(&path("alpha.png")), Ok((left.clone(), true)));
    // An opaque alpha channel says nothing.
    let white = |x| if x < 2 { 255 } else { 0 };
    let opaque = RgbaImage::from_fn(4, 2, |x, _| Rgba([white(x), white(x), white(x), 255]));
    opaque.save(path("opaque.png")).unwrap();
    assert_eq!(area(&path("opaque.png")), Ok((left, false)));
    RgbaImage::new(4, 2).save(path("empty.png")).unwrap();
    let error = area(&path("empty.png")).unwrap_err();
    assert!(error.ends_with("empty.png: expected opaque pixels in the mask, got none"), "{error}");
    RgbImage::new(4, 2).save(path("black.png")).unwrap();
    let error = area(&path("black.png")).unwrap_err();
    assert!(error.ends_with("black.png: expected white pixels in the mask, got none"), "{error}");
    let error = MaskFile::read(&path("black.png"), (8, 4), false).unwrap_err().to_string();
    assert!(error.ends_with("expected 8x4, as the image, got 4x2; try --resize-mask"), "{error}");
    let resized = MaskFile::read(&path("gray.png"), (8, 4), true).unwrap();
    assert_eq!(resized.pixels.dimensions(), (8, 4));
    // By name in a folder.
    RgbImage::new(4, 2).save(path("a_mask.png")).unwrap();
    let image = path("a.png");
    assert_eq!(MaskFile::find(&image, folder.path()).unwrap(), path("a_mask.png"));
    assert_eq!(MaskFile::find(&image, &path("gray.png")).unwrap(), path("gray.png"));
    let error = MaskFile::find(&path("b.png"), folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("expected a mask for ") && error.ends_with("b_mask.png or b.png, got none"),
        "{error}"
    );
}

/// The rows of this mask at the width of the image would be 17 terabytes.
#[test]
fn a_mask_of_other_proportions_is_resized_pixel_by_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.png");
    image::GrayImage::from_fn(1 << 22, 1, |x, _| image::Luma([if x < 1 << 21 { 255 } else { 0 }]))
        .save(&path)
        .unwrap();
    let mask = MaskFile::read(&path, (2, 1 << 20), true).unwrap();
    assert_eq!(mask.pixels.dimensions(), (2, 1 << 20));
    assert!(mask.pixels.pixels().step_by(2).all(|pixel| pixel.0 == [255; 3]));
    assert!(mask.pixels.pixels().skip(1).step_by(2).all(|pixel| pixel.0 == [0; 3]));
}
