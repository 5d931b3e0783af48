//! Scenes a second, resizing, and what the loader adds. All of it runs on the CPU, whatever `LDM_BENCH_DEVICE` says.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::{Rgb, RgbImage};
use ldm_data::scenes::{SceneConfig, Scenes};
use ldm_data::{Dataset, Interpolation, Loader, LoaderConfig, Position, ShuffleSampler, resize};

fn scenes(c: &mut Criterion) {
    let mut group = c.benchmark_group("scenes (images/s, one core)");
    for size in [32, 64, 256] {
        let set = Scenes::new(SceneConfig { size, ..SceneConfig::default() }).expect("a config that can be");
        group.throughput(Throughput::Elements(1));
        let mut index = 0;
        group.bench_function(format!("{size}px"), |b| {
            b.iter(|| {
                index = (index + 1) % set.len();
                black_box(set.get(index, 0).expect("a scene"))
            });
        });
    }
}

fn resizing(c: &mut Criterion) {
    let image = RgbImage::from_fn(512, 512, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
    for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
        c.bench_function(&format!("resize {interpolation:?} 512px to 256px"), |b| {
            b.iter(|| resize(black_box(&image), 256, 256, interpolation));
        });
    }
}

fn loader(c: &mut Criterion) {
    let mut group = c.benchmark_group("loader (images/s, scenes of 64px, batches of 32)");
    group.throughput(Throughput::Elements(32));
    for workers in [0, 1, 2] {
        let set = Arc::new(Scenes::new(SceneConfig::default()).expect("a config that can be"));
        let config = LoaderConfig { workers, ..LoaderConfig::new(32, 0) };
        let mut loader = Loader::new(set, config, Position::default()).expect("a config that can be");
        group.bench_function(format!("{workers} workers"), |b| b.iter(|| loader.next()));
    }
}

fn order(c: &mut Criterion) {
    let order = ShuffleSampler {
        len: 1_281_167,
        batch_size: 64,
        seed: 0,
        shuffle: true,
        drop_last: true,
        rank: 0,
        world: 1,
    };
    let mut batch = 0;
    c.bench_function("order of a batch of 64 of 1281167", |b| {
        b.iter(|| {
            batch = (batch + 1) % order.batches();
            order.indices(3, batch)
        });
    });
}

criterion_group!(benches, scenes, resizing, loader, order);
criterion_main!(benches);
