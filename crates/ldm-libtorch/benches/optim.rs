//! One AdamW step over many small parameters: the cost of the call itself.

#![allow(missing_docs, reason = "criterion's macro creates an undocumented function")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_libtorch::{AdamWLists, AdamWStep, fused_adamw};
use tch::{Device, Kind, Tensor};

fn adamw(criterion: &mut Criterion) {
    let name = std::env::var("LDM_BENCH_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = if name == "cpu" {
        Device::Cpu
    } else {
        // A bench requested for a GPU must not silently run on the CPU.
        assert!(ldm_libtorch::cuda_device_count() > 0, "LDM_BENCH_DEVICE={name} and no CUDA device");
        Device::Cuda(name.strip_prefix("cuda:").map_or(0, |index| index.parse().expect("cuda:N")))
    };
    let list =
        || -> Vec<Tensor> { (0..300).map(|_| Tensor::ones([64, 64], (Kind::Float, device))).collect() };
    let (params, grads, exp_avgs, exp_avg_sqs) = (list(), list(), list(), list());
    let steps: Vec<Tensor> = (0..300).map(|_| Tensor::zeros([], (Kind::Float, device))).collect();
    let lists = AdamWLists {
        params: &params,
        grads: &grads,
        exp_avgs: &exp_avgs,
        exp_avg_sqs: &exp_avg_sqs,
        steps: &steps,
    };
    let step = AdamWStep { lr: 1e-4, beta1: 0.9, beta2: 0.999, weight_decay: 0.01, eps: 1e-8 };
    criterion.bench_function(&format!("fused_adamw/300x64x64/f32/{device:?}"), |bencher| {
        bencher.iter(|| fused_adamw(lists, step, None, None));
    });
}

criterion_group!(benches, adamw);
criterion_main!(benches);
