//! Properties of every schedule, level and spacing.

use ldm_core::device::test_device;
use ldm_schedulers::{BetaSchedule, NoiseLevel, NoiseSchedule, Parameterization, ScheduleConfig, Spacing};
use ldm_testing::relative_l2;
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn any_config() -> impl Strategy<Value = ScheduleConfig> {
    use BetaSchedule::{Cosine, Linear, Sqrt, SqrtLinear};
    let beta_schedule = prop::sample::select(vec![Linear, Cosine, SqrtLinear, Sqrt]);
    (beta_schedule, 2..1500_usize, 1e-5..1e-2, 1e-2..5e-2, 1e-4..2e-2).prop_map(
        |(beta_schedule, timesteps, linear_start, linear_end, cosine_s)| ScheduleConfig {
            beta_schedule,
            timesteps,
            linear_start,
            linear_end,
            cosine_s,
            ..ScheduleConfig::default()
        },
    )
}

fn any_level() -> impl Strategy<Value = NoiseLevel> {
    (0.02..1.55).prop_map(|angle: f64| NoiseLevel { t: 0., alpha: angle.cos(), sigma: angle.sin() })
}

fn values(seed: f64, count: i64) -> Tensor {
    (Tensor::arange(count, (Kind::Double, test_device())) * 1.7 + seed).sin() * 2.
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_grows_with_t(config in any_config()) {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let betas = &schedule.buffers()[0];
        prop_assert_eq!(betas.0, "betas");
        prop_assert!(betas.1.iter().all(|beta| *beta > 0. && *beta < 1.));
        let levels: Vec<NoiseLevel> = (0..config.timesteps).map(|t| schedule.level(t)).collect();
        for (t, level) in levels.iter().enumerate() {
            prop_assert_eq!(level.t, t as f64);
            prop_assert!((level.alpha.powi(2) + level.sigma.powi(2) - 1.).abs() < 1e-12);
        }
        prop_assert!(levels.windows(2).all(|pair| pair[0].alpha > pair[1].alpha));
    }

    #[test]
    fn parameterizations_invert_their_targets(at in any_level(), seed in 0.0..6.0) {
        let (x0, eps) = (values(seed, 24), values(seed + 100., 24));
        let levels = at.batch(&x0);
        let x = levels.mix(&x0, &eps);
        for parameterization in [Parameterization::Eps, Parameterization::X0, Parameterization::V] {
            let read = parameterization.to_denoised(parameterization.target(&x0, &eps, &levels), &x, at);
            prop_assert!(relative_l2(&read.x0, &x0) < 1e-12, "{parameterization:?}");
            prop_assert!(relative_l2(&read.eps, &eps) < 1e-12, "{parameterization:?}");
        }
    }

    #[test]
    fn reference_spacings_fall(config in any_config(), part in 0.0..1.0) {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let total = config.timesteps;
        let steps = 1 + (part * total as f64) as usize % total;
        for spacing in [Spacing::Uniform, Spacing::Quad, Spacing::Leading] {
            let levels = schedule.noise_levels(&spacing, steps).unwrap();
            let (end, visited) = levels.split_last().unwrap();
            prop_assert!(visited.iter().all(|level| *level == schedule.level(level.t as usize)));
            for pair in visited.windows(2) {
                let falls = if spacing == Spacing::Quad { pair[0].t >= pair[1].t } else { pair[0].t > pair[1].t };
                prop_assert!(falls, "{spacing:?}: {} then {}", pair[0].t, pair[1].t);
            }
            let last = visited.last().unwrap();
            prop_assert!(end.sigma <= last.sigma);
            if spacing == Spacing::Uniform {
                // One level can be clamped at the end of the table, where `T / steps` is 1.
                prop_assert!(visited.len() + 1 >= steps);
            } else {
                prop_assert_eq!(visited.len(), steps);
            }
        }
    }

    #[test]
    fn other_spacings_fall(config in any_config(), part in 0.0..1.0) {
        use Spacing::{Exponential, Karras, Linspace, SgmUniform, TimeUniform, Trailing};
        let schedule = NoiseSchedule::new(&config).unwrap();
        let total = config.timesteps;
        let steps = 1 + (part * total as f64) as usize % total;
        for spacing in [TimeUniform, Trailing, Linspace, Karras, Exponential, SgmUniform] {
            let levels = schedule.noise_levels(&spacing, steps).unwrap();
            prop_assert_eq!(levels.len(), steps + 1);
            prop_assert!((levels[0].noise_to_signal() / schedule.level(total - 1).noise_to_signal() - 1.).abs() < 1e-9);
            for pair in levels.windows(2) {
                prop_assert!(pair[0].noise_to_signal() > pair[1].noise_to_signal(), "{spacing:?}: {pair:?}");
                prop_assert!(pair[0].t >= pair[1].t, "{spacing:?}: {pair:?}");
            }
            prop_assert!(levels.iter().all(|at| (at.alpha.powi(2) + at.sigma.powi(2) - 1.).abs() < 1e-12));
        }
    }

    #[test]
    fn add_noise_follows_the_formula(config in any_config(), seed in 0.0..6.0, part in 0.0..1.0) {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let steps = [0, (part * config.timesteps as f64) as i64, config.timesteps as i64 - 1];
        let t = Tensor::from_slice(&steps).to_device(test_device());
        let (x0, eps) = (values(seed, 36).view([3, 3, 2, 2]), values(seed + 9., 36).view([3, 3, 2, 2]));
        let got = schedule.add_noise(&x0, &eps, &t);
        for (index, step) in steps.into_iter().enumerate() {
            let NoiseLevel { alpha, sigma, .. } = schedule.level(step as usize);
            let index = index as i64;
            let want = x0.get(index) * alpha + eps.get(index) * sigma;
            prop_assert!(relative_l2(&got.get(index), &want) < 1e-12);
        }
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let (x0, eps) = (x0.to_kind(kind), eps.to_kind(kind));
            let low = schedule.add_noise(&x0, &eps, &t);
            prop_assert_eq!(low.kind(), kind);
            prop_assert!(relative_l2(&low, &got) < 0.02);
        }
    }
}

/// An integer division of the cosine schedule's index makes 999 of 1000 betas 0.
#[test]
fn cosine_schedule_divides_as_floats() {
    let config = ScheduleConfig { beta_schedule: BetaSchedule::Cosine, ..ScheduleConfig::default() };
    let betas = NoiseSchedule::new(&config).unwrap().buffers().remove(0).1;
    assert!(betas.iter().all(|beta| *beta > 4e-5));
    for (t, want) in [(0, 4.128_422_5e-5), (1, 4.614_175e-5), (998, 0.749_999_4), (999, 0.999)] {
        assert!((betas[t] / want - 1.).abs() < 1e-5, "beta {t}: {}", betas[t]);
    }
}
