//! Gaussian noise with one seed per latent.

#![allow(missing_docs)] // criterion's macros create undocumented functions

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::NoiseSource;
use ldm_core::device::{bench_device, device_name};
use ldm_core::noise::Seeded;
use tch::{Kind, Tensor};

fn seeded(bench: &mut Criterion) {
    let device = bench_device();
    let latent = Tensor::zeros([4, 4, 64, 64], (Kind::Float, device));
    bench.bench_function(&format!("noise/4x4x64x64/{}", device_name(device)), |bench| {
        bench.iter(|| Seeded::new([0, 1, 2, 3]).like(&latent));
    });
}

criterion_group!(benches, seeded);
criterion_main!(benches);
