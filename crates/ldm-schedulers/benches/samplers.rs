//! The cost of samplers without a network: steps of a 4×32×32 latent with a denoiser that does nothing.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ldm_core::device::{bench_device, device_name};
use ldm_core::noise::PerStep;
use ldm_schedulers::{Denoised, NoiseLevel, NoiseSchedule, SamplerConfig, ScheduleConfig};
use tch::{Kind, Tensor};

/// Enough that a multistep solver's first steps, which are cheaper, have little weight. The cost of a step is the time over
/// the number of steps; criterion shows its inverse as elements per second.
const STEPS: usize = 20;

fn overhead(criterion: &mut Criterion) {
    let device = bench_device();
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).expect("the default schedule");
    let nothing = |x: &Tensor, _: NoiseLevel| Denoised { x0: x.shallow_clone(), eps: x.shallow_clone() };
    let x = Tensor::ones([1, 4, 32, 32], (Kind::Float, device));
    let mut group = criterion.benchmark_group("20 steps");
    group.throughput(Throughput::Elements(STEPS as u64));
    let stochastic_ddim = SamplerConfig::Ddim { eta: 1. };
    for config in SamplerConfig::all().chain([stochastic_ddim]) {
        let plan = config.plan(&schedule, &config.spacing(), STEPS).expect("the default spacing");
        let eta = config.eta().map_or(String::new(), |eta| format!("/eta{eta}"));
        let label = format!("{}{eta}/1x4x32x32/f32/{}", config.name(), device_name(device));
        group.bench_function(&label, |bencher| {
            let mut noise = PerStep::new(0, 0, 0);
            bencher.iter(|| tch::no_grad(|| plan.sample(&nothing, x.copy(), &mut noise)));
        });
    }
    group.finish();
    let t = Tensor::from_slice(&[7_i64; 8]).to_device(device);
    let x0 = Tensor::ones([8, 4, 32, 32], (Kind::Float, device));
    let label = format!("add_noise/8x4x32x32/f32/{}", device_name(device));
    criterion.bench_function(&label, |bencher| bencher.iter(|| schedule.add_noise(&x0, &x0, &t)));
}

criterion_group!(benches, overhead);
criterion_main!(benches);
