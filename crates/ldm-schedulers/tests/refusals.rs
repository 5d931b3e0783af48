//! What cannot be is refused in one sentence; what can be is read back as it was written.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]

use ldm_schedulers::{NoiseSchedule, SamplerConfig, ScheduleConfig, Spacing};

#[track_caller]
fn check_config(json: &str, message: &str) {
    let config: ScheduleConfig = serde_json::from_str(json).unwrap();
    assert_eq!(NoiseSchedule::new(&config).unwrap_err().to_string(), message);
}

#[test]
fn schedules() {
    check_config(r#"{"timesteps": 0}"#, "timesteps: expected at least 2, got 0");
    check_config(r#"{"timesteps": 1}"#, "timesteps: expected at least 2, got 1");
    check_config(
        r#"{"linear_start": 0.0}"#,
        "linear: every beta lies between 0 and 1, both excluded, but number 0 is 0",
    );
    check_config(
        r#"{"linear_start": -0.1}"#,
        "linear: every beta lies between 0 and 1, both excluded, but number 0 is NaN",
    );
    check_config(
        r#"{"timesteps": 3, "beta_schedule": "sqrt_linear", "linear_end": 1.5}"#,
        "sqrt_linear: every beta lies between 0 and 1, both excluded, but number 2 is 1.5",
    );
    check_config(
        r#"{"timesteps": 2, "given_betas": [0.1, 0.2, 0.3]}"#,
        "given_betas: expected 2 values (timesteps), got 3",
    );
    check_config(
        r#"{"timesteps": 2, "given_betas": [0.1, 1.0]}"#,
        "given_betas: every beta lies between 0 and 1, both excluded, but number 1 is 1",
    );
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
    assert_eq!(error, "unknown sampler, expected one of ddpm, ddim: dddim");
    let error = "karas".parse::<Spacing>().unwrap_err().to_string();
    assert_eq!(error, "unknown spacing, expected one of uniform, quad, leading: karas");
    let error =
        serde_json::from_str::<SamplerConfig>(r#"{"name": "ddim", "etta": 1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `etta`, expected `eta`"), "{error}");
    let error =
        serde_json::from_str::<SamplerConfig>(r#"{"name": "ddpm", "eta": 1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `eta`"), "{error}");
}

#[test]
fn ladders() {
    let schedule =
        NoiseSchedule::new(&ScheduleConfig { timesteps: 50, ..ScheduleConfig::default() }).unwrap();
    for steps in [0, 51] {
        for spacing in Spacing::NAMES {
            assert_eq!(
                schedule.ladder(spacing.parse().unwrap(), steps).unwrap_err().to_string(),
                format!("steps: this model has 50 noise levels, expected 1 to 50 steps, got {steps}"),
            );
        }
    }
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
        assert!(schedule.ladder(config.spacing(), config.steps(&schedule)).is_ok());
    }
    for eta in [-0.1, 1.1, f64::NAN] {
        let error = SamplerConfig::Ddim { eta }.build(&schedule).unwrap_err().to_string();
        assert_eq!(error, format!("eta: expected a number in [0, 1], got {eta}"));
    }
    let error = SamplerConfig::Ddpm {}.with_eta(1.).unwrap_err().to_string();
    assert_eq!(error, "sampler ddpm has no eta");
}
