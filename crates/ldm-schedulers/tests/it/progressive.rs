//! Rate and distortion of a progressive code: exact values of Gaussian data, and the terms of the variational bound.

use ldm_core::NoiseSource;
use ldm_core::device::test_device;
use ldm_core::noise::PerStep;
use ldm_schedulers::{
    Denoised, Denoiser, NoiseLevel, NoiseSchedule, Parameterization, ScheduleConfig, progressive_code,
};
use tch::{Kind, Tensor};

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig::default()).unwrap()
}

fn levels(schedule: &NoiseSchedule) -> Vec<NoiseLevel> {
    (0..schedule.timesteps()).rev().map(|t| schedule.level(t)).collect()
}

/// Nats per element and mean squared error of the prediction at each level.
fn code(denoiser: &dyn Denoiser, levels: &[NoiseLevel], x0: &Tensor) -> Vec<[f64; 2]> {
    let mut found = Vec::new();
    let elements = (x0.numel() / x0.size()[0] as usize) as f64;
    progressive_code(denoiser, levels, x0, &mut PerStep::new(3, 0, 0), &mut |index, coded| {
        assert_eq!((index, coded.at), (found.len(), levels[index]));
        let error = (&coded.x0 - x0).square().mean(Kind::Double).double_value(&[]);
        found.push([coded.nats.mean(Kind::Double).double_value(&[]) / elements, error]);
    });
    found
}

#[test]
fn gaussian_data_have_the_analytic_rate_and_distortion() {
    let (mean, deviation) = (0.3, 0.6_f64);
    let variance = |at: NoiseLevel| (at.alpha * deviation).powi(2) + at.sigma.powi(2);
    let perfect = |x: &Tensor, at: NoiseLevel| {
        let x0 = (x - at.alpha * mean) * (at.alpha * deviation.powi(2) / variance(at)) + mean;
        Parameterization::X0.to_denoised(x0, x, at)
    };
    let x0 = Tensor::zeros([4, 3, 40, 40], (Kind::Double, test_device()));
    // With exactly this mean and deviation, on which the rate depends.
    let x0 = PerStep::new(1, 0, 0).like(&x0);
    let x0 = (&x0 - x0.mean(Kind::Double)) / x0.std(false) * deviation + mean;
    let schedule = schedule();
    let levels = levels(&schedule);
    let found = code(&perfect, &levels, &x0);
    let snr = |at: NoiseLevel| (at.alpha / at.sigma).powi(2);
    // Var[x_0 | x_t].
    let error = |at: NoiseLevel| (deviation * at.sigma).powi(2) / variance(at);
    let first = levels[0];
    let mut nats = 0.5
        * (first.alpha_bar() * (deviation.powi(2) + mean * mean)
            - first.alpha_bar()
            - first.sigma.powi(2).ln());
    for (index, at) in levels.iter().enumerate() {
        let [rate, distortion] = found[index];
        assert!((rate / nats - 1.).abs() < 0.02, "{index}: {rate} {nats}");
        assert!((distortion / error(*at) - 1.).abs() < 0.05, "{index}: {distortion} {}", error(*at));
        if let Some(to) = levels.get(index + 1) {
            nats += 0.5 * (snr(*to) - snr(*at)) * error(*at);
        }
    }
    // In the limit of many levels a perfect model needs the information of x_0 about the last level. Of these levels the last
    // two alone double the signal-to-noise ratio, for 0.5 nats instead of ln(2)/2.
    let information = 0.5 * (1. + deviation.powi(2) * snr(levels[999])).ln();
    let [rate, _] = found[999];
    assert!(rate > information && rate < information + 0.4, "{rate} {information}");
    // Fewer levels are a looser bound.
    let few: Vec<NoiseLevel> = levels.iter().copied().step_by(111).collect();
    assert_eq!(few.last(), levels.last());
    let [loose, _] = code(&perfect, &few, &x0)[few.len() - 1];
    assert!(loose > 1.5 * rate, "{loose} {rate}");
}

#[test]
fn the_sum_of_the_terms_is_the_bound_that_training_logs() {
    // `lvlb_weights` of ε weigh the same errors, by another formula (Ho et al. 2020, eq. 12).
    let schedule = schedule();
    let levels = levels(&schedule);
    let x0 = PerStep::new(5, 0, 0).like(&Tensor::zeros([2, 3, 8, 8], (Kind::Double, test_device())));
    let wrong = |x: &Tensor, at: NoiseLevel| -> Denoised {
        Parameterization::Eps.to_denoised(x * (0.2 + 0.5 * at.sigma), x, at)
    };
    let found = code(&wrong, &levels, &x0);
    let weights = schedule.lvlb_weights(Parameterization::Eps);
    let mut noise = PerStep::new(3, 0, 0);
    let mut sum = found[0][0];
    for (index, at) in levels.iter().enumerate().take(999) {
        let eps = noise.like(&x0);
        let x = &x0 * at.alpha + &eps * at.sigma;
        let error = (wrong(&x, *at).eps - eps).square().mean(Kind::Double).double_value(&[]);
        sum += f64::from(weights[999 - index]) * error;
        let [rate, _] = found[index + 1];
        assert!((rate / sum - 1.).abs() < 1e-5, "{index}: {rate} {sum}");
    }
}
