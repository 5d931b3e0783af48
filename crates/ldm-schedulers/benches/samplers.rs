//! What a sampler costs beside its network: steps of a 4×32×32 latent with a denoiser that does nothing.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{Criterion, criterion_group, criterion_main};
use ldm_core::device::{bench_device, device_name};
use ldm_core::noise::PerStep;
use ldm_schedulers::{Denoised, NoiseLevel, NoiseSchedule, SamplerConfig, ScheduleConfig};
use tch::{Kind, Tensor};

fn overhead(criterion: &mut Criterion) {
    let device = bench_device();
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).expect("the default schedule");
    let nothing = |x: &Tensor, _: NoiseLevel| Denoised { x0: x.shallow_clone(), eps: x.shallow_clone() };
    let x = Tensor::ones([1, 4, 32, 32], (Kind::Float, device));
    for (name, eta) in [("ddim", Some(0.)), ("ddim", Some(1.)), ("ddpm", None)] {
        let mut config: SamplerConfig = name.parse().expect("a sampler");
        if let Some(eta) = eta {
            config = config.with_eta(eta).expect("a sampler with eta");
        }
        let sampler = config.build(&schedule).expect("eta in [0, 1]");
        // One step, so that the figure is the cost of a step.
        let levels = [schedule.level(500), schedule.level(480)];
        let label = format!("step/{name}/eta{}/1x4x32x32/f32/{}", eta.unwrap_or(1.), device_name(device));
        criterion.bench_function(&label, |bencher| {
            let mut noise = PerStep::new(0, 0, 0);
            bencher.iter(|| {
                tch::no_grad(|| sampler.sample(&nothing, x.copy(), &levels, &mut noise, &mut |_| {}))
            });
        });
    }
    let t = Tensor::from_slice(&[7_i64; 8]).to_device(device);
    let x0 = Tensor::ones([8, 4, 32, 32], (Kind::Float, device));
    let label = format!("add_noise/8x4x32x32/f32/{}", device_name(device));
    criterion.bench_function(&label, |bencher| bencher.iter(|| schedule.add_noise(&x0, &x0, &t)));
}

criterion_group!(benches, overhead);
criterion_main!(benches);
