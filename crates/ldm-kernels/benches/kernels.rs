//! Layers of Stable Diffusion's U-Net and decoder on one thread, at each level with vectors.

#![allow(missing_docs, reason = "criterion's macro creates an undocumented function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ldm_kernels::{
    AttentionSize, Conv3x3, Conv3x3Epilogue, GroupNormParameters, ImageSize, Level, LinearParameters,
    OneThread, attention, attention_bf16, conv3x3, group_norm, has_bf16_products, linear,
};

/// Values in [−0.5, 0.5).
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7919 % 1000) as f32 / 1000. - 0.5).collect()
}

fn levels() -> impl Iterator<Item = Level> {
    [Level::Avx2, Level::Avx512].into_iter().filter(|level| level.is_available())
}

/// Throughput in multiplications and additions of the direct sum.
fn convolutions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conv3x3");
    group.sample_size(10);
    for (channels, side) in [(320, 64), (640, 32), (1280, 16), (1280, 8), (512, 128), (256, 256), (128, 512)]
    {
        let size = ImageSize { batch: 1, height: side, width: side };
        let (weight, input) = (values(channels * channels * 9), values(size.pixels() * channels));
        let mut output = vec![0.; input.len()];
        group.throughput(Throughput::Elements((2 * 9 * input.len() * channels) as u64));
        let epilogue = Conv3x3Epilogue::default();
        let conv = Conv3x3 { size, channels, input: &input, weight: &weight, prologue: None, epilogue };
        for level in levels() {
            group.bench_function(format!("{channels}x{side}x{side}/f32/cpu/{level}"), |bencher| {
                bencher.iter(|| conv3x3(&OneThread, level, conv, &mut output));
            });
        }
    }
}

fn attentions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    for (heads, tokens, head_size) in [(8, 4096, 40), (8, 1024, 80), (1, 4096, 512)] {
        let size = AttentionSize { batch: 1, heads, queries: tokens, keys: tokens, head_size };
        let q = values(heads * tokens * head_size);
        let mut output = vec![0.; q.len()];
        group.throughput(Throughput::Elements((4 * q.len() * tokens) as u64));
        for level in levels() {
            group.bench_function(format!("{heads}x{tokens}x{head_size}/f32/cpu/{level}"), |bencher| {
                bencher.iter(|| attention(&OneThread, level, size, [&q, &q, &q], &mut output));
            });
        }
        if has_bf16_products() {
            let bits: Vec<u16> = q.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            let mut output = vec![0; q.len()];
            group.bench_function(format!("{heads}x{tokens}x{head_size}/bf16/cpu/avx512"), |bencher| {
                bencher.iter(|| attention_bf16(&OneThread, size, [&bits, &bits, &bits], &mut output));
            });
        }
    }
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    group.sample_size(10);
    for (rows, features, features_out) in
        [(4096, 320, 320), (4096, 320, 2560), (1024, 2560, 640), (256, 1280, 1280)]
    {
        let (x, weight) = (values(rows * features), values(features_out * features));
        let parameters = LinearParameters { features, weight: &weight, bias: None };
        let mut output = vec![0.; rows * features_out];
        group.throughput(Throughput::Elements((2 * x.len() * features_out) as u64));
        for level in levels() {
            group.bench_function(format!("{rows}x{features}x{features_out}/f32/cpu/{level}"), |bencher| {
                bencher.iter(|| linear(&OneThread, level, &x, parameters, None, &mut output));
            });
        }
    }
}

/// Throughput in bytes read and written once.
fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("norms");
    group.sample_size(20);
    let (pixels, channels) = (4096, 320);
    let (x, weight) = (values(pixels * channels), values(channels));
    let parameters = GroupNormParameters { groups: 32, weight: &weight, bias: &weight, eps: 1e-5 };
    let mut output = vec![0.; x.len()];
    group.throughput(Throughput::Bytes(8 * x.len() as u64));
    for level in levels() {
        group.bench_function(format!("group_norm_silu/{pixels}x{channels}/f32/cpu/{level}"), |bencher| {
            bencher.iter(|| group_norm(&OneThread, level, 1, &x, parameters, true, &mut output));
        });
    }
}

criterion_group!(benches, convolutions, attentions, products, norms);
criterion_main!(benches);
