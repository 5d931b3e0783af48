//! Noise schedules, noise levels and samplers: exact solutions, properties, CompVis' own values, errors.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod analytic;
mod mixture;
mod parity;
mod parity_samplers;
mod progressive;
mod properties;
mod refusals;
mod values;

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_schedulers::{AncestralNoise, Denoiser, NoiseLevel, Sampler, SamplerRun};
use ldm_testing::Golden;
use tch::Tensor;

fn golden(name: &str) -> Golden {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    Golden::open(path, test_device())
}

/// A run without mask and observer.
fn run(
    sampler: &dyn Sampler,
    denoiser: &dyn Denoiser,
    x: Tensor,
    levels: &[NoiseLevel],
    noise: &mut dyn NoiseSource,
) -> Tensor {
    sampler.sample(
        x,
        SamplerRun {
            denoiser,
            levels,
            mask: None,
            noise,
            ancestral: AncestralNoise::default(),
            observe: &mut |_| {},
            stop: None,
        },
    )
}
