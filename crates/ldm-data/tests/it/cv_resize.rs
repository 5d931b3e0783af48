//! Resizing against OpenCV's own results (`golden/generate_cv.py`).

use image::RgbImage;
use ldm_data::{Interpolation, resize};
use ldm_testing::Golden;
use tch::{Device, Tensor};

fn image(tensor: &Tensor) -> RgbImage {
    let size = tensor.size();
    let pixels = Vec::<u8>::try_from(tensor.flatten(0, -1)).unwrap();
    RgbImage::from_raw(size[1] as u32, size[0] as u32, pixels).unwrap()
}

/// Counts the values of all sizes that differ, by one gray level at most, and all values.
#[track_caller]
fn differing(name: &str, interpolation: Interpolation) -> (usize, usize) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cv_resize.safetensors");
    let golden = Golden::open(path, Device::Cpu);
    let source = image(golden.get("source"));
    let cases = golden.scope(&format!("u8.{name}."));
    assert_eq!(cases.len(), 7, "{name}");
    let (mut differing, mut count) = (0, 0);
    for (size, expected) in cases {
        let expected = image(&expected);
        let resized = resize(&source, expected.width(), expected.height(), interpolation);
        for (a, b) in resized.as_raw().iter().zip(expected.as_raw()) {
            assert!(a.abs_diff(*b) <= 1, "{name} to {size}: {a} for {b}");
            differing += usize::from(a != b);
            count += 1;
        }
    }
    (differing, count)
}

#[test]
fn every_interpolation_equals_opencv() {
    for (name, interpolation) in [
        ("nearest", Interpolation::CvNearest),
        ("bilinear", Interpolation::CvBilinear),
        ("bicubic", Interpolation::CvBicubic),
        ("area", Interpolation::CvArea),
        ("lanczos", Interpolation::CvLanczos),
    ] {
        assert_eq!(differing(name, interpolation).0, 0, "{name}: values that differ");
    }
}
