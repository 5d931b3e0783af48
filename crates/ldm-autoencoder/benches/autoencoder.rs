//! Quantization by codebook size. Encoding and decoding by f are in the workspace's `benches/first_stages.rs`.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_autoencoder::{Codebook, CodebookConfig};
use ldm_core::device::{bench_device, device_name};
use std::hint::black_box;
use tch::nn::VarStore;
use tch::{Cuda, Device, Kind, Tensor};

fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn quantization(c: &mut Criterion) {
    let device = bench_device();
    let _no_grad = tch::no_grad_guard();
    let mut group = c.benchmark_group(format!("quantize 4x32x32, f32, {}", device_name(device)));
    for entries in [256, 8192, 16_384] {
        let vs = VarStore::new(device);
        let codebook = Codebook::new(&vs.root(), &CodebookConfig::new(entries, 4)).expect("a codebook");
        let z = Tensor::rand([1, 4, 32, 32], (Kind::Float, device));
        group.bench_function(format!("{entries} entries"), |bench| {
            bench.iter(|| {
                let _ = black_box(codebook.quantize(&z));
                finish(device);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quantization);
criterion_main!(benches);
