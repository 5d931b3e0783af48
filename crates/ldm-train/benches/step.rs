//! One optimizer step over 200 parameters of 128x64.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::device::{bench_device, device_name};
use ldm_train::{AdamW, AdamWConfig, Ema, EmaConfig, grad_scale};
use tch::{Kind, Tensor};

fn step(criterion: &mut Criterion) {
    let device = bench_device();
    let params: Vec<(String, Tensor)> = (0..200)
        .map(|index| {
            let weight = Tensor::ones([128, 64], (Kind::Float, device)).set_requires_grad(true);
            (format!("p{index:03}"), weight)
        })
        .collect();
    let clone =
        || params.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect::<Vec<_>>();
    let mut optimizer = AdamW::new(clone(), AdamWConfig::default());
    let mut ema = Ema::new(clone(), &EmaConfig::default());
    for (_, tensor) in &params {
        tensor.square().sum(Kind::Float).backward();
    }
    criterion.bench_function(&format!("clip+adamw+ema/200x128x64/f32/{}", device_name(device)), |bencher| {
        bencher.iter(|| {
            let divisor = grad_scale(&optimizer.grad_norm(), Some(1.), None);
            optimizer.step(1e-4, divisor.as_ref(), None);
            ema.update();
        });
    });
}

criterion_group!(benches, step);
criterion_main!(benches);
