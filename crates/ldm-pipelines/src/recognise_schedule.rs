//! The noise schedule a checkpoint was trained with, from its own buffers.

use ldm_core::weights::Checkpoint;
use ldm_core::{Error, Result};
use ldm_schedulers::{BetaSchedule, NoiseSchedule, ScheduleConfig};
use tch::Kind;

/// What two ways to compute one f32 value may differ by.
const ROUNDING: f64 = 3e-7;

/// First and last β of every published model, all linear in √β.
const PUBLISHED: [[f64; 2]; 5] =
    [[0.00085, 0.012], [0.0015, 0.0195], [0.0015, 0.0205], [0.0015, 0.0155], [0.0015, 0.015]];

/// The schedule of `betas`, else of `alphas_cumprod`; by a formula where one gives it, else as `given_betas`. A file
/// without either has Stable Diffusion's if it reads `text`.
pub(crate) fn schedule(checkpoint: &Checkpoint, text: bool) -> Result<ScheduleConfig> {
    let read = |name: &str| -> Result<Vec<f64>> {
        let tensor = checkpoint.tensor(name)?.to_kind(Kind::Double).flatten(0, -1);
        Ok(Vec::try_from(&tensor)?)
    };
    if checkpoint.contains("betas") {
        let betas = read("betas")?;
        return Ok(by_formula(&betas, ends(&betas)).unwrap_or_else(|| given(betas)));
    }
    if checkpoint.contains("alphas_cumprod") {
        let products = read("alphas_cumprod")?;
        let mut before = 1.;
        let betas: Vec<f64> = products
            .iter()
            .map(|product| {
                let beta = 1. - product / before;
                before = *product;
                beta
            })
            .collect();
        // A product of f32 tells its factors to three digits only, so the known ends are tried as they are.
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
    Err(Error::invalid("linear_start and linear_end: the file holds neither betas nor alphas_cumprod"))
}

fn of_ends([linear_start, linear_end]: [f64; 2]) -> ScheduleConfig {
    ScheduleConfig { linear_start, linear_end, ..ScheduleConfig::default() }
}

fn given(betas: Vec<f64>) -> ScheduleConfig {
    ScheduleConfig { timesteps: betas.len(), given_betas: Some(betas), ..ScheduleConfig::default() }
}

/// The ends as somebody wrote them: the shortest decimals that are these f32.
fn ends(betas: &[f64]) -> Option<[f64; 2]> {
    let written = |beta: &f64| (*beta as f32).to_string().parse().ok();
    Some([betas.first().and_then(written)?, betas.last().and_then(written)?])
}

/// The formula that gives these β as the reference's buffer holds them.
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
