//! Whole-stage benchmarks of ldm: the models they share.

use std::time::Duration;

use criterion::Criterion;
use ldm_pipelines::{LatentDiffusion, ModelConfig, ModelFile};
use tch::{Device, Tensor};

const DIFFUSION: &str = include_str!("../configs/tiny/diffusion-class.yaml");

/// The model of `configs/tiny/diffusion-class.yaml` with fresh weights: what a step costs does not depend on them.
///
/// # Panics
/// When the config does not describe a model.
pub fn tiny_diffusion(device: Device) -> LatentDiffusion {
    let file = ModelFile::parse(DIFFUSION, "diffusion-class.yaml", &[]).expect("a config of the repository");
    let ModelConfig::LatentDiffusion(config) = file.model else {
        unreachable!("diffusion-class.yaml describes a diffusion model")
    };
    LatentDiffusion::new(&config, None, device).expect("a config of the repository")
}

/// Few samples: a stage takes milliseconds, and hundreds of them would say no more.
pub fn criterion() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4)).configure_from_args()
}

/// Waits for a GPU to be done, by reading one number of the answer.
pub fn finish(answer: &Tensor) -> f64 {
    answer.flatten(0, -1).double_value(&[0])
}
