//! Exact solutions: for Gaussian data the best denoiser is a formula, and so are the path of every sample and their
//! distribution.

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::noise::{PerStep, Replay};
use ldm_schedulers::{
    Ddim, Ddpm, Denoised, Dpm2, Dpmpp2m, Dpmpp2mSde, Dpmpp3mSde, Euler, EulerAncestral, Heun, Lcm, Lms,
    NoiseLevel, NoiseSchedule, Parameterization, Plms, Sampler, ScheduleConfig, Spacing, UniPc,
};
use ldm_testing::relative_l2;
use tch::{Kind, Tensor};

use super::run;

fn options() -> (Kind, tch::Device) {
    (Kind::Double, test_device())
}

/// Data N(MEAN, DEVIATION²) in every element.
const MEAN: f64 = 0.7;
const DEVIATION: f64 = 0.4;

fn variance(at: NoiseLevel) -> f64 {
    (at.alpha * DEVIATION).powi(2) + at.sigma.powi(2)
}

/// E[x_0 | x_t] of Gaussian data.
fn gaussian(x: &Tensor, at: NoiseLevel) -> Denoised {
    let x0 = (x - at.alpha * MEAN) * (at.alpha * DEVIATION.powi(2) / variance(at)) + MEAN;
    Parameterization::X0.to_denoised(x0, x, at)
}

/// The probability flow of `x`: it keeps the standardized value (Song et al. 2021, eq. 13, solved).
fn flow(x: &Tensor, from: NoiseLevel, to: NoiseLevel) -> Tensor {
    (x - from.alpha * MEAN) * (variance(to) / variance(from)).sqrt() + to.alpha * MEAN
}

/// Levels even in λ = ln(α/σ), from `first` to 3.
fn even_levels(first: f64, steps: usize) -> Vec<NoiseLevel> {
    let level = |i: usize| {
        let lambda = first + (3. - first) * i as f64 / steps as f64;
        let alpha = (1. / (1. + (-2. * lambda).exp())).sqrt();
        NoiseLevel { t: 0., alpha, sigma: (1. / (1. + (2. * lambda).exp())).sqrt() }
    };
    (0..=steps).map(level).collect()
}

/// Halves the step size three times, and compares the decrease of the error to the order.
#[track_caller]
fn check_order(name: &str, sampler: &dyn Sampler, order: f64) {
    let start = Tensor::linspace(-2., 2., 9, options());
    let error = |steps| {
        // So noisy that a multistep solver's first steps, of lower order, have no weight.
        let levels = even_levels(-9., steps);
        // Nothing to replay: a solver that draws noise fails here.
        let got = run(sampler, &gaussian, start.copy(), &levels, &mut Replay::default());
        relative_l2(&got, &flow(&start, levels[0], levels[steps]))
    };
    let errors: Vec<f64> = [64, 128, 256, 512].map(error).to_vec();
    let orders: Vec<f64> = errors.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect();
    let last = orders[orders.len() - 1];
    assert!((order - 0.12..order + 0.05).contains(&last), "{name}: orders {orders:.3?}, errors {errors:?}");
}

#[test]
fn orders_of_convergence() {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    check_order("ddim", &Ddim::new(0.).unwrap(), 1.);
    check_order("euler", &Euler, 1.);
    check_order("euler ancestral without noise", &EulerAncestral::new(0.).unwrap(), 1.);
    check_order("heun", &Heun, 2.);
    check_order("dpm2", &Dpm2::new(&schedule), 2.);
    check_order("plms", &Plms, 2.);
    check_order("dpm++ 2m", &Dpmpp2m::default(), 2.);
    check_order("dpm++ 2m sde without noise", &Dpmpp2mSde::new(0., false).unwrap(), 2.);
    // Not 3: k-diffusion, which it follows, halves the curvature.
    check_order("dpm++ 3m sde without noise", &Dpmpp3mSde::new(0.).unwrap(), 2.);
    check_order("lms", &Lms, 4.);
    // The corrector adds one.
    check_order("unipc 1", &UniPc::new(1, false).unwrap(), 2.);
    check_order("unipc 2", &UniPc::new(2, false).unwrap(), 3.);
    check_order("unipc 3", &UniPc::new(3, false).unwrap(), 4.);
}

#[test]
fn equal_without_noise() {
    let start = Tensor::linspace(-2., 2., 9, options());
    let sample = |sampler: &dyn Sampler| {
        let levels = NoiseSchedule::new(&ScheduleConfig::default())
            .unwrap()
            .noise_levels(&Spacing::Karras, 12)
            .unwrap();
        run(sampler, &gaussian, start.copy(), &levels, &mut Replay::default())
    };
    let pairs: [[&dyn Sampler; 2]; 3] = [
        [&Ddim::new(0.).unwrap(), &Euler],
        [&Euler, &EulerAncestral::new(0.).unwrap()],
        [&Dpmpp2m::default(), &Dpmpp2mSde::new(0., false).unwrap()],
    ];
    for [one, other] in pairs {
        let distance = relative_l2(&sample(one), &sample(other));
        assert!(distance < 1e-12, "{one:?}, {other:?}: {distance:.2e}");
    }
}

