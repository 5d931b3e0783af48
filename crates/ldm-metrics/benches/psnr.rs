//! PSNR of a batch of images.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::device::{bench_device, device_name};
use ldm_metrics::psnr;
use tch::{Kind, Tensor};

fn pixels(criterion: &mut Criterion) {
    let device = bench_device();
    let a = Tensor::linspace(-1., 1., 8 * 3 * 256 * 256, (Kind::Float, device)).view([8, 3, 256, 256]);
    let b = a.flip([2]);
    let label = format!("psnr/8x3x256x256/f32/{}", device_name(device));
    criterion
        .bench_function(&label, |bencher| bencher.iter(|| psnr(&a, &b).sum(Kind::Double).double_value(&[])));
}

criterion_group!(benches, pixels);
criterion_main!(benches);
