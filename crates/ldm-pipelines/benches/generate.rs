//! Sampling with a tiny model: the overhead of the pipeline around its networks.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::Prompt;
use ldm_core::device::{bench_device, device_name};
use ldm_pipelines::{GenerateRequest, LatentDiffusion, ModelConfig, ModelFile, Sampling, generate};
use ldm_schedulers::SamplerConfig;

const TINY: &str = include_str!("../tests/tiny.yaml");

fn sample(criterion: &mut Criterion) {
    let device = bench_device();
    let ModelConfig::LatentDiffusion(config) =
        ModelFile::parse(TINY, "tiny.yaml", &[]).expect("a config").model
    else {
        unreachable!("tiny.yaml describes a diffusion model")
    };
    let model = LatentDiffusion::new(&config, None, device).expect("a model");
    for guidance_scale in [1_f64, 2.] {
        let sampling = Sampling {
            guidance: guidance_scale.into(),
            ..Sampling::new(SamplerConfig::Ddim { eta: 0. }, 10)
        };
        let name = format!("ddim10/tiny/batch4/guidance{guidance_scale}/f32/{}", device_name(device));
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                generate(
                    &model,
                    &GenerateRequest::new(&Prompt::class(&[0, 1, 2, 3]), &[0, 1, 2, 3], &sampling),
                    &mut |_| {},
                )
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = sample
}
criterion_main!(benches);
