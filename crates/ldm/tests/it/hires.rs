//! Two passes: equal to generating, resizing and generating from the image by hand; sizes; errors.

use std::cell::RefCell;

use ldm::pipelines::{GenerateRequest, Init, InitImage, Sampling, generate};
use ldm::prelude::*;
use ldm_core::image;
use ldm_data::{Interpolation, resize};

use crate::pipeline;

#[test]
fn two_passes_equal_generation_by_hand() {
    let pipeline = pipeline();
    let hires = Hires::new(1.6, 0.5, Some(6)).unwrap();
    let steps = RefCell::new(Vec::new());
    let request = Request::class(3)
        .seeds([5, 6])
        .steps(4)
        .hires(hires)
        .on_step(|step| steps.borrow_mut().push(step.index));
    let images = pipeline.generate(&request).unwrap();

    let model = pipeline.model();
    let (prompt, seeds) = (Prompt::class(&[3, 3]), [5, 6]);
    let first = Sampling { steps: 4, ..model.default_sampling() };
    let small = generate(model, &GenerateRequest::new(&prompt, &seeds, &first), &mut |_| {}).unwrap();
    // 16 · 1.6 = 25.6, the nearest size of the model.
    let side = hires.size(model, [16, 16])[0];
    assert!([24, 26, 28].contains(&side), "{side}");
    let large: Vec<Tensor> = (0..2)
        .map(|index| {
            let small = image::to_rgb8(&small.images.get(index));
            image::from_rgb8(&resize(&small, side as u32, side as u32, Interpolation::Lanczos))
        })
        .collect();
    let init = InitImage::new(Tensor::stack(&large, 0), 0.5, None).unwrap();
    let second = Sampling { steps: 6, ..model.default_sampling() };
    let by_hand = GenerateRequest::new(&prompt, &seeds, &second).init(Init::Image(&init));
    let want = generate(model, &by_hand, &mut |_| {}).unwrap();
    assert_eq!(*images.tensor(), want.images);
    assert_eq!(*images.latents(), want.latents);
    // The image of each seed starts from its own: alone it is the same.
    let alone = pipeline.generate(&Request::class(3).seed(6).steps(4).hires(hires)).unwrap();
    ldm_testing::assert_close("alone", &alone.tensor().get(0), &images.tensor().get(1), 1e-4);

    assert_eq!(*steps.borrow(), [0, 1, 2, 3, 4, 5, 6], "3 of 6 steps follow");
    let text = images.parameters(1);
    let fields = "Seed: 6, Size: 16x16, Model: tiny, Denoising strength: 0.5, Hires upscale: 1.6, Hires steps: 6, \
                  Hires upscaler: Lanczos, Batch size: 2, Batch pos: 1, Version: ";
    assert!(text.contains(fields), "{text}");
    assert!(!alone.parameters(0).contains("Batch"));
}

#[test]
fn impossible_passes_are_refused() {
    for (scale, strength, steps, expected) in [
        (1., 0.5, None, "hires: expected a scale above 1, at most 8, got 1"),
        (f64::NAN, 0.5, None, "hires: expected a scale above 1, at most 8, got NaN"),
        (9., 0.5, None, "hires: expected a scale above 1, at most 8, got 9"),
        (2., 1.5, None, "hires strength: expected a number in [0, 1], got 1.5"),
        (2., 0.5, Some(0), "hires steps: expected at least 1, got 0"),
    ] {
        assert_eq!(Hires::new(scale, strength, steps).unwrap_err().to_string(), expected);
    }
    let pipeline = pipeline();
    let hires = Hires::new(2., 0.5, None).unwrap();
    let image = Tensor::zeros([1, 3, 16, 16], (Kind::Float, Device::Cpu));
    let error = pipeline.generate(&Request::class(1).image(image).hires(hires)).unwrap_err().to_string();
    assert_eq!(error, "hires: expected a request without an image, got one");
}

/// One image for each seed, or one for all.
#[test]
fn initial_images_are_one_or_one_per_seed() {
    let pipeline = pipeline();
    let model = pipeline.model();
    let images = Tensor::zeros([2, 3, 16, 16], (Kind::Float, Device::Cpu));
    let init = InitImage::new(images, 0.5, None).unwrap();
    let sampling = Sampling { steps: 2, ..model.default_sampling() };
    let prompt = Prompt::class(&[3, 3, 3]);
    let request = GenerateRequest::new(&prompt, &[1, 2, 3], &sampling).init(Init::Image(&init));
    let error = generate(model, &request, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("[1, …] or [3, …], one for each seed"), "{error}");
}
