//! The façade over a tiny model: defaults, batches, files, errors.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod batches;
mod hires;
mod mask_file;
mod redo;
mod text;

use std::cell::Cell;

use ldm::pipelines::{GenerateRequest, LatentDiffusion, ModelConfig, ModelFile, generate};
use ldm::prelude::*;
use ldm_core::device::test_device;
use ldm_testing::{assert_close, fill_weights};

pub(crate) fn pipeline() -> Pipeline {
    let text = include_str!("../../../ldm-pipelines/tests/tiny.yaml");
    let ModelConfig::LatentDiffusion(config) = ModelFile::parse(text, "tiny.yaml", &[]).unwrap().model else {
        panic!("a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, test_device()).unwrap();
    fill_weights(model.vs(), 1);
    Pipeline::new(model, "tiny")
}

#[test]
fn a_request_is_generate_with_the_defaults_of_the_model() {
    let pipeline = pipeline();
    let images = pipeline.generate(&Request::class(3).seeds([5, 6, 7]).steps(4).batch_size(2)).unwrap();
    let sampling = ldm::pipelines::Sampling { steps: 4, ..pipeline.model().default_sampling() };
    let prompt = Prompt::class(&[3, 3, 3]);
    let want = generate(pipeline.model(), &GenerateRequest::new(&prompt, &[5, 6, 7], &sampling), &mut |_| {});
    assert_close("images", images.tensor(), &want.unwrap().images, 1e-5);
    assert_eq!((images.len(), images.iter().count()), (3, 3));
    let text = images.parameters(1);
    assert!(
        text.starts_with(
            "class: 3\nSteps: 4, Sampler: ddim, CFG scale: 1, Seed: 6, Size: 16x16, Model: tiny"
        ),
        "{text}"
    );
}

#[test]
fn images_are_saved_with_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = pipeline();
    let steps = Cell::new(0);
    let request = Request::class(1).steps(2).on_step(|_| steps.set(steps.get() + 1));
    let one = pipeline.generate(&request).unwrap().save(folder.path().join("one.png")).unwrap();
    assert_eq!((one, steps.get()), (vec![folder.path().join("one.png")], 2));
    let two = pipeline.generate(&Request::class(1).steps(2).seeds([0, 1])).unwrap();
    let paths = two.save(folder.path().join("two.png")).unwrap();
    assert_eq!(paths, ["two-00000.png", "two-00001.png"].map(|name| folder.path().join(name)));
    assert!(paths.iter().all(|path| read_image(path).unwrap().size() == [1, 3, 16, 16]));
}

#[test]
fn an_initial_image_stays_outside_the_mask() {
    let pipeline = pipeline();
    let image = Tensor::linspace(-1., 1., 3 * 256, (Kind::Float, test_device())).view([1, 3, 16, 16]);
    let mask = Tensor::zeros([1, 1, 16, 16], (Kind::Float, test_device()));
    let _ = mask.narrow(2, 4, 8).fill_(1.);
    let request = Request::class(1).steps(2).image(image.shallow_clone()).mask(mask.shallow_clone());
    let images = pipeline.generate(&request).unwrap();
    let outside = 1. - &mask;
    assert_close("outside", &(images.tensor() * &outside), &(&image * &outside), 0.);
    assert!(images.parameters(0).contains("Denoising strength: 1,"));
}

#[test]
fn errors() {
    let pipeline = pipeline();
    let error = |request: &Request| pipeline.generate(request).unwrap_err().to_string();
    assert_eq!(error(&Request::class(1).seeds([])), "seeds: expected at least 1, got 0");
    let mask = Tensor::zeros([1, 1, 16, 16], (Kind::Float, test_device()));
    assert!(error(&Request::class(1).mask(mask)).contains("`image`"));
}
