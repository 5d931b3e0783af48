//! Resizing against PIL's own results (`golden/generate.py`).

use image::RgbImage;
use ldm_data::{Interpolation, Resize, Rng, Transform, TransformConfig, resize};
use ldm_testing::Golden;
use tch::{Device, Tensor};

const FILTERS: [(&str, Interpolation); 6] = [
    ("nearest", Interpolation::Nearest),
    ("box", Interpolation::Box),
    ("bilinear", Interpolation::Bilinear),
    ("hamming", Interpolation::Hamming),
    ("bicubic", Interpolation::Bicubic),
    ("lanczos", Interpolation::Lanczos),
];

fn image(tensor: &Tensor) -> RgbImage {
    let size = tensor.size();
    let pixels = Vec::<u8>::try_from(tensor.flatten(0, -1)).unwrap();
    RgbImage::from_raw(size[1] as u32, size[0] as u32, pixels).unwrap()
}

#[test]
fn every_filter_equals_pil_to_the_bit() {
    let golden =
        Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/resize.safetensors"), Device::Cpu);
    let source = image(golden.get("source"));
    for (name, interpolation) in FILTERS {
        let cases = golden.scope(&format!("{name}."));
        assert!(cases.len() >= 4, "{name}: {} cases", cases.len());
        for (size, expected) in cases {
            let expected = image(&expected);
            let resized = resize(&source, expected.width(), expected.height(), interpolation);
            let differing = resized.as_raw().iter().zip(expected.as_raw()).filter(|(a, b)| a != b).count();
            assert_eq!(differing, 0, "{name} to {size}: values that differ, of {}", expected.as_raw().len());
        }
    }
}

#[test]
fn an_image_without_pixels_is_refused() {
    // A GIF of width 0, as a fuzzer made one.
    for resize in [Resize::SmallestSide, Resize::SquareCropFirst, Resize::Exact, Resize::None] {
        let config = TransformConfig { resize, ..TransformConfig::square(8) };
        let error = Transform::new(config).unwrap().place([0, 20], &mut Rng::of(&[1])).unwrap_err();
        let least = if resize == Resize::None { 8 } else { 1 };
        assert_eq!(error, format!("expected at least {least}x{least} for the crop, got 0x20"));
    }
}
