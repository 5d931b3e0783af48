//! Images of the text model inside the program.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ldm_core::{Error, Prompt, Result};
use ldm_pipelines::{GenerateRequest, LoadOptions, Model, Sampling, generate};
use tch::{Device, Tensor};

use super::sampling;

/// Captions that the report shows, in two rows.
pub(super) const CAPTIONS: [&str; 12] = [
    "red heart",
    "pizza",
    "grinning face",
    "sunflower",
    "soccer ball",
    "rocket",
    "dog face",
    "banana",
    "woman astronaut: medium skin tone",
    "umbrella",
    "full moon",
    "locomotive",
];
/// Steps of a sample.
pub(super) const STEPS: usize = 20;
/// Scale of guidance.
pub(super) const GUIDANCE: f64 = 3.;

/// Draws the captions with the model at `path`; returns the images and the seconds, loading included.
pub(super) fn draw(path: &Path, device: Device, stop: &AtomicBool) -> Result<(Tensor, f64)> {
    let begun = std::time::Instant::now();
    let Model::Diffusion(model) = Model::open(path, &LoadOptions::new(device), &mut |_| {})? else {
        return Err(Error::format(path, "expected a diffusion model, got a first stage"));
    };
    let seeds: Vec<u64> = (0..CAPTIONS.len() as u64).collect();
    let sampling = Sampling { steps: STEPS, guidance: GUIDANCE.into(), ..sampling() };
    let prompt = Prompt::text(CAPTIONS);
    let request = GenerateRequest::new(&prompt, &seeds, &sampling).stopped_by(stop);
    let images = generate(&model, &request, &mut |_| {})?.images.clamp(-1., 1.);
    Ok((images, begun.elapsed().as_secs_f64()))
}
