//! Error messages, and names and configs that round-trip.

use ldm_schedulers::{NoiseSchedule, SamplerConfig, ScheduleConfig, Spacing};

#[track_caller]
fn check_config(json: &str, message: &str) {
    let config: ScheduleConfig = serde_json::from_str(json).unwrap();
    assert_eq!(NoiseSchedule::new(&config).unwrap_err().to_string(), message);
}

#[test]
fn schedules() {
    check_config(r#"{"timesteps": 0}"#, "timesteps: expected 2 to 1000000, got 0");
    check_config(r#"{"timesteps": 1000000000}"#, "timesteps: expected 2 to 1000000, got 1000000000");
    check_config(r#"{"timesteps": 1}"#, "timesteps: expected 2 to 1000000, got 1");
    check_config(
        r#"{"linear_start": 0.0}"#,
        "linear: expected every beta between 0 and 1, got 0 at timestep 0",
    );
    check_config(
        r#"{"linear_start": -0.1}"#,
        "linear: expected every beta between 0 and 1, got NaN at timestep 0",
    );
    check_config(
        r#"{"timesteps": 3, "beta_schedule": "sqrt_linear", "linear_end": 1.5}"#,
        "sqrt_linear: expected every beta between 0 and 1, got 1.5 at timestep 2",
    );
    check_config(
        r#"{"timesteps": 2, "given_betas": [0.1, 0.2, 0.3]}"#,
        "given_betas: expected 2 values (timesteps), got 3",
    );
    check_config(
        r#"{"timesteps": 2, "given_betas": [0.1, 1.0]}"#,
        "given_betas: expected every beta between 0 and 1, got 1 at timestep 1",
    );
    let config = ScheduleConfig { cosine_s: f64::NAN, ..ScheduleConfig::default() };
    let error = NoiseSchedule::new(&config).unwrap_err().to_string();
    assert_eq!(error, "cosine_s: expected a finite number, got NaN");
    check_config(r#"{"v_posterior": 1.5}"#, "v_posterior: expected a number in [0, 1], got 1.5");
}

#[test]
fn fields_and_names() {
    let error = serde_json::from_str::<ScheduleConfig>(r#"{"linear_stat": 0.1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `linear_stat`, expected one of `beta_schedule`"), "{error}");
    let error =
        serde_json::from_str::<ScheduleConfig>(r#"{"beta_schedule": "cosin"}"#).unwrap_err().to_string();
    assert!(error.contains("expected one of `linear`, `cosine`, `sqrt_linear`, `sqrt`"), "{error}");
    let error = "dddim".parse::<SamplerConfig>().unwrap_err().to_string();
    assert_eq!(
        error,
        "sampler: expected one of ddpm, ddim, plms, euler, euler_a, heun, dpm2, lms, dpm_solver, dpmpp_2m, \
         dpmpp_2m_sde, dpmpp_3m_sde, unipc, lcm, got dddim"
    );
    let error = "karas".parse::<Spacing>().unwrap_err().to_string();
    assert_eq!(
        error,
        "spacing: expected one of uniform, quad, time_uniform, leading, trailing, linspace, karras, exponential, \
         sgm_uniform, align_your_steps, lcm or levels as 999,500,1, got karas"
    );
    let error =
        serde_json::from_str::<SamplerConfig>(r#"{"name": "ddim", "etta": 1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `etta`, expected `eta`"), "{error}");
    let error =
        serde_json::from_str::<SamplerConfig>(r#"{"name": "ddpm", "eta": 1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `eta`"), "{error}");
}

#[test]
fn numbers_of_steps() {
    let schedule =
        NoiseSchedule::new(&ScheduleConfig { timesteps: 50, ..ScheduleConfig::default() }).unwrap();
    for steps in [0, 51] {
        for spacing in Spacing::NAMES {
            assert_eq!(
                schedule.noise_levels(&spacing.parse().unwrap(), steps).unwrap_err().to_string(),
                format!("steps: expected 1 to 50, the timesteps of this model, got {steps}"),
            );
        }
    }
}

/// A list of levels, or the name of a spacing, for a sampler on a schedule of 1000 timesteps.
#[track_caller]
fn check_plan(sampler: &str, spacing: &str, steps: usize, message: &str) {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let config: SamplerConfig = sampler.parse().unwrap();
    let error = config.plan(&schedule, &spacing.parse().unwrap(), steps).unwrap_err().to_string();
    assert_eq!(error, message);
}

#[test]
fn lists_and_spacings_that_do_not_fit() {
    check_plan("euler", "999,500,1", 4, "steps: expected 3, the length of the list of levels, got 4");
    check_plan("euler", "1000,500", 2, "spacing: expected levels in 0 to 999, got 1000");
    check_plan("euler", "500,-1", 2, "spacing: expected levels in 0 to 999, got -1");
    check_plan("euler", "500,NaN", 2, "spacing: expected levels in 0 to 999, got NaN");
    check_plan("euler", "999,500,500", 3, "spacing: expected falling levels, got 500 after 500");
    check_plan("euler", "10,20.5", 2, "spacing: expected falling levels, got 20.5 after 10");
    check_plan("lcm", "lcm", 51, "steps: expected 1 to 50, the levels of spacing lcm, got 51");
    for sampler in ["lms", "dpm_solver", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc"] {
        let message = format!(
            "spacing: expected less noise at each step for the multistep sampler {sampler}, got level 1 twice"
        );
        check_plan(sampler, "quad", 50, &message);
    }
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    let listed: Spacing = "999, 750.5,1".parse().unwrap();
    assert_eq!(listed, Spacing::Explicit(vec![999., 750.5, 1.]));
    let levels = schedule.noise_levels(&listed, listed.steps().unwrap()).unwrap();
    assert_eq!(levels.iter().map(|level| level.t).collect::<Vec<_>>(), [999., 750.5, 1., 0.]);
}

#[test]
fn samplers() {
    let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
    for name in SamplerConfig::NAMES {
        let config: SamplerConfig = name.parse().unwrap();
        assert_eq!(config.name(), name);
        assert!(config.build(&schedule).is_ok());
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SamplerConfig>(&json).unwrap(), config);
        assert_eq!(
            serde_json::from_str::<SamplerConfig>(&format!(r#"{{"name": "{name}"}}"#)).unwrap(),
            config
        );
        assert!(config.plan(&schedule, &config.spacing(), config.steps(&schedule)).is_ok());
    }
    for config in SamplerConfig::all() {
        let name = config.name();
        if config.eta().is_none() {
            let error = config.with_eta(1.).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "eta: expected a sampler that has it (ddim, euler_a, dpmpp_2m_sde, dpmpp_3m_sde), got {name}"
                )
            );
            continue;
        }
        assert_eq!(config.with_eta(0.25).unwrap().eta(), Some(0.25));
        for eta in [-0.1, 1.1, f64::NAN] {
            let error = config.with_eta(eta).unwrap().build(&schedule).unwrap_err().to_string();
            assert_eq!(error, format!("eta: expected a number in [0, 1], got {eta}"), "{name}");
        }
    }
    let error = SamplerConfig::Unipc { order: 4, lower_order_final: true }.build(&schedule).unwrap_err();
    assert_eq!(error.to_string(), "order: expected 1, 2 or 3, got 4");
}