#[test]
fn ddim_reaches_a_point_in_one_step() {
    let x0 = Tensor::linspace(-1., 1., 5, options());
    let point = |x: &Tensor, at: NoiseLevel| Parameterization::X0.to_denoised(x0.copy(), x, at);
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let levels = [schedule.level(999), NoiseLevel::CLEAN];
    let x = x0.ones_like();
    let got = run(&Ddim::new(0.).unwrap(), &point, x, &levels, &mut Replay::default());
    assert!(relative_l2(&got, &x0) < 1e-12);
}

#[test]
fn ddim_with_all_noise_is_ddpm() {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let start = PerStep::new(1, 0, 0).like(&Tensor::zeros([64], options()));
    for (spacing, steps) in [(Spacing::Uniform, 20), (Spacing::Leading, 50)] {
        let levels = schedule.noise_levels(&spacing, steps).unwrap();
        let sample = |sampler: &dyn Sampler| {
            run(sampler, &gaussian, start.copy(), &levels, &mut PerStep::new(2, 0, 0))
        };
        let distance = relative_l2(&sample(&Ddim::new(1.).unwrap()), &sample(&Ddpm::default()));
        assert!(distance < 1e-12, "{spacing:?}: {distance:.2e}");
    }
}

/// One-hot draws. For Gaussian data every sampler is an affine map of its start and its draws; with one row for each
/// unit vector of all of them, and one row of zeros, a single run gives that map, and so the exact distribution of its
/// samples.
struct UnitVectors(i64);

impl UnitVectors {
    /// Rows for the start and `steps` draws, two coordinates each, and row 0 for none of them.
    fn start(steps: usize) -> Tensor {
        UnitVectors(1).like(&Tensor::zeros([2 * steps as i64 + 3, 2], options()))
    }
}

impl NoiseSource for UnitVectors {
    fn like(&mut self, x: &Tensor) -> Tensor {
        let draw = x.zeros_like();
        draw.narrow(0, self.0, 2).copy_(&Tensor::eye(2, options()));
        self.0 += 2;
        draw
    }

    fn integers(&mut self, _: i64, _: i64, _: &Tensor) -> Tensor {
        unreachable!("samplers draw normal noise only")
    }

    fn uniform(&mut self, _: i64, _: &Tensor) -> Tensor {
        unreachable!("samplers draw normal noise only")
    }
}

/// The distance of the exact mean and covariance of a sampler's samples from the data's: `[mean, covariance]`.
fn distribution_error(sampler: &dyn Sampler, spacing: &Spacing, steps: usize) -> [f64; 2] {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let mean = Tensor::from_slice(&[0.5, -1.]).to_device(test_device());
    let covariance = Tensor::from_slice2(&[[0.5, 0.3], [0.3, 0.8]]).to_device(test_device());
    let eye = Tensor::eye(2, options());
    let denoise = |x: &Tensor, at: NoiseLevel| {
        let marginal = &covariance * at.alpha.powi(2) + &eye * at.sigma.powi(2);
        let gain = covariance.matmul(&marginal.inverse()) * at.alpha; // symmetric: the two commute
        let x0 = (x - &mean * at.alpha).matmul(&gain) + &mean;
        Parameterization::X0.to_denoised(x0, x, at)
    };
    let levels = schedule.noise_levels(spacing, steps).unwrap();
    let end = levels[levels.len() - 1];
    let x = run(sampler, &denoise, UnitVectors::start(steps), &levels, &mut UnitVectors(3));
    let parts = x.narrow(0, 1, x.size()[0] - 1) - x.get(0);
    let got = parts.tr().matmul(&parts);
    let want = covariance * end.alpha.powi(2) + eye * end.sigma.powi(2);
    [(x.get(0) - mean * end.alpha).abs(), (got - want).abs()].map(|off| off.max().double_value(&[]))
}

