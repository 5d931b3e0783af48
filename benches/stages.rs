//! What each stage of a sample costs, and a whole sampling, on the model of `configs/tiny/diffusion-class.yaml`.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_benches::{finish, tiny_diffusion};
use ldm_core::device::{bench_device, device_name};
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Prompt};
use ldm_pipelines::{Sampling, generate};
use ldm_schedulers::{SamplerConfig, Spacing};
use tch::{Kind, Tensor};

const BATCH: i64 = 8;

fn seeds() -> Vec<u64> {
    (0..BATCH as u64).collect()
}

fn stages(criterion: &mut Criterion) {
    let device = bench_device();
    let model = tiny_diffusion(device);
    let prompt = Prompt::class(&(0..BATCH).collect::<Vec<i64>>());
    let side = model.config.image_size;
    let mut noise = Seeded::new(seeds());
    let z = noise.like(&Tensor::zeros([BATCH, model.config.channels, side, side], (Kind::Float, device)));
    let pixels = side * model.first_stage.factor();
    let image = noise.like(&Tensor::zeros([BATCH, 3, pixels, pixels], (Kind::Float, device))).tanh();
    let t = Tensor::full([BATCH], 500, (Kind::Int64, device));
    let cond = model.condition(&prompt, false).expect("ten classes are known");
    let sampling = Sampling {
        sampler: SamplerConfig::Ddim { eta: 0. },
        spacing: Spacing::Uniform,
        steps: 10,
        guidance: 2_f64.into(),
        tile: None,
        size: None,
    };

    let mut group =
        criterion.benchmark_group(format!("stages/tiny/batch{BATCH}/f32/{}", device_name(device)));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| finish(&model.encode(black_box(&image), &mut Seeded::new(seeds()))));
    });
    group.bench_function("decode", |bencher| bencher.iter(|| finish(&model.decode(black_box(&z)))));
    group.bench_function("unet", |bencher| {
        bencher.iter(|| finish(&tch::no_grad(|| model.unet.forward(black_box(&z), &t, &cond, false))));
    });
    group.bench_function("ddim10_guided", |bencher| {
        bencher.iter(|| {
            let made = generate(&model, &prompt, None, &seeds(), &sampling, None, &mut |_| {})
                .expect("a prompt that fits");
            finish(&made.images)
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = ldm_benches::criterion(); targets = stages }
criterion_main!(benches);
