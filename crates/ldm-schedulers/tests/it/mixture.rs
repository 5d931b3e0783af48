//! Samples of the stochastic solvers against a mixture of Gaussians in the plane, whose best denoiser is a formula.

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_schedulers::{
    Denoised, NoiseLevel, NoiseSchedule, Parameterization, SamplerConfig, ScheduleConfig, Spacing,
};
use tch::{Kind, Tensor};

use super::run;

const WEIGHTS: [f64; 3] = [0.2, 0.5, 0.3];
const CENTERS: [[f64; 2]; 3] = [[-1., 0.5], [1., 1.], [0.3, -1.2]];
const DEVIATION: f64 = 0.25;
const SAMPLES: i64 = 20_000;

fn table(rows: &[[f64; 2]]) -> Tensor {
    Tensor::from_slice2(rows).to_device(test_device())
}

/// E[x_0 | x_t], for `x` `[B, 2]`.
fn mixture(x: &Tensor, at: NoiseLevel) -> Denoised {
    let centers = table(&CENTERS); // [3, 2]
    let weights = Tensor::from_slice(&WEIGHTS).to_device(test_device());
    let variance = (at.alpha * DEVIATION).powi(2) + at.sigma.powi(2);
    let apart = x.unsqueeze(1) - &centers * at.alpha; // [B, 3, 2]
    let squares = apart.square().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double); // [B, 3]
    let share = (squares * (-0.5 / variance) + weights.log()).softmax(-1, Kind::Double).unsqueeze(-1);
    let gain = at.alpha * DEVIATION.powi(2) / variance;
    let x0 = ((apart * gain + centers) * share).sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
    Parameterization::X0.to_denoised(x0, x, at)
}

/// Mean `[2]` and covariance `[2, 2]` of the mixture.
fn moments() -> (Tensor, Tensor) {
    let weights = Tensor::from_slice(&WEIGHTS).to_device(test_device()).unsqueeze(-1);
    let centers = table(&CENTERS);
    let mean = (&weights * &centers).sum_dim_intlist([0_i64].as_slice(), false, Kind::Double);
    let off = centers - &mean;
    let between = off.tr().matmul(&(weights * off));
    (mean, between + Tensor::eye(2, (Kind::Double, test_device())) * DEVIATION.powi(2))
}

#[track_caller]
fn check(sampler: SamplerConfig, spacing: Spacing, steps: usize) {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let plan = sampler.plan(&schedule, &spacing, steps).unwrap();
    let blank = Tensor::zeros([SAMPLES, 2], (Kind::Double, test_device()));
    let start = PerStep::new(5, 0, 0).like(&blank);
    let x = run(plan.sampler(), &mixture, start, plan.levels(), &mut PerStep::new(6, 0, 0));
    let (mean, covariance) = moments();
    let end = plan.levels()[plan.steps()];
    let mean_off = (x.mean_dim([0_i64].as_slice(), false, Kind::Double) - mean * end.alpha).abs();
    let noise = Tensor::eye(2, (Kind::Double, test_device())) * end.sigma.powi(2);
    let covariance_off =
        (x.tr().cov(1, None::<&Tensor>, None::<&Tensor>) - covariance * end.alpha.powi(2) - noise).abs();
    let [mean_off, covariance_off] = [mean_off, covariance_off].map(|off| off.max().double_value(&[]));
    // Four standard errors of 20,000 samples are 0.026 in the mean and 0.032 in the covariance.
    assert!(mean_off < 0.03, "{sampler:?}: mean off by {mean_off:.4}");
    assert!(covariance_off < 0.04, "{sampler:?}: covariance off by {covariance_off:.4}");
    // Each mode by itself, of the samples nearest to its center, has the right deviation.
    let apart = (x.unsqueeze(1) - table(&CENTERS) * end.alpha).square();
    let nearest = apart.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double).min_dim(1, false).0;
    let spread = (nearest.mean(Kind::Double) / 2.).sqrt().double_value(&[]);
    let want = ((DEVIATION * end.alpha).powi(2) + end.sigma.powi(2)).sqrt();
    assert!(
        (spread - want).abs() < 0.015,
        "{sampler:?}: deviation around a center {spread:.4}, expected {want:.4}"
    );
}

#[test]
fn ancestral() {
    check(SamplerConfig::Ddpm {}, Spacing::Leading, 100);
    check(SamplerConfig::Ddim { eta: 1. }, Spacing::Uniform, 100);
    check(SamplerConfig::EulerA { eta: 1. }, Spacing::Uniform, 100);
    check(SamplerConfig::EulerA { eta: 0.5 }, Spacing::Karras, 100);
}

#[test]
fn reverse_diffusion() {
    check(SamplerConfig::Dpmpp2mSde { eta: 1., lower_order_final: false }, Spacing::Exponential, 40);
    check(SamplerConfig::Dpmpp2mSde { eta: 0.5, lower_order_final: true }, Spacing::Exponential, 40);
    check(SamplerConfig::Dpmpp3mSde { eta: 1. }, Spacing::Exponential, 40);
    check(SamplerConfig::Dpmpp3mSde { eta: 0.5 }, Spacing::Exponential, 40);
}