#[test]
fn distribution_of_a_gaussian() {
    let [mean, covariance] = distribution_error(&Ddpm::default(), &Spacing::Leading, 1000);
    assert!(mean < 0.005 && covariance < 0.01, "ddpm over the whole schedule: {mean:.5}, {covariance:.5}");
    let samplers: [(&dyn Sampler, Spacing); 6] = [
        (&Ddpm::default(), Spacing::Leading),
        (&Ddpm { v_posterior: 1. }, Spacing::Leading),
        (&Ddim::new(1.).unwrap(), Spacing::Uniform),
        (&Ddim::new(0.5).unwrap(), Spacing::Uniform),
        (&Ddim::new(0.).unwrap(), Spacing::Uniform),
        (&EulerAncestral::new(1.).unwrap(), Spacing::Uniform),
    ];
    for (sampler, spacing) in samplers {
        let [mean, covariance] = distribution_error(sampler, &spacing, 250);
        // The mean's error is mostly that of the start, which is assumed to be pure noise.
        assert!(mean < 0.025 && covariance < 0.02, "{sampler:?}: {mean:.5}, {covariance:.5}");
        let gain = distribution_error(sampler, &spacing, 50)[1] / covariance;
        assert!(
            (4.0..6.0).contains(&gain),
            "{sampler:?}: five times the steps, an error {gain:.2} times smaller"
        );
    }
}

/// The solvers of the reverse diffusion approach the distribution of the data faster than first order.
#[test]
fn distribution_of_a_gaussian_at_higher_order() {
    for eta in [0.5, 1.] {
        let samplers: [&dyn Sampler; 2] =
            [&Dpmpp2mSde::new(eta, false).unwrap(), &Dpmpp3mSde::new(eta).unwrap()];
        for sampler in samplers {
            let errors =
                [25, 50, 100].map(|steps| distribution_error(sampler, &Spacing::Exponential, steps)[1]);
            assert!(errors[2] < 0.0025, "{sampler:?}: covariance off by {errors:?}");
            assert!(errors[0] > 3. * errors[1], "{sampler:?}: covariance off by {errors:?}");
        }
    }
}

/// A consistency model of Gaussian data is the flow to the end: LCM's samples then have the distribution of the data for
/// any number of steps.
#[test]
fn lcm_with_a_perfect_model() {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let perfect = |x: &Tensor, at: NoiseLevel| {
        let x0 = flow(x, at, NoiseLevel::CLEAN);
        Denoised { eps: x0.zeros_like(), x0 }
    };
    for steps in [1, 4, 8] {
        let levels = schedule.noise_levels(&Spacing::Lcm, steps).unwrap();
        let x = run(&Lcm, &perfect, UnitVectors::start(steps), &levels, &mut UnitVectors(3));
        let parts = x.narrow(0, 1, x.size()[0] - 1) - x.get(0);
        let off_mean = (x.get(0) - MEAN).abs().max().double_value(&[]);
        let covariance = parts.tr().matmul(&parts) - Tensor::eye(2, options()) * DEVIATION.powi(2);
        let off = covariance.abs().max().double_value(&[]);
        // The start is assumed to be pure noise, where α is 0.006; and t leaves a little of x.
        assert!(
            off_mean < 0.01 && off < 0.01,
            "{steps} steps: mean off by {off_mean:.4}, covariance by {off:.4}"
        );
    }
}

/// A quarter of the data around -1, the rest around 1, each with deviation 0.2.
fn mixture(x: &Tensor, at: NoiseLevel) -> Denoised {
    let (weights, centers, deviation): ([f64; 2], [f64; 2], f64) = ([0.25, 0.75], [-1., 1.], 0.2);
    let variance = (at.alpha * deviation).powi(2) + at.sigma.powi(2);
    let score = |k: usize| (x - at.alpha * centers[k]).square() * (-0.5 / variance) + weights[k].ln();
    let share = Tensor::stack(&[score(0), score(1)], 0).softmax(0, Kind::Double);
    let part = |k: usize| {
        let x0 = (x - at.alpha * centers[k]) * (at.alpha * deviation.powi(2) / variance) + centers[k];
        x0 * share.get(k as i64)
    };
    Parameterization::X0.to_denoised(part(0) + part(1), x, at)
}

#[test]
fn weights_of_a_mixture() {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let samplers: [(&dyn Sampler, Spacing, usize); 3] = [
        (&Ddpm::default(), Spacing::Leading, 250),
        (&Ddim::new(1.).unwrap(), Spacing::Uniform, 250),
        (&Ddim::new(0.).unwrap(), Spacing::Uniform, 100),
    ];
    for (sampler, spacing, steps) in samplers {
        let start = PerStep::new(3, 0, 0).like(&Tensor::zeros([10_000], options()));
        let levels = schedule.noise_levels(&spacing, steps).unwrap();
        let x = run(sampler, &mixture, start, &levels, &mut PerStep::new(4, 0, 0));
        // Four standard errors of 10,000 samples are 0.017 and 0.006.
        let left = x.lt(0.).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((left - 0.25).abs() < 0.02, "{sampler:?}: fraction in the smaller mode {left:.4}");
        let spread = (x.abs() - 1.).std(true).double_value(&[]);
        assert!((spread - 0.2).abs() < 0.012, "{sampler:?}: deviation around a mode {spread:.4}");
    }
}
