//! Encode and decode of one 64x64 picture with 64 channels, by f; quantisation by size of the codebook.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_autoencoder::{Codebook, CodebookConfig, FirstStageConfig, build};
use ldm_core::device::{bench_device, device_name};
use ldm_libtorch::{channels_last, to_channels_last};
use std::hint::black_box;
use tch::nn::VarStore;
use tch::{Cuda, Device, Kind, Tensor};

fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn config(ch_mult: &[i64]) -> FirstStageConfig {
    let ddconfig = serde_json::json!({
        "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 64, "ch_mult": ch_mult,
        "num_res_blocks": 1, "attn_resolutions": [],
    });
    let tree = serde_json::json!({"target": "kl", "params": {"embed_dim": 4, "ddconfig": ddconfig}});
    serde_json::from_value(tree).expect("a config")
}

fn models(c: &mut Criterion) {
    let device = bench_device();
    let name = device_name(device);
    let _no_grad = tch::no_grad_guard();
    let mut group = c.benchmark_group(format!("first stage, 64 px, ch 64, f32, {name}"));
    group.sample_size(10);
    let multiples: [&[i64]; 4] = [&[1], &[1, 2], &[1, 2, 2], &[1, 2, 2, 2]];
    for ch_mult in multiples {
        let vs = VarStore::new(device);
        let model = build(&vs.root(), &config(ch_mult)).expect("a model");
        channels_last(&vs);
        let image = to_channels_last(&Tensor::rand([1, 3, 64, 64], (Kind::Float, device)));
        let z = model.encode(&image).mode();
        let factor = model.factor();
        group.bench_function(format!("encode f{factor}"), |bench| {
            bench.iter(|| {
                let _ = black_box(model.encode(&image));
                finish(device);
            });
        });
        group.bench_function(format!("decode f{factor}"), |bench| {
            bench.iter(|| {
                let _ = black_box(model.decode(&z));
                finish(device);
            });
        });
    }
    group.finish();
}

fn quantisation(c: &mut Criterion) {
    let device = bench_device();
    let _no_grad = tch::no_grad_guard();
    let mut group = c.benchmark_group(format!("quantise 4x32x32, f32, {}", device_name(device)));
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

criterion_group!(benches, models, quantisation);
criterion_main!(benches);
