//! The diffusion model of `tiny.yaml`.

use ldm_core::device::test_device;
use ldm_pipelines::{LatentDiffusion, LatentDiffusionConfig, ModelConfig, ModelFile};
use ldm_testing::fill_weights;

pub(crate) fn config(overrides: &[&str]) -> LatentDiffusionConfig {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    match ModelFile::parse(include_str!("../tiny.yaml"), "tiny.yaml", &overrides).unwrap().model {
        ModelConfig::LatentDiffusion(config) => *config,
        other => panic!("{other:?}"),
    }
}

/// With pseudo-random weights.
pub(crate) fn model(overrides: &[&str]) -> LatentDiffusion {
    let model = LatentDiffusion::new(&config(overrides), None, test_device()).unwrap();
    fill_weights(model.vs(), 1);
    model
}
