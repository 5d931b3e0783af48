//! Encoding and decoding an image with the published first stages, by factor.

#![allow(missing_docs, reason = "criterion's macro creates an undocumented function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_autoencoder::build;
use ldm_benches::{config, network, shape, slow_group, wait};
use ldm_core::device::bench_device;
use ldm_libtorch::to_channels_last;
use tch::{Kind, Tensor};

/// A quarter of the pixels of training, enough to exceed every cache.
const SIDE: i64 = 128;
const CONFIGS: [&str; 5] = ["kl-f4", "kl-f8", "kl-f16", "kl-f32", "vq-f4"];

fn by_factor(criterion: &mut Criterion) {
    let _no_grad = tch::no_grad_guard();
    for name in CONFIGS {
        let config = config(&format!("autoencoder/{name}.yaml")).first_stage().expect("a first stage");
        let (_vs, model) =
            network(config.narrowest(), |vs| build(&vs.root(), &config).expect("a published config"));
        let image = to_channels_last(&Tensor::ones([1, 3, SIDE, SIDE], (Kind::Float, bench_device())));
        let z = model.encode(&image).mode();
        let mut group = slow_group(criterion, "first_stage");
        group.bench_function(format!("{name}/encode/{}", shape(&image)), |bencher| {
            bencher.iter(|| {
                let _ = model.encode(black_box(&image)).mode();
                wait();
            });
        });
        group.bench_function(format!("{name}/decode/{}", shape(&z)), |bencher| {
            bencher.iter(|| {
                let _ = model.decode(black_box(&z));
                wait();
            });
        });
        group.finish();
    }
}

criterion_group!(benches, by_factor);
criterion_main!(benches);
