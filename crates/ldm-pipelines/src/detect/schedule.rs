//! Noise schedules inferred from the buffers of a checkpoint.

use ldm_checkpoint::{Axis, Checkpoint};
use ldm_core::{Error, Result};
use ldm_schedulers::{BetaSchedule, NoiseSchedule, ScheduleConfig};
use tch::Kind;

/// The most timesteps of a schedule in a file; published models have a thousand.
const TIMESTEPS: i64 = 100_000;

/// The relative rounding error of a value computed in f32.
const ROUNDING: f64 = 3e-7;

/// First and last β of every published model, all linear in √β.
const PUBLISHED: [[f64; 2]; 5] =
    [[0.00085, 0.012], [0.0015, 0.0195], [0.0015, 0.0205], [0.0015, 0.0155], [0.0015, 0.015]];

/// Infers the schedule from `betas`, else from `alphas_cumprod`: as a formula where one matches, else as `given_betas`.
/// A text model without either has Stable Diffusion's.
pub(crate) fn schedule(checkpoint: &Checkpoint, text: bool) -> Result<ScheduleConfig> {
    if checkpoint.contains("betas") {
        let betas = read(checkpoint, "betas")?;
        return Ok(by_formula(&betas, ends(&betas)).unwrap_or_else(|| given(betas)));
    }
    if checkpoint.contains("alphas_cumprod") {
        let products = read(checkpoint, "alphas_cumprod")?;
        let mut before = 1.;
        let betas: Vec<f64> = products
            .iter()
            .map(|product| {
                let beta = 1. - product / before;
                before = *product;
                beta
            })
            .collect();
        // f32 products determine β to three digits only, so the published ends are tried first.
        return Ok(PUBLISHED
            .into_iter()
            .find_map(|ends| {
                let config = ScheduleConfig { timesteps: betas.len(), ..of_ends(ends) };
                let buffers = NoiseSchedule::new(&config).ok()?.buffers();
                let (_, known) = buffers.into_iter().find(|(name, _)| *name == "alphas_cumprod")?;
                near(&known, &products, 1e-6).then_some(config)
            })
            .unwrap_or_else(|| given(betas)));
    }
    if text {
        return Ok(of_ends(PUBLISHED[0]));
    }
    Err(Error::expected("linear_start and linear_end", "betas or alphas_cumprod in the file", "neither"))
}

/// Checks that the buffers of a file are those of its config's schedule: otherwise the weights fit and every image is
/// wrong. CompVis uses the file's buffers.
pub(crate) fn check(checkpoint: &Checkpoint, schedule: &NoiseSchedule) -> Result<()> {
    let Some(difference) = differs(checkpoint, schedule)? else { return Ok(()) };
    let why = format!("expected the noise schedule of the config, got another: {difference} in the config");
    Err(Error::format(checkpoint.path(), why))
}

/// Describes the difference of a file's buffers, where it has some, from those of `schedule`.
pub(crate) fn differs(checkpoint: &Checkpoint, schedule: &NoiseSchedule) -> Result<Option<String>> {
    for (name, made) in schedule.buffers() {
        if !["betas", "alphas_cumprod"].contains(&name) || !checkpoint.contains(name) {
            continue;
        }
        let found = read(checkpoint, name)?;
        // Tolerant of buffers in half precision.
        let close = |(made, found): (&f32, &f64)| {
            let made = f64::from(*made);
            (made - found).abs() <= 1e-2 * made.abs() + 1e-6
        };
        if made.len() != found.len() || !made.iter().zip(&found).all(close) {
            let made: Vec<f64> = made.into_iter().map(f64::from).collect();
            return Ok(Some(format!("`{name}` {} in the file, {}", shown(&found), shown(&made))));
        }
    }
    Ok(None)
}

fn shown(values: &[f64]) -> String {
    let [first, .., last] = values else { return format!("of {} values", values.len()) };
    format!("from {first:.3e} to {last:.3e} over {} steps", values.len())
}

fn read(checkpoint: &Checkpoint, name: &str) -> Result<Vec<f64>> {
    let count = checkpoint.info(name).map_or(0, |info| info.shape.iter().product());
    if count > TIMESTEPS {
        let why = format!("tensor `{name}`: expected at most {TIMESTEPS} timesteps, got {count}");
        return Err(Error::format(checkpoint.path(), why));
    }
    let tensor = checkpoint.floats(name, &[Axis::Any("T")])?.to_kind(Kind::Double);
    Ok(Vec::try_from(&tensor)?)
}

fn of_ends([linear_start, linear_end]: [f64; 2]) -> ScheduleConfig {
    ScheduleConfig { linear_start, linear_end, ..ScheduleConfig::default() }
}

fn given(betas: Vec<f64>) -> ScheduleConfig {
    ScheduleConfig { timesteps: betas.len(), given_betas: Some(betas), ..ScheduleConfig::default() }
}

/// The ends as written in a config: the shortest decimals of the f32 values.
fn ends(betas: &[f64]) -> Option<[f64; 2]> {
    let written = |beta: &f64| (*beta as f32).to_string().parse().ok();
    Some([betas.first().and_then(written)?, betas.last().and_then(written)?])
}

/// The schedule whose β equal these, as stored in CompVis' buffer.
fn by_formula(betas: &[f64], ends: Option<[f64; 2]>) -> Option<ScheduleConfig> {
    let [start, end] = ends?;
    [BetaSchedule::Linear, BetaSchedule::SqrtLinear, BetaSchedule::Cosine].into_iter().find_map(
        |beta_schedule| {
            let known = if beta_schedule == BetaSchedule::Cosine {
                ScheduleConfig::default()
            } else {
                of_ends([start, end])
            };
            let config = ScheduleConfig { beta_schedule, timesteps: betas.len(), ..known };
            let buffers = NoiseSchedule::new(&config).ok()?.buffers();
            let (_, made) = buffers.into_iter().find(|(name, _)| *name == "betas")?;
            near(&made, betas, ROUNDING).then_some(config)
        },
    )
}

fn near(made: &[f32], found: &[f64], tolerance: f64) -> bool {
    made.len() == found.len()
        && made
            .iter()
            .zip(found)
            .all(|(made, found)| (f64::from(*made) - found).abs() <= tolerance * found.abs())
}
