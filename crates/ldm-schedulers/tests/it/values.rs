//! The schedules of the released models, at values computed from their configs.

use ldm_schedulers::{NoiseSchedule, Parameterization, ScheduleConfig};

fn schedule(linear_start: f64, linear_end: f64) -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig { linear_start, linear_end, ..ScheduleConfig::default() }).unwrap()
}

#[track_caller]
fn check_value(what: &str, got: f64, want: f64, digits: f64) {
    assert!((got / want - 1.).abs() < digits, "{what}: got {got}, want {want}");
}

/// ᾱ at steps 0, 499 and 999, and σ/α at both ends.
#[track_caller]
fn check_schedule(start: f64, end: f64, alpha_bar: [f64; 3], sigma_max: f64, sigma_min: f64) {
    let schedule = schedule(start, end);
    for (t, want) in [0, 499, 999].into_iter().zip(alpha_bar) {
        check_value("alpha_bar", schedule.level(t).alpha_bar(), want, 1e-7);
    }
    for (t, want, digits) in [(999, sigma_max, 1e-7), (0, sigma_min, 2e-5)] {
        let level = schedule.level(t);
        check_value("sigma / alpha", level.sigma / level.alpha, want, digits);
    }
}

#[test]
fn schedules_of_the_released_models() {
    check_schedule(0.00085, 0.012, [0.99915, 0.277_669_65, 0.004_660_098_5], 14.614_641, 0.029_167);
    check_schedule(0.0015, 0.0195, [0.9985, 0.115_844_49, 1.423_039_8e-4], 83.822_494, 0.038_759);
    check_schedule(0.0015, 0.0155, [0.9985, 0.151_077_42, 6.686_651_7e-4], 38.658_981, 0.038_759);
    check_schedule(0.0015, 0.0205, [0.9985, 0.108_576_00, 9.691_086_7e-5], 101.576_376, 0.038_759);
    check_schedule(0.0015, 0.015, [0.9985, 0.156_307_09, 8.125_184_7e-4], 35.067_667, 0.038_759);
}

#[test]
fn buffers_of_stable_diffusion() {
    let schedule = schedule(0.00085, 0.012);
    let betas = &schedule.buffers()[0].1;
    check_value("beta 0", betas[0].into(), 0.00085, 1e-7);
    check_value("beta 1", betas[1].into(), 0.000_854_698_655_4, 1e-7);
    assert_eq!(schedule.posterior(0).variance, 0.);
    check_value("posterior variance 1", schedule.posterior(1).variance, 4.2635e-4, 1e-5);
    check_value("posterior variance 999", schedule.posterior(999).variance, 1.199_932e-2, 1e-6);
    let weights = schedule.lvlb_weights(Parameterization::Eps);
    for (t, want) in [(0, 0.503_193_99), (1, 0.503_193_99), (2, 0.252_395_4)] {
        check_value("lvlb weight", weights[t].into(), want, 2e-7);
    }
    // Known to six digits.
    for (t, want) in [(500, 3.349_06e-3), (999, 6.101_65e-3)] {
        check_value("lvlb weight", weights[t].into(), want, 2e-6);
    }
    assert!(schedule.lvlb_weights(Parameterization::V).iter().all(|weight| *weight == 1.));
}
