//! Attention layers of published models, at the sizes where they take most time.

#![allow(missing_docs, reason = "criterion's macro creates an undocumented function")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_benches::wait;
use ldm_core::device::{bench_device, device_name};
use ldm_core::nn::attention::attention;
use tch::{Kind, Tensor};

/// Name; heads, queries, keys, width of a head.
const LAYERS: [(&str, [i64; 4]); 6] = [
    ("sd-v1/self/64x64", [8, 4096, 4096, 40]),
    ("sd-v1/self/32x32", [8, 1024, 1024, 80]),
    ("sd-v1/cross/64x64", [8, 4096, 77, 40]),
    ("imagenet/self/32x32", [1, 1024, 1024, 384]),
    ("celebahq/self/32x32", [14, 1024, 1024, 32]),
    ("kl-f8/middle/64x64", [1, 4096, 4096, 512]),
];

fn layers(criterion: &mut Criterion) {
    let options = (Kind::Float, bench_device());
    let mut group = criterion.benchmark_group(format!("attention/f32/{}", device_name(bench_device())));
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for (name, [heads, queries, keys, width]) in LAYERS {
        let q = Tensor::ones([1, heads, queries, width], options);
        let [k, v] = [0.5, 1.].map(|value| Tensor::ones([1, heads, keys, width], options) * value);
        group.bench_function(format!("{name}/{heads}x{queries}x{keys}x{width}"), |bencher| {
            bencher.iter(|| {
                let _ = attention(black_box(&q), &k, &v);
                wait();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);
