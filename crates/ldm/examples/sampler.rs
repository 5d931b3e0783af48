//! A sampler alone: DPM-Solver++ on the exact denoiser of Gaussian data, N(0.7, 0.4²).

use ldm::core::{NoiseSource, noise::Seeded};
use ldm::prelude::*;
use ldm::schedulers::{NoiseLevel, NoiseSchedule, Parameterization, ScheduleConfig};

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default())?;
    let plan = "dpmpp_2m".parse::<SamplerConfig>()?.plan(&schedule, &Spacing::Karras, 20)?;
    let mut noise = Seeded::new([42]);
    let unit = noise.like(&Tensor::zeros([1, 10_000], (Kind::Double, Device::Cpu)));
    let x = plan.sample(&gaussian, unit, &mut noise);
    assert!((x.mean(Kind::Double).double_value(&[]) - 0.7).abs() < 0.02);
    assert!((x.std(true).double_value(&[]) - 0.4).abs() < 0.02);
    Ok(())
}

/// E[x_0 | x_t].
fn gaussian(x: &Tensor, at: NoiseLevel) -> ldm::schedulers::Denoised {
    let variance = (at.alpha * 0.4).powi(2) + at.sigma.powi(2);
    Parameterization::X0.to_denoised((x - at.alpha * 0.7) * (at.alpha * 0.16 / variance) + 0.7, x, at)
}
